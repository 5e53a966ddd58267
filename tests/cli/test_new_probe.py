"""The skeletons of a probe and a mitigation work as they stand: clean, with tests that pass, usable by a command."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auditor.core.errors import UsageError
from auditor.models.saved_models import save
from auditor.report.record.audit_report import AuditReport
from cli.commands import app
from cli.starter_files import class_of, write_skeleton
from tests import ROOT
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of
from tests.toys.interpreters import interpreter

RUNNER = CliRunner()
FILES = ["pyproject.toml", "tests/test_calm_share.py", "calm_share.py"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "calm_share"
    write_skeleton(folder, "calm_share")
    return folder


def run(folder: Path, *arguments: str | Path) -> str:
    done = subprocess.run([*map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 3), done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["probes", "new", "calm-share"])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "calm_share"
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted(FILES)
    assert all_of(f"calm_share/{name}\n" in result.output for name in FILES)
    assert "--probe calm_share:CalmShare\n" in result.output and "--probes calm_share\n" in result.output
    again = RUNNER.invoke(app, ["probes", "new", "calm_share"])
    assert again.exit_code == 2
    assert again.output == "auditor: calm_share is there already: name another, or take it away.\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CalmShare", "'CalmShare' is no name for a probe: write it in snake_case, such as unsure_share."),
        ("1st", "is no name for a probe"),
        ("../calm", "is no name for a probe"),
        ("ruhe_größe", "is no name for a probe"),
        ("__", "is no name for a probe"),
        ("a" * 61, "is no name for a probe"),
        ("lambda", "is a word of Python's own"),
        ("group-fairness", "There is a built-in probe 'group_fairness': name yours otherwise."),
        ("statistics", "There is a module 'statistics' already"),
        ("probes", "There is a module 'probes' already"),
        ("numpy", "There is a module 'numpy' already"),
    ],
)
def test_what_cannot_be_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["probes", "new", name])
    assert result.exit_code == 2 and said in result.output and result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written: Not a directory"):
        write_skeleton(tmp_path / "file" / "calm_share", "calm_share")
    assert class_of("calm_share") == "CalmShare"


@pytest.fixture(scope="module")
def other(made: Path) -> Path:
    folder = made.with_name("same_share")
    write_skeleton(folder, "same_share", "mitigation")
    return folder


@pytest.mark.slow
def test_their_own_tests_pass(made: Path, other: Path) -> None:
    for folder in (made, other):
        assert "2 passed" in run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.slow
@pytest.mark.lint
def test_both_are_clean(made: Path, other: Path) -> None:
    if importlib.util.find_spec("ruff") is None or importlib.util.find_spec("mypy") is None:
        pytest.skip("ruff and mypy are not installed here: the skeletons' style was not looked at")
    for folder in (made, other):
        assert "All checks passed" in run(folder, sys.executable, "-m", "ruff", "check", ".")
        assert "already formatted" in run(folder, sys.executable, "-m", "ruff", "format", "--check", ".")
    # What both import is read once, which is nearly all of it.
    files = [path for folder in (made, other) for path in (folder, *folder.rglob("tests")) if path.is_dir()]
    sources = [path for folder in files for path in sorted(folder.glob("*.py"))]
    typed = (sys.executable, "-m", "mypy", "--strict", "--cache-dir", ROOT / ".mypy_cache", *sources)
    assert "no issues found in 4 source files" in subprocess.run(
        [*map(str, typed)], cwd=made.parent, env={**os.environ, "MYPYPATH": f"{made}:{other}"},
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reweighing", "There is a built-in mitigation"),
        ("list", "There is a built-in mitigation"),
        ("A", "same_share."),
    ],
)
def test_what_cannot_be_a_mitigation_s_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["mitigate", "new", name])
    assert result.exit_code == 2 and said in result.output and list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_installed_mitigation_repairs_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["mitigate", "new", "same-share"])
    assert result.exit_code == 0 and "auditor mitigate same_share MODEL" in result.output, result.output
    for part, seed in (("train", 1), ("test", 2)):
        rows = biased_rows(400, seed)
        rows.X.assign(y=rows.y_true).to_csv(f"{part}.csv", index=False)  # type: ignore[union-attr]
    save(trained(biased_rows(400, 1), epochs=4), Path("model.pt"))
    python, packages = interpreter(tmp_path)
    run(
        tmp_path, sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
        "--disable-pip-version-check", "--target", packages, "./same_share",
    )  # fmt: skip
    run(
        tmp_path, python, "-c", "from cli.commands import app; app()", "mitigate", "same_share", "model.pt", "--train",
        "train.csv", "--data", "test.csv", "--target", "y", "--positive", "1", "--sensitive", "group", "--out",
        "new.pt",
    )  # fmt: skip
    compared = json.loads((tmp_path / "audit-report/comparison.json").read_text())
    assert compared["made_by"][0] == "same_share" and (tmp_path / "new.pt").exists()
    (gap,) = [row for row in compared["rows"] if row["metric"] == "demographic_parity_difference"]
    assert gap["difference"] < 0.0


@pytest.mark.slow
def test_a_scan_asks_it_from_its_folder_and_installed(made: Path, tmp_path: Path) -> None:
    rows = biased_rows(300, 2)
    rows.X.assign(y=rows.y_true).to_csv(tmp_path / "test.csv", index=False)  # type: ignore[union-attr]
    save(trained(biased_rows(300, 1), epochs=2), tmp_path / "model.pt")
    asked = (tmp_path / "model.pt", "--data", tmp_path / "test.csv", "--target", "y", "--positive", "1")
    scan = (
        "-c",
        "from cli.commands import app; app()",
        "scan",
        *asked,
        "--sensitive",
        "group",
        "--out",
        tmp_path / "out",
    )

    def shares() -> dict[str, float | None]:
        report = AuditReport.from_json((tmp_path / "out/report.json").read_bytes())
        return {str(f.group.get("group")): f.value for f in report.findings if f.metric == "unsure_share"}

    run(made, sys.executable, *scan, "--probes", "group_fairness", "--probe", "calm_share:CalmShare")
    from_folder = shares()
    assert set(from_folder) == {"None", "a", "b"}
    python, packages = interpreter(tmp_path)
    run(
        tmp_path, sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
        "--disable-pip-version-check", "--target", packages, made,
    )  # fmt: skip
    listed = json.loads(run(tmp_path, python, "-c", "from cli.commands import app; app()", "probes", "--json"))
    (own,) = [row for row in listed if row["distribution"] != "responsible-auditor"]
    assert (own["name"], own["distribution"], own["version"], own["error"]) == (
        "calm_share", "calm-share", "0.1.0", "",
    )  # fmt: skip
    run(tmp_path, python, *scan, "--probes", "calm-share")
    assert shares() == from_folder
