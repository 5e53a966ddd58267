"""The promise about errors, kept or broken by simulation: whole scans of known worlds, judged thousands of times.

A world fixes every cell's selection rate; labels are independent of it, so the true value of every headline is known.
Rows are drawn jointly, so findings depend on each other as they do in a real scan. Decisions are computed from the
bounds alone, in bulk; ``test_bulk_decisions_are_what_judge_says`` holds them to the whole chain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pytest
from scipy.special import ndtri

from auditor.data.group_counts import GroupCounts
from auditor.judging.budgets import CONJUNCTION, Family
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.statistics import rate_pairs as pairs
from auditor.statistics.combined_tails import Contrast, Pairs, margins
from auditor.statistics.estimate import minimum_detectable_effect, n_required
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rates import RateTable
from auditor.statistics.significance_tests import Multiplicity
from probes.fairness.group_fairness import GroupFairness
from tests.statistics.worlds import WORLDS as DRAWN
from tests.statistics.worlds import most_misses

BOUND, RATIO_BOUND, BASE, PREVALENCE = 0.10, 0.80, 0.40, 0.5
SIZES = (200, 500, 2_000, 20_000)
# So many standard errors from a level an approximation of a test tells on which side of it the test is.
SURE = 1.5
Kind = Literal["difference", "ratio", "rate"]


@pytest.fixture(autouse=True)
def combined_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of scans of small groups: by the tests of two tails, which are quick at every size.

    Those by enumeration are held to their levels table by table (``tests/statistics/test_unconditional.py``).
    """
    monkeypatch.setattr(pairs, "MOST_ENUMERATED", 0)


# ---- deciding in bulk ----------------------------------------------------------------------------------------------


def decide(
    judged: Judged, tables: list[tuple[np.ndarray, np.ndarray]], level: float, asked: Literal["FAIL", "PASS"]
) -> np.ndarray:
    """(n_worlds,) whether one finding at one level has the outcome that is asked for."""
    failing, worlds = asked == "FAIL", tables[0][0].shape[0]
    if judged.kind == "rate":
        low, high = clopper_pearson(tables[0][0][:, 0], n=tables[0][1][:, 0], alpha=level)
        return high < judged.bound if failing else low >= judged.bound
    found = np.full(worlds, not failing)
    groups = [(n > 0).sum(axis=1) for _, n in tables]
    if not failing:
        # A rate that is undefined in a group lies within no bound; whom nobody belongs to is no group.
        fewest = [2 if judged.metric.startswith("demographic") else n.shape[1] for _, n in tables]
        found[np.any([g < few for g, few in zip(groups, fewest, strict=True)], axis=0)] = False
    unordered = np.maximum(sum(g * (g - 1) // 2 for g in groups), 1)
    for k, n in tables:
        # One table shows that the worst is beyond; all of them, that it is within.
        still = np.flatnonzero(found != failing)
        if still.size and failing:
            found[still] = shown_beyond(judged, k[still], n[still], level / unordered[still])
        elif still.size:
            found[still] = shown_within(judged, k[still], n[still], np.full(still.size, level))
    return found


def shown_beyond(judged: Judged, k: np.ndarray, n: np.ndarray, level: np.ndarray) -> np.ndarray:
    """(n_worlds,) whether any two groups of each world are shown to lie beyond the bound, each pair at its level."""
    value = judged.bound if judged.kind == "difference" else 1.0 / judged.bound
    i, j = np.triu_indices(k.shape[1], 1)
    turn = k[:, i] * n[:, j] < k[:, j] * n[:, i]
    first, second = np.where(turn, j, i), np.where(turn, i, j)
    return of_pairs(judged.kind, k, n, first, second, value, level, either=True).any(axis=1)


def shown_within(judged: Judged, k: np.ndarray, n: np.ndarray, level: np.ndarray) -> np.ndarray:
    """(n_worlds,) whether all ordered pairs of each world are shown to lie within the bound, each at its level."""
    value = -judged.bound if judged.kind == "difference" else judged.bound
    first, second = (np.tile(x, (len(k), 1)) for x in np.nonzero(~np.eye(k.shape[1], dtype=bool)))
    return of_pairs(judged.kind, k, n, first, second, value, level, either=False).all(axis=1)


def of_pairs(
    kind: Kind,
    k: np.ndarray,
    n: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    value: float,
    level: np.ndarray,
    *,
    either: bool,
) -> np.ndarray:
    """(n_worlds, n_pairs) whether the first group is shown to lie above the second by more than ``value``.

    ``level``: (n_worlds,). A pair with a group that has no rows says nothing for or against its world.

    By the tests themselves where a normal approximation has not told, and in a world where any pair is surely shown
    (``either``), or surely not, for no more pairs than it takes.
    """
    k_1, n_1, k_2, n_2 = (np.take_along_axis(x, at, axis=1) for at in (first, second) for x in (k, n))
    known = (n_1 > 0) & (n_2 > 0)
    n_1, n_2 = np.maximum(n_1, 1), np.maximum(n_2, 1)
    times = value if kind == "ratio" else 1.0
    p_1, p_2 = (k_1 + 1.0) / (n_1 + 2.0), (k_2 + 1.0) / (n_2 + 2.0)
    error = np.sqrt(p_1 * (1.0 - p_1) / n_1 + times**2 * p_2 * (1.0 - p_2) / n_2)
    z = (k_1 / n_1 - times * k_2 / n_2 - (value if kind == "difference" else 0.0)) / error
    needed = -ndtri(level)[:, None]
    shown = np.where(known, z > needed, not either)
    unsure = known & (z > needed - SURE) & ((z < needed + SURE) | (np.minimum(n_1, n_2) < 50))
    settled = (shown & ~unsure).any(axis=1) if either else (~shown & ~unsure).any(axis=1)
    shown &= ~(unsure & settled[:, None])
    unsure &= ~settled[:, None]
    contrast: Contrast = "ratio" if kind == "ratio" else "difference"

    def test(asked: np.ndarray) -> None:
        w, pair = np.nonzero(asked)
        counts = [x[w, pair].astype(float) for x in (k_1, n_1, k_2, n_2)]
        tested = Pairs(contrast=contrast, k_1=counts[0], n_1=counts[1], k_2=counts[2], n_2=counts[3], either=either)
        shown[w, pair] = margins(tested, value, level[w]) >= 0.0

    # The pair that most likely settles its world, and then the others where it did not.
    likeliest = np.argmax(np.where(unsure, z if either else -z, -np.inf), axis=1)[:, None]
    first = unsure & (np.arange(z.shape[1]) == likeliest)
    test(first)
    done = (first & shown).any(axis=1) if either else (first & ~shown).any(axis=1)
    test(unsure & ~first & ~done[:, None])
    return shown


def estimate_of(kind: Kind, tables: list[tuple[np.ndarray, np.ndarray]]) -> WorstDifference | WorstRatio:
    rate_tables = tuple(RateTable(rate="r", successes=tuple(k.tolist()), n=tuple(n.tolist())) for k, n in tables)
    return WorstDifference(tables=rate_tables) if kind == "difference" else WorstRatio(tables=rate_tables)


# ---- worlds --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """One finding of a scan: which metric, over which grouping of the cells, and its true value."""

    metric: str
    kind: Kind
    membership: np.ndarray  # (n_groups, n_cells)
    bound: float
    truth: float
    side: int = 1  # 1 at_most, -1 at_least

    @property
    def may_not_fail(self) -> bool:
        return self.side * (self.truth - self.bound) <= 1e-9

    @property
    def may_not_pass(self) -> bool:
        return self.side * (self.truth - self.bound) >= -1e-9


@dataclass(frozen=True)
class Scan:
    """A whole scan of one world: every cell's share and rate, and all that is judged."""

    share: np.ndarray
    rate: np.ndarray
    findings: list[Judged]

    def draw(self, n: int, worlds: int, rng: np.random.Generator) -> np.ndarray:
        """(n_worlds, n_cells, 2, 2) counts by true and predicted class of n rows."""
        y = np.array([1.0 - PREVALENCE, PREVALENCE])
        p = self.share[:, None, None] * y[None, :, None] * np.stack([1 - self.rate, self.rate], axis=1)[:, None, :]
        return rng.multinomial(n, p.ravel() / p.sum(), size=worlds).reshape(worlds, *p.shape)

    def tables(self, finding: Judged, counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        by_group = np.einsum("gc,wcyp->wgyp", finding.membership, counts)
        n = by_group.sum(axis=(2, 3)), by_group[:, :, 1].sum(axis=2), by_group[:, :, 0].sum(axis=2)
        k = by_group[..., 1].sum(axis=2), by_group[:, :, 1, 1], by_group[:, :, 0, 1]
        which = {"equalized_odds_difference": (1, 2), "equal_opportunity_difference": (1,)}.get(finding.metric, (0,))
        return [(k[t], n[t]) for t in which]


METRICS: dict[str, tuple[Kind, float]] = {
    "demographic_parity_difference": ("difference", BOUND),
    "equalized_odds_difference": ("difference", BOUND),
    "equal_opportunity_difference": ("difference", BOUND),
    "demographic_parity_ratio": ("ratio", RATIO_BOUND),
}


def scan(m: int, effects: tuple[float, ...], *, association: float = 0.0, levels: tuple[int, ...] = ()) -> Scan:
    """A scan of m findings; ``effects[f]`` raises the rate of the first level of feature f.

    Groups are of unequal sizes, the largest first; ``association`` is the share of rows whose features all stand at the
    same level, as far as they have it.
    """
    levels = levels or {1: (2,), 9: (2, 4), 24: (2, 2, 2)}[m]
    cells = list(product(*(range(size) for size in levels)))
    shares = [np.array([0.6**i for i in range(size)]) for size in levels]
    share = np.array([math.prod(s[c] / s.sum() for s, c in zip(shares, cell, strict=True)) for cell in cells])
    together = np.array([float(len(set(cell)) == 1) for cell in cells])
    share = (1 - association) * share + association * together / together.sum()
    rate = BASE + np.array([sum(e for e, c in zip(effects, cell, strict=True) if c == 0) for cell in cells])
    groupings = [[[float(cell[f] == v) for cell in cells] for v in range(size)] for f, size in enumerate(levels)]
    if len(levels) > 1:
        groupings.append(np.eye(len(cells)).tolist())
    findings = []
    metrics = list(METRICS)[: {1: 1, 9: 3, 24: 4}[m]]
    for membership in map(np.asarray, groupings):
        rates = membership @ (share * rate) / (membership @ share)
        for metric in metrics:
            kind, bound = METRICS[metric]
            truth = rates.max() - rates.min() if kind == "difference" else rates.min() / rates.max()
            findings.append(Judged(metric, kind, membership, bound, truth, 1 if kind == "difference" else -1))
    if m == 24:
        # one requirement on each cell's own rate, met exactly
        for row, p in zip(np.eye(len(cells)), rate, strict=True):
            findings.append(Judged("selection_rate", "rate", row[None], float(p), float(p), -1))
    assert len(findings) == m
    return Scan(share, rate, findings)


Decided = tuple[np.ndarray, np.ndarray]


def families(
    world: Scan, n: int, worlds: int, rng: np.random.Generator, *, error_rate: float = 0.05
) -> dict[Multiplicity, Decided]:
    """(n_worlds, m) FAIL and PASS of every finding of the same worlds, decided as each whole family is."""
    counts = world.draw(n, worlds, rng)
    tables = [world.tables(finding, counts) for finding in world.findings]
    m = len(world.findings)
    decided: dict[Multiplicity, list[np.ndarray]] = {"bonferroni": [], "holm": []}
    for asked in ("FAIL", "PASS"):
        pairs = zip(world.findings, tables, strict=True)
        shown = np.stack([decide(finding, table, error_rate / m, asked) for finding, table in pairs], axis=1)
        decided["bonferroni"].append(shown.copy())
        left = error_rate
        if asked == "PASS" and m > 1:
            # Holm has a fifth of the rate, and one claim about all of them the rest.
            left = (1.0 - CONJUNCTION) * error_rate
            pairs = zip(world.findings, tables, strict=True)
            shown = np.stack([decide(finding, table, left / m, asked) for finding, table in pairs], axis=1)
            pairs = zip(world.findings, tables, strict=True)
            all_of_them = np.ones(worlds, bool)
            for finding, table in pairs:
                still = np.flatnonzero(all_of_them)
                some = [(k[still], c[still]) for k, c in table]
                all_of_them[still] = decide(finding, some, CONJUNCTION * error_rate, asked)
            shown[all_of_them] = True
        moving = np.flatnonzero(shown.any(axis=1))
        while moving.size:
            # Holm's next step: what is shown frees its share of the error rate for the rest
            before = shown[moving].sum(axis=1)
            for steps in np.unique(before[before < m]):
                step = moving[before == steps]
                for i, (finding, table) in enumerate(zip(world.findings, tables, strict=True)):
                    open_at = step[~shown[step, i]]
                    if open_at.size:
                        some = [(k[open_at], c[open_at]) for k, c in table]
                        shown[open_at, i] = decide(finding, some, left / (m - steps), asked)
            moving = moving[shown[moving].sum(axis=1) > before]
        decided["holm"].append(shown)
    return {how: (fail, ok) for how, (fail, ok) in decided.items()}


def errors(world: Scan, n: int, worlds: int, rng: np.random.Generator) -> dict[Multiplicity, tuple[int, int]]:
    """In how many worlds anything that may not FAIL did, and anything that may not PASS."""
    innocent = np.array([f.may_not_fail for f in world.findings])
    guilty = np.array([f.may_not_pass for f in world.findings])
    return {
        how: (int(fail[:, innocent].any(axis=1).sum()), int(ok[:, guilty].any(axis=1).sum()))
        for how, (fail, ok) in families(world, n, worlds, rng).items()
    }


def test_the_allowance_is_the_one_stated() -> None:
    assert most_misses(worlds=200) == 21 and most_misses() == 131


WORLDS = {
    "no effect": (0.0, 0.0, 0.0),
    "first feature and intersection at the bound": (0.1, 0.0, 0.0),
    "intersection at the bound": (0.06, 0.04, 0.0),
    "features at the bound, intersection beyond": (0.1, 0.1, 0.0),
    "one far beyond, the others at the bound or below": (0.3, 0.1, 0.0),
}


def cases() -> Iterator[tuple[int, str, float, tuple[int, ...]]]:
    for levels in ((2,), (8,)):
        yield 1, "no effect", 0.0, levels
        yield 1, "first feature and intersection at the bound", 0.0, levels
    for m in (9, 24):
        for name in WORLDS:
            yield m, name, 0.0, ()
        yield m, "first feature and intersection at the bound", 0.7, ()


def world_of(m: int, name: str, association: float, levels: tuple[int, ...]) -> Scan:
    features = len(levels or {1: (2,), 9: (2, 4), 24: (2, 2, 2)}[m])
    return scan(m, WORLDS[name][:features], association=association, levels=levels)


def test_bulk_decisions_are_what_judge_says() -> None:
    """Counts, probe, criteria and judge on one side, arithmetic in bulk on the other: the same outcomes."""
    world = scan(9, (0.3, 0.1))
    criteria = [
        Criterion(metric=metric, direction="at_most", bound=BOUND, source="test", set_by="-", set_at="-")
        for metric in list(METRICS)[:3]
    ]
    for n in (300, 3_000):
        counts = world.draw(n, 1, np.random.default_rng(n))
        cells = [(str(a), str(b)) for a, b in product(range(2), range(4))]
        for how, (fail, ok) in families(world, n, 1, np.random.default_rng(n)).items():
            for w in range(1):
                labelled = np.zeros((len(cells), 3, 2), np.int64)
                labelled[:, :2] = counts[w]
                seen = labelled.any(axis=(1, 2))
                groups = tuple(cell for cell, there in zip(cells, seen, strict=True) if there)
                table = GroupCounts(("a", "b"), ("0", "1"), groups, labelled[seen], 1)
                measured = [
                    m
                    for m in GroupFairness().measure_counts(table)
                    if any(c.applies_to("group_fairness", m) for c in criteria)
                ]
                result = ProbeResult(
                    probe="group_fairness", pillar="fairness", citation="", measurements=tuple(measured)
                )
                findings, decided = judge([result], criteria, Family(multiplicity=how))
                assert decided.m == 9
                said = {(f.measurement.metric, f.measurement.sensitive): f.outcome for f in findings if f.measurement}
                reasons = {(f.measurement.metric, f.measurement.sensitive): f.reason for f in findings if f.measurement}
                for i, finding in enumerate(world.findings):
                    features = {2: ("a",), 4: ("b",), 8: ("a", "b")}[len(finding.membership)]
                    expected = Outcome.FAIL if fail[w, i] else Outcome.PASS if ok[w, i] else Outcome.INCONCLUSIVE
                    outcome = said[finding.metric, features]
                    # What follows from another outcome is said too.
                    if outcome is not expected:
                        assert expected is Outcome.INCONCLUSIVE
                        assert "It can be no " in reasons[finding.metric, features]


@pytest.mark.parametrize("most", [60, 4_000])
@pytest.mark.parametrize("kind", ["difference", "ratio"])
def test_what_is_decided_in_bulk_is_what_the_bound_says(kind: Kind, most: int) -> None:
    judged = Judged("a headline", kind, np.eye(3), METRIC_BOUND[kind], math.nan)
    rng = np.random.default_rng(7)
    n = rng.integers(5, most, (100, 3))
    k = rng.binomial(n, np.clip(0.5 + rng.uniform(-1.0, 1.0, (100, 3)) * (0.4 if most < 100 else 0.12), 0.0, 1.0))
    level = 0.06
    bounds = np.asarray([estimate_of(kind, [world]).bounds(level) for world in zip(k, n, strict=True)])
    low, high = bounds.T
    beyond, within = (low > BOUND, high <= BOUND) if kind == "difference" else (high < RATIO_BOUND, low >= RATIO_BOUND)
    assert beyond.sum() > 10
    np.testing.assert_array_equal(shown_beyond(judged, k, n, np.full(100, level / 3)), beyond)
    np.testing.assert_array_equal(shown_within(judged, k, n, np.full(100, level)), within)


@pytest.mark.parametrize("metric", ["demographic_parity_difference", "equalized_odds_difference", *list(METRICS)[3:]])
@pytest.mark.parametrize("asked", ["FAIL", "PASS"])
def test_worlds_with_groups_that_nobody_belongs_to_are_decided_as_the_bound_says(
    metric: str, asked: Literal["FAIL", "PASS"]
) -> None:
    kind, bound = METRICS[metric]
    judged = Judged(metric, kind, np.eye(3), bound, math.nan)
    rng, level = np.random.default_rng(3), 0.06
    n = rng.integers(20, 3_000, (60, 3)) * (rng.random((60, 3)) < 0.6)
    tables = [(rng.binomial(n, 0.6 + rng.choice([0.0, 0.3], (60, 1)) * rng.uniform(-1.0, 1.0, (60, 3))), n)]
    if metric == "equalized_odds_difference":
        # As many rows as before, and others of them in a group.
        tables.append((tables[0][0][:, ::-1], n[:, ::-1]))
    found = decide(judged, tables, level, asked)
    low, high = np.empty(60), np.empty(60)
    for w in range(60):
        world = [(k[w], n[w]) for k, n in tables]
        if metric.startswith("demographic"):
            world = [(k[n > 0], n[n > 0]) for k, n in world]
        low[w], high[w] = estimate_of(kind, world).bounds(level)
    if kind == "difference":
        np.testing.assert_array_equal(found, low > bound if asked == "FAIL" else high <= bound)
    else:
        np.testing.assert_array_equal(found, high < bound if asked == "FAIL" else low >= bound)
    some = found[(n == 0).any(axis=1) & (n > 0).any(axis=1)].sum()
    assert some > 3 if asked == "FAIL" or metric.startswith("demographic") else some == 0


@pytest.mark.grid
@pytest.mark.parametrize("n", [200, 2_000])
@pytest.mark.parametrize("m", [1, 9, 24])
def test_family_errors_at_no_effect_and_at_the_bound(m: int, n: int) -> None:
    for name in ("no effect", "first feature and intersection at the bound"):
        world = world_of(m, name, 0.0, ())
        for false_fail, false_pass in errors(world, n, DRAWN, np.random.default_rng([n, m])).values():
            assert max(false_fail, false_pass) <= most_misses()


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("m", "name", "association", "levels"), list(cases()))
def test_family_errors_are_at_most_five_percent(
    m: int, name: str, association: float, levels: tuple[int, ...], n: int
) -> None:
    world = world_of(m, name, association, levels)
    for how, (false_fail, false_pass) in errors(world, n, DRAWN, np.random.default_rng([n, m])).items():
        print(f"{m=} {n=} {name} {association=} {levels=} {how}: {false_fail / DRAWN:.4f} {false_pass / DRAWN:.4f}")
        assert false_fail <= most_misses(), "false FAIL"
        assert false_pass <= most_misses(), "false PASS"


def test_holm_shows_no_less_than_bonferroni() -> None:
    world = scan(9, (0.13, 0.0))
    decided = families(world, 20_000, 100, np.random.default_rng(0))
    plain, holm = decided["bonferroni"], decided["holm"]
    assert (plain[0] <= holm[0]).all() and holm[0].sum() > plain[0].sum()


def test_a_percentile_bootstrap_of_a_maximum_would_accuse_the_innocent() -> None:
    """Why the headlines are judged from bounds of their parts: no effect, 8 cells, 500 rows, a 95 % bootstrap."""
    rng, accused, worlds = np.random.default_rng(0), 0, 100
    share = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    for _ in range(worlds):
        cells = rng.multinomial(500, np.concatenate([share * 0.5, share * 0.5]))
        again = rng.multinomial(500, cells / 500, size=200).reshape(200, 2, 8)
        with np.errstate(invalid="ignore"):
            rates = again[:, 1] / again.sum(axis=1)
        accused += np.nanquantile(np.nanmax(rates, axis=1) - np.nanmin(rates, axis=1), 0.025) > BOUND
    assert accused >= 0.9 * worlds


# ---- power and planning --------------------------------------------------------------------------------------------


def found_beyond(kind: Kind, rates: np.ndarray, sizes: np.ndarray, level: float, worlds: int, tables: int = 1) -> float:
    """Share of worlds in which a headline over independent tables with these rates is shown to be beyond its bound."""
    rng = np.random.default_rng(11)
    n = np.tile(sizes, (worlds, 1))
    judged = Judged("a headline", kind, np.eye(len(sizes)), METRIC_BOUND[kind], math.nan)
    comparisons = tables * len(sizes) * (len(sizes) - 1) // 2
    # the other tables have no gap: they cost comparisons and show nothing
    return float(shown_beyond(judged, rng.binomial(n, rates), n, np.full(worlds, level / comparisons)).mean())


METRIC_BOUND: dict[Kind, float] = {"difference": BOUND, "ratio": RATIO_BOUND}


@pytest.mark.parametrize("metric", METRICS)
def test_declared_power_is_there(metric: str) -> None:
    """Two groups of n rows, half of them positive; rates on either side of a half, the hardest; 4 judgements at 5 %."""
    kind, _ = METRICS[metric]
    power = GroupFairness.power[metric]
    n, tables = power.n, 1
    if metric.startswith("equal"):
        n, tables = n // 2, 2 if metric == "equalized_odds_difference" else 1
    shares = []
    for centre in (0.5, 0.4, 0.6):
        if kind == "difference":
            rates = [centre + power.effect / 2, centre - power.effect / 2]
        else:
            rates = [centre, power.effect * centre]
        if kind == "difference" or centre >= 0.5:
            shares.append(found_beyond(kind, np.array(rates), np.array([n, n]), 0.05 / 4, 2_000, tables))
    assert min(shares) >= 0.80 - 3 * math.sqrt(0.16 / 2_000)
    assert min(shares) <= 0.90, "the declaration could be sharper"


SHAPES = [(500, 500), (339, 2041), (100, 300, 600), (50,) * 8]
PLANS = [
    (kind, sizes, rate, level, tables)
    for kind in ("difference", "ratio")
    for sizes in SHAPES
    for rate in (0.02, 0.4, 0.9)
    for level in (0.05 / 4, 0.05 / 24)
    for tables in (1, 2)
]


def planned(kind: Kind, sizes: tuple[int, ...], rate: float, tables: int) -> WorstDifference | WorstRatio:
    n = np.array(sizes)
    return estimate_of(kind, [(np.round(rate * n).astype(int), n)] * tables)


def pass_rate_at_the_planned_size(
    kind: Kind, sizes: tuple[int, ...], rate: float, level: float, tables: int, worlds: int
) -> float:
    """How often an ideal model of ``n_required`` rows PASSes."""
    estimate = planned(kind, sizes, rate, tables)
    bound, ideal = (BOUND, 0.0) if kind == "difference" else (RATIO_BOUND, 1.0)
    needed = n_required(estimate, bound=bound, alpha=level, ideal=ideal, n=sum(sizes))
    assert needed is not None
    rng = np.random.default_rng(5)
    n = np.tile(np.maximum(np.round(np.array(sizes) * needed / sum(sizes)).astype(int), 1), (worlds, 1))
    judged = Judged("a headline", kind, np.eye(len(sizes)), bound, ideal)
    p = estimate.tables[0].pooled()
    levels = np.full(worlds, level)
    return float(np.all([shown_within(judged, rng.binomial(n, p), n, levels) for _ in range(tables)], axis=0).mean())


def fail_rates_at_the_detectable_effect(
    kind: Kind, sizes: tuple[int, ...], rate: float, level: float, tables: int, worlds: int
) -> list[float]:
    """How often a model with ``minimum_detectable_effect`` between its smallest groups FAILs, wherever that lies."""
    estimate = planned(kind, sizes, rate, tables)
    bound, ideal, sign = (BOUND, 0.0, 1) if kind == "difference" else (RATIO_BOUND, 1.0, -1)
    effect = minimum_detectable_effect(estimate, bound=bound, alpha=level, ideal=ideal, sign=sign)
    if not math.isfinite(effect):
        return []
    pooled, shares = estimate.tables[0].pooled(), []
    if kind == "difference":
        lows = np.clip([pooled, pooled - effect / 2, pooled - effect], 0.0, 1.0 - effect)
        places = [(low + effect, low) for low in lows]
    else:
        widest = min(pooled / effect, 1.0) if effect > 0 else 1.0
        places = [(high, effect * high) for high in (pooled, (pooled + widest) / 2, widest)]
    smallest = np.argsort(sizes, kind="stable")[:2]
    for high, low in places:
        for order in (smallest, smallest[::-1]):
            rates = np.full(len(sizes), (high + low) / 2)
            rates[order[0]], rates[order[1]] = high, low
            shares.append(found_beyond(kind, rates, np.array(sizes), level, worlds, tables))
    return shares


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sizes", "rate", "level", "tables"), PLANS)
def test_plans_are_honest(kind: Kind, sizes: tuple[int, ...], rate: float, level: float, tables: int) -> None:
    assert pass_rate_at_the_planned_size(kind, sizes, rate, level, tables, 400) >= 0.70
    shares = fail_rates_at_the_detectable_effect(kind, sizes, rate, level, tables, 400)
    if shares:
        assert min(shares) >= 0.75


@pytest.mark.parametrize(("kind", "sizes", "rate", "level", "tables"), PLANS[4:48:9])
def test_plans_are_close(kind: Kind, sizes: tuple[int, ...], rate: float, level: float, tables: int) -> None:
    assert 0.70 <= pass_rate_at_the_planned_size(kind, sizes, rate, level, tables, 400) <= 0.97
    shares = fail_rates_at_the_detectable_effect(kind, sizes, rate, level, tables, 400)
    if shares:
        assert 0.75 <= min(shares) <= 0.90
