"""Each attribution method against a closed form, captum or shap called directly, or Shapley values counted by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from captum.attr import DeepLift, GradientShap, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from auditor.core.errors import NotApplicableError
from auditor.core.randomness import seeded_globals
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing
from auditor.loading.estimators import EstimatorModel
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.gradient import Effort, line_multipliers
from probes.attribution.methods import METHODS, applicable, explain, why_not
from probes.probe_inputs import draw
from tests.quantifiers import all_of, none_of

torch.set_num_threads(1)

NAMES = ("a", "b", "c", "d")
WEIGHTS = np.array([1.0, -2.0, 0.5, 0.0])


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def table(n: int, d: int = 4, seed: int = 0) -> pd.DataFrame:
    names = list(NAMES) if d == 4 else [f"f{i}" for i in range(d)]
    return pd.DataFrame(np.random.default_rng(seed).standard_normal((n, d)), columns=names)


def data_of(X: Any, classes: tuple[str, ...] = ("0", "1"), y: Any = None) -> AuditData:
    return AuditData.from_arrays(X, y, classes=list(classes))


def ones(n: int) -> npt.NDArray[np.int64]:
    return np.ones(n, np.int64)


def posed(model: AuditedModel, X: Any, background: Any = None, **options: Any) -> Problem:
    sample = data_of(X, model.classes)
    behind = sample if background is None else data_of(background, model.classes)
    return pose(model, sample, behind, ones(len(sample)), rng=rng(), **options)


def linear_model() -> TorchModel:
    """Log-odds of class 1 are ``WEIGHTS . x + 0.5``, split unevenly over the two outputs."""
    w = torch.tensor(WEIGHTS[None], dtype=torch.float32)
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.weight.copy_(torch.cat([-0.3 * w, 0.7 * w]))
        module.bias.copy_(torch.tensor([0.0, 0.5]))
    return TorchModel(module, classes=["0", "1"])


def mlp(d: int = 4, classes: int = 2, seed: int = 1) -> TorchModel:
    torch.manual_seed(seed)
    module = MLP(d, [16, 16], classes)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(2.0)
    return TorchModel(module, classes=[str(i) for i in range(classes)])


def shapley_by_hand(problem: Problem) -> npt.NDArray[np.float64]:
    """(n, d) by the definition: every coalition's gain, weighted by the orders in which it comes first."""
    n, d = problem.units.n, problem.units.d
    worth = {}
    for size in range(d + 1):
        for coalition in itertools.combinations(range(d), size):
            keep = np.zeros((n, d), bool)
            keep[:, list(coalition)] = True
            worth[coalition] = problem.units.score(np.arange(n), keep)
    values = np.zeros((n, d))
    for i in range(d):
        for coalition in (c for c in worth if i not in c):
            weight = math.factorial(len(coalition)) * math.factorial(d - len(coalition) - 1) / math.factorial(d)
            values[:, i] += weight * (worth[tuple(sorted((*coalition, i)))] - worth[coalition])
    return values


# ---- a linear model, by hand -----------------------------------------------------------------------------------------


def test_every_method_is_right_about_a_linear_model() -> None:
    X, background = table(40), table(60, seed=1)
    problem = posed(linear_model(), X, background)
    x, mean = X.to_numpy(), background.to_numpy().mean(axis=0)
    infill = draw(data_of(background), 10, rng()).X.to_numpy().mean(axis=0)  # type: ignore[union-attr]
    expected = {
        "integrated_gradients": WEIGHTS * (x - mean),
        "deep_lift": WEIGHTS * (x - mean),
        "feature_ablation": WEIGHTS * (x - mean),
        "input_x_gradient": WEIGHTS * x,
        "saliency": np.broadcast_to(np.abs(WEIGHTS), x.shape),
        "smooth_grad": np.broadcast_to(np.abs(WEIGHTS), x.shape),
        "occlusion": WEIGHTS * (x - infill),
        "kernel_shap": WEIGHTS * (x - infill),
        "shap_permutation": WEIGHTS * (x - infill),
        "shap_kernel": WEIGHTS * (x - infill),
        "gradient_shap": WEIGHTS * (x - mean),
        "lime": WEIGHTS * (x - infill),
    }
    assert set(expected) == set(applicable(problem))
    # Two of them draw: expected gradients by chance, and LIME shrinks by its penalty.
    tolerance = {"gradient_shap": 0.35, "lime": 0.05}
    effort = Effort(n_noise=400, n_perturbations=800)
    for method, values in expected.items():
        found = explain(method, problem, rng(), effort)
        np.testing.assert_allclose(found.values, values, atol=tolerance.get(method, 2e-5), err_msg=method)
        np.testing.assert_allclose(found.outputs, x @ WEIGHTS + 0.5, atol=1e-5)
        if METHODS[method].completes:
            assert found.errors.max() < 1e-4, method
        assert found.units == NAMES and found.method == method


def test_baselines_are_the_scores_where_the_sums_begin() -> None:
    X, background = table(20), table(30, seed=1)
    problem = posed(linear_model(), X, background)
    by_hand = background.to_numpy() @ WEIGHTS + 0.5
    for method, value in (("integrated_gradients", by_hand.mean()), ("gradient_shap", by_hand.mean())):
        np.testing.assert_allclose(explain(method, problem, rng()).baseline, value, atol=1e-5)
    drawn = draw(data_of(background), 10, rng()).X.to_numpy() @ WEIGHTS + 0.5  # type: ignore[union-attr]
    np.testing.assert_allclose(explain("occlusion", problem, rng()).baseline, drawn.mean(), atol=1e-5)


# ---- captum called directly ------------------------------------------------------------------------------------------


def test_gradient_methods_are_captums_own() -> None:
    model, X = mlp(), table(32)
    problem = posed(model, X)
    inputs = torch.from_numpy(X.to_numpy(np.float32, copy=True)).requires_grad_()
    mean = inputs.detach().mean(0, keepdim=True)

    def margin(x: Tensor) -> Tensor:
        z = model.module(x)
        return z[:, 1] - z[:, 0]

    head = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0, 1.0]]))
    whole = nn.Sequential(model.module, head)
    expected = {
        "saliency": Saliency(margin).attribute(inputs),
        "input_x_gradient": InputXGradient(margin).attribute(inputs),
        "integrated_gradients": IntegratedGradients(margin).attribute(inputs, mean, n_steps=400),
    }
    with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
        expected["deep_lift"] = DeepLift(whole).attribute(inputs, mean)
    effort = Effort(n_steps=400)
    for method, values in expected.items():
        found = explain(method, problem, rng(), effort).values
        np.testing.assert_allclose(found, values.detach().numpy(), atol=2e-5, err_msg=method)


def test_drawing_methods_are_captums_own_draws() -> None:
    model, X = mlp(), table(16)
    problem = posed(model, X)
    inputs = torch.from_numpy(X.to_numpy(np.float32, copy=True)).requires_grad_()

    def margin(x: Tensor) -> Tensor:
        z = model.module(x)
        return z[:, 1] - z[:, 0]

    spread = 0.15 * float(np.ptp(X.to_numpy(), axis=0).mean())
    with seeded_globals(rng()):
        noisy = NoiseTunnel(Saliency(margin)).attribute(inputs, nt_samples=20, stdevs=spread, abs=False).abs()
    np.testing.assert_allclose(explain("smooth_grad", problem, rng()).values, noisy.detach().numpy(), atol=1e-4)
    with seeded_globals(rng()):
        drawn = GradientShap(margin).attribute(inputs, inputs.detach(), n_samples=20)
    np.testing.assert_allclose(explain("gradient_shap", problem, rng()).values, drawn.detach().numpy(), atol=1e-4)


def test_expected_gradients_are_integrated_gradients_averaged_over_the_background() -> None:
    model, X, background = mlp(), table(8), table(6, seed=3)
    problem = posed(model, X, background)
    inputs = torch.from_numpy(X.to_numpy(np.float32, copy=True))

    def margin(x: Tensor) -> Tensor:
        z = model.module(x)
        return z[:, 1] - z[:, 0]

    rows = torch.from_numpy(background.to_numpy(np.float32, copy=True))
    each = [IntegratedGradients(margin).attribute(inputs, row[None], n_steps=200).detach().numpy() for row in rows]
    found = explain("gradient_shap", problem, rng(), Effort(n_noise=3000))
    assert np.abs(found.values - np.mean(each, axis=0)).max() < 0.1 * np.abs(np.mean(each, axis=0)).max()
    assert found.errors.max() < 0.1


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_deep_lift_is_complete_for_any_number_of_classes(classes: int) -> None:
    problem = posed(mlp(classes=classes), table(50))
    assert explain("deep_lift", problem, rng()).errors.max() < 1e-5


def test_line_multipliers_add_up_to_the_difference_of_log_odds() -> None:
    ends, starts = (torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    targets = torch.arange(30) % 4

    def odds(z: Tensor) -> Tensor:
        p = torch.softmax(z, 1)[torch.arange(30), targets]
        return torch.log(p / (1 - p))

    weights = line_multipliers(ends, starts, targets)
    torch.testing.assert_close((weights * (ends - starts)).sum(1), odds(ends) - odds(starts))


def test_one_hot_columns_are_put_together() -> None:
    preprocessing = TabularPreprocessing(
        columns=(
            NumericColumn(name="age", mean=40.0, scale=10.0),
            CategoricalColumn(name="job", levels=("clerk", "cook", "nurse")),
            NumericColumn(name="debt"),
        )
    )
    module = nn.Linear(5, 1)
    w = np.array([1.0, 2.0, -3.0, 4.0, 0.5])
    with torch.no_grad():
        module.weight.copy_(torch.tensor([w.tolist()]))
    model = TorchModel(module, classes=["0", "1"], preprocessing=preprocessing)
    X = pd.DataFrame({"debt": [1.0, -1.0], "job": ["cook", None], "age": [50.0, 20.0]})
    problem = posed(model, X)
    # Encoded rows (1, 0, 1, 0, 1) and (-2, 0, 0, 0, -1); their mean is (-0.5, 0, 0.5, 0, 0).
    expected = {
        "integrated_gradients": [[1.5, -1.5, 0.5], [-1.5, 1.5, -0.5]],
        "input_x_gradient": [[1.0, -3.0, 0.5], [-2.0, 0.0, -0.5]],
        "saliency": [[1.0, math.sqrt(4 + 9 + 16), 0.5]] * 2,
        "occlusion": [[1.5, -1.5, 0.5], [-1.5, 1.5, -0.5]],
        "feature_ablation": [[1.5, -1.5, 0.5], [-1.5, 1.5, -0.5]],
    }
    for method, values in expected.items():
        found = explain(method, problem, rng())
        np.testing.assert_allclose(found.values, values, atol=1e-5, err_msg=method)
        assert found.units == ("age", "job", "debt")


# ---- Shapley values, by hand -----------------------------------------------------------------------------------------


def test_shapley_methods_find_the_shapley_values_of_four_features() -> None:
    problem = posed(mlp(), table(6), table(12, seed=2))
    truth = shapley_by_hand(problem)
    size = np.abs(truth).max()
    exact = explain("shap_kernel", problem, rng(), Effort(n_perturbations=64))
    np.testing.assert_allclose(exact.values, truth, atol=1e-5)
    # captum's regression and shap's walks draw coalitions: near, and the nearer the more they draw.
    drawn = explain("kernel_shap", problem, rng(), Effort(n_perturbations=4000))
    assert np.abs(drawn.values - truth).max() < 0.05 * size
    walked = explain("shap_permutation", problem, rng(), Effort(n_permutations=60))
    assert np.abs(walked.values - truth).max() < 0.05 * size
    for found in (exact, drawn, walked):
        np.testing.assert_allclose(found.values.sum(axis=1), found.outputs - found.baseline, atol=1e-3)


def test_walks_are_those_of_shap() -> None:
    from probes.attribution.shapley import _shap
    from probes.coalitions import shapley_by_walks

    shap = _shap()
    for d in (2, 3, 9):
        weights = rng().standard_normal((d, d))

        def score(keep: npt.NDArray[Any], weights: npt.NDArray[Any] = weights) -> npt.NDArray[np.float64]:
            return np.asarray(np.einsum("ni,ij,nj->n", keep, weights, keep) + keep.prod(axis=1), np.float64)

        masker = shap.maskers.Independent(np.zeros((1, d)), max_samples=1)
        calls = 3 * (2 * d + 1)
        with seeded_globals(rng()):
            explainer = shap.PermutationExplainer(score, masker, seed=5)
            theirs = explainer(np.ones((1, d)), max_evals=calls, batch_size=calls, silent=True).values[0]
        present = np.repeat([[False], [True]], d, axis=1)
        ours = shapley_by_walks(lambda _, keep: score(keep * 1.0), present, 3, [0, 5], at_once=1)  # noqa: B023
        np.testing.assert_array_equal(ours, [np.zeros(d), theirs])


def test_lime_is_the_ridge_regression_it_says() -> None:
    from sklearn.linear_model import Ridge

    from probes.attribution.perturbation import Linear

    generator = rng()
    keep = (generator.random((50, 6)) < 0.5).astype(np.float32)
    y, w = generator.standard_normal(50).astype(np.float32), generator.random(50).astype(np.float32)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.from_numpy, (keep, y, w))))
    for penalty in (0.0, 1.0):
        own = Linear(penalty)
        own.fit(loader)
        expected = Ridge(alpha=penalty).fit(keep.astype(float), y.astype(float), sample_weight=w.astype(float)).coef_
        np.testing.assert_allclose(own.representation().numpy()[0], expected, atol=1e-6)


def test_lime_agrees_with_captums_own() -> None:
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    problem = posed(mlp(), table(1), table(12, seed=2))

    def forward(keep: Tensor) -> Tensor:
        return torch.from_numpy(problem.units.score(np.zeros(len(keep), np.int64), keep.numpy() > 0.5))

    kernel = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)
    direct = Lime(forward, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=kernel)
    with seeded_globals(rng()):
        expected = direct.attribute(torch.ones(1, 4), n_samples=3000, perturbations_per_eval=3000).numpy()
    found = explain("lime", problem, rng(), Effort(n_perturbations=3000)).values
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


# ---- models that only predict ----------------------------------------------------------------------------------------


def estimator_model(estimator: Any, X: pd.DataFrame, y: npt.NDArray[Any]) -> EstimatorModel:
    return EstimatorModel(
        estimator.fit(X, y), classes=["0", "1"], features=list(X.columns), threshold=0.5, provenance=Provenance()
    )


def test_linear_and_tree_shap_are_for_estimators_that_they_can_read() -> None:
    X = table(80)
    y = (X["a"] - X["b"] > 0).to_numpy(int)
    logistic = posed(estimator_model(LogisticRegression(), X, y), X)
    forest = posed(estimator_model(RandomForestClassifier(10, random_state=0), X, y), X)
    assert "shap_linear" in applicable(logistic) and "shap_tree" not in applicable(logistic)
    assert "shap_tree" in applicable(forest) and "shap_linear" not in applicable(forest)
    found = explain("shap_linear", logistic, rng())
    w = logistic.model.estimator.coef_[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.values, w * (X - X.mean()).to_numpy(), atol=1e-6)
    assert explain("shap_tree", forest, rng()).errors.max() < 1e-6
    assert "integrated_gradients" not in applicable(forest)
    for method in ("occlusion", "kernel_shap", "lime", "shap_permutation", "shap_kernel"):
        assert method in applicable(forest)


def test_black_box_units_take_the_values_of_observed_rows() -> None:
    X = pd.DataFrame({"sex": ["f", "m", "m"], "age": [20, 30, 50]})
    model = AuditedModel.from_callable(
        lambda rows: np.where(rows["sex"] == "f", 0.2, 0.4) + rows["age"].to_numpy() / 1000, classes=["0", "1"]
    )
    problem = posed(model, X)
    assert problem.units.output == "the probability of '1'" and problem.units.in_distribution
    found = explain("occlusion", problem, rng())
    mean_sex, mean_age = (0.2 + 0.4 + 0.4) / 3, (20 + 30 + 50) / 3000
    by_hand = [[s - mean_sex, a / 1000 - mean_age] for s, a in ((0.2, 20), (0.4, 30), (0.4, 50))]
    np.testing.assert_allclose(found.values, by_hand, atol=1e-12)
    np.testing.assert_allclose(explain("shap_kernel", problem, rng()).values, by_hand, atol=1e-9)


def test_permutation_importance_is_scikit_learns() -> None:
    X = table(120)
    y = (X["a"] - X["b"] > 0).to_numpy(int)
    model = estimator_model(LogisticRegression(), X, y)
    sample = data_of(X, y=y)
    problem = pose(model, sample, sample, ones(120), rng=rng())
    assert applicable(problem, "global") == ("permutation_importance",)
    assert "permutation_importance" not in applicable(problem)
    found = explain("permutation_importance", problem, rng(), Effort(n_permutations=5))
    seed = int(rng().integers(2**32))
    expected = permutation_importance(
        model.estimator, X, y, scoring="neg_log_loss", n_repeats=5, random_state=seed
    ).importances_mean
    np.testing.assert_allclose(found.values, np.tile(expected, (120, 1)), atol=1e-9)
    unlabelled = posed(model, X)
    assert "--target" in why_not("permutation_importance", unlabelled)


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_table_says_what_each_method_is() -> None:
    families = {"gradient", "perturbation", "shapley", "attention"}
    for name, method in METHODS.items():
        assert method.name == name and method.family in families and method.citation and method.modalities
        assert method.run.__doc__ and method.run.__doc__[0] not in " \n"


def test_the_same_seed_gives_the_same_attributions_and_the_model_stays_as_it_was() -> None:
    model, X = mlp(), table(12)
    model.module.train()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    torch.manual_seed(3)
    np.random.seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    problem = posed(model, X)
    for method in applicable(problem):
        first, second = (explain(method, problem, rng()).values for _ in range(2))
        np.testing.assert_array_equal(first, second, err_msg=method)
    assert model.module.training and all_of(p.grad is None for p in model.module.parameters())
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]
    assert none_of(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_no_rows_have_no_explanation() -> None:
    problem = posed(mlp(), table(4))
    empty = pose(problem.model, problem.sample.take(slice(0)), problem.sample, ones(0), rng=rng())
    assert applicable(empty) == () and empty.units.n == 0
    with pytest.raises(NotApplicableError, match="no rows to explain"):
        explain("occlusion", empty, rng())


def test_unknown_methods_name_the_nearest() -> None:
    problem = posed(mlp(), table(4))
    with pytest.raises(ValueError, match="'integrated_gradient'.*integrated_gradients"):
        explain("integrated_gradient", problem, rng())


def test_methods_of_another_modality_say_so() -> None:
    problem = posed(mlp(), table(4))
    with pytest.raises(NotApplicableError, match="grad_cam does not apply: it is for images only, and these are table"):
        explain("grad_cam", problem, rng())
    assert "texts and images" in why_not("attention_rollout", problem)


def test_what_cannot_be_differentiated_says_so_and_what_would_work() -> None:
    class Rounds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([torch.zeros(len(x)), (x.sum(1) > 0).float()], dim=1)

    problem = posed(TorchModel(Rounds(), classes=["0", "1"]), table(10))
    assert problem.differentiable is None
    with pytest.raises(NotApplicableError, match="rounds.*occlusion, kernel_shap, lime and shap_permutation"):
        explain("saliency", problem, rng())
    # The reference by hand: f is 0 or 1, and one feature may turn it.
    found = explain("occlusion", problem, rng())
    assert np.isfinite(found.values).all() and found.values.any()


def test_a_constant_model_gives_zeros_and_no_range() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] * 0.0

    problem = posed(TorchModel(Constant(), classes=["0", "1"]), table(6))
    for method in applicable(problem):
        found = explain(method, problem, rng())
        assert not found.output_range and not np.abs(found.values).max() > 1e-9, method
        assert np.isnan(found.errors).all()


def test_integer_inputs_are_explained_by_predictions() -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = x.double().sum(1)
            return torch.stack([-z, z], dim=1)

    X = pd.DataFrame(np.arange(12).reshape(4, 3), columns=list("abc"))
    model = TorchModel(Counts(), classes=["0", "1"], encoder=lambda rows: torch.tensor(rows.to_numpy(np.int64)))
    problem = posed(model, X)
    assert "whole numbers" in why_not("integrated_gradients", problem)
    values = explain("occlusion", problem, rng()).values
    np.testing.assert_allclose(values, 2.0 * (X - X.mean()).to_numpy(), atol=1e-5)


@pytest.mark.parametrize("baseline", ["mean", "zero", "uniform"])
def test_baselines_of_tables(baseline: Any) -> None:
    X = table(30)
    problem = posed(linear_model(), X, baseline=baseline)
    found = explain("integrated_gradients", problem, rng())
    assert problem.differentiable is not None
    starts = problem.differentiable.starts.numpy()
    expected = {"mean": X.mean().to_numpy()[None], "zero": np.zeros((1, 4))}.get(baseline, starts)
    np.testing.assert_allclose(found.values, WEIGHTS * (X.to_numpy() - expected), atol=2e-5)
    assert (starts >= X.min().to_numpy() - 1e-6).all() and (starts <= X.max().to_numpy() + 1e-6).all()
    assert baseline.removesuffix("o") in found.detail
    with pytest.raises(NotApplicableError, match="'blur' is not for tables: use mean, zero or uniform"):
        posed(linear_model(), X, baseline="blur")


def test_a_memory_budget_makes_smaller_passes_and_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = TorchModel(MLP(4, [512, 512], 2), classes=["0", "1"])
    wide, narrow = (posed(model, table(64), max_memory=m) for m in (None, 100_000))
    assert wide.differentiable is not None and narrow.differentiable is not None
    # One row keeps its 4 inputs and two activations of 512 after each layer and each ReLU, in float32.
    assert 1 <= narrow.differentiable.rows_at_once <= 100_000 // (2 * 4 * 2 * 512)
    assert narrow.differentiable.rows_at_once < wide.differentiable.rows_at_once
    for method in ("integrated_gradients", "saliency", "deep_lift", "feature_ablation", "occlusion"):
        a, b = (explain(method, p, rng()).values for p in (wide, narrow))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_noisy_copies_keep_to_the_memory_budget() -> None:
    widest = 0

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MLP(4, [64], 2)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal widest
            widest = max(widest, len(x))
            z: Tensor = self.inner(x)
            return z

    torch.manual_seed(0)
    problem = posed(TorchModel(Watched(), classes=["0", "1"]), table(6), max_memory=8_000)
    assert problem.differentiable is not None
    room = problem.differentiable.rows_at_once
    assert 1 < room < 20
    free = posed(problem.model, table(6))
    for method in ("smooth_grad", "gradient_shap", "integrated_gradients", "deep_lift"):
        widest = 0
        found = explain(method, problem, rng(), Effort(n_noise=2000 if method == "gradient_shap" else 200)).values
        # captum doubles the rows that DeepLIFT compares with their baseline, of which the room knows.
        assert 0 < widest <= max(room, 2), method
        expected = explain(method, free, rng(), Effort(n_noise=2000 if method == "gradient_shap" else 200)).values
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max(), method


def test_a_network_that_deep_lift_has_no_rule_for_says_what_to_do() -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.relu = nn.Linear(4, 8), nn.Linear(8, 2), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            z: Tensor = self.relu(self.second(self.relu(self.first(x))))
            return z

    problem = posed(TorchModel(Reused(), classes=["0", "1"]), table(6))
    with pytest.raises(NotApplicableError, match="deep_lift has no rule.*ask for integrated_gradients"):
        explain("deep_lift", problem, rng())
    module = problem.model.module  # type: ignore[attr-defined]
    assert none_of(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules())


def test_another_module_is_asked_the_same_question() -> None:
    model, other, X = mlp(seed=1), mlp(seed=2), table(10)
    problem = posed(model, X)
    before = explain("integrated_gradients", problem, rng()).values
    swapped = problem.with_module(other.module)
    fresh = posed(other, X)
    for method in ("integrated_gradients", "occlusion", "shap_kernel"):
        expected = explain(method, fresh, rng()).values
        np.testing.assert_allclose(explain(method, swapped, rng()).values, expected, atol=1e-12)
    np.testing.assert_array_equal(explain("integrated_gradients", problem, rng()).values, before)
    np.testing.assert_allclose(swapped.model.predict_proba(X), other.predict_proba(X))
