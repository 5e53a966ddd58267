"""Training with differential privacy: clipped gradients, noise, and layers that allow them."""
