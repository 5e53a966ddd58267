"""n of the group metrics is rows of the file, and a file of ``n_required`` rows decides four times in five."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

import probes.fairness.group_metrics
from auditor.data.audit_data import AuditData
from auditor.data.group_counts import GroupCounts
from auditor.judging.judging import Family, Judgement, judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.statistics.estimate import POWER
from probes.fairness.change_since_reference import Change
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.score_fairness import ScoreFairness
from tests.quantifiers import all_of
from tests.statistics.together import together
from tests.toys.models import criterion

CLASSES = ("no", "yes")
# Shares of the groups, of the favourable label in each, and the rates of a model that treats them alike.
SHARES, BASE, TPR, FPR = (0.5, 0.3, 0.2), 0.4, 0.8, 0.3
WORLDS, LEVEL = 100, 0.01
BOUNDS = {
    "demographic_parity_difference": ("at_most", 0.10),
    "demographic_parity_ratio": ("at_least", 0.80),
    "equalized_odds_difference": ("at_most", 0.10),
    "equal_opportunity_difference": ("at_most", 0.10),
    "false_positive_rate_difference": ("at_most", 0.10),
    "false_negative_rate_difference": ("at_most", 0.10),
    "predictive_parity_difference": ("at_most", 0.10),
    "balanced_accuracy_difference": ("at_most", 0.10),
    "accuracy_difference": ("at_most", 0.10),
    "equalized_odds_ratio": ("at_least", 0.80),
    "differential_fairness_epsilon": ("at_most", 0.30),
    "treatment_equality_ratio": ("at_least", 0.50),
}
# The rest are told by the same arithmetic, and take seconds together.
QUICK = ("demographic_parity_difference", "equal_opportunity_difference", "differential_fairness_epsilon")


def drawn(rng: np.random.Generator, n: int) -> GroupCounts:
    """A table of n rows of a model that treats three groups alike."""
    cells = np.zeros((3, 3, 2))
    for g, share in enumerate(SHARES):
        for label, p, rate in ((0, 1.0 - BASE, FPR), (1, BASE, TPR)):
            cells[g, label] = share * p * (1.0 - rate), share * p * rate
    table = rng.multinomial(n, cells.ravel()).reshape(cells.shape)
    return GroupCounts(("g",), CLASSES, (("a",), ("b",), ("c",)), table, 1)


def measured(counts: GroupCounts, metric: str) -> Measurement:
    """The headline of one metric."""
    [found] = [m for m in GroupFairness().measure_counts(counts) if m.metric == metric and m.sensitive]
    return found


def judged(found: Measurement) -> Judgement:
    """The finding of it alone, at 1 %."""
    direction, bound = BOUNDS[found.metric]
    result = ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=(found,))
    [finding] = judge([result], [criterion(found.metric, direction, bound)], Family(error_rate=LEVEL))[0]
    return finding


def passes(found: Measurement) -> bool:
    """Whether its bounds lie within the requirement: what a judgement decides by, without its p-values."""
    direction, bound = BOUNDS[found.metric]
    low, high = found.estimate.bounds(LEVEL)
    return high <= bound if direction == "at_most" else low >= bound


@pytest.fixture
def without_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which two groups are told apart best is for the detail; it takes most of the time and judges nothing."""
    monkeypatch.setattr(probes.fairness.group_metrics, "_told_apart_best", lambda table: None)


@pytest.mark.grid
@pytest.mark.usefixtures("by_tails", "without_words")
@pytest.mark.slow
@pytest.mark.parametrize(
    "metric", [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in BOUNDS]
)  # fmt: skip
def test_a_file_of_as_many_rows_as_are_said_passes_four_times_in_five(metric: str) -> None:
    rng = np.random.default_rng(5)
    finding = judged(measured(drawn(rng, 300), metric))
    assert finding.outcome is Outcome.INCONCLUSIVE and finding.n_required is not None
    passed = [
        sum(together([partial(passes, measured(drawn(rng, n), metric)) for _ in range(WORLDS)]))
        for n in (finding.n_required, finding.n_required // 3)
    ]
    large = measured(drawn(rng, 3 * finding.n_required), metric)
    assert passes(large) and judged(large).outcome is Outcome.PASS
    # What chance explains once in a thousand tests of so many worlds.
    assert passed[0] >= binom.ppf(0.001, WORLDS, POWER), (finding.n_required, passed)
    assert passed[1] < binom.ppf(0.001, WORLDS, POWER), (finding.n_required, passed)


def with_unlabelled(n: int = 900) -> tuple[AuditedModel, AuditData]:
    """A model of scores, and rows a third of which have no label."""
    rng = np.random.default_rng(0)
    y = [None if i % 3 == 0 else int(rng.integers(0, 2)) for i in range(n)]
    data = AuditData.from_arrays(
        pd.DataFrame({"p": rng.random(n)}),
        y,
        classes=(0, 1),
        sensitive_features=pd.DataFrame({"g": rng.choice(["a", "b", "c"], n)}),
    )
    return AuditedModel.from_callable(lambda X: X["p"].to_numpy(float), classes=(0, 1)), data


def sizes(found: list[Measurement]) -> dict[str, set[int]]:
    """How many rows each headline is about."""
    said: dict[str, set[int]] = {}
    for m in found:
        if m.sensitive:
            said.setdefault(m.metric, set()).add(m.n_samples)
    return said


def test_every_headline_is_about_the_rows_or_the_labelled_rows() -> None:
    model, data = with_unlabelled()
    said = sizes(GroupFairness().measure(model, data, np.random.default_rng(0)))
    unlabelled = {"demographic_parity_difference", "demographic_parity_ratio", "differential_fairness_epsilon"}
    unlabelled.add("small_group_share")
    assert {m: n for m, n in said.items() if n != ({900} if m in unlabelled else {600})} == {}
    assert len(said) > 12


def test_all_thresholds_together_are_about_no_more_rows_than_one() -> None:
    """21 thresholds of the true and the false positive rate are 42 tables over the same rows."""
    model, data = with_unlabelled()
    probe = ScoreFairness(thresholds=[round(0.02 + 0.04 * i, 2) for i in range(21)])
    said = sizes(probe.measure(model, data, np.random.default_rng(0)))
    for metric, n in (("demographic_parity_difference", 900), ("equalized_odds_difference", 600)):
        assert said[f"{metric}_over_thresholds"] == said[f"{metric}_at_threshold"] == {n}


def test_a_change_of_one_rate_is_about_all_labelled_rows() -> None:
    model, data = with_unlabelled()
    said = sizes(Change(reference=model).measure(model, data, np.random.default_rng(0)))
    assert said.pop("demographic_parity_difference_change") == {900}
    assert len(said) == 4 and all_of(n == {600} for n in said.values())


def test_averages_over_classes_are_about_the_rows_of_all_classes() -> None:
    rng = np.random.default_rng(1)
    table = rng.multinomial(1_000, np.full(2 * 6 * 5, 1 / 60)).reshape(2, 6, 5)
    counts = GroupCounts(("g",), tuple("vwxyz"), (("a",), ("b",)), table, None)
    labelled = int(table[:, :-1].sum())
    macro = [m for m in GroupFairness().measure_counts(counts) if m.at.get("average") in ("macro", "micro")]
    assert len(macro) == 3 and all_of(m.n_samples == labelled for m in macro)


def test_the_rows_of_a_group_are_its_rows_and_the_detail_says_what_a_rate_is_over() -> None:
    model, data = with_unlabelled()
    found = GroupFairness().measure(model, data, np.random.default_rng(0))
    own = {m.metric: m for m in found if dict(m.group) == {"g": "a"}}
    labelled = own["accuracy"].n_samples
    assert own["selection_rate"].n_samples > labelled > own["true_positive_rate"].estimate.n
    assert own["true_positive_rate"].n_samples == own["precision"].n_samples == labelled
    n = own["true_positive_rate"].estimate.n
    assert own["true_positive_rate"].detail == f"over the {n:,} rows whose label is the favourable one"
    assert not math.isnan(own["precision"].estimate.value)
