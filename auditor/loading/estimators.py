"""scikit-learn models from ``.skops`` files: types from an exact list, with trees checked before use."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np

from auditor.core.errors import (
    DamagedError,
    MissingExtraError,
    ModelError,
    UnsafeModelError,
    UnsupportedError,
    UsageError,
    did_you_mean,
)
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows, take_rows
from auditor.data.preprocessing import is_missing
from auditor.loading.estimator_checks import check_trees
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of, require_features
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import MORE_THAN_HALF, AuditedModel, Provenance
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.onnx_graphs import OPSET, OPSET_ML
from auditor.models.files.strict_zip import Archive, array_header, open_archive
from auditor.models.files.unpickling import describe_calls
from auditor.models.regression_model import AuditedRegressor

# Exact names that skops does not trust by default and that carry data only: made with __new__, filled with attributes.
# The two kinds of tree index memory by numbers of the file; check_trees looks at every one of these.
HARMLESS = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.DotProduct",
        "sklearn.gaussian_process.kernels.Matern",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.gaussian_process.kernels.RationalQuadratic",
        "sklearn.gaussian_process.kernels.Sum",
        "sklearn.gaussian_process.kernels.WhiteKernel",
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.multiclass._ConstantPredictor",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
    }
)
_MAX_SCHEMA_BYTES = 256 << 20
# Whose predict takes the largest of predict_proba, but for how equal ones and rounding fall. Any other is asked itself.
_BY_PROBABILITY = frozenset(
    "AdaBoostClassifier BaggingClassifier BernoulliNB CalibratedClassifierCV DecisionTreeClassifier "
    "ExtraTreeClassifier ExtraTreesClassifier GaussianNB GradientBoostingClassifier HistGradientBoostingClassifier "
    "KNeighborsClassifier LGBMClassifier LinearDiscriminantAnalysis LogisticRegression LogisticRegressionCV "
    "MLPClassifier MultinomialNB QuadraticDiscriminantAnalysis RandomForestClassifier VotingClassifier".split()
)
_MOST_NESTED = 16
# How a file of one pickled estimator may end.
PICKLED = (".joblib", ".pkl")


class EstimatorModel(AuditedModel):
    """A fitted scikit-learn classifier; ``estimator`` is the object itself, for attributions that know its kind.

    ``threshold``: that which was asked for, of the favourable class; where it is None, the estimator's own ``predict``
    decides.
    """

    endings = (".skops", *PICKLED)
    fits_anew = True
    # Rows in the form that a caller's own object takes; None for what was read from a file.
    as_given: Callable[[Rows], Any] | None = None

    def __init__(
        self,
        estimator: Any,
        *,
        classes: Iterable[object],
        features: tuple[str, ...] | None,
        threshold: float | None,
        provenance: Provenance,
    ) -> None:
        self.estimator = estimator
        self.n_columns = _count(estimator)
        self._label_index = {label: i for i, label in enumerate(estimator.classes_.tolist())}
        self.decides_itself = threshold is None
        own, of = (threshold, None) if threshold is not None else _own_threshold(estimator) or (MORE_THAN_HALF, 1)
        self._by_probability = threshold is not None or _decides_by_probability(estimator)
        super().__init__(
            self._estimate,
            classes=list(classes),
            features=features,
            threshold=own,
            threshold_class=of,
            provenance=provenance,
        )

    def threshold_of(self, positive: int) -> float:
        """The smallest probability at which one of two classes is chosen.

        Raises UnsupportedError where predict has another rule.
        """
        if not self._by_probability:
            raise UnsupportedError(
                f"{_deciding(self.estimator)} decides by its own predict and not by its probabilities, and this needs "
                "a rule on probabilities: add --threshold 0.5 to decide by that of the favourable label."
            )
        return super().threshold_of(positive)

    @property
    def decision_rule(self) -> str:
        """How a row is decided, as a sentence."""
        if not self.decides_itself:
            return self._rule_of_probabilities()
        by, own = f"the predict of its {_deciding(self.estimator)}", _own_threshold(self.estimator)
        if not self._by_probability:
            return f"Decides by {by}, which may differ from the largest probability."
        if not hasattr(self.estimator, "predict_proba"):
            return f"Decides by {by}."
        said = self._rule_of_probabilities().removesuffix(".")
        return f"{said}, as {by}." if own is None else f"{said}, the threshold of its {_deciding(self.estimator)}."

    def decide(self, probabilities: FloatArray, positive: int | None, X: Rows | None = None) -> IntArray:
        """(n,) class indices, by a requested threshold, else by the estimator's own ``predict``.

        It is asked about rows whose probabilities leave that open. Raises ModelError where they are not given and no
        probabilities say it.
        """
        decided = super().decide(probabilities, positive, X)
        if not self.decides_itself or not hasattr(self.estimator, "predict_proba"):
            return decided
        if X is None:
            self.threshold_of(0)
            return decided
        open_ = np.flatnonzero(self._in_doubt(probabilities))
        for start in range(0, open_.size, self.batch_rows):
            part = open_[start : start + self.batch_rows]
            decided[part] = self._predicted(take_rows(X, part))
        return decided

    def _in_doubt(self, probabilities: FloatArray) -> BoolArray:
        """(n,) whether what predict decides does not follow from the probabilities."""
        return self.in_doubt(probabilities) if self._by_probability else np.ones(len(probabilities), np.bool_)

    def native_file(self, ending: str) -> bytes:
        """The estimator as a file: see :func:`estimator_file`."""
        return estimator_file(self.estimator, ending)

    def onnx_graph(self) -> tuple[bytes, tuple[str, ...]]:
        """The graph of the fitted estimator, an input a column, and which of its columns are numbers.

        Columns are text where an encoder of theirs learned text. Numbers are taken in double precision where every
        operator can, else in single. Raises MissingExtraError without skl2onnx, UnsupportedError for an estimator whose
        columns have no names, or that it does not convert.
        """
        try:
            to_onnx, types_of = import_module("skl2onnx").to_onnx, import_module("skl2onnx.common.data_types")
        except ImportError:
            raise MissingExtraError(
                "skl2onnx exports this model, and is not installed: pip install 'responsible-auditor[onnx]'."
            ) from None
        estimator = self.estimator
        names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
        if not names or self.features != names or not hasattr(estimator, "predict_proba"):
            raise UnsupportedError(
                "Only a classifier with probabilities that was fitted on a table with named columns can be exported: "
                "fit the pipeline on a pandas DataFrame."
            )
        text = {name for _, name, levels in learned_levels(estimator, names) if levels.dtype.kind in "OUS"}
        why = ""
        kinds = (types_of.DoubleTensorType, types_of.FloatTensorType)
        by_column = [
            [(name, (types_of.StringTensorType if name in text else kind)([None, 1])) for name in names]
            for kind in kinds
        ]
        # What tells no columns apart takes them as one matrix alone.
        together = [] if text else [[("X", kind([None, len(names)]))] for kind in kinds]
        for types in (*by_column, *together):
            try:
                made = to_onnx(
                    estimator,
                    initial_types=types,
                    options={"zipmap": False},
                    target_opset={"": OPSET, "ai.onnx.ml": OPSET_ML},
                )
            except Exception as error:  # of the converter's own, about estimators that it does not know
                why = str(error)
                continue
            return made.SerializeToString(), tuple(name for name in names if name not in text)
        parts = {type(part).__name__ for part in estimator.get_params().values() if hasattr(part, "fit")}
        # Its own words name the part of a pipeline that it has no converter of, or the node that it failed to make.
        named = next((part for part in sorted(parts) if part in why), _deciding(estimator))
        raise UnsupportedError(
            f"skl2onnx does not convert {named} as it is used here: logistic regressions, random forests and "
            "GradientBoostingClassifier can be exported to ONNX. The file itself can be audited and repaired."
        )

    def fitted_anew(
        self,
        X: Rows,
        y: IntArray,
        weights: FloatArray | None,
        rng: np.random.Generator,
        hyperparameters: Mapping[str, Any],
    ) -> EstimatorModel:
        """The same estimator fitted on other rows; of a search, the one that it found."""
        old = self.estimator
        searched = hasattr(old, "best_estimator_")
        fresh = _cloned(old.best_estimator_ if searched else old, hyperparameters)
        keywords = {} if weights is None else _weight_keywords(fresh, weights)
        with warnings.catch_warnings(record=True) as caught, seeded_globals(rng):
            warnings.simplefilter("always")
            try:
                fresh.fit(input_of(old, self.features, X, self.as_given), old.classes_[y], **keywords)
            except Exception as error:  # what an estimator raises is its own affair
                raise ModelError(
                    f"The estimator cannot be fitted anew on these rows: {printable(error, 300)}.",
                    code="AUD-LOAD-UNSUPPORTED",
                ) from error
        said = tuple(dict.fromkeys(printable(w.message, 200) for w in caught))
        unweighed = [text for text in said if "sample_weight" in text or "sample weight" in text]
        if unweighed:
            raise ModelError(f"The estimator does not weigh its rows ({unweighed[0]}).", code="AUD-LOAD-UNSUPPORTED")
        if fresh.classes_.tolist() != old.classes_.tolist():
            raise ModelError(
                "The rows do not hold every class that the model knows: add rows of the others.",
                code="AUD-LOAD-CLASSES",
            )
        notes = [f"{type(fresh).__name__} fitted anew with the hyperparameters that it had{but_for(hyperparameters)}."]
        if searched:
            notes.append(
                f"Of the {type(old).__name__}, the estimator that it found is fitted; nothing is searched again."
            )
        notes += [f"While it was fitted: {text}" for text in said[:3]]
        new = EstimatorModel(
            fresh,
            classes=self.classes,
            features=self.features,
            threshold=None if self.decides_itself else self.threshold,
            provenance=Provenance(notes=tuple(notes)),
        )
        new.as_given = self.as_given
        return new

    def _estimate(self, X: Rows) -> FloatArray:
        """(n, n_classes) probabilities, or one-hot decisions where the estimator has none."""
        if not hasattr(self.estimator, "predict_proba"):
            return np.eye(self.n_outputs)[self._predicted(X)]
        rows = input_of(self.estimator, self.features, X, self.as_given)
        with _convert_errors():
            return np.asarray(self.estimator.predict_proba(rows), np.float64)

    def _predicted(self, X: Rows) -> IntArray:
        """(n,) class indices by the estimator's own ``predict``."""
        rows = input_of(self.estimator, self.features, X, self.as_given)
        with _convert_errors():
            labels = np.asarray(self.estimator.predict(rows)).ravel().tolist()
        return np.asarray([self._label_index[label] for label in labels], np.int64)


def _cloned(estimator: Any, settings: Mapping[str, Any]) -> Any:
    """An unfitted estimator with the same hyperparameters, in one process, and with no folder that it keeps things in.

    A pipeline's ``memory`` names a folder whose files are unpickled, which no file may ask for.
    """
    from sklearn.base import clone

    try:
        fresh = clone(estimator)
        known = fresh.get_params(deep=True)
        own: dict[str, int | None] = {}
        for name in known:
            step, _, setting = name.rpartition("__")
            if setting in ("memory", "n_jobs"):
                # None is one process to scikit-learn, and every core to LightGBM and XGBoost.
                booster = not type(known.get(step, fresh)).__module__.startswith("sklearn.")
                own[name] = 1 if booster and setting == "n_jobs" else None
        fresh.set_params(**own)
    except Exception as error:  # a file may leave out what a constructor needs
        raise ModelError(
            f"The estimator cannot be made anew from its hyperparameters: {printable(error, 300)}.",
            code="AUD-LOAD-UNSUPPORTED",
        ) from error
    for name in settings:
        if name not in known or name in own:
            near = did_you_mean(name, [key for key in known if key not in own])
            raise UsageError(f"{type(fresh).__name__} has no hyperparameter {name!r}{near or '.'}")
    return fresh.set_params(**settings)


def _weight_keywords(estimator: Any, weights: FloatArray, prefix: str = "") -> dict[str, Any]:
    """The keywords of ``fit`` by which the rows are weighed; of a pipeline its last step weighs them."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return _weight_keywords(last, weights, f"{prefix}{name}__")
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ModelError(f"{type(estimator).__name__} takes no sample_weight.", code="AUD-LOAD-UNSUPPORTED")
    return {f"{prefix}sample_weight": weights}


def but_for(settings: Mapping[str, Any]) -> str:
    """The hyperparameters that are otherwise than they were, as the end of a sentence."""
    return f", but for {', '.join(f'{name}={value!r}' for name, value in settings.items())}" if settings else ""


def estimator_file(estimator: Any, ending: str) -> bytes:
    """An estimator as a joblib or pickle file if the name ends so, which this toolkit reads by its own list of types,
    else as a skops file; ModelError if this toolkit could not read it again."""
    if ending == ".pkl":
        return pickle.dumps(estimator)
    if ending == ".joblib":
        import joblib  # type: ignore[import-untyped]

        joblib.dump(estimator, file := BytesIO())
        return file.getvalue()
    import skops.io

    content: bytes = skops.io.dumps(estimator)
    foreign = [name for name in skops.io.get_untrusted_types(data=content) if name not in HARMLESS]
    if foreign:
        raise ModelError(
            f"The estimator holds {printable(foreign[0], 80)}, which no skops file brings back: write it as .joblib.",
            code="AUD-LOAD-TYPE",
        )
    return content


class EstimatorRegressor(AuditedRegressor):
    """A fitted scikit-learn regressor of one target; ``estimator`` is the object itself."""

    as_given: Callable[[Rows], Any] | None = None

    def __init__(self, estimator: Any, *, features: tuple[str, ...] | None, provenance: Provenance) -> None:
        self.estimator = estimator
        self.n_columns = _count(estimator)
        super().__init__(self._estimate, features=features, provenance=provenance)

    def _estimate(self, X: Rows) -> Any:
        """(n,) predictions; (n, 1) and (n, n_targets) where the estimator was fitted so."""
        rows = input_of(self.estimator, self.features, X, self.as_given)
        with _convert_errors():
            return np.asarray(self.estimator.predict(rows))


def _count(estimator: Any) -> int | None:
    found = getattr(estimator, "n_features_in_", None)
    return found if isinstance(found, int) and found > 0 else None  # CatBoost within a vote says 0


@contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # scikit-learn raises ValueError, but what a transformer raises is its own affair
        raise ModelError(f"The estimator refused the data: {printable(error, 300)}", code="AUD-LOAD-ANSWERS") from error


def input_of(
    estimator: Any,
    features: tuple[str, ...] | None,
    X: Rows,
    as_given: Callable[[Rows], Any] | None = None,
) -> Any:
    """The rows as the estimator takes them: as they were given, a list of texts, a table of its columns, or their
    values."""
    if as_given is not None:
        return as_given(X)
    if isinstance(X, np.ndarray):
        return list(X) if X.dtype == object else X.reshape(len(X), -1)
    if features is not None:
        require_features(features, X)
    wanted = X if features is None else X[list(features)]
    # Without names of its own an estimator warns of a table that has some.
    return wanted if getattr(estimator, "feature_names_in_", None) is not None else wanted.to_numpy()


def load_skops(source: Source, archive: Archive, spec: ModelSpec) -> EstimatorModel | EstimatorRegressor:
    """The model of a skops file. Raises UnsafeModelError for a type off the list, else ModelError."""
    import skops.io

    _check_members(source, archive)
    with convert_parser_errors(f"{source.name!r} cannot be read as a skops file"):
        untrusted = skops.io.get_untrusted_types(data=source.data)
        foreign = [name for name in untrusted if name not in HARMLESS]
        if foreign:
            raise UnsafeModelError(
                f"{source.name!r} would use {describe_calls(foreign)}, which is not known to be harmless. If you trust "
                "it, audit it through your own loader with --predict package.module:function.",
                code="AUD-LOAD-TYPE",
            )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            estimator = skops.io.loads(source.data, trusted=untrusted)
        check_trees(estimator, source.name)
    notes = tuple(dict.fromkeys(printable(w.message, 200) for w in caught))
    with convert_parser_errors(f"{source.name!r} holds a model that is incomplete"):
        return estimator_model(estimator, source, spec, format="skops", loaded_by="skops.io.loads", notes=notes)


def estimator_model(
    estimator: Any, source: Source, spec: ModelSpec, *, format: str, loaded_by: str, notes: tuple[str, ...] = ()
) -> EstimatorModel | EstimatorRegressor:
    """A fitted classifier or regressor as an audited model. Raises ModelError for whatever is neither."""
    if is_fitted_regressor(estimator):
        no_flags_of_classes(spec)
        features, notes = _features(estimator, spec, notes)
        return EstimatorRegressor(
            estimator, features=features, provenance=provenance_of(source, format, loaded_by, notes)
        )
    found = getattr(estimator, "classes_", None)
    if not isinstance(found, np.ndarray) or found.ndim != 1 or not hasattr(estimator, "predict"):
        kind = printable(type(estimator).__name__, 60)
        raise UnsupportedError(
            f"{source.name!r} holds a {kind}, which is no fitted classifier or regressor of one target: clustering and "
            "several targets at once are not supported yet. A decision rule on top of it can be audited with "
            "--predict."
        )
    if spec.outputs == "logits":
        raise UsageError("A scikit-learn classifier gives probabilities or decisions: leave --outputs out.")
    classes = named_classes([str(label) for label in found.tolist()], spec)
    features, notes = _features(estimator, spec, notes)
    return EstimatorModel(
        estimator,
        classes=classes,
        features=features,
        threshold=spec.threshold,
        provenance=provenance_of(source, format, loaded_by, notes),
    )


def _decider(estimator: Any) -> Any:
    """The part of an estimator whose ``predict`` decides: the last step of a pipeline, the best one of a search."""
    from sklearn.pipeline import Pipeline

    for _ in range(_MOST_NESTED):  # a file may hold an estimator that contains itself
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
    return estimator


def _deciding(estimator: Any) -> str:
    return printable(type(_decider(estimator)).__name__, 60)


def _own_threshold(estimator: Any) -> tuple[float, int] | None:
    """The threshold that scikit-learn was told or found for a probability, and the index of its class; else None."""
    from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

    own = _decider(estimator)
    if not isinstance(own, FixedThresholdClassifier | TunedThresholdClassifierCV):
        return None
    if own.response_method == "decision_function" or not hasattr(own, "predict_proba"):
        return None
    if isinstance(own, FixedThresholdClassifier):
        threshold, label = 0.5 if own.threshold == "auto" else own.threshold, own.pos_label
    else:
        threshold, label = own.best_threshold_, own._curve_scorer._get_pos_label()
    return float(threshold), 1 if label is None else own.classes_.tolist().index(label)


def _decides_by_probability(estimator: Any) -> bool:
    """Whether decisions follow from probabilities, but for those in doubt, and whatever has none decides one-hot."""
    return (
        not hasattr(estimator, "predict_proba")
        or type(_decider(estimator)).__name__ in _BY_PROBABILITY
        or _own_threshold(estimator) is not None
    )


def learned_levels(estimator: Any, names: Sequence[str]) -> Iterator[tuple[Any, str, Any]]:
    """(encoder, column, its levels in training) of each encoder that is given a column as it is in the rows.

    ``names``: the columns that ``estimator`` is given, in order.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "learned_levels"):
        yield from estimator.learned_levels()
        return
    for _, step in getattr(estimator, "steps", ()):
        yield from learned_levels(step, names)
        if type(step).__name__ not in ("str", "SimpleImputer") or not is_missing(getattr(step, "missing_values", None)):
            break  # what comes later is given other values
    for _, part, columns in getattr(estimator, "transformers_", ()):
        own = [] if isinstance(columns, slice) else list(np.atleast_1d(columns))
        if own and isinstance(own[0], np.bool_):
            own = [name for name, chosen in zip(names, own, strict=True) if chosen]
        yield from learned_levels(part, [names[int(c)] if isinstance(c, np.integer) else str(c) for c in own])
    levels = getattr(estimator, "categories_", ())
    if len(levels) == len(names):
        yield from ((estimator, name, known) for name, known in zip(names, map(np.asarray, levels), strict=True))


def is_fitted_regressor(estimator: Any) -> bool:
    """Whether it is a fitted scikit-learn regressor."""
    from sklearn.base import is_regressor
    from sklearn.utils.validation import check_is_fitted

    try:
        if not hasattr(estimator, "__sklearn_tags__") or not is_regressor(estimator):
            return False
        check_is_fitted(estimator)
    except Exception:  # tags are computed from attributes, which a file may have left out
        return False
    return True


def _features(
    estimator: Any, spec: ModelSpec, notes: tuple[str, ...]
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The columns the estimator takes, where it or a flag names them, and the notes with what is assumed."""
    names = getattr(estimator, "feature_names_in_", None)
    features = spec.features if names is None else tuple(map(str, names))
    if spec.features is not None and spec.features != features:
        raise UsageError("The model file names its own features: leave --features out.")
    count = _count(estimator)
    if features is not None and count is not None and len(features) != count:
        raise UsageError(f"--features names {len(features)} columns, but the model takes {count}.")
    if features is None and count is not None:
        notes = (*notes, f"The model takes {count} columns and does not name them: they are taken in order.")
    return features, notes


def _check_members(source: Source, archive: Archive) -> None:
    """Arrays no larger than the bytes they come in, archives within no less strict, and a schema of a sane size."""
    if archive.records["schema.json"].size > _MAX_SCHEMA_BYTES:
        raise ModelError(
            f"{source.name!r} has a schema of more than {_MAX_SCHEMA_BYTES:,} bytes.", code="AUD-LOAD-LIMIT"
        )
    with convert_parser_errors(f"{source.name!r} has no valid schema"):
        schema = json.loads(archive.read("schema.json"))
        if not isinstance(schema, dict):
            raise DamagedError(f"{source.name!r} has no valid schema.")
    _check_dtypes(schema, source.name)
    for name in archive.records:
        if name == "schema.json":
            continue
        what = f"{source.name}/{printable(name, 60)}"
        content = archive.read(name)
        if content[:4] == b"PK\x03\x04":
            inner = open_archive(content, what)
            for part in inner.records:
                _check_array(inner.read(part), what)
        else:
            _check_array(content, what)


def _check_dtypes(schema: dict[str, Any], name: str) -> None:
    """A dtype may only be that of an array in the file, never made or changed by what the file says of it."""
    nodes: list[Any] = [schema]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            kind = node.get("__module__"), node.get("__class__"), node.get("__loader__")
            if kind[:2] == ("numpy", "dtype") and kind[2] != "DTypeNode":
                raise UnsafeModelError(
                    f"{name!r} makes a numpy.dtype by {printable(kind[2], 40)}, which no estimator does.",
                    code="AUD-LOAD-TYPE",
                )
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node


def _check_array(content: bytes, file_name: str) -> None:
    if content[:6] != b"\x93NUMPY":
        return
    with convert_parser_errors(f"{file_name!r} holds a damaged array"):
        file = BytesIO(content)
        shape, dtype = array_header(file)
        if dtype.hasobject:
            raise UnsafeModelError(f"{file_name!r} holds pickled objects, which run code when they are loaded.")
        count = 1
        for length in shape:
            count *= length
        if min(shape, default=1) < 0 or count * dtype.itemsize != len(content) - file.tell():
            raise DamagedError(
                f"{file_name!r} holds an array of shape {shape[:6]} in {len(content):,} bytes: not what it claims to "
                f"store."
            )
