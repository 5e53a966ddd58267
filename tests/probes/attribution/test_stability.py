"""Infidelity and sensitivity of games and networks where both are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import TextPreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.attribution_units import Units
from probes.attribution.gradient import Effort
from probes.attribution.methods import explain
from probes.attribution.stability import infidelity, noisy, sensitivity_max, stability

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


def test_what_is_not_of_points_gets_its_noise_in_the_rows() -> None:
    """Of a linear score occlusion gives ``w_j (x_j - mean of the infill)``: it moves as far as the noise does."""
    problem = posed(nn.Linear(4, 2))
    assert sensitivity_max("occlusion", problem, rng(), Effort()) is None
    found = stability("occlusion", problem, rng(), Effort())
    assert found is not None and "each column of numbers" in found.noise
    weights = problem.model.module.weight.detach().double().numpy()  # type: ignore[attr-defined]
    own = explain("occlusion", problem, rng(), Effort()).values
    ranges = np.ptp(np.asarray(problem.sample.X, float), axis=0)
    most = np.linalg.norm(0.02 * ranges * (weights[1] - weights[0])) / np.linalg.norm(own, axis=1)
    # The infill of the compared question is drawn anew, so the denominator is only about the same.
    assert 0.0 < np.median(found.values) < 1.5 * np.median(most)
    assert stability("permutation_importance", problem, rng(), Effort()) is None


def test_noise_leaves_rows_what_they_are() -> None:
    X = pd.DataFrame(
        {
            "age": np.arange(20, 70),
            "score": np.linspace(0.0, 1.0, 50),
            "kind": ["a", "b"] * 25,
            "member": [True, False] * 25,
            "gaps": [np.nan, 3.0, 4.0, 5.0, 6.0] * 10,
            "flag": [0, 1] * 25,
        }
    )
    moved = noisy(AuditData.from_arrays(X, classes=["0", "1"]), rng()).X
    assert isinstance(moved, pd.DataFrame) and (moved.dtypes == X.dtypes).all()
    assert moved[["kind", "member", "flag"]].equals(X[["kind", "member", "flag"]])
    assert (moved["gaps"].isna() == X["gaps"].isna()).all()
    for name, most in (("age", 1), ("score", 0.02), ("gaps", 0.06)):
        apart = (moved[name] - X[name]).abs()
        assert 0 < apart.max() <= most and moved[name].between(X[name].min(), X[name].max())[X[name].notna()].all()
    pixels = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), (2, 1, 1, 3))
    image = np.asarray(noisy(AuditData.from_arrays(pixels, classes=["0", "1"]), rng()).X)
    apart = np.abs(image.astype(int) - pixels.astype(int))
    assert image.dtype == np.uint8 and apart.max() == 5 and apart.any(axis=(1, 2, 3)).all()
    texts = np.asarray(["one two three", "single"], object)
    swapped = noisy(AuditData.from_arrays(texts, classes=["0", "1"]), rng()).X.tolist()
    assert swapped[1] == "single" and swapped[0] in ("two one three", "one three two")


class Reader(nn.Module):
    """Each token's own weight, and, where ``order`` is set, more for tokens that stand early."""

    def __init__(self, order: float = 0.0) -> None:
        super().__init__()
        self.embedding, self.order = nn.Embedding(30, 4), order
        with torch.no_grad():
            self.embedding.weight *= 0.05
            self.embedding.weight[0] = 0.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        words = self.embedding(ids).sum(dim=2)
        z = (words * (1.0 + self.order * torch.arange(ids.shape[1], 0, -1))).sum(dim=1)
        return torch.stack([torch.zeros_like(z), z], dim=1)


def read(order: float, *, black_box: bool) -> Problem:
    torch.manual_seed(0)
    texts = np.asarray([" ".join(f"w{j}" for j in rng(i).permutation(29)[:8]) for i in range(20)], object)
    vocabulary = {f"w{j}": j + 1 for j in range(29)}
    encoding = TextPreprocessing(vocabulary=vocabulary, length=8, padding="right")
    data = AuditData.from_arrays(texts, classes=["0", "1"])
    model: Any = TorchModel(Reader(order).eval(), classes=["0", "1"], preprocessing=encoding)
    if black_box:
        model = AuditedModel.from_callable(model.predict_proba, classes=["0", "1"])
    return pose(model, data, data, np.ones(20, np.int64), rng=rng())


def test_embedded_words_get_noise_and_slopes_of_a_sum_do_not_move() -> None:
    problem = read(0.0, black_box=False)
    slopes = stability("saliency", problem, rng(), Effort())
    assert slopes is not None and "embedded tokens" in slopes.noise and slopes.values.max() < 1e-6
    products = stability("input_x_gradient", problem, rng(), Effort())
    assert products is not None
    # a_j = 1 . e_j: noise of up to r in each of 4 coordinates moves it by at most 4 r, in each of 8 words.
    points = problem.differentiable.points.double().numpy()  # type: ignore[union-attr]
    own = np.linalg.norm(points.sum(axis=2), axis=1)
    most = 4.0 * 0.02 * np.ptp(points) * np.sqrt(8.0) / own
    assert (products.values > 0.0).all() and (products.values <= most).all()


def test_words_exchanged_move_the_explanation_of_a_model_that_reads_their_order_alone() -> None:
    bag = stability("occlusion", read(0.0, black_box=True), rng(), Effort())
    ordered = stability("occlusion", read(5.0, black_box=True), rng(), Effort())
    assert bag is not None and ordered is not None and "exchanged" in bag.noise
    assert bag.values.max() < 1e-6 < 0.05 < np.median(ordered.values)
