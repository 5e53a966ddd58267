"""What a refusal advises is done as it says, and ends in a model that answers."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import auditor
from auditor.core.errors import ModelError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel

ROWS = pd.DataFrame({"a": np.linspace(0.1, 2, 30), "b": np.linspace(1, 0, 30)})
LABELS = (np.arange(30) > 12).astype(int)


def refusal(path: Path, **flags: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(path=str(path), **flags))
    return str(caught.value)


def advised(message: str, pattern: str) -> str:
    found = re.search(pattern, message)
    assert found is not None, message
    return found[1]


class Doubled(TransformerMixin, BaseEstimator):
    """A transformer of the user's own."""

    def fit(self, X: Any, y: Any = None) -> Doubled:
        return self

    def transform(self, X: Any) -> Any:
        return 2 * np.asarray(X)


def test_a_class_of_ones_own_answers_through_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_pipeline(Doubled(), LogisticRegression()).fit(ROWS, LABELS)
    joblib.dump(model, "model.joblib")
    message = refusal(tmp_path / "model.joblib")
    assert "test_ways_out.Doubled" in message and "skops" not in message
    load = advised(message, r"own\.py with (model = joblib\.load\(path\))")
    function = advised(message, r"and (def predict\(rows\): .*?), and name")
    (tmp_path / "own.py").write_text(f"import joblib\npath = {str(tmp_path / 'model.joblib')!r}\n{load}\n{function}\n")
    flag = advised(message, r"--predict (own:predict)")
    loaded = load_model(ModelSpec(predict=flag, classes=("0", "1"), code_folder=str(tmp_path)))
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), model.predict_proba(ROWS))
    sys.modules.pop("own", None)


@pytest.mark.parametrize("by_joblib", [False, True])
def test_a_network_becomes_a_bundle(by_joblib: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = MLP(2, [4], 2).eval()
    if by_joblib:
        joblib.dump(network, "network.pt")
    else:
        torch.save(network, "network.pt")
    message = refusal(tmp_path / "network.pt", classes=("no", "yes"))
    code = advised(message, r": (auditor\.save\(.*?'model\.pt'\)), and name its class with --architecture")
    names = {"auditor": auditor, "TorchModel": TorchModel, "torch": torch, "joblib": joblib, "path": "network.pt"}
    exec(code.replace("[...]", "['no', 'yes']"), names)
    args: Any = {"n_features": 2, "hidden": [4], "n_outputs": 2}
    own = "auditor.models.networks.architectures:MLP"
    found = load_model(ModelSpec(path="model.pt", architecture=own, architecture_args=args, code_folder=str(tmp_path)))
    with torch.no_grad():
        expected = network(torch.tensor(ROWS.to_numpy(), dtype=torch.float32)).softmax(1)
    np.testing.assert_allclose(found.predict_proba(ROWS), expected, atol=1e-6)


def test_a_network_of_torchs_own_layers_becomes_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
    torch.save(network, "network.pt")
    code = advised(refusal(tmp_path / "network.pt"), r": (torch\.save\(.*?'weights\.pt'\))")
    exec(code, {"torch": torch, "path": "network.pt"})
    line = advised(refusal(tmp_path / "weights.pt"), r"add (--architecture .*?'\{.*?\}' --classes a,b)")
    _, name, _, args, _, _ = shlex.split(line)
    found = load_model(
        ModelSpec(path="weights.pt", architecture=name, architecture_args=json.loads(args), classes=("no", "yes"))
    )
    with torch.no_grad():
        expected = network(torch.tensor(ROWS.to_numpy(), dtype=torch.float32)).softmax(1)
    np.testing.assert_allclose(found.predict_proba(ROWS), expected, atol=1e-6)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", ""])
def test_the_weights_of_a_checkpoint_are_saved_alone(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = MLP(2, [4], 2).state_dict()
    content = {"hyper": argparse.Namespace(lr=0.1)} | ({key: weights} if key else dict(weights))
    torch.save(content, "last.ckpt")
    message = refusal(tmp_path / "last.ckpt", classes=("no", "yes"))
    assert "argparse.Namespace" in message
    code = advised(message, r": (torch\.save\(.*?'weights\.pt'\)); or")
    exec(code, {"torch": torch, "path": "last.ckpt"})
    args: Any = {"n_features": 2, "hidden": [4], "n_outputs": 2}
    flags: Any = {"classes": ("no", "yes"), "architecture": "mlp", "architecture_args": args}
    assert load_model(ModelSpec(path="weights.pt", **flags)).predict_proba(ROWS).shape == (30, 2)


def test_a_model_beside_other_things_is_saved_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = LogisticRegression().fit(ROWS, LABELS)
    joblib.dump({"scaler": StandardScaler().fit(ROWS), "clf": model}, "both.joblib")
    code = advised(refusal(tmp_path / "both.joblib"), r"(joblib\.dump\(.*?'model\.joblib'\))")
    exec(code, {"joblib": joblib, "path": "both.joblib"})
    np.testing.assert_array_equal(
        load_model(ModelSpec(path="model.joblib")).predict_proba(ROWS), model.predict_proba(ROWS)
    )
