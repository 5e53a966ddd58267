"""A classifier in a Hugging Face folder: mitigated by the command line, and written as a folder that loads again."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from cli.commands import app
from tests.mitigations.test_debiasing_encoders import texts
from tests.mitigations.test_fine_tuned_mitigations import TIMES
from tests.privacy.test_private_fine_tuning import save_small

TABLES = ["--target", "label", "--positive", "yes", "--sensitive", "time", "--text", "text", "--quiet"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_small(tmp_path / "old")
    (tmp_path / "times.toml").write_text(TIMES)
    for name, seed in (("train", 0), ("test", 1)):
        rows = texts(120, seed)
        assert rows.y_true is not None and rows.sensitive_features is not None
        pd.DataFrame(
            {"text": rows.X, "label": np.where(rows.y_true == 1, "yes", "no"), "time": rows.sensitive_features["time"]}
        ).to_csv(tmp_path / f"{name}.csv", index=False)
    return tmp_path


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adversarial-debiasing", ["epochs=2", "learning_rate=1e-3"]),
        ("dp-sgd", ["epochs=2", "epsilon=8", "batch_size=32"]),
        ("dp-sgd", ["epochs=2", "epsilon=8", "batch_size=32", "lora=2"]),
        ("counterfactual-augmentation", ["epochs=2", "learning_rate=1e-3", "lexicon=times.toml", "lora=2"]),
        ("counterfactual-augmentation", ["epochs=2", "learning_rate=1e-3", "lexicon=times.toml", "pairing_weight=1"]),
        ("reweighing", ["epochs=2", "learning_rate=1e-3"]),
        ("balanced-resampling", ["epochs=2", "learning_rate=1e-3", "lora=2"]),
        ("min-diff", ["epochs=2", "learning_rate=1e-3", "weight=1"]),
        ("group-dro", ["epochs=2", "learning_rate=1e-3"]),
    ],
)
def test_the_new_folder_loads_and_answers_otherwise(here: Path, name: str, options: list[str]) -> None:
    if "lora=2" in options and importlib.util.find_spec("peft") is None:
        pytest.skip("needs peft")
    settings = [word for option in options for word in ("--with", option)]
    result = CliRunner().invoke(
        app,
        ["mitigate", name, "old", "--out", "new", "--train", "train.csv", "--data", "test.csv", *TABLES, *settings,
         "--probes", "group_fairness", "--report", "report"],
    )  # fmt: skip
    assert result.exit_code in (0, 1, 3), result.output
    comparison = json.loads((here / "report" / "comparison.json").read_text())
    assert comparison["made_by"][0] == name.replace("-", "_")
    old, new = (load_model(ModelSpec(path=str(here / which))) for which in ("old", "new"))
    rows = texts(50, 2).X
    assert new.classes == old.classes and np.abs(new.predict_proba(rows) - old.predict_proba(rows)).max() > 1e-4
    assert (here / "new" / "dp-run.json").exists() == (name == "dp-sgd")
    assert not [p for p in here.iterdir() if p.name.startswith(".new")]


@pytest.mark.slow
def test_the_groups_may_stand_in_a_file_of_their_own(here: Path) -> None:
    tables = {name: pd.read_csv(here / f"{name}.csv") for name in ("train", "test")}
    for start, (name, table) in zip((0, 1000), tables.items(), strict=True):
        table.insert(0, "id", range(start, start + len(table)))
        table.drop(columns="time").to_csv(here / f"{name}.csv", index=False)
    pd.concat(tables.values())[["id", "time"]].to_csv(here / "groups.csv", index=False)
    result = CliRunner().invoke(
        app,
        ["mitigate", "reweighing", "old", "--out", "new", "--train", "train.csv", "--data", "test.csv", *TABLES,
         "--sensitive-file", "groups.csv", "--join-on", "id", "--with", "epochs=1", "--with", "learning_rate=1e-3",
         "--probes", "group_fairness", "--report", "report"],
    )  # fmt: skip
    assert result.exit_code in (0, 1, 3), result.output
    comparison = json.loads((here / "report" / "comparison.json").read_text())
    assert "Weights of 120 training rows" in comparison["made_by"][1]
    assert (here / "new" / "model.safetensors").exists()


def test_a_folder_is_not_written_as_a_bundle(here: Path) -> None:
    result = CliRunner().invoke(
        app, ["mitigate", "dp-sgd", "old", "--out", "new.pt", "--train", "train.csv", "--data", "test.csv", *TABLES]
    )
    assert result.exit_code == 2 and "must be a folder" in result.output
