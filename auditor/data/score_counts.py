"""ScoreCounts: statistics of streamed scores, in memory independent of the number of rows.

Scores are counted on a fixed grid and added up as whole numbers, so that neither the order of the rows nor the size of
the parts changes a figure, and two of them add. What the grid hides is bounded, and nowhere estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError
from auditor.core.rows import BoolArray, FloatArray, IntArray

Codes = tuple[npt.NDArray[np.integer], Sequence[str]]
OTHER, FAVOURABLE, UNLABELLED = range(3)
# Counters of all groups together, 128 MiB of them; the grid is made coarser where groups are many.
_MOST_COUNTERS = 1 << 24
_MOST_GROUPS = 1 << 12
# Bits of a score's fraction that tell bins apart, and the exponent below which nothing does.
_FINEST, _SMALLEST = 11, 24
# Sums are of whole numbers: of values in [0, 1] in steps of 2^-36, exact in float64 over so many rows at once.
_SCALE, _ROWS_AT_ONCE = float(1 << 36), 1 << 16
# The least probability that a loss is taken of, and the loss in nats that none is beyond.
LEAST_PROBABILITY = float(np.finfo(np.float64).eps)
LARGEST_LOSS, LOSS_SCALE = 1.0 - float(np.log(LEAST_PROBABILITY)), 64.0
# Scores that are kept one by one for the median's sake.
_MOST_REFINED = 1 << 21


def log_losses(probabilities: FloatArray, truth: IntArray) -> FloatArray:
    """(n,) ``-ln p`` of the true class in nats, from probabilities (n, k) and class indices (n,)."""
    own = np.clip(probabilities, LEAST_PROBABILITY, 1.0)
    told = own[np.arange(len(own)), truth] / own.sum(axis=1)
    return np.asarray(np.minimum(-np.log(np.minimum(told, 1.0)), LARGEST_LOSS), np.float64)


@lru_cache(maxsize=16)
def grid(level: int, cuts: tuple[float, ...]) -> FloatArray:
    """(b,) ascending lower ends of the bins on [0, 1]: ``2^level`` to an octave of s below a half and of 1 - s above.

    So probabilities near 0 and 1 are told apart by their ratios, as ranks need it. ``cuts``: further ends. Each level's
    ends are among those of the next.
    """
    octaves = 2.0 ** -np.arange(_SMALLEST, 1, -1, dtype=np.float64)
    low = (octaves[:, None] * (1.0 + np.arange(1 << level) / (1 << level))).ravel()
    return np.unique(np.concatenate([[0.0], low, [0.5], 1.0 - low, [1.0], cuts]))


@dataclass(frozen=True)
class Asked:
    """The score statistics to compute exactly: rows on either side of ``cuts``, calibration over ``bins`` of equal
    width, and with ``median`` the rows above the overall median.

    ``levels``: whether the levels of features are counted by group. ``rows``: whether some of the rows themselves
    are kept.
    """

    cuts: tuple[float, ...] = ()
    bins: tuple[int, ...] = ()
    median: bool = False
    levels: bool = False
    rows: bool = False

    def __or__(self, other: Asked) -> Asked:
        return Asked(
            cuts=tuple(sorted({*self.cuts, *other.cuts})),
            bins=tuple(sorted({*self.bins, *other.bins})),
            median=self.median or other.median,
            levels=self.levels or other.levels,
            rows=self.rows or other.rows,
        )


class ScoreCounts:
    """Scores of the favourable class in [0, 1], by group; filled part by part.

    ``features``: names of the sensitive features. ``positive``: index of the class whose score it is. ``graded``:
    whether there are probabilities, and not labels in their place.
    """

    def __init__(self, features: Sequence[str], positive: int, n_classes: int, request: Asked) -> None:
        self.features = tuple(features)
        self.positive, self.n_classes, self.asked = positive, n_classes, request
        self.graded = False
        # The largest score that was decided against, and the smallest that was decided for.
        self.below, self.above = -np.inf, np.inf
        self._values: set[float] = set()
        self._level = _FINEST
        self._place: dict[tuple[str, ...], int] = {}
        edges = self.edges
        self._least, self._most = np.full(edges.size, np.inf), np.full(edges.size, -np.inf)
        self._counts = np.zeros((1, 3, edges.size), np.int64)
        self._sums = {name: np.zeros((1, *shape), object) for name, shape in self._shapes().items()}
        self._inside: tuple[float, IntArray] | None = None

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the sums of each group by name: the score and its square, three powers of the loss, and by bin."""
        found: dict[str, tuple[int, ...]] = {"score": (2,), "loss": (3,)}
        kinds = ("favourable",) if self.n_classes == 2 else ("favourable", "likeliest")
        return found | {f"{kind}/{bins}": (4, bins) for kind in kinds for bins in self.asked.bins}

    @property
    def edges(self) -> FloatArray:
        """(b,) lower ends of the bins."""
        return grid(self._level, self.asked.cuts)

    @property
    def n_values(self) -> int:
        """The number of different scores, up to 3."""
        return len(self._values)

    def add(
        self,
        groups: Sequence[Codes],
        y_true: IntArray | None,
        decisions: IntArray,
        probabilities: FloatArray,
    ) -> None:
        """Add the next rows: the group of each by feature, true class (negative without one), decision, and
        probabilities (n, k)."""
        for start in range(0, len(decisions), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            truth = np.full(len(decisions[some]), -1, np.int64) if y_true is None else y_true[some]
            self._add([(codes[some], names) for codes, names in groups], truth, decisions[some], probabilities[some])

    def _add(
        self,
        groups: Sequence[Codes],
        truth: IntArray,
        decisions: IntArray,
        probabilities: FloatArray,
    ) -> None:
        cells = self._cells(groups, len(decisions))
        scores = np.clip(probabilities[:, self.positive], 0.0, 1.0)
        chosen = decisions == self.positive
        self.graded |= bool(((probabilities > 0.0) & (probabilities < 1.0)).any())
        self.below = max(self.below, float(scores[~chosen].max(initial=-np.inf)))
        self.above = min(self.above, float(scores[chosen].min(initial=np.inf)))
        if len(self._values) < 3:
            self._values = set(sorted({*self._values, *np.unique(scores).tolist()})[:3])
        place = np.searchsorted(self.edges, scores, "right") - 1
        np.minimum.at(self._least, place, scores)
        np.maximum.at(self._most, place, scores)
        labels = np.where(truth < 0, UNLABELLED, np.where(truth == self.positive, FAVOURABLE, OTHER))
        np.add.at(self._counts, (cells, labels, place), 1)
        for power in (1, 2):
            self._summed("score", cells, power - 1, scores**power)
        known = truth >= 0
        if not known.any():
            return
        self._calibrated("favourable", cells[known], scores[known], labels[known] == FAVOURABLE)
        if self.n_classes > 2:
            sure, right = probabilities[known].max(axis=1), probabilities[known].argmax(axis=1) == truth[known]
            self._calibrated("likeliest", cells[known], np.clip(sure, 0.0, 1.0), right)
        losses = log_losses(probabilities[known], truth[known]) / LOSS_SCALE
        for power in (1, 2, 3):
            self._summed("loss", cells[known], power - 1, losses**power)

    def _summed(self, name: str, cells: IntArray, column: int, values: FloatArray) -> None:
        sums = np.bincount(cells, weights=np.rint(values * _SCALE), minlength=len(self._counts))
        self._sums[name][:, column] += np.asarray([int(x) for x in sums], object)

    def _calibrated(self, kind: str, cells: IntArray, scores: FloatArray, right: BoolArray) -> None:
        for bins in self.asked.bins:
            at = cells * bins + np.minimum((scores * bins).astype(np.int64), bins - 1)
            size = len(self._counts) * bins
            own = (
                np.bincount(at, minlength=size),
                np.bincount(at[right], minlength=size),
                np.bincount(at, weights=np.rint(scores * _SCALE), minlength=size),
                np.bincount(at, weights=np.rint((right - scores) ** 2 * _SCALE), minlength=size),
            )
            for i, sums in enumerate(own):
                whole = np.asarray([int(x) for x in sums], object)
                self._sums[f"{kind}/{bins}"][:, i] += whole.reshape(-1, bins)

    def _cells(self, groups: Sequence[Codes], n: int) -> IntArray:
        """(n,) the row of each in the tables, which have one for every combination that was seen."""
        codes = np.zeros(n, np.int64)
        for own, names in groups:
            codes = codes * len(names) + own
        seen, at = np.unique(codes, return_inverse=True)
        shape = [len(names) for _, names in groups]
        places = np.unravel_index(seen, shape) if shape else ()
        titles = [
            tuple(str(names[int(p[i])]) for p, (_, names) in zip(places, groups, strict=True)) for i in range(seen.size)
        ]
        for title in titles:
            self._place.setdefault(title, len(self._place))
        self._grow()
        return np.asarray([self._place[title] for title in titles], np.int64)[at]

    def _grow(self) -> None:
        n = len(self._place)
        if n > _MOST_GROUPS:
            raise DataError(
                f"The sensitive features {' x '.join(self.features)} come to more than {_MOST_GROUPS:,} combinations, "
                "too many to count scores of as rows stream by: name fewer of them.",
                code="AUD-DATA-GROUPS",
            )
        size = 1 << (n - 1).bit_length()
        while size * 3 * self.edges.size > _MOST_COUNTERS and self._level:
            self._coarsen()
        if size > len(self._counts):
            self._counts = _padded(self._counts, size)
            self._sums = {name: _padded(sums, size) for name, sums in self._sums.items()}

    def _coarsen(self) -> None:
        fine = self.edges
        self._level -= 1
        starts = np.searchsorted(fine, self.edges)
        self._counts = np.add.reduceat(self._counts, starts, axis=2)
        self._least, self._most = np.minimum.reduceat(self._least, starts), np.maximum.reduceat(self._most, starts)

    def update(self, other: ScoreCounts) -> None:
        """Add the counts of other rows for the same questions.

        Raises ValueError for other questions.
        """
        mine, theirs = ((s.features, s.positive, s.n_classes, s.asked) for s in (self, other))
        if mine != theirs:
            raise ValueError("only scores of the same class, by the same features, add")
        for title in other._place:
            self._place.setdefault(title, len(self._place))
        self._grow()
        while other._level > self._level:
            other._coarsen()
        while self._level > other._level:
            self._coarsen()
        places = [self._place[title] for title in other._place]
        n = len(places)
        self._counts[places] += other._counts[:n]
        for name, sums in other._sums.items():
            self._sums[name][places] += sums[:n]
        self._least, self._most = np.minimum(self._least, other._least), np.maximum(self._most, other._most)
        self.graded |= other.graded
        self.below, self.above = max(self.below, other.below), min(self.above, other.above)
        self._values = set(sorted(self._values | other._values)[:3])

    def group_by(self, features: Sequence[str]) -> Scored:
        """Score counts of the groups by some of the features, sorted by name."""
        columns = [self.features.index(f) for f in features]
        keys = [tuple(title[c] for c in columns) for title in self._place]
        titles = sorted(set(keys))
        place = [titles.index(key) for key in keys]
        seen = np.isfinite(self._least)

        def summed(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
            out = np.zeros((len(titles), *table.shape[1:]), table.dtype)
            np.add.at(out, place, table[: len(keys)])
            return out

        return Scored(
            groups=tuple(titles),
            counts=summed(self._counts)[:, :, seen],
            sums={name: summed(sums) for name, sums in self._sums.items()},
            edges=self.edges[seen],
            least=self._least[seen],
            most=self._most[seen],
            inside=None if self._inside is None else summed(self._inside[1]),
            median=self.median,
        )

    # ---- the median ------------------------------------------------------------------------------------------------

    def _middle(self) -> tuple[int, int]:
        """The bins of the two scores in the middle, of which an odd number of rows has one."""
        upto = np.cumsum(self._counts.sum(axis=(0, 1)))
        n = int(upto[-1])
        low, high = np.searchsorted(upto, [(n - 1) // 2, n // 2], "right")
        return int(low), int(high)

    def unsettled(self) -> tuple[float, float] | None:
        """The smallest and the largest of the scores that may contain the median, if the grid does not determine it;
        None if it does, or if there are too many of them to keep."""
        low, high = self._middle()
        if low != high or self._least[low] == self._most[low] or self._counts[:, :, low].sum() > _MOST_REFINED:
            return None
        return float(self._least[low]), float(self._most[low])

    def settle(self, parts: Iterable[tuple[Sequence[Codes], FloatArray]]) -> None:
        """Find the median in a second pass over the scores of all rows: groups by feature, probabilities (n, k).

        Raises DataError where they are not the rows of the first time.
        """
        between = self.unsettled()
        if between is None:
            return
        cells, scores = [], []
        for groups, probabilities in parts:
            own = np.clip(probabilities[:, self.positive], 0.0, 1.0)
            within = (own >= between[0]) & (own <= between[1])
            scores.append(own[within])
            cells.append(self._cells([(codes[within], names) for codes, names in groups], int(within.sum())))
        values, of = np.concatenate(scores), np.concatenate(cells)
        bin_of = self._middle()[0]
        counts = self._counts.sum(axis=(0, 1))
        if values.size != counts[bin_of]:
            raise DataError(
                "The rows were not the same when they were read again: audit them when nothing writes to the file.",
                code="AUD-DATA-CHANGED",
            )
        before, n = int(counts[:bin_of].sum()), int(counts.sum())
        ordered = np.sort(values)
        median = float((ordered[(n - 1) // 2 - before] + ordered[n // 2 - before]) / 2.0)
        self._inside = median, np.bincount(of[values > median], minlength=len(self._counts))

    @property
    def median(self) -> float | None:
        """The median of all scores; None if neither the grid nor a second pass determined it."""
        low, high = self._middle()
        if low != high:
            return float((self._most[low] + self._least[high]) / 2.0)
        if self._least[low] == self._most[low]:
            return float(self._least[low])
        return None if self._inside is None else self._inside[0]


@dataclass(frozen=True, eq=False)
class Scored:
    """Groups and their score counts: ``counts`` (g, 3, b) by label and non-empty bin.

    ``edges``: (b,) lower ends of the bins. ``least``, ``most``: (b,) of the scores of any row in them. ``sums``: by
    name, whole numbers. ``inside``: (g,) rows above the median in its own bin, where those were looked at one by one.
    """

    groups: tuple[tuple[str, ...], ...]
    counts: IntArray
    sums: dict[str, npt.NDArray[Any]]
    edges: FloatArray
    least: FloatArray
    most: FloatArray
    inside: IntArray | None
    median: float | None

    @property
    def titles(self) -> list[str]:
        """The groups by one name each."""
        return [" x ".join(level) for level in self.groups]

    @property
    def sizes(self) -> IntArray:
        """(g,) rows."""
        return np.asarray(self.counts.sum(axis=(1, 2)), np.int64)

    @property
    def labelled(self) -> IntArray:
        """(g,) rows with a label."""
        return np.asarray(self.counts[:, :UNLABELLED].sum(axis=(1, 2)), np.int64)

    @property
    def blurred(self) -> BoolArray:
        """(b,) whether a bin's rows have more than one score."""
        return np.asarray(self.least < self.most, np.bool_)

    def at_least(self, threshold: float) -> IntArray:
        """(g, 3) rows by group and label with a score of at least one of the requested cuts."""
        return np.asarray(self.counts[:, :, self.edges >= threshold].sum(axis=2), np.int64)

    def above_median(self) -> IntArray:
        """(g,) rows with scores above the overall median.

        Raises ValueError where that is not known.
        """
        if self.median is None:
            raise ValueError("the median is not known")
        above = self.counts[:, :, self.least > self.median].sum(axis=(1, 2))
        return np.asarray(above if self.inside is None else above + self.inside, np.int64)

    def moments(self, name: str, scale: float = 1.0) -> list[Moments | None]:
        """Moments of each group's labelled rows ("loss") or all rows ("score"), times ``scale``; None without rows."""
        sizes = self.labelled if name == "loss" else self.sizes
        return [_moments(int(n), sums, scale) if n else None for n, sums in zip(sizes, self.sums[name], strict=True)]

    def calibrated(self, kind: str, bins: int) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """(g, bins) labelled rows, those of them that are right, and the sums of their scores and squared errors."""
        n, right, *sums = np.moveaxis(self.sums[f"{kind}/{bins}"], 1, 0)
        scores, squares = (each.astype(np.float64) / _SCALE for each in sums)
        return n.astype(np.int64), right.astype(np.int64), scores, squares

    def whole(self) -> Scored:
        """All groups combined into one."""
        return replace(
            self,
            groups=((),),
            counts=self.counts.sum(axis=0, keepdims=True),
            sums={name: sums.sum(axis=0, keepdims=True) for name, sums in self.sums.items()},
            inside=None if self.inside is None else self.inside.sum(keepdims=True),
        )


@dataclass(frozen=True)
class Moments:
    """Mean, sample variance (0 of one value), and mean cubed deviation of ``n`` values, where the sums have them.

    The mean is that of values rounded to steps of 2^-36 of ``scale``; the variance is no smaller for the rounding.
    """

    n: int
    mean: float
    variance: float
    cubed: float


def _moments(n: int, sums: Sequence[int], scale: float) -> Moments:
    first, second, *third = [Fraction(int(total), n << 36) for total in sums]
    variance = max(second - first**2, Fraction(0)) + Fraction(1, 1 << 35)
    cubed = third[0] - 3 * first * second + 2 * first**3 if third else Fraction(0)
    variance *= Fraction(n, max(n - 1, 1))
    return Moments(n, float(first) * scale, float(variance) * scale**2, float(cubed) * scale**3)


def _padded(table: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    out = np.zeros((size, *table.shape[1:]), table.dtype)
    out[: len(table)] = table
    return out
