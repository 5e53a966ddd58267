"""``--report``: a rendering is of a bundle's record, or verification says that it is not, or that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from auditor.evidence.evidence_bundle import write_bundle
from auditor.evidence.verify.checks import Check, left_open
from auditor.evidence.verify.verify_rendering import tied
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.report_formats import FILE_NAMES, render
from auditor.report.record.translations import Catalogue
from auditor.report.report_view import document_id
from cli.verify import verify
from tests.evidence.test_evidence import evidence
from tests.report.samples import sample_report

TEXTS = (
    "html",
    "json",
    "markdown",
    "sarif",
    "junit",
    "csv",
    "model-card",
    "model-card-json",
    "eee",
    "croissant",
    "datasheet",
)


@pytest.fixture(scope="module")
def report() -> AuditReport:
    return evidence(n=60, names=("group_fairness",)).report


DRAWN: dict[tuple[str, str, str], bytes] = {}


def drawn(report: AuditReport, name: str, say: Catalogue | None = None) -> bytes:
    """The record as it is drawn, once: that the same record is the same bytes other tests say."""
    words = "its own" if say is None else f"{say.language} {dict(say.own)}"
    key = (document_id(report), name, words)
    if key not in DRAWN:
        DRAWN[key] = render(report, name, say)
    return DRAWN[key]


def tie(content: bytes, report: AuditReport, folder: Path, *, same_code: bool = True) -> Check:
    (folder / "rendering").write_bytes(content)
    return tied(folder / "rendering", report, drawn, same_code=same_code)


@pytest.fixture(scope="module")
def page(report: AuditReport) -> Callable[[str], bytes]:
    return partial(drawn, report)


@pytest.mark.parametrize("name", [name for name in FILE_NAMES if name != "ml-bom"])
def test_every_rendering_bears_the_whole_id_and_is_found_to_be_the_records(
    name: str, report: AuditReport, page: Callable[[str], bytes], tmp_path: Path
) -> None:
    if name != "json":
        assert document_id(report).encode() in page(name)
    found = tie(page(name), report, tmp_path)
    assert found.state == "ok", found.detail


def test_a_bill_of_materials_is_found_to_be_the_records(tmp_path: Path) -> None:
    report = sample_report()
    found = tie(drawn(report, "ml-bom"), report, tmp_path)
    assert found.state == "ok", found.detail


@pytest.mark.parametrize("name", TEXTS)
def test_a_page_with_the_right_id_and_another_verdict_is_wrong(
    name: str, report: AuditReport, page: Callable[[str], bytes], tmp_path: Path
) -> None:
    forged = page(name).replace(b"INCONCLUSIVE", b"PASS")
    assert forged != page(name)
    found = tie(forged, report, tmp_path)
    assert found.state == "wrong"


def test_where_other_code_measured_a_difference_is_open(
    report: AuditReport, page: Callable[[str], bytes], tmp_path: Path
) -> None:
    forged = page("markdown").replace(b"INCONCLUSIVE", b"PASS")
    found = tie(forged, report, tmp_path, same_code=False)
    assert found.state == "not checked" and "only drawing it anew shows" in found.detail
    assert [each.needs for each in left_open([found])] == ["report"]
    assert tie(page("markdown"), report, tmp_path, same_code=False).state == "ok"


@pytest.mark.parametrize("name", ["json", "markdown", "pdf", "csv"])
def test_a_rendering_of_another_audit_is_wrong(
    name: str, report: AuditReport, page: Callable[[str], bytes], tmp_path: Path
) -> None:
    other = report.model_copy(update={"created": "2026-01-01T00:00:00+00:00"})
    found = tie(page(name), other, tmp_path)
    assert found.state == "wrong" and document_id(other) in found.detail


def test_it_may_be_told_in_any_shipped_language_and_in_named_words(report: AuditReport, tmp_path: Path) -> None:
    german = render(report, "markdown", Catalogue.for_language("de"))
    assert tie(german, report, tmp_path).state == "ok"
    own = Catalogue.for_language("fr", {"page.nothing_next": "rien"})
    french = render(report, "markdown", own)
    assert tie(french, report, tmp_path).state == "wrong"
    (tmp_path / "fr.md").write_bytes(french)
    assert tied(tmp_path / "fr.md", report, render, say=own, same_code=True).state == "ok"


def test_words_that_the_record_brings_with_it_are_the_signers(report: AuditReport, tmp_path: Path) -> None:
    words = {"headline.unsettled": "Released: this evidence supports it", "verdict.inconclusive": "as it should be"}
    own = report.model_copy(update={"about": About(language="xx", words=words)})
    page = drawn(own, "html")
    assert b"Released: this evidence" in page
    found = tie(page, own, tmp_path)
    assert found.state == "not checked" and "--lang" in found.detail
    assert [each.needs for each in left_open([found])] == ["report"]
    assert tie(drawn(own, "html", Catalogue.for_language("en")), own, tmp_path).state == "ok"
    (tmp_path / "own.html").write_bytes(page)
    assert tied(tmp_path / "own.html", own, drawn, say=own.about.catalogue if own.about else None).state == "ok"


def test_a_pdf_that_was_changed_or_sealed_is_open_and_its_id_is_found(
    report: AuditReport, page: Callable[[str], bytes], tmp_path: Path
) -> None:
    changed = page("pdf") + b"\n% more\n"
    found = tie(changed, report, tmp_path)
    assert found.state == "not checked" and "the id is that of the bundle's record" in found.detail


def test_hostile_names_stay_inert_in_what_is_said_of_them(tmp_path: Path) -> None:
    report = sample_report(hostile=True)
    for name in ("markdown", "csv", "junit"):
        found = tie(render(report, name).replace(b"0", b"1"), report, tmp_path)
        assert found.detail.isprintable() and "<script" not in found.detail


def test_verify_names_the_report_and_exits_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = evidence(n=60)
    write_bundle(tmp_path / "a.zip", made)
    page, forged, other = (tmp_path / name for name in ("r.md", "f.md", "o.md"))
    page.write_bytes(render(made.report, "markdown"))
    forged.write_bytes(page.read_bytes().replace(b"FAIL", b"PASS").replace(b"INCONCLUSIVE", b"PASS"))
    assert forged.read_bytes() != page.read_bytes()
    later = made.report.model_copy(update={"created": "2026-01-01T00:00:00+00:00"})
    other.write_bytes(render(later, "markdown"))
    codes = [verify(tmp_path / "a.zip", require="report", report=path) for path in (page, forged, other)]
    assert codes == [0, 1, 1]
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "proven report: drawn anew" in printed
        and "says something else" in printed
        and "does not bear the id" in printed
    )
