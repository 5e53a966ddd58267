"""No command writes over what it reads, nor without ``--force`` over what it did not write: each, at each place.

A new command or a new path of an old one is found here: it must say whether it is read or written, and be in the table.
"""

from __future__ import annotations

import ast
import inspect
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from auditor.models.saved_models import save
from cli.commands import FUNCTIONS, app
from cli.flags import written_by
from tests import ROOT
from tests.contract.import_graph import modules
from tests.mitigations.planted_rows import biased_rows, trained
from tests.report.samples import sample_report

COMMANDS = FUNCTIONS
WRITTEN_TO = {(name, mark) for name, function in COMMANDS.items() for mark in written_by(function)}
# Paths that are read: whoever adds one looks at whether it is.
READ = {
    "compare": {"before", "after", "sign"},
    "report publish": {"run"},
    "detect": {"files", "known_fake", "known_real", "sign", "trust_anchors"},
    "detect calibrate": {"data", "known_fake", "known_real"},
    "detect compare": {"data"},
    "detect train": {"folder"},
    "policy dossier": {"attestations", "run", "sign", "tradeoff"},
    "dp audit": {"sign"},
    "dp lint": {"run"},
    "probes endpoint": {"reference"},
    "gate": {"accepted", "baseline", "reports"},
    "history": {"key"},
    "mitigate": {"sign"},
    "policy": {"check", "crosswalk"},
    "evidence register": {"config", "sign"},
    "report": {"run", "pdf_certificate"},
    "evidence reproduce": {"bundle"},
    "history sign-off": {"sign"},
    "tradeoff": {"sign"},
    "train": {"schema"},
    "evidence verify": {"bundle", "dossier", "key", "report", "tsa_root"},
}
ROWS = ("--train", "d.csv", "--data", "t.csv", "--target", "y", "--positive", "1", "--sensitive", "group")


@dataclass(frozen=True)
class Case:
    """A call that writes to ``place``: by which parameter, and whether ``--force`` would help."""

    parameter: str
    words: tuple[str, ...]
    place: str
    forced: bool = True

    @property
    def command(self) -> str:
        two = " ".join(self.words[:2])
        return two if two in COMMANDS else self.words[0]

    def __str__(self) -> str:
        return f"{self.command}-{self.parameter}-{self.place.replace('/', '-')}"


MITIGATE = ("mitigate", "reweighing", "model.pt", *ROWS)
EXPORT = ("export", "model.pt", "--to", "sklearn", "--out", "m.skops", "--positive", "1")
EXPLAIN = ("explain", "model.pt", "--data", "t.csv", "--positive", "1", "--row", "1")
SWEEP = ("tradeoff", "correlation-remover", "model.pt", *ROWS, "--sweep", "alpha=0,1", "--out", "sweep")
DP_AUDIT = ("dp", "audit", "mine:train", "--claimed-epsilon", "1", "--delta", "1e-5")
CASES = [
    Case("out", ("train", "d.csv", "--target", "y", "--out", "new.pt"), "new.pt"),
    Case("out", ("train", "d.csv", "--target", "y", "--out", "new.pt"), "new.train.csv"),
    Case("out", ("train", "d.csv", "--target", "y", "--out", "new.pt"), "new.test.csv"),
    Case("out", ("train", "d.csv", "--target", "y", "--out", "new.pt"), "new.energy.json"),
    Case("train_out", ("train", "d.csv", "--target", "y", "--out", "new.pt", "--train-out", "a.parquet"), "a.parquet"),
    Case("test_out", ("train", "d.csv", "--target", "y", "--out", "new.pt", "--test-out", "b.tsv"), "b.tsv"),
    Case("out", (*MITIGATE, "--out", "new.pt"), "new.pt"),
    Case("out", (*MITIGATE, "--out", "new.pt"), "new.energy.json"),
    Case("report", (*MITIGATE, "--out", "new.pt", "--report", "r"), "r/before/report.html"),
    Case("report", (*MITIGATE, "--out", "new.pt", "--report", "r"), "r/after/report.json"),
    Case("report", (*MITIGATE, "--out", "new.pt"), "audit-report/comparison.md"),
    Case("out", EXPORT, "m.skops"),
    Case("out", EXPORT, "m.skops.export.json"),
    Case("out", SWEEP, "sweep/tradeoff.html"),
    Case("out", SWEEP, "sweep/figures/front.svg"),
    Case("out", SWEEP, "sweep/alpha=1/model.pt"),
    Case("out", SWEEP, "sweep/unmitigated/report.json"),
    Case("bundle", (*MITIGATE, "--out", "new.pt", "--bundle", "m.zip"), "m.zip"),
    Case("report", (*MITIGATE, "--out", "new.pt", "--report", "r", "--bundle", "m.zip"), "r/after/audit.zip"),
    Case("bundle", (*SWEEP, "--bundle", "t.zip"), "t.zip"),
    Case("out", (*SWEEP, "--bundle", "t.zip"), "sweep/alpha=1/audit.zip"),
    Case("bundle", ("compare", "run", "run", "--bundle", "c.zip"), "c.zip"),
    Case("bundle", ("detect", "d.csv", "--bundle", "d.zip"), "d.zip"),
    Case("bundle", (*DP_AUDIT, "--bundle", "d.zip", "--sign", "d.csv"), "d.zip"),
    Case("out", (*EXPLAIN, "--out", "o"), "o/explanation.html"),
    Case("out", (*EXPLAIN, "--out", "o"), "o/explanation.json"),
    Case("out", ("scan", "model.pt", "--out", "o"), "o/report.json"),
    Case("out", ("scan", "model.pt"), "audit-report/report.html"),
    Case("out", ("scan", "model.pt", "--format", "json", "--out", "."), "report.csv"),
    Case("bundle", ("scan", "model.pt", "--bundle", "audit.zip"), "audit.zip"),
    Case("out", ("scan-data", "d.csv", "--out", "o"), "o/report.json"),
    Case("bundle", ("scan-data", "d.csv", "--bundle", "audit.zip"), "audit.zip"),
    Case("out", ("report", "run", "--out", "o", "--format", "markdown"), "o/report.md"),
    Case("out", ("report", "run"), "run/report.html"),
    Case("figures", ("report", "run", "--figures", "f"), "f/02-group-fairness-rates-sex.svg"),
    Case("out", ("compare", "run", "run", "--out", "o"), "o/comparison.html"),
    Case("out", ("policy", "dossier", "run", "--policy", "eu-ai-act-2024-1689", "--out", "d.md"), "d.md"),
    Case("out", ("policy", "dossier", "run", "--policy", "gdpr", "--format", "markdown,html"), "dossier.html"),
    Case("out", ("policy", "dossier", "run", "--policy", "gdpr", "--out", "d.md"), "d.manifest.json"),
    Case("out", ("start", "d.csv", "--out", "a.toml"), "a.toml"),
    Case("out", ("start", "d.csv"), "audit.toml"),
    Case("out", ("evidence", "register", "given.toml"), "registration.json", forced=False),
    Case("out", ("evidence", "keygen", "k"), "k", forced=False),
    Case("out", ("evidence", "keygen", "k"), "k.pub", forced=False),
    Case("out", ("history", "--plot", "accuracy", "--out", "t.svg"), "t.svg"),
    Case("out", ("history", "site", "--db", "h.db", "--out", "s"), "s/index.html"),
    Case("plot", ("dp", "budget", "--rows", "9", "--plot", "p.svg"), "p.svg"),
    Case("out", ("detect", "train", "media", "--out", "d.pt"), "d.pt"),
    Case("out", ("detect", "train", "media", "--out", "d.pt"), "d.energy.json"),
    Case("out", ("detect", "calibrate", "model.pt", "--known-real", "media", "--out", "c.pt"), "c.pt"),
    Case("to", ("probes", "examples", "copy"), "examples/mortgages.py", forced=False),
    Case("to", ("probes", "examples", "copy", "tabular_loop", "--to", "mine"), "mine/tabular_loop.py", forced=False),
    Case("name", ("probes", "new", "calm_share"), "calm_share/pyproject.toml", forced=False),
    Case("name", ("mitigate", "new", "same_share"), "same_share/pyproject.toml", forced=False),
]
# Where an earlier file is gone on with.
APART = {("mitigate", "checkpoint")}
NEVER_FORCED = {"evidence keygen", "evidence register", "probes new", "mitigate new", "probes examples"}
READS_NOTHING = {"probes new", "mitigate new", "evidence keygen", "dp budget", "probes examples"}
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    for name, seed in (("d.csv", 0), ("t.csv", 1)):
        rows = biased_rows(60, seed)
        assert rows.y_true is not None
        rows.X.assign(y=rows.y_true).to_csv(folder / name, index=False)
    save(trained(biased_rows(60, 0), epochs=1), folder / "model.pt")
    (folder / "run").mkdir()
    (folder / "run" / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
    (folder / "media").mkdir()
    (folder / "given.toml").write_text("[audit]\nmodel = 'model.pt'\ndata = 'd.csv'\ntarget = 'y'\n")
    return folder


@pytest.fixture
def here(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUDITOR_DB", raising=False)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_path_of_a_command_says_whether_it_is_read_or_written() -> None:
    read, suspects = {}, []
    for name, function in COMMANDS.items():
        written = written_by(function)
        own = {}
        for parameter in inspect.signature(function).parameters.values():
            kind, *marks = get_args(parameter.annotation)
            said = next(m.help or "" for m in marks if hasattr(m, "help"))
            if parameter.name in written or parameter.name in ("db", "force"):
                continue
            if float in get_args(kind):
                continue  # a number is no path, whatever its flag is called
            if kind is Path or Path in get_args(kind) or list[Path] in get_args(kind):
                own[parameter.name] = said
            if "folder for" in said.lower() or "write" in said.lower().split() or parameter.name.endswith("out"):
                suspects.append(f"{name} --{parameter.name}: {said}")
        if own:
            read[name] = set(own)
    assert read == READ
    # What formats are written is no path.
    assert [each for each in suspects if "--format" not in each] == []


def test_every_place_that_is_written_to_is_in_the_table() -> None:
    assert len(WRITTEN_TO) > 15
    assert {(case.command, case.parameter) for case in CASES} | APART == WRITTEN_TO


def test_force_is_offered_where_it_would_help_and_nowhere_else() -> None:
    offering = {name for name, function in COMMANDS.items() if "force" in inspect.signature(function).parameters}
    assert offering == {name for name, _ in WRITTEN_TO} - NEVER_FORCED


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_users_own_file_is_refused_in_a_sentence_and_stays(case: Case, here: Path) -> None:
    place = here / case.place
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine\n")
    before = contents(here)
    result = RUNNER.invoke(app, list(case.words))
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1 and result.output.startswith("auditor: "), result.output
    assert "is there already" in result.output
    if case.command not in ("probes new", "mitigate new"):
        assert place.name in result.output
    assert ("--force" in result.output) == case.forced
    assert contents(here) == before


@pytest.mark.parametrize("case", [c for c in CASES if c.command not in READS_NOTHING], ids=str)
def test_an_input_is_refused_even_with_force(case: Case, here: Path) -> None:
    """The place is, by a hard link, a file that the command reads: its model, its rows, its record or its settings."""
    known = {"history": "h.db", "history site": "h.db", "detect train": "kinds.csv"}
    mine = next((w for w in case.words[1:] if (here / w).is_file()), known.get(case.command, "run/report.json"))
    words = list(case.words)
    if case.command in ("history", "history site"):
        (here / mine).write_bytes(b"no database")
        words += ["--db", mine]
    if case.command == "detect train":
        (here / mine).write_text("file,kind\n")
        words += ["--kinds", mine, "--kind-column", "kind"]
    place = here / case.place
    place.parent.mkdir(parents=True, exist_ok=True)
    os.link(here / mine, place)
    before = contents(here)
    result = RUNNER.invoke(app, [*words, *(["--force"] if case.forced else [])])
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert "which this command reads" in result.output and contents(here) == before


def test_a_checkpoint_is_no_input_and_no_other_output(here: Path) -> None:
    before = contents(here)
    for words, said in (
        (("--checkpoint", "d.csv"), "which this command reads"),
        (("--checkpoint", "new.pt"), "--out and --checkpoint are the same file"),
    ):
        result = RUNNER.invoke(app, [*MITIGATE, "--out", "new.pt", *words, "--force"])
        assert result.exit_code == 2 and said in result.output, result.output
    assert contents(here) == before


# ---- all writing goes through one module -----------------------------------------------------------------------------

WRITING = {
    "write_text", "write_bytes", "unlink", "savefig", "to_csv", "to_parquet", "copyfile", "copytree",
    "rmtree", "move", "save_pretrained", "save_file", "hardlink_to", "touch",
}  # fmt: skip
# Each by its reason: the module itself; folders of the run's own making; a new file and never an old one (a key, a new
# probe); a folder that was checked to be empty or new; and bytes in memory.
MAY_WRITE = {
    "auditor.core.files": "the module that writes",
    "auditor.core.writable_paths": "the module that writes",
    "auditor.data.audio": "bytes in memory",
    "auditor.evidence.portfolio.site_folder": "its own scratch folder, renamed to a place that it has checked",
    "auditor.evidence.container": "entries of an archive, into a file that that module has opened",
    "auditor.loading.boosted_libraries": "its own scratch folder, which ends with the block",
    "auditor.loading.model_bundle": "its own scratch folder, which ends with the block",
    "auditor.loading.rows.sql": "bytes in memory",
    "auditor.report.document_files": "its own scratch folder",
    "auditor.report.drawing.svg": "bytes in memory",
    "auditor.loading.rows.score_columns": "text in memory",
    "auditor.loading.rows.caller_rows": "a scratch folder of its caller",
    "auditor.loading.sandbox.measuring_process": "scratch folders that no process holds, by their name",
    "auditor.training.task_executor": "takes back results of its own that nobody needs, or that were cut off",
    "auditor.training.task_distribution": "takes what was answered out of its own scratch folder",
    "auditor.training.training_rows": "text in memory",
    "auditor.models.saved_models": "a folder that was new",
    "auditor.training.huggingface_folder": "a folder that was empty",
    "cli.dp_guarantee": "bytes in memory",
    "cli.starter_files": "takes back what it has just written into a folder that was not there",
    "cli.sweep_folder": "its own scratch folders, by their name",
}


def _writers() -> Iterator[tuple[str, str]]:
    for name, file in modules(ROOT).items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = [a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            opens = called == "open" and any(mode in ("w", "wb", "a", "ab", "x", "xb", "r+", "r+b") for mode in modes)
            if called in WRITING or opens:
                yield name, f"{called} in line {node.lineno}"


def test_all_writing_goes_through_one_module() -> None:
    found = dict(_writers())
    assert {name: how for name, how in found.items() if name not in MAY_WRITE} == {}
    assert set(MAY_WRITE) - set(found) == set()
