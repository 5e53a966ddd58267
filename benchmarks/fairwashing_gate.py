"""Error rates of the test that an explanation hides nothing that decides real rows, on 50 honest models and 50 others.

Honest: linear models, trees, forests, a linear model of rare decisions and one of two columns, in 10 worlds of columns
that hang together. Adversaries: the scaffolding of Slack et al. (AIES 2020), which decides by a group on rows that look
real and by a coin on others, by each of five detectors. ``refused`` is the rate of honest models that are refused,
``caught`` that of adversaries that are; both with exact 95 % intervals (Clopper-Pearson). The linear ones are asked as
black boxes here: a linear model that is read from its file needs no such test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from auditor.models.audited_model import AuditedModel
from auditor.statistics.rates import Proportion
from probes.fairwashing import RealRows
from probes.reasons.reason_tests import decided_by_what_is_shown
from tests.probes.attribution.scaffolds import Kind, World, generated, honest, scaffold

WORLDS, ROWS = 10, 1_600


def rare(world: World, rng: np.random.Generator) -> AuditedModel:
    """A linear model of a decision that about one row in ten gets."""
    score = world.train["x1"] + 0.5 * world.train["x0"] + rng.normal(0.0, 0.4, len(world.train))
    return honest("linear", world, (score > 1.6).to_numpy().astype(np.int64))


def independent(world: World, rng: np.random.Generator) -> AuditedModel:
    """A linear model of a label that hangs on two columns alone."""
    score = world.train["x0"] - world.train["race"] + rng.normal(0.0, 0.4, len(world.train))
    return honest("linear", world, (score > 0.0).to_numpy().astype(np.int64))


def models(world: World, rng: np.random.Generator) -> Iterator[tuple[bool, str, AuditedModel]]:
    """(whether it is honest, its name, the model) of ten models of a world."""
    for kind in ("linear", "trees", "forest"):
        yield True, kind, honest(kind, world)
    yield True, "rare decisions", rare(world, rng)
    yield True, "two columns", independent(world, rng)
    for adversary in get_args(Kind):
        yield False, f"scaffold by {adversary}", scaffold(adversary, world, rng)


def main() -> None:
    found: dict[tuple[bool, str], list[bool]] = {}
    for seed in range(WORLDS):
        world, rng = generated(ROWS, seed), np.random.default_rng(seed)
        for is_honest, name, model in models(world, rng):
            real = decided_by_what_is_shown(model, world.data(), 1, np.random.default_rng(seed))
            found.setdefault((is_honest, name), []).append(isinstance(real, RealRows) and real.is_hidden)
    for (is_honest, name), hidden in found.items():
        print(f"{'honest' if is_honest else 'adversary':<10} {name:<20} {sum(hidden):>3} of {len(hidden)} refused")
    refused = [hidden for (is_honest, _), each in found.items() if is_honest for hidden in each]
    caught = [hidden for (is_honest, _), each in found.items() if not is_honest for hidden in each]
    for name, each in (("refused", refused), ("caught", caught)):
        rate = Proportion(successes=sum(each), n=len(each))
        low, high = rate.bounds(0.025)
        print(f"{name:<10} {rate.successes} of {rate.n}: {rate.value:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
