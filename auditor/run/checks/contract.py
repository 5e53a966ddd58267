"""Contract tests for every probe and every mitigation, built-in or user-defined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, get_args

import numpy as np

from auditor.core.errors import AuditorError
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Answer, Outcome, Pillar
from auditor.judging.planted import together, why_alarmed, why_unseen
from auditor.judging.planting import Planting
from auditor.report.comparing.compare_audits import Comparison, compare
from auditor.run.checks.error_rates import (
    ContractViolation,
    World,
    as_judged,
    audited,
    check_error_rates,
    check_uncertainty,
    generators,
    rows_of,
    state_of,
    words,
)
from auditor.run.mitigation import Mitigated, Mitigation, Stage, Training, learns, needs_rows
from auditor.run.planted.measure_twins import with_planted
from auditor.run.probe import Need, Probe, declared_metrics
from auditor.run.run_audit import ask, generator_for, reason_of, run_audit

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


def check_mitigation(
    mitigation: Mitigation,
    *,
    model: AuditedModel,
    train: AuditData,
    data: AuditData,
    probes: Sequence[Probe],
    criteria: Sequence[Criterion] | None = None,
    training: Training | None = None,
    seed: int = 0,
    key: str | None = None,
) -> Comparison:
    """Check a mitigation against the contract; ContractViolation names the broken rule.

    1. The class says what it is: ``name`` (which is ``key``, where that is given), ``pillar``, ``goal``, ``citation``,
       ``methods``, ``stage``, ``needs``, and docstrings that begin with a sentence and name the source.
    2. The old model stays as it was, to the bit, and so do the global random number generators; what is returned is
       another model.
    3. The same generator gives the same model: the same answers about ``data``, and the same weights where it has any.
    4. Rows without labels, without groups, or no rows at all are learned from, or refused by an error of this toolkit;
       a mitigation that learns refuses no rows.
    5. A model that gives every row of ``data`` one answer, where the old one did not, is no repair, whatever gap it
       closes.

    ``train``: the rows it learns from. ``data``: other rows, on which both models are audited by ``probes`` and held to
    ``criteria`` (the built-in profile by default). Returns the comparison of the two audits: whether it helped is for
    the caller to say. With ``Change(reference=model)`` among the probes it has the paired changes too.
    """
    _check_description(mitigation, key)
    training = training or Training()
    before, drawn, answers = state_of(model), generators(), _answers(model, data)
    made = _run_mitigation(mitigation, model, train, seed, training)
    for what, value in state_of(model).items():
        if value != before.get(what):
            raise ContractViolation("The old model stays as it was.", f"{what} changed")
    if _answers(model, data) != answers:
        raise ContractViolation("The old model stays as it was.", "it answers otherwise than before")
    for what, state in generators().items():
        if state != drawn[what]:
            raise ContractViolation("The global random number generators stay as they were.", what)
    if made.model is model:
        raise ContractViolation("What is returned is another model.", "the old one")
    again = _run_mitigation(mitigation, model, train, seed, training)
    _check_same(made.model, again.model, data)
    _refuses_what_it_cannot_learn_from(mitigation, model, train, seed, training)
    audits = [run_audit(each, data, probes, criteria, seed=seed) for each in (model, made.model)]
    comparison = replace(compare(*audits), made_by=(mitigation.name, *made.notes))
    if model.kind == "classifier" and _says_one_thing(made.model, data) and not _says_one_thing(model, data):
        verdicts = [f"{row.name} {row.verdict}" for row in comparison.rows]
        raise ContractViolation(
            "A model that gives every row one answer is no repair.",
            f"one answer to all {len(data):,} rows; the comparison says: {'; '.join(verdicts[:5]) or 'nothing judged'}",
        )
    return comparison


def _sees_what_is_planted(
    probe: Probe, model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], seed: int, *, required: bool
) -> None:
    """Check rule 8 by as many twins as an audit has that has time for all of them."""
    rule = "A probe sees what is planted, and does not alarm where nothing is."
    result = ask(probe, model, data, generator_for(seed, probe.name))
    [found] = with_planted([(probe, result)], model, data, Planting(tuple(criteria), Family(), seed), share=math.inf)
    every = together([each.twins for each in found.planted])
    if not every.planted and required:
        whys = sorted({each.twins.why for each in found.planted} - {""})
        raise ContractViolation(rule, f"nothing was planted: {'; '.join(whys) or 'no number of it is judged'}")
    for each in found.planted:
        if why := why_unseen(each.twins, every) or why_alarmed(each.twins, every):
            raise ContractViolation(rule, f"{each.metric}: {why}")


# ---- the laws ------------------------------------------------------------------------------------------------------


def _check_description(mitigation: Mitigation, key: str | None) -> None:
    law = "A mitigation says what it is in class attributes and docstrings."
    kind = type(mitigation)
    for attribute in ("name", "pillar", "goal", "citation", "stage", "needs"):
        value = getattr(kind, attribute, None)
        if not isinstance(value, str) or not value.strip():
            raise ContractViolation(law, f"{kind.__name__}.{attribute} is {value!r}")
    if not kind.name.isidentifier() or kind.name != kind.name.lower():
        raise ContractViolation(law, f"the name {kind.name!r} is not snake_case")
    if key is not None and kind.name != key:
        raise ContractViolation(law, f"the name {kind.name!r} is not its key {key!r} in the table")
    for attribute, known in (("pillar", get_args(Pillar)), ("stage", get_args(Stage))):
        if getattr(kind, attribute) not in known:
            raise ContractViolation(law, f"the {attribute} {getattr(kind, attribute)!r} is none of {', '.join(known)}")
    methods = getattr(kind, "methods", None)
    if not isinstance(methods, tuple) or not methods or not all(isinstance(m, str) for m in methods):
        raise ContractViolation(law, f"{kind.__name__}.methods is {methods!r}, not a tuple of names")
    for where, text in ((kind.__name__, kind.__doc__), (f"{kind.__name__}.mitigate", kind.mitigate.__doc__)):
        if "." not in (text or "").strip().split("\n\n")[0]:
            raise ContractViolation(law, f"the docstring of {where} does not begin with a sentence")
    if "Source" not in (kind.__doc__ or ""):
        raise ContractViolation(law, f"the docstring of {kind.__name__} names no source")


def _run_mitigation(
    mitigation: Mitigation, model: AuditedModel, train: AuditData, seed: int, training: Training
) -> Mitigated:
    made = mitigation.mitigate(model, train, generator_for(seed, mitigation.name), training)
    if not isinstance(made, Mitigated) or not all(isinstance(note, str) for note in made.notes):
        raise ContractViolation("What is returned is Mitigated, with notes that are texts.", repr(made)[:200])
    return made


def _check_same(first: AuditedModel, second: AuditedModel, data: AuditData) -> None:
    law = "The same generator gives the same model."
    if _answers(first, data) != _answers(second, data):
        raise ContractViolation(law, "other answers about the same rows the second time")
    one, two = state_of(first), state_of(second)
    other = [what for what in one if one[what] != two.get(what)]
    if other or len(one) != len(two):
        raise ContractViolation(law, f"{other[0] if other else 'its parts'} came out otherwise the second time")


def _refuses_what_it_cannot_learn_from(
    mitigation: Mitigation, model: AuditedModel, train: AuditData, seed: int, training: Training
) -> None:
    for name, poor in _poor_rows(train):
        try:
            mitigation.mitigate(model, poor, generator_for(seed, mitigation.name), training)
        except AuditorError:
            continue
        except Exception as error:
            raise ContractViolation(f"Rows with {name} are refused in a sentence.", reason_of(error)) from error
        if not len(poor) and needs_rows(type(mitigation)) and learns(type(mitigation)):
            raise ContractViolation("Nothing is learned from no rows.", "a model")


# ---- what they are built of ----------------------------------------------------------------------------------------


def _poor_rows(train: AuditData) -> Iterator[tuple[str, AuditData]]:
    yield "none of them", train.take(np.zeros(len(train), bool))
    if train.y_true is not None or train.target_values is not None:
        yield "no labels", replace(train, y_true=None, target_values=None)
    if train.sensitive_features is not None:
        yield "no groups", replace(train, sensitive_features=None)


def _answers(model: AuditedModel, data: AuditData) -> bytes:
    """What a model says of rows now, whatever it said before; nothing of a language model."""
    if model.kind == "language_model":
        return b""
    from auditor.models.regression_model import AuditedRegressor

    if isinstance(model, AuditedRegressor):
        return np.ascontiguousarray(model.predict(data.X)).tobytes()
    return np.ascontiguousarray(model.predict_proba(data.X)).tobytes()


def _says_one_thing(model: AuditedModel, data: AuditData) -> bool:
    return len(data) > 1 and np.unique(model.decisions(data)).size == 1


__all__ = ["ContractViolation", "World", "check_description", "check_mitigation", "check_probe"]

# What a finding may say about data that hold nothing to measure.
_SILENT = (Outcome.INCONCLUSIVE, Outcome.NOT_APPLICABLE, Outcome.NOT_JUDGED)
_FEW_ROWS = 60


def check_probe(
    probe: Probe,
    *,
    ideal_model: AuditedModel,
    ideal_data: AuditData,
    violating_model: AuditedModel,
    violating_data: AuditData,
    criteria: Sequence[Criterion],
    null: World | None = None,
    at_bound: World | None = None,
    power: World | None = None,
    worlds: int = 100,
    seed: int = 0,
    key: str | None = None,
    can_pass: bool = True,
    planted: bool | None = None,
) -> None:
    """Check a probe against the contract; ContractViolation names the broken rule.

    1. On the ideal model everything judged PASSes, and something is judged; on the violating model something FAILs.
    2. No rows, a single group, no labels, or labels of one class in a group give no number where there is none, and
       neither PASS nor FAIL for it; of probes that need data. A constant model, one that answers at random, and copies
       of one row raise nothing but errors of this toolkit.
    3. ``measure`` leaves the model, the rows and the random number generators as they were; the same seed gives the
       same measurements.
    4. The class says what it is: ``name`` (which is ``key``, its key in a table, where that is given), ``pillar``,
       ``goal``, ``citation``, ``methods``, ``needs``, definitions of its ``metrics``, and docstrings that begin with a
       sentence.
    5. Uncertainty: bounds are nested; a number whose interval has no width is the same on other rows drawn from the
       same (bootstrap), or its metric is declared in the class attribute ``exact``, with the reason.
    6. False alarms: in ``worlds`` worlds without a fault something FAILs in 5 % of them at most, and likewise with the
       truth at the bound, where nothing may PASS more often either; intervals shrink as rows come in.
    7. Power: in worlds with a fault something FAILs in 80 % of them at least.

    8. Planted controls: with ``measure_planted`` the probe sees what it plants in the ideal model and rows, and alarms
       at no more of their clean twins than is required of one in an audit.

    6 and 7 allow what chance explains once in a thousand checks. Each world is ``maker(rng) -> (model, data)``:
    ``null`` makes worlds without a fault, ``at_bound`` worlds whose true value is the bound of a criterion, ``power``
    worlds of the size and the fault that the probe's ``power`` states. Without makers, ``null`` takes random subsets of
    the ideal rows, from half of them to a thirty-second; ``power`` takes four fifths of the violating rows, and on
    subsets of those nothing that FAILs on all rows may PASS. That suits a probe whose true value is the same for any
    number of rows; one that trains on its rows needs makers. ``worlds=0`` leaves 6 and 7 out.

    ``criteria``: what both models are held to. The data must be enough for the ideal model to PASS. ``can_pass``: False
    for a probe that searches, which can show a fault and never its absence: there the ideal model is INCONCLUSIVE.
    ``planted``: True where 8 must be met, False where it is left out, None where it is for a probe with such a method.
    """
    ideal, violating = (ideal_model, ideal_data), (violating_model, violating_data)
    check_description(probe, key=key)
    found = _tells_good_from_bad(probe, ideal, violating, criteria, seed, can_pass)
    _makes_up_no_number(probe, ideal_model, ideal_data, criteria, seed)
    for (model, data), findings in zip((ideal, violating), found, strict=True):
        _leaves_no_trace(probe, model, data, findings, seed)
        check_uncertainty(probe, model, data, findings, seed)
    _survives_the_emptiest(probe, ideal_model, ideal_data, criteria, seed)
    if planted or (planted is None and getattr(probe, "measure_planted", None) is not None):
        _sees_what_is_planted(probe, ideal_model, ideal_data, criteria, seed, required=bool(planted))
    if worlds:
        makers = {"null": null, "at_bound": at_bound, "power": power}
        check_error_rates(probe, ideal, violating, criteria, found, **makers, worlds=worlds, seed=seed)


# ---- the laws ------------------------------------------------------------------------------------------------------


def check_description(probe: Probe, *, key: str | None = None) -> None:
    """Check rule 4 only: the description of the class; raises ContractViolation."""
    kind = type(probe)
    fault = next(chain(_attribute_faults(kind, key), _docstring_faults(kind), _mapping_faults(kind)), None)
    if fault is not None:
        raise ContractViolation("A probe says what it is in class attributes and docstrings.", fault)


def _attribute_faults(kind: type[Probe], key: str | None) -> Iterator[str]:
    """What is wrong with the name, the pillar, the methods and the needs of a probe."""
    for attribute in ("name", "pillar", "goal", "citation"):
        value = getattr(kind, attribute, None)
        if not isinstance(value, str) or not value.strip():
            yield f"{kind.__name__}.{attribute} is {value!r}"
    if not kind.name.isidentifier() or kind.name != kind.name.lower():
        yield f"the name {kind.name!r} is not snake_case"
    if key is not None and kind.name != key:
        yield f"the name {kind.name!r} is not its key {key!r} in the table"
    if kind.pillar not in get_args(Pillar):
        yield f"the pillar {kind.pillar!r} is none of {', '.join(get_args(Pillar))}"
    for attribute, of in (("methods", str), ("needs", Need)):
        value = getattr(kind, attribute, None)
        if not isinstance(value, tuple) or not all(isinstance(v, of) for v in value):
            yield f"{kind.__name__}.{attribute} is {value!r}, not a tuple of {of.__name__}"
    if not kind.methods:
        yield f"{kind.__name__}.methods is empty"


def _docstring_faults(kind: type[Probe]) -> Iterator[str]:
    for where, text in ((kind.__name__, kind.__doc__), (f"{kind.__name__}.measure", kind.measure.__doc__)):
        first = (text or "").strip().split("\n\n")[0]
        if "." not in first and "?" not in first:
            yield f"the docstring of {where} does not begin with a sentence: {first!r}"
    if "Source" not in (kind.__doc__ or ""):
        yield f"the docstring of {kind.__name__} names no source"


def _mapping_faults(kind: type[Probe]) -> Iterator[str]:
    """What is wrong with what a probe declares of its metrics."""
    if not declared_metrics(kind):
        form = "name: formula; [low, high], ideal value; how to read a value"
        yield f"{kind.__name__}.metrics defines no metric: write metrics = define_metrics({form!r})"
    exact = getattr(kind, "exact", {})
    if not isinstance(exact, Mapping) or not all(isinstance(why, str) and why.strip() for why in exact.values()):
        yield f"{kind.__name__}.exact is {exact!r}, not metrics and the reason of each"
    same = getattr(kind, "ideal_when_same", {})
    if not isinstance(same, Mapping) or not set(same.values()) <= {*get_args(Answer), "nothing"}:
        what = "metrics and decisions, scores, sense or nothing of each"
        yield f"{kind.__name__}.ideal_when_same is {same!r}, not {what}"


def _tells_good_from_bad(
    probe: Probe,
    ideal: tuple[AuditedModel, AuditData],
    violating: tuple[AuditedModel, AuditData],
    criteria: Sequence[Criterion],
    seed: int,
    can_pass: bool,
) -> tuple[list[Judgement], list[Judgement]]:
    """The findings on both models."""
    findings = audited(probe, *ideal, criteria, seed)
    allowed = (Outcome.PASS, Outcome.NOT_JUDGED) if can_pass else (Outcome.INCONCLUSIVE, Outcome.NOT_JUDGED)
    others = [f for f in findings if f.outcome not in allowed]
    if others:
        raise ContractViolation("On the ideal model everything judged PASSes.", words(others))
    if can_pass and not any(f.outcome is Outcome.PASS for f in findings):
        raise ContractViolation("On the ideal model something is judged.", words(findings))
    wrong = audited(probe, *violating, criteria, seed)
    if not any(f.outcome is Outcome.FAIL for f in wrong):
        raise ContractViolation("On the violating model something FAILs.", words(wrong))
    return findings, wrong


def _makes_up_no_number(
    probe: Probe, model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], seed: int
) -> None:
    if Need.DATA not in type(probe).needs:
        return
    for name, poor in _poor_data(data):
        findings = audited(probe, model, poor, criteria, seed)
        for finding in findings:
            measured = finding.measurement
            undefined = measured is not None and np.isnan(measured.estimate.value)
            if finding.outcome is Outcome.NOT_RUN and finding.criterion is None:
                raise ContractViolation(f"A probe survives {name}.", words([finding]))
            if measured is not None and measured.n_samples == 0 and finding.criterion is not None and not undefined:
                raise ContractViolation(f"No rows give no number, with {name}.", words([finding]))
            if undefined and finding.outcome is Outcome.PASS:
                raise ContractViolation(f"An undefined number is no PASS, with {name}.", words([finding]))
            if name == "no rows" and finding.criterion is not None and measured and finding.outcome not in _SILENT:
                raise ContractViolation("Nothing is judged where there are no rows.", words([finding]))
            compares = measured is not None and bool(measured.sensitive) and finding.criterion is not None
            if name == "a single group" and compares and Need.SENSITIVE in type(probe).needs and not undefined:
                raise ContractViolation("A single group compares with nothing.", words([finding]))


def _survives_the_emptiest(
    probe: Probe, model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], seed: int
) -> None:
    for name, empty_model, rows in _emptiest(model, data.take(slice(_FEW_ROWS)), seed):
        raised: list[BaseException] = []
        result = ask(probe, empty_model, rows, generator_for(seed, probe.name), on_error=raised.append)
        if raised and not isinstance(raised[0], AuditorError):
            raise ContractViolation(f"A probe survives {name}.", reason_of(raised[0]))
        for finding in judge([result], criteria)[0]:
            measured = finding.measurement
            if finding.outcome is Outcome.PASS and measured is not None and np.isnan(measured.estimate.value):
                raise ContractViolation(f"An undefined number is no PASS, with {name}.", words([finding]))


def _leaves_no_trace(
    probe: Probe, model: AuditedModel, data: AuditData, findings: Sequence[Judgement], seed: int
) -> None:
    """``findings``: those of the same seed on these rows, which are one of the two measurements to be alike."""
    with _training_mode(model):
        before, drawn, rows = state_of(model), generators(), rows_of(data)
        first = probe.measure(model, data, generator_for(seed, probe.name))
        for what, value in state_of(model).items():
            if value != before.get(what):
                raise ContractViolation("measure leaves the model as it was.", f"{what} changed")
        for what, held in rows_of(data).items():
            if held != rows[what]:
                raise ContractViolation(
                    "measure leaves the rows as they were, for the probes after it.", f"{what} changed"
                )
        for what, state in generators().items():
            if state != drawn[what]:
                raise ContractViolation("measure leaves the global random number generators as they were.", what)
    first = as_judged(probe, first, data)
    # Of a measurement there is a finding for each of its criteria.
    second = list({id(f.measurement): f.measurement for f in findings if f.measurement is not None}.values())
    for a, b in zip(first, second, strict=False):
        if repr(a) != repr(b):
            raise ContractViolation("The same seed gives the same measurements.", f"{a.metric}: {a} and then {b}")
    if len(first) != len(second):
        raise ContractViolation("The same seed gives the same measurements.", f"{len(first)}, then {len(second)}")


# ---- what they are built of ----------------------------------------------------------------------------------------


def _poor_data(data: AuditData) -> Iterator[tuple[str, AuditData]]:
    yield "no rows", data.take(np.zeros(len(data), bool))
    if data.y_true is not None:
        yield "no labels", replace(data, y_true=np.full(len(data), -1, np.int64))
    if data.target_values is not None:
        yield "no true values", replace(data, target_values=np.full(len(data), np.nan))
    if data.sensitive_features is None or not len(data):
        return
    first = np.ones(len(data), bool)
    for column in data.sensitive_features.columns:
        values = data.sensitive_features[column].astype("string")
        first &= (values == values[first].iloc[0]).to_numpy(bool, na_value=False)
    yield "a single group", data.take(first)
    if data.y_true is not None:
        for label in range(len(data.classes)):
            name = f"a group whose labels are all {data.classes[label]}"
            yield name, replace(data, y_true=np.where(first, label, data.y_true))


def _emptiest(model: AuditedModel, data: AuditData, seed: int) -> Iterator[tuple[str, AuditedModel, AuditData]]:
    """Models and rows that hold nothing to learn anything of; of a language model there is no constant one to make."""
    from auditor.models.audited_model import AuditedModel

    if model.kind == "classifier" and len(data):
        constant, rng = np.eye(len(model.classes))[0], np.random.default_rng(seed)
        yield (
            "a constant model",
            AuditedModel.from_callable(
                lambda X: np.tile(constant, (len(X), 1)), classes=model.classes, features=model.features
            ),
            data,
        )
        yield (
            "a model that answers at random",
            AuditedModel.from_callable(
                lambda X: rng.dirichlet(np.ones(constant.size), len(X)), classes=model.classes, features=model.features
            ),
            data,
        )
    elif model.kind == "regressor" and len(data):
        from auditor.models.regression_model import AuditedRegressor

        zeros = AuditedRegressor.from_callable(lambda X: np.zeros(len(X)), features=model.features)
        yield "a constant model", zeros, data
    if len(data):
        yield "copies of one row", model, data.take(np.zeros(len(data), np.int64))


@contextmanager
def _training_mode(model: AuditedModel) -> Iterator[None]:
    """Training mode inside, where there is one: what measures must not leave it, nor be touched by it."""
    module = getattr(model, "module", None)
    if module is None or getattr(model, "frozen_mode", False):
        yield
        return
    flags = [(m, m.training) for m in module.modules()]
    module.train()
    try:
        yield
    finally:
        for m, flag in flags:
            m.training = flag
