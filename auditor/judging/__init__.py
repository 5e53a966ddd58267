"""Measurements, requirements, and judgements of measurements against requirements."""
