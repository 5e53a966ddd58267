"""What a detector said of files, made anew out of its calibration and each file's scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from auditor.detection.channel import judged_together
from auditor.detection.frame_means import combined, mean_interval
from auditor.detection.kinds import IN_WORDS
from auditor.detection.record import DetectorRecord, FileResult, FileVerdict
from auditor.errors import DataError
from auditor.evidence.detected import DETECTOR, detection_content, detection_evidence, exit_code_of
from auditor.model.detector_card import DetectorCard, answer_of
from auditor.verifying.checks import Unproven
from auditor.verifying.derived import Again, Said

_ONLY_TO_READ = "iVBORw0KGgo="


def detection_again(said: Said) -> Again:
    """Every p-value, interval, answer and reason out of the scores, the limits and the calibration."""
    try:
        known = DetectorRecord.model_validate_json(said.entries[DETECTOR]) if DETECTOR in said.entries else None
        files = [(_text(file, "path"), *_read(file)) for file in said.record["files"]]
        asked, unwritten = said.request["asked"], said.request["unwritten"]
    except (KeyError, TypeError, ValidationError) as error:
        raise DataError(f"the files or the detector cannot be read: {type(error).__name__}") from None
    if not isinstance(asked, dict) or not isinstance(unwritten, bool):
        raise DataError("the request does not say what was asked for")
    if known is not None and (known.n_real, known.n_fake) != (len(known.card.real_scores), len(known.card.fake_scores)):
        raise DataError("the detector has another number of calibration files than it has scores of them")
    card = None if known is None else known.card
    judged, batch = judged_together(card, [_again(card, result) for _, result, _ in files])
    results = [(path, result) for (path, _, _), result in zip(files, judged, strict=True)]
    pictures = {path: picture for path, _, picture in files if picture is not None}
    code = exit_code_of([result for _, result in results], unwritten=unwritten)
    named = None if known is None else _text(said.record["detector"] or {}, "path")
    record = detection_content(named, known, results, pictures, code, batch)
    made = detection_evidence(record, known, unwritten=unwritten, asked=asked)
    scored = sum(result.verdict is not None and result.verdict.probability is not None for _, result in results)
    return Again(
        record={**record, "tool": said.record.get("tool")},
        request=made.request,
        about=made.about,
        used={DETECTOR} if known is not None else (),
        unproven=(
            Unproven(
                where="record.json: files.verdict.probability, files.verdict.novelty, files.verdict.frames.*, "
                "files.provenance.*, files.heat_map.*, files.medium, files.form, files.size_bytes, files.sha256",
                why="what was read of a file, and scored, the file and the detector alone can tell: auditor detect",
            ),
            Unproven(where=f"{DETECTOR}: *", why="the detector's file alone can tell what its calibration is"),
            Unproven(where="record.json: tool, files.notes, files.error", why="the signer's word"),
        ),
        made=f"{scored:,} verdicts of {len(results):,} files recomputed from their scores and the calibration",
    )


def _read(file: Mapping[str, Any]) -> tuple[FileResult, str | None]:
    """A file as the record has it, and where its picture was written."""
    own = {name: value for name, value in file.items() if name != "path"}
    picture = None
    if own["heat_map"] is not None:
        drawn = dict(own["heat_map"])
        picture = drawn.pop("path")
        own["heat_map"] = {**drawn, "png": _ONLY_TO_READ}
    return FileResult.model_validate(own), picture


def _again(card: DetectorCard | None, result: FileResult) -> FileResult:
    said = result.verdict
    if said is None:
        return result
    if card is None or result.error:
        raise DataError("there is a verdict on a file, and no detector that could have read it")
    verdict = _unsupported(card, result, said) if said.probability is None else _answered(card, said)
    drawn = result.heat_map
    if drawn is not None:
        earned = drawn.drop_marked > drawn.drop_random and verdict.probability is not None
        drawn = drawn.model_copy(update={"earned": earned})
    return result.model_copy(update={"verdict": verdict, "heat_map": drawn})


def _answered(card: DetectorCard, said: FileVerdict) -> FileVerdict:
    low = high = None
    if said.frames:
        scores = np.asarray([frame.probability for frame in said.frames])
        probability = float(scores.mean())
        values = [card.p_values(float(score)) for score in scores]
        p_real, p_fake = (combined([pair[i] for pair in values]) for i in (0, 1))
        low, high = mean_interval(scores)
    else:
        assert said.probability is not None
        probability = said.probability
        p_real, p_fake = card.p_values(probability)
    answer, reason = answer_of(card, p_real, p_fake, said.novelty)
    supported = not card.is_unlike(said.novelty)
    return FileVerdict(
        answer=answer,
        reason=reason,
        probability=probability if supported else None,
        p_real=p_real if supported else None,
        p_fake=p_fake if supported else None,
        novelty=said.novelty,
        low=low,
        high=high,
        frames=said.frames,
    )


def _unsupported(card: DetectorCard, result: FileResult, said: FileVerdict) -> FileVerdict:
    """What is beyond the detector: of another medium, or unlike all that it knows."""
    answer, reason = answer_of(card, math.nan, math.nan, said.novelty)
    medium = "unreadable" if result.medium is None else IN_WORDS[result.medium]
    is_for = "images and video" if card.medium == "image" else "speech"
    other = f"Unsupported: the detector is for {is_for}, and this is {medium}."
    takes = ("image", "video") if card.medium == "image" else ("audio", "video")
    if result.medium not in takes:
        return FileVerdict(answer="cannot say", reason=other)
    if not card.is_unlike(said.novelty):
        raise DataError("a file that the detector supports has no probability")
    return FileVerdict(answer=answer, reason=reason, novelty=said.novelty)


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise DataError(f"{name!r} is not said")
    return value
