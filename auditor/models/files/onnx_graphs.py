"""Metadata, graph and inference session of an ONNX model.

onnxruntime interprets operators of its own: the bytes run nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from auditor.core.errors import (
    DamagedError,
    DataError,
    MissingExtraError,
    ModelError,
    UnsupportedError,
    did_you_mean,
)
from auditor.data.preprocessing import as_text
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.model_folder import Folder, is_beside

# Of the operators that exported graphs are written with.
OPSET, OPSET_ML = 20, 3
_KNOWN_OPERATORS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Of a file's metadata: what the probability of the favourable class is held against to decide on its labels.
THRESHOLD = "decision_threshold"
_NUMBERS = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}  # fmt: skip
TEXT = "tensor(string)"
# What gives on the values of its input as they are.
_SAME_VALUES = frozenset("Cast Flatten Identity Reshape Squeeze Unsqueeze".split())


def check(proto: Any, name: str) -> None:
    """Raise UnsupportedError for custom operators."""
    foreign = sorted({o.domain for o in proto.opset_import} - _KNOWN_OPERATORS)
    if foreign:
        raise UnsupportedError(
            f"{name!r} needs operators of {printable(foreign[0], 60)!r}, whose code would have to be loaded: audit it "
            "through your own loader with --predict package.module:function."
        )


def take_in_tensors(proto: Any, folder: Folder, name: str) -> bool:
    """Whether tensors lay in files beside the graph ``name``, which are in it now.

    Raises UnsupportedError for tensors in other files than those of
    :func:`~auditor.models.files.model_folder.is_beside`, ModelError where one is missing or too short.
    """
    outside = [tensor for tensor in _tensors(proto.graph) if tensor.data_location == tensor.EXTERNAL]
    contents: dict[str, bytes] = {}
    for tensor in outside:
        said = {entry.key: entry.value for entry in tensor.external_data}
        file = said.get("location", "")
        if not is_beside(file, name):
            raise UnsupportedError(
                f"{name!r} keeps tensors in {printable(file, 60)!r}; only {f'{name}.data'!r} and {f'{name}_data'!r} "
                "beside it are read: write it as one file, with onnx.save(model, path, save_as_external_data=False)."
            )
        if file not in contents:
            if not folder.has(file):
                raise ModelError(
                    f"{name!r} keeps its tensors in {file!r}, which is not beside it: put both into one folder.",
                    code="AUD-LOAD-INCOMPLETE",
                )
            contents[file] = folder.read(file).data
        start = int(said.get("offset", 0))
        end = start + int(said["length"]) if "length" in said else len(contents[file])
        if not 0 <= start <= end <= len(contents[file]):
            raise DamagedError(f"{file!r} ends before the tensors of {name!r} that it is said to hold.")
        tensor.raw_data = contents[file][start:end]
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]
    return bool(outside)


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


@dataclass(frozen=True)
class OpenedGraph:
    """A checked graph and its session; ``source``: the file, with the digest of all that it was read from."""

    source: Source
    proto: Any
    session: Any
    loaded_by: str
    notes: tuple[str, ...] = ()


def open_graph(source: Source, folder: Folder) -> OpenedGraph:
    """A graph with the tensors that lie beside it in ``folder``; the digest covers those too.

    Raises MissingExtraError without onnxruntime and onnx, ModelError for a damaged graph, foreign operators and missing
    tensors.
    """
    onnx, onnxruntime = libraries()
    loaded_by = f"onnxruntime {onnxruntime.__version__}"
    with convert_parser_errors(f"{source.name!r} cannot be read as an ONNX model"):
        proto = onnx.load_model_from_string(source.data)
        check(proto, source.name)
        beside = Folder(folder.path)
        if not take_in_tensors(proto, beside, Path(source.path).name):
            return OpenedGraph(source, proto, session_of(onnxruntime, source.data), loaded_by)
        names = ", ".join(printable(name, 60) for name in beside.names_read)
        digest = hashlib.sha256(f"{source.sha256} graph\n{beside.sha256} tensors\n".encode()).hexdigest()
        note = f"Its tensors lie in {names} beside it; the model's digest covers both, and that of the graph alone is "
        session = session_of(onnxruntime, proto.SerializeToString())
    return OpenedGraph(replace(source, sha256=digest), proto, session, loaded_by, (f"{note}{source.sha256}.",))


def class_labels(proto: Any, output: str) -> list[str] | None:
    """The class names behind an output of labels: those of the node that gives it, or of a ZipMap; None if none does.

    Encoders of the columns name categories by the same attributes, and are no part of it.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    arrays = {each.name: each for each in proto.graph.initializer}
    node, names = makers.get(output), None
    for _ in proto.graph.node:  # a graph may hold a circle
        if node is None or (names := _names_in(node, arrays)) is not None:
            break
        node = makers.get(node.input[0]) if node.op_type in _SAME_VALUES and node.input else None
    zipped = (_names_in(each, arrays) for each in proto.graph.node if each.op_type == "ZipMap")
    return names or next((found for found in zipped if found is not None), None)


def _names_in(node: Any, arrays: Mapping[str, Any]) -> list[str] | None:
    """The values that a node looks its output up in."""
    if node.op_type == "ArrayFeatureExtractor" and node.input and node.input[0] in arrays:
        from onnx import numpy_helper

        values = np.ravel(numpy_helper.to_array(arrays[node.input[0]])).tolist()
        return [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in values]
    for attribute in node.attribute:
        if attribute.name in ("classlabels_strings", "values_strings") and attribute.strings:
            return [text.decode("utf-8", "replace") for text in attribute.strings]
        if attribute.name in ("classlabels_int64s", "classlabels_ints", "values_int64s") and attribute.ints:
            return [str(i) for i in attribute.ints]
    return None


def threshold_in(proto: Any) -> float | None:
    """The decision threshold for labels in the file, if it contains one.

    Raises DamagedError where it is none.
    """
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


class Graph:
    """A graph with a table as input: ``columns``: its inputs in order, or their number if unnamed."""

    def __init__(self, session: Any, name: str) -> None:
        self.session = session
        self._name = name
        self._inputs = session.get_inputs()
        wide = [i for i in self._inputs if i.type not in (*_NUMBERS, TEXT) or len(i.shape) != 2]
        if wide or not self._inputs:
            what = f"{wide[0].type} of shape {printable(wide[0].shape, 60)}" if wide else "nothing"
            pictures = wide and len(wide[0].shape) == 4
            more = "; a detector of synthetic pictures is audited after auditor detect calibrate" if pictures else ""
            raise UnsupportedError(
                f"{name!r} takes {what}, and an ONNX model is audited where it takes columns of a table, (n, d): wrap "
                f"it with --predict package.module:function{more}."
            )
        widths = [i.shape[1] if isinstance(i.shape[1], int) else None for i in self._inputs]
        self.one_matrix = len(self._inputs) == 1 and widths[0] != 1
        self.width = widths[0] if self.one_matrix else len(self._inputs)
        if not self.one_matrix and any(width not in (1, None) for width in widths):
            raise UnsupportedError(f"{name!r} takes several matrices, and no table says which column belongs to which.")
        self.columns = None if self.one_matrix else tuple(i.name for i in self._inputs)

    def text_columns(self, features: Sequence[str]) -> tuple[str, ...]:
        """The subset of the features with text values."""
        if self.one_matrix:
            return ()
        return tuple(name for i, name in zip(self._inputs, features, strict=True) if i.type == TEXT)

    def run(self, X: Any, features: Sequence[str], output: str) -> Any:
        """One output of the graph for the rows.

        Raises DataError for a value of another type, ModelError where the graph fails.
        """
        if isinstance(X, np.ndarray):
            X = pd.DataFrame(X, columns=list(features))
        absent = [name for name in features if name not in X.columns]
        if absent:
            near = did_you_mean(absent[0], map(str, X.columns))
            raise DataError(
                f"The model needs the feature {absent[0]!r}, which the data do not have{near}.", code="AUD-DATA-COLUMN"
            )
        if self.one_matrix:
            kind = self._inputs[0].type
            columns = [_column(X[name], name, kind) for name in features]
            feed = {self._inputs[0].name: np.column_stack(columns) if columns else np.empty((len(X), 0))}
        else:
            named = zip(self._inputs, features, strict=True)
            feed = {i.name: _column(X[name], name, i.type)[:, None] for i, name in named}
        try:
            return self.session.run([output], feed)[0]
        except Exception as error:  # whatever onnxruntime raises on an input it cannot use
            raise ModelError(
                f"{self._name!r} refused the data: {printable(error, 300)}", code="AUD-LOAD-ANSWERS"
            ) from error


def _column(values: Any, name: str, kind: str) -> Any:
    if kind == TEXT:
        return as_text(values).fillna("").to_numpy(object)
    try:
        return pd.to_numeric(values).to_numpy(np.float64).astype(_NUMBERS[kind])
    except (ValueError, TypeError):
        strange = next((v for v in values if isinstance(v, str) and not _is_number(v)), values.iloc[0])
        what = printable(strange, 40)
        raise DataError(
            f"Column {name!r} holds {what!r}, and the model takes numbers there.", code="AUD-DATA-VALUES"
        ) from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def session_of(onnxruntime: Any, content: bytes) -> Any:
    """An inference session of a graph, on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # A second attempt would be the first one again, with a banner on the standard output.
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def libraries() -> tuple[Any, Any]:
    """onnx and onnxruntime. Raises MissingExtraError where one is not installed."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise MissingExtraError("An ONNX model needs onnxruntime: pip install 'responsible-auditor[onnx]'.") from None
    return onnx, onnxruntime
