"""The model card, and the CycloneDX 1.6 bill of materials that contains it.

Only what the audit knows is filled in (Mitchell et al. 2019, "Model Cards for Model Reporting"); what somebody has to
say of the model is marked as missing, never invented.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from auditor.core.errors import MissingExtraError
from auditor.judging.measurement import Outcome
from auditor.report import report_view
from auditor.report.html import title_of
from auditor.report.markdown import code_span, escaped
from auditor.report.record import number_text
from auditor.report.record.audit_report import INTAKE, AuditReport, ModelRecord
from auditor.report.record.number_text import moment_of
from auditor.report.report_view import Row

TOOLKIT_SCHEMA = "0.0.2"
TO_BE_STATED = "Not known to the audit: to be stated by whoever provides the model."
# Of the hub's vocabulary; a record does not say more of the task.
_TASK = "other"
_MOST_ROWS = 60


def measured_rows(rows: Sequence[Row]) -> list[Row]:
    """Numeric findings about the model, overall or of a group; without curve points and file checks."""
    found = [r for r in rows if r.finding.metric and r.finding.value is not None]
    return [r for r in found if not r.finding.at and r.finding.pillar != INTAKE]


def model_name(report: AuditReport) -> str:
    """The audited file's name, fit for a catalogue."""
    return number_text.visible(title_of(report).removeprefix("Audit of "))


# ---- Hugging Face --------------------------------------------------------------------------------------------------


def render_model_card(report: AuditReport) -> str:
    """A ``README.md`` for the Hugging Face hub: metadata with a ``model-index`` of measured values, then the card.

    Numbers are never marked as verified, which is the hub's own to say. Raises MissingExtraError without
    ``huggingface_hub``.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        raise MissingExtraError(
            "A model card needs huggingface-hub, which comes with transformers: pip install huggingface-hub."
        ) from None
    rows = report_view.rows_of(report.findings)
    data = report.data
    name = _file_name(data.path) or "data in memory"
    results = [
        EvalResult(
            task_type=_TASK,
            task_name="Responsible-AI audit",
            dataset_type=re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data",
            dataset_name=number_text.visible(name),
            dataset_revision=data.sha256,
            metric_type=_identifier(row.name),
            metric_name=number_text.visible(f"{row.name} {row.where}".strip()),
            metric_value=row.finding.value,
            metric_args=_arguments(row),
        )
        for row in measured_rows(rows)
    ]
    card = ModelCardData(
        model_name=model_name(report) if results else None,
        eval_results=results or None,
        tags=["responsible-ai", "audit"],
        ignore_metadata_errors=False,
    )
    return f"---\n{card.to_yaml()}\n---\n\n{_body(report, rows)}"


def _arguments(row: Row) -> dict[str, object]:
    f = row.finding
    known: dict[str, object] = {"outcome": f.outcome.value}
    if f.interval is not None:
        known["interval"] = list(f.interval)
    return known | {k: v for k, v in (("confidence", f.confidence), ("n_samples", f.n_samples)) if v is not None}


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "metric"


def _file_name(path: str | None) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] if path else ""


def _body(report: AuditReport, rows: Sequence[Row]) -> str:
    lines = _verdict(report) + _model_details(report.model)
    lines += ["## Factors", ""]
    compared = ", ".join(code_span(s) for s in report.data.sensitive)
    lines += [f"Groups compared: {compared}." if compared else "No groups were named, so none were compared.", ""]
    lines += _data_details(report)
    lines += ["## Metrics and criteria", "", escaped(report_view.promise_of(report)), ""]
    lines += _table(
        [r for r in rows if not report_view.is_detail(r.finding) and not r.finding.other_kind],
        "## What was judged, and what was not",
    )
    lines += _table([r for r in measured_rows(rows) if r.finding.group], "## By group")
    lines += ["## Caveats and limits", "", *(f"- {escaped(limit)}" for limit in report_view.limits_of()), ""]
    version = code_span(report.tool.get("version", ""))
    lines += [
        f"Written by auditor {version} from record {code_span(report_view.document_id(report))}. Not legal advice."
    ]
    return "\n".join(lines) + "\n"


def _verdict(report: AuditReport) -> list[str]:
    verdict, counts = report_view.verdict_of(report), report_view.counts_in_words(report)
    lines = [f"# Model card: {code_span(model_name(report))}", ""]
    lines += [
        f"**{escaped(verdict.headline)}.** {escaped(verdict.sentence)} {counts}. Exit code {report.exit_code}.",
        "",
    ]
    if report.refusal is not None:
        lines += [f"{code_span(report.refusal.printed_code)} {escaped(report.refusal.reason)}", ""]
    return lines + [
        line for warning in report_view.warnings_of(report) for line in (f"> **Note well.** {escaped(warning)}", "")
    ]


def _model_details(m: ModelRecord) -> list[str]:
    lines = ["## Model details", ""]
    lines += [f"- File: {code_span(m.path or 'in memory')}, {code_span(m.format)}, loaded by {code_span(m.loaded_by)}"]
    lines += [f"- SHA-256: {code_span(m.sha256 or 'not known')}"]
    lines += [f"- Parameters: {number_text.count(m.n_parameters)}"] if m.n_parameters is not None else []
    lines += [f"- Classes: {', '.join(code_span(c) for c in m.classes)}"] if m.classes else []
    return [*lines, f"- Developers, licence, version: {TO_BE_STATED}", "", "## Intended use", "", TO_BE_STATED, ""]


def _data_details(report: AuditReport) -> list[str]:
    data = report.data
    lines = ["## Evaluation data", "", f"- File: {code_span(data.path or 'none was given, or in memory')}"]
    lines += [f"- SHA-256: {code_span(data.sha256 or 'not known')}"]
    lines += [f"- Rows: {number_text.count(data.n_rows)}"] if data.n_rows is not None else []
    lines += [f"- Target: {code_span(data.target)}"] if data.target else []
    lines += [f"- {escaped(note)}" for note in (*data.notes, *report.model.notes)]
    lines += ["", "## Training data", ""]
    return [*lines, f"File: {code_span(data.train_path)}." if data.train_path else TO_BE_STATED, ""]


def _table(rows: Sequence[Row], title: str) -> list[str]:
    if not rows:
        return []
    ranked = sorted(rows, key=lambda r: r.rank)
    lines = [title, "", "| Outcome | Measured | Value | Interval | Must be | Why |"]
    lines += ["| --- | --- | ---: | ---: | --- | --- |"]
    for r in ranked[:_MOST_ROWS]:
        what = " ".join(code_span(part, cell=True) for part in (r.name, r.where) if part)
        interval = f"{r.interval} at {r.confidence}" if r.confidence else r.interval
        outcome = r.outcome.words
        lines.append(f"| {outcome} | {what} | {r.value} | {interval} | {r.must_be} | {escaped(r.finding.reason)} |")
    more = [f"and {len(rows) - _MOST_ROWS:,} more, in report.json.", ""] if len(rows) > _MOST_ROWS else []
    return [*lines, "", *more]


# ---- Model Card Toolkit --------------------------------------------------------------------------------------------


def render_toolkit_json(report: AuditReport) -> str:
    """The model card as JSON of the Model Card Toolkit's schema v0.0.2; numbers are text there."""
    rows = report_view.rows_of(report.findings)
    m = report.model
    details: dict[str, object] = {
        "name": model_name(report),
        "overview": number_text.visible(
            f"{report_view.verdict_of(report).headline}. {report_view.verdict_of(report).sentence}"
        ),
        "documentation": (
            f"{number_text.visible(report_view.promise_of(report))} Written by auditor from record "
            f"{report_view.document_id(report)}. Not "
            f"legal advice. Intended use, owners and licence: {TO_BE_STATED}"
        ),
        "path": number_text.visible(m.path or "in memory"),
    }
    if m.sha256:
        details["version"] = {"name": f"sha256:{m.sha256}"}
    card = {
        "schema_version": TOOLKIT_SCHEMA,
        "model_details": details,
        "model_parameters": {
            "model_architecture": number_text.visible(m.format)
            + ("" if m.n_parameters is None else f", {number_text.count(m.n_parameters)} parameters"),
            "data": _toolkit_data(report),
        },
        "quantitative_analysis": {"performance_metrics": [metric_entry(r) for r in measured_rows(rows)]},
        "considerations": {
            "limitations": [
                {"description": limit}
                for limit in (
                    *report_view.limits_of(),
                    *map(number_text.visible, (*report_view.warnings_of(report), *unsettled(rows))),
                )
            ],
            "ethical_considerations": [
                {"name": number_text.visible(sentence), "mitigation_strategy": TO_BE_STATED} for sentence in risks(rows)
            ],
        },
    }
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _toolkit_data(report: AuditReport) -> list[dict[str, object]]:
    data = report.data
    found: list[dict[str, object]] = []
    for what, path, digest, n in (
        ("Evaluation", data.path, data.sha256, data.n_rows),
        ("Training", data.train_path, data.train_sha256, data.n_train_rows),
    ):
        if path is not None or n is not None:
            size = "" if n is None else f", {number_text.plural(n, 'row')}"
            entry: dict[str, object] = {
                "name": number_text.visible(path or "in memory"),
                "description": f"{what} data{size}, SHA-256 {digest or 'not known'}",
            }
            if data.sensitive and what == "Evaluation":
                entry["sensitive"] = {"sensitive_data": [number_text.visible(s) for s in data.sensitive]}
            found.append(entry)
    return found


def metric_entry(
    row: Row, interval: str = "confidence_interval", ends: tuple[str, str] = ("lower_bound", "upper_bound")
) -> dict[str, object]:
    """A measured number with its group and its interval, by the names that a format has for both ends."""
    f = row.finding
    metric: dict[str, object] = {"type": number_text.visible(row.name), "value": repr(f.value)}
    if row.where:
        metric["slice"] = number_text.visible(row.where)
    known = {name: repr(end) for name, end in zip(ends, f.interval or (None, None), strict=True) if end is not None}
    return metric | ({interval: known} if known else {})


def risks(rows: Sequence[Row]) -> list[str]:
    """A sentence for each finding significantly beyond its criterion."""
    return [
        f"{r.name} {r.where} is {r.value}, which must be {r.must_be}: {r.finding.reason}"
        for r in rows
        if r.outcome is Outcome.FAIL
    ]


def unsettled(rows: Sequence[Row]) -> list[str]:
    """A sentence for each finding that is undecided, not run or not applicable."""
    open_ = (Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.NOT_APPLICABLE)
    return [
        f"{r.outcome.words}: {f'{r.name} {r.where}'.strip()}. {r.finding.reason}".strip()
        for r in rows
        if r.outcome in open_ and not r.finding.other_kind
    ]


SPEC_VERSION = "1.6"
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # RFC 4122's for object identifiers
_MODEL, _DATA, _TRAIN = "model", "evaluation-data", "training-data"


def render_ml_bom(report: AuditReport) -> str:
    """A CycloneDX 1.6 ML-BOM as JSON; same record, same text.

    ``cyclonedx-python-lib`` writes the bill; the model card, which it does not know yet, is put in, and the whole is
    held against the schema of CycloneDX that it brings along. Raises MissingExtraError without it, ValueError where the
    result does not fit the schema.
    """
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        bill = json.loads(_bill(report))
    except ImportError:
        raise MissingExtraError(
            "An ML-BOM needs cyclonedx-python-lib: pip install 'responsible-auditor[bom]', or leave ml-bom out."
        ) from None
    subject = bill["metadata"]["component"]
    subject["modelCard"] = _card(report)
    written = json.dumps(bill, indent=2, ensure_ascii=False) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(written)
    if wrong is not None:
        raise ValueError(f"the bill of materials does not fit CycloneDX {SPEC_VERSION}: {wrong}")
    return written


def _bill(report: AuditReport) -> str:
    """The bill without the card, as the library writes it."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def hashes(digest: str | None) -> list[HashType]:
        known = digest is not None and len(digest) == 64
        return [HashType(alg=HashAlgorithm.SHA_256, content=str(digest))] if known else []

    m, data = report.model, report.data
    model = Component(
        name=model_name(report),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        version=f"sha256:{m.sha256[:16]}" if m.sha256 else None,
        hashes=hashes(m.sha256),
        properties=[
            Property(name=f"auditor:{name}", value=number_text.visible(value))
            for name, value in (
                ("path", m.path or "in memory"),
                ("format", m.format),
                ("loaded_by", m.loaded_by),
                ("exit_code", str(report.exit_code)),
                ("record_sha256", report_view.document_id(report)),
                *((c.outcome.value, str(c.n)) for c in report_view.counts_of(report)),
                ("for_other_kinds", str(report_view.n_for_other_kinds(report))),
                ("note", "Not legal advice."),
            )
        ],
    )
    sets = [
        Component(
            name=number_text.visible(path),
            type=ComponentType.DATA,
            bom_ref=ref,
            hashes=hashes(digest),
            properties=[Property(name="auditor:rows", value=str(n))] if n is not None else [],
        )
        for ref, path, digest, n in (
            (_DATA, data.path, data.sha256, data.n_rows),
            (_TRAIN, data.train_path, data.train_sha256, data.n_train_rows),
        )
        if path is not None
    ]
    libraries = [
        Component(
            name=number_text.visible(name),
            version=number_text.visible(version),
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", None, number_text.visible(name), number_text.visible(version)),
            bom_ref=f"package-{i}",
        )
        for i, (name, version) in enumerate(report.environment.packages.items(), 1)
    ]
    tool = Component(
        name=number_text.visible(report.tool.get("name", "responsible-auditor")),
        version=number_text.visible(report.tool.get("version", "")) or None,
        type=ComponentType.APPLICATION,
        bom_ref="tool",
    )
    bom = Bom(
        components=[*sets, *libraries],
        metadata=BomMetaData(component=model, timestamp=moment_of(report.created) or datetime.fromtimestamp(0, UTC)),
        serial_number=uuid.uuid5(_NAMESPACE, report_view.document_id(report)),
    )
    bom.metadata.tools.components.add(tool)
    bom.register_dependency(model, sets)
    return str(JsonV1Dot6(bom).output_as_string())


def _card(report: AuditReport) -> dict[str, object]:
    rows = report_view.rows_of(report.findings)
    refs = [{"ref": ref} for ref, path in ((_DATA, report.data.path), (_TRAIN, report.data.train_path)) if path]
    return {
        "modelParameters": {"modelArchitecture": number_text.visible(report.model.format), "datasets": refs},
        "quantitativeAnalysis": {
            "performanceMetrics": [
                metric_entry(r, "confidenceInterval", ("lowerBound", "upperBound")) for r in measured_rows(rows)
            ]
        },
        "considerations": {
            "technicalLimitations": [*report_view.limits_of(), *(number_text.visible(s) for s in unsettled(rows))],
            "ethicalConsiderations": [
                {"name": number_text.visible(s), "mitigationStrategy": TO_BE_STATED} for s in risks(rows)
            ],
        },
    }
