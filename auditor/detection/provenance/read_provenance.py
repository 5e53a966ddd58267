"""All provenance statements in a file, with signed C2PA Content Credentials, validated offline by the c2pa library."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from auditor.core.errors import AuditorError, MissingExtraError, UsageError, first_line
from auditor.detection.file_kinds import FileKind
from auditor.detection.provenance.provenance_record import (
    LONGEST_VALUE,
    MOST_ACTIONS,
    MOST_STATEMENTS,
    Action,
    Credentials,
    FileProvenance,
    Standing,
    Statement,
    TimeStamp,
    origin_of,
    short_type,
)

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
    from auditor.detection.provenance.unsigned_metadata import container_statements, image_statements

    if kind.medium is None:
        return []
    return image_statements(content) if kind.medium == "image" else container_statements(content)
