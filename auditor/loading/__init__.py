"""Safe loading of a model from a path: file type by content; no code runs without an explicit flag."""
