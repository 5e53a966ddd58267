"""Decisions on an earlier audit of a model, finding by finding; no outcome changes."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import model_validator

from auditor.core.files import LEFT_OUT, UNSAID, Closed, Number
from auditor.judging.measurement import Outcome
from auditor.report.record.finding_key import Key, key_text

Step = Literal["prepared", "reviewed", "approved"]
STEPS: tuple[Step, ...] = get_args(Step)
_DONE = {"prepared": "prepared the acceptance of", "reviewed": "reviewed", "approved": "approved"}


class DecidedFinding(Closed):
    """One finding of a decision, and the accepted limit.

    ``finding``: its id in the audit that was decided on; ``asks``: what it asks. ``value``: the worst number that is
    accepted, None of a finding without one and of a rejection; ``low``, ``high``: the numbers that it covers, None for
    no end. ``outcome``: what it came to then, None in records of before.
    """

    finding: str
    asks: Key
    value: Annotated[Number, UNSAID] = None
    low: Annotated[Number, UNSAID] = None
    high: Annotated[Number, UNSAID] = None
    outcome: Annotated[Outcome | None, UNSAID] = None

    @model_validator(mode="after")
    def _up_or_down_to_its_value(self) -> Self:
        if self.value is not None and self.value not in (self.low, self.high):
            raise ValueError("what is accepted ends at the value accepted")
        return self

    def covers(self, value: float) -> bool:
        """Whether a number is no worse than the accepted one."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    @property
    def limit(self) -> str:
        """The accepted limit, in words: ``up to 0.25``; "" if no number was accepted."""
        if self.value is None:
            return ""
        return f"{'up' if self.value == self.high else 'down'} to {self.value:.6g}"

    def describe(self) -> str:
        """The finding, and the accepted limit."""
        return f"{key_text(self.asks)} {self.limit}".rstrip()


class DecisionRecord(Closed):
    """A decision on an earlier audit of this model; it changes no outcome.

    ``entry``, ``audit``: numbers in the history of audits, of the decision and of what it is about. ``findings``: ids
    of what it is about. ``expires``: the last day on which an acceptance holds. ``signed_with``: fingerprint of the key
    whose signature was checked, None where it is not signed. ``decided``: the findings one by one, where they were
    named; ``owner`` and ``due``: who mends them, and until when. ``step``: of several signers in order, which this is;
    ``covers``: the entries that were signed before, whose signatures this one covers.
    """

    entry: int
    audit: int
    created: str
    decision: Literal["accept", "reject"]
    by: str
    role: str
    note: str = ""
    expires: str | None = None
    expired: bool = False
    findings: tuple[str, ...] = ()
    signed_with: str | None = None
    decided: Annotated[tuple[DecidedFinding, ...], LEFT_OUT] = ()
    owner: Annotated[str, LEFT_OUT] = ""
    due: Annotated[str | None, UNSAID] = None
    step: Annotated[Step | None, UNSAID] = None
    covers: Annotated[tuple[int, ...], LEFT_OUT] = ()

    @property
    def one_by_one(self) -> bool:
        """Whether findings were accepted one by one with their values, rather than all of an audit."""
        return self.decision == "accept" and any(each.value is not None for each in self.decided)

    def describe(self) -> str:
        """The decision in a sentence or two."""
        signed = f", signed with the key {self.signed_with[:16]}" if self.signed_with else ", not signed"
        until = "" if self.expires is None else f", until {self.expires}"
        said = (
            f"{self.by} ({self.role}) {self._decision_text()} audit {self.audit} of this model showed{until}{signed}."
        )
        if self.one_by_one:
            said += f" Accepted: {'; '.join(each.describe() for each in self.decided)}."
        if self.note:
            said += f' Note: "{self.note}".'
        if self.expired:
            return f"EXPIRED acceptance: {said} It no longer holds."
        return (
            f"{'Accepted risk' if self.decision == 'accept' else 'Rejected'}: {said} No outcome here is changed by it."
        )

    def _decision_text(self) -> str:
        if self.decision == "reject":
            return "did not accept what"
        if self.step is not None:
            return f"{_DONE[self.step]} what"
        return "accepted, one by one, what" if self.one_by_one else "accepted the risk that"
