"""Judges with planted biases, and honest ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import auditor
from auditor.core.errors import ConfigError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Outcome
from auditor.run.checks.error_rates import audited
from auditor.run.run_audit import run_audit
from auditor.statistics.rates import Proportion
from probes.performance.judge import Judge
from tests.toys import judges
from tests.toys.models import criterion

LIMITS = [
    criterion("position_bias", "at_most", 0.1),
    criterion("length_slope", "within", (-0.05, 0.05)),
    criterion("sensitivity_difference", "at_most", 0.0),
]
FAULTS: dict[str, dict[str, float]] = {
    "position_bias": {"first": 0.2},
    "length_slope": {"per_100_words": 0.1},
    "sensitivity_difference": {"less_sensitive": 0.1},
}


def measured(data: AuditData, seed: int = 0, **options: str | None) -> dict[str, Measurement]:
    probe = Judge(**(judges.OPTIONS | options))
    found = probe.measure(judges.judge(), data, np.random.default_rng(seed))
    return {m.metric: m for m in found if not m.group}


def failing(seed: int, **fault: Any) -> list[str]:
    """The metrics that FAIL of a judge."""
    data = judges.verdicts(600, seed=seed, **fault)
    found = audited(Judge(**judges.OPTIONS), judges.judge(), data, LIMITS, seed)
    return [f.measurement.metric for f in found if f.outcome is Outcome.FAIL and f.measurement is not None]


@pytest.mark.parametrize("metric", FAULTS)
def test_a_planted_bias_fails_at_600_items(metric: str) -> None:
    assert failing(SEEDS[metric], **FAULTS[metric]) == [metric]


# Of a bias of 10 points in sensitivity a world in which chance hides none of it.
SEEDS = {"position_bias": 0, "length_slope": 0, "sensitivity_difference": 0}


@pytest.mark.grid
@pytest.mark.parametrize("start", range(0, 200, 25))
def test_honest_judges_fail_in_at_most_five_per_cent_of_worlds(start: int) -> None:
    """Of 200 worlds, 25 a case: with as many false alarms as a true rate of 5 % allows in one case of a thousand."""
    assert sum(bool(failing(seed)) for seed in range(start, start + 25)) <= 5


@pytest.mark.grid
@pytest.mark.parametrize("metric", FAULTS)
def test_planted_biases_are_seen_in_four_of_five_worlds(metric: str) -> None:
    seen = Counter(metric in failing(seed, **FAULTS[metric]) for seed in range(25))
    assert seen[True] >= 17


def test_numbers_are_what_is_counted_by_hand() -> None:
    table = pd.DataFrame({
        "item": ["a", "a", "b", "b", "c", "c", "c", "d", "d"],
        "position": ["1", "2", "1", "2", "1", "2", "1", "1", "2"],
    })  # fmt: skip
    decided = np.asarray([1, 0, 1, 1, 0, 0, 1, 1, 0])
    data = judges.verdicts(5)
    assert data.recorded is not None
    data = AuditData(
        X=table, y_true=np.asarray([1, 1, 1, 1, 0, 0, 0, 0, 0]), classes=("0", "1"), positive=1,
        recorded=replace(data.recorded, decisions=decided, scores=None),
    )  # fmt: skip
    found = measured(data, length=None, author=None, own=None)
    assert found["position_flip_rate"].n_samples == 4
    # The item c was judged twice at one place, and otherwise the second time.
    assert found["retest_disagreement"].estimate == Proportion(successes=1, n=1)
    assert found["position_bias"].estimate.value in (0.5, 0.75)
    assert found["position_flip_rate"].estimate.value == found["position_bias"].estimate.value
    assert found["sensitivity"].estimate in (Proportion(successes=1, n=2), Proportion(successes=2, n=2))


def test_two_places_that_no_item_had_both_of_leave_the_bias_open() -> None:
    """Each of them was compared with the middle, to which a judge may be as kind as to both."""
    data = judges.verdicts(600)
    assert isinstance(data.X, pd.DataFrame)
    middle = (data.X["position"] == "first") & (data.X["item"] % 2 == 0)
    found = measured(replace(data, X=data.X.assign(position=data.X["position"].mask(middle, "middle"))))
    assert found["position_bias"].estimate.bounds(0.05)[1] == 1.0
    assert measured(data)["position_bias"].estimate.bounds(0.05)[1] < 0.1


def test_a_place_that_is_not_known_is_asked_for_and_is_no_place_of_its_own() -> None:
    data = judges.verdicts(40)
    assert isinstance(data.X, pd.DataFrame)
    with pytest.raises(ConfigError, match="'position' is empty in 3 rows: say where each text stood"):
        measured(replace(data, X=data.X.assign(position=[None] * 3 + data.X["position"].tolist()[3:])))


def test_too_many_groups_are_not_compared_and_lose_no_other_number() -> None:
    data = judges.verdicts(1_001)
    many = pd.DataFrame({"group": np.tile([f"g{i}" for i in range(1_001)], 2)})
    found = measured(replace(data, sensitive_features=many))
    assert "1,001 groups" in found["sensitivity_difference"].estimate.model_dump_json()
    assert found["sensitivity"].estimate.value > 0.9


def test_chance_alone_flips_verdicts_and_biases_none() -> None:
    noisy = measured(judges.verdicts(600, sensitivity=0.7, false_alarms=0.3, retest=True))
    assert noisy["position_flip_rate"].estimate.interval(0.95)[0] > 0.3
    assert noisy["retest_disagreement"].estimate.interval(0.95)[0] > 0.3
    assert noisy["position_bias"].estimate.interval(0.95)[0] == 0.0


def test_the_slope_is_the_one_that_was_planted() -> None:
    found = measured(judges.verdicts(4_000, per_100_words=0.1))["length_slope"].estimate
    low, high = found.interval(0.95)
    assert low < 0.1 < high and high - low < 0.05


def test_a_preference_for_own_texts_is_at_equal_label() -> None:
    own = measured(judges.verdicts(2_000, own=0.3, sensitivity=0.7))["self_preference"].estimate
    low, high = own.interval(0.95)
    assert low > 0.15 and low < 0.3 < high
    # Its own texts are better, and that is no preference.
    data = judges.verdicts(2_000)
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None
    better = data.X.assign(writer=np.where((data.y_true == 1) & (data.X["words"] > 150), "judge-1", "others"))
    assert measured(replace(data, X=better))["self_preference"].estimate.interval(0.95)[0] < 0.0


def test_what_is_not_there_is_said() -> None:
    data = judges.verdicts(20)
    with pytest.raises(ConfigError, match="'itm'.*item"):
        measured(data, item="itm")
    with pytest.raises(ConfigError, match="no numbers"):
        measured(data, length="writer")
    with pytest.raises(ConfigError, match="together"):
        measured(data, own=None)
    alone = measured(data, own="nobody")
    assert "nobody" in alone["self_preference"].estimate.model_dump_json()
    report = run_audit(judges.judge(), data, [Judge()], [])
    assert [f.outcome for f in report.findings if f.probe == "judge"] == [Outcome.NOT_APPLICABLE]


@pytest.mark.slow
def test_a_table_of_verdicts_is_scanned(tmp_path: Path) -> None:
    data = judges.verdicts(300, first=0.3)
    assert isinstance(data.X, pd.DataFrame) and data.recorded is not None and data.sensitive_features is not None
    table = data.X.assign(
        human=data.y_true, verdict=data.recorded.decisions, group=data.sensitive_features["group"].to_numpy()
    )
    table.to_csv(tmp_path / "verdicts.csv", index=False)
    report = auditor.scan(
        None, predictions=str(tmp_path / "verdicts.csv"), predicted="verdict", target="human", probes=["judge"],
        sensitive=["group"], probe_options={"judge": judges.OPTIONS},
    )  # fmt: skip
    bias = next(f for f in report.findings if f.metric == "position_bias")
    assert bias.value == pytest.approx(0.3, abs=0.08)
    assert bias.outcome is Outcome.NOT_JUDGED and "copies" not in bias.reason
