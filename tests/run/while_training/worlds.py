"""Rows, networks and probes for audits inside a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Pillar
from auditor.models.audited_model import AuditedModel
from auditor.run.probe import Need
from auditor.statistics.rates import Proportion

# Options of a search for adversarial examples that is over soon.
SHORT: dict[str, Any] = {"n_steps": 3, "n_queries": 10, "epsilon": (0.1, 0.3)}


def rows(n: int, seed: int = 0, gap: float = 0.0) -> AuditData:
    """Three numbers, the last the group, a label that follows the first, and the more so the group's by ``gap``."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(2, n)
    X = np.column_stack([rng.normal(size=(n, 2)), sex]).astype(np.float32)
    y = (X[:, 0] + gap * (sex - 0.5) + 0.5 * rng.normal(size=n) > 0).astype(int)
    groups = pd.DataFrame({"sex": np.asarray(["f", "m"])[sex]})
    return AuditData.from_arrays(X, y, classes=["0", "1"], positive="1", sensitive_features=groups)


def network(seed: int = 0) -> nn.Sequential:
    """With everything that training changes beside the weights: batch statistics and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def selecting(weights: Sequence[float]) -> nn.Linear:
    """A linear model of given weights."""
    module = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], list(weights)]))
    return module


class SelectionRate:
    """The share of rows that are selected."""

    name = "selection"
    pillar: Pillar = "fairness"
    goal = "To count."
    citation = ""
    methods: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        k = int(model.decisions(data).sum())
        return [
            Measurement(
                metric="selection_rate", estimate=Proportion(successes=k, n=len(data)), n_samples=len(data), ideal=0.0
            )
        ]


class Raising:
    """Raises whatever it is asked."""

    name = "raising"
    pillar: Pillar = "robustness"
    goal = "To raise."
    citation = ""
    methods: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        raise RuntimeError("the sky fell")


class Meddling:
    """Draws from every global generator, leaves the model in training mode and fills its gradients."""

    name = "meddling"
    pillar: Pillar = "robustness"
    goal = "To leave traces."
    citation = ""
    methods: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        import random

        from auditor.statistics.estimate import Exact

        random.random(), np.random.random(), torch.rand(3)
        module = model.module  # type: ignore[attr-defined]
        module(torch.from_numpy(np.asarray(data.X)[:8])).sum().backward()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        module.train()
        return [Measurement(metric="traces", estimate=Exact(known=1.0), n_samples=8)]
