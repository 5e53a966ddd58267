"""Detection of a file's type by its content, never by its name."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from auditor.core.errors import AuditorError

Medium = Literal["image", "audio", "video"]
IN_WORDS: dict[Medium, str] = {"image": "an image", "audio": "audio", "video": "video"}
# Said of a video by a detector of sound that was asked alone.
SOUND_ONLY = "Of this video the sound track was judged, not the pictures."

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "HEIF": (".heic", ".heif"),
    "AVIF": (".avif",),
    "WAV": (".wav", ".wave"),
    "FLAC": (".flac",),
    "MP3": (".mp3",),
    "AAC": (".aac",),
    "OGG": (".ogg", ".oga", ".ogv", ".opus", ".spx"),
    "MP4": (".mp4", ".m4a", ".m4v", ".mov", ".m4b", ".3gp", ".qt"),
    "MATROSKA": (".mkv", ".mka", ".webm"),
    "AVI": (".avi",),
}
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"fLaC", "FLAC"),
    (b"ID3", "MP3"),
)
_BRANDS = {b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF"}
# What is often sent along and is no medium.
_DOCUMENTS = ((b"%PDF-", "PDF"), (b"PK\x03\x04", "ZIP"), (b"\xd0\xcf\x11\xe0", "Office"), (b"{\\rtf", "RTF"))
# Metadata whose presence tells how a file came.
_METADATA = ("exif", "icc_profile", "jfif", "photoshop", "xmp", "progressive", "comment", "encoder", "software", "make")
_SOUND = {"WAV", "MP3", "AAC", "FLAC"}
# Containers that hold sound, video, or both: their streams say which.
_EITHER = {"MP4", "MATROSKA", "OGG", "AVI"}


@dataclass(frozen=True)
class FileKind:
    """The medium of a file (None if unknown) and its format, such as ``JPEG`` ("" if unknown)."""

    medium: Medium | None
    form: str

    def misnamed(self, name: str) -> bool:
        """Whether the suffix of the name contradicts the detected format."""
        suffix = PurePath(name).suffix.lower()
        known = {s for suffixes in _SUFFIXES.values() for s in suffixes}
        return suffix in known and suffix not in _SUFFIXES.get(self.form, ())


def kind_of(content: bytes) -> FileKind:
    """The file type by its first bytes, and for containers of sound or video by their streams.

    Of documents and plain text the format is told, without a medium.

    Raises DataError where such a container cannot be opened, MissingExtraError without PyAV for one.
    """
    form = _form(content)
    if not form:
        return FileKind(None, _document(content))
    if form in _EITHER:
        return FileKind(_medium_of_streams(content), form)
    return FileKind("audio" if form in _SOUND else "image", form)


def _form(content: bytes) -> str:
    for start, form in _STARTS:
        if content.startswith(start):
            return form
    if content[:4] in (b"RIFF", b"RF64"):
        return {b"WAVE": "WAV", b"WEBP": "WEBP", b"AVI ": "AVI"}.get(content[8:12], "")
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12], "MP4")
    if content.startswith(b"OggS"):
        return "OGG"
    if content.startswith(b"\x1a\x45\xdf\xa3"):
        return "MATROSKA"
    if content[:1] == b"P" and content[1:2] in tuple(b"%d" % i for i in range(1, 7)) and content[2:3].isspace():
        return "PPM"
    if len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0:
        # Layer 0 of the frame header is AAC's, the others are MPEG audio's.
        return "AAC" if content[1] & 0x06 == 0 else "MP3"
    return ""


def _document(content: bytes) -> str:
    named = next((form for start, form in _DOCUMENTS if content.startswith(start)), "")
    if named or not content or b"\0" in content:
        return named
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "text"


def _medium_of_streams(content: bytes) -> Medium | None:
    from auditor.data.audio import open_container

    with open_container(content, "It") as container:
        # A cover picture is a stream of video, and no video.
        pictures = [s for s in container.streams.video if "ATTACHED_PIC" not in str(s.disposition).upper()]
        return "video" if pictures else "audio" if container.streams.audio else None


def container_facts(content: bytes, kind: FileKind) -> tuple[str, ...]:
    """What a file's container says of how it came: encoding, dimensions, metadata; none if it cannot be read.

    Of a JPEG the quantisation tables, in a digest; of sound and video codecs, rates and channels. Nothing is decoded.
    """
    try:
        return _picture_facts(content, kind) if kind.medium == "image" else _stream_facts(content, kind)
    except (AuditorError, OSError, ValueError, SyntaxError, TypeError, KeyError, ImportError):
        return ()


def _picture_facts(content: bytes, kind: FileKind) -> tuple[str, ...]:
    from PIL.JpegImagePlugin import get_sampling

    from auditor.data.images_and_video import open_image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_image(content) as picture:
            encoding = f"{kind.form} {picture.mode}"
            if tables := getattr(picture, "quantization", None):
                digest = hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8]
                encoding += f" sampling {get_sampling(picture)} tables {digest}"
            known = sorted(str(name) for name in picture.info if name in _METADATA)
            # Turned pictures come the same way.
            size = f"{max(picture.size)} x {min(picture.size)}"
    return encoding, size, f"metadata {' '.join(known) or 'none'}"


def _stream_facts(content: bytes, kind: FileKind) -> tuple[str, ...]:
    from auditor.data.audio import open_container

    with open_container(content, "It") as container:
        sound = [f"{s.codec_context.name} {s.rate} Hz {s.channels} channels" for s in container.streams.audio]
        pictures = [f"{s.codec_context.name} {s.width} x {s.height}" for s in container.streams.video]
        tags = sorted(name.lower() for name in container.metadata if name.lower() in _METADATA)
    return (
        f"{kind.form} {', '.join(sound) or 'no sound'}"[:200],
        f"{', '.join(pictures) or 'no pictures'}"[:200],
        f"metadata {' '.join(tags) or 'none'}",
    )
