"""Probes of privacy."""
