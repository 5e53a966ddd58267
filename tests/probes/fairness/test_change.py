"""The change probe: every number against counting by hand, and its limits said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    false_positive_rate,
)
from sklearn.metrics import recall_score, roc_auc_score

from auditor.core.errors import NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Outcome
from auditor.models.audited_model import AuditedModel
from auditor.run.run_audit import run_audit
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from probes.fairness.change_since_reference import Change
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, misses, most_misses
from tests.toys.models import criterion

RNG = np.random.default_rng(0)


def fpr_difference(y: pd.Series, decided: np.ndarray, *, sensitive_features: pd.DataFrame) -> float:
    return float(
        MetricFrame(
            metrics=false_positive_rate, y_true=y, y_pred=decided, sensitive_features=sensitive_features
        ).difference()
    )


def world(n: int = 600) -> tuple[AuditData, AuditedModel, AuditedModel, pd.DataFrame]:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"before": rng.random(n).round(3), "after": rng.random(n).round(3)})
    frame["y"] = (rng.random(n) < 0.5).astype(int)
    frame["sex"] = rng.choice(["f", "m"], n)
    frame["race"] = rng.choice(["a", "b", "c"], n)
    data = AuditData.from_arrays(
        frame[["before", "after"]], frame.y, classes=[0, 1], sensitive_features=frame[["sex", "race"]]
    )
    before, after = (
        AuditedModel.from_callable(lambda X, c=c: X[c].to_numpy(), classes=[0, 1]) for c in ("before", "after")
    )
    return data, before, after, frame


def one(found: list[Measurement], metric: str, **which: object) -> Measurement:
    matching = [m for m in found if m.metric == metric and all(getattr(m, k) == v for k, v in which.items())]
    assert len(matching) == 1, [m.metric for m in matching]
    return matching[0]


def test_every_number_is_the_difference_of_what_fairlearn_says_of_either_model() -> None:
    data, before, after, frame = world()
    found = Change(reference=before).measure(after, data, RNG)
    decided = [(frame[c] >= 0.5).astype(int) for c in ("before", "after")]
    accuracy = [float((d == frame.y).mean()) for d in decided]
    assert one(found, "accuracy_change", group={}).estimate.value == pytest.approx(accuracy[1] - accuracy[0], abs=1e-12)
    for features in (("sex",), ("race",), ("sex", "race")):
        for metric, peer in (
            ("demographic_parity_difference", demographic_parity_difference),
            ("equalized_odds_difference", equalized_odds_difference),
            ("false_positive_rate_difference", fpr_difference),
        ):
            gaps = [peer(frame.y, d, sensitive_features=frame[list(features)]) for d in decided]
            ours = one(found, f"{metric}_change", sensitive=features).estimate
            assert ours.value == pytest.approx(gaps[1] - gaps[0], abs=1e-12)
            low, high = ours.interval(0.95)
            assert low <= ours.value <= high
    recalls = [recall_score(frame.y, d, average=None) for d in decided]
    shares = [np.bincount(d, minlength=2) / len(d) for d in decided]
    for code, name in enumerate("01"):
        ours = one(found, "recall_change", at={"class": name}).estimate.value
        assert ours == pytest.approx(recalls[1][code] - recalls[0][code], abs=1e-12)
        ours = one(found, "decision_share_change", at={"decision": name}).estimate.value
        assert ours == pytest.approx(shares[1][code] - shares[0][code], abs=1e-12)
    areas = [roc_auc_score(frame.y, frame[c]) for c in ("before", "after")]
    assert one(found, "roc_auc_change").estimate.value == pytest.approx(areas[1] - areas[0], abs=1e-12)
    women = frame.sex == "f"
    for label, rate in ((1, "true_positive_rate"), (0, "false_positive_rate")):
        of = women & (frame.y == label)
        ours = one(found, f"{rate}_change", group={"sex": "f"}).estimate.value
        assert ours == pytest.approx(float(decided[1][of].mean() - decided[0][of].mean()), abs=1e-12)
    expected = float(decided[1][women].mean() - decided[0][women].mean())
    assert one(found, "selection_rate_change", group={"sex": "f"}).estimate.value == pytest.approx(expected, abs=1e-12)


def test_the_same_model_has_not_changed_and_a_criterion_can_say_so() -> None:
    data, before, _, _ = world(3000)
    found = Change(reference=before).measure(before, data, RNG)
    assert all_of(m.estimate.value == 0.0 for m in found)
    report = run_audit(before, data, [Change(reference=before)], [criterion("accuracy_change", "at_least", -0.02)])
    judged = [f for f in report.findings if f.criterion is not None]
    assert judged and {f.outcome for f in judged} == {Outcome.PASS}


def test_of_more_than_a_hundred_decisions_the_commonest_are_counted() -> None:
    rng, n, k = np.random.default_rng(4), 4_000, 150
    made = rng.choice(k, n, p=np.arange(k, 0, -1) / (k * (k + 1) / 2))
    classes = [str(i) for i in range(k)]
    data = AuditData.from_arrays(made[:, None].astype(float), made, classes=classes)
    same, one_answer = (
        AuditedModel.from_callable(lambda X, f=f: np.eye(k)[f(X[:, 0].astype(int))], classes=classes)
        for f in (lambda c: c, np.zeros_like)
    )
    found = [m for m in Change(reference=same).measure(one_answer, data, RNG) if m.metric == "decision_share_change"]
    assert len(found) == 100 and found[0].at == {"decision": "0"}
    assert found[0].estimate.rate(after=True).value == 1.0
    assert not [m for m in Change(reference=same).measure(same, data, RNG) if m.metric == "roc_auc_change"]


def test_what_cannot_be_compared_is_said() -> None:
    data, before, after, frame = world()
    with pytest.raises(NotApplicableError, match="--reference"):
        Change().measure(after, data, RNG)
    other = AuditedModel.from_callable(lambda X: X["before"].to_numpy(), classes=["no", "yes"])
    with pytest.raises(UsageError, match="the same question"):
        Change(reference=other).measure(after, data, RNG)
    alone = data.take((frame.sex == "f").to_numpy())
    gap = one(Change(reference=before).measure(after, alone, RNG), "accuracy_difference_change", sensitive=("sex",))
    assert isinstance(gap.estimate, Undefined)
    nobody = Change(reference=before).measure(after, data.take(np.zeros(len(data), bool)), RNG)
    assert all_of(isinstance(m.estimate, Undefined) for m in nobody)


SHARES = (0.06, 0.04, 0.90)


def test_a_change_is_judged_from_the_rows_that_were_lost_and_gained() -> None:
    """Whole audits of rows of which so many are lost, gained and the same: the estimate is that of these counts."""
    rng, n = np.random.default_rng(8), 1500
    for _ in range(8):
        kind = rng.choice(3, n, p=SHARES)
        X = np.column_stack([kind == 1, kind == 0]).astype(float)
        data = AuditData.from_arrays(X, np.zeros(n, int), classes=[0, 1])
        before, after = (AuditedModel.from_callable(lambda X, c=c: X[:, c], classes=[0, 1]) for c in (0, 1))
        required = [criterion("accuracy_change", "at_least", -0.02)]
        report = run_audit(after, data, [Change(reference=before)], required)
        (finding,) = (f for f in report.findings if f.criterion is not None)
        low, high = changed(int((kind == 0).sum()), int((kind == 1).sum()), n).bounds(0.05)
        expected = Outcome.FAIL if high < -0.02 else Outcome.PASS if low >= -0.02 else Outcome.INCONCLUSIVE
        assert finding.outcome is expected


def changed(lost: int, gained: int, n: int) -> RateChange:
    return RateChange(before=n - gained, gained=gained, lost=lost, n=n)


def test_the_error_rate_of_a_judged_change_holds_at_the_bound() -> None:
    """True accuracy change exactly at the bound of -0.02: FAIL and PASS at most 5 % each."""
    n = 1500
    drawn = np.random.default_rng(8).multinomial(n, SHARES, WORLDS).tolist()
    assert max(misses((changed(lost, gained, n) for lost, gained, _ in drawn), -0.02)) <= most_misses()
