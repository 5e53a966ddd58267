"""Verification of any kind of evidence, dispatched by the kind in its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import DataError
from auditor.evidence.deterministic_zip import read_archive, unpack
from auditor.evidence.manifest import MANIFEST, Kind, Manifest
from auditor.evidence.timestamp import Authorities
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.comparison_check import comparison_again, mitigation_again
from auditor.evidence.verify.detection_check import detection_again
from auditor.evidence.verify.dp_audit_check import dp_audit_again
from auditor.evidence.verify.enclosed_audits import Audits
from auditor.evidence.verify.remeasure import Remake
from auditor.evidence.verify.timestamp_check import check_timestamp, dated
from auditor.evidence.verify.tradeoff_check import tradeoff_again
from auditor.evidence.verify.training_check import training_again
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.evidence.verify.verify_derived import Again, Said, verify_derived

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# Out of audits.
_OF_AUDITS: Mapping[Kind, Callable[[Said, Audits], Again]] = {
    "comparison": comparison_again,
    "mitigation": mitigation_again,
    "tradeoff": tradeoff_again,
}
# Out of numbers.
_OF_NUMBERS: Mapping[Kind, Callable[[Said], Again]] = {
    "detection": detection_again,
    "dp_audit": dp_audit_again,
    "training": training_again,
}


def kind_of(data: bytes, name: str) -> Kind:
    """The kind of evidence in a bundle; without a readable manifest it is treated as an audit."""
    try:
        return Manifest.from_bytes(unpack(data, name)[MANIFEST]).kind
    except (DataError, KeyError):
        return "audit"


def verify_evidence(
    path: Path,
    make_probe: Remake,
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    authorities: Authorities | None = None,
) -> Verified:
    """Every check for a bundle of any kind; parameters and errors as in :func:`verify_bundle`."""
    data = read_archive(path)
    kind = kind_of(data, path.name)
    if kind == "audit":
        return verify_bundle(path, make_probe, trusted=trusted, authorities=authorities)
    entries = unpack(data, path.name)
    found = _verify_by_kind(path.name, data, entries, kind, make_probe, trusted)
    when = check_timestamp(entries, None, authorities)
    found = found if when.check is None else found.and_checked([when.check])
    return found if when.at is None else dated(found, when.at, entries)


def _verify_by_kind(
    file_name: str,
    data: bytes,
    entries: Mapping[str, bytes],
    kind: Kind,
    make_probe: Remake,
    trusted: Sequence[Ed25519PublicKey],
) -> Verified:
    if kind in _OF_NUMBERS:
        return verify_derived(data, entries, _OF_NUMBERS[kind], trusted=trusted)
    if kind not in _OF_AUDITS:
        raise DataError(f"{file_name!r} is the evidence of a {kind}, which this version cannot check.")
    audits = Audits(entries, make_probe)
    return verify_derived(data, entries, lambda said: _OF_AUDITS[kind](said, audits), trusted=trusted)
