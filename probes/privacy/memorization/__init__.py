"""Memorization of a language model: canaries, verbatim text, membership, personal data, benchmarks."""
