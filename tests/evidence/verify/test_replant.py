"""Planted controls are measured anew from the rows that a bundle encloses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from auditor.data.audit_data import AuditData
from auditor.evidence.manifest import Asked
from auditor.evidence.verify.remeasure import Kept, Remade
from auditor.evidence.verify.replant import check_planted
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.planting import Planting
from auditor.models.audited_model import AuditedModel
from auditor.run.planted.measure_twins import with_planted
from auditor.run.predictions import StoredModel, rows_of
from auditor.run.run_audit import ask, generator_for
from probes.fairness.group_fairness import GroupFairness
from probes.privacy.membership.membership_inference import MembershipInference


class _Makes:
    """Group fairness by any name, and beside it what is not asked again."""

    def __init__(self, *others: str) -> None:
        self.others = others

    def __call__(self, name: str, options: Any) -> GroupFairness | None:
        return None if name in self.others else GroupFairness()

    def kinds(self) -> dict[str, Any]:
        return dict.fromkeys(self.others, MembershipInference)


def test_what_was_said_of_twins_is_held_to_the_rows() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"income": rng.normal(size=2_000)})
    y = (X.income + rng.normal(size=2_000) > 0).astype(int)
    data = AuditData.from_arrays(X, y, classes=[0, 1], sensitive_features={"sex": rng.choice(["f", "m"], 2_000)})
    model = AuditedModel.from_callable(lambda X: (X["income"] > 0).astype(float), classes=[0, 1], features=["income"])
    answers = rows_of(data.count_by_group(model.decisions(data), model.classes), "none")
    bound = Criterion(
        metric="demographic_parity_difference", direction="at_most", bound=0.1, source="", set_by="", set_at=""
    )
    stand_in: Any = StoredModel(answers)
    probe, rows = GroupFairness(), answers.data()
    measured = ask(probe, stand_in, rows, generator_for(5, probe.name))
    [result] = with_planted([(probe, measured)], stand_in, rows, Planting((bound,), Family(), 5))
    assert sum(p.twins.seen for p in result.planted) >= 7

    remade, kept = Remade(cast("Any", _Makes()), other_code=False), Kept(answers=answers, table=None, whole=True)

    def states(result: Any, kept: Kept, *more: Any) -> tuple[list[str], int]:
        asked = Asked(results=(result, *more), criteria=(bound,), family=Family())
        checks, unproven = check_planted(asked, {}, kept, remade, 5)
        return [check.state for check in checks], len(unproven)

    assert states(result, kept) == (["ok"], 0)
    [first, *others] = result.planted
    better = replace(first, twins=replace(first.twins, alarmed=first.twins.alarmed + 1))
    assert states(replace(result, planted=(better, *others)), kept) == (["wrong"], 0)
    assert states(result, Kept(answers=None, table=None)) == ([], 1)
    assert states(replace(result, planted=()), kept) == ([], 0)
    # Nobody leaves them out of one probe alone: here the second, whose own were measured of the same rows.
    both = with_planted(
        [(probe, measured), (probe, replace(measured, probe="other"))], stand_in, rows, Planting((bound,), Family(), 5)
    )
    assert states(both[0], kept, replace(both[1], planted=())) == (["ok", "wrong"], 0)


def test_probes_that_cannot_be_asked_again_had_their_share_of_the_time() -> None:
    rng = np.random.default_rng(0)
    n, n_train = 2_000, 60_000
    X = pd.DataFrame({"income": rng.normal(size=n)})
    groups = {"sex": rng.choice(["f", "m"], n), "team": rng.choice(list("abcdef"), n), "age": rng.choice(["y", "o"], n)}
    data = AuditData.from_arrays(X, (X.income > 0).astype(int), classes=[0, 1], sensitive_features=groups)
    model = AuditedModel.from_callable(lambda X: (X["income"] > 0).astype(float), classes=[0, 1], features=["income"])
    answers = rows_of(data.count_by_group(model.decisions(data), model.classes), "none")
    bound = Criterion(
        metric="demographic_parity_difference", direction="at_most", bound=0.1, source="", set_by="", set_at=""
    )
    stand_in: Any = StoredModel(answers)
    own = ask(GroupFairness(), stand_in, answers.data(), generator_for(5, "group_fairness"))
    dear = replace(own, probe="membership_inference", measurements=own.measurements[:1])
    planting = Planting((bound,), Family(), 5)
    rows = answers.data()
    asked = [(GroupFairness(), own), (MembershipInference, dear)]
    found = with_planted(asked, stand_in, rows, planting, n + n_train)
    alone = with_planted(asked[:1], stand_in, rows, planting)
    assert found[1] is dear and found[0].planted != alone[0].planted
    manifest = Asked(results=tuple(found), criteria=(bound,), family=Family())
    remade, kept = (
        Remade(cast("Any", _Makes(dear.probe)), other_code=False),
        Kept(answers=answers, table=None, whole=True),
    )
    checks, _ = check_planted(manifest, {}, kept, remade, 5, n_train)
    assert [check.state for check in checks] == ["ok"]
