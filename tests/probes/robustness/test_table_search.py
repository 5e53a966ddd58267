"""The search by asking alone, against trees of a known boundary, steps of files and asking about every row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray, Rows
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.statistics.attack_estimates import AtLeast, AtMost, Bracket
from auditor.statistics.estimate import Undefined
from probes.robustness.query_attacks import AttackedRows, attack_rows, moving_rows, square_attack
from probes.robustness.robustness import Robustness
from tests.quantifiers import all_of, none_of
from tests.toys import detectors as media

CLASSES = ("0", "1")
LEVELS = (0.05, 0.1, 0.2)
Predict = Callable[[Any], Any]


def clouds(n: int = 300, d: int = 4, seed: int = 0) -> pd.DataFrame:
    X = np.random.default_rng(seed).standard_normal((n, d)) * [3.0, 1.0, 0.1, 50.0][:d]
    return pd.DataFrame(X, columns=list("abcd")[:d])


def fitted(X: pd.DataFrame, y: Any, **options: Any) -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0, **options).fit(X, y)


def audit_data(X: Any, y: Any = None, **more: Any) -> AuditData:
    return AuditData.from_arrays(X, y, classes=CLASSES, positive="1", **more)


def black_box(predict: Predict) -> AuditedModel:
    return AuditedModel.from_callable(predict, classes=CLASSES)


def search(model: AuditedModel, X: pd.DataFrame, **options: Any) -> tuple[AttackedRows, list[pd.DataFrame]]:
    """What is found about all the rows, and the tables that were asked about."""
    data, asked = audit_data(X), []

    def ask(rows: Rows) -> FloatArray:
        asked.append(pd.DataFrame(rows))
        return model.predict_proba(rows)

    def decide(rows: Any, sure: FloatArray) -> Any:
        return model.decide(sure, 1, rows)

    clean = decide(X, model.predict_proba(X))
    everyone = np.arange(len(X), dtype=np.int64)
    table = moving_rows(model, data, data, clean, everyone, options.pop("fixed", frozenset()))
    settings = {"levels": LEVELS, "n_queries": 100, "rng": np.random.default_rng(0)} | options
    found = attack_rows(table, clean, ask, decide, **settings)
    assert found.asked.sum() == sum(len(rows) for rows in asked)
    changed = decide(found.examples, model.predict_proba(found.examples)) != clean
    assert (changed == found.broken[-1]).all(), "what was found holds, and nothing else was kept"
    return found, asked


def measured(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    return Robustness(**options).measure(model, data, np.random.default_rng(0))


def curve(found: Sequence[Measurement], metric: str) -> dict[float, float]:
    of_all = [m for m in found if m.metric == metric and not m.group and not m.sensitive]
    return {float(m.at["epsilon"]): m.estimate.value for m in of_all}


# ---- what is found, and what is there ------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [False, True])
def test_a_tree_is_broken_beyond_the_distance_of_its_boundary_and_not_below(labels: bool) -> None:
    X = clouds()
    tree = fitted(X, (X["b"] > 0.3).astype(int), max_depth=1)
    model = black_box(tree.predict if labels else tree.predict_proba)
    away = (X["b"] - tree.tree_.threshold[0]).abs() / X["b"].std(ddof=0)
    found, _ = search(model, X)
    for level, broken in zip(LEVELS, found.broken, strict=True):
        assert broken.tolist() == (away < level).tolist()
    assert 0 < found.broken[0].sum() < found.broken[2].sum()
    assert not found.graded, "a tree's leaves of one class answer with classes alone"


@pytest.mark.parametrize("depth", [2, 6, None])
def test_against_asking_about_every_row_of_the_ball(depth: int | None) -> None:
    rng = np.random.default_rng(1)
    X = pd.DataFrame({name: rng.integers(0, 30, 160) for name in "abc"})
    y = ((X["a"] - 15) * (X["b"] - 12) + 3 * X["c"] + rng.normal(0, 20, 160) > 40).astype(int)
    tree = fitted(X, y, max_depth=depth, min_samples_leaf=3)
    model = black_box(tree.predict_proba)
    found, _ = search(model, X)
    clean = model.decide(model.predict_proba(X), 1)
    for level, broken in zip(LEVELS, found.broken, strict=True):
        reach = [int(level * X[name].std(ddof=0)) for name in X]
        steps = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach))))
        there = np.stack([X.to_numpy() + step for step in steps])
        inside = ((there >= X.min().to_numpy()) & (there <= X.max().to_numpy())).all(axis=2)
        every = pd.DataFrame(there.reshape(-1, 3), columns=list(X))
        answers = model.decide(model.predict_proba(every), 1).reshape(len(steps), -1)
        can_be = ((answers != clean) & inside).any(axis=0)
        assert none_of(broken & ~can_be), "nothing outside of the ball counts"
        assert broken.sum() >= 0.97 * can_be.sum()
    assert found.broken[2].sum() > 10


def test_a_strip_that_no_corner_of_the_ball_lies_in_is_found_by_the_rows_in_it() -> None:
    X = clouds(d=2)

    def predict(rows: pd.DataFrame) -> Any:
        return (rows["b"].abs() < 0.02).to_numpy(float)

    inside = X["b"].abs() < 0.02
    near = (X["b"].abs() < 0.18) & ~inside & (X["b"].abs() > 0.03)
    assert inside.sum() >= 2 and near.sum() > 20
    found, _ = search(black_box(predict), X, levels=(0.2,))
    assert found.broken[0][near].mean() > 0.9

    def corners(points: FloatArray, which: Any) -> tuple[FloatArray, Any]:
        sure = predict(pd.DataFrame(points, columns=list(X)))
        return sure, sure > 0.5

    low, high = (X.to_numpy()[near.to_numpy()] + by for by in (-0.2, 0.2))
    assert none_of(square_attack(low, high, corners, n_queries=50, rng=np.random.default_rng(0))[1])


def test_a_hundred_questions_find_what_many_more_find_of_boosted_trees() -> None:
    X = clouds(200)
    y = (X["a"] / 3 + X["b"] - 10 * X["c"] * X["b"] > 0).astype(int)
    boosted = GradientBoostingClassifier(n_estimators=10, random_state=0).fit(X, y)
    few, _ = search(black_box(boosted.predict_proba), X)
    many, _ = search(black_box(boosted.predict_proba), X, n_queries=300)
    assert few.graded
    assert few.broken[2].sum() >= 0.95 * many.broken[2].sum() > 10


def test_classes_alone_say_enough_of_a_line() -> None:
    X = clouds(400)
    w = np.array([1 / 3, 1.0, 10.0, 0.02])

    def predict(rows: pd.DataFrame) -> Any:
        return np.where(rows.to_numpy() @ w > 0, "1", "0")

    away = np.abs(X.to_numpy() @ w) / (X.to_numpy().std(axis=0) @ w)
    found, _ = search(black_box(predict), X)
    assert not found.graded
    for level, broken in zip(LEVELS, found.broken, strict=True):
        assert none_of(broken & (away > level))
        assert broken.sum() >= 0.7 * (away < level).sum() > 0


def test_without_another_row_that_is_decided_otherwise_square_searches_alone() -> None:
    X = pd.DataFrame(np.random.default_rng(0).random((400, 2)), columns=["a", "b"])
    X = X[X["a"] + X["b"] < 1.7].reset_index(drop=True)
    values = X.to_numpy()
    highest = np.minimum(values + 0.5 * values.std(axis=0), values.max(axis=0)).sum(axis=1)
    found, _ = search(black_box(lambda rows: 1 / (1 + np.exp(-9 * (rows["a"] + rows["b"] - 1.71)))), X, levels=(0.5,))
    assert found.broken[0].tolist() == (highest > 1.71).tolist() and found.broken[0].sum() > 20


# ---- how much is asked, and about what -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_queries", [2, 3, 5, 40, 100])
@pytest.mark.parametrize("labels", [False, True])
def test_no_row_is_asked_about_more_often_than_is_said(n_queries: int, labels: bool) -> None:
    X = clouds(120)
    tree = fitted(X, (X["b"] * X["a"] > 0.3).astype(int), min_samples_leaf=8)
    found, _ = search(black_box(tree.predict if labels else tree.predict_proba), X, n_queries=n_queries)
    assert 0 < found.asked.max() <= n_queries
    (gone,) = np.nonzero(found.broken[0])
    if n_queries == 100:
        assert len(gone) and found.asked[gone].max() < n_queries, "a row that is broken is left alone"
        assert found.asked.max() > 0.8 * n_queries


def test_by_default_two_hundred_rows_a_hundred_times() -> None:
    X, n = clouds(900), [0]

    def predict(rows: pd.DataFrame) -> Any:
        n[0] += len(rows)
        return (rows["b"] > 0).to_numpy(float) * 0.8 + 0.1

    data = audit_data(X, (X["b"] > 0).astype(int))
    measured(black_box(predict), data, methods="noise")
    without, n[0] = n[0], 0
    found = measured(black_box(predict), data, methods=["noise", "black_box"])
    assert 1_000 < n[0] - without <= 200 * 100
    (one,) = [m for m in found if m.metric == "flip_rate_under_black_box" and m.at == {"epsilon": 0.2}]
    assert one.n_samples == 200
    assert (
        "asking for probabilities: Square attack" in one.detail
        and "at most 100 questions about each of 200 rows" in one.detail
    )
    found = measured(black_box(predict), data, methods="black_box", n_samples=300)
    assert {m.n_samples for m in found if m.method == "black_box"} == {300}


def census(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(17, 91, n),
            "hours": pd.array(rng.integers(1, 100, n), "Int64"),
            "gain": np.where(rng.random(n) < 0.8, 0, rng.integers(1_000, 99_999, n)),
            "weight": np.where(rng.random(n) < 0.1, np.nan, rng.lognormal(2.0, 1.0, n)),
            "height": rng.normal(170, 10, n).astype(np.float32),
            "member": rng.integers(0, 2, n),
            "work": rng.choice(["private", "state"], n),
        },
        index=rng.permutation(n) * 2,
    )


@pytest.mark.parametrize("labels", [False, True])
def test_only_rows_that_can_occur_are_asked_about(labels: bool) -> None:
    X, level = census(), 0.3

    def predict(rows: pd.DataFrame) -> Any:
        z = rows["hours"].astype(float) / 30 + rows["gain"] / 5e4 - rows["weight"].fillna(7) / 7 + rows["height"] / 10
        sure = 1 / (1 + np.exp(-(z - 18.5)))
        return np.where(sure > 0.5, "1", "0") if labels else sure.to_numpy(float)

    fixed = frozenset({"age"})
    found, asked = search(black_box(predict), X, levels=(0.1, level), n_queries=60, fixed=fixed)
    assert found.broken[1].sum() > 10 and found.graded is not labels
    assert sum(map(len, asked)) > 2_000
    # Each row that is asked about is one of the data's, but for numbers that can change.
    own = X.reset_index(drop=True)
    rows = pd.DataFrame(found.examples)
    for name in ("age", "member", "work"):
        assert rows[name].tolist() == own[name].tolist()
    assert (rows.dtypes == own.dtypes).all()
    kept = {tuple(row) for row in own[["age", "member", "work"]].to_numpy()}
    for table in [*asked, rows]:
        assert {tuple(row) for row in table[["age", "member", "work"]].to_numpy()} <= kept
        for name in ("hours", "gain", "weight", "height"):
            values, known = table[name].astype(float), X[name].astype(float)
            known = known[known > 0] if name == "gain" else known
            moving = values[values > 0] if name == "gain" else values.dropna()
            assert moving.between(known.min(), known.max()).all()
            if name in ("hours", "gain"):
                assert (values == values.round()).all()
    assert (rows["gain"] == 0).tolist() == (own["gain"] == 0).tolist()
    assert rows["weight"].isna().tolist() == own["weight"].isna().tolist()
    for name in ("hours", "gain", "weight", "height"):
        had = own[name].astype(float)[own[name] > 0] if name == "gain" else own[name].astype(float)
        moved = (rows[name].astype(float) - own[name].astype(float)).abs().max()
        assert 0 < moved <= level * had.std(ddof=0) * (1 + 1e-6) + 1e-3


def test_arrays_are_asked_about_as_arrays() -> None:
    X = clouds().to_numpy(np.float32)
    kinds = set()

    def predict(rows: Any) -> Any:
        kinds.add((type(rows), rows.dtype))
        return (rows[:, 1] > 0).astype(float)

    found = measured(black_box(predict), audit_data(X), methods="black_box", n_samples=300)
    assert kinds == {(np.ndarray, np.dtype(np.float32))}
    away = np.abs(X[:, 1]) / X[:, 1].std()
    assert curve(found, "flip_rate_under_black_box")[0.2] == pytest.approx((away < 0.2).mean(), abs=0.01)


def test_what_is_found_once_and_not_again_does_not_count() -> None:
    X, seen = clouds(100), set[bytes]()

    def predict(rows: pd.DataFrame) -> Any:
        """Decides otherwise about a row that it was never asked about, and never again."""
        given = [row.tobytes() for row in rows.to_numpy()]
        new = np.array([row not in seen for row in given])
        seen.update(given)
        return np.where(new, 0.9, 0.1)

    seen.update(row.tobytes() for row in X.to_numpy())
    found, _ = search(black_box(predict), X)
    assert none_of(found.broken.ravel()) and 0 < found.asked.max() <= 100
    pd.testing.assert_frame_equal(pd.DataFrame(found.examples), X)


# ---- in the probe --------------------------------------------------------------------------------------------------


def of_line(X: pd.DataFrame) -> TorchModel:
    preprocessing = fit_tabular(X)
    module = nn.Linear(preprocessing.width, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 1.0]]))
        module.bias.fill_(0.2)
    return TorchModel(module, classes=CLASSES, preprocessing=preprocessing, outputs="logits")


def test_by_default_it_searches_where_gradients_cannot() -> None:
    X = clouds()
    data = audit_data(X, (X["b"] > 0).astype(int))
    model = of_line(X)
    assert {m.method for m in measured(model, data)} - {""} == {"noise", "missing", "pgd", "certificate"}
    asked = black_box(lambda rows: model.predict_proba(rows))
    assert {m.method for m in measured(asked, data)} - {""} == {"noise", "missing", "black_box"}
    with pytest.raises(NotApplicableError, match="To this model and data apply: noise, missing, black_box"):
        measured(asked, data, methods="pgd")
    with pytest.raises(NotApplicableError, match="black_box needs columns of numbers that may change"):
        measured(asked, data, methods="black_box", immutable="a,b,c,d")


def test_its_ball_is_that_of_the_gradient_attack() -> None:
    X = clouds()
    data = audit_data(X, (X["b"] > 0).astype(int))
    found = measured(of_line(X), data, methods=["pgd", "black_box"], n_samples=300, n_queries=300)
    by = {m: curve(found, f"flip_rate_under_{m}") for m in ("pgd", "black_box")}
    for level in LEVELS:
        assert 0.8 * by["pgd"][level] <= by["black_box"][level] <= by["pgd"][level]
    units = {m.detail.split("; ")[0] for m in found if "epsilon" in m.at}
    assert units == {"L-infinity ball of epsilon standard deviations of each numeric column"}


def test_one_search_more_changes_no_other_number() -> None:
    X = clouds()
    data = audit_data(X, (X["b"] > 0).astype(int))
    model = black_box(lambda rows: 1 / (1 + np.exp(-rows["b"] - 0.3)))
    without = measured(model, data, methods=["noise", "missing"])
    assert [m for m in measured(model, data) if m.method != "black_box"] == without
    one = measured(model, data, methods="black_box", epsilon=[0.1])
    again = measured(model, data, methods="black_box", epsilon=[0.1])
    assert one == again


def test_it_may_fail_a_model_and_never_passes_one() -> None:
    X = clouds(400)
    y = (X["b"] > 0).astype(int)
    weak, strong = (lambda rows: (rows["b"] > 0).to_numpy(float)), (lambda rows: (rows["b"] > -9).to_numpy(float))
    limit = Criterion(
        metric="flip_rate_under_black_box", direction="at_most", bound=0.05, source="t", set_by="t", set_at="t"
    )
    for predict, outcome in ((weak, Outcome.FAIL), (strong, Outcome.INCONCLUSIVE)):
        found = measured(black_box(predict), audit_data(X, y), methods="black_box", n_samples=400, epsilon=[0.4])
        kinds = {m.metric: type(m.estimate) for m in found if m.method}
        assert kinds.pop("robust_accuracy") is Bracket
        assert kinds == {"accuracy_under_black_box": AtMost, "flip_rate_under_black_box": AtLeast}
        result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
        findings, _ = judge([result], [limit])
        assert [f.outcome for f in findings if f.criterion is not None] == [outcome]


def test_each_group_has_its_curve() -> None:
    X = clouds(400).assign(g=np.repeat(["near", "far"], 200))
    X.loc[X["g"] == "far", "b"] += np.where(X.loc[X["g"] == "far", "b"] > 0, 2.0, -2.0)
    data = audit_data(X, (X["b"] > 0).astype(int), sensitive_features=X[["g"]])
    found = measured(black_box(lambda rows: (rows["b"] > 0).to_numpy(float)), data, methods="black_box", n_samples=400)
    flips = [m for m in found if m.metric == "flip_rate_under_black_box" and m.at == {"epsilon": 0.2}]
    at = {m.group["g"]: m.estimate for m in flips if m.group}
    assert at["near"].value > 0.1 and at["far"].value == 0.0
    assert all_of(isinstance(estimate, AtLeast) for estimate in at.values())
    assert [m.at["epsilon"] for m in found if m.metric == "flip_rate_difference_under_black_box"] == list(LEVELS)


def test_a_model_that_fails_near_the_rows_has_no_number_there() -> None:
    X = clouds()
    known = set(X["b"])

    def predict(rows: pd.DataFrame) -> Any:
        if not set(rows["b"]) <= known:
            raise KeyError("no such b")
        return (rows["b"] > 0).to_numpy(float)

    found = measured(black_box(predict), audit_data(X, (X["b"] > 0).astype(int)), methods="black_box")
    undefined = [m.estimate for m in found if m.method == "black_box"]
    assert [type(estimate) for estimate in undefined] == [Undefined, Undefined]
    assert all_of("KeyError: 'no such b'" in e.reason for e in undefined if isinstance(e, Undefined))


def test_a_model_of_one_decision_and_rows_that_cannot_move_so_far() -> None:
    X = clouds(40)
    found = measured(black_box(lambda rows: np.full(len(rows), 0.7)), audit_data(X), methods="black_box")
    assert set(curve(found, "flip_rate_under_black_box").values()) == {0.0}
    steps, high = pd.DataFrame({"a": np.arange(40) % 5}), black_box(lambda rows: (rows["a"] > 2).to_numpy(float))
    still, _ = search(high, steps, levels=(0.5, 1.0))
    assert still.broken.sum(axis=1).tolist() == [0, 16], "a step is 0.7 standard deviations"
    none, asked = search(high, steps, levels=(0.5,))
    assert none.asked.sum() == len(asked) == 0, "where nothing can move there is nothing to ask"


# ---- pictures and sound --------------------------------------------------------------------------------------------


def grey(levels: Sequence[int], shape: tuple[int, ...] = (6, 5, 3)) -> Any:
    """Pictures of one brightness each."""
    return np.stack([np.full(shape, level, np.uint8) for level in levels])


def bright(X: Any) -> Any:
    """Sure of what the mean of a file's own values says: class 1 above 128 of pixels, above 0 of recordings."""
    mean = np.asarray(X, float).reshape(len(X), -1).mean(axis=1)
    return 1 / (1 + np.exp(-np.clip(mean - (127.5 if np.asarray(X).dtype == np.uint8 else 0.0), -30, 30)))


@pytest.mark.parametrize("labels", [False, True])
def test_a_picture_is_broken_as_far_as_whole_steps_of_its_pixels_go(labels: bool) -> None:
    """Of one brightness each, the nearest other decision is known: so many steps of 1/255 away, and not one fewer."""
    X = grey([100, 118, 121, 123, 125, 126, 129, 131, 150])
    y = (bright(X) > 0.5).astype(int)
    asked: list[Any] = []

    def predict(rows: Any) -> Any:
        asked.append(rows.copy())
        return (bright(rows) > 0.5).astype(float) if labels else bright(rows)

    found = measured(black_box(predict), audit_data(X, y), methods="black_box")
    steps = np.array([28, 10, 7, 5, 3, 2, 2, 4, 23])  # 128 and 127 are the first of the other side
    expected = {epsilon: (steps <= round(255 * epsilon)).mean() for epsilon in (2 / 255, 4 / 255, 8 / 255)}
    assert curve(found, "flip_rate_under_black_box") == pytest.approx(expected)
    assert sorted(set(expected.values())) == sorted(expected.values())
    assert all_of(rows.dtype == np.uint8 and rows.shape[1:] == X.shape[1:] for rows in asked)
    [detail] = {m.detail.split("; ")[1] for m in found if m.metric == "flip_rate_under_black_box"}
    # The first question is that about the pictures as they are.
    assert f"{sum(map(len, asked[1:])):,} in all" in detail and "each of 9 rows" in detail


def test_transparency_stays_and_no_pixel_leaves_its_range() -> None:
    X = np.concatenate([grey([1, 254, 100, 140], (4, 4, 3)), grey([7, 200, 90, 80], (4, 4, 1))], axis=-1)
    seen: list[Any] = []

    def predict(rows: Any) -> Any:
        seen.append(rows)
        return bright(rows[..., :3])

    measured(black_box(predict), audit_data(X), methods="black_box", epsilon=[8 / 255], n_queries=30)
    rows = np.concatenate(seen)
    assert set(np.unique(rows[..., 3])) == {7, 80, 90, 200}
    assert set(np.unique(rows[..., :3])) <= {*range(10), *range(246, 256), *range(92, 109), *range(132, 149)}


def test_sound_is_searched_in_steps_of_sixteen_bits() -> None:
    X = np.stack([np.full(300, level, np.int16) for level in (-200, -40, -20, -10, 11, 25, 33, 32_767)])
    found = measured(black_box(bright), audit_data(X, (bright(X) > 0.5).astype(int)), methods="black_box")
    # 0.0005, 0.001 and 0.002 of full scale are 16, 32 and 65 steps.
    assert curve(found, "flip_rate_under_black_box") == {0.0005: 2 / 8, 0.001: 4 / 8, 0.002: 6 / 8}
    assert all_of("epsilon of full scale;" in m.detail for m in found if m.metric.endswith("under_black_box"))


def test_one_criterion_judges_models_with_and_without_gradients_and_asking_alone_never_passes() -> None:
    X = grey([*range(90, 124), *range(132, 166)] * 3)
    weak, constant = black_box(bright), black_box(lambda rows: np.full(len(rows), 0.9))
    limit = Criterion(
        metric="robust_accuracy", direction="at_least", bound=0.95, source="t", set_by="t", set_at="t",
        at={"epsilon": 8 / 255},
    )  # fmt: skip
    truth = (bright(X) > 0.5).astype(int)
    for model, y, outcome in ((weak, truth, Outcome.FAIL), (constant, np.ones(len(X), int), Outcome.INCONCLUSIVE)):
        found = measured(model, audit_data(X, y), methods="black_box")
        result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
        findings, _ = judge([result], [limit])
        assert [f.outcome for f in findings if f.criterion is not None] == [outcome]
    assert none_of(m.metric == "robust_accuracy" for m in measured(weak, audit_data(X), methods="black_box"))


def test_pictures_of_a_model_without_gradients_are_searched_by_default() -> None:
    X = grey(range(60, 190, 10))
    methods = {m.method for m in measured(black_box(bright), audit_data(X))}
    assert methods - {""} == {"noise", "corruption", "black_box"}


def around(rows: Any, radius: int) -> Any:
    limits = np.iinfo(rows.dtype)
    return [np.clip(rows.astype(int) + r, limits.min, limits.max).astype(rows.dtype) for r in (-radius, radius)]


def test_the_square_attack_keeps_to_its_radius_and_its_queries() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (5, 12, 10, 3)).astype(np.uint8)
    asked = np.zeros(5, int)
    lowest = np.full(5, np.inf)

    def ask(candidates: Any, which: Any) -> Any:
        for c, said in zip(candidates, which, strict=True):
            own = int(np.abs(rows.astype(int) - c.astype(int)).max(axis=(1, 2, 3)).argmin())
            assert own == said
            asked[own] += 1
            lowest[own] = min(lowest[own], c.astype(float).mean())
        return candidates.astype(float).mean(axis=(1, 2, 3)), np.zeros(len(candidates), bool)

    changed, done = square_attack(*around(rows, 9), ask, n_queries=40, rng=np.random.default_rng(2))
    assert asked.tolist() == [40] * 5 and not done.any()
    away = changed.astype(int) - rows.astype(int)
    assert np.abs(away).max() == 9 and changed.dtype == np.uint8
    # It returns the best that it saw, and stripes alone would have a mean of about 0.
    np.testing.assert_allclose(changed.astype(float).mean(axis=(1, 2, 3)), lowest)
    assert (away.mean(axis=(1, 2, 3)) < -1.0).all()


def test_the_square_attack_stops_where_it_has_succeeded() -> None:
    rows = np.full((4, 2_000), 500, np.int16)
    asked: list[int] = []

    def ask(candidates: Any, which: Any) -> Any:
        asked.append(len(candidates))
        scores = candidates.astype(float).mean(axis=1)
        return scores, scores < 497.0

    changed, done = square_attack(*around(rows, 30), ask, n_queries=200, rng=np.random.default_rng(0))
    assert done.all() and (changed.astype(float).mean(axis=1) < 497.0).all()
    assert asked[0] == 4 and sum(asked) < 4 * 200 and all_of(a >= b for a, b in zip(asked, asked[1:], strict=False))


@pytest.mark.parametrize("method", ["pgd", "black_box"])
def test_what_evades_a_detector_is_searched_for_with_and_without_gradients(method: str) -> None:
    detector, fakes = media.detector(media.of_grid()), media.pictures(40)
    found = Robustness(methods=method, n_queries=60).measure(detector, fakes, np.random.default_rng(0))
    flips = {m.at["epsilon"]: m.estimate.value for m in found if m.metric == f"flip_rate_under_{method}"}
    assert flips[8 / 255] > (0.9 if method == "pgd" else 0.1)
