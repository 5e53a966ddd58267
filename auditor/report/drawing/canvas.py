"""A drawing canvas: colours, fonts and number formats, in units from the top left corner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from auditor.judging.png import Pixels
from auditor.report.record.number_text import shortened, visible

# Okabe and Ito's palette, in an order whose first four are told apart in greyscale too; the light ink is the default of
# the markup, the dark ink comes from the style sheet by class.
INK, MUTED, GRID, BOUND = "#20262d", "#5a646e", "#dfe3e6", "#20262e"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "P")
Dashes = tuple[float, tuple[float, ...] | None]
CHANCE: Dashes = (0.0, (1.0, 2.0))
BROKEN: Dashes = (0.0, (4.0, 3.0))
DASHES: tuple[Dashes, ...] = (
    (0.0, None),
    (0.0, (6.0, 2.0)),
    (0.0, (2.0, 2.0)),
    (0.0, (8.0, 2.0, 2.0, 2.0)),
)
# Low, middle and high values of a feature, apart in hue and, by their markers, in shape.
RANKS = ("#0072b3", "#4f7fa3", "#75797d", "#a56a3d", "#d55e01")
RANK_MARKERS = ("v", "v", "o", "^", "^")
NO_RANK = "#6b7075"
# Grounds of words that speak for and against, weakest first.
FOR = ("#fdebdd", "#fbd0ae", "#f6ae76", "#ec8b43")
AGAINST = ("#e0eef8", "#b9daef", "#86c1e4", "#56a5d3")
CLASSES = {INK: "ink", MUTED: "muted", GRID: "grid", BOUND: "bound"} | {c: f"s{i}" for i, c in enumerate(SERIES, 1)}
CLASSES |= {c: f"{name}{i}" for name, cs in (("r", RANKS), ("p", FOR), ("n", AGAINST)) for i, c in enumerate(cs, 1)}
CLASSES |= {NO_RANK: "r0"}
# An outcome has a colour, a mark and its name: the last two tell it where the first does not.
TONES = {"PASS": "#0f5c32", "FAIL": "#9d1417", "INCONCLUSIVE": "#724700"}
OUTCOME_MARKERS = {"PASS": "o", "FAIL": "X", "INCONCLUSIVE": "D"}
ALLOWED = "#e4f2e9"
CLASSES |= {c: name.lower() for name, c in TONES.items()} | {ALLOWED: "allowed"}

WIDTH = 380.0
SMALL, TEXT = 10.5, 11.5
ROW, HEAD, FOOT = 20.0, 24.0, 38.0
RIGHT = 46.0
_PER_CHAR = 0.56
_LARGEST = 1e100
STYLE = {"svg.fonttype": "none", "text.parse_math": False, "text.usetex": False, "path.simplify": True}

# ---- a sheet to draw on, in units from its top left corner ---------------------------------------------------------


@dataclass
class Sheet:
    """A drawing; ``texts`` contains its strings: matplotlib places only tokens and never parses text from the data.

    ``own``: which of them are the tool's own words, by the name that a catalogue has for them.
    """

    height: float
    width: float = WIDTH
    texts: list[str] = field(default_factory=list)
    own: dict[int, str] = field(default_factory=dict)
    drawing: Drawing = field(init=False)

    def __post_init__(self) -> None:
        self.drawing = Drawing(figsize=(self.width / 72.0, self.height / 72.0), dpi=72)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        box = (left / self.width, 1.0 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.drawing.add_axes(box)
        axes.set_axis_off()
        axes.set_zorder(3)
        return axes

    def token(self, text: str) -> str:
        self.texts.append(visible(text))
        return f"T{len(self.texts) - 1}"

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        align: str = "left",
        colour: str = INK,
        size: float = TEXT,
        bold: bool = False,
        turned: bool = False,
        phrase_key: str = "",
    ) -> None:
        if phrase_key:
            self.own[len(self.texts)] = phrase_key
        self.drawing.text(
            x / self.width,
            1.0 - y / self.height,
            self.token(text),
            ha=align,
            va="center_baseline",
            color=colour,
            fontsize=size,
            fontweight="bold" if bold else "normal",
            rotation=90 if turned else 0,
            # Else Agg turns it about another place than the SVG does.
            rotation_mode="anchor" if turned else "default",
        )

    def line(
        self,
        x: Sequence[float],
        y: Sequence[float],
        *,
        colour: str,
        width: float = 1.0,
        dashes: Dashes = (0.0, None),
    ) -> None:
        self.drawing.add_artist(
            Line2D(
                [v / self.width for v in x],
                [1.0 - v / self.height for v in y],
                color=colour,
                linewidth=width,
                linestyle=dashes,
            )
        )

    def box(self, left: float, top: float, width: float, height: float, *, colour: str) -> None:
        corner = (left / self.width, 1.0 - (top + height) / self.height)
        self.drawing.add_artist(
            Rectangle(corner, width / self.width, height / self.height, facecolor=colour, linewidth=0)
        )

    def canvas(self) -> Axes:
        """Axes in the units of the sheet itself."""
        axes = self.axes(0.0, 0.0, self.width, self.height)
        axes.set_xlim(0.0, self.width)
        axes.set_ylim(self.height, 0.0)
        return axes

    def picture(self, pixels: Pixels, left: float, top: float, width: float, height: float) -> None:
        """Pixels (height, width, 3) in a box: not smoothed, not resampled."""
        axes = self.axes(left, top, width, height)
        axes.imshow(pixels, interpolation="none", aspect="auto")


def text_width(text: str, size: float = TEXT) -> float:
    return len(text) * size * _PER_CHAR


def fitting(text: str, width: float, size: float = TEXT) -> str:
    return shortened(visible(text), max(4, int(width / (size * _PER_CHAR))))


# ---- numbers and scales --------------------------------------------------------------------------------------------


def drawable(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) and abs(x) < _LARGEST else None


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * size >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, first + about + 2) if i * step <= high + step * 1e-9]


def value_range(values: Sequence[float | None], *, zero: bool = False) -> tuple[float, float]:
    """The axis range for some values; rates get at least 0.4 of [0, 1], so that noise does not look like a gap."""
    known = [v for v in values if v is not None] + ([0.0] if zero else [])
    if not any(known):
        return 0.0, 1.0
    low, high = min(known), max(known)
    if low >= 0.0 and high <= 1.0 and not zero:
        low, high = math.floor(low * 10.0 - 0.2) / 10.0, math.ceil(high * 10.0 + 0.2) / 10.0
        if high - low < 0.4:
            middle = min(max((low + high) / 2.0, 0.2), 0.8)
            low, high = middle - 0.2, middle + 0.2
        return max(low, 0.0), min(high, 1.0)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    return (0.0 if zero and low == 0.0 else low - pad), (0.0 if zero and high == 0.0 else high + pad)
