"""Mitigations that train, on networks that nobody can draw anew: folders of transformers and modules of one's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import MissingExtraError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigation, Training
from auditor.training.huggingface_folder import save_classifier
from auditor.training.multi_device import SharedStep
from mitigations.rows.counterfactual_augmentation import CounterfactualAugmentation
from mitigations.rows.reweighing_and_resampling import BalancedResampling, Reweighing
from mitigations.training.adversarial_debiasing import AdversarialDebiasing
from mitigations.training.group_dro import GroupDro
from mitigations.training.min_diff import MinDiff
from mitigations.training.training_steps import FineTuningStep, GroupDroStep, GroupWeights
from tests.mitigations.planted_rows import biased_rows, run, trained
from tests.mitigations.test_debiasing_encoders import gap, own, pictures, texts
from tests.quantifiers import all_of
from tests.toys.folders import save_bert, save_vit

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
CLASSES = ("negative", "positive")
TIMES = """
category = "time"
source = "written for this test"
why = "the group of the rows"
identities = [
    { name = "day", words = { noun = "day" } },
    { name = "night", words = { noun = "night" } },
]
"""
BRIEFLY: dict[str, Any] = {"epochs": 2, "batch_size": 20, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text classifier of transformers, a picture classifier, and a lexicon of the texts' groups."""
    where = tmp_path_factory.mktemp("folders")
    with torch.random.fork_rng():
        save_bert(where / "text", labels=CLASSES)
        save_vit(where / "pictures")
    (where / "times.toml").write_text(TIMES)
    return where


def loaded(path: Path) -> TorchModel:
    model = load_model(ModelSpec(path=str(path)))
    assert isinstance(model, TorchModel)
    return model


def augmentation(folder: Path, **options: Any) -> Mitigation:
    return CounterfactualAugmentation(lexicon=str(folder / "times.toml"), control_arm=False, **options)


OF_ANY_ROWS: dict[str, Callable[..., Mitigation]] = {
    "reweighing": lambda folder, **o: Reweighing(**o),
    "balanced_resampling": lambda folder, **o: BalancedResampling(**o),
    "min_diff": lambda folder, **o: MinDiff(**({"weight": 1.0} | o)),
    "group_dro": lambda folder, **o: GroupDro(**o),
    "adversarial_debiasing": lambda folder, **o: AdversarialDebiasing(**o),
}
EVERY: dict[str, Callable[..., Mitigation]] = {
    **OF_ANY_ROWS,
    "counterfactual_augmentation": augmentation,
    "with_pairing": lambda folder, **o: augmentation(folder, pairing_weight=1.0, **o),
}


def weights(model: TorchModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def moved(old: TorchModel, new: TorchModel) -> set[str]:
    before, after = weights(old), weights(new)
    assert before.keys() == after.keys()
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


# ---- a text classifier of transformers -----------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("name", EVERY)
def test_a_text_folder_goes_on_from_its_own_weights_and_is_written_as_one(
    folder: Path, tmp_path: Path, name: str
) -> None:
    model, rows = loaded(folder / "text"), texts(120, 0)
    before = weights(model)
    new, other = (run(EVERY[name](folder, **BRIEFLY), model, rows, seed).model for seed in (5, 6))
    assert isinstance(new, TorchModel) and new.recipe is not None and new.provenance.sha256 is None
    assert (new.recipe.epochs, new.recipe.batch_size, new.recipe.learning_rate) == (2, 20, 1e-2)
    again = run(EVERY[name](folder, **BRIEFLY), model, rows, 5).model
    assert np.array_equal(again.predict_proba(rows.X), new.predict_proba(rows.X))
    assert not np.array_equal(other.predict_proba(rows.X), new.predict_proba(rows.X))
    assert all_of(torch.equal(value, before[key]) for key, value in weights(model).items())
    # At this rate 12 steps of it go no further: what is not drawn anew stays where it was.
    steps = np.concatenate([(weights(new)[k] - v).abs().flatten().numpy() for k, v in before.items()])
    assert 0.0 < steps.max() < 0.3
    save_classifier(new, tmp_path / "new")
    written = loaded(tmp_path / "new")
    assert written.classes == CLASSES
    np.testing.assert_allclose(written.predict_proba(rows.X), new.predict_proba(rows.X), atol=1e-6)


@pytest.mark.grid
@needs_peft
@pytest.mark.parametrize("name", EVERY)
def test_adapters_and_the_head_alone_are_learned_and_merged(folder: Path, name: str) -> None:
    model, rows = loaded(folder / "text"), texts(120, 0)
    state = torch.get_rng_state()
    made = run(EVERY[name](folder, **BRIEFLY, lora=2), model, rows)
    assert isinstance(made.model, TorchModel) and torch.equal(torch.get_rng_state(), state)
    linear = {f"{n}.weight" for n, m in model.module.named_modules() if isinstance(m, nn.Linear)}
    assert moved(model, made.model) == linear | {"network.classifier.bias"}
    assert all_of(p.requires_grad for p in made.model.module.parameters())
    # Of rank 2, whatever was learned.
    changes = [weights(made.model)[k] - weights(model)[k] for k in linear if "classifier" not in k]
    assert all_of(int(torch.linalg.matrix_rank(c, atol=1e-4)) <= 2 for c in changes)
    again = run(EVERY[name](folder, **BRIEFLY, lora=2), model, rows).model
    assert np.array_equal(again.predict_proba(rows.X), made.model.predict_proba(rows.X))


@needs_peft
@pytest.mark.parametrize("name", ["reweighing", "counterfactual_augmentation", "group_dro"])
def test_an_interrupted_fine_tuning_goes_on(folder: Path, tmp_path: Path, name: str) -> None:
    model, rows = loaded(folder / "text"), texts(120, 0)
    mitigation = EVERY[name](folder, **(BRIEFLY | {"epochs": 3}), lora=2)

    class Stop(Exception):
        pass

    def stop(words: str) -> None:
        if words.startswith("epoch 2"):
            raise Stop

    def train(progress: Callable[[str], None] | None, checkpoint: Path | None) -> Any:
        training = Training(checkpoint=checkpoint, progress=progress)
        return mitigation.mitigate(model, rows, np.random.default_rng(1), training).model.predict_proba(rows.X)

    whole = train(None, None)
    with pytest.raises(Stop):
        train(stop, tmp_path / "c")
    assert np.array_equal(train(None, tmp_path / "c"), whole)


# ---- pictures, and modules of one's own ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_ANY_ROWS)
def test_a_picture_folder_goes_on_from_its_own_weights(folder: Path, tmp_path: Path, name: str) -> None:
    model, rows = loaded(folder / "pictures"), pictures(80, 0, (8, 8, 3))
    made = run(OF_ANY_ROWS[name](folder, **BRIEFLY), model, rows).model
    assert isinstance(made, TorchModel) and moved(model, made)
    save_classifier(made, tmp_path / "new")
    np.testing.assert_allclose(loaded(tmp_path / "new").predict_proba(rows.X), made.predict_proba(rows.X), atol=1e-6)


def test_a_picture_has_no_counterfactual_and_the_advice_is_taken(folder: Path) -> None:
    model, rows = loaded(folder / "pictures"), pictures(80, 0, (8, 8, 3))
    with pytest.raises(ModelError, match="a picture has no swap: use reweighing"):
        run(CounterfactualAugmentation(), model, rows)


class Table(nn.Module):
    """A module for tables that no list of architectures names, with a normalisation that has weights of its own."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, 8)
        self.norm = nn.LayerNorm(8)
        self.output = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(torch.relu(self.norm(self.first(x))))
        return logits


def own_table(rows: AuditData) -> TorchModel:
    """The audited model of a module for tables, without a recipe."""
    known = trained(rows, epochs=1)
    assert known.features is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Table(int(known.encode(rows.X).shape[1]))
    return TorchModel(module, classes=[0, 1], preprocessing=known.preprocessing, outputs="logits")


@pytest.mark.parametrize("name", [*OF_ANY_ROWS, "counterfactual_augmentation"])
@pytest.mark.parametrize("lora", [None, pytest.param(2, marks=needs_peft)])
def test_a_module_of_ones_own_for_tables(folder: Path, tmp_path: Path, name: str, lora: int | None) -> None:
    rows = biased_rows(200, 0)
    model = own_table(rows)
    mitigation = (
        CounterfactualAugmentation(control_arm=False, lora=lora, **BRIEFLY)
        if name == "counterfactual_augmentation"
        else OF_ANY_ROWS[name](folder, lora=lora, **BRIEFLY)
    )
    made = run(mitigation, model, rows).model
    assert isinstance(made, TorchModel)
    everything = set(weights(model))
    of_adapters = {"first.weight", "output.weight", "output.bias"}
    assert moved(model, made) == (everything if lora is None else of_adapters)
    save(made, tmp_path / "m.pt")
    arguments = {"n_features": model.module.first.in_features}
    spec = ModelSpec(path=str(tmp_path / "m.pt"), architecture=f"{__name__}:Table", architecture_args=arguments)
    assert np.allclose(load_model(spec).predict_proba(rows.X), made.predict_proba(rows.X), atol=1e-6)


def test_a_module_of_ones_own_for_texts_keeps_what_is_frozen(folder: Path) -> None:
    model, rows = own(), texts(120, 0)
    for mitigation in (Reweighing(**BRIEFLY), augmentation(folder, **BRIEFLY, freeze_embeddings=False)):
        made = run(mitigation, model, rows).model
        assert isinstance(made, TorchModel) and moved(model, made) == {"output.weight", "output.bias"}
    default = run(Reweighing(), model, rows).model
    assert isinstance(default, TorchModel)
    assert default.recipe == Recipe(optimizer="adamw", epochs=4, batch_size=32, learning_rate=5e-5)


@needs_peft
def test_adapters_where_there_can_be_none_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts(60, 0)
    # Its one linear layer is its head.
    with pytest.raises(ModelError, match="Own has no linear layer below a head.*without lora"):
        run(Reweighing(lora=2), own(), rows)
    table = biased_rows(60, 0)
    with pytest.raises(UsageError, match="drawn anew: leave it out"):
        run(Reweighing(lora=2), trained(table, epochs=1), table)
    with pytest.raises(ValueError, match="rank of at least 1"):
        Reweighing(lora=0)
    assert isinstance(run(Reweighing(lora=2, epochs=1), loaded(folder / "text"), rows).model, TorchModel)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    with pytest.raises(MissingExtraError, match="peft.*tuning"):
        run(Reweighing(lora=2), loaded(folder / "text"), rows)


@needs_peft
def test_adapters_without_a_rate_of_their_own_learn_faster_than_a_whole_network(folder: Path) -> None:
    new = run(Reweighing(lora=2, epochs=1), loaded(folder / "text"), texts(60, 0)).model
    assert isinstance(new, TorchModel) and new.recipe is not None and new.recipe.learning_rate == 5e-4


# ---- what it comes to ----------------------------------------------------------------------------------------------


# What weighs rows brings nights to the share of all rows, and the fewer they are the nearer that is to the days'.
NIGHTS = 0.2
LEARN: dict[str, Any] = {"epochs": 8, "batch_size": 40, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def biased(folder: Path) -> AuditedModel:
    """A text classifier that has learned the planted gap, which every mitigation starts from."""
    plain = AdversarialDebiasing(alpha=0.0, **LEARN)
    return run(plain, loaded(folder / "text"), texts(1_200, 1, nights=NIGHTS)).model


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reweighing", {}),
        pytest.param("reweighing", {"lora": 4}, marks=needs_peft),
        ("balanced_resampling", {}),
        ("min_diff", {"over": "all", "weight": 3.0}),
        ("group_dro", {}),
        ("counterfactual_augmentation", {}),
        pytest.param("counterfactual_augmentation", {"lora": 4}, marks=needs_peft),
        ("with_pairing", {}),
    ],
)
def test_the_planted_gap_closes_on_texts_that_were_not_trained_on(
    folder: Path, biased: AuditedModel, name: str, options: dict[str, Any]
) -> None:
    rows, test = texts(1_200, 1, nights=NIGHTS), texts(800, 2, nights=NIGHTS)
    new = run(EVERY[name](folder, **(LEARN | options)), biased, rows).model
    assert gap(biased, test, 1) > 0.25
    assert abs(gap(new, test, 1)) < 0.6 * gap(biased, test, 1), (gap(biased, test, 1), gap(new, test, 1))
    # Good and bad are still told apart, as they would be called by somebody who does not know the time.
    good = np.asarray([str(text).startswith("good") for text in test.X])
    assert float(((new.decisions(test) == 1) == good).mean()) > 0.8


# ---- the step, and what a recipe claims ----------------------------------------------------------------------------


def test_a_step_that_is_fine_tuned_is_shared_as_it_was() -> None:
    rows = biased_rows(60, 0)
    model = own_table(rows)
    plain = torch.optim.SGD(model.module.parameters(), lr=0.1)
    evenly = GroupWeights(torch.zeros(2, dtype=torch.int64), torch.ones(1))
    inner = GroupDroStep(model, plain, eta=0.1, adjustments=torch.zeros(2), weights=evenly)
    step = FineTuningStep(inner, n_steps=10)
    assert isinstance(step, SharedStep) and step.modules[:2] == (model.module, inner.weights)

    def half(gradients: Any) -> Any:
        return [None if g is None else g / 2 for g in gradients]

    step.summed = half
    assert inner.summed is half and step.summed is half


@pytest.mark.parametrize("name", ["reweighing", "group_dro", "counterfactual_augmentation"])
def test_what_is_trained_again_claims_no_privacy(folder: Path, name: str) -> None:
    rows = biased_rows(200, 0)
    model = trained(rows, epochs=1)
    assert model.recipe is not None
    model.recipe = replace(model.recipe, epsilon=3.0, delta=1e-5, noise_multiplier=1.0, max_grad_norm=1.0, n_rows=200)
    mitigation = CounterfactualAugmentation(control_arm=False) if name not in OF_ANY_ROWS else OF_ANY_ROWS[name](folder)
    new = run(mitigation, model, rows).model
    assert isinstance(new, TorchModel) and new.recipe is not None
    private = ("epsilon", "delta", "noise_multiplier", "max_grad_norm", "n_rows", "sampler", "accountant", "seen")
    assert [getattr(new.recipe, field) for field in private] == [None] * len(private)
    assert new.recipe.batch_size == model.recipe.batch_size
