"""In-processing: mitigations that change the training of a model."""
