"""Conversion of scikit-learn estimators and boosted trees to ONNX graphs, by skl2onnx and onnxmltools."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from auditor.core.errors import MissingExtraError, UnsupportedError, first_line
from auditor.loading.boosted_trees import BoostedClassifier
from auditor.loading.estimators import EstimatorModel
from auditor.loading.exporting.onnx_nodes import OPSET

_ML_OPSET = 3
# The newest that onnxmltools writes of all its trees.
_TREES_OPSET = 15


def converted(model: EstimatorModel | BoostedClassifier) -> tuple[bytes, tuple[str, ...]]:
    """The graph of a fitted model, and its numeric columns; raises the errors of the two functions below."""
    return _estimator(model) if isinstance(model, EstimatorModel) else _trees(model)


def _estimator(model: EstimatorModel) -> tuple[bytes, tuple[str, ...]]:
    """The graph of the fitted estimator, an input a column, and which of its columns are numbers.

    Columns are text where an encoder of theirs learned text. Numbers are taken in double precision where every operator
    can, else in single. Raises MissingExtraError without skl2onnx, UnsupportedError for an estimator whose columns have
    no names, or that it does not convert.
    """
    to_onnx, types_of = _library("skl2onnx").to_onnx, _library("skl2onnx.common.data_types")
    estimator = model.estimator
    names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
    if not names or model.features != names or not hasattr(estimator, "predict_proba"):
        raise UnsupportedError(
            "Only a classifier with probabilities that was fitted on a table with named columns can be exported: fit "
            "the pipeline on a pandas DataFrame."
        )
    text = set(_text_columns(estimator, names))
    why = ""
    for kind in (types_of.DoubleTensorType, types_of.FloatTensorType):
        types = [(name, (types_of.StringTensorType if name in text else kind)([None, 1])) for name in names]
        try:
            made = to_onnx(
                estimator,
                initial_types=types,
                options={"zipmap": False},
                target_opset={"": OPSET, "ai.onnx.ml": _ML_OPSET},
            )
        except Exception as error:  # of the converter's own, about estimators that it does not know
            why = first_line(error)
            continue
        return made.SerializeToString(), tuple(name for name in names if name not in text)
    raise UnsupportedError(f"skl2onnx does not convert this estimator: {why[:300]}")


def _trees(model: BoostedClassifier) -> tuple[bytes, tuple[str, ...]]:
    """The graph of boosted trees over one matrix of numbers. Raises MissingExtraError without onnxmltools,
    UnsupportedError for columns of names, and where the converter does not know the trees."""
    boosted = model.estimator
    if boosted.categories:
        raise UnsupportedError(
            f"The column {next(iter(boosted.categories))!r} holds names, which no converter of {boosted.made_by} "
            "writes: fit the trees on numbers, for instance after one-hot encoding."
        )
    try:
        if boosted.made_by == "CatBoost":
            with TemporaryDirectory() as folder:
                boosted.trees.save_model(f"{folder}/model.onnx", format="onnx")
                return Path(folder, "model.onnx").read_bytes(), boosted.features
        convert, types_of = _library("onnxmltools.convert"), _library("onnxmltools.convert.common.data_types")
        types = [("X", types_of.FloatTensorType([None, len(boosted.features)]))]
        if boosted.made_by == "XGBoost":
            # Its converter takes columns by number alone.
            trees = boosted.trees.copy()
            trees.feature_names = None
            made = convert.convert_xgboost(trees, initial_types=types, target_opset=_TREES_OPSET)
        else:
            made = convert.convert_lightgbm(boosted.trees, initial_types=types, target_opset=_TREES_OPSET, zipmap=False)
    except MissingExtraError:
        raise
    except Exception as error:  # of the converters' own, about trees that they do not know
        raise UnsupportedError(
            f"These trees of {boosted.made_by} are not converted: {first_line(error)[:300]}"
        ) from None
    return made.SerializeToString(), boosted.features


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"{name.split('.')[0]} exports this model, and is not installed: pip install 'responsible-auditor[onnx]'."
        ) from None


def _text_columns(estimator: Any, names: tuple[str, ...]) -> Iterator[str]:
    """The columns that an encoder of the estimator has learned levels of text of."""
    for _, step in getattr(estimator, "steps", ()):
        yield from _text_columns(step, names)
    for _, part, columns in getattr(estimator, "transformers_", ()):
        own = [columns] if isinstance(columns, str) else list(columns) if not isinstance(columns, slice) else []
        places = [names[c] if isinstance(c, int) else str(c) for c in own]
        for step in [part, *(s for _, s in getattr(part, "steps", ()))]:
            for name, levels in zip(places, getattr(step, "categories_", ()), strict=False):
                if getattr(levels, "dtype", None) is not None and levels.dtype.kind in "OUS":
                    yield name
