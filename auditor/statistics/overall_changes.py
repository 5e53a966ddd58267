"""Changes of numbers that several rates make up: balanced accuracy, and the share of the commonest decision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from auditor.rows import FloatArray
from auditor.statistics.changes import RateChange, change_bounds
from auditor.statistics.estimate import Estimate
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.random_weights import sum_upper

# Of a level, what the changes themselves have; the rest is for which decisions may be the commonest.
_OWN_SHARE = 0.9


class MeanChange(Estimate):
    """The mean of several changes of rates over different rows, ``mean_i c_i``, in [-1, 1], bounded as one sum."""

    parts: tuple[RateChange, ...]

    @property
    def value(self) -> float:
        return sum(part.value for part in self.parts) / len(self.parts)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if not all(part.n for part in self.parts):
            return -1.0, 1.0
        counts = np.asarray([(p.gained, p.lost, p.n - p.gained - p.lost) for p in self.parts], np.float64)
        values = np.asarray([1.0, -1.0, 0.0]) / len(self.parts)
        high, low = (float(sum_upper(counts, values=sign * values, alpha=alpha)) for sign in (1.0, -1.0))
        return -low, high


class CommonestChange(Estimate):
    """``max_k p_k after - max_k p_k before`` of the shares p of decisions, on the same rows; in [-1, 1].

    Above: let a be the commonest decision after. Before, the commonest was no rarer than a, so that the change is at
    most that of a. A tenth of alpha says which decisions a may be, by Clopper and Pearson's bounds of all shares
    together; nine tenths bound the change of each of those, and the largest bound holds for a. Below: the same with
    before and after exchanged.
    """

    parts: tuple[RateChange, ...]

    @property
    def value(self) -> float:
        return self.commonest(after=True) - self.commonest(after=False)

    def commonest(self, *, after: bool) -> float:
        """The share of the commonest decision under either model."""
        return max(part.rate(after=after).value for part in self.parts)

    def commonest_bounds(self, alpha: float, *, after: bool) -> tuple[float, float]:
        """Its bounds: of the lower ones the largest, each at its share of alpha; of the upper ones, at alpha."""
        successes, n = self._counts(after=after)
        low, _ = clopper_pearson(successes, n=n, alpha=alpha / len(self.parts))
        _, high = clopper_pearson(successes, n=n, alpha=alpha)
        return float(low.max()), float(high.max())

    def bounds(self, alpha: float) -> tuple[float, float]:
        columns = np.asarray([(p.gained, p.lost, p.n) for p in self.parts], np.float64).T
        low, high = change_bounds(gained=columns[0], lost=columns[1], n=columns[2], alpha=_OWN_SHARE * alpha)
        before, after = (self._candidates(alpha, after=after) for after in (False, True))
        return float(low[before].min()), float(high[after].max())

    def _counts(self, *, after: bool) -> tuple[FloatArray, int]:
        return np.asarray([part.rate(after=after).successes for part in self.parts], np.float64), self.parts[0].n

    def _candidates(self, alpha: float, *, after: bool) -> npt.NDArray[np.bool_]:
        """(n_decisions,) which may be the commonest."""
        successes, n = self._counts(after=after)
        low, high = clopper_pearson(successes, n=n, alpha=(1.0 - _OWN_SHARE) * alpha / len(self.parts))
        return np.asarray(high >= low.max(), np.bool_)
