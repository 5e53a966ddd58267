"""The loop under Accelerate: the audit unwraps the model, logs to its trackers and is saved in its state.

python -m examples.accelerate_loop OUT [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from accelerate import Accelerator
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from auditor import PROBES, TrainingAudit
from auditor.training.interim.trackers import trackers_of

from .mortgages import load, network


def main(out: str, epochs: int = 5) -> TrainingAudit:
    """Train, audit, and write ``report.html`` in ``out``."""
    accelerator = Accelerator()
    torch.manual_seed(0)
    X, y, rows = load()
    model = network(X.shape[1])
    model, optimizer, batches = accelerator.prepare(
        model,
        torch.optim.Adam(model.parameters(), lr=1e-3),
        DataLoader(TensorDataset(X, y), batch_size=64, shuffle=True),
    )
    audit = TrainingAudit(
        probes=[PROBES["group_fairness"]()],
        data=rows,
        n_peeks=epochs,
        log=lambda numbers, epoch: accelerator.log(numbers, step=int(epoch)),
        trackers=trackers_of(accelerator.trackers),
        out=out,
    )
    # From now on accelerator.save_state and load_state carry it too.
    accelerator.register_for_checkpointing(audit)
    for _ in range(epochs):
        for inputs, labels in batches:
            optimizer.zero_grad()
            accelerator.backward(cross_entropy(model(inputs), labels))
            optimizer.step()
        audit.step(model)
    audit.finish(model)
    return audit


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
