"""The container of evidence: a deterministic zip archive of its parts, log, manifest and signature."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from auditor.core.errors import DataError, UsageError
from auditor.core.files import Spool, write_beside
from auditor.evidence.manifest import MANIFEST, SIGNATURE, TIMESTAMP, ChainedLog, Kind, Manifest, build_manifest
from auditor.evidence.signing import sign
from auditor.evidence.timestamp import NoTimestampError, covered, timestamp_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_BYTES = 2 << 30
# Some parts of an audit, and every decision and file that it went by; of a sweep of 200 points 201 audits.
MAX_ENTRIES = 1_000
_ZIP = b"PK\x03\x04"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(entries: Mapping[str, bytes | Spool]) -> bytes:
    """The archive of these entries, as :func:`pack_into` writes it."""
    buffer = io.BytesIO()
    pack_into(buffer, entries)
    return buffer.getvalue()


def pack_into(file: IO[bytes], entries: Mapping[str, bytes | Spool]) -> None:
    """Write the entries in the order of their names: uncompressed, without times or comments."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(entries):
            content = entries[name]
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            # Known beforehand, so that the header is one of a small or of a large entry.
            info.file_size = len(content) if isinstance(content, bytes) else content.size
            with archive.open(info, "w") as entry:
                for block in [content] if isinstance(content, bytes) else content.blocks():
                    entry.write(block)


def read_archive(path: Path) -> bytes:
    """The bytes of a bundle. Raises UsageError where there is none, DataError where it is too large to be one."""
    try:
        if not path.is_file():
            raise UsageError(f"There is no evidence bundle at {str(path)!r}.")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path.name!r} is larger than {MAX_BYTES >> 30} GiB: it is no evidence bundle.")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror}.") from None


def is_bundle(path: Path) -> bool:
    """Whether a file is an archive, by its content."""
    try:
        with path.open("rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError:
        return False


def unpack(data: bytes, name: str) -> dict[str, bytes]:
    """The entries of an archive that :func:`pack` made. Raises DataError where it is cut short or no such archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if len(infos) > MAX_ENTRIES or sum(i.file_size for i in infos) > MAX_BYTES:
                raise DataError(f"{name!r} holds more than an evidence bundle does.")
            if any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 0x1 for i in infos):
                raise DataError(
                    f"{name!r} holds entries that are compressed or encrypted, as no evidence bundle's are."
                )
            if len({i.filename for i in infos}) < len(infos):
                raise DataError(f"{name!r} holds an entry twice.")
            return {i.filename: _stored(data, i, name) for i in infos}
    except DataError:
        raise
    except Exception as error:  # zipfile raises a dozen types on damaged archives
        raise DataError(
            f"{name!r} is no whole evidence bundle ({type(error).__name__}: {error}): give the file that --bundle "
            "wrote, and fetch it again if that is it."
        ) from None


def _stored(data: bytes, info: zipfile.ZipInfo, name: str) -> bytes:
    """The bytes of an entry, whatever its checksum says: digests decide, and they can name what changed."""
    start = info.header_offset + 30
    if len(data) < start:
        raise DataError(f"{name!r} ends within an entry's header: it is no whole evidence bundle.")
    start += int.from_bytes(data[start - 4 : start - 2], "little") + int.from_bytes(data[start - 2 : start], "little")
    content = data[start : start + info.file_size]
    if len(content) < info.file_size or info.compress_size != info.file_size:
        raise DataError(f"{name!r} ends within the entry {info.filename!r}: it is no whole evidence bundle.")
    return content


def differing_part(data: bytes, entries: Mapping[str, bytes]) -> str:
    """The part of the container that its contents do not determine, in words; "" if every byte is right."""
    made = pack(entries)
    if made == data:
        return ""
    place = next((i for i, (a, b) in enumerate(zip(data, made, strict=False)) if a != b), min(len(data), len(made)))
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        infos = archive.infolist()
        directory = archive.start_dir
    owner = "the end of the archive"
    if place < directory:
        before = [i for i in infos if i.header_offset <= place]
        owner = f"the header of {max(before, key=lambda i: i.header_offset).filename}"
    elif place < len(made) - 22:
        owner = "the directory of the archive"
    return f"{owner} (byte {place:,})"


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
