"""Evidence of a search for less discriminatory alternatives: the sweep, its audits, and all attempts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from auditor.evidence.derived_evidence import Derived, EnclosedAudit
from auditor.evidence.manifest import canonical
from auditor.report.comparing.tradeoff_analysis import Tradeoff
from auditor.report.comparing.tradeoff_report import tradeoff_content

PRESENT_AUDIT, TRIED = "present", "tried.json"


@dataclass(frozen=True, kw_only=True)
class SweepEvidence:
    """The evidence of a sweep beside the trade-off.

    ``present``, ``points``: the audits, of those points that have one. ``sweep``: the values of each swept option,
    ``fixed``: the others. ``tried``: digests of the inputs of every model that the rows have graded, ``made``: the
    inputs of each point by name, whose digests are among them.
    """

    tradeoff: Tradeoff
    present: EnclosedAudit
    points: Mapping[str, EnclosedAudit]
    sweep: Mapping[str, Sequence[JsonValue]]
    fixed: Mapping[str, JsonValue]
    tried: Sequence[str] = ()
    made: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def part_of(place: int) -> str:
    """The part name of a point's audit, by its index in the record; the present model has 0."""
    return f"points/{place:03d}" if place else PRESENT_AUDIT


def inputs_digest(inputs: Mapping[str, str]) -> str:
    """The identity of a tried model: SHA-256 of the JSON of its inputs, keys sorted."""
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()


def tradeoff_evidence(sweep: SweepEvidence) -> Derived:
    """The trade-off, its request, and the audits of all points."""
    found, report = sweep.tradeoff, sweep.present.report
    audits = {part_of(0): sweep.present}
    audits |= {part_of(i): sweep.points[p.name] for i, p in enumerate(found.points, 1) if p.name in sweep.points}
    parts = dict(audit.part(name) for name, audit in audits.items())
    parts[TRIED] = canonical({"tried": list(sweep.tried), "made": {k: dict(v) for k, v in sweep.made.items()}})
    return Derived(
        kind="tradeoff",
        record=tradeoff_content(found, report),
        exit_code=found.exit_code,
        request={
            "mitigation": found.made_by,
            "sweep": {option: list(values) for option, values in sweep.sweep.items()},
            "fixed": dict(sweep.fixed),
            "metric": found.metric,
            "disparity": found.disparity,
            "tolerance": found.tolerance,
            "error_rate": found.error_rate,
        },
        parts=parts,
        about={"present model": report.model.subject_sha256, "data": report.data.sha256},
    )
