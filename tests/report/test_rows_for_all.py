"""How many rows would let everything PASS together: said once, cautiously, and never where rows are not what lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport, DataRecord, Finding, Summary, family_record
from auditor.report.record.summary_lines import RowsForAll, describe_rows_for_all, rows_for_all
from auditor.statistics.attack_estimates import AtMost
from auditor.statistics.estimate import POWER, Exact, Undefined
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rates import Proportion
from cli.terminal import print_report
from tests.report.samples import report_of
from tests.toys.models import criterion

N = 500
NAMES = ("a", "b", "c")


def share(
    name: str, successes: int, n: int = N, *, ideal: float = 0.0, too_few: str = "", group: dict[str, str] | None = None
) -> Measurement:
    estimate = Proportion(successes=successes, n=n)
    return Measurement(metric=name, estimate=estimate, n_samples=n, ideal=ideal, too_few=too_few, group=group or {})


def at_most(*bounds: float) -> list[Criterion]:
    return [criterion(name, "at_most", bound) for name, bound in zip(NAMES, bounds, strict=False)]


def reported(
    measured: Sequence[Measurement], criteria: Sequence[Criterion], *, not_run: str = "", n_rows: int | None = N
) -> AuditReport:
    result = ProbeResult(
        probe="toy", pillar="robustness", citation="", measurements=tuple(measured), not_run=not_run
    )  # fmt: skip
    judged, family = judge([result], criteria)
    findings = [Finding.from_judgement(f) for f in judged]
    whole = report_of([result])
    return whole.model_copy(
        update={
            "findings": tuple(findings),
            "summary": Summary.from_outcomes(f.outcome for f in findings),
            "data": DataRecord(n_rows=n_rows),
            "family": family_record(family),
        }
    )


def test_the_figure_by_hand() -> None:
    """Of two questions each may miss one time in ten, at the 4 % of both together; the stricter one asks for more."""
    measured = [share("a", 3), share("b", 3)]
    found = rows_for_all(reported(measured, at_most(0.012, 0.5)))
    assert found is not None
    strict, loose = (
        measured[0].estimate.growth(bound=bound, alpha=0.04, ideal=0.0, miss=(1.0 - POWER) / 2)
        for bound in (0.012, 0.5)
    )
    assert found == RowsForAll(questions=2, times=strict, asked_by="a") and strict > 0.5 > loose
    # 1 - 0.04 ** (1 / n) <= 0.012 with no success in n rows.
    assert strict * N == pytest.approx(math.log(0.04) / math.log(1.0 - 0.012), rel=0.02)


def test_an_audit_of_so_many_rows_passes_everything_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    ideal, bounds = 0.02, (0.04, 0.045, 0.05)

    def audit(n: int) -> AuditReport:
        drawn = [share(name, int(rng.binomial(n, ideal)), n, ideal=ideal) for name in NAMES]
        return reported(drawn, at_most(*bounds), n_rows=n)

    first = audit(200)
    found = rows_for_all(first)
    assert found is not None and found.questions == 3 and found.asked_by == "a"
    worlds = 150
    n = math.ceil(found.times * 200)
    passed = sum(audit(n).summary.passed == 3 for _ in range(worlds))
    assert passed >= binom.ppf(0.001, worlds, POWER), (n, passed)
    # What the first question needs for itself alone is not enough for all.
    [alone] = [f.n_required for f in first.findings if f.metric == "a"]
    assert alone is not None and alone < n


def test_where_something_failed_or_nothing_is_open_there_is_nothing_to_say() -> None:
    assert describe_rows_for_all(reported([share("a", 250), share("b", 3)], at_most(0.1, 0.012))) == ""
    assert describe_rows_for_all(reported([share("a", 0)], at_most(0.1))) == ""
    assert describe_rows_for_all(reported([share("a", 3)], [])) == ""
    exact = Measurement(metric="b", estimate=Exact(known=0.0), n_samples=N, ideal=0.0)
    found = rows_for_all(reported([share("a", 3), exact], at_most(0.012, 0.5)))
    assert found is not None and found.questions == 1, "what takes no sample takes no part"


def test_what_rows_do_not_plan_is_said() -> None:
    few = area_under_curve(positives=[1.0, 3.0, 5.0, 2.0], negatives=[2.0, 3.0, 4.0, 6.0])
    unplanned = Measurement(metric="b", estimate=few, n_samples=8)
    report = reported([share("a", 3), unplanned], at_most(0.012, 0.5))
    assert [f.outcome for f in report.findings] == [Outcome.INCONCLUSIVE] * 2
    words = describe_rows_for_all(report)
    assert words.startswith("How many rows would do for exit 0 is not known: rows do not plan b. For all the others to")
    below = area_under_curve(positives=np.arange(100.0), negatives=np.arange(100.0) + 200.0)
    passing = replace(unplanned, estimate=below)
    assert describe_rows_for_all(reported([share("a", 3), passing], at_most(0.012, 0.5))).endswith(
        "It is taken that b PASS as they do here."
    )
    barred = share("b", 3, too_few="only a few")
    assert "rows do not plan b." in describe_rows_for_all(reported([share("a", 3), barred], at_most(0.012, 0.5)))
    nothing = Measurement(metric="b", estimate=Undefined(reason="no rows"), n_samples=0, ideal=0.0)
    assert describe_rows_for_all(reported([nothing], [criterion("b", "at_most", 0.5)])) == (
        "How many rows would do for exit 0 is not known: rows do not plan b."
    )
    assert describe_rows_for_all(reported([share("a", 3)], at_most(0.012), not_run="it ran out of time")).startswith(
        "No rows lead to exit 0 while 1 did not run. For all the others to PASS together"
    )


def test_a_group_counts_by_the_factor_and_not_by_its_own_rows() -> None:
    group = {"sex": "f"}
    small = share("a", 1, 50, group=group)
    report = reported([small], [criterion("a", "at_most", 0.05, group=group)])
    [finding] = report.findings
    found = rows_for_all(report)
    assert found is not None and finding.n_required is not None
    assert found.times == pytest.approx(finding.n_required / 50, rel=0.02)
    assert f"{math.ceil(found.times * N - 1e-6):,} in place of {N:,}" in describe_rows_for_all(report)


def test_enough_rows_are_called_enough() -> None:
    report = reported([share("a", 9)], at_most(0.02))
    assert "these rows are enough at the ideal values" in describe_rows_for_all(report)


def test_every_rendering_says_it_and_that_a_single_figure_is_for_its_question_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = reported([share("a", 3), share("b", 2)], at_most(0.005, 0.5))
    words = describe_rows_for_all(report)
    assert words.startswith("For everything judged here to PASS together (exit 0), it takes, at the ideal values,")
    print_report(report, [], verbose=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert words in shown and "four times in five, for this question alone." in shown
    page = " ".join(render_html(report).split())
    assert words in page and "Each figure is for its question alone" in page
    assert words.split(" (exit 0)")[0] in render_markdown(report)


def test_what_can_never_pass_is_said_to_stand_in_the_way() -> None:
    searched = Measurement(metric="b", estimate=AtMost(successes=N, n=N), n_samples=N, ideal=1.0)
    words = describe_rows_for_all(reported([share("a", 3), searched], [*at_most(0.5), criterion("b", "at_least", 0.8)]))
    assert words.startswith("No rows lead to exit 0 while b must PASS: a search that finds nothing proves nothing.")
    assert "not known" not in words and "too near" not in words
