"""Membership scores of attacks, row by row: the basis of all membership numbers.

Of a row they hold its place in its own file and no feature of it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol, Self, runtime_checkable

import numpy as np
from pydantic import Field, ValidationError, model_validator

from auditor.core.errors import DataError
from auditor.core.files import Closed
from auditor.core.number_types import Count
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import Measurement
from auditor.run.predictions import Answers
from auditor.run.probe import Probe

# Of more scores a bundle keeps none, and their numbers are not proven.
MOST_SCORES = 200_000
_MOST_LETTERS = 4 << 20
_MOST_ATTACKS = 100
_FIRST = ("number", "member", "truth", "right")


class AttackHead(Closed):
    """One attack: its knowledge in words, or ``why_not`` it was run, ``inapplicable`` if no input would help."""

    method: str
    detail: str
    why_not: str = ""
    inapplicable: bool = False


class MembershipHead(Closed):
    """The metadata of the scores of ``n`` rows.

    ``detail``: of the rows, and of the two files. ``not_made``: attacks that were to be made, and why they were not.
    ``n_shadows``: shadow models, 0 for none; ``known``: whether they are by the model's own recipe; ``unlike``: why
    they are not like the model, or "". ``share_left_out``: of the labelled rows of --train, those that took no part.
    ``features``: sensitive features whose group stands in every row.
    """

    probe: str
    n: Annotated[int, Field(ge=0, le=MOST_SCORES)]
    attacks: Annotated[tuple[AttackHead, ...], Field(max_length=_MOST_ATTACKS)]
    detail: str
    not_made: dict[str, str]
    n_shadows: Count
    known: bool
    unlike: str
    share_left_out: float
    judges_decisions: bool
    features: tuple[str, ...]

    @property
    def scored_attacks(self) -> tuple[str, ...]:
        """The attacks with scores."""
        return tuple(attack.method for attack in self.attacks if not attack.why_not)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for names in (tuple(attack.method for attack in self.attacks), self.features):
            if len(set(names)) != len(names):
                raise ValueError("an attack or a feature is there twice")
        return self


class MembershipColumns(Closed):
    """The rows as columns, each with one entry per row: ``scores`` has a column per attack with scores, None for rows
    not attacked; ``right`` is empty if decisions are unknown."""

    number: tuple[int, ...]
    member: tuple[bool, ...]
    truth: tuple[int, ...]
    right: tuple[bool, ...]
    scores: tuple[tuple[float | None, ...], ...]
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class MembershipScores:
    """A head and rows (n,), members first.

    number: a row's place in its own file, from 1. labels: true class. right: whether the model decides on it, None
    where no decision is known. scores: by attack, higher for members; ``scored``: which rows it is measured on. groups:
    by feature.
    """

    head: MembershipHead
    number: IntArray
    is_member: BoolArray
    labels: IntArray
    right: BoolArray | None
    scores: Mapping[str, FloatArray]
    scored: Mapping[str, BoolArray]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of both files."""
        return int(self.labels.size)

    @property
    def can_be_kept(self) -> bool:
        """Whether they are numbers, and few enough for a bundle."""
        letters = sum(len(name) for names in self.groups.values() for name in names)
        few = self.n_rows * max(1, len(self.scores)) <= MOST_SCORES and letters <= _MOST_LETTERS
        return few and all(bool(np.isfinite(self.scores[name][self.scored[name]]).all()) for name in self.scores)

    def columns(self) -> MembershipColumns:
        """The scores as sent."""
        return MembershipColumns(
            number=tuple(self.number.tolist()),
            member=tuple(self.is_member.tolist()),
            truth=tuple(self.labels.tolist()),
            right=() if self.right is None else tuple(self.right.tolist()),
            scores=tuple(
                tuple(s if known else None for s, known in zip(self.scores[m].tolist(), self.scored[m], strict=True))
                for m in self.head.scored_attacks
            ),
            groups=tuple(tuple(self.groups[name]) for name in self.head.features),
        )

    def rows_to_csv(self) -> bytes:
        """One line per row, with a header; numbers in round-trip precision."""
        them = self.columns()
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(_header(self.head))
        right = [""] * self.n_rows if self.right is None else [str(int(each)) for each in them.right]
        scores = [["" if s is None else repr(s) for s in column] for column in them.scores]
        first = (them.number, [int(each) for each in them.member], them.truth, right)
        writer.writerows(zip(*first, *scores, *them.groups, strict=True))
        return buffer.getvalue().encode()


@runtime_checkable
class ScoresProbe(Probe, Protocol):
    """A probe whose numbers all derive from such scores; ``kept``: those of its last measurement."""

    kept: MembershipScores | None

    def measure_scores(self, scores: MembershipScores) -> Sequence[Measurement]:
        """The measurements, from the scores alone."""
        ...

    def contradictions(self, scores: MembershipScores, answers: Answers | None, *, own_losses: bool) -> list[str]:
        """Contradictions between scores, or to the model's ``answers`` on the evaluation rows, in words.

        ``own_losses``: whether losses are those of the answers, and were not given beside them.
        """
        ...


def _header(head: MembershipHead) -> list[str]:
    return [*_FIRST, *(f"score:{name}" for name in head.scored_attacks), *(f"group:{name}" for name in head.features)]


def scores_of(head: MembershipHead, columns: MembershipColumns) -> MembershipScores:
    """The scores that were sent. Raises DataError where they are not what the head says."""
    n, made = head.n, head.scored_attacks
    rows = (columns.number, columns.member, columns.truth, *columns.scores, *columns.groups)
    fits = len(columns.scores) == len(made) and len(columns.groups) == len(head.features)
    if not fits or any(len(column) != n for column in rows) or len(columns.right) != n * head.judges_decisions:
        raise DataError("The scores of members do not fit what was said of them.")
    if n * max(1, len(made)) > MOST_SCORES:
        raise DataError(f"There are more than {MOST_SCORES:,} scores of members.")
    member = np.asarray(columns.member, bool)
    number = np.asarray(columns.number, np.int64)
    truth = np.asarray(columns.truth, np.int64)
    if (member[1:] & ~member[:-1]).any() or (truth < 0).any():
        raise DataError("Members stand before all others, and each row has a true class.")
    for side in (number[member], number[~member]):
        if (side < 1).any() or (np.diff(side) <= 0).any():
            raise DataError("A row of the membership scores is there twice, or not in its place.")
    scores = {
        name: np.asarray([np.nan if s is None else s for s in column], np.float64)
        for name, column in zip(made, columns.scores, strict=True)
    }
    scored = {name: ~np.isnan(column) for name, column in scores.items()}
    if any(np.isinf(column).any() for column in scores.values()):
        raise DataError("A membership score is no number.")
    return MembershipScores(
        head=head,
        number=number,
        is_member=member,
        labels=truth,
        right=np.asarray(columns.right, bool) if head.judges_decisions else None,
        scores={name: np.where(scored[name], column, 0.0) for name, column in scores.items()},
        scored=scored,
        groups=dict(zip(head.features, columns.groups, strict=True)),
    )


# ---- from a bundle ---------------------------------------------------------------------------------------------------


def read_membership_head(content: bytes) -> MembershipHead | None:
    """The head in ``tables.json``; None if it has none.

    Raises DataError where it is none.
    """
    try:
        found = dict(json.loads(content)).get("membership")
        return None if found is None else MembershipHead.model_validate(found)
    except (ValueError, TypeError, RecursionError, ValidationError) as error:
        raise DataError(f"tables.json cannot be read: {type(error).__name__}.") from None


def read_membership(content: bytes, head: MembershipHead) -> MembershipScores:
    """The scores out of ``membership.csv``. Raises DataError naming the line that is none."""
    try:
        return scores_of(
            head, _parse_columns(csv.reader(io.StringIO(content.decode("utf-8", "replace"), newline="")), head)
        )
    except csv.Error as error:
        raise DataError(f"membership.csv is no table: {error}.") from None


def _parse_columns(reader: Iterator[list[str]], head: MembershipHead) -> MembershipColumns:
    header, k = _header(head), len(_FIRST)
    if next(reader, None) != header:
        raise DataError("membership.csv: its header does not name the columns that tables.json says it has.")
    lines: list[list[str]] = []
    for i, line in enumerate(reader, 2):
        if len(line) != len(header) or i > head.n + 1:
            raise DataError(f"membership.csv, line {i}: it is none of the {head.n:,} rows.")
        if line[1] not in ("0", "1") or line[3] not in (("0", "1") if head.judges_decisions else ("",)):
            raise DataError(f"membership.csv, line {i}: what is 0 or 1 is something else.")
        lines.append(line)
    columns = list(zip(*lines, strict=True)) if lines else [()] * len(header)
    last = k + len(head.scored_attacks)
    try:
        return MembershipColumns(
            number=tuple(map(int, columns[0])),
            member=tuple(each == "1" for each in columns[1]),
            truth=tuple(map(int, columns[2])),
            right=tuple(each == "1" for each in columns[3]) if head.judges_decisions else (),
            scores=tuple(tuple(float(s) if s else None for s in column) for column in columns[k:last]),
            groups=tuple(map(tuple, columns[last:])),
        )
    except (ValueError, OverflowError):
        raise DataError("membership.csv holds what is no number.") from None
