"""Label conflicts: exact or near copies of training rows with different labels, as label flipping causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows, is_number
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Exact
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from probes.probe_inputs import as_frame, training_rows, whole_number
from probes.robustness.table_noise import numbers

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Pictures are alike where the means of their 8 x 8 blocks are.
_BLOCKS = 8
_NO_WORD = str.maketrans({c: " " for c in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\t\n\r"})
_LIMITS = "poisoned rows without a copy, or labelled as their copies are, are not found so"


class LabelConflicts(BaseProbe):
    """The share of training rows with a copy that has another label, as label flipping causes.

    - ``label_conflict_rate``: Of ``exact`` and of ``near`` copies (``copies``); what a near copy is
      :func:`near_conflicts` says. It is about these rows and no others, so it is known exactly where all are asked; of
      more than ``n_samples`` rows that many are drawn for near copies, each is compared with all, and the interval is
      Clopper-Pearson's.

    Where no row has a copy, or all labels are of one class, no label could contradict another, and nothing is judged.
    Labels that are truly uncertain conflict too, so a conflict is a row to look at and no proof. A PASS is none
    either: poisoned rows that have no copies, or are labelled as their copies are, are not found so.

    near: how far a near copy may lie in each number, in standard deviations of its column, or in the range of a pixel.
    n_samples: rows at most that are asked for near copies.

    Raises NotApplicableError where no training row has a label.

    Sources: Biggio et al., Poisoning attacks against support vector machines, ICML 2012, for flipped labels; Northcutt
    et al., NeurIPS Datasets and Benchmarks 2021, for how often labels are wrong without anybody's intent.
    """

    name = "label_conflicts"
    pillar = "robustness"
    goal = "Do copies among the training rows carry different labels, as flipped ones do?"
    citation = "Biggio et al., ICML 2012; Northcutt et al., NeurIPS 2021"
    methods = ("copies",)
    needs = (Need.CLASSES, Need.TRAIN, Need.LABELS)
    questions = (AuditQuestion("conflicts", form="percent"),)
    exact = {"label_conflict_rate": "every training row is compared with all others"}
    untrusted_options = allow_untrusted("near", "n_samples")
    metrics = define_metrics(
        """
        label_conflict_rate: share of the training rows of which a copy, exact or near, has another label; [0, 1], ideal
          0; at 0.01 one row in 100 contradicts a copy of itself; Biggio et al., ICML 2012, and Northcutt et al.,
          NeurIPS Datasets and Benchmarks 2021
        """
    )

    def __init__(self, *, near: float = 0.05, n_samples: int = 2_000) -> None:
        if isinstance(near, bool) or not isinstance(near, (int, float)) or not 0.0 < near < 1.0:
            raise ValueError(f"near must lie between 0 and 1, not {near!r}")
        whole_number("n_samples", n_samples, 1)
        self.near = near
        self.n_samples = n_samples

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the labelled training rows; the model is not called."""
        rows = training_rows(data)
        if rows.y_true is None or not (rows.y_true >= 0).any():
            raise NotApplicableError("Needs labels of the training rows: none of them has one.")
        labelled = np.flatnonzero(rows.y_true >= 0)
        labels = rows.y_true[labelled]
        rows, n = rows.take(labelled), len(labels)
        asked = np.sort(rng.choice(n, size=min(n, self.n_samples), replace=False)).astype(np.int64)
        found = [_rate("exact", exact_conflicts(rows, labels), n)]
        near = near_conflicts(rows, labels, asked, self.near)
        return found if near is None else [*found, _rate("near", near, n)]


def _rate(copies: str, conflicts: Conflicts, n: int) -> Measurement:
    own, m = int(conflicts.conflicting.sum()), conflicts.conflicting.size
    # Where every row was asked no others are meant; else those asked are a sample of them.
    share: AnyEstimate = Exact(known=own / m) if m == n else Proportion(successes=own, n=m)
    return Measurement(
        metric="label_conflict_rate",
        method="copies",
        too_few=conflicts.empty,
        estimate=share,
        n_samples=m,
        ideal=0.0,
        at={"copies": copies},
        detail=f"{own:,} of {m:,} rows have another {conflicts.what} and another label"
        f"{'' if m == n else f', among {n:,}'}; "
        f"{int(conflicts.copied.sum()):,} have a copy; {_LIMITS}",
    )


@dataclass(frozen=True, eq=False)
class Conflicts:
    """Label conflicts: ``conflicting`` (m,) among the compared rows, ``copied`` (m,) those with any copy, of any label;
    ``what``: the definition of a copy, in words; ``n_labels``: the number of classes."""

    conflicting: BoolArray
    copied: BoolArray
    what: str
    n_labels: int

    @property
    def empty(self) -> str:
        """The reason why a result without conflicts would mean little, in a sentence, or ""."""
        if self.n_labels < 2:
            return "All labels are of one class, so none can contradict another."
        if not self.copied.any():
            return f"Of {self.copied.size:,} rows none has a copy {self.what}, so no label could contradict another."
        return ""


def exact_conflicts(rows: AuditData, labels: IntArray) -> Conflicts:
    """For every row, whether another with the same features has another label, (n,)."""
    from auditor.data.row_keys import keys_of

    keys = keys_of(rows.X, None, None, None)
    return _among(keys, labels, np.arange(len(labels)), "with the same features")


def near_conflicts(rows: AuditData, labels: IntArray, row_indices: IntArray, near: float) -> Conflicts | None:
    """For the rows at ``row_indices`` (m,), whether a near copy has another label; None for sound.

    Tables: every number within ``near`` standard deviations of its column, everything else the same. Texts: the same
    words, whatever their case and punctuation. Pictures: the grey means of their 8 x 8 blocks within ``near`` of the
    range of a pixel.
    """
    if rows.modality == "text":
        same = np.asarray([" ".join(str(text).lower().translate(_NO_WORD).split()) for text in rows.X], object)
        _, keys = np.unique(same.astype(str), return_inverse=True)
        return _among(keys, labels, row_indices, "with the same words")
    if rows.modality == "image":
        points = _blocks(np.asarray(rows.X))
        return _conflicts_within(
            points, labels, row_indices, near, f"whose blocks differ by at most {near:g} of a pixel's range"
        )
    if rows.modality == "audio":
        return None
    points = _points(rows.X)
    return _conflicts_within(
        points, labels, row_indices, near, f"whose numbers differ by at most {near:g} standard deviations"
    )


def _among(
    keys: npt.NDArray[np.unsignedinteger | np.signedinteger], labels: IntArray, row_indices: IntArray, description: str
) -> Conflicts:
    """Of the rows at ``row_indices`` (m,), whether those with the same key have several labels."""
    _, group = np.unique(keys, return_inverse=True)
    pairs = np.unique(np.stack([group, labels]), axis=1)
    several, copied = (np.bincount(of, minlength=1)[group] > 1 for of in (pairs[0], group))
    return Conflicts(several[row_indices], copied[row_indices], description, np.unique(labels).size)


def _conflicts_within(
    points: FloatArray, labels: IntArray, row_indices: IntArray, reach: float, description: str
) -> Conflicts:
    """Of the rows at ``row_indices`` (m,), whether a point of another label lies within ``reach`` in every
    coordinate."""
    from scipy.spatial import KDTree

    reach, found, known = reach * (1 + 1e-9), np.zeros(len(row_indices), bool), np.unique(labels)
    for label in known:
        others = np.flatnonzero(labels[row_indices] != label)
        if others.size:
            near, _ = KDTree(points[labels == label]).query(
                points[row_indices[others]], p=np.inf, distance_upper_bound=reach
            )
            found[others] |= np.isfinite(near)
    # The nearest is the row itself.
    second, _ = KDTree(points).query(points[row_indices], k=[2], p=np.inf, distance_upper_bound=reach)
    return Conflicts(found, np.isfinite(second[:, 0]), description, known.size)


def _points(X: Rows) -> FloatArray:
    """(n, 1 + d) numbers in standard deviations, behind one for everything else that tells rows apart: two rows that
    differ there lie at least 1 apart."""
    frame = as_frame(X)
    columns: list[FloatArray] = []
    others: Sequence[str] = [c for c in frame.columns if not is_number(frame[c])]
    from auditor.data.row_keys import keys_of

    keys: list[npt.NDArray[np.unsignedinteger]] = [keys_of(frame[others], None, None, None)] if others else []
    for name in frame.columns:
        if name in others:
            continue
        values = numbers(frame[name])
        finite = np.isfinite(values)
        scale = float(values[finite].std()) if finite.any() else 0.0
        columns.append(np.where(finite, values, 0.0) / (scale or 1.0))
        if not finite.all():
            keys.append(
                np.where(finite, 0, np.where(np.isnan(values), 1, np.where(values > 0.0, 2, 3))).astype(np.uint64)
            )
    group = np.zeros(len(frame))
    if keys:
        group = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1).astype(np.float64)
    return np.stack([group, *columns], axis=1)


def _blocks(X: npt.NDArray[Any]) -> FloatArray:
    """(n, 64) grey means of blocks in [0, 1], of pictures (n, h, w, c)."""
    grey = X.reshape(*X.shape[:3], -1).mean(axis=3)
    ends = float(np.iinfo(X.dtype).max) if X.dtype.kind in "iu" else max(float(np.abs(grey).max()), 1e-12)
    rows, columns = (np.array_split(np.arange(size), min(_BLOCKS, size)) for size in grey.shape[1:])
    means = [grey[:, r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(1, 2)) for r in rows for c in columns]
    return np.asarray(np.stack(means, axis=1) / ends, np.float64)
