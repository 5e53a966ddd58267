"""Example trainings with audits: each file runs by itself."""
