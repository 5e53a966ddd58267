"""Training of detectors of synthetic images and speech on files, or on a folder of them.

``detector = train_detector("image", files, labels, kinds, TrainingOptions(), np.random.default_rng(0))``. ``files``:
paths. ``labels``: the class of each, two names such as ``real`` and ``fake``. ``kinds``: the generator of a synthetic
file, the source or speaker of a real one, None where that is not known. A caller that leaves unreadable files out does
it in two steps, :func:`read_media` and :func:`fit_detector` with the labels and kinds of the ``rows`` that were read.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from auditor.core.errors import DataError, UsageError, some_of
from auditor.core.files import printable_name, read_regular
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audio import decode, fit_recording, sampling_rate_of
from auditor.data.images_and_video import decode_as, open_image
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, label_name
from auditor.detection.file_kinds import IN_WORDS, kind_of
from auditor.detection.file_kinds import Medium as FileMedium
from auditor.detection.fingerprints import MOST_NEAR, fingerprints_of, repeated
from auditor.loading.auxiliary_models import EncoderFile, probe_of, read_encoder
from auditor.loading.job_specs import DetectorTrainingSpec
from auditor.loading.rows.folders import Listing, list_folder
from auditor.loading.rows.table_files import open_table
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import DIGITS, IS_FOR, MOST_TRAINED, Medium
from auditor.models.networks.detector_networks import SMALLEST, FrequencyDetector, SpeechDetector
from auditor.models.networks.encoders import EncoderProbe
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


# ---- a folder --------------------------------------------------------------------------------------------------------

_MOST_NAMED = 5
# The first is what a detector of such files is for; others can be brought to it.
_USABLE: Mapping[Medium, tuple[FileMedium, ...]] = {"image": ("image",), "speech": ("audio", "video")}
_OF_ONE_MEDIUM: Mapping[str, Medium] = {"size": "image", "seconds": "speech"}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedDetector:
    """The detector; ``notes`` on its training; ``left_out``: a sentence on each unusable file.

    ``few``: why the files are fewer than they seem, in a sentence, or "".
    """

    detector: DeepfakeDetector
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    few: str = ""


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file to train on: its ``name`` below the folder, its class, and what it is."""

    name: str
    label: str
    medium: FileMedium
    digest: str
    fingerprints: tuple[str, ...]


def train_on_folder(
    spec: DetectorTrainingSpec,
    rng: np.random.Generator,
    device: str,
    say: Callable[[str], None],
    on_file: Callable[[str], None] = lambda _: None,
) -> TrainedDetector:
    """Train the detector that a spec describes on all usable files of its folder.

    Files that cannot be read, or are of another medium, are left out and named; of identical files in one class one is
    kept. Raises DataError for a folder without exactly two classes, for identical files in both, whose labels
    contradict each other, and for too few files; UsageError where it is not clear which class is synthetic, or which
    medium is meant. ``on_file`` is told which file is about to be read, since a decoder may not return from it.
    """
    folder = Path(spec.folder)
    left_out: list[str] = []
    listing, classes = _listing(folder, left_out)
    say(f"reading {len(listing.names):,} files")
    files, notes = _distinct(folder, listing, classes, left_out, on_file)
    medium = _medium(spec.medium, files)
    left_out += [
        f"{printable_name(file.name)}: It is {IN_WORDS[file.medium]}, and this detector is for {IS_FOR[medium]}."
        for file in files
        if file.medium not in _USABLE[medium]
    ]
    files = [file for file in files if file.medium in _USABLE[medium]]
    of_kinds = _kinds(spec, files, classes[classes_of(classes, spec.fake)[1]])
    say(f"fitting a detector to {len(files):,} files, and measuring it on kinds left out")
    options = _training_options(spec, medium, device)
    paths = [folder / file.name for file in files]

    def hear(path: Path) -> None:
        on_file(printable_name(path.relative_to(folder).as_posix()))

    media = read_media(medium, paths, options, rng.spawn(1)[0], hear)
    on_file("")
    read = set(media.rows.tolist())
    unread = [file.name for i, file in enumerate(files) if i not in read]
    left_out += [f"{printable_name(name)}: {why}" for name, why in zip(unread, media.problems, strict=True)]
    files, kinds = [files[i] for i in media.rows], [of_kinds[i] for i in media.rows]
    labels = [file.label for file in files]
    detector = fit_detector(media, labels, kinds, options, rng)
    known = sorted(file.digest[:DIGITS] for file in files)[:MOST_TRAINED]
    shown_by = sorted(file.fingerprints[0] for file in files if file.fingerprints)[:MOST_TRAINED]
    card = detector.card.model_copy(
        update={
            "trained_on": tuple(known),
            "fingerprints": tuple(shown_by),
        }
    )
    scores = (("real", card.real_scores), ("synthetic", card.fake_scores))
    notes[:0] = [
        f"Too few {' and '.join(few)} files: an error rate of {card.error_rate:g} takes at least {card.fewest} of each "
        "class, so that this detector will always answer 'cannot say'."
        for few in [[name for name, own in scores if len(own) < card.fewest]]
        if few
    ]
    return TrainedDetector(
        detector=detector.with_card(card),
        notes=(*notes, *card.notes),
        left_out=tuple(left_out),
        few=_near_copies(files, medium),
    )


def _near_copies(files: Sequence[_File], medium: Medium) -> str:
    """That files of a class are near copies of each other, in a sentence; "" where at most one in twenty are."""
    said = []
    for label in dict.fromkeys(file.label for file in files):
        own = [file.fingerprints for file in files if file.label == label]
        near = repeated(own, medium)
        if near > MOST_NEAR * len(own):
            said.append(f"{near:,} of {len(own):,} files of {printable_name(label)!r}")
    if not said:
        return ""
    return (
        f"{' and '.join(said)} are near copies of another, or share one layout: files so alike lie on both sides of "
        "every measurement, so that errors are more than is stated, and more real files called fake: leave one of each."
    )


def _listing(folder: Path, left_out: list[str]) -> tuple[Listing, tuple[str, ...]]:
    if not folder.is_dir():
        raise UsageError(f"There is no folder at {str(folder)!r}.")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    classes = tuple(dict.fromkeys(label_name(name) for name in found))
    if len(classes) != 2:
        raise DataError(
            f"The folder {printable_name(folder.name)!r} has {len(classes)} sub-folders"
            f"{' (' + printable_name(', '.join(classes[:_MOST_NAMED])) + ')' if classes else ''}: a detector is "
            "trained on two, one of real files and one of synthetic ones."
        )
    return list_folder(folder, classes, left_out), classes


# ---- which files ---------------------------------------------------------------------------------------------------


def _distinct(
    folder: Path,
    listing: Listing,
    classes: tuple[str, ...],
    left_out: list[str],
    on_file: Callable[[str], None],
) -> tuple[list[_File], list[str]]:
    """The readable files, each content once, and notes. Raises DataError for a content that stands in both classes."""
    by_content: dict[str, list[_File]] = defaultdict(list)
    for name, code in zip(listing.names, listing.codes, strict=True):
        on_file(printable_name(name))
        try:
            content = read_regular(Path(os.path.realpath(folder / name)), "The file")
            if not content:
                raise DataError("It is an empty file.")
            medium = kind_of(content).medium
            if medium is None:
                raise DataError("It is no image, sound or video of a kind that can be read.")
            prints = fingerprints_of(content, name, "image" if medium == "image" else "speech")
        except DataError as error:
            left_out.append(f"{printable_name(name)}: {error}")
            continue
        digest = hashlib.sha256(content).hexdigest()
        file = _File(name=name, label=classes[int(code)], medium=medium, digest=digest, fingerprints=prints)
        by_content[digest].append(file)
    torn = [same for same in by_content.values() if len({file.label for file in same}) > 1]
    if torn:
        pairs = [" and ".join(printable_name(file.name) for file in same[:2]) for same in torn[:_MOST_NAMED]]
        more = f" And {len(torn) - _MOST_NAMED} more." if len(torn) > _MOST_NAMED else ""
        what, its, it = ("file stands", "its", "it") if len(torn) == 1 else ("files stand", "their", "them")
        raise DataError(
            f"{len(torn):,} {what} in both classes, so that {its} labels contradict each other: {'; '.join(pairs)}."
            f"{more} Remove {it} from one."
        )
    notes = list(listing.notes)
    if again := sum(len(same) - 1 for same in by_content.values()):
        have, its, was = ("file has", "its", "was") if again == 1 else ("files have", "their", "were")
        notes.append(f"{again:,} {have} the content of another file of {its} class, and {was} left out.")
    return [same[0] for same in by_content.values()], notes


def _medium(requested: str | None, files: Sequence[_File]) -> Medium:
    for medium in _USABLE:
        if requested == medium:
            return medium
    if requested is not None:
        raise UsageError(f"--medium must be image or speech, not {requested!r}.")
    counts = Counter(file.medium for file in files)
    n_images, n_recordings = counts["image"], counts["audio"] + counts["video"]
    if n_images and n_recordings:
        raise UsageError(
            f"The folder holds {n_images:,} image{'' if n_images == 1 else 's'} and {n_recordings:,} "
            f"recording{'' if n_recordings == 1 else 's'}: say "
            "which a detector is wanted for, with --medium image or --medium speech."
        )
    return "image" if n_images else "speech"


def _kinds(spec: DetectorTrainingSpec, files: Sequence[_File], fake: str) -> list[str | None]:
    """The generator of every synthetic file and the source of every real one, None where the table does not say."""
    if spec.kinds is None:
        return [None] * len(files)
    generators = _column(spec, spec.kind_column)
    sources = _column(spec, spec.source_column)
    if not any(file.name in table for table in (generators, sources) for file in files):
        raise DataError(
            f"No file of the folder stands in the column {spec.join_on!r} of {Path(spec.kinds).name}: it holds paths "
            f"below the folder, such as {printable_name(files[0].name)}."
        )
    return [(generators if file.label == fake else sources).get(file.name) for file in files]


def _column(spec: DetectorTrainingSpec, column: str | None) -> Mapping[str, str]:
    """The kind by path, of one column of the table."""
    import pyarrow as pa

    if column is None or spec.kinds is None:
        return {}
    table = open_table(spec.kinds, "table of kinds")
    wanted = list(dict.fromkeys([spec.join_on, column]))
    found = table.read(wanted, dict.fromkeys(wanted, pa.string())).to_pydict()
    kinds: dict[str, str] = {}
    for name, kind in zip(found[spec.join_on], found[column], strict=True):
        if not name:
            continue
        if name in kinds and kinds[name] != kind:
            raise DataError(f"{Path(spec.kinds).name} names two kinds of {printable_name(name)!r}: every file has one.")
        if kind and kind.strip():
            kinds[name] = label_name(kind.strip())[:200]
    return kinds


def _training_options(spec: DetectorTrainingSpec, medium: Medium, device: str) -> TrainingOptions:
    """Options that were given; UsageError for one that this medium's detectors do not have."""
    given: dict[str, Any] = {key: value for key, value in spec.options.items() if value is not None}
    known = {field.name for field in fields(TrainingOptions)}
    for key in given:
        if key not in known or _OF_ONE_MEDIUM.get(key, medium) != medium:
            raise UsageError(f"--{key.replace('_', '-')} is no option of this medium's detectors: leave it out.")
    return TrainingOptions(**given, fake=spec.fake, device=device)
