"""Measurements of model loading: finiteness of the weights, model size, and the loading method of each byte."""

from __future__ import annotations

from typing import Any

import torch

from auditor.judging.definition import define_metrics, select_definitions
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.endpoint.capability import Capability, Shown
from auditor.run.probe import FILE_QUESTIONS
from auditor.statistics.estimate import Exact, Undefined

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
    ignored = getattr(model, "accepted_and_not_done", None)
    if isinstance(ignored, tuple):
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
            questions=FILE_QUESTIONS,
            not_applicable=f"There is no file to measure: {detail}",
        )
    return ProbeResult(
        probe="intake",
        pillar="intake",
        citation=CITATION,
        measurements=tuple(measurements),
        questions=FILE_QUESTIONS,
        definitions=select_definitions("intake", CITATION, INTAKE_METRICS, [m.metric for m in measurements]),
    )


def count_parameters(module: torch.nn.Module) -> tuple[int, int, int]:
    """(parameters, parameters and buffers, how many of the latter are NaN or infinite), each tensor once."""
    parameters = sum(p.numel() for p in module.parameters())
    tensors: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    total = sum(t.numel() for t in tensors.values())
    real = [t.detach() for t in tensors.values() if t.is_floating_point() or t.is_complex()]
    broken = sum(int((~torch.isfinite(part)).sum()) for t in real for part in t.reshape(-1).split(1 << 24))
    return parameters, total, broken
