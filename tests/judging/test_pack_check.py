"""A pack of one's own, checked: every fault a sentence, and rules that no probe will ever answer among them."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auditor.judging.policy import load_policies, pack_names
from auditor.judging.rule_pack_check import faults_of, overlap
from cli.commands import app
from cli.rule_packs import known_metrics
from probes import PROBES
from tests import ROOT
from tests.quantifiers import all_of
from tests.report.samples import sample_report

OWN = """\
title = "House"
source = "House rules"
checked_on = 2026-11-27
certainty = "text"

[[controls]]
id = "1"
title = "Groups"
evidence = [{ what = "gaps", probe = "group_fairness", metric = "*_difference", how = "add --sensitive" }]

[[controls]]
id = "2"
title = "Purpose"
attestation = [{ what = "purpose", role = "owner" }]
"""


@cache
def metrics() -> dict[str, list[str]]:
    return known_metrics()


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.grid
@pytest.mark.parametrize("name", pack_names())
def test_every_shipped_pack_holds(name: str) -> None:
    text = (files("auditor.judging") / "policies" / f"{name}.toml").read_text(encoding="utf-8")
    assert faults_of(text, f"{name}.toml", metrics()) == []


def test_metrics_are_known_of_every_probe() -> None:
    assert all_of(metrics()[name] for name in PROBES)
    assert "accuracy_difference" in metrics()["group_fairness"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("group_fairness", "group_fairnes", r"own\.toml, control '1': .* 'group_fairnes'; .* 'group_fairness'\?"),
        ("*_difference", "accuracy_diference", r"control '1': .*'accuracy_diference'; .*'accuracy_difference'"),
        ("*_difference", "*_diference", r"control '1': 'group_fairness' measures no '\*_diference'"),
        ("*_difference", "accuracy_difference|acuracy", r"measures no 'acuracy'; did you mean 'accuracy'\?"),
        ('role = "owner"', 'rolle = "owner"', r"own\.toml, line 14: unknown key 'rolle'; did you mean 'role'\?"),
        ("[[controls]]", "[[control]]", "did you mean 'controls'"),
        ("checked_on", "checkd_on", "line 3: unknown key 'checkd_on'; did you mean 'checked_on'"),
    ],
)  # fmt: skip
def test_a_fault_is_a_sentence_with_the_nearest_known(old: str, new: str, fault: str) -> None:
    assert faults_of(OWN, "own.toml", metrics()) == []
    found = faults_of(OWN.replace(old, new, 1), "own.toml", metrics())
    assert len(found) == 1 and re.search(fault, found[0]), found


def test_all_faults_are_told_at_once_and_lines_stay_those_of_the_file() -> None:
    text = OWN.replace('title = "Groups"', 'titel = "Groups"').replace("role =", "rolle =")
    text += '\n[[controls]]\nid = "3"\ntitle = "c"\nevidence = [{ what = "w", probe = "*_fairnes", how = "h" }]\n'
    found = faults_of(text, "own.toml", metrics())
    assert [line.split(":")[0] for line in found] == ["own.toml, line 8", "own.toml, line 14", "own.toml, control '3'"]
    # With nothing left, what was set aside is all there is to say.
    none = OWN.replace('title = "Groups"', 'titel = "Groups"').replace("role =", "rolle =")
    assert len(faults_of(none, "own.toml", metrics())) == 2


def test_a_probe_of_others_may_measure_anything() -> None:
    text = OWN.replace('"group_fairness"', '"theirs"')
    assert faults_of(text, "own.toml", {**metrics(), "theirs": []}) == []


@pytest.mark.parametrize("one", ["".join(p) for n in range(4) for p in itertools.product("ab*", repeat=n)])
def test_patterns_overlap_where_a_word_is_of_both(one: str) -> None:
    from auditor.judging.policy import _matches

    words = ["".join(w) for n in range(7) for w in itertools.product("ab", repeat=n)]
    of_one = {w for w in words if _matches(w, one)}
    for other in ("", "a", "*", "a*", "*b", "a*b", "*a*", "ab", "b*a", "**"):
        assert overlap(one, other) == bool(of_one & {w for w in words if _matches(w, other)}), (one, other)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_list_says_of_each_pack_what_it_is_and_how_old() -> None:
    told = json.loads(run("policy", "--json").output)
    packs = {pack.name: pack for pack in load_policies(pack_names())[0]}
    assert [row["name"] for row in told] == list(packs)
    for row in told:
        pack = packs[row["name"]]
        assert row["checked_on"] == pack.checked_on.isoformat() and row["age_days"] >= 0
        assert row["controls"] == len(pack.controls) and row["sha256"] == pack.sha256 and not row["sets_pass_mark"]
    lines = run("policy").output.splitlines()
    assert lines[0].split("\t")[:3] == ["name", "title", "source"] and len(lines) == len(packs) + 1


def test_an_old_pack_says_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(OWN.replace("2026-11-27", "2020-01-01"))
    assert "look its sources up again" in run("policy", "own.toml").output
    assert "look its sources up again" not in run("policy", "us-sr-26-2").output


def test_one_pack_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("policy", "us-il-hb3773")
    (pack,) = load_policies(["us-il-hb3773"])[0]
    assert said.exit_code == 0 and all_of(f"{c.id}: {c.title}" in said.output for c in pack.controls)
    assert "said by the employer" in said.output and "proxy_association" in said.output
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(OWN.replace("Groups", "<b>\\u202e\\u001b[31m"))
    assert "\u202e" not in run("policy", "own.toml").output and "\x1b[31m" not in run("policy", "own.toml").output


def test_checking_exits_1_with_a_line_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(OWN)
    assert run("policy", "--check", "own.toml").exit_code == 0
    Path("own.toml").write_text(OWN.replace("group_fairness", "group_fairnes").replace("role", "rolle"))
    said = run("policy", "--check", "own.toml")
    assert said.exit_code == 1 and said.output.count("\n") == 2
    assert json.loads(run("policy", "--check", "own.toml", "--json").output)["faults"] == said.output.splitlines()
    Path("own.toml").write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in run("policy", "--check", "own.toml").output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gdrp",), "did you mean 'gdpr'"),
        (("auditor-default-3",), "criteria and no controls"),
        (("--check", "nowhere.toml"), "is no rule pack"),
        (("--check", "."), "is no rule pack"),
        (("--crosswalk", "nowhere"), "There is no report"),
        (("gdpr", "--check", "own.toml"), "one of them at a time"),
    ],
)
def test_wrong_usage_is_a_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("policy", *words)
    assert said.exit_code == 2 and message in said.output and said.output.count("\n") == 1


def test_the_crosswalk_says_which_controls_a_number_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = sample_report()
    Path("report.json").write_text(report.to_json())
    rows = {row["finding"]: row for row in json.loads(run("policy", "--crosswalk", "report.json", "--json").output)}
    told = {
        f.id for f in report.findings if f.value is not None and f.outcome.value not in ("NOT_RUN", "NOT_APPLICABLE")
    }
    assert set(rows) == told
    gap = next(f for f in report.findings if f.probe == "group_fairness" and (f.metric or "").endswith("_difference"))
    serves = {(s["policy"], s["control"]) for s in rows[gap.id]["controls"]}
    assert {("us-il-hb3773", "2-102, effect"), ("pren-18283", "measures"), ("us-tx-traiga", "552.056")} <= serves
    assert ("us-sr-26-2", "monitoring") not in serves
    size = next(f for f in report.findings if f.metric == "n_parameters")
    assert not [s for s in rows[size.id]["controls"] if s["policy"] == "us-il-hb3773"]
    lines = run("policy", "--crosswalk", "report.json").output.splitlines()
    assert lines[0] == "measured\tby\toutcomes\tserves"
    assert any("us-il-hb3773: 2-102, effect" in line and "FAIL" in line for line in lines)


def test_the_documented_table_is_that_of_the_packs() -> None:
    page = (ROOT / "docs/rule-packs.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `[\w-]+` \|", line)]
    sure = {"text": "primary text", "page": "secondary pages", "code": "a public repository", "memory": "memory"}
    expected = [
        f"| `{p.name}` | {p.title} | {p.checked_on} | {sure[p.certainty]} | {len(p.controls)} |"
        for p in load_policies(pack_names())[0]
    ]
    assert rows == expected
