"""Federated training: what a run of rounds claims and does, what it leaks, and what one update gives away."""
