"""NumPy arrays, dtypes, numbers and generators from a pickle, built from checked parts."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from auditor.models.files.model_bytes import printable
from auditor.models.files.unpickling import Foreign, Provisional

GENERATORS = {"numpy.random._mt19937.MT19937": np.random.MT19937, "numpy.random._pcg64.PCG64": np.random.PCG64}
_PLAIN_DTYPE = re.compile(r"[|<>=]?(b1|i[1248]|u[1248]|f[248]|c8|c16|O8?|[SUV]\d{1,8}|M8|m8)")


class Dtype(Provisional):
    """A dtype whose byte order and fields may follow."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def settled(self) -> np.dtype[Any]:
        return self.dtype


class Seeds:
    """A seed sequence, from which only new generators are ever drawn."""


def whole(value: Any, least: int = 0, most: int = 1 << 62) -> int:
    """A whole number from a file, within bounds.

    Raises ValueError for anything else.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{printable(value, 30)} stands where a whole number from {least} to {most} must")
    return int(value)


def n_bytes(shape: Any, dtype: np.dtype[Any]) -> int:
    """The size in bytes of an array of this shape.

    Raises ValueError where it could claim any number of them.
    """
    if type(shape) is not tuple or len(shape) > 32:
        raise ValueError("the shape of an array is none")
    count = math.prod(whole(length) for length in shape)
    # Without bytes of its own an array could claim to be of any size.
    if not dtype.itemsize and count > 1 << 20 or count > 1 << 62:
        raise ValueError("an array claims more than the file holds")
    return count * dtype.itemsize


def make_dtype(spec: Any, align: Any = False, copy: Any = True) -> Dtype:
    """A plain dtype by its code, such as ``f8``."""
    if isinstance(spec, type) and issubclass(spec, np.generic):
        return Dtype(np.dtype(spec))
    if type(spec) is not str or not _PLAIN_DTYPE.fullmatch(spec):
        raise Foreign("numpy.dtype", f"of {printable(spec, 40)}")
    return Dtype(np.dtype(spec))


def filled_dtype(instance: Dtype, state: Any) -> Dtype:
    """Byte order and fields of a dtype, as ``numpy.dtype.__reduce__`` writes them."""
    if type(state) is not tuple or not 8 <= len(state) <= 9 or state[1] not in ("<", ">", "|", "="):
        raise ValueError("the state of a dtype is none")
    _, order, base, names, fields, size = state[:6]
    if base is not None:
        raise Foreign("numpy.dtype", "of arrays within arrays")
    if names is None:
        if instance.dtype.kind in "mM":
            unit, count = state[8][1][:2] if isinstance(state[8], tuple) and len(state[8]) == 2 else ("generic", 1)
            text = unit.decode() if isinstance(unit, bytes) else str(unit)
            if not re.fullmatch(r"[a-zA-Zμ]{1,7}", text):
                raise ValueError("the unit of a dtype is none")
            instance.dtype = np.dtype(f"{instance.dtype.kind}8[{whole(count, 1, 1 << 30)}{text}]")
        instance.dtype = instance.dtype.newbyteorder(order) if order in "<>" else instance.dtype
        return instance
    if type(names) is not tuple or len(names) > 64 or type(fields) is not dict or set(fields) != set(names):
        raise ValueError("the fields of a dtype are none")
    kinds = [fields[name][0] for name in names]
    if not all(isinstance(kind, np.dtype) and not kind.hasobject for kind in kinds):
        raise Foreign("numpy.dtype", "with objects in its fields")
    instance.dtype = np.dtype(
        {
            "names": list(names),
            "formats": kinds,
            "offsets": [whole(fields[name][1], most=1 << 20) for name in names],
            "itemsize": whole(size, 1, 1 << 20),
        }
    )
    return instance


def array_state(version: Any, shape: Any, dtype: Any, fortran: Any, content: Any) -> tuple[Any, ...]:
    """The state of an array, with content of the length that its shape requires."""
    if not isinstance(dtype, np.dtype) or not isinstance(fortran, (bool, int)):
        raise ValueError("the state of an array is none")
    size = n_bytes(shape, dtype)
    if dtype.kind == "O":
        if type(content) is not list or len(content) != math.prod(shape):
            raise ValueError("an array of objects has another number of them")
    elif dtype.hasobject or type(content) is not bytes or len(content) != size:
        raise ValueError(f"an array of {size:,} bytes has another number of them")
    return 1, tuple(map(int, shape)), dtype, bool(fortran), content


def empty_array(kind: Any, shape: Any, code: Any) -> Any:
    """An empty array, which its state turns into the final one."""
    if kind is not np.ndarray:
        raise Foreign(printable(getattr(kind, "__name__", kind)), "a kind of array that is not supported yet")
    return np.ndarray((0,), np.uint8)


def empty_masked(kind: Any, base: Any, shape: Any, code: Any) -> Any:
    """A masked array of nothing."""
    if kind is not np.ma.MaskedArray or base is not np.ndarray:
        raise ValueError("a masked array is none")
    return np.ma.core._mareconstruct(np.ma.MaskedArray, np.ndarray, (0,), "b")  # type: ignore[attr-defined]


def filled_masked(instance: Any, version: Any, shape: Any, dtype: Any, fortran: Any, content: Any, *rest: Any) -> Any:
    """A masked array with as many values as marks."""
    state = array_state(version, shape, dtype, fortran, content)
    mask, fill_value = rest
    if dtype.names is not None or type(mask) is not bytes or len(mask) != math.prod(shape):
        raise ValueError("the mask of an array is none")
    if fill_value is not None and np.shape(fill_value) != ():
        raise ValueError("the fill value of an array is none")
    instance.__setstate__((*state, mask, fill_value))
    return instance


def array_of_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """A copy of an array that protocol 5 stores as bytes, so that its memory is not shared."""
    if type(content) not in (bytes, bytearray) or not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise ValueError("an array is made of what are no bytes")
    if order not in ("C", "F") or len(content) != n_bytes(shape, dtype):
        raise ValueError("an array has another number of bytes than it claims")
    return np.frombuffer(content, dtype).copy().reshape(shape, order=order)


def make_scalar(dtype: Any, content: Any) -> Any:
    """One NumPy scalar from its bytes."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject or type(content) is not bytes:
        raise Foreign("numpy scalar", "of an object")
    if len(content) != dtype.itemsize:
        raise ValueError("a number has another number of bytes than it claims")
    return np.frombuffer(content, dtype)[0] if content else np.zeros((), dtype)[()]


def make_bit_generator(kind: Any) -> Any:
    """A bit generator, of the two kinds that scikit-learn creates."""
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    made = next((k for full, k in GENERATORS.items() if full.endswith(f".{name}")), None)
    if made is None:
        raise Foreign(printable(name), "a kind of random generator that is not supported yet")
    return made(0)


def make_random_state(generator: Any = "MT19937", *_: Any) -> Any:
    """A RandomState with the given bit generator."""
    if generator != "MT19937" and not isinstance(generator, np.random.MT19937):
        raise Foreign("numpy.random.RandomState", "of another generator")
    return np.random.RandomState(np.random.MT19937(0) if isinstance(generator, str) else generator)


def make_generator(bits: Any, *_: Any) -> Any:
    """A Generator with the given bit generator."""
    if not isinstance(bits, (np.random.MT19937, np.random.PCG64)):
        raise Foreign("numpy.random.Generator", "of another generator")
    return np.random.Generator(bits)


def filled_generator(instance: Any, state: Any) -> Any:
    """A generator with restored state; positions are checked, since NumPy would read beyond its memory.

    numpy would read beyond its memory for a position that is off.
    """
    if isinstance(instance, Seeds):
        return instance
    known = state[0] if type(state) is tuple else state
    inner = known["state"]
    if known["bit_generator"] == "MT19937" and isinstance(instance, (np.random.RandomState, np.random.MT19937)):
        key = inner["key"]
        if not isinstance(key, np.ndarray) or key.shape != (624,) or key.dtype != np.uint32:
            raise ValueError("the state of a random generator is none")
        clean: dict[str, Any] = {
            "bit_generator": "MT19937",
            "state": {"key": key.copy(), "pos": whole(inner["pos"], 0, 624)},
        }
        if isinstance(instance, np.random.RandomState):
            clean |= {"has_gauss": whole(known["has_gauss"], 0, 1), "gauss": float(known["gauss"])}
            instance.set_state(clean)
            return instance
    elif known["bit_generator"] == "PCG64" and isinstance(instance, np.random.PCG64):
        clean = {
            "bit_generator": "PCG64",
            "state": {name: whole(inner[name], 0, (1 << 128) - 1) for name in ("state", "inc")},
            "has_uint32": whole(known["has_uint32"], 0, 1),
            "uinteger": whole(known["uinteger"], 0, (1 << 32) - 1),
        }
    else:
        raise ValueError("the state of a random generator is none")
    instance.state = clean
    return instance


def encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as pickles of up to protocol 2 write them, as text of one encoding only."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Foreign("_codecs.encode", f"by {printable(encoding, 30)}")
    return text.encode("latin-1")
