"""Training models: the one loop, ensembles, several devices, and its recipes."""
