"""What an explanation is asked: units, baseline, and the answers about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from probes.attribution.differentiable import Differentiable
from probes.attribution.units import Units

if TYPE_CHECKING:
    from auditor.model.audited_model import AuditedModel


Baseline = Literal["auto", "mean", "zero", "uniform", "blur", "pad", "mask"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Posed:
    """A question put to one model: its units, and the differentiable side or why there is none."""

    units: Units
    differentiable: Differentiable | None
    why_not: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """How to put a question to any model of one kind, everything drawn and encoded already."""

    put: Callable[[AuditedModel], Posed]
    notes: tuple[str, ...] = ()
