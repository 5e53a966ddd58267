"""scikit-learn models from ``.skops`` files: types from an exact list, with trees checked before use."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np

from auditor.core.errors import (
    DamagedError,
    ModelError,
    UnsafeModelError,
    UnsupportedError,
    UsageError,
)
from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows, take_rows
from auditor.data.preprocessing import is_missing
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of, require_features
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import MORE_THAN_HALF, AuditedModel, Provenance
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.pickles import describe_calls
from auditor.models.files.strict_zip import Archive, array_header, open_archive
from auditor.models.regression_model import AuditedRegressor

# Exact names that skops does not trust by default and that carry data only: made with __new__, filled with attributes.
# The two kinds of tree index memory by numbers of the file; check_trees looks at every one of these.
HARMLESS = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
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
    "KNeighborsClassifier LinearDiscriminantAnalysis LogisticRegression LogisticRegressionCV MLPClassifier "
    "MultinomialNB QuadraticDiscriminantAnalysis RandomForestClassifier VotingClassifier".split()
)
_MOST_NESTED = 16
# Nearer to each other than this, probabilities do not say what predict decides.
_IN_DOUBT = 1e-6


class EstimatorModel(AuditedModel):
    """A fitted scikit-learn classifier; ``estimator`` is the object itself, for attributions that know its kind.

    ``threshold``: that which was asked for, of the favourable class; where it is None, the estimator's own ``predict``
    decides.
    """

    endings = (".skops", ".joblib", ".pkl")
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
        if not self._by_probability:
            return np.ones(len(probabilities), np.bool_)
        if self.n_outputs == 2:
            return np.asarray(np.abs(probabilities[:, self.threshold_class] - self.threshold) < _IN_DOUBT, np.bool_)
        largest = np.partition(probabilities, -2, axis=1)
        return np.asarray(largest[:, -1] - largest[:, -2] < _IN_DOUBT, np.bool_)

    def native_file(self, ending: str) -> bytes:
        """The estimator as a file: see :func:`estimator_file`."""
        return estimator_file(self.estimator, ending)

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
    return found if isinstance(found, int) else None


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
    if spec.threshold is None:
        notes = (*notes, *_rule_of(estimator, classes))
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


def _rule_of(estimator: Any, classes: tuple[str, ...]) -> Iterator[str]:
    """How an estimator decides, as a note, where that is not by the largest probability."""
    own = _own_threshold(estimator)
    if own is not None:
        yield (
            f"It decides for {classes[own[1]]!r} where the probability is at least {own[0]:.4g}, the threshold of its "
            f"{_deciding(estimator)}."
        )
    elif not _decides_by_probability(estimator):
        yield f"It decides by the predict of its {_deciding(estimator)}, which may differ from the largest probability."


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
    count = getattr(estimator, "n_features_in_", None)
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


def check_trees(estimator: Any, file_name: str) -> None:
    """Raise ModelError for a decision tree with nodes or features out of range, and for inconsistent support vectors or
    categories.

    scikit-learn walks them in compiled code without looking: one number that is off crashes the interpreter.
    """
    for owner in _objects(estimator):
        trees = [member for member in _members(owner) if type(member).__name__ in ("Tree", "TreePredictor")]
        for tree in trees:
            width = getattr(owner, "n_features_in_", None)
            if width is None and type(tree).__name__ == "Tree":
                raise DamagedError(
                    f"{file_name!r} holds a doctored decision tree: it says not how many columns it takes."
                )
            problem = tree_problem(tree, width) if type(tree).__name__ == "Tree" else _predictor_problem(tree)
            if problem:
                raise DamagedError(f"{file_name!r} holds a doctored decision tree: {problem}.")
        _check_ensemble(owner, file_name)
        for problem in (_vectors_problem(owner), _bins_problem(owner)):
            if problem:
                raise DamagedError(f"{file_name!r} holds a doctored {type(owner).__name__}: {problem}.")


def _vectors_problem(owner: Any) -> str:
    """What is wrong with the support vectors of libsvm, which takes the length of each array from another."""
    parts = vars(owner)
    if "_n_support" not in parts or "support_" not in parts:
        return ""
    counts, support, width = parts["_n_support"], parts["support_"], getattr(owner, "n_features_in_", None)
    n, kinds = len(support), len(counts)
    pairs = kinds * (kinds - 1) // 2
    vectors, fitted = parts["support_vectors_"], parts["shape_fit_"]
    classifies = getattr(owner, "_impl", "") in ("c_svc", "nu_svc")
    if kinds < 2 or (np.asarray(counts) < 0).any() or (classifies and int(np.sum(counts)) != n):
        return "it has another number of support vectors than it counts"
    if parts["_dual_coef_"].shape != (kinds - 1, n) or np.shape(parts["_intercept_"]) != (pairs,):
        return "it has coefficients of another number"
    if any(len(parts[name]) not in (0, 1, pairs) for name in ("_probA", "_probB")):
        return "it has probabilities of another number"
    if len(parts["_probA"]) != len(parts["_probB"]) or (len(parts["_probA"]) == 1 != pairs and classifies):
        return "it has probabilities of another number"
    precomputed = owner.kernel == "precomputed" or callable(owner.kernel)
    if precomputed and ((np.asarray(support) < 0).any() or (np.asarray(support) >= fitted[0]).any()):
        return "it asks for a row that is not there"
    if not precomputed and n and vectors.shape != (n, width):
        return "it has support vectors of another width"
    return ""


def _bins_problem(owner: Any) -> str:
    """What is wrong with the categories of histogram gradient boosting, which are places in 256 bits."""
    bins = vars(owner).get("_bin_mapper")
    if bins is None:
        return ""
    width, known = len(bins.is_categorical_), bins.bin_thresholds_
    if len(known) != width or any(p.nodes["feature_idx"].max() >= width for p in _flat(vars(owner)["_predictors"])):
        return "it asks for a column that is not there"
    for categorical, values in zip(bins.is_categorical_, known, strict=True):
        if categorical and ((np.asarray(values) < 0).any() or (np.asarray(values) > 255).any()):
            return "it asks for a category that is not there"
    return ""


def _check_ensemble(owner: Any, file_name: str) -> None:
    """Forests hand their rows to every tree unseen, so each must take as many columns as the whole.

    Gradient boosting adds the trees of a stage to the columns of its first guess, in compiled code without looking.
    """
    width = getattr(owner, "n_features_in_", None)
    stages = vars(owner).get("estimators_")
    if isinstance(stages, np.ndarray) and stages.ndim == 2 and hasattr(owner, "_raw_predict_init"):
        guess = owner._raw_predict_init(np.zeros((1, stages[0, 0].n_features_in_)))
        if np.shape(guess) != (1, stages.shape[1]):
            raise DamagedError(f"{file_name!r} holds a doctored ensemble: its trees predict another number of outputs.")
    # Bagging hands each member columns of its own, by a call that checks their number; no forest does.
    if hasattr(owner, "estimators_features_") and not hasattr(owner, "_validate_X_predict"):
        return
    for member in _flat(vars(owner).get("estimators_")):
        if hasattr(member, "tree_") and getattr(member, "n_features_in_", None) != width:
            raise DamagedError(f"{file_name!r} holds a doctored ensemble: its trees take different numbers of columns.")
    for predictor in _flat(vars(owner).get("_predictors")):
        nodes = predictor.nodes
        if width is None or (nodes["feature_idx"][nodes["is_leaf"] == 0] >= width).any():
            raise DamagedError(f"{file_name!r} holds a doctored decision tree: it asks for a column that is not there.")


def tree_problem(tree: Any, width: object) -> str:
    """The problem of a decision tree's nodes, or ""; ``width``: the number of its owner's columns."""
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    n, place = tree.node_count, np.arange(tree.node_count)
    inner = left != -1
    children = np.concatenate([left[inner], right[inner]])
    if n < 1 or len(left) != n or len(tree.value) != n:
        return "it has no nodes, or values of another number"
    if (children <= np.tile(place[inner], 2)).any() or (children >= n).any():
        return "a node lies outside of it"
    if (
        (feature[inner] < 0).any()
        or (feature[inner] >= tree.n_features).any()
        or (width is not None and tree.n_features != width)
    ):
        return "it asks for a column that is not there"
    return ""


def _predictor_problem(tree: Any) -> str:
    nodes = tree.nodes
    names = set(nodes.dtype.names or ()) if isinstance(nodes, np.ndarray) and nodes.ndim == 1 else set()
    if not {"left", "right", "is_leaf", "feature_idx", "is_categorical", "bitset_idx"} <= names or not len(nodes):
        return "it has no nodes"
    inner = nodes["is_leaf"] == 0
    children = np.concatenate([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    if (children <= np.tile(np.flatnonzero(inner), 2)).any() or (children >= len(nodes)).any():
        return "a node lies outside of it"
    if (nodes["feature_idx"][inner] < 0).any():
        return "it asks for a column that is not there"
    categorical = inner & (nodes["is_categorical"] != 0)
    if (
        nodes["bitset_idx"][categorical] >= min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
    ).any() or any(np.shape(bits)[1:] != (8,) for bits in (tree.raw_left_cat_bitsets, tree.binned_left_cat_bitsets)):
        return "it asks for a category that is not there"
    return ""


def _members(owner: Any) -> list[Any]:
    return [m for value in getattr(owner, "__dict__", {}).values() for m in _flat(value)]


def _flat(value: Any) -> Iterator[Any]:
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple, dict, np.ndarray)):
            # A file may hold a list that contains itself.
            if id(item) in seen:
                continue
            seen.add(id(item))
        if isinstance(item, (list, tuple)):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, np.ndarray) and item.dtype == object:
            stack.extend(item.ravel().tolist())
        elif item is not None:
            yield item


def _objects(root: Any) -> Iterator[Any]:
    """Every object with attributes that can be reached from ``root``, each once."""
    stack, seen = [root], set()
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type) or not hasattr(item, "__dict__"):
            continue
        seen.add(id(item))
        yield item
        stack.extend(_members(item))
