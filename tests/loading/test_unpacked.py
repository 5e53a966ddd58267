"""Packed weights are unpacked to the numbers they stand for, and to no others; what does not fit is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor.core.errors import MissingExtraError, ModelError, UnsupportedError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.files import quantized_checkpoints
from auditor.models.files.quantized_checkpoints import unpack
from tests.loading.test_number_formats import saved
from tests.quantifiers import all_of
from tests.toys.folders import change_json
from tests.toys.language import sentences

UP = "model.layers.0.mlp.up_proj.weight"
Weights = dict[str, Tensor]


def packed(folder: Path, how: str, kind: str = "llama", **sizes: Any) -> tuple[Weights, Path]:
    """(the plain weights, a folder that holds them packed), of a random model with rows of 64 numbers."""
    sizes = sizes or {"hidden_size": 64, "intermediate_size": 96}
    saved(folder, kind=kind, **sizes)
    plain = load_file(folder / "model.safetensors")
    config, weights, metadata = PACKERS[how](dict(plain))
    save_file({k: w.contiguous() for k, w in weights.items()}, folder / "model.safetensors", metadata=metadata)
    change_json(folder / "config.json", quantization_config=config)
    return plain, folder


def linear(weights: Weights) -> list[str]:
    return [name for name in weights if name.endswith("_proj.weight")]


def replace(folder: Path, take: str = "", **put: Tensor) -> None:
    file = folder / "model.safetensors"
    held = load_file(file)
    held.pop(take, None)
    save_file(held | put, file)


# Quantiles of a normal distribution (Dettmers et al. 2023, appendix E).
NF4 = torch.tensor(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0, 0.0795803, 0.1609302]
    + [0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
)


def bitsandbytes_8(weights: Weights) -> Any:
    for name in linear(weights):
        scale = weights[name].abs().amax(dim=1)
        weights[name] = (weights[name] / scale[:, None] * 127).round().to(torch.int8)
        weights[name.replace("weight", "SCB")] = scale
        weights[name.replace("weight", "weight_format")] = torch.tensor(0, dtype=torch.uint8)
    return {"quant_method": "bitsandbytes", "load_in_8bit": True}, weights, None


def bitsandbytes_4(weights: Weights, nested: bool = False) -> Any:
    """Blocks of 64 numbers, of which one may begin in one row and end in the next."""
    for name in linear(weights):
        blocks = weights[name].reshape(-1, 64)
        scales = blocks.abs().amax(dim=1)
        codes = (blocks[..., None] / scales[:, None, None] - NF4).abs().argmin(dim=-1).reshape(-1, 2)
        state: dict[str, Any] = {
            "quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weights[name].shape)
        }  # fmt: skip
        if nested:
            offset, most = float(scales.mean()), scales.sub(scales.mean()).abs().max()
            book = torch.linspace(-1, 1, 256)
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset}
            weights |= {f"{name}.nested_absmax": most[None], f"{name}.nested_quant_map": book}
            scales = ((scales - offset)[:, None] / most - book).abs().argmin(dim=1).to(torch.uint8)
        weights[name] = (codes[:, :1] << 4 | codes[:, 1:]).to(torch.uint8)
        said = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        weights |= {
            f"{name}.absmax": scales, f"{name}.quant_map": NF4.clone(), f"{name}.quant_state.bitsandbytes__nf4": said
        }  # fmt: skip
    return {"quant_method": "bitsandbytes", "load_in_4bit": True}, weights, None


def torchao(weights: Weights, bits: int) -> Any:
    pytest.importorskip("torchao", reason="needs the extra quantize")
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    config = Int8WeightOnlyConfig() if bits == 8 else IntxWeightOnlyConfig(torch.int4, PerGroup(32))
    tensors = dict(weights)
    for name in linear(weights):
        layer = torch.nn.Linear(*weights[name].shape[::-1], bias=False)
        layer.weight.data = weights[name]
        quantize_(layer, config)
        tensors[name] = layer.weight.data
    held, metadata = flatten_tensor_state_dict(tensors)
    return {"quant_method": "torchao", "quant_type": {}}, held, {"format": "pt", **metadata}


def compressed(weights: Weights, bits: int) -> Any:
    pytest.importorskip("compressed_tensors", reason="needs the extra compressed-tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    how = {"strategy": "channel"} if bits == 8 else {"strategy": "group", "group_size": 32}
    numbers = QuantizationArgs(num_bits=bits, type="int", symmetric=True, **how)
    kind = "int-quantized" if bits == 8 else "pack-quantized"
    inputs = QuantizationArgs(num_bits=8, type="int", strategy="token", dynamic=True) if bits == 8 else None
    scheme = QuantizationScheme(targets=["Linear"], weights=numbers, input_activations=inputs, format=kind)
    for name in linear(weights):
        weight = weights.pop(name)
        grouped = weight.reshape(len(weight), -1, 32 if bits == 4 else weight.shape[1])
        scales = grouped.abs().amax(dim=-1) / (2 ** (bits - 1) - 1)
        held = BaseCompressor.get_value_from_registry(kind).compress({"weight": weight, "weight_scale": scales}, scheme)
        weights |= {name.replace("weight", key): value for key, value in held.items()}
    config = QuantizationConfig(config_groups={"all": scheme}, format=kind, quantization_status="compressed")
    return json.loads(config.model_dump_json()), weights, None


def awq(weights: Weights) -> Any:
    pytest.importorskip("compressed_tensors", reason="needs the extra compressed-tensors")

    def words(numbers: Tensor) -> Tensor:
        eights = numbers.reshape(len(numbers), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]].long()
        found = (eights << torch.arange(0, 32, 4)).sum(dim=-1)
        return torch.where(found >= 1 << 31, found - (1 << 32), found).int()

    for name in linear(weights):
        by_input = weights.pop(name).T
        groups = by_input.reshape(-1, 32, by_input.shape[1])
        low, high = groups.amin(dim=1).clamp(max=0), groups.amax(dim=1).clamp(min=0)
        scales = ((high - low) / 15).half().float()
        zeros = (-low / scales).round().clamp(0, 15)
        numbers = (groups / scales[:, None] + zeros[:, None]).round().clamp(0, 15).reshape(by_input.shape)
        stem = name.removesuffix("weight")
        weights |= {f"{stem}qweight": words(numbers), f"{stem}qzeros": words(zeros), f"{stem}scales": scales.half()}
    return {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}, weights, None


def fp8(weights: Weights, side: int = 40) -> Any:
    """Blocks that do not fill a weight, as of a width that is no multiple of them."""
    for name in linear(weights):
        weight = weights[name]
        grid = [-(-n // side) for n in weight.shape]
        full = torch.zeros(grid[0] * side, grid[1] * side)
        full[: weight.shape[0], : weight.shape[1]] = weight
        blocks = full.reshape(grid[0], side, grid[1], side)
        scales = blocks.abs().amax(dim=(1, 3)) / 448
        held = (blocks / scales[:, None, :, None]).reshape(full.shape)[: weight.shape[0], : weight.shape[1]]
        weights[name] = held.to(torch.float8_e4m3fn)
        weights[name.replace("weight", "weight_scale_inv")] = scales
    return {"quant_method": "fp8", "weight_block_size": [side, side], "activation_scheme": "dynamic"}, weights, None


PACKERS: dict[str, Any] = {
    "bitsandbytes of 8 bits": bitsandbytes_8,
    "bitsandbytes of 4 bits": bitsandbytes_4,
    "bitsandbytes of 4 bits, scales too": lambda weights: bitsandbytes_4(weights, nested=True),
    "torchao of 8 bits": lambda weights: torchao(weights, 8),
    "torchao of 4 bits": lambda weights: torchao(weights, 4),
    "compressed-tensors of 8 bits": lambda weights: compressed(weights, 8),
    "compressed-tensors of 4 bits": lambda weights: compressed(weights, 4),
    "AWQ": awq,
    "FP8": fp8,
}


@pytest.mark.parametrize("how", PACKERS)
def test_packed_weights_are_read_as_the_numbers_they_stand_for(how: str, tmp_path: Path) -> None:
    """Half a step of their grid from what was packed, and a network of plain weights that answers nearly as it did."""
    plain, folder = packed(tmp_path / "m", how)
    model: Any = load_model(ModelSpec(path=str(folder), mapped=True))
    found = model.module.state_dict()
    assert all_of(torch.equal(found[name], weight) for name, weight in plain.items() if name not in linear(plain))
    step = 0.04 if "FP8" in how else 1 / 127 if "8" in how else 0.2
    for name in linear(plain):
        assert type(found[name]) is Tensor and found[name].dtype == torch.float32
        off, size = (found[name] - plain[name]).abs().max(), plain[name].abs().max()
        assert 0 < off < step * size, name
    before = load_model(ModelSpec(path=str(saved(tmp_path / "p", hidden_size=64, intermediate_size=96))))
    texts = sentences(12)
    whole, rounded = (np.asarray(m.log_likelihoods(texts)) for m in (before, model))  # type: ignore[attr-defined]
    assert np.isfinite(rounded).all() and 0 < np.abs(rounded - whole).max() < 0.5 * np.abs(whole).max()
    assert "as its files, but for packed weights, are." in model.provenance.notes[0]
    assert "were unpacked to the numbers that they stand for" in " ".join(model.provenance.notes)


def test_experts_of_four_bit_floating_point_numbers_are_unpacked(tmp_path: Path) -> None:
    """What MXFP4 can say exactly comes back exactly: sixteen numbers times a power of two for each 32."""
    sizes = {"hidden_size": 32, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
    folder = saved(tmp_path / "m", kind="gpt_oss", **sizes, rope_parameters={"rope_type": "default"})
    weights = load_file(folder / "model.safetensors")
    values = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    expected = {}
    for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, width, out = weights.pop(name).shape
        codes = torch.randint(16, (experts, out, width // 32, 32), generator=torch.Generator().manual_seed(0))
        powers = torch.randint(120, 126, (experts, out, width // 32), generator=torch.Generator().manual_seed(1))
        numbers = values[codes] * 2.0 ** (powers - 127)[..., None]
        expected[name] = numbers.reshape(experts, out, width).transpose(1, 2)
        weights[f"{name}_blocks"] = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
        weights[f"{name}_scales"] = powers.to(torch.uint8)
    save_file(weights, folder / "model.safetensors")
    change_json(folder / "config.json", quantization_config={"quant_method": "mxfp4"})
    found = load_model(ModelSpec(path=str(folder))).module.state_dict()  # type: ignore[attr-defined]
    assert len(expected) == 4
    assert all_of(torch.equal(found[name], numbers) for name, numbers in expected.items())


@pytest.mark.parametrize(
    ("take", "put", "says"),
    [
        (UP.replace("weight", "weight_scale_inv"), {}, f"hold '{UP}' as float8_e4m3fn"),
        (UP, {}, "up_proj.weight_scale_inv' is no scale of eight-bit"),
        ("", {UP.replace("weight", "weight_scale_inv"): torch.ones(3, 3)}, "has 9 scales for 6 blocks"),
        ("", {UP.replace("weight", "weight_scale_inv"): torch.ones(3, 2, dtype=torch.uint8)}, "powers of two"),
        ("", {UP: torch.ones(96, 32).to(torch.float8_e4m3fn)}, "has 6 scales for 3 blocks"),
        ("", {UP: torch.ones(96, 64)}, "is no scale of eight-bit"),
        ("model.norm.weight", {}, "lack 'model.norm.weight'"),
    ],
)
def test_what_does_not_fit_is_refused(take: str, put: Weights, says: str, tmp_path: Path) -> None:
    _, folder = packed(tmp_path / "m", "FP8")
    replace(folder, take, **put)
    with pytest.raises(ModelError, match=says):
        load_model(ModelSpec(path=str(folder)))


def test_both_a_weight_and_its_scale_that_are_gone_are_missed(tmp_path: Path) -> None:
    _, folder = packed(tmp_path / "m", "FP8")
    replace(folder, UP)
    replace(folder, UP.replace("weight", "weight_scale_inv"))
    with pytest.raises(ModelError, match=f"lack '{UP}'"):
        load_model(ModelSpec(path=str(folder)))


@pytest.mark.parametrize("size", [[0, 128], [128], ["128", 128], [1 << 62, -1]])
def test_blocks_of_no_size_are_refused(size: Any, tmp_path: Path) -> None:
    _, folder = packed(tmp_path / "m", "FP8")
    change_json(folder / "config.json", quantization_config={"quant_method": "fp8", "weight_block_size": size})
    with pytest.raises(ModelError, match="weight_block_size is"):
        load_model(ModelSpec(path=str(folder)))


@pytest.mark.parametrize(
    ("method", "package", "extra"),
    [
        ("torchao", "torchao", "quantize"),
        ("compressed-tensors", "compressed-tensors", "compressed-tensors"),
        ("awq", "compressed-tensors", "compressed-tensors"),
    ],
)
def test_a_library_that_is_not_there_is_named_with_its_extra(
    method: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, folder = packed(tmp_path / "m", "FP8")
    change_json(folder / "config.json", quantization_config={"quant_method": method})
    found = importlib.util.find_spec
    gone = package.replace("-", "_")
    monkeypatch.setattr(
        quantized_checkpoints.importlib.util, "find_spec", lambda name: None if name == gone else found(name)
    )
    with pytest.raises(MissingExtraError, match=rf"needs {package}: pip install 'responsible-auditor\[{extra}\]'"):
        load_model(ModelSpec(path=str(folder)))


@pytest.mark.parametrize(
    ("take", "put"),
    [
        ("", {f"{UP}.absmax": torch.ones(3)}),
        ("", {f"{UP}.absmax": torch.ones(48, 2)}),
        ("", {UP: torch.zeros(96 * 32 - 8, 1, dtype=torch.uint8)}),
        (f"{UP}.quant_map", {}),
        (f"{UP}.absmax", {}),
    ],
)
def test_codes_and_scales_that_are_not_of_one_size_are_refused(take: str, put: Weights, tmp_path: Path) -> None:
    _, folder = packed(tmp_path / "m", "bitsandbytes of 4 bits")
    replace(folder, take, **put)
    with pytest.raises(ModelError, match=f"the scales of '{UP}' are not of its size"):
        load_model(ModelSpec(path=str(folder)))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_what_bitsandbytes_packs_is_what_bitsandbytes_unpacks(kind: str, nested: bool) -> None:
    functional = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes").functional
    weight = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    held, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    weights = {UP: held} | {f"{UP}.{key}": value for key, value in state.as_dict(packed=True).items()}
    quantized_checkpoints.unpack(weights, "bitsandbytes", {}, {}, "m")
    torch.testing.assert_close(weights.pop(UP), functional.dequantize_4bit(held, state), rtol=0, atol=1e-6)
    assert not weights


def test_a_shape_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    _, folder = packed(tmp_path / "m", "compressed-tensors of 4 bits")
    replace(folder, **{UP.replace("weight", "weight_shape"): torch.tensor([1 << 30, 1 << 20])})
    with pytest.raises(ModelError, match="claims 1,125,899,906,842,624 numbers and holds fewer"):
        load_model(ModelSpec(path=str(folder)))


def of_groups(groups: dict[str, tuple[int, list[str]]], bits: dict[str, int], **said: Any) -> Weights:
    """Modules packed by channels of so many bits, unpacked by a configuration of such groups."""
    pytest.importorskip("compressed_tensors", reason="needs the extra compressed-tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    def scheme(n: int, targets: list[str]) -> Any:
        numbers = QuantizationArgs(num_bits=n, type="int", symmetric=True, strategy="channel")
        return QuantizationScheme(targets=targets, weights=numbers, format="pack-quantized")

    weights: Weights = {}
    plain = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    for module, n in bits.items():
        scales = plain.abs().amax(dim=1, keepdim=True) / (2 ** (n - 1) - 1)
        pack = BaseCompressor.get_value_from_registry("pack-quantized").compress
        held = pack({"weight": plain, "weight_scale": scales}, scheme(n, ["Linear"]))
        weights |= {f"{module}.{key}": value for key, value in held.items()}
    made = {name: json.loads(scheme(*how).model_dump_json()) for name, how in groups.items()}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": made, **said}
    unpack(weights, "compressed-tensors", config, {}, "m")
    return {name: (weight - plain).abs().max() for name, weight in weights.items()}


@pytest.mark.parametrize("first", ["lm_head", "Linear"])
def test_a_group_that_names_a_module_is_not_taken_for_one_of_a_class(first: str) -> None:
    groups = {"a": (4, ["lm_head"]), "b": (8, ["Linear"])}
    ordered = dict(sorted(groups.items(), key=lambda item: item[1][1] != [first]))
    off = of_groups(ordered, {"model.layers.0.q_proj": 8, "lm_head": 4}, sparsity_config={"format": "dense"})
    assert 0 < off["model.layers.0.q_proj.weight"] < 0.03 < off["lm_head.weight"] < 0.5


def test_groups_of_several_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="which of them 'model.embed_tokens' is of is not known"):
        of_groups({"a": (4, ["Linear"]), "b": (8, ["Embedding"])}, {"model.embed_tokens": 8})
    with pytest.raises(ModelError, match="sparse or transformed"):
        of_groups({"a": (4, ["Linear"])}, {"x": 4}, sparsity_config={"format": "sparse-24"})


@pytest.mark.parametrize("bits", [4, 8])
def test_numbers_of_other_bits_than_are_said_are_refused(bits: int) -> None:
    with pytest.raises(ModelError, match="'a.x' claims 1,024 numbers"):
        of_groups({"a": (bits, ["Linear"])}, {"a.x": 12 - bits})


@pytest.mark.parametrize("change", [{"version": "gemv"}, {"bits": 8}])
def test_another_order_of_the_same_method_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    _, folder = packed(tmp_path / "m", "AWQ")
    said = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"} | change
    change_json(folder / "config.json", quantization_config=said)
    with pytest.raises(UnsupportedError, match="only AWQ of 4 bits"):
        load_model(ModelSpec(path=str(folder)))


def test_a_number_format_that_is_none_is_not_looked_up(tmp_path: Path) -> None:
    """torchao takes the name of anything of torch for one."""
    _, folder = packed(tmp_path / "m", "torchao of 4 bits")
    file = folder / "model.safetensors"
    from safetensors import safe_open

    with safe_open(file, "pt") as held:
        metadata = held.metadata()
    metadata[UP] = metadata[UP].replace('"float32"', '"load"')
    save_file(load_file(file), file, metadata=metadata)
    with pytest.raises(ModelError, match="'load' is no number format"):
        load_model(ModelSpec(path=str(folder)))
