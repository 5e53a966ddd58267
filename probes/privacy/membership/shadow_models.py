"""Shadow models of an audited model: each trained on a random half of the pool, all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.models.audited_model import AuditedModel
    from probes.privacy.membership.member_pool import Pool

FEWEST = 4
# More than the fewest are trained while they cost little, because they find little more: of a network that had learned
# noisy labels, RMIA with 4 reference models had an area of 0.574, with 16 of 0.578.
MORE, SHARE_FOR_MORE = (16, 8), 0.1
# Losses of models of one recipe on other halves of the rows differ by less; those of another recipe or scale by more.
_MOST_UNLIKE, _LOSS_ROOM = 2.0, 0.02
_MEMORY_COUNTED_ON = 1 << 28


@dataclass(frozen=True, eq=False, kw_only=True)
class Shadows:
    """The outputs of k shadow models for every row of a pool of n.

    loss, log_odds (k, n): cross-entropy and log(p_y / (1 - p_y)) of the true label. inside (k, n): who learned which
    row. ``threat_model``: what an attacker must know and do to have them, in words. ``known``: whether architecture and
    recipe are the audited model's own, and no surrogate's.
    """

    loss: FloatArray
    log_odds: FloatArray
    inside: BoolArray
    threat_model: str
    known: bool = True

    def __len__(self) -> int:
        """How many models there are."""
        return len(self.inside)

    def first(self, k: int) -> Shadows:
        """The first k models alone."""
        return replace(self, loss=self.loss[:k], log_odds=self.log_odds[:k], inside=self.inside[:k])

    def fit(self, pool: Pool) -> str:
        """The models' performance on rows they learned and on others, beside the audited one, in words."""
        learned, others = float(self.loss[self.inside].mean()), float(self.loss[~self.inside].mean())
        return (
            f"their mean loss is {learned:.3g} on rows they learned and {others:.3g} on others, the audited model's "
            f"{float(pool.members.mean()):.3g} on members and {float(pool.non_members.mean()):.3g} on non-members: the "
            f"less "
            "alike these are, the less the attack can see"
        )

    def unlike(self, pool: Pool) -> str:
        """The reason why the models differ from the audited one, in a sentence; "" if their losses are similar.

        Of a recipe that is not the one it was trained by, or outputs that were scaled afterwards, they are far from it,
        and an attack that compares it with them sees nothing of what it gives away.
        """
        pairs = (
            ("learned", float(self.loss[self.inside].mean()), float(pool.members.mean())),
            ("did not learn", float(self.loss[~self.inside].mean()), float(pool.non_members.mean())),
        )
        for what, theirs, own in pairs:
            low, high = sorted((theirs + _LOSS_ROOM, own + _LOSS_ROOM))
            if not high <= _MOST_UNLIKE * low:
                return (
                    "Nothing was found, and the shadow models are not like the audited one: their mean loss on rows "
                    f"they {what} is {theirs:.3g}, its own {own:.3g}. The recipe in the file may not be what it was "
                    "trained by, or its outputs were scaled afterwards."
                )
        return ""


def how_many(model: AuditedModel, pool: Pool, budget: float) -> int:
    """The default number of shadow models: 16 or 8 for at most a tenth of ``budget``, else 4 within it.

    ``budget``: seconds of one core. What training takes is counted and not timed
    (:func:`auditor.training.ensembles.predicted_seconds`), so that the same audit trains the same number everywhere.
    Raises NotApplicableError where no model like the audited one can be trained, or four would cost more.
    """
    import torch

    from auditor.training.ensembles import predicted_seconds
    from auditor.training.retrain_recipe import blueprint_of

    blueprint = blueprint_of(model, pool.rows.X)
    with torch.no_grad():
        encoded = blueprint.encode(pool.rows.X)

    def seconds(number: int) -> float:
        return predicted_seconds(
            blueprint.make,
            encoded,
            n_models=number,
            n_learned=len(pool.labels) // 2,
            n_classes=model.n_outputs,
            recipe=blueprint.recipe,
            outputs=blueprint.outputs,
            # What the process may use differs from run to run; the answer must not.
            memory_bytes=_MEMORY_COUNTED_ON,
        )

    for number in MORE:
        if seconds(number) <= SHARE_FOR_MORE * budget:
            return number
    needed = seconds(FEWEST)
    if needed <= budget:
        return FEWEST
    raise NotApplicableError(
        f"{FEWEST} shadow models are counted to take {math.ceil(needed):,} s of one core, and {budget:g} s are "
        f"allowed: --set membership_inference.shadow_seconds={math.ceil(needed)}"
    )


@contextmanager
def on_one_core() -> Iterator[None]:
    """Context with one core for default trainings, as in their cost estimate: threads of small networks wait."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_shadows(
    model: AuditedModel, pool: Pool, n_shadows: int, rng: np.random.Generator, *, checkpoint: str | None = None
) -> Shadows:
    """Train ``n_shadows`` models like the audited one, in pairs on the two halves of random splits of the pool.

    Without regard to who is a member, so every row is in for half of the models. Raises NotApplicableError where no
    model like it can be trained.
    """
    import torch

    from auditor.training.ensembles import random_halves, train_together
    from auditor.training.retrain_recipe import blueprint_of

    blueprint = blueprint_of(model, pool.rows.X)
    with torch.no_grad():
        encoded = blueprint.encode(pool.rows.X)
    inside = random_halves(n_shadows, len(pool.labels), rng)
    labels = torch.from_numpy(pool.labels).to(encoded.device)
    trained = train_together(
        blueprint.make,
        encoded,
        labels,
        inside,
        seeds=[int(s) for s in rng.integers(2**62, size=n_shadows)],
        recipe=blueprint.recipe,
        outputs=blueprint.outputs,
        keep=partial(of_the_label, labels=labels),
        checkpoint=checkpoint,
    )
    size = int(inside[0].sum())
    words = f"{n_shadows} shadow models on {size:,} rows each, a random half of --train and --data together"
    if pool.n_members and not 0.8 <= size / pool.n_members <= 1.25:
        words += f" where the target had {pool.n_members:,}, so they are not quite like it"
    return Shadows(
        loss=trained.kept[..., 0],
        log_odds=trained.kept[..., 1],
        inside=inside,
        known=blueprint.known,
        threat_model="; ".join(
            [
                "threat model: an attacker who sees the probability of the true label and has rows like these trains "
                f"{words}, of {blueprint.described}",
                *trained.notes,
            ]
        ),
    )


def of_the_label(logits: Tensor, *, labels: Tensor) -> Tensor:
    """(k, n, 2) cross-entropy and log odds of the true label, from logits (k, n, n_classes)."""
    import torch

    z = logits.double()
    own = labels.view(1, -1, 1).expand(len(z), -1, 1)
    others = z.scatter(2, own, -torch.inf).logsumexp(dim=2)
    odds = z.gather(2, own).squeeze(2) - others
    return torch.stack([torch.nn.functional.softplus(-odds), odds], dim=2)
