"""Adverse impact: the tables of Local Law 144 by hand, and the error rates that the bare four-fifths rule lacks."""

from __future__ import annotations

import math
import tracemalloc
from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact, ttest_ind

from auditor.core.errors import NotApplicableError
from auditor.core.rows import IntArray
from auditor.data.audit_data import AuditData
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Exact
from auditor.statistics.groups import RatioToLargest, WorstRatio
from auditor.statistics.means import StandardizedDifference
from auditor.statistics.rates import Proportion, RateTable
from probes.fairness.adverse_impact import AdverseImpact, fisher_exact_p, standard_deviations
from tests.quantifiers import none_of
from tests.statistics.together import together
from tests.statistics.worlds import WORLDS, misses, most_misses

RNG = np.random.default_rng(0)


def world(scores: object, groups: pd.DataFrame | None, **options: object) -> list[Measurement]:
    X = pd.DataFrame({"score": np.asarray(scores, float)})
    data = AuditData.from_arrays(X, classes=["no", "yes"], positive="yes", sensitive_features=groups)
    model = AuditedModel.from_callable(lambda rows: rows["score"].to_numpy(), classes=["no", "yes"])
    return AdverseImpact(**options).measure(model, data, RNG)  # type: ignore[arg-type]


def pick(found: list[Measurement], metric: str, method: str = "selection_rate", **group: str) -> Measurement:
    [one] = [m for m in found if m.metric == metric and m.method == method and dict(m.group) == group]
    return one


def by_hand() -> tuple[list[float], pd.DataFrame]:
    """40 women of whom 10 are selected, 50 men of whom 20 are, 10 rows of unknown sex of whom all are."""
    scores = [0.9] * 10 + [0.1] * 30 + [0.8] * 20 + [0.2] * 30 + [0.95] * 10
    return scores, pd.DataFrame({"sex": ["f"] * 40 + ["m"] * 50 + [None] * 10})


def test_table_by_hand() -> None:
    found = world(*by_hand())
    assert pick(found, "selection_rate", sex="f").estimate.value == 10 / 40
    assert pick(found, "selection_rate", sex="m").estimate.value == 20 / 50
    assert pick(found, "impact_ratio", sex="f").estimate.value == pytest.approx((10 / 40) / (20 / 50), abs=1e-15)
    assert pick(found, "impact_ratio", sex="m").estimate.value == 1.0
    headline = pick(found, "impact_ratio_min")
    assert headline.estimate.value == pytest.approx(0.625, abs=1e-15)
    assert headline.sensitive == ("sex",)
    assert "m 0.400 (n = 50), f 0.250 (n = 40); unknown: 10" in headline.detail
    unknown = pick(found, "unknown_count")
    assert unknown.estimate == Exact(known=10.0)
    assert unknown.n_samples == 100
    assert none_of(MISSING in m.group.values() for m in found)


def test_scoring_rate_is_the_share_above_the_median_of_all_rows() -> None:
    scores, groups = by_hand()
    found = world(scores, groups)
    above = np.asarray(scores) > np.median(scores)
    rate = pick(found, "scoring_rate", "scoring_rate", sex="f").estimate
    assert rate == Proportion(successes=int(above[:40].sum()), n=40)
    assert "the sample's median score is 0.2" in pick(found, "impact_ratio_min", "scoring_rate").detail


def test_labels_have_no_scoring_rate() -> None:
    _, groups = by_hand()
    labels = [1.0] * 30 + [0.0] * 70
    assert {m.method for m in world(labels, groups)} == {"selection_rate"}
    with pytest.raises(NotApplicableError, match="needs scores"):
        world(labels, groups, methods="scoring_rate")


def test_small_categories_are_flagged_and_shown_whether_excluded_or_not() -> None:
    scores = [0.9] * 60 + [0.1] * 40 + [0.9] * 50 + [0.1] * 50 + [0.1] * 3
    groups = pd.DataFrame({"race": ["a"] * 100 + ["b"] * 100 + ["c"] * 3})
    found = world(scores, groups, methods=["selection_rate"])
    small = pick(found, "impact_ratio", race="c")
    assert small.estimate.value == 0.0
    assert "may be left out of the ratios under 6 RCNY 5-301(d) (3 of 203 categorised rows, under 2%)" in small.detail
    assert pick(found, "impact_ratio_min").estimate.value == 0.0
    without = world(scores, groups, methods=["selection_rate"], exclude_small=True)
    assert pick(without, "selection_rate", race="c").estimate == Proportion(successes=0, n=3)
    assert "left out of the ratios" in pick(without, "selection_rate", race="c").detail
    assert not [m for m in without if m.metric == "impact_ratio" and m.group == {"race": "c"}]
    assert pick(without, "impact_ratio_min").estimate.value == pytest.approx(50 / 60)
    assert "c 0.000 (n = 3, not in the ratio)" in pick(without, "impact_ratio_min").detail


def test_intersection_and_one_row_groups() -> None:
    groups = pd.DataFrame({"sex": list("ffmm"), "race": list("abab")})
    found = world([0.9, 0.1, 0.9, 0.9], groups, methods="selection_rate")
    assert pick(found, "impact_ratio", sex="f", race="b").estimate.value == 0.0
    assert {m.sensitive for m in found if m.metric == "impact_ratio_min"} == {("sex",), ("race",), ("sex", "race")}
    alone = world([0.9, 0.1, 0.9, 0.9], groups, methods="selection_rate", intersections=False)
    assert ("sex", "race") not in {m.sensitive for m in alone}


def test_nothing_selected_is_undefined_not_a_number() -> None:
    found = world([0.1] * 10, pd.DataFrame({"sex": list("ffffffmmmm")}))
    for metric in ("impact_ratio", "impact_ratio_min"):
        for m in (m for m in found if m.metric == metric):
            assert math.isnan(m.estimate.value)
            assert m.estimate.bounds(0.025)[1] >= 1.0


def test_one_category_all_unknown_and_no_rows() -> None:
    found = world([0.9, 0.1], pd.DataFrame({"sex": ["f", "f"]}), methods="selection_rate")
    assert math.isnan(pick(found, "impact_ratio_min").estimate.value)
    assert math.isnan(pick(found, "impact_ratio", sex="f").estimate.value)
    found = world([0.9, 0.1], pd.DataFrame({"sex": [None, None]}), methods="selection_rate")
    assert [m.metric for m in found] == ["unknown_count"]


def test_inputs_that_are_missing_are_named() -> None:
    with pytest.raises(NotApplicableError, match="--sensitive"):
        world([0.9, 0.1], None)
    data = AuditData.from_arrays(
        pd.DataFrame({"score": [0.9]}), classes=["no", "yes"], sensitive_features={"sex": ["f"]}
    )
    model = AuditedModel.from_callable(lambda rows: rows["score"].to_numpy(), classes=["no", "yes"])
    with pytest.raises(NotApplicableError, match="--positive"):
        AdverseImpact().measure(model, data, RNG)


@pytest.mark.parametrize("options", [{"methods": "rate"}, {"methods": []}, {"small": 1.0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="methods|small"):
        AdverseImpact(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_fisher_and_standard_deviations_agree_with_other_implementations(seed: int) -> None:
    from statsmodels.stats.proportion import proportions_ztest

    rng = np.random.default_rng(seed)
    n1, n2 = (int(x) for x in rng.integers(2, 400, 2))
    k1, k2 = int(rng.integers(0, n1 + 1)), int(rng.integers(0, n2 + 1))
    ours = fisher_exact_p(k1, n1, k2, n2)
    assert ours == pytest.approx(fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]).pvalue, rel=1e-9)
    if 0 < k1 + k2 < n1 + n2:
        z, _ = proportions_ztest([k1, k2], [n1, n2])
        assert standard_deviations(k1, n1, k2, n2) == pytest.approx(z, rel=1e-10)


def test_nothing_varies_is_no_evidence() -> None:
    assert fisher_exact_p(0, 5, 0, 7) == 1.0
    assert math.isnan(standard_deviations(0, 5, 0, 7))


def test_detail_carries_the_p_values_it_promises() -> None:
    scores = [0.9] * 40 + [0.1] * 160 + [0.9] * 120 + [0.1] * 80
    found = world(scores, pd.DataFrame({"sex": ["f"] * 200 + ["m"] * 200}), methods="selection_rate")
    measured = pick(found, "impact_ratio", sex="f")
    assert measured.estimate.p_value(0.8, "less") < 1e-4
    assert f"; p = {measured.estimate.p_value(0.8, 'less'):.3g} for a ratio below 0.8" in measured.detail
    assert "standard deviations" in measured.detail and "Fisher" in measured.detail


def test_standardized_mean_difference_is_cohens_d_against_the_most_selected_and_not_judged() -> None:
    rng = np.random.default_rng(4)
    groups = pd.DataFrame({"g": np.repeat(list("abc"), (60, 80, 2))})
    scores = np.clip(rng.normal(np.repeat([0.4, 0.6, 0.5], (60, 80, 2)), 0.1), 0, 1)
    found = world(scores, groups, methods="scoring_rate")
    measured = pick(found, "standardized_mean_difference", "scoring_rate", g="a")
    a, b = scores[:60], scores[60:140]
    pooled = math.sqrt((59 * a.var(ddof=1) + 79 * b.var(ddof=1)) / 138)
    assert measured.estimate.value == pytest.approx((a.mean() - b.mean()) / pooled, abs=1e-12)
    assert "of b" in measured.detail and "display only" in measured.too_few
    assert not [m for m in found if m.metric == "standardized_mean_difference" and m.group == {"g": "b"}]
    # Where both samples are normal with one spread, Student's t: the interval holds 0 exactly where p is at least 5 %.
    for shift in (0.0, 0.3, 0.35, 0.6):
        x, y = rng.normal(shift, 1, 50), rng.normal(0, 1, 70)
        d = (x.mean() - y.mean()) / math.sqrt((49 * x.var(ddof=1) + 69 * y.var(ddof=1)) / 118)
        low, high = StandardizedDifference(centre=d, n_first=50, n_second=70, within=True).bounds(0.025)
        assert (low <= 0.0 <= high) == (ttest_ind(x, y).pvalue >= 0.05)
    only = world([0.1, 0.2, 0.9, 0.9], pd.DataFrame({"g": list("aabb")}), methods="scoring_rate")
    assert math.isfinite(pick(only, "standardized_mean_difference", "scoring_rate", g="a").estimate.value)
    flat = world([0.1, 0.1, 0.9, 0.9, 0.5], pd.DataFrame({"g": list("aabb") + ["c"]}), methods="scoring_rate")
    assert math.isnan(pick(flat, "standardized_mean_difference", "scoring_rate", g="a").estimate.value)


# ---- error rates and power -----------------------------------------------------------------------------------------


def table(k: np.ndarray, n: np.ndarray) -> RateTable:
    return RateTable(rate="selection_rate", successes=tuple(map(int, k)), n=tuple(map(int, n)))


EQUAL = (0.125,) * 8
UNEQUAL = (0.30, 0.30, 0.09, 0.09, 0.06, 0.06, 0.05, 0.05)


def equally_selected(shares: tuple[float, ...]) -> tuple[IntArray, IntArray]:
    """Selected and all of 2,000 rows in 8 cells, each (n_worlds, 8); every row is selected at 20 %."""
    rng = np.random.default_rng(1)
    sizes = rng.multinomial(2000, shares, size=WORLDS)
    return rng.binomial(sizes, 0.2), sizes


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(("shares", "rate_of_alarms"), [(EQUAL, 0.90), (UNEQUAL, 0.96)])
def test_the_bare_four_fifths_rule_cries_wolf_and_ours_does_not(
    shares: tuple[float, ...], rate_of_alarms: float
) -> None:
    selected, sizes = equally_selected(shares)
    rates = selected / sizes
    assert float((rates.min(axis=1) / rates.max(axis=1) < 0.8).mean()) > rate_of_alarms
    found = [WorstRatio(tables=(table(k, n),)) for k, n in zip(selected, sizes, strict=True)]
    alarms = np.asarray(together([partial(one.p_value, 0.8, "less") for one in found])) <= 0.05
    assert alarms.sum() <= most_misses()


@pytest.mark.grid
@pytest.mark.parametrize("shares", [EQUAL, UNEQUAL])
def test_whoever_scans_the_rows_of_the_table_sees_no_wolf_either(shares: tuple[float, ...]) -> None:
    """Any category flagged in a table, each at its share of 5 %."""
    flagged = 0
    # Bounds hold the value of the sample, as other tests see to: where that is not below 0.8 there is no flag.
    for k, n in zip(*equally_selected(shares), strict=True):
        whole = table(k, n)
        parts = [RatioToLargest(table=whole, index=i) for i in np.flatnonzero(k / n < 0.8 * (k / n).max()).tolist()]
        flagged += any(part.bounds(0.05 / 8)[1] < 0.8 for part in parts)
    assert flagged <= most_misses()


@pytest.mark.parametrize("at_top", [1, 7])
def test_errors_at_the_bound_stay_within_five_per_cent(at_top: int) -> None:
    """True ratio exactly 0.8, with one or with seven categories tied for the most selected."""
    n = np.full(8, 400)
    p = np.where(np.arange(8) < at_top, 0.5, 0.45)
    p[7] = 0.4
    drawn = np.random.default_rng(at_top).binomial(n, p, (WORLDS, 8))
    assert max(misses((RatioToLargest(table=table(k, n), index=7) for k in drawn), 0.8)) <= most_misses()


@pytest.mark.slow
def test_power_is_what_the_probe_declares() -> None:
    rows, ratio = AdverseImpact.power
    n = np.full(2, rows)
    drawn = np.random.default_rng(3).binomial(n, [0.5, 0.5 * ratio], (WORLDS, 2))

    def shown(k: Sequence[int] | IntArray) -> bool:
        return WorstRatio(tables=(table(np.asarray(k), n),)).p_value(0.8, "less") <= 0.05

    # What is shown of a count of the second group is shown of every smaller one: where that ends is searched for once.
    seconds = range(int(drawn[:, 1].min()), int(drawn[:, 1].max()) + 1)
    ends = {
        first: seconds[0] + bisect_left(seconds, True, key=lambda second, first=first: not shown((first, second)))
        for first in set(drawn[:, 0].tolist())
    }
    found = np.asarray([second < ends[first] for first, second in drawn.tolist()])
    np.testing.assert_array_equal(found[:50], [shown(k) for k in drawn[:50]])
    assert found.sum() >= 0.8 * WORLDS - 3 * math.sqrt(0.16 * WORLDS)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_scoring_rate_at_the_sample_median(spread: float) -> None:
    """No difference above the median, whether or not the groups' scores are spread alike: 5 % at most are wrong."""
    rng, n = np.random.default_rng(int(spread)), np.full(2, 400)
    scores = rng.normal(0.0, np.repeat([1.0, spread], 400), (WORLDS, 800))
    above = scores > np.median(scores, axis=1, keepdims=True)
    drawn = np.stack([above[:, :400].sum(axis=1), above[:, 400:].sum(axis=1)], axis=1)
    too_low, too_high = misses((WorstRatio(tables=(table(k, n),)) for k in drawn), 1.0)
    assert too_high <= most_misses()
    assert too_low == 0, "there is no ratio above 1"


def test_fishers_p_of_many_rows_takes_no_memory_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that are left out have a probability of 0 to every digit."""
    tables = [(520, 1_000, 480, 1_000), (4_000, 9_000, 1_000, 3_100), (9_000, 9_000, 0, 9_000)]
    whole = [fisher_exact_p(*table) for table in tables]
    monkeypatch.setattr("probes.fairness.adverse_impact._MOST_TABLES", 100)
    assert [fisher_exact_p(*table) for table in tables] == pytest.approx(whole, rel=1e-9, abs=1e-300)
    assert whole[0] > 0.05 and whole[-1] == 0.0
    tracemalloc.start()
    fisher_exact_p(5_000_000, 10_000_000, 5_001_000, 10_000_000)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
