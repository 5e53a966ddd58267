"""Alpha spending over many looks at the same rows: the share of the error rate for each look."""

from __future__ import annotations


def look_share(look: int, planned: int | None = None) -> float:
    """The share of an error rate that the ``look``-th of a series may spend.

    ``1 / planned`` where the number of looks is fixed beforehand, and 0 after the last. Else ``1 / (k (k + 1))``, which
    comes to 1 over all k and to ``K / (K + 1)`` over the first K, so that no number need be known. Rows stay, and what
    is asked of them may be chosen by what earlier looks said: nothing but the sum of the levels bounds the chance of
    any false outcome then (Bonferroni), as in alpha-spending with a sequence of one's choice (Lan and DeMets,
    Biometrika 70, 1983). Raises ValueError where ``look`` or ``planned`` is below 1.
    """
    if look < 1 or (planned is not None and planned < 1):
        raise ValueError(f"looks are counted from 1, not {look} of {planned}")
    if planned is None:
        return 1.0 / (look * (look + 1))
    return 1.0 / planned if look <= planned else 0.0
