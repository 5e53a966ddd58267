"""Audits of one model and of what was made of it, with their evidence, and somebody who forges what rests on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from auditor.data.audit_data import AuditData
from auditor.evidence.container import unpack, write_container
from auditor.evidence.derived_evidence import EnclosedAudit, statement_of_derived
from auditor.evidence.evidence_bundle import Evidence, write_bundle
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    REQUEST,
    SIGNATURE,
    ChainedLog,
    FileEntry,
    Manifest,
    code_digests,
    events,
)
from auditor.evidence.signing import load_private_key
from auditor.judging.budgets import Family
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import AuditedModel
from auditor.run.predictions import counts_of, head_of
from auditor.run.probe import Probe
from auditor.run.run_audit import ask, assemble, data_record, environment, generator_for, model_record
from probes import PROBES
from probes.fairness.change_since_reference import Change
from tests.evidence.kept_rows import kept

N = 800


def rows() -> AuditData:
    """Two groups, and labels that follow ``x``."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=N), "sex": rng.choice(["f", "m"], N)})
    y = np.where(frame.x + 0.6 * rng.normal(size=N) > 0.0, "yes", "no")
    return AuditData.from_arrays(frame, y, classes=["no", "yes"], positive="yes", sensitive_features=frame[["sex"]])


def model(handicap: float) -> AuditedModel:
    """One that puts women that much lower."""
    return AuditedModel.from_callable(
        lambda X: 1.0 / (1.0 + np.exp(-4.0 * (X.x.to_numpy(float) - handicap * (X.sex == "f").to_numpy()))),
        classes=["no", "yes"],
    )


def audit(
    audited: AuditedModel,
    data: AuditData,
    path: str,
    reference: AuditedModel | None = None,
    bent: Callable[[Measurement], Measurement] = lambda measurement: measurement,
) -> Evidence:
    """An audit with everything that it leaves behind; the model is said to lie at ``path``, numbers to be ``bent``."""
    probes: dict[str, Probe] = {name: PROBES[name]() for name in ("group_fairness", "adverse_impact")}
    if reference is not None:
        probes["change"] = Change(reference=reference)
    results = [ask(probe, audited, data, generator_for(0, name)) for name, probe in probes.items()]
    results = [replace(r, measurements=tuple(map(bent, r.measurements))) for r in results]
    head = head_of(audited, data, include_rows=False)
    assert head is not None
    counts, criteria, log = counts_of(audited, data), load_criteria(), ChainedLog()
    log.add("started", command=["scan"])
    digest = FileEntry.from_content(path.encode()).sha256
    report = assemble(
        results,
        criteria,
        model=model_record(audited).model_copy(update={"path": path, "sha256": digest}),
        data=data_record(data),
        environment=environment(device="cpu", seed=0),
        family=Family(),
    )
    return Evidence(
        report=report,
        results=results,
        criteria=criteria,
        family=Family(),
        request={"options": {}, "probe_options": {}},
        log=log,
        answers=kept(audited, data, head),
        counts=counts,
        code=code_digests(),
    )


def enclosed(made: Evidence, folder: Path) -> EnclosedAudit:
    """The audit with its bundle."""
    path = folder / f"{FileEntry.from_content(str(made.report.model.path).encode()).sha256[:8]}.zip"
    write_bundle(path, made)
    return EnclosedAudit(report=made.report, bundle=path.read_bytes())


Change_ = Callable[[Any], Any]


def forged(path: Path, out: Path, key: Path, parts: Mapping[str, bytes | None] | None = None, **how: Change_) -> Path:
    """The bundle with its record, its request or a part changed, and all digests, the log and the signature made anew.

    ``record``, ``request``: what is done to the JSON of it. ``parts``: other parts; None takes one out.
    """
    entries = unpack(path.read_bytes(), path.name)
    kind = Manifest.from_bytes(entries.pop(MANIFEST)).kind
    entries.pop(SIGNATURE, None)
    for name, content in (parts or {}).items():
        entries.pop(name, None)
        if content is not None:
            entries[name] = content
    for part, change in ((RECORD, how.get("record")), (REQUEST, how.get("request"))):
        if change is not None:
            value = json.loads(entries[part])
            change(value)
            entries[part] = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    record, request = json.loads(entries[RECORD]), json.loads(entries[REQUEST])
    log = ChainedLog()
    for event in events(entries[LOG]):
        said = {name: value for name, value in event.items() if name not in ("n", "at", "event", "previous")}
        if event["event"] == "recorded":
            said |= {"record": FileEntry.from_content(entries[RECORD]).sha256, "exit_code": record["exit_code"]}
        log.add(str(event["event"]), **said)
    write_container(
        out,
        {**entries, LOG: log.to_bytes()},
        log,
        lambda manifest: statement_of_derived(manifest, record, request["about"]),
        kind=kind,
        key=load_private_key(key),
    )
    return out
