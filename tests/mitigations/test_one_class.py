"""A new model that answers everybody alike: refused at the end of every mitigation that trains, and how it is found."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import auditor.training.training_loop
from auditor.core.errors import ModelError
from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigation
from mitigations.rows.correlation_remover import CorrelationRemover
from mitigations.rows.counterfactual_augmentation import CounterfactualAugmentation
from mitigations.rows.fair_gan import FairGan
from mitigations.rows.reweighing_and_resampling import BalancedResampling, Reweighing
from mitigations.training.adversarial_debiasing import AdversarialDebiasing
from mitigations.training.exponentiated_gradient import ExponentiatedGradient
from mitigations.training.grid_search import GridSearch
from mitigations.training.group_dro import GroupDro
from mitigations.training.min_diff import MinDiff, evaluate_held_back, held_back
from mitigations.training.retraining import only_class, refuse_one_class, training_set
from tests.mitigations.planted_rows import biased_rows, run, small_groups, trained
from tests.quantifiers import all_of

EVERY: list[Mitigation] = [
    MinDiff(epochs=1),
    MinDiff(epochs=1, weight=0.5),
    GroupDro(epochs=1),
    AdversarialDebiasing(epochs=1),
    GridSearch(grid_size=3, epochs=1),
    ExponentiatedGradient(max_iter=2, learner="network", epochs=1),
    Reweighing(),
    BalancedResampling(),
    CorrelationRemover(),
    CounterfactualAugmentation(epochs=1),
    FairGan(epochs=1),
]


@pytest.mark.grid
@pytest.mark.parametrize("mitigation", EVERY, ids=lambda m: m.name)
def test_a_training_that_ends_in_one_answer_makes_nothing(
    rows: AuditData, model: TorchModel, mitigation: Mitigation, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = auditor.training.training_loop.train

    def spoilt(step, tensors, *args, **kwargs):  # type: ignore[no-untyped-def]
        """Trains, and then has the network decide class 1 whatever it reads."""
        history = train(step, tensors, *args, **kwargs)
        for layer in [m for m in step.modules[0].modules() if isinstance(m, torch.nn.Linear)][-1:]:
            if layer.out_features == 2:
                torch.nn.init.zeros_(layer.weight)
                layer.bias.data.copy_(torch.tensor([-1.0, 1.0]))
        return history

    few = rows.take(slice(300))
    assert len(np.unique(model.decisions(few))) == 2
    monkeypatch.setattr(auditor.training.training_loop, "train", spoilt)
    with pytest.raises(ModelError, match=r"decides '1' for all 300 training rows.*of no use.*; \w+"):
        run(mitigation, model, few)


def test_it_is_refused_only_where_the_old_model_told_rows_apart() -> None:
    rows = biased_rows(10_000, 3)

    def answer(shares: float, X: pd.DataFrame) -> np.ndarray:
        return (np.arange(len(X)) >= len(X) * shares).astype(int)

    always = AuditedModel.from_callable(partial(answer, 0.0), classes=[0, 1])
    mixed = AuditedModel.from_callable(partial(answer, 0.5), classes=[0, 1])
    assert only_class(always, rows) == 1 and only_class(mixed, rows) is None
    assert only_class(always, rows.take(slice(0))) is None
    refuse_one_class(always, always, rows, instead="lower weight")
    refuse_one_class(mixed, mixed, rows, instead="lower weight")
    with pytest.raises(ModelError, match="decides '1' for all 10,000 training rows.*; lower weight."):
        refuse_one_class(always, mixed, rows, instead="lower weight")


def test_one_row_among_thousands_that_is_answered_otherwise_is_two_classes() -> None:
    rows = biased_rows(9000, 3)
    assert isinstance(rows.X, pd.DataFrame)
    last = float(rows.X.skill.iloc[-1])
    one = AuditedModel.from_callable(lambda X: (X.skill != last).astype(int).to_numpy(), classes=[0, 1])
    assert only_class(one, rows) is None
    assert only_class(one, rows.take(slice(8999))) == 1


# ---- rows held back ------------------------------------------------------------------------------------------------


def test_every_group_and_label_is_held_back_from_alike(model: TorchModel) -> None:
    data = small_groups(2000, 1)
    rows = training_set(trained(data, epochs=1), data, "cpu", groups=True)
    learn, back = held_back(rows, np.random.default_rng(0))
    assert np.array_equal(np.sort(np.concatenate([learn, back])), np.arange(2000))
    cells, cell = np.unique(np.column_stack([rows.s, rows.y]), axis=0, return_inverse=True)
    has, held = (np.bincount(cell.reshape(-1)[part], minlength=len(cells)) for part in (np.arange(2000), back))
    assert len(cells) == 16 and all_of(abs(h - 0.15 * n) <= 0.5 for h, n in zip(held, has, strict=True))
    again = held_back(rows, np.random.default_rng(1))[1]
    assert not np.array_equal(back, again)


def test_what_is_seen_on_rows_held_back_is_counted_by_hand(rows: AuditData, model: TorchModel) -> None:
    held = training_set(model, rows, "cpu", groups=True)
    y, s, decided = rows.y_true, held.s.numpy()[:, 0], model.decisions(rows)
    found = evaluate_held_back(model, held, [held.y.eq(0), held.y.eq(1)])
    assert found.accuracy == pytest.approx(float((decided == y).mean()))
    rates = {(g, v): decided[(s == g) & (y == v)].mean() for g in (0, 1) for v in (0, 1)}
    assert found.gap == pytest.approx(max(abs(rates[0, v] - rates[1, v]) for v in (0, 1)))
    assert found.balanced_accuracy == pytest.approx(np.mean([(decided == y)[y == v].mean() for v in (0, 1)]))
    assert not found.one_class
    few = held.take(np.concatenate([np.flatnonzero(s == 0)[:50], np.flatnonzero(s == 1)[:9]]))
    assert evaluate_held_back(model, few, [few.y.ge(0)]).gap is None


def test_what_is_useful_beside_training_without_the_mitigation(rows: AuditData, model: TorchModel) -> None:
    plain = evaluate_held_back(model, training_set(model, rows, "cpu", groups=True), [])
    assert replace(plain, accuracy=plain.accuracy - 0.019).is_useful_beside(plain)
    assert not replace(plain, accuracy=plain.accuracy - 0.021).is_useful_beside(plain)
    assert not replace(plain, balanced_accuracy=plain.balanced_accuracy - 0.051).is_useful_beside(plain)
    constant = replace(plain, one_class=True)
    assert not constant.is_useful_beside(plain) and constant.is_useful_beside(constant)
