"""A federated training that `auditor dp audit` can audit, and clients whose updates `dp inversion` looks into.

auditor dp audit demo.federated_training:train --claimed-epsilon 2 --delta 1e-3 --canaries 200
auditor dp inversion demo.federated_training:clients --clip 1 --noise 1
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from auditor.privacy.accounting import Phase
from auditor.privacy.canaries import AuditPlan
from auditor.privacy.federated.client_canaries import clipped
from auditor.privacy.federated.inversion_audit import ClientTask

CLIENTS, RATE, ROUNDS, NORM = 200, 0.1, 30, 1.0
# As `auditor dp budget --sample-rate 0.1 --steps 30 --epsilon 2 --delta 1e-3 --accountant prv` says.
NOISE = 1.15


def pictures() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    return torch.tensor(digits.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(digits.target)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def clients() -> ClientTask:
    images, labels = pictures()
    return ClientTask(module=network(), images=images, labels=labels)


def train(audit: AuditPlan, noise: float = NOISE) -> None:
    images, labels = pictures()
    rows = [torch.arange(i, len(labels), CLIENTS) for i in range(CLIENTS)]
    model, rng = network(), np.random.default_rng(0)
    weights = list(model.parameters())
    canaries = audit.attach_clients(
        weights,
        clipping_norm=NORM,
        sample_rate=RATE,
        noise_multiplier=NOISE,
        accounting=[Phase(noise_multiplier=NOISE, sample_rate=RATE, steps=ROUNDS)],
    )
    for _ in range(ROUNDS):
        # Each client by a coin of its own.
        cohort = [
            clipped(update_of(model, images[rows[i]], labels[rows[i]]), NORM)
            for i in np.flatnonzero(rng.random(CLIENTS) < RATE)
        ]
        canaries.clients([float(torch.cat([p.flatten() for p in update]).norm()) / NORM for update in cohort])
        others = [torch.stack([u[k] for u in cohort] or [torch.zeros_like(w)]).sum(0) for k, w in enumerate(weights)]
        sums = [s.clone() for s in others]
        canaries.add_to(sums)
        expected = RATE * CLIENTS
        means = [(s + noise * NORM * torch.randn_like(s)) / expected for s in sums]
        canaries.released(means, divisor=expected, expected=others, others=others)
        with torch.no_grad():
            for weight, mean in zip(weights, means, strict=True):
                weight += mean


def train_without_noise(audit: AuditPlan) -> None:
    train(audit, noise=0.0)


def update_of(model: nn.Module, images: Tensor, labels: Tensor, steps: int = 3, rate: float = 0.5) -> list[Tensor]:
    """How a client's own steps would move the weights."""
    before = [w.detach().clone() for w in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    moved = [w.detach() - b for w, b in zip(model.parameters(), before, strict=True)]
    with torch.no_grad():
        for weight, b in zip(model.parameters(), before, strict=True):
            weight.copy_(b)
    return moved
