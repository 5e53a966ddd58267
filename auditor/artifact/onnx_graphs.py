"""What an ONNX file says of itself, read off its graph and its metadata; nothing of it is run."""

from __future__ import annotations

import math
from typing import Any

from auditor.artifact.source import printable
from auditor.errors import DamagedError, UnsupportedError

_KNOWN_OPERATORS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Of a file's metadata: what the probability of the favourable class is held against to decide on its labels.
THRESHOLD = "decision_threshold"


def check(proto: Any, name: str) -> None:
    """Raises UnsupportedError for operators of other libraries, and for tensors that lie in other files."""
    foreign = sorted({o.domain for o in proto.opset_import} - _KNOWN_OPERATORS)
    if foreign:
        raise UnsupportedError(
            f"{name!r} needs operators of {printable(foreign[0], 60)!r}, whose code would have to be loaded: audit it "
            "through your own loader with --predict package.module:function."
        )
    if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(proto.graph)):
        raise UnsupportedError(
            f"{name!r} keeps tensors in other files: write it as one, with onnx.save(model, path, "
            "save_as_external_data=False)."
        )


def _tensors(graph: Any) -> list[Any]:
    found, graphs = [], [graph]
    while graphs:
        one = graphs.pop()
        found += [*one.initializer, *(s.values for s in one.sparse_initializer)]
        for node in one.node:
            for attribute in node.attribute:
                found += [attribute.t, *attribute.tensors]
                graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
    return found


def class_labels(proto: Any, output: str) -> list[str] | None:
    """The labels that a classifier's node or ZipMap names, or what the places of classes are looked up in."""
    for node in reversed(proto.graph.node):
        for attribute in node.attribute:
            if attribute.name == "values_strings" and output in node.output and attribute.strings:
                return [text.decode("utf-8", "replace") for text in attribute.strings]
            if attribute.name in ("classlabels_strings", "cats_strings") and attribute.strings:
                return [text.decode("utf-8", "replace") for text in attribute.strings]
            if attribute.name in ("classlabels_int64s", "classlabels_ints", "cats_int64s") and attribute.ints:
                return [str(i) for i in attribute.ints]
    return None


def threshold_in(proto: Any) -> float | None:
    """The threshold that the file's labels are decided by, where it says one. Raises DamagedError where it is none."""
    said = next((each.value for each in proto.metadata_props if each.key == THRESHOLD), None)
    if said is None:
        return None
    try:
        threshold = float(said)
    except ValueError:
        threshold = math.nan
    if not 0.0 <= threshold <= 1.0:
        raise DamagedError(f"The model file says that it decides by {printable(said, 40)!r}, which is no threshold.")
    return threshold
