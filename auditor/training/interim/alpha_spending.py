"""Alpha spending: the division of one error rate over all looks during training."""

from __future__ import annotations

from dataclasses import dataclass


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
