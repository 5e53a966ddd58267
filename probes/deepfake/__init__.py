"""Probes of detectors of synthetic images or sound: performance, shortcuts, and weaknesses."""
