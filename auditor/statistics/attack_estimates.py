"""Estimates of attacks: rates with one-sided evidence, the largest of several, exposure of a planted secret."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from auditor.core.number_types import Count, NonNegative, Positive, PositiveCount
from auditor.core.rows import FloatArray
from auditor.statistics.estimate import EachBound, Estimate
from auditor.statistics.intervals import BINOMIAL_TEST, clopper_pearson
from auditor.statistics.rank_estimates import AreaUnderCurve, TruePositiveRateAt
from auditor.statistics.rates import Proportion, RateTable


class _OneSided(Estimate):
    """``successes`` of ``n`` rows, of which one bound is a proportion's and the other says nothing.

    ``open_side``: on which nothing can be shown, 1 above and -1 below.
    """

    kind_limits = (0.0, 1.0)
    open_side: ClassVar[int]

    # Named here for its place in the record.
    kind: Literal["at_most", "at_least"]
    successes: Count
    n: Count

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.successes > self.n:
            raise ValueError(f"{self.successes} successes of {self.n}")
        return self

    @property
    def value(self) -> float:
        return self.successes / self.n if self.n else math.nan

    def _share(self) -> Proportion:
        return Proportion(successes=self.successes, n=self.n)

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """As for a proportion if "beyond" lies on the bounded side; values on the other are never significant."""
        if sign == self.open_side:
            return sign * math.inf
        return self._share().detectable(bound=bound, alpha=alpha, ideal=ideal, sign=sign)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """As for a proportion if "within" lies on the bounded side; NaN otherwise, since no rows suffice."""
        if self.open_side * (ideal - bound) > 0.0:
            return math.nan
        return self._share().growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss)


class AtMost(_OneSided):
    """An upper-bounded rate of rows: those without a counterexample in a search.

    ``successes`` of ``n`` independent rows held out; a stronger search may break more of them, and never fewer. In
    [0, 1]; ``value`` is successes / n. Bounds: 0, whatever the level, and the Clopper-Pearson upper bound. So accuracy
    under an attack may be shown to lie below a bound, and never above one.
    """

    open_side = 1
    unplanned = (
        "It is an upper bound: a stronger search may break more rows, so this number can show that a limit is broken "
        "and never that it is kept, however many rows there are."
    )
    interval_test = f"{BINOMIAL_TEST}; an upper bound alone"

    kind: Literal["at_most"] = "at_most"

    def bounds(self, alpha: float) -> tuple[float, float]:
        return 0.0, _high(self.successes, self.n, alpha)

    def undecided(self) -> str:
        return f"{self.successes:,} of {self.n:,} rows were neither broken nor proved. {self.unplanned}"


class AtLeast(_OneSided):
    """A lower-bounded rate of rows: those with a proof, or with a counterexample.

    ``successes`` of ``n`` independent rows were shown to be so, by a certificate or by a counterexample; of the others
    nothing is known. In [0, 1]; ``value`` is successes / n. Bounds: the Clopper-Pearson lower bound, and 1. So
    certified accuracy may be shown to lie above a bound and never below one, and a rate of flips that were found the
    same: beyond a limit, and never within it.
    """

    open_side = -1
    unplanned = (
        "It is a lower bound: what was not shown may be so too, so this number can never show that the true share is "
        "no larger, however many rows there are."
    )
    interval_test = f"{BINOMIAL_TEST}; a lower bound alone"

    kind: Literal["at_least"] = "at_least"

    def bounds(self, alpha: float) -> tuple[float, float]:
        return _low(self.successes, self.n, alpha), 1.0

    def undecided(self) -> str:
        return f"Of {self.n - self.successes:,} of {self.n:,} rows nothing was shown. {self.unplanned}"


class Bracket(Estimate):
    """A rate between proven rows and rows without a counterexample; a proportion if every row is decided.

    Of ``n`` independent rows ``proved`` are so for certain, and ``possible`` >= proved were not shown to be otherwise:
    certified rows, and rows that no attack broke. In [0, 1]; ``value`` is proved / n, the worse end. Bounds: the
    Clopper-Pearson lower bound of the one count, and the upper bound of the other.
    """

    kind_limits = (0.0, 1.0)
    unplanned = "More rows do not decide the rows that are neither proved nor broken."
    interval_test = f"{BINOMIAL_TEST} of what was proved and of what nothing broke"

    kind: Literal["bracket"] = "bracket"
    proved: Count
    possible: Count
    n: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.proved <= self.possible <= self.n:
            raise ValueError(f"{self.proved} proved, {self.possible} possible, of {self.n}")
        return self

    @property
    def value(self) -> float:
        return self.proved / self.n if self.n else math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        return _low(self.proved, self.n, alpha), _high(self.possible, self.n, alpha)

    def undecided(self) -> str:
        left = self.possible - self.proved
        return f"{left:,} of {self.n:,} rows were neither proved nor broken." if left else ""

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """As for a proportion with every row decided."""
        return Proportion(successes=self.proved, n=self.n).detectable(bound=bound, alpha=alpha, ideal=ideal, sign=sign)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """As for a proportion with every row decided."""
        return Proportion(successes=self.proved, n=self.n).growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss)


class WorstBracketDifference(Estimate):
    """The largest difference of such a share between any two groups, in [0, 1], ideal 0.

    ``max over i, j of p_i - p_j``; ``proved`` and ``possible`` are the counts of the same groups. ``value``: of each
    group's worse end, proved / n; NaN where a group has no rows. Bounds: the largest lower bound of one group above
    another's upper bound, and the largest upper bound above another's lower bound, each of the 2 g one-sided
    Clopper-Pearson bounds at alpha / (2 g) (union bound).
    """

    kind_limits = (0.0, 1.0)
    unplanned = Bracket.unplanned
    interval_test = f"{BINOMIAL_TEST} of what was proved and of what nothing broke, over every pair of groups"

    kind: Literal["worst_bracket_difference"] = "worst_bracket_difference"
    proved: RateTable
    possible: RateTable

    @model_validator(mode="after")
    def _same_groups(self) -> Self:
        pairs = zip(self.proved.successes, self.possible.successes, strict=False)
        if self.proved.n != self.possible.n or any(k > m for k, m in pairs):
            raise ValueError("proved and possible are of the same groups, and none has more proved than possible")
        return self

    @property
    def value(self) -> float:
        if not self.proved.complete or not self.proved.n:
            return math.nan
        k, n = self.proved.arrays()
        return float((k / n).max() - (k / n).min())

    @property
    def comparisons(self) -> int:
        return self.proved.n_pairs

    def bounds(self, alpha: float) -> tuple[float, float]:
        (k, n), (m, _) = self.proved.arrays(), self.possible.arrays()
        if n.size < 2:
            return self.kind_limits
        each = alpha / (2.0 * n.size)
        low, high = clopper_pearson(k, n=n, alpha=each)[0], clopper_pearson(m, n=n, alpha=each)[1]
        # Nothing is known of a group without rows.
        most = _largest_difference(high, low) if self.proved.complete else 1.0
        return max(0.0, _largest_difference(low, high)), most


def _largest_difference(upper: FloatArray, lower: FloatArray) -> float:
    """The largest ``above[i] - below[j]``, of i other than j."""
    return max(float(upper[i] - lower[j]) for i in range(upper.size) for j in range(lower.size) if i != j)


def _low(k: int, n: int, alpha: float) -> float:
    return float(clopper_pearson(k, n=n, alpha=alpha)[0]) if n else 0.0


def _high(k: int, n: int, alpha: float) -> float:
    return float(clopper_pearson(k, n=n, alpha=alpha)[1]) if n else 1.0


AttackEstimate = Annotated[AreaUnderCurve | Proportion | TruePositiveRateAt, Field(discriminator="kind")]


class AttackPart(BaseModel):
    """The result of one attack; ``share``: of the level of the whole question, for its own lower bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    share: Annotated[float, Field(gt=0.0, le=1.0)]
    estimate: AttackEstimate


class StrongestAttack(EachBound):
    """The success of the strongest of several attacks on the same rows, in [0, 1]: ``max_a theta_a``.

    Lower bound at alpha: ``max_a L_a(share_a * alpha)``. It exceeds ``max_a theta_a`` only where some ``L_a`` exceeds
    its own ``theta_a``, which has a probability of at most ``sum_a share_a alpha <= alpha``, however the attacks depend
    on each other. Upper bound: ``max_a U_a(alpha)``, which is at least that of the attack that truly is the strongest,
    so it misses with a probability of at most alpha (an intersection-union test, Berger 1982). A share belongs to the
    attack whatever else was tried, so one more attack moves neither another's lower bound nor the upper bound down.

    The other way to have one verdict, to pick the strongest attack on half of the rows and to confirm it on the other
    half, needs a success farther from the bound: ``sqrt(2) z(alpha)`` standard errors of all rows against
    ``z(alpha / 4)`` of an attack with a quarter of the level, 2.33 and 2.24 at 0.05, 3.29 and 2.81 at 0.01. And its
    PASS would be that of the attack that was picked, which need not be the strongest.
    """

    kind_limits = (0.0, 1.0)
    interval_test = "the tests that the attacks' own bounds invert, each with its share of the level"

    kind: Literal["strongest_attack"] = "strongest_attack"
    attacks: Annotated[tuple[AttackPart, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _one_level(self) -> Self:
        if math.fsum(attack.share for attack in self.attacks) > 1.0 + 1e-9:
            raise ValueError("the attacks' shares come to more than the whole level")
        if len({attack.estimate.kind for attack in self.attacks}) > 1:
            raise ValueError("numbers of different kinds have no largest")
        return self

    @property
    def value(self) -> float:
        values = [attack.estimate.value for attack in self.attacks]
        return math.nan if any(map(math.isnan, values)) else max(values)

    @property
    def strongest(self) -> str:
        """The attack that came to most."""
        return max(self.attacks, key=lambda attack: attack.estimate.value).name

    def lower(self, alpha: float) -> float:
        return max(attack.estimate.lower(attack.share * alpha) for attack in self.attacks)

    def upper(self, alpha: float) -> float:
        return max(attack.estimate.upper(alpha) for attack in self.attacks)

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        lows = np.max([attack.estimate.many_bounds(attack.share * alphas)[:, 0] for attack in self.attacks], axis=0)
        highs = np.max([attack.estimate.many_bounds(alphas)[:, 1] for attack in self.attacks], axis=0)
        return np.stack([lows, highs], axis=1)

    @property
    def comparisons(self) -> int:
        return len(self.attacks)

    def standard_error_at(self, ideal: float) -> float:
        return max(attack.estimate.standard_error_at(ideal) for attack in self.attacks)

    def critical_value(self, alpha: float) -> float:
        return max(attack.estimate.critical_value(alpha) for attack in self.attacks)

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """The nearest value beyond the bound that is detectable by one attack."""
        found = [
            attack.estimate.detectable(
                bound=bound, alpha=alpha * (attack.share if sign > 0 else 1.0), ideal=ideal, sign=sign
            )
            for attack in self.attacks
        ]
        return min(found) if sign > 0 else max(found)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The multiple of rows at which every attack is within the bound, as the whole requires."""
        return max(
            attack.estimate.growth(bound=bound, alpha=alpha, ideal=ideal, miss=miss / len(self.attacks))
            for attack in self.attacks
        )


class Exposure(Estimate):
    """``-log2 P(a random candidate is at least as likely as the canary)`` in bits, from ``n`` random candidates.

    ``at_least_as_likely`` of them are no less likely than the canary, so that its rank among them is one more and the
    value ``log2((n + 1) / rank)``; with ``extrapolated``, that of a distribution fitted to the candidates. Given the
    canary the count is binomial, so its Clopper-Pearson bounds q give ``-log2(q)``, whatever the distribution is; from
    n candidates no more than about ``log2(n)`` bits can be shown. In [0, ``bits``], ``bits`` being log2 of the number
    of candidates there are. ``exhausted``: the n candidates are all there are besides canaries, so the value is exact
    and cannot exceed ``log2(n + 1)``. 1 where the canary is like the median candidate. Source: Carlini et al., USENIX
    Security 2019, 4.
    """

    unbounded = True
    unplanned = "Only more candidates tell: n of them show an exposure of at most about log2(n) bits."
    interval_test = f"{BINOMIAL_TEST} of the share of candidates that are as likely"

    kind: Literal["exposure"] = "exposure"
    at_least_as_likely: Count
    n: PositiveCount
    bits: Positive
    extrapolated: NonNegative | None = None
    exhausted: bool = False

    @model_validator(mode="after")
    def _no_more_than_n(self) -> Self:
        if self.at_least_as_likely > self.n:
            raise ValueError(f"{self.at_least_as_likely} of {self.n} candidates")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, min(math.log2(self.n + 1), self.bits) if self.exhausted else self.bits

    @property
    def value(self) -> float:
        by_rank = math.log2((self.n + 1) / (self.at_least_as_likely + 1))
        return min(by_rank if self.extrapolated is None else self.extrapolated, self.bits)

    def bounds(self, alpha: float) -> tuple[float, float]:
        if self.exhausted:
            return self.value, self.value
        low, high = (float(q) for q in clopper_pearson(self.at_least_as_likely, n=self.n, alpha=alpha))
        least = max(-math.log2(high), 0.0)
        most = min(-math.log2(low), self.bits) if low > 0.0 else self.bits
        return min(least, self.value), max(most, self.value)
