"""Model training: the shared training loop, ensembles, multiple devices, and recipes."""
