"""Trivial cues: size, dimensions, compression, metadata, colour; of sound duration, format, loudness, silence.

And how far one gets with them alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray
from probes.deepfake.row_files import content, opened_picture, upright

if TYPE_CHECKING:
    from PIL.Image import Image

    from auditor.data.audit_data import AuditData

FOLDS = 5
FEWEST_FILES = 10
# Sound below this share of its own peak is silence at the beginning and the end.
SILENCE = 0.01
_SECONDS = 600.0
_TREES = 50


@dataclass(frozen=True, eq=False)
class Cues:
    """Families of cues of n files, each (n, d), NaN if a file lacks one; ``sampling_rates`` (n,) of sound."""

    families: Mapping[str, FloatArray]
    sampling_rates: IntArray | None = None

    def together(self) -> FloatArray:
        """(n, d) all families side by side."""
        return np.concatenate(list(self.families.values()), axis=1)


def read_cues(data: AuditData) -> Cues:
    """The cues of every row, from its file if rows were read from files, else from the row itself.

    Of an image file: ``size`` (bytes, bytes a pixel), ``dimensions`` (width, height, their ratio), ``compression``
    (format, number and means of the quantisation tables, subsampling, progressive), ``metadata`` (bytes of EXIF and of
    the colour profile, number of tags and comments, density), ``colour`` (mean red, green, blue). Of sound: ``size``
    (bytes, bytes a second), ``duration``, ``format`` (container, sampling rate, channels, bits), ``metadata`` (number
    of tags), ``loudness`` (root mean square and peak, decibels of full scale), ``silence`` (seconds of it at the
    beginning and the end). Without files: ``colour``, or ``loudness`` and ``silence``.

    Raises DataError naming the file that can no longer be read.
    """
    image = data.modality == "image"
    if data.files is None:
        rows = [_of_row(row, image) for row in np.asarray(data.X)]
    else:
        names = [Path(str(f)).name for f in data.files]
        of_file = _of_image if image else _of_sound
        rows = [of_file(content(data, i), name) for i, name in enumerate(names)]
    families = {key: np.asarray([row[key] for row in rows], np.float64) for key in (rows[0] if rows else ())}
    rates = families.get("format")
    return Cues(families, None if rates is None else rates[:, 0].astype(np.int64))


def _of_row(row: npt.NDArray[Any], image: bool) -> dict[str, list[float]]:
    if image:
        return {"colour": row.reshape(-1, row.shape[-1]).mean(axis=0, dtype=np.float64).tolist()}
    # Without its sampling rate silence is counted in samples, which orders files of one rate alike.
    return _of_samples(row, 1)


def _of_image(data: bytes, name: str) -> dict[str, list[float]]:
    picture = opened_picture(data, name)
    pixels = float(picture.width * picture.height)
    kind = picture.format or ""
    info = {key: value for key, value in picture.info.items() if isinstance(key, str)}
    found = {
        "size": [float(len(data)), len(data) / max(pixels, 1.0)],
        "dimensions": [float(picture.width), float(picture.height), picture.width / max(picture.height, 1)],
        "compression": [
            *(float(kind == known) for known in ("JPEG", "PNG", "WEBP")),
            *_tables(picture),
            float(bool(info.get("progressive") or info.get("progression"))),
        ],
        "metadata": [
            float(len(info.get("exif", b""))),
            float(len(info.get("icc_profile", b"") or b"")),
            float(len(info)),
            float(len(info.get("comment", b""))),
            float(_first(info.get("dpi"))),
        ],
    }
    shrunk = upright(picture, name).resize((1, 1), resample=4)
    return found | {"colour": [float(v) for v in np.asarray(shrunk, np.float64).ravel()]}


def _tables(picture: Image) -> list[float]:
    """Number of quantisation tables, mean and first value of the first and the last one, and the subsampling."""
    tables = list(getattr(picture, "quantization", {}).values())
    if not tables:
        return [0.0] + 5 * [math.nan]
    from PIL.JpegImagePlugin import get_sampling

    first, last = np.asarray(tables[0], np.float64), np.asarray(tables[-1], np.float64)
    numbers = [float(len(tables)), first.mean(), first[0], last.mean(), last[0]]
    return [float(x) for x in numbers] + [float(get_sampling(picture))]


def _first(value: object) -> float:
    number = value[0] if isinstance(value, tuple) and value else 0.0
    return float(number) if math.isfinite(float(number)) else 0.0


def _of_sound(data: bytes, name: str) -> dict[str, list[float]]:
    from auditor.data.audio import decode, open_container

    sound = decode(data, name, seconds=_SECONDS)
    with open_container(data, f"The recording {name!r}") as container:
        stream = container.streams.audio[0]
        kind = container.format.name.split(",")[0]
        bits = float(getattr(stream.format, "bits", 0) or 0)
        tags = float(len(container.metadata) + len(stream.metadata))
        codec = stream.codec_context.name
        channels, rate = float(stream.channels), float(stream.rate)
    return {
        "size": [float(len(data)), len(data) / sound.seconds],
        "duration": [sound.seconds],
        "format": [
            rate, channels, bits,
            *(float(kind == known) for known in ("wav", "flac", "mp3", "ogg", "mov")),
            *(float(codec.startswith(known)) for known in ("pcm", "mp3", "opus", "vorbis", "aac")),
        ],
        "metadata": [tags],
        **_of_samples(sound.samples, sound.sampling_rate),
    }  # fmt: skip


def _of_samples(samples: npt.NDArray[Any], rate: int) -> dict[str, list[float]]:
    x = np.abs(np.asarray(samples, np.float64)) / 32768.0
    peak = float(x.max()) if x.size else 0.0
    loud = np.flatnonzero(x >= SILENCE * peak) if peak > 0.0 else np.empty(0, np.int64)
    leading = float(loud[0]) if loud.size else float(x.size)
    trailing = float(x.size - 1 - loud[-1]) if loud.size else float(x.size)
    decibels = [20.0 * math.log10(max(v, 1e-6)) for v in (math.sqrt(float((x**2).mean())) if x.size else 0.0, peak)]
    return {"loudness": decibels, "silence": [leading / rate, trailing / rate]}


def cue_scores(matrix: FloatArray, is_fake: BoolArray, rng: np.random.Generator) -> FloatArray | None:
    """(n,) scores of being synthetic from cues (n, d), each by a model fitted without its row; None for few rows.

    The mean of two rules' probabilities, neither picked by what it reaches: logistic regression on standardised cues,
    and a small forest (50 trees of depth 4), in ``FOLDS`` folds with the same share of either class.
    """
    n_fake, n_real = int(is_fake.sum()), int((~is_fake).sum())
    if min(n_fake, n_real) < FEWEST_FILES:
        return None
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    x = _filled(matrix)
    if not x.shape[1]:
        return np.zeros(len(x))
    fold = np.empty(len(x), np.int64)
    for rows in (np.flatnonzero(is_fake), np.flatnonzero(~is_fake)):
        fold[rng.permutation(rows)] = np.arange(len(rows)) % FOLDS
    seeds = rng.integers(0, 2**31 - 1, FOLDS)
    scores = np.empty(len(x))
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        line = LogisticRegression(max_iter=1000).fit(x[train], is_fake[train])
        trees = RandomForestClassifier(
            n_estimators=_TREES, max_depth=4, min_samples_leaf=3, random_state=int(seeds[k])
        ).fit(x[train], is_fake[train])
        scores[test] = 0.5 * (line.predict_proba(x[test])[:, 1] + trees.predict_proba(x[test])[:, 1])
    return scores


def _filled(matrix: FloatArray) -> FloatArray:
    """Standardised columns that vary, with their median for what is missing, and a column that says so.

    Labels play no part in it.
    """
    missing = ~np.isfinite(matrix)
    known = np.where(missing, np.nan, matrix)
    empty = missing.all(axis=0)
    medians = np.zeros(matrix.shape[1])
    if not empty.all():
        medians[~empty] = np.nanmedian(known[:, ~empty], axis=0)
    filled = np.where(missing, medians, known)
    told = missing[:, missing.any(axis=0) & ~empty].astype(np.float64)
    x = np.concatenate([filled, told], axis=1)
    varying = np.ptp(x, axis=0) > 0.0 if len(x) else np.zeros(x.shape[1], np.bool_)
    x = x[:, varying]
    return np.asarray((x - x.mean(axis=0)) / x.std(axis=0), np.float64)
