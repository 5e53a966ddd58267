"""Verdict of a detector on a whole video, computed from its frame scores, and the check of a file's medium."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray
from auditor.data.images_and_video import Frames
from auditor.data.preprocessing import ImagePreprocessing
from auditor.detection.detection_record import FileVerdict, FrameScore
from auditor.judging.png import Pixels
from auditor.models.detector_card import answer_of

if TYPE_CHECKING:
    from auditor.models.detector import Answer, Detector


def fit_notes(sizes: Sequence[tuple[int, int]], preprocessing: ImagePreprocessing, subject: str) -> list[str]:
    """The parts that a detector crops from or pads to images of these sizes (width, height); ``subject``: "Of it"."""
    height, width = preprocessing.size
    if preprocessing.faces:
        return [f"{subject} only the largest face was judged."]
    if preprocessing.fit == "stretch":
        return []
    notes = []
    for w, h in dict.fromkeys(sizes):
        if preprocessing.fit == "cover":
            scale = max(width / w, height / h)
            whole = (max(width, round(w * scale)), max(height, round(h * scale)))
            if whole != (width, height):
                notes.append(
                    f"{subject} only the middle was judged: {width} x {height} of the {whole[0]} x {whole[1]} pixels "
                    f"to "
                    f"which its {w} x {h} were brought."
                )
            continue
        if w > width or h > height:
            notes.append(
                f"{subject} only the middle was judged: {min(width, w)} x {min(height, h)} of its {w} x {h} pixels."
            )
        if w < width or h < height:
            notes.append(
                f"Its {w} x {h} pixels were mirrored at the edges up to the {width} x {height} that the detector takes."
            )
    return notes


BLOCKS = 8
_CONFIDENCE = 0.95


def combined(p_values: Sequence[float]) -> float:
    """``min(1, 2 mean(p_i))``: a p-value for any dependence between frames (Vovk and Wang, Biometrika 2020)."""
    return min(1.0, 2.0 * float(np.mean(p_values)))


def mean_interval(scores: FloatArray) -> tuple[float | None, float | None]:
    """The 95 % interval of the mean of (n,) scores in the order of time, by batch means; None with fewer than 4."""
    from scipy.stats import t

    n_blocks = min(BLOCKS, len(scores) // 2)
    if n_blocks < 2:
        return None, None
    means = np.asarray([block.mean() for block in np.array_split(scores, n_blocks)])
    reach = float(t.ppf(0.5 + _CONFIDENCE / 2.0, n_blocks - 1) * means.std(ddof=1) / math.sqrt(n_blocks))
    centre = float(scores.mean())
    return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass(frozen=True, kw_only=True)
class VideoVerdict:
    """An image detector's verdict on a video.

    ``probability``: the mean over frames of the calibrated probability of being synthetic; ``low`` and ``high``: its
    95 % interval over moments of this video, None with fewer than 4 frames. ``p_real``, ``p_fake``: twice the mean of
    the frames' conformal p-values, at most 1. ``novelty``: the frames' median. ``scores``, ``seconds``: by frame.
    ``notes``: what was assumed.
    """

    answer: Answer
    reason: str
    probability: float
    low: float | None
    high: float | None
    p_real: float
    p_fake: float
    novelty: float | None
    scores: tuple[float, ...]
    seconds: tuple[float, ...]
    notes: tuple[str, ...]


def video_verdict(detector: Detector, frames: Frames) -> VideoVerdict:
    """One verdict from frames in the detector's input format.

    Frames of one video are alike, so they do not count as so many files. The interval of the mean probability is
    Student's over the means of ``min(8, n // 2)`` consecutive blocks of frames (batch means; Law and Kelton,
    Simulation Modeling and Analysis, 2000), within [0, 1]: how much it varies over moments of this video, not how often
    the detector is wrong. ``p = min(1, 2 mean(p_i))`` is a p-value however the frames depend on each other (Vovk and
    Wang, Combining p-values via averaging, Biometrika 2020), where each frame is exchangeable with the calibration
    images of its class. Unsupported where most frames are unlike everything the detector was trained on.
    """
    verdicts = detector.verdicts(frames.pixels)
    scores = np.asarray([v.probability for v in verdicts])
    low, high = mean_interval(scores)
    p_real, p_fake = combined([v.p_real for v in verdicts]), combined([v.p_fake for v in verdicts])
    found = [v.novelty for v in verdicts if v.novelty is not None]
    novelty = float(np.median(found)) if found else None
    answer, reason = answer_of(detector.card, p_real, p_fake, novelty)
    return VideoVerdict(
        answer=answer,
        reason=reason,
        probability=float(scores.mean()),
        low=low,
        high=high,
        p_real=p_real,
        p_fake=p_fake,
        novelty=novelty,
        scores=tuple(scores.tolist()),
        seconds=tuple(frames.seconds.tolist()),
        notes=_assumed(len(scores), low is not None),
    )


def _assumed(n: int, with_interval: bool) -> tuple[str, ...]:
    judged = "1 frame was judged" if n == 1 else f"{n} frames were judged, evenly spaced"
    notes = (f"{judged}: what is synthetic for a moment only can be missed.",)
    interval = (
        "The interval is over moments of this video, in blocks of neighbouring frames, which are not independent."
    )
    return (*notes, interval) if with_interval else notes


def judged_video(detector: Detector, content: bytes, name: str) -> tuple[FileVerdict, list[str]]:
    """The verdict from evenly spaced frames of a video, and notes for the reader.

    Raises DataError where no frame can be decoded, ModelError for a detector that takes no images.
    """
    from auditor.data.images_and_video import fitted_picture, sample_frames

    wanted = detector.preprocessing
    if not isinstance(wanted, ImagePreprocessing):
        raise ModelError("This model takes no images, and a video is judged by its frames.")
    sizes: list[tuple[int, int]] = []

    def shrink(pixels: Pixels) -> Pixels:
        sizes.append((pixels.shape[1], pixels.shape[0]))
        return fitted_picture(pixels, name, wanted)

    found = video_verdict(detector, sample_frames(content, name, shrink=shrink))
    novelty = found.novelty if found.novelty is not None and math.isfinite(found.novelty) else None
    notes = [*fit_notes(sizes, wanted, "Of its frames"), *found.notes]
    if detector.card.is_unlike(found.novelty):
        return FileVerdict(answer=found.answer, reason=found.reason, novelty=novelty), notes
    frames = tuple(
        FrameScore(seconds=max(0.0, at), probability=score)
        for at, score in zip(found.seconds, found.scores, strict=True)
    )
    verdict = FileVerdict(
        answer=found.answer,
        reason=found.reason,
        probability=found.probability,
        p_real=found.p_real,
        p_fake=found.p_fake,
        novelty=novelty,
        low=found.low,
        high=found.high,
        frames=frames,
    )
    return verdict, notes
