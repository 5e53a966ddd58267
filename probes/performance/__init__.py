"""Probes of performance: what a model is worth at all, before anybody asks for whom."""
