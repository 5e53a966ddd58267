"""Classifiers of small pictures and sounds that other libraries wrote: noise is real, ramps are fake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.toys.media_files import SIZE, fake_picture, real_picture

_PREPROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255, "size": {"height": SIZE, "width": SIZE},
}  # fmt: skip
RATE, SAMPLES = 8_000, 1_024


def save_resnet(folder: Path, classes: tuple[str, ...] = ("ai", "real"), *, seed: int = 0) -> None:
    """A residual network, trained for a moment, in a Hugging Face folder: the first class is of ramps."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8],
        depths=[1],
        layer_type="basic",
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = ResNetForImageClassification(config)
        rng = np.random.default_rng(seed)
        pictures = np.stack([make(rng) for make in (fake_picture, real_picture) for _ in range(40)])
        inputs = torch.from_numpy(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0)
        y = torch.arange(2).repeat_interleave(40)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        for _ in range(25):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixel_values=inputs).logits, y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))


def save_onnx(
    path: Path, classes: tuple[str, ...] = ("real", "ai", "manipulated"), *, sound: bool = False, factor: float = 1.0
) -> None:
    """A graph of logits with what lies beside it: the mean step between neighbours, large for noise, decides.

    Of three classes the last two share what speaks for ramps. ``factor``: of the mean step; 0 is a constant detector,
    NaN one whose every answer is none.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    k = len(classes)
    if sound:
        shape: list[int | str] = ["n", SAMPLES]
        nodes = [
            helper.make_node("Slice", ["x", "one", "end", "axis"], ["a"]),
            helper.make_node("Slice", ["x", "zero", "last", "axis"], ["b"]),
        ]
        axis, axes = 1, [1]
    else:
        shape = ["n", 3, SIZE, SIZE]
        nodes = [
            helper.make_node("Slice", ["x", "one", "end", "axis"], ["a"]),
            helper.make_node("Slice", ["x", "zero", "last", "axis"], ["b"]),
        ]
        axis, axes = 3, [1, 2, 3]
    nodes += [
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Abs", ["d"], ["m"]),
        helper.make_node("ReduceMean", ["m", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["column"]),
        helper.make_node("Gemm", ["column", "w", "c"], ["logits"]),
    ]
    weights = np.asarray([[8.0, *([-8.0] * (k - 1))]], np.float32) * np.float32(factor)
    bias = np.asarray([-2.0, *([2.0] * (k - 1))], np.float32) * np.float32(factor)
    integers = {
        "one": [1],
        "end": [2**31 - 1],
        "zero": [0],
        "last": [-1],
        "axis": [axis],
        "axes": axes,
        "flat": [-1, 1],
    }
    constants = [numpy_helper.from_array(np.asarray(v, np.int64), name) for name, v in integers.items()]
    constants += [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "c")]
    graph = helper.make_graph(
        nodes,
        "steps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", k])],
        constants,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    (path.parent / "config.json").write_text(json.dumps({"id2label": dict(enumerate(classes)), "image_size": SIZE}))
    said = {"sampling_rate": RATE, "do_normalize": True} if sound else _PREPROCESSOR
    (path.parent / "preprocessor_config.json").write_text(json.dumps(said))


def save_wav2vec2(folder: Path, classes: tuple[str, ...] = ("bonafide", "spoof")) -> Any:
    """A transformer of sound with weights of a seed, in a Hugging Face folder."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = Wav2Vec2ForSequenceClassification(config)
    network.eval().save_pretrained(folder)
    said = {"sampling_rate": RATE, "do_normalize": True, "max_length": SAMPLES}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return network
