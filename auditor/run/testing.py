"""Contract tests: the laws that every probe is held to, for the probes of this toolkit and for anybody's own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from auditor.finding.criterion import Criterion
from auditor.finding.judging import Judgement, judge
from auditor.finding.measurement import Outcome, Pillar, ProbeResult
from auditor.run.audit import ask, generator_for
from auditor.run.probe import Need, Probe

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel

# What a finding may say about data that hold nothing to measure.
_SILENT = (Outcome.INCONCLUSIVE, Outcome.NOT_APPLICABLE, Outcome.NOT_JUDGED)


class ContractViolation(AssertionError):
    """A probe broke a law: ``law`` says which, ``seen`` what it did."""

    def __init__(self, law: str, seen: str) -> None:
        self.law = law
        self.seen = seen
        super().__init__(f"{law} Seen: {seen}")


def check_probe(
    probe: Probe,
    *,
    ideal_model: AuditedModel,
    ideal_data: AuditData,
    violating_model: AuditedModel,
    violating_data: AuditData,
    criteria: Sequence[Criterion],
    seed: int = 0,
    key: str | None = None,
    can_pass: bool = True,
) -> None:
    """Holds a probe to the contract; raises ContractViolation naming the law that it breaks.

    1. On the ideal model everything judged PASSes, and something is judged; on the violating model something FAILs.
    2. No rows, a single group, no labels, or labels of one class in a group give no number where there is none, and
       neither PASS nor FAIL for it; of probes that need data.
    3. ``measure`` leaves the model and the random number generators as they were; the same seed gives the same
       measurements.
    4. The class says what it is: ``name`` (which is ``key``, its key in a table, where that is given), ``pillar``,
       ``goal``, ``citation``, ``methods``, ``needs``, and docstrings that begin with a sentence.

    ``criteria``: what both models are held to. The data must be enough for the ideal model to PASS. ``can_pass``: False
    for a probe that searches, which can show a fault and never its absence: there the ideal model is INCONCLUSIVE.
    """
    check_description(probe, key=key)
    _tells_good_from_bad(probe, ideal_model, ideal_data, violating_model, violating_data, criteria, seed, can_pass)
    _makes_up_no_number(probe, ideal_model, ideal_data, criteria, seed)
    for model, data in ((ideal_model, ideal_data), (violating_model, violating_data)):
        _leaves_no_trace(probe, model, data, seed)


# ---- the laws ------------------------------------------------------------------------------------------------------


def check_description(probe: Probe, *, key: str | None = None) -> None:
    """Law 4 alone: the class says what it is; raises ContractViolation."""
    law = "A probe says what it is in class attributes and docstrings."
    kind = type(probe)
    for attribute in ("name", "pillar", "goal", "citation"):
        value = getattr(kind, attribute, None)
        if not isinstance(value, str) or not value.strip():
            raise ContractViolation(law, f"{kind.__name__}.{attribute} is {value!r}")
    if not kind.name.isidentifier() or kind.name != kind.name.lower():
        raise ContractViolation(law, f"the name {kind.name!r} is not snake_case")
    if key is not None and kind.name != key:
        raise ContractViolation(law, f"the name {kind.name!r} is not its key {key!r} in the table")
    if kind.pillar not in get_args(Pillar):
        raise ContractViolation(law, f"the pillar {kind.pillar!r} is none of {', '.join(get_args(Pillar))}")
    for attribute, of in (("methods", str), ("needs", Need)):
        value = getattr(kind, attribute, None)
        if not isinstance(value, tuple) or not all(isinstance(v, of) for v in value):
            raise ContractViolation(law, f"{kind.__name__}.{attribute} is {value!r}, not a tuple of {of.__name__}")
    if not kind.methods:
        raise ContractViolation(law, f"{kind.__name__}.methods is empty")
    for where, text in ((kind.__name__, kind.__doc__), (f"{kind.__name__}.measure", kind.measure.__doc__)):
        first = (text or "").strip().split("\n\n")[0]
        if "." not in first and "?" not in first:
            raise ContractViolation(law, f"the docstring of {where} does not begin with a sentence: {first!r}")
    if "Source" not in (kind.__doc__ or ""):
        raise ContractViolation(law, f"the docstring of {kind.__name__} names no source")


def _tells_good_from_bad(
    probe: Probe,
    ideal_model: AuditedModel,
    ideal_data: AuditData,
    violating_model: AuditedModel,
    violating_data: AuditData,
    criteria: Sequence[Criterion],
    seed: int,
    can_pass: bool,
) -> None:
    findings = _audit(probe, ideal_model, ideal_data, criteria, seed)
    allowed = (Outcome.PASS, Outcome.NOT_JUDGED) if can_pass else (Outcome.INCONCLUSIVE, Outcome.NOT_JUDGED)
    others = [f for f in findings if f.outcome not in allowed]
    if others:
        raise ContractViolation("On the ideal model everything judged PASSes.", _words(others))
    if can_pass and not any(f.outcome is Outcome.PASS for f in findings):
        raise ContractViolation("On the ideal model something is judged.", _words(findings))
    findings = _audit(probe, violating_model, violating_data, criteria, seed)
    if not any(f.outcome is Outcome.FAIL for f in findings):
        raise ContractViolation("On the violating model something FAILs.", _words(findings))


def _makes_up_no_number(
    probe: Probe, model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], seed: int
) -> None:
    if Need.DATA not in type(probe).needs:
        return
    for name, poor in _poor_data(data):
        findings = _audit(probe, model, poor, criteria, seed)
        for finding in findings:
            measured = finding.measurement
            undefined = measured is not None and np.isnan(measured.estimate.value)
            if finding.outcome is Outcome.NOT_RUN and finding.criterion is None:
                raise ContractViolation(f"A probe survives {name}.", _words([finding]))
            if measured is not None and measured.n_samples == 0 and finding.criterion is not None and not undefined:
                raise ContractViolation(f"No rows give no number, with {name}.", _words([finding]))
            if undefined and finding.outcome is Outcome.PASS:
                raise ContractViolation(f"An undefined number is no PASS, with {name}.", _words([finding]))
            if name == "no rows" and finding.criterion is not None and measured and finding.outcome not in _SILENT:
                raise ContractViolation("Nothing is judged where there are no rows.", _words([finding]))
            compares = measured is not None and bool(measured.sensitive) and finding.criterion is not None
            if name == "a single group" and compares and Need.SENSITIVE in type(probe).needs and not undefined:
                raise ContractViolation("A single group compares with nothing.", _words([finding]))


def _leaves_no_trace(probe: Probe, model: AuditedModel, data: AuditData, seed: int) -> None:
    with _training_mode(model):
        before, generators = _state(model), _generators()
        first = probe.measure(model, data, generator_for(seed, probe.name))
        for what, value in _state(model).items():
            if value != before.get(what):
                raise ContractViolation("measure leaves the model as it was.", f"{what} changed")
        for what, state in _generators().items():
            if state != generators[what]:
                raise ContractViolation("measure leaves the global random number generators as they were.", what)
        second = probe.measure(model, data, generator_for(seed, probe.name))
    for a, b in zip(first, second, strict=False):
        if repr(a) != repr(b):
            raise ContractViolation("The same seed gives the same measurements.", f"{a.metric}: {a} and then {b}")
    if len(first) != len(second):
        raise ContractViolation("The same seed gives the same measurements.", f"{len(first)}, then {len(second)}")


# ---- what they are built of ----------------------------------------------------------------------------------------


def _audit(
    probe: Probe, model: AuditedModel, data: AuditData, criteria: Sequence[Criterion], seed: int
) -> list[Judgement]:
    result: ProbeResult = ask(probe, model, data, generator_for(seed, probe.name))
    findings = judge([result], criteria)[0]
    # A criterion that nothing was measured for is the caller's matter where the data are poor.
    return [f for f in findings if f.measurement is not None or f.criterion is None]


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


def _state(model: AuditedModel) -> dict[str, Any]:
    """Everything of a model that a measurement could change, in a form that compares by value."""
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


def _generators() -> dict[str, Any]:
    import torch

    legacy = np.random.get_state(legacy=False)
    states = {"python's random": random.getstate(), "numpy's legacy generator": repr(legacy)}
    return states | {"torch's generator": torch.get_rng_state().numpy().tobytes()}


def _words(findings: Sequence[Judgement]) -> str:
    return "; ".join(
        f"{f.id}: {f.outcome}"
        + (f" at {f.measurement.estimate.value:.4g} {f.interval}" if f.measurement is not None else "")
        + (f" ({f.reason})" if f.reason else "")
        for f in findings[:5]
    )
