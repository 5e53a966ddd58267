"""Warnings about common pitfalls of closing a gap, each only if intervals of the groups' own rates support it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from auditor.report.comparing.side_by_side import SUFFIX, Both, Bounds, Row, is_paired_change
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.earlier_audits import key_of
from auditor.report.record.finding_text import answers
from auditor.statistics.changes import SIDES, Moved, RateChange, grown_apart, moved_rates, turned_round

# A rate of a group, and the sign of a change that somebody is the better for: 1 where more is better.
_RATES = {"selection_rate": 1, "true_positive_rate": 1, "false_positive_rate": -1, "accuracy": 1}
# What each gap is a gap between.
_OF_GAP = {
    "demographic_parity_difference": "selection_rate",
    "equal_opportunity_difference": "true_positive_rate",
    "false_positive_rate_difference": "false_positive_rate",
    "accuracy_difference": "accuracy",
}
# An area under the ROC curve below which a reader of the group does hardly better than a coin.
_READABLE = 0.55
# Of the level of all remarks: for the groups' own rates, for gaps that closed, and that opened, and for what is read.
_GROUPS, _CLOSED, _OPENED, _READ = 0.2, 0.55, 0.1, 0.15
# A gain below this share of another group's sure loss is no balance to it.
_CRUMB = 0.5


@dataclass(frozen=True, kw_only=True)
class GroupRate:
    """One rate of one group before and after, and its change; all bounds of all rates hold simultaneously."""

    rate: str
    group: tuple[tuple[str, str], ...]
    n: int
    value: float
    moved: Moved

    @property
    def features(self) -> tuple[str, ...]:
        """The sensitive features that define the group."""
        return tuple(sorted(name for name, _ in self.group))

    @property
    def name(self) -> str:
        """The group, such as ``sex=f``."""
        return ", ".join(f"{k}={v}" for k, v in self.group)

    @property
    def loss(self) -> Bounds:
        """Minimum and maximum deterioration for the group's members; below 0 for an improvement."""
        low, high = self.moved.change
        return (-high, -low) if _RATES[self.rate] > 0 else (low, high)

    @property
    def became(self) -> str:
        """The change of the rate, in words."""
        verb = "fell" if _RATES[self.rate] > 0 else "rose"
        return (
            f"{self.rate} of {self.name} ({self.n:,} rows) {verb} by {abs(self.value):.3f}, at least {self.loss[0]:.3f}"
        )


def remarks(both: Both, rows: Sequence[Row], after: AuditReport, level: float) -> list[str]:
    """All warnings; the probability of any false sample-based warning is at most ``level``.

    A fifth of it bounds every group's selection rate, true and false positive rate and accuracy, before, after and
    their change, all of them together (Bonferroni over six sides each). 55 % are for gaps in those rates, or in what
    regression predicts, that have closed, and a tenth for such as have opened, each shared by all of them; 15 % for
    what a representation tells of the groups. Each remark follows from those intervals by logic alone.
    """
    of_groups = _group_rates(both, level * _GROUPS)
    gaps = [key for key in both.gaps() if key[2] in _OF_GAP or answers(after, key[0], key[2], "numbers")]
    at_gaps = [both.row_for(key, level * _CLOSED / len(gaps), whole=False) for key in gaps]
    found = [*_empty(rows, after)]
    levelled = list(_levelled_down(at_gaps, of_groups))
    found += [said for said, _ in levelled]
    closed = {row.metric for row in at_gaps if row.verdict == "better"}
    opened = [both.row_for(key, level * _OPENED / len(gaps), whole=False) for key in gaps if key[2] in closed]
    found += [
        *_moved_bias(at_gaps, opened, of_groups),
        *_reversed(of_groups),
        *_hidden_bias(at_gaps, after, level * _READ),
    ]
    leaks = [r for r in rows if r.pillar == "privacy" and r.verdict == "worse"]
    if leaks:
        found.append(f"Privacy became worse: {', '.join(r.name for r in leaks[:3])}.")
    told = {place for _, place in levelled}
    return [*found, *_cost_on_some([r for r in of_groups if (r.features, r.rate) not in told])]


# ---- every group's own rates ---------------------------------------------------------------------------------------


def _group_rates(both: Both, level: float) -> list[GroupRate]:
    """Those of the change probe, and, where nothing was paired, the two audits' own."""
    paired = {
        (str(f.metric).removesuffix(SUFFIX), key_of(f)[3]): f
        for f in both.changes.values()
        if f.group and isinstance(f.estimate, RateChange) and f.estimate.n and is_paired_change(both.report, f)
    }
    paired = {place: f for place, f in paired.items() if place[0] in _RATES}
    alone = [
        key
        for key in both.shared_keys
        if key[2] in _RATES
        and both.second[key].group
        and key[2:] not in paired
        and answers(both.report, key[0], key[2], "groups")
    ]
    alpha = level / (SIDES * max(len(paired) + len(alone), 1))
    changes = [f.estimate for f in paired.values() if isinstance(f.estimate, RateChange)]
    found = [
        _rate(rate, f, change.value, moved, change.n)
        for ((rate, _), f), change, moved in zip(paired.items(), changes, moved_rates(changes, alpha), strict=True)
    ]
    for key in alone:
        before, after = both.first[key].estimate, both.second[key].estimate
        if before is not None and after is not None and math.isfinite(after.value - before.value):
            ends = before.bounds(alpha), after.bounds(alpha)
            moved = Moved((ends[1][0] - ends[0][1], ends[1][1] - ends[0][0]), *ends)
            n = both.second[key].n_samples or 0
            found.append(_rate(key[2], both.second[key], after.value - before.value, moved, n))
    return found


def _rate(rate: str, f: Finding, value: float, change: Moved, n: int) -> GroupRate:
    return GroupRate(rate=rate, group=tuple(sorted(f.group.items())), n=n, value=value, moved=change)


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

    Nobody: no group is shown to be better off, or none by half as much as another is surely worse off. Worse off is
    who is less often decided favourably or rightly, or, by false positive rates, more often favoured wrongly.
    """
    places = _by_place(rates)
    for gap in gaps:
        place = (_features(gap), _OF_GAP.get(gap.metric, ""))
        own = places.get(place, []) if gap.verdict == "better" else []
        worse, gained = [r for r in own if r.loss[0] > 0.0], [r for r in own if r.loss[1] < 0.0]
        surely = max((r.loss[0] for r in worse), default=0.0)
        if not worse or (gained and max(-r.loss[0] for r in own) >= _CRUMB * surely):
            continue
        verb, other = ("fallen", "risen") if _RATES[place[1]] > 0 else ("risen", "fallen")
        by = f"in {len(gained)} by less than half of that" if gained else "in none"
        said = (
            f"Levelling down: {gap.name} closed by {-gap.difference:.3f}, and {place[1]} is shown to have {verb} in "
            f"{len(worse)} of {len(own)} groups, in one by at least {surely:.3f}, and to have {other} {by}: the gap is "
            "smaller because somebody is worse off."
        )
        yield said, place


def _moved_bias(gaps: Sequence[Row], candidate_gaps: Sequence[Row], rates: Sequence[GroupRate]) -> Iterator[str]:
    """A gap that is shown to have closed, and one of another feature, an intersection or two groups to have opened.

    ``candidate_gaps``: the gaps of what has closed for some, at the level of what has opened.
    """
    places = _by_place(rates)
    for metric in dict.fromkeys(gap.metric for gap in candidate_gaps):
        closed = [gap for gap in gaps if gap.metric == metric and gap.verdict == "better"]
        opened = [gap for gap in candidate_gaps if gap.metric == metric and gap.verdict == "worse"]
        said = f"Bias moved: {metric} is shown to have closed by {dict(closed[0].of)['by']}"
        if opened:
            yield f"{said} and to have opened by {dict(opened[0].of)['by']}."
            continue
        for place in ((_features(row), _OF_GAP.get(metric, "")) for row in closed):
            own = places.get(place, [])
            pair = grown_apart([r.moved for r in own])
            if pair is not None:
                low, high = own[pair[0]].name, own[pair[1]].name
                yield f"{said}, and {place[1]} of {low} and {high} to have moved apart by at least {pair[2]:.3f}."
                break


def _reversed(rates: Sequence[GroupRate]) -> Iterator[str]:
    """Two groups of which the one was surely above the other, and now is surely below; the farthest of each rate."""
    said = set()
    for (_, rate), own in _by_place(rates).items():
        pair = None if rate in said else turned_round([r.moved for r in own])
        if pair is not None:
            said.add(rate)
            yield (
                f"Reversed: {rate} of {own[pair[1]].name} was above that of {own[pair[0]].name} by at least "
                f"{pair[2]:.3f}, and is now below it by at least as much."
            )


def _hidden_bias(gaps: Sequence[Row], after: AuditReport, level: float) -> Iterator[str]:
    """A gap that is shown to have closed although a linear model still reads the group from what enters the last
    layer."""
    of_rates = [gap for gap in gaps if answers(after, gap.probe, gap.metric, "selection", "errors")]
    closed = {_features(gap): gap for gap in of_rates if gap.verdict == "better"}
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
        f"The cost falls on some: {'; '.join(r.became for r in hit.values())}. Of at "
        "least one other group of the same feature no such thing is shown."
    ]
