"""Does an explanation depend on what the labels taught? The network is trained again on labels that teach nothing.

Label randomisation: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.arrays import FloatArray
from auditor.errors import ModelError
from auditor.gradients import without_gradients
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean
from probes.attribution.faithfulness import mean_of
from probes.attribution.sanity import top_overlap
from probes.attribution.units import BoolArray

if TYPE_CHECKING:
    from torch import nn

    from auditor.data import AuditData
    from auditor.model import AuditedModel

N_NETWORKS = 5
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False, kw_only=True)
class Taught:
    """Networks that were trained like the audited one on shuffled labels.

    fitted: the share of their own labels that they learned, averaged; majority: the share of the most frequent label,
    which a network has that learned nothing. how: architecture and recipe, in words.
    """

    networks: tuple[nn.Module, ...]
    fitted: float
    majority: float
    how: str


@dataclass(frozen=True, kw_only=True)
class Relabelled:
    """``overlap``: mean over samples of the overlap with what is said of the networks of ``taught``, averaged."""

    overlap: BoundedMean | Undefined
    taught: Taught


def why_no_labels(model: AuditedModel, members: AuditData | None) -> str:
    """Why no network like the model can be trained on shuffled labels; empty where one can."""
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
    """Trains networks of the model's own architecture by its own recipe on its rows with their labels shuffled.

    Each has a shuffling and an initialisation of its own. Where that cannot be done, why not.
    """
    import torch

    from auditor.blueprints import blueprint_of

    reason = why_no_labels(model, members)
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
    networks, fitted = [], []
    for _ in range(n_networks):
        y = torch.from_numpy(rng.permutation(labels)).to(x.device)
        try:
            network = blueprint.train(x, y, seed=int(rng.integers(2**62)))
        except ModelError as error:
            return f"a network like it cannot be trained on shuffled labels ({error})"
        with without_gradients():
            said = torch.cat([blueprint.logits(network, part) for part in torch.split(x, _ROWS_AT_ONCE)])
        fitted.append(float((said.argmax(dim=1) == y).double().mean()))
        networks.append(network)
    return Taught(
        networks=tuple(networks),
        fitted=float(np.mean(fitted)),
        majority=float(np.bincount(labels).max() / len(labels)),
        how=blueprint.described,
    )


def relabelled(
    explain: Callable[[nn.Module], FloatArray], taught: Taught, original: FloatArray, present: BoolArray
) -> Relabelled:
    """How far the explanation names the same top units of networks that learned shuffled labels, beyond chance.

    ``explain(module)``: (n, d) attributions of the same samples, as ``original`` (n, d) is of the model's own.
    """
    parts: Sequence[FloatArray] = [top_overlap(original, explain(n), present) for n in taught.networks]
    return Relabelled(overlap=mean_of(np.mean(parts, axis=0), -1.0, 1.0), taught=taught)
