"""For every field of a record: its proof, or the reason why it cannot be proven."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from auditor.evidence.verify.checks import Check, Needs, Unproven
from auditor.report.record.audit_report import AuditReport


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The proof of a field. ``by``: the check that recomputes it, "" if none; ``why``: the reason why part of it stays
    open nevertheless, and what it ``needs``: None for a plain statement."""

    by: str = ""
    why: str = ""
    needs: Needs | None = None


_NAME = "what it is called is the signer's word"
_FILE = "whether the file has this digest, whoever has the file can tell: auditor reproduce"
_MACHINE = "where it ran is the signer's word"
_ROWS = "what was read of the rows' file is the signer's word: auditor reproduce reads it again"

# Fields as dotted paths; ``.*`` is all below one. A field that is none of these has not been thought of.
FIELDS: Mapping[str, Proof] = {
    "schema_version": Proof(by="record.json"),
    # Its place in time is told by the check of dates.
    "created": Proof(by="dates, log"),
    "tool": Proof(by="log", why="which code measured is the log's word"),
    "model.path": Proof(why=_NAME),
    "model.sha256": Proof(by="log, registration", why=_FILE),
    "model.format": Proof(why=_FILE),
    "model.loaded_by": Proof(why=_MACHINE),
    "model.size_bytes": Proof(why=_FILE),
    "model.n_parameters": Proof(why=_FILE),
    "model.dtype": Proof(why=_MACHINE),
    "model.classes": Proof(by="rows", why=_FILE),
    "model.notes": Proof(why=_FILE),
    "data.path": Proof(why=_NAME),
    "data.sha256": Proof(by="log, registration", why=_FILE),
    "data.rows_sha256": Proof(why=_FILE),
    "data.n_rows": Proof(by="rows"),
    "data.target": Proof(by="configuration"),
    "data.positive": Proof(by="configuration"),
    "data.sensitive": Proof(by="configuration"),
    "data.train_path": Proof(why=_NAME),
    "data.train_sha256": Proof(by="registration", why=_FILE),
    "data.n_train_rows": Proof(why=_ROWS),
    "data.unreadable": Proof(by="files", why=_ROWS),
    "data.n_unreadable": Proof(by="files", why=_ROWS),
    "data.notes": Proof(why=_ROWS),
    "data.cluster": Proof(by="request.json"),
    "data.n_clusters": Proof(why=_ROWS, needs="rows"),
    "data.weight": Proof(by="request.json"),
    "data.design_effect": Proof(why=_ROWS, needs="rows"),
    "data.effective_n": Proof(why=_ROWS, needs="rows"),
    "data.copies.*": Proof(by="files", why=_ROWS, needs="numbers"),
    "data.groups_sha256": Proof(why=_FILE),
    "data.groups": Proof(by="group table", why="no table of groups counts them", needs="numbers"),
    "data.missing.labels": Proof(by="group table", why=_ROWS, needs="numbers"),
    "data.missing.*": Proof(why=_ROWS),
    "environment.python": Proof(why=_MACHINE),
    "environment.platform": Proof(why=_MACHINE),
    "environment.packages": Proof(why=_MACHINE),
    "environment.device": Proof(why=_MACHINE),
    "environment.seed": Proof(by="request.json, log"),
    "environment.limits": Proof(why=_MACHINE),
    "environment.sandbox.*": Proof(why=_MACHINE),
    "environment.command": Proof(by="request.json", why="how it was started is the signer's word"),
    "family.*": Proof(by="numbers"),
    "criteria.*": Proof(by="numbers, configuration", why="who set a bound, and why, is the signer's word"),
    "findings.*": Proof(by="numbers"),
    "figures.*": Proof(by="numbers"),
    "summary.*": Proof(by="numbers"),
    "refusal.*": Proof(why="why a file was refused, the file alone shows: auditor reproduce"),
    "allow_inconclusive": Proof(by="request.json"),
    "decisions.*": Proof(by="decisions"),
    "policies.*": Proof(by="rule pack"),
    "controls.*": Proof(by="rule pack"),
    "registration.path": Proof(why=_NAME),
    "registration.*": Proof(by="registration"),
    "looks.*": Proof(
        by="looks", why="how often these rows were looked at is for the history to say: --db", needs="history"
    ),
    "training.*": Proof(why="what was seen while the model learned is not counted anew", needs="numbers"),
    "about.*": Proof(by="configuration", why="names, purposes and descriptions are the signer's word"),
    "configuration.*": Proof(by="configuration", why="who named a file, and where it lay, is the signer's word"),
    "roles.*": Proof(by="configuration", why="what a column holds is the signer's word"),
    "definitions": Proof(by="numbers"),
    "questions": Proof(by="numbers"),
    "energy.*": Proof(why="what it took is the signer's word: counters cannot be read again"),
    "duration_s": Proof(by="dates", why="how long it took is the signer's word"),
    "exit_code": Proof(by="numbers, log"),
}
_PARTS = (
    Unproven(where="rows.csv: *", why="that the model gave these answers, only the model can tell: auditor reproduce"),
    Unproven(where="log.jsonl: *", why="what is logged beside the record is the signer's word"),
    Unproven(where="request.json: *", why="what was asked for and is not in the record is the signer's word"),
)


def list_unproven(report: AuditReport, checks: Collection[Check]) -> list[Unproven]:
    """Non-empty fields of a record that none of these checks covers."""
    fine = {check.name for check in checks if check.state == "ok"}
    said = report.model_dump(mode="json")
    found = [
        Unproven(where=f"record.json: {path}", why=proof.why, needs=proof.needs)
        for path, proof in FIELDS.items()
        if proof.why and not (proof.needs and proof.by in fine) and _says(said, path.removesuffix(".*").split("."))
    ]
    return [*found, *_PARTS]


def _says(value: Any, path: list[str]) -> bool:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value not in (None, "", [], {}, 0)
