"""Repeated audits of the same rows: the number of this look, results of earlier ones, and changed requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, JsonValue

from auditor.core.files import UNSAID, Closed
from auditor.core.number_types import PositiveCount
from auditor.statistics.alpha_over_looks import look_share

_WORDS = ("", "First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")
_OUTCOMES = {0: "PASS", 1: "FAIL", 3: "not settled"}
_MOST_EARLIER = 6
# So many of each kind are kept in a record, the newest; the history has all of them.
MOST_KEPT = 50
_MOST_CHANGES = 8
_OWN_RATE = (
    "Each look has an error rate of its own, and whoever picks among them has none that is stated here: --campaign "
    "spends one over all."
)


def entries_named(numbers: Sequence[int], most: int | None = None) -> str:
    """``entry 2``, or ``entries 1, 2 and 5``; of more than ``most`` how many, the first and the last."""
    if len(numbers) == 1:
        return f"entry {numbers[0]}"
    if most is not None and len(numbers) > most:
        return f"{len(numbers):,} entries from {numbers[0]} to {numbers[-1]}"
    return f"entries {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


class EarlierLook(Closed):
    """An earlier audit of the same rows, model or both: its entry in the history, and its exit code."""

    entry: PositiveCount
    created: str
    exit_code: int
    same_rows: bool
    same_model: bool

    def describe(self) -> str:
        """``FAIL at entry 2``, and whether it was of another model."""
        said = f"{_OUTCOMES.get(self.exit_code, 'refused')} at entry {self.entry}"
        return said if self.same_model else f"{said} (another model)"


class CampaignRecord(Closed):
    """A series of looks that share ``error_rate``: this one is the ``look``-th, and is judged at ``level``.

    ``planned``: how many looks there are to be, each with the same share; None where the k-th has 1 / (k (k + 1)).
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    look: PositiveCount
    planned: Annotated[int | None, Field(ge=1)] = None
    error_rate: Annotated[float, Field(gt=0.0, lt=1.0)]

    @property
    def level(self) -> float:
        """The error rate that this look may spend."""
        return self.error_rate * look_share(self.look, self.planned)

    def describe(self) -> str:
        """``Look 3 of campaign NAME: level 0.00417 of 0.05``, and the resulting guarantee."""
        of = "" if self.planned is None else f" of {self.planned} planned"
        return (
            f"Look {self.look}{of} of campaign {self.name}: level {self.level:.3g} of {self.error_rate:g}. Over all "
            f"looks together the chance of any false FAIL in an error budget is at most {100 * self.error_rate:.3g}%, "
            "or the rate that the budget states for itself, and so is that of any false PASS."
        )


class LooksRecord(Closed):
    """Numbers of earlier audits of these rows and of this model, by the history of this audit.

    ``rows``: 1 for the first audit of these rows, None without rows; ``model`` likewise, None where its file is not
    known. ``earlier``: those audits, the first first, and of many the newest of the same rows and the newest of others.
    ``changed``: what was asked or required otherwise then, in sentences. ``not_shown``: requirements that say they were
    set before audits of these rows, and that the history first knows after them, in sentences; None in records of
    before that was looked for. ``probes``, ``asked``: which probes, and every option that decides and is not its
    default, for the looks to come. ``head``: hash of the history's last entry when they were counted; this audit is the
    entry after it.
    """

    rows: Annotated[int | None, Field(ge=1)]
    model: Annotated[int | None, Field(ge=1)]
    earlier: tuple[EarlierLook, ...] = ()
    changed: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    asked: dict[str, JsonValue] = Field(default_factory=dict)
    head: str
    not_shown: Annotated[tuple[str, ...] | None, UNSAID] = None
    campaign: Annotated[CampaignRecord | None, UNSAID] = None

    @property
    def repeated(self) -> bool:
        """Whether these rows were audited before, so that this report's error rate is incomplete information."""
        return (self.rows or 1) > 1

    def describe(self) -> str:
        """The number of this look, earlier results, changes, and the campaign's spent budget."""
        said = [self._repeat_text()]
        elsewhere = [look for look in self.earlier if not look.same_rows]
        if elsewhere:
            n, entries = len(elsewhere), ", ".join(look.describe() for look in elsewhere[-_MOST_EARLIER:])
            more = " or more" if n == MOST_KEPT else ""
            said.append(f"{n}{more} earlier {'audit' if n == 1 else 'audits'} of this model on other rows: {entries}.")
        said += self.not_shown or ()
        said += self.changed[:_MOST_CHANGES]
        if len(self.changed) > _MOST_CHANGES:
            said.append(f"{len(self.changed) - _MOST_CHANGES} more changes stand in report.json.")
        if self.campaign is not None:
            said.append(self.campaign.describe())
        elif self.repeated:
            said.append(_OWN_RATE)
        return " ".join(said)

    def _repeat_text(self) -> str:
        if self.rows is None:
            return "No rows were given whose looks could be counted."
        if self.rows == 1:
            return "First look at these rows that this history knows of."
        which = _WORDS[self.rows] if self.rows < len(_WORDS) else f"{self.rows}."
        at = [look for look in self.earlier if look.same_rows]
        shown = ", ".join(look.describe() for look in at[-_MOST_EARLIER:])
        unnamed = self.rows - 1 - len(at[-_MOST_EARLIER:])
        more = f"{unnamed:,} before them, " if unnamed > 0 else ""
        return f"{which} look at these rows; earlier: {more}{shown}."
