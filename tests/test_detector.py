"""The verdicts of a detector: conformal p-values, novelty, the bundle that carries them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.detector import DeepfakeDetector, DetectorCard, fake_class, judge_file
from auditor.errors import ModelError
from auditor.intake import load_model
from auditor.model import TorchModel, save
from auditor.preprocessing import ImagePreprocessing
from auditor.specs import ModelSpec


def card(**changes: object) -> DetectorCard:
    scores = tuple(np.linspace(0.0, 0.4, 40)), tuple(np.linspace(0.6, 1.0, 40))
    return DetectorCard(
        **{"medium": "image", "fake": 1, "real_scores": scores[0], "fake_scores": scores[1], **changes}  # type: ignore[arg-type]
    )


def test_p_values_count_calibration_files() -> None:
    known = card(real_scores=(0.1, 0.2, 0.2, 0.9), fake_scores=(0.2, 0.8, 0.9))
    # Real files with a score of at least 0.2: three of four; fake ones with at most 0.2: one of three.
    assert known.p_values(0.2) == (4 / 5, 2 / 4)
    assert known.p_values(1.0) == (1 / 5, 4 / 4)


def test_either_class_and_neither_are_possible_answers() -> None:
    answers = {score: judge_file(card(), score, None).answer for score in (0.05, 0.5, 0.95)}
    assert answers == {0.05: "real", 0.5: "cannot say", 0.95: "fake"}
    overlapping = card(real_scores=tuple(np.linspace(0, 1, 40)), fake_scores=tuple(np.linspace(0, 1, 40)))
    verdict = judge_file(overlapping, 0.5, None)
    assert verdict.answer == "cannot say"
    assert "Neither class can be ruled out" in verdict.reason


def test_too_few_calibration_files_rule_nothing_out() -> None:
    few = card(real_scores=(0.0,) * 18, fake_scores=(1.0,) * 18)
    assert {judge_file(few, s, None).answer for s in (0.0, 0.5, 1.0)} == {"cannot say"}
    assert "too few calibration files (real and fake; it takes 19 of each)" in judge_file(few, 0.5, None).reason


@pytest.mark.parametrize("novelty", [3.1, float("nan"), None])
def test_what_is_unlike_the_training_files_is_not_judged(novelty: float | None) -> None:
    known = card(novelty_limit=3.0)
    assert judge_file(known, 0.99, 2.9).answer == "fake"
    assert judge_file(known, 0.99, novelty).answer == "cannot say"


def test_a_class_is_ruled_out_by_mistake_no_more_often_than_stated() -> None:
    """Over calibration and test files of one distribution, at 5 %; 200 worlds, allowing binomial error."""
    rng = np.random.default_rng(0)
    wrong = {"real": 0, "fake": 0}
    for _ in range(200):
        real, fake = rng.beta(2, 4, 61), rng.beta(4, 2, 61)
        known = card(real_scores=tuple(np.sort(real[1:])), fake_scores=tuple(np.sort(fake[1:])))
        p_real = known.p_values(real[0])[0]
        p_fake = known.p_values(fake[0])[1]
        wrong["real"] += p_real <= known.error_rate
        wrong["fake"] += p_fake <= known.error_rate
    assert max(wrong.values()) <= 21


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out

    def novelty(self, x: Tensor) -> Tensor:
        return x.flatten(1).norm(dim=1)


def detector(module: nn.Module, **changes: object) -> DeepfakeDetector:
    preprocessing = ImagePreprocessing(size=(4, 4))
    return DeepfakeDetector(module, card=card(**changes), classes=("real", "fake"), preprocessing=preprocessing)


def test_verdicts_of_rows_agree_with_those_of_single_files() -> None:
    torch.manual_seed(0)
    model = detector(_Network(), novelty_limit=6.0)
    X = np.random.default_rng(1).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    verdicts = model.verdicts(X)
    novelty = model.novelty(X)
    slow = np.sqrt(((((X / 255.0) - 0.5) / 0.5).reshape(20, -1) ** 2).sum(axis=1))
    np.testing.assert_allclose(novelty, slow, rtol=1e-5)
    assert [v.answer == "cannot say" for v in verdicts if v.novelty is not None and v.novelty > 6.0].count(False) == 0
    np.testing.assert_allclose([v.probability for v in verdicts], model.predict_proba(X)[:, 1])


def test_a_network_without_novelty_cannot_carry_a_limit() -> None:
    with pytest.raises(ModelError, match="measures no novelty"):
        detector(nn.Linear(2, 2), novelty_limit=1.0)


def test_the_card_is_saved_in_the_bundle_and_read_back(tmp_path: Path) -> None:
    from auditor.architectures import SmallCNN

    model = TorchModel(
        SmallCNN(3, 2, 4),
        classes=("real", "fake"),
        preprocessing=ImagePreprocessing(size=(16, 16)),
        architecture={"name": "small_cnn", "args": {"channels": 3, "n_outputs": 2, "width": 4}},
    )
    whole = DeepfakeDetector.around(model, card(kinds=("gan",)))
    save(whole, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, DeepfakeDetector)
    assert again.card == whole.card
    X = np.zeros((2, 16, 16, 3), np.uint8)
    assert again.verdicts(X) == whole.verdicts(X)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("real", "fake"), 1),
        (("AI", "real"), 0),
        (("bonafide", "spoof"), 1),
        (("photo", "midjourney"), 1),
        (("cat", "dog"), None),
        (("real", "fake", "other"), None),
        (("fake", "synthetic"), None),
    ],
)
def test_the_synthetic_class_is_known_by_its_name(classes: tuple[str, ...], expected: int | None) -> None:
    assert fake_class(classes) == expected
