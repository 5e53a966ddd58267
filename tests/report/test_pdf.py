"""The PDF: what its first page says, that it is tagged and archivable, and that no name can spoil it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from auditor.core.errors import MissingExtraError
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.policy import load_policies
from auditor.report import report_view
from auditor.report.document_files import render_pdf
from auditor.report.first_page import first_page
from auditor.report.html import policies_of
from auditor.report.record import number_text, summary_lines
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.controls import with_policies
from auditor.report.record.earlier_audits import RegistrationRecord
from auditor.report.record.finding_text import question_of
from auditor.report.record.glossary import definitions_of, definitions_of_judged
from auditor.report.remediation import remediation_of
from auditor.report.report_document import MOST_FOLDED, MOST_ON_PAPER, MOST_TOLD, stem_of
from auditor.report.scope_page import scope_of
from auditor.statistics.estimate import Exact
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion, RateTable
from tests.quantifiers import all_of
from tests.report.samples import (
    HOSTILE,
    all_results,
    attribution,
    explanations,
    fairness,
    privacy,
    refused_report,
    report_of,
    sample_report,
)

pytest.importorskip("typst", reason="the extra `pdf` is not installed")
pdfium = pytest.importorskip("pypdfium2", reason="the test group is not installed: pypdfium2")


def _pages(pdf: bytes) -> list[str]:
    """The words of each page on one line, without the places where a word may break."""
    document = pdfium.PdfDocument(pdf)
    try:
        pages = []
        for i in range(len(document)):
            page = document[i]
            words = page.get_textpage()
            pages.append(re.sub(r"\s+", " ", words.get_text_range().replace("\u200b", "").replace("\ufffe", "")))
            words.close()
            page.close()
        return pages
    finally:
        document.close()


def _tight(words: str) -> str:
    """Without any space, since a line may have broken inside of a long name."""
    return re.sub(r"\s+", "", words)


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """A report with all six outcomes, held against a rule pack."""
    return with_policies(sample_report(), load_policies(["eu-ai-act"])[0], date(2026, 11, 25))


@pytest.fixture(scope="module")
def pdf(report: AuditReport) -> bytes:
    """Its PDF with the appendix."""
    return render_pdf(report, appendix=True)


@pytest.fixture(scope="module")
def pages(pdf: bytes) -> list[str]:
    """Its pages in words."""
    return _pages(pdf)


def test_the_first_page_is_that_of_the_other_renderings(report: AuditReport, pages: list[str]) -> None:
    first, page = _tight(pages[0]), first_page(report)
    assert page.lines and page.actions
    for said in (page.headline, page.effect, f"Exit code {report.exit_code}", page.title, *page.last):
        assert _tight(said) in first
    for line in page.lines:
        assert _tight(line.name) in first and _tight(line.question) in first
        assert _tight(line.verdict) in first and _tight(line.interval) in first
    for said in (*(told.sentence for told in page.shown), *(action.sentence for action in page.actions)):
        assert _tight(said) in first
    counts = report_view.counts_of(report)
    for row in ([c.outcome.words for c in counts], [str(c.n) for c in counts], [c.meaning for c in counts]):
        assert _tight("".join(row)) in first


def test_the_second_page_has_the_scope(report: AuditReport, pages: list[str]) -> None:
    second, scope = pages[1], scope_of(report)
    for expected in (scope.title, scope.lead, scope.groups_title, *scope.notes):
        assert _tight(expected) in _tight(second)
    assert len(scope.sections) == 4
    for part in scope.sections:
        assert part.title in second
        for line in part.lines:
            # What nobody stated is a line to fill in, with the key that states it.
            assert _tight(line.label) in _tight(second) and _tight(line.value or line.key) in _tight(second)
    for expected in ("Document control", "Next review due", "Not legal advice", f"Page 2 of {len(pages)}"):
        assert expected in second, expected
    assert report_view.document_id(report) in _tight(second)


def test_the_third_page_says_what_is_to_be_done_and_is_signed(report: AuditReport, pages: list[str]) -> None:
    third, remedies = _tight(pages[2]), remediation_of(report)
    assert remedies.lines
    for line in remedies.lines[:MOST_ON_PAPER]:
        for said in (line.name, line.id, line.severity, line.said, line.found):
            assert _tight(said) in third
    (pack,) = policies_of(report, report_view.rows_of(report.findings))
    assert ("provider", [c for role, c in pack.duties if role == "provider"][0]) in pack.duties
    for expected in (
        *(remedies.title, remedies.rule, *remedies.heads, remedies.retest, "What the error rates promise"),
        *("Prepared by", "Reviewed by", "Approved by", "Residual risk accepted by"),
        *(f"{role} ({len(ids)}): {', '.join(ids)}" for role, ids in pack.duties),
    ):
        assert _tight(expected) in third, expected
    assert all_of(
        shown.control.in_force for shown in pack.controls for _, ids in pack.duties if shown.control.id in ids
    )
    rest = "".join(map(_tight, pages[3:]))
    for finding in report.findings:
        if finding.outcome in (Outcome.NOT_RUN, Outcome.NOT_APPLICABLE):
            assert _tight(finding.reason[:100]) in rest
    assert _tight("What was not run (1)") in rest and _tight("What was not measured") in rest
    unmeasured = [c for control in report.controls for c in control.cells if c.kind == "not measured"]
    assert unmeasured and _tight(unmeasured[0].what) in _body(pages)


def test_without_an_appendix_it_has_three_pages_of_which_the_third_is_signed(
    report: AuditReport, pages: list[str]
) -> None:
    crowded = report.findings + tuple(
        f.model_copy(update={"id": f"{f.id}/{i}"})
        for i in range(9)
        for f in report.findings
        if f.outcome is Outcome.FAIL
    )
    for each in (report, report.model_copy(update={"findings": crowded})):
        short = _pages(render_pdf(each))
        assert len(short) == 3 and len(remediation_of(each).lines) > 3
        assert "Residual risk accepted by" in short[2] and "What the error rates promise" in short[2]
        assert "pdf-appendix" in short[2] and "Every number" not in " ".join(short)
    assert len(pages) > 5


@pytest.mark.parametrize("appendix", [False, True])
def test_nothing_is_smaller_than_seven_points_and_no_sign_is_hidden_in_a_name(
    report: AuditReport, appendix: bool
) -> None:
    document = pdfium.PdfDocument(render_pdf(report, appendix=appendix))
    try:
        sizes, words = set(), ""
        for page in document:
            text = page.get_textpage()
            words += text.get_text_range()
            for i in range(text.count_chars()):
                matrix = pdfium.raw.FS_MATRIX()
                held = pdfium.raw.FPDFText_GetTextObject(text.raw, i)
                if held and pdfium.raw.FPDFPageObj_GetMatrix(held, matrix):
                    scale = max(abs(matrix.a), abs(matrix.b))
                    sizes.add(round(scale * pdfium.raw.FPDFText_GetFontSize(text.raw, i), 2))
    finally:
        document.close()
    assert len(sizes) > 3 and min(sizes) >= 7.0, sorted(sizes)[:5]
    assert "\u200b" not in words and "demographic_parity_difference" in words


def test_every_page_says_which_document_it_is_of(report: AuditReport, pages: list[str]) -> None:
    for i, page in enumerate(pages, 1):
        assert report_view.document_id(report) in _tight(page) and f"Page {i} of {len(pages)}" in page


def _body(pages: list[str]) -> str:
    return _tight(" ".join(re.sub(r"auditor \S+, document [0-9a-f]{4}.*?Page \d+ of \d+", "", p) for p in pages))


def test_every_finding_is_there_with_interval_criterion_and_reason(report: AuditReport, pages: list[str]) -> None:
    body = _body(pages)
    for row in report_view.rows_of(report.findings):
        f = row.finding
        # What nobody bounded is told by its id: probe and method once, and what they end on in each row.
        stem, rest = stem_of(f.id)
        judged = f.outcome is not Outcome.NOT_JUDGED
        named = (row.name, row.where, "" if f.metric is None else row.value) if judged else (stem, rest, row.value)
        for part in (*named, row.interval, row.must_be):
            assert _tight(part) in body, (f.id, part)
        if judged and f.metric is not None and f.outcome is not Outcome.NOT_APPLICABLE:
            assert _tight(f.id) in body
        # What is for other kinds of model is told by name alone.
        if not f.other_kind:
            assert _tight(f.reason).split(".")[0] in body
    for control in report.controls:
        assert _tight(control.id) in body
    for criterion in report.criteria:
        assert _tight(criterion.set_by) in body and _tight(criterion.describe()) in body
    for limit in report_view.limits_of():
        assert _tight(limit) in body


def test_a_number_is_told_once_with_its_question_and_the_gravest_first(report: AuditReport, pages: list[str]) -> None:
    body = _body(pages)
    table = body[body.index("Everynumber") :]
    order = [
        _tight(row.finding.id)
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
        for row in report_view.rows_of(report.findings)
        if row.outcome is outcome
    ]
    places = [table.index(name) for name in order]
    assert places == sorted(places) and len(places) > 3
    unjudged = [row for row in report_view.rows_of(report.findings) if row.outcome is Outcome.NOT_JUDGED]
    assert unjudged and _tight(f"nobody has set a bound: {len(unjudged)} numbers") in table
    say = first_page(report).say
    asked = {q.id for r in unjudged if (q := question_of(report, r.finding.probe, r.finding.metric)) is not None}
    assert len(asked) > 0
    for question in asked:
        assert _tight(say.say(f"question.{question}")) in table


def test_every_metric_and_term_of_the_report_is_defined(report: AuditReport, pages: list[str]) -> None:
    body = _body(pages)
    known = definitions_of(report)
    assert len(known.metrics) > 10 and len(known.terms) > 10
    for metric in known.metrics:
        assert _tight(metric.name) in body[body.index("Definitions") :]
        if metric.definition is not None:
            assert _tight(f"{metric.definition.formula}. {known.span(metric.definition)}") in body
    judged, n_others = definitions_of_judged(report)
    assert n_others and _tight(f"How to read the {n_others} metrics without a bound") in body
    for metric in judged.metrics:
        assert _tight(known.meaning(metric)) in body
    for term in known.terms:
        assert _tight(f"{term.name} {term.meaning}") in body


def test_what_several_findings_share_is_said_once() -> None:
    base = sample_report()
    detail = "An attacker who knows rows like these. " * 12
    (first, second), rest = base.findings[:2], base.findings[2:]
    both = tuple(f.model_copy(update={"outcome": Outcome.INCONCLUSIVE, "detail": detail}) for f in (first, second))
    body = _body(_pages(render_pdf(base.model_copy(update={"findings": (*both, *rest), "figures": ()}), appendix=True)))
    assert body.count(_tight(detail)) == 1


def test_methods_are_those_of_probes_that_ran_and_other_kinds_are_one_line(report: AuditReport) -> None:
    idle = report.findings[0].model_copy(
        update={"probe": "idle_probe", "metric": None, "outcome": Outcome.NOT_APPLICABLE, "other_kind": True}
        | {"citation": "Nobody, Never 1900", "criterion": None, "reason": "Needs a language model."}
    )
    made = report.model_copy(update={"findings": (*report.findings, idle), "figures": ()})
    body = _body(_pages(render_pdf(made, appendix=True)))
    assert _tight("For other kinds of model or data: idle_probe.") in body
    assert body.count("idle_probe") == 1 and _tight("Nobody, Never 1900") not in body
    ran = next(f for f in report.findings if f.metric is not None and f.citation)
    assert _tight(ran.citation) in body[body.index("Methods") :]


def test_it_declares_archive_and_accessible_standards_and_is_tagged(pdf: bytes) -> None:
    metadata = pdf[pdf.index(b"<x:xmpmeta") : pdf.index(b"</x:xmpmeta>")]
    assert b"<pdfaid:part>2</pdfaid:part>" in metadata and b"<pdfaid:conformance>A</pdfaid:conformance>" in metadata
    assert b"<pdfuaid:part>1</pdfuaid:part>" in metadata
    document = pdfium.PdfDocument(pdf)
    try:
        assert pdfium.raw.FPDFCatalog_IsTagged(document)
        titles = [item.get_title() for item in document.get_toc()]
        assert any(title.startswith("Fairness: ") for title in titles) and "Criteria" in titles
        assert document.get_metadata_dict()["Title"] == "Audit of mortgage_approval.pt"
    finally:
        document.close()


@pytest.mark.parametrize("name", ["sample", "hostile", "refused", "german"])
def test_a_checker_of_accessibility_finds_nothing(name: str, tmp_path: Path) -> None:
    pdfua = pytest.importorskip("pdfua", reason="the test group is not installed: pdfua")
    made = {
        "sample": lambda: sample_report(),
        "hostile": lambda: sample_report(hostile=True),
        "refused": refused_report,
        "german": lambda: sample_report().model_copy(update={"about": About(language="de")}),
    }[name]()
    path = tmp_path / "report.pdf"
    path.write_bytes(render_pdf(made))
    found = pdfua.validate(path)
    assert [finding.message for finding in found.findings] == []


def test_the_checker_would_find_a_table_without_heads(tmp_path: Path) -> None:
    pdfua = pytest.importorskip("pdfua", reason="the test group is not installed: pdfua")
    typst = pytest.importorskip("typst")
    source = b'#set document(title: "t")\n= t\n#table(columns: 2, [a], [b], [c], [d])'
    path = tmp_path / "t.pdf"
    path.write_bytes(typst.compile(source, format="pdf", pdf_standards=["ua-1"]))
    assert "no header cell" in " ".join(finding.message for finding in pdfua.validate(path).findings)


def test_the_same_record_gives_the_same_bytes() -> None:
    first, again = (render_pdf(refused_report()) for _ in range(2))
    assert first == again


REPORTS: dict[str, Callable[[], AuditReport]] = {
    "hostile": lambda: sample_report(hostile=True),
    "explained": lambda: report_of([explanations(hostile=True)], hostile=True),
    "empty": lambda: report_of([]).model_copy(update={"criteria": (), "findings": ()}),
    "undated": lambda: refused_report().model_copy(update={"created": "yesterday <b>"}),
}


@pytest.mark.parametrize("name", REPORTS)
def test_odd_reports_are_typeset(name: str) -> None:
    assert "Audit of" in _pages(render_pdf(REPORTS[name](), appendix=True))[0]


@pytest.mark.grid
@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE,
        '#eval("1+1") #import "@preview/x:1.0" *bold* _it_ $x$ @ref <label>',
        "中文 日本語 한국어 ☃ 😀 हिन्दी",
        "a" * 3000,
        '"); #read("/etc/passwd")',
        "\\u0000 // comment /* */",
    ],
)
def test_names_are_set_as_they_are(name: str) -> None:
    base = sample_report()
    finding = base.findings[0].model_copy(update={"metric": name[:200], "reason": name, "group": {name: name}})
    path = base.model.model_copy(update={"path": name, "notes": (name,)})
    report = base.model_copy(update={"findings": (finding,), "figures": base.figures[:1], "model": path})
    words = _tight(" ".join(_pages(render_pdf(report, appendix=True))))
    if name.isascii() and name.isprintable():
        assert _tight(name)[:150] in words


def test_letters_that_no_font_has_are_written_as_their_code() -> None:
    base = refused_report()
    report = base.model_copy(update={"model": base.model.model_copy(update={"path": "models/\U00016ac0\u4e2d.pt"})})
    words = " ".join(_pages(render_pdf(report)))
    if "\u4e2d" not in words:
        assert "\\u4e2d" in words and "written as their code" in words


def test_a_table_of_grades_is_written_in_full() -> None:
    report = report_of([explanations()])
    (table,) = [f.table for f in report.figures if f.table]
    words = _tight(" ".join(_pages(render_pdf(report, appendix=True))))
    for method in table.methods:
        assert _tight(method.method) in words and _tight(method.reason) in words
        assert all_of(
            _tight(number_text.grade(g)) in words and _tight(number_text.grade_interval(g)) in words
            for g in method.grades
        )


def test_deviations_from_a_registration_are_listed() -> None:
    registration = RegistrationRecord(
        path="audit.lock",
        sha256="ab" * 32,
        registered="2026-11-20",
        deviations=("the seed is 1, not 0", "a criterion <b> was added"),
    )
    report = refused_report().model_copy(update={"registration": registration})
    pages = _pages(render_pdf(report))
    assert "DEVIATES from its registration in 2 points" in pages[0]
    assert all_of(d in " ".join(pages) for d in registration.deviations)
    without = _pages(render_pdf(refused_report()))
    assert "criteria not pre-registered" in without[0] and "nothing shows that criteria were set before" in without[1]


def test_without_typst_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "typst", None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[pdf\]"):
        render_pdf(refused_report())


def test_five_hundred_findings_take_less_than_ten_seconds() -> None:
    results = [
        ProbeResult(probe="rates", pillar="fairness", citation="c", measurements=tuple(_unjudged(420))),
        fairness(),
        attribution(80),
        privacy(),
    ]
    report = report_of(results)
    assert len(report.findings) >= 500
    start = time.process_time()
    render_pdf(report, appendix=True)
    assert time.process_time() - start < 10.0


def _unjudged(n: int) -> list[Measurement]:
    return [
        Measurement(
            metric=("selection_rate", "true_positive_rate", "false_positive_rate", "accuracy")[i % 4],
            estimate=Proportion(successes=40 + i % 7, n=100),
            n_samples=100,
            group={"sex": "fm"[i % 2], "postcode": f"z{i // 8}"},
        )
        for i in range(n)
    ]


def test_a_record_of_the_size_of_the_demo_takes_at_most_twenty_pages() -> None:
    results = [
        *all_results(),
        ProbeResult(probe="rates", pillar="fairness", citation="c", measurements=tuple(_unjudged(250))),
    ]
    made = report_of(results)
    (curve,) = [f for f in made.figures if f.kind == "curve"]
    forests = [f for f in made.figures if f.kind == "forest"]
    copies = [curve.model_copy(update={"id": f"copy/{i}"}) for i in range(32 - len(forests))]
    made = made.model_copy(update={"figures": (*forests, *copies)})
    assert len(made.figures) == 32 and made.summary.count(Outcome.NOT_JUDGED) > 300
    assert len(_pages(render_pdf(made, appendix=True))) <= 20


def test_two_thousand_findings_take_bounded_time_and_pages_and_say_what_is_left_out() -> None:
    base = report_of([ProbeResult(probe="rates", pillar="fairness", citation="c", measurements=tuple(_unjudged(1)))])
    (one,) = [f for f in base.findings if f.metric == "selection_rate"]
    grave = [
        one.model_copy(
            update={"id": f"rates/grave/{i}", "outcome": Outcome.FAIL if i % 2 else Outcome.INCONCLUSIVE}
            | {"reason": f"It lies beyond, {i}."}
        )
        for i in range(MOST_TOLD + 150)
    ]
    quiet = [one.model_copy(update={"id": f"rates/quiet/{i}", "group": {"g": str(i)}}) for i in range(1600)]
    made = base.model_copy(update={"findings": (*quiet, *grave)})
    start = time.process_time()
    pages = _pages(render_pdf(made, appendix=True))
    assert time.process_time() - start < 3.0
    assert len(pages) <= 36
    body = _body(pages)
    # The gravest are told: no FAIL gives way to an INCONCLUSIVE one, and what gives way is counted.
    assert all_of(_tight(f.id) in body for f in grave if f.outcome is Outcome.FAIL)
    assert _tight(f"Too many for paper: 150 {Outcome.INCONCLUSIVE.value} more stand in report.json alone.") in body
    assert _tight(f"Too many for paper: {1600 - MOST_FOLDED:,} NOT JUDGED more") in body


def test_what_rows_it_takes_is_said_and_who_is_left_out_stands_on_the_first_page() -> None:
    share = Measurement(
        metric="small_group_share",
        estimate=Exact(known=0.012),
        n_samples=500,
        sensitive=("race",),
        detail="1 group of under 2 % of the rows: tiny (6)",
    )
    open_ = Measurement(
        metric="demographic_parity_difference",
        estimate=WorstDifference(tables=(RateTable(rate="selection_rate", successes=(120, 130), n=(250, 250)),)),
        n_samples=500,
        ideal=0.0,
        sensitive=("race",),
    )
    made = report_of([ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=(share, open_))])
    pages = [_tight(page) for page in _pages(render_pdf(made, appendix=True))]
    assert _tight("By race, 1.2 % of the rows are in 1 group of under 2 % of the rows: tiny (6).") in pages[0]
    assert summary_lines.describe_rows_for_all(made).startswith(
        "No rows lead to exit 0 while 1 did not run. For all the others to PASS"
    )
    for words in ("Each figure is for its question alone", summary_lines.describe_rows_for_all(made)):
        assert _tight(words) in "".join(pages)
