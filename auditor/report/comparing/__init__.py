"""Comparison of two or more audits."""
