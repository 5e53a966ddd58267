"""Records in the form of Every Eval Ever, held to its schema."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from auditor.loading.job_specs import DataSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_logged
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.report_formats import render
from auditor.run.run_audit import run_audit
from probes.performance.recorded_evaluation import RecordedEvaluation
from tests.quantifiers import all_of
from tests.report.samples import sample_report
from tests.toys import logs

# The validator of every-eval-ever 0.3.0 wants Python 3.12: `every_eval_ever validate` on such a file says the same.
SCHEMA = json.loads((Path(__file__).parent / "eee.schema.json").read_text(encoding="utf-8"))


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
