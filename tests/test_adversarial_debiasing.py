"""Adversarial debiasing: the update against the paper's formula, the gap really closed, what cannot be done refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference

from auditor.data import AuditData
from auditor.errors import DataError, ModelError, UsageError
from auditor.mitigation import Mitigated, Training
from auditor.model import AuditedModel, TorchModel
from mitigations.adversarial_debiasing import AdversarialDebiasing
from mitigations.adversarial_step import balanced_weights, debiased
from tests.mitigations_data import biased_rows, trained


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(3000, 1)


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return trained(rows)


def run(mitigation: AdversarialDebiasing, model: AuditedModel, rows: AuditData, seed: int = 0) -> Mitigated:
    return mitigation.mitigate(model, rows, np.random.default_rng(seed), Training())


def test_the_update_is_the_papers_on_one_flat_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (4,), (2, 2)]
    g = [torch.randn(s, generator=generator) for s in shapes]
    a = [torch.randn(s, generator=generator) for s in shapes]
    flat_g, flat_a = (torch.cat([t.reshape(-1) for t in v]) for v in (g, a))
    unit = flat_a / flat_a.norm()
    expected = flat_g - (flat_g @ unit) * unit - 0.7 * flat_a
    ours = torch.cat([t.reshape(-1) for t in debiased(g, a, 0.7) if t is not None])
    assert torch.allclose(ours, expected, atol=1e-6)
    # Without alpha the update no longer helps the adversary at all.
    assert abs(float(torch.cat([t.reshape(-1) for t in debiased(g, a, 0.0) if t is not None]) @ flat_a)) < 1e-4
    first, second = debiased([g[0], None], [None, a[1]], 2.0)
    assert first is g[0] and second is not None and torch.allclose(second, -2.0 * a[1])


def test_balanced_weights_give_every_cell_the_same() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 0])
    s = torch.tensor([[0], [0], [1], [1], [0], [1]])
    w = balanced_weights(y, s, by_label=True)[:, 0]
    assert float(w.mean()) == pytest.approx(1.0)
    for cell in ([0, 1], [2, 5], [3], [4]):
        assert float(w[cell].sum()) == pytest.approx(6 / 4)
    assert balanced_weights(y, s, by_label=False).flatten().tolist() == [1.0] * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("constraint", "gap"),
    [("equalized_odds", equalized_odds_difference), ("demographic_parity", demographic_parity_difference)],
)
def test_the_gap_closes_on_rows_never_seen(rows: AuditData, model: TorchModel, constraint: str, gap) -> None:  # type: ignore[no-untyped-def]
    test = biased_rows(6000, 2)
    new = run(AdversarialDebiasing(constraint=constraint, epochs=30), model, rows)  # type: ignore[arg-type]
    gaps = [gap(test.y_true, m.decisions(test), sensitive_features=test.sensitive_features) for m in (model, new.model)]
    accuracy = [float((m.decisions(test) == test.y_true).mean()) for m in (model, new.model)]
    assert gaps[0] > 0.2 and gaps[1] < 0.6 * gaps[0], gaps
    assert accuracy[1] > accuracy[0] - 0.05, accuracy
    assert any(constraint in note for note in new.notes)


def test_the_old_model_is_untouched_and_the_seed_decides(rows: AuditData, model: TorchModel) -> None:
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    made = [run(AdversarialDebiasing(epochs=2), model, rows.take(slice(400)), seed).model for seed in (5, 5, 6)]
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    said = [m.predict_proba(rows.X) for m in made]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    assert isinstance(made[0], TorchModel) and made[0].recipe is not None and made[0].recipe.epochs == 2


def test_an_interrupted_training_goes_on(rows: AuditData, model: TorchModel, tmp_path: Path) -> None:
    few = rows.take(slice(400))

    class Stop(Exception):
        pass

    def stop(words: str) -> None:
        if words.startswith("epoch 3"):
            raise Stop

    def train(progress, checkpoint: Path | None) -> Mitigated:  # type: ignore[no-untyped-def]
        training = Training(checkpoint=checkpoint, progress=progress)
        return AdversarialDebiasing(epochs=5).mitigate(model, few, np.random.default_rng(1), training)

    whole = train(None, None)
    with pytest.raises(Stop):
        train(stop, tmp_path / "c")
    resumed = train(None, tmp_path / "c")
    assert np.array_equal(whole.model.predict_proba(rows.X), resumed.model.predict_proba(rows.X))


def test_several_features_and_classes() -> None:
    rng = np.random.default_rng(3)
    n = 300
    data = AuditData.from_arrays(
        rng.normal(size=(n, 3)).astype(np.float32),
        rng.choice(["x", "y", "z"], n),
        classes=["x", "y", "z"],
        sensitive_features={"sex": rng.choice(["f", "m"], n), "race": rng.choice(["a", "b", "c"], n)},
    )
    from auditor.architectures import MLP
    from auditor.model import Recipe

    arguments = {"n_features": 3, "hidden": [4], "n_outputs": 3}
    old = TorchModel(
        MLP(**arguments), classes=["x", "y", "z"], architecture={"name": "mlp", "args": arguments}, recipe=Recipe()
    )
    for constraint in ("demographic_parity", "equalized_odds"):
        new = run(AdversarialDebiasing(constraint=constraint, epochs=2), old, data).model  # type: ignore[arg-type]
        assert new.predict_proba(data.X).shape == (n, 3)
    with pytest.raises(UsageError, match="--positive"):
        run(AdversarialDebiasing(constraint="equal_opportunity"), old, data)


def test_what_cannot_be_done_is_refused_before_any_training(rows: AuditData, model: TorchModel) -> None:
    from dataclasses import replace

    few = rows.take(slice(200))
    with pytest.raises(ModelError, match="post-processing"):
        run(AdversarialDebiasing(), AuditedModel.from_callable(lambda X: X.skill > 0, classes=[0, 1]), few)
    bare = TorchModel(model.module, classes=[0, 1], preprocessing=model.preprocessing, architecture=model.architecture)
    with pytest.raises(ModelError, match="recipe"):
        run(AdversarialDebiasing(), bare, few)
    with pytest.raises(UsageError, match="--sensitive"):
        run(AdversarialDebiasing(), model, replace(few, sensitive_features=None))
    assert rows.sensitive_features is not None
    with pytest.raises(DataError, match="one group only"):
        run(AdversarialDebiasing(), model, rows.take((rows.sensitive_features.group == "a").to_numpy()))
    assert few.y_true is not None and few.sensitive_features is not None
    single = np.where(few.sensitive_features.group == "b", 0, few.y_true)
    with pytest.raises(DataError, match="one label"):
        run(AdversarialDebiasing(), model, replace(few, y_true=single))
    for options in ({"alpha": -1.0}, {"warm_up": 1.0}, {"constraint": "fairness"}, {"epochs": 0}):
        with pytest.raises(ValueError):
            AdversarialDebiasing(**options)  # type: ignore[arg-type]
