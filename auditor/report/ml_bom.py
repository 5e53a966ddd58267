"""The report as a CycloneDX 1.6 bill of materials: the model with its card, the data, the measuring packages."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime

from auditor.core.errors import MissingExtraError
from auditor.report import report_view
from auditor.report.model_card import TO_BE_STATED, measured_rows, metric_entry, model_name, risks, unsettled
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.durations import moment_of

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
