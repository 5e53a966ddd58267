"""Two audits side by side: what became better, what worse, and what only looks so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from auditor.errors import UsageError
from auditor.finding.measurement import Outcome, Pillar
from auditor.report.record import INTAKE, AuditReport, Finding
from auditor.statistics.changes import GapChange, RateChange, change_bounds
from auditor.statistics.kinds import AnyEstimate

Verdict = Literal["better", "worse", "no change shown", "not judged", "undefined"]
CHANGE = "change"
_SUFFIX = "_change"
_SHOWN_LEVEL = 0.025
# An area under the ROC curve below which a reader of the group does hardly better than a coin.
_READABLE = 0.55
# Kinds of remarks that rest on a sample, and share the comparison's error rate.
_KINDS_OF_REMARKS = 4


@dataclass(frozen=True, kw_only=True)
class Side:
    """One number of one audit, with its interval at the comparison's level; NaN and None where it is undefined."""

    value: float
    interval: tuple[float, float] | None
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number before and after, and the difference ``after - before`` with its interval.

    ``paired``: the difference was taken row by row on the same data (the ``change`` probe), and is much better known
    than that of the two numbers. ``verdict`` is about the distance from ``ideal``, is "better" or "worse" only where
    the whole interval says so, and is given for judged numbers only.
    """

    pillar: Pillar
    probe: str
    method: str | None
    metric: str
    of: tuple[tuple[str, str | float], ...]
    ideal: float | None
    before: Side
    after: Side
    difference: float
    interval: tuple[float, float] | None
    paired: bool
    verdict: Verdict

    @property
    def name(self) -> str:
        """The metric, and what it was taken of, on one line."""
        where = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.of]
        if self.method not in (None, "between_groups", "paired"):
            where.append(str(self.method))
        return f"{self.metric} ({', '.join(where)})" if where else self.metric


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every number that both audits have: ``rows`` that are judged, ``others``, and ``details`` by group and the like.

    Judged are accuracy and what the later audit has a criterion for, so m is fixed before any number is read: each of
    their intervals misses with at most ``error_rate / m`` on either side, any other with at most 2.5 %.
    ``only_before`` and
    ``only_after``: metrics that one audit alone has. ``remarks``: what usually goes wrong, where whole intervals say
    that it did; the chance that any of those that rest on a sample is false is at most ``error_rate``.
    ``made_by``: the mitigation between them and its notes, where there was one.
    """

    before: AuditReport
    after: AuditReport
    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    details: tuple[Row, ...]
    error_rate: float
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    remarks: tuple[str, ...]
    made_by: tuple[str, ...] = ()

    @property
    def m(self) -> int:
        """How many differences are judged."""
        return len(self.rows)


_Key = tuple[str, str | None, str, tuple[tuple[str, str | float], ...]]


def compare(before: AuditReport, after: AuditReport, *, error_rate: float = 0.05) -> Comparison:
    """Puts two audits of the same question side by side.

    The two numbers of a row share their rows of data or not, so their difference is bounded from either's own bounds at
    half the level each, which holds however they depend on one another. Where the later audit was made with
    ``--reference`` the earlier model, accuracy and gaps have paired differences, and those are taken. Over all m
    judged rows the chance of any false "better" is at most ``error_rate``, and so is that of any false "worse"
    (Bonferroni).

    Raises UsageError where the two audits are of different data, targets or favourable labels.
    """
    _check(before, after)
    first, second = _numbers(before), _numbers(after)
    shared = [key for key in first if key in second]
    held_to = {_key(f) for f in after.findings if f.metric is not None and f.criterion is not None}
    changes = _numbers(after, changes=True)
    overall = [f for f in changes.values() if f.metric == "accuracy_change" and not f.group]
    judged = [key for key in shared if key in held_to]
    alpha = error_rate / max(len(judged) + len(overall), 1)
    headlines = tuple(
        [_accuracy(f, alpha, judged=True) for f in overall]
        + [_row(key, first[key], second[key], changes, alpha, judged=True) for key in judged]
    )
    rest = [
        _row(key, first[key], second[key], changes, _SHOWN_LEVEL, judged=False) for key in shared if key not in held_to
    ]
    rest += [
        _accuracy(f, _SHOWN_LEVEL, judged=False) for f in changes.values() if f.metric == "accuracy_change" and f.group
    ]
    others = tuple(row for row in rest if not _is_detail(row))
    details = tuple(row for row in rest if _is_detail(row))
    return Comparison(
        before=before,
        after=after,
        rows=headlines,
        others=others,
        details=details,
        error_rate=error_rate,
        only_before=tuple(dict.fromkeys(key[2] for key in first if key not in second)),
        only_after=tuple(dict.fromkeys(key[2] for key in second if key not in first)),
        remarks=tuple(_remarks(_Both(first, second, changes), [*headlines, *others], after, error_rate)),
    )


def _check(before: AuditReport, after: AuditReport) -> None:
    for what, a, b in (
        ("data", before.data.sha256, after.data.sha256),
        ("target", before.data.target, after.data.target),
        ("favourable label", before.data.positive, after.data.positive),
    ):
        if a is not None and b is not None and a != b:
            raise UsageError(
                f"The two audits have another {what} ({a[:16]} and {b[:16]}): audit both models on the same rows."
            )


def _numbers(report: AuditReport, *, changes: bool = False) -> dict[_Key, Finding]:
    """The findings that have a number, by what they are of; of several criteria on one number, the first."""
    found: dict[_Key, Finding] = {}
    for finding in report.findings:
        if finding.metric is None or finding.estimate is None or (finding.probe == CHANGE) != changes:
            continue
        if finding.pillar == INTAKE:
            continue
        found.setdefault(_key(finding), finding)
    return found


def _key(finding: Finding) -> _Key:
    of: list[tuple[str, str | float]] = [*finding.group.items(), *finding.at.items()]
    if finding.sensitive:
        of.append(("by", " x ".join(finding.sensitive)))
    return finding.probe, finding.method, str(finding.metric), tuple(sorted(of, key=lambda pair: pair[0]))


def _is_detail(row: Row) -> bool:
    return any(name != "by" for name, _ in row.of)


def _row(
    key: _Key,
    before: Finding,
    after: Finding,
    paired: dict[_Key, Finding],
    alpha: float,
    *,
    judged: bool,
) -> Row:
    probe, method, metric, of = key
    sides = _side(before, alpha / 2.0), _side(after, alpha / 2.0)
    own = paired.get((CHANGE, "paired", metric + _SUFFIX, of)) if probe == "group_fairness" else None
    difference = sides[1].value - sides[0].value
    bounds = _apart(sides[0].interval, sides[1].interval)
    if own is not None and own.estimate is not None and math.isfinite(own.estimate.value):
        difference = own.estimate.value
        bounds = own.estimate.bounds(alpha)
    ideal = after.ideal
    verdict = _verdict(ideal, sides, bounds, own.estimate if own is not None else None, judged=judged)
    return Row(
        pillar=after.pillar,
        probe=probe,
        method=method,
        metric=metric,
        of=of,
        ideal=ideal,
        before=sides[0],
        after=sides[1],
        difference=difference,
        interval=bounds,
        paired=own is not None,
        # A model that tells no rows apart has nothing to be the better for.
        verdict="no change shown" if verdict == "better" and after.vacuous else verdict,
    )


def _accuracy(change: Finding, alpha: float, *, judged: bool) -> Row:
    """Accuracy before and after, out of the paired change alone."""
    estimate = change.estimate
    sides, bounds = (Side(value=math.nan, interval=None, outcome=Outcome.NOT_JUDGED),) * 2, None
    if isinstance(estimate, RateChange):
        rates = [estimate.rate(after=after) for after in (False, True)]
        before, after = (
            Side(value=rate.value, interval=rate.bounds(alpha), outcome=Outcome.NOT_JUDGED) for rate in rates
        )
        sides, bounds = (before, after), estimate.bounds(alpha)
    return Row(
        pillar=change.pillar,
        probe=CHANGE,
        method="paired",
        metric="accuracy",
        of=_key(change)[3],
        ideal=1.0,
        before=sides[0],
        after=sides[1],
        difference=sides[1].value - sides[0].value,
        interval=bounds,
        paired=True,
        verdict=_verdict(1.0, sides, bounds, estimate, judged=judged),
    )


def _side(finding: Finding, alpha: float) -> Side:
    assert finding.estimate is not None
    value = finding.estimate.value
    return Side(
        value=value,
        interval=finding.estimate.bounds(alpha) if math.isfinite(value) else None,
        outcome=finding.outcome,
    )


def _apart(before: tuple[float, float] | None, after: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (after[0] - before[1], after[1] - before[0])


def _distance(interval: tuple[float, float], ideal: float) -> tuple[float, float]:
    """The least and the largest distance from the ideal within an interval."""
    low, high = interval
    return max(0.0, ideal - high, low - ideal), max(abs(low - ideal), abs(high - ideal))


def _verdict(
    ideal: float | None,
    sides: tuple[Side, Side],
    bounds: tuple[float, float] | None,
    paired: AnyEstimate | None,
    *,
    judged: bool,
) -> Verdict:
    before, after = sides
    if bounds is None or before.interval is None or after.interval is None:
        return "undefined"
    if ideal is None or not judged:
        return "not judged"
    if isinstance(paired, GapChange) or ideal <= min(before.interval[0], after.interval[0]):
        closer, further = bounds[1] < 0.0, bounds[0] > 0.0
    elif ideal >= max(before.interval[1], after.interval[1]):
        closer, further = bounds[0] > 0.0, bounds[1] < 0.0
    else:
        was, now = _distance(before.interval, ideal), _distance(after.interval, ideal)
        closer, further = now[1] < was[0], now[0] > was[1]
    return "better" if closer else "worse" if further else "no change shown"


@dataclass(frozen=True)
class _Both:
    """The numbers of both audits, and the paired changes between them."""

    first: dict[_Key, Finding]
    second: dict[_Key, Finding]
    changes: dict[_Key, Finding]

    def gaps(self) -> list[_Key]:
        """The gaps by a sensitive feature or by an intersection that both audits have, with the ideal 0."""
        return [
            key
            for key, finding in self.second.items()
            if key in self.first and finding.ideal == 0.0 and dict(key[3]).get("by")
        ]

    def at(self, key: _Key, alpha: float) -> Row:
        """One number before and after, with the verdict of its interval at this level."""
        return _row(key, self.first[key], self.second[key], self.changes, alpha, judged=True)

    def by_group(self, gap: _Key, rate: str, alpha: float) -> list[tuple[float, tuple[float, float]]]:
        """What became of each group's own rate, and its bounds, all of them together at this level on either side."""
        own = self.changes.get((CHANGE, "paired", gap[2] + _SUFFIX, gap[3]))
        if own is not None and isinstance(own.estimate, GapChange):
            table = next((r for r in own.estimate.rates if r.rate == rate), None)
            if table is not None:
                low, high = change_bounds(gained=table.gained, lost=table.lost, n=table.n, alpha=alpha / len(table.n))
                values = [(g - lost) / max(n, 1) for g, lost, n in zip(table.gained, table.lost, table.n, strict=True)]
                return list(zip(values, zip(low.tolist(), high.tolist(), strict=True), strict=True))
        features = set(str(dict(gap[3])["by"]).split(" x "))
        keys = [k for k in self.second if k in self.first and k[2] == rate and {name for name, _ in k[3]} == features]
        rows = [self.at(key, alpha / len(keys)) for key in keys]
        return [(row.difference, row.interval) for row in rows if row.interval is not None]


def _remarks(both: _Both, rows: Sequence[Row], after: AuditReport, error_rate: float) -> list[str]:
    alpha = error_rate / _KINDS_OF_REMARKS
    found = [*_empty(rows, after), *_levelled_down(both, alpha), *_moved(both, alpha), *_hidden(both, after, alpha)]
    leaks = [r for r in rows if r.pillar == "privacy" and r.verdict == "worse"]
    if leaks:
        found.append(f"Privacy became worse: {', '.join(r.name for r in leaks[:3])}.")
    changed = [
        f
        for f in after.findings
        if f.probe == CHANGE and f.metric == "accuracy_change" and f.group and f.estimate is not None
    ]
    return found + _cost_by_group(changed, alpha)


def _empty(rows: Sequence[Row], after: AuditReport) -> list[str]:
    """Numbers that came nearer to their ideal because the later model tells no rows apart."""
    empty = {_key(f): f.vacuous for f in after.findings if f.metric is not None and f.vacuous}
    nearer = [
        (row.name, why)
        for row in rows
        if row.ideal is not None
        and abs(row.after.value - row.ideal) < abs(row.before.value - row.ideal)
        and (why := empty.get((row.probe, row.method, row.metric, row.of)))
    ]
    names = ", ".join(name for name, _ in nearer[:3])
    return [f"Not better, but empty: {names}. {nearer[0][1]}"] if nearer else []


def _levelled_down(both: _Both, alpha: float) -> list[str]:
    """A gap in true positive rates or accuracy that is shown to have closed, a group's own rate having fallen.

    Both are shown, and no group's rate is shown to have risen, nor rose in the sample as far as another's surely fell.
    Where the gap has not closed, or nobody's rate has fallen, that is said with probability at most alpha.
    """
    rates = {"equalized_odds_difference": "true_positive_rate", "accuracy_difference": "accuracy"}
    gaps = [key for key in both.gaps() if key[2] in rates]
    found = []
    for key in gaps:
        row = both.at(key, alpha / len(gaps))
        if row.verdict != "better":
            continue
        rate = rates[key[2]]
        own = both.by_group(key, rate, alpha / len(gaps))
        surely = max((-high for _, (_, high) in own), default=0.0)
        if surely > 0.0 and all(low <= 0.0 for _, (low, _) in own) and max(change for change, _ in own) < surely:
            fell = sum(high < 0.0 for _, (_, high) in own)
            found.append(
                f"Levelling down: {row.name} closed by {-row.difference:.3f}, and {rate} is shown to have fallen in "
                f"{fell} of {len(own)} groups, in one by at least {surely:.3f}, and to have risen in none: the gap is "
                "smaller because somebody is worse off."
            )
    return found


def _moved(both: _Both, alpha: float) -> list[str]:
    """A gap that is shown to have closed for one feature and to have opened for another or for an intersection."""
    gaps = both.gaps()
    found = []
    for metric in dict.fromkeys(key[2] for key in gaps):
        rows = [both.at(key, alpha / (2.0 * len(gaps))) for key in gaps if key[2] == metric]
        closed, opened = ([row for row in rows if row.verdict == verdict] for verdict in ("better", "worse"))
        if closed and opened:
            found.append(
                f"Bias moved: {metric} is shown to have closed by {dict(closed[0].of)['by']} and to have opened by "
                f"{dict(opened[0].of)['by']}."
            )
    return found


def _hidden(both: _Both, after: AuditReport, alpha: float) -> list[str]:
    """A gap that is shown to have closed although a linear model still reads the group from what enters the last layer.

    Half of alpha is for the gaps, and half for what is read.
    """
    gaps = [key for key in both.gaps() if key[0] == "group_fairness"]
    closed = {
        str(dict(row.of)["by"]): row
        for row in (both.at(key, alpha / (2.0 * len(gaps))) for key in gaps)
        if row.verdict == "better"
    }
    read = [
        f
        for f in after.findings
        if f.metric == "proxy_auc"
        and f.at.get("from") == "representation"
        and f.estimate is not None
        and math.isfinite(f.estimate.value)
    ]
    found = []
    for finding in read:
        row = closed.get(" x ".join(finding.sensitive))
        assert finding.estimate is not None
        low = finding.estimate.bounds(alpha / (2.0 * len(read)))[0]
        if row is not None and low > _READABLE:
            found.append(
                f"Hidden, not gone: {row.name} closed by {-row.difference:.3f}, and a linear model still reads "
                f"{' x '.join(finding.sensitive)} from what enters the last layer (AUC {finding.estimate.value:.3f}, "
                f"at least {low:.3f}; 0.5 says nothing of it). Whoever trains a new last layer gets it back."
            )
    return found


def _cost_by_group(changed: Sequence[Finding], alpha: float) -> list[str]:
    """Groups whose accuracy is shown to have fallen while another group's is not, smallest first."""
    fell = [f for f in changed if f.estimate is not None and f.estimate.bounds(alpha / len(changed))[1] < 0.0]
    if not fell or len(fell) == len(changed):
        return []
    worst = min(fell, key=lambda f: f.estimate.value if f.estimate is not None else 0.0)
    name = ", ".join(f"{k}={v}" for k, v in worst.group.items())
    assert worst.estimate is not None
    return [
        f"The cost falls on some: accuracy of {name} ({worst.n_samples:,} rows) changed by "
        f"{worst.estimate.value:+.3f}, while that of other groups is not shown to have fallen."
    ]
