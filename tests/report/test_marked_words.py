"""Every word of the page that nobody recorded comes from the catalogue: told in marked phrases, all of it is marked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

from auditor.report import html
from auditor.report.html import render_html
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.translations import ENGLISH, Catalogue, shipped, words_of
from auditor.report.report_view import titled
from tests.report.samples import obeyed, refused_report, sample_report

_VOID = {"meta", "input", "br", "wbr", "link", "img", "use", "path"}
_UNREAD = {"code", "style", "script", "svg", "bdi", "cite"}
# Where recorded text stands among the page's own words: what was measured and required of what, and by whom.
_RECORDED = {"front-sub", "where", "detail", "masthead-meta", "brand", "worth"}
_READ = ("aria-label", "data-label", "data-said")
# What is the same in every language: outcomes, metrics, the names of files and of units.
_NAMES = re.compile(
    r"\b([a-z]+(?:_[a-z0-9]+)+|PASS|FAIL|INCONCLUSIVE|NOT RUN|NOT APPLICABLE|NOT JUDGED"
    r"|SHA|auditor|Python|report|json|MB|kB|UTC)\b"
)


class _Reader(HTMLParser):
    """The words of a page outside of recorded parts, with the class of what they stand in."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []
        self.read: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        classes = set((known.get("class") or "").split())
        skip = tag in _UNREAD or known.get("lang") == ENGLISH or bool(classes & _RECORDED)
        unread = skip or (bool(self.open) and self.open[-1][1])
        if not unread:
            self.read += [known[name] or "" for name in _READ if name in known]
        if tag not in _VOID:
            self.open.append((tag, unread))

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            while self.open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.open and not self.open[-1][1]:
            self.read.append(data)


def _unmarked(text: str) -> str:
    """A text without its marked phrases, and without what is the same in every language."""
    while (bare := re.sub("«[^«»]*»", "", text)) != text:
        text = bare
    return _NAMES.sub("", text)


@pytest.fixture
def marked(tmp_path: Path) -> Catalogue:
    """A catalogue, read from a file, whose every phrase stands in marks."""
    sections: dict[str, list[str]] = {}
    for key, phrase in shipped(ENGLISH).items():
        section, _, name = key.partition(".")
        told = phrase if section == "number" else f"«{phrase}»"
        # A string of JSON is one of TOML.
        sections.setdefault(section, []).append(f"{name} = {json.dumps(told, ensure_ascii=False)}\n")
    path = tmp_path / "xx.toml"
    path.write_text("".join(f"[{name}]\n{''.join(lines)}" for name, lines in sections.items()), "utf-8")
    return Catalogue.for_language(str(path), words_of(str(path)))


def _left(page: str) -> Iterator[str]:
    reader = _Reader()
    # A flag within a sentence is one of its words.
    page = re.sub('<code class="flag">(.*?)</code>', r"\1", page)
    reader.feed(page[page.index("<body") : page.rindex("</html>")])
    for text in reader.read:
        bare = _unmarked(text)
        if re.search("[A-Za-z]{2}", bare):
            yield " ".join(text.split())[:160]


# What stands as it was recorded among the page's own words, in the sample that is read here.
EXCEPTIONS = {
    # Names that the data, a criterion or a probe have, in filters and in traces.
    *("afam", "unemployment"),
    *("sex: female", "sex: male", "race: Asian", "race: Black", "race: Hispanic", "race: White"),
    *("region: north", "region: south", "sex", "race", "region"),
    *("calibration", "intake", "robustness"),
    # The reason of what did not run, where the first page has room for its beginning.
    "The child process ran out of its 120 s while attacking with PGD; give it more with --max-…",
    # How and where it ran.
    *("auditor-model/1", "memory 4 GiB, time 120 s a probe"),
    "torch 2.10.0, captum 0.8.0, scikit-learn 1.7.2, numpy 2.3.1",
}


def _sample() -> AuditReport:
    """The sample with a figure of each kind, and with the files that decided it."""
    report = sample_report()
    figures = tuple({f.kind: f for f in report.figures}.values())
    return report.model_copy(update={"figures": figures, "configuration": obeyed()})


@pytest.mark.parametrize("made", [_sample, refused_report])
def test_every_word_of_the_page_is_the_catalogue_s_or_recorded(
    made: Callable[[], AuditReport], marked: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "figure_svg", lambda drawn, say: Markup(""))
    page = render_html(made(), marked)
    left = sorted(set(_left(page)) - EXCEPTIONS)
    assert not left, left
    # The reader above does read: what is marked is most of it.
    assert page.count("«") > 300 * (made is _sample) + 100


def test_what_is_not_marked_is_seen() -> None:
    page = '<body><p>plain <i>«told «within» of»</i></p><p lang="en">recorded</p><b data-label="n of it">n</b></html>'
    assert list(_left(page)) == ["plain", "n of it"]


def test_a_title_made_of_a_phrase_and_a_name_is_told_and_any_other_stays() -> None:
    german = Catalogue.for_language("de")
    assert titled("Rates by sex × race", german) == "Raten nach sex × race"
    assert titled("Rates by {0.__class__}", german) == "Raten nach {0.__class__}"
    assert titled("All ratios between groups", german) == "Alle Verhältnisse zwischen Gruppen"
    assert titled("All ratios between groups and more", german) == "All ratios between groups and more"
    assert titled("Rates by sex", Catalogue.for_language(ENGLISH)) == "Rates by sex"
