"""What a file shows, in bits: the same on whatever way it came, others for another; and what a card makes of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from auditor.core.errors import DataError
from auditor.detection.detection_record import FileResult
from auditor.detection.detector_calibration import few_in_truth, learnt_of, on_channel
from auditor.detection.examine_file import Examination
from auditor.detection.fingerprints import MOST_APART, fingerprints_of, match_fingerprints, repeated
from tests.quantifiers import none_of
from tests.toys.media_files import as_wav, card, image_detector, write

PIL_Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
SIDE = 120


def photographs(n: int) -> list[Any]:
    """Parts of the two photographs that come with scikit-learn, no two of which overlap."""
    found = []
    for whole in load_sample_images().images:
        for y in range(0, whole.shape[0] - SIDE, SIDE):
            for x in range(0, whole.shape[1] - SIDE, SIDE):
                part = np.ascontiguousarray(whole[y : y + SIDE, x : x + SIDE])
                found += [PIL_Image.fromarray(part)] if part.std() > 30.0 else []
    assert len(found) >= n
    return found[:n]


def saved(picture: Any, quality: int = 90, scale: float = 1.0, *, mirror: bool = False) -> bytes:
    picture = picture.transpose(PIL_Image.Transpose.FLIP_LEFT_RIGHT) if mirror else picture
    side = round(SIDE * scale)
    out = io.BytesIO()
    picture.resize((side, side), PIL_Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def prints(content: bytes) -> tuple[str, ...]:
    return fingerprints_of(content, "", "image")


@pytest.mark.parametrize(
    "way",
    [{"quality": 30}, {"quality": 75, "scale": 0.5}, {"scale": 2.0}, {"quality": 60, "scale": 0.7, "mirror": True}],
)
def test_a_picture_saved_again_is_known_and_another_is_not(way: dict[str, Any]) -> None:
    pictures = photographs(12)
    known = [prints(saved(picture, 95))[0] for picture in pictures[:6]]
    again = match_fingerprints([prints(saved(picture, **way)) for picture in pictures], known, "image")
    assert again.tolist() == [True] * 6 + [False] * 6


def test_pictures_that_show_nothing_have_none_and_are_like_nobody() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (64, 64))
    flat = [PIL_Image.fromarray(np.full((64, 64), 200, np.uint8)), PIL_Image.fromarray(np.ascontiguousarray(ramp))]
    found = [prints(saved(picture)) for picture in flat]
    assert found == [(), ()] and prints(b"no picture") == ()
    assert none_of(match_fingerprints(found, [prints(saved(photographs(1)[0]))[0]], "image").tolist())
    assert match_fingerprints([("0" * 64,)], (), "image").tolist() == [False]


def test_pictures_of_one_layout_are_not_told_apart_and_the_words_say_so() -> None:
    """A limit: discs of another texture each on one white ground."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    rng, discs = np.random.default_rng(0), []
    for _ in range(20):
        texture = rng.integers(0, 60, (10, 10)).repeat(12, axis=0).repeat(12, axis=1)
        discs.append(prints(saved(PIL_Image.fromarray(np.where(x**2 + y**2 < 2_500, texture, 255).astype(np.uint8)))))
    assert repeated(discs, "image") > 10
    files = [FileResult(sha256=f"{i:064}", fingerprints=each) for i, each in enumerate(discs)]
    assert "near copies of another, or share one layout" in few_in_truth(card(), files)


def test_chance_makes_no_two_files_alike() -> None:
    """Of unrelated files each bit differs with probability a half: so few as to be alike never come by chance."""
    from scipy.stats import binom

    # Of 50,000 training files and 10,000 known ones.
    assert 5e8 * binom.cdf(MOST_APART["speech"], 256, 0.5) < 1e-6 > 5e8 * binom.cdf(MOST_APART["image"], 256, 0.5)


def test_sound_is_known_after_a_codec_and_another_rate() -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    from scipy.signal import lfilter, resample_poly

    from auditor.data.audio import encode

    rng = np.random.default_rng(3)
    sounds = [
        (3_000 * lfilter([1.0], [1.0, -1.6, 0.8], rng.normal(size=48_000)) / 3.0).astype(np.int16) for _ in range(6)
    ]
    known = [fingerprints_of(as_wav(sound), "", "speech")[0] for sound in sounds[:3]]
    slower = [as_wav(resample_poly(sound, 1, 2).astype(np.int16), 8_000) for sound in sounds]
    coded = [encode(sound, 16_000, "opus") for sound in sounds]
    for files in (slower, coded):
        found = match_fingerprints([fingerprints_of(content, "", "speech") for content in files], known, "speech")
        assert found.tolist() == [True] * 3 + [False] * 3


def test_training_files_saved_again_calibrate_nothing_and_are_said(tmp_path: Path) -> None:
    pictures = photographs(12)
    trained = tuple(prints(saved(picture, 95))[0] for picture in pictures[:6])
    detector = image_detector().with_card(card(trained_on=("0" * 16,), fingerprints=trained))
    write(tmp_path, {f"{i:02}.jpg": saved(picture, 60, 0.6) for i, picture in enumerate(pictures)})
    calibrating = Examination(detector=detector, scores_only=True)
    found = [calibrating.examine_file(path) for path in sorted(tmp_path.iterdir())]
    assert learnt_of(detector.card, found) == ["alike"] * 6 + [""] * 6
    told = [any("a file that the detector was trained on" in note for note in result.notes) for result in found]
    assert told == [True] * 6 + [False] * 6
    new = [_many(result) for result in found[6:]]
    with pytest.raises(DataError, match=r"6 different files .* trained on as it was on 6 of these"):
        on_channel(detector.card, found, ())
    calibrated = on_channel(detector.card, [*found, *(each for group in new for each in group)], ())
    assert len(calibrated.real_scores) == 6 * 5
    # Whoever only asks is told, and the bits go nowhere.
    asked = Examination(detector=detector).examine_file(tmp_path / "00.jpg")
    assert asked.fingerprints == () and any("looks or sounds like a file" in note for note in asked.notes)


def test_one_photograph_saved_twenty_times_is_no_twenty_known_files(tmp_path: Path) -> None:
    first, *others = photographs(12)
    write(tmp_path, {f"a{i:02}.jpg": saved(first, 60 + i, 0.6 + 0.05 * i) for i in range(20)})
    detector = image_detector()
    calibrating = Examination(detector=detector, scores_only=True)
    one = [calibrating.examine_file(path) for path in sorted(tmp_path.iterdir())]
    assert few_in_truth(detector.card, one).startswith("19 of 20 files known to be real are near copies of another")
    write(tmp_path / "more", {f"{i}.jpg": saved(picture) for i, picture in enumerate(others)})
    new = [calibrating.examine_file(path) for path in sorted((tmp_path / "more").iterdir())]
    assert few_in_truth(detector.card, [*new, one[0]]) == "" != few_in_truth(detector.card, [*new, *one[:2]])


def _many(result: FileResult) -> list[FileResult]:
    return [result.model_copy(update={"sha256": f"{result.sha256}{i}"[-64:]}) for i in range(4)]
