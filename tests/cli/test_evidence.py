"""The commands around evidence: what is refused before any work, and what a second run is held to."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from auditor.core.errors import DataError, UsageError
from auditor.evidence.evidence_bundle import write_bundle
from auditor.evidence.manifest import ASKED, Asked, canonical
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.judging.measurement import Definition
from auditor.models.saved_models import save
from auditor.run.scan_options import Configured, ScanOptions
from cli.commands import app
from cli.reproduce import configured_again, reproduce
from cli.scan_evidence import check_flags, request_of
from cli.scan_request import configure
from cli.verify import stored_probe, verify
from tests.evidence.authority import authority, serving
from tests.evidence.test_evidence import evidence
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sign": "k"}, "--sign says something about the evidence bundle: add --bundle"),
        ({"timestamp": "http://a"}, "--timestamp says something about the evidence bundle"),
        ({"bundle": "a.zip", "timestamp": "file:///a"}, "no http or https URL"),
        ({"redact": True}, "--redact says something about the evidence bundle"),
        ({"bundle": "a.zip", "include_rows": True, "redact": True}, "give one"),
        ({"bundle": "."}, "is a folder: name a file"),
        ({"bundle": "a.zip", "sign": "no-such-key"}, "cannot be read"),
    ],
)
def test_contradicting_flags_are_refused_before_any_work(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_flags(ScanOptions.from_values(flags))


def request(**options: object) -> bytes:
    return canonical({"options": options, "probe_options": {"group_fairness": {"intersections": False}}})


def results() -> bytes:
    made = evidence(n=60)
    asked = Asked(results=tuple(made.results), criteria=tuple(made.criteria), family=made.family)
    return canonical(ASKED.dump_python(asked, mode="json"))


def test_a_request_comes_back_as_it_was_given_but_for_places() -> None:
    configured = configure({"model": "m.pt", "data": "d.csv", "seed": 3, "out": "here", "bundle": "a.zip"}, None, [])
    said = request_of(configured)
    assert said["options"] == {"model": "m.pt", "data": "d.csv", "seed": 3}
    again = configured_again(canonical(said), results(), {"model": None, "data": "elsewhere.csv"}, allow_code=False)
    assert (again.options.model, again.options.data, again.options.seed) == ("m.pt", "elsewhere.csv", 3)
    assert isinstance(again, Configured) and again.criteria


@pytest.mark.grid
@pytest.mark.parametrize(
    "options",
    [
        {"trust_pickle": True},
        {"allow_code": True},
        {"predict": "evil:run"},
        {"generate": "evil:run"},
        {"probe": ["evil:Probe"]},
    ],
)
def test_a_bundle_makes_no_code_run_by_itself(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="look at it, and add --allow-code"):
        configured_again(request(model="m.pt", **options), results(), {}, allow_code=False)
    assert configured_again(request(model="m.pt", **options), results(), {}, allow_code=True).options.model == "m.pt"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"options": 3}', b"[" * 100_000, request(unknown=1)])
def test_a_request_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="request cannot be read"):
        configured_again(content, results(), {}, allow_code=False)


def test_verify_says_what_it_found_and_exits_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "a.zip", evidence(n=60))
    assert verify(tmp_path / "a.zip") == 3
    printed = capsys.readouterr().out
    assert "NOT CHECKED  signature: it is not signed" in printed
    assert "exit 3: nothing disagrees, and what is named NOT PROVEN is not" in printed
    assert "NOT PROVEN (timestamp)" in printed and "ON THE SIGNER'S WORD" in printed
    # Nobody's clock vouches for its dates, whoever signed it.
    assert verify(tmp_path / "a.zip", allow_unsigned=True) == 3
    assert verify(tmp_path / "a.zip", require="rows") == 0
    assert "exit 0: proven as required: rows" in capsys.readouterr().out
    assert verify(tmp_path / "a.zip", require="rows,timestamp", json_=True) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["lacking"] == ["timestamp"] and said["exit_code"] == 3 and "rows" in said["proven"]
    assert {"where", "why", "needs"} == set(said["unproven"][0])
    with pytest.raises(UsageError, match="--require 'row' is nothing that a bundle can prove"):
        verify(tmp_path / "a.zip", require="row")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.zip").write_bytes(bytes(data))
    assert verify(tmp_path / "b.zip", allow_unsigned=True, json_=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert any(check["state"] == "wrong" for check in said["checks"])


def test_what_is_proven_is_said_in_a_line_each_and_what_nothing_proves_in_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "a.zip", evidence(n=60))
    assert verify(tmp_path / "a.zip", require="rows,numbers") == 0
    printed = capsys.readouterr().out
    first, *rest = printed.splitlines()
    assert first.startswith("PROVEN AS REQUIRED: rows, numbers. Nothing disagrees in ")
    proven = [line.removeprefix("proven ").strip() for line in rest if line.startswith("proven ")]
    assert [line.partition(":")[0] for line in proven] == ["rows", "numbers", "outcomes", "document id"]
    assert all_of(line.partition(": ")[2] for line in proven)
    (folded,) = [line for line in rest if line.startswith("Never proven by a signature: ")]
    assert "whatever it says of itself" in folded and "--verbose" in folded
    # What was not required is named in the verdict alone, and nothing sounds like a failure.
    assert "NOT PROVEN" not in printed and "ON THE SIGNER'S WORD" not in printed and "Next:" not in printed
    assert len(rest) <= 10
    result = CliRunner().invoke(
        app, ["evidence", "verify", str(tmp_path / "a.zip"), "--require", "rows,numbers", "--verbose"]
    )
    assert result.exit_code == 0 and "ON THE SIGNER'S WORD" in result.output and "duration_s" in result.output


def test_a_refused_audit_is_not_accused_of_what_it_never_came_to(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no model")
    (tmp_path / "rows.csv").write_text("a,y,who\n1,no,1\n2,yes,2\n")
    told = f"scan {tmp_path}/model.pt --data {tmp_path}/rows.csv --target y --cluster who --out {tmp_path}"
    first = CliRunner().invoke(app, [*told.split(), "--bundle", str(tmp_path / "a.zip")])
    assert first.exit_code == 4 and "undefined" not in first.output
    again = CliRunner().invoke(app, ["evidence", "verify", str(tmp_path / "a.zip"), "--allow-unsigned"])
    assert again.exit_code == 3 and "WRONG" not in again.output and "undefined" not in again.output


def test_verify_says_first_what_holds_and_fits_a_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "a.zip", evidence(n=60))
    verify(tmp_path / "a.zip")
    printed = capsys.readouterr().out
    first, *rest = printed.splitlines()
    assert re.fullmatch(r"NOTHING DISAGREES in \d+ checks\. Proven: .*rows.* Not proven: .*signature.*\.", first)
    assert sum(len(textwrap.wrap(line, 80)) or 1 for line in (first, *rest)) <= 40
    assert "duration_s" not in printed and "digest " not in printed and "log chain" in printed
    verify(tmp_path / "a.zip", all_=True)
    everything = capsys.readouterr().out
    assert "duration_s" in everything and "ok           record.json: digest " in everything
    assert len(everything.splitlines()) > len(printed.splitlines())


def test_verify_says_what_to_do_about_each_thing_that_is_required_and_lacking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "a.zip", evidence(n=60))
    assert verify(tmp_path / "a.zip", require="rows") == 0
    assert capsys.readouterr().out.startswith("PROVEN AS REQUIRED: rows. Nothing disagrees in ")
    for needs, flag in {
        "signature": "--key FILE", "registration": "auditor evidence register",
        "decisions": "auditor history sign-off", "packs": "scan --policy", "timestamp": "--tsa-root FILE",
        "history": "--db WHERE", "report": "--report FILE",
    }.items():  # fmt: skip
        assert verify(tmp_path / "a.zip", require=needs) == 3, needs
        first, *_, last = capsys.readouterr().out.splitlines()
        assert first.startswith(f"NOT PROVEN, and required: {needs}."), needs
        assert last.startswith(f"exit 3: not proven, and required: {needs}. {needs}: ") and flag in last, needs
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.zip").write_bytes(bytes(data))
    assert verify(tmp_path / "b.zip") == 1
    lines = capsys.readouterr().out.splitlines()
    checks = [line[:12].rstrip() for line in lines if line[:13].rstrip() in ("WRONG", "NOT CHECKED", "ok")]
    assert lines[0].startswith("WRONG: ") and checks == sorted(checks, key=["WRONG", "NOT CHECKED", "ok"].index)
    assert lines[-1].endswith("ask its sender for it as it was written")


def test_reproduce_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.zip", evidence(n=60))
    with pytest.raises(UsageError, match="Name a model"):
        reproduce(tmp_path / "a.zip")
    with pytest.raises(UsageError, match="--tolerance"):
        reproduce(tmp_path / "a.zip", tolerance=2.0)


def test_a_password_in_the_command_is_not_written_down() -> None:
    from auditor.report.record.redact_urls import without_passwords

    said = "auditor scan m.pt --db postgresql+psycopg://bob:S3CRET@host/x --data a@b:c"
    assert without_passwords(said) == said.replace("bob:S3CRET@", "")


def test_a_bundle_that_contradicts_itself_is_not_run_again(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.zip", evidence(n=60))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b.zip").write_bytes(bytes(data))
    with pytest.raises(DataError, match="does not agree with itself"):
        reproduce(tmp_path / "b.zip")


def test_a_wrong_flag_of_ones_own_is_not_the_bundles_fault() -> None:
    with pytest.raises(UsageError, match="--max-memory 'banana'"):
        configured_again(request(model="m.pt"), results(), {"max_memory": "banana"}, allow_code=False)


def test_the_command_in_a_trace_makes_the_numbers_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the report says a number is made again by, typed as it stands there."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"p": rng.random(400), "sex": rng.choice(["f", "m"], 400)})
    frame["decided"] = np.where(frame["p"] > 0.5, "yes", "no")
    frame["y"] = np.where(rng.random(400) < frame["p"], "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.chdir(tmp_path)

    def typed(words: list[str]) -> Result:
        monkeypatch.setattr(sys, "argv", words)
        return CliRunner().invoke(app, words[1:])

    asked = "--target y --positive yes --sensitive sex --probes group-fairness --bundle 'my audit.zip' --format json"
    scanned = typed(shlex.split(f"auditor scan --predictions rows.csv --predicted decided {asked}"))
    assert scanned.exit_code in (1, 3), scanned.output
    told = typed(["auditor", "report", "audit-report", "--finding", "demographic_parity_difference/sex"])
    assert told.exit_code == 0, told.output
    lines = dict(line.split(": ", 1) for line in told.output.splitlines()[1:])
    assert lines["Formula"] == "demographic_parity_difference: max - min over groups of the selection rate"
    assert lines["Definition"].endswith("Agarwal et al., ICML 2018.")
    assert lines["Made again by"] == "auditor evidence reproduce 'my audit.zip'"
    again = typed(shlex.split(lines["Made again by"]))
    assert again.exit_code == 0, again.output
    assert "the audit is reproduced" in again.output
    # The place is in the evidence too.
    with zipfile.ZipFile("my audit.zip") as archive:
        record = json.loads(archive.read("record.json"))
    place = int(lines["In the record"].rpartition("/")[2])
    assert record["findings"][place]["id"] == lines["Finding"]
    assert typed(["auditor", "report", "audit-report", "--finding", "nothing"]).exit_code == 2
    assert sorted(path.name for path in Path("audit-report").glob("report.*")) == ["report.json"]


def test_definitions_that_were_changed_afterwards_are_noticed(tmp_path: Path) -> None:
    made = evidence(n=60)
    own = Definition(
        probe="group_fairness", metric="*", formula="f", range="r", ideal="i", reading="high is fine", citation="c"
    )
    forged = dataclasses.replace(made, report=made.report.model_copy(update={"definitions": (own,)}))
    write_bundle(tmp_path / "a.zip", forged)
    checks = verify_bundle(tmp_path / "a.zip", stored_probe).checks
    assert [check.name for check in checks if check.state == "wrong"] == ["definitions"]


def test_a_scan_asks_an_authority_and_loses_nothing_where_it_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = biased_rows(80, 0)
    assert rows.y_true is not None
    rows.X.assign(y=rows.y_true).to_csv(tmp_path / "d.csv", index=False)
    save(trained(rows, epochs=1), tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    words = ["scan", "model.pt", "--data", "d.csv", "--target", "y", "--positive", "1", "--sensitive", "group"]
    words += ["--probes", "group_fairness", "--bundle", "audit.zip", "--timestamp"]
    clock = authority(tmp_path / "tsa")
    for answer, word in ((clock.answer, "ok"), (lambda request: request, "")):
        with serving(answer) as url:
            result = CliRunner().invoke(app, [*words, url])
        required = ["--require", "timestamp", "--tsa-root", str(clock.root)]
        verified = CliRunner().invoke(app, ["evidence", "verify", "audit.zip", *required])
        assert "PASS" in result.output and (tmp_path / "audit-report").is_dir()
        if word:
            assert result.exit_code in (0, 1, 3) and verified.exit_code == 0, result.output + verified.output
            assert "timestamp: it was there at" in " ".join(verified.output.split())
        else:
            said = " ".join(result.output.split())
            assert result.exit_code == 2 and "its dates are the signer's word" in said and "audit.zip" in said
            assert verified.exit_code == 1 and "it has no timestamp, and one was expected" in verified.output
