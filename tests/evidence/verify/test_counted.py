"""Numbers that speak of one thing agree, whoever states them; what was asked was answered; and honest audits agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Recorded
from auditor.evidence.evidence_bundle import Evidence, Understood
from auditor.evidence.registration import Plan, PlannedProbe
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.evidence.verify.request_and_log import asked_for
from auditor.evidence.verify.verify_bundle import Fact, contradictions
from auditor.judging.measurement import Alike, AuditQuestion, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.recorded_model import RecordedClassifier
from auditor.models.regression_model import AuditedRegressor
from auditor.report.record.audit_report import INTAKE
from auditor.run.predictions import CountsRecord
from auditor.run.probe import FILE_QUESTIONS
from auditor.statistics.rates import Proportion
from cli.verify import stored_probe
from probes.fairness.group_fairness import GroupFairness
from tests.evidence.verify.forged import (  # noqa: F401
    audited,
    bent,
    checked,
    code_of_once,
    known_intervals,
    left_behind,
    with_probe,
    wrong,
)
from tests.quantifiers import all_of

pytestmark = pytest.mark.usefixtures("known_intervals")
FAIRNESS = ("performance", "group_fairness", "adverse_impact", "score_fairness")


# ---- the same number, told twice -------------------------------------------------------------------------------------


def fairer(counts: CountsRecord) -> CountsRecord:
    """The table with as many of each group decided favourably as of group b, each true class alike."""
    cells = counts.counts()
    share = cells.selected()[cells.groups.index(("b",))] / cells.sizes()[cells.groups.index(("b",))]
    table = []
    for group in counts.table:
        wanted = np.round(np.cumsum([sum(row) for row in group]) * share).astype(int)
        chosen = np.diff(wanted, prepend=0).tolist()
        table.append(tuple((sum(row) - k, k) for row, k in zip(group, chosen, strict=True)))
    return counts.model_copy(update={"table": tuple(table)})


def with_fairer_table(made: Evidence) -> Evidence:
    assert made.counts is not None
    counts = fairer(made.counts)
    measured = tuple(GroupFairness().measure_counts(counts.counts()))
    return replace(with_probe(made, "group_fairness", lambda _: measured), counts=counts)


def test_a_table_that_was_rewritten_is_not_that_of_adverse_impact(tmp_path: Path) -> None:
    made = audited(include_rows=False)
    forged = with_fairer_table(made)
    metric = "demographic_parity_difference"
    before, after = (
        next(f for f in e.report.findings if f.metric == metric and f.probe == "group_fairness") for e in (made, forged)
    )
    assert before.value is not None and after.value is not None and before.value > 2 * after.value
    found = wrong(checked(forged, tmp_path / "a.zip", redact=True))
    assert "rows decided favourably of g = a" in found["shared numbers"]
    assert "adverse_impact from tables" in found and "performance from tables" in found


def test_without_tables_and_rows_probes_are_held_to_each_other(tmp_path: Path) -> None:
    made = replace(audited(include_rows=False), answers=None, counts=None)
    assert not wrong(checked(made, tmp_path / "a.zip"))
    counted = audited(include_rows=False).counts
    assert counted is not None
    measured = tuple(GroupFairness().measure_counts(fairer(counted).counts()))
    found = wrong(checked(with_probe(made, "group_fairness", lambda _: measured), tmp_path / "a.zip"))
    assert set(found) == {"shared numbers"}
    assert "adverse_impact (selection_rate" in found["shared numbers"]


@pytest.mark.parametrize("probe", ["score_fairness", "performance"])
def test_a_curve_and_a_calibration_are_the_same_in_both_probes(tmp_path: Path, probe: str) -> None:
    made = replace(audited(include_rows=False), answers=None, counts=None)
    for metric in ("roc_auc", "expected_calibration_error"):

        def worse(found: Any, metric: str = metric) -> Any:
            own = [m for m in found if m.metric == metric and m.group]
            other = {id(own[0]): own[1].estimate, id(own[1]): own[0].estimate}
            return tuple(replace(m, estimate=other.get(id(m), m.estimate)) for m in found)

        found = wrong(checked(with_probe(made, probe, worse), tmp_path / "a.zip"))
        what = {"roc_auc": "roc_auc of g = ", "expected_calibration_error": "calibration in 10 bins of g = "}
        assert what[metric] in found["shared numbers"]


def test_facts_that_agree_are_none_to_tell_and_each_other_one_is_told_once() -> None:
    group = (("g", "a"),)
    facts = [Fact(group, "rows", 3, "one"), Fact(group, "rows", 3, "two"), Fact((), "rows", 4, "one")]
    assert contradictions(facts) == []
    more = [*facts, Fact(group, "rows", 4, "three"), Fact(group, "rows", 5, "four"), Fact((), "rows", 9, "five")]
    assert contradictions(more) == ["rows of g = a: 3 by one, 4 by three", "rows of all rows: 4 by one, 9 by five"]


# ---- what was asked was answered -------------------------------------------------------------------------------------


def test_probes_and_their_findings_cannot_be_dropped(tmp_path: Path) -> None:
    made = audited(include_rows=True)
    dropped = {"adverse_impact", "out_of_distribution"}
    forged = bent(made, [r for r in made.results if r.probe not in dropped])
    found = wrong(checked(forged, tmp_path / "a.zip"))
    assert set(found) == dropped
    assert all_of("neither a number nor a reason" in detail for detail in found.values())


def test_a_probe_that_nobody_asked_is_named_and_so_is_one_without_an_answer(tmp_path: Path) -> None:
    made = audited(include_rows=True)
    more = ProbeResult(probe="subgroup_discovery", pillar="fairness", citation="c", not_applicable="Needs columns.")
    assert "does not ask for it" in wrong(checked(bent(made, [*made.results, more]), tmp_path / "a.zip"))[more.probe]
    silent = [replace(r, measurements=()) if r.probe == "out_of_distribution" else r for r in made.results]
    found = wrong(checked(bent(made, silent), tmp_path / "a.zip"))
    assert found["out_of_distribution"].startswith("it has neither a number nor a reason")


@pytest.mark.parametrize("gone", ["not_run", "not_applicable"])
def test_a_number_that_was_taken_out_for_a_reason_is_no_better_proven_than_it_was(tmp_path: Path, gone: str) -> None:
    made = audited(include_rows=True)
    without = replace(
        next(r for r in made.results if r.probe == "out_of_distribution"), measurements=(), definitions=(), copies=None
    )
    reason: dict[str, Any] = {gone: "the model cannot be asked"}
    silent = [replace(without, **reason) if r.probe == without.probe else r for r in made.results]
    for name, results in (("said", made.results), ("silent", silent)):
        found = checked(bent(made, results), tmp_path / f"{name}.zip")
        assert ("results.json: out_of_distribution", "numbers") in [(each.where, each.needs) for each in found.open]
        assert not wrong(found) and "numbers" not in found.proven


def test_a_request_that_names_none_asks_all_there_are() -> None:
    kinds = stored_probe.kinds()

    def planned(of: Iterable[str]) -> Inputs:
        probes = {name: PlannedProbe(target=f"probes:{name}", options={}) for name in of}
        plan = Plan(probes=probes, settings={}, files={}, criteria=(), error_rate=0.05, multiplicity="holm", seed=0)
        understood = Understood(began="2026-01-31T09:00:00+00:00", plan=plan)
        return Inputs(request={"options": {"target": "y"}}, understood=understood)

    names, checks = asked_for(planned(kinds), kinds, other_code=False)
    assert names is not None and {*names} == {*kinds} and not checks
    names, checks = asked_for(planned({*kinds} - {"bbq"}), kinds, other_code=False)
    assert "otherwise than given: bbq" in checks[0].detail
    assert asked_for(Inputs(request={"options": {}}), kinds, other_code=False) == (None, [])
    for target, extra in (({}, set()), ({"target": "y"}, {"performance"})):
        named = {"probes": ["group-fairness"], "probe": ["own.module:Mine"]} | target
        names, _ = asked_for(Inputs(request={"options": named}), kinds, other_code=False)
        assert names is not None and {*names} == {"group_fairness", "Mine"} | extra


def test_without_how_it_was_understood_completeness_is_open(tmp_path: Path) -> None:
    made = replace(audited(include_rows=True), request={"options": {}, "probe_options": {}})
    found = checked(made, tmp_path / "a.zip")
    assert not wrong(found)
    assert [each.where for each in found.unproven if "names no probes" in each.why] == ["results.json: results"]


# ---- what a probe says of itself, and the record of its data ---------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"pillar": "privacy"}, "pillar"),
        ({"citation": "our own house"}, "citation"),
        ({"definitions": ()}, "definitions"),
        ({"alike": (Alike(answer="decisions", n=12, group={"g": "a"}),)}, "answered alike"),
    ],
)
@pytest.mark.parametrize("probe", ["group_fairness", "score_fairness"])
def test_what_an_answer_says_beside_its_numbers_is_made_again(
    tmp_path: Path, probe: str, change: Mapping[str, Any], what: str
) -> None:
    made = audited(include_rows=True)
    forged = bent(made, [replace(r, **change) if r.probe == probe else r for r in made.results])
    found = wrong(checked(forged, tmp_path / "a.zip"))
    assert any(name.startswith(probe) and what in detail for name, detail in found.items())


@pytest.mark.parametrize("probe", ["group_fairness", INTAKE])
def test_what_a_number_answers_is_what_its_probe_asks_and_what_the_record_says(tmp_path: Path, probe: str) -> None:
    made = audited(include_rows=True)
    intake = ProbeResult(probe=INTAKE, pillar="intake", citation="", questions=FILE_QUESTIONS, not_applicable="none")
    made = bent(made, [*made.results, intake])
    assert not wrong(checked(made, tmp_path / "a.zip"))
    other = (AuditQuestion("skill"),)
    forged = bent(made, [replace(r, questions=other) if r.probe == probe else r for r in made.results])
    assert "questions are not those of" in wrong(checked(forged, tmp_path / "b.zip"))[probe]
    retold = made.report.model_copy(update={"questions": made.report.questions | {probe: other}})
    assert probe in wrong(checked(replace(made, report=retold), tmp_path / "c.zip"))["questions"]


def test_a_figure_that_was_redrawn_is_not_that_of_the_rows(tmp_path: Path) -> None:
    made = audited(include_rows=True)

    def redrawn(found: Any) -> Any:
        return tuple(
            replace(m, figure=m.figure.model_copy(update={"caption": "All is well."})) if m.figure else m for m in found
        )

    assert any(m.figure for r in made.results if r.probe == "score_fairness" for m in r.measurements)
    found = wrong(checked(with_probe(made, "score_fairness", redrawn), tmp_path / "a.zip"))
    assert "figure.caption says All is well." in found["score_fairness from rows"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"positive": "no"}, "positive"),
        ({"sensitive": ("g", "h")}, "sensitive"),
        ({"missing": {"labels": 3, "n_features": 2}}, "data.missing.labels"),
        ({"groups_sha256": {"g": "0" * 64}}, "groups_sha256"),
        ({"n_rows": 60}, "rows of all rows"),
    ],
)
def test_what_the_record_says_of_its_rows_is_held_to_them(tmp_path: Path, change: Mapping[str, Any], what: str) -> None:
    made = audited(include_rows=True)
    data = type(made.report.data).model_validate(made.report.data.model_dump() | change)
    forged = replace(made, report=made.report.model_copy(update={"data": data}))
    assert what in " ".join(wrong(checked(forged, tmp_path / "a.zip")).values())


# ---- honest audits ---------------------------------------------------------------------------------------------------


def rows(*, k: int = 2, positive: str | None = "1", holes: bool = False, n: int = 90) -> tuple[Any, AuditData]:
    """Rows of ``k`` classes with two sensitive features, and (n, k) scores of them."""
    rng = np.random.default_rng(5)
    scores = rng.dirichlet(np.ones(k), n)
    y = np.where(rng.random(n) < 0.6, scores.argmax(axis=1), rng.integers(0, k, n)).astype(object)
    if holes:
        y[::7] = None
    groups: dict[str, Any] = {"g": rng.choice(["a", "b"], n).astype(object), "h": rng.choice(["x", "y", "z"], n)}
    if holes:
        groups["g"][::9] = None
    X = pd.DataFrame(scores, columns=[f"s{i}" for i in range(k)])
    labels = [None if each is None else str(each) for each in y]
    names = [str(i) for i in range(k)]
    return scores, AuditData.from_arrays(X, labels, classes=names, positive=positive, sensitive_features=groups)


def asked_of(data: AuditData, k: int, *, labels: bool = False) -> AuditedModel:
    def answers(X: Any) -> Any:
        own = X.to_numpy(float)
        return np.eye(k)[own.argmax(axis=1)] if labels else own

    return AuditedModel.from_callable(answers, classes=[str(i) for i in range(k)], features=[f"s{i}" for i in range(k)])


@pytest.mark.grid
@pytest.mark.parametrize(
    ("k", "positive", "holes", "labels"),
    [
        (2, "1", True, False),
        (3, "1", False, False),
        (3, None, True, False),
        (2, "0", False, True),
        (2, None, True, True),
    ],
)
@pytest.mark.parametrize("include_rows", [True, False])
def test_an_honest_audit_agrees_with_itself(
    tmp_path: Path, k: int, positive: str | None, holes: bool, labels: bool, include_rows: bool
) -> None:
    _, data = rows(k=k, positive=positive, holes=holes)
    options = {"performance": {"bins": 5}, "score_fairness": {"intersections": False}}
    made = left_behind(asked_of(data, k, labels=labels), data, FAIRNESS, include_rows=include_rows, options=options)
    assert sum(f.outcome is not Outcome.NOT_APPLICABLE for f in made.report.findings) > 10
    for redact in (False, True):
        found = checked(made, tmp_path / "a.zip", redact=redact)
        assert not wrong(found)
        if positive is not None:
            assert found.from_tables


def test_a_model_of_which_only_decisions_are_known_keeps_them_and_agrees(tmp_path: Path) -> None:
    scores, data = rows()
    decided = scores.argmax(axis=1)
    data = replace(data, recorded=Recorded(decisions=decided))
    model = RecordedClassifier(classes=["0", "1"], features=["s0", "s1"])
    made = left_behind(model, data, FAIRNESS, include_rows=True)
    assert made.answers is not None and made.answers.head.scores == 0
    for include_rows in (True, False):
        found = checked(left_behind(model, data, FAIRNESS, include_rows=include_rows), tmp_path / "a.zip")
        assert not wrong(found)
        assert {f.split("/")[0] for f in found.from_rows | found.from_tables} >= {"performance", "group_fairness"}
    assert "Needs the model's scores" in next(r.not_applicable for r in made.results if r.probe == "adverse_impact")


def test_a_regression_agrees_and_its_performance_is_counted_from_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(0, 1, 90)
    y[::8] = np.nan
    X = np.column_stack([np.nan_to_num(y) + rng.normal(0, 0.3, 90)])
    data = AuditData.for_regression(X, y, sensitive_features={"g": rng.choice(["a", "b"], 90)})
    model = AuditedRegressor.from_callable(lambda X: X[:, 0])
    names = ("performance", "regression_fairness", "adverse_impact")
    made = left_behind(model, data, names, include_rows=True)
    found = checked(made, tmp_path / "a.zip")
    assert not wrong(found)
    assert {f.split("/")[0] for f in found.from_rows} == {*names}
    worse = with_probe(made, "performance", lambda ms: ms[:-1])
    assert "is missing" in wrong(checked(worse, tmp_path / "a.zip"))["performance from rows"]


def test_without_groups_rows_alone_come_to_the_performance(tmp_path: Path) -> None:
    _, data = rows()
    data = replace(data, sensitive_features=None)
    made = left_behind(asked_of(data, 2), data, ("performance",), include_rows=False)
    found = checked(made, tmp_path / "a.zip")
    assert not wrong(found) and found.from_rows == {f.id for f in made.report.findings}

    def better(found: Any) -> Any:
        return tuple(
            replace(m, estimate=Proportion(successes=89, n=90)) if m.metric == "accuracy" else m for m in found
        )

    assert (
        "accuracy"
        in wrong(checked(with_probe(made, "performance", better), tmp_path / "a.zip"))["performance from rows"]
    )
