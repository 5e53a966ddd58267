"""DP-SGD as a mitigation: the epsilon of an accountant of its own, what the linter finds, refusals before training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

from auditor.core.errors import ConfigError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import TextPreprocessing
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.privacy.training.opacus_training import PrivacyBudget
from auditor.report.comparing.compare_audits import compare
from auditor.run.mitigation import Mitigated, Training, make_mitigation
from auditor.run.run_audit import run_audit
from mitigations.rows.reweighing_and_resampling import reweighing_weights
from mitigations.training.dp_sgd import DpSgd, noisy_counts, private_weights
from probes.fairness.change_since_reference import Change
from tests.mitigations.planted_rows import biased_rows, run, trained
from tests.quantifiers import all_of, none_of


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(2000, 1)


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return trained(rows, epochs=5)


@pytest.fixture(scope="module")
def seeded(rows: AuditData, model: TorchModel) -> Mitigated:
    return run(DpSgd(epsilon=2.0, epochs=4, batch_size=250, learning_rate=0.02, noise_seed=1), model, rows)


@pytest.mark.slow
def test_epsilon_is_the_accountants_over_the_steps_and_below_the_target(model: TorchModel, seeded: Mitigated) -> None:
    assert isinstance(seeded.model, TorchModel) and seeded.model.recipe is not None
    recipe = seeded.model.recipe
    assert recipe.noise_multiplier is not None
    step = PoissonSampledDpEvent(250 / 2000, GaussianDpEvent(recipe.noise_multiplier))
    expected = PLDAccountant().compose(step, 8 * 4).get_epsilon(2000**-1.1)
    # What is not the steps' is the count of clipped rows.
    assert recipe.epsilon == pytest.approx(expected + 0.02 * 2.0, abs=3e-4) and recipe.accountant == "pld"
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
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert any(note.startswith("dp-lint: noise_seed_known (breaks)") for note in seeded.notes)
    assert none_of("noise_seed_known" in note for note in secret.notes)
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
    return AuditData.from_arrays(X, y, classes=[0, 1], positive=1, sensitive_features={"group": list(group)})


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(("name", "instead"), [("bilstm_text", "DPLSTM"), ("transformer_encoder", "RowwiseAttention")])
def test_texts_are_learned_through_stand_ins_and_the_bundle_holds_the_plain_network(
    name: str, instead: str, tmp_path: Path
) -> None:
    train, test = _texts(800, 0), _texts(400, 1)
    arguments: dict[str, dict[str, int]] = {
        "bilstm_text": {"n_words": 8, "n_outputs": 2, "embedding_dim": 8, "hidden_size": 8, "dense": 8},
        "transformer_encoder": {
            "n_words": 8, "n_outputs": 2, "length": 6, "d_model": 16, "n_heads": 2, "n_layers": 1,
        },
    }  # fmt: skip
    old = TorchModel(
        ARCHITECTURES[name](**arguments[name]),
        classes=[0, 1],
        preprocessing=TextPreprocessing(vocabulary={w: i for i, w in enumerate(_WORDS, 1)}, length=6),
        architecture={"name": name, "args": arguments[name]},
        recipe=Recipe(epochs=12, batch_size=100),
    )
    made = run(DpSgd(epsilon=20.0, epochs=8, batch_size=50, learning_rate=0.02, noise_seed=0), old, train)
    assert isinstance(made.model, TorchModel)
    assert float((made.model.decisions(test) == test.y_true).mean()) > 0.9
    assert any(instead in note and "gave their weights back" in note for note in made.notes), made.notes
    assert type(made.model.module) is type(old.module)
    assert [type(m) for m in made.model.module.modules()] == [type(m) for m in old.module.modules()]
    save(made.model, tmp_path / "m.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    np.testing.assert_array_equal(again.predict_proba(test.X), made.model.predict_proba(test.X))


_WORDS = ("good", "bad", "the", "a", "day", "night")


def _texts(n: int, seed: int) -> AuditData:
    """Texts with one of two words that decide, at any place."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    texts = [
        " ".join(rng.permutation([*rng.choice(_WORDS[2:], int(rng.integers(1, 5))), _WORDS[1 - label]])) for label in y
    ]
    return AuditData.from_arrays(np.asarray(texts, object), y, classes=[0, 1], positive=1)


# ---- weights from private counts ------------------------------------------------------------------------------------


def test_private_counts_give_the_weights_of_reweighing_as_epsilon_grows(rows: AuditData) -> None:
    assert rows.y_true is not None and rows.sensitive_features is not None
    s = np.unique(rows.sensitive_features.group, return_inverse=True)[1].astype(np.int64)[:, None]
    exact = reweighing_weights(rows.y_true, s)
    made = private_weights(rows.y_true, s, 1e3, np.random.default_rng(0), n_classes=2)
    np.testing.assert_allclose(made.weights, exact)
    noisy = [private_weights(rows.y_true, s, 0.05, np.random.default_rng(i), n_classes=2).weights for i in range(20)]
    errors = [float(np.abs(w - exact).max()) for w in noisy]
    assert min(errors) > 0.0 and max(errors) < 0.3


def test_the_noise_of_the_counts_is_the_geometric_mechanisms() -> None:
    """The odds of any noisy count change by exp(epsilon) for one row more: as much as is allowed, and no more."""
    epsilon, n = 0.7, 400_000
    noise = noisy_counts(np.full(n, 5, np.int64), epsilon, np.random.default_rng(0)) - 5
    q = np.exp(-epsilon)
    for k in range(-4, 5):
        expected = (1 - q) / (1 + q) * q ** abs(k)
        assert (noise == k).mean() == pytest.approx(expected, abs=4.5 * np.sqrt(expected / n)), k
    first, second = np.split(noise, 2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


@pytest.mark.slow
def test_weights_even_out_a_gap_within_one_budget(rows: AuditData, model: TorchModel) -> None:
    test = biased_rows(6000, 2)
    options: dict[str, Any] = {"epsilon": 4.0, "epochs": 20, "batch_size": 250, "learning_rate": 0.02, "noise_seed": 2}
    plain, weighed = (run(DpSgd(**options, weights=w), model, rows) for w in ("none", "reweighing"))
    gaps = [_gap(made.model, test) for made in (plain, weighed)]
    assert gaps[1] < gaps[0] - 0.08, gaps
    assert isinstance(weighed.model, TorchModel) and isinstance(plain.model, TorchModel)
    recipes = weighed.model.recipe, plain.model.recipe
    assert recipes[0] is not None and recipes[0].epsilon is not None and recipes[1] is not None
    assert recipes[1].noise_multiplier is not None and recipes[0].noise_multiplier is not None
    step = PoissonSampledDpEvent(250 / 2000, GaussianDpEvent(recipes[0].noise_multiplier))
    steps = PLDAccountant().compose(step, 8 * 20).get_epsilon(2000**-1.1)
    assert recipes[0].epsilon == pytest.approx(steps + 0.2 + 0.08, abs=3e-4)
    assert recipes[0].epsilon <= 4.0 and recipes[0].noise_multiplier > recipes[1].noise_multiplier
    assert any("geometric mechanism for epsilon 0.2 of the 4" in note for note in weighed.notes), weighed.notes


def _gap(model: AuditedModel, test: AuditData) -> float:
    assert test.sensitive_features is not None
    group, chosen = test.sensitive_features.group.to_numpy(), model.decisions(test)
    return abs(float(chosen[group == "a"].mean() - chosen[group == "b"].mean()))


def test_what_cannot_be_done_is_refused_before_any_training(
    rows: AuditData, model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    import auditor.privacy.training.opacus_training

    def never(*_: object) -> float:
        raise AssertionError("training began")

    monkeypatch.setattr(auditor.privacy.training.opacus_training, "_one_private_epoch", never)
    for options in (
        {"epsilon": 0.0}, {"epsilon": -1.0}, {"epsilon": float("nan")}, {"delta": 0.0}, {"max_grad_norm": 0.0},
        {"epochs": 0}, {"mode": "functorch"}, {"weights": "min_diff"},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(options))):
            make_mitigation(DpSgd, options)
    with pytest.raises(ConfigError, match="depend on other rows"):
        make_mitigation(DpSgd, {"weights": "adversarial_debiasing"})
    budgets: tuple[dict[str, Any], ...] = ({"epsilon": 0.0}, {"epsilon": 1.0, "spent_before": 1.0})
    for budget in (*budgets, {"epsilon": 1.0, "max_grad_norm": -1.0}):
        with pytest.raises(UsageError):
            PrivacyBudget(**budget)
    with pytest.raises(UsageError, match="1/2,000"):
        run(DpSgd(delta=1e-3), model, rows)
    with pytest.raises(UsageError, match="1/2,000"):
        run(DpSgd(delta=1 / 2000), model, rows)
    with pytest.raises(UsageError, match="--sensitive"):
        run(DpSgd(weights="reweighing"), model, replace(rows, sensitive_features=None))
    with pytest.raises(UsageError, match="checkpoint"):
        DpSgd().mitigate(model, rows, np.random.default_rng(0), Training(checkpoint=Path("c")))
    with pytest.raises(ModelError, match="auditor train --dp-epsilon"):
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
