"""Shapley values: of a readable scikit-learn estimator's own score, else of predictions alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.randomness import seeded_globals
from auditor.core.rows import FloatArray, IntArray
from probes.attribution.attribution_units import Attributions, feature_names, score_name
from probes.attribution.gradient import Effort
from probes.attribution.perturbation import ASKED_AT_ONCE, each_sample, played
from probes.coalitions import shapley_by_walks
from probes.column_owners import column_owners
from probes.probe_inputs import draw

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from probes.attribution.attribution_task import Problem


_COMPARED_ROWS = 32
# shap averages over at most a hundred rows of its own accord.
_BACKGROUND_ROWS = 100
_LEAST_PROBABILITY = 1e-12


def _shap() -> Any:
    """The shap package, without what it says about matplotlib on import, which it draws with and we do not use."""
    with warnings.catch_warnings():
        deprecated = r"The set_(bad|over|under) function"
        warnings.filterwarnings("ignore", message=deprecated, category=PendingDeprecationWarning)
        import shap
    return shap


@dataclass(frozen=True, eq=False, kw_only=True)
class Final:
    """A scikit-learn estimator after steps that mix no columns, with the rows (n, d) of numbers that it takes.

    ``owners`` (d,): the input column that each of these columns comes from, of ``n_columns``.
    """

    estimator: Any
    sample: Any
    background: Any
    owners: IntArray
    n_columns: int

    def by_column(self, values: FloatArray) -> FloatArray:
        """(n, n_columns, k) sums over the columns (n, d, k) that come from the same one."""
        out = np.zeros((values.shape[0], self.n_columns, values.shape[2]))
        np.add.at(out.swapaxes(0, 1), self.owners, values.swapaxes(0, 1))
        return out


def final_estimator(model: AuditedModel, sample: AuditData, background: AuditData) -> Final | None:
    """The model's own estimator with its preprocessed rows; None if columns are mixed, text, or incomplete.

    ``model.estimator`` is what a loader found in the file: of a search or of a threshold, what lies within. Steps
    before the last are passed through where each column that they make is made of one, as scalers and encoders do, so
    that attributions still belong to raw features.
    """
    estimator = getattr(model, "estimator", None)
    if estimator is None or sample.modality != "tabular" or not hasattr(estimator, "predict_proba"):
        return None
    from sklearn.pipeline import Pipeline

    whole, steps = estimator, []
    while (inner := _within(estimator)) is not None:
        estimator = inner
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps[:-1] if step not in (None, "passthrough")]
        estimator = estimator.steps[-1][1]
    named = getattr(whole, "feature_names_in_", None) is not None
    rows: list[Any] = [_as_taken(part.X, model.features, named) for part in (sample, background)]
    n_columns = rows[0].shape[1]
    owners: IntArray | None = np.arange(n_columns, dtype=np.int64)
    for step in steps:
        owners = None if owners is None else column_owners(step, owners)
    if owners is None:
        return None
    for step in steps:
        rows = [step.transform(x) for x in rows]
    rows = [x.toarray() if hasattr(x, "toarray") else x for x in rows]
    # What the model does around its estimator, such as a renaming of classes, must not change what is explained.
    few = sample.take(slice(_COMPARED_ROWS))
    same = (
        all(map(_is_numeric, rows))
        and rows[0].shape[1] == len(owners)
        and np.allclose(estimator.predict_proba(rows[0][:_COMPARED_ROWS]), model.predict_proba(few.X), atol=1e-6)
    )
    if not same:
        return None
    return Final(estimator=estimator, sample=rows[0], background=rows[1], owners=owners, n_columns=n_columns)


def _within(estimator: Any) -> Any:
    """What a search found, or what a threshold is laid on; None of any other."""
    if not type(estimator).__module__.startswith("sklearn.model_selection."):
        return None
    return getattr(estimator, "best_estimator_", None) or getattr(estimator, "estimator_", None)


def _as_taken(X: pd.DataFrame | npt.NDArray[Any], features: tuple[str, ...] | None, with_names: bool) -> Any:
    """The rows as scikit-learn was given them when it was fitted: without names it would warn of names."""
    import pandas as pd

    if not isinstance(X, pd.DataFrame):
        return X
    wanted = X if features is None else X[list(features)]
    return wanted if with_names else wanted.to_numpy()


def _is_numeric(X: Any) -> bool:
    """Whether these are rows of finite numbers."""
    kinds = {t.kind for t in X.dtypes} if hasattr(X, "dtypes") else {getattr(getattr(X, "dtype", None), "kind", "O")}
    dense = hasattr(X, "to_numpy") or isinstance(X, np.ndarray)
    return dense and kinds <= set("biuf") and bool(np.isfinite(np.asarray(X, np.float64)).all())


def is_linear(final: Final) -> bool:
    """Whether the estimator's score is linear in its columns."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    by_loss = isinstance(final.estimator, SGDClassifier) and final.estimator.loss == "log_loss"
    return by_loss or isinstance(final.estimator, (LogisticRegression, LinearDiscriminantAnalysis))


def is_tree(final: Final) -> bool:
    """Whether shap reads the estimator's trees right: forests of any number of classes, boosted trees of two.

    Not HistGradientBoostingClassifier: its thresholds are values of the data, and shap takes a row that lies on one to
    the other side (shap 0.51: sums off by up to a third of the range).
    """
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    # A column of several of their columns is no player of theirs: what belongs to it is no sum of what belongs to each.
    if len(set(final.owners.tolist())) < len(final.owners):
        return False
    if hasattr(final.estimator, "trees"):  # XGBoost, LightGBM or CatBoost
        return True
    if isinstance(final.estimator, (DecisionTreeClassifier, RandomForestClassifier, ExtraTreesClassifier)):
        return True
    return isinstance(final.estimator, GradientBoostingClassifier) and len(final.estimator.classes_) == 2


def shap_linear(final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Exact Shapley values of a score that is a sum over columns, ``g_j(x_j)`` minus its mean over the background.

    ``g_j`` is the weighted sum of the columns that an encoder or a scaler makes of column j.
    """
    weights = np.atleast_2d(final.estimator.coef_)
    centred = np.asarray(final.sample, np.float64) - np.asarray(final.background, np.float64).mean(axis=0)
    values = centred * weights[0] if len(weights) == 1 else centred[:, :, None] * weights.T
    return _shapley(
        "shap_linear",
        final.by_column(_per_class(values)),
        _two_sided(final.estimator.decision_function(final.sample)),
        _two_sided(final.estimator.decision_function(final.background)),
        classes,
        names,
        score_name("log-odds" if len(final.estimator.classes_) == 2 else "logit", sample),
    )


def shap_tree(final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Exact interventional Shapley values of trees: a forest's probability, the log-odds of boosted trees."""
    shap = _shap()
    if getattr(final.estimator, "own_background", False):
        return _by_own_rows(shap, final, sample, classes, names)
    explainer = shap.TreeExplainer(
        getattr(final.estimator, "trees", final.estimator),
        data=np.asarray(final.background, np.float64),
        feature_perturbation="interventional",
        model_output="raw",
    )
    boosted = hasattr(final.estimator, "decision_function")
    function = final.estimator.decision_function if boosted else final.estimator.predict_proba
    return _shapley(
        "shap_tree",
        final.by_column(
            _per_class(explainer.shap_values(np.asarray(final.sample, np.float64), check_additivity=False))
        ),
        _two_sided(function(final.sample)),
        _two_sided(function(final.background)),
        classes,
        names,
        score_name("log-odds" if boosted else "probability", sample),
    )


def _by_own_rows(shap: Any, final: Final, sample: AuditData, classes: IntArray, names: tuple[str, ...]) -> Attributions:
    """Its own exact values; their background are the rows it was fitted on, which shap cannot exchange."""
    explainer = shap.TreeExplainer(final.estimator.trees)
    found = _shapley(
        "shap_tree",
        _per_class(explainer.shap_values(final.sample)),
        _two_sided(final.estimator.decision_function(final.sample)),
        _two_sided(np.atleast_1d(explainer.expected_value)[None]),
        classes,
        names,
        score_name("log-odds" if len(final.estimator.classes_) == 2 else "logit", sample),
    )
    return replace(found, detail=f"{found.detail.split(';')[0]}; baseline: the mean over the rows it was fitted on")


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
    ends = scores[rows, classes], background_scores.mean(axis=0)[classes]
    return Attributions(
        method=method,
        values=values[rows, :, classes],
        ends=lambda: ends,
        units=names,
        detail=f"{score}; baseline: the mean over {len(background_scores)} background rows",
    )


def of_final(
    shap: Callable[[Final, AuditData, IntArray, tuple[str, ...]], Attributions],
    problem: Problem,
    rng: np.random.Generator,
    effort: Effort,
) -> Attributions:
    """:func:`shap_linear` or :func:`shap_tree` of a task, with background rows sampled from its own."""
    final = final_estimator(problem.model, problem.sample, draw(problem.background, _BACKGROUND_ROWS, rng))
    assert final is not None
    return shap(final, problem.sample, problem.classes, feature_names(problem.model, problem.sample))


def lacks_final(reads: Callable[[Final], bool], kinds: str, problem: Problem) -> str:
    """The reason why the model is not read as ``kinds``, which ``reads`` tells; empty if it is."""
    final = final_estimator(problem.model, problem.sample, problem.background)
    if final is not None and reads(final):
        return ""
    return (
        f"it needs a scikit-learn {kinds} on columns that are numbers without gaps, or are made so one by one; "
        "shap_permutation needs predictions only"
    )


def permutation(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Shapley values of the units by walks through random orders, forwards and backwards; the sum is exact.

    Exact for interactions of two units. As shap's PermutationExplainer, which asks sample by sample, and compiles for
    longer than most of these questions take. Source: Strumbelj and Kononenko, KAIS 41 (2014).
    """
    units = problem.units
    with seeded_globals(rng):
        # Where one unit is there, there is one way to walk.
        seeds = [int(rng.integers(2**32)) if n > 1 else 0 for n in units.present.sum(axis=1)]
        values = shapley_by_walks(units.score, units.present, effort.n_permutations, seeds, at_once=ASKED_AT_ONCE)
    return played("shap_permutation", problem, values, f"{effort.n_permutations} walks a sample")


def kernel(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Shapley values of the units by shap's weighted regression; exact if it may query all coalitions.

    Source: Lundberg and Lee, NeurIPS 2017.
    """
    shap = _shap()

    def explain(forward: Callable[[Tensor], Tensor], d: int) -> FloatArray:
        explainer = shap.KernelExplainer(_of_arrays(forward), np.zeros((1, d)))
        found = explainer.shap_values(
            np.ones((1, d)), nsamples=effort.perturbations(d), l1_reg=False, silent=True, gc_collect=False
        )
        return np.asarray(found, np.float64).reshape(-1)

    with seeded_globals(rng):
        values = each_sample(problem, explain)
    note = f"{effort.perturbations(problem.units.d)} coalitions a sample at most"
    return played("shap_kernel", problem, values, note)


def _of_arrays(forward: Callable[[Tensor], Tensor]) -> Callable[[npt.NDArray[Any]], FloatArray]:
    import torch

    return lambda keep: forward(torch.from_numpy(np.asarray(keep, np.float64))).numpy()


def no_labels(problem: Problem) -> str:
    """The reason why there is no loss of fit: no labels; empty if there are labels."""
    y = problem.sample.y_true
    return (
        "" if y is not None and (y >= 0).any() else "it measures what the fit loses, so it needs labels: give --target"
    )


def permutation_importance(problem: Problem, rng: np.random.Generator, effort: Effort) -> Attributions:
    """Mean log-likelihood of the labels minus that with one column shuffled, by scikit-learn; equal for all rows.

    Source: Breiman, Machine Learning 45 (2001).
    """
    from sklearn.inspection import permutation_importance as shuffled

    sample = problem.sample
    assert sample.y_true is not None
    known = np.flatnonzero(sample.y_true >= 0)
    labelled = sample.take(known)

    class Predicts:
        """What scikit-learn calls an estimator, around any model."""

        def fit(self, X: Rows, y: IntArray) -> None:
            """Nothing: the model is what it is."""

    def likelihood(estimator: object, X: Rows, y: IntArray) -> float:
        p = problem.model.predict_proba(X)[np.arange(len(y)), y]
        return float(np.log(np.clip(p, _LEAST_PROBABILITY, None)).mean())

    found = shuffled(
        Predicts(),
        labelled.X,
        labelled.y_true,
        scoring=likelihood,
        n_repeats=effort.n_permutations,
        random_state=int(rng.integers(2**32)),
    )
    names = problem.units.names[0]
    columns = [str(c) for c in labelled.X.columns] if hasattr(labelled.X, "columns") else list(names)
    importance = np.asarray(found.importances_mean, np.float64)[[columns.index(name) for name in names]]
    n, d = len(sample), problem.units.d
    explained = played("permutation_importance", problem, np.zeros((n, d)), "")
    return replace(
        explained,
        detail=f"the mean log-likelihood of {len(known):,} labels minus that with the feature shuffled "
        f"({effort.n_permutations} times); one attribution for all rows, unlike the score's",
        values=np.tile(importance, (n, 1)).reshape(n, d),
    )
