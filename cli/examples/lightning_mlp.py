"""A Lightning module with the audit as a callback. Needs the extra ``lightning``.

python -m examples.lightning_mlp OUT [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from auditor import PROBES, TrainingAudit
from auditor.run.while_training.lightning_callback import AuditCallback

from .mortgages import load, network


class Mortgages(LightningModule):
    """A network whose ``forward`` returns logits, the only requirement of the audit."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.network = network(n_inputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        inputs, labels = batch
        return cross_entropy(self(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(out: str, epochs: int = 5) -> TrainingAudit:
    """Train, audit, and write ``report.html`` in ``out``, beside Lightning's own metrics.csv."""
    torch.manual_seed(0)
    X, y, rows = load()
    audit = TrainingAudit(
        probes=[PROBES["group_fairness"](), PROBES["membership_inference"](methods=["loss_threshold"])],
        data=rows,
        out=out,
    )
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[AuditCallback(audit)],
        logger=CSVLogger(out, name="", version=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Mortgages(X.shape[1]), DataLoader(TensorDataset(X, y), batch_size=64, shuffle=True))
    return audit


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
