"""Copies with another label among training rows, against loops over all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import Exact
from auditor.statistics.rates import Proportion
from probes.robustness.label_conflicts import LabelConflicts, exact_conflicts, near_conflicts
from tests.quantifiers import all_of

CLASSES = ("0", "1", "2")
MODEL = AuditedModel.from_callable(lambda X: np.eye(3)[np.zeros(len(X), int)], classes=CLASSES)


def rates(rows: AuditData, **options: Any) -> dict[object, Any]:
    found = LabelConflicts(**options).measure(MODEL, rows, np.random.default_rng(0))
    return {m.at["copies"]: m.estimate for m in found}


def members(X: Any, y: Any, **more: Any) -> AuditData:
    return AuditData.from_arrays(X, y, classes=CLASSES, is_member=np.ones(len(X), bool), **more)


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "a": rng.standard_normal(n),
            "b": rng.choice([0.0, 1.0, np.nan], n),
            "c": rng.choice(["u", "v", None], n),
            "still": 4,
        }
    )
    again = X.iloc[: n // 3].copy()
    again["a"] += rng.choice([0.0, 0.03, 0.2], len(again))
    return pd.concat([X, again], ignore_index=True)


def same(p: object, q: object) -> bool:
    return p == q or (pd.isna(p) and pd.isna(q))  # type: ignore[call-overload,no-any-return]


def test_conflicts_of_a_table_are_those_of_a_loop_over_pairs() -> None:
    X = table(90)
    y = np.random.default_rng(1).integers(0, 3, len(X))
    near, scale = 0.05, X[["a", "b"]].std(ddof=0)
    exact, close = np.zeros(len(X), bool), np.zeros(len(X), bool)
    records = X.to_dict("records")
    for i, p in enumerate(records):
        for j, q in enumerate(records):
            if y[i] == y[j]:
                continue
            exact[i] |= all_of(same(p[c], q[c]) for c in X.columns)
            numbers = [same(p[c], q[c]) or abs(p[c] - q[c]) <= near * scale[c] for c in ("a", "b")]
            close[i] |= all_of(numbers) and same(p["c"], q["c"])
    rows = members(X, y)
    assert rows.y_true is not None
    assert np.array_equal(exact_conflicts(rows, rows.y_true).conflicting, exact)
    found = near_conflicts(rows, rows.y_true, np.arange(len(X)), near)
    assert found is not None and np.array_equal(found.conflicting, close)
    assert 0 < exact.sum() < close.sum() < len(X)
    assert rates(rows) == {"exact": Exact(known=exact.mean()), "near": Exact(known=close.mean())}


def test_flipped_copies_are_counted_and_clean_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.standard_normal(300)})
    y = (X["a"] > 0).astype(int)
    twice, labels = pd.concat([X, X.head(30)], ignore_index=True), np.r_[y, y[:30]]
    assert rates(members(twice, labels))["exact"] == Exact(known=0.0)
    labels[300:] = 1 - labels[300:]
    assert rates(members(twice, labels))["exact"] == Exact(known=60 / 330)


def test_of_many_rows_a_sample_is_asked_and_each_is_compared_with_all() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.integers(0, 1_000, 4_000).astype(float)})
    y = rng.integers(0, 3, 4_000)
    whole, part = rates(members(X, y), n_samples=4_000), rates(members(X, y), n_samples=500)
    assert whole["exact"] == part["exact"] and isinstance(part["near"], Proportion) and part["near"].n == 500
    low, high = part["near"].bounds(0.005)
    assert low <= whole["near"].value <= high


def test_the_interval_of_a_sample_misses_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": np.repeat(np.arange(300.0), 2)})
    y = np.where(np.arange(600) < 120, np.arange(600) % 2, 0)
    rows = members(X, y)
    missed = [0, 0]
    for _ in range(200):
        found = LabelConflicts(n_samples=100).measure(MODEL, rows, rng)
        low, high = next(m.estimate.bounds(0.05) for m in found if m.at["copies"] == "near")
        missed = [missed[0] + (low > 0.2), missed[1] + (high < 0.2)]
    assert max(missed) <= 10 + 3.0 * np.sqrt(200 * 0.05 * 0.95)


def test_texts_are_alike_whatever_their_case_and_punctuation() -> None:
    texts = ["A good film.", "a good  film", "A good film.", "bad", "good film a"]
    assert rates(members(texts, [0, 1, 0, 0, 1])) == {"exact": Exact(known=0.0), "near": Exact(known=3 / 5)}


def test_pictures_are_alike_where_their_blocks_are() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    again = np.clip(X[:5].astype(int) + rng.integers(-3, 4, X[:5].shape), 0, 255).astype(np.uint8)
    y = np.r_[np.zeros(20, int), np.ones(5, int)]
    assert rates(members(np.concatenate([X, again]), y)) == {"exact": Exact(known=0.0), "near": Exact(known=10 / 25)}


def test_sound_has_exact_copies_alone() -> None:
    X = np.random.default_rng(0).integers(-99, 99, (6, 300)).astype(np.int16)
    assert rates(members(np.concatenate([X, X[:1]]), [0] * 6 + [1])) == {"exact": Exact(known=2 / 7)}


def test_rows_without_a_label_and_rows_of_one_class_conflict_with_nothing() -> None:
    X = pd.DataFrame({"a": [1.0, 1.0, 1.0]})
    assert rates(members(X, ["0", None, "0"])) == {"exact": Exact(known=0.0), "near": Exact(known=0.0)}
    with pytest.raises(NotApplicableError, match="none of them has one"):
        rates(members(X, [None] * 3))


def test_where_no_label_could_contradict_another_nothing_is_judged() -> None:
    """Without copies, or with labels of one class, every label may be flipped and none conflicts."""

    def why(X: pd.DataFrame, y: list[int]) -> dict[object, str]:
        found = LabelConflicts().measure(MODEL, members(X, y), np.random.default_rng(0))
        return {m.at["copies"]: m.too_few for m in found}

    apart = pd.DataFrame({"a": [0.0, 10.0, 20.0, 30.0]})
    assert all_of("has a copy" in said for said in why(apart, [0, 1, 0, 1]).values())
    assert why(pd.DataFrame({"a": [0.0, 0.0, 20.0, 30.0]}), [1, 1, 0, 1]) == {"exact": "", "near": ""}
    one = why(pd.DataFrame({"a": [0.0, 0.0, 20.0, 30.0]}), [1, 1, 1, 1])
    assert all_of("one class" in said for said in one.values())
    near = why(pd.DataFrame({"a": [0.0, 0.1, 20.0, 30.0]}), [1, 1, 0, 1])
    assert "has a copy" in near["exact"] and near["near"] == ""


@pytest.mark.parametrize("options", [{"near": 0.0}, {"near": 1.0}, {"near": "x"}, {"near": True}, {"n_samples": 0}])
def test_options_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LabelConflicts(**options)
