"""Post-processing: mitigations that change what is made of a model's scores."""
