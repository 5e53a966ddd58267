"""A registration's record made again: from the enclosed registration, and from the plan that was in force."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from auditor.evidence.registration import Plan, held_against, with_what_became
from auditor.record.audit_report import AuditReport, RegistrationRecord
from auditor.verifying.checks import Check, Unproven
from auditor.verifying.difference import difference
from auditor.verifying.went_by import WentBy

NAME = "registration"
_WHERE = "record.json: registration"


def registered(report: AuditReport, by: WentBy, trusted: Collection[str]) -> tuple[list[Check], list[Unproven]]:
    """Whether the record says of its registration what that and the plan come to. ``trusted``: fingerprints of keys."""
    said = report.registration
    if said is None:
        wrong = by.registration is not None
        detail = "one is enclosed, and the record says nothing of it"
        return [Check(name=NAME, state="wrong", detail=detail)] if wrong else [], []
    if by.registration is None or by.understood is None:
        why = (
            "the registration is not enclosed" if by.registration is None else "the plan in force is not in the request"
        )
        checks = [] if by.registration is None else _apart_from_the_plan(said, by)
        return checks, [Unproven(where=f"{_WHERE}.*", why=why, needs="registration")]
    again = _again(report, said, by)
    where = difference(said.model_dump(mode="json"), again.model_dump(mode="json"))
    if where:
        return [Check(name=NAME, state="wrong", detail=f"by the registration and the plan: {where}")], []
    n = len(said.deviations)
    detail = f"digest, author, day, signature and {n} {'deviation' if n == 1 else 'deviations'} found anew"
    return [Check(name=NAME, state="ok", detail=detail)], _open(said, by.understood.plan, trusted)


def _again(report: AuditReport, said: RegistrationRecord, by: WentBy) -> RegistrationRecord:
    if by.registration is None or by.understood is None:
        return said
    record = held_against(
        by.registration,
        by.understood.plan,
        path=said.path,
        started=datetime.fromisoformat(by.understood.began),
        tool=str(report.tool.get("version")),
    )
    planned = list(by.understood.plan.probes)
    record = with_what_became(record, report.findings, refused=report.refusal is not None, planned=planned)
    # Where the history holds it is for the history to say.
    return record.model_copy(update={"entered": said.entered, "cautions": said.cautions})


def _apart_from_the_plan(said: RegistrationRecord, by: WentBy) -> list[Check]:
    if by.registration is None:
        return []
    made = by.registration.registration
    found = (made.digest, made.registered, made.by, by.registration.signed_with)
    same = found == (said.sha256, said.registered, said.by, said.signed_with)
    return [] if same else [Check(name=NAME, state="wrong", detail="the one that is enclosed is another")]


def _open(said: RegistrationRecord, plan: Plan, trusted: Collection[str]) -> list[Unproven]:
    found = [
        Unproven(
            where=f"{_WHERE}.registered",
            why="a registration's day is its author's word where no timestamp tells it",
            needs="timestamp",
        )
    ]
    if said.signed_with is None or said.signed_with not in trusted:
        whose = (
            "by nobody" if said.signed_with is None else f"with the key {said.signed_with[:16]}, which you did not name"
        )
        found.append(Unproven(where=f"{_WHERE}.by", why=f"it is signed {whose}", needs="registration"))
    if said.entered is not None or said.cautions:
        found += [
            Unproven(
                where=f"{_WHERE}.{name}", why="where it was entered is for the history to say: --db", needs="history"
            )
            for name in ("entered.*", "cautions")
        ]
    loose = [name for name, digest in plan.files.items() if digest is None]
    if loose:
        why = f"of {', '.join(loose)} no digest was held against the registered one"
        found.append(Unproven(where=f"{_WHERE}.deviations", why=why, needs="registration"))
    return found
