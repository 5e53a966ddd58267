"""Records in the form of Every Eval Ever, held to its schema."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from auditor.core.errors import UsageError
from auditor.loading.job_specs import DataSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_logged
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About, ModelIdentity
from auditor.report.record.report_formats import render
from auditor.run.run_audit import run_audit
from probes.performance.recorded_evaluation import RecordedEvaluation
from tests.quantifiers import all_of
from tests.report.samples import sample_report
from tests.toys import logs

# The validator of every-eval-ever 0.3.0 wants Python 3.12: `every_eval_ever validate` on such a file says the same.
SCHEMA = json.loads((Path(__file__).parent / "eee.schema.json").read_text(encoding="utf-8"))


INSTANCES = json.loads((Path(__file__).parent / "eee_instances.schema.json").read_text(encoding="utf-8"))


def written(report: AuditReport) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(render(report, "eee"))
    return content


@pytest.mark.parametrize("hostile", [False, True])
def test_a_record_fits_the_schema(hostile: bool) -> None:
    content = written(sample_report(hostile=hostile))
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(content, SCHEMA)
    assert content["schema_version"] == SCHEMA["version"]
    del content["evaluation_results"][0]["score_details"]["score"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)


def test_every_number_is_there_with_its_interval_and_method() -> None:
    report = sample_report()
    results = {each["evaluation_result_id"]: each for each in written(report)["evaluation_results"]}
    numbers = [f for f in report.findings if f.value is not None and math.isfinite(f.value)]
    assert len(results) == len(numbers) > 5
    for finding in numbers:
        details = results[finding.id]["score_details"]
        assert details["score"] == finding.value and details["details"]["outcome"] == finding.outcome.value
        interval = details["uncertainty"].get("confidence_interval")
        if interval is not None:
            assert (interval["lower"], interval["upper"]) == finding.interval
            assert interval["confidence_level"] == finding.confidence and interval["method"]
    some = [r["score_details"]["uncertainty"] for r in results.values()]
    assert sum("confidence_interval" in each for each in some) > len(some) / 2
    assert all_of(
        r["metric_config"]["min_score"] == "-Infinity" or r["metric_config"]["min_score"] <= r["score_details"]["score"]
        for r in results.values()
        if "min_score" in r["metric_config"]
    )


def test_what_has_no_number_is_counted() -> None:
    report = sample_report()
    missing = len(report.findings) - len(written(report)["evaluation_results"])
    details = written(report)["eval_library"]["additional_details"]
    assert missing > 0 and details["findings_without_a_number"] == str(missing)


def test_a_log_that_was_audited_stands_beside_others(tmp_path: Path) -> None:
    path = logs.write_json(tmp_path / "a.json", logs.inspect_log([1.0] * 45 + [0.0] * 5))
    model, data = load_logged(DataSpec(path=str(path), recorded=RecordedSpec(is_log=True)))
    content = written(run_audit(model, data, [RecordedEvaluation()], []))
    jsonschema.validate(content, SCHEMA)
    accuracy = next(r for r in content["evaluation_results"] if r["metric_config"]["metric_name"] == "accuracy")
    assert accuracy["score_details"]["score"] == 0.9 and not accuracy["metric_config"]["lower_is_better"]
    interval = accuracy["score_details"]["uncertainty"]["confidence_interval"]
    assert interval["lower"] < 0.9 < interval["upper"] and "binomial" in interval["method"]


LOGS: dict[str, Callable[[Path], Path]] = {
    "Inspect": lambda to: logs.write_json(to / "a.json", logs.inspect_log([1.0, 0.0])),
    "lm-eval": lambda to: logs.lm_eval_folder(to / "a", {"arc": [1.0, 0.0]}),
    "HELM": lambda to: logs.helm_folder(to / "a", [1.0, 0.0]),
    "EEE": lambda to: logs.eee_folder(to / "a", [1.0, 0.0]),
}


@pytest.mark.parametrize("kind", LOGS)
def test_the_model_has_the_name_that_its_log_states_unless_audit_toml_names_it(kind: str, tmp_path: Path) -> None:
    score = ("exact_match",) if kind == "HELM" else ()
    spec = DataSpec(path=str(LOGS[kind](tmp_path)), recorded=RecordedSpec(is_log=True, score=score))
    report = run_audit(*load_logged(spec), [RecordedEvaluation()], [])
    info = written(report)["model_info"]
    assert info["name"] == info["id"] == report.model.stated_name == logs.MODEL
    assert info["additional_details"]["name_stated_by"] == "the audited log"
    named = report.model_copy(update={"about": About(model=ModelIdentity(name="ours"))})
    info = written(named)["model_info"]
    assert info["name"] == "ours" and "name_stated_by" not in info["additional_details"]


def test_instances_of_the_schema_are_read_by_the_result_that_they_are_of(tmp_path: Path) -> None:
    folder = logs.eee_folder(tmp_path / "a", [1.0, 0.0, 1.0], metrics=("acc", "f1"))
    rows = [json.loads(line) for line in (folder / "e_samples.jsonl").read_text().splitlines()]
    jsonschema.Draft7Validator.check_schema(INSTANCES)
    assert len(rows) == 6 and all_of(jsonschema.Draft7Validator(INSTANCES).is_valid(row) for row in rows)
    assert not jsonschema.Draft7Validator(INSTANCES).is_valid({**rows[0], "input": None})
    with pytest.raises(UsageError, match="acc, f1"):
        load_logged(DataSpec(path=str(folder), recorded=RecordedSpec(is_log=True)))
    model, data = load_logged(DataSpec(path=str(folder), recorded=RecordedSpec(is_log=True, score=("f1",))))
    assert len(data) == 3 and model.log.contradictions == () and model.log.entries == 3  # type: ignore[attr-defined]


def test_what_errored_is_left_out_of_the_aggregates_count_and_is_a_sample(tmp_path: Path) -> None:
    failed = {"error": "boom", "evaluation_result_id": None, "evaluation": {"score": 0.0}}
    folder = logs.eee_folder(
        tmp_path / "a", [1.0, 0.0, 1.0, 0.0], score=0.667, num_samples=3, edited=lambda rows: rows[3].update(failed)
    )
    aggregate = json.loads((folder / "e.json").read_text())
    model, data = load_logged(DataSpec(path=str(folder), recorded=RecordedSpec(is_log=True)))
    # Its checksum is of another file, and that is all.
    assert [kind for kind, _ in model.log.contradictions] == ["contradicted_metrics"]  # type: ignore[attr-defined]
    del aggregate["detailed_evaluation_results"]
    logs.write_json(folder / "e.json", aggregate)
    model, data = load_logged(DataSpec(path=str(folder), recorded=RecordedSpec(is_log=True)))
    log = model.log  # type: ignore[attr-defined]
    assert (len(data), log.errored, log.unread, log.contradictions) == (4, 1, 0, ())


def test_repeats_of_an_instance_are_one_sample(tmp_path: Path) -> None:
    folder = logs.eee_folder(tmp_path / "a", [1.0, 0.0])
    rows = [json.loads(line) for line in (folder / "e_samples.jsonl").read_text().splitlines()]
    again = [row | {"metadata": {"epoch": "2"}} for row in rows]
    path = logs.write_lines(folder / "e_samples.jsonl", [*rows, *again])
    model, data = load_logged(DataSpec(path=str(path), recorded=RecordedSpec(is_log=True)))
    log = model.log  # type: ignore[attr-defined]
    assert (len(data), log.entries, log.epochs, log.contradictions) == (2, 4, 2, ())
