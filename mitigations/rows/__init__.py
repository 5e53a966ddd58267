"""Pre-processing: mitigations that change the training data of a model."""
