"""What the log, the request and the rule packs say of an audit, held against its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from auditor.errors import DataError
from auditor.evidence.history.looks import misspent
from auditor.evidence.log import events
from auditor.evidence.manifest import LOG, REQUEST, TABLES, Asked
from auditor.evidence.registration import ROLES
from auditor.finding.policy import load_policies, pack_names
from auditor.record.audit_report import AuditReport
from auditor.record.controls import with_policies
from auditor.run import __version__
from auditor.run.answers import read_head
from auditor.verifying.checks import Check, State
from auditor.verifying.difference import difference

# What a check of a rule pack is called, before the pack's own name.
RULE_PACK = "rule pack "


def told(entries: Mapping[str, bytes], report: AuditReport, asked: Asked) -> list[Check]:
    """What the log and the request say of the audit, held against its record."""
    checks = []
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
            "answers": {result.probe: len(result.measurements) for result in asked.results},
        }
        if where := difference({name: said.get(name) for name in found}, found):
            checks.append(Check(name="log", state="wrong", detail=f"it is of another audit than the record: {where}"))
    options = _request(entries.get(REQUEST, b"{}"))
    allowed = bool(options.get("allow_inconclusive", False))
    if allowed is not report.allow_inconclusive or options.get("seed", 0) != report.environment.seed:
        detail = "it does not ask for what the record says was asked (seed, --allow-inconclusive)"
        checks.append(Check(name=REQUEST, state="wrong", detail=detail))
    if (options.get("cluster"), options.get("weight")) != (report.data.cluster, report.data.weight):
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
    checks += _roles_as_asked(entries.get(REQUEST, b"{}"), report) + _packs(report)
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


def _packs(report: AuditReport) -> list[Check]:
    """Of each rule pack whose text is at hand, its digest and its cells anew; of an earlier record, nothing."""
    checks = []
    for policy in report.policies:
        if not policy.sha256:
            continue
        name = f"{RULE_PACK}{policy.name}"
        own, _ = load_policies([policy.name]) if policy.name in pack_names() else ([], [])
        if not own or own[0].sha256 != policy.sha256:
            detail = "its text is not among the packs of this auditor: SHA-256 " + policy.sha256[:16]
            checks.append(Check(name=name, state="not checked", detail=detail))
            continue
        again = with_policies(report, own, date.fromisoformat(policy.as_of))
        mine = [c.model_dump(mode="json") for c in again.controls]
        said = [c.model_dump(mode="json") for c in report.controls if c.policy == policy.name]
        where = difference([policy.model_dump(mode="json"), said], [again.policies[0].model_dump(mode="json"), mine])
        detail = where or f"SHA-256 of its text, and {len(mine)} controls held against the findings anew"
        # How cells follow from findings is of the code that drew them.
        state: State = "ok" if not where else "wrong" if report.tool.get("version") == __version__ else "not checked"
        checks.append(Check(name=name, state=state, detail=detail))
    return checks


def _request(content: bytes) -> Mapping[str, Any]:
    try:
        return dict(json.loads(content)["options"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
