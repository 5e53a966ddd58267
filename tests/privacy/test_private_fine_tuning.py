"""DP-SGD on transformers classifiers: gradients against single rows, what moves, and a folder that loads again."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from auditor.core.errors import DataError, MissingExtraError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import Recipe
from auditor.models.networks.low_rank_adapters import Lora
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.privacy.dp_linter import lint
from auditor.privacy.run_record import read_run
from auditor.privacy.training.opacus_training import PrivacyBudget, _ask_once_a_row, fine_tune_privately, opacus_quietly
from auditor.privacy.training.private_gradients import PrivateStep, Way, choose_way, with_own_samplers
from auditor.run.mitigation import Training
from auditor.training.huggingface_folder import RUN_FILE, save_classifier
from mitigations.training.dp_sgd import DpSgd
from tests.mitigations.planted_rows import biased_rows, trained
from tests.quantifiers import all_of, none_of
from tests.toys.folders import save_bert

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "day", "night", "the", "a", "very"]
NORM = 0.3
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")


def save_small(folder: Path) -> None:
    """A small BERT of two classes with its tokenizer, without dropout."""
    with torch.random.fork_rng():
        save_bert(
            folder,
            WORDS,
            ("no", "yes"),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.3,
        )


def texts(n: int, seed: int) -> AuditData:
    """Texts that are liked where "good" stands in them and disliked where "bad" does."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    fillers = ["the", "a", "very", "day", "night"]
    rows = [
        " ".join(rng.permutation([*rng.choice(fillers, int(rng.integers(1, 5))), "good" if liked else "bad"]))
        for liked in y
    ]
    return AuditData.from_arrays(np.asarray(rows, object), np.where(y, "yes", "no"), classes=["no", "yes"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("bert")
    save_small(where)
    return where


@pytest.fixture
def model(folder: Path) -> TorchModel:
    loaded = load_model(ModelSpec(path=str(folder)))
    assert isinstance(loaded, TorchModel)
    return loaded


@pytest.mark.parametrize("way", ["hooks", "ghost"])
def test_the_clipped_sum_is_that_of_a_loop_over_texts(model: TorchModel, way: Way) -> None:
    data = texts(7, 0)
    module, x = model.module.double().train(), model.encode(data.X)
    assert data.y_true is not None
    y = torch.from_numpy(data.y_true)
    assert (x == 0).any() and not (x == 0).all()
    named = list(module.named_parameters())
    expected = [torch.zeros_like(p) for _, p in named]
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(module(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, [p for _, p in named])
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        for total, g in zip(expected, gradients, strict=True):
            total += g * min(1.0, NORM / (norm + 1e-6))
    _ask_once_a_row(module)
    with opacus_quietly():
        out: tuple[Any, ...] = PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.0),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=len(x)),
            noise_multiplier=0.0,
            max_grad_norm=NORM,
            grad_sample_mode=way,
        )
        PrivateStep(model.with_module(with_own_samplers(out[0])), out[1], way)(x, y)
    for (name, _), p, total in zip(named, out[1].params, expected, strict=True):
        torch.testing.assert_close(p.summed_grad, total, rtol=1e-6, atol=1e-9, msg=name)


def test_position_embeddings_that_are_asked_once_for_all_rows_are_what_the_repeating_is_for(model: TorchModel) -> None:
    x, y = model.encode(texts(5, 0).X), torch.tensor([0, 1, 0, 1, 0])
    with opacus_quietly(), pytest.raises(ModelError, match="position_embeddings.*no gradient of its own"):
        choose_way(lambda: model.with_module(copy.deepcopy(model.module)), x, y, "auto", 64)


@pytest.mark.slow
def test_a_classifier_learns_privately_and_its_folder_loads_again(
    model: TorchModel, folder: Path, tmp_path: Path
) -> None:
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    state = torch.get_rng_state()
    said: list[str] = []
    new, notes = fine_tune_privately(
        model,
        texts(800, 1),
        Recipe(epochs=5, batch_size=100, learning_rate=3e-3),
        PrivacyBudget(epsilon=8.0, noise_seed=0),
        seed=0,
        mode="ghost",
        rows_at_once=64,
        progress=said.append,
    )
    test = texts(500, 2)
    right = [float((m.decisions(test) == test.y_true).mean()) for m in (model, new)]
    assert right[0] < 0.7 and right[1] > 0.9, right
    assert all_of(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and len(said) == 5
    assert new.recipe is not None and new.recipe.epsilon is not None and new.recipe.epsilon <= 8.0
    assert any("taken as public" in note for note in notes) and "ghost clipping" in notes[0]
    assert none_of(m._forward_hooks or m._forward_pre_hooks for m in new.module.modules())

    save_classifier(new, tmp_path / "private")
    again = load_model(ModelSpec(path=str(tmp_path / "private")))
    np.testing.assert_allclose(again.predict_proba(test.X), new.predict_proba(test.X), atol=1e-6)
    assert again.classes == ("no", "yes")
    found = lint(read_run(tmp_path / "private" / RUN_FILE))
    assert [p.code for p in found.problems] == ["noise_seed_known"]
    with pytest.raises(UsageError, match="not empty"):
        save_classifier(new, tmp_path / "private")


@needs_peft
@pytest.mark.slow
def test_lora_moves_adapters_and_head_alone_and_is_merged(model: TorchModel, tmp_path: Path) -> None:
    new, notes = fine_tune_privately(
        model,
        texts(800, 1),
        Recipe(epochs=5, batch_size=100, learning_rate=1e-2),
        PrivacyBudget(epsilon=8.0, noise_seed=0),
        seed=0,
        lora=Lora(rank=4, alpha=8.0),
    )
    test = texts(500, 2)
    assert float((new.decisions(test) == test.y_true).mean()) > 0.9
    old = model.module.state_dict()
    moved = {k for k, v in new.module.state_dict().items() if not torch.equal(v, old[k])}
    assert old.keys() == new.module.state_dict().keys()
    linear = {f"{n}.weight" for n, m in model.module.named_modules() if isinstance(m, nn.Linear)}
    assert moved == linear | {"network.classifier.bias"}
    # (inputs + outputs) numbers for each of the rank, and the head.
    shapes = [m for n, m in model.module.named_modules() if isinstance(m, nn.Linear) and "classifier" not in n]
    learned = 4 * sum(m.in_features + m.out_features for m in shapes) + 16 * 2 + 2
    assert f"{learned:,} parameters were trained" in notes[1] and "LoRA of rank 4" in notes[1]
    assert all_of(p.requires_grad for p in new.module.parameters())
    save_classifier(new, tmp_path / "lora")
    assert "lora" not in json.dumps(json.loads((tmp_path / "lora" / "config.json").read_text()))
    again = load_model(ModelSpec(path=str(tmp_path / "lora")))
    np.testing.assert_allclose(again.predict_proba(test.X), new.predict_proba(test.X), atol=1e-5)


def test_what_cannot_be_done_is_refused_before_any_training(
    model: TorchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import auditor.privacy.training.opacus_training

    def never(*_: object) -> float:
        raise AssertionError("training began")

    monkeypatch.setattr(auditor.privacy.training.opacus_training, "_one_private_epoch", never)
    data, recipe, budget = texts(40, 0), Recipe(epochs=1, batch_size=10), PrivacyBudget(epsilon=1.0)

    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        asked: dict[str, Any] = {"model": model, "data": data, "recipe": recipe, "budget": budget, "seed": 0} | changes
        with pytest.raises(error, match=match):
            fine_tune_privately(**asked)

    tabular = biased_rows(50, 0)
    bundle = trained(tabular, epochs=1)
    refused(ModelError, "dp_sgd", model=bundle, data=tabular)
    refused(UsageError, "y_true", data=AuditData(X=data.X))
    one = AuditData.from_arrays(data.X, ["no"] * 40, classes=["no", "yes"])
    refused(DataError, "one class only", data=one)
    refused(UsageError, "1/40", budget=PrivacyBudget(epsilon=1.0, delta=0.1))
    refused(UsageError, "at least 1", rows_at_once=0)
    frozen = copy.deepcopy(model.module).requires_grad_(False)
    refused(ModelError, "frozen", model=model.with_module(frozen))
    for options in ({"rank": 0}, {"alpha": 0.0}):
        with pytest.raises(UsageError, match="rank of at least 1"):
            Lora(**options)
    for option, words in (({"weights": "reweighing"}, "trained anew"), ({"delta": 0.1}, "1/40")):
        with pytest.raises(UsageError, match=words):
            DpSgd(**option).mitigate(model, data, np.random.default_rng(0), Training())
    with pytest.raises(UsageError, match="checkpoint"):
        DpSgd().mitigate(model, data, np.random.default_rng(0), Training(checkpoint=tmp_path / "c"))
    with pytest.raises(UsageError, match="lora"):
        DpSgd(lora=2).mitigate(bundle, tabular, np.random.default_rng(0), Training())
    with pytest.raises(ModelError, match="auditor.save"):
        save_classifier(bundle, tmp_path / "none")
    save(bundle, tmp_path / "m.pt")
    with pytest.raises(UsageError, match="beside"):
        save_classifier(model, tmp_path / "none", beside=tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "peft" else find(name, *a))
    refused(MissingExtraError, "peft.*tuning", lora=Lora())
