"""Names, records and headers of weight files, read without torch."""

from __future__ import annotations

import json
import pickletools
from typing import Any, Literal

from auditor.core.errors import DamagedError
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.strict_zip import Archive
from auditor.models.files.unpickling import PickleReading

# Where training scripts commonly keep the weights inside a checkpoint.
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model")
LOADED_BY_SAFETENSORS = "safetensors.torch.load"
# The first of a legacy torch file's pickles is this number.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Exact names only: what plain weights and the numbers of a training script beside them need.
PLAIN_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        "torch.device",
        *(f"torch.{kind}" for kind in ("bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8")),
        *(
            f"torch.{kind}Storage"
            for kind in (
                "BFloat16",
                "Bool",
                "Byte",
                "Char",
                "ComplexDouble",
                "ComplexFloat",
                "Double",
                "Float",
                "Half",
                "Int",
                "Long",
                "Short",
            )
        ),
    }
)
# What torch's restricted loader knows beyond them: no danger, and no plain tensors either.
UNUSUAL_GLOBALS = frozenset(
    {
        "torch.Tensor",
        "torch._tensor._rebuild_from_type_v2",
        "torch.nn.parameter.Parameter",
        "torch.per_channel_affine",
        "torch.per_tensor_affine",
        "torch.serialization._get_layout",
        *(
            f"torch._utils._rebuild_{kind}"
            for kind in (
                "device_tensor_from_cpu_tensor",
                "device_tensor_from_numpy",
                "meta_tensor_no_storage",
                "nested_tensor",
                "parameter_with_state",
                "qtensor",
                "sparse_tensor",
                "tensor",
                "tensor_v3",
                "wrapper_subclass",
            )
        ),
        *(f"torch.{kind}Storage" for kind in ("QInt32", "QInt8", "QUInt8")),
    }
)
# As torch archives have named them, by numpy's version.
NUMPY_GLOBALS = frozenset(
    {
        "_codecs.encode",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    }
)
_MAX_HEADER_BYTES = 100 << 20
_READ_BY_TORCH = ("data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id")


def pickle_record(archive: Archive) -> str | None:
    """Name of the record with the object of a torch archive, or None if the file is no torch archive."""
    found = [
        name for name in archive.records if name == "data.pkl" or (name.count("/") == 1 and name.endswith("/data.pkl"))
    ]
    return found[0] if len(found) == 1 else None


def unread_records(archive: Archive, record: str) -> tuple[str, ...]:
    """A note on records that neither torch nor the pickle in ``record`` reads; empty if there are none."""
    root = record.removesuffix("data.pkl")
    storages = {f"{root}data/{arg}" for _, arg, _ in pickletools.genops(archive.read(record)) if isinstance(arg, str)}
    read = storages | {root + name for name in _READ_BY_TORCH}
    # A name that ends so is a folder's, which some packers write down.
    extra = sorted(name for name in archive.records if name not in read and not name.endswith("/"))
    if not extra:
        return ()
    which = "1 record" if len(extra) == 1 else f"{len(extra):,} records"
    more = ", ..." if len(extra) > 1 else ""
    return (f"Not read in the archive: {which} that nothing in it names ({printable(extra[0], 60)}{more}).",)


def foreign_globals(report: PickleReading) -> tuple[str, ...]:
    """The globals of a pickle beyond those of plain weights and NumPy numbers."""
    return tuple(name for name in report.names if name not in PLAIN_GLOBALS | NUMPY_GLOBALS)


def safetensors_header(data: bytes, file_name: str, size: int | None = None) -> dict[str, Any]:
    """The header of a safetensors file, with unique names and tensors that exactly fill the rest of the file.

    ``size``: bytes of the file, where ``data`` is only the beginning of it.
    """
    size = len(data) if size is None else size
    length = int.from_bytes(data[:8], "little")
    if length > min(size - 8, _MAX_HEADER_BYTES):
        raise DamagedError(f"{file_name!r} is a truncated safetensors file: its header claims {length:,} bytes.")
    with convert_parser_errors(f"{file_name!r} has no valid safetensors header"):
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique_pairs)
        if not isinstance(header, dict):
            raise DamagedError(f"{file_name!r} has no valid safetensors header.")
        spans = sorted(tuple(v["data_offsets"]) for k, v in header.items() if k != "__metadata__")
    place = 0
    for span in spans:
        if len(span) != 2 or span[0] != place or not isinstance(span[1], int) or span[1] < place:
            raise DamagedError(f"{file_name!r} is a doctored safetensors file: its tensors overlap or leave holes.")
        place = span[1]
    if place != size - 8 - length:
        raise DamagedError(f"{file_name!r} is a truncated or doctored safetensors file: its tensors do not fill it.")
    return header


def check_gguf(source: Source) -> None:
    """Raise DamagedError if the first 24 bytes are not a valid GGUF header.

    They are the mark, the version (uint32, 2 or 3), and the numbers of tensors and of keys (uint64), of either byte
    order.
    Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    head = source.data[:24]
    order: Literal["little", "big"] = "big" if head[4:6] == b"\0\0" else "little"
    version, tensors, keys = (int.from_bytes(head[a:b], order) for a, b in ((4, 8), (8, 16), (16, 24)))
    if len(head) < 24:
        raise DamagedError(f"{source.name!r} is a truncated GGUF file: it ends within its header.")
    if version not in (2, 3):
        raise DamagedError(f"{source.name!r} is a GGUF file of version {version}; 2 and 3 are read: convert it anew.")
    # Every tensor takes at least 24 bytes of the table, and every key 12.
    if tensors * 24 + keys * 12 > len(source.data) - 24:
        raise DamagedError(
            f"{source.name!r} is a truncated GGUF file: its header claims {tensors:,} tensors and {keys:,} keys."
        )


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found
