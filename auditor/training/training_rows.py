"""Training rows: labelled rows, feature columns, splits, encoding and storage."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from auditor.core.errors import DataError, UsageError
from auditor.core.files import printable_name, write_beside
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.audit_data import encode_labels, favourable
from auditor.data.preprocessing import CategoricalColumn, TabularPreprocessing, as_text, fit_tabular, label_name
from auditor.loading.job_specs import TrainSpec
from auditor.loading.rows.column_roles import (
    called_a_weight,
    called_an_id,
    date_like,
    id_like,
    repeating_ids,
    weight_like,
)
from auditor.loading.rows.table_files import TableFile, open_table
from auditor.models.audited_model import AuditedModel
from auditor.statistics.intervals import clopper_pearson


def weights_of(values: pd.Series[Any], name: str) -> FloatArray:
    """(n,) the weights in a column; DataError if one is missing, negative or not a number, or all are 0."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0.0)))
    if wrong.size:
        raise DataError(
            f"The weight {name!r} is {str(values.iloc[wrong[0]])[:40]!r} in a row: each must be a number of at least 0."
        )
    if not numbers.any():
        raise DataError(f"The weight {name!r} is 0 in every row.")
    return numbers


@dataclass(frozen=True)
class WeightedShare:
    """``sum(w c) / sum(w)`` of rows that are right, c = 1, or wrong, of weights w.

    ``n``: rows. ``effective_n``: rows of equal weight that would tell as much, ``p (1 - p) / v`` with the linearized
    variance ``v = sum((w (c - p))^2) / sum(w)^2``, and ``sum(w)^2 / sum(w^2)`` where all rows are right or all are
    wrong; at most n. Source: Korn and Graubard, Survey Methodology 24 (1998); Kish, Survey Sampling, 1965.
    """

    value: float
    n: int
    effective_n: float

    @classmethod
    def from_rows(cls, right: BoolArray, weights: FloatArray) -> WeightedShare:
        """right (n,), weights (n,); their sum must be positive."""
        w = weights / weights.sum()
        p = float(w @ right)
        v = float(np.square(w * (right - p)).sum())
        effective = p * (1.0 - p) / v if v > 0.0 else 1.0 / float(np.square(w).sum())
        return cls(value=p, n=len(w), effective_n=min(effective, float(len(w))))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Clopper and Pearson's, of ``effective_n`` rows."""
        alpha = (1.0 - confidence) / 2.0
        low, high = clopper_pearson(self.value * self.effective_n, n=self.effective_n, alpha=alpha)
        return float(low), float(high)


def why_not_trained_alike(model: AuditedModel) -> str:
    """The reason why no similar model can be trained, if it used weights that the audit lacks; else ""."""
    recipe = getattr(model, "recipe", None)
    if recipe is None or recipe.weight is None:
        return ""
    return (
        f"the model was trained with the weights of the column {printable_name(recipe.weight)!r}, which an audit's "
        f"rows do not "
        "bring, and one trained without them is not trained alike"
    )


FEWEST_ROWS = 20
MOST_LEVELS = 5_000


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Rows of a table that have a label: ``frame`` (n, columns), ``y`` (n,), ``rows`` (n,) positions in the file.

    ``weights`` (n,) and ``groups`` (n,), codes, where columns of them are named. ``left_out``: columns that name rows,
    which are kept nowhere. ``recognised``: a sentence on each column that was not learned from by its looks.
    """

    frame: pd.DataFrame
    y: IntArray
    rows: IntArray
    classes: tuple[str, ...]
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    recognised: tuple[str, ...]
    weights: FloatArray | None
    groups: IntArray | None


def read_rows(spec: TrainSpec) -> LabelledRows:
    file = open_table(spec.data)
    named = [name for name in (spec.weight, spec.group_column) if name is not None]
    file.require([spec.target, *spec.drop, *(spec.features or ()), *spec.keep, *named])
    candidates = _candidates(file, spec)
    frame = _typed_frame(file, spec.target)
    if len(frame) < FEWEST_ROWS:
        raise DataError(f"{file.path.name} has {len(frame)} rows; training and testing need at least {FEWEST_ROWS}.")
    notes = []
    found: dict[str, _Looks] = {}
    if spec.features is None:
        # Which columns are left out by what they hold can follow from a single row, which no noise hides.
        found = (_recognised if spec.dp_epsilon is None else _excluded_by_name)(frame[candidates], spec.keep)
    # Dates, weights and names of persons are kept in the files of rows: a later step may ask for them.
    left_out = [name for name, what in found.items() if what is _Looks.ROW]
    features = [name for name in candidates if name not in found]
    if not features:
        raise UsageError(f"No column of {file.path.name} is left to learn from.")
    frame = frame.drop(columns=left_out)
    labelled = frame[spec.target].notna().to_numpy()
    if not labelled.all():
        notes.append(f"{int((~labelled).sum()):,} rows without a label were left out.")
    frame = frame[labelled]
    if len(frame) < FEWEST_ROWS:
        raise DataError(
            f"Column {spec.target!r} has a label in {len(frame)} rows; "
            f"training and testing need at least {FEWEST_ROWS}."
        )
    classes = _classes(frame[spec.target], spec.target)
    favourable(spec.positive, classes)
    weights = None if spec.weight is None else weights_of(frame[spec.weight], spec.weight)
    groups = None
    if spec.group_column is not None:
        groups, said = _groups(frame[spec.group_column], spec.group_column)
        notes += said
    return LabelledRows(
        frame=frame.reset_index(drop=True),
        y=encode_labels(frame[spec.target], classes, spec.target),
        rows=np.flatnonzero(labelled).astype(np.int64),
        classes=classes,
        features=tuple(features),
        left_out=tuple(left_out),
        notes=tuple(notes),
        recognised=tuple(_sentence(name, what) for name, what in found.items()),
        weights=weights,
        groups=groups,
    )


class _Looks(Enum):
    """What a column that is not learned from looks like, and what else could be meant by it."""

    ROW = "names rows"
    SOMEBODY = "names whom rows are about: --group-column {0} splits by it, and"
    DATE = "is a date or a time"
    WEIGHT = "is the weight of a survey's rows by its name: --weight {0} trains with it, and"


def _recognised(frame: pd.DataFrame, keep: tuple[str, ...]) -> dict[str, _Looks]:
    """Columns that are not to be learned from, in the order of the file."""
    looks: dict[str, _Looks] = {}
    for what, names in (
        (_Looks.WEIGHT, weight_like(frame)),
        (_Looks.DATE, date_like(frame)),
        (_Looks.ROW, id_like(frame)),
        (_Looks.SOMEBODY, repeating_ids(frame)),
    ):
        for name in names:
            looks.setdefault(name, what)
    return {name: looks[name] for name in map(str, frame.columns) if name in looks and name not in keep}


def _excluded_by_name(frame: pd.DataFrame, keep: tuple[str, ...]) -> dict[str, _Looks]:
    """Those that are not to be learned from by their names alone, which are public where values are not."""
    by_name = (
        (str(name), _Looks.WEIGHT if called_a_weight(str(name)) else _Looks.ROW)
        for name in frame.columns
        if called_a_weight(str(name)) or called_an_id(str(name))
    )
    return {name: what for name, what in by_name if name not in keep}


def _sentence(name: str, kind: _Looks) -> str:
    quoted = shlex.quote(name)
    how = kind.value.format(quoted)
    return f"{name!r} is left out, since it {how}{'' if how.endswith('and') else ':'} --keep {quoted} learns from it."


def _groups(values: pd.Series[Any], name: str) -> tuple[IntArray, list[str]]:
    """(n,) codes of a column's values; a row without one is a group of its own, and a note says how many are."""
    codes, levels = pd.factorize(as_text(values))
    alone = codes < 0
    codes = codes.astype(np.int64)
    codes[alone] = len(levels) + np.arange(int(alone.sum()))
    if len(np.unique(codes)) < 2:
        raise DataError(f"Column {name!r} holds one value only, so that there is nothing to split by.")
    said = f"{int(alone.sum()):,} rows without {name!r} were split one by one."
    return codes, [said] if alone.any() else []


def _candidates(file: TableFile, spec: TrainSpec) -> list[str]:
    if spec.target in (spec.features or ()):
        raise UsageError(f"--features names the target {spec.target!r}: a model must not see what it is to predict.")
    if spec.target in spec.drop:
        raise UsageError(f"--drop names the target {spec.target!r}.")
    if spec.features is not None and spec.keep:
        raise UsageError("--features names all columns to learn from: leave --keep out.")
    for flag, name in (("--weight", spec.weight), ("--group-column", spec.group_column)):
        if name is not None and name in (spec.target, *(spec.features or ()), *spec.keep, *spec.drop):
            raise UsageError(f"{flag} {name!r} is for no other use: it is neither target nor feature, nor dropped.")
    if spec.weight is not None and spec.weight == spec.group_column:
        raise UsageError("--weight and --group-column name the same column.")
    for flag, named in (("--features", spec.features or ()), ("--keep", spec.keep)):
        both = [name for name in named if name in spec.drop]
        if both:
            raise UsageError(f"{both[0]!r} is named by {flag} and by --drop.")
    if spec.features is not None:
        return list(dict.fromkeys(spec.features))
    others = (spec.target, spec.weight, spec.group_column, *spec.drop)
    return [name for name in file.columns if name not in others]


def _typed_frame(file: TableFile, target: str) -> pd.DataFrame:
    """All columns: numbers as numbers, everything else as the text in the file, the target as text.

    Dates and booleans are read as text because that is how a scan reads the columns of a bundle that are no numbers;
    one spelling on both sides is what makes a level known again.
    """
    types: dict[str, pa.DataType] = {target: pa.string()}
    inferred = file.read(file.columns, types)
    for column in inferred.schema:
        if pa.types.is_decimal(column.type):
            types[column.name] = pa.float64()
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            types[column.name] = pa.string()
    if any(inferred.schema.field(name).type != kind for name, kind in types.items()):
        inferred = file.read(file.columns, types)
    frame: pd.DataFrame = inferred.to_pandas()
    return frame


def _classes(labels: pd.Series[str], target: str) -> tuple[str, ...]:
    counts = labels.map({label: label_name(label) for label in labels.unique()}).value_counts()
    names = [str(name) for name in counts.index]
    if len(names) < 2:
        raise DataError(f"Column {target!r} holds one class only ({names[0]}): there is nothing to tell apart.")
    rarest = str(counts.index[-1])
    if counts.iloc[-1] < 2:
        raise DataError(
            f"Column {target!r} holds {len(names):,} different labels, and {rarest[:40]!r} stands in one row only: "
            "a classifier needs classes of at least 2 rows, one to train and one to test on."
        )
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def stratified_split(y: IntArray, share: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Positions of the training rows and of the held-out rows, both ascending.

    From each class of n_c rows, ``round(share * n_c)`` are held back, at least one and at most n_c - 1 where n_c > 1.
    """
    held = np.zeros(len(y), bool)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        wanted = min(max(round(share * own.size), 1), own.size - 1)
        held[rng.permutation(own)[:wanted]] = True
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def grouped_split(y: IntArray, groups: IntArray, share: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Positions of the training rows and of the held-out rows, both ascending; groups are never split.

    Groups whose commonest label is the same are drawn until the rows held back come nearest to ``share`` of theirs, at
    least one group and not all, where there are two. Raises DataError where a class or all rows would be in one half.
    """
    names, group = np.unique(groups, return_inverse=True)
    votes = np.zeros((len(names), int(y.max()) + 1), np.int64)
    np.add.at(votes, (group, y), 1)
    sizes, kind = votes.sum(axis=1), votes.argmax(axis=1)
    chosen = np.zeros(len(names), bool)
    for label in np.unique(kind):
        own = rng.permutation(np.flatnonzero(kind == label))
        reached = np.cumsum(sizes[own])
        n = int(np.abs(reached - share * reached[-1]).argmin()) + 1
        chosen[own[: min(n, max(len(own) - 1, 0))]] = True
    held = chosen[group]
    lost = np.setdiff1d(y, y[~held])
    if not held.any() or lost.size:
        raise DataError(
            f"The {len(names):,} groups cannot be split so that both halves have rows, and the rows trained on all "
            "classes: give more groups, or another --test-share or --seed."
        )
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def fit_preprocessing(X: pd.DataFrame) -> TabularPreprocessing:
    preprocessing = fit_tabular(X)
    for column in preprocessing.columns:
        if isinstance(column, CategoricalColumn) and len(column.levels) > MOST_LEVELS:
            raise DataError(
                f"The feature {column.name!r} has {len(column.levels):,} different texts, too many to be levels: "
                f"leave it out with --drop."
            )
    return preprocessing


def encode_rows(preprocessing: TabularPreprocessing, X: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    encoded = preprocessing.encode(X)
    for column, span in zip(preprocessing.columns, preprocessing.spans, strict=True):
        if not np.isfinite(encoded[:, span]).all():
            raise DataError(f"The feature {column.name!r} holds infinity: correct it, or leave it out with --drop.")
    return encoded


def write_rows(path: str | Path, data: str, rows: IntArray, left_out: tuple[str, ...] = ()) -> None:
    """Write some rows of a table, unencoded, without the columns ``left_out``; text of a CSV file stays verbatim.

    The kind follows from the suffix of ``path``: .csv, .tsv, .parquet or .pq. Raises UsageError for another.
    """
    where = Path(path)
    kind = split_kind(where)
    file = open_table(data)
    columns = [name for name in file.columns if name not in left_out]
    # 007 must not become 7, nor 1.10 become 1.1, on the way from one text file to another.
    verbatim = {name: pa.string() for name in columns} if file.kind in ("csv", "tsv") and kind != "parquet" else {}
    table = file.read(columns, verbatim).take(pa.array(rows))
    if kind == "parquet":
        buffer = BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        write_beside(where, buffer.getvalue())
        return
    try:
        text = table.cast(pa.schema([pa.field(name, pa.string()) for name in columns]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(
            f"{where.name} cannot hold the columns of {file.path.name} ({str(error).splitlines()[0][:120]}): "
            "name a .parquet file instead."
        ) from None
    content = text.to_pandas().to_csv(index=False, sep="\t" if kind == "tsv" else ",", lineterminator="\n")
    write_beside(where, content.encode())


def split_kind(path: Path) -> str:
    """``csv``, ``tsv`` or ``parquet`` by suffix; raises UsageError for another."""
    kind = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"}.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path.name!r} must end in .csv, .tsv or .parquet.")
    return kind
