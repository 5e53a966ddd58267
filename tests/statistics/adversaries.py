"""The worst that the rows can be, for every kind that a criterion may be held against: each possible sample, weighed.

A world is enumerated: every sample that it can come to with its probability, and the number that is true in it. So the
probability of a miss is exact at any level, also at those that no simulation reaches. The distributions are the ones
that bounds break on: values at their limits that are hardly ever seen, scores of two or three levels, ties, unequal
sizes, hypotheses of which no two are ever true together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import binom

from auditor.core.rows import FloatArray, IntArray
from auditor.statistics.attack_estimates import (
    AtLeast,
    AtMost,
    AttackPart,
    Bracket,
    Exposure,
    StrongestAttack,
    WorstBracketDifference,
)
from auditor.statistics.changes import GapChange, PairedRates, RateChange
from auditor.statistics.clusters import (
    ClusteredMean,
    ClusteredRates,
    ClusteredValue,
    SmallestClusteredRate,
    WorstClusteredDifference,
    WorstClusteredRatio,
    mean_of_clusters,
)
from auditor.statistics.detection import (
    EqualErrorRate,
    ExcessShare,
    LargestDrop,
    LowestArea,
    area_difference,
    average_precision,
    equal_error_rate,
)
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality, CalibrationError, WorstDistance, WorstGap
from auditor.statistics.error_corrected_rates import Corrected, WorstCorrectedDifference
from auditor.statistics.estimate import Estimate
from auditor.statistics.groups import (
    LargestDisparity,
    LargestRate,
    RatioToLargest,
    SmallestRate,
    WorstDifference,
    WorstOddsRatio,
    WorstRatio,
)
from auditor.statistics.means import BracketedMean, WorstMeanDifference, WorstPairedDifference, paired_difference
from auditor.statistics.rank_estimates import TruePositiveRateAt, area_under_curve, quantile
from auditor.statistics.rates import Difference, Odds, Proportion, RateTable, WeightedSum
from auditor.statistics.significance_tests import ConfirmedCount
from auditor.statistics.values import (
    BoundedMean,
    IdealizedAssociation,
    LargestGap,
    LargestValue,
    RatioBetween,
    WorstValueDistance,
    WorstValueGap,
    bounded_mean,
    ratio_of_totals,
)
from tests.statistics.worlds import OF_REACHES, bounds_of

# Of one question, of one among 24, and of the strictest that profiles come to.
LEVELS = (0.05, 0.05 / 24, 1e-4)
Flags = npt.NDArray[np.bool_]
# Samples less likely than this are left out; what they come to together is counted as missed.
_HARDLY_EVER = 1e-10


@dataclass(frozen=True)
class World:
    """Every sample: its estimate and its probability; and what is true."""

    samples: Sequence[tuple[Any, float]]
    truth: float

    def missed(self, levels: Sequence[float] = LEVELS) -> FloatArray:
        """(n_levels, 2) probabilities that the lower bound is above the truth, and the upper one below it."""
        weight = np.asarray([w for _, w in self.samples])
        slack = 1e-9 * max(1.0, abs(self.truth)) if math.isfinite(self.truth) else 0.0
        told = self._by_their_tests if self._enumerated else self._by_their_bounds
        above, below = told(np.asarray(levels), self.truth + slack, self.truth - slack)
        left_out = max(1.0 - float(weight.sum()), 0.0)
        return np.stack([weight @ above, weight @ below], axis=1) + left_out

    @property
    def _enumerated(self) -> bool:
        """Whether a bound is found by one enumeration after another, and a test of one value by a single one."""
        return {estimate.kind for estimate, _ in self.samples} <= _ENUMERATED

    def _by_their_bounds(self, levels: FloatArray, most: float, least: float) -> tuple[Flags, Flags]:
        estimates = [estimate for estimate, _ in self.samples]
        if {estimate.kind for estimate in estimates} <= {"gap_change", *OF_REACHES}:
            bounds = np.stack([bounds_of(estimates, float(level)) for level in levels], axis=1)
        else:
            bounds = np.stack([_many_bounds(estimate, tuple(levels.tolist())) for estimate in estimates])
        return bounds[..., 0] > most, bounds[..., 1] < least

    def _by_their_tests(self, levels: FloatArray, most: float, least: float) -> tuple[Flags, Flags]:
        """As the bounds, of which one sample in ten is looked at: a bound is where its test begins to say so."""
        p = np.asarray([(e.p_value(most, "greater"), e.p_value(least, "less")) for e, _ in self.samples])
        above, below = p[:, :1] <= levels, p[:, 1:] <= levels
        some = World(self.samples[::10], self.truth)._by_their_bounds(levels, most, least)
        for told, shown, ps in zip((above, below), some, p.T, strict=True):
            edge = (np.abs(ps[::10, None] / levels - 1.0) < 1e-5).any(axis=1)
            assert (told[::10] == shown)[~edge].all()
        return above, below


@lru_cache(maxsize=50_000)
def _many_bounds(estimate: Estimate, levels: tuple[float, ...]) -> FloatArray:
    """Of one sample, which worlds with other odds come to as well."""
    return estimate.many_bounds(np.asarray(levels))


_ENUMERATED = {"difference", "worst_difference", "worst_ratio", "differential_fairness"}


Worlds = Iterator[World]


def counts(n: int, p: float) -> list[tuple[int, float]]:
    """Successes of n rows, each with its probability."""
    weights = binom.pmf(np.arange(n + 1), n, p)
    return [(k, float(w)) for k, w in enumerate(weights) if w > _HARDLY_EVER]


def together(*parts: Sequence[tuple[Any, float]]) -> list[tuple[tuple[Any, ...], float]]:
    """What independent parts come to together."""
    found = ((tuple(x for x, _ in some), math.prod(w for _, w in some)) for some in product(*parts))
    return [(x, w) for x, w in found if w > _HARDLY_EVER]


def sorted_into(n: int, p: Sequence[float]) -> list[tuple[IntArray, float]]:
    """How many of n rows fall into each class, with its probability."""
    if len(p) == 1:
        return [(np.asarray([n]), 1.0)]
    places = [k for k in product(range(n + 1), repeat=len(p) - 1) if sum(k) <= n]
    k = np.asarray([(*some, n - sum(some)) for some in places])
    logs = np.where(k > 0, k * np.log(np.maximum(p, 1e-300)), 0.0).sum(axis=1)
    weights = np.exp(gammaln(n + 1.0) - gammaln(k + 1.0).sum(axis=1) + logs)
    return [(row, float(w)) for row, w in zip(k, weights, strict=True) if w > _HARDLY_EVER]


def worlds_of(samples: Sequence[tuple[Any, float]], make: Callable[[Any], Any], truth: float) -> World:
    return World([(make(x), w) for x, w in samples], truth)


# ---- rates ---------------------------------------------------------------------------------------------------------

RATES = (0.005, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.995)


def table(k: Sequence[int], n: Sequence[int]) -> RateTable:
    return RateTable(rate="r", successes=tuple(map(int, k)), n=tuple(n))


def one_rate(make: Callable[[int, int], Estimate], true: Callable[[float], float]) -> Callable[[], Worlds]:
    def worlds() -> Worlds:
        for n, p in product((7, 40, 300), RATES):
            yield worlds_of(counts(n, p), lambda k, n=n: make(k, n), true(p))

    return worlds


# Sizes of the groups, and their rates: equal ones, one that differs, and rates near 0 and 1.
TWO = [((40, 40), (0.5, 0.5)), ((15, 60), (0.02, 0.2)), ((60, 15), (0.05, 0.05)), ((40, 40), (0.97, 0.8))]
THREE = [((8, 8, 8), (0.5, 0.5, 0.5)), ((6, 8, 10), (0.1, 0.4, 0.4)), ((6, 8, 10), (0.95, 0.95, 0.8))]


def of_groups(
    make: Callable[[RateTable], Estimate], true: Callable[[FloatArray], float], cases: Any = (*TWO, *THREE)
) -> Callable[[], Worlds]:
    def worlds() -> Worlds:
        for n, p in cases:
            samples = together(*(counts(*some) for some in zip(n, p, strict=True)))
            yield worlds_of(samples, lambda k, n=n: make(table(k, n)), true(np.asarray(p)))

    return worlds


def of_two_tables(
    make: Callable[[tuple[RateTable, RateTable]], Estimate], true: Callable[[FloatArray, FloatArray], float]
) -> Callable[[], Worlds]:
    def worlds() -> Worlds:
        n = (4, 6)
        for p, q in (((0.5, 0.5), (0.5, 0.5)), ((0.1, 0.4), (0.95, 0.95))):
            samples = together(*(counts(*some) for some in zip((*n, *n), (*p, *q), strict=True)))
            pair = np.asarray(p), np.asarray(q)
            yield worlds_of(samples, lambda k, n=n: make((table(k[:2], n), table(k[2:], n))), true(*pair))

    return worlds


def shares_of_a_whole() -> Worlds:
    """Rows accepted and rejected, of three groups; a group's disparity is its share of one less that of the other."""
    for rejected, accepted in (((0.3, 0.3, 0.4), (0.3, 0.3, 0.4)), ((0.5, 0.25, 0.25), (0.1, 0.45, 0.45))):
        n = (7, 5)
        samples = together(sorted_into(n[0], rejected), sorted_into(n[1], accepted))

        def disparity(some: tuple[IntArray, IntArray], n: tuple[int, int] = n) -> Estimate:
            pairs = zip(some[0].tolist(), some[1].tolist(), strict=True)
            return LargestDisparity(parts=tuple(Difference(successes=pair, n=n) for pair in pairs))

        yield worlds_of(samples, disparity, max(a - b for a, b in zip(rejected, accepted, strict=True)))


def weighted_sums() -> Worlds:
    for w, p in (((0.5, -0.5), (0.03, 0.2)), ((0.5, 0.5), (0.97, 0.9)), ((0.2, 0.5, -0.7), (0.5, 0.1, 0.95))):
        n = (12, 20, 9)[: len(w)]
        samples = together(*(counts(*some) for some in zip(n, p, strict=True)))
        yield worlds_of(
            samples,
            lambda k, w=w, n=n: WeightedSum(weights=w, table=table(k, n), constant=0.25),
            0.25 + float(np.dot(w, p)),
        )


def inequalities() -> Worlds:
    for order, p in ((1.0, (0.05, 0.9, 0.05)), (2.0, (0.0, 0.95, 0.05)), (1.0, (0.3, 0.4, 0.3)), (2.0, (0.2, 0.8, 0))):
        true = BenefitInequality(order=order, **dict(zip(PARTS, (round(1e9 * x) for x in p), strict=True))).value
        yield worlds_of(
            sorted_into(40, p),
            lambda k, order=order: BenefitInequality(order=order, **dict(zip(PARTS, k.tolist(), strict=True))),
            true,
        )


PARTS = ("below", "equal", "above")


# Of each kind of row its score, its label and its share: scores are drawn with the labels.
CALIBRATIONS: dict[str, tuple[tuple[float, int, float], ...]] = {
    "rare and off by nearly 1": ((0.05, 1, 0.1), (1.0, 1, 0.9)),
    "rarer, beside a small error": ((0.05, 1, 0.02), (0.95, 1, 0.98)),
    "labels against the scores within a bin": ((0.0, 1, 0.5), (0.49, 0, 0.5)),
    "calibrated": ((0.1, 1, 0.06), (0.1, 0, 0.54), (0.8, 1, 0.32), (0.8, 0, 0.08)),
    "off in both": ((0.1, 1, 0.2), (0.1, 0, 0.3), (0.8, 1, 0.3), (0.8, 0, 0.2)),
}


def calibration_of_kinds(k: Sequence[int], kinds: Sequence[tuple[float, int, float]]) -> CalibrationError:
    """The error over two bins of so many rows of each kind."""
    n, s, y = np.asarray(k), *(np.asarray(x) for x in list(zip(*kinds, strict=True))[:2])
    bins = [(s >= 0.5) == above for above in (False, True) if n[(s >= 0.5) == above].sum()]
    return CalibrationError(
        successes=tuple(int((n * y)[own].sum()) for own in bins),
        n=tuple(int(n[own].sum()) for own in bins),
        mean_scores=tuple(float((n * s)[own].sum() / n[own].sum()) for own in bins),
        squared_error=float(n @ (y - s) ** 2 / n.sum()),
    )


def true_calibration(kinds: Sequence[tuple[float, int, float]]) -> float:
    """The error of the population over two bins."""
    return sum(abs(sum(p * (y - s) for s, y, p in kinds if (s >= 0.5) == above)) for above in (False, True))


def calibration() -> Worlds:
    for kinds in CALIBRATIONS.values():
        yield worlds_of(
            sorted_into(40 if len(kinds) < 4 else 16, [p for _, _, p in kinds]),
            lambda k, kinds=kinds: calibration_of_kinds(k, kinds),
            true_calibration(kinds),
        )


def changes() -> Worlds:
    for n, gained, lost in ((40, 0.05, 0.05), (60, 0.02, 0.0), (30, 0.3, 0.05), (60, 0.0, 0.01), (40, 0.5, 0.4)):
        samples = sorted_into(n, (gained, lost, 1.0 - gained - lost))
        yield worlds_of(
            samples,
            lambda k, n=n: RateChange(before=int(k[1]), gained=int(k[0]), lost=int(k[1]), n=n),
            gained - lost,
        )


def gap_changes() -> Worlds:
    """Two groups of few rows, each of which was yes or no and may have moved."""
    for n, first, second in (
        ((6, 6), (0.5, 0.25, 0.25), (0.5, 0.25, 0.25)),
        ((5, 8), (0.1, 0.5, 0.4), (0.7, 0.1, 0.2)),
    ):
        # (failures, successes that stay, failures that become successes)
        samples = together(sorted_into(n[0], first), sorted_into(n[1], second))

        def change(some: tuple[IntArray, IntArray], n: tuple[int, int] = n) -> Estimate:
            before, gained = tuple(int(k[1]) for k in some), tuple(int(k[2]) for k in some)
            return GapChange(rates=(PairedRates(rate="r", before=before, gained=gained, lost=(0, 0), n=n),))

        before, after = abs(first[1] - second[1]), abs(first[1] + first[2] - second[1] - second[2])
        yield worlds_of(samples, change, after - before)


def never_together() -> Worlds:
    """Of m hypotheses without an effect one at most has a small p-value: the case where Bonferroni gives nothing away.

    Each p-value is uniform up to 1 / m and 1 elsewhere.
    """
    for m in (1, 2, 8):
        steps = 20_000
        grid = (np.arange(steps) + 1.0) / (steps * m)
        samples = [(ConfirmedCount(p_values=(float(u), *[1.0] * (m - 1))), 1.0 / steps) for u in grid[:1_500]]
        yield World([*samples, (ConfirmedCount(p_values=(1.0,) * m), 1.0 - 1_500 / steps)], 0.0)


def of_searches(*, proof: bool, attack: bool) -> Callable[[], Worlds]:
    """Rows of which a share is robust; a proof finds ``found`` of those, and an attack breaks so much of the others."""

    def worlds() -> Worlds:
        for n, p, found in product((7, 40), RATES, (1.0, 0.8)):
            shares = (p * found, p * (1.0 - found), (1.0 - p) * (1.0 - found), (1.0 - p) * found)

            def counted(k: IntArray, n: int = n) -> Estimate:
                # Robust rows that are proved, and rows that are left over when the attack is done.
                proved, left = int(k[0]), int(k[:3].sum())
                if proof and attack:
                    return Bracket(proved=proved, possible=left, n=n)
                return AtLeast(successes=proved, n=n) if proof else AtMost(successes=left, n=n)

            yield worlds_of(sorted_into(n, shares), counted, p)

    return worlds


def brackets_apart() -> Worlds:
    """Two groups and three, all rows decided, and with some left over that are all robust in one group and not so in
    another.
    """
    for n, p in (*TWO, *THREE):
        samples = together(*(counts(*some) for some in zip(n, p, strict=True)))
        for left in (0, 2):

            def apart(k: Sequence[int], n: tuple[int, ...] = n, left: int = left) -> Estimate:
                # What truly is robust lies at the upper end in the first group, and at the lower in all others.
                proved = [max(k[0] - left, 0), *k[1:]]
                possible = [k[0], *(min(x + left, m) for x, m in zip(k[1:], n[1:], strict=True))]
                return WorstBracketDifference(proved=table(proved, n), possible=table(possible, n))

            yield worlds_of(samples, apart, spread(np.asarray(p)))


def corrected_shares() -> Worlds:
    """Detectors that hardly miss and hardly err, that are nearly useless, and worse than chance."""
    cases = ((0.0, 0.9, 0.1), (0.3, 0.55, 0.5), (0.5, 1.0, 0.3), (0.95, 0.8, 0.0), (0.2, 0.4, 0.7))
    for pi, se, f in cases:
        samples = together(counts(20, pi * se + (1.0 - pi) * f), counts(8, se), counts(9, 1.0 - f))
        yield worlds_of(
            samples,
            lambda k: Corrected(successes=k[0], n=20, found=k[1], positives=8, spared=(k[2],), negatives=(9,)),
            pi,
        )


def corrected_apart() -> Worlds:
    """Groups that are alike and that are not, of a device that is right of both, and of one that misses some of one."""
    cases = (
        (((0.3, 1.0, 0.0), 12, 60), ((0.3, 1.0, 0.0), 12, 60)),
        (((0.02, 1.0, 0.0), 12, 60), ((0.9, 1.0, 0.0), 12, 60)),
        (((0.5, 0.7, 0.0), 8, 14), ((0.5, 1.0, 0.0), 8, 60)),
    )
    for groups in cases:
        samples = together(
            *(
                part
                for (pi, se, f), n, known in groups
                for part in (counts(n, pi * se + (1.0 - pi) * f), counts(known, se), counts(known, 1.0 - f))
            )
        )

        def apart(k: Sequence[int], groups: Any = groups) -> Estimate:
            parts = (
                Corrected(successes=a, n=n, found=b, positives=m, spared=(c,), negatives=(m,))
                for a, b, c, (_, n, m) in zip(k[::3], k[1::3], k[2::3], groups, strict=True)
            )
            return WorstCorrectedDifference(parts=tuple(parts))

        yield worlds_of(samples, apart, spread(np.asarray([pi for (pi, _, _), _, _ in groups])))


def corrected_without_labels() -> Worlds:
    """Rows of which a device labels some alone, and those that it does not label are all so, or none is."""
    for pi, se, f, absent, so in ((0.3, 0.9, 0.1, 0.3, 1), (0.3, 0.9, 0.1, 0.3, 0), (0.8, 1.0, 0.0, 0.5, 1)):
        said = (1.0 - absent) * (pi * se + (1.0 - pi) * f)
        known = together(counts(8, se), counts(9, 1.0 - f))
        samples = together(sorted_into(12, (said, absent, max(1.0 - said - absent, 0.0))), known)

        def corrected(k: tuple[IntArray, tuple[int, int]]) -> Estimate:
            (said, unlabelled, _), (found, spared) = k[0].tolist(), k[1]
            return Corrected(
                successes=said, n=12, found=found, positives=8, spared=(spared,), negatives=(9,), unlabelled=unlabelled
            )

        yield worlds_of(samples, corrected, (1.0 - absent) * pi + absent * so)


def corrected_candidates() -> Worlds:
    """Rows of which some alone can be told wrongly, in two ways; what is missed is no candidate, or one."""
    for pi, se, f, looks, seen in ((0.0, 1.0, 0.1, 0.5, 1), (0.05, 0.9, 0.05, 0.2, 0)):
        said = pi * se + (1.0 - pi) * looks * f
        quiet = (1.0 - pi) * looks * (1.0 - f) + seen * pi * (1.0 - se)
        shares = (said, quiet, max(1.0 - said - quiet, 0.0))
        known = together(counts(6, se), counts(5, 1.0 - f / 2), counts(4, 1.0 - f / 2))
        samples = together(sorted_into(12, shares), known)

        def corrected(k: tuple[IntArray, tuple[int, int, int]]) -> Estimate:
            (said, quiet, _), (found, *spared) = k[0].tolist(), k[1]
            return Corrected(
                successes=said,
                n=12,
                found=found,
                positives=6,
                spared=tuple(spared),
                negatives=(5, 4),
                candidates=said + quiet,
            )

        yield worlds_of(samples, corrected, pi)


# ---- means ---------------------------------------------------------------------------------------------------------

# Values in [0, 1] and their probabilities: rare at a limit, rare at both, two in the middle, and skewed in the middle.
VALUES: list[tuple[tuple[float, ...], tuple[float, ...]]] = [
    ((0.0, 1.0), (0.995, 0.005)),
    ((0.0, 1.0), (0.97, 0.03)),
    ((0.0, 1.0), (0.8, 0.2)),
    ((0.0, 1.0), (0.5, 0.5)),
    ((0.0, 0.5, 1.0), (0.02, 0.96, 0.02)),
    ((0.0, 0.5, 1.0), (0.0, 0.97, 0.03)),
    ((0.0, 0.1, 1.0), (0.6, 0.37, 0.03)),
    ((0.45, 0.5, 1.0), (0.5, 0.47, 0.03)),
    ((0.0, 0.3, 0.4), (0.01, 0.69, 0.3)),
]


def either_way(cases: Any = VALUES) -> Iterator[tuple[FloatArray, tuple[float, ...]]]:
    for values, p in cases:
        yield np.asarray(values), p
        yield 1.0 - np.asarray(values), p


def spelled(values: FloatArray, k: IntArray) -> FloatArray:
    return np.repeat(values, k)


def one_mean(
    make: Callable[[FloatArray], Any], sizes: Sequence[int] = (2, 12, 50), times: float = 1.0
) -> Callable[[], Worlds]:
    """Of one sample; its mean is what is estimated."""

    def worlds() -> Worlds:
        for n, (values, p) in product(sizes, either_way()):
            mean = float(values @ np.asarray(p))
            yield worlds_of(sorted_into(n, p), lambda k, values=values: make(times * spelled(values, k)), times * mean)

    return worlds


def many_zeros_and_ones() -> Worlds:
    for n, p in product((300, 2_000), RATES):
        samples = counts(n, p)

        def mean(k: int, n: int = n) -> BoundedMean:
            q = k / n
            error = math.sqrt(q * (1.0 - q) / (n - 1))
            third = q * (1.0 - q) * (1.0 - 2.0 * q)
            return BoundedMean(centre=q, standard_error=error, third_moment=third, n=n, low=0.0, high=1.0)

        yield worlds_of(samples, mean, p)


def as_mean(values: FloatArray) -> BoundedMean:
    found = bounded_mean(values, low=0.0, high=1.0)
    assert isinstance(found, BoundedMean)
    return found


def as_root(values: FloatArray) -> Any:
    return bounded_mean(values, low=0.0, high=1.0, root=True)


def roots() -> Worlds:
    for world in one_mean(as_root, sizes=(12,))():
        yield World(world.samples, math.sqrt(world.truth))


def as_pair(values: FloatArray) -> WorstPairedDifference:
    """Of values that are 0 at least, the mean is its own absolute value."""
    return WorstPairedDifference(pairs=(paired_difference(first="a", second="b", differences=values),))


def as_bracket(values: FloatArray) -> BracketedMean:
    part = paired_difference(first="a", second="b", differences=values)
    return BracketedMean(below=part, above=part)


# Rows of each cluster: all the same, or one that is larger than the others.
SIZES = ((12,) * 25, (40, *(10,) * 20), (8, *(1,) * 40), (3,) * 300)


def of_clusters(k: IntArray, large: float, values: FloatArray, sizes: Sequence[int]) -> ClusteredMean:
    """The first cluster's mean is ``large``, the others' are spelled out by their counts."""
    return mean_of_clusters(np.r_[large, spelled(values, k)], np.asarray(sizes, np.float64) / sum(sizes))


def of_one_mind(every: Sequence[Sequence[int]] = SIZES) -> Worlds:
    """All rows of a cluster agree, or nearly do, and hardly any cluster is of the other mind."""
    cases = [case for case in either_way() if case[0].size == 2]
    for sizes, (values, p) in product(every, [*cases, *(case for case in either_way() if case[0].size == 3)]):
        n = len(sizes) - 1
        if values.size == 3 and n > 25:
            continue
        first = [(float(v), w) for v, w in zip(values, p, strict=True) if w > 0.0]
        yield worlds_of(
            together(sorted_into(n, p), first),
            lambda some, values=values, sizes=sizes: of_clusters(some[0], some[1], values, sizes),
            float(values @ np.asarray(p)),
        )


def of_one_mind_in_nats() -> Worlds:
    """The same on [-4, 4], where the mean is near the middle and a cluster that was not seen may lie at either end."""
    for world in of_one_mind(SIZES[1:3]):
        samples = [(ClusteredValue(mean=mean, low=-4.0, high=4.0), weight) for mean, weight in world.samples]
        yield World(samples, 8.0 * world.truth - 4.0)


def clustered_rates(
    make: Callable[[tuple[ClusteredRates, ...]], Estimate], true: Callable[[FloatArray], float]
) -> Callable[[], Worlds]:
    """Two groups of clusters, all rows of which agree."""

    def worlds() -> Worlds:
        ends, sizes = np.asarray([0.0, 1.0]), ((5,) * 20, (8, *(4,) * 20))
        for p in ((0.5, 0.5), (0.03, 0.03), (0.97, 0.9), (0.02, 0.3)):
            sides = [
                [
                    (of_clusters(k, large, ends, own), w)
                    for (k, large), w in together(sorted_into(len(own) - 1, (1.0 - q, q)), [(0.0, 1.0 - q), (1.0, q)])
                ]
                for own, q in zip(sizes, p, strict=True)
            ]
            yield worlds_of(
                together(*sides), lambda parts: make((ClusteredRates(rate="r", parts=parts),)), true(np.asarray(p))
            )

    return worlds


def templates() -> Worlds:
    """Clusters of one row and of many, in which all rows are of one mind or say nothing."""
    for n, types, p in (
        (40, ((1, 1), (-1, 1), (0, 0)), (0.03, 0.9, 0.07)),
        (300, ((1, 1), (-1, 1)), (0.03, 0.97)),
        (40, ((1, 1), (-1, 1), (0, 0)), (0.5, 0.5, 0.0)),
        (15, ((1, 1), (-1, 1), (12, 12), (-12, 12)), (0.4, 0.4, 0.1, 0.1)),
        (25, ((1, 1), (-1, 1), (12, 12)), (0.47, 0.48, 0.05)),
        (15, ((3, 12), (-3, 12), (12, 12), (-1, 2)), (0.3, 0.3, 0.05, 0.35)),
        (8, ((0, 12), (12, 12), (-12, 12)), (0.7, 0.2, 0.1)),
    ):
        a, b = np.asarray(types, np.float64).T

        def ratio(k: IntArray, a: FloatArray = a, b: FloatArray = b) -> Any:
            return ratio_of_totals(
                numerators=np.repeat(a, k), denominators=np.repeat(b, k), most=float(b.max()), low=-1, high=1
            )

        yield worlds_of(sorted_into(n, p), ratio, float((a @ p) / (b @ p)))


def open_templates() -> Worlds:
    """Templates some of whose rows have no answer, (least, largest, rows) each; the truth is either end."""
    for n, types, p in (
        (40, ((-1, 1, 1), (1, 1, 1), (-1, -1, 1)), (0.1, 0.6, 0.3)),
        (40, ((0, 0, 1), (-1, 1, 1)), (0.9, 0.1)),
        (15, ((-12, 12, 12), (1, 1, 1), (-1, -1, 1)), (0.1, 0.45, 0.45)),
    ):
        low, high, b = np.asarray(types, np.float64).T

        def between(k: IntArray, low: FloatArray = low, high: FloatArray = high, b: FloatArray = b) -> Any:
            ends = [
                ratio_of_totals(
                    numerators=np.repeat(a, k), denominators=np.repeat(b, k), most=float(b.max()), low=-1, high=1
                )
                for a in (low, high)
            ]
            return RatioBetween(below=ends[0], above=ends[1], n_open=1, n=int(k.sum()))  # type: ignore[arg-type]

        for end in (low, high):
            yield worlds_of(sorted_into(n, p), between, float((end @ p) / (b @ p)))


def terms() -> Worlds:
    """Target terms of which each has both scores: the two depend on each other."""
    for n, types, p in (
        (25, ((1.0, 0.0), (1.0, 1.0), (0.0, 0.5)), (0.48, 0.48, 0.04)),
        (40, ((1.0, 0.5), (1.0, 1.0), (0.5, 0.0)), (0.9, 0.07, 0.03)),
        (20, ((0.9, 0.4), (0.7, 0.6), (1.0, 0.5)), (0.3, 0.3, 0.4)),
        (40, ((1.0, 1.0), (0.0, 0.0)), (0.97, 0.03)),
    ):
        both = np.asarray(types)

        def score(k: IntArray, both: FloatArray = both) -> Estimate:
            knows, prefers = np.repeat(both, k, axis=0).T
            return IdealizedAssociation(modelling=as_mean(knows), stereotype=as_mean(prefers))

        lms, ss = np.asarray(p) @ both
        yield worlds_of(sorted_into(n, p), score, float(200.0 * lms * min(ss, 1.0 - ss)))


def mirrored(mean: BoundedMean) -> BoundedMean:
    """The mean of the same values with the other sign."""
    return BoundedMean(
        centre=-mean.centre,
        standard_error=mean.standard_error,
        third_moment=-mean.third_moment,
        n=mean.n,
        low=-mean.high,
        high=-mean.low,
    )


def centred(mean: BoundedMean) -> BoundedMean:
    """The mean of the same values less a half."""
    return mean.model_copy(update={"centre": mean.centre - 0.5, "low": mean.low - 0.5, "high": mean.high - 0.5})


def of_two_means(
    make: Callable[[BoundedMean, BoundedMean], Estimate], true: Callable[[float, float], float]
) -> Callable[[], Worlds]:
    """Of two independent samples of zeros and ones, and of one with values between."""

    def worlds() -> Worlds:
        shares = ((0.5, 0.5), (0.02, 0.02), (0.98, 0.98), (0.02, 0.3), (0.9, 0.6))
        rare = ((0.01, 0.0), (0.01, 0.01), (0.05, 0.15))
        for n, (p, q) in (*product(((40, 40), (8, 60)), shares), *product(((200, 25),), rare)):
            samples = together(*(sorted_into(m, (1.0 - x, x)) for m, x in zip(n, (p, q), strict=True)))
            ends = np.asarray([0.0, 1.0])
            yield worlds_of(
                samples, lambda k, ends=ends: make(*(as_mean(spelled(ends, some)) for some in k)), true(p, q)
            )
        middle, p3 = np.asarray([0.0, 0.5, 1.0]), (0.0, 0.95, 0.05)
        samples = together(sorted_into(30, p3), sorted_into(30, p3[::-1]))
        yield worlds_of(samples, lambda k: make(*(as_mean(spelled(middle, some)) for some in k)), true(0.525, 0.475))

    return worlds


# ---- scores --------------------------------------------------------------------------------------------------------

# Scores by level, ascending: the probability of each for a positive and for a negative. Among them a few positives
# below every negative, a few negatives above every positive, both, scores of two values, and nearly all tied.
SCORES: list[tuple[tuple[float, ...], tuple[float, ...]]] = [
    *(((p, 0.0, 1.0 - p), (0.0, 1.0, 0.0)) for p in (0.005, 0.02, 0.05, 0.13, 0.3, 0.5, 0.71, 0.9)),
    *(((0.0, p, 1.0 - p), (0.0, 1.0, 0.0)) for p in (0.02, 0.3)),
    *(((p, 1.0 - p), (1.0 - q, q)) for p, q in ((0.02, 0.02), (0.1, 0.01), (0.01, 0.3), (0.5, 0.45), (0.1, 0.9))),
    *(((p, 0.0, 1.0 - p, 0.0), (0.0, 1.0 - q, 0.0, q)) for p, q in ((0.03, 0.03), (0.1, 0.1), (0.3, 0.02))),
]


def true_area(p: Sequence[float], q: Sequence[float]) -> float:
    below = np.cumsum(q) - 0.5 * np.asarray(q)
    return float(np.asarray(p) @ below)


def leveled(k: IntArray) -> FloatArray:
    return np.repeat(np.arange(k.size, dtype=np.float64), k)


def seen(n: int, p: Sequence[float]) -> list[tuple[IntArray, float]]:
    """Rows by level where at most two levels have any."""
    own = [i for i, x in enumerate(p) if x > 0.0]
    found = []
    for k, w in sorted_into(n, [p[i] for i in own]):
        row = np.zeros(len(p), np.int64)
        row[own] = k
        found.append((row, w))
    return found


def of_scores(
    make: Callable[[FloatArray, FloatArray], Any],
    true: Callable[[Sequence[float], Sequence[float]], float],
    sizes: Sequence[tuple[int, int]],
    cases: Any = SCORES,
) -> Callable[[], Worlds]:
    def worlds() -> Worlds:
        for (m, n), (p, q) in product(sizes, cases):
            samples = together(seen(m, p), seen(n, q))
            yield worlds_of(samples, lambda k: make(leveled(k[0]), leveled(k[1])), true(p, q))

    return worlds


def area(x: FloatArray, y: FloatArray) -> Any:
    return area_under_curve(positives=x, negatives=y)


def below_all() -> Worlds:
    """Positives of which some lie below every negative, of so many negatives that those say nothing of themselves."""
    for m, n in ((400, 4_000), (50, 1_000)):
        for p in (0.01, 0.03, 0.13, 0.37, 0.71, 0.92, 0.945, 0.955):
            yield worlds_of(
                counts(m, p),
                lambda k, m=m, n=n: area(np.where(np.arange(m) < k, -1.0, 1.0), np.zeros(n)),
                1.0 - p,
            )


def against_none(x: FloatArray, y: FloatArray) -> Any:
    """The area's difference from that of scores that say nothing: the same for all rows."""
    return area_difference(first=np.r_[x, y], second=np.zeros(x.size + y.size), positive=_own(x, y))


def against_opposite(x: FloatArray, y: FloatArray) -> Any:
    """From that of scores the other way round, so that one row may be as far from another as can be."""
    scores = np.r_[x, y]
    return area_difference(first=scores, second=-scores, positive=_own(x, y))


def _own(x: FloatArray, y: FloatArray) -> Any:
    return np.arange(x.size + y.size) < x.size


def lowest(x: FloatArray, y: FloatArray) -> Any:
    return LowestArea(parts=(area(x, y),) * 2)


def strongest(x: FloatArray, y: FloatArray) -> Any:
    """Three attacks that see the same."""
    seen = area(x, y)
    parts = zip("abc", (0.5, 0.25, 0.25), strict=True)
    return StrongestAttack(attacks=tuple(AttackPart(name=name, share=share, estimate=seen) for name, share in parts))


def drop(x: FloatArray, y: FloatArray) -> Any:
    return LargestDrop(parts=(against_none(x, y), against_opposite(x, y)))


def areas_apart() -> Worlds:
    """Two groups of rows with scores of their own."""
    n = (10, 6)
    of_one, same = ((0.1, 0.9), (1.0, 0.0)), ((0.5, 0.5), (1.0, 0.0))
    for (p, q), (r, s) in ((of_one, of_one), (of_one, same)):
        sides = [seen(m, some) for m, some in zip((*n, *n), (p, q, r, s), strict=True)]
        samples = together(*sides)
        yield worlds_of(
            samples,
            lambda k: WorstGap(parts=(area(leveled(k[0]), leveled(k[1])), area(leveled(k[2]), leveled(k[3])))),
            abs(true_area(p, q) - true_area(r, s)),
        )


def errors(x: FloatArray, y: FloatArray) -> Any:
    return equal_error_rate(positives=x, negatives=y)


def true_error(p: Sequence[float], q: Sequence[float]) -> float:
    """Of so many rows that the counts are the shares."""
    whole = 10**9
    k, m = (np.round(np.asarray(some) * whole).astype(np.int64) for some in (p, q))
    alarms = np.r_[np.cumsum(m[::-1])[::-1], 0]
    misses = np.r_[0, np.cumsum(k)]
    return EqualErrorRate(
        alarms=tuple(alarms.tolist()),
        misses=tuple(misses.tolist()),
        n_positive=int(k.sum()),
        n_negative=int(m.sum()),
    ).value


def precision(x: FloatArray, y: FloatArray) -> Any:
    return average_precision(positives=x, negatives=y)


def precisions() -> Worlds:
    for m, n in ((100, 100), (12, 60), (30, 200)):
        share = m / (m + n)

        def true(p: Sequence[float], q: Sequence[float], share: float = share) -> float:
            found, others = (np.cumsum(np.asarray(some)[::-1])[::-1] for some in (p, q))
            total = share * found + (1.0 - share) * others
            return float(np.asarray(p) @ np.divide(share * found, total, out=np.zeros(len(p)), where=total > 0.0))

        yield from of_scores(precision, true, ((m, n),))()


def rates_at_a_threshold() -> Worlds:
    """All positives that are found score a hair above the true threshold, or a hair below it, where none is."""
    sizes, both = ((10, 100), (30, 400)), (True, False)
    for (m, n), f, p, above, joint in product(sizes, (0.05, 0.1), (0.02, 0.5, 0.97), both, both):
        samples = together(counts(n, f), counts(m, p))

        def rate(
            some: tuple[int, int], m: int = m, n: int = n, f: float = f, above: bool = above, joint: bool = joint
        ) -> Estimate:
            higher, k = some
            ranks = np.arange(n)
            # Of the negatives that lie above the true threshold all lie above those positives too.
            found = np.where(ranks >= higher, k, 0)
            return TruePositiveRateAt(
                false_positive_rate=f, members_above=tuple(found.tolist()), n_positive=m, n_negative=n, joint=joint
            )

        yield worlds_of(samples, rate, p if above else 0.0)


def middles() -> Worlds:
    """A share of values at 0 that is just the level of the quantile, or just not, and the others at 1."""
    for n, level in product((20, 90), (0.5, 0.95)):
        for p, true in ((level, 0.0), (level - 1e-9, 1.0)):
            yield worlds_of(
                counts(n, p), lambda k, n=n, level=level: quantile((np.arange(n) >= k).astype(float), level), true
            )


def two_levels(make: Callable[[float, tuple[int, int]], Estimate]) -> Callable[[], Worlds]:
    """Samples of zeros and ones, whose distributions are as far apart as the shares of ones are."""

    def worlds() -> Worlds:
        for n, p in TWO:
            samples = together(*(counts(*some) for some in zip(n, p, strict=True)))
            yield worlds_of(samples, lambda k, n=n: make(abs(k[0] / n[0] - k[1] / n[1]), n), abs(p[0] - p[1]))

    return worlds


def spread(p: FloatArray) -> float:
    return float(np.ptp(p))


def smallest_ratio(p: FloatArray) -> float:
    return float(p.min() / p.max())


def odds_ratio(p: FloatArray) -> float:
    odds = p / (1.0 - p)
    return float(odds.min() / odds.max())


def log_ratio(p: FloatArray) -> float:
    return float(max(np.log(p.max() / p.min()), np.log((1.0 - p).max() / (1.0 - p).min())))


FEW = ((100, 100), (12, 60))
ADVERSARIES: dict[str, tuple[Callable[[], Worlds], ...]] = {
    "proportion": (one_rate(lambda k, n: Proportion(successes=k, n=n), lambda p: p),),
    "excess_share": (one_rate(lambda k, n: ExcessShare(successes=k, n=n, promised=0.2), lambda p: p - 0.2),),
    "odds": (one_rate(lambda k, n: Odds(successes=k, failures=n - k), lambda p: p / (1.0 - p)),),
    "exposure": (one_rate(lambda k, n: Exposure(at_least_as_likely=k, n=n, bits=30.0), lambda p: -math.log2(p)),),
    "difference": (
        of_groups(lambda t: Difference(successes=t.successes, n=t.n), lambda p: p[0] - p[1], TWO),
        of_groups(lambda t: Difference(successes=t.successes[::-1], n=t.n[::-1], family=3), lambda p: p[1] - p[0], TWO),
    ),
    "weighted_sum": (weighted_sums,),
    "worst_difference": (of_groups(lambda t: WorstDifference(tables=(t,)), spread),),
    "worst_ratio": (of_groups(lambda t: WorstRatio(tables=(t,)), smallest_ratio),),
    "worst_odds_ratio": (of_groups(lambda t: WorstOddsRatio(tables=(t,)), odds_ratio),),
    "worst_mean_difference": (
        of_two_tables(
            lambda t: WorstMeanDifference(tables=t), lambda p, q: abs(float(np.diff(p)[0] + np.diff(q)[0])) / 2.0
        ),
    ),
    "differential_fairness": (
        of_groups(
            lambda t: DifferentialFairness(
                tables=(t, table([n - k for k, n in zip(t.successes, t.n, strict=True)], t.n))
            ),
            log_ratio,
        ),
    ),
    "at_most": (of_searches(proof=False, attack=True),),
    "at_least": (of_searches(proof=True, attack=False),),
    "bracket": (of_searches(proof=True, attack=True),),
    "worst_bracket_difference": (brackets_apart,),
    "corrected_proportion": (corrected_shares, corrected_candidates, corrected_without_labels),
    "worst_corrected_difference": (corrected_apart,),
    "smallest_rate": (of_groups(lambda t: SmallestRate(table=t), lambda p: float(p.min())),),
    "largest_rate": (of_groups(lambda t: LargestRate(table=t), lambda p: float(p.max())),),
    "ratio_to_largest": (of_groups(lambda t: RatioToLargest(table=t, index=0), lambda p: float(p[0] / p.max())),),
    "largest_disparity": (shares_of_a_whole,),
    "benefit_inequality": (inequalities,),
    "calibration_error": (calibration,),
    "rate_change": (changes,),
    "gap_change": (gap_changes,),
    "confirmed_count": (never_together,),
    "bounded_mean": (one_mean(as_mean), many_zeros_and_ones, roots),
    "worst_paired_difference": (one_mean(as_pair, sizes=(12, 50)),),
    "clustered_mean": (of_one_mind,),
    "clustered_value": (of_one_mind_in_nats,),
    "worst_clustered_difference": (clustered_rates(lambda t: WorstClusteredDifference(tables=t), spread),),
    "worst_clustered_ratio": (clustered_rates(lambda t: WorstClusteredRatio(tables=t), smallest_ratio),),
    "smallest_clustered_rate": (clustered_rates(lambda t: SmallestClusteredRate(tables=t), lambda p: float(p.min())),),
    "bracketed_mean": (one_mean(as_bracket, sizes=(12, 50)),),
    "worst_value_gap": (of_two_means(lambda a, b: WorstValueGap(parts=(a, b)), lambda p, q: abs(p - q)),),
    "largest_gap": (
        of_two_means(
            lambda a, b: LargestGap(gaps=(WorstValueGap(parts=(a, b)), WorstValueGap(parts=(a, b)))),
            lambda p, q: abs(p - q),
        ),
    ),
    "largest_value": (
        of_two_means(lambda a, b: LargestValue(parts=(a, b)), max),
        of_two_means(lambda a, b: LargestValue(parts=(mirrored(a), b), absolute=True), max),
        of_two_means(
            lambda a, b: LargestValue(parts=(centred(a), centred(b)), absolute=True),
            lambda p, q: max(abs(p - 0.5), abs(q - 0.5)),
        ),
    ),
    "worst_gap": (
        of_groups(
            lambda t: WorstGap(
                parts=tuple(Proportion(successes=k, n=n) for k, n in zip(t.successes, t.n, strict=True))
            ),
            spread,
            TWO,
        ),
        areas_apart,
    ),
    "worst_distance": (two_levels(lambda d, n: WorstDistance(distances=(d,), n=n)),),
    "worst_value_distance": (two_levels(lambda d, n: WorstValueDistance(distances=(d,), n=n, span=1.0)),),
    "area_under_curve": (below_all, of_scores(area, true_area, (*FEW, (100, 1_000)))),
    "area_difference": (
        of_scores(against_none, lambda p, q: true_area(p, q) - 0.5, FEW),
        of_scores(against_opposite, lambda p, q: 2.0 * true_area(p, q) - 1.0, FEW),
    ),
    "lowest_area": (of_scores(lowest, true_area, FEW),),
    "strongest_attack": (of_scores(strongest, true_area, FEW),),
    "largest_drop": (of_scores(drop, lambda p, q: max(true_area(p, q) - 0.5, 2.0 * true_area(p, q) - 1.0), FEW),),
    "average_precision": (precisions,),
    "equal_error_rate": (of_scores(errors, true_error, ((20, 20), (12, 60))),),
    "true_positive_rate_at": (rates_at_a_threshold,),
    "quantile": (middles,),
    "ratio_of_totals": (templates,),
    "ratio_between": (open_templates,),
    "idealized_association": (terms,),
}
