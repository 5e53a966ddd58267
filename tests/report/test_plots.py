"""Where the parts of a drawing lie: labels beside their marks, axes that hold what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auditor.judging.figure_types import Figure, Series
from auditor.report.drawing import plots
from auditor.report.drawing.canvas import Sheet


def figure(kind: Any, *series: Series) -> Figure:
    return Figure(id="f", probe="p", kind=kind, title="t", series=series, alt="a", x_label="x", y_label="y")


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float, str]]:
    """Every text of a drawing with its place and the side that it is set to."""
    found: list[tuple[str, float, float, str]] = []
    real = Sheet.text

    def text(self: Sheet, x: float, y: float, words: str, *, align: str = "left", **more: Any) -> Any:
        found.append((words, x, y, align))
        return real(self, x, y, words, align=align, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Sheet, "text", text)
    return found


def test_the_name_of_a_rate_stands_beside_the_middle_of_its_marks(
    placed: list[tuple[str, float, float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[tuple[float, float]] = []
    real = plots._interval

    def interval(rows: Any, point: Any, y: float, *more: Any) -> None:
        marks.append((rows.left, y))
        real(rows, point, y, *more)

    monkeypatch.setattr(plots, "_interval", interval)
    long = "the share of all who were told something quite different from what they had been told before"
    groups, rate = ("a", "b", "c"), (0.2, 0.4, 0.3)
    plots.rates(figure("rates", *(Series(name=name, x=groups, y=rate) for name in ("recall", long))))
    assert len(marks) == 6
    left = marks[0][0]
    names = [(words, x, y) for words, x, y, align in placed if align == "right" and x == left - 10.0]
    (one, _, at), *lines = names
    assert one.lower() == "recall" and at == pytest.approx(np.mean([y for _, y in marks[:3]]))
    # Two lines, 13 points apart, with their middle there.
    assert len(lines) == 2
    upper, lower = (y for _, _, y in lines)
    assert lower - upper == pytest.approx(13.0)
    assert (upper + lower) / 2.0 == pytest.approx(np.mean([y for _, y in marks[3:]]))


@pytest.mark.parametrize(
    ("points", "lowest"),
    [
        (((0.02, 0.3), (0.5, 0.9)), 0.01),
        # A power of ten is its own end, whatever its logarithm is rounded to.
        (((0.01, 0.3), (0.5, 0.9)), 0.01),
        (((0.001, 0.3), (0.5, 0.9)), 0.001),
        (((0.0052, 0.3), (0.5, 0.9)), 0.001),
        (((0.4, 0.5), (0.6, 0.9)), 0.1),
        (((1e-9, 0.3), (0.5, 0.9)), 1e-6),
        (((0.0, 0.0),), 0.01),
    ],
)
def test_the_axes_of_a_roc_begin_at_the_power_of_ten_below_its_smallest_rate(
    points: tuple[tuple[float, float], ...], lowest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[Any] = []
    real = plots.plane

    def plane(x_label: str, y_label: str, x_ends: Any, y_ends: Any, **more: Any) -> Any:
        ends.append((x_ends, y_ends))
        return real(x_label, y_label, x_ends, y_ends, **more)

    monkeypatch.setattr(plots, "plane", plane)
    x, y = zip(*points, strict=True)
    plots.roc(figure("roc", Series(name="attack", x=x, y=y)))
    assert ends == [(pytest.approx((lowest, 1.0)), pytest.approx((lowest, 1.0)))]
