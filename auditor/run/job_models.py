"""Models of a job: measurements of their loading, a generator known by its files, and writing of a mitigated model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.files import printable_name, read_regular, write_beside
from auditor.data.audit_data import AuditData
from auditor.data.media_classes import meaning_of
from auditor.detection.file_kinds import kind_of
from auditor.judging.measurement import Measurement, ProbeResult, define_metrics, select_definitions
from auditor.judging.planting import Planting
from auditor.loading.job_specs import PREDICTIONS, Job
from auditor.loading.rows.folders import files_in
from auditor.loading.rows.score_columns import predictions_file
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.endpoint.server_findings import Capability, ServedTexts, Shown
from auditor.models.format_names import NO_MODEL
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.model_wrappers import MixtureModel, PreparedModel
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.recorded_model import RecordedGenerator
from auditor.models.saved_models import goes_into_a_bundle, save, save_folder
from auditor.models.torch_model import TorchModel, count_parameters
from auditor.run.job_channel import Channel
from auditor.run.job_messages import Controlled, ServedCompared
from auditor.run.planted.measure_twins import with_planted
from auditor.run.probe import FILE_QUESTIONS, SERVER_QUESTIONS, Probe
from auditor.run.run_audit import generator_for
from auditor.statistics.estimate import Exact, Undefined
from auditor.training.huggingface_folder import save_classifier

CITATION = "Files are identified by content and loaded without running code of theirs (auditor.loading)."


INTAKE_METRICS = define_metrics(
    """
    nonfinite_parameters: parameters and buffers that are NaN or infinite; [0, inf), ideal 0; any at all makes answers
      undefined, so that nothing else that is said of the model can be relied on; IEEE 754
    n_parameters: numbers that were learned, each tensor once; [0, inf), no ideal; how large the model is, which says
      nothing of how good it is
    accepted_and_not_done: capabilities of an endpoint that its server answers requests for as if it had them; [0, inf),
      ideal 0; at 1 whoever relies on it measures something else, and is told nothing
    served_otherwise: 1 where an endpoint is shown to serve another model than the reference, 0 where it is shown to
      serve that within the tolerance; {0, 1}, ideal 0; at 1 what is said of the reference is said of another model
    file_size_bytes: size of the model's file; [0, inf) bytes, no ideal; a file much larger than its parameters holds
      something else too
    """
)


def intake_result(model: AuditedModel) -> ProbeResult:
    """The finding that a model was loaded, as a probe's result, with its parameters and file if it has them.

    - ``served_otherwise``: By what is drawn, which may show a 1, and by log-probabilities, which may show either. A
      false 1 comes once in a thousand scans; what shows neither has no number.
    """
    source = model.provenance
    detail = " ".join([f"{source.format}, loaded by {source.loaded_by}.", *source.notes])
    measurements: list[Measurement] = []
    module = getattr(model, "module", None)
    if isinstance(module, torch.nn.Module):
        parameters, total, broken = count_parameters(module)
        measurements += [
            Measurement(
                metric="nonfinite_parameters",
                estimate=Exact(known=float(broken)),
                n_samples=total,
                ideal=0.0,
                detail=detail,
            ),
            Measurement(
                metric="n_parameters", estimate=Exact(known=float(parameters)), n_samples=parameters, detail=detail
            ),
        ]
    questions = FILE_QUESTIONS
    ignored = getattr(model, "accepted_and_not_done", None)
    if isinstance(ignored, tuple):
        questions = SERVER_QUESTIONS
        measurements.append(
            Measurement(
                metric="accepted_and_not_done",
                estimate=Exact(known=float(len(ignored))),
                n_samples=1,
                ideal=0.0,
                detail=f"{', '.join(ignored) or 'none'}. {detail}",
            )
        )
    served = getattr(model, "served_model", None)
    if isinstance(served, Capability):
        refuted = Exact(known=float(served.shown is Shown.REFUTED))
        untold = Undefined(reason=served.why.rstrip("."))
        measurements.append(
            Measurement(
                metric="served_otherwise",
                estimate=untold if served.shown is Shown.UNTOLD else refuted,
                n_samples=1,
                ideal=0.0,
                detail=served.why,
            )
        )
    if source.size_bytes is not None:
        measurements.append(
            Measurement(
                metric="file_size_bytes", estimate=Exact(known=float(source.size_bytes)), n_samples=1, detail=detail
            )
        )
    if not measurements:
        return ProbeResult(
            probe="intake",
            pillar="intake",
            citation=CITATION,
            questions=questions,
            not_applicable=" ".join(source.notes)
            if source.format == NO_MODEL
            else f"There is no file to measure: {detail}",
        )
    return ProbeResult(
        probe="intake",
        pillar="intake",
        citation=CITATION,
        measurements=tuple(measurements),
        questions=questions,
        definitions=select_definitions("intake", CITATION, INTAKE_METRICS, [m.metric for m in measurements]),
    )


PROVENANCE = Provenance(
    format="a generator's files",
    loaded_by="auditor",
    notes=(
        "No generator was asked: the files were read from the folder, and that it made them, and nothing else, is the "
        "word of whoever put them there.",
    ),
)


def load_made(path: str) -> tuple[AuditedModel, AuditData]:
    """The generator, and the names of its files as rows, not decoded yet.

    Where the folder holds two sub-folders and nothing else, one named as real files are and one as synthetic ones, the
    real ones are unmarked: ``y_true`` is then 0, and 1 for what was made; else it is None, and all files were made.
    Files that are neither image, sound nor video are named among the unreadable. Raises DataError where there is none.
    """
    root = Path(path).resolve()
    names, unreadable = [], []
    for name in files_in(root):
        try:
            content = read_regular(Path(os.path.realpath(root / name)), "It")
            medium = kind_of(content).medium
            why = "" if medium else "It is neither an image nor sound nor video that is known here."
        except DataError as error:
            why = str(error)
        if why:
            unreadable.append(f"{printable_name(name)}: {why}")
        else:
            names.append(name)
    if not names:
        raise DataError(f"No file of {printable_name(root.name)!r} is an image, sound or video.", code="AUD-DATA-EMPTY")
    tops = sorted({name.partition("/")[0] if "/" in name else "" for name in names})
    meant = [meaning_of(top) for top in tops]
    # Nothing is unmarked because of its neighbour's name: both must say what they are.
    made = meant.index("fake") if len(tops) == 2 and set(meant) == {"fake", "real"} else None
    notes: tuple[str, ...] = ()
    labels = None
    if made is not None:
        labels = np.asarray([int(name.partition("/")[0] == tops[made]) for name in names], np.int64)
        notes = (
            f"Files of {printable_name(tops[made])!r} are taken as made by the generator, those of "
            f"{printable_name(tops[1 - made])!r} as "
            "not.",
        )
    return RecordedGenerator(provenance=PROVENANCE), AuditData(
        X=np.asarray(names, object),
        y_true=labels,
        files=np.asarray([str(root / name) for name in names], object),
        unreadable=tuple(unreadable),
        notes=notes,
    )


def check_ending(model: AuditedModel, out: str) -> None:
    """Raise UsageError if a file's extension does not fit this kind of model."""
    if Path(out).suffix not in model.endings:
        raise UsageError(
            f"--out {Path(out).name!r} must end in {' or '.join(model.endings)}: the new model is written "
            f"{'as a bundle' if '.pt' in model.endings else 'in the format of its own library'}."
        )


def write_answers(model: AuditedModel, data: AuditData, out: str) -> None:
    """Write what a new classifier answers on rows beside it, as ``--check-predictions`` takes it."""
    labels = [model.classes[i] for i in model.decisions(data)]
    write_beside(f"{out}{PREDICTIONS}", predictions_file(labels, model.outputs(data), model.classes))


def write_made(model: AuditedModel, out: str, folder: str | None) -> None:
    """Write a new model to ``out``; ``folder``: the old model's Hugging Face folder, if any.

    Raises UsageError for a name that does not fit what is written, ModelError for what cannot be written.
    """
    if isinstance(model, AuditedLanguageModel):
        save_folder(model, out, like=folder)
    elif isinstance(model, PostprocessedModel | PreparedModel | MixtureModel):
        if isinstance(model, PostprocessedModel) and goes_into_a_bundle(model):
            check_ending(model, out)
        save(model, out)
    elif folder is not None and isinstance(model, TorchModel):
        save_classifier(model, out, beside=folder)
    elif folder is not None:
        raise ModelError(
            "A Hugging Face folder has no place for what was put around the model: give a model bundle, or use the "
            "mitigation in Python."
        )
    else:
        check_ending(model, out)
        save(model, out)


def compare_served(texts: ServedTexts, model: AuditedModel, job: Job, channel: Channel) -> None:
    """Compare texts that a server drew with the model."""
    from auditor.models.endpoint.reference_ranks import compare
    from auditor.models.language_model import AuditedLanguageModel

    if not isinstance(model, AuditedLanguageModel):
        raise ModelError("--reference is no language model: name the folder of the one that was audited.")
    channel.send(ServedCompared(compared=compare(model, texts, generator_for(job.seed, "served_model"))))


def send_planted(
    asked: Sequence[tuple[Probe, ProbeResult]],
    model: AuditedModel,
    data: AuditData | None,
    job: Job,
    channel: Channel,
) -> None:
    """Measure the planted controls of the probes that were ``asked``, where the job has some, and send them."""
    if job.planting is not None:
        for result in with_planted(asked, model, data, Planting.from_json(job.planting)):
            if result.planted:
                channel.send(Controlled(probe=result.probe, planted=result.planted))
