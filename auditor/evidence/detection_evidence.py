"""Evidence of detector results: the detector card with its calibration, and the scores of each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditor.detection.detection_record import DetectorRecord, FileResult
from auditor.detection.detector_calibration import Selection, predictive_value
from auditor.evidence.derived_evidence import Derived
from auditor.evidence.manifest import in_order
from auditor.run import __version__

DETECTOR, SECOND = "detector.json", "second_detector.json"
SCHEMA_VERSION = "4"
READING = (
    "The answer is the detector's guess and no proof, and 'cannot say' is an answer. 'No known trace' does not mean "
    "real: no detector says that. 'Declared synthetic' is what a signer says whom a named authority vouches for; any "
    "other signature or tag is somebody's claim. Finding no claim is no evidence of anything."
)


@dataclass(frozen=True, kw_only=True)
class AskedDetector:
    """A detector that was run: its path, its identity, and what is selected of the files asked together.

    ``few``: why the files known to be real are fewer than they seem, in a sentence, or "". ``prevalence``: the share of
    synthetic files for which its predictive value is told.
    """

    path: str
    known: DetectorRecord
    batch: Selection | None = None
    few: str = ""
    prevalence: float | None = None


def detection_content(
    detectors: Sequence[AskedDetector],
    results: Sequence[tuple[str, FileResult]],
    code: int,
) -> dict[str, Any]:
    """The JSON content of a detection: ``results`` by path.

    A second detector has fields of its own, which are not there without one.
    """
    first, second = (*detectors, None, None)[:2]
    more = {} if second is None else {"second_detector": _of_detector(second), "second_batch": _of_batch(second)}
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "auditor", "version": __version__},
        "reading": READING,
        "detector": None if first is None else _of_detector(first),
        "files": [{"path": path, **_of_file(result)} for path, result in results],
        "batch": _of_batch(first),
        **more,
        "exit_code": code,
    }


_UNTOLD = ("real_scores", "fake_scores", "trained_on", "fingerprints")


def _of_detector(detector: AskedDetector) -> dict[str, Any]:
    found: dict[str, Any] = detector.known.model_dump(
        mode="json",
        exclude={"card": {**dict.fromkeys(_UNTOLD, True), "channel": {"facts"}}},
    )
    few = {"few": detector.few} if detector.few else {}
    value = None if detector.prevalence is None else predictive_value(detector.known.card, detector.prevalence)
    worth = {} if value is None else {"predictive_value": value.model_dump(mode="json")}
    return {"path": detector.path, **few, **worth, **found}


def _of_batch(detector: AskedDetector | None) -> dict[str, Any] | None:
    return None if detector is None or detector.batch is None else detector.batch.model_dump(mode="json")


def _of_file(result: FileResult) -> dict[str, Any]:
    found: dict[str, Any] = result.model_dump(mode="json", exclude={"fingerprints"})
    found = {"answer": result.answer, **found}
    if not result.parts:
        del found["parts"]
    return found


def exit_code_of(results: Sequence[FileResult], detectors: Sequence[AskedDetector] = ()) -> int:
    """0 if every file was found fake or declared synthetic and there were enough known real files (if some were named);
    else 3, since nothing else is conclusive."""
    few = any(each.few for each in detectors)
    return 0 if all(result.is_conclusive for result in results) and not few else 3


def detection_evidence(
    record: Mapping[str, Any], detectors: Sequence[AskedDetector], *, request: Mapping[str, Any]
) -> Derived:
    """The ``record`` of :func:`detection_content`, and the detector with all inputs of its answers.

    ``request``: what else was asked for.
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
            "asked": dict(request),
        },
        parts={
            part: in_order(each.known.model_dump(mode="json"))
            for part, each in zip((DETECTOR, SECOND), detectors, strict=False)
        },
        about={name: each.known.sha256 for name, each in zip(("detector", "second_detector"), detectors, strict=False)},
    )
