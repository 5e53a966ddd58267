"""Networks that others have placed are asked where they lie: spread by a device map, offloaded, of four bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.core.errors import ModelError, UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.forward_passes import device_of, move_module, spread, stays, told_spread
from auditor.models.generation import Sampling, continuations
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.torch_model import TorchModel
from auditor.run.while_training.training_audit import TrainingAudit
from probes.fairness.group_fairness import GroupFairness
from probes.robustness.robustness import Robustness
from tests.loading.test_number_formats import saved
from tests.run.while_training.worlds import network, rows
from tests.toys.folders import save_bert
from tests.toys.language import causal_tokenizer, sentences, tiny


class Pinned(nn.Sequential):
    """What transformers and bitsandbytes raise when somebody moves such a network."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("`.to` is not supported for this model")


class Linear4bit(nn.Linear):
    """By its name one of bitsandbytes."""


def pinned(how: str) -> Pinned:
    model = Pinned(*network())
    if how == "device map":
        model.hf_device_map = {"": "cpu"}  # type: ignore[assignment]
    elif how == "layers":
        model[4] = Linear4bit(8, 2)
    elif how == "inside":
        model[4].is_loaded_in_4bit = True  # type: ignore[assignment]
    else:
        setattr(model, how, True)
    return model


WAYS = ["device map", "layers", "inside", "is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"]


@pytest.mark.grid
@pytest.mark.parametrize("how", WAYS)
def test_a_network_that_must_not_be_moved_is_audited_where_it_lies(how: str) -> None:
    model = pinned(how).train()
    assert stays(model) and move_module(model, torch.device("meta")) is model
    audit = TrainingAudit(probes=[GroupFairness(), Robustness()], data=rows(200), n_peeks=1, max_overhead=None)
    audit.step(model)
    assert not audit.faults and model.training
    values = [m.estimate.value for m in audit.peeks[0].results[0].measurements if m.metric == "selection_rate"]
    selected = TorchModel(nn.Sequential(*model), classes=["0", "1"]) if how == "device map" else None
    assert len(values) == 2 and not stays(network())
    if selected is not None:
        decided = selected.predict_proba(np.asarray(rows(200).X)).argmax(axis=1)
        sex = np.asarray(rows(200).sensitive_features)[:, 0]
        assert sorted(values) == pytest.approx(sorted(decided[sex == g].mean() for g in ("f", "m")))


def test_any_other_network_is_moved() -> None:
    model = nn.Linear(2, 2)
    assert move_module(model, torch.device("meta")) is model and device_of(model).type == "cpu"
    assert next(model.parameters()).device.type == "meta"


def test_what_accelerate_offloads_answers_as_it_did() -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs the extra distributed")
    data = rows(300)

    def found(model: nn.Module) -> list[float]:
        audit = TrainingAudit(probes=[GroupFairness()], data=data, n_peeks=1, max_overhead=None)
        audit.step(model)
        assert not audit.faults
        return [m.estimate.value for m in audit.peeks[0].results[0].measurements]

    offloaded = accelerate.cpu_offload(network(), execution_device=torch.device("cpu"))
    assert {p.device.type for p in offloaded.parameters()} == {"meta"} and device_of(offloaded).type == "cpu"
    assert found(offloaded) == found(network())
    assert {p.device.type for p in offloaded.parameters()} == {"meta"}


# ---- --device-map ----------------------------------------------------------------------------------------------------


def sketch() -> Any:
    with torch.device("meta"):
        return tiny("llama", num_hidden_layers=6, hidden_size=64)


@pytest.mark.parametrize("how", ["auto", "balanced", "sequential"])
def test_a_network_is_spread_over_cards_and_no_layer_is_cut(how: Any) -> None:
    pytest.importorskip("accelerate", reason="needs the extra distributed")
    held = sum(4 * p.numel() for p in sketch().parameters())
    found = spread(sketch(), how, torch.float32, {0: 2 * held, 1: 2 * held, "cpu": 10 * held})
    layers = {name: where for name, where in found.items() if ".layers." in name}
    # A part is a layer with all that is in it, or lies outside of them.
    assert {name.count(".") for name in layers} <= {2}
    if how == "sequential":
        assert set(found.values()) == {0}
    else:
        assert sorted(set(found.values())) == [0, 1] and sum(where == 1 for where in layers.values()) in (2, 3, 4)
    half = spread(sketch(), "sequential", torch.bfloat16, {0: held // 3, 1: held, "cpu": held})
    assert set(half.values()) == {0, 1}


def test_what_the_cards_do_not_hold_is_refused_and_not_read_from_a_disk() -> None:
    pytest.importorskip("accelerate", reason="needs the extra distributed")
    held = sum(4 * p.numel() for p in sketch().parameters())
    with pytest.raises(ModelError, match="The cards do not hold this model: .* of the kind cpu"):
        spread(sketch(), "auto", torch.float32, {0: held // 4, 1: held // 4, "cpu": 10 * held})
    with pytest.raises(ModelError, match="of the kind .*disk"):
        spread(sketch(), "sequential", torch.float32, {0: held // 4, "cpu": held // 4})


def test_one_device_is_said_to_be_one(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    model: Any = load_model(ModelSpec(path=str(folder), device_map="auto"))
    assert not stays(model.module)
    assert model.provenance.notes[1] == "--device-map auto: computed on cpu, one device, so that nothing was spread."
    parts = {"a": 0, "b": 0, "c": 1}
    assert told_spread("balanced", parts, "cuda").endswith(" balanced: 2 parts on cuda:0, 1 part on cuda:1.")


def test_what_is_no_language_model_is_not_spread(tmp_path: Path) -> None:
    save_bert(tmp_path / "m")
    with pytest.raises(UsageError, match="leave --device-map out"):
        load_model(ModelSpec(path=str(tmp_path / "m"), device_map="auto"))


def test_a_language_model_whose_layers_are_elsewhere_answers_as_it_did() -> None:
    """Its last layer has no weights of its own until it is asked, and its inputs go where its first part computes."""
    accelerate = pytest.importorskip("accelerate", reason="needs the extra distributed")
    texts = sentences(8)
    whole = AuditedLanguageModel(tiny("llama").eval(), causal_tokenizer())
    there = accelerate.cpu_offload(tiny("llama").eval(), execution_device=torch.device("cpu"))
    model = AuditedLanguageModel(there, causal_tokenizer(), device="meta")
    assert model.device.type == "cpu" and next(model.module.parameters()).is_meta
    np.testing.assert_allclose(model.log_likelihoods(texts), whole.log_likelihoods(texts), rtol=0, atol=1e-5)
    sampling = Sampling(max_new_tokens=4, until="length")
    drawn = [
        continuations(each, ["the dog", "a cat sees"], 3, sampling, torch.Generator().manual_seed(0))
        for each in (model, whole)
    ]
    assert drawn[0] == drawn[1]
