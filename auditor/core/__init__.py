"""Errors, files, rows and random generators: used by every other package."""
