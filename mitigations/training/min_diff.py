"""MinDiff: training with a penalty on how differently the scores of two groups are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from auditor.errors import UsageError
from auditor.finding.measurement import Pillar
from auditor.run.mitigation import Mitigated, Stage, Training
from mitigations.training.retraining import run, trainable, training_set, untrained

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel

Over = Literal["unfavourable", "favourable", "both", "all"]


class MinDiff:
    """Trains the same network anew on ``cross-entropy + weight MMD^2``, the second over groups' scores in each batch.

    ``MMD^2(P, Q) = E k(p, p') + E k(q, q') - 2 E k(p, q)`` with the kernel ``k(a, b) = exp(-|a - b|^2 / (2 width^2))``
    of scores, the probabilities of all classes but the first; its V-statistic is at least 0, and 0 where the two
    samples are equal. It is taken between each group and all other rows, and summed over groups and sensitive features.

    over: the rows it is taken over. ``unfavourable`` (the paper's: of true negatives, which evens out false positive
    rates), ``favourable`` (true positive rates), ``both`` (the sum of the two: equalized odds), ``all`` (demographic
    parity). weight: at least 0. width: of the kernel, above 0. batch_size: None means 512 at least, since a batch must
    hold rows of every group.

    Raises ModelError for a model that cannot be trained anew; DataError where a group has one label; UsageError where
    no label is favourable and ``over`` speaks of one.

    Source: Prost, Qian, Chen, Chi, Chen and Beutel, arXiv:1910.11779 (2019); MMD: Gretton et al., JMLR 13 (2012).
    """

    name: ClassVar[str] = "min_diff"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Train so that the scores of the groups are distributed alike"
    citation: ClassVar[str] = "Prost et al., arXiv:1910.11779 (2019)"
    methods: ClassVar[tuple[str, ...]] = get_args(Over)
    stage: ClassVar[Stage] = "in-processing"
    needs: ClassVar[str] = "a bundle with its recipe; training rows with labels and sensitive features"

    def __init__(
        self,
        *,
        over: Over = "both",
        weight: float = 1.0,
        width: float = 0.3,
        epochs: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        if over not in get_args(Over):
            raise ValueError(f"over must be one of {', '.join(get_args(Over))}, not {over!r}")
        if not (weight >= 0.0 and np.isfinite(weight)):
            raise ValueError(f"weight must be a number of at least 0, not {weight!r}")
        if not (width > 0.0 and np.isfinite(width)):
            raise ValueError(f"width must be a positive number, not {width!r}")
        if (epochs is not None and epochs < 1) or (batch_size is not None and batch_size < 1):
            raise ValueError("epochs and batch_size must be at least 1")
        self.over: Over = over
        self.weight = weight
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same architecture, trained with the penalty."""
        import torch
        from torch.nn.functional import cross_entropy

        from auditor.training.loop import PlainStep, optimizer_of

        old = trainable(model)
        assert old.recipe is not None
        rows = training_set(old, data, training.device, groups=True)
        if self.over != "all" and rows.positive is None:
            raise UsageError(f"over={self.over} is about the favourable label: add --positive LABEL.")
        recipe = replace(
            old.recipe,
            epochs=self.epochs or old.recipe.epochs,
            batch_size=min(self.batch_size or max(old.recipe.batch_size, 512), len(rows)),
        )
        new = untrained(old, rng, training.device, recipe)

        def loss(batch: Sequence[Tensor]) -> Tensor:
            x, y, s = batch
            logits = new.logits(x)
            scores = torch.softmax(logits.float(), dim=1)[:, 1:]
            parts = self._parts(y, rows.positive)
            return cross_entropy(logits, y) + self.weight * penalty(scores, s, parts, self.width)

        step = PlainStep(new.module, optimizer_of(recipe, list(new.module.parameters())), loss)
        prints: dict[str, object] = {"mitigation": self.name, "options": sorted(vars(self).items())}
        run(step, (rows.x, rows.y, rows.s), recipe, rng, training, fingerprint=prints)
        return Mitigated(
            model=new,
            notes=(
                f"MinDiff over {self.over} rows of {', '.join(rows.features)}: weight {self.weight:g}, kernel width "
                f"{self.width:g}, {recipe.epochs} epochs of batches of {recipe.batch_size:,} rows.",
            ),
        )

    def _parts(self, y: Tensor, positive: int | None) -> list[Tensor]:
        """Masks (b,) of the rows over which groups are compared."""
        favourable = y.eq(-1 if positive is None else positive)
        return {
            "unfavourable": [~favourable],
            "favourable": [favourable],
            "both": [~favourable, favourable],
            "all": [y.ge(0)],
        }[self.over]


def penalty(scores: Tensor, s: Tensor, parts: Sequence[Tensor], width: float) -> Tensor:
    """The sum over parts of ``MMD^2`` between each group and the others, of scores (b, c) and features s (b, k)."""
    import torch

    total = scores.new_zeros(())
    for part in parts:
        for j in range(s.shape[1]):
            codes = s[part, j]
            held = torch.bincount(codes).nonzero().flatten().tolist()
            # Of two groups, the second says nothing that the first has not said.
            for code in held[:1] if len(held) == 2 else held if len(held) > 2 else []:
                own = codes.eq(code)
                total = total + mmd2(scores[part][own], scores[part][~own], width)
    return total


def mmd2(p: Tensor, q: Tensor, width: float) -> Tensor:
    """The V-statistic of ``MMD^2`` between samples p (m, c) and q (n, c) with a Gaussian kernel; at least 0."""
    import torch

    both = torch.cat([p, q])
    # Not torch.cdist, whose gradient at distance 0 is that of a square root.
    squares = (both.unsqueeze(1) - both.unsqueeze(0)).square().sum(dim=2)
    kernel = torch.exp(-squares / (2.0 * width * width))
    sign = torch.cat([p.new_full((len(p),), 1.0 / len(p)), q.new_full((len(q),), -1.0 / len(q))])
    return sign @ kernel @ sign
