"""What was measured, what was required, and the judgement that follows from the two and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from auditor.finding.criterion import Criterion
from auditor.finding.measurement import Answer, Measurement, Outcome, Pillar, ProbeResult
from auditor.finding.vacuity import no_skill, why_empty
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.families import Multiplicity, adjusted_levels
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.planning import minimum_detectable_effect, n_required
from auditor.statistics.upper_bound import UpperBound


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A measurement held against a criterion. ``interval`` is two one-sided bounds at the level that decided it.

    ``vacuous``: why a PASS of it would say nothing of this model, or "".
    """

    id: str
    probe: str
    pillar: Pillar
    citation: str
    outcome: Outcome
    measurement: Measurement | None = None
    criterion: Criterion | None = None
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    p_fail: float | None = None
    p_pass: float | None = None
    minimum_detectable_effect: float | None = None
    n_required: int | None = None
    reason: str = ""
    vacuous: str = ""

    @property
    def metric(self) -> str | None:
        """Of the measurement, None where there is none."""
        return None if self.measurement is None else self.measurement.metric


@dataclass(frozen=True, kw_only=True)
class Family:
    """The error rate a scan promises: at most ``error_rate`` for any false FAIL, and for any false PASS, over ``m``."""

    error_rate: float = 0.05
    multiplicity: Multiplicity = "bonferroni"
    m: int = 0


def _tests(measurement: Measurement, criterion: Criterion) -> tuple[float, float]:
    """p-values of "beyond the bound" (FAIL) and "within the bound" (PASS); ``within`` halves the level on each side.

    What may not be judged takes its share of the error rate and never uses it: 1 and 1.
    """
    estimate = measurement.estimate
    if measurement.too_few or isinstance(estimate, Undefined):
        return 1.0, 1.0
    if isinstance(criterion.bound, tuple):
        low, high = criterion.bound
        beyond = min(estimate.p_value(high, "greater"), estimate.p_value(low, "less"))
        inside = max(estimate.p_value(high, "at_most"), estimate.p_value(low, "at_least"))
    elif criterion.direction == "at_most":
        beyond, inside = (estimate.p_value(criterion.bound, side) for side in ("greater", "at_most"))
    else:
        beyond, inside = (estimate.p_value(criterion.bound, side) for side in ("less", "at_least"))
    sides = 2.0 if isinstance(criterion.bound, tuple) else 1.0
    # A value that does not exist is within nothing, however wide the bound; that the groups that do have rows lie
    # beyond it may still be shown.
    return min(1.0, sides * beyond), 1.0 if math.isnan(estimate.value) else min(1.0, sides * inside)


def empty_requirement(estimate: AnyEstimate, criterion: Criterion) -> str:
    """Why no value that the estimate can take would fail the criterion, or none would meet it; "" for a real one."""
    low, high = estimate.limits
    floor, ceiling = criterion.required
    within = f"this number lies within [{_number(low)}, {_number(high)}] whatever the model does"
    if floor <= low and high <= ceiling:
        return f"The requirement ({criterion.describe()}) could never fail: {within}. Set a bound inside that range."
    if ceiling < low or high < floor:
        return f"The requirement ({criterion.describe()}) could never be met: {within}. Set a bound inside that range."
    return ""


def _tail(criterion: Criterion, level: float) -> float:
    return level / 2.0 if isinstance(criterion.bound, tuple) else level


def _decide(interval: tuple[float, float], criterion: Criterion) -> Outcome:
    low, high = interval
    floor, ceiling = criterion.required
    if low > ceiling or high < floor:
        return Outcome.FAIL
    return Outcome.PASS if floor <= low and high <= ceiling else Outcome.INCONCLUSIVE


def _bounds_to_plan_for(criterion: Criterion, ideal: float) -> tuple[float, int]:
    """The bound nearest to the ideal value and the sign of "beyond" there."""
    if isinstance(criterion.bound, tuple):
        low, high = criterion.bound
        return (high, 1) if abs(high - ideal) <= abs(low - ideal) else (low, -1)
    return criterion.bound, 1 if criterion.direction == "at_most" else -1


def _number(x: float) -> str:
    # Prices and the like: three digits would be an exponent.
    return f"{float(f'{x:.3g}'):,.0f}" if 1e3 <= abs(x) < 1e9 else f"{x:.3g}"


def _judged(result: ProbeResult, measurement: Measurement, criterion: Criterion, fail: float, ok: float) -> Judgement:
    p_fail, p_pass = _tests(measurement, criterion)
    estimate = measurement.estimate
    judgeable = not (measurement.too_few or isinstance(estimate, Undefined))
    at_fail, at_pass = estimate.bounds(_tail(criterion, fail)), estimate.bounds(_tail(criterion, ok))
    # Under Holm the two tests may stand at different levels; the stricter one shows neither, so its interval says so.
    outcome, level = Outcome.INCONCLUSIVE, min(fail, ok)
    if judgeable and _decide(at_fail, criterion) is Outcome.FAIL:
        outcome, level = Outcome.FAIL, fail
    elif judgeable and not math.isnan(estimate.value) and _decide(at_pass, criterion) is Outcome.PASS:
        outcome, level = Outcome.PASS, ok
    interval = at_fail if level == fail else at_pass
    effect, needed, reason = None, None, ""
    if isinstance(estimate, Undefined) and (estimate.failed or estimate.inapplicable):
        outcome, reason = Outcome.NOT_RUN if estimate.failed else Outcome.NOT_APPLICABLE, estimate.reason
    elif measurement.too_few:
        needed, reason = measurement.n_needed, measurement.too_few
    elif not math.isnan(estimate.value) and (empty := empty_requirement(estimate, criterion)):
        outcome, reason = Outcome.NOT_RUN, empty
    elif outcome is Outcome.INCONCLUSIVE:
        effect, needed, reason = _what_it_would_take(measurement, criterion, level, interval)
    else:
        where = "outside" if outcome is Outcome.FAIL else "inside"
        reason = (
            f"The whole interval [{_number(interval[0])}, {_number(interval[1])}] lies {where} what is required "
            f"({criterion.describe()})."
        )
    return Judgement(
        id="",
        probe=result.probe,
        pillar=result.pillar,
        citation=result.citation,
        outcome=outcome,
        measurement=measurement,
        criterion=criterion,
        interval=interval,
        confidence=1.0 - 2.0 * _tail(criterion, level),
        p_fail=p_fail if judgeable else None,
        p_pass=p_pass if judgeable else None,
        minimum_detectable_effect=effect,
        n_required=needed,
        reason=reason,
    )


def _what_it_would_take(
    measurement: Measurement, criterion: Criterion, level: float, interval: tuple[float, float]
) -> tuple[float | None, int | None, str]:
    estimate = measurement.estimate
    if math.isnan(estimate.value):
        detail = getattr(estimate, "reason", "") or measurement.detail
        return None, None, f"Undefined for these data: {detail or 'a rate has no rows to be taken over (0/0)'}."
    ideal = measurement.ideal
    if ideal is None:
        return None, None, f"The interval holds the bound ({criterion.describe()})."
    spans = f"The interval [{_number(interval[0])}, {_number(interval[1])}] spans the bound ({criterion.describe()})."
    if _decide((ideal, ideal), criterion) is Outcome.FAIL:
        return None, None, f"{spans} The ideal value itself, {_number(ideal)}, does not meet this requirement."
    bound, sign = _bounds_to_plan_for(criterion, ideal)
    tail = _tail(criterion, level)
    effect = minimum_detectable_effect(estimate, bound=bound, alpha=tail, ideal=ideal, sign=sign)
    needed = n_required(
        estimate,
        bound=bound,
        alpha=tail,
        ideal=ideal,
        n=measurement.n_samples,
        sides=2 if isinstance(criterion.bound, tuple) else 1,
    )
    needed = measurement.n_needed if needed is None else needed
    unknown = math.isnan(effect)
    in_unit_range = ideal in (0.0, 1.0) and not estimate.unbounded
    beyond_reach = not math.isfinite(effect) or (in_unit_range and not 0.0 <= effect <= 1.0)
    reason = spans
    if not beyond_reach:
        word = "above" if sign > 0 else "below"
        reason += f" At this size only a value {word} {_number(effect)} would be found beyond it with 80 % power."
    elif not unknown:
        reason += " At this size no value would be found beyond it with 80 % power."
    elif needed is None:
        reason += f" {estimate.unplanned}"
    if needed is not None and needed > measurement.n_samples:
        reason += (
            f" About {needed:,} rows like these would let a model at the ideal value PASS four times in five, for this "
            "question alone."
        )
    elif needed is not None:
        reason += " The size would do for a model at the ideal value: this one lies too near the bound to tell."
    return None if beyond_reach else effect, needed, reason


def _not_measured(result: ProbeResult, outcome: Outcome, reason: str) -> Judgement:
    return Judgement(
        id="", probe=result.probe, pillar=result.pillar, citation=result.citation, outcome=outcome, reason=reason
    )


def judge(
    results: Sequence[ProbeResult], criteria: Sequence[Criterion], family: Family | None = None
) -> tuple[list[Judgement], Family]:
    """Hold every measurement against its criteria with one promise for the whole scan.

    Over the m judgements, the probability of any false FAIL is at most ``error_rate``, and so is that of any false PASS
    (``bonferroni``, ``holm``); m counts pairs of measurement and criterion and is fixed by which numbers exist, never
    by their values. Each judgement is two one-sided tests: FAIL where the value is shown to lie beyond the bound, PASS
    where it is shown to lie within it, else INCONCLUSIVE. The printed interval is built of the two one-sided bounds at
    the level that decided, so interval and outcome agree. A PASS that a model earns by telling no rows apart is
    INCONCLUSIVE (:mod:`auditor.finding.vacuity`). Returns the findings and the family with its m.
    """
    family = family or Family()
    pairs = [
        (result, measurement, criterion)
        for result in results
        for measurement in result.measurements
        for criterion in criteria
        if criterion.applies_to(result.probe, measurement)
    ]
    sampled = [pair for pair in pairs if not _takes_no_share(pair[1].estimate, pair[2])]
    tests = [_tests(measurement, criterion) for _, measurement, criterion in sampled]
    fail = adjusted_levels([t[0] for t in tests], family.error_rate, family.multiplicity)
    ok = adjusted_levels([t[1] for t in tests], family.error_rate, family.multiplicity)
    levels = {(id(pair[1]), id(pair[2])): (fail[i], ok[i]) for i, pair in enumerate(sampled)}
    certain = (family.error_rate, family.error_rate)
    judged = {
        key: _judged(result, measurement, criterion, *levels.get(key, certain))
        for result, measurement, criterion in pairs
        for key in [(id(measurement), id(criterion))]
    }
    display_level = family.error_rate / max(len(sampled), 1) if family.multiplicity != "none" else family.error_rate
    findings: list[Judgement] = []
    for result in results:
        if result.not_applicable:
            findings.append(_not_measured(result, Outcome.NOT_APPLICABLE, result.not_applicable))
        for measurement in result.measurements:
            own = [judged[key] for c in criteria if (key := (id(measurement), id(c))) in judged]
            findings.extend(own or [_unjudged(result, measurement, display_level)])
        if result.not_run:
            findings.append(_not_measured(result, Outcome.NOT_RUN, result.not_run))
        elif not result.not_applicable and not result.measurements:
            findings.append(_not_measured(result, Outcome.NOT_RUN, "The probe ended without a measurement."))
    ran = {result.probe for result in results if result.measurements}
    findings.extend(_never_measured(criteria, {id(criterion) for _, _, criterion in pairs}, ran))
    return _with_ids(_without_empty_passes(findings, results)), replace(family, m=len(sampled))


def _without_empty_passes(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Judgement]:
    """The findings, each saying why a PASS of it would say nothing; one that is a PASS is INCONCLUSIVE for that."""
    alike = {result.probe: result.alike for result in results}
    shown = [(f.measurement, f.interval) for f in findings if f.measurement and f.interval]
    answers: tuple[Answer, ...] = ("decisions", "scores")
    unskilled = {answer: no_skill(shown, answer) for answer in answers}
    said = []
    for finding in findings:
        m = finding.measurement
        why = "" if m is None else why_empty(m, alike.get(finding.probe, ()), unskilled)
        if why and finding.outcome is Outcome.PASS:
            finding = replace(finding, outcome=Outcome.INCONCLUSIVE, reason=why)
        said.append(replace(finding, vacuous=why) if why else finding)
    return said


def _takes_no_share(estimate: AnyEstimate, criterion: Criterion) -> bool:
    """Whether it cannot be judged wrongly: known without sampling error, not applicable, or held to nothing."""
    if isinstance(estimate, Undefined):
        return estimate.inapplicable
    return isinstance(estimate, Exact | UpperBound) or bool(empty_requirement(estimate, criterion))


def _unjudged(result: ProbeResult, measurement: Measurement, level: float) -> Judgement:
    estimate = measurement.estimate
    outcome, reason = Outcome.NOT_JUDGED, ""
    if isinstance(estimate, Undefined):
        # What could not be measured is said aloud, and a model that failed is no matter of rows.
        group = Outcome.NOT_JUDGED if measurement.group else Outcome.INCONCLUSIVE
        outcome = Outcome.NOT_RUN if estimate.failed else Outcome.NOT_APPLICABLE if estimate.inapplicable else group
        own_words = estimate.failed or estimate.inapplicable
        reason = estimate.reason if own_words else f"Undefined for these data: {estimate.reason}"
    elif math.isnan(estimate.value):
        # A faultless model's ratios of error rates are 0/0, and nobody asked about them.
        reason = "Undefined for these data: no rows (0/0)"
    return Judgement(
        id="",
        probe=result.probe,
        pillar=result.pillar,
        citation=result.citation,
        outcome=outcome,
        measurement=measurement,
        interval=estimate.bounds(level),
        confidence=1.0 - 2.0 * level,
        reason=measurement.too_few or reason,
        n_required=measurement.n_needed,
    )


def _never_measured(criteria: Iterable[Criterion], used: set[int], ran: set[str]) -> list[Judgement]:
    """A criterion somebody set and nobody measured is no pass; the built-in profile covers more than one scan can."""
    found = []
    for criterion in criteria:
        if id(criterion) in used:
            continue
        if not criterion.built_in:
            outcome = Outcome.NOT_RUN
            reason = f"No probe of this scan measured {criterion.metric!r}, which must be {criterion.describe()}."
        elif criterion.needs and criterion.probe in ran:
            outcome = Outcome.NOT_APPLICABLE
            reason = f"{criterion.metric} was not measured: it needs {criterion.needs}."
        else:
            continue
        found.append(
            Judgement(
                id="",
                probe=criterion.probe or "criteria",
                pillar="intake",
                citation="",
                outcome=outcome,
                criterion=criterion,
                reason=reason,
            )
        )
    return found


def _with_ids(findings: Sequence[Judgement]) -> list[Judgement]:
    taken: set[str] = set()
    named: list[Judgement] = []
    for finding in findings:
        m = finding.measurement
        parts = [finding.probe]
        if m is not None:
            parts += [m.method, m.metric, "+".join(m.sensitive)]
            parts += [f"{k}={v}" for k, v in m.group.items()] + [f"{k}={v}" for k, v in m.at.items()]
        elif finding.criterion is not None:
            parts += ["criterion", finding.criterion.metric]
        base = "/".join(p for p in parts if p)
        name, copy = base, 1
        while name in taken:
            copy += 1
            name = f"{base}#{copy}"
        taken.add(name)
        named.append(replace(finding, id=name))
    return named
