"""judge(): the outcome follows from the interval, the promise covers the scan, and silence is never a pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.judging.budgets import LOOSE, Family
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judgement import Judgement
from auditor.judging.judging import empty_requirement, judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.report.record.audit_report import ExitCode, Finding, exit_code
from auditor.statistics.attack_estimates import AtLeast, AtMost, Bracket
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.means import StudentT
from auditor.statistics.rank_estimates import quantile
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.significance_tests import Multiplicity
from auditor.statistics.values import BoundedMean, bounded_mean

METHODS: tuple[Multiplicity, ...] = ("bonferroni", "holm", "by", "bh", "none")


def criterion(
    metric: str = "x", direction: Any = "at_most", bound: Any = 0.1, source: str = "test", **more: Any
) -> Criterion:
    return Criterion(metric=metric, direction=direction, bound=bound, source=source, set_by="-", set_at="-", **more)


def measurement(estimate: Any, metric: str = "x", **more: Any) -> Measurement:
    return Measurement(**{"metric": metric, "estimate": estimate, "n_samples": 100, "ideal": 0.0} | more)


def result(*measurements: Measurement, probe: str = "p", **more: Any) -> ProbeResult:
    return ProbeResult(
        probe=probe, pillar=more.pop("pillar", "fairness"), citation="-", measurements=measurements, **more
    )


def only(findings: list[Judgement]) -> Judgement:
    assert len(findings) == 1
    return findings[0]


def verdict(estimate: Any, c: Criterion | None = None, **more: Any) -> Judgement:
    return only(judge([result(measurement(estimate, **more))], [c or criterion()])[0])


def gap(k: tuple[int, ...], n: tuple[int, ...]) -> WorstDifference:
    return WorstDifference(tables=(RateTable(rate="r", successes=k, n=n),))


# ---- outcome and interval ------------------------------------------------------------------------------------------

proportions = st.integers(0, 400).flatmap(lambda n: st.builds(Proportion, successes=st.integers(0, n), n=st.just(n)))
group_rates = st.lists(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=4
).map(lambda g: RateTable(rate="r", successes=tuple(k for k, _ in g), n=tuple(n for _, n in g)))
estimates: st.SearchStrategy[Any] = st.one_of(
    proportions,
    group_rates.map(lambda t: WorstDifference(tables=(t,))),
    group_rates.map(lambda t: WorstRatio(tables=(t,))),
    st.lists(st.floats(0.0, 1.0), max_size=80).map(lambda v: bounded_mean(v, low=0.0, high=1.0)),
    st.builds(
        StudentT, centre=st.floats(0.0, 1.0), standard_error=st.floats(0.0, 0.2), degrees_of_freedom=st.just(9.0)
    ),
    st.lists(st.floats(0.0, 1.0), max_size=80).map(lambda v: quantile(v, 0.9)),
    st.sampled_from([0.0, 0.1, 0.3, 1.0]).map(lambda x: Exact(known=x)),
    st.just(Undefined(reason="nothing")),
)
bounds = st.sampled_from([0.0, 0.05, 0.1, 0.5, 0.8, 1.0])
criteria = st.one_of(
    st.builds(lambda b: criterion(direction="at_most", bound=b), bounds),
    st.builds(lambda b: criterion(direction="at_least", bound=b), bounds),
    st.builds(lambda b, w: criterion(direction="within", bound=(b, b + w)), bounds, st.floats(0.01, 0.5)),
)


def position(interval: tuple[float, float], c: Criterion) -> Outcome:
    """What an interval says of a requirement, written a second time."""
    low, high = interval
    if isinstance(c.bound, tuple):
        if low > c.bound[1] or high < c.bound[0]:
            return Outcome.FAIL
        return Outcome.PASS if c.bound[0] <= low and high <= c.bound[1] else Outcome.INCONCLUSIVE
    if c.direction == "at_most":
        return Outcome.FAIL if low > c.bound else Outcome.PASS if high <= c.bound else Outcome.INCONCLUSIVE
    return Outcome.FAIL if high < c.bound else Outcome.PASS if low >= c.bound else Outcome.INCONCLUSIVE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(estimates, criteria), min_size=1, max_size=6), st.sampled_from(METHODS))
def test_interval_and_outcome_agree(cases: list[tuple[Any, Criterion]], method: Multiplicity) -> None:
    measurements = [measurement(e, f"x{i}") for i, (e, _) in enumerate(cases)]
    demands = [c.model_copy(update={"metric": f"x{i}"}) for i, (_, c) in enumerate(cases)]
    findings, family = judge([result(*measurements)], demands, Family(multiplicity=method))
    judged = [not isinstance(e, Exact | StudentT) and not empty_requirement(e, c) for e, c in cases]
    assert family.m == sum(judged)
    assert len({f.id for f in findings}) == len(findings) == len(cases)
    for finding, (estimate, c), one_of_m in zip(findings, cases, judged, strict=True):
        assert finding.interval is not None and finding.confidence is not None
        adjusted = {"fail": finding.p_fail_adjusted, "pass": finding.p_pass_adjusted}
        said = position(finding.interval, c)
        if isinstance(estimate, StudentT):
            assert finding.outcome is Outcome.NOT_RUN and "no criterion may rest on it" in finding.reason
        elif math.isnan(estimate.value):
            assert finding.outcome is not Outcome.PASS
            if said is not Outcome.PASS:
                assert finding.outcome is said
        elif empty_requirement(estimate, c):
            assert finding.outcome is Outcome.NOT_RUN and "could never" in finding.reason
        else:
            assert finding.outcome is said
        shown = {Outcome.FAIL: adjusted["fail"], Outcome.PASS: adjusted["pass"]}.get(finding.outcome)
        rate = 0.0005 if finding.budget.endswith(LOOSE) else 0.05
        if shown is not None:
            assert shown <= rate * (1 + 1e-5)
        if finding.outcome is Outcome.INCONCLUSIVE and adjusted["fail"] is not None and adjusted["pass"] is not None:
            assert min(adjusted["fail"], adjusted["pass"]) >= rate * (1 - 1e-5)
        alike = sum(f.budget == finding.budget for f in findings)
        if method == "bonferroni" and one_of_m and alike > 1:
            low, high = estimate.bounds(rate / alike / (2.0 if isinstance(c.bound, tuple) else 1.0))
            assert finding.interval == pytest.approx((low, high), rel=1e-9, abs=1e-12, nan_ok=True)
        Finding.from_judgement(finding)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(estimates, criteria), min_size=1, max_size=6))
def test_holm_fails_no_less_than_bonferroni_and_never_says_the_opposite(cases: list[tuple[Any, Criterion]]) -> None:
    measurements = [measurement(e, f"x{i}") for i, (e, _) in enumerate(cases)]
    demands = [c.model_copy(update={"metric": f"x{i}"}) for i, (_, c) in enumerate(cases)]
    plain, holm = (judge([result(*measurements)], demands, Family(multiplicity=m))[0] for m in ("bonferroni", "holm"))
    for a, b in zip(plain, holm, strict=True):
        # Of PASSes Holm has less where not everything passes: most of the rate is for the claim that everything does.
        if Outcome.INCONCLUSIVE not in (a.outcome, b.outcome):
            assert a.outcome is b.outcome
        if a.outcome is Outcome.FAIL:
            assert b.outcome is Outcome.FAIL


def test_holm_finds_what_bonferroni_does_not() -> None:
    clear, near = Proportion(successes=90, n=100), Proportion(successes=19, n=100)
    both = [measurement(clear, "a"), measurement(near, "b")]
    demands = [criterion("a"), criterion("b")]
    p = near.p_value(0.1, "greater")
    error_rate = 1.5 * p
    plain, holm = (
        judge([result(*both)], demands, Family(multiplicity=m, error_rate=error_rate))[0]
        for m in ("bonferroni", "holm")
    )
    assert [f.outcome for f in plain] == [Outcome.FAIL, Outcome.INCONCLUSIVE]
    assert [f.outcome for f in holm] == [Outcome.FAIL, Outcome.FAIL]
    assert holm[1].p_fail_adjusted == pytest.approx(p)


def test_each_end_is_printed_at_the_level_of_the_test_it_is_the_end_of() -> None:
    """FAIL may stand at the last step while PASS stands at the first: an interval at the first step would say PASS."""
    certain = [measurement(Proportion(successes=90, n=100), f"f{i}") for i in range(8)]
    near = Proportion(successes=0, n=40)
    findings, _ = judge(
        [result(*certain, measurement(near, "near"))],
        [*(criterion(f"f{i}") for i in range(8)), criterion("near")],
        Family(multiplicity="holm"),
    )
    last = findings[-1]
    assert position(near.bounds(0.05), criterion()) is Outcome.PASS
    assert last.outcome is Outcome.INCONCLUSIVE and last.alone is Outcome.PASS
    assert last.interval == pytest.approx((near.bounds(0.05)[0], near.bounds(0.01 / 9)[1]))
    assert position(last.interval, criterion()) is Outcome.INCONCLUSIVE
    assert last.confidence == pytest.approx(1 - 0.05 - 0.01 / 9)


@pytest.mark.parametrize(
    ("direction", "bound", "outcomes"),
    [
        ("at_most", 0.5, (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)),
        ("at_least", 0.5, (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)),
        ("within", (0.4, 0.6), (Outcome.FAIL, Outcome.PASS, Outcome.FAIL)),
    ],
)
def test_three_directions(direction: str, bound: Any, outcomes: tuple[Outcome, ...]) -> None:
    for successes, outcome in zip((300, 505, 700), outcomes, strict=True):
        finding = verdict(Proportion(successes=successes, n=1_000), criterion(direction=direction, bound=bound))
        assert finding.outcome is outcome


def test_within_halves_the_level_on_each_side() -> None:
    finding = verdict(Proportion(successes=500, n=1_000), criterion(direction="within", bound=(0.4, 0.6)))
    assert finding.confidence == pytest.approx(0.95)
    assert finding.interval == pytest.approx(tuple(float(b) for b in clopper_pearson(500, n=1_000, alpha=0.025)))
    assert finding.budget == "fairness"
    one_sided = Proportion(successes=500, n=1_000).p_value(0.6, "at_most")
    assert finding.p_pass == pytest.approx(
        2 * max(one_sided, Proportion(successes=500, n=1_000).p_value(0.4, "at_least"))
    )


def test_within_asks_for_rows_enough_on_both_sides() -> None:
    both = verdict(Proportion(successes=51, n=100), criterion(direction="within", bound=(0.45, 0.55)), ideal=0.5)
    assert both.outcome is Outcome.INCONCLUSIVE and both.n_required is not None
    n = both.n_required
    successes = range(int(0.45 * n), int(0.55 * n) + 1)
    from scipy.stats import binom

    passing = sum(
        binom.pmf(k, n, 0.5)
        for k in successes
        if position(Proportion(successes=k, n=n).bounds(0.025), criterion(direction="within", bound=(0.45, 0.55)))
        is Outcome.PASS
    )
    assert 0.78 <= passing <= 0.85


# ---- the family ----------------------------------------------------------------------------------------------------


def test_m_is_fixed_by_what_exists_and_not_by_its_values() -> None:
    demands = [criterion("a"), criterion("b"), criterion("c")]
    for k in (0, 10, 100):
        measured = result(
            measurement(Proportion(successes=k, n=100), "a"),
            measurement(gap((k, 0), (100, 0)), "b"),
            measurement(Undefined(reason="-") if k else Proportion(successes=1, n=2), "c"),
            measurement(Exact(known=float(k)), "a"),
            measurement(Proportion(successes=1, n=2), "nobody asked"),
        )
        findings, family = judge([measured], demands)
        assert family.m == 3
        (spent,) = family.budgets
        assert (spent.name, spent.rate, spent.questions, spent.judgements) == ("fairness", 0.05, 3, 3)


def test_what_is_known_exactly_takes_no_share() -> None:
    exact = [measurement(Exact(known=0.0), "a"), measurement(Exact(known=2.0), "b")]
    sampled = measurement(Proportion(successes=0, n=100), "c")
    demands = [criterion("a", bound=0.0), criterion("b", bound=0.0), criterion("c")]
    findings, family = judge([result(*exact, sampled)], demands)
    assert [f.outcome for f in findings] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]
    assert family.m == 1
    assert findings[2].interval == Proportion(successes=0, n=100).bounds(0.05)
    # the p-values agree with that: a count known to be 0 is at most 0
    assert findings[0].p_pass == 1e-16 and findings[0].p_fail == 1.0
    assert findings[1].p_fail == 1e-16 and findings[1].p_pass == 1.0


def test_error_rate_is_shared_by_the_findings() -> None:
    estimate = Proportion(successes=0, n=40)
    alone = verdict(estimate)
    assert alone.outcome is Outcome.PASS
    nine = [measurement(estimate, f"x{i}") for i in range(9)]
    demands = [criterion(f"x{i}") for i in range(10)]
    # A claim about all of them takes no more than each alone does; with one that cannot tell there is no such claim.
    assert {f.outcome for f in judge([result(*nine)], demands[:9])[0]} == {Outcome.PASS}
    tenth = measurement(Proportion(successes=10, n=100), "x9")
    said = judge([result(*nine, tenth)], demands)[0]
    assert {f.outcome for f in said} == {Outcome.INCONCLUSIVE}
    assert [f.alone for f in said] == [Outcome.PASS] * 9 + [None]
    assert "Alone this would PASS (p 0.015): the fairness budget holds 10 questions." in said[0].reason
    loose = judge([result(measurement(estimate))], [criterion()], Family(error_rate=1e-6))[0]
    assert only(loose).outcome is Outcome.INCONCLUSIVE


# ---- what cannot be judged -----------------------------------------------------------------------------------------


def test_undefined_is_inconclusive_and_null() -> None:
    finding = verdict(Undefined(reason="only one group is present"))
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "only one group is present" in finding.reason
    record = Finding.from_judgement(finding)
    assert record.value is None and record.interval == (None, None)
    assert record.p_fail is record.p_pass is record.minimum_detectable_effect is record.n_required is None
    assert "NaN" not in record.model_dump_json() and "Infinity" not in record.model_dump_json()


@pytest.mark.parametrize("bound", [0.1, 1.0, 7.0])
def test_no_bound_is_wide_enough_for_a_number_that_does_not_exist(bound: float) -> None:
    for estimate in (Undefined(reason="-"), Proportion(successes=0, n=0), gap((3,), (9,)), gap((3, 0), (9, 0))):
        assert verdict(estimate, criterion(bound=bound)).outcome is Outcome.INCONCLUSIVE


def test_an_empty_group_does_not_hide_the_others() -> None:
    """Null and never a PASS; but that the groups with rows lie beyond the bound is shown all the same."""
    finding = verdict(gap((380, 20, 0), (400, 400, 0)))
    assert finding.outcome is Outcome.FAIL
    assert Finding.from_judgement(finding).value is None
    assert finding.interval is not None and finding.interval[0] > 0.1 and finding.interval[1] == 1.0


@pytest.mark.parametrize(
    ("direction", "bound", "words"),
    [
        ("at_most", 99.0, "could never fail: this number lies within [0, 1]"),
        ("at_most", 1.0, "could never fail"),
        ("at_least", 0.0, "could never fail"),
        ("within", (0.0, 1.0), "could never fail"),
        ("at_least", 80.0, "could never be met"),
        ("at_most", -0.1, "could never be met"),
        ("within", (2.0, 3.0), "could never be met"),
    ],
)
def test_a_requirement_that_requires_nothing_is_no_pass(direction: str, bound: Any, words: str) -> None:
    """10 written for 0.10: neither a PASS nor a share of the error rate, and the reason says what to do."""
    findings, family = judge(
        [result(measurement(gap((190, 10), (200, 200)), "a"), measurement(Proportion(successes=1, n=200), "b"))],
        [criterion("a", direction=direction, bound=bound), criterion("b")],
    )
    assert [f.outcome for f in findings] == [Outcome.NOT_RUN, Outcome.PASS]
    assert words in findings[0].reason and "Set a bound inside that range." in findings[0].reason
    assert family.m == 1 and exit_code(findings, was_refused=False, allow_inconclusive=False) == 3


@pytest.mark.parametrize(
    ("direction", "bound"), [("at_most", 0.0), ("at_least", 1.0), ("within", (0.0, 0.5)), ("within", (-1.0, 0.1))]
)
def test_a_requirement_at_the_edge_of_the_range_is_a_real_one(direction: str, bound: Any) -> None:
    assert verdict(gap((190, 10), (200, 200)), criterion(direction=direction, bound=bound)).outcome is Outcome.FAIL


def test_what_does_not_apply_is_not_applicable_whether_or_not_it_is_required() -> None:
    nothing = measurement(Undefined(reason="The model does not take sex.", inapplicable=True), "a")
    for demands in ([criterion("a"), criterion("b")], [criterion("b")]):
        findings, family = judge([result(nothing, measurement(Proportion(successes=1, n=200), "b"))], demands)
        assert [f.outcome for f in findings] == [Outcome.NOT_APPLICABLE, Outcome.PASS]
        assert findings[0].reason == "The model does not take sex." and family.m == 1


def test_a_mean_without_spread_is_not_certain() -> None:
    """Twenty equal values say that fewer than 15 % are others, and those may lie anywhere within the limits."""
    same = bounded_mean(np.zeros(20), low=-1.0, high=1.0)
    assert isinstance(same, BoundedMean)
    unseen = math.log(1 / 0.05) / 20
    assert same.bounds(0.05) == pytest.approx((-unseen, unseen))
    assert verdict(same).outcome is Outcome.INCONCLUSIVE and verdict(same, criterion(bound=0.2)).outcome is Outcome.PASS
    shown = StudentT(centre=0.0, standard_error=0.0, degrees_of_freedom=19)
    assert shown.bounds(0.05) == (-math.inf, math.inf) and verdict(shown).outcome is Outcome.NOT_RUN


@pytest.mark.parametrize("method", METHODS)
def test_too_few_is_shown_and_not_judged(method: Multiplicity) -> None:
    few = measurement(
        Proportion(successes=90, n=100), "few", too_few="Only 3 rows beyond the threshold.", n_needed=1_000
    )
    other = measurement(Proportion(successes=19, n=100), "other")
    findings, family = judge([result(few, other)], [criterion("few"), criterion("other")], Family(multiplicity=method))
    assert family.m == 2
    assert findings[0].outcome is Outcome.INCONCLUSIVE
    assert findings[0].reason == "Only 3 rows beyond the threshold."
    assert findings[0].n_required == 1_000
    assert findings[0].p_fail is findings[0].p_pass is None
    if method == "holm":
        # it takes its share and never frees it for the others
        assert findings[1].confidence == pytest.approx(1 - 0.05 / 2 - 0.01 / 2)


def test_a_criterion_that_nobody_measured_is_not_run() -> None:
    findings, _ = judge([result(measurement(Proportion(successes=0, n=100)))], [criterion(), criterion("typo")])
    assert findings[-1].outcome is Outcome.NOT_RUN
    assert "'typo'" in findings[-1].reason
    assert exit_code(findings, was_refused=False) == ExitCode.INCONCLUSIVE
    built_in = judge(
        [result(measurement(Proportion(successes=0, n=100)))], [criterion(), criterion("y", built_in=True)]
    )
    assert len(built_in[0]) == 1
    # every criterion of the built-in profile says that it is one
    assert {(c.built_in, c.source) for c in load_criteria()} == {(True, DEFAULT_PROFILE)}


def test_probes_without_measurements() -> None:
    findings, family = judge(
        [
            result(probe="silent"),
            result(probe="dead", not_run="killed"),
            result(probe="idle", not_applicable="Needs evaluation data: add --data FILE."),
            result(measurement(Proportion(successes=1, n=9)), probe="half", not_run="ran out of time"),
        ],
        [],
    )
    said = [(f.probe, f.outcome) for f in findings]
    assert said == [
        ("silent", Outcome.NOT_RUN),
        ("dead", Outcome.NOT_RUN),
        ("idle", Outcome.NOT_APPLICABLE),
        ("half", Outcome.NOT_JUDGED),
        ("half", Outcome.NOT_RUN),
    ]
    assert family.m == 0
    assert result().duration_s == 0.0


def test_zero_by_zero_that_nobody_asked_about_is_not_judged() -> None:
    """A model without false positives has no ratio of false positive rates; that is no blemish."""
    nobody = WorstRatio(tables=(RateTable(rate="r", successes=(0, 0), n=(90, 90)),))
    findings, _ = judge([result(measurement(nobody, "ratio", sensitive=("sex",)))], [])
    assert only(findings).outcome is Outcome.NOT_JUDGED
    assert Finding.from_judgement(only(findings)).value is None
    findings, _ = judge([result(measurement(nobody, "ratio"))], [criterion("ratio", direction="at_least", bound=0.8)])
    assert only(findings).outcome is Outcome.INCONCLUSIVE


def test_ids_are_unique_whatever_the_data_call_their_groups() -> None:
    e = Proportion(successes=1, n=9)
    names = ["a", "a", "a#2", "a#3", "a"]
    measured = [measurement(e, group={"sex": name}) for name in names] + [
        measurement(e, at={"noise": 0.1}),
        measurement(e),
    ]
    findings, _ = judge([result(*measured), result(measurement(e), probe="q")], [criterion(), criterion()])
    ids = [f.id for f in findings]
    assert len(set(ids)) == len(ids)
    assert "p/x" in ids and "p/x#2" in ids and "p/x/noise=0.1" in ids


def test_a_criterion_says_what_it_is_about() -> None:
    e = Proportion(successes=1, n=9)
    plain = measurement(e, sensitive=("sex", "race"), method="between_groups")
    of_group = measurement(e, group={"sex": "f"})
    assert criterion().applies_to("p", plain) and not criterion().applies_to("p", of_group)
    assert criterion(group={"sex": "f"}).applies_to("p", of_group)
    assert not criterion(group={"sex": "m"}).applies_to("p", of_group)
    assert not criterion(group={"sex": "f"}).applies_to("p", plain)
    assert criterion(sensitive=("race", "sex")).applies_to("p", plain)
    assert not criterion(sensitive=("sex",)).applies_to("p", plain)
    assert criterion(probe="p").applies_to("p", plain) and not criterion(probe="q").applies_to("p", plain)
    assert not criterion(method="other").applies_to("p", plain) and not criterion("y").applies_to("p", plain)


# ---- what it would take --------------------------------------------------------------------------------------------


def test_what_it_would_take_does_not_depend_on_the_effect_seen() -> None:
    plans = set()
    for shift in (0, 4, 8):
        finding = verdict(gap((50 + shift, 50 - shift), (100, 100)), n_samples=200)
        assert finding.outcome is Outcome.INCONCLUSIVE
        plans.add((finding.minimum_detectable_effect, finding.n_required))
    assert len(plans) == 1
    effect, needed = plans.pop()
    assert effect is not None and 0.1 < effect < 1.0
    assert needed is not None and needed > 200
    finding = verdict(gap((50, 50), (100, 100)), n_samples=200)
    assert f"{needed:,} rows" in finding.reason and "80 % power" in finding.reason


def test_what_no_value_could_show_is_said() -> None:
    finding = verdict(gap((1, 2), (3, 3)), n_samples=6)
    assert finding.minimum_detectable_effect is None
    assert "no value would be found" in finding.reason
    unknown = verdict(quantile([0.05, 0.2], 0.9))
    assert unknown.outcome is Outcome.INCONCLUSIVE and unknown.minimum_detectable_effect is None
    assert "no value" not in unknown.reason
    assert verdict(Proportion(successes=9, n=90), ideal=None).n_required is None


@pytest.mark.parametrize(
    ("largest", "written"),
    [
        (51_234.0, "51,200"),
        (1_000.0, "1,000"),
        (999.0, "999"),
        (0.51234, "0.512"),
        (1e9, "1e+09"),
        (9.99e8, "999,000,000"),
    ],
)
def test_numbers_are_written_with_three_digits(largest: float, written: str) -> None:
    price = BoundedMean(centre=0.3, standard_error=0.1, third_moment=0.0, n=40, low=0.0, high=largest)
    assert f"lies within [0, {written}]" in empty_requirement(price, criterion(bound=2.0 * largest))
    assert empty_requirement(price, criterion(bound=0.5 * largest)) == ""


def test_a_requirement_in_words() -> None:
    assert criterion().describe() == "at most 0.1"
    assert criterion(direction="at_least", bound=0.8).describe() == "at least 0.8"
    assert criterion(direction="within", bound=(0.45, 0.55)).describe() == "within [0.45, 0.55]"


def test_what_it_would_take_is_told_in_the_direction_of_the_requirement() -> None:
    above = verdict(Proportion(successes=9, n=90), n_samples=90)
    assert above.minimum_detectable_effect is not None and above.minimum_detectable_effect > 0.1
    assert "only a value above" in above.reason and "spans the bound (at most 0.1)" in above.reason
    below = verdict(Proportion(successes=80, n=100), criterion(direction="at_least", bound=0.8), ideal=1.0)
    assert below.minimum_detectable_effect is not None and below.minimum_detectable_effect < 0.8
    assert "only a value below" in below.reason
    wrong = verdict(Proportion(successes=9, n=90), ideal=0.5)
    assert "The ideal value itself, 0.5, does not meet this requirement." in wrong.reason
    assert wrong.minimum_detectable_effect is wrong.n_required is None


def test_within_is_planned_at_the_bound_nearer_to_the_ideal() -> None:
    near_low = criterion(direction="within", bound=(0.4, 0.9))
    finding = verdict(Proportion(successes=40, n=100), near_low, ideal=0.5)
    assert finding.minimum_detectable_effect is not None and finding.minimum_detectable_effect < 0.4
    near_high = criterion(direction="within", bound=(0.1, 0.6))
    finding = verdict(Proportion(successes=60, n=100), near_high, ideal=0.5)
    assert finding.minimum_detectable_effect is not None and finding.minimum_detectable_effect > 0.6


def test_enough_rows_is_said_where_there_are_as_many_as_needed() -> None:
    estimate = Proportion(successes=9, n=90)
    needed = verdict(estimate, n_samples=90).n_required
    assert needed is not None and needed < 90
    assert "The size would do for the ideal value" in verdict(estimate, n_samples=90).reason
    small = Proportion(successes=1, n=10)
    needed = verdict(small, n_samples=10).n_required
    assert needed is not None and needed > 10
    said = f"About {needed:,} rows like these would let the ideal value PASS four times in five, for this"
    assert f"{said} question alone." in verdict(small, n_samples=10).reason


def test_what_nobody_requires_is_shown_at_95_percent() -> None:
    two = [measurement(Proportion(successes=9, n=90), "a"), measurement(Proportion(successes=9, n=90), "b")]
    other = measurement(Proportion(successes=9, n=90), "c")
    for required in ([], [criterion("a"), criterion("b")]):
        findings, family = judge([result(*two, other)], required)
        assert family.m == len(required) and findings[2].outcome is Outcome.NOT_JUDGED
        assert findings[2].confidence == pytest.approx(0.95)
        assert findings[2].interval == pytest.approx(Proportion(successes=9, n=90).bounds(0.025))


def test_a_model_that_failed_was_not_run_whether_or_not_it_is_required() -> None:
    broken = measurement(Undefined(reason="The model raised.", failed=True))
    for demands in ([criterion()], []):
        finding = only(judge([result(broken)], demands)[0])
        assert finding.outcome is Outcome.NOT_RUN and finding.reason == "The model raised."
    # What a model refuses by its own word answers a question and meets no requirement.
    refused = measurement(Undefined(reason="It takes no gaps.", failed=True, inapplicable=True))
    for demands, outcome in (([criterion()], Outcome.NOT_RUN), ([], Outcome.NOT_APPLICABLE)):
        finding = only(judge([result(refused)], demands)[0])
        assert finding.outcome is outcome and finding.reason == "It takes no gaps."
    unknown = Undefined(reason="no rows")
    assert only(judge([result(measurement(unknown))], [])[0]).outcome is Outcome.INCONCLUSIVE
    of_group = measurement(unknown, group={"sex": "f"})
    finding = only(judge([result(of_group)], [])[0])
    assert finding.outcome is Outcome.NOT_JUDGED and finding.reason == "Undefined for these data: no rows"


def test_a_criterion_of_the_profile_that_its_probe_had_no_input_for_does_not_apply() -> None:
    measured = result(measurement(Proportion(successes=0, n=100)))
    needy = criterion("y", built_in=True, needs="members", probe="p")
    findings, _ = judge([measured], [criterion(), needy])
    assert findings[-1].outcome is Outcome.NOT_APPLICABLE and findings[-1].probe == "p"
    assert findings[-1].reason == "y was not measured: it needs members."
    for silent in (needy.model_copy(update={"probe": "q"}), needy.model_copy(update={"needs": ""})):
        assert len(judge([measured], [criterion(), silent])[0]) == 1


# ---- exit codes ----------------------------------------------------------------------------------------------------


def of(*outcomes: Outcome, pillar: Any = "fairness") -> list[Judgement]:
    return [Judgement(id="", probe="p", pillar=pillar, citation="", outcome=o, p_fail=0.2) for o in outcomes]


P, F, INC, R, A, J = (
    Outcome.PASS,
    Outcome.FAIL,
    Outcome.INCONCLUSIVE,
    Outcome.NOT_RUN,
    Outcome.NOT_APPLICABLE,
    Outcome.NOT_JUDGED,
)


@pytest.mark.parametrize(
    ("outcomes", "code", "allowed"),
    [
        ((P,), 0, 0),
        ((P, P, J, A), 0, 0),
        ((P, F), 1, 1),
        ((F, INC, R), 1, 1),
        ((P, INC), 3, 0),
        ((INC,), 3, 0),
        ((P, R), 3, 3),
        ((P, INC, R), 3, 3),
        ((J,), 3, 3),
        ((A,), 3, 3),
        ((A, J), 3, 3),
        ((), 3, 3),
    ],
)
def test_exit_codes(outcomes: tuple[Outcome, ...], code: int, allowed: int) -> None:
    assert exit_code(of(*outcomes), was_refused=False) == code
    assert exit_code(of(*outcomes), was_refused=False, allow_inconclusive=True) == allowed
    assert (
        exit_code(of(*outcomes), was_refused=True)
        == exit_code(of(*outcomes), was_refused=True, allow_inconclusive=True)
        == 4
    )


def test_a_file_that_loads_is_no_audited_model() -> None:
    assert exit_code(of(P, pillar="intake"), was_refused=False) == 3
    assert exit_code(of(P, pillar="intake") + of(P), was_refused=False) == 0
    assert exit_code(of(F, pillar="intake") + of(P), was_refused=False) == 1


def test_an_exit_code_is_a_number_to_a_shell() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4]


def test_a_search_may_find_and_never_acquit() -> None:
    at_least_80 = criterion(direction="at_least", bound=0.8)
    assert verdict(AtMost(successes=300, n=1_000), at_least_80, ideal=1.0).outcome is Outcome.FAIL
    held = verdict(AtMost(successes=1_000, n=1_000), at_least_80, ideal=1.0)
    assert held.outcome is Outcome.INCONCLUSIVE and held.alone is None
    assert "1,000 of 1,000 rows were neither broken nor proved." in held.reason
    assert held.n_required is None
    assert verdict(AtLeast(successes=300, n=1_000)).outcome is Outcome.FAIL
    assert verdict(AtLeast(successes=0, n=1_000)).outcome is Outcome.INCONCLUSIVE


def test_a_proof_may_acquit_and_never_accuse() -> None:
    at_least_80 = criterion(direction="at_least", bound=0.8)
    assert verdict(AtLeast(successes=900, n=1_000), at_least_80, ideal=1.0).outcome is Outcome.PASS
    assert verdict(AtLeast(successes=0, n=1_000), at_least_80, ideal=1.0).outcome is Outcome.INCONCLUSIVE


def test_a_proof_and_a_search_together_decide_both_ways() -> None:
    at_least_80 = criterion(direction="at_least", bound=0.8)

    def outcome(proved: int, possible: int) -> Outcome:
        return verdict(Bracket(proved=proved, possible=possible, n=1_000), at_least_80, ideal=1.0).outcome

    assert outcome(900, 950) is Outcome.PASS
    assert outcome(100, 600) is Outcome.FAIL
    assert outcome(700, 900) is Outcome.INCONCLUSIVE
    open_ = verdict(Bracket(proved=700, possible=900, n=1_000), at_least_80, ideal=1.0)
    assert "200 of 1,000 rows were neither proved nor broken." in open_.reason


@pytest.mark.parametrize(
    ("estimate", "direction", "loose", "strict"),
    [
        (gap((500, 520), (1000, 1000)), "at_most", 0.2, 0.03),
        (gap((300, 500), (1000, 1000)), "at_most", 0.2, 0.05),
        (WorstRatio(tables=gap((500, 520), (1000, 1000)).tables), "at_least", 0.7, 0.95),
        (WorstRatio(tables=gap((300, 500), (1000, 1000)).tables), "at_least", 0.6, 0.8),
    ],
)
def test_a_pass_of_a_loose_bound_and_a_fail_of_a_strict_one_prove_nothing_of_the_other(
    estimate: WorstDifference | WorstRatio, direction: str, loose: float, strict: float
) -> None:
    criteria = [criterion("x", direction, loose), criterion("y", direction, strict)]
    x, y = judge([result(measurement(estimate, "x"), measurement(estimate, "y"))], criteria)[0]
    passes = x.outcome is Outcome.PASS
    expected = (Outcome.PASS, Outcome.INCONCLUSIVE) if passes else (Outcome.INCONCLUSIVE, Outcome.FAIL)
    assert (x.outcome, y.outcome) == expected
