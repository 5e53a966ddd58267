"""DP-SGD as a mitigation: the epsilon of an accountant of its own, what the linter finds, refusals before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from opacus.accountants import RDPAccountant

from auditor.architectures import ARCHITECTURES
from auditor.compare import compare
from auditor.data import AuditData
from auditor.dp_sgd import opacus_quietly
from auditor.errors import ConfigError, ModelError, UsageError
from auditor.mitigation import Mitigated, Training, make_mitigation
from auditor.model import AuditedModel, Recipe, TorchModel
from auditor.run import run_audit
from mitigations.dp_sgd import DpSgd
from probes.change import Change
from tests.mitigations_data import biased_rows, trained


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(2000, 1)


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return trained(rows, epochs=5)


def run(mitigation: DpSgd, model: AuditedModel, rows: AuditData, seed: int = 0) -> Mitigated:
    return mitigation.mitigate(model, rows, np.random.default_rng(seed), Training())


@pytest.fixture(scope="module")
def seeded(rows: AuditData, model: TorchModel) -> Mitigated:
    return run(DpSgd(epsilon=2.0, epochs=4, batch_size=250, learning_rate=0.02, noise_seed=1), model, rows)


@pytest.mark.slow
def test_epsilon_is_opacus_own_over_the_steps_and_below_the_target(model: TorchModel, seeded: Mitigated) -> None:
    assert isinstance(seeded.model, TorchModel) and seeded.model.recipe is not None
    recipe = seeded.model.recipe
    accountant = RDPAccountant()
    accountant.history = [(recipe.noise_multiplier, 250 / 2000, 8 * 4)]
    with opacus_quietly():
        expected = accountant.get_epsilon(2000**-1.1)
    assert recipe.epsilon == pytest.approx(expected, rel=1e-6)
    assert recipe.epsilon is not None and recipe.epsilon <= 2.0 and recipe.delta == pytest.approx(2000**-1.1)
    test = biased_rows(4000, 2)
    accuracy = [float((m.decisions(test) == test.y_true).mean()) for m in (model, seeded.model)]
    assert accuracy[1] > accuracy[0] - 0.05, accuracy


@pytest.mark.slow
def test_the_noise_is_secret_unless_its_seed_is_given_and_the_linter_tells(
    rows: AuditData, model: TorchModel, seeded: Mitigated
) -> None:
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    again = run(DpSgd(epsilon=2.0, epochs=4, batch_size=250, learning_rate=0.02, noise_seed=1), model, rows)
    secret = run(DpSgd(epsilon=2.0, epochs=4, batch_size=250, learning_rate=0.02), model, rows)
    said = [made.model.predict_proba(rows.X) for made in (seeded, again, secret)]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert any(note.startswith("dp-lint: noise_seed_known (breaks)") for note in seeded.notes)
    assert not any("noise_seed_known" in note for note in secret.notes)
    assert any("checks found nothing" in note for note in secret.notes)
    assert any("outside the accounting" in note for note in secret.notes)


@pytest.mark.slow
def test_the_cost_that_falls_on_a_minority_is_named() -> None:
    """Of rows of which 6 % obey the opposite rule: the noise drowns what few gradients of theirs there are."""
    train, test = _opposite_minority(3000, 0), _opposite_minority(8000, 1)
    old = trained(train, epochs=30)
    new = run(DpSgd(epsilon=1.0, epochs=20, noise_seed=0), old, train).model
    assert test.sensitive_features is not None
    few = (test.sensitive_features.group == "few").to_numpy()
    right = np.stack([m.decisions(test) == test.y_true for m in (old, new)])
    assert right[:, few].mean(axis=1)[0] > 0.85 and right[:, few].mean(axis=1)[1] < 0.6
    assert abs(np.diff(right[:, ~few].mean(axis=1))[0]) < 0.02
    before = run_audit(old, test, [Change()], [])
    after = run_audit(new, test, [Change(reference=old)], [])
    remarks = compare(before, after).remarks
    assert any(r.startswith("The cost falls on some: accuracy of group=few") for r in remarks), remarks


def _opposite_minority(n: int, seed: int) -> AuditData:
    rng = np.random.default_rng(seed)
    group = rng.choice(["many", "few"], n, p=[0.94, 0.06])
    x = rng.normal(size=n)
    y = (np.where(group == "many", 1.0, -1.0) * x + 0.3 * rng.normal(size=n) > 0).astype(int)
    X = pd.DataFrame({"x": x, "group": group})
    return AuditData.from_arrays(X, y, classes=[0, 1], positive=1, sensitive_features={"group": group})


def test_what_cannot_be_done_is_refused_before_any_training(
    rows: AuditData, model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    import auditor.dp_sgd

    def never(*_: object) -> float:
        raise AssertionError("training began")

    monkeypatch.setattr(auditor.dp_sgd, "_one_private_epoch", never)
    for options in ({"epsilon": 0.0}, {"epsilon": -1.0}, {"delta": 0.0}, {"max_grad_norm": 0.0}, {"epochs": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            make_mitigation(DpSgd, options)
    with pytest.raises(UsageError, match="1/2,000"):
        run(DpSgd(delta=1e-3), model, rows)
    with pytest.raises(UsageError, match="checkpoint"):
        DpSgd().mitigate(model, rows, np.random.default_rng(0), Training(checkpoint=Path("c")))
    with pytest.raises(ModelError, match="post-processing"):
        run(DpSgd(), AuditedModel.from_callable(lambda X: X.skill > 0, classes=[0, 1]), rows)
    with pytest.raises(UsageError, match="--target"):
        run(DpSgd(), model, replace(rows, y_true=None))

    class Normed(nn.Sequential):
        def __init__(self, n_features: int) -> None:
            super().__init__(nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    monkeypatch.setitem(ARCHITECTURES, "normed", Normed)
    assert model.preprocessing is not None
    arguments = {"n_features": model.encode(rows.X).shape[1]}
    normed = TorchModel(
        Normed(**arguments),
        classes=[0, 1],
        preprocessing=model.preprocessing,
        architecture={"name": "normed", "args": arguments},
        recipe=Recipe(),
    )
    with pytest.raises(ModelError, match="BatchNorm1d.*GroupNorm"):
        run(DpSgd(), normed, rows)
