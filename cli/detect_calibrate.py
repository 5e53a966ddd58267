"""``auditor detect calibrate``: calibration of a detector on known real files of the user's own channel."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.writable_paths import place_file
from auditor.data.media_classes import Meaning
from auditor.run.scan_options import ScanOptions
from cli.flags import AllowUnsandboxed, Device, Tracebacks, Writes

if TYPE_CHECKING:
    from auditor.detection.detection_record import FileResult
    from auditor.loading.job_specs import Job
    from auditor.models.detector_card import DetectorCard

_MOST_NAMED = 5
Outputs = Literal["logits", "probabilities"]
# Which detector a file of one medium calibrates.
_USED_BY: Mapping[str, Literal["image", "speech"]] = {"image": "image", "audio": "speech"}
_LEARNT = {
    "same": "The detector was trained on it, and its score says nothing of new files.",
    "alike": "It is like a file that the detector was trained on, which was saved again or has the same layout: "
    "whether its score is one of new files cannot be told.",
}
_OTHER_WAY = (
    "Its container is not like those of the files known to be real, so that it would not be answered: name fakes that "
    "came the same way."
)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The card for the channel, one of its files, and the reasons for unscored files, by path.

    ``media``: what each of them is. ``few``: why they are fewer than they seem, in a sentence, or "".
    """

    card: DetectorCard
    example: str
    lost: Mapping[Path, str]
    media: Mapping[Path, str | None]
    few: str


def left_out_by_all(calibrations: Sequence[Calibrated]) -> list[str]:
    """A sentence on each file, of the first of them, that is of use to no detector."""
    from auditor.core.files import readable

    first: Mapping[Path, str] = calibrations[0].lost if calibrations else {}
    # The reason of the detector that is for such files: the other says no more than that it is not.
    own = {each.card.medium: each.lost for each in calibrations}
    lost = [
        (path, own.get(_USED_BY.get(calibrations[0].media[path] or "", "speech"), first)[path])
        for path in first
        if all(path in each.lost for each in calibrations)
    ]
    said = [f"{readable(str(path))}: {why}" for path, why in lost[:_MOST_NAMED]]
    return said + ([f"and {len(lost) - _MOST_NAMED:,} more"] if len(lost) > _MOST_NAMED else [])


def detect_calibrate(
    detector: Annotated[
        str,
        typer.Argument(
            help="A detector, as auditor detect train writes it, or any classifier of pictures or sound: a model "
            "bundle, a Hugging Face folder, an ONNX file, or package.module:function of yours."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder of known files, with a sub-folder of real and one of synthetic ones.")
    ] = None,
    known_real: Annotated[
        Path | None, typer.Option(help="Folder of files from your own channel that are known to be real.")
    ] = None,
    known_fake: Annotated[Path | None, typer.Option(help="Folder of files known to be synthetic.")] = None,
    class_is: Annotated[
        list[str] | None,
        typer.Option(help="Meaning of a class or a sub-folder: fake=NAME, real=NAME or neither=NAME."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="The classifier's classes in the order of its outputs: a,b.")
    ] = None,
    outputs: Annotated[Outputs | None, typer.Option(help="Output type of the classifier.")] = None,
    error_rate: Annotated[
        float | None,
        typer.Option(help="Error rate for ruling out either class; the detector's own, or 0.05.", min=1e-4, max=0.5),
    ] = None,
    trim: Annotated[
        float,
        typer.Option(
            help="Share of the files known to be real that may be fake: the highest scores are left out.",
            min=0.0,
            max=0.5,
        ),
    ] = 0.0,
    out: Annotated[Path, typer.Option(help="Where to write the detector.", show_default=True), Writes()] = Path(
        "calibrated.pt"
    ),
    device: Device = ScanOptions.device,
    max_memory: Annotated[str | None, typer.Option(help="Memory limit of the process that reads files: 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for each file.")] = 120.0,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Tracebacks = False,
) -> int:
    """Calibrate a detector on known real files from the same channel as the files to examine.

    The detector is not retrained: its error rate is calibrated on your own files, and its detection rate on known fakes
    is reported. Any classifier can become a detector; its classes are read from their names. Exit codes: 0 calibrated,
    2 wrong usage, 3 calibrated, but some files could not be scored or are near copies, or the known files do not show
    that it tells fakes from real files, so that it answers nothing, 4 the detector or the files were refused.
    """
    from auditor.detection.detector_calibration import channel_lines
    from auditor.report.record.number_text import visible
    from cli.terminal import labelled

    if out.suffix != ".pt":
        raise UsageError(f"--out {str(out)!r} must end in .pt: the detector is written as a bundle.")
    said = class_meanings(class_is or ())
    known = find_known_files(data, known_real, known_fake, said)
    job = scoring_job(detector, device, max_memory, max_seconds, allow_unsandboxed=allow_unsandboxed)
    job = as_classifier(job, said, known, classes, outputs)
    found = _write_calibrated(job, known, error_rate, trim, out)
    lost = (f"left out  {line}" for line in left_out_by_all([found]))
    for line in (*lost, *(f"channel   {line}" for line in (*channel_lines(found.card), found.few) if line)):
        typer.echo(labelled(visible(line)))
    typer.echo(visible(f"wrote     {out}"))
    return 3 if found.lost or found.few or found.card.unproven else 0


def _write_calibrated(job: Job, known: KnownFiles, error_rate: float | None, trim: float, out: Path) -> Calibrated:
    from auditor.detection.detector_calibration import contradicted
    from auditor.run.parent_process import examine
    from cli.terminal import stages

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside,
            stages(sys.stderr.isatty()) as shown,
        ):
            found = calibrated(job, known, error_rate, trim, on_stage=shown)
            wrong, channel = contradicted(found.card), found.card.channel
            if wrong and channel is not None and not channel.promised:
                raise ModelError(
                    f"The known files contradict what the classes mean: {wrong}. Say it with --class-is fake=NAME and "
                    "--class-is real=NAME, or name other folders."
                )
            made = Path(beside).resolve() / "detector.pt"
            assert job.detection is not None
            spec = replace(job.detection, files=(found.example,), card=found.card.model_dump_json(), out=str(made))
            examine(replace(job, detection=spec))
            if not made.is_file():
                raise ModelError("The detector could not be written with its new calibration.")
            place_file(made, out)
    except OSError as error:
        raise UsageError(f"Cannot write {str(out)!r}: {error.strerror}.") from None
    return found


@dataclass(frozen=True, kw_only=True)
class KnownFiles:
    """Files known to be real or synthetic; ``folders``: names of sub-folders that determined this."""

    real: tuple[Path, ...]
    fake: tuple[Path, ...] = ()
    folders: tuple[str, ...] = ()


def class_meanings(class_is: Sequence[str]) -> dict[str, Meaning]:
    """What classes mean by their names, as typed."""
    found: dict[str, Meaning] = {}
    for text in class_is:
        meaning, equals, name = text.partition("=")
        if meaning not in get_args(Meaning) or not equals or not name:
            raise UsageError(f"--class-is {text!r} must read fake=NAME, real=NAME or neither=NAME.")
        if found.setdefault(name, cast(Meaning, meaning)) != meaning:
            raise UsageError(f"--class-is says two things of {name!r}: a class means one of them.")
    return found


def find_known_files(
    data: Path | None, known_real: Path | None, known_fake: Path | None, user_meanings: dict[str, Meaning]
) -> KnownFiles:
    """The files of the folders that were named. Raises UsageError where they are none or too many of the flags."""
    if (data is None) == (known_real is None) or (data is not None and known_fake is not None):
        raise UsageError(
            "Name the known files: --data DIR with a sub-folder of real and one of synthetic ones, or --known-real DIR "
            "and --known-fake DIR."
        )
    if data is None:
        assert known_real is not None
        reals = files_below(known_real)
        fakes = [] if known_fake is None else files_below(known_fake)
        if twice := set(reals) & set(fakes):
            raise UsageError(
                f"{str(min(twice))!r} lies in both folders: a file is known to be real, or known to be fake."
            )
        return KnownFiles(real=tuple(reals), fake=tuple(fakes))
    from auditor.data.media_classes import meanings

    inside = (
        [entry for entry in sorted(data.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
        if (data.is_dir())
        else []
    )
    if len(inside) < 2:
        raise UsageError(f"{str(data)!r} must be a folder with a sub-folder of real files and one of synthetic ones.")
    names = [entry.name for entry in inside]
    meant = dict(
        zip(names, meanings(names, user_meanings, description=f"the sub-folders of {str(data)!r}"), strict=True)
    )
    found = {meaning: [f for entry in inside if meant[entry.name] == meaning for f in files_below(entry)]
             for meaning in ("real", "fake")}  # fmt: skip
    return KnownFiles(real=tuple(found["real"]), fake=tuple(found["fake"]), folders=tuple(names))


def as_classifier(
    job: Job, user_meanings: dict[str, Meaning], known_files: KnownFiles, classes: str | None, outputs: Outputs | None
) -> Job:
    """The job with what makes a detector of any classifier."""
    assert job.detection is not None
    named = None if classes is None else tuple(name.strip() for name in classes.split(","))
    return replace(
        job,
        model=replace(job.model, classes=named, outputs=outputs),
        detection=replace(job.detection, meanings=user_meanings, folders=known_files.folders),
    )


def scoring_job(
    detector: str | None,
    device: str,
    max_memory: str | None,
    max_seconds: float,
    *,
    allow_unsandboxed: bool,
    predict: str | None = None,
) -> Job:
    """A job that only scores files.

    ``predict``: the function that a detector's card is of.

    Raises UsageError where there is no detector of that name.
    """
    from auditor.loading.job_specs import DetectionSpec, Job, Limits, ModelSpec
    from auditor.run.option_parsers import memory_limit

    path = None if detector is None else str(Path(detector).resolve())
    if detector is not None and not Path(detector).exists():
        if not _FUNCTION.fullmatch(detector):
            raise UsageError(
                f"There is no detector at {detector!r}: make one with auditor detect train, or of any classifier with "
                "auditor detect calibrate."
            )
        path, predict = None, detector
    return Job(
        model=ModelSpec(
            path=path, device=device, predict=predict, code_folder=None if predict is None else str(Path.cwd())
        ),
        data=None,
        probes=(),
        seed=0,
        limits=Limits(memory_bytes=memory_limit(max_memory), seconds=max_seconds),
        detection=DetectionSpec(files=(), with_calibration=True, scores_only=True),
        allow_unsandboxed=allow_unsandboxed,
    )


def calibrated(
    job: Job,
    known_files: KnownFiles,
    error_rate: float | None = None,
    trim: float = 0.0,
    *,
    on_stage: Callable[[str], None] | None = None,
) -> Calibrated:
    """The detector's card on the channel of these files; ``job``: of :func:`scoring_job`."""
    from auditor.core.files import encode_path
    from auditor.detection.detector_calibration import few_in_truth, learnt_of, on_channel, unit_of, unlike_channel
    from auditor.run.parent_process import examine

    assert job.detection is not None
    names = {path: encode_path(str(path)) for path in (*known_files.real, *known_files.fake)}
    spec = replace(job.detection, files=tuple(names.values()))
    found = examine(replace(job, detection=spec), on_stage=on_stage)
    if found.detector is None:
        raise ModelError("The detector could not be loaded.")
    results = {path: found.files[name] for path, name in names.items()}
    before = found.detector.card
    lost = {path: _why_not(r) for path, r in results.items() if not _is_scored(r)}
    if len(lost) == len(results):
        raise DataError(f"None of the {len(lost):,} known files could be scored. {next(iter(lost.values()))}")
    learnt = zip(results, learnt_of(before, list(results.values())), strict=True)
    lost |= {path: _LEARNT[how] for path, how in learnt if how and path not in lost}
    real, fake = ([results[path] for path in paths] for paths in (known_files.real, known_files.fake))
    card = on_channel(before, real, fake, error_rate=error_rate, trim=trim)
    video = unit_of(before, real) == "video"
    for path, result in results.items():
        if path not in lost and result.verdict is not None and bool(result.verdict.frames) != video:
            lost[path] = f"It is {'a picture' if video else 'a video'}: what is calibrated is one of the two."
    for path in known_files.fake:
        if path not in lost and unlike_channel(card, results[path]):
            lost[path] = _OTHER_WAY
    example = next(names[path] for path in known_files.real if path not in lost)
    few = few_in_truth(before, [results[path] for path in known_files.real if path not in lost])
    media = {path: result.medium for path, result in results.items()}
    return Calibrated(card=card, example=example, lost=lost, media=media, few=few)


def _why_not(result: FileResult) -> str:
    verdict = result.verdict
    return result.error or ("It was not looked at." if verdict is None else verdict.reason or "not of its medium")


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders, in order; UsageError if there are none, or too many."""
    from auditor.models.detector_card import MOST_SCORES

    if not folder.is_dir():
        raise UsageError(f"There is no folder at {str(folder)!r}: name one of files known to be real, or synthetic.")
    found = []
    for where, folders, names in os.walk(os.path.realpath(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(where) / name for name in sorted(names) if not name.startswith("."))
        # A link may lead out of what the user vouches for.
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    if not 0 < len(found) <= MOST_SCORES:
        raise UsageError(
            f"There are {len(found):,} files below {str(folder)!r}: name a folder of 1 to {MOST_SCORES:,}."
        )
    return found


def channel_of(
    job: Job,
    folders: tuple[Path, Path | None],
    paths: Sequence[Path],
    error_rate: float | None,
    *,
    on_stage: Callable[[str], None],
) -> Calibrated:
    """Like :func:`calibrated`, of known real and known fake files; UsageError if an examined file is among them."""
    known = find_known_files(None, *folders, {})
    inside = next((path for path in paths if Path(os.path.realpath(path)) in {*known.real, *known.fake}), None)
    if inside is not None:
        raise UsageError(f"{str(inside)!r} is among the known files, so nothing can be asked about it.")
    return calibrated(job, known, error_rate, on_stage=on_stage)


def _is_scored(result: FileResult) -> bool:
    return result.verdict is not None and result.verdict.probability is not None
