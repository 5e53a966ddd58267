"""Verification of the registration record, rebuilt from the enclosed registration and the plan in force."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from auditor.evidence.registration import Plan, held_against, with_what_became
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_inputs import WentBy
from auditor.evidence.verify.json_difference import difference
from auditor.report.record.audit_report import AuditReport, RegistrationRecord

NAME = "registration"
_WHERE = "record.json: registration"


def check_registration(
    report: AuditReport, inputs: WentBy, trusted: Collection[str]
) -> tuple[list[Check], list[Unproven]]:
    """Check that the registration record follows from the registration and the plan.

    ``trusted``: fingerprints of keys.
    """
    said = report.registration
    if said is None:
        wrong = inputs.registration is not None
        detail = "one is enclosed, and the record says nothing of it"
        return [Check(name=NAME, state="wrong", detail=detail)] if wrong else [], []
    if inputs.registration is None or inputs.understood is None:
        why = (
            "the registration is not enclosed"
            if inputs.registration is None
            else "the plan in force is not in the request"
        )
        checks = [] if inputs.registration is None else _apart_from_the_plan(said, inputs)
        return checks, [Unproven(where=f"{_WHERE}.*", why=why, needs="registration")]
    again = _rebuild_record(report, said, inputs)
    where = difference(said.model_dump(mode="json"), again.model_dump(mode="json"))
    if where:
        return [Check(name=NAME, state="wrong", detail=f"by the registration and the plan: {where}")], []
    n = len(said.deviations)
    detail = f"digest, author, day, signature and {n} {'deviation' if n == 1 else 'deviations'} found anew"
    return [Check(name=NAME, state="ok", detail=detail)], _open(said, inputs.understood.plan, trusted)


def _rebuild_record(report: AuditReport, stored_record: RegistrationRecord, inputs: WentBy) -> RegistrationRecord:
    if inputs.registration is None or inputs.understood is None:
        return stored_record
    record = held_against(
        inputs.registration,
        inputs.understood.plan,
        path=stored_record.path,
        started=datetime.fromisoformat(inputs.understood.began),
        tool=str(report.tool.get("version")),
    )
    planned = list(inputs.understood.plan.probes)
    record = with_what_became(record, report.findings, was_refused=report.refusal is not None, planned=planned)
    # Where the history holds it is for the history to say.
    return record.model_copy(update={"entered": stored_record.entered, "cautions": stored_record.cautions})


def _apart_from_the_plan(stored_record: RegistrationRecord, inputs: WentBy) -> list[Check]:
    if inputs.registration is None:
        return []
    made = inputs.registration.registration
    found = (made.digest, made.registered, made.by, inputs.registration.signed_with)
    same = found == (stored_record.sha256, stored_record.registered, stored_record.by, stored_record.signed_with)
    return [] if same else [Check(name=NAME, state="wrong", detail="the one that is enclosed is another")]


def _open(stored_record: RegistrationRecord, plan: Plan, trusted: Collection[str]) -> list[Unproven]:
    found = [
        Unproven(
            where=f"{_WHERE}.registered",
            why="a registration's day is its author's word where no timestamp tells it",
            needs="timestamp",
        )
    ]
    if stored_record.signed_with is None or stored_record.signed_with not in trusted:
        whose = (
            "by nobody"
            if stored_record.signed_with is None
            else f"with the key {stored_record.signed_with[:16]}, which you did not name"
        )
        found.append(Unproven(where=f"{_WHERE}.by", why=f"it is signed {whose}", needs="registration"))
    if stored_record.entered is not None or stored_record.cautions:
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
