"""Two audits or many, set against each other."""
