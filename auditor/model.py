"""AuditedModel: anything that predicts, under one face, with the capabilities some probes need on top."""

from __future__ import annotations

import io
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auditor.errors import ModelError
from auditor.files import write_beside
from auditor.gradients import without_gradients
from auditor.preprocessing import Preprocessing, TabularPreprocessing, label_name
from auditor.rows import FloatArray, IntArray, Rows, take_rows

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data import AuditData

Outputs = Literal["logits", "probabilities"]
Kind = Literal["classifier", "regressor", "language_model"]
Modality = Literal["tabular", "text", "image"]
BUNDLE_FORMAT = "auditor-model/1"
BATCH_ROWS = 4096
_ASKED_TWICE = 16
_SAME_ANSWER = 1e-3


@dataclass(frozen=True)
class Provenance:
    """Where a model came from and how each of its bytes was loaded, for the report."""

    path: str | None = None
    sha256: str | None = None
    format: str = "in memory"
    loaded_by: str = "the caller"
    size_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model was trained, so that another can be trained the same way.

    The last five say of a private training what :class:`auditor.privacy.run_record.RunRecord` says under those names.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 50
    batch_size: int = 128
    seed: int = 0
    epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float | None = None
    n_rows: int | None = None
    sampler: str | None = None
    accountant: str | None = None
    preprocessing_from: str | None = None
    noise_seed_known: bool | None = None


class AuditedModel:
    """A classifier to be audited: rows in, class probabilities out.

    ``classes``: names in the order of the outputs. ``threshold``: a binary decision is positive where the probability
    of the favourable class is at least this. ``features``: raw columns it takes, or None where any table will do.
    ``preprocessing``: how raw rows become its input, where that is known.
    """

    kind: Kind = "classifier"
    # Columns whose groups the model itself reads: text, whatever they look like.
    group_columns: tuple[str, ...] = ()

    def __init__(
        self,
        predict: Callable[[Rows], npt.ArrayLike],
        *,
        classes: Sequence[object],
        features: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        threshold: float = 0.5,
        batch_rows: int = BATCH_ROWS,
        provenance: Provenance | None = None,
    ) -> None:
        self._predict = predict
        self.classes = tuple(label_name(c) for c in classes)
        self.features = None if features is None else tuple(features)
        self.preprocessing = preprocessing
        self.threshold = threshold
        self.batch_rows = batch_rows
        self.provenance = provenance or Provenance()
        # How the answers about batches come to be, given where each begins; the ranks of a job share them out.
        self.over_batches: Callable[[Callable[[int], FloatArray], Sequence[int]], list[FloatArray]] = _in_turn
        self._outputs: weakref.WeakKeyDictionary[AuditData, FloatArray] = weakref.WeakKeyDictionary()

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Any], npt.ArrayLike],
        *,
        classes: Sequence[object],
        features: Sequence[str] | None = None,
        threshold: float = 0.5,
    ) -> AuditedModel:
        """Wraps any function of rows that returns probabilities (n, n_classes), P(last class) (n,), or labels (n,)."""
        return cls(function, classes=classes, features=features, threshold=threshold)

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def predict_proba(self, X: Rows) -> FloatArray:
        """(n, n_classes) probabilities, computed in batches; ModelError where the model returns anything else."""

        def batch(start: int) -> FloatArray:
            n = min(self.batch_rows, len(X) - start)
            return _as_probabilities(self._predict(take_rows(X, slice(start, start + n))), self.classes, n)

        parts = self.over_batches(batch, range(0, len(X), self.batch_rows))
        return np.concatenate(parts) if parts else np.empty((0, self.n_outputs))

    def outputs(self, data: AuditData) -> FloatArray:
        """(n, n_classes) probabilities of a data set, computed once and shared by all probes."""
        if data not in self._outputs:
            probabilities = self.predict_proba(data.X)
            self.check_repeatable(data.X, probabilities)
            self._outputs[data] = probabilities
        return self._outputs[data]

    def forget(self) -> None:
        """Computes outputs anew from now on, for a model whose weights have changed."""
        self._outputs = weakref.WeakKeyDictionary()

    def check_repeatable(self, X: Rows, probabilities: FloatArray) -> None:
        """Asks a few rows again, in a smaller batch; raises ModelError where the answers differ by more than 0.001.

        An answer that is drawn at random, or that depends on the other rows of its batch, is no property of its row.
        """
        n = min(len(probabilities), _ASKED_TWICE)
        if not n:
            return
        again = self.predict_proba(take_rows(X, slice(n)))
        difference = float(np.abs(again - probabilities[:n]).max())
        if difference > _SAME_ANSWER:
            raise ModelError(
                f"The model answers the same {n} rows differently when asked again in a smaller batch (by up to "
                f"{difference:.3g} in probability): take away its randomness, or its dependence on other rows."
            )

    def decide(self, probabilities: FloatArray, positive: int | None) -> IntArray:
        """(n,) class indices: the threshold on the favourable class of two, else the largest probability."""
        if self.n_outputs == 2 and positive is not None:
            chosen = probabilities[:, positive] >= self.threshold
            return np.where(chosen, positive, 1 - positive).astype(np.int64)
        return np.asarray(probabilities.argmax(axis=1), np.int64)

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        """(n,) class indices of rows with these probabilities; the rows matter where a decision is drawn at random."""
        return self.decide(probabilities, positive)

    def decisions(self, data: AuditData) -> IntArray:
        """(n,) class indices decided on a data set."""
        return self.decide_rows(data.X, self.outputs(data), data.positive)

    def saved_parts(self) -> tuple[AuditedModel, dict[str, Any]]:
        """The model that a bundle is made of, and what stands in the bundle beside it."""
        return self, {}


def _in_turn(one: Callable[[int], FloatArray], starts: Sequence[int]) -> list[FloatArray]:
    return [one(start) for start in starts]


def _as_probabilities(raw: npt.ArrayLike, classes: tuple[str, ...], n: int) -> FloatArray:
    values = np.asarray(raw)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape not in ((n,), (n, len(classes))):
        raise ModelError(
            f"The model returned an array of shape {values.shape} for {n} rows; expected ({n}, {len(classes)}) "
            f"probabilities of {', '.join(classes[:6])}, or ({n},). Name its classes with --classes."
        )
    if values.ndim == 1 and (values.dtype.kind != "f" or _are_numbers(classes)):
        return _from_labels(values, classes)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values.reshape(n, -1))).any(axis=1).sum())
        raise ModelError(f"The model returned NaN or infinity for {bad:,} of {n:,} rows.")
    if values.ndim == 1 and not ((values >= 0) & (values <= 1)).all():
        return _from_labels(values, classes)
    if values.ndim == 1:
        if len(classes) != 2:
            raise ModelError(f"One number a row decides between 2 classes, and this model has {len(classes)}.")
        return np.column_stack([1.0 - values, values])
    if (values < -1e-6).any() or (np.abs(values.sum(axis=1) - 1.0) > 1e-3).any():
        raise ModelError("The model's outputs are not probabilities: say --outputs logits if they are logits.")
    return values


def _are_numbers(classes: tuple[str, ...]) -> bool:
    """Whether the classes are numbers other than 0 and 1, so that a number for a row can only be its label."""
    return set(classes) != {"0", "1"} and all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in classes)


def _from_labels(values: npt.NDArray[Any], classes: tuple[str, ...]) -> FloatArray:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ModelError(f"The model returned NaN or infinity for {int((~np.isfinite(values)).sum()):,} rows.")
    names, codes = np.unique(values.astype(str), return_inverse=True)
    place = {c: i for i, c in enumerate(classes)}
    index = [place.get(label_name(name), -1) for name in names]
    if -1 in index:
        raise ModelError(
            f"The model returned {str(names[index.index(-1)])[:40]!r}, which is neither a probability nor one of the "
            f"labels {', '.join(classes[:8])}."
        )
    return np.eye(len(classes))[np.asarray(index, np.int64)[codes]]


@runtime_checkable
class Trainable(Protocol):
    """A model that can be trained anew: its architecture and its recipe are known."""

    module: nn.Module
    recipe: Recipe | None


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
    """Evaluation mode inside, every ``training`` flag as it was afterwards."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, flag in flags:
            m.training = flag


class TorchNetwork:
    """What every audited torch module has, whatever it predicts: its encoding, its device, its training flags.

    ``preprocessing`` or else ``encoder`` turns raw rows into the module's input. ``architecture`` and ``recipe`` make
    it a bundle that others can load and train again. ``frozen_mode``: the module refuses ``eval()``, as an exported
    program does.
    """

    preprocessing: Preprocessing | None

    def _hold(
        self,
        module: nn.Module,
        *,
        encoder: Callable[[Rows], Tensor] | None,
        device: str | torch.device,
        architecture: Mapping[str, Any] | None,
        recipe: Recipe | None,
        frozen_mode: bool,
    ) -> None:
        self.device = torch.device(device)
        self.module = module if frozen_mode else module.to(self.device)
        self._encoder = encoder
        self.architecture = None if architecture is None else dict(architecture)
        self.recipe = recipe
        self.frozen_mode = frozen_mode

    def encode(self, X: Rows) -> Tensor:
        """(n, ...) input tensor of raw rows, on the model's device."""
        if self._encoder is not None:
            return self._encoder(X).to(self.device)
        if self.preprocessing is not None:
            return torch.from_numpy(self.preprocessing.encode(X)).to(self.device)  # type: ignore[arg-type]
        return torch.from_numpy(_plain_numbers(X)).to(self.device)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside, flags as they were afterwards; nothing where the module refuses it."""
        if self.frozen_mode:
            yield
        else:
            with evaluating(self.module):
                yield

    @property
    def n_parameters(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.module.parameters())


class TorchModel(TorchNetwork, AuditedModel):
    """A torch module with its encoding: differentiable, batched under ``inference_mode``, on CPU or GPU.

    ``outputs``: whether the module returns logits or probabilities. A module with one output is a binary classifier
    whose number is the logit, or the probability, of the last class. ``architecture`` and ``recipe`` make it a bundle
    that others can load and train again. ``token_name`` reads a token id of an ``encoder`` for text. ``frozen_mode``:
    the module refuses ``eval()``, as an exported program does.
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
        outputs: Outputs = "logits",
        threshold: float = 0.5,
        device: str | torch.device = "cpu",
        architecture: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
        batch_rows: int = BATCH_ROWS,
        frozen_mode: bool = False,
        provenance: Provenance | None = None,
    ) -> None:
        if isinstance(preprocessing, TabularPreprocessing):
            features = preprocessing.features
        super().__init__(
            self._probabilities,
            classes=classes,
            features=features,
            preprocessing=preprocessing,
            threshold=threshold,
            batch_rows=batch_rows,
            provenance=provenance,
        )
        self._hold(
            module, encoder=encoder, device=device, architecture=architecture, recipe=recipe, frozen_mode=frozen_mode
        )
        self.token_name = token_name
        self.output_kind: Outputs = outputs

    def with_module(self, module: nn.Module) -> TorchModel:
        """The same encoding, classes and threshold around another module."""
        return TorchModel(
            module,
            classes=self.classes,
            preprocessing=self.preprocessing,
            encoder=self._encoder,
            token_name=self.token_name,
            features=self.features,
            outputs=self.output_kind,
            threshold=self.threshold,
            device=self.device,
            architecture=self.architecture,
            recipe=self.recipe,
            batch_rows=self.batch_rows,
            frozen_mode=self.frozen_mode,
            provenance=self.provenance,
        )

    def logits(self, inputs: Tensor) -> Tensor:
        """(n, n_classes) logits of encoded inputs; a single output z becomes (0, z), a probability p its logarithm."""
        raw = self.module(inputs)
        raw = getattr(raw, "logits", raw)
        if not isinstance(raw, Tensor):
            raise ModelError(f"The module returned {type(raw).__name__}, not a tensor of logits (n, n_classes).")
        if raw.ndim == 1:
            raw = raw.unsqueeze(1)
        if raw.ndim != 2 or raw.shape[1] not in (1, self.n_outputs) or (raw.shape[1] == 1 and self.n_outputs != 2):
            raise ModelError(
                f"The module returned shape {tuple(raw.shape)}; expected (n, {self.n_outputs}) for the classes "
                f"{', '.join(self.classes[:6])}. Name the classes with --classes in the order of the outputs."
            )
        if self.output_kind == "probabilities":
            if raw.shape[1] == 1:
                raw = torch.cat([1.0 - raw, raw], dim=1)
            return torch.log(raw.clamp_min(torch.finfo(raw.dtype).tiny))
        return torch.cat([torch.zeros_like(raw), raw], dim=1) if raw.shape[1] == 1 else raw

    def _probabilities(self, X: Rows) -> FloatArray:
        with without_gradients(), self.evaluating():
            logits = self.logits(self.encode(X))
            return torch.softmax(logits.double(), dim=1).cpu().numpy()


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
            "Save it as a bundle (auditor.model.save) that carries its preprocessing, or name numeric --features."
        )
    # Writable: torch warns of sharing memory with a table's read-only columns.
    return np.require(frame.to_numpy(np.float32), np.float32, ["C", "W"])


# ---- saving --------------------------------------------------------------------------------------------------------


def save(model: AuditedModel, path: str | Path) -> None:
    """Writes a model bundle: a ``torch.save`` archive that loads with ``weights_only=True`` and holds no code.

    ``{"format": "auditor-model/1", "architecture": {"name", "args"}, "state_dict", "preprocessing", "classes",
    "training"}``, with ``"task": "regression"`` and no classes for a model that predicts a number, and with
    ``"postprocessing"`` for one whose answers are changed by group, ``"detector"`` for a detector's card and ``"gate"``
    for what stands before a model. Raises ModelError for a model that is not a torch module.
    """
    buffer = io.BytesIO()
    torch.save(bundle_of(model), buffer)
    write_beside(path, buffer.getvalue())


def bundle_of(model: AuditedModel) -> dict[str, Any]:
    """What :func:`save` writes of a model, before it is written. Raises what it raises."""
    model, beside = model.saved_parts()
    if not isinstance(model, TorchNetwork):
        raise ModelError(f"Only a torch model can be saved as a bundle, not {type(model).__name__}.")
    bundle = {
        "format": BUNDLE_FORMAT,
        "architecture": model.architecture or {"name": type(model.module).__name__, "args": {}},
        "state_dict": {k: v.detach().cpu().clone() for k, v in model.module.state_dict().items()},
        "preprocessing": None if model.preprocessing is None else model.preprocessing.model_dump(mode="json"),
        "classes": list(model.classes),
        "training": None if model.recipe is None else dict(vars(model.recipe)),
    }
    bundle |= (
        {"outputs": model.output_kind, "threshold": model.threshold}
        if isinstance(model, TorchModel)
        else {"task": "regression"}
    )
    return bundle | beside
