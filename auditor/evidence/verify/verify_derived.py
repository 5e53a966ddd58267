"""Verification of evidence other than audits: container, digests, chain, signature, and the rebuilt record."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from auditor.core.errors import AuditorError, DataError
from auditor.evidence.derived_evidence import recorded, statement_of_derived
from auditor.evidence.manifest import LOG, MANIFEST, RECORD, REQUEST, SIGNATURE, Manifest, events, in_order
from auditor.evidence.verify.bundle_parts import OTHER_CODE, code, container, digests, log_chain, read_part, signature
from auditor.evidence.verify.checks import NOT_COMPUTED, Check, Needs, State, Unproven, Verified, difference, left_open

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

    ``used``: the parts that it was made of. ``request``: what of the request follows from the parts. ``made``: how much
    was recomputed, in words.
    """

    record: Mapping[str, Any]
    about: Mapping[str, str | None]
    used: Collection[str]
    made: str
    request: Mapping[str, Any]
    checks: tuple[Check, ...] = ()
    unproven: tuple[Unproven, ...] = ()
    there: frozenset[Needs] = frozenset()


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
        if name not in (*_PARTS, *found.used)
    ]
    mine = {**found.request, "about": {k: v for k, v in found.about.items() if v}}
    if where := difference(dict(request), mine):
        checks.append(Check(name=REQUEST, state="wrong", detail=where))
    words = _compare_records(record, found, other_code=whose.detail.startswith(OTHER_CODE))
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
    said = None
    if isinstance(about, dict) and isinstance(exit_code, int):
        said = statement_of_derived(manifest, exit_code, about)
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
