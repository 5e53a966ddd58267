"""Checks an evidence bundle without the model: container, digests, chain, signature, and every number anew.

The record of a registration is rebuilt from the enclosed registration and the plan in force.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import DataError
from auditor.evidence.container import read_archive, unpack
from auditor.evidence.evidence_bundle import statement_of
from auditor.evidence.manifest import ASKED, MANIFEST, RECORD, REDACTABLE, RESULTS, Asked, Manifest
from auditor.evidence.registration import Plan, held_against, with_what_became
from auditor.evidence.signing import fingerprint
from auditor.evidence.timestamp import Authorities
from auditor.evidence.verify.bundle_parts import (
    OTHER_CODE,
    code,
    container,
    digests,
    log_chain,
    read_part,
    signature,
    spelled,
    unknown_parts,
)
from auditor.evidence.verify.checks import NOT_COMPUTED, Check, Needs, Unproven, Verified, left_open
from auditor.evidence.verify.configuration_check import check_configuration
from auditor.evidence.verify.dates import in_order
from auditor.evidence.verify.decision_records import check_decisions
from auditor.evidence.verify.enclosed_inputs import WentBy, went_by
from auditor.evidence.verify.json_difference import difference
from auditor.evidence.verify.log_and_rule_packs import RULE_PACK, check_log_and_packs, unread
from auditor.evidence.verify.recomputed_counts import check_counts
from auditor.evidence.verify.rejudge import check_judgements
from auditor.evidence.verify.remeasure import Remade, Remake
from auditor.evidence.verify.timestamp_check import check_timestamp, dated
from auditor.evidence.verify.unproven_fields import list_unproven
from auditor.report.record.audit_report import AuditReport, RegistrationRecord

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NAME = "registration"
_WHERE = "record.json: registration"


def check_registration(
    report: AuditReport, inputs: WentBy, trusted: Collection[str]
) -> tuple[list[Check], list[Unproven]]:
    """Check that the registration record follows from the registration and the plan.

    ``trusted``: fingerprints of keys.
    """
    said = report.registration
    if said is None:
        wrong = inputs.registration is not None
        detail = "one is enclosed, and the record says nothing of it"
        return [Check(name=NAME, state="wrong", detail=detail)] if wrong else [], []
    if inputs.registration is None or inputs.understood is None:
        why = (
            "the registration is not enclosed"
            if inputs.registration is None
            else "the plan in force is not in the request"
        )
        checks = [] if inputs.registration is None else _apart_from_the_plan(said, inputs)
        return checks, [Unproven(where=f"{_WHERE}.*", why=why, needs="registration")]
    again = _rebuild_record(report, said, inputs)
    where = difference(said.model_dump(mode="json"), again.model_dump(mode="json"))
    if where:
        return [Check(name=NAME, state="wrong", detail=f"by the registration and the plan: {where}")], []
    n = len(said.deviations)
    detail = f"digest, author, day, signature and {n} {'deviation' if n == 1 else 'deviations'} found anew"
    return [Check(name=NAME, state="ok", detail=detail)], _open(said, inputs.understood.plan, trusted)


def _rebuild_record(report: AuditReport, stored_record: RegistrationRecord, inputs: WentBy) -> RegistrationRecord:
    if inputs.registration is None or inputs.understood is None:
        return stored_record
    record = held_against(
        inputs.registration,
        inputs.understood.plan,
        path=stored_record.path,
        started=datetime.fromisoformat(inputs.understood.began),
        tool=str(report.tool.get("version")),
    )
    planned = list(inputs.understood.plan.probes)
    record = with_what_became(record, report.findings, was_refused=report.refusal is not None, planned=planned)
    # Where the history holds it is for the history to say.
    return record.model_copy(update={"entered": stored_record.entered, "cautions": stored_record.cautions})


def _apart_from_the_plan(stored_record: RegistrationRecord, inputs: WentBy) -> list[Check]:
    if inputs.registration is None:
        return []
    made = inputs.registration.registration
    found = (made.digest, made.registered, made.by, inputs.registration.signed_with)
    same = found == (stored_record.sha256, stored_record.registered, stored_record.by, stored_record.signed_with)
    return [] if same else [Check(name=NAME, state="wrong", detail="the one that is enclosed is another")]


def _open(stored_record: RegistrationRecord, plan: Plan, trusted: Collection[str]) -> list[Unproven]:
    found = [
        Unproven(
            where=f"{_WHERE}.registered",
            why="a registration's day is its author's word where no timestamp tells it",
            needs="timestamp",
        )
    ]
    if stored_record.signed_with is None or stored_record.signed_with not in trusted:
        whose = (
            "by nobody"
            if stored_record.signed_with is None
            else f"with the key {stored_record.signed_with[:16]}, which you did not name"
        )
        found.append(Unproven(where=f"{_WHERE}.by", why=f"it is signed {whose}", needs="registration"))
    if stored_record.entered is not None or stored_record.cautions:
        found += [
            Unproven(
                where=f"{_WHERE}.{name}", why="where it was entered is for the history to say: --db", needs="history"
            )
            for name in ("entered.*", "cautions")
        ]
    loose = [name for name, digest in plan.files.items() if digest is None]
    if loose:
        why = f"of {', '.join(loose)} no digest was held against the registered one"
        found.append(Unproven(where=f"{_WHERE}.deviations", why=why, needs="registration"))
    return found


_MOST_BYTES = 32 << 20


def verify_bundle(
    path: Path,
    make_probe: Remake,
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    authorities: Authorities | None = None,
) -> Verified:
    """Every check that the bundle allows.

    ``make_probe``: the probes there are, and those whose numbers follow from answers, decisions and groups alone.
    ``trusted``: keys of whom the reader expects the signature. ``authorities``: whose clocks the reader trusts, and
    expects a timestamp of. Raises UsageError where there is
    no file, DataError where it is no bundle at all; everything else is a check that came out wrong.
    """
    return verify_bytes(read_archive(path), path.name, make_probe, trusted=trusted, authorities=authorities)


def verify_bytes(
    data: bytes,
    file_name: str,
    make_probe: Remake,
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    authorities: Authorities | None = None,
) -> Verified:
    """The same of a bundle's bytes; ``file_name``: in messages."""
    entries = unpack(data, file_name)
    for name, content in entries.items():
        if name not in REDACTABLE and len(content) > _MOST_BYTES:
            raise DataError(f"{file_name!r}: the part {name[:60]!r} is larger than any audit makes it.")
    if MANIFEST not in entries:
        raise DataError(f"{file_name!r} has no {MANIFEST}: it is no evidence bundle, or that part was taken out.")
    checks = [container(data, entries)]
    try:
        manifest = Manifest.from_bytes(entries[MANIFEST])
    except DataError as error:
        return Verified(checks=(*checks, Check(name="manifest", state="wrong", detail=str(error))), report=None)
    if manifest.kind != "audit":
        checks.append(
            Check(name="manifest", state="wrong", detail=f"it says {manifest.kind}, and an audit was expected")
        )
    checks += [*digests(entries, manifest), *unknown_parts(entries)]
    whose = code(entries)
    checks += [log_chain(entries, manifest), whose]
    report, said = read_part(RECORD, entries, lambda content: AuditReport.model_validate_json(content))
    asked, more = read_part(RESULTS, entries, lambda content: ASKED.validate_json(content))
    checks += said + more
    checks.append(signature(entries, None if report is None else statement_of(manifest, report), trusted))
    when = check_timestamp(entries, report, authorities)
    checks += [] if when.check is None else [when.check]
    if report is None or asked is None:
        return Verified(checks=tuple(checks), report=report)
    other_code = whose.detail.startswith(OTHER_CODE)
    by, more = went_by(entries)
    checks += more
    try:
        checks += check_judgements(report, asked, other_code=other_code)
        checks += [spelled(entries, report), *check_log_and_packs(entries, report, asked, by)]
        about, open_ = _remade(entries, report, asked, by, frozenset(map(fingerprint, trusted)))
        checks += about
        remake = Remade(make_probe, other_code, report.family.other_rule)
        found = check_counts(entries, manifest, asked, report, remake)
    except NOT_COMPUTED as error:
        detail = f"its numbers cannot be recomputed: {type(error).__name__}"
        return Verified(checks=(*checks, Check(name="numbers", state="wrong", detail=detail)), report=report)
    checks += found.checks
    open_ += [
        *left_open(checks),
        *found.unproven,
        *unread(report, by),
        *list_unproven(report, checks),
    ]
    verified = Verified(
        checks=tuple(checks),
        report=report,
        from_rows=found.from_rows,
        from_tables=found.from_tables,
        there=_present_proofs(checks, report, by),
        unproven=tuple(dict.fromkeys(open_)),
    )
    return verified if when.at is None else dated(verified, when.at, entries)


def _remade(
    entries: Mapping[str, bytes], report: AuditReport, results_file: Asked, inputs: WentBy, trusted: frozenset[str]
) -> tuple[list[Check], list[Unproven]]:
    """What is made again of what the audit went by."""
    checks: list[Check] = []
    open_: list[Unproven] = []
    for made in (
        check_configuration(entries, report, results_file, inputs),
        check_registration(report, inputs, trusted),
        check_decisions(report, inputs, trusted),
        in_order(entries, report, inputs),
    ):
        checks += made[0]
        open_ += made[1]
    return checks, open_


def _present_proofs(checks: Sequence[Check], report: AuditReport, inputs: WentBy) -> frozenset[Needs]:
    """What the bundle holds of what proves."""
    fine = {check.name for check in checks if check.state == "ok"}
    held: dict[Needs, bool] = {
        "signature": "signature" in fine,
        "rows": "group table" in fine,
        "numbers": any(finding.value is not None for finding in report.findings),
        "outcomes": bool(report.findings),
        "registration": report.registration is not None and inputs.registration is not None,
        "decisions": bool(report.decisions) and bool(inputs.decisions),
        "packs": bool(report.policies) and any(name.startswith(RULE_PACK) for name in fine),
        "configuration": inputs.understood is not None,
        "request": inputs.understood is not None,
    }
    return frozenset(name for name, there in held.items() if there)
