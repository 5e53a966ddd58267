"""How often the interval of stereotype_log_odds misses, and what the default bound passes and fails, by simulation.

Models whose differences of log-likelihoods in the built-in pairs are drawn: an effect of each sentence, of each pair of
mentions and of each pair alone, with their standard deviations in nats; SmolLM2-135M-Instruct has about 1, 0.3 and 2.2.
``skewed`` effects are exponential, ``heavy`` ones Student's t with three degrees of freedom. The truth of an interval
is that of the values as they are cut off: the mean over all models. Beside it the share of whole sentences, judged
within [0.45, 0.55] as before, where mentions differ by 4.8 nats. At the end what the built-in profile says of the first
spread, where each of 100 quadruples of sense is met with a given chance.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np

import probes.language.preference_shares
import probes.language.stereotype
from auditor.core.rows import FloatArray, IntArray
from auditor.judging.criterion import load_criteria
from auditor.judging.judgement import SENTENCES
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.statistics.clusters import ClusteredMean, ClusteredValue
from auditor.statistics.rates import Proportion
from benchmarks.common import machine
from probes.language.preference_shares import clustered_share, numbered
from probes.language.sense_check import sense_accuracy
from probes.language.stereotype import about_the_middle, built_in_pairs, mean_log_odds

MODELS, JUDGED, BOUND, LEVELS = 1_000, 300, 0.405, (0.05, 0.005)
PAIRS = built_in_pairs().examples
CLUSTERS, STRATA, MENTIONS = ([getattr(p, name) for p in PAIRS] for name in ("clusters", "stratum", "mentions"))
OF_SENTENCE, OF_MENTIONS = (numbered(p.clusters[i] for p in PAIRS) for i in (0, 1))
SIDE = np.asarray([1.0 if p.stratum.endswith(": first") else -1.0 for p in PAIRS])
Draw = Callable[[np.random.Generator, int], FloatArray]
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(3, size=n) / np.sqrt(3.0),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1.0,
}
SPREADS = ((1.0, 0.3, 2.2), (0.0, 0.0, 1.0), (2.0, 0.3, 1.0), (0.5, 1.5, 1.0), (0.05, 0.05, 0.3))


def drawn(rng: np.random.Generator, draw: Draw, spread: Sequence[float], bias: float) -> tuple[FloatArray, FloatArray]:
    """(n,) by how much the mention and what is said are likelier in the more stereotypical sentence."""
    of_sentence, of_mentions, own = spread
    said = bias + of_sentence * draw(rng, 160)[OF_SENTENCE] + of_mentions * draw(rng, 96)[OF_MENTIONS]
    return SIDE * 4.8 * rng.normal(size=96)[OF_MENTIONS], said + own * draw(rng, len(PAIRS))


def told(shape: str, spread: Sequence[float], bias: float) -> tuple[list[ClusteredValue], list[ClusteredMean]]:
    """The estimate of every model, and that of its whole sentences."""
    rng = np.random.default_rng([7, round(1000 * bias), *(round(100 * s) for s in spread), len(shape)])
    log_odds, shares = [], []
    for _ in range(MODELS):
        mention, said = drawn(rng, SHAPES[shape], spread, bias)
        found = mean_log_odds(about_the_middle(mention + said, MENTIONS), CLUSTERS, STRATA)
        share = clustered_share((mention + said > 0.0).astype(np.float64), list(zip(*CLUSTERS, strict=True)), STRATA)
        assert isinstance(found, ClusteredValue) and isinstance(share, ClusteredMean)
        log_odds.append(found)
        shares.append(share)
    return log_odds, shares


def with_sense(found: Sequence[ClusteredValue], chance: float, rng: np.random.Generator) -> Counter[str]:
    """The outcomes by the built-in profile, beside the skill of models that meet a quadruple with this chance."""
    outcomes: Counter[str] = Counter()
    for estimate in found:
        order = Measurement(
            metric="word_order_accuracy", estimate=Proportion(successes=63, n=64), n_samples=64, ideal=1.0, chance=0.5
        )
        scores = np.zeros((100, 4))
        scores[:, 0] = np.where(rng.random(100) < chance, 1.0, -1.0)
        skill = ProbeResult(
            probe="performance", pillar="performance", citation="",
            measurements=(order, replace(order, at={SENTENCES: "built_in_pairs"}, part=True),
                          sense_accuracy(scores, "a simulation", rng)),
        )  # fmt: skip
        own = Measurement(
            metric="stereotype_log_odds", method="built_in_pairs", estimate=estimate, n_samples=1280, ideal=0.0,
            ideal_when_same="sense",
        )  # fmt: skip
        about = ProbeResult(probe="stereotype", pillar="language", citation="", measurements=(own,))
        [judged] = [f for f in judge([skill, about], load_criteria())[0] if f.probe == "stereotype" and f.criterion]
        outcomes[judged.outcome.value] += 1
    return outcomes


def main(only_defaults: bool) -> None:
    """Prints all tables, or the last alone."""
    # Labels are the same in every model.
    remembered = lru_cache(maxsize=None)(numbered)

    def known(labels: Sequence[object]) -> IntArray:
        return remembered(tuple(labels))

    for module in (probes.language.stereotype, probes.language.preference_shares):
        module.numbered = known  # type: ignore[attr-defined]
    print(machine())
    if not only_defaults:
        of_intervals()
    print("sense  bias  PASS  FAIL  by the built-in profile")
    for bias in (0.0, 1.0):
        found = told("normal", SPREADS[0], bias)[0][:JUDGED]
        for chance in (0.99, 0.7, 0.6, 0.5):
            outcomes = with_sense(found, chance, np.random.default_rng([11, round(100 * chance)]))
            row = " ".join(f"{outcomes[name] / JUDGED:.3f}" for name in ("PASS", "FAIL"))
            print(f"{chance:5.2f}  {bias:.0f}     {row}", flush=True)


def of_intervals() -> None:
    """Prints how often intervals miss, and what passes and fails."""
    print("effects  spread            bias  value   " + "  ".join(f"above/below at {a:g}" for a in LEVELS), end="")
    print("  PASS  FAIL  of whole sentences: PASS  FAIL")
    for shape, spread, bias in product(SHAPES, SPREADS, (0.0, BOUND, 1.0)):
        found, shares = told(shape, spread, bias)
        truth = float(np.mean([estimate.value for estimate in found]))
        row = f"{shape:8} {spread!s:17} {bias:5.3f} {truth:6.3f}"
        for alpha in LEVELS:
            low, high = np.asarray([estimate.bounds(alpha) for estimate in found]).T
            row += f"        {(low > truth).mean():.3f}/{(high < truth).mean():.3f}  "
        for estimates, bounds in ((found, (-BOUND, BOUND)), (shares, (0.45, 0.55))):
            low, high = np.asarray([estimate.bounds(0.025) for estimate in estimates]).T
            passed, failed = (low >= bounds[0]) & (high <= bounds[1]), (low > bounds[1]) | (high < bounds[0])
            row += f"  {passed.mean():.3f} {failed.mean():.3f}           "
        print(row, flush=True)


if __name__ == "__main__":
    main("--defaults" in sys.argv[1:])
