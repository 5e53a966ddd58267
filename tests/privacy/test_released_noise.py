"""The noise that was released, held against what was stated: never accused when it is right, found when it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from auditor.core.rows import FloatArray
from auditor.privacy.accounting import Phase
from auditor.privacy.canary_recording import NoiseKeeper
from auditor.privacy.dp_audit_scores import AuditResult, audit_claim, pooled
from auditor.privacy.released_noise import TESTS, NoiseAudit, ReleasedNoise, audit_noise
from tests.privacy.test_dp_canaries import DELTA, NOISE, RATE, STEPS, run, setup
from tests.statistics.worlds import WORLDS, most_misses

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),  # Opacus says so of every engine
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),  # inputs are data and need no gradient
]
SIZES = (4, 60, 100)
N, T, SIGMA = sum(SIZES), 24, 1.5
SIGNS = (-1.0) ** np.arange(T)[:, None]
STATED = (Phase(noise_multiplier=SIGMA, sample_rate=0.1, steps=T),)


def kept(noise: FloatArray, multipliers: FloatArray | None = None) -> ReleasedNoise:
    """What is kept of noise (steps, N), watched in its first 64 coordinates."""
    own = np.full(len(noise), SIGMA) if multipliers is None else multipliers
    ends = np.cumsum(SIZES)[:-1]
    return ReleasedNoise(
        sizes=np.asarray(SIZES, np.float64),
        squares=np.stack([(part**2).sum(axis=1) for part in np.split(noise, ends, axis=1)], axis=1),
        totals=noise.sum(axis=1),
        squared_sum=float(((noise / own[:, None]).sum(axis=0) ** 2).sum()),
        multipliers=own,
        watched=noise[:, :64] / own[:, None],
    )


def right(rng: np.random.Generator, steps: int = T) -> FloatArray:
    return rng.normal(0.0, SIGMA, (steps, N))


@pytest.mark.slow
def test_noise_as_stated_is_accused_by_no_test_more_often_than_promised() -> None:
    rng = np.random.default_rng(0)
    p = np.asarray(
        [[test.p_value for test in audit_noise([kept(right(rng))], STATED, alpha=0.05).tests] for _ in range(WORLDS)]
    )
    assert p.shape == (WORLDS, TESTS)
    for level in (0.05, 0.05 / TESTS):
        assert ((p <= level).sum(axis=0) <= most_misses(level)).all()
    assert (p <= 0.05 / TESTS).any(axis=1).sum() <= most_misses()
    # A test that never accuses anybody would keep its promise too: these are as sharp as they say.
    assert ((p <= 0.05).sum(axis=0)[[0, 1, 2, 3]] >= 0.5 * 0.05 * WORLDS).all()


def test_a_schedule_of_noise_is_held_step_by_step_and_else_to_the_least_of_it() -> None:
    rng = np.random.default_rng(1)
    multipliers = np.repeat([2.0, 1.0], T // 2)
    phases = tuple(Phase(noise_multiplier=s, sample_rate=0.1, steps=T // 2) for s in (2.0, 1.0))
    noise = rng.normal(0.0, multipliers[:, None], (T, N))
    assert audit_noise([kept(noise, multipliers)], phases, alpha=1e-3).refuted == ()
    turned = audit_noise([kept(noise[::-1], multipliers[::-1])], phases, alpha=1e-3)
    assert turned.refuted == ()  # twice too much and half too little, which is more than is stated
    low = audit_noise([kept(0.5 * noise, 0.5 * multipliers)], phases, alpha=1e-3)
    assert "less noise than stated" in low.refuted[0] and low.ratio == pytest.approx(0.25, rel=0.1)
    # Fewer steps than are counted: which they were is not known.
    assert audit_noise([kept(noise[:5], multipliers[:5])], phases, alpha=1e-3).refuted == ()
    assert audit_noise([kept(0.7 * noise[-5:], 0.7 * multipliers[-5:])], phases, alpha=1e-3).refuted


def test_more_noise_than_stated_refutes_nothing() -> None:
    found = audit_noise([kept(1.4 * right(np.random.default_rng(2)))], STATED, alpha=1e-3)
    assert found.refuted == () and found.ratio == pytest.approx(1.96, rel=0.05)


def once_again(noise: FloatArray) -> FloatArray:
    noise[17] = -1.3 * noise[3]
    return noise


def without_a_parameter(noise: FloatArray) -> FloatArray:
    noise[:, :4] = 0.0
    return noise


def concentrated(noise: FloatArray, rng: np.random.Generator) -> FloatArray:
    """As much noise, in half of the numbers."""
    return noise * np.sqrt(2.0) * (rng.random(noise.shape) < 0.5)


FAULTS: dict[str, tuple[Callable[[FloatArray, np.random.Generator], FloatArray], str]] = {
    "half": (lambda z, _: 0.5 * z, "less noise than stated: 0."),
    "none": (lambda z, _: 0.0 * z, "less noise than stated: 0 of it"),
    "none in one layer": (lambda z, _: without_a_parameter(z), "in parameter 1 of 3"),
    "the same at every step": (lambda z, _: np.repeat(z[:1], T, axis=0), "repeats or cancels"),
    "taken back at the next step": (lambda z, _: np.repeat(z[::2], 2, axis=0) * SIGNS, "repeats or cancels"),
    "once again, turned and scaled": (lambda z, _: once_again(z), "used again in another"),
    "one number for all coordinates": (lambda z, _: np.repeat(z[:, :1], N, axis=1), "alike in all coordinates"),
    "one number for neighbours": (lambda z, _: np.repeat(z[:, ::2], 2, axis=1), "in several coordinates"),
    "in half of the numbers": (concentrated, "not normally distributed"),
    "uniform": (lambda z, rng: rng.uniform(-SIGMA, SIGMA, z.shape) * np.sqrt(3.0), "not normally distributed"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_other_noise_is_found_and_named(name: str) -> None:
    fault, said = FAULTS[name]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = audit_noise([kept(fault(right(rng), rng))], STATED, alpha=1e-3)
        assert any(said in refuted for refuted in found.refuted), (name, found)


def test_two_runs_with_the_same_noise_are_not_two_runs() -> None:
    rng = np.random.default_rng(3)
    first, second = right(rng), right(rng)
    assert audit_noise([kept(first), kept(second)], STATED, alpha=1e-3).refuted == ()
    assert audit_noise([kept(first), kept(first)], STATED, alpha=1e-3).refuted


def test_its_power_is_how_often_a_smaller_noise_is_found() -> None:
    rng = np.random.default_rng(4)
    found = audit_noise([kept(right(rng))], STATED, alpha=0.05)
    assert found.degrees == N * T and found.power(0.0) == 1.0 and found.power(1.0) == 0.0
    for factor in (0.95, 0.97):
        caught = np.mean(
            [bool(audit_noise([kept(factor * right(rng))], STATED, alpha=0.05).refuted) for _ in range(300)]
        )
        # One look at each parameter, and one at all of them.
        level = chi2.ppf(0.05 / TESTS / (len(SIZES) + 1), N * T)
        assert found.power(factor) == pytest.approx(float(chi2.cdf(level / factor**2, N * T)))
        # At least as often: a single parameter may tell it too.
        assert found.power(factor) - 0.07 < caught < found.power(factor) + 0.2
    assert found.power(0.5) > 0.999


def test_an_accounting_without_noise_states_nothing_to_test() -> None:
    none = (Phase(noise_multiplier=0.0, sample_rate=0.1, steps=T),)
    found = audit_noise([kept(right(np.random.default_rng(5)))], none, alpha=1e-3)
    assert found == NoiseAudit(
        ratio=pytest.approx(np.nan, nan_ok=True),
        degrees=0,
        alpha=1e-3,
        tests=(),
        why_not="the accounting states no noise",
    )
    assert found.power(0.5) == 0.0 and found.refuted == ()


# ---- in real trainings -----------------------------------------------------------------------------------------------


def audited(
    seed: int, *, noise: float = NOISE, spoil: Callable[[Any], None] | None = None, more: int = 0
) -> AuditResult:
    from auditor.privacy.canaries import DPAudit

    module, optimizer, loader, *_ = setup(noise, seed, hidden=64)
    if spoil is not None:
        spoil(optimizer)
    audit = DPAudit(optimizer, 400, sample_rate=RATE, rng=np.random.default_rng(seed))
    run(module, optimizer, loader, STEPS + more)
    return audit_claim(
        pooled([audit.scores()]),
        claimed_epsilon=1.0,
        delta=DELTA,
        rng=np.random.default_rng(seed),
        accounting=(Phase(noise_multiplier=NOISE, sample_rate=RATE, steps=STEPS),),
        factors=(),
    )


def the_same_every_step(optimizer: Any) -> None:
    from unittest import mock

    add = optimizer.add_noise
    optimizer.generator = torch.Generator().manual_seed(7)
    state = optimizer.generator.get_state()
    optimizer.add_noise = mock.Mock(side_effect=lambda: (optimizer.generator.set_state(state), add()))


def before_the_step(change: Callable[[Any], None]) -> Callable[[Any], None]:
    def spoil(optimizer: Any) -> None:
        optimizer.original_optimizer.register_step_pre_hook(lambda *_: [change(p) for p in optimizer.params] and None)

    return spoil


def test_half_the_claimed_noise_is_caught_in_every_training_and_correct_noise_in_none() -> None:
    for seed in range(6):
        half = audited(seed, noise=0.5 * NOISE)
        assert half.verdict == "contradicted" and "whatever epsilon is" in half.reason
        assert half.noise is not None and half.noise.tests[0].p_value < 1e-60
        assert half.noise.ratio == pytest.approx(0.25, abs=0.005)
        correct = audited(seed)
        assert correct.verdict == "consistent" and "found 100% of the time" in correct.reason


def test_the_same_noise_at_every_step_is_caught() -> None:
    found = audited(0, spoil=the_same_every_step)
    assert found.verdict == "contradicted" and "repeats or cancels itself over the steps" in found.reason
    assert "used again in another" in found.reason


def test_steps_that_nobody_counted_contradict_the_claim() -> None:
    found = audited(0, more=6)
    assert found.verdict == "contradicted" and "6 steps were taken that the accounting does not count" in found.reason


def test_a_gradient_that_is_changed_after_its_noise_is_no_pass() -> None:
    """Whether the noise was taken off again, which the canaries tell, or something was done that they do not."""
    off = audited(0, spoil=before_the_step(lambda p: p.grad.copy_(p.summed_grad.reshape(p.grad.shape) / 40.0)))
    assert off.verdict == "contradicted" and off.noise is not None and off.noise.refuted == ()
    found = audited(0, spoil=before_the_step(lambda p: p.grad.clamp_(-0.1, 0.1)))
    assert found.verdict == "cannot_tell" and "changed after its noise was added" in found.reason
    assert found.noise is not None and found.noise.refuted == ()


def test_what_is_kept_is_what_was_added() -> None:
    parameters = [torch.zeros(3, 2), torch.zeros(5)]
    keeper = NoiseKeeper(parameters)
    generator = torch.Generator().manual_seed(0)
    noises = []
    for step in range(4):
        before = [torch.randn(p.shape, generator=generator) for p in parameters]
        noise = [torch.randn(p.shape, generator=generator) for p in parameters]
        for p, summed, z in zip(parameters, before, noise, strict=True):
            p.grad = summed + 2.0 * z
        keeper.add(before, 2.0, 0.5)
        for p in parameters:
            assert p.grad is not None
            p.grad = p.grad / 10.0 if step != 2 else None
        keeper.check_step(10.0)
        noises.append(torch.cat([z.reshape(-1) for z in noise]).double().numpy())
    found, z = keeper.released_noise(), np.stack(noises)
    assert found.steps == 4 and found.changed == 1 and found.sizes.tolist() == [6.0, 5.0]
    assert np.allclose(found.squares, np.stack([(z[:, :6] ** 2).sum(1), (z[:, 6:] ** 2).sum(1)], axis=1), atol=1e-4)
    assert np.allclose(found.totals, z.sum(axis=1), atol=1e-4)
    assert found.squared_sum == pytest.approx(float((z.sum(axis=0) ** 2).sum()) / 0.25, rel=1e-4)
    assert np.allclose(np.sort(found.watched, axis=1), np.sort(z, axis=1) / 0.5, atol=1e-4)


@pytest.mark.parametrize("which", ["later", "odd", "last"])
def test_clipping_that_is_switched_off_at_some_steps_is_caught(which: str) -> None:
    """What a look before the first step cannot see."""

    def spoil(optimizer: Any) -> None:
        clip, taken = optimizer.clip_and_accumulate, [0]

        def sometimes() -> None:
            taken[0] += 1
            clip()
            # After the audit's own look at the step before the training.
            at = taken[0] - STEPS // 2
            if {"later": at > 0, "odd": at > 0 and at % 2 == 1, "last": taken[0] > STEPS}[which]:
                for p in optimizer.params:
                    p.summed_grad = optimizer._get_flat_grad_sample(p).sum(dim=0)

        optimizer.clip_and_accumulate = sometimes

    found = audited(0, spoil=spoil, more=0 if which != "last" else 1)
    assert found.verdict == "contradicted" and "clipped row by row" in found.reason


def test_correct_clipping_is_seen_at_every_step() -> None:
    found = audited(1)
    assert found.verdict == "consistent" and "was seen at" not in found.reason and "for the linter" in found.reason
