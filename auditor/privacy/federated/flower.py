"""Observation of any Flower strategy: a record of the run for ``auditor dp lint``, and canary clients.

Rounds are observed at the aggregation step, where their record is made and canaries are put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from auditor.core.errors import MissingExtraError, UsageError
from auditor.core.rows import BoolArray, FloatArray
from auditor.privacy.dp_audit_scores import CanaryScores
from auditor.privacy.federated.client_canaries import ClientCanaries
from auditor.privacy.federated.federated_record import FederatedRun, parse_federated

Arrays = Sequence[FloatArray]
_ENOUGH_UPDATES = 10


@dataclass(frozen=True, kw_only=True)
class Entered:
    """A client's contribution to a round's mean: the size of its weight change, and its weight in the mean."""

    client: Hashable
    update: Arrays
    weight: float


@dataclass(frozen=True, kw_only=True)
class CanarySettings:
    """Canary clients to insert: number, inclusion probability per round, and the generator of their coins."""

    n_canaries: int
    sample_rate: float
    rng: np.random.Generator


class RoundWatch:
    """Observations of rounds as a :class:`FederatedRun`; ``stated``: its additional known facts.

    In each round: :meth:`start_round`, :meth:`canaries` for what canary clients send, :meth:`released` or
    :meth:`drop_round`. ``noise_cohort``: how many clients the stated noise is scaled for: the mean has noise of
    standard deviation ``noise_multiplier * clipping_norm / noise_cohort``; None where it is not known, and the noise is
    not tested. ``averages``: what is released is the weighted mean of what entered, plus noise; where it is not,
    canaries are scored by what is released alone.
    """

    def __init__(
        self,
        stated_run: FederatedRun,
        *,
        canaries: CanarySettings | None = None,
        noise_cohort: float | None = None,
        averages: bool = True,
    ) -> None:
        self.stated, self.noise_cohort, self.averages = stated_run, noise_cohort, averages
        self.rounds = self.rounds_dropped = self.answers_missing = 0
        self.cohort_sizes: list[int] = []
        self.participations: Counter[Hashable] = Counter()
        self.largest_update, self.weight_ratio = 0.0, 1.0
        self.n_clients = 0
        self._divisors: set[float] = set()
        self._fewest: int | None = None
        self._updates = 0
        self._counts: set[int] = set()
        self._touched: BoolArray | None = None
        if canaries is not None and (stated_run.clipping_norm is None or stated_run.noise_multiplier is None):
            raise UsageError(
                "Canary clients need the clipping_norm and the noise_multiplier that are stated of the run."
            )
        self._settings = canaries
        self._canaries: ClientCanaries | None = None
        self._asked = 0

    def start_round(self, clients: Sequence[Hashable], available: int) -> None:
        """Record the clients invited to the round, and the number of available clients."""
        self._asked = len(clients)
        self.cohort_sizes.append(len(clients))
        self.n_clients = max(self.n_clients, available)

    def canaries(self, like: Arrays) -> list[Arrays]:
        """The updates of the canary clients drawn for this round, shaped as the arrays; none without canaries."""
        if self._settings is None:
            return []
        if self._canaries is None:
            self._canaries = ClientCanaries(
                like,
                self._settings.n_canaries,
                clipping_norm=self.stated.clipping_norm or 1.0,
                sample_rate=self._settings.sample_rate,
                rng=self._settings.rng,
                noise_multiplier=self.stated.noise_multiplier,
            )
        return [[part.numpy() for part in sent] for sent in self._canaries.updates()]

    def released(
        self, entered: Sequence[Entered], weight_change: Arrays, canary_weight: float, n_canaries: int
    ) -> None:
        """The round moved the weights by ``weight_change``; ``entered`` are the clients' answers, canaries left out."""
        self.rounds += 1
        self.answers_missing += self._asked - len(entered)
        self.participations.update(one.client for one in entered)
        self._fewest = min(len(entered), len(entered) if self._fewest is None else self._fewest)
        for one in entered:
            self._see_coordinates(one.update)
        weights = np.asarray([one.weight for one in entered], np.float64)
        norms = [float(np.sqrt(sum(float((part**2).sum()) for part in one.update))) for one in entered]
        self.largest_update = max([self.largest_update, *norms])
        if len(weights) and weights.min() > 0.0:
            self.weight_ratio = max(self.weight_ratio, float(weights.max() / weights.min()))
            self._divisors.add(round(float(weights.sum() / weights.max()), 9))
        if self._canaries is not None:
            self._score(self._canaries, entered, weight_change, norms, canary_weight, n_canaries)

    def _see_coordinates(self, update: Arrays) -> None:
        moved = np.concatenate([np.ravel(part) != 0.0 for part in update])
        self._touched = moved if self._touched is None else self._touched | moved
        self._counts.add(int(moved.sum()))
        self._updates += 1

    def drop_round(self) -> None:
        """The round came to nothing: no new weights were released."""
        self.rounds_dropped += 1
        if self._canaries is not None:
            self._canaries.nothing_released()

    def scores(self) -> CanaryScores | None:
        """Coins and scores of the canary clients; None where there are none."""
        return None if self._canaries is None else self._canaries.scores()

    def record(self) -> FederatedRun:
        """The stated fields, overridden by observed ones."""
        seen: dict[str, Any] = {
            "rounds": self.rounds,
            "cohort_sizes": tuple(self.cohort_sizes),
            "most_participations": max(self.participations.values(), default=0),
            "answers_missing": self.answers_missing,
            "largest_update": self.largest_update,
            "weight_ratio": self.weight_ratio,
        }
        if self.stated.n_clients is None and self.n_clients:
            seen["n_clients"] = self.n_clients
        if self._fewest:
            seen["least_reports"] = self._fewest
        # Of many updates, as many in each and not the same: as a choice of the largest few leaves them.
        if self._updates >= _ENOUGH_UPDATES and len(self._counts) == 1 and self._touched is not None:
            (sent,) = self._counts
            if 0 < sent < int(self._touched.sum()):
                seen |= {"coordinates_sent": sent, "n_coordinates": len(self._touched)}
        if self.rounds_dropped:
            seen["partial_cohorts"] = "dropped"
        if self.averages and self.stated.divided_by is None and self._divisors:
            # A sum of weights that was the same in every round is a constant.
            seen["divided_by"] = "expected_cohort" if len(self._divisors) == 1 else "sum_of_weights"
        if self.stated.weighting is None and self.averages:
            seen["weighting"] = "uniform" if self.weight_ratio == 1.0 else "rows"
        return parse_federated(self.stated.model_dump(exclude_none=True) | seen, "what was seen of the rounds")

    def _score(
        self,
        canaries: ClientCanaries,
        entered: Sequence[Entered],
        weight_change: Arrays,
        norms: Sequence[float],
        canary_weight: float,
        n_canaries: int,
    ) -> None:
        if not self.averages:
            canaries.released(weight_change)
            return
        real = sum(one.weight for one in entered)
        everything = real + canary_weight * n_canaries
        others: list[FloatArray] = [np.zeros(np.shape(part)) for part in weight_change]
        for one in entered:
            for total, part in zip(others, one.update, strict=True):
                total += one.weight / canary_weight * part
        cohort = self.noise_cohort
        canaries.released(
            [np.asarray(part, np.float64) for part in weight_change],
            divisor=everything / canary_weight,
            noise_divisor=cohort,
            expected=others,
            others=None if cohort is None else others,
        )
        if cohort is not None and self.stated.clipping_norm:
            # Without the canaries, which the run that is claimed for does not have.
            canaries.clients(
                [
                    one.weight / real * cohort * norm / self.stated.clipping_norm
                    for one, norm in zip(entered, norms, strict=True)
                ]
            )


_CANARY_NODE = 0


def watched(strategy: Any, stated_run: FederatedRun | None = None, *, canaries: CanarySettings | None = None) -> Any:
    """The strategy with unchanged behaviour, and its observations in ``watch``.

    ``strategy``: of ``flwr.serverapp.strategy``, as ``start`` runs it. ``stated_run``: what is claimed of the run, and
    what no strategy can see. What the strategy itself says of its cohorts, clipping and noise is taken from it; what
    was seen stands over both. ``canaries``: canary clients, whose answers are handed to the strategy beside the others'
    as if they were clients: the model is spoiled, and a strategy that is strict about how many answer refuses the
    round. ``result.watch.record()`` is the record, ``result.watch.scores()`` what
    :func:`~auditor.privacy.dp_audit_scores.audit_claim` takes. Clients' answers are read once the strategy has
    aggregated them, so that clipping it did in their place is seen. Raises MissingExtraError without Flower.
    """
    flower = _flower()
    facts, cohort = facts_of(strategy)
    told = (stated_run or FederatedRun()).model_dump(exclude_none=True)
    watch = RoundWatch(
        FederatedRun.model_validate(told | facts), canaries=canaries, noise_cohort=cohort, averages=averages(strategy)
    )
    return _class(flower)(strategy, watch)


def facts_of(strategy: Any) -> tuple[dict[str, Any], float | None]:
    """A strategy's own settings as fields of a record, and the number of clients for its noise scale.

    None where it adds none, or noise that follows a clipping norm of its own.
    """
    flower = _flower()
    facts: dict[str, Any] = {}
    cohort = None
    outer = strategy
    while not isinstance(outer, flower.FedAvg) and getattr(outer, "strategy", None) is not None:
        kind = type(outer).__name__
        if kind.startswith("DifferentialPrivacy") and type(outer).__module__.startswith("flwr."):
            facts |= {
                "noise_at": "server",
                "noise_multiplier": float(outer.noise_multiplier),
                "clipped_at": "server" if "ServerSide" in kind else "client",
                "clipping": "per_client",
                # It releases nothing of a round in which a client failed.
                "partial_cohorts": "dropped",
            }
            if "Fixed" in kind:
                facts |= {"clipping_chosen": "fixed", "clipping_norm": float(outer.clipping_norm)}
                cohort = float(outer.num_sampled_clients)
            else:
                facts |= {
                    "clipping_chosen": "adaptive_private",
                    "quantile_noise": float(outer.clipped_count_stddev),
                }
        outer = outer.strategy
    if isinstance(outer, flower.FedAvg) and type(outer).configure_train is flower.FedAvg.configure_train:
        facts["cohort"] = "all" if outer.fraction_train >= 1.0 else "fixed_size"
        facts["minimum_clients"] = max(int(outer.min_train_nodes), 1)
    return facts, cohort


def averages(strategy: Any) -> bool:
    """Whether the strategy releases the weighted mean of the received updates, with at most noise added."""
    flower = _flower()
    while not isinstance(strategy, flower.FedAvg) and getattr(strategy, "strategy", None) is not None:
        if not type(strategy).__module__.startswith("flwr."):
            return False
        strategy = strategy.strategy
    return isinstance(strategy, flower.FedAvg) and type(strategy).aggregate_train is flower.FedAvg.aggregate_train


class _Flower:
    """The parts of Flower that are used here."""

    def __init__(self, app: ModuleType, strategies: ModuleType) -> None:
        self.ArrayRecord, self.Array = app.ArrayRecord, app.Array
        self.Message, self.MetricRecord, self.RecordDict = app.Message, app.MetricRecord, app.RecordDict
        self.Strategy, self.FedAvg = strategies.Strategy, strategies.FedAvg


def _flower() -> _Flower:
    try:
        import flwr.app
        import flwr.serverapp.strategy
    except ImportError:
        raise MissingExtraError(
            "Watching a strategy needs Flower: pip install 'responsible-auditor[federated]'."
        ) from None
    return _Flower(flwr.app, flwr.serverapp.strategy)


def _class(flower: _Flower) -> Any:
    """The strategy class, which can only be written where Flower is there to inherit from."""

    class Watched(flower.Strategy):  # type: ignore[name-defined, misc]
        """Does what ``strategy`` does, and tells ``watch``."""

        def __init__(self, strategy: Any, watch: RoundWatch) -> None:
            self.strategy, self.watch = strategy, watch
            self._names: list[str] = []
            self._before: Arrays = []

        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
            self._names, self._before = list(arrays), arrays.to_numpy_ndarrays()
            messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
            nodes = [message.metadata.dst_node_id for message in messages]
            self.watch.start_round(nodes, len(list(grid.get_node_ids())))
            return messages

        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
            answers = list(replies)
            # A strategy may write into the replies; those with content alone are clients that take part.
            good = [reply for reply in answers if not reply.has_error()]
            own, weight = self._canaries(good)
            sent = [_sent(reply) for reply in good]

            def observe() -> None:
                sent[:] = [_sent(reply) for reply in good]

            arrays, metrics = _aggregate(self.strategy, server_round, answers + own, observe)
            if arrays is None:
                self.watch.drop_round()
                return arrays, metrics
            entered = [
                Entered(
                    client=reply.metadata.src_node_id,
                    update=self._weight_changes(_arrays_of(reply, whole)),
                    weight=self._weight(reply),
                )
                for reply, whole in zip(good, sent, strict=True)
            ]
            self.watch.released(entered, self._weight_changes(arrays), weight, len(own))
            return arrays, metrics

        def _canaries(self, good: list[Any]) -> tuple[list[Any], float]:
            """The canary clients' answers, like those of the others but for the arrays, and the weight of each."""
            if not good:
                return [], 1.0
            weight = float(np.median([self._weight(reply) for reply in good]))
            sent = [
                {n: b + u for n, b, u in zip(self._names, self._before, update, strict=True)}
                for update in self.watch.canaries(self._before)
            ]
            return [_answer(flower, good[0], arrays, self._key(), weight) for arrays in sent], weight

        def _weight_changes(self, record: Any) -> Arrays:
            """By how much the weights of a record differ from those that the round began with."""
            return [
                record[name].numpy().astype(np.float64) - b for name, b in zip(self._names, self._before, strict=True)
            ]

        def _weight(self, reply: Any) -> float:
            metrics: Mapping[str, Any] = next(iter(reply.content.metric_records.values()), {})
            return float(metrics.get(self._key(), 1.0))

        def _key(self) -> str:
            return str(getattr(_innermost(self.strategy), "weighted_by_key", "num-examples"))

        def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
            return self.strategy.configure_evaluate(server_round, arrays, config, grid)  # type: ignore[no-any-return]

        def aggregate_evaluate(self, server_round: int, replies: Iterable[Any]) -> Any:
            return self.strategy.aggregate_evaluate(server_round, replies)

        def summary(self) -> None:
            self.strategy.summary()

    return Watched


def _aggregate(strategy: Any, server_round: int, replies: list[Any], observe: Callable[[], None]) -> tuple[Any, Any]:
    """A strategy's aggregate, with ``observe`` called when the strategy within all others begins: what is clipped is
    clipped then, and FedMedian takes the arrays out of the replies."""
    inner = _innermost(strategy)
    aggregate = inner.aggregate_train

    def observed(server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        observe()
        return aggregate(server_round, replies)  # type: ignore[no-any-return]

    inner.aggregate_train = observed
    try:
        return strategy.aggregate_train(server_round, replies)  # type: ignore[no-any-return]
    finally:
        inner.aggregate_train = aggregate


def _innermost(strategy: Any) -> Any:
    """The strategy that others wrap."""
    while getattr(strategy, "strategy", None) is not None:
        strategy = strategy.strategy
    return strategy


def _sent(reply: Any) -> dict[str, Any]:
    return dict(next(iter(reply.content.array_records.values())).items())


def _arrays_of(reply: Any, sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """A reply's arrays after the aggregation, or as ``sent`` where the strategy took them out, as FedMedian does."""
    record = next(iter(reply.content.array_records.values()))
    return {name: record[name] if name in record else array for name, array in sent.items()}


def _answer(flower: _Flower, like: Any, arrays: Mapping[str, FloatArray], key: str, weight: float) -> Any:
    """A canary client's answer: its arrays, and the metrics of another client with its weight."""
    ((name, record),) = like.content.array_records.items()
    ((told, metrics),) = like.content.metric_records.items()
    own = {n: flower.Array(np.asarray(arrays[n], dtype=array.numpy().dtype)) for n, array in record.items()}
    whole = isinstance(metrics.get(key), int)
    content = {
        name: flower.ArrayRecord(own),
        told: flower.MetricRecord(dict(metrics) | {key: round(weight) if whole else weight}),
    }
    return flower.Message(
        content=flower.RecordDict(content), dst_node_id=_CANARY_NODE, message_type=like.metadata.message_type
    )
