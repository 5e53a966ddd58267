"""Hostile model files, made on the spot: none may run its payload, each ends in a clear error, fast and small."""

from __future__ import annotations

import bz2
import copyreg
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import signal
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auditor.core.errors import AuditorError, ModelError, UnsafeModelError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.files.strict_zip import open_archive
from auditor.models.files.unpickling import COMPUTED, read_pickle
from auditor.models.networks.architectures import ARCHITECTURES, MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from tests.quantifiers import all_of

SECONDS = 20
MEMORY = 1 << 30
Builder = Callable[[Path, str], Path]
HOSTILE: dict[str, tuple[Builder, str]] = {}


def hostile(message: str, name: str = "") -> Callable[[Builder], Builder]:
    """Enters a builder into the corpus, with a piece of the message that its file must end in."""

    def enter(build: Builder) -> Builder:
        HOSTILE[name or build.__name__] = (build, message)
        return build

    return enter


@contextmanager
def bounded() -> Iterator[None]:
    """Time and memory limits around a load, lifted afterwards."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it took more than {SECONDS} s")

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(path: Path | str, marker: str, **flags: Any) -> AuditorError:
    """The error of loading a hostile file, after checking that it is a clear one and that nothing ran."""
    with bounded(), pytest.raises(AuditorError) as caught:
        load_model(ModelSpec(path=str(path), **flags))
    message = str(caught.value)
    assert not Path(marker).exists(), "the payload ran"
    assert message.isprintable() and 20 < len(message) < 1200, message
    assert "more memory than there is" not in message
    return caught.value


# ---- payloads ------------------------------------------------------------------------------------------------------


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def payload(marker: str, protocol: int = 2) -> bytes:
    return pickle.dumps(Touch(marker), protocol)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def write(folder: Path, data: bytes, name: str = "model.pt") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def instance(m: str) -> bytes:
    return f"(S'touch {m}'\nios\nsystem\n.".encode()


def object_opcode(m: str) -> bytes:
    return b"(cos\nsystem\n" + text(f"touch {m}") + b"o."


def memoised_names(m: str) -> bytes:
    return (
        b"\x80\x04"
        + text("system")
        + b"\x94"
        + text("os")
        + b"\x94000"
        + b"h\x01h\x00\x93"
        + text(f"touch {m}")
        + b"\x85R."
    ).replace(b"000", b"00")


def computed_attribute(m: str) -> bytes:
    return (
        b"\x80\x02cbuiltins\ngetattr\ncimportlib\nimport_module\n"
        + (text("os") + b"\x85R")
        + (text("system") + b"\x86R")
        + (text(f"touch {m}") + b"\x85R.")
    )


def computed_names(m: str) -> bytes:
    joined = b"cbuiltins\ngetattr\n" + text("") + text("join") + b"\x86R"
    module = joined + b"]" + b"(" + text("o") + text("s") + b"e\x85R"
    return b"\x80\x04" + module + text("system") + b"\x93" + text(f"touch {m}") + b"\x85R."


def dotted_name(m: str) -> bytes:
    return b"\x80\x04" + text("torch.serialization") + text("os.system") + b"\x93" + text(f"touch {m}") + b"\x85R."


def built_state(m: str) -> bytes:
    """functools.partial(print), whose state is then replaced, and which is then called."""
    state = b"(cos\nsystem\n" + text(f"touch {m}") + b"\x85}Nt"
    return b"\x80\x02cfunctools\npartial\ncbuiltins\nprint\n\x85R" + state + b"b)R."


def nested(m: str) -> bytes:
    inner = payload(m)
    return b"\x80\x03c_pickle\nloads\n" + b"B" + struct.pack("<I", len(inner)) + inner + b"\x85R."


def new_object(m: str) -> bytes:
    return b"\x80\x02csubprocess\nPopen\n" + text(f"touch {m}") + b"\x85\x81."


RAW: dict[str, Callable[[str], bytes]] = {
    **{f"protocol_{p}": lambda m, p=p: payload(m, p) for p in range(6)},  # type: ignore[misc]
    "inst": instance,
    "obj": object_opcode,
    "memoised_names": memoised_names,
    "computed_attribute": computed_attribute,
    "computed_names": computed_names,
    "dotted_name": dotted_name,
    "build": built_state,
    "nested_pickle": nested,
    "second_stream": lambda m: pickle.dumps({"weights": [1.0]}, 2) + payload(m),
}


@pytest.mark.parametrize("name", sorted(set(RAW) - {"second_stream"}))
def test_payloads_are_real(name: str, tmp_path: Path) -> None:
    """Under a careless loader the payload does run: the corpus is not of blanks."""
    marker = tmp_path / "marker"
    try:
        pickle.loads(RAW[name](str(marker)))
    except (TypeError, AttributeError, pickle.UnpicklingError):
        assert name == "obj"
    assert marker.exists()


@pytest.mark.parametrize("name", sorted([*RAW, "newobj"]))
def test_pickles_are_refused_naming_what_they_call(name: str, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    data = new_object(marker) if name == "newobj" else RAW[name](marker)
    error = refusal(write(tmp_path, data), marker)
    assert isinstance(error, UnsafeModelError)
    named = {
        "computed_attribute": "importlib.import_module",
        "computed_names": COMPUTED,
        "dotted_name": "torch.serialization.os.system",
        "nested_pickle": "_pickle.loads",
        "newobj": "subprocess.Popen",
    }
    assert named.get(name, "system") in str(error)
    assert "--predict" in str(error) and "--trust-pickle" in str(error)


@pytest.mark.parametrize("name", sorted(RAW))
def test_torch_archives_of_payloads_are_refused(name: str, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    error = refusal(write(tmp_path, torch_zip(RAW[name](marker))), marker)
    assert isinstance(error, UnsafeModelError) and "auditor.save" in str(error)


def test_extension_codes_are_refused(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        data = b"\x80\x02\x82\xf0" + text(f"touch {tmp_path / 'marker'}") + b"\x85R."
        error = refusal(write(tmp_path, data), str(tmp_path / "marker"))
        pickle.loads(data)
        assert (tmp_path / "marker").exists()
    finally:
        copyreg.remove_extension("os", "system", 240)
    assert "copyreg extension 240" in str(error)


# ---- archives ------------------------------------------------------------------------------------------------------


def torch_zip(data_pkl: bytes, records: dict[str, bytes] | None = None, root: str = "archive/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{root}data.pkl", data_pkl)
        archive.writestr(f"{root}version", "3\n")
        archive.writestr(f"{root}byteorder", "little")
        for name, content in (records or {}).items():
            archive.writestr(f"{root}{name}", content)
    return buffer.getvalue()


@cache
def packed_gigabyte() -> tuple[bytes, int]:
    """1 GiB of zeros deflated, and its checksum."""
    packer, crc, block = zlib.compressobj(9, zlib.DEFLATED, -15), 0, bytes(1 << 24)
    packed = []
    for _ in range(64):
        packed.append(packer.compress(block))
        crc = zlib.crc32(block, crc)
    return b"".join([*packed, packer.flush()]), crc


def deflated_zip(name: str, packed: bytes, crc: int, size: int) -> bytes:
    """An archive of one deflated record."""
    raw = name.encode()
    rest = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, crc, len(packed), size, len(raw), 0)
    local = b"PK\x03\x04" + rest + raw + packed
    central = b"PK\x01\x02" + struct.pack("<H", 20) + rest + bytes(14) + raw
    # In the directory, the two lengths are followed by fields that are all zero here.
    return local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


class Storage:
    """A storage as torch writes it: a persistent id."""

    def __init__(self, size: int, key: str = "0", kind: str = "FloatStorage") -> None:
        self.id = ("storage", getattr(torch, kind), key, "cpu", size)


class Call:
    """Unpickling this calls a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.id if isinstance(value, Storage) else None


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    TorchPickler(buffer, 2).dump(value)
    return buffer.getvalue()


def tensor(storage: Storage, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, OrderedDict())


def honest_weights() -> bytes:
    buffer = io.BytesIO()
    torch.save(MLP(3, [4], 2).state_dict(), buffer)
    return buffer.getvalue()


def torch_saved(value: object, folder: Path) -> Path:
    torch.save(value, folder / "model.pt")
    return folder / "model.pt"


@hostile("does not match its checksum")
def flipped_weight_bit(folder: Path, marker: str) -> Path:
    data = bytearray(honest_weights())
    data[data.index(b"archive/data/0") + 80] ^= 0x40
    return write(folder, bytes(data))


@hostile("truncated download")
def cut_short(folder: Path, marker: str) -> Path:
    return write(folder, honest_weights()[:-100])


@hostile("truncated download")
def cut_to_its_magic(folder: Path, marker: str) -> Path:
    return write(folder, b"PK\x03\x04")


@hostile("twice")
def duplicate_record(folder: Path, marker: str) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of the duplicate that is wanted here
        archive.writestr("archive/data.pkl", payload(marker))
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    return write(folder, buffer.getvalue())


@hostile("twice")
def duplicate_record_in_other_case(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(pickle.dumps({}, 2), {"DATA.PKL": payload(marker)}))


@hostile("no model file of a known format")
def two_pickles_in_two_roots(folder: Path, marker: str) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("one/data.pkl", pickle.dumps({}, 2))
        archive.writestr("two/data.pkl", payload(marker))
    return write(folder, buffer.getvalue())


@hostile("two ways that disagree")
def local_name_disagrees(folder: Path, marker: str) -> Path:
    data = bytearray(torch_zip(payload(marker), {"data/x": b"0"}))
    data[30:46] = b"archive/data.pk_"
    return write(folder, bytes(data))


@hostile("two ways that disagree")
def local_size_disagrees(folder: Path, marker: str) -> Path:
    data = bytearray(torch_zip(pickle.dumps({}, 2)))
    data[18:22] = struct.pack("<I", 1)
    return write(folder, bytes(data))


@hostile("two ways that disagree")
def local_method_disagrees(folder: Path, marker: str) -> Path:
    data = bytearray(torch_zip(pickle.dumps({}, 2)))
    data[8:10] = struct.pack("<H", 8)
    return write(folder, bytes(data))


@hostile("overlaps another")
def overlapping_records(folder: Path, marker: str) -> Path:
    """A second record lies within the first one's content, and the directory lists both."""
    inner = torch_zip(payload(marker), root="inner/")
    start = inner.index(b"PK\x01\x02")
    data = bytearray(torch_zip(pickle.dumps({}, 2), {"data/0": inner[:start]}))
    end = data.rindex(b"PK\x05\x06")
    within = data.index(b"inner/data.pkl") - 30
    entry = bytearray(inner[start : inner.index(b"PK\x01\x02", start + 4)])
    entry[42:46] = struct.pack("<I", within)
    directory = data.index(b"PK\x01\x02")
    count, size = struct.unpack_from("<H", data, end + 8)[0] + 1, end - directory + len(entry)
    data[end + 8 : end + 16] = struct.pack("<HHI", count, count, size)
    return write(folder, bytes(data[:end] + entry + data[end:]))


@hostile("belong to no record")
def hidden_record_between(folder: Path, marker: str) -> Path:
    """A record that no directory lists, between two that it lists."""
    data = bytearray(torch_zip(pickle.dumps({}, 2), {"hidden": payload(marker)}))
    central = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    end = data.rindex(b"PK\x05\x06")
    kept = data[: central[-1]] + data[end:]
    new_end = kept.rindex(b"PK\x05\x06")
    count, size = len(central) - 1, new_end - central[0]
    kept[new_end + 8 : new_end + 16] = struct.pack("<HHI", count, count, size)
    return write(folder, bytes(kept))


@hostile("posix.system")
def bytes_before_the_archive(folder: Path, marker: str) -> Path:
    """A pickle first and an archive after it: by its first bytes it is a pickle, and is treated as one."""
    return write(folder, payload(marker) + honest_weights())


@hostile("its directory is missing")
def bytes_after_the_archive(folder: Path, marker: str) -> Path:
    return write(folder, honest_weights() + payload(marker))


@hostile("its directory is missing")
def archive_comment(folder: Path, marker: str) -> Path:
    data = bytearray(honest_weights())
    data[-2:] = struct.pack("<H", 4)
    return write(folder, bytes(data) + b"note")


@hostile("a decompression bomb")
def decompression_bomb(folder: Path, marker: str) -> Path:
    packed, crc = packed_gigabyte()
    return write(folder, deflated_zip("archive/data.pkl", packed, crc, 1 << 30))


@hostile("two sizes")
def bomb_that_understates_its_size(folder: Path, marker: str) -> Path:
    packed, crc = packed_gigabyte()
    return write(folder, deflated_zip("archive/data.pkl", packed, crc, 4096))


@hostile("leave the archive's folder")
def path_that_climbs(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(pickle.dumps({}, 2), {"../../evil": b"x"}))


@hostile("leave the archive's folder")
def absolute_path(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(pickle.dumps({}, 2), root="/tmp/"))


@hostile("symbolic link")
def symbolic_link(folder: Path, marker: str) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        link = zipfile.ZipInfo("archive/data/0")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return write(folder, buffer.getvalue())


@hostile("encrypted")
def encrypted_record(folder: Path, marker: str) -> Path:
    data = bytearray(torch_zip(pickle.dumps({}, 2)))
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    return write(folder, bytes(data))


@hostile("shorter than it claims")
def directory_that_claims_too_much(folder: Path, marker: str) -> Path:
    data = bytearray(torch_zip(pickle.dumps({}, 2)))
    end = data.rindex(b"PK\x05\x06")
    data[end + 8 : end + 12] = struct.pack("<HH", 60000, 60000)
    return write(folder, bytes(data))


@hostile("known format")
def archive_of_nothing(folder: Path, marker: str) -> Path:
    return write(folder, b"PK\x05\x06" + bytes(18))


@hostile("leave the archive's folder")
def control_characters_in_record_names(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(pickle.dumps({}, 2), {"../\x1b]0;owned\x07\u202etxt": b"x"}))


# ---- tensors -------------------------------------------------------------------------------------------------------


@hostile("claims more than it stores")
def tensor_of_four_terabytes(folder: Path, marker: str) -> Path:
    return torch_saved({"layers.0.weight": torch.zeros(1).expand(1 << 40)}, folder)


@hostile("cannot be read as a torch file")
def tensor_beyond_its_storage(folder: Path, marker: str) -> Path:
    value = {"layers.0.weight": tensor(Storage(2), (1 << 40,), (1,))}
    return write(folder, torch_zip(torch_pickle(value), {"data/0": bytes(8)}))


@hostile("cannot be read as a torch file")
def tensor_before_its_storage(folder: Path, marker: str) -> Path:
    value = {"layers.0.weight": tensor(Storage(2), (2,), (1,), offset=-4096)}
    return write(folder, torch_zip(torch_pickle(value), {"data/0": bytes(8)}))


@hostile("cannot be read as a torch file")
def storage_beyond_its_record(folder: Path, marker: str) -> Path:
    value = {"layers.0.weight": tensor(Storage(1 << 28), (1 << 28,), (1,))}
    return write(folder, torch_zip(torch_pickle(value), {"data/0": bytes(8)}))


@hostile("cannot be read as a torch file")
def storage_without_a_record(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(torch_pickle({"layers.0.weight": tensor(Storage(2, "../../0"), (2,), (1,))})))


@hostile("names the same bytes often")
def same_bytes_under_many_names(folder: Path, marker: str) -> Path:
    shared = torch.zeros(1 << 20)
    return torch_saved({f"w{i}": shared for i in range(4000)}, folder)


@hostile("_rebuild_sparse_tensor")
def sparse_tensor(folder: Path, marker: str) -> Path:
    return torch_saved({"layers.0.weight": torch.eye(3).to_sparse()}, folder)


@hostile("_rebuild_meta_tensor_no_storage")
def meta_tensor(folder: Path, marker: str) -> Path:
    return torch_saved({"layers.0.weight": torch.empty(1 << 40, device="meta")}, folder)


@hostile("_rebuild_from_type_v2")
def tensor_with_attributes(folder: Path, marker: str) -> Path:
    weight = torch.zeros(4, 3)
    weight.note = "hello"  # type: ignore[attr-defined]
    return torch_saved({"layers.0.weight": weight}, folder)


@hostile("holds a list")
def list_within_lists(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."))


@hostile("holds a list")
def list_that_holds_itself(folder: Path, marker: str) -> Path:
    loop: list[object] = []
    loop.append(loop)
    return write(folder, torch_zip(pickle.dumps({"a": loop}, 2)))


@hostile("damaged")
def text_of_four_gigabytes(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(b"\x80\x02X\xff\xff\xff\xffabc."))


@hostile("damaged")
def pickle_of_nothing(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(b""))


@hostile("damaged")
def stack_underflow(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(b"\x80\x02R\x93o0."))


@hostile("endless")
def opcodes_without_end(folder: Path, marker: str) -> Path:
    return write(folder, torch_zip(b"\x80\x02" + b"N0" * 3_000_000 + b"N."))


@hostile("posix.system")
def bundle_with_a_payload(folder: Path, marker: str) -> Path:
    bundle = {"format": "auditor-model/1", "architecture": Touch(marker), "state_dict": {}, "classes": ["a", "b"]}
    return torch_saved(bundle, folder)


@hostile("do not fit the network")
def bundle_that_asks_for_a_huge_network(folder: Path, marker: str) -> Path:
    args = {"n_words": 1 << 24, "n_outputs": 2, "length": 1 << 24, "d_model": 1 << 12, "n_heads": 4, "n_layers": 512}
    return torch_saved(
        {
            "format": "auditor-model/1",
            "architecture": {"name": "transformer_encoder", "args": args},
            "state_dict": {"token.weight": torch.zeros(2, 2)},
            "classes": ["a", "b"],
        },
        folder,
    )


@hostile("more than 512 layers")
def bundle_that_asks_for_endless_layers(folder: Path, marker: str) -> Path:
    args = {"n_words": 4, "n_outputs": 2, "length": 4, "n_layers": 1 << 22}
    return torch_saved(
        {
            "format": "auditor-model/1",
            "architecture": {"name": "transformer_encoder", "args": args},
            "state_dict": {"token.weight": torch.zeros(2, 2)},
            "classes": ["a", "b"],
        },
        folder,
    )


@hostile("bundle of the network")
def bundle_of_control_characters(folder: Path, marker: str) -> Path:
    return torch_saved(
        {
            "format": "auditor-model/1",
            "architecture": {"name": "\x1b[2J\u202e", "args": {}},
            "state_dict": {"\x1b[31m": torch.zeros(1)},
            "classes": ["\x07", "b"],
        },
        folder,
    )


# ---- other containers ----------------------------------------------------------------------------------------------


@hostile("posix.system")
def legacy_torch_file(folder: Path, marker: str) -> Path:
    torch.save({"a": Touch(marker)}, folder / "model.pt", _use_new_zipfile_serialization=False)
    return folder / "model.pt"


@hostile("posix.system")
def legacy_tar(folder: Path, marker: str) -> Path:
    with tarfile.open(folder / "model.pt", "w") as tar:
        for name, content in (("sys_info", pickle.dumps({}, 2)), ("pickle", payload(marker)), ("storages", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "model.pt"


@hostile("tar archive")
def tar_that_climbs(folder: Path, marker: str) -> Path:
    with tarfile.open(folder / "model.pt", "w") as tar:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        info = tarfile.TarInfo("../../evil")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    return folder / "model.pt"


@hostile("posix.system")
def joblib_object_array(folder: Path, marker: str) -> Path:
    import joblib  # type: ignore[import-untyped]

    joblib.dump(np.asarray([Touch(marker)], object), folder / "model.joblib")
    return folder / "model.joblib"


def _compressed(name: str, pack: Callable[[bytes], bytes]) -> None:
    @hostile("a compressed pickle, and loading it would call posix.system", f"compressed_by_{name}")
    def build(folder: Path, marker: str) -> Path:
        return write(folder, pack(payload(marker)), "model.joblib")


_compressed("gzip", gzip.compress)
_compressed("zlib", zlib.compress)
_compressed("bzip2", bz2.compress)
_compressed("xz", lzma.compress)
_compressed("lzma", lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE))


@hostile("compressed file")
def compressed_bomb(folder: Path, marker: str) -> Path:
    packed, crc = packed_gigabyte()
    return write(folder, b"\x1f\x8b\x08" + bytes(7) + packed + struct.pack("<II", crc, 1 << 30))


@hostile("posix.system")
def numpy_objects(folder: Path, marker: str) -> Path:
    np.save(folder / "model.npy", np.asarray([Touch(marker)], object), allow_pickle=True)
    return folder / "model.npy"


@hostile("posix.system")
def numpy_archive_of_objects(folder: Path, marker: str) -> Path:
    np.savez(folder / "model.npz", weights=np.zeros(3), evil=np.asarray([Touch(marker)], object))
    return folder / "model.npz"


@hostile("--allow-code")
def torchscript(folder: Path, marker: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates TorchScript; the test needs a file
        torch.jit.save(torch.jit.script(MLP(3, [4], 2)), folder / "model.pt")
    return folder / "model.pt"


@hostile("--allow-code")
def exported_program(folder: Path, marker: str) -> Path:
    torch.export.save(torch.export.export(MLP(3, [4], 2), (torch.zeros(2, 3),)), folder / "model.pt2")
    return folder / "model.pt2"


@hostile("--allow-code")
def old_exported_program_with_a_payload(folder: Path, marker: str) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
        archive.writestr("serialized_state_dict.pt", torch_zip(payload(marker)))
    return write(folder, buffer.getvalue(), "model.pt2")


@hostile("GGUF")
def gguf_with_endless_counts(folder: Path, marker: str) -> Path:
    return write(folder, b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + bytes(64), "model.gguf")


@hostile("ONNX")
def onnx_with_data_outside(folder: Path, marker: str) -> Path:
    location = b"\x0a\x08location\x12\x16../../../../etc/passwd"
    external = b"\x6a" + bytes([len(location)]) + location
    graph = b"\x2a" + bytes([len(external)]) + external
    return write(folder, b"\x08\x08\x12\x04evil\x3a" + bytes([len(graph)]) + graph + b"\x42\x02\x10\x11", "model.onnx")


@hostile("HDF5")
def hdf5(folder: Path, marker: str) -> Path:
    return write(folder, b"\x89HDF\r\n\x1a\n" + bytes(512), "model.h5")


@hostile("known format")
def escape_codes(folder: Path, marker: str) -> Path:
    return write(folder, b"\x1b[2J\x1b]0;owned\x07 not a model", "\x1b[31mred\u202e.pt")


# ---- safetensors ---------------------------------------------------------------------------------------------------


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def part(start: int, end: int, shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


SAFETENSORS: dict[str, bytes] = {
    "overlapping": safetensors({"a": part(0, 8), "b": part(4, 12)}, bytes(12)),
    "hole": safetensors({"a": part(0, 4), "b": part(8, 12)}, bytes(12)),
    "duplicate": safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "larger_than_its_bytes": safetensors({"a": part(0, 4, [1 << 40])}, bytes(4)),
    "beyond_the_end": safetensors({"a": part(0, 1 << 40)}, bytes(4)),
    "cut_short": safetensors({"a": part(0, 400)}, bytes(100)),
    "trailing": safetensors({"a": part(0, 4)}, bytes(400)),
    "reversed": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)),
    "negative_shape": safetensors({"a": part(0, 4, [-1])}, bytes(4)),
    "overflowing_shape": safetensors({"a": part(0, 0, [1 << 33, 1 << 33, 0])}),
    "header_of_three_gigabytes": safetensors({"a": part(0, 4)}, bytes(4), length=3 << 30),
    "no_json": safetensors(b"{" + b"\xff" * 40),
    "deep_json": safetensors(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "strange_offsets": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", {}]}}, bytes(4)),
    "strange_dtype": safetensors({"a": {"dtype": "os.system", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "list": safetensors({"a": [1, 2]}),
}


@pytest.mark.parametrize("name", sorted(SAFETENSORS))
def test_doctored_safetensors_are_refused(name: str, tmp_path: Path) -> None:
    error = refusal(write(tmp_path, SAFETENSORS[name], "model.safetensors"), str(tmp_path / "marker"))
    assert isinstance(error, ModelError) and "safetensors" in str(error)


# ---- skops ---------------------------------------------------------------------------------------------------------


def skops_bytes(estimator: object) -> bytes:
    import skops.io

    data: bytes = skops.io.dumps(estimator)
    return data


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return buffer.getvalue()


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)


def skops_file(folder: Path, data: bytes) -> Path:
    return write(folder, data, "model.skops")


def changed_schema(change: Callable[[dict[str, Any]], None], data: bytes | None = None) -> bytes:
    def apply(name: str, content: bytes) -> bytes:
        if name != "schema.json":
            return content
        schema = json.loads(content)
        change(schema)
        return json.dumps(schema).encode()

    return rewritten(skops_bytes(logistic()) if data is None else data, apply)


@hostile("posix.system")
def skops_function_inside(folder: Path, marker: str) -> Path:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pipeline = make_pipeline(FunctionTransformer(os.system, kw_args={"command": f"touch {marker}"}), logistic())
    return skops_file(folder, skops_bytes(pipeline))


def _skops_function_of_protocol(protocol: int, message: str) -> None:
    @hostile(message, f"skops_function_of_protocol_{protocol}")
    def build(folder: Path, marker: str) -> Path:
        path = skops_function_inside(folder, marker)
        return skops_file(folder, changed_schema(lambda schema: schema.update(protocol=protocol), path.read_bytes()))


_skops_function_of_protocol(0, "posix.system")
_skops_function_of_protocol(1, "posix.system")
_skops_function_of_protocol(99, "protocol 99")


@hostile("subprocess.Popen")
def skops_foreign_class(folder: Path, marker: str) -> Path:
    return skops_file(
        folder, changed_schema(lambda schema: schema.update({"__class__": "Popen", "__module__": "subprocess"}))
    )


@hostile("operator.methodcaller")
def skops_operator(folder: Path, marker: str) -> Path:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["C"] = {
            "__class__": "methodcaller",
            "__module__": "operator",
            "__loader__": "OperatorFuncNode",
            "attrs": schema["content"]["content"]["C"],
            "__id__": 1,
        }

    return skops_file(folder, changed_schema(change))


@hostile("makes a numpy.dtype by ObjectNode")
def skops_dtype_of_its_own_state(folder: Path, marker: str) -> Path:
    def change(schema: dict[str, Any]) -> None:
        schema["content"]["content"]["C"] = {
            "__class__": "dtype",
            "__module__": "numpy",
            "__loader__": "ObjectNode",
            "content": schema["content"]["content"]["C"],
            "__id__": 1,
        }

    return skops_file(folder, changed_schema(change))


@hostile("EvilNode")
def skops_unknown_node(folder: Path, marker: str) -> Path:
    return skops_file(folder, changed_schema(lambda schema: schema.update({"__loader__": "EvilNode"})))


@hostile("no fitted classifier")
def skops_without_content(folder: Path, marker: str) -> Path:
    return skops_file(folder, changed_schema(lambda schema: schema.pop("content")))


@hostile("no valid schema")
def skops_deep_schema(folder: Path, marker: str) -> Path:
    deep = b"[" * 200_000 + b"]" * 200_000
    return skops_file(folder, rewritten(skops_bytes(logistic()), lambda n, c: deep if n == "schema.json" else c))


@hostile("not what it claims")
def skops_array_beyond_its_bytes(folder: Path, marker: str) -> Path:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    return skops_file(
        folder, rewritten(skops_bytes(logistic()), lambda n, c: header.getvalue() if n.endswith(".npy") else c)
    )


@hostile("pickled objects")
def skops_array_of_objects(folder: Path, marker: str) -> Path:
    evil = io.BytesIO()
    np.save(evil, np.asarray([Touch(marker)], object), allow_pickle=True)
    return skops_file(
        folder, rewritten(skops_bytes(logistic()), lambda n, c: evil.getvalue() if n.endswith(".npy") else c)
    )


@hostile("decompression bomb")
def skops_bomb(folder: Path, marker: str) -> Path:
    packed, crc = packed_gigabyte()
    return skops_file(folder, deflated_zip("schema.json", packed, crc, 1 << 30))


@hostile("decompression bomb")
def skops_bomb_within(folder: Path, marker: str) -> Path:
    packed, crc = packed_gigabyte()
    inner = deflated_zip("data.npy", packed, crc, 1 << 30)
    return skops_file(folder, rewritten(skops_bytes(logistic()), lambda n, c: inner if n.endswith(".npy") else c))


def _doctored_tree(name: str, kind: str, change: Callable[[Any], None]) -> None:
    @hostile("a doctored decision tree", f"tree_{name}")
    def build(folder: Path, marker: str) -> Path:
        from sklearn import ensemble

        X = np.random.default_rng(0).normal(size=(200, 3))
        options = {"max_iter": 3} if kind.startswith("Hist") else {"n_estimators": 3, "random_state": 0}
        forest = getattr(ensemble, kind)(**options).fit(X, X[:, 0] > 0)

        def doctor(record: str, content: bytes) -> bytes:
            if not record.endswith(".npy"):
                return content
            array = np.load(io.BytesIO(content))
            if not array.dtype.names:
                return content
            change(array)
            out = io.BytesIO()
            np.save(out, array)
            return out.getvalue()

        return skops_file(folder, rewritten(skops_bytes(forest), doctor))


def _put(field: str, value: int) -> Callable[[Any], None]:
    def change(nodes: Any) -> None:
        nodes[field][0] = value

    return change


_doctored_tree("child_far_away", "RandomForestClassifier", _put("left_child", 1 << 30))
_doctored_tree("child_before_the_first", "RandomForestClassifier", _put("right_child", -(1 << 30)))
_doctored_tree("child_that_is_its_parent", "RandomForestClassifier", _put("left_child", 0))
_doctored_tree("column_far_away", "GradientBoostingClassifier", _put("feature", 1 << 30))
_doctored_tree("column_negative", "RandomForestClassifier", _put("feature", -5))
_doctored_tree("histogram_child_far_away", "HistGradientBoostingClassifier", _put("left", 1 << 30))
_doctored_tree("histogram_column_far_away", "HistGradientBoostingClassifier", _put("feature_idx", 1 << 30))


@hostile("doctored ensemble")
def tree_narrower_than_its_forest(folder: Path, marker: str) -> Path:
    from sklearn.ensemble import RandomForestClassifier

    X = np.random.default_rng(0).normal(size=(50, 3))
    forest = RandomForestClassifier(3).fit(X, X[:, 0] > 0)
    forest.n_features_in_ = 1
    return skops_file(folder, skops_bytes(forest))


# ---- Hugging Face folders ------------------------------------------------------------------------------------------


def bert(folder: Path, **settings: object) -> Path:
    from tests.toys.folders import change_json, save_bert

    save_bert(folder / "bert")
    change_json(folder / "bert" / "config.json", **settings)
    return folder / "bert"


def evil_module(folder: Path, marker: str, name: str) -> None:
    (folder / name).write_text(f"import os\nos.system('touch {marker}')\n")


@hostile("modeling_evil.Evil")
def folder_with_auto_map(folder: Path, marker: str) -> Path:
    where = bert(folder, auto_map={"AutoModelForSequenceClassification": "modeling_evil.Evil"})
    evil_module(where, marker, "modeling_evil.py")
    return where


@hostile("tokenization_evil.Evil")
def folder_with_auto_map_for_its_tokenizer(folder: Path, marker: str) -> Path:
    from tests.toys.folders import change_json

    where = bert(folder)
    change_json(where / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]})
    evil_module(where, marker, "tokenization_evil.py")
    return where


@hostile("evil.Evil")
def folder_with_auto_map_deep_inside(folder: Path, marker: str) -> Path:
    return bert(folder, text_config={"parts": [{"auto_map": {"AutoConfig": "evil.Evil"}}]})


def _shards_at(name: str, target: str) -> None:
    @hostile("that lie in the folder itself", f"folder_with_shards_{name}")
    def build(folder: Path, marker: str) -> Path:
        where = bert(folder)
        (where / "model.safetensors").rename(folder / "model.safetensors")
        index = {"metadata": {}, "weight_map": {"classifier.weight": target}}
        (where / "model.safetensors.index.json").write_text(json.dumps(index))
        return where


_shards_at("that_climb", "../model.safetensors")
_shards_at("that_are_absolute", "/etc/hostname")
_shards_at("that_hide_a_climb", "x/../../model.safetensors")
_shards_at("of_another_kind", "pytorch_model.bin")
_shards_at("with_escape_codes", "\x1b[31m.safetensors")


@hostile("pytorch_model.bin")
def folder_of_pickles(folder: Path, marker: str) -> Path:
    where = bert(folder)
    (where / "model.safetensors").unlink()
    write(where, torch_zip(payload(marker)), "pytorch_model.bin")
    return where


@hostile("safetensors")
def folder_whose_weights_are_a_pickle_by_another_name(folder: Path, marker: str) -> Path:
    where = bert(folder)
    write(where, payload(marker), "model.safetensors")
    return where


@hostile("no model.safetensors")
def folder_whose_weights_are_a_fifo(folder: Path, marker: str) -> Path:
    where = bert(folder)
    (where / "model.safetensors").unlink()
    os.mkfifo(where / "model.safetensors")
    return where


@hostile("config.json")
def folder_whose_config_is_a_device(folder: Path, marker: str) -> Path:
    where = bert(folder)
    (where / "config.json").unlink()
    (where / "config.json").symlink_to("/dev/zero")
    return where


@hostile("no valid JSON")
def folder_with_a_deep_config(folder: Path, marker: str) -> Path:
    where = bert(folder)
    (where / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    return where


@hostile("tokenizer.json")
def folder_with_a_broken_tokenizer(folder: Path, marker: str) -> Path:
    where = bert(folder)
    (where / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Evil"}}')
    return where


@hostile("do not belong together")
def folder_with_a_tokenizer_that_is_too_large_for_it(folder: Path, marker: str) -> Path:
    where = bert(folder)
    content = json.loads((where / "tokenizer.json").read_text())
    content["model"]["vocab"]["evil"] = 1 << 20
    (where / "tokenizer.json").write_text(json.dumps(content))
    return where


@hostile("config.json")
def folder_without_a_config(folder: Path, marker: str) -> Path:
    evil_module(folder, marker, "json.py")
    return folder


# ---- the law -------------------------------------------------------------------------------------------------------


@pytest.mark.grid(every=3)
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_file_is_refused(name: str, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    build, message = HOSTILE[name]
    assert message in str(refusal(build(tmp_path, marker), marker))


def test_corpus_is_large() -> None:
    assert len(HOSTILE) + 2 * len(RAW) + len(SAFETENSORS) >= 100


def test_flags_open_only_their_own_door(tmp_path: Path) -> None:
    """Neither flag loads what the other is for."""
    marker = str(tmp_path / "marker")
    pickled = write(tmp_path, payload(marker), "a.pkl")
    assert "--trust-pickle" in str(refusal(pickled, marker, allow_code=True))
    assert "--allow-code" in str(refusal(torchscript(tmp_path, marker), marker, trust_pickle=True))


def test_code_beside_the_weights_is_left_alone_and_said(tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    where = bert(tmp_path, _attn_implementation="evil/kernels", attn_implementation="evil/kernels", dtype="float64")
    for name in ("json.py", "torch.py", "modeling_evil.py"):
        evil_module(where, marker, name)
    write(where, payload(marker), "pytorch_model.bin")
    model = load_model(ModelSpec(path=str(where)))
    assert not Path(marker).exists()
    notes = " ".join(model.provenance.notes)
    assert "code files, 3 (json.py, ...)" in notes and "pytorch_model.bin" in notes
    assert "Left out of config.json, since it would choose code paths of transformers: _attn_implementation, " in notes
    assert "attn_implementation." in notes and "dtype" not in notes
    assert isinstance(model, TorchModel) and next(model.module.parameters()).dtype == torch.float32


def test_a_folder_with_nothing_to_leave_out_says_nothing(tmp_path: Path) -> None:
    notes = load_model(ModelSpec(path=str(bert(tmp_path, _name_or_path="somewhere")))).provenance.notes
    assert "Left out" not in " ".join(notes)


@pytest.mark.parametrize("kind", ["bundle", "weights"])
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), ""),
        (("archive/", "archive/data/"), ""),
        (("archive/payload.bin",), "Not read in the archive: 1 record that nothing in it names (archive/payload.bin)."),
        (("archive/data/99",), "Not read in the archive: 1 record that nothing in it names (archive/data/99)."),
        (
            ("archive/zzz", "archive/extra/a\x1b[31m"),
            r"Not read in the archive: 2 records that nothing in it names (archive/extra/a\x1b[31m, ...).",
        ),
    ],
)
def test_records_that_nothing_reads_are_said(kind: str, more: tuple[str, ...], said: str, tmp_path: Path) -> None:
    args = {"n_features": 3, "hidden": [4], "n_outputs": 2}
    network = ARCHITECTURES["mlp"](**args)
    named = {"name": "mlp", "args": args}
    if kind == "bundle":
        save(TorchModel(network, classes=["a", "b"], architecture=named), tmp_path / "m.pt")
        spec = ModelSpec(path=str(tmp_path / "new.pt"))
    else:
        torch.save(network.state_dict(), tmp_path / "m.pt")
        spec = ModelSpec(path=str(tmp_path / "new.pt"), classes=("a", "b"), architecture="mlp", architecture_args=args)
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(tmp_path / "new.pt", "w") as new:
        names = old.namelist()
        root = names[0].split("/")[0]
        for name in names:
            new.writestr(name.replace(f"{root}/", "archive/", 1), old.read(name))
        for name in more:
            new.writestr(name, b"" if name.endswith("/") else b"anything")
    assert " ".join(load_model(spec).provenance.notes) == said


def test_what_was_read_first_is_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is exchanged after it was verified changes nothing: the verified bytes are loaded."""
    from auditor.loading import formats

    args = {"n_features": 3, "hidden": [4], "n_outputs": 2}
    model = TorchModel(ARCHITECTURES["mlp"](**args), classes=["a", "b"], architecture={"name": "mlp", "args": args})
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    save(model, path)
    original = formats.open_file

    def exchange(source: Any) -> Any:
        opened = original(source)
        path.write_bytes(payload(str(marker)))
        return opened

    monkeypatch.setattr(formats, "open_file", exchange)
    rows = np.zeros((2, 3), np.float32)
    loaded = load_model(ModelSpec(path=str(path)))
    np.testing.assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))
    assert not marker.exists()


# ---- the two readers, on their own ---------------------------------------------------------------------------------


def test_static_reader_agrees_with_the_unpickler_on_ordinary_pickles() -> None:
    class Recorder(pickle.Unpickler):
        def __init__(self, data: bytes) -> None:
            super().__init__(io.BytesIO(data))
            self.names: list[str] = []

        def find_class(self, module: str, name: str) -> Any:
            self.names.append(f"{module}.{name}")
            return super().find_class(module, name)

    values = [logistic(), OrderedDict(a=np.zeros(3)), {"x": {1, 2}, "y": complex(1, 2)}, Path("a") / "b", range(3)]
    for value in values:
        for protocol in (2, 3, 4, 5):  # older ones spell modules in the names of Python 2
            data = pickle.dumps(value, protocol, fix_imports=False)
            recorder = Recorder(data)
            recorder.load()
            report = read_pickle(data)
            assert report.complete and report.streams == 1 and report.length == len(data)
            assert report.names == tuple(dict.fromkeys(recorder.names))


def test_static_reader_never_raises() -> None:
    rng = np.random.default_rng(0)
    good = pickle.dumps(logistic(), 4)
    for _ in range(500):
        broken = bytearray(good[: rng.integers(1, len(good))])
        for place in rng.integers(0, len(broken), 5):
            broken[place] = rng.integers(0, 256)
        read_pickle(bytes(broken))
        read_pickle(rng.bytes(200))


def test_archive_reader_agrees_with_zipfile_and_never_raises_anything_else() -> None:
    rng = np.random.default_rng(0)
    good = honest_weights()
    archive = open_archive(good, "x")
    with zipfile.ZipFile(io.BytesIO(good)) as other:
        assert sorted(archive.records) == sorted(other.namelist())
        assert all_of(archive.read(n) == other.read(n) for n in other.namelist())
    refused = 0
    for _ in range(500):
        broken = bytearray(good)
        broken[rng.integers(0, len(broken))] ^= 1 << rng.integers(0, 8)
        try:
            open_archive(bytes(broken), "x")
        except ModelError:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("wide", [False, True])
def test_archive_reader_reads_64_bit_records(wide: bool) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a", "w", force_zip64=wide) as record:
            record.write(b"hello" * 100)
    assert open_archive(buffer.getvalue(), "x").read("a") == b"hello" * 100


class Unseekable(io.RawIOBase):
    """Makes zipfile write sizes after the records, as torch does."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += data
        return len(data)


def test_archive_reader_reads_sizes_that_follow() -> None:
    sink = Unseekable()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("a", b"hello" * 100)
        archive.writestr("b", b"")
    records = open_archive(bytes(sink.data), "x")
    assert (records.read("a"), records.read("b")) == (b"hello" * 100, b"")
