"""The history of audits: nothing acknowledged is lost, nothing is changed unseen, and a decision changes no outcome."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.core.errors import DataError, UsageError
from auditor.evidence.history.earlier_looks import numbers_of
from auditor.evidence.history.entries import AuditEntry, Decision, Identity, digest_of
from auditor.evidence.history.index import Index
from auditor.evidence.history.ledger import Ledger, broken_chain
from auditor.report.comparing.metric_trend import trend as drawn_trend
from auditor.report.drawing.svg import svg_file
from auditor.report.record.audit_report import AuditReport
from cli.commands import app
from cli.history import decisions_on, entry_line, history, open_ledger, report_of, signoff, trend
from tests import ROOT
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of


@pytest.fixture(scope="module")
def report() -> AuditReport:
    made = evidence(n=60).report
    return made.model_copy(update={"model": made.model.model_copy(update={"path": "m.pt", "sha256": "a" * 64})})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "h.db")
    yield opened
    opened.close()


def record_audit(report: AuditReport, db: str | None, bundle: str | None) -> None:
    opened = open_ledger(db, create=True)
    opened.append("audit", AuditEntry.from_report(report, bundle))
    opened.close()


def decision(**changes: object) -> Decision:
    return Decision(
        **{
            "audit": 1,
            "record_sha256": "b" * 64,
            "model_path": "m.pt",
            "model_sha256": "a" * 64,
            "decision": "accept",
            "by": "Ann",
            "role": "risk officer",
            "expires": date(2099, 1, 31),
            **changes,
        }  # type: ignore[arg-type]
    )


def test_entries_come_back_in_order_each_following_on_the_one_before(ledger: Ledger, report: AuditReport) -> None:
    for _ in range(3):
        ledger.append("audit", AuditEntry.from_report(report, "a.zip"))
    ledger.append("decision", decision())
    entries = list(ledger.entries())
    assert [e.number for e in entries] == [1, 2, 3, 4]
    assert [e.previous for e in entries[1:]] == [e.hash for e in entries[:-1]]
    assert broken_chain(iter(entries)) == []
    audit = entries[0].audit()
    assert audit.record == report and audit.whole
    assert audit.record_sha256 == digest_of(report) and audit.bundle == "a.zip"
    with pytest.raises(DataError, match="no decision, but a audit|is no decision"):
        entries[0].decision()


def test_the_list_names_a_folder_by_both_of_its_digests(ledger: Ledger, report: AuditReport) -> None:
    for of_folder in (None, "f" * 64):
        model = report.model.model_copy(update={"sha256": "a" * 64, "root_sha256": of_folder})
        ledger.append("audit", AuditEntry.from_report(report.model_copy(update={"model": model})))
    listed = CliRunner().invoke(app, ["history", "--db", ledger.where, "--json"])
    file, folder = (each["model"] for each in json.loads(listed.output))
    assert file == {"path": report.model.path, "sha256": "a" * 64}
    assert folder == {**file, "root_sha256": "f" * 64}


def test_whatever_is_done_to_the_table_by_hand_is_named(tmp_path: Path, report: AuditReport) -> None:
    path = tmp_path / "h.db"
    ledger = Ledger(path)
    for _ in range(5):
        ledger.append("audit", AuditEntry.from_report(report))
    head = list(ledger.entries())[-1].hash
    ledger.close()
    whole = tmp_path / "whole.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copy(path, whole)

    def problems(statement: str, at_head: str | None = None) -> list[str]:
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        shutil.copy(whole, path)
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        changed = Ledger(path, create=False)
        found = broken_chain(changed.entries(), at_head)
        changed.close()
        return found

    better = """replace(payload, '"exit_code":3', '"exit_code":0')"""
    assert problems(f"UPDATE auditor_entries SET payload = {better} WHERE number = 3") == ["entry 3 was changed"]
    assert problems("UPDATE auditor_entries SET created = '2020' WHERE number = 2") == ["entry 2 was changed"]
    assert problems("DELETE FROM auditor_entries WHERE number = 4") == ["entry 4 is missing"]
    assert problems("DELETE FROM auditor_entries WHERE number IN (2, 3)") == ["entries 2 to 3 are missing"]
    assert problems("DELETE FROM auditor_entries WHERE number = 5") == []
    assert "taken away" in problems("DELETE FROM auditor_entries WHERE number = 5", head)[0]
    # Whoever takes the end away and forgets the index is found without a head that was noted elsewhere.
    with pytest.raises(DataError, match="ends with entry 4, and held entry 5 before"):
        Ledger(path)
    assert history(str(path), verify=True) == 1
    renumbered = "UPDATE auditor_entries SET number = CASE number WHEN 4 THEN 40 ELSE number END"
    assert problems(renumbered)


_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from auditor.evidence.history.entries import AuditEntry
from auditor.evidence.history.ledger import Ledger
from auditor.report.record.audit_report import AuditReport

path, payload = sys.argv[1], AuditEntry.model_validate_json(Path(sys.argv[2]).read_text())
random.seed(0)
Ledger(path).close()  # imports what opening takes, so that a child's time goes into writing
begun = time.monotonic()
ledger = Ledger(path)
for _ in range(3):
    ledger.append("audit", payload)
ledger.close()
# A child is killed in its third append at the latest; where the machine has become slower meanwhile, later and later.
longest = time.monotonic() - begun
acknowledged = []
turn = 0
# On a machine that is busy with other work a moment is too short for an append more often.
while turn < 200 or len(acknowledged) <= 50 and turn < 1_000:
    turn += 1
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        ledger = Ledger(path)
        while True:
            entry = ledger.append("audit", payload)
            os.write(writer, f"{entry.number} {entry.hash}\\n".encode())
    os.close(writer)
    time.sleep(random.uniform(0.0, longest * 2 ** (turn // 200)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = b""
    while block := os.read(reader, 1 << 16):
        said += block
    os.close(reader)
    acknowledged += [line.split() for line in said.decode().splitlines()]
print(len(acknowledged))
stored = {str(e.number): e.hash for e in Ledger(path).entries()}
print(sum(stored.get(number) != hash for number, hash in acknowledged))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_nothing_acknowledged_is_lost_when_writers_are_killed(tmp_path: Path, report: AuditReport) -> None:
    """A writer is killed at 200 random moments, from before it opened the file to in the middle of an append."""
    (tmp_path / "payload.json").write_text(AuditEntry.from_report(report).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_KILLED), str(tmp_path / "h.db"), str(tmp_path / "payload.json")],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    acknowledged, lost = map(int, done.stdout.split())
    assert acknowledged > 50
    assert lost == 0
    ledger = Ledger(tmp_path / "h.db")
    entries = list(ledger.entries())
    assert broken_chain(iter(entries)) == []
    assert len(entries) >= acknowledged
    assert ledger.append("audit", AuditEntry.from_report(report)).number == len(entries) + 1
    ledger.close()


_WRITER = """
import sys
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.history.entries import AuditEntry
from pathlib import Path
ledger = Ledger(sys.argv[1])
payload = AuditEntry.model_validate_json(Path(sys.argv[2]).read_text())
for _ in range(25):
    ledger.append("audit", payload)
"""


def both_land(where: str, folder: Path, report: AuditReport) -> None:
    (folder / "payload.json").write_text(AuditEntry.from_report(report).model_dump_json())
    command = [sys.executable, "-c", _WRITER, where, str(folder / "payload.json")]
    writers = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    ledger = Ledger(where)
    entries = list(ledger.entries())
    ledger.close()
    assert len(entries) == 50
    assert broken_chain(iter(entries)) == []


@pytest.mark.slow
def test_two_writers_at_once_both_land(tmp_path: Path, report: AuditReport) -> None:
    both_land(str(tmp_path / "h.db"), tmp_path, report)


@pytest.mark.slow
def test_a_team_shares_a_postgresql(postgres: str, tmp_path: Path, report: AuditReport) -> None:
    both_land(postgres, tmp_path, report)
    ledger = Ledger(postgres, create=False)
    made = ledger.append("decision", decision())
    assert ledger.entry(made.number).decision() == decision()
    assert numbers_of(ledger.index.looks(report.data, Identity.from_report(report), made.number)) == list(range(1, 51))
    assert ledger.index.all() == Index.from_entries(list(ledger.entries())).all()
    assert [entry.decision().by for entry in ledger.entries() if entry.kind == "decision"] == ["Ann"]
    ledger.close()
    import sqlalchemy

    engine = sqlalchemy.create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE RULE hides AS ON INSERT TO auditor_entries WHERE NEW.kind = 'audit' DO INSTEAD NOTHING"
        )
    engine.dispose()
    with pytest.raises(DataError, match="has a trigger or rule, 'hides'"):
        Ledger(postgres)


# ---- a database that does other than it is told ----------------------------------------------------------------------

ACTS = {
    "it stores another number": "UPDATE auditor_entries SET number = 6 WHERE number = NEW.number AND NEW.number = 3",
    "it stores another verdict": "UPDATE auditor_entries SET payload = '{}' WHERE number = NEW.number",
    "it stores nothing": "DELETE FROM auditor_entries WHERE number = NEW.number",
}


@pytest.mark.parametrize("does", ACTS)
def test_what_the_database_made_of_an_entry_is_not_acknowledged(does: str, tmp_path: Path, report: AuditReport) -> None:
    path = tmp_path / "h.db"
    ledger = Ledger(path)
    for _ in range(2):
        ledger.append("audit", AuditEntry.from_report(report))
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TRIGGER sly AFTER INSERT ON auditor_entries BEGIN {ACTS[does]}; END")
    with pytest.raises(DataError, match="does not hold entry 3 as it was written"):
        ledger.append("audit", AuditEntry.from_report(report))
    ledger.close()
    for create in (True, False):
        with pytest.raises(DataError, match="has a trigger or rule, 'sly'"):
            Ledger(path, create=create)


def test_a_table_of_other_columns_is_no_history(tmp_path: Path, report: AuditReport) -> None:
    path = tmp_path / "h.db"
    Ledger(path).close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE auditor_entries ADD COLUMN verdict TEXT DEFAULT 'PASS'")
    with pytest.raises(DataError, match="auditor_entries .* has other columns"):
        Ledger(path)


def test_the_digits_that_a_scan_prints_find_their_entry(
    tmp_path: Path, report: AuditReport, capsys: pytest.CaptureFixture[str]
) -> None:
    db = str(tmp_path / "h.db")
    ledger = Ledger(db)
    entries = [ledger.append("audit", AuditEntry.from_report(report)) for _ in range(2)]
    printed = entry_line(entries[1], db).split(", ")[-1]
    ledger.close()
    assert printed == entries[1].hash
    for head in (printed, printed[:16], printed[:40].upper()):
        assert history(db, verify=True, head=head) == 0
    other = ("0" if printed[15] != "0" else "1") + printed[16:]
    assert history(db, verify=True, head=printed[:15] + other[:1]) == 1
    assert history(db, verify=True, head=printed[:20] + ("0" if printed[20] != "0" else "1")) == 1
    for head in ("", printed[:15], "g" * 16, printed + "0"):
        with pytest.raises(UsageError, match="no hash of an entry"):
            history(db, verify=True, head=head)
    capsys.readouterr()


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_a_decision_shows_in_later_reports_until_it_expires(tmp_path: Path, report: AuditReport) -> None:
    db = str(tmp_path / "h.db")
    record_audit(report, db, None)
    signoff("1", by="Ann", role="risk officer", decision="accept", expires="2099-01-31", note="known", db=db)
    signoff("1", by="Bob", role="works council", decision="reject", db=db)
    accepted, rejected = decisions_on(report, db)
    assert "Accepted risk: Ann (risk officer)" in accepted.describe() and "until 2099-01-31" in accepted.describe()
    assert "Rejected: Bob (works council) did not accept" in rejected.describe()
    assert "No outcome here is changed" in accepted.describe()
    assert set(accepted.findings) == {
        f.id for f in report.findings if f.outcome.value in ("FAIL", "INCONCLUSIVE", "NOT_RUN")
    }
    ledger = Ledger(db)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    of = {"record_sha256": digest_of(report), "model_path": report.model.path, "model_sha256": report.model.sha256}
    ledger.append("decision", decision(expires=yesterday, **of))
    ledger.close()
    assert decisions_on(report, db)[-1].expired
    assert decisions_on(report, db)[-1].describe().startswith("EXPIRED acceptance")
    other = report.model_copy(update={"model": report.model.model_copy(update={"sha256": "c" * 64})})
    assert decisions_on(other, db) == ()
    told = report.model_copy(update={"decisions": decisions_on(report, db)})
    assert told.verdict() == report.verdict()


def test_a_signed_decision_names_its_key_and_a_changed_one_is_found(tmp_path: Path, report: AuditReport) -> None:
    pytest.importorskip("cryptography")
    from auditor.evidence.history.signed_decisions import signed, signer
    from auditor.evidence.signing import load_private_key, make_key

    mark = make_key(tmp_path / "k")
    made = signed(decision(), load_private_key(tmp_path / "k"))
    assert signer(made) == mark
    assert signer(decision()) is None
    with pytest.raises(DataError, match="does not fit"):
        signer(made.model_copy(update={"by": "Eve"}))
    db = str(tmp_path / "h.db")
    record_audit(report, db, None)
    ledger = Ledger(db)
    ledger.append("decision", made.model_copy(update={"note": "changed"}))
    ledger.close()
    with pytest.raises(DataError, match="does not fit"):
        decisions_on(report, db)
    assert history(db=db, verify=True) == 1


@pytest.mark.grid
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"decision": "maybe"}, "must be accept or reject"),
        ({"expires": None}, "add --expires"),
        ({"expires": "31.1.2099"}, "is no date"),
        ({"expires": "2020-01-31"}, "is past"),
        ({"by": "  "}, "Say who decides"),
        ({"audit": "7"}, "no entry 7"),
    ],
)
def test_a_decision_that_says_too_little_is_refused(
    tmp_path: Path, report: AuditReport, how: dict[str, str], message: str
) -> None:
    db = str(tmp_path / "h.db")
    record_audit(report, db, None)
    asked = {"audit": "1", "by": "Ann", "role": "officer", "decision": "accept", "expires": "2099-01-31"} | how
    with pytest.raises(UsageError, match=message):
        signoff(**asked, db=db)  # type: ignore[arg-type]


def test_an_audit_is_found_by_its_report_too(tmp_path: Path, report: AuditReport) -> None:
    db = str(tmp_path / "h.db")
    record_audit(report, db, None)
    (tmp_path / "report.json").write_text(report.to_json())
    signoff(str(tmp_path), by="Ann", role="officer", decision="reject", db=db)
    (tmp_path / "report.json").write_text(report.model_copy(update={"duration_s": 99.0}).to_json())
    with pytest.raises(UsageError, match="is not in the history"):
        signoff(str(tmp_path), by="Ann", role="officer", decision="reject", db=db)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_history_lists_compares_and_draws(
    tmp_path: Path, report: AuditReport, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "h.db")
    monkeypatch.setenv("AUDITOR_DB", db)
    for _ in range(2):
        record_audit(report, None, None)
    assert history() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:3] == ["entry", "created", "kind"] and len(lines) == 3
    assert history(json_=True) == 0
    assert [e["entry"] for e in json.loads(capsys.readouterr().out)] == [1, 2]
    assert history(plot="demographic-parity-difference", out=tmp_path / "t.svg") == 0
    assert (tmp_path / "t.svg").read_bytes().startswith(b"<")
    assert report_of(Path("history:2")).findings == report.findings
    ledger = Ledger(db)
    figure = trend(list(ledger.entries()), "demographic_parity_difference")
    ledger.close()
    assert figure.series[0].x == (report.created,) * 2 and figure.criterion == 0.1
    assert figure.series[0].y[0] == figure.series[0].y[1]
    with pytest.raises(UsageError, match="measured 'demographic_parity_diference'.*demographic_parity_difference"):
        history(plot="demographic_parity_diference")


def test_bad_places_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no history at"):
        history(db=str(tmp_path / "none.db"))
    with pytest.raises(UsageError, match="is a folder"):
        Ledger(tmp_path)
    (tmp_path / "text.db").write_text("hello, this is no database at all, it is text" * 30)
    with pytest.raises(UsageError, match="cannot be used: file is not a database"):
        Ledger(tmp_path / "text.db")
    with pytest.raises(UsageError, match="is no database"):
        Ledger("nonsense://user:secret@host/x")
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE cats (name TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="no history of audits"):
        Ledger(tmp_path / "other.db", create=False)
    Ledger(tmp_path / "new.db").close()
    connection = sqlite3.connect(tmp_path / "new.db")
    connection.execute("UPDATE auditor_history SET schema = 9")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="version 9"):
        Ledger(tmp_path / "new.db")


def test_a_password_is_not_printed() -> None:
    with pytest.raises(UsageError) as caught:
        Ledger("postgresql+psycopg://ann:secret@127.0.0.1:1/x")
    assert not {"secret", "ann"} & set(re.findall(r"\w+", str(caught.value))) and "127.0.0.1:1/x" in str(caught.value)


def test_a_broken_chain_is_believed_by_nobody(
    tmp_path: Path, report: AuditReport, capsys: pytest.CaptureFixture[str]
) -> None:
    db = str(tmp_path / "h.db")
    record_audit(report, db, None)
    signoff("1", by="Ann", role="risk officer", decision="accept", expires="2099-01-31", db=db)
    connection = sqlite3.connect(db)
    connection.execute(
        "UPDATE auditor_entries SET payload = replace(payload, 'Ann', 'Chief Executive') WHERE number = 2"
    )
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="entry 2 was changed"):
        decisions_on(report, db)
    capsys.readouterr()
    assert history(db=db) == 1
    assert "WRONG  entry 2 was changed" in capsys.readouterr().out
    connection = sqlite3.connect(db)
    connection.execute("UPDATE auditor_entries SET kind = 'foo', payload = x'00ff' WHERE number = 1")
    connection.commit()
    connection.close()
    assert history(db=db, verify=True) == 1
    assert "WRONG  entry 1 was changed" in capsys.readouterr().out
    with pytest.raises(DataError, match="Entry 1 of the history was changed"):
        signoff("1", by="Ann", role="officer", decision="reject", db=db)
    with pytest.raises(UsageError, match="number of no entry"):
        signoff("9" * 30, by="Ann", role="officer", decision="reject", db=db)


def test_decisions_about_nothing_or_by_strangers_are_named(
    tmp_path: Path, report: AuditReport, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    from auditor.evidence.history.signed_decisions import signed
    from auditor.evidence.signing import load_private_key, make_key

    for name in ("mine", "stranger"):
        make_key(tmp_path / name)
    db = str(tmp_path / "h.db")
    record_audit(report, db, None)
    signoff("1", by="Ann", role="officer", decision="reject", sign=tmp_path / "mine", db=db)
    assert history(db=db, verify=True, key=[tmp_path / "mine.pub"]) == 0
    ledger = Ledger(db)
    ledger.append("decision", signed(decision(audit=777), load_private_key(tmp_path / "stranger")))
    ledger.close()
    capsys.readouterr()
    assert history(db=db, verify=True, key=[tmp_path / "mine.pub"]) == 1
    printed = capsys.readouterr().out
    assert "about an audit 777 that is not in this history" in printed
    assert "which you do not trust" in printed


def test_an_acceptance_has_an_end_and_a_rejection_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds until a day"):
        decision(expires=None)
    with pytest.raises(ValueError, match="a rejection has none"):
        decision(decision="reject")


def test_audits_of_several_models_are_several_lines(tmp_path: Path, report: AuditReport) -> None:
    db = str(tmp_path / "h.db")
    other = report.model_copy(update={"model": report.model.model_copy(update={"path": "other.pt"})})
    for made in (report, other, report):
        record_audit(made, db, None)
    ledger = Ledger(db)
    figure = trend(list(ledger.entries()), "demographic_parity_difference")
    ledger.close()
    made = report.created
    assert {s.name.split()[0]: s.x for s in figure.series} == {"m.pt": (made, made), "other.pt": (made,)}


def _course(report: AuditReport, models: int, audits: int) -> list[tuple[str, AuditReport]]:
    """Audits of so many models every 90 days, each of a gap of its own."""
    gap = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    first = datetime(2026, 1, 5, 12, tzinfo=UTC)
    return [
        (
            "recorded later",
            report.model_copy(
                update={
                    "created": (first + timedelta(days=90 * j)).isoformat(),
                    "model": report.model.model_copy(update={"path": f"m{i:02d}.pt"}),
                    "findings": (gap.model_copy(update={"value": 0.01 * i, "interval": (0.0, 0.01 * i + 0.1)}),),
                }
            ),
        )
        for j in range(audits)
        for i in range(models)
    ]


def test_a_trend_runs_over_dates_with_its_marks_at_audits(report: AuditReport) -> None:
    figure = drawn_trend(_course(report, 1, 3), "demographic_parity_difference")
    assert figure.series[0].x == ("2026-01-05T12:00:00+00:00", "2026-04-05T12:00:00+00:00", "2026-07-04T12:00:00+00:00")
    texts = [e.text for e in ElementTree.fromstring(svg_file(figure)).iter("{http://www.w3.org/2000/svg}text")]
    assert [t for t in texts if t and t.startswith("2026")] == ["2026-01-05", "2026-04-05", "2026-07-04"]
    assert "date of the audit" in texts and not {"1", "1.5", "2"} & set(texts)
    assert "2026-01-05 to 2026-07-04" in figure.alt
    # Of one day the hours are told.
    same_day = [(r, a.model_copy(update={"created": f"2026-01-05T{9 + i:02d}:00:00+00:00"}))
                for i, (r, a) in enumerate(_course(report, 1, 3))]  # fmt: skip
    assert "05 Jan 09:00" in svg_file(drawn_trend(same_day, "demographic_parity_difference"))


def test_a_trend_of_forty_models_is_no_taller_than_one_names_the_worst_and_tells_the_rest(
    report: AuditReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audits = _course(report, 40, 3)
    figure = drawn_trend(audits, "demographic_parity_difference")
    drawn = svg_file(figure)
    root = ElementTree.fromstring(drawn)
    assert float(root.attrib["height"]) < 450.0 and len(drawn) < 60_000
    texts = " ".join(e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text"))
    assert all_of(f"m{i}.pt" in texts for i in range(34, 40)) and "m33.pt" not in texts
    assert "the 6 worst of 40" in figure.caption and len(figure.series) == 40
    db = str(tmp_path / "h.db")
    for _, audit in audits:
        record_audit(audit, db, None)
    assert history(db=db, plot="demographic_parity_difference", out=tmp_path / "t.svg") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("m") and "\t3\t2026-01-05\t2026-07-04\t" in line]) == 40
    many = drawn_trend(_course(report, 70, 1), "demographic_parity_difference")
    assert len(many.series) == 60 and "10 of these are not drawn." in many.caption
