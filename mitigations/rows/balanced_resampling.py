"""Balanced resampling: training rows drawn so that every group has as many rows of each label as it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from auditor.finding.measurement import Pillar
from auditor.rows import FloatArray, IntArray
from auditor.run.mitigation import Experience, Mitigated, Stage, Training
from mitigations.experience import EXPERIENCE
from mitigations.training.one_class import refuse_one_class
from mitigations.training.retraining import run, trainable, training_set, untrained

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel

Method = Literal["uniform_sampling", "balanced"]


class BalancedResampling:
    """Trains the same network anew on rows resampled by cell of group s and label y, n rows in all.

    - ``uniform_sampling``: cell (s, y) gets ``n P(s) P(y)`` rows, so that label and group are independent, the shares
      of either staying as they are
    - ``balanced``: every cell gets ``n / number of cells`` rows, so that the favourable label is as frequent as any

    A cell that has more rows than it gets loses some, drawn without replacement; one that has fewer gets all of its own
    and copies of some. s is the combination of all sensitive features. Copies make memorisation easier: the privacy
    probes of the audit tell.

    method: as above. Raises ModelError for a model that cannot be trained anew, DataError where a group has one label.

    Source: Kamiran and Calders, Knowledge and Information Systems 33 (2012), section 5.3 (uniform sampling).
    """

    name: ClassVar[str] = "balanced_resampling"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Learn from as many rows of each label in every group as there should be"
    citation: ClassVar[str] = "Kamiran and Calders, Knowledge and Information Systems 33 (2012)"
    methods: ClassVar[tuple[str, ...]] = get_args(Method)
    stage: ClassVar[Stage] = "pre-processing"
    needs: ClassVar[str] = "a bundle with its recipe; training rows with labels and sensitive features"
    experience: ClassVar[Experience | None] = EXPERIENCE.get("balanced_resampling")

    def __init__(self, *, method: Method = "uniform_sampling") -> None:
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
        self.method: Method = method

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, by the same recipe, on the resampled rows."""
        from torch.nn.functional import cross_entropy

        from auditor.training.loop import PlainStep, optimizer_of

        old = trainable(model)
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=True)
        y, s = rows.y.cpu().numpy(), rows.s.cpu().numpy()
        drawn = resampled(y, s, self.method, rng)
        again = rows.take(drawn)
        new = untrained(old, rng, training.device, old.recipe)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            return cross_entropy(new.logits(batch[0]), batch[1])

        step = PlainStep(new.module, optimizer_of(old.recipe, list(new.module.parameters())), loss)
        prints: dict[str, object] = {"mitigation": self.name, "method": self.method}
        run(step, (again.x, again.y), old.recipe, rng, training, fingerprint=prints)
        refuse_one_class(new, old, data.take(rows.rows), instead="train the old model for more epochs")
        most = int(np.bincount(drawn).max())
        return Mitigated(
            model=new,
            notes=(
                f"Resampled ({self.method}): {len(np.unique(drawn)):,} of {len(rows):,} rows were learned from, some "
                f"of them up to {most} times.",
            ),
        )


def wanted(y: IntArray, s: IntArray, method: Method) -> tuple[IntArray, FloatArray, IntArray]:
    """(n,) cell of each row, (cells,) rows that each cell should have, and (cells,) rows it has."""
    cells, code = np.unique(np.column_stack([s, y]), axis=0, return_inverse=True)
    code = code.reshape(-1).astype(np.int64)
    has = np.bincount(code).astype(np.int64)
    if method == "balanced":
        return code, np.full(len(has), len(y) / len(has)), has
    _, group = np.unique(cells[:, :-1], axis=0, return_inverse=True)
    _, label = np.unique(cells[:, -1], return_inverse=True)
    of_group = np.bincount(group.reshape(-1), weights=has)[group.reshape(-1)]
    of_label = np.bincount(label, weights=has)[label]
    return code, of_group * of_label / len(y), has


def resampled(y: IntArray, s: IntArray, method: Method, rng: np.random.Generator) -> IntArray:
    """Positions of the rows drawn, of labels y (n,) and sensitive features s (n, k); n up to rounding by cell."""
    code, should, has = wanted(y, s, method)
    drawn = []
    for cell, (target, n) in enumerate(zip(np.maximum(np.rint(should).astype(int), 1), has, strict=True)):
        own = np.flatnonzero(code == cell)
        copies, rest = divmod(int(target), int(n))
        drawn += [np.tile(own, copies), rng.choice(own, rest, replace=False)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)
