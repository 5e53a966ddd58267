"""Rule packs in a report: the cells of each control, and the available evidence for each cell."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, get_args

from pydantic import Field

from auditor.core.files import LEFT_OUT, Closed
from auditor.judging.measurement import Outcome
from auditor.judging.policy import CERTAINTY

CellKind = Literal["evidence", "attestation needed", "not measured", "not for this kind of model"]
CELL_KINDS: tuple[CellKind, ...] = get_args(CellKind)
# After so many days somebody should look at the text again.
OLD_AFTER = 180
# What became of many findings is what became of the gravest; one that was not judged says the least.
_GRAVEST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.PASS, Outcome.NOT_JUDGED)


class PolicyRecord(Closed):
    """A rule pack applied to the report, as of a day.

    ``sets_pass_mark``: whether its text sets any bound. ``version``: the pack's own, "" where it has none. ``sha256``:
    hex SHA-256 of the pack's text in UTF-8, "" in records of before there was one.
    """

    name: str
    title: str
    source: str
    checked_on: str
    certainty: str
    as_of: str
    applies_from: str | None = None
    applies_until: str | None = None
    sets_pass_mark: bool = False
    notes: tuple[str, ...] = ()
    version: Annotated[str, LEFT_OUT] = ""
    sha256: Annotated[str, LEFT_OUT] = ""

    @property
    def old(self) -> str:
        """A sentence that the pack's review is missing or long before the given day; "" if it is recent."""
        try:
            days = (date.fromisoformat(self.as_of) - date.fromisoformat(self.checked_on)).days
        except ValueError:
            return f"The rule pack {self.name} is said to have been looked up on {self.checked_on}, which is no day."
        if days <= OLD_AFTER:
            return ""
        return (
            f"The rule pack {self.name} was looked up on {self.checked_on}, {days} days before {self.as_of}: what it "
            "says may no longer hold. Look its sources up again."
        )


class CellRecord(Closed):
    """One requirement of a control, and its evidence.

    ``evidence``: ``findings`` are the ids of what was measured, and of what beside it could not be, ``outcomes`` how
    many findings ended how; ``said`` is evidence that is no finding, in words. ``attestation needed``: from whom is
    ``role``. ``not measured``: ``how`` says what would measure it, ``reason`` why it was not. ``not for this kind of
    model``: ``reason`` says for which kind it is. ``tried``: of a search among the evidence, which ways were tried,
    which were not, and why not. ``source``, ``checked_on``, ``certainty``: the text that asks, the day on which it was
    looked up, and how surely it is known.
    """

    kind: CellKind
    what: str
    findings: tuple[str, ...] = ()
    outcomes: dict[str, int] = Field(default_factory=dict)
    role: str = ""
    how: str = ""
    reason: str = ""
    tried: Annotated[tuple[str, ...], LEFT_OUT] = ()
    said: Annotated[str, LEFT_OUT] = ""
    source: Annotated[str, LEFT_OUT] = ""
    checked_on: Annotated[str, LEFT_OUT] = ""
    certainty: Annotated[str, LEFT_OUT] = ""

    @property
    def outcome(self) -> Outcome | None:
        """The worst outcome of its findings; None without findings."""
        return next((outcome for outcome in _GRAVEST if self.outcomes.get(outcome.value)), None)

    @property
    def cited(self) -> str:
        """Source, day and certainty in a line; "" in records of before cells had their own."""
        return ", ".join(part for part in (self.source, self.dated, self.certainty) if part)

    @property
    def dated(self) -> str:
        """The day of its review, or a note that it is from memory; "" in older records."""
        looked_up = "noted" if self.certainty == CERTAINTY["memory"] else "looked up"
        return f"{looked_up} on {self.checked_on}" if self.checked_on else ""


class ControlRecord(Closed):
    """One control of a rule pack; ``in_force``: whether it applies on the given day."""

    policy: str
    id: str
    title: str
    source: str
    certainty: str
    in_force: bool
    applies_from: str | None = None
    applies_until: str | None = None
    cells: tuple[CellRecord, ...]
