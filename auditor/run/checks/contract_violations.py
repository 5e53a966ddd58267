"""Shared parts of the contract tests for probes and mitigations: violations, and state that must not change."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.judging.criterion import Criterion
from auditor.judging.judgement import SENSE, Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.run.probe import Probe, looks_at_rows, of_design, with_declared
from auditor.run.run_audit import ask, generator_for

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
