"""Membership inference: one module per attack, named after its paper, and the metrics of attack scores.

``pool`` holds the rows that take part, ``shadows`` the models trained on halves of them, ``metrics`` what is measured
of a score, ``probe`` the question asked of a model.
"""
