"""Data audited without a model: recorded answers of a model, and recounts of truth, groups and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from auditor.core.errors import AuditorError, UsageError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audit_data import AuditData, groups_of, numeric_target
from auditor.data.bins import BinRule, bin_sensitive, parse_bin_rule
from auditor.data.preprocessing import as_text, label_name
from auditor.data.recounted_truth import Cell, GroupsDigest, NumbersDigest, Reading, Recount
from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.folders import files_in, list_folder
from auditor.loading.rows.load_rows import MAX_GROUPS, join, load_data
from auditor.loading.rows.row_warnings import requested_design
from auditor.loading.rows.score_columns import score_columns
from auditor.loading.rows.table_files import TableFile, open_table
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.recorded_model import RecordedClassifier, RecordedRegressor, RecordedWriter

PROVENANCE = Provenance(
    format="recorded predictions",
    loaded_by="pyarrow",
    notes=(
        "No model was asked: its answers were read from the data file, and that they are this model's is the word of "
        "whoever wrote it.",
    ),
)
# More kinds of answers than that are numbers, or text.
_MOST_CLASSES = 100
_IMPLIED = (("0", "1"), ("False", "True"))


def load_recorded(model: ModelSpec, spec: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The model that the answers in the data files are of, and the rows with them.

    Raises UsageError for a column that is not there or a flag that is missing, DataError for answers that are none.
    """
    asked = spec.recorded or RecordedSpec()
    file = open_table(spec.path, "predictions file")
    scores = score_columns(asked, file)
    answers = (*scores.values(), asked.predicted, asked.loss, asked.generated)
    own = [name for name in (*answers, spec.target) if name is not None]
    file.require([*own, *(spec.sensitive if spec.sensitive_file is None else ())])
    features, notes = _features(file, spec, own)
    audited: AuditedModel
    if asked.generated is not None:
        audited = RecordedWriter(provenance=PROVENANCE)
    elif model.task == "regression":
        audited = RecordedRegressor(features=features, provenance=PROVENANCE)
    else:
        audited = RecordedClassifier(
            classes=_classes(model, spec, asked, scores, file),
            features=features,
            threshold=0.5 if model.threshold is None else model.threshold,
            provenance=PROVENANCE,
        )
    data = load_data(replace(spec, features=None if spec.text else tuple(features)), audited)
    if audited.kind == "classifier" and not audited.classes and data.y_true is None:
        # Losses alone: whose they are matters to no one, but a row without a label takes no part.
        data = replace(data, y_true=np.zeros(len(data), np.int64))
    return audited, replace(data, notes=(*data.notes, *notes))


def _features(file: TableFile, spec: DataSpec, answer_columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns beside the answers: --features, else all that are nothing else and do not name rows."""
    if spec.text is not None:
        return [], []
    if spec.features is not None:
        return list(spec.features), []
    taken = {*answer_columns, *spec.sensitive, spec.join_on, spec.cluster, spec.weight}
    others = [name for name in file.columns if name not in taken]
    ids = id_like(file.read(others, {}).to_pandas()) if others else []
    notes = [f"Columns that name rows were left out of the features: {', '.join(ids)}."] if ids else []
    return [name for name in others if name not in ids], notes


def _classes(
    model: ModelSpec, spec: DataSpec, answer_spec: RecordedSpec, scores: dict[str, str], file: TableFile
) -> tuple[str, ...]:
    """The classes in the order of the scores; of two the favourable one stands last unless --classes says otherwise."""
    if model.classes is not None:
        named = tuple(label_name(c) for c in model.classes)
        if "" not in scores and scores and set(named) != set(scores):
            raise UsageError(f"--classes and --score name different classes: {', '.join(scores)} have a score.")
        return named
    if scores and "" not in scores:
        return tuple(scores)
    columns = [name for name in (spec.target, answer_spec.predicted) if name is not None]
    if not columns and not scores:
        return ()
    seen = _labels(file, columns)
    positive = None if spec.positive is None else label_name(spec.positive)
    for implied in _IMPLIED:
        if seen <= set(implied) and positive in (None, *implied):
            return implied
    if positive is not None and len(seen | {positive}) == 2:
        return (*(seen - {positive}), positive)
    if len(seen) < 2:
        raise UsageError(f"{file.path.name} holds fewer than two labels: name the classes with --classes a,b.")
    if len(seen) > 2 and scores:
        raise UsageError(
            f"One score a row decides between 2 classes, and {file.path.name} has {len(seen)} "
            f"({', '.join(sorted(seen)[:6])}): give --score class=column for each of them."
        )
    return tuple(sorted(seen, key=_natural))


def _labels(file: TableFile, columns: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for name in columns:
        values = file.read([name], {name: pa.string()}).column(name).unique().drop_null().to_pylist()
        found |= {label_name(value) for value in values}
        if len(found) > _MOST_CLASSES:
            raise UsageError(
                f"Column {name!r} of {file.path.name} has more than {_MOST_CLASSES} different values: if they are "
                "numbers that are predicted, add --task regression."
            )
    return found


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


# More different labels than these are no classes.
_MOST_LABELS = 10_000
_MOST_READINGS = 64


def recount(spec: DataSpec) -> Recount:
    """The contents of the audited files; ``why_not``: the reason for unreadable parts."""
    try:
        return _of_folder(spec, Path(spec.path)) if Path(spec.path).is_dir() else _of_table(spec)
    except AuditorError as error:  # whoever loads the rows says it too
        return Recount(why_not=str(error)[:2_000])


_Read = Callable[["pd.Series[Any]"], "pd.Series[Any]"]


@dataclass(eq=False)
class _Way:
    """One way to read one column, batch by batch: its digest, and its names, each with a number of its own.

    ``source``: whether it reads the column of the rows as text, as the file has it, or with what was joined to them.
    """

    source: Literal["text", "native", "joined"]
    read: _Read
    most: int
    digest: GroupsDigest = field(default_factory=GroupsDigest)
    numbers: dict[str, int] = field(default_factory=dict)
    codes: IntArray | None = None
    why_not: str = ""

    def add(self, values: pd.Series[Any]) -> None:
        """The next rows; nothing more once they could not be read so."""
        self.codes = None
        if self.why_not:
            return
        try:
            named = self.read(values).astype("category")
            names = [str(level) for level in named.cat.categories]
            own = [self.numbers.setdefault(name, len(self.numbers)) for name in names]
            if len(self.numbers) > self.most:
                raise ValueError(f"it has more than {self.most:,} different values")
        except (AuditorError, ValueError, TypeError, ArithmeticError, pa.ArrowException) as error:
            self.why_not = str(error) or type(error).__name__
            return
        codes = named.cat.codes.to_numpy().astype(np.int64)
        self.digest.add(codes, names)
        self.codes = np.asarray([*own, -1], np.int64)[codes]


# The ways to read the labels, whose name is None, and each sensitive feature.
_Ways = dict[str | None, list[_Way]]
_Cells = dict[tuple[int, ...], Counter[tuple[int, ...]]]


def _of_table(spec: DataSpec) -> Recount:
    file = open_table(spec.path)
    joined = spec.sensitive_file is not None
    sensitive = list(dict.fromkeys(spec.sensitive))
    in_file = [name for name in sensitive if not joined or name in file.columns]
    own = [name for name in (spec.target, spec.join_on if joined else None, spec.cluster, spec.weight) if name]
    columns = list(dict.fromkeys([*own, *in_file]))
    n_train = None if spec.train is None else _n_rows(spec.train, "training file")
    if not columns:
        n = _n_rows(spec.path, "data file")
        return Recount(n=n, n_train=n_train, readings=(Reading(cells=(((), None, n),)),))
    types = {name: pa.string() for name in columns if name != spec.weight}
    # Rows that are not held are of columns whose types are known: text or numbers.
    native = None if spec.stream else file.read(columns, {}).to_pandas()
    numbers = None if spec.target is None or native is None else _numbers(native[spec.target], spec.target)
    classes = numbers is None or len(np.unique(numbers)) <= _MOST_LABELS
    target = spec.target if classes else None
    ways = _ways(spec, target, {name: name in in_file for name in sensitive})
    cells: _Cells = {}
    n, design = 0, None
    for frame in _frames(file, columns, types, whole=not spec.stream):
        n += len(frame)
        design = requested_design(frame, spec)
        sources = {"text": frame, "native": native, "joined": join(frame, spec)[0] if joined else None}
        for name, own_ways in ways.items():
            for way in own_ways:
                if (source := sources[way.source]) is not None:
                    way.add(source[spec.target if name is None else name])
        if not spec.stream:
            ways = {name: _different(own_ways) for name, own_ways in ways.items()}
        _add(cells, ways, len(frame))
    return Recount(
        n=n,
        n_train=n_train,
        readings=_readings(cells, ways),
        numbers=None if numbers is None else _digest(numbers),
        n_without=0 if numbers is None else int(np.isnan(numbers).sum()),
        design={} if design is None else design.facts(),
        why_not="; ".join(f"{name or target}: {way.why_not}" for name, (way, *_) in ways.items() if way.why_not)[:999],
    )


def _frames(
    file: TableFile, columns: Sequence[str], types: Mapping[str, pa.DataType], *, whole: bool
) -> Iterator[pd.DataFrame]:
    if whole:
        yield file.read(columns, types).to_pandas()
        return
    for batch in file.batches(columns, types):
        if batch.num_rows:
            yield batch.to_pandas()


def _ways(spec: DataSpec, target: str | None, in_file: Mapping[str, bool]) -> _Ways:
    """As text, as numbers and, where rows are held, as the file has them: a model may take a column as any of these."""
    rules = {rule.column: rule for rule in map(parse_bin_rule, spec.bins)}
    found: _Ways = {} if target is None else {None: _three(_recounted_labels, _MOST_LABELS)}
    for name, here in in_file.items():
        read = _groups(rules.get(name))
        # One more group is that of the rows without one.
        found[name] = _three(read, MAX_GROUPS + 1) if here else [_Way("joined", read, MAX_GROUPS + 1)]
    if not spec.stream:
        return found
    held: _Ways = {name: [way for way in own if way.source != "native"] for name, own in found.items()}
    return held if 2 ** len(held) <= _MOST_READINGS else {name: own[:1] for name, own in held.items()}


def _three(read: _Read, most: int) -> list[_Way]:
    return [_Way("text", read, most), _Way("text", _as_numbers(read), most), _Way("native", read, most)]


def _different(ways: list[_Way]) -> list[_Way]:
    """Those that read the rows, each unlike the others; the first where none does."""
    found = {way.digest.hexdigest(): way for way in reversed(ways) if not way.why_not}
    return list(reversed(found.values())) or ways[:1]


def _recounted_labels(values: pd.Series[Any]) -> pd.Series[Any]:
    text = as_text(values)
    return text.map({level: label_name(level) for level in text.dropna().unique()})


def _groups(rule: BinRule | None) -> _Read:
    def read(values: pd.Series[Any]) -> pd.Series[Any]:
        return groups_of(values) if rule is None or rule.is_unbinned else bin_sensitive(values, rule)

    return read


def _as_numbers(read: _Read) -> _Read:
    def as_numbers(values: pd.Series[Any]) -> pd.Series[Any]:
        text = pc.utf8_trim_whitespace(pa.array(values, pa.string(), from_pandas=True))
        return read(pc.cast(text, pa.float64()).to_pandas())

    return as_numbers


def _add(cells: _Cells, ways: _Ways, n: int) -> None:
    """Counts the rows of a batch by every combination of ways to read their columns."""
    for combination in product(*(range(len(own)) for own in ways.values())):
        codes = [own[i].codes for i, own in zip(combination, ways.values(), strict=True)]
        if any(own is None for own in codes):
            cells.pop(combination, None)
        elif len(cells) < _MOST_READINGS or combination in cells:
            found: Any = pd.DataFrame(dict(enumerate(codes))).value_counts(sort=False).to_dict() if codes else {(): n}
            cells.setdefault(combination, Counter()).update(found)


def _readings(cells: _Cells, ways: _Ways) -> tuple[Reading, ...]:
    found: dict[tuple[str, ...], Reading] = {}
    for combination, counted in cells.items():
        own = dict(zip(ways, (each[i] for i, each in zip(combination, ways.values(), strict=True)), strict=True))
        groups = {name: way.digest.hexdigest() for name, way in own.items() if name is not None}
        labels = own[None].digest.hexdigest() if None in own else None
        names = [[*way.numbers, None] for way in own.values()]
        rows: list[Cell] = []
        for cell, n in counted.items():
            said = [each[i] for each, i in zip(names, cell, strict=True)]
            label = said.pop(0) if None in ways else None
            rows.append((tuple(map(str, said)), label, n))
        found.setdefault((str(labels), *groups.values()), Reading(labels=labels, groups=groups, cells=tuple(rows)))
    return tuple(found.values())


def _numbers(values: pd.Series[Any], target: str) -> FloatArray | None:
    """(n,) the true numbers; None where the column holds something else."""
    try:
        return numeric_target(values, target)
    except AuditorError:
        return None


def _digest(numbers: FloatArray) -> str:
    digest = NumbersDigest()
    digest.add(numbers)
    return digest.hexdigest()


def _n_rows(path: str, what: str) -> int:
    if Path(path).is_dir():
        return len(files_in(Path(path)))
    file = open_table(path, what)
    first = file.columns[:1]
    # Of text nothing is inferred from its first lines, which others may contradict.
    types = dict.fromkeys(first, pa.string()) if file.kind in ("csv", "tsv") else {}
    return sum(batch.num_rows for batch in file.batches(first, types))


def _of_folder(spec: DataSpec, folder: Path) -> Recount:
    n_train = None if spec.train is None else _n_rows(spec.train, "training file")
    if spec.recorded is not None:
        return Recount(n=_n_rows(spec.path, "data file"), n_train=n_train, folder=True)
    own = sorted({label_name(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name[:1] != "."})
    listing = list_folder(folder, own)
    sensitive = list(dict.fromkeys(spec.sensitive))
    names = [label_name(name.partition("/")[0]) for name in listing.names]
    columns: list[list[str]] = [names]
    if sensitive:
        frame = join(pd.DataFrame({spec.join_on or "file": listing.names}), spec)[0]
        rules = {rule.column: rule for rule in map(parse_bin_rule, spec.bins)}
        columns += [_groups(rules.get(name))(frame[name]).astype(str).tolist() for name in sensitive]
    cells = Counter(zip(*columns, strict=True))
    reading = Reading(cells=tuple((tuple(map(str, cell[1:])), cell[0], n) for cell, n in cells.items()))
    return Recount(n=len(names), n_train=n_train, folder=True, readings=(reading,))
