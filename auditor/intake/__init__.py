"""From a path to a model, safely: a file is what its content says, and nothing in it runs unless a flag allows it."""
