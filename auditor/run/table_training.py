"""Training on a table in the sandboxed process: the bundle, the files of rows and answers, and the performance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from auditor.core.errors import UsageError
from auditor.core.files import decode_path, write_beside
from auditor.data.audit_data import favourable
from auditor.loading.job_specs import Job
from auditor.loading.rows.score_columns import predictions_file
from auditor.models.saved_models import save
from auditor.run.job_channel import Channel, Known, TableTrained, Working
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.training.computation_cost import flops_of
from auditor.training.train_table import TrainedModel, train_table
from auditor.training.training_rows import WeightedShare, write_rows


def train(job: Job, channel: Channel) -> None:
    """The training of the job, from the table to its files."""
    asked = job.table_training
    if asked is None:
        raise UsageError("Nothing is to be trained: name a table.")
    spec = replace(asked.table, data=decode_path(asked.table.data), device=job.model.device)
    trained = train_table(spec, lambda words: channel.send(Working(words=words[:500])))
    write_rows(decode_path(asked.train_out), spec.data, trained.train_rows, trained.left_out)
    write_rows(decode_path(asked.test_out), spec.data, trained.test_rows, trained.left_out)
    save(trained.model, decode_path(asked.out))
    flops, _ = (None, "") if spec.dp_epsilon is not None else flops_of(trained.model, trained.model.forwarded)
    write_beside(decode_path(asked.predictions_out), _predictions(trained, spec.positive))
    channel.send(
        TableTrained(
            features=_lines(trained.model.features or ()),
            notes=_lines(trained.notes),
            recognised=_lines(trained.recognised),
            accuracy=_estimate_record(trained.accuracy),
            n=trained.accuracy.n,
            majority_share=trained.majority_share,
            auc=None if trained.auc is None else _estimate_record(trained.auc),
            device=spec.device,
            flops=flops,
        )
    )


def _predictions(trained: TrainedModel, positive: str | None) -> bytes:
    model = trained.model
    rows = trained.test[list(model.features or ())]
    probabilities = model.predict_part(rows)
    decided = model.decide(probabilities, favourable(positive, model.classes))
    return predictions_file([model.classes[i] for i in decided], probabilities, model.classes)


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text[:2_000] for text in texts)


def _estimate_record(estimate: AnyEstimate | WeightedShare) -> Known:
    low, high = estimate.interval(0.95)
    return Known(value=float(estimate.value), low=float(low), high=float(high))
