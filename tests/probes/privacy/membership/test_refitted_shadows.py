"""Shadow models of an estimator's or boosted trees' own kind: memorising models FAIL, others PASS, and lies do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from auditor import PROBES, AuditData, AuditedModel, Outcome, run_audit
from auditor.loading.estimators import EstimatorModel
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.python_objects import audited_object, object_file
from auditor.report.record.audit_report import AuditReport, ExitCode, Finding
from probes.privacy.membership import shadow_models
from probes.privacy.membership.shadow_models import pool_of, refit_shadows
from tests.quantifiers import all_of

Make = Callable[[], Any]
Table = tuple[pd.DataFrame, npt.NDArray[np.int64]]


def table(n: int, noise: float, seed: int = 0) -> Table:
    """Rows by a rule, with numbers and names, whose labels are noisy."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame(rng.normal(size=(n, 6)), columns=list("abcdef"))
    y = (x.a + 0.5 * x.b + noise * rng.normal(size=n) > 0).to_numpy(np.int64)
    return x, y


def fitted(make: Make, rows: Table) -> Any:
    """The estimator, fitted on the first half of the rows."""
    x, y = rows
    return make().fit(x[: len(y) // 2], y[: len(y) // 2])


def data_of(rows: Table) -> AuditData:
    """The rows, the first half members."""
    x, y = rows
    return AuditData.from_arrays(x, y, classes=[0, 1], is_member=np.arange(len(y)) < len(y) // 2)


def of_object(estimator: Any) -> AuditedModel:
    """The estimator as a caller gives it."""
    return audited_object(estimator, None, ModelSpec(path="the caller's"))


def of_file(estimator: Any, folder: Path, ending: str, change: Callable[[bytes], bytes] = bytes) -> AuditedModel:
    """The estimator as it is read from a file."""
    place = folder / f"model{ending}"
    place.write_bytes(change(object_file(estimator, place.name)))
    return load_model(ModelSpec(path=str(place)))


def audited(model: AuditedModel, data: AuditData, **options: Any) -> AuditReport:
    """The audit by the default profile."""
    return run_audit(model, data, [PROBES["membership_inference"](**options)])


def judged(report: AuditReport) -> list[Finding]:
    """The findings of all attacks together."""
    found = [f for f in report.findings if f.method is None and f.criterion is not None]
    assert [f.metric for f in found] == ["attack_auc", *2 * ["true_positive_rate_at_fpr"]]
    return found


FILES: dict[str, tuple[str, Make, Make]] = {
    "scikit-learn": (
        ".skops",
        lambda: RandomForestClassifier(30, min_samples_leaf=1, random_state=0),
        lambda: LogisticRegression(),
    ),
    "XGBoost": (
        ".ubj",
        lambda: xgboost.XGBClassifier(max_depth=10, n_estimators=30),
        lambda: xgboost.XGBClassifier(max_depth=1, n_estimators=10),
    ),
    "LightGBM": (
        ".txt",
        lambda: lightgbm.LGBMClassifier(num_leaves=63, n_estimators=40, min_child_samples=2, verbose=-1),
        lambda: lightgbm.LGBMClassifier(num_leaves=3, n_estimators=15, verbose=-1),
    ),
    "CatBoost": (
        ".cbm",
        lambda: catboost.CatBoostClassifier(depth=7, iterations=40, learning_rate=0.5, verbose=0, train_dir="/tmp"),
        lambda: catboost.CatBoostClassifier(depth=2, iterations=15, learning_rate=0.1, verbose=0, train_dir="/tmp"),
    ),
}


@pytest.mark.parametrize("library", FILES)
def test_a_file_of_a_memorising_model_fails(library: str, tmp_path: Path) -> None:
    ending, memorising, _ = FILES[library]
    rows = table(2_000, 1.0)
    report = audited(of_file(fitted(memorising, rows), tmp_path, ending), data_of(rows), n_shadows=4)
    assert judged(report)[0].outcome is Outcome.FAIL and report.exit_code == ExitCode.FAILED
    assert "rmia, bavaria with" in judged(report)[0].tried


@pytest.mark.parametrize("library", FILES)
def test_a_file_of_a_regularised_model_passes(library: str, tmp_path: Path) -> None:
    ending, _, regularised = FILES[library]
    rows = table(12_000, 0.5)
    report = audited(of_file(fitted(regularised, rows), tmp_path, ending), data_of(rows))
    assert all_of(f.outcome is Outcome.PASS for f in judged(report)), [f.reason for f in judged(report)]
    assert report.exit_code == ExitCode.PASSED


MEMORISING: dict[str, Make] = {
    "deep tree": lambda: DecisionTreeClassifier(random_state=0),
    "one neighbour": lambda: KNeighborsClassifier(1),
    "boosted scikit-learn": lambda: HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=0),
    "calibrated forest": lambda: CalibratedClassifierCV(
        RandomForestClassifier(15, random_state=0), ensemble=False, method="isotonic", cv=2
    ),
    "searched forest": lambda: GridSearchCV(RandomForestClassifier(15, random_state=0), {"max_depth": [None]}, cv=2),
    "tuned threshold": lambda: TunedThresholdClassifierCV(RandomForestClassifier(15, random_state=0), cv=2),
}


@pytest.mark.grid
@pytest.mark.parametrize("kind", MEMORISING)
def test_a_memorising_object_never_passes(kind: str) -> None:
    rows = table(2_000, 1.0)
    report = audited(of_object(fitted(MEMORISING[kind], rows)), data_of(rows), n_shadows=4)
    outcome = judged(report)[0].outcome
    assert outcome is (Outcome.FAIL if kind != "calibrated forest" else outcome) and outcome is not Outcome.PASS


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "sklearn"])
def test_an_object_is_fitted_anew_on_one_core(library: str) -> None:
    """None, which is one process to scikit-learn, is every core to the others: pilots took 500 times their cost."""
    x, y = table(60, 0.1)
    boosted = {"lightgbm": lightgbm.LGBMClassifier, "xgboost": xgboost.XGBClassifier, "sklearn": RandomForestClassifier}
    alone = boosted[library](n_estimators=2, n_jobs=1)
    for estimator in (alone, make_pipeline(StandardScaler(), alone)):
        model = of_object(estimator.fit(x, y))
        anew = model.fitted_anew(data_of((x, y)).X, y, None, np.random.default_rng(0), {})
        assert isinstance(anew, EstimatorModel)
        last = anew.estimator if estimator is alone else anew.estimator[-1]
        assert last.n_jobs == (None if library == "sklearn" else 1)


def test_a_pipeline_is_refitted_whole(tmp_path: Path) -> None:
    """Of levels that only a part of the rows holds the encoder of a shadow model knows those of its own rows."""
    x, y = table(12_000, 0.5)
    rng = np.random.default_rng(1)
    x["region"] = [f"r{i}" for i in rng.integers(0, 5, len(y))]

    def make() -> Any:
        encoder = OneHotEncoder(handle_unknown="ignore")
        columns = make_column_transformer((encoder, ["region"]), remainder=StandardScaler())
        return make_pipeline(columns, LogisticRegression())

    rows = (x, y)
    report = audited(of_file(fitted(make, rows), tmp_path, ".skops"), data_of(rows))
    assert [f.outcome for f in judged(report)] == 3 * [Outcome.PASS]
    said = [f.detail for f in report.findings if f.method == "rmia" and f.metric == "attack_auc"]
    assert all_of("Pipeline fitted anew with the hyperparameters that it had" in detail for detail in said)


def test_texts_are_refitted_with_their_own_words() -> None:
    rng = np.random.default_rng(0)
    words = np.asarray([f"w{i}" for i in range(50)])
    texts = [" ".join(rng.choice(words, 8)) for _ in range(2_000)]
    y = np.asarray([int("w1 " in f"{t} " or rng.random() < 0.3) for t in texts])
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts[:1_000], y[:1_000])
    data = AuditData.from_arrays(texts, y, classes=[0, 1], is_member=np.arange(2_000) < 1_000)
    found = judged(audited(of_object(model), data))[0]
    assert "rmia, bavaria with 16 shadow models" in found.tried and "surrogate" not in found.reason


# ---- what a file says of itself may be a lie -----------------------------------------------------------------------


LIES: dict[str, tuple[Make, dict[str, Any], float]] = {
    "forest": (lambda: RandomForestClassifier(20, random_state=0), {"max_depth": 2}, 1.0),
    "forest, easy rows": (lambda: RandomForestClassifier(20, random_state=0), {"max_depth": 2}, 0.05),
    "boosted": (lambda: GradientBoostingClassifier(n_estimators=20, max_depth=7), {"max_depth": 2}, 0.1),
    "fewer rounds": (
        lambda: HistGradientBoostingClassifier(max_iter=80, early_stopping=False), {"max_iter": 2}, 1.0,
    ),
    "harder penalty": (lambda: LogisticRegression(), {"C": 1e-6}, 0.5),
}  # fmt: skip


@pytest.mark.grid
@pytest.mark.parametrize("lie", LIES)
def test_hyperparameters_that_are_a_lie_buy_no_pass(lie: str) -> None:
    make, said, noise = LIES[lie]
    rows = table(4_000, noise)
    model = of_object(fitted(make, rows).set_params(**said))
    pool = pool_of(model, data_of(rows))
    shadows = refit_shadows(model, pool, 4, np.random.default_rng(0))
    assert "not like the audited one" in shadows.unlike(pool)
    truthful = of_object(fitted(make, rows))
    assert refit_shadows(truthful, pool_of(truthful, data_of(rows)), 4, np.random.default_rng(0)).unlike(pool) == ""


def test_a_lie_of_a_model_that_would_pass_is_inconclusive() -> None:
    rows = table(12_000, 0.5)
    model = of_object(fitted(LogisticRegression, rows).set_params(C=1e-6))
    report = audited(model, data_of(rows), n_shadows=4)
    assert all_of(f.is_weakly_tested and "not like the audited one" in f.reason for f in judged(report))
    assert report.exit_code == ExitCode.INCONCLUSIVE


def test_a_file_of_lightgbm_that_lies_does_not_pass(tmp_path: Path) -> None:
    rows = table(4_000, 1.0)
    trees = fitted(lambda: lightgbm.LGBMClassifier(num_leaves=63, n_estimators=40, verbose=-1), rows)
    stated = b"[num_leaves: 63]"
    model = of_file(trees, tmp_path, ".txt", lambda file: file.replace(stated, b"[num_leaves: 2]"))
    pool = pool_of(model, data_of(rows))
    assert "not like the audited one" in refit_shadows(model, pool, 4, np.random.default_rng(0)).unlike(pool)
    assert judged(audited(model, data_of(rows), n_shadows=4))[0].outcome is not Outcome.PASS


# ---- what it costs -------------------------------------------------------------------------------------------------


class Clock:
    """Processor time that goes by in fits alone, as a power of their rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: AuditedModel, seconds: float, power: float) -> None:
        self.now, self.sizes = 0.0, list[int]()
        fit = model.fitted_anew

        def fitted_anew(X: Any, *others: Any) -> AuditedModel:
            self.sizes.append(len(X))
            self.now += seconds * (len(X) / 4_000) ** power
            return fit(X, *others)

        monkeypatch.setattr(model, "fitted_anew", fitted_anew)
        monkeypatch.setattr(shadow_models.time, "process_time", lambda: self.now)


@pytest.mark.parametrize(
    ("seconds", "power", "made"),
    [(0.1, 1.0, 16), (0.7, 1.0, 8), (5.0, 1.0, 4), (14.0, 3.0, 4), (16.0, 2.0, 0), (200.0, 1.0, 0), (1e6, 3.0, 0)],
)
def test_the_number_follows_from_fits_of_a_part(
    monkeypatch: pytest.MonkeyPatch, seconds: float, power: float, made: int
) -> None:
    rows = table(8_000, 0.5)
    model = of_object(fitted(LogisticRegression, rows))
    clock = Clock(monkeypatch, model, seconds, power)
    found = judged(audited(model, data_of(rows)))[0]
    assert (f"bavaria with {made} shadow models" in found.tried) is bool(made)
    assert clock.sizes[:2] == [500, 1_000][: len(clock.sizes)] and clock.sizes.count(4_000) == made
    if not made:
        assert found.is_weakly_tested and "shadow_seconds=" in found.tried


# ---- no stronger attack can be tried --------------------------------------------------------------------------------


def _with(waivers: Sequence[str], report: AuditReport) -> int:
    return int(report.verdict(allow_inconclusive=tuple(waivers)))


def test_of_a_function_it_is_a_state_that_is_accepted_by_name_alone() -> None:
    rows = table(8_000, 0.5)
    function = AuditedModel.from_callable(fitted(LogisticRegression, rows).predict_proba, classes=[0, 1])
    report = audited(function, data_of(rows), n_shadows=4)
    found = judged(report)
    assert all_of(f.is_weakly_tested and "no stronger attack could be tried" in f.reason for f in found)
    assert report.exit_code == ExitCode.INCONCLUSIVE
    assert _with(["membership_inference=Ada: there is no recipe"], report) == ExitCode.PASSED
    assert _with(["group_fairness", "fairness"], report) == ExitCode.INCONCLUSIVE


def test_what_is_found_of_a_function_is_not_accepted_by_name() -> None:
    rows = table(2_000, 1.0)
    forest = fitted(lambda: RandomForestClassifier(20, random_state=0), rows)
    report = audited(AuditedModel.from_callable(forest.predict_proba, classes=[0, 1]), data_of(rows), n_shadows=4)
    assert _with(["membership_inference"], report) == ExitCode.FAILED
