"""Signed weights are the same integers: the program's outputs are those it had, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from auditor.models.networks import encoders
from auditor.models.networks.encoders import with_signed_weights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def program(*, zero_point: bool = True, also_cast: bool = False, kind: str = "uint8") -> bytes:
    """Rows by a weight of every byte there is, quantised on the fly."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.arange(256).astype(kind).reshape(16, 16)
    inputs = ["q", "w", "z", *(["wz"] if zero_point else [])]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", inputs, ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])]
    if also_cast:
        nodes.append(helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT))
        outputs.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [16, 16]))
    values = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.asarray(131).astype(kind), "wz")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])], outputs, values
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def answers(content: bytes) -> Any:
    x = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


def test_shifted_weights_give_the_same_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    before, exact = program(), encoders._exact()
    monkeypatch.setattr(encoders, "_exact", lambda: True)
    after = with_signed_weights(before)
    types = {t.name: t.data_type for t in onnx.load_model_from_string(after).graph.initializer}
    assert types == {"w": onnx.TensorProto.INT8, "wz": onnx.TensorProto.INT8}
    if exact:
        np.testing.assert_array_equal(answers(after), answers(before))


def test_what_cannot_be_shifted_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_exact", lambda: True)
    for content in (program(zero_point=False), program(also_cast=True), program(kind="int8"), b"no program"):
        assert with_signed_weights(content) is content


def test_nothing_is_shifted_where_signed_products_are_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_exact", lambda: False)
    content = program()
    assert with_signed_weights(content) is content
