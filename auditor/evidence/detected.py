"""Evidence of what a detector said of files: its card with the calibration, and each file's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auditor.detection.channel import BatchShift
from auditor.detection.heat_map import LEGEND
from auditor.detection.record import DetectorRecord, FileResult
from auditor.evidence.derived import Derived
from auditor.evidence.manifest import in_order
from auditor.run import __version__

DETECTOR = "detector.json"
SCHEMA_VERSION = "2"
READING = (
    "The answer is the detector's guess and no proof: the probability is calibrated on the files it was made with, and "
    "'cannot say' is an answer. 'No known trace' does not mean real: no detector says that. A signature or a tag is "
    "what somebody claims of a file. The two are never merged, and finding no claim is no evidence of anything."
)


def detection_content(
    detector: str | None,
    known: DetectorRecord | None,
    results: Sequence[tuple[str, FileResult]],
    pictures: Mapping[str, str],
    code: int,
    batch: BatchShift | None = None,
) -> dict[str, Any]:
    """What the JSON of a detection says: ``results`` by path, ``pictures`` where their evidence was drawn."""
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "auditor", "version": __version__},
        "reading": READING,
        "evidence_reading": LEGEND if pictures else None,
        "detector": None if known is None else {"path": detector, **_of_detector(known)},
        "files": [{"path": path, **_of_file(result, pictures.get(path))} for path, result in results],
        "batch": None if batch is None else batch.model_dump(mode="json"),
        "exit_code": code,
    }


def _of_detector(known: DetectorRecord) -> dict[str, Any]:
    found: dict[str, Any] = known.model_dump(
        mode="json", exclude={"card": {"real_scores": True, "fake_scores": True, "channel": {"novelties"}}}
    )
    return found


def _of_file(result: FileResult, picture: str | None) -> dict[str, Any]:
    found: dict[str, Any] = result.model_dump(mode="json", exclude={"heat_map": {"png"}})
    if found["heat_map"] is not None:
        found["heat_map"]["path"] = picture
    return found


def exit_code_of(results: Sequence[FileResult], *, unwritten: bool) -> int:
    """0 where every file was answered fake, and every picture written; else 3: nothing else settles anything."""
    return 0 if all(result.answered for result in results) and not unwritten else 3


def detection_evidence(
    record: Mapping[str, Any], known: DetectorRecord | None, *, unwritten: bool, asked: Mapping[str, Any]
) -> Derived:
    """The ``record`` that :func:`detection_content` made, and the detector with all that answers follow from.

    ``asked``: what else was asked for. ``unwritten``: whether a picture could not be written.
    """
    return Derived(
        kind="detection",
        record=record,
        exit_code=record["exit_code"],
        request={
            "detector": None if record["detector"] is None else record["detector"]["path"],
            "files": [file["path"] for file in record["files"]],
            "unwritten": unwritten,
            "asked": dict(asked),
        },
        parts={} if known is None else {DETECTOR: in_order(known.model_dump(mode="json"))},
        about={} if known is None else {"detector": known.sha256},
    )
