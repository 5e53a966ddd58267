"""Judging: a judgement from a measurement and a requirement, and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import get_args

from auditor.judging.budgets import (
    CONJUNCTION,
    DEFAULT_RATE,
    Family,
    Levels,
    Pair,
    budget_of,
    can_pass,
    is_loose,
    levels_of,
    rate_of,
)
from auditor.judging.criterion import NO_BUDGET, Criterion
from auditor.judging.judgement import Judgement, apply_implications, no_skill, why_empty
from auditor.judging.measurement import Answer, Measurement, Outcome, ProbeResult, why_doubtful
from auditor.judging.planted import held_to_plants
from auditor.statistics.estimate import Exact, Undefined, UpperBound, minimum_detectable_effect, n_required
from auditor.statistics.estimate_kinds import AnyEstimate, unjudgeable


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
    """The reason why the criterion is always met or never met by the estimate; "" for a real requirement."""
    low, high = estimate.limits
    floor, ceiling = criterion.required
    within = f"this number lies within [{_number(low)}, {_number(high)}] whatever the model does"
    if floor <= low and high <= ceiling:
        return f"The requirement ({criterion.describe()}) could never fail: {within}. Set a bound inside that range."
    if ceiling < low or high < floor:
        return f"The requirement ({criterion.describe()}) could never be met: {within}. Set a bound inside that range."
    return ""


def tail_of(criterion: Criterion, level: float) -> float:
    return level / 2.0 if isinstance(criterion.bound, tuple) else level


def _ends(estimate: AnyEstimate, criterion: Criterion, levels: Levels, outcome: Outcome) -> tuple[float, float, float]:
    """The interval that is printed, and its confidence: each end at the level of the test that it is the end of."""
    if isinstance(criterion.bound, tuple):
        level = {Outcome.FAIL: levels.fail, Outcome.PASS: levels.passed}.get(outcome, min(levels.fail, levels.passed))
        return *estimate.bounds(0.5 * level), 1.0 - level
    low, high = levels.fail, levels.passed
    if criterion.direction == "at_least":
        low, high = high, low
    return estimate.lower(low), estimate.upper(high), 1.0 - low - high


def decide(interval: tuple[float, float], criterion: Criterion) -> Outcome:
    low, high = interval
    floor, ceiling = criterion.required
    if low > ceiling or high < floor:
        return Outcome.FAIL
    return Outcome.PASS if floor <= low and high <= ceiling else Outcome.INCONCLUSIVE


def bound_to_plan_for(criterion: Criterion, ideal: float) -> tuple[float, int]:
    """The bound nearest to the ideal value and the sign of "beyond" there."""
    if isinstance(criterion.bound, tuple):
        low, high = criterion.bound
        return (high, 1) if abs(high - ideal) <= abs(low - ideal) else (low, -1)
    return criterion.bound, 1 if criterion.direction == "at_most" else -1


def _number(x: float) -> str:
    # Prices and the like: three digits would be an exponent.
    return f"{float(f'{x:.3g}'):,.0f}" if 1e3 <= abs(x) < 1e9 else f"{x:.3g}"


def may_be_judged(measurement: Measurement) -> bool:
    estimate = measurement.estimate
    return not (measurement.too_few or isinstance(estimate, Undefined) or unjudgeable(estimate))


def _test_outcomes(pair: Pair, levels: Levels, tests: tuple[float, float]) -> tuple[Outcome, Outcome | None]:
    """What the tests show at their levels, and what they would show if no other question were in the budget."""
    _, measurement, criterion = pair
    estimate, (p_fail, p_pass) = measurement.estimate, tests
    if not may_be_judged(measurement):
        return Outcome.INCONCLUSIVE, None
    if decide(estimate.bounds(tail_of(criterion, levels.fail)), criterion) is Outcome.FAIL:
        return Outcome.FAIL, None
    within = (
        not math.isnan(estimate.value)
        and decide(estimate.bounds(tail_of(criterion, levels.passed)), criterion) is Outcome.PASS
    )
    if within and (levels.methods == 1 or levels.p_pass <= levels.passed * (1.0 + 1e-6)):
        return Outcome.PASS, None
    # Neither a smaller rate nor a second side that nobody came near is a reason to look away.
    sides = 2.0 if isinstance(criterion.bound, tuple) else 1.0
    if p_fail / sides <= max(levels.rate, DEFAULT_RATE):
        return Outcome.INCONCLUSIVE, Outcome.FAIL
    return Outcome.INCONCLUSIVE, Outcome.PASS if p_pass <= levels.rate else None


def _judge_pair(pair: Pair, levels: Levels, tests: tuple[float, float], *, in_budget: bool) -> Judgement:
    """``in_budget``: whether it is judged in a budget at all."""
    result, measurement, criterion = pair
    estimate, (p_fail, p_pass) = measurement.estimate, tests
    judgeable, why_not = may_be_judged(measurement), unjudgeable(estimate)
    outcome, alone = _test_outcomes(pair, levels, tests)
    low, high, confidence = _ends(estimate, criterion, levels, outcome)
    interval = low, high
    effect, needed, reason = None, None, ""
    if isinstance(estimate, Undefined) and (estimate.failed or estimate.inapplicable):
        outcome, reason = Outcome.NOT_RUN if estimate.failed else Outcome.NOT_APPLICABLE, estimate.reason
    elif why_not:
        # What the probe says of it names the number to judge instead.
        outcome, alone = Outcome.NOT_RUN, None
        reason = " ".join(filter(None, (why_not, measurement.too_few)))
    elif measurement.too_few:
        needed, reason = measurement.n_needed, measurement.too_few
    elif not math.isnan(estimate.value) and (empty := empty_requirement(estimate, criterion)):
        outcome, alone, reason = Outcome.NOT_RUN, None, empty
    elif outcome is Outcome.INCONCLUSIVE and criterion.built_in and not can_pass(estimate, criterion):
        outcome, alone, judgeable = Outcome.NOT_JUDGED, None, False
        reason = f"Nothing was shown to be wrong. {estimate.unplanned}"
    elif outcome is Outcome.INCONCLUSIVE and decide(interval, criterion) is Outcome.PASS:
        reason = f"Its own interval [{_number(low)}, {_number(high)}] lies inside ({criterion.describe()})."
    elif outcome is Outcome.INCONCLUSIVE:
        effect, needed, reason = _what_it_would_take(measurement, criterion, levels, interval)
    else:
        where = "outside" if outcome is Outcome.FAIL else "inside"
        reason = (
            f"The whole interval [{_number(low)}, {_number(high)}] lies {where} what is required "
            f"({criterion.describe()})."
        )
    sampled = judgeable and in_budget
    powerless = _powerless(measurement, criterion, levels, needed) if outcome is Outcome.INCONCLUSIVE else ""
    return Judgement(
        id="",
        probe=result.probe,
        pillar=result.pillar,
        citation=result.citation,
        outcome=outcome,
        measurement=measurement,
        criterion=criterion,
        interval=interval,
        confidence=confidence,
        p_fail=p_fail if judgeable else None,
        p_pass=p_pass if judgeable else None,
        minimum_detectable_effect=effect,
        n_required=needed,
        reason=reason if measurement.too_few else " ".join(filter(None, (reason, powerless))),
        powerless=powerless,
        budget=levels.budget,
        p_fail_adjusted=_adjusted(p_fail, levels.fail, levels.rate) if sampled else None,
        p_pass_adjusted=_adjusted(levels.p_pass, levels.passed, levels.rate) if sampled else None,
        alone=alone,
        said_alone=_said_alone(alone, tests, levels) if alone else "",
        padding=_padding(measurement, criterion, levels) if sampled else "",
        planted=next((p.twins for p in result.planted if p.bound == criterion.bound and p.is_about(measurement)), None),
    )


def _adjusted(p: float, level: float, rate: float) -> float:
    return min(1.0, p * rate / level) if level > 0.0 else 1.0


def _said_alone(alone: Outcome, tests: tuple[float, float], levels: Levels) -> str:
    p = tests[0] if alone is Outcome.FAIL else tests[1]
    if alone is Outcome.PASS and levels.methods > 1 and p <= levels.passed:
        return (
            f" This method alone would PASS (p {p:.2g}): the question is one for all of its {levels.methods} methods, "
            "and passes where each of them does."
        )
    of = f"the {levels.budget} budget" if levels.budget else "this scan"
    if levels.questions == 1:
        allowed = f"{of} allows itself {levels.rate:.2g}"
        return f" Alone this would {alone.value} at {DEFAULT_RATE:.0%} (p {p:.2g}): {allowed}."
    return f" Alone this would {alone.value} (p {p:.2g}): {of} holds {levels.questions} questions."


def _padding(measurement: Measurement, criterion: Criterion, levels: Levels) -> str:
    """Why a requirement could hardly be missed: its bound lies far out, and rows like these show it of a good model.

    Or why to meet it is no merit: the ideal value does not.
    """
    if measurement.ideal is None:
        return ""
    if decide((measurement.ideal, measurement.ideal), criterion) is Outcome.FAIL:
        return (
            f"The ideal value itself, {_number(measurement.ideal)}, does not meet this requirement "
            f"({criterion.describe()}): to meet it is no merit."
        )
    if not is_loose(measurement, criterion):
        return ""
    bounds = criterion.bound if isinstance(criterion.bound, tuple) else (criterion.bound,)
    times = [
        measurement.estimate.growth(
            bound=bound, alpha=tail_of(criterion, levels.passed), ideal=measurement.ideal, miss=0.01 / len(bounds)
        )
        for bound in bounds
        if bound != measurement.ideal
    ]
    if not all(t <= 1.0 for t in times):
        return ""
    return (
        f"Padding: the bound ({criterion.describe()}) lies beyond half way from the ideal to the worst that there can "
        "be, and on rows like these the ideal passes it with a probability above 99 %. It is judged apart "
        "and takes nothing from the other questions."
    )


def worst_value(estimate: AnyEstimate, sign: int) -> float:
    """The worst value that there can be, above for ``sign`` 1."""
    return estimate.limits[1 if sign > 0 else 0]


def _powerless(measurement: Measurement, criterion: Criterion, levels: Levels, needed: int | None) -> str:
    """Why nothing could FAIL of so few rows, and how many it takes; "" where something could, or where nobody knows.

    The distance at which something FAILs falls with the square root of the rows. ``needed``: those that a model at the
    ideal needs, of which the worst one needs no more.
    """
    estimate = measurement.estimate
    if measurement.too_few or isinstance(estimate, Undefined):
        takes = f": it takes about {needed:,}" if needed is not None else ""
        return f"Of these rows nothing could FAIL{takes}."
    if measurement.ideal is None or estimate.undecided():
        return ""
    bound, sign = bound_to_plan_for(criterion, measurement.ideal)
    worst = worst_value(estimate, sign)
    effect = minimum_detectable_effect(
        estimate, bound=bound, alpha=tail_of(criterion, levels.fail), ideal=measurement.ideal, sign=sign
    )
    if math.isnan(effect) or sign * (effect - worst) <= 0.0:
        return ""
    if not math.isfinite(effect) or worst == bound:
        most = f": it takes more, about {needed:,} like these at most" if needed is not None else ""
        return f"Of these rows nothing could FAIL{most}."
    rows = math.ceil(measurement.n_samples * ((effect - bound) / (worst - bound)) ** 2)
    return f"Of these rows nothing could FAIL: it takes about {rows:,} like these."


def _what_it_would_take(
    measurement: Measurement, criterion: Criterion, levels: Levels, interval: tuple[float, float]
) -> tuple[float | None, int | None, str]:
    estimate = measurement.estimate
    if math.isnan(estimate.value):
        detail = getattr(estimate, "reason", "") or measurement.detail
        return None, None, f"Undefined for these data: {detail or 'a rate has no rows to be taken over (0/0)'}."
    ideal = measurement.ideal
    if ideal is None:
        return None, None, f"The interval holds the bound ({criterion.describe()})."
    spans = f"The interval [{_number(interval[0])}, {_number(interval[1])}] spans the bound ({criterion.describe()})."
    if decide((ideal, ideal), criterion) is Outcome.FAIL:
        return None, None, f"{spans} The ideal value itself, {_number(ideal)}, does not meet this requirement."
    if undecided := estimate.undecided():
        return None, None, f"{spans} {undecided}"
    bound, sign = bound_to_plan_for(criterion, ideal)
    effect = minimum_detectable_effect(
        estimate, bound=bound, alpha=tail_of(criterion, levels.fail), ideal=ideal, sign=sign
    )
    needed = n_required(
        estimate,
        bound=bound,
        # Where everything else passes too, which is what a model at the ideal comes to.
        alpha=tail_of(criterion, max(levels.passed, CONJUNCTION * levels.rate)),
        ideal=ideal,
        n=measurement.n_samples,
        sides=2 if isinstance(criterion.bound, tuple) else 1,
    )
    needed = measurement.n_needed if needed is None else needed
    unknown = math.isnan(effect)
    beyond_reach = not math.isfinite(effect) or sign * (effect - worst_value(estimate, sign)) > 0.0
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
            f" About {needed:,} rows like these would let the ideal value PASS four times in five, for this "
            "question alone."
        )
    elif needed is not None:
        reason += " The size would do for the ideal value: this one lies too near the bound to tell."
    return None if beyond_reach else effect, needed, reason


def _not_measured(result: ProbeResult, outcome: Outcome, reason: str) -> Judgement:
    return Judgement(
        id="",
        probe=result.probe,
        pillar=result.pillar,
        citation=result.citation,
        outcome=outcome,
        reason=reason,
        other_kind=result.other_kind and outcome is Outcome.NOT_APPLICABLE,
    )


def judge(
    results: Sequence[ProbeResult], criteria: Sequence[Criterion], family: Family | None = None
) -> tuple[list[Judgement], Family]:
    """Judge every measurement against its criteria, with one error rate for every error budget.

    Over the judgements of a budget, the probability of any false FAIL is at most its rate, and so is that of any false
    PASS (``bonferroni``, ``holm``); see :mod:`auditor.judging.budgets`. Which judgements there are is fixed by which
    numbers exist, never by their values. Each is two one-sided tests: FAIL where the value is shown to lie beyond the
    bound, PASS where it is shown to lie within it, else INCONCLUSIVE; what follows from another judgement's outcome
    by logic has it too (:mod:`auditor.judging.judgement`). The printed interval is built of the two
    one-sided bounds at the levels of these tests, so interval and outcome agree. A PASS that a model earns by telling
    no rows apart is INCONCLUSIVE (:mod:`auditor.judging.judgement`), and so is one of a search that says to be weak,
    and one of a probe that did not see what was planted (:mod:`auditor.judging.planted`).
    Returns the findings and the family with its budgets.
    """
    family = family or Family()
    pairs, late, sampled = pairs_of(results, criteria, family)
    tests = {_key(pair): _tests(pair[1], pair[2]) for pair in pairs}
    found, budgets = levels_of(sampled, [tests[_key(pair)] for pair in sampled], criteria, family)
    levels = {_key(pair): level for pair, level in zip(sampled, found, strict=True)}
    certain = Levels(fail=family.error_rate, passed=family.error_rate, rate=family.error_rate)
    judged = {
        key: _judge_pair(pair, levels.get(key, certain), tests[key], in_budget=key in levels)
        for pair in pairs
        for key in [_key(pair)]
    }
    judged = dict(zip(judged, apply_implications(list(judged.values())), strict=True))
    # What nobody requires is shown with its own 95 %.
    display_level = 0.5 * family.error_rate
    findings: list[Judgement] = []
    for result in results:
        if result.not_applicable:
            findings.append(_not_measured(result, Outcome.NOT_APPLICABLE, result.not_applicable))
        for measurement in result.measurements:
            own = [judged[key] for c in criteria if (key := (id(measurement), id(c))) in judged]
            findings.extend(own or [_unjudged(result, measurement, display_level, late.get(id(measurement), 0.0))])
        if result.not_run:
            findings.append(_not_measured(result, Outcome.NOT_RUN, result.not_run))
        elif not result.not_applicable and not result.measurements:
            findings.append(_not_measured(result, Outcome.NOT_RUN, "The probe ended without a measurement."))
    ran = {result.probe for result in results if result.measurements}
    findings.extend(_never_measured(criteria, {id(criterion) for _, _, criterion in pairs}, ran))
    findings = _not_of_copies(_without_empty_passes(findings, results), results)
    findings = _not_by_code(findings, {result.probe for result in results if result.by_code})
    return _with_ids(held_to_plants(_as_far_as_was_tried(findings))), replace(family, m=len(sampled), budgets=budgets)


def pairs_of(
    results: Sequence[ProbeResult], criteria: Sequence[Criterion], family: Family
) -> tuple[list[Pair], dict[int, float], list[Pair]]:
    """The pairs of a measurement and a criterion that are judged; of each measurement that has too few rows to be, how
    many times the rows it takes; and those pairs that take a share of an error rate."""
    pairs = [
        (result, measurement, criterion)
        for result in results
        for measurement in result.measurements
        for criterion in criteria
        if criterion.applies_to(result.probe, measurement)
    ]
    times = {_key(pair): _times_to_begin(pair, family) for pair in pairs}
    late = {id(pair[1]): times[_key(pair)] for pair in pairs if times[_key(pair)] > 1.0}
    pairs = [pair for pair in pairs if times[_key(pair)] <= 1.0]
    return pairs, late, [pair for pair in pairs if not _takes_no_share(pair[1].estimate, pair[2])]


def _times_to_begin(pair: Pair, family: Family) -> float:
    """How many times the rows it takes for a question to begin: for a model at the ideal to pass with 95 % probability.

    At most 1 where it may begin, and of questions that always do: those that cannot be planned, such as a gap corrected
    for a scorer's errors. Of the others no further row makes a scan inconclusive that was not. It depends on what is
    planned, and not on the outcome.
    """
    _, measurement, criterion = pair
    ideal = measurement.ideal
    if not criterion.if_rows_suffice or ideal is None or isinstance(measurement.estimate, Undefined):
        return 1.0
    level = CONJUNCTION * rate_of(budget_of(*pair), criterion, family)
    bounds = criterion.bound if isinstance(criterion.bound, tuple) else (criterion.bound,)
    times = [
        measurement.estimate.growth(
            bound=bound, alpha=tail_of(criterion, level), ideal=ideal, miss=_MISSED / len(bounds)
        )
        for bound in bounds
    ]
    # What cannot be planned is judged.
    return max((t for t in times if not math.isnan(t)), default=1.0)


# The most that a question may keep a model at the ideal from passing, where it begins.
_MISSED = 0.05


def _key(pair: Pair) -> tuple[int, int]:
    return id(pair[1]), id(pair[2])


def _without_empty_passes(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Judgement]:
    """The findings, each saying why a PASS of it would say nothing; one that is a PASS is INCONCLUSIVE for that."""
    alike = {result.probe: result.alike for result in results}
    by_code = {result.probe for result in results if result.by_code}
    shown = [(f.measurement, f.interval) for f in findings if f.measurement and f.interval and f.probe not in by_code]
    answers: tuple[Answer, ...] = get_args(Answer)
    methods = {f.measurement.method for f in findings if f.measurement}
    unskilled = {method: {answer: no_skill(shown, answer, method) for answer in answers} for method in methods}
    said = []
    for finding in findings:
        m = finding.measurement
        why = "" if m is None else why_empty(m, alike.get(finding.probe, ()), unskilled[m.method])
        if why and finding.outcome is Outcome.PASS:
            finding = replace(finding, outcome=Outcome.INCONCLUSIVE, reason=why)
        elif why and finding.alone is Outcome.PASS:
            finding = replace(finding, alone=None, said_alone="")
        elif m is not None and m.masked and finding.outcome is Outcome.INCONCLUSIVE:
            finding = replace(finding, reason=f"{finding.reason} {why}")
        if finding.outcome is Outcome.INCONCLUSIVE and finding.said_alone:
            finding = replace(finding, reason=finding.reason + finding.said_alone)
        said.append(replace(finding, vacuous=why) if why else finding)
    return said


def _as_far_as_was_tried(findings: Sequence[Judgement]) -> list[Judgement]:
    """The findings, with what was tried beside what came of it; a PASS of a weak search is INCONCLUSIVE."""
    said = []
    for finding in findings:
        m = finding.measurement
        if m is not None and m.weak and finding.outcome is Outcome.PASS:
            finding = replace(finding, outcome=Outcome.INCONCLUSIVE, reason=m.weak)
        elif m is not None and m.weak and finding.alone is Outcome.PASS:
            finding = replace(finding, alone=None, reason=finding.reason.removesuffix(finding.said_alone))
        if m is not None and m.tried and finding.outcome in _JUDGED:
            finding = replace(finding, reason=f"{finding.reason} {m.tried}")
        said.append(finding)
    return said


def _not_of_copies(findings: Sequence[Judgement], results: Sequence[ProbeResult]) -> list[Judgement]:
    """The findings; what was judged of a sample of rows that are copies of each other is INCONCLUSIVE, and says why."""
    doubts = {result.probe: why_doubtful(result.copies) for result in results}
    return [
        replace(f, outcome=Outcome.INCONCLUSIVE, reason=why, doubtful=why, alone=None, said_alone="")
        if (why := doubts.get(f.probe, "")) and f.outcome in _JUDGED and not _is_certain(f.measurement)
        else f
        for f in findings
    ]


_BY_CODE = "Measured by your own code, in a process of its own that has the labels"


def _not_by_code(findings: Sequence[Judgement], probes: Collection[str]) -> list[Judgement]:
    """The findings, those of code of the user's saying so: no requirement of a shipped profile is passed by it."""
    said = []
    for finding in findings:
        if finding.probe in probes and finding.measurement is not None:
            why = f"{_BY_CODE}."
            if finding.criterion is not None and finding.criterion.built_in and finding.outcome is Outcome.PASS:
                finding = replace(finding, outcome=Outcome.INCONCLUSIVE, alone=None, said_alone="")
                why = f"{_BY_CODE}: set a criterion of your own for it, since it can pass none of a shipped profile."
            finding = replace(finding, reason=f"{finding.reason} {why}".strip())
        said.append(finding)
    return said


def _is_certain(measurement: Measurement | None) -> bool:
    return measurement is None or isinstance(measurement.estimate, Exact | UpperBound | Undefined)


_JUDGED = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


def _takes_no_share(estimate: AnyEstimate, criterion: Criterion) -> bool:
    """Whether it cannot be judged wrongly: no sampling error, not applicable, display only, or held to nothing."""
    if isinstance(estimate, Undefined):
        return estimate.inapplicable and not estimate.failed
    known = isinstance(estimate, Exact | UpperBound) or criterion.budget == NO_BUDGET
    return known or bool(unjudgeable(estimate) or empty_requirement(estimate, criterion))


def _unjudged(result: ProbeResult, measurement: Measurement, level: float, late: float) -> Judgement:
    """``late``: how many times the rows it takes for a question that has not begun."""
    estimate, needed = measurement.estimate, measurement.n_needed
    outcome, reason = Outcome.NOT_JUDGED, ""
    if math.isfinite(late) and late > 1.0:
        needed = math.ceil(measurement.n_samples * late)
        reason = (
            f"This question begins at about {needed:,} rows like these, where the ideal PASSes it with "
            f"{1.0 - _MISSED:.0%} probability: until then nothing is required."
        )
    elif late > 1.0:
        reason = f"With no number of rows like these would the ideal PASS: {estimate.unplanned}"
    elif isinstance(estimate, Undefined):
        # What was asked for and could not be measured is said aloud, and a model that failed is no matter of rows.
        unasked = measurement.group or measurement.part or result.by_default
        group = Outcome.NOT_JUDGED if unasked else Outcome.INCONCLUSIVE
        # So many rows would answer it, and nobody asked: a question for another file.
        beyond = estimate.inapplicable or measurement.n_needed is not None
        accident = estimate.failed and not estimate.inapplicable
        outcome = Outcome.NOT_RUN if accident else Outcome.NOT_APPLICABLE if beyond else group
        own_words = estimate.failed or beyond
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
        n_required=needed,
    )


def _never_measured(criteria: Iterable[Criterion], used_ids: set[int], ran: set[str]) -> list[Judgement]:
    """A criterion somebody set and nobody measured is no pass; the built-in profile covers more than one scan can."""
    found = []
    for criterion in criteria:
        if id(criterion) in used_ids:
            continue
        if not criterion.built_in:
            outcome = Outcome.NOT_RUN
            what = " ".join(filter(None, (repr(criterion.metric), criterion.place)))
            reason = f"No probe of this scan measured {what}, which must be {criterion.describe()}."
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
