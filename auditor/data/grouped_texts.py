"""Texts with the groups of the people they are about, for models that decide by group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from auditor.core.errors import DataError, NotApplicableError
from auditor.data.group_counts import MISSING


class GroupedText(str):
    """A text, and the group of its person in each of the sensitive features, by name."""

    groups: dict[str, str]


def attach_groups(texts: npt.NDArray[Any], groups: pd.DataFrame) -> npt.NDArray[Any]:
    """(n,) the texts with their groups attached; ``groups``: (n, s) names, as in :class:`AuditData`."""
    if len(texts) != len(groups):
        raise DataError(f"There are {len(texts)} texts and groups of {len(groups)}.")
    names = list(map(str, groups.columns))
    out = np.empty(len(texts), object)
    for i, (text, row) in enumerate(zip(texts, groups.astype(str).itertuples(index=False), strict=True)):
        out[i] = GroupedText(text)
        out[i].groups = dict(zip(names, row, strict=True))
    return out


def needed_groups(groups: pd.DataFrame | None, columns: tuple[str, ...], noun: str) -> pd.DataFrame:
    """The groups of texts, if they are those that a model decides by; DataError if one is missing."""
    absent = [name for name in columns if groups is None or name not in groups.columns]
    if absent or groups is None:
        raise DataError(
            f"The model decides by group, and the {noun} has no {absent[0]!r} for its texts: add --sensitive "
            f"{absent[0]}, with --sensitive-file FILE and --join-on COLUMN where it stands in another table.",
            code="AUD-DATA-COLUMN",
        )
    return groups


def groups_in(texts: npt.NDArray[Any], columns: tuple[str, ...]) -> pd.DataFrame:
    """(n, columns) the groups that the texts bring along.

    Raises NotApplicableError for a text that has none, as one that a probe has changed or made, since nobody knows whom
    it is about; DataError where its groups are of other features.
    """
    for text in texts:
        if not isinstance(text, GroupedText):
            raise NotApplicableError(
                f"The model decides by group ({' x '.join(columns)}), and texts that were changed or made are about "
                "nobody whose group is known: ask this of the model before it was post-processed."
            )
        absent = [name for name in columns if name not in text.groups]
        if absent:
            raise DataError(
                f"The model decides by group and needs {absent[0]!r} of every text: add --sensitive {absent[0]}, with "
                "--sensitive-file FILE and --join-on COLUMN where the groups stand in another table."
            )
    return pd.DataFrame({name: [text.groups.get(name, MISSING) for text in texts] for name in columns}, dtype=object)
