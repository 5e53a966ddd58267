"""``auditor train``: from a table to a model bundle, with one file of training rows and one of held-out rows."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import AuditorError, ModelError, UsageError
from auditor.core.files import encode_path, regular_file
from auditor.core.writable_paths import check, claim, place_file
from auditor.run.option_parsers import memory_limit, names_in
from auditor.run.scan_options import ScanOptions
from cli.flags import AllowUnsandboxed, ArchitectureArgs, Debug, Device, Positive, Writes, parse_architecture_args
from cli.safeguards import as_typed, convert_write_errors, is_file, temporary_output
from cli.terminal import labelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from auditor.loading.job_specs import TrainSpec
    from auditor.report.record.energy import EnergyRecord
    from auditor.run.job_channel import Known, TableTrained

# Longer than any training: it takes the time that it takes.
_A_YEAR = 366 * 86_400.0


NoiseSeed = Annotated[
    int | None, typer.Option(help="Seed of the noise, for tests only: the noise can be removed with the seed.")
]
Trials = Annotated[
    int | None,
    typer.Option(help="Number of trainings on these rows that this one was selected from, including it (for dp lint)."),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Column to keep although it looks like an id, a date or a weight; repeat for more."),
]
EncodingShare = Annotated[
    float | None,
    typer.Option(
        help="Share of epsilon for the encoding without --schema: 0.2 by default, 0 for no privacy protection."
    ),
]
Schema = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with the public bounds and levels of the columns, which alone determine the encoding."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(help="Rows per step: 128; with --dp-epsilon a sixteenth of the rows, of 128 to 2,048.")
]
LearningRate = Annotated[
    float | None, typer.Option(help="Step size of Adam: 0.001 by default, 0.01 with --dp-epsilon.")
]


def train(
    data: Annotated[str, typer.Argument(help="Rows to train on: CSV, TSV, Parquet or JSON Lines.")],
    target: Annotated[str, typer.Option(help="Column with the labels to predict.")],
    out: Annotated[Path, typer.Option(help="Where to write the model bundle."), Writes()] = Path("model.pt"),
    positive: Positive = None,
    features: Annotated[str | None, typer.Option(help="Columns to learn from: a,b,c. All others by default.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; repeat for more.")] = None,
    keep: Keep = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column with person ids: no person is in both the training and the test rows.")
    ] = None,
    weight: Annotated[str | None, typer.Option(help="Column with the row weights for loss and accuracy.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of the rows held out for testing.")] = 0.3,
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs; the exact number with --dp-epsilon.")] = 50,
    hidden: Annotated[str, typer.Option(help="Hidden layer sizes: 64,32.")] = "64,32",
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    seed: Annotated[int, typer.Option(help="Seed of split, start and order; the same seed gives the same model.")] = 0,
    device: Device = ScanOptions.device,
    architecture: Annotated[str, typer.Option(help="mlp, or a network of your own: package.module:Class.")] = "mlp",
    architecture_args: ArchitectureArgs = None,
    dp_epsilon: Annotated[float | None, typer.Option(help="Train with DP-SGD to this epsilon.")] = None,
    dp_delta: Annotated[float | None, typer.Option(help="Delta, below 1/n; n^-1.1 by default.")] = None,
    dp_noise_seed: NoiseSeed = None,
    dp_trials: Trials = None,
    dp_encoding_share: EncodingShare = None,
    schema: Schema = None,
    max_grad_norm: Annotated[float, typer.Option(help="Clipping norm of the per-row gradients in DP-SGD.")] = 1.0,
    train_out: Annotated[
        Path | None, typer.Option(help="Where to write the training rows: .csv, .tsv, .parquet."), Writes()
    ] = None,
    test_out: Annotated[Path | None, typer.Option(help="Where to write the test rows."), Writes()] = None,
    allow_unsandboxed: AllowUnsandboxed = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on a table, and save it as a bundle that scan can load.

    Text columns are encoded from the training rows; columns with ids, dates or survey weights are left out and listed,
    unless --keep names them. The training and test rows are written beside the bundle, for scan's --train and --data,
    and what it answers on the latter, for --check-predictions.
    """
    from cli.safeguards import refuse_a_job

    refuse_a_job("train")
    arguments = parse_architecture_args(architecture_args)
    places = _Places(out, train_out, test_out)

    from auditor.data.table_schema import read_schema
    from auditor.loading.job_specs import TrainSpec

    spec = TrainSpec(
        data=data,
        target=target,
        positive=positive,
        features=_names(features),
        drop=tuple(drop or ()),
        keep=tuple(keep or ()),
        group_column=group_column,
        weight=weight,
        test_share=test_share,
        epochs=epochs,
        hidden=_whole_numbers(hidden),
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        device=device,
        architecture=architecture,
        architecture_args=arguments or {},
        code_folder=str(Path.cwd()) if ":" in architecture else None,
        dp_epsilon=dp_epsilon,
        dp_delta=dp_delta,
        dp_noise_seed=dp_noise_seed,
        dp_trials=dp_trials,
        dp_encoding_share=dp_encoding_share,
        schema=None if schema is None else read_schema(schema),
        max_grad_norm=max_grad_norm,
    )
    _train(spec, places, allow_unsandboxed=allow_unsandboxed, debug=debug)


def _train(spec: TrainSpec, places: _Places, *, allow_unsandboxed: bool, debug: bool) -> None:
    from auditor.report.record.number_text import visible
    from auditor.training.meter import Meter, of_training, write_energy

    with ExitStack() as stack:
        made = {place: stack.enter_context(temporary_output(place)) for place in places.all}
        meter = stack.enter_context(Meter(spec.device))
        trained = _run_training(spec, places, made, allow_unsandboxed=allow_unsandboxed, debug=debug)
        for place in (*made, places.energy):
            check(place)
        for place, file in made.items():
            with convert_write_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                place_file(file, place)
    meter.device = trained.device
    energy = of_training(meter, trained.flops)
    write_energy(places.model, energy)
    for line in trained.recognised:
        typer.echo(f"auditor: {visible(line)}", err=True)
    for line in _lines(trained, spec, places, energy):
        # What is to be copied stays on one line.
        typer.echo(line if line.startswith("next") else labelled(line))


def _run_training(
    spec: TrainSpec, places: _Places, temporary_paths: dict[Path, Path], *, allow_unsandboxed: bool, debug: bool
) -> TableTrained:
    """The training in its own process, which writes each file of ``places`` where ``temporary_paths`` says."""
    from auditor.loading.job_specs import Job, Limits, ModelSpec, TableTrainingSpec
    from auditor.run.parent_process import last_lines, train_table

    # Here, where the folder can be searched for what was meant. Not resolved: what a link is called says what it holds.
    data = regular_file(spec.data, "data file").absolute()
    job = Job(
        model=ModelSpec(device=spec.device, architecture=spec.architecture, code_folder=spec.code_folder),
        data=None,
        probes=(),
        seed=spec.seed,
        limits=Limits(memory_bytes=memory_limit(None), seconds=_A_YEAR),
        table_training=TableTrainingSpec(
            table=replace(spec, data=encode_path(str(data))),
            out=encode_path(str(temporary_paths[places.model])),
            train_out=encode_path(str(temporary_paths[places.train])),
            test_out=encode_path(str(temporary_paths[places.test])),
            predictions_out=encode_path(str(temporary_paths[places.predictions])),
        ),
        allow_unsandboxed=allow_unsandboxed,
    )

    def show(log: str) -> None:
        if debug and log.strip():
            typer.echo(last_lines(log), err=True)

    try:
        with _progress() as say:
            trained = train_table(job, on_stage=say, on_log=show)
        if not all(is_file(file) for file in temporary_paths.values()):
            raise ModelError("The training did not end well: it did not write all of its files.")
    except AuditorError as error:
        typed = {str(file): str(place) for place, file in temporary_paths.items()} | {str(data): spec.data}
        raise type(error)(as_typed(str(error), typed)) from None
    return trained


class _Places:
    """Where the files go; all are checked before any time is spent. ``all``: those that the training writes."""

    def __init__(self, model: Path, train: Path | None, test: Path | None) -> None:
        from auditor.training.meter import energy_place

        self.model = model
        self.energy = energy_place(model)
        self.train = train or model.with_name(f"{model.stem}.train.csv")
        self.test = test or model.with_name(f"{model.stem}.test.csv")
        for path in (self.train, self.test):
            if path.suffix.lower() not in (".csv", ".tsv", ".parquet", ".pq"):
                raise UsageError(f"{path.name!r} must end in .csv, .tsv or .parquet.")
        # In the order in which they are written: rows without a model mislead less than a model without its rows.
        self.predictions = model.with_name(f"{model.stem}.predictions.csv")
        self.all = (self.train, self.test, self.predictions, self.model)
        named = {"--out": self.model, "--train-out": self.train, "--test-out": self.test}
        for flag, path in named.items():
            claim(path, flag)
        for path in (self.predictions, self.energy):
            claim(path, f"{path.name} of --out")


def _names(value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    try:
        names = tuple(names_in(value))
    except ValueError as error:
        raise UsageError(f"--features {error}.") from None
    if not names:
        raise UsageError("--features names no column.")
    return names


def _whole_numbers(value: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in value.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--hidden {value!r} must be whole numbers, such as 64,32.") from None


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """One line on standard error that is written over and taken away at the end; nothing where it is no terminal."""
    shown = sys.stderr.isatty()

    def say(stage: str) -> None:
        if shown:
            # A line that wraps could not be written over.
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\033[K{stage[:width]}")
            sys.stderr.flush()

    try:
        yield say
    finally:
        say("")


def _lines(result: TableTrained, spec: TrainSpec, places: _Places, energy: EnergyRecord) -> Iterator[str]:
    from auditor.report.record.number_text import visible
    from auditor.report.record.translations import Catalogue

    yield visible(f"trained   {spec.architecture} on {spec.data}: {', '.join(result.features)} -> {spec.target}")
    for note in result.notes:
        yield visible(f"note      {note}")
    how = "" if spec.weight is None else visible(f"; weighted by {spec.weight}")
    yield (
        f"accuracy  {_with_interval(result.accuracy)} on the {result.n:,} test rows "
        f"(95 % interval{how}); always guessing the commonest class has {result.majority_share:.3f}"
    )
    if result.auc is not None:
        yield f"AUC       {_with_interval(result.auc)}{' (without the weights)' if how else ''}"
    yield visible(f"took      {energy.describe(Catalogue())}")
    yield visible(f"wrote     {places.model}, {places.train}, {places.test}, {places.predictions}, {places.energy}")
    yield visible("next      " + _scan_command(spec, places))
    yield "          (with --sensitive and the name of a column, the groups in it are compared too)"


def _with_interval(estimate: Known) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _scan_command(spec: TrainSpec, places: _Places) -> str:
    words: list[Any] = ["auditor", "scan", places.model, "--data", places.test, "--train", places.train]
    words += ["--check-predictions", places.predictions, "--target", spec.target]
    if spec.positive is not None:
        words += ["--positive", spec.positive]
    if ":" in spec.architecture:
        words += ["--architecture", spec.architecture]
    return shlex.join(map(str, words))
