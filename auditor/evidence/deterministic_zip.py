"""A deterministic zip archive: its contents determine every byte, so that any change is detectable."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from auditor.core.errors import DataError, UsageError
from auditor.core.files import Spool

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
