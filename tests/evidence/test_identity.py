"""A model is its id where it has one, else its bytes: looks, decisions and trends follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.evidence.history.earlier_looks import Asked, Known, looks_of, miscounted, numbers_of
from auditor.evidence.history.entries import AuditEntry, Decision, Identity, owners_of, record_in
from auditor.evidence.history.index import Index
from auditor.evidence.history.ledger import Ledger, broken_chain, decisions_about
from auditor.report.record.audit_report import AuditReport, DataRecord
from auditor.report.record.configuration import About, ModelIdentity
from cli.history import decisions_on, trend
from tests.evidence.test_evidence import evidence

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def report() -> AuditReport:
    return evidence(n=60).report


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "h.db")
    yield opened
    opened.close()


def audited(report: AuditReport, sha256: str | None, given: str = "", version: str = "") -> AuditReport:
    model = report.model.model_copy(update={"path": f"{version or 'm'}.pt", "sha256": sha256})
    about = About(model=ModelIdentity(id=given, version=version)) if given else None
    return report.model_copy(update={"model": model, "about": about})


def decided(ledger: Ledger, number: int, by: str = "Ann") -> None:
    audit = ledger.entry(number).audit()
    made = Decision(
        audit=number,
        record_sha256=audit.record_sha256,
        model_path=audit.record.model.path,
        model_sha256=audit.record.model.sha256,
        decision="accept",
        by=by,
        role="risk officer",
        expires=date(2099, 1, 31),
    )
    ledger.append("decision", made)


def who(ledger: Ledger, report: AuditReport) -> list[str]:
    return [decision.by for decision in decisions_on(report, ledger.where)]


def counted(ledger: Ledger, report: AuditReport) -> int | None:
    asked, head = Asked(probes=(), options={}), ledger.head()
    found = looks_of(Known.from_ledger(ledger), head, report, asked, None)
    again = Known.from_entries(list(ledger.entries()))
    assert miscounted(again, None, head, report.model_copy(update={"looks": found})) == []
    return found.model


def of_model(others: Sequence[Identity], now: Identity) -> list[bool]:
    """The slow way: which of these, in the order in which they were audited, are the model ``now``."""
    if now.id:
        owners = owners_of([*others, now])
        return [now.id == (other.id or owners.get(other.sha256 or "")) for other in others]
    return [now.sha256 is not None and other.sha256 == now.sha256 for other in others]


def test_a_decision_follows_the_id_to_new_bytes_and_not_to_another_id_on_the_same_bytes(
    ledger: Ledger, report: AuditReport
) -> None:
    ledger.append("audit", AuditEntry.from_report(audited(report, OLD, "credit", "1")))
    decided(ledger, 1)
    assert who(ledger, audited(report, NEW, "credit", "2")) == ["Ann"]
    assert who(ledger, audited(report, OLD, "marketing")) == []
    assert who(ledger, audited(report, OLD)) == ["Ann"]
    assert who(ledger, audited(report, NEW)) == []


def test_looks_at_a_model_follow_the_id(ledger: Ledger, report: AuditReport) -> None:
    ledger.append("audit", AuditEntry.from_report(audited(report, OLD, "credit", "1")))
    assert counted(ledger, audited(report, NEW, "credit", "2")) == 2
    assert counted(ledger, audited(report, OLD, "marketing")) == 1
    assert counted(ledger, audited(report, None, "credit", "2")) == 2
    assert counted(ledger, audited(report, OLD)) == 2
    assert counted(ledger, audited(report, NEW)) == 1
    assert counted(ledger, audited(report, None)) is None


def test_what_was_audited_before_there_was_an_id_stays_reachable(ledger: Ledger, report: AuditReport) -> None:
    ledger.append("audit", AuditEntry.from_report(audited(report, OLD)))
    decided(ledger, 1)
    ledger.append("audit", AuditEntry.from_report(audited(report, OLD, "credit", "1")))
    # The bytes of version 2 were never without an id: the first entry is reached by way of version 1's.
    assert counted(ledger, audited(report, NEW, "credit", "2")) == 3
    assert who(ledger, audited(report, NEW, "credit", "2")) == ["Ann"]
    assert counted(ledger, audited(report, NEW, "marketing")) == 1
    assert who(ledger, audited(report, NEW, "marketing")) == []
    assert broken_chain(ledger.entries()) == []


def test_a_model_without_id_and_bytes_is_known_by_its_path(ledger: Ledger, report: AuditReport) -> None:
    ledger.append("audit", AuditEntry.from_report(audited(report, None)))
    decided(ledger, 1)
    assert [d.by for _, d in decisions_about(ledger, sha256=None, path="m.pt")] == ["Ann"]
    assert decisions_about(ledger, sha256=None, path="other.pt") == []
    assert decisions_about(ledger, sha256=None, path=None) == []


def test_a_trend_is_one_line_for_an_id_and_two_for_two(ledger: Ledger, report: AuditReport) -> None:
    metric = next(f.metric for f in report.findings if f.metric and f.value is not None and not f.group)
    assert metric is not None

    def lines(*reports: AuditReport) -> int:
        for each in reports:
            ledger.append("audit", AuditEntry.from_report(each))
        return len(trend(list(ledger.entries()), metric).series)

    alone = lines(audited(report, OLD, "credit", "1"), audited(report, NEW, "credit", "2"))
    assert lines(audited(report, OLD, "marketing")) == 2 * alone


def test_an_entry_says_its_identity_without_being_read_whole(ledger: Ledger, report: AuditReport) -> None:
    for each in (audited(report, OLD), audited(report, NEW, "credit", "2")):
        entry = ledger.append("audit", AuditEntry.from_report(each))
        assert record_in(entry)[1] == Identity.from_report(each) == Identity.from_report(entry.audit().record)
    assert [record_in(e)[1].id for e in ledger.entries()] == ["", "credit"]


def test_bytes_without_an_id_belong_to_the_first_that_was_given_to_them(ledger: Ledger, report: AuditReport) -> None:
    seen = [Identity("", OLD), Identity("a", OLD), Identity("b", OLD), Identity("a", NEW), Identity("c", None)]
    assert owners_of(seen) == {OLD: "a", NEW: "a"}
    assert of_model(seen, Identity("a", None)) == [True, True, False, True, False]
    assert of_model(seen, Identity("b", None)) == [False, False, True, False, False]
    assert of_model(seen, Identity("", OLD)) == [True, True, True, False, False]
    assert of_model([Identity("", None)], Identity("", None)) == [False]
    # An acceptance from before there were ids is one model's, and not that of whoever comes later with the same bytes.
    ledger.append("audit", AuditEntry.from_report(audited(report, OLD)))
    decided(ledger, 1)
    ledger.append("audit", AuditEntry.from_report(audited(report, OLD, "credit", "1")))
    assert who(ledger, audited(report, OLD, "marketing")) == []
    assert who(ledger, audited(report, NEW, "credit", "2")) == ["Ann"]


def test_the_index_finds_the_models_that_a_walk_through_all_audits_finds(report: AuditReport, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names, bytes_ = ["", "", "credit", "loans"], [None, OLD, NEW, "c" * 64]
    ledger = Ledger(tmp_path / "h.db")
    seen: list[Identity] = []
    for _ in range(40):
        made = audited(report, bytes_[rng.integers(4)], names[rng.integers(4)])
        ledger.append("audit", AuditEntry.from_report(made))
        seen.append(Identity.from_report(made))
    entries = list(ledger.entries())
    compared = 0
    whole = ledger.index
    # Some databases shorten what they join.
    short = replace(
        whole,
        rows=lambda query: [
            tuple(x[:6] if isinstance(x, str) and "," in x else x for x in row) for row in whole.rows(query)
        ],
    )
    for index in (whole, Index.from_entries(entries), short):
        for given in ("", "credit", "loans", "new"):
            for sha256 in (*bytes_, "d" * 64):
                now = Identity(given, sha256)
                for before in (1, 14, 41):
                    slow = [k for k, same in enumerate(of_model(seen[: before - 1], now), 1) if same]
                    assert numbers_of(index.looks(DataRecord(), now, before)) == slow
                    compared += len(slow)
    ledger.close()
    assert compared > 450
