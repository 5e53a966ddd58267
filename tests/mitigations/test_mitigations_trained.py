"""Mitigations that train anew: each formula the slow way, each aim reached on rows never seen, bad input refused."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from fairlearn.preprocessing import CorrelationRemover as Fairlearn

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.models.audited_model import AuditedModel
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Mitigation, Training
from mitigations.rows.correlation_remover import CorrelationRemover, fit_removal
from mitigations.rows.reweighing_and_resampling import BalancedResampling, resampled
from mitigations.training.group_dro import GroupDro
from mitigations.training.min_diff import WEIGHTS, MinDiff
from mitigations.training.retraining import only_class, training_set
from mitigations.training.training_steps import (
    GroupWeights,
    contrasts,
    group_means,
    mmd2,
    penalty,
    scaled,
    update_weights,
)
from tests.mitigations.planted_rows import biased_rows, run, small_groups, trained
from tests.quantifiers import all_of

# ---- resampling ----------------------------------------------------------------------------------------------------


def test_resampled_cells_have_the_rows_they_should() -> None:
    rng = np.random.default_rng(0)
    s = rng.choice(3, 4000, p=[0.6, 0.3, 0.1])
    y = (rng.random(4000) < np.array([0.5, 0.2, 0.1])[s]).astype(np.int64)
    drawn = resampled(y, s[:, None], "uniform_sampling", rng)
    for group in range(3):
        for label in range(2):
            got = int(((s[drawn] == group) & (y[drawn] == label)).sum())
            # The paper's expected size, counted here from the marginals alone.
            assert abs(got - (s == group).sum() * (y == label).sum() / 4000) <= 0.5
            own = np.flatnonzero((s == group) & (y == label))
            times = np.bincount(drawn, minlength=4000)[own]
            assert times.max() - times.min() <= 1
    even = resampled(y, s[:, None], "balanced", rng)
    assert [int(((s[even] == g) & (y[even] == v)).sum()) for g in range(3) for v in range(2)] == [667] * 6


def test_resampling_narrows_the_gap_in_selection(rows: AuditData, model: TorchModel) -> None:
    test = biased_rows(6000, 2)
    made = run(BalancedResampling(), model, rows)
    gaps = [
        demographic_parity_difference(test.y_true, m.decisions(test), sensitive_features=test.sensitive_features)
        for m in (model, made.model)
    ]
    assert gaps[1] < 0.7 * gaps[0], gaps
    assert "of 3,000 rows" in made.notes[0]


# ---- correlation remover -------------------------------------------------------------------------------------------


def test_what_is_removed_is_what_fairlearn_removes() -> None:
    rng = np.random.default_rng(1)
    codes = rng.choice(3, 500, p=[0.5, 0.3, 0.2])
    s = np.eye(3)[codes]
    z = rng.normal(size=(500, 4)) + s @ rng.normal(size=(3, 4))
    mean, B = fit_removal(z, s, (3,))
    ours = z - (s - mean) @ B
    theirs = Fairlearn(sensitive_feature_ids=[4, 5, 6]).fit_transform(np.column_stack([z, s]))
    assert np.allclose(ours, theirs, atol=1e-9)
    assert np.abs((s - mean).T @ (ours - ours.mean(axis=0))).max() < 1e-8
    assert np.abs(mean @ B).max() < 1e-12


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_bundle_subtracts_by_itself(rows: AuditData, tmp_path: Path, alpha: float) -> None:
    assert isinstance(rows.X, pd.DataFrame) and rows.sensitive_features is not None
    X = rows.X.drop(columns="group").assign(other=rows.X.other + 2.0 * (rows.X.group == "a"))
    blind = replace(rows, X=X)
    old = trained(blind)
    new = run(CorrelationRemover(alpha=alpha), old, blind).model
    assert isinstance(new, TorchModel) and new.features == ("skill", "other", "group")
    save(new, tmp_path / "m.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    X.assign(group=rows.sensitive_features.group, y=rows.y_true).to_csv(tmp_path / "rows.csv", index=False)
    data = load_data(DataSpec(path=str(tmp_path / "rows.csv"), target="y", sensitive=("group",)), again)
    z = old.encode(X).numpy().astype(float)
    s = np.eye(2)[(rows.sensitive_features.group == "b").to_numpy().astype(int)]
    theirs = Fairlearn(sensitive_feature_ids=[2, 3], alpha=alpha).fit_transform(np.column_stack([z, s]))
    # The network below, rebuilt from the part of the first layer that reads the features.
    inner = [m for m in new.module.modules() if isinstance(m, torch.nn.Linear)]
    hidden = np.maximum(theirs @ inner[0].weight.detach().numpy()[:, :2].T + inner[0].bias.detach().numpy(), 0.0)
    logits = hidden @ inner[1].weight.detach().numpy().T + inner[1].bias.detach().numpy()
    expected = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))
    assert np.allclose(again.predict_proba(data.X)[:, 1], expected, atol=1e-5)
    # A group never seen: nothing is subtracted.
    stranger = X.assign(group="z")
    hidden = np.maximum(z @ inner[0].weight.detach().numpy()[:, :2].T + inner[0].bias.detach().numpy(), 0.0)
    logits = hidden @ inner[1].weight.detach().numpy().T + inner[1].bias.detach().numpy()
    expected = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))
    assert np.allclose(new.predict_proba(stranger)[:, 1], expected, atol=1e-5)


def test_the_remover_leaves_the_group_unread_and_is_for_mlps(rows: AuditData, model: TorchModel) -> None:
    test = biased_rows(6000, 2)
    new = run(CorrelationRemover(), model, rows).model
    gaps = [
        demographic_parity_difference(test.y_true, m.decisions(test), sensitive_features=test.sensitive_features)
        for m in (model, new)
    ]
    assert gaps[1] < 0.5 * gaps[0], gaps
    text = TorchModel(model.module, classes=[0, 1], recipe=model.recipe, architecture={"name": "mlp", "args": {}})
    with pytest.raises(ModelError, match="mlp"):
        run(CorrelationRemover(), text, replace(rows, X=np.asarray(model.encode(rows.X))))
    assert isinstance(rows.X, pd.DataFrame)
    only = replace(rows, X=rows.X[["group"]])
    with pytest.raises(DataError, match="nothing is left"):
        run(CorrelationRemover(), trained(only, epochs=1), only)


# ---- MinDiff -------------------------------------------------------------------------------------------------------


def test_mmd_is_the_double_sum_over_different_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(5, 2, generator=generator), torch.rand(7, 2, generator=generator)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(-float(((a - b) ** 2).sum()) / (2 * 0.3**2))

    def within(rows: torch.Tensor) -> float:
        n = len(rows)
        return sum(k(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    between = sum(k(a, b) for a in p for b in q) / 35
    assert float(mmd2(p, q, 0.3)) == pytest.approx(within(p) + within(q) - 2 * between, abs=1e-6)
    other = torch.rand(4, 2, generator=generator)
    both = float(mmd2(p, q, 0.3)) + float(mmd2(q, other, 0.3))
    assert float(penalty([p, q, q, other], 0.3)) == pytest.approx(both, abs=1e-6)
    assert float(penalty([], 0.3)) == 0.0


def test_of_equal_groups_no_scores_are_rewarded() -> None:
    generator = torch.Generator().manual_seed(0)
    apart = torch.stack([mmd2(*torch.rand(2, 4, 1, generator=generator), 0.3) for _ in range(4000)])
    # Everybody the same: distance 0. Four rows of one distribution beside four others of it must not be farther.
    assert float(mmd2(torch.full((4, 1), 0.9), torch.full((4, 1), 0.9), 0.3)) == pytest.approx(0.0, abs=1e-6)
    assert abs(float(apart.mean())) < 3 * float(apart.std()) / 4000**0.5
    assert float((apart < 0).float().mean()) > 0.4


def test_each_group_is_compared_with_all_others_within_a_label(rows: AuditData) -> None:
    data = small_groups(400, 1)
    of = training_set(trained(data, epochs=1), data, "cpu", groups=True)
    found, small = contrasts(of, [of.y.eq(1)])
    s, y = of.s[:, 0].numpy(), of.y.numpy()
    # Of the fifth group a single row has this label, which is too few for an unbiased distance.
    assert int(((s == 4) & (y == 1)).sum()) == 1 and small == ["group = g4"]
    for code, contrast in zip((0, 1, 2, 3, 5, 6, 7), found, strict=True):
        assert np.array_equal(contrast.own, np.flatnonzero((s == code) & (y == 1)))
        assert np.array_equal(contrast.others, np.flatnonzero((s != code) & (y == 1)))
    two = training_set(trained(rows, epochs=1), rows, "cpu", groups=True)
    assert len(contrasts(two, [two.y.ge(0)])[0]) == 1


@pytest.mark.parametrize("options", [{"weight": 1.0}, {"weight": 3.0}])
def test_small_groups_do_not_make_it_approve_everybody(options: dict[str, float]) -> None:
    """The biased statistic had a constant network here, at either weight."""
    data = small_groups(2000, 1)
    old = trained(data)
    made = run(MinDiff(**options), old, data)  # type: ignore[arg-type]
    other = small_groups(4000, 2)
    assert only_class(made.model, other) is None
    found = made.model.decisions(other)
    assert other.y_true is not None
    recalls = [float((found == v)[other.y_true == v].mean()) for v in (0, 1)]
    assert sum(recalls) / 2 > 0.6, recalls


def test_the_weight_is_chosen_on_rows_held_back(rows: AuditData, model: TorchModel) -> None:
    said = []
    progress = Training(progress=said.append)
    made = MinDiff(epochs=4).mitigate(model, rows.take(slice(1200)), np.random.default_rng(0), progress)
    assert len(said) == 4 * (1 + len(WEIGHTS)) and said[-1].startswith("network 5: epoch 4")
    (note,) = made.notes
    assert re.search(
        r"weight (0.3|1|3|10) of 0.3, 1, 3, 10, chosen on 180 training rows held back: gap 0\.\d+ \(", note
    )


def test_a_weight_that_leaves_nothing_is_not_chosen(
    rows: AuditData, model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mitigations.training.min_diff.WEIGHTS", (0.1, 1e6))
    few = rows.take(slice(1200))
    made = run(MinDiff(epochs=6, batch_size=64), model, few)
    assert "weight 0.1 of 0.1, 1e+06" in made.notes[0]
    assert only_class(made.model, few) is None


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(("over", "gap"), [("both", equalized_odds_difference), ("all", demographic_parity_difference)])
def test_min_diff_narrows_the_gap_it_is_over(rows: AuditData, model: TorchModel, over: str, gap) -> None:  # type: ignore[no-untyped-def]
    test = biased_rows(6000, 2)
    new = run(MinDiff(over=over, epochs=10), model, rows).model  # type: ignore[arg-type]
    gaps = [gap(test.y_true, m.decisions(test), sensitive_features=test.sensitive_features) for m in (model, new)]
    assert gaps[1] < 0.6 * gaps[0], gaps
    accuracy = [float((m.decisions(test) == test.y_true).mean()) for m in (model, new)]
    assert accuracy[1] > accuracy[0] - 0.06, accuracy


# ---- group DRO -----------------------------------------------------------------------------------------------------


def test_group_weights_move_as_the_algorithm_says() -> None:
    losses, group = torch.tensor([1.0, 3.0, 0.5]), torch.tensor([0, 0, 2])
    means, present = group_means(losses, group, 3)
    assert means.tolist() == [2.0, 0.0, 0.5] and present.tolist() == [True, False, True]
    raised = update_weights(torch.tensor([0.2, 0.3, 0.5]), means + torch.tensor([0.1, 9.0, 0.2]), present, 0.7)
    by_hand = [0.2 * math.exp(0.7 * 2.1), 0.3, 0.5 * math.exp(0.7 * 0.7)]
    assert raised.tolist() == pytest.approx(by_hand)
    q = scaled(raised, torch.zeros(3, dtype=torch.int64), torch.ones(1))
    assert q.tolist() == pytest.approx([r / sum(by_hand) for r in by_hand])
    # The first and the last of one label, which has 0.7 of the rows.
    kept = scaled(raised, torch.tensor([0, 1, 0]), torch.tensor([0.7, 0.3]))
    both = by_hand[0] + by_hand[2]
    assert kept.tolist() == pytest.approx([0.7 * by_hand[0] / both, 0.3, 0.7 * by_hand[2] / both])
    assert GroupWeights(torch.tensor([0, 1, 0]), torch.tensor([0.7, 0.3])).q.tolist() == pytest.approx(
        [0.35, 0.3, 0.35]
    )


@pytest.mark.slow
def test_group_dro_lifts_the_worst_cell(rows: AuditData, model: TorchModel) -> None:
    test = biased_rows(6000, 2)
    assert test.sensitive_features is not None and test.y_true is not None
    made = run(GroupDro(eta=0.05, epochs=30, keep_labels=False), model, rows)
    group = (test.sensitive_features.group == "b").to_numpy()

    def worst(m: AuditedModel) -> float:
        right = m.decisions(test) == test.y_true
        return min(float(right[(group == g) & (test.y_true == v)].mean()) for g in (False, True) for v in (0, 1))

    assert worst(made.model) > worst(model) + 0.1
    assert "heaviest first" in made.notes[0]


def test_group_dro_evens_out_groups_and_not_labels() -> None:
    """Over all cells at once, the rare label is the worst: four points of accuracy are paid for what is no gap."""
    data, other = small_groups(2000, 1), small_groups(4000, 2)
    two = [
        replace(d, sensitive_features=pd.DataFrame({"group": np.where(d.X.group == "g0", "g0", "else")}))
        for d in (data, other)
    ]  # type: ignore[union-attr]
    old = trained(data)

    def accuracy(m: AuditedModel) -> float:
        return float((m.decisions(two[1]) == two[1].y_true).mean())

    whole = run(GroupDro(keep_labels=False), old, two[0])
    kept = run(GroupDro(eta=0.05), old, two[0])
    assert accuracy(whole.model) < accuracy(old) - 0.025
    assert accuracy(kept.model) > accuracy(old) - 0.02
    gaps = [
        equalized_odds_difference(two[1].y_true, m.decisions(two[1]), sensitive_features=two[1].sensitive_features)
        for m in (old, kept.model)
    ]
    assert gaps[1] < 0.7 * gaps[0], gaps
    shares = [float(m) for m in re.findall(r": (0\.\d+) \(", kept.notes[0])]
    assert len(shares) == 4 and sum(shares) == pytest.approx(1.0, abs=0.003)


# ---- what they share -----------------------------------------------------------------------------------------------

EVERY: list[Mitigation] = [BalancedResampling(), CorrelationRemover(), MinDiff(epochs=2), GroupDro(epochs=2)]


@pytest.mark.parametrize("mitigation", EVERY, ids=lambda m: m.name)
def test_same_seed_same_model_and_nothing_else_changed(
    rows: AuditData, model: TorchModel, mitigation: Mitigation
) -> None:
    few = rows.take(slice(400))
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    said = [run(mitigation, model, few, seed).model.predict_proba(rows.X) for seed in (5, 5, 6)]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("mitigation", EVERY, ids=lambda m: m.name)
def test_an_interrupted_training_goes_on(
    rows: AuditData, model: TorchModel, mitigation: Mitigation, tmp_path: Path
) -> None:
    few = rows.take(slice(400))

    class Stop(Exception):
        pass

    seen: list[str] = []

    def stop(words: str) -> None:
        seen.append(words)
        if len(seen) == 2:
            raise Stop

    def train(progress, checkpoint: Path | None) -> Mitigated:  # type: ignore[no-untyped-def]
        training = Training(checkpoint=checkpoint, progress=progress)
        return mitigation.mitigate(model, few, np.random.default_rng(1), training)

    whole = train(None, None)
    with pytest.raises(Stop):
        train(stop, tmp_path / "c")
    assert np.array_equal(train(None, tmp_path / "c").model.predict_proba(rows.X), whole.model.predict_proba(rows.X))


@pytest.mark.parametrize("mitigation", EVERY, ids=lambda m: m.name)
def test_what_cannot_be_done_is_refused(rows: AuditData, model: TorchModel, mitigation: Mitigation) -> None:
    with pytest.raises(ModelError, match="post-processing"):
        run(mitigation, AuditedModel.from_callable(lambda X: X.skill > 0, classes=[0, 1]), rows)
    with pytest.raises(UsageError, match="--sensitive"):
        run(mitigation, model, replace(rows, sensitive_features=None))
    assert rows.sensitive_features is not None
    with pytest.raises(DataError, match="one group only"):
        run(mitigation, model, rows.take((rows.sensitive_features.group == "a").to_numpy()))


def test_options_out_of_range_are_refused(rows: AuditData, model: TorchModel) -> None:
    for kind, options in (
        (BalancedResampling, {"method": "smote"}),
        (CorrelationRemover, {"alpha": 1.5}),
        (MinDiff, {"over": "some"}),
        (MinDiff, {"width": 0.0}),
        (MinDiff, {"weight": -1.0}),
        (GroupDro, {"eta": 0.0}),
        (GroupDro, {"adjustment": math.nan}),
        (GroupDro, {"epochs": 0}),
        (GroupDro, {"keep_labels": 1}),
    ):
        with pytest.raises(ValueError):
            kind(**options)
    with pytest.raises(UsageError, match="--positive"):
        run(MinDiff(), model, replace(rows, positive=None))
