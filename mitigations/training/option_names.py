"""Allowed values of mitigation options, separate from the computing code, which needs torch."""

from __future__ import annotations

from typing import Literal

Constraint = Literal["demographic_parity", "equalized_odds", "equal_opportunity"]
AlphaSchedule = Literal["constant", "linear", "sqrt"]
