"""Video: which frames are taken, that they are the right ones, what is refused, and the verdict over their scores."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.rows import FloatArray
from auditor.data import images_and_video
from auditor.data.audio import encode
from auditor.data.images_and_video import Frames, sample_frames
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.detection.detection_record import FileResult, FileVerdict
from auditor.detection.detector_calibration import on_channel
from auditor.detection.video_verdict import judge_frames, judged_video, mean_interval
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import ChannelCalibration, DetectorCard

av = pytest.importorskip("av", reason="the extra 'media' is not installed")


def film(
    n: int = 60,
    rate: int = 10,
    size: tuple[int, int] = (32, 48),
    gop: int = 12,
    container: str = "mp4",
    step: int = 1,
    codec: str = "mpeg4",
) -> bytes:
    """Frame i is grey of brightness ``40 + step i``, its left half 20 brighter."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = gop
        for i in range(n):
            picture = np.full((*size, 3), 40 + step * i, np.uint8)
            picture[:, : size[1] // 2] += 20
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return out.getvalue()


def numbers(frames: Frames, step: int = 1) -> list[int]:
    """Which frames they are, by their brightness."""
    right = frames.pixels[:, :, frames.pixels.shape[2] * 3 // 4 :].astype(float).mean(axis=(1, 2, 3))
    return [round((value - 40) / step) for value in right]


# ---- frames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("gop", [1, 12, 60])
def test_frames_are_evenly_spaced_and_the_right_ones(container: str, gop: int) -> None:
    found = sample_frames(film(gop=gop, container=container, step=3), "a", 6)
    assert found.pixels.shape == (6, 32, 48, 3)
    assert numbers(found, 3) == [5, 15, 25, 35, 45, 55]
    np.testing.assert_allclose(found.seconds, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], atol=1e-3)


def test_frames_that_are_stored_out_of_order_are_taken_in_order() -> None:
    """H.264 and HEVC look ahead: a frame may be stored after one that is shown later."""
    for codec in ("libx264", "libvpx-vp9"):
        if codec in av.codecs_available:
            found = sample_frames(film(codec=codec, container="matroska", step=3), "a", 6)
            assert numbers(found, 3) == [5, 15, 25, 35, 45, 55]


@pytest.mark.parametrize("gop", [10, 200])
def test_a_long_film_is_not_decoded_from_end_to_end(gop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = film(n=200, rate=2, gop=gop)
    assert numbers(sample_frames(content, "a", 4)) == [25, 75, 125, 175]
    # With a key frame every ten frames, each of the four is at most nine away from one.
    monkeypatch.setattr(images_and_video, "MAX_DECODED", 4 * 10)
    if gop == 10:
        assert len(sample_frames(content, "a", 4).pixels) == 4
    else:
        with pytest.raises(DataError, match="cut it into parts"):
            sample_frames(content, "a", 4)


def test_a_film_of_few_frames_is_taken_whole() -> None:
    assert numbers(sample_frames(film(n=5, step=8), "a", 32), 8) == [0, 1, 2, 3, 4]
    assert numbers(sample_frames(film(n=1), "a", 32), 8) == [0]


def test_the_left_stays_left_and_a_turned_film_is_turned_upright() -> None:
    content = bytearray(film(n=3))
    plain = sample_frames(bytes(content), "a").pixels[0].astype(int)
    assert (plain[:, :20].mean() - plain[:, 28:].mean()) > 15
    # The matrix of the track header: a quarter turn clockwise, as telephones write it.
    place = content.index(b"tkhd") + 4 + 4 + 20 + 16
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    turned = sample_frames(bytes(content), "a").pixels[0].astype(int)
    assert turned.shape == (48, 32, 3)
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


def test_what_is_kept_may_be_smaller() -> None:
    found = sample_frames(film(), "a", 4, shrink=lambda pixels: pixels[::8, ::8])
    assert found.pixels.shape == (4, 4, 6, 3)


def refusal(data: bytes, n: int = 8) -> str:
    with pytest.raises(DataError) as caught:
        sample_frames(data, "a.mp4", n)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_damaged_and_other_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = film(n=60)
    assert "empty file" in refusal(b"")
    assert "none of WAV" in refusal(b"#EXTM3U\nhttp://127.0.0.1/a.ts\n" * 10)
    assert "cannot be decoded" in refusal(content[: len(content) // 2])
    sound = encode((3000 * np.sin(np.arange(16_000) / 9)).astype(np.int16), 16_000, "aac")
    assert "no stream of pictures" in refusal(sound)
    monkeypatch.setattr(images_and_video, "MAX_PIXELS", 32 * 48 - 1)
    assert "48 x 32 pixels, more than" in refusal(content)


def test_a_film_whose_end_is_missing_is_said_to_be_cut_short(tmp_path: Path) -> None:
    """Its table of contents in front, so that the rest can be read."""
    out = str(tmp_path / "a.mp4")
    with (
        av.open(io.BytesIO(film(n=100))) as whole,
        av.open(out, "w", format="mp4", options={"movflags": "faststart"}) as file,
    ):
        stream = file.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert numbers(sample_frames(content, "a", 2)) == [25, 75]
    assert any(w in refusal(content[: len(content) // 2]) for w in ("cut short", "cannot be decoded"))


def test_too_large_to_hold_and_impossible_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_and_video, "MAX_BYTES", 3 * 32 * 48 * 3)
    assert "take fewer" in refusal(film(n=10))
    for n in (0, 257):
        with pytest.raises(UsageError, match="1 to 256"):
            sample_frames(film(n=2), "a", n)


def test_damage_raises_data_errors_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for container in ("mp4", "matroska"):
        content = film(n=20, container=container)
        for _ in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, len(damaged), 20):
                damaged[place] = rng.integers(256)
            try:
                sample_frames(bytes(damaged), "a", 4)
                outcomes.add("read")
            except DataError:
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# ---- verdicts ------------------------------------------------------------------------------------------------------


class _Brightness(nn.Module):
    """Log-odds of being synthetic: ten times the mean of the encoded picture, which is in [-1, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        z = 5.0 * x.mean(dim=(1, 2, 3))
        return torch.stack([-z, z], dim=1)


def detector(**changes: Any) -> DeepfakeDetector:
    card: dict[str, Any] = {
        "medium": "image",
        "fake": 1,
        "real_scores": tuple(np.linspace(0.0, 0.3, 60)),
        "fake_scores": tuple(np.linspace(0.7, 1.0, 60)),
        "channel": ChannelCalibration(unit="video", n_fake=60, n_found=60),
    }
    preprocessing = ImagePreprocessing(size=(8, 8))
    whole = DetectorCard(**(card | changes))
    return DeepfakeDetector(_Brightness(), card=whole, classes=("real", "fake"), preprocessing=preprocessing)


def judged(values: list[int], **changes: Any) -> FileVerdict:
    """The verdict on a video of grey frames, each of one brightness."""
    model = detector(**changes)
    shown = np.stack([np.full((8, 8, 3), v, np.uint8) for v in values])
    scores = model.predict_proba(shown)[:, 1]
    return judge_frames(model.card, scores, np.arange(len(values)) / 10)


def test_the_verdict_is_of_the_mean_which_is_one_score() -> None:
    found = judged([200, 210, 220, 230] * 4)
    logits = 10.0 * (np.asarray([200, 210, 220, 230] * 4) / 255 - 0.5) / 0.5
    scores = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose([f.probability for f in found.frames], scores, rtol=1e-5)
    assert found.probability == pytest.approx(scores.mean())
    assert found.probability is not None and (found.p_real, found.p_fake) == detector().card.p_values(found.probability)
    assert (found.answer, [f.seconds for f in found.frames[:2]]) == ("fake", [0.0, 0.1])


def test_real_mixed_and_unproven_videos() -> None:
    assert judged([40] * 8).answer == "no known trace"
    mixed = judged([40, 215] * 8)
    assert (mixed.answer, "either class" in mixed.reason) == ("cannot say", True)
    unproven = judged([40] * 8, channel=None)
    assert unproven.answer == "cannot say" and "not calibrated" in unproven.reason


def test_a_video_is_a_unit_and_real_ones_are_called_fake_as_seldom_as_promised() -> None:
    """Frames of one video are alike: 32 of them are no 32 files; the bound is 4 standard errors above."""
    rng = np.random.default_rng(0)

    def films(n: int) -> FloatArray:
        return 1.0 / (1.0 + np.exp(-(rng.normal(0.0, 1.0, (n, 1)) + rng.normal(0.0, 0.3, (n, 32)))))

    wrong, before = [], detector().card
    for _ in range(200):
        verdicts = [judge_frames(before, row, np.arange(32.0)) for row in films(39)]
        known = [FileResult(medium="video", sha256=f"{i:x}", verdict=v) for i, v in enumerate(verdicts)]
        card = on_channel(before, known, ())
        assert card.channel is not None and card.channel.unit == "video" and len(card.real_scores) == 39
        wrong += [card.p_values(float(row.mean()))[0] <= 0.05 for row in films(5)]
    assert abs(np.mean(wrong) - 2 / 40) <= 4 * np.sqrt(0.05 * 0.95 / 200)
    channel = ChannelCalibration(unit="video", n_fake=39, n_found=39)
    proven = card.model_copy(update={"fake_scores": (1.0,) * 39, "channel": channel})
    assert not proven.silence((), video=True) and "calibrated on videos" in proven.silence((), video=False)


def test_the_interval_is_student_s_over_blocks() -> None:
    from scipy import stats

    scores = np.random.default_rng(0).uniform(0.2, 0.8, 32)
    means = scores.reshape(8, 4).mean(axis=1)
    expected = stats.t.interval(0.95, 7, loc=scores.mean(), scale=stats.sem(means))
    assert mean_interval(scores) == pytest.approx(expected)
    assert mean_interval(scores[:3]) == (None, None)
    assert mean_interval(np.asarray([0.0, 1.0] * 2 + [1.0] * 4))[1] == 1.0


def test_the_interval_covers_where_neighbouring_frames_are_alike() -> None:
    """An autoregression of 0.6, 32 frames: plain Student's over frames covers some 70 %, blocks about 90 %."""
    rng = np.random.default_rng(0)
    covered, plain = 0, 0
    for _ in range(1000):
        x = np.empty(132)
        x[0] = 0.0
        for i in range(1, 132):
            x[i] = 0.6 * x[i - 1] + rng.normal(0, 0.05)
        scores = 0.5 + x[100:]
        low, high = mean_interval(scores)
        assert low is not None and high is not None
        covered += low <= 0.5 <= high
        plain += abs(scores.mean() - 0.5) <= 2.04 * scores.std(ddof=1) / np.sqrt(32)
    assert covered >= 860
    assert plain <= 750


def test_a_detector_of_speech_takes_no_video() -> None:
    own = detector()
    own.preprocessing = AudioPreprocessing()
    with pytest.raises(ModelError, match="judged by its frames"):
        judged_video(own, film(n=2), "a")
