"""The power contract: a planted breach of each kind of estimate is found, at a stated number of rows.

Tests of coverage cannot see a bound that is too wide. Here the true value is planted in expected counts, and the
requirement lies three hundredths of the reach beyond the bound as it is now: a bound that is wider by more finds no
breach. A new kind of estimate without a row fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from auditor.judging.criterion import Criterion, Direction
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.statistics.attack_estimates import WorstBracketDifference
from auditor.statistics.changes import GapChange, PairedRates
from auditor.statistics.error_corrected_rates import WorstCorrectedDifference
from auditor.statistics.estimate import Estimate, UpperBound
from auditor.statistics.estimate_kinds import JUDGED
from auditor.statistics.significance_tests import ConfirmedCount
from tests.statistics.estimate_examples import EXAMPLES, KINDS, corrected, rates

ALPHA = 0.05


@dataclass(frozen=True)
class Planted:
    """A true value of a kind's example, or its usual estimate where ``value`` is None, or an ``estimate`` of its own.

    ``most`` and ``least``: requirements that it breaks, which must be found.
    """

    value: float | None = None
    most: float | None = None
    least: float | None = None
    estimate: Estimate | None = None


def planted(value: float | None = None, **required: float) -> Planted:
    return Planted(value, **required)


def given(estimate: Estimate, **required: float) -> Planted:
    return Planted(estimate=estimate, **required)  # type: ignore[arg-type]


def gap_change(before: tuple[int, int], gained: tuple[int, int], lost: tuple[int, int]) -> GapChange:
    """Of two groups of 1,000 rows."""
    return GapChange(rates=(PairedRates(rate="r", before=before, gained=gained, lost=lost, n=(1000, 1000)),))


ROWS: dict[str, tuple[Planted, ...]] = {
    "exact": (planted(0.05, most=0.0499, least=0.0501),),
    "upper_bound": (given(UpperBound(most=3.0), least=3.01),),
    "confirmed_count": (given(ConfirmedCount(p_values=(0.001, 0.024, 0.9)), most=1.0),),
    "gap_change": (
        given(gap_change((500, 500), (200, 10), (10, 110)), most=0.18),
        given(gap_change((700, 400), (10, 100), (200, 10)), least=-0.211),
    ),
    "worst_bracket_difference": (
        given(
            WorstBracketDifference(proved=rates((0.2, 0.8), (200, 100)), possible=rates((0.25, 0.85), (200, 100))),
            most=0.363,
            least=0.785,
        ),
    ),
    "worst_corrected_difference": (
        given(WorstCorrectedDifference(parts=(corrected(300), corrected(60))), most=0.397, least=0.932),
    ),
    "proportion": (planted(0.3, most=0.2551, least=0.348),),
    "worst_difference": (planted(0.3, most=0.2297, least=0.3534),),
    "worst_ratio": (planted(0.3, most=0.241, least=0.3858),),
    "student_t": (planted(0.3, most=0.2653, least=0.3347),),
    "area_under_curve": (planted(0.3, most=0.2344, least=0.375),),
    "quantile": (planted(None, most=0.1694, least=0.1903),),
    "true_positive_rate_at": (planted(0.3, most=0.1914, least=0.4106),),
    "equal_error_rate": (planted(0.3, most=0.247, least=0.3585),),
    "average_precision": (planted(0.3, most=0.2308, least=0.3812),),
    "area_difference": (planted(0.3, most=0.1938, least=0.3812),),
    "lowest_area": (planted(0.3, most=0.2344, least=0.3871),),
    "largest_drop": (planted(0.3, most=0.1757, least=0.3812),),
    "strongest_attack": (planted(0.3, most=0.3025, least=0.4778),),
    "excess_share": (planted(0.3, most=0.2529, least=0.3494),),
    "difference": (planted(0.3, most=0.2322, least=0.3656),),
    "weighted_sum": (planted(0.3, most=0.1869, least=0.4044),),
    "at_most": (planted(0.3, least=0.3367),),
    "at_least": (planted(0.3, most=0.2652),),
    "bracket": (planted(0.3, most=0.2652, least=0.3367),),
    "corrected_proportion": (planted(None, most=0.2042, least=0.3942),),
    "smallest_rate": (planted(0.3, most=0.2551, least=0.357),),
    "largest_rate": (planted(0.3, most=0.2471, least=0.348),),
    "ratio_to_largest": (planted(0.3, most=0.2577, least=0.354),),
    "largest_disparity": (planted(0.3, most=0.2188, least=0.3616),),
    "odds": (planted(None, most=0.2254, least=0.4825),),
    "worst_odds_ratio": (planted(0.3, most=0.2212, least=0.4519),),
    "worst_mean_difference": (planted(0.3, most=0.2213, least=0.3608),),
    "differential_fairness": (planted(0.3, most=0.2198, least=0.3558),),
    "benefit_inequality": (planted(0.3, most=0.2571, least=0.3556),),
    "calibration_error": (planted(0.3, most=0.2052, least=0.3418),),
    "worst_gap": (planted(0.3, most=0.1405, least=0.4034),),
    "worst_distance": (planted(0.3, most=0.16, least=0.3707),),
    "worst_paired_difference": (planted(0.3, most=0.2258, least=0.3444),),
    "bracketed_mean": (planted(0.3, most=0.2438, least=0.3545),),
    "standardized_difference": (
        planted(0.4, most=0.05572),
        planted(0.3, least=0.6188),
    ),
    "rate_change": (planted(0.1, most=0.08138, least=0.1191),),
    "bounded_mean": (planted(0.3, most=0.2611, least=0.3478),),
    "clustered_mean": (planted(0.3, most=0.2633, least=0.341),),
    "clustered_value": (
        planted(0.4, most=0.0869),
        planted(0.3, least=0.6069),
    ),
    "worst_clustered_difference": (planted(0.3, most=0.1882, least=0.3874),),
    "worst_clustered_ratio": (planted(0.3, most=0.2346, least=0.3998),),
    "smallest_clustered_rate": (planted(0.3, most=0.2633, least=0.3481),),
    "worst_value_gap": (planted(0.3, most=0.2037, least=0.3592),),
    "largest_value": (planted(0.3, most=0.2543, least=0.3478),),
    "largest_gap": (planted(0.3, most=0.2091, least=0.3592),),
    "worst_value_distance": (
        planted(1.5, most=0.1004),
        planted(0.3, least=1.0071),
    ),
    "ratio_of_totals": (planted(0.3, most=0.2672, least=0.3296),),
    "ratio_between": (planted(None, most=0.01751, least=0.1815),),
    "idealized_association": (planted(None, most=67.13, least=94.63),),
    "exposure": (planted(None, most=4.615, least=5.544),),
}
# Kinds of which nothing can be a breach.
NONE = {"undefined": "it has no value"}


def estimate_of(kind: str, row: Planted) -> Estimate:
    """The estimate of a row."""
    if row.estimate is not None:
        return row.estimate
    example = EXAMPLES[kind]
    if row.value is None:
        return example.usual
    assert example.at is not None
    return example.at(row.value)


def outcome(estimate: Estimate, direction: Direction, bound: float) -> Outcome:
    """How a requirement of the estimate alone is judged; of a kind that is for display, by its bounds."""
    if estimate.kind not in JUDGED:  # type: ignore[attr-defined]
        low, high = estimate.bounds(ALPHA)
        beyond = low > bound if direction == "at_most" else high < bound
        return Outcome.FAIL if beyond else Outcome.INCONCLUSIVE
    measured = Measurement(metric="m", estimate=estimate, n_samples=1)  # type: ignore[arg-type]
    required = Criterion(metric="m", direction=direction, bound=bound, source="-", set_by="-", set_at="-")
    result = ProbeResult(probe="p", pillar="fairness", citation="", measurements=(measured,))
    (finding,) = judge([result], [required])[0]
    return finding.outcome


def test_every_kind_of_estimate_has_a_row() -> None:
    assert sorted(KINDS.keys() - ROWS.keys() - NONE.keys()) == [], "write a row: a value, and a bound that it breaks"
    assert sorted((ROWS.keys() | NONE.keys()) - KINDS.keys()) == []
    assert [kind for kind, rows in ROWS.items() if not rows] == []


def test_every_class_of_estimates_is_one_of_the_kinds() -> None:
    def below(kind: type[Estimate]) -> Iterator[type[Estimate]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    # A base of several kinds has none of its own.
    named = {each for each in below(Estimate) if not each.__name__.startswith("_")}
    own = {each for each in named if "kind" in each.model_fields and each.__module__.startswith("auditor.")}
    assert own == set(KINDS.values())


@pytest.mark.parametrize("kind", ROWS)
def test_a_planted_breach_is_found(kind: str) -> None:
    for row in ROWS[kind]:
        estimate = estimate_of(kind, row)
        assert estimate.kind == kind  # type: ignore[attr-defined]
        required: list[tuple[Direction, float | None]] = [("at_most", row.most), ("at_least", row.least)]
        assert any(bound is not None for _, bound in required)
        for direction, bound in required:
            if bound is not None:
                assert outcome(estimate, direction, bound) is Outcome.FAIL, (direction, bound, estimate.bounds(ALPHA))


@pytest.mark.parametrize("kind", sorted(ROWS.keys() - {"exact", "upper_bound", "confirmed_count"}))
def test_a_row_is_sharp_a_bound_wider_by_a_tenth_would_not_find_it(kind: str) -> None:
    for row in ROWS[kind]:
        estimate = estimate_of(kind, row)
        low, high = estimate.bounds(ALPHA)
        for end, bound in ((low, row.most), (high, row.least)):
            if bound is not None and math.isfinite(end):
                wider = estimate.value + (end - estimate.value) * 1.1
                assert min(estimate.value, wider) <= bound <= max(estimate.value, wider), (end, bound)
