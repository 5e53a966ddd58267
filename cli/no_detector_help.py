"""Help of ``auditor detect`` without a detector: possible statements, limits, and next steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditor.detection.detection_record import FileResult

_OF = {"image": "pictures", "audio": "recordings", "video": "pictures and recordings"}


def without_detector(results: Sequence[FileResult]) -> Iterator[str]:
    """Four lines, to which the exit code is the fifth."""
    read = [result for result in results if not result.error]
    signed = sum(result.provenance.credentials is not None for result in read)
    unsigned = sum(bool(result.provenance.statements) and result.provenance.credentials is None for result in read)
    silent = len(results) - signed - unsigned
    yield (
        f"can       say what files claim of their own making: of {len(results):,}, {signed:,} by Content Credentials, "
        f"{unsigned:,} by unsigned metadata, {silent:,} not at all. Anybody can write metadata, and strip "
        "either; a signature says who signed, and for that --trust-anchors."
    )
    yield (
        "cannot    say whether one is synthetic: nothing looked at what is shown or heard, and a file that claims "
        "nothing is neither real nor fake for it."
    )
    yield (
        "next      ask for each file as it left the camera or the editor, and from whom it came: sites and messengers "
        "strip what a file says of itself."
    )
    media = {result.medium for result in read if result.medium is not None}
    of = _OF["video"] if len(media) != 1 or "video" in media else _OF[media.pop()]
    two = ", one of pictures and one of sound" if of == _OF["video"] else ""
    yield (
        f"next      gather {of} that came the same way, in folders real (19 or more) and fake, and make a "
        f"detector{two}: auditor detect train DIR, or of any classifier auditor detect calibrate MODEL --data DIR. "
        "Then add --detector."
    )
