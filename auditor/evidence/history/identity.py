"""Identity of the audited model: its given id, else its bytes, else its path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from auditor.core.errors import DataError
from auditor.evidence.history.entries import Entry

if TYPE_CHECKING:
    from auditor.report.record.audit_report import AuditReport


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a model; ``id`` is "" if audit.toml gave none."""

    id: str = ""
    sha256: str | None = None
    path: str | None = None

    @classmethod
    def from_report(cls, report: AuditReport) -> Identity:
        """The identity of the model that a record is about."""
        given = "" if report.about is None else report.about.model.id
        return cls(id=given, sha256=report.model.sha256, path=report.model.path)


def record_in(entry: Entry) -> tuple[str, Identity]:
    """The digest of the record of the audit in an entry, and its model. Raises DataError where it holds none."""
    try:
        found = _Entry.model_validate_json(entry.payload)
    except ValidationError:
        raise DataError(f"Entry {entry.number} of the history cannot be read: it holds no audit.") from None
    about, model = found.record.about, found.record.model
    return found.record_sha256, Identity(id=about.model.id if about else "", sha256=model.sha256, path=model.path)


def owners_of(identities: Iterable[Identity]) -> dict[str, str]:
    """The first id given to each file, by the file's SHA-256."""
    found: dict[str, str] = {}
    for each in identities:
        if each.id and each.sha256 is not None:
            found.setdefault(each.sha256, each.id)
    return found


class _Lean(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Named(_Lean):
    id: str = ""


class _About(_Lean):
    model: _Named = _Named()


class _Model(_Lean):
    path: str | None = None
    sha256: str | None = None


class _Record(_Lean):
    about: _About | None = None
    model: _Model


class _Entry(_Lean):
    record: _Record
    record_sha256: str = ""
