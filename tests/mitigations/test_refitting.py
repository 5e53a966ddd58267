"""Estimators fitted anew on weighted or resampled rows: the same kind, the same hyperparameters, their own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import auditor
from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.run.mitigation import Mitigated, Mitigation, Training
from mitigations import MITIGATIONS
from mitigations.rows.reweighing_and_resampling import BalancedResampling, Reweighing, resampled, reweighing_weights
from mitigations.training.fairlearn_reductions import refit
from mitigations.training.retraining import labelled_rows
from tests.mitigations.planted_rows import biased_rows
from tests.mitigations.test_any_scorer import COLUMNS, here, pipeline  # noqa: F401
from tests.mitigations.test_debiasing_encoders import texts
from tests.quantifiers import all_of

NUMBERS = ["skill", "other"]


def run(mitigation: Mitigation, model: AuditedModel, rows: AuditData, seed: int = 0) -> Mitigated:
    return mitigation.mitigate(model, rows, np.random.default_rng(seed), Training())


def numbers(n: int = 800, seed: int = 1) -> AuditData:
    """The planted rows without the group among the features."""
    rows = biased_rows(n, seed)
    assert isinstance(rows.X, pd.DataFrame)
    return AuditData.from_arrays(
        rows.X[NUMBERS], rows.y_true, classes=[0, 1], positive=1, sensitive_features=rows.sensitive_features
    )


def loaded(estimator: Any, path: Path) -> AuditedModel:
    skops.io.dump(estimator, path)
    return load_model(ModelSpec(path=str(path)))


@pytest.mark.usefixtures("here")
def test_reweighing_is_the_same_estimator_fitted_with_those_weights(tmp_path: Path) -> None:
    rows = biased_rows(1200, 1)
    own = pipeline()
    old = loaded(own, tmp_path / "m.skops")
    made = run(Reweighing(), old, rows)
    assert rows.y_true is not None and rows.sensitive_features is not None and isinstance(rows.X, pd.DataFrame)
    s = (rows.sensitive_features["group"] == "b").to_numpy(int)[:, None]
    weights = reweighing_weights(rows.y_true, s)
    expected = clone(own).fit(rows.X[COLUMNS], rows.y_true, logisticregression__sample_weight=weights)
    assert np.abs(made.model.predict_proba(rows.X) - expected.predict_proba(rows.X[COLUMNS])).max() < 1e-12
    assert np.abs(made.model.predict_proba(rows.X) - old.predict_proba(rows.X)).max() > 0.02
    auditor.save(made.model, tmp_path / "fair.skops")
    again = load_model(ModelSpec(path=str(tmp_path / "fair.skops")))
    assert again.provenance.format == "skops" and again.features == old.features
    assert np.array_equal(again.predict_proba(rows.X), made.model.predict_proba(rows.X))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(8, random_state=0, n_jobs=2),
        HistGradientBoostingClassifier(max_iter=8, random_state=0),
        GaussianNB(),
        BaggingClassifier(LogisticRegression(), 3, random_state=0),
        CalibratedClassifierCV(LogisticRegression(), cv=2),
    ],
    ids=lambda e: type(e).__name__,
)
def test_other_estimators_learn_from_weights_too(estimator: Any, tmp_path: Path) -> None:
    rows = numbers()
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    old = loaded(estimator.fit(rows.X, rows.y_true), tmp_path / "m.skops")
    made = run(Reweighing(), old, rows)
    labelled = labelled_rows(rows, groups=True)
    expected = clone(estimator).fit(rows.X, rows.y_true, sample_weight=reweighing_weights(labelled.y, labelled.s))
    assert np.abs(made.model.predict_proba(rows.X) - expected.predict_proba(rows.X)).max() < 1e-9
    auditor.save(made.model, tmp_path / "fair.skops")
    again = load_model(ModelSpec(path=str(tmp_path / "fair.skops")))
    assert np.abs(again.predict_proba(rows.X) - made.model.predict_proba(rows.X)).max() < 1e-12


def test_what_takes_no_weights_is_sent_to_what_fits_it(tmp_path: Path) -> None:
    rows = numbers(400)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    for i, estimator in enumerate(
        [
            KNeighborsClassifier(5, algorithm="brute"),
            make_pipeline(StandardScaler(), KNeighborsClassifier(5, algorithm="brute")),
            CalibratedClassifierCV(KNeighborsClassifier(5, algorithm="brute"), cv=2),
        ]
    ):
        model = loaded(estimator.fit(rows.X, rows.y_true), tmp_path / f"{i}.skops")
        with pytest.raises(ModelError, match="Use balanced_resampling, .* or threshold_optimizer"):
            run(Reweighing(), model, rows)
        made = run(MITIGATIONS["balanced_resampling"](), model, rows).model
        assert (made.decisions(rows) != model.decisions(rows)).any()
        auditor.save(made, tmp_path / f"{i}.fair.skops")
        run(MITIGATIONS["threshold_optimizer"](), model, rows)


def test_resampling_is_the_same_estimator_fitted_on_those_rows(tmp_path: Path) -> None:
    rows = numbers()
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    estimator = KNeighborsClassifier(5, algorithm="brute").fit(rows.X, rows.y_true)
    made = run(BalancedResampling(method="balanced"), loaded(estimator, tmp_path / "m.skops"), rows, seed=3)
    labelled = labelled_rows(rows, groups=True)
    drawn = resampled(labelled.y, labelled.s, "balanced", np.random.default_rng(3))
    expected = clone(estimator).fit(rows.X.iloc[drawn], rows.y_true[drawn])
    assert np.array_equal(made.model.predict_proba(rows.X), expected.predict_proba(rows.X))


def test_the_same_generator_draws_what_the_estimator_leaves_open(tmp_path: Path) -> None:
    rows = numbers(400)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    model = loaded(RandomForestClassifier(4).fit(rows.X, rows.y_true), tmp_path / "m.skops")
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    first, again, other = (run(Reweighing(), model, rows, seed).model.predict_proba(rows.X) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_a_search_keeps_what_it_found(tmp_path: Path) -> None:
    rows = numbers(400)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    search = GridSearchCV(LogisticRegression(), {"C": [1e-3, 1.0]}, cv=2).fit(rows.X, rows.y_true)
    made = run(Reweighing(), loaded(search, tmp_path / "m.skops"), rows)
    assert made.model.estimator.C == search.best_params_["C"]  # type: ignore[attr-defined]
    assert any("nothing is searched again" in note for note in made.notes)


def test_a_pipelines_folder_of_pickles_is_not_used(tmp_path: Path) -> None:
    rows = numbers(300)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    cached = make_pipeline(StandardScaler(), LogisticRegression(), memory=str(tmp_path / "cache"))
    cached.fit(rows.X, rows.y_true)
    model = loaded(cached, tmp_path / "m.skops")
    for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    made = run(Reweighing(), model, rows)
    assert made.model.estimator.memory is None  # type: ignore[attr-defined]
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_hyperparameters_can_be_said_and_are_checked(tmp_path: Path) -> None:
    rows = numbers(300)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    model = loaded(LogisticRegression().fit(rows.X, rows.y_true), tmp_path / "m.skops")
    made = run(Reweighing(hyperparameters={"C": 0.01}), model, rows)
    assert made.model.estimator.C == 0.01 and any("C=0.01" in note for note in made.notes)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="no hyperparameter 'c'"):
        run(Reweighing(hyperparameters={"c": 0.01}), model, rows)
    with pytest.raises(UsageError, match="epochs is for networks"):
        run(Reweighing(epochs=3), model, rows)
    with pytest.raises(DataError, match="one label"):
        run(Reweighing(), model, rows.take((rows.y_true == 1) | (rows.sensitive_features["group"] == "a").to_numpy()))  # type: ignore[index]


def test_texts_are_learned_from_as_texts(tmp_path: Path) -> None:
    rows = texts(300, 0)
    assert rows.y_true is not None
    own = make_pipeline(TfidfVectorizer(), LogisticRegression())
    own.fit(list(rows.X), np.where(rows.y_true == 1, "positive", "negative"))
    model = loaded(own, tmp_path / "m.skops")
    made = run(Reweighing(), model, rows)
    labelled = labelled_rows(rows, groups=True)
    weights = reweighing_weights(labelled.y, labelled.s)
    labels = np.where(rows.y_true == 1, "positive", "negative")
    expected = clone(own).fit(list(rows.X), labels, logisticregression__sample_weight=weights)
    assert np.abs(made.model.predict_proba(rows.X) - expected.predict_proba(list(rows.X))).max() < 1e-12


# ---- boosted trees ---------------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "xgboost": {"n_estimators": 8, "max_depth": 3, "n_jobs": 1},
    "lightgbm": {"n_estimators": 8, "max_depth": 3, "learning_rate": 0.2, "verbose": -1, "n_jobs": 1},
    "catboost": {
        "iterations": 8, "depth": 3, "l2_leaf_reg": 5.0, "verbose": 0, "allow_writing_files": False, "thread_count": 1,
    },
}  # fmt: skip
ENDING = {"xgboost": "json", "lightgbm": "txt", "catboost": "cbm"}


def boosted(library: str, rows: AuditData, path: Path, **more: Any) -> tuple[Any, Callable[..., Any], AuditedModel]:
    """A classifier of the library, a fit of another just like it, and the audited model of its file."""
    made = pytest.importorskip(library, reason=f"{library} is not installed")
    kinds = {"xgboost": "XGBClassifier", "lightgbm": "LGBMClassifier", "catboost": "CatBoostClassifier"}
    kind = getattr(made, kinds[library])
    assert isinstance(rows.X, pd.DataFrame)
    names = [c for c in rows.X.columns if not pd.api.types.is_numeric_dtype(rows.X[c])]
    Z = rows.X if library == "catboost" else rows.X.astype(dict.fromkeys(names, "category"))

    def fit(**keywords: Any) -> Any:
        own = {**SETTINGS[library], **more}
        if library == "xgboost":
            return kind(**own, enable_categorical=True).fit(Z, rows.y_true, **keywords)
        if library == "catboost":
            return kind(**own, cat_features=names).fit(Z, rows.y_true, **keywords)
        return kind(**own).fit(Z, rows.y_true, **keywords)

    model = fit()
    (model.booster_ if library == "lightgbm" else model).save_model(str(path))
    return Z, fit, load_model(ModelSpec(path=str(path)))


@pytest.mark.parametrize("library", SETTINGS)
@pytest.mark.parametrize("named", [False, True])
def test_boosted_trees_are_grown_again_as_they_were(library: str, named: bool, tmp_path: Path) -> None:
    rows = biased_rows(800, 1) if named else numbers()
    path = tmp_path / f"m.{ENDING[library]}"
    Z, fit, old = boosted(library, rows, path)
    labelled = labelled_rows(rows, groups=True)
    # Unweighted, the very model comes back: nothing that decided how it was grown is lost.
    same = refit(old, labelled, np.random.default_rng(0)).model
    assert np.abs(same.predict_proba(rows.X) - old.predict_proba(rows.X)).max() < 1e-6
    made = run(Reweighing(), old, rows)
    expected = fit(sample_weight=reweighing_weights(labelled.y, labelled.s)).predict_proba(Z)
    assert np.abs(made.model.predict_proba(rows.X) - expected).max() < 1e-6
    assert np.abs(made.model.predict_proba(rows.X) - old.predict_proba(rows.X)).max() > 0.01
    fair = tmp_path / f"fair.{ENDING[library]}"
    auditor.save(made.model, fair)
    again = load_model(ModelSpec(path=str(fair)))
    assert again.provenance.format == old.provenance.format and again.features == old.features
    assert np.abs(again.predict_proba(rows.X) - made.model.predict_proba(rows.X)).max() < 1e-6
    assert (run(BalancedResampling(), old, rows).model.predict_proba(rows.X) != old.predict_proba(rows.X)).any()


def test_what_a_file_of_xgboost_does_not_hold_is_said_and_can_be_told(tmp_path: Path) -> None:
    rows = numbers()
    Z, fit, old = boosted("xgboost", rows, tmp_path / "m.json", learning_rate=0.1, subsample=0.7)
    made = run(Reweighing(), old, rows)
    assert any("learning_rate 0.3" in note and "max_depth 3" in note for note in made.notes)
    labelled = labelled_rows(rows, groups=True)
    told = run(Reweighing(hyperparameters={"learning_rate": 0.1, "subsample": 0.7}), old, rows)
    expected = fit(sample_weight=reweighing_weights(labelled.y, labelled.s)).predict_proba(Z)
    assert np.abs(told.model.predict_proba(rows.X) - expected).max() < 1e-6
    assert np.abs(made.model.predict_proba(rows.X) - expected).max() > 1e-3
    assert all_of("defaults" not in note for note in told.notes)
    more = run(Reweighing(hyperparameters={"n_estimators": 20}), old, rows)
    assert more.model.estimator.trees.num_boosted_rounds() == 20  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="did you mean 'learning_rate'"):
        run(Reweighing(hyperparameters={"learning_rates": 0.1}), old, rows)


def test_paths_in_a_file_of_lightgbm_are_not_followed(tmp_path: Path) -> None:
    rows = numbers()
    _, _, old = boosted("lightgbm", rows, tmp_path / "m.txt")
    text = (tmp_path / "m.txt").read_text()
    assert "[forcedsplits_filename: ]" in text
    hostile = text.replace("[forcedsplits_filename: ]", f"[forcedsplits_filename: {tmp_path}/splits.json]")
    hostile = hostile.replace("[save_binary: 0]", "[save_binary: 1]").replace("[num_machines: 1]", "[num_machines: 2]")
    (tmp_path / "m.txt").write_text(hostile)
    again = load_model(ModelSpec(path=str(tmp_path / "m.txt")))
    made = run(Reweighing(), again, rows).model.predict_proba(rows.X)
    assert np.array_equal(made, run(Reweighing(), old, rows).model.predict_proba(rows.X))


@pytest.mark.parametrize("name", ["min_diff", "group_dro", "fair_gan", "counterfactual_augmentation"])
def test_an_estimator_is_sent_from_networks_methods_to_what_fits_it(name: str, tmp_path: Path) -> None:
    rows = numbers(400)
    assert isinstance(rows.X, pd.DataFrame) and rows.y_true is not None
    model = loaded(LogisticRegression().fit(rows.X, rows.y_true), tmp_path / "m.skops")
    with pytest.raises(ModelError, match="use balanced_resampling, .*, or threshold_optimizer"):
        run(MITIGATIONS[name](), model, rows)
    run(MITIGATIONS["balanced_resampling"](), model, rows)
    run(MITIGATIONS["threshold_optimizer"](), model, rows)


def test_what_only_predicts_is_sent_to_rules_that_take_it() -> None:
    rows = numbers(400)
    model = AuditedModel.from_callable(
        lambda X: (1 / (1 + np.exp(-X["skill"]))).to_numpy(), classes=[0, 1], features=NUMBERS
    )
    for name in ("reweighing", "balanced_resampling", "correlation_remover", "min_diff"):
        with pytest.raises(ModelError, match="only predicts: use threshold_optimizer"):
            run(MITIGATIONS[name](), model, rows)
    made = run(MITIGATIONS["threshold_optimizer"](), model, rows).model
    with pytest.raises(ModelError, match="give the model below its rules"):
        run(Reweighing(), made, rows)
