"""Row selection for any kind of model input; imports no pandas, so that language models do not need it."""

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


FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Counts = IntArray | FloatArray
