"""A classifier of tables as a scikit-learn pipeline: imputer, scaler and one-hot encoder, then an ``MLPClassifier``.

Every part is fitted on a few invented rows and then given the model's own numbers, so that nothing but scikit-learn and
numpy is needed to load it. A column of truth values takes truth values, every other column of levels takes text.
"""

from __future__ import annotations

import warnings
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from auditor.core.errors import UnsupportedError
from auditor.core.rows import IntArray
from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing, as_text, label_name
from auditor.loading.exporting.served_table import ServedTable
from auditor.models.networks.architectures import MLP

if TYPE_CHECKING:
    import pandas as pd

_TRUTH = {"False": False, "True": True}


def skops_bytes(table: ServedTable) -> bytes:
    """The file. Raises UnsupportedError for a group rule, and for a network that is no MLP: scikit-learn has no place
    for either."""
    import skops.io

    content: bytes = skops.io.dumps(estimator_of(table))
    return content


def estimator_of(table: ServedTable) -> Any:
    """The fitted pipeline; wrapped with a threshold if one of two classes is favourable."""
    from sklearn.model_selection import FixedThresholdClassifier
    from sklearn.pipeline import Pipeline

    if table.rule is not None:
        raise UnsupportedError("scikit-learn has no place for a rule by group: use --to onnx, which holds it too.")
    layers = _layers(table)
    numbers = [c for c in table.preprocessing.columns if isinstance(c, NumericColumn)]
    levels = [c for c in table.preprocessing.columns if isinstance(c, CategoricalColumn)]
    model: Any = Pipeline([("encoding", _encoder(numbers, levels)), ("network", _network(layers))])
    decided = len(table.classes) == 2 and table.positive is not None
    if decided:
        positive = table.classes[table.positive or 0]
        model = FixedThresholdClassifier(
            model, threshold=table.threshold, pos_label=positive, response_method="predict_proba"
        )
    n = max(len(table.classes), *(len(c.levels) for c in levels), 2)
    labels = np.asarray(table.classes)[np.arange(n) % len(table.classes)]
    with warnings.catch_warnings():
        # The network is fitted on rows that mean nothing, and not to the end.
        warnings.simplefilter("ignore")
        model.fit(_invented(numbers, levels, n), labels)
    pipeline = model.estimator_ if decided else model
    _set_numbers(pipeline["encoding"], numbers)
    _set_weights(pipeline["network"], layers, table.classes, _order(table, numbers, levels))
    return model


def as_taken(X: pd.DataFrame, encoding: TabularPreprocessing) -> pd.DataFrame:
    """The rows in the pipeline's form: booleans if all levels are booleans, else text."""
    changed = {}
    for column in encoding.columns:
        if isinstance(column, CategoricalColumn):
            text = as_text(X[column.name])
            names = text.astype(object).where(text.notna(), None)
            if set(map(label_name, column.levels)) <= set(_TRUTH):
                names = names.map(lambda name: None if name is None else _TRUTH.get(label_name(name)))
            changed[column.name] = names.astype(object)
    return X.assign(**changed)[list(encoding.features)]


def _layers(table: ServedTable) -> list[nn.Linear]:
    network = table.network
    if type(network) is not MLP or table.one_number or table.outputs != "logits":
        raise UnsupportedError(
            f"scikit-learn has no network like {type(network).__name__}, only fully connected ones with ReLU and an "
            "output for each class: use --to onnx."
        )
    return [layer for layer in network.layers if isinstance(layer, nn.Linear)]


def _invented(numbers: list[NumericColumn], levels: list[CategoricalColumn], n: int) -> pd.DataFrame:
    """Rows in which every level stands."""
    import pandas as pd

    columns: dict[str, Any] = {c.name: np.arange(n, dtype=np.float64) for c in numbers}
    columns |= {c.name: pd.Series(list(islice(cycle(_categories(c)), n))) for c in levels}
    return pd.DataFrame(columns)


def _categories(column: CategoricalColumn) -> list[Any]:
    """The levels as the encoder has them, sorted."""
    names = sorted(map(label_name, column.levels))
    if len(set(names)) < len(names):
        raise UnsupportedError(f"The column {column.name!r} has a level twice: use --to onnx.")
    return [_TRUTH[name] for name in names] if set(names) <= set(_TRUTH) else names


def _order(table: ServedTable, numbers: list[NumericColumn], levels: list[CategoricalColumn]) -> IntArray:
    """(width,) which of the model's encoded columns each of the encoder's is."""
    starts = {
        name: span.start for name, span in zip(table.preprocessing.features, table.preprocessing.spans, strict=True)
    }
    found = [starts[c.name] for c in numbers]
    for column in levels:
        own = table.levels(column.name)
        found += [starts[column.name] + own[str(level)] for level in _categories(column)]
    return np.asarray(found, np.int64)


def _encoder(numbers: list[NumericColumn], levels: list[CategoricalColumn]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts: list[Any] = []
    if numbers:
        scaled = Pipeline([("missing", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
        parts.append(("numbers", scaled, [c.name for c in numbers]))
    if levels:
        indicators = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        parts.append(("levels", indicators, [c.name for c in levels]))
    return ColumnTransformer(parts)


def _network(layers: list[nn.Linear]) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(tuple(layer.out_features for layer in layers[:-1]), max_iter=1, random_state=0)


def _set_numbers(encoder: Any, numbers: list[NumericColumn]) -> None:
    if not numbers:
        return
    scaled = encoder.named_transformers_["numbers"]
    scaled["missing"].statistics_ = np.asarray([c.impute for c in numbers])
    scaled["scale"].mean_ = np.asarray([c.mean for c in numbers])
    scaled["scale"].scale_ = np.asarray([c.scale for c in numbers])
    scaled["scale"].var_ = scaled["scale"].scale_ ** 2


def _set_weights(network: Any, layers: list[nn.Linear], classes: tuple[str, ...], order: IntArray) -> None:
    """The weights in scikit-learn's order of inputs and of classes; of two classes it has the log-odds alone."""
    weights = [layer.weight.detach().cpu().double().numpy().T.copy() for layer in layers]
    biases = [layer.bias.detach().cpu().double().numpy().copy() for layer in layers]
    weights[0] = weights[0][order]
    if len(classes) == 2:
        last, first = network.classes_.tolist().index(classes[1]), network.classes_.tolist().index(classes[0])
        sign = 1.0 if last > first else -1.0
        weights[-1] = sign * (weights[-1][:, 1:] - weights[-1][:, :1])
        biases[-1] = sign * (biases[-1][1:] - biases[-1][:1])
    else:
        of_class = [classes.index(name) for name in network.classes_.tolist()]
        weights[-1], biases[-1] = weights[-1][:, of_class], biases[-1][of_class]
    network.coefs_, network.intercepts_ = weights, biases
