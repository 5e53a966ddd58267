"""Probes that audit a detector of synthetic images or sound: what it is worth, what it lives on, what breaks it."""
