"""Many models of one kind trained together, each on its own rows: parameters stacked, ``torch.func.vmap`` over them.

A batch of k small networks costs little more than one, because what a small network costs is the calls and not the
arithmetic. What comes out is what the models would be if they were trained one by one with the same seeds, up to
rounding.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import resource
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from auditor.errors import ModelError
from auditor.files import write_beside
from auditor.model.audited_model import Recipe
from auditor.model.outputs import Outputs, as_logits
from auditor.model.torch_model import evaluating
from auditor.randomness import seeded_globals
from auditor.training.costs import Work, work_of
from auditor.training.loop import optimizer_of

BoolArray = npt.NDArray[np.bool_]
MOST_TOGETHER = 32
_BUDGET = 1 << 30
_FEWEST_BYTES = 64 << 20
# Working copies that a backward pass makes beside what the forward pass kept.
_WORKING_COPIES = 3
_OPTIMIZERS = ("adam", "adamw", "sgd")

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Ensemble:
    """What k trained models say of every row.

    ``kept`` (k, n, ...): ``keep`` of their logits on all rows, in evaluation mode. ``members`` (k, n): the rows each
    was trained on. ``notes``: what a reader must know of how they were trained.
    """

    kept: npt.NDArray[np.float64]
    members: BoolArray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seeds:
    """Independent seeds of the parts of one model's training, from its one seed."""

    initialisation: int
    batches: int
    noise: int

    @classmethod
    def of(cls, seed: int) -> Seeds:
        """The three seeds of a model."""
        return cls(*(int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64) >> np.uint64(1)))


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
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Ensemble:
    """Trains one model per row of ``members`` and applies all of them to all rows.

    make: an untrained module, initialised from torch's global generator, which is seeded for it. x (n, ...) encoded
    rows and y (n,) int64 labels, on the device to train on, in the modules' own type. members (k, n): the rows that
    each model learns from, as many for each. ``recipe``: optimizer (adam, adamw or sgd, torch.optim's own step on the
    stacked parameters), learning rate, momentum, weight decay, epochs, batch size; cross-entropy; each model has its
    own permutation per epoch. A last batch of a single row is left out, as :mod:`auditor.training.train` does.
    ``keep``: logits (k, n, n_classes) to what is wanted of them, along the first two axes; None keeps the logits.

    Modules that ``vmap`` cannot take (running statistics, some recurrent layers) are trained one by one, and ``notes``
    says so. ``memory_bytes``: None takes a quarter of what the process may still use, at most 1 GiB; it decides how
    many models train at a time, at most ``most_together``. Dropout draws for all models of a chunk at once, so there,
    and only there, the result depends on the size of the chunks. ``checkpoint``: a folder in which each chunk is kept
    when it is done; a run with the same inputs goes on from there with the same result, whatever else lies there.

    Raises ModelError for an unknown optimizer, models of unequal numbers of rows, and a loss that is not finite.
    """
    k = len(members)
    say = progress or (lambda _: None)
    task = _checked(_Task(make, x, y, members, tuple(seeds), recipe, outputs, keep))
    why_not = _cannot_stack(task)
    together = 1 if why_not else min(most_together, _fit_in(task, memory_bytes), k)
    parts, reused = [], 0
    for start in range(0, k, together):
        chunk = range(start, min(start + together, k))
        place = None if checkpoint is None else Path(checkpoint) / f"ensemble-{_fingerprint(task, chunk, why_not)}.npy"
        part = None if place is None else _read(place, len(chunk), len(x))
        if part is None:
            say(f"training models {chunk.start + 1} to {chunk.stop} of {k}")
            part = _one_by_one(task, chunk) if why_not else _stacked(task, chunk)
            if place is not None:
                _write(place, part)
        else:
            reused += len(chunk)
        parts.append(part)
    notes = [f"{k} models were trained one by one, because {why_not}"] if why_not else []
    if reused:
        notes.append(f"{reused} of {k} models were read from the checkpoint folder")
    return Ensemble(kept=np.concatenate(parts), members=members, notes=tuple(notes))


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
    most_together: int = MOST_TOGETHER,
) -> float:
    """About how many seconds of one core :func:`train_together` takes for ``n_models``, each on ``n_learned`` rows.

    Nothing is timed: the operations of one step and of one pass over a batch are counted and multiplied, by the unit
    costs of :mod:`auditor.training.costs`, so that the same question has the same answer on every machine of a kind.
    x (n, ...), ``make``, ``recipe``, ``outputs``, ``memory_bytes`` and ``most_together`` as there. Within a factor of
    3 of the processor time of small networks on a server of 2023. Raises ModelError where it would.
    """
    members = np.broadcast_to(np.arange(len(x)) < n_learned, (n_models, len(x)))
    y = torch.arange(len(x), device=x.device) % n_classes
    task = _checked(_Task(make, x, y, members, tuple(range(n_models)), recipe, outputs, None))
    why_not = _cannot_stack(task)
    together = 1 if why_not else min(most_together, _fit_in(task, memory_bytes), n_models)
    counted = 1 if why_not else min(2, together)
    rows = x[: task.batch_size]
    learned, asked = _work_of_a_batch(task, rows, counted, stacked=not why_not)
    n_batches = recipe.epochs * math.ceil(n_learned / task.batch_size)
    whole = learned.of_rows(together / counted * n_learned / (task.batch_size * math.ceil(n_learned / task.batch_size)))
    once = asked.of_rows(together / counted * len(x) / len(rows))
    return math.ceil(n_models / together) * (n_batches * whole.seconds + once.seconds)


def _work_of_a_batch(task: _Task, rows: Tensor, k: int, *, stacked: bool) -> tuple[Work, Work]:
    """The work of a step of k models on a batch, and of asking them about one."""
    order = torch.arange(len(rows), device=rows.device).expand(k, -1)
    with seeded_globals(np.random.default_rng(0)):
        if stacked:
            stack = _Stack([task.fresh(i) for i in range(k)], task.outputs)
            optimizer = optimizer_of(task.recipe, stack.trainable())
            stack.skeleton.train()
            with torch.enable_grad(), _plain_attention():
                learned = _second(lambda: _one_epoch(task, stack, order, optimizer))
            stack.skeleton.eval()
            with torch.no_grad(), _plain_attention():
                return learned, work_of(lambda: stack(rows, shared=True))
        module = task.fresh(0)
        optimizer = optimizer_of(task.recipe, [p for p in module.parameters() if p.requires_grad])
        module.train()
        with torch.enable_grad():
            learned = _second(lambda: _one_step(task, module, order[0], optimizer))
        with torch.no_grad(), evaluating(module):
            return learned, work_of(lambda: _logits(module, rows, task.outputs))


def _second(step: Callable[[], object]) -> Work:
    """The work of the second step, since the first makes what an optimizer remembers."""
    step()
    return work_of(step)


@dataclass(frozen=True, eq=False)
class _Task:
    """The arguments of one call of :func:`train_together`."""

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
        return min(self.recipe.batch_size, int(self.members[0].sum()))

    def fresh(self, index: int) -> nn.Module:
        """The untrained model of an index, the same one each time."""
        with seeded_globals(np.random.default_rng(Seeds.of(self.seeds[index]).initialisation)):
            return self.make().to(self.x.device)

    def said(self, logits: Tensor) -> npt.NDArray[np.float64]:
        """``keep`` of logits (k, n, n_classes) as an array."""
        kept = logits if self.keep is None else self.keep(logits)
        return kept.detach().cpu().double().numpy()


def _checked(task: _Task) -> _Task:
    """The task; ModelError where it cannot be done."""
    if task.recipe.optimizer not in _OPTIMIZERS:
        raise ModelError(f"The optimizer {task.recipe.optimizer!r} of the recipe is none of {', '.join(_OPTIMIZERS)}.")
    k, sizes = len(task.members), task.members.sum(axis=1)
    if len(task.seeds) != k or not k or not sizes.min() == sizes.max() > 0 or task.members.shape[1] != len(task.x):
        raise ModelError("Training together needs a seed and as many rows, one or more, for each model.")
    return task


# ---- together ------------------------------------------------------------------------------------------------------


class _Stack:
    """k modules as one function of stacked parameters and buffers; their class is applied by ``vmap``."""

    def __init__(self, modules: Sequence[nn.Module], outputs: Outputs) -> None:
        self.outputs = outputs
        self.parameters, self.buffers = stack_module_state(list(modules))
        self.skeleton = copy.deepcopy(modules[0]).to("meta")
        drops = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules[0].modules())
        self._randomness = "different" if drops else "error"

    def __call__(self, x: Tensor, *, shared: bool) -> Tensor:
        """(k, m, n_classes) logits of x, (k, m, ...) or, where ``shared``, (m, ...) for all models."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], rows: Tensor) -> Tensor:
            raw: Tensor = functional_call(self.skeleton, (parameters, buffers), (rows,))
            raw = raw.unsqueeze(1) if raw.ndim == 1 else raw
            return as_logits(raw, self.outputs)

        dims = (0, 0, None if shared else 0)
        applied: Tensor = vmap(one, in_dims=dims, randomness=self._randomness)(self.parameters, self.buffers, x)
        return applied

    def trainable(self) -> list[Tensor]:
        """The stacked parameters that the optimizer moves."""
        return [p for p in self.parameters.values() if p.requires_grad]


def _stacked(task: _Task, chunk: range) -> npt.NDArray[np.float64]:
    stack = _Stack([task.fresh(i) for i in chunk], task.outputs)
    optimizer = optimizer_of(task.recipe, stack.trainable())
    own = np.stack([np.flatnonzero(task.members[i]) for i in chunk])
    rows = torch.from_numpy(own).to(task.x.device)
    generators = [torch.Generator().manual_seed(Seeds.of(task.seeds[i]).batches) for i in chunk]
    stack.skeleton.train()
    noise = np.random.default_rng(Seeds.of(task.seeds[chunk.start]).noise)
    with seeded_globals(noise), torch.enable_grad(), _plain_attention():
        for _ in range(task.recipe.epochs):
            orders = torch.stack([torch.randperm(rows.shape[1], generator=g) for g in generators])
            order = torch.gather(rows, 1, orders.to(rows.device))
            last = _one_epoch(task, stack, order, optimizer)
        _finite(last)
    stack.skeleton.eval()
    return _applied(task, stack, len(chunk))


def _one_epoch(task: _Task, stack: _Stack, order: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Trains an epoch on rows ``order`` (k, m); the last batch's loss, summed over the models."""
    loss = torch.zeros(())
    for batch in torch.split(order, task.batch_size, dim=1):
        if batch.shape[1] == 1 and order.shape[1] > 1:
            continue
        optimizer.zero_grad(set_to_none=True)
        logits = stack(task.x[batch], shared=False)
        # Classes first: a softmax along a last axis of two costs more than the layers before it.
        classes_first = logits.flatten(0, 1).t().unsqueeze(0)
        flat = nn.functional.cross_entropy(classes_first, task.y[batch].flatten().unsqueeze(0), reduction="sum")
        # The sum over models of their mean losses: each model's gradient is that of its own mean loss.
        loss = flat / batch.shape[1]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.detach()


def _applied(task: _Task, stack: _Stack, k: int) -> npt.NDArray[np.float64]:
    at_once = max(1, task.batch_size * MOST_TOGETHER // k)
    with torch.no_grad(), _plain_attention():
        parts = [stack(part, shared=True) for part in torch.split(task.x, at_once)]
    return task.said(torch.cat(parts, dim=1))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention written out, without the fused kernels that ``vmap`` does not know; as it was afterwards."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


def _finite(loss: Tensor) -> None:
    if not math.isfinite(float(loss)):
        raise ModelError("The loss of a model became infinite or NaN in training: lower the recipe's learning rate.")


# ---- one by one ----------------------------------------------------------------------------------------------------


def _one_by_one(task: _Task, chunk: range) -> npt.NDArray[np.float64]:
    found = []
    for i in chunk:
        module = task.fresh(i)
        optimizer = optimizer_of(task.recipe, [p for p in module.parameters() if p.requires_grad])
        rows = torch.from_numpy(np.flatnonzero(task.members[i]))
        generator = torch.Generator().manual_seed(Seeds.of(task.seeds[i]).batches)
        module.train()
        loss = torch.zeros(())
        with seeded_globals(np.random.default_rng(Seeds.of(task.seeds[i]).noise)), torch.enable_grad():
            for _ in range(task.recipe.epochs):
                order = rows[torch.randperm(len(rows), generator=generator)].to(task.x.device)
                for batch in torch.split(order, task.batch_size):
                    if len(batch) == 1 and len(order) > 1:
                        continue
                    loss = _one_step(task, module, batch, optimizer)
            _finite(loss.detach())
        with torch.no_grad(), evaluating(module):
            parts = [_logits(module, part, task.outputs) for part in torch.split(task.x, 4096)]
        found.append(task.said(torch.cat(parts).unsqueeze(0)))
    return np.concatenate(found)


def _one_step(task: _Task, module: nn.Module, batch: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(_logits(module, task.x[batch], task.outputs), task.y[batch])
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def _logits(module: nn.Module, rows: Tensor, outputs: Outputs) -> Tensor:
    raw: Tensor = module(rows)
    return as_logits(raw.unsqueeze(1) if raw.ndim == 1 else raw, outputs)


def _cannot_stack(task: _Task) -> str:
    """Why the models cannot be trained together, or "" where a trial of two shows that they can."""
    modules = [task.fresh(0), task.fresh(min(1, len(task.seeds) - 1))]
    few = task.x[: max(2, min(4, len(task.x)))]
    before = {name: value.clone() for name, value in modules[0].named_buffers()}
    trial = copy.deepcopy(modules[0]).train()
    with seeded_globals(np.random.default_rng(0)):
        with torch.no_grad():
            trial(few)
        moved = [name for name, value in trial.named_buffers() if not torch.equal(value, before[name])]
        if moved:
            owner = modules[0].get_submodule(moved[0].rpartition(".")[0])
            return f"{type(owner).__name__} keeps running statistics, which vmap cannot take"
        try:
            stack = _Stack(modules, task.outputs)
            with warnings.catch_warnings():
                # vmap warns where it falls back to a loop of its own, which is slower than ours.
                warnings.simplefilter("error")
                with torch.enable_grad(), _plain_attention():
                    stack.skeleton.train()
                    stack(torch.stack([few, few]), shared=False).sum().backward()  # type: ignore[no-untyped-call]
                stack.skeleton.eval()
                with torch.no_grad(), _plain_attention():
                    together = stack(few, shared=True)
        except Exception as error:  # whatever functorch raises on a layer that it does not know
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
            return f"vmap cannot take the module: {reason}"
        with torch.no_grad():
            apart = torch.stack([_logits(module.eval(), few, task.outputs) for module in modules])
    if not torch.allclose(together, apart, rtol=1e-3, atol=1e-4):
        return "vmap changes what the module says"
    return ""


# ---- memory --------------------------------------------------------------------------------------------------------


def memory_budget() -> int:
    """Bytes that training together may use: a quarter of what the process may still map, at most 1 GiB."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or sys.platform != "linux":
        return _BUDGET
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return min(_BUDGET, max((limit - mapped) // 4, _FEWEST_BYTES))


def _fit_in(task: _Task, memory_bytes: int | None) -> int:
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
        logits = _logits(module.train(), task.x[:rows], task.outputs)
    of_parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    # Logits on all rows, twice and as doubles; positions of the learned rows, and their order.
    of_rows = 16 * len(task.x) * logits.shape[1] + 16 * int(task.members[0].sum())
    each = 4 * of_parameters + _WORKING_COPIES * sum(kept) + of_rows
    budget = memory_budget() if memory_bytes is None else memory_bytes
    # A power of two, so that a little more or less memory does not change the last digits of the result.
    return 1 << (max(1, budget // max(each, 1)).bit_length() - 1)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def _fingerprint(task: _Task, chunk: range, why_not: str) -> str:
    """A digest of everything that decides what the models of a chunk say."""
    first = task.fresh(chunk.start)
    digest = hashlib.sha256()
    said = {
        "recipe": asdict(task.recipe),
        "outputs": task.outputs,
        "seeds": [task.seeds[i] for i in chunk],
        "module": repr(first),
        "keep": _name_of(task.keep),
        "how": why_not,
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


def _write(place: Path, part: npt.NDArray[np.float64]) -> None:
    buffer = BytesIO()
    np.save(buffer, part, allow_pickle=False)
    write_beside(place, buffer.getvalue())


def _read(place: Path, k: int, n: int) -> npt.NDArray[np.float64] | None:
    """What a chunk left, or None where it left nothing that can be used."""
    try:
        part: npt.NDArray[np.float64] = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return part if part.dtype == np.float64 and part.shape[:2] == (k, n) else None
