"""How many worlds a promise is simulated in, and how many of them may break it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, rankdata

from auditor.core.rows import FloatArray
from auditor.statistics import changes, combined_tails, detection
from auditor.statistics import rate_pairs as pairs
from auditor.statistics.combined_tails import Pairs
from auditor.statistics.estimate import Estimate
from auditor.statistics.intervals import bounded_mean_reach, clopper_pearson
from auditor.statistics.rank_estimates import AreaUnderCurve
from tests.quantifiers import none_of

WORLDS = 2_000
# Kinds that are bounded by reaches of means, which :func:`bounds_of` computes of many estimates at once.
OF_REACHES = {"area_difference", "average_precision", "largest_drop"}
# Kinds that are made of pairs of rates.
_OF_PAIRS = {"difference", "largest_disparity", "worst_difference", "worst_ratio", "differential_fairness"}


def most_misses(alpha: float = 0.05, worlds: int = WORLDS) -> int:
    """More misses than this are seen once in a thousand tests of a promise that is just kept: 131 of 2,000 at 5 %."""
    return int(binom.isf(0.001, worlds, alpha))


def misses(estimates: Iterable[Estimate], truth: float, alpha: float = 0.05) -> tuple[int, int]:
    """In how many worlds the lower bound is above the truth, and in how many the upper one is below it.

    In every world the bounds hold the value of the sample.
    """
    above = below = 0
    # Counts are few numbers, so the same estimate is drawn again and again.
    counted = Counter(estimates)
    for (estimate, times), (low, high) in zip(counted.items(), bounds_of(list(counted), alpha), strict=True):
        if not math.isnan(estimate.value):
            assert low <= estimate.value <= high
        above += times * (low > truth + 1e-9)
        below += times * (high < truth - 1e-9)
    return above, below


def bounds_of(estimates: list[Estimate], alpha: float) -> list[tuple[float, float]]:
    """The bounds of each; where those are found by search, the searches of all are made together.

    Each estimate looks at a pair of groups or a few, and thousands of such looks take their time one by one.
    """
    kinds = {estimate.kind for estimate in estimates}  # type: ignore[attr-defined]
    if kinds <= OF_REACHES:
        return _by_reaches(estimates, alpha)
    if kinds != {"gap_change"} and (not kinds <= _OF_PAIRS or pairs.MOST_ENUMERATED):
        return [estimate.bounds(alpha) for estimate in estimates]
    searches = [Search(combined_tails, _of_pairs), Search(changes, _of_changes), Search(changes, _of_sums)]
    for patched in ("noted", "replayed"):
        with pytest.MonkeyPatch.context() as patch:
            for search in searches:
                patch.setattr(search.module, search.name, getattr(search, patched))
            found = [estimate.bounds(alpha) for estimate in estimates]
    assert none_of(search.found for search in searches)
    return found


def _by_reaches(estimates: list[Estimate], alpha: float) -> list[tuple[float, float]]:
    """The bounds of each, where the reaches of the means of all are computed together: no call depends on another."""
    asked: list[dict[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "bounded_mean_reach", lambda **of: asked.append(of) or 0.0)
        for estimate in estimates:
            estimate.bounds(alpha)
    found = bounded_mean_reach(**{name: np.asarray([of[name] for of in asked]) for name in asked[0]}).tolist()
    left = iter(zip(asked, found, strict=True))

    def reach(**of: float) -> float:
        same, answer = next(left)
        assert of == same
        return float(answer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "bounded_mean_reach", reach)
        bounds = [estimate.bounds(alpha) for estimate in estimates]
    assert next(left, None) is None
    return bounds


@dataclass(frozen=True)
class Asked:
    """One call: what else it says, and what it asks of each element, (columns, n); ``shape`` of its answer."""

    key: tuple[Any, ...]
    columns: FloatArray
    shape: tuple[int, ...]
    answer: Callable[[Callable[..., FloatArray], FloatArray], FloatArray]


class Search:
    """A function that searches for each element of its arrays by itself: noted at first, then answered at once.

    ``asked``: a call, from the function's own arguments; its name is that of the function in ``module``.
    """

    def __init__(self, module: ModuleType, asked: Callable[..., Asked]) -> None:
        self.module, self.asked = module, asked
        self.name = {"_of_pairs": "lower_bounds", "_of_changes": "change_upper", "_of_sums": "sum_upper"}[
            asked.__name__
        ]
        self.real: Callable[..., FloatArray] = getattr(module, self.name)
        self.calls: list[Asked] = []
        self.found: list[FloatArray] = []

    def noted(self, *arguments: Any, **named: Any) -> FloatArray:
        """Nothing yet; no call may depend on it."""
        self.calls.append(self.asked(*arguments, **named))
        return np.zeros(self.calls[-1].shape)

    def replayed(self, *arguments: Any, **named: Any) -> FloatArray:
        """What the call that was noted at this place has come to."""
        if self.calls:
            self._answer()
        call = self.asked(*arguments, **named)
        return self.found.pop().reshape(call.shape)

    def _answer(self) -> None:
        found: dict[int, FloatArray] = {}
        for key in dict.fromkeys(call.key for call in self.calls):
            own = [i for i, call in enumerate(self.calls) if call.key == key]
            together = np.concatenate([self.calls[i].columns for i in own], axis=1)
            # The same pair of counts is seen in many worlds.
            different, where = np.unique(together, axis=1, return_inverse=True)
            answer = self.calls[own[0]].answer(self.real, different)[where]
            ends = np.cumsum([self.calls[i].columns.shape[1] for i in own])[:-1]
            found.update(zip(own, np.split(answer, ends), strict=True))
        self.found = [found[i] for i in reversed(range(len(self.calls)))]
        self.calls = []


def _of_pairs(asked: Pairs, alpha: npt.ArrayLike) -> Asked:
    columns = np.stack(np.broadcast_arrays(asked.k_1, asked.n_1, asked.k_2, asked.n_2, np.asarray(alpha, np.float64)))

    def answer(real: Callable[..., FloatArray], all_: FloatArray) -> FloatArray:
        k_1, n_1, k_2, n_2, levels = all_
        pairs = Pairs(contrast=asked.contrast, k_1=k_1, n_1=n_1, k_2=k_2, n_2=n_2, either=asked.either)
        return real(pairs, levels)

    return Asked((asked.contrast, asked.either), columns, (len(asked),), answer)


def _of_changes(*, gained: npt.ArrayLike, lost: npt.ArrayLike, n: npt.ArrayLike, alpha: npt.ArrayLike) -> Asked:
    each = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (gained, lost, n, alpha)))

    def answer(real: Callable[..., FloatArray], all_: FloatArray) -> FloatArray:
        return real(gained=all_[0], lost=all_[1], n=all_[2], alpha=all_[3])

    return Asked((), np.stack([x.ravel() for x in each]), each[0].shape, answer)


def _of_sums(counts: npt.ArrayLike, *, values: npt.ArrayLike, alpha: npt.ArrayLike) -> Asked:
    k, v = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(values, np.float64))
    first, last = k.shape[:2], k.shape[2:]
    cells = math.prod(first)
    parts = [k.reshape(cells, -1), v.reshape(cells, -1), np.broadcast_to(alpha, last).reshape(1, -1)]

    def answer(real: Callable[..., FloatArray], all_: FloatArray) -> FloatArray:
        k, v, levels = np.split(all_, [cells, 2 * cells])
        return real(k.reshape(*first, -1), values=v.reshape(*first, -1), alpha=levels[0])

    return Asked(first, np.concatenate(parts), last, answer)


def exact_limits_once() -> Callable[..., tuple[FloatArray, FloatArray]]:
    """Clopper-Pearson limits that are computed once for each count: 2,000 worlds see the same few again and again."""
    known: dict[tuple[float, float, bytes], tuple[FloatArray, FloatArray]] = {}

    def limits(successes: npt.ArrayLike, *, n: npt.ArrayLike, alpha: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        k, m = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
        levels = np.asarray(alpha, np.float64)
        # The one axis along which the level varies is one of length 1 in the counts.
        axis = int(np.argmax(levels.shape)) - levels.ndim
        assert levels.size > 1 and levels.size == levels.shape[axis] and k.shape[axis] == 1
        counts, name = list(zip(k.ravel().tolist(), m.ravel().tolist(), strict=True)), levels.tobytes()
        for a, b in {pair for pair in counts if (*pair, name) not in known}:
            known[a, b, name] = clopper_pearson(a, n=b, alpha=levels.ravel())
        return tuple(  # type: ignore[return-value]
            np.moveaxis(np.stack(ends).reshape(*np.squeeze(k, axis).shape, levels.size), -1, axis)
            for ends in zip(*(known[a, b, name] for a, b in counts), strict=True)
        )

    return limits


def areas(positives: FloatArray, negatives: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Areas, standard errors and third cumulants, each (n_worlds,), of scores (n_worlds, m) and (n_worlds, n).

    The arithmetic of :func:`~auditor.statistics.rank_estimates.area_under_curve`, many at once.
    """
    m, n = positives.shape[1], negatives.shape[1]
    below = _below(positives, negatives)
    over, under = below[:, :m] / n, 1.0 - below[:, m:] / m
    auc = over.mean(axis=1)
    delong = over.var(axis=1, ddof=1) / m + under.var(axis=1, ddof=1) / n
    a = (auc * m * n + 0.5) / (m * n + 1.0)
    q1, q2 = a / (2.0 - a), 2.0 * a**2 / (1.0 + a)
    exponential = (a * (1.0 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2)) / (m * n)
    third = _mean_cube(over - auc[:, None]) / m**2 + _mean_cube(under - auc[:, None]) / n**2
    return auc, np.sqrt(np.maximum(delong, exponential)), third


def _below(positives: FloatArray, negatives: FloatArray) -> FloatArray:
    """(n_worlds, m + n) how many of the other sample lie below each score, ties half."""
    m, joint = positives.shape[1], np.concatenate([positives, negatives], axis=1)
    order = joint.argsort(axis=1)
    ascending = np.take_along_axis(joint, order, axis=1)
    if (ascending[:, 1:] == ascending[:, :-1]).any():
        return rankdata(joint, axis=1) - np.hstack([rankdata(positives, axis=1), rankdata(negatives, axis=1)])
    positive = order < m
    seen = np.cumsum(positive, axis=1)
    below = np.empty(joint.shape)
    np.put_along_axis(below, order, np.where(positive, np.arange(1, joint.shape[1] + 1) - seen, seen), axis=1)
    return below


def areas_of(positives: FloatArray, negatives: FloatArray) -> list[AreaUnderCurve]:
    """The estimates that these scores come to, one a world."""
    m, n = positives.shape[1], negatives.shape[1]
    columns = (column.tolist() for column in areas(positives, negatives))
    return [
        AreaUnderCurve(centre=min(max(a, 0.0), 1.0), standard_error=s, n_positive=m, n_negative=n, third_cumulant=third)
        for a, s, third in zip(*columns, strict=True)
    ]


def moments(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Means, standard errors and third central moments, each (n_worlds,), of values (n_worlds, n)."""
    centre = values.mean(axis=1)
    deviations = values - centre[:, None]
    error = np.sqrt((deviations**2).sum(axis=1) / (values.shape[1] - 1) / values.shape[1])
    return centre, error, _mean_cube(deviations)


def _mean_cube(deviations: FloatArray) -> FloatArray:
    """(n_worlds,) of (n_worlds, n); a power takes ten times as long as two products."""
    return np.asarray((deviations * deviations * deviations).mean(axis=1), np.float64)


def normal_shift(auc: float) -> float:
    """How far apart two standard normal samples are that have this area under the curve."""
    from scipy.special import ndtri

    return math.sqrt(2.0) * float(ndtri(auc))
