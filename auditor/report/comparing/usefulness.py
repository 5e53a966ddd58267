"""Usefulness of the later model: a model with the same answer for every row closes every gap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from auditor.judging.judgement import SAME_FOR_ALL
from auditor.judging.measurement import Pillar
from auditor.report.comparing.side_by_side import Both, Row, Side, of_rate, row
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.earlier_audits import Key, key_of
from auditor.report.record.number_text import number, signed
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Estimate
from auditor.statistics.estimate_kinds import AnyEstimate, unjudgeable
from auditor.statistics.tradeoff_statistics import CommonestChange, MeanChange

PERFORMANCE: Pillar = "performance"
BALANCED = "balanced_accuracy"
COMMONEST = "commonest_decision_share"
# What each kind of model is worth; the first that both audits have is what may be lower by the margin.
WORTH = ("accuracy", "error_gain", "word_order_accuracy")
_FAMILY = ("roc_auc", "expected_calibration_error", *WORTH[1:])
Standing = Literal["kept", "failed", "not shown"]


@dataclass(frozen=True, kw_only=True)
class Usefulness:
    """The usefulness of the later model compared with the earlier one.

    ``rows``: balanced accuracy, area under the curve, calibration error and the share of the commonest decision, or
    what there is of another kind of model, judged. ``worth``: accuracy, or what stands for it, at the level of "kept".
    ``standing``: "failed" where accuracy or balanced accuracy is shown to be lower by more than ``margin``, or every
    row gets one answer where before they did not; "kept" where accuracy is shown to be lower by no more than that, and
    the answers are shown to know something of the rows; else "not shown". ``reasons``: why, in sentences.
    ``same_answer``: what every row is answered now, in a sentence, or "". ``unskilled``: that the answers are not shown
    to know anything of the rows, in a sentence, or "".
    """

    rows: tuple[Row, ...]
    worth: Row | None
    margin: float
    standing: Standing
    reasons: tuple[str, ...]
    same_answer: str
    unskilled: str


def usefulness(
    both: Both, after: AuditReport, *, headline: Row | None, margin: float, alpha: float, error_rate: float
) -> Usefulness:
    """The family with each of its m intervals at ``alpha / m`` per side; ``headline``: accuracy as judged.

    "kept" rests on two tests at ``error_rate`` each, all of which must come out (intersection-union): where one of them
    is false, the others cannot make it more likely.
    """
    decided, recalled = _parts(both, "decision_share"), tuple(part for _, part in _parts(both, "recall"))
    recalls = MeanChange(parts=recalled) if recalled else None
    # Of these two the audits' own numbers, where nothing was paired.
    names = ["accuracy"] * (headline is None) + [BALANCED] * (not recalls) + list(_FAMILY)
    taken = [key for name in names for key in _performance_keys(both) if key[2:] == (name, ())]
    taken = [key for key in taken if not unjudgeable(_estimate(both.second[key]))]
    m = max(len(taken) + bool(recalls) + bool(decided), 1)
    rows = [_balanced(both, recalls, alpha / m)] if recalls else []
    rows += [both.row_for(key, alpha / m) for key in taken]
    rows += [_commonest(both, decided, alpha / m)] if decided else []
    worth = _utility_row(both, error_rate)
    same, was_the_same = _same_answer(both, after, decided)
    failed = tuple(_failures([*rows, *([headline] if headline else [])], margin))
    if same and not was_the_same:
        failed = (same, *failed)
    unskilled = same or _unskilled(both, after, recalls, error_rate)
    open_ = () if failed else tuple(said for said in (unskilled, _too_low(worth, margin)) if said)
    return Usefulness(
        rows=tuple(rows),
        worth=worth,
        margin=margin,
        standing="failed" if failed else "not shown" if open_ else "kept",
        reasons=failed or open_ or (_utility_kept_text(worth, margin, error_rate),),
        same_answer=same,
        unskilled=unskilled,
    )


def _performance_keys(both: Both) -> list[Key]:
    return [key for key in both.shared_keys if both.second[key].pillar == PERFORMANCE]


def in_family(finding: Finding) -> bool:
    """Whether a number is judged in the usefulness family, independent of its criterion."""
    return finding.pillar == PERFORMANCE and finding.metric in _FAMILY and not key_of(finding)[3]


def doubted(usefulness: Usefulness, reason: str) -> Usefulness:
    """The same result, for rows that support no conclusion except a constant answer."""
    rows = tuple(
        replace(r, verdict="no change shown") if r.verdict in ("better", "worse") else r for r in usefulness.rows
    )
    reasons = (usefulness.same_answer,) if usefulness.same_answer else (reason,)
    failed = usefulness.standing == "failed" and reasons[0] in usefulness.reasons
    return replace(usefulness, rows=rows, standing="failed" if failed else "not shown", reasons=reasons)


# ---- the numbers ---------------------------------------------------------------------------------------------------


def _estimate(finding: Finding) -> AnyEstimate:
    assert finding.estimate is not None
    return finding.estimate


def _parts(both: Both, metric: str) -> list[tuple[str, RateChange]]:
    """A rate of every class or decision, by its name."""
    return [
        (str(next(iter(f.at.values()))), f.estimate)
        for f in both.of_all(metric)
        if f.at and isinstance(f.estimate, RateChange) and f.estimate.n
    ]


def _balanced(both: Both, change: MeanChange, alpha: float) -> Row:
    """Balanced accuracy before and after, and its paired change."""
    sides = tuple(Side.from_estimate(change.mean(after=after), alpha) for after in (False, True))
    key = (both.change_probe, "paired", BALANCED, ())
    return row(key, PERFORMANCE, sides=sides, ideal=1.0, change=change, alpha=alpha, with_verdict=True)


def _commonest(both: Both, parts: Sequence[tuple[str, RateChange]], alpha: float) -> Row:
    """The share of the commonest decision: worse where it has risen above that of the commonest label.

    Never better: another threshold makes it fall, which is nothing that anybody has gained.
    """
    change = CommonestChange(parts=tuple(part for _, part in parts))
    before, after = (
        Side(value=change.commonest(after=late), interval=change.commonest_bounds(alpha, after=late))
        for late in (False, True)
    )
    key, sides = (both.change_probe, "paired", COMMONEST, ()), (before, after)
    found = row(key, PERFORMANCE, sides=sides, ideal=None, change=change, alpha=alpha, with_verdict=True)
    base = next((f.value for f in both.second.values() if f.metric == "base_rate" and not f.group), None)
    if base is None or before.interval is None or after.interval is None or found.interval is None:
        return found
    further = found.interval[0] > 0.0 and after.interval[0] > base
    return replace(found, ideal=base, verdict="worse" if further else "no change shown")


def _utility_row(both: Both, level: float) -> Row | None:
    """Accuracy at ``level`` on either side, or what stands for it; None where neither was measured."""
    for metric in WORTH:
        keys = [key for key in _performance_keys(both) if key[2:] == (metric, ())]
        if keys and not unjudgeable(_estimate(both.second[keys[0]])):
            return both.row_for(keys[0], level)
        if both.of_all(metric):
            return of_rate(both.of_all(metric)[0], level)
    return None


# ---- what they come to ---------------------------------------------------------------------------------------------


def _same_answer(both: Both, after: AuditReport, decision_rates: Sequence[tuple[str, RateChange]]) -> tuple[str, bool]:
    """What every row is answered, in a sentence, or "", and whether every row was answered alike before."""
    for name, part in decision_rates:
        if part.rate(after=True).successes == part.n > 1:
            favourable = after.data.positive
            whom = "" if favourable is None else ": it approves everybody" if name == favourable else ""
            if favourable is not None and name != favourable:
                whom = ": it refuses everybody" if len(decision_rates) <= 2 else ": it approves nobody"
            was_the_same = max(other.rate(after=False).successes for _, other in decision_rates) == part.n
            before = "as the model before did" if was_the_same else "which the model before did not"
            return (
                f"The new model answers {name!r} for all {part.n:,} rows, {before}{whom}. A model that tells no rows "
                "apart closes any gap, and is of no use."
            ), was_the_same
    if decision_rates:
        return "", False
    told = [next((f.vacuous for f in found.values() if f.vacuous.startswith(SAME_FOR_ALL)), "")
            for found in (both.second, both.first)]  # fmt: skip
    return told[0], bool(told[1])


def _failures(rows: Sequence[Row], margin: float) -> Iterator[str]:
    for r in rows:
        if r.metric in (BALANCED, *WORTH) and r.interval is not None and r.interval[1] < -margin:
            yield (
                f"{r.metric} is shown to have fallen by more than {margin:g}: from {number(r.before.value)} to "
                f"{number(r.after.value)}, by at least {number(-r.interval[1])}."
            )


def _too_low(skill: Row | None, margin: float) -> str:
    """That what the model is worth is not shown to be within the margin, or ""."""
    if skill is None or skill.interval is None:
        return (
            "What the model is worth was not measured in both audits, so nothing shows that it is of use: add true "
            "labels (--target) and the probe performance, and make the later audit with --reference the earlier model."
        )
    if skill.interval[0] >= -margin:
        return ""
    low = signed(skill.interval[0])
    return f"{skill.metric} is not shown to have fallen by no more than {margin:g}: it may have changed by {low}."


def _unskilled(both: Both, after: AuditReport, recalls: MeanChange | None, level: float) -> str:
    """That the answers are not shown to know anything of the rows, or ""."""
    name, chance = BALANCED, 1.0 / max(len(recalls.parts) if recalls else len(after.model.classes), 1)
    known: Estimate | None = recalls.mean(after=True) if recalls else None
    measured = [f for f in both.second.values() if f.estimate is not None and math.isfinite(f.estimate.value)]
    for f in [f for f in measured if not f.group and f.pillar == PERFORMANCE] if known is None else ():
        if f.metric == BALANCED or (known is None and f.chance is not None):
            name, known = str(f.metric), f.estimate
            chance = chance if f.chance is None else f.chance
    if known is None or known.bounds(level)[0] > chance:
        return ""
    return (
        f"The answers are not shown to know anything of the rows: {name} is {number(known.value)}, at least "
        f"{number(known.bounds(level)[0])}, and {number(chance)} is chance."
    )


def _utility_kept_text(skill: Row | None, margin: float, level: float) -> str:
    assert skill is not None and skill.interval is not None
    fell = "not to have fallen" if skill.interval[0] >= 0.0 else f"to have fallen by no more than {margin:g}"
    return (
        f"The {skill.metric} is shown {fell}: it changed by {signed(skill.difference)}, at least "
        f"{signed(skill.interval[0])}, with a chance of error of at most {100.0 * level:.3g} %."
    )
