"""Looks counted: what a history knows of earlier audits of the same rows and of the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from auditor.errors import DataError, UsageError
from auditor.evidence.criteria_changes import changed_criteria
from auditor.evidence.history.entries import GENESIS, Entry, digest_of
from auditor.evidence.history.identity import Identity, of_model
from auditor.evidence.history.ledger import broken_chain
from auditor.finding.criterion import CriterionRecord
from auditor.finding.measurement import Outcome
from auditor.record.audit_report import FILES, INTAKE, AuditReport
from auditor.record.looks import CampaignRecord, EarlierLook, LooksRecord, entries_named

_MOST_NAMED = 5
_GRAVEST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.PASS)


@dataclass(frozen=True, kw_only=True)
class Audited:
    """An audit of the history that measured something."""

    number: int
    created: str
    record: AuditReport


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a record does not say of what was asked: the probes, and every option that decides, by its flag."""

    probes: tuple[str, ...]
    options: Mapping[str, JsonValue]


def audits_of(entries: Sequence[Entry]) -> list[Audited]:
    """The audits of a history that measured something; one that was refused has seen no rows.

    Raises DataError where the chain is broken, for nothing can be counted then, or an entry cannot be read.
    """
    problems = broken_chain(iter(entries))
    if problems:
        raise DataError(f"The looks of this history cannot be counted: {problems[0]}.")
    return [audit for entry in entries if entry.kind == "audit" for audit in measured(entry)]


def measured(entry: Entry) -> list[Audited]:
    """The audit that an entry holds; none where it was refused. Raises DataError where it cannot be read."""
    record = entry.audit().record
    return [] if record.refusal is not None else [Audited(number=entry.number, created=entry.created, record=record)]


def next_look(audits: Sequence[Audited], name: str, planned: int | None, error_rate: float) -> CampaignRecord:
    """The look that a campaign has now.

    A campaign is known by its name, whichever rows and models its looks are at: a row left out does not begin another.
    Raises UsageError where it began with another error rate or another number of looks, and where it has none left.
    """
    own = [(a.number, a.record.looks.campaign) for a in audits if a.record.looks and a.record.looks.campaign]
    spent = [(number, campaign) for number, campaign in own if campaign.name == name]
    for number, campaign in spent[:1]:
        if campaign.error_rate != error_rate:
            raise UsageError(
                f"Campaign {name!r} spends an error rate of {campaign.error_rate:g} since entry {number}: say "
                f"--error-rate {campaign.error_rate:g}."
            )
        if campaign.planned != planned:
            then = "without --campaign-looks" if campaign.planned is None else f"--campaign-looks {campaign.planned}"
            raise UsageError(f"Campaign {name!r} was begun {then} at entry {number}: go on with that.")
    if planned is not None and len(spent) >= planned:
        raise UsageError(
            f"Campaign {name!r} has spent its {planned} {'look' if planned == 1 else 'looks'} "
            f"({entries_named([number for number, _ in spent])}): begin another on rows that it has not seen."
        )
    return CampaignRecord(name=name, look=len(spent) + 1, planned=planned, error_rate=error_rate)


def head_of(entries: Sequence[Entry]) -> str:
    """The hash that the next entry follows on."""
    return entries[-1].hash if entries else GENESIS


def looks_of(
    audits: Sequence[Audited], head: str, report: AuditReport, asked: Asked, campaign: CampaignRecord | None
) -> LooksRecord:
    """Which look the audit of a report is, after these audits of a history that ends with ``head``."""
    now = Identity.of(report)
    own_model = of_model([Identity.of(a.record) for a in audits], now)
    known = [(a, _same_rows(a.record, report), own) for a, own in zip(audits, own_model, strict=True)]
    earlier = [each for each in known if each[1] or each[2]]
    data = report.data
    return LooksRecord(
        rows=None if data.sha256 is None and data.rows_sha256 is None else 1 + sum(rows for _, rows, _ in earlier),
        model=None if now.sha256 is None and not now.id else 1 + sum(own for _, _, own in earlier),
        earlier=tuple(
            EarlierLook(entry=a.number, created=a.created, exit_code=a.record.exit_code, same_rows=rows, same_model=own)
            for a, rows, own in earlier
        ),
        changed=tuple(_changes([(a, rows) for a, rows, _ in earlier], report, asked, campaign)),
        probes=asked.probes,
        asked=dict(asked.options),
        head=head,
        campaign=campaign,
    )


def _same_rows(then: AuditReport, now: AuditReport) -> bool:
    return (then.data.sha256 is not None and then.data.sha256 == now.data.sha256) or (
        then.data.rows_sha256 is not None and then.data.rows_sha256 == now.data.rows_sha256
    )


# ---- what was asked otherwise ----------------------------------------------------------------------------------------


def _changes(
    earlier: Sequence[tuple[Audited, bool]], report: AuditReport, asked: Asked, campaign: CampaignRecord | None
) -> list[str]:
    """Sentences on what was otherwise in earlier looks: one for each change, with all entries that it is about."""
    found: dict[tuple[str, str], list[int]] = {}
    for audit, same_rows in earlier:
        changes = list(_requirements(audit.record, report, campaign))
        if same_rows:
            changes += _questions(audit.record, report, asked)
        for change in dict.fromkeys(changes):
            found.setdefault(change, []).append(audit.number)
    return [f"{was} at {entries_named(numbers)}{now}" for (was, now), numbers in found.items()]


def _requirements(then: AuditReport, now: AuditReport, campaign: CampaignRecord | None) -> Iterator[tuple[str, str]]:
    gone, new = [], []
    for subject, a, b in changed_criteria(then.criteria, now.criteria):
        if a is not None and b is not None and (a.direction, a.bound) != (b.direction, b.bound):
            yield f"{subject} had to be {a.describe()}", f", and {b.describe()} now."
        elif a is not None and b is not None and _share(a) != _share(b):
            yield f"{subject} was judged in {_share(a)}", f", and in {_share(b)} now."
        elif b is None and a is not None:
            gone.append((_gravity(then, a), f"{subject} ({a.describe()})"))
        elif a is None and b is not None:
            new.append(f"{subject} ({b.describe()})")
    if gone:
        # What failed by them first: that is why somebody may have taken them out.
        yield "Required", f", and not now: {_first_of([said for _, said in sorted(gone, key=lambda each: each[0])])}."
    if new:
        yield "Not required", f", and now: {_first_of(new)}."
    before = then.looks.campaign if then.looks is not None else None
    # Of a campaign the whole of what it promises: levels differ from look to look.
    rates = [r.family.error_rate if c is None else c.error_rate for r, c in ((then, before), (now, campaign))]
    if rates[0] != rates[1]:
        yield f"The error rate was {rates[0]:g}", f", and is {rates[1]:g} now."
    if then.family.multiplicity != now.family.multiplicity:
        yield f"The allowance for multiplicity was {then.family.multiplicity}", f", and is {now.family.multiplicity}."


def _share(criterion: CriterionRecord) -> str:
    rate = "" if criterion.rate is None else f"rate {criterion.rate:g}, "
    primary = ", primary" if criterion.primary else ""
    return f"the budget {criterion.budget or 'of its pillar'} ({rate}weight {criterion.weight:g}{primary})"


def _gravity(record: AuditReport, criterion: CriterionRecord) -> int:
    outcomes = {f.outcome for f in record.findings if f.criterion == criterion}
    return next((i for i, outcome in enumerate(_GRAVEST_FIRST) if outcome in outcomes), len(_GRAVEST_FIRST))


def _first_of(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def _questions(then: AuditReport, now: AuditReport, asked: Asked) -> Iterator[tuple[str, str]]:
    if then.environment.seed != now.environment.seed:
        yield f"The seed was {then.environment.seed}", f", and is {now.environment.seed} now."
    before = _probes_of(then) if then.looks is None else then.looks.probes
    dropped = [name for name in before if name not in asked.probes]
    added = [name for name in asked.probes if name not in before]
    if dropped:
        yield f"{_named(dropped)} asked", ", and not now."
    if added:
        yield f"{_named(added)} not asked", ", and now."
    packs = [", ".join(policy.name for policy in record.policies) or "none" for record in (then, now)]
    if packs[0] != packs[1]:
        yield f"The rule packs were {packs[0]}", f", and are {packs[1]} now."
    options = asked.options if then.looks is None else then.looks.asked
    for name in dict.fromkeys((*options, *asked.options)):
        if (name in options) != (name in asked.options) or options.get(name) != asked.options.get(name):
            was, is_ = ("not set" if name not in o else _shown(o[name]) for o in (options, asked.options))
            yield f"{name} was {was}", f", and is {is_} now."


def _probes_of(record: AuditReport) -> tuple[str, ...]:
    """The probes that were asked, as far as findings tell: not those that a criterion alone names."""
    named = [f.probe for f in record.findings if f.metric is not None or f.criterion is None]
    return tuple(name for name in dict.fromkeys(named) if name not in (INTAKE, FILES))


def _named(probes: Sequence[str]) -> str:
    return f"The probe {probes[0]} was" if len(probes) == 1 else f"The probes {', '.join(probes)} were"


def _shown(value: JsonValue) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# ---- checked ---------------------------------------------------------------------------------------------------------


def miscounted(before: Sequence[Audited], head: str, report: AuditReport) -> list[str]:
    """What a report says wrongly of its looks, by the audits before its own and the entry before it, in words."""
    said = report.looks
    if said is None:
        return []
    if said.head != head:
        return ["its looks were counted in another history, or before another entry"]
    problems = []
    campaign = said.campaign
    try:
        if campaign is not None:
            now = next_look(before, campaign.name, campaign.planned, campaign.error_rate)
            if now.look != campaign.look:
                problems.append(f"it says look {campaign.look} of campaign {campaign.name}, and is look {now.look}")
    except UsageError as error:
        problems.append(str(error).rstrip("."))
    found = looks_of(before, head, report, Asked(probes=said.probes, options=said.asked), campaign)
    if (found.rows, found.model) != (said.rows, said.model):
        problems.append(
            f"it says look {said.rows or 0} at its rows and {said.model or 0} at its model, and this is look "
            f"{found.rows or 0} and {found.model or 0}"
        )
    elif found.earlier != said.earlier:
        problems.append("it names other earlier looks than there are")
    if found.changed != said.changed:
        problems.append("it names other changes since earlier looks than there are")
    return problems


def wrong_in_history(entries: Sequence[Entry], report: AuditReport) -> list[str]:
    """What is wrong with a report's looks by a whole history: its entry is found by the record's digest."""
    problems = broken_chain(iter(entries))
    if problems:
        return problems[:3]
    digest = digest_of(report)
    for i, entry in enumerate(entries):
        if entry.kind == "audit" and entry.audit().record_sha256 == digest:
            return miscounted(audits_of(entries[:i]), head_of(entries[:i]), report)
    return ["no entry of this history is this audit"]


def misspent(report: AuditReport) -> list[str]:
    """What contradicts the campaign that a report names: it is judged at the look's own level, and at no other."""
    campaign = report.looks.campaign if report.looks is not None else None
    if campaign is None or abs(report.family.error_rate - campaign.level) <= 1e-12:
        return []
    return [f"look {campaign.look} of campaign {campaign.name} has level {campaign.level:.6g}, and this was judged at "
            f"{report.family.error_rate:.6g}"]  # fmt: skip
