"""Free logical consequences of significant results: a finer grouping has no smaller gap than a coarser one.

The rates of coarser groups are averages of those of the finer ones that make them up, so they lie between them: a
largest difference, or smallest ratio, over the intersection of features bounds that of every feature among them; and
one over several rates bounds that over some of them (equalized odds, equal opportunity). Where the wider claim is shown
the narrower one is true too, and where the narrower one is shown to be violated so is the wider; claims that follow
from true claims are true, so no false one is added (closed testing: Marcus, Peritz and Gabriel, Biometrika 63, 1976).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from auditor.judging.judgement import Judgement
from auditor.judging.measurement import Outcome
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.rates import RateTable


def apply_implications(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The judgements in order, with logical consequences of others; intervals are tightened accordingly."""
    said = list(judgements)
    gaps = [
        (i, j)
        for i, j in enumerate(judgements)
        if j.measurement and isinstance(j.measurement.estimate, WorstDifference | WorstRatio)
    ]
    for i, one in gaps:
        if one.outcome is not Outcome.INCONCLUSIVE or one.measurement is None or one.measurement.too_few:
            continue
        for _, other in gaps:
            # What another budget allows itself is no proof in a stricter one.
            if other.budget != one.budget:
                continue
            if other.outcome is Outcome.PASS and _bounds(other, one):
                said[i] = _follows(one, other, "It can be no further from the ideal than")
                break
            if other.outcome is Outcome.FAIL and _bounds(one, other):
                said[i] = _follows(one, other, "It can be no nearer to the ideal than")
                break
    return said


def _bounds(wider: Judgement, narrower: Judgement) -> bool:
    """Whether the wider number, within its bound, puts the narrower one within its own."""
    a, b, first, second = wider.measurement, narrower.measurement, wider.criterion, narrower.criterion
    if a is None or b is None or first is None or second is None or a is b:
        return False
    if (
        type(a.estimate) is not type(b.estimate)
        or wider.probe != narrower.probe
        or a.at != b.at
        or a.method != b.method
    ):
        return False
    if first.direction != second.direction or isinstance(first.bound, tuple) or isinstance(second.bound, tuple):
        return False
    tighter = first.bound <= second.bound if first.direction == "at_most" else first.bound >= second.bound
    if not tighter or not isinstance(a.estimate, WorstDifference | WorstRatio):
        return False
    finer = set(b.sensitive) < set(a.sensitive)
    return isinstance(b.estimate, WorstDifference | WorstRatio) and all(
        any(_covers(fine, coarse, finer=finer) for fine in a.estimate.tables) for coarse in b.estimate.tables
    )


def _covers(fine: RateTable, coarse: RateTable, *, finer: bool) -> bool:
    """Whether the coarse table is the fine one, or of groups that the groups of the fine one make up."""
    if fine == coarse:
        return True
    # Of the same rows: where small groups were left out of either there is nothing to conclude.
    return (
        finer
        and fine.rate == coarse.rate
        and all(sum(getattr(fine, of)) == sum(getattr(coarse, of)) for of in ("n", "successes"))
    )


def _follows(one: Judgement, other: Judgement, phrase: str) -> Judgement:
    """``one`` with the outcome of ``other``, and with the end of its interval that follows from it."""
    (low, high), (least, most) = one.interval or (0.0, 0.0), other.interval or (0.0, 0.0)
    passes, at_most = other.outcome is Outcome.PASS, one.criterion is not None and one.criterion.direction == "at_most"
    # What bounds a difference from above on a PASS bounds it from below on a FAIL, and a ratio the other way round.
    interval = (low, min(high, most)) if passes == at_most else (max(low, least), high)
    return replace(
        one,
        outcome=other.outcome,
        interval=interval,
        p_fail_adjusted=one.p_fail_adjusted if passes else other.p_fail_adjusted,
        p_pass_adjusted=other.p_pass_adjusted if passes else one.p_pass_adjusted,
        minimum_detectable_effect=None,
        n_required=None,
        alone=None,
        said_alone="",
        reason=f"{phrase} {other.metric} by {' x '.join(other.measurement.sensitive if other.measurement else ())}, "
        f"which is a {other.outcome.value}.",
    )
