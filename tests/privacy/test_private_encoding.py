"""The encoding that is learned by the Gaussian mechanism: what it finds, what it hides, and what it says it spent."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from auditor.core.errors import DataError, UsageError
from auditor.data.preprocessing import CategoricalColumn, NumericColumn
from auditor.privacy.accounting import Phase, Spent, gaussian_noise, least_noise, noise_for, privacy_spent, with_added
from auditor.privacy.training.private_encoding import (
    CELLS,
    OCTAVES,
    PARTS,
    encoding_notes,
    learn_encoding,
    moment_sums,
    octave_counts,
    part_counts,
)
from tests.quantifiers import all_of, none_of

DELTA = 1e-5


class Written:
    """A generator that gives written noise in the place of its own, and keeps what deviations it was asked for."""

    def __init__(self, noise: Any = 0) -> None:
        self.noise = itertools.repeat(0) if noise == 0 else iter(noise)
        self.deviations: list[float] = []

    def normal(self, mean: float, deviation: float, size: int) -> Any:
        self.deviations.append(deviation)
        return np.array([mean + next(self.noise) for _ in range(size)], float)


def table(n: int, rng: np.random.Generator) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "age": rng.integers(17, 91, n).astype(float),
            "gain": np.where(rng.uniform(size=n) < 0.08, rng.integers(1_000, 15_000, n), 0),
            "year": rng.normal(1965.0, 9.0, n).round(),
            "small": -rng.exponential(3e-3, n),
            "same": 4,
            "job": rng.choice(["clerk", "nurse", "smith"], n, p=[0.6, 0.3, 0.1]),
            "sure": rng.uniform(size=n) < 0.4,
        }
    )
    frame.loc[::7, "age"] = np.nan
    frame.loc[0, "job"] = "astronaut"
    return frame


# ---- what it finds ---------------------------------------------------------------------------------------------------


def test_it_finds_means_deviations_and_levels_through_the_noise() -> None:
    frame = table(20_000, np.random.default_rng(0))
    found = learn_encoding(frame, epsilon=0.3, delta=DELTA, rng=np.random.default_rng(1))
    assert found.left_out == () and found.preprocessing.features == tuple(frame.columns)
    columns = {c.name: c for c in found.preprocessing.columns}
    for name in ("age", "gain", "year", "small"):
        column, deviation = columns[name], float(frame[name].std())
        assert isinstance(column, NumericColumn) and column.impute == column.mean
        assert abs(column.mean - frame[name].mean()) < 0.15 * deviation, (name, column)
        # Of a long tail less is seen: what few rows hold lies beyond the bounds, and is clipped before it is summed.
        assert (0.5 if name == "gain" else 0.8) < column.scale / deviation < 1.25, (name, column)
    job, sure = columns["job"], columns["sure"]
    assert isinstance(job, CategoricalColumn) and job.levels == ("clerk", "nurse", "smith")
    assert isinstance(sure, CategoricalColumn) and sure.levels == ("False", "True")
    encoded = found.preprocessing.encode(frame)
    assert np.isfinite(encoded).all() and encoded[0, 5:8].sum() == 0.0 and np.abs(encoded[::7, 0]).max() < 1e-6


def test_the_same_noise_gives_the_same_encoding_and_the_systems_own_another() -> None:
    frame = table(5_000, np.random.default_rng(0))
    first, again, other = (
        learn_encoding(frame, epsilon=0.5, delta=DELTA, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.preprocessing == again.preprocessing != other.preprocessing and first.spent == other.spent


def test_columns_that_the_noise_hides_are_left_out_and_named() -> None:
    frame = table(400, np.random.default_rng(0))
    frame["name"] = [f"person {i}" for i in range(400)]
    found = learn_encoding(frame, epsilon=1.0, delta=1e-3, rng=np.random.default_rng(0))
    assert "name" in found.left_out and "name" not in found.preprocessing.features
    text = " ".join(encoding_notes(found, 1.0))
    assert f"fewer than about {found.fewest:,} rows" in text and "Left out" in text and "name" in text
    with pytest.raises(DataError, match="--dp-encoding-share"):
        learn_encoding(frame[["name"]], epsilon=1.0, delta=1e-3, rng=np.random.default_rng(0))


def test_octaves_cover_every_number_once() -> None:
    values = np.array([0.0, -0.0, 1e-300, 1.0, 1.999, 2.0, -1.0, -3.0, 1e300, -1e300, np.inf, np.nan, 2.0**-20])
    counts = octave_counts(values)
    one = OCTAVES + 21
    assert len(counts) == CELLS and counts.sum() == 12
    assert (counts[OCTAVES], counts[one], counts[one + 1], counts[-1]) == (3, 2, 1, 2)
    assert (counts[2 * OCTAVES - one], counts[2 * OCTAVES - one - 1], counts[0], counts[OCTAVES + 1]) == (1, 1, 1, 1)


# ---- what it hides ---------------------------------------------------------------------------------------------------


def test_no_row_moves_a_look_by_more_than_the_noise_is_scaled_for() -> None:
    """Over rows of every kind, at and beyond the bounds: counts move by one cell, moments by a norm of 3/2."""
    low, high = -3.0, 7.0
    rows = np.concatenate([np.linspace(-20.0, 20.0, 401), [low, high, 2.0, 1e308, -1e308, np.nan, 0.0, 1e-320]])
    others = np.random.default_rng(0).normal(0.0, 5.0, 50)
    moved = []
    for row in rows:
        with_it = np.append(others, row)
        for count in (octave_counts, lambda v: part_counts(v, low, high)):
            change = count(with_it) - count(others)
            assert np.abs(change).sum() == (0 if np.isnan(row) else 1) and change.min() >= 0
        change = moment_sums(with_it, low, high) - moment_sums(others, low, high)
        moved.append(float(np.linalg.norm(change.astype(float))) / (1 << 20))
    assert max(moved) == 1.5, "the bound is reached at the ends, and never passed"


def test_each_look_has_the_noise_that_its_sensitivity_asks_for() -> None:
    frame = table(3_000, np.random.default_rng(0))
    generator = Written()
    found = learn_encoding(frame, epsilon=0.7, delta=DELTA, rng=generator)  # type: ignore[arg-type]
    z = found.spent.noise_multiplier
    assert found.spent.looks == 3 and found.spent.delta == 0.1 * DELTA
    # 7 columns, 5 of numbers.
    assert generator.deviations[:7] == pytest.approx([z * math.sqrt(7)] * 7)
    assert generator.deviations[7:12] == pytest.approx([z * math.sqrt(5)] * 5)
    assert generator.deviations[12:] == pytest.approx([z * 1.5 * math.sqrt(5) * (1 << 20)] * 5)
    alone = with_added(
        privacy_spent([Phase(noise_multiplier=z, sample_rate=1.0, steps=3)], 0.9 * DELTA, "rdp"),
        epsilon=0.0,
        delta=0.1 * DELTA,
    )
    assert alone.epsilon is not None and 0.7 <= alone.epsilon < 0.9, "RDP bounds from above what is exact"


def test_noise_is_whole_so_that_no_bit_of_what_is_released_tells_how_a_sum_was_rounded() -> None:
    generator = Written(noise=[0.4999, -0.3] + [0.0] * 500)
    frame = pd.DataFrame({"b": ["x"] * 40 + ["y"] * 50})
    found = learn_encoding(frame, epsilon=5.0, delta=0.01, rng=generator)  # type: ignore[arg-type]
    exact = learn_encoding(frame, epsilon=5.0, delta=0.01, rng=Written())  # type: ignore[arg-type]
    assert found.preprocessing == exact.preprocessing
    assert moment_sums(np.array([0.1, 0.2, 0.3]), 0.0, 1.0).dtype == np.int64


def outputs(rows: list[str], epsilon: float, delta: float, reach: int) -> Counter[tuple[str, ...]]:
    """The exact distribution of the levels that are released, over all rounded noise up to a reach."""
    frame = pd.DataFrame({"b": rows})
    levels = len(set(rows))
    z = gaussian_noise(epsilon + math.log1p(-0.1 * delta), 0.9 * delta, looks=1)
    whole = np.arange(-reach, reach + 1)
    chance = norm.cdf((whole + 0.5) / z) - norm.cdf((whole - 0.5) / z)
    found: Counter[tuple[str, ...]] = Counter()
    for noise in itertools.product(range(len(whole)), repeat=levels):
        written = Written([float(whole[i]) for i in noise])
        try:
            (column,) = learn_encoding(frame, epsilon=epsilon, delta=delta, rng=written).preprocessing.columns  # type: ignore[arg-type]
            assert isinstance(column, CategoricalColumn)
            released = column.levels
        except DataError:
            released = ()
        found[released] += float(np.prod(chance[list(noise)]))  # type: ignore[assignment]
    return found


def excess(p: Counter[tuple[str, ...]], q: Counter[tuple[str, ...]], epsilon: float) -> float:
    """The least delta at which p is within e^epsilon of q, exactly."""
    return sum(max(p[k] - math.exp(epsilon) * q[k], 0.0) for k in {*p, *q})


@pytest.mark.parametrize(("epsilon", "delta"), [(1.0, 0.05), (2.5, 0.02)])
def test_neighbouring_tables_give_outputs_within_the_claim_exactly(epsilon: float, delta: float) -> None:
    """All noise enumerated, through the code itself; a level that one row alone holds, and one that it adds to."""
    reach = 14
    many = pd.DataFrame({"b": ["a"] * 999})
    exact = learn_encoding(many, epsilon=epsilon, delta=delta, rng=Written())  # type: ignore[arg-type]
    z, fewest = exact.spent.noise_multiplier, exact.fewest
    # Where one row more makes the largest difference to a level that is there.
    without = ["a"] * (fewest - 1)
    q = outputs(without, epsilon, delta, reach)
    for row in ("a", "b"):
        p = outputs([*without, row], epsilon, delta, reach)
        assert min(sum(p.values()), sum(q.values())) > 1.0 - 1e-6
        assert max(excess(p, q, epsilon), excess(q, p, epsilon)) <= delta
        # And a claim of much less is refuted by the same arithmetic.
        assert max(excess(p, q, 0.01), excess(q, p, 0.01)) > (0.1 * delta if row == "a" else 0.0)
    # The chance that a level of one row alone is released is at most what was set aside, and at one row less is not.
    alone = sum(chance for levels, chance in p.items() if "b" in levels)
    assert alone == pytest.approx(norm.sf((fewest - 1.5) / z), rel=1e-6) and alone <= 0.1 * delta
    assert norm.sf((fewest - 2.5) / z) > 0.1 * delta


@pytest.mark.parametrize(("epsilon", "delta", "looks"), [(0.1, 1e-5, 3), (1.0, 1e-3, 1), (4.0, 1e-6, 3)])
def test_the_gaussian_noise_is_exact(epsilon: float, delta: float, looks: int) -> None:
    """By the likelihood ratio of two normal distributions, integrated: at mu the excess is delta, to nine digits."""
    z = gaussian_noise(epsilon, delta, looks=looks)
    mu = math.sqrt(looks) / z
    x = np.linspace(-40.0, 40.0, 4_000_001)
    least = np.maximum(norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x), 0.0).sum() * (x[1] - x[0])
    assert least == pytest.approx(delta, rel=1e-5)
    # PRV, an upper bound that is off by 0.01 at most, agrees.
    prv = privacy_spent([Phase(noise_multiplier=z, sample_rate=1.0, steps=looks)], delta, "prv").epsilon
    assert prv is not None and epsilon - 1e-6 <= prv <= epsilon + 0.015


def test_no_gaussian_noise_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="No Gaussian mechanism"):
        gaussian_noise(0.0, 1e-5, looks=1)


# ---- what it spends --------------------------------------------------------------------------------------------------


def test_the_steps_get_the_noise_that_all_together_spend_epsilon() -> None:
    looked = (Phase(noise_multiplier=gaussian_noise(0.2, DELTA, looks=3), sample_rate=1.0, steps=3),)
    noise, accountant = least_noise(1.0, DELTA, sample_rate=0.05, steps=40, other_phases=looked)
    steps = Phase(noise_multiplier=noise, sample_rate=0.05, steps=40)
    together, alone = (
        privacy_spent([steps, *looked], DELTA, accountant).epsilon,
        privacy_spent([steps], DELTA, accountant).epsilon,
    )
    assert together is not None and alone is not None and 0.99 < together <= 1.0
    # Composed, a fifth of epsilon costs a few per cent of it; added, it would cost a fifth.
    assert 0.9 < alone < 1.0
    bare = noise_for(1.0, DELTA, sample_rate=0.05, steps=40)
    assert 1.0 < noise / bare < 1.05


def test_what_is_added_is_added() -> None:
    found = with_added(Spent(accountant="prv", epsilon=1.0, is_bound=True, note=""), epsilon=0.25, delta=0.01)
    assert found.epsilon == pytest.approx(1.25 - math.log(0.99))
    none = Spent(accountant="prv", epsilon=None, is_bound=True, note="cannot say")
    assert with_added(none, epsilon=1.0, delta=0.0) == none


def test_released_levels_are_those_with_enough_rows() -> None:
    frame = pd.DataFrame({"b": ["common"] * 4_000 + ["rare"] * 300 + [f"one {i}" for i in range(200)]})
    for seed in range(20):
        found = learn_encoding(frame, epsilon=0.5, delta=1e-4, rng=np.random.default_rng(seed))
        (column,) = found.preprocessing.columns
        assert isinstance(column, CategoricalColumn)
        assert "common" in column.levels and none_of(level.startswith("one") for level in column.levels)
    assert found.fewest < 300 and all_of(PARTS == n for n in {len(part_counts(np.zeros(3), 0.0, 1.0))})
