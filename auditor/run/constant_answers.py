"""Rows with identical answers of the model, attached to every answer of a probe for the judge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray, IntArray
from auditor.judging.measurement import Alike, Measurement

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.data.group_counts import CodedGroups, GroupCounts
    from auditor.data.score_counts import ScoreCounts
    from auditor.models.audited_model import AuditedModel

# Answers that no probe needed are asked for of so many rows at most: two that differ are found among fewer.
_MOST_ASKED = 4_096
_FEWEST_ALIKE = 2


def alike_answers(model: AuditedModel, data: AuditData, measurements: Sequence[Measurement]) -> tuple[Alike, ...]:
    """The rows with identical model answers, if the measurements depend on differences between rows.

    Over the evaluation rows; where no probe asked for the answers to all of them, over some of them, evenly spaced,
    and over all where those are alike.
    Groups are those of single features and of the combinations of features that a measurement compares. Nothing of
    language models, whose answers are no decisions about rows.
    """
    resting = _answer_based(measurements)
    if not resting or model.kind == "language_model":
        return ()
    rows = data.evaluation
    if len(rows) > _MOST_ASKED and model.can_be_asked and not model.has_answers(rows):
        some = rows.take(np.linspace(0, len(rows) - 1, _MOST_ASKED).astype(np.int64))
        if not _alike_in(model, some, resting):
            return ()
    # What looks alike among some is said of all only where all are.
    return _alike_in(model, rows, resting)


def _alike_in(model: AuditedModel, rows: AuditData, measurements: Sequence[Measurement]) -> tuple[Alike, ...]:
    if len(rows) < _FEWEST_ALIKE:
        return ()
    regression = model.kind == "regressor"
    try:
        decided: FloatArray | IntArray = model.predictions(rows) if regression else model.decisions(rows)  # type: ignore[attr-defined]
    except NotApplicableError:
        # Of a model that cannot be asked, its losses may be all that is known.
        return ()
    if (decided == decided[0]).all():
        matters = any(m.rests_on != "decisions" for m in measurements)
        same_scores = matters and (regression or _same_scores(model, rows))
        return (Alike(answer="scores" if same_scores else "decisions", n=len(rows)),)
    truth = rows.target_values if regression else rows.y_true
    compared = {frozenset(m.sensitive) | frozenset(m.group) for m in measurements if m.rests_on == "decisions"}
    return tuple(_groups(rows, decided, truth, compared))


def _same_scores(model: AuditedModel, rows: AuditData) -> bool:
    try:
        return bool((np.ptp(model.scores(rows), axis=0) == 0.0).all())
    except NotApplicableError:  # decisions are all that is known of it, and they are the same
        return True


def _answer_based(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those that rest on answers, and could PASS: what is undefined, such as of a crowd of groups, cannot."""
    return [m for m in measurements if m.rests_on is not None and not math.isnan(m.estimate.value)]


def _groups(
    rows: AuditData,
    answers: FloatArray | IntArray,
    truth: FloatArray | IntArray | None,
    feature_sets: set[frozenset[str]],
) -> Iterator[Alike]:
    table = rows.sensitive_features
    if table is None:
        return
    right = np.zeros(len(rows), bool) if truth is None else np.asarray(truth == answers, bool)
    names = {str(column): column for column in table.columns}
    for features in sorted((sorted(f) for f in feature_sets if f and f <= names.keys()), key=str):
        if _soon_differ(rows.groups(*(name for name in names if name in features)), answers):
            continue
        grouped = table.groupby([names[f] for f in features], observed=True, sort=True)
        for level, places in grouped.indices.items():
            own = answers[places]
            if len(own) >= _FEWEST_ALIKE and (own == own[0]).all() and not right[places].all():
                levels = level if isinstance(level, tuple) else (level,)
                yield Alike(
                    answer="decisions",
                    n=len(own),
                    group={f: str(value) for f, value in zip(features, levels, strict=True)},
                )


def _soon_differ(groups: CodedGroups, answers: FloatArray | IntArray) -> bool:
    """Whether the first rows show two different answers in each of the groups, as they mostly do."""
    codes, own = groups.codes[:_MOST_ASKED], answers[:_MOST_ASKED]
    one = np.zeros(len(groups.levels), own.dtype)
    one[codes] = own
    return bool(np.bincount(codes[own != one[codes]], minlength=one.size).all())


def alike_in_counts(
    counts: GroupCounts, measurements: Sequence[Measurement], scores: ScoreCounts | None = None
) -> tuple[Alike, ...]:
    """The same, of rows that were counted as they streamed by."""
    resting = _answer_based(measurements)
    if not resting or counts.n < _FEWEST_ALIKE:
        return ()
    if np.count_nonzero(counts.table.sum(axis=(0, 1))) == 1:
        same = scores is not None and scores.n_values == 1 and any(m.rests_on == "scores" for m in resting)
        return (Alike(answer="scores" if same else "decisions", n=counts.n),)
    found = []
    compared = {tuple(sorted({*m.sensitive, *m.group})) for m in resting if m.rests_on == "decisions"}
    for features in sorted(compared):
        if not features or not set(features) <= set(counts.features):
            continue
        own = counts.group_by(features)
        for group, cells in zip(own.groups, own.table, strict=True):
            chosen = np.flatnonzero(cells.sum(axis=0))
            n = int(cells.sum())
            if chosen.size == 1 and n >= _FEWEST_ALIKE and cells[chosen[0], chosen[0]] < n:
                found.append(Alike(answer="decisions", n=n, group=dict(zip(features, group, strict=True))))
    return tuple(found)
