"""Recordings: read at the model's rate and length, from the folder only, and refused by name where damaged."""

from __future__ import annotations

import builtins
import io
import os
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from auditor.core.errors import AuditorError, DataError, MissingExtraError, ModelError, UsageError
from auditor.data import audio
from auditor.data.audio import Codec, Sound, decode, encode, fit_recording, resample
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.loading.rows.media_files import load_audio
from auditor.models.audited_model import AuditedModel

av = pytest.importorskip("av", reason="the extra 'media' is not installed")

RATE = 16_000
LOSSY: list[Codec] = ["mp3", "opus", "aac"]
ALL: list[Codec] = ["wav", "flac", *LOSSY]


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    t = np.arange(int(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * hertz * t)).astype(np.int16)


def wav(
    samples: npt.NDArray[Any], rate: int = RATE, channels: int = 1, width: int = 2, where: Path | None = None
) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    if where is not None:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(out.getvalue())
    return out.getvalue()


def float_wav(samples: npt.NDArray[np.float32], rate: int = RATE) -> bytes:
    body = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate, rate * 4, 4, 32)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def model(samples: int = RATE, rate: int = RATE) -> AuditedModel:
    preprocessing = AudioPreprocessing(sampling_rate=rate, samples=samples)
    return AuditedModel(lambda X: np.zeros(len(X)), classes=["a", "b"], preprocessing=preprocessing)


def refusal(data: bytes, name: str = "a.wav") -> str:
    with pytest.raises(AuditorError) as caught:
        decode(data, name)
    assert isinstance(caught.value, DataError)
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["wav", "flac"])
def test_lossless_files_come_back_exactly(codec: Codec) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, RATE).astype(np.int16)
    sound = decode(encode(samples, RATE, codec), "a")
    assert (sound.sampling_rate, sound.seconds) == (RATE, 1.0)
    np.testing.assert_array_equal(sound.samples, samples)


def test_a_wave_file_of_another_program_is_read_exactly() -> None:
    np.testing.assert_array_equal(decode(wav(tone()), "a").samples, tone())


@pytest.mark.parametrize("codec", LOSSY)
def test_lossy_files_keep_the_tone(codec: Codec) -> None:
    sound = decode(encode(tone(2.0), RATE, codec, 48_000), "a")
    assert abs(sound.seconds - 2.0) < 0.1
    spectrum = np.abs(np.fft.rfft(sound.samples * np.hanning(len(sound.samples))))
    assert abs(np.argmax(spectrum) * sound.sampling_rate / len(sound.samples) - 440.0) < 2.0
    assert abs(np.sqrt(np.mean(sound.samples[4000:-4000].astype(float) ** 2)) / (8000 / np.sqrt(2)) - 1.0) < 0.08


@pytest.mark.parametrize("codec", LOSSY)
def test_fewer_bits_make_smaller_files(codec: Codec) -> None:
    noise = np.random.default_rng(0).normal(0, 3000, 3 * RATE).astype(np.int16)
    sizes = [len(encode(noise, RATE, codec, rate)) for rate in (16_000, 32_000, 64_000)]
    assert sizes[0] * 1.5 < sizes[1] < sizes[2] / 1.3


def test_a_rate_that_an_encoder_lacks_is_resampled_up() -> None:
    assert decode(encode(tone(rate=9_000), 9_000, "mp3", 32_000), "a").sampling_rate == 11_025
    assert decode(encode(tone(rate=44_100), 44_100, "opus", 32_000), "a").sampling_rate == 48_000


def test_channels_are_averaged() -> None:
    left, right = tone(), tone(hertz=1000.0)
    stereo = np.stack([left, right], axis=1)
    expected = np.rint((left.astype(float) + right) / 2)
    assert np.abs(decode(wav(stereo, channels=2), "a").samples - expected).max() <= 1


@pytest.mark.parametrize("width", [1, 4])
def test_other_widths_are_scaled_to_sixteen_bits(width: int) -> None:
    samples = tone()
    kept = (samples.astype(np.int32) << 16) if width == 4 else ((samples >> 8) + 128).astype(np.uint8)
    expected = samples if width == 4 else (samples >> 8) << 8
    np.testing.assert_array_equal(decode(wav(kept, width=width), "a").samples, expected)


def test_fractions_are_clipped_and_what_is_no_number_is_refused() -> None:
    samples = np.full(RATE, 0.5, np.float32)
    samples[10] = 7.0
    found = decode(float_wav(samples), "a").samples
    assert (found[0], found[10]) == (16384, 32767)
    samples[5] = np.nan
    assert "no numbers" in refusal(float_wav(samples))


def test_resampling_keeps_what_fits_and_drops_what_does_not() -> None:
    for hertz, kept in ((1000.0, 1.0), (6000.0, 0.0)):
        found = resample(tone(rate=RATE, hertz=hertz), RATE, 8_000)[500:-500].astype(float)
        assert len(found) == 8_000 - 1000
        assert abs(np.sqrt(2 * np.mean(found**2)) / 8000 - kept) < 0.02
    low = resample(tone(rate=RATE), RATE, 8_000)[100:-100].astype(float)
    assert np.abs(low - tone(rate=8_000)[100:-100]).max() < 20


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode(tone(), RATE, "flac"))
    np.testing.assert_array_equal(load_audio(tmp_path, ["a.wav"], model())[0], tone())


def test_a_tag_before_the_sound_is_stepped_over() -> None:
    plain = encode(tone(), RATE, "flac")
    tagged = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 4]) + bytes(2 * 128 + 4) + plain
    np.testing.assert_array_equal(decode(tagged, "a").samples, tone())


# ---- as a model takes it -------------------------------------------------------------------------------------------


def test_rows_are_cut_at_the_end_or_repeated(tmp_path: Path) -> None:
    wav(tone(2.0), where=tmp_path / "deep/long.wav")
    wav(tone(0.3), where=tmp_path / "short.wav")
    rows = load_audio(tmp_path, ["deep/long.wav", "short.wav"], model())
    assert (rows.shape, rows.dtype) == ((2, RATE), np.int16)
    np.testing.assert_array_equal(rows[0], tone(2.0)[:RATE])
    np.testing.assert_array_equal(rows[1], np.tile(tone(0.3), 4)[:RATE])
    assert load_audio(tmp_path, [], model()).shape == (0, RATE)


def test_rows_have_the_models_rate_whether_the_whole_file_is_decoded_or_not(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 3000, 3 * 44_100).astype(np.int16)
    content = wav(samples, rate=44_100, where=tmp_path / "a.wav")
    row = load_audio(tmp_path, ["a.wav"], model())[0]
    wanted = AudioPreprocessing(sampling_rate=RATE, samples=RATE)
    np.testing.assert_array_equal(row, fit_recording(decode(content, "a"), wanted))
    assert fit_recording(Sound(tone(), RATE), wanted).tolist() == tone().tolist()


def test_only_the_beginning_is_decoded() -> None:
    content = encode(tone(20.0), RATE, "flac")
    assert 1.0 <= decode(content, "a", seconds=1.0).seconds < 1.5


def test_a_model_of_something_else_takes_no_sound(tmp_path: Path) -> None:
    other = AuditedModel(lambda X: np.zeros(len(X)), classes=["a", "b"], preprocessing=ImagePreprocessing(size=(4, 4)))
    with pytest.raises(ModelError, match="takes no sound"):
        load_audio(tmp_path, [], other)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ALL)
@pytest.mark.parametrize("kept", [0, 5, 30, 100])
def test_what_is_left_of_a_file_is_no_recording(codec: Codec, kept: int) -> None:
    assert "The recording" in refusal(encode(tone(), RATE, codec, 32_000)[:kept])


@pytest.mark.parametrize("codec", ["wav", "flac", "aac"])
def test_half_a_file_is_said_to_be_one(codec: Codec) -> None:
    content = encode(tone(2.0), RATE, codec, 32_000)
    assert any(words in refusal(content[: len(content) // 2]) for words in ("cut short", "Invalid data"))


def test_a_wave_file_from_a_pipe_does_not_know_its_length() -> None:
    content = bytearray(wav(tone()))
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(decode(bytes(content), "a").samples, tone())


@pytest.mark.parametrize(
    "content",
    [
        b"not sound at all, but long enough to be looked at",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.wav\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"<html></html>",
        b"RIFF\x00\x00\x00\x00AVI LIST",
    ],
)
def test_playlists_and_other_formats_are_not_opened(content: bytes) -> None:
    assert "none of WAV, FLAC" in refusal(content)


def test_references_to_other_files_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if a format that lists other files got past the look at the first bytes."""
    wav(tone(), where=tmp_path / "secret.wav")
    monkeypatch.chdir(tmp_path)
    content = b"ffconcat version 1.0\nfile 'secret.wav'\n"
    with av.open(io.BytesIO(content), format="concat") as control:
        assert next(control.decode(audio=0)).samples
    monkeypatch.setattr(audio, "_container", lambda data: "concat")
    assert "cannot be decoded" in refusal(content)


def test_silence_and_almost_nothing_are_refused() -> None:
    assert "silent" in refusal(wav(np.zeros(RATE, np.int16)))
    assert "silent" in refusal(wav(np.resize(np.array([1, -1], np.int16), RATE)))
    assert "lasts 0.050 seconds" in refusal(wav(tone(0.05)))


def test_odd_rates_and_many_channels_are_refused() -> None:
    assert "sampling rate of 2,000 hertz" in refusal(wav(tone(rate=2000), rate=2000))
    assert "sampling rate of 400,000 hertz" in refusal(wav(tone(rate=400_000), rate=400_000))
    assert "channels, more than 8" in refusal(wav(np.resize(tone(), RATE * 10), channels=10))


def test_a_small_file_that_swells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(np.full(60 * RATE, 900, np.int16), RATE, "flac")
    assert len(content) < 60 * RATE / 40
    monkeypatch.setattr(audio, "MAX_SAMPLES", 30 * RATE)
    assert "decompression bomb" in refusal(content)


def test_a_film_without_sound_is_said_to_have_none() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    assert "no stream of sound" in refusal(out.getvalue(), "a.mp4")


def test_a_codec_outside_of_the_list_starts_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(tone(), RATE, "flac")
    monkeypatch.setattr(audio, "_DECODERS", frozenset({"mp3"}))
    assert "the codec flac, which is not read" in refusal(content)
    with pytest.raises(DataError, match="which is not read"):
        audio.sampling_rate_of(content, "a")


def test_paths_may_not_leave_the_folder(tmp_path: Path) -> None:
    wav(tone(), where=tmp_path / "secret.wav")
    (tmp_path / "table").mkdir()
    (tmp_path / "table/link.wav").symlink_to(tmp_path / "secret.wav")
    os.mkfifo(tmp_path / "table/pipe.wav")
    for name, words in {
        "../secret.wav": "lies outside",
        str(tmp_path / "secret.wav"): "lies outside",
        "link.wav": "lies outside",
        "pipe.wav": "not a regular file",
        "absent.wav": "cannot be read",
        "": "no path",
    }.items():
        with pytest.raises(DataError, match=words):
            load_audio(tmp_path / "table", [name], model())


def test_damaged_files_raise_data_errors_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for codec in ALL:
        content = encode(tone(0.5), RATE, codec, 32_000)
        for _ in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, min(len(damaged), 2_000), 8):
                damaged[place] = rng.integers(256)
            try:
                outcomes.add(type(decode(bytes(damaged), "a")).__name__)
            except DataError as error:
                outcomes.add("DataError")
                assert str(error).isprintable()
    assert outcomes == {"Sound", "DataError"}


def test_codecs_and_bit_rates_are_named() -> None:
    with pytest.raises(UsageError, match="one of wav, flac, mp3, opus, aac"):
        encode(tone(), RATE, "wma")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="between 4,000 and 512,000"):
        encode(tone(), RATE, "mp3", 100)


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "av" or name.startswith("av."):
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    for call in (lambda: load_audio(tmp_path, [], model()), lambda: encode(tone(), RATE, "mp3")):
        with pytest.raises(MissingExtraError, match="media"):
            call()
