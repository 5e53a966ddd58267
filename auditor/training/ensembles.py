"""Many models of one kind trained together, each on its own rows, stacked if that is cheaper.

A batch of k small networks costs little more than one, because what a small network costs is the calls and not the
arithmetic. What comes out is what the models would be if they were trained one by one with the same seeds, up to
rounding.
"""

from __future__ import annotations

import hashlib
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.core.files import write_beside
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray
from auditor.models.audited_model import Recipe
from auditor.models.networks.layer_chain import NotASequenceError
from auditor.models.output_kind import Outputs
from auditor.training.computation_cost import Work, work_of
from auditor.training.stack_tasks import (
    ALONE,
    StackTask,
    Way,
    linear_chain,
    logits_of,
    outputs_of,
    received_logits,
    sent_tasks,
    why_no_vmap,
)
from auditor.training.task_executor import lent_executor

MOST_TOGETHER = 32
_BUDGET = 1 << 30
_FEWEST_BYTES = 64 << 20
# Working copies that a backward pass makes beside what the forward pass kept.
_WORKING_COPIES = 3
# Rows that are counted on; and the least share of starting operations in what models take that a stack may save.
_FEW_ROWS = 4
_LEAST_TO_SAVE = 0.1
_OPTIMIZERS = ("adam", "adamw", "sgd")

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Ensemble:
    """The outputs of k trained models for every row.

    ``kept`` (k, n, ...): ``keep`` of their logits on all rows, in evaluation mode. ``members`` (k, n): the rows each
    was trained on. ``notes``: what a reader must know of how they were trained.
    """

    kept: FloatArray
    members: BoolArray
    notes: tuple[str, ...] = ()


def random_halves(n_models: int, n_rows: int, rng: np.random.Generator) -> BoolArray:
    """(n_models, n_rows) a random half of the rows for each model, the models in pairs of complements.

    So every row is in for exactly half of an even number of models, and all models have floor(n_rows / 2) rows; where
    ``n_rows`` is odd, one row drawn for each pair is in neither, and so out for both: another one for each pair, as
    long as there are others, so that two pairs have every row in somewhere.
    """
    halves = np.zeros((n_models, n_rows), np.bool_)
    size = n_rows // 2
    left_out: set[int] = set()
    for first in range(0, n_models, 2):
        order = rng.permutation(n_rows)
        while n_rows % 2 and order[-1] in left_out and len(left_out) < n_rows:
            order = rng.permutation(n_rows)
        left_out.add(order[-1])
        halves[first, order[:size]] = True
        if first + 1 < n_models:
            halves[first + 1, order[size : 2 * size]] = True
    return halves


def train_together(
    make: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    members: BoolArray,
    *,
    seeds: Sequence[int],
    recipe: Recipe,
    outputs: Outputs = "logits",
    keep: Callable[[Tensor], Tensor] | None = None,
    memory_bytes: int | None = None,
    most_together: int = MOST_TOGETHER,
    stacked: bool | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Ensemble:
    """Train one model per row of ``members`` and apply all of them to all rows.

    make: an untrained module, initialised from torch's global generator, which is seeded for it. x (n, ...) encoded
    rows and y (n,) int64 labels, on the device to train on, in the modules' own type. members (k, n): the rows that
    each model learns from, as many for each. ``recipe``: optimizer (adam, adamw or sgd, torch.optim's own step on the
    stacked parameters), learning rate, momentum, weight decay, epochs, batch size; cross-entropy; each model has its
    own permutation per epoch. A last batch of a single row is left out, as :mod:`auditor.training.train_table` does.
    ``keep``: logits (k, n, n_classes) to what is wanted of them, along the first two axes; None keeps the logits.

    Models train in stacks where that can be done and costs less than one by one, which is counted
    (:mod:`auditor.training.computation_cost`) and not timed, so that the same call takes the same way; ``notes`` says
    where they were trained one by one, and why. ``stacked``: True wherever it can be done, False never. Either way
    comes to the same models up to rounding. On a GPU both compute in bfloat16 where
    :mod:`auditor.training.training_loop` does.

    ``memory_bytes``: None takes half of the free memory of a GPU, else a quarter of what the process may still use, at
    most 1 GiB; it decides how many models are a stack, at most ``most_together``. Dropout draws for all models of a
    stack at once, so there, and only there, the result depends on the size of the stacks. ``checkpoint``: a folder in
    which each stack is kept when it is done; a run with the same inputs goes on from there with the same result,
    whatever else lies there. Inside :func:`auditor.training.task_executor.tasks_by` the stacks are tasks of its
    executor where they are data alone: ``make`` an :class:`auditor.models.networks.architectures.Architecture`, the
    rows on a CPU.

    Raises ModelError for an unknown optimizer, models of unequal numbers of rows, and a loss that is not finite.
    """
    k = len(members)
    say = progress or (lambda _: None)
    task = _checked(StackTask(make, x, y, members, tuple(seeds), recipe, outputs, keep))
    way = _choose_way(task, most_together, stacked)
    together = _at_once(task, way, most_together, memory_bytes)
    chunks = [range(start, min(start + together, k)) for start in range(0, k, together)]
    places = [None if checkpoint is None else Path(checkpoint) / f"ensemble-{_fingerprint(task, chunk, way)}.npy"
              for chunk in chunks]  # fmt: skip
    parts = {i: part for i, place in enumerate(places)
             if place is not None and (part := _read_chunk(place, len(chunks[i]), len(x))) is not None}  # fmt: skip
    reused = sum(len(chunks[i]) for i in parts)
    for i, logits in _logits_of(task, {i: chunk for i, chunk in enumerate(chunks) if i not in parts}, way, say):
        parts[i] = task.kept_outputs(logits)
        if (place := places[i]) is not None:
            _write(place, parts[i])
    notes = [f"{k} models were trained one by one, because {way.why_alone}"] if way.why_alone else []
    if reused:
        notes.append(f"{reused} of {k} models were read from the checkpoint folder")
    return Ensemble(kept=np.concatenate([parts[i] for i in range(len(chunks))]), members=members, notes=tuple(notes))


def predicted_seconds(
    make: Callable[[], nn.Module],
    x: Tensor,
    *,
    n_models: int,
    n_learned: int,
    n_classes: int,
    recipe: Recipe,
    outputs: Outputs = "logits",
    memory_bytes: int | None = None,
    stacked: bool | None = None,
) -> float:
    """About how many seconds of one core :func:`train_together` takes for ``n_models``, each on ``n_learned`` rows.

    Nothing is timed: the operations of one step and of one pass over a batch are counted and multiplied by the unit
    costs of :mod:`auditor.training.computation_cost`: the same question has the same answer every time. x (n, ...),
    ``make``, ``recipe``, ``outputs``, ``memory_bytes`` and ``stacked`` as there. Within a factor of
    3 of the processor time of small networks on a server of 2023. Raises ModelError where it would.
    """
    members = np.broadcast_to(np.arange(len(x)) < n_learned, (n_models, len(x)))
    y = torch.arange(len(x), device=x.device) % n_classes
    task = _checked(StackTask(make, x, y, members, tuple(range(n_models)), recipe, outputs, None))
    way = _choose_way(task, MOST_TOGETHER, stacked)
    together = _at_once(task, way, MOST_TOGETHER, memory_bytes)
    return math.ceil(n_models / together) * _work_of_training(task, way, together).seconds


def _logits_of(task: StackTask, chunks: Mapping[int, range], way: Way, say: Progress) -> Iterator[tuple[int, Tensor]]:
    """The logits (k, n, n_classes) of each chunk by its number: as they end elsewhere, or one after another here."""
    executor = lent_executor()
    sent = None if executor is None or not chunks else sent_tasks(task, list(chunks.values()), way)
    if executor is None or sent is None:
        for i, chunk in chunks.items():
            say(f"training models {chunk.start + 1} to {chunk.stop} of {len(task.members)}")
            yield i, logits_of(task, chunk, way)
        return
    numbers = list(chunks)
    for place, result in executor.results(sent):
        say(f"trained {len(chunks[numbers[place]])} more of {len(task.members)} models")
        yield numbers[place], received_logits(result)


def _checked(task: StackTask) -> StackTask:
    """The task; ModelError where it cannot be done."""
    if task.recipe.optimizer not in _OPTIMIZERS:
        raise ModelError(f"The optimizer {task.recipe.optimizer!r} of the recipe is none of {', '.join(_OPTIMIZERS)}.")
    k, sizes = len(task.members), task.members.sum(axis=1)
    if len(task.seeds) != k or not k or not sizes.min() == sizes.max() > 0 or task.members.shape[1] != len(task.x):
        raise ModelError("Training together needs a seed and as many rows, one or more, for each model.")
    return task


# ---- how ------------------------------------------------------------------------------------------------------------


def _possible(task: StackTask) -> Way:
    """The stack that such models can be, or alone and why they cannot."""
    modules = [task.fresh(0), task.fresh(min(1, len(task.seeds) - 1))]
    x = task.x
    if x.device.type == "cpu" and x.ndim == 2 and task.outputs == "logits" and _of_one_type(modules[0], x):
        with suppress(NotASequenceError):
            linear_chain(modules[0])
            return Way("linear")
    few = x[: max(2, min(4, len(x)))]
    why_not = ""
    for plain_attention in (False, True):
        found = why_no_vmap(modules, few, task.outputs, plain_attention=plain_attention)
        if not found:
            return Way("vmap", plain_attention)
        why_not = why_not or found
    return Way("alone", why_alone=why_not)


def _of_one_type(module: nn.Module, x: Tensor) -> bool:
    return all(p.dtype == x.dtype for p in module.parameters())


def _choose_way(task: StackTask, most_together: int, stacked: bool | None) -> Way:
    """Stacked where that can be done and costs less; counted, so that a result does not depend on a clock."""
    if stacked is not None:
        return _possible(task) if stacked else ALONE
    k = min(most_together, len(task.members))
    apart = _work_of_training(task, ALONE, 1)
    if apart.starting < _LEAST_TO_SAVE * apart.seconds:
        share = apart.starting / apart.seconds
        return Way("alone", why_alone=f"starting operations, which a stack saves, is {share:.1%} of what they take")
    possible = _possible(task)
    if possible.kind == "alone":
        return possible
    times = _work_of_training(task, possible, k).seconds / k / apart.seconds
    return possible if times < 1.0 else Way("alone", why_alone=f"stacked they would take {times:.1f} times as long")


def _work_of_training(task: StackTask, way: Way, k: int) -> Work:
    """The work of a chunk of k models: their steps, and what they say of all rows.

    Counted on a few rows and on twice as many, since what does not grow with them is the work on the parameters.
    """
    counted, n_learned = min(k, 2), int(task.members[0].sum())
    steps = math.ceil(n_learned / task.batch_size)
    with seeded_globals(np.random.default_rng(0)):
        stack = way.stack(task, range(counted))
        few, more = (torch.arange(m, device=task.x.device) % len(task.x) for m in (_FEW_ROWS, 2 * _FEW_ROWS))
        # The first step makes what the optimizer remembers.
        stack.learn(few.expand(counted, -1))
        learning = [work_of(lambda: stack.learn(rows.expand(counted, -1))) for rows in (few, more)]  # noqa: B023
        asking = [work_of(lambda: stack.ask(task.x[rows])) for rows in (few, more)]  # noqa: B023
    step = learning[0].extrapolate(learning[1], n_learned / steps / _FEW_ROWS)
    asked = asking[0].extrapolate(asking[1], len(task.x) / _FEW_ROWS)
    return (step * (task.recipe.epochs * steps) + asked).of_numbers(k / counted)


# ---- memory --------------------------------------------------------------------------------------------------------


def memory_budget(device: torch.device | None = None) -> int:
    """Bytes for joint training: half of the free GPU memory, or a quarter of the process's memory limit.

    Beside a GPU at most 1 GiB.
    """
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return max(free // 2, _FEWEST_BYTES)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or sys.platform != "linux":
        return _BUDGET
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return min(_BUDGET, max((limit - mapped) // 4, _FEWEST_BYTES))


def _at_once(task: StackTask, way: Way, most_together: int, memory_bytes: int | None) -> int:
    if way.kind == "alone":
        return 1
    return min(most_together, _fit_in(task, memory_bytes), len(task.members))


def _fit_in(task: StackTask, memory_bytes: int | None) -> int:
    """How many models fit: parameters, gradients and moments of each, and what a batch keeps for the backward pass."""
    module = task.fresh(0)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    rows = min(task.batch_size, len(task.x))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        seeded_globals(np.random.default_rng(0)),
        torch.enable_grad(),
    ):
        n_classes = max(2, outputs_of(module.train()(task.x[:rows])).shape[1])
    of_parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    # Logits on all rows, twice and as doubles; positions of the learned rows, and their order.
    of_rows = 16 * len(task.x) * n_classes + 16 * int(task.members[0].sum())
    each = 4 * of_parameters + _WORKING_COPIES * sum(kept) + of_rows
    budget = memory_budget(task.x.device) if memory_bytes is None else memory_bytes
    # A power of two, so that a little more or less memory does not change the last digits of the result.
    return 1 << (max(1, budget // max(each, 1)).bit_length() - 1)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def _fingerprint(task: StackTask, chunk: range, way: Way) -> str:
    """A digest of everything that decides what the models of a chunk say."""
    first = task.fresh(chunk.start)
    digest = hashlib.sha256()
    said = {
        "recipe": asdict(task.recipe),
        "outputs": task.outputs,
        "seeds": [task.seeds[i] for i in chunk],
        "module": repr(first),
        "keep": _name_of(task.keep),
        "how": asdict(way),
        "torch": torch.__version__,
        "shapes": [list(task.x.shape), str(task.x.dtype)],
    }
    digest.update(json.dumps(said, sort_keys=True).encode())
    for name, value in first.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    for array in (task.x.cpu().numpy(), task.y.cpu().numpy(), task.members[chunk.start : chunk.stop]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def _name_of(keep: Callable[[Tensor], Tensor] | None) -> str:
    """A function's name, the same in every process; what a ``partial`` holds is taken to follow from x and y."""
    function = keep.func if isinstance(keep, partial) else keep
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"


def _write(place: Path, part: FloatArray) -> None:
    buffer = BytesIO()
    np.save(buffer, part, allow_pickle=False)
    write_beside(place, buffer.getvalue())


def _read_chunk(place: Path, k: int, n: int) -> FloatArray | None:
    """What a chunk left, or None where it left nothing that can be used."""
    try:
        part: FloatArray = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return part if part.dtype == np.float64 and part.shape[:2] == (k, n) else None
