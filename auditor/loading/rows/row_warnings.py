"""Warnings about rows: exact copies, people with several rows, and groups with too few rows for a rate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from auditor.core.errors import DataError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.audit_data_parts import Design, design_of
from auditor.data.bins import MOST_VALUES
from auditor.data.group_counts import coded
from auditor.data.group_counts import together as put_together
from auditor.judging.measurement import MOST_COPIES, Copies, why_doubtful
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.column_roles import FEWEST_VALUES, called_an_id, id_like
from auditor.loading.rows.table_files import TableFile
from auditor.loading.user_code import code_process

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Different rows that are remembered; of more than that, a share by their digests: all copies of a row or none.
_MOST_REMEMBERED = 1 << 18
# Different values of a column that are counted.
_MOST_VALUES = 1 << 12
# The same of each set of columns in which near copies may agree, and how many columns are left out one by one.
_MOST_OF_SET, _MOST_LEFT_OUT = 1 << 14, 64
# Twice the log likelihood ratio that chance exceeds with a probability of 1e-8, of one number of copies of one set.
_UNLIKELY = 32.0
# Columns of at most so many values each are coarse, where there are no more than so many columns; of their rows so many
# are kept, and so many are drawn of what they say of pairs of columns.
_COARSE, _MOST_COARSE, _SAMPLED, _MOST_DRAWN = 128, 64, 1 << 14, 1 << 20
# Values are the same in their leading digits: in steps of so much of their standard deviation in the first batch, which
# begin where no round number lies.
_STEP, _BEGIN = 1e-3, 0.382
# Answers to the same row in another batch may differ in the last digits.
_DIGITS_OF_ANSWERS = 9
# Of the different rows of people who only happen to agree more than these occur once; of a file that was pasted none.
_SINGLES = 0.05
_SOMEBODY = re.compile(
    r"(^|[_\W])(person|patient|customer|client|user|subject|participant|applicant|borrower|member|student|employee|"
    r"household|speaker|writer|author|document|doc|site|hospital|school)s?($|[_\W\d])",
    re.IGNORECASE,
)


class RepeatCount:
    """A counter of rows that repeat an earlier one, batch by batch, in constant memory; ``near``: or nearly do."""

    def __init__(self, *, near: bool = False) -> None:
        self._n = 0
        self._rows = _Occurrences(_MOST_REMEMBERED)
        self._near = _NearCopies() if near else None
        self._values: dict[str, set[int] | None] = {}
        self._coarse: _CoarseRows | None = _CoarseRows()

    @property
    def columns(self) -> set[str]:
        """The columns that distinguish the rows."""
        return set(self._values)

    @property
    def sampled(self) -> bool:
        """Whether there were too many distinct rows for exact counting, so that the result is an estimate."""
        return self._rows.sampled

    def add(self, frame: pd.DataFrame) -> None:
        """Rows of a table; every batch has the same columns."""
        rows, columns = np.zeros(len(frame), np.uint64), list[npt.NDArray[np.uint64]]()
        for name in frame.columns:
            own = _digests(frame[name])
            self._remember(str(name), own)
            columns.append(own)
            rows *= np.uint64(1_000_003)
            rows += own
        self._n += len(frame)
        self._rows.add(rows)
        few = all(values is not None and len(values) <= _COARSE for values in self._values.values())
        self._coarse = self._coarse if few and 1 < len(columns) <= _MOST_COARSE else None
        if self._coarse is not None:
            self._coarse.add(np.column_stack(columns))
        if self._near is not None:
            self._near.add(frame)

    def _remember(self, name: str, digests: npt.NDArray[np.uint64]) -> None:
        seen = self._values.setdefault(name, set())
        if seen is None:
            return
        # A column of many values shows it at once.
        seen.update(np.unique(digests[:_MOST_VALUES]).tolist())
        if len(seen) < _MOST_VALUES // 2:
            seen.update(pd.unique(pd.Series(digests)).tolist())
        if len(seen) >= _MOST_VALUES // 2:
            self._values[name] = None

    @property
    def singles(self) -> float:
        """The share of the different rows that occur once."""
        counts = self._rows.counts
        return float((counts == 1).mean()) if counts.size else 1.0

    def result(self) -> Copies:
        """The counted copies."""
        possible = 1
        for values in self._values.values():
            possible = min(possible * (_MOST_VALUES if values is None else len(values)), self._n + 1)
        unlikely, times = unlikely_times(self._rows.counts)
        if unlikely <= _UNLIKELY:
            times = int(np.gcd.reduce(self._rows.counts)) if self._rows.counts.size else 1
        copies = round(self._rows.share * self._n)
        found = Copies(n=self._n, copies=copies, combinations=possible, divisor=times)
        if self._coarse is None or not why_doubtful(found):
            return found
        return found.model_copy(update={"expected": self._coarse.expected(self._n)})

    def near(self) -> Copies | None:
        """Rows that were pasted, with columns or last digits of their own; None where chance may have made them."""
        return None if self._near is None else self._near.result(self._n)


class _CoarseRows:
    """A systematic sample of rows whose columns have few values each, in constant memory."""

    def __init__(self) -> None:
        self._step, self._next = 1, 0
        self._rows: list[npt.NDArray[np.uint64]] = []

    def add(self, rows: npt.NDArray[np.uint64]) -> None:
        """Rows (n, columns) as digests of their values."""
        self._rows.append(rows[self._next :: self._step])
        self._next = (self._next - len(rows)) % self._step
        if sum(map(len, self._rows)) > 2 * _SAMPLED:
            self._rows = [np.concatenate(self._rows)[::2]]
            self._step *= 2

    def expected(self, n: int) -> int:
        """How many different rows ``n`` of the tree of pairs have that fits the sample best (Chow and Liu, IEEE
        Transactions on Information Theory 14, 1968), of at most a million drawn."""
        rows = np.concatenate(self._rows)
        codes = np.column_stack([np.unique(column, return_inverse=True)[1] for column in rows.T])
        shared = np.zeros((codes.shape[1],) * 2)
        for i, j in combinations(range(codes.shape[1]), 2):
            shared[i, j] = _mutual_information(codes[:, i], codes[:, j])
        # The largest tree is the smallest of what is left to one more than the largest.
        order, parents = breadth_first_order(
            minimum_spanning_tree(np.triu(shared.max() + 1.0 - shared, 1)), 0, directed=False
        )
        rng = np.random.default_rng(0)
        drawn = np.zeros(min(n, _MOST_DRAWN), np.uint64)
        values = {int(order[0]): rng.choice(codes[:, order[0]], len(drawn))}
        for child in map(int, order):
            if parents[child] >= 0:
                values[child] = _drawn_given(
                    values[int(parents[child])], codes[:, int(parents[child])], codes[:, child], rng
                )
            drawn = drawn * np.uint64(1_000_003) + values[child].astype(np.uint64)
        return len(np.unique(drawn))


def _drawn_given(
    given: npt.NDArray[np.int64], parent: npt.NDArray[np.int64], child: npt.NDArray[np.int64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """(n,) values of a column, each of a row of the sample that has the ``given`` value of another."""
    order = np.argsort(parent, kind="stable")
    counts = np.bincount(parent)
    begins = np.cumsum(counts) - counts
    drawn = begins[given] + (rng.random(len(given)) * counts[given]).astype(np.int64)
    return np.asarray(child[order[drawn]], np.int64)


def _mutual_information(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    """In nats, of the frequencies as they are."""
    width = int(b.max()) + 1
    joint = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).reshape(-1, width) / len(a)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0.0
    return float((joint[there] * np.log(joint[there] / apart[there])).sum())


class _Occurrences:
    """How often each row occurs, by its digest; of more than ``most`` different ones a share of all digests."""

    def __init__(self, most: int, *, thinned: bool = False) -> None:
        self._most, self._thinned = most, thinned
        self._below = 1 << 64
        self._digests = np.empty(0, np.uint64)
        self.counts = np.empty(0, np.int64)

    @property
    def sampled(self) -> bool:
        return self._below < 1 << 64

    @property
    def share(self) -> float:
        """Copies among the rows."""
        seen = int(self.counts.sum())
        return (seen - self.counts.size) / seen if seen else 0.0

    def add(self, rows: npt.NDArray[np.uint64]) -> None:
        # Of very many rows some are left out before they are sorted, where not all are asked for.
        while self._thinned and len(rows) * (self._below / (1 << 64)) > 4 * self._most:
            self._halve()
        if self.sampled:
            rows = rows[rows < np.uint64(self._below)]
        new, counts = np.unique(rows, return_counts=True)
        both = np.concatenate([self._digests, new])
        # A stable sort merges what is in order already.
        order = np.argsort(both, kind="stable")
        both = both[order]
        begins = np.flatnonzero(np.diff(both, prepend=~both[:1]))
        self._digests = both[begins]
        self.counts = np.add.reduceat(np.concatenate([self.counts, counts])[order], begins) if both.size else counts
        while self._digests.size > self._most:
            self._halve()

    def _halve(self) -> None:
        self._below >>= 1
        kept = self._digests < np.uint64(self._below)
        self._digests, self.counts = self._digests[kept], self.counts[kept]


class _NearCopies:
    """Rows that agree in the leading digits of all columns, or all but one, or but for those whose values are unique.

    What the first batch shows decides which columns are unique, and how large the steps are.
    """

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}
        self._unique: list[str] = []
        self._sets: dict[tuple[str, ...], _Occurrences] = {}

    def add(self, frame: pd.DataFrame) -> None:
        if not frame.columns.is_unique or not len(frame):
            return
        names = [str(name) for name in frame.columns]
        frame = frame.set_axis(names, axis=1)
        if not self._sets:
            self._begin(frame)
        rows = np.zeros(len(frame), np.uint64)
        own: dict[str, npt.NDArray[np.uint64]] = {}
        for place, name in enumerate(names):
            # Sums of these wrap around, so that a column can be taken out again.
            part = _digests(_leading(frame[name], self._steps.get(name, 0.0))) * np.uint64(
                pow(1_000_003, place, 1 << 64)
            )
            rows += part
            if any(name in left_out for left_out in self._sets):
                own[name] = part
        for left_out, counted in self._sets.items():
            counted.add(rows - sum((own[name] for name in left_out), np.zeros(1, np.uint64)))

    def _begin(self, frame: pd.DataFrame) -> None:
        first = frame.iloc[:_MOST_VALUES]
        different = {name: first[name].nunique(dropna=False) for name in frame.columns}
        for name in frame.columns:
            if frame[name].dtype.kind in "iuf":
                spread = float(np.nanstd(frame[name].to_numpy(np.float64))) if frame[name].notna().any() else 0.0
                self._steps[name] = 2.0 ** np.floor(np.log2(_STEP * spread)) if 0.0 < spread < np.inf else 0.0
        unique = tuple(name for name, n in different.items() if n > 0.5 * len(first))
        alone = sorted(frame.columns, key=lambda name: -different[name])[:_MOST_LEFT_OUT]
        sets = [(), *((name,) for name in alone)]
        if unique:
            sets += [unique, *((*unique, name) for name in alone if name not in unique)]
        # What is left must be able to tell rows apart.
        sets = [left_out for left_out in sets if len(left_out) < frame.shape[1]]
        self._sets = {left_out: _Occurrences(_MOST_OF_SET, thinned=True) for left_out in sets}

    def result(self, n: int) -> Copies | None:
        found = {left_out: (*unlikely_times(counted.counts), counted.share) for left_out, counted in self._sets.items()}
        if not found:
            return None
        left_out, (unlikely, times, share) = max(found.items(), key=lambda each: each[1][0])
        if unlikely <= _UNLIKELY + 2.0 * math.log(len(found)):
            return None
        but_for = ", ".join(left_out) or "their last digits"
        return Copies(n=n, copies=round(share * n), combinations=n + 1, divisor=times, but_for=but_for)


class RepeatedAnswers:
    """A counter of rows with the same label that a model answers alike, batch by batch, in constant memory.

    Rows that were pasted with noise in columns that the model does not read differ in no answer, whatever the noise is.
    Independent rows have independent answers, so that what chance allows is the same as of the rows themselves.
    """

    def __init__(self) -> None:
        self._n = 0
        self._rows = _Occurrences(_MOST_OF_SET, thinned=True)

    def add(self, probabilities: FloatArray, y_true: IntArray | None) -> None:
        """probabilities (n, n_classes) and labels (n,) of the next rows."""
        table = pd.DataFrame(np.round(probabilities, _DIGITS_OF_ANSWERS) + 0.0)
        table["label"] = 0 if y_true is None else y_true
        self._n += len(table)
        self._rows.add(np.asarray(pd.util.hash_pandas_object(table, index=False), np.uint64))

    def result(self) -> Copies | None:
        """Rows that were pasted; None where chance may have made them."""
        unlikely, times = unlikely_times(self._rows.counts)
        if unlikely <= _UNLIKELY:
            return None
        but_for = "columns on which the model's answers do not depend"
        copies = round(self._rows.share * self._n)
        return Copies(n=self._n, copies=copies, combinations=self._n + 1, divisor=times, but_for=but_for)


def answers_are_comparable(model: AuditedModel) -> bool:
    """Whether the model's answers are had before any probe runs, to see by them that rows were pasted.

    Not those of networks, whose forward passes are counted by probe, nor of code and servers, which may fail or hang.
    """
    return (
        model.kind == "classifier"
        and model.forwarded is None
        and model.can_be_asked
        and code_process() is None
        and not hasattr(model, "client")
    )


def with_repeated_answers(model: AuditedModel, data: AuditData) -> AuditData:
    """The rows, with their copies where only the model's answers show that they were pasted."""
    unseen = data.copies is not None and not why_doubtful(data.copies)
    if not unseen or not isinstance(data.X, pd.DataFrame) or not answers_are_comparable(model):
        return data
    counted = RepeatedAnswers()
    try:
        counted.add(model.outputs(data.evaluation), data.evaluation.y_true)
    except Exception:  # what the model refuses each probe says for itself
        return data
    found = counted.result()
    return data if found is None else replace(data, copies=found, notes=(*data.notes, *on_copies(found)))


def unlikely_times(counts: IntArray) -> tuple[float, int]:
    """How unlikely chance makes it that so many different rows occur a number of times, and which number that is.

    ``counts``: how often each row occurs. Of independent rows, whatever their distribution, the expected numbers F_k of
    different rows that occur k times are those of a mixture of Poisson distributions, so ``F_k^2 k / (k + 1) <=
    F_(k-1) F_(k+1)``: none occurs often without its neighbours. Twice the log of the likelihood ratio against that, the
    largest of any k from 2. Rows that were pasted twelve times occur twelve times, and neither eleven nor thirteen.
    """
    if not counts.size or counts.max() < 2:
        return 0.0, 1
    # Rows may occur any number of times: the numbers that occur, with their neighbours.
    occurring, observed = np.unique(counts, return_counts=True)
    number = dict(zip(occurring.tolist(), observed.tolist(), strict=True))
    best = (0.0, 1)
    for k in occurring[occurring >= 2].tolist():
        below, here, above = (float(number.get(k + step, 0)) for step in (-1, 0, 1))
        ratio = k / (k + 1.0)
        # The likeliest expectations that keep the inequality move ``shift`` from here to either side.
        excess = ratio * here**2 - below * above
        if excess <= 0.0:
            continue
        linear = below + above + 4.0 * ratio * here
        shift = 2.0 * excess / (linear + math.sqrt(linear**2 + 4.0 * (1.0 - 4.0 * ratio) * excess))
        expected = (below + shift, here - 2.0 * shift, above + shift)
        unlikely = 2.0 * sum(o * math.log(o / e) for o, e in zip((below, here, above), expected, strict=True) if o)
        best = max(best, (unlikely, k))
    return best


def _leading(values: pd.Series[Any], step: float) -> pd.Series[Any]:
    """Numbers by the steps that they are in; any other value as it stands."""
    if values.dtype.kind not in "iufb" or not step:
        return values
    return pd.Series(np.floor(values.to_numpy(np.float64) / step + _BEGIN))


def _digests(values: pd.Series[Any]) -> npt.NDArray[np.uint64]:
    """(n,) a digest of each value; all numbers have one type, since of two batches one may hold whole numbers, and the
    other have gaps and be of fractions."""
    if values.dtype.kind in "iufb":
        return np.asarray(pd.util.hash_array(values.astype(np.float64).to_numpy() + 0.0), np.uint64)
    return np.asarray(pd.util.hash_pandas_object(values, index=False), np.uint64)


def requested_design(frame: pd.DataFrame, spec: DataSpec) -> Design | None:
    """The sampling design of the rows; None if no flag requests one.

    Raises DataError.
    """
    return design_of(
        None if spec.cluster is None else frame[spec.cluster],
        None if spec.weight is None else frame[spec.weight],
        cluster=spec.cluster,
        weight=spec.weight,
        cluster_at_most=spec.cluster_at_most,
        weight_at_most=spec.weight_at_most,
    )


def repeats_in(file: TableFile, content: pd.DataFrame | RepeatCount, spec: DataSpec) -> tuple[Copies | None, list[str]]:
    """The copies among the rows of a file, and notes on them and on repeated ids.

    ``content``: the rows, or what was counted of them as they streamed by. Rows that agree in the columns that were
    read may differ in others, such as an id or an answer: where many agree, all columns of the file are looked at. A
    column that numbers the rows hides no file that was pasted: where hardly a row is alone without it, it is left out.
    Rows of one cluster may agree, rows of different ones not. Nothing is counted where a flag has said that copies are
    real.
    """
    written = None if spec.recorded is None else spec.recorded.generated
    texts = {spec.text, written}
    if written is not None and isinstance(content, pd.DataFrame):
        # What a model wrote is what such a row is about, though it was read apart.
        content = content.assign(
            **{written: file.read([written], {written: pa.string()}).to_pandas()[written].to_numpy()}
        )
    if spec.cluster is not None:
        return (_across(content, spec.cluster, texts) if isinstance(content, pd.DataFrame) else None), []
    if spec.copies_are_real:
        said = "Rows that are exact copies of others count as rows of their own: --copies-are-real."
        return None, [said, *_on_ids(file)]
    counted = content if isinstance(content, RepeatCount) else RepeatCount(near=True)
    if not isinstance(content, RepeatCount):
        counted.add(content)
    found = counted.result()
    if found.share > MOST_COPIES and set(file.columns) - counted.columns:
        found = _over_all_columns(file) or found
    if not why_doubtful(found):
        found = (_pasted(content, texts, counted) if isinstance(content, pd.DataFrame) else _doubtful(counted)) or found
    if not why_doubtful(found):
        found = counted.near() or found
    return found, [*on_copies(found), *_on_ids(file)]


def _pasted(frame: pd.DataFrame, texts: set[str | None], whole: RepeatCount) -> Copies | None:
    """What rows repeat but for the columns that number them, where hardly any does not; None elsewhere. ``whole``: what
    was counted with those columns."""
    numbering = _numbering(frame, texts)
    return _but_for(frame, numbering) if numbering else _doubtful(whole)


def _but_for(frame: pd.DataFrame, columns: list[str]) -> Copies | None:
    counted = RepeatCount()
    counted.add(frame.drop(columns=columns))
    return _doubtful(counted)


def _doubtful(repeats: RepeatCount) -> Copies | None:
    found = repeats.result()
    return found if why_doubtful(found) and repeats.singles < _SINGLES else None


def _numbering(frame: pd.DataFrame, texts: set[str | None]) -> list[str]:
    """Columns that name rows rather than describe them; a short text, read or written, looks like one, and is not."""
    return [name for name in id_like(frame) if name not in texts]


def _across(frame: pd.DataFrame, cluster: str, texts: set[str | None]) -> Copies | None:
    """Rows that repeat in another cluster, where hardly any does not; None elsewhere."""
    numbering = [name for name in _numbering(frame, texts) if name != cluster]
    return _but_for(frame.drop(columns=numbering).drop_duplicates(), [cluster])


def _over_all_columns(file: TableFile) -> Copies | None:
    whole = RepeatCount()
    try:
        for batch in file.batches(file.columns, dict.fromkeys(file.columns, pa.string())):
            whole.add(batch.to_pandas())
    except DataError:  # a column that is no text, and that nobody asked for
        return None
    return whole.result()


def on_copies(copies: Copies) -> list[str]:
    """What is said of them among the notes on the rows."""
    if doubt := why_doubtful(copies):
        return [doubt]
    if copies.share > MOST_COPIES:
        of = f"{copies.copies:,} of {copies.n:,} rows are exact copies of other rows, as"
        if copies.expected:
            return [
                f"{of} their columns have few values each: related in pairs alone, these would give about "
                f"{copies.expected:,} different rows, and there are {copies.n - copies.copies:,}, in numbers that "
                "chance allows. They count as rows of their own."
            ]
        return [f"{of} their columns allow for no more than {copies.combinations:,} different ones."]
    return []


def _on_ids(file: TableFile) -> list[str]:
    """Columns of the file that name somebody, by their name, of whom there are several rows."""
    notes = []
    for name in file.columns:
        if not (called_an_id(name) or _SOMEBODY.search(name)):
            continue
        counted = RepeatCount()
        try:
            for batch in file.batches([name], {name: pa.string()}):
                counted.add(batch.to_pandas().dropna())
        except DataError:
            continue
        n, copies = counted.result().n, counted.result().copies
        if FEWEST_VALUES < n - copies < (1.0 - MOST_COPIES) * n:
            about = "about " if counted.sampled else ""
            notes.append(
                f"Column {name!r} names {about}{n - copies:,} in {n:,} rows: where it says whom a row is about, the "
                f"rows are not independent, and every interval is too narrow without --cluster {name}."
            )
    return notes


# Rows below which a group's rate says little.
SMALL = 30


def together(features: Sequence[str]) -> list[tuple[str, ...]]:
    """Each feature, and all of them together if there are several."""
    return [*((name,) for name in features), *([tuple(features)] if len(features) > 1 else [])]


def cells_of(groups: pd.DataFrame, y_true: IntArray | None) -> IntArray:
    """(n_groups, n_classes) rows by group and label; rows without a label are omitted if others have one."""
    group = put_together([coded(groups[name]) for name in groups.columns])
    label = np.zeros(len(groups), np.int64) if y_true is None else y_true
    n_labels = max(int(label.max()) + 1, 1)
    cells = (group.codes * n_labels + label).compress(label >= 0)
    return np.bincount(cells, minlength=len(group.levels) * n_labels).reshape(-1, n_labels)


def small_cells(names: Sequence[str], cells: IntArray) -> list[str]:
    """The number of cells with too few rows for a rate; empty if there are few groups."""
    n_groups, n_labels = cells.shape
    small = int((cells < SMALL).sum())
    if n_groups <= MOST_VALUES or not small:
        return []
    what = f"{n_groups:,} groups of {' x '.join(names)}"
    by = f" by {n_labels} labels" if n_labels > 1 else ""
    return [
        f"{small:,} of the {cells.size:,} cells of {what}{by} have fewer than {SMALL} rows: rates in them are hardly "
        "known. Put groups together, those of numbers with --bins."
    ]
