"""Any classifier as a detector: what its classes mean, what it is worth on known files, and how it can lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from auditor.detection.channel import channel_lines, contradicted, on_channel
from auditor.detection.classifiers import as_detector, load_classifier
from auditor.detection.examine import Examination, loaded_detector
from auditor.detection.record import FileResult
from auditor.errors import DataError, ModelError, UsageError
from auditor.intake.formats import load_model
from auditor.intake.specs import ModelSpec
from auditor.model.classifier_detector import ClassifierDetector
from auditor.model.detector import Detector
from auditor.model.detector_card import DetectorCard
from auditor.model.saving import bundle_of, save
from cli.main import app
from tests.quantifiers import all_of
from tests.toys.classifiers import RATE, SAMPLES, save_onnx, save_resnet
from tests.toys.folders import save_bert
from tests.toys.media_files import as_file, as_wav, fake_picture, real_picture, write

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
RUNNER = CliRunner()
FUNCTION = """
import numpy as np

def steps(X):
    mean = np.abs(np.diff(X.astype(float), axis=2)).mean(axis=(1, 2, 3)) / 255.0
    return 1.0 / (1.0 + np.exp(32.0 * mean - 4.0))

steps.size = (16, 16)
steps.classes = ("0", "1")
"""


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


def words(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Known files, in folders that no detector here has as its classes."""
    where, rng = tmp_path_factory.mktemp("any") / "media", np.random.default_rng(1)
    for name, make in (("human", real_picture), ("1_fake", fake_picture)):
        write(where, {f"{name}/{i:02}.png": as_file(make(rng)) for i in range(22)})
    save_onnx(where.parent / "onnx" / "m.onnx")
    return where


def scored(detector: Detector, folder: Path) -> list[FileResult]:
    """As the command scores known files."""
    return [Examination(detector=detector, with_provenance=False).of(path) for path in sorted(folder.iterdir())]


def calibrated(detector: Detector, media: Path) -> DetectorCard:
    return on_channel(detector.card, scored(detector, media / "human"), scored(detector, media / "1_fake"))


def onnx(where: Path, **how: object) -> ClassifierDetector:
    save_onnx(where / "m.onnx", **how)  # type: ignore[arg-type]
    return as_detector(load_classifier(ModelSpec(path=str(where / "m.onnx"))), {})


# ---- a classifier becomes a detector -------------------------------------------------------------------------------


def test_a_graph_of_three_classes_is_calibrated_asked_and_saved(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.pt"
    made = run("detect-calibrate", media.parent / "onnx" / "m.onnx", "--data", media, "--out", out)
    assert made.exit_code == 0, made.output
    text = words(made)
    assert "promised nothing; its score is its own, and no calibrated probability" in text
    assert "of 22 known fakes it finds 22 of 22" in text and "AUC 1.00" in text
    # The files lie in the bundle: the graph's own folder is not asked again.
    detector = loaded_detector(ModelSpec(path=str(out)))
    assert isinstance(detector, ClassifierDetector) and detector.meanings == ("real", "fake", "fake")
    found = {path.name: Examination(detector=detector).of(path) for path in (media / "1_fake").iterdir()}
    assert all_of(result.verdict is not None and result.verdict.answer == "fake" for result in found.values())
    # Its score is the sum of what means fake.
    X = np.stack([fake_picture(np.random.default_rng(5)), real_picture(np.random.default_rng(5))])
    np.testing.assert_allclose(detector.predict_proba(X)[:, 1], detector.base.predict_proba(X)[:, 1:].sum(axis=1))
    save(detector, tmp_path / "again.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "again.pt")))
    assert isinstance(again, ClassifierDetector) and again.card == detector.card
    np.testing.assert_array_equal(again.predict_proba(X), detector.predict_proba(X))


def test_a_folder_of_hugging_face_becomes_a_detector_and_is_read_back(media: Path, tmp_path: Path) -> None:
    save_resnet(tmp_path / "net")
    detector = loaded_detector(ModelSpec(path=str(tmp_path / "net")), {})
    assert isinstance(detector, ClassifierDetector) and detector.meanings == ("fake", "real")
    detector = detector.with_card(calibrated(detector, media))
    save(detector, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, ClassifierDetector) and again.card == detector.card
    files = sorted((media / "1_fake").iterdir())
    answers = [Examination(detector=again).of(path).verdict for path in files]
    assert sum(v is not None and v.answer == "fake" for v in answers) >= 20
    with pytest.raises(ModelError, match="is no detector.*auditor detect-calibrate"):
        loaded_detector(ModelSpec(path=str(tmp_path / "net")))
    # Another network under the same card is not the one that was calibrated.
    bundle = bundle_of(again)
    weights = bundle["state_dict"]["model.safetensors"].clone()
    weights[-1] ^= 1
    torch.save({**bundle, "state_dict": {**bundle["state_dict"], "model.safetensors": weights}}, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match="is not the one that its card was made for"):
        load_model(ModelSpec(path=str(tmp_path / "bad.pt")))


def test_a_name_that_would_leave_the_folder_is_no_file_of_a_model(media: Path, tmp_path: Path) -> None:
    bundle = bundle_of(onnx(tmp_path / "a"))
    for name in ("../up.json", "a/b.json", ".hidden", "a\n"):
        state = {**bundle["state_dict"], name: torch.zeros(3, dtype=torch.uint8)}
        torch.save({**bundle, "state_dict": state}, tmp_path / "bad.pt")
        with pytest.raises(ModelError, match="which is no file of a model"):
            load_model(ModelSpec(path=str(tmp_path / "bad.pt")))


def test_a_function_is_named_again_by_whoever_asks_it(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_steps.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    said = ("--class-is", "fake=1", "--class-is", "real=0")
    unclear = run("detect-calibrate", "own_steps:steps", "--data", media)
    assert unclear.exit_code == 2 and "('0', '1') what '0' means is not clear" in words(unclear)
    made = run("detect-calibrate", "own_steps:steps", "--data", media, *said, "--out", "f.pt")
    assert made.exit_code == 0, made.output
    asked = ["detect", media / "1_fake" / "00.png", "--detector", "f.pt"]
    refused = run(*asked)
    assert refused.exit_code == 2 and "add --predict own_steps:steps" in words(refused)
    assert run(*asked, "--predict", "own_steps:steps").exit_code == 0


def test_a_recording_is_scored_by_a_graph_of_sound(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    detector = onnx(tmp_path, classes=("bonafide", "spoof"), sound=True)
    assert detector.card.medium == "speech" and detector.meanings == ("real", "fake")
    rng = np.random.default_rng(0)
    noise = rng.integers(-9_000, 9_000, SAMPLES).astype(np.int16)
    tone = (9_000 * np.sin(np.arange(SAMPLES) / 40)).astype(np.int16)
    write(tmp_path, {"noise.wav": as_wav(noise, RATE), "tone.wav": as_wav(tone, RATE)})
    scores = [Examination(detector=detector).of(tmp_path / f"{name}.wav").verdict for name in ("noise", "tone")]
    values = [None if v is None else v.probability for v in scores]
    assert values[0] is not None and values[1] is not None and values[0] < values[1]


# ---- how it can lie ------------------------------------------------------------------------------------------------


def test_a_constant_detector_tells_nothing_apart(media: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives all 44 known files the same score, .* tells nothing apart"):
        calibrated(onnx(tmp_path, factor=0.0), media)


def test_a_detector_with_inverted_classes_is_contradicted_by_the_known_files(media: Path, tmp_path: Path) -> None:
    detector = onnx(tmp_path, classes=("fake", "real"))
    card = calibrated(detector, media)
    assert "real files score higher than fakes (AUC 0.00" in contradicted(card)
    assert any(line.startswith("CONTRADICTED by the known files") for line in channel_lines(card))
    out = tmp_path / "d.pt"
    refused = run("detect-calibrate", tmp_path / "m.onnx", "--data", media, "--out", out)
    assert refused.exit_code == 4 and not out.exists()
    assert "The known files contradict what the classes mean" in words(refused) and "--class-is" in words(refused)
    said = ("--class-is", "fake=real", "--class-is", "real=fake")
    # The folders have names of their own, and are not turned round with the classes.
    assert run("detect-calibrate", tmp_path / "m.onnx", "--data", media, *said, "--out", out).exit_code == 0


def test_a_detector_that_knows_nothing_is_said_to(media: Path) -> None:
    rng = np.random.default_rng(3)
    scores = [tuple(np.sort(rng.random(30)).tolist()) for _ in range(2)]
    card = DetectorCard(medium="image", fake=1, real_scores=scores[0], fake_scores=scores[1])
    assert contradicted(card) == ""
    from auditor.model.detector_card import ChannelCalibration

    said = list(channel_lines(card.model_copy(update={"channel": ChannelCalibration(n_fake=30, n_found=1)})))
    assert any(
        line.startswith("nothing shows that it tells known fakes from files known to be real: AUC") for line in said
    )


def test_answers_that_are_no_numbers_are_no_scores(media: Path, tmp_path: Path) -> None:
    detector = onnx(tmp_path, factor=float("nan"))
    results = scored(detector, media / "human")
    assert all_of("NaN or infinity" in result.error and result.verdict is None for result in results)
    refused = run("detect-calibrate", tmp_path / "m.onnx", "--data", media, "--out", tmp_path / "d.pt")
    assert refused.exit_code == 4 and "None of the 44 known files could be scored" in words(refused)
    assert "NaN or infinity" in words(refused) and not (tmp_path / "d.pt").exists()


def test_a_detector_of_another_medium_is_refused(media: Path, tmp_path: Path) -> None:
    onnx(tmp_path, classes=("real", "fake"), sound=True)
    refused = run("detect-calibrate", tmp_path / "m.onnx", "--data", media, "--out", tmp_path / "d.pt")
    assert refused.exit_code == 4
    assert "the detector is for speech, and this is an image" in words(refused)


def test_a_classifier_of_texts_is_no_detector(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    save_bert(tmp_path / "bert")
    with pytest.raises(ModelError, match="takes pictures or sound, and this model takes neither"):
        loaded_detector(ModelSpec(path=str(tmp_path / "bert")), {"negative": "real", "positive": "fake"})


def test_what_nothing_says_of_a_graph_is_not_guessed(media: Path, tmp_path: Path) -> None:
    save_onnx(tmp_path / "m.onnx")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(
        ModelError, match="no preprocessor_config.json, without which its input's size and scale are a guess"
    ):
        load_classifier(ModelSpec(path=str(tmp_path / "m.onnx")))
    save_onnx(tmp_path / "m.onnx")
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text()) | {"size": {"height": 8, "width": 8}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="takes an input of shape"):
        load_classifier(ModelSpec(path=str(tmp_path / "m.onnx")))
    save_onnx(tmp_path / "m.onnx")
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match="does not name its classes"):
        load_classifier(ModelSpec(path=str(tmp_path / "m.onnx")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Name the known files: --data DIR"),
        (("--data", "{media}", "--known-real", "{media}"), "Name the known files"),
        (("--data", "{media}/human"), "with a sub-folder of real files and one of synthetic ones"),
        (("--data", "{media}", "--class-is", "fake"), "must read fake=NAME"),
        (("--data", "{media}", "--class-is", "odd=human"), "must read fake=NAME"),
        (("--data", "{media}", "--class-is", "fake=x", "--class-is", "real=x"), "says two things of 'x'"),
        (("--data", "{media}", "--class-is", "fake=x"), "none of the detector's classes ('real', 'ai', 'manipulated')"),
        (("--data", "{media}", "--class-is", "fake=human"), "means real"),
        (("--data", "{media}", "--outputs", "odds"), "must be logits or probabilities"),
    ],
)
def test_flags_that_do_not_say_what_is_known_are_refused(media: Path, arguments: tuple[str, ...], said: str) -> None:
    typed = [a.format(media=media) for a in arguments]
    result = run("detect-calibrate", media.parent / "onnx" / "m.onnx", *typed)
    assert result.exit_code == 2 and said in words(result), result.output


def test_known_files_of_which_too_few_are_real_promise_nothing(media: Path, tmp_path: Path) -> None:
    detector = onnx(tmp_path)
    with pytest.raises(DataError, match="18 different files known to be real"):
        on_channel(detector.card, scored(detector, media / "human")[:18], ())
