"""Groups too small to be compared: out of every judged number, never out of sight, and no way to hide a gap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.group_counts import GroupCounts
from auditor.judging.judging import Judgement, judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.summary_lines import SMALL_GROUP_SHARE
from auditor.report.report_view import warnings_of
from auditor.run.run_audit import run_audit
from auditor.statistics.rates import Proportion
from cli.terminal import print_report
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.group_limits import MOST_POOLED, SHARE, SmallGroups
from tests.quantifiers import all_of, none_of
from tests.toys.models import criterion

PARITY = "demographic_parity_difference"


def counts(*groups: tuple[str, int, float]) -> GroupCounts:
    """Groups by name, rows and the share of them that is selected; half of either decision is right."""
    table = np.zeros((len(groups), 3, 2), np.int64)
    for g, (_, n, rate) in enumerate(groups):
        k = round(n * rate)
        for decision, rows in ((0, n - k), (1, k)):
            table[g, 0, decision], table[g, 1, decision] = rows // 2, rows - rows // 2
    return GroupCounts(("race",), ("no", "yes"), tuple((name,) for name, _, _ in groups), table, 1)


def measured(table: GroupCounts, **options: Any) -> list[Measurement]:
    return GroupFairness(**options).measure_counts(table)


def headline(found: list[Measurement], metric: str = PARITY) -> Measurement:
    [one] = [m for m in found if m.metric == metric and m.sensitive and not m.at]
    return one


def judged(found: list[Measurement], bound: float = 0.10) -> Judgement:
    result = ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=(headline(found),))
    [finding] = judge([result], [criterion(PARITY, "at_most", bound)])[0]
    return finding


# ---- the rule ------------------------------------------------------------------------------------------------------


def test_one_group_of_one_percent_no_longer_makes_parity_out_of_reach() -> None:
    table = counts(("a", 500, 0.5), ("b", 490, 0.5), ("c", 10, 0.5))
    without_it, with_it = judged(measured(table, min_share=0)), judged(measured(table))
    assert with_it.outcome is Outcome.PASS and without_it.outcome is Outcome.INCONCLUSIVE
    assert without_it.n_required is not None
    assert without_it.n_required > 25_000, "rows of which 1 % are enough to be compared"
    large = counts(("a", 2_000, 0.5), ("b", 1_960, 0.5), ("c", 40, 0.2))
    assert judged(measured(large)).outcome is Outcome.PASS
    assert judged(measured(large, min_share=0)).outcome is not Outcome.PASS


def test_what_is_left_out_is_named_counted_and_shown() -> None:
    found = measured(counts(("a", 500, 0.5), ("b", 480, 0.5), ("c", 15, 0.2), ("d", 5, 1.0)))
    for m in found:
        if m.sensitive and m.metric != SHARE:
            assert m.detail.startswith("without 2 groups of fewer than 30 rows: c (15), d (5)"), m.metric
            assert m.n_samples == 1_000 and not m.too_few
    share = headline(found, SHARE)
    said = (
        "2 groups of fewer than 30 rows, which no number compares; each is shown with its own interval: c (15), d (5)"
    )
    assert share.estimate.value == 20 / 1_000 and share.detail == said
    shown = [m for m in found if m.metric == "selection_rate" and dict(m.group) == {"race": "c"}]
    assert [m.estimate for m in shown] == [Proportion(successes=3, n=15)]
    assert shown[0].detail == "in no judged number that compares groups, being of fewer than 30 rows"
    assert none_of("no judged number" in m.detail for m in found if dict(m.group) == {"race": "a"})


def test_the_share_decides_where_rows_are_many() -> None:
    found = measured(counts(("a", 9_000, 0.5), ("b", 8_000, 0.5), ("c", 300, 0.5)))
    assert headline(found).detail.startswith("without 1 group of under 2 % of the rows: c (300)")
    assert headline(measured(counts(("a", 9_000, 0.5), ("c", 300, 0.5), ("b", 900, 0.5)), min_share=0.01)).detail[
        :7
    ] != ("without")


def test_a_thousand_rows_are_compared_whatever_their_share() -> None:
    """2,382 of 332,900 people whose gap is .36: their size says that they count, and their share hides nothing."""
    large = (("a", 200_000, 0.5), ("b", 130_518, 0.5))
    found = headline(measured(counts(*large, ("c", 2_382, 0.14))))
    assert found.estimate.value == pytest.approx(0.36, abs=1e-3) and not found.detail.startswith("without")
    assert judged(measured(counts(*large, ("c", 2_382, 0.14)))).outcome is Outcome.FAIL
    left = headline(measured(counts(*large, ("c", 999, 0.14))))
    assert left.detail.startswith("without 1 group of fewer than 1,000 rows: c (999)")
    # Several that are small ones alone are one group of enough rows together.
    pooled = headline(measured(counts(*large, ("c", 600, 0.14), ("d", 600, 0.14))))
    assert pooled.estimate.value == pytest.approx(0.36, abs=1e-3)


def test_without_the_rule_all_groups_are_compared_and_nothing_is_said() -> None:
    found = measured(counts(("a", 1_000, 0.5), ("b", 980, 0.5), ("c", 20, 0.9)), min_share=0)
    assert headline(found).estimate.value == pytest.approx(0.4)
    assert none_of("without" in m.detail or m.metric == SHARE for m in found)


def test_where_no_group_is_small_the_share_is_0() -> None:
    found = measured(counts(("a", 1_000, 0.5), ("b", 980, 0.5)))
    assert headline(found, SHARE).estimate.value == 0.0 and headline(found, SHARE).detail == ""
    assert headline(found).detail.startswith("selection_rate by race: lowest")


@pytest.mark.parametrize("table", [counts(("a", 25, 0.9), ("b", 25, 0.1)), counts(("a", 44, 0.9), ("b", 6, 0.1))])
def test_a_group_with_more_than_a_tenth_of_the_rows_is_never_small(table: GroupCounts) -> None:
    """Few rows are judged as what they are: whoever has more than a tenth of them is compared."""
    found = measured(table)
    assert headline(found).detail[:7] != "without" and not headline(found).too_few
    assert headline(found, SHARE).estimate.value == 0.0


def test_a_plain_gap_in_few_rows_still_fails() -> None:
    assert judged(measured(counts(("a", 25, 1.0), ("b", 25, 0.0)))).outcome is Outcome.FAIL


def test_where_one_group_is_all_that_would_be_left_all_are_compared() -> None:
    """Leaving out the only ones to compare with would hide a gap that few rows can show: 30 of 30 against 10 %."""
    found = measured(counts(("a", 1_960, 0.1), ("b", 30, 1.0), ("c", 10, 0.1)))
    assert judged(found).outcome is Outcome.FAIL
    assert (
        headline(found).estimate
        == headline(measured(counts(("a", 1_960, 0.1), ("b", 30, 1.0), ("c", 10, 0.1)), min_share=0)).estimate
    )
    assert headline(found, SHARE).estimate.value == 0.0
    assert judged(measured(counts(("a", 1_970, 0.5), ("b", 30, 0.5)))).outcome is Outcome.INCONCLUSIVE


def test_groups_of_one_size_stand_or_fall_together() -> None:
    """Names decide nothing: of twelve groups of 1 %, none is left out, because all would be more than a tenth."""
    twelve = [(f"g{i:02}", 100, 0.5) for i in range(12)]
    assert "without" not in headline(measured(counts(("a", 8_800, 0.5), *twelve))).detail
    ten = [(f"g{i:02}", 100, 0.5) for i in range(10)]
    found = measured(counts(("a", 5_000, 0.5), ("b", 4_000, 0.5), *ten))
    assert headline(found).detail.startswith("10 groups of under 2 % of the rows compared as one")
    assert headline(found, SHARE).estimate.value == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_no_more_than_a_tenth_is_left_out_and_the_smallest_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 400, int(rng.integers(2, 120)))
    small = SmallGroups(float(rng.uniform(0.0, MOST_POOLED)), int(rng.integers(1, 200))).small_places(sizes)
    kept = np.setdiff1d(np.arange(sizes.size), small)
    assert sizes[small].sum() <= MOST_POOLED * sizes.sum()
    assert kept.size > 0
    if small.size:
        assert sizes[small].max() < sizes[kept].min()


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [2, 5, 24, 60])
def test_a_group_split_into_small_ones_hides_no_gap(pieces: int) -> None:
    """Two in five rows belong to a group that is selected half as often, under however many names: no PASS, ever."""
    size = 8_000 // pieces
    split = [(f"b{i:02}", size, 0.3) for i in range(pieces)]
    finding = judged(measured(counts(("a", 12_000, 0.6), *split)))
    assert finding.outcome is Outcome.FAIL
    uneven = [(f"b{i:02}", size + i, 0.3) for i in range(pieces)]
    assert judged(measured(counts(("a", 12_000, 0.6), *uneven))).outcome is Outcome.FAIL


def test_intersections_and_classes_have_the_rule_too() -> None:
    rng = np.random.default_rng(0)
    groups = (("f", "x"), ("m", "x"), ("f", "y"), ("m", "y"))
    # Either feature has two large groups, and their intersection a small one.
    table = np.stack([rng.multinomial(n, np.full(12, 1 / 12)).reshape(4, 3) for n in (4_000, 4_000, 150, 3_000)])
    found = measured(GroupCounts(("sex", "town"), ("u", "v", "w"), groups, table, None))
    both = [m for m in found if m.sensitive == ("sex", "town") and m.metric != SHARE]
    assert {str(m.at) for m in both} >= {"{'class': 'u'}", "{'average': 'macro'}", "{'average': 'micro'}"}
    assert all_of(m.detail.startswith("without 1 group of under 2 % of the rows: f x y (150)") for m in both)
    assert none_of("without" in m.detail for m in found if m.sensitive in (("sex",), ("town",)))
    assert [m.estimate.value for m in found if m.metric == SHARE] == [0.0, 0.0, 150 / 11_150]


@pytest.mark.parametrize("options", [{"min_share": 0.2}, {"min_share": -0.1}, {"min_share": True}, {"min_rows": 0}])
def test_a_rule_that_could_hide_a_large_group_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="min_share must lie between 0 and 0.1|min_rows"):
        GroupFairness(**options)


# ---- an audit ------------------------------------------------------------------------------------------------------


def audit(small_rate: float, *, n_small: int = 40, **options: Any) -> AuditReport:
    """Of two large groups that are treated alike and a small one, whose rows are all decided alike at 0 and at 1."""
    rng = np.random.default_rng(3)
    n = 4_000
    race = np.where(np.arange(n) < n_small, "tiny", np.where(rng.random(n) < 0.5, "a", "b"))
    y = rng.random(n) < 0.5
    p = np.where(race == "tiny", small_rate, np.where(y, 0.9, 0.1))
    data = AuditData.from_arrays(
        pd.DataFrame({"p": p}), y.astype(int), classes=("0", "1"), sensitive_features=pd.DataFrame({"race": race})
    )
    model = AuditedModel.from_callable(lambda rows: rows["p"].to_numpy(), classes=("0", "1"))
    return run_audit(model, data, [GroupFairness(**options)], [criterion(PARITY, "at_most", 0.10)])


def parity(report: AuditReport) -> Outcome:
    [finding] = [f for f in report.findings if f.metric == PARITY]
    return finding.outcome


def test_a_left_out_group_that_is_answered_alike_makes_no_pass_empty() -> None:
    """A group that is compared does: nothing is known of how its rows are treated."""
    assert parity(audit(1.0)) is Outcome.PASS
    [vacuous] = [f for f in audit(0.0, n_small=400).findings if f.metric == PARITY]
    assert vacuous.outcome is not Outcome.PASS and vacuous.vacuous.startswith("The model answers all 400 rows of race")


def test_the_first_page_of_every_rendering_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    report = audit(1.0)
    said = (
        "By race, 1\N{NO-BREAK SPACE}% of the rows are in 1 group of under 2 % of the rows, which no number compares;"
    )
    assert [w for w in warnings_of(report) if w.startswith(said)]
    print_report(report, [], verbose=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(said.split()) in shown
    page, text = render_html(report), render_markdown(report)
    assert said in page and page.index(said) < page.index('class="tally-bar"')
    assert "tiny" in text and text.index("By race") < text.index("PASS** |")
    quiet = audit(1.0, min_share=0)
    assert none_of("By race" in w for w in ["", *warnings_of(quiet)])


def test_the_report_reads_what_the_probe_says() -> None:
    assert SHARE == SMALL_GROUP_SHARE
