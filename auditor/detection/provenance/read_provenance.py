"""All provenance statements that can be read from a file, and the reasons for those that cannot."""

from __future__ import annotations

from auditor.core.errors import AuditorError
from auditor.detection.file_kinds import FileKind
from auditor.detection.provenance.provenance_record import (
    LONGEST_VALUE,
    MOST_STATEMENTS,
    Credentials,
    FileProvenance,
    Statement,
)


def read_provenance(content: bytes, kind: FileKind, trust_anchors: str | None = None) -> FileProvenance:
    """Signed credentials and unsigned statements of a file's content.

    What cannot be read is said in the record, and raises nothing. ``trust_anchors``: see
    :func:`auditor.detection.provenance.content_credentials.read_credentials`.
    """
    from auditor.detection.provenance.content_credentials import UnreadableCredentialsError, read_credentials

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
    if kind.medium == "image":
        from auditor.detection.provenance.image_metadata import image_statements

        return image_statements(content)
    if kind.medium in ("audio", "video"):
        from auditor.detection.provenance.container_tags import container_statements

        return container_statements(content)
    return []
