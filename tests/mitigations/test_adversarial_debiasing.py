"""Adversarial debiasing: the update against the paper's formula, the gap really closed, what cannot be done refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Training
from mitigations.training.adversarial_debiasing import AdversarialDebiasing
from mitigations.training.adversarial_step import (
    AdversarialStep,
    Adversary,
    Pressure,
    balanced_weights,
    debiased,
    mean_gap,
)
from mitigations.training.retraining import Constraint, TrainingSet
from tests.mitigations.planted_rows import biased_rows, run
from tests.quantifiers import all_of


def test_the_update_is_the_papers_on_one_flat_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (4,), (2, 2)]
    g = [torch.randn(s, generator=generator) for s in shapes]
    a = [torch.randn(s, generator=generator) for s in shapes]
    flat_g, flat_a = (torch.cat([t.reshape(-1) for t in v]) for v in (g, a))
    unit = flat_a / flat_a.norm()
    expected = flat_g - (flat_g @ unit) * unit - 0.7 * flat_a
    ours = torch.cat([t.reshape(-1) for t in debiased(g, a, 0.7) if t is not None])
    assert torch.allclose(ours, expected, atol=1e-6)
    # Without alpha the update no longer helps the adversary at all.
    assert abs(float(torch.cat([t.reshape(-1) for t in debiased(g, a, 0.0) if t is not None]) @ flat_a)) < 1e-4
    first, second = debiased([g[0], None], [None, a[1]], 2.0)
    assert first is g[0] and second is not None and torch.allclose(second, -2.0 * a[1])


def test_balanced_weights_give_every_cell_the_same() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 0])
    s = torch.tensor([[0], [0], [1], [1], [0], [1]])
    w = balanced_weights(y, s, by_label=True)[:, 0]
    assert float(w.mean()) == pytest.approx(1.0)
    for cell in ([0, 1], [2, 5], [3], [4]):
        assert float(w[cell].sum()) == pytest.approx(6 / 4)
    assert balanced_weights(y, s, by_label=False).flatten().tolist() == [1.0] * 6


# ---- one step, the slow way and by fairlearn ----------------------------------------------------------------------

N = 24
CASES = list(product(["demographic_parity", "equalized_odds", "equal_opportunity"], [2, 3]))
FloatArray = npt.NDArray[np.float64]


def some_batch(n_classes: int) -> TrainingSet:
    """Rows of 4 numbers with labels, and two sensitive features of 2 and 3 groups."""
    rng = np.random.default_rng(n_classes)
    return TrainingSet(
        x=torch.from_numpy(rng.normal(size=(N, 4))),
        y=torch.from_numpy(np.arange(N) % n_classes),
        s=torch.from_numpy(np.stack([rng.integers(2, size=N), rng.integers(3, size=N)], axis=1)),
        levels=(("f", "m"), ("a", "b", "c")),
        features=("sex", "race"),
        positive=1,
        rows=np.arange(N),
    )


def linear(n_classes: int) -> TorchModel:
    """A linear predictor of float64, so that differences of losses are exact enough."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return TorchModel(MLP(4, [], n_classes).double(), classes=range(n_classes))


def softmax(z: FloatArray) -> FloatArray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    found: FloatArray = e / e.sum(axis=1, keepdims=True)
    return found


def seen_by_hand(z: FloatArray, y: int, c: float, constraint: str) -> list[float]:
    """What the adversary sees of one row with logits z and label y, as the docstring lists it."""
    if len(z) == 2:
        q = [1.0 / (1.0 + math.exp(-(1.0 + abs(c)) * (z[1] - z[0])))]
        return [*q, q[0] * y, q[0] * (1 - y), float(y)] if constraint == "equalized_odds" else q
    q = softmax((1.0 + abs(c)) * z[None])[0].tolist()
    label = [float(k == y) for k in range(len(z))]
    return [*q, *(a * b for b in label for a in q), *label] if constraint == "equalized_odds" else q


def losses_by_hand(
    rows: TrainingSet,
    weights: FloatArray,
    W: FloatArray,
    b: FloatArray,
    heads: list[FloatArray],
    c: float,
    constraint: str,
) -> tuple[float, float]:
    """The predictor's loss and the adversary's, row by row; a head is (groups, width + 1), its bias last."""
    x, y, s = (t.numpy() for t in (rows.x, rows.y, rows.s))
    z = x @ W.T + b
    predictor = -sum(math.log(softmax(z[i : i + 1])[0, y[i]]) for i in range(N)) / N
    adversary = 0.0
    for j, head in enumerate(heads):
        total = weighed = 0.0
        for i in range(N):
            if constraint == "equal_opportunity" and y[i] != rows.positive:
                continue
            weight = weights[i, j]
            guess = softmax((head @ np.asarray([*seen_by_hand(z[i], int(y[i]), c, constraint), 1.0]))[None])[0]
            total -= weight * math.log(guess[s[i, j]])
            weighed += weight
        adversary += total / weighed
    return predictor, adversary


def slope(f, at: list[FloatArray]) -> list[FloatArray]:  # type: ignore[no-untyped-def]
    """Central differences of f with regard to each number in a list of arrays."""
    found = []
    for k, array in enumerate(at):
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            sides = []
            for sign in (1.0, -1.0):
                moved = [a.copy() for a in at]
                moved[k][place] += sign * 1e-6
                sides.append(f(moved))
            gradient[place] = (sides[0] - sides[1]) / 2e-6
        found.append(gradient)
    return found


@pytest.mark.parametrize(
    ("constraint", "n_classes"),
    [*CASES[::2], ("equalized_odds", 3)],
)
def test_a_step_is_the_one_done_slowly(constraint: Constraint, n_classes: int) -> None:
    """Two adversary steps of Adam and the predictor's step, with every derivative by differences."""
    rows, model = some_batch(n_classes), linear(n_classes)
    layer = model.module.layers[0]  # type: ignore[index, union-attr]
    W, b = (p.detach().numpy().copy() for p in layer.parameters())
    step = AdversarialStep(
        model,
        rows,
        torch.optim.SGD(model.module.parameters(), lr=0.1),
        constraint=constraint,
        pressure=Pressure(alpha=0.7),
        adversary_steps=2,
        adversary_learning_rate=0.05,
    )
    step.adversary.double()
    # Weights of no meaning: those of the balance make some derivatives exactly zero, which Adam blows up.
    weights = np.random.default_rng(5).uniform(0.2, 2.0, (N, 2))
    said = step((rows.x, rows.y, rows.s, torch.from_numpy(weights)))
    width = len(seen_by_hand(np.zeros(n_classes), 0, 1.0, constraint))
    state: list[FloatArray] = [np.zeros((2, width + 1)), np.zeros((3, width + 1)), np.ones(1)]
    first, second = [np.zeros_like(a) for a in state], [np.zeros_like(a) for a in state]
    for t in (1, 2):
        gradients = slope(lambda v: losses_by_hand(rows, weights, W, b, v[:2], v[2].item(), constraint)[1], state)
        first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
        second = [0.999 * v + 0.001 * g**2 for v, g in zip(second, gradients, strict=True)]
        state = [
            a - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            for a, m, v in zip(state, first, second, strict=True)
        ]
    heads, c = state[:2], state[2].item()
    for head, expected in zip(step.adversary.heads, heads, strict=True):
        assert torch.cat([head.weight, head.bias[:, None]], dim=1).detach().numpy() == pytest.approx(expected, abs=1e-4)  # type: ignore[list-item, index]
    assert float(step.adversary.sharpness.detach()) == pytest.approx(c, abs=1e-4)
    P, A = (
        np.concatenate(
            [
                g.ravel()
                for g in slope(lambda v, k=k: losses_by_hand(rows, weights, *v, heads, c, constraint)[k], [W, b])
            ]
        )  # type: ignore[misc]
        for k in (0, 1)
    )
    expected = np.concatenate([W.ravel(), b]) - 0.1 * (P - (P @ A) / (A @ A) * A - 0.7 * A)
    assert torch.cat([p.detach().flatten() for p in layer.parameters()]).numpy() == pytest.approx(expected, abs=1e-5)
    assert float(said) == pytest.approx(losses_by_hand(rows, weights, W, b, heads, c, constraint)[0], abs=1e-9)


@pytest.mark.parametrize(("constraint", "n_classes"), CASES)
def test_the_closed_form_is_the_gradient(constraint: Constraint, n_classes: int) -> None:
    rows = some_batch(n_classes)
    generator = torch.Generator().manual_seed(2)
    adversary = Adversary(n_classes, [2, 3], constraint, positive=1)
    with torch.no_grad():
        for p in adversary.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        adversary.sharpness.fill_(-0.6)
    logits, weights = torch.randn(N, n_classes, generator=generator), torch.rand(N, 2, generator=generator)
    batch = adversary.batch(rows.y, rows.s, weights, logits.dtype)
    expected = torch.autograd.grad(adversary.loss(logits, batch), list(adversary.parameters()))
    adversary.backward(logits, batch)
    for p, g in zip(adversary.parameters(), expected, strict=True):
        assert p.grad is not None and torch.allclose(p.grad, g, atol=1e-6)
    assert all_of(bool(g.abs().max() > 1e-4) for g in expected)


class _Sigmoid(torch.nn.Module):
    """A logit, or its probability, from one vector of weights: fairlearn projects each tensor by itself, and takes the
    inner product rightly for vectors only."""

    def __init__(self, probability: bool) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5, 0.1]))
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = (x @ self.w).unsqueeze(1)
        return torch.sigmoid(z) if self.probability else z


@pytest.mark.filterwarnings("ignore")  # fairlearn's own, of its imports
@pytest.mark.parametrize("constraint", ["demographic_parity", "equalized_odds"])
def test_a_step_is_fairlearns(constraint: Constraint) -> None:
    from fairlearn.adversarial import AdversarialFairnessClassifier

    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    # As many rows in every cell, where balancing changes nothing.
    y, s = np.arange(40) % 2, np.arange(40) // 2 % 2
    theirs = _Sigmoid(True)
    width = 2 if constraint == "equalized_odds" else 1
    head = torch.nn.Linear(width, 1)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.3, -0.8]])[:, :width])
        head.bias.fill_(0.2)
    peer = AdversarialFairnessClassifier(
        backend="torch",
        predictor_model=theirs,
        adversary_model=torch.nn.Sequential(head, torch.nn.Sigmoid()),
        predictor_optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.5),
        adversary_optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.0),
        constraints=constraint,
        alpha=0.7,
        batch_size=40,
        epochs=1,
    ).fit(x, y, sensitive_features=s)
    assert peer.backendEngine_.predictor_model is theirs
    rows = TrainingSet(
        x=torch.from_numpy(x),
        y=torch.from_numpy(y),
        s=torch.from_numpy(s[:, None]),
        levels=(("0", "1"),),
        features=("s",),
        positive=1,
        rows=np.arange(40),
    )
    ours = _Sigmoid(False)
    step = AdversarialStep(
        TorchModel(ours, classes=[0, 1]),
        rows,
        torch.optim.SGD(ours.parameters(), lr=0.5),
        constraint=constraint,
        pressure=Pressure(alpha=0.7),
        adversary_steps=1,
        adversary_learning_rate=1e-30,
    )
    with torch.no_grad():
        # Their input is [probability, y]; their one logit is the difference of our two.
        step.adversary.sharpness.zero_()
        step.adversary.heads[0].weight[1, 0] = 1.3  # type: ignore[index]
        if constraint == "equalized_odds":
            step.adversary.heads[0].weight[1, 3] = -0.8  # type: ignore[index]
        step.adversary.heads[0].bias[1] = 0.2  # type: ignore[index]
    step((rows.x, rows.y, rows.s, step.weights))
    start = _Sigmoid(False).w
    assert torch.allclose(ours.w, theirs.w, atol=1e-6) and not torch.allclose(ours.w, start, atol=1e-3)


def test_alpha_and_the_learning_rate_follow_their_schedule() -> None:
    fixed = {"alpha": 2.0, "quiet_steps": 4, "steps": 14, "steps_per_epoch": 5}
    constant, linear_, sqrt = (Pressure(alpha_schedule=k, **fixed) for k in ("constant", "linear", "sqrt"))  # type: ignore[arg-type]
    for pressure in (constant, linear_, sqrt):
        assert [pressure.alpha_at(k) for k in (1, 4)] == [0.0, 0.0] and pressure.rate_at(4) == 1.0
    assert [constant.alpha_at(k) for k in (5, 14)] == [2.0, 2.0]
    assert [linear_.alpha_at(k) for k in (5, 9, 14)] == pytest.approx([0.2, 1.0, 2.0])
    assert [sqrt.alpha_at(k) for k in (5, 9, 10, 14)] == pytest.approx([2.0, 2.0, 2.0 * 2**0.5, 2.0 * 2**0.5])
    assert [sqrt.rate_at(k) for k in (5, 9, 10, 15)] == pytest.approx([1.0, 1.0, 1 / 2, 1 / 3])
    for pressure in (constant, linear_):
        cosine = [0.5 * (1 + math.cos(math.pi * k / 10)) for k in (0, 5, 9)]
        assert [pressure.rate_at(k) for k in (5, 10, 14)] == pytest.approx(cosine)
    rows, model = some_batch(2), linear(2)
    step = AdversarialStep(
        model,
        rows,
        torch.optim.SGD(model.module.parameters(), lr=0.4),
        constraint="equalized_odds",
        pressure=Pressure(alpha=1.0, alpha_schedule="sqrt", steps=3),
        adversary_steps=1,
        adversary_learning_rate=0.05,
    )
    step.adversary.double()
    rates = []
    for _ in range(3):
        step((rows.x, rows.y, rows.s, step.weights.double()))
        rates.append(step.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([0.4, 0.2, 0.4 / 3])


# ---- the gap between means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("constraint", "n_classes"), CASES)
def test_the_mean_gap_is_counted_out(constraint: Constraint, n_classes: int) -> None:
    rows = some_batch(n_classes)
    q = torch.rand(N, 1 if n_classes == 2 else n_classes, generator=torch.Generator().manual_seed(3))
    y, s = rows.y.numpy(), rows.s.numpy()
    every = np.ones(N, bool)
    parts = {
        "demographic_parity": [every],
        "equalized_odds": [y == k for k in range(n_classes)],
        "equal_opportunity": [y == 1],
    }[constraint]
    total = 0.0
    for part, column, j in product(parts, range(q.shape[1]), range(2)):
        values, groups = q.numpy()[part, column], s[part, j]
        present = [g for g in np.unique(groups)]
        total += np.mean([abs(values[groups == g].mean() - values[groups != g].mean()) for g in present])
    assert float(mean_gap(q, rows.y, rows.s, constraint, 1)) == pytest.approx(total, abs=1e-5)


def test_the_mean_gap_of_a_batch_by_hand() -> None:
    q = torch.tensor([[0.9], [0.5], [0.2], [0.4]], requires_grad=True)
    y, s = torch.tensor([1, 1, 1, 0]), torch.tensor([[0], [0], [1], [1]])
    assert mean_gap(q, y, s, "demographic_parity", 1).item() == pytest.approx(0.7 - 0.3)
    # Label 0 has rows of one group only, and adds nothing.
    for constraint in ("equalized_odds", "equal_opportunity"):
        found = mean_gap(q, y, s, constraint, 1)
        assert found.item() == pytest.approx(0.7 - 0.2)
    assert torch.autograd.grad(found, q)[0].flatten().tolist() == pytest.approx([0.5, 0.5, -1.0, 0.0])
    assert mean_gap(q, y, torch.zeros_like(s), "demographic_parity", 1).item() == 0.0


# ---- what it comes to ----------------------------------------------------------------------------------------------


def true_positive_gap(y_true, decided, *, sensitive_features) -> float:  # type: ignore[no-untyped-def]
    group = np.asarray(sensitive_features)[:, 0]
    rates = [decided[(group == g) & (y_true == 1)].mean() for g in np.unique(group)]
    return float(max(rates) - min(rates))


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "gap"),
    [
        ({}, equalized_odds_difference),
        ({"alpha_schedule": "sqrt"}, equalized_odds_difference),
        ({"alpha": 0.0, "gap_weight": 1.0}, equalized_odds_difference),
        ({"gap_weight": 0.5, "alpha_schedule": "linear"}, equalized_odds_difference),
        ({"constraint": "demographic_parity"}, demographic_parity_difference),
        ({"constraint": "demographic_parity", "alpha": 0.0, "gap_weight": 1.0}, demographic_parity_difference),
        ({"constraint": "equal_opportunity"}, true_positive_gap),
    ],
    ids=["adversary", "sqrt", "penalty", "both", "parity", "parity_penalty", "opportunity"],
)
def test_the_gap_closes_on_rows_never_seen(rows: AuditData, model: TorchModel, options: dict[str, object], gap) -> None:  # type: ignore[no-untyped-def]
    test = biased_rows(6000, 2)
    new = run(AdversarialDebiasing(epochs=20, **options), model, rows)  # type: ignore[arg-type]
    gaps = [gap(test.y_true, m.decisions(test), sensitive_features=test.sensitive_features) for m in (model, new.model)]
    accuracy = [float((m.decisions(test) == test.y_true).mean()) for m in (model, new.model)]
    assert gaps[0] > 0.2 and gaps[1] < 0.6 * gaps[0], gaps
    assert accuracy[1] > accuracy[0] - 0.05, accuracy
    assert any(str(options.get("constraint", "equalized_odds")) in note for note in new.notes)


def test_the_old_model_is_untouched_and_the_seed_decides(rows: AuditData, model: TorchModel) -> None:
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    made = [run(AdversarialDebiasing(epochs=2), model, rows.take(slice(400)), seed).model for seed in (5, 5, 6)]
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    said = [m.predict_proba(rows.X) for m in made]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    assert isinstance(made[0], TorchModel) and made[0].recipe is not None and made[0].recipe.epochs == 2


def test_an_interrupted_training_goes_on(rows: AuditData, model: TorchModel, tmp_path: Path) -> None:
    few = rows.take(slice(400))

    class Stop(Exception):
        pass

    def stop(words: str) -> None:
        if words.startswith("epoch 3"):
            raise Stop

    def train(progress, checkpoint: Path | None) -> Mitigated:  # type: ignore[no-untyped-def]
        training = Training(checkpoint=checkpoint, progress=progress)
        return AdversarialDebiasing(epochs=5).mitigate(model, few, np.random.default_rng(1), training)

    whole = train(None, None)
    with pytest.raises(Stop):
        train(stop, tmp_path / "c")
    resumed = train(None, tmp_path / "c")
    assert np.array_equal(whole.model.predict_proba(rows.X), resumed.model.predict_proba(rows.X))


def test_several_features_and_classes() -> None:
    rng = np.random.default_rng(3)
    n = 300
    data = AuditData.from_arrays(
        rng.normal(size=(n, 3)).astype(np.float32),
        rng.choice(["x", "y", "z"], n),
        classes=["x", "y", "z"],
        sensitive_features={"sex": rng.choice(["f", "m"], n), "race": rng.choice(["a", "b", "c"], n)},
    )
    arguments = {"n_features": 3, "hidden": [4], "n_outputs": 3}
    old = TorchModel(
        MLP(**arguments), classes=["x", "y", "z"], architecture={"name": "mlp", "args": arguments}, recipe=Recipe()
    )
    for constraint in ("demographic_parity", "equalized_odds"):
        new = run(AdversarialDebiasing(constraint=constraint, epochs=2), old, data).model  # type: ignore[arg-type]
        assert new.predict_proba(data.X).shape == (n, 3)
    with pytest.raises(UsageError, match="--positive"):
        run(AdversarialDebiasing(constraint="equal_opportunity"), old, data)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"alpha": 0.0, "gap_weight": 1.0}], ids=["adversary", "penalty"])
def test_every_feature_is_evened_out_over_three_classes(options: dict[str, object]) -> None:
    rng = np.random.default_rng(7)
    n = 2000
    first, second = rng.integers(2, size=n), rng.integers(3, size=n)
    skill = rng.normal(size=n)
    y = np.digitize(skill + 1.2 * first - 0.8 * second + 0.3 * rng.normal(size=n), [-0.8, 0.6])
    x = np.column_stack([skill, first, second == 1, second == 2]).astype(np.float32)
    data = AuditData.from_arrays(
        x, y, classes=[0, 1, 2], sensitive_features={"first": list(first), "second": list(second)}
    )
    arguments = {"n_features": 4, "hidden": [16], "n_outputs": 3}
    old = TorchModel(
        MLP(**arguments),  # type: ignore[arg-type]
        classes=[0, 1, 2],
        architecture={"name": "mlp", "args": arguments},
        recipe=Recipe(epochs=15, batch_size=100, learning_rate=3e-3),
    )

    def gaps(model: AuditedModel) -> list[float]:
        said = model.predict_proba(x)
        return [
            float(np.ptp([said[group == g].mean(axis=0) for g in np.unique(group)], axis=0).max())
            for group in (first, second)
        ]

    plain = gaps(run(AdversarialDebiasing(alpha=0.0, epochs=15), old, data).model)
    fair = gaps(run(AdversarialDebiasing(constraint="demographic_parity", epochs=15, **options), old, data).model)  # type: ignore[arg-type]
    assert min(plain) > 0.25 and all_of(f < 0.5 * p for f, p in zip(fair, plain, strict=True)), (plain, fair)


def test_equal_opportunity_needs_the_favourable_label_in_every_group() -> None:
    rng = np.random.default_rng(3)
    group, y = rng.choice(["a", "b"], 90), rng.integers(3, size=90)
    y[(group == "b") & (y == 1)] = 2
    data = AuditData.from_arrays(
        rng.normal(size=(90, 3)).astype(np.float32), y, classes=[0, 1, 2], positive=1, sensitive_features={"g": group}
    )
    arguments = {"n_features": 3, "hidden": [4], "n_outputs": 3}
    old = TorchModel(
        MLP(**arguments),  # type: ignore[arg-type]
        classes=[0, 1, 2],
        architecture={"name": "mlp", "args": arguments},
        recipe=Recipe(),
    )
    with pytest.raises(DataError, match="g = b has the favourable label"):
        run(AdversarialDebiasing(constraint="equal_opportunity"), old, data)
    assert run(AdversarialDebiasing(epochs=1), old, data).model.predict_proba(data.X).shape == (90, 3)


def test_a_network_without_a_recipe_is_fine_tuned_by_a_stated_one(rows: AuditData, model: TorchModel) -> None:
    bare = TorchModel(model.module, classes=[0, 1], preprocessing=model.preprocessing, architecture=model.architecture)
    new = run(AdversarialDebiasing(), bare, rows.take(slice(200))).model
    assert isinstance(new, TorchModel)
    assert new.recipe == Recipe(optimizer="adamw", epochs=4, batch_size=32, learning_rate=5e-5)


def test_what_cannot_be_done_is_refused_before_any_training(rows: AuditData, model: TorchModel) -> None:
    few = rows.take(slice(200))
    with pytest.raises(ModelError, match="post-processing"):
        run(AdversarialDebiasing(), AuditedModel.from_callable(lambda X: X.skill > 0, classes=[0, 1]), few)
    with pytest.raises(UsageError, match="--sensitive"):
        run(AdversarialDebiasing(), model, replace(few, sensitive_features=None))
    assert rows.sensitive_features is not None
    with pytest.raises(DataError, match="one group only"):
        run(AdversarialDebiasing(), model, rows.take((rows.sensitive_features.group == "a").to_numpy()))
    assert few.y_true is not None and few.sensitive_features is not None
    single = np.where(few.sensitive_features.group == "b", 0, few.y_true)
    with pytest.raises(DataError, match="one label"):
        run(AdversarialDebiasing(), model, replace(few, y_true=single))
    for options in (
        {"alpha": -1.0},
        {"warm_up": 1.0},
        {"constraint": "fairness"},
        {"epochs": 0},
        {"gap_weight": math.nan},
        {"alpha_schedule": "cosine"},
        {"batch_size": 0},
        {"learning_rate": 0.0},
    ):
        with pytest.raises(ValueError):
            AdversarialDebiasing(**options)  # type: ignore[arg-type]
