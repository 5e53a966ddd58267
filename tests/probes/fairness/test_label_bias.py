"""Label bias: coefficients against least squares by hand, and planted flips and shifts found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DATA_PROFILE
from probes.fairness.label_bias import LabelBias
from tests.quantifiers import all_of

CRITERIA = load_criteria(DATA_PROFILE)
JUDGED = ("largest_conditional_label_difference", "largest_label_error_difference")


def people(n: int, seed: int, *, flips: float = 0.0, shift: float = 0.0) -> pd.DataFrame:
    """Applicants whose income depends on their sex and who are approved by income less debt; ``flips``: the share of
    women's labels that are changed, ``shift``: how much less women's scores are."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], n)
    frame = pd.DataFrame({"income": rng.normal(size=n) + 0.5 * (sex == "m"), "debt": rng.normal(size=n)})
    frame = frame.assign(job=rng.choice(["clerk", "cook", "smith"], n), sex=sex)
    yes = frame.income - frame.debt - shift * (sex == "f") + rng.normal(size=n) > 0.0
    return frame.assign(label=np.where(yes ^ ((rng.random(n) < flips) & (sex == "f")), "yes", "no"))


def measured(frame: pd.DataFrame, **options: Any) -> list[Measurement]:
    features = [name for name in frame.columns if name not in ("sex", "label")]
    rows = AuditData.from_arrays(
        frame[features],
        frame.label,
        classes=sorted(set(frame.label)),
        positive="yes" if "yes" in set(frame.label) else None,
        sensitive_features=frame[["sex"]],
    )
    model: Any = None
    return LabelBias(**options).measure(model, rows, np.random.default_rng(0))


def named(found: list[Measurement], metric: str, sex: str = "") -> Measurement:
    return next(m for m in found if m.metric == metric and dict(m.group) == ({"sex": sex} if sex else {}))


def outcomes(found: list[Measurement]) -> dict[str, Outcome]:
    result = ProbeResult(probe="label_bias", pillar="fairness", citation="", measurements=tuple(found))
    return {f.measurement.metric: f.outcome for f in judge([result], CRITERIA)[0] if f.measurement and f.criterion}


# ---- against other ways to the same numbers --------------------------------------------------------------------------


def test_a_difference_given_one_category_is_that_of_shares_within_it() -> None:
    """With one feature of two levels the partially linear coefficient is a weighted mean of two differences."""
    rng = np.random.default_rng(0)
    n = 20_000
    site = rng.choice(["north", "south"], n)
    sex = np.where(rng.random(n) < np.where(site == "north", 0.8, 0.3), "f", "m")
    p = np.where(site == "north", 0.6, 0.2) - 0.1 * (sex == "f")
    frame = pd.DataFrame({"site": site, "sex": sex, "label": np.where(rng.random(n) < p, "yes", "no")})
    yes, woman = frame.label == "yes", (frame.sex == "f").astype(float)
    each = []
    for own in (frame.site == "north", frame.site == "south"):
        gap = yes[own & (woman == 1.0)].mean() - yes[own & (woman == 0.0)].mean()
        each.append((gap, own.mean() * woman[own].var()))
    by_hand = sum(gap * weight for gap, weight in each) / sum(weight for _, weight in each)
    found = named(measured(frame), "conditional_label_difference", "f").estimate
    assert found.value == pytest.approx(by_hand, abs=0.002)
    assert found.bounds(0.025)[0] < -0.1 < found.bounds(0.025)[1]
    raw = yes[woman == 1.0].mean() - yes[woman == 0.0].mean()
    assert raw > 0.05  # the features turn it round


def test_what_is_flipped_is_measured_within_its_interval() -> None:
    found = measured(people(30_000, 3, flips=0.05))
    low, high = named(found, "label_error_difference", "f").estimate.bounds(0.005)
    assert 0.0 < low < 0.05 < high
    assert named(found, "label_error_difference", "m").estimate.value == pytest.approx(
        -named(found, "label_error_difference", "f").estimate.value, abs=0.005
    )
    rates = [named(found, "suspected_label_error_rate", sex).estimate.value for sex in ("f", "m")]
    assert rates[0] > rates[1] > 0.0


def test_suspects_are_those_of_confident_learning_by_hand() -> None:
    """Where the features decide the label, only what was flipped is suspected, and all of it."""
    rng = np.random.default_rng(1)
    x = rng.choice([-1.0, 1.0], 2_000)
    flipped = np.arange(2_000) % 50 == 0
    label = np.where((x > 0) ^ flipped, "yes", "no")
    found = measured(pd.DataFrame({"x": x, "sex": rng.choice(["f", "m"], 2_000), "label": label}))
    overall = named(found, "suspected_label_error_rate")
    assert overall.estimate.value == pytest.approx(flipped.mean())
    # To flip what is wrong makes it right.
    assert overall.detail == "of labels flipped on purpose 98.0% would be found so"


def test_of_several_classes_each_is_asked_for() -> None:
    frame = people(6_000, 0)
    frame = frame.assign(label=np.where(frame.income > 1.0, "often", frame.label))
    found = measured(frame.assign(label=frame.label.replace({"yes": "once"})))
    own = [m for m in found if m.metric == "conditional_label_difference" and dict(m.group) == {"sex": "f"}]
    assert [m.at for m in own] == [{"class": "no"}, {"class": "often"}, {"class": "once"}]
    assert named(found, JUDGED[0]).estimate.value == pytest.approx(max(abs(m.estimate.value) for m in own), abs=0.01)
    # What is taken from one class is given to the others.
    assert sum(m.estimate.value for m in own) == pytest.approx(0.0, abs=1e-6)


# ---- error rates -----------------------------------------------------------------------------------------------------

_WORLDS: dict[str, tuple[int, dict[str, float], str | None]] = {
    "clean": (20_000, {}, None),
    "few": (6_000, {}, None),
    "flips": (100_000, {"flips": 0.02}, JUDGED[1]),
    "shift": (20_000, {"shift": 0.4}, JUDGED[0]),
}


@pytest.mark.slow
@pytest.mark.grid(by=lambda world, block: world)
@pytest.mark.parametrize("world", sorted(_WORLDS))
@pytest.mark.parametrize("block", range(3))
def test_planted_faults_fail_and_clean_rows_do_not(world: str, block: int) -> None:
    """2 % of one group's labels flipped in 100,000 rows, or its score moved; three blocks of two worlds."""
    n, fault, metric = _WORLDS[world]
    found = [outcomes(measured(people(n, seed, **fault))) for seed in (2 * block, 2 * block + 1)]
    failed = [name for each in found for name, outcome in each.items() if outcome is Outcome.FAIL]
    assert not failed if metric is None else failed.count(metric) == 2, failed


def confounded(n: int, d: int, seed: int) -> pd.DataFrame:
    """People whose sex and whose label both follow from the sum of ``d`` features, and from nothing of each other."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d))
    odds = np.exp(features.sum(axis=1) / np.sqrt(d))
    frame = pd.DataFrame(features, columns=[f"x{i}" for i in range(d)])
    frame = frame.assign(sex=np.where(rng.random(n) < odds**2 / (1.0 + odds**2), "f", "m"))
    return frame.assign(label=np.where(rng.random(n) < odds**4 / (1.0 + odds**4), "yes", "no"))


def test_features_that_decide_both_group_and_label_are_no_difference() -> None:
    """Trees of few steps underrate both alike, which looked like a difference of 0.03 with a standard error of 0.01."""
    found = named(measured(confounded(10_000, 6, 0)), "conditional_label_difference", "f").estimate
    low, high = found.bounds(0.025)
    assert low < 0.0 < high


def test_what_more_steps_would_move_is_not_judged() -> None:
    found = measured(confounded(4_000, 30, 0))
    assert "half as many steps" in named(found, "conditional_label_difference", "f").too_few
    assert "half as many steps" in named(found, JUDGED[0]).too_few
    assert not named(measured(people(1_000, 0)), JUDGED[0]).too_few


def test_too_few_rows_are_not_judged_and_say_so() -> None:
    found = outcomes(measured(people(1_000, 0)))
    assert set(found) <= set(JUDGED) and Outcome.PASS not in found.values()


def test_rows_whose_features_name_the_group_are_not_judged() -> None:
    frame = people(2_000, 0).assign(title=lambda f: f.sex.map({"f": "Ms", "m": "Mr"}))
    largest = named(measured(frame), JUDGED[0])
    assert "give away" in largest.too_few + getattr(largest.estimate, "reason", "")


def test_a_group_of_few_rows_counts_as_rest_and_is_named() -> None:
    frame = people(2_000, 0)
    frame.loc[:9, "sex"] = "x"
    found = measured(frame)
    assert "counted as rest: x" in named(found, JUDGED[0]).detail
    assert all_of(m.group.get("sex") in (None, "f", "m") for m in found)


@pytest.mark.parametrize("lacking", ["features", "classes"])
def test_without_features_or_classes_it_is_not_applicable(lacking: str) -> None:
    frame = people(400, 0)
    frame = frame[["sex", "label"]] if lacking == "features" else frame.assign(label="yes")
    with pytest.raises(NotApplicableError, match="Needs"):
        measured(frame)


def test_an_order_of_rows_changes_nothing() -> None:
    frame = people(3_000, 0)
    shuffled = frame.sample(frac=1.0, random_state=1)
    first, second = ([(m.metric, m.estimate.value) for m in measured(each)] for each in (frame, shuffled))
    assert [name for name, _ in first] == [name for name, _ in second]
    assert [v for _, v in first] == pytest.approx([v for _, v in second], abs=1e-9)
