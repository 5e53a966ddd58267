"""Figures in the format of earlier records, needed to verify old evidence.

A figure of rates for each probe and method rather than one for each set of features, and the gaps first.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.judging.figure_types import Figure
from auditor.judging.judgement import Judgement
from auditor.judging.measurement import ProbeResult
from auditor.report.drawing.figure_data import Point, gather
from auditor.report.drawing.figures import bars, by_probe, curves, distinct, forests, points_of
from auditor.report.drawing.group_figures import MOST_GROUPS, MOST_ROWS, lines_through, rates_figure


def figures_as_before(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Figure]:
    """The output of :func:`~auditor.report.drawing.figures.figures_of` before groups had separate figures."""
    points = points_of(findings)
    figures = forests(points)
    for probe, own, drawn in by_probe(points, results):
        figures += [*_rates(probe, own), *bars(probe, own), *map(_without_features, curves(probe, own)), *drawn]
    return distinct(figures)


def _rates(probe: str, points: Sequence[Point]) -> list[Figure]:
    groups = [p for p in points if p.measurement.group and not p.measurement.at]
    figures: list[Figure] = []
    by_features = gather(groups, lambda p: (p.measurement.method, tuple(p.measurement.group)))
    for (method, features), own in by_features.items():
        lines = lines_through(points, features, own)
        by_metric = gather(own, lambda p: p.measurement.metric)
        together = [m for m, ps in by_metric.items() if all(p.in_unit_range for p in ps)]
        apart = [[m] for m in by_metric if m not in together]
        n_groups = min(max(len(by_metric[m]) for m in by_metric), MOST_GROUPS)
        panels = [together] if n_groups * len(together) <= MOST_ROWS else [[m] for m in together]
        for metrics in [p for p in panels if p] + apart:
            name = "" if metrics == together and not apart else "+".join(metrics)
            id_ = "/".join(part for part in (probe, "rates", method, "+".join(features), name) if part)
            panel = {m: by_metric[m] for m in metrics}
            figures.append(_without_features(rates_figure(id_, probe, features, panel, lines, ())))
    return figures


def _without_features(figure: Figure) -> Figure:
    return figure.model_copy(update={"features": ()})
