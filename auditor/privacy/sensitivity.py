"""Sensitivity of a private step to one row or to one client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["row", "client"]

# What rounding in single precision leaves of a sensitivity of 1.
SLACK = 1e-2


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Change of the released sum when one of a ``unit`` leaves, in clipping norms; a private step allows 1.

    ``largest``: over ``n_rows`` rows left out of ``batch_rows``, each as it is and, where rows are numbers, much
    longer. ``why_not``: why it could not be measured, or "".
    """

    largest: float
    n_rows: int
    batch_rows: int
    why_not: str = ""
    unit: Unit = "row"

    @property
    def exceeds(self) -> bool:
        """Whether one row moves the sum by more than the clipping norm."""
        return not self.why_not and not self.largest <= 1.0 + SLACK
