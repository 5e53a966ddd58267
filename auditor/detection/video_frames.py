"""Verdict on a video by an image detector, with the scores of its frames."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from auditor.core.errors import ModelError
from auditor.data.preprocessing import ImagePreprocessing
from auditor.detection.detection_record import FileVerdict, FrameScore
from auditor.judging.png import Pixels

if TYPE_CHECKING:
    from auditor.models.detector import Detector


def judged_video(detector: Detector, content: bytes, name: str) -> tuple[FileVerdict, list[str]]:
    """The verdict from evenly spaced frames of a video, and notes for the reader.

    Raises DataError where no frame can be decoded, ModelError for a detector that takes no images.
    """
    from auditor.data.images import fitted_picture
    from auditor.data.video import sample_frames
    from auditor.detection.medium_check import fit_notes
    from auditor.detection.video_verdict import video_verdict

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
