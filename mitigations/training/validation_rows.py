"""Held-out training rows for the choice of a setting, never those of a reported result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mitigations.training.retraining import VALIDATION_SHARE, TrainingSet, decide_rows

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.core.rows import IntArray
    from auditor.models.torch_model import TorchModel

ACCURACY_LOST = 0.02
BALANCED_ACCURACY_LOST = 0.05
FEWEST_COMPARED = 10


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The results of a model on held-out rows: ``gap`` is the largest difference between groups' rates of a decision,
    None if no two groups have enough rows."""

    accuracy: float
    balanced_accuracy: float
    gap: float | None
    one_class: bool

    def is_useful_beside(self, plain: Seen) -> bool:
        """Whether the model is useful beside one made the same way without the mitigation: at most 2 points less
        accurate (5 by balanced accuracy), and with more than one class in its decisions if that model has."""
        return (
            self.accuracy >= plain.accuracy - ACCURACY_LOST
            and self.balanced_accuracy >= plain.balanced_accuracy - BALANCED_ACCURACY_LOST
            and (plain.one_class or not self.one_class)
        )


def held_back(
    rows: TrainingSet, rng: np.random.Generator, share: float = VALIDATION_SHARE
) -> tuple[IntArray, IntArray]:
    """Training positions and held-out positions: ``share`` of the rows of every group and label."""
    cells = np.unique(np.column_stack([rows.s.cpu().numpy(), rows.y.cpu().numpy()]), axis=0, return_inverse=True)[1]
    order = rng.permutation(len(rows))
    # The place of each row among those of its cell, in the order drawn.
    cell = cells.reshape(-1)[order]
    by_cell = np.argsort(cell, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cell))])[:-1]
    rank = np.empty(len(rows), np.int64)
    rank[by_cell] = np.arange(len(rows)) - starts[cell[by_cell]]
    back = rank < np.floor(share * np.bincount(cell)[cell] + 0.5)
    return np.sort(order[~back]).astype(np.int64), np.sort(order[back]).astype(np.int64)


def evaluate_held_back(model: TorchModel, rows: TrainingSet, parts: Sequence[Tensor]) -> Seen:
    """The results of a model on held-out rows; ``parts``: masks (n,) within which groups are compared.

    A group with fewer than 10 rows in a part is left out of the gap there: its rate says little.
    """
    y, s, found = rows.y.cpu().numpy(), rows.s.cpu().numpy(), decide_rows(model, rows)
    gaps = []
    for part in parts:
        held = part.cpu().numpy()
        for j in range(s.shape[1]):
            groups = [held & (s[:, j] == code) for code in np.unique(s[:, j])]
            rates = [np.eye(model.n_outputs)[found[g]].mean(axis=0) for g in groups if g.sum() >= FEWEST_COMPARED]
            if len(rates) > 1:
                gaps.append(float(np.ptp(rates, axis=0).max()))
    return Seen(
        accuracy=float((found == y).mean()),
        balanced_accuracy=float(np.mean([(found[y == label] == label).mean() for label in np.unique(y)])),
        gap=max(gaps, default=None),
        one_class=len(np.unique(found)) < 2,
    )
