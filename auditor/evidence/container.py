"""Evidence of any kind in one file: its parts, log, manifest and signature."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.files import Spool, write_beside
from auditor.evidence.deterministic_zip import pack_into
from auditor.evidence.log import ChainedLog
from auditor.evidence.manifest import MANIFEST, SIGNATURE, TIMESTAMP, Kind, Manifest, build_manifest
from auditor.evidence.signing import sign
from auditor.evidence.timestamp import NoTimestampError, covered, timestamp_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def write_container(
    path: str | Path,
    parts: Mapping[str, bytes | Spool],
    log: ChainedLog,
    make_statement: Callable[[Manifest], bytes],
    *,
    kind: Kind = "audit",
    key: Ed25519PrivateKey | None = None,
    left_out: Collection[str] = (),
    timestamp: str | None = None,
) -> Manifest:
    """Write the file atomically, signed if a ``key`` is given; return its manifest.

    ``parts``: of which the log is one. ``make_statement``: the statement that is signed. ``left_out``: parts that only
    the manifest names. ``timestamp``: the URL of an authority that says when the file was there. It is asked once the
    file is written, and where it does not answer, NoTimestampError is raised and the file stays without.
    """
    manifest = build_manifest(parts, log, kind)
    signed = {MANIFEST: manifest.to_bytes()}
    if key is not None:
        signed[SIGNATURE] = sign(make_statement(manifest), key)
    entries = {name: content for name, content in parts.items() if name not in left_out} | signed
    write_beside(path, partial(pack_into, entries=entries))
    if timestamp is not None:
        try:
            entries[TIMESTAMP] = timestamp_of(covered(signed), timestamp)
        except NoTimestampError as error:
            without = "The bundle is written without one: its dates are the signer's word."
            raise NoTimestampError(f"{error} {without}") from None
        write_beside(path, partial(pack_into, entries=entries))
    return manifest
