"""Shapley values, by shap: of a scikit-learn estimator's own score where it can be read, else of predictions alone."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.arrays import FloatArray, IntArray
from auditor.errors import NotApplicableError
from auditor.randomness import seeded_globals
from probes.attribution.explained import Attributions, score_name
from probes.inputs import as_frame

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data import AuditData
    from auditor.model import AuditedModel


_COMPARED_ROWS = 32


def _shap() -> Any:
    """The shap package, without what it says about matplotlib on import, which it draws with and we do not use."""
    with warnings.catch_warnings():
        deprecated = r"The set_(bad|over|under) function"
        warnings.filterwarnings("ignore", message=deprecated, category=PendingDeprecationWarning)
        import shap
    return shap


@dataclass(frozen=True, eq=False, kw_only=True)
class Final:
    """A scikit-learn estimator after steps that keep columns apart, and rows (n, d) of numbers as it takes them."""

    estimator: Any
    sample: pd.DataFrame | npt.NDArray[Any]
    background: pd.DataFrame | npt.NDArray[Any]


def final_estimator(model: AuditedModel, sample: AuditData, background: AuditData) -> Final | None:
    """The model's own estimator with the rows brought before it; None where columns are mixed, text, or have gaps.

    ``model.estimator`` is what a loader found in the file. Steps before the last are passed through where each keeps
    one column one column (scalers do, encoders do not), so that attributions still belong to raw features.
    """
    estimator = getattr(model, "estimator", None)
    if estimator is None or sample.modality != "tabular" or not hasattr(estimator, "predict_proba"):
        return None
    from sklearn.base import OneToOneFeatureMixin
    from sklearn.pipeline import Pipeline

    whole, steps = estimator, []
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        estimator = estimator.steps[-1][1]
    named = getattr(whole, "feature_names_in_", None) is not None
    rows: list[Any] = [_as_taken(part.X, model.features, named) for part in (sample, background)]
    if not all(map(_is_numeric, rows)) or not all(isinstance(step, OneToOneFeatureMixin) for step in steps):
        return None
    for step in steps:
        rows = [step.transform(x) for x in rows]
    # What the model does around its estimator, such as a renaming of classes, must not change what is explained.
    few = sample.take(slice(_COMPARED_ROWS))
    same = _is_numeric(rows[0]) and np.allclose(
        estimator.predict_proba(rows[0][:_COMPARED_ROWS]), model.predict_proba(few.X), atol=1e-6
    )
    return Final(estimator=estimator, sample=rows[0], background=rows[1]) if same else None


def _as_taken(X: pd.DataFrame | npt.NDArray[Any], features: tuple[str, ...] | None, named: bool) -> Any:
    """The rows as scikit-learn was given them when it was fitted: without names it would warn of names."""
    import pandas as pd

    if not isinstance(X, pd.DataFrame):
        return X
    wanted = X if features is None else X[list(features)]
    return wanted if named else wanted.to_numpy()


def _is_numeric(X: Any) -> bool:
    """Whether these are rows of finite numbers; a sparse matrix is not."""
    kinds = {t.kind for t in X.dtypes} if hasattr(X, "dtypes") else {getattr(getattr(X, "dtype", None), "kind", "O")}
    dense = hasattr(X, "to_numpy") or isinstance(X, np.ndarray)
    return dense and kinds <= set("biuf") and bool(np.isfinite(np.asarray(X, np.float64)).all())


def is_linear(final: Final) -> bool:
    """Whether the estimator's score is linear in its columns."""
    from sklearn.linear_model import LogisticRegression

    return isinstance(final.estimator, LogisticRegression)


def is_tree(final: Final) -> bool:
    """Whether shap reads the estimator's trees right: forests of any number of classes, boosted trees of two.

    Not HistGradientBoostingClassifier: its thresholds are values of the data, and shap takes a row that lies on one to
    the other side (shap 0.51: sums off by up to a third of the range).
    """
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    if isinstance(final.estimator, (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)):
        return True
    return isinstance(final.estimator, GradientBoostingClassifier) and len(final.estimator.classes_) == 2


def shap_linear(final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Exact Shapley values of a linear score, ``w_i (x_i - mean_i)``, with the background's means."""
    shap = _shap()
    masker = shap.maskers.Independent(np.asarray(final.background, np.float64), max_samples=len(final.background))
    values = shap.LinearExplainer(final.estimator, masker).shap_values(np.asarray(final.sample, np.float64))
    return _shapley(
        "shap_linear",
        _per_class(values),
        _two_sided(final.estimator.decision_function(final.sample)),
        _two_sided(final.estimator.decision_function(final.background)),
        classes,
        names,
        score_name("log-odds" if len(final.estimator.classes_) == 2 else "logit", sample),
    )


def shap_tree(final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Exact interventional Shapley values of trees: a forest's probability, the log-odds of boosted trees."""
    shap = _shap()
    explainer = shap.TreeExplainer(
        final.estimator,
        data=np.asarray(final.background, np.float64),
        feature_perturbation="interventional",
        model_output="raw",
    )
    boosted = hasattr(final.estimator, "decision_function")
    function = final.estimator.decision_function if boosted else final.estimator.predict_proba
    return _shapley(
        "shap_tree",
        _per_class(explainer.shap_values(np.asarray(final.sample, np.float64), check_additivity=False)),
        _two_sided(function(final.sample)),
        _two_sided(function(final.background)),
        classes,
        names,
        score_name("log-odds" if boosted else "probability", sample),
    )


def shap_permutation(
    model: AuditedModel,
    sample: AuditData,
    background: AuditData,
    classes: IntArray,
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> Attributions:
    """Shapley values of the probability by sampled permutations, for anything that predicts from a table.

    Each permutation is walked forwards and backwards, ``2 d + 1`` predictions a background row, exact for interactions
    of two features; the sum of the attributions is exact for any number of permutations. shap computes with numbers and
    calls two values the same where they nearly are, so every column is given to it as codes of its distinct values.
    """
    shap = _shap()
    if sample.modality != "tabular":
        raise NotApplicableError(
            "A model that only predicts can be explained on tables; for texts and images give one that can be "
            "differentiated: a model bundle or a Hugging Face folder."
        )
    coded = _Coded.of(model, sample, background)
    seed = int(rng.integers(2**32))
    with seeded_globals(rng):
        explainer = shap.PermutationExplainer(
            lambda codes: model.predict_proba(coded.decode(codes)),
            shap.maskers.Independent(coded.background, max_samples=len(coded.background)),
            seed=seed,
        )
        # A row that differs from the background in fewer columns gets more permutations for the same number of calls.
        evaluations = n_permutations * (2 * coded.sample.shape[1] + 1)
        explained = explainer(coded.sample, max_evals=evaluations, silent=True)
    return _shapley(
        "shap_permutation",
        np.asarray(explained.values, np.float64),
        model.predict_proba(sample.X),
        model.predict_proba(background.X),
        classes,
        coded.names,
        score_name("probability", sample),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class _Coded:
    """A table as codes of each column's distinct values, and the way back; sample, background: (n, d) codes.

    ``levels``: the distinct values of each column in its own type. ``columns``: names of the model's table, None where
    it takes an array.
    """

    names: tuple[str, ...]
    sample: FloatArray
    background: FloatArray
    levels: tuple[Any, ...]
    columns: pd.Index[Any] | None

    @classmethod
    def of(cls, model: AuditedModel, sample: AuditData, background: AuditData) -> _Coded:
        """Codes over the values of both."""
        import pandas as pd

        both = pd.concat([as_frame(part.X, model.features) for part in (sample, background)], ignore_index=True)
        pairs = [pd.factorize(both.iloc[:, i].array, use_na_sentinel=False) for i in range(both.shape[1])]
        table = np.stack([codes for codes, _ in pairs], axis=1).astype(np.float64)
        return cls(
            names=tuple(str(c) for c in both.columns),
            sample=table[: len(sample)],
            background=table[len(sample) :],
            levels=tuple(levels for _, levels in pairs),
            columns=both.columns if isinstance(sample.X, pd.DataFrame) else None,
        )

    def decode(self, codes: FloatArray) -> pd.DataFrame | npt.NDArray[Any]:
        """The rows (m, d) that codes stand for, typed as the model knows them."""
        import pandas as pd

        places = codes.astype(np.int64)
        values = [levels.take(places[:, i]) for i, levels in enumerate(self.levels)]
        if self.columns is None:
            return np.stack([np.asarray(v) for v in values], axis=1)
        return pd.DataFrame(dict(enumerate(values))).set_axis(self.columns, axis=1)


def _per_class(values: npt.ArrayLike) -> FloatArray:
    """(n, d, k) from shap's (n, d), which speaks of the last of two classes, or (n, d, k)."""
    a = np.asarray(values, np.float64)
    return np.stack([-a, a], axis=2) if a.ndim == 2 else a


def _two_sided(scores: npt.ArrayLike) -> FloatArray:
    """(n, k) from (n,) or (n, 1), which speak of the last of two classes, or (n, k)."""
    a = np.asarray(scores, np.float64)
    a = a.reshape(len(a), -1)
    return np.concatenate([-a, a], axis=1) if a.shape[1] == 1 else a


def _shapley(
    method: str,
    values: FloatArray,
    scores: FloatArray,
    background_scores: FloatArray,
    classes: IntArray,
    names: tuple[str, ...],
    score: str,
) -> Attributions:
    """Picks each sample's class out of values (n, d, k) and scores (n, k)."""
    rows = np.arange(len(classes))
    return Attributions(
        method=method,
        values=values[rows, :, classes],
        outputs=scores[rows, classes],
        baseline=background_scores.mean(axis=0)[classes],
        units=names,
        detail=f"{score}; baseline: the mean over {len(background_scores)} background rows",
    )
