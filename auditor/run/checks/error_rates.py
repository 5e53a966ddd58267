"""Statistical contract tests for a probe: coverage of its uncertainty, error rates, and power."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import SENSE, Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.run.probe import Need, Probe, known_exactly, looks_at_rows, of_design, with_declared
from auditor.run.run_audit import ask, generator_for
from auditor.statistics.estimate import POWER, Exact, Undefined

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


# A maker of worlds: a model and rows drawn anew, of which something is known by construction.
World = Callable[[np.random.Generator], "tuple[AuditedModel, AuditData]"]


class ContractViolation(AssertionError):
    """A violation of the contract by a probe or a mitigation: ``law`` names the rule, ``seen`` the behaviour."""

    def __init__(self, law: str, observation: str) -> None:
        self.law = law
        self.seen = observation
        super().__init__(f"{law} Seen: {observation}")


def audited(
    probe: Probe, model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], seed: int
) -> list[Judgement]:
    """One probe's findings; criteria without a measurement are left to the caller."""
    return findings_of(ask(probe, model, data, generator_for(seed, probe.name)), criteria)


def findings_of(probe_result: ProbeResult, criteria: Sequence[Criterion]) -> list[Judgement]:
    """The judgements of one probe's result."""
    result = replace(probe_result, measurements=_of_known_sense(probe_result.measurements))
    return [f for f in judge([result], criteria)[0] if f.measurement is not None or f.criterion is None]


def as_judged(probe: Probe, measurements: Sequence[Measurement], data: AuditData) -> tuple[Measurement, ...]:
    """The result of ``measure`` on some rows, in the form of findings."""
    declared = with_declared(probe, measurements)
    return _of_known_sense(of_design(declared, data.design) if looks_at_rows(probe) else declared)


def _of_known_sense(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Whether the model has sense is no matter of one probe: the caller says what model it is."""
    return tuple(replace(m, ideal_when_same="scores") if m.rests_on == SENSE else m for m in measurements)


def held_to(probe_result: ProbeResult, criteria: Sequence[Criterion]) -> ProbeResult:
    """The result restricted to measurements with a criterion or more than an interval; all if none has."""
    kept = [
        m
        for m in probe_result.measurements
        # Whether skill was shown decides what the others' PASSes say.
        if m.chance is not None or any(c.applies_to(probe_result.probe, m) for c in criteria)
    ]
    return replace(probe_result, measurements=tuple(kept)) if kept else probe_result


def rows_of(data: AuditData) -> dict[str, Any]:
    """All parts of the rows that a measurement could change, in a form that compares by value."""
    parts = {"X": data.X, "y_true": data.y_true, "the true numbers": data.target_values, "is_member": data.is_member,
             "the sensitive features": data.sensitive_features}  # fmt: skip
    return {name: None if part is None else pickle.dumps(part) for name, part in parts.items()}


def state_of(model: AuditedModel) -> dict[str, Any]:
    """All parts of a model that a measurement could change, in a form that compares by value."""
    module = getattr(model, "module", None)
    state: dict[str, Any] = {"threshold": model.threshold, "classes": model.classes}
    if module is None:
        return state
    for name, tensor in module.state_dict().items():
        state[f"the tensor {name!r}"] = tensor.detach().cpu().numpy().tobytes()
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        state[f"the gradient of {name!r}"] = None if gradient is None else gradient.cpu().numpy().tobytes()
        state[f"requires_grad of {name!r}"] = parameter.requires_grad
    for name, part in module.named_modules():
        state[f"the training flag of {name or 'the module'!r}"] = part.training
        hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
        state[f"the hooks of {name or 'the module'!r}"] = [len(h) for h in hooks]
    return state


def generators() -> dict[str, Any]:
    """The states of the global random number generators."""
    import torch

    legacy = np.random.get_state(legacy=False)
    states = {"python's random": random.getstate(), "numpy's legacy generator": repr(legacy)}
    return states | {"torch's generator": torch.get_rng_state().numpy().tobytes()}


def words(findings: Sequence[Judgement]) -> str:
    """The first few findings, for a message."""
    return "; ".join(
        f"{f.id}: {f.outcome}"
        + (f" at {f.measurement.estimate.value:.4g} {f.interval}" if f.measurement is not None else "")
        + (f" ({f.reason})" if f.reason else "")
        for f in findings[:5]
    )


ERROR_RATE = Family().error_rate
# A probe that keeps its promise breaks the law by chance once in a thousand checks.
_CHANCE = 1e-3
_LEVELS = (0.25, 0.025, 0.0025)
_SHOWN = 0.025
_RESAMPLES = 5
_SMALLEST = 10
# Sizes of the random subsets, as shares of the rows; and of those that power is asked of.
_SHARES = (1 / 2, 1 / 8, 1 / 32)
_MOST_ROWS = 0.8

_Of = tuple[object, ...]


def check_uncertainty(
    probe: Probe, model: AuditedModel, data: AuditData, findings: Sequence[Judgement], seed: int
) -> None:
    """Intervals are nested; only ``exact`` numbers, or those no other rows would change, have zero width.

    Rows are resampled with replacement a few times, each with a generator of its own: a number that moves with the
    rows, or with the draws, has an error that its interval must show. ``findings``: the probe's on these rows.
    """
    declared, certain = known_exactly(probe), {}
    for finding in findings:
        measured = finding.measurement
        if measured is None:
            continue
        if finding.criterion is not None:
            _check_nested(measured)
        if _has_no_width(finding) and measured.metric not in declared:
            certain[_measurement_key(measured)] = measured
    if not certain:
        return
    law = "A number that other rows would change has an interval with a width, or is declared in `exact`."
    if Need.DATA not in type(probe).needs and not len(data):
        # There are no rows to draw anew, and equal values may well have an interval of no width.
        for some in (m for m in certain.values() if m.n_samples and isinstance(m.estimate, Exact)):
            raise ContractViolation(law, f"{_measurement_text(some)} with no width over {some.n_samples:,} samples")
        return
    for i in range(_RESAMPLES if len(data) else 0):
        rows = data.take(np.random.default_rng([seed, i]).integers(0, len(data), len(data)))
        for other in ask(probe, model, rows, generator_for(seed + i + 1, probe.name)).measurements:
            first = certain.get(_measurement_key(other))
            if first is None or not math.isfinite(other.estimate.value):
                continue
            # What single precision rounds away is no other number.
            if not math.isclose(first.estimate.value, other.estimate.value, rel_tol=1e-6, abs_tol=1e-7):
                again = f"{other.estimate.value:.6g} on as many rows drawn from the same"
                raise ContractViolation(law, f"{_measurement_text(first)} with no width, and {again}")


def check_error_rates(
    probe: Probe,
    ideal: tuple[AuditedModel, AuditData],
    violating: tuple[AuditedModel, AuditData],
    criteria: Sequence[Criterion],
    both_findings: tuple[Sequence[Judgement], Sequence[Judgement]],
    *,
    null: World | None,
    at_bound: World | None,
    power: World | None,
    worlds: int,
    seed: int,
) -> None:
    """In many simulated worlds: few false alarms, few false PASSes, and sufficient power.

    ``both_findings``: the findings on all rows, ideal and violating. Without a maker the worlds are random subsets of
    the rows given, whose truth is known from all of them; a probe that brings its own rows is asked in made worlds
    only.
    """
    rowed = Need.DATA in type(probe).needs

    def judge_worlds(world: World) -> list[list[Judgement]]:
        return [_judge_world(probe, world, criteria, seed, i) for i in range(worlds)]

    if null is not None:
        _at_most(judge_worlds(null), _is(Outcome.FAIL), "FAILs where nothing is wrong")
    elif rowed:
        kept = judge_worlds(_subset(ideal))
        _at_most(kept, _is(Outcome.FAIL), "FAILs where nothing is wrong")
        _check_coverage(both_findings[0], kept)
        _check_shrinks(both_findings[0], kept)
    if at_bound is not None:
        kept = judge_worlds(at_bound)
        _at_most(kept, _is(Outcome.FAIL), "FAILs with the truth at the bound")
        _at_most(kept, _is(Outcome.PASS), "PASSes with the truth at the bound")
    if power is not None:
        _check_power(judge_worlds(power))
    elif rowed:
        failed = {_key(f) for f in both_findings[1] if f.outcome is Outcome.FAIL}
        kept = judge_worlds(_subset(violating))
        _at_most(kept, lambda f: f.outcome is Outcome.PASS and _key(f) in failed, "PASSes of what FAILs on all rows")
        _check_coverage(both_findings[1], kept)
        _check_power(judge_worlds(_subset(violating, shares=(_MOST_ROWS,))))


def most_errors(worlds: int) -> int:
    """Most worlds that may have an error at a promised rate of 5 %: the limit of a 0.1 % test."""
    from scipy.stats import binom

    return int(binom.isf(_CHANCE, worlds, ERROR_RATE)) if worlds else 0


def least_found(worlds: int) -> int:
    """Fewest worlds with a detected violation at a promised power of 80 %: the limit of a 0.1 % test."""
    from scipy.stats import binom

    return int(binom.ppf(_CHANCE, worlds, POWER)) if worlds else 0


# ---- worlds --------------------------------------------------------------------------------------------------------


def _subset(model_and_data: tuple[AuditedModel, AuditData], shares: Sequence[float] = _SHARES) -> World:
    """Random subsets of rows, without replacement, so that no row is there twice; of each size in turn."""
    model, data = model_and_data
    turn = iter(range(10**9))

    def draw(rng: np.random.Generator) -> tuple[AuditedModel, AuditData]:
        n = min(len(data), max(_SMALLEST, round(len(data) * shares[next(turn) % len(shares)])))
        return model, data.take(np.sort(rng.permutation(len(data))[:n]))

    return draw


def _judge_world(probe: Probe, world: World, criteria: Sequence[Criterion], seed: int, i: int) -> list[Judgement]:
    model, data = world(np.random.default_rng([seed, 1, i]))
    answer = ask(probe, model, data, generator_for(seed + i, probe.name))
    findings = findings_of(held_to(answer, criteria), criteria)
    broken = [f for f in findings if f.outcome is Outcome.NOT_RUN and f.criterion is None and f.measurement is None]
    if broken:
        raise ContractViolation(f"A probe survives a world of {len(data):,} rows.", words(broken))
    return findings


def _is(outcome: Outcome) -> Callable[[Judgement], bool]:
    return lambda finding: finding.outcome is outcome and finding.criterion is not None


def _at_most(
    findings_by_world: Sequence[list[Judgement]], wrong: Callable[[Judgement], bool], description: str
) -> None:
    found = [[f for f in findings if wrong(f)] for findings in findings_by_world]
    n, limit = sum(map(bool, found)), most_errors(len(findings_by_world))
    if n > limit:
        first = next(filter(None, found))
        raise ContractViolation(
            f"A judgement is wrong in {ERROR_RATE:.0%} of the worlds at most.",
            f"{description} in {n} of {len(findings_by_world)} worlds, where chance explains {limit}; the first: "
            f"{words(first)}",
        )


def _check_power(findings_by_world: Sequence[list[Judgement]]) -> None:
    n, least = (
        sum(any(map(_is(Outcome.FAIL), findings)) for findings in findings_by_world),
        least_found(len(findings_by_world)),
    )
    if n < least:
        last = words([f for f in findings_by_world[-1] if f.criterion is not None])
        raise ContractViolation(
            f"A violation is found in {POWER:.0%} of the worlds that have it.",
            f"a FAIL in {n} of {len(findings_by_world)}, where chance explains {least} and more; in the last one "
            f"{last}",
        )


# ---- intervals -----------------------------------------------------------------------------------------------------


def _check_nested(measurement: Measurement) -> None:
    estimate = measurement.estimate
    law = "Bounds are numbers, the lower below the upper, and widen as they are to miss less often."
    before: tuple[float, float] | None = None
    for alpha in _LEVELS:
        low, high = estimate.bounds(alpha)
        slack = 1e-9 * max(1.0, abs(low) if math.isfinite(low) else 0.0, abs(high) if math.isfinite(high) else 0.0)
        inside = before is None or (low <= before[0] + slack and before[1] <= high + slack)
        if math.isnan(low) or math.isnan(high) or low > high + slack or not inside:
            seen = f"[{low:.6g}, {high:.6g}] at {alpha:g}"
            raise ContractViolation(
                law, f"{_measurement_text(measurement)}: {seen}" + (f" after {before}" if before else "")
            )
        before = low, high


def _check_coverage(whole: Sequence[Judgement], findings_by_world: Sequence[list[Judgement]]) -> None:
    """The intervals over some of the rows hold the value over all of them, as often as they promise on either side."""
    for finding in whole:
        if finding.measurement is None or finding.criterion is None:
            continue
        truth = finding.measurement.estimate.value
        again = [
            f for findings in findings_by_world for f in findings if _key(f) == _key(finding) and f.interval is not None
        ]
        below = sum(f.interval[1] < truth for f in again if f.interval is not None)
        above = sum(f.interval[0] > truth for f in again if f.interval is not None)
        if max(below, above) > (limit := most_errors(len(again))):
            side = "below" if below > above else "above"
            raise ContractViolation(
                "An interval holds the truth as often as it promises.",
                f"{_measurement_text(finding.measurement)} over all rows; the intervals of {max(below, above)} of "
                f"{len(again)} "
                f"random subsets lie {side} it, where chance explains {limit}",
            )


def _check_shrinks(whole: Sequence[Judgement], findings_by_world: Sequence[list[Judgement]]) -> None:
    """An interval over all rows is narrower than over a few of them."""
    small: dict[_Of, list[float]] = {}
    for findings in findings_by_world:
        for finding in findings:
            if finding.measurement is not None and finding.criterion is not None:
                small.setdefault((*_key(finding), finding.measurement.n_samples), []).append(
                    _width(finding.measurement)
                )
    for finding in whole:
        measurement = finding.measurement
        if measurement is None or finding.criterion is None or not 0.0 < (width := _width(measurement)) < math.inf:
            continue
        few = [
            w
            for (*key, n), own in small.items()
            for w in own
            if tuple(key) == _key(finding) and isinstance(n, int) and 0 < 4 * n <= measurement.n_samples
        ]
        if few and float(np.median(few)) <= width < _span(measurement):
            raise ContractViolation(
                "An interval shrinks as rows come in.",
                f"{_measurement_text(measurement)}: a width of {width:.4g} over {measurement.n_samples:,} samples, and "
                f"of "
                f"{float(np.median(few)):.4g} over a quarter of them or fewer",
            )


def _span(measurement: Measurement) -> float:
    low, high = measurement.estimate.limits
    return high - low


def _width(measurement: Measurement) -> float:
    """The width of an interval at 95 %; NaN where there is no number."""
    if isinstance(measurement.estimate, Undefined) or math.isnan(measurement.estimate.value):
        return math.nan
    low, high = measurement.estimate.bounds(_SHOWN)
    return high - low


def _has_no_width(finding: Judgement) -> bool:
    """Whether the interval of a finding, at whatever level it has, is one number but for rounding."""
    if finding.interval is None or finding.measurement is None or math.isnan(finding.measurement.estimate.value):
        return False
    return math.isclose(*finding.interval, rel_tol=1e-12, abs_tol=0.0)


def _measurement_key(measurement: Measurement) -> _Of:
    def pairs(mapping: Mapping[str, str | float]) -> _Of:
        return tuple(sorted((name, str(value)) for name, value in mapping.items()))

    return (
        measurement.metric,
        measurement.method,
        measurement.sensitive,
        pairs(measurement.group),
        pairs(measurement.at),
    )


def _key(finding: Judgement) -> _Of:
    if finding.measurement is None:
        return ()
    criterion = finding.criterion
    return (*_measurement_key(finding.measurement), None if criterion is None else criterion.describe())


def _measurement_text(measurement: Measurement) -> str:
    where = {**measurement.group, **measurement.at}
    said = f" ({', '.join(f'{k}={v}' for k, v in where.items())})" if where else ""
    return f"{measurement.metric}{said} = {measurement.estimate.value:.6g}"
