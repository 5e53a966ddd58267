"""What audits may cost of the time that training takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Keeps the share of audits in the wall time at ``max_overhead``, by leaving looks out; None leaves none out.

    The first look is always taken, since it tells what one costs; so is the closing one, which the report is made of
    and for which every other look leaves enough. A later look is taken once the training since the beginning has paid
    for it. ``reserve``: seconds that are kept for the report; ``seconds``: what audits took so far; ``clock`` is for
    tests.
    """

    max_overhead: float | None
    reserve: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    seconds: float = 0.0
    longest: float = 0.0
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Training starts now."""
        self._begun = self.clock()

    def allows(self) -> bool:
        """Whether one more look, and the closing one, would keep the share."""
        if self.max_overhead is None or not self.longest:
            return True
        training = self.clock() - self._begun - self.seconds
        allowance = training * self.max_overhead / (1.0 - self.max_overhead)
        return self.seconds + 2.0 * self.longest + self.reserve <= allowance

    def spend(self, seconds: float, *, look: bool = True) -> None:
        """So much time was taken, by a look or by something else that is not training."""
        self.seconds += seconds
        if look:
            self.longest = max(self.longest, seconds)

    @property
    def overhead(self) -> float:
        """Share of audits in the wall time so far, in [0, 1]."""
        passed = self.clock() - self._begun
        return self.seconds / passed if passed > 0.0 else 0.0
