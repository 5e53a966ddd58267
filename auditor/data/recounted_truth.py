"""Truth, groups and counts as the data files state them, read before any user code has run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.core.files import Closed
from auditor.core.number_types import Count

# One number of rows each: those of a group of every sensitive feature that have a label, or have none.
Cell = tuple[tuple[str, ...], str | None, Count]


class Reading(Closed):
    """One interpretation of the label and group columns, as text or as numbers, which may differ in spelling.

    ``labels``: the digest of the rows' labels in their order, ``groups`` those of their groups by sensitive feature, as
    :class:`auditor.data.groups_digest.GroupsDigest` makes them; ``cells``: how many rows have which groups and label.
    """

    labels: str | None = None
    groups: dict[str, str] = Field(default_factory=dict)
    cells: tuple[Cell, ...] = ()

    def sizes(self) -> dict[str, dict[str, int]]:
        """The number of rows per group, by sensitive feature."""
        found: dict[str, dict[str, int]] = {name: {} for name in self.groups}
        for group, _, n in self.cells:
            for own, level in zip(found.values(), group, strict=True):
                own[level] = own.get(level, 0) + n
        return found

    @property
    def unlabelled(self) -> int:
        """The number of rows without a label."""
        return sum(n for _, label, n in self.cells if label is None)


class Recount(Closed):
    """The recounted rows of the data files: their number, their contents by ``readings``, and file digests.

    ``n``: rows to be audited, ``n_train`` training rows; of a folder its files, whether or not they can be read.
    ``numbers``: a digest of true numbers in their order, ``n_without`` how many rows have none; None where the target
    holds no numbers. ``design``: what the record says of rows that belong together or do not weigh the same.
    ``why_not``: why nothing could be read, or "".
    """

    sha256: str | None = None
    train_sha256: str | None = None
    n: Count = 0
    n_train: Count | None = None
    folder: bool = False
    readings: Annotated[tuple[Reading, ...], Field(max_length=256)] = ()
    numbers: str | None = None
    n_without: Count = 0
    design: dict[str, str | int | float | None] = Field(default_factory=dict)
    why_not: Annotated[str, Field(max_length=2_000)] = ""
