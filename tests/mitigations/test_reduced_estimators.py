"""fairlearn's reductions over estimators: its own answers, and mixtures that lie in a folder and draw by the row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference
from fairlearn.reductions import DemographicParity
from fairlearn.reductions import ExponentiatedGradient as FairlearnEG
from fairlearn.reductions import GridSearch as FairlearnGrid
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import auditor
from auditor.core.errors import ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.model_wrappers import MixtureModel
from auditor.models.postprocessed_folder import RULES_FILE
from auditor.run.mitigation import Mitigated, Mitigation, Training
from mitigations import MITIGATIONS
from mitigations.training.exponentiated_gradient import ExponentiatedGradient
from mitigations.training.fairlearn_reductions import reducing
from mitigations.training.grid_search import GridSearch
from tests.mitigations.test_refitting import boosted, loaded, numbers


def run(mitigation: Mitigation, model: AuditedModel, rows: AuditData, seed: int = 0) -> Mitigated:
    return mitigation.mitigate(model, rows, np.random.default_rng(seed), Training())


@pytest.fixture(scope="module")
def rows() -> AuditData:
    """Rows one of whose numbers tells the group."""
    rows = numbers(900)
    assert isinstance(rows.X, pd.DataFrame) and rows.sensitive_features is not None
    b = (rows.sensitive_features["group"] == "b").to_numpy(float)
    X = rows.X.assign(other=b + 0.3 * rows.X["other"])
    return AuditData.from_arrays(X, rows.y_true, classes=[0, 1], positive=1, sensitive_features=rows.sensitive_features)


@pytest.fixture(scope="module")
def old(rows: AuditData, tmp_path_factory: pytest.TempPathFactory) -> AuditedModel:
    own = LogisticRegression().fit(rows.X, rows.y_true)  # type: ignore[arg-type]
    return loaded(own, tmp_path_factory.mktemp("old") / "m.skops")


def gap(model: Any, rows: AuditData) -> float:
    decided = model.decisions(rows)
    return float(demographic_parity_difference(rows.y_true, decided, sensitive_features=rows.sensitive_features))


def test_the_mixture_is_fairlearns(rows: AuditData, old: AuditedModel, tmp_path: Path) -> None:
    made = run(ExponentiatedGradient(constraint="demographic_parity", max_iter=12), old, rows)
    new = made.model
    assert isinstance(new, MixtureModel) and len(new.members) > 1
    theirs = FairlearnEG(LogisticRegression(), DemographicParity(difference_bound=0.01), eps=0.01, max_iter=12)
    with reducing():
        theirs.fit(rows.X, rows.y_true, sensitive_features=rows.sensitive_features["group"].astype(str))  # type: ignore[index]
        expected = np.asarray(theirs._pmf_predict(rows.X))
    # Weights come to fairlearn's only up to the scale of the rows', to which regularisation is not blind.
    assert np.abs(new.outputs(rows) - expected).mean() < 0.02
    assert gap(old, rows) > 0.15 and gap(new, rows) < 0.08
    chances, decided = new.outputs(rows)[:, 1], new.decisions(rows)
    drawn = (chances > 0) & (chances < 1)
    assert drawn.sum() > 50 and np.array_equal(decided[~drawn], chances[~drawn].astype(int))
    for chance in np.unique(chances[drawn].round(6)):
        mask = drawn & (np.abs(chances - chance) < 1e-6)
        assert binomtest(int(decided[mask].sum()), int(mask.sum()), float(chance)).pvalue > 1e-4
    auditor.save(new, tmp_path / "fair")
    assert len([p for p in (tmp_path / "fair").iterdir()]) == len(new.members) + 1
    again = load_model(ModelSpec(path=str(tmp_path / "fair")))
    order = np.random.default_rng(1).permutation(len(rows))[:300]
    assert np.array_equal(again.decisions(rows.take(order)), decided[order])
    majority = run(
        ExponentiatedGradient(constraint="demographic_parity", rule="majority", max_iter=12), old, rows
    ).model
    assert np.array_equal(majority.decisions(rows), (majority.outputs(rows)[:, 1] >= 0.5).astype(int))


def test_the_grid_keeps_one_estimator_in_its_own_format(rows: AuditData, old: AuditedModel, tmp_path: Path) -> None:
    made = run(GridSearch(constraint="demographic_parity", grid_size=8), old, rows)
    auditor.save(made.model, tmp_path / "fair.skops")
    again = load_model(ModelSpec(path=str(tmp_path / "fair.skops")))
    assert np.array_equal(again.decisions(rows), made.model.decisions(rows))
    theirs = FairlearnGrid(LogisticRegression(), DemographicParity(difference_bound=0.01), grid_size=8, grid_limit=2.0)
    with reducing():
        theirs.fit(rows.X, rows.y_true, sensitive_features=rows.sensitive_features["group"].astype(str))  # type: ignore[index]
    assert (again.decisions(rows) == theirs.predict(rows.X)).mean() > 0.97
    assert gap(again, rows) < gap(old, rows)


def test_boosted_trees_are_reduced_too(rows: AuditData, tmp_path: Path) -> None:
    _, _, trees = boosted("xgboost", rows, tmp_path / "m.json", n_estimators=30)
    made = run(GridSearch(constraint="demographic_parity", grid_size=8), trees, rows)
    auditor.save(made.model, tmp_path / "fair.json")
    assert gap(load_model(ModelSpec(path=str(tmp_path / "fair.json"))), rows) < gap(trees, rows)
    mixed = run(ExponentiatedGradient(constraint="demographic_parity", max_iter=4), trees, rows).model
    auditor.save(mixed, tmp_path / "mixed")
    again = load_model(ModelSpec(path=str(tmp_path / "mixed")))
    assert np.array_equal(again.decisions(rows), mixed.decisions(rows)) and gap(again, rows) < gap(trees, rows)


def test_rules_over_a_mixture_and_doctored_mixtures(rows: AuditData, old: AuditedModel, tmp_path: Path) -> None:
    new = run(ExponentiatedGradient(constraint="demographic_parity", max_iter=5), old, rows).model
    auditor.save(new, tmp_path / "fair")
    ruled = run(MITIGATIONS["reject_option"](width=0.1), load_model(ModelSpec(path=str(tmp_path / "fair"))), rows).model
    auditor.save(ruled, tmp_path / "ruled")
    table = rows.X.assign(group=rows.sensitive_features["group"].to_numpy())  # type: ignore[union-attr, index]
    again = load_model(ModelSpec(path=str(tmp_path / "ruled")))
    assert np.array_equal(again.predict_proba(table), ruled.predict_proba(table))
    path = tmp_path / "fair" / RULES_FILE
    good = json.loads(path.read_text())
    for change, said in (
        ({"members": []}, "a mixture has members"),
        ({"mixture": good["mixture"] | {"weights": [2.0]}}, "not valid"),
        ({"mixture": good["mixture"] | {"weights": [0.1]}}, "cannot be used"),
        ({"members": [{"model": "../m.skops", "sha256": "0" * 64}]}, "not valid"),
        ({"members": [m | {"sha256": "0" * 64} for m in good["members"]]}, "not the one that its rules were made for"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(ModelError, match=said):
            load_model(ModelSpec(path=str(tmp_path / "fair")))


def test_options_of_networks_and_estimators_without_weights(rows: AuditData, old: AuditedModel, tmp_path: Path) -> None:
    near = loaded(KNeighborsClassifier(5, algorithm="brute").fit(rows.X, rows.y_true), tmp_path / "k.skops")  # type: ignore[arg-type]
    for kind in (GridSearch, ExponentiatedGradient):
        with pytest.raises(ModelError, match="Use balanced_resampling"):
            run(kind(), near, rows)
        with pytest.raises(UsageError, match="epochs is for networks"):
            run(kind(epochs=2, **({"learner": "network"} if kind is ExponentiatedGradient else {})), old, rows)  # type: ignore[arg-type]
    run(MITIGATIONS["balanced_resampling"](), near, rows)
