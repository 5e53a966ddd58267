"""Real photographs of another collection, by a detector that takes them for synthetic until it is shown their like."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.detection.detection_record import FileResult, FileVerdict
from auditor.detection.detector_calibration import channel_lines, on_channel
from auditor.detection.examine_file import Examination, as_detector, load_classifier
from auditor.loading.job_specs import ModelSpec
from auditor.models.detector_card import DetectorCard, answer_of

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
FOLDER = Path(os.environ.get("AUDITOR_TEST_DATA", "")) / "real_vs_ai_images_559"


def smooth(X: Any) -> Any:
    """What was enlarged has small steps between neighbours; so have photographs that were compressed."""
    step = np.abs(np.diff(X.astype(float), axis=2)).mean(axis=(1, 2, 3))
    return 1.0 / (1.0 + np.exp(step / 2.0 - 6.0))


smooth.classes = ("human", "ai-generated")  # type: ignore[attr-defined]
smooth.size = (96, 96)  # type: ignore[attr-defined]


def _again(card: DetectorCard, files: list[FileResult]) -> list[FileResult]:
    """What a card says of files that were scored once."""
    scores = [f.verdict.probability for f in files if f.verdict is not None]
    answers = [answer_of(card, *card.p_values(float(s or 0.0))) for s in scores]
    verdicts = [FileVerdict(answer=answer, reason=reason) for answer, reason in answers]
    return [f.model_copy(update={"verdict": v}) for f, v in zip(files, verdicts, strict=True)]


def _fake(files: list[FileResult]) -> int:
    return sum(f.verdict is not None and f.verdict.answer == "fake" for f in files)


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="AUDITOR_TEST_DATA does not hold real_vs_ai_images_559")
def test_real_photographs_of_another_collection_are_called_fake_as_seldom_as_promised() -> None:
    detector = as_detector(load_classifier(ModelSpec(predict="tests.real.test_channel:smooth")), {})
    asked = Examination(detector=detector, scores_only=True)
    real, fake = ([asked.examine_file(p) for p in sorted((FOLDER / name).iterdir())] for name in ("real", "ai"))
    assert len(real) == len(fake) == 50
    rng, rates = np.random.default_rng(23), []
    for _ in range(200):
        order = rng.permutation(50).tolist()
        known, new = [real[i] for i in order[:25]], [real[i] for i in order[25:]]
        card = on_channel(detector.card, known, ())
        answers = _again(card, new)
        rates.append(_fake(answers) / 25)
    # The highest of 25 and the new one is as likely to be any of the 26; 4 standard errors over halvings.
    assert abs(np.mean(rates) - 1 / 26) <= 4 * np.std(rates) / np.sqrt(200)
    card = on_channel(detector.card, real, fake)
    # As it came most were likelier fake than not; and what holds the promise finds next to none of the fakes.
    assert card.channel is not None and card.channel.fake_before >= 30 and card.channel.n_found <= 5
    assert f"of 50 known fakes it finds {card.channel.n_found} of 50" in " ".join(channel_lines(card))
    # One container and one size: what came through it is told from a file that did not.
    assert card.channel.p_value(real[0].facts) > 0.05 >= card.channel.p_value(("PNG",))
