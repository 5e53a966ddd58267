"""The true rate of a property, corrected for the labelling errors observed on rows with known labels.

Of all rows, and how far it differs between groups.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from auditor.core.files import LEFT_OUT
from auditor.core.number_types import Count
from auditor.core.rows import FloatArray
from auditor.statistics.estimate import Estimate
from auditor.statistics.intervals import BINOMIAL_TEST, clopper_pearson
from auditor.statistics.rates import MOST_GROUPS


class Corrected(Estimate):
    """The true rate pi in ``n`` independent rows, of which ``successes`` were labelled positive, in [0, 1].

    Sensitivity Se is known from ``found`` of ``positives`` rows that are so for certain, specificity from ``spared`` of
    ``negatives`` rows that are not; f = 1 - specificity. As ``q = pi Se + (1 - pi) f``, the value is ``(q - f) /
    (Se - f)``, within [0, 1] (Rogan and Gladen 1978); NaN where a count is 0, or Se is no larger than f. Where rows can
    be said to be so wrongly in several ways, ``spared`` and ``negatives`` have an entry for each, and f is their sum.

    ``candidates``: rows that could be said to be so at all, where negatives are of that sort, and at their hardest: all
    other rows are told without error. Then ``pi >= (q - c f) / (Se (1 - f))``, c being the share of candidates, is the
    value and the lower bound, and the upper bound takes no credit for false alarms, which may be fewer among rows than
    among such negatives: ``pi <= q / Se``, whatever f is.

    ``unlabelled``: rows of ``n`` without a label, which count as labelled negative in the lower bound, as labelled
    positive in the upper one.

    Bounds: each rate that they are made of at its own Clopper-Pearson bound, the level shared out evenly (union bound).
    They hold whatever the three rates are. Where Se is not shown to be larger than f they are 0 and 1; with candidates
    the lower one is 0.
    """

    kind_limits = (0.0, 1.0)
    unplanned = "More rows narrow it down only as far as the rows allow by which sensitivity and specificity are known."
    interval_test = f"{BINOMIAL_TEST} of the count, of the misses and of the false alarms, together"

    kind: Literal["corrected_proportion"] = "corrected_proportion"
    successes: Count
    n: Count
    found: Count
    positives: Count
    spared: Annotated[tuple[Count, ...], Field(min_length=1, max_length=20)]
    negatives: Annotated[tuple[Count, ...], Field(min_length=1, max_length=20)]
    candidates: Count | None = None
    unlabelled: Annotated[Count, LEFT_OUT] = 0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if (
            self.successes + self.unlabelled > self.n
            or self.found > self.positives
            or len(self.spared) != len(self.negatives)
        ):
            raise ValueError(f"{self.successes} of {self.n}, {self.found} of {self.positives}")
        if any(k > n for k, n in zip(self.spared, self.negatives, strict=True)):
            raise ValueError(f"{self.spared} spared of {self.negatives}")
        if self.candidates is not None and not self.successes <= self.candidates <= self.n:
            raise ValueError(f"{self.successes} of {self.candidates} candidates among {self.n} rows")
        return self

    @property
    def value(self) -> float:
        if not min(self.n, self.positives, *self.negatives):
            return math.nan
        q, se = self.successes / self.n, self.found / self.positives
        f = sum(1.0 - k / n for k, n in zip(self.spared, self.negatives, strict=True))
        if self.candidates is not None:
            above = max(q - f * self.candidates / self.n, 0.0)
            return min(above / (se * (1.0 - f)), 1.0) if above and se else 0.0 if se else math.nan
        return min(max((q - f) / (se - f), 0.0), 1.0) if se > f else math.nan

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        ends = [
            corrected_bounds(
                k,
                n=self.n,
                n_found=self.found,
                positives=self.positives,
                spared=self.spared,
                negatives=self.negatives,
                candidates=self.candidates,
                alpha=alphas,
            )
            for k in (self.successes, self.successes + self.unlabelled)
        ]
        return np.stack([ends[0][0], ends[1][1]], axis=-1)

    @property
    def reason(self) -> str:
        """The reason why there is no value, in words; "" if there is one, or nothing was counted."""
        return self._not_told() if math.isnan(self.value) and min(self.n, self.positives, *self.negatives) else ""

    def undecided(self) -> str:
        found = clopper_pearson(self.found, n=self.positives, alpha=0.05)[0]
        spared = clopper_pearson(self.spared, n=self.negatives, alpha=0.05)[0]
        return "" if found > (1.0 - spared).sum() else f"By what is known, {self._not_told()}."

    def _not_told(self) -> str:
        return (
            f"found were {self.found:,} of {self.positives:,} that are known to be so, and spared "
            f"{' and '.join(f'{k:,} of {n:,}' for k, n in zip(self.spared, self.negatives, strict=True))} that are "
            "not: that does not show that what is said tells one from the other, and then nothing follows from it"
        )


class WorstCorrectedDifference(Estimate):
    """The largest difference between any two groups of a share corrected with the group's own errors; [0, 1], ideal 0.

    ``max over i, j of pi_i - pi_j``, each a :class:`Corrected` whose sensitivity and specificity are of rows of that
    group alone, so that errors which differ between groups are no difference between them. ``value``: NaN where a
    part's is. Bounds: upper, over all pairs the upper bound of the one less the lower one of the other, each at alpha /
    2, since one pair is the largest in truth; lower, the largest lower bound above another's upper one, each of the 2 g
    at alpha / (2 g). They are union bounds, and hold however the groups' rows hang together.
    """

    kind_limits = (0.0, 1.0)
    unplanned = Corrected.unplanned
    interval_test = f"{BINOMIAL_TEST} of count, misses and false alarms of every group, over every pair"

    kind: Literal["worst_corrected_difference"] = "worst_corrected_difference"
    # Judging compares all pairs, and the judge does not trust the process that measured.
    parts: Annotated[tuple[Corrected, ...], Field(min_length=1, max_length=MOST_GROUPS)]

    @property
    def value(self) -> float:
        values = [part.value for part in self.parts]
        return math.nan if len(values) < 2 or any(map(math.isnan, values)) else max(values) - min(values)

    @property
    def comparisons(self) -> int:
        return len(self.parts) * (len(self.parts) - 1)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        g = len(self.parts)
        if g < 2:
            return np.tile(self.kind_limits, (alphas.size, 1))
        # (groups, levels, 2): at a level for the lower bound, and at one for the upper.
        levels = np.concatenate([alphas / (2.0 * g), alphas / 2.0])
        sure, pair = np.split(np.stack([part.many_bounds(levels) for part in self.parts]), 2, axis=1)
        others = ~np.eye(g, dtype=bool)
        lower = (sure[:, None, :, 0] - sure[None, :, :, 1])[others].max(axis=0)
        upper = (pair[:, None, :, 1] - pair[None, :, :, 0])[others].max(axis=0)
        return np.stack([np.maximum(lower, 0.0), np.minimum(upper, 1.0)], axis=-1)

    @property
    def reason(self) -> str:
        """The reason why there is no value, in words; "" if there is one."""
        return next((part.reason for part in self.parts if part.reason), "")

    def undecided(self) -> str:
        return next((why for part in self.parts if (why := part.undecided())), "")


def corrected_bounds(
    successes: npt.ArrayLike,
    *,
    n: npt.ArrayLike,
    n_found: npt.ArrayLike,
    positives: npt.ArrayLike,
    spared: tuple[npt.ArrayLike, ...],
    negatives: tuple[npt.ArrayLike, ...],
    candidates: npt.ArrayLike | None = None,
    alpha: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """One-sided bounds of :class:`Corrected`, each wrong with probability at most ``alpha``; arguments broadcast.

    Lower, with (q, c, Se, f) at their lower, upper, upper and upper bounds, the numerator is positive only where q
    exceeds all false alarms, and then the share falls in c, Se and f and rises in q. Upper, with q at its upper, Se and
    f at their lower bounds (f at 0 with candidates), it is below 1 only where q < Se, and there it falls in Se and f.
    Neither supposes that Se is larger than f; what asks for that only widens.
    """
    level, ways = np.asarray(alpha, np.float64), len(spared)
    hard = candidates is not None
    below, above = level / (ways + (3 if hard else 2)), level / (2 if hard else ways + 2)

    def rate(k: npt.ArrayLike, m: npt.ArrayLike, share: FloatArray) -> tuple[FloatArray, FloatArray]:
        return clopper_pearson(k, n=m, alpha=share)

    def alarms(share: FloatArray) -> tuple[FloatArray, FloatArray]:
        ends = [rate(k, m, share) for k, m in zip(spared, negatives, strict=True)]
        return sum((1.0 - high for _, high in ends), np.zeros(())), sum((1.0 - low for low, _ in ends), np.zeros(()))

    se_low, se_high = rate(n_found, positives, below)
    _, f_high = alarms(below)
    q_low, _ = rate(successes, n, below)
    told = se_low > f_high
    with np.errstate(divide="ignore", invalid="ignore"):
        if candidates is not None:
            low = (q_low - rate(candidates, n, below)[1] * f_high) / (se_high * (1.0 - f_high))
        else:
            low = (q_low - f_high) / (se_high - f_high)
        low = np.where(told, np.clip(np.nan_to_num(low), 0.0, 1.0), 0.0)
        se_low, f_low = rate(n_found, positives, above)[0], np.zeros(()) if hard else alarms(above)[0]
        told = np.asarray(hard) | (se_low > alarms(above)[1])
        _, q_high = rate(successes, n, above)
        high = np.where(told & (q_high < se_low), np.clip((q_high - f_low) / (se_low - f_low), 0.0, 1.0), 1.0)
    return low, high
