"""Earlier audits of a model: the key of findings, decisions on them, looks at the same rows, pre-registered plans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, Self, get_args

from pydantic import Field, JsonValue, model_validator

from auditor.core.files import LEFT_OUT, UNSAID, Closed, Number
from auditor.core.number_types import PositiveCount
from auditor.judging.criterion import CriterionRecord
from auditor.judging.measurement import Outcome
from auditor.statistics.significance_tests import look_share

# Probe, method, metric, and what it is of: groups, places and the features whose groups are compared.
Key = tuple[str, str | None, str, tuple[tuple[str, str | float], ...]]
# The features whose groups are compared stand under a name that a column may have too, and so do the coordinates of
# what is measured by group: a group's column of such a name is spelled so that nobody takes it for one of them.
_BY = "by"
COORDINATES = frozenset(
    "average category class decision gap generator rate slice strata threshold thresholds to unseen".split()
)


class Asking(Protocol):
    """The fields of a finding that define its question."""

    @property
    def probe(self) -> str: ...
    @property
    def method(self) -> str | None: ...
    @property
    def metric(self) -> str | None: ...
    @property
    def group(self) -> Mapping[str, str]: ...
    @property
    def sensitive(self) -> tuple[str, ...]: ...
    @property
    def at(self) -> Mapping[str, str | float]: ...
    @property
    def criterion(self) -> CriterionRecord | None: ...


def key_of(finding: Asking) -> Key:
    """The question of a finding; if it was not measured, that of its criterion."""
    of: list[tuple[str, str | float]] = [(_column(name), value) for name, value in finding.group.items()]
    of += finding.at.items()
    if finding.sensitive:
        of.append((_BY, _together(finding.sensitive)))
    required = "" if finding.criterion is None else finding.criterion.metric
    return finding.probe, finding.method, finding.metric or required, tuple(sorted(of, key=lambda pair: pair[0]))


def _column(name: str) -> str:
    return _spelled(["group", name]) if name == _BY or name in COORDINATES or name.startswith("[") else name


def _together(features: Sequence[str]) -> str:
    """``sex x race``; as JSON where a name could be taken for two."""
    plain = not any(name.startswith("[") or "x" in name.split(" ") for name in features)
    return " x ".join(features) if plain else _spelled(list(features))


def _spelled(names: list[str]) -> str:
    return json.dumps(names, ensure_ascii=False)


def _parse_names(text: str) -> list[str]:
    """The names that a text spells in a key; itself where it spells none."""
    try:
        names = json.loads(text) if text.startswith('["') else None
    except (ValueError, RecursionError):
        names = None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else [text]


def key_text(key: Key) -> str:
    """The question of a key, on one line: ``selection_rate (sex=female)``."""
    probe, method, metric, of = key
    where = [
        f"{_parse_names(k)[-1]}={v:g}"
        if isinstance(v, float)
        else f"{_parse_names(k)[-1]}={' x '.join(_parse_names(v))}"
        for k, v in of
    ]
    if method not in (None, "between_groups", "paired"):
        where.append(str(method))
    return f"{metric or probe} ({', '.join(where)})" if where else metric or probe


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


class PlanEntered(Closed):
    """The position of a registration in the history: its entry, with hash and time, and earlier audits.

    ``rows``, ``model``: audits of the same rows and of the same model before it; None where those are not known.
    """

    entry: PositiveCount
    hash: str
    created: str
    rows: int | None
    model: int | None

    def describe(self) -> str:
        """``Entered in the history at entry 3 on DAY``, and after how many audits."""
        after = [
            f"{n:,} {'audit' if n == 1 else 'audits'} of {what}"
            for n, what in ((self.rows, "these rows"), (self.model, "this model"))
            if n is not None
        ]
        told = f", after {' and '.join(after)}" if after else ""
        return f"Entered in the history at entry {self.entry} on {self.created[:19]}Z, hash {self.hash[:16]}{told}."


class RegistrationRecord(Closed):
    """The pre-registered plan, and the run's deviations from it; it changes no outcome.

    ``sha256``: of what was registered, which whoever noted it then can compare. ``registered``: when. ``signed_with``:
    fingerprint of the key whose signature was checked, None where none fits. ``deviations``: every way in which the run
    did otherwise. ``not_fixed``: what the registration left open. ``entered``: where the history holds it;
    ``cautions``: why the history does not show that it came before the results.
    """

    path: str
    sha256: str
    registered: str
    by: str = ""
    signed_with: str | None = None
    deviations: tuple[str, ...] = ()
    not_fixed: tuple[str, ...] = ()
    entered: Annotated[PlanEntered | None, UNSAID] = None
    cautions: Annotated[tuple[str, ...], LEFT_OUT] = ()

    @property
    def adherence(self) -> Literal["followed", "deviates", "unproven"]:
        """Whether the run followed the registration, and whether the registration provably came first."""
        if self.deviations:
            return "deviates"
        return "unproven" if self.cautions else "followed"

    @property
    def followed(self) -> bool:
        """Whether the run followed the earlier registration."""
        return self.adherence == "followed"

    def describe(self) -> str:
        """The registrant, the date, and whether the run followed; deviations are listed separately."""
        by = f" by {self.by}" if self.by else ""
        signed = f"signed with the key {self.signed_with[:16]}" if self.signed_with else "not signed"
        said = f"Registered on {self.registered}{by}, {signed}, SHA-256 {self.sha256[:16]}."
        said += f" Left open: {'; '.join(self.not_fixed)}." if self.not_fixed else ""
        said += f" {self.entered.describe()}" if self.entered is not None else ""
        if self.followed:
            return f"The run followed its registration. {said}"
        cautions = f" {' '.join(self.cautions)}" if self.cautions else ""
        n = len(self.deviations)
        how = (
            f"The run DEVIATES from its registration in {n} {'point' if n == 1 else 'points'}.{cautions}"
            if n
            else f"NOT SHOWN that the registration came before the results, though the run kept to it.{cautions}"
        )
        return f"{how} {said} No outcome and no exit code is changed by it."
