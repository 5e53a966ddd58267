"""All provenance statements in a file: signed C2PA Content Credentials, validated offline, and unsigned metadata.

Of the metadata (EXIF, XMP, IPTC, container tags) none proves anything.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.core.errors import AuditorError, MissingExtraError, UsageError, first_line
from auditor.data.audio import open_container
from auditor.data.images_and_video import image_errors, open_image
from auditor.detection.file_kinds import FileKind
from auditor.detection.provenance.provenance_record import (
    LONGEST_VALUE,
    MOST_ACTIONS,
    MOST_STATEMENTS,
    Action,
    Credentials,
    FileProvenance,
    Origin,
    Standing,
    Statement,
    TimeStamp,
    Where,
    origin_of,
    short_type,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_MANIFEST_CHARACTERS = 8_000_000
_MAX_ANCHORS = 4 << 20
# Formats in which a manifest has a place of its own, under the names the library knows them by.
FORMATS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "TIFF": "image/tiff",
    "HEIF": "image/heif",
    "AVIF": "image/avif",
    "WAV": "audio/wav",
    "MP3": "audio/mpeg",
    "FLAC": "audio/flac",
    "MP4": "video/mp4",
}

_STANDINGS: dict[str, Standing] = {
    "Trusted": "trusted",
    "Valid": "intact, signer unknown",
    "Invalid": "not valid",
}


def read_anchors(path: Path) -> str:
    """The certificates of a file in PEM, or of a trust list (ETSI TS 119 602), as PEM; UsageError where it has none."""
    try:
        if not path.is_file():
            raise OSError  # what is no regular file may never end
        with path.open("rb") as file:
            text = file.read(_MAX_ANCHORS).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"The certificates in {str(path)!r} cannot be read: give a file in PEM.") from None
    if "-----BEGIN CERTIFICATE-----" in text:
        return text
    try:
        entities = json.loads(text)["LoTE"]["TrustedEntitiesList"]
        services = [service["ServiceInformation"] for each in entities for service in each["TrustedEntityServices"]]
        found = [
            "\n".join(textwrap.wrap(certificate["val"], 64))
            for service in services
            if not str(service.get("ServiceStatus", "")).endswith("withdrawn")
            for certificate in service["ServiceDigitalIdentity"]["X509Certificates"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        found = []
    if not found:
        raise UsageError(f"{str(path)!r} holds no certificate in PEM, and is no C2PA trust list with some.")
    return "\n".join(f"-----BEGIN CERTIFICATE-----\n{one}\n-----END CERTIFICATE-----" for one in found)


class UnreadableCredentialsError(Exception):
    """Content Credentials in a file that cannot be read; the message is a sentence."""


def read_credentials(content: bytes, form: str, trust_anchors: str | None = None) -> Credentials | None:
    """The validated active manifest of a file's content, or None where it has none.

    ``form``: as :func:`auditor.detection.file_kinds.kind_of` names it. ``trust_anchors``: certificates of the
    authorities to trust, in PEM; without any no signature can be more than ``intact, signer unknown``. Nothing is
    fetched: a manifest that lies elsewhere, and the revocation of certificates, are not looked up. Raises
    UnreadableCredentialsError where there is a manifest that cannot be read, MissingExtraError without c2pa-python.

    Source: C2PA, Technical Specification 2.2, 2025.
    """
    mime = FORMATS.get(form)
    if mime is None:
        return None
    try:
        import c2pa
    except ImportError:
        raise MissingExtraError(
            "Reading Content Credentials needs c2pa-python: pip install 'responsible-auditor[provenance]'."
        ) from None
    verify = {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True, "verify_timestamp_trust": True}
    settings: dict[str, Any] = {"verify": verify}
    if trust_anchors is not None:
        settings["trust"] = {"trust_anchors": trust_anchors}
    try:
        context = c2pa.Context(c2pa.Settings.from_dict(settings))
        reader = c2pa.Reader.try_create(mime, BytesIO(content), context=context)
        if reader is None:
            return None
        with reader:
            text = reader.json()
    except c2pa.C2paError as error:
        words = first_line(error)
        if words.startswith("Remote"):
            words = f"Its credentials lie elsewhere, and nothing is fetched ({words})."
        else:
            words = f"It could not be searched for credentials: {words}."
        raise UnreadableCredentialsError(words) from None
    if len(text) > MAX_MANIFEST_CHARACTERS:
        raise UnreadableCredentialsError(f"Its manifest is longer than {MAX_MANIFEST_CHARACTERS:,} characters.")
    return _from_store(json.loads(text), anchored=trust_anchors is not None)


def _from_store(store: Mapping[str, Any], *, anchored: bool) -> Credentials:
    """What a manifest store in the library's own JSON says; its parts may be of any type, or absent."""
    manifest = _mapping(_mapping(store.get("manifests")).get(str(store.get("active_manifest"))))
    signature = _mapping(manifest.get("signature_info"))
    failures = [_failure(found) for found in _sequence(store.get("validation_status"))]
    state = _line(store.get("validation_state")) or "unknown"
    return Credentials(
        state=state,
        standing=_STANDINGS.get(state, "not known"),
        anchored=anchored,
        signer=_line(signature.get("common_name")),
        issuer=_line(signature.get("issuer")),
        signed_at=_line(signature.get("time")),
        time_stamp=_time_stamp(store, bool(signature.get("time"))),
        claim_generator=_line(_generator(manifest)),
        title=_line(manifest.get("title")),
        actions=tuple(_actions(manifest))[:MOST_ACTIONS],
        failures=tuple(failure for failure in failures if failure)[:MOST_ACTIONS],
        n_ingredients=len(_sequence(manifest.get("ingredients"))),
    )


def _time_stamp(store: Mapping[str, Any], timed: bool) -> TimeStamp:
    """What the reader's codes say of the active manifest's time stamp; C2PA 2.2, section 15.8."""
    results = _mapping(_mapping(store.get("validation_results")).get("activeManifest"))
    passed, others = (
        {str(_mapping(found).get("code")) for kind in kinds for found in _sequence(results.get(kind))}
        for kinds in (("success",), ("informational", "failure"))
    )
    wrong = {code for code in others if code.startswith("timeStamp.")} - {"timeStamp.untrusted"}
    if "timeStamp.validated" not in passed or wrong:
        return "not valid" if timed or wrong else "none"
    return "trusted" if "timeStamp.trusted" in passed else "intact, authority unknown"


def _generator(manifest: Mapping[str, Any]) -> str:
    named = [_mapping(info) for info in _sequence(manifest.get("claim_generator_info"))]
    words = [f"{info.get('name', '')} {info.get('version', '')}".strip() for info in named]
    return ", ".join(words) or str(manifest.get("claim_generator") or "")


def _actions(manifest: Mapping[str, Any]) -> Iterator[Action]:
    for assertion in map(_mapping, _sequence(manifest.get("assertions"))):
        if not str(assertion.get("label", "")).startswith("c2pa.actions"):
            continue
        for found in map(_mapping, _sequence(_mapping(assertion.get("data")).get("actions"))):
            software = found.get("softwareAgent")
            kind = str(found.get("digitalSourceType") or "")
            yield Action(
                action=_line(found.get("action")),
                software=_line(_mapping(software).get("name") if isinstance(software, Mapping) else software),
                digital_source_type=_line(short_type(kind)),
                origin=origin_of(kind) if kind else None,
            )


def _failure(status: object) -> str:
    found = _mapping(status)
    return _line(": ".join(str(found[key]) for key in ("code", "explanation") if found.get(key)))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _line(value: object) -> str:
    return "" if value is None else str(value)[:LONGEST_VALUE]


def read_provenance(content: bytes, kind: FileKind, trust_anchors: str | None = None) -> FileProvenance:
    """Signed credentials and unsigned statements of a file's content.

    What cannot be read is said in the record, and raises nothing. ``trust_anchors``: see
    :func:`auditor.detection.provenance.read_provenance.read_credentials`.
    """

    credentials: Credentials | None = None
    why_no_credentials = why_no_statements = ""
    try:
        credentials = read_credentials(content, kind.form, trust_anchors)
    except (UnreadableCredentialsError, AuditorError) as error:
        why_no_credentials = str(error)
    found: list[Statement] = []
    try:
        found = _statements(content, kind)
    except AuditorError as error:
        why_no_statements = str(error)
    # Pointers first: what is cut where there are too many is then what says least.
    found.sort(key=lambda s: (s.origin is None, not s.points_to))
    return FileProvenance(
        credentials=credentials,
        credentials_unread=why_no_credentials[:LONGEST_VALUE],
        statements=tuple(found[:MOST_STATEMENTS]),
        statements_unread=why_no_statements[:LONGEST_VALUE],
    )


def _statements(content: bytes, kind: FileKind) -> list[Statement]:
    if kind.medium is None:
        return []
    return image_statements(content) if kind.medium == "image" else container_statements(content)


# ---- unsigned metadata -----------------------------------------------------------------------------------------------

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
    return list(_tag_statements(found))


def _tag_statements(tag_sets: list[dict[str, str]]) -> Iterator[Statement]:
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
