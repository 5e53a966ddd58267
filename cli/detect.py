"""``auditor detect``: provenance statements of media files, with a detector's estimate."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import UsageError
from auditor.run.scan_options import ScanOptions
from cli.detect_calibrate import Calibrated, channel_of, scoring_job
from cli.detect_text import print_results
from cli.flags import AllowUnsandboxed, BundleTo, Debug, Device, JsonAlone, SignWith, TimestampBy
from cli.signed_outputs import Sealed, sealed

if TYPE_CHECKING:
    from auditor.detection.detection_record import FileResult
    from auditor.evidence.detection_evidence import AskedDetector
    from auditor.loading.job_specs import Job
    from auditor.run.job_results import FilesExamined

MOST_FILES = 100_000
_NOBODY: list[str | None] = [None]


def detect(
    files: Annotated[list[Path], typer.Argument(help="Image, audio or video files.")],
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector, as auditor detect train or detect calibrate writes it; one of pictures and one of sound "
            "for a video."
        ),
    ] = None,
    predict: Annotated[
        str | None, typer.Option(help="Your function that the detector was calibrated for: package.module:function.")
    ] = None,
    known_real: Annotated[
        Path | None, typer.Option(help="Folder of at least 19 files from the same channel that are known to be real.")
    ] = None,
    known_fake: Annotated[
        Path | None, typer.Option(help="Folder of files from the same channel that are known to be synthetic.")
    ] = None,
    error_rate: Annotated[
        float | None,
        typer.Option(help="Error rate for ruling out either class; the detector's own by default.", min=1e-4, max=0.5),
    ] = None,
    prevalence: Annotated[
        float,
        typer.Option(help="Share of synthetic files among those you get, for the predictive value.", min=0.0, max=1.0),
    ] = 0.01,
    trust_anchors: Annotated[
        list[Path] | None,
        typer.Option(help="Certificates of authorities whose signatures you trust: PEM, or a C2PA trust list (JSON)."),
    ] = None,
    bundle: BundleTo = None,
    sign: SignWith = None,
    timestamp: TimestampBy = None,
    json_: JsonAlone = False,
    device: Device = ScanOptions.device,
    max_memory: Annotated[str | None, typer.Option(help="Memory limit of the process that reads files: 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for each file.")] = 120.0,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Debug = False,
) -> int:
    """Report the provenance statements of each file and, with a detector, whether it is likely to be synthetic.

    Exit codes: 0 every file is found fake or declared synthetic, 2 wrong usage, 3 a file has the answer "no known
    trace" or "cannot say" or could not be read, no detector was given, or known files are near copies, 4 the detector
    is refused.
    """
    paths, named = _distinct(files), list(dict.fromkeys(detector or ()))
    _check(named, known_real, known_fake)
    from auditor.core.files import encode_path
    from auditor.detection.provenance.read_provenance import read_anchors
    from auditor.loading.job_specs import DetectionSpec

    kept = sealed(bundle, sign, timestamp)
    anchors = "\n".join(map(read_anchors, trust_anchors)) if trust_anchors else None
    jobs = [
        scoring_job(one, device, max_memory, max_seconds, allow_unsandboxed=allow_unsandboxed, predict=predict)
        for one in (named or _NOBODY)
    ]
    known = [_channel(job, (known_real, known_fake), paths, error_rate, show=not json_) for job in jobs if known_real]
    spec = DetectionSpec(
        files=tuple(encode_path(os.path.realpath(path)) for path in paths),
        trust_anchors=anchors,
        with_calibration=kept is not None or len(named) > 1,
        error_rate=error_rate,
    )
    # The files of the one medium calibrate the one detector, and those of the other the other.
    specs = [replace(spec, card=each.card.model_dump_json()) for each in known] or [spec] * len(jobs)
    found = [
        _examined(replace(job, detection=own), show=not json_, debug=debug)
        for job, own in zip(jobs, specs, strict=True)
    ]
    asked = {"trust_anchors": bool(anchors), "known_real": bool(known)}
    results, asked_of = _together(paths, named, found, [each.few for each in known], prevalence)
    return _report(results, asked_of, known, asked, kept, json_=json_)


def _report(
    by_path: Sequence[tuple[str, FileResult]],
    detectors: Sequence[AskedDetector],
    known: Sequence[Calibrated],
    asked: Mapping[str, Any],
    kept: Sealed | None,
    *,
    json_: bool,
) -> int:
    """Writes the evidence, prints the answers, and returns the exit code."""
    from auditor.core.files import readable
    from auditor.evidence.detection_evidence import detection_content, detection_evidence, exit_code_of

    results = [(readable(path), result) for path, result in by_path]
    code = exit_code_of([result for _, result in results], detectors)
    said = detection_content(detectors, results, code)
    if kept is not None:
        kept.write(detection_evidence(said, detectors, request=asked))
    if json_:
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
    else:
        print_results(results, detectors, code, known)
    if kept is not None:
        kept.raise_if_undated()
    return code


def _examined(job: Job, *, show: bool, debug: bool) -> FilesExamined:
    from auditor.run.parent_process import examine, last_lines
    from cli.terminal import stages

    assert job.detection is not None
    with stages(show) as shown:
        shown.total = len(job.detection.files) + 1
        found = examine(job, on_stage=shown)
    if debug and found.log.strip():
        typer.echo(last_lines(found.log), err=True)
    return found


def _together(
    paths: Sequence[Path],
    detector_paths: Sequence[str],
    examinations: Sequence[FilesExamined],
    few: Sequence[str],
    prevalence: float,
) -> tuple[list[tuple[str, FileResult]], list[AskedDetector]]:
    """What is said of each file, and the detectors with the batch that each has seen; ``few``: of each on a channel."""
    from auditor.detection.detector_calibration import check_media, judged_by_all
    from auditor.evidence.detection_evidence import AskedDetector

    known = [each.detector for each in examinations if each.detector is not None]
    cards = [each.card for each in known]
    check_media(cards)
    judged, batches = judged_by_all(cards, [list(each.files.values()) for each in examinations])
    asked = [
        AskedDetector(path=path, known=each, batch=batch, few=said, prevalence=prevalence)
        for path, each, batch, said in zip(detector_paths, known, batches, few or [""] * len(known), strict=False)
    ]
    return list(zip(map(str, paths), judged, strict=True)), asked


def _channel(
    job: Job, known: tuple[Path, Path | None], paths: Sequence[Path], error_rate: float | None, *, show: bool
) -> Calibrated:
    from cli.terminal import stages

    with stages(show) as shown:
        return channel_of(job, known, paths, error_rate, on_stage=shown)


def _check(detector_paths: Sequence[str], known_real: Path | None, known_fake: Path | None) -> None:
    if len(detector_paths) > 2:
        raise UsageError("A call takes two detectors at most, one of pictures and one of sound.")
    if known_real is not None and not detector_paths:
        raise UsageError("--known-real calibrates a detector on your own files: add --detector FILE.")
    if known_fake is not None and known_real is None:
        raise UsageError("--known-fake shows what a detector finds beside --known-real DIR: name both.")


def _distinct(files: Sequence[Path]) -> list[Path]:
    """The files as typed, each once; UsageError for a folder, or where none of them is there."""
    for path in files:
        if os.path.isdir(path):
            raise UsageError(f"{str(path)!r} is a folder: name its files, such as {shlex.quote(str(path))}/*")
    # One that is absent among others has an error of its own, and the others are examined.
    if not any(map(os.path.exists, files)):
        what = "no file" if len(files) == 1 else f"none of these {len(files):,} files, such as"
        raise UsageError(f"There is {what} {str(files[0])!r}.")
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(os.path.realpath(path), path)
    if len(found) > MOST_FILES:
        raise UsageError(f"{len(found):,} files are more than the {MOST_FILES:,} that one call takes.")
    return list(found.values())
