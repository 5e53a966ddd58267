"""``auditor detect-calibrate``: a detector on its user's own channel, from files known to be real there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.errors import ModelError, UsageError
from auditor.outputs import place_file
from cli.flags import AllowUnsandboxed
from cli.guarded import Writes

if TYPE_CHECKING:
    from auditor.detection.record import FileResult
    from auditor.intake.specs import Job
    from auditor.model.detector_card import DetectorCard

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A card on the channel, one of the files that it is of, and those that could not be scored, in words."""

    card: DetectorCard
    example: str
    left_out: tuple[str, ...]


def detect_calibrate(
    detector: Annotated[str, typer.Argument(help="A detector, as auditor detect-train writes it.")],
    known_real: Annotated[Path, typer.Option(help="Folder of files known to be real, of your own channel.")],
    known_fake: Annotated[Path | None, typer.Option(help="Folder of files known to be synthetic.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the detector.", show_default=True), Writes()] = Path(
        "calibrated.pt"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    max_memory: Annotated[str | None, typer.Option(help="Memory for the process that reads files: 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Seconds for each file.")] = 120.0,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Calibrate a detector on files known to be real that came the way of those you will ask about.

    It learns nothing: its error rate is made to hold on your own files, and it is said how many known fakes it then
    finds. Exit codes: 0 calibrated, 2 wrong usage, 3 calibrated, but some files could not be scored, or how many fakes
    it finds is not known, 4 the detector or the files were refused.
    """
    from auditor.detection.channel import channel_lines
    from auditor.record.text import visible
    from auditor.run.isolate import examine
    from cli.output import stages

    if not Path(detector).exists():
        raise UsageError(f"There is no detector at {detector!r}: make one with auditor detect-train.")
    if out.suffix != ".pt":
        raise UsageError(f"--out {str(out)!r} must end in .pt: the detector is written as a bundle.")
    job = scoring_job(detector, device, max_memory, max_seconds, allow_unsandboxed=allow_unsandboxed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside,
            stages(sys.stderr.isatty()) as shown,
        ):
            found = calibrated(job, known_real, known_fake, on_stage=shown)
            made = Path(beside).resolve() / "detector.pt"
            assert job.detection is not None
            spec = replace(job.detection, files=(found.example,), card=found.card.model_dump_json(), out=str(made))
            examine(replace(job, detection=spec))
            if not made.is_file():
                raise ModelError("The detector could not be written with its new calibration.")
            place_file(made, out)
    except OSError as error:
        raise UsageError(f"Cannot write {str(out)!r}: {error.strerror}.") from None
    for line in found.left_out:
        typer.echo(visible(f"left out  {line}"))
    for line in channel_lines(found.card):
        typer.echo(visible(f"channel   {line}"))
    typer.echo(visible(f"wrote     {out}"))
    return 3 if found.left_out or known_fake is None else 0


def scoring_job(
    detector: str | None, device: str, max_memory: str | None, max_seconds: float, *, allow_unsandboxed: bool
) -> Job:
    """A job that scores files and asks nothing else of them."""
    from auditor.intake.specs import DetectionSpec, Job, Limits, ModelSpec
    from auditor.run.options import memory_limit

    return Job(
        model=ModelSpec(path=None if detector is None else str(Path(detector).resolve()), device=device),
        data=None,
        probes=(),
        seed=0,
        limits=Limits(memory_bytes=memory_limit(max_memory), seconds=max_seconds),
        detection=DetectionSpec(files=(), with_calibration=True, scores_only=True),
        allow_unsandboxed=allow_unsandboxed,
    )


def calibrated(
    job: Job, known_real: Path, known_fake: Path | None, *, on_stage: Callable[[str], None] | None = None
) -> Calibrated:
    """The detector's card on the channel of these folders' files; ``job``: of :func:`scoring_job`."""
    from auditor.detection.channel import on_channel
    from auditor.files import readable, sent
    from auditor.run.isolate import examine

    reals = files_below(known_real)
    fakes = [] if known_fake is None else files_below(known_fake)
    if twice := set(reals) & set(fakes):
        raise UsageError(f"{str(min(twice))!r} lies in both folders: a file is known to be real, or known to be fake.")
    assert job.detection is not None
    names = {path: sent(str(path)) for path in (*reals, *fakes)}
    spec = replace(job.detection, files=tuple(names.values()))
    found = examine(replace(job, detection=spec), on_stage=on_stage)
    if found.detector is None:
        raise ModelError("The detector could not be loaded.")
    results = {path: found.files[name] for path, name in names.items()}
    lost = [path for path, result in results.items() if not _is_scored(result)]
    said = [f"{readable(str(path))}: {results[path].error or 'not of its medium'}" for path in lost[:_MOST_NAMED]]
    said += [f"and {len(lost) - _MOST_NAMED:,} more"] if len(lost) > _MOST_NAMED else []
    card = on_channel(found.detector.card, [results[path] for path in reals], [results[path] for path in fakes])
    example = next(names[path] for path in reals if _is_scored(results[path]))
    return Calibrated(card=card, example=example, left_out=tuple(said))


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, in order; UsageError where there is none, or too many."""
    from auditor.model.detector_card import MOST_SCORES

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


def channel_of(job: Job, known_real: Path, asked: Sequence[Path], *, on_stage: Callable[[str], None]) -> Calibrated:
    """As :func:`calibrated`; UsageError where a file that is asked about is among those known to be real."""
    known = set(files_below(known_real))
    inside = next((path for path in asked if Path(os.path.realpath(path)) in known), None)
    if inside is not None:
        raise UsageError(f"{str(inside)!r} is among the files known to be real, so nothing can be asked about it.")
    return calibrated(job, known_real, None, on_stage=on_stage)


def _is_scored(result: FileResult) -> bool:
    return result.verdict is not None and result.verdict.probability is not None and not result.verdict.frames
