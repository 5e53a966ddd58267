"""Label bias: labels that differ between groups by more than the features explain, and labels that look wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.group_counts import MISSING
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from auditor.statistics.values import BoundedMean, LargestValue, bounded_mean
from probes.fairness.counterfactual_fairness import encoded
from probes.fairness.proxy_association import FEWEST_ROWS, other_columns
from probes.probe_inputs import training_rows, whole_number

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# More levels than these are one: each takes trees of its own.
_MOST_LEVELS = 10
_MOST_LEARNED = 50_000
_EACH = ("conditional_label_difference", "label_error_difference")
# Probabilities beyond these weigh as much as these do: no row decides alone.
_CLIP = 0.02
# Trees that learned too little of the label and of the group err on the same side of both, which looks like a
# difference: many steps, and large ones. What the second half of them still moves by more than one standard error
# would be moved by more steps.
_STEPS, _LEARNING_RATE = 100, 0.3
# Of the variance of a group's membership, how much the features must leave open.
_LEAST_OPEN = 0.05


class LabelBias(BaseProbe):
    """The difference of labels between groups that the features do not explain, and labels that look wrong.

    It is a difference that the features do not explain, and no proof of bias: a cause that is no column explains none.
    Features are the columns that are no sensitive feature. Probabilities of the label and of the group given the
    features come from boosted trees that learned from other rows (``n_folds``, by a hash of the rows' contents), so an
    error of one of them alone does not move the numbers (double machine learning).

    - ``conditional_label_difference``: Of each group, how much more likely the label is than in all other rows with the
      same features: the coefficient of the group in a partially linear model. Of two classes the favourable one, of
      more each, at ``class``.
    - ``label_error_difference``: The same of wrong labels. Labels that are flipped in a share of rows move towards the
      middle, most where the features are sure of them: it is the coefficient of the group times ``1 - 2p``, where
      ``p`` is the probability of the label. Rows weigh by ``1 / (p (1 - p))``, that is by what they tell.
    - ``suspected_label_error_rate``: Of all rows and of each group, where the trees are as sure of another label as
      they are, on average, of rows that have it (confident learning). Rows that are truly uncertain are among them; the
      detail says how many of labels flipped on purpose would be found so.

    n_folds: how many parts the rows fall into; each is foretold by what all others taught, of at most 50,000 rows.

    Levels of a label or a feature with fewer than 20 rows in a fold, and all but the 10 most frequent, count as rest.
    Where the features give the group away, or trees of half as many steps come to a number that is more than one
    standard error from it, it is not judged.

    Raises NotApplicableError where the training rows have no labels of two classes, no groups, or no other columns.

    Sources: Chernozhukov et al., Econom. J. 21 (2018); Northcutt et al., J. Artif. Intell. Res. 70 (2021).
    """

    name = "label_bias"
    pillar = "fairness"
    goal = "Do labels differ between groups by more than the features explain?"
    citation = "Chernozhukov et al., Econom. J. 2018; Northcutt et al., J. Artif. Intell. Res. 2021"
    methods = ("double_machine_learning", "confident_learning")
    needs = (Need.CLASSES, Need.TRAIN, Need.LABELS, Need.SENSITIVE)
    questions = (
        AuditQuestion(
            "label_bias",
            metrics=("*conditional_label_difference",),
            form="points",
            headline=("largest_conditional_label_difference",),
        ),
        AuditQuestion("label_errors", form="percent", headline=("largest_label_error_difference",)),
    )
    untrusted_options = allow_untrusted("n_folds")
    metrics = define_metrics(
        """
        conditional_label_difference: coefficient of the group in a partially linear regression of the label given the
          features; (-inf, inf), ideal 0; at 0.05 the label is given to 5 rows in 100 more than to others with the same
          features; Chernozhukov et al., Econom. J. 2018
        largest_conditional_label_difference: the largest absolute conditional_label_difference of any group; [0, inf),
          ideal 0; at 0.05 labels of one group differ in 5 rows of 100 from those of others with the same features,
          which may have a cause that is no column; Chernozhukov et al., Econom. J. 2018
        label_error_difference: how much larger the share of flipped labels is in the group than in other rows with the
          same features; (-inf, inf), ideal 0; at 0.02 two labels in 100 more are flipped; Chernozhukov et al., Econom.
          J. 2018
        largest_label_error_difference: the largest absolute label_error_difference of any group; [0, inf), ideal 0; at
          0.02 labels of one group are flipped in two rows of 100 more than those of others; Chernozhukov et al.,
          Econom. J. 2018
        suspected_label_error_rate: share of rows of which another label is as likely as it is, on average, in rows that
          have it; [0, 1], no ideal; at 0.02 two labels in 100 are to be looked at; Northcutt et al., J. Artif. Intell.
          Res. 2021
        """
    )

    def __init__(self, *, n_folds: int = 2) -> None:
        whole_number("n_folds", n_folds, 2, 10)
        self.n_folds = n_folds

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the labelled training rows; the model is not called."""
        rows = training_rows(data)
        if rows.y_true is None or rows.sensitive_features is None:
            raise NotApplicableError(
                "Needs labels and groups of the training rows: add --target and --sensitive COLUMN."
            )
        rows = rows.take(rows.y_true >= 0)
        assert rows.y_true is not None and rows.sensitive_features is not None
        columns = other_columns(rows)
        if not columns:
            raise NotApplicableError("Needs a table with a column that is no label and no sensitive feature.")
        place = rows.order(self.name)
        fold = np.empty(len(rows), np.int64)
        fold[place] = np.arange(len(rows)) * self.n_folds // max(len(rows), 1)
        labels = _levels(rows.y_true, rows.classes, fold)
        if len(labels.kept) < 2:
            raise NotApplicableError(
                f"Needs two classes with {FEWEST_ROWS} training rows in each of {self.n_folds} folds."
            )
        trees = _Trees.of_columns(columns, fold, place, int(rng.integers(1 << 31)))
        chances = trees.probabilities(labels.codes)
        found: list[Measurement] = []
        suspects = _suspects(labels, chances[1])
        found.append(_suspected(suspects, np.ones(len(rows), bool), {}))
        positive = rows.positive
        asked = [positive if positive is not None and positive in labels.kept else labels.kept[-1]]
        if len(labels.kept) > 2 or len(rows.classes) > 2:
            asked = labels.kept
        for feature in map(str, rows.sensitive_features.columns):
            groups = rows.groups(feature)
            if set(groups.titles) == {MISSING}:
                continue
            levels = _levels(groups.codes, groups.titles, fold)
            found += _of_feature(feature, levels, labels, trees, chances, asked)
            found += [
                _suspected(suspects, groups.codes == code, {feature: groups.titles[code]}) for code in levels.kept
            ]
        return found


@dataclass(frozen=True, eq=False)
class _Levels:
    """``kept``: the levels of a label or a sensitive feature that have rows enough; ``codes``: (n,) each row's place
    among them, and one more for all others."""

    names: Sequence[str]
    kept: list[int]
    codes: IntArray

    @property
    def rest(self) -> str:
        """Which levels count as rest, for a detail."""
        small = [name for code, name in enumerate(self.names) if code not in self.kept]
        more = " and others" if len(small) > 5 else ""
        return f"; counted as rest: {', '.join(small[:5])}{more}" if small else ""


def _levels(codes: IntArray, names: Sequence[str], fold: IntArray) -> _Levels:
    counts = np.asarray([np.bincount(codes[fold == part], minlength=len(names)) for part in np.unique(fold)])
    counts = counts.reshape(-1, len(names))
    most = np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST_LEVELS]
    enough = counts.min(axis=0, initial=len(codes)) >= FEWEST_ROWS
    kept = sorted(int(code) for code in most if enough[code])
    place = np.full(len(names), len(kept), np.int64)
    place[kept] = np.arange(len(kept))
    return _Levels(names, kept, place[codes])


@dataclass(frozen=True, eq=False)
class _Trees:
    """Boosted trees that learn from all folds but one and answer for that one."""

    design: npt.NDArray[np.float32]
    categorical: Sequence[bool]
    fold: IntArray
    place: IntArray
    seed: int

    @classmethod
    def of_columns(cls, columns: Mapping[str, pd.Series[Any]], fold: IntArray, place: IntArray, seed: int) -> _Trees:
        design = np.empty((len(fold), len(columns)), np.float32)
        categorical: list[bool] = []
        for i, values in enumerate(columns.values()):
            numbers, is_code = encoded(values)
            design[:, i] = np.where(np.isfinite(numbers), np.clip(numbers, -3e38, 3e38), np.nan)
            categorical.append(is_code)
        return cls(design, categorical, fold, place, seed)

    def probabilities(self, codes: IntArray) -> FloatArray:
        """(2, n, levels) the probability of each level given the features, after half of the steps and after all; 0 of
        one that was not there to learn."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        found = np.zeros((2, len(codes), int(codes.max()) + 1))
        for part in np.unique(self.fold):
            # Rows that are in the order of a hash are drawn by being first.
            learned = self.place[self.fold[self.place] != part][:_MOST_LEARNED]
            held_out = np.flatnonzero(self.fold == part)
            if np.unique(codes[learned]).size < 2:
                found[:, held_out, codes[learned[0]]] = 1.0
                continue
            trees = HistGradientBoostingClassifier(
                max_iter=_STEPS,
                learning_rate=_LEARNING_RATE,
                max_leaf_nodes=15,
                min_samples_leaf=20,
                categorical_features=list(self.categorical) if any(self.categorical) else None,
                early_stopping=False,
                random_state=self.seed,
            ).fit(self.design[learned], codes[learned])
            steps = trees.staged_predict_proba(self.design[held_out])
            for half, chances in enumerate(islice(steps, _STEPS // 2 - 1, None, _STEPS // 2)):
                found[half][np.ix_(held_out, trees.classes_)] = chances
        return found


# ---- what is measured ----------------------------------------------------------------------------------------------


def _of_feature(
    feature: str, groups: _Levels, labels: _Levels, trees: _Trees, chances: FloatArray, asked: Sequence[int]
) -> Iterator[Measurement]:
    """Of each label that is asked for and each group, its difference to all other rows; and the largest of them."""
    differences: list[Measurement] = []
    errors: list[Measurement] = []
    several = len(groups.kept) > 1
    members = trees.probabilities(groups.codes) if several else np.empty((2, len(groups.codes), 0))
    for place, code in enumerate(groups.kept if several else ()):
        own = groups.codes == place
        closed = ""
        if float(((own - members[1, :, place]) ** 2).mean()) < _LEAST_OPEN * float(own.mean() * (1.0 - own.mean())):
            closed = f"The features give away who is {groups.names[code]}: nothing is left to compare."
        for label in asked:
            column = labels.kept.index(label)
            given = labels.codes == column
            half, whole = (_coefficients(own - members[i, :, place], given, chances[i, :, column]) for i in range(2))
            of_group = _Place({feature: groups.names[code]}, labels.names[label], len(asked) > 1, int(own.sum()))
            for found, metric, before, after in zip((differences, errors), _EACH, half, whole, strict=True):
                found.append(of_group.measurement(metric, after, closed or _why_unlearned(before, after)))
    yield from differences
    yield _largest("largest_conditional_label_difference", feature, differences, groups)
    yield from errors
    yield _largest("largest_label_error_difference", feature, errors, groups)


@dataclass(frozen=True)
class _Place:
    """Of which group and of which label a number is; ``several``: whether other labels are asked for too."""

    group: dict[str, str]
    label: str
    several: bool
    n: int

    def measurement(self, metric: str, estimate: BoundedMean | Undefined, too_few: str) -> Measurement:
        return Measurement(
            metric=metric,
            method="double_machine_learning",
            estimate=estimate,
            n_samples=self.n,
            ideal=0.0,
            group=self.group,
            at={"class": self.label} if self.several else {},
            detail=f"label {self.label}",
            too_few=too_few,
        )


def _why_unlearned(half: BoundedMean | Undefined, whole: BoundedMean | Undefined) -> str:
    """Why the trees' number is none of the features' yet, in a sentence; "" where more steps would hardly move it."""
    if isinstance(half, Undefined) or isinstance(whole, Undefined):
        return ""
    if abs(half.value - whole.value) <= whole.standard_error:
        return ""
    return (
        f"Trees of half as many steps come to {half.value:+.4f}, and these to {whole.value:+.4f}: they have not "
        "learned what the features tell."
    )


def _coefficients(away: FloatArray, given: BoolArray, p: FloatArray) -> tuple[BoundedMean | Undefined, ...]:
    """The coefficients of the group and of flips in it; ``away``: its membership less the probability of that."""
    sure = np.clip(p, _CLIP, 1.0 - _CLIP)
    flips = away * (1.0 - 2.0 * sure)
    return _coefficient(given - p, away, away), _coefficient(given - p, flips, flips / (sure * (1.0 - sure)))


def _coefficient(residual: FloatArray, regressor: FloatArray, instrument: FloatArray) -> BoundedMean | Undefined:
    """``sum instrument residual / sum instrument regressor``, as the mean of what each row makes of it."""
    slope = float((instrument * regressor).mean())
    if not slope > 1e-9:
        return Undefined(reason="the features decide the group or the label, so that nothing is left to compare")
    value = float((instrument * residual).mean()) / slope
    each = value + instrument * (residual - value * regressor) / slope
    # A residual and a regressor lie in [-1, 1] whatever the rows are.
    most = float(np.abs(instrument).max()) * (1.0 + abs(value)) / slope
    return bounded_mean(each, low=value - most, high=value + most)


def _largest(metric: str, feature: str, each: Sequence[Measurement], groups: _Levels) -> Measurement:
    """The largest absolute value of several, which may lie on either side."""
    estimates = [m.estimate for m in each]
    means = [part for part in estimates if isinstance(part, BoundedMean)]
    estimate: LargestValue | Undefined = Undefined(
        reason=f"fewer than two groups of {feature} have {FEWEST_ROWS} rows in each fold"
    )
    detail = groups.rest.removeprefix("; ")
    if means and len(means) == len(each):
        worst = max(each, key=lambda m: abs(m.estimate.value))
        estimate = LargestValue(parts=tuple(means), absolute=True)
        where = "".join(f", label {label}" for label in worst.at.values())
        detail = f"{next(iter(worst.group.values()))}{where}: {worst.estimate.value:+.4f}{groups.rest}"
    elif each:
        estimate = next(part for part in estimates if isinstance(part, Undefined))
    return Measurement(
        metric=metric,
        method="double_machine_learning",
        estimate=estimate,
        n_samples=len(groups.codes),
        ideal=0.0,
        sensitive=(feature,),
        ideal_when_same="nothing",
        smallest=min((m.n_samples for m in each), default=0),
        too_few=next((m.too_few for m in each if m.too_few), ""),
        detail=detail,
    )


@dataclass(frozen=True, eq=False)
class _Suspects:
    """``known`` (n,): rows of a class that has rows enough; ``held`` (n,): those whose label looks wrong; ``flipped``
    (n,): the share of other labels that would, if the row had them."""

    known: BoolArray
    held: BoolArray
    flipped: FloatArray


def _suspects(labels: _Levels, chances: FloatArray) -> _Suspects:
    """Rows that are as surely of another class as the rows of that class are on average (Northcutt et al. 2021)."""
    k = len(labels.kept)
    p = chances[:, :k]
    average = np.asarray([p[labels.codes == code, code].mean() for code in range(k)])
    reached = np.where(p >= average, p, -1.0)
    best = reached.argmax(axis=1)
    sure = reached.max(axis=1) >= 0.0
    # A label that is not the best, on a row where one is sure, looks wrong: so do all but one, or all but none.
    others = np.where(best == labels.codes, 0.0, 1.0 / max(k - 1, 1))
    return _Suspects(labels.codes < k, sure & (best != labels.codes), np.where(sure, 1.0 - others, 0.0))


def _suspected(suspects: _Suspects, own: BoolArray, group: dict[str, str]) -> Measurement:
    own = own & suspects.known
    held = suspects.held[own]
    return Measurement(
        metric="suspected_label_error_rate",
        method="confident_learning",
        estimate=Proportion(successes=int(held.sum()), n=held.size),
        n_samples=held.size,
        group=group,
        detail=f"of labels flipped on purpose {suspects.flipped[own].mean():.1%} would be found so"
        if held.size
        else "",
    )
