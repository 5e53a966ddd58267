"""Rounds that measure a detector are pure tasks: whoever does them, the scores are the same to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auditor.core.errors import UsageError
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.training.task_executor import Executor, Kept, Tasks, do, tasks_by
from mitigations.deepfake.cross_validation import Learner, scored
from mitigations.deepfake.detector_fitting import CrossValidation, LinearLearner, answers_to_unseen, cross_validate
from mitigations.deepfake.image_training import CnnLearner, ImageOptions, Images, NeighbourLearner
from mitigations.deepfake.speech_training import Recordings, SpeechFitter, SpeechLearner, SpeechOptions
from tests.training.test_execute import Backwards, Dies

N = 30
IS_FAKE = np.arange(N) % 2 == 0
KINDS = [("gan", "flow", "vae")[i % 3] if fake else f"camera {i % 2}" for i, fake in enumerate(IS_FAKE)]


def numbers(d: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(N, d)) + IS_FAKE[:, None]


def linear() -> Learner:
    return LinearLearner(numbers(5), IS_FAKE, KINDS, C=0.5, within=0.8, changed=numbers(5, 1))


def neighbours() -> Learner:
    return NeighbourLearner(numbers(5), IS_FAKE, KINDS, 2, 0.8)


def cnn() -> Learner:
    pixels = np.random.default_rng(0).integers(0, 256, (2, N, 16, 16, 3)).astype(np.uint8)
    images = Images(
        rows=np.arange(N),
        problems=(),
        preprocessing=ImagePreprocessing(size=(16, 16), fit="crop"),
        features=np.empty((N, 0)),
        halved=np.empty((N, 0)),
        pixels=pixels[0],
        changed=np.empty((N, 0)),
        changed_pixels=pixels[1],
    )
    return CnnLearner(images, IS_FAKE, KINDS, ImageOptions(epochs=1, width=4, supported=0.8), 7)


def speech(method: Any) -> Learner:
    sounds = (np.random.default_rng(0).normal(size=(N, 4_000)) * 3_000 * (1 + IS_FAKE[:, None])).astype(np.int16)
    found = Recordings(sounds, np.arange(N), (), AudioPreprocessing(sampling_rate=8_000, samples=4_000))
    options = SpeechOptions(method=method, n_components=2, n_filters=12, n_coefficients=6)
    return SpeechLearner(SpeechFitter.from_recordings(found, IS_FAKE, KINDS, 1, options, np.random.default_rng(0)))


LEARNERS: dict[str, Callable[[], Learner]] = {
    "linear": linear,
    "neighbours": neighbours,
    "cnn": cnn,
    "lfcc": lambda: speech("lfcc"),
    "gmm": lambda: speech("gmm"),
}


def measured(learner: Learner, executor: Executor | None) -> bytes:
    with tasks_by(executor):
        found: CrossValidation = cross_validate(
            IS_FAKE, KINDS, learner, np.random.default_rng(1), crossed=isinstance(learner, LinearLearner)
        )
    cells = [part for cell in found.cells for part in (cell.fake_scores, cell.real_scores)]
    parts = [found.seen_scores, found.seen_novelty, found.unseen_scores, found.unseen_novelty, *cells]
    return b"".join(part.tobytes() for part in parts)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_scores_are_the_same_to_the_last_bit_where_a_cluster_is_lost_too(name: str, tmp_path: Path) -> None:
    learner, asked = LEARNERS[name](), Backwards()
    here = measured(learner, None)
    assert measured(learner, asked) == here and asked.n >= 7
    with pytest.raises(UsageError, match="A node was lost"):
        measured(learner, Kept(Dies(), tmp_path))
    again = Backwards()
    assert measured(learner, Kept(again, tmp_path)) == here
    assert again.n == asked.n - 2, "what was finished is not done again"


def test_whole_detectors_that_never_saw_a_kind_are_rounds_too() -> None:
    learner, asked = linear(), Backwards()
    here = answers_to_unseen(IS_FAKE, KINDS, learner, np.random.default_rng(2))
    with tasks_by(asked):
        there = answers_to_unseen(IS_FAKE, KINDS, learner, np.random.default_rng(2))
    assert there == here and len(here) > 3 and asked.n > 3 * 5


def test_a_learner_that_is_no_data_stays_in_the_process() -> None:
    asked, learner = Backwards(), linear()
    on_card = CnnLearner(cnn().images, IS_FAKE, KINDS, ImageOptions(device="cuda"), 7)  # type: ignore[attr-defined]
    assert on_card.to_parts() is None
    with tasks_by(asked):
        (found,) = scored(lambda rows: learner(rows), [(np.arange(12), np.arange(12, N))])
    assert asked.n == 0 and found[0].tobytes() == learner(np.arange(12))(np.arange(12, N))[0].tobytes()


def test_a_refusal_is_the_same_sentence_and_other_versions_are_one() -> None:
    rows = [(np.arange(4), np.arange(4, N))]
    few = NeighbourLearner(numbers(5), IS_FAKE, KINDS, 5, 0.8)
    for executor in (None, Backwards()):
        with tasks_by(executor), pytest.raises(UsageError, match="There are not 5 files of either class"):
            scored(few, rows)
    sent: list[Tasks] = []

    class Older:
        def results(self, tasks: Tasks) -> Any:
            sent.append(replace(tasks, shared=tasks.shared.replace(torch.__version__.encode(), b"0" * 5, 1)))
            yield 0, do("fold", sent[0].shared, tasks.each[0])

    words = "no task of this version|A worker has torch .* and .*: install the same version on both"
    with tasks_by(Older()), pytest.raises(UsageError, match=words):
        scored(linear(), rows)
