"""Preprocessing from raw rows to a model's input tensor, as data, and the joint media rows of two models.

Nothing here is code of the bundle's own: a bundle states means, levels and vocabularies, and these classes apply them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from auditor.core.errors import DataError, ModelError, did_you_mean
from auditor.core.files import Closed
from auditor.core.number_types import Positive
from auditor.core.rows import FloatArray, IntArray, is_number
from auditor.data.group_counts import MISSING

if TYPE_CHECKING:
    import pandas as pd

KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'


class NumericColumn(Closed):
    """``(x - mean) / scale``, with ``impute`` in place of a missing x."""

    kind: Literal["numeric"] = "numeric"
    name: str
    mean: float = 0.0
    scale: Positive = 1.0
    impute: float = 0.0


class CategoricalColumn(Closed):
    """One indicator per level; all zeros for a missing or unseen value."""

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
        """The encoded columns of each raw column."""
        spans, start = [], 0
        for column in self.columns:
            width = len(column.levels) if isinstance(column, CategoricalColumn) else 1
            spans.append(slice(start, start + width))
            start += width
        return tuple(spans)

    @cached_property
    def width(self) -> int:
        """Encoded columns in all."""
        return int(self.spans[-1].stop)

    @cached_property
    def _steps(self) -> tuple[_NumberStep | _LevelStep, ...]:
        """The columns with where each of them goes, worked out once."""
        return tuple(
            _NumberStep(column.name, span.start, column.mean, column.scale, column.impute)
            if isinstance(column, NumericColumn)
            else _LevelStep(column.name, span.start, {label_name(level): i for i, level in enumerate(column.levels)})
            for column, span in zip(self.columns, self.spans, strict=True)
        )

    def encode(self, X: pd.DataFrame) -> npt.NDArray[np.float32]:
        """(n, width) float32 from a table with the features; DataError if one is absent or not a number."""
        # Work on whole columns costs the same for one row as for thousands.
        if len(X) <= FEW_ROWS:
            out = np.zeros((len(X), self.width), np.float32)
            if _encoded_by_cell(self._steps, X, out):
                return out
        out = np.zeros((len(X), self.width), np.float32)
        flat, starts = out.reshape(-1), np.arange(len(X)) * self.width
        for step in self._steps:
            if step.name not in X.columns:
                raise DataError(
                    f"The model needs the feature {step.name!r}, which the data do not have"
                    f"{did_you_mean(step.name, map(str, X.columns))}."
                )
            values = X[step.name]
            if isinstance(step, _NumberStep):
                numbers = numbers_of(values)
                holes = np.isnan(numbers)
                centred = (np.where(holes, step.impute, numbers) if holes.any() else numbers) - step.mean
                centred /= step.scale
                out[:, step.start] = centred
            else:
                codes, found = level_codes(values)
                known = np.asarray([*(step.place.get(level, -1) for level in found), -1])[codes]
                there = known >= 0
                where = starts + (step.start + known)
                flat[where if there.all() else where[there]] = 1.0
        return out


@dataclass(frozen=True, slots=True)
class _NumberStep:
    """A numeric column and the encoded column that it becomes."""

    name: str
    start: int
    mean: float
    scale: float
    impute: float

    def encode_value(self, value: object, row: npt.NDArray[np.float32]) -> bool:
        """Encodes one value; False where whole columns have to be looked at."""
        if not isinstance(value, _PLAIN_NUMBERS):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        if math.isinf(number):
            return False
        row[self.start] = ((self.impute if math.isnan(number) else number) - self.mean) / self.scale
        return True


@dataclass(frozen=True, slots=True)
class _LevelStep:
    """A categorical column, the first of the encoded columns that it becomes, and each level's place among them."""

    name: str
    start: int
    place: dict[str, int]

    def encode_value(self, value: object, row: npt.NDArray[np.float32]) -> bool:
        """Encodes one value; False where whole columns have to be looked at."""
        # A level is under its one spelling already.
        place = self.place.get(value) if isinstance(value, str) else None
        if place is None and not is_missing(value):
            name = cell_name(value)
            if name is None:
                return False
            place = self.place.get(name)
        if place is not None:
            row[self.start + place] = 1.0
        return True


# Up to here cell by cell is faster than by whole columns.
FEW_ROWS = 8
_PLAIN_NUMBERS = (float, int, np.float32, np.int64, np.int32, np.bool_)


def _encoded_by_cell(steps: Sequence[_NumberStep | _LevelStep], X: pd.DataFrame, out: npt.NDArray[np.float32]) -> bool:
    """Whether a few rows could be encoded cell by cell; not where a column is absent, doubled or of an unusual kind."""
    places = columns_at(X, [step.name for step in steps])
    if places is None:
        return False
    cell = X.iat
    for i, row in enumerate(out):
        for step, at in zip(steps, places, strict=True):
            if not step.encode_value(cell[i, at], row):
                return False
    return True


def columns_at(X: pd.DataFrame, names: Sequence[str]) -> list[int] | None:
    """Positions of these columns in a table; None if one is absent or occurs twice."""
    where = X.columns.get_loc
    try:
        found: list[Any] = [where(name) for name in names]
    except KeyError:
        return None
    # Of a name that stands there twice it is a slice or a mask.
    return found if set(map(type, found)) <= {int} else None


def is_missing(value: object) -> bool:
    """Whether a cell is empty, judged without its column."""
    return value is None or (isinstance(value, float) and value != value)


def cell_name(value: object) -> str | None:
    """The canonical text of a cell with a text, a whole number or a truth value; None for all others, whose spelling
    depends on the column."""
    if isinstance(value, str):
        return label_name(value)
    return str(value) if isinstance(value, (bool, int, np.bool_, np.int64)) else None


def group_cells(X: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, ...]] | None:
    """The values of each row in these columns, spelled as by :func:`level_codes`, MISSING for empty cells; None if
    whole columns must be examined."""
    places = columns_at(X, columns)
    if places is None:
        return None
    cell = X.iat
    found = []
    for i in range(len(X)):
        values = [cell[i, at] for at in places]
        names = [MISSING if is_missing(value) else cell_name(value) for value in values]
        known = tuple(name for name in names if name is not None)
        if len(known) < len(names):
            return None
        found.append(known)
    return found


def level_codes(values: pd.Series[Any]) -> tuple[IntArray, list[str]]:
    """(n,) places of a column's values among its levels, -1 where missing, and the levels under their one spelling."""
    import pandas as pd

    text = values if isinstance(values.dtype, pd.StringDtype) else as_text(values)
    codes, found = text.array.factorize()
    return codes, [label_name(level) for level in found]


def numbers_of(values: pd.Series[Any]) -> FloatArray:
    import pandas as pd

    try:
        plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb"
        numbers = np.asarray(values if plain else pd.to_numeric(values), np.float64)
    except OverflowError:
        numbers = np.full(1, np.inf)
    except (ValueError, TypeError):
        bad = values[pd.to_numeric(values, errors="coerce").isna() & values.notna()].iloc[0]
        raise DataError(f"The feature {values.name!r} must be a number, but holds {str(bad)[:40]!r}.") from None
    if np.isinf(numbers).any():
        raise DataError(f"The feature {values.name!r} holds infinity, or a number too large to be one.")
    return numbers


_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")


def as_converted(name: str) -> str:
    """A column's name as converters to ONNX write it: all characters but letters, digits and underscores replaced."""
    return re.sub(r"\W", "_", name)


def label_name(label: object) -> str:
    """Canonical spelling of a label or level: 1, 1.0 and "1.0" are "1"; true and True are "True"."""
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

    columns: list[NumericColumn | CategoricalColumn] = []
    for name in X.columns:
        values = X[name]
        if is_number(values):
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

    def encode(self, X: Sequence[str]) -> IntArray:
        """(n, length) word indices."""
        out = np.zeros((len(X), self.length), np.int64)
        for row, text in zip(out, X, strict=True):
            ids = [self.vocabulary.get(w, self.unknown or 0) for w in self.words(text)]
            if ids:
                row[slice(-len(ids), None) if self.padding == "left" else slice(len(ids))] = ids
        return out


class ImagePreprocessing(Closed):
    """Brought to ``size`` (height, width), scaled to [0, 1], then ``(x - mean) / std`` per channel.

    ``fit``: ``stretch`` resizes to the size whatever the proportions; ``cover`` resizes until the size is covered and
    cuts out the middle; ``crop`` cuts the middle out as it stands, at a multiple of 8 pixels from the corner, and
    mirrors a smaller picture until it is large enough, so that no frequency is lost. ``faces``: of detectors of an
    earlier version, of which those of faces alone are refused.
    """

    kind: Literal["image"] = "image"
    size: tuple[Annotated[int, Field(gt=0, le=8192)], Annotated[int, Field(gt=0, le=8192)]]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[Positive, ...] = (0.5, 0.5, 0.5)
    fit: Literal["stretch", "cover", "crop"] = "stretch"
    faces: Literal[False] = False

    def encode(self, X: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, channels, height, width) float32 from (n, height, width, channels) uint8 already at ``size``."""
        scaled = np.array(X.transpose(0, 3, 1, 2), np.float32, order="C")
        scaled /= 255.0
        scaled -= np.asarray(self.mean, np.float32)[:, None, None]
        scaled /= np.asarray(self.std, np.float32)[:, None, None]
        return scaled


class AudioPreprocessing(Closed):
    """One channel at ``sampling_rate`` (hertz), ``samples`` long: truncated, or repeated to that length.

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


Media = ImagePreprocessing | AudioPreprocessing
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PairedRows:
    """The array layout of the inputs of two models of one medium.

    Pictures, (n, height, width, channels) uint8: the channels of the first, then those of the second, each from the
    upper left corner of the larger height and width. Sound, (n, samples) int16: the first, then the second. Where both
    read a file alike, the array is what either reads.
    """

    first: Media
    second: Media

    @classmethod
    def from_preprocessing(cls, first: Preprocessing | None, second: Preprocessing | None) -> PairedRows:
        """A pair of models; ModelError if their media differ."""
        for media in (ImagePreprocessing, AudioPreprocessing):
            if isinstance(first, media) and isinstance(second, media):
                return cls(first, second)
        raise ModelError(
            f"The two models do not take the same medium: one takes {_medium(first)}, the other {_medium(second)}."
        )

    @property
    def has_same_input(self) -> bool:
        """Whether both read the same of a file."""
        return _input_key(self.first) == _input_key(self.second)

    def join(self, first: Array, second: Array) -> Array:
        """The joint array of the first model's input, (n, ...), and the second model's, (n, ...)."""
        if self.has_same_input:
            return first
        if isinstance(self.first, AudioPreprocessing) or isinstance(self.second, AudioPreprocessing):
            return np.concatenate([first, second], axis=1)
        (h1, w1), (h2, w2) = self.first.size, self.second.size
        c1, c2 = first.shape[3], second.shape[3]
        out = np.zeros((len(first), max(h1, h2), max(w1, w2), c1 + c2), np.uint8)
        out[:, :h1, :w1, :c1] = first
        out[:, :h2, :w2, c1:] = second
        return out

    def split(self, X: Array) -> tuple[Array, Array]:
        """The inputs of both models from a joint array."""
        if self.has_same_input:
            return X, X
        if isinstance(self.first, AudioPreprocessing) or isinstance(self.second, AudioPreprocessing):
            n = self.first.samples if isinstance(self.first, AudioPreprocessing) else 0
            return X[:, :n], X[:, n:]
        (h1, w1), (h2, w2), c1 = self.first.size, self.second.size, len(self.first.mean)
        return X[:, :h1, :w1, :c1], X[:, :h2, :w2, c1:]


def _medium(preprocessing: Preprocessing | None) -> str:
    return "input that its file does not describe" if preprocessing is None else f"{preprocessing.kind} rows"


def _input_key(media: Media) -> object:
    """Everything that decides what of a file is read; colours are scaled later."""
    return media.model_dump(exclude={"mean", "std"}), len(getattr(media, "mean", ()))
