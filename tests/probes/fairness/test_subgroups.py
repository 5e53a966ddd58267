"""Subgroup discovery: the search against a slow obvious one, and what it confirms where the truth is known."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from auditor.core.errors import DataError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.bins import BinRule, bin_sensitive, bin_values, more_than, parse_bin_rule
from auditor.data.group_counts import MISSING
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.statistics.rates import Difference
from auditor.statistics.significance_tests import ConfirmedCount
from auditor.training.task_executor import tasks_by
from probes.fairness import subgroups
from probes.fairness.subgroups import SubgroupDiscovery, columns_of, greater_p, rank_slices, rates_of
from tests.statistics.worlds import WORLDS, most_misses
from tests.training.test_execute import Backwards


def world(
    rng: np.random.Generator, n: int, gap: float, n_numeric: int = 4, *, sensitive: bool = True
) -> tuple[AuditedModel, AuditData, list[str]]:
    """Errors at 15 %, and ``gap`` more in the youngest quarter of one job in eight: a slice of 3 %."""
    X = pd.DataFrame({"age": rng.integers(18, 78, n).astype(float), "job": rng.choice(list("abcdefgh"), n)})
    for i in range(n_numeric):
        X[f"x{i}"] = rng.normal(size=n)
    planted = ((X["job"] == "c") & (X["age"] < 33)).to_numpy()
    y = rng.integers(0, 2, n)
    wrong = rng.random(n) < 0.15 + gap * planted
    X["predicted"] = np.where(wrong, 1 - y, y).astype(float)
    groups = {"sex": rng.choice(["f", "m"], n)} if sensitive else None
    data = AuditData.from_arrays(X, y, classes=["0", "1"], sensitive_features=groups)
    model = AuditedModel.from_callable(lambda rows: rows["predicted"].to_numpy(), classes=["0", "1"])
    return model, data, [c for c in X.columns if c != "predicted"] + (["sex"] if sensitive else [])


def scan(rng: np.random.Generator, n: int, gap: float, n_numeric: int = 4) -> list[Measurement]:
    model, data, features = world(rng, n, gap, n_numeric)
    return SubgroupDiscovery(features=features).measure(model, data, rng)


# A quarter of the ages lies below 33, so the sample's quartile is 33 or one beside it.
PLANTED = re.compile(r"age in \[18, 3[234]\) & job = c")


def of_the_planted(found: list[Measurement]) -> list[Measurement]:
    return [m for m in found if m.at.get("rate") == "error_rate" and PLANTED.fullmatch(str(m.at.get("slice")))]


def test_search_agrees_with_the_slow_obvious_one() -> None:
    rng = np.random.default_rng(0)
    model, data, features = world(rng, 1500, 0.3, 2)
    columns = columns_of(data, 4, features)
    rates = rates_of(model.decisions(data), data.y_true, data.positive)
    fast = {(s.columns, s.levels, s.rate): s.score for s in rank_slices(columns, rates, 2, 30)}
    slow = {}
    for depth in (1, 2):
        for combination in combinations(range(len(columns)), depth):
            for levels in np.ndindex(*(len(columns[c].levels) for c in combination)):
                inside = np.logical_and.reduce(
                    [columns[c].codes == level for c, level in zip(combination, levels, strict=True)]
                )
                for r, rate in enumerate(rates):
                    of, out = rate.of & inside, rate.of & ~inside
                    if of.sum() < 30 or out.sum() < 30:
                        continue
                    a, b = rate.bad[of].mean(), rate.bad[out].mean()
                    p = rate.bad[rate.of].mean()
                    z = (a - b) / math.sqrt(p * (1 - p) * (1 / of.sum() + 1 / out.sum()))
                    if z > 1.0:
                        slow[combination, tuple(levels), r] = z
    assert fast.keys() == slow.keys()
    for key, z in slow.items():
        assert fast[key] == pytest.approx(z, abs=1e-9)
    scores = list(fast.values())
    assert scores == sorted(scores, reverse=True)


def test_a_long_search_is_handed_out_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data, features = world(np.random.default_rng(0), 1500, 0.3, 2)
    columns = columns_of(data, 4, features)
    columns[0] = replace(columns[0], rest=True)
    rates = rates_of(model.decisions(data), data.y_true, data.positive)
    here, asked = rank_slices(columns, rates, 2, 30), Backwards()
    with tasks_by(asked):
        assert rank_slices(columns, rates, 2, 30) == here and asked.n == 0, "what is short stays here"
        monkeypatch.setattr(subgroups, "LONG", 1)
        monkeypatch.setattr(subgroups, "_OF_A_TASK", 3 * 1500)
        assert rank_slices(columns, rates, 2, 30) == here
    n = len(columns)
    assert len(here) > 20 and asked.n == -(-(n + n * (n - 1) // 2) // 3) > 1


@pytest.mark.parametrize("seed", range(20))
def test_confirmation_is_fishers_exact_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_in, n_out = (int(x) for x in rng.integers(1, 300, 2))
    a, b = int(rng.integers(0, n_in + 1)), int(rng.integers(0, n_out + 1))
    expected = fisher_exact([[a, n_in - a], [b, n_out - b]], alternative="greater").pvalue
    assert greater_p(a, n_in, b, n_out) == pytest.approx(expected, rel=1e-9)


def test_planted_slice_is_confirmed_with_its_gap() -> None:
    found = scan(np.random.default_rng(1), 20_000, 0.3)
    [gap] = of_the_planted(found)
    low, high = gap.estimate.bounds(0.025)
    assert low < 0.3 < high
    assert gap.n_samples == found[0].n_samples == 20_000
    assert isinstance(gap.estimate, Difference) and 150 < gap.estimate.n[0] < 450
    assert "exact p" in gap.detail
    assert found[0].metric == "confirmed_subgroups"
    assert found[0].estimate.value == sum(m.metric == "subgroup_gap" for m in found)


def test_no_seed_halves_the_rows_otherwise_and_other_rows_do() -> None:
    model, data, features = world(np.random.default_rng(2), 4000, 0.3)
    probe = SubgroupDiscovery(features=features)
    first, again, other = (probe.measure(model, data, np.random.default_rng(s)) for s in (5, 5, 6))
    assert first == again == other
    assert probe.measure(model, data.take(slice(100, None)), np.random.default_rng(5)) != first


def test_judged_it_fails_and_never_passes() -> None:
    criterion = Criterion(
        metric="confirmed_subgroups", direction="at_most", bound=0.0, source="test", set_by="test", set_at="today"
    )

    def outcome(gap: float, seed: int) -> Outcome:
        found = scan(np.random.default_rng(seed), 20_000, gap)[:1]
        result = ProbeResult(probe="subgroup_discovery", pillar="fairness", citation="", measurements=tuple(found))
        return judge([result], [criterion])[0][0].outcome

    assert outcome(0.3, 0) is Outcome.FAIL
    assert outcome(0.0, 0) is Outcome.INCONCLUSIVE


def test_without_labels_the_rejections_are_searched() -> None:
    rng = np.random.default_rng(3)
    job = rng.choice(list("abcd"), 4000)
    X = pd.DataFrame({"p": np.where(rng.random(4000) < np.where(job == "a", 0.2, 0.5), 1.0, 0.0), "job": job})
    data = AuditData.from_arrays(X, classes=["0", "1"])
    model = AuditedModel.from_callable(lambda rows: rows["p"].to_numpy(), classes=["0", "1"])
    found = SubgroupDiscovery(features=["job"]).measure(model, data, rng)
    assert [(m.at["rate"], m.at["slice"]) for m in found[1:]] == [("rejection_rate", "job = a")]


def test_texts_are_searched_by_their_groups_alone() -> None:
    rng = np.random.default_rng(4)
    texts = np.asarray(["t"] * 400, object)
    groups = {"sex": rng.choice(["f", "m"], 400)}
    model = AuditedModel.from_callable(lambda rows: np.ones(len(rows)), classes=["0", "1"])
    data = AuditData.from_arrays(texts, rng.integers(0, 2, 400), classes=["0", "1"], sensitive_features=groups)
    assert "searched 1 columns" in SubgroupDiscovery().measure(model, data, rng)[0].detail
    with pytest.raises(NotApplicableError, match="columns to search"):
        SubgroupDiscovery().measure(model, AuditData.from_arrays(texts, classes=["0", "1"]), rng)


def test_too_few_rows_is_undefined_and_no_rows_is_no_crash() -> None:
    rng = np.random.default_rng(5)
    for n in (0, 1, 40):
        model, data, features = world(rng, max(n, 1), 0.0)
        found = SubgroupDiscovery(features=features).measure(model, data.take(slice(0, n)), rng) if n > 1 else []
        for m in found:
            assert math.isnan(m.estimate.value)
            assert m.estimate.bounds(0.05) == (-math.inf, math.inf)


def test_unusable_requests_are_refused() -> None:
    model, data, features = world(np.random.default_rng(6), 100, 0.0)
    for options in ({"depth": 4}, {"bins": 1}, {"top": 0}, {"min_rows": 0}):
        with pytest.raises(ValueError, match="depth|bins"):
            SubgroupDiscovery(**options)  # type: ignore[arg-type]
    with pytest.raises(NotApplicableError, match="no column 'wage'"):
        SubgroupDiscovery(features=["wage"]).measure(model, data, np.random.default_rng(0))
    wide = AuditData.from_arrays(np.random.default_rng(0).normal(size=(50, 120)), classes=["0", "1"])
    with pytest.raises(NotApplicableError, match="combinations"):
        SubgroupDiscovery(depth=3).measure(model, wide, np.random.default_rng(0))


def test_missing_rare_and_numeric_text_columns() -> None:
    n = 3000
    rng = np.random.default_rng(7)
    X = pd.DataFrame({"x": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)), "same": np.ones(n)})
    groups = {"age": [str(a) for a in rng.integers(18, 80, n)], "town": [f"t{int(t)}" for t in rng.zipf(1.5, n) % 90]}
    data = AuditData.from_arrays(X, classes=["0", "1"], sensitive_features=groups)
    x, age, town = columns_of(data, 4)
    assert x.levels[-1] == MISSING and x.condition(len(x.levels) - 1) == f"x = {MISSING}"
    assert age.numeric and len(age.levels) == 4 and age.condition(0).startswith("age in [18, ")
    assert town.rest and len(town.levels) == 21


# ---- bins ----------------------------------------------------------------------------------------------------------


def test_edges_hold_every_value_and_say_which() -> None:
    ages = pd.Series([17, 18, 29.9, 30, 44, 45, 60, 99, None], name="age")
    binned = bin_sensitive(ages, "age=18,30,45,60")
    assert binned.tolist() == [
        "< 18", "[18, 30)", "[18, 30)", "[30, 45)", "[30, 45)", "[45, 60)", ">= 60", ">= 60", MISSING
    ]  # fmt: skip
    assert list(binned.cat.categories) == ["< 18", "[18, 30)", "[30, 45)", "[45, 60)", ">= 60", MISSING]
    assert binned.name == "age" and list(binned.index) == list(ages.index)


def test_quantiles_share_equally_and_agree_with_pandas() -> None:
    values = pd.Series(np.random.default_rng(0).permutation(1000), dtype=float)
    binned = bin_sensitive(values, "x=quantiles:4")
    assert binned.value_counts(sort=False).tolist() == [249, 250, 250, 251]
    assert list(binned.cat.categories) == ["[0, 249)", "[249, 499)", "[499, 749)", "[749, 999]"]


def test_ties_leave_fewer_bins_and_one_value_leaves_one() -> None:
    assert bin_sensitive(pd.Series([7, 7, 7, 7, 8, 8, 8, 8]), "x=quantiles:4").nunique() == 2
    mostly_zero = bin_sensitive(pd.Series([0] * 95 + [3, 4, 5, 6, 7]), "x=quantiles:4")
    assert mostly_zero.tolist() == ["[0, 3)"] * 95 + ["[3, 7]"] * 5
    assert bin_sensitive(pd.Series([3.0, 3.0]), "x=quantiles:4").tolist() == ["[3, 3]", "[3, 3]"]
    assert bin_sensitive(pd.Series([None, None], dtype=object), "x=quantiles:4").tolist() == [MISSING, MISSING]


def test_numbers_as_text_and_infinities() -> None:
    text = pd.Series(["25", " 61 ", MISSING, "", "inf", "-inf"]).astype("category")
    expected = ["< 30", ">= 30", MISSING, MISSING, ">= 30", "< 30"]
    assert bin_sensitive(text, parse_bin_rule("age=30")).tolist() == expected


def test_words_cannot_be_binned() -> None:
    with pytest.raises(DataError, match="'old', which is no number"):
        bin_sensitive(pd.Series(["25", "old"]), "age=30")


@pytest.mark.parametrize(
    "text",
    ["age", "=30", "age=", "age=30,20", "age=30,30", "age=x", "age=quantiles:1", "age=quantiles:x", "age=thirds:3",
     "age=nan", "age=inf"],
)  # fmt: skip
def test_rules_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--bins age="):
        parse_bin_rule(text)


def test_rule_keeps_an_equals_sign_in_the_column() -> None:
    assert parse_bin_rule("a=b=1,2") == BinRule("a=b", edges=(1.0, 2.0))
    codes, labels = bin_values(np.asarray([0.0, 1.5, np.nan]), BinRule("x", edges=(1.0, 2.0)))
    assert codes.tolist() == [0, 1, -1] and labels == ["< 1", "[1, 2)", ">= 2"]


# ---- error rates and power -----------------------------------------------------------------------------------------


def scans(rng: np.random.Generator, n: int, gap: float, worlds: int, n_numeric: int = 4) -> Iterator[list[Measurement]]:
    """The probe's answers in so many worlds of the same features, whose errors and halves are drawn anew.

    A world is a whole search and its confirmation; the bins, which see no label, are made once.
    """
    model, data, features = world(rng, n, gap, n_numeric)
    probe = SubgroupDiscovery(features=features)
    columns = columns_of(data, probe.bins, features)
    planted = ((data.X["job"] == "c") & (data.X["age"] < 33)).to_numpy()
    for _ in range(worlds):
        y = rng.integers(0, 2, n)
        rates = rates_of(np.where(rng.random(n) < 0.15 + gap * planted, 1 - y, y), y, data.positive)
        half = rng.permutation(n) < n // 2
        yield probe._confirm(probe._search(columns, rates, half)[0], columns, rates, ~half)


def test_worlds_of_the_same_features_are_what_the_probe_measures() -> None:
    model, data, features = world(np.random.default_rng(8), 3000, 0.35, 2)
    probe = SubgroupDiscovery(features=features)
    half = np.zeros(3000, bool)
    half[data.order("subgroup_discovery")[:1500]] = True
    columns, rates = columns_of(data, probe.bins, features), rates_of(model.decisions(data), data.y_true, data.positive)
    found, named = probe._search(columns, rates, half)
    again = [*probe._confirm(found, columns, rates, ~half), probe._of_sensitive(named, columns, rates, ~half)]
    assert again == probe.measure(model, data, np.random.default_rng(0)) and len(again) > 2


def by_group(rng: np.random.Generator, n: int, gap: float) -> tuple[AuditedModel, AuditData]:
    """A model that decides by debts, and among those with many for one group more often than for the other."""
    group, debts = rng.choice(["f", "m"], n), rng.choice(["few", "many"], n, p=[0.6, 0.4])
    refused = rng.random(n) < 0.1 + 0.5 * (debts == "many") + gap * ((debts == "many") & (group == "f"))
    X = pd.DataFrame({"debts": debts, "decision": refused.astype(float)})
    data = AuditData.from_arrays(
        X, ["no"] * n, classes=["no", "yes"], positive="yes", sensitive_features={"sex": group}
    )
    return AuditedModel.from_callable(lambda X: 1.0 - np.asarray(X["decision"], float), classes=["no", "yes"]), data


def of_sensitive(gap: float, n: int, seed: int, **options: Any) -> Measurement:
    model, data = by_group(np.random.default_rng(seed), n, gap)
    found = SubgroupDiscovery(features=["debts", "sex"], **options).measure(model, data, np.random.default_rng(0))
    (one,) = [m for m in found if m.metric == "confirmed_sensitive_subgroups"]
    return one


def test_who_differs_in_the_sensitive_feature_alone_is_what_counts() -> None:
    """That debts are refused is no fault; that a group with the same debts is refused more often is one."""
    fair, unfair = of_sensitive(0.0, 4_000, 1), of_sensitive(0.35, 4_000, 1)
    assert fair.estimate.value == 0.0 and unfair.estimate.value >= 1.0
    assert "rejection_rate where debts = many & sex = f" in unfair.detail
    assert "by more than 0.1" in unfair.detail and unfair.ideal == 0.0
    # No more than the margin is no finding, however many rows show it.
    assert of_sensitive(0.05, 20_000, 2).estimate.value == 0.0
    assert of_sensitive(0.05, 20_000, 2, margin=0.0).estimate.value >= 1.0


def test_the_profile_fails_a_group_that_is_worse_off_and_passes_nobody() -> None:
    asked = load_criteria()
    outcomes = {
        gap: {
            f.outcome
            for f in judge([result_of(of_sensitive(gap, 4_000, 3))], asked)[0]
            if f.metric == "confirmed_sensitive_subgroups"
        }
        for gap in (0.0, 0.35)
    }
    assert outcomes == {0.0: {Outcome.NOT_JUDGED}, 0.35: {Outcome.FAIL}}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("worlds", [100, 300])
def test_at_the_margin_a_subgroup_is_confirmed_in_no_more_scans_than_promised(worlds: int) -> None:
    """The true gap is the margin itself, in the slice that is searched first."""
    confirmed = sum(of_sensitive(0.10, 800, seed, min_rows=20).estimate.bounds(0.05)[0] > 0 for seed in range(worlds))
    assert confirmed <= most_misses(worlds=worlds)


def test_without_sensitive_features_there_is_nothing_of_them() -> None:
    model, data = by_group(np.random.default_rng(0), 400, 0.0)
    plain = replace(data, sensitive_features=None)
    found = SubgroupDiscovery(features=["debts"]).measure(model, plain, np.random.default_rng(0))
    assert "confirmed_sensitive_subgroups" not in {m.metric for m in found}
    with pytest.raises(ValueError, match="margin"):
        SubgroupDiscovery(margin=1.0)


def result_of(measured: Measurement) -> ProbeResult:
    return ProbeResult(probe="subgroup_discovery", pillar="fairness", citation="-", measurements=(measured,))


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("worlds", [WORLDS // 5, WORLDS])
def test_null_data_confirm_anything_in_at_most_five_per_cent_of_scans(worlds: int) -> None:
    false = sum(len(found) > 1 for found in scans(np.random.default_rng(8), 3000, 0.0, worlds, 2))
    assert false <= most_misses(worlds=worlds)


def test_slices_picked_elsewhere_are_confirmed_by_chance_in_at_most_five_per_cent_of_worlds() -> None:
    """What decides a scan: ten slices of one half of the rows, none of which is worse, tested together."""
    rng, sizes = np.random.default_rng(12), np.asarray([300] * 5)
    # Five slices apart from each other, and the same five for a second rate.
    bad = rng.binomial(sizes, np.asarray([[0.15], [0.5]]), (WORLDS, 2, 5))
    false = 0
    for world in bad:
        tests = [greater_p(int(k), 300, int(rate.sum() - k), 1200) for rate in world for k in rate]
        false += ConfirmedCount(p_values=tuple(tests)).bounds(0.05)[0] > 0.0
    assert false <= most_misses()


def test_gaps_of_confirmed_slices_are_covered_although_they_were_picked() -> None:
    """In worlds with a real gap every confirmed slice's bounds must hold: the picking is paid for by ``family``."""
    missed = confirmed = 0
    for found in scans(np.random.default_rng(9), 6000, 0.35, 200):
        for m in of_the_planted(found):
            low, high = m.estimate.bounds(0.025)
            missed += not low <= 0.35 <= high
            confirmed += 1
    assert confirmed >= 60 and missed <= most_misses(worlds=confirmed)


@pytest.mark.slow
def test_gaps_that_were_only_just_confirmed_are_covered_too() -> None:
    """A slice of 40 rows with a gap of 0.2, which is confirmed where it happens to look larger than it is."""
    rng = np.random.default_rng(13)
    missed = confirmed = 0
    for inside, outside in zip(rng.binomial(40, 0.35, WORLDS), rng.binomial(2000, 0.15, WORLDS), strict=True):
        if greater_p(int(inside), 40, int(outside), 2000) <= 0.005:
            low, high = Difference(successes=(inside, outside), n=(40, 2000), family=10).bounds(0.025)
            missed += not low <= 0.2 <= high
            confirmed += 1
    assert 0.5 * WORLDS < confirmed < 0.9 * WORLDS
    # Over all worlds, since a slice that is not confirmed has no bounds that could miss.
    assert missed <= most_misses()


def test_planted_slice_is_found_in_eighty_per_cent_of_worlds() -> None:
    rows, gap = SubgroupDiscovery.power
    assert sum(bool(of_the_planted(found)) for found in scans(np.random.default_rng(10), rows, gap, 10)) >= 8


@pytest.mark.slow
def test_planted_slice_is_found_in_eighty_per_cent_of_worlds_of_many_features() -> None:
    rows, gap = SubgroupDiscovery.power
    assert sum(bool(of_the_planted(found)) for found in scans(np.random.default_rng(11), rows, gap, 50, 8)) >= 40


def test_confirmed_count_is_holms_and_nested_in_alpha() -> None:
    estimate = ConfirmedCount(p_values=(0.001, 0.012, 0.03, 0.9))
    assert estimate.value == 2.0
    assert [estimate.bounds(a)[0] for a in (0.001, 0.01, 0.05, 0.2)] == [0.0, 1.0, 2.0, 3.0]
    assert estimate.p_value(0.0, "greater") == pytest.approx(0.004, rel=1e-3)
    assert estimate.p_value(0.0, "less") == 1.0


@pytest.mark.parametrize("late", [3.0, 2.0, np.nan])
def test_a_value_that_comes_late_counts(late: float) -> None:
    """Most columns show by their first rows that they take more than a few values; one may not."""
    values = np.tile([1.0, 2.0, np.nan], 1_000)
    values[-1] = late
    assert more_than(2, values) == (late == 3.0) and more_than(1, values[:3]) and not more_than(0, np.empty(0))
