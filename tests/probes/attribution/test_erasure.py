"""Grades in probability against the slow obvious way, and the ladder of explanations that know less and less."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from auditor.models.torch_model import TorchModel
from probes.attribution.attribution_task import pose
from probes.attribution.attribution_units import Scale, Units
from probes.attribution.faithfulness import RANDOM, grade, random_attribution
from probes.attribution.stability import infidelity
from probes.erasure import BINS, Erasure, erasure, probability
from tests.probes.attribution.scaffolds import generated, network

N, D = 23, 12
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def units_of(score: Score, present: np.ndarray, scale: Scale = "log-odds", of_prompts: bool = False) -> Units:
    return Units(
        kind="word",
        present=present,
        names=(tuple(f"u{j}" for j in range(present.shape[1])),) * len(present),
        score=score,
        infill="nothing",
        in_distribution=True,
        output="",
        scale=scale,
        of_prompts=of_prompts,
    )


def lengths(seed: int) -> np.ndarray:
    return np.arange(D)[None, :] < rng(seed).integers(2, D + 1, size=N)[:, None]


def interacting(seed: int) -> tuple[Score, np.ndarray]:
    """A score with interactions of neighbours, and what each unit adds by itself."""
    own, pairs = rng(seed).normal(size=(2, N, D))

    def score(rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
        both = keep & np.roll(keep, 1, axis=1)
        return np.asarray((own[rows] * keep).sum(axis=1) + 0.5 * (pairs[rows] * both).sum(axis=1))

    return score, own


# ---- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "of_two"), [("log-odds", True), ("log-odds", False), ("probability", True)])
def test_grades_in_probability_are_those_of_the_slow_obvious_way(scale: Scale, of_two: bool) -> None:
    plain, own = interacting(1)
    score: Score = plain if scale == "log-odds" else lambda r, k: 1.0 / (1.0 + np.exp(-plain(r, k)))
    present = lengths(2)
    found = erasure(units_of(score, present, scale), own, rng(), of_two=of_two)
    turned = 0
    for i in range(N):
        there = np.flatnonzero(present[i])

        def p(kept: list[int], i: int = i) -> float:
            keep = np.zeros((1, D), bool)
            keep[0, kept] = True
            return 1.0 / (1.0 + math.exp(-float(plain(np.asarray([i]), keep)[0])))

        whole = p(list(there))
        away = of_two and whole < 0.5
        turned += away
        predicted = (lambda kept, p=p: 1.0 - p(kept)) if away else p
        order = sorted(there, key=lambda j: own[i, j] if away else -own[i, j])
        drops, lacks = [], []
        for share in (0.01, 0.05, 0.1, 0.2, 0.5):
            k = math.ceil(share * len(there) - 1e-9)
            drops.append(predicted(list(there)) - predicted(order[k:]))
            lacks.append(predicted(list(there)) - predicted(order[:k]))
        assert found.comprehensiveness[i] == pytest.approx(np.mean(drops), abs=1e-12)
        assert found.sufficiency[i] == pytest.approx(np.mean(lacks), abs=1e-12)
        counts = [math.ceil(q / 10 * len(there) - 1e-9) for q in range(11)]
        curve = [predicted(order[k:]) for k in counts]
        area = np.trapezoid(curve, np.asarray(counts) / len(there))
        assert found.deletion_auc[i] == pytest.approx(area, abs=1e-12)
    assert (turned > 3) is of_two and len(BINS) == 5


@pytest.mark.parametrize("foil", [True, False])
def test_prompts_keep_the_same_number_of_words(foil: bool) -> None:
    plain, own = interacting(3)
    # Log-probabilities are negative.
    score: Score = plain if foil else lambda r, k: -np.logaddexp(0.0, -plain(r, k))
    present = lengths(4)
    units = units_of(score, present, "log-odds" if foil else "log-probability", of_prompts=True)
    found = erasure(units, own, rng(), of_two=False)
    for i in range(N):
        there = np.flatnonzero(present[i])

        def p(kept: list[int], i: int = i) -> float:
            keep = np.zeros((1, D), bool)
            keep[0, kept] = True
            return 1.0 / (1.0 + math.exp(-float(plain(np.asarray([i]), keep)[0])))

        away = foil and p(list(there)) < 0.5
        order = sorted(there, key=lambda j: own[i, j] if away else -own[i, j])
        kept = [min(k, len(there) - 1) for k in (1, 2, 3, 4, 5)]
        lacks = [(p(list(there)) - p(order[:k])) * (-1 if away else 1) for k in kept]
        assert found.sufficiency[i] == pytest.approx(np.mean(lacks), abs=1e-12)
    if foil:
        assert found.over == "mean over 1 to 5 words" and "predicted" in found.of


def test_a_network_is_asked_for_the_probability_of_what_it_predicts() -> None:
    rows = generated(400)
    model = network(rows)
    assert isinstance(model, TorchModel)
    sample = rows.data().take(np.arange(12))
    problem = pose(model, sample, rows.data(), np.ones(12, np.int64), rng=rng(), n_infill=1)
    values = rng(5).normal(size=(12, problem.units.d))
    found = erasure(problem.units, values, rng(), of_two=True)
    with torch.no_grad():
        p = torch.softmax(model.module(torch.from_numpy(sample.X.to_numpy()).float()), dim=1).max(dim=1).values
    # Nothing is left of any of them but the one row that stands in.
    nothing = probability(problem.units.score(np.arange(12), np.zeros((12, problem.units.d), bool)), "log-odds")
    assert np.ptp(nothing) < 1e-6
    every = np.stack([found.comprehensiveness, found.sufficiency])
    assert (np.abs(every) <= 1.0).all() and (found.deletion_auc > 0.0).all()
    # Of a unit with everything to say, what is lost first is all there is to lose.
    one = units_of(lambda r, k: np.where(k[:, 0], 3.0, -3.0), np.ones((2, 4), bool))
    first = erasure(one, np.asarray([[1.0, 0, 0, 0]] * 2), rng(), of_two=True)
    np.testing.assert_allclose(first.comprehensiveness, 1 / (1 + math.exp(-3)) - 1 / (1 + math.exp(3)))
    np.testing.assert_allclose(first.sufficiency, 0.0, atol=1e-12)
    assert float(p.min()) >= 0.5


def test_a_single_unit_has_no_order() -> None:
    found = erasure(units_of(lambda r, k: k[:, 0] * 1.0, np.ones((3, 1), bool)), np.ones((3, 1)), rng(), of_two=True)
    assert np.isnan(np.stack([found.comprehensiveness, found.sufficiency, found.deletion_auc])).all()


# ---- the ladder ------------------------------------------------------------------------------------------------------

RUNGS = (0.0, 0.25, 0.5, 0.75, 1.0)


def ladder(exact: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """An explanation mixed with more and more noise of its own size, as F-Fidelity degrades explainers.

    Zheng et al., "F-Fidelity: a robust framework for faithfulness evaluation of explainable AI", ICLR 2025.
    """
    noise = rng(seed).normal(size=exact.shape) * exact.std()
    return {f"{share}": (1.0 - share) * exact + share * noise for share in RUNGS}


def in_order(values: list[float], falling: bool) -> bool:
    steps = np.diff(values)
    return bool((steps < 0.0).all() if falling else (steps > 0.0).all())


@pytest.mark.parametrize("game", ["sum", "interactions", "network"])
def test_worse_explanations_have_worse_grades_rung_by_rung(game: str) -> None:
    n = 192
    if game == "network":
        rows = generated()
        model = network(rows)
        data = rows.data()
        sample = data.take(np.arange(n))
        problem = pose(model, sample, data, np.ones(n, np.int64), rng=rng())
        units = problem.units
        from probes.attribution.gradient import Effort
        from probes.attribution.methods import explain

        exact = explain("integrated_gradients", problem, rng(), Effort(n_steps=16)).values
    else:
        own, pairs = rng(6).normal(size=(2, n, D))
        weight = 0.0 if game == "sum" else 0.4

        def score(r: np.ndarray, keep: np.ndarray) -> np.ndarray:
            both = keep & np.roll(keep, 1, axis=1)
            return np.asarray((own[r] * keep).sum(axis=1) + weight * (pairs[r] * both).sum(axis=1))

        units = units_of(score, np.ones((n, D), bool))
        # Shapley values of a game of pairs: half of each pair to either.
        exact = own + weight * (pairs + np.roll(pairs, -1, axis=1)) / 2.0
    rungs = ladder(exact, 7)
    grades = grade(units, np.arange(n), rungs | {RANDOM: random_attribution(units, np.arange(n), rng(8))}, rng(9))
    found = {k: grades[k] for k in rungs}
    raw: list[Erasure] = [erasure(units, values, rng(10), of_two=True) for values in rungs.values()]
    far = [float(np.nanmedian(infidelity(units, values, rng(11)))) for values in rungs.values()]

    def mean(values: np.ndarray) -> float:
        return float(np.nanmean(values))

    orders = {
        "comprehensiveness": in_order([mean(g.comprehensiveness) for g in found.values()], falling=True),
        "sufficiency": in_order([mean(g.sufficiency) for g in found.values()], falling=False),
        "deletion_auc": in_order([mean(g.deletion_auc) for g in found.values()], falling=False),
        "insertion_auc": in_order([mean(g.insertion_auc) for g in found.values()], falling=True),
        "raw_comprehensiveness": in_order([mean(e.comprehensiveness) for e in raw], falling=True),
        "raw_sufficiency": in_order([mean(e.sufficiency) for e in raw], falling=False),
        "raw_deletion_auc": in_order([mean(e.deletion_auc) for e in raw], falling=False),
        "infidelity": in_order(far, falling=False),
    }
    assert orders == dict.fromkeys(orders, True)
