"""A probe has the rows on loan: what it does to labels and groups is undone, and no later probe finds otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, Outcome, Pillar
from auditor.models.audited_model import AuditedModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.probe import Need, Probe
from auditor.run.run_audit import run_audit
from auditor.statistics.rates import Proportion
from probes import PROBES

N = 400


class Spoils:
    """Measures honestly, and then shuffles what it was lent."""

    name: ClassVar[str] = "spoils"
    pillar: ClassVar[Pillar] = "fairness"
    goal: ClassVar[str] = "Who comes next?"
    citation: ClassVar[str] = "none"
    methods: ClassVar[tuple[str, ...]] = ("m",)
    needs: ClassVar[tuple[Need, ...]] = ()

    def __init__(self, what: str = "nothing", *, raises: bool = False) -> None:
        self.what = what
        self.raises = raises

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """One share."""
        groups, labels = data.sensitive_features, data.y_true
        assert groups is not None and labels is not None
        if self.what == "groups":
            groups["sex"] = rng.permutation(groups["sex"].to_numpy())
        elif self.what == "other groups":
            object.__setattr__(data, "sensitive_features", groups.sample(frac=1, random_state=0))
        elif self.what == "labels":
            labels[:] = 0
        if self.raises:
            raise RuntimeError("and then it fell over")
        return [Measurement(metric="share", estimate=Proportion(successes=1, n=2), n_samples=2)]


def audit(*before: Probe) -> AuditReport:
    """Of a model that decides by sex alone."""
    sex = np.where(np.arange(N) % 2 == 0, "f", "m")
    X = pd.DataFrame({"x": (sex == "m").astype(float)})
    model = AuditedModel.from_callable(lambda X: X["x"].to_numpy(), classes=[0, 1])
    data = AuditData.from_arrays(X, np.arange(N) // 2 % 2, classes=[0, 1], sensitive_features={"sex": sex.tolist()})
    return run_audit(model, data, [*before, PROBES["group_fairness"]()])


def findings(report: AuditReport) -> list[tuple[str, float | None, Outcome]]:
    return [(f.id, f.value, f.outcome) for f in report.findings if f.probe == "group_fairness"]


@pytest.mark.parametrize("what", ["groups", "other groups", "labels"])
@pytest.mark.parametrize("raises", [False, True])
def test_a_probe_that_changes_the_rows_is_not_run_and_changes_no_verdict(what: str, raises: bool) -> None:
    alone = audit()
    assert alone.exit_code == 1
    report = audit(Spoils(what, raises=raises))
    (spoiled,) = [f for f in report.findings if f.probe == "spoils"]
    assert spoiled.outcome is Outcome.NOT_RUN
    if not raises:
        assert "of the rows that it was lent; they were put back" in spoiled.reason
    assert findings(report) == findings(alone) and report.exit_code == 1


def test_one_that_leaves_them_is_heard() -> None:
    (heard,) = [f for f in audit(Spoils()).findings if f.probe == "spoils"]
    assert heard.outcome is Outcome.NOT_JUDGED and heard.value == 0.5
