"""Publishing of an audit (record, judged numbers, renderings) to an experiment tracker or a model hub.

A place is named on the command line and nowhere else. What cannot be reached is one sentence; the report lies where it
was written all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from auditor.core.errors import MissingExtraError, UsageError, did_you_mean, first_line
from auditor.core.files import write_beside
from auditor.report.record.audit_report import AuditReport, Finding, measurement_label
from auditor.report.record.redact_urls import without_passwords

COLUMNS = ("outcome", "finding", "value", "low", "high", "required", "id")
# What MLflow, the strictest of the places, does not have in the name of a metric.
_NOT_IN_NAMES = re.compile(r"[^\w.\- /]+", re.ASCII)
_LONGEST = 200


@dataclass(frozen=True)
class Published:
    """An audit in the form in which it is published.

    ``document``: the digest of its record, by which it is found and checked. ``files``: what was written of it, the
    record among them. ``numbers``: value, ``/low`` and ``/high`` of every judged finding that has them, by name.
    ``rows``: one of ``COLUMNS`` for every judged finding. ``labels``: what it is looked up by.
    """

    document: str
    files: tuple[Path, ...]
    numbers: Mapping[str, float]
    rows: tuple[tuple[str | float | None, ...], ...]
    labels: Mapping[str, str]


def published(report: AuditReport, document: str, files: tuple[Path, ...]) -> Published:
    """The published parts of a record."""
    judged = [f for f in report.findings if f.criterion is not None]
    numbers: dict[str, float] = {}
    for name, finding in zip(_names(judged), judged, strict=True):
        low, high = finding.interval or (None, None)
        for end, value in (("", finding.value), ("/low", low), ("/high", high)):
            if value is not None and math.isfinite(value):
                numbers[name + end] = float(value)
    return Published(document, files, numbers, tuple(map(_row, judged)), _labels(report, document))


def publish(audit: Published, where: str) -> str:
    """Publish at ``dir:FOLDER``, ``mlflow[:EXPERIMENT]``, ``wandb[:PROJECT]``, ``hf:REPOSITORY``; return the place.

    Raises UsageError for a place that is none, or that does not take it, MissingExtraError without its package.
    """
    kind, place = parsed(where)
    try:
        return PLACES[kind](audit, place)
    except (UsageError, MissingExtraError):
        raise
    except Exception as error:  # whatever a client of a network raises
        why = without_passwords(first_line(error)) or type(error).__name__
        raise UsageError(f"Not published at {kind}: {why}. The report itself is written.") from None


def parsed(where: str) -> tuple[str, str]:
    """The kind and the name of a place. Raises UsageError where there is no such kind, or it needs a name."""
    kind, _, place = where.partition(":")
    if kind not in PLACES:
        known = ", ".join(("dir:FOLDER", "mlflow[:EXPERIMENT]", "wandb[:PROJECT]", "hf:REPOSITORY"))
        raise UsageError(f"Nothing is published at {kind!r}{did_you_mean(kind, PLACES) or '.'} Known: {known}.")
    if kind in ("dir", "hf") and not place:
        raise UsageError(f"--publish {kind} needs a name: {kind}:{'FOLDER' if kind == 'dir' else 'REPOSITORY'}.")
    return kind, place


def _in_folder(audit: Published, place: str) -> str:
    folder = Path(place) / audit.document[:16]
    for file in audit.files:
        write_beside(folder / file.name, file.read_bytes())
    return str(folder)


def _in_mlflow(audit: Published, place: str) -> str:
    client = _package("mlflow", "mlflow").MlflowClient()
    name = place or "auditor"
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    run = client.create_run(experiment, tags=dict(audit.labels), run_name=f"audit {audit.document[:16]}").info
    try:
        for metric, value in audit.numbers.items():
            client.log_metric(run.run_id, metric, value)
        for file in audit.files:
            client.log_artifact(run.run_id, str(file), "audit")
    except Exception:
        # A run that holds half an audit is none.
        client.set_terminated(run.run_id, "FAILED")
        raise
    client.set_terminated(run.run_id, "FINISHED")
    return f"mlflow experiment {name}, run {run.run_id}"


def _in_wandb(audit: Published, place: str) -> str:
    wandb = _package("wandb", "wandb")
    run = wandb.init(
        project=place or "auditor", job_type="audit", name=f"audit {audit.document[:16]}", config=dict(audit.labels)
    )
    code = 1
    try:
        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in audit.rows])
        run.log({**audit.numbers, "audit/findings": table})
        artifact = wandb.Artifact(f"audit-{audit.document[:16]}", type="audit", metadata=dict(audit.labels))
        for file in audit.files:
            artifact.add_file(str(file), name=file.name)
        run.log_artifact(artifact)
        code = 0
    finally:
        run.finish(exit_code=code)
    return str(run.url or f"wandb project {place or 'auditor'}")


def _on_the_hub(audit: Published, place: str) -> str:
    hub = _package("huggingface_hub", "")
    where = f"audits/{audit.document[:16]}"
    operations = [
        hub.CommitOperationAdd(path_in_repo=f"{where}/{file.name}", path_or_fileobj=file.read_bytes())
        for file in audit.files
    ]
    # One commit, so that no half of an audit is ever there.
    done = hub.HfApi().create_commit(
        repo_id=place, operations=operations, commit_message=f"Audit {audit.document[:16]}"
    )
    return f"{done.commit_url} ({where})"


PLACES: Mapping[str, Callable[[Published, str], str]] = {
    "dir": _in_folder,
    "mlflow": _in_mlflow,
    "wandb": _in_wandb,
    "hf": _on_the_hub,
}


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(f"Publishing there needs {name}: pip install 'responsible-auditor[{extra}]'.") from None


def _names(findings: list[Finding]) -> list[str]:
    """A name for each, of what it is of; a number tells apart those that would have the same."""
    names: list[str] = []
    for finding in findings:
        parts = [finding.probe, finding.method or "", measurement_label(finding)]
        name = _NOT_IN_NAMES.sub(" ", ". ".join(part for part in parts if part))
        name = re.sub(r" +", " ", name).strip()[:_LONGEST]
        taken = names.count(name) + sum(n.startswith(f"{name} no. ") for n in names)
        names.append(f"{name} no. {taken + 1}" if taken else name)
    return names


def _row(finding: Finding) -> tuple[str | float | None, ...]:
    low, high = finding.interval or (None, None)
    required = finding.criterion.describe() if finding.criterion is not None else ""
    name = f"{finding.probe}: {measurement_label(finding)}"
    return (finding.outcome.value, name, finding.value, low, high, required, finding.id)


def _labels(report: AuditReport, document: str) -> dict[str, str]:
    about = report.about.model if report.about is not None else None
    said = {
        "document": document,
        "exit_code": str(int(report.exit_code)),
        "created": str(report.created),
        "model": (about.id if about is not None else "") or report.model.path or "",
        "model_version": about.version if about is not None else "",
        "model_sha256": report.model.sha256 or "",
        "data_sha256": report.data.sha256 or "",
        **{outcome: str(count) for outcome, count in report.summary.model_dump().items()},
    }
    return {f"auditor.{name}": value for name, value in said.items() if value}
