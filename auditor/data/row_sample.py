"""RowSample: a bounded sample of streamed rows, selected by their contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from auditor.core.rows import IntArray
from auditor.data.audit_data import AuditData
from auditor.data.row_keys import Keys, occurrence_of, ranks_of
from auditor.data.score_counts import Codes
from auditor.statistics.estimate import Undefined

MOST_ROWS = 1 << 17
# Numbers of all rows together, 128 MiB of them, however many columns there are.
_MOST_CELLS = 1 << 24
_MOST_CONTENTS = 1 << 20
_PURPOSE = "rows kept of a stream"
# Rows to a copy that cannot be told from another, at which an interval of independent rows is 2.5 % too narrow.
_MOST_CROWDED = 1.05
_ERRORS = 5.0


class RowSample:
    """A bounded sample of rows: all rows in order up to 131,072 (fewer if there are many columns), beyond that a sample
    without replacement.

    The rows that are kept are those of the smallest hashes of features, label, groups and how many equal rows came
    before: no seed and no order draws others. The hash is no secret, so whoever makes up the rows can choose which are
    kept. Equal rows are counted of the first 1,048,576 different ones; see :attr:`why_not`.
    """

    def __init__(self, sensitive: Sequence[str], classes: tuple[str, ...], positive: int | None) -> None:
        self.sensitive, self.classes, self.positive = tuple(sensitive), classes, positive
        self.n = 0
        self._most = MOST_ROWS
        self._titles: tuple[dict[str, int], ...] = tuple({} for _ in sensitive)
        self._seen = _Seen()
        self._parts: list[_Part] = []
        self._held = 0
        # The largest rank that can still be among the smallest.
        self._last = np.uint64(np.iinfo(np.uint64).max)

    def add(self, X: pd.DataFrame, keys: Keys, y_true: IntArray | None, groups: Sequence[Codes]) -> None:
        """The next rows, with their keys as :func:`auditor.data.row_keys.keys_of` makes them."""
        self.n += len(X)
        self._most = min(self._most, max(1, _MOST_CELLS // max(1, X.shape[1])))
        contents, places = keys, np.empty((len(X), len(groups)), np.int64)
        for i, (own, (codes, titles)) in enumerate(zip(self._titles, groups, strict=True)):
            places[:, i] = np.asarray([own.setdefault(str(title), len(own)) for title in titles], np.int64)[codes]
            contents = contents * np.uint64(31) + pd.util.hash_array(np.asarray([*map(str, titles)], object))[codes]
        ranks = ranks_of(contents, _PURPOSE, self._seen.count_earlier(contents))
        here = np.flatnonzero(ranks <= self._last)
        part = _Part(ranks[here], X.iloc[here], None if y_true is None else y_true[here], places[here])
        self._parts.append(part)
        self._held += here.size
        if self._held > 2 * self._most:
            self._shrink()

    def _shrink(self) -> None:
        part = _Part.concatenate(self._parts)
        part = part.take(np.argsort(part.ranks, kind="stable")[: self._most])
        self._parts, self._held, self._last = [part], len(part.ranks), part.ranks[-1]

    @property
    def why_not(self) -> str:
        """The reason why the kept rows are no random sample of all, or "". Uncounted copies are kept or left out
        together; equal hashes reveal them, or hash values too dense or too sparse for the number of rows."""
        if self.n <= self._most:
            return ""
        self._shrink()
        copies = np.unique(self._parts[0].ranks, return_counts=True)[1]
        crowded = float((copies**2).sum() / copies.sum())
        expected = self._most / (float(self._last) / 2.0**64)
        if crowded <= _MOST_CROWDED and abs(expected / self.n - 1.0) <= _ERRORS / self._most**0.5:
            return ""
        return (
            "the rows are too many to be held, and too many of them are copies of one another for a sample as they "
            "stream by: ask it of some of them, without --stream"
        )

    def rows_or_reason(self) -> AuditData | Undefined:
        """The kept rows, or why they are no sample of all."""
        why = self.why_not
        return Undefined(reason=why) if why else self.rows()

    def rows(self) -> AuditData:
        """The kept rows: in their order if complete, else by their hashes."""
        if self.n > self._most:
            self._shrink()
        part = _Part.concatenate(self._parts)
        groups = {
            name: pd.Categorical.from_codes(part.places[:, i], categories=pd.Index([*self._titles[i]]))
            for i, name in enumerate(self.sensitive)
        }
        return AuditData(
            X=part.X,
            y_true=part.y_true,
            classes=self.classes,
            positive=self.positive,
            sensitive_features=pd.DataFrame(groups) if groups else None,
        )


@dataclass(frozen=True, eq=False)
class _Part:
    """Some rows: their ranks (m,), features, labels, and the places of their groups (m, s)."""

    ranks: Keys
    X: pd.DataFrame
    y_true: IntArray | None
    places: IntArray

    @classmethod
    def concatenate(cls, parts: Sequence[_Part]) -> _Part:
        labels = [part.y_true for part in parts if part.y_true is not None]
        return cls(
            np.concatenate([part.ranks for part in parts]),
            pd.concat([part.X for part in parts], ignore_index=True),
            np.concatenate(labels) if labels else None,
            np.concatenate([part.places for part in parts]),
        )

    def take(self, index: npt.NDArray[np.intp]) -> _Part:
        labels = None if self.y_true is None else self.y_true[index]
        return _Part(self.ranks[index], self.X.iloc[index], labels, self.places[index])


class _Seen:
    """How often each content came, of the first 1,048,576 different ones."""

    def __init__(self) -> None:
        self._keys, self._counts = np.empty(0, np.uint64), np.empty(0, np.uint64)

    def count_earlier(self, keys: Keys) -> Keys:
        """(m,) how many equal rows stand before each; of a content that is not counted, none."""
        different, n = np.unique(keys, return_counts=True)
        place = np.searchsorted(self._keys, different)
        known = np.zeros(different.size, bool)
        inside = place < self._keys.size
        known[inside] = self._keys[place[inside]] == different[inside]
        earlier = np.zeros(different.size, np.uint64)
        earlier[known] = self._counts[place[known]]
        self._counts[place[known]] += n[known].astype(np.uint64)
        new = np.flatnonzero(~known)[: _MOST_CONTENTS - self._keys.size]
        if new.size:
            self._counts = np.insert(self._counts, place[new], n[new].astype(np.uint64))
            self._keys = np.insert(self._keys, place[new], different[new])
        return occurrence_of(keys) + earlier[np.searchsorted(different, keys)]
