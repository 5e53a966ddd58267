"""Detectors of synthetic media: training, calibration and evaluation on unseen kinds."""
