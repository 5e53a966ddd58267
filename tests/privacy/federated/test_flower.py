"""Flower's own strategies, watched: 50 clients in one process, driven by ``Strategy.start`` as a server app drives it.

Nothing of Flower is replaced but the transport: a grid that asks the clients by calling them. The same training in
Flower's simulation engine is ``benchmarks/flower_simulation.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import MissingExtraError, UsageError
from auditor.core.randomness import seeded_globals
from auditor.privacy.accounting import Phase
from auditor.privacy.dp_audit_scores import audit_claim
from auditor.privacy.federated.federated_linter import lint_any
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.federated.flower import CanarySettings, averages, facts_of, watched
from benchmarks.flower_clients import CLIENTS, adult, generated, split, trained
from tests.quantifiers import all_of

COHORT, ROUNDS, NORM, NOISE, DELTA = 10, 12, 0.5, 1.0, 1e-3
STATED = FederatedRun.model_validate(
    {
        "claimed_epsilon": 30.0,
        "delta": DELTA,
        "unit": "client",
        "claim_toward": "released_model",
        "accountant": "prv",
        "phases": [{"noise_multiplier": NOISE, "sample_rate": 1.0, "steps": ROUNDS}],
        "cohort_secret": False,
        "cohort_rate": COHORT / CLIENTS,
        "coordinates": "all",
        "local_steps": 5,
        "sees_updates": "server",
        "preprocessing": "public",
        "n_trials": 1,
        "noise_seed_known": False,
    }
)


def test_without_flower_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[federated\]"):
        watched(object())


needs_flower = pytest.mark.skipif(
    find_spec("flwr") is None, reason="needs Flower: pip install 'responsible-auditor[federated]'"
)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Flower draws cohorts and noise from global generators."""
    with seeded_globals(np.random.default_rng(0)):
        yield


class InProcess:
    """A grid whose nodes are functions: number n answers a message by training on its own rows."""

    def __init__(self, clients: list[Any], *, weight: Callable[[int], float], fails: frozenset[int] = frozenset()):
        self.clients, self.weight, self.fails = clients, weight, fails
        self.identify()

    def get_node_ids(self) -> list[int]:
        return list(range(1, len(self.clients) + 1))

    @staticmethod
    def identify() -> None:
        """Says who sends messages, as the process of a server app is told at its start; earlier versions ask nobody."""
        try:
            from flwr.supercore.task_identity import TaskIdentity
        except ImportError:
            return
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Any]:
        from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict

        answers = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node in self.fails:
                answers.append(Message(Error(code=0, reason="gone"), reply_to=message))
                continue
            before = message.content["arrays"].to_numpy_ndarrays()
            arrays = trained(before, *self.clients[node - 1])
            metrics = {"num-examples": self.weight(node), "loss": 0.0}
            if (norm := message.content["config"].get("clipping_norm")) is not None:
                # As Flower's own mods of the client app clip.
                arrays, metrics["norm_bit"] = clipped_at(float(norm), before, arrays)
            content = RecordDict({"arrays": ArrayRecord(numpy_ndarrays=arrays), "metrics": MetricRecord(metrics)})
            answers.append(Message(content, reply_to=message))
        return answers


def clipped_at(norm: float, before: list[Any], after: list[Any]) -> tuple[list[Any], int]:
    """What a client sends of an update that is clipped at a norm, and whether it was within it."""
    change = [a - b for a, b in zip(after, before, strict=True)]
    size = float(np.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for part in change)))
    scale = np.float32(min(1.0, norm / size) * (1.0 - 1e-6)) if size else np.float32(1.0)
    return [b + scale * part for b, part in zip(before, change, strict=True)], int(size <= norm)


def run(
    source: Callable[[], tuple[Any, Any]],
    *,
    noise: float = NOISE,
    by_rows: bool = False,
    canaries: int = 0,
    clipped: bool = True,
    fails: frozenset[int] = frozenset(),
    stated: FederatedRun = STATED,
    rounds: int = ROUNDS,
    inner: Any = None,
    private: Callable[[Any], Any] | None = None,
) -> Any:
    """The watched strategy after its rounds; with ``noise`` other than the strategy says, by a strategy that lies."""
    from flwr.app import ArrayRecord
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

    x, y = source()
    clients = split(x, y)
    base = inner or FedAvg(
        fraction_train=COHORT / CLIENTS, fraction_evaluate=0.0, min_evaluate_nodes=0, min_train_nodes=2
    )
    strategy: Any = base
    if private is not None:
        strategy = private(base)
    elif clipped:
        strategy = DifferentialPrivacyServerSideFixedClipping(base, noise, NORM, COHORT)
    settings = None
    if canaries:
        settings = CanarySettings(n_canaries=canaries, sample_rate=0.2, rng=np.random.default_rng(3))
    result = watched(strategy, stated, canaries=settings)
    # What the strategy says of its noise and what it does are two things where it is made to lie.
    if private is None:
        result.watch.stated = result.watch.stated.model_copy(update={"noise_multiplier": NOISE})
    weight = (lambda node: len(clients[node - 1][1])) if by_rows else (lambda node: 1)
    first = ArrayRecord(numpy_ndarrays=[np.zeros(x.shape[1], np.float32), np.zeros(1, np.float32)])
    result.start(InProcess(clients, weight=weight, fails=fails), first, num_rounds=rounds)
    return result


@needs_flower
@pytest.mark.parametrize("source", [generated, pytest.param(adult, marks=pytest.mark.slow)])
def test_a_run_is_recorded_as_it_was_and_a_right_one_is_clean(source: Any) -> None:
    seen = run(source).watch.record()
    assert (seen.rounds, seen.cohort_sizes, seen.n_clients) == (ROUNDS, (COHORT,) * ROUNDS, CLIENTS)
    assert (seen.cohort, seen.weighting, seen.weight_ratio, seen.answers_missing) == ("fixed_size", "uniform", 1.0, 0)
    assert (seen.clipping, seen.clipped_at, seen.noise_at) == ("per_client", "server", "server")
    assert (seen.clipping_norm, seen.noise_multiplier, seen.divided_by) == (NORM, NOISE, "expected_cohort")
    # The clipped updates as they entered the mean, read back from single precision.
    assert seen.largest_update == pytest.approx(NORM, abs=1e-5) and 1 <= (seen.most_participations or 0) <= ROUNDS
    found = lint_any(seen)
    assert (found.problems, found.open) == ((), False)


@needs_flower
def test_flowers_own_private_strategy_weighs_by_rows_and_the_linter_says_so() -> None:
    seen = run(generated, by_rows=True).watch.record()
    assert seen.weighting == "rows" and (seen.weight_ratio or 0.0) > 2.0 and seen.divided_by == "sum_of_weights"
    codes = {problem.code for problem in lint_any(seen).problems}
    assert {"weighted_by_rows", "divided_by_actual_cohort"} <= codes


@needs_flower
@pytest.mark.grid
@pytest.mark.parametrize("inner", ["FedAvg", "FedProx", "FedMedian", "FedTrimmedAvg", "Krum", "FedAdam", "FedAvgM"])
@pytest.mark.parametrize("where", ["ServerSide", "ClientSide"])
@pytest.mark.parametrize("how", ["Fixed", "Adaptive"])
def test_no_private_strategy_of_flower_that_is_run_as_it_should_be_is_accused(inner: str, where: str, how: str) -> None:
    import flwr.serverapp.strategy as strategies

    kind = getattr(strategies, f"DifferentialPrivacy{where}{how}Clipping")
    more: dict[str, Any] = {"proximal_mu": 0.1} if inner == "FedProx" else {}
    base = getattr(strategies, inner)(
        fraction_train=COHORT / CLIENTS, fraction_evaluate=0.0, min_evaluate_nodes=0, min_train_nodes=COHORT, **more
    )
    settings: dict[str, Any] = {"clipping_norm": NORM}
    if how == "Adaptive":
        # From so much noise on the count of clipped updates on, Flower can split what is stated between the two.
        settings = {"initial_clipping_norm": NORM, "clipped_count_stddev": 2.0}

    def private(strategy: Any) -> Any:
        return kind(strategy, noise_multiplier=NOISE, num_sampled_clients=COHORT, **settings)

    result = run(generated, inner=base, rounds=6, private=private, stated=stated(weighting="uniform"))
    seen = result.watch.record()
    assert (seen.rounds, seen.answers_missing) == (6, 0) and problems(result) == set()
    # Of what is no mean nobody says by how much one client moves it: that is open, and no clean run.
    if not averages(base):
        assert lint_any(seen).open
    if how == "Fixed":
        assert seen.largest_update == pytest.approx(NORM, abs=1e-5)


def problems(result: Any) -> set[str]:
    """What the linter finds wrong with what was seen."""
    return {problem.code for problem in lint_any(result.watch.record()).problems}


def stated(**change: Any) -> FederatedRun:
    return FederatedRun.model_validate(STATED.model_dump(exclude_none=True) | change)


@needs_flower
def test_what_is_stated_wrongly_is_found_in_what_was_seen() -> None:
    amplified = stated(phases=[{"noise_multiplier": NOISE, "sample_rate": 0.2, "steps": ROUNDS}], cohort_secret=True)
    assert "cohort_not_poisson" in problems(run(generated, stated=amplified))
    assert "weights_not_uniform" in problems(run(generated, by_rows=True, stated=stated(weighting="uniform")))
    short = stated(clipping="per_client", clipping_norm=0.01)
    assert "update_above_norm" in problems(run(generated, clipped=False, stated=short))


@needs_flower
def test_rounds_that_fail_are_dropped_and_told() -> None:
    everybody = run(generated, fails=frozenset(range(1, CLIENTS + 1)), rounds=2).watch
    assert everybody.rounds == 0 and everybody.rounds_dropped == 2
    assert "partial_cohorts" in {problem.code for problem in lint_any(everybody.record()).problems}
    some = run(generated, fails=frozenset({1, 2, 3}), clipped=False, rounds=6).watch.record()
    assert some.rounds == 6 and (some.answers_missing or 0) > 0 and some.divided_by == "sum_of_weights"


def audit(result: Any) -> Any:
    accounting = (Phase(noise_multiplier=NOISE, sample_rate=1.0, steps=ROUNDS),)
    return audit_claim(
        result.watch.scores(),
        claimed_epsilon=30.0,
        delta=DELTA,
        rng=np.random.default_rng(0),
        accounting=accounting,
        factors=(0.5,),
    )


@needs_flower
@pytest.mark.parametrize("source", [generated, pytest.param(adult, marks=pytest.mark.slow)])
def test_canary_clients_see_noise_that_is_missing_or_halved_and_not_a_right_run(source: Any) -> None:
    right = audit(run(source, canaries=20))
    assert right.verdict != "contradicted" and right.noise.refuted == ()
    assert right.noise.ratio == pytest.approx(1.0, abs=0.2)
    assert right.sensitivity.largest == pytest.approx(1.0, abs=1e-3)
    assert audit(run(source, canaries=20, noise=0.0)).verdict == "contradicted"
    half = audit(run(source, canaries=20, noise=0.5 * NOISE))
    assert half.verdict == "contradicted" and "less noise than stated" in half.noise.refuted[0]


@needs_flower
def test_weights_by_rows_move_the_mean_by_more_than_noise_is_scaled_to() -> None:
    found = audit(run(generated, canaries=20, by_rows=True))
    assert found.verdict == "contradicted" and "one client moves the released sum by" in found.reason


@needs_flower
def test_watching_alone_changes_nothing() -> None:
    from flwr.app import ArrayRecord
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

    x, y = generated()
    ends = []
    for watch in (False, True):
        with seeded_globals(np.random.default_rng(5)):
            base = FedAvg(fraction_train=COHORT / CLIENTS, fraction_evaluate=0.0)
            strategy: Any = DifferentialPrivacyServerSideFixedClipping(base, NOISE, NORM, COHORT)
            first = ArrayRecord(numpy_ndarrays=[np.zeros(x.shape[1], np.float32), np.zeros(1, np.float32)])
            grid = InProcess(split(x, y), weight=lambda node: node)
            done = (watched(strategy) if watch else strategy).start(grid, first, num_rounds=3)
            ends.append(done.arrays.to_numpy_ndarrays())
    assert all_of(np.array_equal(a, b) for a, b in zip(*ends, strict=True)) and np.abs(ends[0][0]).max() > 0.0


@needs_flower
@pytest.mark.parametrize("name", ["FedMedian", "FedTrimmedAvg", "Bulyan"])
def test_a_strategy_that_takes_arrays_out_of_the_replies_is_watched_too(name: str) -> None:
    import flwr.serverapp.strategy as strategies

    inner = getattr(strategies, name)(fraction_train=COHORT / CLIENTS, fraction_evaluate=0.0)
    seen = run(generated, clipped=False, inner=inner, rounds=2).watch.record()
    assert (seen.rounds, seen.answers_missing) == (2, 0) and (seen.largest_update or 0.0) > 0.0


@needs_flower
def test_two_clients_a_round_are_noticed() -> None:
    from flwr.serverapp.strategy import FedAvg

    inner = FedAvg(fraction_train=2 / CLIENTS, fraction_evaluate=0.0, min_evaluate_nodes=0, min_train_nodes=2)
    assert problems(run(generated, inner=inner, stated=stated(cohort_rate=2 / CLIENTS))) == {"few_clients"}


@needs_flower
def test_strategies_say_what_they_are() -> None:
    from flwr.serverapp.strategy import (
        DifferentialPrivacyClientSideAdaptiveClipping,
        DifferentialPrivacyClientSideFixedClipping,
        FedAdam,
        FedAvg,
        FedProx,
    )

    assert (
        facts_of(FedAvg())[0] == {"cohort": "all", "minimum_clients": 2}
        and averages(FedAvg())
        and averages(FedProx(proximal_mu=0.1))
    )
    assert not averages(FedAdam()) and not averages(object())
    facts, cohort = facts_of(DifferentialPrivacyClientSideFixedClipping(FedAvg(fraction_train=0.5), 1.5, 0.3, 25))
    assert (facts["clipped_at"], facts["noise_multiplier"], facts["cohort"], cohort) == (
        "client",
        1.5,
        "fixed_size",
        25,
    )
    facts, cohort = facts_of(DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), 1.0, 100))
    assert facts["clipping_chosen"] == "adaptive_private" and facts["quantile_noise"] == 5.0 and cohort is None
    with pytest.raises(UsageError, match="clipping_norm"):
        watched(FedAvg(), canaries=CanarySettings(n_canaries=5, sample_rate=0.5, rng=np.random.default_rng(0)))
