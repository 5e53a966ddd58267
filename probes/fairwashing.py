"""Fairwashing test: whether an explanation reflects the decisions on real rows.

A gate against models with another face for perturbed rows.

Scaffolding (Slack, Hilgard, Jia, Singh and Lakkaraju, AIES 2020): a model that tells perturbed rows from real ones can
show an innocent face to every explanation that perturbs. What it does to real rows it cannot hide from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import FloatArray, IntArray, Rows, take_rows
from auditor.statistics.values import BoundedMean, bounded_mean
from probes.probe_inputs import as_frame, draw

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

OTHERWISE = (
    "the model behaves otherwise on perturbed rows than on real ones: an explanation by perturbation cannot be trusted "
    "(fairwashing, Slack et al. 2020)"
)
# Each of the three questions is asked at this level, one-sided; all three must be answered with yes, so that a model
# with one face is accused at most so often.
LEVEL = 0.01
# How much more of what can be told of real decisions a feature must explain than is shown of it. An additive score of
# independent features reaches 0.21, and a rare one that decides most refusals 0.4.
MORE_THAN_SHOWN = 0.4
# And alone, lest it be accused of what it does only together with another that has a double.
MORE_ALONE = 0.2
# Of what it tells of real decisions, what a feature must tell of those on perturbed rows at least.
STILL = 2.0 / 3.0
# Columns that order rows alike stand for one another: what one of them explains, the other does.
SAME = 0.7
MOST_ROWS = 4000
FEWEST_ROWS = 200
# Of the rows, the share that the small models learn from; the others are what they are tested on.
_LEARN = 0.4
_PURPOSE = "what decides real rows"
_TREES, _LEAF = 30, 5
# Columns that a split looks at: half of them, and of wide tables no more than these.
_MOST_TRIED = 200
_FEWEST_OF_A_CLASS = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class RealRows:
    """The features that decide real rows, compared with those of an explanation.

    features: the one that explains most beyond its display, and those that order the rows as it does. share: what the
    explanation gives them. unique, alone: the share of what all features tell of real decisions that is lost without
    these features, and that they tell alone. on_perturbed: the same of perturbed rows as ``alone``. more_unique,
    more_alone, otherwise: means over ``n`` rows that small models did not learn from, each above 0 where it accuses.
    """

    features: tuple[str, ...]
    share: float
    unique: float
    alone: float
    on_perturbed: float
    more_unique: BoundedMean
    more_alone: BoundedMean
    otherwise: BoundedMean
    n: int

    @property
    def is_hidden(self) -> bool:
        """Whether features significantly decide real rows, but neither the explanation nor perturbed rows.

        All three at 1 %, one-sided, by bounds that hold at every sample size.
        """
        return all(e.bounds(LEVEL)[0] > 0.0 for e in (self.more_unique, self.more_alone, self.otherwise))

    def describe(self) -> str:
        """The finding in one sentence."""
        if not self.is_hidden:
            return f"on {self.n:,} real rows no feature is shown to decide more than it is displayed with"
        named = ", ".join(repr(f) for f in self.features)
        return (
            f"of what can be told of the decisions on {self.n:,} real rows, {named} alone tells {self.alone:.0%} and "
            f"without it {self.unique:.0%} is lost, while the explanation gives it {self.share:.0%}; of decisions on "
            f"perturbed rows it tells {self.on_perturbed:.0%}"
        )


def real_rows(
    model: AuditedModel, rows: AuditData, values: FloatArray, names: tuple[str, ...], rng: np.random.Generator
) -> RealRows | str:
    """The feature that decides real rows more than an explanation states, or why it is unknown.

    ``values`` (m, d): attributions of some rows to the columns ``names``; shown is the mean over rows of each one's
    share of the row's. With forests that learn the model's decisions on two fifths of the real rows, ``b`` their Brier
    loss on each of the others and ``b_0`` that of always giving the decisions' frequencies, features C are compared by

    - ``more_unique``: mean of ``b_without_C - b_all - (share + 0.4) (b_0 - b_all)``
    - ``more_alone``: mean of ``b_0 - b_C - (share + 0.2) (b_0 - b_all)``
    - ``otherwise``: mean of ``2/3 (b_0 - b_C)`` minus ``b_0 - b_C`` of the same row with a random number of its
      features exchanged for those of another row, as it is decided then

    C is chosen on the rows that are learnt from: the features whose shuffling costs a forest most beyond their display,
    down to half of the most, with those that have a rank correlation of 0.7 with one of them; the largest of the
    display and its doubles are never among them.
    """
    sample = draw(rows, MOST_ROWS, rng)
    frame = as_frame(sample.X, model.features)
    places = {str(c): i for i, c in enumerate(frame.columns)}
    if len(sample) < FEWEST_ROWS:
        return f"it takes {FEWEST_ROWS} rows, and there are {len(sample):,}"
    if len(names) < 2 or not set(names) <= places.keys():
        return "there is no second column"
    frame = frame.iloc[:, [places[n] for n in names]]
    if not np.isfinite(values).all():
        return "its attributions are not finite"
    decided = model.decisions(sample)
    # No seed splits the rows anew.
    order, rng = sample.order(_PURPOSE), sample.generator(_PURPOSE)
    learn, test = order[: int(_LEARN * len(order))], order[int(_LEARN * len(order)) :]
    if np.sort(np.bincount(decided[learn]))[:-1].sum() < _FEWEST_OF_A_CLASS:
        return "it decides all but a few rows alike"
    X = coded(frame)
    shares = shown_shares(values)
    seed = int(rng.integers(2**31))
    everything = Forest(X[learn], decided[learn], model.n_outputs, seed)
    columns = _most_hidden(everything, X[learn], decided[learn], shares, rng)
    others = np.setdiff1d(np.arange(X.shape[1]), columns)
    if not columns.size:
        return "all columns order the rows alike"
    own = Forest(X[learn][:, columns], decided[learn], model.n_outputs, seed)
    rest = Forest(X[learn][:, others], decided[learn], model.n_outputs, seed)
    y = decided[test]
    blind = brier(np.broadcast_to(everything.frequencies, (len(y), model.n_outputs)), y)
    b_all, b_own, b_rest = (
        brier(f.predict(part), y)
        for f, part in ((everything, X[test]), (own, X[test][:, columns]), (rest, X[test][:, others]))
    )
    told = blind - b_all
    if told.mean() <= 0.0:
        return "a forest tells nothing of its decisions"
    share = float(shares[columns].sum())
    moved, decisions = _perturbed(model, sample, X, [places[n] for n in names], test, rng)
    b_moved = brier(own.predict(moved[:, columns]), decisions)
    # Each decision is told against the frequencies that it has among its own kind.
    counts = np.bincount(decisions, minlength=model.n_outputs) / len(decisions)
    blind_moved = brier(np.broadcast_to(counts, (len(y), model.n_outputs)), decisions)
    return RealRows(
        features=tuple(names[c] for c in columns),
        share=share,
        unique=float((b_rest - b_all).mean() / told.mean()),
        alone=float((blind - b_own).mean() / told.mean()),
        on_perturbed=float((blind_moved - b_moved).mean() / told.mean()),
        more_unique=_mean(b_rest - b_all - (share + MORE_THAN_SHOWN) * told),
        more_alone=_mean(blind - b_own - (share + MORE_ALONE) * told),
        otherwise=_mean(STILL * (blind - b_own) - (blind_moved - b_moved)),
        n=len(y),
    )


def _mean(values: FloatArray) -> BoundedMean:
    """Differences of Brier losses, none of which is beyond 2."""
    found = bounded_mean(values, low=-2.0, high=2.0)
    assert isinstance(found, BoundedMean)
    return found


def shown_shares(values: FloatArray) -> FloatArray:
    """(d,) mean over rows of each feature's share of the row's attributions; rows without any are left out."""
    sizes = np.abs(values)
    whole = sizes.sum(axis=1, keepdims=True)
    kept = whole[:, 0] > 0.0
    return np.asarray((sizes[kept] / whole[kept]).mean(axis=0) if kept.any() else np.zeros(values.shape[1]))


def coded(frame: Any) -> FloatArray:
    """(n, d) ranks of each column's values, ties shared and missing ones last; text in the order of its letters."""
    import pandas as pd

    out = np.empty(frame.shape)
    for j in range(frame.shape[1]):
        column = frame.iloc[:, j]
        if not pd.api.types.is_numeric_dtype(column):
            column = column.astype("string")
        out[:, j] = column.rank(method="average", na_option="bottom").to_numpy(np.float64)
    return out


def brier(p: FloatArray, y: IntArray) -> FloatArray:
    """(n,) half the squared distance of probabilities (n, k) from the decisions, in [0, 1]."""
    return np.asarray(0.5 * ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1), np.float64)


class Forest:
    """A small, fast random forest of decisions; ``predict`` returns all classes, unseen ones with 0.

    ``features``: the columns that its trees look at.
    """

    def __init__(self, X: FloatArray, y: IntArray, n_classes: int, seed: int) -> None:
        from sklearn.ensemble import RandomForestClassifier

        self._n = n_classes
        self.frequencies = np.bincount(y, minlength=n_classes) / len(y)
        self._forest = RandomForestClassifier(
            _TREES,
            min_samples_leaf=_LEAF,
            max_features=min(0.5, _MOST_TRIED / X.shape[1]),
            n_jobs=1,
            random_state=seed,
        ).fit(X, y)
        self.features = {int(j) for tree in self._forest.estimators_ for j in tree.tree_.feature if j >= 0}

    def predict(self, X: FloatArray) -> FloatArray:
        """(n, n_classes) probabilities."""
        out = np.zeros((len(X), self._n))
        # What ``predict_proba`` does, which takes most of its time to check its input anew for every tree.
        rows = np.ascontiguousarray(X, np.float32)
        votes = sum(tree.tree_.predict(rows) for tree in self._forest.estimators_)
        out[:, self._forest.classes_.astype(np.int64)] = votes / len(self._forest.estimators_)
        return out


def _most_hidden(forest: Forest, X: FloatArray, y: IntArray, shares: FloatArray, rng: np.random.Generator) -> IntArray:
    """The columns of one feature and of its doubles, chosen on the rows that the forest learnt from."""
    whole = brier(forest.predict(X), y).mean()
    lost = np.zeros(X.shape[1])
    moved = X.copy()
    for j in range(X.shape[1]):
        moved[:, j] = rng.permutation(X[:, j])
        # What no tree looks at loses nothing.
        if j in forest.features:
            lost[j] = brier(forest.predict(moved), y).mean() - whole
        moved[:, j] = X[:, j]
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.abs(np.corrcoef(X, rowvar=False)) >= SAME
    np.fill_diagonal(alike, True)
    beyond = np.where(alike[np.argmax(shares)], -np.inf, lost / max(lost.sum(), 1e-12) - shares)
    chosen = beyond >= max(0.5 * float(beyond.max()), 0.0)
    chosen[np.argmax(beyond)] = True
    return np.flatnonzero(alike[chosen].any(axis=0) & np.isfinite(beyond))


def _perturbed(
    model: AuditedModel,
    sample: AuditData,
    X: FloatArray,
    places: Sequence[int],
    test: IntArray,
    rng: np.random.Generator,
) -> tuple[FloatArray, IntArray]:
    """The tested rows with a random number of features, at least one, of other rows: coded, and as they are decided."""
    own = np.arange(len(test))
    gone = rng.random((len(test), X.shape[1])) < rng.random((len(test), 1))
    gone[own, rng.integers(X.shape[1], size=len(test))] = True
    source = np.where(gone, rng.integers(len(X), size=len(test))[:, None], test[:, None])
    moved = exchanged_rows(sample.X, places, test, source)
    return np.take_along_axis(X, source, axis=0), model.decisions(replace(sample.take(test), X=moved))


def exchanged_rows(rows: Rows, places: Sequence[int], row_indices: IntArray, source: IntArray) -> Rows:
    """Rows ``row_indices`` of a table, the values of each column ``places[j]`` from the rows ``source[:, j]``."""
    if isinstance(rows, np.ndarray):
        array = np.array(rows[row_indices])
        for j, place in enumerate(places):
            array[:, place] = rows[source[:, j], place]
        return array
    table: Any = rows
    moved: Any = take_rows(rows, row_indices)
    columns = [moved.iloc[:, i] for i in range(moved.shape[1])]
    for j, place in enumerate(places):
        columns[place] = table.iloc[source[:, j], place].set_axis(moved.index)
    exchanged: Rows = type(table)(dict(enumerate(columns))).set_axis(moved.columns, axis=1)
    return exchanged
