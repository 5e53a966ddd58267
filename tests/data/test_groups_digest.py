"""The digest of groups: the same for the same groups in the same rows, however they are cut or coded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from auditor.data.group_counts import MISSING, GroupsDigest
from tests.quantifiers import none_of


def digest(values: list[str | None], cut: int | None = None, *, sort: bool = False) -> str:
    found = GroupsDigest()
    for part in (values[:cut], values[cut:] if cut is not None else []):
        codes, levels = pd.factorize(np.array(part, object), sort=sort)
        found.add(codes, list(levels))
    return found.hexdigest()


ROWS = ["f", "m", "f", None, "x", "m", "f"]


@pytest.mark.parametrize("cut", range(len(ROWS) + 1))
@pytest.mark.parametrize("sort", [False, True])
def test_parts_and_codes_do_not_matter(cut: int, sort: bool) -> None:
    assert digest(ROWS, cut, sort=sort) == digest(ROWS)


def test_a_missing_group_is_the_group_of_its_name() -> None:
    assert digest(ROWS) == digest([MISSING if value is None else value for value in ROWS])


def test_other_groups_have_another_digest() -> None:
    moved = [[*ROWS[:at], "q", *ROWS[at + 1 :]] for at in range(len(ROWS))]
    swapped = [{"f": "m", "m": "f"}.get(value or "", value) for value in ROWS]
    renamed = ["F" if value == "f" else value for value in ROWS]
    assert none_of(
        digest(other) == digest(ROWS) for other in (*moved, swapped, renamed, ROWS[:-1], ROWS[::-1]) if other != ROWS
    )
