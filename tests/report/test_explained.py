"""The figures that explain, in every rendering: complete, escaped, readable without colour, without eyes, and small."""

from __future__ import annotations

import base64
import io
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest

from auditor.core.errors import DataError
from auditor.judging import png
from auditor.judging.figure_types import (
    LONGEST_WORD,
    MOST_DOTS,
    MOST_HEATMAPS,
    MOST_METHODS,
    MOST_PIXELS,
    MOST_SWARMS,
    MOST_TEXTS,
    MOST_WORDS,
    ColouredText,
    Figure,
    Grade,
    GradedMethod,
    GradeTable,
    Heatmap,
    Swarm,
)
from auditor.report.drawing import attribution_plots
from auditor.report.drawing.canvas import AGAINST, FOR, INK
from auditor.report.drawing.figure_data import scale_of, strength
from auditor.report.drawing.svg import draw_png, draw_svg, svg_file
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from tests.quantifiers import all_of
from tests.report.samples import HOSTILE, explaining, explanations, report_of
from tests.report.test_html import Page, _contrast, _palettes

SVG = "{http://www.w3.org/2000/svg}"
KINDS = ("text", "heatmap", "table", "beeswarm")


def _base64(pixels: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(png.encode(pixels)).decode()


def _figure(kind: str, **content: Any) -> Figure:
    values = {"id": "f", "probe": "p", "kind": kind, "title": "Title", "series": (), "alt": "In words."}
    return Figure.model_validate(values | content)


def _drawn(hostile: bool = False) -> list[Figure]:
    return [f for f in explaining(hostile)]


@pytest.fixture(scope="module")
def html() -> str:
    """The page with one figure of each kind."""
    return render_html(report_of([explanations()]))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    """Its elements."""
    return Page(html)


def _figures_of(html: str) -> dict[str, str]:
    found = re.findall(r"<figure .*?</figure>", html, re.DOTALL)
    return dict(zip(KINDS, found, strict=True))


# ---- the record ----------------------------------------------------------------------------------------------------


def test_every_kind_goes_through_the_record_unchanged() -> None:
    report = report_of([explanations()])
    assert tuple(f.kind for f in report.figures) == KINDS
    again = AuditReport.from_json(report.to_json())
    assert again == report
    assert again.figures[1].heatmaps[0].pixels().shape == (40, 60)


TEXT = {"words": ("a",), "values": (1.0,)}
MAP = {"attribution": _base64(np.zeros((4, 4), np.uint8)), "low": 0.0, "high": 1.0}
SWARM = {"feature": "a", "values": (0.0, 1.0), "ranks": (0, None)}


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        (ColouredText, TEXT | {"values": ()}, "value for each word"),
        (ColouredText, {"words": ("a",) * (MOST_WORDS + 1), "values": (0.0,) * (MOST_WORDS + 1)}, "words of a text"),
        (ColouredText, TEXT | {"words": ("a" * (LONGEST_WORD + 1),)}, "characters of a word"),
        (ColouredText, TEXT | {"values": (float("nan"),)}, "finite"),
        (ColouredText, TEXT | {"title": "t" * 401}, "title"),
        (Heatmap, MAP | {"attribution": "no base64!"}, "base64"),
        (Heatmap, MAP | {"attribution": base64.b64encode(b"GIF89a").decode()}, "PNG"),
        (Heatmap, MAP | {"attribution": _base64(np.zeros((4, 4, 3), np.uint8))}, "grey"),
        (Heatmap, MAP | {"attribution": _base64(np.zeros((MOST_PIXELS + 1, 2), np.uint8))}, "at most"),
        (Heatmap, MAP | {"attribution": "A" * 250_000}, "at most"),
        (Heatmap, MAP | {"picture": _base64(np.zeros((4, 5), np.uint8))}, "cannot lie under"),
        (Heatmap, MAP | {"low": 2.0}, "upwards"),
        (Heatmap, MAP | {"high": float("inf")}, "finite"),
        (Grade, {"value": float("inf")}, "finite"),
        (GradeTable, {"grades": ("a",), "better": (), "methods": ()}, "one for each column"),
        (
            GradeTable,
            {
                "grades": (),
                "better": (),
                "methods": (GradedMethod(method="m", standing="shown", reason="", grades=()),) * (MOST_METHODS + 1),
            },
            "methods of a table",
        ),
        (Swarm, SWARM | {"ranks": (0,)}, "rank for each"),
        (Swarm, SWARM | {"ranks": (0, 5)}, "must lie in"),
        (Swarm, SWARM | {"values": (1.0, 0.0)}, "ascend"),
        (Swarm, {"feature": "a", "values": (0.0,) * (MOST_DOTS + 1), "ranks": (0,) * (MOST_DOTS + 1)}, "dots"),
    ],
)
def test_content_beyond_its_limits_is_refused(kind: type[Any], content: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        kind(**content)


@pytest.mark.parametrize(
    ("name", "one", "most"),
    [
        ("texts", ColouredText(**TEXT), MOST_TEXTS),
        ("heatmaps", Heatmap(**MAP), MOST_HEATMAPS),
        ("swarms", Swarm(**SWARM), MOST_SWARMS),
    ],
)
def test_a_figure_shows_so_many_and_no_more(name: str, one: object, most: int) -> None:
    def figure(n: int) -> Figure:
        content: dict[str, Any] = {name: (one,) * n}
        return Figure(id="f", probe="p", kind="text", title="t", series=(), alt="a", **content)

    record = figure(most).model_dump()
    with pytest.raises(ValueError, match=f"at most {most} {name}, not {most + 1}"):
        figure(most + 1)
    with pytest.raises(ValueError, match="at most"):
        Figure.model_validate(record | {name: [*record[name], record[name][0]]})


def test_a_record_with_a_broken_picture_is_refused() -> None:
    report = report_of([explanations()])
    broken = report.to_json().replace(report.figures[1].heatmaps[0].attribution, "AAAA")
    with pytest.raises(DataError, match="not a report of schema"):
        AuditReport.from_json(broken)


# ---- drawings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", [False, True])
def test_every_kind_draws_cleanly(hostile: bool) -> None:
    links: list[str] = []
    for i, figure in enumerate(_drawn(hostile)):
        svg = draw_svg(figure, dom_id=f"figure-{i}")
        root = ElementTree.fromstring(svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-labelledby"].split() == [root[0].attrib["id"], root[1].attrib["id"]]
        assert root[0].text == number_text.visible(figure.title) and root[1].text == number_text.visible(figure.alt)
        assert "style=" not in svg and "xlink" not in svg and "nan" not in _without_pictures(svg).lower()
        assert not [e for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "a", "foreignObject")]
        links += [value for e in root.iter() for key, value in e.attrib.items() if key.endswith("href")]
        assert draw_svg(figure, dom_id=f"figure-{i}") == svg
        assert len(svg) < 150_000
    assert all_of(v.startswith(("#figure-", "data:image/png;base64,")) for v in links)


def _without_pictures(svg: str) -> str:
    return re.sub(r"base64,[^\"]*", "", svg)


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_without_content_is_drawn(kind: str) -> None:
    assert ElementTree.fromstring(draw_svg(_figure(kind), dom_id="f")).attrib["role"] == "img"
    assert draw_png(_figure(kind)).startswith(b"\x89PNG")


@pytest.mark.parametrize("hostile", [False, True])
def test_a_figure_is_a_file_of_its_own(hostile: bool) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for figure in _drawn(hostile):
        root = ElementTree.fromstring(svg_file(figure))
        width, height = (float(root.attrib[k]) for k in ("width", "height"))
        assert root[2].tag == f"{SVG}rect" and root[2].attrib["fill"] == "#ffffff"
        picture = image.open(io.BytesIO(draw_png(figure)))
        assert picture.size == pytest.approx((2 * width, 2 * height), abs=2)
        assert np.asarray(picture.convert("RGB")).std() > 5.0


def test_a_png_shows_the_words_and_not_their_tokens() -> None:
    t = ColouredText(words=("T0",), values=(None,))
    a, b = (draw_png(_figure("text", texts=(t, ColouredText(words=(w,), values=(None,))))) for w in ("$x^2$", "T1"))
    assert a != b


def test_the_overlay_is_the_scale_over_the_picture_in_grey() -> None:
    colourful = np.zeros((1, 2, 3), np.uint8)
    colourful[..., 0] = 255
    values = np.array([[0, 255]], np.uint8)
    shown = Heatmap(attribution=_base64(values), picture=_base64(colourful), low=0.0, high=1.0)
    grey = 0.299
    low, high = (np.array(c) for c in ((0.267, 0.005, 0.329), (0.993, 0.906, 0.144)))
    expected = np.stack([0.35 * low + 0.65 * grey, 0.85 * high + 0.15 * grey])
    assert attribution_plots.overlay(shown)[0] / 255.0 == pytest.approx(expected, abs=0.004)
    alone = Heatmap(attribution=_base64(values), low=0.0, high=1.0)
    assert attribution_plots.overlay(alone)[0] / 255.0 == pytest.approx(np.stack([low, high]), abs=0.004)


def test_the_scale_grows_lighter_all_the_way_with_and_without_colour_vision() -> None:
    grey = np.arange(256, dtype=np.uint8)[None, :]
    colours = (
        attribution_plots.overlay(Heatmap(attribution=_base64(grey[:, :MOST_PIXELS]), low=0.0, high=1.0))[0] / 255.0
    )
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    # Viénot, Brettel and Mollon 1999: what a deuteranope sees of linear RGB.
    deuteranope = linear @ np.array([[0.2920, 0.7080, 0.0], [0.2920, 0.7080, 0.0], [-0.0223, 0.0223, 1.0]]).T
    for seen in (linear, deuteranope):
        luminance = seen @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(luminance) > -2e-3).all() and luminance[-1] > luminance[0] + 0.4


def test_the_scale_of_a_map_has_its_numbers() -> None:
    shown = Heatmap(attribution=_base64(np.zeros((4, 4), np.uint8)), low=0.0, high=0.5, title="one")
    svg = draw_svg(_figure("heatmap", heatmaps=(shown,), y_label="per pixel"), dom_id="f")
    texts = [e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"0", "0.250", "0.500", "one", "per pixel", "The picture is not shown."} <= set(texts)


def test_dots_lie_where_their_values_are_and_no_two_cover_each_other() -> None:
    values = tuple(sorted([0.0, 0.001, 0.002, 1.0, -1.0]))
    swarm = Swarm(feature="a", values=values, ranks=(0, 1, 2, 3, 4))
    svg = draw_svg(_figure("beeswarm", swarms=(swarm,)), dom_id="f")
    uses = [e for e in ElementTree.fromstring(svg).iter(f"{SVG}use") if "f-r1" not in e.attrib.get("class", "")]
    assert len(uses) >= 5
    dots = attribution_plots._dots(swarm, [100.0, 200.0, 200.1, 200.2, 300.0])
    assert [x for x, _, _ in dots] == [100.0, 200.0, 200.1, 200.2, 300.0]
    assert len({dy for _, dy, _ in dots[1:4]}) == 3
    crowd = Swarm(feature="a", values=(0.0,) * MOST_DOTS, ranks=(None,) * MOST_DOTS)
    offsets = sorted(dy for _, dy, _ in attribution_plots._dots(crowd, [100.0] * MOST_DOTS))
    assert len(set(offsets)) == MOST_DOTS and max(map(abs, offsets)) <= attribution_plots._SWARM / 2


# ---- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "level"),
    [(2.0, 4), (1.51, 4), (1.5, 3), (0.99, 2), (0.2, 1), (0.09, 0), (0.0, 0), (None, 0), (-0.2, -1), (-2.0, -4)],
)
def test_a_word_is_as_strong_as_its_share_of_the_largest(value: float | None, level: int) -> None:
    assert strength(value, 2.0) == level
    assert strength(value, 0.0) == 0


def test_all_texts_share_one_scale() -> None:
    texts = (ColouredText(words=("a",), values=(-3.0,)), ColouredText(words=("b",), values=(1.0,)))
    assert scale_of(texts) == 3.0 and scale_of(()) == 0.0


def test_words_are_coloured_and_said(html: str) -> None:
    own = _figures_of(html)["text"]
    figure = _drawn()[0]
    spans = re.findall(r'<span class="w( [pn]\d)?" title="([^"]*)">([^<]*)</span>', own)
    texts = figure.texts
    assert [word for _, _, word in spans] == [w for t in texts for w in t.words]
    for (level, title, word), value in zip(spans, [v for t in texts for v in t.values], strict=True):
        assert title == f"{word}: {number_text.signed(value)}"
        expected = strength(value, scale_of(texts))
        assert level.strip() == (f"{'p' if expected > 0 else 'n'}{abs(expected)}" if expected else "")
    words = Page(f"<div>{own}</div>").words()
    assert figure.alt in words and "undefined" in words
    # Behind it is a table with a row for every word.
    assert own.count("<tr>") == 1 + sum(len(t.words) for t in texts)


def test_the_sign_of_a_word_does_not_rest_on_colour() -> None:
    css = (files("auditor.report") / "templates" / "report.css").read_text(encoding="utf-8")
    assert ".p1, .p2, .p3, .p4 { text-decoration: underline solid; }" in css
    assert ".n1, .n2, .n3, .n4 { text-decoration: underline dotted; }" in css
    t = ColouredText(words=("up", "down"), values=(1.0, -1.0))
    root = ElementTree.fromstring(draw_svg(_figure("text", texts=(t,)), dom_id="f"))
    lines = [e for e in root.iter(f"{SVG}path") if e.attrib.get("class") == "s-ink"]
    dashed = ["stroke-dasharray" in e.attrib for e in lines]
    # Two of the key, then two of the text.
    assert dashed == [True, False, False, True]


@pytest.mark.parametrize("palette", list(_palettes()), ids=["light", "dark", "print"])
def test_words_keep_their_contrast_on_every_ground(palette: dict[str, str]) -> None:
    for side in ("for", "against"):
        grounds = [palette[f"{side}{i}"] for i in range(1, 5)]
        assert all_of(_contrast(palette["ink"], ground) >= 4.5 for ground in grounds)
        apart = [_contrast(palette["paper"], ground) for ground in grounds]
        assert all_of(b > a * 1.08 for a, b in pairwise([1.0, *apart])), apart
    for i in range(6):
        assert _contrast(palette[f"fig-r{i}"], palette["paper"]) >= 3.0


def test_words_keep_their_contrast_in_a_file() -> None:
    assert all_of(_contrast(INK, ground) >= 4.5 for ground in (*FOR, *AGAINST))


# ---- the page ------------------------------------------------------------------------------------------------------


def test_a_page_with_pictures_may_show_its_own_and_no_others(html: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy and "img-src data:;" in policy.group(1) and "default-src" in policy.group(1)
    assert "img-src data:" not in render_html(report_of([]))
    assert set(re.findall(r'href="(data:[^,]*),', html)) == {"data:image/png;base64"}


def test_structure_for_those_who_do_not_see_it(page: Page, html: str) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    labels = [i for _, a in page.elements for i in (a.get("aria-labelledby") or "").split()]
    assert set(labels) <= set(ids)
    assert all_of("scope" in a for tag, a in page.elements if tag == "th")
    assert all_of(not {"style", "onclick"} & set(a) for _, a in page.elements)
    assert all_of(b - a <= 1 for a, b in pairwise(page.headings))
    words = page.words()
    for figure in _drawn():
        assert figure.alt in words and figure.caption in words
    assert 'aria-hidden="true"><span class="key"><span class="w n3">' in html


def test_the_table_of_grades_has_every_grade_its_interval_and_the_reason(html: str) -> None:
    own = _figures_of(html)["table"]
    page = Page(f"<div>{own}</div>")
    roles = [a.get("role") for _, a in page.elements]
    assert roles.count("row") == 8 and roles.count("columnheader") == 6 and roles.count("cell") == 42
    words = page.words()
    for expected in (
        "higher is better",
        "lower is better",
        "0.310 0.200 to 0.400",
        "no gradient",
        "−0.100",
        "shown, with reservations",
        "shown by request, unearned",
        "refused",
        "ranked behind",
        "for comparison",
        "hardly changes when the parameters",
    ):
        assert expected in words
    assert "neither" not in words


def test_hostile_content_never_becomes_markup() -> None:
    report = report_of([explanations(hostile=True)], hostile=True)
    html = render_html(report)
    page = Page(html)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1 and "img" not in tags and "b" not in tags
    assert not set("\u202e\u2066\x00\x07\x1b") & set(html)
    for name in HOSTILE[:8]:
        shown = number_text.visible(name)
        assert re.sub(r"[ \n\t]+", " ", shown[:40]) in page.words()
    markdown = render_markdown(report)
    assert "<script" not in re.sub(r"`+.*?`+|\\<script", "", markdown)
    assert not set("\u202e\u2066\x00\x07\x1b") & set(markdown)


def test_the_markdown_says_what_the_figures_show() -> None:
    markdown = render_markdown(report_of([explanations()]))
    assert "`here` +1.80" in markdown and "row 1: scored +1.74" in markdown
    assert "| `method_1` | shown, with reservations | comprehensiveness 0.310 (0.200 to 0.400); parameter" in markdown
    assert "Half of what speaks for it lies in" in markdown
    assert "Mean absolute contributions, largest first: feature\\_0" in markdown


def test_eight_photographs_make_a_page_of_a_few_megabytes() -> None:
    rng = np.random.default_rng(0)
    side = MOST_PIXELS
    # Smooth with a little noise, as photographs are.
    ramp = np.linspace(0, 200, side)[:, None, None] + rng.normal(0, 6, (side, side, 3))
    shown = Heatmap(
        attribution=_base64(np.tile(np.arange(side, dtype=np.uint8), (side, 1))),
        picture=_base64(np.clip(ramp, 0, 255).astype(np.uint8)),
        low=0.0,
        high=1.0,
    )
    report = report_of([]).model_copy(update={"figures": (_figure("heatmap", heatmaps=(shown,) * MOST_HEATMAPS),)})
    assert len(report.to_json()) < 2_000_000
    assert len(render_html(report)) < 4_000_000


# ---- files ---------------------------------------------------------------------------------------------------------


def test_report_writes_every_figure_as_a_file(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cli.commands import app

    (tmp_path / "report.json").write_text(report_of([explanations(hostile=True)]).to_json(), encoding="utf-8")
    folder = tmp_path / "figures"
    arguments = ["report", str(tmp_path), "--figures", str(folder), "--figure-format"]
    done = CliRunner().invoke(app, [*arguments, "svg,png"])
    assert done.exit_code == 0, done.output
    names = sorted(p.name for p in folder.iterdir() if p.name != ".auditor-written.json")
    assert names == sorted(
        f"{i:02d}-feature-attribution-{kind}.{suffix}"
        for i, kind in enumerate(
            (
                "text-integrated-gradients",
                "heatmap-integrated-gradients",
                "table-methods",
                "beeswarm-integrated-gradients",
            ),
            1,
        )
        for suffix in ("png", "svg")
    )
    assert all_of(str(folder / name) in done.output for name in names)
    wrong = CliRunner().invoke(app, [*arguments, "pgn"])
    assert wrong.exit_code == 2 and "did you mean 'png'" in wrong.output
