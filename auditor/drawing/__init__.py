"""Figures as data, and figures drawn: what a record's numbers look like, the same in every format."""
