"""Widths and misses of the interval of a true positive rate at a false positive rate, 2,000 worlds a cell.

Two-sided 95 % intervals. ``efficient``: 2 * 1.96 standard errors that know the true rate p and the true slope s of the
curve, ``sqrt(p (1 - p) / m + s^2 f (1 - f) / n)``: what no interval from samples can be narrower than for long. Scores
are normal, those of positives moved by ``shift``; with ``levels`` they are floored to that many steps a unit, and the
true threshold is the smallest that no more than f of the negatives exceed. ``before``: half of each level for the
threshold, half for the rate. ``low`` and ``high``: worlds in which the bound was missed; promised are 2.5 % each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy.stats import binom, norm

from auditor.statistics.rank_estimates import TruePositiveRateAt, true_positive_rate_at

WORLDS, ALPHA = 2_000, 0.025
SIZES = (
    (5, 8, 0.1),
    (10, 30, 0.05),
    (20, 50, 0.01),
    (200, 1_000, 0.01),
    (1_000, 1_000, 0.01),
    (500, 3_000, 0.001),
    (4_000, 4_000, 0.01),
    (4_000, 10_000, 0.001),
    (100, 10_000, 0.01),
)
SHIFTS, LEVELS = (-2.0, 0.0, 1.0, 2.0, 5.0), (None, 4, 1)


def truth(f: float, shift: float, levels: int | None) -> tuple[float, float]:
    """The true rate and the slope of the curve there, NaN where scores are tied."""
    threshold = float(norm.isf(f))
    if levels is not None:
        threshold = math.ceil(threshold * levels) / levels
        return float(norm.sf(threshold - shift)), math.nan
    return float(norm.sf(threshold - shift)), float(norm.pdf(threshold - shift) / norm.pdf(threshold))


def estimates(
    size: tuple[int, int, float], shift: float, levels: int | None, worlds: int, rng: np.random.Generator
) -> Iterator[TruePositiveRateAt]:
    """One estimate a world."""
    m, n, f = size
    for _ in range(worlds):
        x, y = rng.normal(shift, 1.0, m), rng.normal(0.0, 1.0, n)
        if levels is not None:
            # A score above the true threshold is at least a step above it.
            x, y = np.floor(x * levels) / levels, np.floor(y * levels) / levels
        yield true_positive_rate_at(positives=x, negatives=y, false_positive_rate=f)


def main() -> None:
    """Runs the grid and prints a table and what is worst of it."""
    worst, ratios, most = 0, [], int(binom.isf(0.001 / 270, WORLDS, ALPHA))
    print("| m, n, FPR | shift | steps | rate | low | high | width | of before | of efficient | before of efficient |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for size, shift, levels in product(SIZES, SHIFTS, LEVELS):
        m, n, f = size
        true, slope = truth(f, shift, levels)
        rng = np.random.default_rng([m, n, int(10 + shift), levels or 0])
        found = list(estimates(size, shift, levels, WORLDS, rng))
        now = np.asarray([e.bounds(ALPHA) for e in found])
        before = np.asarray([e.model_copy(update={"joint": False}).bounds(ALPHA) for e in found])
        misses = int((now[:, 0] > true).sum()), int((now[:, 1] < true).sum())
        worst = max(worst, *misses)
        width, old = float(np.ptp(now, axis=1).mean()), float(np.ptp(before, axis=1).mean())
        efficient = 2.0 * 1.959964 * math.sqrt(true * (1.0 - true) / m + slope**2 * f * (1.0 - f) / n)
        if n * f >= 10.0 and m * min(true, 1.0 - true) >= 10.0 and not math.isnan(slope):
            ratios.append((width / efficient, old / efficient))
        print(
            f"| {m:,}, {n:,}, {f:g} | {shift:g} | {levels or 'none'} | {true:.3g} | {misses[0]} | {misses[1]} | "
            f"{width:.4f} | {width / old:.2f} | {width / efficient:.2f} | {old / efficient:.2f} |"
        )
    mean = np.mean(ratios, axis=0)
    print(f"most misses of a bound: {worst} of {WORLDS:,}; promised {ALPHA * WORLDS:.0f}, by chance up to {most}")
    print(f"mean width over the efficient one, straight parts: {mean[0]:.2f}, before {mean[1]:.2f}")


if __name__ == "__main__":
    main()
