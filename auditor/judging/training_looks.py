"""Interim looks of a training: those taken and judged, and the number of interruptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import PositiveCount

_MOST_NAMED = 10


class LookRecord(Closed):
    """One look: the ``look``-th of the plan, None for the closing one, at an epoch or step ``at``, of ``weights``.

    ``error_rate``: the share of the run's error rate that it was judged at; ``judged``: whether it was. ``failed``:
    metrics shown to fail. ``weights``: a digest of the network's parameters and buffers, "" of what is no network.
    """

    look: PositiveCount | None
    at: float
    error_rate: float
    judged: bool
    weights: str
    failed: tuple[str, ...] = ()

    def is_repeat_of(self, other: LookRecord) -> bool:
        """Whether both are the same look of the plan at the same weights."""
        return self.look == other.look and self.weights == other.weights != ""


class TrainingRecord(Closed):
    """The error rate that an audit during training has spent so far.

    ``run``: a digest of what all of its looks have in common: rows, probes, criteria, plan, error rate and seed.
    ``left_out``: where a planned look was not taken. ``closing``: the last look, at its own share; None while the
    training goes on, or where it was broken off. ``resumed_after``: how many looks of the plan had been reached, each
    time that the training went on from a checkpoint. ``spent``: looks that were judged before the training went back to
    an earlier checkpoint, and that it did not come to again with the same weights: what they spent stays spent.
    """

    run: str
    unit: Literal["epoch", "step"]
    planned: PositiveCount | None
    looks: tuple[LookRecord, ...]
    left_out: tuple[float, ...] = ()
    closing: Annotated[LookRecord | None, UNSAID] = None
    resumed_after: Annotated[tuple[int, ...], LEFT_OUT] = ()
    spent: Annotated[tuple[LookRecord, ...], LEFT_OUT] = ()

    @property
    def eventful(self) -> bool:
        """Whether the training deviated from the plan."""
        return self.closing is None or bool(self.resumed_after) or bool(self.spent)

    def describe(self) -> str:
        """The progress, the resumptions and their positions, and the previously spent error rate."""
        of = "" if self.planned is None else f" of {self.planned} planned"
        n = len(self.looks)
        said = [f"Audited while it learned, by {n} {'look' if n == 1 else 'looks'}{of}."]
        if self.closing is None:
            said.append("The training has not ended: the numbers are of the last look, and no closing look was taken.")
        if self.resumed_after:
            times = len(self.resumed_after)
            said.append(
                f"Resumed from a checkpoint {'once' if times == 1 else f'{times} times'}, "
                f"after {_looks(self.resumed_after)}."
            )
        if self.spent:
            said.append(
                f"Judged before that, of other weights than the resumed training came to: {_list_looks(self.spent)}. "
                f"Their "
                "share of the error rate stays spent, so what was measured in their place is not judged."
            )
            alarms = [look for look in self.spent if look.failed]
            if alarms:
                said.append(f"Shown to fail then: {_list_looks(alarms)} ({', '.join(_metrics(alarms))}).")
        return " ".join(said)


def _looks(numbers: Sequence[int]) -> str:
    return ("look " if len(numbers) == 1 else "looks ") + ", ".join(map(str, numbers[-_MOST_NAMED:]))


def _list_looks(looks: Sequence[LookRecord]) -> str:
    named = ["the closing look" if look.look is None else f"look {look.look}" for look in looks]
    return ", ".join(dict.fromkeys(named[:_MOST_NAMED])) + (" and more" if len(named) > _MOST_NAMED else "")


def _metrics(looks: Sequence[LookRecord]) -> list[str]:
    return list(dict.fromkeys(metric for look in looks for metric in look.failed))[:_MOST_NAMED]
