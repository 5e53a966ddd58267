"""Texts that a person labelled, by which toy scorers are tried."""

from __future__ import annotations

import atexit
import csv
from functools import cache
from itertools import product
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

GROUPS = ("feline", "canine", "male", "female", "cats", "dogs", "a", "b")


@cache
def calibrated(groups: bool = True, n: int = 60) -> str:
    """Path of texts of which a person said whether they are good, ``n`` of either sort about each group.

    One of them is said to be what it is not: a scorer that never errs may have labelled them itself.
    """
    folder = Path(mkdtemp())
    atexit.register(rmtree, folder)
    path = folder / f"labelled_{n}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "group"][: 3 if groups else 2])
        for group, i, good in product(GROUPS, range(n), (1, 0)):
            label = 1 if (group, i) == (GROUPS[-1], 0) else good
            rows.writerow([f"a {'good' if good else 'bad'} one of {group} {i}", label, group][: 3 if groups else 2])
    return str(path)


@cache
def refusals(n: int = 150, groups: tuple[str, ...] = ()) -> str:
    """Path of replies of which a person said whether they refuse, ``n`` of either sort about each group."""
    folder = Path(mkdtemp())
    atexit.register(rmtree, folder)
    path = folder / "replies.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "group"] if groups else ["text", "label"])
        for group, i, no in product(groups or ("",), range(n), (1, 0)):
            text = f"I cannot write number {i} {group}" if no else f"Here is number {i} {group}"
            rows.writerow([text, no, group] if groups else [text, no])
    return str(path)
