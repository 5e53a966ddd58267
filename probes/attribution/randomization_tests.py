"""Randomization tests of an explanation: its dependence on the learned weights and on the training labels.

The explanation must change when parameters are drawn anew, and when the network is trained on shuffled labels.

Cascading and full randomisation of the parameters: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.

Label randomisation: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.randomness import seeded_globals
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.models.torch_context import without_gradients
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean
from probes.attribution.attribution_units import Units
from probes.attribution.faithfulness import OCCLUSION, RANDOM, gain, grade, mean_of, occlusion, random_attribution

if TYPE_CHECKING:
    from torch import nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

FEWEST_COPIES = 40
DEVIATIONS = 4.0
FEWEST_UNITS = 8
# Chance is 0 and an unchanged map 1. Where inputs differ much in size, what multiplies by them never is quite 0.
MOST_OVERLAP = 0.7
TOP = 0.2
MOST_STAGES = 8
# Of the parameters that can be drawn anew, or the check says nothing of the model.
_LEAST_RANDOMISED = 0.5


def randomisable(module: nn.Module) -> tuple[str, ...]:
    """Names of the sub-modules that own parameters and can redraw them, output first.

    The order is that of registration, backwards, which is the order of layers wherever they are declared as they run.
    Empty where less than half of the parameters lie in them.
    """
    own = {
        name: sum(p.numel() for p in part.parameters(recurse=False))
        for name, part in module.named_modules()
        if _reset_of(part) is not None and any(True for _ in part.parameters(recurse=False))
    }
    total = sum(p.numel() for p in module.parameters())
    known = sum(own.values())
    return tuple(reversed(own)) if total and known >= _LEAST_RANDOMISED * total else ()


def _reset_of(part: nn.Module) -> Callable[[], object] | None:
    for name in ("reset_parameters", "_reset_parameters"):
        reset = getattr(part, name, None)
        if callable(reset):
            return reset  # type: ignore[no-any-return]
    return None


def randomised(module: nn.Module, layers: tuple[str, ...], rng: np.random.Generator, *, others: bool) -> nn.Module:
    """A copy of the module with redrawn parameters in ``layers``, as before training.

    ``others``: parameters that no layer knows how to draw (position embeddings, class tokens) are drawn too, from a
    normal distribution with their own mean and standard deviation.
    """
    import torch

    made = copy.deepcopy(module)
    parts = dict(made.named_modules())
    with seeded_globals(rng), torch.no_grad():
        drawn = set()
        for name in layers:
            reset = _reset_of(parts[name])
            if reset is not None:
                reset()
                drawn |= {id(p) for p in parts[name].parameters(recurse=False)}
        for p in made.parameters() if others else ():
            if id(p) not in drawn and p.is_floating_point() and p.numel() > 1:
                p.copy_(p.mean() + p.std() * torch.randn_like(p))
    return made


def top_overlap(first: FloatArray, second: FloatArray, present: BoolArray) -> FloatArray:
    """(n,) agreement of two attributions on the top units by size, beyond chance: 1 equal, 0 random.

    ``(|A and B| / k - k / m) / (1 - k / m)`` with k the share ``TOP`` of the m units, rounded up, less than m; chance
    alone gives k / m. NaN where a sample has fewer than two units. Ties at the edge count by the share of them that is
    in: an attribution without an opinion agrees as chance does.
    """
    m = present.sum(axis=1)
    k = np.minimum(np.ceil(TOP * m - 1e-9).astype(np.int64), np.maximum(m - 1, 1))
    inside = [_membership(np.abs(a), present, k) for a in (first, second)]
    shared = (inside[0] * inside[1]).sum(axis=1) / np.maximum(k, 1)
    chance = k / np.maximum(m, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m >= 2, (shared - chance) / (1.0 - chance), np.nan)


def _membership(sizes: FloatArray, present: BoolArray, k: IntArray) -> FloatArray:
    """(n, d) probability of being among the top k when ties are broken at random."""
    a = np.where(present, sizes, -np.inf)
    ordered = -np.sort(-a, axis=1)
    edge = np.take_along_axis(ordered, np.maximum(k - 1, 0)[:, None], axis=1)
    above, level = a > edge, (a == edge) & present
    left = k - above.sum(axis=1)
    out = above + level * (left / np.maximum(level.sum(axis=1), 1))[:, None]
    return np.asarray(out, np.float64)


@dataclass(frozen=True, kw_only=True)
class Randomisation:
    """The explanation's changes as layers are randomised from the output down.

    ``stages``: mean overlap after each further layer, averaged over copies; ``copies``: (n_copies,) the mean over
    samples with every parameter drawn anew. ``over``: what the interval of ``overlap`` is taken over.
    """

    stages: tuple[float, ...]
    overlap: BoundedMean | Undefined
    over: str


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """An explanation's score on networks that it does not explain, and ``own``, that on its model.

    ``mean``, ``deviation``: of the gain over ``n_copies`` fresh copies. ``reachable``: what occlusion of the model
    itself gains on it. ``behind``: whether the explanation is shown, at 5 %, to gain less than that. ``n_units``: how
    many units a sample has, the median.
    """

    mean: float
    deviation: float
    n_copies: int
    own: float
    reachable: float
    behind: bool
    n_units: float

    @property
    def limit(self) -> float:
        """The mean plus four standard deviations: the limit for the explanation on its own model."""
        return self.mean + DEVIATIONS * self.deviation

    @property
    def decides(self) -> bool:
        """Whether the limit decides: an explanation could exceed it, and this one did not miss it narrowly.

        Among few units so many copies use the same ones by chance that four deviations may be more than anything gains.
        """
        enough = self.n_copies >= FEWEST_COPIES and self.n_units >= FEWEST_UNITS
        return enough and self.reachable > self.limit and (self.exceeded or self.behind)

    @property
    def why_waived(self) -> str:
        """The reason why a limit that is not exceeded is waived; empty if it decides."""
        if self.n_units < FEWEST_UNITS:
            return f"networks of fewer than {FEWEST_UNITS} units are alike by chance"
        if self.n_copies < FEWEST_COPIES:
            return f"a limit takes {FEWEST_COPIES} networks, and there are {self.n_copies}"
        if not np.isfinite(self.limit):
            return "their scores do not move"
        if not self.reachable > self.limit:
            return f"occlusion, which asks the model itself, gains no more than {self.reachable:.2g}"
        return "" if self.decides else "it is not shown to gain less than occlusion, which asks the model itself"

    @property
    def exceeded(self) -> bool:
        """Whether the explanation scores higher on the model that it explains."""
        return self.own > self.limit


def cascade(
    explain: Callable[[nn.Module], FloatArray],
    module: nn.Module,
    original: FloatArray,
    present: BoolArray,
    rng: np.random.Generator,
    *,
    n_copies: int,
) -> Randomisation:
    """Explain copies of the module with randomised layers, output first, and compare the top units.

    ``explain(module)``: (n, d) attributions of the same samples. Only the first copy is explained at every stage (of at
    most ``MOST_STAGES``, evenly spread); the others with everything randomised. The interval is over copies where
    there are ``FEWEST_COPIES``, because what a copy prefers by chance it prefers in all samples; else over samples.
    """
    layers = randomisable(module)
    steps = np.unique(np.linspace(1, len(layers), min(MOST_STAGES, len(layers))).round().astype(int))
    stages = []
    for i in steps[:-1].tolist():
        made = randomised(module, layers[:i], rng, others=False)
        stages.append(_finite_mean(top_overlap(original, explain(made), present)))
    fully = np.stack(
        [top_overlap(original, explain(randomised(module, layers, rng, others=True)), present) for _ in range(n_copies)]
    )
    enough = n_copies >= FEWEST_COPIES
    parts = np.asarray([_finite_mean(o) for o in fully]) if enough else fully.mean(axis=0)
    return Randomisation(
        stages=(*stages, _finite_mean(fully.ravel())),
        # A sample may agree less than chance does, down to minus k / (m - k), which is at least -1 for k up to a half.
        overlap=mean_of(parts, -1.0, 1.0),
        over=f"{n_copies} randomised copies" if enough else f"the samples, on {n_copies} randomised copies",
    )


def _finite_mean(values: FloatArray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def threshold(
    units_of: Callable[[nn.Module], Units],
    module: nn.Module,
    units: Units,
    values: FloatArray,
    rng: np.random.Generator,
    *,
    n_copies: int,
    rows: IntArray | None = None,
) -> Threshold:
    """Grade the explanation ``values`` (n, d) of the module on new random copies of it, and on itself.

    ``units_of(module)``: the same samples' units under another module's score; ``units``: under this one's. ``rows``:
    some of the samples instead of all. An interval over samples would not do: each copy prefers some units by chance,
    in all samples alike.
    """
    some = np.arange(len(values), dtype=np.int64) if rows is None else rows

    # One random attribution for all: what it happens to gain does not come between them.
    other = random_attribution(units, some, rng)

    def gained(units: Units) -> float:
        return gain(grade(units, some, {"own": values[some], RANDOM: other}, rng), "own").value

    layers = randomisable(module)
    copies = [gained(units_of(randomised(module, layers, rng, others=True))) for _ in range(n_copies)]
    beside = {"own": values[some], OCCLUSION: occlusion(units, some), RANDOM: other}
    here = grade(units, some, beside, rng)
    kept = np.asarray([g for g in copies if np.isfinite(g)])
    return Threshold(
        mean=float(kept.mean()) if kept.size else float("nan"),
        deviation=float(kept.std(ddof=1)) if kept.size > 1 else float("nan"),
        n_copies=int(kept.size),
        own=gained(units),
        reachable=gain(here, OCCLUSION).value,
        behind=gain(here, "own", OCCLUSION).bounds(0.05)[1] < 0.0,
        n_units=float(np.median(units.present[some].sum(axis=1))),
    )


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
    from auditor.training.training_rows import why_not_trained_alike

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
