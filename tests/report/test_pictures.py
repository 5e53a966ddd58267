"""The pictures of groups and judgements: what is drawn is what was counted, once, under the names that people use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pytest

from auditor.judging.budgets import Family
from auditor.judging.figure_types import BESIDE, CELLS, Figure, Series
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, Pillar, ProbeResult
from auditor.report.drawing.canvas import OUTCOME_MARKERS, TONES, WIDTH
from auditor.report.drawing.figures import MOST_CALIBRATED, MOST_CONFUSIONS, figures_of
from auditor.report.drawing.svg import draw_svg, svg_file
from auditor.report.html import render_html, resource
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About, Labels
from auditor.report.record.number_text import visible
from auditor.report.record.translations import Catalogue
from auditor.report.report_figures import MOST_JUDGED, front_and_rest, judged_figure, label_groups, pictures_of, scaled
from auditor.statistics.rates import Proportion
from probes.fairness.score_fairness import calibration_error
from tests.quantifiers import all_of, none_of
from tests.report.samples import HOSTILE, all_results, criteria, sample_report

SVG = "{http://www.w3.org/2000/svg}"


def _rate(metric: str, k: int, n: int, level: str, **also: str) -> Measurement:
    estimate = Proportion(successes=k, n=n)
    return Measurement(metric=metric, estimate=estimate, n_samples=n, group={"sex": level, **also})


def _result(probe: str, *measurements: Measurement, pillar: Pillar = "fairness") -> ProbeResult:
    return ProbeResult(probe=probe, pillar=pillar, citation="", measurements=measurements)


def _figures(results: Sequence[ProbeResult]) -> list[Figure]:
    findings, _ = judge(list(results), criteria(), Family())
    return figures_of(findings, results)


def _texts(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# ---- one picture of a kind for each set of features ----------------------------------------------------------------


def test_rates_of_one_feature_are_one_picture_whichever_probes_measured_them() -> None:
    def of_both(metric: str, f: int, m: int) -> list[Measurement]:
        return [_rate(metric, f, 100, "f"), _rate(metric, m, 100, "m")]

    results = [
        _result("performance", *of_both("accuracy", 80, 90), pillar="performance"),
        _result("group_fairness", *of_both("accuracy", 80, 90), *of_both("selection_rate", 80, 90)),
        _result("adverse_impact", *of_both("selection_rate", 80, 90), *of_both("impact_ratio", 70, 100)),
    ]
    (figure,) = _figures(results)
    assert (figure.id, figure.title, figure.features) == ("group_fairness/rates/sex", "Rates by sex", ("sex",))
    assert [s.name for s in figure.series] == ["selection_rate", "impact_ratio", "accuracy"]
    # What two probes measured otherwise is told apart.
    results[0] = _result("performance", *of_both("accuracy", 70, 60), pillar="performance")
    (figure,) = _figures(results)
    assert {s.name for s in figure.series if "accuracy" in s.name} == {"accuracy", "accuracy, group fairness"}


def test_of_many_groups_as_many_rates_are_drawn_as_have_room_and_the_rest_is_said() -> None:
    metrics = ("selection_rate", "accuracy", "precision", "true_positive_rate")
    measured = [_rate(m, 50 + i, 100, f"g{i}") for m in metrics for i in range(16)]
    figures = [f for f in _figures([_result("group_fairness", *measured)]) if f.kind == "rates"]
    assert [len(f.series) for f in figures] == [2] and "In the tables alone: accuracy, precision." in figures[0].caption


def test_every_set_of_features_has_one_picture_of_rates() -> None:
    titles = [f.title for f in _figures(all_results()) if f.kind == "rates"]
    assert len(titles) == len(set(titles)) == 4


def test_confusion_counts_the_rows_that_the_rates_are_of() -> None:
    rng = np.random.default_rng(7)
    y, decided, group = rng.random(300) < 0.6, rng.random(300) < 0.5, rng.choice(["f", "m"], 300)
    measured = [
        _rate(metric, int((decided & own).sum()), int(own.sum()), g)
        for g in ("f", "m")
        for metric, own in (("true_positive_rate", y & (group == g)), ("false_positive_rate", ~y & (group == g)))
    ]
    figure = next(f for f in _figures([_result("group_fairness", *measured)]) if f.kind == "confusion")
    for i, g in enumerate(("f", "m")):
        own = group == g
        cells = [y & decided, y & ~decided, ~y & decided, ~y & ~decided]
        assert [s.y[i] for s in figure.series] == [float((cell & own).sum()) for cell in cells]
    assert tuple(s.name for s in figure.series) == CELLS and figure.series[0].x == ("f", "m")
    assert f"TP {int((y & decided & (group == 'f')).sum())}" in " ".join(_texts(draw_svg(figure, dom_id="f")))


def test_calibration_has_a_mark_a_bin_and_intervals_that_all_hold_together() -> None:
    rng = np.random.default_rng(8)
    scores = {g: rng.random(400) for g in ("f", "m")}
    favourable = {g: rng.random(400) < own for g, own in scores.items()}
    measured = [
        Measurement(
            metric="expected_calibration_error",
            estimate=calibration_error(scores[g], favourable[g], 10),
            n_samples=400,
            group={"sex": g},
            method="between_groups",
        )
        for g in ("f", "m")
    ]
    figure = next(f for f in _figures([_result("score_fairness", *measured)]) if f.kind == "calibration")
    for series in figure.series:
        place = np.minimum((scores[series.name] * 10).astype(int), 9)
        assert list(series.x) == pytest.approx([scores[series.name][place == b].mean() for b in range(10)])
        assert list(series.y) == pytest.approx([favourable[series.name][place == b].mean() for b in range(10)])
    low, high = figure.series[0].low[0], figure.series[0].high[0]
    n = int((scores["f"] < 0.1).sum())
    k = int((favourable["f"] & (scores["f"] < 0.1)).sum())
    assert (low, high) == pytest.approx(Proportion(successes=k, n=n).bounds(0.05 / 2 / 20))


def test_pictures_of_many_groups_are_bounded_and_say_what_they_leave_out() -> None:
    rng = np.random.default_rng(9)
    measured = []
    for i in range(80):
        scores = rng.random(60 + i)
        measured += [
            _rate("true_positive_rate", 20, 30 + i, f"g{i}"),
            _rate("false_positive_rate", 10, 30, f"g{i}"),
            Measurement(
                metric="expected_calibration_error",
                estimate=calibration_error(scores, scores > 0.5, 10),
                n_samples=60 + i,
                group={"sex": f"g{i}"},
            ),
        ]
    found = {f.kind: f for f in _figures([_result("p", *measured)])}
    assert len(found["confusion"].series[0].x) == MOST_CONFUSIONS
    assert "of 80 groups are drawn" in found["confusion"].caption
    assert len(found["calibration"].series) == MOST_CALIBRATED
    assert f"The {MOST_CALIBRATED} largest of 80 groups are drawn." in found["calibration"].caption
    assert all_of(len(svg_file(label_groups(f, Labels()))) < 60_000 for f in found.values())


# ---- all that was judged -------------------------------------------------------------------------------------------


def _finding(value: float, interval: tuple[float | None, float | None], ideal: float | None, **of: object) -> Finding:
    report = sample_report()
    found = next(f for f in report.findings if f.criterion is not None and f.value is not None)
    assert found.criterion is not None
    bound, direction = of.pop("bound"), of.pop("direction", "at_most")
    required = found.criterion.model_copy(update={"bound": bound, "direction": direction})
    return found.model_copy(update={"value": value, "interval": interval, "ideal": ideal, "criterion": required, **of})


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (_finding(0.2, (0.1, 0.35), 0.0, bound=0.1), (1.0, 2.0, 3.5)),
        (_finding(0.7, (0.6, 0.9), 1.0, bound=0.8, direction="at_least"), (0.5, 1.5, 2.0)),
        (_finding(0.48, (0.4, 0.6), 0.5, bound=0.6), (-1.0, -0.2, 1.0)),
        (_finding(1.1, (0.9, 1.3), 1.0, bound=(0.8, 1.25)), (0.0, 0.4, 1.2)),
        (_finding(0.2, (0.1, None), 0.0, bound=0.1), (1.0, 2.0, float("inf"))),
        (_finding(0.2, (0.1, 0.3), None, bound=0.1), None),
        (_finding(0.2, (0.1, 0.3), 0.0, bound=0.0), None),
    ],
)
def test_a_judged_number_lies_between_its_ideal_and_its_bound(
    finding: Finding, expected: tuple[float, float, float] | None
) -> None:
    assert scaled(finding) == (None if expected is None else pytest.approx(expected))


def test_all_that_was_judged_is_on_one_axis_the_worst_first_and_told_without_colour() -> None:
    report = sample_report()
    figure = pictures_of(report)[0]
    judged = [f for f in report.findings if f.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)]
    drawn = sum(len(s.x) for s in figure.series)
    unplaced = [f for f in judged if f.value is not None and scaled(f) is None]
    assert drawn + len(unplaced) == len([f for f in judged if f.value is not None]) and drawn >= 4
    assert [s.name for s in figure.series] == ["FAIL", "INCONCLUSIVE", "PASS"]
    for series in figure.series:
        assert list(series.y) == sorted(series.y, key=lambda y: -(y or 0.0))
        assert all_of(f"{name.partition(BESIDE)[0]}" in figure.alt for name in map(str, series.x))
    # Whole intervals decide: what PASSes ends before the bound, what FAILs begins beyond it.
    assert all_of(h is not None and h <= 1.0 + 1e-9 for s in figure.series if s.name == "PASS" for h in s.high)
    assert all_of(low is not None and low >= 1.0 - 1e-9 for s in figure.series if s.name == "FAIL" for low in s.low)
    texts = _texts(draw_svg(figure, dom_id="f"))
    assert {"FAIL", "INCONCLUSIVE", "PASS", "ideal", "bound"} <= set(texts)
    assert len(set(OUTCOME_MARKERS.values())) == len(set(TONES.values())) == 3


def test_many_judgements_are_bounded_and_those_left_out_are_counted() -> None:
    report = sample_report()
    one = next(f for f in report.findings if f.outcome is Outcome.FAIL and scaled(f) is not None)
    many = report.model_copy(update={"findings": (one,) * 60})
    figure = judged_figure(many, About().catalogue, lambda f: "")
    assert figure is not None and len(figure.series[0].x) == MOST_JUDGED
    assert f"{60 - MOST_JUDGED} more are in the tables." in figure.caption


def test_the_chief_picture_comes_before_the_tables_in_the_language_of_the_page() -> None:
    report = sample_report().model_copy(update={"about": About(language="de")})
    page = render_html(report)
    assert page.index("Alles Beurteilte auf einer Achse") < page.index('id="numbers"')
    front, rest = front_and_rest(report)
    assert front[0][1].kind == "judged" and {f.kind for _, f in front} == {"judged", "rates", "confusion"}
    assert sorted(i for i, _ in [*front, *rest]) == list(range(1, len(report.figures) + 2))
    # The words on the picture are those of the page, "Ideal" and "Grenze" among them.
    for i, figure in front:
        assert draw_svg(figure, dom_id=f"figure-{i}", words=Catalogue.for_language("de").section("drawn")) in page
    assert ">Ideal</text>" in page and ">ideal</text>" not in page


def test_nothing_judged_makes_no_picture_of_judgements() -> None:
    report = sample_report()
    silent = [f.model_copy(update={"criterion": None, "outcome": Outcome.NOT_JUDGED}) for f in report.findings]
    assert pictures_of(report.model_copy(update={"findings": tuple(silent)}))[0].kind != "judged"


# ---- names ---------------------------------------------------------------------------------------------------------

WORDS = {"sex": "gender", "sex.female": "women", "race": "origin", "region": "part of the country"}


def _called() -> AuditReport:
    return sample_report().model_copy(update={"about": About(labels=WORDS)})


def test_groups_are_named_with_their_feature() -> None:
    figure = next(f for f in pictures_of(sample_report()) if f.kind == "rates" and f.features == ("sex",))
    assert figure.series[0].x == ("sex: female", "sex: male")
    assert {"sex: female", "sex: male"} <= set(_texts(draw_svg(figure, dom_id="f")))
    assert "sex: female" in figure.alt


def test_labels_are_in_every_picture_and_in_its_words() -> None:
    spoken = {"sex": "gender", "race": "origin", "region": "part of the country"}
    for figure in pictures_of(_called()):
        if not figure.features and figure.kind not in ("judged", "forest"):
            continue
        told = " ".join([figure.title, figure.alt, *_texts(draw_svg(figure, dom_id="f"))])
        if figure.features == ("sex",):
            assert figure.series[0].x == ("women (sex = female)", "gender: male")
        assert none_of(re.search(rf"by {raw}\b", told) for raw in ("sex", "race", "region"))
        for feature in figure.features or spoken:
            assert spoken[feature] in told
    both = next(f for f in pictures_of(_called()) if f.features == ("sex", "race") and f.kind == "rates")
    assert "women (sex = female) × origin: Asian" in both.series[0].x and both.title.endswith("by gender × origin")


def test_columns_are_called_so_where_a_figure_is_of_columns() -> None:
    bars = Figure(id="b", probe="p", kind="bars", title="Importance", alt="a", x_label="feature",
                  series=(Series(name="i", x=("sex", "age"), y=(0.2, 0.1)),))  # fmt: skip
    assert label_groups(bars, Labels(WORDS)).series[0].x == ("gender", "age")
    curve = Figure(id="c", probe="ale", kind="curve", title="What sex does to the score", alt="a", x_label="sex",
                   series=(Series(name="sex", x=(0.0, 1.0), y=(0.2, 0.1)),))  # fmt: skip
    told = label_groups(curve, Labels(WORDS))
    assert (told.title, told.x_label, told.series[0].name) == ("What gender does to the score", "gender", "gender")
    assert label_groups(bars, Labels()) is bars and label_groups(curve, Labels()) is curve


def test_hostile_labels_and_levels_are_text() -> None:
    for name in HOSTILE:
        metrics = ("true_positive_rate", "false_positive_rate")
        measured = _result("p", *(_rate(metric, 20, 40, g) for metric in metrics for g in (name, "b")))
        figure = next(f for f in _figures([measured]) if f.kind == "confusion")
        told = label_groups(figure, Labels({"sex": name, f"sex.{name}": name}))
        root = ElementTree.fromstring(draw_svg(told, dom_id="f"))
        assert none_of(e.tag.rpartition("}")[2] in ("script", "img", "a", "foreignObject") for e in root.iter())
        assert any(visible(name)[:6] in (e.text or "") for e in root.iter(f"{SVG}text"))


# ---- cards ---------------------------------------------------------------------------------------------------------


def test_a_card_is_as_wide_as_its_picture() -> None:
    rule = re.search(r"\.figure-svg \{([^}]*)\}", resource("report.css"))
    assert rule is not None and "max-width" not in rule[1] and "width: 100%" in rule[1]
    # One card alone is no wider than one of two.
    assert ":only-child:not(.wide-figure)) { columns: auto; max-width: 36rem; }" in resource("report.css")
    page = render_html(sample_report())
    wide = re.findall(r'<figure class="figure wide-figure">.*?</figure>', page, re.S)
    assert not [card for card in wide if "<svg" in card]
    # Beside each other two cards have room for so many units each at about the size of the text.
    widths = [float(w) for w in re.findall(r'viewBox="0 0 (\d+) \d+" role="img" class="figure-svg"', page)]
    assert widths and max(widths) <= WIDTH + 20.0
