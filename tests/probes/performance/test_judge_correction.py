"""Accuracy by a model that graded, corrected by a person's labels of some samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import auditor
from auditor.core.errors import ConfigError
from auditor.judging.measurement import Measurement, Outcome
from auditor.loading.job_specs import DataSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_logged
from auditor.run.run_audit import run_audit
from auditor.statistics.error_corrected_rates import Corrected, WorstCorrectedDifference
from probes.performance.recorded_evaluation import RecordedEvaluation
from tests.quantifiers import all_of
from tests.toys import logs
from tests.toys.models import criterion

N = 400


def world(
    to: Path, *, right: float = 0.7, sensitivity: Sequence[float] = (0.9, 0.9), labelled: int = 150, seed: int = 0,
    judged: bool = True, absent: int = 0,
) -> tuple[Path, Path]:  # fmt: skip
    """A log that a judge graded, who is as sensitive in either group, and a person's labels of the first samples."""
    rng = np.random.default_rng(seed)
    truth = rng.random(N) < right
    said = np.where(truth, rng.random(N) < np.asarray(sensitivity)[np.arange(N) % 2], rng.random(N) < 0.1)
    scores: list[float | str | None] = [float(s) for s in said]
    scores[N - absent :] = [None] * absent
    log = logs.inspect_log(scores)
    path = logs.write_json(to / "log.json", logs.by_a_judge(log) if judged else log)
    labels = to / "labels.csv"
    rows = [f"{i},{int(truth[i])}" for i in range(labelled)]
    labels.write_text("\n".join(["id,label", *rows]) + "\n", encoding="utf-8")
    return path, labels


def measured(path: Path, labels: Path | None, **more: Any) -> dict[str, Measurement]:
    model, data = load_logged(DataSpec(path=str(path), recorded=RecordedSpec(is_log=True), **more))
    probe = RecordedEvaluation(calibration=None if labels is None else str(labels))
    return {m.metric: m for m in probe.measure(model, data, np.random.default_rng(0)) if not m.group}


def test_a_judges_scores_are_shown_and_not_judged_without_a_persons_labels(tmp_path: Path) -> None:
    path, _ = world(tmp_path, right=0.95)
    model, data = load_logged(DataSpec(path=str(path), recorded=RecordedSpec(is_log=True)))
    report = run_audit(model, data, [RecordedEvaluation()], [criterion("accuracy", "at_least", 0.3)])
    found = next(f for f in report.findings if f.metric == "accuracy")
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "judges/judge-1" in found.reason and "--calibration" in found.reason
    assert measured(world(tmp_path, judged=False)[0], None)["accuracy"].too_few == ""


def test_the_share_is_corrected_by_the_judges_errors(tmp_path: Path) -> None:
    path, labels = world(tmp_path)
    found = measured(path, labels)
    estimate = found["corrected_accuracy"].estimate
    assert isinstance(estimate, Corrected)
    q, se, f = (
        estimate.successes / N,
        estimate.found / estimate.positives,
        1 - estimate.spared[0] / estimate.negatives[0],
    )
    assert estimate.positives + estimate.negatives[0] == 150
    assert estimate.value == pytest.approx((q - f) / (se - f))
    low, high = estimate.interval(0.95)
    raw = found["accuracy"].estimate.interval(0.95)
    assert low < 0.7 < high and high - low > raw[1] - raw[0]
    assert found["accuracy"].too_few and found["corrected_accuracy"].too_few == ""


def test_samples_that_the_judge_did_not_grade_are_bounded_both_ways(tmp_path: Path) -> None:
    whole = measured(*world(tmp_path))["corrected_accuracy"].estimate
    some = measured(*world(tmp_path, absent=40))["corrected_accuracy"].estimate
    assert isinstance(some, Corrected) and some.unlabelled == 40 and some.n == N
    assert some.interval(0.95)[0] < whole.interval(0.95)[0] and some.interval(0.95)[1] > whole.interval(0.95)[1]


def test_errors_of_one_group_alone_are_no_gap_between_groups(tmp_path: Path) -> None:
    path, labels = world(tmp_path, sensitivity=(0.95, 0.6), labelled=N)
    found = measured(path, labels, sensitive=("sex",))
    gap = found["corrected_accuracy_difference"]
    assert isinstance(gap.estimate, WorstCorrectedDifference) and gap.too_few == ""
    assert found["accuracy_difference"].estimate.interval(0.95)[0] > 0.05 and gap.estimate.interval(0.95)[0] == 0.0
    few = measured(*world(tmp_path, labelled=1), sensitive=("sex",))["corrected_accuracy_difference"]
    assert few.too_few


def test_labels_of_other_samples_are_refused(tmp_path: Path) -> None:
    path, labels = world(tmp_path)
    labels.write_text("id,label\nabc,1\n1,0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'abc'"):
        measured(path, labels)
    labels.write_text("id,said\n1,0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="id and label"):
        measured(path, labels)


def test_scores_between_none_and_all_are_not_corrected(tmp_path: Path) -> None:
    _, labels = world(tmp_path)
    path = logs.write_json(tmp_path / "b.json", logs.by_a_judge(logs.inspect_log([0.3, 0.7] * 200)))
    assert "0 and 1" in measured(path, labels)["corrected_accuracy"].estimate.model_dump_json()


@pytest.mark.grid
@pytest.mark.parametrize("right", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("sensitivity", [0.6, 0.95])
def test_the_interval_covers_where_labels_are_a_part_of_the_samples(
    right: float, sensitivity: float, tmp_path: Path
) -> None:
    covered = []
    for seed in range(100):
        rate = measured(*world(tmp_path, right=right, sensitivity=(sensitivity, sensitivity), seed=seed))
        low, high = rate["corrected_accuracy"].estimate.interval(0.95)
        covered.append(low <= right <= high)
    assert sum(covered) >= 90


@pytest.mark.slow
def test_a_scan_takes_the_labels_by_flag(tmp_path: Path) -> None:
    path, labels = world(tmp_path, right=0.9)
    report = auditor.scan(None, log=str(path), calibration=str(labels))
    rates = {f.metric: f for f in report.findings if f.probe == "recorded_evaluation"}
    assert "corrected_accuracy" in rates
    assert all_of(rates[m].outcome is Outcome.NOT_JUDGED for m in ("accuracy", "corrected_accuracy"))


def test_every_harness_says_who_judged(tmp_path: Path) -> None:
    folder = logs.eee_folder(tmp_path / "e", [1.0, 0.0] * 10)
    import json

    content = json.loads((folder / "e.json").read_text())
    judge = {"llm_scoring": {"judges": [{"model_info": {"id": "judges/judge-2"}}]}}
    content["evaluation_results"][0]["metric_config"] = judge
    logs.write_json(folder / "e.json", content)
    model, _ = load_logged(DataSpec(path=str(folder), recorded=RecordedSpec(is_log=True)))
    assert model.log.judge == "judges/judge-2"
    rows = [{"entry_type": "attempt", "uuid": f"a{i}", "seq": i, "status": 2, "probe_classname": "dan.X",
             "detector_results": {"judge.Refusal": [0.0]}} for i in range(5)]  # fmt: skip
    model, _ = load_logged(DataSpec(path=str(logs.write_lines(tmp_path / "g.jsonl", rows)),
                                    recorded=RecordedSpec(is_log=True)))  # fmt: skip
    assert model.log.judge == "judge.Refusal"
