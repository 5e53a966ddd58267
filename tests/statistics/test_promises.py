"""Every kind that a criterion may rest on keeps its promise in the worst worlds there are; no other kind is judged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pytest

from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome
from auditor.statistics import rate_pairs
from auditor.statistics.estimate_kinds import JUDGED, unjudgeable
from auditor.statistics.means import StandardizedDifference, StudentT
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rate_pairs import TwoRates
from auditor.statistics.rates import Proportion
from auditor.statistics.values import LargestGap, LargestValue, WorstValueGap, bounded_mean
from tests.judging.test_judging import criterion, result
from tests.quantifiers import all_of, none_of
from tests.statistics.adversaries import ADVERSARIES, LEVELS, World, counts
from tests.statistics.estimate_examples import EXAMPLES, KINDS

# Nothing of these is sampled: what is known, what is known to be at most so much, and what is not known at all.
WITHOUT_SAMPLES = {"exact", "upper_bound", "undefined"}


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rates are enumerated once for each pair of counts: samples of three groups are made of the same few."""
    monkeypatch.setattr(rate_pairs, "_order_tables", lru_cache(maxsize=5_000)(rate_pairs._OrderedTables))
    asked = lru_cache(maxsize=50_000)(lambda of, value: TwoRates(of[0], of[1], contrast=of[2], either=of[3]).now(value))
    monkeypatch.setattr(TwoRates, "now", TwoRates.p_value, raising=False)
    monkeypatch.setattr(TwoRates, "p_value", lambda self, value: asked(self._of, value))


def worlds(kind: str) -> Iterator[World]:
    return chain.from_iterable(case() for case in ADVERSARIES[kind])


def test_a_kind_is_judged_where_it_has_an_adversary_and_else_says_why_not() -> None:
    assert set(ADVERSARIES) | WITHOUT_SAMPLES == JUDGED
    assert JUDGED <= set(KINDS)
    assert {kind for kind in KINDS if kind not in JUDGED} == {"student_t", "standardized_difference"}
    shown = [EXAMPLES[kind].usual for kind in KINDS if kind not in JUDGED]
    assert all_of("no criterion may rest on it." in unjudgeable(estimate) for estimate in shown)
    assert none_of(unjudgeable(EXAMPLES[kind].usual) for kind in JUDGED & set(EXAMPLES))


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("kind", ADVERSARIES)
def test_no_bound_is_missed_more_often_than_it_promises(kind: str) -> None:
    """Exactly, at 5 %, at what one of 24 questions is left with, and at 1 in 10,000; either bound for itself."""
    seen = 0.0
    for number, world in enumerate(worlds(kind)):
        assert {estimate.kind for estimate, _ in world.samples} - {"undefined"} == {kind}
        missed = world.missed()
        assert (missed <= np.asarray(LEVELS)[:, None] * (1.0 + 1e-9)).all(), (number, world.truth, missed.tolist())
        seen = max(seen, float(missed.max()))
    if kind not in ("gap_change", "worst_value_distance"):
        assert seen > 0.0


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("kind", ["worst_difference", "bounded_mean", "area_under_curve"])
def test_an_interval_that_promises_too_much_is_found_out(kind: str) -> None:
    """The same worlds, judged at twice the level, or nearly so: an enumeration that cannot fail shows nothing."""
    most = 0.0
    for world in worlds(kind):
        weight = np.asarray([w for _, w in world.samples])
        narrow = np.stack([estimate.many_bounds(np.asarray([0.4])) for estimate, _ in world.samples])[:, 0]
        most = max(most, float(weight @ (narrow[:, 0] > world.truth + 1e-9)))
        if most > 0.05:
            break
    assert most > 0.05


def test_an_area_without_its_third_cumulant_would_miss_too_often() -> None:
    """Positives of which a few lie above every negative, and all others below."""
    m, n, share = 400, 4_000, 0.945
    samples = []
    for k, w in counts(m, share):
        scores = np.where(np.arange(m) < k, -1.0, 1.0)
        samples.append((area_under_curve(positives=scores, negatives=np.zeros(n)), w))
    plain = [(estimate.model_copy(update={"third_cumulant": 0.0}), w) for estimate, w in samples]
    levels = np.asarray(LEVELS)
    now, before = (World(some, 1.0 - share).missed().max(axis=1) / levels for some in (samples, plain))
    assert now.max() <= 1.0 < before[1] < before[2]


def test_its_third_cumulant_costs_an_area_about_a_hundredth_of_its_width() -> None:
    rng = np.random.default_rng(0)
    for d, (m, n) in ((0.0, (100, 100)), (0.4, (100, 1_000)), (1.2, (200, 200)), (2.3, (500, 500))):
        whole = area_under_curve(positives=rng.normal(d, 1.0, m), negatives=rng.normal(0.0, 1.0, n))
        plain = whole.model_copy(update={"third_cumulant": 0.0})
        for alpha, most in ((0.05, 1.013), (0.05 / 24, 1.035), (1e-4, 1.05)):
            assert np.ptp(whole.bounds(alpha)) < most * np.ptp(plain.bounds(alpha))


STUDENT = StudentT(centre=0.5, standard_error=0.01, degrees_of_freedom=40)
MEAN = bounded_mean(np.linspace(0.0, 1.0, 40), low=0.0, high=1.0)


@pytest.mark.parametrize(
    "estimate",
    [
        STUDENT,
        StandardizedDifference(centre=0.1, n_first=30, n_second=30),
        WorstValueGap(parts=(MEAN, STUDENT)),
        LargestValue(parts=(STUDENT, MEAN)),
        LargestGap(gaps=(WorstValueGap(parts=(MEAN, MEAN)), WorstValueGap(parts=(MEAN, STUDENT)))),
    ],
)
@pytest.mark.parametrize("bound", [0.0, 0.9])
def test_no_criterion_rests_on_what_is_shown_alone(estimate: Any, bound: float) -> None:
    """Neither a PASS nor a FAIL of it, in a sentence; it takes nothing from the others, and its interval is there."""
    shown = Measurement(metric="shown", estimate=estimate, n_samples=100, ideal=0.0)
    other = Measurement(metric="other", estimate=Proportion(successes=1, n=400), n_samples=400, ideal=0.0)
    demands = [criterion("shown", bound=bound), criterion("other", bound=0.05)]
    findings, family = judge([result(shown, other)], demands)
    refused, judged = findings
    assert refused.outcome is Outcome.NOT_RUN and refused.reason == unjudgeable(estimate)
    assert refused.p_fail is refused.p_pass is None and refused.interval is not None
    assert judged.outcome is Outcome.PASS and family.m == 1
    alone = judge([result(other)], [criterion("other", bound=0.05)])[0][0]
    assert alone.interval == judged.interval


def test_the_words_of_the_probe_say_what_to_judge_instead() -> None:
    shown = Measurement(metric="shown", estimate=STUDENT, n_samples=9, ideal=0.0, too_few="Set a bound on other.")
    (finding,) = judge([result(shown)], [criterion("shown", bound=0.9)])[0]
    assert finding.outcome is Outcome.NOT_RUN and finding.reason == f"{unjudgeable(STUDENT)} Set a bound on other."
