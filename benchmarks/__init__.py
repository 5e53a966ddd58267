"""Benchmarks against a peer in the same run; by hand, `python -m benchmarks.NAME [--json]`."""
