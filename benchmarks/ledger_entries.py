"""What a ledger of 10,000 entries adds to a scan: opened, looks and decisions found, the audit entered and read back.

Processor time of one process with everything imported, the least of ``TIMES``; once where all other audits are of other
models and rows, and once where all of them are of this model and these rows. The peer reads the whole ledger and
computes its chain anew, which a scan did before there was an index, and ``auditor history --verify`` does.
ratio = 0.050 s / ours.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from auditor.evidence.history.earlier_looks import Asked, Known, looks_of
from auditor.evidence.history.entries import GENESIS, AuditEntry, Entry
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.manifest import canonical
from auditor.report.record.audit_report import AuditReport
from benchmarks.common import emit
from cli.history import decisions_in

ENTRIES, TIMES, MOST_SECONDS = 10_000, 7, 0.050
_COLUMNS = ("number", "created", "kind", "payload", "previous", "hash")
_RECORD = Path(__file__).parent.parent / "tests" / "golden" / "report.json"


def record() -> dict[str, Any]:
    """A small record of an audit of a model and rows that are known by their digests."""
    said: dict[str, Any] = json.loads(_RECORD.read_bytes())
    said["findings"], said["figures"] = said["findings"][:12], []
    said["registration"], said["decisions"] = None, []
    said.pop("looks", None)
    return said


def fill(path: Path, *, same: bool) -> None:
    """The ledger, written past the index, which the first scan makes."""
    Ledger(path).close()
    made, previous = record(), GENESIS
    with sqlite3.connect(path) as database:
        for number in range(1, ENTRIES + 1):
            digest = hashlib.sha256(str(0 if same else number).encode()).hexdigest()
            made["model"] |= {"sha256": digest}
            made["data"] |= {"sha256": digest, "rows_sha256": digest}
            said = {"record": made, "record_sha256": hashlib.sha256(canonical(made)).hexdigest(), "whole": True}
            entry = Entry.from_previous(
                number, previous, f"2026-01-01T00:00:00.{number % 1000:03d}+00:00", "audit", json.dumps(said)
            )
            previous = entry.hash
            database.execute(
                f"INSERT INTO auditor_entries ({', '.join(_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?)",
                (entry.number, entry.created, entry.kind, entry.payload, entry.previous, entry.hash),
            )
    database.close()


def entered(path: Path, report: AuditReport) -> float:
    """Seconds of processor time from opening the ledger to the audit's being read back from it."""
    began = time.process_time()
    ledger = Ledger(path)
    known, head = Known.from_ledger(ledger), ledger.head()
    found = report.model_copy(update={"decisions": decisions_in(ledger, report)})
    looks = looks_of(known, head, found, Asked(probes=(), options={}), None)
    ledger.append_after(head, "audit", AuditEntry.from_report(found.model_copy(update={"looks": looks})))
    ledger.close()
    return time.process_time() - began


def read_whole(path: Path, report: AuditReport) -> float:
    """The same counted without an index beside the ledger: everything read, and the chain computed anew."""
    began = time.process_time()
    ledger = Ledger(path)
    entries = list(ledger.entries())
    looks_of(Known.from_entries(entries), entries[-1].hash, report, Asked(probes=(), options={}), None)
    ledger.close()
    return time.process_time() - began


def main() -> None:
    """Prints both."""
    digest = hashlib.sha256(b"0").hexdigest()
    made = record()
    made["model"] |= {"sha256": digest}
    made["data"] |= {"sha256": digest, "rows_sha256": digest}
    report = AuditReport.model_validate(made)
    for same in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "h.db"
            fill(path, same=same)
            first, *rest = [entered(path, report) for _ in range(TIMES + 1)]
            emit(
                "ledger_entries",
                ours=min(rest),
                peer=read_whole(path, report),
                ratio=MOST_SECONDS / min(rest),
                bar=1.0,
                threads=1,
                others="of these rows and this model" if same else "of other rows and models",
                entries=ENTRIES,
                index_made_once_in=round(first, 2),
            )


if __name__ == "__main__":
    main()
