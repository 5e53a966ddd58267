"""Unsigned metadata of sound and video: tags of the container and of its streams."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.data.audio import open_container
from auditor.detection.provenance.generator_tags import statement
from auditor.detection.provenance.provenance_record import Statement

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
