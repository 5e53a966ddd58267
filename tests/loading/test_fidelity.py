"""A law: what is read from a file answers and decides as its own library does, to the last digit, or is refused.

Models are drawn at random, fitted on few rows, saved as people save them, read, and held to what they answered before
they were saved. A model that is refused says why; how many are is bounded, so that refusing all does not pass.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
from sklearn import calibration, ensemble, linear_model, model_selection, multiclass, naive_bayes, neighbors
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA, FastICA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, VarianceThreshold
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import all_estimators

import auditor
from auditor.core.errors import AuditorError, ModelError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import label_name
from auditor.models.files.onnx_graphs import session_of

N = 90
Draw = np.random.Generator

pytestmark = [pytest.mark.filterwarnings("ignore::Warning")]


def rows_of(rng: Draw, *, gaps: bool = False) -> pd.DataFrame:
    """A table as data files have them: few values to a column, so that scores are often equal, and some missing."""
    table = pd.DataFrame(
        {
            "a": rng.integers(0, 4, N),
            "b": rng.normal(size=N).round(1),
            "c": rng.choice(["red", "green", "blue"], N).astype(object),
            "d": rng.integers(0, 3, N) * 10 - 5,
            "e": rng.normal(size=N),
            "t": rng.random(N) < 0.5,
        }
    )
    if gaps:
        table.loc[rng.random(N) < 0.1, "b"] = np.nan
    return table


LABELS: list[list[Any]] = [
    [0, 1], [0, 1], ["no", "yes"], ["yes", "no"], [3, 7], [False, True], [-1, 1], [1.0, 2.0], [0, 1, 2],
    ["low", "middle", "top"], [10, 20, 30, 40],
]  # fmt: skip


def labels_of(rows: pd.DataFrame, rng: Draw, names: Sequence[Any]) -> Any:
    score = rows["a"] + rows["b"].fillna(0.0) + (rows["c"] == "red") + rng.normal(size=N)
    places = np.digitize(score, np.quantile(score, np.arange(1, len(names)) / len(names)))
    return np.asarray(names, object if isinstance(names[0], str) else None)[places]


def pick(rng: Draw, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


class Held:
    """What was read, what was refused and why, and what answered otherwise."""

    def __init__(self) -> None:
        self.read = 0
        self.refused = Counter[str]()
        self.otherwise: list[str] = []

    def hold(
        self, what: str, path: Path, rows: Any, decided: Any, answers: Any, digits: float = 0.0, **flags: Any
    ) -> None:
        """Read a model and hold it to its decisions, and to its probabilities or numbers."""
        try:
            model: Any = auditor.load_model(path, **flags)
            if model.kind == "regressor":
                self._compare(what, model.predict(rows), answers, digits)
                self.read += 1
                return
            asked = rows if isinstance(rows, pd.DataFrame) else np.asarray(rows)
            names, found = np.asarray(model.classes), model.predict_proba(asked)
            labels = [label_name(label) for label in np.ravel(decided)]
            for positive in (None, *(model.classes if len(names) == 2 else ())):
                data = AuditData.from_arrays(asked, classes=model.classes, positive=positive)
                wrong = (names[model.decisions(data)] != np.asarray(labels)).sum()
                if wrong:
                    self.otherwise.append(f"{what}: {wrong} of {len(labels)} decisions, {positive} being favourable")
            if answers is not None:
                self._compare(what, found, answers, digits)
        except ModelError as error:
            self.refused[f"{str(error)[:160]} [{what}]"] += 1
            return
        except AuditorError as error:
            self.otherwise.append(f"{what}: {type(error).__name__}: {error}")
            return
        self.read += 1

    def _compare(self, what: str, found: Any, answers: Any, digits: float) -> None:
        found, answers = np.asarray(found, np.float64), np.asarray(answers, np.float64)
        if found.shape != answers.shape or not np.array_equal(found, answers, equal_nan=True):
            if found.shape == answers.shape and np.abs(found - answers).max() <= digits:
                return
            far = "another shape" if found.shape != answers.shape else f"up to {np.abs(found - answers).max():.3g}"
            self.otherwise.append(f"{what}: answers differ: {far}")

    def check(self, share_refused: float) -> None:
        assert not self.otherwise, "\n".join(self.otherwise)
        refused = self.refused.total()
        assert refused <= share_refused * (self.read + refused), "\n".join(self.refused)


# ---- scikit-learn ----------------------------------------------------------------------------------------------------

_FEW = {"n_estimators": 3, "max_iter": 20, "cv": 2, "n_components": 2, "n_init": 1, "n_alphas": 3, "n_iter": 3, "Cs": 2}
# Which take other rows, other labels or another estimator than a table and one label a row.
_NOT_ALONE = frozenset(
    "ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain OneVsOneClassifier OneVsRestClassifier "
    "OutputCodeClassifier StackingClassifier StackingRegressor VotingClassifier VotingRegressor "
    "FixedThresholdClassifier TunedThresholdClassifierCV SelfTrainingClassifier TransformedTargetRegressor "
    "RANSACRegressor CalibratedClassifierCV MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV "
    "IsotonicRegression RadiusNeighborsClassifier LabelPropagation LabelSpreading CCA PLSCanonical".split()
)
_COUNTS = frozenset("MultinomialNB ComplementNB CategoricalNB GammaRegressor PoissonRegressor TweedieRegressor".split())
CLASSIFIERS = [(name, kind) for name, kind in all_estimators("classifier") if name not in _NOT_ALONE]
REGRESSORS = [(name, kind) for name, kind in all_estimators("regressor") if name not in _NOT_ALONE]


def drawn(kinds: Sequence[tuple[str, Any]], rng: Draw, seed: int) -> Any:
    """An estimator with settings that are cheap, and some that change how it decides."""
    name, kind = pick(rng, kinds)
    model = kind()
    known = model.get_params(deep=False)
    wanted = {key: value for key, value in _FEW.items() if key in known}
    if "random_state" in known:
        wanted["random_state"] = seed
    if "class_weight" in known and rng.random() < 0.3:
        wanted["class_weight"] = "balanced"
    if name == "SVC" and rng.random() < 0.6:
        wanted["probability"] = True
    if name == "SGDClassifier":
        wanted["loss"] = pick(rng, ["hinge", "log_loss", "modified_huber", "perceptron"])
    if name.startswith("KNeighbors"):
        wanted |= {"n_neighbors": 4, "weights": pick(rng, ["uniform", "distance"])}
    if name == "NuSVC":
        wanted["nu"] = 0.1
    return model.set_params(**wanted)


AROUND: list[Callable[[Any, Draw, list[Any]], Any]] = [
    *[lambda model, rng, names: model] * 8,
    lambda model, rng, names: calibration.CalibratedClassifierCV(
        model, cv=2, method=pick(rng, ["sigmoid", "isotonic", "temperature"])
    ),
    lambda model, rng, names: multiclass.OneVsRestClassifier(model),
    lambda model, rng, names: multiclass.OneVsOneClassifier(model),
    lambda model, rng, names: multiclass.OutputCodeClassifier(model, random_state=0),
    lambda model, rng, names: ensemble.VotingClassifier(
        [("a", model), ("b", naive_bayes.GaussianNB())], voting=pick(rng, ["hard", "soft"])
    ),
    lambda model, rng, names: ensemble.StackingClassifier([("a", model), ("b", naive_bayes.GaussianNB())], cv=2),
    lambda model, rng, names: ensemble.BaggingClassifier(model, n_estimators=2, random_state=0),
    lambda model, rng, names: ensemble.AdaBoostClassifier(model, n_estimators=2, random_state=0),
    lambda model, rng, names: model_selection.FixedThresholdClassifier(
        model,
        threshold=pick(rng, ["auto", 0.3, 0.5, 0.7, 0.0]),
        pos_label=names[int(rng.integers(2))],
        response_method=pick(rng, ["auto", "decision_function", "predict_proba"]),
    ),
    lambda model, rng, names: model_selection.TunedThresholdClassifierCV(model, cv=2, thresholds=10),
    lambda model, rng, names: SelfTrainingClassifier(model),
    lambda model, rng, names: model_selection.GridSearchCV(model, {}, cv=2),
    lambda model, rng, names: RFE(model, n_features_to_select=2),
]
AROUND_NUMBERS: list[Callable[[Any, Draw], Any]] = [
    *[lambda model, rng: model] * 4,
    lambda model, rng: TransformedTargetRegressor(model, func=np.log1p, inverse_func=np.expm1),
    lambda model, rng: TransformedTargetRegressor(model, transformer=QuantileTransformer(n_quantiles=10)),
    lambda model, rng: ensemble.BaggingRegressor(model, n_estimators=2, random_state=0),
    lambda model, rng: ensemble.VotingRegressor([("a", model), ("b", linear_model.LinearRegression())]),
    lambda model, rng: ensemble.StackingRegressor([("a", model), ("b", linear_model.LinearRegression())], cv=2),
    lambda model, rng: linear_model.RANSACRegressor(model, random_state=0, min_samples=20, max_trials=5),
    lambda model, rng: model_selection.RandomizedSearchCV(model, {}, n_iter=1, cv=2),
]
STEPS: list[Callable[[Draw], Any]] = [
    lambda rng: StandardScaler(),
    lambda rng: RobustScaler(),
    lambda rng: MaxAbsScaler(),
    lambda rng: Normalizer(),
    lambda rng: PowerTransformer(),
    lambda rng: QuantileTransformer(n_quantiles=10, random_state=0),
    lambda rng: PolynomialFeatures(2),
    lambda rng: KBinsDiscretizer(3, encode=pick(rng, ["onehot", "ordinal"]), quantile_method="averaged_inverted_cdf"),
    lambda rng: SplineTransformer(n_knots=3),
    lambda rng: PCA(2, random_state=0),
    lambda rng: TruncatedSVD(2, random_state=0),
    lambda rng: FastICA(2, random_state=0, max_iter=50),
    lambda rng: SelectKBest(k=2),
    lambda rng: SelectFromModel(linear_model.SGDRegressor(random_state=0), max_features=3, threshold=-np.inf),
    lambda rng: VarianceThreshold(),
    lambda rng: FeatureUnion([("a", StandardScaler()), ("b", Binarizer())]),
    lambda rng: Nystroem(n_components=4, random_state=0),
    lambda rng: RBFSampler(n_components=4, random_state=0),
    lambda rng: FunctionTransformer(np.tanh, inverse_func=np.arctanh),
    lambda rng: make_pipeline(MinMaxScaler(), "passthrough"),
    lambda rng: StandardScaler().set_output(transform="pandas"),
]
_NUMBERS = ["a", "b", "d", "e"]
COLUMNS: list[Callable[[Draw], Any]] = [
    lambda rng: OneHotEncoder(sparse_output=bool(rng.integers(2)), handle_unknown="ignore"),
    lambda rng: OneHotEncoder(drop="if_binary", min_frequency=20),
    lambda rng: OrdinalEncoder(),
    lambda rng: TargetEncoder(cv=2, random_state=0),
]


def prepared(model: Any, rng: Draw, *, positive: bool, gaps: bool) -> tuple[Any, bool]:
    """A pipeline around a model, and whether it takes the whole table or its numbers alone."""
    steps: list[Any] = []
    if gaps:
        steps.append(pick(rng, [SimpleImputer(strategy="median", add_indicator=True), KNNImputer(), SimpleImputer()]))
    whole = bool(rng.random() < 0.4)
    if rng.random() < 0.7 or whole:
        steps.append(pick(rng, STEPS)(rng))
    if positive:
        steps.append(MinMaxScaler())
    if not whole:
        return (make_pipeline(*steps, model) if steps else model), False
    mixed = ColumnTransformer(
        [("numbers", make_pipeline(*steps), _NUMBERS), ("names", pick(rng, COLUMNS)(rng), ["c"])],
        remainder=pick(rng, ["drop", "passthrough"]),
        sparse_threshold=0 if positive else 0.3,
    )
    if rng.random() < 0.2:
        mixed.set_output(transform="pandas")
    return make_pipeline(mixed, *([MinMaxScaler()] if positive else []), model), True


def written(model: Any, rng: Draw, folder: Path) -> Path:
    """A file of an estimator, in one of the ways that people save them."""
    way = pick(rng, ["joblib", "joblib", "pickle", "skops", "packed", "protocol"])
    path = folder / "model.any"
    if way == "joblib":
        joblib.dump(model, path)
    elif way == "packed":
        joblib.dump(model, path, compress=(pick(rng, ["gzip", "zlib", "bz2", "lzma", "xz"]), 3))
    elif way == "skops":
        import skops.io

        skops.io.dump(model, path)
    else:
        path.write_bytes(pickle.dumps(model, protocol=5 if way == "pickle" else int(rng.integers(2, 6))))
    return path


def estimator(seed: int, held: Held, folder: Path) -> None:
    """One estimator of scikit-learn, drawn, fitted, saved and held to itself."""
    rng = np.random.default_rng(seed)
    gaps = bool(rng.random() < 0.2)
    rows = rows_of(rng, gaps=gaps)
    numbers = bool(rng.random() < 0.3)
    names = pick(rng, LABELS)
    inner = drawn(REGRESSORS if numbers else CLASSIFIERS, rng, seed)
    around = pick(rng, AROUND_NUMBERS)(inner, rng) if numbers else pick(rng, AROUND)(inner, rng, names)
    if "Threshold" in type(around).__name__:
        names = names[:2]
    positive = type(inner).__name__ in _COUNTS
    model, whole = prepared(around, rng, positive=positive, gaps=gaps)
    taken: Any = rows if whole else rows[_NUMBERS]
    fitted_on = taken if whole or rng.random() < 0.7 else taken.to_numpy()
    y = np.exp(rows["e"] / 2) + rows["a"] if numbers else labels_of(rows, rng, names)
    try:
        model.fit(fitted_on, y)
        decided = model.predict(fitted_on)
        sure = model.predict_proba(fitted_on) if hasattr(model, "predict_proba") else None
        path = written(model, rng, folder)
    except Exception:  # this estimator takes no such rows, labels or way to be saved
        return
    flags = {} if isinstance(fitted_on, pd.DataFrame) else {"features": tuple(_NUMBERS)}
    held.hold(
        f"{seed}: {' '.join(repr(model).split())[:300]}", path, taken, decided, decided if numbers else sure, **flags
    )


_SIZE = 25


@pytest.mark.grid
@pytest.mark.parametrize("first", range(0, 575, _SIZE))
def test_estimators_of_scikit_learn(first: int, tmp_path: Path) -> None:
    held = Held()
    for seed in range(first, first + _SIZE):
        estimator(seed, held, tmp_path)
    held.check(0.3)
    assert held.read >= 10


# ---- boosted trees ---------------------------------------------------------------------------------------------------


def coded(rows: pd.DataFrame, rng: Draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows as a data file has them, and as a library is given them, with categories of some dtype."""
    kind = pick(rng, ["none", "names", "integers", "truth", "floats", "numerals"])
    if kind == "none":
        return rows[_NUMBERS], rows[_NUMBERS]
    column = {
        "names": rows["c"],
        "integers": rows["d"],
        "truth": rows["t"],
        "floats": rows["a"] / 2,
        "numerals": rows["a"].map(str),
    }[kind]
    if rng.random() < 0.3:
        column = column.astype(object).where(rng.random(N) < 0.9)
    known = sorted(column.dropna().unique())
    table = rows[["a", "b", "e"]].assign(k=column)
    return table, table.assign(k=pd.Categorical(column, categories=known))


def target_of(objective: str, rows: pd.DataFrame, rng: Draw) -> Any:
    """Labels, or numbers that an objective takes."""
    if objective.startswith(("multi", "Multi")):
        return labels_of(rows, rng, [0, 1, 2])
    if objective.startswith(("binary", "Logloss", "Cross", "cross")):
        return labels_of(rows, rng, [0, 1])
    return np.exp(rows["e"] / 2) + rows["a"] if objective != "reg:logistic" else labels_of(rows, rng, [0, 1]) * 1.0


_OF_XGBOOST = [
    *["binary:logistic"] * 4, "binary:logitraw", "binary:hinge", "multi:softprob", "multi:softprob", "multi:softmax",
    "reg:squarederror", "reg:logistic", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror",
    "reg:squaredlogerror", "reg:pseudohubererror", "rank:pairwise", "survival:cox",
]  # fmt: skip


def xgboost_model(seed: int, held: Held, folder: Path) -> None:
    import xgboost

    rng = np.random.default_rng(seed)
    objective = pick(rng, _OF_XGBOOST)
    table, asked = coded(rows_of(rng, gaps=bool(rng.random() < 0.4)), rng)
    y = target_of(objective, rows_of(np.random.default_rng(seed)), rng)
    options: dict[str, Any] = {
        "objective": objective,
        "max_depth": int(rng.integers(1, 4)),
        "booster": pick(rng, ["gbtree", "gbtree", "dart", "gblinear"]),
        "learning_rate": pick(rng, [0.3, 1.0]),
        "random_state": seed,
        "n_jobs": 1,
    }
    if rng.random() < 0.3:
        options["base_score"] = 0.3
    if rng.random() < 0.3 and options["booster"] == "gbtree":
        options |= {"num_parallel_tree": 2, "subsample": 0.7}
    if rng.random() < 0.3 and "gb" in options["booster"] and options["booster"] != "gblinear":
        options["monotone_constraints"] = {"a": 1}
    if objective.startswith("binary") and rng.random() < 0.3:
        options["scale_pos_weight"] = 3.0
    stopped = bool(rng.random() < 0.3)
    classifies = objective.startswith(("binary", "multi"))
    path = folder / f"model.{pick(rng, ['json', 'ubj'])}"
    try:
        if rng.random() < 0.75:
            kind = xgboost.XGBClassifier if classifies else xgboost.XGBRegressor
            if stopped:
                options["early_stopping_rounds"] = 2
            model = kind(n_estimators=int(rng.integers(1, 9)), enable_categorical=True, **options)
            held_out = {"eval_set": [(asked[60:], y[60:])], "verbose": False} if stopped else {}
            model.fit(asked[:60], y[:60], **held_out)
            decided = model.predict(asked)
            answers = model.predict_proba(asked) if classifies else decided
            if objective in ("binary:logitraw", "binary:hinge"):
                answers = None  # which are no probabilities
        else:
            options.pop("random_state"), options.pop("n_jobs")
            if objective.startswith("multi"):
                options["num_class"] = 3
            matrix = xgboost.DMatrix(asked, enable_categorical=True)
            model = xgboost.train(
                {**options, "nthread": 1, "seed": seed}, xgboost.DMatrix(asked, y, enable_categorical=True), 4
            )
            answers = decided = model.predict(matrix)
            if objective.startswith("multi"):
                decided = answers if answers.ndim == 1 else answers.argmax(axis=1)
            elif classifies:
                decided = (answers > (0.0 if objective == "binary:logitraw" else 0.5)) * 1
            if classifies and (objective in ("multi:softmax", "binary:logitraw") or answers.ndim == 1):
                answers = None
        model.save_model(path)
    except (ValueError, TypeError, xgboost.core.XGBoostError):
        return
    # DART sums in another order once it is cut to its best rounds.
    digits = 1e-6 if stopped and options["booster"] == "dart" else 0.0
    decided = decided if not classifies else np.asarray(decided, int)
    held.hold(f"{seed}: {options} {table.dtypes.iloc[-1]} stopped {stopped}", path, table, decided, answers, digits)


_OF_LIGHTGBM = [
    *["binary"] * 4, "cross_entropy", "multiclass", "multiclass", "multiclassova", "regression", "regression_l1",
    "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie", "lambdarank", "cross_entropy_lambda",
]  # fmt: skip


def lightgbm_model(seed: int, held: Held, folder: Path) -> None:
    import lightgbm

    rng = np.random.default_rng(seed)
    objective = pick(rng, _OF_LIGHTGBM)
    table, asked = coded(rows_of(rng, gaps=bool(rng.random() < 0.4)), rng)
    y = target_of(objective, rows_of(np.random.default_rng(seed)), rng)
    options: dict[str, Any] = {
        "objective": objective,
        "num_leaves": 4,
        "min_child_samples": 5,
        "boosting_type": pick(rng, ["gbdt", "gbdt", "dart", "rf"]),
        "random_state": seed,
        "n_jobs": 1,
        "verbosity": -2,
    }
    if options["boosting_type"] == "rf":
        options |= {"subsample": 0.7, "subsample_freq": 1}
    options |= pick(rng, [{}, {}, {"sigmoid": 2.0}, {"is_unbalance": True}, {"linear_tree": True}, {"reg_sqrt": True}])
    options |= pick(rng, [{}, {}, {"use_missing": False}, {"zero_as_missing": True}, {"boost_from_average": False}])
    if rng.random() < 0.2:
        options["monotone_constraints"] = [1, 0, 0, 0]
    classifies = objective in ("binary", "multiclass", "multiclassova")
    path = folder / "model.txt"
    try:
        if rng.random() < 0.75 and (classifies or not objective.startswith("cross")):
            model = (lightgbm.LGBMClassifier if classifies else lightgbm.LGBMRegressor)(
                n_estimators=int(rng.integers(1, 9)), **options
            )
            stopped = bool(rng.random() < 0.3) and options["boosting_type"] == "gbdt"
            calls = {"eval_set": [(asked[60:], y[60:])], "callbacks": [lightgbm.early_stopping(2, verbose=False)]}
            model.fit(asked[:60], y[:60], **(calls if stopped else {}))
            decided = model.predict(asked)
            answers = model.predict_proba(asked) if classifies else decided
            if objective == "multiclassova":  # of each class against all others: as shares
                answers = answers / answers.sum(axis=1, keepdims=True)
            booster = model.booster_
        else:
            options |= {"num_class": 3} if objective.startswith("multi") else {}
            booster = lightgbm.train(options | {"num_threads": 1}, lightgbm.Dataset(asked, y, free_raw_data=False), 4)
            answers = decided = booster.predict(asked)
            if objective.startswith("multi"):
                decided = answers.argmax(axis=1)
                answers = None if objective == "multiclassova" else answers
            elif objective in ("binary", "cross_entropy"):
                decided, answers = (answers > 0.5) * 1, np.column_stack([1.0 - answers, answers])
        booster.save_model(path)
    except (ValueError, lightgbm.basic.LightGBMError):
        return
    held.hold(f"{seed}: {options} {table.dtypes.iloc[-1]}", path, table, decided, answers)


_OF_CATBOOST = [
    *["Logloss"] * 4, "CrossEntropy", "MultiClass", "MultiClass", "MultiClassOneVsAll", "RMSE", "MAE", "Quantile",
    "Poisson", "LogCosh", "Tweedie:variance_power=1.5", "Expectile:alpha=0.3", "MAPE", "Huber:delta=1.0", "YetiRank",
]  # fmt: skip


def catboost_model(seed: int, held: Held, folder: Path) -> None:
    import catboost

    rng = np.random.default_rng(seed)
    objective = pick(rng, _OF_CATBOOST)
    rows = rows_of(rng, gaps=bool(rng.random() < 0.4))
    names = [name for name in ("c", "d", "t") if rng.random() < 0.4]
    table = rows[["a", "b", "e", *names]]
    asked = table.assign(**{name: table[name].astype(str) for name in names if name == "t"})
    y = target_of(objective, rows_of(np.random.default_rng(seed)), rng)
    if objective in ("Logloss", "MultiClass") and rng.random() < 0.4:
        y = np.asarray(["low", "middle", "top"], object)[y]
    options: dict[str, Any] = {
        "loss_function": objective,
        "iterations": int(rng.integers(1, 9)),
        "depth": 2,
        "grow_policy": pick(rng, ["SymmetricTree", "SymmetricTree", "Lossguide", "Depthwise"]),
        "random_seed": seed,
        "thread_count": 1,
        "verbose": 0,
        "allow_writing_files": False,
    }
    options |= pick(rng, [{}, {}, {"boosting_type": "Ordered"}, {"nan_mode": "Max"}, {"one_hot_max_size": 10}])
    if objective == "Logloss":
        options |= pick(rng, [{}, {}, {"auto_class_weights": "Balanced"}, {"scale_pos_weight": 3.0}])
    classifies = objective in ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")
    path, kind = folder / "model.any", pick(rng, ["cbm", "cbm", "cbm", "json"])
    try:
        model = (catboost.CatBoostClassifier if classifies else catboost.CatBoostRegressor)(**options)
        if objective == "YetiRank":
            model = catboost.CatBoost(options)
            model.fit(catboost.Pool(asked, y, cat_features=names, group_id=np.arange(N) // 10))
        else:
            later = {"eval_set": (asked[60:], y[60:]), "use_best_model": True} if rng.random() < 0.3 else {}
            model.fit(asked[:60], y[:60], cat_features=names, **later)
        if objective == "Logloss" and rng.random() < 0.3:
            model.set_probability_threshold(0.3)
        model.save_model(path, format=kind, pool=catboost.Pool(asked, y, cat_features=names))
        if kind == "json":  # whose own numbers are rounded: the library reads them again
            model.load_model(path, format=kind)
        decided = model.predict(asked)
        answers = model.predict_proba(asked) if classifies else decided
    except catboost.CatBoostError:
        return
    if objective == "MultiClassOneVsAll":
        answers = answers / answers.sum(axis=1, keepdims=True)
    held.hold(f"{seed}: {options} {kind} {names}", path, table, decided, answers)


LIBRARIES = {"xgboost": xgboost_model, "lightgbm": lightgbm_model, "catboost": catboost_model}


@pytest.mark.grid
@pytest.mark.parametrize("first", range(0, 225, _SIZE))
@pytest.mark.parametrize("library", LIBRARIES)
def test_boosted_trees(library: str, first: int, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    held = Held()
    for seed in range(first, first + _SIZE):
        LIBRARIES[library](seed, held, tmp_path)
    held.check(0.4)
    assert held.read >= 8


# ---- graphs and programs ---------------------------------------------------------------------------------------------


def onnx_model(seed: int, held: Held, folder: Path) -> None:
    """A graph that skl2onnx made of an estimator, held to what onnxruntime answers."""
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    rng = np.random.default_rng(seed)
    numbers = bool(rng.random() < 0.25)
    rows = rows_of(rng)
    kinds = [linear_model.LogisticRegression, naive_bayes.GaussianNB, ensemble.RandomForestClassifier]
    kinds += [neighbors.KNeighborsClassifier, LinearDiscriminantAnalysis, ensemble.HistGradientBoostingClassifier]
    kinds += [ensemble.GradientBoostingClassifier, linear_model.RidgeClassifier, QuadraticDiscriminantAnalysis]
    if numbers:
        kinds = [linear_model.LinearRegression, ensemble.RandomForestRegressor, neighbors.KNeighborsRegressor]
    model = pick(rng, kinds)()
    few = {key: value for key, value in _FEW.items() if key in model.get_params() and key != "n_components"}
    model.set_params(**few)
    number = pick(rng, [FloatTensorType, FloatTensorType, DoubleTensorType])
    named = bool(rng.random() < 0.5)
    taken: Any = rows[[*_NUMBERS, "c"]] if named else rows[_NUMBERS]
    steps: list[Any] = [pick(rng, [StandardScaler, RobustScaler, MinMaxScaler])()]
    if named:
        one_hot = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
        steps = [ColumnTransformer([("numbers", steps[0], _NUMBERS), ("names", one_hot, ["c"])])]
    whole = make_pipeline(*steps, model)
    try:
        whole.fit(taken, np.exp(rows["e"]) if numbers else labels_of(rows, rng, pick(rng, LABELS)))
    except np.linalg.LinAlgError:
        return
    inputs = [(n, StringTensorType([None, 1]) if n == "c" else number([None, 1])) for n in taken.columns]
    options = {} if numbers else {"options": {"zipmap": bool(rng.integers(2))}}
    try:
        graph = to_onnx(whole, initial_types=inputs if named else [("X", number([None, 4]))], **options)
    except Exception:  # what its converter does not know
        return
    content = graph.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    width = np.float32 if number is FloatTensorType else np.float64
    fed = {n: taken[[n]].to_numpy(object if n == "c" else width) for n in taken.columns}
    try:  # on one thread: the sums of several may fall otherwise
        found = session_of(onnxruntime, content).run(None, fed if named else {"X": taken.to_numpy(width)})
    except Exception:  # its converter writes graphs that onnxruntime does not take
        return
    flags: dict[str, Any] = {} if named else {"features": tuple(_NUMBERS)}
    answers = found[0].ravel() if numbers else found[1]
    if isinstance(answers, list):
        answers = [[row[name] for name in whole.classes_.tolist()] for row in answers]
    flags |= {"task": "regression"} if numbers else {}
    if isinstance(model, linear_model.RidgeClassifier):
        answers = None  # which are scores
    what = f"{seed}: {model} {number.__name__} named {named}"
    held.hold(what, folder / "model.onnx", taken, found[0], answers, **flags)


def torch_model(seed: int, held: Held, folder: Path) -> None:
    """A network as weights, a program or a bundle, held to its own logits."""
    import torch
    from torch import nn

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    rows = rows_of(rng)[_NUMBERS]
    k = int(rng.integers(2, 5))
    act = pick(rng, [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU])
    network = nn.Sequential(nn.Linear(4, 5), act(), nn.Linear(5, k)).eval()
    classes = tuple("abcd"[:k])
    x = torch.from_numpy(rows.to_numpy(np.float32))
    way = pick(rng, ["torch.export", "TorchScript", "weights", "safetensors"])
    path = folder / "model.pt2"
    flags: dict[str, Any] = {"classes": classes, "features": tuple(_NUMBERS), "outputs": "logits"}
    with torch.no_grad():
        logits = network(x)
    if way == "torch.export":
        dynamic = {"input": {0: torch.export.Dim("rows")}}
        torch.export.save(torch.export.export(network, (x[:2],), dynamic_shapes=dynamic), path)
        flags |= {"allow_code": True}
    elif way == "TorchScript":
        torch.jit.save(torch.jit.trace(network, x[:2]), path)
        flags |= {"allow_code": True}
    else:
        from safetensors.torch import save_file

        (save_file if way == "safetensors" else torch.save)(network.state_dict(), path)
        name = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.GELU: "gelu"}[act]
        flags |= {"architecture": "mlp", "architecture_args": {"activation": name}}
    decided, sure = np.asarray(classes)[logits.argmax(1)], torch.softmax(logits.double(), dim=1)
    # Logits are of single precision, and the order of a product's sums is its kernel's.
    held.hold(f"{seed}: {way} {act.__name__} {k}", path, rows, decided, sure, 1e-6, **flags)


OTHERS = {"skl2onnx": onnx_model, "torch": torch_model}


@pytest.mark.grid
@pytest.mark.parametrize("first", range(0, 150, _SIZE))
@pytest.mark.parametrize("library", OTHERS)
def test_graphs_and_programs(library: str, first: int, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed")
    held = Held()
    for seed in range(first, first + _SIZE):
        OTHERS[library](seed, held, tmp_path)
    held.check(0.3)
    assert held.read >= 8
