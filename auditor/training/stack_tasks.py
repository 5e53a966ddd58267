"""Training of several models of one kind: as one stack or separately, here or as a pure task elsewhere.

A step of a stack starts as many operations as that of one model, and what a small network costs is starting them. A
stack of fully connected layers is written out as batched matrix products; any other is torch's ``vmap``.

In this process a task is a :class:`StackTask` and a range of its models. To be done elsewhere it becomes bytes: an
architecture by its name, numbers, tensors as safetensors. Nothing in it is code, so that whoever does it runs this
tool alone, and may be sent it by a process that opened what is not trusted.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from auditor.core.errors import AuditorError, Code, DataError, ModelError, UsageError
from auditor.core.files import Closed
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import Architecture
from auditor.models.networks.layer_chain import NotASequenceError, layers_in_order
from auditor.models.output_kind import Outputs, as_logits
from auditor.models.torch_model import evaluating
from auditor.training.task_executor import Tasks
from auditor.training.training_loop import in_half_precision, mixed_precision, optimizer_of

_Header = TypeVar("_Header", bound=Closed)
_REFUSALS: dict[str, type[AuditorError]] = {kind.__name__: kind for kind in (UsageError, DataError, ModelError)}
# Other versions of these round otherwise.
_ROUND = ("responsible-auditor", "torch", "numpy", "scipy", "scikit-learn")
_DONE, _REFUSED = b"\0", b"\1"


class _Refusal(Closed):
    kind: str
    why: str
    code: Code | None


def pack_message(header: Closed, **tensors: Tensor) -> bytes:
    """Fields and tensors as bytes."""
    return safetensors.torch.save(
        {name: t.contiguous() for name, t in tensors.items()}, {"said": header.model_dump_json()}
    )


def unpack_message(kind: type[_Header], content: bytes) -> tuple[_Header, dict[str, Tensor]]:
    """Fields and tensors from the output of :func:`pack_message`; UsageError if invalid or of another version."""
    try:
        length = int.from_bytes(content[:8], "little")
        said = kind.model_validate_json(json.loads(content[8 : 8 + length])["__metadata__"]["said"])
        # Where torch would lay them: matrix products round by where their numbers lie.
        return said, {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _of_another_version(error) from None


def _of_another_version(error: Exception) -> UsageError:
    return UsageError(f"What was sent is no task of this version of auditor ({type(error).__name__}).")


def finished(header: Closed, **tensors: Tensor) -> bytes:
    """The result of a task that was done."""
    return _DONE + pack_message(header, **tensors)


def refusal_result(error: AuditorError) -> bytes:
    """The result of a task that was refused."""
    kind = type(error).__name__ if type(error).__name__ in _REFUSALS else ModelError.__name__
    return _REFUSED + _Refusal(kind=kind, why=str(error), code=error.code).model_dump_json().encode()


def result_of(kind: type[_Header], content: bytes) -> tuple[_Header, dict[str, Tensor]]:
    """The argument of :func:`finished`; raises the error of :func:`refusal_result`, with its type."""
    if content[:1] == _DONE:
        return unpack_message(kind, content[1:])
    try:
        said = _Refusal.model_validate_json(content[1:])
    except ValueError as error:
        raise _of_another_version(error) from None
    raise _REFUSALS.get(said.kind, ModelError)(said.why, code=said.code)


def versions() -> dict[str, str]:
    """Versions of the computing packages: tasks run only with the sender's versions, as digits would differ."""
    return {name: version(name) for name in _ROUND}


def refuse_other_versions(sender_versions: Mapping[str, str]) -> None:
    """Raise UsageError if the computing packages here differ from the sender's."""
    here = versions()
    differing = [name for name in here if sender_versions.get(name) != here[name]]
    if differing:
        ours, theirs = (
            ", ".join(f"{name} {known.get(name, 'unknown')}" for name in differing) for known in (here, sender_versions)
        )
        raise UsageError(f"A worker has {ours} and this audit {theirs}: install the same version on both.")


class Stack(Protocol):
    """k models trained together on rows x (n, ...) and labels y (n,)."""

    def learn(self, batch: Tensor) -> None:
        """One step of each model on the rows at ``batch`` (k, b), with the gradient of its own mean loss."""
        ...

    def ask(self, x: Tensor) -> Tensor:
        """(k, m, n_classes) logits of all models at rows x (m, ...), in evaluation mode."""
        ...

    def trained_parameters(self) -> Sequence[Tensor]:
        """The tensors that the optimizer changes."""
        ...


class LinearStack:
    """k chains of linear layers with ReLU between them, forwards and backwards written out as ``torch.baddbmm``.

    All parameters lie in one block, layer by layer and within a layer model by model, so that a step of the optimizer
    is one operation. modules: untrained, on a CPU, each an :func:`linear_chain`.
    """

    def __init__(self, modules: Sequence[nn.Module], x: Tensor, y: Tensor, recipe: Recipe) -> None:
        chains = [linear_chain(module) for module in modules]
        k, first = len(chains), chains[0]
        n_outputs = first[-1].out_features
        self.x = x
        # Of a single output, the logit of the last of two classes, that class alone.
        self.hot = nn.functional.one_hot(y, max(2, n_outputs))[:, -n_outputs:].to(x.dtype)
        self.block = x.new_empty(k * sum(p.numel() for layer in first for p in layer.parameters()))
        self.block.grad = torch.zeros_like(self.block)
        shapes = [s for layer in first for s in ((k, *reversed(layer.weight.shape)), (k, 1, *layer.bias.shape))]
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)]).tolist()
        held, gradients = (
            [block[a:b].view(shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]
            for block in (self.block, self.block.grad)
        )
        self.weights, self.biases = held[::2], held[1::2]
        self.of_weights, self.of_biases = gradients[::2], gradients[1::2]
        for i, chain in enumerate(chains):
            for layer, weight, bias in zip(chain, self.weights, self.biases, strict=True):
                weight[i] = layer.weight.detach().t()
                bias[i, 0] = layer.bias.detach()
        self.optimizer = optimizer_of(recipe, [self.block], fused=True)

    @torch.no_grad()
    def learn(self, batch: Tensor) -> None:
        k, b = batch.shape
        rows = batch.flatten()
        states = self._states(self.x.index_select(0, rows).view(k, b, -1))
        # (k, n_outputs, b): a softmax along a last axis of two costs more than the layers before it.
        raw = states.pop().transpose(1, 2).contiguous()
        error = torch.sigmoid(raw) if raw.shape[1] == 1 else torch.softmax(raw, dim=1)
        error.sub_(self.hot.index_select(0, rows).view(k, b, -1).transpose(1, 2)).div_(b)
        back = error.transpose(1, 2)
        for place in reversed(range(len(self.weights))):
            torch.bmm(states[place].transpose(1, 2), back, out=self.of_weights[place])
            torch.sum(back, 1, keepdim=True, out=self.of_biases[place])
            if place:
                back = torch.bmm(back, self.weights[place].transpose(1, 2))
                torch.ops.aten.threshold_backward.grad_input(back, states[place], 0, grad_input=back)
        self.optimizer.step()

    @torch.no_grad()
    def ask(self, x: Tensor) -> Tensor:
        return as_logits(self._states(x.expand(len(self.weights[0]), *x.shape))[-1], "logits")

    def trained_parameters(self) -> Sequence[Tensor]:
        return [self.block]

    def _states(self, x: Tensor) -> list[Tensor]:
        """What goes into each layer, and what comes out of the last: (k, m, width)."""
        states = [x]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            states.append(torch.baddbmm(bias, states[-1], weight).clamp_min_(0.0))
        return [*states, torch.baddbmm(self.biases[-1], states[-1], self.weights[-1])]


def linear_chain(module: nn.Module) -> list[nn.Linear]:
    """The linear layers of a network of only these, with a ReLU after all but the last; NotASequenceError."""
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in module.modules()):
        raise NotASequenceError("dropout draws")
    layers = layers_in_order(module)
    linear = [layer for layer in layers[::2] if isinstance(layer, nn.Linear) and layer.bias is not None]
    between = [layer for layer in layers[1::2] if isinstance(layer, nn.ReLU)]
    if len(linear) + len(between) != len(layers) or len(linear) != len(between) + 1 or len(set(linear)) < len(linear):
        raise NotASequenceError("it is not linear layers with a ReLU between them")
    if not all(p.requires_grad for p in module.parameters()):
        raise NotASequenceError("some of its parameters stay as they are")
    return linear


# ---- any layers ----------------------------------------------------------------------------------------------------


class VmapStack:
    """k modules as one function of stacked parameters and buffers; their class is applied by ``vmap``.

    ``plain_attention``: attention is written out, without the fused kernels that ``vmap`` does not know on every
    device. On a GPU where the loop trains in bfloat16, so does this: the parameters stay as they are and are rounded
    for each pass, since ``vmap`` does not heed ``torch.autocast``.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        x: Tensor,
        y: Tensor,
        recipe: Recipe,
        outputs: Outputs,
        *,
        plain_attention: bool,
    ) -> None:
        self.x, self.y, self.outputs = x, y, outputs
        self.plain_attention = plain_attention
        self.half = in_half_precision(x.device)
        self.parameters, self.buffers = stack_module_state(list(modules))
        self.skeleton = copy.deepcopy(modules[0]).to("meta")
        drops = any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in modules[0].modules())
        self._randomness = "different" if drops else "error"
        self.optimizer = optimizer_of(recipe, self.trained_parameters())

    @torch.enable_grad()
    def learn(self, batch: Tensor) -> None:
        if not self.skeleton.training:
            self.skeleton.train()
        self.optimizer.zero_grad(set_to_none=True)
        with attention_written_out(self.plain_attention):
            logits = self._logits(self.x[batch], shared_input=False, half=self.half)
            # Classes first: a softmax along a last axis of two costs more than the layers before it.
            classes_first = logits.flatten(0, 1).t().unsqueeze(0)
            labels = self.y[batch].flatten().unsqueeze(0)
            # The sum over models of their mean losses: each model's gradient is that of its own mean loss.
            loss = nn.functional.cross_entropy(classes_first, labels, reduction="sum") / batch.shape[1]
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def ask(self, x: Tensor) -> Tensor:
        self.skeleton.eval()
        with attention_written_out(self.plain_attention):
            return self._logits(x, shared_input=True, half=False)

    def trained_parameters(self) -> Sequence[Tensor]:
        return [p for p in self.parameters.values() if p.requires_grad]

    def _logits(self, x: Tensor, *, shared_input: bool, half: bool) -> Tensor:
        """(k, m, n_classes) logits of x, (k, m, ...) or, where ``shared_input``, (m, ...) for all models."""

        def apply_model(parameters: dict[str, Tensor], buffers: dict[str, Tensor], rows: Tensor) -> Tensor:
            if half:
                parameters, buffers = (_rounded(held) for held in (parameters, buffers))
                rows = _rounded({"rows": rows})["rows"]
            raw = outputs_of(functional_call(self.skeleton, (parameters, buffers), (rows,)))
            return as_logits(raw.float() if half else raw, self.outputs)

        dims = (0, 0, None if shared_input else 0)
        applied: Tensor = vmap(apply_model, in_dims=dims, randomness=self._randomness)(self.parameters, self.buffers, x)
        return applied


def _rounded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in tensors.items()}


@contextmanager
def attention_written_out(enable: bool) -> Iterator[None]:
    """Context with attention without fused kernels if ``enable``; restored afterwards."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(was and not enable)
    try:
        with sdpa_kernel(SDPBackend.MATH) if enable else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


# ---- one by one ----------------------------------------------------------------------------------------------------


class Alone:
    """A stack of one: a module trained as it is."""

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, outputs: Outputs) -> None:
        self.module, self.x, self.y, self.outputs = module, x, y, outputs
        self.optimizer = optimizer_of(recipe, self.trained_parameters())

    @torch.enable_grad()
    def learn(self, batch: Tensor) -> None:
        if not self.module.training:
            self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        (rows,) = batch
        with mixed_precision(self.x.device):
            loss = nn.functional.cross_entropy(self._logits(self.x[rows]), self.y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def ask(self, x: Tensor) -> Tensor:
        with evaluating(self.module):
            return self._logits(x).unsqueeze(0)

    def trained_parameters(self) -> Sequence[Tensor]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _logits(self, rows: Tensor) -> Tensor:
        return as_logits(outputs_of(self.module(rows)), self.outputs)


# ---- what can be stacked -------------------------------------------------------------------------------------------


def why_no_vmap(modules: Sequence[nn.Module], few: Tensor, outputs: Outputs, *, plain_attention: bool) -> str:
    """The reason why two untrained modules cannot be a :class:`VmapStack`; "" if a trial on a few rows succeeds.

    few (2 or more, ...): encoded rows. The modules stay as they are.
    """
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
            y = torch.zeros(len(few), dtype=torch.int64, device=few.device)
            still = Recipe(optimizer="sgd", learning_rate=0.0)
            stack = VmapStack(modules, few, y, still, outputs, plain_attention=plain_attention)
            with warnings.catch_warnings():
                # vmap warns where it falls back to a loop of its own, which is slower than ours.
                warnings.simplefilter("error")
                stack.learn(torch.arange(len(few), device=few.device).expand(2, -1))
                together = stack.ask(few)
        except Exception as error:  # whatever functorch raises on a layer that it does not know
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
            return f"vmap cannot take the module: {reason}"
        with torch.no_grad():
            apart = torch.stack([as_logits(outputs_of(module.eval()(few)), outputs) for module in modules])
    if not torch.allclose(together, apart, rtol=1e-3, atol=1e-4):
        return "vmap changes what the module says"
    return ""


def outputs_of(returned: Any) -> Tensor:
    """(n, n_outputs) from a network's return value: a tensor, or transformers' record with its ``logits``."""
    raw: Tensor = getattr(returned, "logits", returned)
    return raw.unsqueeze(1) if raw.ndim == 1 else raw


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
