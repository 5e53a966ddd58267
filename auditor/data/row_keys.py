"""Row keys: numbers computed from a row's contents, equal in every process and for every order."""

from __future__ import annotations

import hashlib
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.statistics.rank_estimates import ascending_integers

if TYPE_CHECKING:
    from auditor.data.audit_data_parts import Recorded

Keys = npt.NDArray[np.uint64]
_PRIME = np.uint64(1_000_003)


def keys_of(X: Rows, y_true: IntArray | None, target_values: FloatArray | None, recorded: Recorded | None) -> Keys:
    """(n,) one key per row, of its features, its label and the recorded answers of a model.

    Equal rows have equal keys, whatever the order of the columns and the process. 64 bits: to tell rows apart, not to
    prove what they are.
    """
    labels = np.zeros(len(X), np.uint64) if y_true is None else y_true.astype(np.uint64)
    if target_values is not None:
        labels = (target_values + 0.0).view(np.uint64)  # -0.0 and 0.0 are one number
    combined: Keys = _of_features(X) * _PRIME + labels
    if recorded is not None:
        # Where a row's features are not all here, its answers may be all that tells it from another.
        combined = combined * _PRIME + recorded.keys(len(X))
    return combined


def _of_features(X: Rows) -> Keys:
    if isinstance(X, pd.DataFrame):
        named = X[sorted(X.columns, key=str)] if X.columns.is_unique else X
        # One type for all numbers: a column of whole numbers in one file may have a gap, and be float, in the other.
        named = named.astype({c: np.float64 for c in named.columns if named[c].dtype.kind in "iufb"})
        return np.asarray(pd.util.hash_pandas_object(named, index=False), np.uint64)
    parts = (_digest(x.encode("utf-8", "surrogatepass") if isinstance(x, str) else x.tobytes()) for x in X)
    return np.fromiter(parts, np.uint64, len(X))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


_BEGINNING = b"auditor-rows/1\0"


def digest_of_keys(keys: Keys) -> str:
    """Hex SHA-256 of the rows in no order: the same for a file that was shuffled, or saved in another format."""
    found = hashlib.sha256(_BEGINNING)
    found.update(np.sort(keys).astype("<u8").tobytes())
    return found.hexdigest()


class KeyDigest:
    """:func:`digest_of_keys` of rows in parts: keys are stored in files by leading bits until they are sorted.

    Raises OSError where there is no room for eight bytes a row.
    """

    _BITS = 6

    def __init__(self) -> None:
        self._files = [TemporaryFile() for _ in range(1 << self._BITS)]

    def add(self, keys: Keys) -> None:
        """The keys of the next rows."""
        ordered = np.sort(keys).astype("<u8")
        first = np.arange(1, len(self._files), dtype=np.uint64) << np.uint64(64 - self._BITS)
        for file, part in zip(self._files, np.split(ordered, np.searchsorted(ordered, first)), strict=True):
            file.write(part.tobytes())

    def hexdigest(self) -> str:
        """The digest of the rows so far; nothing can be added any more."""
        found = hashlib.sha256(_BEGINNING)
        for file in self._files:
            with file:
                file.seek(0)
                found.update(np.sort(np.frombuffer(file.read(), "<u8")).tobytes())
        return found.hexdigest()


def order_of(keys: Keys, purpose: str, occurrence: Keys | None = None) -> IntArray:
    """(n,) row positions in a pseudo-random order that depends only on their contents.

    Rows are sorted by a hash of their key, of how many equal rows stand before them, and of ``purpose``, so that two
    purposes have two orders. No seed and no order of the file changes which rows come first, and a row that is added or
    left out moves hardly any other: nobody can draw again until a split suits him. ``occurrence``: that of the keys,
    where it is known.
    """
    return ascending_integers(ranks_of(keys, purpose, occurrence))


def ranks_of(keys: Keys, purpose: str, occurrence: Keys | None = None) -> Keys:
    """(n,) the hashes that :func:`order_of` sorts by."""
    salt = np.uint64(_digest(purpose.encode()))
    return _mixed(keys ^ _mixed((occurrence_of(keys) if occurrence is None else occurrence) + salt))


def generator_of(keys: Keys, purpose: str) -> np.random.Generator:
    """A generator seeded only by the rows or their counts, for draws that cannot be repeated differently."""
    return np.random.default_rng([int(digest_of_keys(keys)[:16], 16), *purpose.encode()])


def occurrence_of(keys: Keys) -> Keys:
    """(n,) the number of equal keys before each key."""
    by_key = ascending_integers(keys)
    ordered = keys[by_key]
    begins = np.r_[True, ordered[1:] != ordered[:-1]] if keys.size else np.zeros(0, bool)
    places = np.arange(keys.size)
    found = np.empty(keys.size, np.uint64)
    found[by_key] = (places - np.maximum.accumulate(np.where(begins, places, 0))).astype(np.uint64)
    return found


def _mixed(values: Keys) -> Keys:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014): neighbours end far apart."""
    z: Any = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)
