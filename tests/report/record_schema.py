"""The JSON schema of the record, generated from its types: ``python -m tests.report.record_schema >
auditor/report/record/report.schema.json``."""

from __future__ import annotations

import json
import re
import sys
from importlib.resources import files

from auditor.report.record.audit_report import SCHEMA_VERSION, AuditReport

SCHEMA_FILE = "report.schema.json"
# Whoever generates types from the schema knows these by other names than the code has for them.
_PUBLISHED = {"Finding": "FindingRecord", "Figure": "FigureRecord", "Series": "SeriesRecord"}


def schema_json() -> str:
    """The present schema of ``report.json``, from the record's types."""
    schema = AuditReport.model_json_schema()
    for name, published in _PUBLISHED.items():
        schema["$defs"][name]["title"] = published
    schema["$defs"] = {_PUBLISHED.get(name, name): kind for name, kind in schema["$defs"].items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"auditor report {SCHEMA_VERSION}"}
    text = json.dumps(head | {k: v for k, v in schema.items() if k != "title"}, indent=2, ensure_ascii=False) + "\n"
    return re.sub(r'(?<="#/\$defs/)\w+', lambda name: _PUBLISHED.get(name[0], name[0]), text)


def shipped_schema() -> str:
    """The JSON schema shipped with the package."""
    return (files("auditor.report.record") / SCHEMA_FILE).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(schema_json())
