"""Training rows that are held back, to choose a setting by: never those that a result is reported on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mitigations.training.retraining import VALIDATION_SHARE, TrainingSet, decided

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.model.torch_model import TorchModel
    from auditor.rows import IntArray

ACCURACY_LOST = 0.02
BALANCED_ACCURACY_LOST = 0.05
FEWEST_COMPARED = 10


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What held-back rows show of a model: ``gap`` is the largest between groups' rates of a decision, None where no
    two groups have rows enough."""

    accuracy: float
    balanced_accuracy: float
    gap: float | None
    one_class: bool

    def is_useful_beside(self, plain: Seen) -> bool:
        """Whether it is at most 2 points less accurate than a model made the same way without the mitigation, and 5 by
        balanced accuracy, and decides more than one class where that one does."""
        return (
            self.accuracy >= plain.accuracy - ACCURACY_LOST
            and self.balanced_accuracy >= plain.balanced_accuracy - BALANCED_ACCURACY_LOST
            and (plain.one_class or not self.one_class)
        )


def held_back(
    rows: TrainingSet, rng: np.random.Generator, share: float = VALIDATION_SHARE
) -> tuple[IntArray, IntArray]:
    """Places to learn from, and places held back: ``share`` of the rows of every group and label."""
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


def seen(model: TorchModel, rows: TrainingSet, parts: Sequence[Tensor]) -> Seen:
    """Of a model on held-back rows; ``parts`` are masks (n,) of the rows within which groups' rates are compared.

    A group with fewer than 10 rows in a part is left out of the gap there: its rate says little.
    """
    y, s, found = rows.y.cpu().numpy(), rows.s.cpu().numpy(), decided(model, rows)
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
