"""A signed bundle with everything that an audit can go by, and a forger who holds the right key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from auditor.evidence.container import pack, unpack
from auditor.evidence.evidence_bundle import Enclosed, Evidence, statement_of, write_bundle
from auditor.evidence.history.entries import GENESIS, AuditEntry, Decision, Entry
from auditor.evidence.history.signed_decisions import signed
from auditor.evidence.manifest import LOG, MANIFEST, RECORD, SIGNATURE, ChainedLog, build_manifest, canonical, events
from auditor.evidence.manifest import in_order as spelled
from auditor.evidence.registration import Registration, held_against, registration_in
from auditor.evidence.signed_acceptances import decision_records
from auditor.evidence.signing import load_private_key, load_public_key, make_key, sign
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.judging.budgets import Family
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import recorded
from auditor.report.record.controls import with_policies
from auditor.report.record.earlier_audits import DecidedFinding, key_of
from auditor.run import __version__
from auditor.run.run_audit import assemble
from cli.audit_plan import plan_of
from cli.scan_evidence import request_of
from cli.scan_request import configure
from cli.verify import stored_probe
from tests.evidence.test_evidence import evidence

CONFIG = """\
[organisation]
name = "Harbour Bank"
[labels]
g = "group"
[roles]
sex = "g"
[audit]
model = "model.pt"
data = "rows.csv"
target = "y"
positive = "yes"
sensitive = ["g"]
probes = ["group_fairness", "adverse_impact"]
policy = ["eu-ai-act", "house.toml"]
[[criteria]]
metric = "demographic_parity_difference"
direction = "at_most"
bound = 0.1
source = "house rule 1"
set_by = "Risk Committee"
set_at = "2026-01-31"
"""
HOUSE = """\
name = "house"
title = "House rules"
source = "the manual"
checked_on = 2026-11-24
certainty = "text"
[[controls]]
id = "1"
title = "Groups"
[[controls.evidence]]
what = "shares by group"
probe = "group_fairness"
how = "ask group_fairness"
[[controls]]
id = "2"
title = "Declaration"
[[controls.attestation]]
what = "EU declaration of conformity"
role = "provider"
"""


@dataclass(frozen=True)
class Whole:
    """The bundle, and the keys of who audits, who registered and who decided."""

    path: Path
    keys: Path

    @property
    def entries(self) -> dict[str, bytes]:
        return unpack(self.path.read_bytes(), self.path.name)

    def verified(self, path: Path | None = None, *, own: bool = False) -> Verified:
        """``own``: the reader trusts those who registered and decided too."""
        names = ("auditor", "registrar", "decider") if own else ("auditor",)
        keys = [load_public_key(self.keys / f"{name}.key.pub") for name in names]
        return verify_bundle(path or self.path, stored_probe, trusted=keys)

    def wrong(self, path: Path) -> dict[str, str]:
        return {check.name: check.detail for check in self.verified(path).checks if check.state == "wrong"}

    def forged(self, path: Path, change: Callable[[dict[str, Any]], None] | None = None, **parts: bytes) -> Path:
        """The bundle with a changed record and other parts, its log, manifest and signature made to fit."""
        entries = self.entries | parts
        record = json.loads(entries[RECORD])
        if change is not None:
            change(record)
        report = AuditReport.model_validate_json(json.dumps(record))
        entries[RECORD] = spelled(report.model_dump(mode="json"))
        log = _chained(entries[LOG], report)
        entries[LOG] = log.to_bytes()
        manifest = build_manifest({n: c for n, c in entries.items() if n not in (MANIFEST, SIGNATURE)}, log)
        entries[MANIFEST] = manifest.to_bytes()
        entries[SIGNATURE] = sign(statement_of(manifest, report), load_private_key(self.keys / "auditor.key"))
        path.write_bytes(pack(entries))
        return path


class Again(ChainedLog):
    """A log whose lines keep the times that they had."""

    def line(self, event: dict[str, Any]) -> None:
        line = json.dumps(event | {"previous": self.head}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self._lines.append(line)
        self.head = hashlib.sha256(line).hexdigest()


def _chained(content: bytes, report: AuditReport) -> ChainedLog:
    log = Again()
    for event in events(content):
        if event["event"] == "recorded":
            event |= {"created": report.created, "exit_code": report.exit_code, "seed": report.environment.seed,
                      "summary": report.summary.model_dump(by_alias=True)}  # fmt: skip
        log.line(event)
    return log


def whole(folder: Path, names: Sequence[str] = ("group_fairness", "adverse_impact"), *, bound: float = 0.1) -> Whole:
    """A bundle of an audit that was registered, decided on, and held to two rule packs, one of its own.

    ``names``: of the probes that are asked beside that of performance. ``bound``: of the one criterion.
    """
    for name in ("auditor", "registrar", "decider"):
        make_key(folder / f"{name}.key")
    asked = CONFIG.replace('["group_fairness", "adverse_impact"]', json.dumps(list(names)))
    (folder / "audit.toml").write_text(asked.replace("bound = 0.1", f"bound = {bound}"))
    (folder / "house.toml").write_text(HOUSE)
    for name in ("model.pt", "rows.csv"):
        (folder / name).write_text(name)
    configured = configure({}, str(folder / "audit.toml"), [])
    plan = plan_of(configured)
    registration = Registration(registered="2026-01-31T09:00:00+00:00", by="Ann", tool=__version__, plan=plan)
    opened = registration_in(registration.to_file(load_private_key(folder / "registrar.key")), "registration.json")
    began = datetime.now(UTC)
    made = evidence(n=60, names=("performance", *names))
    family = Family(error_rate=plan.error_rate, multiplicity=plan.multiplicity)
    report = assemble(
        made.results,
        configured.criteria,
        model=made.report.model,
        data=made.report.data.model_copy(update={"target": "y"}),
        environment=made.report.environment,
        family=family,
    ).model_copy(
        update={"about": configured.about, "roles": configured.roles, "configuration": recorded(configured.obeyed)}
    )
    held = held_against(opened, plan, path="registration.json", started=began, tool=__version__)
    report = with_policies(report.model_copy(update={"registration": held}), configured.policies, began.date())
    entry = _decision(report, folder)
    decided = decision_records({entry.number: entry}, None, today=began.date())
    report = report.model_copy(update={"decisions": tuple(decided)})
    enclosed = Enclosed(
        began=began.isoformat(), plan=plan, registration=opened.content, decisions=[entry], obeyed=configured.obeyed
    )
    log = ChainedLog()
    log.add("started", tool=f"responsible-auditor {__version__}", seed=0)
    whole_of_it: Evidence = replace(
        made, report=report, criteria=configured.criteria, family=family, request=request_of(configured), log=log,
        enclosed=enclosed,
    )  # fmt: skip
    write_bundle(folder / "audit.zip", whole_of_it, key=load_private_key(folder / "auditor.key"))
    return Whole(folder / "audit.zip", folder)


def _decision(report: AuditReport, folder: Path) -> Entry:
    finding = next(f for f in report.findings if f.criterion is not None and f.value is not None)
    value = float(finding.value or 0.0)
    about = AuditEntry.from_report(report)
    decision = Decision(
        audit=1, record_sha256=about.record_sha256, model_path=None, model_sha256=None, decision="accept",
        by="Cara Chief", role="head of risk", note="until the next release",
        expires=datetime.now(UTC).date() + timedelta(days=90), findings=(finding.id,),
        decided=(DecidedFinding(finding=finding.id, asks=key_of(finding), value=value, low=0.0, high=value),),
    )  # fmt: skip
    payload = canonical(signed(decision, load_private_key(folder / "decider.key")).model_dump(mode="json")).decode()
    return Entry.from_previous(2, GENESIS, (datetime.now(UTC) - timedelta(days=3)).isoformat(), "decision", payload)
