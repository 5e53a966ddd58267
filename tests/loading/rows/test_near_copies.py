"""Rows that were pasted, with a column of noise or last digits of their own; and rows that only happen to agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier

import auditor
from auditor.judging.measurement import Copies, Outcome, why_doubtful
from auditor.loading.rows.row_warnings import RepeatCount, RepeatedAnswers, unlikely_times
from auditor.models.audited_model import AuditedModel
from tests.quantifiers import all_of
from tests.toys.models import criterion

Noise = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def people(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Applicants, whose columns go together."""
    income = np.exp(rng.normal(10.0, 0.6, n)).round(-2)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": income,
            "debt": (income * rng.beta(2, 5, n)).round(),
            "schooling": rng.integers(0, 5, n),
            "job": rng.choice(list("abcdef"), n, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.05]),
            "sex": rng.choice(["f", "m"], n),
            "y": (rng.random(n) < 0.4).astype(int),
        }
    )


def pasted(times: int, rng: np.random.Generator, n: int = 714) -> pd.DataFrame:
    return pd.concat([people(n, rng)] * times, ignore_index=True)


NOISE: dict[str, Noise] = {
    "a random float": lambda t, rng: t.assign(noise=rng.random(len(t))),
    "a random whole number": lambda t, rng: t.assign(noise=rng.integers(0, 10**6, len(t))),
    "one of ten": lambda t, rng: t.assign(noise=rng.integers(0, 10, len(t))),
    "a jitter of 1e-6 on incomes": lambda t, rng: t.assign(income=t["income"] + rng.normal(0.0, 1e-6, len(t))),
    "a jitter of 1e-6 on ages": lambda t, rng: t.assign(age=t["age"] + rng.normal(0.0, 1e-6, len(t))),
    "a jitter of 1e-6 of each number": lambda t, rng: t.assign(
        **{name: t[name] * (1.0 + 1e-6 * rng.normal(size=len(t))) for name in ("age", "income", "debt")}
    ),
    "a float and one of ten": lambda t, rng: t.assign(noise=rng.random(len(t)), more=rng.integers(0, 10, len(t))),
    "two floats": lambda t, rng: t.assign(noise=rng.random(len(t)), more=rng.random(len(t))),
}


def near(table: pd.DataFrame, batches: int = 1) -> Copies | None:
    counted = RepeatCount(near=True)
    for part in np.array_split(np.arange(len(table)), batches):
        counted.add(table.iloc[part])
    return counted.near()


@pytest.mark.parametrize("noise", NOISE)
def test_twelve_pastes_are_seen_through_a_column_of_noise(noise: str) -> None:
    rng = np.random.default_rng(0)
    table = NOISE[noise](pasted(12, rng), rng).sample(frac=1.0, random_state=1)
    for batches in (1, 3):
        found = near(table, batches)
        assert found is not None and found.divisor == 12 and found.share > 0.85
        assert "near copies of other rows, which differ in" in why_doubtful(found)


@pytest.mark.parametrize(("times", "n"), [(2, 100), (3, 60), (50, 40)])
def test_so_are_fewer_rows_and_other_numbers_of_pastes(times: int, n: int) -> None:
    rng = np.random.default_rng(1)
    found = near(NOISE["a random float"](pasted(times, rng, n), rng))
    assert found is not None and found.divisor == times and found.but_for == "noise"


def test_so_is_a_fifth_of_a_file_that_was_pasted_once_more() -> None:
    rng = np.random.default_rng(2)
    once = people(1_000, rng)
    table = pd.concat([once, once.iloc[:200]], ignore_index=True).assign(noise=rng.random(1_200))
    found = near(table)
    assert found is not None and found.share == pytest.approx(200 / 1_200, abs=0.02)


HONEST: dict[str, Callable[[int, np.random.Generator], pd.DataFrame]] = {
    "people": people,
    "people in round numbers": lambda n, rng: people(n, rng).assign(
        income=lambda t: t["income"].round(-4), debt=lambda t: t["debt"].round(-4)
    ),
    "eight of two values": lambda n, rng: pd.DataFrame(rng.integers(0, 2, (n, 8)), columns=list("abcdefgh")),
    "one score and a label": lambda n, rng: pd.DataFrame({"p": rng.random(n), "y": rng.integers(0, 2, n)}),
    "heavy tails": lambda n, rng: pd.DataFrame(
        {"a": rng.zipf(1.5, n).clip(max=1_000), "b": rng.integers(0, 3, n), "c": rng.zipf(2.0, n).clip(max=50)}
    ),
    "columns that repeat each other": lambda n, rng: people(n, rng).assign(
        months=lambda t: 12 * t["age"], job2=lambda t: t["job"] + "x"
    ),
}


@pytest.mark.grid
@pytest.mark.parametrize("n", [300, 3_000, 30_000])
@pytest.mark.parametrize("kind", HONEST)
def test_independent_rows_that_happen_to_agree_are_in_no_doubt(kind: str, n: int) -> None:
    assert all_of(near(HONEST[kind](n, np.random.default_rng(seed))) is None for seed in range(3))


def test_what_chance_allows_is_computed_and_holds_for_any_mixture() -> None:
    """Of rows drawn from few or many kinds, however likely each: one in 10^8 would exceed the limit of 32."""
    rng = np.random.default_rng(3)
    largest = []
    for _ in range(200):
        kinds = int(rng.integers(5, 3_000))
        weights = rng.dirichlet(np.full(kinds, float(rng.choice([0.05, 0.5, 5.0, 500.0]))))
        counts = rng.multinomial(int(rng.integers(50, 20_000)), weights)
        largest.append(unlikely_times(counts[counts > 0])[0])
    assert max(largest) < 20.0
    assert unlikely_times(np.full(60, 12))[0] > 100.0 and unlikely_times(np.full(60, 12))[1] == 12
    assert unlikely_times(np.empty(0, np.int64)) == (0.0, 1) and unlikely_times(np.ones(9, np.int64)) == (0.0, 1)


def test_pastes_beside_noise_decide_nothing_in_an_audit(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    n = 600
    f = rng.random(n) < 0.5
    x = np.clip(rng.random(n) + np.where(f, 0.0, 0.12), 0.0, 1.0).round(3)
    once = pd.DataFrame({"x": x, "y": ((x > 0.5) == (rng.random(n) < 0.9)).astype(int), "sex": np.where(f, "f", "m")})
    once["age"], once["job"] = rng.integers(18, 80, n), rng.integers(0, 50, n)
    twelve = pd.concat([once] * 12, ignore_index=True)
    twelve["noise"] = rng.random(len(twelve))
    model = AuditedModel.from_callable(lambda X: X["x"].to_numpy(float), classes=("0", "1"))
    bound = criterion("demographic_parity_difference", "at_most", 0.10)

    def outcome(rows: pd.DataFrame, **options: object) -> tuple[Outcome, str]:
        report = auditor.scan(
            model, rows, target="y", sensitive=("sex",), probes="group_fairness", criteria=[bound], **options
        )
        [found] = [each for each in report.findings if each.criterion is not None]
        return found.outcome, found.reason

    assert outcome(once.assign(noise=rng.random(n)))[0] is Outcome.INCONCLUSIVE
    assert outcome(twelve, copies_are_real=True)[0] is Outcome.FAIL
    held, why = outcome(twelve)
    assert held is Outcome.INCONCLUSIVE and "near copies of other rows, which differ in noise alone" in why


# ---- by the model's own answers -------------------------------------------------------------------------------------

# What no columns show: noise in several columns of few values, which the model does not read.
UNREAD: dict[str, Noise] = {
    "three of a hundred": lambda t, rng: t.assign(**{f"noise{i}": rng.integers(0, 100, len(t)) for i in range(3)}),
    "groups and shifts": lambda t, rng: t.assign(
        sex=rng.choice(["f", "m"], len(t)), region=rng.choice(list("NSEW"), len(t)), shift=rng.integers(0, 9, len(t))
    ),
}


def boosted(table: pd.DataFrame) -> LGBMClassifier:
    """Trees that take six columns and split on three: in training the others had one value."""
    taken = table[["age", "income", "debt"]].assign(noise0=0, noise1=0, noise2=0)
    return LGBMClassifier(n_estimators=20, verbose=-1).fit(taken, table["y"])


def by_answers(table: pd.DataFrame, batches: int = 1) -> Copies | None:
    model, counted = boosted(people(2_000, np.random.default_rng(9))), RepeatedAnswers()
    taken = table.reindex(columns=model.feature_name_, fill_value=0)
    for part in np.array_split(np.arange(len(table)), batches):
        counted.add(model.predict_proba(taken.iloc[part]), table["y"].to_numpy(np.int64)[part])
    return counted.result()


@pytest.mark.parametrize("noise", UNREAD)
def test_pastes_with_noise_that_the_model_does_not_read_are_seen_by_its_answers(noise: str) -> None:
    rng = np.random.default_rng(5)
    table = UNREAD[noise](pasted(12, rng), rng).sample(frac=1.0, random_state=1)
    assert near(table) is None, "its columns do not show it"
    for batches in (1, 3):
        found = by_answers(table, batches)
        assert found is not None and found.divisor % 12 == 0 and found.share > 0.85
        assert "on which the model's answers do not depend" in why_doubtful(found)


@pytest.mark.slow
@pytest.mark.grid
@pytest.mark.parametrize("n", [300, 3_000, 30_000])
@pytest.mark.parametrize("kind", ["people", "people in round numbers", "columns that repeat each other"])
def test_independent_rows_that_are_answered_alike_are_in_no_doubt(kind: str, n: int) -> None:
    assert all_of(by_answers(HONEST[kind](n, np.random.default_rng([seed, n]))) is None for seed in range(3))


def test_they_decide_nothing_by_any_way_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    model = boosted(people(2_000, rng))
    auditor.save(model, tmp_path / "model.txt")
    table = UNREAD["three of a hundred"](pasted(12, rng), rng).sample(frac=1.0, random_state=1, ignore_index=True)
    table.to_csv(tmp_path / "rows.csv", index=False)
    asked: dict[str, Any] = {"target": "y", "sensitive": ["sex"], "positive": "1", "probes": ["group_fairness"]}
    files = str(tmp_path / "model.txt"), str(tmp_path / "rows.csv")
    of_object = auditor.scan(model, table[[*model.feature_name_, "y", "sex"]], **asked)
    for report in (auditor.scan(*files, **asked), auditor.scan(*files, stream=True, **asked), of_object):
        judged = [f for f in report.findings if f.metric == "demographic_parity_difference" and f.criterion is not None]
        assert all_of(f.outcome is Outcome.INCONCLUSIVE and f.doubtful for f in judged)
        assert report.exit_code == 3
        assert report.data.copies is not None and "answers do not depend" in report.data.copies.but_for
