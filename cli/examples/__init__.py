"""Audits inside trainings: each file runs by itself."""
