"""``examples/verify_bundle.py`` and ``verify`` agree of every bundle, whole or changed, on what is wrong with it."""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.util
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from auditor.core.errors import DataError
from auditor.evidence.container import pack, unpack
from auditor.evidence.evidence_bundle import statement_of, write_bundle
from auditor.evidence.history.entries import GENESIS, Entry
from auditor.evidence.manifest import LOG, MANIFEST, RECORD, RESULTS, ROWS, SIGNATURE, Manifest, canonical
from auditor.evidence.signing import fingerprint, load_private_key, load_public_key, make_key, sign
from auditor.evidence.verify import verify_bundle as verifying
from auditor.evidence.verify.checks import Check
from auditor.evidence.verify.verify_bundle import Counted, verify_bundle, verify_bytes
from auditor.report.record.audit_report import AuditReport
from cli.verify import stored_probe
from tests import ROOT
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of

EXAMPLE = ROOT / "examples" / "verify_bundle.py"
# What both look at, by the names that verify gives it.
SHARED = {"container", "manifest", "log chain", "signature", MANIFEST, *(RECORD, RESULTS, ROWS, LOG)}


@dataclass(frozen=True)
class Signed:
    """A signed bundle's bytes, the parts in them, and the folder of its key."""

    data: bytes
    parts: dict[str, bytes]
    folder: Path

    @property
    def key(self) -> Path:
        """The private key."""
        return self.folder / "key"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    folder = tmp_path_factory.mktemp("second")
    make_key(folder / "key")
    write_bundle(folder / "audit.zip", evidence(n=60, names=("group_fairness",)), key=load_private_key(folder / "key"))
    data = (folder / "audit.zip").read_bytes()
    return Signed(data, unpack(data, "audit.zip"), folder)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_bundle_example", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_and_shares_nothing_with_what_it_checks() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 170
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {str(getattr(node, "module", None) or node.names[0].name).split(".")[0] for node in imports}
    assert modules - set(sys.stdlib_module_names) == {"cryptography"}


Mutations = Iterator[tuple[str, bytes]]


def of_container(made: Signed, rng: np.random.Generator) -> Mutations:
    data, parts = made.data, made.parts
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos, directory = archive.infolist(), archive.start_dir
    for offset in (4, 6, 10, 14, 16, 22, 26, 28):  # of the fields of a local header
        at = infos[0].header_offset + offset
        yield f"local header, byte {offset}", flipped(data, at)
    for offset in (4, 6, 8, 10, 12, 16, 24, 28, 30, 32, 36, 38, 42):
        yield f"directory, byte {offset}", flipped(data, directory + offset)
    for offset in range(4, 22, 2):
        yield f"end, byte {offset}", flipped(data, len(data) - 22 + offset)
    for n in (1, 22, 300, len(data) // 2):
        yield f"cut by {n}", data[:-n]
    yield "appended", data + b"\0"
    yield "prepended", b"\0" + data
    yield "commented", data[:-2] + struct.pack("<H", 2) + b"hi"
    for how in ({"compress_type": zipfile.ZIP_DEFLATED}, {"date_time": (2026, 1, 1, 0, 0, 0)}, {"comment": b"x"}):
        yield f"another {next(iter(how))}", rezipped(parts, how)
    yield "another order", rezipped(dict(reversed(parts.items())), {})
    yield "empty", b""
    yield "no zip", bytes(rng.integers(0, 256, 400, dtype=np.uint8))


def rezipped(parts: dict[str, bytes], how: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            info = zipfile.ZipInfo(name)
            for field, value in how.items():
                setattr(info, field, value)
            archive.writestr(info, content)
    return buffer.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def of_parts(made: Signed, rng: np.random.Generator) -> Mutations:
    for name, content in sorted(made.parts.items()):
        yield f"a byte of {name}", repacked(made, {name: flipped(content, int(rng.integers(len(content))))})
        yield f"a byte more of {name}", repacked(made, {name: content + b" "})
        if name != ROWS:  # which may be left out
            yield f"without {name}", pack({k: v for k, v in made.parts.items() if k != name})
    yield "a part of another name", repacked(made, {"extra.txt": b"x"})
    yield "a part in a folder", repacked(made, {"a/b": b""})


def of_manifest(made: Signed, rng: np.random.Generator) -> Mutations:
    manifest = json.loads(made.parts[MANIFEST])

    def with_(change: Callable[[dict[str, object]], object]) -> bytes:
        other = json.loads(made.parts[MANIFEST])
        change(other)
        return repacked(made, {MANIFEST: canonical(other)})

    yield "another format", with_(lambda m: m.update(format="auditor-evidence/2"))
    yield "a key more", with_(lambda m: m.update(more=1))
    yield "a line more", with_(lambda m: m.update(log_lines=manifest["log_lines"] + 1))
    yield "no line", with_(lambda m: m.update(log_lines=-1))
    yield "true lines", with_(lambda m: m.update(log_lines=True))
    yield "another head", with_(lambda m: m.update(log_head="0" * 64))
    yield "no digest", with_(lambda m: m.update(log_head="x"))
    yield "no files", with_(lambda m: m.update(files={}))
    yield "files of a list", with_(lambda m: m.update(files=[]))
    for name in ("record.json", "rows.csv", "log.jsonl"):
        yield f"{name} unnamed", with_(lambda m, name=name: m["files"].pop(name))
        yield f"{name} of another size", with_(lambda m, name=name: m["files"][name].update(size=1))
        yield f"{name} with more said", with_(lambda m, name=name: m["files"][name].update(more="x"))
    yield "spaces", repacked(made, {MANIFEST: json.dumps(manifest, sort_keys=True).encode()})
    yield "no JSON", repacked(made, {MANIFEST: b"{"})
    yield "a list", repacked(made, {MANIFEST: b"[]"})
    yield "deep", repacked(made, {MANIFEST: b"[" * 100_000})


def of_chain(made: Signed, rng: np.random.Generator) -> Mutations:
    """Logs that are not the chain, in bundles whose manifest and signature are made to fit them."""
    lines = made.parts[LOG].splitlines(keepends=True)
    yield "first line gone", refitted(made, b"".join(lines[1:]))
    yield "last line gone", refitted(made, b"".join(lines[:-1]))
    yield "two lines swapped", refitted(made, b"".join([lines[1], lines[0], *lines[2:]]))
    yield "a line twice", refitted(made, b"".join([*lines, lines[-1]]))
    yield "no end of line", refitted(made, b"".join(lines)[:-1])
    yield "a line edited", refitted(made, made.parts[LOG].replace(b'"started"', b'"stopped"'))
    yield "a number edited", refitted(made, made.parts[LOG].replace(b'"n": 1', b'"n": 7'))
    yield "a line that is a list", refitted(made, b"[]\n" + b"".join(lines[1:]))
    yield "an empty log", refitted(made, b"")
    yield "no JSON", refitted(made, b"{\n" + b"".join(lines[1:]))


def of_signature(made: Signed, rng: np.random.Generator) -> Mutations:
    envelope = made.parts[SIGNATURE]
    for at in rng.choice(len(envelope), 12, replace=False):
        yield f"byte {at} of the envelope", repacked(made, {SIGNATURE: flipped(envelope, int(at))})
    other = made.folder / "other"
    if not other.exists():
        make_key(other)
    said = base64.b64decode(json.loads(envelope)["payload"])
    yield "another key", repacked(made, {SIGNATURE: sign(said, load_private_key(other))})
    for old, new in ((b"FAILED", b"PASSED"), (b"WARNED", b"PASSED"), (b'"sha256": "', b'"sha256": "0')):
        changed = said.replace(old, new)
        if changed != said:
            yield f"{old!r} in the statement", repacked(made, {SIGNATURE: sign(changed, load_private_key(made.key))})
    yield (
        "another spelling",
        repacked(made, {SIGNATURE: sign(json.dumps(json.loads(said), indent=1).encode(), load_private_key(made.key))}),
    )
    yield "compact", repacked(made, {SIGNATURE: json.dumps(json.loads(envelope)).encode()})
    twice = json.loads(envelope)
    twice["signatures"] *= 2
    yield "signed twice", repacked(made, {SIGNATURE: json.dumps(twice, indent=2).encode() + b"\n"})
    yield "none", repacked(made, {SIGNATURE: b"{}"})
    yield "unsigned", pack({k: v for k, v in made.parts.items() if k != SIGNATURE})


def repacked(made: Signed, changes: dict[str, bytes]) -> bytes:
    return pack({**made.parts, **changes})


def refitted(made: Signed, log: bytes) -> bytes:
    """With another log, which the manifest names by its digest; the manifest's own idea of the chain stays."""
    return with_part(made, LOG, log)


def with_part(made: Signed, name: str, content: bytes = b"x") -> bytes:
    """With a part that the manifest names by its digest, signed anew with the right key."""
    manifest = json.loads(made.parts[MANIFEST])
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    changed = {name: content, MANIFEST: canonical(manifest)}
    said = json.loads(base64.b64decode(json.loads(made.parts[SIGNATURE])["payload"]))
    said["subject"][0]["digest"]["sha256"] = hashlib.sha256(changed[MANIFEST]).hexdigest()
    payload = json.dumps(said, sort_keys=True, ensure_ascii=False).encode()
    return repacked(made, {**changed, SIGNATURE: sign(payload, load_private_key(made.key))})


KINDS = (of_container, of_parts, of_manifest, of_chain, of_signature)


def of_verify(data: bytes, made: Signed) -> set[str] | None:
    """What verify finds wrong of what both look at; None where it is no bundle."""
    path = made.folder / "changed.zip"
    path.write_bytes(data)
    try:
        found = verify_bundle(path, stored_probe, trusted=[load_public_key(made.folder / "key.pub")])
    except DataError:
        return None
    names = {check.name for check in found.checks if check.state == "wrong"}
    files = {*made.parts, *(unpack(data, "changed.zip"))}
    # A record that verify cannot read at all has no statement either; the other reads what it needs of it.
    return names & (SHARED | files) - ({"signature"} if RECORD in names else set())


def of_example(example: ModuleType, data: bytes, made: Signed) -> set[str] | None:
    try:
        wrong, _ = example.check(data, [fingerprint(load_public_key(made.folder / "key.pub"))])
    except Exception:
        return None
    return set(wrong)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_both_find_the_same_wrong_with_every_mutation(
    kind: Callable[[Signed, np.random.Generator], Mutations],
    signed: Signed,
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the numbers come to only verify looks at, and it takes its time.
    monkeypatch.setattr(verifying, "Replay", lambda *_, **__: SimpleNamespace(checks=[], unproven=[]))
    monkeypatch.setattr(verifying, "in_order", lambda *_: ([], []))
    monkeypatch.setattr(verifying, "check_counts", lambda *_: Counted(checks=()))
    monkeypatch.setattr(verifying, "code", lambda *_: Check(name="code", state="ok", detail=""))
    differing, seen = {}, []
    for what, data in kind(signed, np.random.default_rng(5)):
        mine, theirs = of_example(example, data, signed), of_verify(data, signed)
        if mine is not None and RECORD in mine:
            mine -= {"signature"}
        seen.append(theirs)
        if mine != theirs:
            differing[what] = (mine, theirs)
    assert differing == {}
    assert all_of(found is None or found for found in seen)


def test_there_are_enough_mutations(signed: Signed) -> None:
    names = [f"{kind.__name__}: {what}" for kind in KINDS for what, _ in kind(signed, np.random.default_rng(5))]
    assert len(names) == len(set(names)) >= 60


def test_both_agree_that_a_whole_bundle_is_whole(signed: Signed, example: ModuleType) -> None:
    assert of_example(example, signed.data, signed) == of_verify(signed.data, signed) == set()
    without = repacked_without_rows(signed)
    assert of_example(example, without, signed) == of_verify(without, signed) == set()


def repacked_without_rows(made: Signed) -> bytes:
    return pack({name: content for name, content in made.parts.items() if name != ROWS})


@pytest.mark.parametrize("name", ["kind", '"kind":"', "notes.txt", "packs/0-house.toml", "configuration/1-a.toml"])
def test_both_find_a_part_that_only_the_manifest_names(name: str, signed: Signed, example: ModuleType) -> None:
    data = with_part(signed, name)
    assert of_verify(data, signed) == of_example(example, data, signed) == {name}


@pytest.mark.parametrize(("name", "what"), [("registration.json", "registration"), ("decisions/0.json", "decisions")])
def test_both_find_what_the_record_does_not_speak_of(name: str, what: str, signed: Signed, example: ModuleType) -> None:
    entry = Entry.from_previous(2, GENESIS, "2026-01-31T00:00:00+00:00", "decision", "{}")
    data = with_part(signed, name, canonical(entry.model_dump(mode="json")))
    found = verify_bytes(data, "given.zip", stored_probe)
    assert {check.name for check in found.checks if check.state == "wrong"} & {name, what}
    assert of_example(example, data, signed) == {name}


def test_it_exits_as_verify_does(signed: Signed) -> None:
    def exits(data: bytes, *keys: str) -> int:
        (signed.folder / "given.zip").write_bytes(data)
        words = [sys.executable, str(EXAMPLE), "given.zip", *keys]
        return subprocess.run(words, cwd=signed.folder, capture_output=True).returncode

    assert exits(signed.data, "key.pub") == 0
    assert exits(signed.data) == 3
    assert exits(flipped(signed.data, len(signed.data) // 2), "key.pub") == 1
    assert exits(b"none") == 4
    assert exits(signed.data, "none.pub") == 4


def test_it_says_how_it_is_called_and_what_the_exit_code_rests_on(signed: Signed) -> None:
    def says(*words: str) -> str:
        run = subprocess.run([sys.executable, str(EXAMPLE), *words], cwd=signed.folder, capture_output=True, text=True)
        assert not run.stderr
        return f"{run.returncode} {run.stdout}"

    (signed.folder / "said.zip").write_bytes(signed.data)
    assert says().startswith("2 ") and "verify_bundle.py audit.zip [auditor.key.pub ...]" in says("--help")
    assert "a key that you named" in says("said.zip", "key.pub")
    assert "by whom only a key from them tells" in says("said.zip")


def test_both_read_the_statement_of_an_earlier_version_and_no_other(
    signed: Signed, example: ModuleType, tmp_path: Path
) -> None:
    """It names the manifest alone, and the key by its fingerprint."""
    public, private = load_public_key(signed.folder / "key.pub"), load_private_key(signed.key)
    manifest, report = Manifest.from_bytes(signed.parts[MANIFEST]), AuditReport.from_json(signed.parts[RECORD])
    for said, fits in (
        (statement_of(manifest, report, with_subjects=False), True),
        (statement_of(manifest, report).replace(b"manifest.json", b"manifest.jsom", 1), False),
    ):
        envelope = json.loads(sign(said, private))
        envelope["signatures"][0]["keyid"] = fingerprint(public)
        data = pack(signed.parts | {SIGNATURE: (json.dumps(envelope, indent=2) + "\n").encode()})
        (tmp_path / "t.zip").write_bytes(data)
        theirs, _ = example.check(data, [fingerprint(public)])
        ours = verify_bundle(tmp_path / "t.zip", stored_probe, trusted=[public])
        assert ("signature" not in theirs) is fits
        assert any(check.name == "signature" and check.state == "wrong" for check in ours.checks) is not fits
