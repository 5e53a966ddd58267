"""Models of a job: measurements of their loading, the one at a server, and writing of a mitigated model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from auditor.core.errors import ModelError, UsageError
from auditor.core.files import write_beside
from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Measurement, ProbeResult, define_metrics, select_definitions
from auditor.judging.planting import Planting
from auditor.loading.job_specs import PREDICTIONS, Job
from auditor.loading.rows.score_columns import predictions_file
from auditor.loading.sandbox.outside_requests import Outside
from auditor.models.audited_model import AuditedModel
from auditor.models.endpoint.server_findings import Capability, Handshake, ServedTexts, Shown
from auditor.models.format_names import NO_MODEL
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.model_wrappers import MixtureModel, PreparedModel
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.saved_models import goes_into_a_bundle, save, save_folder
from auditor.models.torch_model import TorchModel, count_parameters
from auditor.run.job_channel import Channel
from auditor.run.job_messages import Calling, Controlled, ServedCompared
from auditor.run.planted.measure_twins import with_planted
from auditor.run.probe import FILE_QUESTIONS, SERVER_QUESTIONS, Probe
from auditor.run.run_audit import generator_for
from auditor.statistics.estimate import Exact, Undefined
from auditor.training.huggingface_folder import save_classifier

if TYPE_CHECKING:
    from auditor.models.endpoint.endpoint_model import EndpointModel

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


def served_model(handshake: Handshake, channel: Channel, *, to_judge: bool = False) -> EndpointModel:
    """The model at a server, whose requests the parent makes."""
    from auditor.models.endpoint.endpoint_model import endpoint_model

    outside = Outside(lambda requests: channel.send(Calling(requests=requests, to_judge=to_judge)), sys.stdin.buffer)
    return endpoint_model(handshake, outside)


def judge_of(job: Job, channel: Channel) -> AbstractContextManager[None]:
    """Context in which the job's judge at a server is at hand, or why it is not to be had."""
    if job.judge is None:
        return nullcontext()
    # Whatever generates imports transformers.
    from auditor.models.endpoint.endpoint_model import judge_at_hand

    judge = job.judge
    return judge_at_hand(served_model(judge, channel, to_judge=True) if isinstance(judge, Handshake) else judge)


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
    asked: Sequence[tuple[Probe, ProbeResult]], model: AuditedModel, data: AuditData | None, job: Job, channel: Channel
) -> None:
    """Measure the planted controls of the probes that were ``asked``, where the job has some, and send them."""
    if job.planting is not None:
        for result in with_planted(asked, model, data, Planting.from_json(job.planting)):
            if result.planted:
                channel.send(Controlled(probe=result.probe, planted=result.planted))
