"""Folders named cli, probes and mitigations of the user do no harm to the command, its child, or the public API."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.data.preprocessing import fit_tabular
from auditor.loading.import_finders import taken_name
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from tests import ROOT

THEIRS = "raise RuntimeError('the folder of the user was imported')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of the user's with all three names, a model and rows."""
    for name in ("cli", "probes", "mitigations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(THEIRS)
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"a": rng.normal(size=80), "b": rng.normal(size=80), "sex": ["f", "m"] * 40, "y": [0, 1] * 40})
    rows.to_csv(tmp_path / "data.csv", index=False)
    args = {"n_features": 2, "n_outputs": 2, "hidden": [2]}
    model = TorchModel(
        MLP(**args),
        classes=[0, 1],
        preprocessing=fit_tabular(rows[["a", "b"]]),
        architecture={"name": "mlp", "args": args},
    )
    save(model, tmp_path / "model.pt")
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as its console script starts it."""
    return python(folder, "-c", "import sys; from auditor.__main__ import main; sys.exit(main())", *arguments)


SCAN = ("scan", "model.pt", "--data", "data.csv", "--target", "y", "--positive", "1", "--sensitive", "sex")


def test_the_command_and_its_child_have_their_own_packages(folder: Path) -> None:
    for command, code in ((("--help",), 0), (("probes",), 0), (("mitigate", "list"), 0), (("start", "data.csv"), 0)):
        done = started(folder, *command)
        assert done.returncode == code, done.stderr
    (folder / "audit.toml").unlink()
    done = started(folder, *SCAN, "--probes", "group_fairness")
    assert done.returncode in (1, 3), done.stderr
    assert "NOT_RUN 0" in done.stdout and re.search(r"NOT_JUDGED [1-9]", done.stdout)


def test_settings_of_the_folder_are_no_settings_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 77\n\x1b[2Jno.such.key: 1\n")
    code = (
        "import sys; sys.argv[1:] = ['--help']\nfrom auditor.__main__ import main\ntry:\n    main()\n"
        "except SystemExit:\n    import matplotlib\n    print(matplotlib.rcParams['lines.linewidth'])"
    )
    done = python(tmp_path, "-c", code)
    assert done.stdout.endswith("1.5\n") and done.stderr == ""


def test_a_probe_of_the_users_own_beside_them_is_asked(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from auditor.judging.measurement import Measurement\n"
        "from auditor.statistics.rates import Proportion\n\n\n"
        "class Mine:\n"
        "    name, pillar, goal, citation, methods, needs = 'mine', 'fairness', 'g', 'c', ('m',), ()\n\n"
        "    def measure(self, model, data, rng):\n"
        "        return [Measurement(metric='share', estimate=Proportion(successes=3, n=9), n_samples=9)]\n"
    )
    done = started(folder, *SCAN, "--probes", "group_fairness", "--probe", "mine:Mine", "--json")
    assert '"metric": "share"' in done.stdout, done.stdout + done.stderr


def test_a_module_under_a_name_of_ours_is_said_to_be(folder: Path) -> None:
    (folder / "probes" / "mine.py").write_text("class Mine: ...\n")
    done = started(folder, *SCAN, "--probe", "probes.mine:Mine")
    assert done.returncode == 2 and "put yours under another name" in done.stderr
    (folder / "cli" / "score.py").write_text("def f(X): ...\n")
    done = started(folder, "scan", "--predict", "cli.score:f", "--data", "data.csv")
    assert done.returncode == 2 and "put yours under another name" in done.stderr
    assert taken_name("mine.probes") == "" and "'cli'" in taken_name("cli.x")


def test_the_public_api_gives_our_tables_whatever_lies_beside_the_script(folder: Path) -> None:
    code = """
import sys
before = list(sys.path), list(sys.meta_path)
import auditor
assert "group_fairness" in auditor.PROBES and "reweighing" in auditor.MITIGATIONS
assert (list(sys.path), list(sys.meta_path)) == before
"""
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["probes", "mitigations"])
def test_a_foreign_package_that_is_there_first_is_named_in_a_sentence(folder: Path, name: str) -> None:
    (folder / name / "__init__.py").write_text("MINE = 1\n")
    code = f"""
import {name}, auditor
assert {name}.MINE == 1
try:
    auditor.{name.upper()}
except auditor.AuditorError as error:
    print(error)
"""
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Another package {name!r} is imported already, from ")
    assert str(folder / name) in done.stdout and "rename yours" in done.stdout
    done = python(folder, "-c", f"import {name}\nfrom auditor.__main__ import main\nmain()", "probes")
    assert done.returncode == 2 and "is imported already" in done.stderr and "Traceback" not in done.stderr
