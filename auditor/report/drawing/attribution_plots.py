"""Explanation figures: coloured words, maps over images, tables of graded methods, beeswarm plots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np

from auditor.core.rows import FloatArray
from auditor.judging.figure_types import BESIDE, ColouredText, Figure, Heatmap, Swarm
from auditor.judging.png import Pixels
from auditor.report.drawing.canvas import (
    AGAINST,
    FOOT,
    FOR,
    GRID,
    INK,
    MUTED,
    NO_RANK,
    RANK_MARKERS,
    RANKS,
    SERIES,
    SMALL,
    WIDTH,
    Sheet,
    fitting,
    text_width,
    ticks,
)
from auditor.report.drawing.figure_data import STANDINGS, in_words, scale_of, strength
from auditor.report.record.number_text import grade, grade_interval, number, signed, visible

WIDE = 2.0 * WIDTH
# Perceptually uniform from dark to light, and read alike with and without colour vision.
SCALE = "viridis"
_SCALE_STEPS = 64


# ---- text ----------------------------------------------------------------------------------------------------------

_LINE, _WORD = 25.0, 13.0


def text(figure: Figure) -> Sheet:
    """All texts with coloured words, broken into lines, under a key."""
    scale = scale_of(figure.texts)
    rows = [(t, _lines(t, scale)) for t in figure.texts]
    height = 40.0 + sum((22.0 if t.title else 6.0) + _LINE * len(lines) + 8.0 for t, lines in rows)
    sheet = Sheet(height, width=WIDE)
    _text_key(sheet, scale)
    y = 40.0
    for t, lines in rows:
        if t.title:
            sheet.text(0.0, y + 8.0, fitting(t.title, WIDE, SMALL), colour=MUTED, size=SMALL)
        y += 22.0 if t.title else 6.0
        for line in lines:
            for x, word, level in line:
                _word(sheet, x, y + _LINE / 2, word, level)
            y += _LINE
        y += 8.0
    return sheet


def _lines(t: ColouredText, scale: float) -> list[list[tuple[float, str, int]]]:
    """(x, word, strength) of each word, line by line."""
    lines: list[list[tuple[float, str, int]]] = [[]]
    x, gap = 2.0, _WORD * 0.5 if t.spaced else 0.0
    more = [(f"… and {t.left_out:,} more", None)] if t.left_out else []
    for raw, value in [*zip(t.words, t.values, strict=True), *more]:
        word = visible(raw)
        width = text_width(word, _WORD) * 1.06 + 4.0
        if x + width > WIDE and lines[-1]:
            lines.append([])
            x = 2.0
        lines[-1].append((x, word, strength(value, scale)))
        x += width + gap
    return lines


def _word(sheet: Sheet, x: float, y: float, word: str, level: int) -> None:
    width = text_width(word, _WORD) * 1.06 + 4.0
    if level:
        ground = (FOR if level > 0 else AGAINST)[abs(level) - 1]
        sheet.box(x - 2.0, y - 9.5, width, 19.0, colour=ground)
        dashes = (0.0, None) if level > 0 else (0.0, (1.5, 1.5))
        sheet.line([x, x + width - 4.0], [y + 9.0] * 2, colour=INK, width=0.6 + 0.35 * abs(level), dashes=dashes)
    middle = x + width / 2.0 - 2.0
    sheet.text(middle, y, word, align="center", size=_WORD, bold=abs(level) > 2)


def _text_key(sheet: Sheet, scale: float) -> None:
    x = 0.0
    for words, level in ((f"against, to {signed(-scale)}", -3), (f"for, to {signed(scale)}", 3)):
        _word(sheet, x + 2.0, 12.0, "word", level)
        sheet.text(x + 46.0, 12.0, words, colour=MUTED, size=SMALL)
        x += 52.0 + text_width(words, SMALL) + 18.0


# ---- heat maps -----------------------------------------------------------------------------------------------------

_GAP, _UNDER = 12.0, 72.0


def heatmap(figure: Figure) -> Sheet:
    """Each image beside its attribution map, with the map's own scale under it."""
    side = (WIDTH - _GAP) / 2.0
    shapes = [(m, m.pixels().shape) for m in figure.heatmaps]
    heights = [side * min(h / w, 1.6) for _, (h, w) in shapes]
    sheet = Sheet(max(1.0, sum(h + _UNDER for h in heights)))
    y = 0.0
    for shown, height in zip(figure.heatmaps, heights, strict=True):
        sheet.text(0.0, y + 9.0, fitting(shown.title, WIDTH), bold=True)
        y += 20.0
        picture = shown.photograph()
        if picture is not None:
            sheet.picture(picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2), 0.0, y, side, height)
        sheet.picture(overlay(shown), side + _GAP, y, side, height)
        _scale(sheet, figure, shown, side + _GAP, y + height + 8.0, side)
        if picture is None:
            sheet.text(0.0, y + height / 2, "The picture is not shown.", colour=MUTED, size=SMALL, phrase_key="unseen")
        y += height + _UNDER - 20.0
    return sheet


def overlay(heatmap: Heatmap) -> Pixels:
    """(height, width, 3) the map in colour over its picture in grey; opaque where there is no picture to see."""
    values = heatmap.pixels().astype(np.float64) / 255.0
    colours: FloatArray = matplotlib.colormaps[SCALE](values)[..., :3]
    picture = heatmap.photograph()
    if picture is None:
        return _bytes(colours)
    grey = picture / 255.0 if picture.ndim == 2 else picture @ np.array([0.299, 0.587, 0.114]) / 255.0
    # The picture shows through everywhere, so that a reader sees what it is that the map lies on.
    opacity = (0.35 + 0.5 * values)[..., None]
    return _bytes(opacity * colours + (1.0 - opacity) * grey[..., None])


def _bytes(colours: FloatArray) -> Pixels:
    return np.round(255.0 * np.clip(colours, 0.0, 1.0)).astype(np.uint8)


def _scale(sheet: Sheet, figure: Figure, heatmap: Heatmap, x: float, y: float, width: float) -> None:
    steps = np.linspace(0.0, 1.0, _SCALE_STEPS)[None, :]
    sheet.picture(_bytes(matplotlib.colormaps[SCALE](steps)[..., :3]), x, y, width, 8.0)
    for share, align in ((0.0, "left"), (0.5, "center"), (1.0, "right")):
        value = heatmap.low + share * (heatmap.high - heatmap.low)
        sheet.text(x + share * width, y + 17.0, number(value), align=align, colour=MUTED, size=SMALL)
    sheet.text(x + width / 2, y + 31.0, fitting(figure.y_label, width, SMALL), align="center", colour=MUTED, size=SMALL)


# ---- methods and their grades --------------------------------------------------------------------------------------


def table(figure: Figure) -> Sheet:
    """A row per method: its status, its grades with intervals, and the reason."""
    grades = figure.table
    methods = grades.methods if grades else ()
    sheet = Sheet(34.0 + 46.0 * max(1, len(methods)), width=WIDE)
    names = grades.grades if grades else ()
    first = 190.0
    each = (WIDE - first) / max(1, len(names))
    places = [first + each * (i + 1) for i in range(len(names))]
    for name, better, x in zip(names, grades.better if grades else (), places, strict=True):
        sheet.text(x, 8.0, fitting(in_words(name), each - 8.0, SMALL), align="right", colour=MUTED, size=SMALL)
        words = "" if better == "neither" else f"{better} is better"
        sheet.text(x, 21.0, fitting(words, each - 8.0, 9.5), align="right", colour=MUTED, size=9.5)
    y = 32.0
    for method in methods:
        sheet.line([0.0, WIDE], [y, y], colour=GRID)
        sheet.text(0.0, y + 12.0, fitting(method.method, first - 10.0), bold=True)
        sheet.text(0.0, y + 25.0, STANDINGS[method.standing], colour=MUTED, size=SMALL)
        sheet.text(0.0, y + 38.0, fitting(method.reason, WIDE, 9.5), colour=MUTED, size=9.5)
        for own, x in zip(method.grades, places, strict=True):
            sheet.text(x, y + 12.0, fitting(grade(own), each - 8.0), align="right")
            bounds = fitting(grade_interval(own), each - 8.0, 9.5)
            sheet.text(x, y + 25.0, bounds, align="right", colour=MUTED, size=9.5)
        y += 46.0
    return sheet


# ---- swarms --------------------------------------------------------------------------------------------------------

_SWARM, _DOT = 30.0, 4.6


def beeswarm(figure: Figure) -> Sheet:
    """A row of dots per feature: position is the attribution, colour the rank of the row's value."""
    values = [v for s in figure.swarms for v in s.values]
    low, high = min([*values, 0.0]), max([*values, 0.0])
    pad = 0.04 * (high - low) or 0.5
    low, high = low - pad, high + pad
    left = min(max([text_width(visible(s.feature)) + 14.0 for s in figure.swarms] + [44.0]), 138.0)
    bottom = 24.0 + _SWARM * len(figure.swarms)
    sheet = Sheet(bottom + FOOT)
    width = WIDTH - left - 8.0

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * width

    _rank_key(sheet, left)
    for tick in ticks(low, high):
        sheet.line([place(tick)] * 2, [20.0, bottom], colour=GRID)
        sheet.text(place(tick), bottom + 10.0, f"{tick:g}", align="center", colour=MUTED, size=SMALL)
    sheet.line([place(0.0)] * 2, [20.0, bottom], colour=MUTED, width=1.0)
    sheet.text(left + width / 2, bottom + 27.0, fitting(figure.y_label, width), align="center", colour=MUTED)
    axes = sheet.axes(left, 0.0, width, bottom)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, 0.0)
    for i, swarm in enumerate(figure.swarms):
        y = 24.0 + _SWARM * (i + 0.5)
        sheet.text(left - 8.0, y, fitting(swarm.feature, left - 10.0), align="right")
        for x, dy, rank in _dots(swarm, [place(v) for v in swarm.values]):
            colour, marker = (NO_RANK, "o") if rank is None else (RANKS[rank], RANK_MARKERS[rank])
            value = low + (x - left) / width * (high - low)
            axes.plot(
                [value], [y + dy], marker, color=colour, markersize=_DOT, markeredgewidth=0, alpha=0.85, clip_on=False
            )
    return sheet


def _dots(swarm: Swarm, places: Sequence[float]) -> list[tuple[float, float, int | None]]:
    """(x, offset, rank) of each dot: as near to its line as it covers no other; a crowd is pressed into its row."""
    steps = [(k + 1) // 2 * (1 if k % 2 else -1) for k in range(2 * len(places) + 1)]
    taken: list[tuple[float, int]] = []
    for x in places:
        near = {step for other, step in taken if abs(other - x) < _DOT}
        taken.append((x, next(step for step in steps if step not in near)))
    tallest = max((abs(step) for _, step in taken), default=0)
    unit = min(0.9 * _DOT, (_SWARM / 2.0 - 2.0) / max(1, tallest))
    return [(x, step * unit, rank) for (x, step), rank in zip(taken, swarm.ranks, strict=True)]


def _rank_key(sheet: Sheet, left: float) -> None:
    axes = sheet.axes(0.0, 0.0, WIDTH, 18.0)
    axes.set_xlim(0.0, WIDTH)
    axes.set_ylim(18.0, 0.0)
    words = "the row's value: low"
    x = max(0.0, left - 40.0)
    sheet.text(x, 8.0, words, colour=MUTED, size=SMALL)
    x += text_width(words, SMALL) + 4.0
    for colour, marker in zip(RANKS, RANK_MARKERS, strict=True):
        axes.plot([x], [8.0], marker, color=colour, markersize=6.0, markeredgewidth=0)
        x += 11.0
    sheet.text(x, 8.0, "high", colour=MUTED, size=SMALL)


# ---- pairs of texts ------------------------------------------------------------------------------------------------

_PAIR = 48.0


def pairs(figure: Figure) -> Sheet:
    """A bar per pair of texts, to either side of zero, with the differing words above it and the text."""
    points = [(str(x), y) for s in figure.series for x, y in zip(s.x, s.y, strict=False)]
    reach = max([abs(y) for _, y in points if y is not None and math.isfinite(y)], default=0.0) or 1.0
    bottom, right = _PAIR * len(points) + 4.0, WIDTH - 52.0
    sheet, middle = Sheet(bottom + FOOT), right / 2.0
    canvas = sheet.canvas()
    for tick in ticks(-reach, reach):
        x = middle + tick / reach * middle
        sheet.text(x, bottom + 10.0, f"{tick:g}", align="center", colour=MUTED, size=SMALL)
        for top in [_PAIR * i for i in range(len(points))]:
            sheet.line([x, x], [top + 30.0, top + 43.0], colour=MUTED if tick == 0.0 else GRID)
    for i, (name, y) in enumerate(points):
        top = _PAIR * i
        words, _, sentence = name.partition(BESIDE)
        sheet.text(0.0, top + 9.0, fitting(words, WIDTH / 1.06), bold=True)
        sheet.text(0.0, top + 23.0, fitting(sentence, WIDTH, SMALL), colour=MUTED, size=SMALL)
        if y is not None and math.isfinite(y):
            end = middle + y / reach * middle
            canvas.barh([top + 36.5], [end - middle], left=middle, height=9.0, color=SERIES[int(y < 0.0)], linewidth=0)
        sheet.text(WIDTH - 1.0, top + 36.5, signed(y), align="right", size=SMALL)
    sheet.text(middle, bottom + 27.0, fitting(figure.y_label, WIDTH), align="center", colour=MUTED)
    return sheet
