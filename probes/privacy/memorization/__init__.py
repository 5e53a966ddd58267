"""What can be got out of a language model: canaries, verbatim training text, membership, personal data, benchmarks."""
