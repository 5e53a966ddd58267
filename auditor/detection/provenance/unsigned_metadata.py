"""Unsigned metadata of images, sound and video (EXIF, XMP, IPTC, container tags), and the suggested generators.

None of it proves anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from auditor.data.audio import open_container
from auditor.data.images_and_video import image_errors, open_image
from auditor.detection.provenance.provenance_record import (
    LONGEST_VALUE,
    Origin,
    Statement,
    Where,
    origin_of,
    short_type,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# Names that mean a generator and little else; words such as "flux" or "imagen" mean too much else.
_NAMES = re.compile(
    r"midjourney|dall[·\-\u2010-\u2015 ]?e\b|stable[ _-]?diffusion|sdxl|novelai|comfyui|invokeai|automatic1111|fooocus|"
    r"adobe firefly|openai|made with google ai|bing image creator|ideogram|leonardo\.ai|elevenlabs|synthesia|heygen|"
    r"\bespeak|\bflite\b|piper[ -]tts",
    re.IGNORECASE,
)
_GRAPHS = ("prompt", "workflow")
_OF_INVOKE = ("invokeai_metadata", "invokeai_graph", "sd-metadata", "dream")


def statement(where: Where, name: str, value: str) -> Iterator[Statement]:
    """One statement with the generator it suggests; none for an empty value."""
    text = value.strip("\0 \t\r\n")
    if not text:
        return
    origin: Origin | None = None
    if name == "DigitalSourceType":
        text = short_type(text)
        origin = origin_of(text)
    yield Statement(
        where=where,
        name=name[:100],
        value=text[:LONGEST_VALUE],
        points_to=points_to(name, text)[:LONGEST_VALUE],
        origin=origin,
    )


def points_to(name: str, value: str) -> str:
    """The known source of such a statement, in words; "" if it suggests nothing in particular."""
    key = name.lower()
    if key in ("parameters", "usercomment") and "Steps:" in value and "Sampler" in value:
        return "generation settings, as web UIs of Stable Diffusion write them"
    if key in _GRAPHS and value.startswith("{"):
        return "a graph of generation steps, as ComfyUI writes it"
    if key in _OF_INVOKE:
        return "generation settings, as InvokeAI writes them"
    found = _NAMES.search(value)
    return f"it names {found[0]}" if found else ""


_TAGS = (
    "encoder", "encoded_by", "software", "comment", "description", "title", "artist", "copyright", "creation_time",
    "make", "model", "com.apple.quicktime.make", "com.apple.quicktime.model", "com.apple.quicktime.software",
    "digitalsourcetype", "major_brand", "writing_application",
)  # fmt: skip


def container_statements(content: bytes) -> list[Statement]:
    """Statements in a recording's metadata: tags of a closed list, the container's first, each value once.

    Raises DataError where it cannot be opened, MissingExtraError without PyAV.
    """
    with open_container(content, "The file") as container:
        found = [dict(container.metadata), *(dict(stream.metadata) for stream in container.streams)]
    return list(_statements(found))


def _statements(tag_sets: list[dict[str, str]]) -> Iterator[Statement]:
    seen = set()
    for tags in tag_sets:
        for key, value in tags.items():
            name = key.lower()
            if name in _TAGS and (name, value) not in seen:
                seen.add((name, value))
                yield from statement("container", "DigitalSourceType" if name == "digitalsourcetype" else name, value)


_EXIF = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x0132: "DateTime",
    0x013B: "Artist",
    0x8298: "Copyright",
}
_EXIF_IFD = 0x8769
_OF_THE_PICTURE = {0x9003: "DateTimeOriginal", 0x9286: "UserComment", 0xA434: "LensModel"}
_IPTC = {(2, 65): "OriginatingProgram", (2, 80): "By-line", (2, 110): "Credit", (2, 115): "Source"}
# Entries of Pillow's that are no statement of the file's.
_NO_TEXT = frozenset({"xmp", "XML:com.adobe.xmp", "exif", "Raw profile type exif", "Raw profile type iptc"})
_MAX_XMP = 1 << 20
_XMP = re.compile(
    r"(DigitalSourceType|CreatorTool|Credit|AISystemUsed|AIPromptInformation)"
    r"\s*(?:=\s*[\"']|>\s*|\s+rdf:resource\s*=\s*[\"'])([^\"'<>]{1,500})"
)


def image_statements(content: bytes) -> list[Statement]:
    """Statements in an image's metadata, without decoding its pixels.

    Raises DataError where it cannot be opened, MissingExtraError without Pillow.
    """
    # Large pictures too: their pixels are not read here.
    with image_errors("Its metadata cannot be read"), open_image(content) as picture:
        return [*_exif(picture), *_text(picture), *_xmp(picture), *_iptc(picture)]


def _exif(picture: Image) -> Iterator[Statement]:
    if picture.format == "PNG" and "exif" not in picture.info:
        return  # Pillow would decode every pixel to look behind them
    exif = picture.getexif()
    inner = exif.get_ifd(_EXIF_IFD)
    for tags, found in ((_EXIF, exif), (_OF_THE_PICTURE, inner)):
        for tag, name in tags.items():
            if tag in found:
                value = found[tag]
                yield from statement("EXIF", name, _user_comment(value) if isinstance(value, bytes) else str(value))


def _user_comment(value: bytes) -> str:
    """EXIF's UserComment: eight bytes name its coding."""
    coding, text = value[:8], value[8:]
    if coding.startswith(b"UNICODE"):
        # Web UIs write big-endian; where that leaves no Latin letter, it was little-endian.
        big = text.decode("utf-16-be", "replace")
        return big if re.search(r"[ -~]{3}", big) else text.decode("utf-16-le", "replace")
    return (text if coding.startswith((b"ASCII", b"\0\0\0\0")) else value).decode("utf-8", "replace")


def _text(picture: Image) -> Iterator[Statement]:
    png = picture.format == "PNG"
    for name, value in picture.info.items():
        if isinstance(name, str) and name not in _NO_TEXT and png and isinstance(value, str):
            yield from statement("PNG text", name, value)
        elif name == "comment":
            yield from statement("comment", "comment", _decoded(value))


def _xmp(picture: Image) -> Iterator[Statement]:
    packet = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    if packet is None:
        return
    # Searched, not parsed: an XML parser is a surface of its own, and only a few values are wanted.
    for name, value in dict.fromkeys(_XMP.findall(_decoded(packet)[:_MAX_XMP])):
        yield from statement("XMP", name, value)


def _iptc(picture: ImageFile) -> Iterator[Statement]:
    from PIL.IptcImagePlugin import getiptcinfo

    found = getiptcinfo(picture) or {}
    for key, name in _IPTC.items():
        value = found.get(key)
        for one in value if isinstance(value, list) else [value]:
            if one:
                yield from statement("IPTC", name, _decoded(one))


def _decoded(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
