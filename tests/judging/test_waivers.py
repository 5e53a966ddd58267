"""What is inconclusive is waived by pillar or probe, and never where nothing could have FAILed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import auditor
from auditor.core.errors import UsageError
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.report.machine_formats import render_junit
from auditor.report.record.audit_report import AuditReport, ExitCode, exit_code
from auditor.report.report_view import warnings_of
from auditor.run import run_audit
from auditor.run.scan_options import ScanOptions
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from cli.pipeline_gate import gate_reports
from tests.quantifiers import all_of
from tests.toys.models import criterion

MODEL = AuditedModel.from_callable(lambda X: X["x"].to_numpy(float), classes=("0", "1"), features=("x",))
PARITY = criterion("demographic_parity_difference", "at_most", 0.10)
ACCURACY = criterion("accuracy", "at_least", 0.60)


def rows(n: int, off: float = 0.1) -> pd.DataFrame:
    """Two groups of one treatment; ``off``: the share of answers that are wrong."""
    place = np.arange(n)
    x = (place // 2) % 2
    wrong = (place // 4) % round(1 / off) == 0
    return pd.DataFrame({"id": place, "x": x, "y": np.where(wrong, 1 - x, x), "sex": np.where(place % 2, "f", "m")})


def scanned(table: pd.DataFrame, *criteria: Criterion, **options: Any) -> AuditReport:
    return auditor.scan(
        MODEL, table, target="y", sensitive=("sex",), probes="group_fairness,performance", copies_are_real=True,
        criteria=list(criteria) or [PARITY, ACCURACY], **options,
    )  # fmt: skip


def test_a_waiver_is_of_one_pillar_or_probe() -> None:
    # Of 160 rows a gap of 0 is not shown to be at most 0.1; that two of three answers are right is.
    assert scanned(rows(160)).exit_code == ExitCode.INCONCLUSIVE
    for name in ("fairness", "group_fairness"):
        report = scanned(rows(160), allow_inconclusive=(name,))
        assert report.exit_code == ExitCode.PASSED and report.allow_inconclusive == (name,)
    assert scanned(rows(160), allow_inconclusive=("performance",)).exit_code == ExitCode.INCONCLUSIVE
    both = [PARITY, criterion("accuracy", "at_least", 0.89)]
    assert scanned(rows(160), *both, allow_inconclusive=("fairness",)).exit_code == ExitCode.INCONCLUSIVE
    assert scanned(rows(160), *both, allow_inconclusive=("fairness", "performance")).exit_code == ExitCode.PASSED


def test_who_waived_it_and_why_is_on_every_page() -> None:
    report = scanned(rows(160), allow_inconclusive=("fairness=Risk Committee: more rows in May",))
    assert report.exit_code == ExitCode.PASSED
    said = "INCONCLUSIVE findings of fairness (Risk Committee: more rows in May) were waived"
    assert any(said in warning for warning in warnings_of(report))
    marked = "waived by --allow-inconclusive"
    assert (render_junit(report).count(marked), render_junit(scanned(rows(160))).count(marked)) == (1, 0)


def test_nothing_is_waived_where_nothing_could_fail_and_it_says_how_many_rows_it_takes() -> None:
    report = scanned(rows(8), PARITY, allow_inconclusive=("fairness",))
    [finding] = [f for f in report.findings if f.criterion is not None]
    assert finding.powerless.startswith("Of these rows nothing could FAIL")
    assert report.exit_code == ExitCode.INCONCLUSIVE
    assert "nothing could FAIL were not" in " ".join(warnings_of(report))
    # So many more rows could FAIL, were every row of one group selected and none of the other.
    few = scanned(rows(16), PARITY, allow_inconclusive=("fairness",))
    [told] = [f for f in few.findings if f.criterion is not None]
    takes = next((int(word.replace(",", "")) for word in told.powerless.split() if word.replace(",", "").isdigit()), 16)
    split = rows(4 * takes).assign(x=lambda t: (t["sex"] == "f").astype(int))
    assert scanned(split, PARITY).exit_code == ExitCode.FAILED


@pytest.mark.parametrize("name", ["fairnes", "everything", "*", ""])
def test_a_waiver_of_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no pillar or probe"):
        scanned(rows(40), allow_inconclusive=(name,))


def test_it_takes_names_and_no_true() -> None:
    with pytest.raises(ValueError, match=r'such as \["privacy"\]'):
        ScanOptions.from_values({"allow_inconclusive": True})
    assert ScanOptions.from_values({"allow_inconclusive": False}).allow_inconclusive == ()
    assert ScanOptions.from_values({"allow_inconclusive": "privacy"}).allow_inconclusive == ("privacy",)
    # As plans of before say it, so that they are still followed.
    assert ScanOptions().json_values()["allow_inconclusive"] is False


def test_the_gate_waives_by_name_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    path.write_text(scanned(rows(160)).to_json(), encoding="utf-8")
    assert gate_reports([path], waivers=()) == 3
    assert gate_reports([path], waivers=("fairness",)) == 0
    assert "(inconclusive findings of fairness were allowed)" in " ".join(capsys.readouterr().out.split())
    assert gate_reports([path], waivers=("performance",)) == 3
    with pytest.raises(UsageError, match="there is no pillar or probe"):
        gate_reports([path], waivers=("privcy",))


def test_a_record_of_before_waivers_had_names_is_read_and_means_all() -> None:
    report = scanned(rows(160))
    old = AuditReport.from_json(report.to_json().replace('"allow_inconclusive": false', '"allow_inconclusive": true'))
    assert old.allow_inconclusive is True
    assert old.verdict(allow_inconclusive=old.allow_inconclusive) == ExitCode.PASSED
    assert all_of(name in " ".join(warnings_of(old)) for name in ("fairness", "privacy"))


# ---- numbers that nobody set a bound for ---------------------------------------------------------------------------


def undefined(*, by_default: bool, failed: bool = False) -> list[Judgement]:
    """A number within its bound, and another that cannot be had and has none."""
    measured = (
        Measurement(metric="accuracy", estimate=Proportion(successes=99, n=100), n_samples=100, ideal=1.0),
        Measurement(metric="other", estimate=Undefined(reason="0/0", failed=failed), n_samples=100),
    )
    result = ProbeResult(
        probe="performance", pillar="performance", citation="", measurements=measured, by_default=by_default
    )
    return judge([result], [ACCURACY])[0]


@pytest.mark.parametrize(
    ("by_default", "failed", "code"), [(True, False, 0), (False, False, 3), (True, True, 3), (False, True, 3)]
)
def test_what_nobody_set_a_bound_for_changes_no_exit_code_unless_it_was_asked_for_or_failed(
    by_default: bool, failed: bool, code: int
) -> None:
    assert exit_code(undefined(by_default=by_default, failed=failed), was_refused=False) == code


def test_a_scan_says_of_its_probes_whether_they_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[bool] = []

    def watched(results: Any, *rest: Any) -> Any:
        named.extend(result.by_default for result in results if result.probe == "group_fairness")
        return judge(results, *rest)

    monkeypatch.setattr(run_audit, "judge", watched)
    told: dict[str, Any] = {"target": "y", "sensitive": ("sex",), "copies_are_real": True, "criteria": [PARITY]}
    for probes in ({"probes": "group_fairness"}, {}):
        auditor.scan(MODEL, rows(160), **told, **probes)
    assert named == [False, True]
