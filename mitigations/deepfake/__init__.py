"""Detectors of synthetic media: how they are trained, calibrated and measured on kinds they were not trained on."""
