"""An ONNX model of a table as the unchanged first part of another graph that returns its probabilities.

Its inputs become columns, numbers in double precision and text, whatever it takes itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from auditor.core.errors import UnsupportedError, first_line
from auditor.loading.exporting.onnx_nodes import DOUBLE, INT64, ML, OPSET, STRING, Nodes
from auditor.loading.exporting.served_table import ServedGraph

if TYPE_CHECKING:
    import onnx

_PREFIX = "below/"
_ANEW = "convert the model to opset 20 with its probabilities as a tensor (zipmap off)"


def scores_of(table: ServedGraph, graph: Nodes) -> str:
    """(n, k) probabilities of the model's own nodes, in double precision. Raises UnsupportedError where they are of
    operators that cannot be brought up to date, or none of its outputs is a label with its probabilities."""
    import onnx
    from onnx import compose, version_converter

    proto = onnx.load_model_from_string(table.content)
    versions = {each.domain: each.version for each in proto.opset_import}
    if versions.get("", OPSET) != OPSET:
        try:
            proto = version_converter.convert_version(proto, OPSET)
        except Exception as error:  # of the converter's own, about operators that it does not know
            raise UnsupportedError(
                f"The ONNX model cannot be brought up to date: {first_line(error)}; {_ANEW}."
            ) from None
    graph.ml_opset = max(graph.ml_opset, versions.get(ML, 0))
    proto = compose.add_prefix(proto, _PREFIX)
    if set(versions) - {"", ML} or proto.functions or len(proto.graph.sparse_initializer):
        raise UnsupportedError(f"The ONNX model has more than plain operators: {_ANEW}.")
    nodes, scores = _with_plain_scores(proto)
    _fed(proto, table, graph)
    graph.nodes += nodes
    graph.constants += list(proto.graph.initializer)
    return graph.add("Cast", scores, to=DOUBLE)


def _with_plain_scores(proto: onnx.ModelProto) -> tuple[list[onnx.NodeProto], str]:
    """The nodes without what makes maps of the probabilities, and the name of those."""
    outputs = list(proto.graph.output)
    labels = [o.name for o in outputs if o.type.tensor_type.elem_type in (INT64, STRING)]
    others = [o.name for o in outputs if o.name not in labels]
    if len(labels) != 1 or len(others) != 1:
        raise UnsupportedError(f"The ONNX model does not return a label and its probabilities: {_ANEW}.")
    maps = [node for node in proto.graph.node if node.op_type == "ZipMap" and others[0] in node.output]
    return [n for n in proto.graph.node if n not in maps], maps[0].input[0] if maps else others[0]


def _fed(proto: onnx.ModelProto, table: ServedGraph, graph: Nodes) -> None:
    """Each of the model's inputs from the columns."""
    constants = {each.name for each in proto.graph.initializer}
    inputs: list[Any] = [each for each in proto.graph.input if each.name not in constants]
    if len(inputs) == 1 and len(table.features) > 1:
        together = graph.add("Concat", *table.features, axis=1)
        _bind_input(together, inputs[0], graph)
        return
    for name, own in zip(table.features, inputs, strict=True):
        _bind_input(name, own, graph)


def _bind_input(name: str, onnx_input: Any, graph: Nodes) -> None:
    kind = onnx_input.type.tensor_type.elem_type
    if kind == STRING:
        graph.add("Identity", name, output_name=onnx_input.name)
    else:
        graph.add("Cast", name, output_name=onnx_input.name, to=kind)
