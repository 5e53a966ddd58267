"""A dossier as tests read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from auditor.evidence.write_dossier import dossier_of
from auditor.judging.policy import Policy
from auditor.report.markdown import to_markdown
from auditor.report.record.audit_report import AuditReport


def render_dossier(report: AuditReport, policies: Sequence[Policy], as_of: date, **beside: Any) -> str:
    """The dossier as Markdown."""
    return to_markdown(dossier_of(report, policies, as_of, **beside).blocks)
