"""Pre-processing: mitigations that change what a model learns from."""
