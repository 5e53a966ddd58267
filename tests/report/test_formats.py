"""Every rendering for other tools: valid by its own schema or library, whole, and safe whatever names are in it."""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from auditor.core.errors import DataError, MissingExtraError, UsageError
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.loading.sandbox.measuring_process import scratch_folder
from auditor.report import report_view
from auditor.report.machine_formats import COLUMNS, render_csv, render_junit, render_sarif
from auditor.report.model_card_and_bom import TO_BE_STATED, measured_rows, render_model_card, render_toolkit_json
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.report_formats import FILE_NAMES, known_formats, render
from auditor.statistics.rates import Proportion
from cli.report_outputs import alone_in, read_report, write_report
from tests.quantifiers import all_of
from tests.report.samples import HOSTILE, privacy, refused_report, report_of, sample_report

REPORTS = {
    "sample": sample_report,
    "hostile": lambda: sample_report(hostile=True),
    "refused": refused_report,
    "empty": lambda: report_of([]),
}
FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", " =1", "\r=1")


@pytest.fixture(scope="module", params=REPORTS)
def report(request: pytest.FixtureRequest) -> AuditReport:
    """A report with everything, one full of nasty names, a refusal, one without findings."""
    return REPORTS[request.param]()


def nothing_invisible(written: str) -> bool:
    """Whether no control or bidirectional character of the data is in it."""
    return not set("\u202e\u2066\x00\x07\x1b") & set(written)


# ---- SARIF ---------------------------------------------------------------------------------------------------------


def _log(report: AuditReport) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(render_sarif(report))
    return log


def test_sarif_is_valid_by_the_types_of_its_schema(report: AuditReport) -> None:
    model = pytest.importorskip("pydantic_sarif.model", reason="the test group is not installed: pydantic-sarif")
    types = model.StaticAnalysisResultsFormatSarifVersion210JsonSchema
    types.model_validate_json(render_sarif(report))
    for name, wrong in (("level", "grave"), ("kind", "maybe"), ("message", None), ("surprise", 1)):
        log = _log(sample_report())
        log["runs"][0]["results"][0][name] = wrong
        with pytest.raises(ValueError, match="validation error"):
            types.model_validate(log)


def test_sarif_keeps_the_rules_that_its_schema_cannot_say(report: AuditReport) -> None:
    run = _log(report)["runs"][0]
    rules = [r["id"] for r in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    fingerprints = [r["partialFingerprints"]["auditorFinding/v1"] for r in run["results"]]
    assert len(fingerprints) == len(set(fingerprints))
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        # SARIF 2.1.0, 3.27.10: what is no problem has no level.
        assert (result["level"] == "none") == (result["kind"] != "fail")


def test_sarif_has_the_warnings_of_the_record(report: AuditReport) -> None:
    waived = report.model_copy(update={"allow_inconclusive": True})
    found = [
        n for n in _log(waived)["runs"][0]["invocations"][0]["toolExecutionNotifications"] if n["level"] != "error"
    ]
    expected = [("warning", "note", number_text.visible(warning)) for warning in report_view.warnings_of(waived)]
    assert len(expected) > 0
    assert [(n["level"], n["descriptor"]["id"], n["message"]["text"]) for n in found] == expected


def test_sarif_levels_follow_the_outcomes(report: AuditReport) -> None:
    run = _log(report)["runs"][0]
    levels = Counter((r["properties"]["outcome"], r["level"]) for r in run["results"])
    detail = sum(report_view.is_detail(f) for f in report.findings)
    expected = {
        ("FAIL", "error"): report.summary.fail,
        ("INCONCLUSIVE", "warning"): report.summary.inconclusive,
        ("PASS", "none"): report.summary.passed,
        ("NOT_APPLICABLE", "none"): report.summary.not_applicable,
        ("NOT_JUDGED", "none"): report.summary.not_judged - detail,
    }
    assert levels == Counter({k: n for k, n in expected.items() if n})
    invocation = run["invocations"][0]
    errors = [n for n in invocation["toolExecutionNotifications"] if n["level"] == "error"]
    assert len(errors) == report.summary.not_run + (report.refusal is not None)
    assert invocation["executionSuccessful"] == (not errors)
    assert invocation["exitCode"] == report.exit_code


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("models/a b.pt", "models/a%20b.pt"),
        ("/m/x#1?.pt", "file:///m/x%231%3F.pt"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        (None, "model-in-memory"),
    ],
)
def test_a_path_becomes_a_uri_that_names_no_scheme_of_its_own(path: str | None, uri: str) -> None:
    base = sample_report()
    run = _log(base.model_copy(update={"model": base.model.model_copy(update={"path": path})}))["runs"][0]
    assert {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]} == {uri}


# ---- JUnit XML: no published schema, so what Jenkins's reader requires is checked by hand --------------------------


def test_junit_has_what_its_readers_require(report: AuditReport) -> None:
    root = ElementTree.fromstring(render_junit(report))
    assert root.tag == "testsuites" and {s.tag for s in root} == {"testsuite"}
    totals = Counter[str]()
    for suite in root:
        cases = list(suite)
        assert {c.tag for c in cases} == {"testcase"} and suite.attrib["name"]
        assert all_of(c.attrib["name"] and c.attrib["classname"] and float(c.attrib["time"]) >= 0 for c in cases)
        assert all_of(len(c) <= 1 for c in cases)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[name]) == len(suite.findall(f"testcase/{tag}"))
        assert int(suite.attrib["tests"]) == len(cases)
        totals.update({n: int(suite.attrib[n]) for n in ("tests", "failures", "errors", "skipped")})
    assert {n: int(root.attrib[n]) for n in totals} == dict(totals)


def test_junit_is_green_for_a_pass_alone(report: AuditReport) -> None:
    root = ElementTree.fromstring(render_junit(report))
    s = report.summary
    detail = sum(report_view.is_detail(f) for f in report.findings)
    found = Counter(c[0].tag for c in root.iter("testcase"))
    verdict = root[-1][0]
    assert verdict.attrib["name"] == "verdict"
    found[verdict[0].tag] -= 1
    assert {k: n for k, n in found.items() if n} == {
        k: n
        for k, n in {
            "failure": s.fail,
            "error": s.inconclusive + s.not_run,
            "skipped": s.not_applicable + s.not_judged - detail,
            "system-out": s.passed,
        }.items()
        if n
    }
    assert verdict[0].tag == {0: "system-out", 1: "failure"}.get(report.exit_code, "error")


def test_junit_of_nothing_judged_is_an_error() -> None:
    nothing = report_of([]).model_copy(update={"findings": ()})
    root = ElementTree.fromstring(render_junit(nothing))
    assert root.attrib["errors"] == "1" and "not a pass" in root[-1][0][0].attrib["message"]


def test_junit_says_what_was_waived() -> None:
    report = report_of([privacy()], allow_inconclusive=True)
    root = ElementTree.fromstring(render_junit(report))
    waived = [c for c in root.iter("skipped") if "waived by --allow-inconclusive" in c.attrib["message"]]
    assert len(waived) == report.summary.inconclusive > 0
    # What did not run is not waived, and neither is the verdict that follows from it.
    assert (root.attrib["errors"], report.summary.not_run, report.exit_code) == ("2", 1, 3)


# ---- CSV -----------------------------------------------------------------------------------------------------------


def _table(report: AuditReport) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(report), newline="")))


def test_csv_gives_every_finding_back_in_full(report: AuditReport) -> None:
    rows = _table(report)
    assert len(rows) == len(report.findings)
    assert render_csv(report).split("\r\n")[0] == ",".join(COLUMNS)
    for row, finding in zip(rows, report.findings, strict=True):
        assert row["outcome"] == finding.outcome and row["document"] == report_view.document_id(report)
        low, high = finding.interval or (None, None)
        for name, number in (("value", finding.value), ("interval_low", low), ("interval_high", high)):
            assert (float(row[name]) if row[name] else None) == number
        if finding.group:
            visible = {number_text.visible(k): number_text.visible(v) for k, v in finding.group.items()}
            assert {k: number_text.visible(v) for k, v in json.loads(row["group"]).items()} == visible
        if finding.criterion is not None:
            bounds = [float(row[n]) for n in ("bound_low", "bound_high") if row[n]]
            assert bounds == [b for b in finding.criterion.required if math.isfinite(b)]


def test_no_text_of_a_csv_is_a_formula() -> None:
    base = sample_report()
    findings = tuple(
        f.model_copy(update={"reason": FORMULAS[i % len(FORMULAS)], "metric": FORMULAS[i % len(FORMULAS)]})
        for i, f in enumerate(base.findings)
    )
    for row in _table(base.model_copy(update={"findings": findings})):
        for name, cell in row.items():
            number = name in ("value", "interval_low", "interval_high") and cell
            if cell.lstrip().startswith(("=", "+", "-", "@")):
                assert number and math.isfinite(float(cell))


# ---- model card ----------------------------------------------------------------------------------------------------


def test_the_hub_reads_every_number_of_the_model_card(report: AuditReport) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(render_model_card(report), ignore_metadata_errors=False)
    rows = measured_rows(report_view.rows_of(report.findings))
    results = card.data.eval_results or []
    assert sorted(r.metric_value for r in results) == sorted(float(row.finding.value or 0.0) for row in rows)
    assert [r for r in results if r.verified] == []  # a refused audit has none at all
    by_name = {r.metric_name: r for r in results}
    for row in rows:
        found = by_name[number_text.visible(f"{row.name} {row.where}".strip())]
        assert found.metric_args["outcome"] in set(Outcome)
        if row.finding.interval is not None and row.name == "demographic_parity_difference":
            assert found.metric_args["interval"] == list(row.finding.interval)
    assert "Not legal advice" in card.text and TO_BE_STATED in card.text


# The parts of the Model Card Toolkit's model_card.schema.json v0.0.2 that this card fills, typed out: the package that
# ships it needs TensorFlow.
_TEXT = {"type": "string"}


def _object(*required: str, **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TOOLKIT = _object(
    "schema_version",
    schema_version={"const": "0.0.2"},
    model_details=_object(
        "name", name=_TEXT, overview=_TEXT, documentation=_TEXT, path=_TEXT, version=_object("name", name=_TEXT)
    ),
    model_parameters=_object(
        model_architecture=_TEXT,
        data={
            "type": "array",
            "items": _object(
                name=_TEXT,
                description=_TEXT,
                sensitive=_object(sensitive_data={"type": "array", "items": _TEXT}),
            ),
        },
    ),
    quantitative_analysis=_object(
        performance_metrics={
            "type": "array",
            "items": _object(
                "type",
                "value",
                type=_TEXT,
                value=_TEXT,
                slice=_TEXT,
                confidence_interval=_object(lower_bound=_TEXT, upper_bound=_TEXT),
            ),
        }
    ),
    considerations=_object(
        limitations={"type": "array", "items": _object("description", description=_TEXT)},
        ethical_considerations={
            "type": "array",
            "items": _object("name", name=_TEXT, mitigation_strategy=_TEXT),
        },
    ),
)


def test_the_toolkit_card_has_the_fields_of_its_schema(report: AuditReport) -> None:
    card = json.loads(render_toolkit_json(report))
    jsonschema.validate(card, _TOOLKIT)
    metrics = card["quantitative_analysis"]["performance_metrics"]
    rows = measured_rows(report_view.rows_of(report.findings))
    assert [float(m["value"]) for m in metrics] == [r.finding.value for r in rows]
    assert len(card["considerations"]["ethical_considerations"]) == report.summary.fail
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(card | {"model_details": {"title": "x"}}, _TOOLKIT)


# ---- ML-BOM --------------------------------------------------------------------------------------------------------


def test_the_bill_of_materials_is_valid_and_says_what_was_audited(report: AuditReport) -> None:
    pytest.importorskip("cyclonedx", reason="the extra `bom` is not installed")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    from auditor.report.model_card_and_bom import render_ml_bom

    written = render_ml_bom(report)
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(written) is None
    assert render_ml_bom(report) == written
    bill = json.loads(written)
    subject = bill["metadata"]["component"]
    assert subject["type"] == "machine-learning-model"
    if report.model.sha256:
        assert subject["hashes"] == [{"alg": "SHA-256", "content": report.model.sha256}]
    packages = {c["name"]: c["version"] for c in bill["components"] if c["type"] == "library"}
    assert packages == report.environment.packages
    metrics = subject["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert len(metrics) == len(measured_rows(report_view.rows_of(report.findings)))
    subject["modelCard"]["surprise"] = 1
    assert validator.validate_str(json.dumps(bill)) is not None


# ---- all of them ---------------------------------------------------------------------------------------------------

LIGHT = [name for name in FILE_NAMES if name not in ("pdf", "pdf-appendix", "ml-bom", "json")]


def nasty_report() -> AuditReport:
    """The hostile sample with every nasty name as a metric, a reason and a detail of what was judged as well."""
    base = sample_report(hostile=True)
    names = iter(HOSTILE * 100)
    findings = tuple(
        f
        if report_view.is_detail(f)
        else f.model_copy(update={"metric": f.metric and name, "reason": name, "detail": name, "probe": name})
        for f in base.findings
        for name in [next(names)]
    )
    return base.model_copy(update={"findings": findings})


@pytest.mark.grid
@pytest.mark.parametrize("name", LIGHT)
def test_nasty_names_stay_names_in_every_format(name: str) -> None:
    written = render(nasty_report(), name).decode()
    assert nothing_invisible(written)
    # A backslash is doubled where the format has it so.
    assert any(re.search(rf"admin{slash}u202etxt", written) for slash in (r"\\", r"\\\\"))
    if name in ("html", "junit"):
        assert "<script>alert" not in written and "<img" not in written
    if name == "markdown" or name == "model-card":
        # Outside of code spans nothing opens an element, a link or a heading.
        body = written.split("\n---\n", 1)[-1]
        prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", body)
        assert not re.search(r"(?<!\\)<(?!!-- -->)|(?<!\\)\]\(", prose)
        assert not re.search(r"^# g", body, re.MULTILINE)


@pytest.mark.parametrize("name", LIGHT)
def test_the_same_record_gives_the_same_bytes(name: str) -> None:
    first, again = (render(sample_report(), name) for _ in range(2))
    assert first == again


def test_every_format_says_that_it_is_no_legal_advice() -> None:
    for name in LIGHT:
        if name != "csv":  # a table has no place for it
            assert b"legal advice" in render(sample_report(), name), name


def test_five_hundred_findings_are_quick_in_every_light_format() -> None:
    rates = [
        Measurement(
            metric="selection_rate",
            estimate=Proportion(successes=40 + i % 7, n=100),
            n_samples=100,
            group={"postcode": f"z{i}"},
        )
        for i in range(500)
    ]
    report = report_of(
        [ProbeResult(probe="group_fairness", pillar="fairness", citation="c", measurements=tuple(rates))]
    )
    for name in LIGHT:
        start = time.perf_counter()
        render(report, name)
        assert time.perf_counter() - start < 5.0, name


def test_rendering_needs_neither_torch_nor_pandas(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
    formats = ",".join(n for n in LIGHT)
    code = (
        "import sys\nfrom auditor.report.record.report_formats import render\n"
        "from cli.report_outputs import read_report\nfrom pathlib import Path\n"
        f"report = read_report(Path({str(tmp_path)!r}))\n"
        f"for name in {formats!r}.split(','): render(report, name)\n"
        "sys.exit(', '.join(m for m in ('torch', 'pandas', 'transformers', 'sklearn') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_the_help_names_every_format() -> None:
    from cli.commands import FORMATS

    assert FORMATS.split(",") == list(FILE_NAMES)


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'sarif'"):
        known_formats(["sariff"])


@pytest.mark.parametrize(("name", "extra"), [("pdf", "pdf"), ("pdf-appendix", "pdf"), ("ml-bom", "bom")])
def test_a_format_whose_extra_is_absent_names_it(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr("auditor.report.record.report_formats.find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=rf"responsible-auditor\[{extra}\]"):
        known_formats([name])
    assert known_formats(["html", "csv"]) == ["html", "csv"]


def test_a_record_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    for version in ("1.1", "2.0", "10.0", "next"):
        report = sample_report().model_copy(update={"schema_version": version})
        with pytest.raises(DataError, match="reads schemas up to 1.0"):
            AuditReport.from_json(report.to_json())
        (tmp_path / "report.json").write_text(report.to_json(), encoding="utf-8")
        with pytest.raises(UsageError, match="reads schemas up to 1.0"):
            read_report(tmp_path)
    newer = json.loads(sample_report().to_json()) | {"schema_version": "1.1", "horoscope": {}}
    with pytest.raises(DataError, match="reads schemas up to 1.0"):
        AuditReport.from_json(json.dumps(newer))


def _left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_read_only_folder_is_said_and_left_alone() -> None:
    out = Path(tempfile.mkdtemp())
    out.chmod(0o555)
    report, root = sample_report(), os.geteuid() == 0
    render(report, "csv")
    try:
        if root:  # who may write anywhere, so somebody else tries
            os.seteuid(65534)
        with pytest.raises(
            UsageError, match="could not be written into .*Permission denied.* the record lies in"
        ) as caught:
            write_report(report, out, ["json", "csv"])
    finally:
        if root:
            os.seteuid(0)
    assert _left_in(out) == []
    out.rmdir()
    shutil.rmtree(Path(str(caught.value).rsplit(" in ", 1)[1].rstrip(".")).parent)


def test_a_folder_that_is_a_file_is_said_and_the_record_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("not a folder", encoding="utf-8")
    with pytest.raises(UsageError, match="the record lies in") as caught:
        write_report(sample_report(), out, ["csv"])
    kept = Path(str(caught.value).rsplit(" in ", 1)[1].rstrip("."))
    assert AuditReport.from_json(kept.read_bytes()) == sample_report()
    kept.unlink()
    kept.parent.rmdir()


def test_two_audits_that_end_at_once_publish_one_after_the_other(tmp_path: Path) -> None:
    out, second = tmp_path / "out", threading.Event()

    def publish() -> None:
        with alone_in(out):
            second.set()

    other = threading.Thread(target=publish)
    with alone_in(out):
        other.start()
        assert not second.wait(0.3)
    assert second.wait(10)
    other.join()


def test_a_folder_that_knows_no_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with alone_in(tmp_path / "out"):
        written = write_report(sample_report(), tmp_path / "out", ["csv"])
    assert [Path(path).read_bytes() for path in written] == [render(sample_report(), "csv")]
    with scratch_folder() as folder:
        assert Path(folder).is_dir()
    assert not Path(folder).exists()


def test_where_no_folder_can_be_the_record_is_kept_as_ever(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder", encoding="utf-8")
    with alone_in(tmp_path / "out"), pytest.raises(UsageError, match="the record lies in") as caught:
        write_report(sample_report(), tmp_path / "out", ["csv"])
    shutil.rmtree(Path(str(caught.value).rsplit(" in ", 1)[1].rstrip(".")).parent)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """No file may grow beyond 20 kB, so the report fits nowhere, not even where it would be rescued to."""
    (tmp_path / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cli.commands", "report", str(tmp_path), "--format", "csv,html", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written into" in done.stderr and "nor could the record be kept" in done.stderr
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert _left_in(out) == [] and _left_in(scratch) == []
