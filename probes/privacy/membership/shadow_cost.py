"""What training shadow models would cost, counted and never timed, so that the same audit trains the same number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from auditor.randomness import seeded_globals

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.training.blueprints import Blueprint

FEWEST = 4
# More than the fewest are trained while they cost little, because they find little more: of a network that learned
# noisy labels, four reference models gave an area of 0.574, 16 of them 0.578.
_MORE, _SHARE_FOR_MORE = (16, 8), 0.1
# Of one core: arithmetic and parameter updates in a second, and what a step costs in calls, whatever it computes.
_FLOPS, _UPDATES, _PER_STEP = 2e10, 5e8, 4e-4
# A backward pass computes two products for each of the forward pass.
_PASSES = 3


def seconds_each(blueprint: Blueprint, encoded: Tensor, n_learned: int) -> float:
    """Seconds of one core that one shadow model takes, at stated unit costs.

    The arithmetic of a forward pass is counted on one batch of ``encoded`` rows (n, ...), of which ``n_learned`` are
    learned in each epoch of the recipe and all are asked for afterwards: 2e10 floating point operations a second, 5e8
    updated parameters a second, 0.4 ms a step. A real core differs, and what is trained does not depend on it.
    """
    with seeded_globals(np.random.default_rng(0)):
        module = blueprint.make().to(encoded.device)
    batch = min(blueprint.recipe.batch_size, n_learned, len(encoded))
    flops = _forward(module, lambda: module.eval()(encoded[:batch]), encoded[:batch])
    steps = blueprint.recipe.epochs * math.ceil(n_learned / batch)
    n_parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    each_step = _PER_STEP + _PASSES * flops / _FLOPS + n_parameters / _UPDATES
    return steps * each_step + flops * len(encoded) / batch / _FLOPS


def affordable(each: float, budget: float) -> int:
    """How many to train unasked, at ``each`` seconds: 16 or 8 for at most a tenth of ``budget``, else 4 or none."""
    number = next((more for more in _MORE if more * each <= _SHARE_FOR_MORE * budget), FEWEST)
    return number if number * each <= budget else 0


def _forward(module: nn.Module, run: Callable[[], object], rows: Tensor) -> float:
    """Floating point operations of a forward pass: as counted, or of every weight at every place of every row."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    # Recurrent layers are one operation that the counter does not know: every weight, at every token.
    tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
    weights = sum(p.numel() for p in module.parameters() if id(p) not in tables)
    places = 1 if rows.is_floating_point() else math.prod(rows.shape[1:])
    return max(float(counter.get_total_flops()), 2.0 * weights * places * len(rows))
