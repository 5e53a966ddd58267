"""Row selection for any kind of model input; imports pandas late, so that language models do not need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd


Rows: TypeAlias = "pd.DataFrame | npt.NDArray[Any]"


def take_rows(X: Rows, index: npt.NDArray[Any] | slice) -> Rows:
    """Rows of a table or an array by mask, positions or slice."""
    iloc = getattr(X, "iloc", None)
    taken: Rows = X[index] if iloc is None else iloc[index]
    return taken


def is_number(values: pd.Series[Any]) -> bool:
    """Whether a column is numeric; booleans are not."""
    import pandas as pd

    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Counts = IntArray | FloatArray
