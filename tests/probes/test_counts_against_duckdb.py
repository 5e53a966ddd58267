"""Every count that the probes of rows alone report, against SQL on the same files by duckdb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_recorded
from probes import PROBES
from tests.quantifiers import all_of

FEATURES = ("age", "income", "job", "note", "sex", "race")
GROUPS = ("sex", "race")


def table(n: int, seed: int) -> pd.DataFrame:
    """Rows with gaps, of so few values that many are copies, with other labels too."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(20, 25, n),
            "income": rng.choice([1.5, 2.25, np.nan, 1e9], n, p=[0.4, 0.3, 0.2, 0.1]),
            "job": rng.choice(["clerk", "cook", "", "a,b"], n),
            "note": rng.choice(["paid", "write to ann@mail.org", "call", "l'été"], n, p=[0.5, 0.03, 0.4, 0.07]),
            "sex": rng.choice(["f", "m", "other"], n, p=[0.5, 0.47, 0.03]),
            "race": rng.choice(["a", "b", "c"], n),
            "label": rng.choice(["no", "yes"], n),
        }
    )
    return frame.assign(job=frame.job.where(rng.random(n) < np.where(frame.sex == "f", 0.8, 0.95)))


@pytest.fixture(scope="module")
def sql(tmp_path_factory: pytest.TempPathFactory) -> tuple[duckdb.DuckDBPyConnection, dict[str, list[Measurement]]]:
    """A connection with ``train`` and ``test``, each row with its ``place``, and what the probes say of these files."""
    folder = tmp_path_factory.mktemp("files")
    connection = duckdb.connect(config={"threads": "1"})
    paths: dict[str, Path] = {}
    for seed, (name, n) in enumerate({"train": 1_500, "test": 700}.items()):
        paths[name] = folder / f"{name}.parquet"
        table(n, seed).to_parquet(paths[name], index=False)
        connection.execute(
            f"CREATE TABLE {name} AS SELECT *, row_number() OVER () AS place FROM read_parquet('{paths[name]}')"
        )
    spec = DataSpec(
        path=str(paths["test"]), train=str(paths["train"]), target="label", sensitive=GROUPS,
        recorded=RecordedSpec(rows_alone=True),
    )  # fmt: skip
    model, rows = load_recorded(ModelSpec(), spec)
    assert isinstance(rows, AuditData) and rows.members is not None and set(rows.X) == set(FEATURES)
    probes = ("representation", "data_leakage", "label_conflicts", "personal_data")
    return connection, {name: list(PROBES[name]().measure(model, rows, np.random.default_rng(0))) for name in probes}


def counts(connection: duckdb.DuckDBPyConnection, by: Sequence[str], what: str = "count(*)") -> dict[Any, int]:
    found = connection.execute(f"SELECT {', '.join(by)}, {what} FROM train GROUP BY ALL").fetchall()
    return {tuple(row[:-1]): int(row[-1]) for row in found}


def one(connection: duckdb.DuckDBPyConnection, query: str) -> float:
    row = connection.execute(query).fetchone()
    assert row is not None
    return float(row[0])


def of(found: Sequence[Measurement], metric: str, **at: str) -> list[Measurement]:
    return [m for m in found if m.metric == metric and m.at.items() >= at.items()]


def same(columns: Sequence[str]) -> str:
    """Whether two rows agree, gaps too."""
    return " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in columns)


def test_groups_and_their_intersections(sql: Any) -> None:
    connection, found = sql
    for names in (("sex",), ("race",), GROUPS):
        expected = counts(connection, names)
        own = [m for m in of(found["representation"], "group_share") if tuple(m.group) == names]
        assert {tuple(m.group.values()): m.estimate.successes for m in own} == expected  # type: ignore[union-attr]
        smallest = [m for m in of(found["representation"], "smallest_group_rows") if m.sensitive == names]
        assert [m.estimate.value for m in smallest] == [min(expected.values())]


def test_missing_values_by_group_and_by_label(sql: Any) -> None:
    connection, found = sql
    gaps = {name: f"{name} IS NULL" for name in FEATURES}
    gaps["any column"] = " OR ".join(gaps.values())
    measured = of(found["representation"], "missing_rate_difference")
    assert [m.sensitive for m in measured] == [("sex",), ("race",), ()]
    for m, by in zip(measured, ("sex", "race", "label"), strict=True):
        sizes = counts(connection, [by])
        tables: Mapping[str, Any] = {t.rate.removeprefix("missing_"): t for t in m.estimate.tables}  # type: ignore[union-attr]
        assert set(tables) == {"any column", "income", "job"}
        for name, own in tables.items():
            missing = counts(connection, [by], f"count(*) FILTER ({gaps[name]})")
            pairs = sorted(zip(own.successes, own.n, strict=True))
            assert pairs == sorted((missing[group], sizes[group]) for group in sizes)
        worst = max(
            max(rates) - min(rates)
            for name in tables
            for rates in [
                [k / sizes[g] for g, k in counts(connection, [by], f"count(*) FILTER ({gaps[name]})").items()]
            ]
        )
        assert m.estimate.value == pytest.approx(worst, abs=1e-12)


def test_labels_of_copies_that_differ(sql: Any) -> None:
    connection, found = sql
    expected = one(
        connection,
        "SELECT sum(n) / (SELECT count(*) FROM train) FROM (SELECT count(*) AS n, count(DISTINCT label) AS k "
        f"FROM train GROUP BY {', '.join(FEATURES)}) WHERE k > 1",
    )
    (rate,) = of(found["label_conflicts"], "label_conflict_rate", copies="exact")
    assert 0.05 < rate.estimate.value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("copies", ["exact", "one column apart"])
def test_copies_within_and_across_files(copies: str, sql: Any) -> None:
    connection, found = sql
    sets = [FEATURES] if copies == "exact" else [[f for f in FEATURES if f != left] for left in FEATURES]
    like = " OR ".join(f"({same(columns)})" for columns in sets)
    (within,) = of(found["data_leakage"], "duplicate_rate", copies=copies)
    repeated = f"SELECT count(*) FROM train a WHERE EXISTS (FROM train b WHERE a.place <> b.place AND ({like}))"
    assert 0 < within.estimate.value == one(connection, repeated) / 1_500
    across = of(found["data_leakage"], "overlap_rate", copies=copies)
    assert len(across) == 7 and all_of(m.estimate.value > 0 for m in across)
    for m in across:
        group = " AND ".join(["true", *(f"a.{name} = '{value}'" for name, value in m.group.items())])
        shared = f"SELECT avg((EXISTS (FROM train b WHERE {like}))::INT) FROM test a WHERE {group}"
        assert m.estimate.value == pytest.approx(one(connection, shared), abs=1e-12)
    (excess,) = of(found["data_leakage"], "excess_overlap_rate", copies=copies)
    assert excess.estimate.successes == (  # type: ignore[union-attr]
        one(connection, f"SELECT count(*) FROM test a WHERE EXISTS (FROM train b WHERE {like})"),
        one(connection, repeated) // 2,
    )


def test_what_recalling_the_first_copy_gains(sql: Any) -> None:
    connection, found = sql
    gain = one(
        connection,
        f"""
        WITH usual AS (SELECT mode(label) AS label FROM test),
        recalled AS (SELECT a.label, (SELECT arg_min(b.label, b.place) FROM train b WHERE {same(FEATURES)}) AS known
                     FROM test a)
        SELECT sum(CASE WHEN known IS NULL THEN 0
                        ELSE (known = recalled.label)::INT - (usual.label = recalled.label)::INT END) / count(*)
        FROM recalled, usual
        """,
    )
    (own,) = of(found["data_leakage"], "recall_gain", copies="exact")
    assert own.estimate.value == pytest.approx(gain, abs=1e-12)


def test_rows_with_an_address(sql: Any) -> None:
    connection, found = sql
    expected = one(connection, "SELECT avg((note LIKE '%@%')::INT) FROM train")
    rates = of(found["personal_data"], "recognised_rate")
    assert {m.at["kind"]: m.estimate.value for m in rates} == {"any": expected, "email": expected} and expected > 0
