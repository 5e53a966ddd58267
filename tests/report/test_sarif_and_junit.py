"""Every value of a SARIF log and of a JUnit file, computed from the record again."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.machine_formats import render_junit, render_sarif, said_of
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.energy import EnergyRecord
from auditor.report.report_view import Row
from tests.quantifiers import all_of
from tests.report.samples import privacy, refused_report, report_of, sample_report


def log_of(report: AuditReport) -> Any:
    """The one run of a SARIF log."""
    return json.loads(render_sarif(report))["runs"][0]


def shown(report: AuditReport) -> list[Row]:
    """The rows that are shown, in their order."""
    return [
        row
        for row in report_view.rows_of(report.findings)
        if not report_view.is_detail(row.finding) and not row.finding.other_kind
    ]


def with_other_kinds() -> AuditReport:
    """A record in which one finding is of another kind of model."""
    report = sample_report()
    first, *others = report.findings
    return report.model_copy(update={"findings": (first.model_copy(update={"other_kind": True}), *others)})


# ---- SARIF -----------------------------------------------------------------------------------------------------------


def test_a_log_is_indented_by_two_and_keeps_letters_as_they_are() -> None:
    text = render_sarif(sample_report().model_copy(update={"tool": {"name": "Pr\u00fcfer"}}))
    assert text.endswith("}\n") and not text.endswith("\n\n")
    assert text.splitlines()[1].startswith('  "$schema": "https://') and text.splitlines()[2] == '  "version": "2.1.0",'
    assert "Pr\u00fcfer" in text
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_a_rule_has_its_citation_its_words_and_the_pillars_of_its_results() -> None:
    report = sample_report()
    judged = [row for row in shown(report) if row.outcome is not Outcome.NOT_RUN]
    rules = {rule["id"]: rule for rule in log_of(report)["tool"]["driver"]["rules"]}
    assert list(rules) == list(dict.fromkeys(number_text.visible(row.name) for row in judged))
    cited = 0
    for name, rule in rules.items():
        own = [row for row in judged if number_text.visible(row.name) == name]
        citations = [row.finding.citation for row in own if row.finding.citation]
        cited += bool(citations)
        assert rule.get("fullDescription") == ({"text": number_text.visible(citations[0])} if citations else None)
        assert rule["shortDescription"]["text"] == name.replace("_", " ").capitalize()
        assert rule["properties"]["tags"] == sorted({row.finding.pillar for row in own})
    assert cited > 0


def test_a_rule_without_a_citation_has_no_full_description() -> None:
    report = sample_report()
    bare = tuple(finding.model_copy(update={"citation": ""}) for finding in report.findings)
    rules = log_of(report.model_copy(update={"findings": bare}))["tool"]["driver"]["rules"]
    assert len(rules) > 0 and all_of("fullDescription" not in rule for rule in rules)


def test_a_result_says_its_numbers_its_place_and_its_finding() -> None:
    report = sample_report()
    judged = [row for row in shown(report) if row.outcome is not Outcome.NOT_RUN]
    results = log_of(report)["results"]
    assert len(results) == len(judged) > 0
    for result, row in zip(results, judged, strict=True):
        f = row.finding
        words = f"{row.outcome.value} {row.name} {row.where}".strip()
        said = said_of(row)
        assert result["message"]["text"] == number_text.visible(f"{words}: {said}" if said else words)
        numbers = {
            "value": f.value, "interval": None if f.interval is None else list(f.interval),
            "confidence": f.confidence, "n_samples": f.n_samples,
        }  # fmt: skip
        known = {name: value for name, value in numbers.items() if value is not None}
        assert result["properties"] == {"outcome": row.outcome.value, "probe": number_text.visible(f.probe)} | known
        assert result["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": number_text.visible(f.id)}]
        assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}
        mark = hashlib.sha256(f.id.encode()).hexdigest()
        assert result["partialFingerprints"] == {"auditorFinding/v1": mark}


def test_a_log_names_the_tool_and_the_record() -> None:
    report = sample_report()
    run = log_of(report)
    driver, mark = run["tool"]["driver"], report_view.document_id(report)
    assert (driver["name"], driver["version"]) == (report.tool["name"], report.tool["version"])
    assert run["automationDetails"]["id"] == f"auditor/{mark[:16]}" and run["properties"]["record_sha256"] == mark
    nameless = log_of(report.model_copy(update={"tool": {}}))["tool"]["driver"]
    assert (nameless["name"], nameless["version"]) == ("responsible-auditor", "")
    counts = {count.outcome.value: count.n for count in report_view.counts_of(report)}
    assert run["properties"]["counts"] == counts
    assert run["invocations"][0]["exitCodeDescription"] == report_view.verdict_of(report).headline


def test_what_is_for_other_kinds_is_counted_and_no_result() -> None:
    report = with_other_kinds()
    run = log_of(report)
    assert run["properties"]["for_other_kinds"] == report_view.n_for_other_kinds(report) == 1
    assert len(run["results"]) == len(log_of(sample_report())["results"]) - 1
    plain, other = (render_junit(each) for each in (sample_report(), report))
    assert len(list(ElementTree.fromstring(other).iter("testcase"))) == (
        len(list(ElementTree.fromstring(plain).iter("testcase"))) - 1
    )


def test_a_refusal_comes_first_among_what_went_wrong() -> None:
    report = refused_report()
    assert report.refusal is not None
    first = log_of(report)["invocations"][0]["toolExecutionNotifications"][0]
    assert (first["level"], first["descriptor"]["id"]) == ("error", report.refusal.printed_code)
    assert first["message"]["text"] == number_text.visible(f"Refused: {report.refusal.reason}")


# ---- JUnit -----------------------------------------------------------------------------------------------------------


def suites(report: AuditReport) -> ElementTree.Element:
    return ElementTree.fromstring(render_junit(report))


def test_a_file_is_indented_and_has_times() -> None:
    report = sample_report().model_copy(update={"duration_s": 1.23456, "created": "2026-01-31T02:00:00+02:00"})
    text = render_junit(report)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ') and text.endswith("</testsuites>\n")
    assert "\n  <testsuite " in text and "\n    <testcase " in text
    root = ElementTree.fromstring(text)
    assert root.attrib["time"] == "1.235" and {suite.attrib["time"] for suite in root} == {"0.000"}
    assert {suite.attrib["timestamp"] for suite in root} == {"2026-01-31T00:00:00"}
    timeless = suites(report.model_copy(update={"created": "some day"}))
    assert {suite.attrib["timestamp"] for suite in timeless} == {"1970-01-01T00:00:00"}


def test_a_suite_holds_the_findings_of_its_pillar_in_their_order() -> None:
    report = sample_report()
    *pillars, verdict = suites(report)
    assert verdict.attrib["name"] == "verdict"
    expected = {p: [row for row in shown(report) if row.finding.pillar == p] for p in report_view.PILLARS}
    assert [suite.attrib["name"] for suite in pillars] == [pillar for pillar, rows in expected.items() if rows]
    for suite in pillars:
        for case, row in zip(suite, expected[suite.attrib["name"]], strict=True):
            f = row.finding
            parts = [part for part in (f.pillar, f.probe, f.method) if part]
            assert case.attrib["classname"] == number_text.visible(".".join(parts))
            assert case.attrib["name"] == number_text.visible(f"{row.name} {row.where}".strip())
            (child,) = case
            words = number_text.visible(said_of(row))
            match row.outcome:
                case Outcome.PASS:
                    assert (child.tag, child.text) == ("system-out", words)
                case Outcome.FAIL:
                    assert (child.attrib, child.text) == ({"message": words, "type": "FAIL"}, words)
                case Outcome.INCONCLUSIVE | Outcome.NOT_RUN:
                    assert (child.attrib, child.text) == ({"message": words, "type": row.outcome.value}, words)
                case Outcome.NOT_APPLICABLE:
                    assert child.attrib == {"message": words} and not (child.text or "").strip()
                case Outcome.NOT_JUDGED:
                    assert child.attrib["message"] == f"NOT_JUDGED: measured, no criterion set. {words}"


@pytest.mark.parametrize("doubt", ["vacuous", "doubtful"])
def test_what_says_nothing_of_the_model_is_not_waived(doubt: str) -> None:
    report = report_of([privacy()], allow_inconclusive=True)
    inconclusive = [f for f in report.findings if f.outcome is Outcome.INCONCLUSIVE]
    assert len(inconclusive) > 0
    marked = tuple(
        f.model_copy(update={doubt: "it says the same to everybody"}) if f in inconclusive else f
        for f in report.findings
    )
    cases = [case for case in suites(report.model_copy(update={"findings": marked})).iter("error")]
    assert [case.attrib["type"] for case in cases].count("INCONCLUSIVE") >= len(inconclusive)
    assert not list(suites(report.model_copy(update={"findings": marked})).iter("skipped"))


def test_the_verdict_says_headline_refusal_and_record() -> None:
    for report in (sample_report(), refused_report(), with_other_kinds()):
        (case,) = suites(report)[-1]
        (child,) = case
        words = child.text if child.tag == "system-out" else child.attrib["message"]
        verdict = report_view.verdict_of(report)
        parts = [f"{verdict.headline}. {verdict.sentence} Exit code {report.exit_code}."]
        if report.refusal is not None:
            parts.append(f"{report.refusal.printed_code}: {report.refusal.reason}")
        if elsewhere := report_view.for_other_kinds(report):
            parts.append(f"{elsewhere}.")
        parts += [*report_view.warnings_of(report), f"Record {report_view.document_id(report)}. Not legal advice."]
        assert words == number_text.visible(" ".join(parts))
        assert case.attrib == {"classname": "auditor", "name": "verdict", "time": "0"}


def test_a_finding_is_said_by_number_requirement_and_reason() -> None:
    report = sample_report()
    said = {said_of(row): row for row in shown(report)}
    for text, row in said.items():
        number = f"{row.value} ({row.interval}{f' at {row.confidence}' if row.confidence else ''})" if row.value else ""
        required = f"must be {row.must_be}" if row.must_be else ""
        first = ", ".join(part for part in (number, required) if part)
        assert text == ". ".join(part for part in (first, row.finding.reason) if part)
    assert any(row.value for row in said.values()) and any(not row.value for row in said.values())


def test_the_times_of_a_probes_tests_are_its_processor_time() -> None:
    report = sample_report()
    names = {row.finding.probe for row in shown(report)}
    spent = {name: 1.0 + place for place, name in enumerate(sorted(names))}
    energy = {
        "of": "audit",
        "cpu_s": 99.0,
        "gpu_s": 0.0,
        "probes": [{"probe": p, "cpu_s": s} for p, s in spent.items()],
    }
    root = ElementTree.fromstring(
        render_junit(report.model_copy(update={"energy": EnergyRecord.model_validate(energy)}))
    )
    found = dict.fromkeys(spent, 0.0)
    for case in root.iter("testcase"):
        owner = next((p for p in case.attrib["classname"].split(".") if p in spent), None)
        if owner is not None:
            found[owner] += float(case.attrib["time"])
    assert found == pytest.approx(spent, abs=0.02)
    assert sum(float(suite.attrib["time"]) for suite in root) == pytest.approx(sum(spent.values()), abs=0.05)
