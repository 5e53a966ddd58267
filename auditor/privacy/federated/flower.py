"""Observation of any Flower strategy: a record of the run for ``auditor dp-lint``, and canary clients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from auditor.core.errors import MissingExtraError
from auditor.core.rows import FloatArray
from auditor.privacy.federated.federated_record import FederatedRun
from auditor.privacy.federated.round_watch import Arrays, CanarySettings, Entered, RoundWatch

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
            arrays, metrics = self.strategy.aggregate_train(server_round, answers + own)
            if arrays is None:
                self.watch.drop_round()
                return arrays, metrics
            entered = [
                Entered(
                    client=reply.metadata.src_node_id,
                    update=self._weight_changes(next(iter(reply.content.array_records.values()))),
                    weight=self._weight(reply),
                )
                for reply in good
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
            inner = self.strategy
            while not hasattr(inner, "weighted_by_key") and getattr(inner, "strategy", None) is not None:
                inner = inner.strategy
            return str(getattr(inner, "weighted_by_key", "num-examples"))

        def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
            return self.strategy.configure_evaluate(server_round, arrays, config, grid)  # type: ignore[no-any-return]

        def aggregate_evaluate(self, server_round: int, replies: Iterable[Any]) -> Any:
            return self.strategy.aggregate_evaluate(server_round, replies)

        def summary(self) -> None:
            self.strategy.summary()

    return Watched


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
