"""Every metric that a shipped probe can report has a formula, a range, an ideal value, a reading and a source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Definition, Measurement, define_metrics, definition_of, select_definitions
from auditor.models.audited_model import AuditedModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.job_models import INTAKE_METRICS
from auditor.run.probe import Need, declared_metrics
from auditor.run.run_audit import run_audit
from auditor.run.while_training.measure_network import ACCOUNTANT_METRICS
from auditor.run.while_training.training_record import ALARM_METRICS
from auditor.statistics.estimate import Exact
from probes import PROBES
from tests.quantifiers import all_of
from tests.toys.models import TOYS

ROOT = Path(__file__).parents[2]
# What a name comes to that the code puts together of others.
MADE = {
    "X_at_threshold": "demographic_parity_ratio_at_threshold",
    "X_over_thresholds": "equalized_odds_difference_over_thresholds",
    "worst_group_X": "worst_group_mean_absolute_error",
    "X_positive_rate_change": "true_positive_rate_change",
    "X_difference_under_X": "flip_rate_difference_under_noise",
    "X_differenceX": "clean_accuracy_difference",
    "X_under_X": "accuracy_under_typos",
    "X_difference": "robust_accuracy_difference",
    "XX": "clean_accuracy",
    "X_X": "stereotype_score_shift",
    "flip_rate": "flip_rate_under_noise",
}


def definitions_of(key: str) -> list[Definition]:
    kind = PROBES[key]
    return [replace(each, probe=key, citation=each.citation or kind.citation) for each in declared_metrics(kind)]


ALL = {key: definitions_of(key) for key in PROBES}
OTHERS = [*INTAKE_METRICS, *ACCOUNTANT_METRICS, *ALARM_METRICS]


def _literals(node: ast.expr) -> Iterator[str]:
    """The names that an expression comes to, ``X`` standing for what is filled in."""
    match node:
        case ast.Constant(value=str(name)):
            yield name
        case ast.JoinedStr(values=parts):
            yield "".join(p.value if isinstance(p, ast.Constant) and isinstance(p.value, str) else "X" for p in parts)
        case ast.IfExp(body=one, orelse=other):
            yield from _literals(one)
            yield from _literals(other)


def _rows(node: ast.expr, place: int) -> Iterator[str]:
    """What stands at a place of each tuple of a tuple or list; at any place of names themselves."""
    if isinstance(node, (ast.Tuple, ast.List)):
        for row in node.elts:
            if isinstance(row, ast.Tuple) and place < len(row.elts):
                yield from _literals(row.elts[place])


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _places(trees: dict[str, ast.Module]) -> dict[tuple[str, str], int]:
    """Where a function of a module takes the name of a metric, by its own name there or the one it is imported by."""
    own: dict[tuple[str, str], int] = {}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = [a.arg for a in node.args.args if a.arg not in ("self", "cls")]
                if "metric" in names:
                    own[module, node.name] = names.index("metric")
    found = dict(own)
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for name in node.names:
                    if (place := own.get((node.module or "", name.name))) is not None:
                        found[module, name.asname or name.name] = place
    for module, tree in trees.items():
        for node in tree.body:
            # ``_one = partial(measured, method=...)``.
            match node:
                case ast.Assign(
                    targets=[ast.Name(id=alias)], value=ast.Call(func=ast.Name(id="partial"), args=[ast.Name(id=name)])
                ):
                    if (module, name) in found:
                        found[module, alias] = found[module, name]
    return found


def reported() -> set[str]:
    """Every name that the probes' code gives to a measurement, as far as it is written out there."""
    trees = {_module(p): ast.parse(p.read_text(encoding="utf-8")) for p in sorted((ROOT / "probes").rglob("*.py"))}
    places = _places(trees)
    found: set[str] = set()
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "metric":
                        found |= set(_literals(keyword.value))
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                place = places.get((module, called))
                if place is not None and len(node.args) > place:
                    found |= set(_literals(node.args[place]))
            elif isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.target, ast.Tuple):
                names = [getattr(name, "id", "") for name in node.target.elts]
                if "metric" in names:
                    found |= set(_rows(node.iter, names.index("metric")))
    return {name for name in found if name and name != "X"}


REPORTED = reported()


def test_the_code_is_read_for_names() -> None:
    assert len(REPORTED) > 120
    assert {"demographic_parity_difference", "X_at_threshold", "X_difference_under_X", "declared_X"} <= REPORTED


@pytest.mark.parametrize("name", sorted(REPORTED))
def test_every_name_in_the_code_is_defined(name: str) -> None:
    metric = MADE.get(name, name)
    known = {metric for key in ALL if definition_of(ALL[key], key, metric)} | {each.metric for each in OTHERS}
    assert metric in known, f"{name} has no definition"


@pytest.mark.parametrize("key", list(PROBES))
def test_a_definition_says_all_five(key: str) -> None:
    assert ALL[key], f"{key} defines no metric"
    assert all_of(
        bool(part.strip()) and "``" not in part and ":class:" not in part
        for each in ALL[key]
        for name, part in asdict(each).items()
    )
    names = [each.metric for each in ALL[key]]
    assert len(names) == len(set(names))


def test_what_is_no_probes_is_defined_too() -> None:
    assert {each.metric for each in OTHERS} == {
        "nonfinite_parameters", "n_parameters", "file_size_bytes", "dp_epsilon", "alarms",
        "accepted_and_not_done", "served_otherwise",
    }  # fmt: skip


# ---- how they are read ----------------------------------------------------------------------------------------------


THEIRS = define_metrics(
    """
    plain_rate, other_rate: share of rows; as said: over
      all; [0, 1], ideal 0; at 0.1 one row in ten; Somebody (2020); and others
    made_*: anything; (-inf, inf), no ideal; it says little
    """
)


def test_an_entry_is_read_to_its_parts() -> None:
    known = select_definitions("mine", "Its paper", THEIRS, ["other_rate", "made_up", "made_down", "of_nobody"])
    assert known == (
        Definition(
            probe="mine",
            metric="other_rate",
            formula="share of rows; as said: over all",
            range="[0, 1]",
            ideal="0",
            reading="at 0.1 one row in ten",
            citation="Somebody (2020); and others",
        ),
        Definition(
            probe="mine",
            metric="made_*",
            formula="anything",
            range="(-inf, inf)",
            ideal="no ideal",
            reading="it says little",
            citation="Its paper",
        ),
    )
    assert definition_of(known, "mine", "made_up") is known[1]
    assert definition_of(known, "another", "made_up") is None and definition_of(known, "mine", "no_range") is None


@pytest.mark.parametrize(
    "entry",
    [
        "without_a_reading: anything; [0, 1], ideal 0",
        "no_range: anything; somewhere; says; Somebody",
        "- ``marked``: anything; [0, 1], ideal 0; says",
        "two words: anything; [0, 1], ideal 0; says",
    ],
)
def test_half_a_definition_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="Write a definition as 'name: formula; .low, high., ideal value; ") as refused:
        define_metrics(f"whole: anything; [0, 1], ideal 0; says\n{entry}")
    assert repr(entry) in str(refused.value)


def test_what_is_no_definition_defines_nothing() -> None:
    assert declared_metrics(type("Names", (_Counts,), {"metrics": ("n_rows",)})) == ()


def test_the_name_itself_comes_before_a_pattern() -> None:
    wide = Definition(probe="p", metric="a_*", formula="f", range="r", ideal="i", reading="w", citation="c")
    narrow = Definition(probe="p", metric="a_b", formula="g", range="r", ideal="i", reading="w", citation="c")
    assert definition_of([wide, narrow], "p", "a_b") is narrow


# ---- into the record -----------------------------------------------------------------------------------------------


class _Counts:
    """How many rows there are, as a probe of another distribution asks."""

    name = "counts"
    pillar = "performance"
    goal = "How many rows are there?"
    citation = "Somebody, 2020"
    methods = ("counted",)
    needs = (Need.DATA,)
    metrics = define_metrics("n_rows: rows of the data; [0, inf), ideal the most; how much the other numbers rest on")

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The rows, and a number that nobody defined."""
        n = len(data)
        return [Measurement(metric=metric, estimate=Exact(known=n), n_samples=n) for metric in ("n_rows", "n_lines")]


def test_a_record_holds_the_definitions_of_what_was_measured_and_of_no_more() -> None:
    toys = TOYS["group_fairness"]
    probes = [_Counts(), PROBES["group_fairness"](), PROBES["robustness"](methods="noise", n_samples=20)]
    report = run_audit(toys.ideal(), toys.data(), probes, ())
    known = {(each.probe, each.metric) for each in report.definitions}
    assert ("counts", "n_rows") in known and ("group_fairness", "worst_group_accuracy") in known
    assert ("robustness", "accuracy_under_*") in known and ("robustness", "certified_accuracy") not in known
    assert len(known) == len(report.definitions)
    lacking = [f for f in report.findings if f.metric and not definition_of(report.definitions, f.probe, f.metric)]
    assert [f.metric for f in lacking] == ["n_lines"]
    own = next(each for each in report.definitions if each.probe == "counts")
    assert (own.citation, own.ideal, own.reading) == (
        "Somebody, 2020",
        "the most",
        "how much the other numbers rest on",
    )
    assert AuditReport.from_json(report.to_json()).definitions == report.definitions


_AUDIT = """
import numpy as np
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.run.run_audit import run_audit
from probes.fairness.group_fairness import GroupFairness

x = np.arange(100.0)[:, None]
groups = {"group": ["a", "b"] * 50}
data = AuditData.from_arrays(x, (x[:, 0] > 50).astype(int), classes=[0, 1], sensitive_features=groups)
model = AuditedModel.from_callable(lambda x: np.where(x[:, 0] > 40, 0.9, 0.1), classes=[0, 1])
report = run_audit(model, data, [GroupFairness()], ())
print(*(f"{each.probe}.{each.metric}" for each in report.definitions))
"""


def test_definitions_survive_an_interpreter_without_docstrings() -> None:
    done = subprocess.run([sys.executable, "-OO", "-c", _AUDIT], cwd=ROOT, capture_output=True, text=True, check=True)
    defined = done.stdout.split()
    assert "group_fairness.worst_group_accuracy" in defined and len(defined) > 20
