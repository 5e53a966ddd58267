"""From canary scores to a verdict: the lower bound on epsilon, the claimed one, and the largest provable one.

Guesses: of r allowed ones, the r - r // 2 highest scores are guessed to be in, the r // 2 lowest to be out, and the
rest abstain. r is fixed beforehand: the default tries three, each at a third of the error rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from auditor.core.errors import UsageError
from auditor.core.rows import BoolArray, FloatArray
from auditor.privacy.accounting import Accountant, Phase, privacy_curve, privacy_spent
from auditor.privacy.dp_audit_verdict import Evidence, Verdict, lint_runs, thinned, verdict_on
from auditor.privacy.one_run import (
    InverseTradeOff,
    MultiRun,
    f_dp_lower_bound,
    inverse_of_curve,
    inverse_of_epsilon_delta,
    is_refuted,
    one_run_lower_bound,
    one_run_p_value,
)
from auditor.privacy.released_noise import NoiseAudit, ReleasedNoise, Sensitivity, Unit, audit_noise
from auditor.privacy.run_record import RunRecord
from auditor.statistics.intervals import clopper_pearson

# What a claim that is rounded, and the PRV accountant's own error, may fall short of the accounting.
_ROUNDED = 0.02
_NEVER = -1
# Of the error rate, what the tests of the released noise take: half the noise is 70 standard deviations away.
_NOISE_SHARE = 0.02
HALF_NOISE = 0.5


FACTORS = (0.0, 0.25, HALF_NOISE)


@dataclass(frozen=True, kw_only=True)
class CanaryScores:
    """Attack data: (m,) inclusion of each canary by a fair coin, and (m,) its score, larger for "in".

    ``kind``: how the canaries were put in. ``steps``, ``sample_rate``: of the training, where they are known.
    ``noise``: what each run added to its sums, ``sensitivity``: how far one row moves a step, where the audit saw it.
    ``unclipped``: steps whose sum was not that of gradients clipped row by row, of the ``clipping_seen`` that were
    looked at. ``unit``: what a canary stands for.
    ``runs``: what was seen of each run, for the linter.
    """

    included: BoolArray
    scores: FloatArray
    kind: str = "scores"
    steps: int | None = None
    sample_rate: float | None = None
    noise: tuple[ReleasedNoise, ...] = ()
    sensitivity: Sensitivity | None = None
    unclipped: int = 0
    clipping_seen: int = 0
    unit: Unit = "row"
    runs: tuple[RunRecord, ...] = ()

    def __post_init__(self) -> None:
        if self.included.shape != self.scores.shape or self.included.ndim != 1 or not len(self.included):
            raise UsageError("An audit needs one coin and one score for each of at least one canary.")
        if not np.isfinite(self.scores).all():
            raise UsageError("A canary's score is infinite or NaN: the training diverged, so lower its step size.")

    def __len__(self) -> int:
        return len(self.scores)


def pooled(runs: Sequence[CanaryScores]) -> CanaryScores:
    """The canaries of independent runs as one run's: each coin affects one run, so the theorem applies."""
    if not runs:
        raise UsageError("There is no run to pool.")
    return CanaryScores(
        included=np.concatenate([run.included for run in runs]),
        scores=np.concatenate([run.scores for run in runs]),
        kind=runs[0].kind,
        steps=runs[0].steps,
        sample_rate=runs[0].sample_rate,
        noise=tuple(noise for run in runs for noise in run.noise),
        sensitivity=max(
            (run.sensitivity for run in runs if run.sensitivity and not run.sensitivity.why_not),
            key=lambda measured: measured.largest,
            default=runs[0].sensitivity,
        ),
        unclipped=sum(run.unclipped for run in runs),
        clipping_seen=sum(run.clipping_seen for run in runs),
        unit=runs[0].unit,
        runs=tuple(record for run in runs for record in run.runs),
    )


@dataclass(frozen=True, kw_only=True)
class GuessCount:
    """A number of guesses, the number of correct ones, and their bound at its share ``alpha`` of the error rate.

    ``lower_bound``: by Steinke et al., ``f_dp_lower_bound``: by Mahloujifar et al.; both for (epsilon, delta)-DP.
    ``refutes_accounting``: whether the claimed noise, rate and steps are refuted; None where they were not given.
    """

    n_guesses: int
    n_correct: int
    alpha: float
    lower_bound: float
    f_dp_lower_bound: float
    largest_provable: float
    p_value_of_claim: float
    refutes_accounting: bool | None

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Clopper-Pearson at ``1 - alpha`` two-sided of the share of right guesses, for display."""
        low, high = clopper_pearson(self.n_correct, n=self.n_guesses, alpha=self.alpha / 2.0)
        return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """The verdict on a claim, with all its evidence.

    ``lower_bound`` exceeds the true epsilon at ``delta`` with probability at most ``1 - confidence``.
    ``largest_provable``: what as many perfect guesses would show. ``accounted_epsilon``: the smaller of the RDP and PRV
    accountants' upper bounds for the accounting, None where there is none or none can say, infinite without noise.
    ``power``: chance to contradict the claim where the noise were multiplied by a factor, ((factor, chance), ...),
    simulated for the canaries and exact for the noise itself, whichever is larger; where it is empty,
    ``power_unknown`` says why. ``noise``: whether the noise that was released is the stated one, which no epsilon says;
    None where it was not seen or none is accounted for. ``sensitivity``: how far one row moves a step.
    ``problems``: what the linter finds in the same runs that breaks the guarantee; ``not_linted``: its checks without
    a result.
    """

    claimed_epsilon: float
    delta: float
    confidence: float
    kind: str
    n_canaries: int
    n_included: int
    lower_bound: float
    largest_provable: float
    guesses: tuple[GuessCount, ...]
    accounting_refuted: bool | None
    accounted_epsilon: float | None
    power: tuple[tuple[float, float], ...]
    power_unknown: str
    noise: NoiseAudit | None
    sensitivity: Sensitivity | None
    problems: tuple[str, ...]
    not_linted: tuple[str, ...]
    verdict: Verdict
    reason: str


def default_guesses(n_canaries: int) -> tuple[int, ...]:
    """A tenth, a fifth and all of the canaries: few guesses see weak leaks, all of them prove large epsilons."""
    return tuple(sorted({max(n_canaries // 10, 1), max(n_canaries // 5, 1), n_canaries}))


def n_correct_guesses(canaries: CanaryScores, n_guesses: int, rng: np.random.Generator) -> int:
    """The number of correct guesses among the ``n_guesses`` most extreme scores; ties are broken at random."""
    order = np.lexsort((rng.random(len(canaries)), canaries.scores))
    low = n_guesses // 2
    guessed_in = canaries.included[order[len(order) - (n_guesses - low) :]]
    return int(guessed_in.sum()) + int((~canaries.included[order[:low]]).sum())


def audit_claim(
    canaries: CanaryScores,
    *,
    claimed_epsilon: float,
    delta: float,
    rng: np.random.Generator,
    confidence: float = 0.95,
    guesses: Sequence[int] | None = None,
    accounting: Sequence[Phase] | None = None,
    factors: Sequence[float] = FACTORS,
) -> AuditResult:
    """Test the claim "(claimed_epsilon, delta)-DP" with one run's canaries.

    The lower bound is the largest over the numbers of guesses, each at ``(1 - confidence) / how many``: valid whichever
    wins. For one number, both theorems reject from some count of right guesses on, so that the better of the two is
    one of them and needs no share of its own. ``accounting``: the phases behind the claim; their whole privacy curve
    is a stronger claim than one (epsilon, delta), and is refuted sooner; with an epsilon in the hundreds it is left
    out. Where the released noise was seen, it is tested by itself at 2 % of the error rate, which the guesses do
    without. Verdict ``contradicted`` where any of the three is refuted, one row moves a step by more than the norm,
    gradients are not clipped row by row at some step, or more steps were taken than are accounted for, so that a claim
    that is true is contradicted with at most ``1 - confidence``; ``not_supported`` where the accounting itself gives a
    larger epsilon than is claimed, or none; ``cannot_tell`` where perfect guesses could not have refuted the claim,
    where a gradient was changed after its noise was added, and where half the noise would have been found in less than
    80 of 100 audits, or nobody knows how often; else ``consistent``: not refuted, which proves nothing by itself, so
    that the power is part of the answer. Raises UsageError for impossible arguments.
    Sources: :func:`~auditor.privacy.one_run.one_run_p_value`, :func:`~auditor.privacy.one_run.is_refuted`,
    :func:`~auditor.privacy.released_noise.audit_noise`.
    """
    numbers = tuple(default_guesses(len(canaries)) if guesses is None else guesses)
    _check(claimed_epsilon, delta, confidence, numbers, len(canaries))
    noise = _noise_of(canaries, accounting, confidence)
    alpha = (1.0 - confidence - (noise.alpha if noise else 0.0)) / len(numbers)
    curve = _curve_of(None if accounting is None else tuple(accounting))
    found = tuple(
        _guess_count(len(canaries), r, n_correct_guesses(canaries, r, rng), claimed_epsilon, delta, alpha, curve)
        for r in numbers
    )
    power = _with_noise(
        _power(canaries, accounting, numbers, alpha, claimed_epsilon, delta, curve, factors, rng), noise, factors
    )
    return _result(
        canaries,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        confidence=confidence,
        accounting=accounting,
        kind=canaries.kind,
        lower_bound=max(max(g.lower_bound, g.f_dp_lower_bound) for g in found),
        largest_provable=max(g.largest_provable for g in found),
        guesses=found,
        accounting_refuted=None if curve is None else any(g.refutes_accounting for g in found),
        power=power,
        power_unknown="" if power else _power_unknown(canaries, accounting, factors),
        noise=noise,
    )


@lru_cache(maxsize=256)
def largest_provable(n_canaries: int, *, n_guesses: int, delta: float = 0.0, alpha: float = 0.05) -> float:
    """The largest epsilon provable by perfect guesses in one run; 1,000 of 1,000 at 95 % prove 5.8."""
    return max(
        one_run_lower_bound(n_canaries, n_guesses, n_guesses, delta=delta, alpha=alpha),
        f_dp_lower_bound(n_canaries, n_guesses, n_guesses, delta=delta, alpha=alpha),
    )


def multi_run(
    canaries: CanaryScores,
    *,
    claimed_epsilon: float,
    delta: float,
    confidence: float = 0.95,
    accounting: Sequence[Phase] | None = None,
) -> AuditResult:
    """Test a claim with one canary in each of many independent runs, by Clopper and Pearson.

    The first half of the runs chooses the threshold, the second half is counted; see
    :meth:`~auditor.privacy.one_run.MultiRun.lower_bound`. ``accounting``: the phases behind the claim, whose epsilon
    must support it; verdicts as of :func:`audit_claim`. Raises UsageError for fewer than 8 runs.
    """
    _check(claimed_epsilon, delta, confidence, (1,), len(canaries))
    if len(canaries) < 8:
        raise UsageError(f"A multi-run audit needs at least 8 runs, not {len(canaries)}: train more often.")
    half = len(canaries) // 2
    threshold = _best_threshold(canaries.included[:half], canaries.scores[:half])
    inside, above = canaries.included[half:], canaries.scores[half:] >= threshold
    runs = MultiRun(
        n_with=int(inside.sum()),
        hits=int((inside & above).sum()),
        n_without=int((~inside).sum()),
        false_alarms=int((~inside & above).sum()),
    )
    noise = _noise_of(canaries, accounting, confidence)
    alpha = 1.0 - confidence - (noise.alpha if noise else 0.0)
    power = _with_noise((), noise, FACTORS)
    return _result(
        canaries,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        confidence=confidence,
        accounting=accounting,
        kind=f"{canaries.kind}, multi-run",
        lower_bound=runs.lower_bound(delta=delta, alpha=alpha),
        largest_provable=runs.largest_provable(delta=delta, alpha=alpha),
        guesses=(),
        accounting_refuted=None,
        power=power,
        power_unknown="" if power else "it is simulated for one run of many canaries, and these are many runs of one",
        noise=noise,
    )


def _result(
    canaries: CanaryScores,
    *,
    claimed_epsilon: float,
    delta: float,
    confidence: float,
    accounting: Sequence[Phase] | None,
    kind: str,
    lower_bound: float,
    largest_provable: float,
    guesses: tuple[GuessCount, ...],
    accounting_refuted: bool | None,
    power: tuple[tuple[float, float], ...],
    power_unknown: str,
    noise: NoiseAudit | None,
) -> AuditResult:
    """What the canaries showed beside what the accounting says, and the verdict that follows from the two."""
    accounted = _accounted(None if accounting is None else tuple(accounting), delta)
    problems, not_linted = lint_runs(canaries.runs, accounting, delta)
    verdict, reason = verdict_on(
        Evidence(
            claimed=claimed_epsilon,
            delta=delta,
            confidence=confidence,
            lower=lower_bound,
            most=largest_provable,
            refuted=accounting_refuted,
            unsupported=_unsupported(claimed_epsilon, delta, accounting, accounted),
            n_canaries=len(canaries),
            noise=noise,
            changed=sum(run.changed for run in canaries.noise),
            sensitivity=canaries.sensitivity,
            unclipped=canaries.unclipped,
            clipping_seen=(canaries.clipping_seen, sum(run.steps for run in canaries.noise)),
            uncounted=_uncounted(canaries, accounting),
            problems=tuple(problems.values()),
            not_linted=not_linted if canaries.runs else None,
            thinned=thinned(canaries.sample_rate, accounting),
            unit=canaries.unit,
            half=dict(_with_noise(power, noise, (HALF_NOISE,))).get(HALF_NOISE),
            power_unknown=power_unknown,
        )
    )
    return AuditResult(
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        confidence=confidence,
        kind=kind,
        n_canaries=len(canaries),
        n_included=int(canaries.included.sum()),
        lower_bound=lower_bound,
        largest_provable=largest_provable,
        guesses=guesses,
        accounting_refuted=accounting_refuted,
        accounted_epsilon=accounted,
        power=power,
        power_unknown=power_unknown,
        noise=noise,
        sensitivity=canaries.sensitivity,
        problems=tuple(problems),
        not_linted=not_linted,
        verdict=verdict,
        reason=reason,
    )


@lru_cache(maxsize=4096)
def _guess_count(
    m: int, r: int, v: int, epsilon: float, delta: float, alpha: float, curve: InverseTradeOff | None
) -> GuessCount:
    return GuessCount(
        n_guesses=r,
        n_correct=v,
        alpha=alpha,
        lower_bound=one_run_lower_bound(m, r, v, delta=delta, alpha=alpha),
        f_dp_lower_bound=f_dp_lower_bound(m, r, v, delta=delta, alpha=alpha),
        largest_provable=largest_provable(m, n_guesses=r, delta=delta, alpha=alpha),
        p_value_of_claim=one_run_p_value(m, r, v, epsilon, delta),
        refutes_accounting=None if curve is None else is_refuted(curve, m, r, v, alpha=alpha),
    )


@lru_cache(maxsize=64)
def _curve_of(accounting: tuple[Phase, ...] | None) -> InverseTradeOff | None:
    """The accounting as a claim; None where there is none or its epsilon is too large to be worth one."""
    try:
        return None if accounting is None else inverse_of_curve(privacy_curve(accounting))
    except UsageError:
        return None


@lru_cache(maxsize=64)
def _accounted(accounting: tuple[Phase, ...] | None, delta: float) -> float | None:
    """The smallest upper bound of epsilon that an accountant gives; None where there is none."""
    if accounting is None or delta == 0.0:
        return None
    accountants: tuple[Accountant, ...] = ("rdp", "prv")
    found = [privacy_spent(accounting, delta, accountant).epsilon for accountant in accountants]
    return min((epsilon for epsilon in found if epsilon is not None), default=None)


def _unsupported(
    claimed_epsilon: float, delta: float, accounting: Sequence[Phase] | None, accounted: float | None
) -> str:
    """Why the accounting does not give the claim, in a sentence; "" where it does, or there is none."""
    if accounting is None:
        return ""
    if delta == 0.0:
        return "no accounting supports a claim at delta 0, where Gaussian noise keeps no finite epsilon: state a delta."
    if accounted is None:
        return "no accountant can say what the noise, sample rate and steps spend, so nothing supports the claim."
    if accounted <= claimed_epsilon + max(_ROUNDED, 1e-3 * claimed_epsilon):
        return ""
    return (
        f"its own accounting gives epsilon {accounted:.3g} at delta {delta:g}, above the claim of {claimed_epsilon:g}: "
        f"state "
        "what is accounted, or train with the noise that auditor dp budget asks for."
    )


def _noise_of(canaries: CanaryScores, accounting: Sequence[Phase] | None, confidence: float) -> NoiseAudit | None:
    if accounting is None or not canaries.noise:
        return None
    return audit_noise(canaries.noise, accounting, alpha=_NOISE_SHARE * (1.0 - confidence))


def _with_noise(
    power: tuple[tuple[float, float], ...], noise: NoiseAudit | None, factors: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """The power, which is at least that of the test of the noise's size."""
    if noise is None or not noise.tests:
        return power
    known = dict(power)
    return tuple((float(f), max(known.get(float(f), 0.0), noise.power(f))) for f in factors)


def _uncounted(canaries: CanaryScores, accounting: Sequence[Phase] | None) -> int:
    """Steps of the longest run beyond those that the accounting counts."""
    if accounting is None or not canaries.noise:
        return 0
    return max(max(run.steps for run in canaries.noise) - sum(phase.steps for phase in accounting), 0)


def _power_unknown(canaries: CanaryScores, accounting: Sequence[Phase] | None, factors: Sequence[float]) -> str:
    """Why there is no power, to follow a colon."""
    if canaries.kind != DIRAC:
        return f"it is simulated for {DIRAC}, and these are {canaries.kind}"
    if accounting is None:
        return "it is simulated from the noise, sample rate and steps, which were not given"
    return "no noise factor was asked for" if not factors else "it was not simulated"


def _power(
    canaries: CanaryScores,
    accounting: Sequence[Phase] | None,
    numbers: Sequence[int],
    alpha: float,
    epsilon: float,
    delta: float,
    curve: InverseTradeOff | None,
    factors: Sequence[float],
    rng: np.random.Generator,
    repeats: int = 400,
) -> tuple[tuple[float, float], ...]:
    """Chance of a contradiction with the noise at each factor, for Dirac canaries.

    The rows' gradients blur the scores too: by what the left-out canaries vary beyond the accounted noise and chance.
    """
    if accounting is None or canaries.kind != DIRAC or not factors:
        return ()
    m = len(canaries)
    needed = [smallest_refuting(m, r, epsilon, delta, alpha, curve) for r in numbers]
    noise = sum(phase.steps * phase.noise_multiplier**2 for phase in accounting)
    left_out = canaries.scores[~canaries.included]
    excess = float(left_out.var()) - noise if len(left_out) > 1 else 0.0
    # A variance of n normal scores errs by sqrt(2 / n) of itself: less than thrice that is chance.
    blur = excess if excess > 3.0 * noise * math.sqrt(2.0 / max(len(left_out), 1)) else 0.0
    chances = []
    for factor in factors:
        caught = 0
        for _ in range(repeats):
            coins = rng.random(m) < 0.5
            scores = rng.normal(0.0, math.sqrt(factor**2 * noise + blur), m)
            for phase in accounting:
                scores += np.where(coins, rng.binomial(phase.steps, phase.sample_rate, m), 0)
            seen = CanaryScores(included=coins, scores=scores)
            caught += any(
                least != _NEVER and n_correct_guesses(seen, r, rng) >= least
                for r, least in zip(numbers, needed, strict=True)
            )
        chances.append((float(factor), caught / repeats))
    return tuple(chances)


def smallest_refuting(
    n_canaries: int, n_guesses: int, epsilon: float, delta: float, alpha: float, curve: InverseTradeOff | None = None
) -> int:
    """The least number of right guesses that refutes the claim at ``alpha``; -1 where not even all of them do."""
    claim = inverse_of_epsilon_delta(epsilon, delta)

    def refutes(v: int) -> bool:
        return (
            one_run_p_value(n_canaries, n_guesses, v, epsilon, delta) < alpha
            or is_refuted(claim, n_canaries, n_guesses, v, alpha=alpha)
            or (curve is not None and is_refuted(curve, n_canaries, n_guesses, v, alpha=alpha))
        )

    if not refutes(n_guesses):
        return _NEVER
    low, high = 0, n_guesses
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refutes(middle) else (middle, high)
    return high


def _best_threshold(included: BoolArray, scores: FloatArray) -> float:
    candidates = np.unique(scores)
    gains = [float((scores[included] >= t).sum()) - float((scores[~included] >= t).sum()) for t in candidates]
    return float(candidates[int(np.argmax(gains))])


def _check(epsilon: float, delta: float, confidence: float, numbers: Sequence[int], n_canaries: int) -> None:
    if not (math.isfinite(epsilon) and epsilon >= 0.0):
        raise UsageError(f"The claimed epsilon must be a number of at least 0, not {epsilon:g}.")
    if not 0.0 <= delta < 1.0:
        raise UsageError(f"delta must be at least 0 and below 1, not {delta:g}.")
    if not 0.5 <= confidence < 1.0:
        raise UsageError(f"The confidence must be at least 0.5 and below 1, not {confidence:g}.")
    wrong = [r for r in numbers if not 1 <= r <= n_canaries]
    if wrong or not numbers:
        raise UsageError(f"The number of guesses must lie between 1 and the {n_canaries:,} canaries.")


DIRAC = "gradient Dirac canaries"
FLIPPED = "rows with flipped labels"
WEAK = (
    "Black-box canaries see little: ordinary rows with flipped labels are scored by their loss on the final model, and "
    "at this size even training without any noise mostly goes unnoticed. A consistent verdict of theirs says next to "
    "nothing; use the gradient canaries."
)
