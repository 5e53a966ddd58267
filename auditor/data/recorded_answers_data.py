"""Recorded model answers, for a model that is known by its answers only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray, IntArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Recorded:
    """A model's answers, row by row, each None where it was not given.

    scores: (n, n_classes) probabilities. decisions: (n,) class indices. numbers: (n,) predicted numbers of a
    regression. losses: (n,) the model's loss on each row, by its owner's own account. texts: (n,) what it wrote.
    """

    scores: FloatArray | None = None
    decisions: IntArray | None = None
    numbers: FloatArray | None = None
    losses: FloatArray | None = None
    texts: npt.NDArray[np.object_] | None = None

    def take(self, index: npt.NDArray[Any] | slice) -> Recorded:
        """The recorded answers of a subset of rows, by mask, positions or slice."""
        return Recorded(**{name: None if own is None else own[index] for name, own in self._columns().items()})

    def followed_by(self, other: Recorded) -> Recorded:
        """These rows followed by the other rows, with the fields that both have."""
        theirs = other._columns()
        return Recorded(
            **{
                name: np.concatenate([own, theirs[name]]) if own is not None and theirs[name] is not None else None
                for name, own in self._columns().items()
            }
        )

    def keys(self, n: int) -> npt.NDArray[np.uint64]:
        """(n,) a number for each row that rows with equal answers share."""
        found = np.zeros(n, np.uint64)
        for own in self._columns().values():
            for column in [] if own is None or own.dtype == object else own.reshape(n, -1).T:
                bits = (column.astype(np.float64) + 0.0).view(np.uint64)
                found = found * np.uint64(1_000_003) + bits
        return found

    def _columns(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}
