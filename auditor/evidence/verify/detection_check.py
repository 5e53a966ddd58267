"""Verification of detection results, recomputed from the calibration and each file's scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from auditor.core.errors import DataError
from auditor.detection.audio_visual import judged_by_all
from auditor.detection.detection_record import DetectorRecord, FileResult, FileVerdict
from auditor.detection.file_kinds import IN_WORDS
from auditor.detection.frame_means import combined, mean_interval
from auditor.evidence.detection_evidence import (
    DETECTOR,
    SECOND,
    AskedDetector,
    detection_content,
    detection_evidence,
    exit_code_of,
)
from auditor.evidence.verify.checks import Unproven
from auditor.evidence.verify.verify_derived import Again, Said
from auditor.models.detector_card import DetectorCard, answer_of

_ONLY_TO_READ = "iVBORw0KGgo="


def detection_again(evidence: Said) -> Again:
    """Every p-value, interval, answer and reason out of the scores, the limits and the calibration."""
    try:
        detectors = _detectors(evidence)
        files = [(_text(file, "path"), *_parse_file(file)) for file in evidence.record["files"]]
        asked, unwritten = evidence.request["asked"], evidence.request["unwritten"]
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"the files or the detector cannot be read: {type(error).__name__}") from None
    if not isinstance(asked, dict) or not isinstance(unwritten, bool):
        raise DataError("the request does not say what was asked for")
    for each in detectors:
        known = each.known
        if (known.n_real, known.n_fake) != (len(known.card.real_scores), len(known.card.fake_scores)):
            raise DataError("the detector has another number of calibration files than it has scores of them")
    cards = [each.known.card for each in detectors]
    by_detector = [[_rejudge_file(cards, i, result) for _, result, _ in files] for i in range(max(1, len(cards)))]
    judged, batches = judged_by_all(cards, by_detector)
    detectors = [replace(each, batch=batch) for each, batch in zip(detectors, batches, strict=False)]
    results = [(path, result) for (path, _, _), result in zip(files, judged, strict=True)]
    pictures = {path: picture for path, _, picture in files if picture is not None}
    code = exit_code_of([result for _, result in results], detectors, unwritten=unwritten)
    record = detection_content(detectors, results, pictures, code)
    made = detection_evidence(record, detectors, unwritten=unwritten, request=asked)
    scored = sum(
        bool(result.parts) or (result.verdict is not None and result.verdict.probability is not None)
        for _, result in results
    )
    return Again(
        record={**record, "tool": evidence.record.get("tool")},
        request=made.request,
        about=made.about,
        used=(DETECTOR, SECOND)[: len(detectors)],
        unproven=(
            Unproven(
                where="record.json: files.verdict.probability, files.verdict.novelty, files.verdict.frames.*, "
                "files.parts.*, files.provenance.*, files.heat_map.*, files.medium, files.form, files.size_bytes, "
                "files.sha256",
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
        ),
        made=f"{scored:,} verdicts of {len(results):,} files recomputed from their scores and the calibration",
    )


def _parse_file(file: Mapping[str, Any]) -> tuple[FileResult, str | None]:
    """A file as the record has it, and where its picture was written."""
    own = {name: value for name, value in file.items() if name != "path"}
    picture = None
    if own["heat_map"] is not None:
        drawn = dict(own["heat_map"])
        picture = drawn.pop("path")
        own["heat_map"] = {**drawn, "png": _ONLY_TO_READ}
    return FileResult.model_validate(own), picture


def _detectors(evidence: Said) -> list[AskedDetector]:
    """Those whose calibration is enclosed, in the order in which they were named."""
    return [
        AskedDetector(
            path=_text(evidence.record[name] or {}, "path"),
            known=DetectorRecord.model_validate_json(evidence.entries[part]),
            few=_text({"few": ""} | dict(evidence.record[name] or {}), "few"),
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
    verdict = _unsupported(card, result, said) if said.probability is None else _rejudge_verdict(card, said)
    drawn = result.heat_map
    if drawn is not None:
        earned = drawn.drop_marked > drawn.drop_random and verdict.probability is not None
        drawn = drawn.model_copy(update={"earned": earned})
    return result.model_copy(update={"verdict": verdict, "heat_map": drawn})


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
        return alone.model_copy(update={"verdict": part.verdict if unread else _rejudge_verdict(card, part.verdict)})
    takes = {"image": ("image",), "speech": ("audio",)}[card.medium]
    if result.medium not in takes:
        return alone
    return _rejudge_file([card], 0, alone)


def _rejudge_verdict(card: DetectorCard, verdict: FileVerdict) -> FileVerdict:
    low = high = None
    if verdict.frames:
        scores = np.asarray([frame.probability for frame in verdict.frames])
        probability = float(scores.mean())
        values = [card.p_values(float(score)) for score in scores]
        p_real, p_fake = (combined([pair[i] for pair in values]) for i in (0, 1))
        low, high = mean_interval(scores)
    else:
        assert verdict.probability is not None
        probability = verdict.probability
        p_real, p_fake = card.p_values(probability)
    answer, reason = answer_of(card, p_real, p_fake, verdict.novelty)
    supported = not card.is_unlike(verdict.novelty)
    return FileVerdict(
        answer=answer,
        reason=reason,
        probability=probability if supported else None,
        p_real=p_real if supported else None,
        p_fake=p_fake if supported else None,
        novelty=verdict.novelty,
        low=low,
        high=high,
        frames=verdict.frames,
    )


def _unsupported(card: DetectorCard, result: FileResult, verdict: FileVerdict) -> FileVerdict:
    """What is beyond the detector: of another medium, or unlike all that it knows."""
    answer, reason = answer_of(card, math.nan, math.nan, verdict.novelty)
    medium = "unreadable" if result.medium is None else IN_WORDS[result.medium]
    is_for = "images and video" if card.medium == "image" else "speech"
    other = f"Unsupported: the detector is for {is_for}, and this is {medium}."
    takes = ("image", "video") if card.medium == "image" else ("audio", "video")
    if result.medium not in takes:
        return FileVerdict(answer="cannot say", reason=other)
    if not card.is_unlike(verdict.novelty):
        raise DataError("a file that the detector supports has no probability")
    return FileVerdict(answer=answer, reason=reason, novelty=verdict.novelty)


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise DataError(f"{name!r} is not said")
    return value
