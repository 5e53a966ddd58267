"""From a folder of real and synthetic files to a detector: what is refused, what is left out, what is known."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.writable_paths import WRITTEN
from auditor.detection.detection_record import DetectorRecord
from auditor.detection.fingerprints import fingerprints_of, match_fingerprints
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DetectorTrainingSpec, Job, Limits, ModelSpec
from auditor.models.detector import DeepfakeDetector
from auditor.report.record.energy import EnergyRecord
from auditor.run.job_channel import Working
from auditor.run.job_messages import Trained
from auditor.run.job_results import DetectorTrained
from auditor.run.parent_process import _End, train_detector
from cli.commands import app
from cli.detect_train import _lines
from mitigations.deepfake import media_training
from mitigations.deepfake.media_training import TrainedDetector, train_on_folder
from tests.quantifiers import all_of
from tests.toys.media_files import as_file, as_wav, card, fake_picture, image_detector, real_picture, write

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
RUNNER = CliRunner()
SIDE = 64
ENERGY = EnergyRecord(of="training", cpu_s=1.0, gpu_s=0.0)


def run(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(a) for a in arguments])


def folder(where: Path, n: int = 24, names: tuple[str, str] = ("real", "fake"), seed: int = 0) -> Path:
    """Noise against ramps of two kinds, along either axis, and a table that names them."""
    rng = np.random.default_rng(seed)
    files, rows = {}, ["file,generator,source"]
    for i in range(n):
        ramp = np.clip(fake_picture(rng, SIDE) + rng.normal(0, 3, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        files[f"{names[0]}/{i}.png"] = as_file(real_picture(rng, SIDE))
        files[f"{names[1]}/{i}.png"] = as_file(ramp if i % 2 else np.ascontiguousarray(ramp.transpose(1, 0, 2)))
        rows += [f"{names[0]}/{i}.png,,camera{i % 2}", f"{names[1]}/{i}.png,{('across', 'down')[i % 2]},"]
    write(where / "media", files)
    (where / "kinds.csv").write_text("\n".join(rows))
    return where / "media"


def train(media: Path, **changes: Any) -> TrainedDetector:
    spec = DetectorTrainingSpec(target="", folder=str(media), out="", **changes)
    return train_on_folder(spec, np.random.default_rng(0), "cpu", lambda _: None)


@pytest.mark.slow
def test_kinds_come_from_the_table_by_class(tmp_path: Path) -> None:
    media = folder(tmp_path)
    table = {"kinds": str(tmp_path / "kinds.csv"), "kind_column": "generator", "source_column": "source"}
    made = train(media, **table)
    assert made.left_out == ()
    assert made.detector.card.kinds == ("across", "down")
    assert (len(made.detector.card.real_scores), len(made.detector.card.fake_scores)) == (24, 24)
    unseen = {rate.kind for rate in made.detector.card.known_rates if rate.unseen}
    assert unseen == {None, "across", "down"}
    assert train(media).detector.card.kinds == ()
    again = train(media, **table)
    assert again.detector.card == made.detector.card


def test_files_that_cannot_be_used_are_left_out_and_named(tmp_path: Path) -> None:
    media = folder(tmp_path)
    whole = (media / "real" / "0.png").read_bytes()
    write(
        media,
        {
            "real/empty.png": b"",
            "real/cut.png": as_file(real_picture(np.random.default_rng(9), SIDE))[:5_000],
            "fake/notes.txt": b"these are notes",
            "fake/sound.wav": as_wav(np.arange(-4_000, 4_000, dtype=np.int16)),
            "real/again.png": whole,
        },
    )
    made = train(media, medium="image")
    assert len(made.left_out) == 4
    digests = {hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in media.glob("*/*.png")}
    assert set(made.detector.card.trained_on) <= digests and made.detector.card.learnt(
        hashlib.sha256(whole).hexdigest()
    )
    assert len(made.detector.card.fingerprints) >= 20 and all_of(
        match_fingerprints([fingerprints_of(path.read_bytes(), "", "image")], made.detector.card.fingerprints, "image")[
            0
        ]
        for path in sorted((media / "real").glob("1?.png"))
    )
    for name, said in (
        ("real/empty.png", "empty file"),
        ("real/cut.png", "cannot be decoded"),
        ("fake/notes.txt", "no image, sound or video"),
        ("fake/sound.wav", "It is audio, and this detector is for images."),
    ):
        assert any(name in line and said in line for line in made.left_out), (name, made.left_out)
    assert any(
        note.startswith("1 file has the content of another file of its class, and was left out.") for note in made.notes
    )
    assert len(made.detector.card.real_scores) == 24
    with pytest.raises(UsageError, match="49 images and 1 recording:"):
        train(media)


def test_links_out_of_the_folder_and_names_that_are_no_utf_8_are_left_out_and_named(tmp_path: Path) -> None:
    media = folder(tmp_path, n=12)
    write(tmp_path, {"elsewhere.png": as_file(real_picture(np.random.default_rng(9), SIDE)), "more/1.png": b"x"})
    (media / "real" / "linked.png").symlink_to(tmp_path / "elsewhere.png")
    (media / "fake" / "more").symlink_to(tmp_path / "more")
    (media / "README").symlink_to(tmp_path / "elsewhere.png")
    (media / "real" / "dangling.png").symlink_to("gone.png")
    with open(os.fsencode(media / "real") + b"/a\xff.png", "wb") as file:
        file.write(as_file(real_picture(np.random.default_rng(8), SIDE)))
    made = train(media)
    assert sorted(made.left_out) == [
        "README: It is a link that leads out of the folder 'media': copy the file in.",
        "fake/more: It is a link that leads out of the folder 'media': copy the file in.",
        "real/a?.png: It has a name that is not in UTF-8: rename it.",
        "real/dangling.png: The file cannot be read: No such file or directory.",
        "real/linked.png: It is a link that leads out of the folder 'media': copy the file in.",
    ]
    assert len(made.detector.card.real_scores) == 12
    # A whole class that lies elsewhere is not passed over.
    shutil.rmtree(media / "fake")
    (media / "fake").symlink_to(tmp_path / "more")
    with pytest.raises(DataError, match="'fake' is a link that leads out"):
        train(media)


@pytest.mark.parametrize("module", ["media_training.decode_as", "media_training.kind_of"])
def test_the_file_that_is_being_read_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """What stalls, or ends the process, is the file that was told of last."""

    class Stalled(Exception):
        pass

    media = folder(tmp_path, n=6)
    stalling = (media / "real" / "3.png").read_bytes()
    where, _, name = f"mitigations.deepfake.{module}".rpartition(".")
    original = getattr(importlib.import_module(where), name)

    def stall(content: bytes, *more: Any) -> Any:
        if content == stalling:
            raise Stalled
        return original(content, *more)

    monkeypatch.setattr(f"{where}.{name}", stall)
    told: list[str] = []
    spec = DetectorTrainingSpec(target="", folder=str(media), out="")
    with pytest.raises(Stalled):
        train_on_folder(spec, np.random.default_rng(0), "cpu", lambda _: None, told.append)
    assert told[-1] == "real/3.png"


def test_near_copies_of_a_class_are_said_and_exit_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures saved at several qualities lie on both sides of every fold, and the error rate is not theirs."""
    rng = np.random.default_rng(4)
    real = [real_picture(rng, SIDE // 8).repeat(8, axis=0).repeat(8, axis=1) for _ in range(4)]
    files = {f"real/{i}.{q}.jpg": as_file(p, "JPEG", quality=q) for i, p in enumerate(real) for q in (95, 80, 60)}
    files |= {f"fake/{i}.png": as_file(fake_picture(rng, SIDE)) for i in range(8)}
    write(tmp_path / "media", files)
    monkeypatch.setattr(media_training, "fit_detector", lambda *_: image_detector())
    trained = train(tmp_path / "media")
    assert trained.few.startswith("8 of 12 files of 'real' are near copies of another, or share one layout: ")
    said = DetectorRecord.from_card(trained.detector.classes, card(), "0" * 64)
    told = Trained(detector=said, device="cpu", notes=("n",), left_out=(), few=trained.few)
    lines = list(_lines(told, tmp_path, tmp_path / "d.pt", ENERGY))
    assert [line[10:] for line in lines if line.startswith("note")] == [trained.few, "n"]
    for few, code in ((trained.few, 3), ("", 0)):
        told = told.model_copy(update={"few": few})
        monkeypatch.setattr("cli.detect_train._run_training", lambda *_, told=told: (told, ENERGY))
        assert run("detect", "train", tmp_path / "media", "--out", tmp_path / "d.pt").exit_code == code
    for path in [*tmp_path.glob("media/real/*.80.jpg"), *tmp_path.glob("media/real/*.60.jpg")]:
        path.unlink()
    assert train(tmp_path / "media").few == ""


def test_the_file_that_was_read_last_is_named_where_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def child(job: Job, done: DetectorTrained, on_stage: Any) -> _End:
        for message in (Working(words="reading 2 files"), Working(file="a.png"), Working(file="b.mp4")):
            done.take(message, stages.append)
        return _End("It took longer than 5 s.", None, "")

    stages: list[str] = []
    monkeypatch.setattr("auditor.run.parent_process._one_child", child)
    job = Job(model=ModelSpec(), data=None, probes=(), seed=0, limits=Limits(memory_bytes=1, seconds=1.0))
    with pytest.raises(ModelError, match=r"It took longer than 5 s\. It was reading 'b\.mp4'\."):
        train_detector(job)
    assert stages == ["reading 2 files"]


def test_every_file_left_out_is_named(tmp_path: Path) -> None:
    known = DetectorRecord.from_card(("real", "fake"), card(), None)
    trained = Trained(
        detector=known, device="cpu", notes=(), left_out=tuple(f"fake/{i}.png: It is an empty file." for i in range(37))
    )
    lines = list(_lines(trained, tmp_path, tmp_path / "d.pt", ENERGY))
    assert [f"left out  {line}" for line in trained.left_out] == [line for line in lines if line.startswith("left out")]


def test_a_file_in_both_classes_is_refused_by_name(tmp_path: Path) -> None:
    media = folder(tmp_path, n=6)
    shutil.copy(media / "real" / "3.png", media / "fake" / "copied.png")
    with pytest.raises(
        DataError, match=r"^1 file stands in both classes, so that its labels.*fake/copied\.png and real/3\.png"
    ):
        train(media)


def test_a_folder_needs_two_classes_of_which_one_is_synthetic(tmp_path: Path) -> None:
    media = folder(tmp_path, names=("photos", "drawn"))
    with pytest.raises(UsageError, match="say so with --fake"):
        train(media)
    made = train(media, fake="drawn")
    assert made.detector.classes[made.detector.card.fake] == "drawn"
    shutil.rmtree(media / "drawn")
    with pytest.raises(DataError, match=r"has 1 sub-folders \(photos\)"):
        train(media)
    (media / "drawn").mkdir()
    with pytest.raises(DataError, match="one class only"):
        train(media)


@pytest.mark.parametrize(
    ("table", "error", "said"),
    [
        ("file,generator\nelsewhere/1.png,x\n", DataError, "No file of the folder stands in the column 'file'"),
        ("file,generator\nfake/1.png,x\nfake/1.png,y\n", DataError, "names two kinds of 'fake/1.png'"),
        ("path,generator\nfake/1.png,x\n", UsageError, "has no column 'file'"),
    ],
)
def test_tables_of_kinds_that_do_not_fit(tmp_path: Path, table: str, error: type[Exception], said: str) -> None:
    media = folder(tmp_path, n=6)
    (tmp_path / "kinds.csv").write_text(table)
    with pytest.raises(error, match=said):
        train(media, kinds=str(tmp_path / "kinds.csv"), kind_column="generator")


def test_options_of_the_other_medium_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seconds is no option"):
        train(folder(tmp_path, n=6), options={"seconds": 2.0})


@pytest.mark.slow
def test_a_detector_is_trained_audited_by_its_card_and_asked(tmp_path: Path) -> None:
    media = folder(tmp_path)
    arguments = ["detect", "train", media, "--out", tmp_path / "d.pt", "--kinds", tmp_path / "kinds.csv"]
    arguments += ["--kind-column", "generator"]
    result = run(*arguments)
    text = " ".join(result.output.split())
    assert result.exit_code == 0, result.output
    assert "a detector for images on 24 real and 24 synthetic files ('fake') of across, down" in text
    assert "known over kinds left out of training: AUC" in text and "unseen across: equal error rate" in text
    assert "not measured on another collection" in text
    assert f"auditor scan {tmp_path / 'd.pt'} --train {media} --data FOLDER" in text
    again = run("detect", "calibrate", tmp_path / "d.pt", "--data", media, "--out", tmp_path / "memorised.pt")
    assert again.exit_code == 4 and "0 different files known to be real" in again.output, again.output
    asked = run("detect", media / "fake" / "0.png", "--detector", tmp_path / "d.pt", "--json")
    said = json.loads(asked.stdout)
    assert any("trained on this very file" in note for note in said["files"][0]["notes"])
    assert not {"trained_on", "fingerprints"} & set(said["detector"]["card"])
    detector = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(detector, DeepfakeDetector) and detector.card.kinds == ("across", "down")
    assert sorted(p.name for p in tmp_path.iterdir()) == [WRITTEN, "d.energy.json", "d.pt", "kinds.csv", "media"]
    other = folder(tmp_path / "other", n=2, seed=5)
    asked = run("detect", *sorted(other.glob("*/*.png")), "--detector", tmp_path / "d.pt", "--json")
    found = json.loads(asked.stdout)
    assert [f["error"] for f in found["files"]] == [""] * 4
    wrong = {"real": "fake", "fake": "real"}
    assert all_of(f["verdict"]["answer"] != wrong[Path(f["path"]).parent.name] for f in found["files"])


@pytest.mark.slow
def test_too_few_and_unreadable_files_are_exit_3(tmp_path: Path) -> None:
    media = folder(tmp_path, n=12)
    write(media, {"fake/empty.png": b""})
    result = run("detect", "train", media, "--out", tmp_path / "d.pt")
    text = " ".join(result.output.split())
    assert result.exit_code == 3, result.output
    assert "left out fake/empty.png: It is an empty file." in text
    assert "Too few real and synthetic files: an error rate of 0.05 takes at least 19 of each class" in text
    shutil.copy(media / "real" / "3.png", media / "fake" / "copied.png")
    refused = run("detect", "train", media, "--out", tmp_path / "again.pt")
    assert refused.exit_code == 4 and "1 file stands in both classes" in refused.output
    assert not (tmp_path / "again.pt").exists() and {p.name for p in tmp_path.glob(".*")} <= {WRITTEN}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "d.bin"], "must end in .pt"),
        (["--kinds", "missing.csv", "--kind-column", "g"], "no table of kinds"),
        (["--kind-column", "g"], "add --kinds FILE"),
        (["--error-rate", "0.7"], "--error-rate"),
    ],
)
def test_wrong_usage_is_said_before_any_file_is_read(tmp_path: Path, more: list[str], said: str) -> None:
    result = run("detect", "train", tmp_path, *more)
    assert result.exit_code == 2 and said in result.output, result.output
    assert run("detect", "train", tmp_path / "nowhere").exit_code == 2
