"""From a table or a folder to AuditData: selection of columns, groups and classes."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from auditor.core.errors import DataError, UsageError, did_you_mean, some_of
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.data.audit_data import (
    AuditData,
    attach_groups,
    encode_labels,
    favourable,
    groups_of,
    needed_groups,
    numeric_target,
)
from auditor.data.audit_data_parts import Design, Recorded
from auditor.data.bins import BinRule, bin_sensitive, parse_bin_rule, refuse_continuous
from auditor.data.group_counts import MISSING
from auditor.data.preprocessing import NumericColumn, TabularPreprocessing, as_converted, as_text, label_name
from auditor.judging.measurement import Copies
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.new_values import NewValues
from auditor.loading.rows.row_warnings import cells_of, repeats_in, requested_design, small_cells, together
from auditor.loading.rows.score_columns import hold_to_predictions, read_recorded
from auditor.loading.rows.table_files import TableFile, of_texts, on_texts, open_table

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel


def _binned_groups(name: str, values: pd.Series[Any], rule: BinRule | None) -> pd.Series[Any]:
    if rule is None:
        refuse_continuous(name, values)
    if rule is None or rule.is_unbinned:
        return groups_of(values)
    return bin_sensitive(values, rule).reset_index(drop=True)


MAX_GROUPS = 500


def column_types(spec: DataSpec, model: AuditedModel, features: Sequence[str]) -> dict[str, pa.DataType]:
    """Column types without inference: features by the model's preprocessing; labels, groups and keys as text.

    A column that is a feature too is read as the model takes it, whatever else it is.
    """
    # Numbers are read as numbers, which are exact; text for them would be rounded, and "no number" is found later.
    target = None if model.kind == "regressor" else spec.target
    own = [
        name
        for name in (*spec.sensitive, target, spec.join_on, spec.cluster)
        if name is not None and name not in features
    ]
    types: dict[str, pa.DataType] = dict.fromkeys(own, pa.string())
    if isinstance(model.preprocessing, TabularPreprocessing):
        for column in model.preprocessing.columns:
            types[column.name] = pa.float64() if isinstance(column, NumericColumn) else pa.string()
    if spec.stream and model.others_are_numbers:
        types |= {name: pa.float64() for name in features if name not in model.group_columns}
    for name in (*model.group_columns, *([] if spec.text is None else [spec.text])):
        types.setdefault(name, pa.string())
    return types


def feature_columns(file: TableFile, spec: DataSpec, model: AuditedModel) -> list[str]:
    """The model's input columns: --features, else those the model names, else all columns without another role."""
    if spec.text is not None or spec.image is not None:
        return [name for name in (spec.text, spec.image) if name is not None]
    if spec.features is not None:
        return list(dict.fromkeys([*spec.features, *model.decides_by]))
    if model.features is not None:
        for name in model.features:
            if name not in file.columns and not _in_sensitive_file(name, spec, model):
                if model.renamed:
                    _say_the_names(name, model.features, file)
                raise DataError(
                    f"The model needs the feature {name!r}, which {file.path.name} does not have"
                    f"{did_you_mean(name, file.columns) or '; name the columns with --features.'}",
                    code="AUD-DATA-COLUMN",
                )
        return list(model.features)
    others = {spec.target, spec.join_on, spec.cluster, spec.weight, spec.check_predictions}
    return [name for name in file.columns if name not in others]


def _in_sensitive_file(name: str, spec: DataSpec, model: AuditedModel) -> bool:
    """Whether a group that the model reads is to be found beside the rows."""
    return spec.sensitive_file is not None and name in model.decides_by and name in spec.sensitive


def _say_the_names(absent: str, features: Sequence[str], file: TableFile) -> None:
    """Raises UsageError where each feature is a column that was written otherwise, with the line that says which."""
    written = {as_converted(name): name for name in file.columns}
    meant = [name if name in file.columns else written.get(name) for name in features]
    if None not in meant:
        raise UsageError(
            f"The model file calls a column {absent!r}, as converters to ONNX write {written[absent]!r}: add "
            f"--features {','.join(map(str, meant))} to say that these are meant."
        )


def _check_number(n_columns: int, model: AuditedModel, file: TableFile) -> None:
    """Raises UsageError where a model that names no columns takes another number of them than there are."""
    if model.n_columns not in (None, n_columns):
        raise UsageError(
            f"The model takes {model.n_columns} columns and does not name them, and {file.path.name} has {n_columns} "
            f"that "
            "may be meant: add --features a,b in their order."
        )


class Tally:
    """Statistics of a file's rows, accumulated batch by batch: the only place for refusals and notes on them."""

    def __init__(
        self, noun: str, name: str, target: str | None, classes: tuple[str, ...], holes: Counter[str] | None = None
    ) -> None:
        self.no_rows = f"The {noun} has a header and no rows."
        self._name, self._target, self._classes = name, target, classes
        self._rows = 0
        self._holes = Counter[str]() if holes is None else holes
        self._labels = np.zeros(len(classes) + 1, np.int64)
        self._groups: dict[str, set[str]] = {}

    def add(self, rows: int, holes: Mapping[str, int], y_true: IntArray | None) -> None:
        """Count rows, missing values per feature, and labels; the first label means "without a label"."""
        self._rows += rows
        self._holes.update(holes)
        if y_true is not None:
            self._labels += np.bincount(y_true + 1, minlength=len(self._labels))

    def add_groups(self, feature: str, levels: Iterable[str]) -> None:
        """Record groups; DataError if one feature has more than can be compared in pairs."""
        groups = self._groups.setdefault(feature, {MISSING})
        groups.update(levels)
        if len(groups) - 1 > MAX_GROUPS:
            raise DataError(
                f"The sensitive feature {feature!r} of {self._name} has more than {MAX_GROUPS} groups: "
                f"bin or drop it (--bins {feature}=quantiles:4).",
                code="AUD-DATA-GROUPS",
            )

    def levels(self, feature: str) -> list[str]:
        """The groups of a feature so far."""
        return sorted(self._groups[feature])

    def notes(self, model: AuditedModel) -> list[str]:
        """Notes on the rows for the report; raises DataError where they cannot be used."""
        if not self._rows:
            raise DataError(self.no_rows, code="AUD-DATA-EMPTY")
        notes = []
        if self._target is not None:
            unlabelled = int(self._labels[0])
            if unlabelled == self._rows:
                raise DataError(
                    f"Column {self._target!r} of {self._name} is empty: every label is missing.", code="AUD-DATA-LABELS"
                )
            if unlabelled:
                notes.append(f"{unlabelled:,} rows of {self._name} have no label and count for selection rates only.")
            present = np.flatnonzero(self._labels[1:])
            if present.size == 1:
                notes.append(
                    f"Column {self._target!r} of {self._name} holds one class only "
                    f"({self._classes[int(present[0])]}): rates that need the other are undefined."
                )
        empty = [feature for feature, n in self._holes.items() if n == self._rows]
        if empty:
            raise DataError(f"The feature {empty[0]!r} of {self._name} is empty in every row.", code="AUD-DATA-EMPTY")
        holes = {feature: n for feature, n in self._holes.items() if n}
        if holes:
            handled = "filled as the model's preprocessing says" if model.preprocessing else "left as they are"
            worst = ", ".join(f"{c} ({n:,})" for c, n in sorted(holes.items(), key=lambda kv: -kv[1])[:5])
            notes.append(f"Missing values in {self._name} were {handled}: {worst}.")
        return notes


def classes_of(spec: DataSpec, model: AuditedModel) -> tuple[str, ...]:
    """The classes in the order of the model's outputs. Raises UsageError for flags that mean nothing of it."""
    if model.kind == "regressor":
        for flag, given in (("--positive", spec.positive), ("--classes", spec.classes)):
            if given is not None:
                raise UsageError(f"This model predicts a number, which has no classes: leave {flag} out.")
        return ()
    if model.kind == "language_model" and spec.target is not None:
        raise UsageError("A language model answers with texts, which have no labels: leave --target out.")
    classes = tuple(label_name(c) for c in (spec.classes or model.classes))
    if len(classes) != model.n_outputs:
        raise UsageError(
            f"The model has {model.n_outputs} outputs, but {len(classes)} classes are named: "
            "give --classes in the order of the outputs."
        )
    return classes


def check_favourable(spec: DataSpec, model: AuditedModel) -> None:
    """Raises UsageError where groups of two labels are compared and nothing says which of these is favourable."""
    if model.kind == "classifier" and spec.sensitive and spec.positive is None:
        classes = classes_of(spec, model)
        if len(classes) == 2 and favourable(None, classes) is None:
            either = " or ".join(f"--positive {shlex.quote(name)}" for name in classes)
            raise UsageError(f"Which label is favourable to a person? Add {either}.")


def load_data(spec: DataSpec, model: AuditedModel) -> AuditData:
    """Evaluation rows, and training rows if ``spec.train`` names them, as model input.

    Raises UsageError for a column that is not there (with the nearest that is), DataError for data that cannot be used.
    """
    if model.kind == "other" and not model.rows_alone:
        # It has no classes that a label could be one of; each probe says why it does not apply.
        spec = replace(spec, target=None, positive=None)
    classes = classes_of(spec, model)
    evaluation = load_one(spec, spec.path, model, classes)
    if spec.check_predictions is not None:
        evaluation = hold_to_predictions(spec.check_predictions, evaluation, model, open_table(spec.path, "data file"))
    pa.default_memory_pool().release_unused()  # of texts that are categories by now
    if spec.train is None:
        return evaluation
    if why := spec.why_not_held_out:
        raise UsageError(why)
    decided = list(map(str, evaluation.X.columns)) if isinstance(evaluation.X, pd.DataFrame) else None
    members = load_one(spec, spec.train, model, classes, decided)
    joined = evaluation.with_members(members)
    return replace(joined, notes=(*joined.notes, *overlap_note(evaluation, members)))


def overlap_note(evaluation: AuditData, members: AuditData) -> list[str]:
    """Says how many evaluation rows the model was trained on; none are left out, as that would thin out common rows."""
    shared = int(np.isin(evaluation.keys, members.keys).sum())
    if not shared:
        return []
    return [
        f"{shared:,} of {len(evaluation):,} evaluation rows stand in the training file too: what is measured on them "
        "is flattered. Membership inference leaves out every row that occurs twice."
    ]


@dataclass(frozen=True)
class _Source:
    """A table of rows, read for a model: ``what`` it is called in messages."""

    file: TableFile
    spec: DataSpec
    model: AuditedModel
    path: str
    what: str

    @property
    def evaluation(self) -> bool:
        """Whether its rows are those that are measured."""
        return self.path == self.spec.path

    @property
    def tabular(self) -> bool:
        """Whether its rows are columns rather than texts or pictures."""
        return self.spec.text is None and self.spec.image is None

    @property
    def with_side_file(self) -> bool:
        """Whether groups of its rows are in a file beside it."""
        return self.spec.sensitive_file is not None and (self.evaluation or bool(self.model.decides_by))

    @property
    def sensitive(self) -> list[str]:
        """The sensitive features that are read from it."""
        if self.with_side_file or self.path == self.spec.train:
            # The training rows need no groups: a probe that compares groups reads the evaluation rows.
            return [name for name in self.spec.sensitive if name in self.file.columns]
        return list(self.spec.sensitive)

    def features(self, decided: Sequence[str] | None) -> list[str]:
        """The features of the model before columns that name rows are left out."""
        return feature_columns(self.file, self.spec, self.model) if decided is None else list(decided)

    def in_table(self, features: Sequence[str], decided: Sequence[str] | None) -> list[str]:
        """The features to read from the table: not the groups that are beside it.

        Raises DataError where it lacks a feature that another file has decided on.
        """
        absent = [name for name in features if name not in self.file.columns]
        own = [name for name in features if name not in absent or not _in_sensitive_file(name, self.spec, self.model)]
        if decided is not None and absent and absent[0] in own:
            raise DataError(
                f"The {self.what} {self.file.path.name!r} has no column {absent[0]!r}, which is a feature in "
                f"{Path(self.spec.path).name}"
                f"{did_you_mean(absent[0], self.file.columns) or '; leave it out with --features.'}",
                code="AUD-DATA-COLUMN",
            )
        return own

    def read(self, features: Sequence[str], in_table: Sequence[str]) -> pd.DataFrame:
        """Its features, labels, groups and keys."""
        spec = self.spec
        of_design = (spec.cluster, spec.weight) if self.evaluation else ()
        others = (spec.target, spec.join_on if self.with_side_file else None, *of_design)
        own = [name for name in others if name is not None] + self.sensitive
        types = column_types(spec, self.model, features)
        frame: pd.DataFrame = self.file.read(list(dict.fromkeys([*in_table, *own])), types).to_pandas()
        pa.default_memory_pool().release_unused()  # which it would keep for itself
        return with_nan(frame)

    def without_ids(self, frame: pd.DataFrame, features: list[str]) -> tuple[list[str], list[str]]:
        """The features without columns that name rows, where nobody named the features, and a note of what is left out.

        Raises UsageError where the model takes another number of columns.
        """
        if self.spec.features is not None or self.model.features is not None or not self.tabular:
            return features, []
        ids = [name for name in id_like(frame[features]) if name not in self.sensitive]
        features = [name for name in features if name not in ids]
        _check_number(len(features), self.model, self.file)
        return features, [f"Columns that name rows were left out of the features: {', '.join(ids)}."] if ids else []


def with_nan(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with NaN for each gap among truth values, as pandas has it: encoders of scikit-learn know no None."""
    return frame.assign(**{n: frame[n].fillna(np.nan) for n in map(str, frame) if frame[n].dtype == object})


def load_one(
    spec: DataSpec,
    path: str,
    model: AuditedModel,
    classes: tuple[str, ...],
    expected_features: Sequence[str] | None = None,
) -> AuditData:
    """Rows of one file. ``expected_features``: the features, where the rows of another file have decided on them.

    Raises what :func:`load_data` raises.
    """
    if Path(path).is_dir():
        return _load_folder(spec, Path(path), model, classes)
    what = "training file" if path == spec.train else "data file"
    file = open_table(path, what)
    source = _Source(file, of_texts(spec, file, model), model, path, what)
    return _converted(source, _checked(source, _read(source, expected_features), classes))


@dataclass(frozen=True)
class _Content:
    """What was read of a table: its rows, the features, those of them that stand in the table itself, and notes.

    ``refused``: a sentence on each row that the model does not answer, none of which is among the rows.
    """

    frame: pd.DataFrame
    features: list[str]
    in_table: list[str]
    notes: list[str]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Checked(_Content):
    """What was read, found fit for use, with what was counted and told of its labels and copies."""

    tally: Tally = field(kw_only=True)
    classes: tuple[str, ...] = field(kw_only=True)
    y_true: IntArray | None = field(kw_only=True)
    target_values: FloatArray | None = field(kw_only=True)
    design: Design | None = field(kw_only=True)
    copies: Copies | None = field(kw_only=True)


def _read(source: _Source, expected_features: Sequence[str] | None) -> _Content:
    """The rows of a table that the model answers."""
    features = source.features(expected_features)
    in_table = source.in_table(features, expected_features)
    frame = source.read(features, in_table)
    notes = on_texts(source.file, frame, source.spec)
    if expected_features is None:
        features, left_out = source.without_ids(frame, features)
        notes += left_out
    new = NewValues(source.model, source.file.path.name)
    kept = new.add(frame[[name for name in in_table if name in features]]) if source.tabular else None
    if kept is not None:
        frame = frame[kept].reset_index(drop=True)
    return _Content(frame, features, in_table, notes + new.notes(), tuple(new.refused))


def _checked(source: _Source, read: _Content, classes: tuple[str, ...]) -> _Checked:
    """Raises DataError for labels or features that cannot be used; counts what is missing, and copies."""
    spec, frame, name = source.spec, read.frame, source.file.path.name
    y_true, target_values = _truth(frame, spec, source.model, classes)
    tally = Tally(f"{source.what} {name!r}", name, spec.target, classes)
    holes = {str(c): int(frame[c].isna().sum()) for c in read.in_table} if source.tabular else {}
    tally.add(len(frame), holes, y_true)
    notes = read.notes + tally.notes(source.model)
    design, copies, more = None, None, list[str]()
    if source.evaluation:
        design = requested_design(frame, spec)
        copies, more = repeats_in(source.file, frame, spec)
    if target_values is not None:
        notes += _target_notes(target_values, f"Column {spec.target!r} of {name}")
    return _Checked(
        **{**vars(read), "notes": notes + more},
        tally=tally,
        classes=classes,
        y_true=y_true,
        target_values=target_values,
        design=design,
        copies=copies,
    )


def _converted(source: _Source, rows: _Checked) -> AuditData:
    """The rows as the model and the probes take them."""
    spec, model, frame, notes = source.spec, source.model, rows.frame, rows.notes
    if source.with_side_file:
        frame, unmatched = join(frame, spec)
        notes = notes + unmatched
    X, files = _inputs(frame, source.file, spec, model, rows.features)
    groups = sensitive_groups(frame, spec, rows.tally)
    if model.decides_by and spec.text is not None:
        X = attach_groups(np.asarray(X), needed_groups(groups, model.decides_by, source.what))
    if groups is not None and source.evaluation:
        notes = notes + _small_cell_notes(groups, rows.y_true)
    positive = favourable(spec.positive, rows.classes)
    return AuditData(
        X=X,
        y_true=rows.y_true,
        target_values=rows.target_values,
        classes=rows.classes,
        positive=positive,
        sensitive_features=groups,
        binned=_binned_features(spec, groups),
        recorded=_recorded_answers(source, rows.classes, positive),
        files=files,
        unreadable=rows.refused,
        notes=tuple(notes),
        design=rows.design,
        copies=rows.copies,
        table=source.path,
    )


def _truth(
    frame: pd.DataFrame, spec: DataSpec, model: AuditedModel, classes: tuple[str, ...]
) -> tuple[IntArray | None, FloatArray | None]:
    """The true labels, or the true numbers of a regressor."""
    if spec.target is None:
        return None, None
    if model.kind == "regressor":
        return None, numeric_target(frame[spec.target], spec.target)
    return encode_labels(frame[spec.target], classes, spec.target), None


def _small_cell_notes(groups: pd.DataFrame, y_true: IntArray | None) -> list[str]:
    return [
        note
        for names in together(list(map(str, groups.columns)))
        for note in small_cells(names, cells_of(groups[list(names)], y_true))
    ]


def _binned_features(spec: DataSpec, groups: pd.DataFrame | None) -> tuple[str, ...]:
    """The sensitive features whose groups are ranges of numbers."""
    if groups is None:
        return ()
    bins = {rule.column for rule in map(parse_bin_rule, spec.bins) if not rule.is_unbinned}
    return tuple(name for name in map(str, groups.columns) if name in bins)


def _recorded_answers(source: _Source, classes: tuple[str, ...], positive: int | None) -> Recorded | None:
    """The answers that the table itself holds."""
    if source.spec.recorded is None:
        return None
    regression = source.model.kind == "regressor"
    return read_recorded(source.file, source.spec.recorded, classes, positive, regression=regression)


def _inputs(
    frame: pd.DataFrame, file: TableFile, spec: DataSpec, model: AuditedModel, features: Sequence[str]
) -> tuple[Rows, npt.NDArray[np.object_] | None]:
    """What the model is asked about: columns, texts, or pictures with the paths of their files."""
    if spec.text is not None:
        return frame[spec.text].astype("string").fillna("").to_numpy(object), None
    if spec.image is None:
        return frame[list(features)].reset_index(drop=True), None
    from auditor.loading.rows.media_files import load_gated, load_images
    from auditor.models.gated_model import GatedModel

    folder, names = file.path.parent, frame[spec.image].tolist()
    load = load_gated if isinstance(model, GatedModel) else load_images
    return load(folder, names, model), _paths(folder, names)


def sensitive_groups(frame: pd.DataFrame, spec: DataSpec, tally: Tally) -> pd.DataFrame | None:
    """The groups of rows, binned as the flags say; None where not every sensitive feature is a column."""
    rules = {rule.column: rule for rule in map(parse_bin_rule, spec.bins)}
    available = [name for name in dict.fromkeys(spec.sensitive) if name in frame.columns]
    if not available or set(available) != set(spec.sensitive):
        return None
    groups = pd.DataFrame({name: _binned_groups(name, frame[name], rules.get(name)) for name in available})
    for name in groups.columns:
        tally.add_groups(str(name), groups[name].cat.categories)
    return groups


def _load_folder(spec: DataSpec, folder: Path, model: AuditedModel, classes: tuple[str, ...]) -> AuditData:
    """Rows of a folder of media with one sub-folder per class; groups come from a table of the files' paths."""
    from auditor.loading.rows.folders import list_folder
    from auditor.loading.rows.media_files import read_files

    if model.kind == "regressor":
        raise UsageError("A folder has one sub-folder per class, and this model predicts numbers: give --data FILE.")
    for flag in ("target", "text", "image", "features", "cluster", "weight"):
        if getattr(spec, flag) is not None:
            raise UsageError(f"A folder's sub-folders are the labels and its files the rows: leave --{flag} out.")
    joined = (folder == Path(spec.path) or model.rows_alone) and bool(spec.sensitive)
    if joined and (spec.sensitive_file is None or spec.join_on is None):
        raise UsageError(
            "The sensitive features of a folder's files stand in a table: add --sensitive-file FILE --join-on COLUMN, "
            "the column with each file's path below the folder, such as cat/1.png."
        )
    listing = list_folder(folder, classes)
    read = read_files(folder, listing.names, model)
    names = [listing.names[i] for i in read.kept]
    if len(np.unique(listing.codes[read.kept])) < 2:
        raise DataError(
            f"The files of {folder.name!r} that can be read are of one class only: mend the others. "
            f"{some_of(read.unreadable)}",
            code="AUD-DATA-LABELS",
        )
    frame = pd.DataFrame({spec.join_on or "file": names})
    notes = list(listing.notes)
    if read.unreadable:
        notes.append(
            f"{len(read.unreadable):,} of {len(listing.names):,} files of {folder.name} could not be read and are not "
            "among the rows."
        )
    tally = Tally(f"folder {folder.name!r}", folder.name, None, classes)
    if joined:
        frame, said = join(frame, spec)
        notes += said
    return AuditData(
        X=read.X,
        y_true=listing.codes[read.kept],
        files=_paths(folder, names),
        unreadable=read.unreadable,
        classes=classes,
        positive=favourable(spec.positive, classes),
        sensitive_features=sensitive_groups(frame, spec, tally) if joined else None,
        notes=tuple(notes),
    )


def _paths(folder: Path, names: Sequence[str]) -> npt.NDArray[np.object_]:
    return np.asarray([str(folder / name) for name in names], object)


def _target_notes(values: FloatArray, subject: str) -> list[str]:
    """Notes on the true numbers of a file; DataError where there are none."""
    missing = int(np.isnan(values).sum())
    if missing == len(values):
        raise DataError(f"{subject} is empty: every true value is missing.", code="AUD-DATA-LABELS")
    notes = []
    if missing:
        notes.append(f"{subject} has no number in {missing:,} rows: they count for predictions, not for errors.")
    if np.nanmin(values) == np.nanmax(values):
        notes.append(f"{subject} holds one number only ({np.nanmin(values):g}).")
    return notes


def join(frame: pd.DataFrame, spec: DataSpec) -> tuple[pd.DataFrame, list[str]]:
    """The rows joined with the groups in the sensitive file, and a note on rows without an entry there."""
    if spec.join_on is None or spec.sensitive_file is None:
        raise UsageError("--sensitive-file needs --join-on COLUMN, the column that both files share.")
    side = open_table(spec.sensitive_file, "sensitive file")
    wanted = [name for name in dict.fromkeys(spec.sensitive) if name not in frame.columns]
    columns = list(dict.fromkeys([spec.join_on, *wanted]))
    other = side.read(columns, dict.fromkeys(columns, pa.string())).to_pandas()
    # A missing key is nobody's: two of them are not the same person.
    other = other.assign(**{spec.join_on: _keys(other[spec.join_on])}).dropna(subset=[spec.join_on])
    twice = other[spec.join_on][other[spec.join_on].duplicated()]
    if len(twice):
        raise DataError(
            f"{side.path.name} has {spec.join_on} = {str(twice.iloc[0])[:40]!r} twice: every row may be "
            "described once.",
            code="AUD-DATA-VALUES",
        )
    if not wanted:
        return frame, []
    keys = _keys(frame[spec.join_on])
    unknown = int((~keys.isin(other[spec.join_on]) | keys.isna()).sum())
    if unknown == len(frame):
        raise DataError(f"No row of the data has a {spec.join_on} that {side.path.name} knows.", code="AUD-DATA-VALUES")
    known = other.set_index(spec.join_on)
    found = frame.assign(**{name: keys.map(known[name]) for name in wanted})
    return found, [] if not unknown else [
        f"{unknown:,} of {len(frame):,} rows have no entry in {side.path.name} and are the group {MISSING}."
    ]


def _keys(values: pd.Series[Any]) -> pd.Series[Any]:
    text = as_text(values)
    return text.map({level: label_name(level) for level in text.dropna().unique()}).astype("string")
