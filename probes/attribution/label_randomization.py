"""Dependence of an explanation on the training labels.

The network is trained again on labels that teach nothing.

Label randomisation: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import BoolArray, FloatArray
from auditor.models.gradients import without_gradients
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean
from probes.attribution.faithfulness import mean_of
from probes.attribution.parameter_randomization import top_overlap

if TYPE_CHECKING:
    from torch import nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

N_NETWORKS = 5
# What a network that learned nothing may be taken to have learned, over all of the networks together.
_LEVEL = 0.01
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False, kw_only=True)
class Taught:
    """Networks trained like the audited one on shuffled labels, with significant learning of these.

    n_trained: how many were trained. fitted: the share of their own labels that ``networks`` learned, averaged;
    majority: the share of the most frequent label, which a network has that learned nothing. how: architecture and
    recipe, in words.
    """

    networks: tuple[nn.Module, ...]
    n_trained: int
    fitted: float
    majority: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """``overlap``: mean over samples of the overlap with explanations of the ``taught`` networks, averaged."""

    overlap: BoundedMean | Undefined
    taught: Taught


def why_no_labels(model: AuditedModel, members: AuditData | None) -> str:
    """The reason why no similar network can be trained on shuffled labels; empty if one can."""
    if getattr(model, "recipe", None) is None or getattr(model, "module", None) is None:
        return "the model's file holds no training recipe; a model bundle by auditor train does"
    if members is None:
        return "the rows that it was trained on are not known: give --train"
    if members.y_true is None or not (members.y_true >= 0).any():
        return "the training rows have no labels: give --target, a column of --train too"
    return ""


def teach_shuffled(
    model: AuditedModel, members: AuditData | None, rng: np.random.Generator, n_networks: int = N_NETWORKS
) -> Taught | str:
    """Train networks of the model's architecture by its recipe on its rows with shuffled labels.

    Each has a shuffling and an initialisation of its own. One that does not fit its own labels better than chance has
    learned nothing that an explanation could show: it is left out. Where none is left, or none can be trained, why.
    """
    import torch

    from auditor.training.retrain_recipe import blueprint_of
    from auditor.training.weighted_rows import why_not_trained_alike

    reason = why_no_labels(model, members) or why_not_trained_alike(model)
    if reason or members is None:
        return reason
    blueprint = blueprint_of(model, members.X)
    if not blueprint.known:
        return "its layers do not know how they were made, so no other network like it can be trained"
    assert members.y_true is not None
    rows = members.take(np.flatnonzero(members.y_true >= 0).astype(np.int64))
    labels = np.asarray(rows.y_true, np.int64)
    with torch.no_grad():
        x = blueprint.encode(rows.X)
    majority = float(np.bincount(labels).max() / len(labels))
    networks, fitted, every = [], [], []
    for _ in range(n_networks):
        y = torch.from_numpy(rng.permutation(labels)).to(x.device)
        try:
            network = blueprint.train(x, y, seed=int(rng.integers(2**62)))
        except ModelError as error:
            return f"a network like it cannot be trained on shuffled labels ({error})"
        with without_gradients():
            said = torch.cat([blueprint.logits(network, part) for part in torch.split(x, _ROWS_AT_ONCE)])
        right = int((said.argmax(dim=1) == y).sum())
        every.append(right / len(labels))
        if fits_beyond_chance(right, len(labels), majority, _LEVEL / n_networks):
            fitted.append(right / len(labels))
            networks.append(network)
    if not networks:
        return (
            f"the check cannot tell: none of {n_networks} networks that were trained on shuffled labels is shown to "
            f"have learned any of them: they fit {np.mean(every):.1%}, and {majority:.1%} are of one class; more "
            "epochs in the recipe, or a larger network, would learn some"
        )
    return Taught(
        networks=tuple(networks),
        n_trained=n_networks,
        fitted=float(np.mean(fitted)),
        majority=majority,
        how=blueprint.described,
    )


def fits_beyond_chance(right: int, n: int, majority: float, level: float) -> bool:
    """Whether ``right`` of n shuffled labels are more than a network hits that learned nothing, at a level.

    A network that says c with probability q_c hits a share ``sum_c q_c p_c`` of labels with shares p_c, at most the
    largest of them; the exact binomial test is against that.
    """
    from scipy.stats import binom

    return float(binom.sf(right - 1, n, majority)) <= level


def relabelled(
    explain: Callable[[nn.Module], FloatArray], taught: Taught, original: FloatArray, present: BoolArray
) -> Relabelled:
    """Overlap of the explanation's top units with those of networks trained on shuffled labels, beyond chance.

    ``explain(module)``: (n, d) attributions of the same samples, as ``original`` (n, d) is of the model's own.
    """
    parts: Sequence[FloatArray] = [top_overlap(original, explain(n), present) for n in taught.networks]
    return Relabelled(overlap=mean_of(np.mean(parts, axis=0), -1.0, 1.0), taught=taught)
