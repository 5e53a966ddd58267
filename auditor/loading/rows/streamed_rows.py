"""Streamed rows: passed through the model once and counted in parts, in memory independent of their number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from auditor.core.errors import DataError
from auditor.core.files import table_place
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audit_data import AuditData, encode_labels, favourable
from auditor.data.bins import refuse_continuous
from auditor.data.group_counts import MISSING, FeatureCounts, GroupCounts, GroupsDigest, count_groups
from auditor.data.preprocessing import TabularPreprocessing, as_text, label_name
from auditor.data.row_keys import KeyDigest, Keys, keys_of
from auditor.data.row_sample import RowSample
from auditor.data.score_counts import Asked, ScoreCounts
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.load_rows import Tally, classes_of, column_types, feature_columns, with_nan
from auditor.loading.rows.new_values import NewValues
from auditor.loading.rows.row_warnings import RepeatCount, RepeatedAnswers, small_cells, together
from auditor.loading.rows.table_files import STREAMED, TableFile, kind_of, of_texts, open_table

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

# Rows that are kept to be asked about again.
_FEW = 16


def why_not_streamed(spec: DataSpec, model: AuditedModel) -> str:
    """The reason why rows cannot be streamed, in a sentence; "" if they can.

    They can where the groups of a row are told by the row alone.
    """
    if model.kind != "classifier":
        return "Only a classifier's rows are counted as they stream by: leave --stream out."
    if model.features is None and spec.features is None:
        return "The model does not name its columns: add --features a,b in their order."
    if why := spec.why_not_in_parts:
        return why
    if Path(spec.path).is_dir():
        return "A folder's files are read into memory: leave --stream out."
    kind = kind_of(table_place(spec.path)[0])
    return "" if kind in STREAMED else f"A .{kind} file is read whole: give .csv, .parquet, .arrow or .jsonl."


def can_stream(spec: DataSpec, model: AuditedModel) -> bool:
    """Whether rows can be counted by group without holding them."""
    encoded = isinstance(model.preprocessing, TabularPreprocessing)
    return encoded and bool(spec.sensitive) and not why_not_streamed(spec, model)


@dataclass(frozen=True)
class _Part:
    """Some rows: what was read of them, the features, each row's group by sensitive feature, what was answered, and
    the scores that rank them."""

    batch: pa.RecordBatch
    X: pd.DataFrame
    groups: list[tuple[npt.NDArray[np.integer], list[str]]]
    probabilities: FloatArray
    scores: FloatArray


@dataclass(frozen=True)
class Told:
    """Requested values of every row: its score, the levels of its features, and the row itself."""

    scores: ScoreCounts
    features: FeatureCounts | None
    sample: RowSample | None

    def add(self, part: _Part, keys: Keys | None, y_true: IntArray | None, decisions: IntArray) -> None:
        """The next rows."""
        self.scores.add(part.groups, y_true, decisions, part.scores)
        if self.features is not None:
            self.features.add(part.X, part.groups)
        if self.sample is not None:
            own = keys_of(part.X, y_true, None, None) if keys is None else keys
            self.sample.add(part.X, own, y_true, part.groups)


class Stream:
    """The rows of a file in parts, each passed to the model once after reading.

    Raises what reading a whole file raises.
    """

    def __init__(self, spec: DataSpec, model: AuditedModel) -> None:
        self.file: TableFile = open_table(spec.path)
        self.spec, self.model = of_texts(spec, self.file, model), model
        self.features = feature_columns(self.file, self.spec, model)
        self.sensitive = tuple(dict.fromkeys(self.spec.sensitive))
        self.classes = classes_of(self.spec, model)
        self.positive = favourable(self.spec.positive, self.classes)
        known = column_types(self.spec, model, self.features)
        # Of a column that the model does not say the type of, the file does.
        self._types = {**self.file.types([name for name in self.features if name not in known]), **known}

    def make_counters(self, request: Asked) -> Told:
        """Collector for the requested counts: scores are those of the favourable class, by default the last."""
        positive = len(self.classes) - 1 if self.positive is None else self.positive
        return Told(
            ScoreCounts(self.sensitive, positive, len(self.classes), request),
            FeatureCounts(self.sensitive) if request.levels else None,
            RowSample(self.sensitive, self.classes, self.positive) if request.rows else None,
        )

    def settle(self, scores: ScoreCounts) -> None:
        """Read the rows again if the median of the scores is between some that the grid does not order."""
        if scores.asked.median and scores.n_values > 2 and scores.unsettled() is not None:
            scores.settle((part.groups, part.scores) for part in self._parts())

    def _parts(self, new: NewValues | None = None) -> Iterator[_Part]:
        new = NewValues(self.model, self.file.path.name, most=0) if new is None else new
        own = [name for name in (self.spec.target, *self.sensitive) if name is not None]
        for batch in self.file.batches(list(dict.fromkeys([*self.features, *own])), self._types):
            X = with_nan(batch.select(self.features).to_pandas())
            kept = new.add(X)
            if kept is not None:
                X, batch = X[kept].reset_index(drop=True), batch.filter(pa.array(kept))
            if len(X):
                groups = [_arrow_groups(batch.column(name)) for name in self.sensitive]
                probabilities = self.model.predict_part(X)
                yield _Part(batch, X, groups, probabilities, self.model.scores_of(X, probabilities))

    def count_by_group(
        self,
        *,
        keys: KeyDigest | None = None,
        repeats: RepeatCount | None = None,
        answers: RepeatedAnswers | None = None,
        digests: dict[str, GroupsDigest] | None = None,
        holes: Counter[str] | None = None,
        collector: Told | None = None,
        new: NewValues | None = None,
    ) -> tuple[GroupCounts, tuple[str, ...]]:
        """GroupCounts of the whole file, and the notes on it: one forward pass over its rows.

        ``keys`` is given the keys of the rows, where there is a digest of them; ``repeats``, ``answers`` and
        ``collector`` are told of every row, and ``digests``, by sensitive feature, of every row's group; ``holes``
        counts the values each feature lacks, ``new`` those that the model has not learned.
        """
        target, name = self.spec.target, self.file.path.name
        tally = Tally(f"data file {name!r}", name, target, self.classes, holes)
        total: GroupCounts | None = None
        first: tuple[pd.DataFrame, FloatArray] | None = None
        new = NewValues(self.model, name) if new is None else new
        for part in self._parts(new):
            batch = part.batch
            if repeats is not None:
                repeats.add(batch.to_pandas())
            y_true = None
            if target is not None:
                y_true = encode_labels(batch.column(target).to_pandas(), self.classes, target)
            if answers is not None:
                answers.add(part.probabilities, y_true)
            own = None if keys is None else keys_of(part.X, y_true, None, None)
            if keys is not None and own is not None:
                keys.add(own)
            tally.add(batch.num_rows, {c: _n_missing(batch.column(c)) for c in self.features}, y_true)
            for feature, (codes, levels) in zip(self.sensitive, part.groups, strict=True):
                if digests is not None:
                    digests.setdefault(feature, GroupsDigest()).add(codes, levels)
                tally.add_groups(feature, levels)
                refuse_continuous(feature, pd.Series(tally.levels(feature), dtype="string"))
            if first is None:
                first = part.X.head(_FEW), part.probabilities[:_FEW]
            decided = self.model.decide_rows(part.X, part.probabilities, self.positive)
            # No sooner than the groups are few: a column of ids has as many as rows.
            if collector is not None:
                collector.add(part, own, y_true, decided)
            counts = count_groups(
                decided,
                y_true,
                part.groups,
                features=self.sensitive,
                classes=self.classes,
                positive=self.positive,
            )
            total = counts if total is None else total + counts
        notes = new.notes() + tally.notes(self.model)
        if total is None or first is None:
            raise DataError(tally.no_rows, code="AUD-DATA-EMPTY")
        self.model.check_outputs()
        self.model.check_repeatable(*first)
        for names in together(self.sensitive):
            table = total.group_by(names).table.sum(axis=2)
            notes += small_cells(names, table[:, :-1] if total.labelled else table[:, -1:])
        return total, tuple(notes)


def no_rows(spec: DataSpec) -> AuditData:
    """The structure of streamed rows without any rows: enough to check which probe needs they meet."""
    return AuditData(
        X=pd.DataFrame(index=pd.RangeIndex(0)),
        y_true=None if spec.target is None else np.empty(0, np.int64),
        sensitive_features=pd.DataFrame(columns=list(dict.fromkeys(spec.sensitive))) if spec.sensitive else None,
    )


def _n_missing(values: pa.Array) -> int:
    # NaN is a value to Arrow and a hole to everybody else.
    return int(pc.sum(pc.is_null(values, nan_is_null=True)).as_py()) if len(values) else 0


def _arrow_groups(values: pa.Array) -> tuple[npt.NDArray[np.integer], list[str]]:
    """Codes (n,) into the names of the groups, each name once."""
    encoded = values.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    if not pa.types.is_string(encoded.dictionary.type):
        levels = as_text(encoded.dictionary.to_pandas()).fillna(MISSING).tolist()
    else:
        levels = encoded.dictionary.to_pylist()
    names = [*(label_name(level) for level in levels), MISSING]
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(place) < len(names):  # one group under two spellings, or NaN beside null
        codes = np.asarray([place[name] for name in names], np.int64)[codes]
    return codes, list(place)
