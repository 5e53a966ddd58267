"""Sound for models: bounded decoding from memory, one channel, resampling, telephone and web codecs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from auditor.core.errors import AuditorError, DataError, MissingExtraError, UsageError, first_line
from auditor.core.files import printable_name
from auditor.data.preprocessing import AudioPreprocessing

if TYPE_CHECKING:
    from av.container import InputContainer


Samples = npt.NDArray[np.int16]
Codec = Literal["wav", "flac", "mp3", "opus", "aac"]
MAX_SAMPLES = 64_000_000
MAX_CHANNELS = 8
MIN_RATE, MAX_RATE = 4_000, 192_000
MIN_SECONDS = 0.1
# Nothing above -72 dB of full scale is the noise of a converter, not a recording.
SILENT_PEAK = 8
# Decoders are a closed list: what is no recording of sound or video starts none of ffmpeg's hundreds of others.
_DECODERS = frozenset(
    "flac mp3 mp3float aac vorbis opus libopus alac pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le pcm_s32be pcm_u8 "
    "pcm_f32le pcm_f64le pcm_alaw pcm_mulaw adpcm_ima_wav adpcm_ms "
    "h264 hevc vp8 libvpx-vp8 vp9 libvpx-vp9 av1 libdav1d libaom-av1 mpeg4 mjpeg".split()
)
# Encoder, container and the sampling rates that each takes; None: any.
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_AAC_RATES = (*_MP3_RATES, 64_000, 88_200, 96_000)
_ENCODERS: dict[str, tuple[str, str, tuple[int, ...] | None]] = {
    "wav": ("pcm_s16le", "wav", None),
    "flac": ("flac", "flac", None),
    "mp3": ("libmp3lame", "mp3", _MP3_RATES),
    "opus": ("libopus", "ogg", _OPUS_RATES),
    "aac": ("aac", "ipod", _AAC_RATES),
}


@dataclass(frozen=True, eq=False)
class Sound:
    """One channel of sound: ``samples`` (n,) int16, full scale 32,768, at ``sampling_rate`` hertz."""

    samples: Samples
    sampling_rate: int

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return len(self.samples) / self.sampling_rate


def fit_recording(sound: Sound, preprocessing: AudioPreprocessing) -> Samples:
    """(samples,) int16 of a recording as model input: resampled, then truncated or repeated."""
    found = resample(sound.samples, sound.sampling_rate, preprocessing.sampling_rate)
    return np.resize(found[: preprocessing.samples], preprocessing.samples)


def decode(data: bytes, name: str, *, seconds: float | None = None) -> Sound:
    """The sound of a file's content, or its first ``seconds``: WAV, FLAC, MP3, Ogg, MP4 / M4A, AAC, Matroska / WebM.

    What it is, its content decides, not its name. Several channels are averaged. The first stream of sound is taken,
    from memory, by decoders of a closed list; references to other files and addresses are not followed. ``name``: for
    messages. Raises DataError where it is empty, none of these, without sound, damaged, silent, shorter than
    MIN_SECONDS, outside of the bounds above, or cut short of the length that its header states (MP3, Ogg and AAC are
    streams and state none); MissingExtraError without PyAV.
    """
    what = f"The recording {printable_name(name)!r}"
    _check_riff(data, what)
    with open_container(data, what) as container:
        stream = _sound(container, what)
        parts, rate, stopped = _mono(container, stream, what, seconds)
        stated = stream.duration if container.format.name.split(",")[0] in ("flac", "mov") else None
        base = stream.time_base
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if not len(samples):
        raise DataError(f"{what} holds no sound that can be decoded.")
    length = len(samples) / rate
    expected = float(stated * base) if stated is not None and base is not None else length
    if not stopped and length < expected - max(0.1, 0.02 * expected):
        raise DataError(f"{what} is cut short: {length:.2f} of {expected:.2f} seconds are there.")
    if length < MIN_SECONDS:
        raise DataError(f"{what} lasts {length:.3f} seconds: nothing shorter than {MIN_SECONDS:g} can be judged.")
    whole = _int16(samples)
    if int(np.abs(whole.astype(np.int32)).max()) < SILENT_PEAK:
        raise DataError(f"{what} is silent: there is nothing in it to judge.")
    return Sound(whole, rate)


def sampling_rate_of(data: bytes, name: str) -> int:
    """Hertz of a file's first stream of sound as its header has it; DataError as :func:`decode` raises it."""
    what = f"The recording {printable_name(name)!r}"
    with open_container(data, what) as container:
        return int(_sound(container, what).rate or 0)


def resample(samples: Samples, rate: int, target_rate: int) -> Samples:
    """(m,) int16 at ``target_rate`` hertz of (n,) at ``rate``, through scipy's polyphase anti-aliasing filter."""
    if rate == target_rate:
        return samples
    from scipy.signal import resample_poly

    shared = math.gcd(rate, target_rate)
    found = resample_poly(samples.astype(np.float32) / np.float32(32768.0), target_rate // shared, rate // shared)
    return _int16(found)


def encode(samples: Samples, sampling_rate: int, codec: Codec, bit_rate: int | None = None) -> bytes:
    """The content of a file with this sound, (n,) int16, encoded by ``codec`` at about ``bit_rate`` bits per second.

    ``wav`` and ``flac`` lose nothing and take no bit rate. ``mp3``, ``opus`` (in Ogg) and ``aac`` (in M4A) take the
    sampling rates of their encoders: others are resampled up to the next one first. Decoded again, the lossy ones may
    be some milliseconds longer. Raises UsageError for another codec or a bit rate out of [4,000, 512,000],
    MissingExtraError without PyAV or an encoder in it.
    """
    if codec not in _ENCODERS:
        raise UsageError(f"The codec must be one of {', '.join(_ENCODERS)}, not {codec!r}.")
    if bit_rate is not None and not 4_000 <= bit_rate <= 512_000:
        raise UsageError(f"A bit rate is between 4,000 and 512,000 bits a second, not {bit_rate!r}.")
    need_av()
    import av

    encoder, container, rates = _ENCODERS[codec]
    if rates is not None and sampling_rate not in rates:
        nearest = min((r for r in rates if r >= sampling_rate), default=max(rates))
        samples, sampling_rate = resample(samples, sampling_rate, nearest), nearest
    out = BytesIO()
    try:
        with av.open(out, "w", format=container) as file:
            stream: Any = file.add_stream(encoder, rate=sampling_rate, layout="mono")
            if bit_rate is not None and rates is not None:
                stream.bit_rate = bit_rate
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = sampling_rate, 0
            for part in (frame, None):
                for packet in stream.encode(part):
                    file.mux(packet)
    except av.codec.codec.UnknownCodecError:
        raise MissingExtraError(
            f"This build of PyAV has no encoder {encoder}: pip install --force-reinstall 'responsible-auditor[media]'."
        ) from None
    except av.FFmpegError as error:
        raise UsageError(
            f"{codec} at {bit_rate} bits a second cannot keep sound of {sampling_rate:,} hertz ({first_line(error)})."
        ) from None
    return out.getvalue()


def need_av() -> None:
    """Raise MissingExtraError if PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "Reading sound and video needs PyAV: pip install 'responsible-auditor[media]'."
        ) from None


@contextmanager
def open_container(data: bytes, subject: str) -> Iterator[InputContainer]:
    """A file's content opened by PyAV, from memory only; ``subject`` begins every DataError raised by reading it."""
    need_av()
    import av

    if not data:
        raise DataError(f"{subject} cannot be decoded: it is an empty file.")
    kind = _container(data)
    if kind is None:
        raise DataError(
            f"{subject} cannot be decoded: it is none of WAV, FLAC, MP3, Ogg, MP4, M4A, AAC, Matroska and WebM."
        )
    try:
        with av.open(
            BytesIO(data),
            "r",
            format=kind,
            metadata_errors="replace",
            # No protocol is called that: a file that names another one is not followed.
            container_options={"protocol_whitelist": "none", "codec_whitelist": ",".join(sorted(_DECODERS))},
        ) as container:
            yield container
    except AuditorError:
        raise
    except (av.FFmpegError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"{subject} cannot be decoded: {printable_name(reason)}.") from None


def _container(data: bytes) -> str | None:
    """ffmpeg's name of the container that the first bytes tell of, or None."""
    start = 0
    # A tag that may stand before MP3, AAC and FLAC; its length is in four bytes of seven bits.
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        start += 10 + sum(
            (b & 0x7F) << shift for b, shift in zip(data[start + 6 : start + 10], (21, 14, 7, 0), strict=True)
        )
    head = data[start : start + 12]
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        return "wav"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "mp4"
    if len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # ADTS has layer 0, which MPEG sound has not.
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


def _sound(container: InputContainer, subject: str) -> Any:
    if not container.streams.audio:
        raise DataError(f"{subject} has no stream of sound.")
    return with_known_codec(container.streams.audio[0], subject)


def with_known_codec(stream: Any, subject: str) -> Any:
    """The audio stream with a single-threaded decoder; DataError for an unsupported codec."""
    codec = stream.codec_context
    if codec is None or codec.name not in _DECODERS:
        name = "an unknown codec" if codec is None else f"the codec {printable_name(codec.name)}, which is not read"
        raise DataError(f"{subject} is in {name}: save it as WAV, FLAC, MP3 or H.264.")
    codec.thread_count = 1
    return stream


def _check_riff(data: bytes, subject: str) -> None:
    """Raises DataError where a WAV file has fewer bytes than its header states."""
    if data[:4] != b"RIFF" or len(data) < 8:
        return
    stated = int.from_bytes(data[4:8], "little")
    # Programs that write to a pipe do not know the length, and state the largest.
    if len(data) - 8 < stated < 0x7FFF_F000:
        raise DataError(f"{subject} is cut short: {len(data) - 8:,} of {stated:,} bytes are there.")


def _mono(
    container: InputContainer, stream: Any, subject: str, seconds: float | None
) -> tuple[list[npt.NDArray[np.float32]], int, bool]:
    """Parts of one channel, their sampling rate, and whether decoding stopped because enough was there."""
    parts: list[npt.NDArray[np.float32]] = []
    rate = n = 0
    for frame in container.decode(stream):
        rate = rate or frame.sample_rate
        if frame.sample_rate != rate or not MIN_RATE <= rate <= MAX_RATE:
            raise DataError(
                f"{subject} has a sampling rate of {frame.sample_rate:,} hertz: one between {MIN_RATE:,} and "
                f"{MAX_RATE:,} is needed, the same throughout."
            )
        channels = frame.layout.nb_channels
        if channels > MAX_CHANNELS:
            raise DataError(f"{subject} has {channels} channels, more than {MAX_CHANNELS}.")
        parts.append(_fractions(frame, channels, subject))
        n += len(parts[-1])
        if seconds is not None and n >= seconds * rate:
            return parts, rate, True
        if n > MAX_SAMPLES:
            raise DataError(
                f"{subject} has more than {MAX_SAMPLES:,} samples: a decompression bomb, or to be cut into parts first."
            )
    return parts, rate, False


def _fractions(frame: Any, channels: int, subject: str) -> npt.NDArray[np.float32]:
    """(n,) the mean of a frame's channels, in [-1, 1]."""
    values = frame.to_ndarray()
    by_channel = values if frame.format.is_planar else values.reshape(-1, channels).T
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise DataError(f"{subject} holds samples that are no numbers.")
        whole = np.clip(by_channel, -1.0, 1.0).mean(axis=0, dtype=np.float64)
    elif values.dtype == np.uint8:
        whole = (by_channel.mean(axis=0, dtype=np.float64) - 128.0) / 128.0
    else:
        whole = by_channel.mean(axis=0, dtype=np.float64) / -float(np.iinfo(values.dtype).min)
    return np.asarray(whole, np.float32)


def _int16(fractions: npt.NDArray[np.floating[Any]]) -> Samples:
    return np.asarray(np.clip(np.rint(fractions * 32768.0), -32768, 32767), np.int16)
