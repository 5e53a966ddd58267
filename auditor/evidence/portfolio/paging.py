"""Long lists split into pages of limited size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

T = TypeVar("T")
_AROUND = 4


@dataclass(frozen=True)
class Paging:
    """The number of this page among all pages; ``links``: some pages by number and file name."""

    here: int
    n: int
    links: tuple[tuple[int, str], ...]


def paged(name: str, rows: Sequence[T], size: int) -> Iterator[tuple[str, Sequence[T], Paging]]:
    """The path of each page, its rows, and its position; one empty page if there are no rows."""
    n = max(1, -(-len(rows) // size))
    for here in range(1, n + 1):
        near = [k for k in range(1, n + 1) if k in (1, n) or abs(k - here) <= _AROUND]
        links = tuple((k, PurePosixPath(_path(name, k)).name) for k in near)
        yield _path(name, here), rows[(here - 1) * size : here * size], Paging(here, n, links)


def _path(name: str, page: int) -> str:
    return f"{name}.html" if page == 1 else f"{name}-{page}.html"
