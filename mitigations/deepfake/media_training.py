"""Training of detectors of synthetic images and speech on files.

``detector = train_detector("image", files, labels, kinds, TrainingOptions(), np.random.default_rng(0))``. ``files``:
paths. ``labels``: the class of each, two names such as ``real`` and ``fake``. ``kinds``: the generator of a synthetic
file, the source or speaker of a real one, None where that is not known. A caller that leaves unreadable files out does
it in two steps, :func:`read_media` and :func:`fit_detector` with the labels and kinds of the ``rows`` that were read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from auditor.core.errors import DataError, some_of
from auditor.core.files import printable_name, read_regular
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audio import decode, fit_recording, sampling_rate_of
from auditor.data.images_and_video import decode_as, open_image
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.loading.auxiliary_models import EncoderFile, probe_of, read_encoder
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import Medium
from auditor.models.networks.detector_networks import FrequencyDetector, SpeechDetector
from auditor.models.networks.encoders import EncoderProbe
from auditor.models.networks.media_features import SMALLEST
from mitigations.deepfake.detector_fitting import (
    Kinds,
    LinearLearner,
    calibrate,
    classes_of,
    cross_validate,
    fit_head,
    make_card,
)

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SIDE = 256
LOWEST_RATE, HIGHEST_RATE = 4_000, 16_000
_CHANCE = 0.5
_MOST_BLUR = 3.0
_QUALITIES = (30, 100)
_LEAST_SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of the training of a detector.

    ``encoder``: a transformers folder or an ONNX file, under a linear head. Without one: of images spectrum, block DCT
    and residual statistics, of speech cepstra, under logistic regression. ``fake``: the name of the synthetic class,
    where it cannot be told. ``error_rate``: of the conformal answers.

    Of images, ``size``: side in pixels of the middle that is looked at; None takes the shorter side of the smallest
    file, a multiple of 8, at most 256. ``augment``: train on every picture a
    second time, resized, blurred and compressed at random (:func:`augmented`). Of speech, ``seconds``: of the beginning
    of each recording, at the lowest sampling rate of the files, at most 16,000 hertz, so that no class is known by its
    empty upper band.
    """

    encoder: str | None = None
    size: int | None = None
    augment: bool = True
    seconds: float = 3.0
    fake: str | None = None
    error_rate: float = 0.05
    device: str = "cpu"


@dataclass(frozen=True, eq=False, kw_only=True)
class Media:
    """Training data of a detector.

    ``rows`` (n,): the places of the readable files among all; ``problems``: a sentence for each of the others.
    ``preprocessing``: how a detector of them reads a file. ``features`` (n, d); ``changed``: those of the same pictures
    augmented, to train on and for nothing else.
    """

    rows: IntArray
    problems: tuple[str, ...]
    preprocessing: ImagePreprocessing | AudioPreprocessing
    features: FloatArray
    changed: FloatArray | None = None
    encoder: EncoderFile | None = None


def train_detector(
    medium: Medium,
    files: Sequence[Path],
    labels: Sequence[str],
    kinds: Kinds,
    options: TrainingOptions,
    rng: np.random.Generator,
) -> DeepfakeDetector:
    """A calibrated detector, with its known error rates on its card.

    Raises DataError naming files that cannot be read or for too few of a class, UsageError where the labels are not two
    classes of which one is synthetic, MissingExtraError without Pillow, PyAV or what the encoder takes.
    """
    classes_of(labels, options.fake)
    media = read_media(medium, files, options, rng.spawn(1)[0])
    if media.problems:
        raise DataError(
            f"{len(media.problems):,} of {len(files):,} files cannot be trained on: mend or remove them. "
            f"{some_of(media.problems)}"
        )
    return fit_detector(media, labels, kinds, options, rng)


# ---- reading -------------------------------------------------------------------------------------------------------


def read_media(
    medium: Medium,
    files: Sequence[Path],
    options: TrainingOptions,
    rng: np.random.Generator | None = None,
    on_file: Callable[[Path], None] = lambda _: None,
) -> Media:
    """The readable files, as features, and the errors of the others.

    ``rng``: of the augmentation, without which there is none. ``on_file`` is told which file is about to be read.
    """
    encoder = None
    if options.encoder is not None:
        encoder = read_encoder(options.encoder, seconds=options.seconds if medium == "speech" else None)

    def content(file: Path) -> bytes:
        on_file(file)
        noun = "image" if medium == "image" else "recording"
        return read_regular(Path(os.path.realpath(file)), f"The {noun} {printable_name(file.name)!r}")

    wanted = _preprocessing(medium, encoder, options, lambda highest, of: _lowest(files, highest, of, content))
    network = _network(wanted, encoder, 1)[0].to(options.device)

    def features(rows: list[npt.NDArray[Any]]) -> FloatArray:
        with torch.no_grad():
            x = torch.from_numpy(wanted.encode(np.stack(rows))).to(options.device)
            return np.asarray(network.features(x).double().cpu().numpy())

    augments = rng if options.augment and medium == "image" else None
    kept, problems, parts, changed = [], [], [], []
    batch: list[npt.NDArray[Any]] = []
    for i, file in enumerate(files):
        try:
            batch.append(_decoded(content(file), file.name, wanted))
            kept.append(i)
        except DataError as error:
            problems.append(str(error))
        if batch and (len(batch) == _rows_at_once(wanted, encoder) or i == len(files) - 1):
            parts.append(features(batch))
            if augments is not None:
                changed.append(features(list(augmented(np.stack(batch), augments))))
            batch = []
    return Media(
        rows=np.asarray(kept, np.int64),
        problems=tuple(problems),
        preprocessing=wanted,
        features=np.concatenate(parts) if parts else np.empty((0, 0)),
        changed=np.concatenate(changed) if changed else None,
        encoder=encoder,
    )


def _decoded(content: bytes, name: str, wanted: ImagePreprocessing | AudioPreprocessing) -> npt.NDArray[Any]:
    if isinstance(wanted, ImagePreprocessing):
        return decode_as(content, name, wanted)
    return fit_recording(decode(content, name, seconds=wanted.samples / wanted.sampling_rate + 0.1), wanted)


def _preprocessing(
    medium: Medium,
    encoder: EncoderFile | None,
    options: TrainingOptions,
    lowest: Callable[[int, Callable[[bytes], int]], int],
) -> ImagePreprocessing | AudioPreprocessing:
    if encoder is not None:
        return encoder.preprocessing
    if medium == "speech":
        rate = max(lowest(HIGHEST_RATE, lambda content: sampling_rate_of(content, "")), LOWEST_RATE)
        return AudioPreprocessing(sampling_rate=rate, samples=max(256, round(options.seconds * rate)))
    side = options.size
    if side is None:
        side = lowest(LARGEST_SIDE, lambda content: min(open_image(content).size))
        side = max(side // 8 * 8, min(side, SMALLEST))
    if side < SMALLEST:
        raise DataError(f"Images of {side} pixels are too small for a detector: it takes at least {SMALLEST}.")
    return ImagePreprocessing(size=(side, side), fit="crop")


def _lowest(files: Sequence[Path], highest: int, of: Callable[[bytes], int], content: Callable[[Path], bytes]) -> int:
    """What every readable file has at least, up to ``highest``: no class is told by it."""
    lowest = highest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            try:
                lowest = min(lowest, of(content(file)))
            except Exception:  # Pillow's dozen types; the file is named where it is decoded
                continue
    return lowest


def _rows_at_once(wanted: ImagePreprocessing | AudioPreprocessing, encoder: EncoderFile | None) -> int:
    if isinstance(wanted, ImagePreprocessing):
        return 32
    # An encoder of sound keeps hundreds of times its input.
    return 256 if encoder is None else 8


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
        for size in (small, picture.size):
            picture = picture.resize(size, PIL.Image.Resampling.BILINEAR)
    if blurred:
        picture = picture.filter(PIL.ImageFilter.GaussianBlur(radius))
    if compressed:
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        picture = PIL.Image.open(file).convert("RGB")
    return picture


# ---- fitting -------------------------------------------------------------------------------------------------------


def fit_detector(
    media: Media, labels: Sequence[str], kinds: Kinds, options: TrainingOptions, rng: np.random.Generator
) -> DeepfakeDetector:
    """Like :func:`train_detector`, for files already read; labels and kinds are those of its rows."""
    classes, fake = classes_of(labels, options.fake)
    is_fake = np.asarray([label == classes[fake] for label in labels], bool)
    found = cross_validate(is_fake, kinds, LinearLearner(media.features, is_fake, media.changed), rng)
    network, args, name = _network(media.preprocessing, media.encoder, fake)
    network.head = fit_head(media.features, is_fake, fake=fake, changed_features=media.changed)
    calibrate(network.head.calibration, found)
    medium: Medium = "image" if isinstance(media.preprocessing, ImagePreprocessing) else "speech"
    return DeepfakeDetector(
        network.eval(),
        card=make_card(medium, fake, found, error_rate=options.error_rate, notes=tuple(_notes(media))),
        classes=classes,
        preprocessing=media.preprocessing,
        architecture={"name": name, "args": args},
        device=options.device,
        batch_rows=_rows_at_once(media.preprocessing, media.encoder),
    )


def _network(
    wanted: ImagePreprocessing | AudioPreprocessing, encoder: EncoderFile | None, fake: int
) -> tuple[FrequencyDetector | SpeechDetector | EncoderProbe, dict[str, Any], str]:
    """The network before its head is fitted, its arguments, and its name."""
    if encoder is not None:
        return *probe_of(encoder, fake), "encoder_probe"
    args: dict[str, Any] = {"fake": fake}
    if isinstance(wanted, ImagePreprocessing):
        args |= {"size": wanted.size[0]}
        return FrequencyDetector(**args), args, "frequency_detector"
    args |= {"sampling_rate": wanted.sampling_rate}
    return SpeechDetector(**args), args, "speech_lfcc"


def _notes(media: Media) -> Iterator[str]:
    wanted, encoder = media.preprocessing, media.encoder
    if isinstance(wanted, ImagePreprocessing):
        height, width = wanted.size
        if encoder is not None:
            yield f"A linear head on a frozen encoder; each picture is resized to {height} x {width} pixels."
        else:
            yield (
                "Radial spectrum, block DCT and residual statistics under logistic regression, of the middle "
                f"{height} x {width} pixels of each picture: traces of upscaling and saving, which compression takes "
                "away."
            )
    else:
        yield (
            f"{'Cepstra (LFCC)' if encoder is None else 'The features of a frozen encoder'} under logistic "
            f"regression; recordings are resampled to {wanted.sampling_rate:,} hertz, and their first "
            f"{wanted.samples / wanted.sampling_rate:g} seconds are used."
        )
    yield from () if encoder is None else encoder.notes
    if media.changed is not None:
        yield "It was trained on every picture a second time, resized, blurred and compressed at random."
