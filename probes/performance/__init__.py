"""Probes of performance: the usefulness of a model overall, before any comparison of groups."""
