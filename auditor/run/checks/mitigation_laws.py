"""Contract tests for every mitigation, built-in or user-defined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from auditor.core.errors import AuditorError
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Pillar
from auditor.report.comparing.compare_audits import Comparison, compare
from auditor.run.checks.common import ContractViolation, generators, state_of
from auditor.run.mitigation import Mitigated, Mitigation, Stage, Training, learns, needs_rows
from auditor.run.probe import Probe
from auditor.run.run_audit import generator_for, reason_of, run_audit

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
