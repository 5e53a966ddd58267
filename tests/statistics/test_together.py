"""Worlds side by side come to what each comes to alone, and what goes wrong in one is not lost."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from auditor.statistics import combined_tails
from auditor.statistics.changes import GapChange, PairedRates
from auditor.statistics.groups import WorstDifference, WorstRatio
from tests.statistics.together import together


def drawn(rng: np.random.Generator) -> PairedRates:
    n = rng.integers(20, 300, int(rng.integers(2, 4)))
    before = rng.binomial(n, 0.4)
    gained, lost = rng.binomial(n - before, 0.2), rng.binomial(before, 0.3)
    columns = {"before": before, "gained": gained, "lost": lost, "n": n}
    return PairedRates(rate="r", **{name: tuple(column.tolist()) for name, column in columns.items()})


def numbers(rates: PairedRates) -> list[float]:
    """Bounds and p-values, of which one is asked for only where another says so."""
    worst, ratio = WorstDifference(tables=(rates.table(after=True),)), WorstRatio(tables=(rates.table(after=False),))
    found = [*worst.bounds(0.05), *GapChange(rates=(rates,)).bounds(0.01), worst.p_value(0.1, "greater")]
    return [*found, *ratio.bounds(0.05), ratio.p_value(0.8, "less")] if found[0] > 0.0 else found


@pytest.mark.usefixtures("by_tails")
def test_worlds_come_to_what_each_comes_to_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    worlds = [drawn(rng) for _ in range(30)]
    alone = [numbers(rates) for rates in worlds]
    assert {len(some) for some in alone} == {5, 8}
    calls = []
    real = combined_tails.lower_bounds
    monkeypatch.setattr(combined_tails, "lower_bounds", lambda *asked: calls.append(0) or real(*asked))
    beside = together([partial(numbers, rates) for rates in worlds])
    for some, same in zip(beside, alone, strict=True):
        np.testing.assert_allclose(some, same, atol=1e-9)
    # And not one after another.
    assert 0 < len(calls) < len(worlds)


def test_what_goes_wrong_in_a_world_is_raised() -> None:
    def fails() -> list[float]:
        raise ValueError("nothing is left")

    with pytest.raises(ValueError, match="nothing is left"):
        together([partial(numbers, drawn(np.random.default_rng(1))), fails])
