"""A table classifier as one ONNX file: one input per column; the label and the probabilities as outputs.

Numbers are ``double``, NaN where missing; all else is text, "" where missing. Every spelling of a level that
:func:`auditor.data.preprocessing.label_name` takes for the same is the same here.
"""

from __future__ import annotations

import json
from itertools import product

import numpy as np

from auditor.core.errors import UnsupportedError
from auditor.data.preprocessing import NumericColumn, label_name
from auditor.loading.exporting.onnx_network import write_network
from auditor.loading.exporting.onnx_nodes import DOUBLE, FLOAT, INT64, ML, STRING, Nodes
from auditor.loading.exporting.onnx_subgraph import scores_of
from auditor.loading.exporting.served_table import GroupCodes, RuleTables, Served, ServedGraph, ServedTable
from auditor.models.files.onnx_graphs import THRESHOLD

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
