"""Evidence of what a detector said of files: its card with the calibration, and each file's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditor.detection.channel import BatchShift
from auditor.detection.heat_map import LEGEND
from auditor.detection.record import DetectorRecord, FileResult
from auditor.evidence.derived import Derived
from auditor.evidence.manifest import in_order
from auditor.run import __version__

DETECTOR, SECOND = "detector.json", "second_detector.json"
SCHEMA_VERSION = "2"
READING = (
    "The answer is the detector's guess and no proof: the probability is calibrated at most on the files it was made "
    "with, and 'cannot say' is an answer. 'No known trace' does not mean real: no detector says that. A signature or a "
    "tag is what somebody claims of a file. The two are never merged, and finding no claim is no evidence of anything."
)


@dataclass(frozen=True, kw_only=True)
class AskedDetector:
    """A detector that was asked: where it lies, what it is, and the batch of files that it has seen.

    ``few``: why the files known to be real are fewer than they seem, in a sentence, or "".
    """

    path: str
    known: DetectorRecord
    batch: BatchShift | None = None
    few: str = ""


def detection_content(
    detectors: Sequence[AskedDetector],
    results: Sequence[tuple[str, FileResult]],
    pictures: Mapping[str, str],
    code: int,
) -> dict[str, Any]:
    """What the JSON of a detection says: ``results`` by path, ``pictures`` where their evidence was drawn.

    A second detector has fields of its own, which are not there without one.
    """
    first, second = (*detectors, None, None)[:2]
    more = {} if second is None else {"second_detector": _of_detector(second), "second_batch": _of_batch(second)}
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "auditor", "version": __version__},
        "reading": READING,
        "evidence_reading": LEGEND if pictures else None,
        "detector": None if first is None else _of_detector(first),
        "files": [{"path": path, **_of_file(result, pictures.get(path))} for path, result in results],
        "batch": _of_batch(first),
        **more,
        "exit_code": code,
    }


_UNTOLD = ("real_scores", "fake_scores", "trained_on", "fingerprints")


def _of_detector(asked: AskedDetector) -> dict[str, Any]:
    found: dict[str, Any] = asked.known.model_dump(
        mode="json",
        exclude={"card": {**dict.fromkeys(_UNTOLD, True), "channel": {"novelties"}}},
    )
    few = {"few": asked.few} if asked.few else {}
    return {"path": asked.path, **few, **found}


def _of_batch(asked: AskedDetector | None) -> dict[str, Any] | None:
    return None if asked is None or asked.batch is None else asked.batch.model_dump(mode="json")


def _of_file(result: FileResult, picture: str | None) -> dict[str, Any]:
    found: dict[str, Any] = result.model_dump(mode="json", exclude={"heat_map": {"png"}, "fingerprints": True})
    if not result.parts:
        del found["parts"]
    if found["heat_map"] is not None:
        found["heat_map"]["path"] = picture
    return found


def exit_code_of(results: Sequence[FileResult], detectors: Sequence[AskedDetector] = (), *, unwritten: bool) -> int:
    """0 where every file was answered fake, of enough files known to be real where some were named, and every picture
    written; else 3: nothing else settles anything."""
    few = any(each.few for each in detectors)
    return 0 if all(result.answered for result in results) and not unwritten and not few else 3


def detection_evidence(
    record: Mapping[str, Any], detectors: Sequence[AskedDetector], *, unwritten: bool, asked: Mapping[str, Any]
) -> Derived:
    """The ``record`` that :func:`detection_content` made, and the detector with all that answers follow from.

    ``asked``: what else was asked for. ``unwritten``: whether a picture could not be written.
    """
    second = {} if len(detectors) < 2 else {"second_detector": detectors[1].path}
    return Derived(
        kind="detection",
        record=record,
        exit_code=record["exit_code"],
        request={
            "detector": None if record["detector"] is None else record["detector"]["path"],
            **second,
            "files": [file["path"] for file in record["files"]],
            "unwritten": unwritten,
            "asked": dict(asked),
        },
        parts={
            part: in_order(each.known.model_dump(mode="json"))
            for part, each in zip((DETECTOR, SECOND), detectors, strict=False)
        },
        about={name: each.known.sha256 for name, each in zip(("detector", "second_detector"), detectors, strict=False)},
    )
