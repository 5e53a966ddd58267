"""Items decided by two models: the number of different decisions, and their direction."""

from __future__ import annotations

from collections.abc import Sequence

import scipy.stats

from auditor.core.rows import BoolArray
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion

# A statement in words needs a level of its own; what is judged has that of the scan.
_SAID_AT = 0.95


def flips_in_words(flipped: int, n: int, estimate: AnyEstimate, unit: str, *, worse: bool = False) -> str:
    """The number of flipped items, or of newly wrong ones with ``worse``; for zero, the possible number."""
    if not flipped:
        most = estimate.interval(_SAID_AT)[1]
        return f"no {'negative ' if worse else ''}flip in {n:,} {unit}, at most {most:.3g} of all such at 95 %"
    return f"{flipped:,} of {n:,} {unit} {'were right and are wrong' if worse else 'flipped'}"


def way_in_words(one_way: int, flipped: int, one: str, other: str) -> str:
    """The direction of flips, with McNemar's exact two-sided p-value; "" without flips."""
    if not flipped:
        return ""
    p = float(scipy.stats.binomtest(one_way, flipped).pvalue)
    return f"{one_way:,} {one}, {flipped - one_way:,} {other} (exact McNemar p = {p:.2g})"


def direction(
    one_way: BoolArray, estimate: AnyEstimate | None, method: str, group: dict[str, str], detail: str
) -> list[Measurement]:
    """The share of flipped items, (k,), in one direction; empty without flips.

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
    """The group with the most flips, in words; "" with one group, or without flips."""
    if not flipped.any() or len(set(names)) < 2:
        return ""
    codes = {name: flipped[[i for i, other in enumerate(names) if other == name]] for name in sorted(set(names))}
    worst = max(codes, key=lambda name: float(codes[name].mean()))
    return f"most among {worst}: {int(codes[worst].sum()):,} of {codes[worst].size:,}"


def join_details(*parts: str) -> str:
    """The non-empty parts of a detail."""
    return "; ".join(part for part in parts if part)
