"""The files that a model lies in, read as data: archives, pickles, tensors, folders; nothing in them runs."""
