"""Infidelity and sensitivity of games and networks where both are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.data import AuditData
from auditor.model import TorchModel
from probes.attribution.gradient import Effort
from probes.attribution.problem import Problem, pose
from probes.attribution.stability import infidelity, sensitivity_max
from probes.attribution.units import Units

torch.set_num_threads(1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def game(contributions: np.ndarray, interaction: float = 0.0) -> Units:
    n, d = contributions.shape

    def score(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
        return np.asarray((contributions[rows] * keep).sum(axis=1) + interaction * keep[:, 0] * keep[:, 1], float)

    return Units(
        kind="feature",
        present=np.ones((n, d), bool),
        names=((),) * n,
        score=score,
        infill="",
        in_distribution=True,
        output="",
    )


def test_a_sum_is_explained_without_error_on_any_scale() -> None:
    values = rng().standard_normal((20, 6))
    assert infidelity(game(values), values, rng()).max() == pytest.approx(0.0, abs=1e-12)
    assert infidelity(game(values), -3.0 * values, rng()).max() == pytest.approx(0.0, abs=1e-12)
    random = infidelity(game(values), rng(1).random((20, 6)), rng())
    assert np.median(random) > 0.01


def test_an_interaction_leaves_an_error_and_a_constant_none() -> None:
    values = rng().standard_normal((20, 6))
    assert np.median(infidelity(game(values, interaction=4.0), values, rng())) > 1e-3
    assert np.isnan(infidelity(game(np.zeros((4, 5))), np.ones((4, 5)), rng())).all()


def posed(module: nn.Module, n: int = 30) -> Problem:
    X = pd.DataFrame(rng().standard_normal((n, 4)).astype(np.float32), columns=list("abcd"))
    data = AuditData.from_arrays(X, classes=["0", "1"])
    return pose(TorchModel(module, classes=["0", "1"]), data, data, np.ones(n, np.int64), rng=rng())


def test_the_slopes_of_a_line_do_not_move_and_its_products_move_with_the_input() -> None:
    problem = posed(nn.Linear(4, 2))
    slopes = sensitivity_max("saliency", problem, rng(), Effort())
    assert slopes is not None and slopes.max() == pytest.approx(0.0, abs=1e-6)
    products = sensitivity_max("integrated_gradients", problem, rng(), Effort(n_steps=8, max_steps=8))
    assert products is not None and 0.0 < np.median(products) < 0.5
    again = sensitivity_max("integrated_gradients", problem, rng(), Effort(n_steps=8, max_steps=8))
    np.testing.assert_array_equal(products, again)


def test_a_rippled_network_has_slopes_that_cannot_be_trusted() -> None:
    class Ripple(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.sum(dim=1), torch.sin(300.0 * x).sum(dim=1)], dim=1)

    found = sensitivity_max("saliency", posed(Ripple()), rng(), Effort())
    assert found is not None and np.median(found) > 0.5


def test_what_is_not_of_points_is_not_measured() -> None:
    assert sensitivity_max("occlusion", posed(nn.Linear(4, 2)), rng(), Effort()) is None
