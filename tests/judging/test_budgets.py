"""Error budgets: what else runs neither hides a FAIL nor buys a PASS, and the rates hold with all that flows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import permutations
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from annotated_types import Le
from scipy.special import ndtr

from auditor.core.errors import ConfigError, UsageError
from auditor.judging.budgets import LOOSE, Family, is_loose, levels_of
from auditor.judging.criterion import MOST_RATE, Criterion, load_criteria, parse_criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.report.record.audit_report import ExitCode, exit_code
from auditor.run.run_audit import run_audit
from auditor.run.scan_options import ScanOptions
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.significance_tests import ConfirmedCount, adjusted_levels, weighted_levels
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, most_misses
from tests.toys.models import text_model


def criterion(metric: str, bound: Any = 0.1, direction: Any = "at_most", **more: Any) -> Criterion:
    return Criterion(metric=metric, direction=direction, bound=bound, source="t", set_by="-", set_at="-", **more)


def rate(metric: str, k: int, n: int = 100, **more: Any) -> Measurement:
    return Measurement(
        **{"metric": metric, "estimate": Proportion(successes=k, n=n), "n_samples": n, "ideal": 0.0} | more
    )


def result(*measurements: Measurement, probe: str = "p", pillar: Any = "fairness") -> ProbeResult:
    return ProbeResult(probe=probe, pillar=pillar, citation="-", measurements=measurements)


def outcomes(findings: list[Judgement]) -> dict[str, Outcome]:
    return {f.id: f.outcome for f in findings}


def gap(*rates: tuple[str, tuple[int, ...], tuple[int, ...]], kind: Any = WorstDifference) -> Any:
    return kind(tables=tuple(RateTable(rate=name, successes=k, n=n) for name, k, n in rates))


# ---- nothing hides a FAIL, nothing buys a PASS -----------------------------------------------------------------------

# 578 of 602 against 83 of 112: the demo's own table.
PARITY = Measurement(
    metric="demographic_parity_difference", method="between_groups", n_samples=714, ideal=0.0, sensitive=("afam",),
    estimate=gap(("selection_rate", (578, 83), (602, 112))),
)  # fmt: skip


@pytest.mark.parametrize("others", [0, 1, 8, 40])
def test_probes_of_other_pillars_hide_no_fail(others: int) -> None:
    more = [
        result(rate(f"x{i}", 9), probe=f"q{i}", pillar=("privacy", "robustness", "attribution")[i % 3])
        for i in range(others)
    ]
    demands = [criterion(PARITY.metric), *(criterion(f"x{i}") for i in range(others))]
    findings, family = judge([result(PARITY), *more], demands)
    assert findings[0].outcome is Outcome.FAIL
    assert family.budgets[0].name == "fairness" and family.budgets[0].questions == 1


def test_the_profile_fixes_what_each_question_has_whatever_runs() -> None:
    demands = load_criteria()
    flips = rate("counterfactual_flip_rate", 4, sensitive=("afam",))
    for results in ([result(PARITY)], [result(PARITY), result(flips, probe="counterfactual_fairness")]):
        findings, _ = judge(results, demands)
        parity = next(f for f in findings if f.metric == PARITY.metric)
        assert parity.p_fail is not None and parity.p_fail_adjusted is not None
        fairness = {c.metric for c in demands if c.budget == "fairness"}
        assert parity.p_fail_adjusted == pytest.approx(parity.p_fail * len(fairness))


@pytest.mark.parametrize("bound", [0.6, 0.85, 0.97])
def test_loose_bounds_change_no_outcome_and_are_named(bound: float) -> None:
    """20 requirements that nobody misses: each other outcome, level and adjusted p-value stays to the last digit."""
    own = [PARITY, rate("a", 2), rate("b", 6), rate("c", 30, 100)]
    demands = [criterion(PARITY.metric), criterion("a"), criterion("b"), criterion("c")]
    plain, _ = judge([result(*own)], demands)
    pads = [rate(f"pad{i}", 5) for i in range(20)]
    padded, family = judge([result(*own, *pads)], [*demands, *(criterion(f"pad{i}", bound) for i in range(20))])
    for before, after in zip(plain, padded, strict=False):
        assert (before.outcome, before.interval, before.p_fail_adjusted) == (
            after.outcome, after.interval, after.p_fail_adjusted,
        )  # fmt: skip
    assert all_of("Padding" in f.padding and f.budget == f"fairness{LOOSE}" for f in padded[4:])
    assert [b.rate for b in family.budgets] == pytest.approx([0.05, 0.0005])
    assert {f.padding for f in padded[:4]} == {""}


def test_loose_bounds_alone_are_no_pass() -> None:
    """A verdict is not bought by asking what nobody misses: 8 of 8 PASS, and the exit code says that it is no pass."""
    demands = [criterion(f"pad{i}", 0.97) for i in range(8)]
    findings, _ = judge([result(*(rate(f"pad{i}", 30) for i in range(8)))], demands)
    assert {f.outcome for f in findings} == {Outcome.PASS}
    assert exit_code(findings, was_refused=False) is ExitCode.INCONCLUSIVE
    own, _ = judge([result(rate("a", 1), *(rate(f"pad{i}", 30) for i in range(8)))], [criterion("a"), *demands])
    assert exit_code(own, was_refused=False) is ExitCode.PASSED


def test_a_loose_bound_that_is_missed_by_far_is_a_fail() -> None:
    findings, _ = judge([result(rate("a", 90))], [criterion("a", 0.6)])
    assert findings[0].outcome is Outcome.FAIL and findings[0].padding


@pytest.mark.parametrize(
    ("direction", "bound", "ideal", "loose"),
    [
        ("at_most", 0.1, 0.0, False), ("at_most", 0.5, 0.0, False), ("at_most", 0.51, 0.0, True),
        ("at_least", 0.5, 1.0, False), ("at_least", 0.4, 1.0, True), ("at_most", 0.55, 0.5, False),
        ("at_most", 0.8, 0.5, True), ("within", (0.45, 0.55), 0.5, False), ("within", (0.1, 0.9), 0.5, True),
        ("within", (0.1, 0.6), 0.5, False), ("at_most", 0.9, None, False), ("at_most", 0.3, 0.4, False),
    ],
)  # fmt: skip
def test_what_is_loose(direction: str, bound: Any, ideal: float | None, loose: bool) -> None:
    assert is_loose(rate("a", 5, ideal=ideal), criterion("a", bound, direction)) is loose


def test_two_bounds_on_one_number_cost_one_share() -> None:
    """One interval answers against both: a bound that is looser than another takes nothing."""
    a, b = rate("a", 19), rate("b", 5)
    one, _ = judge([result(a, b)], [criterion("a"), criterion("b")])
    two, family = judge([result(a, b)], [criterion("a"), criterion("b"), criterion("a", 0.2), criterion("a", 0.3)])
    assert family.budgets[0].questions == 2 and family.m == 4
    by_bound = {(f.metric, f.criterion.bound): f for f in two if f.criterion}
    assert by_bound["a", 0.1].p_fail_adjusted == one[0].p_fail_adjusted


def test_an_inconclusive_one_says_what_it_would_be_alone_and_is_never_waived() -> None:
    near = rate("a", 19)
    many = [rate(f"x{i}", 9) for i in range(11)]
    findings, _ = judge([result(near, *many)], [criterion("a"), *(criterion(f"x{i}") for i in range(11))])
    assert findings[0].outcome is Outcome.INCONCLUSIVE and findings[0].alone is Outcome.FAIL
    assert "Alone this would FAIL (p 0.0046): the fairness budget holds 12 questions." in findings[0].reason
    assert exit_code(findings, was_refused=False, allow_inconclusive=True) is ExitCode.INCONCLUSIVE
    assert exit_code(findings[1:], was_refused=False, allow_inconclusive=True) is ExitCode.PASSED


def test_a_smaller_rate_or_a_second_side_is_no_reason_to_look_away() -> None:
    """What would FAIL alone at 5 % is told, and never waived, however small the rate of the scan."""
    clear = result(rate("a", 25))
    for demand, family in (
        (criterion("a"), Family(error_rate=1e-12)),
        (criterion("a", (-1.0, 0.1), "within"), Family(error_rate=1e-12)),
    ):
        findings, _ = judge([clear], [demand], family)
        assert findings[0].outcome is Outcome.INCONCLUSIVE and findings[0].alone is Outcome.FAIL
        assert "at 5% (p " in findings[0].reason and "the fairness budget allows itself 1e-12." in findings[0].reason
        assert exit_code(findings, was_refused=False, allow_inconclusive=True) is ExitCode.INCONCLUSIVE


def test_nothing_known_is_nothing_judged_whatever_is_allowed() -> None:
    findings, _ = judge([result(rate("a", 0, 0))], [criterion("a")])
    assert exit_code(findings, was_refused=False, allow_inconclusive=True) is ExitCode.INCONCLUSIVE


def test_what_the_ideal_does_not_meet_is_no_merit() -> None:
    findings, _ = judge([result(rate("gap", 30))], [criterion("gap", 0.1, "at_least")])
    assert findings[0].outcome is Outcome.PASS and "no merit" in findings[0].padding
    assert exit_code(findings, was_refused=False) is ExitCode.INCONCLUSIVE


def test_a_stated_rate_holds_and_none_is_scaled_beyond_the_most() -> None:
    stated, unstated = criterion("a", budget="fairness", rate=0.0001), criterion("b")
    _, family = judge([result(rate("a", 9), rate("b", 9))], [stated, unstated])
    assert [b.rate for b in family.budgets] == pytest.approx([0.0001])
    _, family = judge([result(rate("a", 9))], [criterion("a", rate=0.1)], Family(error_rate=0.2))
    assert [b.rate for b in family.budgets] == pytest.approx([0.2])


def test_one_limit_of_error_rates_for_the_scan_and_for_its_budgets(tmp_path: Path) -> None:
    """Budgets stopped at 0.1 while --error-rate took 0.49."""
    [limit] = [each for each in get_type_hints(ScanOptions, include_extras=True)["error_rate"].__metadata__
               if isinstance(each, Le)]  # fmt: skip
    assert limit.le == MOST_RATE == 0.2
    path = tmp_path / "criteria.toml"
    for rate, fits in ((0.2, True), (0.21, False)):
        entry = f"[budgets]\nmine = {rate}\n[[criteria]]\nmetric = 'a'\ndirection = 'at_most'\nbound = 0.1\n"
        path.write_text(entry + "budget = 'mine'\nsource = 's'\nset_by = 'n'\nset_at = '2026-01-01'\n")
        with nullcontext() if fits else pytest.raises(ConfigError, match="to 0.2, not 0.21"):
            load_criteria(path)
        with nullcontext() if fits else pytest.raises(ValueError, match="less than or equal to 0.2"):
            ScanOptions.from_values({"error_rate": rate})
        with nullcontext() if fits else pytest.raises(UsageError, match="at most 0.2"):
            run_audit(text_model(len), None, [], [], family=Family(error_rate=rate))


# ---- one question, several methods -----------------------------------------------------------------------------------


def test_a_question_passes_where_every_method_does() -> None:
    clear, unclear = rate("auc", 2, method="cheap"), rate("auc", 9, method="strong")
    both, _ = judge([result(clear, clear), result(unclear, probe="p")], [criterion("auc")])
    assert {f.outcome for f in both} == {Outcome.INCONCLUSIVE}
    assert "passes where each of them does" in both[0].reason and both[0].alone is Outcome.PASS
    three = [rate("auc", 1, method=f"m{i}") for i in range(3)]
    findings, family = judge([result(*three), result(rate("b", 3), probe="q")], [criterion("auc"), criterion("b")])
    assert {f.outcome for f in findings} == {Outcome.PASS} and family.budgets[0].questions == 2
    # Three methods stand where one would: the level is the question's.
    one, _ = judge([result(three[0]), result(rate("b", 3), probe="q")], [criterion("auc"), criterion("b")])
    assert one[0].interval is not None and findings[0].interval is not None
    assert one[0].interval[1] == findings[0].interval[1]


def test_one_method_that_finds_it_is_enough_for_a_fail() -> None:
    findings, _ = judge([result(rate("auc", 2, method="cheap"), rate("auc", 40, method="strong"))], [criterion("auc")])
    assert [f.outcome for f in findings] == [Outcome.INCONCLUSIVE, Outcome.FAIL]


# ---- shares ----------------------------------------------------------------------------------------------------------


def test_weights_and_primaries_share_a_budget_out() -> None:
    made = result(*(rate(name, 9) for name in "abc"))

    def shares(*demands: Criterion) -> list[float]:
        pairs = [(made, x, c) for x, c in zip(made.measurements, demands, strict=True)]
        return [level.fail / 0.05 for level in levels_of(pairs, [(0.9, 0.9)] * 3, demands, Family())[0]]

    assert shares(criterion("a"), criterion("b"), criterion("c")) == pytest.approx([1 / 3] * 3)
    assert shares(criterion("a", weight=2.0), criterion("b"), criterion("c")) == pytest.approx([0.5, 0.25, 0.25])
    assert shares(criterion("a", primary=True), criterion("b"), criterion("c")) == pytest.approx([0.9, 0.05, 0.05])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"weight": 0}, "weight must be"), ({"weight": True}, "weight must be"), ({"budget": 3}, "budget must be"),
        ({"primary": "yes"}, "primary must be"), ({"budget": "none"}, "has a budget"),
        ({"budget": "fairnes"}, "states no error rate"), ({"budget": "p, loose bounds"}, "budget must be"),
        ({"weight": 5e-324}, "weight must be"),
    ],
)  # fmt: skip
def test_faults_of_shares_are_named(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_criterion({"metric": "a", "direction": "at_most", "bound": 1} | entry, "x", budgets={"fairness": 0.01})


@pytest.mark.parametrize(
    "rates",
    ["x = 1", 'fairness = "a"', "fairness = 0", "fairness = 0.21", "fairness = true", "fairness = 1e-9"],
)
def test_faults_of_budgets_are_named(rates: str, tmp_path: Any) -> None:
    file = tmp_path / "own.toml"
    table = f'[budgets]\n{rates}\n\n[[criteria]]\nmetric = "a"\nbudget = "fairness"\ndirection = "at_most"\nbound = 1\n'
    file.write_text(table)
    with pytest.raises(ConfigError, match="error rate"):
        load_criteria(file)


def test_a_file_states_its_budgets(tmp_path: Any) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        '[budgets]\nmine = 0.01\n\n[[criteria]]\nmetric = "a"\nbudget = "mine"\ndirection = "at_most"\nbound = 0.1'
    )
    for error_rate in (0.05, 0.005):
        _, family = judge([result(rate("a", 5))], load_criteria(file), Family(error_rate=error_rate))
        assert [(b.name, b.rate) for b in family.budgets] == [("mine", pytest.approx(0.2 * error_rate))]


def test_what_the_profile_asks_and_no_rows_can_answer_is_not_judged() -> None:
    none_found = Measurement(metric="confirmed", estimate=ConfirmedCount(p_values=(0.9, 0.8)), n_samples=100, ideal=0.0)
    asked = criterion("confirmed", 0, built_in=True)
    findings, _ = judge([result(none_found, rate("a", 2))], [asked, criterion("a")])
    assert [f.outcome for f in findings] == [Outcome.NOT_JUDGED, Outcome.PASS]
    findings, _ = judge([result(none_found, rate("a", 2))], [criterion("confirmed", 0), criterion("a")])
    assert findings[0].outcome is Outcome.INCONCLUSIVE
    found = none_found.__class__(metric="confirmed", estimate=ConfirmedCount(p_values=(1e-9, 0.8)), n_samples=9)
    assert judge([result(found)], [asked])[0][0].outcome is Outcome.FAIL


# ---- what follows by logic -------------------------------------------------------------------------------------------


def headline(metric: str, estimate: Any, *sensitive: str) -> Measurement:
    return Measurement(
        metric=metric, method="between_groups", estimate=estimate, n_samples=5_200, ideal=0.0, sensitive=sensitive
    )


def test_equalized_odds_within_its_bound_puts_equal_opportunity_within_it() -> None:
    tpr, fpr = ("true_positive_rate", (900, 890), (1_000, 1_000)), ("false_positive_rate", (90, 95), (1_000, 1_000))
    odds, opportunity = headline("eod", gap(tpr, fpr), "s"), headline("eop", gap(tpr), "s")
    # Something else cannot tell, and equal opportunity has a small share of what Holm leaves.
    unclear = rate("x", 9)
    demands = [criterion("eod", weight=1.0), criterion("eop", weight=1e-6), criterion("x")]
    findings, _ = judge([result(odds, opportunity, unclear)], demands)
    assert outcomes(findings)["p/between_groups/eod/s"] is Outcome.PASS
    follows = findings[1]
    assert follows.outcome is Outcome.PASS and follows.interval is not None and follows.interval[1] <= 0.1


def test_a_feature_that_fails_makes_its_intersection_fail_and_an_intersection_that_passes_its_features_pass() -> None:
    sex = ((300, 400), (1_000, 1_000))
    fine = ((150, 150, 200, 200), (500, 500, 500, 500))
    wide, narrow = headline("d", gap(("r", *fine)), "s", "t"), headline("d", gap(("r", *sex)), "s")
    demands = [criterion("d", 0.03, sensitive=("s", "t"), weight=1e-6), criterion("d", 0.03, sensitive=("s",))]
    findings, _ = judge([result(wide, narrow)], demands)
    assert [f.outcome for f in findings] == [Outcome.FAIL, Outcome.FAIL]
    assert "no nearer to the ideal" in findings[0].reason
    # Of other rows nothing follows: where small groups were left out the sums differ.
    fewer = headline("d", gap(("r", (150, 150, 170), (500, 500, 500))), "s", "t")
    assert judge([result(fewer, narrow)], demands)[0][0].outcome is Outcome.INCONCLUSIVE


def test_nothing_follows_from_a_budget_that_allows_itself_more() -> None:
    tpr, fpr = ("true_positive_rate", (900, 890), (1_000, 1_000)), ("false_positive_rate", (90, 95), (1_000, 1_000))
    odds, opportunity = headline("eod", gap(tpr, fpr), "s"), headline("eop", gap(tpr), "s")
    demands = [criterion("eod", 0.06, budget="wide", rate=0.1), criterion("eop", 0.06, budget="strict", rate=1e-4)]
    findings, _ = judge([result(odds, opportunity)], demands)
    assert [f.outcome for f in findings] == [Outcome.PASS, Outcome.INCONCLUSIVE]


def test_a_ratio_follows_the_other_way_round() -> None:
    fine, coarse = ("r", (400, 400, 400, 400), (500, 500, 500, 500)), ("r", (800, 800), (1_000, 1_000))
    wide, narrow = (headline("q", gap(t, kind=WorstRatio), *s) for t, s in ((fine, ("s", "t")), (coarse, ("s",))))
    demands = [
        criterion("q", 0.8, "at_least", sensitive=("s", "t")),
        criterion("q", 0.8, "at_least", sensitive=("s",), weight=1e-9),
    ]
    findings, _ = judge([result(wide, narrow, rate("x", 9))], [*demands, criterion("x")])
    assert [f.outcome for f in findings[:2]] == [Outcome.PASS, Outcome.PASS]
    assert findings[1].interval is not None and findings[1].interval[0] >= 0.8


# ---- the rates hold --------------------------------------------------------------------------------------------------


def test_weighted_levels_are_holms_and_bonferronis() -> None:
    for p in permutations((0.001, 0.012, 0.02, 0.3)):
        assert weighted_levels(p, [0.25] * 4, 0.05, flow=True) == pytest.approx(adjusted_levels(p, 0.05, "holm"))
        assert weighted_levels(p, [0.25] * 4, 0.05, flow=False) == [0.0125] * 4
    # Half of the rate is with somebody who is not here, and stays there.
    assert weighted_levels([1e-9, 0.04], [0.25, 0.25], 0.05, flow=True) == pytest.approx([0.0125, 0.05 / 3])


def closed_by_bonferroni(p: tuple[float, ...], w: tuple[float, ...], alpha: float) -> list[bool]:
    """Closed testing the slow way: every intersection by Bonferroni with weights in proportion to the members'."""
    k = len(p)

    def rejected(members: list[int]) -> bool:
        whole = sum(w[i] for i in members)
        return any(p[i] <= alpha * w[i] / whole for i in members)

    subsets = [[i for i in range(k) if bits >> i & 1] for bits in range(1, 1 << k)]
    return [all_of(rejected(s) for s in subsets if i in s) for i in range(k)]


def test_the_flow_is_closed_testing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        k = int(rng.integers(1, 6))
        p, w = rng.beta(0.3, 3.0, k), rng.dirichlet(np.ones(k))
        levels = weighted_levels(p.tolist(), w.tolist(), 0.05, flow=True)
        assert [bool(a <= b) for a, b in zip(p, levels, strict=True)] == closed_by_bonferroni(tuple(p), tuple(w), 0.05)


def dependent(shape: str, m: int, worlds: int, rng: np.random.Generator) -> np.ndarray:
    """(worlds, m) uniform p-values of nulls at the bound: independent, alike, or one against the others."""
    if shape == "independent":
        return rng.random((worlds, m))
    if shape == "equicorrelated":
        return np.asarray(
            ndtr(np.sqrt(0.7) * rng.normal(size=(worlds, 1)) + np.sqrt(0.3) * rng.normal(size=(worlds, m)))
        )
    shift = rng.random((worlds, 1))
    return np.asarray((shift + np.arange(m) / m) % 1.0)


SHARES: dict[str, Callable[[int], dict[str, Any]]] = {
    "equal": lambda i: {},
    "weights": lambda i: {"weight": 1.0 + i % 3},
    "primary": lambda i: {"primary": i % 4 == 0},
    "two bounds": lambda i: {},
}


SHAPES = ("independent", "equicorrelated", "one against the others")


@pytest.mark.grid
@pytest.mark.parametrize(
    ("m", "how", "shape"),
    [(m, how, shape) for m in (1, 8) for how in SHARES for shape in SHAPES]
    + [pytest.param(40, how, shape, marks=pytest.mark.slow) for how in ("equal", "primary") for shape in SHAPES[::2]],
)
def test_family_wise_rates_hold_at_the_bound(m: int, how: str, shape: str) -> None:
    """Every null true and at its bound, where every p-value is uniform; FAIL and PASS alike, conjunction included.

    Of one number's two sides one p-value is the other's complement. A third of the questions has three methods.
    """
    rng = np.random.default_rng([m, len(how), len(shape)])
    methods = [3 if i % 3 == 1 else 1 for i in range(m)]
    demands = [criterion(f"x{i}", **SHARES[how](i)) for i in range(m)]
    if how == "two bounds":
        demands += [criterion(f"x{i}", 0.2) for i in range(m)]
    made = result(*(rate(f"x{i}", 9, method=f"m{j}") for i in range(m) for j in range(methods[i])))
    pairs = [(made, x, c) for x in made.measurements for c in demands if c.applies_to("p", x)]
    column = {id(x): i for i, x in enumerate(made.measurements)}
    p = dependent(shape, len(made.measurements), WORLDS, rng)
    false_fail = false_pass = 0
    for world in p:
        # A looser bound is shown by the same interval: its p-value is no larger for PASS, no smaller for FAIL.
        tests = [(1.0 if c.bound == 0.2 else world[column[id(x)]], 1.0 - world[column[id(x)]]) for _, x, c in pairs]
        levels, _ = levels_of(pairs, tests, demands, Family())
        false_fail += any(t[0] <= level.fail for t, level in zip(tests, levels, strict=True))
        false_pass += any(
            t[1] <= level.passed and level.p_pass <= level.passed
            for t, level, (_, _, c) in zip(tests, levels, pairs, strict=True)
            if c.bound == 0.1
        )
    assert max(false_fail, false_pass) <= most_misses()
    if m == 1 and shape == "independent":
        assert min(false_fail, false_pass) > 0.02 * WORLDS


def test_a_false_null_among_true_ones_breaks_nothing() -> None:
    """Half of the questions are shown beyond doubt, so all that flows goes to the nulls that hold."""
    rng, m = np.random.default_rng(5), 8
    demands = [criterion(f"x{i}") for i in range(m)]
    made = result(*(rate(f"x{i}", 9) for i in range(m)))
    pairs = [(made, x, c) for x, c in zip(made.measurements, demands, strict=True)]
    missed = 0
    for world in dependent("one against the others", m // 2, WORLDS, rng):
        tests = [(float(p), float(p)) for p in (*world, *[1e-9] * (m // 2))]
        levels, _ = levels_of(pairs, tests, demands, Family())
        missed += any(t[0] <= level.fail for t, level in zip(tests[: m // 2], levels, strict=False))
    assert 0.03 * WORLDS < missed <= most_misses()
