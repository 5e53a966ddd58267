"""In-processing: mitigations that change how a model learns."""
