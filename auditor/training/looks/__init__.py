"""Looks at a model while it learns: what one says, what they may spend and cost, how they are drawn and kept."""
