"""Decision margins and their gradients: the distance to another decision, and the direction towards it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.models.torch_model import DifferentiableModel

_MOST_DOUBLED = 100_000_000


@dataclass(frozen=True, eq=False)
class Asked:
    """A model's answers on m points: (m,) different decisions, margins, and their gradients (m, ...).

    The gradient is 0 where the model has none: its output rests on no input, or is no number.
    """

    flipped: BoolArray
    margin: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class Margins:
    """A model in an attack's form: ``z_c - z_t`` of logits z, with the decided class c and the target class t.

    ``decide``: (m, k) probabilities to (m,) classes. ``twin``: the same model in double precision, by which gradients
    are taken, or None; what is decided is always the model's own answer.
    """

    model: DifferentiableModel
    decide: Callable[[FloatArray], IntArray]
    twin: DifferentiableModel | None = None

    def ask(self, points: Tensor, clean: IntArray, targets: Tensor | None = None) -> Asked:
        """The answers on points (m, ...) with clean decisions (m,); ``targets`` (m,) classes, by default the
        nearest."""
        import torch

        taken = points.detach() if self.twin is None else points.detach().double()
        taken = taken.clone().requires_grad_()
        logits = (self.twin or self.model).logits(taken)
        own = torch.from_numpy(clean).to(points.device).unsqueeze(1)
        margin = margin_of(logits, own, targets)
        gradient = torch.zeros_like(taken)
        if margin.requires_grad:
            found = torch.autograd.grad(margin.sum(), taken, allow_unused=True)[0]
            gradient = gradient if found is None else torch.nan_to_num(found, 0.0, 0.0, 0.0)
        answered = logits.detach() if self.twin is None else self.logits(points)
        return Asked(self.otherwise(answered, clean), margin.detach(), gradient)

    def logits(self, points: Tensor) -> Tensor:
        """(m, k) the model's logits at points (m, ...)."""
        import torch

        with torch.no_grad():
            return self.model.logits(points.detach())

    def flipped(self, points: Tensor, clean: IntArray) -> BoolArray:
        """(m,) whether the model decides points (m, ...) differently."""
        return self.otherwise(self.logits(points), clean)

    def otherwise(self, logits: Tensor, clean: IntArray) -> BoolArray:
        """(m,) whether logits (m, k) decide differently; NaN decides nothing."""
        sure = probabilities(logits)
        return np.asarray((self.decide(sure) != clean) & np.isfinite(sure).all(axis=1), np.bool_)


def margin_of(logits: Tensor, decisions: Tensor, targets: Tensor | None = None) -> Tensor:
    """(m,) ``z_own - z_wanted``, by default the largest other; own (m, 1), wanted (m,)."""
    import torch

    mine = logits.gather(1, decisions).squeeze(1)
    if targets is not None:
        return mine - logits.gather(1, targets.unsqueeze(1)).squeeze(1)
    return mine - logits.scatter(1, decisions, -torch.inf).amax(dim=1)


def probabilities(logits: Tensor) -> FloatArray:
    """(m, k) in double precision."""
    import torch

    return torch.softmax(logits.detach().double(), dim=1).cpu().numpy()


def in_double(model: DifferentiableModel, like: Tensor) -> DifferentiableModel | None:
    """The model with a double-precision copy of its module; None if it cannot be copied or run so.

    None too for more than 100 million parameters, of which a second and wider copy may not fit.
    """
    import torch

    if sum(p.numel() for p in model.module.parameters()) > _MOST_DOUBLED:
        return None
    try:
        module = copy.deepcopy(model.module).double()
        twin = copy.copy(model)
        twin.module = module
        with torch.no_grad():
            answered = twin.logits(like[:1].double())
    except Exception:  # whatever a foreign module raises says that it does not run in double precision
        return None
    return twin if answered.dtype == torch.float64 else None
