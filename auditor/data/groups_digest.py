"""Digests of group membership, row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from auditor.data.group_counts import MISSING


class GroupsDigest:
    """SHA-256 of one sensitive feature's groups, in parts of any length: levels are numbered as first seen."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._codes = hashlib.sha256()

    def add(self, codes: npt.NDArray[np.integer], levels: Sequence[str]) -> None:
        """The next rows: each row's index into ``levels``, negative where it has no group."""
        names = [*map(str, levels), MISSING]
        numbers = np.zeros(len(names), "<i8")
        at = np.maximum(codes, -1)
        first = np.full(len(names), at.size)
        # Of one place that is written to again the last is kept: backwards, where it is seen first.
        first[at[::-1]] = np.arange(at.size)[::-1]
        for code in np.argsort(first, kind="stable")[: np.count_nonzero(first < at.size)]:
            numbers[code] = self._numbers.setdefault(names[code], len(self._numbers))
        self._codes.update(numbers[at].tobytes())

    def hexdigest(self) -> str:
        """The digest of the rows so far: of their numbers, then of the levels in the order of the numbers."""
        whole = self._codes.copy()
        whole.update(json.dumps(list(self._numbers)).encode())
        return whole.hexdigest()
