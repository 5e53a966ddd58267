"""Figures of a record with values that none of its findings has."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from auditor.evidence.manifest import canonical
from auditor.judging.figure_types import Figure

# Numbers are computed on another machine: what they are rounded to, and by how much they may differ before.
_DIGITS, _SLACK, _NOTHING = ".4g", 2e-6, 1e-12
_BLANK = canonical([[], [], None, []])
_Point = tuple[float | None, ...]


def strange_figures(said: Iterable[Figure], drawn: Sequence[Figure]) -> list[str]:
    """The ids of figures with a point, bound or image that no redrawn figure in ``drawn`` has."""
    points = {key for figure in drawn for point in _points(figure) for key in _spellings(point)}
    pictures = {_BLANK, *map(_picture, drawn)}
    return [
        figure.id
        for figure in said
        if _picture(figure) not in pictures or any(_spelled(point) not in points for point in _points(figure))
    ]


def _points(figure: Figure) -> Iterator[_Point]:
    """Each value with the ends of its interval, whatever series it is in, and what is marked on the axes."""
    yield (figure.criterion,)
    yield (figure.marked,)
    for s in figure.series:
        yield (s.criterion,)
        for i, y in enumerate(s.y):
            yield y, *(ends[i] if i < len(ends) else None for ends in (s.low, s.high))


def _spelled(point: _Point) -> tuple[str, ...]:
    return tuple("" if x is None else format(0.0 if abs(x) < _NOTHING else x, _DIGITS) for x in point)


def _spellings(point: _Point) -> set[tuple[str, ...]]:
    """All spellings of the points that differ from this one by rounding."""
    near = ([None] if x is None else [x * (1.0 - _SLACK), x * (1.0 + _SLACK)] for x in point)
    return {_spelled(each) for each in itertools.product(*near)}


def _picture(figure: Figure) -> bytes:
    """What a figure shows beside its series."""
    shown = figure.model_dump(mode="json", include={"texts", "heatmaps", "table", "swarms"})
    return canonical(list(shown.values()))
