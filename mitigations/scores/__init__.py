"""Post-processing: mitigations that change the use of a model's scores."""
