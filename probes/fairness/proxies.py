"""Proxies of a sensitive feature: a screen by association, with a stated error rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from auditor.core.rows import FloatArray, IntArray, is_number
from auditor.statistics.estimate import POWER
from auditor.statistics.significance_tests import draws_needed

if TYPE_CHECKING:
    import pandas as pd

# Cohen's "medium" effect, nine per cent of the variation shared. Below it a feature says too little of a group to be
# called its proxy, and without a floor a test would call every feature one as soon as there are rows enough.
LEAST_STRENGTH = 0.30
ERROR_RATE = 0.05
N_BINS = 10
MAX_FEATURE_LEVELS = 100
MAX_GROUPS = 20
MAX_ROWS = 10_000
MANY_PAIRS = 200
_DRAWS_AT_ONCE = 2_000


@dataclass(frozen=True)
class Association:
    """A feature and a sensitive feature; ``strength`` is their bias-corrected Cramer's V, in [0, 1]."""

    feature: str
    sensitive: str
    strength: float
    is_proxy: bool

    def __str__(self) -> str:
        return f"{self.feature} for {self.sensitive} (V = {self.strength:.2f})"


@dataclass(frozen=True)
class Screen:
    """All examined pairs, strongest first; with fewer rows than ``n_needed`` it may have missed proxies."""

    associations: tuple[Association, ...]
    n_rows: int
    n_needed: int
    least_strength: float

    @property
    def proxies(self) -> tuple[Association, ...]:
        """The pairs with a proxy feature."""
        return tuple(a for a in self.associations if a.is_proxy)

    @property
    def too_few(self) -> str:
        """The reason why "no proxy" is not informative, or ""."""
        if self.n_rows >= self.n_needed:
            return ""
        return (
            f"A proxy of strength {self.least_strength:g} is found with {POWER:.0%} power from about {self.n_needed:,} "
            f"rows on, and the data have {self.n_rows:,}."
        )

    def describe(self) -> str:
        """The proxies with their strengths, the ten strongest in full, or else the nearest; and the rule."""
        found = self.proxies
        nearest = f"; the strongest association is {self.associations[0]}" if self.associations else ""
        said = f"no feature is a proxy{nearest}"
        if found:
            said = ", ".join(map(str, found[:10])) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
        return (
            f"{said}; a proxy has a bias-corrected Cramer's V of at least {self.least_strength:g} with a sensitive "
            f"feature and a permutation test that rejects independence at {ERROR_RATE:.0%} over all "
            f"{len(self.associations):,} pairs; features that give a group away only together are not found"
        )


def screen(
    X: pd.DataFrame,
    sensitive_features: pd.DataFrame,
    rng: np.random.Generator,
    *,
    least_strength: float = LEAST_STRENGTH,
    error_rate: float = ERROR_RATE,
) -> Screen:
    """Every pair of a feature and a sensitive feature, and whether the feature is a proxy.

    X (n, d) and sensitive_features (n, s). A feature is a proxy where both hold: its bias-corrected Cramer's V over the
    table of binned values by groups is at least ``least_strength``, and the permutation test of the table's chi-square
    rejects independence at ``error_rate / (d s)`` (Bonferroni over all pairs tried), so that the probability that any
    independent feature is called a proxy is at most ``error_rate`` at every n. Of more than 200 pairs, a tenth of each
    pair's level goes to the exact tails of its table's cells, and the rest to the permutations. Numbers with more than
    10 distinct values are cut at their deciles, a missing value is a level of its own, and levels beyond the 100 most
    frequent (20 for groups) are one. At most 10,000 rows, drawn by ``rng``, are looked at. Marginal association only:
    features that give a group away together but not alone are not found.

    Sources: Cramer, Mathematical Methods of Statistics (1946); Bergsma, J. Korean Stat. Soc. 42 (2013).
    """
    n_pairs = X.shape[1] * sensitive_features.shape[1]
    if not n_pairs:
        return Screen((), len(X), 0, least_strength)
    alpha = error_rate / n_pairs
    if len(X) > MAX_ROWS:
        rows = np.sort(rng.choice(len(X), size=MAX_ROWS, replace=False))
        X, sensitive_features = X.iloc[rows], sensitive_features.iloc[rows]
    groups = {str(c): _levels(sensitive_features[c], MAX_GROUPS) for c in sensitive_features.columns}
    found, needed = [], 0
    for name in X.columns:
        values = levels_of(X[name])
        for sensitive, codes in groups.items():
            table = _table(values, codes)
            strength = cramers_v(table)
            is_proxy = strength >= least_strength and _is_dependent(table, alpha, n_pairs > MANY_PAIRS, rng)
            found.append(Association(str(name), sensitive, strength, is_proxy))
            needed = max(needed, _rows_needed(table, least_strength, alpha))
    ordered = tuple(sorted(found, key=lambda a: -a.strength))
    return Screen(ordered, len(X), needed, least_strength)


def _rows_needed(table: IntArray, strength: float, alpha: float) -> int:
    """Rows at which a chi-square test at ``alpha`` finds an association of a strength with 80 % power.

    The noncentrality is ``n V^2 min(r - 1, k - 1)``. Source: Cohen, Statistical Power Analysis (1988), chapter 7.
    """
    r, k = table.shape
    if min(r, k) < 2 or strength <= 0.0:
        return 0
    freedom = float((r - 1) * (k - 1))
    noncentrality = float(scipy.special.chndtrinc(scipy.special.chdtri(freedom, alpha), freedom, 1.0 - POWER))
    return int(np.ceil(noncentrality / (strength**2 * (min(r, k) - 1))))


def cramers_v(table: IntArray) -> float:
    """Bias-corrected Cramer's V of a contingency table of counts (r, k), in [0, 1]; 0 if a side has one level only.

    ``phi2 = max(0, chi2 / n - (r - 1)(k - 1) / (n - 1))``, ``V = sqrt(phi2 / min(r~ - 1, k~ - 1))`` with
    ``r~ = r - (r - 1)^2 / (n - 1)`` and ``k~`` alike. Source: Bergsma, J. Korean Stat. Soc. 42 (2013).
    """
    r, k = table.shape
    n = int(table.sum())
    if min(r, k) < 2 or n < 3:
        return 0.0
    phi2 = max(0.0, float(_chi_square(table[None])[0]) / n - (r - 1) * (k - 1) / (n - 1))
    corrected = min(m - (m - 1) ** 2 / (n - 1) for m in (r, k)) - 1.0
    return min(1.0, float(np.sqrt(phi2 / corrected))) if corrected > 0 else 0.0


def levels_of(values: pd.Series[Any]) -> IntArray:
    """(n,) level of each value: the decile of a number with many distinct ones, else the value; missing is a level."""

    if is_number(values):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
        finite = numbers[np.isfinite(numbers)]
        if np.unique(finite).size > N_BINS:
            edges = np.unique(np.quantile(finite, np.arange(1, N_BINS) / N_BINS))
            bins = np.searchsorted(edges, np.nan_to_num(numbers), side="right")
            return np.where(np.isnan(numbers), N_BINS + 1, bins).astype(np.int64)
    return _levels(values, MAX_FEATURE_LEVELS)


def _levels(values: pd.Series[Any], most: int) -> IntArray:
    """(n,) codes of distinct values, by falling frequency; all beyond ``most`` share the last."""
    import pandas as pd

    codes, _ = pd.factorize(values, use_na_sentinel=False)
    rank = np.argsort(np.argsort(-np.bincount(codes), kind="stable"), kind="stable")
    return np.minimum(rank[codes], most - 1).astype(np.int64)


def _table(rows: IntArray, columns: IntArray) -> IntArray:
    """(r, k) counts of the levels that occur."""
    _, r = np.unique(rows, return_inverse=True)
    _, k = np.unique(columns, return_inverse=True)
    width = int(k.max()) + 1
    return np.bincount(r * width + k, minlength=(int(r.max()) + 1) * width).reshape(-1, width).astype(np.int64)


def _chi_square(tables: IntArray) -> FloatArray:
    """(m,) Pearson's chi-square of tables (m, r, k) that share their margins."""
    rows, columns = tables[0].sum(axis=1), tables[0].sum(axis=0)
    expected = np.outer(rows, columns) / rows.sum()
    return np.asarray(((tables - expected) ** 2 / expected).sum(axis=(1, 2)), np.float64)


def _is_dependent(table: IntArray, alpha: float, many: bool, rng: np.random.Generator) -> bool:
    """Whether independence is rejected at ``alpha``.

    Permutations that could settle one of many pairs are many too: there a tenth of the level is for the exact tails of
    single cells, which find what depends strongly at once.
    """
    if many and cell_p_value(table) <= alpha / 10.0:
        return True
    own = 0.9 * alpha if many else alpha
    return _independence_p_value(table, own, rng) <= own


def cell_p_value(table: IntArray) -> float:
    """P-value of independence by the least hypergeometric tail of a cell (r, k), Bonferroni over both tails of all."""
    rows, columns = table.sum(axis=1)[:, None], table.sum(axis=0)[None, :]
    drawn = scipy.stats.hypergeom(table.sum(), columns, rows)
    least = min(drawn.sf(table - 1).min(), drawn.cdf(table).min())
    return min(1.0, 2.0 * table.size * float(least))


def _independence_p_value(table: IntArray, alpha: float, rng: np.random.Generator) -> float:
    """Permutation p-value of independence, fit for a decision at ``alpha``: random tables with the same margins.

    Permuting the group labels over the rows draws a table from the multivariate hypergeometric distribution of its
    margins; drawing the table directly is the same and does not depend on n. Source: Patefield, Appl. Stat. 30 (1981).
    """
    observed = float(_chi_square(table[None])[0])
    n_draws = draws_needed(alpha)
    exceed = 0
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        drawn = _tables_like(table, min(_DRAWS_AT_ONCE, n_draws - start), rng)
        exceed += int((_chi_square(drawn) >= observed * (1.0 - 1e-9)).sum())
        # The p-value can only exceed alpha from here on.
        if exceed > alpha * (1 + n_draws):
            return 1.0
    return (1 + exceed) / (1 + n_draws)


def _tables_like(table: IntArray, n_draws: int, rng: np.random.Generator) -> IntArray:
    """(n_draws, r, k) tables drawn given both margins, cell by cell from hypergeometric distributions."""
    r, k = table.shape
    drawn = np.zeros((n_draws, r, k), np.int64)
    left = np.tile(table.sum(axis=1), (n_draws, 1))
    for j, size in enumerate(table.sum(axis=0).tolist()):
        if j == k - 1:
            drawn[:, :, j] = left
            break
        still = np.full(n_draws, size, np.int64)
        beyond = left.sum(axis=1)
        for i in range(r):
            beyond = beyond - left[:, i]
            drawn[:, i, j] = rng.hypergeometric(left[:, i], beyond, still)
            still -= drawn[:, i, j]
        left -= drawn[:, :, j]
    return drawn
