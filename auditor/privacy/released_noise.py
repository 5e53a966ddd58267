"""A test of the noise that a run released against its stated distribution, and the sensitivity of its steps.

The tests are exact and need no epsilon.

What was added to the clipped sum is seen whole by a white-box audit, so that nothing of the model, the rows or the
canaries blurs it: where the statement is true it is a sample of independent normal numbers of a known size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import betainc, betaincc
from scipy.stats import chi2, kstest

from auditor.core.rows import FloatArray
from auditor.privacy.accounting import Phase

Unit = Literal["row", "client"]

# What rounding in single precision leaves of a sensitivity of 1.
SLACK = 1e-2


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Change of the released sum when one of a ``unit`` leaves, in clipping norms; a private step allows 1.

    ``largest``: over ``n_rows`` rows left out of ``batch_rows``, each as it is and, where rows are numbers, much
    longer. ``why_not``: why it could not be measured, or "".
    """

    largest: float
    n_rows: int
    batch_rows: int
    why_not: str = ""
    unit: Unit = "row"

    @property
    def exceeds(self) -> bool:
        """Whether one row moves the sum by more than the clipping norm."""
        return not self.why_not and not self.largest <= 1.0 + SLACK


# Coordinates whose noise is kept step by step: blocks of neighbours, spread over the parameters.
BLOCKS, IN_A_BLOCK = 8, 8
# Steps of which all pairs are compared; of a longer run, the last.
MOST_STEPS = 4_096
_FEWEST_FOR_PAIRS = 16
TESTS = 6


@dataclass(frozen=True, kw_only=True)
class ReleasedNoise:
    """The noise of one run's T steps, in units of the clipping norm, over parameters of N numbers together.

    ``squares``: (T, P) sum of squares over each of P parameters, of ``sizes`` (P,) numbers each. ``totals``: (T,) sum
    over all N numbers. ``squared_sum``: squared length of the sum over steps of ``noise / multiplier``, the multiplier
    being the optimizer's own at each step, ``multipliers`` (T,). ``watched``: (t, k) noise of a few coordinates at the
    last t steps. ``changed``: steps at which the gradient was not the one that the noise was added to any more.
    """

    sizes: FloatArray
    squares: FloatArray
    totals: FloatArray
    squared_sum: float
    multipliers: FloatArray
    watched: FloatArray
    changed: int = 0

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.totals)


@dataclass(frozen=True, kw_only=True)
class NoiseTest:
    """One test: its alternative for the noise, and its p-value under a correct run."""

    refuted: str
    p_value: float


@dataclass(frozen=True, kw_only=True)
class NoiseAudit:
    """Whether the stated noise is refuted at ``alpha``, which its tests share out; ``ratio``: of variances, ideal 1.

    ``degrees``: squares that the smallest noise is told from, at the level that ``looks`` at parameters and at all of
    them leave. ``why_not``: why nothing could be tested, or "".
    """

    ratio: float
    degrees: int
    alpha: float
    tests: tuple[NoiseTest, ...]
    looks: int = 1
    why_not: str = ""

    @property
    def refuted(self) -> tuple[str, ...]:
        """The significant alternatives for the noise."""
        return tuple(test.refuted for test in self.tests if test.p_value <= self.alpha / TESTS)

    def power(self, factor: float) -> float:
        """Power against noise with standard deviation ``factor`` times the stated one, by its size alone."""
        if not self.tests or factor >= 1.0:
            return 0.0
        if factor == 0.0:
            return 1.0
        level = self.alpha / TESTS / self.looks
        return float(chi2.cdf(chi2.ppf(level, self.degrees) / factor**2, self.degrees))


def audit_noise(runs: Sequence[ReleasedNoise], accounting: Sequence[Phase], *, alpha: float) -> NoiseAudit:
    """Test the noise of runs against the accounted multipliers; a correct run is rejected with probability at most
    ``alpha``.

    Where the noise is as stated, ``z = noise / multiplier`` are independent standard normal numbers, so that exactly:

    - too little: ``sum z^2`` of a parameter is chi-square with ``T n_p`` degrees; the smallest tail over parameters
    - repeated or cancelling over steps: ``|sum_t z_t|^2 / T`` has the share ``Beta(N / 2, N (T - 1) / 2)`` of
      ``sum z^2``, whatever its size; both tails
    - the same in all coordinates of a step: ``(sum_i z_ti)^2 / N``, summed over t, has the share
      ``Beta(T / 2, T (N - 1) / 2)``
    - reused: the squared correlation of any two steps over k watched coordinates is ``Beta(1/2, (k - 1) / 2)`` and of
      any two coordinates over t steps ``Beta(1/2, (t - 1) / 2)``; the largest of all pairs, of several runs too
    - not normal: Kolmogorov and Smirnov's distance of the watched numbers over their size

    Bonferroni over these and over what each is the largest of. The steps' own multipliers are those of the phases in
    their order where as many steps were taken as are counted, else the least of them; the two tests over steps then
    take the optimizer's own. More noise than stated refutes nothing.
    """
    if any(phase.noise_multiplier == 0.0 for phase in accounting):
        return NoiseAudit(ratio=np.nan, degrees=0, alpha=alpha, tests=(), why_not="the accounting states no noise")
    stated = [_stated_multipliers(run, accounting) for run in runs]
    squares = [(run.squares / s[:, None] ** 2).sum(axis=0) for run, s in zip(runs, stated, strict=True)]
    degrees = [run.sizes * run.steps for run in runs]
    ratio = float(sum(s.sum() for s in squares) / sum(d.sum() for d in degrees))
    tests = (_too_little(np.sum(squares, axis=0), np.sum(degrees, axis=0)), *_over_steps(runs), *_over_pairs(runs))
    looks = len(runs[0].sizes) + 1
    return NoiseAudit(ratio=ratio, degrees=int(np.sum(degrees)), alpha=alpha, tests=tests, looks=looks)


def _stated_multipliers(run: ReleasedNoise, accounting: Sequence[Phase]) -> FloatArray:
    counted = np.repeat([p.noise_multiplier for p in accounting], [p.steps for p in accounting])
    if len(counted) == run.steps:
        return np.asarray(counted, np.float64)
    return np.full(run.steps, min(p.noise_multiplier for p in accounting))


def _too_little(squares: FloatArray, degrees: FloatArray) -> NoiseTest:
    p = np.append(chi2.cdf(squares, degrees), chi2.cdf(squares.sum(), degrees.sum()))
    least = int(np.argmin(p[:-1]))
    which = "" if p[-1] <= p[least] else f" in parameter {least + 1} of {len(squares)}"
    share = squares.sum() / degrees.sum() if not which else squares[least] / degrees[least]
    return NoiseTest(
        refuted=f"less noise than stated{which}: {np.sqrt(share):.3g} of it", p_value=min(float(p.min()) * len(p), 1.0)
    )


def _over_steps(runs: Sequence[ReleasedNoise]) -> Sequence[NoiseTest]:
    """The sums over steps and over coordinates, of each run by itself."""
    repeated, alike = [], []
    for run in runs:
        z = run.multipliers
        if run.steps < 2 or not (z > 0.0).all():
            continue
        n, whole = run.sizes.sum(), float((run.squares.sum(axis=1) / z**2).sum())
        if whole <= 0.0:
            continue
        half = 0.5 * n
        share = min(run.squared_sum / run.steps / whole, 1.0)
        tails = betainc(half, half * (run.steps - 1), share), betaincc(half, half * (run.steps - 1), share)
        repeated.append(2.0 * min(tails))
        share = min(float(((run.totals / z) ** 2).sum()) / n / whole, 1.0)
        alike.append(float(betaincc(0.5 * run.steps, 0.5 * run.steps * (n - 1.0), share)))
    return tuple(
        NoiseTest(refuted=said, p_value=min(min(found, default=1.0) * max(len(found), 1), 1.0))
        for said, found in (
            ("noise that repeats or cancels itself over the steps", repeated),
            ("noise that is alike in all coordinates of a step", alike),
        )
    )


def _over_pairs(runs: Sequence[ReleasedNoise]) -> Sequence[NoiseTest]:
    watched = np.concatenate([run.watched[-MOST_STEPS:] for run in runs])[-MOST_STEPS:]
    size = np.sqrt((watched**2).mean())
    normal = 1.0 if size == 0.0 else float(kstest((watched / size).ravel(), "norm").pvalue)
    return (
        NoiseTest(refuted="noise of one step used again in another", p_value=_largest_correlation(watched)),
        NoiseTest(refuted="one number used in several coordinates", p_value=_largest_correlation(watched.T)),
        NoiseTest(refuted="noise that is not normally distributed", p_value=normal),
    )


def _largest_correlation(rows: FloatArray) -> float:
    """The p-value of the largest squared cosine of any two rows (n, k), each k independent normal numbers about 0."""
    n, k = rows.shape
    length = np.linalg.norm(rows, axis=1)
    if n < 2 or k < _FEWEST_FOR_PAIRS or not (length > 0.0).all():
        return 1.0
    unit, largest = rows / length[:, None], 0.0
    for start in range(0, n, 512):
        found = np.abs(unit[start : start + 512] @ unit.T)
        found[np.arange(len(found)), np.arange(start, start + len(found))] = 0.0
        largest = max(largest, float(found.max()))
    tail = float(betaincc(0.5, 0.5 * (k - 1), min(largest, 1.0) ** 2))
    return float(min(tail * (n * (n - 1) // 2), 1.0))
