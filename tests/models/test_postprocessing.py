"""Post-processing by group: fairlearn's answers, decisions as often as their chances, a bundle that keeps both."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from fairlearn.postprocessing import ThresholdOptimizer as Fairlearn
from pydantic import ValidationError
from scipy.stats import binomtest
from sklearn.base import BaseEstimator
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression

from auditor.core.errors import AuditorError, DataError, ModelError, UsageError
from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.streamed_rows import Stream
from auditor.models.audited_model import AuditedModel
from auditor.models.postprocessing import (
    GroupRule,
    IsotonicMap,
    PlattScaling,
    PostprocessedModel,
    Postprocessing,
    Steps,
)
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigation, Training
from mitigations.rows.correlation_remover import CorrelationRemover
from mitigations.scores.group_calibration import GroupCalibration
from mitigations.scores.reject_option import RejectOption
from mitigations.scores.scored_rows import scored_rows
from mitigations.scores.threshold_optimizer import Constraints, ThresholdOptimizer, rate_gap
from probes.fairness.change_since_reference import Change
from probes.performance.performance import Performance
from tests.mitigations.planted_rows import biased_rows, trained


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(3000, 1)


@pytest.fixture(scope="module")
def test_rows() -> AuditData:
    return biased_rows(6000, 2)


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return trained(rows)


def run(mitigation: Mitigation, model: AuditedModel, rows: AuditData, seed: int = 0) -> PostprocessedModel:
    made = mitigation.mitigate(model, rows, np.random.default_rng(seed), Training())
    assert isinstance(made.model, PostprocessedModel) and made.notes
    return made.model


class _Scores(BaseEstimator):  # type: ignore[misc]
    def fit(self, X: object, y: object) -> _Scores:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X) -> FloatArray:  # type: ignore[no-untyped-def]
        scores = np.asarray(X, float)[:, 0]
        return np.column_stack([1 - scores, scores])


@pytest.mark.parametrize("constraints", get_args(Constraints))
def test_the_chances_are_fairlearns(rows: AuditData, test_rows: AuditData, model: TorchModel, constraints: str) -> None:
    new = run(ThresholdOptimizer(constraints=constraints), model, rows)  # type: ignore[arg-type]
    assert rows.sensitive_features is not None and test_rows.sensitive_features is not None and rows.y_true is not None
    theirs = Fairlearn(estimator=_Scores(), constraints=constraints, prefit=True, predict_method="predict_proba")
    theirs.fit(
        model.predict_proba(rows.X)[:, [1]], rows.y_true, sensitive_features=rows.sensitive_features.group.astype(str)
    )
    expected = theirs._pmf_predict(
        model.predict_proba(test_rows.X)[:, [1]], sensitive_features=test_rows.sensitive_features.group.astype(str)
    )
    assert np.allclose(new.predict_proba(test_rows.X), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("constraints", "label"),
    [
        ("true_positive_rate_parity", True), ("false_negative_rate_parity", True),
        ("false_positive_rate_parity", False), ("true_negative_rate_parity", False),
    ],
)  # fmt: skip
def test_parity_of_a_rate_is_over_the_rows_of_its_label(
    rows: AuditData, model: TorchModel, constraints: Constraints, label: bool
) -> None:
    scored = scored_rows(model, rows)
    chances = {i: scored.scores for i, _ in enumerate(scored.iter_groups())}
    of = [float(scored.scores[mask & (scored.y == label)].mean()) for _, mask in scored.iter_groups()]
    assert rate_gap(scored, chances, constraints) == pytest.approx(max(of) - min(of))


def test_a_randomised_decision_comes_as_often_as_its_chance_and_is_the_rows_own(
    rows: AuditData, test_rows: AuditData, model: TorchModel
) -> None:
    new = run(ThresholdOptimizer(), model, rows)
    assert new.postprocessing.randomised
    chances, decided = new.outputs(test_rows)[:, 1], new.decisions(test_rows)
    drawn = (chances > 0) & (chances < 1)
    assert drawn.sum() > 500
    assert np.array_equal(decided[~drawn], chances[~drawn].astype(int))
    for chance in np.unique(chances[drawn]):
        mask = chances == chance
        assert binomtest(int(decided[mask].sum()), int(mask.sum()), chance).pvalue > 1e-4
    # In another order, in another portion, with the columns elsewhere, and from another process: the same answer.
    order = np.random.default_rng(0).permutation(len(test_rows))[:500]
    few = test_rows.take(order)
    moved = AuditData(X=few.X[["group", "other", "skill"]], y_true=few.y_true, classes=("0", "1"), positive=1)  # type: ignore[call-overload]
    assert np.array_equal(new.decisions(few), decided[order]) and np.array_equal(new.decisions(moved), decided[order])
    # Another seed draws anew, so that nobody is unlucky in every model.
    other = PostprocessedModel(model, new.postprocessing.model_copy(update={"seed": 5}))
    share = float((other.decisions(test_rows) != decided)[drawn].mean())
    assert 0.01 < share < 0.6
    gap = {
        m: equalized_odds_difference(
            test_rows.y_true, m.decisions(test_rows), sensitive_features=test_rows.sensitive_features
        )
        for m in (model, new)
    }
    assert gap[model] > 0.2 and gap[new] < 0.08, gap


def test_draws_are_uniform_and_known_by_hand(rows: AuditData, model: TorchModel) -> None:
    import hashlib

    rules = Postprocessing(
        columns=("group",),
        positive=1,
        groups=(GroupRule(group=("a",), rule=Steps(thresholds=(), chances=(0.3,))),),
        otherwise=Steps(thresholds=(), chances=(0.7,)),
        seed=9,
    )
    new = PostprocessedModel(model, rules)
    draws = new._draws(rows.X)
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(np.sort(draws) - (np.arange(len(draws)) + 0.5) / len(draws)).max() < 1.95 / np.sqrt(len(draws))
    assert isinstance(rows.X, pd.DataFrame) and model.preprocessing is not None
    place = 0 if rows.X.group.iloc[0] == "a" else -1
    row = model.encode(rows.X.iloc[:1])[0].numpy()
    word = hashlib.blake2b(
        row.tobytes() + place.to_bytes(8, "little", signed=True), digest_size=8, key=(9).to_bytes(8, "little")
    ).digest()
    assert draws[0] == pytest.approx(int.from_bytes(word, "little") / 2**64, abs=1e-12)
    assert set(new.predict_proba(rows.X)[:, 1]) == {0.3, 0.7}


@pytest.mark.parametrize("constraints", ["demographic_parity", "equalized_odds"])
def test_the_deterministic_relaxation_draws_nothing_and_keeps_to_its_tolerance(
    rows: AuditData, model: TorchModel, constraints: str
) -> None:
    new = run(ThresholdOptimizer(constraints=constraints, deterministic=True), model, rows)  # type: ignore[arg-type]
    assert not new.postprocessing.randomised and set(np.unique(new.outputs(rows))) <= {0.0, 1.0}
    gap = demographic_parity_difference if constraints == "demographic_parity" else equalized_odds_difference
    left = gap(rows.y_true, new.decisions(rows), sensitive_features=rows.sensitive_features)
    accuracy = float((new.decisions(rows) == rows.y_true).mean())
    # The slow way: of all pairs of single thresholds, the best accuracy with a gap of at most the tolerance.
    scored = scored_rows(model, rows)
    cuts = np.quantile(scored.scores, np.linspace(0.0, 1.0, 60))
    (s0, y0), (s1, y1) = [(scored.scores[mask], scored.y[mask]) for _, mask in scored.iter_groups()]
    best = 0.0
    for a in cuts:
        for b in cuts:
            gaps = [(s0 > a).mean() - (s1 > b).mean()]
            if constraints == "equalized_odds":
                gaps = [(s0 > a)[y0 == v].mean() - (s1 > b)[y1 == v].mean() for v in (True, False)]
            if np.abs(gaps).max() <= 0.05:
                right = ((s0 > a) == y0).sum() + ((s1 > b) == y1).sum()
                best = max(best, float(right) / len(scored))
    assert left <= 0.05 + 1e-9
    assert accuracy > best - 0.01, (accuracy, best)


def test_reject_option_by_hand(rows: AuditData, model: TorchModel) -> None:
    new = run(RejectOption(width=0.1), model, rows)
    p = model.predict_proba(rows.X)[:, 1]
    assert rows.sensitive_features is not None
    deprived = (rows.sensitive_features.group == "b").to_numpy()
    # The paper's rule: in the critical region max(p, 1 - p) < theta the group decides, outside the model.
    critical = np.maximum(p, 1 - p) < 0.6
    expected = np.where(critical, deprived, p >= 0.5).astype(int)
    assert critical.sum() > 50 and np.array_equal(new.decisions(rows), expected)
    chosen = run(RejectOption(bound=0.02), model, rows)
    decided = chosen.decisions(rows)
    left = demographic_parity_difference(rows.y_true, decided, sensitive_features=rows.sensitive_features)
    assert left <= 0.02
    narrower = run(RejectOption(bound=0.2), model, rows)
    assert chosen.postprocessing.rules[0].thresholds > narrower.postprocessing.rules[0].thresholds  # type: ignore[union-attr]
    assert np.array_equal(run(RejectOption(width=0.0), model, rows).decisions(rows), model.decisions(rows))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_is_scikit_learns(rows: AuditData, test_rows: AuditData, model: TorchModel, method: str) -> None:
    new = run(GroupCalibration(method=method), model, rows)  # type: ignore[arg-type]
    fitted, asked = scored_rows(model, rows), scored_rows(model, test_rows)
    ours = new.predict_proba(test_rows.X)[:, 1]
    for (_, mask), (_, other) in zip(fitted.iter_groups(), asked.iter_groups(), strict=True):
        s, y, t = fitted.scores[mask], fitted.y[mask], asked.scores[other]
        if method == "platt":
            expected = _SigmoidCalibration().fit(np.log(s / (1 - s)), y).predict(np.log(t / (1 - t)))
        else:
            expected = IsotonicRegression(out_of_bounds="clip").fit(s, y).predict(t)
        assert np.allclose(ours[other], expected, atol=2e-3 if method == "platt" else 1e-9)
    # Calibration in the large, within each group, on rows never seen.
    for _, other in asked.iter_groups():
        assert abs(ours[other].mean() - asked.y[other].mean()) < 0.05


def test_a_bundle_keeps_the_rules_and_reads_the_group_from_the_table(
    rows: AuditData, test_rows: AuditData, model: TorchModel, tmp_path: Path
) -> None:
    blind = _blind(rows)
    old = trained(blind)
    assert old.features == ("skill", "other")
    new = run(ThresholdOptimizer(), old, blind)
    assert new.features == ("skill", "other", "group")
    save(new, tmp_path / "m.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    assert isinstance(again, PostprocessedModel) and again.postprocessing == new.postprocessing
    assert any("drawn at random" in note for note in again.provenance.notes)
    frame = test_rows.X.assign(y=test_rows.y_true)  # type: ignore[union-attr]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    spec = DataSpec(path=str(tmp_path / "rows.csv"), target="y", sensitive=("group",))
    data = load_data(spec, again)
    assert np.array_equal(again.decisions(data), new.decisions(test_rows))
    # Counted in a stream, the decisions are the same.
    counts, _ = Stream(spec, again).count_by_group()
    assert counts.table.sum(axis=(0, 1)).tolist() == np.bincount(again.decisions(data)).tolist()
    frame.drop(columns="group").to_csv(tmp_path / "blind.csv", index=False)
    with pytest.raises(AuditorError, match="group"):
        load_data(DataSpec(path=str(tmp_path / "blind.csv"), target="y"), again)
    with pytest.raises(UsageError, match="--threshold"):
        load_model(ModelSpec(path=str(tmp_path / "m.pt"), threshold=0.4))
    calibrated = run(GroupCalibration(), old, blind)
    save(calibrated, tmp_path / "c.pt")
    assert load_model(ModelSpec(path=str(tmp_path / "c.pt"), threshold=0.4)).threshold == 0.4


def _blind(rows: AuditData) -> AuditData:
    from dataclasses import replace

    assert isinstance(rows.X, pd.DataFrame)
    return replace(rows, X=rows.X[["skill", "other"]])


def test_codes_with_leading_zeros_are_the_groups_they_were(tmp_path: Path) -> None:
    blind = _blind(biased_rows(1500, 3))
    assert blind.sensitive_features is not None and isinstance(blind.X, pd.DataFrame)
    code = blind.sensitive_features.group.astype(str).map({"a": "01", "b": "02"})
    blind.X.assign(y=blind.y_true, code=code).to_csv(tmp_path / "rows.csv", index=False)
    old = trained(blind, epochs=3)
    spec = DataSpec(path=str(tmp_path / "rows.csv"), target="y", sensitive=("code",))
    new = run(RejectOption(width=0.2), old, load_data(spec, old))
    assert [g.group for g in new.postprocessing.groups] == [("01",), ("02",)]
    data = load_data(spec, new)
    assert isinstance(data.X, pd.DataFrame) and set(new.postprocessing.places(data.X)) == {0, 1}


def test_bins_are_no_columns_of_the_table(tmp_path: Path) -> None:
    blind = _blind(biased_rows(600, 3))
    assert isinstance(blind.X, pd.DataFrame)
    blind.X.assign(y=blind.y_true, age=np.arange(600) % 50).to_csv(tmp_path / "rows.csv", index=False)
    old = trained(blind, epochs=1)
    spec = DataSpec(path=str(tmp_path / "rows.csv"), target="y", sensitive=("age",), bins=("age=quantiles:3",))
    for mitigation in (RejectOption(), ThresholdOptimizer(), CorrelationRemover()):
        with pytest.raises(UsageError, match="bins"):
            run(mitigation, old, load_data(spec, old))


def test_a_group_never_seen_gets_the_old_models_decision(rows: AuditData, model: TorchModel) -> None:
    new = run(RejectOption(width=0.3), model, rows)
    assert isinstance(rows.X, pd.DataFrame)
    stranger = rows.X.assign(group="z")
    assert np.array_equal(new.predict_proba(stranger)[:, 1], model.predict_proba(stranger)[:, 1] >= 0.5)
    missing = rows.X.assign(group=pd.NA)
    assert np.array_equal(new.postprocessing.places(missing), np.full(len(missing), -1))


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "steps", "thresholds": [0.5], "chances": [0.0]},
        {"kind": "steps", "thresholds": [0.5, 0.5], "chances": [0.0, 0.5, 1.0]},
        {"kind": "steps", "thresholds": [0.5], "chances": [0.0, 1.5]},
        {"kind": "steps", "thresholds": [float("nan")], "chances": [0.0, 1.0]},
        {"kind": "isotonic", "scores": [0.1, 0.2], "values": [0.2, 0.1]},
        {"kind": "platt", "slope": float("inf"), "intercept": 0.0},
        {"kind": "code", "run": "os.system"},
        {"kind": "platt", "slope": 1.0, "intercept": 0.0, "more": 1},
    ],
)
def test_a_bundle_with_bad_rules_is_refused(model: TorchModel, tmp_path: Path, rule: dict[str, object]) -> None:
    save(model, tmp_path / "m.pt")
    bundle = torch.load(tmp_path / "m.pt", weights_only=True)
    bundle["postprocessing"] = {
        "columns": ["group"],
        "positive": 1,
        "groups": [{"group": ["a"], "rule": rule}],
        "otherwise": rule,
    }
    torch.save(bundle, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match="postprocessing"):
        load_model(ModelSpec(path=str(tmp_path / "bad.pt")))


def test_the_schema_holds_its_parts_together() -> None:
    step, platt = Steps(thresholds=(0.5,), chances=(0.0, 1.0)), PlattScaling(slope=1.0, intercept=0.0)
    one = GroupRule(group=("a",), rule=step)
    for groups, otherwise, columns in (
        ((one, one), step, ("g",)),
        ((one,), platt, ("g",)),
        ((one,), step, ("g", "h")),
        ((one,), step, ("g", "g")),
        ((), step, ("g",)),
    ):
        with pytest.raises(ValidationError):
            Postprocessing(columns=columns, positive=1, groups=groups, otherwise=otherwise)
    scores = np.array([0.0, 0.2, 0.5, 0.50001, 1.0])
    assert step(scores).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert np.allclose(platt(scores), scores, atol=1e-9)
    between = IsotonicMap(scores=(0.2, 0.6), values=(0.1, 0.5))
    assert np.allclose(between(scores), [0.1, 0.1, 0.4, 0.40001, 0.5])


def test_what_cannot_be_done_is_refused(rows: AuditData, model: TorchModel) -> None:
    from dataclasses import replace

    assert rows.y_true is not None and rows.sensitive_features is not None
    every: list[Mitigation] = [ThresholdOptimizer(), RejectOption(), GroupCalibration()]
    single = np.where(rows.sensitive_features.group == "b", 0, rows.y_true)
    one_group = rows.take((rows.sensitive_features.group == "a").to_numpy())
    for mitigation in every:
        with pytest.raises(ModelError, match="two classes"):
            run(mitigation, AuditedModel.from_callable(lambda X: X.skill, classes=[0, 1, 2]), rows)
        with pytest.raises(ModelError, match="already"):
            run(mitigation, run(RejectOption(width=0.1), model, rows), rows)
        with pytest.raises(UsageError, match="--sensitive"):
            run(mitigation, model, replace(rows, sensitive_features=None))
        with pytest.raises(UsageError, match="--target"):
            run(mitigation, model, replace(rows, y_true=None))
        with pytest.raises(UsageError, match="--positive"):
            run(mitigation, model, replace(rows, positive=None))
        with pytest.raises(DataError, match="one group only"):
            run(mitigation, model, one_group)
        with pytest.raises(DataError, match="one label"):
            run(mitigation, model, replace(rows, y_true=single))
    with pytest.raises(DataError, match="50"):
        run(GroupCalibration(), model, rows.take(slice(80)))
    for kind, options in (
        (ThresholdOptimizer, {"constraints": "fair"}),
        (ThresholdOptimizer, {"tolerance": 2.0}),
        (ThresholdOptimizer, {"deterministic": "yes"}),
        (RejectOption, {"width": -0.1}),
        (GroupCalibration, {"method": "beta"}),
    ):
        with pytest.raises(ValueError):
            kind(**options)


def test_the_old_model_and_the_generators_are_untouched(rows: AuditData, model: TorchModel) -> None:
    before = model.predict_proba(rows.X)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[union-attr]
    made = [run(ThresholdOptimizer(), model, rows, seed).decisions(rows) for seed in (1, 1)]
    assert np.array_equal(made[0], made[1]) and np.array_equal(before, model.predict_proba(rows.X))
    assert np.array_equal(np.random.get_state()[1], states[0]) and torch.equal(torch.get_rng_state(), states[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_rule_ranks_rows_by_the_score_before_it(
    rows: AuditData, test_rows: AuditData, model: TorchModel, deterministic: bool
) -> None:
    new = run(ThresholdOptimizer(deterministic=deterministic), model, rows)
    assert np.array_equal(new.scores(test_rows), model.outputs(test_rows))
    assert not np.array_equal(new.outputs(test_rows), model.outputs(test_rows))
    found = {
        f.metric: f.estimate for f in Performance().measure(new, test_rows, np.random.default_rng(0)) if not f.group
    }
    own = {
        f.metric: f.estimate for f in Performance().measure(model, test_rows, np.random.default_rng(0)) if not f.group
    }
    assert found["roc_auc"].value == own["roc_auc"].value and found["accuracy"].value != own["accuracy"].value
    changes = Change(reference=model).measure(new, test_rows, np.random.default_rng(0))
    assert next(m.estimate.value for m in changes if m.metric == "roc_auc_change") == 0.0


def test_what_a_calibration_ranks_by_are_its_own_probabilities(
    rows: AuditData, test_rows: AuditData, model: TorchModel
) -> None:
    new = run(GroupCalibration(), model, rows)
    assert np.array_equal(new.scores(test_rows), new.outputs(test_rows))
