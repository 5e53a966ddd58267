"""Somebody's word fills the fields that wait for one and no others; the dossier says whose it is and is digested."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import unicodedata
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auditor.core.errors import ConfigError
from auditor.evidence.dossier_files import Attestations, read_attestations
from auditor.evidence.evidence_bundle import write_bundle
from auditor.evidence.signing import make_key
from auditor.evidence.write_dossier import dossier_of
from auditor.judging.policy import Policy, parse_policy
from auditor.report.document import Document, Table, code, own_text
from auditor.report.document_files import render_document_html, render_document_pdf
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.controls import with_policies
from cli.commands import app
from tests.evidence.dossiers import render_dossier
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of, none_of
from tests.report.samples import HOSTILE, sample_report

TODAY = date(2026, 11, 27)
PACK = """\
name = "house"
title = "House"
source = "House rules"
checked_on = 2026-11-27
certainty = "text"

[[controls]]
id = "measured"
title = "Measured alone"
evidence = [{ what = "gaps", probe = "group_fairness", metric = "*_difference", how = "add --sensitive" }]

[[controls]]
id = "both"
title = "Measured, and said"
evidence = [{ what = "size", probe = "intake", metric = "n_parameters", how = "scan the file" }]
attestation = [{ what = "purpose", role = "owner" }, { what = "limits", role = "owner" }, { what = "data", role = "data lead" }]
"""  # noqa: E501
SAID = """\
[[attestation]]
policy = "house"
control = "both"
role = "data lead"
by = "Ann Smith"
on = 2026-11-20
text = "Applications of 2025."
"""


@cache
def house() -> Policy:
    return parse_policy(PACK, "house.toml")


@cache
def sampled(hostile: bool = False) -> AuditReport:
    return sample_report(hostile=hostile)


def read(text: str, folder: Path, **options: object) -> Attestations:
    (folder / "said.toml").write_text(text, encoding="utf-8")
    return read_attestations(folder / "said.toml", [house()], TODAY, **options)  # type: ignore[arg-type]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


# ---- what fills a field ----------------------------------------------------------------------------------------------


def test_a_word_fills_its_field_and_becomes_no_evidence(tmp_path: Path) -> None:
    given = read(SAID, tmp_path)
    bare, filled = (dossier_of(sampled(), [house()], TODAY, attestations=a) for a in (None, given))
    assert (bare.open, filled.open, filled.attested) == (3, 2, 1)
    said = render_dossier(sampled(), [house()], TODAY, attestations=given)
    assert "| ATTESTED by Ann Smith (data lead) on 2026-11-20, unsigned | data |" in said
    assert "| Statement | Applications of 2025. |" in said and given.sha256 in said
    assert said.count("ATTESTATION NEEDED (owner) |") == 2 and "ATTESTATION NEEDED (data lead)" not in said
    evidence_of = [line for line in said.splitlines() if line.startswith("Evidence, ")]
    assert len(evidence_of) == 2 and none_of("Applications" in line for line in evidence_of)
    # The record itself is as it was.
    kinds = [cell.kind for control in with_policies(sampled(), [house()], TODAY).controls for cell in control.cells]
    assert kinds.count("attestation needed") == 3


def test_what_tells_fields_of_one_role_apart(tmp_path: Path) -> None:
    by_what = SAID.replace('role = "data lead"', 'what = "limits"')
    (entry,) = read(by_what, tmp_path).entries
    assert (entry.role, entry.what, entry.cell) == ("owner", "limits", 2)
    both = SAID.replace('role = "data lead"', 'role = "owner"\nwhat = "purpose"')
    assert read(both, tmp_path).entries[0].cell == 1


def test_a_document_goes_in_by_its_digest(tmp_path: Path) -> None:
    (tmp_path / "manual.pdf").write_bytes(b"manual")
    given = read(SAID + 'document = "manual.pdf"\n', tmp_path)
    digest = hashlib.sha256(b"manual").hexdigest()
    assert given.entries[0].document_sha256 == digest
    assert f"| Document | manual.pdf, SHA-256 {digest} |" in render_dossier(
        sampled(), [house()], TODAY, attestations=given
    )


# ---- adversaries -----------------------------------------------------------------------------------------------------

TOMORROW = (TODAY + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"house"', '"huose"', r"'huose' is none of the packs of this dossier; did you mean 'house'\?"),
        ('"both"', '"boht"', r"house has no control 'boht'; did you mean 'both'\?"),
        ('"both"', '"measured"', r"asks for nobody's word: its cells are measured"),
        ('"data lead"', '"data leed"', r"asks no 'data leed'; did you mean 'data lead'\?"),
        ('"data lead"', '"owner"', r"asks a owner for 2 things: say with what which is meant, 'purpose'; 'limits'"),
        ('role = "data lead"', 'what = "size"', r"'size' is measured, and nobody's word replaces a measurement"),
        ('role = "data lead"', 'what = "purposes"', r"asks nobody for 'purposes'; did you mean 'purpose'\?"),
        ('role = "data lead"', 'role = "data lead"\nwhat = "purpose"', r"asks nobody for 'purpose'"),
        ('role = "data lead"\n', "", r"say with role, or with what, which field is meant"),
        ("2026-11-20", TOMORROW, rf"nobody has said anything on {TOMORROW} yet"),
        ("2026-11-20", '"2026-11-20"', r"on must be a date, .* it is '2026-11-20'"),
        ("2026-11-20", "2026-11-20T10:00:00", r"on must be a date"),
        ("on = 2026-11-20\n", "", r"on must be a date, .* it is absent"),
        ('"Ann Smith"', '" "', r"by must be a text"),
        ('"Applications of 2025."', "3", r"text must be a text, and it is 3"),
        ("by =", "bye =", r"unknown key 'bye'; did you mean 'by'\?"),
        ("[[attestation]]", "[[attestations]]", r"unknown key 'attestations'; did you mean 'attestation'\?"),
        ("[[attestation]]", "[attestation]", r"holds no \[\[attestation\]\] table"),
        ("[[attestation]]", "[[attestation", r"Expected|Invalid|Unclosed"),
        (SAID, "", r"holds no \[\[attestation\]\] table"),
        (SAID, "attestation = [1]", r"must be an \[\[attestation\]\] table"),
        (SAID, SAID + 'document = "nowhere.pdf"\n', r"there is no document 'nowhere.pdf'"),
        (SAID, SAID + 'document = "."\n', r"there is no document '.'"),
        (SAID, SAID + 'document = "a\\u0000b"\n', r"there is no document"),
        (SAID, SAID + "\n" + SAID.replace("Ann Smith", "Bob"), r"attestation 2: attestation 1 speaks of the same"),
    ],
)  # fmt: skip
def test_what_is_no_word_for_a_field_is_refused_in_a_sentence(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in SAID and read(SAID, tmp_path).entries
    with pytest.raises(ConfigError, match=rf"^said\.toml.*(?:{message})") as caught:
        read(SAID.replace(old, new, 1), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere.toml"):
        with pytest.raises(ConfigError, match="name a TOML file"):
            read_attestations(place, [house()], TODAY)
    (tmp_path / "big.toml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="larger than statements are"):
        read_attestations(tmp_path / "big.toml", [house()], TODAY)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^bytes\.toml"):
        read_attestations(tmp_path / "bytes.toml", [house()], TODAY)


# ---- hostile text in every format ------------------------------------------------------------------------------------


def _hostile() -> tuple[Policy, str]:
    """A pack, and a file of statements, whose every text is nasty."""
    nasty = json.dumps("".join(HOSTILE[:7]) + " #set page(fill: red) *b* =HYPERLINK(1)")
    pack = parse_policy(
        f"name = 'house'\ntitle = {nasty}\nsource = {nasty}\nchecked_on = 2026-11-27\ncertainty = 'text'\n"
        f"notes = [{nasty}]\n[[controls]]\nid = {nasty}\ntitle = {nasty}\n"
        f"record = ['model', 'data', 'criteria', 'environment', 'decisions', 'promise', 'selection rates']\n"
        f"evidence = [{{ what = {nasty}, probe = 'group_fairness', how = {nasty} }}]\n"
        f"attestation = [{{ what = {nasty}, role = {nasty} }}]\n",
        "house.toml",
    )
    control = pack.controls[0]
    text = (
        f"[[attestation]]\npolicy = 'house'\ncontrol = {json.dumps(control.id)}\nwhat = {nasty}\nby = {nasty}\n"
        f"on = 2026-11-20\ntext = {nasty}\n"
    )
    return pack, text


def test_hostile_text_stays_text_in_every_format(tmp_path: Path) -> None:
    pack, text = _hostile()
    (tmp_path / "said.toml").write_text(text, encoding="utf-8")
    given = read_attestations(tmp_path / "said.toml", [pack], TODAY)
    found = dossier_of(sampled(hostile=True), [pack], TODAY, report_href='a" onclick=x#<b>', attestations=given)
    page = render_document_html(found)
    tags = {tag.lower() for tag in re.findall(r"<([a-z][a-z0-9]*)", page)}
    assert not tags & {"script", "img", "iframe", "object", "form", "base", "link"}
    assert re.findall(r"\son\w+\s*=", "".join(re.findall(r"<[^>]*>", page))) == []
    invisible = {c for c in page if unicodedata.category(c) in ("Cf", "Cc") and c != "\n"}
    assert invisible == set()
    links = re.findall(r'href="([^"]*)"', page)
    assert links and all_of(link.startswith(("#", "a%22%20onclick%3Dx%23%3Cb%3E#finding-")) for link in links)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert style and policy
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"sha256-{digest}" in policy[1].replace("&#43;", "+") and "default-src &#39;none&#39;" in policy[1]
    assert render_document_html(found) == page


def test_hostile_text_stays_text_on_paper(tmp_path: Path) -> None:
    pytest.importorskip("typst", reason="the extra pdf is not installed: typst")
    pdfium = pytest.importorskip("pypdfium2", reason="the test group is not installed: pypdfium2")
    pack, text = _hostile()
    (tmp_path / "said.toml").write_text(text, encoding="utf-8")
    given = read_attestations(tmp_path / "said.toml", [pack], TODAY)
    found = dossier_of(sampled(hostile=True), [pack], TODAY, attestations=given)
    made = render_document_pdf(found)
    assert b"/URI" not in made and b"/JavaScript" not in made and b"pdfuaid" in made
    paper = pdfium.PdfDocument(made)
    words = "".join(page.get_textpage().get_text_range() for page in paper)
    paper.close()
    plain = re.sub(r"[\s\u200b]", "", words)
    assert "#setpage(fill:red)" in plain and "*b*" in plain and "<script>alert(1)</script>" in plain
    assert "ATTESTEDby" in plain and "\u202e" not in words


def test_on_paper_a_metric_does_not_run_into_its_value() -> None:
    pypdfium2 = pytest.importorskip("pypdfium2")
    pytest.importorskip("typst")
    name, value = "equal_opportunity_gap", "0.351"
    heads = tuple(
        (own_text(head),) for head in ("Measured", "Value", "Interval", "Must be", "Rows", "Outcome", "Finding")
    )
    cells = (
        (code(name),),
        (own_text(value),),
        (own_text("0.311 to 0.379 " * 5),),
        (own_text("at least 0"),),
        (own_text("128"),),
    )
    row = (
        *cells,
        (own_text("earned its display with reservations, which are told at length here. " * 6),),
        (own_text("119"),),
    )
    made = render_document_pdf(
        Document("T", "0" * 64, "2026-11-27T20:37:22+00:00", "0", (Table(heads, (row,), "lrllrll"),))
    )
    page = pypdfium2.PdfDocument(made)[0].get_textpage()
    letters = page.get_text_range()
    first, at = letters.index(name[:4]), letters.index(value)
    ends = [page.get_charbox(i)[2] for i in range(first, at) if letters[i].strip(" \r\n\u200b")]
    assert len(ends) >= len(name) - 4 and max(ends) < page.get_charbox(at)[0]


# ---- what lies beside it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    made = evidence(n=60, names=("group_fairness",))
    write_bundle(folder / "audit.zip", made)
    (folder / "report.json").write_text(made.report.to_json(), encoding="utf-8")
    (folder / "house.toml").write_text(PACK, encoding="utf-8")
    (folder / "said.toml").write_text(SAID, encoding="utf-8")
    make_key(folder / "k")
    make_key(folder / "other")
    return folder


@pytest.fixture
def here(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in audited.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "k").chmod(0o600)
    (tmp_path / "other").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _states(*words: str) -> dict[str, str]:
    said = run("evidence", "verify", "audit.zip", "--dossier", "dossier.manifest.json", "--json", *words)
    return {c["name"]: c["state"] for c in json.loads(said.output)["checks"] if c["name"].startswith("dossier")}


MAKE = ("policy", "dossier", "report.json", "--policy", "house.toml", "--attestations", "said.toml")


def test_a_signed_dossier_is_verified_against_its_bundle(here: Path) -> None:
    done = run(*MAKE, "--sign", "k", "--format", "markdown,html")
    assert done.exit_code == 0 and "attested 1 field, signed with the key" in done.output
    assert "unsigned" not in Path("dossier.md").read_text()
    assert _states("--key", "k.pub") == {
        "dossier, dossier.html": "ok",
        "dossier, dossier.md": "ok",
        "dossier, record": "ok",
        "dossier, said.toml": "ok",
        "dossier, signature": "ok",
        "dossier, text": "ok",
    }
    assert _states()["dossier, signature"] == "not checked"
    assert _states("--key", "other.pub")["dossier, signature"] == "wrong"


def test_an_unsigned_dossier_says_so_and_is_no_more_than_not_checked(here: Path) -> None:
    done = run(*MAKE)
    assert done.exit_code == 0 and "attested 1 field, unsigned" in done.output
    assert _states()["dossier, signature"] == "not checked"
    assert _states("--key", "k.pub")["dossier, signature"] == "wrong"


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("dossier.md", b"\nAnd it complies.\n", "dossier, dossier.md"),
        ("said.toml", b"\n# changed\n", "dossier, said.toml"),
    ],
)
def test_what_was_changed_since_is_found(here: Path, name: str, change: bytes, check: str) -> None:
    assert run(*MAKE, "--sign", "k").exit_code == 0
    assert "wrong" not in _states("--key", "k.pub").values()
    Path(name).write_bytes(Path(name).read_bytes() + change)
    assert [n for n, state in _states("--key", "k.pub").items() if state == "wrong"] == [check]
    assert run("evidence", "verify", "audit.zip", "--dossier", "dossier.manifest.json").exit_code == 1


def test_what_was_taken_away_is_found(here: Path) -> None:
    assert run(*MAKE, "--sign", "k").exit_code == 0
    Path("dossier.md").unlink()
    Path("said.toml").unlink()
    states = _states("--key", "k.pub")
    assert states["dossier, dossier.md"] == "wrong" and states["dossier, said.toml"] == "not checked"


def test_a_manifest_made_over_is_not_what_was_signed(here: Path) -> None:
    assert run(*MAKE, "--sign", "k").exit_code == 0
    manifest = json.loads(Path("dossier.manifest.json").read_text())
    Path("dossier.md").write_text("It complies.\n")
    entry = {"sha256": hashlib.sha256(b"It complies.\n").hexdigest(), "size": 13}
    manifest["files"]["dossier.md"] = entry
    Path("dossier.manifest.json").write_text(
        json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    )
    states = _states("--key", "k.pub")
    assert states["dossier, dossier.md"] == "ok" and states["dossier, signature"] == "wrong"


def test_who_holds_the_key_cannot_sign_a_dossier_that_says_more_than_its_record(here: Path) -> None:
    from auditor.evidence.dossier_files import DossierManifest, signature_of
    from auditor.evidence.manifest import FileEntry
    from auditor.evidence.signing import load_private_key

    assert run(*MAKE, "--sign", "k").exit_code == 0
    assert _states("--key", "k.pub")["dossier, text"] == "ok"
    more = Path("dossier.md").read_bytes() + b"\nAnd it complies with everything.\n"
    manifest = DossierManifest.model_validate_json(Path("dossier.manifest.json").read_bytes())
    forged = manifest.model_copy(update={"files": {"dossier.md": FileEntry.from_content(more)}})
    report = AuditReport.from_json(Path("report.json").read_bytes())
    Path("dossier.md").write_bytes(more)
    Path("dossier.manifest.json").write_bytes(forged.to_bytes())
    key = load_private_key(Path("k"))
    Path("dossier.manifest.dsse.json").write_bytes(signature_of("dossier.manifest.json", forged, report, key))
    states = _states("--key", "k.pub")
    assert states["dossier, signature"] == "ok"
    assert [name for name, state in states.items() if state == "wrong"] == ["dossier, text"]
    # Without the pack that it was made of nobody can tell, which is no pass.
    Path("house.toml").unlink()
    assert _states("--key", "k.pub")["dossier, text"] == "not checked"


def test_a_document_that_was_changed_is_found_and_a_pipe_is_waited_for_by_nobody(here: Path) -> None:
    Path("minutes.txt").write_text("We met.\n")
    Path("said.toml").write_text(SAID + 'document = "minutes.txt"\n')
    assert run(*MAKE, "--sign", "k").exit_code == 0
    assert _states("--key", "k.pub")["dossier, minutes.txt"] == "ok"
    Path("minutes.txt").write_text("We agreed.\n")
    assert _states("--key", "k.pub")["dossier, minutes.txt"] == "wrong"
    Path("minutes.txt").unlink()
    os.mkfifo("minutes.txt")
    assert _states("--key", "k.pub")["dossier, minutes.txt"] == "not checked"


def test_a_dossier_of_another_record_is_named(here: Path) -> None:
    Path("report.json").write_text(sampled().to_json())
    assert run(*MAKE, "--sign", "k").exit_code == 0
    assert _states("--key", "k.pub")["dossier, record"] == "wrong"


@pytest.mark.parametrize(
    ("content", "code"),
    [("{}", 4), ('{"format": "auditor-dossier/1"}', 4), ("no json", 4), (None, 2)],
)
def test_what_is_no_manifest_is_refused(here: Path, content: str | None, code: int) -> None:
    if content is not None:
        Path("dossier.manifest.json").write_text(content)
    done = run("evidence", "verify", "audit.zip", "--dossier", "dossier.manifest.json")
    assert done.exit_code == code and done.output.count("\n") == 1
    assert done.output.startswith("auditor: ")


def test_a_manifest_names_files_beside_it_alone(here: Path) -> None:
    assert run(*MAKE).exit_code == 0
    text = Path("dossier.manifest.json").read_text().replace('"dossier.md"', '"../secret"')
    Path("dossier.manifest.json").write_text(text)
    assert run("evidence", "verify", "audit.zip", "--dossier", "dossier.manifest.json").exit_code == 4


def test_one_format_goes_where_it_was_said(here: Path) -> None:
    assert run("policy", "dossier", "report.json", "--policy", "gdpr", "--out", "d.html").exit_code == 0
    assert Path("d.html").read_text().startswith("<!DOCTYPE html>") and Path("d.manifest.json").exists()
    assert run("policy", "dossier", "report.json", "--policy", "gdpr", "--format", "html").exit_code == 0
    assert Path("dossier.html").exists() and not Path("dossier.md").exists()
    wrong = run("policy", "dossier", "report.json", "--policy", "gdpr", "--format", "htlm")
    assert wrong.exit_code == 2 and "did you mean 'html'" in wrong.output
    missing = run(
        "policy", "dossier", "report.json", "--policy", "gdpr", "--attestations", "nowhere.toml", "--out", "e.md"
    )
    assert missing.exit_code == 2 and not Path("e.md").exists()


def test_the_same_record_gives_the_same_bytes(here: Path) -> None:
    made = []
    for folder in ("a", "b"):
        assert (
            run(*MAKE, "--as-of", "2026-11-27", "--format", "markdown,html,pdf", "--out", f"{folder}/d.md").exit_code
            == 0
        )
        made.append({p.name: p.read_bytes() for p in Path(folder).iterdir() if not p.name.startswith(".")})
    assert made[0] == made[1] and len(made[0]) == 4
