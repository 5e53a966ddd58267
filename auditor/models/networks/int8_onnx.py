"""Quantised ONNX programs with signed weights: equal integers, with faster CPU instructions."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

_INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")


def with_signed_weights(content: bytes) -> bytes:
    """The program with 8-bit weights of integer products shifted from [0, 255] to [-128, 127], and their zero points.

    ``(a - z_a) (b - z_b)`` is the same integer when ``b`` and ``z_b`` are both 128 less, so no output is another, to
    the last bit; onnxruntime multiplies bytes by signed bytes up to twice as fast. The bytes as they were, where
    nothing is to be shifted, a weight has another use, onnx is not installed, or this processor's products of signed
    bytes are not exact.
    """
    try:
        import onnx
    except ImportError:
        return content
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # what protobuf raises on what is none; onnxruntime says what is wrong with it
        return content
    return bytes(model.SerializeToString()) if _exact() and _shifted(onnx, model.graph) else content


@cache
def _exact() -> bool:
    """Whether the largest products of signed bytes are right: without VNNI's instructions sums of two are cut off."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    weights = np.full((64, 32), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "products",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 32])],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"a": np.full((rows, 64), 255, np.uint8)})[0] for rows in (1, 50)]
    return not any((each != 255 * 127 * 64).any() for each in found)


def _shifted(onnx: Any, graph: Any) -> bool:
    """Whether anything was shifted in a graph; all of its weights are, or none."""
    unsigned = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.UINT8}
    chosen: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type not in _INTEGER_PRODUCTS or len(node.input) < 2 or node.input[1] not in unsigned:
            continue
        # Without a zero point it is 0, which a signed byte of this shift cannot be.
        if len(node.input) < 4 or node.input[3] not in unsigned:
            return False
        chosen |= {name: unsigned[name] for name in (node.input[1], node.input[3])}
    if not chosen or _used_elsewhere(graph, chosen):
        return False
    for name, tensor in chosen.items():
        values = (onnx.numpy_helper.to_array(tensor) ^ np.uint8(128)).view(np.int8)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    # What is said of the types of these names.
    for listed in (graph.input, graph.value_info):
        for value in listed:
            if value.name in chosen:
                value.type.tensor_type.elem_type = onnx.TensorProto.INT8
    return True


def _used_elsewhere(graph: Any, names: dict[str, Any]) -> bool:
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return True
    return any(
        name in names and not (node.op_type in _INTEGER_PRODUCTS and i in (1, 3))
        for node in graph.node
        for i, name in enumerate(node.input)
    ) or any(output.name in names for output in graph.output)
