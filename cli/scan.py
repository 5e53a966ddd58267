"""``auditor scan``: from a model file to a report and an exit code."""

from __future__ import annotations

import inspect
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TypeVar

import typer

from auditor.data.bins import parse_bin_rule
from auditor.errors import AuditorError, ConfigError, UsageError, did_you_mean
from auditor.evidence.passwords import without_passwords
from auditor.evidence.registration import with_what_became
from auditor.files import UNREADABLE, check_writable, why_unreadable, write_beside
from auditor.finding.judging import Family
from auditor.finding.measurement import Pillar
from auditor.intake.specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec
from auditor.report.controls import with_policies
from auditor.report.record import INTAKE, AuditReport, DataRecord, ModelRecord
from auditor.run.audit import assemble, environment
from auditor.run.isolate import Measured, last_lines, measure
from auditor.run.plugins import known_probes, probe_target
from auditor.run.probe import make_probe
from cli.evidence import check_flags, start_log, write_evidence
from cli.history import decisions_on, open_ledger, record_audit
from cli.options import Configured, ScanOptions
from cli.output import print_report, stages
from cli.register import followed, opened
from cli.rendering import FILE_NAMES, known_formats, render
from probes import PROBES

_R = TypeVar("_R", ModelRecord, DataRecord)


def scan(configured: Configured, *, as_json: bool, quiet: bool, debug: bool) -> int:
    """Runs the scan and writes its reports; returns the exit code."""
    began, started = datetime.now(UTC), time.perf_counter()
    signal.signal(signal.SIGTERM, _terminated)
    options = configured.options
    formats = known_formats(options.format)
    out = Path(options.out)
    check_writable(out, "Name another folder with --out.")
    check_flags(options)
    if options.db is not None and not options.history:
        raise UsageError("--db says where the history lies: add --history to append to it.")
    if options.history:
        open_ledger(options.db, create=True).close()
    registration = opened(options.registration)
    job = build_job(configured)
    registered = followed(registration, configured, began)
    log = start_log(job)
    own, waits = pillars(), _workloads(job)
    with stages(not (quiet or as_json)) as shown:
        shown.total = len(job.probes) + 2

        def on_stage(stage: str) -> None:
            log.add("stage", stage=stage)
            shown(waits.get(stage, stage))

        measured = measure(job, own, on_stage=on_stage)
    if debug and measured.log.strip():
        typer.echo(last_lines(measured.log, 200), err=True)
    report = make_report(configured, job, measured, time.perf_counter() - started)
    if registered is not None:
        planned = [spec.name for spec in job.probes]
        refused = report.refusal is not None
        told = with_what_became(registered, report.findings, refused=refused, planned=planned)
        report = report.model_copy(update={"registration": told})
    ledger_error: AuditorError | None = None
    if options.history:
        try:
            report = report.model_copy(update={"decisions": decisions_on(report, options.db)})
        except AuditorError as error:
            # The audit is done and is written, whatever became of its history.
            ledger_error = type(error)(f"{error} This audit was not entered; its reports are written.")
    written = write_report(report, out, list(dict.fromkeys(["json", *formats])))
    _drop_stale(out, written)
    unwritten: AuditorError | None = None
    if options.bundle is not None:
        try:
            written.append(write_evidence(configured, job, measured, report, log))
        except AuditorError as error:
            unwritten = error
    entered = None
    if options.history and ledger_error is None:
        try:
            entered = record_audit(report, options.db, options.bundle)
        except AuditorError as error:
            ledger_error = type(error)(f"{error} This audit was not entered; its reports are written.")
    try:
        if sys.stdout is None:
            pass
        elif as_json:
            sys.stdout.write(report.to_json())
            sys.stdout.flush()
        elif not quiet:
            print_report(report, written)
            if entered is not None:
                typer.echo(f"history {entered}")
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # The reports are written and the verdict stands, whether or not anybody can be told.
        typer.echo(f"auditor: standard output cannot be written: {error.strerror}.", err=True)
    # The verdict is printed and the report kept; what could not be written beside them decides the exit code.
    for failure in (unwritten, ledger_error):
        if failure is not None:
            raise failure
    return report.exit_code


def _terminated(number: int, frame: FrameType | None) -> None:
    """Ends like an interrupt does, so that the child and its scratch folder are cleared away."""
    raise SystemExit(128 + number)


def build_job(configured: Configured) -> Job:
    """The job a scan comes to; raises UsageError where flags contradict each other or name what is not there."""
    options = configured.options
    if options.model is None and options.predict is None:
        raise UsageError("Name a model: auditor scan MODEL, or --predict package.module:function.")
    data_flags = ("train", "target", "positive", "sensitive_file", "join_on", "text", "image")
    if options.data is None:
        given = [name for name in data_flags if getattr(options, name) is not None] + ["sensitive"] * bool(
            options.sensitive
        )
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} says something about data: add --data FILE.")
    return Job(
        model=_model_spec(options),
        data=None if options.data is None else _data_spec(options),
        probes=tuple(probe_specs(configured)),
        seed=options.seed,
        limits=Limits(memory_bytes=options.max_memory, seconds=options.max_seconds),
        evidence=None if options.bundle is None else "rows" if options.include_rows else "scores",
    )


def _model_spec(options: ScanOptions) -> ModelSpec:
    own_code = [options.architecture, options.predict, *options.probe]
    return ModelSpec(
        path=None if options.model is None else str(_existing(options.model, "model")),
        task=options.task,
        classes=options.classes,
        outputs=options.outputs,
        threshold=options.threshold,
        architecture=options.architecture,
        architecture_args=options.architecture_args,
        predict=options.predict,
        allow_code=options.allow_code,
        trust_pickle=options.trust_pickle,
        features=options.features,
        device=options.device,
        code_folder=str(Path.cwd()) if any(name and ":" in name for name in own_code) else None,
    )


def _data_spec(options: ScanOptions) -> DataSpec:
    side, train = options.sensitive_file, options.train
    _check_bins(options)
    return DataSpec(
        path=str(_existing(str(options.data), "data file")),
        train=None if train is None else str(_existing(train, "training file")),
        target=options.target,
        positive=options.positive,
        sensitive=options.sensitive,
        bins=options.bins,
        sensitive_file=None if side is None else str(_existing(side, "sensitive file")),
        join_on=options.join_on,
        features=options.features,
        text=options.text,
        image=options.image,
        classes=options.classes,
    )


def _check_bins(options: ScanOptions) -> None:
    for rule in options.bins:
        column = parse_bin_rule(rule).column
        if column not in options.sensitive:
            raise UsageError(f"--bins {rule!r} is about no sensitive feature: add --sensitive {column}.")


def _existing(path: str, what: str) -> Path:
    where = Path(path)
    if not where.exists():
        folder = where.parent
        near = did_you_mean(where.name, (p.name for p in folder.iterdir())) if folder.is_dir() else ""
        raise UsageError(f"There is no {what} at {path!r}{near or '.'}")
    return where.resolve()


def probe_specs(configured: Configured) -> list[ProbeSpec]:
    """The probes that a scan asks, with their options. Raises UsageError or ConfigError."""
    chosen = [name.replace("-", "_") for name in configured.options.probes or PROBES]
    others = known_probes(PROBES)
    targets = {name: probe_target(name, PROBES, others) for name in chosen}
    specs = []
    benchmarks = _benchmarks(configured.options)
    for name in dict.fromkeys(chosen):
        options = dict(configured.probe_options.get(name, {}))
        if name not in PROBES:
            # Somebody else's code is imported by the measuring process alone, which checks the options too.
            specs.append(ProbeSpec(name=name, target=targets[name], options=options))
            continue
        kind = PROBES[name]
        if name in benchmarks:
            options.setdefault("benchmarks", {name: benchmarks[name]})
        for flag, path in (("scorer", configured.options.scorer), ("reference", configured.options.reference)):
            if path is not None and flag in inspect.signature(kind).parameters:
                options.setdefault(flag, str(_existing(path, flag)))
        make_probe(kind, options)
        specs.append(ProbeSpec(name=name, target=targets[name], options=options))
    for target in configured.options.probe:
        module, colon, attribute = target.partition(":")
        if attribute in {spec.name for spec in specs} | {INTAKE}:
            raise UsageError(f"Two probes are named {attribute!r}: rename the class in --probe {target!r}.")
        if not (module and colon and attribute):
            raise UsageError(f"--probe {target!r} must look like package.module:Class.")
        specs.append(ProbeSpec(name=attribute, target=target, options=configured.probe_options.get(attribute, {})))
    known = {spec.name for spec in specs} | {*PROBES, *others}
    for name in configured.probe_options:
        if name not in known:
            raise ConfigError(
                f"Options are given for a probe {name!r} that does not exist{did_you_mean(name, known) or '.'}"
            )
    return specs


def _benchmarks(options: ScanOptions) -> dict[str, str]:
    """Benchmark files by the name of the probe that reads them."""
    known = [name for name, kind in PROBES.items() if "benchmarks" in inspect.signature(kind).parameters]
    found = {}
    for text in options.benchmark:
        name, equals, path = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in known:
            near = did_you_mean(name, known) or "."
            raise UsageError(f"--benchmark {text!r} must look like NAME=PATH{near} Known names: {', '.join(known)}.")
        found[name] = str(_existing(path, "benchmark file"))
    return found


def pillars() -> dict[str, tuple[Pillar, str]]:
    return {name: (kind.pillar, kind.citation) for name, kind in PROBES.items()}


def _workloads(job: Job) -> dict[str, str]:
    """What the progress line says of probes that take long, by name."""
    found = {}
    for spec in job.probes:
        if spec.name in PROBES:
            workload = getattr(make_probe(PROBES[spec.name], spec.options), "workload", "")
            if workload:
                found[spec.name] = f"{spec.name}: {workload}"
    return found


def make_report(configured: Configured, job: Job, measured: Measured, seconds: float) -> AuditReport:
    """The judged record of what the children measured, or of why they could not."""
    options = configured.options
    limits = {
        "memory": f"{job.limits.memory_bytes / 2**30:.1f} GiB",
        "seconds per probe": f"{job.limits.seconds:g}",
        "process": "child process with limits on memory, time, file size and open files"
        if sys.platform == "linux"
        else "child process; this platform enforces no memory limit",
    }
    report = assemble(
        measured.results,
        configured.criteria,
        model=_as_typed(
            measured.model or ModelRecord(format="not loaded", loaded_by="nothing"), {"path": options.model}
        ),
        data=_as_typed(measured.data or _unread(job.data), {"path": options.data, "train_path": options.train}),
        environment=environment(
            device=measured.device,
            seed=options.seed,
            limits=limits,
            command=without_passwords(shlex.join(["auditor", *sys.argv[1:]])),
        ),
        family=Family(error_rate=options.error_rate, multiplicity=options.multiplicity),
        refusal=measured.refusal,
        allow_inconclusive=options.allow_inconclusive,
        duration_s=seconds,
    )
    return with_policies(report, configured.policies, options.as_of or datetime.now(UTC).date())


def _as_typed(record: _R, paths: dict[str, str | None]) -> _R:
    """The record with paths as the user wrote them: the same on every machine, and telling nothing of this one."""
    return record.model_copy(update={name: path for name, path in paths.items() if path is not None})


def _unread(spec: DataSpec | None) -> DataRecord:
    if spec is None:
        return DataRecord()
    return DataRecord(path=spec.path, target=spec.target, sensitive=spec.sensitive, train_path=spec.train)


# ---- writing -------------------------------------------------------------------------------------------------------


def _drop_stale(out: Path, written: list[str]) -> None:
    """A rendering of an earlier run must not lie beside this one's as if it were of the same audit."""
    for name in FILE_NAMES.values():
        if str(out / name) not in written:
            (out / name).unlink(missing_ok=True)


def write_report(report: AuditReport, out: Path, formats: list[str]) -> list[str]:
    """Renders every format, then writes each beside and renames it; if that fails, the record is kept elsewhere."""
    try:
        drawn = [(out / FILE_NAMES[name], render(report, name)) for name in formats]
        for path, content in drawn:
            write_beside(path, content)
    except Exception as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        raise UsageError(f"The report could not be written into {str(out)!r} ({why}); {_rescued(report)}.") from None
    return [str(path) for path, _ in drawn]


def _rescued(report: AuditReport) -> str:
    """Where the record lies that could not be written where it should."""
    rescue = Path(tempfile.gettempdir())
    try:
        rescue = Path(tempfile.mkdtemp(prefix="auditor-rescued-")) / "report.json"
        write_beside(rescue, report.to_json().encode())
        return f"the record lies in {rescue}"
    except (OSError, AuditorError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        if rescue.name == "report.json":
            rescue.parent.rmdir()
        return (
            f"nor could the record be kept in {str(Path(tempfile.gettempdir()))!r} ({why}): make room and run it again"
        )


def parse_json_flag(text: str | None, flag: str) -> Mapping[str, object] | None:
    """A flag that holds a JSON object."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except UNREADABLE as error:
        raise UsageError(f"{flag} is no JSON: {why_unreadable(error)}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{flag} must be a JSON object, such as '{{\"hidden\": [64, 32]}}'.")
    return value
