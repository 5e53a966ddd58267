"""Every measurement of a report as one row of a CSV table, with the numbers in full."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping

from auditor.report import report_view
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding

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
