"""Certificates against brute force: what is proved holds everywhere, and no attack contradicts it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import CategoricalColumn, ImagePreprocessing, NumericColumn, TabularPreprocessing
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP, SmallCNN
from auditor.models.networks.layer_chain import layers_in_order
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.checks.error_rates import audited as audited_by
from auditor.statistics.attack_estimates import AtLeast, Bracket
from cli.commands import app
from probes.robustness import certificates, interval_bounds, robustness
from probes.robustness.certificates import (
    BoxBounds,
    Certified,
    ContradictionError,
    certify,
    decide,
    log_odds,
    most_boxes,
)
from probes.robustness.interval_bounds import Size
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of
from tests.toys.models import criterion

torch.set_num_threads(1)


def wavy(n_outputs: int, seed: int, hidden: Sequence[int] = (12, 8), gain: float = 2.0) -> nn.Module:
    """A network of two inputs whose decisions have bends and islands."""
    torch.manual_seed(seed)
    network = MLP(2, list(hidden), n_outputs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    return network


def audited(network: nn.Module, n_classes: int = 2, threshold: float = 0.5) -> TorchModel:
    columns = (NumericColumn(name="a"), NumericColumn(name="b"))
    return TorchModel(
        network,
        classes=[str(i) for i in range(n_classes)],
        preprocessing=TabularPreprocessing(columns=columns),
        outputs="logits",
        threshold=threshold,
    )


def decided_on_a_grid(
    model: TorchModel, low: Tensor, high: Tensor, positive: int | None, per_side: int = 41
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n, per_side^2) decisions on a grid of each box, its corners among them."""
    share = torch.cartesian_prod(*[torch.linspace(0.0, 1.0, per_side)] * 2)
    points = low.unsqueeze(1) + (high - low).unsqueeze(1) * share
    points = torch.minimum(torch.maximum(points, low.unsqueeze(1)), high.unsqueeze(1))
    with torch.no_grad():
        answers = torch.softmax(model.logits(points.flatten(0, 1)).double(), dim=1).numpy()
    return model.decide(answers, positive).reshape(len(low), -1)


def certified(
    model: TorchModel,
    x: Tensor,
    radii: Sequence[float],
    positive: int | None = None,
    branches: int | None = None,
    broken: Any = None,
) -> Certified:
    with torch.no_grad():
        clean = model.decide(torch.softmax(model.logits(x).double(), dim=1).numpy(), positive)
    none = np.zeros((len(radii), len(x)), np.bool_)
    balls = [(x - r, x + r) for r in radii]
    return certify(
        model, x, clean, positive, balls=balls, is_broken=none if broken is None else broken, branches=branches
    )


RADII = (0.05, 0.2, 0.6)
RULES: list[tuple[int, int | None, float]] = [
    (2, None, 0.5), (2, 1, 0.5), (2, 0, 0.3), (2, 1, 0.9), (2, 1, 0.02), (1, 1, 0.7), (1, None, 0.7), (4, None, 0.5),
]  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize(("n_outputs", "positive", "threshold"), RULES)
def test_every_row_is_decided_as_a_dense_grid_decides_it(
    n_outputs: int, positive: int | None, threshold: float
) -> None:
    proved, broken = 0, 0
    for seed in range(3):
        model = audited(wavy(n_outputs, seed), max(n_outputs, 2), threshold)
        x = torch.randn(40, 2, generator=torch.Generator().manual_seed(seed))
        found = certified(model, x, RADII, positive)
        for i, radius in enumerate(RADII):
            on_grid = decided_on_a_grid(model, x - radius, x + radius, positive)
            clean = decided_on_a_grid(model, x, x, positive, per_side=1)
            stays = (on_grid == clean).all(axis=1)
            assert not (found.proved[i] & ~stays).any()
            assert not (found.broken[i] & found.proved[i]).any()
            # A grid misses thin slivers of another decision, which branch and bound comes upon.
            assert found.broken[i][~stays].all() and (found.broken[i] & stays).sum() <= 3
        assert found.undecided.sum() <= 1
        proved, broken = proved + int(found.proved.sum()), broken + int(found.broken.sum())
    assert proved > 30
    if threshold not in (0.9, 0.02):
        assert broken > 20


def test_a_planted_fault_is_found_by_the_grid_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offset that is left out proves rows that the grid breaks, unless their own points already contradict it."""
    sound = interval_bounds._of_relu

    def off(low: Tensor, high: Tensor, slope: float) -> interval_bounds.Lines:
        lines = sound(low, high, slope)
        return interval_bounds.Lines(lines.below, lines.floor, lines.above, lines.top.roll(1, -1))

    monkeypatch.setattr(interval_bounds, "_of_relu", off)
    wrong = 0
    for seed in range(6):
        model, x = audited(wavy(2, seed)), torch.randn(40, 2, generator=torch.Generator().manual_seed(seed))
        found = certified(model, x, (0.6,))
        on_grid = decided_on_a_grid(model, x - 0.6, x + 0.6, None)
        clean = decided_on_a_grid(model, x, x, None, per_side=1)
        wrong += int((found.proved[0] & (on_grid != clean).any(axis=1)).sum())
    assert wrong > 0


def test_a_row_that_is_proved_and_broken_is_no_result() -> None:
    model, x = audited(wavy(2, 0)), torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    sure = np.flatnonzero(certified(model, x, (0.05,), branches=1).proved[0])
    assert len(sure)
    claimed = np.zeros((1, 40), np.bool_)
    claimed[0, sure[0]] = True
    with pytest.raises(ContradictionError, match="proved to keep their decision"):
        certified(model, x, (0.05,), broken=claimed)


def test_a_contradiction_ends_the_probe_without_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row that is proved is claimed to be broken by the attack."""
    model, data = sure_table(60)
    attack = robustness.attack

    def claiming(*arguments: Any, **options: Any) -> Any:
        found = attack(*arguments, **options)
        broken = found.broken.copy()
        broken[:, np.flatnonzero(~broken[-1])[0]] = True
        return replace(found, broken=broken)

    probe = Robustness(methods=["pgd", "certificate"], n_steps=4, epsilon=[0.01])
    criteria = [criterion("robust_accuracy", "at_least", 0.5)]
    sound = audited_by(probe, model, data, criteria, 0)
    monkeypatch.setattr(robustness, "attack", claiming)
    found = audited_by(probe, model, data, criteria, 0)
    assert Outcome.PASS in {f.outcome for f in sound}
    assert {f.outcome for f in found} == {Outcome.NOT_RUN}
    assert "proved to keep their decision" in found[0].reason


def test_a_network_that_is_read_wrongly_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_bias(layers: Any, shape: Any, unit: float) -> Any:
        torch.manual_seed(1)
        return interval_bounds.steps_of(list(MLP(2, [12, 8], 2).layers), shape, unit)

    monkeypatch.setattr(certificates, "steps_of", without_bias)
    with pytest.raises(ContradictionError, match="outside of the bounds"):
        certified(audited(wavy(2, 0)), torch.randn(5, 2), (0.05,))


def test_more_boxes_prove_more_and_the_same_each_time() -> None:
    model, x = audited(wavy(2, 3, hidden=(16, 16))), torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    few, some, many = (certified(model, x, (0.3,), branches=b) for b in (1, 9, 400))
    assert few.proved.sum() < some.proved.sum() < many.proved.sum()
    assert not (few.proved & ~some.proved).any() and not (some.proved & ~many.proved).any()
    assert few.undecided.sum() > many.undecided.sum()
    again = certified(model, x, (0.3,), branches=9)
    assert (again.proved == some.proved).all() and (again.broken == some.broken).all()


def test_a_smaller_ball_is_proved_with_the_larger_one() -> None:
    model, x = audited(wavy(2, 1)), torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    found = certified(model, x, (0.05, 0.1, 0.2, 0.4))
    assert (found.proved[:-1] >= found.proved[1:]).all() and (found.broken[:-1] <= found.broken[1:]).all()
    assert found.proved[0].sum() > found.proved[-1].sum() > 0


# ---- branch and bound by itself --------------------------------------------------------------------------------------


def counting(limit: float, calls: list[int]) -> Any:
    """Bounds of ``x - limit`` on [low, high] that are too low by the width of the box."""

    def bound(rows: Tensor, low: Tensor, high: Tensor) -> BoxBounds:
        calls.append(len(rows))
        width = high - low
        return BoxBounds((low - limit - width).squeeze(1), width, low)

    return bound


def test_boxes_are_counted_a_row_and_cut_in_the_middle() -> None:
    low, high = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    never = lambda rows, points: np.zeros(len(rows), np.bool_)  # noqa: E731
    # x > -0.2 needs halves of a width below 0.2 at 0: boxes 1, then 2 of 1/2, 2 of 1/4, 2 of 1/8.
    calls: list[int] = []
    assert decide(low, high, counting(-0.2, calls), never, most=7).proved.tolist() == [True]
    assert calls == [1, 2, 2, 2]
    calls = []
    assert decide(low, high, counting(-0.2, calls), never, most=6).proved.tolist() == [False]
    assert calls == [1, 2, 2]


def test_a_point_that_breaks_ends_the_row_and_no_other() -> None:
    low, high = torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    calls: list[int] = []
    found = decide(low, high, counting(-0.2, calls), lambda rows, points: rows.numpy() == 1, most=100)
    assert found.broken.tolist() == [False, True] and found.proved.tolist() == [True, False]
    assert calls == [2, 2, 2, 2]


def test_a_margin_that_is_no_number_proves_nothing() -> None:
    low = torch.zeros(1, 1, dtype=torch.float64)
    found = decide(
        low,
        low + 1.0,
        lambda rows, low, high: BoxBounds(torch.full((len(rows),), torch.nan), high - low, low),
        lambda rows, points: np.zeros(len(rows), np.bool_),
        most=64,
    )
    assert found.proved.tolist() == [False] and found.broken.tolist() == [False]


def test_a_box_without_a_middle_is_given_up() -> None:
    low = torch.ones(1, 1, dtype=torch.float64)
    high = torch.nextafter(low, 2.0 * low)
    found = decide(low, high, counting(2.0, []), lambda rows, points: np.zeros(len(rows), np.bool_), most=10**9)
    assert found.proved.tolist() == [False]


# ---- rules of decision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1.5, -0.5, 1e-300])
def test_thresholds_at_the_ends_are_those_of_the_model(threshold: float) -> None:
    """Nothing is proved that a grid denies, where one decision is always made, or by rounding alone."""
    model, x = audited(wavy(2, 0, gain=3.0), threshold=threshold), torch.randn(30, 2)
    found = certified(model, x, (0.2, 1.0), 1)
    for i, radius in enumerate((0.2, 1.0)):
        on_grid = decided_on_a_grid(model, x - radius, x + radius, 1)
        clean = decided_on_a_grid(model, x, x, 1, per_side=1)
        assert not (found.proved[i] & (on_grid != clean).any(axis=1)).any()
    if not 0.0 < threshold <= 1.0:
        assert found.proved.all()


def test_log_odds() -> None:
    assert log_odds(0.5) == 0.0 and log_odds(0.8) == pytest.approx(np.log(4.0))
    assert log_odds(0.0) == log_odds(-1.0) == -np.inf and log_odds(1.0) == log_odds(2.0) == np.inf


def test_boxes_by_default_are_as_many_as_a_network_allows() -> None:
    sizes = [
        Size.from_steps(interval_bounds.steps_of(layers_in_order(MLP(20, hidden, 2)), (20,), 0.0), (20,))
        for hidden in ([], [64, 32], [128, 128], [512, 512], [2048, 2048])
    ]
    assert [most_boxes(size) for size in sizes] == [1024, 1024, 108, 6, 1]
    # 2 x 32 bounds through the 64 and 64 numbers behind the first layer, and the 32 that they are of; and the rest.
    assert sizes[1] == Size(widest=64, slopes=2 * 32 * (64 + 64 + 32) + 64 + 64 + 32 + 32 + 2)


# ---- the probe -------------------------------------------------------------------------------------------------------


def measured(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    return Robustness(**options).measure(model, data, np.random.default_rng(0))


def curve(found: Sequence[Measurement], metric: str) -> dict[float, Any]:
    return {float(m.at["epsilon"]): m.estimate for m in found if m.metric == metric}


def sure_table(n: int = 1500) -> tuple[TorchModel, AuditData]:
    """A network that looks at ``a`` alone, bent at 0, and rows that lie within 1 of it."""
    columns = (NumericColumn(name="a"), CategoricalColumn(name="job", levels=("cook", "nurse")))
    network = MLP(3, [2], 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layers[0].weight[:, 0] = torch.tensor([1.0, -1.0])
        network.layers[2].weight[1] = torch.tensor([1.0, -1.0])
    preprocessing = TabularPreprocessing(columns=columns)
    arguments = {"n_features": 3, "hidden": [2], "n_outputs": 2}
    model = TorchModel(
        network,
        classes=["no", "yes"],
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": arguments},
    )
    rng = np.random.default_rng(0)
    a = np.round(rng.uniform(-1.0, 1.0, n), 6)
    X = pd.DataFrame({"a": a, "job": rng.choice(["cook", "nurse"], n)})
    y = np.where((a >= 0.0) == (rng.random(n) < 0.95), "yes", "no")
    return model, AuditData.from_arrays(X, y, classes=["no", "yes"], positive="yes")


def test_shares_are_those_that_the_line_between_the_classes_has() -> None:
    model, data = sure_table()
    found = measured(model, data, epsilon=(0.05, 0.5), n_samples=1500, methods=["pgd", "certificate"])
    a = data.X["a"].to_numpy()  # type: ignore[union-attr]
    right = (a >= 0.0) == (data.y_true == 1)
    for level in (0.05, 0.5):
        # A point that lies on the very edge of the ball is decided by what float32 makes of it.
        reach = level * a.std()
        inside, edge = right & (np.abs(a) > reach + 1e-4), right & (np.abs(np.abs(a) - reach) <= 1e-4)
        proved, both = curve(found, "certified_accuracy")[level], curve(found, "robust_accuracy")[level]
        assert isinstance(proved, AtLeast) and isinstance(both, Bracket)
        assert proved.n == both.n == 1500 and proved.successes == both.proved
        assert inside.sum() <= both.proved <= both.possible <= inside.sum() + edge.sum()


def test_the_certificate_passes_at_a_small_level_and_the_attack_fails_at_a_large_one() -> None:
    model, data = sure_table()
    found = measured(model, data, epsilon=(0.05, 0.5), n_samples=1500)
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    judged, _ = judge([result], [criterion("robust_accuracy", "at_least", 0.8)])
    outcomes = {f.measurement.at["epsilon"]: f.outcome for f in judged if f.criterion is not None and f.measurement}
    assert outcomes == {0.05: Outcome.PASS, 0.5: Outcome.FAIL}
    for metric, other in (("certified_accuracy", Outcome.FAIL), ("accuracy_under_pgd", Outcome.PASS)):
        judged, _ = judge([result], [criterion(metric, "at_least", 0.8)])
        assert other not in {f.outcome for f in judged if f.criterion is not None}


def test_the_certificate_draws_nothing_and_leaves_the_other_numbers_alone() -> None:
    model, data = sure_table(200)
    with_it, without = (measured(model, data, methods=m) for m in ("auto", ["noise", "missing", "pgd"]))
    named = {"certified_accuracy", "robust_accuracy"}
    assert {m.metric for m in with_it} - {m.metric for m in without} == named
    assert [m for m in with_it if m.metric not in named] == without


def test_without_labels_there_is_nothing_to_certify() -> None:
    model, data = sure_table(50)
    unlabelled = AuditData.from_arrays(data.X, None, classes=["no", "yes"], positive="yes")
    assert not curve(measured(model, unlabelled), "robust_accuracy")
    with pytest.raises(NotApplicableError, match="true labels"):
        measured(model, unlabelled, methods="certificate")


class Rounded(nn.Module):
    """A network that rounds its input first, by code of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(10.0 * torch.round(x))
        return found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.with_module(Rounded(m.module)), "Rounded"),
        (lambda m: m.with_module(m.module.double()), "float"),
        (lambda m: _of_probabilities(m), "probabilities"),
    ],
)
def test_what_is_not_certified_says_why_and_is_no_pass(change: Any, why: str) -> None:
    model, data = sure_table(12)
    other = change(model)
    if why == "float":
        other = TorchModel(
            other.module, classes=other.classes, encoder=lambda X: torch.zeros(len(X), 3).double(), outputs="logits"
        )
        moving = np.random.default_rng(0).standard_normal((12, 3))
        data = AuditData.from_arrays(moving, data.y_true, classes=[0, 1])
    found = [m for m in measured(other, data, n_steps=2) if m.metric == "robust_accuracy"]
    assert len(found) == 3
    assert all_of(isinstance(m.estimate, Bracket) and m.estimate.proved == 0 for m in found)
    assert all_of(m.detail.startswith("nothing is proved. ") and why in m.detail for m in found)
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
    # Whoever requires it is not answered, and an attack may break it all the same.
    judged, _ = judge([result], [criterion("robust_accuracy", "at_least", 0.1)])
    assert {f.outcome for f in judged} <= {Outcome.INCONCLUSIVE, Outcome.FAIL}
    with pytest.raises(NotApplicableError, match=why):
        measured(other, data, methods=["noise", "certificate"] if why != "float" else "certificate")


def _of_probabilities(model: TorchModel) -> TorchModel:
    network = nn.Sequential(model.module, nn.Softmax(dim=1))
    return TorchModel(
        network, classes=model.classes, preprocessing=model.preprocessing, outputs="probabilities", threshold=0.5
    )


def test_a_small_cnn_is_certified_within_valid_pixels() -> None:
    """Dark pictures and light ones, a long way apart, and some that lie between."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)
    )
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 40)
    X = (
        rng.integers(0, 60, (40, 6, 6, 1))
        + 100 * y[:, None, None, None]
        + 40 * (np.arange(40) < 4)[:, None, None, None]
    )
    data = AuditData.from_arrays(X.astype(np.uint8), y, classes=["0", "1"])
    preprocessing = ImagePreprocessing(size=(6, 6), mean=(0.3,), std=(0.2,))
    model = TorchModel(network, classes=["0", "1"], preprocessing=preprocessing, outputs="logits")
    inputs, labels = model.encode(data.X), torch.from_numpy(y)
    for _ in range(60):
        network.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * (torch.zeros(()) if parameter.grad is None else parameter.grad)
    levels = (2 / 255, 0.5)
    found = curve(measured(model, data, methods=["pgd", "certificate"], epsilon=levels), "robust_accuracy")
    assert found[levels[0]].proved > 25
    assert found[levels[1]].proved == 0 and found[levels[1]].possible < 20


def trained_on_digits(seed: int) -> tuple[TorchModel, Tensor]:
    """A ``small_cnn`` of width 8, trained with noise, and 24 digits that it has not seen, in [0, 1]."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    pixels, y = load_digits(return_X_y=True)
    model = TorchModel(
        SmallCNN(1, 10, width=8),
        classes=[str(i) for i in range(10)],
        preprocessing=ImagePreprocessing(size=(8, 8), mean=(0.0,), std=(1.0,)),
        outputs="logits",
    )
    x, labels = model.encode((15 * pixels).astype(np.uint8).reshape(-1, 8, 8, 1)), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=5e-3, weight_decay=0.3)
    for _ in range(4):
        for rows in torch.randperm(1500).split(64):
            optimizer.zero_grad()
            noisy = x[rows] + 0.1 * torch.randn_like(x[rows])
            nn.functional.cross_entropy(model.module(noisy), labels[rows]).backward()
            optimizer.step()
    return model, x[1500:1524]


def attacked(model: TorchModel, ball: tuple[Tensor, Tensor], clean: Tensor, step: float) -> Tensor:
    """(n,) whether a step of projected gradient descent changed a decision; ``step`` in shares of the ball's sides."""
    low, high = ball
    found, x = torch.zeros(len(low), dtype=torch.bool), low + torch.rand_like(low) * (high - low)
    for _ in range(30):
        x.requires_grad_()
        logits = model.logits(x)
        found |= logits.argmax(dim=1) != clean
        own = logits.gather(1, clean.unsqueeze(1)).squeeze(1)
        other = logits.scatter(1, clean.unsqueeze(1), -torch.inf).amax(dim=1)
        (gradient,) = torch.autograd.grad((other - own).sum(), x)
        x = torch.minimum(torch.maximum(x.detach() + step * (high - low) * gradient.sign(), low), high)
    return found


@pytest.mark.grid
@pytest.mark.parametrize("seed", range(7))
def test_no_search_breaks_a_row_that_a_small_cnn_of_group_norms_proves(seed: int) -> None:
    model, x = trained_on_digits(seed)
    balls = [((x - k / 255).clamp(0.0, 1.0), (x + k / 255).clamp(0.0, 1.0)) for k in (1, 2, 4, 80)]
    with torch.no_grad():
        clean = model.logits(x).argmax(dim=1)
    none = np.zeros((len(balls), len(x)), np.bool_)
    proved = torch.from_numpy(certify(model, x, clean.numpy(), None, balls=balls, is_broken=none).proved)
    assert proved[0].sum() > 15
    broken = [
        torch.stack([attacked(model, ball, clean, step) for step in (0.5, 0.1, 0.02)]).any(dim=0) for ball in balls
    ]
    assert not (torch.stack(broken) & proved).any()
    assert broken[-1].sum() > 15, "the search finds what there is to be found"


def hidden(model: TorchModel) -> TorchModel:
    """The same network by gains of 1e34 and 1e-34, between which float32 has no gradient."""
    network = MLP(3, [2, 2], 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.layers[0].weight.copy_(1e34 * model.module.layers[0].weight)  # type: ignore[index, union-attr, operator]
        network.layers[2].weight.copy_(1e-12 * torch.eye(2))
        network.layers[4].weight.copy_(1e-22 * model.module.layers[2].weight)  # type: ignore[index, union-attr, operator]
    arguments = {"n_features": 3, "hidden": [2, 2], "n_outputs": 2}
    return TorchModel(
        network,
        classes=model.classes,
        preprocessing=model.preprocessing,
        architecture={"name": "mlp", "args": arguments},
    )


def test_a_hidden_gradient_is_certified_as_truly_as_the_plain_network() -> None:
    plain, data = sure_table(400)
    masked = hidden(plain)
    assert (masked.decisions(data) == plain.decisions(data)).all()
    own, other = (measured(m, data, epsilon=(0.05, 0.5), methods=["pgd", "certificate"]) for m in (plain, masked))
    a = data.X["a"].to_numpy()  # type: ignore[union-attr]
    right = (a >= 0.0) == (data.y_true == 1)
    for level in (0.05, 0.5):
        inside = int((right & (np.abs(a) > level * a.std() + 1e-4)).sum())
        for found in (own, other):
            both = curve(found, "robust_accuracy")[level]
            assert inside - 1 <= both.proved <= inside + 3 and both.possible - both.proved <= 3
    result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(other))
    judged, _ = judge([result], [criterion("accuracy_under_pgd", "at_least", 0.1)])
    assert Outcome.PASS not in {f.outcome for f in judged}


@pytest.mark.slow
def test_a_scan_from_the_command_line_passes_by_proof_and_fails_by_attack(tmp_path: Path) -> None:
    model, data = sure_table(1200)
    save(model, tmp_path / "model.pt")
    rows = data.X.assign(y=np.asarray(["no", "yes"])[data.y_true])  # type: ignore[union-attr, index]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "criteria.toml").write_text(
        '[[criteria]]\nmetric = "robust_accuracy"\ndirection = "at_least"\nbound = 0.8\n', encoding="utf-8"
    )
    asked = ["scan", tmp_path / "model.pt", "--data", tmp_path / "rows.csv", "--target", "y", "--positive", "yes"]
    asked += ["--probes", "robustness", "--policy", tmp_path / "criteria.toml", "--out", tmp_path / "out"]
    asked += ["--set", "robustness.epsilon=0.05,0.5", "--set", "robustness.branches=64", "--seed", "0"]
    done = CliRunner().invoke(app, [str(word) for word in asked])
    assert done.exit_code == 1, done.output
    report = AuditReport.model_validate_json((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    found = {f.at["epsilon"]: f.outcome for f in report.findings if f.metric == "robust_accuracy"}
    assert found == {0.05: Outcome.PASS, 0.5: Outcome.FAIL}


def test_corners_are_among_the_points_of_the_grid() -> None:
    low, high = torch.tensor([[0.0, -1.0]]), torch.tensor([[1.0, 2.0]])
    model = audited(nn.Sequential(nn.Linear(2, 2)))
    seen: list[Tensor] = []
    model.logits = lambda points: seen.append(points) or torch.zeros(len(points), 2)  # type: ignore[method-assign, func-returns-value]
    decided_on_a_grid(model, low, high, None, per_side=3)
    corners = torch.tensor(list(itertools.product((0.0, 1.0), (-1.0, 2.0))))
    assert all_of(bool((seen[0] == corner).all(dim=1).any()) for corner in corners)
