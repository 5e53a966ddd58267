"""The order test: its error rate without contamination, its power with it, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from auditor.core.errors import DataError, NotApplicableError
from auditor.core.rows import FloatArray
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.run.checks.contract import check_probe
from auditor.run.run_audit import no_data
from auditor.statistics.values import BoundedMean, bounded_mean
from probes.privacy.memorization.contamination import Contamination, _orders, order_test
from tests.probes.privacy.memorization.toys import parrot, sentences
from tests.statistics.worlds import WORLDS, misses, most_misses, normal_shift
from tests.toys.models import criterion


def preferences(shares: Iterable[FloatArray]) -> list[BoundedMean]:
    return [bounded_mean(share, low=0.0, high=1.0) for share in shares]


@pytest.mark.grid
@pytest.mark.parametrize(("shards", "ties"), [(8, False), (50, False), (20, True)])
def test_exchangeable_examples_are_seldom_called_contaminated(shards: int, ties: bool) -> None:
    """Scores of the file's order and of random ones from one distribution, heavy-tailed and of unequal spread."""
    rng = np.random.default_rng(0)
    worlds = []
    for _ in range(WORLDS):
        scores = rng.standard_t(3, (shards, 26)) * rng.gamma(1.0, 5.0, (shards, 1))
        if ties:
            scores = np.round(scores / 10.0)
        worlds.append(order_test(scores[:, 0], list(scores[:, 1:])))
    assert misses(preferences(share for share, _, _ in worlds), 0.5)[0] <= most_misses()
    assert sum(p <= 0.05 for _, _, p in worlds) <= most_misses()


def test_the_p_value_is_valid_at_small_levels() -> None:
    rng = np.random.default_rng(1)
    ps = [order_test(s[:, 0], list(s[:, 1:]))[2] for s in rng.standard_normal((20_000, 8, 21))]
    for alpha in (0.01, 0.001):
        assert np.mean(np.asarray(ps) <= alpha) <= alpha + 4 * np.sqrt(alpha / 20_000)


def test_the_stated_power_is_reached() -> None:
    shards, effect = Contamination.power
    rng = np.random.default_rng(2)
    shift = normal_shift(effect)
    scores = rng.standard_normal((WORLDS, shards, 26))
    scores[:, :, 0] += shift
    found = preferences(order_test(world[:, 0], list(world[:, 1:]))[0] for world in scores)
    assert misses(found, 0.5)[0] >= binom.ppf(0.001, WORLDS, 0.8)


def test_the_share_is_counted() -> None:
    share, gain, p = order_test(np.asarray([3.0, 1.0]), [np.asarray([1.0, 2.0, 3.0, 4.0]), np.ones(4)])
    assert share.tolist() == [0.625, 0.5]
    assert gain.tolist() == [0.5, 0.0]
    from scipy.stats import combine_pvalues

    assert p == pytest.approx(combine_pvalues([3 / 5, 1.0]).pvalue)


def test_orders_are_distinct_and_all_where_they_are_few() -> None:
    rng = np.random.default_rng(0)
    assert len(set(_orders(3, 25, rng))) == 6 and _orders(3, 25, rng)[0] == (0, 1, 2)
    drawn = _orders(10, 25, rng)
    assert len(set(drawn)) == 26 and drawn[0] == tuple(range(10))
    assert len(_orders(4, 23, rng)) == 24


def benchmark(folder: Path, n: int = 120) -> tuple[str, list[str]]:
    """Short examples, each once, and their file."""
    texts = [f"{i:03d} {' '.join(t.split()[:2])}" for i, t in enumerate(sentences(n, 7))]
    texts = [texts[int(i)] for i in np.random.default_rng(3).permutation(n)]
    path = folder / "benchmark.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return str(path), texts


def test_the_probe_keeps_the_contract(tmp_path: Path) -> None:
    path, texts = benchmark(tmp_path)
    check_probe(
        Contamination(benchmarks={"contamination": path}, shard_examples=5, n_permutations=15),
        ideal_model=parrot(texts),
        ideal_data=no_data(),
        violating_model=parrot(["\n".join(texts)]),
        violating_data=no_data(),
        criteria=[criterion("canonical_order_preference", "at_most", 0.75)],
        key="contamination",
    )


def test_a_model_that_knows_the_order_is_found_out(tmp_path: Path) -> None:
    path, texts = benchmark(tmp_path)
    probe = Contamination(benchmarks={"contamination": path}, shard_examples=5)
    found = probe.measure(parrot(["\n".join(texts)]), no_data(), np.random.default_rng(0))
    result = ProbeResult(probe="contamination", pillar="privacy", citation="", measurements=tuple(found))
    first = judge([result], [criterion("canonical_order_preference", "at_most", 0.55)])[0][0]
    assert first.outcome is Outcome.FAIL
    assert found[0].estimate.value > 0.95


def test_what_it_refuses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(NotApplicableError, match="--benchmark contamination=PATH"):
        Contamination().measure(parrot([]), no_data(), rng)
    path, _ = benchmark(tmp_path, 10)
    with pytest.raises(NotApplicableError, match="8 are needed"):
        Contamination(benchmarks={"contamination": path}).measure(parrot([]), no_data(), rng)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(DataError, match="holds no text"):
        Contamination(benchmarks={"contamination": str(empty)}).measure(parrot([]), no_data(), rng)
