"""Differential privacy: the budget of a run, its leakage, and set-up errors that break its guarantee."""
