"""The renderings of the record: complete, escaped, self-contained, honest about what is not known."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files

import pytest

from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record import finding_text, number_text
from auditor.report.record.audit_report import AuditReport, Finding, Refusal
from auditor.report.report_figures import pictures_of
from auditor.report.report_view import COUNTED, document_id, promise_of, verdict_of
from auditor.statistics.estimate import Exact
from auditor.statistics.rates import Proportion
from auditor.statistics.significance_tests import Multiplicity
from tests.quantifiers import all_of
from tests.report.record_schema import schema_json, shipped_schema
from tests.report.samples import (
    HOSTILE,
    attribution,
    intake,
    language,
    privacy,
    refused_report,
    report_of,
    sample_report,
    undefined,
)

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr", "path", "use", "rect"}


class Page(HTMLParser):
    """The elements of a page, with a check that they nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.headings: list[int] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.text.append(data)

    def words(self) -> str:
        """All visible text on one line."""
        return _one_line(" ".join(self.text))


def _one_line(words: str) -> str:
    return re.sub(r"[ \n\t]+", " ", words)


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """The sample with all six outcomes."""
    return sample_report()


@pytest.fixture(scope="module")
def html(report: AuditReport) -> str:
    """Its page."""
    return render_html(report)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    """Its elements."""
    return Page(html)


def test_the_sample_has_all_six_outcomes(report: AuditReport) -> None:
    assert min(report.summary.model_dump().values()) > 0
    assert AuditReport.from_json(report.to_json()) == report


# ---- the first screen ----------------------------------------------------------------------------------------------


def test_the_first_screen_says_what_was_audited_and_what_came_of_it(report: AuditReport, html: str) -> None:
    start, end = html.index('<section class="front"'), html.index('<section aria-labelledby="promise"')
    first = Page(f"<div>{html[start:end]}</div>").words()
    for expected in (
        "models/mortgage_approval.pt",
        "9f2c4e1ab7d3",
        "data/hmda_test.csv",
        "Rows 3,660",
        "2026-11-24 09:41",
        f"Do not release on this evidence: {report.summary.fail} of ",
        "Exit code 1",
        "Do next",
        "What could not be said, and what it would take",
        "What did not run",
        "--max-seconds",
        "What was not applicable, and what would enable it",
        "--text",
    ):
        assert expected in first
    for outcome in Outcome:
        assert f"{report.summary.count(outcome)} {outcome.replace('_', ' ')}" in first
    needed = [f.n_required for f in report.findings if f.outcome == "INCONCLUSIVE" and f.n_required]
    assert needed and all_of(f"{n:,}" in first for n in needed)


def test_all_six_counts_are_there_even_when_they_are_zero() -> None:
    words = Page(render_html(refused_report())).words()
    for name in ("PASS", "FAIL", "INCONCLUSIVE", "NOT APPLICABLE", "NOT JUDGED"):
        assert f"0 {name}" in words


def test_a_refusal_says_why_and_what_to_do() -> None:
    report = refused_report()
    words = Page(render_html(report)).words()
    assert "Refused: the model or the data were not accepted" in words
    assert "unsafe_pickle" in words and "--trust-pickle" in words and "This is not a pass" in words
    assert "Exit code 4" in words


def test_nothing_judged_is_not_a_pass() -> None:
    report = report_of([language()])
    assert report.exit_code == 3
    assert "Nothing was judged, and that is not a pass" in Page(render_html(report)).words()


def test_waived_inconclusive_findings_are_said_loudly() -> None:
    report = report_of([undefined()], allow_inconclusive=True)
    report = report.model_copy(update={"exit_code": 0})
    words = Page(render_html(report)).words()
    assert "INCONCLUSIVE findings of performance, fairness" in words
    assert "were waived" in words and "--allow-inconclusive" in words
    assert "Passed" not in verdict_of(report).headline
    assert "waived" in render_markdown(report)


@pytest.mark.parametrize("multiplicity", ["bonferroni", "holm", "by", "bh", "none"])
def test_only_family_wise_methods_go_without_a_banner(multiplicity: Multiplicity) -> None:
    report = report_of([intake(), privacy()], multiplicity=multiplicity)
    banner = "No family-wise claim is made" in Page(render_html(report)).words()
    assert banner is (multiplicity in ("by", "bh", "none"))
    assert ("even one FAIL " in promise_of(report)) is (multiplicity in ("bonferroni", "holm"))


# ---- the whole page ------------------------------------------------------------------------------------------------


def test_every_finding_criterion_and_figure_is_on_the_page(report: AuditReport, page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {f"finding-{i}" for i in range(1, len(report.findings) + 1)} <= set(ids)
    pictures = pictures_of(report)
    assert [f.id for f in pictures] == ["judged", *(f.id for f in report.figures)]
    assert sum(tag == "figure" for tag, _ in page.elements) == len(pictures)
    words = page.words()
    for figure in pictures:
        assert figure.title in words and number_text.visible(figure.alt) in words
    for criterion in report.criteria:
        assert criterion.source in words and criterion.set_by in words and criterion.set_at in words
    for finding in report.findings:
        if "--" not in finding.reason:
            assert finding.reason in words
    for note in (*report.model.notes, *report.data.notes, report.model.loaded_by):
        assert note in words
    assert "Not legal advice" in words
    for role in ("Prepared by", "Reviewed by", "Approved by"):
        assert role in words


def test_links_within_the_page_lead_somewhere(page: Page) -> None:
    ids = {a["id"] for _, a in page.elements if "id" in a}
    targets = [a["href"] or "" for _, a in page.elements if "href" in a]
    assert targets and all_of(t.startswith("#") and t[1:] in ids for t in targets)
    labels = [i for _, a in page.elements for i in (a.get("aria-labelledby") or "").split()]
    assert labels and set(labels) <= ids


def test_structure_for_those_who_do_not_see_it(html: str, page: Page) -> None:
    assert '<html lang="en">' in html
    tags = [tag for tag, _ in page.elements]
    assert tags.count("main") == tags.count("h1") == tags.count("nav") == 1
    assert page.headings[0] == 1
    assert all_of(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert all_of("scope" in a for tag, a in page.elements if tag == "th")
    assert ("a", {"class": "skip", "href": "#main"}) in page.elements


def test_the_document_id_is_the_digest_of_the_record(report: AuditReport, html: str) -> None:
    digest = hashlib.sha256(report.to_json().encode()).hexdigest()
    assert document_id(report) == digest and digest in html


def test_same_record_same_page(report: AuditReport, html: str) -> None:
    assert render_html(AuditReport.from_json(report.to_json())) == html


def _policy(html: str) -> str:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert found is not None
    return found.group(1).replace("&#39;", "'")


def test_the_policy_allows_this_style_and_this_script_alone(html: str) -> None:
    policy = _policy(html)
    assert policy.startswith("default-src 'none'") and "img-src 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (source,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_nothing_is_fetched_and_no_attribute_carries_style_or_script(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "link", "object", "embed", "base", "form")
        assert not {"style", "src", "srcset", "action", "formaction"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]


def test_hostile_names_never_become_markup() -> None:
    report = sample_report(hostile=True)
    html = render_html(report)
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert sum(tag == "script" for tag, _ in page.elements) == 1 and "img" not in tags
    assert not set("\u202e\u2066\x00\x07\x1b") & set(html)
    words = page.words()
    for name in HOSTILE:
        assert _one_line(number_text.visible(name)) in words


def test_undefined_is_said_and_never_a_number(report: AuditReport, html: str) -> None:
    for i, finding in enumerate(report.findings, 1):
        if finding.metric and finding.value is None:
            row = html[html.index(f' id="finding-{i}"') :]
            cell = r"<td[^>]*>(.*?)</td>|<summary>.*<strong>(.*?)</strong>"
            shown = re.findall(cell, row[: min(row.index("</tr>"), row.index("</details>"))], re.DOTALL)
            assert "undefined" in {words for pair in shown for words in pair}


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("2026-11-24T09:41:07+00:00", "24 November 2026, 09:41 UTC"),
        ("2026-11-24T09:41:07Z", "24 November 2026, 09:41 UTC"),
        ("yesterday <b>", "yesterday &lt;b&gt;"),
    ],
)
def test_any_date_is_shown(created: str, shown: str) -> None:
    html = render_html(refused_report().model_copy(update={"created": created}))
    assert shown in html


def test_an_empty_report_renders() -> None:
    report = report_of([]).model_copy(update={"criteria": (), "findings": ()})
    assert "No criterion was set" in Page(render_html(report)).words()


def test_five_hundred_findings_are_light_and_quick() -> None:
    rates = [
        Measurement(
            metric=("selection_rate", "true_positive_rate", "false_positive_rate", "accuracy")[i % 4],
            estimate=Proportion(successes=40 + i % 7, n=100),
            n_samples=100,
            group={"sex": "fm"[i % 2], "postcode": f"z{i // 8}"},
        )
        for i in range(420)
    ]
    results = [
        ProbeResult(probe="group_fairness", pillar="fairness", citation="c", measurements=tuple(rates)),
        attribution(80),
        privacy(),
    ]
    report = report_of(results)
    assert len(report.findings) >= 500
    render_html(refused_report())
    start = time.process_time()
    html = render_html(report)
    assert time.process_time() - start < 2.0
    assert len(html.encode()) < 3_000_000


# ---- colours -------------------------------------------------------------------------------------------------------


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(a: str, b: str) -> float:
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _palettes() -> Iterator[dict[str, str]]:
    css = (files("auditor.report") / "templates" / "report.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


@pytest.mark.parametrize("palette", list(_palettes()), ids=["light", "dark", "print"])
def test_text_has_contrast_aa_and_figures_three_to_one(palette: dict[str, str]) -> None:
    for ground in ("page", "paper", "soft"):
        for ink in ("ink", "muted", "link"):
            assert _contrast(palette[ink], palette[ground]) >= 4.5, (ink, ground)
    for outcome in ("pass", "fail", "inconclusive", "not-run", "not-applicable", "not-judged"):
        for ground in (f"{outcome}-bg", "paper"):
            assert _contrast(palette[outcome], palette[ground]) >= 4.5, (outcome, ground)
    for i in range(1, 7):
        assert _contrast(palette[f"fig-s{i}"], palette["paper"]) >= 3.0, i


# ---- numbers in words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (0.1, "0.100"),
        (0.12345, "0.123"),
        (12.0, "12.0"),
        (100.0, "100"),
        (12345.0, "12,300"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.25, "−0.250"),
        (1.2e-05, "1.20e−05"),
        (0.99996, "1.00"),
        (None, "undefined"),
    ],
)
def test_numbers_have_three_digits(x: float | None, shown: str) -> None:
    assert number_text.number(x) == shown


@pytest.mark.parametrize(
    ("level", "shown"), [(0.95, "95"), (0.9, "90"), (0.9917, "99.17"), (0.99917, "99.917"), (1 - 2e-6, "99.9998")]
)
def test_confidence_is_never_rounded_to_certainty(level: float, shown: str) -> None:
    assert number_text.confidence(level) == f"{shown}\u00a0%"


@pytest.mark.parametrize(
    ("p", "shown"), [(None, ""), (1e-16, "< 0.0001"), (0.0001, "0.0001"), (0.0312, "0.031"), (1.0, "> 0.5")]
)
def test_p_values_are_sensible(p: float | None, shown: str) -> None:
    assert number_text.p_value(p) == shown


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((0.1, 0.2), "0.100 to 0.200"),
        ((None, 0.2), "at most 0.200"),
        ((0.1, None), "at least 0.100"),
        ((None, None), "no bounds"),
        (None, ""),
    ],
)
def test_intervals_say_what_they_lack(ends: tuple[float | None, float | None] | None, shown: str) -> None:
    assert number_text.interval(ends) == shown


def test_exact_counts_are_whole() -> None:
    report = report_of([intake()])
    finding = next(f for f in report.findings if f.metric == "n_parameters")
    assert isinstance(finding, Finding) and isinstance(finding.estimate, Exact)
    assert finding_text.value(finding) == "12,481"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("a\u202eb", "a\\u202eb"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x00\x7f\x9b", "\\u0000\\u007f\\u009b"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\ud800", "\\ud800"),
        ("Zoë 名前 é", "Zoë 名前 é"),
    ],
)
def test_invisible_characters_are_made_visible(given: str, shown: str) -> None:
    assert number_text.visible(given) == shown


# ---- Markdown and schema -------------------------------------------------------------------------------------------


def test_markdown_is_short_and_says_the_same(report: AuditReport) -> None:
    markdown = render_markdown(report)
    # Pages 2 and 3 are part of it; the record's id in full and whose word its dates are have to be there.
    assert "Dates are the signer's word. " in markdown and len(markdown) < 11_000
    assert f"| {' | '.join(f'**{report.summary.count(o)}**' for o in COUNTED)} |" in markdown
    assert "Exit code 1" in markdown and document_id(report) in markdown
    assert (
        "| **Demographic parity** Do groups get the good decision equally often? |" in markdown
        and "| 3,660 | 13,382 |" in markdown
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_lets_no_name_format_anything(name: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    stopped = ProbeResult(probe=name, pillar="privacy", citation="", not_run=f"It said {name} @everyone #1 www.a.b")
    report = report_of([stopped], refusal=Refusal(code=name, reason=name))
    report = report.model_copy(update={"model": report.model.model_copy(update={"path": name})})
    markdown = render_markdown(report)
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(markdown)
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= {"h2", "h3", "p", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert "@everyone" not in markdown and "#1" not in markdown
    assert len(re.findall("<tr>", html)) == 6


def test_the_shipped_schema_is_that_of_the_types(report: AuditReport) -> None:
    assert shipped_schema() == schema_json(), (
        "run python -m tests.report.record_schema > auditor/report/record/report.schema.json"
    )
    properties = json.loads(schema_json())["properties"]
    assert set(json.loads(report.to_json())) <= set(properties)
