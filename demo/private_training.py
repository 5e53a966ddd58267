"""A private training that `auditor dp audit` can audit: `train` does DP-SGD, `train_without_noise` forgets the noise.

auditor dp audit demo.private_training:train --claimed-epsilon 1 --delta 1e-5
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from auditor.privacy.canaries import AuditPlan, ReferenceGradient

ROWS, BATCH, EPOCHS = 1000, 100, 10
# For delta 1e-5, as `auditor dp budget --rows 1000 --batch-size 100 --epochs 10 --epsilon 1 --accountant prv` says.
NOISE = 3.98


def loss_per_row(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def train(audit: AuditPlan, noise: float = NOISE) -> None:
    warnings.filterwarnings("ignore", module="opacus")
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    torch.manual_seed(0)
    x = torch.randn(ROWS, 16)
    y = (x[:, 0] + 0.3 * torch.randn(ROWS) > 0).long()
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 2))
    engine = PrivacyEngine()
    made: Any = engine.make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
        noise_multiplier=noise,
        max_grad_norm=1.0,
    )
    model, optimizer, loader = made
    rate = loader.sample_rate
    # The accountant is told the planned noise, whatever is added.
    optimizer.attach_step_hook(lambda _: engine.accountant.step(noise_multiplier=NOISE, sample_rate=rate))
    audit.attach(
        optimizer,
        sample_rate=rate,
        expected_gradient=ReferenceGradient(model, loss_per_row, x, y, optimizer=optimizer, sample_rate=rate),
        accountant=engine.accountant,
        loader=loader,
    )
    for _ in range(EPOCHS):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss_per_row(model(inputs), labels).mean().backward()
            optimizer.step()


def train_without_noise(audit: AuditPlan) -> None:
    train(audit, noise=0.0)
