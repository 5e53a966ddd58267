"""Counterfactual fairness of tables: changes of decisions when a sensitive feature changes its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, NotApplicableError, OtherKindError, did_you_mean
from auditor.core.rows import FloatArray, IntArray, is_number
from auditor.data.audit_data_parts import Design
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.clusters import clustered_mean
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from auditor.statistics.values import bounded_mean
from probes.fairness.proxies import screen
from probes.probe_inputs import as_frame, draw, whole_number
from probes.twins import no_plant

if TYPE_CHECKING:
    import pandas as pd

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

MAX_LEVELS = 20
# A proxy's rarer categories are left as they are, and so is a missing value.
_MOST_CATEGORIES = 20
_MOST_CODES = 200
# Below it a tree has too few rows to see what a level changes, and no change would be no finding.
_FEWEST_ROWS = 200
_NOT_CAUSAL = (
    "a flip changes this feature alone and is a causal counterfactual only if nothing else depends on it "
    "(Kusner et al., NeurIPS 2017)"
)
_ASSUMED = (
    "a counterfactual only if the sensitive feature causes its proxies directly, nothing confounds them, and no other "
    "feature depends on it (Kusner et al., NeurIPS 2017)"
)


class CounterfactualFairness(BaseProbe):
    """Decisions and scores of rows with a sensitive feature changed to each of its other levels.

    For each sensitive feature, over the evaluation rows, with ``s`` the model's probability of the favourable class
    (``data.positive``, else the last class): ``counterfactual_flip_rate`` and ``mean_score_shift``.

    - ``counterfactual_flip_rate``: Clopper-Pearson over rows; over clusters with ``--cluster`` or ``--weight``, with
      which the shifts are NOT_APPLICABLE.
    - ``mean_score_shift``: Bounds over rows (:class:`~auditor.statistics.values.BoundedMean`).

    Methods: ``flip`` changes the feature alone. Where the model does not take it, nothing can change with it, which
    says nothing of its proxies: there it is NOT_APPLICABLE. ``flip_with_proxies`` changes
    the features that it predicts too: a proxy with numbers becomes ``x + f(level, rest) - f(own level, rest)``, its
    residual kept, and rounded where all its values are whole; another takes the value of a maximal coupling of ``P(x |
    own level, rest)`` and ``P(x | level, rest)``, which changes it as seldom as the two allow. ``f`` and ``P`` are
    gradient-boosted trees over the sensitive feature and the features that are no proxies, fitted on other folds than
    the rows they are applied to.

    What it assumes: flipping is no causal counterfactual without a causal graph. ``flip`` is one only if no feature
    depends on the sensitive one; ``flip_with_proxies`` only if it causes every proxy directly, nothing confounds them,
    proxies do not depend on each other, and the other features do not depend on it. The intervals are over rows, given
    the fitted models.

    A column of numbers with more than 20 values takes its deciles as levels, any other its 20 most frequent values.

    proxies: False; True for the features that :func:`probes.fairness.proxies.screen` names; or names of features.
    n_samples: most rows, drawn without replacement. n_folds: folds of the fitted models.

    Raises NotApplicableError where the rows are no table with named columns; DataError for a proxy that is no feature.

    Sources: Kusner et al., NeurIPS 2017; Russell et al., NeurIPS 2017; maximal coupling: den Hollander, Probability
    Theory: The Coupling Method (2012).
    """

    name = "counterfactual_fairness"
    pillar = "fairness"
    goal = "Do decisions change when a sensitive feature is given another value?"
    citation = "Kusner et al., NeurIPS 2017"
    methods = ("flip", "flip_with_proxies")
    needs = (Need.CLASSIFIER, Need.DATA, Need.SENSITIVE)
    questions = (AuditQuestion("attribute", form="percent", headline=("counterfactual_flip_rate",)),)
    takes = ("cluster", "weight")
    forecast = Forecast(twin=0.005, number=0.0001, million=1.0, most_rows=5_000)
    ideal_when_same = {"mean_score_shift": "scores"}
    # Rows, and the true share of changed decisions, found beyond 5 % with 80 % power among 4 judgements at 5 %.
    power: ClassVar[Power] = Power(300, 0.10)
    untrusted_options = allow_untrusted("proxies", "n_samples", "n_folds")
    metrics = define_metrics(
        """
        counterfactual_flip_rate: share of rows whose decision changes for at least one other level of the sensitive
          feature; [0, 1], ideal 0; at 0.05 five decisions in 100 turn on the feature; Kusner et al., NeurIPS 2017
        mean_score_shift: mean of s(row at that level) - s(row) over rows of other levels, s the probability of the
          favourable class; [-1, 1], ideal 0; at 0.05 having that level adds 5 points to the probability of the
          favourable class; Kusner et al., NeurIPS 2017
        """
    )

    def __init__(self, *, proxies: bool | str | Sequence[str] = False, n_samples: int = 5000, n_folds: int = 5) -> None:
        whole_number("n_samples", n_samples, 2)
        whole_number("n_folds", n_folds, 2, 20)
        self.proxies = proxies
        self.n_samples = n_samples
        self.n_folds = n_folds

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements for each sensitive feature; see the class for their definitions."""
        rows = data.evaluation
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        if rows.modality != "tabular":
            raise OtherKindError("Needs a table: for texts there is the probe counterfactual_token_fairness.")
        rows = draw(rows, self.n_samples, rng)
        of_rows = rows.generator(self.name)
        table = _table(model, rows)
        found: list[Measurement] = []
        names = [str(c) for c in table.groups.columns]
        if self.proxies is False and not set(names) & set(table.features):
            raise NotApplicableError(
                f"The model does not take {' or '.join(names)}, so flipping that alone can change nothing, which is no "
                f"sign of fairness: add --set {self.name}.proxies=true to flip what stands in for it too."
            )
        for sensitive in names:
            found += self._flipped(table, sensitive)
            if self.proxies is not False:
                found += self._with_proxies(table, sensitive, of_rows)
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin that decides a share of the rows otherwise where the feature is not theirs."""
        import pandas as pd

        # What a model is imports pandas, and probes are listed without it.
        from auditor.models.twin_model import TwinModel

        if measured.metric != "counterfactual_flip_rate" or measured.method != "flip":
            raise no_plant(measured)
        rows, (sensitive,) = draw(data.evaluation, self.n_samples, rng), measured.sensitive
        n, k = len(rows), model.n_outputs
        own = as_frame(rows.X, model.features)[sensitive]
        decided, turned = rng.integers(0, k, n), rng.random(n) < value

        def sure_of(classes: IntArray) -> FloatArray:
            return np.asarray(np.eye(k)[classes], np.float64)

        def predict(X: Rows) -> FloatArray:
            codes, _ = pd.factorize(pd.concat([own, as_frame(X, model.features)[sensitive]], ignore_index=True))
            return sure_of((decided + (turned & (codes[:n] != codes[n:]))) % k)

        return self._flipped(_table(TwinModel(model, rows, sure_of(decided), predict=predict), rows), sensitive)

    def _flipped(self, table: _Table, sensitive: str) -> list[Measurement]:
        if sensitive not in table.features:
            instead = (
                f"add --set {self.name}.proxies=true to flip what stands in for it too."
                if self.proxies is False
                else "flip_with_proxies flips what stands in for it."
            )
            reason = f"The model does not take {sensitive}, so flipping that alone can change nothing, which is no sign"
            return [
                _flip_rate(
                    "flip",
                    sensitive,
                    Undefined(reason=f"{reason} of fairness: {instead}", inapplicable=True),
                    len(table.X),
                    "",
                )
            ]
        levels = _levels(table.X[sensitive])
        return _measure_flips(
            table,
            "flip",
            sensitive,
            levels,
            partial(_set_level, table.X, sensitive, levels),
            f"{levels}; {_NOT_CAUSAL}",
        )

    def _with_proxies(self, table: _Table, sensitive: str, rng: np.random.Generator) -> list[Measurement]:
        method = "flip_with_proxies"
        taken = sensitive in table.features
        levels = _levels(table.X[sensitive] if taken else table.groups[sensitive])
        candidates = table.X[[c for c in table.features if c != sensitive]]
        names = self._proxies(candidates, table.groups[[sensitive]], rng)
        reason = ""
        if len(table.X) < max(_FEWEST_ROWS, 2 * self.n_folds):
            reason = f"models of the proxies need at least {max(_FEWEST_ROWS, 2 * self.n_folds)} rows"
        elif not names and not taken:
            reason = f"no feature is a proxy of {sensitive}, so there is nothing to change"
        if reason:
            return [_flip_rate(method, sensitive, Undefined(reason=reason), len(table.X), "")]
        rest = [c for c in candidates.columns if c not in names]
        replaced = _counterfactual_columns(table.X, levels, names, rest, self.n_folds, rng)

        def rows_at_level(level: int) -> pd.DataFrame:
            X = _set_level(table.X, sensitive, levels, level) if taken else table.X.copy()
            for name, columns in replaced.items():
                X[name] = columns[level]
            return X

        changed = f"proxies changed with it: {_listed(names)}" if names else f"no feature is a proxy of {sensitive}"
        return _measure_flips(table, method, sensitive, levels, rows_at_level, f"{levels}; {changed}; {_ASSUMED}")

    def _proxies(self, X: pd.DataFrame, groups: pd.DataFrame, rng: np.random.Generator) -> list[str]:
        if self.proxies is True:
            return [a.feature for a in screen(X, groups, rng).proxies]
        named = [self.proxies] if isinstance(self.proxies, str) else list(self.proxies or ())
        unknown = [name for name in named if name not in X.columns]
        if unknown:
            raise DataError(
                f"The proxy {unknown[0]!r} is none of the model's other features"
                f"{did_you_mean(unknown[0], map(str, X.columns)) or '.'}"
            )
        return named


# ---- the table and its levels --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Table:
    """Rows (n, d) with named columns, ``features`` of which the model takes, and what it says of them as they are."""

    model: AuditedModel
    X: pd.DataFrame
    features: tuple[str, ...]
    groups: pd.DataFrame
    as_array: bool
    positive: int | None
    scores: FloatArray
    decisions: IntArray
    design: Design | None

    def answers(self, X: pd.DataFrame) -> tuple[FloatArray, IntArray]:
        """(n,) scores and (n,) decisions on rows like these."""
        return _answers(self.model, X.to_numpy() if self.as_array else X, self.positive)


def _answers(model: AuditedModel, X: Rows, positive: int | None) -> tuple[FloatArray, IntArray]:
    probabilities = model.predict_proba(X)
    column = model.n_outputs - 1 if positive is None else positive
    return probabilities[:, column], model.decide(probabilities, column, X)


def _table(model: AuditedModel, rows: AuditData) -> _Table:
    import pandas as pd

    as_array = not isinstance(rows.X, pd.DataFrame)
    if as_array and (model.features is None or len(model.features) != rows.X.shape[1]):
        raise NotApplicableError("Needs features with names, to know which is the sensitive one: give a table.")
    X = as_frame(rows.X, model.features).reset_index(drop=True)
    groups = rows.sensitive_features
    if groups is None:
        raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
    scores, decisions = _answers(model, rows.X, rows.positive)
    return _Table(
        model=model,
        X=X,
        features=tuple(c for c in map(str, X.columns) if model.features is None or c in model.features),
        groups=groups.reset_index(drop=True),
        as_array=as_array,
        positive=rows.positive,
        scores=scores,
        decisions=decisions,
        design=rows.design,
    )


@dataclass(frozen=True, eq=False)
class _Levels:
    """The values a feature can be given: as they stand in the table, and as numbers for models of the proxies.

    own (n,): each row's number, NaN where missing; numbers (k,). ``categorical``: whether they are codes.
    """

    values: tuple[Any, ...]
    numbers: FloatArray
    own: FloatArray
    categorical: bool
    what: str

    def __str__(self) -> str:
        from auditor.data.preprocessing import label_name

        return f"{self.what} {_listed([label_name(v) for v in self.values])}"


def _levels(values: pd.Series[Any]) -> _Levels:
    import pandas as pd

    if is_number(values):
        own = values.to_numpy(np.float64, na_value=np.nan)
        distinct = np.unique(own[np.isfinite(own)])
        what = "levels"
        if distinct.size > MAX_LEVELS:
            distinct = np.unique(np.quantile(own[np.isfinite(own)], np.arange(1, 10) / 10, method="nearest"))
            what = "deciles"
        present = values.dropna()
        raw = tuple(present[present == number].iloc[0] for number in distinct)
        return _Levels(raw, distinct, own, False, what)
    codes, uniques = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(uniques))
    kept = [k for k in np.argsort(-counts, kind="stable").tolist() if counts[k] and str(uniques[k]) != MISSING]
    what = "levels" if len(kept) <= MAX_LEVELS else f"the {MAX_LEVELS} most frequent of {len(kept)} levels"
    kept = sorted(kept[:MAX_LEVELS], key=lambda k: str(uniques[k]))
    own = np.where(codes >= 0, codes, np.nan).astype(np.float64)
    return _Levels(tuple(uniques[k] for k in kept), np.asarray(kept, np.float64), own, len(uniques) > 2, what)


def _set_level(X: pd.DataFrame, name: str, levels: _Levels, level: int) -> pd.DataFrame:
    """The rows, every one at a level."""
    import pandas as pd

    return X.assign(**{name: pd.Series([levels.values[level]] * len(X), index=X.index, dtype=X[name].dtype)})


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


# ---- measurements --------------------------------------------------------------------------------------------------


def _flip_rate(method: str, sensitive: str, estimate: AnyEstimate, n: int, detail: str) -> Measurement:
    return Measurement(
        metric="counterfactual_flip_rate",
        method=method,
        estimate=estimate,
        n_samples=n,
        ideal=0.0,
        sensitive=(sensitive,),
        detail=detail,
    )


def _measure_flips(
    table: _Table,
    method: str,
    sensitive: str,
    levels: _Levels,
    counterfactual_rows: Callable[[int], pd.DataFrame],
    detail: str,
) -> list[Measurement]:
    from auditor.data.preprocessing import label_name

    n = len(table.X)
    if len(levels.values) < 2:
        only = Undefined(reason=f"{sensitive} has one level only, so there is nothing to change it to")
        return [_flip_rate(method, sensitive, only, n, detail)]
    flipped = np.zeros(n, bool)
    shifts: list[Measurement] = []
    for level, value in enumerate(levels.values):
        others = levels.own != levels.numbers[level]
        scores, decisions = table.answers(counterfactual_rows(level))
        flipped |= others & (decisions != table.decisions)
        shifts.append(
            Measurement(
                metric="mean_score_shift",
                method=method,
                estimate=bounded_mean(scores[others] - table.scores[others], low=-1.0, high=1.0),
                n_samples=n,
                ideal=0.0,
                sensitive=(sensitive,),
                at={"to": label_name(value)},
                detail=f"{int(others.sum()):,} rows of other levels, given {sensitive} = {label_name(value)}",
            )
        )
    design = table.design
    share: AnyEstimate = Proportion(successes=int(flipped.sum()), n=n)
    if design is not None:
        share = clustered_mean(flipped, design.codes(), design.weights, design.largest)
    return [_flip_rate(method, sensitive, share, n, detail), *shifts]


# ---- models of the proxies -----------------------------------------------------------------------------------------


def _counterfactual_columns(
    X: pd.DataFrame, levels: _Levels, names: Sequence[str], rest: Sequence[str], n_folds: int, rng: np.random.Generator
) -> dict[str, list[pd.Series[Any]]]:
    """Each proxy's values at each level, from models fitted on other folds than the rows they are applied to."""
    fold = rng.permutation(len(X)) % n_folds
    others = [encoded(X[name]) for name in rest]
    categorical = [levels.categorical, *(is_code for _, is_code in others)]
    design = np.column_stack([levels.own, *(values for values, _ in others)])
    found: dict[str, list[pd.Series[Any]]] = {}
    for name in names:
        seed = int(rng.integers(1 << 31))
        change = _moved_numbers if is_number(X[name]) else _coupled_categories
        found[name] = change(X[name], design, categorical, levels, fold, seed)
    return found


def encoded(values: pd.Series[Any]) -> tuple[FloatArray, bool]:
    """(n,) numbers for a tree, NaN where missing, and whether they are codes without an order."""
    import pandas as pd

    from auditor.data.preprocessing import as_text

    if is_number(values):
        return values.to_numpy(np.float64, na_value=np.nan), False
    codes, uniques = pd.factorize(as_text(values))
    rank = np.argsort(np.argsort(-np.bincount(codes[codes >= 0], minlength=len(uniques)), kind="stable"))
    capped = np.minimum(rank[codes], _MOST_CODES - 1) if len(uniques) else codes
    return np.where(codes >= 0, capped, np.nan).astype(np.float64), len(uniques) > 2


def _trees(categorical: Sequence[bool], n: int, seed: int) -> dict[str, Any]:
    return {
        "categorical_features": list(categorical) if any(categorical) else None,
        "min_samples_leaf": min(20, n // 20),
        "early_stopping": False,
        "random_state": seed,
    }


def _at_level(design: FloatArray, number: float) -> FloatArray:
    return np.column_stack([np.full(len(design), number), design[:, 1:]])


def _moved_numbers(
    values: pd.Series[Any],
    design: FloatArray,
    categorical: Sequence[bool],
    levels: _Levels,
    fold: IntArray,
    seed: int,
) -> list[pd.Series[Any]]:
    """The proxy at each level: the fitted change is added, so that each row keeps its residual."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingRegressor

    x = values.to_numpy(np.float64, na_value=np.nan)
    finite = np.isfinite(x)
    moved = np.tile(x, (len(levels.values), 1))
    for k in np.unique(fold):
        held_out, fitted = np.flatnonzero(fold == k), np.flatnonzero((fold != k) & finite)
        if fitted.size < 2:
            continue
        trees = HistGradientBoostingRegressor(**_trees(categorical, fitted.size, seed))
        trees.fit(design[fitted], x[fitted])
        now = trees.predict(design[held_out])
        for level, number in enumerate(levels.numbers):
            moved[level, held_out] += trees.predict(_at_level(design[held_out], number)) - now
    if finite.any():
        # What was never seen, such as a negative age, would tell of the model's extrapolation and not of the feature.
        moved = np.clip(moved, x[finite].min(), x[finite].max())
    if (x[finite] == np.round(x[finite])).all():
        moved = np.round(moved)
    integer = pd.api.types.is_integer_dtype(values)
    return [pd.Series(row, index=values.index).astype(values.dtype if integer else np.float64) for row in moved]


def _coupled_categories(
    values: pd.Series[Any],
    design: FloatArray,
    categorical: Sequence[bool],
    levels: _Levels,
    fold: IntArray,
    seed: int,
) -> list[pd.Series[Any]]:
    """The proxy at each level: kept with probability ``min(1, q / p)``, else drawn from what level q has more of."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

    codes, uniques = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(uniques))
    frequent = np.argsort(-counts, kind="stable")[:_MOST_CATEGORIES]
    known = np.isin(codes, frequent)
    rng = np.random.default_rng(seed)
    keep, pick = rng.random(len(codes)), rng.random(len(codes))
    changed = np.tile(codes, (len(levels.values), 1))
    for k in np.unique(fold):
        held_out, fitted = np.flatnonzero((fold == k) & known), np.flatnonzero((fold != k) & known)
        if not held_out.size or np.unique(codes[fitted]).size < 2:
            continue
        trees = HistGradientBoostingClassifier(**_trees(categorical, fitted.size, seed))
        trees.fit(design[fitted], codes[fitted])
        place = np.searchsorted(trees.classes_, codes[held_out])
        place = np.where(np.isin(codes[held_out], trees.classes_), place, -1)
        seen, rows = held_out[place >= 0], np.arange(int((place >= 0).sum()))
        place = place[place >= 0]
        now = trees.predict_proba(design[seen])
        for level, number in enumerate(levels.numbers):
            then = trees.predict_proba(_at_level(design[seen], number))
            stays = keep[seen] * now[rows, place] <= then[rows, place]
            more = np.maximum(then - now, 0.0).cumsum(axis=1)
            drawn = (more < pick[seen, None] * more[:, -1:]).sum(axis=1)
            changed[level, seen] = np.where(stays, codes[seen], trees.classes_[drawn])
    return [_from_codes(values, row, uniques) for row in changed]


def _from_codes(values: pd.Series[Any], codes: npt.NDArray[np.intp], uniques: Any) -> pd.Series[Any]:
    import pandas as pd

    new = pd.Series(uniques.take(np.maximum(codes, 0)), index=values.index).astype(values.dtype)
    return new.where(codes >= 0, values)
