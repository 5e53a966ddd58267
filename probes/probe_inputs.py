"""Shared parts of probes of model internals or inputs: row samples, modality, differentiation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import IntArray
from auditor.judging.measurement import Measurement
from auditor.statistics.values import bounded_mean

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.torch_model import DifferentiableModel

# Values in the input of one forward and backward pass: 16 MiB in float32, some hundred times that with activations.
_VALUES_AT_ONCE = 4_194_304
_ROWS_AT_ONCE = 8192


def whole_number(option: str, value: object, least: int, most: int | None = None) -> None:
    """Raise ValueError if an option's value is neither None nor a whole number in the range."""
    if value is None:
        return
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not whole or (most is not None and isinstance(value, int) and value > most):
        reach = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{option} must be a whole number {reach}, not {value!r}")


def chosen_methods(
    methods: str | Sequence[str], known: Sequence[str], option: str = "methods must be auto or"
) -> tuple[str, ...]:
    """The methods that an option names, "auto" among them; ValueError for none, or one that is not ``known``."""
    wanted = (methods,) if isinstance(methods, str) else tuple(methods)
    unknown = [m for m in wanted if m not in (*known, "auto")]
    if unknown or not wanted:
        raise ValueError(f"{option} out of {', '.join(known)}, not {', '.join(map(str, unknown)) or 'none'}")
    return wanted


def draw(data: AuditData, n_samples: int, rng: np.random.Generator) -> AuditData:
    """At most ``n_samples`` of the rows, sampled without replacement, in the order of the data."""
    size = min(n_samples, len(data))
    return data.take(np.sort(rng.choice(len(data), size=size, replace=False)).astype(np.int64))


def training_rows(data: AuditData) -> AuditData:
    """The rows that a model learned from; of rows without a model that are one file, all of them."""
    return data if data.members is None else data.members


def as_frame(X: Rows, names: tuple[str, ...] | None = None) -> pd.DataFrame:
    """A table's rows with named columns; an array's columns are numbered if ``names`` does not fit."""
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    fits = names is not None and len(names) == X.shape[1]
    return pd.DataFrame(X, columns=list(names) if fits and names else [str(i) for i in range(X.shape[1])])


def differentiable(model: AuditedModel) -> DifferentiableModel | None:
    """The model as a differentiable one, or None: its module may declare ``differentiable = False``."""
    from auditor.models.torch_model import DifferentiableModel

    if not isinstance(model, DifferentiableModel) or not getattr(model.module, "differentiable", True):
        return None
    return model


@contextmanager
def differentiating(model: DifferentiableModel) -> Iterator[None]:
    """Context in evaluation mode with differentiable kernels; everything is restored afterwards."""
    import torch
    from torch import nn

    from auditor.models.torch_model import TorchModel, evaluating

    mode = model.evaluating() if isinstance(model, TorchModel) else evaluating(model.module)
    recurrent = model.device.type == "cuda" and any(isinstance(m, nn.RNNBase) for m in model.module.modules())
    # cuDNN refuses the backward pass of a recurrent layer in evaluation mode; the plain kernels do not.
    kernels = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with mode, kernels, torch.enable_grad():
        yield


def rows_at_once(inputs: Tensor) -> int:
    """The number of rows of ``inputs`` (n, ...) to differentiate in one pass."""
    return max(1, min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // max(inputs[:1].numel(), 1)))


# A number that is written takes as long as so many multiplications.
_WRITING = 100


def operations(model: AuditedModel, rows: AuditData) -> int:
    """Operations of one row's score, those of writing down its layers included; 0 where none are counted."""
    own = differentiable(model)
    if own is None:
        return 0
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    written = 0

    class Written(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Counts the numbers that every operation gives."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal written
            out = func(*args, **(kwargs or {}))
            parts = out if isinstance(out, tuple | list) else (out,)
            written += sum(part.numel() for part in parts if isinstance(part, torch.Tensor))
            return out

    with differentiating(own), torch.no_grad():
        encoded = own.encode(rows.take(np.arange(1)).X)
        if encoded.device.type != "cpu":
            return 0
        with FlopCounterMode(display=False) as counted, Written():  # type: ignore[no-untyped-call]
            own.logits(encoded)
    return int(counted.get_total_flops()) + _WRITING * written


def chosen_classes(model: AuditedModel, data: AuditData) -> IntArray:
    """(n,) the class with the explained score: the favourable one if known, else the decision."""
    if data.positive is not None:
        return np.full(len(data), data.positive, np.int64)
    return model.decide(model.predict_proba(data.X), None, data.X)


def load_reference(reference: str | AuditedModel, after: AuditedModel | None = None) -> tuple[AuditedModel, str]:
    """An earlier model, given or at a path, and its source in words.

    ``after``: the model that is compared with it. Where the reference is the model below its rules, that one is loaded
    already; and what flags had to say of it, they say of a reference of its kind too. Raises ModelError where its
    weights are broken.
    """
    if not isinstance(reference, str):
        return _whole(reference), "the reference given"
    from pathlib import Path

    loaded = _whole(_reference_base(reference, after) or _loaded(reference, after))
    digest = loaded.provenance.sha256
    return loaded, f"{Path(reference).name}{f', sha256 {digest[:16]}' if digest else ''}"


def _whole(reference: AuditedModel) -> AuditedModel:
    """The same model. Raises ModelError where it answers nothing that could be compared."""
    import torch

    from auditor.core.errors import ModelError
    from auditor.models.torch_model import count_parameters

    module = getattr(reference, "module", None)
    broken = count_parameters(module)[2] if isinstance(module, torch.nn.Module) else 0
    if broken:
        raise ModelError(
            f"The reference holds {broken:,} weights that are NaN or infinite, so nothing can be compared with it: "
            "give one that is whole."
        )
    return reference


def _reference_base(reference: str, after: AuditedModel | None) -> AuditedModel | None:
    from pathlib import Path

    from auditor.core.files import sha256_of
    from auditor.models.postprocessing import PostprocessedModel

    if not isinstance(after, PostprocessedModel) or not Path(reference).is_file():
        return None
    return after.base if sha256_of(Path(reference)) == after.base.provenance.sha256 else None


def _loaded(reference: str, after: AuditedModel | None) -> AuditedModel:
    from auditor.core.errors import UsageError
    from auditor.loading.formats import load_model
    from auditor.loading.job_specs import ModelSpec

    said = None if after is None else after.said
    if said is not None and (said.classes or said.features or said.outputs):
        try:
            return load_model(
                ModelSpec(path=reference, classes=said.classes, features=said.features, outputs=said.outputs)
            )
        except UsageError:
            pass  # the reference is of another kind, and says it itself
    # What another number format changes is none of what became of a model.
    half = getattr(after, "dtype", None)
    if half == "bfloat16" or half == "float16":
        return load_model(ModelSpec(path=reference, dtype=half))
    return load_model(ModelSpec(path=reference))


def earlier_language_model(reference: str | AuditedModel | None) -> tuple[AuditedLanguageModel, str] | None:
    """The reference and its source; None without one, and if it is not a usable language model.

    Another probe may be what the flag is for, such as that of changed weights.
    """
    from auditor.core.errors import AuditorError
    from auditor.models.language_model import AuditedLanguageModel

    if reference is None:
        return None
    try:
        found, whose = load_reference(reference)
    except AuditorError:
        return None
    return (found, whose) if isinstance(found, AuditedLanguageModel) else None


# How the detail of a model begins that knows no more than the most frequent label.
UNSKILLED = "the model is not shown to be right more often than always answering"


def skill(model: AuditedModel, rows: AuditData) -> list[Measurement]:
    """Accuracy minus the share of the most frequent label, over the rows that have one."""
    known = np.zeros(len(rows), bool) if rows.y_true is None else rows.y_true >= 0
    if rows.y_true is None or not known.any():
        return []
    labels = rows.y_true[known]
    majority = int(np.bincount(labels).argmax())
    right = (model.decisions(rows)[known] == labels).astype(np.float64)
    estimate = bounded_mean(right - (labels == majority), low=-1.0, high=1.0)
    low = estimate.bounds(0.05)[0]
    name = rows.classes[majority] if rows.classes else str(majority)
    floor = f"always answering {name!r} is right for {float((labels == majority).mean()):.1%} of the rows"
    detail = f"right for {right.mean():.1%}; {floor}"
    if low <= 0.0:
        floor = f"{float((labels == majority).mean()):.1%}"
        detail = f"{UNSKILLED} {name!r} ({right.mean():.1%} of the rows against {floor})"
    return [Measurement(metric="skill_over_majority", estimate=estimate, n_samples=int(known.sum()), detail=detail)]
