"""Groups under the share are compared together, so that whoever is split into many small groups is still compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.data.group_counts import GroupCounts
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.report.first_page import first_page
from auditor.report.html import render_html
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.report.record.summary_lines import groups_left_out
from auditor.run.run_audit import run_audit
from auditor.statistics.groups import WorstDifference
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.group_limits import POOLED, SHARE, SmallGroups, compare_groups
from tests.quantifiers import all_of
from tests.toys.models import criterion

PARITY = "demographic_parity_difference"


def table(sizes: dict[str, tuple[int, float]], *, features: tuple[str, ...] = ("race",)) -> GroupCounts:
    """Rows of each group, and the share of them that is selected."""
    counts = np.zeros((len(sizes), 3, 2), np.int64)
    for i, (n, rate) in enumerate(sizes.values()):
        counts[i, 2] = n - round(n * rate), round(n * rate)
    groups = tuple(tuple(name.split(" x ")) for name in sizes)
    return GroupCounts(features, ("no", "yes"), groups, counts, 1)


# 8.5 % of 12,000 rows, in 20 groups of 51.
DENIED = {f"z{i:02}": (51, 0.0) for i in range(20)}
TREATED_ALIKE = {"a": (5_490, 0.497), "b": (5_490, 0.497)}


def audit(small_rate: float, *, split: int = 20, n_small: int = 1_020, n: int = 12_000) -> AuditReport:
    """Two large groups are favoured alike, and ``n_small`` rows in ``split`` groups at ``small_rate``."""
    rng = np.random.default_rng(0)
    place = np.arange(n)
    race = np.where(place < n_small, np.char.add("z", (place % split).astype(str)), np.where(place % 2, "a", "b"))
    rate = np.where(place < n_small, small_rate, 0.497)
    y = (rng.random(n) < rate).astype(int)
    # As good a model for everybody, so that nothing but the groups differs.
    score = np.where(rng.random(n) < 0.9, y, 1 - y) * (0.0 if small_rate == 0.0 else 1.0)
    score = np.where(place < n_small, score, np.where(rng.random(n) < 0.9, y, 1 - y))
    data = AuditData.from_arrays(
        pd.DataFrame({"score": score}), y, classes=("0", "1"), positive=1,
        sensitive_features=pd.DataFrame({"race": race}),
    )  # fmt: skip
    model = AuditedModel.from_callable(lambda rows: rows["score"].to_numpy(float), classes=("0", "1"))
    return run_audit(model, data, [GroupFairness()], [criterion(PARITY, "at_most", 0.10)])


def test_a_group_that_is_denied_wholesale_fails_however_many_names_it_has() -> None:
    """Without the pool parity was 0.008 and the scan exited 0."""
    found = GroupFairness().measure_counts(table(TREATED_ALIKE | DENIED))
    parity = next(m for m in found if m.metric == PARITY)
    assert isinstance(parity.estimate, WorstDifference)
    assert parity.estimate.value == pytest.approx(0.497, abs=1e-3)
    assert parity.estimate.p_value(0.10, "greater") < 1e-15
    [judged] = judge(
        [ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=(parity,))],
        [criterion(PARITY, "at_most", 0.10)],
    )[0]
    assert judged.outcome is Outcome.FAIL
    assert POOLED in parity.detail and "20 groups of under 2 % of the rows compared as one" in parity.detail


def test_the_same_by_an_audit_says_so_on_the_first_page_and_ends_no_sentence_in_the_middle() -> None:
    report = audit(0.0)
    assert report.exit_code == ExitCode.FAILED
    [said] = groups_left_out(report)
    assert said.startswith(
        "By race, 20 groups of under 2 % of the rows are compared as one; each is shown with its own interval: z0 (51)"
    )
    page = render_html(report)
    notes = page[page.index("front-notes") :]
    assert said[:100] in notes[: notes.index("</ul>")]
    rates = [f for f in report.findings if f.metric == "selection_rate" and f.group.get("race", "").startswith("z")]
    assert len(rates) == 20
    assert all_of("compared as one with all groups of under 2 % of the rows" in f.reason + f.detail for f in rates)
    assert all_of(f.interval is not None and f.interval[0] == 0.0 for f in rates)


def test_small_groups_that_are_treated_as_all_others_still_pass() -> None:
    report = audit(0.497)
    assert next(f for f in report.findings if f.metric == PARITY).outcome is Outcome.PASS
    assert report.exit_code == ExitCode.PASSED
    assert first_page(report).headline.startswith("Passes: ")


def test_what_even_together_is_under_the_share_is_left_out_and_said() -> None:
    found = GroupFairness().measure_counts(
        table({"a": (5_000, 0.5), "b": (5_000, 0.5), "c": (90, 0.1), "d": (60, 0.1)})
    )
    share = next(m for m in found if m.metric == SHARE)
    assert share.estimate.value == pytest.approx(150 / 10_150)
    assert "2 groups of under 2 % of the rows, which no number compares" in share.detail
    assert next(m for m in found if m.metric == PARITY).estimate.value == 0.0


def test_no_more_than_two_rows_in_a_hundred_are_ever_uncompared_where_thirty_are() -> None:
    rng = np.random.default_rng(1)
    uncompared = []
    for _ in range(300):
        sizes = rng.integers(1, 400, int(rng.integers(2, 120)))
        counts = table({f"g{i}": (int(n), 0.5) for i, n in enumerate(sizes)})
        compared = compare_groups(counts, SmallGroups(float(rng.uniform(0.0, 0.1)), 30))
        left = counts.n - compared.counts.n
        uncompared.append(left < 30 or left <= 0.02 * counts.n)
        assert compared.gather(counts.sizes()).tolist() == compared.counts.sizes().tolist()
    assert all_of(uncompared)


def test_a_pool_of_fewer_than_thirty_rows_is_no_group_and_the_headline_says_what_it_leaves_out() -> None:
    """29 of 1,300 rows are more than 2 % of them: nobody reads plainly that it passes."""
    report = audit(0.497, split=5, n_small=29, n=1_300)
    share = next(f for f in report.findings if f.metric == SHARE)
    assert share.value == pytest.approx(29 / 1_300)
    passed = report.model_copy(update={"exit_code": int(ExitCode.PASSED)})
    assert "2.2\N{NO-BREAK SPACE}% of the rows are in groups that no number compares" in first_page(passed).headline
    assert "Passes: " not in first_page(passed).headline


def test_nothing_follows_for_a_feature_from_an_intersection_whose_small_groups_are_one() -> None:
    """A pool of small intersections is of several features' groups: that it is near the others bounds none of them."""
    both = {"a x t0": (9_100, 0.5), "b x t0": (9_100, 0.5)}
    both |= {f"{race} x t{i}": (150, rate) for race, rate in (("c", 0.45), ("d", 0.55)) for i in range(6)}
    found = [m for m in GroupFairness().measure_counts(table(both, features=("race", "town"))) if m.metric == PARITY]
    results = [ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=tuple(found))]
    judged = {
        f.measurement.sensitive: f for f in judge(results, [criterion(PARITY, "at_most", 0.10)])[0] if f.measurement
    }
    assert judged["race", "town"].outcome is Outcome.PASS
    assert judged["race",].outcome is Outcome.INCONCLUSIVE
