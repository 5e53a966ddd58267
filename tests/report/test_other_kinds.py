"""What is for another kind of model is a count in every format, and nowhere a line of its own or a reproach."""

from __future__ import annotations

import csv
import io
import json
import re
from xml.etree import ElementTree

import pytest

from auditor.judging.measurement import Measurement, ProbeResult
from auditor.report import report_view
from auditor.report.html import render_html
from auditor.report.machine_formats import render_csv, render_junit, render_sarif
from auditor.report.markdown import render_markdown, to_markdown
from auditor.report.model_card_and_bom import render_model_card, render_toolkit_json
from auditor.report.record.audit_report import AuditReport
from auditor.report.report_document import report_document
from auditor.statistics.estimate import Undefined
from cli.terminal import print_report
from tests.quantifiers import all_of, none_of
from tests.report.samples import language, privacy, report_of

ELSEWHERE = ("bbq", "winobias", "honest")
WHY = "Needs a model that writes text."


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """One number judged, one input not given, and three questions for another kind of model."""
    others = [
        ProbeResult(probe=name, pillar="language", citation="c", not_applicable=WHY, other_kind=True)
        for name in ELSEWHERE
    ]
    report = report_of([privacy(), language(), *others])
    lacking = [f for f in report.findings if f.outcome == "NOT_APPLICABLE" and not f.other_kind]
    assert report.summary.not_applicable == len(lacking) + len(ELSEWHERE) and len(lacking) == 1
    return report


def test_the_counts_keep_the_two_apart(report: AuditReport) -> None:
    counts = {c.outcome.value: c.n for c in report_view.counts_of(report)}
    assert counts["NOT_APPLICABLE"] == 1 and sum(counts.values()) == len(report.findings) - 3
    assert report_view.n_for_other_kinds(report) == 3
    assert report_view.counts_in_words(report).endswith(
        "1 NOT APPLICABLE, 2 NOT JUDGED, 3 not asked: for other kinds of model or data"
    )
    assert report_view.for_other_kinds(report_of([privacy()])) == ""


def test_people_read_a_count_and_no_reproach(report: AuditReport, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report, [], verbose=True)
    terminal = capsys.readouterr().out
    markdown, card = render_markdown(report), render_model_card(report)
    for said in (terminal, markdown, card):
        assert "3 not asked: for other kinds of model or data" in said and "--text" in said
        assert WHY not in said and none_of(name in said for name in ELSEWHERE)
    assert "NOT_APPLICABLE 1   " in terminal and "4 NOT" not in card
    assert WHY not in render_toolkit_json(report)


def test_the_page_counts_them_and_names_them_in_a_fold_alone(report: AuditReport) -> None:
    html = render_html(report)
    tally = html[html.index('<ul class="tally-bar"') : html.index("</ul>", html.index('<ul class="tally-bar"'))]
    assert '<span class="count">1</span> <span class="count-name">NOT APPLICABLE</span>' in tally
    assert "3 not asked: for other kinds of model or data" in tally
    assert WHY not in html
    unfolded = re.sub(r"<details.*?</details>", "", html, flags=re.DOTALL)
    assert none_of(f">{name}<" in unfolded for name in ELSEWHERE)
    assert "--text" in html[html.index('id="absent"') :]


def test_the_document_counts_them_apart_and_has_no_row_of_them(report: AuditReport) -> None:
    paper = to_markdown(report_document(report))
    assert "What was not measured (1)" in paper and WHY not in paper
    rows = paper[paper.index("## Every number") : paper.index("## Methods")]
    assert "membership_inference" in rows and all_of(rows.count(name) == 1 for name in ELSEWHERE)
    assert f"For other kinds of model or data: {', '.join(ELSEWHERE)}." in rows


def test_machines_read_a_count_and_no_result(report: AuditReport) -> None:
    run = json.loads(render_sarif(report))["runs"][0]
    assert run["properties"]["for_other_kinds"] == 3 and run["properties"]["counts"]["NOT_APPLICABLE"] == 1
    assert none_of(r["properties"]["probe"] in ELSEWHERE for r in run["results"])
    assert "stereotype" in {r["properties"]["probe"] for r in run["results"]}
    root = ElementTree.fromstring(render_junit(report))
    assert none_of(case.attrib["classname"].endswith(ELSEWHERE) for case in root.iter("testcase"))
    assert "3 not asked: for other kinds of model or data" in root[-1][0][0].attrib["message"]
    table = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert {row["probe"] for row in table if row["other_kind"] == "yes"} == set(ELSEWHERE)
    assert {row["other_kind"] for row in table if row["probe"] == "stereotype"} == {""}
    ElementTree.fromstring(render_junit(report_of([privacy()])))


def test_what_methods_lack_of_one_number_is_told_apart_where_it_differs(capsys: pytest.CaptureFixture[str]) -> None:
    def lacking(n: int, *methods: str) -> list[Measurement]:
        return [
            Measurement(
                metric="tpr_at_fpr",
                method=method,
                estimate=Undefined(reason=f"{n} rows are too few.", inapplicable=True),
                n_samples=n,
            )
            for method in methods
        ]

    def shown(*measured: Measurement) -> list[str]:
        result = ProbeResult(probe="membership", pillar="privacy", citation="", measurements=measured)
        print_report(report_of([result]), [], verbose=True)
        return [line[15:] for line in capsys.readouterr().out.splitlines() if "(membership" in line]

    assert shown(*lacking(7, "rmia", "lira")) == ["tpr_at_fpr  (membership)"]
    assert shown(*lacking(7, "rmia", "lira"), *lacking(3, "quantile")) == [
        "tpr_at_fpr  (membership, rmia, lira)",
        "tpr_at_fpr  (membership, quantile)",
    ]
