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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auditor.core.errors import DataError, UsageError
from auditor.core.files import printable_name, read_regular
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.images_and_video import FORMATS, decode_as
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.auxiliary_models import EncoderFile, read_encoder
from auditor.models.audited_model import Recipe
from auditor.models.detector import DeepfakeDetector, KnownRate
from auditor.models.networks.detector_networks import (
    FrequencyDetector,
    ImageEnsemble,
    NeighbourHead,
    ResidualCNN,
    levels,
)
from auditor.models.networks.encoders import EncoderProbe, hold, mebibytes
from auditor.models.networks.media_features import SMALLEST, image_features
from auditor.training.training_loop import PlainStep, Schedule, train
from mitigations.deepfake.cross_validation import Arrays, Learner, LearnerKind, Scorer
from mitigations.deepfake.detector_fitting import (
    CrossValidation,
    LinearLearner,
    answers_to_unseen,
    averaged,
    calibrate,
    classes_of,
    cross_validate,
    figures,
    fit_head,
    make_card,
    refuse_unreadable,
    scorer_of,
)
from mitigations.deepfake.fit_novelty import NOVELTY_LEVEL, Kinds, fit_novelty
from mitigations.deepfake.image_augmentation import augmented

Method = Literal["frequency", "cnn", "ensemble", "encoder"]
METHODS: tuple[Method, ...] = ("frequency", "cnn", "ensemble", "encoder")
LARGEST_SIDE = 256
FACE_SIDE = 128
MOST_LEFT_OUT = 10
BATCH_ROWS = 32
_BATCH = 16
_READ_AT_ONCE = 32
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Options of the training of an image detector.

    ``method``: ``frequency`` (spectrum, block DCT and residual statistics, logistic regression), ``cnn`` (a small
    network on residuals), ``ensemble`` (both) or ``encoder`` (a head on a frozen encoder); None is ``encoder`` where
    one is named, else ``frequency``. ``encoder``: a transformers folder, an ONNX file, or ``NAME:weights`` for a
    network of torchvision's; ``mean`` and ``std`` of its colours where its files do not say. ``neighbours``: 0 for a
    linear head on it, else how many nearest files of either class vote. ``size``: side in pixels of the middle that is
    looked at; None takes the shorter side of the smallest file, a multiple of 8, at most 256. ``faces``: look at the
    largest face alone. ``fake``: the name of the synthetic class, where it cannot be told. ``C``: inverse penalty of
    logistic regression. ``error_rate``: of the conformal answers. ``supported``: the share of files of known kinds that
    the rule for novelty lets through. ``answers``: measure as well how whole detectors answer about each synthetic kind
    that they have never seen. ``augment``: train on every picture a second time, resized, blurred and compressed at
    random (:func:`~mitigations.deepfake.image_augmentation.augmented`). ``epochs``, ``width``: of the ``cnn``.
    """

    method: Method | None = None
    encoder: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    neighbours: int = 0
    size: int | None = None
    faces: bool = False
    fake: str | None = None
    C: float = 1.0
    error_rate: float = 0.05
    supported: float = NOVELTY_LEVEL
    answers: bool = True
    augment: bool = True
    epochs: int = 20
    width: int = 16
    device: str = "cpu"

    @property
    def chosen_method(self) -> Method:
        """The selected method.

        Raises UsageError for one that is not known, or lacks its encoder.
        """
        method = self.method or ("frequency" if self.encoder is None else "encoder")
        if method not in METHODS:
            raise UsageError(f"The method of a detector of images is one of {', '.join(METHODS)}, not {method!r}.")
        if (method == "encoder") != (self.encoder is not None):
            raise UsageError("The method encoder takes the path of one with --encoder, and no other method does.")
        return method


@dataclass(frozen=True, eq=False, kw_only=True)
class Images:
    """Training data of a detector.

    ``rows`` (n,): the places of the readable files among all; ``problems``: a sentence for each of the others.
    ``preprocessing``: how a detector of them reads a file.

    ``features`` (n, d): of the method's frozen part; ``halved``: those of the pictures at half their size, for
    the method ``frequency``, else without columns. ``pixels`` (n, height, width, 3) uint8, for a network that trains
    on them; empty for others. ``changed``, ``changed_pixels``: of the same pictures augmented, to train on and for
    nothing else; empty where that is not asked for.
    """

    rows: IntArray
    problems: tuple[str, ...]
    preprocessing: ImagePreprocessing
    features: FloatArray
    halved: FloatArray
    pixels: npt.NDArray[np.uint8]
    changed: FloatArray
    changed_pixels: npt.NDArray[np.uint8]
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
    """The readable files, encoded for the method, and the errors of the others.

    Files are decoded once, in batches; but for the methods that train on pixels only their features are kept. ``rng``:
    of the augmentation, without which there is none.
    """
    method = options.chosen_method
    encoder = None
    if options.encoder is not None:
        encoder = read_encoder(options.encoder, mean=options.mean, std=options.std)
        preprocessing = encoder.preprocessing.model_copy(update={"faces": options.faces})
    else:
        side = options.size or (FACE_SIDE if options.faces else _common_side(files))
        if side < SMALLEST:
            raise DataError(f"Images of {side} pixels are too small for a detector: it takes at least {SMALLEST}.")
        preprocessing = ImagePreprocessing(size=(side, side), fit="crop", faces=options.faces)
    empty = None if method == "cnn" else _frozen(preprocessing, encoder).to(options.device)
    rows: list[int] = []
    problems: list[str] = []
    features, halved, changed = _Parts(), _Parts(), _Parts()
    pixels: list[npt.NDArray[np.uint8]] = []
    changed_pixels: list[npt.NDArray[np.uint8]] = []

    def encoded(batch: npt.NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(preprocessing.encode(batch)).to(options.device)

    for places, batch in _decoded(files, preprocessing, problems):
        rows += places
        others = augmented(batch, rng) if options.augment and rng is not None else batch[:0]
        if method in ("cnn", "ensemble"):
            pixels.append(batch)
            changed_pixels.append(others)
        if empty is None:
            continue
        with torch.no_grad():
            x = encoded(batch)
            features.add(empty.features(x))
            if len(others):
                changed.add(empty.features(encoded(others)))
            if method == "frequency" and preprocessing.size[0] >= 2 * SMALLEST:
                halved.add(image_features(_halved(levels(x))))
    return Images(
        rows=np.asarray(rows, np.int64),
        problems=tuple(problems),
        preprocessing=preprocessing,
        features=features.whole(len(rows)),
        halved=halved.whole(len(rows)),
        pixels=np.concatenate(pixels) if pixels else np.empty((0, *preprocessing.size, 3), np.uint8),
        changed=changed.whole(len(rows)),
        changed_pixels=np.concatenate(changed_pixels)
        if changed_pixels
        else np.empty((0, *preprocessing.size, 3), np.uint8),
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
    if encoder is None:
        return FrequencyDetector(preprocessing.size[0], 1)
    probe = EncoderProbe(encoder.form, 0, encoder.n_features, 1)
    probe.use(encoder.encoder)
    return probe


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
        import PIL.Image
    except ImportError:
        return LARGEST_SIDE  # which is said where the first file is decoded
    side = LARGEST_SIDE
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with PIL.Image.open(BytesIO(_content(file)), formats=FORMATS) as picture:
                    side = min(side, *picture.size)
        except Exception:  # Pillow's dozen types; the file is named where it is decoded
            continue
    return max(side // 8 * 8, min(side, SMALLEST))


# ---- fitting -------------------------------------------------------------------------------------------------------


def fit_image_detector(
    images: Images, labels: Sequence[str], kinds: Kinds, options: ImageOptions, rng: np.random.Generator
) -> DeepfakeDetector:
    """Like :func:`train_image_detector`, for images already read; labels and kinds are those of its rows."""
    classes, fake = classes_of(labels, options.fake)
    is_fake = np.asarray([label == classes[fake] for label in labels], bool)
    method = options.chosen_method
    seed = int(rng.integers(2**31))
    network, args, found, rates = _FITTERS[method](images, is_fake, kinds, fake, options, seed)
    how = {
        "frequency": "Radial spectrum, block DCT and residual statistics under logistic regression",
        "cnn": "A small convolutional network on residuals",
        "ensemble": "Hand-made frequency features and a small convolutional network, averaged",
        "encoder": "A head on a frozen encoder",
    }
    height, width = images.preprocessing.size
    look = "resized" if method == "encoder" else "cut out of the middle at its own resolution"
    notes = [f"{how[method]}; each picture is {height} x {width} pixels, {look}."]
    notes += images.encoder.notes if images.encoder is not None else ()
    if options.faces:
        notes.append("Only the largest face of a picture is looked at; whether that helps was not measured.")
    if images.changed.size or images.changed_pixels.size:
        notes.append("It was trained on every picture a second time, resized, blurred and compressed at random.")
    notes += _half_size(images, found, is_fake, kinds, options, seed)
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
    trained = method in ("cnn", "ensemble")
    return DeepfakeDetector(
        network,
        card=card,
        classes=classes,
        preprocessing=images.preprocessing,
        architecture={"name": NAMES[method], "args": args},
        recipe=_recipe(options, seed) if trained else None,
        device=options.device,
        batch_rows=BATCH_ROWS,
    )


def _half_size(
    images: Images, validation: CrossValidation, is_fake: BoolArray, kinds: Kinds, options: ImageOptions, seed: int
) -> list[str]:
    """What is left of hand-made features where the traces of resizing and saving are averaged away."""
    if not images.halved.size:
        return []
    learner = LinearLearner(images.halved, is_fake, kinds, C=options.C)
    half = cross_validate(is_fake, kinds, learner, np.random.default_rng(seed), crossed=False)
    before, after = (figures(s[is_fake], s[~is_fake])["auc"] for s in (validation.seen_scores, half.seen_scores))
    low, high = after.interval(0.95)
    return [
        f"Its AUC on kinds that it knows is {before.value:.2f}. Fitted anew to the same pictures at half their size, "
        f"it is {after.value:.2f} (95 % interval {low:.2f} to {high:.2f}): what is lost may be traces of how the files "
        "were resized and saved, not of how the pictures were made."
    ]


NAMES = {
    "frequency": "frequency_detector",
    "cnn": "residual_cnn",
    "ensemble": "image_ensemble",
    "encoder": "encoder_probe",
}
Fitted = tuple[nn.Module, dict[str, Any], CrossValidation, tuple[KnownRate, ...]]


def _recipe(options: ImageOptions, seed: int) -> Recipe:
    return Recipe(
        optimizer="adamw",
        learning_rate=_LEARNING_RATE,
        weight_decay=_WEIGHT_DECAY,
        epochs=options.epochs,
        batch_size=_BATCH,
        seed=seed,
    )


def _answers(
    learner: Learner, is_fake: BoolArray, kinds: Kinds, options: ImageOptions, seed: int
) -> tuple[KnownRate, ...]:
    named = {k for k, f in zip(kinds, is_fake, strict=True) if f and k is not None}
    if not options.answers or len(named) > MOST_LEFT_OUT:
        return ()
    return answers_to_unseen(
        is_fake,
        kinds,
        learner,
        np.random.default_rng([seed, 1]),
        error_rate=options.error_rate,
        novelty_level=options.supported,
    )


def _fit_frequency(
    images: Images, is_fake: BoolArray, kinds: Kinds, fake: int, options: ImageOptions, seed: int
) -> Fitted:
    learner = LinearLearner(
        images.features, is_fake, kinds, C=options.C, within=options.supported, changed=images.changed
    )
    found = cross_validate(is_fake, kinds, learner, np.random.default_rng(seed))
    network, args = _frequency_network(images, is_fake, kinds, fake, options)
    calibrate(network.head.calibration, found)
    return network, args, found, _answers(learner, is_fake, kinds, options, seed)


def _frequency_network(
    images: Images, is_fake: BoolArray, kinds: Kinds, fake: int, options: ImageOptions
) -> tuple[FrequencyDetector, dict[str, Any]]:
    rule = fit_novelty(images.features, is_fake, kinds, options.supported)
    args = {"size": images.preprocessing.size[0], "n_groups": len(rule.means), "fake": fake}
    network = FrequencyDetector(**args)
    network.rule = rule
    network.head = fit_head(images.features, is_fake, fake=fake, C=options.C, changed_features=images.changed)
    return network, args


def _fit_encoder(
    images: Images, is_fake: BoolArray, kinds: Kinds, fake: int, options: ImageOptions, seed: int
) -> Fitted:
    assert images.encoder is not None
    k, x = options.neighbours, images.features
    learner = (
        NeighbourLearner(x, is_fake, kinds, k, options.supported)
        if k
        else LinearLearner(x, is_fake, kinds, C=options.C, within=options.supported, changed=images.changed)
    )
    found = cross_validate(is_fake, kinds, learner, np.random.default_rng(seed))
    rule = fit_novelty(x, is_fake, kinds, options.supported)
    args = {
        "form": images.encoder.form,
        "n_mebibytes": mebibytes(images.encoder.content),
        "n_features": x.shape[1],
        "n_groups": len(rule.means),
        "fake": fake,
        "k": k,
        "n_real": int((~is_fake).sum()) if k else 0,
        "n_fake": int(is_fake.sum()) if k else 0,
    }
    network = EncoderProbe(**args)
    hold(network, images.encoder.content)
    network.use(images.encoder.encoder)
    network.rule = rule
    network.head = (
        _neighbours(x, is_fake, k, fake)
        if k
        else fit_head(x, is_fake, fake=fake, C=options.C, changed_features=images.changed)
    )
    calibrate(network.head.calibration, found)
    return network, args, found, _answers(learner, is_fake, kinds, options, seed)


def _neighbours(features: FloatArray, is_fake: BoolArray, k: int, fake: int = 1) -> NeighbourHead:
    if not 1 <= k <= min(is_fake.sum(), (~is_fake).sum()):
        raise UsageError(f"There are not {k} files of either class to be neighbours in every round: ask for fewer.")
    head = NeighbourHead(features.shape[1], int((~is_fake).sum()), int(is_fake.sum()), k, fake)
    head.real_files.copy_(torch.from_numpy(features[~is_fake]))
    head.fake_files.copy_(torch.from_numpy(features[is_fake]))
    return head


@dataclass(frozen=True, eq=False)
class NeighbourLearner:
    """A learner by the ``k`` nearest files of either class, with the rule for novelty."""

    features: FloatArray
    is_fake: BoolArray
    kinds: Kinds
    k: int
    within: float
    kind: ClassVar[LearnerKind] = "neighbours"

    def __call__(self, rows: IntArray) -> Scorer:
        head = _neighbours(self.features[rows], self.is_fake[rows], self.k)
        rule = fit_novelty(self.features[rows], self.is_fake[rows], [self.kinds[int(i)] for i in rows], self.within)

        return scorer_of(self.features, head, rule)

    def to_parts(self) -> tuple[dict[str, Any], Arrays] | None:
        """As in :class:`~mitigations.deepfake.cross_validation.SentLearner`."""
        arrays = {"features": torch.from_numpy(self.features), "is_fake": torch.from_numpy(self.is_fake)}
        return {"kinds": list(self.kinds), "k": self.k, "within": self.within}, arrays

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: Arrays) -> NeighbourLearner:
        """As in :class:`~mitigations.deepfake.cross_validation.SentLearner`."""
        return cls(arrays["features"].numpy(), arrays["is_fake"].numpy(), **settings)


# ---- the small network ---------------------------------------------------------------------------------------------


def _fit_cnn(images: Images, is_fake: BoolArray, kinds: Kinds, fake: int, options: ImageOptions, seed: int) -> Fitted:
    learner = CnnLearner(images, is_fake, kinds, options, seed)
    found = cross_validate(is_fake, kinds, learner, np.random.default_rng(seed), crossed=False)
    network = _train_cnn(images, is_fake, kinds, np.arange(len(is_fake)), fake, options, seed)
    calibrate(network.head.calibration, found)
    args = {"width": options.width, "n_groups": len(network.rule.means), "fake": fake}
    return network, args, found, ()


def _fit_ensemble(
    images: Images, is_fake: BoolArray, kinds: Kinds, fake: int, options: ImageOptions, seed: int
) -> Fitted:
    learners = (
        LinearLearner(images.features, is_fake, kinds, C=options.C, within=options.supported, changed=images.changed),
        CnnLearner(images, is_fake, kinds, options, seed),
    )
    parts = [cross_validate(is_fake, kinds, own, np.random.default_rng(seed), crossed=False) for own in learners]
    found = averaged(parts)
    frequency, args = _frequency_network(images, is_fake, kinds, fake, options)
    cnn = _train_cnn(images, is_fake, kinds, np.arange(len(is_fake)), fake, options, seed)
    calibrate(frequency.head.calibration, parts[0])
    calibrate(cnn.head.calibration, parts[1])
    args["width"] = options.width
    network = ImageEnsemble(**args)
    network.frequency, network.cnn = frequency, cnn
    calibrate(network.calibration, found)
    return network.eval(), args, found, ()


@dataclass(frozen=True, eq=False)
class CnnLearner:
    """A learner that trains the small network, from one seed for any files."""

    images: Images
    is_fake: BoolArray
    kinds: Kinds
    options: ImageOptions
    seed: int
    kind: ClassVar[LearnerKind] = "cnn"

    def __call__(self, rows: IntArray) -> Scorer:
        network = _train_cnn(self.images, self.is_fake, self.kinds, rows, 1, self.options, self.seed)

        def score(others: IntArray) -> tuple[FloatArray, FloatArray]:
            x = _cnn_features(network, self.images, others)
            with torch.no_grad():
                return network.head.scores(x).double().numpy(), network.rule(x).double().numpy()

        return score

    def to_parts(self) -> tuple[dict[str, Any], Arrays] | None:
        """As in :class:`~mitigations.deepfake.cross_validation.SentLearner`."""
        if torch.device(self.options.device).type != "cpu":
            return None
        images, options = self.images, self.options
        said = {
            "kinds": list(self.kinds),
            "seed": self.seed,
            "preprocessing": images.preprocessing.model_dump(mode="json"),
            "options": {"epochs": options.epochs, "width": options.width, "supported": options.supported},
        }
        arrays = {"pixels": images.pixels, "changed_pixels": images.changed_pixels, "is_fake": self.is_fake}
        return said, {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: Arrays) -> CnnLearner:
        """As in :class:`~mitigations.deepfake.cross_validation.SentLearner`."""
        n, none = len(arrays["pixels"]), np.empty((0, 0))
        images = Images(
            rows=np.arange(n),
            problems=(),
            preprocessing=ImagePreprocessing.model_validate(settings["preprocessing"]),
            features=none,
            halved=none,
            pixels=arrays["pixels"].numpy(),
            changed=none,
            changed_pixels=arrays["changed_pixels"].numpy(),
        )
        return cls(
            images, arrays["is_fake"].numpy(), settings["kinds"], ImageOptions(**settings["options"]), settings["seed"]
        )


def _cnn_features(network: ResidualCNN, images: Images, rows: IntArray) -> Tensor:
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH_ROWS):
            batch = images.pixels[rows[start : start + BATCH_ROWS]]
            parts.append(network.features(torch.from_numpy(images.preprocessing.encode(batch))))
    return torch.cat(parts)


def _train_cnn(
    images: Images, is_fake: BoolArray, kinds: Kinds, rows: IntArray, fake: int, options: ImageOptions, seed: int
) -> ResidualCNN:
    """A network trained on these images, mirrored or augmented at random, either class weighing the same.

    It is not calibrated yet.
    """
    with seeded_globals(np.random.default_rng(seed)):
        network = ResidualCNN(options.width, 1, fake)
        # A head of zeros would let no gradient through to the layers below it.
        nn.init.normal_(network.head.weight, std=0.1)
    network = network.to(options.device)
    labels = torch.from_numpy(is_fake[rows].astype(np.float32)).to(options.device)
    ways = [images.pixels[rows], *([images.changed_pixels[rows]] if len(images.changed_pixels) else [])]
    pixels = [torch.from_numpy(way.transpose(0, 3, 1, 2).copy()).to(options.device) for way in ways]
    balance = (1.0 - labels).sum() / labels.sum()

    def loss(batch: Sequence[Tensor]) -> Tensor:
        x, *others, truth = batch
        for other in others:
            x = torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, other, x)
        x = x.float() / 127.5 - 1.0
        mirrored = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        scores = network.head.scores(network.features(torch.where(mirrored, x.flip(3), x)))
        return nn.functional.binary_cross_entropy_with_logits(scores, truth, pos_weight=balance)

    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    step = PlainStep(network, optimizer, loss, max_grad_norm=1.0)
    train(step, [*pixels, labels], Schedule(epochs=options.epochs, batch_size=_BATCH, seed=seed))
    network = network.cpu().eval()
    network.rule = fit_novelty(
        _cnn_features(network, images, rows).double().numpy(),
        is_fake[rows],
        [kinds[int(i)] for i in rows],
        options.supported,
    )
    return network


_FITTERS: dict[str, Callable[[Images, BoolArray, Kinds, int, ImageOptions, int], Fitted]] = {
    "frequency": _fit_frequency,
    "cnn": _fit_cnn,
    "ensemble": _fit_ensemble,
    "encoder": _fit_encoder,
}
