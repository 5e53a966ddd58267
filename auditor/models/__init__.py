"""Audited models: the common interface, the kinds of models, and saving."""
