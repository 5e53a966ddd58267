"""Error budgets: the significance level of each judgement, so that no judgement affects another one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from auditor.core.files import LEFT_OUT
from auditor.judging.criterion import MOST_RATE, NO_BUDGET, Criterion
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.significance_tests import Multiplicity, adjusted_levels, weighted_levels

Pair = tuple[ProbeResult, Measurement, Criterion]
ErrorRate = Annotated[float, Field(gt=0.0, lt=1.0)]
# Of the error rate for a false PASS: the share of "everything within this budget passes", the rest is Holm's.
CONJUNCTION = 0.8
# The rate of a budget's loose bounds, of the budget's.
LOOSE_RATE = 0.01
LOOSE = ", loose bounds"
# The share of the budget's primary criteria, where it has some.
PRIMARY = 0.9
DEFAULT_RATE = 0.05


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A spent error budget: ``questions``, answered by ``judgements``, at a ``rate``."""

    name: str
    rate: float
    questions: int
    judgements: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """Error rate of a scan: ``error_rate`` for any false FAIL per error budget, and for any false PASS.

    A profile's ``[budgets]`` state rates of their own for ``error_rate = 0.05``, and go up and down with it. ``m``:
    judgements from samples; ``budgets``: what they were judged in, known once they are judged.
    """

    error_rate: ErrorRate = DEFAULT_RATE
    multiplicity: Multiplicity = "holm"
    m: int = 0
    budgets: Annotated[tuple[Budget, ...], LEFT_OUT] = ()


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels of a judgement's FAIL and PASS, with their budget, rate and number of questions.

    ``p_pass``: of the PASS of all methods that answer this question; ``methods``: how many they are.
    """

    fail: float
    passed: float
    rate: float
    budget: str = ""
    questions: int = 1
    methods: int = 1
    p_pass: float = 0.0


def is_loose(measurement: Measurement, criterion: Criterion) -> bool:
    """Whether every bound is more than half way from the ideal to the worst possible value.

    It depends on what is asked and never on what was measured.
    """
    ideal, (least, most) = measurement.ideal, measurement.estimate.limits
    low, high = criterion.required
    if ideal is None or criterion.group is not None or not low <= ideal <= high:
        return False
    above = 0.0 if most == math.inf and high < math.inf else _way(high - ideal, most - ideal)
    below = 0.0 if least == -math.inf and low > -math.inf else _way(ideal - low, ideal - least)
    return min(above, below) > 0.5


def can_pass(estimate: AnyEstimate, criterion: Criterion) -> bool:
    """Whether any data could satisfy the requirement: estimates that count only found cases cannot."""
    low, high = estimate.bounds(0.5)
    floor, ceiling = criterion.required
    below, above = low > -math.inf or floor == -math.inf, high < math.inf or ceiling == math.inf
    return math.isnan(estimate.value) or (below and above)


def _way(distance: float, whole: float) -> float:
    return math.inf if distance == math.inf or whole <= 0.0 else distance / whole


def budget_of(result: ProbeResult, measurement: Measurement, criterion: Criterion) -> str:
    """The name of a judgement's budget; loose bounds have their own and spend nothing."""
    name = criterion.budget or result.pillar
    return name + LOOSE if name != NO_BUDGET and is_loose(measurement, criterion) else name


def rate_of(name: str, criterion: Criterion, family: Family) -> float:
    """A budget's error rate."""
    rate = family.error_rate
    if criterion.rate is not None:
        rate = min(rate * criterion.rate / DEFAULT_RATE, MOST_RATE)
    return rate * LOOSE_RATE if name.endswith(LOOSE) else rate


def levels_of(
    pairs: Sequence[Pair], tests: Sequence[tuple[float, float]], criteria: Sequence[Criterion], family: Family
) -> tuple[list[Levels], tuple[Budget, ...]]:
    """The levels of every judgement, given its p-values of FAIL and PASS, and the budgets.

    A budget's criteria share its error rate by their weights, whether or not something was measured for them, where
    they name their budget; so what else runs changes nothing. A criterion's share goes to its questions in equal parts:
    a question is one number of one comparison, by however many methods and against however many bounds, which one
    interval answers at once. For FAIL a question's methods share its level, and what a method does not need goes to
    the others (the graphical procedure of Bretz et al. with transitions in proportion to the weights, which is Holm's
    with weights). A question PASSes where every method passes, so each may stand at the whole level of the question;
    ``CONJUNCTION`` of the rate is for the claim that all questions of the budget pass, an intersection-union test,
    valid under any dependence; the rest is shared out as for FAIL. A budget of one question needs no such division.

    Sources: Bretz, Maurer, Brannath and Posch, Statistics in Medicine 28 (2009); Holm, Scand. J. Statist. 6 (1979);
    Berger, Technometrics 24 (1982).
    """
    if family.multiplicity not in ("bonferroni", "holm"):
        fail, ok = (adjusted_levels([t[i] for t in tests], family.error_rate, family.multiplicity) for i in (0, 1))
        return [
            Levels(fail=f, passed=p, rate=family.error_rate, questions=len(pairs), p_pass=own)
            for f, p, (_, own) in zip(fail, ok, tests, strict=True)
        ], ()
    names = [budget_of(*pair) for pair in pairs]
    levels: list[Levels | None] = [None] * len(pairs)
    budgets = []
    for name in dict.fromkeys(names):
        inside = [i for i, own in enumerate(names) if own == name]
        budget, found = _allocate_budget(name, [pairs[i] for i in inside], [tests[i] for i in inside], criteria, family)
        budgets.append(budget)
        for i, level in zip(inside, found, strict=True):
            levels[i] = level
    return [level for level in levels if level is not None], tuple(budgets)


def _class(criterion: Criterion) -> Hashable:
    """What a criterion asks about, whatever its bound."""
    return (
        criterion.metric,
        criterion.probe,
        criterion.method,
        criterion.sensitive,
        None if criterion.group is None else tuple(sorted(criterion.group.items())),
        None if criterion.at is None else tuple(sorted(criterion.at.items())),
        criterion.direction,
    )


def _shares(criteria: Sequence[Criterion]) -> dict[Hashable, float]:
    """Of the whole budget, by what is asked."""
    weights: dict[Hashable, float] = {}
    for criterion in criteria:
        key = _class(criterion)
        weights[key] = max(weights.get(key, 0.0), criterion.weight)
    first = {_class(c) for c in criteria if c.primary} or set(weights)
    shares: dict[Hashable, float] = {}
    for tier, of in ((first, PRIMARY if len(first) < len(weights) else 1.0), (set(weights) - first, 1.0 - PRIMARY)):
        whole = sum(weights[key] for key in tier)
        shares |= {key: of * weights[key] / whole for key in tier}
    return shares


def _allocate_budget(
    name: str,
    pairs: Sequence[Pair],
    tests: Sequence[tuple[float, float]],
    criteria: Sequence[Criterion],
    family: Family,
) -> tuple[Budget, list[Levels]]:
    measured = {_class(criterion) for _, _, criterion in pairs}
    elsewhere = [c for c in criteria if c.budget == name and _class(c) not in measured]
    shares = _shares([*(c for _, _, c in pairs), *elsewhere])
    # Where some state a rate, it is the budget's.
    rate = min(rate_of(name, criterion, family) for _, _, criterion in pairs)
    of_pair = [_question(*pair) for pair in pairs]
    questions = list(dict.fromkeys(of_pair))
    in_class = Counter(key for key, *_ in questions)
    share = {question: shares[question[0]] / in_class[question[0]] for question in questions}
    # One interval answers against every bound at once: a unit of FAIL is a number, of PASS a question.
    numbers = [(question, id(measurement)) for question, (_, measurement, _) in zip(of_pair, pairs, strict=True)]
    methods = Counter(question for question, _ in dict.fromkeys(numbers))
    p_fail: dict[tuple[_Question, int], float] = {}
    p_pass: dict[_Question, float] = {}
    for number, question, (_, measurement, criterion), (fail, ok) in zip(numbers, of_pair, pairs, tests, strict=True):
        p_fail[number] = max(p_fail.get(number, 0.0), fail)
        # What a profile asks and no rows can answer by a PASS may keep nothing else from it.
        if not criterion.built_in or can_pass(measurement.estimate, criterion):
            p_pass[question] = max(p_pass.get(question, 0.0), ok)
    # Against one bound a question passes where all its methods do.
    together: dict[tuple[_Question, int], float] = {}
    for question, (_, _, criterion), (_, ok) in zip(of_pair, pairs, tests, strict=True):
        together[question, id(criterion)] = max(together.get((question, id(criterion)), 0.0), ok)
    flow = family.multiplicity == "holm"
    fails = dict(zip(p_fail, weighted_levels(
        list(p_fail.values()), [share[q] / methods[q] for q, _ in p_fail], rate, flow=flow
    ), strict=True))  # fmt: skip
    passes = _pass_levels(p_pass, share, rate, flow=flow)
    found = [
        Levels(
            fail=fails[number],
            passed=passes.get(question, rate),
            budget=name,
            rate=rate,
            questions=len(questions),
            methods=methods[question],
            p_pass=together[question, id(criterion)],
        )
        for number, question, (_, _, criterion) in zip(numbers, of_pair, pairs, strict=True)
    ]
    return Budget(name=name, rate=rate, questions=len(questions), judgements=len(pairs)), found


_Question = tuple[Hashable, str, tuple[str, ...], tuple[tuple[str, str | float], ...]]


def _question(result: ProbeResult, measurement: Measurement, criterion: Criterion) -> _Question:
    return _class(criterion), result.probe, measurement.sensitive, tuple(sorted(measurement.at.items()))


def _pass_levels(
    p_values: dict[_Question, float], share: dict[_Question, float], rate: float, *, flow: bool
) -> dict[_Question, float]:
    if len(p_values) < 2:
        return dict.fromkeys(p_values, rate)
    if not flow:
        return {question: rate * share[question] for question in p_values}
    if max(p_values.values()) <= CONJUNCTION * rate:
        return dict.fromkeys(p_values, CONJUNCTION * rate)
    rest = (1.0 - CONJUNCTION) * rate
    levels = weighted_levels(list(p_values.values()), [share[q] for q in p_values], rest, flow=True)
    return dict(zip(p_values, levels, strict=True))
