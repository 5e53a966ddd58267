"""The rows of an attack: differences between member and non-member files, and the blind baseline without the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import DataError, NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve
from auditor.statistics.rate_pairs import difference_lower_bounds
from probes.privacy.membership.loss_threshold import cross_entropy
from probes.privacy.membership.quantile_regression import as_numbers

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Level of the remarks in ``detail``: they accuse the files, so they are made only where they are all but certain.
REMARK_LEVEL = 0.001
WORSE = (
    "the model does worse on --train than on --data, which a model does not do on the rows it learned from: is --train "
    "the file it was trained on"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool:
    """The labelled rows that occur once in the two files together, members first.

    rows: n of them. probabilities (n, n_classes) of the audited model, None where its losses are all that is known of
    it. labels (n,), loss (n,). is_member (n,).
    number (n,): the row's number in its own file, from 1. ``left_out``: remarks on rows that take no part;
    ``share_left_out``: of the labelled rows of --train, those that stand more than once.
    """

    rows: AuditData
    probabilities: FloatArray | None
    labels: IntArray
    loss: FloatArray
    is_member: BoolArray
    number: IntArray
    left_out: tuple[str, ...]
    share_left_out: float = 0.0

    @property
    def n_members(self) -> int:
        """The number of members."""
        return int(self.is_member.sum())

    @property
    def n_others(self) -> int:
        """The number of non-members."""
        return int((~self.is_member).sum())

    @property
    def labels_only(self) -> bool:
        """Whether the model returns only labels: every probability is 0 or 1."""
        return self.probabilities is not None and bool(np.isin(self.probabilities, (0.0, 1.0)).all())

    @property
    def n_rows(self) -> int:
        """Rows of both files that take part."""
        return int(self.labels.size)

    @property
    def without_features(self) -> bool:
        """Whether nothing is known about a row except the model's answer."""
        return _without_features(self.rows)

    @property
    def right(self) -> BoolArray | None:
        """(n,) whether the model decides on the true class; None if only its losses are known."""
        return None if self.probabilities is None else self.probabilities.argmax(axis=1) == self.labels

    @property
    def groups(self) -> dict[str, list[str]]:
        """The groups (n,) by sensitive feature."""
        frame = self.rows.sensitive_features
        if frame is None:
            return {}
        return {str(name): [str(each) for each in frame[name].astype("string")] for name in frame.columns}

    @property
    def members(self) -> FloatArray:
        """Losses of the members."""
        return self.loss[self.is_member]

    @property
    def non_members(self) -> FloatArray:
        """Losses of the non-members."""
        return self.loss[~self.is_member]


def pool_of(model: AuditedModel, data: AuditData) -> Pool:
    """The rows that take part in the attack.

    Raises NotApplicableError without training rows or labels, DataError for a label that is none of the classes.
    """
    if data.members is None or data.is_member is None:
        raise NotApplicableError("Needs the model's training data: add --train FILE.")
    sides = (data.members, data.evaluation)
    if data.y_true is None:
        raise NotApplicableError("Needs true labels: add --target COLUMN.")
    losses = None if data.recorded is None else data.recorded.losses
    if data.y_true.size and int(data.y_true.max()) >= model.n_outputs and losses is None:
        raise DataError(
            f"A label of the data is class {int(data.y_true.max())}, and the model has {model.n_outputs} classes, "
            "counted from 0: name the classes in the order of the model's outputs with --classes."
        )
    places = (np.flatnonzero(data.is_member), np.flatnonzero(~data.is_member))
    taking, remarks, probabilities, share_left_out = [], list[str](), [], 0.0
    for what, side, alone in zip(("--train", "--data"), sides, _unrepeated(*sides), strict=True):
        labelled = np.asarray(side.y_true) >= 0
        taking.append(np.flatnonzero(labelled & alone))
        if what == "--train":
            share_left_out = float((labelled & ~alone).sum() / max(int(labelled.sum()), 1))
        if losses is None:
            probabilities.append(model.outputs(side)[taking[-1]])
        for n, why in (
            (int((~labelled).sum()), "without a label took no part"),
            (int((labelled & ~alone).sum()), "that stand more than once in the two files took no part"),
        ):
            if n:
                remarks.append(f"{n:,} rows of {what} {why}")
    taken = np.concatenate([place[take] for place, take in zip(places, taking, strict=True)])
    rows = data.take(taken)
    labels = np.asarray(rows.y_true, np.int64)
    if _without_features(data):
        remarks.append("rows that stand more than once were not looked for, because no features are here")
    return Pool(
        rows=rows,
        probabilities=None if losses is not None else np.concatenate(probabilities),
        labels=labels,
        loss=losses[taken] if losses is not None else cross_entropy(np.concatenate(probabilities), labels),
        is_member=np.repeat([True, False], [take.size for take in taking]),
        number=np.concatenate(taking).astype(np.int64) + 1,
        left_out=tuple(remarks),
        share_left_out=share_left_out,
    )


def _without_features(rows: AuditData) -> bool:
    import pandas as pd

    return isinstance(rows.X, pd.DataFrame) and not len(rows.X.columns)


def _unrepeated(*sides: AuditData) -> list[BoolArray]:
    """For each side, (n,) whether no other row of any side has the same features and the same label."""
    if all(map(_without_features, sides)):
        return [np.ones(len(rows), bool) for rows in sides]
    keys = [rows.keys for rows in sides]
    _, inverse, counts = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    return np.split(counts[inverse] == 1, np.cumsum([len(k) for k in keys])[:-1])


def detail_of(pool: Pool, classes: tuple[str, ...]) -> str:
    """The number of rows, the model's performance on either side, and differences of the files."""
    parts = [f"{pool.n_members:,} members and {pool.n_others:,} non-members", *pool.left_out]
    if not pool.n_members or not pool.n_others:
        return "; ".join(parts)
    if pool.probabilities is None:
        return "; ".join([*parts, "losses as they were given: whose loss it is, and of what, is not known here"])
    correct, n = _right(pool, pool.probabilities)
    parts.append(f"accuracy {correct[0] / n[0]:.3f} on members, {correct[1] / n[1]:.3f} on non-members")
    if pool.labels_only:
        parts.append("the model gives labels without confidence, so the loss says only whether they are right")
    return "; ".join([*parts, *_remarks(pool, correct, n, classes)])


def doubt(right: BoolArray | None, is_member: BoolArray) -> str:
    """The reason why the files forbid a judgement, in a sentence; or "". right, is_member (n,).

    right, is_member (n,).
    """
    if right is None or is_member.all() or not is_member.any() or not _does_worse(*_count_correct(right, is_member)):
        return ""
    return f"{WORSE[0].upper()}{WORSE[1:]}? Whoever was not trained on is no member, and no attack can find them."


def _right(pool: Pool, probabilities: FloatArray) -> tuple[IntArray, IntArray]:
    """(2,) right decisions, and rows, of members and of non-members."""
    return _count_correct(probabilities.argmax(axis=1) == pool.labels, pool.is_member)


def _count_correct(right: BoolArray, is_member: BoolArray) -> tuple[IntArray, IntArray]:
    correct, n = ((right & is_member).sum(), (right & ~is_member).sum()), (is_member.sum(), (~is_member).sum())
    return np.asarray(correct, np.int64), np.asarray(n, np.int64)


def _does_worse(correct: IntArray, n: IntArray) -> bool:
    return bool(difference_lower_bounds(correct, n=n, alpha=REMARK_LEVEL)[1, 0] > 0.0)


def _remarks(pool: Pool, correct: IntArray, n: IntArray, classes: tuple[str, ...]) -> list[str]:
    """What the two files give away about themselves, each said only where chance would say it once in a thousand."""
    found = []
    if _does_worse(correct, n):
        found.append(WORSE)
    widths = max(len(classes), int(pool.labels.max()) + 1)
    counts = [np.bincount(pool.labels[side], minlength=widths) for side in (pool.is_member, ~pool.is_member)]
    gaps = np.abs(counts[0] / n[0] - counts[1] / n[1])
    widest = int(gaps.argmax())
    pair = np.asarray([counts[0][widest], counts[1][widest]], np.int64)
    if difference_lower_bounds(pair, n=n, alpha=REMARK_LEVEL / widths).max() > 0.05:
        name = classes[widest] if widest < len(classes) else str(widest)
        found.append(
            f"label {name} is {pair[0] / n[0]:.1%} of the members and {pair[1] / n[1]:.1%} of the "
            "non-members: the files differ by more than membership, and part of what the attack finds may be that"
        )
    return found


FEWEST_ROWS = 100


def blind_auc(pool: Pool, rng: np.random.Generator) -> AreaUnderCurve | Undefined:
    """AUC of a classifier of rows and labels alone, gradient-boosted trees with separate training and test halves.

    0.5 where members and non-members are drawn alike. Undefined for texts and images, and below 100 rows on a side.
    """
    if pool.rows.modality != "tabular" or min(pool.n_members, pool.n_others) < FEWEST_ROWS:
        return Undefined(reason=f"the blind baseline needs a table with {FEWEST_ROWS} members and as many non-members")
    from sklearn.ensemble import HistGradientBoostingClassifier

    columns = np.column_stack([as_numbers(pool.rows.X), pool.labels.astype(np.float64)])
    tried = np.zeros(pool.labels.size, bool)
    for side in (pool.is_member, ~pool.is_member):
        own = rng.permutation(np.flatnonzero(side))
        tried[own[own.size // 2 :]] = True
    learner = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=0
    )
    scores = learner.fit(columns[~tried], pool.is_member[~tried]).decision_function(columns[tried])
    return area_under_curve(positives=scores[pool.is_member[tried]], negatives=scores[~pool.is_member[tried]])


def remark(estimate: AreaUnderCurve | Undefined, level: float) -> str:
    """The baseline's remark on the two files if its result is almost certainly no chance; else ""."""
    if isinstance(estimate, Undefined):
        return ""
    low, _ = estimate.bounds(level)
    if low <= 0.5:
        return ""
    return (
        f"the two files can be told apart without asking the model (AUC {estimate.value:.3f} on rows held back): they "
        "differ by more than membership, and part of what the attacks find may be that"
    )
