"""Tensors from torch archives and safetensors files, checked before and after loading.

Torch pickles are checked for the storages that they claim and the NumPy numbers in them before torch reads them. Two
kinds of file need it: those from before 2020, whose storages lie as raw memory behind the pickles, and checkpoints with
numpy's numbers beside the tensors, which torch's restricted loader takes only where it is told to.
"""

from __future__ import annotations

import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import DamagedError, ModelError, UnsafeModelError, UnsupportedError
from auditor.models.files import pickled_arrays as arrays
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.strict_zip import Archive, open_archive
from auditor.models.files.unpickling import Foreign, describe_calls, follow, read_pickle
from auditor.models.files.weight_files import (
    LEGACY_MAGIC,
    NUMPY_GLOBALS,
    PLAIN_GLOBALS,
    UNUSUAL_GLOBALS,
    foreign_globals,
    pickle_record,
    safetensors_header,
)

_NUMPY_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": arrays.make_dtype,
    "numpy._core.multiarray._reconstruct": arrays.empty_array,
    "numpy._core.multiarray.scalar": arrays.make_scalar,
}
_ELEMENT_BYTES = {
    "BFloat16": 2,
    "Bool": 1,
    "Byte": 1,
    "Char": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "Int": 4,
    "Long": 8,
    "Short": 2,
}


@dataclass(frozen=True)
class _Blank:
    """Stands for a tensor, a dtype or whatever else of torch's; ``size``: bytes of one element of a storage."""

    name: str
    size: int = 0


@dataclass
class TorchReader:
    """Inert meanings of the names in a torch pickle; ``storages``: (elements, bytes each) by key."""

    plain: frozenset[str]
    storages: dict[str, tuple[int, int]] = field(default_factory=dict)

    def value(self, name: str) -> object:
        """A blank for a plain name of torch's, ``ndarray`` for numpy's."""
        if name == "numpy.ndarray":
            return np.ndarray
        if name not in self.plain:
            raise Foreign(name)
        return _Blank(name, _ELEMENT_BYTES.get(name.removeprefix("torch.").removesuffix("Storage"), 0))

    def call(self, name: str, arguments: tuple[Any, ...]) -> object:
        """A NumPy scalar, array or dtype; a placeholder for every object that torch would create."""
        if name in _NUMPY_CALLS:
            return _NUMPY_CALLS[name](*arguments)
        if name == "_codecs.encode":
            return arrays.encoded(*arguments)
        if name == "collections.OrderedDict":
            return OrderedDict()
        if name not in self.plain:
            raise Foreign(name)
        return _Blank(name)

    def make(self, name: str) -> object:
        """Raise an error: a plain torch file creates no object from its class alone."""
        raise Foreign(name)

    def fill(self, instance: Any, name: str, state: Any, file: BytesIO) -> object:
        """A dtype or an array with its state; torch keeps that of anything else."""
        if isinstance(instance, arrays.Dtype):
            return arrays.filled_dtype(instance, state)
        if type(instance) is np.ndarray:
            instance.__setstate__(arrays.array_state(*state))
        return instance

    def persistent(self, key: Any) -> object:
        """A storage by ``("storage", type, key, location, elements)``, and None where an older file has views."""
        if type(key) is not tuple or len(key) not in (5, 6) or key[0] != "storage" or not isinstance(key[1], _Blank):
            raise Foreign("a persistent object that is no storage")
        if key[5:] not in ((), (None,)):
            raise ValueError("its storages are views of others")
        place, count = str(key[2]), arrays.whole(key[4])
        if self.storages.setdefault(place, (count, key[1].size)) != (count, key[1].size):
            raise ValueError("it describes one storage in two ways")
        return _Blank("storage")


def check_numpy(data: bytes, plain: frozenset[str]) -> None:
    """Raise Foreign or ValueError if NumPy objects in a torch pickle are not plain numbers and arrays."""
    follow(BytesIO(data), TorchReader(plain))


@contextmanager
def numpy_numbers() -> Iterator[None]:
    """torch's restricted loader takes numpy's numbers and plain arrays within, as :func:`check_numpy` saw them."""
    import _codecs

    core = np._core.multiarray  # type: ignore[attr-defined]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdFDSU"}
    allowed: list[Any] = [np.ndarray, np.dtype, _codecs.encode, *kinds]
    for name in ("scalar", "_reconstruct"):
        allowed += [(getattr(core, name), f"numpy.{module}.multiarray.{name}") for module in ("core", "_core")]
    with torch.serialization.safe_globals(allowed):
        yield


def check_legacy(source: Source, plain: frozenset[str]) -> None:
    """Follows the five pickles of a legacy torch file, and the raw memory of every storage up to the file's last byte.

    Raises Foreign for a name that plain weights do not need, ModelError where the parts do not fit together.
    """
    file = BytesIO(source.data)
    reader = TorchReader(plain)
    magic, protocol, system = (follow(file, reader) for _ in range(3))
    if (
        magic != LEGACY_MAGIC
        or protocol != 1001
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise UnsupportedError(
            f"{source.name!r} is a legacy torch file of a machine or a version that is not supported."
        )
    follow(file, reader)
    keys = follow(file, reader)
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(reader.storages):
        raise DamagedError(f"{source.name!r} is a legacy torch file whose storages are not those that it names.")
    for key in keys:
        count, size = reader.storages[str(key)]
        stated = file.read(8)
        if len(stated) != 8 or struct.unpack("<q", stated)[0] != count:
            raise DamagedError(
                f"{source.name!r} is a damaged legacy torch file: a storage is not as long as it claims."
            )
        file.seek(count * size, 1)
    if file.tell() != len(source.data):
        raise DamagedError(f"{source.name!r} is a damaged legacy torch file: its storages do not fill it.")


LOADED_BY_TORCH = "torch.load(weights_only=True)"
# Tied weights are stored once and named twice or more; beyond this the file claims far more than it holds.
MAX_CLAIM = 8


def load_torch(source: Source, archive: Archive, record: str) -> Any:
    """The object of a verified torch archive, by ``torch.load(weights_only=True)`` on the bytes that were verified.

    Raises UnsafeModelError where the pickle names anything but plain tensors, ModelError where it cannot be read or a
    tensor claims more than the file holds.
    """
    report = read_pickle(archive.read(record))
    foreign = foreign_globals(report)
    if foreign and UNUSUAL_GLOBALS.issuperset(foreign):
        raise UnsupportedError(
            f"{source.name!r} holds tensors that are not plain ({describe_calls(foreign)}), which is not supported "
            "yet: save dense, unquantised tensors without attributes of their own."
        )
    if foreign:
        raise UnsafeModelError(f"{source.name!r} would call {describe_calls(foreign, complete=report.complete)}.")
    if not report.complete or report.streams != 1:
        raise DamagedError(
            f"{source.name!r} holds a pickle that is damaged, endless or followed by another: save it anew."
        )
    with_numpy = not NUMPY_GLOBALS.isdisjoint(report.names)
    with (
        convert_parser_errors(f"{source.name!r} cannot be read as a torch file"),
        warnings.catch_warnings(),
        numpy_numbers() if with_numpy else nullcontext(),
    ):
        if with_numpy:
            check_numpy(archive.read(record), PLAIN_GLOBALS)
        # torch warns of pickle protocols it does not write; what it cannot read, it refuses.
        warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
        loaded = torch.load(BytesIO(source.data), map_location="cpu", weights_only=True)
        check_tensors(loaded, source.name, len(source.data))
    return loaded


def load_legacy_torch(source: Source) -> Any:
    """The object of a torch file from before 2020, by ``torch.load(weights_only=True)`` after a complete check.

    Raises Foreign for a name that plain weights do not need, ModelError where it cannot be read.
    """
    with (
        convert_parser_errors(f"{source.name!r} cannot be read as a legacy torch file"),
        warnings.catch_warnings(),
        numpy_numbers(),
    ):
        # torch's own reader of these files uses what torch warns of.
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
        check_legacy(source, PLAIN_GLOBALS)
        loaded = torch.load(BytesIO(source.data), map_location="cpu", weights_only=True)
        check_tensors(loaded, source.name, len(source.data))
    return loaded


def load_torch_file(source: Source) -> Any:
    """The object of a torch archive or a legacy torch file, by its content. Raises UnsafeModelError and ModelError."""
    if source.data[:4] == b"PK\x03\x04":
        archive = open_archive(source.data, source.name)
        record = pickle_record(archive)
        if record is None:
            raise ModelError(f"{source.name!r} is an archive without torch's weights.", code="AUD-LOAD-UNKNOWN")
        return load_torch(source, archive, record)
    report = read_pickle(source.data[: 1 << 20])
    if report.first_long == LEGACY_MAGIC:
        return load_legacy_torch(source)
    if report.names:
        raise UnsafeModelError(
            f"{source.name!r} is a pickle, and loading it would call {describe_calls(report.names)}."
        )
    raise ModelError(f"{source.name!r} is no file that torch.save wrote: save it anew.", code="AUD-LOAD-UNKNOWN")


def load_safetensors(source: Source) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ModelError where its header is not exactly what the format says."""
    import safetensors.torch

    safetensors_header(source.data, source.name)
    with convert_parser_errors(f"{source.name!r} cannot be read as a safetensors file"):
        loaded: dict[str, Tensor] = safetensors.torch.load(source.data)
        check_tensors(loaded, source.name, len(source.data))
    return loaded


def check_tensors(loaded: object, file_name: str, file_bytes: int) -> None:
    """Raise ModelError for a tensor that is not plain, or needs more memory than its storage and the file have."""
    claimed = 0
    for tensor in tensors_of(loaded):
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided or tensor.is_quantized:
            raise UnsupportedError(
                f"{file_name!r} holds a sparse, quantised or otherwise unusual tensor, which is not supported yet."
            )
        if tensor.device.type != "cpu":
            raise UnsupportedError(f"{file_name!r} holds a tensor without data.")
        needed = tensor.numel() * tensor.element_size()
        if needed > tensor.untyped_storage().nbytes():
            raise DamagedError(
                f"{file_name!r} holds a tensor of shape {tuple(tensor.shape)[:6]} over only "
                f"{tensor.untyped_storage().nbytes():,} bytes: it claims more than it stores."
            )
        claimed += needed
    if claimed > MAX_CLAIM * file_bytes:
        raise ModelError(
            f"{file_name!r} has {file_bytes:,} bytes and claims tensors of {claimed:,}: it names the same bytes often.",
            code="AUD-LOAD-LIMIT",
        )


def tensors_of(loaded: object) -> Iterator[Tensor]:
    """Every tensor within nested dicts, lists and tuples."""
    stack, seen = [loaded], set()
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, (Mapping, list, tuple)) and id(item) not in seen:
            # A pickle may hold a list that contains itself.
            seen.add(id(item))
            stack.extend(item.values() if isinstance(item, Mapping) else item)


def as_state_dict(loaded: object, file_name: str) -> dict[str, Tensor]:
    """A mapping of names to tensors, checked. Raises ModelError for anything else."""
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelError(
            f"{file_name!r} holds {_kind(loaded)}, not a set of named weights.", code="AUD-LOAD-ARCHITECTURE"
        )
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(
                f"{file_name!r} holds {_kind(value)} under {printable(name, 60)!r} where a tensor was expected.",
                code="AUD-LOAD-ARCHITECTURE",
            )
    return dict(loaded)


def compare_shapes(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], file_name: str, network: str) -> None:
    """Raise ModelError with the first weights that are missing, unexpected or of another shape."""
    problems = [
        _listing("lacks", [name for name in expected if name not in weights]),
        _listing("has but the network does not know", [name for name in weights if name not in expected]),
        _listing(
            "has in another shape",
            [
                f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
                for name, tensor in expected.items()
                if name in weights and weights[name].shape != tensor.shape
            ],
        ),
    ]
    named = [p for p in problems if p]
    if named:
        raise ModelError(
            f"The weights in {file_name!r} do not fit {network}: the file {'; it '.join(named)}.",
            code="AUD-LOAD-WEIGHTS",
        )


def _listing(verb: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{verb} {', '.join(printable(n, 120) for n in names[:3])}{more}"


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def plain_floats(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Own copies of the weights with every real number as float32, and a note where that changed any."""
    changed = sorted(
        {str(t.dtype).removeprefix("torch.") for t in weights.values() if t.is_floating_point()} - {"float32"}
    )
    copies = {
        name: tensor.detach().to(torch.float32, copy=True).contiguous()
        if tensor.is_floating_point()
        else tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
    return copies, (f"Weights stored as {', '.join(changed)} were converted to float32.",) if changed else ()
