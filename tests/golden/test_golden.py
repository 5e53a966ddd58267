"""Evidence of an earlier auditor, stored: today's code reads it, finds every digest as it was, and judges it as it was.

A change that fails here turns evidence that users hold into "tampered". ``make.py`` says what to do then.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.core.errors import DataError, ModelError
from auditor.evidence.container import pack, unpack
from auditor.evidence.history.entries import GENESIS, Entry, chained, digest_of
from auditor.evidence.history.ledger import Ledger
from auditor.evidence.manifest import (
    ASKED,
    LOG,
    MANIFEST,
    RECORD,
    RESULTS,
    SIGNATURE,
    FileEntry,
    Manifest,
    broken_links,
    canonical,
    in_order,
)
from auditor.evidence.registration import read_registration
from auditor.evidence.signing import (
    fingerprint,
    load_public_key,
    open_envelope,
    pre_authentication_encoding,
    statement,
)
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.judging.measurement import Outcome
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.report_formats import FILE_NAMES
from auditor.report.report_view import document_id
from cli.commands import app
from cli.verify import stored_probe
from tests.report.record_schema import shipped_schema

HERE = Path(__file__).parent
BUNDLE, KEY, LEDGER, MODEL = (HERE / name for name in ("audit.zip", "auditor.key.pub", "history.db", "model.pt"))
REGISTRATION, REPORT, ENVELOPE = (HERE / name for name in ("registration.json", "report.json", "signature.dsse.json"))

FILES = {
    "audit.zip": "8d304efcf39ae1e758c4d382175de097d58da1ce05d586812ea5260c71f4965b",
    "auditor.key.pub": "6eca918ec3ff1f429442c7455b81db14891f19623966ef14b354352f1e0b8a78",
    "history.db": "3a00704df08d6eca1b10ed740c04bcd98660ab23d3b44fd2fe9c0e4b227d1b0c",
    "model.pt": "8456085c864ea98dd7016e9f68683a0377a2826db8887ad2248a642229c18b8f",
    "registration.json": "c63156985367ae5d61b6b371c7d2745811b77ee42e695892c64b5ffe73ee1b2b",
    "report.json": "d872baa795c3ceef3cef5493612a85f82453f1d6d63b5cc25212b74c79833ef6",
    "signature.dsse.json": "8c1a73f39c57da6e95d688170522efe1de285fd3576787f69d52d4d326d36899",
}
KEY_FINGERPRINT = "498cc0001247228ade7b8a93dede27905f287c0bf7d5f85afe09413099201c20"
RECORD_DIGEST = "657892857fd988b4a80488a846a0da08efa1e71278716a866dd6214f52a6879c"
REGISTRATION_DIGEST = "d8843c90e766d607c742e87bcf1ddc9e7a3dbbb532a9ab58b679bb5dfa0197d4"
MANIFEST_DIGEST = "4e3c9af19c6c5b9fdded9d0ddc8b0165a87969029612ba948ddf4e33018758d6"
LOG_HEAD = "65310afe233a9fa48617b1a65aa3b1674340467a12b7e25af990597acb3e7987"
CHAIN = (
    "b4847147fc5e82ac557214503a31a0c215902cd39424776c42d1e7ee4f407a37",
    "1830e77e9f8b95f9c2c19acc3283b69a904c8a541daff2b2d8deab28f3797eb2",
    "af5fec36a8ecdf07ede5ec6d5f7d9bb770581c752412ac0c53be4595b56e340f",
)
SIGNED_DECISION = "9004e28d70aa222adc8c31f7ca92831c73b9338637387275c2cdeba2c31ed0c7"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return result.exit_code, result.output


def checked(path: Path) -> Verified:
    return verify_bundle(path, stored_probe, trusted=[load_public_key(KEY)])


def report() -> AuditReport:
    return AuditReport.from_json(REPORT.read_bytes())


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A copy: SQLite writes beside what it reads."""
    return Path(shutil.copy(LEDGER, tmp_path))


def entries(ledger: Path) -> list[Entry]:
    opened = Ledger(ledger, create=False)
    try:
        return list(opened.entries())
    finally:
        opened.close()


# ---- what is stored is what was made ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_those_that_were_made(name: str) -> None:
    assert sha256((HERE / name).read_bytes()) == FILES[name]


def test_no_file_is_stored_that_nobody_watches() -> None:
    beside = {"make.py", "test_golden.py", "test_rule_2.py", ".gitattributes"}
    beside |= {"ruler.py", "test_ruler.py", "digests.txt"}
    assert {path.name for path in HERE.iterdir() if path.is_file()} == {*FILES, *beside}


def test_what_is_stored_names_no_place_of_the_machine_that_made_it() -> None:
    for name in FILES:
        content = (HERE / name).read_bytes()
        assert not [word for word in (b"/home", b"/root", b"/tmp", b"/Users", b"/usr", b"/var") if word in content], (
            name
        )
    said = report()
    places = (said.model.path, said.data.path, said.data.train_path)
    assert said.environment.command is not None and places == ("model.pt", "test.csv", "train.csv")


# ---- spellings on which digests and signatures rest ------------------------------------------------------------------

VALUE = {"b": [1, 2.5, 1e-9, 1e22, True, None], "ä": {"y": '\u2028"\\/', "x": -0.0}, "a": []}
NUMBERS = '"b":[1,2.5,1e-09,1e+22,true,null]'


def test_canonical_json_is_spelled_as_it_was() -> None:
    assert canonical(VALUE).decode() == '{"a":[],' + NUMBERS + ',"ä":{"x":-0.0,"y":"\u2028\\"\\\\/"}}'
    assert in_order(VALUE).decode() == "{" + NUMBERS + ',"ä":{"y":"\u2028\\"\\\\/","x":-0.0},"a":[]}'


def test_a_manifest_is_spelled_as_it_was() -> None:
    one = '{"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","size":1}'
    made = Manifest(files={"a": FileEntry.from_content(b"x")}, log_lines=1, log_head="0" * 64).to_bytes().decode()
    assert made == f'{{"files":{{"a":{one}}},"format":"auditor-evidence/1","log_head":"{"0" * 64}","log_lines":1}}'


def test_a_statement_and_what_is_signed_of_it_are_spelled_as_they_were() -> None:
    zeros, ones = (f'{{"digest": {{"sha256": "{digit * 64}"}}, "name": "{name}"}}' for digit, name in ("0b", "1a"))
    assert statement({"b": "0" * 64, "a": "1" * 64}, {"z": "ä", "a": 1}).decode() == (
        '{"_type": "https://in-toto.io/Statement/v1", "predicate": {"a": 1, "z": "ä"}, '
        '"predicateType": "https://in-toto.io/attestation/test-result/v0.1", "subject": ['
        f"{ones}, {zeros}]}}"
    )
    assert pre_authentication_encoding("t/x", "ä".encode()) == b"DSSEv1 3 t/x 2 \xc3\xa4"


def test_an_archive_is_packed_byte_for_byte_as_it_was() -> None:
    made = pack({"b.json": b"{}", "a.txt": b"x\n"})
    assert sha256(made) == "29ff81fc0a26bdf37f8ae825064fd85ad7e73459cbbf1897224f8e5b289b0422"
    assert pack(unpack(BUNDLE.read_bytes(), BUNDLE.name)) == BUNDLE.read_bytes()


def test_an_entry_of_the_ledger_is_hashed_as_it_was() -> None:
    assert GENESIS == "0" * 64
    made = chained(1, GENESIS, "2026-01-31T00:00:00.000+00:00", "audit", '{"a": 1}')
    assert made == "e11b71ab9597efaee34b80d5dbd5f35952036013e18df79f2985cd94e3791a56"


# ---- the bundle and its envelope -------------------------------------------------------------------------------------


def test_the_bundle_verifies_and_its_numbers_are_what_they_were() -> None:
    found = checked(BUNDLE)
    assert [c.name for c in found.checks if c.state == "wrong"] == []
    # It was judged by an earlier rule, which another auditor knows; everything but that is checked.
    (outcomes,) = [c for c in found.checks if c.state == "not checked"]
    assert outcomes.name == "outcomes" and "rule 1 of another version of auditor" in outcomes.detail
    assert {"container", "log chain", "signature", "group table"} <= {c.name for c in found.checks}
    assert found.report == report() and len(found.from_rows | found.from_tables) > 30
    code, said = run("evidence", "verify", BUNDLE, "--key", KEY)
    assert code == 3 and "rule 1 of another version of auditor" in said
    code, said = run("evidence", "verify", BUNDLE, "--key", KEY, "--require", "signature,rows")
    assert code == 3 and "NOT PROVEN, and required: outcomes" in said


def test_the_parts_of_the_bundle_are_read_and_spelled_as_they_were() -> None:
    parts = unpack(BUNDLE.read_bytes(), BUNDLE.name)
    manifest = Manifest.from_bytes(parts[MANIFEST])
    assert sha256(parts[MANIFEST]) == sha256(manifest.to_bytes()) == MANIFEST_DIGEST
    assert manifest.log_head == LOG_HEAD and broken_links(parts[LOG], LOG_HEAD, manifest.log_lines) == []
    record = AuditReport.model_validate_json(parts[RECORD])
    assert in_order(record.model_dump(mode="json")) == parts[RECORD] and record == report()
    asked = ASKED.validate_json(parts[RESULTS])
    assert in_order(ASKED.dump_python(asked, mode="json")) == parts[RESULTS]


def test_the_envelope_is_opened_with_the_key_that_was_stored() -> None:
    key = load_public_key(KEY)
    signed = open_envelope(ENVELOPE.read_bytes(), [key])
    assert signed.trusted and signed.fingerprint == fingerprint(key) == KEY_FINGERPRINT
    assert json.loads(signed.statement)["subject"] == [{"name": MANIFEST, "digest": {"sha256": MANIFEST_DIGEST}}]
    assert unpack(BUNDLE.read_bytes(), BUNDLE.name)[SIGNATURE] == ENVELOPE.read_bytes()


def parts_of_the_bundle() -> list[str]:
    with zipfile.ZipFile(BUNDLE) as archive:
        return archive.namelist()


@pytest.mark.parametrize("part", parts_of_the_bundle())
def test_a_flipped_bit_in_any_part_is_found(part: str, tmp_path: Path) -> None:
    data, content = bytearray(BUNDLE.read_bytes()), unpack(BUNDLE.read_bytes(), BUNDLE.name)[part]
    data[data.index(content) + len(content) // 2] ^= 0x01
    (tmp_path / "audit.zip").write_bytes(data)
    wrong = {check.name for check in checked(tmp_path / "audit.zip").checks if check.state == "wrong"}
    assert ("signature" if part in (MANIFEST, SIGNATURE) else part) in wrong
    assert run("evidence", "verify", tmp_path / "audit.zip", "--key", KEY)[0] == 1


def test_a_flipped_bit_between_the_parts_is_found(tmp_path: Path) -> None:
    data = bytearray(BUNDLE.read_bytes())
    data[12] ^= 0x01  # the time of the first entry
    (tmp_path / "audit.zip").write_bytes(data)
    assert [check.name for check in checked(tmp_path / "audit.zip").checks if check.state == "wrong"] == ["container"]


@pytest.mark.parametrize(
    ("field", "message"), [("payload", "does not fit"), ("sig", "does not fit"), ("keyid", "envelope")]
)
def test_a_changed_envelope_is_found(field: str, message: str) -> None:
    envelope = json.loads(ENVELOPE.read_text())
    holder = envelope if field == "payload" else envelope["signatures"][0]
    first = holder[field][0]
    holder[field] = ("f" if first != "f" else "e") + holder[field][1:]
    with pytest.raises(DataError, match=message):
        open_envelope((json.dumps(envelope, indent=2) + "\n").encode(), [load_public_key(KEY)])


# ---- the record ------------------------------------------------------------------------------------------------------


def test_the_record_is_read_and_its_digests_are_what_they_were() -> None:
    assert digest_of(report()) == RECORD_DIGEST
    assert document_id(report()) == FILES["report.json"]
    assert report().schema_version == "1.0"
    shown = {outcome: report().summary.count(outcome) for outcome in Outcome}
    assert [shown[o] for o in Outcome] == [2, 1, 2, 1, 0, 43]


def test_the_record_follows_todays_schema() -> None:
    jsonschema.validate(json.loads(REPORT.read_text()), json.loads(shipped_schema()))


@pytest.mark.parametrize("name", FILE_NAMES)
def test_the_record_is_rendered_in_every_format(name: str, tmp_path: Path) -> None:
    code, said = run("report", REPORT, "--format", name, "--out", tmp_path)
    assert code == 0, said
    written = (tmp_path / FILE_NAMES[name]).read_bytes()
    assert len(written) > 500
    if not name.startswith("pdf"):
        assert b"selection" in written


def test_the_gate_holds_the_record_to_what_it_found() -> None:
    code, said = run("gate", REPORT)
    assert code == 1 and "selection rate" in said
    assert "follow rule 1. This version of auditor applies another one" in " ".join(said.split())


def test_a_flipped_outcome_is_found(tmp_path: Path) -> None:
    record = json.loads(REPORT.read_text())
    (failed,) = (finding for finding in record["findings"] if finding["outcome"] == "FAIL")
    failed["outcome"] = "PASS"
    record["summary"] |= {"pass": 3, "fail": 0}
    (tmp_path / "report.json").write_text(json.dumps(record | {"exit_code": 3}))
    code, said = run("gate", tmp_path)
    assert code == 4 and "its interval says otherwise" in " ".join(said.split())
    assert digest_of(AuditReport.from_json((tmp_path / "report.json").read_bytes())) != RECORD_DIGEST


# ---- the ledger ------------------------------------------------------------------------------------------------------


def test_the_chain_of_the_ledger_is_what_it_was(ledger: Path) -> None:
    found = entries(ledger)
    assert tuple(entry.hash for entry in found) == CHAIN and [e.kind for e in found] == ["audit", "decision", "audit"]
    assert found[2].audit().record_sha256 == RECORD_DIGEST
    assert found[2].audit().record == report().model_copy(update={"figures": ()})
    decision = found[1].decision()
    assert sha256(decision.signed_bytes()) == SIGNED_DECISION and decision.key == KEY_FINGERPRINT
    code, said = run("history", "--db", ledger, "--verify", "--head", CHAIN[-1], "--key", KEY)
    assert code == 0 and "WRONG" not in said and CHAIN[-1] in said


def test_the_decision_still_stands_in_the_record_of_the_later_audit() -> None:
    (decision,) = report().decisions
    assert (decision.entry, decision.audit, decision.signed_with) == (2, 1, KEY_FINGERPRINT)


def test_the_stored_record_is_still_found_in_the_ledger(ledger: Path) -> None:
    signed = ("--by", "Bo Example", "--role", "Auditor", "--decision", "reject")
    code, said = run("history", "sign-off", REPORT, *signed, "--db", ledger)
    assert code == 0 and "reject of audit 3" in said


def rehash(connection: sqlite3.Connection) -> None:
    """What a forger does who knows how the chain is made."""
    previous = GENESIS
    for number, created, kind, payload in connection.execute(
        "SELECT number, created, kind, payload FROM auditor_entries ORDER BY number"
    ).fetchall():
        entry = Entry.from_previous(number, previous, created, kind, payload)
        connection.execute(
            "UPDATE auditor_entries SET previous = ?, hash = ? WHERE number = ?", (previous, entry.hash, number)
        )
        previous = entry.hash


NOTE = "UPDATE auditor_entries SET payload = replace(payload, 'next release', 'last release') WHERE number = 2"


@pytest.mark.parametrize(
    ("change", "forged", "message"),
    [
        (NOTE, False, "entry 2 was changed"),
        (NOTE, True, "does not fit"),
        ("DELETE FROM auditor_entries WHERE number = 2", False, "entry 2 is missing"),
        ("DELETE FROM auditor_entries WHERE number = 3", False, "entries at the end were taken away"),
        ("UPDATE auditor_entries SET created = '2026-01-01' WHERE number = 1", True, "taken away, or changed"),
    ],
)
def test_a_changed_ledger_is_found(ledger: Path, change: str, forged: bool, message: str) -> None:
    with sqlite3.connect(ledger) as connection:
        connection.execute(change)
        if forged:
            rehash(connection)
    connection.close()
    code, said = run("history", "--db", ledger, "--verify", "--head", CHAIN[-1], "--key", KEY)
    assert code == 1 and message in " ".join(said.split())


# ---- the registration and the model ----------------------------------------------------------------------------------


def test_the_registration_is_whole_and_its_digest_is_what_it_was() -> None:
    opened = read_registration(REGISTRATION)
    assert opened.problems == () and opened.signed_with == KEY_FINGERPRINT
    assert opened.registration.digest == REGISTRATION_DIGEST
    kept = report().registration
    assert kept is not None and kept.sha256 == REGISTRATION_DIGEST and kept.deviations == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said["plan"].update(seed=1), "changed after it was made"),
        (lambda said: said.update(by="Bo Example"), "changed after it was made"),
        (lambda said: said["signature"].update(payload="e30="), "does not fit"),
    ],
)
def test_a_changed_registration_is_found(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    said = json.loads(REGISTRATION.read_text())
    change(said)
    (tmp_path / "registration.json").write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    opened = read_registration(tmp_path / "registration.json")
    assert any(message in problem for problem in opened.problems) and opened.signed_with is None


def test_the_model_is_loaded_and_answers_as_it_did() -> None:
    model = load_model(ModelSpec(path=str(MODEL)))
    assert model.classes == ("no", "yes") and model.features == ("income", "debt")
    answers = model.predict_proba(pd.DataFrame({"income": [-1.0, 0.0, 1.5], "debt": [1.0, 0.0, -0.5]}))
    assert answers[:, 1].tolist() == pytest.approx([0.101439, 0.540675, 0.85514], abs=1e-5)
    assert report().model.sha256 == FILES["model.pt"]


def test_a_flipped_bit_in_the_models_weights_is_found(tmp_path: Path) -> None:
    data = bytearray(MODEL.read_bytes())
    with zipfile.ZipFile(MODEL) as archive:
        weights = next(info for info in archive.infolist() if info.filename.endswith("/data/0"))
        content = archive.read(weights)
    data[data.index(content)] ^= 0x01
    (tmp_path / "model.pt").write_bytes(data)
    with pytest.raises(ModelError, match="does not match its checksum"):
        load_model(ModelSpec(path=str(tmp_path / "model.pt")))
