"""Commands that take a report.json take the bundle that holds it, once its parts agree with its manifest."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditor.evidence.container import pack
from auditor.evidence.evidence_bundle import Evidence, write_bundle
from auditor.evidence.history.entries import AuditEntry
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.signing import load_private_key, make_key
from cli.commands import app
from tests.evidence.test_evidence import evidence

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def made() -> Evidence:
    return evidence(n=60)


@pytest.fixture
def here(made: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDITOR_DB", raising=False)
    make_key(tmp_path / "k")
    write_bundle(tmp_path / "audit.zip", made, key=load_private_key(tmp_path / "k"))
    (tmp_path / "report.json").write_text(made.report.to_json(), encoding="utf-8")
    return tmp_path


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_rendering_of_the_bundle_is_that_of_its_record(here: Path) -> None:
    for source, out in (("report.json", "a"), ("audit.zip", "b")):
        result = RUNNER.invoke(app, ["report", source, "--format", "html,markdown,csv,json", "--out", out])
        assert result.exit_code == 0, result.output
    names = sorted(p.name for p in (here / "a").iterdir() if not p.name.startswith("."))
    assert names == ["report.csv", "report.html", "report.json", "report.md"]
    for name in names:
        assert (here / "a" / name).read_bytes() == (here / "b" / name).read_bytes()
    # Said aside, where no pipe takes it for a path.
    assert "Reading it is not verifying it" in result.stderr and "not verifying" not in result.stdout


@pytest.mark.grid
@pytest.mark.parametrize(
    "words",
    [
        ("report", "{}", "--finding", "no-such-id"),
        ("gate", "{}"),
        ("compare", "{}", "{}"),
        ("compare", "{}", "report.json"),
        ("policy", "dossier", "{}", "--policy", "gdpr", "--as-of", "2026-11-01"),
        ("policy", "--crosswalk", "{}"),
        ("report", "publish", "{}", "--to", "dir:published"),
    ],
)
def test_a_command_says_of_the_bundle_what_it_says_of_the_record(here: Path, words: tuple[str, ...]) -> None:
    said = []
    for source in ("report.json", "audit.zip"):
        result = RUNNER.invoke(app, [*(word.format(source) for word in words), *FORCED.get(words[:2], ())])
        said.append((result.exit_code, result.stdout.replace(source, "it")))
        assert ("is not verifying it" in result.stderr) is (source == "audit.zip")
    assert said[0] == said[1]


FORCED = {("policy", "dossier"): ("--force",)}


def test_a_bundle_is_published_as_its_record_alone(here: Path) -> None:
    assert RUNNER.invoke(app, ["report", "publish", "audit.zip", "--to", "dir:there"]).exit_code == 0
    left = sorted(p.name for p in (here / "there").rglob("*") if p.is_file())
    assert "report.json" in left and not [name for name in left if name.endswith((".zip", ".csv"))]


def test_an_audit_is_found_in_the_history_by_its_bundle(here: Path, made: Evidence) -> None:
    ledger = Ledger("h.db")
    ledger.append("audit", AuditEntry.from_report(made.report))
    ledger.close()
    result = RUNNER.invoke(
        app, ["history", "sign-off", "audit.zip", "--db", "h.db", "--by", "Ann", "--role", "x", "--decision", "reject"]
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("part", ["record.json", "results.json", "log.jsonl", "manifest.json", "signature.dsse.json"])
@pytest.mark.parametrize("command", ["report", "gate"])
def test_a_bundle_that_does_not_agree_with_its_manifest_is_not_drawn(here: Path, part: str, command: str) -> None:
    parts = parts_of(here / "audit.zip")
    parts[part] = parts[part].replace(b"0", b"1", 1)
    (here / "audit.zip").write_bytes(pack(parts))
    result = RUNNER.invoke(app, [command, "audit.zip"])
    assert result.exit_code == 4, result.output
    assert result.output.count("\n") == 1 and not (here / "report.html").exists()


def test_a_byte_between_the_parts_is_a_reason_too(here: Path) -> None:
    content = bytearray((here / "audit.zip").read_bytes())
    content[10] ^= 1  # the time of the first entry
    (here / "audit.zip").write_bytes(bytes(content))
    result = RUNNER.invoke(app, ["report", "audit.zip"])
    assert result.exit_code == 4 and "container" in result.output


def test_any_other_archive_is_refused_in_a_sentence(here: Path) -> None:
    with zipfile.ZipFile(here / "other.zip", "w") as archive:
        archive.writestr("report.json", "{}")
    result = RUNNER.invoke(app, ["report", "other.zip"])
    assert result.exit_code == 4 and "no evidence bundle" in result.output and result.output.count("\n") == 1
