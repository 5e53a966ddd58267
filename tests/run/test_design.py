"""Rows that belong together, weigh differently or are copies, from the file to the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import auditor
from auditor.core.errors import DataError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Design
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Measurement, Outcome
from auditor.models.audited_model import AuditedModel
from auditor.report.comparing.compare_audits import Comparison, compare
from auditor.report.record.audit_report import AuditReport, DataRecord, Finding
from auditor.report.report_view import limits_of
from auditor.run.probe import looks_at_rows, not_designed_for
from auditor.run.run_audit import assemble, environment, model_record, run_audit
from auditor.statistics.clusters import (
    CLUSTERED,
    WorstClusteredDifference,
    clustered_mean,
    rates_of_groups,
)
from auditor.statistics.estimate import Exact, UpperBound
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import Proportion, RateTable
from probes import PROBES
from tests.quantifiers import all_of, none_of
from tests.toys.models import criterion

GAP = criterion("demographic_parity_difference", "at_most", 0.10)
MODEL = AuditedModel.from_callable(lambda X: X["x"].to_numpy(), classes=("0", "1"), features=("x",))


def table(n: int = 600, seed: int = 0, gap: float = 0.145) -> pd.DataFrame:
    """Rows whose label the score tells, of two groups that are selected at different rates."""
    rng = np.random.default_rng(seed)
    f = rng.random(n) < 0.5
    x = np.clip(rng.random(n) + np.where(f, 0.5, 0.5 + gap) - 0.5, 0.0, 1.0)
    return pd.DataFrame(
        {
            "id": [f"a{i}" for i in range(n)],
            "x": x,
            "y": ((x > 0.5) == (rng.random(n) < 0.9)).astype(int),
            "sex": np.where(f, "f", "m"),
            "w": rng.integers(1, 6, n) / 2.0,
        }
    )


def scanned(rows: pd.DataFrame, *criteria: Criterion, probes: str = "group_fairness", **options: Any) -> AuditReport:
    return auditor.scan(
        MODEL, rows, target="y", sensitive=("sex",), probes=probes, criteria=list(criteria) or [GAP], **options
    )


def judged(report: AuditReport) -> Finding:
    (found,) = [f for f in report.findings if f.criterion is not None]
    return found


# ---- copies --------------------------------------------------------------------------------------------------------


def test_a_file_pasted_twelve_times_decides_nothing() -> None:
    once = table()
    twelve = pd.concat([once] * 12, ignore_index=True)
    assert judged(scanned(once)).outcome is Outcome.INCONCLUSIVE
    # What twelve times the rows would have come to.
    assert judged(scanned(twelve, copies_are_real=True)).outcome is Outcome.FAIL
    report = scanned(twelve)
    found = judged(report)
    assert found.outcome is Outcome.INCONCLUSIVE and found.doubtful and found.reason.startswith(found.doubtful)
    assert found.reason.startswith("6,600 of 7,200 rows (91.7%) are exact copies of other rows")
    assert "--cluster COLUMN" in found.reason and "--copies-are-real" in found.reason
    assert report.data.copies is not None and (report.data.copies.copies, report.data.copies.divisor) == (6600, 12)
    assert found.doubtful in report.data.notes


def test_copies_with_their_cluster_are_worth_the_one_copy() -> None:
    loose = criterion("demographic_parity_difference", "at_most", 0.40)
    tight = criterion("demographic_parity_difference", "at_most", 0.005)
    once = table()
    twelve = pd.concat([once] * 12, ignore_index=True)
    for held_to, outcome in ((GAP, Outcome.INCONCLUSIVE), (loose, Outcome.PASS), (tight, Outcome.FAIL)):
        alone, clustered, copied = (
            judged(report)
            for report in (
                scanned(once, held_to),
                scanned(once, held_to, cluster="id", cluster_at_most=1),
                scanned(twelve, held_to, cluster="id", cluster_at_most=12),
            )
        )  # fmt: skip
        assert {alone.outcome, clustered.outcome, copied.outcome} == {outcome}
        assert copied.value == pytest.approx(clustered.value) == pytest.approx(alone.value)
        assert copied.interval == pytest.approx(clustered.interval)
        assert copied.n_samples == 12 * (clustered.n_samples or 0)


def test_one_row_in_fifty_that_is_a_copy_is_in_doubt_and_one_in_two_hundred_only_recorded() -> None:
    rows = table(1000)
    few = pd.concat([rows, rows[:5]], ignore_index=True)
    assert judged(scanned(few)).doubtful == ""
    recorded = scanned(few).data.copies
    assert recorded is not None and (recorded.n, recorded.copies) == (1005, 5)
    assert judged(scanned(pd.concat([rows, rows[:20]], ignore_index=True))).doubtful != ""
    assert scanned(rows).data.copies is None


def test_allowing_inconclusive_does_not_allow_copies() -> None:
    twelve = pd.concat([table()] * 12, ignore_index=True)
    assert scanned(twelve, allow_inconclusive=("fairness",)).exit_code == 3
    assert scanned(table(gap=0.08), allow_inconclusive=("fairness",)).exit_code == 0


def test_the_judge_recomputes_it_from_what_was_measured() -> None:
    twelve = pd.concat([table()] * 12, ignore_index=True)
    data = auditor.load_data(twelve, MODEL, target="y", sensitive=("sex",))
    results = [
        auditor.run.run_audit.ask(PROBES["group_fairness"](), MODEL, data, np.random.default_rng(0)),  # type: ignore[attr-defined]
    ]
    parts = {"model": model_record(MODEL), "data": DataRecord(), "environment": environment(device="cpu", seed=0)}
    again = assemble(results, [GAP], **parts)  # type: ignore[arg-type]
    assert judged(again).doubtful == judged(scanned(twelve)).doubtful != ""


def test_rows_in_memory_are_taken_as_they_are() -> None:
    """Nobody looked at them: a probe's own toys are copies, and are meant."""
    twelve = pd.concat([table()] * 12, ignore_index=True)
    data = AuditData.from_arrays(twelve[["x"]], twelve["y"], classes=("0", "1"), sensitive_features=twelve[["sex"]])
    assert judged(run_audit(MODEL, data, [PROBES["group_fairness"]()], [GAP])).outcome is Outcome.FAIL


def test_what_needs_no_sample_is_not_in_doubt(tmp_path: Path) -> None:
    twelve = pd.concat([table()] * 12, ignore_index=True)
    report = scanned(twelve)
    assert none_of(
        f.doubtful for f in report.findings if isinstance(f.estimate, Exact | UpperBound) or f.probe == "intake"
    )


def test_nothing_is_better_or_worse_over_copies() -> None:
    def middling(rows: pd.DataFrame) -> Any:
        """As likely in either group, and right more often than not."""
        return np.where((rows["x"] > 0.5) & (rows["x"] < 0.8), 0.9, 0.1)

    fairer = AuditedModel.from_callable(middling, classes=("0", "1"), features=("x",))
    twelve = pd.concat([table()] * 12, ignore_index=True)

    def compared(**options: Any) -> Comparison:
        before, after = (
            auditor.scan(m, twelve, target="y", sensitive=("sex",), probes="group_fairness", criteria=[GAP], **options)
            for m in (MODEL, fairer)
        )
        return compare(before, after)

    assert [row.verdict for row in compared(copies_are_real=True).rows] == ["better"]
    found = compared()
    assert [row.verdict for row in found.rows] == ["no change shown"]
    assert found.remarks[0].startswith("No change is shown by these two audits, which have to be made anew. 6,600 of ")


def test_audits_with_other_clusters_are_not_compared() -> None:
    with pytest.raises(UsageError, match=r"another --cluster \(id and none\)"):
        compare(scanned(table(), cluster="id"), scanned(table()))


# ---- clusters ------------------------------------------------------------------------------------------------------


def people(rng: np.random.Generator, gap: float) -> tuple[Any, Any, Any]:
    """500 people of 20 rows each, hardly ever decided differently; half of the people in either group."""
    group = np.arange(500) % 2
    p = np.where(group == 0, 0.5 - gap / 2, 0.5 + gap / 2)
    person = np.repeat(np.arange(500), 20)
    own = rng.beta(0.3 * p, 0.3 * (1.0 - p))
    return rng.random(person.size) < own[person], group[person], person


def test_people_of_twenty_rows_each_at_the_bound_are_not_misjudged() -> None:
    rng = np.random.default_rng(0)
    wrong = {"rows": 0, "people": 0}
    worlds = 200
    for _ in range(worlds):
        won, group, person = people(rng, 0.10)
        k = np.bincount(group, weights=won).astype(int)
        by_row = WorstDifference(tables=(RateTable(rate="r", successes=tuple(k.tolist()), n=(5000, 5000)),))
        by_person = WorstClusteredDifference(tables=(rates_of_groups("r", won, group, 2, person, None),))
        for name, estimate in (("rows", by_row), ("people", by_person)):
            low, high = estimate.bounds(0.05)
            wrong[name] += low > 0.10 or high < 0.10
    # Two ends of 5 % each; 36 of 200 is what a tenth exceeds once in a thousand times.
    assert wrong["people"] <= 36 < worlds // 4 < wrong["rows"]


def test_the_probe_says_of_clusters_what_they_come_to() -> None:
    won, group, person = people(np.random.default_rng(1), 0.10)
    data = AuditData.from_arrays(
        pd.DataFrame({"x": np.where(won, 0.9, 0.1)}), (np.arange(10_000) % 2).tolist(), classes=("0", "1"),
        sensitive_features={"sex": np.where(group == 0, "f", "m").tolist()}, clusters=person,
    )  # fmt: skip
    report = run_audit(MODEL, data, [PROBES["group_fairness"]()], [GAP])
    found = {(f.metric, f.group.get("sex")): f for f in report.findings if f.metric}
    table_of = rates_of_groups("selection_rate", won, group, 2, person, None)
    assert judged(report).estimate == WorstClusteredDifference(tables=(table_of,))
    assert found["selection_rate", "f"].estimate == table_of.parts[0]
    truth = np.arange(10_000) % 2
    for metric, rate, of in (
        ("true_positive_rate", won, truth == 1), ("false_positive_rate", won, truth == 0),
        ("precision", truth == 1, won), ("accuracy", won == truth, truth >= 0),
        ("false_negative_rate", ~won, truth == 1),
    ):  # fmt: skip
        own = of & (group == 1)
        _, codes = np.unique(person[own], return_inverse=True)
        assert found[metric, "m"].estimate == clustered_mean(rate[own], codes)
    gaps = ("equalized_odds_difference", "equal_opportunity_difference", "accuracy_difference")
    assert all_of(isinstance(found[name, None].estimate, WorstClusteredDifference) for name in gaps)
    detail = found["demographic_parity_difference", None].detail
    assert detail.startswith("selection_rate by sex: lowest") and "effective n 250" in detail
    assert (report.data.cluster, report.data.n_clusters, report.data.effective_n) == ("clusters", 500, 500.0)
    assert "10,000 rows of 500 clusters, which count as 500 of one size" in report.data.notes[0]


def test_what_has_no_interval_over_clusters_says_so() -> None:
    rows = table().assign(person=np.arange(600) // 3)
    asked = scanned(rows, probes="group_fairness,performance,robustness,score_fairness", cluster="person")
    of = {f.metric: f for f in asked.findings if f.metric}
    for metric in ("treatment_equality_ratio", "theil_index", "balanced_accuracy_difference", "roc_auc", "log_loss"):
        assert of[metric].outcome is Outcome.NOT_APPLICABLE
        assert of[metric].reason.startswith(f"{metric} cannot be clustered")
    for probe in ("robustness", "score_fairness"):
        (only,) = [f for f in asked.findings if f.probe == probe]
        assert only.outcome is Outcome.NOT_APPLICABLE
        assert only.reason.startswith(f"Numbers of {probe} cannot be clustered") and "--cluster" in only.reason
    shown = [f for f in asked.findings if f.value is not None and f.probe in ("group_fairness", "performance")]
    assert all_of(isinstance(f.estimate, (*CLUSTERED, Exact)) for f in shown)
    assert {"accuracy", "base_rate", "balanced_accuracy"} <= {f.metric for f in shown}
    weighed = scanned(rows, probes="robustness", cluster="person", weight="w")
    (only,) = [f for f in weighed.findings if f.probe == "robustness"]
    assert "cannot be clustered" in only.reason and "cannot be weighed" in only.reason


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_takes_the_design_of_its_rows_or_says_that_it_does_not(name: str) -> None:
    probe = PROBES[name]
    both = Design(cluster="c", clusters=np.arange(4), weight="w", weights=np.ones(4))
    takes = set(getattr(probe, "takes", ()))
    assert takes <= {"cluster", "weight"}
    reason = not_designed_for(probe, both)
    assert ("clustered" in reason) == (looks_at_rows(probe) and "cluster" not in takes)
    assert ("weighed" in reason) == (looks_at_rows(probe) and "weight" not in takes)
    assert not_designed_for(probe, None) == ""


class Careless:
    """Says that it takes clusters, and returns a number that does not."""

    name = "careless"
    pillar = "fairness"
    goal = "Does it?"
    citation = ""
    methods = ("m",)
    needs = ()
    takes = ("cluster",)

    def measure(self, model: object, data: AuditData, rng: object) -> list[Measurement]:
        return [Measurement(metric="share", estimate=Proportion(successes=1, n=len(data)), n_samples=len(data))]


def test_a_probe_that_only_claims_to_take_them_is_not_believed() -> None:
    data = AuditData.from_arrays(pd.DataFrame({"x": [0.1] * 8}), classes=("0", "1"), clusters=[1] * 4 + [2] * 4)
    report = run_audit(MODEL, data, [Careless()], [])  # type: ignore[list-item]
    assert [f.outcome for f in report.findings] == [Outcome.NOT_APPLICABLE]
    assert "share cannot be clustered" in report.findings[0].reason


# ---- weights -------------------------------------------------------------------------------------------------------


def test_weights_are_in_every_number_that_is_shown() -> None:
    rows = table()
    report = scanned(rows, weight="w", probes="group_fairness,performance")
    of = {(f.metric, f.group.get("sex")): f for f in report.findings if f.metric}
    chosen, f = rows["x"] >= 0.5, rows["sex"] == "f"
    rates = [np.average(chosen[own], weights=rows["w"][own]) for own in (f, ~f)]
    assert of["selection_rate", "f"].value == pytest.approx(rates[0])
    assert of["demographic_parity_difference", None].value == pytest.approx(abs(rates[0] - rates[1]))
    right = chosen == rows["y"]
    assert of["accuracy", None].value == pytest.approx(np.average(right, weights=rows["w"]))
    recalls = [np.average(right[rows["y"] == c], weights=rows["w"][rows["y"] == c]) for c in (0, 1)]
    assert of["balanced_accuracy", None].value == pytest.approx(np.mean(recalls))
    assert of["roc_auc", None].reason.startswith("roc_auc cannot be weighed")
    w = rows["w"].to_numpy()
    assert report.data.design_effect == pytest.approx(600 * (w**2).sum() / w.sum() ** 2)
    assert report.data.effective_n == pytest.approx(600 / report.data.design_effect)  # type: ignore[operator]
    assert f"design effect {report.data.design_effect:.3g}" in " ".join(report.data.notes)


def test_weights_that_move_a_verdict_are_seen_to_do_so() -> None:
    """Women who are turned down weigh nothing: the gap is gone, and the gap without weights stands beside it."""
    rows = table(1_000, gap=0.3)
    rows["w"] = np.where((rows["sex"] == "f") & (rows["x"] <= 0.5), 0.0, 1.0)
    report = scanned(rows, weight="w")
    without = judged(scanned(rows.drop(columns="w"))).value
    assert without is not None and without > 0.2
    assert f"without weights: {without:.3f}" in judged(report).detail
    nothing = int((rows["w"] == 0.0).sum())
    assert f"{nothing:,} of 1,000 rows weigh 0 by w: no number counts them." in report.data.notes


def test_a_group_of_which_one_row_has_all_the_weight_is_not_judged_and_loses_nothing_else() -> None:
    rows = table(400)
    rows["w"] = np.where(rows["sex"] == "f", 1e-13, 1.0)
    rows.loc[rows.index[rows["sex"] == "f"][0], "w"] = 1.0
    report = scanned(rows, weight="w")
    assert judged(report).outcome is Outcome.INCONCLUSIVE
    rates = [f for f in report.findings if f.metric == "selection_rate" and f.group]
    assert {f.group["sex"] for f in rates} == {"f", "m"}
    assert any("all of the weight lies in one row or cluster" in f.reason for f in rates)
    assert any(f.interval is not None and f.group["sex"] == "m" for f in rates)


def test_equal_weights_are_no_weights() -> None:
    rows = table().assign(w=7.0)
    weighed, plain = judged(scanned(rows, weight="w")), judged(scanned(rows))
    assert weighed.value == pytest.approx(plain.value)


def test_flips_are_counted_by_cluster() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"sex": rng.integers(0, 2, 300), "x": rng.random(300), "y": rng.integers(0, 2, 300)})
    rows["person"] = np.arange(300) // 3
    taking = AuditedModel.from_callable(
        lambda X: np.clip(X["x"] + 0.2 * X["sex"], 0.0, 1.0).to_numpy(), classes=("0", "1"), features=("sex", "x")
    )
    report = auditor.scan(
        taking, rows, target="y", sensitive=("sex",), probes="counterfactual_fairness", cluster="person",
        criteria=[criterion("counterfactual_flip_rate", "at_most", 0.9)],
    )  # fmt: skip
    at = rows["x"].to_numpy()
    flips = (np.clip(at + 0.2, 0, 1) >= 0.5) != (at >= 0.5)
    assert judged(report).estimate == clustered_mean(flips, rows["person"].to_numpy())
    shifts = [f for f in report.findings if f.metric == "mean_score_shift"]
    assert all_of(f.outcome is Outcome.NOT_APPLICABLE for f in shifts)


# ---- columns -------------------------------------------------------------------------------------------------------


def test_neither_column_is_a_feature_where_nobody_names_the_features() -> None:
    nameless = AuditedModel.from_callable(lambda X: X["x"].to_numpy(), classes=("0", "1"))
    rows = table().assign(person=np.arange(600) % 200)
    data = auditor.load_data(rows, nameless, target="y", sensitive=("sex",), cluster="person", weight="w")
    assert isinstance(data.X, pd.DataFrame) and list(data.X.columns) == ["x", "sex"]
    assert data.design is not None and (data.design.cluster, data.design.weight) == ("person", "w")
    assert data.design.n_clusters == 200
    half = data.take(np.arange(0, 600, 2))
    assert half.design is not None and len(half.design) == 300 and half.design.n_clusters == 100


def test_training_rows_do_not_need_the_columns() -> None:
    rows, others = table(), table(seed=1).drop(columns=["w"])
    data = auditor.load_data(rows, MODEL, target="y", sensitive=("sex",), cluster="id", weight="w", train=others)
    own = data.evaluation.design
    assert own is not None and len(own) == 600 and own.n_clusters == 600
    assert own.weights == pytest.approx(rows["w"].to_numpy() / rows["w"].max())


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        ({"id": [None] + ["a"] * 599}, {"cluster": "id"}, "'id' is empty in 1 rows: --cluster needs to know"),
        ({"w": [-1.0] + [1.0] * 599}, {"weight": "w"}, "'w' holds '-1.0', and a weight is a number of at least 0"),
        ({"w": [None] + [1.0] * 599}, {"weight": "w"}, "'w' holds 'nan', and a weight"),
        ({"w": ["many"] + ["1"] * 599}, {"weight": "w"}, "'w' holds 'many', and a weight"),
        ({"w": [0.0] * 600}, {"weight": "w"}, "'w' is 0 in every row"),
    ],
)
def test_columns_that_cannot_be_are_refused_in_a_sentence(
    change: dict[str, Any], options: dict[str, str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        scanned(table().assign(**change), **options)


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="no column 'idd'.*'id'"):
        scanned(table(), cluster="idd")


def test_ids_that_repeat_are_noted_until_they_are_the_cluster() -> None:
    rows = table().assign(patient=np.arange(600) % 150)
    (note,) = [n for n in scanned(rows).data.notes if "patient" in n]
    assert note.startswith("Column 'patient' names 150 in 600 rows") and note.endswith("without --cluster patient.")
    assert none_of("Column 'patient'" in n for n in scanned(rows, cluster="patient").data.notes)
    assert none_of("Column 'id'" in n for n in scanned(rows).data.notes)


def test_the_report_says_that_rows_are_taken_as_independent() -> None:
    assert "rows that are independent, or whose clusters --cluster names" in " ".join(limits_of())
