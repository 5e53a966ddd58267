"""``auditor export``: a model as one file without auditor, and a check that all decisions are equal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from auditor.core.errors import AuditorError, ModelError, UsageError
from auditor.core.files import encode_path, regular_file, sha256_of, write_beside
from auditor.core.writable_paths import claim, place_file
from auditor.run.option_parsers import memory_limit, names_in
from cli.flags import (
    AllowUnsandboxed,
    ArchitectureArgs,
    Positive,
    Tracebacks,
    Writes,
    parse_architecture_args,
    scan_option,
)
from cli.safeguards import as_typed, convert_write_errors, is_file, temporary_output

if TYPE_CHECKING:
    from auditor.loading.exporting.export_record import FileRecord
    from auditor.loading.job_specs import Job
    from auditor.run.job_messages import FileExported

To = Literal["onnx", "torch", "sklearn"]
SUFFIXES: dict[To, str] = {"onnx": ".onnx", "torch": ".pt2", "sklearn": ".skops"}
_SECONDS = 3600.0


def export(
    model: Annotated[str, typer.Argument(help="A model bundle of a table or an ONNX model, mitigated or not.")],
    to: Annotated[str, typer.Option(help="onnx, torch or sklearn.")],
    data: Annotated[
        str | None, typer.Option(help="Rows on which both models must give the same decisions: those of the audit.")
    ] = None,
    positive: Positive = None,
    features: Annotated[str | None, scan_option("features")] = None,
    classes: Annotated[str | None, scan_option("classes")] = None,
    outputs: Annotated[str | None, scan_option("outputs")] = None,
    threshold: Annotated[float | None, scan_option("threshold", min=0.0, max=1.0)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; by default the model's name with .onnx, .pt2 or .skops."),
        Writes(itself=True),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Your network class that the bundle names: package.module:Class.")
    ] = None,
    architecture_args: ArchitectureArgs = None,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Tracebacks = False,
) -> int:
    """Write a model as one file without auditor: encoding, network and group rule together.

    onnx: an ONNX model, one input per column. torch: a torch.export program of numbers. sklearn: a pipeline
    in a skops file. A record of the export is written beside it, and what it answers on --data, for scan's
    --check-predictions. Exit codes: 0 written, and both give the same decision on all rows of --data; 1 a decision
    differs, and nothing is written; 3 written and NOT CHECKED, without --data.
    """
    from auditor.loading.exporting.export_record import FileRecord
    from auditor.loading.job_specs import PREDICTIONS, DataSpec, ExportSpec, Job, Limits, ModelSpec

    if to not in get_args(To):
        raise UsageError(f"--to {to!r} must be one of {', '.join(get_args(To))}.")
    kind = cast(To, to)
    stated = _stated(features, classes, outputs, threshold, architecture, architecture_args)
    place = out or _default_out(Path(model), SUFFIXES[kind])
    if place.suffix != SUFFIXES[kind]:
        raise UsageError(f"--out {str(place)!r} must end in {SUFFIXES[kind]}.")
    record, *answers = _claimed(place, with_answers=data is not None)
    source = Path(model).absolute() if Path(model).is_dir() else regular_file(model, "model file").absolute()
    rows = None if data is None else regular_file(data, "data file").absolute()
    with temporary_output(place) as made:
        job = Job(
            model=ModelSpec(**(stated | {"path": str(source)})),
            data=None if rows is None else DataSpec(path=str(rows), positive=positive),
            probes=(),
            seed=0,
            limits=Limits(memory_bytes=memory_limit(None), seconds=_SECONDS),
            with_intake=False,
            export=ExportSpec(to=kind, out=encode_path(str(made)), positive=positive),
            allow_unsandboxed=allow_unsandboxed,
        )
        typed = {str(made): str(place), str(source): model} | ({str(rows): str(data)} if rows is not None else {})
        found = _run_export(job, typed)
        if found.n_differing:
            typer.echo(_differing(found, str(data)), err=True)
            return 1
        if not is_file(made):
            raise ModelError("The export did not end well: it did not write its file.")
        said = _record(
            kind,
            found,
            source=FileRecord(path=model, sha256=found.sha256 if source.is_dir() else sha256_of(source)),
            artifact=FileRecord(path=str(place), sha256=sha256_of(made)),
            data=None if rows is None else FileRecord(path=str(data), sha256=sha256_of(rows)),
        )
        with convert_write_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place_file(made, place)
            write_beside(record, said.encode())
            for beside in answers:
                place_file(made.with_name(f"{made.name}{PREDICTIONS}"), beside)
    return _report(kind, found, place, [record, *answers])


def _default_out(model: Path, suffix: str) -> Path:
    """The model's name with the ending of the new file, another one where that is the model itself."""
    place = model.with_suffix(suffix)
    return model.with_name(f"{model.stem}-2{suffix}") if place == model else place


def _stated(
    features: str | None,
    classes: str | None,
    outputs: str | None,
    threshold: float | None,
    architecture: str | None,
    arguments: str | None,
) -> dict[str, Any]:
    """What the flags say of the model's file. Raises UsageError for what is no list of names."""
    try:
        columns, named = (None if text is None else tuple(names_in(text)) or None for text in (features, classes))
    except ValueError as error:
        raise UsageError(f"--features and --classes are lists of names: {error}.") from None
    return {
        "features": columns,
        "classes": named,
        "outputs": outputs,
        "threshold": threshold,
        "architecture": architecture,
        "architecture_args": dict(parse_architecture_args(arguments) or {}),
        "code_folder": str(Path.cwd()) if ":" in (architecture or "") else None,
    }


def _claimed(place: Path, *, with_answers: bool) -> list[Path]:
    """The files beside the exported one: its record, and what it answers. Raises UsageError where one is not ours."""
    from auditor.loading.job_specs import PREDICTIONS

    named = {f"{place.name}.export.json": "the record of --out"}
    named |= {f"{place.name}{PREDICTIONS}": "the answers of --out"} if with_answers else {}
    claim(place, "--out")
    for name, what in named.items():
        claim(place.with_name(name), what)
    return [place.with_name(name) for name in named]


def _run_export(job: Job, typed: dict[str, str]) -> FileExported:
    """The export in its own process, which writes where ``job.export`` says."""
    from auditor.run.parent_process import export as export_in_child
    from cli.terminal import stages

    try:
        with stages(True) as shown:
            return export_in_child(job, on_stage=shown)
    except AuditorError as error:
        raise type(error)(as_typed(str(error), typed), code=error.code) from None


def _differing(result: FileExported, data: str) -> str:
    from auditor.report.record.number_text import visible

    few = [f"{row + 1:,}" for row in result.differing]
    more = f" and {result.n_differing - len(few):,} more" if result.n_differing > len(few) else ""
    return visible(
        f"auditor: nothing was written: {result.n_differing:,} of {result.rows:,} decisions of the exported file "
        f"differ "
        f"from the model's, in row {', '.join(few)}{more} of {data}; probabilities differ by up to "
        f"{result.largest_difference:.2g}."
    )


def _record(
    target: To, result: FileExported, *, source: FileRecord, artifact: FileRecord, data: FileRecord | None
) -> str:
    from auditor.loading.exporting.export_record import ExportRecord, versions

    checked = result.rows is not None
    record = ExportRecord(
        source=source,
        artifact=artifact,
        to=target,
        classes=result.classes,
        positive=result.positive,
        data=data,
        rows=result.rows,
        differing_decisions=0 if checked else None,
        largest_probability_difference=result.largest_difference if checked else None,
        versions=versions(),
    )
    return record.model_dump_json(indent=2) + "\n"


def _report(target: To, result: FileExported, place: Path, beside: list[Path]) -> int:
    from auditor.report.record.number_text import visible

    typer.echo(visible(f"wrote     {', '.join(map(str, [place, *beside]))}"))
    if result.rows is None:
        typer.echo("NOT CHECKED: whether it decides as the model does was not asked; add --data FILE.")
        return 3
    typer.echo(
        f"checked   {result.rows:,} rows: every decision is the model's; probabilities differ by at most "
        f"{result.largest_difference:.2g}"
    )
    return 0
