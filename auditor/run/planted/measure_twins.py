"""The twins of an audit's probes: how many, by which seeds, and what the probe says of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.judging.measurement import Measurement, Planted, ProbeResult, Twins
from auditor.judging.planted import CLEAN_OF_EACH, FEWEST_CLEAN, FEWEST_PLANTED, PLANTED_OF_EACH
from auditor.judging.planting import Plan, Planting, plans_of
from auditor.statistics.groups import WorstOfPairs
from auditor.statistics.rates import Proportion

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# A probe's ``measure_planted``: what it measures of a twin in which the number has the value.
MeasurePlanted = Callable[["AuditedModel", "AuditData", Measurement, float, np.random.Generator], Sequence[Measurement]]
NO_PLANT = "this probe has no control"
_Key = tuple[object, ...]


def with_planted(
    asked: Sequence[tuple[Any, ProbeResult]], model: AuditedModel, data: AuditData | None, planting: Planting
) -> list[ProbeResult]:
    """The results of the probes that were ``asked``, with the planted controls of their judged numbers.

    Runs when all have answered: which level a number is judged at depends on which others there are.
    """
    plans = plans_of([result for _, result in asked], planting) if data is not None else []
    found = []
    for probe, result in asked:
        own = [plan for plan in plans if plan.result is result]
        hook: MeasurePlanted | None = getattr(probe, "measure_planted", None)
        if own and data is not None:
            result = replace(result, planted=tuple(_planted(hook, own, model, data, planting.seed)))
        found.append(result)
    return found


def _planted(
    hook: MeasurePlanted | None, plans: Sequence[Plan], model: AuditedModel, data: AuditData, seed: int
) -> Iterator[Planted]:
    """The planted controls of a probe's numbers, which take turns."""
    words = _seed_words(plans, seed)
    open_plans: list[Plan] = []
    counts: dict[tuple[int, int], Twins] = {}
    for i, plan in enumerate(plans):
        if hook is None or plan.why:
            continue
        plan, why = _tried(hook, plan, model, data, np.random.default_rng([*words, 2, i]))
        counts[_place(plan)] = Twins(why=why) if why else Twins(value=plan.value)
        open_plans += [] if why else [plan]
    for kind, fewest, of_each in (("planted", FEWEST_PLANTED, PLANTED_OF_EACH), ("clean", FEWEST_CLEAN, CLEAN_OF_EACH)):
        for i in range(max(fewest, of_each * len(open_plans))):
            # One for which there turned out to be no twin leaves its turns to the others.
            left = [plan for plan in open_plans if not counts[_place(plan)].why]
            if hook is None or not left:
                break
            plan = left[i % len(left)]
            rng = np.random.default_rng([*words, kind == "clean", i])
            counts[_place(plan)] = _with_one_more(counts[_place(plan)], kind, hook, plan, model, data, rng)
    for plan in plans:
        m = plan.measurement
        twins = counts.get(_place(plan), Twins(why=plan.why or NO_PLANT))
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


def _tried(
    hook: MeasurePlanted, plan: Plan, model: AuditedModel, data: AuditData, rng: np.random.Generator
) -> tuple[Plan, str]:
    """The plan, with its fault as far out as a first twin shows that it must be; or why there can be no twin."""
    if isinstance(plan.measurement.estimate, Proportion | WorstOfPairs):
        return plan, ""  # planned by the tests themselves, where the fault lies
    try:
        found = _of_twin(hook, plan, model, data, plan.value, rng)
    except NotApplicableError as error:
        return plan, _no_twins(error).why
    except Exception:
        return plan, ""
    return (plan.with_value_by(found[0].estimate) if found else plan), ""


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
