"""The command line: one function per command."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from auditor import __version__
from auditor.errors import AuditorError
from cli.detect import detect
from cli.detect_train import detect_train
from cli.dossier import dossier
from cli.dp_audit import dp_audit
from cli.dp_budget import dp_budget
from cli.dp_lint import dp_lint
from cli.history import Db, history, signoff
from cli.new_probe import new_probe
from cli.register import register
from cli.reproduce import reproduce
from cli.train import train as train_command
from cli.verify import keygen, verify

P = ParamSpec("P")

app = typer.Typer(
    name="auditor",
    help="Audits a machine-learning model: fairness, attribution, privacy, robustness, and how sure it is of each.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

FORMATS = "html,json,markdown,pdf,sarif,junit,csv,model-card,model-card-json,ml-bom"
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and the measuring process's own output.")]


INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h


def _asks_for_debug() -> bool:
    return "--debug" in sys.argv


def _complain(message: str, *, debug: bool) -> None:
    from auditor.report.text import visible

    if debug:
        traceback.print_exc()
    typer.echo(f"auditor: {visible(message)}", err=True)


def command(name: str) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Registers a function as a command whose errors are one sentence and whose result is the exit code."""

    def register(function: Callable[P, int | None]) -> Callable[P, None]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                code = function(*args, **kwargs)
            except AuditorError as error:
                _complain(str(error), debug=bool(kwargs.get("debug")))
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                typer.echo("auditor: interrupted; nothing half-written is left behind.", err=True)
                raise typer.Exit(130) from None
            except BrokenPipeError:
                sys.stderr.close()
                raise typer.Exit(141) from None
            except (typer.Exit, SystemExit):
                raise
            except Exception as error:  # a defect of ours: no traceback, and no exit code that means a verdict
                what = f"{type(error).__name__}: {error}"
                _complain(f"internal error; please report it with what --debug shows: {what}", debug=_asks_for_debug())
                raise typer.Exit(INTERNAL_ERROR) from None
            raise typer.Exit(code or 0)

        app.command(name)(wrapped)
        return wrapped

    return register


@command("scan")
def scan(
    model: Annotated[
        str | None, typer.Argument(help="A model file or Hugging Face folder.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help="Evaluation rows: CSV, TSV, Parquet or JSON Lines.")] = None,
    train: Annotated[str | None, typer.Option(help="The rows the model was trained on.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of true labels, or true numbers.")] = None,
    positive: Annotated[str | None, typer.Option(help="The favourable label.")] = None,
    sensitive: Annotated[list[str] | None, typer.Option(help="Column of a sensitive feature; repeat for more.")] = None,
    bins: Annotated[
        list[str] | None, typer.Option(help="Bins of a continuous sensitive feature: age=18,30,45 or age=quantiles:4.")
    ] = None,
    sensitive_file: Annotated[str | None, typer.Option(help="Table that holds the sensitive features.")] = None,
    join_on: Annotated[str | None, typer.Option(help="Column that --data and --sensitive-file share.")] = None,
    features: Annotated[str | None, typer.Option(help="Columns the model takes, in order: a,b,c.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of texts, for a text model.")] = None,
    image: Annotated[str | None, typer.Option(help="Column of image paths, relative to the table.")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or regression, where the model's file does not say.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names in the order of the outputs: a,b.")] = None,
    outputs: Annotated[str | None, typer.Option(help="What the model returns: logits or probabilities.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Probability from which a decision is favourable.")] = None,
    probes: Annotated[str | None, typer.Option(help="Probes to run: a,b. All that apply by default.")] = None,
    probe: Annotated[list[str] | None, typer.Option(help="Your own probe: package.module:Class.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="A published benchmark's file: crows_pairs=PATH; repeat for more.")
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="A text classifier that scores generated text; VADER's sentiment by default.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="An earlier model: what changed since, row by row on the same data.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="What results are held to: profiles, rule packs or TOML files: a,b.")
    ] = None,
    registration: Annotated[
        str | None, typer.Option(help="What auditor register wrote: the report says whether this run followed it.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(help="Day on which rule packs are held to be in force: 2027-12-02; today by default.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Configuration file; ./audit.toml where there is one.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the reports; ./audit-report by default.")] = None,
    format_: Annotated[str | None, typer.Option("--format", help=f"Formats to write: {FORMATS}.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Append the audit to the history, and show decisions on this model.")
    ] = False,
    db: Annotated[
        str | None, typer.Option(help="The history: a file or an SQLAlchemy URL; ./audit-history.db by default.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Write the evidence, which auditor verify checks, to this file.")
    ] = None,
    sign: Annotated[str | None, typer.Option(help="Sign the evidence with this private key.")] = None,
    include_rows: Annotated[
        bool, typer.Option("--include-rows", help="Put every row's groups into the evidence.")
    ] = False,
    redact: Annotated[bool, typer.Option("--redact", help="Leave rows out of the evidence, not their digest.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed; the same seed gives the same report.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    error_rate: Annotated[float | None, typer.Option(help="Chance of any false FAIL, and of any false PASS.")] = None,
    multiplicity: Annotated[str | None, typer.Option(help="bonferroni, holm, bh or none.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Memory for the measuring process, such as 8GiB.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Seconds for loading, and for each probe.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Network of a bare state_dict: package.module:Class.")
    ] = None,
    architecture_args: Annotated[str | None, typer.Option(help="Its arguments, as a JSON object.")] = None,
    predict: Annotated[str | None, typer.Option(help="Audit a function instead: package.module:function.")] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Load formats that run code: TorchScript, .pt2.")
    ] = False,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Unpickle the model: runs what is in it.")
    ] = False,
    allow_inconclusive: Annotated[bool, typer.Option("--allow-inconclusive", help="Exit 0 on INCONCLUSIVE.")] = False,
    debug: Debug = False,
) -> int:
    """Audit a model: measure, judge, write a report.

    Exit codes: 0 everything judged passed, 1 something FAILed, 2 wrong usage, 3 nothing failed but something could not
    be said, 4 the model or the data were refused.
    """
    from cli.options import configure
    from cli.scan import parse_json_flag
    from cli.scan import scan as run_scan

    flags = {
        "model": model, "data": data, "train": train, "target": target, "positive": positive, "sensitive": sensitive,
        "bins": bins, "benchmark": benchmark, "scorer": scorer, "reference": reference,
        "sensitive_file": sensitive_file, "join_on": join_on, "features": features, "text": text, "image": image,
        "task": task, "classes": classes, "outputs": outputs, "threshold": threshold, "probes": probes, "probe": probe,
        "policy": policy, "out": out, "format": format_, "seed": seed, "device": device, "error_rate": error_rate,
        "multiplicity": multiplicity, "max_memory": max_memory, "max_seconds": max_seconds,
        "architecture": architecture, "architecture_args": parse_json_flag(architecture_args, "--architecture-args"),
        "predict": predict, "allow_code": allow_code, "trust_pickle": trust_pickle,
        "allow_inconclusive": allow_inconclusive, "as_of": as_of, "registration": registration,
        "history": history, "db": db, "bundle": bundle, "sign": sign, "include_rows": include_rows,
        "redact": redact,
    }  # fmt: skip
    configured = configure(flags, config, set_ or [])
    options = configured.options
    return run_scan(
        configured, as_json=json_ or options.json_, quiet=quiet or options.quiet, debug=debug or options.debug
    )


@command("probes")
def probes(json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the probes: what each asks, how, what it needs, and where it is defined."""
    from cli.catalogue import print_probes

    print_probes(as_json=json_)


@command("mitigations")
def mitigations(json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the mitigations."""
    from cli.catalogue import print_mitigations

    print_mitigations(as_json=json_)


@command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds one.")],
    format_: Annotated[str, typer.Option("--format", help=f"Formats to write: {FORMATS}.")] = "html",
    out: Annotated[Path | None, typer.Option(help="Folder to write into; the report's own by default.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder to write every figure into, as files.")] = None,
    figure_format: Annotated[str, typer.Option(help="What figures are written as: svg,png.")] = "svg",
    debug: Debug = False,
) -> None:
    """Render a recorded audit again, without model, data or torch."""
    from cli.gate import consistent
    from cli.rendering import known_figure_formats, known_formats, write_figures
    from cli.scan import write_report

    formats, drawn_as = known_formats(format_.split(",")), known_figure_formats(figure_format.split(","))
    record = consistent(run)
    folder = out or (run if run.is_dir() else run.parent)
    for path in write_report(record, folder, formats):
        typer.echo(path)
    for path in write_figures(record, figures, drawn_as) if figures is not None else ():
        typer.echo(path)


@command("compare")
def compare(
    before: Annotated[Path, typer.Argument(help="The earlier report.json, its folder, or history:NUMBER.")],
    after: Annotated[Path, typer.Argument(help="The later one, best made with --reference the earlier model.")],
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.html, .json and .md.")] = None,
    error_rate: Annotated[float, typer.Option(help="Chance of any false 'better', and of any false 'worse'.")] = 0.05,
    db: Db = None,
    debug: Debug = False,
) -> int:
    """Put two recorded audits side by side: what became better, what worse.

    Exit codes: 0 something is shown to be better and nothing worse, 1 something is shown to be worse, 3 neither.
    """
    from cli.comparing import compare_reports

    return compare_reports(before, after, out, error_rate=error_rate, db=db)


@command("gate")
def gate(
    reports: Annotated[list[Path], typer.Argument(help="A report.json, or the folder that holds it; or several.")],
    allow_inconclusive: Annotated[bool, typer.Option(help="Exit 0, not 3, where the data could not tell.")] = False,
    debug: Debug = False,
) -> int:
    """Let a pipeline go on only where recorded audits passed.

    Exit codes: as of the scan, computed anew from the findings, the gravest of all; 4 where a record contradicts
    itself.
    """
    from cli.gate import gate_reports

    return gate_reports(reports, allow_inconclusive=allow_inconclusive)


@command("mitigate")
def mitigate(
    name: Annotated[str, typer.Argument(help="A mitigation; see: auditor mitigations.")],
    model: Annotated[str, typer.Argument(help="The model to make a better one of.")],
    out: Annotated[Path, typer.Option(help="Where to write the new model: fair.pt, a folder for a language model.")],
    train: Annotated[str | None, typer.Option(help="Rows the mitigation learns from.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows on which both models are audited.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of true labels.")] = None,
    positive: Annotated[str | None, typer.Option(help="The favourable label.")] = None,
    sensitive: Annotated[list[str] | None, typer.Option(help="Column of a sensitive feature; repeat for more.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of texts, for a text model.")] = None,
    image: Annotated[str | None, typer.Option(help="Column of image paths, relative to the table.")] = None,
    with_: Annotated[list[str] | None, typer.Option("--with", help="Option of the mitigation: option=value.")] = None,
    probes: Annotated[str | None, typer.Option(help="Probes to audit with: a,b. All that apply by default.")] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="A published benchmark's file: crows_pairs=PATH; repeat for more.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    policy: Annotated[str | None, typer.Option(help="What results are held to: a profile or a TOML file.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration file; ./audit.toml where there is one.")] = None,
    report: Annotated[str, typer.Option(help="Folder for the comparison and the two audits.")] = "audit-report",
    checkpoint: Annotated[Path | None, typer.Option(help="Keeps the training; an interrupted one goes on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; the same seed gives the same model.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Memory for each process, such as 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Seconds for the mitigation.")] = 3600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Debug = False,
) -> int:
    """Make a new model of an old one, audit both on the same rows, and say what changed.

    Exit codes: 0 something is shown to be better and nothing worse, 1 something is shown to be worse, 3 neither.
    """
    from cli.mitigate import parse_settings, run_mitigation
    from cli.options import configure

    flags = {
        "model": model, "data": data, "train": train, "target": target, "positive": positive, "sensitive": sensitive,
        "text": text, "image": image, "probes": probes, "policy": policy, "out": report, "seed": seed,
        "device": device, "max_memory": max_memory, "benchmark": benchmark,
    }  # fmt: skip
    return run_mitigation(
        name,
        configure(flags, config, set_ or []),
        parse_settings(with_ or []),
        out,
        checkpoint=checkpoint,
        max_seconds=max_seconds,
        quiet=quiet,
    )


@command("tradeoff")
def tradeoff(
    name: Annotated[str, typer.Argument(help="A mitigation; see: auditor mitigations.")],
    model: Annotated[str, typer.Argument(help="The present model, which is a point too.")],
    sweep: Annotated[list[str], typer.Option(help="Values of an option: alpha=0,0.1,1; repeat for a grid.")],
    out: Annotated[Path, typer.Option(help="Folder for every model, its audit, and the trade-off.")],
    train: Annotated[str | None, typer.Option(help="Rows the mitigation learns from.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows on which all models are audited.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of true labels.")] = None,
    positive: Annotated[str | None, typer.Option(help="The favourable label.")] = None,
    sensitive: Annotated[list[str] | None, typer.Option(help="Column of a sensitive feature; repeat for more.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of texts, for a text model.")] = None,
    image: Annotated[str | None, typer.Option(help="Column of image paths, relative to the table.")] = None,
    with_: Annotated[list[str] | None, typer.Option("--with", help="Fixed option: option=value.")] = None,
    metric: Annotated[
        str, typer.Option(help="accuracy, balanced_accuracy, true_positive_rate, or another of ideal 1.")
    ] = "accuracy",
    disparity: Annotated[str, typer.Option(help="The gap to close.")] = "demographic_parity_difference",
    tolerance: Annotated[float, typer.Option(help="How much lower the metric may be: 0.01 is one point.")] = 0.01,
    error_rate: Annotated[float | None, typer.Option(help="Chance of any false alternative.")] = None,
    probes: Annotated[
        str | None, typer.Option(help="Probes to audit with: a,b. Fairness, change and membership by default.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    policy: Annotated[str | None, typer.Option(help="What results are held to: a profile or a TOML file.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration file; ./audit.toml where there is one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; the same seed gives the same models.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Memory for each process, such as 8GiB.")] = None,
    max_seconds: Annotated[float, typer.Option(help="Seconds for making each model.")] = 3600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
    debug: Debug = False,
) -> int:
    """Make one new model for each value of an option, audit all of them, and weigh accuracy, gaps and leakage.

    Says which are shown to be less discriminatory alternatives to the present model. What is finished in --out is kept,
    so that an interrupted sweep goes on. Exit codes: 0 an alternative is shown, 3 none is, which is not a pass.
    """
    from cli.mitigate import parse_settings
    from cli.options import configure
    from cli.tradeoff import Asked, run_tradeoff

    flags = {
        "model": model, "data": data, "train": train, "target": target, "positive": positive, "sensitive": sensitive,
        "text": text, "image": image, "probes": probes, "policy": policy, "out": str(out), "seed": seed,
        "device": device, "max_memory": max_memory, "error_rate": error_rate,
    }  # fmt: skip
    return run_tradeoff(
        name,
        configure(flags, config, set_ or []),
        sweep,
        parse_settings(with_ or []),
        Asked.of(metric, disparity, tolerance),
        max_seconds=max_seconds,
        quiet=quiet,
    )


@command("init")
def init(
    data: Annotated[Path, typer.Argument(help="A data file to take the column names from.")],
    out: Annotated[Path, typer.Option(help="Where to write the configuration.")] = Path("audit.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    debug: Debug = False,
) -> None:
    """Write a commented audit.toml that fits a data file."""
    from cli.init import write_config

    write_config(data, out, force=force)
    typer.echo(f"Wrote {out}. Read it, correct it, then: auditor scan MODEL")


@command("version")
def version() -> None:
    """Print the version."""
    typer.echo(f"auditor {__version__}")


command("new-probe")(new_probe)
command("train")(train_command)
command("detect")(detect)
command("detect-train")(detect_train)
command("dp-budget")(dp_budget)
command("dp-audit")(dp_audit)
command("dp-lint")(dp_lint)
command("keygen")(keygen)
command("verify")(verify)
command("reproduce")(reproduce)
command("register")(register)
command("dossier")(dossier)
command("history")(history)
command("signoff")(signoff)


if __name__ == "__main__":
    app()
