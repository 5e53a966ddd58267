"""A zoo of columns: those that name, date or weigh rows are recognised, and those that describe them are not."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.loading.rows.column_roles import date_like, id_like, repeating_ids, weight_like

N = 300
Column = Callable[[np.random.Generator], Any]


def days(rng: np.random.Generator, spelling: str) -> list[str]:
    start = np.datetime64("1990-01-01")
    return [str((start + int(d)).item().strftime(spelling)) for d in rng.integers(0, 9_000, N)]


def hashes(rng: np.random.Generator, of: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in rng.integers(0, of, N)]


ROWS: dict[str, Column] = {
    "counted": lambda rng: np.arange(N),
    "counted_in_any_order": lambda rng: rng.permutation(N) + 17,
    "going_up": lambda rng: np.cumsum(rng.integers(1, 9, N)),
    "going_down": lambda rng: -np.cumsum(rng.integers(1, 9, N)),
    "counted_with_gaps": lambda rng: [None if i % 7 == 0 else float(i) for i in range(N)],
    "account": lambda rng: rng.integers(10**9, 10**10, N),
    "customerId": lambda rng: rng.permutation(np.unique(rng.integers(0, 90_000, 2 * N))[:N]),
    "kenn_nummer": lambda rng: [f"K{i:06d}" for i in rng.permutation(N)],
    "almost_never_twice": lambda rng: ["twice", "twice", *(f"name {i}" for i in range(N - 2))],
    "guid": lambda rng: [str(uuid.UUID(int=int(i))) for i in rng.integers(0, 2**62, N)],
    "sha": lambda rng: [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(N)],
}
PERSONS: dict[str, Column] = {
    "patient_id": lambda rng: rng.integers(0, 60, N),
    "PersonID": lambda rng: [f"p{i}" for i in rng.integers(0, 60, N)],
    "who": lambda rng: [str(uuid.UUID(int=int(i))) for i in rng.integers(0, 60, N)],
    "hashed": lambda rng: hashes(rng, 60),
}
DATES: dict[str, Column] = {
    "iso": lambda rng: days(rng, "%Y-%m-%d"),
    "iso_time": lambda rng: days(rng, "%Y-%m-%dT08:30:00Z"),
    "european": lambda rng: days(rng, "%d.%m.%Y"),
    "american": lambda rng: days(rng, "%m/%d/%y"),
    "spelled": lambda rng: days(rng, "%d %b %Y"),
    "month": lambda rng: days(rng, "%Y-%m"),
    "with_gaps": lambda rng: [None if i % 3 else day for i, day in enumerate(days(rng, "%Y/%m/%d"))],
    "entry_date": lambda rng: [int(day) for day in days(rng, "%Y%m%d")],
    "created_at": lambda rng: rng.integers(1_500_000_000, 1_700_000_000, N),
}
WEIGHTS: dict[str, Column] = {
    name: lambda rng: rng.integers(1_000, 99_000, N)
    for name in (
        "fnlwgt",
        "FNLWGT",
        "PWGTP",
        "pwgtp12",
        "WGTP",
        "PERWT",
        "sample_weight",
        "SurveyWeight",
        "wt",
        "weights",
    )
}
FEATURES: dict[str, Column] = {
    "age": lambda rng: rng.integers(18, 90, N),
    "income": lambda rng: rng.integers(10_000, 200_000, N),
    "capital": lambda rng: rng.integers(0, 20_000_000, N) * rng.integers(0, 2, N),
    "score": lambda rng: rng.normal(size=N),
    "year": lambda rng: rng.integers(1990, 2024, N),
    "born_in": lambda rng: [str(y) for y in rng.integers(1990, 2024, N)],
    "zip": lambda rng: [f"{i:05d}" for i in rng.integers(0, 99, N)],
    "phone_prefix": lambda rng: [f"{i:03d}-555" for i in rng.integers(0, 99, N)],
    "yes": lambda rng: rng.choice([True, False], N),
    "price_index": lambda rng: rng.integers(80, 120, N),
    "paid": lambda rng: rng.choice(["yes", "no"], N),
    "valid": lambda rng: rng.integers(0, 50, N),
    "hours_per_week": lambda rng: rng.integers(1, 99, N),
    "birth_weight": lambda rng: rng.integers(1_500, 5_000, N),
    "weight_kg": lambda rng: rng.integers(40, 120, N),
    "update_count": lambda rng: rng.integers(0, 40, N),
    "letter": lambda rng: [
        "such a long letter that it is prose and no name of anything " + "x " * 20 + str(i) for i in range(N)
    ],
    "constant": lambda rng: ["2024-01-01"] * N,
    "height": lambda rng: rng.normal(170, 10, N),
}


def frame_of(columns: dict[str, Column]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({name: make(rng) for name, make in columns.items()})


@pytest.mark.parametrize("others", [{}, ROWS, PERSONS, DATES, WEIGHTS], ids="alone rows persons dates weights".split())
def test_what_describes_rows_is_recognised_as_nothing_else(others: dict[str, Column]) -> None:
    frame = frame_of(FEATURES | others)
    for recognise in (id_like, repeating_ids, date_like, weight_like):
        assert set(recognise(frame)) & set(FEATURES) == set(), recognise.__name__


def test_names_of_rows_are_recognised_by_any_name() -> None:
    assert id_like(frame_of(ROWS)) == list(ROWS)
    assert id_like(frame_of(PERSONS | WEIGHTS)) == []


def test_names_of_persons_are_recognised_though_they_come_again() -> None:
    assert repeating_ids(frame_of(PERSONS)) == list(PERSONS)


def test_dates_are_recognised_in_any_usual_spelling() -> None:
    assert date_like(frame_of(DATES)) == list(DATES)


def test_weights_of_surveys_are_recognised_by_name_and_that_of_a_body_is_not() -> None:
    assert weight_like(frame_of(WEIGHTS)) == list(WEIGHTS)
    frame = frame_of({"age": FEATURES["age"], "weight": WEIGHTS["wt"]})
    assert weight_like(frame) == ["weight"]
    assert weight_like(frame.assign(height=1.0)) == []
    assert weight_like(frame.assign(weight="heavy")) == [] and weight_like(frame.assign(weight=-1.0)) == []


def test_few_rows_say_nothing_of_names() -> None:
    assert id_like(frame_of(ROWS).head(19)) == [] and repeating_ids(frame_of(PERSONS).head(19)) == []
