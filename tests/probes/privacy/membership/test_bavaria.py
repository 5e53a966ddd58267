"""The Bayesian variance inference attack: by the slow way, by its laws, and against LiRA where models are few."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import optimize, special, stats

from auditor.statistics.rank_estimates import area_under_curve, true_positive_rate_at
from auditor.training.ensembles import random_halves
from probes.privacy.membership import attack_scores, bavaria

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def world(n: int, k: int, seed: int) -> tuple[Floats, Bools, Floats, Bools]:
    """Rows of unlike difficulty, shift and variance: a target's phi, its members, the shadow models' phi and theirs."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(1.0, 2.0, n)
    shift = np.exp(-0.4 * centre) * rng.gamma(4.0, 0.25, n)
    sd = np.exp(0.1 * centre) * np.sqrt(8.0 / rng.chisquare(8, n))
    inside = random_halves(k + 2, n, rng)
    phi = centre + np.where(inside, 0.5, -0.5) * shift + sd * rng.normal(size=(k + 2, n))
    return phi[0], inside[0], phi[2:], inside[2:]


def trend(x: Floats, y: Floats) -> Floats:
    """Means of y over bins of x that are equal in size, drawn straight between their middles."""
    bins = min(max(x.size // 50, 1), 20)
    order = sorted(range(x.size), key=lambda i: x[i])
    parts: list[list[int]] = [[] for _ in range(bins)]
    for rank, i in enumerate(order):
        parts[rank * bins // x.size].append(i)
    return np.asarray(np.interp(x, [x[p].mean() for p in parts], [y[p].mean() for p in parts]), np.float64)


def moderated(squares: Floats, degrees: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Variances drawn towards those of rows that are as hard, and their degrees of freedom."""
    log = np.log(squares / degrees) - special.digamma(degrees / 2) + np.log(degrees / 2)
    middle = trend(at, log)
    spread = np.mean((log - middle) ** 2 - special.polygamma(1, degrees / 2))
    prior = 2.0 * optimize.brentq(lambda x: special.polygamma(1, x) - spread, 1e-3, 5e3) if spread > 1e-3 else 1e4
    scale = np.exp(middle + special.digamma(prior / 2) - np.log(prior / 2))
    return (prior * scale + squares) / (prior + degrees), prior + degrees


def slow_online(phi: Floats, shadow: Floats, inside: Bools) -> Floats:
    k, n = shadow.shape
    ins = [shadow[inside[:, i], i] for i in range(n)]
    outs = [shadow[~inside[:, i], i] for i in range(n)]
    sizes = np.asarray([(len(a), len(b)) for a, b in zip(ins, outs, strict=True)], float)
    mean_in, mean_out = (np.asarray([x.mean() for x in side]) for side in (ins, outs))
    ss_in, ss_out = (np.asarray([((x - x.mean()) ** 2).sum() for x in side]) for side in (ins, outs))
    c, d = (mean_in + mean_out) / 2, mean_in - mean_out
    variance, degrees = moderated(ss_in + ss_out, sizes.sum(axis=1) - 2.0, c)
    halves = []
    for rows in (range(k // 4 * 2), range(k // 4 * 2, k)):
        halves.append(
            np.asarray(
                [
                    np.mean([shadow[r, i] for r in rows if inside[r, i]])
                    - np.mean([shadow[r, i] for r in rows if not inside[r, i]])
                    for i in range(n)
                ]
            )
        )
    prior = trend(c, d)
    between = np.maximum(trend(c, (halves[0] - prior) * (halves[1] - prior)), 0.0)
    whole = trend(c, (d - prior) ** 2)
    weight = np.minimum(between / whole, 1.0)
    shift = prior + weight * (d - prior)
    a, b = trend(c, ss_in) / trend(c, sizes[:, 0] - 1), trend(c, ss_out) / trend(c, sizes[:, 1] - 1)
    common = variance / k + weight * (1 - weight) * whole / 4
    scale_in, scale_out = (np.sqrt(variance * 2 * x / (a + b) + common) for x in (a, b))
    return np.asarray(
        stats.t.logpdf(phi, degrees, c + shift / 2, scale_in) - stats.t.logpdf(phi, degrees, c - shift / 2, scale_out)
    )


@pytest.mark.parametrize("k", [4, 10])
def test_the_online_score_is_that_of_the_slow_way(k: int) -> None:
    phi, _, shadow, inside = world(300, k, 3)
    assert bavaria.online_scores(phi, shadow, inside) == pytest.approx(slow_online(phi, shadow, inside), abs=1e-4)


def test_the_offline_score_is_that_of_the_slow_way_and_of_two_normals() -> None:
    phi, _, shadow, inside = world(300, 10, 4)
    mean = np.asarray([shadow[~inside[:, i], i].mean() for i in range(300)])
    squares = np.asarray([((shadow[~inside[:, i], i] - mean[i]) ** 2).sum() for i in range(300)])
    variance, _ = moderated(squares, (~inside).sum(axis=0) - 1.0, mean)
    gained = np.asarray([(shadow[inside[:, i], i] - mean[i]).sum() for i in range(300)])
    shift = np.maximum(trend(mean, gained) / trend(mean, inside.sum(axis=0).astype(float)), 0.0)
    sd = np.sqrt(variance)
    ratio = stats.norm.logpdf(phi, mean + shift, sd) - stats.norm.logpdf(phi, mean, sd)
    assert bavaria.offline_scores(phi, shadow, inside) == pytest.approx(ratio, rel=1e-4, abs=1e-4)


def test_scores_do_not_depend_on_the_unit_of_phi_or_its_origin() -> None:
    phi, _, shadow, inside = world(400, 8, 5)
    for scores in (bavaria.online_scores, bavaria.offline_scores):
        plain = scores(phi, shadow, inside)
        assert scores(3.0 * phi - 7.0, 3.0 * shadow - 7.0, inside) == pytest.approx(plain, rel=1e-6, abs=1e-6)
        assert scores(phi[::-1], shadow[:, ::-1], inside[:, ::-1])[::-1] == pytest.approx(plain)


def test_rows_lend_each_other_what_they_know_of_a_variance_as_far_as_they_are_alike() -> None:
    """Error of the logarithm of a variance from 7 models, against that of each row's own."""
    rng = np.random.default_rng(6)
    for spread, most in ((0.0, 0.2), (0.5, 0.75), (1.5, 0.99)):
        variances = np.exp(spread * rng.normal(size=2_000))
        squares = variances * rng.chisquare(6, 2_000)
        found, _ = bavaria._posterior_variance(
            squares, np.full(2_000, 6.0), bavaria._Trend.from_values(rng.random(2_000))
        )
        error, plain = (np.sqrt(np.mean(np.log(v / variances) ** 2)) for v in (found, squares / 6.0))
        assert error < most * plain, spread


@pytest.mark.parametrize("value", [1e-4, 0.05, 1.0, 30.0, 1e4])
def test_the_inverse_of_the_trigamma_function_is_one(value: float) -> None:
    assert float(special.polygamma(1, bavaria._inverse_trigamma(value))) == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("rows", [20, 300])
def test_models_that_agree_on_every_row_tell_nothing_and_break_nothing(rows: int) -> None:
    phi, _, shadow, inside = world(rows, 4, 7)
    same = np.broadcast_to(shadow[0], shadow.shape)
    for scores in (bavaria.online_scores, bavaria.offline_scores):
        assert np.isfinite(scores(phi, same, inside)).all()
        assert np.isfinite(scores(phi, np.zeros_like(shadow), inside)).all()
        assert np.ptp(scores(np.zeros(rows), np.zeros_like(shadow), inside)) == 0.0


def test_four_shadow_models_find_more_than_lira_does_and_many_no_less() -> None:
    for k, auc, rate in ((4, 0.04, 1.5), (8, 0.03, 1.3), (64, -0.002, 0.98)):
        gains, ours, theirs = [], [], []
        for seed in range(6):
            phi, member, shadow, inside = world(4_000, k, seed)
            mine = bavaria.online_scores(phi, shadow, inside)
            best = [attack_scores.lira_online_scores(phi, shadow, inside, fixed=fixed) for fixed in (False, True)]
            areas = [area_under_curve(positives=s[member], negatives=s[~member]).value for s in (mine, *best)]
            rates = [
                true_positive_rate_at(positives=s[member], negatives=s[~member], false_positive_rate=0.01).value
                for s in (mine, *best)
            ]
            gains.append(areas[0] - max(areas[1:]))
            ours.append(rates[0])
            theirs.append(max(rates[1:]))
        assert np.mean(gains) > auc, k
        assert np.mean(ours) > rate * np.mean(theirs), k


def test_where_nothing_was_learned_the_score_is_chance() -> None:
    rng = np.random.default_rng(8)
    centre, inside = rng.normal(1.0, 2.0, 4_000), random_halves(9, 4_000, rng)
    phi = centre + rng.normal(size=(9, 4_000))
    for scores in (bavaria.online_scores, bavaria.offline_scores):
        found = scores(phi[8], phi[:8], inside[:8])
        area = area_under_curve(positives=found[inside[8]], negatives=found[~inside[8]])
        low, high = area.bounds(0.001)
        assert low < 0.5 < high
