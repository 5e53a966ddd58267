"""The report as JUnit XML, for a build server that shows tests: a suite per pillar, a test per requirement."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.report.record.durations import moment_of
from auditor.report.report_view import Row

VERDICT = "verdict"


def render_junit(report: AuditReport) -> str:
    """JUnit XML as build servers read it; no published standard exists.

    FAIL is a ``failure``; INCONCLUSIVE and NOT_RUN are an ``error`` with the reason; NOT_APPLICABLE and what was held
    to nothing are ``skipped``; only PASS is a test without one of them. What was waived is skipped, and says so. A last
    test, ``verdict``, stands for the exit code, so that a report in which nothing was judged is not green.
    Numbers by group, feature or level that are held to nothing are left to the CSV; what is for other kinds of model
    is no test, and only counted in ``verdict``.
    """
    root = ElementTree.Element("testsuites", name="auditor")
    rows = [
        r
        for r in report_view.rows_of(report.findings)
        if not report_view.is_detail(r.finding) and not r.finding.other_kind
    ]
    stamp = _stamp(report.created)
    for pillar in report_view.PILLARS:
        if own := [r for r in rows if r.finding.pillar == pillar]:
            suite = ElementTree.SubElement(root, "testsuite", name=pillar, timestamp=stamp)
            for row in own:
                _case(suite, row, waived=report.allow_inconclusive)
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


def _case(suite: ElementTree.Element, row: Row, *, waived: bool) -> None:
    f = row.finding
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=number_text.visible(".".join(p for p in (f.pillar, f.probe, f.method or "") if p)),
        name=number_text.visible(f"{row.name} {row.where}".strip()),
        time="0",
    )
    said = number_text.visible(said_of(row))
    match row.outcome:
        case Outcome.FAIL:
            _child(case, "failure", said, "FAIL")
        case Outcome.INCONCLUSIVE if waived and not (row.finding.vacuous or row.finding.doubtful):
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
    suite.set("time", "0")
