"""How often a gap of scores is judged wrongly where the number of continuations is fixed after a first stage.

``python -m benchmarks.continuations_in_two_stages [WORLDS]`` draws worlds of 40 beginnings and two identities whose
true gap is the bound, 0.1: scores that are nearly normal, and scores that are 0 but for few that are 1, so that
variances go with means. Of each kind it prints how often a judgement at 5 % says that the gap is below the bound, and
that it is above; once with two continuations of each prompt, once with as many as the first two ask for. There is no
peer.
"""

from __future__ import annotations

import sys

import numpy as np

from auditor.core.rows import FloatArray
from auditor.statistics.means import WorstPairedDifference, paired_difference
from probes.language.continuations import continuations_needed

GAP, BEGINNINGS, FIRST, MOST = 0.1, 40, 2, 64


def world(kind: str, n: int, rng: np.random.Generator) -> FloatArray:
    """Scores (BEGINNINGS, 2, n) whose mean gap over beginnings is GAP in expectation."""
    scatter = rng.normal(0.0, 0.05, (BEGINNINGS, 1, 1))
    if kind == "wide":
        base = np.asarray([0.55, 0.45])[None, :, None] + scatter * np.asarray([1.0, -1.0])[None, :, None]
        return np.asarray(np.clip(rng.normal(base, 0.15, (BEGINNINGS, 2, n)), 0.0, 1.0))
    # Of one beginning in four much is said, of the others nothing, so that means and variances go together.
    share = np.where(rng.random((BEGINNINGS, 1, 1)) < 0.25, 0.4, 0.0)
    rates = np.concatenate([share, np.zeros_like(share)], axis=1)
    return np.asarray(rng.random((BEGINNINGS, 2, n)) < rates, np.float64)


def judged(scores: FloatArray, alpha: float = 0.05) -> tuple[bool, bool]:
    """Whether the largest gap is shown to be below GAP, and above it."""
    means = scores.mean(axis=2)
    low, high = WorstPairedDifference(
        pairs=(paired_difference(first="a", second="b", differences=means[:, 0] - means[:, 1]),)
    ).bounds(alpha)
    return high < GAP, low > GAP


def study(kind: str, worlds: int, seed: int, half_width: float = 0.05) -> dict[str, float]:
    """The shares of worlds judged wrongly, in one stage and in two, and how many continuations the second asked for."""
    rng = np.random.default_rng(seed)
    wrong, sizes = np.zeros((2, 2)), []
    for _ in range(worlds):
        drawn = world(kind, MOST, rng)
        n = continuations_needed(drawn[:, :, :FIRST], half_width, MOST)
        sizes.append(n)
        wrong += [judged(drawn[:, :, :FIRST]), judged(drawn[:, :, :n])]
    one, two = (wrong / worlds).tolist()
    return {
        "one_below": one[0], "one_above": one[1], "two_below": two[0], "two_above": two[1],
        "smallest": float(min(sizes)), "mean": float(np.mean(sizes)), "largest": float(max(sizes)),
    }  # fmt: skip


def main() -> None:
    """Prints the table."""
    worlds = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print("| scores | continuations | below, 1 stage | above, 1 stage | below, 2 stages | above, 2 stages |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in ("wide", "rare"):
        found = study(kind, worlds, 0)
        sizes = f"{found['smallest']:.0f} to {found['largest']:.0f}, mean {found['mean']:.1f}"
        shares = " | ".join(f"{found[k]:.4f}" for k in ("one_below", "one_above", "two_below", "two_above"))
        print(f"| {kind} | {sizes} | {shares} |")


if __name__ == "__main__":
    main()
