"""The index beside the ledger: a scan reads what it asks for, and nothing rests on it unchecked."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.core.errors import DataError, UsageError
from auditor.evidence.history.check_history import wrong_in_history
from auditor.evidence.history.earlier_looks import Asked, Known, looks_of, next_look
from auditor.evidence.history.entries import GENESIS, AuditEntry, Entry, digest_of
from auditor.evidence.history.index import Index
from auditor.evidence.history.ledger import Ledger
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.earlier_audits import MOST_KEPT
from cli.commands import app
from cli.history import decisions_in, signoff
from tests import ROOT
from tests.evidence.ledgers import Template, Told, of_known_files, write_audits
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of

ASKED = Asked(probes=("group_fairness",), options={})
GOLDEN = ROOT / "tests" / "golden"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def report() -> AuditReport:
    return of_known_files(evidence(n=60).report)


def entered(where: Path, report: AuditReport) -> AuditReport:
    """What a scan asks of its ledger and puts into it, from opening it on."""
    ledger = Ledger(where)
    try:
        known, head = Known.from_ledger(ledger), ledger.head()
        next_look(known, "spring", None, 0.05)
        report = report.model_copy(update={"decisions": decisions_in(ledger, report)})
        report = report.model_copy(update={"looks": looks_of(known, head, report, ASKED, None)})
        assert ledger.append_after(head, "audit", AuditEntry.from_report(report)) is not None
        return report
    finally:
        ledger.close()


class Read:
    """What is asked of a database and how many rows come back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import CursorResult, Engine

        self.statements: list[tuple[str, Any]] = []
        self.rows = 0
        fetched, first = CursorResult.all, CursorResult.first

        def all_(result: Any) -> Sequence[Any]:
            found = fetched(result)
            self.rows += len(found)
            return found

        def first_(result: Any) -> Any:
            found = first(result)
            self.rows += found is not None
            return found

        monkeypatch.setattr(CursorResult, "all", all_)
        monkeypatch.setattr(CursorResult, "first", first_)

        def said(_: Any, __: Any, statement: str, parameters: Any, *rest: Any) -> None:
            self.statements.append((statement, parameters))

        event.listen(Engine, "before_cursor_execute", said)

        def stop() -> None:
            if event.contains(Engine, "before_cursor_execute", said):
                event.remove(Engine, "before_cursor_execute", said)

        self.stop = stop


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    made = Read(monkeypatch)
    yield made
    made.stop()


def test_a_scan_reads_as_many_rows_of_a_long_ledger_as_of_a_short_one(
    report: AuditReport, tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = Template(report, keep=())
    counted, seen = [], list[tuple[str, Any]]()
    monkeypatch.setattr(Ledger, "entries", lambda _: pytest.fail("the whole ledger was read"))
    for n in (30, 300):
        path = tmp_path / f"{n}.db"
        many = (
            Told(day=date(2025, 1, 1) + timedelta(days=k), sha256=f"{k:064x}", data=f"{k}.csv", path=f"{k}.pt")
            for k in range(n)
        )
        write_audits(path, template, many)
        for _ in range(3):
            # The first takes what was written past it into the index.
            entered(path, report)
        read.rows, read.statements = 0, []
        found = entered(path, report)
        counted.append((read.rows, len(read.statements)))
        seen = list(read.statements)
        assert found.looks is not None and (found.looks.rows, found.looks.model) == (4, 4)
    assert counted[0] == counted[1] and 5 < counted[0][0] < 40
    read.stop()
    asked = [(s, p) for s, p in seen if s.startswith("SELECT") and "auditor_entries" in s or "FROM auditor_index" in s]
    with sqlite3.connect(path) as database:
        plans = [
            (" ".join(str(row[3]) for row in database.execute(f"EXPLAIN QUERY PLAN {s}", tuple(p))), s)
            for s, p in asked
        ]
    assert len(plans) > 10 and all_of("SCAN" not in plan or "LIMIT" in statement for plan, statement in plans)


def test_many_looks_at_the_same_rows_make_no_record_longer(report: AuditReport, tmp_path: Path, read: Read) -> None:
    template = Template(report, keep=())
    data = {**template.entry["record"]["data"], "sha256": "d" * 64, "rows_sha256": "e" * 64}
    same = [Told(day=date(2025, 1, 1) + timedelta(days=k), changes={"data": data}) for k in range(3 * MOST_KEPT)]
    path = write_audits(tmp_path / "h.db", template, same)
    found = entered(path, report)
    assert found.looks is not None and found.looks.rows == 3 * MOST_KEPT + 1
    assert len(found.looks.earlier) == MOST_KEPT and found.looks.earlier[-1].entry == 3 * MOST_KEPT
    assert "144 before them, " in found.looks.describe()
    assert any(f"at {3 * MOST_KEPT} entries from 1 to {3 * MOST_KEPT}" in said for said in found.looks.changed)
    # Those that asked the same are read once.
    assert sum("FROM auditor_entries" in statement for statement, _ in read.statements) < 20
    assert run("history", "--verify", "--db", path).exit_code == 0


# ---- what rests on it is checked -----------------------------------------------------------------------------------


def changed(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_an_index_that_hides_a_look_is_named_and_is_made_anew(report: AuditReport, tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    for _ in range(3):
        entered(path, report)
    assert run("history", "--verify", "--db", path).exit_code == 0
    changed(path, "UPDATE auditor_index SET data = '', rows = '' WHERE number = 1")
    said = run("history", "--verify", "--db", path)
    assert said.exit_code == 1 and "the index beside the entries was changed" in said.output
    changed(path, "DROP TABLE auditor_index")
    found = entered(path, report)
    assert found.looks is not None and found.looks.rows == 4
    assert run("history", "--verify", "--db", path).exit_code == 0
    changed(path, "CREATE TRIGGER sly AFTER INSERT ON auditor_index BEGIN DELETE FROM auditor_index; END")
    with pytest.raises(DataError, match="has a trigger or rule, 'sly'"):
        Ledger(path)


def test_nothing_follows_on_an_end_that_was_changed(report: AuditReport, tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    for _ in range(3):
        entered(path, report)
    kept = path.read_bytes()

    def refused(*statements: str) -> str:
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        path.write_bytes(kept)
        changed(path, *statements)
        with pytest.raises(DataError) as error:
            entered(path, report)
        return str(error.value)

    better = """replace(payload, '"exit_code":3', '"exit_code":0')"""
    assert "entry 3 was changed" in refused(f"UPDATE auditor_entries SET payload = {better} WHERE number = 3")
    assert "entry 3 does not follow on" in refused("UPDATE auditor_entries SET previous = hash WHERE number = 3")
    assert "entry 2 is missing" in refused("DELETE FROM auditor_entries WHERE number = 2")
    # Of those that a scan rests on each is computed anew, wherever it stands.
    assert "ntry 1 of the history was changed" in refused(
        f"UPDATE auditor_entries SET payload = {better} WHERE number = 1"
    )


def test_an_earlier_version_s_ledger_is_read_and_goes_on(report: AuditReport, tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    shutil.copy(GOLDEN / "history.db", path)
    with sqlite3.connect(path) as database:
        before = database.execute("SELECT * FROM auditor_entries ORDER BY number").fetchall()
        assert database.execute("SELECT schema FROM auditor_history").fetchall() == [(1,)]
    database.close()
    for command in (("history",), ("history", "findings"), ("history", "--verify")):
        assert run(*command, "--db", path).exit_code == 0
    assert "without its drawings" in run("history", "--verify", "--db", path).output
    with sqlite3.connect(path) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    # What is only read stays as it was.
    assert tables == {"auditor_entries", "auditor_history"}
    ledger = Ledger(path, create=False)
    old = ledger.entry(3).audit().record
    ledger.close()
    found = entered(path, old.model_copy(update={"exit_code": 1, "registration": None}))
    assert found.looks is not None and (found.looks.rows, found.looks.model) == (3, 3)
    assert [look.entry for look in found.looks.earlier] == [1, 3] and len(found.decisions) == 1
    with sqlite3.connect(path) as database:
        after = database.execute("SELECT * FROM auditor_entries ORDER BY number").fetchall()
        assert database.execute("SELECT schema FROM auditor_history").fetchall() == [(2,)]
    database.close()
    assert after[:3] == before and len(after) == 4
    verified = run("history", "--verify", "--db", path)
    assert verified.exit_code == 0 and "Of 2 audits, the last at entry 3, an earlier version kept" in verified.output
    ledger = Ledger(path)
    assert ledger.index.all() == Index.from_entries(list(ledger.entries())).all() and len(ledger.index.all()) == 4
    ledger.close()


def test_a_decision_is_entered_into_an_earlier_version_s_ledger(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    shutil.copy(GOLDEN / "history.db", path)
    signoff("3", by="Ann", role="officer", decision="reject", db=str(path))
    ledger = Ledger(path, create=False)
    assert [line.kind for line in ledger.index.all()] == ["audit", "decision", "audit", "decision"]
    ledger.close()


# ---- the record in an entry ----------------------------------------------------------------------------------------


def rechained(path: Path, number: int, payload: str) -> None:
    """The ledger with another payload in an entry and a whole chain around it, as whoever owns the file can make it."""
    ledger = Ledger(path, create=False)
    entries = list(ledger.entries())
    ledger.close()
    with sqlite3.connect(path) as database:
        previous = entries[number - 2].hash if number > 1 else GENESIS
        for entry in entries[number - 1 :]:
            text = payload if entry.number == number else entry.payload
            made = Entry.from_previous(entry.number, previous, entry.created, entry.kind, text)
            database.execute(
                "UPDATE auditor_entries SET payload = ?, previous = ?, hash = ? WHERE number = ?",
                (made.payload, made.previous, made.hash, made.number),
            )
            previous = made.hash
    database.close()


def test_a_record_that_was_changed_under_its_digest_is_noticed_wherever_it_is_read(
    report: AuditReport, tmp_path: Path
) -> None:
    path = tmp_path / "h.db"
    Ledger(path).close()
    ledger = Ledger(path)
    entry = ledger.append("audit", AuditEntry.from_report(report))
    ledger.close()
    (tmp_path / "report.json").write_text(report.to_json())
    said = json.loads(entry.payload)
    assert said["record_sha256"] == digest_of(report)
    for finding in said["record"]["findings"]:
        finding["outcome"] = "PASS"
    said["record"]["exit_code"] = 0
    for dropped in (False, True):
        if dropped:
            said["record"]["figures"] = []
        rechained(path, 1, json.dumps(said))
        changed(path, "DROP TABLE IF EXISTS auditor_index")
        verified = run("history", "--verify", "--db", path)
        assert verified.exit_code == 1 and "holds another record than the one whose digest it names" in verified.output
        assert run("history", "findings", "--db", path).exit_code == 1
        for text in ("1", str(tmp_path)):
            with pytest.raises((DataError, UsageError), match="another record|is not in the history"):
                signoff(text, by="Ann", role="officer", decision="reject", db=str(path))
        ledger = Ledger(path)
        with pytest.raises(DataError, match="holds another record"):
            wrong_in_history(list(ledger.entries()), report)
        ledger.close()
    # As an earlier version kept it nothing here says so; whoever has the record itself sees it.
    del said["whole"]
    rechained(path, 1, json.dumps(said))
    ledger = Ledger(path)
    assert wrong_in_history(list(ledger.entries()), report) == ["entry 1 names this audit, and holds another record"]
    ledger.close()
    with pytest.raises(UsageError, match="is not in the history"):
        signoff(str(tmp_path), by="Ann", role="officer", decision="reject", db=str(path))


def test_an_entry_that_keeps_less_after_one_that_keeps_all_is_named(report: AuditReport, tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    ledger = Ledger(path)
    ledger.append("audit", AuditEntry.from_report(report))
    less = AuditEntry(record=report.model_copy(update={"figures": ()}), record_sha256=digest_of(report))
    ledger.append("audit", less)
    ledger.close()
    said = run("history", "--verify", "--db", path)
    assert said.exit_code == 1 and "entry 2 keeps less than its whole record" in said.output
