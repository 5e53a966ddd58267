"""run_audit: run every probe, judge all results together, and create the record."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import (
    AuditorError,
    DataError,
    NotApplicableError,
    OtherKindError,
    OutputsError,
    UsageError,
    some_of,
)
from auditor.core.rows import FloatArray, IntArray
from auditor.data.group_counts import GroupsDigest
from auditor.judging.budgets import Family
from auditor.judging.criterion import MOST_RATE, Criterion, load_criteria
from auditor.judging.judgement import Judgement, Waivers
from auditor.judging.judging import judge
from auditor.judging.measurement import Alike, Measurement, ProbeResult, select_definitions
from auditor.judging.planting import Planting
from auditor.report.drawing.figures import figures_of
from auditor.report.record.audit_report import (
    FILES,
    MOST_UNREADABLE,
    AuditReport,
    DataRecord,
    Environment,
    Finding,
    ModelRecord,
    Refusal,
    Summary,
    exit_code,
    family_record,
)
from auditor.report.record.energy import EnergyRecord
from auditor.report.record.group_sizes import missing_of, sizes_of
from auditor.report.record.sandbox_state import SandboxState
from auditor.run import __version__
from auditor.run.planted.measure_twins import with_planted
from auditor.run.probe import (
    FILE_QUESTIONS,
    Probe,
    blank_result,
    declared_metrics,
    looks_at_rows,
    missing_needs,
    no_data,
    not_applicable,
    not_designed_for,
    of_design,
    with_declared,
)
from auditor.training.meter import Meter, taken_by_probe

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.data.group_counts import CodedGroups, GroupCounts
    from auditor.data.score_counts import ScoreCounts
    from auditor.models.audited_model import AuditedModel


# Answers that no probe needed are asked for of so many rows at most: two that differ are found among fewer.
_MOST_ASKED = 4_096
_FEWEST_ALIKE = 2


def alike_answers(model: AuditedModel, data: AuditData, measurements: Sequence[Measurement]) -> tuple[Alike, ...]:
    """The rows with identical model answers, if the measurements depend on differences between rows.

    Over the evaluation rows; where no probe asked for the answers to all of them, over some of them, evenly spaced,
    and over all where those are alike.
    Groups are those of single features and of the combinations of features that a measurement compares. Nothing of
    language models, whose answers are no decisions about rows.
    """
    resting = _answer_based(measurements)
    if not resting or model.kind == "language_model":
        return ()
    rows = data.evaluation
    if len(rows) > _MOST_ASKED and model.can_be_asked and not model.has_answers(rows):
        some = rows.take(np.linspace(0, len(rows) - 1, _MOST_ASKED).astype(np.int64))
        if not _alike_in(model, some, resting):
            return ()
    # What looks alike among some is said of all only where all are.
    return _alike_in(model, rows, resting)


def _alike_in(model: AuditedModel, rows: AuditData, measurements: Sequence[Measurement]) -> tuple[Alike, ...]:
    if len(rows) < _FEWEST_ALIKE:
        return ()
    regression = model.kind == "regressor"
    try:
        decided: FloatArray | IntArray = model.predictions(rows) if regression else model.decisions(rows)  # type: ignore[attr-defined]
    except NotApplicableError:
        # Of a model that cannot be asked, its losses may be all that is known.
        return ()
    if (decided == decided[0]).all():
        matters = any(m.rests_on != "decisions" for m in measurements)
        same_scores = matters and (regression or _same_scores(model, rows))
        return (Alike(answer="scores" if same_scores else "decisions", n=len(rows)),)
    truth = rows.target_values if regression else rows.y_true
    compared = {frozenset(m.sensitive) | frozenset(m.group) for m in measurements if m.rests_on == "decisions"}
    return tuple(_groups(rows, decided, truth, compared))


def _same_scores(model: AuditedModel, rows: AuditData) -> bool:
    try:
        return bool((np.ptp(model.scores(rows), axis=0) == 0.0).all())
    except NotApplicableError:  # decisions are all that is known of it, and they are the same
        return True


def _answer_based(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Those that rest on answers, and could PASS: what is undefined, such as of a crowd of groups, cannot."""
    return [m for m in measurements if m.rests_on is not None and not math.isnan(m.estimate.value)]


def _groups(
    rows: AuditData,
    answers: FloatArray | IntArray,
    truth: FloatArray | IntArray | None,
    feature_sets: set[frozenset[str]],
) -> Iterator[Alike]:
    table = rows.sensitive_features
    if table is None:
        return
    right = np.zeros(len(rows), bool) if truth is None else np.asarray(truth == answers, bool)
    names = {str(column): column for column in table.columns}
    for features in sorted((sorted(f) for f in feature_sets if f and f <= names.keys()), key=str):
        if _soon_differ(rows.groups(*(name for name in names if name in features)), answers):
            continue
        grouped = table.groupby([names[f] for f in features], observed=True, sort=True)
        for level, places in grouped.indices.items():
            own = answers[places]
            if len(own) >= _FEWEST_ALIKE and (own == own[0]).all() and not right[places].all():
                levels = level if isinstance(level, tuple) else (level,)
                yield Alike(
                    answer="decisions",
                    n=len(own),
                    group={f: str(value) for f, value in zip(features, levels, strict=True)},
                )


def _soon_differ(groups: CodedGroups, answers: FloatArray | IntArray) -> bool:
    """Whether the first rows show two different answers in each of the groups, as they mostly do."""
    codes, own = groups.codes[:_MOST_ASKED], answers[:_MOST_ASKED]
    one = np.zeros(len(groups.levels), own.dtype)
    one[codes] = own
    return bool(np.bincount(codes[own != one[codes]], minlength=one.size).all())


def alike_in_counts(
    counts: GroupCounts, measurements: Sequence[Measurement], scores: ScoreCounts | None = None
) -> tuple[Alike, ...]:
    """The same, of rows that were counted as they streamed by."""
    resting = _answer_based(measurements)
    if not resting or counts.n < _FEWEST_ALIKE:
        return ()
    if np.count_nonzero(counts.table.sum(axis=(0, 1))) == 1:
        same = scores is not None and scores.n_values == 1 and any(m.rests_on == "scores" for m in resting)
        return (Alike(answer="scores" if same else "decisions", n=counts.n),)
    found = []
    compared = {tuple(sorted({*m.sensitive, *m.group})) for m in resting if m.rests_on == "decisions"}
    for features in sorted(compared):
        if not features or not set(features) <= set(counts.features):
            continue
        own = counts.group_by(features)
        for group, cells in zip(own.groups, own.table, strict=True):
            chosen = np.flatnonzero(cells.sum(axis=0))
            n = int(cells.sum())
            if chosen.size == 1 and n >= _FEWEST_ALIKE and cells[chosen[0], chosen[0]] < n:
                found.append(Alike(answer="decisions", n=n, group=dict(zip(features, group, strict=True))))
    return tuple(found)


# What of the rows decides what is found, and costs next to nothing to keep.
_LENT = ("y_true", "target_values", "is_member", "sensitive_features")
_PACKAGES = (
    "numpy",
    "pandas",
    "scipy",
    "torch",
    "transformers",
    "captum",
    "shap",
    "opacus",
    "fairlearn",
    "scikit-learn",
)


def ask(
    probe: Probe,
    model: AuditedModel,
    data: AuditData | None,
    rng: np.random.Generator,
    *,
    on_error: Callable[[BaseException], None] | None = None,
) -> ProbeResult:
    """Run one probe: NOT_APPLICABLE if it lacks an input, NOT_RUN if it raises an error.

    Only a model of which nobody can say what its outputs mean is no answer at all: raises OutputsError.
    """
    return taken_by_probe(model)(_answer(probe, model, data, rng, on_error))


def _answer(
    probe: Probe,
    model: AuditedModel,
    data: AuditData | None,
    rng: np.random.Generator,
    on_error: Callable[[BaseException], None] | None,
) -> ProbeResult:
    missing = missing_needs(probe, model, data)
    if missing:
        return _left_out(probe, not_applicable(missing, model))
    rows = no_data() if data is None else data
    if reason := not_designed_for(probe, rows.design):
        return _result(probe, not_applicable=reason)
    settle_outputs(model, rows)
    found = attempt(
        probe,
        lambda: _leaving_labels_and_groups(probe, model, rows, rng),
        find_constant_answers=lambda measured: alike_answers(model, rows, measured),
        on_error=on_error,
    )
    if not looks_at_rows(probe):
        return found
    return replace(found, measurements=of_design(found.measurements, rows.design), copies=rows.copies)


def settle_outputs(model: AuditedModel, data: AuditData) -> None:
    """Raise OutputsError if all evaluation rows leave the model's output kind undecided. Runs before any probe uses
    some of them, with answers that the probes share."""
    if not model.in_question or not len(data.evaluation):
        return
    try:
        model.outputs(data.evaluation)
    except OutputsError:
        raise
    except Exception:  # for the probe to say that asks for them
        return


def _leaving_labels_and_groups(
    probe: Probe, model: AuditedModel, data: AuditData, rng: np.random.Generator
) -> Sequence[Measurement]:
    """The probe's measurements; what it did to labels or groups is undone, and makes it NOT_RUN.

    The probes after it are asked about the same rows: one that changed them would decide what the others find.
    """
    kept = {name: deepcopy(getattr(data, name)) for name in _LENT}
    try:
        measured = probe.measure(model, data, rng)
    finally:
        changed = [name for name, before in kept.items() if not _is_equal(getattr(data, name), before)]
        for name in changed:
            object.__setattr__(data, name, kept[name])
    if changed:
        raise DataError(f"It changed {' and '.join(changed)} of the rows that it was lent; they were put back.")
    return measured


def _is_equal(current: Any, before: Any) -> bool:
    if current is None or before is None:
        return current is before
    if isinstance(before, np.ndarray):
        return np.array_equal(current, before, equal_nan=before.dtype.kind == "f")
    return bool(before.equals(current))


def attempt(
    probe: Probe,
    measure: Callable[[], Sequence[Measurement]],
    *,
    find_constant_answers: Callable[[Sequence[Measurement]], tuple[Alike, ...]] | None = None,
    on_error: Callable[[BaseException], None] | None = None,
) -> ProbeResult:
    """The boundary at which a probe's failure becomes a finding; ``on_error`` sees the exception, for a log.

    ``find_constant_answers``: says which rows the model answers alike, given what was measured. Raises OutputsError:
    whatever else was measured of such a model is worth no more.
    """
    started = time.perf_counter()
    try:
        measured = with_declared(probe, measure())
        return _result(
            probe,
            measured,
            constant_answers=find_constant_answers(measured) if find_constant_answers is not None else (),
            started=started,
        )
    except NotApplicableError as error:
        return _left_out(probe, error, started=started)
    except OutputsError:
        raise
    except Exception as error:
        if on_error is not None:
            on_error(error)
        return _result(probe, not_run=reason_of(error), started=started)


def _left_out(probe: Probe, error: NotApplicableError, *, started: float | None = None) -> ProbeResult:
    kind = isinstance(error, OtherKindError)
    return replace(_result(probe, not_applicable=str(error), started=started), other_kind=kind)


def _result(
    probe: Probe,
    measurements: tuple[Measurement, ...] = (),
    *,
    not_run: str = "",
    not_applicable: str = "",
    constant_answers: tuple[Alike, ...] = (),
    started: float | None = None,
) -> ProbeResult:
    return replace(
        blank_result(probe),
        measurements=measurements,
        not_run=not_run,
        not_applicable=not_applicable,
        alike=constant_answers,
        definitions=select_definitions(
            probe.name, probe.citation, declared_metrics(probe), (m.metric for m in measurements)
        ),
        duration_s=0.0 if started is None else time.perf_counter() - started,
    )


def reason_of(error: BaseException) -> str:
    """An error as one line of a report: own errors contain advice, others are given with their type."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, AuditorError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def generator_for(seed: int, probe: str) -> np.random.Generator:
    """A probe's own generator, so that its numbers do not depend on other probes."""
    return np.random.default_rng([seed, *probe.encode()])


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Versions of the packages that numbers depend on; a process keeps those that it began with."""
    found = []
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def environment(
    *,
    device: str,
    seed: int,
    limits: Mapping[str, str] | None = None,
    sandbox: SandboxState | None = None,
    command: str | None = None,
) -> Environment:
    """The environment of an audit."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=dict(_installed()),
        device=device,
        seed=seed,
        limits=dict(limits or {}),
        sandbox=sandbox,
        command=command,
    )


def assemble(
    results: Sequence[ProbeResult],
    criteria: Sequence[Criterion],
    *,
    model: ModelRecord,
    data: DataRecord,
    environment: Environment,
    family: Family | None = None,
    refusal: Refusal | None = None,
    allow_inconclusive: Waivers = False,
    duration_s: float = 0.0,
    judgements: tuple[Sequence[Judgement], Family] | None = None,
    energy: EnergyRecord | None = None,
) -> AuditReport:
    """Judge the results and create the record; the only source of outcomes, figures and exit code.

    ``judgements``: what :func:`~auditor.judging.judging.judge` said of them already, which may take longer than the
    model.
    """
    findings, decided = judge(results, criteria, family) if judgements is None else judgements
    return AuditReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tool={"name": "responsible-auditor", "version": __version__},
        model=model,
        data=data,
        environment=environment,
        family=family_record(decided),
        criteria=tuple(c.record for c in criteria),
        findings=tuple(Finding.from_judgement(f) for f in findings),
        figures=tuple(figures_of(findings, results)),
        summary=Summary.from_outcomes(f.outcome for f in findings),
        refusal=refusal,
        allow_inconclusive=allow_inconclusive,
        definitions=tuple(each for result in results for each in result.definitions),
        questions={result.probe: result.questions for result in results if result.questions},
        energy=energy,
        duration_s=duration_s,
        exit_code=int(exit_code(findings, was_refused=refusal is not None, allow_inconclusive=allow_inconclusive)),
    )


def run_audit(
    model: AuditedModel,
    data: AuditData | None,
    probes: Sequence[Probe],
    criteria: Sequence[Criterion] | None = None,
    *,
    seed: int = 0,
    family: Family | None = None,
    allow_inconclusive: Waivers = False,
    progress: Callable[[str], None] | None = None,
    beside: Sequence[ProbeResult] = (),
    by_default: bool = False,
    controls: bool = False,
) -> AuditReport:
    """Audit a model in the caller's process: run every probe in turn, judge jointly.

    ``criteria`` default to the built-in profile. ``beside``: answers that were had already, judged with the others.
    ``by_default``: whether nobody asked for these probes by name, so that a number which cannot be had, and for which
    nobody set a bound, changes no exit code. ``controls``: whether known faults are planted beside. ``progress`` is
    called with a probe's name before it starts. Same seed, same report, but for ``created``, ``duration_s`` and
    ``energy``. Probes leave the model as it was. Raises DataError where model and data do not name the same classes in
    the same order, UsageError for what is no probe, OutputsError where nobody said whether a network returns logits or
    probabilities, and its answers leave it open.
    """
    started = time.perf_counter()
    if family is not None and not 0.0 < family.error_rate <= MOST_RATE:
        raise UsageError(f"An error rate is above 0 and at most {MOST_RATE:g}, not {family.error_rate:g}.")
    for probe in probes:
        if isinstance(probe, type) or not callable(getattr(probe, "measure", None)):
            raise UsageError(f"{probe!r} is no probe: give instances, such as PROBES['group_fairness']().")
    if data is not None and model.kind == "regressor" and data.y_true is not None:
        raise DataError("The data have labels, the model predicts numbers: make them by AuditData.for_regression.")
    if data is not None and model.kind != "regressor" and data.target_values is not None:
        raise DataError("The data have true numbers, the model predicts none: make them by AuditData.from_arrays.")
    if data is not None and data.classes and data.classes != model.classes:
        raise DataError(
            f"The data's classes are {', '.join(data.classes[:8])}, the model's {', '.join(model.classes[:8])}: "
            "give both the same names in the order of the model's outputs."
        )
    device = str(getattr(model, "device", "cpu"))
    results = list(beside)
    with Meter(device) as meter:
        for probe in probes:
            if progress is not None:
                progress(probe.name)
            meter.begins(probe.name)
            results.append(ask(probe, model, data, generator_for(seed, probe.name)))
            meter.ends()
    if controls:
        results[len(beside) :] = with_planted(
            list(zip(probes, results[len(beside) :], strict=True)),
            model,
            data,
            Planting(tuple(load_criteria() if criteria is None else criteria), family or Family(), seed),
        )
    results = [replace(result, by_default=by_default) for result in results]
    results += files_result(data_record(data))
    return assemble(
        results,
        load_criteria() if criteria is None else criteria,
        model=model_record(model),
        data=data_record(data),
        environment=environment(device=device, seed=seed),
        family=family,
        allow_inconclusive=allow_inconclusive,
        energy=meter.record(results, activity="audit"),
        duration_s=time.perf_counter() - started,
    )


def model_record(model: AuditedModel) -> ModelRecord:
    """The record of a model."""
    source = model.provenance
    return ModelRecord(
        path=source.path,
        sha256=source.sha256,
        format=source.format,
        loaded_by=source.loaded_by,
        size_bytes=source.size_bytes,
        n_parameters=getattr(model, "n_parameters", None),
        dtype=getattr(model, "dtype", None),
        classes=model.classes,
        notes=(*source.notes, *filter(None, [model.decision_rule])),
        stated_name=source.stated_name,
    )


def files_result(record: DataRecord | None) -> list[ProbeResult]:
    """The result of reading the rows: nothing if all were read and answered, else a NOT_RUN that names the others."""
    if record is None or not record.n_unreadable:
        return []
    n = record.n_unreadable
    which = "1 file or row" if n == 1 else f"{n:,} files or rows"
    reason = f"{which} could not be read or answered, and no number here is about one. {some_of(record.unreadable, n)}"
    return [ProbeResult(probe=FILES, pillar="intake", citation="", questions=FILE_QUESTIONS, not_run=reason)]


def data_record(data: AuditData | None) -> DataRecord:
    """The record of data in memory."""
    if data is None:
        return DataRecord()
    members = data.members
    return DataRecord(
        n_rows=len(data.evaluation),
        positive=None if data.positive is None else data.classes[data.positive],
        sensitive=() if data.sensitive_features is None else tuple(map(str, data.sensitive_features.columns)),
        n_train_rows=None if members is None else len(members),
        unreadable=tuple(said[:500] for said in data.unreadable[:MOST_UNREADABLE]),
        n_unreadable=len(data.unreadable),
        notes=(*data.notes, *(data.evaluation.design.notes() if data.evaluation.design is not None else ())),
        copies=data.copies if data.copies is not None and data.copies.copies else None,
        groups_sha256=_groups_digests(data.evaluation),
        groups=sizes_of(data.evaluation.sensitive_features),
        missing=missing_of(data.evaluation),
        **(data.evaluation.design.facts() if data.evaluation.design is not None else {}),
    )


def _groups_digests(rows: AuditData) -> dict[str, str] | None:
    """A digest of each sensitive feature's groups, row by row."""
    if rows.sensitive_features is None:
        return None
    found = {}
    for name in map(str, rows.sensitive_features.columns):
        digest, groups = GroupsDigest(), rows.groups(name)
        digest.add(groups.codes, groups.titles)
        found[name] = digest.hexdigest()
    return found
