"""Fitted objects in memory as audited models: whatever has a ``predict``, torch modules and Hugging Face pipelines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from auditor.core.errors import ModelError, UsageError
from auditor.core.rows import Rows, take_rows
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, torch_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Provenance, of_logits
from auditor.models.files.model_bytes import Source, printable
from auditor.models.files.pickled_boosters import native_file
from auditor.models.regression_model import AuditedRegressor

NOTE = (
    "The model is an object of the caller's and answered in the caller's own process: no sandbox confined it, no "
    "file's digest says which model it was, and what else ran in that process could change its answers."
)
# What a library's own trees are written as, which answer by another call than their estimators.
_BOOSTERS: dict[str, Callable[[Any], bytes]] = {
    "xgboost": lambda trees: bytes(trees.save_raw(raw_format="ubj")),
    "lightgbm": lambda trees: str(trees.model_to_string()).encode(),
}
_ENDINGS = {"xgboost": (".json", ".ubj"), "lightgbm": (".txt",), "catboost": (".cbm",)}
_TEXT_TASK = "text-classification"
_FIRST_ROWS = 8


class GivenRows(Protocol):
    """Rows, and how a caller's object takes them: :class:`auditor.loading.rows.caller_rows.CallerRows`."""

    @property
    def rows(self) -> Rows:
        """The rows as this toolkit holds them."""
        ...

    @property
    def as_given(self) -> Callable[[Rows], Any]:
        """Rows of this kind in the caller's form."""
        ...

    def as_pandas(self) -> Self | None:
        """The same in pandas' form; None where there is no other."""
        ...


def library_of(model: object) -> str:
    """The package that an object's class comes from."""
    return type(model).__module__.partition(".")[0]


def feature_names(model: object) -> tuple[str, ...] | None:
    """The columns that an object was fitted on, where it names them."""
    for attribute in ("feature_names_in_", "feature_names_"):
        try:
            names = getattr(model, attribute, None)
        except Exception:  # a property of an object that was not fitted raises what its library likes
            names = None
        if names is not None and len(names):
            return tuple(map(str, names))
    return None


def audited_object(model: Any, rows: GivenRows | None, spec: ModelSpec) -> AuditedModel:
    """The object as a model that answers by its own ``predict``, and its own probabilities where it has them.

    ``rows``: the caller's, in whose form it is asked. Raises UsageError for what is no model, or names no classes.
    """
    found = _object(model, rows, spec)
    found.provenance = Provenance(
        loaded_by=f"the caller, as {library_of(model)}.{type(model).__name__}", notes=(*found.provenance.notes, NOTE)
    )
    return found


def object_file(model: Any, file_name: str) -> bytes:
    """A fitted object as a file that an audit can read: native of boosted trees, else by scikit-learn's own means.

    Raises UsageError for another ending, and for what is saved otherwise, with the call that does it.
    """
    from auditor.loading.estimators import EstimatorModel, estimator_file

    library, name = library_of(model), type(model).__name__
    if _is_module(model):
        raise UsageError(
            "A torch module is saved together with its classes: "
            f"auditor.save(auditor.TorchModel(module, classes=[...]), {file_name!r})."
        )
    if hasattr(model, "save_pretrained"):
        raise UsageError(f"A {name} is saved as a folder: call its save_pretrained(folder), which an audit reads.")
    if not hasattr(model, "predict"):
        raise UsageError(f"A {name} is no model that can be saved: give a fitted estimator or an AuditedModel.")
    endings = _ENDINGS.get(library, EstimatorModel.endings)
    ending = PurePath(file_name).suffix
    if ending not in endings:
        raise UsageError(
            f"A {name} of {library} is saved as {' or '.join(endings)}, and {file_name!r} does not end so."
        )
    if library not in _ENDINGS:
        return estimator_file(model, ending)
    native = native_file(model, ending)
    if native is None:
        raise UsageError(f"A {name} of {library} is no classifier or regressor that its own format holds.")
    return native[1]


def _object(model: Any, rows: GivenRows | None, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.estimators import estimator_model, is_fitted_regressor

    library, name = library_of(model), type(model).__name__
    if library in _BOOSTERS and name == "Booster":
        from auditor.loading.formats import load_model, open_file

        source = Source(path=f"the {library} booster", data=_BOOSTERS[library](model), sha256="")
        return load_model(replace(spec, path=source.path), model_file=open_file(source))
    if _is_module(model):
        return _network(model, spec)
    if library == "transformers" and hasattr(model, "task") and callable(model):
        return _pipeline(model, spec)
    predict = getattr(model, "predict", model)
    if isinstance(model, type) or not callable(predict):
        raise UsageError(
            f"A {name} is no model that can be audited: give a path, a fitted estimator with predict, a torch module, "
            "or a function of rows with classes=[...]."
        )
    as_given = None if rows is None else _accepted(predict, rows)
    if hasattr(model, "predict") and spec.task != "regression" and _has_classes(model):
        made = estimator_model(model, Source(path=f"The {name}", data=b"", sha256=""), spec, format="", loaded_by="")
        made.as_given = as_given
        return made
    regressor = spec.task == "regression" or is_fitted_regressor(model)
    if regressor or getattr(model, "_estimator_type", "") == "regressor":
        no_flags_of_classes(spec)
        return AuditedRegressor(_answering(predict, as_given), features=feature_names(model))
    if spec.classes is None:
        raise UsageError(
            f"The {name} has no classes_: add classes=[...] in the order of its outputs, or task='regression' where it "
            "predicts a number."
        )
    answers = _answering(getattr(model, "predict_proba", predict), as_given)
    return AuditedModel(
        of_logits(answers) if spec.outputs == "logits" else answers,
        classes=named_classes(None, spec),
        features=feature_names(model),
        threshold=0.5 if spec.threshold is None else spec.threshold,
    )


def _has_classes(model: Any) -> bool:
    try:
        return getattr(model, "classes_", None) is not None
    except Exception:  # a property of an object that was not fitted raises what its library likes
        return False


def _is_module(model: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _network(module: Any, spec: ModelSpec) -> AuditedModel:
    if spec.classes is None and spec.task != "regression":
        raise UsageError(
            "A torch module does not name its classes: add classes=[...] in the order of its outputs, or wrap it with "
            "auditor.TorchModel(module, classes=[...], encoder=...) where its rows have to be encoded."
        )
    device = next((str(parameter.device) for parameter in module.parameters()), "cpu")
    return torch_model(module, replace(spec, device=device), Provenance())


def _pipeline(pipeline: Any, spec: ModelSpec) -> AuditedModel:
    """A text classifier of transformers. Raises UsageError for another task, and where it gives no shares."""
    labels = getattr(pipeline.model.config, "id2label", {})
    if pipeline.task != _TEXT_TASK or len(labels) < 2:
        raise UsageError(
            f"A pipeline for {printable(pipeline.task, 60)} with {len(labels)} labels is no classifier that can be "
            f"audited as an object: give one for {_TEXT_TASK}, or the folder that save_pretrained writes."
        )
    names = [str(labels[i]) for i in sorted(labels)]

    def predict(X: Rows) -> npt.ArrayLike:
        scores = [{each["label"]: each["score"] for each in answer} for answer in pipeline(list(X), top_k=None)]
        return np.asarray([[score[name] for name in names] for score in scores], np.float64)

    return AuditedModel(predict, classes=named_classes(names, spec), threshold=0.5)


def _accepted(predict: Callable[[Any], Any], rows: GivenRows) -> Callable[[Rows], Any]:
    """The caller's own form of rows, or a pandas table of it where ``predict`` refuses that. Raises ModelError."""
    few = take_rows(rows.rows, slice(_FIRST_ROWS))
    try:
        predict(rows.as_given(few))
    except Exception as error:  # what the object raises is its own affair
        other = rows.as_pandas()
        if other is None:
            raise ModelError(
                f"The model refused the rows: {printable(error, 300).rstrip('.')}. Pass rows that its predict accepts.",
                code="AUD-LOAD-ANSWERS",
            ) from error
        return _accepted(predict, other)
    return rows.as_given


def _answering(
    function: Callable[[Any], Any], as_given: Callable[[Rows], Any] | None
) -> Callable[[Rows], npt.ArrayLike]:
    def answers(X: Rows) -> npt.ArrayLike:
        return np.asarray(function(X if as_given is None else as_given(X)))

    return answers
