"""Figures as data, provided by probes: series, coloured words, heat maps, tables of grades, beeswarm plots.

Bounded data without markup: whatever made them, a record of them stays small, and a rendering decides how they look.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from auditor.core.files import LEFT_OUT, UNSAID, Closed, Number, finite
from auditor.judging import png

MOST_TEXTS, MOST_WORDS, LONGEST_WORD = 12, 160, 48
MOST_HEATMAPS, MOST_PIXELS = 8, 224
MOST_METHODS, MOST_GRADES = 24, 10
MOST_SWARMS, MOST_DOTS, RANKS = 12, 60, 5
_LONGEST = 400
# Lines of a trend that have a name and a colour; the others are grey behind them.
MOST_NAMED = 6
# What is between a judged number's name and what it is and must be.
BESIDE = " · "
# Rows of a group by what they are and what was decided, in the order of a bar.
CELLS = ("true positives", "false negatives", "false positives", "true negatives")

# "shown": earned its display. "reserved": that too, but a check was not run, or not held against it. "forced": asked
# for by name and shown although it did not. "refused": tested and not shown. "ranked": graded on the first half only,
# behind the one that was chosen. "compared": no candidate, but what the others are held against. "not_applicable": not
# for this model.
Standing = Literal["shown", "reserved", "forced", "refused", "ranked", "compared", "not_applicable"]

# What became of an explanation, in the words with which everything that is said of it begins.
EARNED, RESERVED, UNEARNED = "earned its display", "WITH RESERVATIONS", "UNEARNED"


def title_of(note: str) -> str:
    """The suffix of a figure's title for such a note."""
    if note.startswith(UNEARNED):
        return ", unearned"
    return ", with reservations" if note.startswith(RESERVED) else ""


_CONFIG = ConfigDict(allow_inf_nan=False, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class ColouredText:
    """The words of one text in order, with their signed contributions to the explained score; None if unknown.

    ``spaced``: words are set with a space between them; tokens that carry their own spaces are not. ``title``: what
    text this is and what was scored, in words. ``left_out``: words of the text beyond ``MOST_WORDS``.
    """

    __pydantic_config__ = _CONFIG

    words: tuple[str, ...]
    values: tuple[float | None, ...]
    title: str = ""
    spaced: bool = True
    left_out: int = 0

    def __post_init__(self) -> None:
        if len(self.words) != len(self.values):
            raise ValueError(f"a text needs a value for each word: {len(self.words)} and {len(self.values)}")
        _at_most("words of a text", len(self.words), MOST_WORDS)
        _at_most("characters of a word", max(map(len, self.words), default=0), LONGEST_WORD)
        _at_most("characters of a text's title", len(self.title), _LONGEST)
        _finite("values of a text", self.values)

    @property
    def largest(self) -> float:
        """Largest absolute value, 0 if there is none."""
        return max((abs(v) for v in self.values if v is not None), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """An attribution map over its image.

    ``attribution``: base64 of a grey PNG, whose 0 and 255 stand for the values ``low`` and ``high``, linear between.
    ``picture``: base64 of a PNG of the same size, or "" where the picture itself is not to be shown. Both in the form
    of :mod:`auditor.judging.png`, at most ``MOST_PIXELS`` on a side. ``detail``: where the attribution lies, in words.
    """

    __pydantic_config__ = _CONFIG

    attribution: str
    low: float
    high: float
    picture: str = ""
    title: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        values, picture = self.pixels(), self.photograph()
        if values.ndim != 2:
            raise ValueError("an attribution map must be grey")
        if picture is not None and picture.shape[:2] != values.shape:
            raise ValueError(f"a picture of {picture.shape[:2]} cannot lie under a map of {values.shape}")
        if not self.low <= self.high:
            raise ValueError(f"the values of a map must run upwards, not from {self.low!r} to {self.high!r}")
        _finite("ends of a map", (self.low, self.high))
        _at_most("characters of a map's words", max(len(self.title), len(self.detail)), _LONGEST)

    def pixels(self) -> png.Pixels:
        """(height, width) the map as 0 to 255. Raises ValueError where it is no such PNG."""
        return _decoded(self.attribution)

    def photograph(self) -> png.Pixels | None:
        """(height, width[, 3]) the picture, or None if it is not displayed.

        Raises ValueError where it is no PNG.
        """
        return _decoded(self.picture) if self.picture else None


@dataclass(frozen=True, kw_only=True)
class Grade:
    """One grade of a method with its interval; ``words`` replace a missing number."""

    __pydantic_config__ = _CONFIG

    value: float | None = None
    low: float | None = None
    high: float | None = None
    words: str = ""

    def __post_init__(self) -> None:
        _finite("ends of a grade", (self.value, self.low, self.high))
        _at_most("characters of a grade", len(self.words), _LONGEST)


@dataclass(frozen=True, kw_only=True)
class GradedMethod:
    """A method, its status with the reason, and its grades in the order of the table's columns."""

    __pydantic_config__ = _CONFIG

    method: str
    standing: Standing
    reason: str
    grades: tuple[Grade, ...]

    def __post_init__(self) -> None:
        _at_most("characters of a method's words", max(len(self.method), len(self.reason)), _LONGEST)


@dataclass(frozen=True, kw_only=True)
class GradeTable:
    """A table of methods with their grades.

    ``grades``: the names of the columns; ``better``: which way each is better.
    """

    __pydantic_config__ = _CONFIG

    grades: tuple[str, ...]
    better: tuple[Literal["higher", "lower", "neither"], ...]
    methods: tuple[GradedMethod, ...]

    def __post_init__(self) -> None:
        _at_most("methods of a table", len(self.methods), MOST_METHODS)
        _at_most("grades of a table", len(self.grades), MOST_GRADES)
        _at_most("characters of a column", max(map(len, self.grades), default=0), _LONGEST)
        if any(len(m.grades) != len(self.grades) for m in self.methods) or len(self.better) != len(self.grades):
            raise ValueError(f"every method of this table needs {len(self.grades)} grades, one for each column")


@dataclass(frozen=True, kw_only=True)
class Swarm:
    """One feature's attributions over sampled rows, each with the rank of the row's own value of that feature.

    ``ranks``: 0 for the lowest fifth to 4 for the highest, None where the feature has no order. In ascending order of
    the values, so that no dot of one feature can be told to be of the same row as a dot of another.
    """

    __pydantic_config__ = _CONFIG

    feature: str
    values: tuple[float, ...]
    ranks: tuple[int | None, ...]

    def __post_init__(self) -> None:
        _at_most("dots of a feature", len(self.values), MOST_DOTS)
        _at_most("characters of a feature", len(self.feature), _LONGEST)
        _finite("values of a swarm", self.values)
        if len(self.values) != len(self.ranks):
            raise ValueError(f"a swarm needs a rank for each value: {len(self.values)} and {len(self.ranks)}")
        if any(r is not None and not 0 <= r < RANKS for r in self.ranks):
            raise ValueError(f"ranks of a swarm must lie in 0 to {RANKS - 1}")
        if any(b < a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError("values of a swarm must ascend, so that they do not tell which row they are of")


def _at_most(noun: str, n: int, most: int) -> None:
    if n > most:
        raise ValueError(f"at most {most} {noun} can be shown, not {n}")


def _finite(noun: str, values: tuple[float | None, ...]) -> None:
    if any(v is not None and not math.isfinite(v) for v in values):
        raise ValueError(f"{noun} must be finite")


def _decoded(encoded: str) -> png.Pixels:
    # Base64 of the largest picture that could be shown, had it not been compressed at all.
    _at_most("characters of a picture", len(encoded), 4 * (MOST_PIXELS * (MOST_PIXELS * 3 + 1) + 1024) // 3)
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise ValueError("a picture must be base64") from None
    return png.decode(data, MOST_PIXELS)


_MOST = {"texts": MOST_TEXTS, "heatmaps": MOST_HEATMAPS, "swarms": MOST_SWARMS}
FigureKind = Literal[
    "rates", "bars", "curve", "roc", "forest", "text", "heatmap", "table", "beeswarm",
    "judged", "confusion", "calibration", "scores", "threshold", "trend", "pairs",
]  # fmt: skip


class Series(Closed):
    """One line or set of bars of a figure: ``y`` against ``x`` (numbers or labels), with intervals if available.

    ``low`` and ``high`` are the intervals, empty where there are none. ``criterion``: where the requirement lies on the
    value axis for this series alone; ``criterion_label`` says it in words. Points that have no place on the x axis are
    left out.
    """

    name: str
    x: tuple[str | float, ...]
    y: tuple[Number, ...]
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    criterion: Number = None
    criterion_label: str = ""

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, values: Any, info: ValidationInfo) -> Any:
        # A probe may compute a place that does not exist; whoever writes one into JSON is refused.
        if info.mode != "python" or not isinstance(values, dict) or not isinstance(values.get("x"), list | tuple):
            return values
        lost = {i for i, x in enumerate(values["x"]) if finite(x) is not x}
        along = [name for name in ("x", "y", "low", "high") if lost and name in values]
        return values | {name: tuple(v for i, v in enumerate(values[name]) if i not in lost) for name in along}


class Figure(Closed):
    """A drawing as data: ``kind`` selects the plot, ``alt`` describes it in words, ``caption`` explains it.

    ``text`` shows ``texts``, ``heatmap`` ``heatmaps``, ``table`` ``table``, ``beeswarm`` ``swarms``; every other kind
    ``series``: ``rates``, ``confusion``, ``scores`` and ``calibration`` of groups, ``threshold`` of groups over the
    threshold, the last series being the largest difference between any two of them, ``judged`` a series an outcome
    with values in units from the ideal (0) to the bound (1), ``trend`` over moments in ISO 8601, ``pairs`` of texts.
    ``features``: the columns whose values the names of the figure are, joined by ``×`` where they are several.
    ``marked``: a place on the x axis of ``threshold`` and ``scores`` that is the model's own. Raises ValueError where
    there is more than a report shows.
    """

    id: str
    probe: str
    kind: FigureKind
    title: str
    series: tuple[Series, ...]
    alt: str
    x_label: str = ""
    y_label: str = ""
    criterion: Number = None
    caption: str = ""
    texts: Annotated[tuple[ColouredText, ...], Field(max_length=MOST_TEXTS)] = ()
    heatmaps: Annotated[tuple[Heatmap, ...], Field(max_length=MOST_HEATMAPS)] = ()
    table: GradeTable | None = None
    swarms: Annotated[tuple[Swarm, ...], Field(max_length=MOST_SWARMS)] = ()
    features: Annotated[tuple[str, ...], LEFT_OUT] = ()
    marked: Annotated[Number, UNSAID] = None

    @field_validator(*_MOST, mode="before")
    @classmethod
    def _as_many_as_a_report_shows(cls, items: Any, info: ValidationInfo) -> Any:
        most = _MOST[str(info.field_name)]
        if isinstance(items, list | tuple) and len(items) > most:
            raise ValueError(f"a figure shows at most {most} {info.field_name}, not {len(items)}")
        return items
