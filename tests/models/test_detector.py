"""The verdicts of a detector: conformal p-values, the bundle that carries them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.data.media_classes import fake_class
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import DetectorCard, KnownRate, answer_of, judge_file
from auditor.models.saved_models import bundle_of, save
from auditor.models.torch_model import TorchModel
from tests.statistics.worlds import WORLDS, most_misses
from tests.toys.media_files import calibrated


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
    answers = {score: judge_file(calibrated(card()), score).answer for score in (0.05, 0.5, 0.95)}
    assert answers == {0.05: "no known trace", 0.5: "cannot say", 0.95: "fake"}
    overlapping = card(real_scores=tuple(np.linspace(0, 0.7, 40)), fake_scores=tuple(np.linspace(0.3, 1, 40)))
    verdict = judge_file(calibrated(overlapping), 0.5)
    assert verdict.answer == "cannot say"
    assert "Neither class can be ruled out" in verdict.reason


def test_too_few_calibration_files_rule_nothing_out() -> None:
    few = card(real_scores=(0.0,) * 18, fake_scores=(1.0,) * 18)
    assert {answer_of(few, *few.p_values(s))[0] for s in (0.0, 0.5, 1.0)} == {"cannot say"}
    said = "too few calibration files (real and fake; it takes 19 of each)"
    assert said in answer_of(few, *few.p_values(0.5))[1]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (card(), "not calibrated"),
        (calibrated(card(fake_scores=())), "No known fakes"),
        (calibrated(card(fake_scores=tuple(np.linspace(0.0, 0.4, 40)))), "Nothing shows"),
    ],
)
def test_a_detector_that_is_not_shown_to_tell_answers_nothing(own: DetectorCard, said: str) -> None:
    for score in np.linspace(0.0, 1.0, 21):
        verdict = judge_file(own, score)
        assert verdict.answer == "cannot say" and said in verdict.reason and verdict.probability == score


def test_a_class_is_ruled_out_by_mistake_no_more_often_than_stated() -> None:
    """Over calibration and test files of one distribution, at 5 %."""
    rng = np.random.default_rng(0)
    wrong = {"real": 0, "fake": 0}
    worlds = zip(rng.beta(2, 4, (WORLDS, 61)).tolist(), rng.beta(4, 2, (WORLDS, 61)).tolist(), strict=True)
    for (new_real, *real), (new_fake, *fake) in worlds:
        known = card(real_scores=tuple(sorted(real)), fake_scores=tuple(sorted(fake)))
        wrong["real"] += known.p_values(new_real)[0] <= known.error_rate
        wrong["fake"] += known.p_values(new_fake)[1] <= known.error_rate
    assert max(wrong.values()) <= most_misses()


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out


def detector(module: nn.Module, **changes: object) -> DeepfakeDetector:
    preprocessing = ImagePreprocessing(size=(4, 4))
    return DeepfakeDetector(module, card=card(**changes), classes=("real", "fake"), preprocessing=preprocessing)


def test_verdicts_of_rows_agree_with_those_of_single_files() -> None:
    torch.manual_seed(0)
    model = detector(_Network())
    X = np.random.default_rng(1).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    found, alone = model.verdicts(X), [model.verdicts(X[i : i + 1])[0] for i in range(20)]
    np.testing.assert_allclose([v.probability for v in found], [v.probability for v in alone], rtol=1e-6)
    assert [v.answer for v in found] == [v.answer for v in alone]


def test_the_card_is_saved_in_the_bundle_and_read_back(tmp_path: Path) -> None:
    from auditor.models.networks.architectures import SmallCNN

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


# ---- cards that cannot be right ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "fake", "contradicts"),
    [
        (("real", "fake"), 0, True),
        (("ai", "photo"), 1, True),
        (("x", "real"), 1, True),
        (("real", "fake"), 1, False),
        (("ai", "photo"), 0, False),
        (("cat", "dog"), 0, False),
    ],
)
def test_a_card_that_points_at_the_real_class_is_refused(
    classes: tuple[str, str], fake: int, contradicts: bool
) -> None:
    def make() -> DeepfakeDetector:
        rows = ImagePreprocessing(size=(4, 4))
        return DeepfakeDetector(_Network(), card=card(fake=fake), classes=classes, preprocessing=rows)

    if not contradicts:
        assert make().card.fake == fake
        return
    with pytest.raises(ModelError, match=f"says that {classes[fake]!r} is the synthetic class.*{classes[1 - fake]!r}"):
        make()


@pytest.mark.parametrize(
    ("medium", "rows"), [("speech", ImagePreprocessing(size=(4, 4))), ("image", AudioPreprocessing(samples=256))]
)
def test_a_card_for_another_medium_is_refused(medium: str, rows: Preprocessing) -> None:
    with pytest.raises(ModelError, match=f"it is for {medium}, and its network takes {rows.kind} rows"):
        DeepfakeDetector(_Network(), card=card(medium=medium), classes=("real", "fake"), preprocessing=rows)


@pytest.mark.parametrize("error_rate", [0.0, 5e-324, 9.9e-5, 0.51, 0.999, float("nan")])
def test_an_error_rate_that_no_card_can_promise_is_refused(error_rate: float) -> None:
    with pytest.raises(ValidationError, match="error_rate"):
        card(error_rate=error_rate)


def test_the_smallest_error_rate_takes_no_more_scores_than_a_card_holds() -> None:
    assert card(error_rate=1e-4).fewest == 9_999 and card(error_rate=0.5).fewest == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 1.1},
        {"value": -0.1},
        {"value": 1e300},
        {"low": -0.1},
        {"high": 1.1},
        {"low": 0.6},
        {"high": 0.4},
        {"low": 0.6, "high": 0.4},
        {"confidence": 0.0},
        {"confidence": 1.0},
    ],
)
def test_a_rate_that_is_no_share_within_its_interval_is_refused(changes: dict[str, float]) -> None:
    good: dict[str, Any] = {"metric": "auc", "value": 0.5, "low": 0.4, "high": 0.6, "n_real": 1, "n_fake": 1}
    for fine in ({}, {"low": None}, {"high": None}, {"low": 0.5, "high": 0.5}):
        assert KnownRate(**(good | fine)).value == 0.5
    with pytest.raises(ValidationError):
        KnownRate(**(good | changes))


def spectral(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> ModelSpec:
    """A bundle of a network that is made for pictures of 32 x 32 pixels, with something of it changed."""
    from auditor.models.networks.architectures import ARCHITECTURES

    args = {"size": 32, "fake": 1}
    model = TorchModel(
        ARCHITECTURES["frequency_detector"](**args),
        classes=("real", "fake"),
        preprocessing=ImagePreprocessing(size=(32, 32), fit="crop"),
        architecture={"name": "frequency_detector", "args": args},
    )
    bundle = bundle_of(DeepfakeDetector.around(model, calibrated(card())))
    change(bundle)
    torch.save(bundle, tmp_path / "d.pt")
    return ModelSpec(path=str(tmp_path / "d.pt"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b["preprocessing"].update(size=[16, 16]), "its network cannot take what its preprocessing makes"),
        (lambda b: b.update(preprocessing=None), "nothing of how files are read"),
        (lambda b: b["detector"].update(error_rate=5e-324), "error_rate"),
        (lambda b: b["detector"].update(medium="speech"), "it is for speech"),
        (lambda b: b["detector"].update(fake=0), "'real' is the synthetic class"),
        (lambda b: b.update(classes=["fake", "real"]), "'real' is the synthetic class"),
    ],
)
def test_a_bundle_whose_parts_contradict_each_other_is_refused_at_load(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    assert isinstance(load_model(spectral(tmp_path, lambda _: None)), DeepfakeDetector)
    with pytest.raises(ModelError, match=said):
        load_model(spectral(tmp_path, change))


def test_sound_at_another_rate_than_the_networks_is_refused(tmp_path: Path) -> None:
    from auditor.models.networks.architectures import ARCHITECTURES

    args = {"sampling_rate": 8_000, "fake": 1}
    model = TorchModel(
        ARCHITECTURES["speech_lfcc"](**args),
        classes=("real", "fake"),
        preprocessing=AudioPreprocessing(sampling_rate=16_000, samples=16_000),
        architecture={"name": "speech_lfcc", "args": args},
    )
    save(DeepfakeDetector.around(model, card(medium="speech")), tmp_path / "d.pt")
    with pytest.raises(ModelError, match="sampling_rate 16000, its network takes 8000"):
        load_model(ModelSpec(path=str(tmp_path / "d.pt")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["detect", "{where}/real/0.png", "--detector", "{where}/d.pt"],
        ["scan", "{where}/d.pt", "--data", "{where}/media", "--out", "{where}/report"],
        ["mitigate", "deepfake-detection", "{where}/model.pt", "--out", "{where}/new.pt", "--data", "{where}/media",
         "--positive", "fake", "--with", "detector={where}/d.pt", "--report", "{where}/report"],
    ],
)  # fmt: skip
def test_a_network_for_other_pictures_is_one_refusal_of_every_command(tmp_path: Path, arguments: list[str]) -> None:
    import PIL.Image
    from typer.testing import CliRunner

    from cli.commands import app
    from tests.toys.media_files import image_detector

    spectral(tmp_path, lambda b: b["preprocessing"].update(size=[16, 16]))
    plain = image_detector()
    save(TorchModel(plain.module, classes=plain.classes, preprocessing=plain.preprocessing,
                    architecture=plain.architecture), tmp_path / "model.pt")  # fmt: skip
    for name in ("real/0.png", "media/real/0.png", "media/fake/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (32, 32)).save(tmp_path / name)
    result = CliRunner().invoke(app, [a.format(where=tmp_path) for a in arguments])
    assert result.exit_code == 4, result.output
    assert " ".join(result.output.split()).count("cannot take what its preprocessing makes") == 1


def test_a_bundle_of_an_earlier_version_is_read_without_what_it_measured_beside(tmp_path: Path) -> None:
    def earlier(bundle: dict[str, Any]) -> None:
        d = bundle["state_dict"]["head.weight"].shape[0]
        bundle["architecture"]["args"] |= {"n_groups": 2}
        rule = {"means": (2, d), "whitenings": (2, d, d), "limits": (2,), "range.low": (d,), "range.high": (d,)}
        bundle["state_dict"] |= {f"rule.{name}": torch.zeros(shape) for name, shape in rule.items()}
        bundle["detector"] |= {"novelties": [1.0] * 19, "novelty_rate": 0.1}
        bundle["detector"]["channel"] |= {"novelties": [1.0] * 19}
        (rate,) = bundle["detector"]["known_rates"]
        bundle["detector"]["known_rates"] = [rate | {"collection": None}, rate | {"collection": "of another site"}]

    def own(bundle: dict[str, Any]) -> None:
        bundle["detector"]["known_rates"] = [{"metric": "auc", "value": 0.9, "n_real": 5, "n_fake": 5}]

    def of_then(bundle: dict[str, Any]) -> None:
        own(bundle)
        earlier(bundle)

    new, old = (load_model(spectral(tmp_path, change)) for change in (own, of_then))
    assert isinstance(new, DeepfakeDetector) and isinstance(old, DeepfakeDetector) and old.card == new.card
    X = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    assert old.verdicts(X) == new.verdicts(X)
    save(old, tmp_path / "again.pt")
    assert isinstance(load_model(ModelSpec(path=str(tmp_path / "again.pt"))), DeepfakeDetector)


@pytest.mark.parametrize(
    ("changes", "never"),
    [
        ({}, ()),
        ({"real_scores": (1.0,) * 40}, ("real",)),
        ({"fake_scores": (0.0,) * 40}, ("fake",)),
        ({"real_scores": (0.0,) * 18}, ("real",)),
        ({"real_scores": (), "fake_scores": ()}, ("real", "fake")),
        # 3 of 60 real scores at the top: 4 / 61 lies above 0.05, and 3 / 61 of two below.
        ({"real_scores": (0.0,) * 57 + (1.0,) * 3}, ("real",)),
        ({"real_scores": (0.0,) * 58 + (1.0,) * 2}, ()),
    ],
)
def test_classes_that_no_score_rules_out_are_known(changes: dict[str, Any], never: tuple[str, ...]) -> None:
    known = card(**changes)
    assert known.never_ruled_out == never
    verdicts = [judge_file(known, s) for s in np.linspace(0.0, 1.0, 101)]
    slow = [n for n in ("real", "fake") if all(getattr(v, f"p_{n}") > known.error_rate for v in verdicts)]
    assert tuple(slow) == never


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
