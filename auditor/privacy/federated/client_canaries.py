"""Canary clients for any federated loop: updates unique to a canary, and their trace in the released rounds.

The model that is trained with canaries in it is spoiled: audit a copy of the training, and throw the model away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import UsageError
from auditor.core.rows import BoolArray, FloatArray
from auditor.privacy.canary_recording import DiracCanaries, NoiseKeeper
from auditor.privacy.dp_audit_scores import DIRAC, CanaryScores
from auditor.privacy.released_noise import Sensitivity

Array: TypeAlias = Tensor | FloatArray


class ClientCanaries:
    """Virtual clients: canary i sends the update ``C e_i``, C the clipping norm, if its coin is in.

    A fair coin decides whether it is a client at all; if so it is in a round with chance ``sample_rate``, as any other.
    Its score is the sum over rounds of ``<e_i, released sum> / C`` less the expected one. With one row a client, one
    local step and a constant divisor this is :class:`~auditor.privacy.canaries.DPAudit`, number for number.

    In each round: :meth:`updates` of the canaries that are drawn go to the server as those of other clients do, and are
    clipped, weighted and summed by it; or, where only sums are at hand, :meth:`add_to`. Then :meth:`released`.
    ``parameters``: arrays of the shapes that an update has. ``noise_multiplier``: what is stated, for the tests of the
    released noise. It cannot see how clients are drawn, since it draws the canaries itself.
    Source: Steinke, Nasr and Jagielski, NeurIPS 2023, with clients for rows.
    """

    def __init__(
        self,
        parameters: Sequence[Array],
        n_canaries: int,
        *,
        clipping_norm: float,
        sample_rate: float,
        rng: np.random.Generator,
        noise_multiplier: float | None = None,
    ) -> None:
        if not clipping_norm > 0.0:
            raise UsageError(f"The clipping norm must be above 0, not {clipping_norm:g}.")
        self._zeros = [torch.zeros_like(torch.as_tensor(p), dtype=torch.float32) for p in parameters]
        self._canaries = DiracCanaries(self._zeros, n_canaries, sample_rate=sample_rate, rng=rng)
        self.clipping_norm, self.noise_multiplier = clipping_norm, noise_multiplier
        self.rounds = 0
        self._noise = NoiseKeeper(self._zeros)
        self._noise_seen = 0
        self._drawn: BoolArray | None = None
        self._largest, self._n_updates, self._most = 0.0, 0, 0

    @property
    def included(self) -> BoolArray:
        """(m,) the coins."""
        return self._canaries.included

    def updates(self) -> list[list[Tensor]]:
        """The updates of the canary clients drawn for this round, one list of tensors a client."""
        found = []
        for who in np.flatnonzero(self._draw()):
            sent = [z.clone() for z in self._zeros]
            self._canaries.add(sent, np.arange(len(self._canaries)) == who, self.clipping_norm)
            found.append(sent)
        return found

    def add_to(self, sums: Sequence[Tensor]) -> None:
        """Add the updates of the canary clients drawn for this round to the sums of all clients, in place."""
        self._canaries.add(sums, self._draw(), self.clipping_norm)

    def clients(self, displacements: Sequence[float]) -> None:
        """Record the influence of each other client of the round on the released sum, in clipping norms."""
        self._largest = max([self._largest, *displacements])
        self._n_updates, self._most = self._n_updates + len(displacements), max(self._most, len(displacements))

    def released(
        self,
        arrays: Sequence[Array],
        *,
        divisor: float = 1.0,
        noise_divisor: float | None = None,
        expected: Sequence[Array] | None = None,
        others: Sequence[Array] | None = None,
    ) -> None:
        """Record the release of a round: ``divisor`` times the arrays is the noisy sum.

        ``expected``: what the other clients add to the sum, on average or as they did: a client's guarantee holds
        whatever is known of the others and of who of them is drawn, and the less they blur a score the more it sees.
        0 where it is not known. ``others``: their sum as it was, by which the noise is told from it and tested;
        ``noise_divisor``: of how many the stated noise is for the mean, where it is not ``divisor``.
        """
        if self._drawn is None:
            raise UsageError("The round has no canaries yet: call updates() or add_to() before released().")
        tensors = [torch.as_tensor(a) for a in arrays]
        own = (
            self._canaries.values_at([torch.as_tensor(a) for a in expected])
            if expected
            else np.zeros(len(self._canaries))
        )
        self._canaries.update_scores(tensors, divisor, own, self.clipping_norm)
        if others is not None and self.noise_multiplier is not None:
            before = [torch.as_tensor(a).float().clone() for a in others]
            self._canaries.add(before, self._drawn, self.clipping_norm)
            unit = self.clipping_norm * divisor / (noise_divisor or divisor)
            noises = [(t.float() * divisor - b) / unit for t, b in zip(tensors, before, strict=True)]
            self._noise.keep(noises, self.noise_multiplier)
            self._noise_seen += 1
        self._drawn = None
        self.rounds += 1

    def nothing_released(self) -> None:
        """Record that the round released nothing, so that its canaries do not count."""
        self._drawn = None

    def scores(self) -> CanaryScores:
        """Coins and scores so far, in units of the clipping norm. Raises UsageError where no round was released."""
        if not self.rounds:
            raise UsageError("No round was released with canaries in it: hand each to released().")
        return CanaryScores(
            included=self.included.copy(),
            scores=self._canaries.scores.copy(),
            kind=DIRAC,
            steps=self.rounds,
            sample_rate=self._canaries.sample_rate,
            # Noise that is seen at some rounds only is not the run's.
            noise=(self._noise.released_noise(),) if self._noise_seen == self.rounds else (),
            sensitivity=Sensitivity(largest=self._largest, n_rows=self._n_updates, batch_rows=self._most, unit="client")
            if self._n_updates
            else None,
            unit="client",
        )

    def _draw(self) -> BoolArray:
        if self._drawn is not None:
            raise UsageError("The round's canaries are drawn already: hand what it released to released().")
        self._drawn = self._canaries.draw()
        return self._drawn


def clipped(update: Sequence[Tensor], norm: float) -> list[Tensor]:
    """A client's update, scaled as a whole to a norm of at most ``norm``."""
    length = torch.stack([part.double().norm() for part in update]).norm()
    share = min(1.0, norm / max(float(length), 1e-30))
    return [part * share for part in update]
