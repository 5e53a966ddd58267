"""The JSON schema of the record, generated from its types: ``python -m auditor.report.schema > report.schema.json``."""

from __future__ import annotations

import json
import sys
from importlib.resources import files

from auditor.report.record import SCHEMA_VERSION, AuditReport

SCHEMA_FILE = "report.schema.json"


def schema_json() -> str:
    """The schema of ``report.json`` as the record's types say it now."""
    schema = AuditReport.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"auditor report {SCHEMA_VERSION}"}
    return json.dumps(head | {k: v for k, v in schema.items() if k != "title"}, indent=2, ensure_ascii=False) + "\n"


def shipped_schema() -> str:
    """The schema that is shipped beside the record."""
    return (files("auditor.report") / SCHEMA_FILE).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(schema_json())
