"""Items that two models decided: how many they decide differently, and which way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.stats

from auditor.finding.measurement import Measurement
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.rates import Proportion

BoolArray = npt.NDArray[np.bool_]
# A statement in words needs a level of its own; what is judged has that of the scan.
_SAID_AT = 0.95


def flips_in_words(flipped: int, n: int, estimate: AnyEstimate, unit: str, *, worse: bool = False) -> str:
    """How many items flipped, or with ``worse`` flipped from right to wrong; of none, how many may all the same."""
    if not flipped:
        most = estimate.interval(_SAID_AT)[1]
        return f"no {'negative ' if worse else ''}flip in {n:,} {unit}, at most {most:.3g} of all such at 95 %"
    return f"{flipped:,} of {n:,} {unit} {'were right and are wrong' if worse else 'flipped'}"


def way_in_words(one_way: int, flipped: int, one: str, other: str) -> str:
    """Which way items flipped, with McNemar's exact two-sided p-value; "" where none did."""
    if not flipped:
        return ""
    p = float(scipy.stats.binomtest(one_way, flipped).pvalue)
    return f"{one_way:,} {one}, {flipped - one_way:,} {other} (exact McNemar p = {p:.2g})"


def direction(
    one_way: BoolArray, estimate: AnyEstimate | None, method: str, group: dict[str, str], detail: str
) -> list[Measurement]:
    """The share of the flipped items, (k,) whether each went one way; nothing where none flipped.

    ``estimate``: that of items that depend on each other; None where they do not.
    """
    k = int(one_way.size)
    if not k:
        return []
    found = Proportion(successes=int(one_way.sum()), n=k) if estimate is None else estimate
    return [
        Measurement(metric="churn_direction", method=method, estimate=found, n_samples=k, group=group, detail=detail)
    ]


def most_flipped(flipped: BoolArray, names: Sequence[str]) -> str:
    """The group of which most flipped, in words; "" where there is one group, or none flipped."""
    if not flipped.any() or len(set(names)) < 2:
        return ""
    codes = {name: flipped[[i for i, other in enumerate(names) if other == name]] for name in sorted(set(names))}
    worst = max(codes, key=lambda name: float(codes[name].mean()))
    return f"most among {worst}: {int(codes[worst].sum()):,} of {codes[worst].size:,}"


def joined(*parts: str) -> str:
    """Parts of a detail, without those that say nothing."""
    return "; ".join(part for part in parts if part)
