"""Accounting against closed forms, direct integration and Opacus' own ways."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.accountants.utils import get_noise_multiplier
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from auditor.core.errors import MissingExtraError, UsageError
from auditor.privacy.accounting import (
    Phase,
    default_delta,
    epsilon_by_epoch,
    least_noise,
    noise_for,
    privacy_curve,
    privacy_spent,
    sampling_of,
    side_by_side,
    smallest_bound,
)
from tests.quantifiers import all_of

DELTA = 1e-5


def phase(noise: float = 1.1, rate: float = 0.02, steps: int = 300) -> Phase:
    return Phase(noise_multiplier=noise, sample_rate=rate, steps=steps)


def gaussian_delta(epsilon: float, mu: float) -> float:
    return float(norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * norm.cdf(-epsilon / mu - mu / 2))


def known(found: float | None) -> float:
    assert found is not None
    return found


def test_full_batches_are_the_gaussian_mechanism_whose_epsilon_is_known() -> None:
    mu = math.sqrt(30) / 12.0
    exact = brentq(lambda e: gaussian_delta(e, mu) - DELTA, 0.0, 20.0)
    run = [phase(12.0, 1.0, 30)]
    prv, rdp = known(privacy_spent(run, DELTA, "prv").epsilon), known(privacy_spent(run, DELTA, "rdp").epsilon)
    assert exact <= prv <= exact + 0.02
    assert exact <= known(privacy_spent(run, DELTA, "pld").epsilon) <= exact + 1e-4
    assert exact <= rdp <= exact * 1.2


def test_one_subsampled_step_by_integration() -> None:
    q, sigma = 0.1, 0.8

    def hockey(epsilon: float) -> float:
        # Removing the row: the mixture against the plain Gaussian.
        def over(z: float) -> float:
            mixture = (1 - q) * norm.pdf(z, 0, sigma) + q * norm.pdf(z, 1, sigma)
            return max(mixture - math.exp(epsilon) * norm.pdf(z, 0, sigma), 0.0)

        return quad(over, -10, 15, limit=500, points=[0.0, 1.0, 2.0, 4.0])[0]

    exact = brentq(lambda e: hockey(e) - DELTA, 0.0, 10.0)
    assert exact <= known(privacy_spent([phase(sigma, q, 1)], DELTA, "prv").epsilon) <= exact + 0.02
    assert exact - 1e-6 <= known(privacy_spent([phase(sigma, q, 1)], DELTA, "pld").epsilon) <= exact + 1e-4


def test_rdp_is_what_opacus_says_step_by_step() -> None:
    accountant = RDPAccountant()
    for _ in range(40):
        accountant.step(noise_multiplier=1.3, sample_rate=0.05)
    for _ in range(10):
        accountant.step(noise_multiplier=0.9, sample_rate=0.01)
    found = privacy_spent([phase(1.3, 0.05, 40), phase(0.9, 0.01, 10)], DELTA, "rdp")
    assert found.epsilon == pytest.approx(accountant.get_epsilon(DELTA))


def test_prv_is_what_opacus_says_to_the_last_bit() -> None:
    """Its domain too, which is found here."""
    run = [phase(1.3, 0.05, 40), phase(0.9, 0.01, 10)]
    accountant = PRVAccountant()
    accountant.history = [(each.noise_multiplier, each.sample_rate, each.steps) for each in run]
    assert privacy_spent(run, DELTA, "prv").epsilon == accountant.get_epsilon(DELTA)


SETTINGS = [
    [phase(1.1, 0.02, 300)],
    [phase(4.0, 0.25, 100)],
    [phase(0.6, 0.01, 1000)],
    [phase(30.0, 0.1, 50)],
    [phase(1.3, 0.05, 40), phase(0.9, 0.01, 10), phase(6.0, 1.0, 3)],
    [phase(1.0, 0.004, 10_000)],
]


@pytest.mark.grid(every=3)
@pytest.mark.parametrize("run", SETTINGS)
def test_pld_is_what_dp_accounting_says_and_the_smallest_bound(run: list[Phase]) -> None:
    """Against the library's own accountant at its own interval, and Opacus' PRV, which is looser by its error."""
    theirs = PLDAccountant()
    for each in run:
        theirs.compose(PoissonSampledDpEvent(each.sample_rate, GaussianDpEvent(each.noise_multiplier)), each.steps)
    found = known(privacy_spent(run, DELTA, "pld").epsilon)
    assert found == pytest.approx(theirs.get_epsilon(DELTA), abs=3e-4)
    assert 0.009 < known(privacy_spent(run, DELTA, "prv").epsilon) - found < 0.013
    assert smallest_bound(run, DELTA) == (found, "pld")
    assert least_noise(2.0, DELTA, sample_rate=0.25, steps=10)[1] == "pld"


def test_without_its_package_prv_takes_the_place_of_pld(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dp_accounting", raising=False)
    monkeypatch.setattr("auditor.privacy.accounting.find_spec", lambda name: None)
    run = [phase(1.7, 0.03, 77)]
    missing = privacy_spent(run, DELTA, "pld")
    assert missing.epsilon is None and "[accounting]" in missing.note
    assert smallest_bound(run, DELTA)[1] == "prv"
    assert least_noise(2.0, DELTA, sample_rate=0.2, steps=11)[1] == "prv"
    with pytest.raises(MissingExtraError, match="accounting"):
        noise_for(2.0, DELTA, sample_rate=0.2, steps=11, accountant="pld")


def test_gdp_by_its_formula_adds_squares_and_is_called_no_bound() -> None:
    first, second = phase(1.3, 0.05, 40), phase(0.9, 0.01, 10)
    mu = math.sqrt(sum(p.sample_rate**2 * p.steps * math.expm1(p.noise_multiplier**-2) for p in (first, second)))
    found = privacy_spent([first, second], DELTA, "gdp")
    assert found.epsilon == pytest.approx(brentq(lambda e: gaussian_delta(e, mu) - DELTA, 0.0, 50.0), rel=1e-6)
    assert not found.is_bound and "approximation" in found.note


@pytest.mark.parametrize("accountant", ["rdp", "prv", "pld", "gdp"])
def test_a_run_cut_in_two_costs_the_same(accountant: str) -> None:
    whole = known(privacy_spent([phase(steps=300)], DELTA, accountant).epsilon)  # type: ignore[arg-type]
    cut = known(privacy_spent([phase(steps=100), phase(steps=200)], DELTA, accountant).epsilon)  # type: ignore[arg-type]
    assert cut == pytest.approx(whole, abs=0.02)


@pytest.mark.parametrize("hardly", [phase(1e9, 0.1, 100), phase(1.0, 1e-7, 100)])
def test_gdp_of_hardly_any_loss_is_zero(hardly: Phase) -> None:
    assert privacy_spent([hardly], 1e-5, "gdp").epsilon == 0.0


def test_prv_says_where_its_integral_fails(recwarn: pytest.WarningsRecorder) -> None:
    found = privacy_spent([phase(1.0, 1e-7, 100)], 1e-5, "prv")
    assert found.epsilon is None and "integral" in found.note and not recwarn.list


def test_without_noise_epsilon_is_infinite_and_far_out_it_is_not_known() -> None:
    assert all_of(found.epsilon == math.inf for found in side_by_side([phase(0.0)], DELTA))
    assert privacy_curve([phase(0.0)]) == ((0.0, 1.0),)
    rdp, prv, pld, gdp = side_by_side([phase(0.05, 0.1, 1000)], DELTA)
    assert known(rdp.epsilon) > 1000.0
    assert prv.epsilon is None and "too large" in prv.note and pld.epsilon is None and "too large" in pld.note
    assert "delta is below" in privacy_spent([phase()], 1e-12, "pld").note
    assert gdp.epsilon is None


@pytest.mark.slow
@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_noise_for_a_target_is_enough_and_hardly_more(accountant: str) -> None:
    noise = noise_for(2.0, DELTA, sample_rate=0.02, steps=300, accountant=accountant)  # type: ignore[arg-type]
    assert known(privacy_spent([phase(noise)], DELTA, accountant).epsilon) <= 2.0  # type: ignore[arg-type]
    assert known(privacy_spent([phase(noise * 0.998)], DELTA, accountant).epsilon) > 2.0  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus tries noise far from the target on its way
        theirs = get_noise_multiplier(
            target_epsilon=2.0, target_delta=DELTA, sample_rate=0.02, steps=300, accountant=accountant
        )
    assert noise == pytest.approx(theirs, rel=0.01)


def test_epsilon_rises_over_the_epochs_to_that_of_the_run() -> None:
    run = [phase(1.3, 0.05, 40), phase(0.9, 0.01, 100)]
    series = epsilon_by_epoch(run, DELTA, "rdp", most_points=7)
    assert [x for x, _ in series] == sorted({x for x, _ in series}) and len(series) == 7
    assert np.all(np.diff([y for _, y in series]) > 0)
    assert series[-1] == (
        pytest.approx(40 * 0.05 + 100 * 0.01),
        pytest.approx(privacy_spent(run, DELTA, "rdp").epsilon),
    )


def test_the_privacy_curve_lies_closely_above_the_gaussian_one() -> None:
    mu = 1.0
    for epsilon, delta in privacy_curve([phase(10.0, 1.0, 100)], most=6.0, points=13):
        exact = gaussian_delta(epsilon, mu)
        assert exact <= delta <= exact * 1.06 + 1e-8


@pytest.mark.parametrize("n, batch", [(1000, 100), (1003, 100), (49, 1), (7, 7), (98, 2)])
def test_sampling_is_what_make_private_does(n: int, batch: int) -> None:
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine, net = PrivacyEngine(accountant="rdp"), torch.nn.Linear(2, 2)
        _, optimizer, loader = engine.make_private(
            module=net,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            data_loader=DataLoader(TensorDataset(torch.zeros(n, 2)), batch_size=batch),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )
    found = sampling_of(n, batch)
    assert (found.sample_rate, found.steps_per_epoch) == (loader.sample_rate, len(loader))
    assert optimizer.expected_batch_size == int(n * found.accounted_rate)


def test_the_default_delta_lies_below_one_over_the_rows() -> None:
    assert all_of(default_delta(n) < 1.0 / n for n in (2, 100, 10**7))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: phase(-1.0), "noise multiplier"),
        (lambda: phase(rate=0.0), "sample rate"),
        (lambda: phase(steps=0), "number of steps"),
        (lambda: privacy_spent([], DELTA, "rdp"), "at least one phase"),
        (lambda: privacy_spent([phase()], 0.0, "rdp"), "delta"),
        (lambda: privacy_spent([phase()], DELTA, "moments"), "no accountant"),  # type: ignore[arg-type]
        (lambda: noise_for(1.0, DELTA, sample_rate=0.1, steps=10, accountant="gdp"), "never chosen by GDP"),
        (lambda: noise_for(0.0, DELTA, sample_rate=0.1, steps=10), "positive"),
        (lambda: noise_for(1e-9, 1e-12, sample_rate=1.0, steps=10**6, accountant="rdp"), "No noise reaches"),
        (lambda: sampling_of(10, 11), "between 1 and 10"),
    ],
)
def test_what_cannot_be_is_said(make: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()
