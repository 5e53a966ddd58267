"""What is audited: a model under one face, its kinds, and how it is saved."""
