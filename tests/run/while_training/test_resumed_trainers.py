"""Trainers carry the audit's state in their own checkpoints, and resume it from them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import UsageError
from auditor.report.record.audit_report import AuditReport
from auditor.run.while_training.training_audit import TrainingAudit
from probes.fairness.group_fairness import GroupFairness
from tests.run.while_training.test_resume import but_times
from tests.run.while_training.worlds import network, rows

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("undrawn")


def audit_of(out: Path, seed: int = 0) -> TrainingAudit:
    return TrainingAudit(
        probes=[GroupFairness()], data=rows(400), max_overhead=None, out=out, seed=seed, outputs="logits"
    )


class Table(torch.utils.data.Dataset[Any]):
    def __init__(self, keys: tuple[str, str] | None) -> None:
        data = rows(320, seed=1)
        self.x, self.y = torch.from_numpy(np.asarray(data.X)), torch.from_numpy(np.asarray(data.y_true))
        self.keys = keys

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        row = self.x[i], self.y[i]
        return row if self.keys is None else dict(zip(self.keys, row, strict=True))


class Learner(nn.Module):
    """A network with the loss that transformers asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = self.inner(x)
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Preempted(Exception):
    """Raised in the place of a signal."""


def fine_tuned(
    folder: Path, out: Path, *, stop_after: int = 0, resume: bool = False, seed: int = 0, restore: bool = False
) -> AuditReport | None:
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

    from auditor.run.while_training.trainer_callback import add_to

    class Preempting(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if stop_after and round(state.epoch) == stop_after:
                raise Preempted

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        set_seed(0)
        trainer = Trainer(
            Learner(),
            TrainingArguments(
                output_dir=str(folder), num_train_epochs=5, per_device_train_batch_size=40, save_strategy="epoch",
                report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, learning_rate=1e-2,
                restore_callback_states_from_checkpoint=restore,
            ),
            train_dataset=Table(("x", "labels")),
        )  # fmt: skip
        audit = audit_of(out, seed)
        add_to(trainer, audit)
        if stop_after:
            trainer.add_callback(Preempting())
        try:
            trainer.train(resume_from_checkpoint=resume or None)
        except Preempted:
            return None
    assert not audit.faults
    return audit.report


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("restore", [False, True])
def test_transformers_goes_on_from_its_checkpoint(tmp_path: Path, restore: bool) -> None:
    pytest.importorskip("accelerate", reason="transformers' Trainer asks for it")
    whole = fine_tuned(tmp_path / "w", tmp_path / "whole")
    assert fine_tuned(tmp_path / "r", tmp_path / "resumed", stop_after=2) is None
    kept = json.loads((tmp_path / "r" / "checkpoint-16" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert len(kept["AuditCallback"]["attributes"]["saved"]["looks"]) == 2
    resumed = fine_tuned(tmp_path / "r", tmp_path / "resumed", resume=True, restore=restore)
    assert whole is not None and resumed is not None and resumed.training is not None
    assert resumed.training.resumed_after == (2,) and len(resumed.training.looks) == 5
    assert but_times(resumed) == but_times(whole)


@pytest.mark.slow
@pytest.mark.parametrize("restore", [False, True])
def test_transformers_refuses_the_state_of_another_audit_before_it_trains(tmp_path: Path, restore: bool) -> None:
    pytest.importorskip("accelerate", reason="transformers' Trainer asks for it")
    assert fine_tuned(tmp_path / "r", tmp_path / "out", stop_after=1) is None
    with pytest.raises(UsageError, match="seed"):
        fine_tuned(tmp_path / "r", tmp_path / "out", resume=True, seed=7, restore=restore)


@pytest.mark.slow
def test_lightning_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="needs the extra lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    from auditor.run.while_training.lightning_callback import AuditCallback

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

        def on_train_epoch_start(self) -> None:
            if self.current_epoch == self.fatal:
                raise Preempted

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            # Dropout is that of its step, whatever was drawn before.
            torch.manual_seed(self.global_step)

        fatal = -1

    def fit(folder: Path, *, fatal: int = -1, from_: str | None = None) -> AuditReport | None:
        audit = audit_of(folder / "out")
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = lightning.Trainer(
                max_epochs=5, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                callbacks=[AuditCallback(audit), ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
            )  # fmt: skip
            module = Module()
            module.fatal = fatal
            loader = torch.utils.data.DataLoader(Table(None), batch_size=40)
            try:
                trainer.fit(module, loader, ckpt_path=from_, weights_only=True)
            except Preempted:
                return None
        assert not audit.faults
        return audit.report

    whole = fit(tmp_path / "whole")
    assert fit(tmp_path / "resumed", fatal=3) is None
    # The checkpoint of the second epoch: what the third look spent stands in the report on disk.
    resumed = fit(tmp_path / "resumed", from_=str(tmp_path / "resumed" / "epoch=1.ckpt"))
    assert whole is not None and resumed is not None and resumed.training is not None
    assert resumed.training.resumed_after == (2,) and resumed.training.spent == ()
    assert but_times(resumed) == but_times(whole)
