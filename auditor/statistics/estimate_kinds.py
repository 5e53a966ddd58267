"""The closed union of all estimates, used to parse records, and the estimates that a criterion may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.statistics.attack_estimates import (
    AtLeast,
    AtMost,
    Bracket,
    Exposure,
    StrongestAttack,
    WorstBracketDifference,
)
from auditor.statistics.changes import GapChange, RateChange
from auditor.statistics.clusters import (
    ClusteredMean,
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
)
from auditor.statistics.differential_fairness import DifferentialFairness
from auditor.statistics.distribution_distances import BenefitInequality, CalibrationError, WorstDistance, WorstGap
from auditor.statistics.error_corrected_rates import Corrected, WorstCorrectedDifference
from auditor.statistics.estimate import Exact, Undefined, UpperBound
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
    StandardizedDifference,
    StudentT,
    WorstMeanDifference,
    WorstPairedDifference,
)
from auditor.statistics.rank_estimates import AreaUnderCurve, Quantile, TruePositiveRateAt
from auditor.statistics.rates import Difference, Odds, Proportion, WeightedSum
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

AnyEstimate = Annotated[
    Undefined
    | Exact
    | Proportion
    | WorstDifference
    | WorstRatio
    | StudentT
    | AreaUnderCurve
    | Quantile
    | TruePositiveRateAt
    | EqualErrorRate
    | Difference
    | WeightedSum
    | SmallestRate
    | LargestRate
    | RatioToLargest
    | LargestDisparity
    | Odds
    | WorstOddsRatio
    | WorstMeanDifference
    | DifferentialFairness
    | BenefitInequality
    | CalibrationError
    | WorstGap
    | WorstDistance
    | ConfirmedCount
    | WorstPairedDifference
    | BracketedMean
    | StandardizedDifference
    | RateChange
    | GapChange
    | BoundedMean
    | WorstValueGap
    | LargestValue
    | LargestGap
    | WorstValueDistance
    | Exposure
    | UpperBound
    | AveragePrecision
    | AreaDifference
    | LowestArea
    | LargestDrop
    | ExcessShare
    | ClusteredMean
    | ClusteredValue
    | WorstClusteredDifference
    | WorstClusteredRatio
    | SmallestClusteredRate
    | RatioOfTotals
    | RatioBetween
    | IdealizedAssociation
    | AtMost
    | AtLeast
    | Bracket
    | WorstBracketDifference
    | Corrected
    | WorstCorrectedDifference
    | StrongestAttack,
    Field(discriminator="kind"),
]

_WITHOUT_SAMPLES = ("undefined", "exact", "upper_bound")
# Written by hand: a kind is here once tests hold it to the worst that rows can be (tests/statistics/adversaries.py).
JUDGED = frozenset(
    {
        *_WITHOUT_SAMPLES,
        "proportion",
        "excess_share",
        "odds",
        "exposure",
        "difference",
        "weighted_sum",
        "worst_difference",
        "worst_ratio",
        "worst_odds_ratio",
        "worst_mean_difference",
        "worst_gap",
        "differential_fairness",
        "smallest_rate",
        "largest_rate",
        "ratio_to_largest",
        "largest_disparity",
        "benefit_inequality",
        "calibration_error",
        "rate_change",
        "gap_change",
        "confirmed_count",
        "bounded_mean",
        "clustered_mean",
        "clustered_value",
        "worst_clustered_difference",
        "worst_clustered_ratio",
        "smallest_clustered_rate",
        "worst_paired_difference",
        "bracketed_mean",
        "worst_value_gap",
        "largest_gap",
        "largest_value",
        "worst_distance",
        "worst_value_distance",
        "area_under_curve",
        "average_precision",
        "area_difference",
        "lowest_area",
        "largest_drop",
        "equal_error_rate",
        "true_positive_rate_at",
        "quantile",
        "ratio_of_totals",
        "ratio_between",
        "idealized_association",
        "at_most",
        "at_least",
        "bracket",
        "worst_bracket_difference",
        "corrected_proportion",
        "worst_corrected_difference",
        "strongest_attack",
    }
)


def unjudgeable(estimate: AnyEstimate) -> str:
    """The reason why no criterion may use the estimate or a part of it, in a sentence; "" if one may."""
    if estimate.kind not in JUDGED:
        return estimate.unjudgeable
    parts: tuple[AnyEstimate, ...] = (*getattr(estimate, "parts", ()), *getattr(estimate, "gaps", ()))
    return next((why for part in parts if (why := unjudgeable(part))), "")
