"""The report as SARIF 2.1.0 (OASIS), for code scanning: a rule per metric, a result per finding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.junit import said_of
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.report_view import Row

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
