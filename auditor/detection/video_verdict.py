"""Verdict of a detector on a whole video, computed from its frame scores, and the check of a file's medium."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray
from auditor.data.preprocessing import ImagePreprocessing
from auditor.detection.detection_record import FileVerdict, FrameScore, recorded
from auditor.judging.png import Pixels
from auditor.models.detector_card import DetectorCard, judge_file

if TYPE_CHECKING:
    from auditor.models.detector import Detector


def fit_notes(sizes: Sequence[tuple[int, int]], preprocessing: ImagePreprocessing, subject: str) -> list[str]:
    """The parts that a detector crops from or pads to images of these sizes (width, height); ``subject``: "Of it"."""
    height, width = preprocessing.size
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


def judge_frames(card: DetectorCard, scores: FloatArray, seconds: FloatArray) -> FileVerdict:
    """One verdict on a video from the scores (n,) of its frames, n >= 1.

    Frames of one video are alike and one unit: its score is their mean, which is held against those of known videos.
    The interval of the mean is Student's over the means of ``min(8, n // 2)`` consecutive blocks (batch means; Law and
    Kelton, Simulation Modeling and Analysis, 2000), within [0, 1]: how much it varies over moments of this
    video, not how often the detector is wrong.
    """
    verdict = recorded(judge_file(card, float(scores.mean())))
    low, high = mean_interval(scores)
    frames = tuple(
        FrameScore(seconds=max(0.0, float(at)), probability=float(score))
        for at, score in zip(seconds, scores, strict=True)
    )
    return verdict.model_copy(update={"low": low, "high": high, "frames": frames})


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
        return fitted_picture(pixels, wanted)

    frames = sample_frames(content, name, shrink=shrink)
    scores = np.asarray([v.probability for v in detector.verdicts(frames.pixels)])
    verdict = judge_frames(detector.card, scores, frames.seconds)
    judged = "1 frame was judged" if len(scores) == 1 else f"{len(scores)} frames were judged, evenly spaced"
    notes = [
        *fit_notes(sizes, wanted, "Of its frames"),
        f"{judged}: what is synthetic for a moment only can be missed.",
    ]
    if verdict.low is not None:
        notes.append(
            "The interval is over moments of this video, in blocks of neighbouring frames, which are not independent."
        )
    return verdict, notes
