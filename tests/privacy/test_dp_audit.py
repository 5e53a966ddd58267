"""The verdict: counts by hand, its chance of being wrong at the claim, its power, and when it cannot tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import UsageError
from auditor.privacy.accounting import Phase, noise_for, privacy_spent
from auditor.privacy.dp_audit_scores import (
    DIRAC,
    CanaryScores,
    audit_claim,
    default_guesses,
    largest_provable,
    multi_run,
    n_correct_guesses,
    pooled,
    smallest_refuting,
)
from tests.statistics.worlds import WORLDS, most_misses

DELTA = 1e-5
RATE, STEPS = 0.1, 100
# What the accountant asks for at epsilon 1: see test_the_noise_is_what_epsilon_1_asks_for.
NOISE = 3.9758628209501596
ACCOUNTING = (Phase(noise_multiplier=NOISE, sample_rate=RATE, steps=STEPS),)


def ideal(m: int, factor: float, rng: np.random.Generator) -> CanaryScores:
    """Dirac canaries of a run whose rows do not interfere, with a share of the noise."""
    coins = rng.random(m) < 0.5
    drawn = np.where(coins, rng.binomial(STEPS, RATE, m), 0)
    scores = drawn + rng.normal(0.0, factor * NOISE * math.sqrt(STEPS) + 1e-9, m)
    return CanaryScores(included=coins, scores=scores, kind=DIRAC, steps=STEPS, sample_rate=RATE)


def audit(canaries: CanaryScores, seed: int = 0, **more: Any) -> Any:
    options: dict[str, Any] = {"claimed_epsilon": 1.0, "delta": DELTA, "factors": ()} | more
    return audit_claim(canaries, rng=np.random.default_rng(seed), **options)


def test_guesses_by_hand() -> None:
    canaries = CanaryScores(
        included=np.array([True, False, True, False, True, False]), scores=np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    )
    rng = np.random.default_rng(0)
    # One guess: the highest is in. Two: the lowest is out. Three: 6 and 5 in, 1 out. Four: 2 is guessed out too.
    assert [n_correct_guesses(canaries, r, rng) for r in (1, 2, 3, 4, 6)] == [1, 2, 2, 2, 4]


def test_ties_are_broken_by_chance_and_not_by_place() -> None:
    canaries = CanaryScores(included=np.arange(1000) < 500, scores=np.zeros(1000))
    right = [n_correct_guesses(canaries, 1000, np.random.default_rng(s)) for s in range(20)]
    assert 450 < min(right) < max(right) < 550


def test_the_claim_is_contradicted_by_perfect_guesses_and_the_best_number_of_them_counts() -> None:
    coins = np.random.default_rng(0).random(1000) < 0.5
    result = audit(CanaryScores(included=coins, scores=coins.astype(float)), guesses=(100, 1000))
    assert result.verdict == "contradicted" and "false" in result.reason
    # Equal numbers in and out are forced by the guesses only where the coins fell so.
    assert [g.alpha for g in result.guesses] == pytest.approx([0.025, 0.025])
    assert result.lower_bound == max(max(g.lower_bound, g.f_dp_lower_bound) for g in result.guesses)
    assert (
        result.lower_bound
        <= result.largest_provable
        == pytest.approx(largest_provable(1000, n_guesses=1000, delta=DELTA, alpha=0.025))
    )


def test_few_canaries_cannot_tell_and_say_so() -> None:
    coins = np.arange(20) < 10
    result = audit(CanaryScores(included=coins, scores=coins.astype(float)), claimed_epsilon=8.0)
    assert result.verdict == "cannot_tell" and "more canaries" in result.reason
    assert result.largest_provable < 8.0


def test_correct_noise_is_contradicted_in_at_most_5_percent_of_audits() -> None:
    rng = np.random.default_rng(1)
    wrong = sum(
        audit(ideal(300, 1.0, rng), seed, accounting=ACCOUNTING).verdict == "contradicted" for seed in range(WORLDS)
    )
    assert wrong <= most_misses()


def test_at_the_bound_of_the_theorem_the_claim_is_contradicted_in_at_most_5_percent() -> None:
    # Randomised response with epsilon exactly 1: no (1, delta)-DP run lets more be guessed.
    rng = np.random.default_rng(2)
    numbers, m = default_guesses(300), 300
    needed = [smallest_refuting(m, r, 1.0, DELTA, 0.05 / len(numbers)) for r in numbers]
    wrong = 0
    for _ in range(WORLDS):
        coins = rng.random(m) < 0.5
        told = np.where(rng.random(m) < math.e / (1 + math.e), coins, ~coins)
        canaries = CanaryScores(included=coins, scores=told.astype(float))
        wrong += any(n_correct_guesses(canaries, r, rng) >= least for r, least in zip(numbers, needed, strict=True))
    assert wrong <= most_misses()


@pytest.mark.slow
@pytest.mark.parametrize("factor, most, least", [(0.0, 1.0, 0.95), (0.25, 1.0, 0.95), (1.0, 0.05, 0.0)])
def test_the_stated_power_is_that_of_audits(factor: float, most: float, least: float) -> None:
    rng = np.random.default_rng(4)
    stated = audit(ideal(500, 1.0, rng), accounting=ACCOUNTING, factors=(factor,)).power
    assert [f for f, _ in stated] == [factor] and least <= stated[0][1] <= most + 0.02
    caught = [
        audit(ideal(500, factor, rng), seed, accounting=ACCOUNTING).verdict == "contradicted" for seed in range(12)
    ]
    assert (np.mean(caught) >= 0.75) == (least > 0.5)


def test_the_whole_curve_is_refuted_where_one_epsilon_is_not() -> None:
    rng = np.random.default_rng(5)
    # With half the noise epsilon is 2.4: within a claim of 3, and not what was accounted for.
    run = pooled([ideal(1000, 0.5, rng) for _ in range(3)])
    result = audit(run, claimed_epsilon=3.0, accounting=ACCOUNTING)
    assert result.lower_bound < 3.0
    assert result.accounting_refuted and result.verdict == "contradicted" and "accountant" in result.reason
    assert result.accounted_epsilon == pytest.approx(privacy_spent(ACCOUNTING, DELTA, "prv").epsilon)


def test_an_accounting_that_promises_nothing_is_left_out_or_refutes_nothing() -> None:
    coins = np.random.default_rng(0).random(200) < 0.5
    perfect = CanaryScores(included=coins, scores=coins.astype(float), kind=DIRAC)
    tiny = (Phase(noise_multiplier=0.01, sample_rate=0.1, steps=1000),)
    assert audit(perfect, accounting=tiny).accounting_refuted is None
    none = (Phase(noise_multiplier=0.0, sample_rate=0.1, steps=1000),)
    result = audit(perfect, accounting=none)
    assert result.accounting_refuted is False and result.accounted_epsilon == math.inf
    assert result.verdict == "contradicted"


def test_a_claim_that_its_own_accounting_exceeds_is_no_pass() -> None:
    quarter = (Phase(noise_multiplier=NOISE, sample_rate=RATE, steps=4 * STEPS),)
    accounted = privacy_spent(quarter, DELTA, "prv").epsilon
    assert accounted is not None and accounted > 1.5
    blind = CanaryScores(included=np.arange(400) % 2 == 0, scores=np.arange(400) // 2 * 1.0)
    result = audit(blind, accounting=quarter)
    assert result.verdict == "not_supported" and result.accounted_epsilon == pytest.approx(accounted)
    assert f"{accounted:.3g}" in result.reason and "above the claim of 1" in result.reason
    assert audit(blind, accounting=quarter, claimed_epsilon=accounted - 0.01).verdict == "cannot_tell"
    assert audit(blind, accounting=quarter, claimed_epsilon=accounted - 0.1).verdict == "not_supported"
    # Gaussian noise keeps no epsilon at delta 0, and none at all where there is no noise.
    assert "delta 0" in audit(blind, accounting=quarter, delta=0.0).reason
    none = (Phase(noise_multiplier=0.0, sample_rate=RATE, steps=STEPS),)
    assert audit(blind, accounting=none).verdict == "not_supported"
    many = multi_run(blind, claimed_epsilon=1.0, delta=DELTA, accounting=quarter)
    assert many.verdict == "not_supported" and many.accounted_epsilon == pytest.approx(accounted)
    # What is shown to be false is so, whatever is accounted.
    perfect = CanaryScores(included=blind.included, scores=blind.included.astype(float))
    assert audit(perfect, accounting=quarter).verdict == "contradicted"


def test_power_that_is_not_known_is_not_promised() -> None:
    blind = CanaryScores(included=np.arange(400) % 2 == 0, scores=np.arange(400) // 2 * 1.0)
    for result in (audit(blind, factors=(0.0,)), multi_run(blind, claimed_epsilon=1.0, delta=DELTA)):
        assert result.verdict == "cannot_tell" and result.power == () and result.power_unknown
        assert "of the time" not in result.reason and result.power_unknown in result.reason
    dirac = audit(ideal(400, 1.0, np.random.default_rng(7)), accounting=ACCOUNTING, factors=(0.0, 0.5))
    half = dict(dirac.power)[0.5]
    # Guesses alone do not see half the noise often enough to call anything consistent with the whole.
    assert dirac.verdict == "cannot_tell" and half < 0.8 and f"{half:.0%} of the time" in dirac.reason
    assert "under 80%" in dirac.reason and not dirac.power_unknown
    without = audit(ideal(400, 1.0, np.random.default_rng(7)), factors=(0.0,))
    assert without.power == () and "not given" in without.power_unknown


def test_the_same_seed_gives_the_same_audit() -> None:
    canaries = ideal(200, 0.5, np.random.default_rng(6))
    first, again = (audit(canaries, 3, accounting=ACCOUNTING, factors=(0.5,)) for _ in range(2))
    assert first == again


def test_many_runs_count_their_second_half() -> None:
    coins = np.tile([True, False], 100)
    perfect = CanaryScores(included=coins, scores=coins.astype(float))
    result = multi_run(perfect, claimed_epsilon=1.0, delta=0.0)
    p = 0.025 ** (1 / 50)
    assert result.lower_bound == pytest.approx(math.log(p / (1 - p)))
    assert result.lower_bound == pytest.approx(result.largest_provable) and result.verdict == "contradicted"
    blind = CanaryScores(included=coins, scores=np.random.default_rng(0).normal(size=200))
    assert multi_run(blind, claimed_epsilon=1.0, delta=0.0).verdict == "cannot_tell"
    with pytest.raises(UsageError, match="at least 8 runs"):
        multi_run(CanaryScores(included=coins[:4], scores=np.zeros(4)), claimed_epsilon=1.0, delta=0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"claimed_epsilon": -1.0}, "claimed epsilon"),
        ({"delta": 1.0}, "delta"),
        ({"confidence": 1.0}, "confidence"),
        ({"guesses": (0,)}, "number of guesses"),
        ({"guesses": (11,)}, "number of guesses"),
        ({"guesses": ()}, "number of guesses"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        audit(CanaryScores(included=np.arange(10) < 5, scores=np.arange(10.0)), **change)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="diverged"):
        CanaryScores(included=np.array([True]), scores=np.array([np.nan]))
    with pytest.raises(UsageError, match="one coin and one score"):
        CanaryScores(included=np.array([True, False]), scores=np.array([1.0]))
    with pytest.raises(UsageError, match="no run"):
        pooled([])


def test_the_noise_is_what_epsilon_1_asks_for() -> None:
    assert NOISE == pytest.approx(noise_for(1.0, DELTA, sample_rate=RATE, steps=STEPS, accountant="prv"), rel=1e-6)
