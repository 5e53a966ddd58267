"""Training of a detector of synthetic speech on recordings, and its evaluation on unseen kinds.

::

    detector = train_speech_detector(files, labels, kinds, SpeechOptions(), np.random.default_rng(0))

``files``: paths. ``labels``: the class of each, two names such as ``real`` and ``fake``. ``kinds``: the engine of a
synthetic recording, the speaker or source of a real one, None where that is not known. A caller that leaves unreadable
files out does it in two steps: ``read_recordings(files, options)``, whose ``rows`` say which were read and whose
``problems`` what is wrong with the others, and ``fit_speech_detector(recordings, labels, kinds, options, rng)`` with
those rows' labels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from auditor.core.errors import DataError, UsageError
from auditor.core.files import printable_name, read_regular
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.audio import Samples, decode, fit_recording, sampling_rate_of
from auditor.data.preprocessing import AudioPreprocessing
from auditor.models.detector import DeepfakeDetector, KnownRate
from auditor.models.networks.detector_networks import Calibration, SpeechDetector, SpeechGMM
from mitigations.deepfake.cross_validation import Arrays, LearnerKind, Scorer
from mitigations.deepfake.detector_fitting import (
    answers_to_unseen,
    calibrate,
    classes_of,
    cross_validate,
    fit_head,
    make_card,
    refuse_unreadable,
)
from mitigations.deepfake.fit_novelty import NOVELTY_LEVEL, Kinds, fit_novelty

Network: TypeAlias = SpeechDetector | SpeechGMM
Method = Literal["lfcc", "gmm"]
HIGHEST_RATE = 16_000
MOST_LEFT_OUT = 8
BATCH_ROWS = 256
_MOST_FRAMES = 20_000
_NAMES = {"lfcc": "speech_lfcc", "gmm": "speech_gmm"}
_NETWORKS: dict[str, Callable[..., Network]] = {"lfcc": SpeechDetector, "gmm": SpeechGMM}


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """Options of the training of a speech detector.

    ``method``: ``lfcc`` (statistics of cepstra, logistic regression) or ``gmm``. ``sampling_rate``: hertz;
    None takes the lowest of the files, at most 16,000, so that no class is known by its empty upper band. ``seconds``:
    of the beginning of each recording. ``mel``: a mel scale instead of a linear one. ``fake``: the name of the
    synthetic class, where it cannot be told. ``error_rate``: of the conformal answers. ``supported``: the share of
    recordings of known kinds that the rule for novelty lets through; the more of them it refuses, the more it refuses
    of unknown kinds. ``answers``: measure as well how whole detectors answer about each synthetic kind that they have
    never seen (it trains many times over). ``n_components``: of the ``gmm``.
    """

    method: Method = "lfcc"
    sampling_rate: int | None = None
    seconds: float = 3.0
    mel: bool = False
    n_filters: int = 40
    n_coefficients: int = 20
    fake: str | None = None
    error_rate: float = 0.05
    supported: float = NOVELTY_LEVEL
    answers: bool = True
    n_components: int = 16
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Recordings:
    """Training data of a detector.

    ``X`` (n, samples) int16 of the readable files, ``rows`` (n,) their places among all, ``problems``: a sentence for
    each of the others; ``preprocessing``: how a detector of them reads a file.
    """

    X: Samples
    rows: IntArray
    problems: tuple[str, ...]
    preprocessing: AudioPreprocessing


def train_speech_detector(
    files: Sequence[Path], labels: Sequence[str], kinds: Kinds, options: SpeechOptions, rng: np.random.Generator
) -> DeepfakeDetector:
    """A calibrated detector of recordings, with its known error rates on its card.

    Raises DataError naming files that cannot be read or for too few of a class, UsageError where the labels are not two
    classes of which one is synthetic, MissingExtraError without PyAV.
    """
    found = read_recordings(files, options)
    refuse_unreadable(found.problems, len(files))
    return fit_speech_detector(found, labels, kinds, options, rng)


def read_recordings(files: Sequence[Path], options: SpeechOptions) -> Recordings:
    """The readable files, as detector input, and the errors of the others."""
    rate = options.sampling_rate or _lowest_rate(files)
    wanted = AudioPreprocessing(sampling_rate=rate, samples=max(256, round(options.seconds * rate)))
    X = np.empty((len(files), wanted.samples), np.int16)
    rows: list[int] = []
    problems: list[str] = []
    for i, file in enumerate(files):
        try:
            X[len(rows)] = fit_recording(decode(_content(file), file.name, seconds=options.seconds + 0.1), wanted)
            rows.append(i)
        except DataError as error:
            problems.append(str(error))
    return Recordings(X[: len(rows)], np.asarray(rows, np.int64), tuple(problems), wanted)


def _lowest_rate(files: Sequence[Path]) -> int:
    lowest = HIGHEST_RATE
    for file in files:
        try:
            lowest = min(lowest, sampling_rate_of(_content(file), file.name))
        except DataError:
            continue  # it is named where it is decoded
    return max(lowest, 4_000)


def _content(file: Path) -> bytes:
    return read_regular(Path(os.path.realpath(file)), f"The recording {printable_name(file.name)!r}")


def fit_speech_detector(
    recordings: Recordings, labels: Sequence[str], kinds: Kinds, options: SpeechOptions, rng: np.random.Generator
) -> DeepfakeDetector:
    """Like :func:`train_speech_detector`, for recordings already read; labels and kinds are of their ``rows``."""
    classes, fake = classes_of(labels, options.fake)
    is_fake = np.asarray([label == classes[fake] for label in labels], bool)
    fit = SpeechFitter.from_recordings(recordings, is_fake, kinds, fake, options, rng)
    learner = SpeechLearner(fit)
    found = cross_validate(is_fake, kinds, learner, rng)
    network = fit(np.arange(len(recordings.X)))
    calibrate(_calibration(network), found)
    notes = [
        f"Recordings are resampled to {recordings.preprocessing.sampling_rate:,} hertz, and their first "
        f"{options.seconds:g} seconds are used.",
        f"A recording is unsupported where it is farther from every kind trained on than {options.supported:.0%} of "
        "that kind's own left-out recordings, or its features lie outside all their ranges by more than theirs do.",
    ]
    rates: tuple[KnownRate, ...] = ()
    if options.answers:
        if len({k for k, f in zip(kinds, is_fake, strict=True) if f and k is not None}) <= MOST_LEFT_OUT:
            rates = answers_to_unseen(
                is_fake, kinds, learner, rng, error_rate=options.error_rate, novelty_level=options.supported
            )
        else:
            notes.append(f"With more than {MOST_LEFT_OUT} synthetic kinds, answers about unseen ones are not measured.")
    card = make_card(
        "speech",
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
        preprocessing=recordings.preprocessing,
        architecture={"name": _NAMES[options.method], "args": fit.arguments(len(network.rule.means))},
        device=options.device,
        batch_rows=BATCH_ROWS,
    )


def _calibration(network: Network) -> Calibration:
    return network.calibration if isinstance(network, SpeechGMM) else network.head.calibration


@dataclass(frozen=True, eq=False, kw_only=True)
class SpeechFitter:
    """Fit networks to subsets of the recordings; computations common to all are done once.

    ``statistics`` (n, d) of each, ``inputs`` (n, ...) that a network takes, ``rate`` in hertz. One ``seed`` for all
    rounds: they differ by their recordings alone.
    """

    statistics: FloatArray
    inputs: Tensor
    is_fake: BoolArray
    kinds: Kinds
    fake: int
    rate: int
    options: SpeechOptions
    seed: int

    @classmethod
    def from_recordings(
        cls,
        recordings: Recordings,
        is_fake: BoolArray,
        kinds: Kinds,
        fake: int,
        options: SpeechOptions,
        rng: np.random.Generator,
    ) -> SpeechFitter:
        """The fitter of a method; UsageError for an unknown one."""
        if options.method not in _NETWORKS:
            raise UsageError(f"The method must be lfcc or gmm, not {options.method!r}.")
        of_all = cls(
            statistics=np.empty((0, 0)),
            inputs=torch.empty(0),
            is_fake=is_fake,
            kinds=kinds,
            fake=fake,
            rate=recordings.preprocessing.sampling_rate,
            options=options,
            seed=int(rng.integers(2**31)),
        )
        empty = of_all._new(1)
        statistics, inputs = [], []
        with torch.no_grad():
            for start in range(0, len(recordings.X), BATCH_ROWS):
                x = torch.from_numpy(recordings.preprocessing.encode(recordings.X[start : start + BATCH_ROWS]))
                statistics.append(empty.statistics(x))
                if isinstance(empty, SpeechGMM):
                    inputs.append(empty.frames(x))
        return replace(
            of_all,
            statistics=torch.cat(statistics).double().numpy(),
            inputs=torch.cat(inputs) if inputs else torch.cat(statistics),
        )

    def arguments(self, n_kinds: int) -> dict[str, Any]:
        """The arguments of the network's constructor."""
        o = self.options
        own = {"n_components": o.n_components} if o.method == "gmm" else {}
        return {
            "sampling_rate": self.rate,
            "n_kinds": n_kinds,
            "fake": self.fake,
            "n_filters": o.n_filters,
            "n_coefficients": o.n_coefficients,
            "mel": o.mel,
            **own,
        }

    def _new(self, n_kinds: int) -> Network:
        with seeded_globals(np.random.default_rng(self.seed)):
            return _NETWORKS[self.options.method](**self.arguments(n_kinds))

    def __call__(self, rows: IntArray) -> Network:
        """A network fitted to these recordings, with its rule for novelty; not calibrated yet."""
        rule = fit_novelty(
            self.statistics[rows], self.is_fake[rows], [self.kinds[i] for i in rows], self.options.supported
        )
        network = self._new(len(rule.means))
        network.rule = rule
        if isinstance(network, SpeechDetector):
            network.head = fit_head(self.statistics[rows], self.is_fake[rows], fake=self.fake)
        else:
            _fit_mixtures(network, self.inputs[rows], self.is_fake[rows], self.seed)
        return network.eval()


@dataclass(frozen=True, eq=False)
class SpeechLearner:
    """The scoring of recordings by a network fitted to some."""

    fit: SpeechFitter
    kind: ClassVar[LearnerKind] = "speech"

    def __call__(self, rows: IntArray) -> Scorer:
        network, fit = self.fit(rows), self.fit

        def score(others: IntArray) -> tuple[FloatArray, FloatArray]:
            with torch.no_grad():
                novelty = network.rule(torch.from_numpy(fit.statistics[others]).float())
                parts = [_scores(network, fit.inputs[part]) for part in np.array_split(others, len(others) // 64 + 1)]
            return torch.cat(parts).double().numpy(), novelty.double().numpy()

        return score

    def to_parts(self) -> tuple[dict[str, Any], Arrays] | None:
        """As in :class:`~mitigations.deepfake.cross_validation.SentLearner`."""
        fit = self.fit
        said = {"kinds": list(fit.kinds), "fake": fit.fake, "rate": fit.rate, "seed": fit.seed}
        arrays = {"statistics": torch.from_numpy(fit.statistics), "is_fake": torch.from_numpy(fit.is_fake)}
        return {**said, "options": asdict(fit.options)}, {**arrays, "inputs": fit.inputs}

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: Arrays) -> SpeechLearner:
        """As in :class:`~mitigations.deepfake.cross_validation.SentLearner`."""
        own: dict[str, Any] = {name: arrays[name].numpy() for name in ("statistics", "is_fake")}
        own |= {"inputs": arrays["inputs"], "options": SpeechOptions(**settings["options"])}
        return cls(SpeechFitter(**(settings | own)))


def _scores(network: Network, inputs: Tensor) -> Tensor:
    """(n,) uncalibrated scores of prepared inputs: statistics or frames."""
    if isinstance(network, SpeechDetector):
        return network.head.scores(inputs)
    found = network.log_likelihoods(inputs)
    return found[:, 1] - found[:, 0]


def _fit_mixtures(network: SpeechGMM, frames: Tensor, is_fake: BoolArray, seed: int) -> None:
    """Fits the mixture of either class, by expectation maximisation, to at most 20,000 frames of it, evenly taken."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    flat = frames.flatten(0, 1).double()
    network.centre.copy_(flat.mean(0))
    network.scale.copy_(flat.std(0).clamp_min(1e-6))
    for label in (0, 1):
        own = frames[torch.from_numpy(is_fake == bool(label))].flatten(0, 1)
        taken = own[:: max(1, len(own) // _MOST_FRAMES)]
        with warnings.catch_warnings():
            # A mixture that has not settled after so many rounds is a worse one, which its measured rates show.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture = GaussianMixture(
                len(network.means[label]), covariance_type="diag", reg_covar=1e-3, max_iter=50, random_state=seed
            ).fit(((taken - network.centre) / network.scale).double().numpy())
        network.means[label] = torch.from_numpy(mixture.means_)
        network.precisions[label] = torch.from_numpy(1.0 / mixture.covariances_)
        network.log_weights[label] = torch.from_numpy(np.log(mixture.weights_))
