"""The jobs of the sandboxed process except training on tables: loads the model and data, measures, reports."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd

from auditor.core.errors import DataError, LacksOptionError, OtherKindError, OutputsError, UsageError
from auditor.core.files import decode_path, sha256_of, state_of, table_place, write_beside
from auditor.data.audit_data import AuditData, favourable
from auditor.data.group_counts import GroupCounts, GroupsDigest
from auditor.data.row_keys import KeyDigest
from auditor.data.score_counts import Asked
from auditor.detection.detection_record import DetectorRecord
from auditor.detection.examine_file import Examination, loaded_detector
from auditor.detection.generator_files import load_made
from auditor.judging.measurement import Copies, Measurement, ProbeResult, why_doubtful
from auditor.loading.formats import Opened, load_model
from auditor.loading.job_specs import (
    PREDICTIONS,
    DataSpec,
    DetectionSpec,
    DetectorTrainingSpec,
    ExplainSpec,
    ExportSpec,
    Job,
    MitigationSpec,
    ModelSpec,
    ProbeSpec,
    answers_apart,
)
from auditor.loading.rows.data_without_model import load_recorded
from auditor.loading.rows.folders import sha256_of_folder
from auditor.loading.rows.load_rows import check_favourable, load_data
from auditor.loading.rows.new_values import NewValues
from auditor.loading.rows.row_warnings import (
    RepeatCount,
    RepeatedAnswers,
    answers_are_comparable,
    on_copies,
    repeats_in,
    with_repeated_answers,
)
from auditor.loading.rows.streamed_rows import Stream, can_stream, no_rows, why_not_streamed
from auditor.loading.rows.table_files import open_table
from auditor.loading.sandbox.answered_models import answered_model, runs_code
from auditor.loading.user_code import code_process
from auditor.models.audited_model import AuditedModel
from auditor.models.detector_card import ChannelCalibration, DetectorCard
from auditor.models.files.model_bytes import printable
from auditor.models.files.streamed_safetensors import check_unchanged
from auditor.models.saved_models import save
from auditor.report.record.audit_report import MOST_UNREADABLE, DataRecord
from auditor.report.record.configuration import check_keys, check_reference, check_words, spelled
from auditor.report.record.group_sizes import missing_in, sizes_in
from auditor.run.job_channel import Channel, Working
from auditor.run.job_messages import (
    Answered,
    Asking,
    DataRead,
    DetectorLoaded,
    Examined,
    FileExported,
    Keeping,
    Kept,
    Loaded,
    Opening,
    Repaired,
    RowExplained,
    Scored,
    Trained,
)
from auditor.run.job_models import (
    check_ending,
    compare_served,
    intake_result,
    judge_of,
    send_planted,
    served_model,
    write_answers,
    write_made,
)
from auditor.run.membership_scores import ScoresProbe
from auditor.run.mitigation import Training, experience_of, keeps_kind, learns, make_mitigation, needs_rows
from auditor.run.planted.twin_costs import plants_in
from auditor.run.plugins import load_mitigation, load_probe_class
from auditor.run.predictions import CountsRecord, counts_of, head_of, parts_of
from auditor.run.probe import (
    Need,
    Probe,
    Streamed,
    StreamedProbe,
    counts_suffice,
    looks_at_rows,
    make_probe,
    missing_needs,
    needs_rows_themselves,
    no_data,
    not_applicable,
    note_on_streamed,
)
from auditor.run.run_audit import alike_in_counts, ask, attempt, data_record, generator_for, model_record
from auditor.statistics.estimate import Undefined
from auditor.training.meter import taken_by_probe
from auditor.training.task_distribution import ThroughParent
from auditor.training.task_executor import tasks_by


def load_probe(spec: ProbeSpec) -> Probe:
    """The probe of a spec, with its options."""
    # A class that the user names goes by the name it was given; what a distribution brings is that name's own.
    return make_probe(load_probe_class(spec.target, spec.name if spec.distribution else None), spec.options)


class Hashing(Thread):
    """Digests of the data files, computed while the model works: hashing releases the interpreter lock.

    It begins before anything is read, so that rows and digest are of the same bytes where the files are then as they
    were.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(daemon=True)
        self.spec = spec
        self.digest: str | None = None
        self.train_digest: str | None = None
        self._paths = [Path(path) for path in (spec.path, spec.train) if path is not None]
        # What is absent is said by whoever reads it.
        self._before = [state_of(path) if table_place(path)[0].exists() else None for path in self._paths]
        self.start()

    def run(self) -> None:
        self.digest = _digest(Path(self.spec.path))
        if self.spec.train is not None:
            self.train_digest = _digest(Path(self.spec.train))

    def ended(self) -> None:
        """Wait for the digests.

        Raises DataError where a file is no longer what it was when they began.
        """
        self.join()
        for path, before in zip(self._paths, self._before, strict=True):
            if not table_place(path)[0].exists() or state_of(path) != before:
                raise DataError(
                    f"{printable(path.name)!r} changed while it was read, so that its digest may be of other rows than "
                    "those audited: audit it again when nothing writes to it.",
                    code="AUD-DATA-CHANGED",
                )


def _digest(path: Path) -> str:
    return sha256_of_folder(path) if path.is_dir() else sha256_of(path)


def complete_record(record: DataRecord, spec: DataSpec, hashing: Hashing) -> DataRecord:
    """The data's record, completed with facts known only from the files."""
    hashing.ended()
    return record.model_copy(
        update={
            "path": spec.path,
            "sha256": hashing.digest,
            "target": spec.target,
            "sensitive": tuple(dict.fromkeys(spec.sensitive)),
            "train_path": spec.train,
            "train_sha256": hashing.train_digest,
        }
    )


def run(job: Job, channel: Channel, model_files: list[Opened] | None = None) -> None:
    """The job, from loading to the last answer. Raises ModelError where the model's files changed meanwhile."""
    # What trains writes its weights, and keeps them in memory.
    job = replace(job, model=replace(job.model, mapped=job.mitigation is None))
    with judge_of(job, channel):
        _run(job, channel, model_files)
    check_unchanged()


def _run(job: Job, channel: Channel, model_files: list[Opened] | None) -> None:
    # Before anything of the rows is read.
    other = job.mitigation or job.export or job.explain
    hashing = None if job.data is None or other is not None else Hashing(job.data)
    if job.model.code_folder is not None and not answers_apart(job):
        sys.path.append(job.model.code_folder)
    if job.detection is not None:
        examine(job.detection, job, channel)
        return
    if job.detector_training is not None:
        train_detector(job.detector_training, job, channel)
        return
    probes = [load_probe(spec) for spec in job.probes]
    recorded = None if job.data is None or job.data.recorded is None else _recorded(job.model, job.data)
    # Handed over, so that the file's bytes are let go of when it is loaded.
    model = _model(job, channel, model_files) if recorded is None else recorded[0]
    channel.send(Loaded(model=model_record(model), device=job.model.device))
    if job.with_intake:
        channel.send(Answered(result=intake_result(model)))
    if _run_without_probes(job, model, channel):
        return
    if job.data is None or hashing is None:
        channel.send(DataRead(data=DataRecord()))
        answer(probes, model, None, job, channel)
        return
    if recorded is None and any(Need.SENSITIVE in probe.needs for probe in probes):
        check_favourable(job.data, model)
    if job.data.stream and (why := why_not_streamed(job.data, model)):
        raise UsageError(f"--stream: {why}")
    by_row = job.evidence is not None or recorded is not None or plants_in(job.planting, job.data.path)
    counted = probes and all(map(counts_suffice, probes)) and not by_row
    if job.data.stream or (counted and can_stream(job.data, model)):
        answer_from_counts(probes, model, job, job.data, channel, hashing)
        return
    data = load_data(job.data, model) if recorded is None else recorded[1]
    _answer_from_rows(probes, model, job, data, channel, hashing)


def _run_without_probes(job: Job, model: AuditedModel, channel: Channel) -> bool:
    """Does what a job asks of a model other than probes; False where it asks for nothing else."""
    if job.mitigation is not None:
        mitigate(job.mitigation, model, job, channel)
    elif job.export is not None:
        export(job.export, model, job, channel)
    elif job.served is not None:
        compare_served(job.served, model, job, channel)
    elif job.explain is not None:
        explain(job.explain, model, job, channel)
    else:
        return False
    return True


def _answer_from_rows(
    probes: Sequence[Probe], model: AuditedModel, job: Job, data: AuditData, channel: Channel, hashing: Hashing
) -> None:
    """Sends the data's record and the answers of all probes over rows in memory."""
    spec = hashing.spec
    _check_labels(spec, data)
    data = with_repeated_answers(model, data)
    record = data_record(data)
    check_reference(spec.reference_groups, record.groups or {})
    if job.recognise:
        record = record.model_copy(update={"rows_sha256": data.evaluation.digest})
    channel.send(DataRead(data=complete_record(record, spec, hashing)))
    if job.evidence is not None:
        keep(model, data, channel, include_rows=job.evidence == "rows")
    answer(probes, model, data, job, channel)


def _model(job: Job, channel: Channel, model_files: list[Opened] | None) -> AuditedModel:
    if job.model.endpoint is None:
        if job.model.device.startswith("cuda"):
            # A table's model may be without torch, and then its import is left out.
            from auditor.models.forward_passes import exact_products

            exact_products(job.model.device)
        model_file = model_files.pop() if model_files else None
        process = code_process()
        if process is not None and runs_code(job.model, model_file):
            return answered_model(process, job.model, model_file)
        return load_model(job.model, model_file=model_file)
    return served_model(job.model.endpoint, channel)


def _recorded(model: ModelSpec, data: DataSpec) -> tuple[AuditedModel, AuditData]:
    """The model that is known by what it answered, or by the files that it made, and the rows with it."""
    known = data.recorded is not None and (data.recorded.is_log or data.recorded.rows_alone)
    made = Path(data.path).is_dir() and not known
    return load_made(data.path) if made else load_recorded(model, data)


def mitigate(spec: MitigationSpec, model: AuditedModel, job: Job, channel: Channel) -> None:
    """Make the new model and write it."""
    kind = load_mitigation(spec.target, spec.name)
    mitigation = make_mitigation(kind, spec.options)
    if job.data is None:
        if needs_rows(kind):
            raise UsageError("A mitigation learns from rows: add --train FILE.")
        data, record = no_data(), DataRecord()
    elif not learns(kind):
        # Nothing of the rows but which answer is the favourable one.
        positive = favourable(job.data.positive, model.classes)
        data, record = replace(no_data(), classes=model.classes, positive=positive), DataRecord()
    else:
        data = load_data(job.data, model)
        record = data_record(data)
    channel.send(DataRead(data=record))
    training = Training(
        device=job.model.device,
        checkpoint=None if spec.checkpoint is None else Path(spec.checkpoint),
        progress=lambda words: channel.send(Working(words=words[:500])),
    )
    from auditor.models.torch_model import TorchModel

    folder = job.model.path if job.model.path is not None and Path(job.model.path).is_dir() else None
    if folder is None and keeps_kind(kind) and (model.fits_anew or isinstance(model, TorchModel)):
        # Known before the work, since the old model's kind is the new one's; any other is refused by the mitigation.
        check_ending(model, spec.out)
    made = mitigation.mitigate(model, data, generator_for(job.seed, spec.name), training)
    write_made(made.model, spec.out, folder)
    if spec.asked_rows is not None and job.data is not None and made.model.kind == "classifier":
        write_answers(made.model, load_data(replace(job.data, path=spec.asked_rows), made.model), spec.out)
    notes = made.notes
    seen = getattr(mitigation, "describe_gate_counts", None)
    if seen is not None and job.data is not None and not learns(kind):
        notes = (*notes, *seen(made.model, load_data(job.data, made.model)))
    experience = experience_of(kind)
    if experience is not None and (warning := experience.warning()):
        notes = (*notes, warning)
    channel.send(Repaired(notes=tuple(note[:2_000] for note in notes)))


def export(spec: ExportSpec, model: AuditedModel, job: Job, channel: Channel) -> None:
    """Write the model in another format, unless that changes a row's decision."""
    from auditor.loading.exporting.exported_model import export_of

    positive = favourable(spec.positive, model.classes) if model.kind == "classifier" else None
    made = export_of(model, spec.to, positive=positive)
    found = None
    if job.data is not None:
        rows = load_data(job.data, model).X
        channel.send(DataRead(data=DataRecord()))
        assert isinstance(rows, pd.DataFrame)
        found = made.equality(rows)
    differing = () if found is None else found.differing
    if not differing:
        write_beside(decode_path(spec.out), made.content)
        if found is not None:
            write_beside(f"{decode_path(spec.out)}{PREDICTIONS}", found.predictions)
    channel.send(
        FileExported(
            sha256=model.provenance.sha256 or "",
            classes=model.classes,
            positive=None if positive is None else model.classes[positive],
            rows=None if found is None else found.rows,
            n_differing=len(differing),
            differing=differing[:20],
            largest_difference=0.0 if found is None else found.largest_difference,
        )
    )


def explain(spec: ExplainSpec, model: AuditedModel, job: Job, channel: Channel) -> None:
    """Explain one row after another."""
    if job.data is None:
        raise UsageError("Which rows? Add --data FILE.")
    hashing = Hashing(job.data)
    data = load_data(job.data, model)
    channel.send(DataRead(data=complete_record(data_record(data), job.data, hashing)))
    _check_labels(job.data, data)
    if data.unreadable and isinstance(data.X, pd.DataFrame):
        # Rows are named by their places in the file.
        n = len(data.unreadable)
        why = f"The model refuses {n:,} of the rows: leave them out of the file. {data.unreadable[0]}"
        raise DataError(why, code="AUD-DATA-VALUES")
    explain_each = _function(spec.target)
    named = {open_table(job.data.path).row_where(*each): "=".join(each) for each in spec.where}
    spec = replace(spec, rows=tuple(dict.fromkeys((*spec.rows, *named))))
    rng = generator_for(job.seed, "explain")
    for row in explain_each(spec, model, data, rng, lambda words: channel.send(Working(words=words))):
        channel.send(RowExplained(row=row.model_copy(update={"named_by": named.get(row.row, "")})))


def _check_labels(spec: DataSpec, data: AuditData) -> None:
    """Raises UsageError for a label, or a role, of a column or value that is not there."""
    if not spec.labels and not spec.roles:
        return
    values: dict[str, set[str]] = {} if spec.target is None else {spec.target: set(data.classes)}
    for table in (data.X, data.sensitive_features):
        if isinstance(table, pd.DataFrame):
            values |= {str(c): set(map(spelled, table[c].dropna().unique())) for c in table.columns}
    _check_columns(spec, values)


def _check_columns(spec: DataSpec, values: Mapping[str, Collection[str]]) -> None:
    columns = {*values, *([] if Path(spec.path).is_dir() else open_table(spec.path).columns)}
    check_keys(spec.labels, columns, values)
    check_words(spec.labels, columns, values)
    check_keys(spec.roles, columns, values, "[roles]")


def examine(spec: DetectionSpec, job: Job, channel: Channel) -> None:
    """Examine the files one after another, with the detector if there is one."""
    named = job.model.path is not None or job.model.predict is not None
    detector = loaded_detector(job.model, spec.meanings, spec.folders) if named else None
    record = None
    if detector is not None:
        if spec.card is not None:
            detector = detector.with_card(DetectorCard.model_validate_json(spec.card))
        if spec.error_rate is not None:
            detector = detector.with_card(detector.card.at_error_rate(spec.error_rate))
        if spec.out is not None:
            save(detector, spec.out)
        sha256, whole = detector.provenance.sha256, spec.with_calibration
        record = DetectorRecord.from_card(
            detector.classes, detector.card, sha256, with_calibration=whole, with_training=spec.scores_only
        )
        if spec.scores_only:
            card = detector.card.model_copy(update={"channel": ChannelCalibration()})
            detector = detector.with_card(card)
    channel.send(DetectorLoaded(detector=record, device=job.model.device))
    asked = Examination(
        detector=detector,
        trust_anchors=spec.trust_anchors,
        scores_only=spec.scores_only,
        changes=None if spec.changes is None else _function(spec.changes),
        seed=job.seed,
    )
    for file in spec.files:
        channel.send(Opening(file=file))
        channel.send(Examined(file=file, result=asked.examine_file(Path(decode_path(file)))))


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def train_detector(spec: DetectorTrainingSpec, job: Job, channel: Channel) -> None:
    """Train a detector on a folder's files and write it."""
    made = _function(spec.target)(
        spec,
        generator_for(job.seed, "detect_train"),
        job.model.device,
        lambda words: channel.send(Working(words=words[:500])),
        lambda file: channel.send(Working(file=file[:500])),
    )
    save(made.detector, spec.out)
    channel.send(
        Trained(
            detector=DetectorRecord.from_card(made.detector.classes, made.detector.card, sha256_of(Path(spec.out))),
            device=job.model.device,
            notes=tuple(note[:2_000] for note in made.notes),
            left_out=tuple(line[:2_000] for line in made.left_out),
            few=made.few[:2_000],
        )
    )


def keep(model: AuditedModel, data: AuditData, channel: Channel, *, include_rows: bool) -> None:
    """Send the model's answers, which the probes share; a model without answers is reported by the probes."""
    try:
        head = head_of(model, data, include_rows=include_rows)
        counts = counts_of(model, data)
        parts = iter(()) if head is None else parts_of(model, data, head)
    except OutputsError:
        raise
    except Exception as error:
        traceback.print_exception(error)
        return
    channel.send(Keeping(head=head, counts=counts))
    for part in parts:
        channel.send(Kept(part=part))


def answer(probes: Sequence[Probe], model: AuditedModel, data: AuditData | None, job: Job, channel: Channel) -> None:
    """Run the probes one after another on rows in memory."""
    # The parent hands out what is expensive, where the job says so.
    with tasks_by(None if job.tasks is None else ThroughParent(Path(job.tasks))):
        _ask_all(probes, model, data, job, channel)


def _ask_all(probes: Sequence[Probe], model: AuditedModel, data: AuditData | None, job: Job, channel: Channel) -> None:
    asked = []
    for spec, probe in zip(job.probes, probes, strict=True):
        channel.send(Asking(probe=spec.name))
        result = ask(probe, model, data, generator_for(job.seed, spec.name), on_error=traceback.print_exception)
        kept = probe.kept if isinstance(probe, ScoresProbe) and job.evidence == "rows" else None
        if kept is not None and kept.head.probe == spec.name and result.measurements and kept.can_be_kept:
            channel.send(Scored(head=kept.head, columns=kept.columns()))
        asked.append((probe, replace(result, probe=spec.name)))
        channel.send(Answered(result=asked[-1][1]))
    send_planted(asked, model, data, job, channel)


@dataclass(frozen=True, eq=False)
class _RowCounts:
    """What streaming the rows gave: ``counts``, or the error of a model that failed on some row."""

    counts: GroupCounts | Exception
    record: DataRecord
    copies: Copies | None = None
    streamed: Streamed | None = None


def answer_from_counts(
    probes: Sequence[Probe], model: AuditedModel, job: Job, spec: DataSpec, channel: Channel, hashing: Hashing
) -> None:
    """Stream the rows through the model; every probe that can uses the counts."""
    first = job.probes[0].name if probes else None
    if first is not None:
        channel.send(Asking(probe=first))
    noted = taken_by_probe(model)
    try:
        rows = _count_rows(probes, model, spec, recognise=job.recognise)
    except (DataError, OutputsError, UsageError):
        raise
    except Exception as error:  # the model failed on some row: no probe that counts its decisions can answer
        traceback.print_exception(error)
        rows = _RowCounts(error, DataRecord())
    channel.send(DataRead(data=complete_record(rows.record, spec, hashing)))
    if job.evidence is not None:
        bare = isinstance(rows.counts, Exception) or not rows.counts.features
        table = None if bare or isinstance(rows.counts, Exception) else CountsRecord.from_counts(rows.counts)
        channel.send(Keeping(head=None, counts=table))
    shape, asked = no_rows(spec), list[tuple[Probe, ProbeResult]]()
    for named, probe in zip(job.probes, probes, strict=True):
        if named.name != first:
            channel.send(Asking(probe=named.name))
            noted = taken_by_probe(model)
        sample = None if rows.streamed is None else rows.streamed.sample
        # What asks the model alone asks it as ever.
        asks_rows = isinstance(sample, AuditData) and needs_rows_themselves(probe)
        if asks_rows or not looks_at_rows(probe):
            own = sample if isinstance(sample, AuditData) and asks_rows else None
            found = ask(probe, model, own, generator_for(job.seed, named.name), on_error=traceback.print_exception)
        else:
            found = _answer_of_counts(probe, model, shape, rows)
        result = replace(found, probe=named.name)
        result = noted(replace(result, copies=rows.copies)) if looks_at_rows(probe) else result
        asked.append((probe, result))
        channel.send(Answered(result=result))
    send_planted(asked, model, None, job, channel)


def _count_rows(probes: Sequence[Probe], model: AuditedModel, spec: DataSpec, *, recognise: bool) -> _RowCounts:
    """Counts the rows in one pass, with what streamed probes ask to know of them, and makes the data's record."""
    keys = KeyDigest() if recognise else None
    repeats, digests, holes = RepeatCount(near=True), dict[str, GroupsDigest](), Counter[str]()
    stream = Stream(spec, model)
    asked = [probe.stream_needs for probe in probes if isinstance(probe, StreamedProbe)] if spec.stream else []
    if spec.stream and any(map(needs_rows_themselves, probes)):
        asked.append(Asked(rows=True))
    told = stream.make_counters(reduce(Asked.__or__, asked)) if asked else None
    copies_seen = None if spec.copies_are_real else repeats
    answers = RepeatedAnswers() if answers_are_comparable(model) and spec.text is None else None
    new = NewValues(model, stream.file.path.name, MOST_UNREADABLE)
    counts, notes = stream.count_by_group(
        keys=keys, repeats=copies_seen, answers=answers, digests=digests, holes=holes, collector=told, new=new
    )
    streamed = None
    if told is not None:
        stream.settle(told.scores)
        kept = None if told.sample is None else told.sample.rows_or_reason()
        streamed = Streamed(counts, told.scores, told.features, model, kept)
    sizes = sizes_in(counts)
    check_reference(spec.reference_groups, sizes)
    if spec.labels or spec.roles:
        seen = {name: {group[i] for group in counts.groups} for i, name in enumerate(counts.features)}
        _check_columns(spec, seen if spec.target is None else {**seen, spec.target: set(counts.classes)})
    copies, more = repeats_in(stream.file, repeats, spec)
    if copies is not None and not why_doubtful(copies) and answers is not None and (pasted := answers.result()):
        copies, more = pasted, [*more, *on_copies(pasted)]
    record = DataRecord(
        n_rows=counts.n,
        positive=None if counts.positive is None else counts.classes[counts.positive],
        rows_sha256=None if keys is None else keys.hexdigest(),
        unreadable=tuple(new.refused),
        n_unreadable=new.n_refused,
        notes=(*notes, *more, *([note_on_streamed(streamed)] if spec.stream else [])),
        copies=copies if copies and copies.copies else None,
        groups_sha256={name: digest.hexdigest() for name, digest in digests.items()} or None,
        groups=sizes or None,
        missing=missing_in(counts, spec.target is not None, None if spec.text else holes),
    )
    return _RowCounts(counts, record, copies, streamed)


def _answer_of_counts(probe: Probe, model: AuditedModel, shape: AuditData, rows: _RowCounts) -> ProbeResult:
    """The result of a probe from counts; the error of a model that failed is printed only once, by the caller."""
    measure = partial(_measure_counts, probe, model, shape, rows.counts, rows.streamed)
    if isinstance(rows.counts, Exception):
        return attempt(probe, measure, find_constant_answers=None, on_error=None)
    scores = None if rows.streamed is None else rows.streamed.scores
    alike = partial(alike_in_counts, rows.counts, scores=scores)
    return attempt(probe, measure, find_constant_answers=alike, on_error=traceback.print_exception)


def _measure_counts(
    probe: Probe,
    model: AuditedModel,
    shape: AuditData,
    counts: GroupCounts | Exception,
    streamed: Streamed | None,
) -> Sequence[Measurement]:
    missing = missing_needs(probe, model, shape)
    if missing:
        raise not_applicable(missing, model)
    if isinstance(counts, Exception):
        raise counts
    if counts_suffice(probe):
        return probe.measure_counts(counts)
    if isinstance(probe, StreamedProbe) and streamed is not None:
        return probe.measure_streamed(streamed)
    _refuse_whatever_the_rows(probe, model, shape)
    why = streamed.sample.reason if streamed is not None and isinstance(streamed.sample, Undefined) else "none are kept"
    raise DataError(f"{probe.name} looks at the rows themselves, and {why}.")


def _refuse_whatever_the_rows(probe: Probe, model: AuditedModel, shape: AuditData) -> None:
    """Raises what keeps the probe from applying to any rows, as it says itself of none: that it is about another kind,
    or lacks an option."""
    try:
        probe.measure(model, shape, np.random.default_rng(0))
    except (OtherKindError, LacksOptionError):
        raise
    except Exception:  # whatever it makes of no rows is about them alone
        return
