"""Canary clients: with one row a client they are the audit of DP-SGD, number for number; and what they find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from auditor.core.errors import UsageError
from auditor.privacy.accounting import Phase, noise_for
from auditor.privacy.canaries import AuditPlan, DPAudit
from auditor.privacy.dp_audit_scores import CanaryScores, audit_claim
from auditor.privacy.federated.client_canaries import ClientCanaries, clipped
from tests.privacy.test_dp_canaries import per_row, setup
from tests.quantifiers import all_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),  # Opacus says so of every engine
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # inputs are data and need no gradient
]
DELTA, RATE, ROUNDS, NORM = 1e-5, 0.1, 20, 1.0
# What the accountant asks for at epsilon 1: see test_the_noise_is_what_epsilon_1_asks_for.
NOISE = 2.1170858579151235
ACCOUNTING = (Phase(noise_multiplier=NOISE, sample_rate=RATE, steps=ROUNDS),)


def by_rows(reduction: str) -> tuple[CanaryScores, list[Tensor], list[Tensor]]:
    """DP-SGD by Opacus with the audit of rows in it; its scores, its last weights and the cohorts that it drew."""
    module, optimizer, loader, *_ = setup(NOISE, reduction=reduction)
    audit = DPAudit(optimizer, 100, sample_rate=RATE, rng=np.random.default_rng(7))
    cohorts: list[Any] = []
    while len(cohorts) < ROUNDS:
        for inputs, labels in loader:
            cohorts.append((inputs, labels))
            optimizer.zero_grad()
            losses = per_row(module(inputs), labels)
            (losses.mean() if reduction == "mean" else losses.sum()).backward()
            optimizer.step()
            if len(cohorts) == ROUNDS:
                break
    return audit.scores(), list(module.parameters()), cohorts


def by_clients(cohorts: list[Any], reduction: str) -> tuple[CanaryScores, list[Tensor]]:
    """Federated averaging of the same rows, each a client of its own that takes one local step; no Opacus optimizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # As in ``setup``, the network before its first step.
        plain = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 2))
    net, divisor = GradSampleModule(plain, loss_reduction=reduction), 1.0 if reduction == "sum" else 40.0
    weights = list(net.parameters())
    canaries = ClientCanaries(
        weights, 100, clipping_norm=NORM, sample_rate=RATE, rng=np.random.default_rng(7), noise_multiplier=NOISE
    )
    noise = torch.Generator().manual_seed(1)
    for inputs, labels in cohorts:
        net.zero_grad()
        # Each client's update is its own row's gradient, taken of all clients in one pass.
        losses = per_row(net(inputs), labels)
        (losses.mean() if reduction == "mean" else losses.sum()).backward()
        sent = [p.grad_sample for p in weights]
        norms = torch.stack([s.reshape(len(s), -1).norm(2, dim=-1) for s in sent], dim=1).norm(2, dim=1)
        share = (NORM / (norms + 1e-6)).clamp(max=1.0)
        sums = [torch.einsum("i,i...", share, s) for s in sent]
        others = [s.clone() for s in sums]
        canaries.add_to(sums)
        means = [(s + torch.normal(mean=0, std=NOISE * NORM, size=s.shape, generator=noise)) / divisor for s in sums]
        canaries.released(means, divisor=divisor, others=others)
        with torch.no_grad():
            for p, mean in zip(weights, means, strict=True):
                p.add_(mean, alpha=-0.1)
    return canaries.scores(), weights


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_with_one_row_a_client_it_is_the_audit_of_dp_sgd(reduction: str) -> None:
    rows, last, cohorts = by_rows(reduction)
    clients, weights = by_clients(cohorts, reduction)
    assert np.array_equal(rows.included, clients.included) and np.array_equal(rows.scores, clients.scores)
    assert all_of(torch.equal(a, b) for a, b in zip(last, weights, strict=True))
    assert (rows.steps, rows.sample_rate, rows.kind) == (clients.steps, clients.sample_rate, clients.kind)
    one, other = rows.noise[0], clients.noise[0]
    if reduction == "sum":
        assert np.array_equal(one.squares, other.squares) and np.array_equal(one.watched, other.watched)
        assert np.array_equal(one.totals, other.totals) and one.squared_sum == other.squared_sum
    # A mean is divided and multiplied again, which single precision does not undo to the last digit.
    assert np.allclose(one.squares, other.squares, rtol=1e-5)
    of_rows, of_clients = (
        audit_claim(scores, claimed_epsilon=1.0, delta=DELTA, rng=np.random.default_rng(0), accounting=ACCOUNTING)
        for scores in (rows, replace(clients, noise=rows.noise))
    )
    assert of_rows.guesses == of_clients.guesses and of_rows.power == of_clients.power
    assert (of_rows.lower_bound, of_rows.verdict) == (of_clients.lower_bound, of_clients.verdict)


class Loop:
    """Federated averaging of updates that are only numbers, and where it can be spoiled."""

    def __init__(self, seed: int, *, noise: float = NOISE, same_noise: bool = False, whole: bool = True) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise, self.same_noise, self.whole = noise, same_noise, whole
        self.shapes = [torch.zeros(30, 20), torch.zeros(50)]

    def run(self, canaries: ClientCanaries, *, weights: Any = None) -> None:
        at_first = [self.rng.standard_normal(s.shape) for s in self.shapes]
        for _ in range(ROUNDS):
            updates = [
                clipped([torch.from_numpy(self.rng.standard_normal(s.shape)).float() for s in self.shapes], NORM)
                for _ in range(5)
            ]
            weight = [1.0] * 5 if weights is None else weights
            others = [sum(w * u[k] for w, u in zip(weight, updates, strict=True)) for k in range(2)]
            canaries.clients(
                [w * float(torch.cat([p.ravel() for p in u]).norm()) for w, u in zip(weight, updates, strict=True)]
            )
            sums = [o.clone() for o in others]
            for sent in canaries.updates():
                for summed, part in zip(sums, sent, strict=True):
                    summed += part
            drawn = at_first if self.same_noise else [self.rng.standard_normal(s.shape) for s in self.shapes]
            released = [s + self.noise * NORM * torch.from_numpy(d).float() for s, d in zip(sums, drawn, strict=True)]
            canaries.released(released, expected=others, others=others if self.whole else None)

    def audit(self, **more: Any) -> Any:
        canaries = ClientCanaries(
            self.shapes, 200, clipping_norm=NORM, sample_rate=RATE, rng=self.rng, noise_multiplier=NOISE
        )
        self.run(canaries, **more)
        return audit_claim(
            canaries.scores(), claimed_epsilon=1.0, delta=DELTA, rng=self.rng, accounting=ACCOUNTING, factors=(0.5,)
        )


def test_noise_that_is_missing_halved_or_used_again_is_found() -> None:
    off = Loop(0, noise=0.0).audit()
    assert off.verdict == "contradicted" and off.lower_bound > 1.0
    half = Loop(0, noise=0.5 * NOISE).audit()
    assert half.verdict == "contradicted" and "less noise than stated" in half.noise.refuted[0]
    again = Loop(0, same_noise=True).audit()
    assert again.verdict == "contradicted" and "noise of one step used again in another" in again.noise.refuted


def test_without_the_others_sum_the_canaries_alone_see_missing_noise() -> None:
    assert Loop(0, noise=0.0, whole=False).audit().verdict == "contradicted"
    half = Loop(0, noise=0.5 * NOISE, whole=False).audit()
    assert half.noise is None and half.verdict == "cannot_tell"


def test_a_client_that_weighs_more_contradicts_the_claim() -> None:
    found = Loop(0).audit(weights=[1.0, 1.0, 1.0, 1.0, 2.5])
    assert found.verdict == "contradicted" and "one client moves the released sum by 2.5" in found.reason


def test_correct_runs_are_not_accused() -> None:
    # Each run is accused wrongly with at most 5 %: four of ten once in 1,000.
    found = [Loop(seed).audit() for seed in range(10)]
    assert sum(result.verdict == "contradicted" for result in found) <= 3
    assert sum(result.verdict == "consistent" for result in found) >= 7
    assert "who sees their updates" in next(r.reason for r in found if r.verdict == "consistent")


def test_updates_of_canaries_are_their_directions_and_a_score_is_their_dot_product() -> None:
    canaries = ClientCanaries([torch.zeros(4, 5)], 20, clipping_norm=0.5, sample_rate=1.0, rng=np.random.default_rng(0))
    sent = canaries.updates()
    assert len(sent) == canaries.included.sum() and all_of(float(s[0].norm()) == 0.5 for s in sent)
    released = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    canaries.released([released], divisor=3.0, expected=[torch.ones(4, 5)])
    found = canaries.scores().scores[canaries.included]
    dots = [3.0 * float((s[0].double() / 0.5 * released.double()).sum()) for s in sent]
    assert np.allclose(found, (np.asarray(dots) - 1.0) / 0.5)


def test_a_plan_carries_canary_clients_to_the_verdict() -> None:
    plan = AuditPlan(100, np.random.default_rng(0))
    canaries = plan.attach_clients(
        [torch.zeros(30, 20), torch.zeros(50)],
        clipping_norm=NORM,
        sample_rate=RATE,
        noise_multiplier=NOISE,
        accounting=ACCOUNTING,
    )
    with pytest.raises(UsageError, match="once|already"):
        plan.attach_clients([torch.zeros(200)], clipping_norm=1.0, sample_rate=RATE)
    with pytest.raises(UsageError, match="No round"):
        plan.outcome()
    Loop(1).run(canaries)
    scores, accounting = plan.outcome()
    assert accounting == ACCOUNTING and len(scores) == 100 and scores.unit == "client" and len(scores.noise) == 1


def test_calls_out_of_turn_are_refused() -> None:
    zeros, rng = [torch.zeros(10)], np.random.default_rng(0)
    canaries = ClientCanaries(zeros, 5, clipping_norm=1.0, sample_rate=0.5, rng=rng)
    with pytest.raises(UsageError, match="updates"):
        canaries.released(zeros)
    canaries.updates()
    with pytest.raises(UsageError, match="drawn already"):
        canaries.add_to(zeros)
    for wrong, said in (({"clipping_norm": 0.0}, "clipping norm"), ({"sample_rate": 0.0}, "sample rate")):
        with pytest.raises(UsageError, match=said):
            ClientCanaries(zeros, 5, **({"clipping_norm": 1.0, "sample_rate": 0.5} | wrong), rng=rng)
    with pytest.raises(UsageError, match="as many parameters"):
        ClientCanaries(zeros, 11, clipping_norm=1.0, sample_rate=0.5, rng=rng)


def test_clipping_scales_a_whole_update() -> None:
    found = clipped([torch.full((3,), 2.0), torch.full((2, 2), 1.0)], 2.0)
    assert torch.allclose(found[0], torch.full((3,), 1.0)) and torch.allclose(found[1], torch.full((2, 2), 0.5))
    short = [torch.full((3,), 0.1)]
    assert torch.equal(clipped(short, 2.0)[0], short[0])


def test_the_noise_is_what_epsilon_1_asks_for() -> None:
    assert NOISE == pytest.approx(noise_for(1.0, DELTA, sample_rate=RATE, steps=ROUNDS, accountant="prv"), rel=1e-6)
