"""The numbers of a record in the form of Every Eval Ever (EEE), which stores results of all harnesses alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from auditor.report import report_view
from auditor.report.model_card_and_bom import model_name
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About
from auditor.report.record.number_text import visible

SCHEMA = "0.3.0"
_UNKNOWN = "unknown"


def render_eee(report: AuditReport) -> str:
    """One aggregate file of EEE 0.3: a result for each finding with a number, with its interval and how it was made.

    What has no number, or one that is not finite, has no place there: how many findings that are stands in the details
    of the library. Who offers the model, and how it is offered, is unknown unless audit.toml says so. The model has the
    name that audit.toml gives it, else the one that the audited log states, which its details say, else its file's.
    """
    about = report.about or About()
    stated = None if about.model.name else report.model.stated_name
    name = visible(about.model.name or stated or model_name(report))
    numbers = [f for f in report.findings if f.value is not None and math.isfinite(f.value)]
    written = {
        "evaluation_id": f"auditor/{name}/{report.created}",
        "schema_version": SCHEMA,
        "evaluation_timestamp": report.created,
        "retrieved_timestamp": f"{datetime.fromisoformat(report.created).timestamp():.0f}",
        "source_metadata": {
            "source_name": "auditor",
            "source_type": "evaluation_run",
            "source_organization_name": visible(about.organisation.name) or _UNKNOWN,
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "responsible-auditor",
            "version": report.tool.get("version", _UNKNOWN),
            "additional_details": {
                "record_sha256": report_view.document_id(report),
                "record_schema": report.schema_version,
                "exit_code": str(report.exit_code),
                "findings_without_a_number": str(len(report.findings) - len(numbers)),
                "note": "Not legal advice.",
            },
        },
        "model_info": {
            "name": name,
            "id": name,
            "additional_details": {
                "deployment_type": _UNKNOWN,
                "model_availability": _UNKNOWN,
                "format": report.model.format,
                **({"name_stated_by": "the audited log"} if stated else {}),
                **({"sha256": report.model.sha256} if report.model.sha256 else {}),
            },
        },
        "evaluation_results": [_result(f, report) for f in numbers],
    }
    return json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _result(f: Finding, report: AuditReport) -> dict[str, Any]:
    data = report.data
    known = {"sha256": data.sha256, "rows": data.n_rows}
    return {
        "evaluation_result_id": visible(f.id),
        "evaluation_name": visible(f.probe),
        "source_data": {
            "dataset_name": visible((data.path or "rows in memory").replace("\\", "/").rpartition("/")[2]),
            "source_type": "other",
            "additional_details": {key: str(value) for key, value in known.items() if value is not None},
        },
        "metric_config": {
            "metric_id": visible(f"auditor.{f.probe}.{f.metric}"),
            "metric_name": visible(str(f.metric)),
            "lower_is_better": _lower_is_better(f),
            **_scale(f),
        },
        "score_details": {"score": f.value, "details": dict(_details(f)), "uncertainty": _uncertainty(f)},
    }


def _lower_is_better(f: Finding) -> bool:
    """By the criterion, else by the ideal; details say where a number has no ideal, and is no better either way."""
    if f.criterion is not None and f.criterion.direction in ("at_most", "at_least"):
        return f.criterion.direction == "at_most"
    if f.ideal is None or f.estimate is None:
        return False
    return f.ideal < f.estimate.limits[1]


def _scale(f: Finding) -> dict[str, Any]:
    if f.estimate is None or f.value is None:
        return {}
    low, high = f.estimate.limits
    if not low <= f.value <= high:
        return {}
    ends = [end if math.isfinite(end) else "Infinity" if end > 0 else "-Infinity" for end in (low, high)]
    return {"score_type": "continuous", "min_score": ends[0], "max_score": ends[1]}


def _uncertainty(f: Finding) -> dict[str, Any]:
    samples = {} if f.n_samples is None else {"num_samples": f.n_samples}
    low, high = f.interval or (None, None)
    if low is None or high is None or f.confidence is None or not (math.isfinite(low) and math.isfinite(high)):
        return samples
    method = "" if f.estimate is None else f.estimate.interval_test
    interval = {
        "lower": low,
        "upper": high,
        "confidence_level": f.confidence,
        "method": method or "known without sampling error",
    }
    return {"confidence_interval": interval, **samples}


def _details(f: Finding) -> Iterator[tuple[str, str]]:
    said = {
        "outcome": f.outcome.value,
        "method": f.method,
        "estimate": None if f.estimate is None else f.estimate.kind,
        "sensitive": ", ".join(f.sensitive),
        "group": json.dumps(f.group, ensure_ascii=False) if f.group else "",
        "at": json.dumps(f.at, ensure_ascii=False) if f.at else "",
        "required": "" if f.criterion is None else f"{f.criterion.direction} {f.criterion.bound}",
        "ideal": "none" if f.ideal is None else f"{f.ideal:g}",
        "reason": f.reason,
        "detail": f.detail,
        "citation": f.citation,
    }
    yield from ((key, visible(value)) for key, value in said.items() if value)
