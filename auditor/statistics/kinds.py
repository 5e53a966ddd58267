"""The closed union of all estimates, by which a record is read back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.statistics.changes import GapChange, RateChange
from auditor.statistics.clusters import (
    ClusteredMean,
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
from auditor.statistics.distances import BenefitInequality, CalibrationError, WorstDistance, WorstGap
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.exposure import Exposure
from auditor.statistics.families import ConfirmedCount
from auditor.statistics.groups import (
    DifferentialFairness,
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
from auditor.statistics.ranks import AreaUnderCurve, Quantile, TruePositiveRateAt
from auditor.statistics.rates import Difference, Odds, Proportion, WeightedSum
from auditor.statistics.upper_bound import UpperBound
from auditor.statistics.values import BoundedMean, LargestGap, LargestValue, WorstValueDistance, WorstValueGap

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
    | WorstClusteredDifference
    | WorstClusteredRatio
    | SmallestClusteredRate,
    Field(discriminator="kind"),
]
