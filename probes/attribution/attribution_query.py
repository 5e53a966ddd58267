"""The input of an explanation: units, baseline, and the model's answers to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from probes.attribution.attribution_units import Units
from probes.attribution.differentiable import Differentiable

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel


Baseline = Literal["auto", "mean", "zero", "uniform", "blur", "pad", "mask"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Posed:
    """A task for one model: its units, and the differentiable side or the reason for its absence."""

    units: Units
    differentiable: Differentiable | None
    why_not: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Question:
    """A task in the form for any model of one kind, already sampled and encoded."""

    put: Callable[[AuditedModel], Posed]
    notes: tuple[str, ...] = ()
