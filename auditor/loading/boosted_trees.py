"""Boosted trees of XGBoost, LightGBM and CatBoost from the files their own libraries write: data, and no code.

The libraries parse the bytes in compiled code of their own; that happens in the measuring process, like all loading.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from auditor.core.errors import DataError, MissingExtraError, UnsupportedError, UsageError
from auditor.core.rows import FloatArray
from auditor.data.preprocessing import as_text, label_name
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of, require_features
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import MORE_THAN_HALF, AuditedModel, Provenance
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.regression_model import AuditedRegressor

_ONE_AGAINST_ALL = frozenset({"multiclassova", "MultiClassOneVsAll"})
_CLASSIFIERS = _ONE_AGAINST_ALL | frozenset(
    {"binary:logistic", "binary:logitraw", "binary:hinge", "multi:softprob", "multi:softmax"}  # XGBoost
    | {"binary", "cross_entropy", "multiclass"}  # LightGBM
    | {"Logloss", "CrossEntropy", "MultiClass"}  # CatBoost
)
_REGRESSORS = re.compile(
    r"^(reg:.*|count:poisson"
    r"|regression|regression_l1|huber|fair|poisson|quantile|mape|gamma|tweedie"
    r"|(RMSE|MAE|Huber|Quantile|MAPE|Poisson|Tweedie|LogCosh|Expectile|Lq)(:.*)?)$"
)
# How a truth value may be spelled in a column of categories; CatBoost takes a boolean for a whole number.
_TRUTH_NUMBERS = ("0", "1")
_TRUTH_SPELLINGS = (("False", "True"), ("false", "true"), ("FALSE", "TRUE"), _TRUTH_NUMBERS)
_TRUTH_TEXTS = {text: value for spelling in _TRUTH_SPELLINGS[:-1] for value, text in enumerate(spelling)}
# Rows by which categories are looked up at first.
_FEW = 1000


@dataclass(frozen=True, eq=False, kw_only=True)
class Boosted:
    """Boosted trees as a scikit-learn estimator: ``trees`` is the library's own object, which shap reads.

    ``features``: the columns it takes, in order. ``categories``: of each column of categories, those that it knows, of
    the type that it knows them by and in the order of their codes, or None where the library looks them up itself.
    ``n_outputs``: columns of raw scores. ``objective``: what the trees were fitted for, in the library's words.
    ``threshold``: the least probability of the last of two classes at which the library decides for it.
    ``truth_spellings``: of each column of categories, how the truth values that it has learned are spelled.
    """

    made_by: str
    trees: Any
    features: tuple[str, ...]
    categories: Mapping[str, pd.Index[Any] | None]
    n_outputs: int
    objective: str
    labels: tuple[str, ...]
    threshold: float = MORE_THAN_HALF
    truth_spellings: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def classes_(self) -> Any:
        """The classes, under scikit-learn's attribute name."""
        return np.asarray(self.labels)

    def table(self, X: Any) -> pd.DataFrame:
        """The rows in the library's form: numbers, and its own categories.

        Raises DataError for a new category, and for truth values that may be two categories.
        """
        if isinstance(X, np.ndarray):
            X = pd.DataFrame(X, columns=list(self.features))
        require_features(self.features, X)
        rows = pd.DataFrame({name: self._column(name, X[name]) for name in self.features})
        looked_up = [name for name, known in self.categories.items() if known is None]
        truths = [name for name in looked_up if rows[name].isin(_TRUTH_TEXTS).any()]
        for name in truths:
            if name not in self.truth_spellings:
                others = [other for other in truths if other != name]
                found = self._known_spellings(rows[:_FEW], name, others) or self._known_spellings(rows, name, others)
                if found:
                    self.truth_spellings[name] = found
        return rows.assign(**{name: self._spelled(name, rows[name]) for name in truths})

    def _known_spellings(self, rows: pd.DataFrame, name: str, others: Sequence[str]) -> list[tuple[str, str]]:
        """The spellings of truth values that the model answers otherwise than a category that it cannot know.

        ``others``: further columns of truth values, as a category may count only beside those of another column.
        """
        found = []
        for beside in _TRUTH_SPELLINGS if others else _TRUTH_SPELLINGS[:1]:
            respelled = {text: beside[value] for text, value in _TRUTH_TEXTS.items()}
            asked = rows.assign(**{other: rows[other].replace(respelled) for other in others})
            unknown = self._raw(asked.assign(**{name: "\x00"}))
            found += [
                spelling
                for spelling in _TRUTH_SPELLINGS
                if any((self._raw(asked.assign(**{name: text})) != unknown).any() for text in spelling)
            ]
        return [spelling for spelling in _TRUTH_SPELLINGS if spelling in found]

    def _spelled(self, name: str, values: pd.Series[Any]) -> pd.Series[Any]:
        """A column with its truth values spelled as the model has learned them. Raises DataError where that is open."""
        known = self.truth_spellings.get(name, [])
        respelled = {}
        for text in set(values) & set(_TRUTH_TEXTS):
            learned = {spelling[_TRUTH_TEXTS[text]] for spelling in known}
            if len(learned) > 1 and (text not in learned or _TRUTH_NUMBERS in known):
                raise DataError(
                    f"Column {name!r} holds {text!r}, and the model has learned {' and '.join(sorted(learned))} there: "
                    "write the column's values as 0 and 1 or as the texts that it was fitted on, or audit the model "
                    "with --predict.",
                    code="AUD-DATA-VALUES",
                )
            respelled[text] = text if text in learned or not learned else learned.pop()
        return values.replace(respelled)

    def _column(self, name: str, values: Any) -> Any:
        values = values.reset_index(drop=True)
        if name not in self.categories:
            kind = values.dtype.kind if isinstance(values.dtype, np.dtype) else "O"
            numbers = values if kind in "iufb" else pd.to_numeric(values, errors="coerce")
            if kind not in "iufb" and (numbers.isna() & values.notna()).any():
                strange = values[numbers.isna() & values.notna()].iloc[0]
                raise DataError(
                    f"Column {name!r} holds {printable(strange, 40)!r}, and the model takes numbers there.",
                    code="AUD-DATA-VALUES",
                )
            return numbers.astype(np.float64)
        names, known = as_text(values), self.categories[name]
        if known is None:
            return names.fillna("nan").astype(object)
        places = _places(known)
        codes = {text: places.get(text, places.get(label_name(text))) for text in names.dropna().unique()}
        new = sorted(text for text, code in codes.items() if code is None)
        if new:
            raise DataError(
                f"Column {name!r} holds {printable(new[0], 40)!r}, which the model has not learned: it knows "
                f"{', '.join(map(str, known[:8]))}.",
                code="AUD-DATA-VALUES",
            )
        return pd.Categorical.from_codes(names.map(codes).fillna(-1).astype(np.int64), categories=known)

    def raw(self, X: Any) -> FloatArray:
        """(n, n_outputs) scores before the link, or the predicted numbers."""
        return self._raw(self.table(X))

    def _raw(self, rows: pd.DataFrame) -> FloatArray:
        if self.made_by == "XGBoost":
            found = self.trees.predict(_dmatrix(rows, self), output_margin=True)
        elif self.made_by == "LightGBM":
            found = self.trees.predict(rows, raw_score=True)
        else:
            found = self.trees.predict(rows, prediction_type="RawFormulaVal")
        return np.asarray(found, np.float64).reshape(len(rows), -1)

    def decision_function(self, X: Any) -> FloatArray:
        """Log-odds (n,) of the last of two classes, scores (n, k) of more."""
        scores = self.raw(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: Any) -> FloatArray:
        """(n, k) probabilities, by the library's own link; those of each class against all others as shares."""
        rows = self.table(X)
        if self.made_by == "XGBoost":
            if self.objective == "multi:softmax":  # its own prediction is a label
                scores = self.raw(X)
                shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
                found: Any = shifted / shifted.sum(axis=1, keepdims=True)
            else:
                found = np.asarray(self.trees.predict(_dmatrix(rows, self)))
                if self.objective == "binary:logitraw":
                    found = _logistic(found.astype(np.float64))
        elif self.made_by == "LightGBM":
            found = np.asarray(self.trees.predict(rows), np.float64)
        else:
            found = np.asarray(self.trees.predict(rows, prediction_type="Probability"), np.float64)
        # Of the first of two classes the probability is rounded as the library rounds it.
        both = np.column_stack([1.0 - found, found]) if found.ndim == 1 else found
        both = both.astype(np.float64)
        return both / both.sum(axis=1, keepdims=True) if self.objective in _ONE_AGAINST_ALL else both

    def predict(self, X: Any) -> FloatArray:
        """(n,) predicted numbers of a regression, after the library's own link."""
        rows = self.table(X)
        if self.made_by == "XGBoost":
            return np.asarray(self.trees.predict(_dmatrix(rows, self)), np.float64)
        return np.asarray(self.trees.predict(rows), np.float64)


def _dmatrix(rows: pd.DataFrame, boosted: Boosted) -> Any:
    xgboost = import_module("xgboost")
    named = boosted.trees.feature_names is not None
    return xgboost.DMatrix(rows if named else rows.to_numpy(), enable_categorical=bool(boosted.categories))


class BoostedClassifier(AuditedModel):
    """A boosted-trees classifier; ``estimator`` is its :class:`Boosted`.

    ``threshold``: that which was asked for, of the favourable class; where it is None, the library's own decides.
    """

    def __init__(
        self, estimator: Boosted, *, classes: Sequence[object], threshold: float | None, provenance: Provenance
    ) -> None:
        self.estimator = estimator
        self.decides_itself = threshold is None
        super().__init__(
            estimator.predict_proba,
            classes=classes,
            features=estimator.features,
            threshold=estimator.threshold if threshold is None else threshold,
            threshold_class=1 if threshold is None else None,
            provenance=provenance,
        )
        self.group_columns = tuple(estimator.categories)
        self.endings = {"XGBoost": (".json", ".ubj"), "LightGBM": (".txt",), "CatBoost": (".cbm",)}[estimator.made_by]

    def native_file(self, ending: str) -> bytes:
        """The trees in their library's own format, XGBoost's as JSON or binary."""
        made_by, trees = self.estimator.made_by, self.estimator.trees
        if made_by == "XGBoost":
            return bytes(trees.save_raw(raw_format="ubj" if ending == ".ubj" else "json"))
        if made_by == "LightGBM":
            return str(trees.model_to_string()).encode()
        with TemporaryDirectory() as folder:
            trees.save_model(f"{folder}/model.cbm")
            return Path(folder, "model.cbm").read_bytes()


class BoostedRegressor(AuditedRegressor):
    """Boosted trees that predict a number; ``estimator`` is the :class:`Boosted` they are."""

    def __init__(self, estimator: Boosted, *, provenance: Provenance) -> None:
        self.estimator = estimator
        super().__init__(estimator.predict, features=estimator.features, provenance=provenance)
        self.group_columns = tuple(estimator.categories)


# ---- files -----------------------------------------------------------------------------------------------------------


def load_boosted(source: Source, kind: str, spec: ModelSpec) -> AuditedModel:
    """The model of a file of boosted trees.

    Raises MissingExtraError without its library, ModelError for a damaged file or an objective that is neither classes
    nor numbers, UsageError where a flag contradicts the file.
    """
    read = {"XGBoost": _xgboost, "LightGBM": _lightgbm, "CatBoost": _catboost}[kind]
    with convert_parser_errors(f"{source.name!r} cannot be read as a {kind} model"):
        boosted = read(source, spec)
    version = import_module(kind.lower()).__version__
    provenance = provenance_of(source, f"{kind} model", f"{kind.lower()} {version}")
    if spec.features is not None and spec.features != boosted.features:
        raise UsageError("The model file names its own features: leave --features out.")
    if _REGRESSORS.match(boosted.objective):
        no_flags_of_classes(spec)
        return BoostedRegressor(boosted, provenance=provenance)
    if boosted.objective not in _CLASSIFIERS:
        raise UnsupportedError(
            f"{source.name!r} was fitted for {printable(boosted.objective, 60)!r}, and this tool audits classes and "
            "numbers: a ranking or a survival model can be audited by a decision made of it, with --predict."
        )
    if spec.outputs == "logits":
        raise UsageError(f"{kind} gives probabilities: leave --outputs out.")
    return BoostedClassifier(
        boosted,
        classes=named_classes(list(boosted.labels), spec),
        threshold=spec.threshold,
        provenance=provenance,
    )


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"This is a model of {name}, which is not installed: pip install 'responsible-auditor[{name}]'."
        ) from None


def _places(known: pd.Index[Any]) -> dict[str, int]:
    """The place of each category by every spelling that a data file may have of it and of no other."""
    exact = {str(value): i for i, value in enumerate(known)}
    loose = Counter(label_name(name) for name in exact)
    return {label_name(name): i for name, i in exact.items() if loose[label_name(name)] == 1} | exact


def _learned(values: Sequence[Any], column: str, file: str) -> pd.Index[Any]:
    """The categories of a column as its library knows them. Raises UnsupportedError where two of them read alike."""
    known: pd.Index[Any] = pd.Index(values)
    twice = known.map(str)
    if twice.has_duplicates:
        raise UnsupportedError(
            f"{file!r} was fitted on a column {column!r} that has two categories that read "
            f"{printable(twice[twice.duplicated()][0], 40)!r}, a number and a text: audit it with --predict, or fit it "
            "on a column of one type."
        )
    return known


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(max(n, 2)))


def _columns(names: Sequence[str] | None, count: int, spec: ModelSpec, file_name: str) -> tuple[str, ...]:
    found = tuple(names) if names else spec.features
    if found is None:
        raise UsageError(
            f"{file_name} takes {count} columns and does not name them: add --features a,b in their order."
        )
    if len(found) != count:
        raise UsageError(f"--features names {len(found)} columns, but the model takes {count}.")
    return found


def _xgboost(source: Source, spec: ModelSpec) -> Boosted:
    xgboost = _library("xgboost")
    with xgboost.config_context(verbosity=0):
        trees = xgboost.Booster(params={"nthread": 1})
        trees.load_model(bytearray(source.data))
        learner = json.loads(trees.save_config())["learner"]
        wrapped = trees.attr("scikit_learn") is not None
        if learner["gradient_booster"]["name"] != "gblinear":  # which always answers by all of its rounds
            trees = _best_rounds(trees, source.name)
    features = _columns(trees.feature_names, trees.num_features(), spec, source.name)
    kinds = dict(zip(features, trees.feature_types or [], strict=False))
    named = [name for name, kind in kinds.items() if kind == "c"]
    categories: dict[str, pd.Index[Any] | None] = {}
    if named:
        stored = dict(trees.get_categories(export_to_arrow=True).to_arrow() or [])
        for name in named:
            values = stored.get(name)
            if values is None:
                raise UnsupportedError(
                    f"{source.name!r} has the categories of {name!r} as codes without names: save it again with "
                    "XGBoost 3.1 or newer, fitted on a pandas column of categories, or audit it with --predict."
                )
            categories[name] = _learned(values.to_pandas(), name, source.name)
    n = int(learner["learner_model_param"]["num_class"] or 0)
    if int(learner["learner_model_param"].get("num_target", "1")) > 1:
        raise UnsupportedError(f"{source.name!r} predicts several targets at once, which is not supported.")
    objective = str(learner["objective"]["name"])
    # XGBClassifier compares the raw margin with one half, as if it were a probability.
    by_margin = wrapped and objective == "binary:logitraw"
    return Boosted(
        made_by="XGBoost",
        trees=trees,
        features=features,
        categories=categories,
        n_outputs=max(n, 1),
        objective=objective,
        labels=_numbered(n),
        threshold=float(np.nextafter(_logistic(0.5), np.inf)) if by_margin else MORE_THAN_HALF,
    )


def _best_rounds(trees: Any, name: str) -> Any:
    """The rounds that XGBClassifier and XGBRegressor answer by after early stopping, as trees of their own.

    Booster.predict takes all of them. Raises UnsupportedError where the file was saved from a Booster, and does not say
    which of the two is meant.
    """
    best = trees.attr("best_iteration")
    if best is None or int(best) + 1 >= trees.num_boosted_rounds():
        return trees
    if trees.attr("scikit_learn") is None:
        raise UnsupportedError(
            f"{name!r} is a Booster that stopped early: of its {trees.num_boosted_rounds()} rounds the first "
            f"{int(best) + 1} were best, and it does not say by which it is to answer. Save "
            "booster[: booster.best_iteration + 1] for the best ones, or all of them after "
            "booster.set_attr(best_iteration=None)."
        )
    short = trees[: int(best) + 1]
    # What a slice has lost are the names of categories.
    content, whole = (json.loads(bytes(one.save_raw("json"))) for one in (short, trees))
    _inner(content)["cats"] = _inner(whole)["cats"]
    short.load_model(bytearray(json.dumps(content).encode()))
    return short


def _logistic(margin: Any) -> Any:
    """Probabilities of raw margins."""
    return 1.0 / (1.0 + np.exp(-margin))


def _inner(content: Any) -> Any:
    """The trees in the JSON of a model, which DART has one level deeper."""
    booster = content["learner"]["gradient_booster"]
    return booster.get("gbtree", booster)["model"]


def _lightgbm(source: Source, spec: ModelSpec) -> Boosted:
    lightgbm = _library("lightgbm")
    text = source.data.decode("utf-8")
    stated = re.search(r"^objective=(\S+)", text, re.MULTILINE)
    if stated is None:
        raise UnsupportedError(f"{source.name!r} says no objective: audit it with --predict.")
    trees = lightgbm.Booster(model_str=text)
    own = trees.feature_name()
    unnamed = own == [f"Column_{i}" for i in range(len(own))]
    features = _columns(None if unnamed else own, trees.num_feature(), spec, source.name)
    places = re.search(r"^\[categorical_feature: ([\d,]+)\]$", text, re.MULTILINE)
    coded = [features[int(i)] for i in places[1].split(",")] if places else []
    known = trees.pandas_categorical or []
    if known and len(coded) != len(known):
        raise UnsupportedError(
            f"{source.name!r} has categories and does not say of which columns: audit it with --predict."
        )
    return Boosted(
        made_by="LightGBM",
        trees=trees,
        features=features,
        # Without the names of pandas' categories, the codes themselves are the column's values.
        categories={name: _learned(values, name, source.name) for name, values in zip(coded, known, strict=True)}
        if known
        else {},
        n_outputs=trees.num_model_per_iteration(),
        objective=stated[1],
        labels=_numbered(trees.num_model_per_iteration()),
    )


def _catboost(source: Source, spec: ModelSpec) -> Boosted:
    catboost = _library("catboost")
    trees = catboost.CatBoost()
    trees.load_model(blob=source.data)
    other = [kind for kind in ("text", "embedding") if getattr(trees, f"get_{kind}_feature_indices")()]
    if other:
        raise UnsupportedError(f"{source.name!r} takes columns of {other[0]}s, which is not supported: use --predict.")
    own = list(trees.feature_names_)
    unnamed = own == [str(i) for i in range(len(own))]
    features = _columns(None if unnamed else own, len(own), spec, source.name)
    params = trees.get_all_params()
    labels = [str(label) for label in trees.classes_]
    objective = str(params.get("loss_function", ""))
    metadata = trees.get_metadata()
    least = float(metadata["binclass_probability_threshold"]) if "binclass_probability_threshold" in metadata else 0.5
    return Boosted(
        made_by="CatBoost",
        trees=trees,
        features=features,
        categories={features[i]: None for i in trees.get_cat_feature_indices()},
        n_outputs=max(1, len(labels) if len(labels) > 2 else 1),
        objective=objective,
        labels=tuple(labels) or _numbered(2),
        threshold=float(np.nextafter(least, np.inf)),
    )
