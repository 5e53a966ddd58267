"""Accumulated local effects: by hand, the slow obvious way, as PyALE has them, and where partial dependence errs."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from probes.reasons.ale import AccumulatedLocalEffects, AleCurve, ale_curve, bin_edges, bins_of
from tests.quantifiers import all_of

Array = npt.NDArray[np.float64]


def curve_of(frame: pd.DataFrame, name: str, score: Any, edges: Array, seed: int = 0) -> AleCurve:
    def at(values: Array) -> Array:
        return np.asarray(score(frame.assign(**{name: values})), np.float64)

    return ale_curve(frame[name].to_numpy(float), at, edges, np.random.default_rng(seed))


def test_by_hand() -> None:
    # Effects: rows 1 and 2 cross (0, 2] at z = 1 and 3: 2z = 2 and 6, mean 4; rows 3 and 4 cross (2, 3] at z = 2 and 4:
    # 2 and 4, mean 3. So 0, 4, 7; less the mean of (0 + 4) / 2 and (4 + 7) / 2 over two rows each, 3.75.
    frame = pd.DataFrame({"x": [1.0, 2.0, 2.5, 3.0], "z": [1.0, 3.0, 2.0, 4.0]})
    found = curve_of(frame, "x", lambda X: X["x"] * X["z"], np.array([0.0, 2.0, 3.0]))
    np.testing.assert_allclose(found.values, [-3.75, 0.25, 3.25])
    np.testing.assert_allclose(found.effects, [2.0, 6.0, 2.0, 4.0])
    assert found.counts.tolist() == [2, 2]
    assert np.isfinite(found.low).all() and (found.low < found.values).all() and (found.high > found.values).all()


def slow(frame: pd.DataFrame, name: str, score: Any, edges: Array) -> Array:
    sums, total, sizes = [0.0], 0.0, []
    for k in range(len(edges) - 1):
        effects = []
        for i in range(len(frame)):
            value = frame[name].iloc[i]
            lowest, highest = k == 0 and value <= edges[0], k == len(edges) - 2 and value > edges[-1]
            if edges[k] < value <= edges[k + 1] or lowest or highest:
                one = frame.iloc[[i]]
                ends = [float(score(one.assign(**{name: edges[j]})).iloc[0]) for j in (k, k + 1)]
                effects.append(ends[1] - ends[0])
        sums.append(sums[-1] + float(np.mean(effects)))
        sizes.append(len(effects))
        total += len(effects) * (sums[-2] + sums[-1]) / 2.0
    return np.asarray(sums) - total / sum(sizes)


def wiggly(X: pd.DataFrame) -> Any:
    return np.sin(X["x"]) * X["z"] + 0.3 * X["x"] ** 2


def data(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return pd.DataFrame({"x": x, "z": 0.8 * x + 0.3 * rng.normal(size=n), "w": rng.normal(size=n)})


def test_the_slow_obvious_way_says_the_same() -> None:
    frame = data(150, 1)
    edges = bin_edges(frame["x"].to_numpy(), 5)
    np.testing.assert_allclose(curve_of(frame, "x", wiggly, edges).values, slow(frame, "x", wiggly, edges), atol=1e-12)


def test_pyale_says_the_same() -> None:
    pyale = pytest.importorskip("PyALE", reason="PyALE is not installed")
    frame = data(300, 2)

    class Predicts:
        def predict(self, X: pd.DataFrame) -> Any:
            return wiggly(X).to_numpy()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pyale.ale(X=frame, model=Predicts(), feature=["x"], grid_size=12, include_CI=False, plot=False)
    edges = theirs.index.to_numpy(float)
    assert len(edges) > 8
    np.testing.assert_allclose(curve_of(frame, "x", wiggly, edges).values, theirs["eff"].to_numpy(), atol=1e-9)


def test_partial_dependence_shows_what_never_happens_and_this_does_not() -> None:
    rng = np.random.default_rng(3)
    years = rng.uniform(0.0, 40.0, 2_000)
    frame = pd.DataFrame({"years": years, "age": years + 20.0 + rng.uniform(-2.0, 2.0, 2_000)})

    def score(X: pd.DataFrame) -> Any:
        # Up by a hundredth a year; where somebody worked before birth, as no row did, the model says anything.
        impossible = (X["age"] - 20.0 - X["years"]).abs() > 6.0
        return 0.2 + 0.01 * X["years"] + 0.4 * impossible * (X["years"] < 20.0)

    assert float((score(frame) - 0.2 - 0.01 * frame["years"]).abs().max()) < 1e-12
    edges = bin_edges(years)
    found = curve_of(frame, "years", score, edges)
    truth = 0.01 * (edges - edges[0])
    np.testing.assert_allclose(found.values - found.values[0], truth, atol=1e-9)
    dependence = np.array([float(score(frame.assign(years=e)).mean()) for e in edges])
    off = (dependence - dependence[0]) - truth
    assert off.min() < -0.2 and dependence[-1] - dependence[0] < 0.15, "partial dependence falls where the effect rises"


def test_the_band_holds_the_whole_curve_as_often_as_it_says() -> None:
    edges = np.array([-1.5, -0.7, 0.0, 0.7, 1.5])
    rng, missed, n_worlds = np.random.default_rng(4), 0, 200

    for _ in range(n_worlds):
        x = rng.uniform(-1.5, 1.5, 160)
        frame = pd.DataFrame({"x": x, "z": rng.exponential(1.0, 160)})
        found = curve_of(frame, "x", lambda X: X["x"] * X["z"], edges, seed=int(rng.integers(2**31)))
        # Of these rows' bins the true effect is the width times the mean of z, which is 1.
        sums = np.concatenate([[0.0], np.cumsum(np.diff(edges))])
        truth = sums - float((found.counts * (sums[1:] + sums[:-1]) / 2.0).sum() / found.counts.sum())
        missed += bool(((truth < found.low - 1e-12) | (truth > found.high + 1e-12)).any())
    # Skewed effects in bins of about 40: at 5 % the chance of more than 22 of 200 is below 1 in 2,000.
    assert 1 <= missed <= 22, missed


def test_edges_are_nobodys_own() -> None:
    x = np.random.default_rng(5).normal(50_000, 12_345.678, 500)
    edges = bin_edges(x)
    assert len(edges) == 11 and not np.isin(edges, x).any() and all_of(e % 1_000 == 0 for e in edges)
    counts = np.bincount(bins_of(x, edges), minlength=10)
    assert counts.min() >= 20 and counts.sum() == 500
    assert bin_edges(np.resize([0.0, 1.0], 100)).tolist() == [0.0, 1.0]
    assert bin_edges(np.full(50, 3.0)).size == 0
    rare = np.concatenate([np.zeros(100), np.ones(100), [2.0]])
    assert bin_edges(rare).tolist() == [0.0, 1.0]
    assert bin_edges(np.append(rare, 2.0)).tolist() == [0.0, 1.0, 2.0]


def model_of(score: Any) -> AuditedModel:
    return AuditedModel.from_callable(lambda X: np.asarray(score(X), np.float64), classes=("no", "yes"))


def test_the_probe_has_a_number_and_a_curve_for_each_feature_of_numbers() -> None:
    rng = np.random.default_rng(6)
    frame = pd.DataFrame(
        {
            "income": rng.normal(size=700),
            "children": rng.integers(0, 4, 700),
            "flag": rng.integers(0, 2, 700),
            "town": rng.choice(["a", "b"], 700),
            "same": 1.0,
        }
    )
    frame.loc[:9, "income"] = np.nan
    given = AuditData.from_arrays(frame, classes=("no", "yes"), positive="yes")

    def score(X: pd.DataFrame) -> Any:
        return 0.5 + 0.05 * np.clip(X["income"].fillna(0.0), -3, 3) - 0.1 * X["children"] + 0.2 * X["flag"]

    found = {m.at["feature"]: m for m in AccumulatedLocalEffects().measure(model_of(score), given, rng)}
    assert set(found) == {"income", "children", "flag"}
    assert found["flag"].estimate.value == pytest.approx(0.2) and found["children"].estimate.value == pytest.approx(0.1)
    assert found["income"].n_samples == 690 and found["income"].figure is not None
    drawn = found["children"].figure
    assert drawn is not None and drawn.series[0].x == (0.0, 1.0, 2.0, 3.0)
    np.testing.assert_allclose(np.diff(np.asarray(drawn.series[0].y, float)), -0.1)
    assert "partial dependence" in drawn.caption and "95%" in drawn.caption
    with pytest.raises(NotApplicableError, match="numbers"):
        words = AuditData.from_arrays(frame[["town"]], classes=("no", "yes"), positive="yes")
        AccumulatedLocalEffects().measure(model_of(lambda X: np.full(len(X), 0.5)), words, rng)


def test_of_a_wide_table_the_features_are_asked_about_that_go_with_the_score() -> None:
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(rng.normal(size=(300, 130)), columns=[f"c{i}" for i in range(130)])
    frame.loc[:4, "c3"] = np.nan
    given = AuditData.from_arrays(frame, classes=("no", "yes"), positive="yes")

    def score(X: pd.DataFrame) -> Any:
        return 1.0 / (1.0 + np.exp(-X["c3"].fillna(0.0) - X["c128"]))

    found = {m.at["feature"]: m for m in AccumulatedLocalEffects().measure(model_of(score), given, rng)}
    assert len(found) == 100 and {"c3", "c128"} <= set(found)
    assert "30 features" in found["c3"].detail
