"""``auditor detect train``: from a folder of real and synthetic files to a detector with its error rates."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError
from auditor.core.writable_paths import claim, place_file
from auditor.run.scan_options import ScanOptions
from cli.detect_text import UNMEASURED, rate_lines, with_interval
from cli.flags import AllowUnsandboxed, Device, Tracebacks, Writes

if TYPE_CHECKING:
    from pydantic import JsonValue

    from auditor.loading.job_specs import Job
    from auditor.report.record.energy import EnergyRecord
    from auditor.run.job_messages import Trained

_MOST_NAMED = 10
_TARGET = "mitigations.deepfake.media_training:train_on_folder"


def detect_train(
    folder: Annotated[Path, typer.Argument(help="A folder with one sub-folder of real and one of synthetic files.")],
    out: Annotated[Path, typer.Option(help="Where to write the detector."), Writes()] = Path("detector.pt"),
    kinds: Annotated[str | None, typer.Option(help="Table with the generator, or the source, of every file.")] = None,
    join_on: Annotated[str, typer.Option(help="Column of --kinds with paths such as fake/1.png.")] = "file",
    kind_column: Annotated[str | None, typer.Option(help="Column of --kinds with the generators.")] = None,
    source_column: Annotated[str | None, typer.Option(help="Column of --kinds with real sources.")] = None,
    medium: Annotated[str | None, typer.Option(help="image or speech; detected from the files by default.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Frozen encoder of images or sound: a transformers folder or an ONNX file."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side length in pixels of the image part that is analysed.")] = None,
    seconds: Annotated[float | None, typer.Option(help="First seconds of a recording to analyse.")] = None,
    fake: Annotated[str | None, typer.Option(help="Sub-folder of synthetic files, if not evident.")] = None,
    error_rate: Annotated[
        float, typer.Option(help="Error rate for ruling out either class.", min=1e-4, max=0.5)
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed; the same seed gives the same detector.")] = 0,
    device: Device = ScanOptions.device,
    max_memory: Annotated[str | None, typer.Option(help="Memory limit of the training process, such as 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for the training.")] = 3600.0,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Tracebacks = False,
) -> int:
    """Train a detector of synthetic images or speech on your own files, and report its known error rates.

    Its error rates are cross-validated on held-out files, and on held-out generators and sources if --kinds names them.
    Exit codes: 0 trained, 2 wrong usage, 3 some files were unusable or near copies, or too few, 4 they were refused.
    """
    from auditor.loading.job_specs import DetectorTrainingSpec, Job, Limits, ModelSpec
    from auditor.report.record.number_text import visible
    from auditor.run.option_parsers import memory_limit
    from auditor.training.meter import energy_place
    from cli.terminal import labelled

    _check(folder, out, kinds, (kind_column, source_column))
    claim(energy_place(out), f"{energy_place(out).name} of --out")
    options: dict[str, JsonValue] = {
        # The process that trains works in another folder.
        "encoder": None if encoder is None else str(Path(encoder).resolve()),
        "size": size,
        "seconds": seconds,
        "error_rate": error_rate,
    }
    job = Job(
        model=ModelSpec(device=device),
        data=None,
        probes=(),
        seed=seed,
        limits=Limits(memory_bytes=memory_limit(max_memory), seconds=max_seconds),
        detector_training=DetectorTrainingSpec(
            target=_TARGET,
            folder=str(folder.resolve()),
            out="",
            medium=medium,
            fake=fake,
            kinds=None if kinds is None else str(Path(kinds).resolve()),
            join_on=join_on,
            kind_column=kind_column,
            source_column=source_column,
            options=options,
        ),
        allow_unsandboxed=allow_unsandboxed,
    )
    trained, energy = _run_training(job, out)
    for line in _lines(trained, folder, out, energy):
        # A command is copied whole.
        typer.echo(visible(line) if line.startswith("next") else labelled(visible(line)))
    return 3 if trained.left_out or trained.few or _too_few(trained) else 0


def _run_training(job: Job, out: Path) -> tuple[Trained, EnergyRecord]:
    """The detector in its place, what is said of it, and what it took, which lies beside it."""
    from auditor.run.parent_process import train_detector
    from auditor.training.meter import Meter, of_training, write_energy
    from cli.terminal import stages

    assert job.detector_training is not None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
            made = Path(beside).resolve() / "detector.pt"
            asked = replace(job, detector_training=replace(job.detector_training, out=str(made)))
            with stages(sys.stderr.isatty()) as shown, Meter(job.model.device) as meter:
                trained = train_detector(asked, on_stage=shown)
                meter.device = trained.device
                energy = of_training(meter)
            place_file(made, out)
    except OSError as error:
        raise UsageError(f"Cannot write {str(out)!r}: {error.strerror}.") from None
    write_energy(out, energy)
    return trained, energy


def _check(
    folder: Path,
    out: Path,
    kinds: str | None,
    columns: Sequence[str | None],
) -> None:
    """Raises UsageError for what can be said before any file is read."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder at {str(folder)!r}.")
    if out.suffix != ".pt":
        raise UsageError(f"--out {str(out)!r} must end in .pt: the detector is written as a bundle.")
    if kinds is not None and not Path(kinds).exists():
        raise UsageError(f"There is no table of kinds at {kinds!r}.")
    if kinds is None and any(columns):
        raise UsageError("--kind-column and --source-column name columns of a table: add --kinds FILE.")
    if kinds is not None and not any(columns):
        raise UsageError(
            "--kinds says nothing by itself: name its column of generators with --kind-column, or of sources or "
            "speakers with --source-column."
        )


def _too_few(result: Trained) -> bool:
    known = result.detector
    return min(known.n_real, known.n_fake) < known.card.fewest


def _lines(result: Trained, folder: Path, out: Path, energy: EnergyRecord) -> Iterator[str]:
    from auditor.models.detector_card import IS_FOR
    from auditor.report.record.translations import Catalogue
    from auditor.training.meter import energy_place

    known = result.detector
    card = known.card
    fake = known.classes[card.fake]
    yield (
        f"trained   a detector for {IS_FOR[card.medium]} on {known.n_real:,} real and {known.n_fake:,} synthetic files "
        f"({fake!r}){' of ' + ', '.join(card.kinds[:_MOST_NAMED]) if card.kinds else ''}"
    )
    # All of them: nowhere else is it said which files the detector does not know.
    for line in result.left_out:
        yield f"left out  {line}"
    for note in (*filter(None, [result.few]), *result.notes):
        yield f"note      {note}"
    for line in rate_lines(card.known_rates):
        yield f"known     {line}"
    for rate in card.known_rates:
        if rate.unseen and rate.kind is not None and rate.metric == "equal_error_rate":
            yield f"unseen    {rate.kind}: equal error rate {with_interval(rate)}"
    yield f"known     {UNMEASURED}"
    yield f"took      {energy.describe(Catalogue())}"
    yield f"wrote     {out}, {energy_place(out)}"
    calibrate = shlex.join(["auditor", "detect", "calibrate", str(out), "--known-real"])
    yield f"next      {calibrate} DIR --known-fake DIR, with files of your channel: until then it answers nothing"
    scan = shlex.join(["auditor", "scan", str(out), "--train", str(folder), "--data"])
    yield f"next      {scan} FOLDER, with files that it was not trained on"
