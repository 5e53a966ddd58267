"""Probes of fairness."""
