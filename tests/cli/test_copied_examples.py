"""The examples are listed, copied with what they need, and never over anything."""

from __future__ import annotations

import ast
from contextlib import chdir
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests import ROOT
from tests.quantifiers import all_of

RUNNER = CliRunner()
SOURCES = ROOT / "cli" / "examples"


def called(folder: Path, *words: str) -> tuple[int, str]:
    with chdir(folder):
        result = RUNNER.invoke(app, ["probes", "examples", *words])
    return result.exit_code, result.output


def test_every_script_is_listed_with_its_first_line(tmp_path: Path) -> None:
    code, said = called(tmp_path)
    listed = dict(line.split("\t") for line in said.splitlines()[1:])
    scripts = {p.stem: ast.get_docstring(ast.parse(p.read_text())) for p in SOURCES.glob("*.py")
               if "__main__" in p.read_text()}  # fmt: skip
    assert code == 0 and len(scripts) >= 5
    assert listed == {stem: (text or "").splitlines()[0] for stem, text in scripts.items()}
    assert list(tmp_path.iterdir()) == []


def test_all_are_copied_as_they_are(tmp_path: Path) -> None:
    code, said = called(tmp_path, "copy")
    copied = {p.name: p.read_bytes() for p in (tmp_path / "examples").glob("*.py")}
    assert code == 0 and copied == {p.name: p.read_bytes() for p in SOURCES.glob("*.py")}
    assert all_of(f"examples/{name}" in said for name in copied)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("tabular_loop", {"__init__.py", "mortgages.py", "tabular_loop.py"}),
        ("text_trainer", {"__init__.py", "text_trainer.py"}),
    ],
)
def test_one_is_copied_with_what_it_imports(tmp_path: Path, name: str, files: set[str]) -> None:
    code, said = called(tmp_path, "copy", name, "--to", "a/b")
    assert code == 0 and f"python -m a.b.{name} OUT" in said
    assert {p.name for p in (tmp_path / "a" / "b").glob("*.py")} == files


def test_what_was_edited_is_not_written_over_and_nothing_else_is_written(tmp_path: Path) -> None:
    called(tmp_path, "copy", "lightning_mlp")
    mine = tmp_path / "examples" / "mortgages.py"
    mine.write_text("# mine\n")
    code, said = called(tmp_path, "copy", "tabular_loop")
    assert code == 2 and "mortgages.py" in said and said.count("\n") == 1
    assert mine.read_text() == "# mine\n" and not (tmp_path / "examples" / "tabular_loop.py").exists()


def test_another_into_the_same_folder_shares_what_is_there(tmp_path: Path) -> None:
    called(tmp_path, "copy", "lightning_mlp")
    code, said = called(tmp_path, "copy", "tabular_loop")
    assert code == 0 and "mortgages" not in said and (tmp_path / "examples" / "tabular_loop.py").exists()


def test_a_name_that_is_none_is_refused_with_the_nearest(tmp_path: Path) -> None:
    code, said = called(tmp_path, "copy", "tabular_lop")
    assert code == 2 and "did you mean 'tabular_loop'" in said
    code, said = called(tmp_path, "copy", "zzz")
    assert code == 2 and "there are accelerate_loop, " in said and list(tmp_path.iterdir()) == []
