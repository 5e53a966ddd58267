"""Comparison of two audits: improvements, regressions, insignificant differences, and the model's usefulness."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from auditor.core.errors import UsageError
from auditor.judging.criterion import MOST_RATE, CriterionRecord
from auditor.judging.measurement import Outcome, why_doubtful
from auditor.report.comparing.gap_warnings import remarks
from auditor.report.comparing.side_by_side import SHOWN, Both, Row, is_paired_change, of_rate, of_the_same
from auditor.report.comparing.usefulness import (
    BALANCED,
    PERFORMANCE,
    WORTH,
    Usefulness,
    doubted,
    in_family,
    usefulness,
)
from auditor.report.record.audit_report import INTAKE, AuditReport, Finding, measurement_label
from auditor.report.record.earlier_audits import Key, key_of
from auditor.report.record.number_text import confidence, interval, number
from auditor.statistics.changes import RateChange
from auditor.statistics.rates import Proportion

MARGIN = 0.02
_SHOWN_LEVEL = 0.025
# Of the comparison's error rate: what is required, and what the model is worth.
_JUDGED, _USEFUL = 0.75, 0.25
_MOST_NAMED, _MOST_FAILING = 3, 8
_SAME = "Both audits are of the same model and the same rows: a number that they share has not changed at all."
OF_WORTH = (BALANCED, *WORTH)
_JUDGEMENTS = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
# How a paired change says which model it is since.
_SINCE = re.compile(r"sha256 ([0-9a-f]{16})")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All numbers that both audits have: judged ``rows``, ``others``, and ``details`` by group and similar.

    Judged are accuracy and what the later audit has a criterion for, so m is fixed before any number is read, and the
    family of ``usefulness``. Of ``error_rate``, on either side, three quarters are for the m rows, whose intervals miss
    with at most ``0.75 error_rate / m``; a quarter is for the family, likewise shared. So the chance of any false
    "better" is at most ``error_rate``, that of any false "worse" or failure of usefulness too, and so is that of any
    ``remark`` that rests on a sample. Any other interval misses with at most 2.5 %.

    ``only_before`` and ``only_after``: metrics that one audit alone has. ``remarks``: what usually goes wrong, where
    whole intervals say that it did. ``crossed``: what is now shown to FAIL its criterion and did not, or FAILs it and
    is shown to be worse. ``dropped``: what the earlier audit was judged by and the later one is not. ``made_by``: the
    mitigation between them and its notes, where there was one.
    """

    before: AuditReport
    after: AuditReport
    rows: tuple[Row, ...]
    usefulness: Usefulness
    others: tuple[Row, ...]
    details: tuple[Row, ...]
    error_rate: float
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    remarks: tuple[str, ...]
    crossed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    made_by: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Row, ...]:
        """All judged rows, with the family of usefulness."""
        return (*self.rows, *self.usefulness.rows)

    @property
    def m(self) -> int:
        """The number of judged differences, without the family of usefulness."""
        return len(self.rows)

    @property
    def alpha(self) -> float:
        """The level of each side of each judged difference's interval."""
        return _JUDGED * self.error_rate / max(self.m, 1)

    @property
    def levels(self) -> tuple[float, float]:
        """The confidence levels of the differences: of each judged one, and of each in the family of usefulness."""
        family = _USEFUL * self.error_rate / max(len(self.usefulness.rows), 1)
        return 1.0 - 2.0 * self.alpha, 1.0 - 2.0 * family

    def _level(self, row: Row) -> float:
        return self.levels[row is self.usefulness.worth or row in self.usefulness.rows]

    @property
    def better(self) -> tuple[Row, ...]:
        """The significant improvements."""
        return tuple(row for row in self.all if row.verdict == "better")

    @property
    def unsafe(self) -> tuple[Row, ...]:
        """The significant deteriorations whose criterion is not shown to be met."""
        judged = (Outcome.INCONCLUSIVE, Outcome.FAIL)
        return tuple(r for r in self.all if r.verdict == "worse" and r.after.outcome in judged)

    @property
    def unchanged(self) -> bool:
        """Whether both audits are of the same model and rows, and by the same criteria."""
        return not (self.made_by or self.dropped) and of_the_same(self.before, self.after)

    @property
    def exit_code(self) -> int:
        """0 better and useful, or unchanged; 1 a criterion was crossed, or usefulness failed; 3 neither is significant.

        0 takes that something is shown to be better, that usefulness is shown to be kept, and that nothing that is
        shown to be worse is left open by its criterion, and that the later audit is judged by all that the earlier one
        was. What is worse inside its criterion makes neither 1 nor 3.
        """
        if self.crossed or self.usefulness.standing == "failed":
            return 1
        if self.unchanged:
            return 0
        whole = not self.unsafe and not self.dropped
        return 0 if self.better and self.usefulness.standing == "kept" and whole else 3

    @property
    def conclusion(self) -> str:
        """The meaning of the exit code and its reason, in a few sentences."""
        reasons = " ".join(self.usefulness.reasons)
        if self.exit_code == 1:
            crossed = f"FAILs its criterion now: {_list_names(self.crossed)}. " if self.crossed else ""
            return f"No success. {crossed}{reasons if self.usefulness.standing == 'failed' else ''}".rstrip()
        if self.unchanged:
            return "Unchanged. Both audits are of the same model and the same rows, by the same criteria."
        if self.exit_code == 0:
            return f"Better and useful. Shown to be better: {_list_names([r.name for r in self.better])}. {reasons}"
        if not self.better:
            return f"Not shown. Nothing is shown to be better. {reasons}"
        if self.dropped:
            return (
                f"Not shown. The earlier audit was judged by {_list_names(self.dropped)}, and the later one is not, or "
                f"by a "
                f"wider bound: audit both with the same probes, groups and criteria. {reasons}"
            )
        if self.usefulness.standing == "kept":
            return (
                f"Not shown. Worse, and not shown to meet its criterion: {_list_names([r.name for r in self.unsafe])}."
            )
        return f"Not shown. Shown to be better: {_list_names([r.name for r in self.better])}. {reasons}"

    @property
    def fixed(self) -> str:
        """How many of the earlier FAILs PASS now, and what FAILs, in one sentence."""
        was, now = _failing(self.before), _failing(self.after)
        passing = {_criterion_key(f) for f in self.after.findings if f.outcome is Outcome.PASS}
        still = [name for key, name in now.items() if key in was]
        new = [name for key, name in now.items() if key not in was]
        mended = sum(key in passing for key in was)
        parts = [f"{mended} of {len(was)} fixed" if was else "Nothing failed before"]
        if unsettled := len(was) - mended - len(still):
            parts.append(f"{unsettled} no longer shown to fail")
        if still:
            parts.append(f"Still failing: {_list_names(still, _MOST_FAILING)}")
        if new:
            parts.append(f"Failing now, and not before: {_list_names(new, _MOST_FAILING)}")
        return ". ".join(parts if now else [*parts, "Nothing fails now"]) + "."

    @property
    def costs(self) -> tuple[Row, ...]:
        """Accuracy and what stands beside it, where it is lower than before; the largest loss first."""
        worth = () if self.usefulness.worth is None else (self.usefulness.worth,)
        found = {row.metric: row for row in (*self.all, *worth) if row.metric in OF_WORTH and row.difference < 0.0}
        return tuple(sorted(found.values(), key=lambda row: row.difference))

    @property
    def gains(self) -> tuple[Row, ...]:
        """The gaps between groups that are shown to be smaller; the largest gain first."""
        found = [row for row in self.better if row.pillar == "fairness" and row.ideal == 0.0]
        return tuple(sorted(found, key=lambda row: row.difference))

    @property
    def trade(self) -> str:
        """What a smaller gap costs, and which margin accepts it, in a sentence or two; "" where nothing was traded."""
        if not self.gains or not self.costs:
            return ""
        gap, margin = self.gains[0], self.usefulness.margin
        lost = [
            f"{number(-row.difference)} of {row.metric} ({interval(_loss(row))}, {confidence(self._level(row))})"
            for row in self.costs
        ]
        said = (
            f"The trade: {gap.name} from {number(gap.before.value)} to {number(gap.after.value)}, for "
            f"{' and '.join(lost)}."
        )
        # As usefulness judges it: accuracy by what it may have lost, the rest by what it is shown to have lost.
        ends = [-row.interval[row.metric == BALANCED] for row in self.costs if row.interval is not None]
        needed = math.ceil(100.0 * max(ends, default=0.0)) / 100.0
        if needed <= margin or self.usefulness.same_answer:
            return said
        return f"{said} The margin is {margin:g}: where the smaller gap is worth it, --margin {needed:g} accepts it."


def _failing(report: AuditReport) -> dict[tuple[object, ...], str]:
    """What FAILs a criterion, in words."""
    return {
        _criterion_key(f): measurement_label(f) for f in report.findings if f.criterion and f.outcome is Outcome.FAIL
    }


def _loss(row: Row) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if row.interval is None else (-row.interval[1], -row.interval[0])


def _list_names(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    more = len(names) - most
    return "; ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def compare(
    before: AuditReport, after: AuditReport, *, error_rate: float = 0.05, margin: float = MARGIN, same_rows: bool = True
) -> Comparison:
    """Compare two audits of the same question.

    ``same_rows``: False allows audits of different rows, whose differences are bounded in the same way.

    The two numbers of a row share their rows of data or not, so their difference is bounded from either's own bounds at
    half the level each, which holds however they depend on one another. Where the later audit was made with
    ``--reference`` the earlier model, accuracy, gaps, ranking and preferences between sentences have paired
    differences, and those are taken. How the ``error_rate`` is shared says :class:`Comparison`. ``margin``: how much
    lower accuracy may be for the model to be as useful as before.

    Raises UsageError where the two audits are of different data, targets, favourable labels, clusters or weights, or
    for an error rate or a margin that is none.
    """
    if not 0.0 < error_rate <= MOST_RATE:
        raise UsageError(f"--error-rate must be above 0 and at most {MOST_RATE:g}, such as 0.05, not {error_rate:g}.")
    if not 0.0 <= margin < 1.0:
        raise UsageError(f"--margin must lie in [0, 1), such as 0.02 for two points of accuracy, not {margin:g}.")
    _check(before, after, same_rows=same_rows)
    both = Both.from_reports(before, after)
    held_to = {key_of(f) for f in after.findings if f.metric is not None and f.criterion is not None}
    rows = _judged_rows(both, held_to, error_rate)
    useful = usefulness(
        both,
        after,
        headline=next((row for row in rows if row.metric == "accuracy"), None),
        margin=margin,
        alpha=_USEFUL * error_rate,
        error_rate=error_rate,
    )
    others, details = _rows_beside(both, held_to, {row.metric for row in (*rows, *useful.rows)})
    copied = why_doubtful(before.data.copies) or why_doubtful(after.data.copies)
    said = [useful.same_answer] if useful.same_answer else []
    if both.same:
        said.append(_SAME)
    if copied:
        rows = [replace(r, verdict="no change shown") if r.verdict in SHOWN else r for r in rows]
        said.append(f"No change is shown by these two audits, which have to be made anew. {copied}")
        useful = doubted(useful, said[-1])
    else:
        said += remarks(both, [*rows, *useful.rows, *others], after, error_rate)
        said += _worse_but(after, [*rows, *useful.rows])
    return Comparison(
        before=before,
        after=after,
        rows=tuple(rows),
        usefulness=useful,
        others=others,
        details=details,
        error_rate=error_rate,
        only_before=_metrics_absent(both.first, both.second),
        only_after=_metrics_absent(both.second, both.first),
        remarks=tuple(said),
        crossed=tuple(dict.fromkeys(_crossed(before, after, [*rows, *useful.rows]))),
        dropped=tuple(dict.fromkeys(_dropped_criteria(before, after))),
    )


def _judged_rows(both: Both, held_to: set[Key], error_rate: float) -> list[Row]:
    """Accuracy, and what the later audit is ``held_to`` by a criterion, at equal shares of the error rate."""
    overall = both.of_all("accuracy")
    judged = [key for key in both.shared_keys if key in held_to and not in_family(both.second[key])]
    alpha = _JUDGED * error_rate / max(len(judged) + len(overall), 1)
    return [*(of_rate(f, alpha) for f in overall), *(both.row_for(key, alpha) for key in judged)]


def _rows_beside(both: Both, held_to: set[Key], metrics: set[str]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows that are not judged: those of the whole, and details. ``metrics``: those that judged rows show already."""
    rest = [
        both.row_for(key, _SHOWN_LEVEL, with_verdict=False)
        for key in both.shared_keys
        if key not in held_to and not (both.second[key].pillar == PERFORMANCE and key[2] in metrics and not key[3])
    ]
    rest += [
        of_rate(f, _SHOWN_LEVEL, with_verdict=False)
        for f in both.changes.values()
        if f.metric == "accuracy_change" and f.group
    ]
    details = tuple(row for row in rest if any(name != "by" for name, _ in row.of))
    return tuple(row for row in rest if row not in details), details


def _metrics_absent(own: Iterable[Key], other: Container[Key]) -> tuple[str, ...]:
    """The metrics of one audit's numbers that the other lacks."""
    return tuple(dict.fromkeys(key[2] for key in own if key not in other))


def _check(before: AuditReport, after: AuditReport, *, same_rows: bool) -> None:
    # Logs of two models are two files with the same samples.
    known = before.data.rows_sha256 is not None and before.data.rows_sha256 == after.data.rows_sha256
    for what, a, b in (
        *([("data", before.data.sha256, after.data.sha256)] if same_rows and not known else []),
        ("target", before.data.target, after.data.target),
        ("favourable label", before.data.positive, after.data.positive),
    ):
        if a is not None and b is not None and a != b:
            raise UsageError(
                f"The two audits have another {what} ({a[:16]} and {b[:16]}): audit both models on the same rows."
            )
    told, again = before.data.groups_sha256 or {}, after.data.groups_sha256 or {}
    moved = [name for name in told if name in again and told[name] != again[name]]
    if moved and before.data.sha256 == after.data.sha256 and (same_rows or before.data.sha256 is not None):
        raise UsageError(
            f"The two audits have other groups by {moved[0]} in the same rows: audit both with the same "
            "--sensitive-file and --bins."
        )
    _check_reference(before, after, same_rows=same_rows)
    for flag, a, b in (
        ("cluster", before.data.cluster, after.data.cluster), ("weight", before.data.weight, after.data.weight),
    ):  # fmt: skip
        if a != b:
            raise UsageError(
                f"The two audits have another --{flag} ({a or 'none'} and {b or 'none'}): audit both with the same."
            )


def _check_reference(before: AuditReport, after: AuditReport, *, same_rows: bool) -> None:
    """Raises UsageError where the paired changes are since another model than the earlier one."""
    for finding in after.findings:
        if not is_paired_change(after, finding):
            continue
        since = _SINCE.search(finding.detail or "")
        known = before.model.sha256
        if since is not None and known is not None and not known.startswith(since.group(1)):
            raise UsageError(
                f"The later audit has its changes since another model ({since.group(1)}) than the earlier audit is of "
                f"({known[:16]}): scan it again with --reference that model."
            )
        was = before_of(finding)
        own = [
            f.estimate for f in before.findings if f.pillar == PERFORMANCE and f.metric == "accuracy" and not f.group
        ]
        of = next((e for e in own if isinstance(e, Proportion)), None)
        if same_rows and was is not None and of is not None and was != (of.successes, of.n):
            raise UsageError(
                f"The later audit has its changes since a model with {was[0]:,} of {was[1]:,} right decisions, and the "
                f"earlier audit is of one with {of.successes:,} of {of.n:,}: scan it again with --reference that model."
            )


def before_of(finding: Finding) -> tuple[int, int] | None:
    """Correct decisions and rows of the earlier model of an accuracy change, if a finding states them."""
    change = finding.estimate
    if finding.metric != "accuracy_change" or finding.group or not isinstance(change, RateChange):
        return None
    return change.before, change.n


def _dropped_criteria(before: AuditReport, after: AuditReport) -> Iterator[str]:
    """What the earlier audit was judged by and the later one is not, or by a wider bound."""
    held: dict[Key, list[CriterionRecord]] = {}
    for f in after.findings:
        if f.metric is not None and f.criterion is not None:
            held.setdefault(key_of(f), []).append(f.criterion)
    yield from (f"groups by {name}" for name in before.data.sensitive if name not in after.data.sensitive)
    for flag, was, now in (
        ("--target", before.data.target, after.data.target), ("--positive", before.data.positive, after.data.positive),
    ):  # fmt: skip
        if was is not None and now is None:
            yield f"what needs {flag}"
    if before.data.n_train_rows and not after.data.n_train_rows:
        yield "what the training rows give away (--train)"
    # Probes that are not for a model of the later kind are no choice of anybody's.
    impossible = {f.probe for f in after.findings if f.outcome is Outcome.NOT_APPLICABLE}
    for f in before.findings:
        if f.metric is None or f.criterion is None or f.outcome not in _JUDGEMENTS or f.pillar == INTAKE:
            continue
        if f.probe in impossible:
            continue
        if not any(_as_strict(now, f.criterion) for now in held.get(key_of(f), ())):
            yield f"{f.metric}{''.join(f' ({k}={v})' for k, v in key_of(f)[3])}"


def _as_strict(current: CriterionRecord, earlier: CriterionRecord) -> bool:
    if current.direction != earlier.direction:
        return False
    if isinstance(current.bound, tuple) or isinstance(earlier.bound, tuple):
        if not (isinstance(current.bound, tuple) and isinstance(earlier.bound, tuple)):
            return False
        return current.bound[0] >= earlier.bound[0] and current.bound[1] <= earlier.bound[1]
    return current.bound <= earlier.bound if current.direction == "at_most" else current.bound >= earlier.bound


def _crossed(before: AuditReport, after: AuditReport, rows: Sequence[Row]) -> Iterator[str]:
    """What FAILs now, and did not before or is shown to be worse; what was not measured before has not crossed."""
    worse = {(r.probe, r.method, r.metric, r.of): r.name for r in rows if r.verdict == "worse"}
    was = {_criterion_key(f): f.outcome for f in before.findings if f.criterion is not None}
    for f in after.findings:
        if f.metric is None or f.criterion is None or f.outcome is not Outcome.FAIL:
            continue
        # A criterion on a change has nothing before it.
        earlier = was.get(_criterion_key(f), Outcome.PASS if is_paired_change(after, f) else None)
        if earlier is not None and (earlier is not Outcome.FAIL or key_of(f) in worse):
            of = ", ".join(f"{k}={v}" for k, v in key_of(f)[3])
            yield f"{f.metric}{f' ({of})' if of else ''}, {number(f.value)} where {f.criterion.describe()} is required"


def _criterion_key(f: Finding) -> tuple[object, ...]:
    criterion = f.criterion
    return (key_of(f), None if criterion is None else (criterion.direction, criterion.bound))


def _worse_but(after: AuditReport, rows: Sequence[Row]) -> Iterator[str]:
    """What is worse and meets its criterion all the same, or is not shown to."""
    required = {key_of(f): f.criterion for f in reversed(after.findings) if f.criterion is not None}
    for outcome, words in (
        (Outcome.PASS, "Worse, but shown to be inside its criterion"),
        (Outcome.INCONCLUSIVE, "Worse, and not shown to be inside its criterion"),
    ):
        said = [
            f"{r.name} went from {number(r.before.value)} to {number(r.after.value)} ({criterion.describe()})"
            for r in rows
            if r.verdict == "worse" and r.after.outcome is outcome
            and (criterion := required.get((r.probe, r.method, r.metric, r.of))) is not None
        ]  # fmt: skip
        if said:
            yield f"{words}: {'; '.join(said)}."
