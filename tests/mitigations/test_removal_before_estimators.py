"""The correlation remover before estimators: fairlearn's numbers, what is subtracted as data beside the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from fairlearn.preprocessing import CorrelationRemover as Fairlearn
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

import auditor
from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.audited_model import AuditedModel
from auditor.models.model_wrappers import PreparedModel, Removal
from auditor.models.postprocessed_folder import RULES_FILE
from auditor.models.postprocessing import PostprocessedModel
from auditor.run.mitigation import Mitigated, Training
from mitigations.rows.correlation_remover import CorrelationRemover
from mitigations.scores.threshold_optimizer import ThresholdOptimizer
from tests.mitigations.planted_rows import biased_rows
from tests.mitigations.test_any_scorer import COLUMNS, here, pipeline  # noqa: F401
from tests.mitigations.test_debiasing_encoders import texts
from tests.mitigations.test_refitting import boosted, loaded, numbers


def run(mitigation: CorrelationRemover, model: AuditedModel, rows: AuditData) -> Mitigated:
    return mitigation.mitigate(model, rows, np.random.default_rng(0), Training())


def leaning(seed: int = 1) -> AuditData:
    """Rows whose number ``other`` leans on the group."""
    rows = numbers(900, seed)
    assert isinstance(rows.X, pd.DataFrame) and rows.sensitive_features is not None
    b = (rows.sensitive_features["group"] == "b").to_numpy(float)
    return replace(rows, X=rows.X.assign(other=rows.X["other"] + 1.5 * b, group=np.where(b == 1, "b", "a")))


def blind(rows: AuditData) -> AuditData:
    assert isinstance(rows.X, pd.DataFrame)
    return replace(rows, X=rows.X[["skill", "other"]])


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_what_is_subtracted_is_fairlearns(alpha: float, tmp_path: Path) -> None:
    rows = leaning()
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    own = LogisticRegression().fit(rows.X[["skill", "other"]], rows.y_true)
    made = run(CorrelationRemover(alpha=alpha), loaded(own, tmp_path / "m.skops"), blind(rows))
    new = made.model
    assert isinstance(new, PreparedModel) and new.features == ("skill", "other", "group")
    coded = rows.X[["skill", "other"]].assign(b=(rows.X["group"] == "b").astype(float))
    z = Fairlearn(sensitive_feature_ids=["b"], alpha=alpha).fit_transform(coded)
    ours = new.removal.apply(rows.X, ["skill", "other"])
    assert np.abs(ours.to_numpy() - z).max() < 1e-9
    expected = LogisticRegression().fit(ours, rows.y_true).predict_proba(ours)
    assert np.abs(new.predict_proba(rows.X) - expected).max() < 1e-9
    if alpha == 1.0:
        b = coded["b"].to_numpy()
        assert max(abs(np.corrcoef(ours[c], b)[0, 1]) for c in ours) < 1e-9 < abs(np.corrcoef(coded["other"], b)[0, 1])
    # Of a group never seen, or none, nothing is subtracted.
    strange = rows.X.assign(group=["z", None] * 450)
    assert np.array_equal(new.removal.apply(strange, ["other"])["other"], rows.X["other"])


@pytest.mark.usefixtures("here")
def test_a_pipeline_that_takes_the_group_is_given_one_value(tmp_path: Path) -> None:
    skops.io.dump(pipeline(), tmp_path / "m.skops")
    rows = biased_rows(1200, 1)
    made = run(CorrelationRemover(), load_model(ModelSpec(path="m.skops")), rows)
    new = made.model
    assert isinstance(new, PreparedModel) and new.removal.held == {"group": "a"}
    auditor.save(new, "fair")
    assert sorted(p.name for p in Path("fair").iterdir()) == ["model.skops", RULES_FILE]
    again = load_model(ModelSpec(path="fair"))
    data = load_data(DataSpec(path="test.csv", target="y", positive="1", sensitive=("group",)), again)
    assert isinstance(data.X, pd.DataFrame)
    assert np.array_equal(again.predict_proba(data.X), new.predict_proba(data.X[COLUMNS]))
    # Rules over it lie in the same folder, and both are read again.
    both = ThresholdOptimizer().mitigate(again, data, np.random.default_rng(0), Training()).model
    auditor.save(both, "both")
    last = load_model(ModelSpec(path="both"))
    assert isinstance(last, PostprocessedModel) and isinstance(last.base, PreparedModel)
    assert np.array_equal(last.decisions(data), both.decisions(data))


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_boosted_trees_with_gaps_and_names(library: str, tmp_path: Path) -> None:
    rows = leaning()
    assert isinstance(rows.X, pd.DataFrame)
    X = rows.X.rename(columns={"group": "place"})
    X.loc[::50, "other"] = np.nan
    rows = replace(rows, X=X)
    ending = {"xgboost": "json", "lightgbm": "txt", "catboost": "cbm"}[library]
    _, _, old = boosted(library, rows, tmp_path / f"m.{ending}")
    made = run(CorrelationRemover(), old, rows)
    assert any("Names stay as they are: place" in note for note in made.notes)
    auditor.save(made.model, tmp_path / "fair")
    again = load_model(ModelSpec(path=str(tmp_path / "fair")))
    assert rows.sensitive_features is not None
    table = X.assign(group=rows.sensitive_features["group"].astype(str))
    assert np.abs(again.predict_proba(table) - made.model.predict_proba(table)).max() < 1e-6


def test_what_cannot_be_freed_is_sent_to_what_can(tmp_path: Path) -> None:
    rows = texts(300, 0)
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    assert rows.y_true is not None
    own = make_pipeline(TfidfVectorizer(), LogisticRegression())
    own.fit(list(rows.X), np.where(rows.y_true == 1, "positive", "negative"))
    with pytest.raises(ModelError, match="use reweighing"):
        run(CorrelationRemover(), loaded(own, tmp_path / "t.skops"), rows)
    table = leaning()
    assert isinstance(table.X, pd.DataFrame)
    only = replace(table, X=table.X[["group"]])
    _, _, named = boosted("lightgbm", only, tmp_path / "m.txt")
    with pytest.raises(DataError, match="use reweighing"):
        run(CorrelationRemover(), named, only)
    with pytest.raises(UsageError, match="bins"):
        run(CorrelationRemover(), named, replace(table, binned=("group",)))


def test_a_doctored_removal_is_refused(tmp_path: Path) -> None:
    rows = leaning()
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    own = LogisticRegression().fit(rows.X[["skill", "other"]], rows.y_true)
    made = run(CorrelationRemover(), loaded(own, tmp_path / "m.skops"), blind(rows))
    auditor.save(made.model, tmp_path / "fair")
    path = tmp_path / "fair" / RULES_FILE
    good = json.loads(path.read_text())
    for change in (
        {"means": [0.5]},
        {"numbers": ["skill", "wealth"]},
        {"weights": []},
        {"held": {"skill": 1}},
        {"run": 1},
    ):
        path.write_text(json.dumps(good | {"removal": good["removal"] | change}))
        with pytest.raises(ModelError, match="fair"):
            load_model(ModelSpec(path=str(tmp_path / "fair")))
    path.write_text(json.dumps(good | {"removal": None}))
    with pytest.raises(ModelError, match="neither rules nor"):
        load_model(ModelSpec(path=str(tmp_path / "fair")))
    with pytest.raises(ValidationError):
        Removal(columns=("a",), levels=(("u",),), means=(0.0,), numbers=("a",), weights=((0.0,),))
