"""The ranks of a distributed job: each processes its share of the batches, and all receive all answers."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import Code, DataError, ModelError
from auditor.core.rows import FloatArray
from auditor.training.inspect_network import digest_of

if TYPE_CHECKING:
    from torch import nn

    from auditor.data.audit_data import AuditData

_OUT_OF_STEP = "The ranks of the job were not asked the same: on one of them the probe ended early."


class Ranks:
    """The processes of a ``torchrun`` job, in a gloo group of their own with a timeout of ``timeout_s`` seconds.

    Batches are whole and the same however many ranks there are: a row in another batch is rounded another way, and
    some decisions would flip. Batch i is computed by rank ``i % size`` and every rank is handed every answer, bit by
    bit. So each rank has the same numbers as one alone would, counts and histograms among them, and any probe works,
    those too that ask about rows of their own. What travels is one float for each row and class.

    A rank that fails says so to the others and is a ModelError on all. Each message says what it answers, so that ranks
    that were asked different things notice, and meet again at the end of the probe. One that is gone makes the wait end
    by the timeout; from then on ``broken`` says why, and nothing is waited for again.
    """

    def __init__(self, timeout_s: float) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self.broken = ""
        self._lost = ""
        self._asked = 0
        self._group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def over_batches(self, one: Callable[[int], FloatArray], starts: Sequence[int]) -> list[FloatArray]:
        """``[one(start) for start in starts]``, each computed by one rank. Raises ModelError where a rank fails."""
        if self._lost:
            raise ModelError(self._lost)
        self._asked += 1
        own: dict[int, FloatArray] = {}
        failed: tuple[int, str, Code | None] | None = None
        for i in range(self.rank, len(starts), self.size):
            try:
                own[i] = np.asarray(one(starts[i]))
            except ModelError as error:
                failed = i, str(error), error.code
                break
            except Exception as error:
                failed = i, f"{type(error).__name__}: {error}", None
                break
        answers = self._gathered(("batches", self._asked, len(starts)), (failed, own))
        failures = [failed for failed, _ in answers if failed is not None]
        if failures:
            # The first batch that fails, as for one process alone.
            _, message, code = min(failures, key=lambda failure: failure[0])
            raise ModelError(message, code=code)
        parts = {i: batch for _, answered in answers for i, batch in answered.items()}
        return [parts[i] for i in range(len(starts))]

    def end_of_probe(self, failure: str) -> str:
        """Synchronisation of the ranks after each probe: the reason for NOT_RUN on all, or "" if none failed."""
        lost, self._lost = self._lost, ""
        asked, self._asked = self._asked, 0
        if lost:
            return failure or lost
        try:
            reasons = self._gathered(("end", asked), failure)
        except ModelError as error:
            self._lost = ""
            return failure or str(error)
        return next((f"On rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason), "")

    def agreed(self, mine: bool) -> bool:
        """The decision of rank 0, on every rank: clocks differ, and ranks must not wait for each other."""
        return bool(self._gathered(("agree",), mine)[0])

    def same_rows(self, data: AuditData) -> None:
        """Raise DataError if the ranks got different rows."""
        parts = (data.X, data.y_true, data.sensitive_features, data.is_member, data.target_values)
        found = hashlib.sha256(pickle.dumps(parts, protocol=5)).hexdigest()
        if len(set(self._gathered(("rows",), found))) > 1:
            raise DataError("The ranks were given different rows: give each rank all rows; the batches are shared out.")

    @contextmanager
    def one_network(self, module: nn.Module) -> Iterator[None]:
        """Context with rank 0's buffers on all ranks, as in its checkpoint; each rank's own are restored.

        Statistics of batches differ between the ranks. Raises ModelError where the parameters do.
        """
        import torch

        weights = [digest_of(p) for p in module.parameters()]
        buffers = [b for b in module.buffers() if b.numel()]
        of_rank_0 = [b.detach().cpu() for b in buffers] if self.rank == 0 else []
        said = self._gathered(("network",), (weights, of_rank_0))
        if any(other != said[0][0] for other, _ in said):
            raise ModelError("The ranks hold different weights: this is not one model.")
        own = [b.detach().clone() for b in buffers]

        def fill(values: Sequence[torch.Tensor]) -> None:
            with torch.no_grad():
                for buffer, value in zip(buffers, values, strict=True):
                    buffer.copy_(value)

        fill(said[0][1])
        try:
            yield
        finally:
            fill(own)

    def _gathered(self, tag: tuple[object, ...], mine: Any) -> list[Any]:
        if self.broken:
            raise ModelError(self.broken)
        found: list[Any] = [None] * self.size
        try:
            self._dist.all_gather_object(found, (tag, mine), group=self._group)
        except RuntimeError as error:
            first = str(error).splitlines()[0][:200]
            self.broken = f"Another rank did not answer, so the audit stopped in this job: {first}"
            raise ModelError(self.broken) from error
        if any(other != tag for other, _ in found):
            self._lost = _OUT_OF_STEP
            raise ModelError(_OUT_OF_STEP)
        return [answer for _, answer in found]


def join_ranks(timeout_s: float) -> Ranks | None:
    """The ranks of this job, or None where it has one process. Every rank has to call it."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return Ranks(timeout_s)
