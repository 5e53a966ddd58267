"""Training with differential privacy: clipped gradients, noise, and compatible layers."""
