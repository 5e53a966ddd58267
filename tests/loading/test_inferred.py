"""Bare weights whose shapes say their architecture: what is asked for, what is said, and that the answers are right."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from auditor.core.errors import ModelError, UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data

ROWS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
PICTURES = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)


class Named(nn.Module):
    """Layers with names of their own, as in tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 7)
        self.fc2 = nn.Linear(7, 7)
        self.fc3 = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))  # type: ignore[no-any-return]


def _norms(first: bool) -> nn.Module:
    inner: list[nn.Module] = [nn.BatchNorm1d(7), nn.ReLU()]
    return nn.Sequential(nn.Linear(5, 7), *(inner if first else inner[::-1]), nn.Linear(7, 3))


def _pictures(head: str) -> nn.Module:
    end: list[nn.Module] = [nn.Flatten(), nn.Linear(4 * 4, 3)]
    if head == "mean":
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)]
    blocks = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *end)


NETWORKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "linear": (lambda: nn.Linear(5, 3), {}),
    "sequential": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), {"activation": "relu"}),
    "dropout": (
        lambda: nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Dropout(0.5), nn.Linear(7, 3, bias=False)),
        {"activation": "gelu"},
    ),
    "named": (Named, {"activation": "tanh"}),
    "norm_first": (lambda: _norms(True), {"activation": "relu", "batchnorm": "before"}),
    "norm_last": (lambda: _norms(False), {"activation": "relu", "batchnorm": "after"}),
    "norm_of_the_input": (
        lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)),
        {"activation": "relu", "batchnorm": "before"},
    ),
    **{
        f"pictures_{head}": (
            lambda head=head: _pictures(head),
            {
                **{"activation": "relu", "batchnorm": "before", "padding": 1, "stride": 1, "pool": 2, "head": head},
                **{"size": 8, "mean": 0, "std": 1},
            },
        )
        for head in ("flatten", "mean")
    },
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = NETWORKS[name][0]()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def saved(network: nn.Module, folder: Path, kind: str) -> str:
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_shapes_say_is_built_and_what_they_do_not_is_asked_for(name: str, kind: str, tmp_path: Path) -> None:
    network, args = made(name), NETWORKS[name][1]
    flags: Any = {"path": saved(network, tmp_path, kind), "classes": ("a", "b", "c")}
    if args:
        with pytest.raises(ModelError, match="shapes do not say what lies between") as caught:
            load_model(ModelSpec(**flags))
        line = re.search(r"add (--architecture .*?'\{.*?\}')", str(caught.value))
        assert line is not None, caught.value
        _, architecture, _, said = shlex.split(line[1])
        assert set(json.loads(said)) == set(args)
        flags |= {"architecture": architecture, "architecture_args": args}
        if args == json.loads(said):
            flags["architecture_args"] = json.loads(said)
    model = load_model(ModelSpec(**flags))
    rows = PICTURES if name.startswith("pictures") else ROWS
    with torch.no_grad():
        expected = network(torch.from_numpy(rows)).softmax(1).numpy()
        found = model.module(torch.from_numpy(rows)).softmax(1).numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    note = next(note for note in model.provenance.notes if note.startswith("The network was inferred"))
    assert ("nothing in the file confirms it" in note) == bool(args)


def test_the_commonest_answer_is_never_taken_without_being_said(tmp_path: Path) -> None:
    path = saved(made("norm_first"), tmp_path, "pt")
    for args, says in (
        ({}, "do not say their activation, batchnorm"),
        ({"activation": "relu"}, "do not say their batchnorm"),
        ({"activation": "rel", "batchnorm": "before"}, "activation must be relu, leaky_relu"),
        ({"activation": "relu", "batchnorm": "before", "padding": 1}, "leave no room for"),
    ):
        with pytest.raises(UsageError, match=says):
            load_model(ModelSpec(path=path, classes=("a", "b", "c"), architecture="mlp", architecture_args=args))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(5, 7), nn.Linear(6, 3)),
        nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)),
        nn.LSTM(5, 3),
        nn.ModuleDict({"a": nn.Linear(5, 7), "b": nn.Conv2d(7, 3, 1)}),
        nn.ModuleDict({"a": nn.Linear(5, 7), "b": nn.Linear(9, 3)}),
    ],
)
def test_what_is_no_chain_asks_for_its_class(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "m.pt")
    with pytest.raises(ModelError, match="name its class with --architecture package.module:Class"):
        load_model(ModelSpec(path=str(tmp_path / "m.pt"), classes=("a", "b", "c")))


def test_layers_that_a_sorted_file_cannot_order_ask_for_their_class(tmp_path: Path) -> None:
    network = nn.ModuleDict({"first": nn.Linear(5, 5), "second": nn.Linear(5, 5), "third": nn.Linear(5, 3)})
    with pytest.raises(ModelError, match="name its class"):
        load_model(ModelSpec(path=saved(network, tmp_path, "safetensors"), classes=("a", "b", "c"), architecture=None))
    with pytest.raises(ModelError, match="shapes do not say what lies between"):
        load_model(ModelSpec(path=saved(network, tmp_path, "pt"), classes=("a", "b", "c")))


def test_a_table_of_numbers_is_a_layer_only_where_that_was_said(tmp_path: Path) -> None:
    torch.save(nn.Embedding(3, 5).state_dict(), tmp_path / "m.pt")
    flags: Any = {"path": str(tmp_path / "m.pt"), "classes": ("a", "b", "c")}
    with pytest.raises(ModelError, match=r"add --architecture mlp --architecture-args '\{\}'"):
        load_model(ModelSpec(**flags))
    assert load_model(ModelSpec(**flags, architecture="mlp")).n_outputs == 3


def test_how_pictures_come_to_the_network_is_said_too(tmp_path: Path) -> None:
    network = made("pictures_flatten")
    flags: Any = {"path": saved(network, tmp_path, "pt"), "classes": ("a", "b", "c"), "architecture": "cnn"}
    said = {**NETWORKS["pictures_flatten"][1], "mean": [0.4, 0.5, 0.6], "std": 0.25}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    model = load_model(ModelSpec(**flags, architecture_args=said))
    scaled = (pixels / 255.0 - np.array([0.4, 0.5, 0.6])) / 0.25
    with torch.no_grad():
        expected = network(torch.tensor(scaled.transpose(0, 3, 1, 2), dtype=torch.float32)).softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(pixels), expected, atol=1e-6)
    for wrong in (
        {"std": 0},
        {"mean": [0.5, 0.5]},
        {"size": 0},
        {"size": 8.5},
        {"mean": "half"},
        {"std": [1, 1, True]},
    ):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} must be "):
            load_model(ModelSpec(**flags, architecture_args={**said, **wrong}))


def test_columns_that_nobody_names_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,c,d,e,sex,y\n" + "1,2,3,4,5,f,a\n2,1,4,3,6,m,b\n" * 5)
    path = saved(made("sequential"), tmp_path, "pt")
    model = load_model(
        ModelSpec(path=path, classes=("a", "b", "c"), architecture="mlp", architecture_args={"activation": "relu"})
    )
    spec = DataSpec(path=str(tmp_path / "rows.csv"), target="y", sensitive=("sex",))
    with pytest.raises(
        UsageError, match=r"takes 5 columns and does not name them, and rows\.csv has 6.*--features a,b"
    ):
        load_data(spec, model)
    named = load_data(replace(spec, features=("a", "b", "c", "d", "e")), model)
    assert model.predict_proba(named.X).shape == (10, 3)
