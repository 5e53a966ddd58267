"""Detector robustness: performance after the usual processing of files in distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.core.errors import MissingExtraError, NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.images_and_video import need_pillow
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.detection import LargestDrop, area_difference
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rates import RateTable, WeightedSum
from probes.deepfake.degradations import PICTURE_LADDERS, SOUND_LADDERS, Ladder, changed_picture, changed_sound
from probes.deepfake.detector_files import (
    Subject,
    as_row,
    labelled,
    make_measurement,
    no_larger,
    picture_of,
    sample_files,
    taken_by,
)
from probes.probe_inputs import chosen_methods, whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Files of which all versions are made before the model is asked: some thirty each are in memory at once.
_FILES_AT_ONCE = 8
_SPEECH_RATE = 16_000
_N_SAMPLES, _LARGE_SAMPLES, _LARGE_PIXELS = 200, 100, 128 * 128


class DetectorRobustness(BaseProbe):
    """AUC and balanced accuracy after compression, resizing, blur, noise and the like, or codecs, telephone and rooms.

    Over sampled labelled files, each changed once for every rung of every ladder K, so that rows stay independent; all
    levels of a ladder share a file's random draws: ``auc_under_*``, ``balanced_accuracy_under_*`` and
    ``largest_auc_drop``.

    - ``largest_auc_drop``: Everyday rungs: :attr:`~probes.deepfake.degradations.Ladder.everyday`.

    Images (:func:`~probes.deepfake.degradations.changed_picture`): ``jpeg``, ``resize``, ``blur``, ``noise``,
    ``colour``, ``crop``, ``screenshot``; made on the file's own picture, or on one of at most 1,024 pixels a side,
    where rows were read from files, else on the row. Sound
    (:func:`~probes.deepfake.degradations.changed_sound`): ``mp3``, ``opus``, ``telephone``, ``noise``,
    ``reverberation``, made on the row.

    methods: ``auto`` (all ladders of the medium) or names of them. n_samples: files, by default 200, or 100
    pictures of 128 x 128 and more.

    Raises NotApplicableError for other models and data, without labels, or for a ladder of the other medium.

    Sources: Hendrycks and Dietterich, ICLR 2019; Wang et al., CVPR 2020; Delgado et al., ASVspoof 2021 (codecs and
    telephone).
    """

    name = "detector_robustness"
    pillar = "deepfake"
    goal = "Does the detector survive what happens to files on their way?"
    citation = "Wang et al., CVPR 2020; Hendrycks and Dietterich, ICLR 2019; Delgado et al., ASVspoof 2021"
    methods = tuple(dict.fromkeys(ladder.name for ladder in (*PICTURE_LADDERS, *SOUND_LADDERS)))
    needs = (Need.CLASSIFIER, Need.DATA, Need.LABELS)
    questions = (AuditQuestion("travelled"),)
    ideal_when_same = {"largest_auc_drop": "scores"}
    # Files of either class, and the true largest drop that is found above 0.10 with 80 % power at 5 %.
    power: ClassVar[tuple[int, float]] = (100, 0.25)
    untrusted_options = allow_untrusted("methods", "n_samples")
    metrics = define_metrics(
        """
        auc_under_*: P(a synthetic file scores above a real one) + P(tie) / 2 after that change; [0, 1], ideal 1; at 0.8
          files are told apart in 8 of 10 pairs after the change; Wang et al., CVPR 2020
        balanced_accuracy_under_*: mean of the shares of real and of synthetic files decided rightly after that change;
          [0, 1], ideal 1; at 0.8 eight of ten files of either kind are still decided rightly; Wang et al., CVPR 2020
        largest_auc_drop: the largest drop in AUC from the files as they are, paired by file, over the everyday rungs;
          [-1, 1], ideal 0; at 0.1 what files meet without anybody meaning harm costs 10 pairs in 100; Hendrycks and
          Dietterich, ICLR 2019
        """
    )

    def __init__(self, *, methods: str | Sequence[str] = "auto", n_samples: int | None = None) -> None:
        whole_number("n_samples", n_samples, 1)
        self.wanted = chosen_methods(methods, self.methods)
        self.n_samples = n_samples

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on sampled labelled files; see the class for their definitions."""
        subject = labelled(model, data)
        image = subject.rows.modality == "image"
        large = image and int(np.prod(np.shape(subject.rows.X)[1:3])) >= _LARGE_PIXELS
        subject = sample_files(subject, self.n_samples or (_LARGE_SAMPLES if large else _N_SAMPLES), rng)
        if image:
            need_pillow()
        ladders = self._ladders(image)
        missing = "" if image else _without_codecs()
        lost = [ladder for ladder in ladders if missing and ladder.name in ("mp3", "opus")]
        kept = [ladder for ladder in ladders if ladder not in lost]
        seeds = rng.integers(0, 2**63 - 1, (len(subject.is_fake), len(self.methods)))
        rungs = [(ladder, level) for ladder in kept for level in ladder.levels]
        probabilities = self._probabilities(model, subject, rungs, seeds)
        found: list[Measurement] = []
        drops: dict[str, AnyEstimate] = {}
        for (ladder, level), p in zip(rungs, probabilities, strict=True):
            found += _rung(model, subject, ladder, level, p)
            if level in ladder.everyday:
                scores = p[:, subject.fake]
                drops[f"{ladder.name} {level:g}"] = area_difference(
                    first=subject.scores, second=scores, positive=subject.is_fake
                )
        for ladder in lost:
            reason = f"{ladder.name} was left out: {missing}"
            estimate = Undefined(reason=reason, inapplicable=True)
            found.append(
                make_measurement(f"auc_under_{ladder.name}", estimate, len(subject.is_fake), 1.0, method=ladder.name)
            )
        return [_headline(drops, len(subject.is_fake)), *found]

    def _ladders(self, image: bool) -> tuple[Ladder, ...]:
        known = PICTURE_LADDERS if image else SOUND_LADDERS
        if "auto" in self.wanted:
            return known
        names = [ladder.name for ladder in known]
        unfit = [name for name in self.wanted if name not in names]
        if unfit:
            medium = "images" if image else "sound"
            raise NotApplicableError(
                f"{unfit[0]} does not apply to {medium}; to these files apply: {', '.join(names)}."
            )
        return tuple(ladder for ladder in known if ladder.name in self.wanted)

    def _probabilities(
        self,
        model: AuditedModel,
        subject: Subject,
        rungs: Sequence[tuple[Ladder, float]],
        seeds: IntArray,
    ) -> FloatArray:
        """(n_rungs, n, 2) probabilities of every version of every file."""
        n = len(subject.is_fake)
        out = np.empty((len(rungs), n, model.n_outputs))
        for start in range(0, n if rungs else 0, _FILES_AT_ONCE):
            files = range(start, min(start + _FILES_AT_ONCE, n))
            versions = [self._versions(model, subject.rows, i, rungs, seeds[i]) for i in files]
            asked = model.predict_proba(np.concatenate(versions))
            out[:, start : start + len(files)] = asked.reshape(len(files), len(rungs), -1).transpose(1, 0, 2)
        return out

    def _versions(
        self,
        model: AuditedModel,
        rows: AuditData,
        i: int,
        rungs: Sequence[tuple[Ladder, float]],
        seeds: IntArray,
    ) -> npt.NDArray[Any]:
        """(n_rungs, ...) one file after every change; the same draws at every level of a ladder."""
        from auditor.data.preprocessing import AudioPreprocessing

        row = np.asarray(rows.X[i])
        draws = {name: seed for name, seed in zip(self.methods, seeds.tolist(), strict=True)}
        if rows.modality == "image":
            taken = taken_by(model, rows)
            picture = no_larger(picture_of(rows, i), taken)
            return np.stack(
                [
                    as_row(changed_picture(picture, k.name, level, np.random.default_rng(draws[k.name])), row, taken)
                    for k, level in rungs
                ]
            )
        own = model.preprocessing
        rate = own.sampling_rate if isinstance(own, AudioPreprocessing) else _SPEECH_RATE
        return np.stack(
            [changed_sound(row, rate, k.name, level, np.random.default_rng(draws[k.name])) for k, level in rungs]
        )


def _without_codecs() -> str:
    from auditor.data.audio import need_av

    try:
        need_av()
    except MissingExtraError as error:
        return str(error)
    return ""


def _rung(
    model: AuditedModel, subject: Subject, ladder: Ladder, level: float, probabilities: FloatArray
) -> list[Measurement]:
    scores, fake = probabilities[:, subject.fake], subject.is_fake
    right = (model.decide(probabilities, subject.rows.positive) == subject.fake) == fake
    at: dict[str, str | float] = {ladder.coordinate: float(level)}
    n = len(fake)
    area = area_under_curve(positives=scores[fake], negatives=scores[~fake])
    return [
        make_measurement(f"auc_under_{ladder.name}", area, n, 1.0, method=ladder.name, at=at),
        make_measurement(
            f"balanced_accuracy_under_{ladder.name}", balanced_accuracy(right, fake), n, 1.0, method=ladder.name, at=at
        ),
    ]


def balanced_accuracy(right: BoolArray, is_fake: BoolArray) -> WeightedSum | Undefined:
    """Mean of the shares decided rightly among either class; right, is_fake (n,)."""
    n = int((~is_fake).sum()), int(is_fake.sum())
    if not min(n):
        return Undefined(reason="there are no files of one of the classes")
    k = int(right[~is_fake].sum()), int(right[is_fake].sum())
    return WeightedSum(weights=(0.5, 0.5), table=RateTable(rate="decided_rightly", successes=k, n=n))


def _headline(drops: dict[str, AnyEstimate], n: int) -> Measurement:
    from auditor.statistics.detection import AreaDifference

    parts = tuple(d for d in drops.values() if isinstance(d, AreaDifference | Undefined))
    estimate: AnyEstimate = Undefined(reason="no everyday change was tried", inapplicable=True)
    detail = ""
    if parts:
        estimate = LargestDrop(parts=parts)
        known = {name: d.value for name, d in drops.items() if not isinstance(d, Undefined)}
        worst = max(known, key=lambda name: known[name], default="")
        detail = f"largest under {worst}; of {', '.join(drops)}" if worst else ""
    return make_measurement("largest_auc_drop", estimate, n, 0.0, method="everyday", detail=detail)
