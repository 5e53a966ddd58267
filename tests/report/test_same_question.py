"""A comparison of audits that do not answer the same question is refused, or is no success."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.report.comparing.compare_audits import compare
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from probes.fairness.change_since_reference import Change
from probes.fairness.group_fairness import GroupFairness
from probes.performance.performance import Performance
from tests.report.test_usefulness import PARITY, people, scored
from tests.toys.models import criterion

FRAME = people(2000)


def audited(
    model: str,
    since: str | None = None,
    *,
    required: Sequence[Criterion] = PARITY,
    gaps: bool = True,
    sex: pd.Series[str] | None = None,
    grouped: bool = True,
) -> AuditReport:
    y = FRAME.y.map({0: "no", 1: "yes"})
    groups = FRAME[["sex"]].assign(sex=FRAME.sex if sex is None else sex) if grouped else None
    data = AuditData.from_arrays(FRAME, y, classes=["no", "yes"], positive="yes", sensitive_features=groups)
    probes = [*([GroupFairness()] if gaps else []), Performance()]
    changes = [] if since is None else [Change(reference=scored(since))]
    return run_audit(scored(model), data, [*probes, *changes], required)


def as_file(report: AuditReport, digest: str) -> AuditReport:
    return report.model_copy(update={"model": report.model.model_copy(update={"sha256": digest})})


def test_changes_since_another_model_than_the_earlier_one_are_refused() -> None:
    before, honest = audited("before"), audited("after", since="before")
    assert compare(before, honest).exit_code == 0
    with pytest.raises(UsageError, match="since a model with .* right decisions"):
        compare(before, audited("after", since="after"))
    named = [
        f.model_copy(update={"detail": f"{f.detail}, sha256 {'a' * 16}"}) if f.probe == "change" else f
        for f in honest.findings
    ]
    later = honest.model_copy(update={"findings": tuple(named)})
    assert compare(as_file(before, "a" * 64), later).exit_code == 0
    with pytest.raises(UsageError, match="since another model"):
        compare(as_file(before, "b" * 64), later)


def test_other_groups_in_the_same_rows_are_refused() -> None:
    mixed = FRAME.sex.sample(frac=1.0, random_state=1).set_axis(FRAME.index)
    with pytest.raises(UsageError, match="other groups by sex in the same rows"):
        compare(audited("before"), audited("before", since="before", sex=mixed))


def test_leaving_out_what_the_earlier_audit_was_judged_by_is_no_success() -> None:
    """Of the better model of the two, so that everything else says yes."""
    before = audited("before")
    auc = [criterion("roc_auc", "at_least", 0.6)]
    for later, said in (
        (audited("after", since="before", gaps=False), "demographic_parity_difference (by=sex)"),
        (audited("after", since="before", grouped=False), "groups by sex"),
        (audited("after", since="before", required=auc), "demographic_parity_difference (by=sex)"),
        (
            audited("after", since="before", required=[criterion("demographic_parity_difference", "at_most", 0.4)]),
            "demographic_parity_difference (by=sex)",
        ),
    ):
        found = compare(before, later)
        assert found.exit_code == 3 and said in found.dropped, (found.exit_code, found.dropped)
        assert "The earlier audit was judged by" in found.conclusion and said in found.conclusion
    stricter = audited("after", since="before", required=[criterion("demographic_parity_difference", "at_most", 0.09)])
    assert compare(before, stricter).dropped == ()


@pytest.mark.parametrize("field", ["target", "positive"])
def test_an_answer_that_is_no_longer_asked_for_is_no_success(field: str) -> None:
    """Without a label to favour no gap can be judged, and what cannot be is else nobody's choice."""
    before, after = audited("before"), audited("after", since="before")
    said = before.model_copy(update={"data": before.data.model_copy(update={"target": "y", "positive": "yes"})})
    whole = after.model_copy(update={"data": said.data})
    assert compare(said, whole).exit_code == 0
    found = compare(said, whole.model_copy(update={"data": said.data.model_copy(update={field: None})}))
    assert found.exit_code == 3 and f"what needs --{field}" in found.dropped


def test_another_threshold_alone_is_nothing_gained() -> None:
    """A share of refusals that falls from above the base rate is a guard, and no reason to call a model better."""
    rng = np.random.default_rng(3)
    frame = people(4000).assign(sex="f")
    frame["sex"] = rng.choice(["f", "m"], len(frame))
    frame["after"] = np.where(rng.random(len(frame)) < 0.03, 1 - frame.before, frame.before)
    y = frame.y.map({0: "no", 1: "yes"})
    data = AuditData.from_arrays(frame, y, classes=["no", "yes"], positive="yes", sensitive_features=frame[["sex"]])
    before = run_audit(scored("before"), data, [GroupFairness(), Performance()], PARITY)
    after = run_audit(
        scored("after"), data, [GroupFairness(), Performance(), Change(reference=scored("before"))], PARITY
    )
    found = compare(before, after)
    assert found.exit_code != 0 and "commonest_decision_share" not in {row.metric for row in found.better}
