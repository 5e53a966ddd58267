"""Models whose file runs code, held by the answering process: what stands in for them where the labels are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from auditor.core.errors import DataError, ModelError, UnsupportedError, UsageError
from auditor.core.files import Closed, fields_in, sha256_of
from auditor.core.number_types import Count
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.preprocessing import Preprocessing
from auditor.loading.formats import Opened, load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.user_code import RAN_APART, CodeProcess, reported
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.format_names import RULES_FILE
from auditor.models.output_kind import Outputs
from auditor.models.regression_model import AuditedRegressor, TorchRegressor
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import TorchModel, TorchNetwork, count_parameters

_Line = Annotated[str, Field(max_length=2_000)]
_Names = Annotated[tuple[_Line, ...], Field(max_length=100_000)]
_PICKLED = ("pickled torch object", "tar archive", "legacy torch file", "pickle", "compressed file")
_OF_WEIGHTS = ("torch weights", "safetensors", "model bundle")


def runs_code(spec: ModelSpec, model_file: Opened | None) -> bool:
    """Whether code of the file or of the user is run to load a model, as far as its flags and its format say."""
    if spec.predict is not None or spec.generate is not None:
        return False  # a function is called there, and the model around it is made here
    own = spec.architecture is not None and ":" in spec.architecture
    if model_file is None:
        folder = spec.path is not None and (Path(spec.path) / RULES_FILE).is_file()
        return folder and (own or spec.allow_code or spec.trust_pickle)
    return (
        (spec.allow_code and model_file.format in ("TorchScript", "torch.export"))
        or (spec.trust_pickle and model_file.format in _PICKLED)
        or (own and model_file.format in _OF_WEIGHTS)
    )


class ModelFacts(Closed):
    """What a loaded model says of itself.

    ``rule``: whether it decides otherwise than by its probabilities and its threshold. ``no_threshold``: why there is
    none that says what it decides, or "". ``network``: whether it is a torch network, which can be asked for gradients;
    ``encodes``: whether rows become its input by something other than ``preprocessing``. ``parameters``: how many it
    has, with its buffers, and how many of those are no finite numbers.
    """

    kind: Literal["classifier", "regressor"]
    classes: _Names = ()
    features: _Names | None = None
    preprocessing: Preprocessing | None = None
    threshold: float = 0.5
    threshold_class: Count | None = None
    batch_rows: Annotated[int, Field(ge=1, le=1 << 20)]
    n_columns: Count | None = None
    group_columns: _Names = ()
    decides_by: _Names = ()
    decides_itself: bool = False
    rule: bool = False
    no_threshold: Annotated[str, Field(max_length=2_000)] = ""
    network: bool = False
    differentiable: bool = True
    encodes: bool = False
    outputs: Outputs | None = None
    parameters: tuple[Count, Count, Count] | None = None
    dtype: Annotated[str, Field(max_length=40)] | None = None
    format: _Line
    loaded_by: _Line
    notes: Annotated[tuple[_Line, ...], Field(max_length=100)] = ()


_WITHOUT_LAYERS = (
    "Its layers are closed to the audit: nothing is certified, and explanations are not held to random parameters."
)


def answered_model(process: CodeProcess, spec: ModelSpec, model_file: Opened | None) -> AuditedModel:
    """What stands in for the model of a spec, loaded in the answering process.

    Raises what its loader raises, and UnsupportedError for a kind of model that cannot be asked from another process.
    """
    path = Path(spec.path or "")
    try:
        facts = ModelFacts.model_validate(process.ask("load", spec))
    except ValidationError:
        raise ModelError(f"{path.name!r} says of itself what no model is.", code="AUD-LOAD-ANSWERS") from None
    except UsageError as error:
        raise UsageError(reported(repr(path.name), str(error))) from None
    provenance = Provenance(
        path=spec.path,
        sha256=sha256_of(path / RULES_FILE) if model_file is None else model_file.source.sha256,
        format=facts.format,
        loaded_by=facts.loaded_by,
        size_bytes=(path / RULES_FILE).stat().st_size if model_file is None else len(model_file.source.data),
        notes=(*facts.notes, RAN_APART, *([_WITHOUT_LAYERS] if facts.network else [])),
    )
    made: AuditedModel
    if facts.network:
        made = (_AnsweredNetwork if facts.kind == "classifier" else _AnsweredNetworkOfNumbers)(
            process, facts, provenance
        )
    else:
        made = (_AnsweredClassifier if facts.kind == "classifier" else _AnsweredRegressor)(process, facts, provenance)
    made.n_columns, made.group_columns = facts.n_columns, facts.group_columns
    made.decides_by, made.decides_itself = facts.decides_by, facts.decides_itself
    return made


class _AnsweredClassifier(AuditedModel):
    def __init__(self, process: CodeProcess, facts: ModelFacts, provenance: Provenance) -> None:
        self._process, self._facts = process, facts
        super().__init__(
            lambda X: process.ask("answers", X),
            classes=facts.classes,
            features=facts.features,
            preprocessing=facts.preprocessing,
            threshold=facts.threshold,
            threshold_class=facts.threshold_class,
            batch_rows=facts.batch_rows,
            provenance=provenance,
        )

    def threshold_of(self, positive: int) -> float:
        if self._facts.no_threshold:
            raise UnsupportedError(self._facts.no_threshold)
        return super().threshold_of(positive)

    def decide(self, probabilities: FloatArray, positive: int | None, X: Rows | None = None) -> IntArray:
        if not self._facts.rule or X is None:
            if self._facts.rule:
                self.threshold_of(0)
            return super().decide(probabilities, positive)
        return _decided(self._process.ask("decide", probabilities, positive, X), len(probabilities), self.n_outputs)

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        if not self._facts.rule:
            return super().decide_rows(X, probabilities, positive)
        found = self._process.ask("decide_rows", X, probabilities, positive)
        return _decided(found, len(probabilities), self.n_outputs)

    def check_outputs(self) -> None:
        self._process.ask("check_outputs")

    @property
    def in_question(self) -> bool:
        return self._process.ask("in_question") is True


class _AnsweredRegressor(AuditedRegressor):
    def __init__(self, process: CodeProcess, facts: ModelFacts, provenance: Provenance) -> None:
        super().__init__(
            lambda X: process.ask("answers", X),
            features=facts.features,
            preprocessing=facts.preprocessing,
            batch_rows=facts.batch_rows,
            provenance=provenance,
        )


def _decided(found: Any, n: int, n_outputs: int) -> IntArray:
    if not isinstance(found, np.ndarray) or found.shape != (n,) or found.dtype.kind not in "iu":
        raise ModelError("The model's decisions are none of its rows.", code="AUD-LOAD-ANSWERS")
    if ((found < 0) | (found >= n_outputs)).any():
        raise ModelError("The model decided for a class that it does not have.", code="AUD-LOAD-ANSWERS")
    return found.astype(np.int64)


class _Forward(torch.autograd.Function):
    """The network's outputs; their gradient is another question, in which it is asked for the outputs again."""

    @staticmethod
    def forward(ctx: Any, process: CodeProcess, inputs: Tensor) -> Tensor:
        ctx.process = process
        ctx.save_for_backward(inputs)
        return _tensor(process.ask("forward", inputs.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None]:
        (inputs,) = ctx.saved_tensors
        found = ctx.process.ask("gradient", inputs.detach().numpy(), gradients[0].detach().numpy())
        if found is None:
            return None, None
        made = _tensor(found)
        if made.shape != inputs.shape:
            raise ModelError("The network's gradient is none of its inputs.", code="AUD-LOAD-ANSWERS")
        return None, made.to(inputs.dtype)


def _tensor(found: Any) -> Tensor:
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise ModelError("The network returned what are no numbers.", code="AUD-LOAD-ANSWERS")
    return torch.from_numpy(found)


class AnsweredModule(nn.Module):
    """A network in the answering process: (n, ...) to what it returns. It has no layers and no parameters here."""

    what = "the user's own code"

    def __init__(self, process: CodeProcess, facts: ModelFacts) -> None:
        super().__init__()
        self.differentiable = facts.differentiable
        self.counted = facts.parameters
        self._process = process

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.requires_grad and torch.is_grad_enabled():
            return _Forward.apply(self._process, inputs)  # type: ignore[no-any-return, no-untyped-call]
        return _tensor(self._process.ask("forward", inputs.detach().numpy()))

    def __deepcopy__(self, memo: object) -> AnsweredModule:
        return self


def _encoder(process: CodeProcess, facts: ModelFacts) -> Callable[[Rows], Tensor] | None:
    return (lambda X: _tensor(process.ask("encode", X))) if facts.encodes else None


class _AnsweredNetwork(TorchModel):
    def __init__(self, process: CodeProcess, facts: ModelFacts, provenance: Provenance) -> None:
        self._process, self._facts = process, facts
        super().__init__(
            AnsweredModule(process, facts),
            classes=facts.classes,
            preprocessing=facts.preprocessing,
            encoder=_encoder(process, facts),
            features=facts.features,
            outputs=facts.outputs,
            threshold=facts.threshold,
            batch_rows=facts.batch_rows,
            frozen_mode=True,
            provenance=provenance,
        )
        self.dtype = facts.dtype

    @property
    def n_parameters(self) -> int:
        return self._facts.parameters[0] if self._facts.parameters else 0

    def decide_rows(self, X: Rows, probabilities: FloatArray, positive: int | None) -> IntArray:
        if not self._facts.rule:
            return self.decide(probabilities, positive)
        found = self._process.ask("decide_rows", X, probabilities, positive)
        return _decided(found, len(probabilities), self.n_outputs)


class _AnsweredNetworkOfNumbers(TorchRegressor):
    def __init__(self, process: CodeProcess, facts: ModelFacts, provenance: Provenance) -> None:
        self._facts = facts
        super().__init__(
            AnsweredModule(process, facts),
            preprocessing=facts.preprocessing,
            encoder=_encoder(process, facts),
            features=facts.features,
            batch_rows=facts.batch_rows,
            frozen_mode=True,
            provenance=provenance,
        )

    @property
    def n_parameters(self) -> int:
        return self._facts.parameters[0] if self._facts.parameters else 0


# ---- the other side --------------------------------------------------------------------------------------------------


class HeldModel:
    """The model in the answering process, and what it is asked there."""

    def __init__(self, device: str, model_files: list[Opened]) -> None:
        self._device, self._files = device, model_files
        self._model: AuditedModel | None = None

    def operations(self) -> dict[str, Callable[..., Any]]:
        """What it can be asked, by name."""
        return {
            "load": self.load,
            "answers": self.answers,
            "decide": lambda probabilities, positive, X: self.model.decide(probabilities, positive, X),
            "decide_rows": lambda X, probabilities, positive: self.model.decide_rows(X, probabilities, positive),
            "check_outputs": lambda: self.model.check_outputs(),
            "in_question": lambda: bool(self.model.in_question),
            "encode": lambda X: self.network.encode(X).detach().cpu().numpy(),
            "forward": self.forward,
            "gradient": self.gradient,
        }

    @property
    def model(self) -> AuditedModel:
        """The model, once it is loaded."""
        if self._model is None:
            raise ModelError("No model is loaded.")
        return self._model

    @property
    def network(self) -> TorchNetwork:
        """The model as a network. Raises ModelError where it is none."""
        if not isinstance(self.model, TorchNetwork):
            raise ModelError("The model is no network.")
        return self.model

    def load(self, spec: ModelSpec) -> dict[str, Any]:
        """Load the model, and say what it is."""
        spec = replace(spec, device=self._device)
        if self._device.startswith("cuda"):
            from auditor.models.forward_passes import exact_products

            exact_products(self._device)
        self._model = model = load_model(spec, model_file=self._files.pop() if self._files else None)
        if type(model) is not TorchModel and type(model) is not TorchRegressor and isinstance(model, TorchNetwork):
            raise UnsupportedError(_NOT_APART.format(kind=type(model).__name__))
        if model.kind not in ("classifier", "regressor"):
            raise UnsupportedError(_NOT_APART.format(kind=getattr(model, "what", model.kind)))
        return _facts_of(model).model_dump(mode="json")

    def answers(self, X: Rows) -> FloatArray:
        """(n, n_classes) probabilities, or (n,) numbers."""
        return self.model.predict(X) if isinstance(self.model, AuditedRegressor) else self.model.predict_part(X)

    def forward(self, inputs: Any) -> Any:
        """What the network returns of encoded inputs."""
        network = self.network
        with without_gradients(), network.evaluating():
            given = torch.from_numpy(inputs.copy()).to(network.device)
            return _as_numpy(network._returned(given, "numbers"))

    def gradient(self, inputs: Any, of_outputs: Any) -> Any:
        """The gradient of encoded inputs, given that of the network's outputs; None where none reaches them."""
        network = self.network
        with network.evaluating(), torch.enable_grad():
            given = torch.from_numpy(inputs.copy()).to(network.device).requires_grad_()
            returned = network._returned(given, "numbers")
            if not returned.requires_grad:
                return None
            weights = torch.from_numpy(of_outputs.copy()).to(returned)
            (found,) = torch.autograd.grad(returned, given, weights, allow_unused=True)
            return None if found is None else _as_numpy(found)


def _as_numpy(tensor: Tensor) -> Any:
    """An array of the same numbers; of what NumPy has no type for in single precision."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


_NOT_APART = (
    "This is a model ({kind}) that runs code of its own and cannot be asked from another process: audit it through a "
    "function of yours, --predict or --generate package.module:function."
)


def _facts_of(model: AuditedModel) -> ModelFacts:
    network = isinstance(model, TorchNetwork)
    module = model.module if isinstance(model, TorchNetwork) else None
    own_rows = type(model).decide_rows not in (AuditedModel.decide_rows, TorchModel.decide_rows)
    rule, why = own_rows or type(model).decide is not AuditedModel.decide, ""
    if isinstance(model, TorchModel):
        rule = isinstance(getattr(module, "decision_seed", None), int)
    if model.kind == "classifier":
        try:
            model.threshold_of(0)
        except (ModelError, DataError) as error:
            why = str(error)
    told = {
        "kind": "regressor" if model.kind == "regressor" else "classifier",
        "rule": rule and model.kind == "classifier",
        "no_threshold": why[:2_000],
        "network": network,
        "differentiable": bool(getattr(module, "differentiable", True)),
        "encodes": isinstance(model, TorchNetwork) and model._encoder is not None,
        "outputs": model.outputs_said if isinstance(model, TorchModel) else None,
        "parameters": None if module is None else count_parameters(module),
    }
    return ModelFacts(**fields_in(ModelFacts, model) | fields_in(ModelFacts, model.provenance) | told)
