"""Probes of language models: one module per probe, one per published benchmark."""
