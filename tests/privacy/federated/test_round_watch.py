"""Rounds as they are watched, without any framework: what is recorded, and how canaries are scored in a mean."""

from __future__ import annotations

import numpy as np
import pytest

from auditor.core.errors import UsageError
from auditor.privacy.federated.federated_linter import lint_any
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.federated.flower import CanarySettings, Entered, RoundWatch
from tests.quantifiers import all_of

STATED = FederatedRun(clipping_norm=0.5, noise_multiplier=1.0)
SHAPES = [np.zeros((6, 10)), np.zeros(20)]


def answers(rng: np.random.Generator, weights: list[float], first: int = 1) -> list[Entered]:
    found = []
    for i, weight in enumerate(weights, first):
        parts = [rng.standard_normal(s.shape) for s in SHAPES]
        length = np.sqrt(sum((p**2).sum() for p in parts))
        found.append(Entered(client=i, update=[0.5 * p / length for p in parts], weight=weight))
    return found


def settings(n: int = 40) -> CanarySettings:
    return CanarySettings(n_canaries=n, sample_rate=0.5, rng=np.random.default_rng(0))


def test_what_was_seen_stands_over_what_is_stated() -> None:
    rng, watch = np.random.default_rng(0), RoundWatch(STATED.model_copy(update={"rounds": 99, "n_rows": 7}))
    for asked, weights in (([1, 2, 3], [1.0, 1.0, 4.0]), ([1, 2, 5, 6], [2.0, 2.0])):
        watch.start_round(asked, available=50)
        watch.released(answers(rng, weights), SHAPES, 1.0, 0)
    watch.start_round([1, 2], available=49)
    watch.drop_round()
    seen = watch.record()
    assert (seen.rounds, seen.cohort_sizes, seen.n_clients, seen.n_rows) == (2, (3, 4, 2), 50, 7)
    assert (seen.answers_missing, seen.most_participations, seen.weight_ratio) == (2, 2, 4.0)
    assert seen.largest_update == pytest.approx(0.5) and seen.partial_cohorts == "dropped"
    assert (seen.weighting, seen.divided_by) == ("rows", "sum_of_weights")


def test_a_constant_sum_of_weights_is_a_constant_divisor() -> None:
    rng, watch = np.random.default_rng(0), RoundWatch(STATED)
    for _ in range(3):
        watch.start_round([1, 2, 3], available=3)
        watch.released(answers(rng, [2.0, 2.0, 2.0]), SHAPES, 1.0, 0)
    assert (watch.record().weighting, watch.record().divided_by) == ("uniform", "expected_cohort")


def test_a_rule_for_missing_clients_is_a_fault_only_of_rounds_in_which_some_were_missing() -> None:
    """As of Flower's private strategies, which release nothing of a round in which a client failed."""
    rng, stated = np.random.default_rng(0), STATED.model_copy(update={"partial_cohorts": "dropped"})
    for lost in (False, True):
        watch = RoundWatch(stated)
        for dropped in (False, lost, False):
            watch.start_round([1, 2], available=2)
            if dropped:
                watch.drop_round()
            else:
                watch.released(answers(rng, [1.0, 1.0]), SHAPES, 1.0, 0)
        found = {problem.code for problem in lint_any(watch.record()).problems}
        assert ("partial_cohorts" in found) is lost


@pytest.mark.parametrize(("largest", "sent"), [(3, 3), (7, None)])
def test_updates_of_a_few_coordinates_each_are_noticed(largest: int, sent: int | None) -> None:
    """The largest 3 of 7, while "all" is stated; and all of them."""
    rng, watch = np.random.default_rng(0), RoundWatch(STATED.model_copy(update={"coordinates": "all"}))
    for _ in range(4):
        clients = []
        for client in range(3):
            update = rng.standard_normal(7)
            update[np.argsort(-np.abs(update))[largest:]] = 0.0
            clients.append(Entered(client=client, update=[update[:4], update[4:]], weight=1.0))
        watch.start_round([0, 1, 2], available=3)
        watch.released(clients, [np.zeros(4), np.zeros(3)], 1.0, 0)
    seen = watch.record()
    assert (seen.coordinates_sent, seen.least_reports) == (sent, 3)
    assert ("coordinates_from_data" in dict(lint_any(seen).cannot_tell)) is (sent is not None)


def mean_of(entered: list[Entered], canaries: list[list[np.ndarray]], weight: float) -> list[np.ndarray]:
    total = sum(one.weight for one in entered) + weight * len(canaries)
    return [
        (sum(one.weight * one.update[k] for one in entered) + sum(weight * c[k] for c in canaries)) / total
        for k in range(len(SHAPES))
    ]


def test_a_score_counts_a_canarys_rounds_where_the_mean_has_no_noise() -> None:
    rng, watch = np.random.default_rng(1), RoundWatch(STATED, canaries=settings(), noise_cohort=5.0)
    times = np.zeros(80)
    for _ in range(10):
        watch.start_round(range(5), available=50)
        entered, sent = answers(rng, [1.0, 3.0, 2.0, 2.0, 1.0]), watch.canaries(SHAPES)
        times += np.sum([np.concatenate([p.ravel() for p in c]) / 0.5 for c in sent], axis=0)
        watch.released(entered, mean_of(entered, sent, 2.0), 2.0, len(sent))
    scores = watch.scores()
    assert scores is not None
    found = np.sort(scores.scores[scores.included])
    assert np.allclose(found, np.sort(times[times > 0])[-len(found) :], atol=1e-6)
    assert np.allclose(scores.scores[~scores.included], 0.0, atol=1e-6)
    # The heaviest of five clients has 3 of 9 parts, and noise is scaled for one of five.
    assert scores.sensitivity is not None and scores.sensitivity.largest == pytest.approx(3 / 9 * 5)


def test_noise_of_a_mean_is_counted_for_the_cohort_that_it_is_scaled_for() -> None:
    rng, watch = np.random.default_rng(2), RoundWatch(STATED, canaries=settings(), noise_cohort=5.0)
    for _ in range(40):
        watch.start_round(range(5), available=50)
        entered, sent = answers(rng, [1.0] * 5), watch.canaries(SHAPES)
        mean = [p + 0.5 / 5.0 * rng.standard_normal(p.shape) for p in mean_of(entered, sent, 1.0)]
        watch.released(entered, mean, 1.0, len(sent))
    scores = watch.scores()
    assert scores is not None
    (noise,) = scores.noise
    assert noise.squares.sum() / (40 * 80) == pytest.approx(1.0, abs=0.1)


def test_a_release_that_is_no_mean_is_scored_as_it_is_and_its_noise_is_not_tested() -> None:
    rng, watch = np.random.default_rng(3), RoundWatch(STATED, canaries=settings(), averages=False)
    watch.start_round(range(5), available=50)
    watch.canaries(SHAPES)
    watch.released(answers(rng, [1.0] * 5), [np.full(s.shape, 0.25) for s in SHAPES], 1.0, 0)
    scores = watch.scores()
    assert scores is not None and scores.noise == () and all_of(np.isclose(scores.scores, 0.5))
    assert watch.record().weighting is None


def test_dropped_rounds_leave_no_canaries_behind_and_none_are_made_without_a_norm() -> None:
    watch = RoundWatch(STATED, canaries=settings())
    for _ in range(2):
        watch.start_round(range(5), available=50)
        watch.canaries(SHAPES)
        watch.drop_round()
    assert watch.rounds_dropped == 2
    plain = RoundWatch(FederatedRun())
    assert plain.canaries(SHAPES) == [] and plain.scores() is None
    with pytest.raises(UsageError, match="noise_multiplier"):
        RoundWatch(FederatedRun(clipping_norm=1.0), canaries=settings())
