"""Differential privacy: what a run spends, what it leaks, and what in its set-up breaks its guarantee."""
