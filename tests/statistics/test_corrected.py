"""A share corrected for what its detector misses and for its false alarms: coverage over enumerated worlds."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom

from auditor.core.rows import FloatArray
from auditor.judging.measurement import Outcome
from auditor.statistics.error_corrected_rates import Corrected, corrected_bounds
from auditor.statistics.intervals import clopper_pearson
from tests.judging.test_judging import criterion, verdict
from tests.quantifiers import all_of

# pi, Se and specificity, from nearly useless detectors, and worse ones, to perfect ones.
SHARES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 0.97, 1.0)
RATES = (0.02, 0.2, 0.4, 0.5, 0.51, 0.6, 0.75, 0.9, 0.97, 0.99, 1.0)
SIZES = ((25, 14, 18), (120, 9, 12))
WORLDS = [(pi, se, sp) for pi, se, sp in product(SHARES, RATES, RATES)]


def weights(sizes: tuple[int, ...], rates: tuple[float, ...]) -> list[FloatArray]:
    return [binom.pmf(np.arange(m + 1), m, p) for m, p in zip(sizes, rates, strict=True)]


def every_table(sizes: tuple[int, int, int], alpha: float) -> tuple[FloatArray, FloatArray]:
    """Bounds at every outcome, each (n + 1, positives + 1, negatives + 1)."""
    n, positives, negatives = sizes
    k, found, spared = (np.arange(m + 1) for m in sizes)
    return corrected_bounds(
        k[:, None, None],
        n=n,
        n_found=found[:, None],
        positives=positives,
        spared=(spared,),
        negatives=(negatives,),
        alpha=alpha,
    )


def missed(sizes: tuple[int, int, int], alpha: float) -> FloatArray:
    """(worlds, 2) exact probabilities that the lower bound lies above the truth, and the upper one below it."""
    low, high = every_table(sizes, alpha)
    found = []
    for pi, se, sp in WORLDS:
        w = weights(sizes, (pi * se + (1.0 - pi) * (1.0 - sp), se, sp))
        found.append([np.einsum("abc,a,b,c", end, *w) for end in (low > pi + 1e-12, high < pi - 1e-12)])
    return np.asarray(found)


@pytest.mark.parametrize("sizes", SIZES)
def test_the_truth_is_held_in_at_least_95_per_cent_of_every_world(sizes: tuple[int, int, int]) -> None:
    """Exactly, in 2,420 worlds over both sizes, also where the detector is no better than chance, or worse."""
    assert 2 * len(WORLDS) >= 2_000 and sum(se + sp <= 1.02 for _, se, sp in WORLDS) > 400
    either = missed(sizes, 0.025)
    assert either.sum(axis=1).max() <= 0.05
    assert (either <= 0.025 + 1e-12).all() and either.max() > 1e-4
    assert (missed(sizes, 0.05 / 24) <= 0.05 / 24 + 1e-12).all()


def test_an_interval_without_the_detectors_own_error_would_break_the_promise() -> None:
    """Rates of the detector taken as known, as Rogan and Gladen's interval is commonly used."""
    sizes = SIZES[0]
    k, found, spared = (np.arange(m + 1) for m in sizes)
    low, high = clopper_pearson(k, n=sizes[0], alpha=0.025)
    se, f = (found / sizes[1])[:, None], 1.0 - spared / sizes[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        naive = [np.where(se > f, (end[:, None, None] - f) / (se - f), edge) for end, edge in ((low, 0.0), (high, 1.0))]
    worst = 0.0
    for pi, p, sp in WORLDS:
        w = weights(sizes, (pi * p + (1.0 - pi) * (1.0 - sp), p, sp))
        worst = max(worst, float(np.einsum("abc,a,b,c", (naive[0] > pi) | (naive[1] < pi), *w)))
    assert worst > 0.3


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_where_sensitivity_and_specificity_add_up_to_about_one_nothing_is_known(rate: float) -> None:
    told = 0.0
    for sizes in SIZES:
        low, high = every_table(sizes, 0.025)
        w = weights(sizes[1:], (rate, 1.0 - rate))
        told = max(told, float(np.einsum("bc,b,c", ((low > 0.0) | (high < 1.0)).any(axis=0), *w)))
    assert told <= 0.05
    useless = Corrected(successes=90, n=400, found=10, positives=20, spared=(10,), negatives=(20,))
    assert useless.bounds(0.025) == (0.0, 1.0) and math.isnan(useless.value)
    finding = verdict(useless, criterion(bound=0.9))
    assert finding.outcome is Outcome.INCONCLUSIVE and "nothing follows from it" in finding.reason


def test_the_value_is_rogan_and_gladens() -> None:
    """Their formula by hand: (0.2 - 0.1) / (0.9 - 0.1)."""
    x = Corrected(successes=80, n=400, found=90, positives=100, spared=(180,), negatives=(200,))
    assert x.value == pytest.approx(0.125)
    both = Corrected(successes=80, n=400, found=90, positives=100, spared=(190, 95), negatives=(200, 100))
    assert both.value == pytest.approx(0.125)
    some = x.model_copy(update={"candidates": 100})
    assert some.value == pytest.approx((0.2 - 0.25 * 0.1) / (0.9 * 0.9))


def test_a_detector_without_fault_leaves_a_proportion() -> None:
    x = Corrected(successes=30, n=300, found=10**6, positives=10**6, spared=(10**6,), negatives=(10**6,))
    low, high = clopper_pearson(30, n=300, alpha=0.05 / 3)
    assert x.value == pytest.approx(0.1) and x.bounds(0.05) == pytest.approx((float(low), float(high)), abs=1e-4)


# ---- rows of which most are no candidates --------------------------------------------------------------------------


def hard_worlds() -> list[tuple[float, float, float, float]]:
    """pi, Se, f, and the share of other rows that look like it; positives are candidates where they are found."""
    return list(product((0.0, 0.02, 0.5, 0.95), (0.6, 0.95), (0.02, 0.3), (0.1, 1.0)))


@pytest.mark.parametrize(("easier", "n"), [(1.0, 150), (0.3, 150), (1.0, 60)])
def test_candidates_alone_bring_false_alarms_and_the_truth_is_held(easier: float, n: int) -> None:
    """By simulation; ``easier``: how often false alarms are among rows, against those among the known negatives.

    60 rows are those of `pii_leakage` where nothing but its own beginnings is there.
    """
    rng, worlds = np.random.default_rng(int(10 * easier)), 1_000
    positives, negatives, alpha = 40, 60, 0.05
    for pi, se, f, looks in hard_worlds():
        said = pi * se + (1.0 - pi) * looks * f * easier
        quiet = (1.0 - pi) * looks * (1.0 - f * easier)
        k, others, _ = rng.multinomial(n, (said, quiet, max(1.0 - said - quiet, 0.0)), worlds).T
        low, high = corrected_bounds(
            k,
            n=n,
            n_found=rng.binomial(positives, se, worlds),
            positives=positives,
            spared=(rng.binomial(negatives, 1.0 - f, worlds),),
            negatives=(negatives,),
            candidates=k + others,
            alpha=alpha,
        )
        most = binom.ppf(0.9999, worlds, alpha)
        assert (low > pi + 1e-12).sum() <= most and (high < pi - 1e-12).sum() <= most


def test_a_rare_finding_is_shown_only_where_few_rows_are_candidates() -> None:
    """5 % of rows: shown to be above 1 % where 8 % of all are candidates, and not where any row may be one."""
    told = {"successes": 50, "n": 1_000, "found": 140, "positives": 141, "spared": (130,), "negatives": (131,)}
    assert Corrected(**told, candidates=80).bounds(0.05)[0] > 0.02
    assert Corrected(**told, candidates=1_000).bounds(0.05)[0] < 0.01
    # The upper bound gives no credit for false alarms.
    high = Corrected(**told, candidates=80).bounds(0.05)[1]
    assert high == Corrected(**told, candidates=1_000).bounds(0.05)[1] > clopper_pearson(50, n=1_000, alpha=0.05)[1]


def test_rows_that_nobody_points_at_are_none_however_often_others_are_pointed_at_wrongly() -> None:
    told = {"n": 400, "found": 140, "positives": 141, "spared": (130, 0), "negatives": (131, 60)}
    quiet = Corrected(**told, successes=0, candidates=200)
    assert quiet.value == 0.0 and quiet.bounds(0.05)[1] < 0.02
    loud = Corrected(**told, successes=390, candidates=400)
    assert loud.value == 0.0 and loud.bounds(0.05)[0] == 0.0 and "nothing follows from it" in loud.undecided()


@pytest.mark.parametrize(
    "wrong",
    [
        {"successes": 11},
        {"found": 6},
        {"spared": (6,)},
        {"spared": (1, 1)},
        {"candidates": 1},
        {"candidates": 11},
        {"spared": (), "negatives": ()},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong: dict[str, int | tuple[int, ...]]) -> None:
    right = {"successes": 2, "n": 10, "found": 3, "positives": 5, "spared": (4,), "negatives": (5,)}
    assert Corrected(**right).value == pytest.approx(0.0)
    with pytest.raises(ValidationError):
        Corrected(**(right | wrong))


def test_without_any_row_of_one_sort_nothing_is_known() -> None:
    right = {"successes": 2, "n": 10, "found": 5, "positives": 5, "spared": (5,), "negatives": (5,)}
    none = [{"successes": 0, "n": 0}, {"found": 0, "positives": 0}, {"spared": (0,), "negatives": (0,)}]
    estimates = [Corrected(**(right | some)) for some in none]
    assert all_of(math.isnan(x.value) and x.bounds(0.05) == (0.0, 1.0) for x in estimates)
