"""Verification of evidence other than audits: container, chain, signature, enclosed audits, the rebuilt record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import AuditorError, DataError
from auditor.core.rows import BoolArray
from auditor.evidence.container import unpack
from auditor.evidence.derived_evidence import ALONE, WHOLE, recorded, statement_of_derived
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    REQUEST,
    ROWS,
    SIGNATURE,
    TABLES,
    Manifest,
    events,
    in_order,
)
from auditor.evidence.verify.bundle_parts import (
    OTHER_CODE,
    code,
    container,
    digests,
    log_chain,
    read_part,
    read_record,
    signature,
)
from auditor.evidence.verify.checks import NOT_COMPUTED, Check, Needs, State, Unproven, Verified, difference, left_open
from auditor.evidence.verify.remeasure import Remake
from auditor.evidence.verify.verify_bundle import verify_bytes
from auditor.report.comparing.side_by_side import is_paired_change
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.contradictions import contradictions
from auditor.run.predictions import Answers, read_head, read_rows
from auditor.statistics.changes import GapChange, RateChange

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PARTS = (RECORD, REQUEST, LOG)
# Sentences, which another version of the toolkit may put otherwise; no outcome and no number stands in them alone.
_WORDS = ("conclusion", "headline", "remarks", "reasons", "reason", "reading")


@dataclass(frozen=True, kw_only=True)
class Said:
    """The contents of a bundle: the record and the request as JSON, and all parts by name."""

    record: Mapping[str, Any]
    request: Mapping[str, Any]
    entries: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Again:
    """The rebuilt contents: the ``record`` as it would be written, and the digests that it is ``about``.

    ``used``: the audits that it was made of; ``parts``: the other parts, as they would be written. ``request``: what
    of the request follows from the parts. ``made``: how much was recomputed, in words. ``file_digests``: by a folder's
    root digest, the one by which earlier versions named it.
    """

    record: Mapping[str, Any]
    about: Mapping[str, str | None]
    made: str
    request: Mapping[str, Any]
    parts: Mapping[str, bytes]
    used: Collection[str] = ()
    checks: tuple[Check, ...] = ()
    unproven: tuple[Unproven, ...] = ()
    there: frozenset[Needs] = frozenset()
    file_digests: Mapping[str, str] = field(default_factory=dict)


def verify_derived(
    data: bytes,
    entries: Mapping[str, bytes],
    recompute: Callable[[Said], Again],
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
) -> Verified:
    """Every check that the bundle allows; ``recompute`` rebuilds its record from its parts."""
    manifest = Manifest.from_bytes(entries[MANIFEST])
    whose = code(entries)
    what = Check(name="kind", state="ok", detail=f"it is the evidence of a {_kind(manifest)}")
    checks = [what, container(data, entries), *digests(entries, manifest, _PARTS), log_chain(entries, manifest), whose]
    record, said = read_part(RECORD, entries, _table)
    request, more = read_part(REQUEST, entries, _table)
    checks += said + more
    if record is None or request is None:
        return Verified(checks=tuple(checks), report=None)
    checks += _of_log(entries, manifest, record)
    signed, open_, there = _signed(entries, manifest, record, request, trusted)
    checks.append(signed)
    try:
        found = recompute(Said(record=record, request=request, entries=entries))
    except (AuditorError, *NOT_COMPUTED) as error:
        why = str(error) if isinstance(error, AuditorError) else type(error).__name__
        wrong = Check(name=RECORD, state="wrong", detail=f"it cannot be made anew: {why[:300]}")
        return Verified(checks=(*checks, wrong), report=None, unproven=open_, there=there)
    checks += found.checks
    checks += [
        Check(name=name[:200], state="wrong", detail=f"is nothing that the evidence of this {_kind(manifest)} holds")
        for name in manifest.files
        if name not in (*_PARTS, *found.used, *found.parts)
    ]
    other_code = whose.detail.startswith(OTHER_CODE)
    checks += [
        Check(name=name, state="wrong", detail="is not written as what was read of it would be")
        for name, content in found.parts.items()
        if name in entries and entries[name] != content and not other_code
    ]
    stated = request.get("about")
    named = stated if other_code and isinstance(stated, dict) else {}
    about = {name: digest for name, digest in found.about.items() if digest}
    earlier = {name: found.file_digests.get(digest) for name, digest in about.items()}
    about |= {name: digest for name, digest in earlier.items() if digest is not None and named.get(name) == digest}
    mine = {**found.request, "about": about}
    if where := difference(dict(request), mine):
        checks.append(Check(name=REQUEST, state="wrong", detail=where))
    words = _compare_records(record, found, other_code=other_code)
    checks += words
    plain = Unproven(where=f"{LOG}: at, command, tool", why="the signer's word")
    return Verified(
        checks=tuple(checks),
        report=None,
        there=there | found.there,
        unproven=(*open_, *found.unproven, *left_open(words), plain),
    )


def _table(content: bytes) -> dict[str, Any]:
    found = json.loads(content)
    if not isinstance(found, dict):
        raise DataError("it is no table")
    in_order(found)  # which numbers that are none cannot be written in, nor text that is none
    return found


def _kind(manifest: Manifest) -> str:
    return manifest.kind.replace("_", " ")


def _of_log(entries: Mapping[str, bytes], manifest: Manifest, record: Mapping[str, Any]) -> list[Check]:
    said = [e for e in events(entries.get(LOG, b"")) if e.get("event") == "recorded"]
    exit_code = record.get("exit_code")
    mine = recorded(manifest.kind, entries[RECORD], exit_code if isinstance(exit_code, int) else -1)
    if len(said) == 1 and all(said[0].get(name) == value for name, value in mine.items()):
        return []
    return [Check(name="log", state="wrong", detail="it is of another record than the one in the bundle")]


def _signed(
    entries: Mapping[str, bytes],
    manifest: Manifest,
    record: Mapping[str, Any],
    request: Mapping[str, Any],
    trusted: Sequence[Ed25519PublicKey],
) -> tuple[Check, tuple[Unproven, ...], frozenset[Needs]]:
    about, exit_code = request.get("about"), record.get("exit_code")
    said: tuple[bytes, ...] = ()
    if isinstance(about, dict) and isinstance(exit_code, int):
        said = tuple(statement_of_derived(manifest, record, about, with_subjects=each) for each in (True, False))
    check = signature(entries, said, trusted)
    there: frozenset[Needs] = frozenset({"signature"}) if SIGNATURE in entries else frozenset()
    if check.state != "not checked":
        return check, (), there
    return check, (Unproven(where=SIGNATURE, why=check.detail, needs="signature"),), there


def _compare_records(record: Mapping[str, Any], remake: Again, *, other_code: bool) -> list[Check]:
    """The record's fields that are not what its parts come to, each by its name."""
    checks = []
    for name in [*record, *(n for n in remake.record if n not in record)]:
        if name not in record or name not in remake.record:
            detail = "is nothing that such a record says" if name not in remake.record else "is not in the record"
            checks.append(Check(name=name[:200], state="wrong", detail=detail))
            continue
        said, mine = record[name], remake.record[name]
        if not (where := difference(said, mine, name)):
            continue
        state: State = "wrong"
        if other_code and not difference(_without_words(name, said), _without_words(name, mine)):
            state = "not checked"
        checks.append(Check(name=name if state == "wrong" else f"outcomes, {name}", state=state, detail=where))
    if not any(check.state == "wrong" for check in (*checks, *remake.checks)):
        checks.append(Check(name="record", state="ok", detail=remake.made))
    return checks


def _without_words(name: str, value: object) -> object:
    if name in _WORDS:
        return None
    if isinstance(value, Mapping):
        return {key: _without_words(str(key), each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_words("", each) for each in value]
    return value


def enclosed_checks(part: str, verified: Verified) -> tuple[list[Check], tuple[Unproven, ...]]:
    """The results for an enclosed bundle, each named with its part.

    What agrees is one line. Its own signature may be absent: that of the bundle around it covers it.
    """
    unsigned = [c for c in verified.checks if c.name == "signature" and c.state == "not checked"]
    checks = [
        replace(check, name=f"{part}: {check.name}")
        for check in verified.checks
        if check.state != "ok" and check not in unsigned
    ]
    if not verified.wrong:
        numbers = [f.id for f in (() if verified.report is None else verified.report.findings) if f.value is not None]
        counted = len(verified.from_rows | verified.from_tables)
        detail = f"verified as an audit: {len(numbers):,} numbers recomputed, {counted:,} of them counted anew"
        checks.append(Check(name=part, state="ok", detail=detail))
    open_ = tuple(
        replace(each, where=f"{part}: {each.where}") for each in verified.unproven if each.needs != "signature"
    )
    return checks, open_


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
        self.file_digests: dict[str, str] = {}

    def read_report(self, name: str) -> AuditReport:
        """The record of one audit.

        Raises DataError where it is not there, or is none.
        """
        if not {name + WHOLE, name + ALONE} & self.entries.keys():
            raise DataError(f"the audit {name!r} is not in it")
        report = self._whole(name + WHOLE) if name + WHOLE in self.entries else self._alone(name + ALONE)
        if report.model.root_sha256 is not None and report.model.sha256 is not None:
            self.file_digests[report.model.root_sha256] = report.model.sha256
        return report

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
