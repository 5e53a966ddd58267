"""Video: evenly sampled frames, decoded from memory within limits, and one verdict from their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, UsageError
from auditor.core.files import printable_name
from auditor.core.rows import FloatArray
from auditor.data.audio import open_container, with_known_codec
from auditor.data.images import MAX_PIXELS

Pixels = npt.NDArray[np.uint8]
MOST_FRAMES = 256
FRAMES = 32
MAX_BYTES = 1 << 30
# Of one video; more than a day of film at 25 a second.
MAX_PACKETS = 3_000_000
# Frames that are decoded on the way to those that are wanted.
MAX_DECODED = 20_000
# To a frame farther away than this it is quicker to begin at the nearest key frame.
_SEEK_SECONDS = 4.0


@dataclass(frozen=True, eq=False)
class Frames:
    """``pixels`` (n, h, w, channels) uint8 at ``seconds`` (n,) from the beginning, ascending."""

    pixels: Pixels
    seconds: FloatArray


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
    what = f"The video {printable_name(name)!r}"
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


def _times(data: bytes, subject: str) -> tuple[list[int], float]:
    """When each frame is shown, ascending and without repetition, in units of the returned number of seconds."""
    with open_container(data, subject) as container:
        stream = _pictures(container, subject)
        base = float(stream.time_base or 0)
        times = set()
        for i, packet in enumerate(container.demux(stream)):
            if i >= MAX_PACKETS:
                raise DataError(f"{subject} has more than {MAX_PACKETS:,} frames: cut it into parts.")
            if packet.pts is not None and packet.size:
                times.add(int(packet.pts))
        stated = float(stream.duration or 0) * base
    if not times or base <= 0.0:
        raise DataError(f"{subject} holds no frame that can be decoded.")
    length = (max(times) - min(times)) * base
    # The last frame's own time is not counted in what is there.
    if stated > 0.0 and length + max(1.0, length / len(times)) < 0.9 * stated:
        raise DataError(f"{subject} is cut short: {length:.1f} of {stated:.1f} seconds are there.")
    return sorted(times), base


def _pictures(container: Any, subject: str) -> Any:
    """The first stream of moving pictures; a cover is none."""
    for stream in container.streams.video:
        if "ATTACHED_PIC" in str(stream.disposition).upper():
            continue
        return with_known_codec(stream, subject)
    raise DataError(f"{subject} has no stream of pictures.")


def _decoded(data: bytes, subject: str, wanted_times: Sequence[int], base: float) -> Iterator[tuple[int, Pixels]]:
    """(time, (h, w, 3)) of the frames shown at the wanted times; one that is damaged is replaced by the next."""
    n_decoded = 0
    with open_container(data, subject) as container:
        stream = _pictures(container, subject)
        _check_size(subject, stream.codec_context.width, stream.codec_context.height)
        place, sought = 0, -1
        frames = container.decode(stream)
        last = 0
        while place < len(wanted_times):
            if sought < place and (wanted_times[place] - last) * base > _SEEK_SECONDS:
                container.seek(wanted_times[place], stream=stream, backward=True)
                frames = container.decode(stream)
                sought = place
            frame = next(frames, None)
            if frame is None:
                return
            n_decoded += 1
            if n_decoded > MAX_DECODED:
                raise DataError(f"{subject} takes more than {MAX_DECODED:,} frames to decode: cut it into parts.")
            _check_size(subject, frame.width, frame.height)
            last = wanted_times[place] if frame.pts is None else int(frame.pts)
            if last < wanted_times[place]:
                continue
            place += 1
            while place < len(wanted_times) and wanted_times[place] <= last:
                place += 1
            pixels = frame.to_ndarray(format="rgb24")
            yield last, np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))


def _check_size(subject: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{subject} has frames of {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}.")
