"""The command line: one function per command."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from auditor.core.errors import AuditorError
from auditor.core.writable_paths import of_a_command
from auditor.report.record.report_formats import FORMATS
from auditor.run import __version__
from auditor.run.scan_options import flags
from cli.audit_plan import register
from cli.detect import detect
from cli.detect_calibrate import detect_calibrate
from cli.detect_compare import detect_compare
from cli.detect_train import detect_train
from cli.dp_guarantee import dp_budget, dp_lint
from cli.endpoint import endpoint
from cli.export import export
from cli.flags import (
    OF_A_FOLDER,
    RECORD,
    AsJson,
    BundleTo,
    Debug,
    DryRun,
    JsonAlone,
    PriceIn,
    PriceOut,
    Publish,
    Quiet,
    ShowConfig,
    SignWith,
    TimestampBy,
    Writes,
    guarded,
    parse_architecture_args,
    with_flags,
)
from cli.help_pages import EXAMPLES, PANELS, Command, Group, Root
from cli.history import Db, history, signoff
from cli.portfolio import due, findings, site
from cli.probe_power import self_test
from cli.reproduce import reproduce
from cli.rule_packs import dossier, policies
from cli.scan_data import scan_data
from cli.signed_outputs import sealed
from cli.starter_files import examples, new_mitigation, new_probe
from cli.train import train as train_command
from cli.training_attacks import dp_audit, gradient_inversion
from cli.verify import keygen, verify

P = ParamSpec("P")

app = typer.Typer(
    name="auditor",
    cls=Root,
    help="Audit a machine-learning model: fairness, explanations, privacy, robustness.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_GROUPS: dict[str, typer.Typer] = {}
# Each function by its words after ``auditor``.
FUNCTIONS: dict[str, Callable[..., object]] = {}

Config = Annotated[
    str | None, typer.Option(help="Configuration file; without it ./audit.toml may only select what is measured.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print every finding with its reason, notes and rule packs.")]
OneOrAll = Annotated[str | None, typer.Argument(help="One by its name; all by default.", show_default=False)]
Margin = Annotated[float, typer.Option(help="Non-inferiority margin: accepted loss of accuracy.")]

# What a mitigation and its audits are told alike.
_OF_MITIGATIONS = (
    "train", "data", "target", "positive", "sensitive", "bins", "cluster", "weight",
    "cluster_at_most", "weight_at_most", "copies_are_real", "text", "image",
    "probes", "policy", "seed", "device", "max_memory", "allow_unsandboxed", "executor", "address",
)  # fmt: skip
# What says of a file that is no bundle how it is to be read, and where groups stand that its rows have not.
_OF_ANY_MODEL = (
    "sensitive_file", "join_on", "features", "classes", "outputs", "threshold", "base", "architecture",
    "architecture_args", "predict", "allow_code", "trust_pickle",
)  # fmt: skip

INTERNAL_ERROR = 70  # EX_SOFTWARE of sysexits.h


def _asks_for_debug() -> bool:
    return "--debug" in sys.argv


def _complain(message: str, *, debug: bool) -> None:
    from auditor.report.record.number_text import visible

    if debug:
        traceback.print_exc()
    typer.echo(f"auditor: {visible(message)}", err=True)


def _interrupted() -> typer.Exit:
    typer.echo("auditor: interrupted; nothing half-written is left behind.", err=True)
    return typer.Exit(130)


def _group(name: str, words: str) -> typer.Typer:
    group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.add_typer(group, name=name, help=words)
    return group


def command(name: str) -> Callable[[Callable[P, int | None]], Callable[P, None]]:
    """Register a function as a guarded command with one-sentence errors and its result as exit code.

    ``name``: its words, such as ``dp audit``.
    """

    def register(handler: Callable[P, int | None]) -> Callable[P, None]:
        function = guarded(handler)

        @functools.wraps(function)
        def run_command(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                code = function(*args, **kwargs)
            except AuditorError as error:
                _complain(f"{error} [{error.code}]" if error.code else str(error), debug=bool(kwargs.get("debug")))
                raise typer.Exit(error.exit_code) from None
            except (KeyboardInterrupt, typer.Abort):
                raise _interrupted() from None
            except BrokenPipeError:
                sys.stderr.close()
                raise typer.Exit(141) from None
            except (typer.Exit, SystemExit):
                raise
            except Exception as error:  # a defect of ours: no traceback, and no exit code that means a verdict
                what = f"{type(error).__name__}: {error}"
                # pydantic makes an error of its own of an interrupt that comes while it builds a model.
                if KeyboardInterrupt.__name__ in what:
                    raise _interrupted() from None
                _complain(f"internal error; please report it with what --debug shows: {what}", debug=_asks_for_debug())
                raise typer.Exit(INTERNAL_ERROR) from None
            raise typer.Exit(code or 0)

        FUNCTIONS[name] = run_command
        group, _, own = name.partition(" ")
        _GROUPS.get(group, app).command(own or group, cls=Command)(run_command)
        return run_command

    return register


_GROUPS |= {
    name: _group(name, words)
    for panel in PANELS.values()
    for name, words in panel.items()
    if any(each.startswith(f"{name} ") for each in EXAMPLES)
}


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"auditor {__version__}")
        raise typer.Exit


# Help as wide as the terminal, up to what can be read.
@app.callback(context_settings={"max_content_width": 120})
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


@command("scan")
@with_flags(list(flags()))
def scan(
    flag_values: dict[str, object],
    model: Annotated[str | None, typer.Argument(help=flags()["model"].help, show_default=False)] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    config: Config = None,
    publish: Publish = None,
    verbose: Verbose = False,
    show_config: ShowConfig = False,
    dry_run: DryRun = False,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    debug: Debug = False,
) -> int:
    """Audit a model: measure, judge, write a report.

    Exit codes: 0 all judged findings passed, 1 at least one FAILed, 2 wrong usage, 3 nothing failed but something is
    inconclusive or could not run, 4 the model or the data were refused.
    """
    flag_values |= {"model": model, "architecture_args": parse_architecture_args(flag_values["architecture_args"])}
    if show_config or dry_run or (price_in, price_out) != (None, None):
        from cli.print_call_plan import print_plan

        return print_plan(flag_values, config, set_ or [], None if show_config else (price_in, price_out))
    return _audit(flag_values, config, set_ or [], publish=publish or [], verbose=verbose, debug=debug)


def _audit(
    flag_values: dict[str, object],
    config: str | None,
    settings: list[str],
    *,
    publish: Sequence[str] = (),
    verbose: bool = False,
    debug: bool,
) -> int:
    from auditor.loading.sandbox.measuring_process import measuring_process

    # Before all else that is imported here: it imports meanwhile.
    with measuring_process() as waiting:
        from cli.scan import scan as run_scan
        from cli.scan_request import configure

        configured = configure(flag_values, config, settings)
        return run_scan(
            configured,
            waiting,
            publish=publish,
            verbose=verbose,
            debug=debug or configured.options.debug,
        )


@command("probes")
def probes(name: OneOrAll = None, json_: AsJson = False) -> None:
    """List the probes, or show the metrics and options of one."""
    from cli.probe_tables import print_probe, print_probes

    print_probes(as_json=json_) if name is None else print_probe(name, as_json=json_)


@command("mitigate list")
def mitigations(name: OneOrAll = None, json_: AsJson = False) -> None:
    """List the mitigations, or show what one needs and what it was shown to do."""
    from cli.probe_tables import print_mitigations

    print_mitigations(name, as_json=json_)


@command("report")
def report(
    run: Annotated[Path, typer.Argument(help="A report.json, its folder, or an audit.zip."), OF_A_FOLDER],
    format_: Annotated[str, typer.Option("--format", help=f"Formats to write: {FORMATS}.")] = "html",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into; the report's folder by default."), Writes(itself=True)
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder to write all figures into, as files."), Writes(itself=True)
    ] = None,
    figure_format: Annotated[str, typer.Option(help="File formats of the figures: svg,png.")] = "svg",
    lang: Annotated[
        str | None,
        typer.Option(help="Language of the rendering, if not the record's: en, de or a catalogue FILE.toml."),
    ] = None,
    pdf_certificate: Annotated[
        Path | None, typer.Option(help="Sign the PDF with this private key and its X.509 certificate, PEM or PKCS 12.")
    ] = None,
    pdf_password_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the password of --pdf-certificate.")
    ] = None,
    finding: Annotated[
        str | None, typer.Option(help="Print the source of the number with this id, instead of a rendering.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Render a recorded audit again, without model, data or torch."""
    from auditor.report.record.report_formats import known_formats
    from cli.recorded_audits import consistent
    from cli.report_outputs import catalogue_of, claim_report, known_figure_formats, write_figures, write_report
    from cli.signed_outputs import seal_of
    from cli.terminal import print_trace

    if finding is not None:
        print_trace(consistent(run), finding)
        return
    formats, drawn_as = known_formats(format_.split(",")), known_figure_formats(figure_format.split(","))
    folder, read = out or (run if run.is_dir() else run.parent), run / RECORD if run.is_dir() else run
    if "json" in formats and read.exists() and (folder / RECORD).exists() and read.samefile(folder / RECORD):
        formats.remove("json")  # the record is there as it is
    say, seal = catalogue_of(lang, formats), seal_of(pdf_certificate, pdf_password_env, formats)
    claim_report(folder, formats)
    record = consistent(run)
    drawn = write_figures(record, figures, drawn_as) if figures is not None else []
    for path in [*write_report(record, folder, formats, say, seal), *drawn]:
        typer.echo(path)


@command("report publish")
def publish_(
    run: Annotated[Path, typer.Argument(help="A report.json, its folder, or an audit.zip."), OF_A_FOLDER],
    to: Annotated[
        list[str],
        typer.Option(
            help="Destination: dir:FOLDER, mlflow[:EXPERIMENT], wandb[:PROJECT] or hf:REPOSITORY; repeat for more."
        ),
    ],
    debug: Debug = False,
) -> None:
    """Publish a recorded audit: to a folder, MLflow, Weights & Biases or the Hugging Face hub."""
    from cli.recorded_audits import publish_recorded

    publish_recorded(run, to)


@command("compare")
def compare(
    before: Annotated[
        Path, typer.Argument(help="The earlier report.json, its folder, audit.zip or history:NUMBER."), OF_A_FOLDER
    ],
    after: Annotated[
        Path, typer.Argument(help="The later one, preferably made with the earlier model as --reference."), OF_A_FOLDER
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for comparison.html, .json and .md."), Writes(itself=True)
    ] = None,
    error_rate: Annotated[
        float, typer.Option(help="Family-wise error rate, for 'better' and for 'worse' separately.")
    ] = 0.05,
    margin: Margin = 0.02,
    db: Db = None,
    bundle: BundleTo = None,
    sign: SignWith = None,
    timestamp: TimestampBy = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Compare two recorded audits: improvements, regressions, and whether the model is useful.

    Exit codes: 0 unchanged, or better and useful: a significant improvement, and accuracy significantly not lower by
    more than --margin; 1 something now FAILs its criterion that did not before, or the model is not useful; 3 neither
    is shown. A deterioration within the criterion is reported, without exit code 1.
    """
    from cli.compare import compare_reports

    evidence = sealed(bundle, sign, timestamp)
    return compare_reports(
        before, after, out, error_rate=error_rate, margin=margin, db=db, evidence=evidence, verbose=verbose
    )


@command("gate")
def gate(
    reports: Annotated[list[Path], typer.Argument(help="A report.json, its folder, or an audit.zip; or several.")],
    allow_inconclusive: Annotated[
        list[str] | None,
        typer.Option(help="Pillar or probe whose INCONCLUSIVE findings exit 0 instead of 3; repeat for more."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Audit of the model in use: only new FAILs and what got worse since count."),
        OF_A_FOLDER,
    ] = None,
    accepted: Annotated[
        list[Path] | None,
        typer.Option(help="Public key whose unexpired acceptances in the history count as passed; repeat for more."),
    ] = None,
    db: Db = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Let a pipeline continue only if recorded audits passed.

    Exit codes: as of the scan, recomputed from the findings, the worst of all reports; 4 if a record contradicts
    itself. With --baseline, 1 is for what FAILs and did not there, and for what is shown to be worse than there and is
    not shown to meet its criterion; 3 for what was settled there and is open now, or was left out.
    """
    from cli.pipeline_gate import Tolerance, gate_reports

    tolerance = Tolerance.from_flags(baseline, accepted or (), db) if baseline or accepted or db else None
    return gate_reports(reports, waivers=tuple(allow_inconclusive or ()), tolerance=tolerance, verbose=verbose)


@command("mitigate")
@with_flags(
    [*_OF_MITIGATIONS, *_OF_ANY_MODEL, "benchmark"],
    {
        "train": "Training rows for the mitigation.",
        "data": "Rows on which both models are audited.",
        "probes": "Probes to audit with: a,b. All that apply by default.",
        "policy": "Acceptance criteria: a profile or a TOML file.",
        "seed": "Seed; the same seed gives the same model.",
        "max_memory": "Memory limit of each process, such as 8GiB.",
    },
)
def mitigate(
    flag_values: dict[str, object],
    name: Annotated[str, typer.Argument(help="A mitigation; see: auditor mitigate list.")],
    model: Annotated[str, typer.Argument(help="The model to improve.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Output path of the new model; by default ./fairer with the file extension of the present one.",
            show_default=False,
        ),
        Writes(itself=True),
    ] = None,
    with_: Annotated[list[str] | None, typer.Option("--with", help="Option of the mitigation: option=value.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    config: Config = None,
    report: Annotated[
        str, typer.Option(help="Folder for the comparison and the two audits."), Writes(itself=True)
    ] = "audit-report",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder, from which an interrupted training resumes."),
        Writes(itself=True),
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for the mitigation.")] = 3600.0,
    margin: Margin = 0.02,
    bundle: BundleTo = None,
    sign: SignWith = None,
    timestamp: TimestampBy = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Make a new model from an old one, audit both on the same rows, and report the changes.

    The exit code is that of the new model's audit: 0 passed, 1 something FAILs, 3 not shown, 4 refused. The first lines
    say how many FAILs are fixed, what still fails, and what a smaller gap costs.
    """
    from cli.mitigate import parse_settings, run_mitigation
    from cli.scan_request import configure

    return run_mitigation(
        name,
        configure(flag_values | {"model": model, "out": report}, config, set_ or []),
        parse_settings(with_ or []),
        out,
        checkpoint=checkpoint, max_seconds=max_seconds, margin=margin,
        evidence=sealed(bundle, sign, timestamp), quiet=quiet, verbose=verbose,
    )  # fmt: skip


@command("explain")
@with_flags(
    [
        "data", "query", "target", "positive", "sensitive", "bins", "sensitive_file", "join_on", "features", "text",
        "task", "classes", "outputs", "lang", "threshold", "seed", "device", "max_memory", "max_seconds", "base",
        "architecture", "architecture_args", "predict", "allow_code", "trust_pickle", "allow_unsandboxed",
    ],
    {
        "data": "The row and other rows for comparison: a table, or a database's URL with --query.",
        "target": "Column with the true labels, excluded from the features.",
        "sensitive": "Column of a sensitive feature, which recourse never changes; repeat for more.",
        "seed": "Seed; the same seed gives the same explanation.",
        "max_seconds": "Time limit in seconds for loading, and for each row.",
    },
)  # fmt: skip
def explain(
    flag_values: dict[str, object],
    model: Annotated[str | None, typer.Argument(help=flags()["model"].help, show_default=False)] = None,
    row: Annotated[list[int] | None, typer.Option(help="Row, counted from 1 without the header; repeatable.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Row by a value: id=17, or missing: id=; repeatable.")] = None,
    immutable: Annotated[str | None, typer.Option(help="Columns that recourse must not change: age,sex.")] = None,
    monotone: Annotated[
        str | None, typer.Option(help="Allowed direction of change for recourse: income=up,debt=down.")
    ] = None,
    reasons: Annotated[int, typer.Option(help="Maximum number of reasons per row.")] = 4,
    recourses: Annotated[int, typer.Option(help="Maximum number of recourse changes per row.")] = 3,
    budget: Annotated[int, typer.Option(help="Maximum number of model queries for recourse, per row.")] = 20_000,
    draws: Annotated[int | None, typer.Option(help="Number of background samples; 100, or 20 for a text.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for explanation.html and .json."), Writes(itself=True)
    ] = None,
    config: Config = None,
    json_: JsonAlone = False,
    debug: Debug = False,
) -> int:
    """Explain the decisions on rows: reasons, changes that would alter them, and nearest rows.

    Exit codes: 0 every row has faithful reasons and, if its decision is unfavourable, changes that are proven to
    flip it, 2 wrong usage, 3 reasons were refused or no such change was found, 4 the model or the data were refused.
    """
    from cli.explain import Asked, explain_rows
    from cli.scan_request import configure

    arguments = parse_architecture_args(flag_values["architecture_args"])
    asked = Asked.from_flags(
        row or [], where or [], immutable, monotone, reasons=reasons, recourses=recourses, budget=budget, draws=draws
    )
    configured = configure(flag_values | {"model": model, "architecture_args": arguments}, config, [])
    return explain_rows(configured, asked, out, as_json=json_, debug=debug)


@command("tradeoff")
@with_flags(
    [*_OF_MITIGATIONS, "features", "classes", "outputs", "threshold", "error_rate"],
    {
        "train": "Training rows for the mitigation.",
        "data": "Rows on which all models are audited.",
        "probes": "Probes to audit with: a,b. Fairness, change and membership by default.",
        "policy": "Acceptance criteria: a profile or a TOML file.",
        "seed": "Seed; the same seed gives the same models.",
        "max_memory": "Memory limit of each process, such as 8GiB.",
        "error_rate": "Family-wise error rate of all alternatives.",
        "executor": "Where to train the models and shadow models: local or ray.",
    },
)
def tradeoff(
    flag_values: dict[str, object],
    name: Annotated[str, typer.Argument(help="A mitigation; see: auditor mitigate list.")],
    model: Annotated[str, typer.Argument(help="The present model, which is included as a point.")],
    sweep: Annotated[list[str], typer.Option(help="Values of an option: alpha=0,0.1,1; repeat for a grid.")],
    out: Annotated[
        Path, typer.Option(help="Folder for every model, its audit, and the trade-off."), Writes(itself=True)
    ],
    with_: Annotated[list[str] | None, typer.Option("--with", help="Fixed option: option=value.")] = None,
    metric: Annotated[
        str, typer.Option(help="accuracy, balanced_accuracy, true_positive_rate, or another metric with ideal value 1.")
    ] = "accuracy",
    disparity: Annotated[str, typer.Option(help="Disparity metric to reduce.")] = "demographic_parity_difference",
    tolerance: Annotated[
        float, typer.Option(help="Non-inferiority margin of the metric: 0.01 is one percentage point.")
    ] = 0.01,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Option of a probe: probe.option=value.")] = None,
    config: Config = None,
    max_seconds: Annotated[float, typer.Option(help="Time limit in seconds for each model.")] = 3600.0,
    bundle: BundleTo = None,
    sign: SignWith = None,
    timestamp: TimestampBy = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Make one new model for each value of an option, audit all, and compare accuracy, gaps and leakage.

    Lists models shown to be less discriminatory alternatives to the present one. Finished models in --out
    are kept, so that an interrupted sweep resumes. Exit codes: 0 an alternative is shown; 1 every new model is not
    useful, or FAILs a criterion that the present one does not; 3 no alternative is shown, which is not a pass.
    """
    from cli.mitigate import parse_settings
    from cli.scan_request import configure
    from cli.tradeoff import Asked, run_tradeoff

    return run_tradeoff(
        name,
        configure(flag_values | {"model": model, "out": str(out)}, config, set_ or []),
        sweep,
        parse_settings(with_ or []),
        Asked.from_flags(metric, disparity, tolerance),
        max_seconds=max_seconds,
        evidence=sealed(bundle, sign, timestamp),
        quiet=quiet,
    )


@command("start")
@with_flags(["target", "positive", "sensitive"])
def start(
    flag_values: dict[str, object],
    files: Annotated[list[str], typer.Argument(help="The model and a file of rows, or the rows alone.")],
    out: Annotated[Path, typer.Option(help="Where to write the configuration."), Writes(own=False)] = Path(
        "audit.toml"
    ),
    debug: Debug = False,
) -> int:
    """Ask for the labels, the favourable one and the groups, write an audit.toml, and run the first audit.

    Without a model it writes the audit.toml alone. Without a terminal to ask on, the flags answer.
    Exit codes: as of scan; 0 if only the configuration is written.
    """
    from cli.start import is_interactive, print_next_commands, write_config

    if not write_config(files, out, flag_values):
        print_next_commands(files, out)
        return 0
    # From here on it is a scan, which reads what was written: the record tells how to run that again.
    sys.argv[1:] = ["scan", "--config", str(out)]
    with of_a_command(force=False):
        code = _audit({}, str(out), [], debug=debug)
    page = Path("audit-report", "report.html")
    if is_interactive() and page.exists() and typer.confirm("Open the report?", default=True):
        typer.launch(str(page))
    return code


command("scan-data")(scan_data)
command("probes examples")(examples)
command("probes new")(new_probe)
command("mitigate new")(new_mitigation)
command("train")(train_command)
command("export")(export)
command("detect")(detect)
for _words, _of_detect in (("train", detect_train), ("calibrate", detect_calibrate), ("compare", detect_compare)):
    command(f"detect {_words}")(_of_detect)
command("dp budget")(dp_budget)
command("dp audit")(dp_audit)
command("dp lint")(dp_lint)
command("dp inversion")(gradient_inversion)
command("evidence keygen")(keygen)
command("evidence verify")(verify)
command("evidence reproduce")(reproduce)
command("evidence register")(register)
command("policy")(policies)
command("policy dossier")(dossier)
command("history")(history)
command("history sign-off")(signoff)
for _words, _of_history in (("site", site), ("findings", findings), ("due", due)):
    command(f"history {_words}")(_of_history)
command("probes endpoint")(endpoint)
command("probes self-test")(self_test)


if __name__ == "__main__":
    app()
