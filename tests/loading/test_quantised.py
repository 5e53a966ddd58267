"""Quantised folders that are not read name what would unpack them; packed numbers are never taken for weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from auditor.core.errors import ModelError, UnsupportedError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.files.quantized_checkpoints import packed_by
from tests.loading.test_number_formats import saved
from tests.toys.folders import change_json, save_bert

UP = "model.layers.0.mlp.up_proj.weight"


def repacked(folder: Path, **tensors: torch.Tensor) -> Path:
    """The folder with other tensors beside its own; one that is there already is replaced."""
    file = folder / "model.safetensors"
    save_file(load_file(file) | tensors, file)
    return folder


def packed(folder: Path, kind: torch.dtype = torch.int8) -> Path:
    weight = load_file(folder / "model.safetensors")[UP]
    scale = weight.abs().max() / 100
    return repacked(folder, **{UP: (weight / scale).round().to(kind), f"{UP}_scale": scale.reshape(1)})


@pytest.mark.parametrize(
    ("said", "wants"),
    [
        ({"quant_method": "gptq", "bits": 4}, "by GPTQ.*gptqmodel, and a GPU"),
        ({"quant_method": "fbgemm_fp8"}, "by FP8 by FBGEMM.*fbgemm-gpu, and a GPU"),
        ({"quant_method": "quanto"}, "by Quanto.*the package optimum-quanto"),
        ({"quant_method": "hqq"}, "by HQQ.*the package hqq"),
        ({"quant_method": "a\u202enew one"}, "by a.*new one.*the library that packed it"),
        ({"bits": 4}, "by a method without a name.*the library that packed it"),
        ("yes", "by a method without a name"),
    ],
)
def test_a_quantised_folder_says_what_would_unpack_it(said: Any, wants: str, tmp_path: Path) -> None:
    folder = packed(saved(tmp_path / "m"))
    change_json(folder / "config.json", quantization_config=said)
    with pytest.raises(UnsupportedError, match=f"is quantised {wants}.*model.dequantize") as caught:
        load_model(ModelSpec(path=str(folder)))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", [False, True])
def test_a_claim_that_its_tensors_do_not_bear_out_is_told_as_one(text: bool, tmp_path: Path) -> None:
    """Nobody can say which of both is wrong, and plain weights under such a claim are not audited unasked."""
    folder = tmp_path / "m"
    if text:
        save_bert(folder)
    else:
        saved(folder, "bfloat16")
    change_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match="says that its weights are quantised by GPTQ, and its files hold plain"):
        load_model(ModelSpec(path=str(folder)))


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": None, "load_in_8bit": True}, "bitsandbytes"),
        ({"bits": 4}, "a method without a name"),
        ("gptq", "a method without a name"),
        ({"quant_method": "GPTQ"}, "GPTQ"),
    ],
)
def test_a_method_is_named_alike_wherever_it_is_named(said: Any, name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", "bfloat16")
    change_json(folder / "config.json", quantization_config=said)
    with pytest.raises(ModelError, match=f"says that its weights are quantised by {name}, and its files hold plain"):
        load_model(ModelSpec(path=str(folder)))
    read = packed_by({"quantization_config": said})
    assert [f"are quantised by {name} and" in sentence for sentence in read] == [True] * (name == "bitsandbytes")


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2, torch.int32])
@pytest.mark.parametrize("mapped", [False, True])
def test_packed_weights_that_no_configuration_speaks_of_are_no_weights(
    kind: torch.dtype, mapped: bool, tmp_path: Path
) -> None:
    """Read as they stand they are a hundred times too large, and every number of an audit would be of another model."""
    folder = packed(saved(tmp_path / "m"), kind)
    name = str(kind).removeprefix("torch.")
    with pytest.raises(ModelError, match=f"hold '{UP}' as {name}, which is how quantised.*says nothing of it"):
        load_model(ModelSpec(path=str(folder), mapped=mapped))


@pytest.mark.parametrize(
    "beside",
    [
        {f"{UP}_scale": torch.ones(1)},
        {f"{UP}_scale_inv": torch.ones(1, 1)},
        {f"{UP}.absmax": torch.ones(4)},
        {f"{UP}.quant_state.bitsandbytes__nf4": torch.ones(4, dtype=torch.uint8)},
        {"model.layers.0.mlp.up_proj.SCB": torch.ones(32)},
        {"model.layers.0.mlp.up_proj.qweight": torch.ones(2, 32, dtype=torch.int32)},
        {"model.layers.0.mlp.up_proj.scales": torch.ones(1, 32)},
        {"model.layers.0.mlp.up_proj.g_idx": torch.zeros(16, dtype=torch.int32)},
    ],
    ids=lambda tensors: next(iter(tensors)).rpartition(".")[2],
)
def test_scales_beside_weights_of_any_kind_are_noticed(beside: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Whole numbers may be stored as bfloat16 too: what gives them away is the scale."""
    folder = repacked(saved(tmp_path / "m", "bfloat16"), **beside)
    with pytest.raises(ModelError, match="which is how quantised weights are stored"):
        load_model(ModelSpec(path=str(folder)))


def test_what_a_network_has_itself_is_no_scale_of_anything(tmp_path: Path) -> None:
    """Position ids are whole numbers, and a head that is left over has another name than a scale."""
    folder = repacked(saved(tmp_path / "m"), **{"score.weight": torch.ones(2, 16), "n_steps": torch.tensor([3])})
    assert load_model(ModelSpec(path=str(folder))).kind == "language_model"
