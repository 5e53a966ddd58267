"""Intervals and outcomes go where a training's numbers go: a real event file, and calls as the trackers take them."""

from __future__ import annotations

import math
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from auditor.report.record.audit_report import AuditReport
from auditor.run.while_training.training_audit import TrainingAudit
from auditor.training.interim.trackers import COLUMNS, MLflow, TensorBoard, Tracker, WeightsAndBiases, trackers_of
from probes.fairness.group_fairness import GroupFairness
from tests.quantifiers import all_of, none_of
from tests.run.while_training.test_training_audit import FAIR, quietly
from tests.run.while_training.worlds import Raising, network, rows, selecting

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("undrawn")
GAP = "audit/group_fairness/demographic_parity_difference/sex"


def audited(*trackers: Tracker, **options: Any) -> tuple[TrainingAudit, list[str]]:
    """Two looks, the second of which fails, and the end; what was warned of."""
    audit = TrainingAudit(**({"probes": [GroupFairness()], "data": rows(2000), "criteria": FAIR, "n_peeks": 2,
                              "max_overhead": None, "trackers": trackers} | options))  # fmt: skip
    said = quietly(lambda: [audit.step(selecting([1.0, 0.0, b])) for b in (0.0, 3.0)] and audit.finish())
    return audit, said


def interval(audit: TrainingAudit, look: int) -> tuple[float, float, float]:
    (found,) = [f for f in audit.peeks[look].findings if f.metric == "demographic_parity_difference"]
    assert found.measurement is not None and found.interval is not None
    return found.measurement.estimate.value, *found.interval


# ---- TensorBoard ---------------------------------------------------------------------------------------------------


def events(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[tuple[int, str]]]]:
    """Scalars and texts by tag, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    scalars = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    texts = {
        tag.removesuffix("/text_summary"): [(e.step, e.tensor_proto.string_val[0].decode()) for e in read.Tensors(tag)]
        for tag in read.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }
    return scalars, texts


@pytest.mark.slow
def test_tensorboard_holds_value_low_and_high_and_the_outcomes_as_text(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    audit, said = audited(TensorBoard(writer))
    writer.close()
    assert len(said) == 1 and "shown to fail" in said[0]
    scalars, texts = events(tmp_path)
    for name, which in ((GAP, 0), (f"{GAP}/low", 1), (f"{GAP}/high", 2)):
        assert [step for step, _ in scalars[name]] == [1, 2]
        assert [value for _, value in scalars[name]] == pytest.approx([interval(audit, k)[which] for k in (0, 1)])
    (_, first), (_, second) = texts["audit/findings"]
    assert first.splitlines()[0] == "| " + " | ".join(COLUMNS) + " |"
    assert "| PASS | " + GAP in first and "| FAIL | " + GAP in second
    ((_, closing),) = texts["audit/closing"]
    assert "| FAIL | " + GAP in closing


@pytest.mark.slow
def test_a_trainer_of_transformers_sends_them_to_its_own_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    pytest.importorskip("accelerate", reason="transformers' Trainer asks for it")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    from transformers import Trainer, TrainingArguments

    from auditor.run.while_training.trainer_callback import add_to
    from tests.run.while_training.test_resumed_trainers import Learner, Table

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            Learner(),
            TrainingArguments(
                output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=40, save_strategy="no",
                report_to=["tensorboard"], disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
            ),
            train_dataset=Table(("x", "labels")),
        )  # fmt: skip
        audit = TrainingAudit(probes=[GroupFairness()], data=rows(400), criteria=FAIR, max_overhead=None,
                              outputs="logits")  # fmt: skip
        add_to(trainer, audit)
        trainer.train()
    assert not audit.faults
    scalars, texts = events(tmp_path / "runs")
    assert [step for step, _ in scalars[f"train/{GAP}/low"]] == [8, 16]
    assert [step for step, _ in texts["audit/findings"]] == [8, 16]
    # Also the closing look, which comes when the trainer is about to close its files.
    assert [step for step, _ in texts["audit/closing"]] == [16]


@pytest.mark.slow
def test_lightning_sends_them_to_its_own_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    lightning = pytest.importorskip("lightning", reason="needs the extra lightning")
    from lightning.pytorch.loggers import TensorBoardLogger

    from auditor.run.while_training.lightning_callback import AuditCallback
    from tests.run.while_training.test_resumed_trainers import Table

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    audit = TrainingAudit(probes=[GroupFairness()], data=rows(400), criteria=FAIR, max_overhead=None)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=logger, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, callbacks=[AuditCallback(audit)],
        ).fit(Module(), torch.utils.data.DataLoader(Table(None), batch_size=40))  # fmt: skip
    assert not audit.faults
    scalars, texts = events(tmp_path)
    assert [step for step, _ in scalars[f"{GAP}/high"]] == [8, 16] == [step for step, _ in texts["audit/findings"]]
    assert len(texts["audit/closing"]) == 1


@pytest.mark.slow
def test_accelerates_own_trackers_are_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    accelerate = pytest.importorskip("accelerate", reason="needs the extra distributed")
    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=str(tmp_path))
    accelerator.init_trackers("audit")
    told = trackers_of(accelerator.trackers)
    log: Callable[[dict[str, float], float], None] = lambda numbers, at: accelerator.log(numbers, step=int(at))  # noqa: E731
    audit, _ = audited(*told, log=log)
    accelerator.end_training()
    assert not audit.faults and len(told) == 1
    scalars, texts = events(tmp_path / "audit")
    assert [step for step, _ in scalars[f"{GAP}/low"]] == [1, 2] == [step for step, _ in texts["audit/findings"]]


# ---- Weights & Biases, MLflow: their own signatures, recorded -------------------------------------------------------


class Table:
    """``wandb.Table`` of wandb 0.31."""

    def __init__(
        self, columns: Any = None, data: Any = None, rows: Any = None, dataframe: Any = None, dtype: Any = None,
        optional: bool = True, allow_mixed_types: bool = False, log_mode: Any = "IMMUTABLE",
    ) -> None:  # fmt: skip
        assert all_of(len(row) == len(columns) for row in data)
        self.columns, self.data = columns, data


class Run:
    """``wandb.Run``, of which only ``log`` is called."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        # An entry at an earlier step than the run's own is dropped with a warning.
        assert step is None
        self.logged.append(data)


class MlflowClient:
    """``mlflow.MlflowClient`` of mlflow 3."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, str, float, int | None]] = []
        self.texts: list[tuple[str, str, str]] = []

    def log_metric(
        self, run_id: str, key: str, value: float, timestamp: int | None = None, step: int | None = None,
        synchronous: bool | None = None, dataset_name: str | None = None, dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> None:  # fmt: skip
        assert isinstance(value, float) and math.isfinite(value)
        self.metrics.append((run_id, key, value, step))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts.append((run_id, text, artifact_file))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("wandb")
    module.Table = Table  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)


def test_weights_and_biases_is_given_a_table_of_each_look(wandb: None) -> None:
    run = Run()
    audit, _ = audited(WeightsAndBiases(run))
    first, second, closing = run.logged
    assert first[GAP] == interval(audit, 0)[0] and second[f"{GAP}/high"] == interval(audit, 1)[2]
    table = second["audit/findings"]
    assert table.columns == list(COLUMNS) and second["audit/at"] == 2.0
    (row,) = [row for row in table.data if row[1] == GAP]
    assert row[0] == "FAIL" and tuple(row[2:5]) == interval(audit, 1) and "0.1" in row[5]
    assert [r[0] for r in closing["audit/closing"].data if r[1] == GAP] == ["FAIL"] and GAP not in closing


def test_mlflow_is_given_metrics_and_the_report_as_artifacts(tmp_path: Path) -> None:
    client = MlflowClient()
    audit, _ = audited(MLflow(client, "run 7"), out=tmp_path)
    assert {run for run, *_ in client.metrics} == {"run 7"} == {run for run, *_ in client.texts}
    gaps = [(value, step) for _, key, value, step in client.metrics if key == f"{GAP}/low"]
    assert gaps == [(interval(audit, 0)[1], 1), (interval(audit, 1)[1], 2)]
    kept = {name: text for _, text, name in client.texts}
    assert set(kept) == {"audit/report.json", "audit/report.html"}
    assert [name for _, _, name in client.texts].count("audit/report.json") == 3
    assert AuditReport.from_json(kept["audit/report.json"]) == audit.report
    for name in ("report.json", "report.html"):
        assert kept[f"audit/{name}"] == (tmp_path / name).read_text()


def test_a_trainers_own_loggers_are_known_by_their_kind() -> None:
    """Classes of the names, and with the attributes, that transformers, Lightning and Accelerate give them."""
    run, client, writer = Run(), MlflowClient(), object()
    active = types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))
    module = types.SimpleNamespace(MlflowClient=lambda: client, active_run=lambda: active)
    idle = types.SimpleNamespace(MlflowClient=lambda: client, active_run=lambda: None)

    def kind(name: str, **attributes: object) -> object:
        return type("Own", (type(name, (), {}),), attributes)()

    loggers = [
        kind("TensorBoardCallback", tb_writer=writer), kind("TensorBoardCallback", tb_writer=None),
        kind("TensorBoardLogger", experiment=writer), kind("TensorBoardTracker", tracker=writer),
        kind("WandbCallback", _wandb=types.SimpleNamespace(run=run)),
        kind("WandbCallback", _wandb=types.SimpleNamespace(run=None)),
        kind("WandbLogger", experiment=run), kind("WandBTracker", tracker=run),
        kind("MLflowCallback", _ml_flow=module), kind("MLflowCallback", _ml_flow=idle),
        kind("MLFlowLogger", experiment=client, run_id="r"), kind("CSVLogger"), object(),
    ]  # fmt: skip
    found = trackers_of(loggers)
    assert [type(t) for t in found] == [TensorBoard] * 3 + [WeightsAndBiases] * 3 + [MLflow] * 2
    assert none_of(t.numbers for t in found)  # type: ignore[attr-defined]
    assert [t.run_id for t in found if isinstance(t, MLflow)] == ["r", "r"]


def test_a_tracker_that_is_down_is_a_fault_and_the_others_are_told() -> None:
    class Down:
        def look(self, told: object) -> None:
            raise OSError("no network")

        def report(self, files: object) -> None:
            raise OSError("no network")

    client = MlflowClient()
    audit, said = audited(Down(), MLflow(client, "r"), probes=[Raising(), GroupFairness()])
    assert any("Down at epoch 1: OSError: no network" in s for s in said) and len(audit.peeks) == 2
    assert client.metrics and len(client.texts) > 2
    assert audit.report is not None and audit.report.exit_code == 1
