"""Page 3: the remedy of each finding, its severity, owner and due date, and its acceptance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from auditor.core.files import fields_in
from auditor.judging.measurement import Form, Outcome
from auditor.report.first_page import in_its_words, unbounded_of
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.earlier_audits import key_of, key_text
from auditor.report.record.finding_text import form_of, question_text
from auditor.report.record.provenance_of_number import caution_of, to_copy
from auditor.report.record.severity_and_acceptance import (
    Acceptance,
    Severity,
    Standing,
    acceptances_of,
    findings_by_key,
    severity_of,
)
from auditor.report.record.translations import Catalogue

Status = Literal["open"] | Standing
_TO_MEND = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN)
_SHARES: tuple[Form, ...] = ("points", "percent", "pairs")
# Of many findings these are in sight, and the others one fold below.
MOST_IN_SIGHT = 12


@dataclass(frozen=True)
class Remedy:
    """One line of the table; ``owner`` and ``due`` are "" if unstated, to be filled in by hand.

    ``id``: of the finding in the record; ``anchor``: its place on the page, "" where it was not measured now.
    """

    name: str
    about: str
    found: str
    interval: str
    allowed: str
    id: str
    anchor: str
    outcome: Outcome
    severity: str
    owner: str
    due: str
    status: Status
    said: str


@dataclass(frozen=True)
class Remediation:
    """The table, most severe first; ``retest``: the command that repeats it all, "" if unknown.

    ``nothing``: what is said where there is no line. ``heads``: the words above the columns.
    """

    title: str
    rule: str
    heads: tuple[str, str, str, str, str]
    lines: tuple[Remedy, ...]
    nothing: str
    retest_title: str
    retest: str

    @property
    def in_sight(self) -> tuple[Remedy, ...]:
        """The first lines."""
        return self.lines[:MOST_IN_SIGHT]

    @property
    def folded_lines(self) -> tuple[Remedy, ...]:
        """The collapsed remedies."""
        return self.lines[MOST_IN_SIGHT:]


def remediation_of(report: AuditReport, say: Catalogue | None = None) -> Remediation:
    """The remediation table of a record, in its own language or in the words of ``say``.

    A line for every finding that FAILs, was NOT_RUN or is INCONCLUSIVE, for the numbers without a bound that the first
    page chooses, and for what somebody accepted by its value, met or measured now or not.
    """
    words = report.catalogue(say)
    retest = to_copy(report.environment.command)
    caution = caution_of(retest, words)
    names = ("finding", "severity", "owner", "due", "status")
    first, second, third, fourth, fifth = (words.say(f"remedy.{name}") for name in names)
    return Remediation(
        title=words.say("remedy.title"),
        rule=words.say("remedy.rule"),
        heads=(first, second, third, fourth, fifth),
        lines=() if report.refusal is not None else tuple(_lines(report, words)),
        nothing=words.say("remedy.nothing" if report.refusal is None else "remedy.refused"),
        retest_title=words.say("remedy.retest") + f" ({caution})" * bool(caution),
        retest=retest,
    )


def _lines(report: AuditReport, say: Catalogue) -> Iterator[Remedy]:
    accepted, now = acceptances_of(report.decisions), findings_by_key(report)
    listed = [f for f in report.findings if f.outcome in _TO_MEND]
    listed += unbounded_of(report)
    keys = {key_of(f) for f in listed}
    met = [now[key] for key in accepted if key in now and key not in keys]
    ranked = sorted([*listed, *met], key=lambda f: severity_of(f).rank)
    for f, line in zip(ranked, in_its_words(report, say, ranked), strict=True):
        acceptance = accepted.get(key_of(f))
        yield Remedy(
            **fields_in(Remedy, line),
            id=f.id,
            severity=_grave(severity_of(f), form_of(report, f.probe, f.metric), say),
            owner=acceptance.owner if acceptance else "",
            due=(acceptance.due or "") if acceptance else "",
            status=acceptance.status_for(f) if acceptance else "open",
            said=_status_text(report, acceptance, f, say),
        )
    for key, acceptance in accepted.items():
        if key not in now and acceptance.value is not None:
            yield _unmeasured_remedy(report, acceptance, say)


def _unmeasured_remedy(report: AuditReport, acceptance: Acceptance, say: Catalogue) -> Remedy:
    """What somebody accepted and this audit did not measure, which is no news of it."""
    probe, _, metric, _ = acceptance.finding_key
    return Remedy(
        name=question_text(report, probe, metric or None, say, section="subject"),
        about=key_text(acceptance.finding_key),
        found="",
        interval="",
        allowed="",
        id=acceptance.item.finding,
        anchor="",
        outcome=Outcome.NOT_RUN,
        severity=say.say("remedy.gone"),
        owner=acceptance.owner,
        due=acceptance.due or "",
        status=acceptance.status_for(None),
        said=_status_text(report, acceptance, None, say),
    )


def _grave(severity: Severity, form: Form, say: Catalogue) -> str:
    if severity.kind in ("not_run", "met"):
        return say.say(f"remedy.{severity.kind}")
    if severity.by is None:
        return say.say("remedy.beyond_unknown" if severity.kind == "beyond" else "remedy.open_unknown")
    # How far a share lies from another is so many points.
    return say.say(f"remedy.{severity.kind}", by=say.value(severity.by, "points" if form in _SHARES else form))


def _status_text(report: AuditReport, acceptance: Acceptance | None, finding: Finding | None, say: Catalogue) -> str:
    if acceptance is None:
        return say.say("remedy.status_open")
    form = form_of(report, acceptance.finding_key[0], acceptance.finding_key[2] or None)
    item = acceptance.item
    limit = say.say("remedy.no_value")
    if item.value is not None:
        way = "up_to" if item.value == item.high else "down_to"
        limit = say.say(f"remedy.{way}", value=say.exactly(item.value, form))
    now = finding.value if finding is not None else None
    return say.say(
        f"remedy.status_{acceptance.status_for(finding)}",
        limit=limit,
        until=acceptance.until,
        by=acceptance.last_signer,
        now=say.say("form.undefined") if now is None else say.exactly(float(f"{now:.4g}"), form),
        missing=", ".join(say.say(f"remedy.step_{step}") for step in acceptance.missing),
    )
