"""What an installation costs a scan of a table, and whether the container image takes what there is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from tests import ROOT

HEAVY = ("transformers", "captum", "opacus", "shap", "numba", "fairlearn", "skops", "torch._dynamo", "torch._inductor")
SCAN = f"""
import sys
import numpy as np
import auditor

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 2))
data = auditor.AuditData.from_arrays(X, X[:, 0] > 0, classes=[False, True], sensitive_features={{"g": X[:, 1] > 0}})
model = auditor.AuditedModel.from_callable(lambda X: (X[:, 0] > 0).astype(float), classes=[False, True])
report = auditor.scan(model, data, probes=["group_fairness", "robustness", "out_of_distribution"])
assert {{f.probe for f in report.findings}} >= {{"performance", "group_fairness", "robustness", "out_of_distribution"}}
print([name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.slow(quick=True)
def test_a_scan_of_a_table_imports_nothing_heavy_that_no_probe_asks_for() -> None:
    done = subprocess.run([sys.executable, "-c", SCAN], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def dockerfile() -> list[list[str]]:
    """The steps of the image, each as its words; comments left out."""
    text = (ROOT / "examples" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_is_pinned_and_runs_as_nobody_in_particular() -> None:
    steps = dockerfile()
    (base,) = [step[1] for step in steps if step[0] == "FROM"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)
    (user,) = [step[1] for step in steps if step[0] == "USER"]
    assert user not in ("root", "0") and [step[-1] for step in steps if step[:2] == ["RUN", "useradd"]] == [user]
    order = [step[0] for step in steps]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name in ("RUN", "COPY"))
    assert ["ENTRYPOINT", '["auditor"]'] in steps
    # The folder of the rows is its owner's, and so is the report in it.
    assert '--user "$(id -u):$(id -g)"' in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert ["ENV", "HOME=/tmp"] in steps


def test_the_image_takes_the_packages_that_the_distribution_has_and_extras_that_exist() -> None:
    steps, project = dockerfile(), tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {path for step in steps if step[0] == "COPY" for path in step[1:-1]}
    packages = {name for name in project["tool"]["setuptools"]["packages"]["find"]["include"] if "*" not in name}
    assert copied == packages | {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert [path for path in copied if not (ROOT / path).exists()] == []
    allowed = (ROOT / "examples" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in allowed if line.startswith("!")} == copied
    (extras,) = [step[1] for step in steps if step[:1] == ["ARG"] and step[1].startswith("EXTRAS=")]
    known = project["project"]["optional-dependencies"]
    named = re.findall(r"[\w-]+", extras.removeprefix("EXTRAS="))
    assert named and [name for name in named if name not in known] == []
    assert "auditor" in project["project"]["scripts"]
