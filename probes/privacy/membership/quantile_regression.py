"""The quantile-regression attack of Bertran, Tang, Kearns, Morgenstern, Roth and Wu (NeurIPS 2023)."""

from __future__ import annotations

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows

FEWEST_ROWS = 40
_LEVELS = (0.5, 0.9)
_SMALLEST_SHARE = 0.05


def scores(X: Rows, labels: IntArray, phi: FloatArray, public: BoolArray) -> FloatArray:
    """``(phi - q50(x, y)) / (q90(x, y) - q50(x, y))`` (n,): a row's confidence above its usual range.

    X: (n, d) a table; labels (n,); phi (n,) = log(p_y / (1 - p_y)) under the audited model; ``public`` (n,): the
    non-members that the quantiles are learned from, which may not be attacked afterwards. The quantiles at 0.5 and 0.9
    are gradient-boosted trees under the pinball loss, at least 40 public rows; a width is at least 5 % of the
    interquartile range of all public phi. The paper fits one quantile for each false positive rate, or a location and
    a scale: this is the latter.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    columns = np.column_stack([as_numbers(X), labels.astype(np.float64)])
    middle, upper = (
        HistGradientBoostingRegressor(
            loss="quantile", quantile=level, max_iter=60, learning_rate=0.1, min_samples_leaf=20, max_leaf_nodes=15,
            early_stopping=False, random_state=0,
        )
        .fit(columns[public], phi[public])
        .predict(columns)
        for level in _LEVELS
    )  # fmt: skip
    low, high = np.quantile(phi[public], [0.25, 0.75])
    width = np.maximum(upper - middle, max(_SMALLEST_SHARE * float(high - low), 1e-9))
    score: FloatArray = (phi - middle) / width
    return score


def as_numbers(X: Rows) -> FloatArray:
    """(n, d) numbers unchanged, NaN if missing, and all other values by the order of their levels."""
    import pandas as pd

    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(X)
    found = [
        values.to_numpy(np.float64, na_value=np.nan)
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
        else pd.factorize(values.astype("string"), sort=True)[0].astype(np.float64)
        for _, values in frame.items()
    ]
    return np.column_stack(found) if found else np.empty((len(frame), 0))
