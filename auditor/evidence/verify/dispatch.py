"""Verification of any kind of evidence, dispatched by the kind in its manifest.

An epsilon audit is recomputed from the coins and scores of its canaries, a comparison or a mitigation rebuilt from its
two enclosed audits, a training with interim audits recomputed from its looks, and detection results from the
calibration and each file's scores.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import DataError
from auditor.detection.detection_record import DetectorRecord, FileResult, FileVerdict, recorded
from auditor.detection.detector_calibration import judged_by_all
from auditor.detection.examine_file import silenced, unsupported
from auditor.detection.video_verdict import judge_frames
from auditor.evidence.comparison_evidence import AFTER, BEFORE, comparison_evidence, mitigation_evidence
from auditor.evidence.container import read_archive, unpack
from auditor.evidence.derived_evidence import ALONE, WHOLE, EnclosedAudit
from auditor.evidence.detection_evidence import (
    DETECTOR,
    SCHEMA_VERSION,
    SECOND,
    AskedDetector,
    detection_content,
    detection_evidence,
    exit_code_of,
)
from auditor.evidence.dp_audit_evidence import CANARIES, CanaryRecord, Claim, dp_audit_evidence, held_against
from auditor.evidence.manifest import MANIFEST, Kind, Manifest
from auditor.evidence.timestamp import Authorities
from auditor.evidence.tradeoff_evidence import TRIED, SweepEvidence, inputs_digest, part_of, tradeoff_evidence
from auditor.evidence.training_evidence import LOOKS, LooksRecord, training_evidence
from auditor.evidence.verify.checks import Check, Unproven, Verified
from auditor.evidence.verify.dates import check_timestamp, dated
from auditor.evidence.verify.remeasure import Remake
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.evidence.verify.verify_derived import Again, Audits, Said, verify_derived
from auditor.models.detector_card import DetectorCard, judge_file
from auditor.report.comparing.compare_audits import compare
from auditor.report.comparing.prior_tradeoff import DISPARITIES
from auditor.report.comparing.tradeoff_of_audits import AuditedPoint, weigh_audits
from auditor.report.record.audit_report import AuditReport
from auditor.run.while_training.training_record import judged_look, record_of_looks
from auditor.training.interim.interim_state import criteria_digest, plan_in_words, wrong_levels

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def detection_again(evidence: Said) -> Again:
    """Every p-value, interval, answer and reason out of the scores, the limits and the calibration."""
    version = evidence.record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"it answers by the rules of schema {str(version)[:20]}: verify it with the version that wrote it"
        )
    try:
        detectors = _detectors(evidence)
        files = [(_text(file, "path"), _parse_file(file)) for file in evidence.record["files"]]
        asked = evidence.request["asked"]
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"the files or the detector cannot be read: {type(error).__name__}") from None
    if not isinstance(asked, dict):
        raise DataError("the request does not say what was asked for")
    for each in detectors:
        known = each.known
        if (known.n_real, known.n_fake) != (len(known.card.real_scores), len(known.card.fake_scores)):
            raise DataError("the detector has another number of calibration files than it has scores of them")
    cards = [each.known.card for each in detectors]
    by_detector = [[_rejudge_file(cards, i, result) for _, result in files] for i in range(max(1, len(cards)))]
    judged, batches = judged_by_all(cards, by_detector)
    detectors = [replace(each, batch=batch) for each, batch in zip(detectors, batches, strict=False)]
    results = [(path, result) for (path, _), result in zip(files, judged, strict=True)]
    code = exit_code_of([result for _, result in results], detectors)
    record = detection_content(detectors, results, code)
    made = detection_evidence(record, detectors, request=asked)
    scored = sum(
        bool(result.parts) or (result.verdict is not None and result.verdict.probability is not None)
        for _, result in results
    )
    return Again(
        record={**record, "tool": evidence.record.get("tool")},
        request=made.request,
        about=made.about,
        parts=made.parts,
        unproven=(
            Unproven(
                where="record.json: files.verdict.probability, files.verdict.frames.*, files.parts.*, "
                "files.provenance.*, files.medium, files.form, files.size_bytes, files.sha256, files.facts",
                why="what was read of a file, and scored, the file and the detector alone can tell: auditor detect",
            ),
            *(
                Unproven(where=f"{part}: *", why="the detector's file alone can tell what its calibration is")
                for part in (DETECTOR, SECOND)[: max(1, len(detectors))]
            ),
            Unproven(
                where="record.json: tool, files.notes, files.error, detector.few, second_detector.few",
                why="the signer's word",
            ),
            Unproven(where="request.json: asked.*", why="what was asked for beyond the files is the signer's word"),
        ),
        made=f"{scored:,} verdicts of {len(results):,} files recomputed from their scores and the calibration",
    )


def _parse_file(file: Mapping[str, Any]) -> FileResult:
    return FileResult.model_validate({name: value for name, value in file.items() if name not in ("path", "answer")})


def _detectors(evidence: Said) -> list[AskedDetector]:
    """Those whose calibration is enclosed, in the order in which they were named."""
    return [
        AskedDetector(
            path=_text(evidence.record[name] or {}, "path"),
            known=DetectorRecord.model_validate_json(evidence.entries[part]),
            few=_text({"few": ""} | dict(evidence.record[name] or {}), "few"),
            prevalence=((evidence.record[name] or {}).get("predictive_value") or {}).get("prevalence"),
        )
        for part, name in ((DETECTOR, "detector"), (SECOND, "second_detector"))
        if part in evidence.entries
    ]


def _rejudge_file(cards: Sequence[DetectorCard], i: int, result: FileResult) -> FileResult:
    """What the detector at place ``i`` says of a file."""
    said = result.verdict
    if said is None:
        return result
    if not cards or result.error:
        raise DataError("there is a verdict on a file, and no detector that could have read it")
    card = cards[i]
    if len(cards) > 1:
        return _one_of_several(card, i, result)
    verdict = _unsupported(card, result) if said.probability is None else _rejudge_verdict(card, said, result)
    return result.model_copy(update={"verdict": verdict})


def _one_of_several(card: DetectorCard, i: int, result: FileResult) -> FileResult:
    """As :func:`_rejudge_file`, of a file that two detectors were asked about."""
    alone = result.model_copy(update={"parts": ()})
    if result.medium == "video":
        part = result.parts[i] if i < len(result.parts) else None
        if part is None or part.medium != card.medium:
            raise DataError("a video that two detectors judged does not say what each of them says")
        if part.verdict.probability is None and part.verdict.answer != "cannot say":
            raise DataError("a part of a video has an answer and no probability")
        unread = part.verdict.probability is None
        verdict = part.verdict if unread else _rejudge_verdict(card, part.verdict, result)
        return alone.model_copy(update={"verdict": verdict})
    takes = {"image": ("image",), "speech": ("audio",)}[card.medium]
    if result.medium not in takes:
        return alone
    return _rejudge_file([card], 0, alone)


def _rejudge_verdict(card: DetectorCard, verdict: FileVerdict, result: FileResult) -> FileVerdict:
    if verdict.frames:
        scores = np.asarray([frame.probability for frame in verdict.frames])
        seconds = np.asarray([frame.seconds for frame in verdict.frames])
        return silenced(judge_frames(card, scores, seconds), card, result.facts)
    assert verdict.probability is not None
    return silenced(recorded(judge_file(card, verdict.probability)), card, result.facts)


def _unsupported(card: DetectorCard, result: FileResult) -> FileVerdict:
    """What the detector answers nothing about: of another medium or channel, or unproven."""
    takes = ("image", "video") if card.medium == "image" else ("audio", "video")
    if result.medium not in takes:
        return FileVerdict(answer="cannot say", reason=unsupported(card, result.medium))
    reason = card.silence(result.facts, video=result.medium == "video")
    if not reason:
        raise DataError("a file that the detector supports has no probability")
    return FileVerdict(answer="cannot say", reason=reason)


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise DataError(f"{name!r} is not said")
    return value


_EVERY = re.compile(r"one every (epoch|[0-9]{1,12}), ")
# What of the record the looks do not say.
_STATED = ("created", "tool", "model", "data", "environment", "energy", "duration_s")


def training_again(evidence: Said) -> Again:
    """Every look judged again at its level, the alarms, the courses, and the closing look's findings."""
    try:
        report = AuditReport.model_validate_json(json.dumps(dict(evidence.record)))
        looks = LooksRecord.model_validate_json(evidence.entries[LOOKS])
        told, last = looks.to_looks()
    except (KeyError, ValidationError) as error:
        raise DataError(f"the record or its looks cannot be read: {type(error).__name__}") from None
    level = looks.closing.error_rate
    decided = judged_look(looks.results, looks.criteria, level, looks.run.error_rate, is_judged=looks.judged)
    again = record_of_looks(
        told,
        last,
        decided,
        model=report.model,
        data=report.data,
        environment=report.environment,
        duration_s=report.duration_s,
    )
    again = again.model_copy(update={"created": report.created, "tool": report.tool, "energy": report.energy})
    made = training_evidence(again, looks)
    return Again(
        record={**made.record, "exit_code": made.exit_code},
        request=made.request,
        about=made.about,
        parts=made.parts,
        checks=tuple(_of_plan(looks, report)),
        unproven=(
            Unproven(
                where=f"{LOOKS}: results.*, looks.results.*",
                why="its numbers are as they are stated: what they were computed from is not in the bundle",
                needs="rows",
            ),
            Unproven(
                where=f"{LOOKS}: run.rows, run.probes, looks.weights, looks.faults, looks.seconds, left_out, "
                "resumed_after, spent, faults, costs, criteria.needs, criteria.built_in",
                why="what was asked of which rows and weights, and what was left out, is the signer's word",
            ),
            Unproven(
                where=f"record.json: {', '.join(_STATED)}", why="what was trained, when and where is the signer's word"
            ),
        ),
        made=f"{len(looks.looks):,} looks and the closing one judged anew from their statistics, each at its level",
    )


def _of_plan(looks: LooksRecord, report: AuditReport) -> list[Check]:
    """Whether the looks are those of the plan, and the run is known by what they have in common."""
    run, wrong = looks.run, wrong_levels((*looks.looks, *looks.spent, looks.closing), looks.spending)
    every = _EVERY.search(run.plan)
    reached = len(looks.looks) + len(looks.left_out)
    numbers = [look.look for look in looks.looks]
    if not wrong and (numbers != sorted(set(numbers)) or (numbers and not 1 <= numbers[0] <= numbers[-1] <= reached)):
        wrong = f"{reached:,} looks were reached, and those that were taken have other numbers"
    if run.criteria != criteria_digest(looks.criteria):
        wrong = wrong or "its criteria are not those that the run is known by"
    if every is None or run.plan != plan_in_words(looks.n_peeks, every.group(1), looks.closing_share):
        wrong = wrong or "its plan is not the one that the run is known by"
    if looks.closing.judged is not looks.judged or run.seed != report.environment.seed:
        wrong = wrong or "the closing look, or the seed, is not that of the run"
    if wrong:
        return [Check(name=LOOKS, state="wrong", detail=wrong)]
    return [Check(name="plan", state="ok", detail="every look has the error rate that the plan gives it")]


def comparison_again(evidence: Said, audits: Audits) -> Again:
    """The comparison of the enclosed audits, at the requested error rate and margin."""
    return _recompute(evidence, audits, ())


def mitigation_again(evidence: Said, audits: Audits) -> Again:
    """The comparison, and the mitigation."""
    made_by = evidence.record.get("made_by")
    if not (isinstance(made_by, list) and made_by and all(isinstance(each, str) for each in made_by)):
        raise DataError("the record does not say which mitigation it was")
    if made_by[0] != evidence.request.get("mitigation"):
        raise DataError(f"the record is of the mitigation {made_by[0]!r}, the request asks for another")
    return _recompute(evidence, audits, tuple(made_by))


def _recompute(evidence: Said, audits: Audits, made_by: tuple[str, ...]) -> Again:
    before, after = audits.read_report(BEFORE), audits.read_report(AFTER)
    audits.check_paired(BEFORE, AFTER, (before, after))
    found = compare(
        before, after, error_rate=_number(evidence.request, "error_rate"), margin=_number(evidence.request, "margin")
    )
    found = replace(found, made_by=made_by)
    was, became = EnclosedAudit(report=before), EnclosedAudit(report=after)
    checks, unproven = list(audits.checks), list(audits.unproven)
    if made_by:
        settings = evidence.request.get("settings")
        if not isinstance(settings, dict):
            raise DataError("the request does not say with which options the mitigation ran")
        made = mitigation_evidence(found, was, became, made_by[0], settings)
        if before.model.sha256 is not None and before.model.sha256 == after.model.sha256:
            checks.append(Check(name=AFTER, state="wrong", detail="it is an audit of the very model that was before"))
        why = "how the new model was made is the signer's word: auditor mitigate makes it again"
        unproven += [
            Unproven(where="request.json: settings.*", why=why),
            Unproven(where="record.json: made_by", why=why),
        ]
    else:
        made = comparison_evidence(found, was, became)
    judged = len(found.all)
    return Again(
        record={**made.record, "exit_code": made.exit_code},
        request=made.request,
        about=made.about,
        parts={},
        used=audits.used,
        file_digests=audits.file_digests,
        checks=tuple(checks),
        unproven=tuple(unproven),
        made=f"{judged:,} judged differences, their verdicts and the conclusion recomputed from both enclosed audits",
    )


def _number(request: Mapping[str, Any], name: str) -> float:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"the request does not say {name}")
    return float(value)


_CLAIM: TypeAdapter[Claim] = TypeAdapter(Claim)


def dp_audit_again(evidence: Said) -> Again:
    """Every bound, every test of the noise, the power and the verdict out of the enclosed canaries."""
    try:
        asked: dict[str, Any] = dict(evidence.request)
        more = asked.pop("asked")
        asked.pop("about")
        claim = _CLAIM.validate_python(asked)
        canaries = CanaryRecord.model_validate_json(evidence.entries[CANARIES]).to_scores()
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"the claim or the canaries cannot be read: {type(error).__name__}") from None
    if not isinstance(more, dict):
        raise DataError("the request does not say what was asked for")
    result, gaussian = held_against(canaries, claim)
    made = dp_audit_evidence(result, gaussian, canaries, claim, more)
    return Again(
        record={**made.record, "exit_code": made.exit_code},
        request=made.request,
        about=made.about,
        parts=made.parts,
        unproven=(
            Unproven(
                where=f"{CANARIES}: *",
                why="that the training gave these scores, and that the coins were fair, is the signer's word: auditor "
                "dp audit trains again",
            ),
            Unproven(where="request.json: accounting, seed, asked.*", why="what the training is, and what it counts"),
        ),
        made=f"the bounds of epsilon, the tests of the noise, the power and the verdict recomputed from "
        f"{len(canaries):,} canaries",
    )


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
            tried=tried,
            made=made,
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
        parts={TRIED: derived.parts[TRIED]},
        used=audits.used,
        file_digests=audits.file_digests,
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


def _table(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = table.get(name)
    if not isinstance(value, dict):
        raise DataError(f"{name!r} is not said")
    return value


# Out of audits.
_OF_AUDITS: Mapping[Kind, Callable[[Said, Audits], Again]] = {
    "comparison": comparison_again,
    "mitigation": mitigation_again,
    "tradeoff": tradeoff_again,
}
# Out of numbers.
_OF_NUMBERS: Mapping[Kind, Callable[[Said], Again]] = {
    "detection": detection_again,
    "dp_audit": dp_audit_again,
    "training": training_again,
}


def kind_of(data: bytes, name: str) -> Kind:
    """The kind of evidence in a bundle; without a readable manifest it is treated as an audit."""
    try:
        return Manifest.from_bytes(unpack(data, name)[MANIFEST]).kind
    except (DataError, KeyError):
        return "audit"


def verify_evidence(
    path: Path,
    make_probe: Remake,
    *,
    trusted: Sequence[Ed25519PublicKey] = (),
    authorities: Authorities | None = None,
) -> Verified:
    """Every check for a bundle of any kind; parameters and errors as in :func:`verify_bundle`."""
    data = read_archive(path)
    kind = kind_of(data, path.name)
    if kind == "audit":
        return verify_bundle(path, make_probe, trusted=trusted, authorities=authorities)
    entries = unpack(data, path.name)
    found = _verify_by_kind(path.name, data, entries, kind, make_probe, trusted)
    when = check_timestamp(entries, None, authorities)
    found = found if when.check is None else found.and_checked([when.check])
    return found if when.at is None else dated(found, when.at, entries)


def _verify_by_kind(
    file_name: str,
    data: bytes,
    entries: Mapping[str, bytes],
    kind: Kind,
    make_probe: Remake,
    trusted: Sequence[Ed25519PublicKey],
) -> Verified:
    if kind in _OF_NUMBERS:
        return verify_derived(data, entries, _OF_NUMBERS[kind], trusted=trusted)
    if kind not in _OF_AUDITS:
        raise DataError(f"{file_name!r} is the evidence of a {kind}, which this version cannot check.")
    audits = Audits(entries, make_probe)
    return verify_derived(data, entries, lambda said: _OF_AUDITS[kind](said, audits), trusted=trusted)
