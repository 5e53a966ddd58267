"""A small biased world, and a model trained on it, for the tests of mitigations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Mitigation, Training
from auditor.training import training_loop


def biased_rows(n: int, seed: int) -> AuditData:
    """Labels that follow skill, a group that many favourable labels were withheld from, and the group among the
    features."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b"], n, p=[0.6, 0.4])
    skill = rng.normal(size=n)
    withheld = (group == "b") & (rng.random(n) < 0.35)
    y = ((skill + 0.5 * rng.normal(size=n) > 0) & ~withheld).astype(int)
    X = pd.DataFrame({"skill": skill, "other": rng.normal(size=n), "group": group})
    return AuditData.from_arrays(X, y, classes=[0, 1], positive=1, sensitive_features={"group": group})


def small_groups(n: int, seed: int) -> AuditData:
    """Labels that nine in ten have as favourable, and seven groups of three in a hundred rows each, who have it less
    often for the same skill."""
    rng = np.random.default_rng(seed)
    group = rng.choice([f"g{i}" for i in range(8)], n, p=[0.79] + [0.03] * 7)
    skill = rng.normal(size=n)
    y = (skill + 0.5 * rng.normal(size=n) + 1.6 - 0.8 * (group != "g0") > 0).astype(int)
    X = pd.DataFrame({"skill": skill, "other": rng.normal(size=n), "group": group})
    return AuditData.from_arrays(X, y, classes=[0, 1], positive=1, sensitive_features={"group": group})


def trained(data: AuditData, *, epochs: int = 15, seed: int = 0) -> TorchModel:
    """An MLP of 16 units on the rows, by the plain loop."""
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None
    preprocessing = fit_tabular(data.X)
    arguments = {"n_features": preprocessing.width, "hidden": [16], "n_outputs": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = MLP(**arguments)
    model = TorchModel(
        module,
        classes=[0, 1],
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": arguments},
        recipe=Recipe(epochs=epochs, batch_size=128, learning_rate=3e-3),
    )

    def loss(batch: Sequence[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model.logits(batch[0]), batch[1])

    step = training_loop.PlainStep(module, torch.optim.Adam(module.parameters(), lr=3e-3), loss)
    training_loop.train(
        step,
        (model.encode(data.X), torch.from_numpy(data.y_true)),
        training_loop.Schedule(epochs=epochs, batch_size=128, seed=seed),
    )
    return model


def run(mitigation: Mitigation, model: AuditedModel, rows: AuditData, seed: int = 0) -> Mitigated:
    """What a mitigation makes of a model, by default training."""
    return mitigation.mitigate(model, rows, np.random.default_rng(seed), Training())
