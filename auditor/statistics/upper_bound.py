"""A quantity with only an upper bound, such as the epsilon of an accountant."""

from __future__ import annotations

import math
from typing import Literal

from auditor.core.number_types import NonNegative
from auditor.statistics.estimate import Estimate


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
