"""Input of the detector probes: labelled media files, and the synthetic class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError, OtherKindError
from auditor.core.rows import BoolArray, FloatArray
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate_kinds import AnyEstimate

if TYPE_CHECKING:
    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# From this many pixels on a pass takes as long as hundreds of a small one's: fewer files are looked at.
_LARGE_PIXELS = 128 * 128
# Rows whose scores are asked for in one go: several versions of each are in memory at once.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Subject:
    """Labelled files of one medium and how a model scores them.

    rows: n labelled evaluation files. fake: index of the synthetic class. is_fake (n,). scores (n,): the probability of
    being synthetic.
    """

    rows: AuditData
    fake: int
    is_fake: BoolArray
    scores: FloatArray


def fake_index(model: AuditedModel, data: AuditData, *, answers_do: bool = False) -> int:
    """Index of the synthetic class; NotApplicableError for models or data that are not about synthetic media.

    ``answers_do``: where a model's recorded answers are all there is, the files themselves need not be.
    """
    from auditor.models.detector import synthetic

    fake = synthetic(model, data)
    told = answers_do and not model.can_be_asked and fake is not None
    if data.modality not in ("image", "audio") and not told:
        raise OtherKindError(
            f"Asks about detectors of synthetic images and sound, and these rows are {_WORDS[data.modality]}."
        )
    if fake is None:
        raise OtherKindError(
            "Asks about detectors of synthetic media, and none of this model's classes "
            f"({', '.join(model.classes[:6])}) is known as the synthetic one: name two classes such as real and fake."
        )
    return fake


_WORDS = {"tabular": "a table", "text": "texts"}


def labelled(model: AuditedModel, data: AuditData, *, answers_do: bool = False) -> Subject:
    """The labelled evaluation files with their scores; NotApplicableError if the probe does not apply."""
    rows = data.evaluation
    fake = fake_index(model, rows, answers_do=answers_do)
    if rows.y_true is None:
        raise NotApplicableError("Needs true labels: a folder with one sub-folder per class, or --target COLUMN.")
    known = rows.y_true >= 0
    scores = model.outputs(rows)[:, fake]
    kept = rows if known.all() else rows.take(known)
    return Subject(kept, fake, (rows.y_true == fake)[known], scores[known])


def sample_files(subject: Subject, most: int, rng: np.random.Generator) -> Subject:
    """At most ``most`` of the files, balanced over the classes if possible, in the order of the data."""
    n = len(subject.is_fake)
    if n <= most:
        return subject
    fakes, reals = np.flatnonzero(subject.is_fake), np.flatnonzero(~subject.is_fake)
    n_fakes = min(len(fakes), max(most // 2, most - len(reals)))
    n_reals = min(len(reals), most - n_fakes)
    picked = np.sort(np.r_[rng.choice(fakes, n_fakes, replace=False), rng.choice(reals, n_reals, replace=False)])
    index = picked.astype(np.int64)
    return Subject(subject.rows.take(index), subject.fake, subject.is_fake[index], subject.scores[index])


def is_large(rows: AuditData) -> bool:
    """Whether the rows are images so large that a model query on one of them is slow."""
    return rows.modality == "image" and int(np.prod(np.shape(rows.X)[1:3])) >= _LARGE_PIXELS


def scores_of(model: AuditedModel, fake: int, n: int, version: Callable[[int], Rows]) -> FloatArray:
    """(n,) probabilities of being synthetic of one version of each of n files, ``ROWS_AT_ONCE`` at a time."""
    parts = [
        model.predict_proba(np.stack([version(i) for i in range(start, min(start + ROWS_AT_ONCE, n))]))[:, fake]
        for start in range(0, n, ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def make_measurement(
    metric: str, estimate: AnyEstimate, n_samples: int, ideal: float | None, *, method: str, **where: Any
) -> Measurement:
    """A measurement; ``where``: its coordinates, with their display names."""
    return Measurement(metric=metric, estimate=estimate, n_samples=n_samples, ideal=ideal, method=method, **where)
