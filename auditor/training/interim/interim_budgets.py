"""Budgets of interim looks: the error rate divided over all looks, and the share of the training's processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Levels of ``n_peeks`` looks and of the closing one, which together come to ``error_rate``.

    The closing look, whose report is kept, has ``closing_share`` of the rate, and the looks on the way share the rest
    evenly. The rows stay and the model changes between two looks, so that each look asks about another model: evidence
    does not add up over looks, the questions do, and no bound but the union's holds whatever their dependence
    (Bonferroni). Over the whole run the chance of any false alarm is at most ``error_rate``.

    Raises ValueError where a number is out of range.
    """

    n_peeks: int
    error_rate: float = 0.05
    closing_share: float = 0.5

    def __post_init__(self) -> None:
        if self.n_peeks < 1:
            raise ValueError(f"n_peeks must be at least 1, not {self.n_peeks}")
        if not 0.0 < self.error_rate < 1.0:
            raise ValueError(f"error_rate must lie in (0, 1), not {self.error_rate}")
        if not 0.0 < self.closing_share < 1.0:
            raise ValueError(f"closing_share must lie in (0, 1), not {self.closing_share}")

    @property
    def peek(self) -> float:
        """The level of each look on the way."""
        return self.error_rate * (1.0 - self.closing_share) / self.n_peeks

    @property
    def closing(self) -> float:
        """The level of the closing look."""
        return self.error_rate * self.closing_share


@dataclass
class Budget:
    """Limit of the audits' share of processor time to ``max_overhead``, by skipping looks; None skips none.

    Processor time is that of all threads of this process: what else the machine is busy with makes neither the training
    nor the audits dearer. The first look is always taken, since it tells what one costs; so is the closing one, which
    the report is made of and for which every other look leaves enough. A later look is taken once the training has paid
    for it, for all looks before it and for what is still to come. So the share is kept in every training of which it
    comes to the first look, the closing one and the report: in 60 s, 3 % are 1.8 s.

    ``reserve``: seconds that are kept for the report; ``seconds``: what audits took so far; ``before``: what training
    and audits took in the processes that this one goes on from; ``clock`` is for tests.
    """

    max_overhead: float | None
    reserve: float = 0.0
    clock: Callable[[], float] = time.process_time
    seconds: float = 0.0
    longest: float = 0.0
    before: float = 0.0
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Record that training starts or continues now."""
        self._begun = self.clock()

    def allows(self) -> bool:
        """Whether one more look, and the closing one, would stay within the share."""
        return not self.longest or self.affords(self.longest)

    def affords(self, seconds: float) -> bool:
        """Whether so many more seconds, the closing look and the report would stay within the share."""
        if self.max_overhead is None:
            return True
        training = self.elapsed - self.seconds
        allowance = training * self.max_overhead / (1.0 - self.max_overhead)
        return self.seconds + seconds + self.longest + self.reserve <= allowance

    def spend(self, seconds: float, *, look: bool = True) -> None:
        """Record time spent by a look, or by other work outside of training."""
        self.seconds += seconds
        if look:
            self.longest = max(self.longest, seconds)

    @property
    def elapsed(self) -> float:
        """Seconds of training and audits so far."""
        # A process's clock begins at zero, so that in one that was forked off after ``begin`` it would run backwards.
        return self.before + max(0.0, self.clock() - self._begun)

    @property
    def goal(self) -> str:
        """The reason for skipped looks, in words; a training resumed from a checkpoint may have no limit."""
        return "within a limit, since lifted," if self.max_overhead is None else f"near {self.max_overhead:.3g}"

    @property
    def overhead(self) -> float:
        """Share of audits in the processor time so far, in [0, 1]."""
        passed = self.elapsed
        return self.seconds / passed if passed > 0.0 else 0.0
