"""Verification of the log, the request and the rule packs against the record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

from auditor.core.errors import AuditorError, DataError
from auditor.evidence.history.earlier_looks import misspent
from auditor.evidence.manifest import LOG, REQUEST, TABLES, Asked, events
from auditor.evidence.registration import ROLES
from auditor.evidence.verify.checks import Check, State, Unproven
from auditor.evidence.verify.configuration_check import pack_file_name
from auditor.evidence.verify.enclosed_inputs import WentBy
from auditor.evidence.verify.json_difference import difference
from auditor.judging.policy import Policy, load_policies, pack_names, parse_policy
from auditor.report.record.audit_report import FILES, AuditReport
from auditor.report.record.control_record import PolicyRecord
from auditor.report.record.controls import with_policies
from auditor.run import __version__
from auditor.run.predictions import read_head
from auditor.run.run_audit import files_result

# What a check of a rule pack is called, before the pack's own name.
RULE_PACK = "rule pack "


def check_log_and_packs(
    entries: Mapping[str, bytes], report: AuditReport, results_file: Asked, inputs: WentBy
) -> list[Check]:
    """Checks of the log, the request and the rule packs against the record."""
    checks = [*_begun(entries, report), *_files(report, results_file)]
    said = next((e for e in reversed(events(entries.get(LOG, b""))) if e.get("event") == "recorded"), None)
    if said is None:
        checks.append(Check(name="log", state="not checked", detail="it does not say what was recorded"))
    else:
        found = {
            "exit_code": report.exit_code,
            "created": report.created,
            "seed": report.environment.seed,
            "model": report.model.sha256,
            "data": report.data.sha256,
            "summary": report.summary.model_dump(by_alias=True),
            "answers": {result.probe: len(result.measurements) for result in results_file.results},
        }
        if where := difference({name: said[name] for name in found if name in said}, found):
            checks.append(Check(name="log", state="wrong", detail=f"it is of another audit than the record: {where}"))
    options = _request(entries.get(REQUEST, b"{}"))
    allowed = bool(options.get("allow_inconclusive", False))
    if allowed is not report.allow_inconclusive or options.get("seed", 0) != report.environment.seed:
        detail = "it does not ask for what the record says was asked (seed, --allow-inconclusive)"
        checks.append(Check(name=REQUEST, state="wrong", detail=detail))
    asked = (options.get("cluster"), options.get("weight"))
    if report.refusal is None and asked != (report.data.cluster, report.data.weight):
        detail = "it does not ask for what the record says of the rows (--cluster, --weight)"
        checks.append(Check(name=REQUEST, state="wrong", detail=detail))
    try:
        head, _ = read_head(entries.get(TABLES, b""))
    except DataError:
        head = None  # said where the tables are read
    if head is not None and report.data.n_rows != head.n:
        detail = f"the record speaks of {report.data.n_rows} rows, the stored answers of {head.n}"
        checks.append(Check(name="rows", state="wrong", detail=detail))
    outcomes = {f.id: f.outcome.value for f in report.findings}
    checks += [Check(name="looks", state="wrong", detail=detail) for detail in misspent(report)]
    checks += _roles_as_asked(entries.get(REQUEST, b"{}"), report) + _packs(report, inputs)
    wrong = [c.id for c in report.controls for cell in c.cells if any(f not in outcomes for f in cell.findings)]
    if wrong:
        checks.append(Check(name="controls", state="wrong", detail=f"{wrong[0]} rests on a finding that is not there"))
    return checks


def _roles_as_asked(request: bytes, report: AuditReport) -> list[Check]:
    try:
        asked = json.loads(request).get(ROLES)
    except (ValueError, AttributeError, RecursionError):
        return []
    said = None if report.roles is None else report.roles.model_dump(mode="json")
    if asked == said:
        return []
    return [
        Check(name=REQUEST, state="wrong", detail="it does not ask for what the record says of the columns ([roles])")
    ]


def _begun(entries: Mapping[str, bytes], report: AuditReport) -> list[Check]:
    """Whether the log begins with what the record says began."""
    first = next(iter(events(entries.get(LOG, b""))), {})
    found: dict[str, object] = {"seed": report.environment.seed}
    found["tool"] = f"{report.tool.get('name')} {report.tool.get('version')}"
    where = difference({k: first[k] for k in found if k in first}, {k: found[k] for k in found if k in first})
    return [Check(name="log", state="wrong", detail=f"another audit than the record's began: {where}")] if where else []


def _files(report: AuditReport, results_file: Asked) -> list[Check]:
    """Whether what is said of files that could not be read is what the answers say."""
    said = [result for result in results_file.results if result.probe == FILES]
    where = difference([r.not_run for r in said], [r.not_run for r in files_result(report.data)])
    return [Check(name=FILES, state="wrong", detail=where)] if where and report.refusal is None else []


def _packs(report: AuditReport, inputs: WentBy) -> list[Check]:
    """Of each rule pack its text, digest, day and cells anew; of a record of before there were digests, nothing."""
    enclosed = {pack.sha256: pack for pack in _enclosed_packs(inputs)}
    named = {policy.sha256 for policy in report.policies}
    checks = [
        Check(name=f"{RULE_PACK}{pack.name}", state="wrong", detail="it is enclosed, and the record does not name it")
        for digest, pack in enclosed.items()
        if digest not in named
    ]
    days = _days(report, inputs)
    for policy in report.policies:
        if policy.sha256:
            checks += _pack_checks(report, policy, enclosed.get(policy.sha256), days)
    of_no_pack = [c for c in report.controls if c.policy not in {policy.name for policy in report.policies}]
    if of_no_pack:
        detail = f"{of_no_pack[0].id} is of a rule pack that the record does not name"
        checks.append(Check(name="controls", state="wrong", detail=detail))
    return checks


def _pack_checks(report: AuditReport, policy: PolicyRecord, enclosed: Policy | None, days: set[str]) -> list[Check]:
    """One rule pack held against the findings anew, by its text that is enclosed or else shipped with auditor."""
    name = f"{RULE_PACK}{policy.name}"
    shipped, _ = load_policies([policy.name]) if policy.name in pack_names() else ([], [])
    own = enclosed or next((p for p in shipped if p.sha256 == policy.sha256), None)
    if own is None:
        detail = "its text is neither enclosed nor of this auditor: SHA-256 " + policy.sha256[:16]
        return [Check(name=name, state="not checked", detail=detail)]
    again = with_policies(report, [own], date.fromisoformat(policy.as_of))
    mine = [c.model_dump(mode="json") for c in again.controls]
    said = [c.model_dump(mode="json") for c in report.controls if c.policy == policy.name]
    where = difference([policy.model_dump(mode="json"), said], [again.policies[0].model_dump(mode="json"), mine])
    detail = where or f"SHA-256 of its text, and {len(mine)} controls held against the findings anew"
    # How cells follow from findings is of the code that drew them.
    state: State = "ok" if not where else "wrong" if report.tool.get("version") == __version__ else "not checked"
    checks = [Check(name=name, state=state, detail=detail)]
    if days and policy.as_of not in days:
        detail = f"it is held to be in force on {policy.as_of}, which was not asked for"
        checks.append(Check(name=name, state="wrong", detail=detail))
    return checks


def unread(report: AuditReport, inputs: WentBy) -> list[Unproven]:
    """Unproven parts: rule packs of older records without a stated text, and days without a request."""
    found = [
        Unproven(
            where=f"record.json: controls of {policy.name}.*",
            why="the record does not say which text it had",
            needs="packs",
        )
        for policy in report.policies
        if not policy.sha256
    ]
    if report.policies and not _days(report, inputs):
        why = "on which day they were to be held to be in force is not in the request"
        found.append(Unproven(where="record.json: policies.as_of", why=why, needs="packs"))
    return found


def _enclosed_packs(inputs: WentBy) -> list[Policy]:
    """The rule packs that are enclosed; one that cannot be read is named by the check of the configuration."""
    found = []
    for file in inputs.of_role("rule pack"):
        with suppress(AuditorError, ValueError):
            found.append(parse_policy(file.text, pack_file_name(file)))
    return found


def _days(report: AuditReport, inputs: WentBy) -> set[str]:
    """The days on which packs may be held to be in force: the one asked for, else that of the audit."""
    if inputs.understood is None:
        return set()
    asked = inputs.understood.as_of
    if asked is not None:
        return {asked.isoformat()}
    try:
        made = date.fromisoformat(report.created[:10])
    except ValueError:
        return set()
    return {made.isoformat(), (made + timedelta(days=1)).isoformat()}


def _request(content: bytes) -> Mapping[str, Any]:
    try:
        return dict(json.loads(content)["options"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
