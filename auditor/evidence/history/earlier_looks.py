"""Earlier audits of the same rows and of the same model in a history: their count, and the plans before them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import JsonValue

from auditor.core.errors import DataError, UsageError
from auditor.evidence.history.entries import Entry, Identity
from auditor.evidence.history.index import Index, Looks
from auditor.evidence.history.ledger import broken_chain
from auditor.evidence.registration import changed_criteria
from auditor.judging.criterion import CriterionRecord
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import FILES, INTAKE, AuditReport
from auditor.report.record.earlier_audits import (
    MOST_KEPT,
    CampaignRecord,
    EarlierLook,
    LooksRecord,
    PlanEntered,
    RegistrationRecord,
    entries_named,
)

if TYPE_CHECKING:
    from auditor.evidence.history.ledger import Ledger

_MOST_NAMES_LISTED = 5
_GRAVEST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN, Outcome.PASS)
# Beyond any entry: of all that there are.
ALL = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Known:
    """Access to a history: ``index`` finds entries, ``entry`` reads and checks one."""

    index: Index
    entry: Callable[[int], Entry]

    @classmethod
    def from_ledger(cls, ledger: Ledger) -> Known:
        """Access to a ledger, reading only the entries needed."""
        return cls(index=ledger.index, entry=ledger.linked)

    @classmethod
    def from_entries(cls, entries: Sequence[Entry]) -> Known:
        """Access to these entries, without any stored index.

        Raises DataError where the chain is broken, for nothing can be counted then.
        """
        problems = broken_chain(iter(entries))
        if problems:
            raise DataError(f"The looks of this history cannot be counted: {problems[0]}.")
        return cls.by_number(entries, Index.from_entries(entries))

    @classmethod
    def by_number(cls, entries: Sequence[Entry], index: Index) -> Known:
        """Access with a given index, for a history whose chain is checked elsewhere."""
        there = {entry.number: entry for entry in entries}

        def entry(number: int) -> Entry:
            if number not in there:
                raise DataError(f"Entry {number} of the history is missing.")
            return there[number]

        return cls(index=index, entry=entry)

    def audit(self, number: int) -> AuditReport:
        """The record of an audit. Raises DataError where it cannot be read."""
        return self.entry(number).audit().record


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The request beyond the record: the probes, and every decisive option, by its flag."""

    probes: tuple[str, ...]
    options: Mapping[str, JsonValue]


def next_look(
    history: Known, name: str, planned: int | None, error_rate: float, *, before: int = ALL
) -> CampaignRecord:
    """The next look of a campaign.

    A campaign is known by its name, whichever rows and models its looks are at: a row left out does not begin another.
    Raises UsageError where it began with another error rate or another number of looks, and where it has none left.
    """
    spent = history.index.of_campaign(name, before)
    for number in spent[:1]:
        looks = history.audit(number).looks
        campaign = None if looks is None else looks.campaign
        if campaign is not None and campaign.error_rate != error_rate:
            raise UsageError(
                f"Campaign {name!r} spends an error rate of {campaign.error_rate:g} since entry {number}: say "
                f"--error-rate {campaign.error_rate:g}."
            )
        if campaign is not None and campaign.planned != planned:
            then = "without --campaign-looks" if campaign.planned is None else f"--campaign-looks {campaign.planned}"
            raise UsageError(f"Campaign {name!r} was begun {then} at entry {number}: go on with that.")
    if planned is not None and len(spent) >= planned:
        raise UsageError(
            f"Campaign {name!r} has spent its {planned} {'look' if planned == 1 else 'looks'} "
            f"({entries_named(spent, MOST_KEPT)}): begin another on rows that it has not seen."
        )
    return CampaignRecord(name=name, look=len(spent) + 1, planned=planned, error_rate=error_rate)


def looks_of(
    history: Known,
    head: str,
    report: AuditReport,
    request: Asked,
    campaign: CampaignRecord | None,
    *,
    before: int = ALL,
    most: int | None = MOST_KEPT,
) -> LooksRecord:
    """The look number of a report's audit among the entries ``before`` one, in a history that ends with ``head``.

    Of what is known by many entries at most ``most`` are named, None for all.
    """
    now, data = Identity.from_report(report), report.data
    earlier = history.index.looks(data, now, before)
    rows, others = numbers_of(e for e in earlier if e.rows), numbers_of(e for e in earlier if not e.rows)
    kept = set(rows[-(most or ALL) :] + others[-(most or ALL) :])
    created, questions = history.index.created(sorted(kept)), _questions_of(history, earlier)
    return LooksRecord(
        rows=None if data.sha256 is None and data.rows_sha256 is None else 1 + len(rows),
        model=None if now.sha256 is None and not now.id else 1 + sum(len(e.numbers) for e in earlier if e.model),
        earlier=tuple(
            EarlierLook(
                entry=number, created=created[number], exit_code=e.exit_code, same_rows=e.rows, same_model=e.model
            )
            for number, e in sorted((number, e) for e in earlier for number in kept.intersection(e.numbers))
        ),
        changed=tuple(_changes(questions, report, request, campaign, most)),
        not_shown=tuple(_not_shown(history, questions, report, before, most)),
        probes=request.probes,
        asked=dict(request.options),
        head=head,
        campaign=campaign,
    )


# ---- what was asked otherwise ----------------------------------------------------------------------------------------


def numbers_of(looks: Iterable[Looks]) -> list[int]:
    """The entries of all looks, in order."""
    return sorted(number for each in looks for number in each.numbers)


@dataclass(frozen=True, kw_only=True)
class _Question:
    """Earlier audits that asked the same; ``record``: that of the first, as which all of them are compared."""

    record: AuditReport
    same_rows: bool
    numbers: tuple[int, ...]


def _questions_of(history: Known, earlier: Sequence[Looks]) -> list[_Question]:
    groups: dict[tuple[str, bool], list[Looks]] = {}
    for each in earlier:
        groups.setdefault((each.question, each.rows), []).append(each)
    return [
        _Question(record=history.audit(numbers[0]), same_rows=rows, numbers=tuple(numbers))
        for (_, rows), own in groups.items()
        for numbers in [numbers_of(own)]
    ]


def _changes(
    questions: Sequence[_Question],
    report: AuditReport,
    request: Asked,
    campaign: CampaignRecord | None,
    most: int | None,
) -> list[str]:
    """Sentences on what was otherwise in earlier looks: one for each change, with all entries that it is about."""
    found: dict[tuple[str, str], list[int]] = {}
    for question in questions:
        changes = list(_requirements(question.record, report, campaign))
        if question.same_rows:
            changes += _questions(question.record, report, request)
        for change in dict.fromkeys(changes):
            found.setdefault(change, []).extend(question.numbers)
    return [f"{was} at {entries_named(sorted(numbers), most)}{now}" for (was, now), numbers in found.items()]


def _not_shown(
    history: Known, questions: Sequence[_Question], report: AuditReport, before: int, most: int | None
) -> Iterator[str]:
    """Requirements that say they were set before audits of these rows, and stand in none of the first of them."""
    own = [question for question in questions if question.same_rows]
    if not own:
        return
    began = min(question.numbers[0] for question in own)
    planned = _planned_before(history, report, min(began, before))
    late: dict[int | None, tuple[list[int], list[str]]] = {}
    for subject, _, criterion in changed_criteria((), report.criteria):
        if criterion is None or _bare(criterion) in planned:
            continue
        having = [question.numbers[0] for question in own if _has(question.record, criterion)]
        first = min(having, default=None)
        if first == began:
            continue
        without = sorted(n for question in own for n in question.numbers if first is None or n < first)
        if without and criterion.set_at[:10] <= history.index.created(without[-1:])[without[-1]][:10]:
            words = f"{subject} ({criterion.describe()}, set at {criterion.set_at})"
            late.setdefault(first, (without, []))[1].append(words)
    for first, (numbers, named) in late.items():
        n, at = len(numbers), entries_named(numbers, most)
        since = "now" if first is None else f"at entry {first}"
        yield (
            f"Nothing in this history shows that this was set before these rows were looked at: "
            f"{_first_of(named)}; first known {since}, after {n:,} {'audit' if n == 1 else 'audits'} of them ({at})."
        )


def _planned_before(history: Known, report: AuditReport, number: int) -> list[CriterionRecord]:
    """What a plan fixed that was entered before an entry, and that the run kept to."""
    plan = report.registration
    there = None if plan is None or plan.deviations else history.index.plan(plan.sha256, number)
    if there is None:
        return []
    return [_bare(c) for c in history.entry(there.number).registration().registration.plan.criteria]


def _bare(criterion: CriterionRecord) -> CriterionRecord:
    """What is required of what, whoever says it and whatever its share of the error rate."""
    plain = {"source": "", "set_by": "", "set_at": "", "budget": "", "rate": None, "weight": 1.0, "primary": False}
    return criterion.model_copy(update=plain)


def _has(record: AuditReport, criterion: CriterionRecord) -> bool:
    return any(_bare(each) == _bare(criterion) for each in record.criteria)


def _requirements(
    earlier: AuditReport, current: AuditReport, campaign: CampaignRecord | None
) -> Iterator[tuple[str, str]]:
    gone, new = [], []
    for subject, a, b in changed_criteria(earlier.criteria, current.criteria):
        if a is not None and b is not None and (a.direction, a.bound) != (b.direction, b.bound):
            yield f"{subject} had to be {a.describe()}", f", and {b.describe()} now."
        elif a is not None and b is not None and _share(a) != _share(b):
            yield f"{subject} was judged in {_share(a)}", f", and in {_share(b)} now."
        elif b is None and a is not None:
            gone.append((_gravity(earlier, a), f"{subject} ({a.describe()})"))
        elif a is None and b is not None:
            new.append(f"{subject} ({b.describe()})")
    if gone:
        # What failed by them first: that is why somebody may have taken them out.
        yield "Required", f", and not now: {_first_of([said for _, said in sorted(gone, key=lambda each: each[0])])}."
    if new:
        yield "Not required", f", and now: {_first_of(new)}."
    before = earlier.looks.campaign if earlier.looks is not None else None
    # Of a campaign the whole of what it promises: levels differ from look to look.
    rates = [r.family.error_rate if c is None else c.error_rate for r, c in ((earlier, before), (current, campaign))]
    if rates[0] != rates[1]:
        yield f"The error rate was {rates[0]:g}", f", and is {rates[1]:g} now."
    if earlier.family.multiplicity != current.family.multiplicity:
        yield (
            f"The allowance for multiplicity was {earlier.family.multiplicity}",
            f", and is {current.family.multiplicity}.",
        )


def _share(criterion: CriterionRecord) -> str:
    rate = "" if criterion.rate is None else f"rate {criterion.rate:g}, "
    primary = ", primary" if criterion.primary else ""
    return f"the budget {criterion.budget or 'of its pillar'} ({rate}weight {criterion.weight:g}{primary})"


def _gravity(record: AuditReport, criterion: CriterionRecord) -> int:
    outcomes = {f.outcome for f in record.findings if f.criterion == criterion}
    return next((i for i, outcome in enumerate(_GRAVEST_FIRST) if outcome in outcomes), len(_GRAVEST_FIRST))


def _first_of(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMES_LISTED
    return ", ".join(names[:_MOST_NAMES_LISTED]) + (f" and {rest:,} more" if rest > 0 else "")


def _questions(earlier: AuditReport, current: AuditReport, request: Asked) -> Iterator[tuple[str, str]]:
    if earlier.environment.seed != current.environment.seed:
        yield f"The seed was {earlier.environment.seed}", f", and is {current.environment.seed} now."
    before = _probes_of(earlier) if earlier.looks is None else earlier.looks.probes
    dropped = [name for name in before if name not in request.probes]
    added = [name for name in request.probes if name not in before]
    if dropped:
        yield f"{_probes_subject(dropped)} asked", ", and not now."
    if added:
        yield f"{_probes_subject(added)} not asked", ", and now."
    packs = [", ".join(policy.name for policy in record.policies) or "none" for record in (earlier, current)]
    if packs[0] != packs[1]:
        yield f"The rule packs were {packs[0]}", f", and are {packs[1]} now."
    options = request.options if earlier.looks is None else earlier.looks.asked
    for name in dict.fromkeys((*options, *request.options)):
        if (name in options) != (name in request.options) or options.get(name) != request.options.get(name):
            was, is_ = ("not set" if name not in o else _value_text(o[name]) for o in (options, request.options))
            yield f"{name} was {was}", f", and is {is_} now."


def _probes_of(record: AuditReport) -> tuple[str, ...]:
    """The probes that were asked, as far as findings tell: not those that a criterion alone names."""
    named = [f.probe for f in record.findings if f.metric is not None or f.criterion is None]
    return tuple(name for name in dict.fromkeys(named) if name not in (INTAKE, FILES))


def _probes_subject(probes: Sequence[str]) -> str:
    return f"The probe {probes[0]} was" if len(probes) == 1 else f"The probes {', '.join(probes)} were"


def _value_text(value: JsonValue) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


# ---- checked ---------------------------------------------------------------------------------------------------------


def miscounted(history: Known, entry: Entry | None, head: str, report: AuditReport, *, whole: bool = True) -> list[str]:
    """Errors of a report about its looks, from the entries before its own, in words.

    ``head``: the hash of the last of those. ``entry``: its own, None where it is yet to be entered. ``whole``: as of
    :class:`~auditor.evidence.history.entries.AuditEntry`; records of before named all earlier looks, and did not look
    for requirements that were set later than they say.
    """
    said = report.looks
    if said is None:
        return []
    if said.head != head:
        return ["its looks were counted in another history, or before another entry"]
    problems = []
    before = ALL if entry is None else entry.number
    campaign = said.campaign
    try:
        if campaign is not None:
            now = next_look(history, campaign.name, campaign.planned, campaign.error_rate, before=before)
            if now.look != campaign.look:
                problems.append(f"it says look {campaign.look} of campaign {campaign.name}, and is look {now.look}")
    except UsageError as error:
        problems.append(str(error).rstrip("."))
    asked, most = Asked(probes=said.probes, options=said.asked), MOST_KEPT if whole else None
    found = looks_of(history, head, report, asked, campaign, before=before, most=most)
    if (found.rows, found.model) != (said.rows, said.model):
        problems.append(
            f"it says look {said.rows or 0} at its rows and {said.model or 0} at its model, and this is look "
            f"{found.rows or 0} and {found.model or 0}"
        )
    elif found.earlier != said.earlier:
        problems.append("it names other earlier looks than there are")
    if found.changed != said.changed:
        problems.append("it names other changes since earlier looks than there are")
    if found.not_shown != said.not_shown and (whole or said.not_shown is not None):
        problems.append("it names other requirements that were set later than they say")
    return problems


def misspent(report: AuditReport) -> list[str]:
    """Contradictions to a report's campaign: the report must be judged at the level of its look only."""
    campaign = report.looks.campaign if report.looks is not None else None
    if campaign is None or abs(report.family.error_rate - campaign.level) <= 1e-12:
        return []
    return [f"look {campaign.look} of campaign {campaign.name} has level {campaign.level:.6g}, and this was judged at "
            f"{report.family.error_rate:.6g}"]  # fmt: skip


_MOST_ENTRIES_NAMED = 6
# Of clocks that differ, or a ledger that had to be waited for.
_AT_ONCE = timedelta(hours=1)
# What the clocks of those who share a history may differ by.
_CLOCKS = timedelta(days=1)


def placed(history: Known, report: AuditReport, *, before: int = ALL) -> RegistrationRecord | None:
    """A report's registration record, with its position in the history among the entries ``before`` one.

    None where it followed none. Raises DataError where the entry was changed.
    """
    plan = report.registration
    if plan is None:
        return None
    line = history.index.plan(plan.sha256, before)
    if line is None:
        why = "It was not entered in this history, which does not show that it was made before the results were seen."
        return plan.model_copy(update={"entered": None, "cautions": (why,)})
    entry = history.entry(line.number)
    if entry.registration().sha256 != plan.sha256:
        raise DataError(f"Entry {line.number} of the history holds another registration than its index says.")
    data, model = report.data, Identity.from_report(report)
    looks = history.index.looks(data, model, line.number)
    rows = [look for look in looks if look.rows]
    entered = PlanEntered(
        entry=entry.number,
        hash=entry.hash,
        created=entry.created,
        rows=None if data.sha256 is None and data.rows_sha256 is None else sum(len(look.numbers) for look in rows),
        model=None if model.sha256 is None and not model.id else sum(len(look.numbers) for look in looks if look.model),
    )
    cautions = tuple(_cautions(entry, plan, rows, history.index.latest(entry.number)))
    return plan.model_copy(update={"entered": entered, "cautions": cautions})


def _cautions(entry: Entry, plan: RegistrationRecord, looks: list[Looks], latest: str | None) -> Iterator[str]:
    """``latest``: when an entry before it says that it was entered."""
    if looks:
        numbers = numbers_of(looks)
        n, failed = len(numbers), sum(len(look.numbers) for look in looks if look.exit_code == 1)
        at = entries_named(numbers, _MOST_ENTRIES_NAMED)
        yield (
            f"It was entered at entry {entry.number}, AFTER {n:,} {'audit' if n == 1 else 'audits'} of these rows "
            f"({at}; {failed:,} FAIL): whoever made it may have seen their results."
        )
    try:
        late = datetime.fromisoformat(entry.created) - datetime.fromisoformat(plan.registered) > _AT_ONCE
    except (ValueError, TypeError):
        late = True
    if late:
        yield f"It says that it was registered on {plan.registered}, and was entered on {entry.created[:19]}Z."
    if latest is not None and _is_before(entry.created, latest):
        yield (
            f"Its entry {entry.number} says {entry.created[:10]} and follows on an entry of {latest[:10]}: one of the "
            "two dates is not when it was entered."
        )


def _is_before(created: str, latest: str) -> bool:
    try:
        return datetime.fromisoformat(latest) - datetime.fromisoformat(created) > _CLOCKS
    except (ValueError, TypeError):
        return True


def misplaced(history: Known, report: AuditReport, *, before: int) -> list[str]:
    """Errors of a report about the position of its registration in a history, in words."""
    found = placed(history, report, before=before)
    said = report.registration
    if found is None or said is None or (found.entered, found.cautions) == (said.entered, said.cautions):
        return []
    return ["it says otherwise where its registration was entered, or what was audited before that"]
