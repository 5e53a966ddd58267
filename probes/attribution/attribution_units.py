"""The object of an explanation: one score per sample, over removable units, for any modality; and its baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from auditor.core.rows import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel
    from probes.attribution.differentiable import Differentiable

Baseline = Literal["auto", "mean", "zero", "uniform", "blur", "pad", "mask"]
UnitKind = Literal["feature", "word", "token", "patch"]
Scale = Literal["log-odds", "probability", "log-probability"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Units:
    """The d units of each of n samples, and the explained score f with any of them removed.

    A unit is a raw feature of a table, a word or token of a text, a patch of an image. Where samples have different
    numbers of them, ``d`` is the largest and ``present`` (n, d) says which are there; the others are never graded.

    ``score(rows, keep)``: (m,) score of samples ``rows`` (m,) in which the units that ``keep`` (m, d) does not keep are
    replaced by the infill; float64, in batches inside, no gradients. ``names[i]``: names of sample i's units (all the
    same tuple for tables). ``infill``: in words, what stands where a unit was. ``in_distribution``: whether the infill
    is drawn from, or is a value of, the data's own distribution (an observed row's value, a mask token that the model
    was trained with), rather than a blank. ``output``: what f is, in words, such as "the log-odds of 'yes'"; ``scale``:
    what makes a probability of it. ``of_prompts``: whether samples are prompts of a language model.
    """

    kind: UnitKind
    present: BoolArray
    names: tuple[tuple[str, ...], ...]
    score: Callable[[IntArray, BoolArray], FloatArray]
    infill: str
    in_distribution: bool
    output: str
    scale: Scale = "log-odds"
    of_prompts: bool = False

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.present)

    @property
    def d(self) -> int:
        """Largest number of units of a sample."""
        return int(self.present.shape[1])


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
