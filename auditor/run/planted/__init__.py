"""Planted controls: twins of the audited model whose faults are known, measured as the model itself is."""
