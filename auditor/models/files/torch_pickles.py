"""Checks of torch pickles before torch reads them: claimed storages and contained NumPy numbers.

Two kinds of file need it: those from before 2020, whose storages lie as raw memory behind the pickles, and checkpoints
with numpy's numbers beside the tensors, which torch's restricted loader takes only where it is told to.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch

from auditor.core.errors import DamagedError, UnsupportedError
from auditor.models.files import pickled_arrays as arrays
from auditor.models.files.model_bytes import Source
from auditor.models.files.unpickling import Foreign, follow
from auditor.models.files.weight_files import LEGACY_MAGIC

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
