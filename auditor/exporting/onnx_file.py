"""A classifier of tables as one ONNX file: an input a column, and as outputs the label and the probabilities.

Numbers are ``double``, NaN where missing; all else is text, "" where missing. Every spelling of a level that
:func:`auditor.data.preprocessing.label_name` takes for the same is the same here.
"""

from __future__ import annotations

import json
from itertools import product

import numpy as np

from auditor.artifact.onnx_graphs import THRESHOLD
from auditor.data.preprocessing import NumericColumn, label_name
from auditor.errors import UnsupportedError
from auditor.exporting.onnx_below import scores_of
from auditor.exporting.onnx_network import written
from auditor.exporting.onnx_nodes import DOUBLE, FLOAT, INT64, ML, STRING, Nodes
from auditor.exporting.served_table import GroupCodes, RuleTables, Served, ServedGraph, ServedTable

# What names the two outputs; a column of that name has it already.
LABEL, PROBABILITIES = "label", "probabilities"
# Of the file's metadata, beside the threshold: the class whose probability is held against it.
POSITIVE = "positive_class"


def output_names(columns: tuple[str, ...]) -> tuple[str, str]:
    """What the outputs of a model of these columns are called."""
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
        found = _probabilities(table, written(table.network, _encoded(table, to), to), to)
    if table.rule is not None:
        found = _ruled(table, found, to)
    found = to.add("Identity", found, into=probabilities)
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


def _encoded(table: ServedTable, to: Nodes) -> str:
    """(n, width) in single precision: all numbers first, each column's indicators after them, then in their order."""
    numbers = [c for c in table.preprocessing.columns if isinstance(c, NumericColumn)]
    parts, order = [], []
    spans = dict(zip(table.preprocessing.features, table.preprocessing.spans, strict=True))
    if numbers:
        raw = to.add("Concat", *(c.name for c in numbers), axis=1)
        filled = to.add("Where", to.add("IsNaN", raw), to.numbers([[c.impute for c in numbers]]), raw)
        centred = to.add("Sub", filled, to.numbers([[c.mean for c in numbers]]))
        scaled = to.add("Div", centred, to.numbers([[c.scale for c in numbers]]))
        parts.append(to.add("Cast", scaled, to=FLOAT))
        order += [spans[c.name].start for c in numbers]
    for column in table.preprocessing.columns:
        if isinstance(column, NumericColumn):
            continue
        codes = _codes(column.name, table.levels(column.name), to)
        k = len(column.levels)
        parts.append(to.add("Cast", to.add("Equal", codes, to.places([range(k)])), to=FLOAT))
        order += range(spans[column.name].start, spans[column.name].stop)
    together = to.add("Concat", *parts, axis=1)
    return to.add("Gather", together, to.places(np.argsort(order)), axis=1)


def _codes(column: str, levels: dict[str, int], to: Nodes, *, missing: int | None = None) -> str:
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
    return to.looked_up(_without_zeros(column, to) if whole else column, table)


def _without_zeros(texts: str, to: Nodes) -> str:
    """ "3.0" and "3.00" as "3"; any other text as it is."""
    written_so = to.add("RegexFullMatch", texts, pattern=r"-?(?:0|[1-9]\p{Nd}*)\.0+")
    # With a point after it every text has a part before its first one.
    pointed = to.add("StringConcat", texts, to.constant(["."], object))
    parts = to.add("StringSplit", pointed, unused=1, delimiter=".", maxsplit=1)
    return to.add("Where", written_so, to.add("Gather", parts, to.places(0), axis=-1), texts)


# ---- probabilities, rules, decisions -------------------------------------------------------------------------------


def _probabilities(table: ServedTable, raw: str, to: Nodes) -> str:
    """(n, k) in double precision, from what the network returns."""
    found = to.add("Cast", raw, to=DOUBLE)
    if table.outputs == "logits":
        if table.one_number:
            found = to.add("Concat", to.add("Mul", found, to.numbers(0.0)), found, axis=1)
        return to.add("Softmax", found, axis=1)
    one = to.numbers(1.0)
    if table.one_number:
        found = to.add("Concat", to.add("Sub", one, found), found, axis=1)
    found = to.add("Clip", found, to.numbers(0.0), one)
    sums = to.add("ReduceSum", found, to.places([1]), keepdims=1)
    off = to.add("Greater", to.add("Abs", to.add("Sub", sums, one)), to.numbers(1e-6))
    return to.add("Where", off, to.add("Div", found, sums), found)


def _ruled(table: Served, found: str, to: Nodes) -> str:
    """(n, 2) chances or probabilities after each group's own rule."""
    rule = table.rule
    assert rule is not None
    tables = RuleTables.of(rule)
    score = to.add("Gather", found, to.places([rule.positive]), axis=1)
    place = _group(table, to)
    edges = to.add("Gather", to.numbers(tables.edges), place)
    passed = to.add("GreaterOrEqual" if tables.reached else "Greater", score, edges)
    at = to.add("ReduceSum", to.add("Cast", passed, to=INT64), to.places([1]), keepdims=1)
    slope, base, value = (
        to.add("GatherElements", to.add("Gather", to.numbers(part), place), at, axis=1)
        for part in (tables.slope, tables.base, tables.value)
    )
    answer = to.add("Add", to.add("Mul", slope, to.add("Sub", score, base)), value)
    if tables.scaled.any():
        steep = to.add("Mul", _of(tables.odds_slope, place, to), _log_odds(score, to))
        z = to.add("Add", steep, _of(tables.odds_intercept, place, to))
        half, one = to.numbers(0.5), to.numbers(1.0)
        scaled = to.add("Mul", half, to.add("Add", one, to.add("Tanh", to.add("Mul", half, z))))
        is_scaled = to.add("Gather", to.constant(tables.scaled[:, None], np.bool_), place)
        answer = to.add("Where", is_scaled, scaled, answer)
    both = [to.add("Sub", to.numbers(1.0), answer), answer]
    return to.add("Concat", *(both if rule.positive == 1 else both[::-1]), axis=1)


def _of(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], place: str, to: Nodes) -> str:
    """(n, 1) each row's own of a number for every group."""
    return to.add("Gather", to.numbers(values[:, None]), place)


def _log_odds(score: str, to: Nodes) -> str:
    inside = to.add("Clip", score, to.numbers(1e-12), to.numbers(1.0 - 1e-12))
    return to.add("Sub", to.add("Log", inside), to.add("Log", to.add("Sub", to.numbers(1.0), inside)))


def _group(table: Served, to: Nodes) -> str:
    """(n,) place of each row's group, the last where no rule names it."""
    rule = table.rule
    assert rule is not None
    groups = GroupCodes.of(rule)
    numeric = set(table.numeric)
    same = ""
    for c, column in enumerate(rule.columns):
        missing = groups.missing(c)
        if column in numeric:
            own = to.add("Equal", column, to.numbers([groups.numbers(c)]))
            if missing is not None:
                is_it = to.constant([[i == missing for i in range(len(groups.names[c]))]], np.bool_)
                own = to.add("Or", own, to.add("And", to.add("IsNaN", column), is_it))
            of_group = to.add("Gather", own, to.places(groups.codes[:, c]), axis=1)
        else:
            named = {name: i for i, name in enumerate(groups.names[c])}
            codes = _codes(column, named, to, missing=missing)
            of_group = to.add("Equal", codes, to.places([groups.codes[:, c]]))
        same = to.add("And", same, of_group) if same else of_group
    # Behind all groups stands one half in every row, which is the largest where no group is there.
    there = to.add("Cast", same, to=FLOAT)
    nothing = to.add("Mul", to.add("ReduceMax", there, to.places([1]), keepdims=1), to.constant(0.0, np.float32))
    half = to.add("Add", nothing, to.constant(0.5, np.float32))
    return to.add("ArgMax", to.add("Concat", there, half, axis=1), axis=1, keepdims=0)


def _labelled(table: Served, found: str, label: str, to: Nodes) -> None:
    """The output of labels."""
    rule = table.rule
    if rule is not None and rule.decides:
        chosen = to.add("Greater", to.add("Gather", found, to.places([rule.positive]), axis=1), to.numbers(0.5))
        index = _chosen(chosen, rule.positive, to)
    elif len(table.classes) == 2 and table.positive is not None:
        own = to.add("Gather", found, to.places([table.positive]), axis=1)
        index = _chosen(to.add("GreaterOrEqual", own, to.numbers(table.threshold)), table.positive, to)
    else:
        index = to.add("ArgMax", found, axis=1, keepdims=0)
    to.add(
        "LabelEncoder", index, into=label, domain=ML, keys_int64s=list(range(len(table.classes))),
        values_strings=list(table.classes),
    )  # fmt: skip


def _chosen(yes: str, positive: int, to: Nodes) -> str:
    """(n,) the positive class where (n, 1) says so, else the other."""
    index = to.add("Where", yes, to.places([[positive]]), to.places([[1 - positive]]))
    return to.add("Squeeze", index, to.places([1]))
