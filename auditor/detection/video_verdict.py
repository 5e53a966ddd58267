"""Verdict of an image or sound detector on a whole video, computed from its frame scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.data.video import Frames
from auditor.detection.frame_means import combined, mean_interval
from auditor.models.detector_card import answer_of

if TYPE_CHECKING:
    from auditor.models.detector import Answer, Detector


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
