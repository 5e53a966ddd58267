"""Explanations of one row: reasons of the decision, counterfactual changes, and nearest neighbours.

Of other rows nothing is told but their numbers; values are the row's own, and those that would change its decision.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from auditor.core.files import Closed, Number
from auditor.core.number_types import Count, PositiveCount

# The share of real rows from which a model is held to be another on them than on mixed ones.
MOST_APART = 0.08
MOST_REASONS, MOST_RECOURSES, MOST_NEIGHBOURS = 20, 10, 20
_Name = Annotated[str, Field(max_length=2_000)]
_Words = Annotated[str, Field(max_length=4_000)]
# Of a cell, as a report shows it.
Value = Annotated[str, Field(max_length=200)] | bool | int | float | None
Effect = Literal["raised", "lowered", "unclear", "little", "unknown", "proxy"]


class ReasonCode(Closed):
    """A feature, or a word of a text, that supports the decision.

    ``contribution``: towards the decision, on the scale of the explained score, the mean over the draws; ``low``,
    ``high``: the range of the middle 95 % of draws. ``at_rank``: in how many of the draws it had the rank it has here.
    """

    feature: _Name
    value: Value
    contribution: float
    low: float
    high: float
    at_rank: Count
    sensitive: bool = False


class Faithfulness(Closed):
    """Faithfulness of reasons to the row: the score change without them, compared with random removal.

    ``moved``: by how much the score moves away from the decision where the reasons become typical, the mean over the
    first, the first two, ...; ``moved_low`` its one-sided lower bound at ``level`` over the typical rows, None of a
    text, whose words are taken out in one way alone. ``random``: the mean of the same over random orders of all
    features. ``beaten``: the share of random orders that move it no further, but for a twentieth of the largest move.
    ``real``: by how much better the model's decisions on real rows are learned from real rows than from the mixed ones
    that explanations ask about, as a share of rows; ``real_low`` its lower bound; None where that was not asked.
    ``refused``: why the reasons are not shown; "" where they are.
    """

    moved: Number = None
    moved_low: Number = None
    random: Number = None
    beaten: Number = None
    real: Number = None
    real_low: Number = None
    level: float = 0.05
    refused: _Words = ""


class SensitiveNote(Closed):
    """What a sensitive feature did here.

    ``effect``: ``raised`` or ``lowered`` the score of the favourable answer in nearly all draws, against the rows
    compared with, ``unclear`` where in neither; ``little`` of less than a hundredth of all contributions; ``unknown``
    where the reasons are refused; ``proxy`` where the reason ``proxy`` stands in for it, with Cramer's V ``strength``.
    ``share``: of all absolute contributions; ``is_reason``: whether it is among the reasons.
    """

    feature: _Name
    effect: Effect
    value: Value = None
    share: float = 0.0
    is_reason: bool = False
    proxy: _Name = ""
    strength: float = 0.0


class Change(Closed):
    """One feature of a row: its present value and the required one."""

    feature: _Name
    now: Value
    then: Value


class Recourse(Closed):
    """Changes that flip the decision, confirmed by two model queries.

    ``distance``: the sum over the changes, of a number in median absolute deviations of the rows, of a category 1.
    ``probability``: of the favourable answer, with the changes made.
    """

    changes: Annotated[tuple[Change, ...], Field(min_length=1, max_length=200)]
    distance: float
    probability: float


class RecourseSearch(Closed):
    """Changes found by a recourse search, nearest first.

    ``asked``: rows that the model was asked about.

    ``exact``: whether every combination of at most ``searched`` changes was asked about, so that what was found is the
    nearest there is of so few. ``fixed``: features that were left as they are. ``none``: why there was no search.
    """

    found: Annotated[tuple[Recourse, ...], Field(max_length=MOST_RECOURSES)] = ()
    asked: Count = 0
    exact: bool = False
    searched: Count = 0
    fixed: tuple[_Name, ...] = ()
    none: _Words = ""


class Neighbour(Closed):
    """Another row, by its number only, and its distance: see :class:`Recourse`."""

    row: PositiveCount
    distance: float


Method = Annotated[str, Field(max_length=100)]


class ExplainedRow(Closed):
    """The explanation of one row; ``row`` counts the rows of the file from 1, without the header.

    ``decision`` and ``favourable``: what was decided on, and whether it is the favourable answer. ``probability``: of
    the favourable answer. ``reasons`` are empty where they are refused. ``compared_with``: the rows that say what is
    typical, in words. ``sensitive``: what must be said of sensitive features, whether or not they are among the
    reasons. ``notes``: what else a reader should know. ``named_by``: ``column=value``, where the row was asked for so.
    """

    kind: Literal["feature", "word"]
    row: PositiveCount
    decision: _Name
    favourable: bool
    probability: float
    method: Method
    n_draws: Count
    compared_with: _Words
    explained: _Words
    reasons: Annotated[tuple[ReasonCode, ...], Field(max_length=MOST_REASONS)]
    left_out: Count = 0
    faithfulness: Faithfulness
    sensitive: tuple[SensitiveNote, ...] = ()
    recourse: RecourseSearch
    same: Annotated[tuple[Neighbour, ...], Field(max_length=MOST_NEIGHBOURS)] = ()
    other: Annotated[tuple[Neighbour, ...], Field(max_length=MOST_NEIGHBOURS)] = ()
    notes: tuple[_Words, ...] = ()
    named_by: _Words = ""

    @property
    def settled(self) -> bool:
        """Whether reasons are displayed and, for an unfavourable decision on a table, recourse is proven."""
        told = not self.faithfulness.refused and bool(self.reasons)
        return told and (self.favourable or self.kind == "word" or bool(self.recourse.found))
