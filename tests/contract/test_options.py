"""The option contract: every option of every probe and mitigation, each literal value and default, makes a difference.

What there is is collected from the constructors; ``option_rows.py`` has a row for each option, with two values or more,
and ``option_worlds.py`` the models and rows in which these come to different numbers. A new option, a new literal or
another default without a row fails.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from auditor.core.errors import AuditorError
from auditor.judging.measurement import ProbeResult
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.mitigation import Mitigation, Training, make_mitigation
from auditor.run.probe import make_probe
from auditor.run.run_audit import ask, generator_for
from mitigations import MITIGATIONS
from probes import PROBES
from tests import ROOT
from tests.contract.option_rows import MITIGATION_ROWS, ROWS, Row
from tests.contract.option_worlds import WORLDS, World

COMPONENTS: dict[str, type[Any]] = {**PROBES, **MITIGATIONS}
EVERY_ROW = ROWS | MITIGATION_ROWS
RESULT = TypeAdapter(ProbeResult)
REFUSED = "refused: "

# What no row varies: the test that does, where there is one, or why nothing can be seen.
ELSEWHERE: dict[tuple[str, str], str] = {
    **{
        (probe, option): "tests/probes/language/test_text_judge.py"
        for probe in ("generation_bias", "bold", "generated_text", "refusal_parity")
        for option in ("text_judge", "judge_question")
    },
    ("derived", "quantize"): "tests/probes/performance/test_derived.py",
    ("token_attribution", "show_texts"): "tests/probes/attribution/test_token_attribution.py",
    ("membership_inference", "checkpoint"): "tests/probes/privacy/membership/test_shadow_attacks.py",
    ("poisoning", "patch"): "tests/probes/robustness/test_poisoning.py",
    ("marking", "trust_anchors"): "tests/probes/deepfake/test_marking.py",
    ("deepfake_detection", "detector"): "tests/mitigations/test_deepfake_gate.py",
    ("deepfake_detection", "predict"): "tests/mitigations/test_deepfake_gate.py",
    ("counterfactual_augmentation", "language_model"): "tests/mitigations/test_generated_counterfactuals.py",
    ("counterfactual_augmentation", "fluency_margin"): "tests/mitigations/test_generated_counterfactuals.py",
}
UNSEEN: dict[tuple[str, str], str] = {
    ("feature_attribution", "max_memory"): "it divides a pass into parts, and the numbers are the same",
    ("token_attribution", "max_memory"): "it divides a pass into parts, and the numbers are the same",
    (
        "pii_leakage",
        "batch_rows",
    ): "continuations of a model in this process do not depend on what is drawn beside them",
}


# ---- what there is ---------------------------------------------------------------------------------------------------


def options_of(kind: type) -> dict[str, inspect.Parameter]:
    """The options of a component: the parameters of its constructor."""
    parameters = inspect.signature(kind).parameters
    return {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}


def rows_of(component: str, option: str) -> tuple[Row, ...]:
    """The rows of an option."""
    found = EVERY_ROW.get(component, {}).get(option, ())
    return (found,) if isinstance(found, Row) else tuple(found)


def annotation_of(kind: type, option: str) -> Any:
    """The type of an option, with names that are imported for type checking alone."""
    scope: dict[str, Any] = {}
    for base in kind.__mro__:
        module = sys.modules[base.__module__]
        if getattr(module, "__file__", None) and str(module.__file__).startswith(str(ROOT)):
            scope = typing_names(module) | vars(module) | scope
    written = options_of(kind)[option].annotation
    return eval(written.replace("|", ","), scope) if isinstance(written, str) else written


@cache
def typing_names(module: Any) -> dict[str, Any]:
    """What a module imports where only types are checked."""
    found: dict[str, Any] = {}
    for node in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in node.body:
                if isinstance(each, ast.ImportFrom):
                    source = importlib.import_module(str(each.module))
                    found |= {alias.asname or alias.name: getattr(source, alias.name) for alias in each.names}
    return found


def literals(annotation: Any) -> set[Any]:
    """Every value that a type names."""
    if isinstance(annotation, tuple):
        return set().union(*map(literals, annotation))
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return set().union(*map(literals, get_args(annotation)))


def named_values(component: str, option: str) -> set[Any]:
    """The values of an option that are named: literals, and of ``methods`` each method alone."""
    kind = COMPONENTS[component]
    if option == "methods":
        return {(method,) for method in kind.methods}
    return literals(annotation_of(kind, option))


# Named values that no row has: the test that asks for each, or why none can.
NAMED_ELSEWHERE: dict[tuple[str, str, Any], str] = {
    **{
        ("feature_attribution", "methods", (method,)): "tests/probes/attribution/test_layers.py"
        for method in (
            "grad_cam", "guided_grad_cam", "attention_rollout", "attention_x_gradient",
        )
    },
    **{
        ("feature_attribution", "methods", (method,)): "tests/probes/attribution/test_methods.py"
        for method in ("shap_linear", "shap_tree")
    },
    **{
        ("feature_attribution", "baseline", value): "tests/probes/attribution/test_units.py"
        for value in ("pad", "mask")
    },
    **{
        ("token_attribution", "infill", value): "tests/probes/attribution/test_token_attribution.py"
        for value in ("delete", "mask")
    },
    **{
        ("token_attribution", "baseline", value): "tests/probes/attribution/test_token_attribution.py"
        for value in ("mean", "pad", "mask")
    },
    **{
        ("detector_robustness", "methods", (method,)): "tests/probes/deepfake/test_ladder.py"
        for method in ("mp3", "opus", "telephone", "reverberation")
    },
    ("counterfactual_augmentation", "generator", "language_model"): (
        "tests/mitigations/test_generated_counterfactuals.py"
    ),
}  # fmt: skip


def test_every_option_has_a_row_or_stands_in_a_list_with_its_reason() -> None:
    every = {(name, option) for name, kind in COMPONENTS.items() for option in options_of(kind)}
    varied = {(name, option) for name, options in EVERY_ROW.items() for option in options}
    listed = ELSEWHERE.keys() | UNSEEN.keys()
    assert sorted(every - varied - listed) == [], "write a row in option_rows.py"
    assert sorted((varied | listed) - every) == [] and sorted(varied & listed) == []
    assert sorted(ELSEWHERE.keys() & UNSEEN.keys()) == []


def test_every_default_is_the_one_that_its_rows_know() -> None:
    wrong = {
        (name, option, own.default): parameter.default
        for name, kind in COMPONENTS.items()
        for option, parameter in options_of(kind).items()
        for own in rows_of(name, option)
        if own.default != parameter.default or type(own.default) is not type(parameter.default)
    }
    assert wrong == {}


def test_every_literal_value_is_one_of_a_row() -> None:
    missing = [
        (name, option, value)
        for name, kind in COMPONENTS.items()
        for option in options_of(kind)
        if (name, option) not in ELSEWHERE
        for value in sorted(named_values(name, option), key=str)
        if not any(value in (own.default, *own.others, *own.same) for own in rows_of(name, option))
        and (name, option, value) not in NAMED_ELSEWHERE
    ]
    assert missing == []
    assert sorted(key for key in NAMED_ELSEWHERE if key[2] not in named_values(*key[:2])) == []


@pytest.mark.parametrize(
    ("option", "value", "file"),
    [(option, None, file) for (_, option), file in ELSEWHERE.items()]
    + [(option, value, file) for (_, option, value), file in NAMED_ELSEWHERE.items()],
)
def test_what_is_varied_elsewhere_is_named_there(option: str, value: Any, file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    word = option if value is None else value[0] if isinstance(value, tuple) else value
    assert re.search(rf"\b{word}\b", text), f"{file} does not name {word}"


# ---- what each comes to ----------------------------------------------------------------------------------------------


def resolved(value: Any, folder: Path) -> Any:
    """A value of a row, with its file written."""
    return value(folder) if inspect.isfunction(value) else value


def outcome(component: str, world: World, options: Mapping[str, Any], differs: str) -> str:
    """What a component comes to, as a text."""
    kind = COMPONENTS[component]
    if component in MITIGATIONS:
        return repaired(kind(**options), world, differs)
    found = ask(kind(**options), world.model, world.data, generator_for(0, component))
    if reason := found.not_run or found.not_applicable:
        return REFUSED + reason
    measured = RESULT.dump_python(found, mode="json", warnings=False)["measurements"]
    if differs == "numbers":
        measured = [(m["metric"], m["group"], m["estimate"], m["n_samples"]) for m in measured]
    return json.dumps(measured)


def repaired(mitigation: Mitigation, world: World, differs: str) -> str:
    """What a repaired model answers of the rows, or of some texts; or what is said of it."""
    made = mitigation.mitigate(world.model, world.data, np.random.default_rng(0), Training())
    if differs == "details":
        return json.dumps(made.notes)
    if isinstance(made.model, AuditedLanguageModel):
        answers = made.model.log_likelihoods(["the nurse said that she worked", "he was a doctor"])
    else:
        answers = made.model.predict_proba(world.data.X)
        return json.dumps([np.asarray(answers).round(6).tolist(), made.model.decisions(world.data).tolist()])
    return json.dumps(np.asarray(answers).round(6).tolist())


CASES = [
    (component, option, i)
    for component, kind in COMPONENTS.items()
    for option in options_of(kind)
    for i in range(len(rows_of(component, option)))
]


@pytest.mark.slow(quick=True)
@pytest.mark.grid
@pytest.mark.parametrize(("component", "option", "number"), CASES)
def test_each_value_of_an_option_makes_a_difference(component: str, option: str, number: int, tmp_path: Path) -> None:
    own = rows_of(component, option)[number]
    world = WORLDS[own.world](component, tmp_path)
    beside = {name: resolved(value, tmp_path) for name, value in own.beside.items()}
    options = {**world.options, **beside}
    options.pop(option, None)
    found = {"default": outcome(component, world, options, own.differs)}
    for i, value in enumerate(own.others):
        found[f"{i}: {value!r}"] = outcome(component, world, options | {option: resolved(value, tmp_path)}, own.differs)
    refused = {name: text for name, text in found.items() if text.startswith(REFUSED)}
    # Without what it needs a probe measures nothing.
    if own.default is None:
        refused.pop("default", None)
    assert refused == {}
    alike = [(a, b) for a, b in itertools.combinations(found, 2) if found[a] == found[b]]
    assert alike == [], f"{option} of {component} is ignored"
    for value in own.same:
        again = outcome(component, world, options | {option: resolved(value, tmp_path)}, own.differs)
        assert again == found["default"], f"{value!r} is not what {option} of {component} is by default"


@pytest.mark.parametrize(
    ("rate", "other"),
    [
        ("true_positive_rate_parity", "false_negative_rate_parity"),
        ("false_positive_rate_parity", "true_negative_rate_parity"),
    ],
)
def test_parity_of_a_rate_is_parity_of_what_is_left_of_it(rate: str, other: str, tmp_path: Path) -> None:
    world = WORLDS["biased"]("threshold_optimizer", tmp_path)
    one, two = (outcome("threshold_optimizer", world, {"constraints": name}, "numbers") for name in (rate, other))
    assert one == two


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_an_option_of_a_wrong_type_is_refused_in_words(name: str) -> None:
    make: Any = make_probe if name in PROBES else make_mitigation
    values = ("x", -1, 2.5, [1, 2], ["a"], {"a": 1}, True, None, date(2020, 1, 1))
    for option, value in itertools.product(inspect.signature(COMPONENTS[name]).parameters, values):
        try:
            make(COMPONENTS[name], {option: value})
        except AuditorError as error:
            assert not re.search(r"not supported between|object is not|has no len|expected str|sequence", str(error))


def test_a_number_alone_is_one_level_where_several_are_taken() -> None:
    assert tuple(make_probe(PROBES["score_fairness"], {"thresholds": 0.5}).thresholds) == (0.5,)  # type: ignore[attr-defined]
