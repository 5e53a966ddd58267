"""A recorded audit told in other words than its own: they are said to be others, and the record stays as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from auditor.core.errors import UsageError
from auditor.report import report_view
from auditor.report.first_page import first_page
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.translations import Catalogue, shipped
from cli.commands import app
from cli.report_outputs import catalogue_of
from tests.report.samples import HOSTILE, sample_report

RETOLD = "Der Eintrag wurde in en verfasst und ist hier in de wiedergegeben"


def told() -> AuditReport:
    """The sample without its figures, which no language changes."""
    return sample_report().model_copy(update={"figures": ()})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def _words(pdf: Path) -> str:
    pdfium = pytest.importorskip("pypdfium2", reason="the test group is not installed: pypdfium2")
    document = pdfium.PdfDocument(pdf)
    try:
        texts = [document[i].get_textpage().get_text_range() for i in range(len(document))]
    finally:
        document.close()
    return re.sub(r"\s+", " ", " ".join(texts).replace("\u200b", ""))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A folder with a record in English."""
    (tmp_path / "report.json").write_text(told().to_json())
    return tmp_path


def test_each_rendering_is_told_in_another_language_and_the_record_stays(record: Path) -> None:
    pytest.importorskip("typst", reason="the extra `pdf` is not installed")
    before = (record / "report.json").read_bytes()
    done = run("report", str(record), "--format", "html,markdown,pdf", "--lang", "de")
    assert done.exit_code == 0, done.output
    assert (record / "report.json").read_bytes() == before
    digest = report_view.document_id(told())
    html, markdown = ((record / name).read_text("utf-8") for name in ("report.html", "report.md"))
    paper = _words(record / "report.pdf")
    for page in (html, markdown, paper):
        assert RETOLD in page
        assert digest[:16] in page
        assert "Als Nächstes" in page
    assert 'lang="de"' in html and "Angaben zum Dokument" in paper and "Alle Zahlen" in paper


def test_a_record_in_its_own_words_says_nothing_of_others(record: Path) -> None:
    german = told().model_copy(update={"about": About(language="de")})
    (record / "report.json").write_text(german.to_json())
    for more in ([], ["--lang", "de"]):
        assert run("report", str(record), "--format", "html", *more).exit_code == 0
        page = (record / "report.html").read_text("utf-8")
        assert "Als Nächstes" in page and "wiedergegeben" not in page
    assert run("report", str(record), "--format", "html", "--lang", "en").exit_code == 0
    page = (record / "report.html").read_text("utf-8")
    assert "The record was written in de, and is told here in en" in page


def test_what_a_catalogue_lacks_is_english_and_said_and_its_digest_names_it(record: Path, tmp_path: Path) -> None:
    own = tmp_path / "fr.toml"
    own.write_text('[page]\nnext = "À faire"\n')
    done = run("report", str(record), "--format", "html,markdown", "--lang", str(own))
    assert done.exit_code == 0, done.output
    for name in ("report.html", "report.md"):
        page = (record / name).read_text("utf-8")
        assert "À faire" in page and "phrases are in English" in page and "The record was written in en" in page
        assert "a catalogue named when this page was made, and not in its record" in page
    assert 'lang="fr"' in (record / "report.html").read_text("utf-8")


def test_the_recorded_catalogue_of_the_signer_is_still_told_apart() -> None:
    signed = told().model_copy(update={"about": About(language="fr", words={"page.next": "À faire"})})
    assert "a catalogue of the signer's own, fr (" in first_page(signed).own_words
    assert first_page(signed).retold == ""
    later = first_page(signed, Catalogue.for_language("en"))
    assert later.own_words == "" and "The record was written in fr, and is told here in en" in later.retold


@pytest.mark.parametrize(
    ("language", "said"),
    [("dee", "'de'"), ("there/is/none.toml", "there is no such file")],
)
def test_a_language_that_is_not_known_is_refused_before_anything_is_written(
    record: Path, language: str, said: str
) -> None:
    done = run("report", str(record), "--format", "html", "--lang", language)
    assert done.exit_code != 0
    with pytest.raises(UsageError, match=said):
        catalogue_of(language, ["html"])
    assert not (record / "report.html").exists()


def test_words_for_formats_without_any_are_refused() -> None:
    with pytest.raises(UsageError, match="html, markdown, pdf"):
        catalogue_of("de", ["json", "csv"])
    assert catalogue_of(None, ["json"]) is None


@pytest.mark.parametrize(
    ("language", "words"), [("en", "and one more, with less weight"), ("de", "und ein weiterer, mit weniger Gewicht")]
)
def test_one_reason_that_is_left_out_is_told_as_one(language: str, words: str) -> None:
    """``auditor explain`` ended in a KeyError where a phrase has no form for one."""
    assert Catalogue.for_language(language).count_text("explain.left_out", 1) == words
    assert Catalogue.for_language(language).count_text("explain.mark", 1) == shipped(language)["explain.mark"]


@pytest.mark.parametrize("name", [n for n in HOSTILE if n.isprintable()][:3])
def test_a_hostile_phrase_stays_inert(name: str) -> None:
    say = Catalogue.for_language(f"{name}.toml", {"page.next": name.replace("{", "{{").replace("}", "}}")})
    page = render_html(told(), say)
    assert "<script>alert" not in page and "<img" not in page
    assert f'lang="{name}' not in page
    assert "<script" not in render_markdown(told(), say).replace("\\<", "")
