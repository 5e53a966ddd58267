"""FairGAN: the coding by hand, each loss the slow way, synthetic rows like the real ones and blind to the group."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference
from scipy.stats import ks_2samp
from torch.nn.functional import one_hot as indicators

from auditor.core.errors import ConfigError, DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Training, make_mitigation
from mitigations.rows import fair_gan
from mitigations.rows.fair_gan import (
    Drawn,
    FairGan,
    Table,
    coded_columns,
    draw,
    group_guessed,
    label_gap,
    one_hot,
    total_variation,
)
from mitigations.rows.fair_gan_networks import Autoencoder, FairGanStep, Networks, Sizes
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of


@cache
def world() -> tuple[AuditData, TorchModel]:
    rows = biased_rows(3000, 1)
    return rows, trained(rows)


def run(mitigation: FairGan, model: AuditedModel, rows: AuditData, seed: int = 0, **training: object) -> Mitigated:
    return mitigation.mitigate(model, rows, np.random.default_rng(seed), Training(**training))  # type: ignore[arg-type]


# ---- rows as categories --------------------------------------------------------------------------------------------


def test_columns_become_categories_and_come_back() -> None:
    rng = np.random.default_rng(0)
    age = rng.normal(size=1000).astype(np.float32)
    # Mostly one value, as capital gains are.
    gain = np.where(rng.random(1000) < 0.9, 0.0, rng.random(1000)).astype(np.float32)
    few = rng.choice([1.0, 2.0, 5.0], 1000).astype(np.float32)
    town = np.eye(3, dtype=np.float32)[rng.integers(3, size=1000)] * (rng.random(1000) < 0.8)[:, None]
    x = np.column_stack([age, gain, few, town]).astype(np.float32)
    spans = (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 6))
    columns = coded_columns(x, ("age", "gain", "few", "town"), spans, 8)
    codes = [column.codes(x) for column in columns]
    assert [column.n_categories for column in columns][2:] == [3, 4]
    assert columns[0].n_categories == 8 and set(np.bincount(codes[0])) <= {124, 125, 126}
    # What is known by its category alone comes back as it was; a number comes back within its bin, as a real value.
    for column, code in list(zip(columns, codes, strict=True))[2:]:
        assert np.array_equal(column.values(code, rng), x[:, column.span])
    for column, code in list(zip(columns, codes, strict=True))[:2]:
        again = column.values(code, rng)
        assert np.array_equal(column.codes(np.column_stack([again[:, 0]] * 2)), code)
        assert np.isin(again[:, 0], x[:, column.span]).all()
        assert ks_2samp(again[:, 0], x[:, column.span][:, 0]).statistic < 0.03
    rows = one_hot(codes, [column.n_categories for column in columns])
    assert rows.sum() == 4000 and rows[0, codes[0][0]] == 1.0


def test_distances_by_hand() -> None:
    assert total_variation(np.asarray([0, 0, 1, 2]), np.asarray([0, 1, 1, 1]), 3) == pytest.approx(0.5)
    y, group = np.asarray([1, 1, 0, 0, 1, 0, 0, 0]), np.asarray([0, 0, 0, 0, 1, 1, 1, 1])
    assert label_gap(y, group) == pytest.approx(0.25)
    rng = np.random.default_rng(0)
    s = rng.integers(2, size=2000)
    told = np.column_stack([s, rng.normal(size=2000)]).astype(np.float32)
    assert group_guessed(told, s) == 1.0
    assert group_guessed(told[:, 1:], s) == pytest.approx(0.5, abs=0.05)


# ---- one step ------------------------------------------------------------------------------------------------------

SIZES = Sizes(columns=(3, 2), n_groups=2, embedding=4, noise=3, hidden=5)


def test_a_step_is_the_paper_s_game() -> None:
    torch.manual_seed(0)
    networks = Networks(SIZES, Autoencoder(SIZES).decoder)
    rows = torch.cat([indicators(torch.tensor([0, 1, 2, 0]), 3), indicators(torch.tensor([0, 1, 1, 0]), 2)], 1).float()
    s = torch.tensor([0, 0, 0, 1])
    groups = indicators(s, 2).float()
    step = FairGanStep(networks, weight=2.0, quiet_steps=0, learning_rate=0.0, penalty=0.0)
    torch.manual_seed(1)
    loss = float(step((rows, s)))
    torch.manual_seed(1)
    drawn = networks.generator(groups)
    assert drawn.sum(dim=1).tolist() == [2.0] * 4 and set(drawn.unique().tolist()) == {0.0, 1.0}
    real = torch.sigmoid(networks.realness(drawn, groups))
    p = torch.softmax(networks.group(drawn), dim=1)
    # -E log D1, and for every group the mean of log D2(s | x, y): the group of one row counts as the group of three.
    v2 = sum(float(torch.log(p[s == g, g]).mean().detach()) for g in (0, 1)) / 2
    assert loss == pytest.approx(-float(torch.log(real).mean().detach()) + 2.0 * v2, abs=1e-5)
    # D1's own gradient: of log D1 on real rows and log(1 - D1) on drawn ones.
    for parameter in networks.real.parameters():
        parameter.grad = None
    own = (
        -torch.log(torch.sigmoid(networks.realness(rows, groups))).mean()
        - torch.log(1.0 - torch.sigmoid(networks.realness(drawn.detach(), groups))).mean()
    )
    expected = torch.autograd.grad(own, list(networks.real.parameters()))
    torch.manual_seed(1)
    step((rows, s))
    found = [p.grad for p in networks.real.parameters()]
    # The generator's loss reaches D1's parameters too, and must not move them: it comes after D1's step.
    moved = torch.autograd.grad(
        -torch.log(torch.sigmoid(networks.realness(drawn, groups))).mean(), list(networks.real.parameters())
    )
    for gradient, d1, g in zip(found, expected, moved, strict=True):
        assert gradient is not None and torch.allclose(gradient, d1 + g, atol=1e-5)


def test_while_d1_plays_alone_d2_stays_and_a_heavy_penalty_flattens_d1() -> None:
    torch.manual_seed(0)
    networks = Networks(SIZES, Autoencoder(SIZES).decoder)
    rows = torch.cat([indicators(torch.randint(3, (64,)), 3), indicators(torch.randint(2, (64,)), 2)], 1).float()
    s = torch.arange(64) % 2
    before = [p.clone() for p in networks.group.parameters()]
    first = {k: v.clone() for k, v in networks.smoothed.state_dict().items()}
    step = FairGanStep(networks, weight=1.0, quiet_steps=3, learning_rate=0.01, penalty=0.0)
    for _ in range(3):
        step((rows, s))
    assert all_of(torch.equal(p, q) for p, q in zip(networks.group.parameters(), before, strict=True))
    step((rows, s))
    assert not all(torch.equal(p, q) for p, q in zip(networks.group.parameters(), before, strict=True))
    # The average has moved, and lags behind.
    own, average = networks.generator.state_dict(), networks.smoothed.state_dict()
    name = "first.weight"
    lag = (own[name] - average[name]).abs().max()
    assert not torch.equal(average[name], first[name]) and lag > (average[name] - first[name]).abs().max()

    def steepness(penalty: float) -> float:
        torch.manual_seed(3)
        other = Networks(SIZES, Autoencoder(SIZES).decoder)
        play = FairGanStep(other, weight=0.0, quiet_steps=0, learning_rate=0.01, penalty=penalty)
        for _ in range(60):
            play((rows, s))
        at = rows.clone().requires_grad_()
        (slope,) = torch.autograd.grad(other.realness(at, indicators(s, 2).float()).sum(), at)
        return float(slope.square().sum(dim=1).mean())

    assert steepness(50.0) < 0.2 * steepness(0.0)


# ---- what it comes to ----------------------------------------------------------------------------------------------


@cache
def mitigated(weight: float) -> tuple[Table, Drawn, Mitigated]:
    """The biased rows, the rows that were drawn like them after 30 epochs, and what came of it."""
    rows, model = world()
    with mock.patch.object(fair_gan, "draw", wraps=fair_gan.draw) as drawing:
        drawn: list[Drawn] = []
        drawing.side_effect = lambda *given: drawn.append(draw(*given)) or drawn[0]  # type: ignore[func-returns-value]
        made = run(FairGan(weight=weight, epochs=30), model, rows)
    return drawing.call_args.args[1], drawn[0], made


@pytest.mark.slow
def test_synthetic_rows_are_like_the_real_ones_but_for_the_group() -> None:
    table, fair, _ = mitigated(1.0)
    _, plain, _ = mitigated(0.0)
    for drawn in (fair, plain):
        # Marginals: the numbers themselves, not only their bins, and the shares of labels and groups.
        for j in range(2):
            assert ks_2samp(drawn.x[:, j], table.x[:, j]).statistic < 0.08
        assert abs(drawn.y.mean() - table.y.mean()) < 0.06
        assert np.bincount(drawn.group).tolist() == np.bincount(table.group).tolist()
        # What makes the rows worth learning from: the label still follows skill.
        real, own = (np.corrcoef(t.x[:, 0], t.y)[0, 1] for t in (table, drawn))
        assert own > 0.8 * real
        # A column that the network reads as sensitive is that of the row's group.
        assert np.array_equal(drawn.x[:, 2:].argmax(axis=1), drawn.group)
    gaps = [label_gap(y, group) for y, group in ((t.y, t.group) for t in (table, plain, fair))]
    assert gaps[0] > 0.15 and gaps[1] > 0.1 and gaps[2] < 0.06, gaps


@pytest.mark.slow
def test_the_gap_closes_at_a_small_cost() -> None:
    _, model = world()
    table, drawn, made = mitigated(1.0)
    test = biased_rows(6000, 2)
    said = [m.decisions(test) for m in (model, made.model)]
    gaps = [demographic_parity_difference(test.y_true, d, sensitive_features=test.sensitive_features) for d in said]
    accuracy = [float((d == test.y_true).mean()) for d in said]
    assert gaps[0] > 0.15 and gaps[1] < 0.3 * gaps[0], (gaps, made.notes)
    assert accuracy[1] > accuracy[0] - 0.03, accuracy
    assert "3,000 synthetic rows, of a generator" in made.notes[0] and "total variation" in made.notes[1]
    stated = [f"{label_gap(table.y, table.group):.3f} in the real", f"{label_gap(drawn.y, drawn.group):.3f} in the syn"]
    assert all_of(words in made.notes[2] for words in stated)


def test_same_seed_same_model_and_nothing_else_changed() -> None:
    rows, model = world()
    few = rows.take(slice(400))
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    mitigation = FairGan(epochs=2, share=0.5, rows=300)
    made = [run(mitigation, model, few, seed) for seed in (5, 5, 6)]
    said = [m.model.predict_proba(rows.X) for m in made]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    assert made[0].notes == made[1].notes and "150 synthetic rows and 150 real ones" in made[0].notes[0]
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[arg-type]


def test_an_interrupted_training_goes_on_at_any_stage(tmp_path: Path) -> None:
    rows, model = world()
    few = rows.take(slice(400))
    mitigation = FairGan(epochs=3)

    class Stop(Exception):
        pass

    whole = run(mitigation, model, few)
    for where in ("autoencoder, epoch 2", "generator, epoch 2", "epoch 2"):

        def stop(words: str, where: str = where) -> None:
            if words.startswith(where):
                raise Stop

        with pytest.raises(Stop):
            run(mitigation, model, few, checkpoint=tmp_path / "c", progress=stop)
    told: list[str] = []
    resumed = run(mitigation, model, few, checkpoint=tmp_path / "c", progress=told.append)
    assert np.array_equal(resumed.model.predict_proba(rows.X), whole.model.predict_proba(rows.X))
    assert resumed.notes == whole.notes and told[0].startswith("epoch 2 of 15")
    with pytest.raises(UsageError, match="another run"):
        run(FairGan(epochs=3, weight=2.0), model, few, checkpoint=tmp_path / "c")


def test_three_groups_of_two_features_missing_values_and_a_table_of_plain_numbers() -> None:
    rng = np.random.default_rng(0)
    n = 600
    X = pd.DataFrame({"a": rng.normal(size=n), "town": rng.choice(["x", "y", None], n), "age": rng.integers(9, size=n)})
    y = (X.a + rng.normal(size=n) > 0).astype(int).to_numpy()
    groups = {"race": rng.choice(["p", "q", "r"], n), "old": np.where(X.age > 4, "yes", "no")}
    data = AuditData.from_arrays(X, y, classes=[0, 1], positive=1, sensitive_features=groups)
    made = run(FairGan(epochs=2), trained(data, epochs=2), data)
    assert "guesses race and old" in made.notes[0] and "chance 0.167" in made.notes[2]
    model = trained(data, epochs=2)
    bare = TorchModel(model.module, classes=[0, 1], recipe=model.recipe, architecture=model.architecture, features=None)
    plain = replace(data, X=np.asarray(model.encode(X), np.float32))
    assert "synthetic rows" in run(FairGan(epochs=1), bare, plain).notes[0]


# ---- what cannot be done -------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused_before_any_training() -> None:
    from tests.mitigations.test_counterfactual_augmentation import biased, biased_texts

    rows, model = world()

    def never(words: str) -> None:
        raise AssertionError(words)

    def refused(model: AuditedModel, rows: AuditData) -> None:
        run(FairGan(), model, rows, progress=never)

    texts = biased_texts("gender")
    with pytest.raises(ModelError, match="rows of a table, and these data are of kind text"):
        refused(biased("gender"), texts)
    with pytest.raises(ModelError, match="post-processing"):
        refused(AuditedModel.from_callable(lambda X: X.skill > 0, classes=[0, 1]), rows)
    with pytest.raises(UsageError, match="--sensitive"):
        refused(model, replace(rows, sensitive_features=None))
    with pytest.raises(UsageError, match="--target"):
        refused(model, replace(rows, y_true=None))
    with pytest.raises(DataError, match="fewer than 200"):
        refused(model, rows.take(slice(150)))
    assert rows.sensitive_features is not None and isinstance(rows.X, pd.DataFrame)
    with pytest.raises(DataError, match="one group only"):
        refused(model, rows.take((rows.sensitive_features.group == "a").to_numpy()))
    only = replace(rows, X=rows.X[["group"]])
    with pytest.raises(DataError, match="no other column"):
        refused(trained(only, epochs=1), only)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight"),
        ({"weight": math.nan}, "weight"),
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"bins": 1}, "bins"),
        ({"warm_up": 1.0}, "warm_up"),
        ({"epochs": 0}, "at least 1"),
        ({"rows": 0}, "at least 1"),
        ({"lambda": 1.0}, "no option"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mitigation(FairGan, options)
