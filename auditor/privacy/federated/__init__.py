"""Federated training: claims and behaviour of a run, its leakage, and the information in single updates."""
