"""Parts of AuditData beside its features: recorded model answers, and the sampling design (clusters and weights)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
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
    graded: (n, 2) of each sample of an evaluation, the sum of its scores over the number of its repeats, and the share
    of its repeats that have no score.
    """

    scores: FloatArray | None = None
    decisions: IntArray | None = None
    numbers: FloatArray | None = None
    losses: FloatArray | None = None
    texts: npt.NDArray[np.object_] | None = None
    graded: FloatArray | None = None

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


# What --cluster says of samples of a log that are independent.
NO_CLUSTERS = "none"
# What a probe may take account of.
Part = Literal["cluster", "weight"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Design:
    """The design of rows (n,) that are dependent or weighted.

    ``cluster``: the column that says which rows belong together, ``clusters``: (n,) of each row, numbered from 0; rows
    of different clusters are independent. ``weight``: the column of what each row weighs, ``weights``: (n,), from 0 to
    1, of ``largest_weight``. Either is left out, by None, where rows are independent or weigh the same.
    ``cluster_at_most``, ``weight_at_most``: the most rows of a cluster, and the largest weight of a row, that there can
    be; None where nobody says.
    """

    cluster: str | None = None
    clusters: IntArray | None = None
    weight: str | None = None
    weights: FloatArray | None = None
    largest_weight: float = 1.0
    cluster_at_most: int | None = None
    weight_at_most: float | None = None

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
        return replace(
            self,
            clusters=None if self.clusters is None else self.clusters[index],
            weights=None if self.weights is None else self.weights[index],
        )

    def followed_by(self, n: int) -> Self:
        """The design with ``n`` training rows appended, each its own cluster with weight 1; these are not evaluated."""
        own = None if self.clusters is None else np.arange(n) + (self.clusters.max(initial=-1) + 1)
        return replace(
            self,
            clusters=None if self.clusters is None or own is None else np.concatenate([self.clusters, own]),
            weights=None if self.weights is None else np.concatenate([self.weights, np.ones(n)]),
        )

    @property
    def largest(self) -> float:
        """The most that a cluster can weigh, in units of ``weights``; 0 where nobody says."""
        rows = 1.0 if self.clusters is None else float(self.cluster_at_most or 0)
        return rows if self.weights is None else rows * (self.weight_at_most or 0.0) / self.largest_weight

    @property
    def unlimited(self) -> tuple[str, ...]:
        """What of clusters and weights nobody limits, in words."""
        known = (
            ("cluster sizes", self.clusters is not None and self.cluster_at_most is None),
            ("weights", self.weights is not None and self.weight_at_most is None),
        )
        return tuple(what for what, there in known if there)

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
            "cluster_at_most": self.cluster_at_most,
            "weight_at_most": self.weight_at_most,
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


def weights_of(values: pd.Series[Any], column: str) -> tuple[FloatArray, float]:
    """(n,) row weights as shares of the largest, and the largest.

    Raises DataError for text, for missing, infinite or negative values, and for all zeros.
    """
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
    if not len(numbers):
        return numbers, 1.0
    # Only what they are to each other matters, and sums of squares of large numbers would overflow.
    largest = float(numbers.max())
    return np.asarray(numbers / largest, np.float64), largest


def design_of(
    clusters: pd.Series[Any] | None,
    weights: pd.Series[Any] | None,
    *,
    cluster: str | None,
    weight: str | None,
    cluster_at_most: int | None = None,
    weight_at_most: float | None = None,
) -> Design | None:
    """The design of rows whose clusters and weights, (n,) each, are the columns of these names; None without either.

    Raises DataError, also where the rows exceed what there can be at most, or where a limit has nothing to limit.
    """
    for limit, flag, column in ((cluster_at_most, "cluster", clusters), (weight_at_most, "weight", weights)):
        if limit is not None and column is None:
            raise DataError(
                f"--{flag}-at-most limits the column of --{flag}: add --{flag} COLUMN.", code="AUD-DATA-VALUES"
            )
    if clusters is None and weights is None:
        return None
    codes = None if clusters is None else clusters_of(clusters, cluster or "clusters")
    shares, largest = (None, 1.0) if weights is None else weights_of(weights, weight or "weights")
    rows = 0 if codes is None or not codes.size else int(np.bincount(codes).max())
    if cluster_at_most is not None and rows > cluster_at_most:
        raise DataError(
            f"A cluster of {cluster!r} has {rows:,} rows, more than --cluster-at-most {cluster_at_most:,}: state the "
            "most that there can be.",
            code="AUD-DATA-VALUES",
        )
    if weight_at_most is not None and not largest <= weight_at_most < math.inf:
        raise DataError(
            f"A row weighs {largest:g} by {weight!r}, more than --weight-at-most {weight_at_most:g}: state the most "
            "that there can be.",
            code="AUD-DATA-VALUES",
        )
    return Design(
        cluster=cluster,
        clusters=codes,
        weight=weight,
        weights=shares,
        largest_weight=largest,
        cluster_at_most=cluster_at_most,
        weight_at_most=weight_at_most,
    )


@dataclass(frozen=True, kw_only=True)
class LogSummary:
    """What the log of an evaluation holds beside its scores.

    ``score``: which of its scores was read. ``entries``: in all, repeats counted; ``errored`` and ``unscored`` of them.
    ``unread``: entries that the log says it has, and has not. ``epochs``: repeats of each sample. ``claims``: what the
    log reports, in words. ``lowest`` and ``highest``: the least and the largest score. ``contradictions``: where the
    log disagrees with itself, each by its kind and a sentence. ``judge``: the model that gave the scores, "" where the
    log names none. ``clustered``: by what it shows that samples belong together, in words, or "".
    """

    score: str = ""
    judge: str = ""
    entries: int = 0
    errored: int = 0
    unscored: int = 0
    unread: int = 0
    epochs: int = 1
    claims: tuple[str, ...] = ()
    lowest: float = 0.0
    highest: float = 1.0
    contradictions: tuple[tuple[str, str], ...] = ()
    clustered: str = ""
