"""Which input column each column comes from that a fitted scikit-learn transformer makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from auditor.core.rows import IntArray

# Each makes a column of one column. Not Normalizer, which divides a row by its length.
_ONE_OF_ONE = (
    "Binarizer", "MaxAbsScaler", "MinMaxScaler", "OrdinalEncoder", "PowerTransformer", "QuantileTransformer",
    "RobustScaler", "StandardScaler",
)  # fmt: skip
_SELECTORS = (
    "GenericUnivariateSelect", "RFE", "RFECV", "SelectFdr", "SelectFpr", "SelectFromModel", "SelectFwe", "SelectKBest",
    "SelectPercentile", "SequentialFeatureSelector", "VarianceThreshold",
)  # fmt: skip


def column_owners(step: Any, owners: IntArray) -> IntArray | None:
    """(d_out,) the owner of each column that ``step`` makes of columns with ``owners`` (d_in,).

    None where a column is made of several, or where the transformer is not known to tell: by its type, of scikit-learn
    itself, and never by what it answers.
    """
    if isinstance(step, str) or step is None:
        return owners[:0] if step == "drop" else owners
    kind = type(step)
    if not kind.__module__.startswith("sklearn."):
        return None
    name = kind.__name__
    if name in _ONE_OF_ONE:
        return owners
    if name in _SELECTORS:
        chosen: IntArray = owners[step.get_support(indices=True)]
        return chosen
    own = _PARTS.get(name)
    return None if own is None else own(step, owners)


def _of_pipeline(step: Any, owners: IntArray) -> IntArray | None:
    found: IntArray | None = owners
    for _, part in step.steps:
        found = None if found is None else column_owners(part, found)
    return found


def _of_column_transformer(step: Any, owners: IntArray) -> IntArray | None:
    out = np.full(max((places.stop for places in step.output_indices_.values()), default=0), -1, np.int64)
    for name, part, _ in step.transformers_:
        # By place, whether the columns were named, counted, sliced or chosen by type.
        taken = owners[np.asarray(step._transformer_to_input_indices[name], np.int64)]
        found, places = column_owners(part, taken), step.output_indices_[name]
        if found is None or len(found) != places.stop - places.start:
            return None
        out[places] = found
    return None if (out < 0).any() else out


def _of_union(step: Any, owners: IntArray) -> IntArray | None:
    found = [column_owners(part, owners) for _, part in step.transformer_list]
    known = [part for part in found if part is not None]
    return np.concatenate(known) if known and len(known) == len(found) else None


def _of_function(step: Any, owners: IntArray) -> IntArray | None:
    elementwise = isinstance(step.func, np.ufunc) and step.func.nin == 1 and step.func.signature is None
    return owners if step.func is None or (elementwise and not step.kw_args) else None


def _of_imputer(step: Any, owners: IntArray) -> IntArray | None:
    import pandas as pd

    found = owners if step.keep_empty_features else owners[~np.asarray(pd.isna(step.statistics_), np.bool_)]
    return np.concatenate([found, owners[step.indicator_.features_]]) if step.add_indicator else found


def _of_target_encoder(step: Any, owners: IntArray) -> IntArray | None:
    return None if step.target_type_ == "multiclass" else owners


_PARTS: dict[str, Callable[[Any, IntArray], IntArray | None]] = {
    "ColumnTransformer": _of_column_transformer,
    "FeatureUnion": _of_union,
    "FunctionTransformer": _of_function,
    "KBinsDiscretizer": lambda step, owners: owners if step.encode == "ordinal" else np.repeat(owners, step.n_bins_),
    "MissingIndicator": lambda step, owners: owners[step.features_],
    "OneHotEncoder": lambda step, owners: np.repeat(owners, step._n_features_outs),
    "Pipeline": _of_pipeline,
    "SimpleImputer": _of_imputer,
    "SplineTransformer": lambda step, owners: np.repeat(owners, step.n_features_out_ // step.n_features_in_),
    "TargetEncoder": _of_target_encoder,
}
