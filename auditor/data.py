"""AuditData: the rows of an audit, and how a table on disk becomes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from auditor.bins import BinRule, bin_sensitive, parse_bin_rule
from auditor.counts import MISSING, GroupCounts, count_groups
from auditor.errors import DataError, UsageError
from auditor.preprocessing import NumericColumn, TabularPreprocessing, as_text, label_name
from auditor.specs import DataSpec
from auditor.statistics import IntArray
from auditor.suggest import did_you_mean
from auditor.tables import TableFile, open_table

if TYPE_CHECKING:
    from auditor.model import AuditedModel

Rows = pd.DataFrame | npt.NDArray[Any]
BoolArray = npt.NDArray[np.bool_]


def take_rows(X: Rows, index: npt.NDArray[Any] | slice) -> Rows:
    """Rows of a table or an array by mask, positions or slice."""
    return X.iloc[index] if isinstance(X, pd.DataFrame) else X[index]


@dataclass(frozen=True, eq=False, kw_only=True)
class AuditData:
    """Rows to audit a model on; with training rows among them, ``is_member`` tells which.

    X: (n, ...) a DataFrame of raw features, an object array of texts, or uint8 images (n, height, width, channels).
    y_true: (n,) index into ``classes``, -1 where a row has no label; None without labels. positive: index of the
    favourable label. sensitive_features: (n, s) DataFrame of group names. is_member: (n,) True for training rows.
    ``notes``: what was done to the rows on the way here, for the report.
    """

    X: Rows
    y_true: IntArray | None = None
    classes: tuple[str, ...] = ()
    positive: int | None = None
    sensitive_features: pd.DataFrame | None = None
    is_member: BoolArray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("y_true", "sensitive_features", "is_member"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.X):
                raise DataError(f"{name} has {len(value)} rows, X has {len(self.X)}.")

    def __len__(self) -> int:
        return len(self.X)

    @property
    def modality(self) -> Literal["tabular", "text", "image"]:
        """What a row is."""
        if isinstance(self.X, pd.DataFrame) or self.X.ndim == 2:
            return "tabular"
        return "text" if self.X.dtype == object else "image"

    @classmethod
    def from_arrays(
        cls,
        X: Rows | Sequence[str],
        y_true: Sequence[object] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        *,
        classes: Sequence[object],
        positive: object | None = None,
        sensitive_features: pd.DataFrame | pd.Series[Any] | Mapping[str, Sequence[object]] | None = None,
        is_member: npt.NDArray[np.bool_] | Sequence[bool] | None = None,
    ) -> AuditData:
        """From what a notebook holds: labels as they are, groups as columns.

        ``classes`` in the order of the model's outputs; ``positive`` is one of them, and may be left out where they are
        0/1 or booleans. Raises DataError for a label that is none of the classes.
        """
        rows: Rows = X if isinstance(X, (pd.DataFrame, np.ndarray)) else np.asarray(list(X), object)
        names = tuple(label_name(c) for c in classes)
        groups = None
        if sensitive_features is not None:
            frame = (
                sensitive_features.to_frame()
                if isinstance(sensitive_features, pd.Series)
                else pd.DataFrame(sensitive_features)
            )
            groups = pd.DataFrame({str(c): _groups(frame[c]) for c in frame.columns}).reset_index(drop=True)
        return cls(
            X=rows,
            y_true=None if y_true is None else encode_labels(pd.Series(list(y_true)), names, "y_true"),
            classes=names,
            positive=favourable(positive, names),
            sensitive_features=groups,
            is_member=None if is_member is None else np.asarray(is_member, bool),
        )

    def take(self, index: npt.NDArray[Any] | slice) -> AuditData:
        """Some of the rows, by mask, positions or slice."""
        return replace(
            self,
            X=take_rows(self.X, index),
            y_true=None if self.y_true is None else self.y_true[index],
            sensitive_features=None if self.sensitive_features is None else self.sensitive_features.iloc[index],
            is_member=None if self.is_member is None else self.is_member[index],
        )

    @cached_property
    def evaluation(self) -> AuditData:
        """The rows the model was not trained on: all of them where ``is_member`` is None."""
        return self if self.is_member is None or not self.is_member.any() else self.take(~self.is_member)

    @cached_property
    def members(self) -> AuditData | None:
        """The training rows, where there are any."""
        return self.take(self.is_member) if self.is_member is not None and self.is_member.any() else None


# ---- labels and groups ---------------------------------------------------------------------------------------------


_IMPLIED: dict[tuple[str, ...], int] = {("0", "1"): 1, ("False", "True"): 1, ("1", "0"): 0, ("True", "False"): 0}


def favourable(positive: object | None, classes: Sequence[str]) -> int | None:
    """Index of the favourable label; 1 or True where it is not named and the classes are 0/1 or booleans; else None."""
    if positive is None:
        return _IMPLIED.get(tuple(classes))
    name = label_name(positive)
    if name not in classes:
        raise UsageError(
            f"--positive {name!r} is none of the model's classes ({', '.join(classes)})"
            f"{did_you_mean(name, classes) or '.'}"
        )
    return list(classes).index(name)


def encode_labels(values: pd.Series[Any], classes: Sequence[str], column: str) -> IntArray:
    """(n,) class indices, -1 where missing; raises DataError for labels that are none of the classes."""
    codes, levels = pd.factorize(as_text(values))
    place = {name: i for i, name in enumerate(classes)}
    index = [place.get(label_name(level), -2) for level in levels]
    if -2 in index:
        strange = [str(level) for level, i in zip(levels, index, strict=True) if i == -2]
        raise DataError(
            f"Column {column!r} holds {strange[0][:40]!r}, which is none of the model's classes "
            f"({', '.join(classes[:8])}). Name the classes in the order of the model's outputs with --classes."
        )
    return np.asarray([*index, -1], np.int64)[codes]


def _groups(values: pd.Series[Any]) -> pd.Series[Any]:
    named = as_text(values).fillna(MISSING)
    return named.map({level: label_name(level) for level in named.unique()}).astype("category").reset_index(drop=True)


def _binned_groups(values: pd.Series[Any], rule: BinRule | None) -> pd.Series[Any]:
    return _groups(values) if rule is None else bin_sensitive(values, rule).reset_index(drop=True)


def id_like(frame: pd.DataFrame) -> list[str]:
    """Columns that name rows rather than describe them: whole numbers in steps of one, or text that never repeats."""
    found = []
    for name in frame.columns:
        values = frame[name]
        if len(values) < 20 or not values.is_unique:
            continue
        if pd.api.types.is_integer_dtype(values):
            steps = np.diff(np.sort(values.to_numpy()))
            if (steps == 1).all() or str(name).lower() in ("id", "uuid", "index", "rowid", "row_id", "rownames"):
                found.append(str(name))
        elif not pd.api.types.is_numeric_dtype(values) and values.astype("string").str.len().mean() < 64:
            found.append(str(name))
    return found


# ---- tables on disk ------------------------------------------------------------------------------------------------


def _column_types(spec: DataSpec, model: AuditedModel) -> dict[str, pa.DataType]:
    """Types that need no inference: labels and groups are text, features are what the model's preprocessing says."""
    types: dict[str, pa.DataType] = {name: pa.string() for name in spec.sensitive}
    if spec.target is not None:
        types[spec.target] = pa.string()
    if isinstance(model.preprocessing, TabularPreprocessing):
        for column in model.preprocessing.columns:
            types[column.name] = pa.float64() if isinstance(column, NumericColumn) else pa.string()
    return types


def feature_columns(file: TableFile, spec: DataSpec, model: AuditedModel) -> list[str]:
    """The columns the model takes: --features, else what the model names, else every column that is nothing else."""
    if spec.text is not None or spec.image is not None:
        return [name for name in (spec.text, spec.image) if name is not None]
    if spec.features is not None:
        return list(spec.features)
    if model.features is not None:
        for name in model.features:
            if name not in file.columns:
                raise DataError(
                    f"The model needs the feature {name!r}, which {file.path.name} does not have"
                    f"{did_you_mean(name, file.columns) or '; name the columns with --features.'}"
                )
        return list(model.features)
    others = {spec.target, spec.join_on}
    return [name for name in file.columns if name not in others]


def can_stream(spec: DataSpec, model: AuditedModel) -> bool:
    """Whether every column's type is known beforehand, so that rows can be counted without holding them."""
    return (
        isinstance(model.preprocessing, TabularPreprocessing)
        and spec.train is None
        and not spec.bins
        and spec.sensitive_file is None
        and bool(spec.sensitive)
        and spec.text is None
        and spec.image is None
    )


def stream_counts(spec: DataSpec, model: AuditedModel) -> Iterator[GroupCounts]:
    """GroupCounts of one batch of rows after another: one forward pass over the file, in constant memory."""
    file = open_table(spec.path)
    features = feature_columns(file, spec, model)
    own = [name for name in (spec.target, *spec.sensitive) if name is not None]
    types = _column_types(spec, model)
    classes = _classes(spec, model)
    positive = favourable(spec.positive, classes)
    for batch in file.batches(list(dict.fromkeys([*features, *own])), types):
        if not batch.num_rows:
            continue
        X = batch.select(features).to_pandas()
        y_true = None
        if spec.target is not None:
            y_true = encode_labels(batch.column(spec.target).to_pandas(), classes, spec.target)
        yield count_groups(
            model.decide(model.predict_proba(X), positive),
            y_true,
            [_arrow_groups(batch.column(name)) for name in spec.sensitive],
            features=spec.sensitive,
            classes=classes,
            positive=positive,
        )


def _arrow_groups(values: pa.Array) -> tuple[npt.NDArray[np.integer], list[str]]:
    encoded = values.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    if not pa.types.is_string(encoded.dictionary.type):
        levels = as_text(encoded.dictionary.to_pandas()).tolist()
    else:
        levels = encoded.dictionary.to_pylist()
    return codes, [*(label_name(level) for level in levels), MISSING]


def _classes(spec: DataSpec, model: AuditedModel) -> tuple[str, ...]:
    classes = tuple(label_name(c) for c in (spec.classes or model.classes))
    if len(classes) != model.n_outputs:
        raise UsageError(
            f"The model has {model.n_outputs} outputs, but {len(classes)} classes are named: "
            "give --classes in the order of the outputs."
        )
    return classes


def load_data(spec: DataSpec, model: AuditedModel) -> AuditData:
    """Evaluation rows, and training rows where ``spec.train`` names them, as the model takes them.

    Raises UsageError for a column that is not there (with the nearest that is), DataError for data that cannot be used.
    """
    classes = _classes(spec, model)
    evaluation = _load_one(spec, spec.path, model, classes)
    if spec.train is None:
        return evaluation
    if Path(spec.train).samefile(spec.path):
        raise UsageError("--train and --data are the same file: they must be different rows.")
    members = _load_one(spec, spec.train, model, classes)
    overlap = _overlap_note(evaluation, members)
    X: Rows = (
        pd.concat([evaluation.X, members.X], ignore_index=True)
        if isinstance(evaluation.X, pd.DataFrame) and isinstance(members.X, pd.DataFrame)
        else np.concatenate([np.asarray(evaluation.X), np.asarray(members.X)])
    )
    groups = None
    if evaluation.sensitive_features is not None:
        known = members.sensitive_features
        if known is None:
            known = pd.DataFrame({name: [MISSING] * len(members) for name in evaluation.sensitive_features.columns})
        groups = pd.concat([evaluation.sensitive_features, known], ignore_index=True)
    return AuditData(
        X=X,
        y_true=(
            np.concatenate([evaluation.y_true, members.y_true])
            if evaluation.y_true is not None and members.y_true is not None
            else None
        ),
        classes=classes,
        positive=evaluation.positive,
        sensitive_features=None if groups is None else groups.astype("string").astype("category"),
        is_member=np.r_[np.zeros(len(evaluation), bool), np.ones(len(members), bool)],
        notes=tuple(dict.fromkeys([*evaluation.notes, *members.notes, *overlap])),
    )


def _overlap_note(evaluation: AuditData, members: AuditData) -> list[str]:
    """Says how many evaluation rows the model was trained on; none are left out, as that would thin out common rows."""
    shared = int(np.isin(row_keys(evaluation), row_keys(members)).sum())
    if not shared:
        return []
    return [
        f"{shared:,} of {len(evaluation):,} evaluation rows stand in the training file too: what is measured on them "
        "flatters the model. Membership inference leaves out every row that occurs twice."
    ]


def row_keys(data: AuditData) -> npt.NDArray[np.uint64]:
    """(n,) hash of each row's features and label; equal rows have equal keys, within one process."""
    if isinstance(data.X, pd.DataFrame):
        # One type for all numbers: a column of whole numbers in one file may have a gap, and be float, in the other.
        X = data.X.astype({c: np.float64 for c in data.X.columns if data.X[c].dtype.kind in "iufb"})
        of_features = np.asarray(pd.util.hash_pandas_object(X, index=False), np.uint64)
    else:
        parts = (hash(x if isinstance(x, str) else x.tobytes()) % 2**64 for x in data.X)
        of_features = np.fromiter(parts, np.uint64, len(data))
    labels = np.zeros(len(data), np.int64) if data.y_true is None else data.y_true
    combined: npt.NDArray[np.uint64] = of_features * np.uint64(1_000_003) + labels.astype(np.uint64)
    return combined


def _load_one(spec: DataSpec, path: str, model: AuditedModel, classes: tuple[str, ...]) -> AuditData:
    what = "training file" if path == spec.train else "data file"
    file = open_table(path, what)
    joined = spec.sensitive_file is not None and path == spec.path
    in_file = [name for name in spec.sensitive if not joined or name in file.columns]
    features = feature_columns(file, spec, model)
    if path == spec.train:
        # The training rows need no groups: a probe that compares groups reads the evaluation rows.
        in_file = [name for name in in_file if name in file.columns]
    own = [name for name in (spec.target, spec.join_on if joined else None) if name is not None] + in_file
    table = file.read(list(dict.fromkeys([*features, *own])), _column_types(spec, model))
    frame = table.to_pandas()
    notes: list[str] = []
    if not len(frame):
        raise DataError(f"The {what} {file.path.name!r} has a header and no rows.")
    if spec.features is None and model.features is None and spec.text is None and spec.image is None:
        ids = [name for name in id_like(frame[features]) if name not in in_file]
        features = [name for name in features if name not in ids]
        if ids:
            notes.append(f"Columns that name rows were left out of the features: {', '.join(ids)}.")
    if joined:
        frame = _join(frame, spec)
    y_true = None
    if spec.target is not None:
        y_true = encode_labels(frame[spec.target], classes, spec.target)
        unlabelled = int((y_true < 0).sum())
        if unlabelled == len(frame):
            raise DataError(f"Column {spec.target!r} of {file.path.name} is empty: every label is missing.")
        if unlabelled:
            notes.append(f"{unlabelled:,} rows of {file.path.name} have no label and count for selection rates only.")
        present = np.unique(y_true[y_true >= 0])
        if present.size == 1:
            notes.append(
                f"Column {spec.target!r} of {file.path.name} holds one class only ({classes[int(present[0])]}): "
                "rates that need the other are undefined."
            )
    X: Rows = frame[features]
    if spec.text is not None:
        X = frame[spec.text].astype("string").fillna("").to_numpy(object)
    elif spec.image is not None:
        from auditor.images import load_images

        X = load_images(file.path.parent, frame[spec.image].tolist(), model)
    elif isinstance(X, pd.DataFrame):
        empty = [str(c) for c in features if X[c].isna().all()]
        if empty:
            raise DataError(f"The feature {empty[0]!r} of {file.path.name} is empty in every row.")
        holes = {str(c): int(X[c].isna().sum()) for c in features if X[c].isna().any()}
        if holes:
            handled = (
                "filled as the model's preprocessing says" if model.preprocessing else "given to the model as they are"
            )
            worst = ", ".join(f"{c} ({n:,})" for c, n in sorted(holes.items(), key=lambda kv: -kv[1])[:5])
            notes.append(f"Missing values in {file.path.name} were {handled}: {worst}.")
    rules = {rule.column: rule for rule in map(parse_bin_rule, spec.bins)}
    available = [name for name in spec.sensitive if name in frame.columns]
    groups = (
        pd.DataFrame({name: _binned_groups(frame[name], rules.get(name)) for name in available})
        if available and len(available) == len(spec.sensitive)
        else None
    )
    return AuditData(
        X=X.reset_index(drop=True) if isinstance(X, pd.DataFrame) else X,
        y_true=y_true,
        classes=classes,
        positive=favourable(spec.positive, classes),
        sensitive_features=groups,
        notes=tuple(notes),
    )


def _join(frame: pd.DataFrame, spec: DataSpec) -> pd.DataFrame:
    if spec.join_on is None or spec.sensitive_file is None:
        raise UsageError("--sensitive-file needs --join-on COLUMN, the column that both files share.")
    side = open_table(spec.sensitive_file, "sensitive file")
    wanted = [name for name in spec.sensitive if name not in frame.columns]
    columns = [spec.join_on, *wanted]
    other = side.read(columns, {name: pa.string() for name in columns}).to_pandas()
    if other[spec.join_on].duplicated().any():
        twice = other[spec.join_on][other[spec.join_on].duplicated()].iloc[0]
        raise DataError(
            f"{side.path.name} has {spec.join_on} = {str(twice)[:40]!r} twice: every row may be described once."
        )
    left = frame.assign(**{spec.join_on: as_text(frame[spec.join_on])})
    merged = left.merge(other.astype("string"), on=spec.join_on, how="left", validate="many_to_one")
    if wanted and merged[wanted].isna().all(axis=None):
        raise DataError(f"No row of the data has a {spec.join_on} that {side.path.name} knows.")
    return merged
