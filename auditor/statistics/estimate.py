"""The interface of every estimate at any level, the kinds of estimates without samples, and sample size planning."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import scipy
from pydantic import BaseModel, ConfigDict

from auditor.core.number_types import NonNegative
from auditor.core.rows import FloatArray

Side = Literal["greater", "less", "at_most", "at_least"]
POWER = 0.80
# ``scipy.special.ndtri(POWER)``, written out: whoever only prints a record need not import scipy's functions.
Z_POWER = 0.8416212335729143
_SMALLEST_P = 1e-16
_COMPARED: dict[Side, Callable[[float, float], bool]] = {
    "greater": operator.gt,
    "at_least": operator.ge,
    "less": operator.lt,
    "at_most": operator.le,
}


class Power(NamedTuple):
    """The power of a metric: a true value ``effect`` FAILs in at least 80 % of audits with ``n`` rows per group."""

    n: int
    effect: float


TESTS_OF_PARTS = "the tests that its parts' own bounds invert, all together"


class Estimate(BaseModel):
    """A number with its uncertainty at any level; subclasses define its parts.

    ``value``: the point estimate, NaN where undefined. ``bounds(alpha)``: a lower and an upper bound, each missed with
    probability at most alpha, nested in alpha for 0 < alpha <= 0.5. The fields are the sufficient statistics: an
    estimate survives a round trip through JSON, and a stranger can recompute every interval from the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    # Whether the value may exceed 1, so that an ideal of 0 does not mean a share.
    unbounded: ClassVar[bool] = False
    # The least and the largest number that it can ever be, whatever the data.
    kind_limits: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    # Which test its interval inverts, in words; "" where it has no interval. Every kind says its own.
    interval_test: ClassVar[str]
    # Why it has no planning numbers, in a sentence, where it has none.
    unplanned: ClassVar[str] = "How many rows would decide it is not computed for a number of this kind."
    # Why no criterion may be held against it, in a sentence, where its kind is none of :data:`~.kinds.JUDGED`.
    unjudgeable: ClassVar[str] = (
        "Nothing shows that its interval misses no more often than it promises, so no criterion may rest on it."
    )

    @property
    def limits(self) -> tuple[float, float]:
        """The minimum and maximum possible value; requirements outside of them are empty."""
        return self.kind_limits

    @property
    def value(self) -> float:
        """The point estimate; NaN if undefined."""
        raise NotImplementedError

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lower and upper one-sided bound, each wrong with probability at most ``alpha``.

        A kind defines these or :meth:`many_bounds`, where all levels at once take no longer than one.
        """
        low, high = self.many_bounds(np.asarray([alpha]))[0]
        return float(low), float(high)

    def lower(self, alpha: float) -> float:
        """The lower bound alone."""
        return self.bounds(alpha)[0]

    def upper(self, alpha: float) -> float:
        """The upper bound alone."""
        return self.bounds(alpha)[1]

    def many_bounds(self, alphas: FloatArray) -> FloatArray:
        """(n, 2) bounds at every level of ``alphas``, (n,)."""
        return np.asarray([self.bounds(float(alpha)) for alpha in alphas], np.float64)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided interval from the one-sided bounds at ``(1 - confidence) / 2`` each."""
        if not 0.0 <= confidence < 1.0:
            raise ValueError(f"confidence must lie in [0, 1), not {confidence}")
        return self.bounds((1.0 - confidence) / 2.0)

    def p_value(self, bound: float, side: Side) -> float:
        """Smallest alpha at which the one-sided bound makes the value significantly ``side`` than ``bound``.

        ``greater`` and ``less`` are strict, ``at_least`` and ``at_most`` are not: a count known to be 0 is at most 0.
        Inverts :meth:`bounds` by bisection in log alpha to a relative 1e-6. Range [1e-16, 1]; anything above 0.5 is
        given as 1, because no judgement reads it.
        """

        return smallest_level(lambda alpha: self.shows(alpha, bound, side))

    def shows(self, alpha: float, value: float, side: Side) -> bool:
        """Whether the number is significantly on ``side`` of a value at ``alpha``, by the one-sided bound for it."""
        return _COMPARED[side](self.lower(alpha) if side in ("greater", "at_least") else self.upper(alpha), value)

    def undecided(self) -> str:
        """The reason other than sample size against judging it, in one or two sentences; "" without one."""
        return ""

    def standard_error_at(self, ideal: float) -> float:
        """Standard error of the hardest part of the estimate if the true value were ``ideal``; NaN where unknown."""
        return math.nan

    def critical_value(self, alpha: float) -> float:
        """Half width of a one-sided bound at ``alpha`` in standard errors, for planning."""
        return float(-scipy.special.ndtri(alpha))

    @property
    def comparisons(self) -> int:
        """The number of parts of which a headline is the worst; 1 for a plain estimate."""
        return 1

    def detectable(self, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
        """The nearest value beyond ``bound`` with 80 % power at this n; above it for ``sign`` 1.

        NaN where unknown, infinite where no value would be.
        """
        reach = self.critical_value(alpha / max(self.comparisons, 1)) + Z_POWER
        return bound + sign * reach * self.standard_error_at(ideal)

    def growth(self, *, bound: float, alpha: float, ideal: float, miss: float) -> float:
        """The multiple of n at which a true value ``ideal`` is within ``bound``, with miss probability ``miss``.

        Every comparison must come out, so each is given its share of ``miss``. NaN where unknown, and for a bound at
        the ideal itself, which no size is enough for.
        """
        if bound == ideal:
            return math.nan
        reach = self.critical_value(alpha) + float(-scipy.special.ndtri(miss / max(self.comparisons, 1)))
        return (reach * self.standard_error_at(ideal) / abs(bound - ideal)) ** 2


class EachBound(Estimate):
    """An estimate that computes its two bounds one by one: a kind defines :meth:`lower` and :meth:`upper`."""

    def bounds(self, alpha: float) -> tuple[float, float]:
        return self.lower(alpha), self.upper(alpha)


class Undefined(Estimate):
    """A number that is undefined for these data: 0/0, an empty group.

    It is never shown as a number.

    ``failed``: it does not exist because the model failed, or a file cannot be read, which no further rows would mend.
    ``inapplicable``: the question does not arise for this model or these data, such as what a feature does that the
    model does not take.
    Both: the model refuses what it was asked about, which answers a question and meets no requirement.
    """

    interval_test = ""

    kind: Literal["undefined"] = "undefined"
    reason: str
    failed: bool = False
    inapplicable: bool = False

    @property
    def value(self) -> float:
        return math.nan

    def bounds(self, alpha: float) -> tuple[float, float]:
        return -math.inf, math.inf


class Exact(Estimate):
    """A count or a quantity known without sampling error, such as the number of non-finite weights in a file."""

    interval_test = ""

    kind: Literal["exact"] = "exact"
    known: float

    @property
    def value(self) -> float:
        return self.known

    def bounds(self, alpha: float) -> tuple[float, float]:
        return self.known, self.known

    def standard_error_at(self, ideal: float) -> float:
        return 0.0


def smallest_level(is_shown: Callable[[float], bool], *, tolerance: float = 1e-6) -> float:
    """The smallest alpha at which a result is ``is_shown``, as in :meth:`Estimate.p_value`; ``tolerance``: relative
    error."""
    if not is_shown(0.5):
        return 1.0
    if is_shown(_SMALLEST_P):
        return _SMALLEST_P
    low, high = math.log(_SMALLEST_P), math.log(0.5)
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_shown(math.exp(middle)) else (middle, high)
    return math.exp(high)


def smallest_p(p: float) -> float:
    """A p-value in the range of :meth:`Estimate.p_value`, [1e-16, 0.5], or 1."""
    return 1.0 if p > 0.5 else max(p, _SMALLEST_P)


def first_size(holds: Callable[[float], bool]) -> float:
    """The smallest size, to 1 %, from which the condition ``holds`` is true; infinite beyond 1e12."""
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2.0 * high
        if high > 1e12:
            return math.inf
    while low < 0.99 * high and high > 1e-6:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def minimum_detectable_effect(estimate: Estimate, *, bound: float, alpha: float, ideal: float, sign: int) -> float:
    """Smallest value beyond ``bound`` that is significant with 80 % power at the present n.

    ``sign`` is +1 for an upper bound. Planned from the ideal value and the group sizes, never from the observed effect,
    so a noisy estimate cannot excuse itself. NaN where unknown, infinite where no value would be seen.
    """
    return estimate.detectable(bound=bound, alpha=alpha, ideal=ideal, sign=sign)


def n_required(estimate: Estimate, *, bound: float, alpha: float, ideal: float, n: int, sides: int = 1) -> int | None:
    """Sample size for an ideal model to be significantly within ``bound`` with 80 % power, at equal group shares.

    ``sides``: 2 where it must be shown on both sides of the ideal. None where that is unknown, out of reach, or the
    bound is the ideal itself.
    """
    if bound == ideal:
        return None
    times = estimate.growth(bound=bound, alpha=alpha, ideal=ideal, miss=(1.0 - POWER) / sides)
    return math.ceil(n * times - 1e-6) if math.isfinite(times) else None


class UpperBound(Estimate):
    """A quantity of at least 0 with the known upper bound ``most`` only: it can meet limits, never violate them.

    ``bounds`` are [0, most] at every level, without sampling error; ``value`` is ``most``, the bound itself.
    """

    unbounded = True
    kind_limits = (0.0, math.inf)
    unplanned = (
        "It is an upper bound: the true value may be smaller, so this number can show that a limit is kept and never "
        "that it is broken."
    )
    interval_test = "none: an upper bound by accounting, without sampling"

    kind: Literal["upper_bound"] = "upper_bound"
    most: NonNegative

    @property
    def value(self) -> float:
        return self.most

    def bounds(self, alpha: float) -> tuple[float, float]:
        return 0.0, self.most
