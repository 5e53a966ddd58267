"""Marks of a generator's files: what is counted as one, what survives, and what is none however often it is found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from auditor.core.errors import DataError, OtherKindError, UsageError
from auditor.detection.generator_files import load_made
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.statistics.intervals import clopper_pearson
from probes.deepfake.degradations import PICTURE_LADDERS
from probes.deepfake.marking import Marking, decoder_of
from tests.detection.content_credentials import SYNTHETIC, signed, signing
from tests.quantifiers import all_of
from tests.toys import detectors, marked
from tests.toys.media_files import as_file
from tests.toys.models import criterion

GOOD = "tests.toys.marked:finds"


def measure(folder: Path, **options: Any) -> list[Measurement]:
    model, data = load_made(str(folder))
    return Marking(**{"n_samples": 4} | options).measure(model, data, np.random.default_rng(0))


def named(found: list[Measurement], metric: str, **at: Any) -> Measurement:
    (one,) = [m for m in found if m.metric == metric and dict(m.at) == at]
    return one


def judged(found: list[Measurement], metric: str, direction: Any, bound: float) -> Judgement:
    result = ProbeResult(probe="marking", pillar="deepfake", citation="", measurements=tuple(found))
    judgements = judge([result], [criterion(metric, direction, bound)])[0]
    (one,) = [
        j
        for j in judgements
        if j.measurement is not None and j.criterion is not None and j.measurement.metric == metric
    ]
    return one


def test_shares_are_counted_with_exact_intervals(tmp_path: Path) -> None:
    found = measure(marked.outputs(tmp_path, 20, share=0.9, unmarked=60), decoder=GOOD)
    share = named(found, "marked_share")
    low, high = share.estimate.bounds(0.10)  # type: ignore[union-attr]
    below, above = clopper_pearson(18, n=20, alpha=0.10)
    assert share.estimate.value == 0.9 and (low, high) == pytest.approx((float(below), float(above)))
    assert named(found, "found_share", mark=GOOD).estimate.value == 0.9
    assert named(found, "false_detection_rate").estimate.value == 0.0
    assert named(found, "surviving_share").n_samples == 4
    rungs = [m for m in found if m.metric.startswith("found_share_under_")]
    assert len(rungs) == sum(len(ladder.levels) for ladder in PICTURE_LADDERS)
    assert judged(found, "marked_share", "at_least", 0.5).outcome is Outcome.PASS


def test_a_mark_that_an_ordinary_change_takes_off_does_not_survive(tmp_path: Path) -> None:
    """A decoder that finds its mark in files as they were made, by their digests, finds none after any change."""
    found = measure(marked.outputs(tmp_path, 10, unmarked=60), decoder="tests.toys.marked:untouched")
    assert named(found, "marked_share").estimate.value == 1.0
    survives = named(found, "surviving_share")
    assert survives.estimate.value == 0.0 and "fewest after jpeg 95: 0 of 4" in survives.detail


@pytest.mark.parametrize("decoder", ["tests.toys.marked:always", "tests.toys.marked:tosses"])
@pytest.mark.parametrize("unmarked", [0, 60])
def test_a_decoder_that_finds_marks_everywhere_passes_nothing(decoder: str, unmarked: int, tmp_path: Path) -> None:
    found = measure(marked.outputs(tmp_path, 30, unmarked=unmarked), decoder=decoder)
    for metric in ("marked_share", "surviving_share", "found_share"):
        one = judged(found, metric, "at_least", 0.0 if decoder.endswith("tosses") else 0.3)
        assert one.outcome is not Outcome.PASS, metric
    share = judged(found, "marked_share", "at_least", 0.1)
    assert share.outcome is Outcome.INCONCLUSIVE
    assert ("may be no mark" if unmarked else "finds a mark in every file would get the same") in share.reason
    if unmarked:
        wrong = judged(found, "false_detection_rate", "at_most", 0.05)
        assert wrong.outcome is Outcome.FAIL
    else:
        assert named(found, "false_detection_rate").n_samples == 0


def _as_jpeg(folder: Path) -> None:
    for path in folder.glob("*.png"):
        PIL.Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()


@pytest.mark.parametrize("few", [0, 1])
def test_a_decoder_that_tells_formats_apart_passes_nothing(few: int, tmp_path: Path) -> None:
    """Outputs are PNG, and unmarked files JPEG but for a few: what is said of every PNG is said of no JPEG."""
    folder = marked.outputs(tmp_path, 30, unmarked=100 + few)
    kept = sorted((folder / "real").glob("*.png"))[:few]
    contents = [path.read_bytes() for path in kept]
    _as_jpeg(folder / "real")
    for path, content in zip(kept, contents, strict=True):
        path.write_bytes(content)
    found = measure(folder, decoder="tests.toys.marked:of_format")
    assert named(found, "false_detection_rate").estimate.value == pytest.approx(few / (100 + few), abs=0.001)
    for metric in ("marked_share", "found_share", "surviving_share"):
        one = judged(found, metric, "at_least", 0.1)
        assert one.outcome is Outcome.INCONCLUSIVE and "PNG" in one.reason, metric


def test_a_decoder_that_finds_marks_in_whatever_was_changed_survives_nothing(tmp_path: Path) -> None:
    folder = marked.outputs(tmp_path, 30, unmarked=60)
    for path in folder.glob("*/*.png"):
        note = PngInfo()
        note.add_text("Software", "as made")
        PIL.Image.open(path).save(path, pnginfo=note)
    found = measure(folder, decoder="tests.toys.marked:of_changed")
    assert judged(found, "marked_share", "at_least", 0.5).outcome is Outcome.PASS
    survives = judged(found, "surviving_share", "at_least", 0.1)
    assert survives.outcome is Outcome.INCONCLUSIVE
    assert "4 of 4 unmarked files that were changed alike" in survives.reason
    rungs = [m for m in found if m.metric.startswith("found_share_under_")]
    assert all_of("4 of 4 unmarked files" in m.weak for m in rungs)


def test_few_unmarked_files_show_nothing_of_a_decoder(tmp_path: Path) -> None:
    found = measure(marked.outputs(tmp_path, 30, unmarked=20), decoder=GOOD)
    share = judged(found, "marked_share", "at_least", 0.5)
    assert share.outcome is Outcome.INCONCLUSIVE and "0 of 20 unmarked files" in share.reason


def test_one_marked_file_copied_is_one_file(tmp_path: Path) -> None:
    folder = marked.outputs(tmp_path, 5, share=0.2, unmarked=60)
    for i in range(95):
        shutil.copy(folder / "fake" / "000.png", folder / "fake" / f"copy{i}.png")
    share = named(measure(folder, decoder=GOOD), "marked_share")
    assert (share.estimate.value, share.n_samples) == (0.2, 5) and "95 exact copies" in share.detail


@pytest.mark.parametrize("side", ["fake", "real"])
def test_near_copies_of_few_files_show_no_more_than_those(side: str, tmp_path: Path) -> None:
    """The same picture saved again, larger or smaller, is no other output, and no other unmarked file."""
    n = {"fake": 59, "real": 59} | {side: 4}
    folder = marked.outputs(tmp_path, n["fake"], unmarked=n["real"])
    first = PIL.Image.open(folder / side / "000.png").convert("RGB")
    for i in range(59 - 4):
        first.resize((33 + i, 33 + i), PIL.Image.Resampling.BICUBIC).save(folder / side / f"again{i}.png")
    found = measure(folder, decoder=GOOD)
    share = judged(found, "marked_share", "at_least", 0.9)
    said = {"fake": "of 59 outputs are near copies", "real": "of 59 unmarked files are near copies"}[side]
    assert share.outcome is Outcome.INCONCLUSIVE and said in share.reason
    wrong = judged(found, "false_detection_rate", "at_most", 0.06)
    assert wrong.outcome is (Outcome.PASS if side == "fake" else Outcome.INCONCLUSIVE)


@pytest.mark.parametrize(("plain", "passes"), [(2, True), (4, False)])
def test_outputs_whose_near_copies_cannot_be_told_pass_nothing(plain: int, passes: bool, tmp_path: Path) -> None:
    """A ramp saved again and again is no other output, and no fingerprint says so."""
    folder = marked.outputs(tmp_path, 59 - plain, unmarked=59)
    for i in range(plain):
        ramp = np.broadcast_to(np.linspace(200, 100, 40 + i).astype(np.uint8)[None, :, None], (40, 40 + i, 3))
        (folder / "fake" / f"plain{i}.png").write_bytes(as_file(np.ascontiguousarray(ramp)))
    share = judged(measure(folder, decoder=GOOD), "marked_share", "at_least", 0.9)
    assert share.outcome is (Outcome.PASS if passes else Outcome.INCONCLUSIVE), share.reason
    if not passes:
        assert "Of 4 of 59 outputs it cannot be told whether they are near copies" in share.reason


def test_a_file_on_both_sides_is_refused(tmp_path: Path) -> None:
    folder = marked.outputs(tmp_path, 3, unmarked=3)
    shutil.copy(folder / "fake" / "000.png", folder / "real" / "same.png")
    with pytest.raises(DataError, match="one or the other"):
        measure(folder, decoder=GOOD)


def _signed(folder: Path, by: Any, count: int, source: str = SYNTHETIC) -> None:
    for path in sorted(folder.glob("*.png"))[:count]:
        path.write_bytes(signed(path.read_bytes(), "image/png", by, source=source))


def test_only_a_trusted_manifest_that_declares_generation_is_a_mark(tmp_path: Path) -> None:
    folder = marked.outputs(tmp_path / "made", 10)
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    by, stranger = signing(), signing()
    _signed(folder, by, 6)
    names = sorted(folder.glob("*.png"))
    for path, who, source in ((names[6], stranger, SYNTHETIC), (names[7], by, camera)):
        path.write_bytes(signed(path.read_bytes(), "image/png", who, source=source))
    # Its hash is another, and the picture can still be seen.
    names[0].write_bytes(names[0].read_bytes() + b"x")
    anchors = tmp_path / "root.pem"
    anchors.write_text(by.root)
    found = measure(folder, trust_anchors=str(anchors))
    trusted = named(found, "trusted_manifest_share")
    assert trusted.estimate.value == 0.5 == named(found, "marked_share").estimate.value
    assert "8 of 10 files have a manifest; 6 trusted; 1 intact, signer unknown; 1 not valid" in trusted.detail
    assert "1 of the trusted declare no generation by AI" in trusted.detail
    assert named(found, "intact_manifest_share").estimate.value == 0.6
    assert named(found, "timestamped_manifest_share").estimate.value == 0.0
    assert named(found, "surviving_share").estimate.value == 0.0
    one = judged(found, "trusted_manifest_share", "at_least", 0.05)
    assert one.outcome is Outcome.PASS, one.reason
    untrusted = measure(folder)
    for metric in ("trusted_manifest_share", "marked_share", "surviving_share"):
        one = judged(untrusted, metric, "at_least", 0.1)
        assert one.outcome is Outcome.NOT_APPLICABLE and "trust_anchors" in one.reason


def test_folders_that_name_no_unmarked_files_are_outputs_all_and_other_files_are_named(tmp_path: Path) -> None:
    marked.outputs(tmp_path / "a" / "landscapes", 2)
    marked.outputs(tmp_path / "a" / "real", 2, seed=1)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    data = load_made(str(tmp_path / "a"))[1]
    assert data.y_true is None and len(data) == 4 and data.unreadable[0].startswith("notes.txt: It is neither")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="No file of 'b'"):
        load_made(str(tmp_path / "b"))


def test_a_model_that_made_nothing_is_of_another_kind() -> None:
    with pytest.raises(OtherKindError, match="--predictions FOLDER"):
        Marking().measure(detectors.of_halves(), detectors.pictures(4), np.random.default_rng(0))


def test_a_decoder_answers_yes_or_no(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="answered a float"):
        decoder_of("tests.toys.marked:unsure").find(b"")
    with pytest.raises(DataError, match="raised UnidentifiedImageError"):
        decoder_of(GOOD).find(b"no picture")
    with pytest.raises(UsageError, match="package.module:function"):
        decoder_of("stable-signature")


def test_sound_is_changed_as_sound_is(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    import wave

    rng = np.random.default_rng(0)
    for i in range(2):
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes((3_000 * rng.standard_normal(16_000)).astype("<i2").tobytes())
    found = measure(tmp_path, decoder="tests.toys.marked:always")
    assert named(found, "found_share_under_telephone", medium="audio", calls=1.0).estimate.value == 1.0
    assert named(found, "surviving_share").n_samples == 2
