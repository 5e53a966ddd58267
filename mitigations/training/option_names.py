"""The values that options of mitigations may take, by name; apart from what computes with them, which needs torch."""

from __future__ import annotations

from typing import Literal

Constraint = Literal["demographic_parity", "equalized_odds", "equal_opportunity"]
AlphaSchedule = Literal["constant", "linear", "sqrt"]
