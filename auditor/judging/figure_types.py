"""Figures as data: provided by probes, drawn by the report renderings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from auditor.core.files import LEFT_OUT, UNSAID, Closed, Number, finite
from auditor.judging.figure_content import (
    MOST_HEATMAPS,
    MOST_SWARMS,
    MOST_TEXTS,
    ColouredText,
    GradeTable,
    Heatmap,
    Swarm,
)

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
