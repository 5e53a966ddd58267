"""The page after its first: one table of every number, each once and with its id, told in the words of the labels."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import date
from itertools import pairwise

import pytest

from auditor.judging.measurement import Measurement, ProbeResult
from auditor.judging.policy import load_policies
from auditor.report import report_view
from auditor.report.html import Appendix, appendix_of, render_html
from auditor.report.markdown import render_markdown
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.controls import with_policies
from auditor.report.record.translations import Catalogue
from auditor.report.report_figures import sources_of
from auditor.statistics.rank_estimates import AreaUnderCurve
from auditor.statistics.rates import Proportion
from cli.terminal import print_report
from tests.quantifiers import all_of, none_of
from tests.report.samples import HOSTILE, fairness, language, privacy, report_of, robustness, sample_report


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """The sample with all six outcomes, without its figures, which take longer to draw than all else."""
    return sample_report().model_copy(update={"figures": ()})


@pytest.fixture(scope="module")
def html(report: AuditReport) -> str:
    """Its page."""
    return render_html(report)


def table_of(report: AuditReport) -> Appendix:
    return appendix_of(report, report_view.shown_rows(report), Catalogue.for_language("en"))


def test_every_finding_is_in_the_one_table_once(report: AuditReport, html: str) -> None:
    table = table_of(report)
    ids = [entry.row.finding.id for entry in table.entries]
    ids += [number.row.finding.id for fold in table.folds for line in fold.lines for number in line.numbers]
    assert Counter(ids) == Counter(f.id for f in report.findings) and table.n == len(ids)
    assert len(re.findall('<table class="every', html)) == 1
    every = html[html.index('<table class="every') : html.index("<", html.index("</dl>", html.rindex('class="fold"')))]
    for f in report.findings:
        assert number_text.visible(f.id) in every.replace("<wbr>", "").replace("&#39;", "'")


def test_numbers_without_a_bound_are_a_line_a_question_and_group(report: AuditReport, html: str) -> None:
    folds = [fold for fold in table_of(report).folds if "no bound set" in fold.about]
    assert len({fold.question for fold in folds}) == len(folds) > 3
    for fold in folds:
        assert len({line.about for line in fold.lines}) == len(fold.lines)
        assert (
            fold.n == sum(len(line.numbers) for line in fold.lines)
            and ("one" if fold.n == 1 else f"{fold.n}") + " number" in fold.about
        )
    (treated,) = [fold for fold in folds if fold.question == "Are groups treated alike otherwise?"]
    (women,) = [line for line in treated.lines if line.about == "sex: female"]
    assert {number.row.name for number in women.numbers} == {
        "selection_rate", "true_positive_rate", "false_positive_rate", "accuracy",
    }  # fmt: skip
    assert none_of(number.level for number in women.numbers)
    folded = "".join(re.findall('<tbody[^>]* class="fold">.*?</tbody>', html, re.DOTALL))
    outside = re.sub('<tbody[^>]* class="fold">.*?</tbody>', "", html, flags=re.DOTALL)
    assert "sex: female, race: Asian" in folded and "sex: female, race: Asian" not in outside


def test_judged_rows_stand_first_and_the_worst_of_them_first(report: AuditReport) -> None:
    ranks = [entry.row.rank for entry in table_of(report).entries]
    assert ranks == sorted(ranks) and len(ranks) == sum(
        report.summary.count(o) for o in report_view.COUNTED if o not in ("NOT_JUDGED", "NOT_APPLICABLE")
    )


def test_filters_know_what_there_is_and_nothing_else(report: AuditReport) -> None:
    table = table_of(report)
    words = {f.name: [choice.word for choice in f.choices] for f in table.filters}
    assert words["outcome"] == ["FAIL", "INCONCLUSIVE", "NOT RUN", "PASS", "NOT APPLICABLE", "NOT JUDGED"]
    assert {"Fairness", "Privacy", "Robustness"} <= set(words["pillar"]) and "Deepfake" not in words["pillar"]
    assert {"sex", "race", "region", "loan_to_value"} <= set(words["feature"])
    assert {"sex: female", "sex: male", "race: Asian", "region: north"} <= set(words["group"])
    carried = {key for entry in table.entries for key in entry.keys.split()}
    carried |= {key for fold in table.folds for line in fold.lines for key in line.keys.split()}
    assert carried == {choice.key for f in table.filters for choice in f.choices}


def test_without_script_nothing_is_hidden_but_the_filters(html: str) -> None:
    assert re.findall(r"<(\w+)[^>]* hidden>", html) == ["div"]
    assert '<div class="filters" role="search"' in html
    # Whatever is folded has a summary to open it by.
    assert all_of(found.startswith("<summary") for found in re.findall(r"<details[^>]*>\s*(<\w+)", html))


def test_methods_are_those_of_probes_that_ran() -> None:
    stopped = ProbeResult(probe="extraction", pillar="privacy", citation="Carlini", not_run="It was stopped.")
    report = report_of([privacy(), language(), stopped])
    assert [s.probe for s in sources_of(report_view.rows_of(report.findings))] == ["membership_inference"]
    html = render_html(report)
    methods = html[html.index('id="methods"') : html.index('id="criteria"')]
    assert "Yeom et al." in methods and "StereoSet" not in methods and "Carlini" not in methods


def _attacks() -> AuditReport:
    estimate = AreaUnderCurve(centre=0.531, standard_error=0.012, n_positive=1500, n_negative=900)
    measured = tuple(
        Measurement(metric="attack_auc", estimate=estimate, n_samples=2400, ideal=0.5, method=method)
        for method in ("loss_threshold", "rmia", "lira_offline")
    )
    return report_of([ProbeResult(probe="membership_inference", pillar="privacy", citation="c", measurements=measured)])


def test_rows_that_look_alike_name_their_method() -> None:
    report = _attacks()
    # The last is of all of them together, and names none.
    assert [row.by for row in report_view.rows_of(report.findings)] == ["loss_threshold", "rmia", "lira_offline", ""]
    assert none_of(row.by for row in report_view.rows_of(report_of([privacy()]).findings))
    html, markdown = render_html(report), render_markdown(report)
    open_table = html[html.index('<table class="cards open-table"') : html.index('id="promise"')]
    for method in ("loss_threshold", "rmia", "lira_offline"):
        assert f"({method})" in open_table and f"(`{method}`)" in markdown


def test_labels_are_used_wherever_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"sex": "Registered sex", "sex.female": "Women", "sex.male": "Men"}
    report = report_of([fairness()]).model_copy(update={"figures": (), "about": About(labels=labels)})
    table = table_of(report)
    words = {f.name: [choice.word for choice in f.choices] for f in table.filters}
    assert "Registered sex" in words["feature"] and "Women (sex = female)" in words["group"]
    html, markdown = render_html(report), render_markdown(report)
    appendix = html[html.index('<table class="every') : html.index('id="criteria"')]
    assert "by Registered sex" in appendix and "Women (sex = female)" in appendix
    assert "by sex" not in appendix and ">sex = female" not in appendix
    assert "`by Registered sex`" in markdown and "`by sex`" not in markdown
    print_report(report, [], verbose=True)
    terminal = capsys.readouterr().out
    assert "demographic_parity_difference, by Registered sex = " in terminal and "by sex =" not in terminal
    # Its own names stay beside it, in the finding's id.
    assert "demographic_<wbr>parity_<wbr>difference/sex" in appendix


def test_a_group_is_named_with_its_feature(report: AuditReport) -> None:
    grouped = [row for row in report_view.shown_rows(report) if row.finding.group]
    assert all_of(f"{name}: " in row.where for row in grouped for name in row.finding.group)
    groups = next(f for f in table_of(report).filters if f.name == "group")
    assert all_of(": " in choice.word for choice in groups.choices)


def test_hostile_names_stay_words_of_the_filters() -> None:
    report = sample_report(hostile=True).model_copy(update={"figures": ()})
    html = render_html(report)
    bar = html[html.index('<div class="filters"') : html.index('<table class="every')]
    assert set(re.findall(r"<(\w+)", bar)) == {"div", "label", "select", "option", "input", "button", "p"}
    assert "race: &lt;script&gt;alert(1)&lt;/script&gt;" in bar and "admin\\u202etxt.exe" in bar
    assert len(re.findall("<option", bar)) < 100 and max(map(len, re.findall(">([^<]*)</option>", bar))) < 200
    assert len(HOSTILE) > 5


def test_contents_lead_to_every_section_after_the_first_page(html: str) -> None:
    nav = html[html.index("<nav") : html.index("</nav>")]
    listed = re.findall('href="#([^"]+)"', nav)
    sections = re.findall('<h2 id="([^"]+)"', html[html.index("</nav>") :])
    assert listed == [name for name in sections if name not in ("notes", "deviations")]
    places = [html.index(f'<h2 id="{name}"') for name in listed]
    assert all_of(a < b for a, b in pairwise(places))
    assert listed.index("scope") < listed.index("open") < listed.index("stopped") < listed.index("numbers")


def test_headings_and_filters_are_in_the_language_of_the_report(report: AuditReport) -> None:
    html = render_html(report.model_copy(update={"about": About(language="de")}))
    assert '<h2 id="numbers" lang="de">Anhang: alle Zahlen</h2>' in html
    assert '<h2 id="stopped" lang="de">Was nicht gelaufen ist</h2>' in html
    bar = html[html.index('<div class="filters"') : html.index('<table class="every')]
    assert "Ergebnis" in bar and "Outcome" not in bar and "{n} von {m} gezeigt" in bar


def test_criteria_without_a_number_are_folded(report: AuditReport, html: str) -> None:
    held = {f.criterion.metric for f in report.findings if f.criterion}
    criteria = html[html.index('id="criteria"') : html.index('id="provenance"')].replace("<wbr>", "")
    open_, folded = criteria.split("<details", 1)
    assert all_of(name in open_ for name in held)
    unused = {c.metric for c in report.criteria} - held
    assert all_of(f"<code>{name}</code>" in folded and f"<code>{name}</code>" not in open_ for name in unused)


def test_markdown_says_values_with_intervals(report: AuditReport) -> None:
    markdown = render_markdown(report)
    told = [row for row in report_view.rows_of(report.findings) if row.outcome in ("PASS", "FAIL", "INCONCLUSIVE")]
    assert len(told) >= 10
    for row in told:
        (line,) = re.findall(rf"^\| \*\*.*`{row.name}` ?(?:`{row.where}`)? \|.*$", markdown, re.MULTILINE)
        assert f"| {row.value} |" in line and row.interval in line and row.must_be in line
    packs, _ = load_policies(["eu-ai-act"])
    controls = render_markdown(with_policies(report, packs, date(2026, 11, 27)))
    assert "`demographic_parity_difference` `by sex` 0.230 (0.184 to 0.275)" in controls


def test_two_thousand_findings_are_light_and_quick() -> None:
    rates = [
        Measurement(
            metric=("selection_rate", "true_positive_rate", "false_positive_rate", "accuracy")[i % 4],
            estimate=Proportion(successes=40 + i % 7, n=100),
            n_samples=100,
            group={"sex": "fm"[i % 2], "postcode": f"z{i // 8}"},
        )
        for i in range(2_000)
    ]
    many = ProbeResult(probe="group_fairness", pillar="fairness", citation="c", measurements=tuple(rates))
    report = report_of([many, robustness()])
    assert len(report.findings) >= 2_000
    report = report.model_copy(update={"figures": ()})
    render_html(report_of([language()]))
    start = time.process_time()
    html = render_html(report)
    assert time.process_time() - start < 2.5
    assert len(html.encode()) < 3_000_000
    assert 'id="finding-2000"' in html
