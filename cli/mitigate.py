"""``auditor mitigate``: a new model, the same audit before and after, and the differences."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any

import typer
from pydantic import JsonValue

from auditor.core.errors import UsageError
from auditor.core.writable_paths import claim, place_file
from auditor.evidence.comparison_evidence import AFTER, BEFORE, mitigation_evidence
from auditor.evidence.derived_evidence import EnclosedAudit
from auditor.loading.job_specs import PREDICTIONS, Job, Limits, MitigationSpec
from auditor.report.comparing.compare_audits import compare
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.energy import EnergyRecord
from auditor.report.record.number_text import visible
from auditor.report.record.report_formats import FILE_NAMES
from auditor.report.record.translations import Catalogue
from auditor.run.mitigation import Mitigation, experience_of, keeps_kind, learns, make_mitigation, needs_rows, writes
from auditor.run.parent_process import mitigate
from auditor.run.plugins import mitigation_class
from auditor.run.scan import job_of, scan_job
from auditor.run.scan_options import Configured, ScanOptions
from auditor.training.meter import Meter, energy_place, of_training, write_energy
from cli.audit_plan import plan_of
from cli.compare import claim_comparison, print_comparison, write_comparison
from cli.report_outputs import claim_report, command_line, write_report
from cli.safeguards import refuse_a_job
from cli.scan_evidence import enclosed_of, start_log, write_evidence
from cli.signed_outputs import Sealed, with_bundle
from cli.terminal import labelled, stages
from mitigations import MITIGATIONS
from probes import PROBES

# What the evidence of one of the two audits is called, beside its report.
BUNDLE = "audit.zip"
# How files of new models end; what has no such ending is a folder.
FILES = (".pt", ".skops", ".joblib", ".pkl", ".json", ".ubj", ".txt", ".cbm")
_DEFAULT_OUT = "fairer"
_PATH_OPTIONS = ("language_model", "lexicon", "pairs", "test_pairs", "detector")


def run_mitigation(
    name: str,
    config: Configured,
    settings: dict[str, JsonValue],
    out: Path | None,
    *,
    checkpoint: Path | None,
    max_seconds: float,
    margin: float,
    evidence: Sealed | None = None,
    quiet: bool,
    verbose: bool = False,
) -> int:
    """Make the new model, audit the old and the new one on the same rows, and compare; return the new audit's exit
    code."""
    if not 0.0 <= margin < 1.0:
        raise UsageError(f"--margin must lie in [0, 1), such as 0.02 for two points of accuracy, not {margin:g}.")
    refuse_a_job("mitigate")
    key = name.replace("-", "_")
    kind = mitigation_class(key, MITIGATIONS)
    config, settings, code = _with_function(kind, config, settings)
    options = config.options
    make_mitigation(kind, settings)
    _check_rows(key, kind, options)
    config = _with_probes(kind, config)
    folder = Path(options.out)
    config = with_bundle(config, None if evidence is None else folder / BUNDLE)
    before_job = job_of(config, PROBES)
    assert options.model is not None
    out = complete_out(out, kind, Path(options.model))
    _check_out(out, options.model, folder=_writes_folder(kind, options.model))
    _claim_all(out, checkpoint, folder, with_evidence=evidence is not None)
    experience = experience_of(kind)
    warning = None if experience is None else experience.warning()
    if warning and not quiet:
        # Before the work, which can still be given up.
        typer.echo(labelled(f"note      {warning}"), err=True)
    started = time.perf_counter()
    folder_of_code = before_job.model.code_folder if code is None else str(Path.cwd())
    with_code = replace(before_job, model=replace(before_job.model, code_folder=folder_of_code))
    rows = before_job.data.path if before_job.data is not None and learns(kind) else None
    notes, energy = make_model(key, with_code, settings, out, checkpoint, max_seconds, asked_rows=rows, quiet=quiet)
    beside = [write_energy(out, energy), *([_answers_of(out)] if _answers_of(out).is_file() else [])]
    if not quiet:
        seconds = time.perf_counter() - started
        typer.echo(labelled(f"wrote     {', '.join(map(str, [out, *beside]))}  ({seconds:.0f} s)"))
    before = audit_model(config, before_job, folder / BEFORE, quiet=quiet)
    after = audit_model(*_later_audit(kind, config, out, code), folder / AFTER, quiet=quiet)
    comparison = replace(
        compare(before, after, error_rate=options.error_rate, margin=margin), made_by=(kind.name, *notes)
    )
    written = write_comparison(comparison, folder)
    if evidence is not None:
        was, became = with_evidence(before, folder / BEFORE), with_evidence(after, folder / AFTER)
        evidence.write(mitigation_evidence(comparison, was, became, kind.name, settings))
        written.append(str(evidence.bundle))
    if not quiet:
        written.append(str(folder / AFTER / FILE_NAMES["html"]))
        print_comparison(comparison, written, verbose=verbose)
        for note in notes:
            if note != warning:
                typer.echo(labelled(f"note      {note}"))
        if verbose:
            typer.echo(labelled(f"took      {visible(energy.describe(Catalogue()))}"))
    if evidence is not None:
        evidence.raise_if_undated()
    return after.exit_code


def _check_rows(key: str, kind: type[Mitigation], options: ScanOptions) -> None:
    """Raises UsageError where the rows that a mitigation needs are absent, or there are rows that it does not use."""
    with_rows = needs_rows(kind)
    if with_rows and learns(kind) and options.train is None:
        raise UsageError("A mitigation learns from the training rows: add --train FILE.")
    if with_rows and options.data is None:
        raise UsageError("Whether a mitigation helped is measured on rows it did not see: add --data FILE.")
    if not with_rows and (options.train or options.data) is not None:
        raise UsageError(f"{key} learns from no rows and is audited without them: leave out --train and --data.")


def _of_language(kind: type[Mitigation]) -> bool:
    """Whether a mitigation changes a language model without any rows."""
    return not needs_rows(kind) and writes(kind) == "folder"


def _with_probes(kind: type[Mitigation], configured: Configured) -> Configured:
    """The configuration with the probes that tell whether a mitigation did harm, where probes are chosen by name."""
    options = configured.options
    if options.probes is None:
        return configured
    if _of_language(kind):
        # Of rows the performance is measured wherever there are labels.
        return replace(configured, options=replace(options, probes=_probe_names(options.probes, "performance")))
    if options.sensitive:
        # What a mitigation does to the gaps is never left unasked.
        return replace(configured, options=replace(options, probes=_probe_names(options.probes, "group_fairness")))
    return configured


def _later_audit(kind: type[Mitigation], configured: Configured, out: Path, code: str | None) -> tuple[Configured, Job]:
    """The audit of the new model. ``code``: the function that the mitigation took instead of the model."""
    options = configured.options
    # What is written says itself from which probability on it decides, but for files of other libraries.
    threshold = None if out.suffix in ("", ".pt") else options.threshold
    own = replace(configured, options=replace(options, threshold=threshold, predict=code or options.predict))
    return with_reference(own, out) if needs_rows(kind) or _of_language(kind) else _audit_of(own, out)


def _with_function(
    kind: type[Mitigation], config: Configured, settings: dict[str, JsonValue]
) -> tuple[Configured, dict[str, JsonValue], str | None]:
    """What --predict names where a mitigation takes a function: that of its detector, and not the model's."""
    code = config.options.predict
    if code is None or "predict" not in signature(kind).parameters:
        return config, settings, None
    without = replace(config, options=replace(config.options, predict=None))
    return without, {**settings, "predict": code}, code


def _claim_all(out: Path, checkpoint: Path | None, folder: Path, *, with_evidence: bool) -> None:
    if out.suffix in FILES:
        claim(out, "--out")
    for path in (energy_place(out), _answers_of(out)):
        claim(path, f"{path.name} of --out")
    if checkpoint is not None:
        claim(checkpoint, "--checkpoint", resumed=True)
    claim_comparison(folder, "--report")
    for side in (BEFORE, AFTER):
        claim_report(folder / side, ("json", "html"), f"--report/{side}")
        if with_evidence:
            claim(folder / side / BUNDLE, f"--report/{side}/{BUNDLE}")


def _answers_of(out: Path) -> Path:
    """The file of what the new model answers on the rows of --data."""
    return out.with_name(f"{out.name}{PREDICTIONS}")


def _writes_folder(kind: type[Mitigation], model: str | None) -> bool:
    """A language model, and whatever came as a Hugging Face folder, is written as one."""
    return writes(kind) == "folder" or (model is not None and Path(model).is_dir())


def complete_out(out: Path | None, kind: type[Mitigation], model: Path) -> Path:
    """Where the new model goes: by default into a file as the present one is, or a folder where no file holds it.

    Raises UsageError for a file where a post-processed model of another library is to be a folder.
    """
    own = model.suffix if model.suffix in FILES and not _writes_folder(kind, str(model)) else ""
    if own and kind.stage == "post-processing" and own != ".pt":
        if out is not None and out.suffix in FILES:
            raise UsageError(
                f"--out {str(out)!r} must be a folder, which holds the rules and the model below them as it was: say "
                f"--out {out.with_suffix('')}."
            )
        return out or Path(_DEFAULT_OUT)
    if out is None:
        return Path(f"{_DEFAULT_OUT}{own}")
    return out.with_name(f"{out.name}{own}") if keeps_kind(kind) and not out.suffix else out


def _check_out(out: Path, model: str, *, folder: bool) -> None:
    if out.exists() and out.resolve() == Path(model).resolve():
        raise UsageError("--out is the model itself: name another file, so that the old model stays as it is.")
    if folder and out.suffix in FILES:
        raise UsageError(f"--out {str(out)!r} must be a folder: the new model is written as a Hugging Face folder.")
    if folder or not out.suffix:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise UsageError(f"--out {str(out)!r} is there and not an empty folder: name a new one.")
    elif out.suffix not in FILES:
        own = Path(model).suffix
        name = f" The present model's file ends in {own}: say --out {out.with_suffix(own)}." if own in FILES else ""
        raise UsageError(
            f"--out {str(out)!r} must end in .pt, as a bundle does, in {', '.join(FILES[1:-1])} or {FILES[-1]}, as "
            f"files of other libraries do, or in nothing, as a folder does.{name}"
        )


def make_model(
    key: str,
    job: Job,
    settings: dict[str, JsonValue],
    out: Path,
    checkpoint: Path | None,
    max_seconds: float,
    *,
    asked_rows: str | None = None,
    quiet: bool,
) -> tuple[tuple[str, ...], EnergyRecord]:
    """Run the mitigation in a separate process; the new model is written beside its place and renamed, and with it what
    it answers on ``asked_rows``.

    Returns its notes, and what it took.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
            made = Path(beside).resolve() / out.name
            asked = mitigation_job(key, job, settings, made, checkpoint, max_seconds, asked_rows)
            with stages(not quiet) as shown, Meter(job.model.device) as meter:
                notes = mitigate(asked, on_stage=shown, meter=meter)
                energy = of_training(meter)
            if _answers_of(made).is_file():
                place_file(_answers_of(made), _answers_of(out))
            if made.is_dir():
                made.replace(out)  # which fails where a file or a folder with anything in it is there
            else:
                place_file(made, out)
            return notes, energy
    except OSError as error:
        raise UsageError(f"Cannot write {str(out)!r}: {error.strerror}.") from None


def mitigation_job(
    key: str,
    job: Job,
    settings: dict[str, JsonValue],
    out: Path,
    checkpoint: Path | None,
    max_seconds: float,
    asked_rows: str | None = None,
) -> Job:
    """The job that makes a mitigation's model, derived from the job that audits the present model."""
    kind = mitigation_class(key, MITIGATIONS)
    spec = MitigationSpec(
        name=key,
        target=f"{kind.__module__}:{kind.__qualname__}",
        out=str(out),
        options=settings,
        checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
        asked_rows=asked_rows,
    )
    rows = None
    if job.data is not None and not learns(kind):
        rows = replace(job.data, train=None)
    elif job.data is not None and job.data.train is not None:
        # What was recorded is of the other rows.
        rows = replace(job.data, path=job.data.train, train=None, check_predictions=None)
    return replace(
        job,
        # It is trained in float32, whatever its audits are computed in.
        model=replace(job.model, dtype="float32"),
        data=rows,
        probes=(),
        mitigation=spec,
        limits=Limits(memory_bytes=job.limits.memory_bytes, seconds=max_seconds),
        with_intake=False,
    )


def with_reference(config: Configured, model: Path) -> tuple[Configured, Job]:
    """The same audit of the new model, with the old one as reference; always including the changes."""
    probes = config.options.probes
    if probes is not None and config.options.data is not None:
        probes = _probe_names(probes, "change")
    later, job = _audit_of(config, model, reference=config.options.model, probes=probes)
    if probes is not None and "derived" in probes:
        return later, job
    # A mitigation is there to decide otherwise: how many do is asked only of whoever asks for it by name.
    specs = (
        replace(spec, options={key: value for key, value in spec.options.items() if key != "reference"})
        if spec.name == "derived"
        else spec
        for spec in job.probes
    )
    return later, replace(job, probes=tuple(specs))


def _probe_names(probes: Sequence[str], *more: str) -> tuple[str, ...]:
    """Probes, and more whatever they are."""
    return tuple(dict.fromkeys((*(name.replace("-", "_") for name in probes), *more)))


def _audit_of(config: Configured, model: Path, **more: Any) -> tuple[Configured, Job]:
    """The same audit of another model."""
    options = replace(config.options, model=str(model), **more)
    later = replace(config, options=options)
    return later, job_of(later, PROBES)


def audit_model(config: Configured, job: Job, folder: Path, *, quiet: bool) -> AuditReport:
    """A job's audit, written into a folder; with its evidence, if a bundle is requested."""
    began, started = datetime.now(UTC), time.perf_counter()
    log = start_log(job)
    with stages(not quiet) as shown:
        shown.total = len(job.probes) + 2
        scanned = scan_job(config, job, PROBES, started, command=command_line(), on_stage=shown)
    folder.mkdir(parents=True, exist_ok=True)
    write_report(scanned.report, folder, ["json", "html"])
    if config.options.bundle is not None:
        enclosed = enclosed_of(config, scanned.report, plan_of(config, hashed=False), began, None)
        own = with_bundle(config, folder / BUNDLE)
        write_evidence(own, job, scanned.measured, scanned.report, log, enclosed)
    return scanned.report


def with_evidence(report: AuditReport, folder: Path) -> EnclosedAudit:
    """An audit that :func:`audit_model` wrote, with its evidence."""
    return EnclosedAudit(report=report, bundle=(folder / BUNDLE).read_bytes())


def parse_settings(texts: list[str]) -> dict[str, JsonValue]:
    """``option=value`` of the mitigation; the value is parsed as JSON if possible, else text."""
    found: dict[str, JsonValue] = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if not (equals and option):
            raise UsageError(f"--with {text!r} must look like option=value.")
        key = option.replace("-", "_")
        if key == "predict":
            raise UsageError(
                "--with predict runs code, which a flag of its own allows: name the function with --predict."
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            # The process that makes the model works in another folder.
            found[key] = str(Path(value).resolve()) if key in _PATH_OPTIONS and Path(value).exists() else value
    return found
