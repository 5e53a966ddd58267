"""Copies of rows: with the same features, nearly the same numbers, all columns but one, or most of the words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import BoolArray, IntArray, Rows

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.row_keys import Keys

DIGITS = 3
# Lee et al. (2022) take as near duplicates texts of which four in five runs of words agree.
LEAST_ALIKE, RUN_OF_WORDS = 0.8, 3
# 16 bands of 4 of 64 hashes: two texts that share four in five runs meet in a band but in 2 of 10,000 cases.
_BANDS, _IN_BAND = 16, 4
_MOST_FILES, _MOST_PAIRS = 10_000, 200
_NO_WORD = str.maketrans({c: " " for c in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\t\n\r"})
MEANING = {
    "exact": "with the same features",
    "near": f"whose numbers agree in {DIGITS} digits and whose texts in their words",
    "one column apart": "that differs in one column at most",
    "similar": f"that shares {LEAST_ALIKE:.0%} of all runs of {RUN_OF_WORDS} words, or looks or sounds the same",
}


@dataclass(frozen=True, eq=False)
class RowCopies:
    """``repeated`` (n,): training rows with another one like them; ``original`` (m,): for every test row the position
    of a training row like it, or -1; ``pairs`` (k, 2): positions of some training rows that are copies of another."""

    repeated: BoolArray
    original: IntArray
    pairs: IntArray


def copies_of(
    train: Rows, test: Rows | None, modality: str, kinds: Collection[str] = tuple(MEANING)
) -> Iterator[tuple[str, RowCopies]]:
    """The copies by kind, of ``kinds``, one after the other, since each takes memory for all rows."""
    import pandas as pd

    from auditor.data.row_keys import keys_of

    other: Rows = train[:0] if test is None else test
    if "exact" in kinds:
        yield "exact", _by_keys(*(keys_of(rows, None, None, None) for rows in (train, other)))
    if isinstance(train, pd.DataFrame) and isinstance(other, pd.DataFrame):
        if "near" in kinds:
            yield "near", _by_keys(*(keys_of(rows.apply(_rounded), None, None, None) for rows in (train, other)))
        if "one column apart" in kinds and train.shape[1] > 2:
            yield "one column apart", _one_column_apart(train, other)
    elif modality == "text":
        words = [[str(text).lower().translate(_NO_WORD).split() for text in rows] for rows in (train, other)]
        if "near" in kinds:
            texts = (np.asarray([" ".join(each) for each in own] + [None], object)[:-1] for own in words)
            yield "near", _by_keys(*(keys_of(own, None, None, None) for own in texts))
        if "similar" in kinds:
            yield "similar", _similar(words[0], words[1])
    elif modality in ("image", "audio") and "similar" in kinds and len(train) + len(other) <= _MOST_FILES:
        yield "similar", _alike(train, other, modality)


def _by_keys(train: Keys, test: Keys) -> RowCopies:
    order = np.argsort(train, kind="stable")
    ordered = train[order]
    same = ordered[1:] == ordered[:-1]
    repeated = np.zeros(len(train), bool)
    repeated[order] = np.append(same, False) | np.append(False, same) if len(train) else False
    place = np.minimum(np.searchsorted(ordered, test), max(len(train) - 1, 0))
    original = np.where(ordered[place] == test, order[place], -1) if len(train) else np.full(len(test), -1)
    some = np.flatnonzero(same)[:_MOST_PAIRS]
    return RowCopies(repeated, original.astype(np.int64), np.sort(np.stack([order[some], order[some + 1]], axis=1)))


def _rounded(values: Any) -> Any:
    """A column with numbers to three significant digits, and texts in one case without punctuation."""
    import pandas as pd

    if values.dtype.kind == "f":
        numbers = values.to_numpy(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = 10.0 ** (np.floor(np.log10(np.abs(numbers))) - DIGITS + 1)
            rounded = np.where(np.isfinite(step) & (step > 0.0), np.round(numbers / step) * step, numbers)
        return pd.Series(np.round(rounded, 12), index=values.index)
    if values.dtype.kind in "iub":
        return values
    codes, different = pd.factorize(values.astype("string"))
    words = np.asarray([" ".join(str(text).lower().translate(_NO_WORD).split()) for text in different] + [""], object)
    return pd.Series(words[codes], index=values.index)


def _one_column_apart(train: pd.DataFrame, test: pd.DataFrame) -> RowCopies:
    """Copies in all columns but any one: what all columns add up to, less that one."""
    from auditor.data.row_keys import keys_of

    names = sorted(train.columns, key=str)

    def of_column(rows: pd.DataFrame, i: int) -> Keys:
        # Times an odd number of its own, so that no two columns stand in for each other.
        return keys_of(rows[[names[i]]], None, None, None) * np.uint64(2 * i + 1)

    totals = [np.zeros(len(rows), np.uint64) for rows in (train, test)]
    # One column after the other, and each twice: all of them are as large as the rows.
    for i in range(len(names)):
        for total, rows in zip(totals, (train, test), strict=True):
            total += of_column(rows, i)
    repeated, original = np.zeros(len(train), bool), np.full(len(test), -1, np.int64)
    pairs: list[IntArray] = []
    for i in range(len(names)):
        found = _by_keys(*(total - of_column(rows, i) for total, rows in zip(totals, (train, test), strict=True)))
        repeated |= found.repeated
        original = np.where(original < 0, found.original, original)
        pairs.append(found.pairs)
    return RowCopies(repeated, original, np.concatenate(pairs))


# ---- texts -----------------------------------------------------------------------------------------------------------


def _similar(train: list[list[str]], test: list[list[str]]) -> RowCopies:
    """Texts that share most of their runs of words: met by MinHash, and compared run by run."""
    runs = _runs(train + test)
    n = len(train)
    first, second = _candidates(runs, n)
    repeated, original = np.zeros(n, bool), np.full(len(test), -1, np.int64)
    pairs: list[tuple[int, int]] = []
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        if (b < n and repeated[a] and repeated[b]) or (b >= n and original[b - n] >= 0):
            continue
        shared = np.intersect1d(runs[a], runs[b], assume_unique=True).size
        if shared >= LEAST_ALIKE * (runs[a].size + runs[b].size - shared):
            if b < n:
                repeated[[a, b]] = True
                pairs.append((a, b))
            else:
                original[b - n] = a
    return RowCopies(repeated, original, np.asarray(pairs[:_MOST_PAIRS], np.int64).reshape(-1, 2))


def _runs(texts: list[list[str]]) -> list[npt.NDArray[np.uint64]]:
    """The different runs of words of each text, by hash; a text of fewer words is one run, one without a word none."""
    import pandas as pd

    flat = np.asarray([word for words in texts for word in words] or [""], object)
    codes, different = pd.factorize(flat)
    hashed = pd.util.hash_array(np.asarray(different, object), categorize=False)[codes]
    found: list[npt.NDArray[np.uint64]] = []
    start = 0
    for words in texts:
        own = hashed[start : start + len(words)]
        start += len(words)
        size = min(RUN_OF_WORDS, len(own))
        run = np.zeros(len(own) - size + 1 if size else 0, np.uint64)
        for i in range(size):
            run = run * np.uint64(0x9E3779B97F4A7C15) + own[i : i + len(run)]
        found.append(np.unique(run))
    return found


def _candidates(runs: list[npt.NDArray[np.uint64]], n: int) -> tuple[IntArray, IntArray]:
    """Pairs of a training row and a later row that meet in a band, each with the first and the last before it."""
    kept = np.asarray([i for i, run in enumerate(runs) if run.size], np.int64)
    if not kept.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    flat = np.concatenate([runs[i] for i in kept])
    starts = np.cumsum([0, *(runs[i].size for i in kept[:-1])])
    numbers = np.random.default_rng(0).integers(1, 2**63, (_BANDS * _IN_BAND, 2), np.uint64)
    pairs: list[npt.NDArray[np.int64]] = []
    for band in range(_BANDS):
        key = np.zeros(kept.size, np.uint64)
        for times, plus in numbers[band * _IN_BAND : (band + 1) * _IN_BAND]:
            mixed = (flat ^ (flat >> np.uint64(31))) * (times | np.uint64(1)) + plus
            key = key * np.uint64(0x9E3779B97F4A7C15) + np.minimum.reduceat(mixed, starts)
        # Training rows stand before test rows in each group, as they do among all.
        order = np.argsort(key, kind="stable")
        group = np.append(0, np.cumsum(key[order][1:] != key[order][:-1]))
        head = np.searchsorted(group, group)
        row = kept[order]
        last = np.maximum.accumulate(np.where(row < n, np.arange(row.size), -1))
        before = np.append(-1, last[:-1])
        for other in (head, before):
            met = (other >= head) & (other < np.arange(row.size)) & (row[np.maximum(other, 0)] < n)
            pairs.append(np.stack([row[other[met]], row[met]], axis=1))
    different = np.unique(np.concatenate(pairs), axis=0)
    return different[:, 0], different[:, 1]


# ---- pictures and sound ----------------------------------------------------------------------------------------------


def _alike(train: Rows, test: Rows, modality: str) -> RowCopies:
    from probes.deepfake.source_leakage import NEAR, digests, fingerprints, twins

    known = digests(train), fingerprints(train)
    apart = ~np.eye(len(train), dtype=bool)
    near = twins(known, known, least=NEAR[modality], eligible=apart).near
    some = np.flatnonzero(near >= 0)[:_MOST_PAIRS]
    original = np.empty(0, np.int64)
    if len(test):
        original = twins((digests(test), fingerprints(test)), known, least=NEAR[modality]).near
    return RowCopies(near >= 0, original, np.stack([some, near[some]], axis=1))


# ---- copies that are planted -----------------------------------------------------------------------------------------


def as_copies(rows: Rows, copied: BoolArray, kind: str, rng: np.random.Generator) -> Rows:
    """The rows, of which those that are ``copied`` (n,) from others are made copies of one kind alone."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        frame = rows.copy(deep=False)
        if kind == "near":
            for i, dtype in enumerate(frame.dtypes):
                if dtype.kind == "f":
                    values = frame.iloc[:, i].to_numpy(np.float64)
                    frame.isetitem(i, np.where(copied, values * (1.0 + 1e-9), values))
        elif kind == "one column apart":
            i = int(rng.integers(frame.shape[1]))
            own = frame.iloc[:, i]
            others = own.iloc[rng.permutation(len(frame))].set_axis(frame.index)
            frame.isetitem(i, own.where(~copied, others).array)
        return frame
    if rows.dtype == object and kind in ("near", "similar"):
        # A word more leaves four in five runs of six words as they were.
        more = [" again" if kind == "similar" and str(text).count(" ") > 5 else " !" for text in rows]
        changed = [str(text).upper() + own for text, own in zip(rows, more, strict=True)]
        return np.where(copied, np.asarray(changed, object), rows)
    return rows
