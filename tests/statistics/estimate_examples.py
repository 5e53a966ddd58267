"""Examples of every kind of estimate: a usual one, the emptiest ones, and one whose value can be set for planning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from pydantic import TypeAdapter

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
)
from auditor.statistics.detection import (
    AreaDifference,
    AveragePrecision,
    EqualErrorRate,
    ExcessShare,
    LargestDrop,
    LowestArea,
    MeanPart,
)
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality, CalibrationError, WorstDistance, WorstGap
from auditor.statistics.error_corrected_rates import Corrected, WorstCorrectedDifference
from auditor.statistics.estimate import Estimate, Exact, Undefined, UpperBound
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import (
    LargestDisparity,
    LargestRate,
    RatioToLargest,
    SmallestRate,
    WorstDifference,
    WorstOddsRatio,
    WorstRatio,
)
from auditor.statistics.means import (
    BracketedMean,
    PairedDifference,
    StandardizedDifference,
    StudentT,
    WorstMeanDifference,
    WorstPairedDifference,
)
from auditor.statistics.rank_estimates import AreaUnderCurve, Quantile, TruePositiveRateAt
from auditor.statistics.rates import Difference, Odds, Proportion, RateTable, WeightedSum
from auditor.statistics.significance_tests import ConfirmedCount
from auditor.statistics.values import (
    BoundedMean,
    IdealizedAssociation,
    LargestGap,
    LargestValue,
    RatioBetween,
    RatioOfTotals,
    WorstValueDistance,
    WorstValueGap,
)

ANY: TypeAdapter[Any] = TypeAdapter(AnyEstimate)
KINDS: dict[str, type[Estimate]] = {
    str(member.model_fields["kind"].default): member for member in get_args(get_args(AnyEstimate)[0])
}


@dataclass(frozen=True)
class Examples:
    """One kind's: ``usual``, and ``small``, which have few rows, no spread, or something undefined.

    ``at``: an estimate of the size of ``usual`` whose value is the one given, in expected counts; ``ideal`` and
    ``bound``: what it is held to in planning. ``plans``: which of the two there are, "effect" and "size".
    ``exact``: known without sampling error.
    """

    usual: Estimate
    small: tuple[Estimate, ...]
    ideal: float = 0.0
    bound: float = 0.1
    at: Callable[[float], Estimate] | None = None
    plans: frozenset[str] = frozenset({"effect", "size"})
    exact: bool = False


NO_PLAN: frozenset[str] = frozenset()


def table(k: Any, n: Any) -> RateTable:
    """Rates of counts, which are rounded."""
    return RateTable(rate="r", successes=tuple(round(float(x)) for x in k), n=tuple(int(x) for x in n))


def rates(p: Any, n: Any) -> RateTable:
    return table(np.asarray(p) * np.asarray(n), n)


NOTHING = Undefined(reason="no rows")
EMPTY = table((), ())
HOLED = table((3, 0, 4), (9, 0, 7))
ALONE = table((3,), (9,))
ALL_OR_NONE = table((0, 5), (5, 5))
NONE_AT_ALL = table((0, 0), (30, 50))
N = (400, 500, 900)


def of_difference(v: float) -> RateTable:
    return rates((0.4 + v / 2, 0.4 - v / 2, 0.4), N)


def of_ratio(v: float) -> RateTable:
    return rates((0.5, 0.5 * v, 0.5 * (1.0 + v) / 2), N)


def odds_ratio_at(v: float) -> Estimate:
    low = math.sqrt(v) / (1.0 + math.sqrt(v))
    return WorstOddsRatio(tables=(rates((1.0 - low, low, 0.5), N),))


def area(v: float, m: int = 100, n: int = 120) -> AreaUnderCurve:
    """With the variance of exponential scores (Hanley and McNeil)."""
    q1, q2 = v / (2.0 - v), 2.0 * v**2 / (1.0 + v)
    variance = (v * (1.0 - v) + (m - 1) * (q1 - v**2) + (n - 1) * (q2 - v**2)) / (m * n)
    return AreaUnderCurve(centre=v, standard_error=math.sqrt(variance), n_positive=m, n_negative=n)


def strongest(*parts: AreaUnderCurve) -> StrongestAttack:
    """Attacks of which each has half of the level that is left."""
    return StrongestAttack(
        attacks=tuple(AttackPart(name=f"a{i}", share=0.5 ** (i + 1), estimate=part) for i, part in enumerate(parts))
    )


def true_positives_at(v: float, *, joint: bool = True) -> Estimate:
    above = tuple(min(round(300 * v * j / 40), 300) for j in range(160))
    return TruePositiveRateAt(false_positive_rate=0.1, members_above=above, n_positive=300, n_negative=400, joint=joint)


def equal_errors_at(v: float) -> Estimate:
    """A curve through (v, v), as of scores that are bent so."""
    n, m = 200, 300
    steps = np.linspace(0.0, 1.0, 41)[1:-1]
    alarms = [round(n * v ** (2.0 * s)) for s in steps] if v else [0]
    misses = [round(m * v ** (2.0 - 2.0 * s)) for s in steps] if v else [0]
    return EqualErrorRate(alarms=(n, *alarms, 0), misses=(0, *misses, m), n_positive=m, n_negative=n)


def disparity_at(v: float) -> Estimate:
    n = (400, 300)
    shares = ((0.3 + v, 0.3), (0.4 - v / 2, 0.4), (0.3 - v / 2, 0.3))
    return LargestDisparity(
        parts=tuple(Difference(successes=(round(a * n[0]), round(b * n[1])), n=n) for a, b in shares)
    )


def epsilon_at(v: float) -> Estimate:
    p = np.asarray((0.4 * math.exp(v / 2), 0.4 * math.exp(-v / 2), 0.4))
    return DifferentialFairness(tables=(rates(p, (3000, 3000, 4000)), rates(1.0 - p, (3000, 3000, 4000))))


def entropy_at(v: float) -> Estimate:
    n = 1000

    def of(k: int) -> BenefitInequality:
        return BenefitInequality(order=2.0, below=k, equal=n - k, above=0)

    return of(int(np.argmin([abs(of(k).value - v) for k in range(n)])))


SCORES = (0.05, 0.15, 0.3, 0.45, 0.6, 0.8, 0.95)


def calibration_at(v: float) -> Estimate:
    n = (40, 60, 100, 100, 60, 40, 40)
    off = (round(m * (s + (v if s < 0.5 else -v))) for m, s in zip(n, SCORES, strict=True))
    k = tuple(min(max(x, 0), m) for x, m in zip(off, n, strict=True))
    squares = sum(x * (1.0 - s) ** 2 + (m - x) * s**2 for x, m, s in zip(k, n, SCORES, strict=True)) / sum(n)
    return CalibrationError(successes=k, n=n, mean_scores=SCORES, squared_error=squares)


def pair(centre: float, error: float = 0.02, third: float = 0.004, n: int = 100) -> PairedDifference:
    return PairedDifference(first="a", second="b", centre=centre, standard_error=error, third_moment=third, n=n)


def value(centre: float, third: float = 0.003, n: int = 80, high: float = 1.0) -> BoundedMean:
    return BoundedMean(centre=centre, standard_error=0.02, third_moment=third, n=n, low=0.0, high=high)


def ratio_of(**fields: Any) -> RatioOfTotals:
    return RatioOfTotals(**fields, low=-1.0, high=1.0)


def ratio_at(v: float) -> RatioOfTotals:
    """Of clusters of nearly one size."""
    return ratio_of(first=(8.0 * v, 8.0), second=(6.0, 0.0, 2.0), third=(0.0, 0.0, 0.0, -0.5), n=400, most=12.0)


def influence(error: float = 0.02, third: float = 0.002, n: int = 100) -> MeanPart:
    return MeanPart(standard_error=error, third_moment=third, n=n)


def area_difference_at(v: float, floor: float = 0.0) -> AreaDifference:
    return AreaDifference(
        first=0.6 + v / 2, second=0.6 - v / 2, positives=influence(), negatives=influence(0.03, -0.004, 60), floor=floor
    )


def changed(v: float) -> Estimate:
    return RateChange(before=400, gained=round(60 + 500 * v), lost=round(60 - 500 * v), n=1000)


def clustered(centre: float, n: int = 200, third: float = 1e-7, error: float = 0.02) -> ClusteredMean:
    return ClusteredMean(
        centre=centre,
        standard_error=error,
        third_moment=third,
        degrees_of_freedom=0.8 * n,
        largest_share=1.5 / n,
        effective=0.9 * n,
    )


def in_nats(value: float, n: int = 200) -> ClusteredValue:
    return ClusteredValue(mean=clustered((value + 4.0) / 8.0, n), low=-4.0, high=4.0)


def clusters(*centres: float) -> ClusteredRates:
    return ClusteredRates(
        rate="r", parts=tuple(clustered(c, n) for c, n in zip(centres, (200, 250, 400), strict=False))
    )


FEW = ClusteredRates(rate="r", parts=(clustered(0.2, 5), clustered(0.5)))
NO_CLUSTERS = ClusteredRates(rate="r", parts=(NOTHING, clustered(0.5), NOTHING))
ONE_GROUP = ClusteredRates(rate="r", parts=(clustered(0.3),))
NO_GROUP = ClusteredRates(rate="r", parts=())
NO_SPREAD = ClusteredRates(rate="r", parts=(clustered(0.0, 40, 0.0, 0.0), clustered(1.0, 40, 0.0, 0.0)))
ODD_TABLES = (FEW, NO_CLUSTERS, ONE_GROUP, NO_GROUP, NO_SPREAD)

PAIRED = PairedRates(rate="r", before=(60, 45, 30), gained=(4, 9, 3), lost=(8, 2, 5), n=(100, 90, 70))
UNCHANGED = PairedRates(rate="r", before=(6, 4), gained=(0, 0), lost=(0, 0), n=(10, 9))


def corrected(k: int, candidates: int | None = None, labelled: int = 1) -> Corrected:
    """``labelled``: times the rows of known labels, of which no plan makes more."""
    return Corrected(
        successes=k,
        n=400,
        found=95 * labelled,
        positives=100 * labelled,
        spared=(147 * labelled, 80 * labelled),
        negatives=(150 * labelled, 80 * labelled),
        candidates=candidates,
    )


def corrected_gap_at(v: float) -> Estimate:
    """Two groups whose corrected rates are 0.3 on either side of half the gap, told by rows that err in one of 50."""
    q = [(0.3 + side * v / 2) * 0.93 + 0.02 for side in (1.0, -1.0)]
    return WorstCorrectedDifference(parts=tuple(corrected(round(400 * x), labelled=1_000) for x in q))


EXAMPLES: dict[str, Examples] = {
    "undefined": Examples(NOTHING, (Undefined(reason="-", failed=True),), plans=NO_PLAN),
    "exact": Examples(Exact(known=0.05), (Exact(known=-3.0),), at=lambda v: Exact(known=v), exact=True),
    "upper_bound": Examples(UpperBound(most=3.0), (UpperBound(most=0.0),), plans=NO_PLAN, exact=True),
    "proportion": Examples(
        Proportion(successes=30, n=300),
        (Proportion(successes=0, n=0), Proportion(successes=0, n=1), Proportion(successes=5, n=5)),
        at=lambda v: Proportion(successes=round(300 * v), n=300),
    ),
    "worst_difference": Examples(
        WorstDifference(tables=(of_difference(0.09), rates((0.8, 0.75, 0.82), (200, 90, 80)))),
        tuple(WorstDifference(tables=(t,)) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE, NONE_AT_ALL)),
        bound=0.15,
        at=lambda v: WorstDifference(tables=(of_difference(v),)),
    ),
    "worst_ratio": Examples(
        WorstRatio(tables=(of_ratio(0.82), rates((0.8, 0.75, 0.82), (200, 90, 80)))),
        tuple(WorstRatio(tables=(t,)) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE, NONE_AT_ALL)),
        ideal=1.0,
        bound=0.8,
        at=lambda v: WorstRatio(tables=(of_ratio(v),)),
    ),
    "student_t": Examples(
        StudentT(centre=0.11, standard_error=0.02, degrees_of_freedom=40, scale="logit", lower_limit=0, upper_limit=1),
        (
            StudentT(centre=0.1, standard_error=0.5, degrees_of_freedom=1, lower_limit=0.0, upper_limit=1.0),
            StudentT(centre=0.0, standard_error=0.0, degrees_of_freedom=9, lower_limit=-1.0, upper_limit=1.0),
            StudentT(centre=-7.0, standard_error=2.0, degrees_of_freedom=3),
        ),
        at=lambda v: StudentT(centre=v, standard_error=0.02, degrees_of_freedom=40),
    ),
    "area_under_curve": Examples(
        area(0.58),
        (
            area(0.5, 2, 2),
            area(1.0, 5, 9),
            area(0.0, 9, 5),
            area(0.9, 40, 60).model_copy(update={"third_cumulant": -2e-5}),
        ),
        ideal=0.5,
        bound=0.65,
        at=area,
    ),
    "quantile": Examples(
        Quantile(level=0.9, values=tuple(np.linspace(0.0, 0.2, 120).tolist())),
        (Quantile(level=0.9, values=()), Quantile(level=0.5, values=(0.3,), ceiling=1.0)),
        plans=frozenset({"size"}),
        at=lambda v: Quantile(level=0.9, values=(v,) * 120),
    ),
    "true_positive_rate_at": Examples(
        true_positives_at(0.17),
        (
            TruePositiveRateAt(false_positive_rate=0.1, members_above=(), n_positive=0, n_negative=0, joint=True),
            TruePositiveRateAt(
                false_positive_rate=0.1, members_above=(0, 1, 2, 3), n_positive=3, n_negative=4, joint=True
            ),
            # As earlier versions recorded it.
            TruePositiveRateAt(false_positive_rate=0.1, members_above=(0, 1, 2, 3), n_positive=3, n_negative=4),
            true_positives_at(0.17, joint=False),
        ),
        ideal=0.1,
        bound=0.2,
        at=true_positives_at,
    ),
    "equal_error_rate": Examples(
        EqualErrorRate(alarms=(60, 20, 7, 2, 0), misses=(0, 1, 6, 11, 40), n_positive=40, n_negative=60),
        (
            EqualErrorRate(alarms=(1, 0), misses=(0, 1), n_positive=1, n_negative=1),
            EqualErrorRate(alarms=(9, 0, 0), misses=(0, 0, 7), n_positive=7, n_negative=9),
        ),
        at=equal_errors_at,
    ),
    "average_precision": Examples(
        AveragePrecision(centre=0.85, positives=influence(), negatives=influence(0.03, -0.002, 60)),
        (
            AveragePrecision(centre=1.0, positives=influence(0.0, 0.0, 2), negatives=influence(0.0, 0.0, 2)),
            AveragePrecision(centre=0.5, positives=influence(0.2, 0.1, 3), negatives=influence(0.0, 0.0, 5)),
        ),
        ideal=1.0,
        bound=0.8,
        at=lambda v: AveragePrecision(centre=v, positives=influence(), negatives=influence(0.03, -0.002, 60)),
    ),
    "area_difference": Examples(
        area_difference_at(0.1),
        (
            area_difference_at(0.0, 0.7),
            AreaDifference(first=1.0, second=0.0, positives=influence(0, 0, 2), negatives=influence(0, 0, 2)),
        ),
        bound=0.2,
        at=area_difference_at,
    ),
    "lowest_area": Examples(
        LowestArea(parts=(area(0.7), area(0.8, 60, 60), area(0.75))),
        (
            LowestArea(parts=(area(0.9, 3, 4),)),
            LowestArea(parts=(area(0.7), NOTHING)),
            LowestArea(parts=(NOTHING,)),
            LowestArea(parts=(area(0.7), area(0.9, 5, 6)), uncompared=1),
        ),
        ideal=0.9,
        bound=0.7,
        at=lambda v: LowestArea(parts=(area(v), area((v + 0.9) / 2))),
    ),
    "largest_drop": Examples(
        LargestDrop(parts=(area_difference_at(0.1), area_difference_at(0.05), area_difference_at(-0.2))),
        (
            LargestDrop(parts=(area_difference_at(0.1),)),
            LargestDrop(parts=(area_difference_at(0.1), NOTHING)),
            LargestDrop(parts=(NOTHING,)),
        ),
        bound=0.2,
        at=lambda v: LargestDrop(parts=(area_difference_at(v), area_difference_at(v / 2))),
    ),
    "strongest_attack": Examples(
        strongest(area(0.6), area(0.65), area(0.55)),
        (strongest(area(0.9, 3, 4)), strongest(area(0.5, 2, 2), area(0.7, 3, 4))),
        ideal=0.5,
        bound=0.7,
        at=lambda v: strongest(area(v), area((v + 0.5) / 2)),
    ),
    "excess_share": Examples(
        ExcessShare(successes=30, n=300, promised=0.05),
        (ExcessShare(successes=0, n=0, promised=0.05), ExcessShare(successes=1, n=1, promised=0.2)),
        at=lambda v: ExcessShare(successes=round(300 * (0.05 + v)), n=300, promised=0.05),
    ),
    "difference": Examples(
        Difference(successes=(140, 110), n=(300, 290)),
        (
            Difference(successes=(0, 0), n=(0, 5)),
            Difference(successes=(1, 0), n=(1, 1)),
            Difference(successes=(3, 9), n=(20, 30), family=7),
        ),
        bound=0.2,
        at=lambda v: Difference(successes=(round(300 * (0.4 + v / 2)), round(280 * (0.4 - v / 2))), n=(300, 280)),
    ),
    "weighted_sum": Examples(
        WeightedSum(weights=(0.3, 0.7, -0.4, -0.6), table=rates((0.5, 0.4, 0.3, 0.5), (100, 200, 150, 90))),
        (
            WeightedSum(weights=(0.5, -0.5), table=table((0, 0), (0, 5))),
            WeightedSum(weights=(1.0,), table=table((0,), (1,))),
        ),
        bound=0.2,
        at=lambda v: WeightedSum(
            weights=(0.5, 0.5, -0.5, -0.5),
            table=rates((0.4 + v / 2, 0.4 + v / 2, 0.4 - v / 2, 0.4 - v / 2), (100, 200, 150, 200)),
        ),
    ),
    "at_most": Examples(
        AtMost(successes=80, n=100),
        (AtMost(successes=0, n=0), AtMost(successes=0, n=5), AtMost(successes=5, n=5)),
        ideal=0.95,
        bound=0.8,
        at=lambda v: AtMost(successes=round(500 * v), n=500),
        plans=frozenset({"effect"}),
    ),
    "at_least": Examples(
        AtLeast(successes=20, n=100),
        (AtLeast(successes=0, n=0), AtLeast(successes=0, n=5), AtLeast(successes=5, n=5)),
        ideal=0.05,
        bound=0.2,
        at=lambda v: AtLeast(successes=round(500 * v), n=500),
        plans=frozenset({"effect"}),
    ),
    "bracket": Examples(
        Bracket(proved=70, possible=80, n=100),
        (Bracket(proved=0, possible=0, n=0), Bracket(proved=0, possible=5, n=5), Bracket(proved=5, possible=5, n=5)),
        ideal=0.95,
        bound=0.8,
        at=lambda v: Bracket(proved=round(500 * v), possible=round(500 * v), n=500),
    ),
    "corrected_proportion": Examples(
        corrected(120, candidates=200),
        (
            corrected(120),
            corrected(0, candidates=0),
            Corrected(successes=0, n=0, found=0, positives=0, spared=(0,), negatives=(0,)),
            Corrected(successes=3, n=5, found=1, positives=2, spared=(1,), negatives=(2,), candidates=4),
            Corrected(successes=9, n=9, found=40, positives=40, spared=(40, 50), negatives=(40, 50)),
        ),
        plans=NO_PLAN,
    ),
    "worst_corrected_difference": Examples(
        corrected_gap_at(0.05),
        (
            WorstCorrectedDifference(parts=(corrected(120, candidates=200), corrected(60, candidates=200))),
            WorstCorrectedDifference(parts=(corrected(120),)),
            WorstCorrectedDifference(
                parts=(
                    corrected(9),
                    Corrected(successes=0, n=0, found=0, positives=0, spared=(0,), negatives=(0,)),
                )
            ),
            WorstCorrectedDifference(
                parts=(corrected(9), Corrected(successes=3, n=5, found=1, positives=2, spared=(1,), negatives=(2,)))
            ),
        ),
        at=corrected_gap_at,
        plans=NO_PLAN,
    ),
    "worst_bracket_difference": Examples(
        WorstBracketDifference(proved=rates((0.5, 0.7), (200, 100)), possible=rates((0.6, 0.8), (200, 100))),
        (
            *(WorstBracketDifference(proved=t, possible=t) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE)),
            WorstBracketDifference(proved=table((0, 0), (5, 5)), possible=table((5, 5), (5, 5))),
        ),
        plans=NO_PLAN,
    ),
    "smallest_rate": Examples(
        SmallestRate(table=rates((0.82, 0.9, 0.85), (200, 100, 300))),
        tuple(SmallestRate(table=t) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE)),
        ideal=0.95,
        bound=0.8,
        at=lambda v: SmallestRate(table=rates((v, (1.0 + v) / 2), (300, 400))),
    ),
    "largest_rate": Examples(
        LargestRate(table=rates((0.18, 0.1, 0.15), (200, 100, 300))),
        tuple(LargestRate(table=t) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE)),
        ideal=0.05,
        bound=0.2,
        at=lambda v: LargestRate(table=rates((v, v / 2), (300, 400))),
    ),
    "ratio_to_largest": Examples(
        RatioToLargest(table=rates((0.41, 0.5, 0.3, 0.45), (200, 100, 300, 150)), index=0),
        tuple(RatioToLargest(table=t, index=0) for t in (HOLED, ALONE, ALL_OR_NONE, NONE_AT_ALL)),
        ideal=1.0,
        bound=0.8,
        at=lambda v: RatioToLargest(table=rates((0.5 * v, 0.5, 0.5 * (1.0 + v) / 2), (1400, 1500, 1900)), index=0),
    ),
    "largest_disparity": Examples(
        disparity_at(0.08),
        (
            LargestDisparity(parts=(Difference(successes=(0, 0), n=(0, 5)),)),
            LargestDisparity(parts=(Difference(successes=(2, 3), n=(7, 5)), Difference(successes=(0, 0), n=(0, 5)))),
            LargestDisparity(parts=(Difference(successes=(1, 1), n=(1, 1)),)),
        ),
        bound=0.2,
        at=disparity_at,
    ),
    "odds": Examples(
        Odds(successes=30, failures=90),
        (Odds(successes=0, failures=0), Odds(successes=2, failures=0), Odds(successes=0, failures=1)),
        ideal=1.0,
        bound=2.0,
        plans=NO_PLAN,
    ),
    "worst_odds_ratio": Examples(
        WorstOddsRatio(tables=(of_ratio(0.82), rates((0.8, 0.75, 0.82), (200, 90, 80)))),
        tuple(WorstOddsRatio(tables=(t,)) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE, NONE_AT_ALL)),
        ideal=1.0,
        bound=0.5,
        at=odds_ratio_at,
    ),
    "worst_mean_difference": Examples(
        WorstMeanDifference(tables=(of_difference(0.09), rates((0.8, 0.75, 0.82), (200, 90, 80)))),
        tuple(WorstMeanDifference(tables=(t, t)) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE)),
        bound=0.15,
        at=lambda v: WorstMeanDifference(tables=(of_difference(v), of_difference(v))),
    ),
    "differential_fairness": Examples(
        DifferentialFairness(tables=(of_difference(0.09), of_difference(-0.09))),
        tuple(DifferentialFairness(tables=(t, t)) for t in (EMPTY, HOLED, ALONE, ALL_OR_NONE)),
        bound=0.4,
        at=epsilon_at,
    ),
    "benefit_inequality": Examples(
        BenefitInequality(order=1.0, below=20, equal=250, above=30),
        (
            BenefitInequality(order=2.0, below=0, equal=0, above=0),
            BenefitInequality(order=1.0, below=1, equal=0, above=0),
            BenefitInequality(order=0.5, below=0, equal=4, above=1),
        ),
        bound=0.05,
        at=entropy_at,
    ),
    "calibration_error": Examples(
        calibration_at(0.05),
        (
            CalibrationError(successes=(), n=(), mean_scores=()),
            CalibrationError(successes=(1,), n=(1,), mean_scores=(0.5,)),
            CalibrationError(successes=(0, 9), n=(4, 9), mean_scores=(0.0, 1.0)),
            CalibrationError(successes=(3, 9), n=(10, 10), mean_scores=(0.3, 0.9), squared_error=0.2),
        ),
        bound=0.15,
        at=calibration_at,
    ),
    "worst_gap": Examples(
        WorstGap(parts=(area(0.7), area(0.75, 60, 90), area(0.72))),
        (
            WorstGap(parts=(area(0.7),)),
            WorstGap(parts=(area(0.7), NOTHING)),
            WorstGap(parts=(area(0.7), area(0.9, 5, 6)), uncompared=1),
            WorstGap(parts=(Proportion(successes=1, n=2), Proportion(successes=0, n=3)), largest=None),
        ),
        bound=0.2,
        at=lambda v: WorstGap(parts=(area(0.5 + v / 2), area(0.5 - v / 2), area(0.5))),
    ),
    "worst_distance": Examples(
        WorstDistance(distances=(0.1, 0.2, 0.15), n=(300, 400, 250)),
        (WorstDistance(distances=(1.0,), n=(1, 1)), WorstDistance(distances=(0.0,), n=(2, 900))),
        bound=0.3,
        at=lambda v: WorstDistance(distances=(v, v / 2, v / 2), n=(300, 400, 250)),
    ),
    "confirmed_count": Examples(
        ConfirmedCount(p_values=(0.001, 0.02, 0.9)),
        (ConfirmedCount(p_values=()), ConfirmedCount(p_values=(0.0,)), ConfirmedCount(p_values=(1.0,))),
        bound=1.0,
        plans=NO_PLAN,
    ),
    "worst_paired_difference": Examples(
        WorstPairedDifference(pairs=(pair(0.08), pair(-0.1, 0.03, -0.004), pair(0.02, 0.01, -0.001, 50))),
        (
            WorstPairedDifference(pairs=(pair(0.0, 0.0, 0.0, 2),)),
            WorstPairedDifference(pairs=(pair(0.3),), uncompared=True),
            WorstPairedDifference(pairs=(pair(-1.0, 0.0, 0.0, 7),)),
        ),
        bound=0.2,
        at=lambda v: WorstPairedDifference(pairs=(pair(v), pair(v / 2))),
    ),
    "bracketed_mean": Examples(
        BracketedMean(below=pair(0.08), above=pair(0.12), chance=0.02),
        (
            BracketedMean(below=pair(-0.1, 0.3, 0.01, 3), above=pair(0.2, 0.3, 0.01, 3)),
            BracketedMean(below=pair(0.0, 0.0, 0.0, 2), above=pair(0.0, 0.0, 0.0, 2)),
        ),
        bound=0.2,
        at=lambda v: BracketedMean(below=pair(v), above=pair(v + 0.01), chance=0.01),
    ),
    "standardized_difference": Examples(
        StandardizedDifference(centre=0.3, n_first=40, n_second=60),
        (
            StandardizedDifference(centre=2.0, n_first=4, n_second=4),
            StandardizedDifference(centre=0.0, n_first=2, n_second=2),
            StandardizedDifference(centre=-3.0, n_first=5, n_second=9, within=True),
        ),
        bound=0.8,
        at=lambda v: StandardizedDifference(centre=v, n_first=40, n_second=60),
    ),
    "rate_change": Examples(
        changed(0.02),
        (RateChange(before=0, gained=0, lost=0, n=0), RateChange(before=1, gained=0, lost=0, n=2)),
        bound=0.05,
        at=changed,
    ),
    "gap_change": Examples(
        GapChange(rates=(PAIRED,)),
        (
            GapChange(rates=(UNCHANGED,)),
            GapChange(rates=(PairedRates(rate="r", before=(1,), gained=(0,), lost=(1,), n=(2,)),)),
            GapChange(rates=(PairedRates(rate="r", before=(1, 0), gained=(0, 0), lost=(1, 0), n=(2, 0)),)),
        ),
        plans=NO_PLAN,
    ),
    "bounded_mean": Examples(
        value(0.1),
        (
            BoundedMean(centre=3.0, standard_error=0.0, third_moment=0.0, n=1, low=0.0, high=10.0),
            BoundedMean(centre=0.0, standard_error=0.0, third_moment=0.0, n=9, low=-5.0, high=5.0),
            BoundedMean(centre=4.0, standard_error=1.0, third_moment=2.0, n=30, low=0.0, high=25.0, root=True),
        ),
        ideal=0.1,
        bound=0.2,
        at=value,
    ),
    "clustered_mean": Examples(
        clustered(0.15),
        (clustered(0.3, 5), clustered(0.0, 30, 0.0, 0.0), clustered(1.0, 2_000, 0.0, 0.0)),
        ideal=0.1,
        bound=0.2,
        at=clustered,
    ),
    "clustered_value": Examples(
        in_nats(0.1),
        (
            in_nats(0.3, 5),
            ClusteredValue(mean=clustered(1.0, 30, 0.0, 0.0), low=-4.0, high=4.0),
            ClusteredValue(mean=clustered(0.0, 2_000, 0.0, 0.0), low=2.0, high=3.0),
        ),
        ideal=0.0,
        bound=0.4,
        at=in_nats,
    ),
    "worst_clustered_difference": Examples(
        WorstClusteredDifference(tables=(clusters(0.4, 0.49, 0.45), clusters(0.8, 0.75, 0.82))),
        tuple(WorstClusteredDifference(tables=(t,)) for t in ODD_TABLES),
        bound=0.3,
        at=lambda v: WorstClusteredDifference(tables=(clusters(0.4 + v / 2, 0.4 - v / 2, 0.4),)),
    ),
    "worst_clustered_ratio": Examples(
        WorstClusteredRatio(tables=(clusters(0.8, 0.68, 0.75), clusters(0.8, 0.75, 0.82))),
        tuple(WorstClusteredRatio(tables=(t,)) for t in ODD_TABLES),
        ideal=1.0,
        bound=0.7,
        at=lambda v: WorstClusteredRatio(tables=(clusters(0.8, 0.8 * v, 0.4 * (1.0 + v)),)),
    ),
    "smallest_clustered_rate": Examples(
        SmallestClusteredRate(tables=(clusters(0.82, 0.9, 0.85),)),
        tuple(SmallestClusteredRate(tables=(t,)) for t in ODD_TABLES),
        ideal=0.9,
        bound=0.75,
        at=lambda v: SmallestClusteredRate(tables=(clusters(v, (1.0 + v) / 2),)),
    ),
    "worst_value_gap": Examples(
        WorstValueGap(parts=(value(0.2), value(0.3, 0.002, 50), value(0.22))),
        (
            WorstValueGap(parts=(value(0.2),)),
            WorstValueGap(parts=(value(0.2), NOTHING)),
            WorstValueGap(parts=(value(0.2), value(0.5)), uncompared=2),
            WorstValueGap(parts=(value(0.2, n=1), StudentT(centre=0.1, standard_error=0.1, degrees_of_freedom=1))),
        ),
        bound=0.2,
        at=lambda v: WorstValueGap(parts=(value(0.4 + v / 2), value(0.4 - v / 2), value(0.4))),
    ),
    "largest_value": Examples(
        LargestValue(parts=(value(0.2), value(0.3, 0.002, 50), value(0.22))),
        (
            LargestValue(parts=(value(0.2, n=1),)),
            LargestValue(parts=(value(0.2), NOTHING)),
            LargestValue(parts=(NOTHING,)),
        ),
        ideal=0.1,
        bound=0.2,
        at=lambda v: LargestValue(parts=(value(v), value(v / 2))),
    ),
    "largest_gap": Examples(
        LargestGap(
            gaps=(
                WorstValueGap(parts=(value(0.2), value(0.3, 0.002, 50))),
                WorstValueGap(parts=(value(0.2), value(0.35, 0.004, 60))),
            )
        ),
        (
            LargestGap(gaps=(WorstValueGap(parts=(value(0.2),)),)),
            LargestGap(gaps=(WorstValueGap(parts=(value(0.2, n=1), value(0.3, n=1))),)),
        ),
        bound=0.2,
        at=lambda v: LargestGap(
            gaps=(
                WorstValueGap(parts=(value(0.4 + v / 2), value(0.4 - v / 2))),
                WorstValueGap(parts=(value(0.4), value(0.4 + v / 2))),
            )
        ),
    ),
    "worst_value_distance": Examples(
        WorstValueDistance(distances=(3.0, 1.0, 2.0), n=(300, 400, 250), span=10.0),
        (
            WorstValueDistance(distances=(1.0,), n=(1, 1), span=None),
            WorstValueDistance(distances=(0.0,), n=(1, 900), span=2.0),
        ),
        bound=3.0,
        at=lambda v: WorstValueDistance(distances=(v, v / 2, v / 2), n=(300, 400, 250), span=10.0),
    ),
    "ratio_of_totals": Examples(
        ratio_at(0.1),
        (
            ratio_of(first=(0.0, 1.0), second=(0.0, 0.0, 0.0), third=(0.0, 0.0, 0.0, 0.0), n=2, most=1.0),
            ratio_of(first=(2.0, 2.0), second=(3.0, 3.0, 3.0), third=(1.0, 1.0, 1.0, 1.0), n=9, most=6.0),
            ratio_of(first=(-0.5, 0.5), second=(0.3, -0.3, 0.3), third=(-0.1, 0.1, -0.1, 0.1), n=12, most=12.0),
        ),
        bound=0.3,
        at=ratio_at,
    ),
    "ratio_between": Examples(
        RatioBetween(below=ratio_at(0.05), above=ratio_at(0.15), n_open=20, n=400),
        (
            RatioBetween(
                below=ratio_of(first=(-1.0, 1.0), second=(0.0, 0.0, 0.0), third=(0.0, 0.0, 0.0, 0.0), n=2, most=1.0),
                above=ratio_of(first=(1.0, 1.0), second=(0.0, 0.0, 0.0), third=(0.0, 0.0, 0.0, 0.0), n=2, most=1.0),
                n_open=2,
                n=2,
            ),
            RatioBetween(below=ratio_at(0.1), above=ratio_at(0.1), n_open=1, n=9),
        ),
        plans=NO_PLAN,
    ),
    "idealized_association": Examples(
        IdealizedAssociation(modelling=value(0.9), stereotype=value(0.55)),
        (
            IdealizedAssociation(modelling=value(0.98, 0.0, 2), stereotype=value(0.02, 0.0, 2)),
            IdealizedAssociation(modelling=value(0.0), stereotype=value(0.5)),
        ),
        ideal=100.0,
        bound=80.0,
        plans=NO_PLAN,
    ),
    "exposure": Examples(
        Exposure(at_least_as_likely=30, n=1000, bits=20.0),
        (
            Exposure(at_least_as_likely=0, n=1, bits=20.0),
            Exposure(at_least_as_likely=0, n=1000, bits=30.0, extrapolated=25.0),
            Exposure(at_least_as_likely=2, n=2, bits=1.0),
        ),
        ideal=1.0,
        bound=5.0,
        plans=NO_PLAN,
    ),
}

# Every one of them by a name of its own, for a test's id.
EVERY: dict[str, Estimate] = {
    f"{kind} {i or 'usual'}": estimate
    for kind, examples in EXAMPLES.items()
    for i, estimate in enumerate((examples.usual, *examples.small))
}
