"""The ranks of a distributed job: each answers for its share of the batches, and all have all answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from auditor.arrays import FloatArray
from auditor.errors import ModelError


class Ranks:
    """The processes of a ``torchrun`` job, in a gloo group of their own with a timeout of ``timeout_s`` seconds.

    Batches are whole and the same however many ranks there are: a row in another batch is rounded another way, and
    some decisions would flip. Batch i is computed by rank ``i % size`` and every rank is handed every answer, bit by
    bit. So each rank has the same numbers as one alone would, counts and histograms among them, and any probe works,
    those too that ask about rows of their own. What travels is one float for each row and class.

    A rank that fails says so to the others and is a ModelError on all. One that is gone makes the wait end by the
    timeout; from then on ``broken`` says why, and nothing is waited for again.
    """

    def __init__(self, timeout_s: float) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.broken = ""
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def over_batches(self, one: Callable[[int], FloatArray], starts: Sequence[int]) -> list[FloatArray]:
        """``[one(start) for start in starts]``, each computed by one rank. Raises ModelError where a rank fails."""
        own: dict[int, FloatArray] = {}
        failed: tuple[int, str] | None = None
        for i in range(self.rank, len(starts), self.size):
            try:
                own[i] = np.asarray(one(starts[i]))
            except Exception as error:
                failed = i, str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
                break
        answers = self._gathered((failed, own))
        failures = [failed for failed, _ in answers if failed is not None]
        if failures:
            # The first batch that fails, as for one process alone.
            raise ModelError(min(failures)[1])
        parts = {i: batch for _, answered in answers for i, batch in answered.items()}
        return [parts[i] for i in range(len(starts))]

    def agreed(self, mine: bool) -> bool:
        """What rank 0 says, on every rank: clocks differ, and half a job must not wait for the other half."""
        return bool(self._gathered(mine)[0])

    def _gathered(self, mine: Any) -> list[Any]:
        if self.broken:
            raise ModelError(self.broken)
        found: list[Any] = [None] * self.size
        try:
            self._dist.all_gather_object(found, mine, group=self._group)
        except RuntimeError as error:
            first = str(error).splitlines()[0][:200]
            self.broken = f"Another rank did not answer, so the audit stopped in this job: {first}"
            raise ModelError(self.broken) from error
        return found


def joined(timeout_s: float) -> Ranks | None:
    """The ranks of this job, or None where it has one process. Every rank has to call it."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return Ranks(timeout_s)
