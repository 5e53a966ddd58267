"""Changes of tables are ones that may occur: of what varies, within what was observed, in the column's own kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import ConfigError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import NumericColumn, TabularPreprocessing, fit_tabular
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.run.probe import make_probe
from probes.robustness.certificates import certify
from probes.robustness.perturbation_set import Ball, ball_of, snapped
from probes.robustness.robustness import Robustness
from probes.robustness.table_noise import NumberColumn, gap_rates, number_columns, with_gaps, with_noise
from probes.robustness.worst_case_search import Attacked, attack
from tests.quantifiers import all_of, none_of

CLASSES = ("0", "1")


def census(n: int, seed: int = 0) -> pd.DataFrame:
    """Rows with the traits of Adult: an age, hours a week, an amount that 92 % do not have, indicators, gaps."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "age": rng.integers(17, 91, n),
            "hours": rng.integers(1, 100, n),
            "gain": np.where(rng.random(n) < 0.92, 0, rng.integers(1_000, 99_999, n)),
            "weight": rng.lognormal(2.0, 1.0, n),
            "kind_a": (kind == 0).astype(int),
            "kind_b": (kind == 1).astype(int),
            "kind_c": (kind == 2).astype(int),
            "year": np.full(n, 1994),
            "work": pd.Series(rng.choice(["private", "state"], n)).mask(pd.Series(rng.random(n) < 0.08)),
            "country": pd.Series(rng.choice(["here", "there"], n)).mask(pd.Series(rng.random(n) < 0.02)),
        }
    )


NUMERIC = ["age", "hours", "gain", "weight", "kind_a", "kind_b", "kind_c", "year"]


def of_census(X: pd.DataFrame, **more: Any) -> AuditData:
    y = np.random.default_rng(1).integers(0, 2, len(X))
    return AuditData.from_arrays(X, y, classes=CLASSES, positive="1", **more)


def curve(measurements: Sequence[Measurement], metric: str) -> dict[float, float]:
    return {float(next(iter(m.at.values()))): m.estimate.value for m in measurements if m.metric == metric and m.at}


def flips(found: Sequence[Measurement], method: str) -> float:
    return max(m.estimate.value for m in found if m.metric == f"flip_rate_under_{method}" and not m.group)


# ---- which columns, and within what --------------------------------------------------------------------------------


def test_what_may_occur_in_a_column_is_read_off_its_values() -> None:
    X = census(4_000)
    known = {column.name: column for column in number_columns(X, NUMERIC)}
    assert set(known) == {"age", "hours", "gain", "weight"}, (
        "constants and columns of two values cannot change a little"
    )
    assert known["age"] == NumberColumn("age", 17.0, 90.0, float(X["age"].std(ddof=0)), whole=True)
    had = X.loc[X["gain"] > 0, "gain"]
    assert known["gain"] == NumberColumn("gain", had.min(), had.max(), pytest.approx(had.std(ddof=0)), True, absent=0.0)
    assert known["weight"].absent is None and not known["weight"].whole


@pytest.mark.parametrize("shift", [0.0, -3.5])
def test_an_absent_amount_is_known_after_scaling_too(shift: float) -> None:
    X = census(500)[["gain"]] / 7_000.0 + shift
    (gain,) = number_columns(X, ["gain"])
    assert gain.absent == pytest.approx(shift)
    (half,) = number_columns(pd.DataFrame({"x": [0.0, 0.0, 1.0, 2.0]}), ["x"])
    assert half.absent is None, "half is not most"
    (middle,) = number_columns(pd.DataFrame({"x": [1.0, 2.0, 3.0, *[2.5] * 9]}), ["x"])
    assert middle.absent is None, "the usual value of a column is no absence"
    (score,) = number_columns(pd.DataFrame({"x": [1, 1, 1, 1, 2, 3]}), ["x"])
    assert score.absent is None, "nor is the lowest of a scale"


def test_noise_gives_and_takes_no_amounts_and_leaves_indicators_alone() -> None:
    X = census(3_000)
    columns = number_columns(X, NUMERIC)
    noisy = with_noise(X, columns, np.random.default_rng(0).standard_normal((len(X), len(columns))), 2.0)
    has = X["gain"] > 0
    assert ((noisy["gain"] > 0) == has).all() and (noisy["gain"][has] != X["gain"][has]).mean() > 0.9
    assert noisy["gain"][has].between(X["gain"][has].min(), X["gain"][has].max()).all()
    assert (noisy[["kind_a", "kind_b", "kind_c"]].sum(axis=1) == 1).all()
    for name in ("age", "hours", "weight"):
        assert noisy[name].between(X[name].min(), X[name].max()).all() and (noisy[name] != X[name]).mean() > 0.9
    assert (noisy[["age", "hours", "gain"]].dtypes == X[["age", "hours", "gain"]].dtypes).all()
    pd.testing.assert_frame_equal(noisy.drop(columns=list(NUMERIC)), X.drop(columns=list(NUMERIC)))


# ---- the probe asks about rows that may occur ----------------------------------------------------------------------


def asked_about(probe: Robustness, data: AuditData) -> list[pd.DataFrame]:
    seen: list[pd.DataFrame] = []

    def predict(rows: pd.DataFrame) -> Any:
        seen.append(rows.copy())
        return np.full(len(rows), 0.7)

    features = list(pd.DataFrame(data.X).columns)
    probe.measure(
        AuditedModel.from_callable(predict, classes=CLASSES, features=features), data, np.random.default_rng(0)
    )
    return seen


def test_sensitive_and_immutable_columns_stay_as_they_are() -> None:
    X = census(400)
    data = of_census(X, sensitive_features=X[["age"]])
    as_they_are, *changed = asked_about(
        Robustness(methods=["noise", "missing"], immutable="hours, work", n_samples=400), data
    )
    assert len(changed) == 7
    for rows in changed:
        pd.testing.assert_frame_equal(rows[["age", "hours", "work"]], as_they_are[["age", "hours", "work"]])
    assert (changed[3]["weight"] != as_they_are["weight"]).mean() > 0.9
    _, *free = asked_about(Robustness(methods=["noise", "missing"], n_samples=400), of_census(X))
    assert (free[3]["age"] != as_they_are["age"]).mean() > 0.9 and (
        free[3]["hours"] != as_they_are["hours"]
    ).mean() > 0.9


def test_a_column_that_does_not_exist_cannot_be_immutable() -> None:
    data = of_census(census(50))
    with pytest.raises(UsageError, match="immutable: there is no column 'hour'; did you mean 'hours'?"):
        asked_about(Robustness(immutable="age,hour"), data)
    probe = make_probe(Robustness, {"immutable": "age, hours"})
    assert isinstance(probe, Robustness) and probe.immutable == ("age", "hours")
    assert Robustness(immutable=["age"]).immutable == ("age",) and Robustness().immutable == ()
    assert Robustness(immutable=[0, 2]).immutable == ("0", "2")
    with pytest.raises(ConfigError, match="immutable must be a text or texts, not 1.5"):
        make_probe(Robustness, {"immutable": 1.5})


def encoded(weights: dict[str, float], bias: float, X: pd.DataFrame) -> tuple[TorchModel, TabularPreprocessing]:
    """A model whose logit is ``sum of weight * value + bias`` of raw columns."""
    preprocessing = fit_tabular(X)
    module = nn.Linear(preprocessing.width, 1)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.fill_(bias)
        for column, span in zip(preprocessing.columns, preprocessing.spans, strict=True):
            if column.name in weights:
                module.weight[0, span] = weights[column.name] * column.scale  # type: ignore[union-attr]
                module.bias += weights[column.name] * column.mean  # type: ignore[union-attr]
    model = TorchModel(module, classes=CLASSES, preprocessing=preprocessing, outputs="logits")
    return model, preprocessing


@pytest.mark.grid
@pytest.mark.parametrize(
    ("weights", "bias", "why"),
    [
        ({"gain": 1.0}, 400.0, "a negative gain alone is decided otherwise"),
        ({"gain": -1.0}, 700.0, "a gain of somebody who had none"),
        ({"hours": 1.0}, -0.5, "less than an hour"),
        ({"hours": -1.0}, 99.4, "more hours than anybody works"),
        ({"age": 1.0}, -40.5, "another age, which is sensitive"),
        ({"weight": 1.0}, -7.0, "another weight, which is called immutable"),
        ({"year": 1.0}, -1994.2, "another year, which is the same for all"),
        ({"kind_a": 1.0}, -0.4, "half an indicator"),
    ],
)
def test_no_row_that_cannot_occur_counts_as_a_flip(weights: dict[str, float], bias: float, why: str) -> None:
    X = census(600)
    model, _ = encoded(weights, bias, X)
    data = of_census(X, sensitive_features=X[["age"]])
    probe = Robustness(noise=[0.5], epsilon=[0.5], methods=["noise", "pgd"], immutable="weight", n_samples=600)
    found = probe.measure(model, data, np.random.default_rng(0))
    assert flips(found, "noise") == flips(found, "pgd") == 0.0, why


class _BetweenHours(nn.Module):
    """Decides otherwise wherever hours are no whole number."""

    def __init__(self, place: int, mean: float, scale: float) -> None:
        super().__init__()
        self.place, self.mean, self.scale = place, mean, scale

    def forward(self, x: Tensor) -> Tensor:
        hours = x[:, self.place] * self.scale + self.mean
        z = torch.cos(2.0 * torch.pi * hours) - 0.9
        return torch.stack([-z, z], dim=1)


def test_hours_are_whole_for_a_worst_case_too() -> None:
    X = census(60)[["hours", "weight"]]
    preprocessing = fit_tabular(X)
    hours = preprocessing.columns[0]
    model = TorchModel(
        _BetweenHours(0, hours.mean, hours.scale),  # type: ignore[union-attr]
        classes=CLASSES,
        preprocessing=preprocessing,
    )
    found = Robustness(methods="pgd", epsilon=[0.2]).measure(model, of_census(X), np.random.default_rng(0))
    assert flips(found, "pgd") == 0.0


@pytest.mark.parametrize("bundled", [True, False])
def test_a_worst_case_that_can_occur_is_found_all_the_same(bundled: bool) -> None:
    """By the closed form: a linear model of hours flips exactly the rows that whole steps within reach bring over."""
    X = census(500)[["hours", "gain", "weight"]].astype({"hours": float, "gain": float})
    X.loc[::9, "hours"] = np.nan
    model, preprocessing = encoded({"hours": 1.0}, -50.5, X)
    if not bundled:
        X = X.fillna({"hours": 40.0})
        plain = nn.Linear(3, 1)
        with torch.no_grad():
            plain.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
            plain.bias.fill_(-50.5)
        model = TorchModel(plain, classes=CLASSES)
    found = Robustness(methods="pgd", epsilon=[0.2], n_samples=500).measure(
        model, of_census(X), np.random.default_rng(0)
    )
    hours = X["hours"].to_numpy(float)
    reach = np.floor(0.2 * np.nanstd(hours))
    margin = np.where(hours > 50.5, hours - 50.5, 50.5 - hours)
    expected = np.where(np.isnan(hours), False, margin < reach)
    assert flips(found, "pgd") == pytest.approx(expected.mean(), abs=1e-9)
    assert 0.05 < expected.mean() < 0.3
    if bundled:
        assert np.isnan(hours).any()
    assert preprocessing.width == 3


# ---- missing values ------------------------------------------------------------------------------------------------


def test_cells_go_missing_where_the_data_have_gaps() -> None:
    X = census(20_000)
    rates = dict(zip(X.columns, gap_rates(X, ()), strict=True))
    assert rates["work"] == 1.0 and rates["country"] == pytest.approx(0.25, abs=0.05)
    assert none_of(rates[name] for name in NUMERIC)
    assert dict(zip(X.columns, gap_rates(X, ["work"]), strict=True))["country"] == 1.0
    whole = X.drop(columns=["work", "country"])
    assert gap_rates(whole, ["age"]).tolist() == [0.0] + [1.0] * (len(whole.columns) - 1)
    assert gap_rates(X.iloc[:0], ["age"]).tolist() == [0.0] + [1.0] * (len(X.columns) - 1)


def test_the_probe_empties_columns_as_often_as_the_data_do() -> None:
    X = census(2_000)
    probe = Robustness(methods="missing", missing=[0.1, 0.4], n_samples=2_000)
    as_they_are, few, many = asked_about(probe, of_census(X))
    new = [(rows.isna() & ~as_they_are.isna()).mean() for rows in (few, many)]
    for level, shares in zip((0.1, 0.4), new, strict=True):
        assert shares["work"] == pytest.approx(level * 0.92, abs=0.03)
        assert 0.0 < shares["country"] < 0.6 * shares["work"]
        assert none_of(shares[name] for name in NUMERIC)
    assert (many.isna() | ~few.isna()).all(axis=None)


def test_gaps_take_a_rate_for_each_column() -> None:
    X = census(1_000)
    u = np.random.default_rng(0).random(X.shape)
    rates = np.zeros(X.shape[1])
    rates[1] = 0.3
    gappy = with_gaps(X, u, rates)
    assert gappy["hours"].isna().mean() == pytest.approx(0.3, abs=0.05)
    pd.testing.assert_frame_equal(gappy.drop(columns="hours"), X.drop(columns="hours"))
    assert all_of(str(gappy[name].dtype) == str(X[name].dtype) for name in X.columns if name != "hours")


# ---- the search among rows that may occur --------------------------------------------------------------------------


def network(preprocessing: TabularPreprocessing) -> TorchModel:
    """Of random weights, large enough for decisions to change within a few hours or years."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(preprocessing.width, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        module[0].weight *= 4.0
    return TorchModel(module, classes=CLASSES, preprocessing=preprocessing, outputs="logits")


def found_by_search(model: TorchModel, data: AuditData, level: float) -> tuple[Attacked, Tensor]:
    inputs, clean = model.encode(data.X), model.decisions(data)
    found = attack(
        model,
        inputs,
        clean,
        lambda p: model.decide(p, data.positive),
        ball=ball_of(model, data, inputs),
        levels=[level],
        n_steps=20,
        rng=np.random.default_rng(0),
    )
    return found, inputs


def test_every_example_that_a_search_finds_is_a_row_that_may_occur() -> None:
    X = census(400)
    X.loc[::7, "weight"] = np.nan
    preprocessing = fit_tabular(X)
    model = network(preprocessing)
    found, inputs = found_by_search(model, of_census(X, sensitive_features=X[["age"]]), 1.0)
    hit = found.broken[0]
    assert 0.2 < hit.mean() < 1.0
    examples, moved = found.examples.double().numpy()[hit], 0
    for column, span in zip(preprocessing.columns, preprocessing.spans, strict=True):
        if not isinstance(column, NumericColumn):
            assert (examples[:, span] == inputs.double().numpy()[hit][:, span]).all()
            continue
        raw, plain = examples[:, span.start] * column.scale + column.mean, X[column.name].to_numpy(float)[hit]
        known = ~np.isnan(plain)
        apart = np.abs(raw - plain)[known]
        own = X[column.name][X[column.name] != 0] if column.name == "gain" else X[column.name]
        assert (apart <= own.std(ddof=0) * 1.001).all()
        if column.name in ("age", "year", "kind_a", "kind_b", "kind_c"):
            assert apart.max() < 1e-3, column.name
            continue
        moved += int((apart > 0.5).sum())
        assert raw[known].min() >= X[column.name].min() - 0.02 and raw[known].max() <= X[column.name].max() + 0.02
        assert raw[~known] == pytest.approx(column.impute, abs=1e-4)
        if column.name != "weight":
            assert np.abs(raw - np.round(raw)).max() < 0.02, column.name
            assert ((np.round(raw) == 0) == (plain == 0)).all(), column.name
    assert moved > hit.sum()


def test_a_search_among_whole_numbers_finds_what_trying_all_of_them_finds() -> None:
    X = census(300)[["age", "hours"]]
    preprocessing = fit_tabular(X)
    model = network(preprocessing)
    data = of_census(X)
    found, _ = found_by_search(model, data, 0.15)
    clean, moved = model.decisions(data), np.zeros(len(X), bool)
    reach = [int(0.15 * column.scale) for column in preprocessing.columns if isinstance(column, NumericColumn)]
    assert min(reach) >= 2
    for years in range(-reach[0], reach[0] + 1):
        for hours in range(-reach[1], reach[1] + 1):
            tried = X.assign(age=(X["age"] + years).clip(17, 90), hours=(X["hours"] + hours).clip(1, 99))
            moved |= model.decide(model.predict_proba(tried), data.positive) != clean
    assert 0.05 < moved.mean() < 0.6
    assert not (found.broken[0] & ~moved).any() and (moved & ~found.broken[0]).mean() <= 0.01


def test_a_certificate_is_about_whole_numbers_alone_and_decides_every_row_as_trying_all_does() -> None:
    X = census(300)[["age", "hours"]]
    preprocessing = fit_tabular(X)
    model = network(preprocessing)
    data = of_census(X)
    inputs, clean = model.encode(X), model.decisions(data)
    ball = ball_of(model, data, inputs)
    levels, moved = (0.15, 0.3), np.zeros((2, len(X)), bool)
    for i, level in enumerate(levels):
        reach = [int(level * column.scale) for column in preprocessing.columns if isinstance(column, NumericColumn)]
        for years in range(-reach[0], reach[0] + 1):
            for hours in range(-reach[1], reach[1] + 1):
                tried = X.assign(age=(X["age"] + years).clip(17, 90), hours=(X["hours"] + hours).clip(1, 99))
                moved[i] |= model.decide(model.predict_proba(tried), data.positive) != clean
    found = certify(
        model,
        inputs,
        clean,
        data.positive,
        balls=[ball.around(inputs, level) for level in levels],
        is_broken=np.zeros((2, len(X)), bool),
        whole=ball.steps,
    )
    assert (found.proved == ~moved).all() and (found.broken == moved).all()
    assert 0.05 < moved[0].mean() < moved[1].mean() < 0.9


def bump(column: NumericColumn) -> nn.Module:
    """A network that decides otherwise at about 40.5 hours, of layers that a certificate knows."""
    first, last = nn.Linear(1, 3), nn.Linear(3, 2)
    with torch.no_grad():
        first.weight.fill_(column.scale)
        first.bias.copy_(column.mean - torch.tensor([40.25, 40.5, 40.75]))
        last.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 1.0]]))
        last.bias.copy_(torch.tensor([0.1, 0.0]))
    return nn.Sequential(first, nn.ReLU(), last)


def test_what_lies_between_two_whole_numbers_is_neither_proved_nor_broken() -> None:
    X = pd.DataFrame({"hours": np.random.default_rng(0).integers(30, 50, 200)})
    preprocessing = fit_tabular(X)
    (column,) = preprocessing.columns
    assert isinstance(column, NumericColumn)
    model = TorchModel(bump(column), classes=CLASSES, preprocessing=preprocessing, outputs="logits")
    data = of_census(X)
    inputs, clean = model.encode(X), model.decisions(data)
    assert (clean == 0).all()
    ball = ball_of(model, data, inputs)
    balls, none = [ball.around(inputs, 0.5)], np.zeros((1, 200), bool)
    whole = certify(model, inputs, clean, data.positive, balls=balls, is_broken=none, whole=ball.steps)
    assert whole.proved.all() and not whole.broken.any()
    with_fractions = certify(model, inputs, clean, data.positive, balls=balls, is_broken=none)
    near = np.abs(X["hours"].to_numpy() - 40.5) < int(0.5 * column.scale)
    assert (with_fractions.broken[0] == near).all() and 0.1 < near.mean() < 0.9


def test_the_probe_proves_and_searches_in_the_same_ball() -> None:
    """A negative gain, or another age, would break every row: none may be moved there, and so all are proved."""
    X = census(200)
    model, _ = encoded({"gain": 1.0, "age": 1e-6}, 400.0, X)
    wide = nn.Linear(model.module.in_features, 2)  # type: ignore[union-attr]
    with torch.no_grad():
        wide.weight.zero_()
        wide.bias.zero_()
        wide.weight[1] = model.module.weight[0]  # type: ignore[union-attr]
        wide.bias[1] = model.module.bias[0]  # type: ignore[union-attr]
    both = TorchModel(wide, classes=CLASSES, preprocessing=model.preprocessing, outputs="logits")
    data = AuditData.from_arrays(X, ["1"] * 200, classes=CLASSES, positive="1", sensitive_features=X[["age"]])
    found = Robustness(methods=["pgd", "certificate"], epsilon=[0.5], n_samples=200).measure(
        both, data, np.random.default_rng(0)
    )
    (proved,) = [m for m in found if m.metric == "certified_accuracy"]
    assert proved.estimate.value == 1.0 and flips(found, "pgd") == 0.0


def test_whole_steps_are_taken_off_a_ball_and_the_ball_of_some_rows_is_theirs() -> None:
    inputs = torch.tensor([[0.0, 0.0], [1.0, 5.0], [2.0, 9.0]])
    radius = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    limits = torch.tensor([[0.0, -9.0]] * 3), torch.tensor([[3.0, 9.5]] * 3)
    ball = Ball(radius, limits, steps=torch.tensor([1.0, 0.0]), by_row=True)
    low, high = ball.around(inputs, 1.7)
    assert low.tolist() == [[0.0, pytest.approx(-1.7)], [0.0, 5.0], [1.0, pytest.approx(7.3)]]
    assert high.tolist() == [[1.0, pytest.approx(1.7)], [2.0, 5.0], [3.0, 9.5]]
    places = torch.tensor([2, 0])
    few = ball.subset(places)
    again = few.around(inputs[places], 1.7)
    assert torch.equal(again[0], low[places]) and torch.equal(again[1], high[places])
    points = torch.tensor([[0.6, 0.33], [0.4, 5.0], [2.9, 8.1]])
    whole = torch.tensor([[1.0, 0.33], [0.0, 5.0], [3.0, 8.1]])
    assert torch.equal(snapped(points, low, ball.steps), whole)
    assert snapped(points, low, None) is points and Ball(torch.ones(1)).subset(places).radius.shape == (1,)
