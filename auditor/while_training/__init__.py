"""Probes inside training: the same questions as on the command line, asked while a model learns."""
