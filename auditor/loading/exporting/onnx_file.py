"""A table classifier as one ONNX file: one input per column; the label and the probabilities as outputs.

Numbers are ``double``, NaN where missing; all else is text, "" where missing. Every spelling of a level that
:func:`auditor.data.preprocessing.label_name` takes for the same is the same here.

An ONNX model of a table becomes the unchanged first part of a graph that returns its probabilities; its inputs become
columns, numbers in double precision and text, whatever it takes itself. A network of known layers is written as ONNX
operators, layer by layer: torch's own exporter needs onnxscript and cannot read texts, and written so the graph holds
the network's arithmetic and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from auditor.core.errors import MissingExtraError, UnsupportedError, first_line
from auditor.data.preprocessing import NumericColumn, label_name
from auditor.loading.exporting.served_table import GroupCodes, RuleTables, Served, ServedGraph, ServedTable
from auditor.models.files.onnx_graphs import OPSET as OPSET
from auditor.models.files.onnx_graphs import OPSET_ML as OPSET_ML
from auditor.models.files.onnx_graphs import THRESHOLD
from auditor.models.networks.architectures import MLP, MLPVote
from auditor.models.networks.layer_chain import Chain

if TYPE_CHECKING:
    import onnx


# Whole expressions and pieces of text are operators since 20, and onnxruntime 1.17 knows them.
IR_VERSION = 9
ML = "ai.onnx.ml"
FLOAT, DOUBLE, INT64, STRING = 1, 11, 7, 8


class Nodes:
    """Nodes in execution order; ``taken``: input and output names, not available for intermediate values."""

    def __init__(self, used_names: Sequence[str]) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingExtraError(
                "To write an ONNX model takes onnx: pip install 'responsible-auditor[onnx]'."
            ) from None
        self._onnx = onnx
        self._taken = frozenset(used_names)
        self._n = 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.ml_opset = OPSET_ML

    def add(
        self,
        operator: str,
        *inputs: str,
        output_name: str | None = None,
        domain: str = "",
        unused_outputs: int = 0,
        **attributes: Any,
    ) -> str:
        """A node; returns the name of its first output, after which come some that are unused."""
        outputs = [output_name or self._name(), *(self._name() for _ in range(unused_outputs))]
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), outputs, domain=domain, **attributes))
        return outputs[0]

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """A constant tensor; returns its name."""
        name = self._name()
        array = np.asarray(values, dtype)
        if array.dtype.kind in "OU":
            flat: Any = [str(text).encode() for text in array.ravel()]
            tensor = self._onnx.helper.make_tensor(name, STRING, array.shape, flat)
        else:
            tensor = self._onnx.numpy_helper.from_array(array, name)
        self.constants.append(tensor)
        return name

    def numbers(self, values: npt.ArrayLike) -> str:
        """A constant of double precision."""
        return self.constant(values, np.float64)

    def places(self, values: npt.ArrayLike) -> str:
        """A constant of whole numbers."""
        return self.constant(values, np.int64)

    def looked_up(self, texts: str, table: dict[str, int]) -> str:
        """(n, 1) table positions of texts (n, 1), -1 for texts outside the table."""
        return self.add(
            "LabelEncoder", texts, domain=ML, keys_strings=list(table), values_int64s=list(table.values()),
            default_int64=-1,
        )  # fmt: skip

    def model(
        self, inputs: dict[str, int], outputs: dict[str, tuple[int, tuple[int | str, ...]]], properties: dict[str, str]
    ) -> bytes:
        """The whole file. ``inputs``: element types of the columns, each (n, 1). ``outputs``: element types and shapes.
        ``properties``: what stands in its metadata."""
        helper = self._onnx.helper
        graph = helper.make_graph(
            self.nodes,
            "audited_model",
            [helper.make_tensor_value_info(name, kind, ("rows", 1)) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
            initializer=self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, self.ml_opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="auditor")
        helper.set_model_props(model, properties)
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _name(self) -> str:
        self._n += 1
        name = f"t{self._n}"
        return self._name() if name in self._taken else name


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
        together = graph.add("Concat", *(_coded(name, table, graph) for name in table.features), axis=1)
        _bind_input(together, inputs[0], graph)
        return
    for name, own in zip(table.features, inputs, strict=True):
        _bind_input(_coded(name, table, graph), own, graph)


def _coded(name: str, table: ServedGraph, graph: Nodes) -> str:
    """A column as the model takes it: names as the numbers that it knows them by, -1 for none of them."""
    if name not in table.codes:
        return name
    return graph.add("Cast", _codes(name, dict(table.codes[name]), graph), to=DOUBLE)


def _bind_input(name: str, onnx_input: Any, graph: Nodes) -> None:
    kind = onnx_input.type.tensor_type.elem_type
    if kind == STRING:
        graph.add("Identity", name, output_name=onnx_input.name)
    else:
        graph.add("Cast", name, output_name=onnx_input.name, to=kind)


# What names the two outputs; a column of that name has it already.
LABEL, PROBABILITIES = "label", "probabilities"
# Of the file's metadata, beside the threshold: the class whose probability is held against it.
POSITIVE = "positive_class"


def output_names(columns: tuple[str, ...]) -> tuple[str, str]:
    """Output names of a model of these columns."""
    names = []
    for name in (LABEL, PROBABILITIES):
        while name in columns:
            name += "_"
        names.append(name)
    return names[0], names[1]


def onnx_bytes(table: ServedTable | ServedGraph) -> bytes:
    """The file. Raises UnsupportedError for a layer, a level or a graph that it has no place for, MissingExtraError
    without onnx."""
    label, probabilities = output_names(table.columns)
    to = Nodes([*table.columns, label, probabilities])
    if isinstance(table, ServedGraph):
        found = scores_of(table, to)
    else:
        found = _probabilities(table, write_network(table.network, _encoded(table, to), to), to)
    if table.rule is not None:
        found = _ruled(table, found, to)
    found = to.add("Identity", found, output_name=probabilities)
    _labelled(table, found, label, to)
    k = len(table.classes)
    said = {THRESHOLD: repr(table.threshold), "classes": json.dumps(table.classes)}
    if table.positive is not None:
        said[POSITIVE] = table.classes[table.positive]
    return to.model(
        {name: DOUBLE if name in table.numeric else STRING for name in table.columns},
        {label: (STRING, ("rows",)), probabilities: (DOUBLE, ("rows", k))},
        said,
    )


# ---- encoding ------------------------------------------------------------------------------------------------------


def _encoded(table: ServedTable, graph: Nodes) -> str:
    """(n, width) in single precision: all numbers first, each column's indicators after them, then in their order."""
    numbers = [c for c in table.preprocessing.columns if isinstance(c, NumericColumn)]
    parts, order = [], []
    spans = dict(zip(table.preprocessing.features, table.preprocessing.spans, strict=True))
    if numbers:
        raw = graph.add("Concat", *(c.name for c in numbers), axis=1)
        filled = graph.add("Where", graph.add("IsNaN", raw), graph.numbers([[c.impute for c in numbers]]), raw)
        centred = graph.add("Sub", filled, graph.numbers([[c.mean for c in numbers]]))
        scaled = graph.add("Div", centred, graph.numbers([[c.scale for c in numbers]]))
        parts.append(graph.add("Cast", scaled, to=FLOAT))
        order += [spans[c.name].start for c in numbers]
    for column in table.preprocessing.columns:
        if isinstance(column, NumericColumn):
            continue
        codes = _codes(column.name, table.levels(column.name), graph)
        k = len(column.levels)
        parts.append(graph.add("Cast", graph.add("Equal", codes, graph.places([range(k)])), to=FLOAT))
        order += range(spans[column.name].start, spans[column.name].stop)
    together = graph.add("Concat", *parts, axis=1)
    return graph.add("Gather", together, graph.places(np.argsort(order)), axis=1)


def _codes(column: str, levels: dict[str, int], graph: Nodes, *, missing: int | None = None) -> str:
    """(n, 1) places of a text column's values, -1 for none of the levels; ``missing``: the place of no value."""
    if "" in levels:
        raise UnsupportedError(
            f"The column {column!r} has an empty text among its levels, which an ONNX file takes for a missing value: "
            "use --to torch."
        )
    table = dict(levels)
    # "true", "TRUE" and "True" are one level; so many spellings can be told one by one.
    for level in ("True", "False"):
        if level in levels:
            spellings = product(*((c.lower(), c.upper()) for c in level))
            table |= {"".join(letters): levels[level] for letters in spellings}
    if missing is not None:
        table[""] = missing
    whole = any(label_name(f"{level}.0") == level for level in levels)
    return graph.looked_up(_without_zeros(column, graph) if whole else column, table)


def _without_zeros(texts: str, graph: Nodes) -> str:
    """ "3.0" and "3.00" as "3"; any other text as it is."""
    written_so = graph.add("RegexFullMatch", texts, pattern=r"-?(?:0|[1-9]\p{Nd}*)\.0+")
    # With a point after it every text has a part before its first one.
    pointed = graph.add("StringConcat", texts, graph.constant(["."], object))
    parts = graph.add("StringSplit", pointed, unused_outputs=1, delimiter=".", maxsplit=1)
    return graph.add("Where", written_so, graph.add("Gather", parts, graph.places(0), axis=-1), texts)


# ---- probabilities, rules, decisions -------------------------------------------------------------------------------


def _probabilities(table: ServedTable, raw: str, graph: Nodes) -> str:
    """(n, k) in double precision, from what the network returns."""
    found = graph.add("Cast", raw, to=DOUBLE)
    if table.outputs == "logits":
        if table.one_number:
            found = graph.add("Concat", graph.add("Mul", found, graph.numbers(0.0)), found, axis=1)
        return graph.add("Softmax", found, axis=1)
    one = graph.numbers(1.0)
    if table.one_number:
        found = graph.add("Concat", graph.add("Sub", one, found), found, axis=1)
    found = graph.add("Clip", found, graph.numbers(0.0), one)
    sums = graph.add("ReduceSum", found, graph.places([1]), keepdims=1)
    off = graph.add("Greater", graph.add("Abs", graph.add("Sub", sums, one)), graph.numbers(1e-6))
    return graph.add("Where", off, graph.add("Div", found, sums), found)


def _ruled(table: Served, probabilities: str, graph: Nodes) -> str:
    """(n, 2) chances or probabilities after each group's own rule."""
    rule = table.rule
    assert rule is not None
    tables = RuleTables.from_rule(rule)
    score = graph.add("Gather", probabilities, graph.places([rule.positive]), axis=1)
    place = _group(table, graph)
    edges = graph.add("Gather", graph.numbers(tables.edges), place)
    passed = graph.add("GreaterOrEqual" if tables.reached else "Greater", score, edges)
    at = graph.add("ReduceSum", graph.add("Cast", passed, to=INT64), graph.places([1]), keepdims=1)
    slope, base, value = (
        graph.add("GatherElements", graph.add("Gather", graph.numbers(part), place), at, axis=1)
        for part in (tables.slope, tables.base, tables.value)
    )
    answer = graph.add("Add", graph.add("Mul", slope, graph.add("Sub", score, base)), value)
    if tables.scaled.any():
        steep = graph.add("Mul", _gather_by_group(tables.odds_slope, place, graph), _log_odds(score, graph))
        z = graph.add("Add", steep, _gather_by_group(tables.odds_intercept, place, graph))
        half, one = graph.numbers(0.5), graph.numbers(1.0)
        scaled = graph.add("Mul", half, graph.add("Add", one, graph.add("Tanh", graph.add("Mul", half, z))))
        is_scaled = graph.add("Gather", graph.constant(tables.scaled[:, None], np.bool_), place)
        answer = graph.add("Where", is_scaled, scaled, answer)
    both = [graph.add("Sub", graph.numbers(1.0), answer), answer]
    return graph.add("Concat", *(both if rule.positive == 1 else both[::-1]), axis=1)


def _gather_by_group(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], place: str, graph: Nodes) -> str:
    """(n, 1) each row's own of a number for every group."""
    return graph.add("Gather", graph.numbers(values[:, None]), place)


def _log_odds(score: str, graph: Nodes) -> str:
    inside = graph.add("Clip", score, graph.numbers(1e-12), graph.numbers(1.0 - 1e-12))
    return graph.add("Sub", graph.add("Log", inside), graph.add("Log", graph.add("Sub", graph.numbers(1.0), inside)))


def _group(table: Served, graph: Nodes) -> str:
    """(n,) place of each row's group, the last where no rule names it."""
    rule = table.rule
    assert rule is not None
    groups = GroupCodes.from_rule(rule)
    numeric = set(table.numeric)
    same = ""
    for c, column in enumerate(rule.columns):
        missing = groups.missing(c)
        if column in numeric:
            own = graph.add("Equal", column, graph.numbers([groups.numbers(c)]))
            if missing is not None:
                is_it = graph.constant([[i == missing for i in range(len(groups.names[c]))]], np.bool_)
                own = graph.add("Or", own, graph.add("And", graph.add("IsNaN", column), is_it))
            of_group = graph.add("Gather", own, graph.places(groups.codes[:, c]), axis=1)
        else:
            named = {name: i for i, name in enumerate(groups.names[c])}
            codes = _codes(column, named, graph, missing=missing)
            of_group = graph.add("Equal", codes, graph.places([groups.codes[:, c]]))
        same = graph.add("And", same, of_group) if same else of_group
    # Behind all groups stands one half in every row, which is the largest where no group is there.
    there = graph.add("Cast", same, to=FLOAT)
    nothing = graph.add(
        "Mul", graph.add("ReduceMax", there, graph.places([1]), keepdims=1), graph.constant(0.0, np.float32)
    )
    half = graph.add("Add", nothing, graph.constant(0.5, np.float32))
    return graph.add("ArgMax", graph.add("Concat", there, half, axis=1), axis=1, keepdims=0)


def _labelled(table: Served, probabilities: str, label: str, graph: Nodes) -> None:
    """The output of labels."""
    rule = table.rule
    if rule is not None and rule.decides:
        chosen = graph.add(
            "Greater", graph.add("Gather", probabilities, graph.places([rule.positive]), axis=1), graph.numbers(0.5)
        )
        index = _select_class(chosen, rule.positive, graph)
    elif len(table.classes) == 2 and table.positive is not None:
        own = graph.add("Gather", probabilities, graph.places([table.positive]), axis=1)
        index = _select_class(graph.add("GreaterOrEqual", own, graph.numbers(table.threshold)), table.positive, graph)
    else:
        index = graph.add("ArgMax", probabilities, axis=1, keepdims=0)
    graph.add(
        "LabelEncoder", index, output_name=label, domain=ML, keys_int64s=list(range(len(table.classes))),
        values_strings=list(table.classes),
    )  # fmt: skip


def _select_class(yes: str, positive: int, graph: Nodes) -> str:
    """(n,) the positive class where (n, 1) says so, else the other."""
    index = graph.add("Where", yes, graph.places([[positive]]), graph.places([[1 - positive]]))
    return graph.add("Squeeze", index, graph.places([1]))
