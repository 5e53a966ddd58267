"""Warnings about rows: exact copies, people with several rows, and groups with too few rows for a rate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from auditor.core.errors import DataError
from auditor.core.rows import IntArray
from auditor.data.audit_data_parts import Design, design_of
from auditor.data.bins import MOST_VALUES
from auditor.data.group_counts import coded
from auditor.data.group_counts import together as put_together
from auditor.judging.measurement import MOST_COPIES, Copies, why_doubtful
from auditor.loading.job_specs import DataSpec
from auditor.loading.rows.column_roles import FEWEST_VALUES, called_an_id, id_like
from auditor.loading.rows.table_files import TableFile

# Different rows that are remembered; of more than that, a share by their digests: all copies of a row or none.
_MOST_REMEMBERED = 1 << 18
# Different values of a column that are counted.
_MOST_VALUES = 1 << 12
# So many different rows whose counts vary by so little of what chance makes of them were pasted, but for a few.
_FEWEST_COUNTS, _EVEN = 20, 0.2
# Of the different rows of people who only happen to agree more than these occur once; of a file that was pasted none.
_SINGLES = 0.05
_SOMEBODY = re.compile(
    r"(^|[_\W])(person|patient|customer|client|user|subject|participant|applicant|borrower|member|student|employee|"
    r"household|speaker|writer|author|document|doc|site|hospital|school)s?($|[_\W\d])",
    re.IGNORECASE,
)


class RepeatCount:
    """A counter of rows that repeat an earlier one, batch by batch, in constant memory."""

    def __init__(self) -> None:
        self._n = 0
        self._below = 1 << 64
        self._digests = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)
        self._values: dict[str, set[int] | None] = {}

    @property
    def columns(self) -> set[str]:
        """The columns that distinguish the rows."""
        return set(self._values)

    @property
    def sampled(self) -> bool:
        """Whether there were too many distinct rows for exact counting, so that the result is an estimate."""
        return self._below < 1 << 64

    def add(self, frame: pd.DataFrame) -> None:
        """Rows of a table; every batch has the same columns."""
        rows = np.zeros(len(frame), np.uint64)
        for name in frame.columns:
            own = _digests(frame[name])
            self._remember(str(name), own)
            rows *= np.uint64(1_000_003)
            rows += own
        self._n += len(frame)
        self._count(rows)

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

    def _count(self, rows: npt.NDArray[np.uint64]) -> None:
        if self.sampled:
            rows = rows[rows < np.uint64(self._below)]
        new, counts = np.unique(rows, return_counts=True)
        both = np.concatenate([self._digests, new])
        # A stable sort merges what is in order already.
        order = np.argsort(both, kind="stable")
        both = both[order]
        begins = np.flatnonzero(np.diff(both, prepend=~both[:1]))
        self._digests = both[begins]
        self._counts = np.add.reduceat(np.concatenate([self._counts, counts])[order], begins) if both.size else counts
        while self._digests.size > _MOST_REMEMBERED:
            self._below >>= 1
            kept = self._digests < np.uint64(self._below)
            self._digests, self._counts = self._digests[kept], self._counts[kept]

    @property
    def singles(self) -> float:
        """The share of the different rows that occur once."""
        return float((self._counts == 1).mean()) if self._counts.size else 1.0

    def result(self) -> Copies:
        """The counted copies."""
        seen = int(self._counts.sum())
        share = (seen - self._counts.size) / seen if seen else 0.0
        combinations = 1
        for values in self._values.values():
            combinations = min(combinations * (_MOST_VALUES if values is None else len(values)), self._n + 1)
        return Copies(
            n=self._n,
            copies=round(share * self._n),
            combinations=combinations,
            divisor=self._times() if seen else 1,
        )

    def _times(self) -> int:
        """How many times the rows were pasted: what all counts are multiples of, or nearly all are.

        Counts of rows by chance vary as a Poisson's do, with a variance of their mean.
        """
        mean = float(self._counts.mean())
        if self._counts.size >= _FEWEST_COUNTS and mean >= 2.0 and self._counts.var() < _EVEN * mean:
            return round(mean)
        return int(np.gcd.reduce(self._counts))


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
    counted = content if isinstance(content, RepeatCount) else RepeatCount()
    if not isinstance(content, RepeatCount):
        counted.add(content)
    found = counted.result()
    if found.share > MOST_COPIES and set(file.columns) - counted.columns:
        found = _over_all_columns(file) or found
    if not why_doubtful(found):
        found = (_pasted(content, texts, counted) if isinstance(content, pd.DataFrame) else _doubtful(counted)) or found
    return found, [*_on_copies(found), *_on_ids(file)]


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


def _on_copies(copies: Copies) -> list[str]:
    if doubt := why_doubtful(copies):
        return [doubt]
    if copies.share > MOST_COPIES:
        return [
            f"{copies.copies:,} of {copies.n:,} rows are exact copies of other rows, as their columns allow for no "
            f"more "
            f"than {copies.combinations:,} different ones."
        ]
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
