"""Many models: the portfolio says what the ledger's raw entries say, by whatever names, and publishes it as one."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Mapping
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.core.errors import ConfigError, UsageError
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.portfolio import portfolio_site as pages
from auditor.evidence.portfolio.audit_lines import Read, read_ledger
from auditor.evidence.portfolio.model_history import Model, changes_of, course, models_of, sparkline
from auditor.evidence.portfolio.open_findings import open_findings
from auditor.evidence.portfolio.site_folder import MARK, replaced
from auditor.report.record.configuration import About, Labels, about_of
from auditor.report.record.number_text import Period, period_of
from cli.commands import app
from tests import ROOT
from tests.evidence.ledgers import FIRST, Template, Told, decided, sha, write_audits, write_ledger
from tests.quantifiers import all_of, none_of
from tests.report.samples import sample_report

RUNNER = CliRunner()
ON = date(2027, 1, 31)
OPEN = ("FAIL", "INCONCLUSIVE", "NOT_RUN")
GAP = "group_fairness/between_groups/demographic_parity_difference/sex"
RATIO = "group_fairness/between_groups/demographic_parity_ratio/sex"
ODDS = "group_fairness/between_groups/equalized_odds_difference/sex"
LEAK = "membership_inference/loss_threshold/attack_auc"
NOISE = "robustness/noise/flip_rate/noise=0.1"
JUDGED = (GAP, RATIO, ODDS, LEAK)
ALL_PASS = dict.fromkeys(JUDGED, "PASS") | {"robustness": "NOT_APPLICABLE"}
PACK = {
    "name": "eu-ai-act-2024-1689",
    "title": "EU AI Act",
    "source": "Regulation (EU) 2024/1689",
    "checked_on": "2026-11-20",
    "certainty": "text",
    "as_of": "2026-11-26",
}


@pytest.fixture(scope="module")
def template() -> Template:
    return Template(sample_report(), keep=(*JUDGED, NOISE, "robustness"))


def run(*words: str | Path) -> Result:
    return RUNNER.invoke(app, [str(word) for word in words])


def told(day: int, given: str = "credit", outcomes: Mapping[str, str] | None = None, **changes: Any) -> Told:
    """An audit on a day after the first, of a model with an id unless ``given`` is empty."""
    model = {"id": given, "version": "1", "owner": "Ann", "tier": "high"} if given else {}
    return Told(
        day=FIRST + timedelta(days=day),
        model=model | changes.pop("model", {}),
        outcomes=ALL_PASS | dict(outcomes or {}),
        **changes,
    )


def read(path: Path) -> tuple[Ledger, Read, list[Model]]:
    ledger = Ledger(path, create=False)
    found = read_ledger(ledger)
    return ledger, found, models_of(found)


def test_a_course_is_drawn_over_days_and_audits_of_one_day_are_only_told(template: Template, tmp_path: Path) -> None:
    failed = {JUDGED[0]: "FAIL"}
    for name, days, marks in (("one-day", (3, 3), 0), ("two-days", (3, 5), 2)):
        path = tmp_path / f"{name}.db"
        write_audits(path, template, [told(day, outcomes=failed) for day in days])
        (model,) = read(path)[2]
        drawn = sparkline(model.audits)
        assert drawn.count('class="is-fail"') == marks and bool(drawn) == (marks > 0)
        assert course(model.audits).startswith("1 failed on ") and course(model.audits).endswith(", 2 audits")


# ---- recomputed slowly -----------------------------------------------------------------------------------------------


def raw(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT number, created, kind, payload FROM auditor_entries ORDER BY number").fetchall()
    connection.close()
    return [{"number": n, "day": created[:10], "kind": kind, **json.loads(text)} for n, created, kind, text in rows]


def about(audit: Mapping[str, Any]) -> dict[str, str]:
    own: dict[str, str] = (audit["record"].get("about") or {}).get("model", {})
    return own


def slow_models(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    audits = [entry for entry in entries if entry["kind"] == "audit"]
    found: dict[str, list[dict[str, Any]]] = {}
    for audit in audits:
        digest, given = audit["record"]["model"]["sha256"], about(audit).get("id", "")
        if not given:
            claims = [about(other).get("id", "") for other in audits if other["record"]["model"]["sha256"] == digest]
            given = next((claim for claim in claims if claim), f"bytes {digest}")
        found.setdefault(given, []).append(audit)
    return found


def slow_open(audits: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is open of one model, looked up audit by audit; the template's one probe that does not run aside."""
    found: dict[str, dict[str, Any]] = {}
    seen = [
        (audit["number"], audit["day"], {f["id"]: f["outcome"] for f in audit["record"]["findings"]})
        for audit in audits
        if audit["record"]["refusal"] is None
    ]
    for name in JUDGED:
        passed = max((number for number, _, outcomes in seen if outcomes.get(name) == "PASS"), default=0)
        since = [(n, day, o[name]) for n, day, o in seen if n > passed and o.get(name) in OPEN]
        if since:
            found[name] = {"first": since[0][0], "since": since[0][1], "last": since[-1][0], "outcome": since[-1][2]}
    return found


def slow_table(path: Path, on: date) -> set[tuple[str, ...]]:
    entries = raw(path)
    table = set()
    for name, audits in slow_models(entries).items():
        last, numbers = audits[-1], [audit["number"] for audit in audits]
        measured = [audit for audit in audits if audit["record"]["refusal"] is None]
        said = next((about(a) for a in reversed(audits) if about(a).get("id")), about(last))
        still_open = slow_open(audits)
        until: dict[str, str] = {}
        for entry in entries:
            if entry["kind"] == "decision" and entry["audit"] in numbers:
                for finding in entry["findings"]:
                    if entry["decision"] == "accept":
                        holds = until.get(finding, "") >= on.isoformat()
                        until[finding] = (
                            until[finding] if holds and entry["expires"] < on.isoformat() else entry["expires"]
                        )
                    else:
                        until.pop(finding, None)
        due = ""
        if measured:
            day, every = date.fromisoformat(measured[-1]["day"]), said.get("audit_every")
            due = (day + timedelta(days=int(every[:-1]))).isoformat() if every else ""
            if said.get("next_due", "") > day.isoformat():
                due = said["next_due"]
        verdict = {0: "PASS", 1: "FAIL", 3: "INCONCLUSIVE", 4: "REFUSED"}[last["record"]["exit_code"]]
        left = {each["outcome"] for each in still_open.values()}
        if verdict in ("PASS", "INCONCLUSIVE") and left:
            verdict = "FAIL" if "FAIL" in left else "INCONCLUSIVE"
        table.add(
            (
                "m.pt" if name.startswith("bytes ") else name,
                said.get("tier", ""),
                said.get("owner", ""),
                verdict,
                last["day"],
                str(len(still_open)),
                min((until[f] for f in still_open if f in until), default=""),
                due or "not stated",
            )
        )
    return table


class Page(HTMLParser):
    """The tables of a page as texts, its elements, links and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.hrefs: list[str] = []
        self.words: list[str] = []
        self._table = ""
        self._unseen = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.elements.append((tag, own))
        if tag == "a":
            self.hrefs.append(own.get("href") or "")
        if tag == "table":
            self._table = own.get("id") or ""
            self.tables[self._table] = []
        if tag == "tr" and self._table:
            self.tables[self._table].append([])
        if tag in ("td", "th") and self._table:
            self.tables[self._table][-1].append("")
        self._unseen += tag in ("small", "style", "script", "svg")

    def handle_endtag(self, tag: str) -> None:
        self._unseen -= tag in ("small", "style", "script", "svg")
        if tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.words.append(data)
            if self._table and self.tables[self._table] and self.tables[self._table][-1]:
                self.tables[self._table][-1][-1] += data.strip()


def pages_of(folder: Path) -> dict[str, Page]:
    return {f.relative_to(folder).as_posix(): Page(f.read_text("utf-8")) for f in sorted(folder.rglob("*.html"))}


def scrambled(path: Path, template: Template, seed: int) -> Path:
    """A ledger of fourteen models, among them some without ids, some on shared bytes, refusals and decisions."""
    rng = np.random.default_rng(seed)
    entries: list[tuple[Any, date, str]] = []
    for k in range(70):
        i = int(rng.integers(0, 14))
        given = "" if rng.random() < 0.25 else f"model-{i}"
        every = {"audit_every": f"{int(rng.integers(20, 400))}d"} if i % 3 else {}
        due = {"next_due": (FIRST + timedelta(days=int(rng.integers(0, 900)))).isoformat()} if i % 4 == 1 else {}
        outcomes = {name: str(rng.choice(["PASS", "PASS", *OPEN, "NOT_JUDGED"])) for name in JUDGED}
        audit = Told(
            day=FIRST + timedelta(days=10 * k),
            model={"id": given, "version": f"{k}", "owner": f"o{i % 3}", "tier": f"t{i % 2}", **every, **due}
            if given
            else {},
            sha256=sha(f"bytes {i // 2} {int(rng.integers(0, 2))}"),
            data=f"rows-{int(rng.integers(0, 2))}.csv",
            outcomes=outcomes | {"robustness": "NOT_APPLICABLE"},
            refused=rng.random() < 0.08,
        )
        payload = template.payload(audit)
        entries.append(("audit", audit.day, payload))
        named = [name for name, outcome in outcomes.items() if outcome in OPEN]
        if named and not audit.refused and rng.random() < 0.5:
            accepts = rng.random() < 0.7
            until = audit.day + timedelta(days=int(rng.integers(1, 800))) if accepts else None
            said: dict[str, Any] = {"decision": "accept" if accepts else "reject", "expires": until}
            day, decision = decided(len(entries), payload, audit.day, named, **said)
            entries.append(("decision", day, decision))
    return write_ledger(path, entries)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_portfolio_is_what_a_slow_recomputation_of_the_raw_entries_says(
    seed: int, template: Template, tmp_path: Path
) -> None:
    path = scrambled(tmp_path / "h.db", template, seed)
    result = run("history", "site", "--db", path, "--out", tmp_path / "site", "--on", ON)
    assert result.exit_code == 0, result.output
    found = pages_of(tmp_path / "site")
    rows = found["index.html"].tables["models"][1:]
    table = {tuple(row[:4]) + tuple(row[5:]) for row in rows}
    assert len(table) == len(rows) > 12
    assert table == slow_table(path, ON)
    listed = json.loads(run("history", "findings", "--db", path, "--on", ON, "--json").output)
    expected = {
        (
            "m.pt" if name.startswith("bytes ") else name,
            finding,
            own["since"],
            own["first"],
            own["last"],
            own["outcome"],
        )
        for name, audits in slow_models(raw(path)).items()
        for finding, own in slow_open(audits).items()
    }
    columns = ("model", "id", "since", "first_entry", "last_entry", "outcome")
    assert {tuple(row[name] for name in columns) for row in listed} == expected
    assert len(listed) == len(expected) > 20
    assert len(found["findings.html"].tables["open"]) == 1 + len(listed)


# ---- what is open ----------------------------------------------------------------------------------------------------


def open_of(path: Path) -> list[tuple[str, str, int, int, bool]]:
    ledger, _, models = read(path)
    ledger.close()
    return [(f.id, f.outcome.value, f.first, f.last, f.asked) for model in models for f in open_findings(model)]


def test_a_finding_is_closed_by_a_pass_and_by_nothing_else(template: Template, tmp_path: Path) -> None:
    first = told(0, outcomes={GAP: "FAIL", RATIO: "FAIL", ODDS: "INCONCLUSIVE"})
    later = told(30, outcomes={GAP: "PASS", RATIO: "NOT_JUDGED", ODDS: "NOT_APPLICABLE"}, data="others.csv")
    path = write_audits(tmp_path / "h.db", template, [first, told(10, refused=True), later])
    assert open_of(path) == [(RATIO, "FAIL", 1, 1, False), (ODDS, "INCONCLUSIVE", 1, 1, False)]


def held_to(template: Template, name: str, **changes: Any) -> Template:
    """The template with some of what is in one finding and its criterion otherwise."""
    made = Template.__new__(Template)
    record = dict(template.entry["record"])
    criterion = {k: v for k, v in changes.items() if k in ("bound", "direction")}
    rest = {k: v for k, v in changes.items() if k not in criterion}
    record["findings"] = [
        {**f, **rest, "criterion": {**f["criterion"], **criterion}} if f["id"] == name else f
        for f in record["findings"]
    ]
    made.entry, made.ids = {**template.entry, "record": record}, template.ids
    return made


def test_a_pass_on_a_looser_bound_or_fewer_other_rows_closes_nothing(template: Template, tmp_path: Path) -> None:
    n, bound = next(
        (f["n_samples"], f["criterion"]["bound"]) for f in template.entry["record"]["findings"] if f["id"] == GAP
    )
    count = iter(range(99))

    def left(*audits: tuple[Template, Told]) -> tuple[list[str], str, list[dict[str, Any]]]:
        path = tmp_path / f"{next(count)}.db"
        write_ledger(path, [("audit", t.day, kind.payload(t)) for kind, t in audits])
        open_ = json.loads(run("history", "findings", "--db", path, "--json").stdout)
        closed = json.loads(run("history", "findings", "--db", path, "--json", "--closed").stdout)
        return [f["id"] for f in open_], run("history", "findings", "--db", path).output, closed

    failed, passed = (template, told(0, outcomes={GAP: "FAIL"})), told(9, outcomes={GAP: "PASS"})
    others = told(9, outcomes={GAP: "PASS"}, data="others.csv")
    looser = held_to(template, GAP, bound=bound + 0.3)
    for later in (passed, others):
        names, said, closed = left(failed, (looser, later))
        assert names == [GAP] and closed == []
        assert f"Not retested on the same bound: entry 2 passed at most {bound + 0.3:g}" in said
    assert left(failed, (held_to(template, GAP, direction="at_least"), passed))[0] == [GAP]
    # A bound that was loosened while it was open is no bound to be closed by.
    still = (looser, told(5, outcomes={GAP: "INCONCLUSIVE"}))
    assert left(failed, still, (looser, passed))[0] == [GAP]
    names, said, closed = left(failed, (held_to(template, GAP, n_samples=n // 2 - 1), others))
    assert names == [GAP] and f"passed on {n // 2 - 1:,} of others.csv" in said and f"found on {n:,}" in said
    # Fewer rows in between make no fewer enough.
    few = held_to(template, GAP, n_samples=4)
    assert left(failed, (few, told(5, outcomes={GAP: "INCONCLUSIVE"}, data="few.csv")), (few, others))[0] == [GAP]
    for later, rows in ((passed, "the same rows: rows.csv"), (others, "other rows: others.csv")):
        for kind in (template, held_to(template, GAP, bound=bound / 2)):
            names, said, closed = left(failed, (kind, later))
            assert names == [] and said == "No finding is open.\n"
            assert [(c["id"], c["closed_by_entry"], c["n"], c["found_on"]) for c in closed] == [(GAP, 2, n, n)]
            assert closed[0]["rows"].startswith(rows)


def test_a_later_audit_that_asks_less_makes_no_pass_of_what_failed(template: Template, tmp_path: Path) -> None:
    narrow = Template.__new__(Template)
    own = [f for f in template.entry["record"]["findings"] if f["id"] == LEAK]
    narrow.entry, narrow.ids = {**template.entry, "record": {**template.entry["record"], "findings": own}}, [LEAK]
    audits = [(template, told(0, outcomes={GAP: "FAIL"})), (narrow, told(9)), (template, told(0, "other"))]
    path = write_ledger(tmp_path / "h.db", [("audit", t.day, kind.payload(t)) for kind, t in audits])
    assert [name for name, *_ in open_of(path) if name == GAP] == [GAP]
    assert run("history", "site", "--db", path, "--out", tmp_path / "site", "--on", ON).exit_code == 0
    pages = pages_of(tmp_path / "site")
    (shown,) = [row for row in pages["index.html"].tables["models"][1:] if row[0] == "credit"]
    assert shown[3] == "FAIL"
    (page,) = [page for name, page in pages.items() if name.startswith("models/credit")]
    assert "did not ask again" in " ".join(page.words) and "PASS on" not in " ".join(page.words)


def test_what_failed_again_is_open_since_it_did(template: Template, tmp_path: Path) -> None:
    days = [told(10 * k, outcomes={GAP: outcome}) for k, outcome in enumerate(["FAIL", "PASS", "FAIL", "INCONCLUSIVE"])]
    path = write_audits(tmp_path / "h.db", template, days)
    assert open_of(path) == [(GAP, "INCONCLUSIVE", 3, 4, True)]


def test_what_did_not_run_is_settled_once_it_ran_and_not_by_its_being_left_out(
    template: Template, tmp_path: Path
) -> None:
    stopped = told(0, outcomes={"robustness": "NOT_RUN"})
    # The template measures the probe's number in every audit; without it the probe did not run.
    without = {**template.entry["record"]}
    without["findings"] = [f for f in without["findings"] if f["id"] != NOISE]
    lean = Template.__new__(Template)
    lean.entry, lean.ids = {**template.entry, "record": without}, []
    left_out = told(10)
    path = write_ledger(
        tmp_path / "h.db",
        [("audit", t.day, kind.payload(t)) for kind, t in ((lean, stopped), (lean, left_out), (lean, stopped))],
    )
    assert open_of(path) == [("robustness", "NOT_RUN", 1, 3, True)]
    again = write_ledger(
        tmp_path / "i.db",
        [("audit", t.day, kind.payload(t)) for kind, t in ((lean, stopped), (lean, left_out), (template, told(20)))],
    )
    assert open_of(again) == []


def test_statuses_follow_the_decisions_by_the_day_that_is_asked_for(template: Template, tmp_path: Path) -> None:
    first = told(0, outcomes={GAP: "FAIL", LEAK: "INCONCLUSIVE"})
    payload = template.payload(first)
    until = FIRST + timedelta(days=40)
    entries: list[tuple[Any, date, str]] = [("audit", first.day, payload)]
    entries.append(("decision", *decided(1, payload, first.day, [GAP], expires=until, note="known")))
    # Other bytes under the same id: the acceptance is of the model, not of its file.
    second = told(20, outcomes={GAP: "FAIL", LEAK: "INCONCLUSIVE"}, sha256="b" * 64, model={"version": "2"})
    path = write_ledger(tmp_path / "h.db", [*entries, ("audit", second.day, template.payload(second))])

    def statuses(on: date) -> dict[str, str]:
        found = json.loads(run("history", "findings", "--db", path, "--on", on, "--json").output)
        return {row["id"]: row["status"] for row in found}

    assert statuses(until) == {GAP: "accepted", LEAK: "open"}
    assert statuses(until + timedelta(days=1)) == {GAP: "acceptance expired", LEAK: "open"}
    kept = json.loads(run("history", "findings", "--db", path, "--on", until, "--json", "--status", "accepted").output)
    assert [(row["id"], row["age_days"], row["owner"], row["version"]) for row in kept] == [(GAP, 40, "Ann", "2")]


def test_filters_of_findings_and_their_bad_values(template: Template, tmp_path: Path) -> None:
    days = [
        told(0, "credit", {GAP: "FAIL"}),
        told(50, "churn", {LEAK: "INCONCLUSIVE"}, sha256="b" * 64, model={"owner": "=Bob"}),
    ]
    path = write_audits(tmp_path / "h.db", template, days)

    def ids(*words: str) -> list[str]:
        return [
            row["model"]
            for row in json.loads(run("history", "findings", "--db", path, "--on", ON, "--json", *words).output)
        ]

    assert ids() == ["credit", "churn"]
    assert ids("--severity", "low") == ids("--model", "churn") == ids("--owner", "=Bob") == ["churn"]
    age = (ON - FIRST).days
    assert ids("--older-than", str(age - 1)) == ["credit"] and ids("--older-than", str(age)) == []
    table = run("history", "findings", "--db", path, "--on", ON, "--csv").output
    assert "'=Bob" in table and table.count("\n") == 3
    for words, said in (
        (("--model", "crdit"), "did you mean 'credit'"),
        (("--severity", "hihg"), "did you mean 'high'"),
        (("--status", "closed"), "is none of"),
        (("--csv", "--json"), "choose one"),
        (("--on", "yesterday"), "is no date"),
    ):
        result = run("history", "findings", "--db", path, *words)
        assert result.exit_code == 2 and said in result.output and result.output.count("\n") == 1, result.output


# ---- identity --------------------------------------------------------------------------------------------------------


def test_versions_data_sets_and_audits_follow_the_id(template: Template, tmp_path: Path) -> None:
    audits = [
        told(0, "", data="old.csv"),
        told(10, "credit", model={"version": "1"}, data="old.csv"),
        told(20, "credit", model={"version": "2"}, sha256="b" * 64, data="new.csv"),
        told(30, "marketing", data="new.csv"),
        told(40, "", sha256="c" * 64, data="new.csv"),
        told(50, "", path="else.pt", sha256=None, data="new.csv"),
    ]
    ledger, _, models = read(write_audits(tmp_path / "h.db", template, audits))
    ledger.close()
    assert {m.known_by: [a.number for a in m.audits] for m in models} == {
        ("id", "credit"): [1, 2, 3],
        ("id", "marketing"): [4],
        ("sha256", "c" * 64): [5],
        ("path", "else.pt"): [6],
    }
    credit = next(m for m in models if m.title == "credit")
    assert [(v.name, len(v.sha256), len(v.audits)) for v in credit.versions()] == [
        ("2", 1, 1),
        ("1", 1, 1),
        ("a" * 12, 1, 1),
    ]
    assert [(d.path, [a.number for a in d.looks]) for d in credit.data_sets()] == [
        ("new.csv", [3]),
        ("old.csv", [1, 2]),
    ]


def test_rows_are_known_by_either_digest(template: Template, tmp_path: Path) -> None:
    def rows(file: str, inside: str | None) -> dict[str, Any]:
        own = {**template.entry["record"]["data"], "path": file, "sha256": sha(file)}
        return {"data": own | ({"rows_sha256": sha(inside)} if inside else {})}

    audits = [
        told(0, changes=rows("a.csv", None)),
        told(1, changes=rows("b.csv", "rows")),
        told(2, changes=rows("c.csv", None)),
        told(3, changes=rows("a.csv", "rows")),
    ]
    ledger, _, (model,) = read(write_audits(tmp_path / "h.db", template, audits))
    ledger.close()
    assert [[a.number for a in d.looks] for d in model.data_sets()] == [[1, 2, 4], [3]]


# ---- what was required -----------------------------------------------------------------------------------------------


def test_a_bound_that_was_loosened_is_told_from_one_that_was_tightened(template: Template, tmp_path: Path) -> None:
    def required(**bounds: Any) -> list[dict[str, Any]]:
        said = {"source": "s", "set_by": "b", "set_at": "2026-11-27"}
        ways = {"gap": "at_most", "ratio": "at_least", "rate": "within", "auc": "at_most"}
        return [{"metric": name, "direction": ways[name], "bound": bound, **said} for name, bound in bounds.items()]

    audits = [
        told(0, criteria=required(gap=0.1, ratio=0.8, rate=[0.2, 0.4])),
        told(1, criteria=required(gap=0.2, ratio=0.9, rate=[0.3, 0.5])),
        told(2, refused=True, criteria=[]),
        told(3, criteria=required(gap=0.2, ratio=0.9, auc=0.5)),
        told(4, criteria=required(gap=0.05, ratio=0.7, auc=0.5)),
    ]
    ledger, _, (model,) = read(write_audits(tmp_path / "h.db", template, audits))
    found = [(c.audit.number, c.subject, c.turn) for c in changes_of(ledger, model.audits)]
    ledger.close()
    assert found == [
        (5, "gap", "tightened"),
        (5, "ratio", "loosened"),
        (4, "rate", "dropped"),
        (4, "auc", "added"),
        (2, "gap", "loosened"),
        (2, "ratio", "tightened"),
        (2, "rate", "changed"),
    ]


# ---- due -------------------------------------------------------------------------------------------------------------


def due(path: Path, *words: str | Path) -> tuple[int, set[tuple[str, str, str, str | None]]]:
    result = run("history", "due", "--db", path, "--json", "--all", *words)
    found = json.loads(result.stdout)["due"]
    return result.exit_code, {(d["state"], d["kind"], d["about"], d["by"]) for d in found}


def test_an_audit_is_due_by_what_the_model_says_else_by_what_is_asked(template: Template, tmp_path: Path) -> None:
    silent = write_audits(tmp_path / "a.db", template, [told(0)])
    assert due(silent, "--on", "2025-02-01") == (3, {("unknown", "audit", "credit", None)})
    assert due(silent, "--on", "2026-01-15", "--every", "365d") == (0, {("due", "audit", "credit", "2026-01-15")})
    assert due(silent, "--on", "2026-01-16", "--every", "365d") == (1, {("overdue", "audit", "credit", "2026-01-15")})
    often = write_audits(tmp_path / "b.db", template, [told(0, model={"audit_every": "1m"})])
    assert due(often, "--on", "2025-02-15", "--every", "365d") == (0, {("due", "audit", "credit", "2025-02-15")})
    stated = told(0, model={"audit_every": "1m", "next_due": "2025-12-31"})
    assert due(write_audits(tmp_path / "c.db", template, [stated]), "--on", "2026-01-01")[0] == 1
    # The day that was stated is past, and this is the audit that it was for.
    met = told(400, model={"audit_every": "30d", "next_due": "2025-12-31"})
    code, found = due(write_audits(tmp_path / "d.db", template, [stated, met]), "--on", "2026-03-01")
    assert (code, found) == (0, {("due", "audit", "credit", "2026-03-21")})


def test_what_a_record_says_puts_nothing_off_that_a_person_asks_for(template: Template, tmp_path: Path) -> None:
    asked = ("--on", "2026-01-01", "--every", "30d")
    for k, model in enumerate(({"audit_every": "99y"}, {"next_due": "2999-12-31"})):
        late = write_audits(tmp_path / f"{k}.db", template, [told(0, model=model)])
        assert due(late, *asked) == (1, {("overdue", "audit", "credit", "2025-02-14")})
        assert "which puts it off to" in run("history", "due", "--db", late, *asked).output
        # Nobody asked for more: what the record says is all that is known.
        assert due(late, "--on", "2026-01-01")[0] == 0
    soon = write_audits(tmp_path / "s.db", template, [told(0, model={"next_due": "2025-02-01"})])
    assert due(soon, *asked) == (1, {("overdue", "audit", "credit", "2025-02-01")})


def test_a_refused_audit_is_none_and_nothing_known_is_not_nothing_due(template: Template, tmp_path: Path) -> None:
    refused = write_audits(tmp_path / "a.db", template, [told(0, refused=True, model={"audit_every": "1y"})])
    assert due(refused, "--on", "2025-02-01") == (3, {("unknown", "audit", "credit", None)})
    empty = write_ledger(tmp_path / "b.db", [])
    result = run("history", "due", "--db", empty)
    assert result.exit_code == 3 and result.output == "Nothing is known of any model.\n"
    assert run("history", "findings", "--db", empty).exit_code == 3
    garbled = write_audits(tmp_path / "c.db", template, [told(0, model={"audit_every": "often"})])
    code, _ = due(garbled, "--every", "1y", "--on", "2025-02-01")
    assert code == 3 and "is no length of time" in run("history", "due", "--db", garbled, "--on", "2025-02-01").output
    assert (
        run("history", "due", "--db", empty, "--every", "0d").exit_code
        == run("history", "due", "--db", empty, "--on", "1").exit_code
        == 2
    )
    assert run("history", "due", "--db", tmp_path / "none.db").exit_code == 2


def test_acceptances_of_open_findings_and_old_packs_are_due(template: Template, tmp_path: Path) -> None:
    first = told(0, outcomes={GAP: "FAIL"}, model={"audit_every": "9y"}, policies=[PACK])
    payload = template.payload(first)
    until = FIRST + timedelta(days=30)
    accepted = ("decision", *decided(1, payload, first.day, [GAP], expires=until))
    path = write_ledger(tmp_path / "a.db", [("audit", first.day, payload), accepted])
    pack_day = "2027-05-19"
    assert (date.fromisoformat(PACK["checked_on"]) + timedelta(days=180)).isoformat() == pack_day
    assert due(path, "--on", until)[0] == 0
    code, found = due(path, "--on", until + timedelta(days=1))
    assert code == 1 and ("overdue", "acceptance", "credit", until.isoformat()) in found
    # Once it passes, nobody has to accept it again; the pack is looked up again all the same.
    passed = ("audit", until, template.payload(told(30, model={"audit_every": "9y"}, policies=[PACK])))
    mended = write_ledger(tmp_path / "b.db", [("audit", first.day, payload), accepted, passed])
    assert due(mended, "--on", pack_day)[0] == 0
    code, found = due(mended, "--on", "2027-05-20")
    assert code == 1 and ("overdue", "pack", PACK["name"], pack_day) in found
    none_of(kind == "acceptance" for _, kind, _, _ in found)


def test_a_day_to_come_puts_nothing_off(template: Template, tmp_path: Path) -> None:
    later = PACK | {"checked_on": "2099-01-01"}
    path = write_audits(tmp_path / "a.db", template, [told(0, model={"audit_every": "9y"}, policies=[later])])
    code, found = due(path, "--on", "2026-11-27")
    assert code == 3 and ("unknown", "pack", PACK["name"], None) in found
    # Nor does an audit that is entered under a day that has not come.
    path = write_audits(tmp_path / "b.db", template, [told(0, model={"audit_every": "30d"}), told(40_000)])
    assert due(path, "--on", "2026-11-27", "--every", "30d") == (3, {("unknown", "audit", "credit", None)})


def test_lengths_of_time() -> None:
    day = date(2024, 1, 31)
    for text, after in (("365d", date(2025, 1, 30)), ("2w", date(2024, 2, 14)), ("1M ", date(2024, 2, 29)),
                        ("13m", date(2025, 2, 28)), ("1y", date(2025, 1, 31)), ("99999y", date.max)):  # fmt: skip
        assert period_of(text, "it").end_date(day) == after
    assert Period(days=99_999).end_date(date(9999, 1, 1)) == date.max
    for text in ("", "0d", "-1d", "1.5y", "1q", "d", "1d1d", "1000000d"):
        with pytest.raises(UsageError, match="write it like 365d"):
            period_of(text, "it")


def test_what_audit_toml_says_of_when_is_read_or_refused() -> None:
    def said(**model: object) -> About:
        found = about_of({"model": model}, Labels({}), "en", "audit.toml")
        assert found is not None
        return found

    assert (
        said(next_due=date(2027, 6, 30)).model.next_due == said(next_due=" 2027-06-30").model.next_due == "2027-06-30"
    )
    assert said(audit_every="6m").model.audit_every == "6m"
    for wrong, sentence in (
        ({"next_due": "soon"}, "next_due 'soon' is no date"),
        ({"audit_every": "often"}, "length of time"),
    ):
        with pytest.raises(UsageError, match=sentence):
            said(**wrong)
    with pytest.raises(ConfigError, match="did you mean 'audit_every'"):
        said(audit_evry="6m")


# ---- tampered, deterministic, paged ----------------------------------------------------------------------------------


def changed(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (
            """UPDATE auditor_entries SET payload = replace(payload, '"FAIL"', '"PASS"') WHERE number = 1""",
            "entry 1 was changed",
        ),
        ("DELETE FROM auditor_entries WHERE number = 2", "entry 2 is missing"),
    ],
)
def test_a_ledger_that_was_changed_is_said_on_top_of_every_page_and_by_the_exit_code(
    statement: str, said: str, template: Template, tmp_path: Path
) -> None:
    path = write_audits(tmp_path / "h.db", template, [told(k, outcomes={GAP: "FAIL"}) for k in range(3)])
    assert run("history", "site", "--db", path, "--out", tmp_path / "site").exit_code == 0
    none_of("Do not rely" in "".join(page.words) for page in pages_of(tmp_path / "site").values())
    changed(path, statement)
    result = run("history", "site", "--db", path, "--out", tmp_path / "site")
    assert result.exit_code == 1 and f"WRONG   {said}" in result.output
    found = pages_of(tmp_path / "site")
    assert len(found) == 6
    for page in found.values():
        words = "".join(page.words)
        main = words.index("Skip to the content")
        assert main < words.index("Do not rely on this site") < words.index("ages and days that are due")
        assert said in words and "BROKEN" in words
    listed = run("history", "findings", "--db", path)
    assert listed.exit_code == 1 and said in listed.stderr
    assert run("history", "due", "--db", path, "--every", "99y", "--on", FIRST).exit_code == 3


def test_what_cannot_be_read_is_said_and_is_no_pass(template: Template, tmp_path: Path) -> None:
    newer = template.payload(told(1, changes={"schema_version": "99.0"}))
    entries: list[tuple[Any, date, str]] = [
        ("audit", FIRST, template.payload(told(0, model={"audit_every": "1y"}))),
        ("audit", FIRST, newer),
        ("decision", FIRST, '{"audit": 1}'),
        ("decision", *decided(1, newer, FIRST)),
    ]
    path = write_ledger(tmp_path / "h.db", entries[:3])
    result = run("history", "site", "--db", path, "--out", tmp_path / "site")
    assert result.exit_code == 3 and "a newer auditor reads it" in result.output and "entry 3" in result.output
    words = "".join(pages_of(tmp_path / "site")["index.html"].words)
    assert "Do not rely on this site: 2 things are wrong" in words and "unbroken" in words
    assert (
        run("history", "findings", "--db", path).exit_code
        == run("history", "due", "--db", path, "--on", FIRST).exit_code
        == 3
    )
    whole = write_ledger(tmp_path / "i.db", [entries[0], entries[3]])
    assert (
        "is about an audit 1 that is not in this history"
        in run("history", "site", "--db", whole, "--out", tmp_path / "s").output
    )


def digests(folder: Path) -> dict[str, str]:
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_same_ledger_gives_the_same_bytes(template: Template, tmp_path: Path) -> None:
    path = scrambled(tmp_path / "h.db", template, 3)
    for name in ("a", "b", "a"):
        assert run("history", "site", "--db", path, "--out", tmp_path / name).exit_code == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "h.db"]
    noted = json.loads((tmp_path / "a" / MARK).read_text())["files"]
    assert noted == {name: digest for name, digest in digests(tmp_path / "a").items() if name != MARK}


def test_long_lists_are_paged_and_every_link_leads_somewhere(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELS_A_PAGE", "FINDINGS_A_PAGE", "LOOKS_A_PAGE", "ENTRIES_A_PAGE"):
        monkeypatch.setattr(pages, name, 3)
    audits = [told(k, f"m{k}", {GAP: "FAIL", LEAK: "FAIL"}, sha256=sha(str(k))) for k in range(7)]
    audits += [told(10 + k, "m0", {GAP: "FAIL"}, data=f"{k % 2}.csv", sha256=sha("0")) for k in range(6)]
    path = write_audits(tmp_path / "h.db", template, audits)
    assert run("history", "site", "--db", path, "--out", tmp_path / "site", "--reports").exit_code == 0
    found = pages_of(tmp_path / "site")
    listed = [row[0] for name in ("index", "index-2", "index-3") for row in found[f"{name}.html"].tables["models"][1:]]
    assert sorted(listed) == [f"m{k}" for k in range(7)]
    assert sum(len(page.tables["entries"]) - 1 for name, page in found.items() if name.startswith("evidence")) == 13
    assert sum(len(page.tables["open"]) - 1 for name, page in found.items() if name.startswith("findings")) == 13
    assert len([name for name in found if name.startswith("models/m0-")]) == 3
    assert len([name for name in found if name.startswith("reports/")]) == 7
    for name, page in found.items():
        base = (tmp_path / "site" / name).parent
        for href in page.hrefs:
            if not name.startswith("reports/") and not href.startswith("#"):
                assert (base / unquote(href)).is_file(), (name, href)


def test_five_hundred_audits_take_a_site_of_ten_seconds_at_most(template: Template, tmp_path: Path) -> None:
    audits = [told(k // 50, f"m{k % 50}", {GAP: "FAIL"}, sha256=sha(str(k % 50))) for k in range(500)]
    path = write_audits(tmp_path / "h.db", template, audits)
    began = time.process_time()
    assert run("history", "site", "--db", path, "--out", tmp_path / "site").exit_code == 0
    # Records of a whole scan are forty times as long as these, and take four times as long.
    assert time.process_time() - began < 10 / 4
    assert len(list((tmp_path / "site" / "models").iterdir())) == 50


# ---- hostile names ---------------------------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "../../../etc/passwd",
    "..\\..\\windows",
    "a\u202egpj.exe",
    "\x1b]0;owned\x07",
    "{{ 7 * 7 }}{% raw %}",
    "=HYPERLINK(\"http://x\")",
    "CON",
    "credit", "Credit", "CREDIT ", "crédit",
    "x" * 480,
    "javascript:alert(1)",
    "&lt;b&gt;",
    "\u0301" * 30,
)  # fmt: skip


def test_hostile_names_stay_inert_in_pages_file_names_tables_and_terminals(template: Template, tmp_path: Path) -> None:
    audits = []
    for k, name in enumerate(HOSTILE):
        model = {"name": name, "owner": name, "tier": name, "version": name}
        controls = [{"policy": name, "id": name, "title": name, "source": "s", "certainty": "text", "in_force": True,
                     "cells": [{"kind": "evidence", "what": name, "outcomes": {"FAIL": 1}}]}]  # fmt: skip
        audits.append(
            told(k, name, {GAP: "FAIL"}, sha256=sha(str(k)), path=name, data=name, bundle=name, model=model,
                 policies=[PACK | {"name": name, "title": name}], controls=controls)
        )  # fmt: skip
    entries: list[tuple[Any, date, str]] = [("audit", a.day, template.payload(a)) for a in audits]
    entries.append(
        ("decision", *decided(1, entries[0][2], FIRST, [GAP], by=HOSTILE[0], role=HOSTILE[1], note=HOSTILE[4]))
    )
    path = write_ledger(tmp_path / "h.db", entries)
    out = tmp_path / "deep" / "site"
    assert run("history", "site", "--db", path, "--out", out).exit_code == 0
    found = pages_of(out)
    assert len(found) == 5 + len(HOSTILE)
    names = [p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()]
    all_of(re.fullmatch(r"(models/)?[a-z0-9-]{1,60}\.html|\.auditor-site\.json", name) is not None for name in names)
    assert len({name.casefold() for name in names}) == len(names)
    for name, page in found.items():
        text = (out / name).read_text("utf-8")
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == tags.count("style") == 1 and not {"img", "iframe", "object", "form"} & set(tags)
        none_of(key.startswith("on") or key == "style" for _, own in page.elements for key in own)
        none_of(re.match(r"\w+:|//|/", href) is not None for href in page.hrefs)
        assert (
            not set("\u202e\x1b\x07") & set(text)
            and "\u0301" * 4 not in text
            and "49" not in re.findall(r">(49)<", text)
        )
    for words in (
        ("history", "findings"),
        ("history", "findings", "--csv"),
        ("history", "due", "--on", ON),
        ("history",),
    ):
        shown = run(*words, "--db", path).output
        assert not set("\u202e\x1b\x07") & set(shown) and "alert(1)" in shown, words
    none_of(
        line.startswith("=")
        for row in run("history", "findings", "--db", path, "--csv").output.splitlines()
        for line in row.split(",")
    )


def test_the_style_and_script_of_every_page_are_those_that_its_policy_allows(
    template: Template, tmp_path: Path
) -> None:
    import base64

    path = write_audits(tmp_path / "h.db", template, [told(0)])
    run("history", "site", "--db", path, "--out", tmp_path / "site")
    for file in (tmp_path / "site").rglob("*.html"):
        text = file.read_text("utf-8")
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
        assert policy is not None and "default-src &#39;none&#39;" in policy[1]
        for tag in ("style", "script"):
            inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            assert inside is not None
            digest = base64.b64encode(hashlib.sha256(inside[1].encode()).digest()).decode()
            assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy[1].replace("&#43;", "+")


# ---- published as one ------------------------------------------------------------------------------------------------


@pytest.fixture
def path(template: Template, tmp_path: Path) -> Path:
    return write_audits(tmp_path / "h.db", template, [told(0, outcomes={GAP: "FAIL"})])


def test_an_earlier_site_is_replaced_and_a_page_that_is_no_more_is_gone(
    path: Path, template: Template, tmp_path: Path
) -> None:
    out = tmp_path / "site"
    assert run("history", "site", "--db", path, "--out", out).exit_code == 0
    gone = next((out / "models").iterdir())
    other = write_audits(tmp_path / "i.db", template, [told(0, "churn")])
    assert run("history", "site", "--db", other, "--out", out).exit_code == 0
    assert not gone.exists() and len(list((out / "models").iterdir())) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("history", "site", "--db", path, "--out", empty).exit_code == 0 and (empty / "index.html").is_file()


def test_what_is_not_ours_is_never_deleted(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert run("history", "site", "--db", path, "--out", out).exit_code == 0
    (out / "CNAME").write_text("audits.example\n")
    (out / "models" / "mine").mkdir()
    os_link = out / "elsewhere"
    os_link.symlink_to(tmp_path / "h.db")
    before = digests(tmp_path)
    result = run("history", "site", "--db", path, "--out", out)
    assert result.exit_code == 2 and "CNAME" in result.output and result.output.count("\n") == 1, result.output
    assert digests(tmp_path) == before
    (out / "index.html").write_text("edited\n")
    assert run("history", "site", "--db", path, "--out", out, "--force").exit_code == 0
    assert (out / "CNAME").read_text() == "audits.example\n" and (out / "models" / "mine").is_dir()
    assert os_link.is_symlink() and "edited" not in (out / "index.html").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.db", "site"]
    # What a stranger wrote down as ours is held to what it says, and to nothing outside.
    (out / MARK).write_text(json.dumps({"format": "auditor-site/1", "files": {"../h.db": "0" * 64, "CNAME": "0" * 64}}))
    assert run("history", "site", "--db", path, "--out", out).exit_code == 2 and (tmp_path / "h.db").is_file()


def test_a_page_that_somebody_edited_is_refused(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    run("history", "site", "--db", path, "--out", out)
    (out / "index.html").write_text("mine\n")
    result = run("history", "site", "--db", path, "--out", out)
    assert result.exit_code == 2 and "index.html" in result.output and (out / "index.html").read_text() == "mine\n"


def test_folders_that_are_none_for_a_site_are_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "file").write_text("mine\n")
    monkeypatch.chdir(work)
    before = digests(tmp_path)
    read = "which this command reads"
    for out, said in ((".", "the folder that you are in"), ("..", read), ("../file", "is no folder"),
                      (str(tmp_path), read)):  # fmt: skip
        for force in ((), ("--force",)):
            result = run("history", "site", "--db", path, "--out", out, *force)
            assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
            assert said in result.output
    inside = tmp_path / "s"
    inside.mkdir()
    (inside / "h.db").write_bytes(path.read_bytes())
    result = run("history", "site", "--db", inside / "h.db", "--out", inside, "--force")
    assert result.exit_code == 2 and "which this command reads" in result.output
    (inside / "h.db").unlink()
    assert digests(tmp_path) == before


def test_a_site_that_was_not_finished_leaves_nothing_and_the_one_before_stays(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    run("history", "site", "--db", path, "--out", out)
    before = digests(tmp_path)
    with pytest.raises(RuntimeError), replaced(out, force=False) as folder:
        folder.write_page("index.html", b"half")
        raise RuntimeError
    assert digests(tmp_path) == before and sorted(p.name for p in tmp_path.iterdir()) == ["h.db", "site"]
    # Somebody puts a file there while the pages are made.
    with pytest.raises(UsageError, match="notes"), replaced(out, force=False) as folder:
        folder.write_page("index.html", b"whole")
        (out / "notes.txt").write_text("mine")
    assert (out / "notes.txt").read_text() == "mine" and (out / "due.html").is_file()
    (out / "page.html").mkdir()
    (out / "page.html" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="where a page of the site is to be"), replaced(out, force=True) as folder:
        folder.write_page("page.html", b"page")
    assert (out / "page.html" / "mine").read_text() == "mine"


# ---- bundles ---------------------------------------------------------------------------------------------------------


def test_bundles_are_checked_where_they_lie_beside_the_ledger(tmp_path: Path) -> None:
    golden = ROOT / "tests" / "golden"
    for name in ("history.db", "audit.zip"):
        (tmp_path / name).write_bytes((golden / name).read_bytes())
    db, out = tmp_path / "history.db", tmp_path / "site"

    def state(*words: str) -> tuple[int, str, list[str]]:
        result = run("history", "site", "--db", db, "--out", out, *words)
        page = pages_of(out)["evidence.html"]
        cells = [row[-1] for row in page.tables["entries"][1:] if row[-1]]
        assert len(cells) == 1, result.output
        return result.exit_code, cells[0], [href for href in page.hrefs if "audit.zip" in href]

    assert state() == (0, "audit.zip: not checked", [])
    code, said, links = state("--verify")
    assert (code, said, links) == (0, "audit.zip: agrees, in part", ["../audit.zip"])
    # A bundle that is whole, of another audit.
    (tmp_path / "audit.zip").write_bytes((golden / "rule2" / "audit.zip").read_bytes())
    code, said, _ = state("--verify")
    assert code == 1 and said == "audit.zip:wrong"
    assert "its record is not the one of this entry" in "".join(pages_of(out)["index.html"].words)
    (tmp_path / "audit.zip").write_bytes(b"no archive")
    assert state("--verify")[:2] == (1, "audit.zip:wrong")
    (tmp_path / "audit.zip").unlink()
    assert state("--verify")[:2] == (0, "audit.zip: not found")


def test_the_golden_ledger_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "h.db").write_bytes((ROOT / "tests" / "golden" / "history.db").read_bytes())
    ledger, found, (model,) = read(tmp_path / "h.db")
    ledger.close()
    assert found.problems == found.unread == () and found.n_entries == 3
    assert model.verdict == "FAIL" and len(model.audits) == 2 and len(model.decisions) == 1
    listed = json.loads(run("history", "findings", "--db", tmp_path / "h.db", "--on", "2026-11-27", "--json").output)
    assert {row["status"] for row in listed} == {"accepted"} and len(listed) == 4
