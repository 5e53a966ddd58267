"""The report in a real browser: nothing blocked, nothing broken, sortable, and no wider than a telephone."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from auditor.judging.measurement import ProbeResult
from auditor.judging.policy import load_policies
from auditor.report.comparing.compare_audits import compare
from auditor.report.comparing.comparison_report import render_comparison_html
from auditor.report.comparing.tradeoff_report import render_tradeoff_html
from auditor.report.html import render_html
from auditor.report.reasons_page import Explanation, render_explanation
from auditor.report.record.configuration import About
from auditor.report.record.controls import with_policies
from cli.commands import app
from tests.evidence.ledgers import Template, Told, write_audits
from tests.probes.reasons import test_explain
from tests.quantifiers import all_of
from tests.report import test_compare
from tests.report.samples import demo_report, explanations, fairness, refused_report, report_of, sample_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the PATH")

# The browser reads commands from descriptor 3 and answers on 4; a process of its own puts them there.
_LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 20) for fd in sys.argv[1:3])
os.dup2(read, 3, inheritable=True)
os.dup2(write, 4, inheritable=True)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A headless Chromium on its debugging pipe; ``events`` holds everything it reported."""

    def __init__(self, executable: str, profile: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(to_read), str(to_write), executable, *flags, "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, seconds: float = 240.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise RuntimeError(f"the browser ended with {self._process.poll()}")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, page: Path, *, width: int = 1280, dark: bool = False) -> None:
        """Shows a file at a width, in light or dark, and waits until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.load(page)
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def load(self, page: Path) -> None:
        """Goes to a file and waits until all of it is there."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key on the focused element, as a user presses it."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """The page as a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it prints."""
        shot = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Everything the console says against the page: violations of its policy, errors, exceptions."""
        said: list[str] = []
        for event in self.events:
            params = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    said.append(str(params["exceptionDetails"]))
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    said.append(params["entry"]["text"])
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    said.append(str(params["args"]))
        return said

    def requested(self) -> list[str]:
        """Addresses of everything that was asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests of this file."""
    assert CHROMIUM is not None
    browser = Browser(CHROMIUM, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sample reports as files."""
    folder = tmp_path_factory.mktemp("pages")
    reports = {"sample": sample_report(), "hostile": sample_report(hostile=True), "refused": refused_report()}
    reports["demo"] = demo_report()
    reports["explained"] = report_of([explanations()])
    reports["explained-hostile"] = report_of([explanations(hostile=True)], hostile=True)
    packs, _ = load_policies(["eu-ai-act", "nyc-ll144"])
    reports["policies"] = with_policies(sample_report(), packs, date(2026, 11, 25))
    reports["german"] = report_of([fairness()]).model_copy(update={"about": About(language="de")})
    drawn = {name: render_html(report) for name, report in reports.items()} | _other_pages()
    pages: dict[str, Path] = {}
    for name, html in drawn.items():
        pages[name] = folder / f"{name}.html"
        pages[name].write_text(html, encoding="utf-8")
    return pages


def _other_pages() -> dict[str, str]:
    """A comparison of two audits, a weighing of a mitigation, and why a row was decided as it was."""
    # Which drives the browser itself.
    from tests.report import test_tradeoff

    frame = test_compare.world(np.random.default_rng(6), 400, (0.2, 0.6), (0.4, 0.4))
    rows = test_explain.people(300)
    told = [test_explain.explained(test_explain.linear, rows, row, draws=3) for row in (1, 2)]
    sample = sample_report()
    why = Explanation(
        tool="auditor",
        created=sample.created,
        command="auditor explain",
        seed=0,
        model=sample.model,
        data=sample.data,
        target="granted",
        labels={},
        rows=tuple(told),
        exit_code=0,
    )
    return {
        "comparison": render_comparison_html(compare(*test_compare.audits(frame))),
        "tradeoff": render_tradeoff_html(*test_tradeoff.rendered()),
        "explanation": render_explanation(why),
    }


NAMES = ["sample", "hostile", "refused", "explained", "explained-hostile", "policies"]


# Everything but the rows of the one table, which are alike: some of those.
UNFOLD = """(rows => {
    const some = rows.flatMap(row => [...document.querySelectorAll(row)].slice(0, 5));
    const others = [...document.querySelectorAll("details")].filter(d => !rows.some(row => d.matches(row)));
    [...some, ...others].forEach(d => { d.open = true; });
})(["details.number", ".from details"])"""
# Each page in light and in dark, on a telephone and on a desk; the largest in all three.
CHECKED = [
    *(("sample", width, dark) for width, dark in ((375, False), (1280, True), (1280, False))),
    ("demo", 375, False),
    *(("policies", 1280, True), ("german", 1280, False), ("refused", 1280, True)),
    *((name, 375, False) for name in ("explained", "comparison", "tradeoff", "explanation")),
    *((name, 1280, True) for name in ("explained", "comparison", "tradeoff", "explanation")),
]


def _axe() -> str:
    """The checker's script, from a package of the test group that is not asked for anything else."""
    package = pytest.importorskip(
        "axe_playwright_python", reason="the test group is not installed: axe-playwright-python"
    )
    # The package has no module at its top that says where it lies.
    return (Path(next(iter(package.__path__))) / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_the_browser_has_nothing_to_complain_about(
    browser: Browser, pages: dict[str, Path], name: str, dark: bool
) -> None:
    browser.open(pages[name], dark=dark)
    assert browser.complaints() == []
    # What is in the page itself is not asked of anybody.
    assert [url for url in browser.requested() if not url.startswith("data:image/png")] == [pages[name].as_uri()]
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 21, 24)" if dark else "rgb(250, 249, 246)")


def test_the_watch_for_complaints_would_see_one(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    html = pages["sample"].read_text(encoding="utf-8")
    page.write_text(html.replace("<main", '<img src="x.png"><p style="color: red">x</p><script>1</script><main', 1))
    browser.open(page)
    assert len([c for c in browser.complaints() if "Content Security Policy" in c]) == 3


@pytest.mark.parametrize("width", [320, 375, 768, 1024, 1280])
@pytest.mark.parametrize("name", NAMES)
def test_no_page_scrolls_sideways(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    check_fits(browser, pages[name], width)


@pytest.mark.parametrize("name", ["comparison", "explanation"])
def test_the_other_pages_fit_a_telephone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    check_fits(browser, pages[name], 375)


def test_the_pages_of_a_history_fit_a_telephone(browser: Browser, tmp_path: Path) -> None:
    audits = [Told(model={"id": "credit", "owner": "A long name of an owner"}), Told(path="models/other.pt")]
    path = write_audits(tmp_path / "h.db", Template(sample_report()), audits)
    written = CliRunner().invoke(app, ["history", "site", "--db", str(path), "--out", str(tmp_path / "site")])
    assert written.exit_code == 0, written.output
    found = sorted((tmp_path / "site").rglob("*.html"))
    assert len(found) > 5
    for page in found:
        check_fits(browser, page, 375)


def check_fits(browser: Browser, page: Path, width: int) -> None:
    """Holds a page to a width, with everything in it unfolded."""
    browser.open(page, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.run("document.documentElement.scrollWidth") <= width
    # Nothing may stick out of the page either, where it does not lie in a container that scrolls.
    outside = browser.run(
        """[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1
            && !e.closest(".scroller, svg, .visually-hidden, thead")).map(e => e.outerHTML.slice(0, 90))"""
    )
    assert outside == []


@pytest.mark.parametrize(("name", "width", "dark"), CHECKED)
def test_axe_finds_no_accessibility_problem(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    script = _axe()
    browser.open(pages[name], dark=dark, width=width)
    browser.run(UNFOLD)
    # What the debugger runs no policy of the page blocks.
    browser.run(script + "; 0")
    found = """axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(
        v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html.slice(0, 120))]))"""
    assert browser.run(found) == []


def test_axe_would_find_one(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    script = _axe()
    page = tmp_path / "page.html"
    html = pages["refused"].read_text(encoding="utf-8")
    page.write_text(html.replace("</main>", '<p><button></button></p><img alt="" role="img"></main>', 1))
    browser.open(page)
    browser.run(script + "; 0")
    assert "button-name" in browser.run("axe.run(document).then(r => r.violations.map(v => v.id))")


@pytest.mark.parametrize("width", [375, 1280])
def test_no_column_is_too_narrow_to_read(browser: Browser, pages: dict[str, Path], width: int) -> None:
    browser.open(pages["policies"], width=width)
    narrow = browser.run(
        """[...document.querySelectorAll(".controls tbody td")].filter(td => td.textContent.trim().length > 12
            && getComputedStyle(td).display !== "none" && td.getBoundingClientRect().width < 90
            ).map(td => td.textContent.slice(0, 60))"""
    )
    assert narrow == []
    tallest = browser.run(
        "Math.max(...[...document.querySelectorAll('.controls tbody tr')].map(r => r.getBoundingClientRect().height))"
    )
    assert tallest < 900


def test_figures_are_drawn_in_the_colours_of_the_page(browser: Browser, pages: dict[str, Path]) -> None:
    seen = set()
    for dark in (False, True):
        browser.open(pages["sample"], dark=dark)
        seen.add(browser.run("getComputedStyle(document.querySelector('.figure-svg text.f-ink')).fill"))
        size = browser.run("document.querySelector('.figure-svg').getBoundingClientRect().toJSON()")
        assert size["width"] > 300 and size["height"] > 100
    assert seen == {"rgb(28, 33, 39)", "rgb(231, 233, 235)"}


def test_words_are_coloured_and_underlined_in_light_and_dark(browser: Browser, pages: dict[str, Path]) -> None:
    grounds = set()
    for dark in (False, True):
        browser.open(pages["explained"], dark=dark)
        for name, line in (("p4", "solid"), ("n2", "dotted")):
            look = browser.run(
                f"""(s => [s.backgroundColor, s.textDecorationLine, s.textDecorationStyle])(
                    getComputedStyle(document.querySelector(".words .{name}")))"""
            )
            grounds.add(look[0])
            assert look[1:] == ["underline", line]
    assert len(grounds) == 4


def test_pictures_are_shown_from_the_page_itself(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["explained"])
    images = browser.run("document.querySelectorAll('.figure-svg image').length")
    # Two pictures and two maps, each with its scale.
    assert images == 6
    wide = browser.run("document.querySelector('.figure-svg image').getBoundingClientRect().width")
    assert wide > 100


_COLUMN = """[...document.querySelectorAll('table.every > .entry')].map(e => e.rows[0].cells[2].textContent.trim())"""
_HEADER = "document.querySelectorAll('table.every th')[2]"
_NO_NUMBER = ("undefined", "")


def test_tables_sort_by_mouse_and_by_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"])
    original = browser.run(_COLUMN)
    assert browser.run(f"{_HEADER}.getAttribute('aria-sort')") == "none"

    browser.run(f"{_HEADER}.querySelector('button').click()")
    ascending = browser.run(_COLUMN)
    numbers = [float(v) for v in ascending if v not in _NO_NUMBER]
    assert browser.run(f"{_HEADER}.getAttribute('aria-sort')") == "ascending"
    assert numbers == sorted(numbers) and len(numbers) > 5
    assert ascending[len(numbers) :] == ["undefined"] * 3 + [""] and len(ascending) == len(original)
    folds = "[...document.querySelectorAll('table.every > tbody')].map(b => b.className).lastIndexOf('entry')"
    assert browser.run(folds) == len(ascending) - 1

    browser.run(f"{_HEADER}.querySelector('button').focus()")
    browser.press("Enter", 13)
    descending = browser.run(_COLUMN)
    assert browser.run(f"{_HEADER}.getAttribute('aria-sort')") == "descending"
    assert descending[: len(numbers)] == ascending[: len(numbers)][::-1]
    assert descending[len(numbers) :] == ascending[len(numbers) :]

    browser.press("Enter", 13)
    assert browser.run(_COLUMN) == original
    assert browser.complaints() == []


def test_sorting_another_column_releases_the_first(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"])
    headers = "[...document.querySelector('table.every').tHead.rows[0].cells]"
    for i in (2, 0):
        browser.run(f"{headers}[{i}].querySelector('button').click()")
    assert browser.run(f"{headers}.map(h => h.getAttribute('aria-sort'))") == ["ascending"] + ["none"] * 5


def test_a_link_to_a_folded_number_unfolds_it(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"])
    anchor = browser.run("document.querySelector('.folded .number[id]').id")
    assert browser.run(f"document.getElementById('{anchor}').closest('.folded').open") is False
    browser.run(f"new Promise(done => {{ addEventListener('hashchange', done); location.hash = '{anchor}'; }})")
    assert browser.run(f"document.getElementById('{anchor}').closest('.folded').open") is True
    assert browser.run(f"document.getElementById('{anchor}').open") is True


_SHOWN = """[...document.querySelectorAll('.every > .entry:not([hidden]), .every .number:not([hidden])')]
    .filter(e => !e.closest('[hidden]')).map(e => e.id)"""


def _choose(browser: Browser, name: str, word: str) -> None:
    browser.run(
        f"""(label => {{ const select = label.querySelector('select');
            select.value = [...select.options].find(o => o.textContent === {json.dumps(word)}).value;
            select.dispatchEvent(new Event('input')); }})(
            [...document.querySelectorAll('.filters label')].find(l => l.textContent.trim().startsWith('{name}')))"""
    )


def _search(browser: Browser, words: str) -> None:
    browser.run(
        f"""(box => {{ box.value = {json.dumps(words)}; box.dispatchEvent(new Event('input')); }})(
            document.querySelector('.filters input'))"""
    )


def test_rows_are_chosen_by_outcome_pillar_feature_group_and_words(browser: Browser, pages: dict[str, Path]) -> None:
    findings = [f for f in sample_report().findings if not f.other_kind]
    numbered = {f"finding-{i}": f for i, f in enumerate(sample_report().findings, 1)}
    browser.open(pages["sample"])
    assert len(browser.run(_SHOWN)) == len(findings)

    def chosen() -> list[Any]:
        return [numbered[name] for name in browser.run(_SHOWN)]

    _choose(browser, "Outcome", "NOT JUDGED")
    assert {f.outcome.value for f in chosen()} == {"NOT_JUDGED"}
    assert len(chosen()) == sample_report().summary.not_judged
    _choose(browser, "Feature", "race")
    assert all_of("race" in (*f.group, *f.sensitive) for f in chosen())
    _choose(browser, "Group", "sex: female")
    assert all_of(f.group["sex"] == "female" and "race" in f.group for f in chosen())
    _search(browser, "SELECTION asian")
    (found,) = chosen()
    assert found.metric == "selection_rate" and found.group == {"sex": "female", "race": "Asian"}
    # What is chosen is not left folded, and the rest of its line is gone.
    assert browser.run("[...document.querySelectorAll('.folded')].filter(d => d.open).length") == 1
    assert browser.run("document.querySelector('.filters p').textContent") == f"1 of {len(findings)} shown"
    _search(browser, "no such words")
    assert chosen() == []

    # A link to what is hidden shows everything again, and so does the button.
    browser.run("new Promise(done => { addEventListener('hashchange', done); location.hash = 'finding-1'; })")
    assert len(browser.run(_SHOWN)) == len(findings)
    _choose(browser, "Pillar", "Privacy")
    assert {f.pillar for f in chosen()} == {"privacy"}
    browser.run("document.querySelector('.filters button').click()")
    assert len(browser.run(_SHOWN)) == len(findings)
    assert browser.run("document.querySelectorAll('.folded[open]').length") == 0
    assert browser.complaints() == []


def test_paper_shows_what_was_not_chosen(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["sample"])
    everything = len(browser.run(_SHOWN))
    _search(browser, "selection")
    chosen = len(browser.run(_SHOWN))
    assert 0 < chosen < everything
    browser.run(f"addEventListener('beforeprint', () => {{ window.during = {_SHOWN}.length; }})")
    browser.pdf(tmp_path / "page.pdf")
    assert browser.run("window.during") == everything and len(browser.run(_SHOWN)) == chosen


def test_contents_stay_in_sight(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sample"])
    browser.run("scrollTo(0, document.querySelector('#limits').getBoundingClientRect().top + scrollY - 60)")
    assert browser.run("document.querySelector('nav').getBoundingClientRect().top") == 0
    assert browser.run("document.querySelector('nav').getBoundingClientRect().height") < 60


_BROKEN = """[...document.querySelectorAll('main code:not(.digest)')]
    .filter(c => c.checkVisibility() && !c.textContent.includes(' '))
    .filter(c => c.textContent.split('_').length + 1 <
        new Set([...c.getClientRects()].map(r => Math.round(r.top))).size)
    .map(c => c.textContent)"""


def test_no_name_is_broken_letter_by_letter_on_a_telephone(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    names = ("true_positive_rate_at_no_false_positive", "embedding_association", "attribute_inference", "poisoning")
    lacking = [
        ProbeResult(probe=f"{name}_{i}", pillar="privacy", citation="c", not_applicable="Needs --train FILE.")
        for name in names
        for i in range(4)
    ]
    page = tmp_path / "page.html"
    page.write_text(render_html(report_of(lacking)), encoding="utf-8")
    browser.open(page, width=375)
    assert browser.run("document.documentElement.scrollWidth") == 375
    assert browser.run(_BROKEN) == []
    browser.run("document.querySelector('#absent + ul').style.width = '3rem'")
    assert len(browser.run(_BROKEN)) >= len(lacking)


@pytest.mark.parametrize("name", ["sample", "demo"])
def test_the_first_page_is_two_screens_of_a_telephone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], width=375)
    assert browser.run("document.querySelector('.front').getBoundingClientRect().bottom") <= 2 * 812


def test_no_flag_of_a_next_step_is_broken_after_its_hyphens(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["demo"], width=375)
    found = "document.querySelectorAll('#next ~ ol :is(.flag, .command span)')"
    flags = f"[...{found}].filter(e => /^--/.test(e.innerText))"
    assert "--policy" in browser.run(f"{flags}.map(e => e.innerText)")
    assert browser.run(f"{flags}.filter(e => e.getClientRects().length > 1).map(e => e.innerText)") == []


def test_the_page_is_complete_without_script(browser: Browser, pages: dict[str, Path]) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.load(pages["sample"])
        words = browser.run("document.body.innerText")
        buttons = browser.run("document.querySelectorAll('thead button').length")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert buttons == 0
    for expected in ("Do next", "What could not be said", "Document control", "Not legal advice", "Packages"):
        assert expected.lower() in words.lower()


def test_printing_unfolds_everything_and_numbers_the_pages(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    browser.open(pages["sample"])
    folded = "[...document.querySelectorAll('details:not([open])')].length"
    before = browser.run(folded)
    browser.run("addEventListener('beforeprint', () => { window.during = " + folded + "; })")
    browser.pdf(tmp_path / "page.pdf")
    assert before > 0
    assert browser.run("window.during") == 0
    assert browser.run(folded) == before
    assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") >= 5


def test_a_wide_table_of_methods_is_printed_whole_and_makes_nothing_smaller(
    browser: Browser, pages: dict[str, Path]
) -> None:
    # A browser shrinks all that it prints where one table is wider than the sheet: 180 mm of A4 at 96 dots an inch.
    browser.open(pages["explained"], width=680)
    browser.call("Emulation.setEmulatedMedia", media="print")
    columns = browser.run(
        "(() => { const table = document.querySelector('table.grades');"
        " for (const row of table.rows) { const first = row.querySelector('.num');"
        " first.innerHTML = row.parentElement.tagName === 'THEAD' ? 'parameter_<wbr>randomisation_<wbr>overlap'"
        " : '−0.0173<span class=\"sub\">−0.0682 to 0.0343</span>';"
        " for (const old of [...row.querySelectorAll('.num')].slice(1)) old.remove();"
        " for (let i = 1; i < 8; i++) first.after(first.cloneNode(true)); }"
        " return table.rows[0].cells.length; })()"
    )
    wide = browser.run("Math.ceil(document.querySelector('table.grades').getBoundingClientRect().right)")
    browser.call("Emulation.setEmulatedMedia", media="")
    assert columns == 11 and wide <= 680
