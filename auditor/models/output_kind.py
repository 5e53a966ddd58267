"""The kind of a network's outputs: logits or probabilities, as stated, or a question to the user otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Outputs = Literal["logits", "probabilities"]
# A network may say in an attribute of this name what it returns; those of our own do.
STATED = "output_kind"
# Rounding in bfloat16 moves a sum of probabilities by four thousandths.
_ROUNDING, _ROUNDING_OF_SUMS = 1e-3, 1e-2
_ANSWERS = "add --outputs probabilities or --outputs logits (outputs= in Python)"


def stated_by(module: object) -> Outputs | None:
    """The output kind that a network declares in an attribute ``output_kind`` of its class."""
    said = getattr(type(module), STATED, None)
    return said if said in ("logits", "probabilities") else None


def as_logits(raw: Tensor, outputs: Outputs) -> Tensor:
    """(..., n_classes) logits from a module's outputs; a single output z becomes (0, z), probabilities logarithms."""
    if outputs == "probabilities":
        raw = both_classes(raw)
        return torch.log(raw.clamp_min(torch.finfo(raw.dtype).tiny))
    return torch.cat([torch.zeros_like(raw), raw], dim=-1) if raw.shape[-1] == 1 else raw


def both_classes(raw: Tensor) -> Tensor:
    """(..., n_classes) probabilities, in single precision at least; a single output p becomes (1 - p, p)."""
    if raw.dtype not in (torch.float32, torch.float64):
        raw = raw.float()
    return torch.cat([1.0 - raw, raw], dim=-1) if raw.shape[-1] == 1 else raw


def as_probabilities(raw: Tensor) -> Tensor:
    """(n, n_classes) probabilities that add up to one exactly, in double precision, from a module's own."""
    found = both_classes(raw.double()).clamp(0.0, 1.0)
    sums = found.sum(dim=1, keepdim=True)
    # What adds up already stays bit for bit what the module said, so that a threshold is met where the module meets it.
    scaled = torch.where((sums - 1.0).abs() > 1e-6, found / sums, found)
    # No probabilities at all; it is Seen that says so, of all rows.
    return torch.where(sums == 0.0, 1.0 / found.shape[1], scaled)


@dataclass(frozen=True)
class Seen:
    """A module's outputs on some rows: (rows, columns) numbers in [low, high], with row sums in [least, most].

    ``whole``: whether all were whole numbers. Rows with NaN are left out: they are an error of their own.
    """

    rows: int
    columns: int
    low: float
    high: float
    least: float
    most: float
    whole: bool

    @classmethod
    def from_outputs(cls, raw: Tensor) -> Seen | None:
        """The summary of outputs (n, columns); None if no row has numbers."""
        values = raw.detach().double()
        sums = values.sum(dim=1)
        # Infinities may be of both signs, whose sum is no number though each of them is one.
        kept = ~values.isnan().any(dim=1)
        if not bool(kept.all()):
            values, sums = values[kept], sums[kept]
        if not len(values):
            return None
        whole = (values == values.round()).all().double()
        found = torch.stack([values.min(), values.max(), sums.min(), sums.max(), whole]).tolist()
        low, high, least, most, all_whole = found
        return cls(len(values), values.shape[1], low, high, least, most, bool(all_whole))

    def and_then(self, other: Seen | None) -> Seen:
        """The summary of both sets of rows."""
        if other is None:
            return self
        return replace(
            self,
            rows=self.rows + other.rows,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            least=min(self.least, other.least),
            most=max(self.most, other.most),
            whole=self.whole and other.whole,
        )

    @property
    def in_unit_interval(self) -> bool:
        """Whether every number is in [0, 1]."""
        return -_ROUNDING <= self.low and self.high <= 1.0 + _ROUNDING

    @property
    def sum_to_one(self) -> bool:
        """Whether every row sums to one."""
        return 1.0 - _ROUNDING_OF_SUMS <= self.least and self.most <= 1.0 + _ROUNDING_OF_SUMS

    def question(self) -> str | None:
        """The question about the output kind, if the outputs may be something other than logits; else None.

        Several columns of logarithms of probabilities are logits too, since softmax gives the probabilities back.
        """
        one = self.columns == 1
        if self.in_unit_interval and (one or self.sum_to_one):
            what, remedy = "which probabilities do and logits may", _ANSWERS
        elif self.in_unit_interval and self.high > 0.0:
            what = "which is one probability for each of several labels, or logits"
            remedy = (
                "add --outputs logits if they are logits; else let it return probabilities that sum to 1 and add "
                "--outputs probabilities (outputs= in Python)"
            )
        elif one and self.whole:
            what = "all of them whole numbers, as labels are"
            remedy = f"let it return scores and {_ANSWERS}, or audit its labels with --predict package.module:function"
        elif one and self.high <= 0.0:
            what = "which logarithms of probabilities do, and logits of a class that is never the likelier one"
            remedy = (
                "add --outputs logits if they are logits; else let it return the probabilities themselves and add "
                "--outputs probabilities (outputs= in Python)"
            )
        else:
            return None
        return f"The model returns {self._range_text()}, {what}, and nobody said which they are: {remedy}."

    def contradiction(self) -> str | None:
        """The reason why these outputs are no probabilities despite being declared so; None if they are."""
        if self.in_unit_interval and (self.columns == 1 or self.sum_to_one):
            return None
        return (
            f"The model's outputs are said to be probabilities, and it returns {self._range_text()}, which are none: "
            "add --outputs logits if they are logits (outputs= in Python)."
        )

    def _range_text(self) -> str:
        # No word of more digits than decide: 0.9999 is not 1.
        span = f"between {self.low:.4g} and {self.high:.4g}"
        n = f"{self.rows:,} {'row' if self.rows == 1 else 'rows'}"
        if self.columns == 1:
            return f"one number a row, {span} over {n}"
        sums = f"whose sums are between {self.least:.4g} and {self.most:.4g}"
        return f"{self.columns} numbers a row, {span}, {sums} over {n}"
