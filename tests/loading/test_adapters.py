"""LoRA adapters on a base: the answers are peft's own, and nothing that an adapter names is imported."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor.core.errors import AuditorError, ModelError, UnsafeModelError, UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from tests.quantifiers import none_of
from tests.toys.folders import change_json, save_bert

peft = pytest.importorskip("peft")
TEXTS = np.array(["good day", "bad night", "good"], object)


def adapter(network: Any, folder: Path, **settings: Any) -> Any:
    """The network with an adapter that changes something, saved as peft saves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["query", "value"]} | settings)
        wrapped = peft.get_peft_model(network, config)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.data = 8.0 * torch.randn(parameter.shape, generator=generator)
        wrapped.save_pretrained(folder)
    return wrapped.eval()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "base", tmp_path / "adapter"


def _network_of(base: Path) -> Any:
    from transformers import BertForSequenceClassification

    return BertForSequenceClassification.from_pretrained(base).eval()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"task_type": "SEQ_CLS"},
        {"use_rslora": True},
        {"rank_pattern": {"value": 3}, "alpha_pattern": {"value": 9}},
        {"target_modules": "all-linear", "modules_to_save": ["classifier"]},
    ],
    ids=["plain", "with_its_head", "rslora", "patterns", "all_linear"],
)
def test_a_classifier_answers_as_peft_does(settings: Any, folders: tuple[Path, Path]) -> None:
    base, folder = folders
    save_bert(base)
    network = adapter(_network_of(base), folder, **settings)
    plain = load_model(ModelSpec(path=str(base)))
    model = load_model(ModelSpec(path=str(folder), base=str(base)))
    with torch.no_grad():
        ids = model.encode(TEXTS)  # type: ignore[attr-defined]
        mask = (ids != 0).long()
        expected = network(input_ids=ids, attention_mask=mask).logits.softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(TEXTS), expected, atol=2e-5)
    assert np.abs(plain.predict_proba(TEXTS) - expected).max() > 1e-3
    assert model.provenance.format == "LoRA adapter" and model.provenance.path == str(folder)
    assert any("LoRA adapter of" in note and str(base) in note for note in model.provenance.notes)
    assert model.provenance.sha256 != plain.provenance.sha256


def test_a_language_model_answers_as_peft_does(folders: tuple[Path, Path]) -> None:
    from transformers import GPT2LMHeadModel

    from tests.toys.language import causal_tokenizer, tiny

    base, folder = folders
    tiny("gpt2").save_pretrained(base)  # type: ignore[operator]
    causal_tokenizer().save_pretrained(base)
    network = adapter(
        GPT2LMHeadModel.from_pretrained(base).eval(), folder, target_modules=["c_attn"], task_type="CAUSAL_LM"
    )
    model = load_model(ModelSpec(path=str(folder), base=str(base)))
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected, found = network(ids).logits, model.module(ids).logits  # type: ignore[attr-defined]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_an_adapter_of_another_language_model_is_refused_or_said(folders: tuple[Path, Path]) -> None:
    """Another architecture or width does not fit; the same shapes do, and then the report says whose word it is."""
    from transformers import LlamaForCausalLM

    from tests.toys.language import causal_tokenizer, tiny

    base, folder = folders
    others = {"llama": tiny("llama", seed=1), "gpt2": tiny("gpt2"), "wide": tiny("llama", hidden_size=32)}
    for name, network in {"base": tiny("llama"), **others}.items():
        network.save_pretrained(base.with_name(name))  # type: ignore[operator]
        causal_tokenizer().save_pretrained(base.with_name(name))
    network = LlamaForCausalLM.from_pretrained(base)
    adapter(network, folder, target_modules=["q_proj"], task_type="CAUSAL_LM")
    assert none_of("is the word of" in note for note in _language_model(folder, base).provenance.notes)
    same_shapes = _language_model(folder, base.with_name("llama")).provenance
    assert any("it was trained on" in note and "is the word of whoever named it" in note for note in same_shapes.notes)
    for name in ("gpt2", "wide"):
        with pytest.raises(ModelError, match="is --base the model that it was trained on|matrices of another shape"):
            _language_model(folder, base.with_name(name))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_of_the_last_layer_brings_what_its_base_had_there(dtype: Any, folders: tuple[Path, Path]) -> None:
    """By which another base of the same shapes is found out."""
    from transformers import LlamaForCausalLM

    from tests.toys.language import causal_tokenizer, tiny

    base, folder = folders
    for seed, name in enumerate(("base", "other")):
        tiny("llama", seed=seed).save_pretrained(base.with_name(name))  # type: ignore[operator]
        causal_tokenizer().save_pretrained(base.with_name(name))
    network = adapter(
        LlamaForCausalLM.from_pretrained(base), folder, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM"
    )
    model: Any = load_model(ModelSpec(path=str(folder), base=str(base), dtype=dtype))
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected, found = network(ids).logits, model.module(ids).logits
    tolerance = 1e-3 if dtype == "float32" else 0.05
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    with pytest.raises(ModelError, match="holds its base's 'lm_head.base_layer.weight', and that of --base is another"):
        _language_model(folder, base.with_name("other"))


def _language_model(folder: Path, base: Path) -> Any:
    return load_model(ModelSpec(path=str(folder), base=str(base)))


def test_an_adapter_asks_for_its_base(folders: tuple[Path, Path]) -> None:
    base, folder = folders
    save_bert(base)
    adapter(_network_of(base), folder)
    with pytest.raises(UsageError, match=r"is an adapter of '.*base'.*--base FOLDER"):
        load_model(ModelSpec(path=str(folder)))
    with pytest.raises(UsageError, match="leave --base out"):
        load_model(ModelSpec(path=str(base), base=str(base)))
    with pytest.raises(UsageError, match="--base must name the folder"):
        load_model(ModelSpec(path=str(folder), base=str(folder)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "IA3, and LoRA is read: merge it yourself"),
        ({"use_dora": True}, "with use_dora, which is not read: merge it yourself"),
        ({"bias": "all"}, "with bias"),
        ({"a_new_trick": {"x": 1}}, "with a_new_trick"),
        ({"r": 5}, "says rank 5"),
        ({"lora_alpha": 1e300}, "no sane rank"),
        ({"lora_alpha": None}, "no sane rank"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "no plain name"),
    ],
)
def test_other_adapters_say_why_not(change: Any, says: str, folders: tuple[Path, Path]) -> None:
    base, folder = folders
    save_bert(base)
    adapter(_network_of(base), folder)
    change_json(folder / "adapter_config.json", **change)
    with pytest.raises(ModelError, match=says):
        load_model(ModelSpec(path=str(folder), base=str(base)))


def test_code_that_an_adapter_names_is_never_run(folders: tuple[Path, Path]) -> None:
    base, folder = folders
    save_bert(base)
    adapter(_network_of(base), folder)
    for change in ({"auto_mapping": {"parent_library": "evil", "base_model_class": "A"}}, {"auto_map": {"a": "b.C"}}):
        kept = (folder / "adapter_config.json").read_text()
        change_json(folder / "adapter_config.json", **change)
        with pytest.raises(UnsafeModelError, match="names code"):
            load_model(ModelSpec(path=str(folder), base=str(base)))
        (folder / "adapter_config.json").write_text(kept)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="safe_serialization=True"):
        load_model(ModelSpec(path=str(folder), base=str(base)))


def test_an_adapter_of_another_model_is_refused(folders: tuple[Path, Path]) -> None:
    base, folder = folders
    save_bert(base)
    adapter(_network_of(base), folder)
    weights = load_file(folder / "adapter_model.safetensors")
    first = next(iter(weights))
    for changed in (
        {name.replace("query", "quarry"): tensor for name, tensor in weights.items()},
        {name: tensor for name, tensor in weights.items() if name != first},
        {name: (tensor[:, :1].contiguous() if name == first else tensor) for name, tensor in weights.items()},
        weights | {"base_model.model.extra.weight": torch.zeros(3)},
        {},
    ):
        save_file(changed, folder / "adapter_model.safetensors")
        with pytest.raises(AuditorError, match="its base does not have|another shape|changes nothing"):
            load_model(ModelSpec(path=str(folder), base=str(base)))
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "LORA"
