"""More groups than are compared in pairs: the features that have them are said, and the others are measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Outcome
from auditor.models.audited_model import AuditedModel
from auditor.run.probe import Probe
from auditor.run.run_audit import run_audit
from probes.fairness.adverse_impact import AdverseImpact
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.score_fairness import ScoreFairness
from tests.quantifiers import none_of
from tests.toys.models import criterion

HEADLINES = {
    "group_fairness": "demographic_parity_difference",
    "score_fairness": "auc_difference",
    "adverse_impact": "impact_ratio_min",
}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("probe", [GroupFairness(), ScoreFairness(), AdverseImpact()], ids=lambda p: p.name)
def test_one_crowded_combination_does_not_lose_the_others(probe: Probe) -> None:
    rng = np.random.default_rng(0)
    n = 3000
    cells = rng.permutation(np.arange(n) % 1200)
    groups = pd.DataFrame({"sex": cells % 2, "code": cells // 2 % 20, "year": cells // 40}).astype(str)
    X = rng.random((n, 1))
    data = AuditData.from_arrays(
        X, (X[:, 0] > 0.5).astype(int), classes=["0", "1"], positive="1", sensitive_features=groups
    )
    model = AuditedModel.from_callable(lambda x: x[:, 0], classes=["0", "1"])
    name = HEADLINES[probe.name]
    report = run_audit(model, data.take(np.arange(n)), [probe], [criterion("selection_rate", "at_most", 0.9)])
    by = {f.sensitive: f for f in report.findings if f.metric == name}
    assert by["sex",].value is not None
    crowded = by["sex", "code", "year"]
    assert crowded.value is None and crowded.outcome is Outcome.INCONCLUSIVE and "--bins" in crowded.reason
    assert none_of("ValidationError" in f.reason for f in report.findings)


def test_a_crowd_of_strata_does_not_lose_the_other_numbers() -> None:
    rng = np.random.default_rng(1)
    n = 3000
    X = pd.DataFrame({"score": rng.random(n), "zip": [f"z{i % 600}" for i in range(n)]})
    # Each of the levels lies within one group, or the cells alone would be too many.
    sex = ["f" if i % 2 else "m" for i in range(n)]
    data = AuditData.from_arrays(X, classes=["0", "1"], positive="1", sensitive_features={"sex": sex})
    model = AuditedModel.from_callable(lambda x: x["score"].to_numpy(), classes=["0", "1"])
    report = run_audit(model, data, [GroupFairness(strata="zip")])
    by = {f.metric: f for f in report.findings if f.sensitive == ("sex",)}
    assert by["demographic_parity_difference"].value is not None
    crowded = by["conditional_demographic_disparity"]
    assert crowded.outcome is Outcome.INCONCLUSIVE and "zip has 600 levels, of which 500 at most" in crowded.reason
