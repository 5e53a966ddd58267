"""A scan: from options to a job, measured in a separate process, and from its answers to a record."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import JsonValue

from auditor.core.errors import ConfigError, MissingExtraError, ModelError, UsageError, did_you_mean
from auditor.core.files import table_place
from auditor.data.bins import parse_bin_rule
from auditor.judging.budgets import Family
from auditor.judging.input_files import Roles
from auditor.judging.judgement import waived_name
from auditor.judging.measurement import Pillar, ProbeResult
from auditor.judging.planting import Planting
from auditor.judging.policy import Policy
from auditor.loading.job_specs import DataSpec, Job, Limits, ModelSpec, ProbeSpec, RecordedSpec
from auditor.loading.rows.sql import fetch, is_database, printable_url
from auditor.loading.sandbox.measuring_process import MeasuringProcess, scratch_folder
from auditor.models.endpoint.client import is_endpoint
from auditor.models.endpoint.session import Servers
from auditor.report.record.audit_report import INTAKE, AuditReport, DataRecord, ModelRecord, Refusal
from auditor.report.record.configuration import About, Labels, recorded, stated_groups
from auditor.report.record.controls import with_policies
from auditor.run.job_results import Measured
from auditor.run.model_signature import root_digest, signature_error, signature_note
from auditor.run.parent_process import measure
from auditor.run.plugins import known_probes, probe_target
from auditor.run.probe import Need, Probe, blank_result, make_probe
from auditor.run.run_audit import assemble, environment
from auditor.run.scan_options import Configured, ScanOptions, flags
from auditor.run.scan_servers import refuse_any, servers_at_hand
from auditor.training.meter import Meter
from auditor.training.task_distribution import handed_out

_R = TypeVar("_R", ModelRecord, DataRecord)
# What a scan may ask, by name: handed down, since this floor knows of no probe.
Catalogue = Mapping[str, type[Probe]]


@dataclass(frozen=True)
class Scanned:
    """A finished scan: its record, and the inputs of the record."""

    report: AuditReport
    measured: Measured


def scan(
    config: Configured,
    catalogue: Catalogue,
    *,
    command: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Scanned:
    """Load, measure and judge as configured, in separate processes.

    ``catalogue``: the probes there are, by name. ``command``: how the record says it was started. ``on_stage`` is told
    what is being done. Raises UsageError or ConfigError where what is asked cannot be; a model or data that are refused
    make a record that says so.
    """
    started = time.perf_counter()
    with rows_at_hand(config) as (asked, told), servers_at_hand(config.options, on_stage) as servers:
        job = job_of(asked, catalogue, servers)
        scanned = scan_job(asked, job, catalogue, started, command=command, on_stage=on_stage, servers=servers)
    return replace(scanned, report=told(scanned.report))


@contextmanager
def rows_at_hand(config: Configured) -> Iterator[tuple[Configured, Callable[[AuditReport], AuditReport]]]:
    """The scan with a local file for its database, and a function that restores the database's name in the record.

    The rows are fetched here, because the measuring process has no network. Raises UsageError for a URL without a query
    or a query without one, and what :func:`auditor.loading.rows.sql.fetch` raises.
    """
    options = config.options
    name = "data" if options.predictions is None else "predictions"
    url = getattr(options, name)
    if url is None or not is_database(url):
        if options.query is not None:
            raise UsageError("--query is asked of a database: give its URL, such as --data postgresql://host/name.")
        yield config, lambda report: report
        return
    if options.query is None:
        raise UsageError(f"--{name} is a database: say what is read from it with --query FILE, which holds a SELECT.")
    with scratch_folder() as scratch:
        path = Path(scratch) / "rows.parquet"
        note = fetch(url, options.query, path)

        def add_source(report: AuditReport) -> AuditReport:
            data = report.data.model_copy(update={"path": printable_url(url), "notes": (*report.data.notes, note)})
            return report.model_copy(update={"data": data})

        own = replace(options, data=str(path)) if name == "data" else replace(options, predictions=str(path))
        yield replace(config, options=own), add_source


def scan_job(
    config: Configured,
    job: Job,
    catalogue: Catalogue,
    started: float,
    *,
    command: str | None = None,
    on_stage: Callable[[str], None] | None = None,
    waiting: MeasuringProcess | None = None,
    servers: Servers | None = None,
) -> Scanned:
    """:func:`scan` of an existing job; ``started``: the value of ``time.perf_counter`` at its start."""
    ask = None if servers is None or not (servers.model or servers.judge) else servers.outcomes
    try:
        path = None if is_endpoint(config.options.model) else job.model.path
        signed = signature_note(path, config.options.trust_anchors, config.options.model_signer)
    except ModelError as error:
        return _unsigned(config, job, error, command, started)
    with handed_out(config.options.executor, config.options.address) as tasks, Meter(job.model.device) as meter:
        asked = replace(job, tasks=tasks)
        measured = measure(asked, blank_results(catalogue), on_stage=on_stage, waiting=waiting, meter=meter, ask=ask)
        if config.options.probes is None:
            measured.results = [replace(result, by_default=True) for result in measured.results]
        meter.device = measured.device
        measured.energy = meter.record(measured.results, activity="audit")
    if servers is not None and measured.model is not None:
        notes = (*measured.model.notes, *servers.notes())
        measured.model = measured.model.model_copy(update={"notes": notes})
    if measured.model is not None:
        if signed.file_sha256 not in (None, measured.model.sha256):
            changed = signature_error("the file was changed after it was checked")
            return _unsigned(config, job, changed, command, started)
        root = signed.root or (root_digest(path) if config.options.bundle is not None else None)
        # Of a model with code its own process tells notes, and nothing of its signature.
        own = [note for note in measured.model.notes if not note.startswith("Signature ")]
        measured.model = measured.model.model_copy(update={"notes": (*own, *signed.notes), "root_sha256": root})
    return Scanned(record_of(config, job, measured, command, time.perf_counter() - started), measured)


def _unsigned(config: Configured, job: Job, error: ModelError, command: str | None, started: float) -> Scanned:
    measured = Measured(most=0)
    measured.refusal = Refusal(code="model_refused", reason=str(error), reason_code=error.code)
    return Scanned(record_of(config, job, measured, command, time.perf_counter() - started), measured)


def job_of(config: Configured, catalogue: Catalogue, servers: Servers | None = None) -> Job:
    """The job of a scan, of the model and the judge behind open ``servers`` if any.

    Raises UsageError where options contradict each other or name what is not there.
    """
    options, servers = config.options, servers or Servers()
    _check_predictions(options)
    if options.generate is not None and (options.predict is not None or is_endpoint(options.model)):
        raise UsageError("--generate is the model, and another one is named: leave one of them out.")
    recorded = options.predictions or options.log
    alone = not (options.model or options.predict or recorded or options.generate)
    rows = None
    if options.data is not None or recorded is not None:
        rows = data_spec(options, config.labels, config.roles, config.about)
        rows = replace(rows, recorded=RecordedSpec(rows_alone=True)) if alone else rows
    else:
        refuse_any(options, _OF_DATA, "{flag} says something about data: add --data FILE.")
    return Job(
        model=model_spec(options)
        if servers.model is None
        else ModelSpec(endpoint=servers.model.handshake, device="cpu", code_folder=_code_folder(options)),
        data=rows,
        probes=tuple(probe_specs(config, catalogue)),
        seed=options.seed,
        limits=Limits(memory_bytes=options.max_memory, seconds=options.max_seconds),
        evidence=None if options.bundle is None else "rows" if options.include_rows else "scores",
        recognise=options.history or options.log is not None,
        allow_unsandboxed=options.allow_unsandboxed,
        planting=None if options.no_controls else Planting(config.criteria, _family(options), options.seed).to_json(),
        judge=servers.absent or None if servers.judge is None else servers.judge.handshake,
    )


def _family(options: ScanOptions) -> Family:
    return Family(error_rate=options.error_rate, multiplicity=options.multiplicity)


def model_spec(options: ScanOptions) -> ModelSpec:
    """The model and its loading options.

    Raises UsageError where there is none, or it is behind a URL.
    """
    if is_endpoint(options.model):
        raise UsageError("A model behind a URL is asked by auditor scan, where the URL is typed; this takes files.")
    return ModelSpec(
        **_of_options(ModelSpec, options)
        | {
            "path": None if options.model is None else str(existing_path(options.model, "model")),
            "base": None if options.base is None else str(existing_path(options.base, "base model")),
            "code_folder": _code_folder(options),
        }
    )


def _of_options(spec: type[ModelSpec | DataSpec | RecordedSpec], options: ScanOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options_of(spec)}


def _code_folder(options: ScanOptions) -> str | None:
    named = (options.predict, options.generate, options.architecture, options.embedder)
    own_code = [*named, *options.probe, *options.decoder]
    return str(Path.cwd()) if any(name and ":" in name for name in own_code) else None


def data_spec(
    options: ScanOptions, labels: Labels | None = None, roles: Roles | None = None, about: About | None = None
) -> DataSpec:
    """The roles of the columns and files. Raises UsageError where a file is not there, or --train is --data."""
    side, train, answered = options.sensitive_file, options.train, options.check_predictions
    if answered is not None and options.predictions is not None:
        raise UsageError("--check-predictions holds a model to answers, and --predictions are all there is: leave one.")
    recorded = options.predictions or options.log
    whole = (name for name in ("include_rows", "predictions", "log") if getattr(options, name))
    if options.stream and (flag := "--" + next(whole, "").replace("_", "-")) != "--":
        raise UsageError(f"{flag} needs all rows at once, and --stream counts them one by one: leave one of them out.")
    _check_bins(options)
    spec = DataSpec(
        **_of_options(DataSpec, options)
        | {
            "path": str(existing_path(str(options.data or recorded), "log" if options.log else "data file")),
            "train": None if train is None else str(existing_path(train, "training file")),
            "sensitive_file": None if side is None else str(existing_path(side, "sensitive file")),
            "check_predictions": str(Path(answered).absolute()) if answered and Path(answered).is_file() else answered,
            "recorded": recorded and RecordedSpec(**_of_options(RecordedSpec, options), is_log=options.log is not None),
            "labels": {} if labels is None else dict(labels.words),
            "reference_groups": stated_groups(about, options.sensitive),
            "roles": () if roles is None else roles.keys,
        }
    )
    if options.query is None and (why := spec.why_not_held_out):
        raise UsageError(why)
    if spec.stream and (why := spec.why_not_in_parts):
        raise UsageError(f"--stream: {why}")
    return spec


def options_of(spec: type[ModelSpec | DataSpec | RecordedSpec]) -> list[str]:
    """The options that a spec holds: its fields that are called as one."""
    return [each.name for each in fields(spec) if each.name in flags()]


_OF_PREDICTIONS = options_of(RecordedSpec)
# Columns and classes are said of the model too, and bins are checked against what is sensitive.
_OF_DATA = [name for name in options_of(DataSpec) if name not in ("features", "classes", "bins")]
# What says how a model is loaded or asked, and means nothing where there is none.
_OF_A_MODEL = ("model", "predict", "generate", "data", "outputs", "architecture", "allow_code", "trust_pickle", "image")


# What is said of a log: which of its scores is meant, and which of its metadata are groups and clusters.
_OF_A_LOG = ("score", "sensitive", "bins", "cluster", "cluster_at_most", "join_on")


def _check_predictions(options: ScanOptions) -> None:
    every = (*_OF_PREDICTIONS, *_OF_DATA, "features", "bins")
    if options.log is not None:
        others = [name for name in ("predictions", *_OF_A_MODEL, *every, "classes") if name not in _OF_A_LOG]
        return refuse_any(options, others, "--log is of an evaluation that is over, and {flag} says nothing of it.")
    if options.predictions is None:
        refuse_any(options, _OF_PREDICTIONS, "{flag} names a column of a model's own answers: add --predictions FILE.")
        return
    said = "--predictions holds the rows and the answers, and no model is asked: leave {flag} out."
    refuse_any(options, _OF_A_MODEL, said)
    if Path(options.predictions).is_dir():
        said = "--predictions is a folder of files that a generator made, not a table: {flag} says nothing of it."
        return refuse_any(options, every, said)
    if not any(getattr(options, name) for name in _OF_PREDICTIONS):
        raise UsageError("--predictions: say where the answers stand, with --score COLUMN or --predicted COLUMN.")
    if options.generated and (options.score or options.predicted or options.loss or options.target):
        raise UsageError("--generated are texts of a language model, which has no other answers, and no --target.")
    if options.score and options.task == "regression":
        raise UsageError("--score is the probability of a class, and a regression has none: use --predicted COLUMN.")


def _check_bins(options: ScanOptions) -> None:
    for rule in options.bins:
        column = parse_bin_rule(rule).column
        if column not in options.sensitive:
            raise UsageError(f"--bins {rule!r} is about no sensitive feature: add --sensitive {column}.")


def existing_path(path: str, noun: str) -> Path:
    """The path, made absolute. Raises UsageError, with the nearest name, where nothing is there."""
    where, table = table_place(path)
    if not where.exists():
        near = did_you_mean(where.name, (p.name for p in where.parent.iterdir())) if where.parent.is_dir() else ""
        raise UsageError(f"There is no {noun} at {path!r}{near or '.'}")
    return Path(f"{where.resolve()}::{table}" if table else where.resolve())


# Files that are an option of every probe that has one of that name, and what they are.
_FOR_PROBES = {
    "scorer": "scorer", "reference": "reference", "ood": "file or folder of strange inputs", "system": "system message",
    "calibration": "calibration",
}  # fmt: skip
# Said of every probe that has an option of that name, where it is not said already.
_SAID_OF_PROBES = ("chat", "few_shot", "quantize", "decoder", "embedder")


@dataclass(frozen=True)
class _Benchmarks:
    """Files of benchmarks and of what is left out of them, by the probe that measures them."""

    paths: dict[str, str]
    filters: dict[str, str]


def probe_specs(config: Configured, catalogue: Catalogue) -> list[ProbeSpec]:
    """The probes of a scan, with their options.

    Raises UsageError or ConfigError.
    """
    chosen = _probe_names(config.options, catalogue)
    # Looking through everything that is installed takes its time: only where a name is none of ours.
    others = known_probes(catalogue) if {*chosen, *config.probe_options} - set(catalogue) else {}
    targets = {name: probe_target(name, catalogue, others) for name in chosen}
    specs = []
    benchmarks = _benchmarks(config.options, catalogue)
    for name in dict.fromkeys(chosen):
        given = config.probe_options.get(name, {})
        if name not in catalogue:
            # Somebody else's code is imported by the measuring process alone, which checks the options too.
            source = others[name].source
            specs.append(ProbeSpec(name=name, target=targets[name], options=dict(given), distribution=source))
            continue
        options = _probe_options(name, catalogue[name], given, config.options, benchmarks)
        make_probe(catalogue[name], options)
        specs.append(ProbeSpec(name=name, target=targets[name], options=options))
    specs += _probes_by_class(config, {spec.name for spec in specs})
    known = {spec.name for spec in specs} | {*catalogue, *others}
    check_waivers(config.options.allow_inconclusive, known)
    for name in config.probe_options:
        if name not in known:
            raise ConfigError(
                f"Options are given for a probe {name!r} that does not exist{did_you_mean(name, known) or '.'}"
            )
    return specs


def check_waivers(waivers: Iterable[str], probes: Iterable[str]) -> None:
    """Raises UsageError for a waiver of what is neither a pillar nor one of these probes."""
    known = {*get_args(Pillar), *probes}
    for name in map(waived_name, waivers):
        if name not in known:
            raise UsageError(
                f"--allow-inconclusive: there is no pillar or probe {name!r}{did_you_mean(name, sorted(known)) or '.'}"
            )


def _probe_names(options: ScanOptions, catalogue: Catalogue) -> list[str]:
    chosen = chosen_probes(options.probes, catalogue, of_log=options.log is not None)
    if options.quantize is not None:
        _check_quantize(options, chosen, catalogue)
    # Without them nothing tells a model that knows nothing. Of a server's calls, what was asked for has the first.
    always = asked_with(chosen, catalogue, labels=options.target is not None)
    return [*chosen, *always] if is_endpoint(options.model) else [*always, *chosen]


def chosen_probes(names: Sequence[str] | None, catalogue: Catalogue, *, of_log: bool) -> list[str]:
    """The probes of these names, or else all; a log holds scores alone, and no other probe has anything to look at."""
    every = [name for name, kind in catalogue.items() if not of_log or Need.LOG in kind.needs]
    return [name.replace("-", "_") for name in names or every]


def asked_with(chosen: Sequence[str], catalogue: Catalogue, *, labels: bool) -> list[str]:
    """The probes that are asked beside those: always where there are labels, and of language models."""
    of_language = any(Need.LANGUAGE_MODEL in catalogue[name].needs for name in chosen if name in catalogue)
    of_language |= any(name in chosen for name in with_option(catalogue, "quantize"))
    always = [name for name, kind in catalogue.items() if getattr(kind, "always_asked", False)]
    return always if labels or of_language else []


def with_option(catalogue: Catalogue, option: str) -> list[str]:
    """The probes that have an option."""
    return [name for name, kind in catalogue.items() if option in inspect.signature(kind).parameters]


def _check_quantize(options: ScanOptions, chosen: Sequence[str], catalogue: Catalogue) -> None:
    known = with_option(catalogue, "quantize")
    if not {*known} & {*chosen}:
        raise UsageError(f"--quantize is what the probe {' or '.join(known)} is asked: add it to --probes.")
    if options.reference is not None:
        raise UsageError("--quantize compares a model with itself: leave --reference out, or ask in two scans.")
    if find_spec("torchao") is None:
        raise MissingExtraError("--quantize needs torchao: pip install 'responsible-auditor[quantize]'.")


def _benchmarks(options: ScanOptions, catalogue: Catalogue) -> _Benchmarks:
    """The benchmark files that flags name. Raises UsageError where items are left out of a file that is not given."""
    paths = _by_probe("benchmark", options.benchmark, "benchmarks", catalogue)
    filters = _by_probe("benchmark-filter", options.benchmark_filter, "benchmark_filter", catalogue)
    if unread := sorted(filters.keys() - paths.keys()):
        flag = f"--benchmark {unread[0]}=PATH"
        raise UsageError(f"--benchmark-filter {unread[0]} leaves items out of a file that was not given: add {flag}.")
    return _Benchmarks(paths, filters)


def _probe_options(
    name: str, kind: type[Probe], own: Mapping[str, JsonValue], options: ScanOptions, benchmarks: _Benchmarks
) -> dict[str, JsonValue]:
    """The options of a probe: its ``own``, and from the scan's flags those that it has."""
    parameters = inspect.signature(kind).parameters
    from_flags = {
        **_benchmark_options(name, parameters, benchmarks),
        **_file_options(parameters, options),
        **_value_options(parameters, options),
    }
    settings = {**own, **{key: value for key, value in from_flags.items() if key not in own}}
    if options.text is not None and "ood" in settings and "column" in parameters:
        settings.setdefault("column", options.text)
    return settings


def _benchmark_options(
    name: str, parameters: Mapping[str, inspect.Parameter], benchmarks: _Benchmarks
) -> dict[str, JsonValue]:
    own: dict[str, JsonValue] = {}
    if name in benchmarks.paths:
        own["benchmarks"] = {name: benchmarks.paths[name]}
    if name in benchmarks.filters:
        own["benchmark_filter"] = benchmarks.filters[name]
    if benchmarks.paths and "pair_benchmarks" in parameters:
        own["pair_benchmarks"] = dict(benchmarks.paths)
    return own


def _file_options(parameters: Mapping[str, inspect.Parameter], options: ScanOptions) -> dict[str, JsonValue]:
    """Files that a flag names for every probe with an option of that name. Raises UsageError for one that is absent."""
    # A calibration is of the scorer, or of who scored a log; what else labels texts is tried by items of its own.
    calibrated = "scorer" in parameters or options.log is not None
    named = [flag for flag in _FOR_PROBES if flag in parameters and (flag != "calibration" or calibrated)]
    paths = ((flag, getattr(options, flag)) for flag in named)
    files: dict[str, JsonValue] = {flag: str(existing_path(path, _FOR_PROBES[flag])) for flag, path in paths if path}
    if options.judge is not None and "text_judge" in parameters:
        at_server = is_endpoint(options.judge)
        files["text_judge"] = options.judge if at_server else str(existing_path(options.judge, "folder of a judge"))
    return files


def _value_options(parameters: Mapping[str, inspect.Parameter], options: ScanOptions) -> dict[str, JsonValue]:
    """Values that a flag gives to every probe with an option of that name, where they are not its default."""
    own: dict[str, JsonValue] = {}
    for flag in _SAID_OF_PROBES:
        value = getattr(options, flag)
        if flag in parameters and value != parameters[flag].default:
            if flag == "embedder" and ":" not in value:
                value = str(existing_path(value, flag))
            own[flag] = list(value) if isinstance(value, tuple) else value
    return own


def _probes_by_class(configured: Configured, names: set[str]) -> list[ProbeSpec]:
    """The probes of ``--probe``. Raises UsageError for a name that is among ``names`` or that names no class."""
    specs: list[ProbeSpec] = []
    for target in configured.options.probe:
        module, colon, attribute = target.partition(":")
        if attribute in names | {spec.name for spec in specs} | {INTAKE}:
            raise UsageError(f"Two probes are named {attribute!r}: rename the class in --probe {target!r}.")
        if not (module and colon and attribute):
            raise UsageError(f"--probe {target!r} must look like package.module:Class.")
        own = configured.probe_options.get(attribute, {})
        specs.append(ProbeSpec(name=attribute, target=target, options=own, own=True))
    return specs


def check_policies(policies: Sequence[Policy], options: ScanOptions, catalogue: Catalogue) -> None:
    """Raise ConfigError for a control of an unknown probe, and UsageError for what no pack allows."""
    if options.as_of is not None and not policies:
        raise UsageError("--as-of says on which day rule packs are held to be in force: name one with --policy.")
    for name in [policy.name for policy in policies if options.no_controls and policy.require_controls]:
        raise UsageError(f"{name} requires planted controls: leave --no-controls out.")
    known = {*catalogue, INTAKE, *(target.partition(":")[2] for target in options.probe)}
    asked = [(policy, control, name) for policy in policies for control in policy.controls
             for rule in control.evidence for name in rule.probes if "*" not in name]  # fmt: skip
    if {probe for _, _, probe in asked} - known:
        known |= set(known_probes(catalogue))
    for policy, control, probe in asked:
        if probe not in known:
            near = did_you_mean(probe, known) or "."
            raise ConfigError(f"{policy.name}, control {control.id!r}: there is no probe {probe!r}{near}")


def _by_probe(flag: str, texts: Sequence[str], option: str, catalogue: Catalogue) -> dict[str, str]:
    """Files by the name of the probe that takes them as its option ``option``."""
    known = with_option(catalogue, option)
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in known:
            near = did_you_mean(name, known) or "."
            raise UsageError(f"--{flag} {text!r} must look like NAME=PATH{near} Known names: {', '.join(known)}.")
        found[name] = str(existing_path(path, f"{flag.replace('-', ' ')} file"))
    return found


def blank_results(catalogue: Catalogue) -> dict[str, ProbeResult]:
    """The result of every probe before it has answered, by name."""
    return {name: blank_result(kind) for name, kind in catalogue.items()}


def workloads(job: Job, catalogue: Catalogue) -> dict[str, str]:
    """Progress texts of slow probes, by name."""
    found = {}
    for spec in job.probes:
        # Some read lexicons when they are made: only those are that have something to say.
        kind = catalogue.get(spec.name)
        if kind is not None and hasattr(kind, "workload"):
            if workload := getattr(make_probe(kind, spec.options), "workload", ""):
                found[spec.name] = f"{spec.name}: {workload}"
    return found


def record_of(config: Configured, job: Job, outcome: Measured, command: str | None, seconds: float) -> AuditReport:
    """The judged record of the children's measurements, or of their failure."""
    options, model = config.options, outcome.model or ModelRecord(format="not loaded", loaded_by="nothing")
    limits = {
        "memory": f"{job.limits.memory_bytes / 2**30:.1f} GiB",
        "seconds per probe": f"{job.limits.seconds:g}",
        "process": "child process with limits on memory, time, file size and open files"
        if sys.platform == "linux"
        else "child process; this platform enforces no memory limit",
    }
    report = assemble(
        outcome.results,
        config.criteria,
        model=_as_typed(model, {"path": options.model}),
        data=_as_typed(outcome.data or _unread(job.data), {"path": options.data, "train_path": options.train}),
        environment=environment(
            device=outcome.device, seed=options.seed, limits=limits, sandbox=outcome.sandbox, command=command
        ),
        family=_family(options),
        refusal=outcome.refusal,
        allow_inconclusive=options.allow_inconclusive or False,
        energy=outcome.energy,
        duration_s=seconds,
    )
    own = {"about": config.about, "roles": config.roles, "no_controls": options.no_controls}
    return held_to(config, report.model_copy(update={**own, "configuration": recorded(config.obeyed)}))


def held_to(config: Configured, report: AuditReport) -> AuditReport:
    """The record with the requested packs' requirements, as of the requested day."""
    return with_policies(report, config.policies, config.options.as_of or datetime.now(UTC).date())


def _as_typed(record: _R, paths: dict[str, str | None]) -> _R:
    """The record with paths as the user wrote them: the same on every machine, and telling nothing of this one."""
    return record.model_copy(update={name: path for name, path in paths.items() if path is not None})


def _unread(spec: DataSpec | None) -> DataRecord:
    if spec is None:
        return DataRecord()
    return DataRecord(path=spec.path, target=spec.target, sensitive=spec.sensitive, train_path=spec.train)
