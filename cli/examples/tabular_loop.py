"""A plain PyTorch loop that audits itself after every epoch, and stops at a significant gap.

python -m examples.tabular_loop OUT [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import cross_entropy

from auditor import PROBES, TrainingAudit

from .mortgages import load, network


def main(out: str, epochs: int = 10) -> TrainingAudit:
    """Train, audit, and write ``report.html`` in ``out``."""
    torch.manual_seed(0)
    X, y, applications = load()
    model = network(X.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    audit = TrainingAudit(
        probes=[PROBES["group_fairness"](), PROBES["membership_inference"](methods=["loss_threshold"])],
        data=applications,
        n_peeks=epochs,
        on_fail="stop",
        max_overhead=None,
        log=lambda numbers, epoch: print(
            f"epoch {epoch:g}: gap {numbers['audit/group_fairness/demographic_parity_difference/afam']:.3f}"
        ),
        out=out,
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(X[rows]), y[rows]).backward()
            optimizer.step()
        audit.step(model)
        if audit.should_stop:
            break
    audit.finish(model)
    return audit


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
