"""Training of a detector of synthetic images on files, and its evaluation on unseen kinds.

``detector = train_image_detector(files, labels, kinds, ImageOptions(), np.random.default_rng(0))``. ``files``: paths.
``labels``: the class of each, two names such as ``real`` and ``fake``. ``kinds``: the generator of a synthetic image,
the source of a real one, None where that is not known. A caller that leaves unreadable files out does it in two
steps: ``read_images(files, options, rng)``, whose ``rows`` say which were read and whose ``problems`` what is wrong
with the others, and ``fit_image_detector(images, labels, kinds, options, rng)`` with those rows' labels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auditor.core.errors import DataError
from auditor.core.files import printable_name, read_regular
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.images_and_video import decode_as, open_image
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.auxiliary_models import EncoderFile, probe_of, read_encoder
from auditor.models.detector import DeepfakeDetector, KnownRate
from auditor.models.networks.detector_networks import FrequencyDetector, levels
from auditor.models.networks.encoders import EncoderProbe
from auditor.models.networks.media_features import SMALLEST, image_features
from mitigations.deepfake.detector_fitting import (
    CrossValidation,
    LinearLearner,
    answers_to_unseen,
    calibrate,
    classes_of,
    cross_validate,
    figures,
    fit_head,
    make_card,
    refuse_unreadable,
)
from mitigations.deepfake.fit_novelty import NOVELTY_LEVEL, Kinds, fit_novelty

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SIDE = 256
FACE_SIDE = 128
MOST_LEFT_OUT = 10
BATCH_ROWS = 32
_READ_AT_ONCE = 32
_CHANCE = 0.5
_MOST_BLUR = 3.0
_QUALITIES = (30, 100)
_LEAST_SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Options of the training of an image detector.

    ``encoder``: a transformers folder or an ONNX file, under a linear head. Without one: spectrum, block DCT and
    residual statistics under logistic regression. ``size``: side in pixels of the middle that is looked at; None takes
    the shorter side of the smallest file, a multiple of 8, at most 256. ``faces``: look at the largest face alone.
    ``fake``: the name of the synthetic class, where it cannot be told.
    ``error_rate``: of the conformal answers. ``supported``: the share of files of known kinds that the rule for novelty
    lets through. ``answers``: measure as well how whole detectors answer about each synthetic kind that they have never
    seen. ``augment``: train on every picture a second time, resized, blurred and compressed at random
    (:func:`augmented`).
    """

    encoder: str | None = None
    size: int | None = None
    faces: bool = False
    fake: str | None = None
    error_rate: float = 0.05
    supported: float = NOVELTY_LEVEL
    answers: bool = True
    augment: bool = True
    device: str = "cpu"


@dataclass(frozen=True, eq=False, kw_only=True)
class Images:
    """Training data of a detector.

    ``rows`` (n,): the places of the readable files among all; ``problems``: a sentence for each of the others.
    ``preprocessing``: how a detector of them reads a file.

    ``features`` (n, d): of the encoder, or the hand-made ones; of the latter ``halved`` are those of the pictures at
    half their size, else without columns. ``changed``: features of the same pictures augmented, to train on and for
    nothing else; without columns where that is not asked for.
    """

    rows: IntArray
    problems: tuple[str, ...]
    preprocessing: ImagePreprocessing
    features: FloatArray
    halved: FloatArray
    changed: FloatArray
    encoder: EncoderFile | None = None


def train_image_detector(
    files: Sequence[Path], labels: Sequence[str], kinds: Kinds, options: ImageOptions, rng: np.random.Generator
) -> DeepfakeDetector:
    """A calibrated detector of images, with its known error rates on its card.

    Raises DataError naming files that cannot be read or for too few of a class, UsageError where the labels are not two
    classes of which one is synthetic, MissingExtraError without Pillow or what the encoder takes.
    """
    classes_of(labels, options.fake)
    images = read_images(files, options, rng.spawn(1)[0])
    refuse_unreadable(images.problems, len(files))
    return fit_image_detector(images, labels, kinds, options, rng)


# ---- reading -------------------------------------------------------------------------------------------------------


def read_images(files: Sequence[Path], options: ImageOptions, rng: np.random.Generator | None = None) -> Images:
    """The readable files, as features, and the errors of the others.

    ``rng``: of the augmentation, without which there is none.
    """
    encoder = None
    if options.encoder is not None:
        encoder = read_encoder(options.encoder)
        assert isinstance(encoder.preprocessing, ImagePreprocessing)
        preprocessing = encoder.preprocessing.model_copy(update={"faces": options.faces})
    else:
        side = options.size or (FACE_SIDE if options.faces else _common_side(files))
        if side < SMALLEST:
            raise DataError(f"Images of {side} pixels are too small for a detector: it takes at least {SMALLEST}.")
        preprocessing = ImagePreprocessing(size=(side, side), fit="crop", faces=options.faces)
    empty = _frozen(preprocessing, encoder).to(options.device)
    rows: list[int] = []
    problems: list[str] = []
    features, halved, changed = _Parts(), _Parts(), _Parts()

    def encoded(batch: npt.NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(preprocessing.encode(batch)).to(options.device)

    for places, batch in _decoded(files, preprocessing, problems):
        rows += places
        with torch.no_grad():
            x = encoded(batch)
            features.add(empty.features(x))
            if options.augment and rng is not None:
                changed.add(empty.features(encoded(augmented(batch, rng))))
            if encoder is None and preprocessing.size[0] >= 2 * SMALLEST:
                halved.add(image_features(_halved(levels(x))))
    return Images(
        rows=np.asarray(rows, np.int64),
        problems=tuple(problems),
        preprocessing=preprocessing,
        features=features.whole(len(rows)),
        halved=halved.whole(len(rows)),
        changed=changed.whole(len(rows)),
        encoder=encoder,
    )


class _Parts(list[FloatArray]):
    """Features of batches, that of all of them one below the other."""

    def add(self, features: Tensor) -> None:
        self.append(features.double().cpu().numpy())

    def whole(self, n: int) -> FloatArray:
        """(n, d), without columns where nothing was added."""
        return np.concatenate(self) if self else np.empty((n, 0))


def _halved(images: Tensor) -> Tensor:
    size = [side // 2 for side in images.shape[2:]]
    return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True).round()


def _frozen(preprocessing: ImagePreprocessing, encoder: EncoderFile | None) -> FrequencyDetector | EncoderProbe:
    """A network that is used for its features alone."""
    return FrequencyDetector(preprocessing.size[0], 1) if encoder is None else probe_of(encoder, 1, 1)[0]


def _decoded(
    files: Sequence[Path], preprocessing: ImagePreprocessing, problems: list[str]
) -> Iterator[tuple[list[int], npt.NDArray[np.uint8]]]:
    places: list[int] = []
    batch: list[npt.NDArray[np.uint8]] = []
    for i, file in enumerate(files):
        try:
            batch.append(decode_as(_content(file), file.name, preprocessing))
            places.append(i)
        except DataError as error:
            problems.append(str(error))
        if len(batch) == _READ_AT_ONCE or (batch and i == len(files) - 1):
            yield places, np.stack(batch)
            places, batch = [], []


def _content(file: Path) -> bytes:
    return read_regular(Path(os.path.realpath(file)), f"The image {printable_name(file.name)!r}")


def _common_side(files: Sequence[Path]) -> int:
    """The largest multiple of 8 that every readable file covers, at most LARGEST_SIDE: no file's size shows."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        return LARGEST_SIDE  # which is said where the first file is decoded
    side = LARGEST_SIDE
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with open_image(_content(file)) as picture:
                    side = min(side, *picture.size)
        except Exception:  # Pillow's dozen types; the file is named where it is decoded
            continue
    return max(side // 8 * 8, min(side, SMALLEST))


def augmented(pictures: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """(n, height, width, 3) images, each resized, blurred and compressed with a probability of one half each.

    Resized to a share of 0.5 to 1 and back, bilinearly; blurred by a Gaussian of a radius of 0 to 3 pixels; compressed
    as JPEG at a quality of 30 to 100; all uniform. Pictures are changed as a detector takes them: one that is cut out
    of the middle looks as if the whole had been changed, since it lies on the grid of JPEG's blocks. Source: Wang et
    al., CNN-generated images are surprisingly easy to spot... for now, CVPR 2020 (Blur+JPEG 0.5), there without
    resizing.
    """
    import PIL.Image

    return np.stack([np.asarray(_degrade(PIL.Image.fromarray(picture), rng), np.uint8) for picture in pictures])


def _degrade(picture: Image, rng: np.random.Generator) -> Image:
    import PIL.Image
    import PIL.ImageFilter

    # All are drawn whether they are used or not: one picture's luck does not move the next one's.
    resized, blurred, compressed = rng.random(3) < _CHANCE
    scale, radius = rng.uniform(_LEAST_SCALE, 1.0), rng.uniform(0.0, _MOST_BLUR)
    quality = int(rng.integers(_QUALITIES[0], _QUALITIES[1] + 1))
    if resized:
        small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(small, PIL.Image.Resampling.BILINEAR).resize(
            picture.size, PIL.Image.Resampling.BILINEAR
        )
    if blurred:
        picture = picture.filter(PIL.ImageFilter.GaussianBlur(radius))
    if compressed:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = PIL.Image.open(file).convert("RGB")
    return picture


# ---- fitting -------------------------------------------------------------------------------------------------------


def fit_image_detector(
    images: Images, labels: Sequence[str], kinds: Kinds, options: ImageOptions, rng: np.random.Generator
) -> DeepfakeDetector:
    """Like :func:`train_image_detector`, for images already read; labels and kinds are those of its rows."""
    classes, fake = classes_of(labels, options.fake)
    is_fake = np.asarray([label == classes[fake] for label in labels], bool)
    seed = int(rng.integers(2**31))
    learner = LinearLearner(images.features, is_fake, kinds, within=options.supported, changed=images.changed)
    found = cross_validate(is_fake, kinds, learner, np.random.default_rng(seed))
    network, args = _network(images, is_fake, kinds, fake, options.supported)
    calibrate(network.head.calibration, found)
    rates: tuple[KnownRate, ...] = ()
    if (
        options.answers
        and len({k for k, f in zip(kinds, is_fake, strict=True) if f and k is not None}) <= MOST_LEFT_OUT
    ):
        rates = answers_to_unseen(
            is_fake,
            kinds,
            learner,
            np.random.default_rng([seed, 1]),
            error_rate=options.error_rate,
            novelty_level=options.supported,
        )
    height, width = images.preprocessing.size
    notes = [
        f"A linear head on a frozen encoder; each picture is resized to {height} x {width} pixels."
        if images.encoder is not None
        else "Radial spectrum, block DCT and residual statistics under logistic regression, of the middle "
        f"{height} x {width} pixels of each picture: traces of upscaling and saving, which compression takes away.",
        *(images.encoder.notes if images.encoder is not None else ()),
    ]
    if options.faces:
        notes.append("Only the largest face of a picture is looked at; whether that helps was not measured.")
    if images.changed.size:
        notes.append("It was trained on every picture a second time, resized, blurred and compressed at random.")
    notes += _half_size(images, found, is_fake, kinds, seed)
    if not rates:
        notes.append("How whole detectors answer about generators that they have never seen was not measured.")
    card = make_card(
        "image",
        fake,
        found,
        error_rate=options.error_rate,
        novelty_level=options.supported,
        notes=notes,
        more_rates=rates,
    )
    return DeepfakeDetector(
        network,
        card=card,
        classes=classes,
        preprocessing=images.preprocessing,
        architecture={"name": "frequency_detector" if images.encoder is None else "encoder_probe", "args": args},
        device=options.device,
        batch_rows=BATCH_ROWS,
    )


def _network(
    images: Images, is_fake: BoolArray, kinds: Kinds, fake: int, supported: float
) -> tuple[FrequencyDetector | EncoderProbe, dict[str, Any]]:
    """The network with its head and its rule for novelty, not calibrated yet, and its arguments."""
    rule = fit_novelty(images.features, is_fake, kinds, supported)
    network: FrequencyDetector | EncoderProbe
    if images.encoder is None:
        args = {"n_groups": len(rule.means), "fake": fake, "size": images.preprocessing.size[0]}
        network = FrequencyDetector(**args)
    else:
        network, args = probe_of(images.encoder, len(rule.means), fake)
    network.rule = rule
    network.head = fit_head(images.features, is_fake, fake=fake, changed_features=images.changed)
    return network, args


def _half_size(images: Images, validation: CrossValidation, is_fake: BoolArray, kinds: Kinds, seed: int) -> list[str]:
    """What is left of hand-made features where the traces of resizing and saving are averaged away."""
    if not images.halved.size:
        return []
    learner = LinearLearner(images.halved, is_fake, kinds)
    half = cross_validate(is_fake, kinds, learner, np.random.default_rng(seed), crossed=False)
    before, after = (figures(s[is_fake], s[~is_fake])["auc"] for s in (validation.seen_scores, half.seen_scores))
    low, high = after.interval(0.95)
    return [
        f"Its AUC on kinds that it knows is {before.value:.2f}. Fitted anew to the same pictures at half their size, "
        f"it is {after.value:.2f} (95 % interval {low:.2f} to {high:.2f}): what is lost may be traces of how the files "
        "were resized and saved, not of how the pictures were made."
    ]
