"""Evidence that was judged by error budgets, stored: its numbers verify whole, and its outcomes are of an earlier rule.

What the spellings and forgeries of evidence are about is tested on the older files, in ``test_golden.py``.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditor.evidence.container import unpack
from auditor.evidence.history.entries import digest_of
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.manifest import ASKED, MANIFEST, RECORD, RESULTS, Manifest, in_order
from auditor.evidence.registration import read_registration
from auditor.evidence.signing import load_public_key
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport
from cli.commands import app
from cli.verify import stored_probe

HERE = Path(__file__).parent / "rule2"
BUNDLE, KEY, REPORT = (HERE / name for name in ("audit.zip", "auditor.key.pub", "report.json"))
FILES = {
    "audit.zip": "b4c37912cb5cf12e3667b4657c30e121abc4f00dcf613fd428d39f0f9b34f098",
    "auditor.key.pub": "2c7bbe8a8656319cef6445f7be63095a8685aecb03c43c6c89df3b27085b656e",
    "history.db": "5aaef11887edfd748e2bdebd5142044b00aace495cfe3fcc54801cfb88f31a11",
    "model.pt": "4c15ba79e54e73b69c1fdd0f608c066958efd25e9a2048c7ccdfb933e6a96aeb",
    "registration.json": "2d7e9f9bfa5a9a1030a5b929b2dd3315e713d24382c864e066e67886c82c64a4",
    "report.json": "936dff4812a93a66dcf43c979de600f2835d7cc3ba2d8ce6ed2bb48e5c4e08be",
    "signature.dsse.json": "9279f772cf9187834e011385632d3b30cc2a8ad7b78abb9ceddb17e085e3b6e7",
}
RECORD_DIGEST = "5fd84280605c71b316f20a6cade887b05ab272df8cc54abfa19f19d84629d63f"
REGISTRATION_DIGEST = "5015692491704c9a3ca15e6592f9fadbff44387e9210488a946b9249c9d10561"
MANIFEST_DIGEST = "b0ff12eafe8061c8186e64a0ad3119092fea428859e46852ed69b4593a93cb45"
CHAIN = (
    "26b2d5fa35b7b07ef7427daac0353879f63ab8398325d4d8046efeeddfb45585",
    "4d8eb8f98f88ec1fd60966ef3a0a3b5d2e55aab52839451645fd4ca2a70366f9",
    "9106b954667fa7337cf088281b1ae2a18b1310ce0f475b1ab128cecb06450706",
)
OUTCOMES = [2, 1, 2, 1, 0, 61]


def report() -> AuditReport:
    return AuditReport.from_json(REPORT.read_bytes())


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_those_that_were_made(name: str) -> None:
    assert hashlib.sha256((HERE / name).read_bytes()).hexdigest() == FILES[name]


def test_no_file_is_stored_that_nobody_watches() -> None:
    assert {path.name for path in HERE.iterdir()} == set(FILES)


def test_every_number_is_recomputed_as_it_was() -> None:
    found = verify_bundle(BUNDLE, stored_probe, trusted=[load_public_key(KEY)])
    states = {check.name: check.state for check in found.checks}
    assert {name for name, state in states.items() if state == "wrong"} == set()
    # Another auditor's code measured and judged; all that its rule does not decide is checked.
    assert {name for name, state in states.items() if state == "not checked"} <= {"code", "outcomes", "figures"}
    assert states["group table"] == states["signature"] == "ok"
    assert found.report == report() and len(found.from_rows | found.from_tables) > 30
    assert report().family.rule == 2 and report().family.budgets


def test_the_command_says_that_nothing_disagrees_and_what_it_lacks() -> None:
    """What later bundles enclose is not in it, so that what would prove more is named."""
    result = CliRunner().invoke(app, ["evidence", "verify", str(BUNDLE), "--key", str(KEY)])
    assert result.exit_code == 3 and "Nothing disagrees" in result.output
    assert "NOT PROVEN (registration)" in result.output and "the registration is not enclosed" in result.output
    assert "NOT PROVEN (configuration)" in result.output and "NOT PROVEN (timestamp)" in result.output
    result = CliRunner().invoke(
        app, ["evidence", "verify", str(BUNDLE), "--key", str(KEY), "--require", "signature,rows"]
    )
    # By which rule its outcomes follow only the version that made it can tell.
    assert result.exit_code == 3 and result.output.startswith("NOT PROVEN, and required: outcomes.")


def test_record_manifest_and_results_are_read_and_spelled_as_they_were() -> None:
    parts = unpack(BUNDLE.read_bytes(), BUNDLE.name)
    assert hashlib.sha256(Manifest.from_bytes(parts[MANIFEST]).to_bytes()).hexdigest() == MANIFEST_DIGEST
    record = AuditReport.model_validate_json(parts[RECORD])
    assert in_order(record.model_dump(mode="json")) == parts[RECORD] and record == report()
    assert in_order(ASKED.dump_python(ASKED.validate_json(parts[RESULTS]), mode="json")) == parts[RESULTS]
    assert digest_of(report()) == RECORD_DIGEST
    assert [report().summary.count(outcome) for outcome in Outcome] == OUTCOMES


def test_registration_and_ledger_are_what_they_were(tmp_path: Path) -> None:
    opened = read_registration(HERE / "registration.json")
    assert opened.problems == () and opened.registration.digest == REGISTRATION_DIGEST
    ledger = Ledger(Path(shutil.copy(HERE / "history.db", tmp_path)), create=False)
    try:
        found = list(ledger.entries())
    finally:
        ledger.close()
    assert tuple(entry.hash for entry in found) == CHAIN
    assert found[2].audit().record == report().model_copy(update={"figures": ()})
