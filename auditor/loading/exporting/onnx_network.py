"""A network of known layers as ONNX operators, layer by layer.

torch's own exporter needs onnxscript and cannot read texts; the networks of tables are a handful of layers, and written
so the graph holds the network's arithmetic and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from auditor.core.errors import UnsupportedError
from auditor.loading.exporting.onnx_nodes import DOUBLE, FLOAT, Nodes
from auditor.models.networks.architectures import MLP, MLPVote
from auditor.models.networks.layer_chain import Chain


def write_network(network: nn.Module, x: str, graph: Nodes) -> str:
    """The name of the network's output for the encoded rows ``x``. Raises UnsupportedError for an unknown layer."""
    steps: dict[type[nn.Module], Callable[[Any, str, Nodes], str]] = {
        MLP: lambda module, x, to: write_network(module.layers, x, to),
        Chain: lambda module, x, to: _in_turn(list(module.in_order(pictures=False)), x, to),
        nn.Sequential: lambda module, x, to: _in_turn(list(module.children()), x, to),
        MLPVote: _vote,
        nn.Linear: _linear,
        nn.Identity: lambda module, x, to: x,
        nn.Dropout: lambda module, x, to: x,
        nn.ReLU: lambda module, x, to: to.add("Relu", x),
        nn.LeakyReLU: lambda module, x, to: to.add("LeakyRelu", x, alpha=module.negative_slope),
        nn.ELU: lambda module, x, to: to.add("Elu", x, alpha=module.alpha),
        nn.SELU: lambda module, x, to: to.add("Selu", x),
        nn.GELU: lambda module, x, to: to.add("Gelu", x, approximate=module.approximate),
        nn.SiLU: lambda module, x, to: to.add("Mul", x, to.add("Sigmoid", x)),
        nn.Tanh: lambda module, x, to: to.add("Tanh", x),
        nn.Sigmoid: lambda module, x, to: to.add("Sigmoid", x),
        nn.Softplus: lambda module, x, to: to.add("Softplus", x),
    }
    if isinstance(network, nn.modules.batchnorm._BatchNorm):
        return _batch_norm(network, x, graph)
    step = steps.get(type(network))
    if step is None:
        raise UnsupportedError(
            f"The network has a layer {type(network).__name__}, which is not written as ONNX here: use --to torch."
        )
    return step(network, x, graph)


def _in_turn(layers: list[nn.Module], x: str, graph: Nodes) -> str:
    for layer in layers:
        x = write_network(layer, x, graph)
    return x


def _array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return tensor.detach().cpu().float().numpy()


def _linear(layer: nn.Linear, x: str, graph: Nodes) -> str:
    weights = [graph.constant(_array(layer.weight), np.float32)]
    if layer.bias is not None:
        weights.append(graph.constant(_array(layer.bias), np.float32))
    return graph.add("Gemm", x, *weights, transB=1)


def _batch_norm(layer: nn.modules.batchnorm._BatchNorm, x: str, graph: Nodes) -> str:
    if layer.running_mean is None or layer.running_var is None:
        raise UnsupportedError("The network has a batch norm without running statistics: use --to torch.")
    n = layer.num_features
    parts = (
        np.ones(n) if layer.weight is None else _array(layer.weight),
        np.zeros(n) if layer.bias is None else _array(layer.bias),
        _array(layer.running_mean),
        _array(layer.running_var),
    )
    return graph.add("BatchNormalization", x, *(graph.constant(part, np.float32) for part in parts), epsilon=layer.eps)


def _vote(network: MLPVote, x: str, graph: Nodes) -> str:
    """Members decide in double precision and their votes are added up in single, as the network does it."""
    column, least = graph.places([network.positive]), graph.numbers(network.threshold)
    weights = _array(network.weights)
    chance = ""
    for weight, member in zip(weights, network.members, strict=False):
        probabilities = graph.add("Softmax", graph.add("Cast", write_network(member, x, graph), to=DOUBLE), axis=1)
        votes = graph.add("GreaterOrEqual", graph.add("Gather", probabilities, column, axis=1), least)
        cast = graph.add("Mul", graph.add("Cast", votes, to=FLOAT), graph.constant(weight, np.float32))
        chance = graph.add("Add", chance or graph.constant(weights[-1], np.float32), cast)
    if not chance:
        # Nobody votes but the one that is always for it; what is added keeps one number a row.
        zero = graph.add("Mul", graph.add("Gather", x, graph.places([0]), axis=1), graph.constant(0.0, np.float32))
        chance = graph.add("Add", zero, graph.constant(weights[-1], np.float32))
    zero, one = graph.constant(0.0, np.float32), graph.constant(1.0, np.float32)
    chance = graph.add("Clip", chance, zero, one)
    pair = [graph.add("Sub", one, chance), chance]
    return graph.add("Concat", *(pair if network.positive == 1 else pair[::-1]), axis=1)
