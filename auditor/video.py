"""Video: frames taken evenly over its length, bounded and from memory, and one verdict over their scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.audio import opened, with_known_codec
from auditor.errors import DataError, ModelError, UsageError
from auditor.files import shown
from auditor.images import MAX_PIXELS, fitted_picture
from auditor.preprocessing import ImagePreprocessing
from auditor.rows import FloatArray

if TYPE_CHECKING:
    from auditor.detector import Answer, DeepfakeDetector

Pixels = npt.NDArray[np.uint8]
MOST_FRAMES = 256
FRAMES = 32
MAX_BYTES = 1 << 30
# Of one video; more than a day of film at 25 a second.
MAX_PACKETS = 3_000_000
# Frames that are decoded on the way to those that are wanted.
MAX_DECODED = 20_000
BLOCKS = 8
# To a frame farther away than this it is quicker to begin at the nearest key frame.
_SEEK_SECONDS = 4.0
_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Frames:
    """``pixels`` (n, h, w, channels) uint8 at ``seconds`` (n,) from the beginning, ascending."""

    pixels: Pixels
    seconds: FloatArray


@dataclass(frozen=True, kw_only=True)
class VideoVerdict:
    """What a detector of images says of a video.

    ``probability``: the mean over frames of the calibrated probability of being synthetic; ``low`` and ``high``: its
    95 % interval over moments of this video, None with fewer than 4 frames. ``p_real``, ``p_fake``: twice the mean of
    the frames' conformal p-values, at most 1. ``novelty``: the frames' median. ``scores``, ``seconds``: by frame.
    ``change``: the mean absolute difference of scores of neighbouring frames, 0 for a steady video; None with one
    frame. ``notes``: what was assumed.
    """

    answer: Answer
    reason: str
    probability: float
    low: float | None
    high: float | None
    p_real: float
    p_fake: float
    novelty: float | None
    change: float | None
    scores: tuple[float, ...]
    seconds: tuple[float, ...]
    notes: tuple[str, ...]


def sample_frames(
    data: bytes, name: str, n: int = FRAMES, *, shrink: Callable[[Pixels], Pixels] | None = None
) -> Frames:
    """At most ``n`` frames of a file's content, evenly spaced: of N frames numbers ``floor((i + 1/2) N / n)``.

    All of them where there are no more than n. Turned upright where the video says how. ``shrink``: what is kept of a
    picture (h, w, 3), so that no more of them is held than that. Raises DataError where it is empty, of another
    format, damaged, cut short, without pictures, or beyond MAX_PIXELS a frame, MAX_BYTES in all or MAX_DECODED frames
    on the way; UsageError where n is not in [1, MOST_FRAMES]; MissingExtraError without PyAV.
    """
    if not 1 <= n <= MOST_FRAMES:
        raise UsageError(f"Of a video 1 to {MOST_FRAMES} frames are taken, not {n}.")
    what = f"The video {shown(name)!r}"
    times, base = _times(data, what)
    wanted = [times[int((i + 0.5) * len(times) / n)] for i in range(n)] if len(times) > n else times
    found: list[Pixels] = []
    seconds = []
    held = 0
    for time, pixels in _decoded(data, what, wanted, base):
        kept = pixels if shrink is None else shrink(pixels)
        if found and kept.shape != found[0].shape:
            raise DataError(f"{what} changes its size: cut it into parts of one size each.")
        held += kept.nbytes
        if held > MAX_BYTES:
            raise DataError(f"{what} has frames of {pixels.shape[1]:,} x {pixels.shape[0]:,} pixels: take fewer.")
        found.append(kept)
        seconds.append((time - times[0]) * base)
    if not found:
        raise DataError(f"{what} holds no frame that can be decoded.")
    return Frames(np.stack(found), np.asarray(seconds, np.float64))


def model_frames(data: bytes, name: str, model: DeepfakeDetector, n: int = FRAMES) -> Frames:
    """As :func:`sample_frames`, each as the model takes images; ModelError where it takes none."""
    wanted = model.preprocessing
    if not isinstance(wanted, ImagePreprocessing):
        raise ModelError("This model takes no images, and a video is judged by its frames.")
    return sample_frames(data, name, n, shrink=lambda pixels: fitted_picture(pixels, name, wanted))


def video_verdict(detector: DeepfakeDetector, frames: Frames) -> VideoVerdict:
    """One verdict over frames as the detector takes them.

    Frames of one video are alike, so they do not count as so many files. The interval of the mean probability is
    Student's over the means of ``min(8, n // 2)`` consecutive blocks of frames (batch means; Law and Kelton,
    Simulation Modeling and Analysis, 2000), within [0, 1]: how much it varies over moments of this video, not how often
    the detector is wrong. ``p = min(1, 2 mean(p_i))`` is a p-value however the frames depend on each other (Vovk and
    Wang, Combining p-values via averaging, Biometrika 2020), where each frame is exchangeable with the calibration
    images of its class. Unsupported where most frames are unlike everything the detector was trained on.
    """
    from auditor.detector import answer_of

    verdicts = detector.verdicts(frames.pixels)
    scores = np.asarray([v.probability for v in verdicts])
    low, high = mean_interval(scores)
    p_real = min(1.0, 2.0 * float(np.mean([v.p_real for v in verdicts])))
    p_fake = min(1.0, 2.0 * float(np.mean([v.p_fake for v in verdicts])))
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
        change=float(np.abs(np.diff(scores)).mean()) if len(scores) > 1 else None,
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


# ---- reading -------------------------------------------------------------------------------------------------------


def _times(data: bytes, what: str) -> tuple[list[int], float]:
    """When each frame is shown, ascending and without repetition, in units of the returned number of seconds."""
    with opened(data, what) as container:
        stream = _pictures(container, what)
        base = float(stream.time_base or 0)
        times = set()
        for i, packet in enumerate(container.demux(stream)):
            if i >= MAX_PACKETS:
                raise DataError(f"{what} has more than {MAX_PACKETS:,} frames: cut it into parts.")
            if packet.pts is not None and packet.size:
                times.add(int(packet.pts))
        stated = float(stream.duration or 0) * base
    if not times or base <= 0.0:
        raise DataError(f"{what} holds no frame that can be decoded.")
    length = (max(times) - min(times)) * base
    # The last frame's own time is not counted in what is there.
    if stated > 0.0 and length + max(1.0, length / len(times)) < 0.9 * stated:
        raise DataError(f"{what} is cut short: {length:.1f} of {stated:.1f} seconds are there.")
    return sorted(times), base


def _pictures(container: Any, what: str) -> Any:
    """The first stream of moving pictures; a cover is none."""
    for stream in container.streams.video:
        if "ATTACHED_PIC" in str(stream.disposition).upper():
            continue
        return with_known_codec(stream, what)
    raise DataError(f"{what} has no stream of pictures.")


def _decoded(data: bytes, what: str, wanted: Sequence[int], base: float) -> Iterator[tuple[int, Pixels]]:
    """(time, (h, w, 3)) of the frames shown at the wanted times; one that is damaged is replaced by the next."""
    n_decoded = 0
    with opened(data, what) as container:
        stream = _pictures(container, what)
        _check_size(what, stream.codec_context.width, stream.codec_context.height)
        place, sought = 0, -1
        frames = container.decode(stream)
        last = 0
        while place < len(wanted):
            if sought < place and (wanted[place] - last) * base > _SEEK_SECONDS:
                container.seek(wanted[place], stream=stream, backward=True)
                frames = container.decode(stream)
                sought = place
            frame = next(frames, None)
            if frame is None:
                return
            n_decoded += 1
            if n_decoded > MAX_DECODED:
                raise DataError(f"{what} takes more than {MAX_DECODED:,} frames to decode: cut it into parts.")
            _check_size(what, frame.width, frame.height)
            last = wanted[place] if frame.pts is None else int(frame.pts)
            if last < wanted[place]:
                continue
            place += 1
            while place < len(wanted) and wanted[place] <= last:
                place += 1
            pixels = frame.to_ndarray(format="rgb24")
            yield last, np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def _check_size(what: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{what} has frames of {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}.")
