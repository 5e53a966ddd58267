"""Any classifier as a detector: what its classes mean, what it is worth on known files, and how it can lie."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.detection.detection_record import FileResult, FileVerdict
from auditor.detection.detector_calibration import channel_lines, contradicted, judged_by_all, on_channel
from auditor.detection.examine_file import Examination, as_detector, load_classifier, loaded_detector
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.detector import ClassifierDetector, Detector
from auditor.models.detector_card import ChannelCalibration, DetectorCard, answer_of
from auditor.models.saved_models import bundle_of, save
from auditor.statistics.detection import ExcessShare
from cli.commands import app
from cli.detect_text import without_detector
from probes.deepfake.detector_performance import DetectorPerformance
from tests.quantifiers import all_of
from tests.toys.classifiers import RATE, SAMPLES, save_onnx, save_resnet, save_wav2vec2
from tests.toys.folders import save_bert
from tests.toys.media_files import as_file, as_video, as_wav, fake_picture, image_detector, real_picture, write

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
RUNNER = CliRunner()
RNG = np.random.default_rng(0)
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
    return [Examination(detector=detector, scores_only=True).examine_file(path) for path in sorted(folder.iterdir())]


def calibrated(detector: Detector, media: Path) -> DetectorCard:
    return on_channel(detector.card, scored(detector, media / "human"), scored(detector, media / "1_fake"))


def onnx(where: Path, **how: object) -> ClassifierDetector:
    save_onnx(where / "m.onnx", **how)  # type: ignore[arg-type]
    return as_detector(load_classifier(ModelSpec(path=str(where / "m.onnx"))), {})


# ---- a classifier becomes a detector -------------------------------------------------------------------------------


def test_a_graph_of_three_classes_is_calibrated_asked_and_saved(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.pt"
    made = run("detect", "calibrate", media.parent / "onnx" / "m.onnx", "--data", media, "--out", out)
    assert made.exit_code == 0, made.output
    text = words(made)
    assert "promised nothing; its score is its own, and no calibrated probability" in text
    assert "of 22 known fakes it finds 22 of 22" in text and "AUC 1.00" in text
    # The files lie in the bundle: the graph's own folder is not asked again.
    detector = loaded_detector(ModelSpec(path=str(out)))
    assert isinstance(detector, ClassifierDetector) and detector.meanings == ("real", "fake", "fake")
    found = {path.name: Examination(detector=detector).examine_file(path) for path in (media / "1_fake").iterdir()}
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
    answers = [Examination(detector=again).examine_file(path).verdict for path in files]
    assert sum(v is not None and v.answer == "fake" for v in answers) >= 20
    with pytest.raises(ModelError, match="is no detector.*auditor detect calibrate"):
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
    unclear = run("detect", "calibrate", "own_steps:steps", "--data", media)
    assert unclear.exit_code == 2 and "('0', '1') what '0' means is not clear" in words(unclear)
    made = run("detect", "calibrate", "own_steps:steps", "--data", media, *said, "--out", "f.pt")
    assert made.exit_code == 0, made.output
    asked = ["detect", media / "1_fake" / "00.png", "--detector", "f.pt"]
    refused = run(*asked)
    assert refused.exit_code == 2 and "a function of yours, and of no other: add --predict own_steps" in words(refused)
    assert run(*asked, "--predict", "own_steps:steps").exit_code == 0
    # Neither another function nor the same one changed answers by this calibration.
    other = run(*asked, "--predict", "own_steps:others")
    assert other.exit_code == 2 and "add --predict own_steps:steps" in words(other)
    (tmp_path / "own_steps.py").write_text(FUNCTION.replace("32.0", "16.0"))
    changed = run(*asked, "--predict", "own_steps:steps")
    assert changed.exit_code == 2 and "calibrate it anew" in words(changed), changed.output


@pytest.mark.parametrize("form", ["function", "ONNX model", "Hugging Face folder"])
def test_a_detector_of_any_form_is_audited_with_its_card(
    form: str, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the card promises is held to the rows, which no plain classifier promises anything of."""
    spec = ModelSpec(path=str(media.parent / "onnx" / "m.onnx"))
    if form == "function":
        (tmp_path / "card_steps.py").write_text(FUNCTION.replace('"0", "1"', '"real", "fake"'))
        monkeypatch.syspath_prepend(tmp_path)
        spec = ModelSpec(predict="card_steps:steps", code_folder=str(tmp_path))
    if form == "Hugging Face folder":
        save_resnet(tmp_path / "net")
        spec = ModelSpec(path=str(tmp_path / "net"))
    detector = as_detector(load_classifier(spec), {})
    save(detector.with_card(calibrated(detector, media)), tmp_path / "d.pt")
    if form == "function":
        with pytest.raises(UsageError, match="add --predict card_steps:steps"):
            load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    model = load_model(replace(spec, path=str(tmp_path / "d.pt")))
    assert isinstance(model, ClassifierDetector)
    data = load_data(DataSpec(path=str(media)), model)
    found = {(m.metric, m.at.get("class")): m.estimate for m in DetectorPerformance().measure(model, data, RNG)}
    assert found["auc", None].value > 0.95
    assert found["answered_fake", "fake"].value >= 0.9 and found["answered_fake", "real"].value <= 0.1
    assert isinstance(found["wrongly_ruled_out_excess", "real"], ExcessShare)


def test_a_function_beside_another_file_is_audited_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "alone_steps.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, {"weights.pt": b"PK\x03\x04 and nothing more"})
    save(image_detector(), tmp_path / "other.pt")
    for name in ("weights.pt", "other.pt"):
        spec = ModelSpec(path=str(tmp_path / name), predict="alone_steps:steps", code_folder=str(tmp_path))
        model = load_model(spec)
        assert model.provenance.format == "callable" and not isinstance(model, ClassifierDetector)


def test_a_recording_is_scored_by_a_graph_of_sound(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    detector = onnx(tmp_path, classes=("bonafide", "spoof"), sound=True)
    assert detector.card.medium == "speech" and detector.meanings == ("real", "fake")
    rng = np.random.default_rng(0)
    noise = rng.integers(-9_000, 9_000, SAMPLES).astype(np.int16)
    tone = (9_000 * np.sin(np.arange(SAMPLES) / 40)).astype(np.int16)
    write(tmp_path, {"noise.wav": as_wav(noise, RATE), "tone.wav": as_wav(tone, RATE)})
    scores = [
        Examination(detector=detector, scores_only=True).examine_file(tmp_path / f"{name}.wav").verdict
        for name in ("noise", "tone")
    ]
    values = [None if v is None else v.probability for v in scores]
    assert values[0] is not None and values[1] is not None and values[0] < values[1]


def test_a_folder_of_sound_answers_as_transformers_does(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    network = save_wav2vec2(tmp_path / "net")
    detector = loaded_detector(ModelSpec(path=str(tmp_path / "net")), {})
    assert isinstance(detector, ClassifierDetector) and detector.card.medium == "speech"
    sounds = np.random.default_rng(6).integers(-9_000, 9_000, (3, SAMPLES)).astype(np.int16)
    values = Wav2Vec2FeatureExtractor(sampling_rate=RATE)(
        list(sounds / 32768.0), sampling_rate=RATE, return_tensors="pt"
    )
    with torch.no_grad():
        expected = network(values.input_values.float()).logits.softmax(dim=1)[:, 1]
    np.testing.assert_allclose(detector.predict_proba(sounds)[:, 1], expected.numpy(), atol=1e-5)
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": RATE}))
    with pytest.raises(ModelError, match="must say sampling_rate .* max_length"):
        loaded_detector(ModelSpec(path=str(tmp_path / "net")), {})


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
    refused = run("detect", "calibrate", tmp_path / "m.onnx", "--data", media, "--out", out)
    assert refused.exit_code == 4 and not out.exists()
    assert "The known files contradict what the classes mean" in words(refused) and "--class-is" in words(refused)
    said = ("--class-is", "fake=real", "--class-is", "real=fake")
    # The folders have names of their own, and are not turned round with the classes.
    assert run("detect", "calibrate", tmp_path / "m.onnx", "--data", media, *said, "--out", out).exit_code == 0


def test_a_detector_that_knows_nothing_is_said_to(media: Path) -> None:
    rng = np.random.default_rng(3)
    scores = [tuple(np.sort(rng.random(30)).tolist()) for _ in range(2)]
    card = DetectorCard(medium="image", fake=1, real_scores=scores[0], fake_scores=scores[1])
    assert contradicted(card) == ""
    said = list(channel_lines(card.model_copy(update={"channel": ChannelCalibration(n_fake=30, n_found=1)})))
    assert any(
        line.startswith("nothing shows that it tells the fakes from the real ones, so it answers nothing: AUC")
        for line in said
    )


def test_answers_that_are_no_numbers_are_no_scores(media: Path, tmp_path: Path) -> None:
    detector = onnx(tmp_path, factor=float("nan"))
    results = scored(detector, media / "human")
    assert all_of("NaN or infinity" in result.error and result.verdict is None for result in results)
    refused = run("detect", "calibrate", tmp_path / "m.onnx", "--data", media, "--out", tmp_path / "d.pt")
    assert refused.exit_code == 4 and "None of the 44 known files could be scored" in words(refused)
    assert "NaN or infinity" in words(refused) and not (tmp_path / "d.pt").exists()


def test_a_detector_of_another_medium_is_refused(media: Path, tmp_path: Path) -> None:
    onnx(tmp_path, classes=("real", "fake"), sound=True)
    refused = run("detect", "calibrate", tmp_path / "m.onnx", "--data", media, "--out", tmp_path / "d.pt")
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
        (("--data", "{media}", "--outputs", "odds"), "'odds' is not one of 'logits', 'probabilities'"),
    ],
)
def test_flags_that_do_not_say_what_is_known_are_refused(media: Path, arguments: tuple[str, ...], said: str) -> None:
    typed = [a.format(media=media) for a in arguments]
    result = run("detect", "calibrate", media.parent / "onnx" / "m.onnx", *typed)
    assert result.exit_code == 2 and said in words(result), result.output


def test_known_files_of_which_too_few_are_real_promise_nothing(media: Path, tmp_path: Path) -> None:
    detector = onnx(tmp_path)
    with pytest.raises(DataError, match="18 different files known to be real"):
        on_channel(detector.card, scored(detector, media / "human")[:18], ())


# ---- pictures and sound of one video -------------------------------------------------------------------------------


def video_with_sound(where: Path, frames: list[object], sound: object) -> Path:
    """An MP4 of these pictures and this sound, (samples,) int16 at RATE."""
    import av

    with av.open(str(where), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 64, 64, "yuv420p", 8_000_000
        track = container.add_stream("aac", rate=RATE)
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        audio = av.AudioFrame.from_ndarray(np.asarray(sound)[None], format="s16", layout="mono")
        audio.sample_rate = RATE
        for packet in [*track.encode(audio), *track.encode(None), *stream.encode(None)]:
            container.mux(packet)
    return where


def verdict(score: float, card: DetectorCard) -> FileVerdict:
    p_real, p_fake = card.p_values(score)
    answer, reason = answer_of(card, p_real, p_fake)
    return FileVerdict(answer=answer, reason=reason, probability=score, p_real=p_real, p_fake=p_fake)


def pair(n: int = 60) -> tuple[DetectorCard, DetectorCard]:
    scores = {"real_scores": tuple(np.linspace(0, 0.4, n)), "fake_scores": tuple(np.linspace(0.6, 1, n))}
    return DetectorCard(medium="image", fake=1, **scores), DetectorCard(medium="speech", fake=1, **scores)


@pytest.mark.parametrize(
    ("pictures", "sound", "answer"),
    [
        (0.9, 0.1, "fake"),
        (0.1, 0.9, "fake"),
        (0.1, 0.1, "no known trace"),
        (0.1, 0.5, "cannot say"),
        (0.1, None, "cannot say"),
        (0.9, None, "fake"),
    ],
)
def test_a_video_is_judged_by_pictures_and_sound(pictures: float, sound: float | None, answer: str) -> None:
    image, speech = pair()
    by_pictures = FileResult(medium="video", sha256="a", verdict=verdict(pictures, image))
    by_sound = FileResult(medium="video", sha256="a", error="It has no sound.")
    if sound is not None:
        by_sound = FileResult(medium="video", sha256="a", verdict=verdict(sound, speech))
    (found,), batches = judged_by_all((image, speech), ([by_pictures], [by_sound]))
    assert found.verdict is not None and found.verdict.answer == answer and batches == [None, None]
    assert [part.medium for part in found.parts] == ["image", "speech"] and not found.error
    assert "shared out (0.025 and 0.025)" in found.verdict.reason and "at most 0.05" in found.verdict.reason


def test_real_videos_are_called_fake_no_more_often_than_the_mean_of_the_rates() -> None:
    """Over 1,500 real videos whose pictures and sound score by themselves; the bound is 4 standard errors above."""
    rng = np.random.default_rng(0)
    image, speech = (card.model_copy(update={"fake_scores": tuple(np.linspace(0, 1, 199))}) for card in pair(199))
    alone = wrong = 0
    for scores in rng.uniform(0, 0.4, (1_500, 2)).tolist():
        each = [FileResult(medium="video", verdict=verdict(s, c)) for s, c in zip(scores, (image, speech), strict=True)]
        alone += any(r.verdict is not None and r.verdict.answer == "fake" for r in each)
        (found,), _ = judged_by_all((image, speech), ([each[0]], [each[1]]))
        wrong += found.verdict is not None and found.verdict.answer == "fake"
    assert wrong / 1_500 <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 1_500) < alone / 1_500


def test_too_few_calibration_files_for_a_share_are_said() -> None:
    image, speech = pair(22)
    results = [[FileResult(medium="video", verdict=verdict(0.95, card))] for card in (image, speech)]
    (found,), _ = judged_by_all((image, speech), results)
    assert found.verdict is not None and found.verdict.answer == "cannot say"
    assert all_of(
        "fewer than 39 calibration files of real ones, and there are 22" in p.verdict.reason for p in found.parts
    )


def two_detectors(where: Path, unit: Literal["file", "video"] = "file") -> list[object]:
    """The flags of one of pictures and one of sound."""
    for name, classes, sound in (("a", ("real", "ai"), False), ("b", ("real", "ai"), True)):
        detector = onnx(where / name, classes=classes, sound=sound)
        scores = {"real_scores": tuple(np.linspace(0, 0.4, 90)), "fake_scores": tuple(np.linspace(0.6, 1, 90))}
        channel = {"channel": ChannelCalibration(unit=unit, n_fake=90, n_found=90)}
        save(detector.with_card(detector.card.model_copy(update=scores | channel)), where / f"{name}.pt")
    return ["--detector", where / "a.pt", "--detector", where / "b.pt"]


@pytest.mark.slow
def test_files_known_to_be_real_calibrate_the_detector_of_their_medium(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    both, rng = two_detectors(tmp_path), np.random.default_rng(3)
    known = {f"{i:02}.png": as_file(real_picture(rng)) for i in range(20)}
    noises = [rng.integers(-9_000, 9_000, SAMPLES).astype(np.int16) for _ in range(19)]
    known |= {f"{i:02}.wav": as_wav(noise, RATE) for i, noise in enumerate(noises)}
    write(tmp_path / "known", {**known, "broken.png": b"none"})
    # So few that nothing is ruled out to be fake.
    fakes = {f"{i:02}.png": as_file(fake_picture(rng)) for i in range(15)}
    write(tmp_path / "fakes", fakes)
    write(tmp_path, {"p.png": as_file(fake_picture(rng))})
    folders = ("--known-real", tmp_path / "known", "--known-fake", tmp_path / "fakes")
    result = run("detect", tmp_path / "p.png", *both, *folders)
    text = words(result)
    assert result.exit_code == 0, result.output
    assert "channel on 20 files known to be real" in text and "channel on 19 files known to be real" in text
    # What either can use is not left out.
    left_out = [line for line in result.output.splitlines() if line.startswith("left out")]
    assert len(left_out) == 1 and "broken.png" in left_out[0], left_out


def test_a_picture_and_a_sound_detector_are_asked_in_one_call(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    both = two_detectors(tmp_path, "video")
    rng = np.random.default_rng(2)
    noise = rng.integers(-9_000, 9_000, 8 * SAMPLES).astype(np.int16)
    video = video_with_sound(tmp_path / "v.mp4", [fake_picture(rng, 64) for _ in range(8)], noise)
    (tmp_path / "p.png").write_bytes(as_file(fake_picture(rng)))
    kept = tmp_path / "kept.zip"
    result = run("detect", video, tmp_path / "p.png", *both, "--json", "--bundle", kept)
    said = json.loads(result.stdout)
    film, picture = said["files"]
    assert film["verdict"]["answer"] == "fake" and [p["medium"] for p in film["parts"]] == ["image", "speech"]
    assert film["parts"][0]["verdict"]["answer"] == "fake" and film["parts"][1]["verdict"]["answer"] != "fake"
    # It is calibrated on videos.
    assert picture["verdict"]["answer"] == "cannot say" and "parts" not in picture
    assert (said["detector"]["card"]["medium"], said["second_detector"]["card"]["medium"]) == ("image", "speech")
    checked = run("evidence", "verify", kept, "--allow-unsigned", "--json")
    states = {check["name"]: check["state"] for check in json.loads(checked.stdout)["checks"]}
    assert states["record"] == "ok" and checked.exit_code == 0, checked.output
    twice = run("detect", video, "--detector", tmp_path / "a.pt", "--detector", tmp_path / "a.pt", "--json")
    assert "second_detector" not in json.loads(twice.stdout)
    (tmp_path / "c.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    same = run("detect", video, "--detector", tmp_path / "a.pt", "--detector", tmp_path / "c.pt")
    assert same.exit_code == 2 and "Both detectors are for pictures" in words(same)


# ---- nobody's detector ---------------------------------------------------------------------------------------------


def test_a_newcomer_without_a_detector_is_told_in_five_lines(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    rng = np.random.default_rng(4)
    noise = rng.integers(-9_000, 9_000, 8_000).astype(np.int16)
    write(
        tmp_path,
        {
            "photo.jpg": as_file(real_picture(rng), "JPEG"),
            "talk.wav": as_wav(noise),
            "film.mp4": as_video([real_picture(rng, 64)] * 4),
        },
    )
    for names, asked_for, two in (
        (("photo.jpg",), "gather pictures that", False),
        (("talk.wav",), "gather recordings that", False),
        (("film.mp4",), "gather pictures and recordings that", True),
        (("photo.jpg", "talk.wav"), "gather pictures and recordings that", True),
    ):
        found = [Examination(detector=None).examine_file(tmp_path / name) for name in names]
        lines = list(without_detector(found))
        assert [line.split()[0] for line in lines] == ["can", "cannot", "next", "next"]
        assert asked_for in lines[3] and ("one of pictures and one of sound" in lines[3]) is two
        assert "say whether one is synthetic" in lines[1] and max(map(len, lines)) < 330
    result = run("detect", tmp_path / "photo.jpg")
    assert result.exit_code == 3 and "auditor detect calibrate MODEL --data DIR" in words(result)
    assert [line.split()[0] for line in result.stderr.splitlines() if line[:1] != " "] == [
        "can", "cannot", "next", "next", "exit",
    ]  # fmt: skip


# ---- a graph is audited as it is -----------------------------------------------------------------------------------


def test_a_graph_of_pictures_is_scanned_and_searched_by_asking(media: Path, tmp_path: Path) -> None:
    save_onnx(tmp_path / "onnx" / "m.onnx", ("1_fake", "human"))
    limits = tmp_path / "limits.toml"
    limits.write_text(
        '[[criteria]]\nmetric = "robust_accuracy"\ndirection = "at_least"\nbound = 0.9\nat = {epsilon = 0.3}\n'
        'source = "t"\nset_by = "t"\nset_at = "2026-12-01"\n'
    )
    options = ("--set", "robustness.methods=black_box", "--set", "robustness.epsilon=0.3", "--policy", limits)
    rows = ("--data", media, "--probes", "robustness", "--out", tmp_path / "out")
    made = run("scan", tmp_path / "onnx" / "m.onnx", *rows, *options)
    assert made.exit_code == 1, made.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())["findings"]
    [judged] = [f for f in found if f["metric"] == "robust_accuracy"]
    assert (judged["outcome"], judged["method"], judged["at"]) == ("FAIL", "black_box", {"epsilon": 0.3})
    asked = next(f["detail"] for f in found if f["metric"] == "flip_rate_under_black_box")
    assert "at most 100 questions about each of 44 rows" in asked and "in all" in asked
