"""Privacy accounting of DP-SGD: PLD, PRV, RDP and GDP side by side, and the noise for a budget.

A run is one or more phases of the Poisson-subsampled Gaussian mechanism. PLD (dp-accounting), PRV and RDP (Opacus) give
upper bounds of epsilon; GDP is a central limit approximation that may lie below the truth, so it is shown and never
used to promise anything. PLD needs the extra ``accounting``; without it PRV is the tightest.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from auditor.core.errors import MissingExtraError, UsageError

Accountant = Literal["rdp", "prv", "pld", "gdp"]
BOUNDS: tuple[Accountant, ...] = ("pld", "prv", "rdp")
ACCOUNTANTS: dict[Accountant, str] = {
    "rdp": "Renyi DP: an upper bound (Mironov, Talwar and Zhang 2019)",
    "prv": "privacy random variables: an upper bound, within 0.01 of the truth (Gopi, Lee and Wutschitz 2021)",
    "pld": "privacy loss distributions: an upper bound, the tightest (Doroshenko et al. 2022)",
    "gdp": "Gaussian DP: an APPROXIMATION that can be below the truth (Dong, Roth and Su 2022; Bu et al. 2020)",
}
_MOST_STEPS = 100_000_000
_MOST_NOISE = 1e6
_LARGEST_GDP = 500.0
_PRV_ERROR = 0.01
# 64 MB an array; beyond it epsilon is in the hundreds, and the time grows to minutes.
_LARGEST_DOMAIN = 8_000_000
_LARGEST_PLD = 1e3
# The Fourier transforms err by about 1e-16 a point, of which there are many.
_LEAST_PLD_DELTA = 1e-10


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Steps with one noise multiplier and one sample rate.

    ``noise_multiplier``: standard deviation of the noise over the clipping norm. ``sample_rate``: the chance of a row
    to be in a step's batch.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0.0):
            raise UsageError(f"A noise multiplier must be a number of at least 0, not {self.noise_multiplier:g}.")
        if not 0.0 < self.sample_rate <= 1.0:
            raise UsageError(f"A sample rate must lie above 0 and be at most 1, not {self.sample_rate:g}.")
        if not 1 <= self.steps <= _MOST_STEPS:
            raise UsageError(f"A number of steps must lie between 1 and {_MOST_STEPS:,}, not {self.steps:,}.")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """One accountant's result: ``epsilon`` is infinite without noise, None if unknown; ``why``: the reason.

    ``is_bound``: it is an upper bound of the true epsilon, not an approximation.
    """

    accountant: Accountant
    epsilon: float | None
    is_bound: bool
    note: str


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Opacus' sampling: ``sample_rate`` is the probability of a row, ``accounted_rate`` that of the accountant.

    They differ, to the safe side, where ``1 / (1 / steps)`` rounds below the whole number, as at 49 steps.
    """

    sample_rate: float
    accounted_rate: float
    steps_per_epoch: int


def sampling_of(n_rows: int, batch_size: int) -> Sampling:
    """The sampling of ``make_private`` for batches of ``b``: rate ``1 / ceil(n / b)``, ``int(1 / rate)`` steps.

    Raises UsageError for a batch that the rows cannot fill.
    """
    if not 1 <= batch_size <= n_rows:
        raise UsageError(f"A batch must hold between 1 and {n_rows:,} rows, all there are, not {batch_size:,}.")
    rate = 1.0 / -(-n_rows // batch_size)
    steps = int(1.0 / rate)
    return Sampling(sample_rate=rate, accounted_rate=1.0 / steps, steps_per_epoch=steps)


def default_delta(n_rows: int) -> float:
    """``n^-1.1``: below 1/n, at which publishing one whole row would be allowed."""
    return float(float(n_rows) ** -1.1)


def privacy_spent(phases: Sequence[Phase], delta: float, accountant: Accountant) -> Spent:
    """Epsilon at ``delta`` of the phases in a row, by one accountant.

    PLD, PRV and RDP compose the phases; GDP adds the squares of their mu. Raises UsageError for no phase or a delta
    outside (0, 1). Sources: those of ``ACCOUNTANTS``.
    """
    _check(phases, delta)
    if accountant not in ACCOUNTANTS:
        raise UsageError(f"There is no accountant {accountant!r}: choose one of {', '.join(ACCOUNTANTS)}.")
    return _cached_privacy_spent(tuple(phases), delta, accountant)


# An audit, its report and a search for the noise ask about the same phases again and again.
@lru_cache(maxsize=1024)
def _cached_privacy_spent(phases: tuple[Phase, ...], delta: float, accountant: Accountant) -> Spent:
    if any(phase.noise_multiplier == 0.0 for phase in phases):
        return Spent(
            accountant=accountant,
            epsilon=math.inf,
            is_bound=accountant != "gdp",
            note="without noise there is no guarantee",
        )
    return {"rdp": _rdp, "prv": _prv, "pld": _pld, "gdp": _gdp}[accountant](phases, delta)


def has_pld() -> bool:
    """Whether the package of the PLD accountant, dp-accounting, is installed."""
    return "dp_accounting" in sys.modules or find_spec("dp_accounting") is not None


def side_by_side(phases: Sequence[Phase], delta: float) -> tuple[Spent, ...]:
    """Epsilon at ``delta`` by each accountant, in the order of ``ACCOUNTANTS``."""
    return tuple(privacy_spent(phases, delta, accountant) for accountant in ACCOUNTANTS)


def noise_for(
    epsilon: float,
    delta: float,
    *,
    sample_rate: float,
    steps: int,
    accountant: Accountant | None = None,
    other_phases: tuple[Phase, ...] = (),
) -> float:
    """The smallest noise multiplier, within 0.01 %, at which the accountant gives at most ``epsilon`` at ``delta``.

    By default that of :func:`least_noise`. ``other_phases``: phases that are spent too, composed with the steps. By
    bisection, rounded up. Raises UsageError where no noise suffices, or for the approximation GDP; MissingExtraError
    for PLD without its package.
    """
    if accountant is None:
        return least_noise(epsilon, delta, sample_rate=sample_rate, steps=steps, other_phases=other_phases)[0]
    if accountant == "gdp":
        raise UsageError("Noise is never chosen by GDP, an approximation that may promise too much: use pld or prv.")
    if accountant == "pld" and not has_pld():
        raise MissingExtraError(
            "The PLD accountant needs dp-accounting: pip install 'responsible-auditor[accounting]', or choose prv."
        )
    if not (math.isfinite(epsilon) and epsilon > 0.0):
        raise UsageError(f"The target epsilon must be a positive number, not {epsilon:g}.")

    one = Phase(noise_multiplier=1.0, sample_rate=sample_rate, steps=steps)
    too_little, enough = 0.0, math.inf

    def found_at(noise: float) -> float | None:
        return privacy_spent([replace(one, noise_multiplier=noise), *other_phases], delta, accountant).epsilon

    def is_enough_noise(noise: float) -> bool:
        nonlocal too_little, enough
        # More noise never spends more, so that most of the bisection lies outside of what is open.
        if too_little < noise < enough:
            found = found_at(noise)
            if found is not None and found <= epsilon:
                enough = noise
            else:
                too_little = noise
        return noise >= enough

    # PLD and PRV go from RDP's: each look of theirs takes as long as a training.
    first: float | None = 1.0
    if accountant != "rdp":
        try:
            first = noise_for(
                epsilon, delta, sample_rate=sample_rate, steps=steps, accountant="rdp", other_phases=other_phases
            )
        except UsageError:
            first = None
    near = None if first is None else _near(epsilon, found_at, first)
    if near is not None and is_enough_noise(near) and not is_enough_noise(near / 1.0001) and accountant != "rdp":
        return near
    high = 1.0
    while not is_enough_noise(high):
        high *= 2.0
        if high > _MOST_NOISE:
            raise UsageError(
                f"No noise reaches epsilon {epsilon:g} at delta {delta:g} in {steps:,} steps by the {accountant} "
                "accountant: ask for a larger epsilon or delta."
            )
    low = 0.5 * high
    while low > 1e-3 and is_enough_noise(low):
        low, high = 0.5 * low, low
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough_noise(middle) else (middle, high)
    if too_little and found_at(too_little) is None and (most := found_at(high)) and most < 0.99 * epsilon:
        raise UsageError(
            f"The {accountant} accountant cannot say which noise spends epsilon {epsilon:g}, as of these steps it "
            f"computes none above {most:.4g}: ask for a smaller epsilon."
        )
    return high


def _near(epsilon: float, found_at: Callable[[float], float | None], first: float) -> float | None:
    """About the noise that it asks for, by a few steps of the secant from the ``first``; None where they fail.

    The logarithm of epsilon is nearly linear in that of the noise.
    """

    def excess(noise: float) -> float:
        found = found_at(noise)
        return math.log(found / epsilon) if found else math.nan

    second = 0.95 * first
    a, b = excess(first), excess(second)
    for _ in range(8):
        if not (math.isfinite(a) and math.isfinite(b)) or a == b:
            return None
        if -1e-4 < b <= 0.0:
            return second
        slope = (b - a) / math.log(second / first)
        # A little to the safe side of where the line meets the claim.
        first, a, second = second, b, second * math.exp(min(max((-5e-5 - b) / slope, -0.7), 0.7))
        b = excess(second)
    return None


@lru_cache(maxsize=64)
def least_noise(
    epsilon: float, delta: float, *, sample_rate: float, steps: int, other_phases: tuple[Phase, ...] = ()
) -> tuple[float, Accountant]:
    """The smallest noise with epsilon at most ``epsilon`` under the tightest accountant that can say, and that one.

    PLD where its package is installed, else PRV, else RDP. ``other_phases``: phases that are spent too. Raises
    UsageError where no noise suffices.
    """
    for name in BOUNDS if has_pld() else BOUNDS[1:]:
        try:
            return noise_for(
                epsilon, delta, sample_rate=sample_rate, steps=steps, accountant=name, other_phases=other_phases
            ), name
        except UsageError as error:
            why = error
    raise why


def gaussian_noise(epsilon: float, delta: float, *, looks: int) -> float:
    """The noise multiplier at which ``looks`` Gaussian mechanisms together, none subsampled, spend epsilon at delta.

    Exact: the smallest z with ``Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu) <= delta``, where
    ``mu = sqrt(looks) / z``, rounded up by bisection to twelve digits. Source: Balle and Wang, ICML 2018, theorem 8;
    Dong, Roth and Su, JRSS B 84 (2022) for the composition.
    """
    if not (math.isfinite(epsilon) and epsilon > 0.0 and 0.0 < delta < 1.0 and looks >= 1):
        raise UsageError(
            f"No Gaussian mechanism spends epsilon {epsilon:g} at delta {delta:g}: ask for a larger epsilon or delta."
        )
    low, high = 1e-6, 1e-6
    while _gaussian_delta(high, epsilon) <= delta:
        low, high = high, 2.0 * high
    while high / low > 1.0 + 1e-12:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _gaussian_delta(middle, epsilon) <= delta else (low, middle)
    return math.sqrt(looks) / low


def _gaussian_delta(mu: float, epsilon: float) -> float:
    from scipy.special import log_ndtr

    first, second = log_ndtr(mu / 2.0 - epsilon / mu), epsilon + log_ndtr(-mu / 2.0 - epsilon / mu)
    return float(np.exp(first) * -np.expm1(min(float(second - first), 0.0)))


def smallest_bound(phases: Sequence[Phase], delta: float) -> tuple[float, Accountant]:
    """The smallest upper bound of epsilon over the accountants, and its accountant.

    Raises as :func:`privacy_spent`.
    """
    found = [
        (said.epsilon, name) for name in BOUNDS if (said := privacy_spent(phases, delta, name)).epsilon is not None
    ]
    return min((epsilon, name) for epsilon, name in found if epsilon is not None)


def with_added(account: Spent, *, epsilon: float, delta: float) -> Spent:
    """The budget including mechanisms outside the accountant: a pure ``epsilon``, and an event of ``delta``.

    The epsilon is added. The event is one that a row alone can bring about, by noise of its own and with a chance of at
    most delta. Let A be the accounted mechanism, which leaves the event out, and B the real one on the table with the
    row: ``P(B in S) <= P(A in S) + delta``, so that the caller adds delta to the accountant's; and where outputs that
    show the event are left out of S, as they never come of the table without the row, ``P(B in S) >= (1 - delta) P(A in
    S)``, so that ``-log(1 - delta)`` is added to epsilon. After Wilkins, Kifer, Zhang and Karrer, arXiv:2202.01100.
    """
    if account.epsilon is None:
        return account
    return replace(account, epsilon=account.epsilon + epsilon - math.log1p(-delta))


def epsilon_by_epoch(
    phases: Sequence[Phase], delta: float, accountant: Accountant, *, most_points: int = 20
) -> tuple[tuple[float, float], ...]:
    """(epochs, epsilon) at up to ``most_points`` times of the run, an epoch being ``1 / sample_rate`` steps.

    Times at which the accountant cannot say are left out.
    """
    _check(phases, delta)
    total = sum(phase.steps for phase in phases)
    times = np.unique(np.ceil(np.linspace(0.0, total, most_points + 1)[1:]).astype(np.int64))
    series = []
    for time in times:
        begun = _first(phases, int(time))
        found = privacy_spent(begun, delta, accountant).epsilon
        if found is not None:
            series.append((sum(phase.steps * phase.sample_rate for phase in begun), found))
    return tuple(series)


def privacy_curve(phases: Sequence[Phase], *, most: float = 16.0, points: int = 65) -> tuple[tuple[float, float], ...]:
    """(epsilon_k, delta_k) that the run keeps for every k, by the PRV accountant's pessimistic side.

    For :func:`auditor.privacy.one_run.inverse_of_curve`. ``delta(epsilon) = E[(1 - e^(epsilon - L))_+]`` of the
    discretised privacy loss L, at ``epsilon`` less the discretisation's error, plus the error of delta.
    """
    return _curve(tuple(phases), most, points)


@lru_cache(maxsize=64)
def _curve(phases: tuple[Phase, ...], most: float, points: int) -> tuple[tuple[float, float], ...]:
    _check(phases, 0.5)
    error, slack = _PRV_ERROR, 1e-9
    if any(phase.noise_multiplier == 0.0 for phase in phases):
        return ((0.0, 1.0),)  # what any mechanism keeps
    with _quiet():
        accountant, size = _prv_accountant(phases, slack)
        if size > _LARGEST_DOMAIN:
            raise UsageError("The noise is too small for a privacy curve: epsilon is in the hundreds.")
        loss = accountant._get_dprv(eps_error=error, delta_error=slack)
    values = np.asarray(loss.domain.ts, np.float64)
    weights = np.asarray(loss.pmf, np.float64)
    # Closest where a claim is usually made.
    epsilons = most * np.linspace(0.0, 1.0, points) ** 2
    deltas = [
        float((weights * -np.expm1(np.minimum(e - error - values, 0.0)))[values > e - error].sum()) + slack
        for e in epsilons
    ]
    return tuple((float(e), min(max(d, 0.0), 1.0)) for e, d in zip(epsilons, deltas, strict=True))


def _rdp(phases: Sequence[Phase], delta: float) -> Spent:
    from opacus.accountants import RDPAccountant

    with _quiet():
        epsilon, order = _renyi(phases, delta)
    edge = order in (RDPAccountant.DEFAULT_ALPHAS[0], RDPAccountant.DEFAULT_ALPHAS[-1])
    note = f"order {order:g}" + (", the last of those tried: valid, less tight" if edge else "")
    return _checked("rdp", epsilon, note)


def _renyi(phases: Sequence[Phase], delta: float) -> tuple[float, float]:
    """(epsilon, its order), as Opacus' RDP accountant gives them."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    divergences = sum(_divergences(phase.noise_multiplier, phase.sample_rate) * phase.steps for phase in phases)
    epsilon, order = get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=divergences, delta=delta)
    return float(epsilon), float(order)


# They take longer than all else, and are the same for any number of steps and any delta.
@lru_cache(maxsize=256)
def _divergences(noise_multiplier: float, sample_rate: float) -> Any:
    """Of one step, at each of Opacus' orders."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    return compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=RDPAccountant.DEFAULT_ALPHAS)


def _prv(phases: Sequence[Phase], delta: float) -> Spent:
    from scipy.integrate import IntegrationWarning

    try:
        with _quiet():
            warnings.simplefilter("error", IntegrationWarning)
            accountant, size = _prv_accountant(phases, delta / 1000.0)
            if size > _LARGEST_DOMAIN:
                raise ValueError(f"epsilon is too large for it, it would need {size:,} points")
            epsilon = accountant.get_epsilon(delta)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError, IntegrationWarning) as error:
        return Spent(accountant="prv", epsilon=None, is_bound=True, note=f"cannot say: {error}".splitlines()[0][:200])
    return _checked("prv", epsilon, "within 0.01 of the discretised optimum")


def _pld(phases: Sequence[Phase], delta: float) -> Spent:
    why = ""
    with _quiet():
        expected, _ = _renyi(phases, delta)
    if not has_pld():
        why = "not installed: pip install 'responsible-auditor[accounting]'"
    elif delta < _LEAST_PLD_DELTA:
        why = f"cannot say: delta is below {_LEAST_PLD_DELTA:g}, where its rounding errors count"
    elif not expected <= _LARGEST_PLD:
        why = f"cannot say: epsilon is too large for it, above {_LARGEST_PLD:g}"
    if why:
        return Spent(accountant="pld", epsilon=None, is_bound=True, note=why)
    with _quiet():
        interval = _pld_interval(phases, expected)
        first, *others = (
            _one_step(phase.noise_multiplier, phase.sample_rate, interval).self_compose(phase.steps) for phase in phases
        )
        for other in others:
            first = first.compose(other)
        epsilon = float(first.get_epsilon_for_delta(delta))
    return _checked("pld", epsilon, f"privacy loss in steps of {interval:.2g}")


def _pld_interval(phases: Sequence[Phase], expected: float) -> float:
    """How finely the loss is cut: joined dots bound it from above at any, and a coarse one is only less tight.

    They are off by about ``0.6 T h^2`` in epsilon, about 1e-4 of it, unless a step would take too many points.
    """
    steps = sum(phase.steps for phase in phases)
    widest = max(_renyi([replace(phase, steps=1)], 1e-20)[0] for phase in phases)
    return max(min(1e-3, 1e-3 * expected, 1e-3 * math.sqrt(150.0 / steps)), 3e-6 * max(expected, widest))


@lru_cache(maxsize=8)
def _one_step(noise_multiplier: float, sample_rate: float, interval: float) -> Any:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sample_rate, value_discretization_interval=interval, use_connect_dots=True
    )


def _prv_accountant(phases: Sequence[Phase], delta_error: float) -> tuple[Any, int]:
    """(Opacus' accountant of the phases, the points that it needs for that error)."""
    from opacus.accountants import PRVAccountant

    accountant: Any = PRVAccountant()
    accountant.history = [(phase.noise_multiplier, phase.sample_rate, phase.steps) for phase in phases]
    domain = _domain(phases, delta_error)
    accountant._get_domain = lambda **_: domain
    return accountant, int(domain.size)


def _domain(phases: Sequence[Phase], delta_error: float) -> Any:
    """As the accountant finds it, which would compute the divergences twice (Gopi et al. 2021, remark 5.6)."""
    from opacus.accountants.analysis.prv import Domain

    steps = sum(phase.steps for phase in phases)
    most, _ = _renyi(phases, delta_error / 4)
    each = [_renyi([replace(phase, steps=1)], delta_error / (8 * steps))[0] for phase in phases]
    half = max(most, *each, _PRV_ERROR) + 3
    return Domain.create_aligned(-half, half, _PRV_ERROR / np.sqrt(steps * np.log(12 / delta_error) / 2))


def _gdp(phases: Sequence[Phase], delta: float) -> Spent:
    from opacus.accountants.analysis.gdp import compute_mu_poisson, eps_from_mu

    try:
        with _quiet():
            squares = [
                float(
                    compute_mu_poisson(
                        steps=phase.steps, noise_multiplier=phase.noise_multiplier, sample_rate=phase.sample_rate
                    )
                )
                ** 2
                for phase in phases
            ]
            mu = math.sqrt(sum(squares))
            # The search has no root where an epsilon of 0 already keeps delta: 2 Phi(mu / 2) - 1.
            epsilon = 0.0 if math.erf(mu / math.sqrt(8.0)) <= delta else float(eps_from_mu(mu=mu, delta=delta))
    except (ValueError, ArithmeticError):
        return Spent(
            accountant="gdp", epsilon=None, is_bound=False, note=f"approximation: epsilon is above {_LARGEST_GDP:g}"
        )
    return _checked("gdp", epsilon, f"approximation, mu {mu:.4g}")


def _checked(accountant: Accountant, epsilon: float, note: str) -> Spent:
    is_bound = accountant != "gdp"
    if math.isnan(epsilon):
        return Spent(accountant=accountant, epsilon=None, is_bound=is_bound, note="cannot say: the result is no number")
    return Spent(accountant=accountant, epsilon=max(float(epsilon), 0.0), is_bound=is_bound, note=note)


def _first(phases: Sequence[Phase], steps: int) -> list[Phase]:
    begun = []
    for phase in phases:
        taken = min(phase.steps, steps)
        if taken:
            begun.append(replace(phase, steps=taken))
        steps -= taken
    return begun


def _check(phases: Sequence[Phase], delta: float) -> None:
    if not phases:
        raise UsageError("A run needs at least one phase of steps.")
    if not 0.0 < delta < 1.0:
        raise UsageError(f"delta must lie between 0 and 1, not {delta:g}.")


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # Each bound stays valid at the edge of the orders; the note says so.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        # Overflow in tails that carry no mass; a result that is no number is caught afterwards.
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
