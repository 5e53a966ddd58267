"""From raw rows to a model's input tensor, as data: the closed schema that a model bundle carries.

Nothing here is code of the bundle's own: a bundle states means, levels and vocabularies, and these classes apply them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from auditor.data.counts import MISSING
from auditor.errors import DataError, did_you_mean
from auditor.files import Closed

if TYPE_CHECKING:
    import pandas as pd

KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'


class NumericColumn(Closed):
    """``(x - mean) / scale``, with ``impute`` in place of a missing x."""

    kind: Literal["numeric"] = "numeric"
    name: str
    mean: float = 0.0
    scale: Annotated[float, Field(gt=0.0)] = 1.0
    impute: float = 0.0


class CategoricalColumn(Closed):
    """One indicator per level; a missing or unseen value is all zeros."""

    kind: Literal["categorical"] = "categorical"
    name: str
    levels: Annotated[tuple[str, ...], Field(min_length=1)]


Column = Annotated[NumericColumn | CategoricalColumn, Field(discriminator="kind")]


class TabularPreprocessing(Closed):
    """Columns in the order the model takes them, each with its statistics from the training rows."""

    kind: Literal["tabular"] = "tabular"
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the raw columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def spans(self) -> tuple[slice, ...]:
        """For each raw column, the encoded columns that it became."""
        spans, start = [], 0
        for column in self.columns:
            width = len(column.levels) if isinstance(column, CategoricalColumn) else 1
            spans.append(slice(start, start + width))
            start += width
        return tuple(spans)

    @property
    def width(self) -> int:
        """Encoded columns in all."""
        return int(self.spans[-1].stop)

    def encode(self, X: pd.DataFrame) -> npt.NDArray[np.float32]:
        """(n, width) float32 from a table that holds the features; DataError where one is absent or not a number."""
        import pandas as pd

        out = np.zeros((len(X), self.width), np.float32)
        for column, span in zip(self.columns, self.spans, strict=True):
            if column.name not in X.columns:
                raise DataError(
                    f"The model needs the feature {column.name!r}, which the data do not have"
                    f"{did_you_mean(column.name, map(str, X.columns))}."
                )
            values = X[column.name]
            if isinstance(column, NumericColumn):
                numbers = _numbers(values)
                numbers = np.where(np.isnan(numbers), column.impute, numbers)
                out[:, span.start] = (numbers - column.mean) / column.scale
            else:
                codes, found = pd.factorize(as_text(values))
                place = {label_name(level): i for i, level in enumerate(column.levels)}
                known = np.asarray([*(place.get(label_name(level), -1) for level in found), -1])[codes]
                rows = np.flatnonzero(known >= 0)
                out[rows, span.start + known[rows]] = 1.0
        return out


def _numbers(values: pd.Series[Any]) -> npt.NDArray[np.float64]:
    import pandas as pd

    try:
        numbers = np.asarray(pd.to_numeric(values), np.float64)
        if np.isinf(numbers).any():
            raise DataError(f"The feature {values.name!r} holds infinity, or a number too large to be one.")
        return numbers
    except (ValueError, TypeError):
        bad = values[pd.to_numeric(values, errors="coerce").isna() & values.notna()].iloc[0]
        raise DataError(f"The feature {values.name!r} must be a number, but holds {str(bad)[:40]!r}.") from None


_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")


def as_converted(name: str) -> str:
    """A column's name as converters to ONNX write it: whatever is no letter, digit or underscore becomes one."""
    return re.sub(r"\W", "_", name)


def label_name(label: object) -> str:
    """One spelling for a label or level however it was typed: 1, 1.0 and "1.0" are "1"; true and True are "True"."""
    text = str(label)
    if text.lower() in ("true", "false"):
        return text.capitalize()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    """Values as text under one spelling: 1.0 and 1 are "1", True is "True"; missing stays missing."""
    import pandas as pd

    if pd.api.types.is_float_dtype(values):
        whole = values.dropna()
        if (whole == np.floor(whole)).all() and (whole.abs() < 2**53).all():
            values = values.astype("Int64")
    return values.astype("string")


def group_names(values: pd.Series[Any]) -> npt.NDArray[Any]:
    """(n,) the group names that :mod:`auditor.data.audit_data` gives the same values."""
    text = as_text(values).fillna(MISSING)
    return text.map({level: label_name(level) for level in text.unique()}).to_numpy(object)


def fit_tabular(X: pd.DataFrame) -> TabularPreprocessing:
    """Statistics of training rows: mean, standard deviation and median of numbers, levels of text and booleans."""
    import pandas as pd

    columns: list[NumericColumn | CategoricalColumn] = []
    for name in X.columns:
        values = X[name]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            numbers = np.asarray(values, np.float64)
            finite = numbers[np.isfinite(numbers)]
            if not finite.size:
                raise DataError(f"The feature {name!r} holds no number at all: leave it out with --features.")
            deviation = float(finite.std())
            columns.append(
                NumericColumn(
                    name=str(name),
                    mean=float(finite.mean()),
                    scale=deviation if deviation > 0 else 1.0,
                    impute=float(np.median(finite)),
                )
            )
        else:
            levels = sorted({label_name(level) for level in as_text(values).dropna().unique()})
            if not levels:
                raise DataError(f"The feature {name!r} is empty: leave it out with --features.")
            columns.append(CategoricalColumn(name=str(name), levels=tuple(levels)))
    return TabularPreprocessing(columns=tuple(columns))


class TextPreprocessing(Closed):
    """Words looked up in a vocabulary: characters of ``filters`` become spaces, 0 is padding, 1 may be unknown."""

    kind: Literal["text"] = "text"
    vocabulary: dict[str, int]
    lowercase: bool = True
    length: Annotated[int, Field(gt=0, le=65536)] = 100
    filters: str = KERAS_FILTERS
    padding: Literal["left", "right"] = "left"
    unknown: int | None = None

    def words(self, text: str) -> list[str]:
        """The words that reach the model, at most ``length``: the last ones under left padding, else the first."""
        cleaned = text.lower() if self.lowercase else text
        found = cleaned.translate(str.maketrans(self.filters, " " * len(self.filters))).split()
        if self.unknown is None:
            found = [w for w in found if w in self.vocabulary]
        return found[-self.length :] if self.padding == "left" else found[: self.length]

    def encode(self, X: Sequence[str]) -> npt.NDArray[np.int64]:
        """(n, length) word indices."""
        out = np.zeros((len(X), self.length), np.int64)
        for row, text in zip(out, X, strict=True):
            ids = [self.vocabulary.get(w, self.unknown or 0) for w in self.words(text)]
            if ids:
                row[slice(-len(ids), None) if self.padding == "left" else slice(len(ids))] = ids
        return out


def fit_text(X: Sequence[str], *, size: int = 20_000, length: int = 100) -> TextPreprocessing:
    """The ``size`` most frequent words of the training texts, by falling frequency, then alphabet."""
    counts: dict[str, int] = {}
    table = str.maketrans(KERAS_FILTERS, " " * len(KERAS_FILTERS))
    for text in X:
        for word in text.lower().translate(table).split():
            counts[word] = counts.get(word, 0) + 1
    frequent = sorted(counts, key=lambda w: (-counts[w], w))[: size - 2]
    return TextPreprocessing(vocabulary={w: i for i, w in enumerate(frequent, 2)}, length=length, unknown=1)


class ImagePreprocessing(Closed):
    """Brought to ``size`` (height, width), scaled to [0, 1], then ``(x - mean) / std`` per channel.

    ``fit``: ``stretch`` resizes to the size whatever the proportions; ``cover`` resizes until the size is covered and
    cuts out the middle; ``crop`` cuts the middle out as it stands, at a multiple of 8 pixels from the corner, and
    mirrors a smaller picture until it is large enough, so that no frequency is lost. ``faces``: the largest face and
    what is around it is cut out before.
    """

    kind: Literal["image"] = "image"
    size: tuple[Annotated[int, Field(gt=0, le=8192)], Annotated[int, Field(gt=0, le=8192)]]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[Annotated[float, Field(gt=0.0)], ...] = (0.5, 0.5, 0.5)
    fit: Literal["stretch", "cover", "crop"] = "stretch"
    faces: bool = False

    def encode(self, X: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, channels, height, width) float32 from (n, height, width, channels) uint8 already at ``size``."""
        scaled = np.array(X.transpose(0, 3, 1, 2), np.float32, order="C")
        scaled /= 255.0
        scaled -= np.asarray(self.mean, np.float32)[:, None, None]
        scaled /= np.asarray(self.std, np.float32)[:, None, None]
        return scaled


class AudioPreprocessing(Closed):
    """One channel at ``sampling_rate`` (hertz), ``samples`` long: cut at the end, or repeated until it is long enough.

    Silence is not used to fill up: its length would give the file's length away.
    """

    kind: Literal["audio"] = "audio"
    sampling_rate: Annotated[int, Field(ge=4_000, le=192_000)] = 16_000
    samples: Annotated[int, Field(ge=256, le=1 << 24)] = 48_000

    def encode(self, X: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """(n, samples) float32 in [-1, 1) from (n, samples) int16."""
        return np.asarray(X, np.float32) / np.float32(32768.0)


Preprocessing = Annotated[
    TabularPreprocessing | TextPreprocessing | ImagePreprocessing | AudioPreprocessing, Field(discriminator="kind")
]
