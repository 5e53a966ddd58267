"""Model files read as data: archives, pickles, tensors and folders; no code in them runs."""
