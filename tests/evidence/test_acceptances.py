"""Findings accepted one by one: by value, until a day, by several signers in order, and what became of it later."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.core.errors import DataError, UsageError
from auditor.evidence.history.entries import AuditEntry, Covered, Decision, Entry
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.history.signed_decisions import signed
from auditor.evidence.portfolio.audit_lines import read_ledger
from auditor.evidence.signed_acceptances import acceptances, decisions_of
from auditor.judging.criterion import CriterionRecord
from auditor.judging.measurement import Outcome
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport, ExitCode, Finding
from auditor.report.record.configuration import About, ModelIdentity
from auditor.report.record.earlier_audits import DecidedFinding, key_of
from auditor.report.record.severity_and_acceptance import acceptance_sentences, acceptances_of, findings_by_key
from auditor.report.report_view import warnings_of
from cli.history import decisions_on, history, signoff
from cli.terminal import print_report
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of, none_of

TODAY = date(2026, 11, 27)
FUTURE = "2099-01-31"
GAP = "demographic_parity_difference"
By = tuple[str, float | tuple[float, float]]


@pytest.fixture(scope="module")
def report() -> AuditReport:
    made = evidence(n=60).report
    return made.model_copy(update={"model": made.model.model_copy(update={"path": "m.pt", "sha256": "a" * 64})})


def gap_of(report: AuditReport) -> Finding:
    return next(f for f in report.findings if f.metric == GAP and f.sensitive)


def with_gap(
    report: AuditReport, value: float, by: By = ("at_most", 0.1), outcome: Outcome = Outcome.FAIL, **changes: object
) -> AuditReport:
    """The report with another value of the gap, held to another bound; other findings stay as they are."""
    old = gap_of(report)
    held = CriterionRecord(metric=GAP, direction=by[0], bound=by[1], source="a test", set_by="us", set_at="2026-11-27")  # type: ignore[arg-type]
    new = old.model_copy(
        update={
            "value": value, "interval": (value - 0.02, value + 0.02), "outcome": outcome, "criterion": held, **changes,
        }
    )  # fmt: skip
    return report.model_copy(update={"findings": tuple(new if f is old else f for f in report.findings)})


def recorded(report: AuditReport, db: str) -> None:
    ledger = Ledger(db)
    ledger.append("audit", AuditEntry.from_report(report, None))
    ledger.close()


def entries_of(db: str) -> list[Entry]:
    ledger = Ledger(db)
    try:
        return list(ledger.entries())
    finally:
        ledger.close()


def accept(db: str, *findings: str, **how: object) -> None:
    asked: dict[str, object] = {"by": "Ann", "role": "risk officer", "decision": "accept", "expires": FUTURE}
    signoff("1", finding=list(findings), db=db, **(asked | how))  # type: ignore[arg-type]


def said_of(report: AuditReport, db: str) -> list[str]:
    return list(acceptance_sentences(report.model_copy(update={"decisions": decisions_on(report, db)})))


@pytest.fixture
def db(tmp_path: Path) -> str:
    return str(tmp_path / "h.db")


# ---- a value, and what a later audit makes of it ---------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize(
    ("by", "then", "accepted", "now", "says"),
    [
        (("at_most", 0.1), 0.22, 0.25, 0.24, "accepted up to 0.25 by Ann until 2099-01-31, now 0.240"),
        (("at_most", 0.1), 0.22, 0.25, 0.31, "Worse than accepted: .*up to 0.25, now 0.310 .*: exceeds"),
        (("at_most", 0.1), 0.22, 0.25, 0.12, "accepted up to 0.25 by Ann"),
        (("at_least", 0.8), 0.75, 0.7, 0.72, "accepted down to 0.7 by Ann"),
        (("at_least", 0.8), 0.75, 0.7, 0.65, "Worse than accepted: .*down to 0.7, now 0.650 .*: exceeds"),
        # Better than was accepted is no excess, and of a lower bound better is more.
        (("at_least", 0.8), 0.75, 0.7, 0.79, "accepted down to 0.7 by Ann"),
        (("within", (0.8, 1.25)), 1.3, 1.4, 1.35, "accepted up to 1.4 by Ann"),
        (("within", (0.8, 1.25)), 1.3, 1.4, 1.5, "Worse than accepted: .*up to 1.4, now 1.50 .*: exceeds"),
        # Of what was accepted on one side nothing is accepted on the other.
        (("within", (0.8, 1.25)), 1.3, 1.4, 0.7, "Worse than accepted: .*up to 1.4, now 0.700 .*: exceeds"),
        (("within", (0.8, 1.25)), 0.7, 0.6, 1.3, "Worse than accepted: .*down to 0.6, now 1.30 .*: exceeds"),
    ],
)
def test_what_is_found_later_is_held_against_the_value_accepted(
    report: AuditReport, db: str, by: By, then: float, accepted: float, now: float, says: str
) -> None:
    recorded(with_gap(report, then, by), db)
    accept(db, f"{gap_of(report).id}={accepted}")
    later = with_gap(report, now, by)
    (said,) = said_of(later, db)
    assert re.search(says, said), said
    shown = later.model_copy(update={"decisions": decisions_on(later, db)})
    assert said in warnings_of(shown)
    assert (shown.verdict(), shown.summary) == (later.verdict(), later.summary)


def test_what_exceeds_its_acceptance_is_said_in_every_format_and_no_exit_code_becomes_better(
    report: AuditReport, db: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = with_gap(report, 0.22).model_copy(update={"exit_code": 1})
    recorded(failed, db)
    accept(db, f"{gap_of(report).id}=0.25")
    for now, words in (
        (0.31, ("Worse than accepted", "accepted up to 0.25", "now 0.310", "exceeds")),
        (0.24, ("accepted up to 0.25 by Ann",)),
    ):
        found = with_gap(report, now).model_copy(update={"exit_code": 1})
        shown = found.model_copy(update={"decisions": decisions_on(found, db)})
        capsys.readouterr()
        print_report(shown, [], verbose=True)
        terminal = capsys.readouterr().out
        for said in (terminal, render_html(shown), render_markdown(shown).replace("\\", "")):
            assert all_of(word in said for word in words)
            assert (": exceeds)" in said) is (now > 0.25)
        assert "exit 1: at least one finding FAILed" in terminal
        # Accepted or not, it is a FAIL: nobody signs a measurement away.
        assert shown.verdict() == found.verdict() == ExitCode.FAILED


def test_an_interval_that_reaches_beyond_what_was_accepted_is_said(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{GAP}=0.25")
    (near,) = said_of(with_gap(report, 0.24), db)
    (within,) = said_of(with_gap(report, 0.2), db)
    assert near.endswith("Its interval reaches beyond that.")
    assert "reaches" not in within


def test_a_finding_is_known_by_what_it_asks_and_not_by_its_id(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25")
    (other,) = said_of(with_gap(report, 0.31, id="renamed"), db)
    assert other.startswith("Worse than accepted")
    others = ({"sensitive": ("somebody",)}, {"method": "another"}, {"at": {"epsilon": 0.1}}, {"group": {"a": "b"}})
    for change in others:
        (gone,) = said_of(with_gap(report, 0.31, **change), db)
        assert "and not measured now" in gone and "exceeds" not in gone
    lost = with_gap(report, 0.31, outcome=Outcome.INCONCLUSIVE)
    bare = tuple(f.model_copy(update={"value": None}) if f.metric == GAP else f for f in lost.findings)
    (undefined,) = said_of(lost.model_copy(update={"findings": bare}), db)
    assert "and undefined now" in undefined
    (met,) = said_of(with_gap(report, 0.05, outcome=Outcome.PASS), db)
    assert met.startswith("Accepted, and met now")


def test_an_acceptance_that_expired_says_so_whatever_is_found(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25")
    entries = entries_of(db)
    (holds,) = acceptances(entries, today=date(2099, 1, 31)).values()
    (gone,) = acceptances(entries, today=date(2099, 2, 1)).values()
    now = with_gap(report, 0.24)
    finding = findings_by_key(now)[holds.finding_key]
    assert holds.holds and holds.status_for(finding) == "accepted"
    assert not gone.holds and gone.status_for(finding) == "expired"
    assert gone.describe(finding).startswith("EXPIRED acceptance") and "no longer holds" in gone.describe(finding)


def test_the_last_acceptance_counts_and_a_rejection_withdraws_it(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    gap = gap_of(report).id
    accept(db, f"{gap}=0.25", owner="model team", due="2099-01-15")
    accept(db, f"{gap}=0.23")
    (last,) = acceptances(entries_of(db), today=TODAY).values()
    assert (last.value, last.owner, last.until) == (0.23, "", FUTURE)
    signoff("1", by="Bob", role="works council", decision="reject", finding=[gap], db=db)
    assert acceptances(entries_of(db), today=TODAY) == {}
    accept(db, f"{gap}=0.24", owner="model team", due="2099-01-15")
    (again,) = acceptances(entries_of(db), today=TODAY).values()
    assert (again.value, again.owner, again.due, again.last_signer) == (0.24, "model team", "2099-01-15", "Ann")


def test_the_shorter_acceptance_that_expired_does_not_hide_the_one_that_holds(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    gap = gap_of(report).id
    accept(db, f"{gap}=0.25")
    accept(db, f"{gap}=0.3", expires="2098-01-31")
    (found,) = acceptances(entries_of(db), today=date(2098, 6, 1)).values()
    assert found.holds and found.value == 0.25


@pytest.mark.parametrize("one_by_one", [True, False])
def test_who_accepted_that_nobody_could_tell_has_not_accepted_that_it_fails(
    report: AuditReport, db: str, one_by_one: bool
) -> None:
    untold = with_gap(report, 0.0, outcome=Outcome.INCONCLUSIVE)
    gap = gap_of(untold)
    bare = gap.model_copy(update={"value": None, "interval": None})
    untold = untold.model_copy(update={"findings": tuple(bare if f is gap else f for f in untold.findings)})
    recorded(untold, db)
    accept(db, *([gap.id] if one_by_one else []))
    assert said_of(untold, db) == []
    (said,) = said_of(with_gap(report, 0.9), db)
    assert said.startswith("Worse than accepted") and "accepted while INCONCLUSIVE, now 0.900" in said


# ---- what may be accepted --------------------------------------------------------------------------------------------


def test_what_cannot_be_accepted_is_refused_in_a_sentence(report: AuditReport, db: str) -> None:
    made = with_gap(report, 0.22)
    recorded(made, db)
    gap = gap_of(report).id
    passed = next((f.id for f in made.findings if f.outcome is Outcome.PASS), None)
    refused: list[tuple[list[str], dict[str, object], str]] = [
        ([gap], {}, "Up to which value"),
        ([f"{gap}=0.2"], {}, "does not cover"),
        ([f"{gap}=0.05"], {}, "meets what is required"),
        ([f"{gap}=much"], {}, "no finding"),
        ([f"{gap[:-1]}=0.3"], {}, "Did you mean|did you mean"),
        ([f"{gap}=0.25", f"{gap}=0.3"], {}, "twice"),
        ([f"{gap}=0.25"], {"decision": "reject", "expires": None}, "A rejection has no value"),
        ([f"{gap}=nan"], {}, "no finding"),
        ([f"{gap}=0.25"], {"expires": None}, "add --expires"),
        ([f"{gap}=0.25"], {"due": "2020-01-01"}, "--due 2020-01-01 is past"),
        ([gap], {"decision": "reject", "expires": None, "owner": "me"}, "a rejection has neither"),
        ([f"{gap}=0.25"], {"as_": "reviewd"}, "reviewed"),
    ]  # fmt: skip
    if passed is not None:
        refused.append(([f"{passed}=1"], {}, "nothing to accept"))
    for named, how, message in refused:
        with pytest.raises(UsageError, match=message):
            accept(db, *named, **how)
    assert [entry.kind for entry in entries_of(db)] == ["audit"]


def test_an_id_with_the_breaks_of_paper_in_it_names_its_finding(
    report: AuditReport, db: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(with_gap(report, 0.22), db)
    gap = gap_of(report).id
    accept(db, gap.replace("_", "_\u200b").replace("/", "/\u200b") + "=0.3")
    assert f"\n  {gap} up to 0.3\n" in capsys.readouterr().out


def test_what_nobody_set_a_bound_for_is_accepted_from_its_ideal_on(report: AuditReport, db: str) -> None:
    made = with_gap(report, 0.22, outcome=Outcome.NOT_JUDGED, criterion=None, ideal=0.0)
    recorded(made, db)
    accept(db, f"{gap_of(report).id}=0.25")
    (found,) = acceptances(entries_of(db), today=TODAY).values()
    assert (found.item.low, found.item.high) == (0.0, 0.25)
    assert all_of(found.item.covers(x) for x in (0.0, 0.1, 0.25))
    assert none_of(found.item.covers(x) for x in (-0.01, 0.26))


# ---- several signers -------------------------------------------------------------------------------------------------


def step(db: str, name: str, by: str, decision: str = "accept", sign: Path | None = None) -> None:
    signoff("1", by=by, role="officer", decision=decision, as_=name, sign=sign, db=db)


def test_signers_sign_in_their_order_and_it_holds_once_all_have(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    now = with_gap(report, 0.24)
    for early, message in (("reviewed", "was not prepared"), ("approved", "was not prepared")):
        with pytest.raises(UsageError, match=message):
            step(db, early, "Bob")
    accept(db, f"{gap_of(report).id}=0.25", as_="prepared", owner="model team")
    (begun,) = acceptances(entries_of(db), today=TODAY).values()
    assert not begun.holds and begun.missing == ("reviewed", "approved")
    assert said_of(now, db)[0].startswith("Not yet accepted")
    with pytest.raises(UsageError, match="was not reviewed"):
        step(db, "approved", "Cem")
    with pytest.raises(UsageError, match="ann has prepared it"):
        step(db, "reviewed", " ann ")
    with pytest.raises(UsageError, match="leave --finding"):
        accept(db, f"{gap_of(report).id}=0.9", as_="reviewed", by="Bob", expires=None)
    step(db, "reviewed", "Bob")
    with pytest.raises(UsageError, match="reviewed by Bob already"):
        step(db, "reviewed", "Dee")
    with pytest.raises(UsageError, match="Bob has reviewed it"):
        step(db, "approved", "Bob")
    step(db, "approved", "Cem")
    (done,) = acceptances(entries_of(db), today=TODAY).values()
    assert done.holds and [s.by for s in done.signers] == ["Ann", "Bob", "Cem"] and done.owner == "model team"
    assert "accepted up to 0.25 by Cem" in said_of(now, db)[0]
    assert history(db=db, verify=True) == 0


def test_a_reviewer_who_rejects_ends_what_was_prepared(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25", as_="prepared")
    step(db, "reviewed", "Bob", decision="reject")
    assert acceptances(entries_of(db), today=TODAY) == {}
    with pytest.raises(UsageError, match="was not prepared"):
        step(db, "approved", "Cem")


def test_what_is_prepared_anew_does_not_displace_what_holds(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25")
    accept(db, f"{gap_of(report).id}=0.5", as_="prepared")
    (found,) = acceptances(entries_of(db), today=TODAY).values()
    assert found.holds and found.value == 0.25


def test_a_signature_covers_what_was_signed_before(report: AuditReport, tmp_path: Path, db: str) -> None:
    pytest.importorskip("cryptography")
    from auditor.evidence.signing import load_private_key, make_key

    for name in ("ann", "bob"):
        make_key(tmp_path / name)
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25", as_="prepared", sign=tmp_path / "ann")
    with pytest.raises(UsageError, match="the key that it was prepared with"):
        step(db, "reviewed", "Bob", sign=tmp_path / "ann")
    step(db, "reviewed", "Bob", sign=tmp_path / "bob")
    prepared, reviewed = (entry for entry in entries_of(db) if entry.kind == "decision")
    second = reviewed.decision()
    assert second.covers == (Covered(entry=prepared.number, hash=prepared.hash),)
    assert prepared.hash.encode() in second.signed_bytes()
    assert acceptances(entries_of(db), today=TODAY)

    def forged(change: Callable[[Decision], Decision], message: str) -> None:
        """A later entry of the same chain, whole and signed, that says otherwise than what it covers."""
        ledger = Ledger(db)
        entry = ledger.append("decision", signed(change(second), load_private_key(tmp_path / "bob")))
        there = [*ledger.entries()]
        ledger.close()
        with pytest.raises(DataError, match=message):
            decisions_of(there, today=TODAY)
        connection = sqlite3.connect(db)
        for table in ("entries", "index"):
            connection.execute(f"DELETE FROM auditor_{table} WHERE number = ?", (entry.number,))
        connection.commit()
        connection.close()

    higher = DecidedFinding(finding="x", asks=second.decided[0].asks, value=0.9, high=0.9)
    forged(lambda d: d.model_copy(update={"decided": (higher,)}), "accepts something else than entry 2")
    elsewhere = Covered(entry=2, hash="0" * 64)
    forged(lambda d: d.model_copy(update={"covers": (elsewhere,)}), "covers entry 2, which is not")
    forged(
        lambda d: d.model_copy(update={"step": "approved", "covers": (d.covers[0], d.covers[0])}), "was not reviewed"
    )
    # Nor is an edited value believed where the chain of the history was made anew around it.
    edited = second.model_copy(update={"decided": (higher,)})
    changed = Entry.from_previous(3, prepared.hash, reviewed.created, "decision", edited.model_dump_json())
    with pytest.raises(DataError, match="does not count|does not fit"):
        decisions_of([*entries_of(db)[:2], changed], today=TODAY)
    own = prepared.decision().model_copy(update={"decided": (higher,)})
    first = Entry.from_previous(2, entries_of(db)[0].hash, prepared.created, "decision", own.model_dump_json())
    with pytest.raises(DataError, match="does not fit"):
        decisions_of([entries_of(db)[0], first], today=TODAY)


def test_one_person_with_two_keys_or_one_key_with_two_names_is_no_second_signer(
    report: AuditReport, tmp_path: Path, db: str
) -> None:
    pytest.importorskip("cryptography")
    from auditor.evidence.signing import load_private_key, make_key

    for name in ("ann", "bob"):
        make_key(tmp_path / name)
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25", as_="prepared", sign=tmp_path / "ann")
    # Names that read alike are one, whatever their bytes.
    for alike in ("ANN", "A\u200bnn", " \uff21nn"):
        with pytest.raises(UsageError, match="has prepared it"):
            step(db, "reviewed", alike)
    step(db, "reviewed", "Bob", sign=tmp_path / "bob")
    second = entries_of(db)[2].decision()
    for by, key in (("Ann", "bob"), ("Bob", "ann"), ("a nn".replace(" ", "\u2060"), "bob")):
        # As nobody signs with the command, and somebody who holds the keys can.
        made = signed(second.model_copy(update={"by": by}), load_private_key(tmp_path / key))
        entry = Entry.from_previous(
            3, entries_of(db)[1].hash, "2026-11-27T10:00:00", "decision", made.model_dump_json()
        )
        with pytest.raises(DataError, match="for somebody else"):
            acceptances([*entries_of(db)[:2], entry], today=TODAY)


def test_a_signed_acceptance_is_of_the_audit_and_the_model_that_it_was_signed_for(
    report: AuditReport, tmp_path: Path, db: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography")
    from auditor.evidence.signing import make_key

    make_key(tmp_path / "ann")
    own = with_gap(report, 0.22).model_copy(update={"about": About(model=ModelIdentity(id="toy"))})
    recorded(own, db)
    accept(db, f"{gap_of(report).id}=0.25", sign=tmp_path / "ann")
    audit, decision = entries_of(db)
    assert acceptances([audit, decision], today=TODAY)
    model = own.model.model_copy(update={"sha256": "b" * 64})
    moved = {
        "another model": (
            own.model_copy(update={"about": About(model=ModelIdentity(id="credit"))}),
            own.model_copy(update={"model": model}),
        ),
        "not in this history": (with_gap(own, 0.9),),
    }
    # The chain is whole, made anew around another audit, and the signature fits what it was put under.
    for message, others in moved.items():
        for other in others:
            forged = AuditEntry.from_report(other)
            if message == "another model":
                forged = forged.model_copy(update={"record_sha256": audit.audit().record_sha256})
            first = Entry.from_previous(1, audit.previous, audit.created, "audit", forged.model_dump_json())
            after = Entry.from_previous(2, first.hash, decision.created, "decision", decision.payload)
            with pytest.raises(DataError, match=message):
                acceptances([first, after], today=TODAY)
            connection = sqlite3.connect(db)
            with connection:
                for e in (first, after):
                    connection.execute(
                        "UPDATE auditor_entries SET payload = ?, previous = ?, hash = ? WHERE number = ?",
                        (e.payload, e.previous, e.hash, e.number),
                    )
            connection.close()
            assert history(db=db, verify=True) == 1
            assert message in capsys.readouterr().out
            ledger = Ledger(db)
            assert read_ledger(ledger).decisions == ()
            ledger.close()


def test_an_acceptance_covers_no_more_than_the_value_that_it_says(report: AuditReport) -> None:
    asks = key_of(gap_of(report))
    for low, high in ((None, None), (0.0, 9.0), (None, 9.0), (0.2, None)):
        with pytest.raises(ValueError, match="ends at the value accepted"):
            DecidedFinding(finding="x", asks=asks, value=0.12, low=low, high=high)


# ---- whose, and of before --------------------------------------------------------------------------------------------


def test_decisions_follow_the_models_id_and_not_its_bytes(report: AuditReport, db: str) -> None:
    def of(made: AuditReport, id_: str, sha256: str) -> AuditReport:
        about = About(model=ModelIdentity(id=id_)) if id_ else None
        return made.model_copy(update={"about": about, "model": made.model.model_copy(update={"sha256": sha256 * 64})})

    recorded(of(with_gap(report, 0.22), "mortgage", "a"), db)
    accept(db, f"{gap_of(report).id}=0.25")
    now = with_gap(report, 0.31)
    assert said_of(of(now, "mortgage", "b"), db)[0].startswith("Worse than accepted")
    assert said_of(of(now, "other", "a"), db) == []
    assert said_of(of(now, "", "a"), db) and said_of(of(now, "", "c"), db) == []


def test_a_decision_on_a_whole_audit_is_about_each_of_its_findings_without_a_value(
    report: AuditReport, db: str
) -> None:
    made = with_gap(report, 0.22)
    recorded(made, db)
    signoff("1", by="Ann", role="risk officer", decision="accept", expires=FUTURE, db=db)
    known = acceptances(entries_of(db), today=TODAY)
    ids = {f.id for f in made.findings if f.outcome.value in ("FAIL", "INCONCLUSIVE", "NOT_RUN")}
    assert {each.item.finding for each in known.values()} == ids
    assert all_of(each.value is None and each.holds for each in known.values())
    # What was accepted without a value is told once, as the decision, and not finding by finding.
    assert said_of(with_gap(report, 0.5), db) == []


def test_a_decision_of_before_is_spelled_and_signed_as_it_was() -> None:
    old = Decision(
        audit=1, record_sha256="b" * 64, model_path="m.pt", model_sha256="a" * 64, decision="accept", by="Ann",
        role="officer", expires=date(2099, 1, 31), findings=("x",),
    )  # fmt: skip
    spelled = (
        '{"audit":1,"by":"Ann","decision":"accept","expires":"2099-01-31","findings":["x"],"model_path":"m.pt",'
        f'"model_sha256":"{"a" * 64}","note":"","record_sha256":"{"b" * 64}","role":"officer"}}'
    )
    assert old.signed_bytes() == spelled.encode()


def test_an_acceptance_reads_as_it_was_written(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25", owner="model team", due="2099-01-15", note="known")
    decided = decisions_on(report, db)
    shown = report.model_copy(update={"decisions": decided})
    again = AuditReport.from_json(shown.to_json())
    assert again.decisions == decided
    assert acceptances_of(again.decisions) == acceptances_of(decided)
    assert [*acceptances_of(decided)] == [key_of(gap_of(report))]
    assert "one by one" in decided[0].describe() and "up to 0.25" in decided[0].describe()


def test_days_are_counted_to_the_last(report: AuditReport, db: str) -> None:
    recorded(with_gap(report, 0.22), db)
    accept(db, f"{gap_of(report).id}=0.25")
    last = date.fromisoformat(FUTURE)
    assert [
        next(iter(acceptances(entries_of(db), today=last + timedelta(days=k)).values())).expired for k in (0, 1)
    ] == [False, True]
