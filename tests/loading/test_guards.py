"""Each guard of the intake by itself: one thing is wrong with a file, or all others are off, and it is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from auditor.core.errors import ModelError, UnsafeModelError, UsageError
from auditor.loading import formats
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.files import model_bytes, strict_zip, weight_files, weights
from auditor.models.files import model_folder as folder_files
from auditor.models.files.model_bytes import Source, read_source
from auditor.models.files.strict_zip import open_archive
from tests.loading.test_intake_hostile import SAFETENSORS, bert, evil_module, payload, torch_zip

NO_END = "directory is missing at the end"
DISAGREE = "described in two ways that disagree"


# ---- archives, field by field ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A record of an archive as it is written: ``local`` and ``central`` replace fields of the one header alone.

    ``before``: bytes in front of it that no record owns. ``written``: whether it is there, or in the directory only.
    """

    name: bytes = b"a"
    content: bytes = b"hello"
    packed: bytes | None = None
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    local_extra: bytes = b""
    central_extra: bytes = b""
    descriptor: bytes = b""
    attributes: int = 0
    disk: int = 0
    local: tuple[tuple[str, int], ...] = ()
    central: tuple[tuple[str, int], ...] = ()
    local_name: bytes | None = None
    comment_length: int = 0
    before: bytes = b""
    written: bool = True


def fields(entry: Entry, over: tuple[tuple[str, int], ...], header: int = 0) -> dict[str, int]:
    packed = entry.content if entry.packed is None else entry.packed
    return {
        "flags": entry.flags,
        "method": entry.method,
        "crc": zlib.crc32(entry.content) if entry.crc is None else entry.crc,
        "packed": len(packed),
        "size": len(entry.content) if entry.size is None else entry.size,
        "header": header,
        **dict(over),
    }


def zipped(
    *entries: Entry,
    gap: bytes = b"",
    more: bytes = b"",
    end: dict[str, int] | None = None,
    wide: dict[str, int] | None = None,
    behind: bytes = b"",
) -> bytes:
    """The archive of these records.

    ``gap`` lies before the directory, ``more`` at its end, ``behind`` between the 64-bit end and what says where it is;
    ``end`` replaces fields of the end, ``wide`` those of the 64-bit end, if any.
    """
    body, directory = b"", b""
    for entry in entries:
        body += entry.before
        own, header = fields(entry, entry.local), len(body)
        name = entry.name if entry.local_name is None else entry.local_name
        record = struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 20, own["flags"], own["method"], 0, 0, own["crc"], own["packed"], own["size"],
            len(name), len(entry.local_extra),
        )  # fmt: skip
        record += (
            name + entry.local_extra + (entry.content if entry.packed is None else entry.packed) + entry.descriptor
        )
        body += record if entry.written else b""
        own = fields(entry, entry.central, header)
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, own["flags"], own["method"], 0, 0, own["crc"], own["packed"],
            own["size"], len(entry.name), len(entry.central_extra), entry.comment_length, entry.disk, 0,
            entry.attributes, own["header"],
        )  # fmt: skip
        directory += entry.name + entry.central_extra
    body += gap
    directory += more
    said = {"disk": 0, "first_disk": 0, "here": len(entries), "total": len(entries), "size": len(directory),
            "offset": len(body), "comment": 0} | (end or {})  # fmt: skip
    tail = b""
    if wide is not None:
        own = {"magic": 0x06064B50, "here": len(entries), "total": len(entries), "size": len(directory), "disk": 0,
               "first_disk": 0, "offset": len(body), "at": len(body) + len(directory)} | wide  # fmt: skip
        tail = struct.pack(
            "<IQ2H2I4Q", own["magic"], 44, 45, 45, own["disk"], own["first_disk"], own["here"], own["total"],
            own["size"], own["offset"],
        ) + behind + struct.pack("<4sIQI", b"PK\x06\x07", 0, own["at"], 1)  # fmt: skip
    tail += struct.pack(
        "<4s4H2IH", b"PK\x05\x06", said["disk"], said["first_disk"], said["here"], said["total"], said["size"],
        said["offset"], said["comment"],
    )  # fmt: skip
    return body + directory + tail


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def extra(*values: int, kind: int = 1, length: int | None = None) -> bytes:
    """An extra field of 64-bit numbers."""
    raw = struct.pack(f"<{len(values)}Q", *values)
    return struct.pack("<HH", kind, len(raw) if length is None else length) + raw


WIDE = 0xFFFFFFFF
OTHER = struct.pack("<HHI", 0x5455, 4, 0)
PACKED = Entry(packed=deflated(b"hello"), method=8)
LATE = replace(PACKED, flags=8, local=(("crc", 0), ("packed", 0), ("size", 0)))
CRC = zlib.crc32(b"hello")
N = len(deflated(b"hello"))


def late(mark: bytes = b"PK\x07\x08", crc: int = CRC, packed: int = N, size: int = 5, form: str = "<4sIII") -> bytes:
    return struct.pack(form, mark, crc, packed, size)


SOUND: dict[str, bytes] = {
    "stored": zipped(Entry()),
    "deflated": zipped(PACKED),
    "two": zipped(Entry(), Entry(name=b"b")),
    "64-bit end": zipped(Entry(), wide={}),
    "64-bit end, whatever the short one says": zipped(
        Entry(), end={"here": 0xFFFF, "total": 0xFFFF, "size": WIDE, "offset": WIDE}, wide={}
    ),
    "64-bit sizes": zipped(
        Entry(
            local_extra=extra(5, 5),
            local=(("packed", WIDE), ("size", WIDE)),
            central_extra=extra(5, 5),
            central=(("packed", WIDE), ("size", WIDE)),
        )  # fmt: skip
    ),
    "64-bit packed size and place, behind another field": zipped(
        Entry(), Entry(name=b"b", central_extra=OTHER + extra(5, 36), central=(("packed", WIDE), ("header", WIDE)))
    ),
    "late sizes": zipped(replace(LATE, descriptor=late())),
    "late 64-bit sizes": zipped(replace(LATE, descriptor=late(form="<4sIQQ"))),
    "late sizes that are early too": zipped(replace(PACKED, flags=8, descriptor=late())),
    "late sizes that are early too, as 64-bit ones": zipped(
        replace(
            PACKED,
            flags=8,
            local_extra=extra(5, N),
            local=(("size", WIDE), ("packed", WIDE)),
            descriptor=late(form="<4sIQQ"),
        )  # fmt: skip
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_an_archive_with_nothing_wrong_is_read(name: str) -> None:
    """What the doctored ones below are made from: each of them is refused for the one thing that is wrong with it."""
    read = open_archive(SOUND[name], "x")
    assert [read.read(record) for record in read.records] == [b"hello"] * len(read.records) != []
    with zipfile.ZipFile(io.BytesIO(SOUND[name])) as other:
        assert other.namelist() == list(read.records) and other.testzip() is None


def test_an_archive_of_nothing_is_one() -> None:
    assert open_archive(zipped(), "x").records == {}


def ends_at(boundary: int, *, last: bool = True) -> bytes:
    """A stream of stored blocks, as deflate knows them, that is exactly so long; ``last``: whether it ends there."""
    made = b""
    while (rest := boundary - len(made)) > 5:
        n = min(rest - 5, 0xFFFF)
        n = n - 6 if 0 < rest - 5 - n < 6 else n
        made += struct.pack("<BHH", last and rest - 5 - n == 0, n, n ^ 0xFFFF) + bytes(n)
    return made


def stream(packed: bytes, content: bytes, more: bytes = b"") -> Entry:
    return Entry(content=content, packed=packed + more, method=8)


KIB64 = ends_at(1 << 16)
INNER = zipped(Entry(name=b"b"))[:36]
DOCTORED: dict[str, tuple[bytes, str]] = {
    "disk": (zipped(Entry(), end={"disk": 1}), "does not end where it should"),
    "first disk": (zipped(Entry(), end={"first_disk": 1}), "does not end where it should"),
    "records on this disk": (zipped(Entry(), end={"here": 0}), "does not end where it should"),
    "length of a comment": (zipped(Entry(), end={"comment": 1}), "does not end where it should"),
    "size of the directory": (zipped(Entry(), end={"size": 1}), "does not end where it should"),
    "place of the directory": (zipped(Entry(), end={"offset": 0}), "does not end where it should"),
    "a comment that is there": (zipped(Entry(), end={"comment": 4}) + b"note", NO_END),
    "a comment of 64 KiB": (zipped(Entry(), end={"comment": 0xFFFF}) + bytes(0xFFFF), NO_END),
    "64-bit disk": (zipped(Entry(), wide={"disk": 1}), "does not end where it should"),
    "64-bit first disk": (zipped(Entry(), wide={"first_disk": 1}), "does not end where it should"),
    "64-bit records on this disk": (zipped(Entry(), wide={"here": 2}), "does not end where it should"),
    "64-bit place": (zipped(Entry(), wide={"offset": 1}), "does not end where it should"),
    "64-bit size": (zipped(Entry(), wide={"size": 1}), "does not end where it should"),
    "place of the 64-bit end": (zipped(Entry(), wide={"at": 0}), "64-bit directory is not where"),
    "mark of the 64-bit end": (zipped(Entry(), wide={"magic": 0}), "64-bit directory is not where"),
    "behind the 64-bit end": (zipped(Entry(), wide={}, behind=b"more"), "64-bit directory is not where"),
    "an entry that is cut short": (
        zipped(Entry(), more=b"PK\x01\x02", end={"here": 2, "total": 2}), "shorter than it claims",
    ),
    "a place where no header fits": (
        zipped(Entry(name=b"PK\x03\x04", central=(("header", 30 + 4 + 5 + 46),))), "not where the directory says",
    ),
    "more records than there are": (zipped(Entry(), end={"here": 2, "total": 2}), "shorter than it claims"),
    "fewer records than there are": (
        zipped(Entry(), Entry(name=b"b"), end={"here": 1, "total": 1}), "directory is longer than it claims",
    ),
    "an entry beyond the directory": (zipped(Entry(comment_length=1)), "shorter than it claims"),
    "another mark in the directory": (zipped(Entry()).replace(b"PK\x01\x02", b"PK\x01\x03"), "shorter than it claims"),
    "encrypted": (zipped(Entry(flags=1)), "encrypted or packed in an unusual way"),
    "another packing": (zipped(Entry(method=12)), "encrypted or packed in an unusual way"),
    "another disk": (zipped(Entry(disk=1)), "encrypted or packed in an unusual way"),
    "symbolic link": (zipped(Entry(attributes=0o120777 << 16)), "symbolic link"),
    "stored in two sizes": (zipped(Entry(size=4)), "two sizes"),
    "name that is no text": (zipped(Entry(name=b"\xff")), "not UTF-8"),
    "no name": (zipped(Entry(name=b"")), "leave the archive's folder"),
    "absolute": (zipped(Entry(name=b"/a")), "leave the archive's folder"),
    "climbing": (zipped(Entry(name=b"a/../b")), "leave the archive's folder"),
    "backslash": (zipped(Entry(name=b"a\\b")), "leave the archive's folder"),
    "drive": (zipped(Entry(name=b"C:/a")), "leave the archive's folder"),
    "null": (zipped(Entry(name=b"a\0b")), "leave the archive's folder"),
    "64-bit size is missing": (zipped(Entry(central=(("size", WIDE),))), "64-bit size is missing"),
    "64-bit size of another kind": (
        zipped(Entry(central_extra=extra(5, kind=2), central=(("size", WIDE),))), "64-bit size is missing",
    ),
    "one 64-bit size for two": (
        zipped(Entry(central_extra=extra(5) + bytes(8), central=(("size", WIDE), ("packed", WIDE)))),
        "64-bit size is missing",
    ),
    "64-bit size beyond its field": (
        zipped(Entry(central_extra=extra(5, length=9), central=(("size", WIDE),))), "64-bit size is missing",
    ),
    "64-bit size of another value": (
        zipped(Entry(central_extra=extra(6), central=(("size", WIDE),))), "two sizes",
    ),
    "64-bit size that the record has otherwise": (
        zipped(Entry(local_extra=extra(6, 5), local=(("size", WIDE), ("packed", WIDE)))), DISAGREE,
    ),
    "64-bit size that the record lacks": (zipped(Entry(local=(("size", WIDE),))), "64-bit size is missing"),
    "a place beyond the file": (zipped(Entry(central=(("header", 10_000),))), "not where the directory says"),
    "a place of something else": (zipped(Entry(central=(("header", 1),))), "not where the directory says"),
    "content beyond the file": (zipped(Entry(central=(("packed", 9999), ("size", 9999)))), "beyond the end of"),
    "flags": (zipped(Entry(local=(("flags", 2),))), DISAGREE),
    "method": (zipped(Entry(local=(("method", 8),))), DISAGREE),
    "checksum": (zipped(Entry(local=(("crc", 1),))), DISAGREE),
    "packed size": (zipped(Entry(local=(("packed", 4),))), DISAGREE),
    "size": (zipped(Entry(local=(("size", 4),))), DISAGREE),
    "name": (zipped(Entry(local_name=b"b")), DISAGREE),
    "no sizes, and none later": (zipped(Entry(local=(("packed", 0), ("size", 0)))), DISAGREE),
    "no checksum, and none later": (zipped(Entry(local=(("crc", 0),))), DISAGREE),
    "late sizes that are not there": (zipped(LATE), DISAGREE),
    "late checksum": (zipped(replace(LATE, descriptor=late(crc=1))), DISAGREE),
    "late packed size": (zipped(replace(LATE, descriptor=late(packed=1))), DISAGREE),
    "late size": (zipped(replace(LATE, descriptor=late(size=1))), DISAGREE),
    "late mark": (zipped(replace(LATE, descriptor=late(mark=b"PK\x07\x09"))), DISAGREE),
    "late sizes and other early ones": (
        zipped(replace(PACKED, flags=8, local=(("size", 4),), descriptor=late())), DISAGREE,
    ),
    "late checksum and another early one": (
        zipped(replace(PACKED, flags=8, local=(("crc", 1),), descriptor=late())), DISAGREE,
    ),
    "twice": (zipped(Entry(), Entry()), "twice"),
    "twice but for case": (zipped(Entry(), Entry(name=b"A")), "twice"),
    "overlapping": (
        zipped(Entry(content=INNER), Entry(name=b"b", written=False, central=(("header", 31),))), "overlaps another"
    ),
    "before the first record": (zipped(Entry(before=b"x")), "belong to no record lie before 'a'"),
    "between records": (zipped(Entry(), Entry(name=b"b", before=b"x")), "belong to no record lie before 'b'"),
    "before the directory": (zipped(Entry(), gap=b"x"), "belong to no record lie before its directory"),
    "checksum of stored content": (zipped(Entry(crc=1)), "does not match its checksum"),
    "checksum of packed content": (zipped(replace(PACKED, crc=1)), "does not match its checksum"),
    "size overstated": (zipped(replace(PACKED, size=6)), "does not match its checksum"),
    "size understated": (zipped(replace(PACKED, size=4)), "does not match its checksum"),
    "no deflate": (zipped(stream(b"\xff\xff\xff", b"hello")), "cannot be unpacked"),
    "stream without its end": (zipped(stream(PACKED.packed[:-1] if PACKED.packed else b"", b"hello")), "two sizes"),
    "bytes after the stream": (zipped(stream(deflated(b"hello"), b"hello", b"more")), "two sizes"),
    "bytes after a stream that ends at 64 KiB": (
        zipped(stream(KIB64, zlib.decompress(KIB64, -15), b"more")), "two sizes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "packed",
    [KIB64, ends_at(1 << 16, last=False) + b"\x01\x00\x00\xff\xff", ends_at(3 << 16)],
    ids=["to its end", "to its last content", "beyond"],
)
def test_a_stream_over_64_kib_is_read_where_nothing_follows(packed: bytes) -> None:
    content = zlib.decompress(packed, -15)
    assert len(packed) >= 1 << 16 and len(content) > len(packed) - 40
    assert open_archive(zipped(stream(packed, content)), "x").read("a") == content


def test_no_more_of_a_bomb_is_unpacked_than_it_claims_and_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    content, made, honest = bytes(64 << 20), [0], zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self.honest = honest(bits)

        def decompress(self, data: Any, most: int) -> bytes:
            block = self.honest.decompress(data, most)
            made[0] += len(block)
            return block

        def __getattr__(self, name: str) -> Any:
            return getattr(self.honest, name)

    data = zipped(Entry(content=b"hello", crc=zlib.crc32(content), packed=deflated(content), method=8))
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    with pytest.raises(ModelError, match="two sizes"):
        open_archive(data, "x")
    assert 5 < made[0] <= 1 << 20


@pytest.mark.parametrize("name", DOCTORED)
def test_an_archive_with_one_thing_wrong_is_refused(name: str) -> None:
    data, message = DOCTORED[name]
    with pytest.raises(ModelError, match=message):
        open_archive(data, "x")


def test_a_bomb_is_refused_from_the_first_byte_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(1 << 20)
    data = zipped(stream(deflated(content), content))
    free = len(content) - strict_zip.MAX_RATIO * len(data)
    monkeypatch.setattr(strict_zip, "FREE_BYTES", free)
    assert open_archive(data, "x").read("a") == content
    monkeypatch.setattr(strict_zip, "FREE_BYTES", free - 1)
    # It is refused before anything of it is unpacked.
    monkeypatch.setattr(strict_zip, "_check_crc", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(ModelError, match="a decompression bomb"):
        open_archive(data, "x")


def test_more_records_than_any_model_has_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_zip, "MAX_RECORDS", 2)
    assert len(open_archive(SOUND["two"], "x").records) == 2
    monkeypatch.setattr(strict_zip, "MAX_RECORDS", 1)
    with pytest.raises(ModelError, match="claims 2 records"):
        open_archive(SOUND["two"], "x")


# ---- three guards before a pickle in a torch archive: its format, its opcodes, torch's own ---------------------------


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Where a payload that ran leaves a file."""
    return tmp_path / "marker"


def archived(tmp_path: Path, pickled: bytes) -> Path:
    (tmp_path / "model.pt").write_bytes(torch_zip(pickled))
    return tmp_path / "model.pt"


def as_weights(path: Path) -> Any:
    """Straight to the loader, past the decision on the format."""
    read = read_source(path)
    return weights.load_torch(read, open_archive(read.data, read.name), "archive/data.pkl")


def no_format(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(formats, "foreign_globals", lambda report: ())


def no_opcodes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(weights, "foreign_globals", lambda report: ())


def no_restriction(patch: pytest.MonkeyPatch) -> None:
    honest = torch.load
    patch.setattr(torch, "load", lambda file, **how: honest(file, **{**how, "weights_only": False}))


Off = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("off", "refused", "message"),
    [
        ((no_opcodes, no_restriction), UnsafeModelError, "a pickled torch object"),
        ((no_format, no_restriction), UnsafeModelError, "would call posix.system"),
        ((no_format, no_opcodes), ModelError, "cannot be read as a torch file"),
    ],
    ids=["format alone", "opcodes alone", "torch alone"],
)
def test_each_guard_before_a_pickle_refuses_it_alone(
    tmp_path: Path,
    marker: Path,
    monkeypatch: pytest.MonkeyPatch,
    off: tuple[Off, ...],
    refused: type[Exception],
    message: str,
) -> None:
    path = archived(tmp_path, payload(str(marker)))
    for guard in off:
        guard(monkeypatch)
    with pytest.raises(refused, match=message):
        load_model(ModelSpec(path=str(path)))
    assert not marker.exists()


def test_without_all_three_the_payload_runs(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the three above would prove nothing."""
    for guard in (no_format, no_opcodes, no_restriction):
        guard(monkeypatch)
    with pytest.raises(ModelError):
        load_model(ModelSpec(path=str(archived(tmp_path, payload(str(marker))))))
    assert marker.exists()


def test_no_trust_is_asked_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "load", lambda file, **how: asked.append(how))
    as_weights(archived(tmp_path, pickle.dumps({}, 2)))
    assert asked == [{"map_location": "cpu", "weights_only": True}]


@pytest.mark.parametrize("more", [pickle.dumps({}, 2), b"\xff"], ids=["another pickle", "no pickle"])
def test_nothing_may_follow_the_pickle_of_an_archive(tmp_path: Path, more: bytes) -> None:
    """torch's own reader stops at the end of the first and would not see the rest."""
    assert as_weights(archived(tmp_path, pickle.dumps({}, 2))) == {}
    with pytest.raises(ModelError, match="damaged, endless or followed by another"):
        as_weights(archived(tmp_path, pickle.dumps({}, 2) + more))


def sparse(tmp_path: Path) -> Path:
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_an_unusual_tensor_is_refused_by_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "check_tensors", lambda *_: None)
    with pytest.raises(ModelError, match="not plain .*_rebuild_sparse_tensor"):
        load_model(ModelSpec(path=str(sparse(tmp_path))))


def test_an_unusual_tensor_is_refused_by_what_it_is_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_opcodes(monkeypatch)
    with pytest.raises(ModelError, match="sparse, quantised or otherwise unusual"):
        load_model(ModelSpec(path=str(sparse(tmp_path))))


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch deprecates quantised tensors; files hold them still
        return torch._empty_affine_quantized([2], scale=1.0, zero_point=0, dtype=torch.qint8)


class Marked(torch.Tensor):
    """A tensor of a class of its own."""


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2).as_subclass(Marked), "otherwise unusual"),  # type: ignore[no-untyped-call]
        (torch.eye(2).to_sparse(), "otherwise unusual"),
        (quantised(), "otherwise unusual"),
        (torch.empty(2, device="meta"), "without data"),
        (torch.zeros(1).expand(3), "claims more than it stores"),
    ],
    ids=["class", "sparse", "quantised", "meta", "expanded"],
)
def test_each_kind_of_tensor_that_is_not_plain_is_refused(tensor: torch.Tensor, message: str) -> None:
    weights.check_tensors({"a": [torch.zeros(3), torch.nn.Parameter(torch.zeros(2))]}, "x", 1000)
    with pytest.raises(ModelError, match=message):
        weights.check_tensors({"a": [{"b": (tensor,)}]}, "x", 1000)


def test_the_same_bytes_may_be_named_so_often_and_no_oftener() -> None:
    shared = torch.zeros(4)
    named = {str(i): shared for i in range(weights.MAX_CLAIM)}
    weights.check_tensors(named, "x", 16)
    with pytest.raises(ModelError, match="names the same bytes often"):
        weights.check_tensors(named | {"more": shared}, "x", 16)


# ---- two guards before safetensors: our reading of the header, and the library's -------------------------------------


def sound_safetensors() -> bytes:
    made: bytes = safetensors.torch.save({"a": torch.zeros(1)})
    return made


OURS = (
    "overlapping", "hole", "duplicate", "beyond_the_end", "cut_short", "trailing", "reversed",
    "header_of_three_gigabytes", "no_json", "deep_json", "strange_offsets", "list",
)  # fmt: skip
THEIRS = sorted(set(SAFETENSORS) - {"duplicate"})


@pytest.mark.parametrize("name", OURS)
def test_our_reading_of_the_header_refuses_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors.torch, "load", lambda data: {"a": torch.zeros(1)})
    with pytest.raises(ModelError, match="safetensors"):
        weights.load_safetensors(Source("x", SAFETENSORS[name], ""))


def test_a_header_is_as_long_as_it_may_be_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sound_safetensors()
    length = int.from_bytes(data[:8], "little")
    monkeypatch.setattr(weight_files, "_MAX_HEADER_BYTES", length)
    assert list(weights.load_safetensors(Source("x", data, ""))) == ["a"]
    for changed, most in ((data, length - 1), (data[: 8 + length - 1], length)):
        monkeypatch.setattr(weight_files, "_MAX_HEADER_BYTES", most)
        with pytest.raises(ModelError, match=f"truncated safetensors file: its header claims {length}"):
            weights.load_safetensors(Source("x", changed, ""))


@pytest.mark.parametrize("name", THEIRS)
def test_the_librarys_reading_refuses_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "safetensors_header", lambda *_: {})
    with pytest.raises(ModelError, match="cannot be read as a safetensors file"):
        weights.load_safetensors(Source("x", SAFETENSORS[name], ""))


# ---- a tar by its header ---------------------------------------------------------------------------------------------


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        info = tarfile.TarInfo("pickle")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    return made.getvalue()


def restated(header: bytes, stated: bytes | None = None) -> bytes:
    """With the checksum that such a header has, or another text in its place."""
    total = sum(header[:148]) + 8 * 32 + sum(header[156:512])
    return header[:148] + (b"%06o\0 " % total if stated is None else stated.ljust(8, b"\0")) + header[156:]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (tar(), True),
        (tar()[:512], True),
        (restated(tar()[:257] + bytes(8) + tar()[265:]), True),
        (tar()[:511], False),
        (restated(tar(), b""), False),
        (restated(tar(), b"0000009"), False),
        (restated(tar(), b"%06o" % (sum(tar()[:512]) + 1)), False),
        (tar()[:10] + b"x" + tar()[11:], False),
        (tar()[:300] + b"x" + tar()[301:], False),
        (bytes(1024), False),
    ],
    ids=["whole", "its header", "without its mark", "too short", "no checksum", "no octal number", "another checksum",
         "changed before it", "changed after it", "nothing"],
)  # fmt: skip
def test_a_tar_is_what_its_checksum_says(tmp_path: Path, data: bytes, found: bool) -> None:
    (tmp_path / "model.pt").write_bytes(data)
    assert (formats.identify(tmp_path / "model.pt") == "tar archive") is found


# ---- two guards before a file that is none ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused_before_and_after_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="not a regular file"):
        model_bytes.regular_file(tmp_path / "model.pt", "model file")
    # As where the path became another between the two.
    monkeypatch.setattr(model_bytes, "regular_file", lambda path, what: Path(path))
    with pytest.raises(UsageError, match="not a regular file"):
        read_source(tmp_path / "model.pt")


@pytest.mark.parametrize("said", [4, 6], ids=["grew", "shrank"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    (tmp_path / "model.pt").write_bytes(b"hello")
    honest = os.fstat
    monkeypatch.setattr(os, "fstat", lambda n: os.stat_result((*honest(n)[:6], said, *honest(n)[7:])))
    with pytest.raises(ModelError, match="changed while it was read"):
        read_source(tmp_path / "model.pt")


@pytest.mark.parametrize(("most", "found"), [(5, None), (4, "more than the 4 that are read")])
def test_a_file_of_exactly_the_largest_size_is_read(tmp_path: Path, most: int, found: str | None) -> None:
    (tmp_path / "model.pt").write_bytes(b"hello")
    if found is None:
        assert read_source(tmp_path / "model.pt", max_bytes=most).data == b"hello"
        return
    with pytest.raises(ModelError, match=found):
        read_source(tmp_path / "model.pt", max_bytes=most)


# ---- two guards before code in a folder ------------------------------------------------------------------------------


def test_code_that_a_folder_names_does_not_run_where_nobody_looked_for_it(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers is given bytes and settings, never the folder: where nobody looks for auto_map, it finds no code."""
    folder = bert(tmp_path, auto_map={"AutoModelForSequenceClassification": "modeling_evil.Evil"})
    evil_module(folder, str(marker), "modeling_evil.py")
    with pytest.raises(UnsafeModelError, match="never run"):
        load_model(ModelSpec(path=str(folder)))
    monkeypatch.setattr(folder_files, "_values_of", lambda parsed, key: iter(()))
    assert load_model(ModelSpec(path=str(folder))).kind == "classifier"
    assert not marker.exists()
