"""The same rows as a file, as a stream and as arrays: the same numbers to the last digit, in worlds at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.measurement import Measurement
from auditor.loading.rows.load_rows import load_data
from auditor.models.audited_model import AuditedModel
from auditor.run.run_audit import ask, generator_for
from probes import PROBES
from tests.loading.rows.test_streamed import OF_COUNTS, STREAMED, apart, key, spec, streamed, write

Rng = np.random.Generator
# Those whose numbers are counts, which a stream counts exactly.
ASKED = ("group_fairness", "performance", "adverse_impact")


def plain(rng: Rng) -> pd.DataFrame:
    n = int(rng.integers(60, 900))
    a = rng.normal(size=n)
    label = np.where(rng.random(n) < 1 / (1 + np.exp(-a)), "yes", "no")
    groups = rng.dirichlet(np.full(int(rng.integers(2, 6)), 0.7))
    sex = np.asarray(list("fmxyz"))[rng.choice(groups.size, n, p=groups)]
    return pd.DataFrame(
        {"a": a, "b": rng.choice(["u", "v"], n), "y": label, "sex": sex, "race": rng.choice([*"pq"], n)}
    )


def missing(rng: Rng) -> pd.DataFrame:
    """Labels, groups and categories that are not there."""
    rows = plain(rng)
    for name, gone in (("y", ""), ("sex", None), ("b", None)):
        rows.loc[rng.random(len(rows)) < 0.1, name] = gone
    return rows


def ties(rng: Rng) -> pd.DataFrame:
    """Scores of few values, many of them at the threshold itself."""
    return plain(rng).assign(a=lambda t: np.round(t["a"]), b="v")


def noise(rng: Rng) -> pd.DataFrame:
    """Groups that were written in several ways: each is a group of its own, by every way in."""
    rows = plain(rng)
    odd = rng.random(len(rows)) < 0.05
    return rows.assign(sex=np.where(odd, rng.choice(["F", "f.", "0", "1.0", "male", "N/A?"], len(rows)), rows["sex"]))


WORLDS: dict[str, Callable[[Rng], pd.DataFrame]] = {"plain": plain, "missing": missing, "ties": ties, "noise": noise}


def said(measurements: object) -> dict[str, Measurement]:
    return {key(m): m for m in measurements}  # type: ignore[attr-defined]


@pytest.mark.grid
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", WORLDS)
def test_three_ways_in_say_the_same_to_the_last_digit(kind: str, seed: int, tmp_path: Path) -> None:
    rows = WORLDS[kind](np.random.default_rng([seed, len(kind)]))
    audited = AuditedModel(
        lambda X: 1.0 / (1.0 + np.exp(-(np.asarray(X["a"], float) + 0.3 * (X["b"] == "u")))),
        classes=["no", "yes"],
        features=("a", "b"),
        preprocessing=fit_tabular(rows[["a", "b"]]),
    )
    path = write(rows, tmp_path / "rows.parquet", group=int(rows.shape[0] // 3) + 1)
    in_memory, by = load_data(spec(path), audited), streamed(path, audited)
    arrays = AuditData.from_arrays(
        rows[["a", "b"]], rows["y"].replace("", None), classes=("no", "yes"), positive="yes",
        sensitive_features=rows[["sex", "race"]],
    )  # fmt: skip
    for name in ASKED:
        first, second = (
            said(ask(PROBES[name](), audited, d, generator_for(0, name)).measurements) for d in (in_memory, arrays)
        )
        third = (
            said(STREAMED[name].measure_streamed(by))
            if name in STREAMED
            else said(PROBES[name]().measure_counts(by.counts))
        )
        assert first and first.keys() == second.keys() == third.keys(), name
        for place, m in first.items():
            assert second[place].estimate == m.estimate and second[place].detail == m.detail, place
            own = third[place]
            if own.estimate.kind in OF_COUNTS:
                assert own.estimate == m.estimate and own.detail == m.detail, place
            # Ranks and sums of scores are known as far as the grid and the steps say.
            if own.estimate != m.estimate:
                most = 1e-6 * max(1.0, abs(m.estimate.value))
                assert own.estimate.kind == m.estimate.kind and apart(m.estimate, own.estimate) <= most, place
