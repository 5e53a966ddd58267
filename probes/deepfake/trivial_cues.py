"""Trivial cues: whether a detector judges a file's content or its container (size, compression, metadata).

Files are normalised for the comparison: decoded, cropped and encoded in one way, so that only their content differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.audio import resample
from auditor.data.images_and_video import need_pillow
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.detection import area_difference
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import area_under_curve
from probes.deepfake.detector_files import (
    Pixels,
    Subject,
    as_jpeg,
    as_row,
    content,
    labelled,
    make_measurement,
    opened_picture,
    picture_of,
    sample_files,
    scores_of,
    taken_by,
    upright,
)
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from PIL.Image import Image

    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import ImagePreprocessing
    from auditor.models.audited_model import AuditedModel

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
    and a small forest (50 trees of depth 4), in ``FOLDS`` folds with the same share of either class. Cues that are
    missing are replaced by their median, and that they are is a cue.
    """
    if min(int(is_fake.sum()), int((~is_fake).sum())) < FEWEST_FILES:
        return None
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.preprocessing import StandardScaler

    known = np.where(np.isfinite(matrix), matrix, np.nan)
    varying = known[:, [len(np.unique(column)) > 1 for column in known.T]]
    if not varying.shape[1]:
        return np.zeros(len(matrix))
    x = StandardScaler().fit_transform(SimpleImputer(strategy="median", add_indicator=True).fit_transform(varying))
    seed = int(rng.integers(0, 2**31 - 1))
    trees = RandomForestClassifier(n_estimators=_TREES, max_depth=4, min_samples_leaf=3, random_state=seed)
    rules = VotingClassifier([("line", LogisticRegression(max_iter=1000)), ("trees", trees)], voting="soft")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    return np.asarray(cross_val_predict(rules, x, is_fake, cv=folds, method="predict_proba")[:, 1], np.float64)


# Loudness to which all sound is brought, root mean square in decibels of full scale (ITU-T P.56 aims at -26).
LOUDNESS = -26.0
_LOWEST_SIDE = 16


def common_side(data: AuditData) -> int:
    """The shortest side, in pixels, of any image of the data; at least 16."""
    if data.files is None:
        return max(int(min(np.shape(data.X)[1:3])), _LOWEST_SIDE)
    sides = [min(opened_picture(content(data, i), str(f)).size) for i, f in enumerate(data.files)]
    return max(min(sides, default=_LOWEST_SIDE), _LOWEST_SIDE)


def alike_picture(
    data: AuditData, i: int, side: int, quality: int, preprocessing: ImagePreprocessing | None = None
) -> Pixels:
    """Row i with its image's shorter side resized to ``side``, centre-cropped, and saved as JPEG.

    ``preprocessing``: how the model takes files, see :func:`~probes.deepfake.detector_files.taken_by`.
    """
    import PIL.Image

    picture = picture_of(data, i)
    if min(picture.size) != side:
        scale = side / min(picture.size)
        size = max(side, round(picture.width * scale)), max(side, round(picture.height * scale))
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cut = picture.crop((left, top, left + side, top + side))
    return as_row(as_jpeg(cut, quality), np.asarray(data.X[i]), preprocessing)


def alike_sound(row: npt.NDArray[np.int16], rate: int | None, common_rate: int | None) -> npt.NDArray[np.int16]:
    """(samples,) of sound with silence trimmed, repeated to its length, at one loudness and one bandwidth.

    ``rate``: its sampling rate; ``common_rate``: the lowest of any file, through which all are brought, where known.
    """
    if rate is not None and common_rate is not None and common_rate < rate:
        row = np.resize(resample(resample(row, rate, common_rate), common_rate, rate)[: row.size], row.size)
    x = np.asarray(row, np.float64)
    x = x - x.mean()
    loud = np.flatnonzero(np.abs(x) >= SILENCE * np.abs(x).max())
    if loud.size and np.abs(x).max() > 0.0:
        x = np.resize(x[loud[0] : loud[-1] + 1], x.size)
    level = float(np.sqrt(np.square(x).mean()))
    scale = 32768.0 * 10.0 ** (LOUDNESS / 20.0) / level if level > 0.0 else 0.0
    return np.asarray(np.clip(np.rint(scale * x), -32768, 32767), np.int16)


class TrivialCues(BaseProbe):
    """Performance of file size, dimensions, compression, metadata, colour or loudness alone, against the detector.

    Over the labelled evaluation files, as many as ``n_samples``: ``cue_auc``, ``auc``, ``auc_drop`` and ``added_auc``.

    - ``cue_auc``: At ``{"cues": family}`` and ``{"cues": "all"}``: the cues of
      :func:`~probes.deepfake.trivial_cues.read_cues`, scored by :func:`~probes.deepfake.trivial_cues.cue_scores`;
      DeLong's interval.
    - ``auc``: At ``{"files": "as they are"}`` and ``{"files": "made alike"}``. Made alike are pictures whose shorter
      side was brought to the smallest one of all files, cut to a square and saved as JPEG of one ``quality``; sound at
      one bandwidth and one loudness, without silence at either end.

    The rule for the cues is fitted in folds, so what is estimated is what such a rule reaches with four fifths of these
    files. The size in bytes also says how much there was to compress, which is part of the content: where it is the one
    strong cue, look at the others. Making files alike leaves traces of what was done to them before, such as an earlier
    compression. Rows that were not read from files show colour, loudness and silence only.

    n_samples: files, by default 1,000. quality: of the JPEG, 1 to 95.

    Raises NotApplicableError for other models and data, or without labels; DataError for a file that has gone.

    Sources: Torralba and Efros, CVPR 2011 (dataset bias); Grommelt et al., ECCV Workshops 2024, "Fake or JPEG?";
    Muller et al., ASVspoof Workshop 2021, on silence in spoofed speech; DeLong et al., Biometrics 44 (1988).
    """

    name = "trivial_cues"
    pillar = "deepfake"
    goal = "Does the detector judge what a file shows, or the container it came in?"
    citation = "Grommelt et al., ECCV Workshops 2024; Torralba and Efros, CVPR 2011"
    methods = ("cues", "made_alike")
    needs = (Need.CLASSIFIER, Need.DATA, Need.LABELS)
    questions = (AuditQuestion("container"),)
    ideal_when_same = {"auc_drop": "scores"}
    # Files of either class, and the true added AUC that is found below 0.05 with 80 % power at 5 %.
    power: ClassVar[tuple[int, float]] = (200, -0.08)
    untrusted_options = allow_untrusted("n_samples", "quality")
    metrics = define_metrics(
        """
        cue_auc: area under the ROC curve of a rule that reads file size, dimensions, compression, metadata, colour or
          loudness alone, of files it had not seen; [0, 1], ideal 0.5; at 0.8 the container tells synthetic from real in
          8 of 10 pairs, without a look at the content; Torralba and Efros, CVPR 2011
        auc: the detector's own area under the ROC curve, of files as they are and of files made alike; [0, 1], ideal 1;
          what is lost once files are made alike was read off the container; Grommelt et al., ECCV Workshops 2024
        auc_drop: AUC of the files as they are less that of the files made alike, paired by file; [-1, 1], ideal 0; at
          0.1 a tenth of the pairs were told by the container; Grommelt et al., ECCV Workshops 2024
        added_auc: auc(made alike) - max(cue_auc(all), 0.5), paired by file; [-1, 0.5], ideal 0.5; what the detector
          knows beyond what anybody reads off the container, and not above 0 it may live on the container; Grommelt et
          al., ECCV Workshops 2024
        """
    )

    def __init__(self, *, n_samples: int = 1000, quality: int = 90) -> None:
        whole_number("n_samples", n_samples, 2 * FEWEST_FILES)
        whole_number("quality", quality, 1, 95)
        self.n_samples = n_samples
        self.quality = quality

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on sampled labelled files; see the class for their definitions."""
        subject = sample_files(labelled(model, data), self.n_samples, rng)
        if subject.rows.modality == "image":
            need_pillow()
        cues = read_cues(subject.rows)
        found, of_cues = _by_family(cues, subject.is_fake, subject.rows.generator(self.name))
        alike = self._made_alike(model, subject, cues)
        fake, n = subject.is_fake, len(subject.is_fake)
        own = {"as they are": subject.scores, "made alike": alike}
        for files, scores in own.items():
            area = area_under_curve(positives=scores[fake], negatives=scores[~fake])
            found.append(_one("auc", area, n, 1.0, at={"files": files}))
        found.append(_one("auc_drop", area_difference(first=subject.scores, second=alike, positive=fake), n, 0.0))
        added: AnyEstimate = Undefined(reason=f"it takes {FEWEST_FILES} files of either class to fit a rule to cues")
        if of_cues is not None:
            added = area_difference(first=alike, second=of_cues, positive=fake, floor=0.5)
        detail = "cues: " + (", ".join(cues.families) or "none")
        if subject.rows.files is None:
            detail += "; the rows were not read from files, so nothing of their containers is known"
        headline = _one("added_auc", added, n, 0.5, detail=detail)
        return [headline, *found]

    def _made_alike(self, model: AuditedModel, subject: Subject, cues: Cues) -> FloatArray:
        from auditor.data.preprocessing import AudioPreprocessing

        rows = subject.rows
        if not len(rows):
            return np.empty(0)
        if rows.modality == "image":
            side, taken = common_side(rows), taken_by(model, rows)
            return scores_of(
                model, subject.fake, len(rows), lambda i: alike_picture(rows, i, side, self.quality, taken)
            )
        own = model.preprocessing
        rate = own.sampling_rate if isinstance(own, AudioPreprocessing) else None
        common = None if cues.sampling_rates is None else int(cues.sampling_rates.min())
        X = np.asarray(rows.X)
        return scores_of(model, subject.fake, len(rows), lambda i: alike_sound(X[i], rate, common))


def _by_family(cues: Cues, is_fake: BoolArray, rng: np.random.Generator) -> tuple[list[Measurement], FloatArray | None]:
    """The AUC of all cues and of each family, and the scores of all cues together."""
    found: list[Measurement] = []
    together: FloatArray | None = None
    families = dict(cues.families) if len(cues.families) == 1 else {}
    if len(cues.families) > 1:
        families = {"all": cues.together(), **cues.families}
    # Every family has draws of its own, so that one more cue does not change another's number.
    for (family, matrix), own in zip(families.items(), rng.spawn(len(families)), strict=True):
        scores = cue_scores(matrix, is_fake, own)
        estimate: AnyEstimate = Undefined(reason=f"there are fewer than {FEWEST_FILES} files of a class")
        if scores is not None:
            estimate = area_under_curve(positives=scores[is_fake], negatives=scores[~is_fake])
        together = scores if together is None else together
        found.append(_one("cue_auc", estimate, len(is_fake), 0.5, at={"cues": family}, method="cues"))
    return found, together


_one = partial(make_measurement, method="made_alike")
