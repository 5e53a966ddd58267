"""Means of dependent or weighted rows: cluster means with their shares of the weight."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.core.number_types import Positive, Share
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.statistics.estimate import Estimate, Undefined
from auditor.statistics.intervals import weighted_mean_reach
from auditor.statistics.rates import MOST_GROUPS

# Below it the clusters say too little of how they vary: the bounds are then the limits themselves.
FEWEST_EFFECTIVE = 6.0
# Below it, of sizes that nobody limits, a kind of cluster that holds a tenth of the weight may well not have been seen:
# with 96 % probability it has been, from so many on, unless its clusters weigh over 34 times what the others do.
FEWEST_UNLIMITED = 1_000.0
_CLUSTERED_TESTS = "t tests with cluster-robust variance (CR2, Satterthwaite's degrees of freedom)"


class ClusteredMean(Estimate):
    """``sum_c s_c y_c`` of independent clusters, each with its share of the weight and a mean in [0, 1]; in [0, 1].

    A cluster is whatever is drawn at once, such as a person with several rows, or a row of its own where rows only
    weigh differently. Shares add up to 1 and are taken as given. With ``e_c = y_c - mean`` and ``S = sum_c s_c^2``,

    - ``standard_error^2 = sum_c s_c^2 e_c^2 / min(1 - s_c, 1 - 2 s_c + S)``: CR2, corrected for what a cluster pulls
      the mean towards itself, for rows that are independent within a cluster and for rows that are all alike there,
      whichever is larger;
    - ``degrees_of_freedom``: Satterthwaite's of that sum for clusters of one variance;
    - ``third_moment = sum_c s_c^3 e_c^3``; ``effective = 1 / S`` clusters;
    - ``largest_share``: the largest that a cluster has, or that one of the largest size there can be would have. It is
      the room for a cluster that was not seen. Of sizes with such a limit the bounds hold for the population that the
      clusters are drawn from, of others given the sizes at hand.

    Bounds by :func:`~auditor.statistics.intervals.weighted_mean_reach`; below FEWEST_EFFECTIVE effective clusters they
    are [0, 1]. Sources: Bell and McCaffrey, Survey Methodology 28 (2002); Pustejovsky and Tipton, J. Bus. Econ. Stat.
    36 (2018); effective size: Kish, Survey Sampling (1965).
    """

    kind_limits = (0.0, 1.0)
    interval_test = _CLUSTERED_TESTS

    kind: Literal["clustered_mean"] = "clustered_mean"
    centre: Share
    standard_error: Share
    third_moment: Annotated[float, Field(ge=-1.0, le=1.0)]
    degrees_of_freedom: Positive
    largest_share: Annotated[float, Field(gt=0.0, le=1.0)]
    effective: Annotated[float, Field(ge=1.0)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.largest_share * self.effective < 1.0 - 1e-9:
            raise ValueError(f"a largest share of {self.largest_share:g} in {self.effective:g} effective clusters")
        return self

    @property
    def value(self) -> float:
        return self.centre

    @property
    def silent(self) -> bool:
        """Whether there are too few clusters to estimate their variation."""
        return self.effective < FEWEST_EFFECTIVE - 1e-9

    def bounds(self, alpha: float) -> tuple[float, float]:
        if self.silent:
            return 0.0, 1.0
        down = self._reach(-1.0, room=self.centre, alpha=alpha)
        up = self._reach(1.0, room=1.0 - self.centre, alpha=alpha)
        return max(self.centre - down, 0.0), min(self.centre + up, 1.0)

    def _reach(self, sign: float, *, room: float, alpha: float) -> float:
        return float(
            weighted_mean_reach(
                standard_error=self.standard_error,
                third_moment=sign * self.third_moment,
                degrees_of_freedom=self.degrees_of_freedom,
                unseen=self.largest_share * room,
                alpha=alpha,
            )
        )

    def standard_error_at(self, ideal: float) -> float:
        return math.nan if self.silent else math.hypot(self.standard_error, self.largest_share)

    def critical_value(self, alpha: float) -> float:
        reach = max(self._reach(sign, room=1.0, alpha=alpha) for sign in (-1.0, 1.0))
        return reach / self.standard_error_at(0.0)


class ClusteredValue(Estimate):
    """Mean of values in [low, high], with their own unit, over clusters; [low, high].

    ``low + (high - low) m``, with ``m`` the :class:`ClusteredMean` of the values put on [0, 1], and bounds likewise: a
    cluster that was not seen may lie at either limit. Values beyond a limit are for whoever makes it to cut off, which
    makes it the mean of the values so cut.
    """

    unbounded = True
    interval_test = _CLUSTERED_TESTS

    kind: Literal["clustered_value"] = "clustered_value"
    mean: ClusteredMean
    low: float
    high: float

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not 1e-100 <= self.high - self.low <= 1e100:
            raise ValueError(f"a range of values from {self.low:g} to {self.high:g}")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def value(self) -> float:
        return self._placed(self.mean.centre)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = self.mean.bounds(alpha)
        return self._placed(low), self._placed(high)

    def standard_error_at(self, ideal: float) -> float:
        return (self.high - self.low) * self.mean.standard_error_at(0.0)

    def critical_value(self, alpha: float) -> float:
        return self.mean.critical_value(alpha)

    def _placed(self, share: float) -> float:
        return self.low + (self.high - self.low) * share


def too_few(estimate: ClusteredMean, clusters: str) -> str:
    """The reason why a number over so many ``clusters`` (in words) may not be judged, in a sentence, or ""."""
    if not estimate.silent:
        return ""
    return (
        f"{clusters} are too few to judge by: they count as {estimate.effective:.3g} (1 / the sum of their squared "
        f"shares), and at least {FEWEST_EFFECTIVE:g} are needed."
    )


def clustered_mean(
    values: npt.ArrayLike, clusters: npt.ArrayLike, weights: npt.ArrayLike | None = None, largest: float = 0.0
) -> ClusteredMean | Undefined:
    """The mean of ``values``, (n,) in [0, 1], over rows of ``clusters``, (n,) whole numbers from 0, with ``weights``.

    ``sum_i w_i x_i / sum_i w_i``. Undefined without weight, or where all of it but a millionth lies in one cluster.
    ``largest``: the most that a cluster can weigh, 0 where nobody says.
    """
    x, codes = np.asarray(values, np.float64), np.asarray(clusters, np.int64)
    w = np.ones(x.size) if weights is None else np.asarray(weights, np.float64)
    total = float(w.sum())
    if not total > 0.0:
        return Undefined(reason="there are no rows to take a rate over (0/0)")
    mass = np.bincount(codes, weights=w)
    won = np.bincount(codes, weights=w * x)[mass > 0.0]
    mass = mass[mass > 0.0]
    if mass.size < 2 and weights is None:
        return Undefined(reason="all rows belong to one cluster, so nobody can tell how clusters vary")
    # The others' weight is then lost in rounding.
    if mass.max() > (1.0 - 1e-6) * total:
        return Undefined(reason="all of the weight lies in one row or cluster, so nobody can tell how they vary")
    return mean_of_clusters(won / mass, mass / total, largest / (total + largest))


def mean_of_clusters(means: FloatArray, shares: FloatArray, unseen: float = 0.0) -> ClusteredMean:
    """:class:`ClusteredMean` of at least two clusters' means and shares, both (n_clusters,).

    ``unseen``: the largest share of a cluster that was not seen, if larger than all of these.
    """
    centre = float(shares @ means)
    spread = spread_between(shares * (means - centre), shares)
    return ClusteredMean(
        centre=min(max(centre, 0.0), 1.0),
        standard_error=min(math.sqrt(spread.variance), 1.0),
        third_moment=spread.third_moment,
        degrees_of_freedom=spread.degrees_of_freedom,
        largest_share=max(spread.largest_share, unseen),
        effective=spread.effective,
    )


class Spread(NamedTuple):
    """Variation of a mean by clusters: see :class:`ClusteredMean`; ``variance``: its squared standard error."""

    variance: float
    third_moment: float
    degrees_of_freedom: float
    largest_share: float
    effective: float


def spread_between(parts: FloatArray, shares: FloatArray, homes: IntArray | None = None) -> Spread:
    """Spread from each cluster's contribution to the mean, ``s_c e_c``, and share ``s_c``, both (n_clusters,).

    ``homes``: (n_clusters,) of a design whose strata have fixed sizes, the stratum of each cluster, from 0; ``e_c`` is
    then from its stratum's mean, and a cluster is compared with those of its stratum alone, of which each has two.
    """
    home = np.zeros(shares.size, np.int64) if homes is None else homes
    # Rounding would leave a spread where there is none.
    added = np.where(np.abs(parts) < 1e-12 * shares, 0.0, parts)
    within = shares / np.bincount(home, weights=shares)[home]
    concentration = np.bincount(home, weights=within**2)[home]
    correction = 1.0 / np.minimum(1.0 - within, 1.0 - 2.0 * within + concentration)
    return Spread(
        variance=float(correction @ added**2),
        third_moment=float((added**3).sum()),
        degrees_of_freedom=satterthwaite(shares**2 * correction, within, home),
        largest_share=min(float(shares.max()), 1.0),
        effective=float(1.0 / (shares @ shares)),
    )


def satterthwaite(a: FloatArray, shares: FloatArray, homes: IntArray) -> float:
    """Degrees of freedom of ``sum_c a_c e_c^2`` for independent clusters of one variance, arguments (n_clusters,).

    ``e_c`` is from the mean of the cluster's stratum, weighted with shares that add up to 1 in each: ``tr(AV)^2 /
    tr(AVAV)`` with ``V = (I - 1s')(I - s1')`` for each stratum, multiplied out so that it takes n steps.
    """
    each = (a, a * shares, a * shares**2, shares**2)
    total, once, twice, concentration = (np.bincount(homes, weights=weights) for weights in each)
    off = concentration[homes] - 2.0 * shares
    square = concentration**2 * total**2 + 2.0 * twice * total - 4.0 * concentration * once * total + 2.0 * once**2
    return float((a @ (1.0 + off)) ** 2 / (square.sum() + a**2 @ (1.0 + 2.0 * off)))


class ClusteredRates(BaseModel):
    """One rate per group, over clusters that may have rows in several groups; ``rate`` is its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rate: str
    parts: Annotated[
        tuple[Annotated[ClusteredMean | Undefined, Field(discriminator="kind")], ...], Field(max_length=MOST_GROUPS)
    ]

    @property
    def defined_rates(self) -> list[ClusteredMean]:
        """The rates that exist."""
        return [part for part in self.parts if isinstance(part, ClusteredMean)]

    @property
    def complete(self) -> bool:
        """Whether there are groups to compare, and the rate exists in every one."""
        return len(self.parts) > 1 and len(self.defined_rates) == len(self.parts)

    def ends(self, alpha: float) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds of the existing rates, (n_known,) each, every one wrong with at most ``alpha``."""
        found = np.asarray([part.bounds(alpha) for part in self.defined_rates], np.float64).reshape(-1, 2)
        return found[:, 0], found[:, 1]


class _OfClusteredRates(Estimate):
    kind_limits = (0.0, 1.0)

    tables: Annotated[tuple[ClusteredRates, ...], Field(min_length=1)]

    @property
    def complete(self) -> bool:
        return all(table.complete for table in self.tables)

    @property
    def _rates(self) -> tuple[ClusteredRates, ...]:
        return self.tables

    @property
    def comparisons(self) -> int:
        return sum(len(table.defined_rates) for table in self._rates)

    def _hardest(self) -> list[ClusteredMean]:
        """The two groups of which least is known."""
        parts = [part for table in self._rates for part in table.defined_rates]
        return sorted(parts, key=lambda part: part.effective)[:2]

    def standard_error_at(self, ideal: float) -> float:
        hardest = self._hardest()
        return math.hypot(*(part.standard_error_at(0.0) for part in hardest)) if len(hardest) == 2 else math.nan

    def critical_value(self, alpha: float) -> float:
        # Two bounds at half the level each, which do not take it that errors cancel.
        hardest = self._hardest()
        reach = sum(part.critical_value(alpha / 2.0) * part.standard_error_at(0.0) for part in hardest)
        return reach / _OfClusteredRates.standard_error_at(self, 0.0)


class WorstClusteredDifference(_OfClusteredRates):
    """Largest difference of a rate between any two groups, over one or several rates; [0, 1], ideal 0.

    What :class:`~auditor.statistics.groups.WorstDifference` is, for rows of clusters or with weights. A cluster may
    have rows in several groups, so nothing is taken of how their rates depend on each other: a pair's bound is made of
    two at half the level each. Upper: the largest of any pair, each at alpha, since the pair that truly is the worst
    must miss. Lower: the largest rate's lower bound less the smallest one's upper, all ends of all rates at alpha over
    twice their number (union bound). A group where a rate is undefined makes the value NaN and the upper bound 1.

    ``between``: the two tables are one rate, of which some rows have no answer: the first counts those as 0 and the
    second as 1. A lower bound of a group is then by the first, an upper one by the second; ``value`` is of the first.
    """

    interval_test = f"{_CLUSTERED_TESTS}, of every pair of groups"

    kind: Literal["worst_clustered_difference"] = "worst_clustered_difference"
    # Left out where it is not so, so that older evidence keeps its digests.
    between: Annotated[bool, Field(exclude_if=operator.not_)] = False

    @model_validator(mode="after")
    def _of_one_rate(self) -> Self:
        if self.between and [len(table.parts) for table in self.tables] != 2 * [len(self.tables[0].parts)]:
            raise ValueError("a rate between two has a table of each, of the same groups")
        return self

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [[part.centre for part in table.defined_rates] for table in self._rates]
        return max(max(own) - min(own) for own in rates)

    @property
    def _rates(self) -> tuple[ClusteredRates, ...]:
        return self.tables[:1] if self.between else self.tables

    def _ends(self, alpha: float) -> Iterator[tuple[FloatArray, FloatArray]]:
        ends = [table.ends(alpha) for table in self.tables if len(table.defined_rates) > 1]
        yield from [(ends[0][0], ends[-1][1])] if self.between and ends else ends

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 0.0, 0.0 if self.complete else 1.0
        for below, above in self._ends(alpha / (2.0 * max(self.comparisons, 1))):
            low = max(low, float(below.max() - above.min()))
        for below, above in self._ends(alpha / 2.0):
            gaps = above[:, None] - below[None, :]
            np.fill_diagonal(gaps, 0.0)
            high = max(high, float(gaps.max()))
        return low, min(high, 1.0)


class WorstClusteredRatio(_OfClusteredRates):
    """Smallest ratio of a rate between any two groups, ``min over i, j of p_i / p_j``; [0, 1], ideal 1.

    What :class:`~auditor.statistics.groups.WorstRatio` is, for rows of clusters or with weights; bounds mirror
    :class:`WorstClusteredDifference`. All rates 0 is 0/0: NaN.
    """

    interval_test = f"{_CLUSTERED_TESTS}, of every pair of groups"

    kind: Literal["worst_clustered_ratio"] = "worst_clustered_ratio"

    @property
    def value(self) -> float:
        if not self.complete:
            return math.nan
        rates = [[part.centre for part in table.defined_rates] for table in self.tables]
        return math.nan if any(max(own) == 0.0 for own in rates) else min(min(own) / max(own) for own in rates)

    def bounds(self, alpha: float) -> tuple[float, float]:
        low, high = 1.0 if self.complete else 0.0, 1.0
        for table in self.tables:
            if len(table.defined_rates) < 2:
                continue
            below, above = table.ends(alpha / (2.0 * self.comparisons))
            high = min(high, float(above.min() / below.max())) if below.max() > 0.0 else high
            below, above = table.ends(alpha / 2.0)
            ratios = below[:, None] / np.maximum(above[None, :], 1e-300)
            np.fill_diagonal(ratios, 1.0)
            low = min(low, float(ratios.min()))
        return low, max(high, low)

    def standard_error_at(self, ideal: float) -> float:
        # Relative to the rate, which is what a ratio is about.
        rates = [part.centre for table in self.tables for part in table.defined_rates]
        typical = sum(rates) / len(rates) if rates else 0.0
        return super().standard_error_at(ideal) / typical if typical > 0.0 else math.nan


class SmallestClusteredRate(_OfClusteredRates):
    """The smallest rate of any group, over rows of clusters or with weights; [0, 1], ideal 1: worst-group accuracy.

    Upper: the smallest upper bound, each at alpha over the number of groups (union bound). Lower: the smallest lower
    bound, each at alpha: to miss, the group that truly is the worst must miss.
    """

    interval_test = f"{_CLUSTERED_TESTS}, of every group"

    kind: Literal["smallest_clustered_rate"] = "smallest_clustered_rate"
    tables: Annotated[tuple[ClusteredRates, ...], Field(min_length=1, max_length=1)]

    @property
    def value(self) -> float:
        (table,) = self.tables
        known = len(table.defined_rates) == len(table.parts) > 0
        return min(part.centre for part in table.defined_rates) if known else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        (table,) = self.tables
        if not table.defined_rates:
            return 0.0, 1.0
        _, above = table.ends(alpha / self.comparisons)
        below, _ = table.ends(alpha)
        # Nothing is known of a group without rows, which may be the smallest itself.
        whole = len(table.defined_rates) == len(table.parts)
        return float(below.min()) if whole else 0.0, float(above.min())

    def standard_error_at(self, ideal: float) -> float:
        return max((part.standard_error_at(0.0) for part in self._hardest()), default=math.nan)

    def critical_value(self, alpha: float) -> float:
        return max((part.critical_value(alpha) for part in self._hardest()), default=math.nan)


Clustered = ClusteredMean | ClusteredValue | WorstClusteredDifference | WorstClusteredRatio | SmallestClusteredRate
CLUSTERED = (ClusteredMean, ClusteredValue, WorstClusteredDifference, WorstClusteredRatio, SmallestClusteredRate)


def fewest_effective(estimate: Clustered) -> float:
    """Effective clusters of the part with the fewest; 0 without any."""
    if isinstance(estimate, ClusteredMean | ClusteredValue):
        parts = [estimate if isinstance(estimate, ClusteredMean) else estimate.mean]
    else:
        parts = [part for table in estimate.tables for part in table.defined_rates]
    return min((part.effective for part in parts), default=0.0)


def rates_of_groups(
    rate: str,
    successes: BoolArray,
    groups: IntArray,
    n_groups: int,
    clusters: IntArray,
    weights: FloatArray | None,
    largest: float = 0.0,
) -> ClusteredRates:
    """The share of rows with ``successes``, (n,), in each group, (n,) of 0 to n_groups - 1, or -1 for rows of none."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(n_groups + 1))
    parts: list[ClusteredMean | Undefined] = []
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        own = order[start:end]
        _, codes = np.unique(clusters[own], return_inverse=True)
        parts.append(clustered_mean(successes[own], codes, None if weights is None else weights[own], largest))
    return ClusteredRates(rate=rate, parts=tuple(parts))


def effective_size(shares: Sequence[float] | FloatArray) -> float:
    """Kish's effective number of clusters or rows with such weights: ``(sum w)^2 / sum w^2``."""
    w = np.asarray(shares, np.float64)
    return float(w.sum() ** 2 / (w**2).sum())
