"""Figures as data: what a probe wants shown, drawn by the renderings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from auditor.finding.display import MOST_HEATMAPS, MOST_SWARMS, MOST_TEXTS, ColouredText, GradeTable, Heatmap, Swarm

FigureKind = Literal["rates", "bars", "curve", "roc", "forest", "text", "heatmap", "table", "beeswarm"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line or set of bars of a figure: ``y`` against ``x`` (numbers or labels), with intervals where there are any.

    ``criterion``: where the requirement lies on the value axis for this series alone; ``criterion_label`` says it in
    words.
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    name: str
    x: tuple[str | float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    criterion: float | None = None
    criterion_label: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing as data: ``kind`` says how to draw it, ``alt`` what it shows, in words, ``caption`` how to read it.

    ``series`` are drawn by the kinds ``rates``, ``bars``, ``curve``, ``roc`` and ``forest``; each other kind has a
    field of its own: ``text`` shows ``texts``, ``heatmap`` ``heatmaps``, ``table`` ``table``, ``beeswarm`` ``swarms``.
    Raises ValueError where there is more of them than a report shows.
    """

    id: str
    probe: str
    kind: FigureKind
    title: str
    series: tuple[Series, ...]
    alt: str
    x_label: str = ""
    y_label: str = ""
    criterion: float | None = None
    caption: str = ""
    texts: tuple[ColouredText, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()
    table: GradeTable | None = None
    swarms: tuple[Swarm, ...] = ()

    def __post_init__(self) -> None:
        for name, n, most in (
            ("texts", len(self.texts), MOST_TEXTS),
            ("heatmaps", len(self.heatmaps), MOST_HEATMAPS),
            ("swarms", len(self.swarms), MOST_SWARMS),
        ):
            if n > most:
                raise ValueError(f"a figure shows at most {most} {name}, not {n}")
