"""Evidence bundles: whatever is changed in one is found, by name, and every number in it is computed anew."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import resource
import stat
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import DataError, UsageError
from auditor.core.files import Spool, write_beside
from auditor.data.audit_data import AuditData
from auditor.data.group_counts import GroupCounts
from auditor.evidence.container import pack, pack_into, unpack
from auditor.evidence.evidence_bundle import Evidence, statement_of, write_bundle
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    REQUEST,
    RESULTS,
    ROWS,
    SIGNATURE,
    TABLES,
    ChainedLog,
    FileEntry,
    Manifest,
    broken_links,
    code_digests,
)
from auditor.evidence.signing import fingerprint, load_private_key, load_public_key, make_key, open_envelope, sign
from auditor.evidence.verify import bundle_parts
from auditor.evidence.verify.checks import Verified, difference
from auditor.evidence.verify.remeasure import Kept, Remade
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.judging.budgets import Family
from auditor.judging.criterion import load_criteria
from auditor.judging.input_files import Roles
from auditor.judging.measurement import ProbeResult
from auditor.judging.policy import load_policies
from auditor.models.audited_model import AuditedModel
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.controls import with_policies
from auditor.run.predictions import AnswersHead, AnswersPart, KeptRows, counts_of, head_of
from auditor.run.run_audit import ask, assemble, data_record, environment, generator_for, model_record
from auditor.statistics.rates import Proportion
from cli.verify import stored_probe
from probes import PROBES
from probes.fairness.group_fairness import GroupFairness
from tests.evidence.kept_rows import content, kept, read_back

NAMES = ("group_fairness", "adverse_impact", "score_fairness")


def evidence(
    *, include_rows: bool = True, n: int = 240, names: Sequence[str] = NAMES, clusters: bool = False
) -> Evidence:
    """An audit of a model that prefers group a, with everything it leaves behind."""
    rng = np.random.default_rng(3)
    group = rng.choice(["a", "b", "c"], n, p=[0.5, 0.4, 0.1])
    y = rng.integers(0, 2, n)
    score = np.clip(0.25 + 0.4 * y + 0.15 * (group == "a") + rng.normal(0, 0.12, n), 0.01, 0.99)
    data = AuditData.from_arrays(
        np.column_stack([score]),
        np.where(y == 1, "yes", "no"),
        classes=["no", "yes"],
        positive="yes",
        sensitive_features={"g": group},
        clusters=pd.Series(np.arange(n) // 2, name="person") if clusters else None,
    )
    model = AuditedModel.from_callable(lambda X: X[:, 0], classes=["no", "yes"])
    results = [ask(PROBES[name](), model, data, generator_for(0, name)) for name in names]
    head = head_of(model, data, include_rows=include_rows)
    assert head is not None
    counts = counts_of(model, data)
    criteria, family = load_criteria(), Family()
    log = ChainedLog()
    log.add("started", command=["scan"])
    for result in results:
        log.add("not applicable" if result.not_applicable else "answered", probe=result.probe)
    report = assemble(
        results,
        criteria,
        model=model_record(model),
        data=data_record(data),
        environment=environment(device="cpu", seed=0),
        family=family,
    )
    return Evidence(
        report=report,
        results=results,
        criteria=criteria,
        family=family,
        request={"options": {"probes": list(names)} | ({"cluster": "person"} if clusters else {}), "probe_options": {}},
        log=log,
        answers=kept(model, data, head),
        counts=counts,
        code=code_digests(),
    )


def test_numbers_over_clusters_are_recomputed_and_not_counted_anew(tmp_path: Path) -> None:
    made = evidence(clusters=True)
    write_bundle(tmp_path / "audit.zip", made)
    found = checked(tmp_path / "audit.zip")
    assert wrong(found) == {} and states(found)["numbers"] == "ok"
    (rows,) = [check for check in found.checks if check.name == "rows"]
    assert rows.state == "not checked" and "'person'" in rows.detail
    assert not found.from_rows and not found.from_tables
    unasked = replace(made, request={"options": {"probes": list(NAMES)}, "probe_options": {}})
    write_bundle(tmp_path / "other.zip", unasked)
    assert wrong(checked(tmp_path / "other.zip"))[REQUEST] == "data.cluster says person, recomputed None"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evidence") / "audit.zip"
    write_bundle(path, evidence())
    return path


def checked(path: Path, **how: Any) -> Verified:
    return verify_bundle(path, stored_probe, **how)


def states(found: Verified) -> dict[str, str]:
    return {check.name: check.state for check in found.checks}


def wrong(found: Verified) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.state == "wrong"}


def test_a_whole_bundle_agrees_and_its_numbers_are_counted_anew(bundle: Path) -> None:
    found = checked(bundle)
    assert not wrong(found)
    assert states(found)["signature"] == "not checked"
    assert states(found)["group table"] == "ok"
    assert found.report is not None
    ids = {f.id for f in found.report.findings if f.value is not None}
    assert found.from_rows | found.from_tables == {f.id for f in found.report.findings}
    assert ids and {name.split("/")[0] for name in ids} == set(NAMES)


def test_without_the_rows_groups_the_table_is_held_to_its_sums(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.zip", evidence(include_rows=False))
    found = checked(tmp_path / "a.zip")
    assert not wrong(found) and found.report is not None
    assert b"group:" not in unpack((tmp_path / "a.zip").read_bytes(), "a.zip")[ROWS]
    assert {name.split("/")[0] for name in found.from_tables} == {"group_fairness", "adverse_impact"}
    assert {f.method for f in found.report.findings if f.probe == "adverse_impact" and f.id in found.from_tables} == {
        "selection_rate"
    }
    assert not found.from_rows


def test_redaction_keeps_the_digest_and_tables_and_says_what_is_gone(tmp_path: Path) -> None:
    whole = evidence()
    assert whole.answers is not None
    manifest = write_bundle(tmp_path / "r.zip", whole, redact=True)
    entries = unpack((tmp_path / "r.zip").read_bytes(), "r.zip")
    assert ROWS not in entries and TABLES in entries
    assert manifest.files[ROWS].sha256 == hashlib.sha256(content(whole.answers)).hexdigest()
    found = checked(tmp_path / "r.zip")
    assert not wrong(found)
    assert states(found)[ROWS] == "not checked"


def test_rows_read_back_as_they_were() -> None:
    answers = evidence().answers
    assert answers is not None
    again = read_back(answers)
    assert again.rows_to_csv() == content(answers)
    y, group = again.truth, np.asarray(again.groups["g"])
    assert set(y.tolist()) == {0.0, 1.0} and set(group.tolist()) == {"a", "b", "c"}
    # The scores are what the model makes of label, group and noise, to the last digit.
    noise = again.scores[:, 1] - 0.25 - 0.4 * y - 0.15 * (group == "a")
    assert abs(noise.std() - 0.12) < 0.02 and len(set(again.scores[:, 1].tolist())) > 200
    np.testing.assert_allclose(again.scores.sum(axis=1), 1.0, rtol=1e-15)


def test_rows_that_come_in_parts_are_the_file_of_all() -> None:
    """What was laid out at once and what came part by part are the same bytes."""
    classes, levels = ("no", 'y"es'), (("a,b",),)
    head = AnswersHead(kind="classifier", n=3_000, classes=classes, scores=2, features=("g",), levels=levels)
    rows = KeptRows(head)
    scores = np.random.default_rng(0).random(head.n)

    def part(some: slice) -> AnswersPart:
        own = [(1.0 - s, s) for s in scores[some].tolist()]
        truth = tuple(None if s < 0.1 else float(s > 0.5) for _, s in own)
        return AnswersPart(truth=truth, predicted=(1.0,) * len(own), scores=tuple(own), groups=(("a,b",),) * len(own))

    for start in range(0, head.n, 500):
        assert not rows.whole
        rows.add(part(slice(start, start + 500)))
    assert rows.whole
    again = read_back(rows)
    np.testing.assert_array_equal(again.scores[:, 1], scores)
    written = content(rows)
    assert again.rows_to_csv() == written
    assert content(rows) == written
    entries = {ROWS: rows.content, "a.json": b"{}"}
    assert pack(entries) == pack({ROWS: content(rows), "a.json": b"{}"})
    assert FileEntry.from_content(rows.content) == FileEntry.from_content(content(rows))
    with pytest.raises(DataError, match="do not fit"):
        rows.add(part(slice(0, 1)))
    assert not rows.whole


@pytest.mark.parametrize(
    "strange",
    [{"predicted": (2.0,)}, {"scores": ((0.5, 0.9),)}, {"groups": (("c",),)}, {"truth": (0.5,)}],
)
def test_rows_that_no_model_answers_are_none(strange: dict[str, Any]) -> None:
    head = AnswersHead(kind="classifier", n=1, classes=("0", "1"), scores=2, features=("g",), levels=(("a",),))
    usual: dict[str, Any] = {"truth": (0.0,), "predicted": (1.0,), "scores": ((0.5, 0.5),), "groups": (("a",),)}
    for said, whole in ((usual, True), (usual | strange, False)):
        rows = KeptRows(head)
        rows.add(AnswersPart(**said))
        assert rows.whole == whole


def test_what_is_spooled_takes_no_memory_and_is_packed_as_it_was(tmp_path: Path) -> None:
    spool, block = Spool(), bytes(range(256)) * 512
    tracemalloc.start()
    for _ in range(128):
        spool.add(block)
    write_beside(tmp_path / "a.zip", partial(pack_into, entries={"b": spool, "a": b"first"}))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert spool.size == 16 << 20 and most < 5 << 20
    assert unpack((tmp_path / "a.zip").read_bytes(), "a.zip") == {"a": b"first", "b": block * 128}


def test_rows_for_which_there_is_no_room_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    spool = Spool()
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UsageError, match="No space left on device. Make room there, or set TMPDIR"):
        spool.add(b"x" * (2 << 20))


def test_where_the_room_ends_the_audit_goes_on_and_its_evidence_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk that is full lets some bytes wait, and refuses them when they are written, read or closed."""
    head = AnswersHead(kind="classifier", n=3, classes=("0", "1"), scores=0, features=("g",), levels=(("a" * 800,),))
    part = AnswersPart(truth=(0.0,), predicted=(1.0,), scores=((),), groups=(("a" * 800,),))
    unheard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unheard.append)
    monkeypatch.setattr(sys, "excepthook", lambda *error: unheard.append(error))
    rows = KeptRows(head)
    rows.content.add(b" " * (2 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))
    try:
        for _ in range(3):
            rows.add(part)
        assert rows.whole
        with pytest.raises(UsageError, match="File too large. Make room there, or set TMPDIR"):
            rows.content.blocks()
        del rows
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not unheard


# ---- whatever is changed is found ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_flipped_byte_is_found_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """520 flips: every part by turns, the rest anywhere in the archive, headers and directory included.

    Of a small bundle with every part that there is; the code installed here is digested once for all of them.
    """
    write_bundle(tmp_path / "whole.zip", evidence(n=60, names=("adverse_impact",)))
    here = code_digests()
    monkeypatch.setattr(bundle_parts, "code_digests", lambda: here)
    data = (tmp_path / "whole.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        infos = archive.infolist()
    assert {info.filename for info in infos} == {LOG, MANIFEST, RECORD, REQUEST, RESULTS, ROWS, TABLES}
    rng = np.random.default_rng(0)
    places = [
        (info.filename, info.header_offset + 30 + len(info.filename) + int(rng.integers(info.file_size)))
        for info in infos
        for _ in range(40)
    ]
    places += [("", int(p)) for p in rng.integers(0, len(data), 520 - len(places))]
    unseen = []
    for name, place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / "flipped.zip"
        path.write_bytes(bytes(flipped))
        try:
            found = checked(path)
        except DataError as error:
            # The archive, or its manifest's name, is no longer there: refused by name.
            if "flipped.zip" not in str(error):
                unseen.append((name, place, str(error)))
            continue
        said = wrong(found)
        part = "manifest" if name == MANIFEST else name
        named = not name or part in said or any(name in detail for detail in said.values()) or name == MANIFEST
        if not said or not named:
            unseen.append((name, place, str(said)))
    assert not unseen, unseen[:5]


def repacked(bundle: Path, path: Path, **changed: bytes) -> Path:
    """A bundle whose parts were changed and whose digests were made to fit, as somebody who knows the format would."""
    entries = unpack(bundle.read_bytes(), bundle.name) | {name.replace("__", "."): c for name, c in changed.items()}
    old = Manifest.from_bytes(entries[MANIFEST])
    lines = entries[LOG].splitlines()
    new = Manifest(
        files={name: FileEntry.from_content(entries[name]) for name in old.files},
        log_lines=len(lines),
        log_head=hashlib.sha256(lines[-1]).hexdigest(),
    )
    path.write_bytes(pack(entries | {MANIFEST: new.to_bytes()}))
    return path


def test_an_edited_table_cell_does_not_come_from_the_rows(bundle: Path, tmp_path: Path) -> None:
    tables = json.loads(unpack(bundle.read_bytes(), "b")[TABLES])
    tables["groups"]["table"][0][0][0] += 1
    path = repacked(bundle, tmp_path / "t.zip", tables__json=json.dumps(tables).encode())
    said = wrong(checked(path))
    assert "a do not come to what the table says" in said["group table"]
    assert any("group_fairness from tables" in name for name in said)


def test_edited_rows_do_not_come_to_the_statistics(bundle: Path, tmp_path: Path) -> None:
    lines = unpack(bundle.read_bytes(), "b")[ROWS].decode().splitlines()
    cells = lines[1].split(",")
    cells[1] = "0" if cells[1] == "1" else "1"
    changed = "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n"
    said = wrong(checked(repacked(bundle, tmp_path / "t.zip", rows__csv=changed.encode())))
    assert {"group table", "adverse_impact from rows"} <= said.keys()


@pytest.mark.grid
@pytest.mark.parametrize("field", ["value", "interval", "p_fail", "outcome", "n_samples"])
def test_an_edited_number_of_the_record_is_not_what_its_statistics_come_to(
    bundle: Path, tmp_path: Path, field: str
) -> None:
    record = json.loads(unpack(bundle.read_bytes(), "b")[RECORD])
    finding = next(f for f in record["findings"] if f["metric"] == "demographic_parity_difference")
    finding[field] = {"value": 0.01, "interval": [0.0, 0.05], "p_fail": 0.25, "outcome": "PASS", "n_samples": 9}[field]
    said = wrong(checked(repacked(bundle, tmp_path / "t.zip", record__json=json.dumps(record).encode())))
    assert field in said[finding["id"]]


def test_edited_statistics_are_found_by_the_rows(bundle: Path, tmp_path: Path) -> None:
    """Record, results and digests changed together: only the answers of the model contradict."""
    entries = unpack(bundle.read_bytes(), "b")
    results = json.loads(entries[RESULTS])
    changed = {}
    for probe in results["results"]:
        for m in probe["measurements"]:
            if m["metric"] == "selection_rate" and m["group"] == {"g": "a"} and probe["probe"] == "group_fairness":
                m["estimate"]["successes"] -= 5
                changed = m["estimate"]
    assert "successes" in changed
    path = repacked(bundle, tmp_path / "t.zip", results__json=json.dumps(results).encode())
    said = wrong(checked(path))
    assert any("selection_rate, g = a" in detail for detail in said.values())


def test_a_criterion_that_was_loosened_afterwards_is_found(bundle: Path, tmp_path: Path) -> None:
    results = json.loads(unpack(bundle.read_bytes(), "b")[RESULTS])
    for criterion in results["criteria"]:
        if criterion["metric"] == "demographic_parity_difference":
            criterion["bound"] = 0.9
    said = wrong(checked(repacked(bundle, tmp_path / "t.zip", results__json=json.dumps(results).encode())))
    assert "criteria" in said


def test_a_removed_log_line_is_found(bundle: Path, tmp_path: Path) -> None:
    lines = unpack(bundle.read_bytes(), "b")[LOG].splitlines(keepends=True)
    for i in range(1, len(lines) - 1):
        without = b"".join(lines[:i] + lines[i + 1 :])
        said = wrong(checked(repacked(bundle, tmp_path / "t.zip", log__jsonl=without)))
        assert f"line {i}" in said["log chain"]
    log = ChainedLog()
    log.add("a")
    log.add("b")
    cut = log.to_bytes().splitlines(keepends=True)[0]
    assert "should have 2" in "; ".join(broken_links(cut, log.head, 2))


def test_a_part_that_is_missing_or_strange_is_named(bundle: Path, tmp_path: Path) -> None:
    entries = unpack(bundle.read_bytes(), "b")
    less = {name: content for name, content in entries.items() if name != RESULTS}
    (tmp_path / "less.zip").write_bytes(pack(less))
    assert wrong(checked(tmp_path / "less.zip"))[RESULTS] == "is not in the bundle"
    (tmp_path / "more.zip").write_bytes(pack(entries | {"extra.txt": b"hello"}))
    assert "extra.txt" in wrong(checked(tmp_path / "more.zip"))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_bundle_cut_short_is_refused(bundle: Path, tmp_path: Path, share: float) -> None:
    data = bundle.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="no whole evidence bundle"):
        checked(tmp_path / "cut.zip")


def test_what_is_no_bundle_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evidence bundle at"):
        checked(tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(DataError, match="has no manifest.json"):
        checked(tmp_path / "other.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, "0" * 10_000_000)
    with pytest.raises(DataError, match="compressed"):
        checked(tmp_path / "bomb.zip")


def test_a_manifest_of_a_newer_format_says_so(bundle: Path, tmp_path: Path) -> None:
    entries = unpack(bundle.read_bytes(), "b")
    newer = json.loads(entries[MANIFEST]) | {"format": "auditor-evidence/9"}
    (tmp_path / "n.zip").write_bytes(pack(entries | {MANIFEST: json.dumps(newer).encode()}))
    assert "upgrade responsible-auditor" in wrong(checked(tmp_path / "n.zip"))["manifest"]


# ---- signatures ----------------------------------------------------------------------------------------------------


def test_a_signature_is_trusted_by_its_key_alone(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    for name in ("mine", "theirs"):
        make_key(tmp_path / name)
    write_bundle(tmp_path / "s.zip", evidence(n=60), key=load_private_key(tmp_path / "mine"))
    mine, theirs = (load_public_key(tmp_path / f"{name}.pub") for name in ("mine", "theirs"))
    assert states(checked(tmp_path / "s.zip", trusted=[mine]))["signature"] == "ok"
    assert states(checked(tmp_path / "s.zip"))["signature"] == "not checked"
    assert "none that you trust" in wrong(checked(tmp_path / "s.zip", trusted=[theirs]))["signature"]
    entries = unpack((tmp_path / "s.zip").read_bytes(), "s.zip")
    del entries[SIGNATURE]
    (tmp_path / "u.zip").write_bytes(pack(entries))
    assert "not signed" in wrong(checked(tmp_path / "u.zip", trusted=[mine]))["signature"]


def test_whoever_changes_a_signed_bundle_cannot_make_it_fit(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    make_key(tmp_path / "k")
    write_bundle(tmp_path / "s.zip", evidence(n=60), key=load_private_key(tmp_path / "k"))
    record = json.loads(unpack((tmp_path / "s.zip").read_bytes(), "s")[RECORD])
    record["model"]["path"] = "another.pt"
    path = repacked(tmp_path / "s.zip", tmp_path / "t.zip", record__json=json.dumps(record).encode())
    assert "what was signed is not this bundle" in wrong(checked(path))["signature"]


def test_envelopes_are_those_of_the_reference_implementation(tmp_path: Path) -> None:
    dsse = pytest.importorskip("securesystemslib.dsse", reason="securesystemslib, the reference, is not installed")
    from securesystemslib.signer import SSlibKey

    make_key(tmp_path / "k")
    write_bundle(tmp_path / "s.zip", evidence(n=60), key=load_private_key(tmp_path / "k"))
    envelope = json.loads(unpack((tmp_path / "s.zip").read_bytes(), "s")[SIGNATURE])
    keyid = envelope["signatures"][0]["keyid"]
    public = SSlibKey.from_crypto(load_public_key(tmp_path / "k.pub"))
    assert keyid == public.keyid
    parsed = dsse.Envelope.from_dict(
        envelope | {"signatures": [{k: envelope["signatures"][0][k] for k in ("keyid", "sig")}]}
    )
    assert keyid in parsed.verify([public], 1)


def test_what_is_signed_is_about_the_model_and_the_data(tmp_path: Path) -> None:
    """Whoever looks a model up by its digest finds the audit."""
    make_key(tmp_path / "k")
    key = load_private_key(tmp_path / "k")
    made = evidence(n=60)
    for of_folder in (None, "f" * 64):
        model = made.report.model.model_copy(update={"sha256": "a" * 64, "root_sha256": of_folder})
        data = made.report.data.model_copy(update={"sha256": "d" * 64})
        report = made.report.model_copy(update={"model": model, "data": data})
        write_bundle(tmp_path / "s.zip", replace(made, report=report), key=key)
        parts = unpack((tmp_path / "s.zip").read_bytes(), "s")
        payload = json.loads(base64.b64decode(json.loads(parts[SIGNATURE])["payload"]))
        subjects = {each["name"]: each["digest"]["sha256"] for each in payload["subject"]}
        assert subjects["model"] == (of_folder or "a" * 64) and subjects["data"] == "d" * 64
        assert subjects[MANIFEST] == hashlib.sha256(parts[MANIFEST]).hexdigest() and set(subjects) == {
            "model", "data", MANIFEST,
        }  # fmt: skip
        assert "signature" not in wrong(checked(tmp_path / "s.zip"))


def test_a_bundle_of_an_earlier_version_names_the_manifest_alone_and_is_still_read(tmp_path: Path) -> None:
    make_key(tmp_path / "k")
    write_bundle(tmp_path / "s.zip", evidence(n=60), key=load_private_key(tmp_path / "k"))
    parts = unpack((tmp_path / "s.zip").read_bytes(), "s")
    manifest, report = Manifest.from_bytes(parts[MANIFEST]), AuditReport.from_json(parts[RECORD])
    payload = statement_of(manifest, report, with_subjects=False)
    envelope = json.loads(sign(payload, load_private_key(tmp_path / "k")))
    envelope["signatures"][0]["keyid"] = fingerprint(load_public_key(tmp_path / "k.pub"))
    path = repacked(
        tmp_path / "s.zip", tmp_path / "t.zip", signature__dsse__json=(json.dumps(envelope, indent=2) + "\n").encode()
    )
    assert "signature" not in wrong(checked(path)) and b'"model"' not in payload.partition(b"predicate")[0]


@pytest.mark.slow
def test_every_flipped_byte_of_a_signature_is_found(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    make_key(tmp_path / "k")
    write_bundle(tmp_path / "s.zip", evidence(n=60), key=load_private_key(tmp_path / "k"))
    content = unpack((tmp_path / "s.zip").read_bytes(), "s")[SIGNATURE]
    open_envelope(content)
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1
        with pytest.raises(DataError):
            open_envelope(bytes(flipped))


def test_keys_are_private_and_never_written_over(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    make_key(tmp_path / "k")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="is there already"):
        make_key(tmp_path / "k")
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(UsageError, match="may be read by others"):
        load_private_key(tmp_path / "k")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(UsageError, match="is no private key"):
        load_private_key(tmp_path / "text")
    with pytest.raises(UsageError, match="is no public key"):
        load_public_key(tmp_path / "k")


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_differences_are_named_by_their_place() -> None:
    assert difference({"a": [1.0, 2.0]}, {"a": [1.0, 2.0 + 1e-9]}) == ""
    assert difference({"a": [1.0, 2.0]}, {"a": [1.0, 2.1]}) == "a[1] says 2, recomputed 2.1"
    assert difference({"a": None}, {"a": 0.0}) == "a says None, recomputed 0"
    assert difference({"a": 1}, {"b": 1}) == "a is there, and nothing comes to it"
    assert difference({"a": True}, {"a": 1}) != ""


def test_answers_of_a_regression_and_of_missing_labels_survive(tmp_path: Path) -> None:
    from auditor.models.regression_model import AuditedRegressor

    rng = np.random.default_rng(0)
    y = rng.normal(0, 1, 50)
    y[3] = np.nan
    data = AuditData.for_regression(np.column_stack([y]), y, sensitive_features={"g": rng.choice(["a", "b"], 50)})
    model = AuditedRegressor.from_callable(lambda X: np.nan_to_num(X[:, 0]) + 0.5)
    head = head_of(model, data, include_rows=True)
    assert head is not None and head.kind == "regressor"
    again = read_back(kept(model, data, head), counts_of(model, data))
    np.testing.assert_array_equal(again.truth, y)
    np.testing.assert_array_equal(again.predicted, np.nan_to_num(y) + 0.5)
    assert again.counts is None


def test_bins_keep_their_order_in_the_rows() -> None:
    """Groups in an order of their own would give headlines whose parts stand in another order."""
    ages = pd.Series(pd.Categorical(["< 18", ">= 60", "[18, 60)"] * 20, categories=["< 18", "[18, 60)", ">= 60"]))
    data = replace(
        AuditData.from_arrays(np.full((60, 1), 0.5), [0, 1] * 30, classes=["0", "1"]),
        sensitive_features=pd.DataFrame({"age": ages}),
    )
    model = AuditedModel.from_callable(lambda X: X[:, 0], classes=["0", "1"])
    head = head_of(model, data, include_rows=True)
    assert head is not None and head.levels == (("< 18", "[18, 60)", ">= 60"),)
    answers = read_back(kept(model, data, head))
    assert list(answers.data().sensitive_features["age"].cat.categories) == ["< 18", "[18, 60)", ">= 60"]  # type: ignore[index]


# ---- forgeries that fit their own digests --------------------------------------------------------------------------


def results_with(bundle: Path, path: Path, change: Any) -> dict[str, str]:
    """What verification says once ``change`` has edited results and record, each read as JSON, and digests fit."""
    entries = unpack(bundle.read_bytes(), "b")
    results, record = json.loads(entries[RESULTS]), json.loads(entries[RECORD])
    change(results, record)
    forged = repacked(
        bundle, path, results__json=json.dumps(results).encode(), record__json=json.dumps(record).encode()
    )
    return wrong(checked(forged))


def test_a_probe_cannot_be_made_to_vanish(bundle: Path, tmp_path: Path) -> None:
    def inapplicable(results: Any, record: Any) -> None:
        for probe in results["results"]:
            if probe["probe"] == "group_fairness":
                probe |= {"measurements": [], "not_applicable": "Needs a sensitive feature."}

    said = results_with(bundle, tmp_path / "t.zip", inapplicable)
    assert "tables give" in said["group_fairness"]
    assert "answers.group_fairness" in said["log"]

    def gone(results: Any, record: Any) -> None:
        results["results"] = [p for p in results["results"] if p["probe"] != "group_fairness"]

    assert "answers" in results_with(bundle, tmp_path / "t.zip", gone)["log"]


def test_options_that_are_none_do_not_switch_the_recount_off(bundle: Path, tmp_path: Path) -> None:
    request = json.dumps({"options": {}, "probe_options": {"group_fairness": {"bogus": 1}}}).encode()
    said = wrong(checked(repacked(bundle, tmp_path / "t.zip", request__json=request)))
    assert "no option 'bogus'" in said["group_fairness"]


def test_a_second_finding_of_the_same_name_is_found(bundle: Path, tmp_path: Path) -> None:
    def twice(results: Any, record: Any) -> None:
        finding = next(f for f in record["findings"] if f["metric"] == "demographic_parity_difference")
        record["findings"].insert(0, finding | {"value": 0.01, "outcome": "PASS"})

    assert "more than once" in " ".join(results_with(bundle, tmp_path / "t.zip", twice).values())

    def measured_twice(results: Any, record: Any) -> None:
        for probe in results["results"]:
            if probe["probe"] == "group_fairness":
                probe["measurements"].append(probe["measurements"][0])

    assert "twice" in " ".join(results_with(bundle, tmp_path / "t.zip", measured_twice).values())


@pytest.mark.parametrize("change", [{"too_few": "only a few"}, {"n_samples": 99999}, {"detail": "all is well"}])
def test_whatever_is_said_of_a_number_is_held_to_the_rows(
    bundle: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    def edited(results: Any, record: Any) -> None:
        for probe in results["results"]:
            for m in probe["measurements"]:
                if m["metric"] == "demographic_parity_difference" and probe["probe"] == "group_fairness":
                    m |= change

    said = results_with(bundle, tmp_path / "t.zip", edited)
    assert next(iter(change)) in said["group_fairness from tables"]


def test_the_record_is_of_these_rows_and_of_this_log(bundle: Path, tmp_path: Path) -> None:
    def rows(results: Any, record: Any) -> None:
        record["data"]["n_rows"] = 24_000

    def model(results: Any, record: Any) -> None:
        record["model"]["sha256"] = "e" * 64

    def seed(results: Any, record: Any) -> None:
        record["environment"]["seed"] = 7

    assert "n_rows says 24000, recomputed 240" in results_with(bundle, tmp_path / "t.zip", rows)["data"]
    assert "model" in results_with(bundle, tmp_path / "t.zip", model)["log"]
    assert {"log", "request.json"} <= results_with(bundle, tmp_path / "t.zip", seed).keys()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("score:no,score:yes", "score:yes,score:no", "header"),
        ("truth,predicted", "predicted,truth", "header"),
    ],
)
def test_swapped_columns_are_found(bundle: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    content = unpack(bundle.read_bytes(), "b")[ROWS].decode().replace(old, new, 1).encode()
    assert message in " ".join(wrong(checked(repacked(bundle, tmp_path / "t.zip", rows__csv=content))).values())


def test_scores_that_are_no_probabilities_are_found(bundle: Path, tmp_path: Path) -> None:
    lines = unpack(bundle.read_bytes(), "b")[ROWS].decode().splitlines()
    cells = lines[1].split(",")
    cells[2:4] = ["7.5", "-6.5"]
    content = "\n".join([lines[0], ",".join(cells), *lines[2:]]).encode() + b"\n"
    said = wrong(checked(repacked(bundle, tmp_path / "t.zip", rows__csv=content)))
    assert "no probability" in " ".join(said.values())


@pytest.mark.parametrize(
    "forge",
    [
        lambda tables: tables["groups"]["table"][0][0].__setitem__(0, 10**30),
        lambda tables: tables["rows"].__setitem__("classes", [str(i) for i in range(120_000)]),
        lambda tables: tables["rows"].__setitem__("n", 10**12),
        lambda tables: tables.__setitem__("groups", 3),
    ],
)
def test_hostile_tables_are_wrong_and_nothing_more(bundle: Path, tmp_path: Path, forge: Any) -> None:
    tables = json.loads(unpack(bundle.read_bytes(), "b")[TABLES])
    forge(tables)
    assert wrong(checked(repacked(bundle, tmp_path / "t.zip", tables__json=json.dumps(tables).encode())))


def test_a_log_of_a_million_lines_and_a_cell_of_a_megabyte_end_soon(bundle: Path, tmp_path: Path) -> None:
    assert broken_links(b"\n" * 2_000_000, "0" * 64, 3) == ["it has more than 100,000 lines"]
    header = unpack(bundle.read_bytes(), "b")[ROWS].split(b"\n")[0]
    huge = header + b"\n" + b"1" * 1_000_000 + b"\n"
    assert "is no table" in " ".join(wrong(checked(repacked(bundle, tmp_path / "t.zip", rows__csv=huge))).values())


# ---- honest bundles --------------------------------------------------------------------------------------------------


def test_the_order_of_coordinates_survives(tmp_path: Path) -> None:
    """Ids of findings follow it."""
    made = evidence(n=60)
    at = {"to": "score", "from": "feature", "a": "b"}
    first = replace(made.results[0].measurements[0], at=at)
    results = [replace(made.results[0], measurements=(first,)), *made.results[1:]]
    report = assemble(
        results,
        made.criteria,
        model=made.report.model,
        data=made.report.data,
        environment=made.report.environment,
        family=made.family,
    )
    assert any("to=score/from=feature/a=b" in f.id for f in report.findings)
    write_bundle(tmp_path / "a.zip", replace(made, results=results, report=report))
    assert not {name for name in wrong(checked(tmp_path / "a.zip")) if "=" in name}


def test_a_regression_with_its_groups_by_row_agrees(tmp_path: Path) -> None:
    from auditor.models.regression_model import AuditedRegressor

    made = evidence(n=60)
    rng = np.random.default_rng(0)
    y = rng.normal(0, 1, 120)
    groups = {"g": rng.choice(["a", "b"], 120)}
    data = AuditData.for_regression(np.column_stack([y]), y, sensitive_features=groups)
    model = AuditedRegressor.from_callable(lambda X: X[:, 0] + 0.5)
    results = [ask(PROBES[n](), model, data, generator_for(0, n)) for n in ("regression_fairness", "adverse_impact")]
    report = assemble(
        results,
        made.criteria,
        model=model_record(model),
        data=data_record(data),
        environment=made.report.environment,
        family=made.family,
    )
    head = head_of(model, data, include_rows=True)
    assert head is not None
    answers = kept(model, data, head)
    asked = {"options": {"probes": ["regression_fairness", "adverse_impact"]}, "probe_options": {}}
    log = ChainedLog()
    log.add("started", command=["scan"])
    whole = replace(made, report=report, results=results, answers=answers, counts=None, request=asked, log=log)
    write_bundle(tmp_path / "a.zip", whole)
    found = checked(tmp_path / "a.zip")
    assert not wrong(found)
    assert {name.split("/")[0] for name in found.from_rows} == {"regression_fairness", "adverse_impact"}


def test_scores_of_rows_without_groups_are_blurred(tmp_path: Path) -> None:
    """A group's mean score in a bin of one row would else be that row's score."""
    kept_without, kept_with = evidence(include_rows=False).answers, evidence().answers
    assert kept_without is not None and kept_with is not None and kept_without.head.blurred == 10
    answers, own = read_back(kept_without), read_back(kept_with)
    np.testing.assert_array_equal(answers.predicted, own.predicted)
    _, counts = np.unique(answers.scores[:, 1], return_counts=True)
    assert counts.min() >= 10
    np.testing.assert_allclose(answers.scores.mean(axis=0), own.scores.mean(axis=0))
    assert not set(answers.scores[:, 1]) & set(own.scores[:, 1])


def test_other_code_may_have_drawn_other_figures(bundle: Path, tmp_path: Path) -> None:
    made = evidence(n=60)
    drawn_otherwise = made.report.model_copy(update={"figures": ()})
    other = replace(made, report=drawn_otherwise, code={"responsible-auditor": "0" * 64})
    write_bundle(tmp_path / "a.zip", other)
    found = checked(tmp_path / "a.zip")
    assert found.exit_code(("signature",)) == 3 and not wrong(found)
    write_bundle(tmp_path / "b.zip", replace(evidence(n=60), report=drawn_otherwise))
    assert "figures" in wrong(checked(tmp_path / "b.zip"))


def test_verification_imports_no_torch(bundle: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from cli.verify import verify; "
        f"code = verify(Path({str(bundle)!r}), require='rows'); sys.exit(10 * ('torch' in sys.modules) + code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to know its peak of memory")
def test_a_hundred_thousand_rows_are_verified_in_seconds_and_a_gigabyte(tmp_path: Path) -> None:
    """Processor time and memory of a process of its own, as `auditor evidence verify` is."""
    import subprocess
    import sys

    write_bundle(tmp_path / "a.zip", evidence(n=100_000))
    code = (
        "import time; from pathlib import Path; from cli.verify import verify; "
        f"code = verify(Path({str(tmp_path / 'a.zip')!r}), require='rows,numbers'); "
        # Not ru_maxrss, which a process has from the one that started it.
        "lines = Path('/proc/self/status').read_text().splitlines(); "
        "peak = next(line.split()[1] for line in lines if line.startswith('VmHWM')); "
        "print(code, time.process_time(), peak)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    verdict, seconds, kib = done.stdout.split("\n")[-2].split()
    assert verdict == "0", done.stdout
    assert float(seconds) < 10.0
    assert int(kib) < 1 << 20


# ---- evidence of an earlier version ----------------------------------------------------------------------------------


def test_evidence_of_before_there_was_a_rule_for_small_groups_verifies() -> None:
    """It compared all groups, spoke otherwise and counted n otherwise; its statistics are held to what they were."""
    table = np.zeros((3, 3, 2), np.int64)
    table[:, :2] = [[[200, 200], [100, 300]], [[200, 200], [100, 300]], [[3, 3], [1, 1]]]
    counts = GroupCounts(("g",), ("no", "yes"), (("a",), ("b",), ("c",)), table, 1)
    then = tuple(
        replace(m, n_samples=m.n_samples + 1, detail="in other words")
        for m in GroupFairness(min_share=0).measure_counts(counts)
    )
    said = ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=then)

    def wrong(result: ProbeResult, *, other_code: bool, **options: float) -> list[str]:
        again = Remade(stored_probe, other_code, other_rule=other_code).remeasure(result, options, Kept(None, counts))
        assert again is not None and again.whence == "tables"
        return list(again.wrong)

    assert wrong(said, other_code=True) == []
    assert wrong(said, other_code=False), "this version compares no group of eight rows"
    assert wrong(said, other_code=True, min_share=0.02), "what was asked for is not as it was said"
    forged = [replace(m, estimate=Proportion(successes=0, n=400)) if m.metric == "accuracy" else m for m in then]
    assert wrong(replace(said, measurements=tuple(forged)), other_code=True)


def test_cells_of_a_rule_pack_are_held_against_the_findings_anew(tmp_path: Path) -> None:
    made = evidence()
    packs, _ = load_policies(["eu-ai-act", "gdpr"])
    report = with_policies(made.report, packs, date(2026, 11, 27))

    def stored(changed: Any) -> Verified:
        log = ChainedLog()
        log.add("started", command=["scan"])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_bundle(tmp_path / "a.zip", replace(made, report=changed.model_copy(update={"created": now}), log=log))
        return checked(tmp_path / "a.zip")

    found = stored(report)
    assert not wrong(found) and states(found)["rule pack eu-ai-act"] == states(found)["rule pack gdpr"] == "ok"
    washed = [
        cell.model_copy(update={"outcomes": {"PASS": 9}}) if cell.outcomes else cell
        for cell in report.controls[0].cells + next(c for c in report.controls if c.id == "Art. 10(2)(f)").cells
    ]
    controls = tuple(c.model_copy(update={"cells": tuple(washed)}) for c in report.controls)
    assert "rule pack eu-ai-act" in wrong(stored(report.model_copy(update={"controls": controls})))
    earlier = tuple(p.model_copy(update={"sha256": "0" * 64}) for p in report.policies)
    other = stored(report.model_copy(update={"policies": earlier}))
    assert not wrong(other) and states(other)["rule pack gdpr"] == "not checked"
    roles = stored(report.model_copy(update={"roles": Roles(columns={"sex": "g"})}))
    assert "roles says" in wrong(roles)[REQUEST]
