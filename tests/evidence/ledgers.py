"""Ledgers of many audits, made fast from one template record: no model is loaded and nothing is measured."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from auditor.evidence.history.entries import GENESIS, AuditEntry, Decision, Entry, Kind
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.manifest import canonical
from auditor.report.record.audit_report import AuditReport

_COLUMNS = ("number", "created", "kind", "payload", "previous", "hash")
FIRST = date(2025, 1, 15)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def of_known_files(report: AuditReport, **update: object) -> AuditReport:
    """The record as of a model and rows in files, whose digests are told apart from any other's."""
    known = {
        "model": report.model.model_copy(update={"path": "m.pt", "sha256": "a" * 64}),
        "data": report.data.model_copy(update={"path": "d.csv", "sha256": "d" * 64, "rows_sha256": "e" * 64}),
    }
    return report.model_copy(update=known | update)


@dataclass(frozen=True, kw_only=True)
class Told:
    """An audit as a test tells it; ``outcomes``: by id of the template's findings, all others stay as they are."""

    day: date = FIRST
    model: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = "a" * 64
    path: str | None = "models/m.pt"
    data: str = "rows.csv"
    outcomes: Mapping[str, str] = field(default_factory=dict)
    policies: Sequence[Mapping[str, Any]] = ()
    controls: Sequence[Mapping[str, Any]] = ()
    criteria: Sequence[Mapping[str, Any]] | None = None
    refused: bool = False
    bundle: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


class Template:
    """A record that audits are made from, as JSON."""

    def __init__(self, report: AuditReport, keep: Iterable[str] | None = None) -> None:
        self.entry = AuditEntry.from_report(report.model_copy(update={"figures": ()})).model_dump(mode="json")
        record = self.entry["record"]
        if keep is not None:
            named = set(keep)
            record["findings"] = [finding for finding in record["findings"] if finding["id"] in named]
        self.ids = [finding["id"] for finding in record["findings"]]

    def payload(self, told: Told) -> str:
        record: dict[str, Any] = dict(self.entry["record"])
        record["model"] = {**record["model"], "path": told.path, "sha256": told.sha256}
        record["data"] = {**record["data"], "path": told.data, "sha256": sha(told.data), "rows_sha256": None}
        record["data"].pop("rows_sha256")
        record.pop("about", None)
        if told.model:
            record["about"] = {"model": dict(told.model), "language": "en"}
        record["findings"] = [
            {**f, "outcome": told.outcomes[f["id"]]} if f["id"] in told.outcomes else f for f in record["findings"]
        ]
        counted = [finding["outcome"] for finding in record["findings"]]
        names = ("pass", "fail", "inconclusive", "not_run", "not_applicable", "not_judged")
        record["summary"] = {name: counted.count(name.upper()) for name in names}
        open_ = "FAIL" in counted and 1 or ({"INCONCLUSIVE", "NOT_RUN"} & set(counted) and 3) or 0
        record["exit_code"] = 4 if told.refused else open_
        record["refusal"] = {"code": "unsafe_pickle", "reason": "It is a pickle."} if told.refused else None
        if told.refused:
            record["findings"], record["summary"] = [], dict.fromkeys(names, 0)
        record["policies"], record["controls"] = list(told.policies), list(told.controls)
        record["created"] = f"{told.day.isoformat()}T10:00:00+00:00"
        if told.criteria is not None:
            record["criteria"] = list(told.criteria)
        record |= told.changes
        digest = sha(canonical(record).decode())
        said = {**self.entry, "record": record, "record_sha256": digest, "bundle": told.bundle}
        return json.dumps(said, separators=(",", ":"))


def decided(number: int, payload: str, day: date, findings: Iterable[str] = (), **changes: Any) -> tuple[date, str]:
    """A decision on the audit with a number and a payload, and the day on which it is made."""
    said = json.loads(payload)
    made = Decision(
        **{
            "audit": number,
            "record_sha256": said["record_sha256"],
            "model_path": said["record"]["model"]["path"],
            "model_sha256": said["record"]["model"]["sha256"],
            "decision": "accept",
            "by": "Ann Example",
            "role": "Model risk officer",
            "expires": day + timedelta(days=90),
            "findings": tuple(findings),
            **changes,
        }
    )
    return day, made.model_dump_json()


def write_ledger(path: Path, entries: Iterable[tuple[Kind, date, str]]) -> Path:
    """A ledger with these payloads in their order, chained as an append chains them."""
    Ledger(path).close()
    connection = sqlite3.connect(path)
    previous = GENESIS
    with connection:
        for number, (kind, day, payload) in enumerate(entries, 1):
            entry = Entry.from_previous(number, previous, f"{day.isoformat()}T10:00:00.000+00:00", kind, payload)
            previous = entry.hash
            connection.execute(
                f"INSERT INTO auditor_entries ({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)",
                (entry.number, entry.created, entry.kind, entry.payload, entry.previous, entry.hash),
            )
    connection.close()
    return path


def write_audits(path: Path, template: Template, told: Iterable[Told]) -> Path:
    return write_ledger(path, (("audit", each.day, template.payload(each)) for each in told))
