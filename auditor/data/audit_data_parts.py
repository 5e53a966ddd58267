"""Parts of AuditData beside its features: recorded model answers, and the sampling design (clusters and weights)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError
from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.clusters import effective_size

if TYPE_CHECKING:
    import pandas as pd


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


# What a probe may take account of.
Part = Literal["cluster", "weight"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Design:
    """The design of rows (n,) that are dependent or weighted.

    ``cluster``: the column that says which rows belong together, ``clusters``: (n,) of each row, numbered from 0; rows
    of different clusters are independent. ``weight``: the column of what each row weighs, ``weights``: (n,), at least
    0. Either is left out, by None, where rows are independent or weigh the same.
    """

    cluster: str | None = None
    clusters: IntArray | None = None
    weight: str | None = None
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        # Lent to one probe after another.
        for values in (self.clusters, self.weights):
            if values is not None:
                values.setflags(write=False)

    def __len__(self) -> int:
        return len(self.clusters if self.clusters is not None else self.weights if self.weights is not None else ())

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the design that are present."""
        known: tuple[tuple[Part, object], ...] = (("cluster", self.clusters), ("weight", self.weights))
        return tuple(part for part, values in known if values is not None)

    def codes(self) -> IntArray:
        """(n,) the cluster of each row; one cluster per row if rows are independent."""
        return np.arange(len(self)) if self.clusters is None else self.clusters

    def take(self, index: npt.NDArray[Any] | slice) -> Self:
        """The design of a subset of rows."""
        return type(self)(
            cluster=self.cluster,
            clusters=None if self.clusters is None else self.clusters[index],
            weight=self.weight,
            weights=None if self.weights is None else self.weights[index],
        )

    def followed_by(self, n: int) -> Self:
        """The design with ``n`` training rows appended, each its own cluster with weight 1; these are not evaluated."""
        own = None if self.clusters is None else np.arange(n) + (self.clusters.max(initial=-1) + 1)
        return type(self)(
            cluster=self.cluster,
            clusters=None if self.clusters is None or own is None else np.concatenate([self.clusters, own]),
            weight=self.weight,
            weights=None if self.weights is None else np.concatenate([self.weights, np.ones(n)]),
        )

    @property
    def n_clusters(self) -> int | None:
        """The number of clusters; None if the rows are independent."""
        return None if self.clusters is None else len(np.unique(self.clusters))

    @property
    def effective(self) -> float:
        """Kish's effective sample size: the equivalent number of equally weighted rows, or equally sized clusters."""
        if not len(self):
            return 0.0
        return effective_size(np.bincount(self.codes(), weights=self.weights).astype(np.float64))

    @property
    def design_effect(self) -> float | None:
        """``n sum(w^2) / sum(w)^2``, the variance inflation by weights alone; None without weights."""
        return None if self.weights is None else len(self) / effective_size(self.weights)

    def facts(self) -> dict[str, Any]:
        """The design's facts for a record, by field name."""
        return {
            "cluster": self.cluster,
            "n_clusters": self.n_clusters,
            "weight": self.weight,
            "design_effect": self.design_effect,
            "effective_n": self.effective,
        }

    def notes(self) -> tuple[str, ...]:
        """Notes on the design for the reader."""
        said = []
        n = len(self)
        if self.clusters is not None:
            said.append(
                f"Rows belong together by {self.cluster}: {n:,} rows of {self.n_clusters:,} clusters, which count as "
                f"{self.effective:,.4g} of one size (1 / the sum of their squared shares{self._of_weight})."
            )
        if self.weights is not None:
            said.append(
                f"Rows are weighted by {self.weight}: design effect {self.design_effect:.3g}, so {n:,} rows count as "
                f"{effective_size(self.weights):,.4g} of one weight."
            )
            if nothing := int((self.weights == 0.0).sum()):
                said.append(f"{nothing:,} of {n:,} rows weigh 0 by {self.weight}: no number counts them.")
        return tuple(said)

    @property
    def _of_weight(self) -> str:
        return "" if self.weights is None else " of the weight"


def clusters_of(values: pd.Series[Any], column: str) -> IntArray:
    """(n,) the cluster of each row, numbered from 0; DataError for a row without one."""
    import pandas as pd

    codes, _ = pd.factorize(values)
    missing = int((codes < 0).sum())
    if missing:
        raise DataError(
            f"Column {column!r} is empty in {missing:,} rows: --cluster needs to know of every row which others it "
            "belongs with. Give a row that belongs with none a value of its own.",
            code="AUD-DATA-VALUES",
        )
    return np.asarray(codes, np.int64)


def weights_of(values: pd.Series[Any], column: str) -> FloatArray:
    """(n,) row weights; DataError for text, for missing, infinite or negative values, and for all zeros."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0.0))
    if wrong.size:
        raise DataError(
            f"Column {column!r} holds {str(values.iloc[wrong[0]])[:40]!r}, and a weight is a number of at least 0. "
            "Leave rows out that have none.",
            code="AUD-DATA-VALUES",
        )
    if len(numbers) and not numbers.any():
        raise DataError(f"Column {column!r} is 0 in every row: nothing weighs anything.", code="AUD-DATA-VALUES")
    # Only what they are to each other matters, and sums of squares of large numbers would overflow.
    return np.asarray(numbers / numbers.max(), np.float64) if len(numbers) else numbers
