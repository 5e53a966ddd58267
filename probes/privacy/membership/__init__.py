"""Membership inference: one module per attack, each named as its paper, and what their scores are measured by.

``pool`` holds the rows that take part, ``shadows`` the models trained on halves of them, ``metrics`` what is measured
of a score, ``probe`` the question asked of a model.
"""
