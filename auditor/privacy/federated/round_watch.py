"""Observation of federated rounds at the aggregation step: their record, and canaries in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditor.core.errors import UsageError
from auditor.core.rows import FloatArray
from auditor.privacy.dp_audit_scores import CanaryScores
from auditor.privacy.federated.client_canaries import ClientCanaries
from auditor.privacy.federated.federated_record import FederatedRun, parse_federated

Arrays = Sequence[FloatArray]


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
        weights = np.asarray([one.weight for one in entered], np.float64)
        norms = [float(np.sqrt(sum(float((part**2).sum()) for part in one.update))) for one in entered]
        self.largest_update = max([self.largest_update, *norms])
        if len(weights) and weights.min() > 0.0:
            self.weight_ratio = max(self.weight_ratio, float(weights.max() / weights.min()))
            self._divisors.add(round(float(weights.sum() / weights.max()), 9))
        if self._canaries is not None:
            self._score(self._canaries, entered, weight_change, norms, canary_weight, n_canaries)

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
