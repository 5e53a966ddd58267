"""Probes during training: the same questions as on the command line, for a model that is being trained."""
