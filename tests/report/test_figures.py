"""The figures: the findings' own numbers, drawn safely."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.figure_types import Figure, Series
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.report.drawing.canvas import CLASSES, WIDTH
from auditor.report.drawing.figures import MOST_BARS, MOST_GROUPS, figures_of
from auditor.report.drawing.plots import FOREST
from auditor.report.drawing.svg import draw_svg
from auditor.report.record.number_text import confidence, visible
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from tests.quantifiers import all_of
from tests.report.samples import HOSTILE, all_results, attribution, criteria, privacy, robustness

OF_GROUPS = ("confusion", "calibration", "scores", "threshold", "judged", "trend")
SVG = "{http://www.w3.org/2000/svg}"


def _judged(results: list[ProbeResult]) -> tuple[list[Judgement], list[Figure]]:
    findings, _ = judge(results, criteria(), Family())
    return findings, figures_of(findings, results)


def _record(kind: str = "rates", **changes: object) -> Figure:
    series = Series(name="rate", x=("a", "b"), y=(0.2, 0.4), low=(0.1, 0.3), high=(0.3, 0.5))
    values: dict[str, object] = {
        "id": "f",
        "probe": "p",
        "kind": kind,
        "title": "Title",
        "series": (series,),
        "alt": "In words.",
    }
    return Figure.model_validate(values | changes)


def _texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# ---- the data of the figures ---------------------------------------------------------------------------------------


def test_there_is_a_figure_of_every_kind_and_ids_are_distinct() -> None:
    _, figures = _judged(all_results())
    assert {f.kind for f in figures} == {"rates", "confusion", "bars", "curve", "roc", "forest"}
    assert len({f.id for f in figures}) == len(figures)
    assert [f.id for f in figures if f.kind == "rates"] == [
        "group_fairness/rates/sex",
        "group_fairness/rates/race",
        "group_fairness/rates/sex+race",
        "group_fairness/rates/region",
    ]


def test_intervals_are_those_of_the_findings() -> None:
    findings, figures = _judged(all_results())
    figure = next(f for f in figures if f.id == "group_fairness/rates/sex")
    drawn = next(s for s in figure.series if s.name == "selection_rate")
    own = [f for f in findings if f.measurement and f.measurement.metric == "selection_rate"]
    for group, low, high in zip(drawn.x, drawn.low, drawn.high, strict=True):
        finding = next(f for f in own if f.measurement and dict(f.measurement.group) == {"sex": group})
        assert finding.interval == (low, high)
        assert finding.confidence is not None
        assert f"at {confidence(finding.confidence)} confidence" in figure.alt
        assert f"at {confidence(finding.confidence)} confidence" in figure.caption


def test_the_line_lies_where_the_values_would_reach_the_bound() -> None:
    _, figures = _judged(all_results())
    figure = next(f for f in figures if f.id == "group_fairness/rates/sex")
    lines = {s.name: s.criterion for s in figure.series}
    highest = {s.name: max(y for y in s.y if y is not None) for s in figure.series}
    # The ratio's 0.8 x 0.64 = 0.512 lies below the difference's 0.64 - 0.10 = 0.54: the tighter one is drawn.
    assert lines["selection_rate"] == pytest.approx(highest["selection_rate"] - 0.1)
    assert lines["true_positive_rate"] == pytest.approx(highest["true_positive_rate"] - 0.1)
    assert lines["accuracy"] is None
    assert "demographic_parity_difference and equalized_odds_difference" in figure.caption


def test_a_criterion_on_the_groups_themselves_is_drawn_as_it_stands() -> None:
    group = {"sex": "f"}
    rate = Measurement(metric="accuracy", estimate=Proportion(successes=80, n=100), n_samples=100, group=group)
    floor = Criterion(
        metric="accuracy", direction="at_least", bound=0.7, source="s", set_by="b", set_at="t", group=group
    )
    results = [ProbeResult(probe="p", pillar="fairness", citation="", measurements=(rate,))]
    findings, _ = judge(results, [floor])
    (figure,) = figures_of(findings, results)
    assert figure.series[0].criterion == 0.7


def test_an_undefined_rate_is_none_and_is_said_so() -> None:
    _, figures = _judged(all_results())
    figure = next(f for f in figures if f.id == "group_fairness/rates/sex+race")
    at = figure.series[0].x.index("female × Hispanic")
    assert figure.series[0].y[at] is None
    assert "female × Hispanic undefined" in figure.alt


def test_the_forest_has_every_gap_with_its_own_interval_and_requirement() -> None:
    findings, figures = _judged(all_results())
    forests = {f.title: f for f in figures if f.kind == "forest"}
    assert set(forests) == {"All differences between groups", "All ratios between groups"}
    for title, word, ideal in (("differences", "difference", 0.0), ("ratios", "ratio", 1.0)):
        figure = forests[f"All {title} between groups"]
        headlines = [
            f
            for f in findings
            if f.measurement
            and word in f.measurement.metric.split("_")
            and f.measurement.sensitive
            and not f.measurement.group
        ]
        known = [f for f in headlines if f.measurement and math.isfinite(f.measurement.estimate.value)]
        drawn = {
            (s.name.partition(",")[0], x): (y, low, high, s.criterion)
            for s in figure.series
            for x, y, low, high in zip(s.x, s.y, s.low, s.high, strict=True)
        }
        assert len(drawn) == len(known) >= 3
        for finding in known:
            m = finding.measurement
            assert m is not None and finding.interval is not None and m.ideal == ideal
            bound = finding.criterion.bound if finding.criterion else None
            key = (f"by {' × '.join(m.sensitive)}", m.metric.replace("_", " "))
            assert drawn[key] == (m.estimate.value, *finding.interval, bound)
        missing = len(headlines) - len(known)
        assert missing and f"{missing} undefined, or on another scale" in figure.caption


def test_the_forest_keeps_the_ideal_value_on_its_axis_and_a_line_per_requirement() -> None:
    series = Series(
        name="by sex", x=("a", "b"), y=(0.5, 0.6), low=(0.4, 0.5), high=(0.6, 0.7), criterion=0.1, criterion_label="x"
    )
    svg = draw_svg(_record("forest", series=(series, series)), dom_id="f")
    texts = _texts(svg)
    assert texts.count("x") == 2 and "0" in texts and texts.count("by sex") == 2


def test_fewer_than_three_gaps_make_no_forest() -> None:
    _, figures = _judged([privacy(), robustness(), attribution(3)])
    assert not [f for f in figures if f.kind == "forest"]


def test_the_largest_bars_are_shown_and_the_rest_counted() -> None:
    _, figures = _judged([attribution(26)])
    (figure,) = figures
    (series,) = figure.series
    assert len(series.x) == MOST_BARS
    assert list(series.y) == sorted(series.y, key=lambda y: -(y or 0.0))
    assert "the other 6 are" in figure.alt
    assert series.x[0] == "debt_to_income_ratio"


def test_many_groups_keep_their_extremes() -> None:
    rates = [
        Measurement(
            metric="selection_rate",
            estimate=Proportion(successes=100 + i, n=400),
            n_samples=400,
            group={"postcode": f"z{i}"},
        )
        for i in range(50)
    ]
    results = [ProbeResult(probe="p", pillar="fairness", citation="", measurements=tuple(rates))]
    findings, _ = judge(results, [])
    (figure,) = figures_of(findings, results)
    assert len(figure.series[0].x) == MOST_GROUPS
    assert {"z0", "z14", "z35", "z49"} <= set(figure.series[0].x)
    assert "20 groups between the extremes are not drawn" in figure.caption


def test_curves_run_along_their_coordinate_and_two_thresholds_are_no_curve() -> None:
    _, figures = _judged([privacy(), robustness()])
    assert [f.kind for f in figures] == ["roc", "curve"]
    curve = figures[1]
    assert {s.name for s in curve.series} == {"accuracy_under_noise", "flip_rate"}
    assert all_of(list(s.x) == [0.0, 0.05, 0.1, 0.2, 0.4] for s in curve.series)


def test_a_probes_own_figure_is_taken_once_and_made_finite() -> None:
    figure = Figure(
        id="roc",
        probe="p",
        kind="roc",
        title="t",
        series=(Series(name="s", x=(0.1, math.nan, 1.0), y=(math.inf, 0.5, 1.0)),),
        alt="a",
        criterion=math.nan,
    )
    rows = tuple(
        Measurement(metric=m, estimate=Undefined(reason="none"), n_samples=0, figure=figure) for m in ("a", "b")
    )
    results = [ProbeResult(probe="p", pillar="privacy", citation="", measurements=rows)]
    findings, _ = judge(results, [])
    (taken,) = figures_of(findings, results)
    assert taken.series[0].x == (0.1, 1.0)
    assert taken.series[0].y == (None, 1.0)
    assert taken.criterion is None


# ---- the drawing ---------------------------------------------------------------------------------------------------


def test_every_sample_figure_draws_cleanly() -> None:
    _, figures = _judged(all_results(hostile=True))
    ids: list[str] = []
    for i, figure in enumerate(figures):
        svg = draw_svg(figure, dom_id=f"figure-{i}")
        root = ElementTree.fromstring(svg)
        ids += [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
        assert root.attrib["role"] == "img"
        width = FOREST if figure.kind == "forest" else WIDTH
        assert root.attrib["viewBox"].startswith(f"0 0 {width:g} ")
        assert "width" not in root.attrib and "height" not in root.attrib
        assert [e.tag for e in root][:2] == [f"{SVG}title", f"{SVG}desc"]
        assert root.attrib["aria-labelledby"].split() == [root[0].attrib["id"], root[1].attrib["id"]]
        assert "style=" not in svg and "<style" not in svg and "xlink" not in svg and "http" not in svg[60:200]
    assert len(ids) == len(set(ids))


def test_the_same_figure_gives_the_same_text() -> None:
    first, again = (draw_svg(_record(), dom_id="f") for _ in range(2))
    assert first == again


def test_references_point_at_ids_of_the_figure() -> None:
    svg = draw_svg(_record(), dom_id="fig-7")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert used and all_of(name.startswith("fig-7-") for name in used)
    assert used <= set(re.findall(r' id="([^"]+)"', svg))


def test_every_colour_is_a_class_too() -> None:
    svg = draw_svg(_record(series=(_record().series[0],) * 6), dom_id="f")
    for element in ElementTree.fromstring(svg).iter():
        for name in ("fill", "stroke"):
            colour = element.attrib.get(name, "none")
            if colour != "none":
                assert f"{name[0]}-{CLASSES[colour]}" in element.attrib["class"].split()


@pytest.mark.grid
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["rates", "bars", "forest", *OF_GROUPS])
def test_hostile_names_are_text_and_nothing_else(name: str, kind: str) -> None:
    series = Series(name=name, x=(name, "b"), y=(0.2, None), criterion=0.3, criterion_label=name)
    svg = draw_svg(_record(kind, title=name, alt=name, series=(series, series), x_label=name), dom_id="f")
    root = ElementTree.fromstring(svg)
    assert root[0].text == visible(name) and root[1].text == visible(name)
    assert not [e.tag for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "img", "a", "foreignObject")]
    assert all_of(len(text) <= (40 if kind == "bars" else 64) for text in _texts(svg))
    assert any(visible(name)[:8] in text for text in _texts(svg))


@pytest.mark.grid
@pytest.mark.parametrize("kind", ["rates", "bars", "curve", "roc", "forest", *OF_GROUPS])
@pytest.mark.parametrize(
    "series",
    [
        (),
        (Series(name="empty", x=(), y=()),),
        (Series(name="undefined", x=("a", "b"), y=(None, None)),),
        (Series(name="short", x=("a", "b", "c"), y=(0.1,), low=(0.3,), high=(0.2,)),),
        (Series(name="numbers", x=(0.0, 0.5, 1.0), y=(0.0, 0.5, 1.0)),),
        (Series(name="one", x=(0.5,), y=(0.5,)),),
        (Series(name="far", x=(1e-300, 1e300), y=(-1e300, 1e12), low=(-1e308, None), high=(1e308, None)),),
        (Series(name="flat", x=(3.0, 3.0), y=(7.0, 7.0)),),
        (Series(name="negative", x=(-2.0, 5.0), y=(-0.3, -0.1)),),
    ],
)
def test_odd_figures_of_a_record_are_drawn(kind: str, series: tuple[Series, ...]) -> None:
    svg = draw_svg(_record(kind, series=series, criterion=0.1), dom_id="f")
    assert "nan" not in svg.lower() and "inf" not in svg.lower()


def test_roc_has_logarithmic_axes_and_the_chance_line() -> None:
    series = Series(name="attack", x=(0.001, 0.01, 0.1, 1.0), y=(0.002, 0.02, 0.2, 1.0))
    texts = _texts(draw_svg(_record("roc", series=(series,)), dom_id="f"))
    assert {"0.001", "0.01", "0.1", "1", "chance", "attack"} <= set(texts)


def test_the_criterion_is_a_labelled_line() -> None:
    series = Series(name="rate", x=("a", "b"), y=(0.2, 0.4), criterion=0.3, criterion_label="highest − 0.1")
    svg = draw_svg(_record(series=(series,)), dom_id="f")
    assert "highest − 0.1" in _texts(svg)
    dashed = [e for e in ElementTree.fromstring(svg).iter() if "stroke-dasharray" in e.attrib]
    assert [e.attrib["class"] for e in dashed] == ["s-bound"]
