"""Checks an evidence bundle without the model: container, digests, chain, signature, and the audit assembled anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import DataError
from auditor.evidence.container import read_archive, unpack
from auditor.evidence.evidence_bundle import statements_of
from auditor.evidence.manifest import ASKED, MANIFEST, RECORD, REDACTABLE, RESULTS, ROWS, TABLES, Manifest
from auditor.evidence.signing import fingerprint
from auditor.evidence.timestamp import Authorities
from auditor.evidence.verify.bundle_parts import (
    OTHER_CODE,
    code,
    container,
    digests,
    log_chain,
    read_part,
    read_record,
    signature,
    spelled,
    unknown_parts,
)
from auditor.evidence.verify.checks import NOT_COMPUTED, Check, Needs, Verified, left_open
from auditor.evidence.verify.dates import check_timestamp, dated, in_order
from auditor.evidence.verify.enclosed_inputs import Inputs, read_inputs, unnamed_parts
from auditor.evidence.verify.recomputed_counts import Counted, check_counts
from auditor.evidence.verify.remeasure import Remade, Remake
from auditor.evidence.verify.replay import RULE_PACK, Replay
from auditor.report.record.audit_report import AuditReport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

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
    report, said = read_part(RECORD, entries, read_record)
    asked, more = read_part(RESULTS, entries, lambda content: ASKED.validate_json(content))
    checks += said + more
    checks.append(signature(entries, () if report is None else statements_of(manifest, report), trusted))
    when = check_timestamp(entries, report, authorities)
    checks += [] if when.check is None else [when.check]
    if report is None or asked is None:
        return Verified(checks=tuple(checks), report=report)
    other_code = whose.detail.startswith(OTHER_CODE)
    inputs, unreadable = read_inputs(entries)
    checks += [*unreadable, *unnamed_parts(entries, report, inputs), spelled(entries, report)]
    found = Counted(checks=())
    try:
        names = frozenset(map(fingerprint, trusted))
        replay = Replay(report, asked, inputs, trusted=names, other_code=other_code)
        more, undated = in_order(entries, report, inputs)
        if not any(check.name in (TABLES, ROWS) for check in unreadable):
            remade = Remade(make_probe, other_code, report.family.other_rule)
            found = check_counts(entries, manifest, asked, report, inputs, remade)
    except NOT_COMPUTED as error:
        detail = f"its numbers cannot be recomputed: {type(error).__name__}"
        return Verified(checks=(*checks, Check(name="numbers", state="wrong", detail=detail)), report=report)
    checks += [*replay.checks, *more, *found.checks]
    open_ = [*replay.unproven, *undated, *left_open(checks), *found.unproven]
    verified = Verified(
        checks=tuple(checks),
        report=report,
        from_rows=found.from_rows,
        from_tables=found.from_tables,
        there=_present_proofs(checks, report, inputs),
        unproven=tuple(dict.fromkeys(open_)),
    )
    return verified if when.at is None else dated(verified, when.at, entries)


def _present_proofs(checks: Sequence[Check], report: AuditReport, inputs: Inputs) -> frozenset[Needs]:
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
