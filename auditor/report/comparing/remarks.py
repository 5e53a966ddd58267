"""What usually goes wrong when a gap closes, each said only where intervals of every group's own rates show it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from auditor.report.comparing.side_by_side import CHANGE, SUFFIX, Both, Bounds, Key, Row, apart, key_of
from auditor.report.record import AuditReport, Finding
from auditor.rows import FloatArray
from auditor.statistics.changes import RateChange, change_bounds
from auditor.statistics.intervals import clopper_pearson

# A rate of a group, and the sign of a change that somebody is the better for: 1 where more is better.
_RATES = {"selection_rate": 1, "true_positive_rate": 1, "false_positive_rate": -1, "accuracy": 1}
# What each gap is a gap between.
_OF_GAP = {
    "demographic_parity_difference": ("selection_rate",),
    "equal_opportunity_difference": ("true_positive_rate",),
    "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
    "accuracy_difference": ("accuracy",),
}
# An area under the ROC curve below which a reader of the group does hardly better than a coin.
_READABLE = 0.55
# Of the level of all remarks: for the groups' own rates, for the gaps, and for what is read from a representation.
_GROUPS, _GAPS, _READ = 0.5, 0.25, 0.25
# A group's rate before, after, and what became of it, two sides each; a gap's change, two sides.
_SIDES_OF_RATE, _SIDES_OF_GAP = 6, 2


@dataclass(frozen=True, kw_only=True)
class GroupRate:
    """One rate of one group before and after, and its change; all bounds of all of them hold together."""

    rate: str
    group: tuple[tuple[str, str], ...]
    n: int
    value: float
    change: Bounds
    before: Bounds
    after: Bounds

    @property
    def features(self) -> tuple[str, ...]:
        """The sensitive features that the group is one of."""
        return tuple(sorted(name for name, _ in self.group))

    @property
    def name(self) -> str:
        """The group, such as ``sex=f``."""
        return ", ".join(f"{k}={v}" for k, v in self.group)

    @property
    def loss(self) -> Bounds:
        """By how much its people are worse off, at least and at most; below 0 where they are better off."""
        low, high = self.change
        return (-high, -low) if _RATES[self.rate] > 0 else (low, high)

    @property
    def became(self) -> str:
        """What became of it, in words."""
        verb = "fell" if _RATES[self.rate] > 0 else "rose"
        return (
            f"{self.rate} of {self.name} ({self.n:,} rows) {verb} by {abs(self.value):.3f}, at least {self.loss[0]:.3f}"
        )


def remarks(both: Both, rows: Sequence[Row], after: AuditReport, level: float) -> list[str]:
    """Every remark; the chance that any of those that rest on a sample is false is at most ``level``.

    Half of it bounds every group's selection rate, true and false positive rate and accuracy, before, after and their
    change, all of them together (Bonferroni over six sides each). A quarter bounds the changes of all gaps, and a
    quarter what a representation tells of the groups. Each remark follows from those intervals by logic alone.
    """
    of_groups = _group_rates(both, level * _GROUPS)
    gaps = both.gaps()
    at_gaps = [both.at(key, level * _GAPS / (_SIDES_OF_GAP * len(gaps))) for key in gaps]
    found = [*_empty(rows, after)]
    levelled = list(_levelled_down(at_gaps, of_groups))
    found += [said for said, _ in levelled]
    found += [*_moved(at_gaps, of_groups), *_reversed(of_groups), *_hidden(at_gaps, after, level * _READ)]
    leaks = [r for r in rows if r.pillar == "privacy" and r.verdict == "worse"]
    if leaks:
        found.append(f"Privacy became worse: {', '.join(r.name for r in leaks[:3])}.")
    told = {place for _, place in levelled}
    return [*found, *_cost_on_some([r for r in of_groups if (r.features, r.rate) not in told])]


# ---- every group's own rates ---------------------------------------------------------------------------------------


def _group_rates(both: Both, level: float) -> list[GroupRate]:
    paired = {
        key: f
        for f in both.changes.values()
        if f.probe == CHANGE and f.group and str(f.metric).removesuffix(SUFFIX) in _RATES
        for key in [(str(f.metric).removesuffix(SUFFIX), key_of(f)[3])]
        if isinstance(f.estimate, RateChange) and f.estimate.n
    }
    # Where nothing was paired, the two audits' own rates.
    alone = {
        (key[2], key[3]): key
        for key in both.shared
        if key[0] == "group_fairness" and key[2] in _RATES and both.second[key].group and (key[2], key[3]) not in paired
    }
    if not paired and not alone:
        return []
    alpha = level / (_SIDES_OF_RATE * (len(paired) + len(alone)))
    found = [_paired_rates(list(paired.items()), alpha)] if paired else []
    return [rate for part in (*found, _rates_alone(both, alone, alpha)) for rate in part]


def _paired_rates(paired: Sequence[tuple[tuple[str, object], Finding]], alpha: float) -> list[GroupRate]:
    estimates = [f.estimate for _, f in paired]
    columns = np.asarray(
        [(e.before, e.gained, e.lost, e.n) for e in estimates if isinstance(e, RateChange)], np.float64
    ).T
    before, gained, lost, n = columns
    ends = [
        np.stack(bounds, axis=1).tolist()
        for bounds in (
            change_bounds(gained=gained, lost=lost, n=n, alpha=alpha),
            clopper_pearson(before, n=n, alpha=alpha),
            clopper_pearson(before + gained - lost, n=n, alpha=alpha),
        )
    ]
    values = ((gained - lost) / n).tolist()
    return [
        _group_rate(rate, f, value, *bounds)
        for ((rate, _), f), value, *bounds in zip(paired, values, *ends, strict=True)
    ]


def _rates_alone(both: Both, keys: dict[tuple[str, object], Key], alpha: float) -> Iterator[GroupRate]:
    for (rate, _), key in keys.items():
        own = both.first[key].estimate, both.second[key].estimate
        values = [e.value for e in own if e is not None and math.isfinite(e.value)]
        if len(values) == 2:
            before, after = (e.bounds(alpha) for e in own if e is not None)
            change = apart(before, after)
            assert change is not None
            yield _group_rate(rate, both.second[key], values[1] - values[0], change, before, after)


def _group_rate(rate: str, f: Finding, value: float, *bounds: Sequence[float]) -> GroupRate:
    change, before, after = ((float(low), float(high)) for low, high in bounds)
    n = f.estimate.n if isinstance(f.estimate, RateChange) else f.n_samples or 0
    group = tuple(sorted(f.group.items()))
    return GroupRate(rate=rate, group=group, n=n, value=value, change=change, before=before, after=after)


def _by_place(rates: Sequence[GroupRate]) -> dict[tuple[tuple[str, ...], str], list[GroupRate]]:
    """The rates by the features that the groups are of, and which rate; single features first."""
    places: dict[tuple[tuple[str, ...], str], list[GroupRate]] = {}
    for rate in sorted(rates, key=lambda r: len(r.group)):
        places.setdefault((rate.features, rate.rate), []).append(rate)
    return places


def _features(gap: Row) -> tuple[str, ...]:
    return tuple(sorted(str(dict(gap.of)["by"]).split(" x ")))


# ---- what went wrong -----------------------------------------------------------------------------------------------


def _empty(rows: Sequence[Row], after: AuditReport) -> list[str]:
    """Numbers that came nearer to their ideal because the later model tells no rows apart."""
    empty = {key_of(f): f.vacuous for f in after.findings if f.metric is not None and f.vacuous}
    nearer = [
        (row.name, why)
        for row in rows
        if row.ideal is not None
        and abs(row.after.value - row.ideal) < abs(row.before.value - row.ideal)
        and (why := empty.get((row.probe, row.method, row.metric, row.of)))
    ]
    names = ", ".join(name for name, _ in nearer[:3])
    return [f"Not better, but empty: {names}. {nearer[0][1]}"] if nearer else []


def _levelled_down(
    gaps: Sequence[Row], rates: Sequence[GroupRate]
) -> Iterator[tuple[str, tuple[tuple[str, ...], str]]]:
    """A gap that is shown to have closed, people of a group being shown to be worse off, and nobody better off.

    Nobody: no group is shown to be better off, or none by as much as another is surely worse off. Worse off is who is
    less often decided favourably or rightly, or, by false positive rates, more often favoured wrongly.
    """
    places = _by_place(rates)
    told = set()
    for gap in gaps:
        for rate in _OF_GAP.get(gap.metric, ()) if gap.verdict == "better" else ():
            place = (_features(gap), rate)
            own = places.get(place, [])
            worse, gained = [r for r in own if r.loss[0] > 0.0], [r for r in own if r.loss[1] < 0.0]
            surely = max((r.loss[0] for r in worse), default=0.0)
            if not worse or place in told or (gained and max(-r.loss[0] for r in own) >= surely):
                continue
            told.add(place)
            verb, other = ("fallen", "risen") if _RATES[rate] > 0 else ("risen", "fallen")
            by = f"in {len(gained)} by less" if gained else "in none"
            said = (
                f"Levelling down: {gap.name} closed by {-gap.difference:.3f}, and {rate} is shown to have {verb} in "
                f"{len(worse)} of {len(own)} groups, in one by at least {surely:.3f}, and to have {other} {by}: the "
                "gap is smaller because somebody is worse off."
            )
            yield said, place


def _moved(gaps: Sequence[Row], rates: Sequence[GroupRate]) -> Iterator[str]:
    """A gap that is shown to have closed, and one of another feature, an intersection or two groups to have opened."""
    places = _by_place(rates)
    for metric in dict.fromkeys(gap.metric for gap in gaps):
        rows = [gap for gap in gaps if gap.metric == metric]
        closed, opened = ([row for row in rows if row.verdict == verdict] for verdict in ("better", "worse"))
        if not closed:
            continue
        said = f"Bias moved: {metric} is shown to have closed by {dict(closed[0].of)['by']}"
        if opened:
            yield f"{said} and to have opened by {dict(opened[0].of)['by']}."
            continue
        for place in ((_features(row), rate) for row in closed for rate in _OF_GAP.get(metric, ())):
            pair = _farther_apart(places.get(place, []))
            if pair is not None:
                low, high, by = pair
                yield f"{said}, and {place[1]} of {low.name} and {high.name} to have moved apart by at least {by:.3f}."
                break


def _farther_apart(rates: Sequence[GroupRate]) -> tuple[GroupRate, GroupRate, float] | None:
    """The two groups, the lower first, whose distance has surely grown most."""
    if len(rates) < 2:
        return None
    change, before, after = _ends(rates)
    sure = after[0][:, None] > after[1][None, :]
    # |D after| - |D before|, D after being positive: D after - D before, or their sum where D before is negative.
    grown = np.minimum(
        change[0][:, None] - change[1][None, :], (after[0] + before[0])[:, None] - (after[1] + before[1])[None, :]
    )
    grown = np.where(sure, grown, 0.0)
    high, low = np.unravel_index(int(grown.argmax()), grown.shape)
    most = float(grown[high, low])
    return (rates[int(low)], rates[int(high)], most) if most > 0.0 else None


def _reversed(rates: Sequence[GroupRate]) -> Iterator[str]:
    """Two groups of which the one was surely above the other, and now is surely below; one a rate, the farthest."""
    said = set()
    for (_, rate), own in _by_place(rates).items():
        if len(own) < 2 or rate in said:
            continue
        _, before, after = _ends(own)
        was = before[0][:, None] - before[1][None, :]
        now = (after[0][:, None] - after[1][None, :]).T
        both = np.minimum(was, now)
        high, low = np.unravel_index(int(both.argmax()), both.shape)
        if both[high, low] > 0.0:
            said.add(rate)
            yield (
                f"Reversed: {rate} of {own[int(high)].name} was above that of {own[int(low)].name} by at least "
                f"{was[high, low]:.3f}, and is now below it by at least {now[high, low]:.3f}."
            )


def _ends(rates: Sequence[GroupRate]) -> tuple[FloatArray, ...]:
    """(2, n_groups) lower and upper bounds of the changes, of the rates before and after."""
    return tuple(np.asarray(x, np.float64).T for x in zip(*((r.change, r.before, r.after) for r in rates), strict=True))


def _hidden(gaps: Sequence[Row], after: AuditReport, level: float) -> Iterator[str]:
    """A gap that is shown to have closed although a linear model still reads the group from what enters the last
    layer."""
    closed = {_features(gap): gap for gap in gaps if gap.probe == "group_fairness" and gap.verdict == "better"}
    read = [
        f
        for f in after.findings
        if f.metric == "proxy_auc"
        and f.at.get("from") == "representation"
        and f.estimate is not None
        and math.isfinite(f.estimate.value)
    ]
    for finding in read:
        row = closed.get(tuple(sorted(finding.sensitive)))
        assert finding.estimate is not None
        low = finding.estimate.bounds(level / len(read))[0]
        if row is not None and low > _READABLE:
            yield (
                f"Hidden, not gone: {row.name} closed by {-row.difference:.3f}, and a linear model still reads "
                f"{' x '.join(finding.sensitive)} from what enters the last layer (AUC {finding.estimate.value:.3f}, "
                f"at least {low:.3f}; 0.5 says nothing of it). Whoever trains a new last layer gets it back."
            )


def _cost_on_some(rates: Sequence[GroupRate]) -> list[str]:
    """Groups that are shown to be worse off while another of the same features is not, the hardest hit of each rate."""
    hit: dict[str, GroupRate] = {}
    for (_, rate), own in _by_place(rates).items():
        worse = [r for r in own if r.loss[0] > 0.0]
        if worse and len(worse) < len(own):
            hit.setdefault(rate, max(worse, key=lambda r: r.loss[0]))
    if not hit:
        return []
    return [
        f"The cost falls on some: {'; '.join(r.became for r in hit.values())}. Of another group of the same feature "
        "that is not shown."
    ]
