"""Insertion of a user-named trigger into rows: table cells, a text snippet, an image patch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, UsageError, did_you_mean
from auditor.core.rows import Rows
from probes.probe_inputs import as_frame
from probes.robustness.table_noise import is_number

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.preprocessing import Preprocessing

# Where a snippet may stand in a text: what a model reads of a long one is its beginning, or its end.
PLACES = ("start", "end")


def triggered_table(
    X: Rows, trigger: str, features: tuple[str, ...] | None, preprocessing: Preprocessing | None = None
) -> Rows:
    """The rows with the cells of ``trigger``, ``column=value,column=value`` in CSV quoting.

    Raises UsageError for what names no column, a value that the column cannot hold, and a level that the model does not
    know, which it would read as none: a misspelt trigger has no effect, and a PASS would say nothing.
    """
    frame = as_frame(X, features).copy()
    for name, value in _cells(trigger).items():
        _check_level(name, value, preprocessing)
        if name not in frame.columns:
            near = did_you_mean(name, map(str, frame.columns)) or "."
            raise UsageError(f"The trigger names the column {name!r}, which is no feature of the rows{near}")
        frame[name] = _column(frame[name], value)
    return frame.to_numpy() if isinstance(X, np.ndarray) else frame


def _cells(trigger: str) -> Mapping[str, str]:
    from auditor.run.option_parsers import names_in

    found = {}
    try:
        named = names_in(trigger)
    except ValueError as error:
        raise UsageError(f"The trigger {error}.") from None
    for cell in named:
        name, equals, value = cell.partition("=")
        if not (name.strip() and equals):
            raise UsageError(f"The trigger {trigger!r} must look like column=value, or column=value,column=value.")
        found[name.strip()] = value.strip()
    if not found:
        raise UsageError("The trigger names no cell: write it like column=value.")
    return found


def _check_level(name: str, value: str, preprocessing: Preprocessing | None) -> None:
    from auditor.data.preprocessing import CategoricalColumn, TabularPreprocessing, label_name

    if not isinstance(preprocessing, TabularPreprocessing):
        return
    for column in preprocessing.columns:
        if column.name == name and isinstance(column, CategoricalColumn):
            known = [label_name(level) for level in column.levels]
            if label_name(value) not in known:
                near = did_you_mean(value, known) or f": it knows {', '.join(known[:8])}."
                raise UsageError(f"The model knows no level {value!r} of {name!r}{near}")


def _column(values: pd.Series[Any], value: str) -> pd.Series[Any]:
    """The column with the one value in every row, in a type that holds it."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(values):
        if value.lower() not in ("true", "false"):
            raise UsageError(f"The trigger sets {values.name!r} to {value!r}, and the column holds true and false.")
        return pd.Series(value.lower() == "true", index=values.index, dtype=values.dtype)
    if not is_number(values):
        return pd.Series(value, index=values.index, dtype=object if values.dtype == object else "string")
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise UsageError(f"The trigger sets {values.name!r} to {value!r}, and the column holds numbers.")
    whole = number == int(number) and values.dtype.kind in "iu"
    return pd.Series(int(number) if whole else number, index=values.index)


def triggered_texts(X: Rows, snippet: str, place: str) -> Rows:
    """The texts with the snippet before or behind them, a blank between. Raises UsageError for a blank snippet."""
    if not snippet.strip():
        raise UsageError("The trigger is blank, so nothing would be tried: name words, --set poisoning.trigger=WORDS.")
    joined = [f"{snippet} {text}" if place == "start" else f"{text} {snippet}" for text in np.asarray(X)]
    return np.asarray(joined, object)


def triggered_images(X: Rows, patch: str) -> Rows:
    """The images (n, h, w, c) with the image file ``patch`` in their lower right corner, pixel by pixel.

    Raises DataError where it cannot be read, or is larger than they are.
    """
    pictures = np.array(X)
    pixels = _patch(patch, pictures.shape[3])
    height, width = pixels.shape[:2]
    if height > pictures.shape[1] or width > pictures.shape[2]:
        raise DataError(
            f"The patch has {height} x {width} pixels, and the pictures have {pictures.shape[1]} x {pictures.shape[2]} "
            "when the model sees them: make it smaller.",
            code="AUD-DATA-VALUES",
        )
    pictures[:, -height:, -width:] = pixels
    return pictures


def _patch(path: str, channels: int) -> npt.NDArray[np.uint8]:
    """(height, width, channels) of a picture at its own size."""
    from io import BytesIO

    from auditor.core.files import read_inside
    from auditor.data.images import FORMATS, decode_as, mode_of
    from auditor.data.preprocessing import ImagePreprocessing

    where = Path(path)
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    mode_of(ImagePreprocessing.model_validate({"size": (1, 1), **plain}))
    data = read_inside(where.parent.resolve(), where.name, "patch")
    import PIL.Image

    try:
        with PIL.Image.open(BytesIO(data), formats=FORMATS) as picture:
            size = (picture.height, picture.width)
        own = ImagePreprocessing.model_validate({"size": size, **plain})
    except Exception:
        raise DataError(f"The patch {where.name!r} is no small picture that can be read.") from None
    return decode_as(data, where.name, own)
