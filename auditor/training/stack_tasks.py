"""Training of several models at once as a pure task: inputs determine outputs, on any machine.

In this process a task is a :class:`StackTask` and a range of its models. To be done elsewhere it becomes bytes: an
architecture by its name, numbers, tensors as safetensors. Nothing in it is code, so that whoever does it runs this
tool alone, and may be sent it by a process that opened what is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import AuditorError, ModelError
from auditor.core.files import Closed
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import Architecture
from auditor.models.output_kind import Outputs
from auditor.training.stacks import Alone, LinearStack, Stack, VmapStack
from auditor.training.task_encoding import (
    finished,
    pack_message,
    refusal_result,
    refuse_other_versions,
    result_of,
    unpack_message,
    versions,
)
from auditor.training.task_executor import Tasks

# Rows at once, in batches, that models are asked of.
_BATCHES_AT_ONCE = 32


@dataclass(frozen=True)
class Seeds:
    """Independent seeds of the parts of one model's training, from its one seed."""

    initialisation: int
    batches: int
    noise: int

    @classmethod
    def from_seed(cls, seed: int) -> Seeds:
        """The three seeds of a model."""
        return cls(*(int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64) >> np.uint64(1)))


@dataclass(frozen=True, eq=False)
class StackTask:
    """The arguments of one call of :func:`auditor.training.ensembles.train_together`."""

    make: Callable[[], nn.Module]
    x: Tensor
    y: Tensor
    members: BoolArray
    seeds: tuple[int, ...]
    recipe: Recipe
    outputs: Outputs
    keep: Callable[[Tensor], Tensor] | None

    @property
    def batch_size(self) -> int:
        """Rows in a batch: those of the recipe, or all that a model learns from."""
        return min(self.recipe.batch_size, int(self.members[0].sum()))

    def fresh(self, index: int) -> nn.Module:
        """The untrained model of an index, the same one each time."""
        with seeded_globals(np.random.default_rng(Seeds.from_seed(self.seeds[index]).initialisation)):
            return self.make().to(self.x.device)

    def kept_outputs(self, logits: Tensor) -> FloatArray:
        """``keep`` of logits (k, n, n_classes) as an array."""
        kept = logits if self.keep is None else self.keep(logits)
        return kept.detach().cpu().double().numpy()


@dataclass(frozen=True)
class Way:
    """The training method of models: ``kind`` of stack, or separate with the reason."""

    kind: Literal["linear", "vmap", "alone"]
    plain_attention: bool = False
    why_alone: str = ""

    def stack(self, task: StackTask, chunk: range) -> Stack:
        """The untrained models of a chunk."""
        modules = [task.fresh(i) for i in chunk]
        x, y, recipe = task.x, task.y, task.recipe
        if self.kind == "linear":
            return LinearStack(modules, x, y, recipe)
        if self.kind == "vmap":
            return VmapStack(modules, x, y, recipe, task.outputs, plain_attention=self.plain_attention)
        return Alone(modules[0], x, y, recipe, task.outputs)


ALONE = Way("alone")


def logits_of(task: StackTask, chunk: range, way: Way) -> Tensor:
    """(k, n, n_classes) the outputs of a chunk's models for all rows, after training.

    Raises ModelError where a loss becomes infinite or NaN.
    """
    stack = way.stack(task, chunk)
    rows = torch.from_numpy(np.stack([np.flatnonzero(task.members[i]) for i in chunk])).to(task.x.device)
    generators = [torch.Generator().manual_seed(Seeds.from_seed(task.seeds[i]).batches) for i in chunk]
    with seeded_globals(np.random.default_rng(Seeds.from_seed(task.seeds[chunk.start]).noise)):
        for _ in range(task.recipe.epochs):
            orders = torch.stack([torch.randperm(rows.shape[1], generator=g) for g in generators])
            order = torch.gather(rows, 1, orders.to(rows.device))
            for batch in torch.split(order, task.batch_size, dim=1):
                if batch.shape[1] > 1 or order.shape[1] == 1:
                    stack.learn(batch)
    if not all(bool(torch.isfinite(p).all()) for p in stack.trained_parameters()):
        raise ModelError("The loss of a model became infinite or NaN in training: lower the recipe's learning rate.")
    at_once = max(1, task.batch_size * _BATCHES_AT_ONCE // len(chunk))
    with torch.no_grad():
        return torch.cat([stack.ask(part) for part in torch.split(task.x, at_once)], dim=1)


# ---- as bytes ------------------------------------------------------------------------------------------------------


class _Shared(Closed):
    """What all tasks of one call have in common, beside the rows; ``versions``: of what made it."""

    architecture: str
    args: dict[str, Any]
    recipe: dict[str, Any]
    outputs: Outputs
    way: dict[str, Any]
    versions: dict[str, str]
    threads: int


class _Chunk(Closed):
    """The models of one task, by their seeds."""

    seeds: tuple[int, ...]


class _Logits(Closed):
    """What the models say; the tensor itself stands beside it."""


def sent_tasks(task: StackTask, chunks: Sequence[range], way: Way) -> Tasks | None:
    """The chunks as tasks for other machines; None if they are more than data, or on a GPU."""
    make = task.make
    if not isinstance(make, Architecture) or task.x.device.type != "cpu":
        return None
    threads = torch.get_num_threads()
    shared = _Shared(
        architecture=make.name,
        args=dict(make.args),
        recipe=asdict(task.recipe),
        outputs=task.outputs,
        way=asdict(way),
        versions=versions(),
        threads=threads,
    )
    return Tasks(
        kind="stack",
        shared=pack_message(shared, x=task.x, y=task.y),
        each=tuple(
            pack_message(
                _Chunk(seeds=tuple(task.seeds[i] for i in chunk)),
                members=torch.from_numpy(task.members[chunk.start : chunk.stop]),
            )
            for chunk in chunks
        ),
        threads=threads,
    )


def done(common_bytes: bytes, task_bytes: bytes) -> bytes:
    """Train the models of one task; the result is the logits, or the sentence of the refusal.

    Raises UsageError where this has other versions of what computes: digits would differ.
    """
    common, rows = unpack_message(_Shared, common_bytes)
    chunk, of_models = unpack_message(_Chunk, task_bytes)
    refuse_other_versions(common.versions)
    threads = torch.get_num_threads()
    torch.set_num_threads(common.threads)
    try:
        task = StackTask(
            make=Architecture(common.architecture, common.args),
            x=rows["x"],
            y=rows["y"],
            members=of_models["members"].numpy(),
            seeds=chunk.seeds,
            recipe=Recipe(**common.recipe),
            outputs=common.outputs,
            keep=None,
        )
        logits = logits_of(task, range(len(chunk.seeds)), Way(**common.way))
    except AuditorError as error:
        return refusal_result(ModelError(str(error)))
    finally:
        torch.set_num_threads(threads)
    return finished(_Logits(), logits=logits.detach())


def received_logits(result: bytes) -> Tensor:
    """The logits (k, n, n_classes) from the result of :func:`done`.

    Raises ModelError where that was a refusal.
    """
    return result_of(_Logits, result)[1]["logits"]
