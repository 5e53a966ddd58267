"""``auditor detect`` as a user runs it: for each file an answer or an error of its own, and an exit code that fits."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from auditor.core.files import decode_path, encode_path, readable
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.detection.detection_record import DetectorRecord, FileResult
from auditor.detection.examine_file import Examination
from auditor.evidence.detection_evidence import AskedDetector, detection_content, exit_code_of
from auditor.judging.measurement import ProbeResult
from auditor.loading.job_specs import DetectionSpec, Job, Limits, ModelSpec
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import ChannelCalibration
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.job_channel import Known, TableTrained
from auditor.run.job_messages import Answered, Asking, Examined, Opening, Repaired
from auditor.run.job_reader import TableLearned
from auditor.run.job_results import DetectorTrained, FilesExamined, Measured, Mitigated
from auditor.run.parent_process import _End, examine
from cli.commands import app
from cli.detect_calibrate import Calibrated, left_out_by_all
from tests.detection.content_credentials import signed, signing
from tests.quantifiers import all_of
from tests.toys.media_files import (
    SIZE,
    as_file,
    as_video,
    as_wav,
    card,
    fake_picture,
    image_detector,
    real_picture,
    write,
)

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
pytest.importorskip("av", reason="the extra 'media' is not installed")
RUNNER = CliRunner()
ON_CHANNEL = ChannelCalibration(n_fake=40, n_found=40)


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


def bomb(side: int = 12_000) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(5)
    noise, ramp = real_picture(rng), fake_picture(rng)
    middle = np.where(np.arange(SIZE)[:, None, None] < SIZE // 2, noise, ramp).astype(np.uint8)
    frames = [ramp, noise, noise]
    import PIL.Image

    pictures = [PIL.Image.fromarray(f) for f in frames]
    write(
        where,
        {
            "real.png": as_file(noise),
            "fake.png": as_file(ramp),
            "large.bmp": as_file(fake_picture(rng, 64), "BMP"),
            "middle.png": as_file(middle),
            "named.png": as_file(ramp, "JPEG", quality=95),
            "truncated.png": as_file(real_picture(rng, 64))[:4_000],
            "empty.jpg": b"",
            "bomb.png": bomb(),
            "huge.png": bomb(30_000),
            "cut.jpg": as_file(ramp, "JPEG")[:20],
            "text.jpg": b"this is no picture\n",
            "animated.gif": b"",
            "sixteen.png": as_file(ramp[:, :, 0].astype(np.uint16) * 257),
            "silent.wav": as_wav(np.zeros(16_000, np.int16)),
            "fake.mp4": as_video([fake_picture(rng, 64) for _ in range(12)]),
            "cut.mp4": as_video([fake_picture(rng, 64) for _ in range(12)])[:900],
            "voice.wav": as_wav(rng.integers(-3_000, 3_000, 16_000).astype(np.int16)),
        },
    )
    pictures[0].save(where / "animated.gif", save_all=True, append_images=pictures[1:])
    pictures[0].convert("CMYK").save(where / "cmyk.jpg", quality=95)
    save(image_detector(), where / "detector.pt")
    return where


@pytest.fixture(scope="module")
def asked(media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], Path]:
    """One run over every sort of file, and a bundle of it."""
    kept = tmp_path_factory.mktemp("kept") / "detected.zip"
    names = [p for p in sorted(media.iterdir()) if p.suffix != ".pt"]
    result = run("detect", *names, "--detector", media / "detector.pt", "--bundle", kept, "--json")
    found = json.loads(result.stdout)
    return result.exit_code, {Path(f["path"]).name: f for f in found["files"]} | {"": found}, kept


def test_what_was_said_of_every_sort_of_file_is_made_anew(asked: tuple[int, dict[str, Any], Path]) -> None:
    checked = run("evidence", "verify", asked[2], "--allow-unsigned", "--json")
    said = json.loads(checked.stdout)
    states = {check["name"]: check["state"] for check in said["checks"]}
    assert states["record"] == "ok" and "wrong" not in states.values() and checked.exit_code == 0, said
    assert any("the file and the detector alone can tell" in each["why"] for each in said["unproven"])


def test_a_file_is_real_or_fake_or_cannot_be_said(asked: tuple[int, dict[str, Any], Path], media: Path) -> None:
    code, files, _ = asked
    answers = {name: files[name]["verdict"]["answer"] for name in ("real.png", "fake.png", "large.bmp", "named.png")}
    assert answers == {"real.png": "no known trace", "fake.png": "fake", "large.bmp": "fake", "named.png": "fake"}
    assert files["fake.png"]["sha256"] and files["fake.png"]["size_bytes"] == (media / "fake.png").stat().st_size
    assert files["fake.png"]["error"] == ""
    assert code == 3 == files[""]["exit_code"]
    # The verdict of a file is that of the detector in Python.
    from auditor.loading.rows.media_files import load_images

    detector = image_detector()
    verdict = detector.verdicts(load_images(media, ["fake.png"], detector))[0]
    assert files["fake.png"]["verdict"]["probability"] == pytest.approx(verdict.probability, abs=1e-5)
    assert files["fake.png"]["verdict"]["p_real"] == pytest.approx(verdict.p_real)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("truncated.png", "cannot be decoded"),
        ("cut.jpg", "it is none of JPEG, PNG, WEBP, AVIF, BMP, GIF, TIFF, PPM, or damaged"),
        ("empty.jpg", "It is an empty file"),
        ("bomb.png", "12,000 x 12,000 pixels, more than 64,000,000: a decompression bomb"),
        ("huge.png", "more than 64,000,000 pixels: a decompression bomb"),
        ("text.jpg", "no image, sound or video"),
        ("sixteen.png", "more than 8 bits"),
    ],
)
def test_what_cannot_be_read_has_an_error_of_its_own(
    asked: tuple[int, dict[str, Any], Path], name: str, said: str
) -> None:
    found = asked[1][name]
    assert said in found["error"] and found["verdict"] is None
    assert "BytesIO" not in str(found) and "178956970" not in str(found)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("named.png", "It is named .png and is JPEG."),
        ("animated.gif", "only the first was judged"),
        ("cmyk.jpg", "CMYK"),
    ],
)
def test_what_was_done_to_a_file_is_said(asked: tuple[int, dict[str, Any], Path], name: str, said: str) -> None:
    found = asked[1][name]
    assert any(said in note for note in found["notes"]) and found["verdict"] is not None


@pytest.mark.parametrize("name", ["silent.wav", "voice.wav"])
def test_a_medium_the_detector_is_not_for_is_not_scored(asked: tuple[int, dict[str, Any], Path], name: str) -> None:
    verdict = asked[1][name]["verdict"]
    assert verdict["answer"] == "cannot say" and verdict["probability"] is None
    assert "Unsupported: the detector is for images and video, and this is audio." == verdict["reason"]


def test_a_video_is_judged_by_its_frames(asked: tuple[int, dict[str, Any], Path], media: Path) -> None:
    # The detector is calibrated on pictures, and its error rate is of those.
    held = asked[1]["fake.mp4"]["verdict"]
    assert (held["answer"], held["probability"], held["frames"]) == ("cannot say", None, [])
    channel = ChannelCalibration(unit="video", n_fake=40, n_found=40)
    found = Examination(detector=image_detector(channel=channel)).examine_file(media / "fake.mp4").model_dump()
    verdict = found["verdict"]
    assert found["medium"] == "video" and verdict["answer"] == "fake"
    scores = [frame["probability"] for frame in verdict["frames"]]
    assert len(scores) == 12 and verdict["probability"] == pytest.approx(np.mean(scores))
    assert verdict["low"] <= verdict["probability"] <= verdict["high"]
    assert [frame["seconds"] for frame in verdict["frames"]][:3] == pytest.approx([0.0, 0.1, 0.2])
    assert any("12 frames were judged" in note for note in found["notes"])
    assert asked[1]["cut.mp4"]["error"] and asked[1]["cut.mp4"]["verdict"] is None


def test_the_detector_says_its_known_error_rates(asked: tuple[int, dict[str, Any], Path]) -> None:
    known = asked[1][""]["detector"]
    assert (known["n_real"], known["n_fake"]) == (40, 40)
    assert [r["value"] for r in known["card"]["known_rates"]] == [0.02, 0.3, 0.4]
    assert "real_scores" not in known["card"]


def cropping(side: int = 24, **changes: Any) -> DeepfakeDetector:
    """Says the same of every picture, of whose middle it takes a square."""

    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[0.0, 2.0]]).expand(len(x), 2) + 0.0 * x.mean()

    wanted = ImagePreprocessing(size=(side, side), fit=changes.pop("fit", "crop"))
    return DeepfakeDetector(Blind(), card=card(**changes), classes=("real", "fake"), preprocessing=wanted)


def test_what_a_detector_does_not_look_at_is_said(tmp_path: Path) -> None:
    import PIL.Image

    rng = np.random.default_rng(0)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    glass = np.concatenate([real_picture(rng, 24), np.full((24, 24, 1), 7, np.uint8)], axis=2)
    write(
        tmp_path,
        {
            "exact.png": as_file(real_picture(rng, 24)),
            "large.png": as_file(np.zeros((48, 64, 3), np.uint8)),
            "small.png": as_file(np.zeros((10, 24, 3), np.uint8)),
            "thin.png": as_file(np.zeros((10, 64, 3), np.uint8)),
            "turned.jpg": as_file(np.zeros((48, 64, 3), np.uint8), "JPEG", exif=turned),
            "glass.png": as_file(glass),
            "film.mp4": as_video([fake_picture(rng, 64)] * 4),
        },
    )
    examination = Examination(detector=cropping())
    notes = {path.name: examination.examine_file(path).notes for path in tmp_path.iterdir()}
    assert notes["exact.png"] == ()
    assert notes["large.png"] == ("Of it only the middle was judged: 24 x 24 of its 64 x 48 pixels.",)
    assert notes["small.png"] == (
        "Its 24 x 10 pixels were mirrored at the edges up to the 24 x 24 that the detector takes.",
    )
    assert notes["thin.png"][0] == "Of it only the middle was judged: 24 x 10 of its 64 x 10 pixels."
    assert notes["thin.png"][1].startswith("Its 64 x 10 pixels were mirrored")
    assert notes["turned.jpg"] == ("Of it only the middle was judged: 24 x 24 of its 48 x 64 pixels.",)
    assert notes["glass.png"] == (
        "Its transparency (alpha) was dropped: its colours were judged as if it were opaque.",
    )
    assert notes["film.mp4"][0] == "Of its frames only the middle was judged: 24 x 24 of its 64 x 64 pixels."
    covered = Examination(detector=cropping(fit="cover")).examine_file(tmp_path / "large.png").notes
    assert covered == (
        "Of it only the middle was judged: 24 x 24 of the 32 x 24 pixels to which its 64 x 48 were brought.",
    )
    assert Examination(detector=cropping(fit="stretch")).examine_file(tmp_path / "large.png").notes == ()


def test_one_frame_has_no_interval_and_no_talk_of_one(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").write_bytes(as_video([fake_picture(np.random.default_rng(0), 32)]))
    found = Examination(detector=cropping(32)).examine_file(tmp_path / "one.mp4")
    assert found.notes == ("1 frame was judged: what is synthetic for a moment only can be missed.",)


# ---- the user's own channel ----------------------------------------------------------------------------------------


def posters(where: Path, n: int, first: int, seed: int) -> Path:
    """Real pictures of another collection: they are as smooth as what the detector knows as synthetic."""
    rng = np.random.default_rng(seed)
    mixed = [0.2 * real_picture(rng) + 0.8 * fake_picture(rng) for _ in range(n)]
    write(where, {f"{first + i:02}.png": as_file(np.rint(m).astype(np.uint8)) for i, m in enumerate(mixed)})
    return where


def answers_of(result: Result) -> list[str]:
    return [file["verdict"]["answer"] for file in json.loads(result.stdout)["files"]]


def test_a_file_left_out_by_two_detectors_has_the_reason_of_the_one_for_such_files() -> None:
    def of(medium: str, why: dict[str, str]) -> Calibrated:
        media = {Path("a.png"): "image", Path("b.wav"): "audio", Path("c"): None}
        lost = {Path(path): words for path, words in why.items()}
        return Calibrated(card=card(medium=medium), example="x", lost=lost, media=media, few="")

    speech = of("speech", {"a.png": "not of its medium", "b.wav": "too short", "c": "unread"})
    image = of("image", {"a.png": "trained on it", "b.wav": "not of its medium", "c": "unread"})
    for both in ([speech, image], [image, speech]):
        assert left_out_by_all(both) == ["a.png: trained on it", "b.wav: too short", "c: unread"]
    assert left_out_by_all([image, of("speech", {})]) == [] == left_out_by_all([])


def test_near_copies_of_files_known_to_be_real_are_in_the_json_and_the_code() -> None:
    known = DetectorRecord.from_card(("real", "fake"), card(), "0" * 64)
    asked = [AskedDetector(path="d.pt", known=known), AskedDetector(path="d.pt", known=known, few="9 of 20")]
    codes = [exit_code_of([], [each]) for each in asked]
    said = [detection_content([each], [], code)["detector"] for each, code in zip(asked, codes, strict=True)]
    assert codes == [0, 3] and "few" not in said[0] and said[1]["few"] == "9 of 20"


@pytest.mark.slow
def test_a_detector_keeps_its_promise_on_a_channel_that_it_is_shown(media: Path, tmp_path: Path) -> None:
    known, new = posters(tmp_path / "known", 24, 0, 1), posters(tmp_path / "new", 20, 30, 2)
    detector, asked = tmp_path / "detector.pt", sorted(new.iterdir())
    save(image_detector(channel=None), detector)
    as_it_came = run("detect", *asked, "--detector", detector, "--json")
    assert answers_of(as_it_came) == ["cannot say"] * 20 and as_it_came.exit_code == 3
    assert all_of(file["verdict"]["probability"] is None for file in json.loads(as_it_came.stdout)["files"])
    rng = np.random.default_rng(9)
    write(tmp_path / "fakes", {f"{i:02}.png": as_file(fake_picture(rng)) for i in range(20)})
    fakes = ("--known-fake", tmp_path / "fakes")
    kept = tmp_path / "kept.zip"
    words = ("detect", *asked, "--detector", detector, "--known-real", known)
    shown = run(*words, *fakes, "--bundle", kept, "--json")
    said = json.loads(shown.stdout)
    assert answers_of(shown).count("fake") <= 5 and shown.exit_code == 3
    assert said["batch"]["n"] == 20 and said["detector"]["n_real"] == 24
    assert said["detector"]["predictive_value"]["prevalence"] == 0.01
    # Without known fakes nothing shows that it tells, and it answers nothing.
    assert answers_of(run(*words, "--json")) == ["cannot say"] * 20
    assert "real_scores" not in said["detector"]["card"] and said["detector"]["card"]["channel"]["fake_before"] >= 15
    assert run("evidence", "verify", kept, "--allow-unsigned").exit_code == 0


@pytest.mark.slow
def test_a_calibrated_detector_is_written_and_says_what_it_finds(media: Path, tmp_path: Path) -> None:
    known, fakes = posters(tmp_path / "known", 24, 0, 1), tmp_path / "fakes"
    rng = np.random.default_rng(9)
    write(fakes, {f"{i:02}.png": as_file(fake_picture(rng)) for i in range(20)})
    write(known, {"sub/broken.png": b"none"})
    out = tmp_path / "here" / "mine.pt"
    arguments = ["detect", "calibrate", media / "detector.pt", "--known-real", known, "--out", out]
    made = run(*arguments, "--known-fake", fakes)
    text = " ".join(made.output.split())
    assert made.exit_code == 3 and out.is_file() and "left out" in text and "broken.png" in text, made.output
    assert "of 20 known fakes it finds" in text and "on 24 files known to be real" in text
    (known / "sub" / "broken.png").unlink()
    assert run(*arguments, "--known-fake", fakes).exit_code == 0 and run(*arguments).exit_code == 3
    asked = sorted(posters(tmp_path / "new", 20, 30, 2).iterdir())
    by_folder = run(
        "detect", *asked, "--detector", media / "detector.pt", "--known-real", known, "--known-fake", fakes, "--json"
    )
    made = run(*arguments, "--known-fake", fakes)
    by_file = run("detect", *asked, "--detector", out, "--json")
    assert json.loads(by_folder.stdout)["files"] == json.loads(by_file.stdout)["files"]
    shown = " ".join(run("detect", asked[0], "--detector", out, "--prevalence", 0.5).stderr.split())
    assert "channel on 24 files" in shown and "worth where 0.5 of files are synthetic" in shown
    strict = run("detect", asked[0], "--detector", out, "--error-rate", 0.01)
    assert strict.exit_code == 2 and "at least 99" in " ".join(strict.output.split()), strict.output
    loose = json.loads(run("detect", asked[0], "--detector", out, "--error-rate", 0.2, "--json").stdout)
    assert loose["detector"]["card"]["error_rate"] == 0.2


@pytest.mark.slow
def test_a_detector_of_pictures_is_calibrated_on_films_and_then_answers_of_films_alone(
    media: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)

    def films(folder: str, n: int, make: Any) -> Path:
        write(tmp_path / folder, {f"{i}.mp4": as_video([make(rng, 64) for _ in range(2)]) for i in range(n)})
        return tmp_path / folder

    real, fake = films("real", 19, real_picture), films("fake", 19, fake_picture)
    (new,) = films("new", 1, fake_picture).iterdir()
    out = tmp_path / "films.pt"
    command = ("detect", "calibrate", media / "detector.pt", "--known-real", real, "--known-fake", fake, "--out", out)
    made = run(*command)
    assert made.exit_code == 0 and "on 19 videos known to be real" in " ".join(made.output.split()), made.output
    film, picture = (run("detect", path, "--detector", out, "--json") for path in (new, media / "fake.png"))
    assert answers_of(film) == ["fake"] and film.exit_code == 0
    assert answers_of(picture) == ["cannot say"] and picture.exit_code == 3
    assert "calibrated on videos" in json.loads(picture.stdout)["files"][0]["verdict"]["reason"]


@pytest.mark.slow
def test_known_files_that_cannot_be_used_are_refused(media: Path, tmp_path: Path) -> None:
    known = posters(tmp_path / "known", 18, 0, 1)
    detector = media / "detector.pt"
    for arguments, code, said in (
        (["detect", media / "fake.png", "--known-real", known], 2, "add --detector FILE"),
        (["detect", media / "fake.png", "--detector", detector, "--known-real", known], 4, "at least 19"),
        (["detect", known / "00.png", "--detector", detector, "--known-real", known], 2, "is among the known files"),
        (["detect", media / "fake.png", "--detector", detector, "--known-fake", known], 2, "name both"),
        (["detect", media / "fake.png", "--detector", detector, "--error-rate", 0.7], 2, "'--error-rate'"),
        (["detect", media / "fake.png", "--detector", detector, "--prevalence", 1.5], 2, "'--prevalence'"),
        (["detect", media / "fake.png", "--detector", detector, "--known-real", tmp_path / "no"], 2, "no folder at"),
        (["detect", "calibrate", detector, "--known-real", known, "--known-fake", known], 2, "lies in both folders"),
        (["detect", "calibrate", detector, "--known-real", known, "--out", tmp_path / "a.zip"], 2, "must end in .pt"),
        (["detect", "calibrate", tmp_path / "no.pt", "--known-real", known], 2, "There is no detector"),
    ):
        result = run(*arguments)
        assert result.exit_code == code and said in " ".join(result.output.split()), (arguments, result.output)


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"/a/b.png", "/ä/\n".encode(), b"/a\xff\xfe", b"/\xc3", b"00ff"])
def test_every_name_survives_the_channel(name: bytes) -> None:
    path = os.fsdecode(name)
    assert decode_path(json.loads(json.dumps(encode_path(path)).encode())) == path
    encode_path(path).encode(), readable(path).encode()  # neither raises


@pytest.mark.slow
def test_files_that_are_absent_or_oddly_named_have_a_row_each(media: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")
    for name in (odd, tmp_path / ("n" * 250 + ".png"), tmp_path / "real.png"):
        Path(name).write_bytes((media / "real.png").read_bytes())
    (tmp_path / "link.png").symlink_to("gone.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    asked = [tmp_path / "gone", tmp_path / "link.png", tmp_path / "loop.png", *[tmp_path / ("n" * 250 + ".png")], odd]
    result = run("detect", *asked, "--detector", media / "detector.pt")
    assert result.exit_code == 3, result.output
    head, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert head[-1] == "notes"
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(Path(r["file"]).name[:5], r["answer"]) for r in table] == [
        ("gone", "unread"),
        ("link.", "unread"),
        ("loop.", "unread"),
        ("nnnnn", "no known trace"),
        ("a\\xff", "no known trace"),
    ]
    assert ["No such file" in r["reason"] for r in table] == [True, True, False, False, False]
    none = run("detect", tmp_path / "gone", tmp_path / "link.png", "--detector", media / "detector.pt")
    assert none.exit_code == 2 and "There is none of these 2 files, such as" in none.output
    shutil.copy(media / "detector.pt", os.fsdecode(os.fsencode(tmp_path) + b"/d\xff.pt"))
    strange = run("detect", odd, "--detector", os.fsdecode(os.fsencode(tmp_path) + b"/d\xff.pt"))
    assert strange.exit_code == 2 and "not in UTF-8: rename it" in strange.output


@pytest.mark.slow
def test_the_notes_are_in_the_table(media: Path) -> None:
    result = run("detect", media / "cmyk.jpg", "--detector", media / "detector.pt")
    head, row = [line.split("\t") for line in result.stdout.splitlines()]
    assert head[-1] == "notes" and "CMYK" in row[-1]


@pytest.mark.slow
def test_only_what_is_fake_is_settled_in_a_plain_table(media: Path) -> None:
    result = run(
        "detect", media / "real.png", media / "fake.png", media / "real.png", "--detector", media / "detector.pt"
    )
    # A synthetic file that leaves no trace the detector knows would be told the same.
    assert result.exit_code == 3, result.output
    head, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(Path(r["file"]).name, r["answer"]) for r in table] == [
        ("real.png", "no known trace"),
        ("fake.png", "fake"),
    ]
    assert "no proof" in result.stderr and "exit 3: 1 fake, 1 no known trace" in result.stderr
    assert run("detect", media / "fake.png", "--detector", media / "detector.pt").exit_code == 0
    assert "over kinds left out of training: equal error rate 0.30 [0.00, 0.60]" in result.stderr


@pytest.mark.slow
def test_a_claim_and_a_guess_stand_apart(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture that shows no known trace, and of which a trusted signature declares that it was generated."""
    by = signing()
    (tmp_path / "root.pem").write_text(by.root)
    content = signed((media / "real.png").read_bytes(), "image/png", by)
    (tmp_path / "claimed.png").write_bytes(content)
    piped = run("detect", tmp_path / "claimed.png")
    head, row = [line.split("\t") for line in piped.stdout.splitlines()]
    assert dict(zip(head, row, strict=True))["credentials"] == "intact, signer unknown" and piped.exit_code == 3
    alone = run("detect", tmp_path / "claimed.png", "--trust-anchors", tmp_path / "root.pem")
    assert alone.stdout.splitlines()[1].split("\t")[2] == "declared synthetic" and alone.exit_code == 0
    # The form of the C2PA trust lists: a withdrawn service vouches for nobody.
    for status, answer in (("granted", "declared synthetic"), ("withdrawn", "")):
        certificate = "".join(by.root.split("-----")[2].split())
        service = {
            "ServiceStatus": f"http://uri.etsi.org/19602/status/{status}",
            "ServiceDigitalIdentity": {"X509Certificates": [{"val": certificate}]},
        }
        other = {
            "ServiceDigitalIdentity": {"X509Certificates": [{"val": "".join(signing().root.split("-----")[2].split())}]}
        }
        entity = {"TrustedEntityServices": [{"ServiceInformation": each} for each in (other, service)]}
        (tmp_path / "list.json").write_text(json.dumps({"LoTE": {"TrustedEntitiesList": [entity]}}))
        listed = run("detect", tmp_path / "claimed.png", "--trust-anchors", tmp_path / "list.json")
        assert listed.stdout.splitlines()[1].split("\t")[2] == answer, listed.output
    (tmp_path / "none.json").write_text('{"LoTE": []}')
    refused = run("detect", tmp_path / "claimed.png", "--trust-anchors", tmp_path / "none.json")
    assert refused.exit_code == 2 and "no C2PA trust list" in " ".join(refused.output.split())
    monkeypatch.setattr("cli.detect_text.sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    arguments = ["detect", tmp_path / "claimed.png", "--detector", media / "detector.pt"]
    result = run(*arguments, "--trust-anchors", tmp_path / "root.pem")
    text = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    assert (
        "DECLARED SYNTHETIC" in text
        and "no evidence that it is real" in text
        and "C2PA, trusted: by Test Camera of Camera Works; time stamp: none" in text
    )
    assert "claims c2pa.created with Dream Machine, trainedAlgorithmicMedia: synthetic" in text
    unknown = " ".join(run(*arguments).output.split())
    assert "C2PA, intact, signer unknown: by Test Camera of Camera Works, as its own certificate says" in unknown
    assert "claims SIGNER UNKNOWN: c2pa.created with Dream Machine" in unknown
    assert "Valid" not in unknown and "C2PA, trusted" not in unknown
    assert "known worst of 1 kinds left out: ramp, equal error rate 0.40 [0.00, 0.60]" in text
    assert "NO KNOWN TRACE" in unknown


@pytest.mark.slow
def test_without_a_detector_only_claims_are_told_and_it_is_exit_3(media: Path, tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "Midjourney\x1b[31m")
    (tmp_path / "made.png").write_bytes(as_file(real_picture(np.random.default_rng(0)), pnginfo=info))
    result = run("detect", tmp_path / "made.png")
    assert result.exit_code == 3
    assert "it names Midjourney" in result.stdout and "\x1b" not in result.output
    assert "no detector was named" in result.stderr


@pytest.mark.slow
def test_wrong_usage_and_refused_detectors(media: Path, tmp_path: Path) -> None:
    bare = image_detector()
    save(TorchModel.with_module(bare, bare.module), tmp_path / "classifier.pt")
    for arguments, code, said in (
        (["missing.png"], 2, "There is no file 'missing.png'"),
        ([media], 2, "is a folder: name its files"),
        ([media / "real.png", "--detector", "missing.pt"], 2, "auditor detect train"),
        ([media / "real.png", "--known-real", tmp_path], 2, "add --detector FILE"),
        ([media / "real.png", "--trust-anchors", media / "real.png"], 2, "PEM"),
        ([media / "real.png", "--max-memory", "much"], 2, "--max-memory"),
        ([media / "real.png", "--detector", media / "real.png"], 4, ""),
        ([media / "real.png", "--detector", tmp_path / "classifier.pt"], 4, "This model is no detector"),
    ):
        result = run("detect", *arguments)
        assert result.exit_code == code and said in result.output, (arguments, result.output)


# ---- the channel ---------------------------------------------------------------------------------------------------


def test_answers_about_files_that_were_not_asked_for_are_refused() -> None:
    done = FilesExamined()
    done.begin(["a", "b"])

    def take(message: Any) -> str | None:
        done.take(message, lambda _: None)
        return done.asking

    with pytest.raises(ValueError):
        take(Examined(file="b", result=FileResult()))
    assert take(Opening(file="a")) == "a"
    for message in (Opening(file="b"), Opening(file="a"), Opening(file="c"), Examined(file="b", result=FileResult())):
        with pytest.raises(ValueError):
            take(message)
    assert take(Examined(file="a", result=FileResult())) is None
    for message in (Opening(file="a"), Opening(file="c"), Examined(file="a", result=FileResult())):
        with pytest.raises(ValueError):
            take(message)
    assert list(done.files) == ["a"]


def test_a_job_takes_no_message_of_another() -> None:
    table = TableTrained(
        features=("a",), notes=(), recognised=(), accuracy=Known(value=1.0, low=0.9, high=1.0), n=40,
        majority_share=0.5, auc=None, device="cpu",
    )  # fmt: skip
    for job, message in (
        (FilesExamined(), Answered(result=ProbeResult(probe="intake", pillar="intake", citation=""))),
        (Measured(), Examined(file="a", result=FileResult())),
        (Measured(), Repaired(notes=())),
        (Mitigated(), Asking(probe="a")),
        (DetectorTrained(), Repaired(notes=())),
        (DetectorTrained(), table),
        (Measured(), table),
        (TableLearned(), Repaired(notes=())),
    ):
        job.begin(["a"])
        with pytest.raises(ValueError, match="is no message of this job"):
            job.take(message, lambda _: None)


def test_a_file_that_ends_the_process_has_that_for_its_error_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def child(job: Job, done: FilesExamined, on_stage: object) -> _End:
        assert job.detection is not None
        calls.append(job.detection.files)
        if len(calls) == 1:
            done.files["a"] = FileResult(form="PNG")
            return _End("The measuring process was ended by SIGSEGV.", "b", "")
        done.files["c"] = FileResult(form="JPEG")
        return _End("", None, "")

    monkeypatch.setattr("auditor.run.parent_process._one_child", child)
    job = Job(
        model=ModelSpec(),
        data=None,
        probes=(),
        seed=0,
        limits=Limits(memory_bytes=1, seconds=1.0),
        detection=DetectionSpec(files=("a", "b", "c")),
    )
    found = examine(job).files
    assert calls == [("a", "b", "c"), ("c",)]
    assert [(name, result.form, "SIGSEGV" in result.error) for name, result in found.items()] == [
        ("a", "PNG", False),
        ("b", "", True),
        ("c", "JPEG", False),
    ]


# ---- sound ---------------------------------------------------------------------------------------------------------


class _Loud(nn.Module):
    """Takes for synthetic what is loud in its second half."""

    def forward(self, x: Tensor) -> Tensor:
        z = 40.0 * (x[:, x.shape[1] // 2 :].square().mean(dim=1).sqrt() - 0.1)
        return torch.stack([torch.zeros_like(z), z], dim=1)


def tone(*halves: float, seconds: float = 1.0) -> npt.NDArray[np.int16]:
    """Each half a tone as loud as it says."""
    n = int(8_000 * seconds)
    loudness = np.repeat(halves, n // 2)
    return np.rint(32_000 * loudness * np.sin(np.arange(len(loudness)) * 0.3)).astype(np.int16)


@pytest.fixture
def listener() -> Examination:
    detector = DeepfakeDetector(
        _Loud(),
        card=card(medium="speech", kinds=(), channel=ON_CHANNEL),
        classes=("real", "fake"),
        preprocessing=AudioPreprocessing(sampling_rate=8_000, samples=8_000),
    )
    return Examination(detector=detector)


def test_speech_is_heard_from_its_beginning_and_says_so(listener: Examination, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "loud.wav": as_wav(tone(0.05, 0.6), 8_000),
            "quiet.wav": as_wav(tone(0.05, 0.01), 8_000),
            "long.wav": as_wav(np.concatenate([tone(0.05, 0.6)] * 4), 8_000),
            "short.wav": as_wav(tone(0.05, 0.6, seconds=0.5), 8_000),
            "silent.wav": as_wav(np.zeros(8_000, np.int16), 8_000),
            "mute.mp4": as_video([fake_picture(np.random.default_rng(0), 32)] * 4),
        },
    )
    found = {path.name: listener.examine_file(path) for path in tmp_path.iterdir()}
    answers = {n: r.verdict.answer for n, r in found.items() if r.verdict is not None}
    assert answers == {
        "loud.wav": "fake",
        "quiet.wav": "no known trace",
        "long.wav": "fake",
        "short.wav": "fake",
    }
    assert found["long.wav"].notes == ("Only its first 1.0 s were judged: that is what the detector takes.",)
    assert found["short.wav"].notes == ("Its 0.5 s were repeated up to the 1.0 s that the detector takes.",)
    assert "silen" in found["silent.wav"].error and found["mute.mp4"].error


def test_what_is_no_regular_file_is_not_waited_for(listener: Examination, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "not a regular file" in listener.examine_file(tmp_path / "pipe.wav").error
    assert "cannot be read" in listener.examine_file(tmp_path / "gone.wav").error
