"""The report for programs: CSV of every measurement, JUnit XML for build servers, SARIF 2.1.0 for code scanning."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import quote
from xml.etree import ElementTree

from auditor.judging.judgement import is_waived
from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, ExitCode, Finding
from auditor.report.record.number_text import moment_of
from auditor.report.report_view import Row

COLUMNS = (
    "document", "id", "outcome", "pillar", "probe", "method", "metric", "sensitive", "group", "at", "value", "ideal",
    "interval_low", "interval_high", "confidence", "p_fail", "p_pass", "p_fail_adjusted", "p_pass_adjusted",
    "budget", "n_samples", "direction", "bound_low", "bound_high", "criterion_source", "set_by", "set_at",
    "minimum_detectable_effect", "n_required", "reason", "detail",
    "citation", "other_kind",
)  # fmt: skip
# A spreadsheet reads a cell that begins so as a formula, whatever the file's author meant.
_FORMULA = ("=", "+", "-", "@")


def render_csv(report: AuditReport) -> str:
    """One row per finding, in the order of the record (RFC 4180, UTF-8, lines end in CR LF).

    Numbers are written in full and never rounded; one that is undefined or does not exist is an empty cell. ``group``,
    ``at`` and ``sensitive`` are JSON. ``other_kind``: ``yes`` where NOT_APPLICABLE
    says only that a question is for another kind of model or of data, and that no input would make it apply. A text
    that a spreadsheet would take for a formula has an apostrophe before it.
    """
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    document = report_view.document_id(report)
    for finding in report.findings:
        cells = _cells(finding) | {"document": document}
        writer.writerow({name: cell(value) for name, value in cells.items()})
    return out.getvalue()


def _cells(f: Finding) -> dict[str, object]:
    low, high = f.interval or (None, None)
    c = f.criterion
    bounds = [b if math.isfinite(b) else None for b in c.required] if c else [None, None]
    return {
        "id": f.id,
        "outcome": f.outcome.value,
        "pillar": f.pillar,
        "probe": f.probe,
        "method": f.method,
        "metric": f.metric or (c.metric if c else None),
        "sensitive": json.dumps(list(f.sensitive), ensure_ascii=False) if f.sensitive else None,
        "group": _json(f.group),
        "at": _json(f.at),
        "value": f.value,
        "ideal": f.ideal,
        "interval_low": low,
        "interval_high": high,
        "confidence": f.confidence,
        "p_fail": f.p_fail,
        "p_pass": f.p_pass,
        "p_fail_adjusted": f.p_fail_adjusted,
        "p_pass_adjusted": f.p_pass_adjusted,
        "budget": f.budget,
        "n_samples": f.n_samples,
        "direction": c.direction if c else None,
        "bound_low": bounds[0],
        "bound_high": bounds[1],
        "criterion_source": c.source if c else None,
        "set_by": c.set_by if c else None,
        "set_at": c.set_at if c else None,
        "minimum_detectable_effect": f.minimum_detectable_effect,
        "n_required": f.n_required,
        "reason": f.reason,
        "detail": f.detail,
        "citation": f.citation,
        "other_kind": "yes" if f.other_kind else None,
    }


def _json(values: Mapping[str, str | float]) -> str | None:
    return json.dumps(values, ensure_ascii=False, default=str) if values else None


def cell(value: object) -> str:
    """A value as a CSV cell: formula-like text gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, str):
        shown = number_text.visible(value)
        return "'" + shown if shown.lstrip().startswith(_FORMULA) else shown
    return repr(value)


VERDICT = "verdict"


def render_junit(report: AuditReport) -> str:
    """JUnit XML as build servers read it; no published standard exists.

    FAIL is a ``failure``; INCONCLUSIVE and NOT_RUN are an ``error`` with the reason; NOT_APPLICABLE and what was held
    to nothing are ``skipped``; only PASS is a test without one of them. What was waived is skipped, and says so. A last
    test, ``verdict``, stands for the exit code, so that a report in which nothing was judged is not green.
    Numbers by group, feature or level that are held to nothing are left to the CSV; what is for other kinds of model
    is no test, and only counted in ``verdict``. A test's time is its share of its probe's processor time.
    """
    root = ElementTree.Element("testsuites", name="auditor")
    rows = [
        r
        for r in report_view.rows_of(report.findings)
        if not report_view.is_detail(r.finding) and not r.finding.other_kind
    ]
    stamp = _stamp(report.created)
    spent = {} if report.energy is None else {probe.probe: probe.cpu_s for probe in report.energy.probes}
    asked = Counter(row.finding.probe for row in rows)
    for pillar in report_view.PILLARS:
        if own := [r for r in rows if r.finding.pillar == pillar]:
            suite = ElementTree.SubElement(root, "testsuite", name=pillar, timestamp=stamp)
            for row in own:
                probe = row.finding.probe
                seconds = spent.get(probe, 0.0) / asked[probe]
                _case(suite, row, seconds, waived=is_waived(row.finding, report.allow_inconclusive))
            _count(suite)
    _verdict(ElementTree.SubElement(root, "testsuite", name=VERDICT, timestamp=stamp), report)
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.attrib[name]) for suite in root)))
    root.set("time", f"{report.duration_s:.3f}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _stamp(created: str) -> str:
    """The time as readers of JUnit XML take it: in UTC, without its zone."""
    moment = moment_of(created) or datetime.fromtimestamp(0, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _case(suite: ElementTree.Element, row: Row, seconds: float, *, waived: bool) -> None:
    f = row.finding
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=number_text.visible(".".join(p for p in (f.pillar, f.probe, f.method or "") if p)),
        name=number_text.visible(f"{row.name} {row.where}".strip()),
        time=f"{seconds:.3f}",
    )
    said = number_text.visible(said_of(row))
    match row.outcome:
        case Outcome.FAIL:
            _child(case, "failure", said, "FAIL")
        case Outcome.INCONCLUSIVE if waived:
            _child(case, "skipped", f"INCONCLUSIVE, waived by --allow-inconclusive. {said}")
        case Outcome.INCONCLUSIVE | Outcome.NOT_RUN:
            _child(case, "error", said, row.outcome.value)
        case Outcome.NOT_APPLICABLE:
            _child(case, "skipped", said)
        case Outcome.NOT_JUDGED:
            _child(case, "skipped", f"NOT_JUDGED: measured, no criterion set. {said}")
        case Outcome.PASS:
            ElementTree.SubElement(case, "system-out").text = said


def said_of(row: Row) -> str:
    """A finding's number, requirement and reason in a sentence or two."""
    number = f"{row.value} ({row.interval}{f' at {row.confidence}' if row.confidence else ''})" if row.value else ""
    required = f"must be {row.must_be}" if row.must_be else ""
    return ". ".join(part for part in (", ".join(p for p in (number, required) if p), row.finding.reason) if part)


def _child(case: ElementTree.Element, tag: str, message: str, kind: str = "") -> None:
    child = ElementTree.SubElement(case, tag, message=message)
    if kind:
        child.set("type", kind)
        child.text = message


def _verdict(suite: ElementTree.Element, report: AuditReport) -> None:
    verdict = report_view.verdict_of(report)
    case = ElementTree.SubElement(suite, "testcase", classname="auditor", name=VERDICT, time="0")
    said = f"{verdict.headline}. {verdict.sentence} Exit code {report.exit_code}."
    if report.refusal is not None:
        said += f" {report.refusal.printed_code}: {report.refusal.reason}"
    elsewhere = report_view.for_other_kinds(report)
    said += f" {elsewhere}." if elsewhere else ""
    # Whoever is shown the tests alone must still learn what they do not say, such as a registration not followed.
    record = f"Record {report_view.document_id(report)}. Not legal advice."
    said = number_text.visible(" ".join([said, *report_view.warnings_of(report), record]))
    if report.exit_code == ExitCode.PASSED:
        ElementTree.SubElement(case, "system-out").text = said
    else:
        _child(case, "failure" if report.exit_code == ExitCode.FAILED else "error", said, verdict.outcome.value)
    _count(suite)


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(tag) is not None for case in suite)))
    seconds = sum(float(case.get("time", "0")) for case in suite)
    suite.set("time", f"{seconds:.3f}")


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# A level other than "none" is only for kind "fail" (SARIF 2.1.0, 3.27.10).
_KINDS = {
    Outcome.FAIL: ("fail", "error"),
    Outcome.INCONCLUSIVE: ("fail", "warning"),
    Outcome.PASS: ("pass", "none"),
    Outcome.NOT_APPLICABLE: ("notApplicable", "none"),
    Outcome.NOT_JUDGED: ("informational", "none"),
}


def render_sarif(report: AuditReport) -> str:
    """A SARIF 2.1.0 log of one run.

    A result is a problem where its requirement is not shown to be met: FAIL has level ``error``, INCONCLUSIVE, which
    code scanning must not hide, ``warning``. PASS, NOT_APPLICABLE and NOT_JUDGED have level ``none`` and their kind.
    What did not run, and a refused model, are notifications of the tool's execution, which then was not successful.
    The place of all results is the model's file. Numbers by group, feature or level that are held to nothing are left
    to the CSV; what is for other kinds of model is no result, and only counted.
    """
    rows = [
        r
        for r in report_view.rows_of(report.findings)
        if not report_view.is_detail(r.finding) and not r.finding.other_kind
    ]
    judged = [r for r in rows if r.outcome is not Outcome.NOT_RUN]
    rules = list(dict.fromkeys(r.name for r in judged))
    stopped = [r for r in rows if r.outcome is Outcome.NOT_RUN]
    place = _place(report)
    run = {
        "tool": {
            "driver": {
                "name": number_text.visible(report.tool.get("name", "responsible-auditor")),
                "version": number_text.visible(report.tool.get("version", "")),
                "fullName": "auditor: audits of machine-learning models",
                "rules": [_rule(name, [r for r in judged if r.name == name]) for name in rules],
            }
        },
        "automationDetails": {"id": f"auditor/{report_view.document_id(report)[:16]}"},
        "invocations": [
            {
                "executionSuccessful": not stopped and report.refusal is None,
                "exitCode": report.exit_code,
                "exitCodeDescription": number_text.visible(report_view.verdict_of(report).headline),
                "toolExecutionNotifications": _notifications(report, stopped, place),
            }
        ],
        "results": [_result(r, rules.index(r.name), place) for r in judged],
        "properties": {
            "counts": {c.outcome.value: c.n for c in report_view.counts_of(report)},
            "for_other_kinds": report_view.n_for_other_kinds(report),
            "record_sha256": report_view.document_id(report),
            "note": "Not legal advice.",
        },
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(name: str, rows: Sequence[Row]) -> dict[str, object]:
    citation = next((r.finding.citation for r in rows if r.finding.citation), "")
    rule: dict[str, object] = {
        "id": number_text.visible(name),
        "shortDescription": {"text": number_text.visible(name.replace("_", " ").capitalize()) or "unnamed"},
        "properties": {"tags": sorted({str(r.finding.pillar) for r in rows})},
    }
    if citation:
        rule["fullDescription"] = {"text": number_text.visible(citation)}
    return rule


def _result(row: Row, index: int, place: dict[str, object]) -> dict[str, object]:
    f = row.finding
    kind, level = _KINDS[row.outcome]
    said = ": ".join(p for p in (f"{row.outcome.value} {row.name} {row.where}".strip(), said_of(row)) if p)
    numbers = {
        "value": f.value,
        "interval": None if f.interval is None else list(f.interval),
        "confidence": f.confidence,
        "n_samples": f.n_samples,
    }
    return {
        "ruleId": number_text.visible(row.name),
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": {"text": number_text.visible(said)},
        "locations": [place | {"logicalLocations": [{"fullyQualifiedName": number_text.visible(f.id)}]}],
        "partialFingerprints": {"auditorFinding/v1": hashlib.sha256(f.id.encode()).hexdigest()},
        "properties": {"outcome": row.outcome.value, "probe": number_text.visible(f.probe)}
        | {k: v for k, v in numbers.items() if v is not None},
    }


def _notifications(report: AuditReport, stopped: Sequence[Row], place: dict[str, object]) -> list[dict[str, object]]:
    said = [("error", row.name, f"NOT_RUN {row.name}: {row.finding.reason}") for row in stopped]
    if report.refusal is not None:
        said.insert(0, ("error", report.refusal.printed_code, f"Refused: {report.refusal.reason}"))
    said += [("warning", "note", warning) for warning in report_view.warnings_of(report)]
    return [
        {
            "descriptor": {"id": number_text.visible(name)},
            "level": level,
            "message": {"text": number_text.visible(words)},
            "locations": [place],
        }
        for level, name, words in said
    ]


def _place(report: AuditReport) -> dict[str, object]:
    path = report.model.path or "model-in-memory"
    uri = quote(PurePosixPath(path).as_posix(), safe="/")
    # A first segment with a colon would be read as a scheme; quote leaves none.
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": f"file://{uri}" if path.startswith("/") else uri},
            "region": {"startLine": 1},
        }
    }
