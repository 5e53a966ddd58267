"""Strict reading of zip archives: every reader must see the same complete records, within size limits.

Zip files can be made to mean different things to different readers: duplicate names (Python takes the last, torch the
first), overlapping records, local headers that disagree with the central directory. Nothing here is lenient about that.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from auditor.core.errors import DamagedError, ModelError
from auditor.models.files.model_bytes import printable

if TYPE_CHECKING:
    import numpy as np

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_HAS_DESCRIPTOR, _ENCRYPTED = 0x8, 0x1
_STORED, _DEFLATED, _ZSTANDARD = 0, 8, 93
_IN_EXTRA = 0xFFFFFFFF
MAX_RECORDS = 200_000
MAX_RATIO = 20
FREE_BYTES = 64 << 20


@dataclass(frozen=True)
class Record:
    """One file of an archive; its compressed bytes are ``data[start:start + packed]``."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    header: int
    start: int
    end: int


@dataclass(frozen=True)
class Archive:
    """A verified archive: names are unique, records do not overlap, headers agree. Reading a record checks its CRC."""

    data: bytes
    records: Mapping[str, Record]

    def read(self, name: str) -> bytes:
        """The unpacked bytes of a record. Raises ModelError where they are not what the header says."""
        return _unpack(self.data, self.records[name])


def open_archive(data: bytes, file_name: str, *, with_zstandard: bool = False) -> Archive:
    """Verify an archive in full, including every CRC.

    Raises ModelError; ``file_name`` names the file in its message. ``with_zstandard``: whether records may be packed by
    Zstandard too, which PyTorch and Python before 3.14 do not read.
    """
    methods = (_STORED, _DEFLATED, *([_ZSTANDARD] if with_zstandard else []))
    records = _central_records(data, file_name, methods)
    _verify_layout(data, records, file_name)
    unpacked = sum(r.size for r in records)
    if unpacked > MAX_RATIO * len(data) + FREE_BYTES:
        raise ModelError(
            f"{file_name!r} would unpack from {len(data):,} to {unpacked:,} bytes: a decompression bomb.",
            code="AUD-LOAD-LIMIT",
        )
    for record in records:
        _check_crc(data, record, file_name)
    return Archive(data, {r.name: r for r in records})


def _damaged_archive_error(file_name: str, reason: str) -> ModelError:
    return DamagedError(
        f"{file_name!r} is a damaged or doctored zip archive: {reason}. Ask for the file again, or save it anew."
    )


def _end_of_directory(data: bytes, file_name: str) -> tuple[int, int, int, int]:
    """(number of records, offset of the directory, its size, where whatever follows it begins)."""
    place = len(data) - _END.size
    if place < 0 or data[place : place + 4] != b"PK\x05\x06":
        raise _damaged_archive_error(file_name, "its directory is missing at the end, as in a truncated download")
    _, disk, first_disk, here, total, size, offset, comment = _END.unpack_from(data, place)
    after = place
    locator = place - _END64_LOCATOR.size
    if locator >= 0 and data[locator : locator + 4] == b"PK\x06\x07":
        _, _, wide, _ = _END64_LOCATOR.unpack_from(data, locator)
        if wide + _END64.size != locator or data[wide : wide + 4] != b"PK\x06\x06":
            raise _damaged_archive_error(file_name, "its 64-bit directory is not where it is said to be")
        _, _, _, _, disk, first_disk, here, total, size, offset = _END64.unpack_from(data, wide)
        after = wide
    if disk or first_disk or here != total or comment or offset + size != after:
        raise _damaged_archive_error(file_name, "its directory does not end where it should")
    return total, offset, size, after


def _central_records(data: bytes, file_name: str, methods: tuple[int, ...]) -> list[Record]:
    total, place, _, stop = _end_of_directory(data, file_name)
    if total > MAX_RECORDS:
        raise _damaged_archive_error(file_name, f"it claims {total:,} records")
    records: list[Record] = []
    for _ in range(total):
        if place + _CENTRAL.size > stop or data[place : place + 4] != b"PK\x01\x02":
            raise _damaged_archive_error(file_name, "its directory is shorter than it claims")
        (_, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, attributes, header) = (
            _CENTRAL.unpack_from(data, place)
        )
        name_end = place + _CENTRAL.size + n_name
        raw = data[place + _CENTRAL.size : name_end]
        extra = data[name_end : name_end + n_extra]
        place = name_end + n_extra + n_comment
        if place > stop:
            raise _damaged_archive_error(file_name, "its directory is shorter than it claims")
        size, packed, header = _wide(extra, [size, packed, header], file_name)
        name = _name(raw, file_name)
        if flags & _ENCRYPTED or method not in methods or disk:
            raise _damaged_archive_error(
                file_name, f"the record {printable(name)!r} is encrypted or packed in an unusual way"
            )
        if (attributes >> 16) & 0o170000 == 0o120000:
            raise _damaged_archive_error(file_name, f"the record {printable(name)!r} is a symbolic link")
        if method == _STORED and packed != size:
            raise _damaged_archive_error(file_name, f"the record {printable(name)!r} has two sizes")
        start, end = _local_record(data, header, raw, (flags, method, crc, packed, size), file_name)
        records.append(Record(name, method, crc, packed, size, header, start, end))
    if place != stop:
        raise _damaged_archive_error(file_name, "its directory is longer than it claims")
    return records


def _name(raw: bytes, file_name: str) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _damaged_archive_error(file_name, "a record's name is not UTF-8") from None
    parts = name.split("/")
    if not name or name.startswith("/") or "\\" in name or "\0" in name or ".." in parts or ":" in parts[0]:
        raise _damaged_archive_error(file_name, f"the record {printable(name)!r} would leave the archive's folder")
    return name


def _wide(extra: bytes, values: list[int], file_name: str) -> list[int]:
    """The values in order (size, packed, offset), from the 64-bit extra field where they are marked as there."""
    wanted = [i for i, value in enumerate(values) if value == _IN_EXTRA]
    if not wanted:
        return values
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        if kind == 1 and length >= 8 * len(wanted) and place + 4 + length <= len(extra):
            found = struct.unpack_from(f"<{len(wanted)}Q", extra, place + 4)
            result = list(values)
            for i, value in zip(wanted, found, strict=True):
                result[i] = value
            return result
        place += 4 + length
    raise _damaged_archive_error(file_name, "a 64-bit size is missing")


def _local_record(
    data: bytes, header: int, raw_name: bytes, central: tuple[int, int, int, int, int], file_name: str
) -> tuple[int, int]:
    """(start of the packed bytes, end of the record with its descriptor); checks the two headers against each other."""
    flags, method, crc, packed, size = central
    shown = printable(raw_name.decode("utf-8", "replace"))
    if header + _LOCAL.size > len(data) or data[header : header + 4] != b"PK\x03\x04":
        raise _damaged_archive_error(file_name, f"the record {shown!r} is not where the directory says")
    _, _, own_flags, own_method, _, _, own_crc, own_packed, own_size, n_name, n_extra = _LOCAL.unpack_from(data, header)
    name_end = header + _LOCAL.size + n_name
    start = name_end + n_extra
    end = start + packed
    if end > len(data):
        raise _damaged_archive_error(file_name, f"the record {shown!r} reaches beyond the end of the file")
    late = bool(own_flags & _HAS_DESCRIPTOR)
    if not (late and own_size == own_packed == 0):
        own_size, own_packed = _wide(data[name_end:start], [own_size, own_packed], file_name)
    same_sizes = (own_packed, own_size) == (packed, size) or (late and own_packed == own_size == 0)
    same_crc = own_crc == crc or (late and own_crc == 0)
    same_name = data[header + _LOCAL.size : name_end] == raw_name
    if not (same_name and same_sizes and same_crc and own_flags == flags and own_method == method):
        raise _damaged_archive_error(file_name, f"the record {shown!r} is described in two ways that disagree")
    if late:
        end += _descriptor_length(data, end, crc, packed, size, file_name, shown)
    return start, end


def _descriptor_length(
    data: bytes, place: int, crc: int, packed: int, size: int, file_name: str, record_name: str
) -> int:
    for form in ("<4sIII", "<4sIQQ"):
        length = struct.calcsize(form)
        if place + length <= len(data):
            mark, own_crc, own_packed, own_size = struct.unpack_from(form, data, place)
            if mark == b"PK\x07\x08" and (own_crc, own_packed, own_size) == (crc, packed, size):
                return length
    raise _damaged_archive_error(file_name, f"the record {record_name!r} is described in two ways that disagree")


def _verify_layout(data: bytes, records: list[Record], file_name: str) -> None:
    names: set[str] = set()
    for record in records:
        # Readers that look names up without regard to case would see one record where others see two.
        if record.name.lower() in names:
            raise _damaged_archive_error(file_name, f"it holds the record {printable(record.name)!r} twice")
        names.add(record.name.lower())
    place = 0
    for record in sorted(records, key=lambda r: r.header):
        if record.header < place:
            raise _damaged_archive_error(file_name, f"the record {printable(record.name)!r} overlaps another")
        if record.header > place:
            raise _damaged_archive_error(
                file_name, f"bytes that belong to no record lie before {printable(record.name)!r}"
            )
        place = record.end
    if place != _end_of_directory(data, file_name)[1]:
        raise _damaged_archive_error(file_name, "bytes that belong to no record lie before its directory")


def _check_crc(data: bytes, record: Record, file_name: str) -> None:
    view = memoryview(data)[record.start : record.start + record.packed]
    if record.method == _STORED:
        crc, size = zlib.crc32(view), record.size
    elif record.method == _ZSTANDARD:
        content = _zstandard(view, record)
        crc, size = zlib.crc32(content), len(content)
    else:
        crc, size = _inflated_crc(view, record, file_name)
    if crc != record.crc or size != record.size:
        raise _damaged_archive_error(file_name, f"the record {printable(record.name)!r} does not match its checksum")


def _inflated_crc(view: memoryview, record: Record, file_name: str) -> tuple[int, int]:
    """Checksum and size, at most one block beyond the claimed size held or unpacked."""
    inflate = zlib.decompressobj(-15)
    crc = size = 0
    try:
        # Small pieces: what zlib leaves unread is copied at every call.
        for start in range(0, len(view), 1 << 16):
            pending: bytes | memoryview = view[start : start + (1 << 16)]
            while pending and size <= record.size and not inflate.eof:
                block = inflate.decompress(pending, 1 << 20)
                pending = inflate.unconsumed_tail
                crc, size = zlib.crc32(block, crc), size + len(block)
            if inflate.eof and start + (1 << 16) < len(view):
                raise _damaged_archive_error(file_name, f"the record {printable(record.name)!r} has two sizes")
            if size > record.size:
                break
        block = b"" if size > record.size else inflate.decompress(b"", 1 << 20)
        crc, size = zlib.crc32(block, crc), size + len(block)
    except zlib.error:
        raise _damaged_archive_error(file_name, f"the record {printable(record.name)!r} cannot be unpacked") from None
    if inflate.unused_data or not inflate.eof:
        raise _damaged_archive_error(file_name, f"the record {printable(record.name)!r} has two sizes")
    return crc, size


def _unpack(data: bytes, record: Record) -> bytes:
    packed = data[record.start : record.start + record.packed]
    if record.method == _STORED:
        return packed
    if record.method == _ZSTANDARD:
        return _zstandard(packed, record)
    # Verified to end after record.size bytes.
    return zlib.decompressobj(-15).decompress(packed, record.size + 1)


def _zstandard(packed: bytes | memoryview, record: Record) -> bytes:
    """At most one byte more than the record claims; b"" for what is no frame."""
    # What enters the sandbox is to have one thread, and pyarrow starts more.
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as source:
            return bytes(source.read(record.size + 1))
    except OSError:
        return b""


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) of an entry with a NumPy array, without reading its values.

    Raises what numpy raises for others.
    """
    # What enters the sandbox is to have one thread, and numpy starts more.
    import numpy as np

    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
