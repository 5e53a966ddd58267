"""Boosted trees from the files their own libraries write: data, and no code. One class a library.

The libraries parse the bytes in compiled code of their own; that happens in the measuring process, like all loading.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from auditor.core.errors import (
    DamagedError,
    DataError,
    MissingExtraError,
    ModelError,
    UnsupportedError,
    UsageError,
    did_you_mean,
    first_line,
)
from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from auditor.data.preprocessing import as_text, label_name
from auditor.loading.estimators import PICKLED, but_for, estimator_file
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of, require_features
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import MORE_THAN_HALF, AuditedModel, Provenance
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.pickled_boosters import with_trees
from auditor.models.format_names import ENDINGS
from auditor.models.regression_model import AuditedRegressor

ONE_AGAINST_ALL = frozenset({"multiclassova", "MultiClassOneVsAll"})
_CLASSIFIERS = ONE_AGAINST_ALL | frozenset(
    {"binary:logistic", "binary:logitraw", "binary:hinge", "multi:softprob", "multi:softmax"}  # XGBoost
    | {"binary", "cross_entropy", "multiclass"}  # LightGBM
    | {"Logloss", "CrossEntropy", "MultiClass"}  # CatBoost
)
_REGRESSORS = re.compile(
    r"^(reg:.*|count:poisson"
    r"|regression|regression_l1|huber|fair|poisson|quantile|mape|gamma|tweedie"
    r"|(RMSE|MAE|Huber|Quantile|MAPE|Poisson|Tweedie|LogCosh|Expectile|Lq)(:.*)?)$"
)
# Grown by any of them, and not how many: the number of trees is the file's own.
_NAMES_OF_ROUNDS = {"n_estimators": "rounds", "num_boost_round": "rounds", "iterations": "rounds"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Boosted(ABC):
    """Boosted trees as a scikit-learn estimator: ``trees`` is the library's own object, which shap reads.

    ``features``: the columns it takes, in order. ``categories``: of each column of categories, those that it knows, of
    the type that it knows them by and in the order of their codes, or None where the library looks them up itself.
    ``n_outputs``: columns of raw scores. ``objective``: what the trees were fitted for, in the library's words.
    ``threshold``: the least probability of the last of two classes at which the library decides for it.
    ``own_background``: whether its exact attributions compare with the rows that it was fitted on, whichever are given.
    """

    made_by: ClassVar[str]
    own_background: ClassVar[bool] = False
    # Whether its graph takes a column of categories by their codes, and any other number for one that is not learned.
    onnx_takes_codes: ClassVar[bool] = False
    trees: Any
    features: tuple[str, ...]
    categories: Mapping[str, pd.Index[Any] | None]
    n_outputs: int
    objective: str
    labels: tuple[str, ...]
    threshold: float = MORE_THAN_HALF

    @classmethod
    @abstractmethod
    def read(cls, source: Source, spec: ModelSpec) -> Self:
        """The trees of a file. Raises what :func:`load_boosted` raises."""

    @abstractmethod
    def margins(self, rows: pd.DataFrame) -> Any:
        """Scores before the link, or the predicted numbers, of rows in the library's form."""

    @abstractmethod
    def answers(self, rows: pd.DataFrame) -> Any:
        """Probabilities, or the predicted numbers, by the library's own link."""

    def decided(self, rows: pd.DataFrame) -> IntArray | None:
        """(n,) class indices by the library's own decision, where its probabilities do not say it to the last digit."""
        return None

    @abstractmethod
    def as_file(self, ending: str) -> bytes:
        """The trees in their library's own format."""

    @abstractmethod
    def as_onnx(self) -> bytes:
        """The trees as an ONNX graph over one matrix of numbers. Raises what the converter raises."""

    @abstractmethod
    def grow(
        self, rows: pd.DataFrame, y: IntArray, weights: FloatArray | None, settings: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        """Trees grown on other rows, as these were but for ``settings``, and notes on what the file does not hold."""

    @property
    def is_regression(self) -> bool:
        """Whether the trees predict a number."""
        return _REGRESSORS.match(self.objective) is not None

    @property
    def classes_(self) -> Any:
        """The classes, under scikit-learn's attribute name."""
        return np.asarray(self.labels)

    def learned_levels(self) -> Iterator[tuple[Any, str, Any]]:
        """(self, column, its categories) of each column whose categories the file names."""
        return ((self, name, known) for name, known in self.categories.items() if known is not None)

    def knows(self, name: str, value: object) -> bool:
        """Whether a value of a data file is one of a column's categories."""
        known = self.categories[name]
        return known is None or bool({str(value), label_name(value)} & _places(known).keys())

    def table(self, X: Any) -> pd.DataFrame:
        """The rows in the library's form: numbers, and its own categories. Raises DataError for text among numbers."""
        if isinstance(X, np.ndarray):
            X = pd.DataFrame(X, columns=list(self.features))
        require_features(self.features, X)
        return pd.DataFrame({name: self._column(name, X[name]) for name in self.features})

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
        known, codes = self._with_new(known, codes, new)
        return pd.Categorical.from_codes(names.map(codes).fillna(-1).astype(np.int64), categories=known)

    def _with_new(
        self, known: pd.Index[Any], codes: dict[str, int | None], new: Sequence[str]
    ) -> tuple[pd.Index[Any], dict[str, int | None]]:
        """The categories and their codes for the library, which takes those that it has not learned for missing."""
        return known, codes

    def raw(self, X: Any) -> FloatArray:
        """(n, n_outputs) scores before the link, or the predicted numbers."""
        return self._raw(self.table(X))

    def _raw(self, rows: pd.DataFrame) -> FloatArray:
        return np.asarray(self.margins(rows), np.float64).reshape(len(rows), -1)

    def decision_function(self, X: Any) -> FloatArray:
        """Log-odds (n,) of the last of two classes, scores (n, k) of more."""
        scores = self.raw(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X: Any) -> FloatArray:
        """(n, k) probabilities, by the library's own link; those of each class against all others as shares."""
        found = np.asarray(self.answers(self.table(X)))
        # Of the first of two classes the probability is rounded as the library rounds it.
        both = np.column_stack([1.0 - found, found]) if found.ndim == 1 else found
        both = both.astype(np.float64)
        return both / both.sum(axis=1, keepdims=True) if self.objective in ONE_AGAINST_ALL else both

    def predict(self, X: Any) -> FloatArray:
        """(n,) predicted numbers of a regression, after the library's own link."""
        return np.asarray(self.answers(self.table(X)), np.float64)


class BoostedClassifier(AuditedModel):
    """A boosted-trees classifier; ``estimator`` is its :class:`Boosted`.

    ``threshold``: that which was asked for, of the favourable class; where it is None, the library's own decides.
    ``pickled``: the library's estimator that the trees were unpickled from, as which they are written again.
    """

    fits_anew = True
    others_are_numbers = True

    def __init__(
        self,
        estimator: Boosted,
        *,
        classes: Sequence[object],
        threshold: float | None,
        provenance: Provenance,
        pickled: Any = None,
    ) -> None:
        self.estimator = estimator
        self.pickled = pickled
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
        self.endings = ENDINGS[f"{estimator.made_by} model"] if pickled is None else PICKLED

    @property
    def decision_rule(self) -> str:
        """How a row is decided, as a sentence."""
        return self._rule_of_probabilities()

    def decide(self, probabilities: FloatArray, positive: int | None, X: Rows | None = None) -> IntArray:
        """(n,) class indices, by a requested threshold, else the library's own, which is asked about rows in doubt."""
        decided = super().decide(probabilities, positive, X)
        if X is None or not self.decides_itself:
            return decided
        doubt = np.flatnonzero(self.in_doubt(probabilities))
        own = self.estimator.decided(self.estimator.table(take_rows(X, doubt))) if doubt.size else None
        if own is not None:
            decided[doubt] = own
        return decided

    @property
    def category_codes(self) -> Mapping[str, Mapping[str, int]]:
        """Of each column of names, the number of each that the trees know, by its spellings."""
        return {name: _places(known) for name, known in self.estimator.categories.items() if known is not None}

    def native_file(self, ending: str) -> bytes:
        """The trees in their library's own format, or as the estimator that they were unpickled from."""
        if self.pickled is None:
            return self.estimator.as_file(ending)
        return estimator_file(with_trees(self.pickled, self.estimator.trees), ending)

    def onnx_graph(self) -> tuple[bytes, tuple[str, ...]]:
        """The graph of the trees over one matrix of numbers, where :attr:`category_codes` says those of its names.

        Raises UnsupportedError for columns of names, and where the converter does not know the trees.
        """
        boosted = self.estimator
        if boosted.categories and not boosted.onnx_takes_codes:
            raise UnsupportedError(
                f"The column {next(iter(boosted.categories))!r} holds names, which no converter of {boosted.made_by} "
                "writes: fit the trees on numbers, for instance after one-hot encoding."
            )
        try:
            return boosted.as_onnx(), tuple(name for name in boosted.features if name not in boosted.categories)
        except MissingExtraError:
            raise
        except Exception as error:  # of the converters' own, about trees that they do not know
            raise UnsupportedError(
                f"These trees of {boosted.made_by} are not converted: {first_line(error)[:300]}"
            ) from None

    def fitted_anew(
        self,
        X: Rows,
        y: IntArray,
        weights: FloatArray | None,
        rng: np.random.Generator,
        hyperparameters: Mapping[str, Any],
    ) -> BoostedClassifier:
        """Trees of the same library, grown with the hyperparameters that its file holds but for ``hyperparameters``."""
        old = self.estimator
        given = {_NAMES_OF_ROUNDS.get(name, name): value for name, value in hyperparameters.items()}
        try:
            trees, unknown = old.grow(old.table(X), y, weights, given)
        except (UsageError, ModelError):
            raise
        except Exception as error:  # each library has errors of its own
            raise ModelError(
                f"{old.made_by} cannot be fitted anew on these rows: {printable(error, 300)}.",
                code="AUD-LOAD-UNSUPPORTED",
            ) from error
        but = but_for(hyperparameters)
        notes = (f"{old.made_by} fitted anew with the hyperparameters that its file holds{but}.", *unknown)
        return BoostedClassifier(
            replace(old, trees=trees),
            classes=self.classes,
            threshold=None if self.decides_itself else self.threshold,
            provenance=Provenance(notes=notes),
            pickled=self.pickled,
        )


class BoostedRegressor(AuditedRegressor):
    """Boosted trees that predict a number; ``estimator`` is the :class:`Boosted` they are."""

    def __init__(self, estimator: Boosted, *, provenance: Provenance) -> None:
        self.estimator = estimator
        super().__init__(estimator.predict, features=estimator.features, provenance=provenance)
        self.group_columns = tuple(estimator.categories)


# ---- files -----------------------------------------------------------------------------------------------------------


def load_boosted(
    source: Source,
    library: type[Boosted],
    spec: ModelSpec,
    *,
    pickled: Any = None,
    format: str | None = None,
    notes: tuple[str, ...] = (),
) -> AuditedModel:
    """The model of a file of boosted trees; ``pickled``: the estimator that they were unpickled from, of a ``format``.

    Raises MissingExtraError without its library, ModelError for a damaged file or an objective that is neither classes
    nor numbers, UsageError where a flag contradicts the file.
    """
    kind = library.made_by
    with convert_parser_errors(f"{source.name!r} cannot be read as a {kind} model"):
        boosted = library.read(source, spec)
    if hasattr(pickled, "_le"):  # LightGBM's own file numbers the classes that its estimator has names for
        labels = tuple(map(str, pickled.classes_.tolist()))
        if len(labels) != len(boosted.labels):
            raise DamagedError(f"{source.name!r} has {len(labels)} classes, and trees of {len(boosted.labels)}.")
        boosted = replace(boosted, labels=labels)
    version = import_module(kind.lower()).__version__
    provenance = provenance_of(source, format or f"{kind} model", f"{kind.lower()} {version}", notes)
    if spec.features is not None and spec.features != boosted.features:
        raise UsageError("The model file names its own features: leave --features out.")
    if boosted.is_regression:
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
        pickled=pickled,
    )


def known_hyperparameters(settings: Mapping[str, Any], known: frozenset[str], library: str) -> dict[str, Any]:
    """The settings without the number of rounds. Raises UsageError for one that the library does not take."""
    for name in settings:
        if name not in known and name != "rounds":
            near = did_you_mean(name, known)
            raise UsageError(f"{library} has no hyperparameter {name!r} that can be set here{near or '.'}")
    return {name: value for name, value in settings.items() if name != "rounds"}


def _places(known: pd.Index[Any]) -> dict[str, int]:
    """The place of each category by every spelling that a data file may have of it and of no other."""
    exact = {str(value): i for i, value in enumerate(known)}
    loose = Counter(label_name(name) for name in exact)
    return {label_name(name): i for name, i in exact.items() if loose[label_name(name)] == 1} | exact
