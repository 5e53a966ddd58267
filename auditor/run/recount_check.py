"""Comparison of a measuring process's record with a recount of its data files, where user code runs in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from auditor.data.group_counts import GroupCounts
from auditor.data.media_classes import same_meaning
from auditor.data.preprocessing import label_name
from auditor.data.recounted_truth import GroupsDigest, NumbersDigest, Reading, Recount
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.loading.job_specs import DataSpec, ProbeSpec
from auditor.report.record.audit_report import DataRecord
from auditor.run.predictions import Answers, AnswersHead, AnswersPart, CountsRecord, Scores, StoredModel, rows_of
from auditor.run.probe import CountsProbe, Probe, counts_suffice, from_decisions, make_probe
from auditor.run.run_audit import ask, attempt, generator_for

_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)
# Rows are made of a table of so many at most.
_MOST_MADE = 1_000_000
_Cells = Counter[tuple[tuple[str, ...], str | None]]


class Recounting:
    """The statements on file rows so far, compared with their recount; the first mismatch is the error.

    Columns may be read as text or as numbers, as the model takes them: everything said must fit one way to read them.
    """

    def __init__(self, spec: DataSpec, recount: Recount) -> None:
        self._spec, self._recount = spec, recount
        self._left: Sequence[Reading] = recount.readings
        self._wrong = "the rows" if recount.why_not else ""
        self._said = False
        self.table: CountsRecord | None = None
        self._n_rows: int | None = None
        self._classes: tuple[str, ...] = ()
        self._rows: _Rows | None = None

    @property
    def designed(self) -> bool:
        """Whether rows are clustered or weighted, which counts do not contain."""
        return bool(self._recount.design)

    def data(self, record: DataRecord, classes: tuple[str, ...]) -> None:
        """Check the statements on the data, for a model of these classes."""
        spec, recount, self._said = self._spec, self._recount, True
        self._classes = tuple(map(label_name, spec.classes or classes))
        of_files = (recount.sha256, recount.train_sha256)
        self._require("the digest of the file", (record.sha256, record.train_sha256), of_files)
        named = (record.path, record.train_path, record.target, record.sensitive)
        asked = (spec.path, spec.train, spec.target, tuple(dict.fromkeys(spec.sensitive)))
        self._require("what is said of the columns", named, asked)
        self._n_rows = record.n_rows
        if record.n_rows is None:  # the model failed on some row, and nothing was counted
            return
        if recount.folder:  # files that cannot be read are no rows
            n = record.n_rows + (record.n_train_rows or 0) + record.n_unreadable
            self._require("the number of rows", n, recount.n + (recount.n_train or 0))
        else:
            self._require("the number of rows", record.n_rows, recount.n)
            self._require("the number of training rows", record.n_train_rows, recount.n_train)
        if record.positive is not None:
            self._require("the favourable label", record.positive, self._positive())
        if recount.design:
            self._require("what rows weigh", {name: getattr(record, name) for name in recount.design}, recount.design)
        if not recount.folder:
            self._keep("the groups", lambda each: (record.groups_sha256 or {}) == each.groups)
            self._keep("the groups", lambda each: (record.groups or {}) == each.sizes())
            without = None if record.missing is None else record.missing.labels
            numeric = recount.numbers is not None and without == recount.n_without
            if without is not None and spec.target is not None and not numeric:
                self._keep("the labels", lambda each: each.labels is not None and each.unlabelled == without)

    def _table(self, counts: CountsRecord) -> None:
        if not counts.classes:
            return
        if counts.positive is not None:
            positive = dict(enumerate(counts.classes)).get(counts.positive)
            self._require("the favourable label", positive, self._positive())
        self._require("the sensitive features", counts.features, tuple(dict.fromkeys(self._spec.sensitive)))
        found: _Cells = Counter()
        for group, table in zip(counts.groups, counts.table, strict=False):
            for label, row in zip((*counts.classes, None), table, strict=False):
                found[group, label] += sum(row)
        self._hold("the labels and groups", found)

    def set_answers_head(self, head: AnswersHead | None, counts: CountsRecord | None) -> None:
        """Record the columns of the answers by row, and check the table of groups."""
        self._rows, self.table = None if head is None else _Rows(head), counts
        if counts is not None:
            self._table(counts)

    def add_part(self, part: AnswersPart) -> None:
        """Record the answers on the next rows."""
        if self._rows is not None:
            self._rows.add(part)

    def found_wrong(self, *, whole: bool) -> str:
        """The mismatch with the files, "" if there is none; ``whole``: whether all rows to be kept arrived."""
        if self._rows is not None and whole:
            self._all_rows(self._rows)
        return self._wrong or ("" if self._said else "the data")

    def _all_rows(self, rows: _Rows) -> None:
        recount = self._recount
        if recount.folder:
            self._hold("the labels and groups", rows.cells, grouped=bool(rows.head.features))
            return
        if rows.head.kind == "regressor":
            numbers = recount.numbers if rows.labelled else rows.numbers.hexdigest()
            self._require("the true numbers", rows.numbers.hexdigest(), numbers)
        else:
            digest = rows.labels.hexdigest()
            self._keep("the labels", lambda each: digest == each.labels if each.labels else not rows.labelled)
        groups = {name: digest.hexdigest() for name, digest in rows.groups.items()}
        self._keep("the groups", lambda each: groups.items() <= each.groups.items())

    def _positive(self) -> str | None:
        from auditor.data.audit_data import favourable

        given = self._spec.positive
        if given is not None:
            return label_name(given)
        implied = favourable(None, self._classes)
        return None if implied is None else self._classes[implied]

    def _hold(self, what: str, found: _Cells, *, grouped: bool = True) -> None:
        found = +found
        if not self._recount.folder:
            self._keep(what, lambda each: found == self._cells(each, grouped=True))
            return
        # Files that cannot be read are no rows, and which ones they are nobody else has found out.
        same = sum(found.values()) == self._n_rows
        self._keep(what, lambda each: same and found <= self._cells(each, grouped=grouped))

    def _cells(self, reading: Reading, *, grouped: bool) -> _Cells:
        cells: _Cells = Counter()
        for group, label, n in reading.cells:
            meant = None if label is None or label in self._classes else same_meaning(label, self._classes)
            cells[group if grouped else (), label if meant is None else self._classes[meant]] += n
        return cells

    def _require(self, what: str, said: object, found: object) -> None:
        if said != found:
            self._wrong = self._wrong or what

    def _keep(self, what: str, fits: Callable[[Reading], bool]) -> None:
        left = [each for each in self._left if fits(each)]
        if not left and self._recount.readings:  # of some folders nobody says what their files are
            self._wrong = self._wrong or what
        self._left = left or self._left


class _Rows:
    """Truth and groups of the rows of a bundle, digested as they come."""

    def __init__(self, head: AnswersHead) -> None:
        self.head, self.labelled = head, False
        self.labels, self.numbers = GroupsDigest(), NumbersDigest()
        self.groups = {name: GroupsDigest() for name in head.features}
        self.cells: _Cells = Counter()

    def add(self, part: AnswersPart) -> None:
        """The next rows."""
        head = self.head
        self.labelled |= any(truth is not None for truth in part.truth)
        if head.kind == "regressor":
            self.numbers.add(np.asarray([np.nan if t is None else t for t in part.truth], np.float64))
        else:
            codes = np.asarray([-1 if t is None else int(t) for t in part.truth], np.int64)
            self.labels.add(codes, head.classes)
            names = [*head.classes, None]
            self.cells.update(zip(part.groups or [()] * len(codes), [names[code] for code in codes], strict=True))
        for i, (levels, digest) in enumerate(zip(head.levels, self.groups.values(), strict=True)):
            place = {level: code for code, level in enumerate(levels)}
            digest.add(np.asarray([place[row[i]] for row in part.groups], np.int64), levels)


def not_of_counts(
    results: Sequence[ProbeResult],
    specs: Sequence[ProbeSpec],
    probes: Mapping[str, type[Probe]],
    counts: CountsRecord | None,
) -> str:
    """The first probe whose numbers follow from the counts alone and contradict them; "" without one."""
    options = {spec.name: spec.options for spec in specs}
    for result in results:
        if not result.measurements or result.probe not in probes:
            continue
        probe = make_probe(probes[result.probe], options.get(result.probe, {}))
        if counts_suffice(probe):
            if counts is None or _numbers(_counted(probe, counts.counts())) != _numbers(result):
                return result.probe
        elif of := {m.metric for m in result.measurements} & {*from_decisions(probe)}:
            if counts is None:
                return result.probe
            table, said = counts.counts(), _numbers(result, of)
            ways: tuple[Scores, ...] = ("graded", "labels", "none") if table.n <= _MOST_MADE else ()
            if ways and all(_numbers(ask_stored(probe, rows_of(table, way)), of) != said for way in ways):
                return result.probe
    return ""


def _counted(probe: CountsProbe, table: GroupCounts) -> ProbeResult:
    return attempt(probe, lambda: probe.measure_counts(table))


def ask_stored(probe: Probe, answers: Answers) -> ProbeResult:
    """The probe's result on stored answers."""
    stand_in: Any = StoredModel(answers)
    return ask(probe, stand_in, answers.data(), generator_for(0, probe.name))


def _numbers(result: ProbeResult, metrics: Collection[str] | None = None) -> Counter[bytes]:
    own = (each for each in result.measurements if metrics is None or each.metric in metrics)
    return Counter(_MEASUREMENT.dump_json(replace(each, figure=None)) for each in own)
