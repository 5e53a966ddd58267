"""Adversarial debiasing of whatever encodes: texts, pictures, transformers' classifiers, a module of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import ModelError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing, Preprocessing, TextPreprocessing
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import ARCHITECTURES
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Mitigated, Training
from auditor.training.huggingface_folder import save_classifier
from mitigations.training.adversarial_debiasing import AdversarialDebiasing
from tests.quantifiers import all_of
from tests.toys.folders import save_bert, save_vit


def texts(n: int, seed: int, classes: tuple[str, ...] = ("negative", "positive"), *, nights: float = 0.4) -> AuditData:
    """Good and bad days and nights; nights, a share of all, are often called bad though they are good."""
    rng = np.random.default_rng(seed)
    night = rng.random(n) < nights
    good = rng.random(n) < 0.5
    positive = good & ~(night & (rng.random(n) < 0.6))
    words = [f"{'good' if g else 'bad'} {'night' if k else 'day'}" for g, k in zip(good, night, strict=True)]
    return AuditData.from_arrays(
        np.asarray(words, object),
        np.where(positive, "positive", "negative"),
        classes=classes,
        positive="positive",
        sensitive_features={"time": np.where(night, "night", "day")},
    )


def pictures(n: int, seed: int, shape: tuple[int, int, int] = (8, 8, 1)) -> AuditData:
    """Bright cats and dark dogs; a stripe on the left is the group."""
    rng = np.random.default_rng(seed)
    group, y = rng.integers(2, size=n), rng.integers(2, size=n)
    X = rng.integers(60, 120, (n, *shape)).astype(np.uint8)
    X[y == 1] += 60
    X[group == 1, :, :2] += 60
    return AuditData.from_arrays(
        X, np.where(y, "dog", "cat"), classes=["cat", "dog"], positive="dog", sensitive_features={"side": list(group)}
    )


def known(name: str, preprocessing: Preprocessing, classes: list[str], **arguments: object) -> TorchModel:
    """A network of the table, not trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = ARCHITECTURES[name](**arguments)
    return TorchModel(
        module,
        classes=classes,
        preprocessing=preprocessing,
        architecture={"name": name, "args": arguments},
        recipe=Recipe(epochs=2, batch_size=20, learning_rate=3e-3),
    )


WORDS = TextPreprocessing(vocabulary={"good": 2, "bad": 3, "day": 4, "night": 5}, unknown=1, length=4)
PIXELS = ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.25,))


class Own(nn.Module):
    """A module that no table names, with a layer that is frozen and one that trains differently from how it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 8)
        self.embedding.weight.requires_grad_(False)
        self.dropout = nn.Dropout(0.3)
        self.output = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.output(self.dropout(self.embedding(x).mean(dim=1)))
        return logits


def own() -> TorchModel:
    """Its audited model, without a recipe."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Own()
    return TorchModel(module, classes=["negative", "positive"], preprocessing=WORDS, outputs="logits")


def run(options: dict[str, object], model: AuditedModel, rows: AuditData, seed: int = 0) -> Mitigated:
    method = AdversarialDebiasing(**options)  # type: ignore[arg-type]
    return method.mitigate(model, rows, np.random.default_rng(seed), Training())


NETWORKS: dict[str, Callable[[], TorchModel]] = {
    "bilstm_text": lambda: known(
        "bilstm_text", WORDS, ["negative", "positive"], n_words=6, n_outputs=2, embedding_dim=8, hidden_size=8, dense=8
    ),
    "transformer_encoder": lambda: known(
        "transformer_encoder", WORDS, ["negative", "positive"], n_words=6, n_outputs=2, length=4, d_model=8, n_heads=2,
        n_layers=1,
    ),
    "small_cnn": lambda: known("small_cnn", PIXELS, ["cat", "dog"], channels=1, n_outputs=2, width=4),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_the_table_is_drawn_anew_and_saved(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    rows = pictures(120, 0) if name == "small_cnn" else texts(120, 0)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    made = run({"epochs": 2}, model, rows)
    assert "trained anew for 2 epochs" in made.notes[0]
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    save(made.model, tmp_path / "m.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "m.pt")))
    assert np.allclose(again.predict_proba(rows.X), made.model.predict_proba(rows.X), atol=1e-6)


def test_a_module_of_ones_own_is_fine_tuned_by_a_stated_recipe(tmp_path: Path) -> None:
    model, rows = own(), texts(120, 0)
    made = run({}, model, rows).model
    assert isinstance(made, TorchModel) and made.recipe is not None
    assert made.recipe == Recipe(optimizer="adamw", epochs=4, batch_size=32, learning_rate=5e-5)
    old, new = model.module.state_dict(), made.module.state_dict()
    assert torch.equal(old["embedding.weight"], new["embedding.weight"])
    # 16 steps of at most about the learning rate: from its own weights, and not from anywhere else.
    moved = float((old["output.weight"] - new["output.weight"]).abs().max())
    assert 0.0 < moved < 20 * 5e-5
    asked = run({"epochs": 1, "batch_size": 60, "learning_rate": 0.01}, model, rows)
    assert isinstance(asked.model, TorchModel) and asked.model.recipe is not None
    assert (asked.model.recipe.epochs, asked.model.recipe.batch_size, asked.model.recipe.learning_rate) == (1, 60, 0.01)
    assert "fine-tuned from its own weights for 1 epochs" in asked.notes[0]
    save(asked.model, tmp_path / "m.pt")
    spec = ModelSpec(path=str(tmp_path / "m.pt"), architecture="tests.mitigations.test_debiasing_encoders:Own")
    again = load_model(spec)
    assert np.allclose(again.predict_proba(rows.X), asked.model.predict_proba(rows.X), atol=1e-6)
    # A recipe that is known is the recipe, with nothing raised to the epochs that training anew takes.
    model.recipe = Recipe(epochs=3, batch_size=50)
    third = run({}, model, rows).model
    assert isinstance(third, TorchModel) and third.recipe == Recipe(epochs=3, batch_size=50)


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    rows = texts(60, 0)
    frozen = own()
    frozen.module.requires_grad_(False)
    with pytest.raises(ModelError, match="requires_grad_"):
        run({}, frozen, rows)
    probabilities = own()
    probabilities.outputs_said = "probabilities"
    with pytest.raises(ModelError, match="logits"):
        run({}, probabilities, rows)
    exported = own()
    exported.frozen_mode = True
    with pytest.raises(ModelError, match="post-processing"):
        run({}, exported, rows)


def gap(model: AuditedModel, rows: AuditData, label: int) -> float:
    """How much likelier days are called positive than nights."""
    assert rows.sensitive_features is not None
    night = (rows.sensitive_features.time == "night").to_numpy()
    said = model.predict_proba(rows.X)[:, label]
    return float(said[~night].mean() - said[night].mean())


@pytest.mark.slow
def test_a_transformers_text_classifier_unlearns_the_gap_and_is_written_back(tmp_path: Path) -> None:
    classes = ("negative", "positive", "neither")
    rows = texts(400, 1, classes)
    save_bert(tmp_path / "old")
    loaded = load_model(ModelSpec(path=str(tmp_path / "old")))
    recipe: dict[str, object] = {"epochs": 8, "batch_size": 40, "learning_rate": 1e-2}
    # Without adversary and penalty it is plain fine-tuning.
    biased = run({"alpha": 0.0, **recipe, "epochs": 15}, loaded, rows).model
    before = gap(biased, rows, 1)
    good = np.asarray([str(text).startswith("good") for text in rows.X])
    for options in ({"alpha": 1.0}, {"alpha": 0.0, "gap_weight": 1.0}):
        made = run({"constraint": "demographic_parity", **options, **recipe}, biased, rows).model
        assert before > 0.2 and abs(gap(made, rows, 1)) < 0.5 * before, (before, gap(made, rows, 1))
        # By knowing the day as little as the night, and not by saying the same of all.
        assert float(((made.decisions(rows) == 1) == good).mean()) > 0.9
    assert isinstance(made, TorchModel)
    save_classifier(made, tmp_path / "new")
    again = load_model(ModelSpec(path=str(tmp_path / "new")))
    assert np.allclose(again.predict_proba(rows.X), made.predict_proba(rows.X), atol=1e-5)


@pytest.mark.slow
def test_a_transformers_image_classifier_is_fine_tuned(tmp_path: Path) -> None:
    rows = pictures(80, 0, (8, 8, 3))
    save_vit(tmp_path)
    loaded = load_model(ModelSpec(path=str(tmp_path)))
    made = run({"epochs": 2, "batch_size": 20, "learning_rate": 1e-3}, loaded, rows).model
    assert not np.allclose(made.predict_proba(rows.X), loaded.predict_proba(rows.X), atol=1e-3)
    fresh = load_model(ModelSpec(path=str(tmp_path)))
    assert np.array_equal(fresh.predict_proba(rows.X), loaded.predict_proba(rows.X))


@pytest.mark.slow
def test_a_text_network_unlearns_the_gap() -> None:
    rows, test = texts(400, 1), texts(400, 2)
    model = NETWORKS["bilstm_text"]()
    recipe: dict[str, object] = {"epochs": 12, "batch_size": 40, "learning_rate": 1e-2}
    biased = run({"alpha": 0.0, **recipe}, model, rows).model
    fair = run({"alpha": 1.0, "constraint": "demographic_parity", **recipe}, model, rows).model
    before, after = gap(biased, test, 1), gap(fair, test, 1)
    assert before > 0.2 and abs(after) < 0.5 * before, (before, after)
