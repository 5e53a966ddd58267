"""Torch modules as audited models: differentiable, batched, on CPU or GPU; and networks for other tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, OutputsError
from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from auditor.data.preprocessing import Preprocessing, TabularPreprocessing
from auditor.models.audited_model import BATCH_ROWS, AuditedModel, Provenance, Recipe, in_turn
from auditor.models.forward_passes import move_module, move_tensor
from auditor.models.output_kind import Outputs, Seen, as_logits, as_probabilities, stated_by
from auditor.models.postprocessing import row_draws
from auditor.models.torch_context import without_gradients

if TYPE_CHECKING:
    import pandas as pd

_BATCHES_ENCODED = 8


@runtime_checkable
class DifferentiableModel(Protocol):
    """A model whose logits can be differentiated with respect to its encoded input."""

    module: nn.Module
    device: torch.device

    def encode(self, X: Rows) -> Tensor:
        """(n, ...) input tensor of raw rows, on the model's device."""
        ...

    def logits(self, inputs: Tensor) -> Tensor:
        """(n, n_classes) logits of encoded inputs; differentiable where the inputs are floating point."""
        ...


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Context in evaluation mode; every ``training`` flag is restored afterwards."""
    learning = list(_learning(module))
    # To set what is set already takes a small network as long as a row.
    if learning:
        module.eval()
    try:
        yield
    finally:
        for m in learning:
            m.training = True


def _learning(module: nn.Module) -> Iterator[nn.Module]:
    """Those parts of a module that are in training mode; named_modules takes longer to say so."""
    if module.training:
        yield module
    for part in module.children():
        yield from _learning(part)


class TorchNetwork(AuditedModel):
    """Common base of all audited torch modules: encoding, device, training flags.

    ``preprocessing`` or else ``encoder`` turns raw rows into the module's input. ``architecture`` and ``recipe`` make
    it a bundle that others can load and train again. ``frozen_mode``: the module refuses ``eval()``, as an exported
    program does. ``of_its_kind``: what else the model's other base takes.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        encoder: Callable[[Rows], Tensor] | None = None,
        features: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        architecture: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
        batch_rows: int = BATCH_ROWS,
        frozen_mode: bool = False,
        provenance: Provenance | None = None,
        **of_its_kind: Any,
    ) -> None:
        super().__init__(
            self._answers,
            features=preprocessing.features if isinstance(preprocessing, TabularPreprocessing) else features,
            preprocessing=preprocessing,
            batch_rows=batch_rows,
            provenance=provenance,
            **of_its_kind,
        )
        self.device = torch.device(device)
        self.module = module if frozen_mode else move_module(module, self.device)
        self.forwarded: Counter[tuple[Any, ...]] = Counter()
        self._encoder = encoder
        self.architecture = None if architecture is None else dict(architecture)
        self.recipe = recipe
        self.frozen_mode = frozen_mode

    def answer(self, inputs: Tensor) -> Tensor:
        """(n, ...) the model's outputs for encoded inputs, as numbers."""
        raise NotImplementedError

    def _answers(self, X: Rows) -> FloatArray:
        with without_gradients(), self.evaluating():
            return self.answer(self.encode(X)).cpu().numpy()

    def _answers_about(self, X: Rows) -> Callable[[int, int], npt.ArrayLike]:
        if self.over_batches is not in_turn:
            return super()._answers_about(X)
        inputs = self.inputs_of(X)

        def answer(start: int, n: int) -> npt.ArrayLike:
            with without_gradients(), self.evaluating():
                return self.answer(inputs(start, n)).cpu().numpy()

        return answer

    def inputs_of(self, X: Rows) -> Callable[[int, int], Tensor]:
        """The input tensor of n rows from a start index, both in row order.

        Of a table, more rows are encoded at once than asked for: a fraction of the cost of many small parts.
        """
        tabular = isinstance(self.preprocessing, TabularPreprocessing) and self._encoder is None
        if not tabular or len(X) <= self.batch_rows:
            return lambda start, n: self.encode(X if n == len(X) else take_rows(X, slice(start, start + n)))
        block = _BATCHES_ENCODED * self.batch_rows
        held: dict[int, Tensor] = {}

        def inputs(start: int, n: int) -> Tensor:
            first = start - start % block
            if first not in held:
                held.clear()
                held[first] = self.encode(take_rows(X, slice(first, first + block)))
            return held[first][start - first : start - first + n]

        return inputs

    def _returned(self, inputs: Tensor, expected: str) -> Tensor:
        """What the module itself returns, of what is not a tensor its logits."""
        self.forwarded[inputs.dtype, *inputs.shape[1:]] += len(inputs)
        raw = self.module(inputs)
        raw = getattr(raw, "logits", raw)
        if not isinstance(raw, Tensor):
            raise ModelError(f"The module returned {type(raw).__name__}, not a tensor of {expected}.")
        return raw

    def encode(self, X: Rows) -> Tensor:
        """(n, ...) input tensor of raw rows, on the model's device."""
        if self._encoder is not None:
            return move_tensor(self._encoder(X), self.device)
        if self.preprocessing is not None:
            return move_tensor(torch.from_numpy(self.preprocessing.encode(X)), self.device)  # type: ignore[arg-type]
        return move_tensor(torch.from_numpy(_plain_numbers(X)), self.device)

    def evaluating(self) -> AbstractContextManager[None]:
        """Context in evaluation mode, with flags restored afterwards; no effect if the module refuses it."""
        return nullcontext() if self.frozen_mode else evaluating(self.module)

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.module.parameters())


class TorchModel(TorchNetwork):
    """A torch module with its encoding: differentiable, batched under ``inference_mode``, on CPU or GPU.

    ``outputs``: whether the module returns logits or probabilities. Where neither this nor the module's class
    (``output_kind``) says it, they are logits, unless all of those about the rows asked for may be something else: then
    that is asked, by an OutputsError. A module with one output is a binary classifier whose number is the logit, or the
    probability, of the last class. ``architecture`` and ``recipe`` make it a bundle that others can load and train
    again. ``token_name`` reads a token id of an ``encoder`` for text. ``frozen_mode``: the module refuses ``eval()``,
    as an exported program does.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        classes: Sequence[object],
        preprocessing: Preprocessing | None = None,
        encoder: Callable[[Rows], Tensor] | None = None,
        token_name: Callable[[int], str | None] | None = None,
        features: Sequence[str] | None = None,
        outputs: Outputs | None = None,
        threshold: float = 0.5,
        device: str | torch.device = "cpu",
        architecture: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
        batch_rows: int = BATCH_ROWS,
        frozen_mode: bool = False,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__(
            module,
            preprocessing=preprocessing,
            encoder=encoder,
            features=features,
            device=device,
            architecture=architecture,
            recipe=recipe,
            batch_rows=batch_rows,
            frozen_mode=frozen_mode,
            provenance=provenance,
            classes=classes,
            threshold=threshold,
        )
        self.token_name = token_name
        self.outputs_said: Outputs | None = outputs or stated_by(module)
        self._seen: Seen | None = None

    @property
    def output_kind(self) -> Outputs:
        """The interpretation of the module's outputs."""
        return self.outputs_said or "logits"

    def with_module(self, module: nn.Module) -> TorchModel:
        """The same encoding, classes and threshold around another module."""
        same = "classes preprocessing token_name features threshold device architecture recipe batch_rows frozen_mode"
        kept = {name: getattr(self, name) for name in (*same.split(), "provenance")}
        return TorchModel(module, encoder=self._encoder, outputs=self.outputs_said, **kept)

    def logits(self, inputs: Tensor) -> Tensor:
        """(n, n_classes) logits of encoded inputs; a single output z becomes (0, z), a probability p its logarithm."""
        return as_logits(self._raw(inputs), self.output_kind)

    def answer(self, inputs: Tensor) -> Tensor:
        """(n, n_classes) probabilities of encoded inputs."""
        raw = self._raw(inputs)
        if self.in_question:
            seen = Seen.from_outputs(raw)
            self._seen = seen if self._seen is None else self._seen.and_then(seen)
        if self.outputs_said == "probabilities":
            return as_probabilities(raw)
        return torch.softmax(as_logits(raw, "logits").double(), dim=1)

    @property
    def decision_rule(self) -> str:
        """How a row is decided, as a sentence."""
        if isinstance(getattr(self.module, "decision_seed", None), int) and self.n_outputs == 2:
            return "Draws each decision with the probability of its label, by a hash of the row."
        return self._rule_of_probabilities()

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        """(n,) class indices, drawn by the row's hash if the module declares randomised decisions (``decision_seed``);
        a probe that decides on its own outputs takes the likelier class."""
        seed = getattr(self.module, "decision_seed", None)
        if not isinstance(seed, int) or self.n_outputs != 2:
            return self.decide(probabilities, positive)
        chosen = int(self.module.positive)  # type: ignore[arg-type]
        drawn = row_draws(self.encode(X).cpu().numpy(), seed) < probabilities[:, chosen]
        return np.where(drawn, chosen, 1 - chosen).astype(np.int64)

    @property
    def in_question(self) -> bool:
        """Whether the output kind is still undecided: one number outside [0, 1] decides it."""
        if self.outputs_said is not None:
            return self.outputs_said == "probabilities"
        return self._seen is None or self._seen.question() is not None

    def check_outputs(self) -> None:
        """Raise OutputsError if all outputs so far may be something other than logits and their kind was not stated, or
        if they were stated to be probabilities and are not."""
        if self._seen is None or self.outputs_said == "logits":
            return
        wrong = self._seen.question() if self.outputs_said is None else self._seen.contradiction()
        if wrong is not None:
            raise OutputsError(wrong)

    def forget(self) -> None:
        """Discard cached outputs, and repeat the check of the output kind if it is undecided."""
        super().forget()
        if self.in_question:
            self._seen = None

    def _raw(self, inputs: Tensor) -> Tensor:
        """(n, n_classes) or (n, 1) what the module returns."""
        raw = self._returned(inputs, "logits (n, n_classes)")
        if raw.ndim == 1:
            raw = raw.unsqueeze(1)
        if raw.ndim != 2 or raw.shape[1] not in (1, self.n_outputs) or (raw.shape[1] == 1 and self.n_outputs != 2):
            raise ModelError(
                f"The module returned shape {tuple(raw.shape)}; expected (n, {self.n_outputs}) for the classes "
                f"{', '.join(self.classes[:6])}. Name the classes with --classes in the order of the outputs."
            )
        return raw


def count_parameters(module: nn.Module) -> tuple[int, int, int]:
    """(parameters, parameters and buffers, how many of the latter are NaN or infinite), each tensor once.

    A module whose parameters lie elsewhere has them ``counted``.
    """
    counted: tuple[int, int, int] | None = getattr(module, "counted", None)
    if counted is not None:
        return counted
    parameters = sum(p.numel() for p in module.parameters())
    tensors: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    total = sum(t.numel() for t in tensors.values())
    real = [t.detach() for t in tensors.values() if t.is_floating_point() or t.is_complex()]
    broken = sum(int((~torch.isfinite(part)).sum()) for t in real for part in t.reshape(-1).split(1 << 24))
    return parameters, total, broken


def _plain_numbers(X: Rows) -> npt.NDArray[np.float32]:
    """Numeric columns as they stand; text has no meaning to a model without preprocessing."""
    if isinstance(X, np.ndarray):
        if X.dtype == object:
            raise ModelError(
                "This model has no vocabulary for text: save it as a bundle that carries its preprocessing."
            )
        return np.require(X, np.float32, ["C", "W"])
    frame: pd.DataFrame = X
    text = [str(c) for c in frame.columns if frame[c].dtype.kind not in "biuf"]
    if text:
        raise ModelError(
            f"Column {text[0]!r} holds text, and this model file says nothing about how to encode it. "
            "Save it as a bundle (auditor.save) that carries its preprocessing, or name numeric --features."
        )
    # Writable: torch warns of sharing memory with a table's read-only columns.
    return np.require(frame.to_numpy(np.float32), np.float32, ["C", "W"])


class OtherModel(AuditedModel):
    """A network for a task other than classes, numbers or text likelihoods; ``what`` names it in words."""

    kind = "other"

    def __init__(self, module: nn.Module, *, description: str, provenance: Provenance | None = None) -> None:
        super().__init__(self._no_answer, classes=(), provenance=provenance)
        self.module = module
        self.what = description

    def _no_answer(self, X: Any) -> NoReturn:
        raise ModelError(f"This model is {self.what}, which gives no classes: ask it through --predict.")
