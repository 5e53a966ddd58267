"""Cross-validation rounds of a detector, fitted and evaluated on different files: locally, or as pure tasks.

A learner that is data, :class:`SentLearner`, becomes one of a closed table of kinds, its numbers and its arrays. What
it makes of a round follows from these alone, so that the rounds are the same to the last bit wherever they are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import AuditorError
from auditor.core.files import Closed
from auditor.core.rows import FloatArray, IntArray
from auditor.training.stack_tasks import (
    finished,
    pack_message,
    refusal_result,
    refuse_other_versions,
    result_of,
    unpack_message,
    versions,
)
from auditor.training.task_executor import Tasks, lent_executor

# Rows to (scores, novelties), (n,) each; novelties are NaN where there is no rule.
Scorer: TypeAlias = Callable[[IntArray], tuple[FloatArray, FloatArray]]
# Rows to train on to a scorer of any rows.
Learner: TypeAlias = Callable[[IntArray], Scorer]
# Rows to train on, and rows to score.
Round: TypeAlias = tuple[IntArray, IntArray]
Arrays: TypeAlias = Mapping[str, Tensor]

LearnerKind = Literal["linear", "neighbours", "cnn", "speech"]
_LEARNERS: dict[LearnerKind, str] = {
    "linear": "mitigations.deepfake.detector_fitting:LinearLearner",
    "neighbours": "mitigations.deepfake.image_training:NeighbourLearner",
    "cnn": "mitigations.deepfake.image_training:CnnLearner",
    "speech": "mitigations.deepfake.speech_training:SpeechLearner",
}


@runtime_checkable
class SentLearner(Protocol):
    """A learner that can be rebuilt from its serialised form."""

    kind: ClassVar[LearnerKind]

    def __call__(self, rows: IntArray) -> Scorer:
        """How any rows are scored by what was fitted to these."""
        ...

    def to_parts(self) -> tuple[dict[str, Any], Arrays] | None:
        """The learner's numbers, as JSON, and its arrays; None if they are on a GPU."""
        ...

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: Arrays) -> Learner:
        """The learner rebuilt from its serialised form."""
        ...


@dataclass(frozen=True, eq=False)
class Within:
    """A learner of a subset of another's rows, ``rest``, by their positions among these."""

    learner: Learner
    rest: IntArray

    def __call__(self, rows: IntArray) -> Scorer:
        scorer = self.learner(self.rest[rows])
        return lambda others: scorer(self.rest[others])


def scored(learner: Learner, rounds: Sequence[Round]) -> list[tuple[FloatArray, FloatArray]]:
    """(scores, novelties) of each round's rows. Raises what the learner raises, and what an executor does."""
    executor = lent_executor()
    tasks = None if executor is None else _make_tasks(learner, rounds)
    if executor is None or tasks is None:
        return [learner(fitted)(asked) for fitted, asked in rounds]
    found = {i: _unpack_result(result) for i, result in executor.results(tasks)}
    return [found[i] for i in range(len(rounds))]


# ---- as bytes ------------------------------------------------------------------------------------------------------


class _Shared(Closed):
    """What all rounds have in common, beside the arrays."""

    learner: LearnerKind
    said: dict[str, Any]
    versions: dict[str, str]
    threads: int
    blas: int


class _Rows(Closed):
    """One round; its rows stand beside it."""


def _make_tasks(learner: Learner, rounds: Sequence[Round]) -> Tasks | None:
    if isinstance(learner, Within):
        rest = learner.rest
        return _make_tasks(learner.learner, [(rest[fitted], rest[asked]) for fitted, asked in rounds])
    sent = learner.to_parts() if isinstance(learner, SentLearner) else None
    if sent is None or not isinstance(learner, SentLearner):
        return None
    said, arrays = sent
    threads = torch.get_num_threads()
    shared = _Shared(learner=learner.kind, said=said, versions=versions(), threads=threads, blas=_blas_threads())
    each = tuple(
        pack_message(_Rows(), fitted=torch.from_numpy(np.asarray(fitted)), asked=torch.from_numpy(np.asarray(asked)))
        for fitted, asked in rounds
    )
    return Tasks(kind="fold", shared=pack_message(shared, **arrays), each=each, threads=threads)


def done(common_bytes: bytes, task_bytes: bytes) -> bytes:
    """Run one round; the result is its scores, or the sentence of the refusal.

    Raises UsageError where this has other versions of what computes: digits would differ.
    """
    common, arrays = unpack_message(_Shared, common_bytes)
    _, rows = unpack_message(_Rows, task_bytes)
    refuse_other_versions(common.versions)
    module, _, name = _LEARNERS[common.learner].partition(":")
    learner_class: type[SentLearner] = getattr(import_module(module), name)
    with _threads(common.threads, common.blas):
        try:
            learner = learner_class.from_parts(common.said, arrays)
            scores, novelty = learner(rows["fitted"].numpy())(rows["asked"].numpy())
        except AuditorError as error:
            return refusal_result(error)
    return finished(
        _Rows(), scores=torch.from_numpy(scores.copy()), novelty=torch.from_numpy(np.asarray(novelty, np.float64))
    )


def _unpack_result(result: bytes) -> tuple[FloatArray, FloatArray]:
    _, found = result_of(_Rows, result)
    return found["scores"].numpy(), found["novelty"].numpy()


def _blas_threads() -> int:
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@contextmanager
def _threads(n: int, blas: int) -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(limits=blas, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
