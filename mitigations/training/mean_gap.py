"""The gap between groups' mean scores, as a training penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from mitigations.training.option_names import Constraint


def mean_gap(q: Tensor, y: Tensor, s: Tensor, constraint: Constraint, positive: int | None) -> Tensor:
    """The distance between groups' mean scores in a batch, a differentiable scalar of at least 0.

    ``|mean q of the group - mean q of all other rows|``, averaged over the groups that have rows and others to compare
    with, and summed over columns of q, over sensitive features, and over parts of the rows: all rows
    (``demographic_parity``), each label's (``equalized_odds``) or the favourable label's (``equal_opportunity``). Of
    two groups it is the gap between their means. A part with fewer than two groups adds nothing.

    q: (b, c) scores. y: (b,) labels. s: (b, k) groups of each of k features.
    """
    if constraint == "demographic_parity":
        part, n_parts = torch.zeros_like(y), 1
    elif constraint == "equalized_odds":
        part, n_parts = y, int(y.max()) + 1
    else:
        # The second part is not looked at: these rows are not to be compared.
        part, n_parts = y.ne(-1 if positive is None else positive).long(), 2
    total = q.new_zeros(())
    for j in range(s.shape[1]):
        n_groups = int(s[:, j].max()) + 1
        cell = s[:, j] * n_parts + part
        sums = q.new_zeros(n_groups * n_parts, q.shape[1]).index_add(0, cell, q).view(n_groups, n_parts, -1)
        counts = torch.bincount(cell, minlength=n_groups * n_parts).view(n_groups, n_parts, 1).to(q.dtype)
        others = counts.sum(dim=0) - counts
        gap = (sums / counts.clamp_min(1) - (sums.sum(dim=0) - sums) / others.clamp_min(1)).abs()
        compared = (counts > 0) & (others > 0)
        gaps = (gap * compared).sum(dim=0) / compared.sum(dim=0).clamp_min(1)
        total = total + (gaps[:1] if constraint == "equal_opportunity" else gaps).sum()
    return total
