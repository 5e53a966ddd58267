"""Several devices train one network: the weights of one device, whatever the loss, and the same on every process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from auditor.core.errors import MissingExtraError, ModelError, UsageError
from auditor.loading.job_specs import TrainSpec
from auditor.run.mitigation import Training
from auditor.training.multi_device import Devices, SeveralDevices, devices_of_job
from auditor.training.train_table import train_table
from auditor.training.training_loop import PlainStep, Schedule, train
from cli.commands import app
from cli.examples import several_devices
from mitigations import MITIGATIONS
from tests import ROOT
from tests.mitigations.planted_rows import biased_rows, trained
from tests.training.several_devices_job import EPOCHS, STEPS, mitigated, plain, steps, weights

pytest.importorskip("accelerate", reason="needs the extra distributed")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return steps(Devices()) | mitigated(Devices())


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What each process of a job of 2, and of 3, found."""
    folders = {n: tmp_path_factory.mktemp(f"ranks{n}") for n in (2, 3)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.several_devices_job", *(f"{n}={out}" for n, out in folders.items())],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        n: [torch.load(out / f"{r}.pt") | {"files": sorted(p.name for p in out.iterdir())} for r in range(n)]
        for n, out in folders.items()
    }


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("name", list(STEPS))
def test_the_weights_are_those_of_one_device(
    alone: dict[str, Any], together: dict[int, list[dict[str, Any]]], name: str, n: int
) -> None:
    start = weights([plain().model.module])
    for found in together[n]:
        assert torch.allclose(found[name], alone[name], rtol=0.0, atol=1e-9)
        assert torch.allclose(found[f"{name} losses"], alone[f"{name} losses"], rtol=0.0, atol=1e-9)
        assert torch.equal(found[name], together[n][0][name])
    # So that a training that moves nothing is none.
    assert float((alone[name][: len(start)] - start).abs().max()) > 0.1


@pytest.mark.slow
def test_whole_mitigations_come_to_the_model_of_one_device(
    alone: dict[str, Any], together: dict[int, list[dict[str, Any]]]
) -> None:
    names = ("reweighing", "adversarial_debiasing", "group_dro", "min_diff", "grid_search", "correlation_remover")
    assert float((alone["whole fine-tuning"] - alone["before fine-tuning"]).abs().max()) > 0.05
    for name in (*names, "fine-tuning"):
        for found in together[2]:
            # In float32, and after Adam's square roots.
            assert torch.allclose(found[f"whole {name}"], alone[f"whole {name}"], rtol=0.0, atol=1e-6), name
            assert torch.equal(found[f"whole {name}"], together[2][0][f"whole {name}"])


@pytest.mark.slow
def test_each_process_drops_out_for_itself_and_all_end_alike(together: dict[int, list[dict[str, Any]]]) -> None:
    first, second = together[2]
    assert torch.equal(first["dropout"], second["dropout"])
    assert torch.equal(first["masks"], second["masks"])
    assert not torch.equal(first["masks"][0], first["masks"][1])


@pytest.mark.slow
def test_the_first_process_decides_when_to_stop_writes_and_speaks(together: dict[int, list[dict[str, Any]]]) -> None:
    first, second = together[2]
    assert first["stopped"] == second["stopped"] == (2, (3.0, 1.0, 2.0, 2.0))
    assert len(first["said"]) == EPOCHS - 2 and second["said"] == []
    assert [name for name in first["files"] if name.startswith("checkpoint")] == ["checkpoint.0"]
    for found in (first, second):
        assert torch.equal(found["resumed"], first["dropout"])


@pytest.mark.slow
def test_processes_that_disagree_are_told_so(together: dict[int, list[dict[str, Any]]]) -> None:
    for found in together[2]:
        weights_, rows_, drifting = found["refused"]
        assert "were given different rows, weights or settings" in weights_ and weights_ == rows_
        assert "hold different weights" in drifting


@pytest.mark.slow
def test_the_example_comes_to_the_same_model_however_many_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = biased_rows(400, 1)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    table = rows.X.rename(columns={"group": "afam"}).assign(deny=np.where(rows.y_true == 1, "no", "yes"))
    table.to_csv(tmp_path / "t.csv", index=False)
    several_devices.main(str(tmp_path / "t.csv"), str(tmp_path / "1.pt"), 3)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
         "cli.examples.several_devices", str(tmp_path / "t.csv"), str(tmp_path / "2.pt"), "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # The first process alone speaks.
    assert done.stdout == capsys.readouterr().out and "epoch 1 of 3" in done.stdout
    alone, together = (torch.load(tmp_path / f"{n}.pt", weights_only=True)["state_dict"] for n in (1, 2))
    assert alone.keys() == together.keys()
    for name, tensor in alone.items():
        assert torch.allclose(tensor, together[name], rtol=0.0, atol=1e-6)


# ---- in one process ------------------------------------------------------------------------------------------------


def two() -> SeveralDevices:
    """Two devices as far as anything is asked before they have to talk."""
    seen: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=2, process_index=0, is_main_process=True)
    return SeveralDevices(seen)


def test_steps_that_cannot_be_shared_are_refused() -> None:
    made = plain()

    class Own:
        modules = made.step.modules
        optimizers = made.step.optimizers

        def __call__(self, batch: object) -> torch.Tensor:
            raise AssertionError

    with pytest.raises(UsageError, match="Own takes its steps on one device"):
        train(Own(), made.tensors, Schedule(epochs=1, batch_size=16), devices=two())
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    step = PlainStep(module, torch.optim.SGD(module.parameters()), lambda batch: module(batch[0]).sum())
    with pytest.raises(ModelError, match="layer 1 .BatchNorm1d. normalises over the batch.*GroupNorm"):
        train(step, made.tensors, Schedule(epochs=1, batch_size=16), devices=two())
    elsewhere = [t.to("meta") for t in made.tensors]
    with pytest.raises(UsageError, match="rows are on meta and this process has cpu"):
        train(made.step, elsewhere, Schedule(epochs=1, batch_size=16), devices=two())


def test_a_loss_that_passes_the_network_by_is_noticed() -> None:
    module = nn.Linear(4, 2)
    step = PlainStep(module, torch.optim.SGD(module.parameters()), lambda batch: module.weight.square().sum())
    with two().sharing(step), pytest.raises(ModelError, match="No pass through the network was shared"):
        step([torch.zeros(3, 4)])


@pytest.mark.parametrize("name", ["dp_sgd", "preference_tuning", "fair_gan"])
def test_mitigations_for_one_device_say_so_before_any_training(name: str) -> None:
    data = biased_rows(200, 1)
    with pytest.raises(UsageError, match=f"{name} trains on one device"):
        MITIGATIONS[name]().mitigate(
            trained(data, epochs=1), data, np.random.default_rng(0), Training(devices=two(), device="cpu")
        )


def test_a_table_is_trained_as_ever_by_a_job_of_one(tmp_path: Path) -> None:
    rows = biased_rows(200, 1)
    assert isinstance(rows.X, pd.DataFrame)
    rows.X.assign(y=rows.y_true).to_csv(tmp_path / "t.csv", index=False)
    spec = TrainSpec(data=str(tmp_path / "t.csv"), target="y", epochs=2)
    plainly, job = train_table(spec), train_table(spec, devices=devices_of_job())
    for a, b in zip(plainly.model.module.parameters(), job.model.module.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UsageError, match="Private training is for one device"):
        train_table(TrainSpec(data=spec.data, target="y", dp_epsilon=1.0), devices=two())


def test_a_job_needs_accelerate_and_an_accelerator_that_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of_job().size == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    lonely: Any = SimpleNamespace(device=torch.device("cpu"), num_processes=1, process_index=0, is_main_process=True)
    with pytest.raises(UsageError, match="has 2 processes, and the Accelerator counts one"):
        devices_of_job(lonely)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"responsible-auditor\[distributed\]"):
        devices_of_job()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "t.csv", "--target", "y"],
        ["mitigate", "reweighing", "old.pt", "--out", "new.pt"],
        ["tradeoff", "min-diff", "old.pt", "--sweep", "weight=0,1", "--out", "out"],
    ],
)
def test_commands_are_for_one_process(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and f"auditor {arguments[0]} works in one process" in " ".join(result.output.split())
