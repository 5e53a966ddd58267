"""Verification of a search for less discriminatory alternatives, recomputed from its enclosed audits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import DataError
from auditor.evidence.derived_evidence import ALONE, WHOLE, EnclosedAudit
from auditor.evidence.tradeoff_evidence import TRIED, SweepEvidence, inputs_digest, part_of, tradeoff_evidence
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.enclosed_audits import Audits
from auditor.evidence.verify.verify_derived import Again, Said
from auditor.report.comparing.prior_tradeoff import DISPARITIES
from auditor.report.comparing.tradeoff_of_audits import AuditedPoint, weigh_audits
from auditor.report.record.audit_report import AuditReport

_TRIED: TypeAdapter[tuple[list[str], dict[str, dict[str, str]]]] = TypeAdapter(
    tuple[list[str], dict[str, dict[str, str]]]
)


def tradeoff_again(evidence: Said, audits: Audits) -> Again:
    """Every point, the front and the verdicts from the enclosed audits; the points from the requested sweep."""
    asked, points = evidence.request, _points(evidence.record)
    tried, made = _parse_tried(evidence)
    present = audits.read_report(part_of(0))
    again = [_point(evidence, audits, place, point) for place, point in enumerate(points[1:], 1)]
    for place, point in enumerate(again, 1):
        if point.report is not None:
            audits.check_paired(part_of(0), part_of(place), (present, point.report))
    n_tried = max(len(tried), len(again))
    if asked.get("disparity") not in DISPARITIES:
        raise DataError("the request names no disparity that there is")
    found = weigh_audits(
        present,
        again,
        made_by=_text(asked, "mitigation"),
        metric=_text(asked, "metric"),
        disparity=asked["disparity"],
        tolerance=_number(asked, "tolerance"),
        error_rate=_number(asked, "error_rate"),
        n_tried=n_tried,
    ).tradeoff
    reports = {point.name: point.report for point in again if point.report is not None}
    sweep, fixed = _table(asked, "sweep"), _table(asked, "fixed")
    derived = tradeoff_evidence(
        SweepEvidence(
            tradeoff=found,
            present=EnclosedAudit(report=present),
            points={name: EnclosedAudit(report=report) for name, report in reports.items()},
            sweep=sweep,
            fixed=fixed,
        )
    )
    checks = [
        *audits.checks,
        *_as_swept(again, sweep, fixed),
        *_as_tried(again, tried, made, _text(asked, "mitigation")),
    ]
    checks += _of_own_models(reports)
    return Again(
        record={**derived.record, "exit_code": derived.exit_code},
        request=derived.request,
        about=derived.about,
        used={*audits.used, TRIED},
        checks=tuple(checks),
        unproven=(*audits.unproven, *_unproven(again)),
        made=f"{len(again) + 1:,} points, the front, {found.m:,} bounded differences and all verdicts recomputed from "
        f"the {len(reports) + 1:,} enclosed audits",
    )


def _points(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    points = record.get("points")
    if not (isinstance(points, list) and len(points) > 1 and all(isinstance(each, dict) for each in points)):
        raise DataError("the record has no points")
    return points


def _point(evidence: Said, audits: Audits, place: int, point: Mapping[str, Any]) -> AuditedPoint:
    """A point as its audit has it; what it is called, its options and its notes are as the record says."""
    name, notes = _text(point, "name"), point.get("notes")
    if not (isinstance(notes, list) and all(isinstance(each, str) for each in notes)):
        raise DataError(f"the point {name[:60]!r} has no list of notes")
    enclosed = any(part_of(place) + ending in evidence.entries for ending in (WHOLE, ALONE))
    return AuditedPoint(
        name=name,
        settings=_table(point, "settings"),
        report=audits.read_report(part_of(place)) if enclosed else None,
        notes=tuple(notes),
        failed="" if enclosed else _text(point, "reason"),
    )


def _parse_tried(evidence: Said) -> tuple[list[str], dict[str, dict[str, str]]]:
    try:
        content = json.loads(evidence.entries[TRIED])
        return _TRIED.validate_python((content["tried"], content["made"]))
    except (KeyError, TypeError, ValueError, ValidationError, RecursionError):
        raise DataError(f"{TRIED} does not say what was tried") from None


def _as_swept(points: list[AuditedPoint], sweep: Mapping[str, Any], fixed_options: Mapping[str, Any]) -> list[Check]:
    """Whether the points are those of the sweep: all of them, and no others."""
    if not all(isinstance(values, list) for values in sweep.values()):
        raise DataError("the request does not say which values were swept")
    grid = [{**fixed_options, **dict(zip(sweep, chosen, strict=True))} for chosen in itertools.product(*sweep.values())]
    mine = [dict(point.settings) for point in points]
    if mine == grid:
        return [
            Check(name="sweep", state="ok", detail=f"all {len(grid):,} points that were asked for are in the record")
        ]
    lacking = [settings for settings in grid if settings not in mine]
    what = f"lacks {json.dumps(lacking[0])[:120]}" if lacking else "has points that were not asked for, or twice"
    return [Check(name="sweep", state="wrong", detail=f"the record {what}")]


def _as_tried(
    points: list[AuditedPoint], tried_digests: list[str], model_inputs: Mapping[str, Mapping[str, str]], mitigation: str
) -> list[Check]:
    """Whether every model that was graded is among those that were counted, as what the record says it is."""
    wrong = [
        f"counts {tried_digests[i][:16]} twice"
        for i in range(len(tried_digests))
        if tried_digests[i] in tried_digests[:i]
    ][:1]
    for point in points:
        inputs = model_inputs.get(point.name)
        if inputs is None:
            if point.report is not None:
                wrong.append(f"does not say of what {point.name} was made")
            continue
        if inputs_digest(inputs) not in tried_digests:
            wrong.append(f"does not count {point.name} among the models tried")
        if inputs.get("mitigation") != mitigation:
            wrong.append(f"says that {point.name} was made by {str(inputs.get('mitigation'))[:60]!r}")
        said = json.dumps(dict(point.settings), sort_keys=True)
        # A file among the options is known there by its digest.
        if "sha256:" not in (options := inputs.get("options", "")) and options != said:
            wrong.append(f"says that {point.name} was made with {options[:120]}")
    wrong += [
        f"speaks of {name[:60]!r}, which is no point" for name in model_inputs if name not in {p.name for p in points}
    ][:1]
    if wrong:
        return [Check(name=TRIED, state="wrong", detail=f"it {wrong[0]}")]
    return [Check(name=TRIED, state="ok", detail=f"{len(tried_digests):,} models tried, the points among them")]


def _of_own_models(reports: Mapping[str, AuditReport]) -> list[Check]:
    """Whether an audit stands at another point than that of its model, by the folder that the model lies in."""
    return [
        Check(name=name, state="wrong", detail=f"its audit is of {report.model.path[-120:]!r}, another point's model")
        for name, report in reports.items()
        if report.model.path is not None and PurePath(report.model.path).parent.name != name
    ]


def _unproven(points: list[AuditedPoint]) -> list[Unproven]:
    found = [
        Unproven(
            where="record.json: n_tried",
            why="that no more models were tried on these rows than were counted is the signer's word; more would widen "
            "every interval",
            needs="registration",
        ),
        Unproven(
            where="record.json: points.settings, points.notes",
            why="how each model was made is the signer's word: auditor tradeoff makes them again",
        ),
    ]
    if any(point.report is None for point in points):
        why = "why there is no audit of a point is the signer's word"
        found.append(Unproven(where="record.json: points.reason", why=why))
    return found


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise DataError(f"{name!r} is not said")
    return value


def _number(table: Mapping[str, Any], name: str) -> float:
    value = table.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{name!r} is not said")
    return float(value)


def _table(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        raise DataError(f"{name!r} is not said")
    return value
