"""Widths of intervals of paired changes, and of distances of two samples, in units of the normal interval's.

Each line: two-sided 95 % intervals, and one-sided levels of 0.001. ``before`` are the bounds that this project had: the
corner of two Clopper-Pearson regions for a change, three unpaired bounds for a change of a gap, and two whole
Dvoretzky-Kiefer-Wolfowitz bands for a distance. The peer is the paired normal interval, which promises less: it is too
narrow wherever few rows changed. Distances are compared with their bands alone.

``python -m benchmarks.paired_widths``, a second.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from auditor.statistics.changes import GapChange, PairedRates, RateChange
from auditor.statistics.distribution_distances import beyond_own, short_of_own
from auditor.statistics.groups import WorstDifference
from auditor.statistics.intervals import clopper_pearson

LEVELS = (0.025, 0.001)
CHANGES = [(200, 3, 0), (200, 10, 5), (200, 30, 10), (200, 40, 40), (1000, 20, 20), (1000, 300, 200), (5000, 250, 250)]
GAPS = [((10, 40), (40, 10), 1000), ((5, 20), (5, 20), 1000), ((15, 15), (15, 15), 300), ((150, 150), (150, 150), 3000)]
SIZES = [(200, 200), (100, 1_000), (50, 5_000)]


def corner_of_regions(gained: int, lost: int, n: int, alpha: float) -> tuple[float, float]:
    """A change as the share of rows that went either way times the share of gains, a third of alpha for each bound."""
    share = [float(x) for x in clopper_pearson(gained + lost, n=n, alpha=alpha / 3.0)]
    gain = [2.0 * float(x) - 1.0 for x in clopper_pearson(gained, n=gained + lost, alpha=alpha / 3.0)]
    return gain[0] * share[gain[0] < 0.0], gain[1] * share[gain[1] > 0.0]


def three_bounds(rate: PairedRates, alpha: float) -> tuple[float, float]:
    """A change of the gap of two groups, the first higher: their own changes, or the gaps apart, a quarter each."""
    ends = [corner_of_regions(g, k, n, alpha / 4.0) for g, k, n in zip(rate.gained, rate.lost, rate.n, strict=True)]
    gaps = [WorstDifference(tables=(rate.table(after=after),)).bounds(alpha / 4.0) for after in (False, True)]
    low, high = ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]
    return max(low, gaps[1][0] - gaps[0][1]), min(high, gaps[1][1] - gaps[0][0])


def variance(gained: int, lost: int, n: int) -> float:
    """Of the mean change of n rows."""
    return ((gained + lost) / n - ((gained - lost) / n) ** 2) / n


def main() -> None:
    """Prints the three tables."""
    print("change: n, gained, lost | alpha | before | now, in widths of the paired normal interval")
    for n, gained, lost in CHANGES:
        for alpha in LEVELS:
            unit = -2.0 * float(scipy.special.ndtri(alpha)) * math.sqrt(variance(gained, lost, n))
            was = corner_of_regions(gained, lost, n, alpha)
            now = RateChange(before=n // 2, gained=gained, lost=lost, n=n).bounds(alpha)
            print(f"{n} {gained} {lost} | {alpha} | {(was[1] - was[0]) / unit:.2f} | {(now[1] - now[0]) / unit:.2f}")
    print("change of the gap of two groups at 70 and 30 %: gained, lost, n of each | alpha | before | now")
    for up, down, n in GAPS:
        rate = PairedRates(rate="r", before=(7 * n // 10, 3 * n // 10), gained=up, lost=down, n=(n, n))
        error = math.sqrt(sum(variance(g, k, n) for g, k in zip(up, down, strict=True)))
        for alpha in LEVELS:
            unit = -2.0 * float(scipy.special.ndtri(alpha)) * error
            was, now = three_bounds(rate, alpha), GapChange(rates=(rate,)).bounds(alpha)
            print(f"{up} {down} {n} | {alpha} | {(was[1] - was[0]) / unit:.2f} | {(now[1] - now[0]) / unit:.2f}")
    print("distance of two samples: sizes | alpha | two bands | below now | above now")
    for sizes in SIZES:
        for alpha in LEVELS:
            bands = math.sqrt(math.log(4.0 / alpha) / 2.0) * float(np.sum(np.asarray(sizes, float) ** -0.5))
            below, above = float(beyond_own(sizes, alpha)[0]), float(short_of_own(sizes, alpha)[0])
            found = " | ".join(f"{reach:.3f} ({bands / reach:.2f})" for reach in (below, above))
            print(f"{sizes} | {alpha} | {bands:.3f} | {found}")


if __name__ == "__main__":
    main()
