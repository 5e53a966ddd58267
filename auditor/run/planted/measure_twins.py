"""The twins of an audit's probes: how many, by which seeds, and what the probe says of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.judging.measurement import Measurement, Planted, ProbeResult, Twins
from auditor.judging.planted import CLEAN_OF_EACH, FEWEST_CLEAN, FEWEST_PLANTED, PLANTED_OF_EACH
from auditor.judging.planting import Plan, Planting, plans_of
from auditor.run.planted.twin_costs import FEWEST, UNAFFORDABLE, affordable_twins, forecast_of
from auditor.run.probe import looks_at_rows, no_data
from auditor.statistics.groups import WorstOfPairs
from auditor.statistics.rates import Proportion

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# A probe's ``measure_planted``: what it measures of a twin in which the number has the value.
MeasurePlanted = Callable[["AuditedModel", "AuditData", Measurement, float, np.random.Generator], Sequence[Measurement]]
# Twins that say how far out a fault must lie: where it lies farther out, intervals of rare events are wider there.
_TRIES = 3
NO_PLANT = "this probe has no control"
NO_ROWS = "there are no rows at hand to make a twin of: none were given, or they were counted as they were read"
_Key = tuple[object, ...]


def with_planted(
    asked: Sequence[tuple[Any, ProbeResult]],
    model: AuditedModel,
    data: AuditData | None,
    planting: Planting,
    n_all: int | None = None,
    share: float | None = None,
) -> list[ProbeResult]:
    """The results of the probes that were ``asked``, with the planted controls of their judged numbers.

    Runs when all have answered: which level a number is judged at depends on which others there are. ``n_all``: the
    rows of the audit, where ``data`` are not all of them. A class stands for a probe that cannot be asked again: it has
    its share of the time, and its result stays as it is. ``share``: of the time of a scan, as
    :func:`~auditor.run.planted.twin_costs.affordable_twins` takes it.
    """
    plans = plans_of([result for _, result in asked], planting)
    own = [[plan for plan in plans if plan.result is result] for _, result in asked]
    wanted = [_wanted(probe, each) for (probe, _), each in zip(asked, own, strict=True)]
    sizes = (0, 0) if data is None else (len(data.evaluation), n_all or len(data))
    affordable = affordable_twins(asked, wanted, *sizes, share)
    found = []
    for (probe, result), each, n in zip(asked, own, affordable, strict=True):
        rows = no_data() if data is None and not looks_at_rows(probe) else data
        if isinstance(probe, type):
            pass
        elif each and rows is None:
            result = replace(result, planted=tuple(_numbers(each, NO_ROWS)))
        elif each and rows is not None:
            result = replace(result, planted=tuple(_planted(probe, each, n, model, rows, planting.seed)))
        found.append(result)
    return found


def _wanted(probe: Any, plans: Sequence[Plan]) -> tuple[int, int]:
    """How many twins a probe would have, and how many more to find where its faults can be shown."""
    numbers = [] if getattr(probe, "measure_planted", None) is None else [plan for plan in plans if not plan.why]
    if not numbers:
        return 0, 0
    n = max(FEWEST_PLANTED, PLANTED_OF_EACH * len(numbers)) + max(FEWEST_CLEAN, CLEAN_OF_EACH * len(numbers))
    return n, _TRIES * sum(not _is_planned_by_its_test(plan) for plan in numbers)


def _sample_of_rows(
    probe: Any, model: AuditedModel, data: AuditData, words: Sequence[int]
) -> tuple[AuditedModel, AuditData]:
    """The model and its rows, or as many as there may be of a twin, with the model's answers.

    Of a probe of training rows the twins are made of rows alone, and it asks no model about them.
    """
    forecast = forecast_of(probe)
    most, rows = forecast.most_rows, data if forecast.training_rows else data.evaluation
    if most is None or len(rows) <= most:
        return model, data
    index = np.sort(np.random.default_rng([*words, 3]).choice(len(rows), most, replace=False))
    some = rows.take(index)
    if forecast.training_rows:
        return model, some
    # What a model is imports pandas, which the parent of a scan does without.
    from auditor.models.twin_model import TwinModel

    return TwinModel(model, some, model.outputs(rows)[index], model.decisions(rows)[index]), some


def _planted(
    probe: Any, plans: Sequence[Plan], n: int, model: AuditedModel, data: AuditData, seed: int
) -> Iterator[Planted]:
    """The planted controls of a probe's numbers, which take turns; ``n``: how many twins there may be."""
    hook: MeasurePlanted | None = getattr(probe, "measure_planted", None)
    words = _seed_words(plans, seed)
    of_all = data
    model, data = _sample_of_rows(probe, model, data, words)
    fewer = 0 if data is of_all else len(data)
    open_plans: list[Plan] = []
    counts: dict[tuple[int, int], Twins] = {}
    for i, plan in enumerate(plans):
        if hook is None or plan.why:
            continue
        if not n:
            counts[_place(plan)] = Twins(why=UNAFFORDABLE)
            continue
        plan, twins = _tried(hook, plan, model, data, fewer, np.random.default_rng([*words, 2, i]))
        counts[_place(plan)] = twins
        open_plans += [] if twins.why else [plan]
    # Of more twins than the fewest two are planted for one that is clean.
    clean = FEWEST_CLEAN + max(n - FEWEST, 0) // 3
    for kind, most, of_each in (("planted", n - clean, PLANTED_OF_EACH), ("clean", clean, CLEAN_OF_EACH)):
        fewest = FEWEST_PLANTED if kind == "planted" else FEWEST_CLEAN
        wanted, made, i = min(most, max(fewest, of_each * len(open_plans))), 0, 0
        # One for which there turned out to be no twin leaves its turns to the others.
        while made < wanted and hook is not None:
            left = [plan for plan in open_plans if not counts[_place(plan)].why]
            if not left:
                break
            plan = left[i % len(left)]
            rng = np.random.default_rng([*words, kind == "clean", i])
            twins = _with_one_more(counts[_place(plan)], kind, hook, plan, model, data, rng)
            counts[_place(plan)] = twins
            made, i = made + (not twins.why), i + 1
    yield from _numbers(plans, NO_PLANT, counts)


def _numbers(
    plans: Sequence[Plan], why: str, counts: Mapping[tuple[int, int], Twins] = MappingProxyType({})
) -> Iterator[Planted]:
    """What became of each number's twins; of those that are not counted, ``why`` there are none."""
    for plan in plans:
        m = plan.measurement
        twins = counts.get(_place(plan), Twins(why=plan.why or why))
        yield Planted(
            metric=m.metric, method=m.method, sensitive=m.sensitive, group=m.group, at=m.at,
            bound=plan.criterion.bound, level=plan.level, twins=twins,
        )  # fmt: skip


def _with_one_more(
    twins: Twins,
    kind: str,
    hook: MeasurePlanted,
    plan: Plan,
    model: AuditedModel,
    data: AuditData,
    rng: np.random.Generator,
) -> Twins:
    ideal = plan.measurement.ideal
    value = plan.value if kind == "planted" or ideal is None else ideal
    try:
        failed = any(plan.is_failed_by(m.estimate) for m in _of_twin(hook, plan, model, data, value, rng))
    except NotApplicableError as error:
        return _no_twins(error)
    except Exception:  # a probe that fails on a twin has not seen what is planted there
        failed = False
    if kind == "planted":
        return replace(twins, planted=twins.planted + 1, seen=twins.seen + failed)
    return replace(twins, clean=twins.clean + 1, alarmed=twins.alarmed + failed)


def _is_planned_by_its_test(plan: Plan) -> bool:
    """Whether the plan is by the test itself, where the fault lies."""
    return isinstance(plan.measurement.estimate, Proportion | WorstOfPairs)


def _tried(
    hook: MeasurePlanted, plan: Plan, model: AuditedModel, data: AuditData, fewer: int, rng: np.random.Generator
) -> tuple[Plan, Twins]:
    """The plan, with its fault as far out as first twins show that it must be; and no twins yet, or why there are none.
    ``fewer``: how many rows there are, where that is not all."""
    if _is_planned_by_its_test(plan) and not fewer:
        return plan, Twins(value=plan.value)
    for _ in range(_TRIES):
        try:
            found = _of_twin(hook, plan, model, data, plan.value, rng)
        except NotApplicableError as error:
            return plan, _no_twins(error)
        except Exception:
            break
        farther = plan.with_value_by(found[0].estimate) if found else plan
        if farther is plan:
            break
        plan = farther
    return plan, Twins(value=plan.value, rows=fewer)


def _no_twins(error: NotApplicableError) -> Twins:
    return Twins(why=" ".join(str(error).split())[:300])


def _of_twin(
    hook: MeasurePlanted, plan: Plan, model: AuditedModel, data: AuditData, value: float, rng: np.random.Generator
) -> list[Measurement]:
    """What the probe measured of a twin, of the number that is planned."""
    return [m for m in hook(model, data, plan.measurement, value, rng) if _key(m) == _key(plan.measurement)]


def _place(plan: Plan) -> tuple[int, int]:
    return id(plan.measurement), id(plan.criterion)


def _key(m: Measurement) -> _Key:
    places = [tuple(sorted(each.items())) for each in (m.group, m.at)]
    return m.metric, m.method, m.sensitive, *places


def _seed_words(plans: Sequence[Plan], seed: int) -> list[int]:
    """Seeds that nobody chooses: of what was measured of the model, so that they are known only when it was."""
    told = [[plan.result.probe, plan.measurement.metric, plan.measurement.estimate.model_dump_json()] for plan in plans]
    digest = hashlib.sha256(json.dumps([seed, told]).encode()).digest()
    return [int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4)]
