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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auditor.core.errors import DataError
from auditor.core.files import printable_name, read_regular
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audio import Samples, decode, fit_recording, sampling_rate_of
from auditor.data.preprocessing import AudioPreprocessing
from auditor.loading.auxiliary_models import EncoderFile, probe_of, read_encoder
from auditor.models.detector import DeepfakeDetector, KnownRate
from auditor.models.networks.detector_networks import SpeechDetector
from auditor.models.networks.encoders import EncoderProbe
from mitigations.deepfake.detector_fitting import (
    LinearLearner,
    answers_to_unseen,
    calibrate,
    classes_of,
    cross_validate,
    fit_head,
    make_card,
    refuse_unreadable,
)
from mitigations.deepfake.fit_novelty import NOVELTY_LEVEL, Kinds, fit_novelty

HIGHEST_RATE = 16_000
MOST_LEFT_OUT = 8
# An encoder keeps hundreds of times its input.
BATCH_ROWS, ENCODED_ROWS = 256, 8


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """Options of the training of a speech detector.

    ``encoder``: a transformers folder of a network of samples, such as wav2vec 2 or HuBERT, or an ONNX file, under a
    linear head; ``preprocessor_config.json`` in it, or beside it, names its sampling rate. Without one: cepstra.
    ``sampling_rate``: hertz; None takes the lowest of the files, at most 16,000, so that no class is known by its empty
    upper band. ``seconds``: of the beginning of each recording. ``fake``: the name of the synthetic class, where it
    cannot be told. ``error_rate``: of the conformal answers. ``supported``: the share of recordings of known kinds that
    the rule for novelty lets through; the more of them it refuses, the more it refuses of unknown kinds. ``answers``:
    measure as well how whole detectors answer about each synthetic kind that they have never seen (it trains many times
    over).
    """

    encoder: str | None = None
    sampling_rate: int | None = None
    seconds: float = 3.0
    n_filters: int = 40
    n_coefficients: int = 20
    fake: str | None = None
    error_rate: float = 0.05
    supported: float = NOVELTY_LEVEL
    answers: bool = True
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
    encoder: EncoderFile | None = None


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
    encoder = None
    if options.encoder is not None:
        encoder = read_encoder(options.encoder, seconds=options.seconds)
        wanted = encoder.preprocessing
        assert isinstance(wanted, AudioPreprocessing)
    else:
        rate = options.sampling_rate or _lowest_rate(files)
        wanted = AudioPreprocessing(sampling_rate=rate, samples=max(256, round(options.seconds * rate)))
    seconds = wanted.samples / wanted.sampling_rate
    X = np.empty((len(files), wanted.samples), np.int16)
    rows: list[int] = []
    problems: list[str] = []
    for i, file in enumerate(files):
        try:
            X[len(rows)] = fit_recording(decode(_content(file), file.name, seconds=seconds + 0.1), wanted)
            rows.append(i)
        except DataError as error:
            problems.append(str(error))
    return Recordings(X[: len(rows)], np.asarray(rows, np.int64), tuple(problems), wanted, encoder)


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
    network, args = _network(recordings, 1, fake, options)
    features = _features(network.to(options.device), recordings, options.device)
    learner = LinearLearner(features, is_fake, kinds, within=options.supported)
    found = cross_validate(is_fake, kinds, learner, rng)
    rule = fit_novelty(features, is_fake, kinds, options.supported)
    network, args = _network(recordings, len(rule.means), fake, options)
    network.rule, network.head = rule, fit_head(features, is_fake, fake=fake)
    calibrate(network.head.calibration, found)
    heard = recordings.preprocessing
    notes = [
        f"{'Cepstra (LFCC)' if recordings.encoder is None else 'The features of a frozen encoder'} under logistic "
        f"regression; recordings are resampled to {heard.sampling_rate:,} hertz, and their first "
        f"{heard.samples / heard.sampling_rate:g} seconds are used.",
        *(recordings.encoder.notes if recordings.encoder is not None else ()),
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
        network.eval(),
        card=card,
        classes=classes,
        preprocessing=recordings.preprocessing,
        architecture={"name": "speech_lfcc" if recordings.encoder is None else "encoder_probe", "args": args},
        device=options.device,
        batch_rows=BATCH_ROWS if recordings.encoder is None else ENCODED_ROWS,
    )


def _network(
    recordings: Recordings, n_kinds: int, fake: int, options: SpeechOptions
) -> tuple[SpeechDetector | EncoderProbe, dict[str, Any]]:
    """The network before its head is fitted, and its arguments."""
    if recordings.encoder is not None:
        return probe_of(recordings.encoder, n_kinds, fake)
    args: dict[str, Any] = {
        "sampling_rate": recordings.preprocessing.sampling_rate,
        "fake": fake,
        "n_filters": options.n_filters,
        "n_coefficients": options.n_coefficients,
        "n_kinds": n_kinds,
    }
    return SpeechDetector(**args), args


def _features(network: SpeechDetector | EncoderProbe, recordings: Recordings, device: str) -> FloatArray:
    parts = []
    at_once = BATCH_ROWS if recordings.encoder is None else ENCODED_ROWS
    with torch.no_grad():
        for start in range(0, len(recordings.X), at_once):
            x = torch.from_numpy(recordings.preprocessing.encode(recordings.X[start : start + at_once]))
            parts.append(network.features(x.to(device)))
    return torch.cat(parts).double().cpu().numpy()
