"""Probes of robustness."""
