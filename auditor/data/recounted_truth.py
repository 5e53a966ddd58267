"""Truth, groups and counts as the data files state them, and digests of group membership and of true numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from auditor.core.files import Closed
from auditor.core.number_types import Count
from auditor.core.rows import FloatArray
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


class NumbersDigest:
    """SHA-256 of true numbers (n,) in parts of any length; all rows without a number (NaN) are equal."""

    def __init__(self) -> None:
        self._numbers = hashlib.sha256()

    def add(self, numbers: FloatArray) -> None:
        """The next rows."""
        self._numbers.update(np.where(np.isnan(numbers), np.nan, numbers + 0.0).astype("<f8").tobytes())

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        return self._numbers.hexdigest()


# One number of rows each: those of a group of every sensitive feature that have a label, or have none.
Cell = tuple[tuple[str, ...], str | None, Count]


class Reading(Closed):
    """One interpretation of the label and group columns, as text or as numbers, which may differ in spelling.

    ``labels``: the digest of the rows' labels in their order, ``groups`` those of their groups by sensitive feature, as
    :class:`auditor.data.recounted_truth.GroupsDigest` makes them; ``cells``: how many rows have which groups and label.
    """

    labels: str | None = None
    groups: dict[str, str] = Field(default_factory=dict)
    cells: tuple[Cell, ...] = ()

    def sizes(self) -> dict[str, dict[str, int]]:
        """The number of rows per group, by sensitive feature."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.groups}
        for group, _, n in self.cells:
            for own, level in zip(found.values(), group, strict=True):
                own[level] = own.get(level, 0) + n
        return found

    @property
    def unlabelled(self) -> int:
        """The number of rows without a label."""
        return sum(n for _, label, n in self.cells if label is None)


class Recount(Closed):
    """The recounted rows of the data files: their number, their contents by ``readings``, and file digests.

    ``n``: rows to be audited, ``n_train`` training rows; of a folder its files, whether or not they can be read.
    ``numbers``: a digest of true numbers in their order, ``n_without`` how many rows have none; None where the target
    holds no numbers. ``design``: what the record says of rows that belong together or do not weigh the same.
    ``why_not``: why nothing could be read, or "".
    """

    sha256: str | None = None
    train_sha256: str | None = None
    n: Count = 0
    n_train: Count | None = None
    folder: bool = False
    readings: Annotated[tuple[Reading, ...], Field(max_length=256)] = ()
    numbers: str | None = None
    n_without: Count = 0
    design: dict[str, str | int | float | None] = Field(default_factory=dict)
    why_not: Annotated[str, Field(max_length=2_000)] = ""
