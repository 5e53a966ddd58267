"""The model's answers on the evaluation rows, by row and counted by group: the basis of most numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from auditor.core.errors import NO_SCORES, DataError, NotApplicableError, UsageError
from auditor.core.files import Closed, Spool
from auditor.core.number_types import PositiveCount
from auditor.core.rows import FloatArray, IntArray
from auditor.data.group_counts import GroupCounts, count_groups

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

MOST_CLASSES = 100
MOST_ROWS = 5_000_000
# Scores of rows that do not say their group are means of at least so many: a group's own statistics, such as the mean
# score in a bin of its calibration, could else be found among the rows.
BLURRED_OVER = 10
_MOST_NAMED = 10_000
_LARGEST_COUNT = 1 << 53
_ROWS_AT_ONCE = 10_000
# What a model gives beside its decisions: probabilities, or labels in their place, or nothing.
Scores = Literal["graded", "labels", "none"]


class CountsRecord(Closed):
    """A :class:`~auditor.data.group_counts.GroupCounts` as data."""

    features: tuple[str, ...]
    classes: Annotated[tuple[str, ...], Field(max_length=_MOST_NAMED)]
    groups: tuple[tuple[str, ...], ...]
    table: tuple[tuple[tuple[Annotated[int, Field(ge=0, le=_LARGEST_COUNT)], ...], ...], ...]
    positive: int | None = None

    @classmethod
    def from_counts(cls, counts: GroupCounts) -> CountsRecord:
        """The record of a table."""
        return cls(
            features=counts.features,
            classes=counts.classes,
            groups=counts.groups,
            table=tuple(tuple(tuple(map(int, row)) for row in group) for group in counts.table),
            positive=counts.positive,
        )

    def counts(self) -> GroupCounts:
        """The table. Raises DataError where its parts do not fit each other."""
        k = len(self.classes)
        fits = len(self.table) == len(self.groups) and all(
            len(group) == k + 1 and all(len(row) == k for row in group) for group in self.table
        )
        if not fits or any(len(g) != len(self.features) for g in self.groups):
            raise DataError("The table of groups does not fit its own classes and features.")
        table = np.asarray(self.table, np.int64).reshape(len(self.groups), k + 1, k)
        return GroupCounts(self.features, self.classes, self.groups, table, self.positive)


class AnswersHead(Closed):
    """Meaning of the row columns: ``scores`` of them are class probabilities, or none.

    ``blurred``: each score is the mean of so many rows at least, of neighbouring scores and the same decision; 1 where
    it is the row's own. ``features``: sensitive features whose group stands in every row, ``levels`` their groups in
    order; empty unless rows were asked for.
    """

    kind: Literal["classifier", "regressor"]
    n: Annotated[int, Field(ge=0, le=MOST_ROWS)]
    classes: Annotated[tuple[str, ...], Field(max_length=_MOST_NAMED)] = ()
    positive: int | None = None
    blurred: PositiveCount = 1
    scores: Annotated[int, Field(ge=0, le=MOST_CLASSES)] = 0
    features: tuple[str, ...] = ()
    levels: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="after")
    def _levels_of_each_feature(self) -> Self:
        if len(self.levels) != len(self.features) or len(set(self.features)) != len(self.features):
            raise ValueError("every feature has its levels, once")
        return self


class AnswersPart(Closed):
    """Some rows: true class or number (None if missing), decision or prediction, scores, groups."""

    truth: tuple[float | None, ...]
    predicted: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]
    groups: tuple[tuple[str, ...], ...]


@dataclass(eq=False)
class Answers:
    """The answers of one audit: a head, rows (n,), and the table of groups.

    truth, predicted: (n,), NaN where there is no truth. scores: (n, k). groups: per feature (n,) names.
    """

    head: AnswersHead
    truth: FloatArray
    predicted: FloatArray
    scores: FloatArray
    groups: dict[str, list[str]] = field(default_factory=dict)
    counts: CountsRecord | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    def recount(self) -> GroupCounts | None:
        """The group table recounted from the rows; None if they have no groups or no decisions."""
        if not self.groups or self.head.kind != "classifier":
            return None
        columns = [
            (_codes(self.groups[name], levels), levels)
            for name, levels in zip(self.head.features, self.head.levels, strict=True)
        ]
        return count_groups(
            self.predicted.astype(np.int64),
            self._labels(),
            columns,
            features=self.head.features,
            classes=self.head.classes,
            positive=self.head.positive,
        )

    def crossed(self) -> IntArray:
        """(n_classes + 1, n_classes) rows by true class, the last for those without one, and decision."""
        k = len(self.head.classes)
        table = np.zeros((k + 1, k), np.int64)
        labels = self._labels()
        np.add.at(table, (np.where(labels < 0, k, labels), self.predicted.astype(np.int64)), 1)
        return table

    def _labels(self) -> IntArray:
        return np.where(np.isnan(self.truth), -1, self.truth).astype(np.int64)

    def data(self) -> AuditData:
        """Rows without features: labels or numbers, and groups if they are stored."""
        import pandas as pd

        from auditor.data.audit_data import AuditData

        regression = self.head.kind == "regressor"
        known = not np.isnan(self.truth).all()
        groups = (
            pd.DataFrame(
                {
                    name: pd.Categorical(self.groups[name], categories=list(levels))
                    for name, levels in zip(self.head.features, self.head.levels, strict=True)
                }
            )
            if self.groups
            else None
        )
        return AuditData(
            X=np.zeros((len(self), 1)),
            y_true=None if regression or not known else self._labels(),
            target_values=self.truth if regression and known else None,
            classes=self.head.classes,
            positive=self.head.positive,
            sensitive_features=groups,
        )

    def rows_to_csv(self) -> bytes:
        """One line per row, with a header; numbers in round-trip precision."""
        return b"".join([_lines([_columns(self.head)]), *self.blocks()])

    def blocks(self) -> Iterator[bytes]:
        """The lines of the rows, in parts."""
        groups = [self.groups[name] for name in self.head.features]
        for start in range(0, len(self), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            own = [values[some] for values in groups]
            numbers = [column[some].tolist() for column in (self.truth, self.predicted, self.scores)]
            yield _lines(
                ["" if truth != truth else _number(truth), _number(predicted), *map(repr, scores), *(v[i] for v in own)]
                for i, (truth, predicted, scores) in enumerate(zip(*numbers, strict=True))
            )


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def _columns(head: AnswersHead) -> list[str]:
    scores = [f"score:{name}" for name in head.classes[: head.scores]]
    return ["truth", "predicted", *scores, *(f"group:{name}" for name in head.features)]


def _number(x: float) -> str:
    return str(int(x)) if x.is_integer() and abs(x) < 2**53 else repr(x)


def _codes(values: Sequence[str], levels: Sequence[str]) -> IntArray:
    place = {level: i for i, level in enumerate(levels)}
    return np.asarray([place[value] for value in values], np.int64)


def rows_of(table: GroupCounts, kind: Scores) -> Answers:
    """Unordered rows equivalent to a table: decisions, true classes and groups; any scores are artificial."""
    k = len(table.classes)
    cells = np.argwhere(table.table > 0)
    times = table.table[tuple(cells.T)]
    group, truth, decided = (np.repeat(column, times) for column in cells.T)
    groups = {
        name: np.asarray([levels[i] for levels in table.groups], object)[group].tolist()
        for i, name in enumerate(table.features)
    }
    scores = np.empty((len(group), 0))
    if kind != "none":
        scores = np.eye(k)[decided]
    if kind == "graded":
        scores = np.random.default_rng([0, *b"made up"]).dirichlet(np.ones(k), len(group))
    head = AnswersHead(
        kind="classifier",
        n=len(group),
        classes=table.classes,
        positive=table.positive,
        scores=scores.shape[1],
        features=table.features,
        levels=tuple(tuple(sorted({levels[i] for levels in table.groups})) for i in range(len(table.features))),
    )
    known = np.where(truth == k, np.nan, truth.astype(np.float64))
    return Answers(head, known, decided.astype(np.float64), scores, groups)


class StoredModel:
    """A model from stored answers: a stand-in for probes that read outputs and decisions only."""

    features = None
    preprocessing = None
    threshold = 0.5
    can_be_asked = False
    rows_alone = False
    group_columns: tuple[str, ...] = ()
    in_question = False

    def __init__(self, answers: Answers) -> None:
        self.kind = answers.head.kind
        self.classes = answers.head.classes
        self._answers = answers

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def has_answers(self, data: AuditData) -> bool:
        """Whether the answers are available: always, for any rows."""
        return True

    def outputs(self, data: AuditData) -> FloatArray:
        """(n, n_classes) stored probabilities.

        Raises NotApplicableError where the model gave none, DataError where they were not kept.
        """
        if not self._answers.head.scores and self.n_outputs <= MOST_CLASSES and self._answers.head.blurred == 1:
            raise NotApplicableError(NO_SCORES)
        if self._answers.head.scores < self.n_outputs:
            raise DataError("The bundle keeps no probabilities of so many classes.")
        return self._answers.scores

    scores = outputs

    def decisions(self, data: AuditData) -> IntArray:
        """(n,) stored decisions."""
        return self._answers.predicted.astype(np.int64)

    def predictions(self, data: AuditData) -> FloatArray:
        """(n,) stored predicted numbers."""
        return self._answers.predicted


# ---- from a model ----------------------------------------------------------------------------------------------------


def head_of(model: AuditedModel, data: AuditData, *, include_rows: bool) -> AnswersHead | None:
    """The stored part of a model's answers on the evaluation rows; None if it neither decides nor predicts."""
    rows = data.evaluation
    if model.kind not in ("classifier", "regressor") or not len(rows) or len(rows) > MOST_ROWS:
        return None
    groups = rows.sensitive_features
    k = len(model.classes)
    kept = [] if groups is None or not include_rows else list(groups.columns)
    blur = groups is not None and not include_rows and model.kind == "classifier"
    # A blurred score is one number a row; of many classes none is kept.
    most = 2 if blur else MOST_CLASSES
    return AnswersHead(
        kind="classifier" if model.kind == "classifier" else "regressor",
        n=len(rows),
        classes=model.classes if model.kind == "classifier" else (),
        positive=rows.positive,
        blurred=BLURRED_OVER if blur else 1,
        scores=k if model.kind == "classifier" and k <= most and _gives_scores(model, rows) else 0,
        features=tuple(map(str, kept)),
        levels=() if groups is None else tuple(tuple(_levels(groups[name])) for name in kept),
    )


def _gives_scores(model: AuditedModel, rows: AuditData) -> bool:
    try:
        model.outputs(rows)
    except NotApplicableError:  # its decisions are all that is known of it
        return False
    return True


def _levels(values: Any) -> list[str]:
    return [str(level) for level in values.astype("category").cat.categories]


def parts_of(model: AuditedModel, data: AuditData, head: AnswersHead) -> Iterator[AnswersPart]:
    """The rows in parts, each small enough for one message; the model is called immediately."""
    rows = data.evaluation
    predicted: Any
    if head.kind == "regressor":
        predicted = model.predictions(rows)  # type: ignore[attr-defined]
        truth, scores = rows.target_values, np.empty((len(rows), 0))
    else:
        predicted = model.decisions(rows)
        truth = None if rows.y_true is None else np.where(rows.y_true < 0, np.nan, rows.y_true.astype(np.float64))
        scores = model.scores(rows)[:, : head.scores] if head.scores else np.empty((head.n, 0))
        if head.blurred > 1 and head.scores:
            scores = blurred(scores, predicted, head.blurred)
    return (
        _part(rows, slice(start, start + _ROWS_AT_ONCE), head, truth, predicted, scores)
        for start in range(0, head.n, _ROWS_AT_ONCE)
    )


def _part(
    rows: AuditData, span: slice, head: AnswersHead, truth: FloatArray | None, predicted: Any, scores: FloatArray
) -> AnswersPart:
    own = [None] * len(predicted[span]) if truth is None else [None if t != t else t for t in truth[span].tolist()]
    groups = rows.sensitive_features
    names = [groups[name].iloc[span].astype(str).tolist() for name in head.features] if groups is not None else []
    return AnswersPart(
        truth=tuple(own),
        predicted=tuple(map(float, predicted[span])),
        scores=tuple(map(tuple, scores[span].tolist())),
        groups=tuple(zip(*names, strict=True)),
    )


def blurred(scores: FloatArray, predicted: IntArray, least: int) -> FloatArray:
    """(n, 2) scores, each replaced by the mean of a block of at least ``least`` neighbouring ones of the same decision.

    A class that was decided on for fewer rows is one block.
    """
    out = np.empty_like(scores)
    for decision in np.unique(predicted):
        rows = np.flatnonzero(predicted == decision)
        rows = rows[np.argsort(scores[rows, -1], kind="stable")]
        for block in np.array_split(rows, max(1, len(rows) // least)):
            out[block] = scores[block].mean(axis=0)
    return out


def counts_of(model: AuditedModel, data: AuditData) -> CountsRecord | None:
    """The table of groups of the evaluation rows; None without decisions or without groups."""
    rows = data.evaluation
    if model.kind != "classifier" or rows.sensitive_features is None:
        return None
    return CountsRecord.from_counts(rows.count_by_group(model.decisions(rows), model.classes))


class KeptRows:
    """``rows.csv`` as its rows arrive, in parts: each is checked and written immediately to save memory.

    ``head``: what is said of them.
    """

    def __init__(self, head: AnswersHead) -> None:
        self.head, self._content = head, Spool()
        self._content.add(_lines([_columns(head)]))
        self._n, self.strange = 0, False
        self._no_room: UsageError | None = None

    @property
    def content(self) -> Spool:
        """The file so far. Raises UsageError where there was no room for it: an audit goes on without its evidence."""
        if self._no_room is not None:
            raise self._no_room
        return self._content

    @property
    def whole(self) -> bool:
        """Whether all rows arrived with possible model answers."""
        return self._n == self.head.n and not self.strange

    def add(self, part: AnswersPart) -> None:
        """The next rows. Raises DataError where they are more than the head says, or other columns."""
        head, m = self.head, len(part.predicted)
        fits = len(part.truth) == len(part.scores) == m and all(len(row) == head.scores for row in part.scores)
        grouped = len(part.groups) == m and all(len(row) == len(head.features) for row in part.groups)
        self._n += m
        if not fits or not 0 < m <= head.n - self._n + m or (head.features and not grouped):
            raise DataError("The model's answers do not fit what was said of them.")
        try:
            answers = _checked(
                head,
                np.asarray([np.nan if t is None else t for t in part.truth], np.float64),
                np.asarray(part.predicted, np.float64),
                np.asarray(part.scores, np.float64).reshape(m, head.scores),
                {name: [row[i] for row in part.groups] for i, name in enumerate(head.features)},
                None,
            )
        except DataError:  # verification says that there are none
            self.strange = True
            return
        try:
            for block in answers.blocks() if self._no_room is None else ():
                self._content.add(block)
        except UsageError as error:
            self._no_room = error


def _checked(
    head: AnswersHead,
    truth: FloatArray,
    predicted: FloatArray,
    scores: FloatArray,
    groups: dict[str, list[str]],
    counts: CountsRecord | None,
) -> Answers:
    if head.kind == "classifier":
        k = len(head.classes)
        known = truth[~np.isnan(truth)]
        whole = np.concatenate([known, predicted])
        if ((whole < 0) | (whole >= k) | (whole != np.floor(whole))).any():
            raise DataError("A row's class is none of the model's classes.")
        if head.scores and (not np.isfinite(scores).all() or (scores < -1e-6).any() or (scores > 1.0 + 1e-6).any()):
            raise DataError("A row's score is no probability.")
        if head.scores == k and head.scores and (np.abs(scores.sum(axis=1) - 1.0) > 1e-3).any():
            raise DataError("A row's probabilities do not add up to 1.")
    for name, levels in zip(head.features, head.levels, strict=True):
        strange = set(groups[name]) - set(levels)
        if strange:
            raise DataError(f"A row's group of {name!r} is none of its groups: {sorted(strange)[0][:40]!r}.")
    return Answers(head, truth, predicted, scores, groups, counts)


# ---- from a bundle ---------------------------------------------------------------------------------------------------


def read_head(content: bytes) -> tuple[AnswersHead | None, CountsRecord | None]:
    """Head and table out of ``tables.json``. Raises DataError where it is none."""
    try:
        found = json.loads(content)
        head, counts = found["rows"], found["groups"]
        return (
            None if head is None else AnswersHead.model_validate(head),
            None if counts is None else CountsRecord.model_validate(counts),
        )
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise DataError(f"tables.json cannot be read: {type(error).__name__}.") from None


def tables_json(
    head: AnswersHead | None, counts: CountsRecord | None, membership: Closed | None = None
) -> Mapping[str, object]:
    """The contents of ``tables.json``; ``membership``: the head of the membership scores, if kept."""
    said: dict[str, object] = {
        "rows": None if head is None else head.model_dump(mode="json"),
        "groups": None if counts is None else counts.model_dump(mode="json"),
    }
    return said if membership is None else {**said, "membership": membership.model_dump(mode="json")}


def read_rows(content: bytes, head: AnswersHead, counts: CountsRecord | None) -> Answers:
    """The answers out of ``rows.csv``. Raises DataError naming the line that is none."""
    try:
        return _read_rows(csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", "replace", "")), head, counts)
    except csv.Error as error:
        raise DataError(f"rows.csv is no table: {error}.") from None


def _read_rows(reader: Iterator[list[str]], head: AnswersHead, counts: CountsRecord | None) -> Answers:
    width, first = 2 + head.scores + len(head.features), 2 + head.scores
    blocks: list[FloatArray] = []
    own: list[list[float]] = []
    groups: list[list[str]] = [[] for _ in head.features]
    # One text for each group, and not one for each row.
    same: dict[str, str] = {}
    if next(reader, None) != _columns(head):
        raise DataError("rows.csv: its header does not name the columns that tables.json says it has.")
    for i, line in enumerate(reader, 2):
        if len(line) != width or i > head.n + 1:
            raise DataError(f"rows.csv, line {i}: it is none of the {head.n:,} rows.")
        try:
            own.append([float(line[0] or "nan"), *map(float, line[1:first])])
        except ValueError:
            raise DataError(f"rows.csv, line {i}: it holds what is no number.") from None
        for column, name in zip(groups, line[first:], strict=True):
            column.append(same.setdefault(name, name))
        if len(own) == _ROWS_AT_ONCE:
            blocks.append(np.asarray(own, np.float64))
            own = []
    numbers = np.concatenate([*blocks, np.asarray(own, np.float64).reshape(len(own), first)])
    if len(numbers) != head.n:
        raise DataError(f"rows.csv has {len(numbers):,} rows and should have {head.n:,}.")
    return _checked(
        head,
        numbers[:, 0].copy(),
        numbers[:, 1].copy(),
        numbers[:, 2:].copy(),
        dict(zip(head.features, groups, strict=True)),
        counts,
    )
