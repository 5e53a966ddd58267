"""Contradictions between membership scores, or in the model's answers on non-member rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from auditor.core.rows import BoolArray, IntArray
from auditor.run.membership_scores import MembershipScores
from auditor.run.predictions import Answers
from probes.privacy.membership import loss_threshold

# Numbers are computed on another machine, perhaps with another version of a library.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9
_GLOBAL, _PER_CLASS = "loss_threshold", "loss_threshold_per_class"


def contradictions(scores: MembershipScores, answers: Answers | None, *, own_losses: bool) -> list[str]:
    """Contradictions between scores, in words.

    ``answers``: the model's, row by row, on all evaluation rows, of which the non-members are some.

    ``own_losses``: whether losses are those of these answers, and were not given beside them.
    """
    return [
        *_ranks(scores),
        *([] if answers is None else _of_rows(scores, answers, own_losses=own_losses)),
        *(["nobody says which decisions are right"] if own_losses and scores.right is None else []),
    ]


def _ranks(scores: MembershipScores) -> Iterator[str]:
    """The scores by class are ranks of the losses."""
    if _GLOBAL not in scores.scores or _PER_CLASS not in scores.scores:
        return
    again = loss_threshold.per_class_scores(-scores.scores[_GLOBAL], scores.labels)
    if not np.allclose(again, scores.scores[_PER_CLASS], rtol=_RELATIVE, atol=_ABSOLUTE):
        yield f"the scores of {_PER_CLASS} are not the ranks of those of {_GLOBAL}"


def _of_rows(scores: MembershipScores, answers: Answers, *, own_losses: bool) -> Iterator[str]:
    place = scores.number[~scores.is_member] - 1
    if place.size and int(place.max()) >= len(answers):
        yield f"row {int(place.max()) + 1:,} of --data is none of {len(answers):,}"
        return
    labels = scores.labels[~scores.is_member]
    if not np.array_equal(answers.truth[place], labels):
        yield f"row {_first(answers.truth[place] != labels, place):,} of --data has another true class in rows.csv"
        return
    for feature in answers.groups:
        if feature not in scores.groups:
            yield f"the groups of {feature!r} are missing"
            continue
        own = np.asarray(scores.groups[feature], object)[~scores.is_member]
        differs = own != np.asarray(answers.groups[feature], object)[place]
        if differs.any():
            yield f"row {_first(differs, place):,} of --data is in another group of {feature!r} in rows.csv"
    head = answers.head
    if not own_losses or head.blurred > 1 or head.scores != len(head.classes) or not place.size:
        return
    given = answers.scores[place]
    if scores.right is not None:
        differs = (given.argmax(axis=1) == labels) != scores.right[~scores.is_member]
        if differs.any():
            yield f"whether row {_first(differs, place):,} of --data is decided right is otherwise in rows.csv"
    if _GLOBAL in scores.scores:
        own = scores.scores[_GLOBAL][~scores.is_member]
        due = loss_threshold.global_scores(loss_threshold.cross_entropy(given, labels))
        differs = ~np.isclose(own, due, rtol=_RELATIVE, atol=_ABSOLUTE)
        if differs.any():
            yield f"the loss of row {_first(differs, place):,} of --data is not that of its answer in rows.csv"


def _first(differs: BoolArray, place: IntArray) -> int:
    return int(place[differs][0]) + 1
