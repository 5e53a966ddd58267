"""What happens to files on their way: each change against a slow version, and the curve that a detector draws."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import AudioPreprocessing
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.report.drawing.figures import figures_of
from auditor.statistics.detection import LargestDrop
from auditor.statistics.rates import WeightedSum
from probes.deepfake.degradations import PICTURE_LADDERS, SOUND_LADDERS, changed_picture, changed_sound
from probes.deepfake.robustness_ladder import DetectorRobustness, balanced_accuracy
from tests.quantifiers import all_of
from tests.toys import detectors as toys

PIL = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
RATE = 16_000


def measure(model: AuditedModel, data: AuditData, **options: Any) -> list[Measurement]:
    return DetectorRobustness(**options).measure(model, data, np.random.default_rng(0))


def curve(found: list[Measurement], metric: str) -> dict[float, float]:
    return {float(next(iter(m.at.values()))): m.estimate.value for m in found if m.metric == metric}


def judged(found: list[Measurement]) -> Any:
    result = ProbeResult(probe="detector_robustness", pillar="deepfake", citation="", measurements=tuple(found))
    return judge([result], load_criteria())[0], result


def photo(seed: int = 0) -> Any:
    """A picture with edges and texture."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(30, 225, (6, 8, 3)).repeat(12, axis=0).repeat(12, axis=1)
    return PIL.fromarray(np.clip(blocks + 6 * rng.standard_normal(blocks.shape), 0, 255).astype(np.uint8))


def speech(seed: int = 0, n: int = RATE) -> Any:
    """Something with pitch, bands and pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / RATE
    x = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 40)) + 0.1 * rng.standard_normal(n)
    return np.rint(4_000 * x * (np.sin(2 * np.pi * 3 * t) > -0.5)).astype(np.int16)


# ---- changes of pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ladder", PICTURE_LADDERS, ids=lambda ladder: ladder.name)
def test_a_picture_keeps_its_size_and_changes_more_the_farther_up(ladder: Any) -> None:
    picture = photo()
    away = []
    for level in ladder.levels:
        changed = changed_picture(picture, ladder.name, level, np.random.default_rng(1))
        assert changed.mode == "RGB"
        if ladder.name != "screenshot":
            assert changed.size == picture.size
        back = np.asarray(changed.resize(picture.size), float)
        away.append(np.abs(back - np.asarray(picture, float)).mean())
    assert 0.0 < away[0] and all_of(a < b for a, b in zip(away, away[1:], strict=False))
    assert set(ladder.everyday) <= set(ladder.levels)


def test_changes_of_pictures_are_what_they_are_called() -> None:
    picture, rng = photo(), np.random.default_rng(1)
    values = np.asarray(picture, float)
    out = BytesIO()
    picture.save(out, "JPEG", quality=60)
    compressed = np.asarray(PIL.open(BytesIO(out.getvalue())))
    np.testing.assert_array_equal(np.asarray(changed_picture(picture, "jpeg", 60, rng)), compressed)
    noisy = np.asarray(changed_picture(picture, "noise", 0.05, np.random.default_rng(2)), float)
    z = np.random.default_rng(2).standard_normal(values.shape, dtype=np.float32)
    np.testing.assert_array_equal(noisy, np.clip(np.rint(values + np.float32(0.05 * 255) * z), 0, 255))
    cropped = np.asarray(changed_picture(picture, "crop", 0.5, rng), float)
    middle = picture.crop((24, 18, 72, 54)).resize((96, 72), PIL.Resampling.BILINEAR)
    np.testing.assert_array_equal(cropped, np.asarray(middle, float))
    brighter = np.asarray(changed_picture(PIL.new("RGB", (9, 9), (100, 100, 100)), "colour", 0.2, rng))
    # A grey plane has no contrast and no colour to raise.
    assert (brighter == 120).all()
    shot = changed_picture(PIL.new("RGB", (50, 40), (128, 128, 128)), "screenshot", 1, rng)
    assert shot.size == (40, 32) and abs(int(np.asarray(shot)[0, 0, 0]) - round(255 * (128 / 255) ** 1.1)) <= 1


# ---- changes of sound ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ladder", SOUND_LADDERS, ids=lambda ladder: ladder.name)
def test_sound_keeps_its_length_and_changes_more_the_farther_up(ladder: Any) -> None:
    if ladder.name in ("mp3", "opus"):
        pytest.importorskip("av", reason="the extra `media` is not installed")
    x = speech()
    spectrum = np.log(np.abs(np.fft.rfft(x.reshape(-1, 800), axis=1)) + 1e3)
    away = []
    for level in ladder.levels:
        changed = changed_sound(x, RATE, ladder.name, level, np.random.default_rng(1))
        assert changed.dtype == np.int16 and changed.shape == x.shape
        away.append(np.abs(np.log(np.abs(np.fft.rfft(changed.reshape(-1, 800), axis=1)) + 1e3) - spectrum).mean())
    assert 0.0 < away[0] and all_of(a < b for a, b in zip(away, away[1:], strict=False))


def test_changes_of_sound_are_what_they_are_called() -> None:
    x = speech()
    noisy = changed_sound(x, RATE, "noise", 10, np.random.default_rng(1)).astype(float)
    ratio = 10 * np.log10(np.square(x.astype(float)).mean() / np.square(noisy - x).mean())
    assert ratio == pytest.approx(10.0, abs=0.3)
    on_the_phone = np.abs(np.fft.rfft(changed_sound(x, RATE, "telephone", 1, np.random.default_rng(1)).astype(float)))
    whole = np.abs(np.fft.rfft(x.astype(float)))

    def kept(low: int, high: int) -> float:
        return float(np.square(on_the_phone[low:high]).sum() / np.square(whole[low:high]).sum())

    assert kept(140, 160) < 0.1 and kept(4_400, 6_000) < 0.02 and 0.7 < kept(600, 3_000) < 1.3
    click = np.zeros(RATE, np.int16)
    click[0] = 30_000
    room = changed_sound(click, RATE, "reverberation", 0.5, np.random.default_rng(1)).astype(float)
    early, late = (np.square(room[a : a + 800]).sum() for a in (800, 4_800))
    # 60 decibels in 0.5 seconds are 30 in the quarter of a second between the two.
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=2.0)
    silence = np.zeros(4_000, np.int16)
    for ladder in SOUND_LADDERS:
        assert not changed_sound(silence, RATE, ladder.name, ladder.levels[0], np.random.default_rng(0)).any()


# ---- the probe -----------------------------------------------------------------------------------------------------


def test_every_rung_against_a_loop_over_files() -> None:
    data, model = toys.pictures(30), toys.of_grid()
    found = measure(model, data, methods=["jpeg", "noise"])
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 2**63 - 1, (30, len(DetectorRobustness.methods)))
    fake = np.asarray(data.y_true) == 1
    for name, column in (("jpeg", "jpeg_quality"), ("noise", "noise")):
        place = DetectorRobustness.methods.index(name)
        ladder = next(k for k in PICTURE_LADDERS if k.name == name)
        for level in ladder.levels:
            rows = np.stack(
                [
                    np.asarray(changed_picture(PIL.fromarray(x), name, level, np.random.default_rng(seed[place])))
                    for x, seed in zip(np.asarray(data.X), seeds, strict=True)
                ]
            )
            p = model.predict_proba(rows)[:, 1]
            auc = np.mean([(a > b) + 0.5 * (a == b) for a in p[fake] for b in p[~fake]])
            assert curve(found, f"auc_under_{name}")[level] == pytest.approx(auc)
            accuracy = ((p[fake] >= 0.5).mean() + (p[~fake] < 0.5).mean()) / 2
            assert curve(found, f"balanced_accuracy_under_{name}")[level] == pytest.approx(accuracy)
        assert all_of(column in m.at for m in found if m.method == name)


def test_the_headline_is_the_largest_drop_over_everyday_rungs() -> None:
    found = measure(toys.of_grid(), toys.pictures(60), methods=["jpeg", "blur"])
    headline = found[0]
    assert isinstance(headline.estimate, LargestDrop) and len(headline.estimate.parts) == 4
    clean = 1.0
    everyday = [curve(found, "auc_under_jpeg")[q] for q in (95, 85, 75)] + [curve(found, "auc_under_blur")[0.5]]
    assert headline.estimate.value == pytest.approx(clean - min(everyday), abs=0.01)
    assert "largest under" in headline.detail


@pytest.mark.grid
@pytest.mark.parametrize(("robust", "outcome"), [(True, Outcome.PASS), (False, Outcome.FAIL)])
def test_a_detector_of_what_compression_takes_away_fails(robust: bool, outcome: Outcome) -> None:
    model = toys.of_halves() if robust else toys.of_grid()
    findings, result = judged(measure(model, toys.pictures(200)))
    (own,) = (f for f in findings if f.criterion is not None and f.measurement is not None)
    assert own.outcome is outcome
    curves = {f.id for f in figures_of(findings, [result])}
    assert {"detector_robustness/curve/jpeg/jpeg_quality", "detector_robustness/curve/crop/kept"} <= curves


def test_changes_are_made_on_the_file_itself(tmp_path: Path) -> None:
    """Files four times the size of the rows: compression of the large picture leaves of the grid what it leaves."""

    def doubled(picture: Any, where: Path, fake: bool) -> str:
        picture.resize((128, 128), PIL.Resampling.NEAREST).save(where.with_suffix(".png"))
        return where.name + ".png"

    data = toys.pictures(80)
    in_files = toys.saved(data, tmp_path, doubled)
    of_rows, of_files = (curve(measure(toys.of_grid(), d, methods="jpeg"), "auc_under_jpeg") for d in (data, in_files))
    assert of_files[30.0] > of_rows[30.0] + 0.1


def test_speech_goes_up_its_own_ladders() -> None:
    pytest.importorskip("av", reason="the extra `media` is not installed")
    rng = np.random.default_rng(3)
    fake = np.arange(24) % 2 == 1
    X = np.stack([speech(i, 8_000) for i in range(24)]).astype(float)
    hiss = 300 * rng.standard_normal(X.shape)
    spectrum = np.fft.rfft(hiss, axis=1)
    spectrum[:, :2_500] = 0.0
    X = X + fake[:, None] * np.fft.irfft(spectrum, n=8_000, axis=1)
    data = AuditData(X=np.rint(X).astype(np.int16), y_true=fake.astype(np.int64), classes=toys.CLASSES)

    def high(rows: Any) -> Any:
        energy = np.square(np.abs(np.fft.rfft(np.asarray(rows, float), axis=1))[:, 2_500:]).mean(axis=1)
        p = np.clip(np.log(energy + 1.0) / 40.0, 0, 1)
        return np.column_stack([1.0 - p, p])

    model = AuditedModel.from_callable(high, classes=toys.CLASSES)
    model.preprocessing = AudioPreprocessing(samples=8_000)
    found = measure(model, data)
    assert {m.method for m in found} == {"everyday", *(ladder.name for ladder in SOUND_LADDERS)}
    assert curve(found, "auc_under_noise")[30.0] > 0.9
    # The telephone has no band above 3,400 hertz, and what is left there says nothing.
    assert curve(found, "auc_under_telephone")[1.0] < 0.9
    with pytest.raises(NotApplicableError, match="jpeg does not apply to sound"):
        measure(model, data, methods="jpeg")


def test_without_codecs_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    rng = np.random.default_rng(4)
    X = rng.integers(-3_000, 3_000, (12, 1_000)).astype(np.int16)
    data = AuditData(X=X, y_true=np.arange(12) % 2, classes=toys.CLASSES)
    model = AuditedModel.from_callable(lambda rows: np.full(len(rows), 0.5), classes=toys.CLASSES)
    findings, _ = judged(measure(model, data))
    said = {
        f.measurement.metric: f for f in findings if f.measurement is not None and f.outcome is Outcome.NOT_APPLICABLE
    }
    assert set(said) == {"auc_under_mp3", "auc_under_opus"}
    assert "responsible-auditor[media]" in said["auc_under_mp3"].reason


def test_balanced_accuracy_is_the_mean_of_two_shares() -> None:
    fake = np.array([True, True, True, False, False])
    found = balanced_accuracy(np.array([True, False, False, True, True]), fake)
    assert isinstance(found, WeightedSum) and found.value == pytest.approx((1 / 3 + 1) / 2)
    assert np.isnan(balanced_accuracy(fake, np.ones(5, bool)).value)


def test_bad_options_are_said() -> None:
    with pytest.raises(ValueError, match="methods must be auto or out of jpeg"):
        DetectorRobustness(methods="rain")
    with pytest.raises(ValueError, match="n_samples"):
        DetectorRobustness(n_samples=0)


# ---- error rates and power -----------------------------------------------------------------------------------------


def test_declared_power_is_there() -> None:
    """One of six everyday rungs drops by so much; the others do not."""
    from scipy.stats import norm

    from auditor.statistics.detection import area_difference

    n, drop = DetectorRobustness.power
    rng = np.random.default_rng(5)
    own = np.arange(2 * n) < n
    found = 0
    for _ in range(100):
        base = rng.standard_normal(2 * n)
        areas = np.array([0.95, 0.95, 0.95, 0.95, 0.95, 0.95 - drop])
        z = 0.8 * base[:, None] + 0.6 * rng.standard_normal((2 * n, 6)) + own[:, None] * norm.ppf(areas) * 2**0.5
        first = base + own * norm.ppf(0.95) * 2**0.5
        estimate = LargestDrop(
            parts=tuple(area_difference(first=first, second=z[:, k], positive=own) for k in range(6))
        )
        found += estimate.bounds(0.05)[0] > 0.10
    assert found >= 80 - 12


@pytest.mark.parametrize("fit", ["stretch", "cover", "crop"])
def test_a_changed_file_is_brought_to_size_as_the_model_brings_it(tmp_path: Path, fit: Any) -> None:
    """A change that is none: the row comes out as it was read, whatever the model's way, large pictures included."""
    from auditor.data.images_and_video import decode_as
    from auditor.data.preprocessing import ImagePreprocessing
    from probes.deepfake.detector_files import LONGEST_SIDE, as_row, no_larger, picture_of, taken_by

    wanted = ImagePreprocessing(size=(32, 32), fit=fit)
    model = toys.of_halves()
    model.preprocessing = wanted
    rng = np.random.default_rng(0)
    for size in ((90, 60), (20, 40), (LONGEST_SIDE + 301, 40)):
        pixels = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        PIL.fromarray(pixels).save(tmp_path / "a.png")
        row = decode_as((tmp_path / "a.png").read_bytes(), "a.png", wanted)
        files = np.array([str(tmp_path / "a.png")], object)
        data = AuditData(X=row[None], y_true=np.zeros(1, np.int64), classes=toys.CLASSES, files=files)
        taken = taken_by(model, data)
        assert taken is wanted
        again = as_row(no_larger(picture_of(data, 0), taken), row, taken)
        if max(size) <= LONGEST_SIDE or fit == "crop":
            np.testing.assert_array_equal(again, row)
