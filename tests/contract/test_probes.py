"""Every registered probe, held to the same laws."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import NO_IDEAL, Measurement, definition_of, select_definitions
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.run.checks.contract import ContractViolation, check_description, check_probe
from auditor.run.probe import declared_metrics
from auditor.statistics.estimate import Exact
from auditor.statistics.rates import Proportion
from probes import PROBES
from probes.fairness.group_fairness import GroupFairness
from tests.toys.models import TOYS, criterion


def check(probe: Any, key: str, **change: Any) -> None:
    toys, measure = TOYS[key], probe.measure
    measured: list[Measurement] = []

    def kept(*arguments: Any) -> Sequence[Measurement]:
        found = measure(*arguments)
        measured.extend(found)
        return found  # type: ignore[no-any-return]

    probe.measure = kept
    check_probe(
        probe,
        **{
            "ideal_model": toys.ideal(),
            "ideal_data": toys.data(),
            "violating_model": toys.violating(),
            "violating_data": (toys.violating_data or toys.data)(),
            "criteria": toys.criteria,
            "key": key,
            "can_pass": toys.can_pass,
            "worlds": toys.worlds,
        }
        | change,
    )
    known = select_definitions(key, probe.citation, declared_metrics(probe), {m.metric for m in measured})
    for m in measured:
        own = definition_of(known, key, m.metric)
        assert own is not None, f"{m.metric} has no definition in {type(probe).__name__}.metrics"
        if re.fullmatch(r"[\d.]+", own.ideal):
            assert m.ideal in (float(own.ideal), None), m.metric
        elif own.ideal == NO_IDEAL:
            assert m.ideal is None, m.metric


# Probes that read a benchmark's file: tests/language/ and tests/memorization/ show them models and files.
WITH_A_FILE = (
    "crows_pairs", "stereoset", "winobias", "winogender", "bbq", "misfire", "bold", "honest", "canary_exposure",
    "contamination", "data_documentation",
)  # fmt: skip


@pytest.mark.parametrize("key", WITH_A_FILE)
def test_a_probe_of_a_published_benchmark_says_what_it_is(key: str) -> None:
    check_description(PROBES[key](), key=key)


@pytest.mark.slow(quick=True)
@pytest.mark.parametrize("key", [key for key in PROBES if key not in WITH_A_FILE])
def test_probe_keeps_the_contract(key: str) -> None:
    assert key in TOYS, f"{key} has no toy models: add an ideal and a violating one to tests/toys/models.py"
    made = TOYS[key].scorer
    check(PROBES[key](**TOYS[key].options, **({} if made is None else {"scorer": made()})), key)


# ---- the contract is no rubber stamp: each broken law is noticed ----------------------------------------------------


class _Broken(GroupFairness):
    """Group fairness, broken in one way a test. Source: none."""


class _NameIsWrong(_Broken):
    """Group fairness under another name. Source: none."""

    name = "fairness_of_groups"


class _NoSentence(_Broken):
    """no sentence"""


class _PillarIsWrong(_Broken):
    """Group fairness of a pillar that does not exist. Source: none."""

    pillar = "justice"  # type: ignore[assignment]


class _Trains(_Broken):
    """Leaves the model in evaluation mode. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measures, and forgets to put the flag back."""
        assert isinstance(model, TorchModel)
        model.module.eval()
        return super().measure(model, data, rng)


class _Nudges(_Broken):
    """Changes a weight a little. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measures, and moves a parameter."""
        assert isinstance(model, TorchModel)
        with torch.no_grad():
            next(model.module.parameters()).mul_(1.0 + 1e-6)
        return super().measure(model, data, rng)


class _DrawsGlobally(_Broken):
    """Draws from numpy's global generator. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measures, and draws."""
        np.random.random()
        return super().measure(model, data, rng)


class _Forgets(_Broken):
    """Gives other numbers the second time. Source: none."""

    calls = 0

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measures, and counts its calls."""
        type(self).calls += 1
        return [
            *super().measure(model, data, rng),
            Measurement(metric="calls", estimate=Exact(known=self.calls), n_samples=1),
        ]


class _SilenceIsZero(_Broken):
    """Says 0.0 where there are no rows. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:  # type: ignore[override]
        """Measures, or says 0."""
        if len(data):
            return super().measure(model, data, rng)
        return [Measurement(metric="demographic_parity_difference", estimate=Exact(known=0.0), n_samples=0)]


class _Raises(_Broken):
    """Cannot do without labels and does not say so. Source: none."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measures, or raises."""
        if data.y_true is not None and data.y_true.size and (data.y_true < 0).all():
            raise ZeroDivisionError
        return super().measure(model, data, rng)


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (_NameIsWrong, "not its key"),
        (_NoSentence, "does not begin with a sentence"),
        (_PillarIsWrong, "justice"),
        (_Trains, "training flag"),
        (_Nudges, "'scale'"),
        (_DrawsGlobally, "legacy"),
        (_Forgets, "same seed"),
        (_SilenceIsZero, "No rows"),
        (_Raises, "survives no labels"),
    ],
)
def test_a_broken_law_is_noticed(kind: type[GroupFairness], law: str) -> None:
    with pytest.raises(ContractViolation, match=law):
        check(kind(), "group_fairness")


def test_models_that_do_not_differ_are_noticed() -> None:
    toys = TOYS["group_fairness"]
    with pytest.raises(ContractViolation, match="On the ideal model"):
        check(GroupFairness(), "group_fairness", ideal_model=toys.violating())
    with pytest.raises(ContractViolation, match="On the violating model"):
        check(GroupFairness(), "group_fairness", violating_model=toys.ideal())
    with pytest.raises(ContractViolation, match="something is judged"):
        check(GroupFairness(), "group_fairness", criteria=[])


def test_a_violation_says_law_and_sight() -> None:
    error = ContractViolation("A law.", "a sight")
    assert isinstance(error, AssertionError)
    assert (error.law, error.seen, str(error)) == ("A law.", "a sight", "A law. Seen: a sight")


def test_the_toys_are_what_they_say() -> None:
    assert set(TOYS) <= set(PROBES), "toys without a probe"
    assert criterion("x", "at_most", 1.0).metric == "x"
    assert math.isnan(Proportion(successes=0, n=0).value)
