"""A question begins where a model at the ideal passes it with 95 % probability: more rows turn no exit 0 into 3."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judging import Judgement, judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.run.membership_scores import MembershipHead
from probes.language.calibration import GAP
from probes.privacy.membership.attack_metrics import FALSE_POSITIVE_RATES, Attack, rate_at
from probes.privacy.membership.attack_results import worst_groups
from tests.probes.privacy.membership.test_exposed import attacked
from tests.quantifiers import all_of, none_of

Rng = np.random.Generator
WORLDS = 100


def judged(measurement: Measurement, probe: str, criterion: Criterion) -> Judgement:
    result = ProbeResult(probe=probe, pillar="privacy", citation="", measurements=(measurement,))
    [finding] = judge([result], [criterion])[0]
    return finding


def conditional() -> list[Criterion]:
    return [c for c in load_criteria() if c.if_rows_suffice]


def attack(rng: Rng, n: int) -> Measurement:
    """An attack that tells nothing, on n members and as many non-members."""
    rate = min(FALSE_POSITIVE_RATES)
    stand_in = Attack(
        method="rmia", scores=np.empty(0), scored=np.empty(0, bool), threshold=0.0, threshold_words="", detail=""
    )
    return rate_at(stand_in, rng.random(n), rng.random(n), rate, "")


def attack_by_group(rng: Rng, n: int) -> Measurement:
    """The same by group, of whom one has a fifth of the members."""
    groups = 2 * ["abbbb"[i % 5] for i in range(n)]
    stand_in, pool = attacked(rng.random(2 * n), np.arange(2 * n) < n, groups)
    (found,) = worst_groups([stand_in], pool, MembershipHead.model_construct(n_shadows=8))
    return found


# Of each conditional metric: a number at the ideal from so many rows of each kind, and the probe that asks.
AT_THE_IDEAL: dict[str, tuple[Callable[[Rng, int], Measurement], str, tuple[int, ...]]] = {
    "true_positive_rate_at_fpr": (attack, "membership_inference", (9_999, 10_000, 15_000, 21_000, 30_000)),
    "worst_group_true_positive_rate_at_fpr": (
        attack_by_group,
        "membership_inference",
        (999, 1_990, 2_100, 2_500, 6_000),
    ),
}


def test_every_conditional_criterion_of_the_profile_is_among_these() -> None:
    # How many rows a corrected gap takes depends on the gap itself: planned, the worst gaps would never be judged.
    assert {c.metric for c in conditional()} == {*AT_THE_IDEAL, GAP}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("metric", AT_THE_IDEAL)
def test_no_more_than_five_in_a_hundred_models_at_the_ideal_are_held_up_at_any_size(metric: str) -> None:
    """Of 10,000 non-members 30 % were INCONCLUSIVE, and of 9,999 none was: more rows turned 0 into 3."""
    make, probe, sizes = AT_THE_IDEAL[metric]
    [criterion] = [c for c in conditional() if c.metric == metric]
    shares = []
    for size in sizes:
        rng = np.random.default_rng(size)
        outcomes = [judged(make(rng, size), probe, criterion).outcome for _ in range(WORLDS)]
        assert none_of(outcome in (Outcome.FAIL, Outcome.NOT_RUN) for outcome in outcomes)
        shares.append(sum(outcome is not Outcome.INCONCLUSIVE for outcome in outcomes) / WORLDS)
    # 5 % and three standard deviations of so many worlds.
    assert all_of(share >= 0.95 - 3.0 * (0.05 * 0.95 / WORLDS) ** 0.5 for share in shares), shares
    begun = judged(make(np.random.default_rng(0), sizes[-1]), probe, criterion)
    assert begun.outcome is Outcome.PASS, "it never begins"


def test_a_question_that_has_not_begun_says_from_how_many_rows_it_is_asked() -> None:
    [criterion] = [c for c in conditional() if c.metric == "true_positive_rate_at_fpr"]
    found = judged(attack(np.random.default_rng(0), 12_000), "membership_inference", criterion)
    assert found.outcome is Outcome.NOT_JUDGED and found.n_required is not None and found.n_required > 18_000
    assert "PASSes it with 95% probability: until then nothing is required" in found.reason
    later = judged(attack(np.random.default_rng(0), found.n_required), "membership_inference", criterion)
    assert later.outcome is Outcome.PASS
