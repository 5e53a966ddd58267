"""Plans in the ledger: their order among audits is provable, and one that came after its results never looks first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.evidence.history.check_history import wrong_in_history
from auditor.evidence.history.earlier_looks import Asked, Known, looks_of, misplaced, placed
from auditor.evidence.history.entries import AuditEntry, Entry, RegistrationEntry, chained
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.registration import Registration
from auditor.judging.criterion import CriterionRecord
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.earlier_audits import RegistrationRecord
from cli.audit_plan import followed, open_registration, plan_of
from cli.commands import app
from cli.scan import entered
from cli.scan_request import configure
from cli.terminal import print_report
from tests.evidence.test_evidence import evidence
from tests.evidence.test_registration import plan, registration
from tests.quantifiers import all_of

ASKED = Asked(probes=("group_fairness",), options={})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def gap(bound: float, set_at: str = "2026-01-31") -> CriterionRecord:
    return CriterionRecord(
        metric="demographic_parity_difference",
        direction="at_most",
        bound=bound,
        source="s",
        set_by="Committee",
        set_at=set_at,
    )


@pytest.fixture(scope="module")
def report() -> AuditReport:
    made = evidence(n=60).report
    return made.model_copy(
        update={
            "model": made.model.model_copy(update={"path": "m.pt", "sha256": "a" * 64}),
            "data": made.data.model_copy(update={"path": "d.csv", "sha256": "d" * 64, "rows_sha256": "e" * 64}),
            "criteria": (gap(0.1),),
        }
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "h.db")
    yield opened
    opened.close()


def of(made: Registration, **changes: Any) -> RegistrationRecord:
    """What a record says of a run that kept to a registration."""
    said = {"path": "r.json", "sha256": made.digest, "registered": made.registered, **changes}
    return RegistrationRecord(**said)


def registered(ledger: Ledger, made: Registration) -> Entry:
    return ledger.append("registration", RegistrationEntry(registration=made, sha256=made.digest))


def audited(ledger: Ledger, report: AuditReport, made: Registration | None = None, **changes: Any) -> AuditReport:
    """The audit as a scan with this ledger enters it."""
    report = report.model_copy(update={"registration": None if made is None else of(made), **changes})
    known, head = Known.from_ledger(ledger), ledger.head()
    report = report.model_copy(update={"registration": placed(known, report)})
    report = report.model_copy(update={"looks": looks_of(known, head, report, ASKED, None)})
    ledger.append("audit", AuditEntry.from_report(report))
    return report


def now_registered(**changes: Any) -> Registration:
    return registration(registered=datetime.now(UTC).isoformat(timespec="seconds"), **changes)


def every_rendering(report: AuditReport, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_report(report, [], verbose=True)
    terminal = capsys.readouterr().out
    return [terminal, render_html(report).replace("&#39;", "'"), render_markdown(report).replace("\\", "")]


def test_a_plan_that_was_entered_before_is_followed_and_its_place_is_said(
    ledger: Ledger, report: AuditReport, capsys: pytest.CaptureFixture[str]
) -> None:
    audited(ledger, report, data=report.data.model_copy(update={"sha256": "1" * 64, "rows_sha256": "2" * 64}))
    made = now_registered()
    entry = registered(ledger, made)
    for _ in range(2):
        found = audited(ledger, report, made)
    assert found.registration is not None and found.registration.followed
    place = found.registration.entered
    assert place is not None and (place.entry, place.hash, place.created) == (2, entry.hash, entry.created)
    # On other rows: it was audited before, and no result of these rows was known.
    assert (place.rows, place.model) == (0, 1)
    for said in every_rendering(found, capsys):
        assert "entry 2" in said and "NOT SHOWN" not in said and "after 0 audits of these rows and 1 " in said
    assert wrong_in_history(list(ledger.entries()), found) == []


def test_a_plan_that_was_entered_after_audits_of_the_same_rows_is_not_followed(
    ledger: Ledger, report: AuditReport, capsys: pytest.CaptureFixture[str]
) -> None:
    audited(ledger, report, exit_code=1)
    audited(ledger, report, exit_code=3, model=report.model.model_copy(update={"sha256": "b" * 64}))
    loose = gap(0.4, "2025-01-31")
    made = now_registered(plan=plan(criteria=(loose,)))
    registered(ledger, made)
    found = audited(ledger, report, made, criteria=(loose,), exit_code=0)
    said = found.registration
    assert said is not None and not said.followed and said.adherence == "unproven" and said.deviations == ()
    assert said.entered is not None and (said.entered.rows, said.entered.model) == (2, 1)
    assert said.cautions == (
        "It was entered at entry 3, AFTER 2 audits of these rows (entries 1 and 2; 1 FAIL): whoever made it may have "
        "seen their results.",
    )
    for text in every_rendering(found, capsys):
        assert "NOT SHOWN that the registration came before the results" in text
        assert "AFTER 2 audits of these rows" in text
        assert "before the results were seen, and followed" not in text
        assert "before the results, and followed" not in text and "The run followed" not in text
        assert "had to be at most 0.1 at entries 1 and 2, and at most 0.4 now" in text
        assert "Nothing in this history shows that this was set before these rows were looked at" in text
        assert "demographic_parity_difference (at most 0.4, set at 2025-01-31); first known now, after 2 audits" in text
    german = render_html(found.model_copy(update={"about": About(language="de")}))
    assert "doch nicht nachweislich vor den Ergebnissen" in german and "bekannt waren, und befolgt" not in german
    again = audited(ledger, report, made, criteria=(loose,))
    assert again.looks is not None and again.looks.not_shown is not None
    assert "first known at entry 4, after 2 audits" in again.looks.not_shown[0]
    assert wrong_in_history(list(ledger.entries()), again) == []


def test_a_plan_that_is_in_no_entry_is_not_followed_silently(ledger: Ledger, report: AuditReport) -> None:
    made = now_registered()
    found = audited(ledger, report, made).registration
    assert found is not None and not found.followed and "not entered in this history" in found.describe()
    registered(ledger, made)
    # Once it is, it was entered after that audit.
    later = audited(ledger, report, made).registration
    assert (
        later is not None and not later.followed and "AFTER 1 audit of these rows (entry 1; 0 FAIL)" in later.describe()
    )
    assert all_of(
        word not in of(made).model_dump() or not of(made).model_dump()[word] for word in ("entered", "cautions")
    )
    assert "entered" not in of(made).model_dump_json() and "cautions" not in of(made).model_dump_json()


def test_a_plan_that_says_it_is_older_than_its_entry_is_named(ledger: Ledger, report: AuditReport) -> None:
    made = registration(registered="2025-01-31T10:00:00+00:00")
    registered(ledger, made)
    found = audited(ledger, report, made).registration
    assert found is not None and not found.followed
    assert "It says that it was registered on 2025-01-31T10:00:00+00:00, and was entered on " in found.describe()


@pytest.mark.parametrize(("back", "n"), [(timedelta(hours=20), 0), (timedelta(days=300), 1)])
def test_an_entry_that_is_dated_back_shows_nothing_of_when_its_plan_was_made(
    ledger: Ledger, report: AuditReport, back: timedelta, n: int
) -> None:
    audited(ledger, report, data=report.data.model_copy(update={"sha256": "1" * 64, "rows_sha256": "2" * 64}))
    then = (datetime.now(UTC) - back).isoformat(timespec="seconds")
    made = registration(registered=then)
    payload = RegistrationEntry(registration=made, sha256=made.digest).model_dump_json()
    (first,) = ledger.entries()
    forged = Entry.from_previous(2, first.hash, then, "registration", payload)
    with sqlite3.connect(ledger.where) as connection:
        connection.execute("INSERT INTO auditor_entries VALUES (?, ?, ?, ?, ?, ?)", tuple(forged.model_dump().values()))
    connection.close()
    again = Ledger(ledger.where)
    found = placed(Known.from_ledger(again), report.model_copy(update={"registration": of(made)}))
    again.close()
    assert found is not None and len(found.cautions) == n, found
    assert "".join(found.cautions).count("follows on an entry of") == n
    quiet = report.model_copy(update={"registration": found.model_copy(update={"cautions": ()})})
    assert bool(misplaced(Known.from_entries([first, forged]), quiet, before=3)) is bool(n)


def test_a_criterion_that_a_plan_entered_before_the_first_look_is_shown(ledger: Ledger, report: AuditReport) -> None:
    loose = gap(0.4, "2025-01-31")
    made = now_registered(plan=plan(criteria=(loose,)))
    registered(ledger, made)
    audited(ledger, report)
    found = audited(ledger, report, made, criteria=(loose,)).looks
    assert found is not None and found.not_shown == ()
    without = audited(ledger, report, criteria=(gap(0.3, "2025-01-31"),)).looks
    assert without is not None and without.not_shown is not None and len(without.not_shown) == 1
    # Whoever says that it was set after the looks says nothing that they would contradict.
    later = audited(ledger, report, criteria=(gap(0.2, "2999-01-31"),)).looks
    assert later is not None and later.not_shown == ()


def test_what_a_report_says_of_its_plan_is_checked_by_the_whole_history(ledger: Ledger, report: AuditReport) -> None:
    audited(ledger, report)
    made = now_registered()
    registered(ledger, made)
    true = report.model_copy(update={"registration": of(made)})
    known, head = Known.from_ledger(ledger), ledger.head()
    true = true.model_copy(update={"registration": placed(known, true)})
    looks = looks_of(known, head, true, ASKED, None)
    for changes in ({"cautions": ()}, {"entered": None}):
        plan_said = true.registration.model_copy(update=changes)  # type: ignore[union-attr]
        claim = true.model_copy(update={"registration": plan_said, "looks": looks})
        number = ledger.append("audit", AuditEntry.from_report(claim)).number
        assert wrong_in_history(list(ledger.entries())[:number], claim) == [
            "it says otherwise where its registration was entered, or what was audited before that"
        ]
        assert "it says otherwise where its registration" in run("history", "--verify", "--db", ledger.where).output
        break


def test_a_registration_in_the_ledger_cannot_be_changed_or_moved(ledger: Ledger, report: AuditReport) -> None:
    made = now_registered()
    registered(ledger, made)
    audited(ledger, report, made)
    assert run("history", "--verify", "--db", ledger.where).exit_code == 0
    listed = run("history", "--db", ledger.where)
    assert f"plan {made.digest[:16]} of {made.registered} by Ann" in listed.output and listed.exit_code == 0
    (first, _) = json.loads(run("history", "--db", ledger.where, "--json").output)
    assert first["kind"] == "registration" and first["sha256"] == made.digest
    for command in ("findings", "due", "site"):
        out = ("--out", Path(ledger.where).parent / "site") if command == "site" else ()
        assert run("history", command, "--db", ledger.where, *out).exit_code in (0, 3), command
    other = RegistrationEntry.model_construct(registration=made, sha256="f" * 64).model_dump_json()
    with sqlite3.connect(ledger.where) as database:
        entry = ledger.entry(1)
        hash_ = chained(1, entry.previous, entry.created, entry.kind, other)
        database.execute("UPDATE auditor_entries SET payload = ?, hash = ? WHERE number = 1", (other, hash_))
    said = run("history", "--verify", "--db", ledger.where)
    assert said.exit_code == 1 and "the registration has another digest" in said.output
    assert "entry 2 does not follow on the entry before it" in said.output


def test_hostile_plans_stay_text_wherever_they_are_told(
    ledger: Ledger, report: AuditReport, capsys: pytest.CaptureFixture[str]
) -> None:
    nasty = "2025<script>alert(1)</script>\x1b[31m\u202e|`x`[a](http://b)"
    loose = gap(0.4, nasty)
    audited(ledger, report)
    made = now_registered(by=nasty, plan=plan(criteria=(loose,), settings={nasty: nasty}))
    registered(ledger, made)
    found = audited(ledger, report, made, criteria=(loose,))
    assert found.looks is not None and found.looks.not_shown is not None and nasty in found.looks.not_shown[0]
    terminal, html, markdown = every_rendering(found, capsys)
    listed = run("history", "--db", ledger.where).output
    for said in (terminal, html, markdown, listed):
        assert "\x1b[31m" not in said and "\u202e" not in said and "alert(1)" in said
    assert "<script>alert" not in html and "<script>" not in render_markdown(found)
    assert "[a](http" not in render_markdown(found)


CONFIG = """[audit]
predict = "mine:predict"
data = "data.csv"
features = ["a"]
target = "y"
positive = "1"
classes = ["0", "1"]
sensitive = ["sex"]
probes = ["group_fairness"]
history = true
db = "h.db"

[[criteria]]
metric = "demographic_parity_difference"
direction = "at_most"
bound = 0.001
set_by = "Committee"
set_at = "2025-01-31"
"""


def test_a_scan_names_a_bound_that_was_registered_after_it_had_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: AuditReport
) -> None:
    """What a scan does with its ledger once it has measured, by the configuration that names both."""
    (tmp_path / "data.csv").write_text("a,sex,y\n1,f,1\n2,m,0\n")
    (tmp_path / "mine.py").write_text("def predict(X):\n    return X\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.toml").write_text(CONFIG)

    class Asks:
        probes: tuple[Any, ...] = ()

    def scanned(made: AuditReport, **flags: str) -> AuditReport:
        configured = configure(flags, "audit.toml", [])
        opened_ = open_registration(configured.options.registration)
        plan_said = followed(opened_, configured, datetime.now(UTC) + timedelta(seconds=1), plan_of(configured))
        made = made.model_copy(update={"registration": plan_said})
        return entered(configured, Asks(), made, None, lambda _: made)[0]  # type: ignore[arg-type]

    scanned(report.model_copy(update={"exit_code": 1}))
    (tmp_path / "audit.toml").write_text(CONFIG.replace("0.001", "0.4"))
    made = run("evidence", "register", "audit.toml")
    assert made.exit_code == 0 and "history     h.db, entry 2, " in made.output, made.output
    found = scanned(report.model_copy(update={"criteria": (gap(0.4, "2025-01-31"),)}), registration="registration.json")
    assert found.registration is not None and found.registration.deviations == ()
    said = found.registration.describe()
    assert said.startswith("NOT SHOWN that the registration came before the results")
    assert "It was entered at entry 2, AFTER 1 audit of these rows (entry 1; 1 FAIL)" in said
    assert found.looks is not None and "first known now, after 1 audit of them (entry 1)" in found.looks.describe()
    assert run("history", "--verify", "--db", "h.db").exit_code == 0
    (tmp_path / "audit.toml").write_text(CONFIG.replace('history = true\ndb = "h.db"\n', ""))
    alone = run("evidence", "register", "audit.toml", "--out", "b.json", "--db", "h.db")
    assert alone.exit_code == 2 and "add --history" in alone.output and not (tmp_path / "b.json").exists()
    assert "history" not in run("evidence", "register", "audit.toml", "--out", "b.json").output
    there = run("evidence", "register", "audit.toml", "--out", "c.json", "--db", "h.db", "--history")
    assert there.exit_code == 0 and "h.db, entry 4, " in there.output
