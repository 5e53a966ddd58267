"""``auditor tradeoff``: a new model for each value of a swept option, audited on the same rows and compared."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from pydantic import JsonValue

from auditor.core.errors import DataError, ModelError, UsageError, did_you_mean
from auditor.core.files import write_beside
from auditor.core.writable_paths import claim
from auditor.evidence.tradeoff_evidence import SweepEvidence, tradeoff_evidence
from auditor.loading.job_specs import Job
from auditor.report.comparing.prior_tradeoff import DISPARITIES, Disparity, Evidence, read_evidence
from auditor.report.comparing.tradeoff_analysis import PRESENT, Point, Tradeoff
from auditor.report.comparing.tradeoff_of_audits import AuditedPoint, weigh_audits
from auditor.report.comparing.tradeoff_report import (
    cell,
    front_words,
    plots_of,
    promise,
    render_tradeoff_html,
    render_tradeoff_json,
    render_tradeoff_markdown,
    tradeoff_svg,
)
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.number_text import visible
from auditor.report.report_figures import called_in
from auditor.run.mitigation import Mitigation, make_mitigation, needs_rows
from auditor.run.plugins import mitigation_class
from auditor.run.scan_options import Configured
from auditor.run.sweep_tasks import made_by, sent_points
from auditor.statistics.estimate import Undefined
from auditor.training.task_distribution import chosen_executor
from auditor.training.task_executor import Kept
from cli.compare import write_comparison
from cli.mitigate import BUNDLE, complete_out, mitigation_job, parse_settings, with_evidence, with_reference
from cli.safeguards import refuse_a_job
from cli.signed_outputs import Sealed, with_bundle
from cli.sweep_folder import PointFolder, Settings, Tried, audit_prints, digest, made_prints
from cli.terminal import paragraph, print_table
from mitigations import MITIGATIONS

PROBES_ASKED = ("group_fairness", "adverse_impact", "change", "membership_inference")
MOST_POINTS = 200
# What a point's model is called but for its ending; of a bundle, and of whatever is written as one, the whole name.
_MODEL, _BUNDLE_NAME = "model", "model.pt"
_LONGEST_NAME = 80
_TWICE = "The option {!r} is given twice: name each in one --sweep or one --with."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Comparison options of points, from the flags."""

    metric: str
    disparity: Disparity
    tolerance: float

    @classmethod
    def from_flags(cls, metric: str, disparity: str, tolerance: float) -> Asked:
        """The comparison options; UsageError with the most similar disparity for an unknown one."""
        key = disparity.replace("-", "_")
        found = next((known for known in DISPARITIES if known == key), None)
        if found is None:
            near = did_you_mean(key, DISPARITIES) or "."
            raise UsageError(f"There is no disparity {disparity!r}{near} Known: {', '.join(DISPARITIES)}.")
        if not 0.0 <= tolerance < 1.0:
            raise UsageError(f"--tolerance must lie in [0, 1), such as 0.01 for one point, not {tolerance:g}.")
        return cls(metric=metric.replace("-", "_"), disparity=found, tolerance=tolerance)


def run_tradeoff(
    name: str,
    config: Configured,
    sweeps: Sequence[str],
    settings: Settings,
    request: Asked,
    *,
    max_seconds: float,
    evidence: Sealed | None = None,
    quiet: bool,
) -> int:
    """Make and audit missing points of the sweep, compare all, write the result; return the exit code."""
    refuse_a_job("tradeoff")
    key = name.replace("-", "_")
    kind = mitigation_class(key, MITIGATIONS)
    if not needs_rows(kind):
        raise UsageError(f"{key} learns from no rows, so that there is no accuracy on rows to trade: auditor mitigate.")
    grid = parse_sweeps(sweeps, settings)
    for each in grid:
        make_mitigation(kind, each)
    named = {_name(each, sweeps): each for each in grid}
    folder = Path(config.options.out)
    model_name = _name_of_models(kind, config.options.model)
    _claim(folder, model_name, [PRESENT, *named], with_evidence=evidence is not None)
    config = with_bundle(_with_probes(config), None if evidence is None else folder / BUNDLE)
    sweep = _Sweep.from_configuration(key, config, model_name, max_seconds=max_seconds, quiet=quiet)
    with chosen_executor(config.options.executor, config.options.address) as executor:
        present = sweep.audit_present()
        # Whatever the audits do not hold is found out before anything is trained.
        _check(
            read_evidence(present, present.data.sensitive, metric=request.metric, disparity=request.disparity), request
        )
        failed = {} if executor is None else sweep.hand_out(named, executor)
        made = [
            sweep.point(place, point, each, len(named), failed.get(point))
            for place, (point, each) in enumerate(named.items(), 1)
        ]
    if all(point.report is None for point in made):
        raise ModelError(f"No point could be made. {made[0].name}: {made[0].failed}")
    n_tried = max(sweep.tried.count, len(made))
    found = _weigh_points(key, sweep, present, made, request, n_tried)
    written = _write(found, present, sweep.folder)
    if evidence is not None:
        evidence.write(tradeoff_evidence(_evidence(found, sweep, present, made, _swept(sweeps), settings)))
        written.append(str(evidence.bundle))
    if not quiet:
        _print(found, written)
    if evidence is not None:
        evidence.raise_if_undated()
    return found.exit_code


def _evidence(
    tradeoff: Tradeoff,
    sweep: _Sweep,
    present: AuditReport,
    points: Sequence[AuditedPoint],
    swept: Mapping[str, Sequence[JsonValue]],
    fixed_options: Settings,
) -> SweepEvidence:
    """What the sweep's folder holds of the points, for the bundle."""
    return SweepEvidence(
        tradeoff=tradeoff,
        present=with_evidence(present, sweep.folder / PRESENT),
        points={p.name: with_evidence(p.report, sweep.folder / p.name) for p in points if p.report is not None},
        sweep=swept,
        fixed=fixed_options,
        tried=sweep.tried.graded_models,
        made={p.name: prints for p in points if (prints := sweep.folder_of(p.name).inputs)},
    )


def _name_of_models(kind: type[Mitigation], model: str | None) -> str:
    """What the model of each point is called: it ends as mitigate's own do. Raises UsageError for a folder."""
    assert model is not None
    if Path(model).is_dir():
        raise UsageError(
            f"A sweep keeps each model as a file, and {Path(model).name!r} is a folder: make one of each value with "
            "auditor mitigate --with option=value, which audits it beside the present one."
        )
    if kind.stage == "post-processing" and Path(model).suffix != Path(_BUNDLE_NAME).suffix:
        return _MODEL  # a folder of the rules, with the model below them
    return f"{_MODEL}{complete_out(None, kind, Path(model)).suffix or Path(_BUNDLE_NAME).suffix}"


def _claim(out: Path, model_name: str, points: Sequence[str], *, with_evidence: bool) -> None:
    """Says, before any work, what is to be written into the folder. Raises UsageError where one file is not ours."""
    for name in ("tried.json", "tradeoff.json", "tradeoff.html", "tradeoff.md"):
        claim(out / name, f"--out/{name}")
    for drawn in sorted((out / "figures").glob("*.svg")):
        claim(drawn, f"--out/figures/{drawn.name}")
    for point in points:
        PointFolder.from_folder(out / point, model_name).claim(with_evidence=with_evidence)


def _check(present: Evidence, request: Asked) -> None:
    """Raises DataError where the rows leave a number of the present model undefined, so that nothing can be weighed.

    The intersection of the features is left out then, and that is said.
    """
    for estimate, what in (
        (present.performance, request.metric),
        *((gap.own, f"{request.disparity} by {gap.feature}") for gap in present.gaps),
    ):
        if not math.isfinite(estimate.value):
            reason = f": {estimate.reason}" if isinstance(estimate, Undefined) else ""
            raise DataError(f"{what} of the present model is undefined on the rows of --data{reason}. Add such rows.")


# ---- the flags -----------------------------------------------------------------------------------------------------


def parse_sweeps(texts: Sequence[str], settings: Mapping[str, JsonValue]) -> list[Settings]:
    """Every combination of the values of ``option=a,b,c``, with the fixed settings; parsed as JSON if possible.

    Raises UsageError for what is no such text, an option named twice, or more than MOST_POINTS combinations.
    """
    swept = _swept(texts)
    for option in swept:
        if option in settings:
            raise UsageError(_TWICE.format(option))
    if not swept:
        raise UsageError("Name what is to vary: --sweep option=value,value,...")
    n = 1
    for values in swept.values():
        n *= len(values)
    if n > MOST_POINTS:
        raise UsageError(f"The sweep has {n:,} points, and may have {MOST_POINTS}: name fewer values.")
    return [{**settings, **dict(zip(swept, chosen, strict=True))} for chosen in itertools.product(*swept.values())]


def _swept(texts: Sequence[str]) -> dict[str, list[JsonValue]]:
    """The values of each option that is swept."""
    swept: dict[str, list[JsonValue]] = {}
    for text in texts:
        option, equals, listed = text.partition("=")
        option = option.replace("-", "_")
        values = _values(listed)
        if not (equals and option and values):
            raise UsageError(f"--sweep {text!r} must look like option=value,value,...")
        if option in swept:
            raise UsageError(_TWICE.format(option))
        swept[option] = values
    return swept


def _values(listed: str) -> list[JsonValue]:
    """The values in the order given, without repeats."""
    try:
        found: list[JsonValue] = json.loads(f"[{listed}]")
    except json.JSONDecodeError:
        parts = [part.strip() for part in listed.split(",") if part.strip()]
        found = [parse_settings([f"value={part}"])["value"] for part in parts]
    return list({json.dumps(value, sort_keys=True): value for value in found}.values())


def _name(settings: Settings, sweeps: Sequence[str]) -> str:
    """A point by its swept options, which is also its folder's name."""
    options = [text.partition("=")[0].replace("-", "_") for text in sweeps]
    values = {o: settings[o] for o in options}
    words = ",".join(f"{o}={v if isinstance(v, str) else json.dumps(v)}" for o, v in values.items())
    safe = re.sub(r"[^A-Za-z0-9=.,_+-]+", "-", words)[:_LONGEST_NAME].strip("-")
    if safe == words:
        return words
    return f"{safe}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def _with_probes(config: Configured) -> Configured:
    """The audit of a sweep: what its tables need unless told otherwise, and in any case what changed."""
    probes = tuple(name.replace("-", "_") for name in config.options.probes or PROBES_ASKED)
    probes = tuple(dict.fromkeys((*probes, "change")))
    return replace(config, options=replace(config.options, probes=probes))


# ---- the points ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    """What all points share. ``job`` audits the present model; ``folder`` holds a folder for each point, with its
    model as ``model_name``."""

    key: str
    configured: Configured
    job: Job
    folder: Path
    model_name: str
    tried: Tried
    max_seconds: float
    quiet: bool

    @classmethod
    def from_configuration(
        cls, key: str, config: Configured, model_name: str, *, max_seconds: float, quiet: bool
    ) -> _Sweep:
        options = config.options
        if options.train is None:
            raise UsageError("A mitigation learns from the training rows: add --train FILE.")
        if options.data is None:
            raise UsageError("Points are weighed on rows that they did not see: add --data FILE.")
        if options.target is None or not options.sensitive:
            missing = "--target COLUMN" if options.target is None else "--sensitive COLUMN"
            raise UsageError(f"A trade-off is between being right and treating groups alike: add {missing}.")
        if options.cluster is not None or options.weight is not None:
            raise UsageError(
                "A sweep weighs changes of accuracy, which have no interval over clusters or weights: leave --cluster "
                "and --weight out. Take copies of rows out, or say --copies-are-real."
            )
        assert options.model is not None
        with_itself, job = with_reference(config, Path(options.model))
        folder = Path(options.out)
        assert job.data is not None
        tried = Tried.from_file(folder / "tried.json", digest(job.data.path))
        # Found out before the work, not after it.
        tried.write()
        return cls(
            key=key,
            configured=with_itself,
            job=job,
            folder=folder,
            model_name=model_name,
            tried=tried,
            max_seconds=max_seconds,
            quiet=quiet,
        )

    def folder_of(self, point: str) -> PointFolder:
        """The folder of a point."""
        return PointFolder.from_folder(self.folder / point, self.model_name)

    @property
    def with_evidence(self) -> bool:
        """Whether each audit is to leave its evidence."""
        return self.configured.options.bundle is not None

    def audit_present(self) -> AuditReport:
        """The present model's audit, with itself as the reference; raises DataError or ModelError where it is none."""
        state = self.folder_of(PRESENT)
        started = time.perf_counter()
        report, why = state.audited(audit_prints(self.configured, self.job), with_evidence=self.with_evidence)
        if report is None:
            report = state.audit(self.configured, self.job, quiet=self.quiet)
            self._say(PRESENT, f"audited{why} ({time.perf_counter() - started:.0f} s)")
        else:
            self._say(PRESENT, "kept")
        if report.refusal is not None:
            kind = ModelError if report.refusal.code == "model_refused" else DataError
            raise kind(report.refusal.reason, code=report.refusal.reason_code)
        return report

    def hand_out(self, points: Mapping[str, Settings], executor: Kept) -> dict[str, ModelError]:
        """Has the models that are not there made by an executor, and keeps each as it ends; returns why others failed.

        Nothing is handed out that is more than data.
        """
        prints = {name: made_prints(self.key, self.job, each) for name, each in points.items()}
        missing = [name for name in points if not self.folder_of(name).check_model(prints[name])[0]]
        jobs = [mitigation_job(self.key, self.job, points[name], Path(), None, self.max_seconds) for name in missing]
        tasks = sent_points(jobs) if jobs and self.model_name == _BUNDLE_NAME else None
        if tasks is None:
            if jobs:
                self._say("points", "made here: they are no bundles, or take code, files or a GPU of this machine")
            return {}
        failed = {}
        try:
            for i, made in made_by(executor, tasks):
                name = missing[i]
                if isinstance(made, ModelError):
                    failed[name] = made
                    continue
                self.folder_of(name).take(made, points[name], prints[name])
                self._say(name, "made elsewhere")
        finally:
            # Each has its folder by now.
            executor.forget()
        return failed

    def point(self, place: int, name: str, settings: Settings, n: int, failure: ModelError | None) -> AuditedPoint:
        """Makes and audits one point, as far as it is not there already, and says which; ``failure``: why elsewhere."""
        state = self.folder_of(name)
        started = time.perf_counter()
        head = f"{name} ({place} of {n})"
        prints = made_prints(self.key, self.job, settings)
        kept, why = state.check_model(prints)
        did = []
        if not kept:
            try:
                if failure is not None:
                    raise failure
                state.make(self.key, self.job, settings, prints, self.max_seconds, quiet=self.quiet)
            except ModelError as error:
                self._say(head, f"not made: {error}")
                return AuditedPoint(name=name, settings=settings, failed=str(error))
            did.append(f"made{why}")
        self.tried.add(prints)
        # As after `mitigate`: a bundle or a folder says itself from which probability on it decides.
        options = self.configured.options
        own = options if state.model.suffix not in ("", ".pt") else replace(options, threshold=None)
        configured, job = with_reference(replace(self.configured, options=own), state.model)
        report, why = state.audited(audit_prints(configured, job), with_evidence=self.with_evidence)
        if report is None:
            report = state.audit(configured, job, quiet=self.quiet)
            did.append(f"audited{why if not did else ''}")
        seconds = time.perf_counter() - started
        self._say(head, f"{' and '.join(did)} ({seconds:.0f} s)" if did else "kept")
        if report.refusal is not None:
            return AuditedPoint(name=name, settings=settings, notes=state.notes, failed=report.refusal.reason)
        return AuditedPoint(name=name, settings=settings, report=report, notes=state.notes)

    def _say(self, point: str, words: str) -> None:
        if not self.quiet:
            typer.echo(f"{visible(point)}: {visible(words)}")


# ---- weighing and writing ------------------------------------------------------------------------------------------


def _weigh_points(
    key: str, sweep: _Sweep, present: AuditReport, points: Sequence[AuditedPoint], request: Asked, n_tried: int
) -> Tradeoff:
    """The points, weighed; the comparison of each with the present model is written beside its audit."""
    weighed = weigh_audits(
        present,
        points,
        made_by=key,
        metric=request.metric,
        disparity=request.disparity,
        tolerance=request.tolerance,
        error_rate=sweep.configured.options.error_rate,
        n_tried=n_tried,
    )
    for name, comparison in weighed.comparisons.items():
        write_comparison(comparison, sweep.folder / name)
    return weighed.tradeoff


def _write(tradeoff: Tradeoff, present: AuditReport, out: Path) -> list[str]:
    written = []
    contents = [
        ("tradeoff.json", render_tradeoff_json(tradeoff, present)),
        ("tradeoff.html", render_tradeoff_html(tradeoff, present)),
        ("tradeoff.md", render_tradeoff_markdown(tradeoff)),
    ]
    contents += [(f"figures/{plot.id}.svg", tradeoff_svg(plot)) for plot in plots_of(tradeoff, called_in(present))]
    for name, content in contents:
        write_beside(out / name, content.encode())
        written.append(str(out / name))
    return written


def _print(tradeoff: Tradeoff, paths: Sequence[str]) -> None:
    typer.echo()
    columns = ["point", "verdict", tradeoff.metric, "change"]
    for feature in tradeoff.present.features:
        columns += [f"{tradeoff.disparity} by {feature.feature}", "change", "impact ratio"]
    print_table((*columns, "leakage", "front"), [_cells(point, len(columns)) for point in tradeoff.all])
    for point in tradeoff.all:
        if point.reason:
            typer.echo(paragraph(visible(f"{point.name}: {point.reason}"), 0))
        for remark in point.remarks:
            typer.echo(paragraph(visible(f"warning  {point.name}: {remark}"), 0))
    for words in (tradeoff.headline, promise(tradeoff)):
        typer.echo()
        typer.echo(paragraph(visible(words), 0))
    for path in paths:
        typer.echo(f"report  {path}")


def _cells(point: Point, width: int) -> list[str]:
    numbers = [point.performance, point.performance_change] if point.has_model else []
    for own in point.features:
        numbers += [own.own, own.change, own.ratio]
    shown = [point.name, point.verdict, *map(cell, numbers)]
    leakage = "not measured at every point" if point.leakage is None else cell(point.leakage)
    return [*shown, *[""] * (width - len(shown)), leakage, front_words(point)]
