"""Verification of the audits enclosed in a record, each as a full audit, and of changes from both models' answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from auditor.core.errors import DataError
from auditor.core.rows import BoolArray
from auditor.evidence.container import unpack
from auditor.evidence.derived_evidence import ALONE, WHOLE
from auditor.evidence.manifest import ROWS, TABLES
from auditor.evidence.verify.bundle_parts import read_part, read_record
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.remeasure import Remake
from auditor.evidence.verify.verify_bundle import verify_bytes
from auditor.evidence.verify.verify_derived import enclosed_checks
from auditor.report.comparing.side_by_side import is_paired_change
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.contradictions import contradictions
from auditor.run.predictions import Answers, read_head, read_rows
from auditor.statistics.changes import GapChange, RateChange

_SUFFIX = "_change"
_SLACK = 1e-9


def check_paired_changes(
    part: str,
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    reports: tuple[AuditReport, AuditReport],
) -> tuple[list[Check], list[Unproven]]:
    """Check that the changes in the later audit are those between the two audits, by the numbers that both state, and
    by counts over the rows of both.

    ``before``, ``after``: the parts of either bundle. Which of a group's rows changed only the rows' groups could tell.
    """
    changes = [f for f in reports[1].findings if f.estimate is not None and is_paired_change(reports[1], f)]
    if not changes:
        return [], []
    wrong = [*_change_mismatches(changes, *reports)]
    counted, left = 0, list[str]()
    name = f"{part}: {changes[0].probe}"
    try:
        answers = _answers(before), _answers(after)
    except DataError as error:
        return [Check(name=name, state="wrong", detail=str(error))], []
    if None not in answers:
        was, now = answers
        assert was is not None and now is not None
        if len(was) != len(now) or not np.array_equal(was.truth, now.truth, equal_nan=True):
            wrong.append("its rows are not those of the model before, with the same labels in the same order")
        else:
            for finding in changes:
                said = _uncounted(finding, was, now)
                counted += said is not None
                left += [str(finding.metric)] if said is None else []
                wrong += [said] if said else []
    if wrong:
        return [Check(name=name, state="wrong", detail=wrong[0])], []
    where = f"{part}: results.json: results[{changes[0].probe}]"
    if not counted:
        why = "the rows of both audits are not in it, so that what changed is not counted anew"
        open_ = [Unproven(where=f"{where}.*", why=why, needs="rows")]
        return [Check(name=name, state="ok", detail="agrees with the numbers of both audits")], open_
    why = "in which groups rows changed is as it is stated: their sum over all groups is counted anew"
    open_ = [Unproven(where=f"{where}.*", why=why)]
    if left:
        why = "the numbers of both audits agree with it, and over their rows it is not counted anew"
        open_.append(Unproven(where=f"{where}: {', '.join(dict.fromkeys(left))}", why=why, needs="rows"))
    detail = f"{counted:,} changes counted anew over the rows of both audits, all held against the numbers of both"
    return [Check(name=name, state="ok", detail=detail)], open_


def _answers(entries: Mapping[str, bytes]) -> Answers | None:
    head, counts = read_head(entries.get(TABLES, b""))
    if head is None or head.kind != "classifier" or ROWS not in entries:
        return None
    return read_rows(entries[ROWS], head, counts)


def _change_mismatches(changes: list[Finding], before: AuditReport, after: AuditReport) -> Iterator[str]:
    """Changes that are not the difference of the number that they are of in both audits."""
    for change in changes:
        metric = str(change.metric).removesuffix(_SUFFIX)
        was, now = (_number(report, metric, change) for report in (before, after))
        if was is None or now is None or change.estimate is None or not math.isfinite(change.estimate.value):
            continue
        if abs(now - was - change.estimate.value) > _SLACK:
            of = " ".join([*change.sensitive, *change.group.values()])
            yield f"{change.metric} {of} is {change.estimate.value:.6g}, and both audits come to {now - was:.6g}"


def _number(report: AuditReport, metric: str, change: Finding) -> float | None:
    """The one number of this name that the change can be of; None where none or several are."""
    found = {
        f.estimate.value
        for f in report.findings
        if f.metric == metric and f.estimate is not None and not f.at and not is_paired_change(report, f)
        and (f.group, f.sensitive) == (change.group, change.sensitive)
    }  # fmt: skip
    return found.pop() if len(found) == 1 else None


def _rates(positive: int | None) -> Mapping[str, tuple[Callable[[Answers], BoolArray], Callable[[Answers], BoolArray]]]:
    """Of each rate, the rows that it is of, and which of them count."""
    rates: dict[str, tuple[Callable[[Answers], BoolArray], Callable[[Answers], BoolArray]]] = {
        "accuracy": (lambda a: ~np.isnan(a.truth), lambda a: a.predicted == a.truth)
    }
    if positive is not None:
        rates |= {
            "selection_rate": (lambda a: np.ones(len(a), bool), lambda a: a.predicted == positive),
            "true_positive_rate": (lambda a: a.truth == positive, lambda a: a.predicted == positive),
            "false_positive_rate": (
                lambda a: ~np.isnan(a.truth) & (a.truth != positive),
                lambda a: a.predicted == positive,
            ),
        }
    return rates


def _uncounted(finding: Finding, reference_answers: Answers, current_answers: Answers) -> str | None:
    """Where a change is not what the rows come to; "" where it is, None where rows do not tell it."""
    estimate, rates = finding.estimate, _rates(reference_answers.head.positive)
    if isinstance(estimate, RateChange) and finding.metric == "accuracy_change" and not finding.group:
        sums = [("accuracy", estimate.before, estimate.gained, estimate.lost, estimate.n)]
    elif isinstance(estimate, GapChange):
        sums = [(r.rate, sum(r.before), sum(r.gained), sum(r.lost), sum(r.n)) for r in estimate.rates]
    else:
        return None
    told = False
    for rate, *said in sums:
        if rate not in rates:
            continue
        told = True
        rows, yes = rates[rate]
        mask, first, second = rows(reference_answers), yes(reference_answers), yes(current_answers)
        mine = [
            int((mask & m).sum())
            for m in (first, second & ~first, first & ~second, np.ones(len(reference_answers), bool))
        ]
        # Rows of small groups, or of none, may have been left out of a gap.
        whole = said[3] == mine[3]
        if (whole and said != mine) or any(a > b for a, b in zip(said, mine, strict=True)):
            words = "right before, gained, lost and rows" if rate == "accuracy" else "yes before, gained, lost and rows"
            return f"{finding.metric}: {rate} has {said} {words}, and the rows of both audits come to {mine}"
    return "" if told else None


class Audits:
    """The audits of a bundle, read one after the other: their check results and their parts."""

    def __init__(self, entries: Mapping[str, bytes], make_probe: Remake) -> None:
        self.entries = entries
        self.make_probe = make_probe
        self.used: set[str] = set()
        self.checks: list[Check] = []
        self.unproven: list[Unproven] = []

    def read_report(self, name: str) -> AuditReport:
        """The record of one audit.

        Raises DataError where it is not there, or is none.
        """
        if name + WHOLE in self.entries:
            return self._whole(name + WHOLE)
        if name + ALONE not in self.entries:
            raise DataError(f"the audit {name!r} is not in it")
        return self._alone(name + ALONE)

    def check_paired(self, before: str, after: str, reports: tuple[AuditReport, AuditReport]) -> None:
        """Compare the changes between two audits with the answers of both, if their bundles are available."""
        parts = [before + WHOLE, after + WHOLE]
        if not all(part in self.entries for part in parts):
            return
        was, now = (unpack(self.entries[part], part) for part in parts)
        checks, unproven = check_paired_changes(parts[1], was, now, reports)
        self.checks += checks
        name = next((f.probe for f in reports[1].findings if is_paired_change(reports[1], f)), "")
        changed = f"{parts[1]}: results.json: results[{name}]"
        if any(check.state == "ok" for check in checks):
            # What the audit alone could not prove of them both do.
            self.unproven = [each for each in self.unproven if not each.where.startswith(changed)]
        self.unproven += unproven

    def _whole(self, part: str) -> AuditReport:
        self.used.add(part)
        verified = verify_bytes(self.entries[part], part, self.make_probe)
        checks, unproven = enclosed_checks(part, verified)
        self.checks += checks
        self.unproven += unproven
        if verified.report is None:
            why = next((f"{c.name}: {c.detail}" for c in verified.checks if c.state == "wrong"), "it has no record")
            raise DataError(f"{part}, {why}")
        return verified.report

    def _alone(self, part: str) -> AuditReport:
        self.used.add(part)
        report: AuditReport | None
        report, said = read_part(part, self.entries, read_record)
        self.checks += said
        if report is None:
            raise DataError(f"the record in {part!r} cannot be read")
        self.checks += [Check(name=f"{part}: {at}", state="wrong", detail=why) for at, why in contradictions(report)]
        why = "the record alone is enclosed: no audit of it can be verified without its bundle"
        self.checks.append(Check(name=part, state="not checked", detail=why))
        self.unproven.append(Unproven(where=f"{part}: *", why=why, needs="numbers"))
        return report
