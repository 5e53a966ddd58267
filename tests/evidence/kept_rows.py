"""The rows of a bundle as a scan keeps them, and as a reader gets them back."""

from __future__ import annotations

from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.run.predictions import Answers, AnswersHead, CountsRecord, KeptRows, parts_of, read_rows


def kept(model: AuditedModel, data: AuditData, head: AnswersHead) -> KeptRows:
    """As they come over the pipe."""
    rows = KeptRows(head)
    for part in parts_of(model, data, head):
        rows.add(part)
    assert rows.whole
    return rows


def content(rows: KeptRows) -> bytes:
    return b"".join(rows.content.blocks())


def read_back(rows: KeptRows, counts: CountsRecord | None = None) -> Answers:
    return read_rows(content(rows), rows.head, counts)
