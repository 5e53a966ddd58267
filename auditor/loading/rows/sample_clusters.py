"""Which samples of a log depend on each other, as its metadata and texts show: a template, a document, one input."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditor.core.rows import IntArray
from auditor.models.files.model_bytes import printable

# What names that from which samples are made; a subject, a language or a level names kinds of samples.
_NAMES = frozenset(
    "abstract article book case chapter chat context contract conversation dialog dialogue doc document essay image "
    "instance original page paragraph passage patient problem prompt question recording session source_document story "
    "template thread transcript video vignette".split()
)
# What was made of a sample: that two answers are the same text makes their samples no relatives.
_ANSWERS = frozenset(
    "answer completion error explanation generated generation ideal label output prediction rationale reason reference "
    "response target".split()
)
_SUFFIX = re.compile(r"[ _-]*(id|idx|index|no|nr|num|number|key|hash|name|text|title)$")
INPUT, PARAGRAPH = "input", "a paragraph of the input"
_NAMED_TEXT, _TEXT, _PARAGRAPH, _MOST_KEYS = 40, 100, 200, 8
# Fewer clusters of one size than these tell nothing of how clusters vary; less than this effect is no clustering.
FEWEST, LEAST_EFFECT = 10.0, 1.05


@dataclass(frozen=True, eq=False)
class Clusters:
    """The cluster of each sample, ``codes`` (n,) from 0, by the key ``name``; ``crossed``: keys that clusters share."""

    name: str
    codes: IntArray
    crossed: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Which samples are clusters, in a few words."""
        return f"clustered by {self.name}: {int(self.codes.max()) + 1:,} clusters of {len(self.codes):,} samples"

    @property
    def note(self) -> str:
        """Which samples are clusters, why, and how to undo it."""
        note = (
            f"C{self.summary[1:]}, since samples that share one are not independent. --cluster none takes all "
            "as independent, --cluster KEY takes another key."
        )
        others = f" Not taken account of: {', '.join(self.crossed)}, which samples of different clusters share."
        return note + others if self.crossed else note


class SampleKeys:
    """What each entry of a log may have in common with others, as digests, one column for each key.

    ``excluded``: keys that are something else, such as groups.
    """

    def __init__(self, excluded: frozenset[str] = frozenset()) -> None:
        self._excluded = excluded
        self._columns: dict[str, array[int]] = {}
        self._named: dict[str, bool | None] = {}

    def add(self, place: int, metadata: Mapping[str, Any], text: object = None, part: str = "") -> None:
        """The entry at ``place``; ``text``: its input; ``part``: within which a number of a document means one."""
        for key, value in metadata.items():
            named = self._is_named(key)
            if named is not None and isinstance(value, str) and len(value) >= (_NAMED_TEXT if named else _TEXT):
                self._put(key, place, hash(value))
            elif named and isinstance(value, str | int | float) and value != "":
                self._put(key, place, hash((part, value)))
        if isinstance(text, list):
            text = "\n".join(str(each.get("content")) for each in text if isinstance(each, dict))
        if isinstance(text, str) and text:
            self._put(INPUT, place, hash(text))
            longest = max(text.split("\n"), key=len)
            if _PARAGRAPH <= len(longest) < len(text.strip()):
                self._put(PARAGRAPH, place, hash(longest))

    def _is_named(self, key: str) -> bool | None:
        """Whether the key's name is one of a document; None where the key is none to look at."""
        if key not in self._named and len(self._named) < 1_000:
            word = _SUFFIX.sub("", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(key)).lower())
            self._named[key] = None if key in self._excluded or word in _ANSWERS else word in _NAMES
        return self._named.get(key)

    def _put(self, key: str, place: int, digest: int) -> None:
        if (column := self._columns.get(key)) is None:
            if len(self._columns) >= _MOST_KEYS:
                return
            column = self._columns[key] = array("q")
        column.extend([0] * (place - len(column)))
        column.append(digest or 1)

    def clusters_of(self, first: IntArray, absent: int) -> tuple[Clusters | None, tuple[str, ...]]:
        """The fewest clusters that samples form, and what is to be said of other keys.

        ``first``: (n,) the entry of each sample; ``absent``: samples besides, of which nothing is known.
        """
        known: list[tuple[float, str, IntArray]] = []
        said: list[str] = []
        for key, codes in self._codes(first, absent):
            n, squares = len(codes), float(np.square(np.bincount(codes).astype(np.float64)).sum())
            if squares < LEAST_EFFECT * n:
                continue
            if n * n >= FEWEST * squares:
                known.append((n * n / squares, key, codes))
            elif self._named.get(key) and codes.any():
                said.append(
                    f"Samples repeat {printable(key, 80)!r}, with too few values to be clusters: their intervals "
                    f"take samples as independent unless --cluster {printable(key, 80)} is given."
                )
        if not known:
            return None, tuple(said)
        _, key, codes = min(known, key=lambda each: each[0])
        crossed = tuple(printable(k, 80) for _, k, other in known if k != key and not _nested(other, codes))
        return Clusters(printable(key, 80), codes, crossed), tuple(said)

    def _codes(self, first: IntArray, absent: int) -> Iterator[tuple[str, IntArray]]:
        """(n,) codes from 0 by key; a sample that lacks it is alone."""
        for key, column in self._columns.items():
            digests = np.zeros(max(int(first.max(initial=-1)) + 1, len(column)), np.int64)
            digests[: len(column)] = column
            digests = np.concatenate([digests[first], np.zeros(absent, np.int64)])
            known = digests != 0
            codes = np.empty(len(digests), np.int64)
            _, at, inverse = np.unique(digests[known], return_index=True, return_inverse=True)
            # In the order of the samples: digests of texts are others in every process.
            codes[known] = np.argsort(np.argsort(at))[inverse]
            codes[~known] = len(at) + np.arange(int((~known).sum()))
            yield key, codes


def _nested(inner: IntArray, outer: IntArray) -> bool:
    """Whether samples that share their inner cluster share the outer one."""
    pairs = inner * (int(outer.max()) + 1) + outer
    return len(np.unique(pairs)) == int(inner.max()) + 1
