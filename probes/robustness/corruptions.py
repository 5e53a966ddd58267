"""Natural corruptions of images and sound (noise, blur, compression, light), and accuracy under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.core.errors import MissingExtraError
from auditor.core.rows import BoolArray, IntArray, Rows
from auditor.data.images_and_video import need_pillow
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from auditor.statistics.values import bounded_mean
from probes.deepfake.degradations import changed_picture
from probes.robustness.robustness_by_group import means_by_group

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

Pixels = npt.NDArray[np.uint8]
SEVERITIES = (1, 2, 3)


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption, and its ``levels`` at the severities 1, 2 and 3, as the change named ``change`` of
    :func:`~probes.deepfake.degradations.changed_picture`.

    ``of_side``: whether they are shares of the picture's shorter side, and not what that function takes.
    """

    name: str
    change: str
    levels: tuple[float, float, float]
    of_side: bool = False


# Within the five severities that Hendrycks and Dietterich give for pictures of 32 or of 224 pixels; their blurs follow
# the side, from 0.4 to 1 pixel of 32, and from 1 to 6 of 224.
CORRUPTIONS = (
    Corruption("gaussian_noise", "noise", (0.04, 0.08, 0.12)),
    Corruption("gaussian_blur", "blur", (0.01, 0.016, 0.025), of_side=True),
    Corruption("jpeg", "jpeg", (60, 30, 15)),
    Corruption("brightness", "brightness", (0.1, 0.2, 0.3)),
    Corruption("contrast", "contrast", (0.7, 0.5, 0.3)),
    Corruption("pixelate", "pixelate", (0.75, 0.5, 0.33)),
)


def corrupted(X: Pixels, rng: np.random.Generator) -> Iterator[Pixels]:
    """(6 kinds, 3 severities) corrupted copies of pictures, kind by kind, each as X (n, height, width, channels).

    One, three or four channels; of four the last, which is transparency, stays. The severities of one kind share each
    picture's draws.
    """
    seeds = rng.integers(0, 2**63 - 1, (len(X), len(CORRUPTIONS)))
    for k, kind in enumerate(CORRUPTIONS):
        for level in kind.levels:
            copies = [_corrupt_row(row, kind, level, int(seed)) for row, seed in zip(X, seeds[:, k], strict=True)]
            yield np.stack(copies) if copies else X


def _corrupt_row(row: Pixels, kind: Corruption, level: float, seed: int) -> Pixels:
    import PIL.Image

    channels = row.shape[-1]
    picture = PIL.Image.fromarray(row[..., 0] if channels == 1 else row[..., :3]).convert("RGB")
    level = level * min(picture.size) if kind.of_side else level
    changed = changed_picture(picture, kind.change, level, np.random.default_rng(seed))
    if channels == 1:
        return np.asarray(changed.convert("L"), np.uint8)[..., None]
    return np.concatenate([np.asarray(changed, np.uint8), row[..., 3:]], axis=-1)


def image_noise(X: Pixels, z: npt.NDArray[np.float32], level: float) -> Pixels:
    """``x + level * 255 * z`` per channel of each pixel, rounded and kept within [0, 255]; X, z (n, h, w, c)."""
    return np.clip(np.round(X + np.float32(255.0 * level) * z), 0, 255).astype(np.uint8)


def sound_noise(X: npt.NDArray[np.int16], z: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.int16]:
    """``x + level * rms(x) * z`` of each recording, rounded and kept within 16 bits; X, z (n, samples).

    A level of 0.1 is a signal-to-noise ratio of 20 dB.
    """
    loud = np.sqrt(np.mean(np.square(X.astype(np.float32)), axis=1, keepdims=True))
    return np.asarray(np.clip(np.round(X + np.float32(level) * loud * z), -32768, 32767), np.int16)


METHOD = "corruption"
# Images of which all copies are made before the model is asked.
_IMAGES_AT_ONCE = 16
_SHAPE = len(CORRUPTIONS), len(SEVERITIES)


def can_be_corrupted(X: Rows) -> bool:
    """Whether these are images with one, three or four channels."""
    return isinstance(X, np.ndarray) and X.ndim == 4 and X.dtype == np.uint8 and X.shape[-1] in (1, 3, 4)


def under_corruption(
    model: AuditedModel, sample: AuditData, clean: IntArray, rng: np.random.Generator
) -> list[Measurement]:
    """Decisions on corrupted images, with numbers as in :class:`~probes.robustness.robustness.Robustness`.

    The 18 copies of an image are not independent of each other, so the mean over all is one over images: of the share
    of an image's copies that are decided rightly. clean (n,) is what is decided on the images as they are.
    """
    y = sample.y_true
    labelled = None if y is None or not (y >= 0).any() else y >= 0
    try:
        need_pillow()
        decisions = _decisions(model, sample, rng)
    except MissingExtraError as error:
        return _undefined(Undefined(reason=str(error), inapplicable=True), len(sample), labelled is not None)
    except Exception as error:  # whatever a foreign model raises on such images is what was to be found out
        reason = " ".join(f"the model fails on corrupted images: {type(error).__name__}: {error}".split())[:300]
        return _undefined(Undefined(reason=reason, failed=True), len(sample), labelled is not None)
    flipped = decisions != clean
    found = []
    if y is not None and labelled is not None:
        right = (decisions == y)[:, :, labelled]
        found += [_mean("accuracy", right, 1.0), *_kinds("accuracy", right, 1.0)]
        shares = (decisions == y).mean(axis=(0, 1))
        found += means_by_group("accuracy", METHOD, shares, labelled, sample, clean, model.classes, ideal=1.0)
    found.append(_mean("flip_rate", flipped, 0.0))
    found += _kinds("flip_rate", flipped, 0.0) if labelled is None else []
    everyone = np.ones(len(clean), np.bool_)
    shares = flipped.mean(axis=(0, 1))
    return found + means_by_group("flip_rate", METHOD, shares, everyone, sample, clean, model.classes, ideal=0.0)


def _decisions(model: AuditedModel, sample: AuditData, rng: np.random.Generator) -> IntArray:
    """(n_kinds, n_severities, n) what is decided on the copies."""
    X = np.asarray(sample.X)
    found = np.empty((*_SHAPE, len(X)), np.int64)
    for start in range(0, len(X), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        for i, copies in enumerate(corrupted(X[part], rng)):
            kind, severity = divmod(i, len(SEVERITIES))
            found[kind, severity, part] = model.decide(model.predict_proba(copies), sample.positive, copies)
    return found


def _mean(rate: str, hits: BoolArray, ideal: float) -> Measurement:
    """The mean over images of the share of each one's copies; hits (n_kinds, n_severities, n)."""
    n = hits.shape[2]
    of = {kind.name: float(share) for kind, share in zip(CORRUPTIONS, hits.mean(axis=(1, 2)), strict=True)} if n else {}
    worst = (min if ideal == 1.0 else max)(of, key=lambda name: of[name]) if of else ""
    return Measurement(
        metric=f"{rate}_under_{METHOD}",
        method=METHOD,
        estimate=bounded_mean(hits.mean(axis=(0, 1)), low=0.0, high=1.0),
        n_samples=n,
        ideal=ideal,
        detail=f"mean over {_SHAPE[0]} corruptions at {_SHAPE[1]} severities; worst: {worst}, {of[worst]:.3f}"
        if of
        else "",
    )


def _kinds(rate: str, hits: BoolArray, ideal: float) -> list[Measurement]:
    n = hits.shape[2]
    return [
        Measurement(
            metric=f"{rate}_under_{kind.name}",
            method=METHOD,
            estimate=Proportion(successes=int(hits[k, s].sum()), n=n),
            n_samples=n,
            ideal=ideal,
            at={"severity": float(severity)},
        )
        for k, kind in enumerate(CORRUPTIONS)
        for s, severity in enumerate(SEVERITIES)
    ]


def _undefined(estimate: AnyEstimate, n: int, labelled: bool) -> list[Measurement]:
    rates: Sequence[tuple[str, float]] = [*([("accuracy", 1.0)] if labelled else []), ("flip_rate", 0.0)]
    return [
        Measurement(metric=f"{rate}_under_{METHOD}", method=METHOD, estimate=estimate, n_samples=n, ideal=ideal)
        for rate, ideal in rates
    ]
