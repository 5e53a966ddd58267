"""Rows that two equal groups need for 80 % power: our exact tests, the corner of a joint region, and what others offer.

``PASS``: equal rates are shown to differ by at most 0.10; ``FAIL``: rates further apart are shown to differ by more.
Each at 0.05 / m, as of m questions. Power is exact: every table of the two groups, weighted by its probability. Peers:

- the corner of the exact joint region of both rates, which bounded differences before, a FAIL at half its level;
- the score test of statsmodels, an approximation, whose size at the bound is printed;
- the percentile bootstrap, as fairlearn's ``MetricFrame`` has it but drawn from counts: its size, simulated;
- ``scipy.stats.boschloo_exact``, which knows the bound 0 alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats

from auditor.judging.budgets import CONJUNCTION
from auditor.statistics.groups import WorstDifference
from auditor.statistics.intervals import difference_bounds
from auditor.statistics.rates import RateTable
from benchmarks.common import machine

Shown = Callable[[int, int, int], bool]  # successes of either group and the rows of each
BOUND, POWER = 0.10, 0.80
CASES = (
    ("PASS", (0.5, 0.5), 1),
    ("PASS", (0.5, 0.5), 6),
    ("PASS", (0.5, 0.5), 24),
    ("FAIL", (0.6, 0.4), 1),
    ("FAIL", (0.6, 0.4), 8),
    ("FAIL", (0.95, 0.75), 8),
)


def ours(asked: str, level: float, bound: float = BOUND) -> Shown:
    """The headline's own test."""

    def shown(a: int, b: int, n: int) -> bool:
        estimate = WorstDifference(tables=(RateTable(rate="r", successes=(a, b), n=(n, n)),))
        return estimate.p_value(bound, "greater" if asked == "FAIL" else "at_most") <= level

    return shown


def corner(asked: str, level: float) -> Shown:
    """The corner of the joint region; a FAIL at half the level, for two ordered pairs."""

    def shown(a: int, b: int, n: int) -> bool:
        at = level / 2.0 if asked == "FAIL" else level
        low, high = difference_bounds(np.asarray([a, b]), n=np.asarray([n, n]), alpha=at)
        return bool(low[0, 1] > BOUND) if asked == "FAIL" else bool(max(high[0, 1], high[1, 0]) <= BOUND)

    return shown


def score(asked: str, level: float) -> Shown:
    """The score test of statsmodels."""
    from statsmodels.stats.proportion import test_proportions_2indep

    def p(a: int, b: int, n: int, value: float, side: str) -> float:
        found = test_proportions_2indep(a, n, b, n, value=value, method="score", alternative=side, correction=False)
        return float(found.pvalue)

    def shown(a: int, b: int, n: int) -> bool:
        if asked == "FAIL":
            return p(a, b, n, BOUND, "larger") <= level
        return max(p(a, b, n, BOUND, "smaller"), p(a, b, n, -BOUND, "larger")) <= level

    return shown


def boschloo(level: float) -> Shown:
    """Boschloo's test of equal rates."""

    def shown(a: int, b: int, n: int) -> bool:
        table = [[a, b], [n - a, n - b]]
        return float(stats.boschloo_exact(table, alternative="greater", n=32).pvalue) <= level

    return shown


def probability(shown: Shown, asked: str, rates: tuple[float, float], n: int) -> float:
    """Exact probability that two groups of n rows are shown to be so, the first being no lower where it is a FAIL."""

    def last(a: int, b: int, way: int) -> int:
        while 0 <= b + way <= n and shown(a, b + way, n):
            b += way
        return b

    found, least, most = 0.0, 0, 0
    first, end = (int(stats.binom.ppf(tail, n, rates[0])) for tail in (1e-4, 1 - 1e-4))
    for a in range(first, end):
        start = max(most - 2, 0) if most else a if asked == "PASS" else int(stats.binom.ppf(1e-4, n, rates[1]))
        if not shown(a, start, n):
            start = a if asked == "PASS" else 0
            if not shown(a, start, n):
                continue
        most = last(a, start, 1)
        least = 0 if asked == "FAIL" else last(a, min(least + 2, a) if least else a, -1)
        weight = stats.binom.cdf(most, n, rates[1]) - stats.binom.cdf(least - 1, n, rates[1])
        found += float(stats.binom.pmf(a, n, rates[0]) * weight)
    return found


def rows(shown: Shown, asked: str, rates: tuple[float, float], guess: int, power: float = POWER) -> int:
    """The fewest rows of both groups together with so much power, from a search by halving."""
    low, high = guess // 4, guess
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if probability(shown, asked, rates, middle) >= power else (middle, high)
    return 2 * high


def bootstrap_size(rates: tuple[float, float], n: int, level: float, worlds: int = 2_000, draws: int = 2_000) -> float:
    """How often the percentile bootstrap's lower end lies above the bound where the truth is the bound."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(worlds):
        k = rng.binomial(n, rates)
        again = rng.binomial(n, k / n, (draws, 2)) / n
        found += bool(np.quantile(np.abs(again[:, 0] - again[:, 1]), level) > BOUND)
    return found / worlds


def all_of_them(questions: int = 8) -> None:
    """A faultless model's way to exit 0: independent gaps of 0, and all of them PASS four times in five."""
    each, equal = POWER ** (1.0 / questions), (0.5, 0.5)
    shares = rows(corner("PASS", 0.05 / questions), "PASS", equal, 1_500, each)
    one = rows(ours("PASS", CONJUNCTION * 0.05), "PASS", equal, 1_000, each)
    print(f"all of {questions} PASS: corner at 0.05 / {questions} each {shares}, ours as one claim {one}", flush=True)


def main() -> None:
    """Prints the table; with ``--together`` that of everything passing alone."""
    print(machine())
    all_of_them()
    if "--together" in sys.argv:
        return
    for asked, rates, m in CASES:
        level = 0.05 / m
        before = rows(corner(asked, level), asked, rates, 1_300)
        now = rows(ours(asked, level), asked, rates, before // 2)
        theirs = rows(score(asked, level), asked, rates, before // 2)
        edge = (rates[0], rates[0] - BOUND) if asked == "FAIL" else (0.5 + BOUND / 2, 0.5 - BOUND / 2)
        size = probability(score(asked, level), asked, edge, theirs // 2) / level
        spent = probability(ours(asked, level), asked, edge, now // 2) / level
        print(
            f"{asked} {rates} m = {m}: corner {before}, ours {now} ({now / before:.2f}), size {spent:.2f} of level; "
            f"score test {theirs}, size {size:.2f} of level",
            flush=True,
        )
    equal = rows(ours("FAIL", 0.05, 0.0), "FAIL", (0.6, 0.4), 250)
    known = rows(boschloo(0.05 / 2), "FAIL", (0.6, 0.4), 250)
    print(f"FAIL (0.6, 0.4) at a bound of 0, either direction, 0.05: ours {equal}, scipy's boschloo_exact {known}")
    for rates in ((0.55, 0.45), (0.95, 0.85)):
        for level in (0.05, 0.05 / 8):
            missed = bootstrap_size(rates, 300, level) / level
            print(f"percentile bootstrap at the bound, {rates}, 300 rows each, {level:.4g}: {missed:.1f} of the level")


if __name__ == "__main__":
    main()
