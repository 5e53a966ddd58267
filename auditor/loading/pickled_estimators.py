"""scikit-learn models from pickle and joblib files: types from an exact list, without unpickling."""

from __future__ import annotations

import re
import warnings
from io import BytesIO
from typing import Any

import sklearn

from auditor.core.errors import DamagedError, ModelError, UnsupportedError
from auditor.loading.estimators import EstimatorModel, EstimatorRegressor, check_trees, estimator_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.pickled_types import EstimatorMaker
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.unpickling import Foreign, follow

LOADED_BY = "auditor's own reader of scikit-learn pickles"
_VERSION = re.compile(rb"_sklearn_version.{1,12}?(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?)", re.DOTALL)


def load_pickled_estimator(
    source: Source, data: bytes, kind: str, spec: ModelSpec
) -> EstimatorModel | EstimatorRegressor:
    """The model of a pickle with the bytes ``data``; ``kind`` names the file in messages, e.g. "a joblib file".

    Raises Foreign for a type off the list, ModelError for a damaged file or one that holds no fitted model.
    """
    maker = EstimatorMaker()
    file = BytesIO(data)
    with warnings.catch_warnings():
        # numpy and scikit-learn warn of what earlier versions wrote; the note on versions says it once.
        warnings.simplefilter("ignore")
        try:
            with convert_parser_errors(f"{source.name!r} is {kind} that is damaged"):
                estimator = follow(file, maker)
                maker.complete()
        except Foreign:
            raise
        except ModelError as error:
            raise ModelError(f"{error}{_of_another_version(data)}", code=error.code) from None
        rest = len(data) - file.tell()
        if rest:
            raise DamagedError(
                f"{source.name!r} is {kind} with {rest:,} bytes after its end: save one model a file, with joblib.dump."
            )
        with convert_parser_errors(f"{source.name!r} holds a model that is incomplete"):
            check_trees(estimator, source.name)
    if isinstance(estimator, (dict, list, tuple)):
        raise UnsupportedError(_nested_model_advice(estimator, source.name))
    with convert_parser_errors(f"{source.name!r} holds a model that is incomplete"):
        return estimator_model(
            estimator,
            source,
            spec,
            format=kind.partition(" ")[2],
            loaded_by=LOADED_BY,
            notes=_version_notes(maker.versions),
        )


def _of_another_version(data: bytes) -> str:
    """What else may be wrong with a file that cannot be read: another version's objects have other parts."""
    found = _VERSION.search(data)
    version = found[1].decode() if found else sklearn.__version__
    if version == sklearn.__version__:
        return ""
    return (
        f" It was saved by scikit-learn {version}, and this is {sklearn.__version__}: install that version to read it."
    )


def _version_notes(versions: set[str]) -> tuple[str, ...]:
    others = sorted(versions - {sklearn.__version__})
    if not others:
        return ()
    return (
        f"Saved by scikit-learn {', '.join(others[:3])} and read by {sklearn.__version__}: its answers may differ from "
        "those it gave there.",
    )


def _nested_model_advice(container: dict[Any, Any] | list[Any] | tuple[Any, ...], name: str) -> str:
    """What to do with a dict, list or tuple that holds a model among other things."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    models = [printable(repr(key), 40) for key, value in items if callable(getattr(type(value), "predict", None))]
    if not models:
        return f"{name!r} holds a {type(container).__name__} without any model: name the file that holds the estimator."
    return (
        f"{name!r} holds a {type(container).__name__} with a model under {models[0]}: save the model alone with "
        f"joblib.dump(joblib.load(path)[{models[0]}], 'model.joblib'), or, where the other parts prepare its rows, all "
        "of it as one sklearn Pipeline."
    )
