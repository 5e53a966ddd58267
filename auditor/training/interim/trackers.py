"""Experiment trackers: intervals and outcomes of every look in TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from auditor.judging.judgement import Judgement
from auditor.training.interim.interim_look import metric_name

COLUMNS = ("outcome", "finding", "value", "low", "high", "required", "reason")
Row = tuple[str, str, float | None, float | None, float | None, str, str]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A look in the form for trackers: numbers by name, and a row of ``COLUMNS`` per finding.

    ``at``: the epoch or step; ``closing``: whether these are the findings of the closing look, at its own level.
    """

    at: float
    numbers: Mapping[str, float]
    rows: tuple[Row, ...]
    closing: bool = False

    @property
    def name(self) -> str:
        """The name of its tables and texts."""
        return "audit/closing" if self.closing else "audit/findings"


class Tracker(Protocol):
    """Receiver of looks and reports; its errors are errors of the audit, never of the training."""

    def look(self, summary: Told) -> None:
        """The numbers and findings of a look."""
        ...

    def report(self, files: Mapping[str, str]) -> None:
        """Send the report so far: texts by file name."""
        ...


def rows_of(findings: Sequence[Judgement]) -> tuple[Row, ...]:
    """A row for each finding that was judged or failed to run."""
    return tuple(_row(f) for f in findings if f.criterion is not None or f.measurement is None)


def _row(finding: Judgement) -> Row:
    measured = finding.measurement
    low, high = finding.interval or (math.nan, math.nan)
    return (
        finding.outcome.value,
        finding.probe if measured is None else metric_name(finding.probe, measured),
        None if measured is None else _finite(measured.estimate.value),
        _finite(low),
        _finite(high),
        finding.criterion.describe() if finding.criterion is not None else "",
        finding.reason,
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _nearest(position: float) -> int:
    return round(position)


@dataclass(frozen=True)
class TensorBoard:
    """A ``SummaryWriter``: scalars for value, low and high, a text for the outcomes of each look.

    ``numbers``: whether the scalars go this way, or a trainer logs them already. ``step``: the step of an epoch.
    """

    writer: Any
    numbers: bool = True
    step: Callable[[float], int] = _nearest

    def look(self, summary: Told) -> None:
        """Scalars and the table of outcomes as Markdown."""
        step = self.step(summary.at)
        for name, value in summary.numbers.items() if self.numbers else ():
            self.writer.add_scalar(name, value, step)
        lines = [COLUMNS, ("---",) * len(COLUMNS), *summary.rows]
        table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        self.writer.add_text(summary.name, table, step)
        self.writer.flush()

    def report(self, files: Mapping[str, str]) -> None:
        """Do nothing: TensorBoard stores no files."""


def _cell(value: object) -> str:
    said = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return said.replace("|", "\\|").replace("\n", " ")


@dataclass(frozen=True)
class WeightsAndBiases:
    """A run of ``wandb``: numbers, and a table of the findings of each look. ``numbers`` as of TensorBoard."""

    run: Any
    numbers: bool = True

    def look(self, summary: Told) -> None:
        """Log one entry at the run's own step: an earlier step would be dropped."""
        table = import_module("wandb").Table(columns=list(COLUMNS), data=[list(row) for row in summary.rows])
        numbers = dict(summary.numbers) if self.numbers else {}
        self.run.log({**numbers, summary.name: table, "audit/at": summary.at})

    def report(self, files: Mapping[str, str]) -> None:
        """Do nothing: its tables are its report."""


@dataclass(frozen=True)
class MLflow:
    """A run of an ``MlflowClient``: metrics, and the report as artifacts. ``numbers``, ``step`` as of TensorBoard's."""

    client: Any
    run_id: str
    numbers: bool = True
    step: Callable[[float], int] = _nearest

    def look(self, summary: Told) -> None:
        """Log the metrics; their outcomes are in the report."""
        for name, value in summary.numbers.items() if self.numbers else ():
            self.client.log_metric(self.run_id, name, value, step=self.step(summary.at))

    def report(self, files: Mapping[str, str]) -> None:
        """Write ``audit/report.json`` and ``audit/report.html``, each time again."""
        for name, text in files.items():
            self.client.log_text(self.run_id, text, f"audit/{name}")


def trackers_of(loggers: Iterable[object], *, step: Callable[[float], int] = _nearest) -> list[Tracker]:
    """The trackers behind a trainer's own loggers: callbacks of transformers, loggers of Lightning or Accelerate.

    Of Accelerate give ``accelerator.trackers``. They are sent no numbers, which a trainer's own ``log`` does. Loggers
    of another kind, and such as write nothing in this process, are left out.
    """
    found = (_tracker(logger, step) for logger in loggers)
    return [tracker for tracker in found if tracker is not None]


def _tracker(logger: Any, step: Callable[[float], int]) -> Tracker | None:
    for kind in type(logger).__mro__:
        if kind.__name__ in _WRITERS:
            writer = _WRITERS[kind.__name__](logger)
            return None if writer is None else TensorBoard(writer, False, step)
        if kind.__name__ in _RUNS:
            run = _RUNS[kind.__name__](logger)
            return None if run is None else WeightsAndBiases(run, False)
        if kind.__name__ in _CLIENTS:
            client, run_id = _CLIENTS[kind.__name__](logger)
            return None if run_id is None else MLflow(client, run_id, False, step)
    return None


def _of_mlflow(module: Any) -> tuple[Any, str | None]:
    active = module.active_run()
    return module.MlflowClient(), None if active is None else active.info.run_id


# By the names of classes: none of their packages need be installed.
_WRITERS: Mapping[str, Callable[[Any], Any]] = {
    "TensorBoardCallback": lambda callback: callback.tb_writer,
    "TensorBoardLogger": lambda logger: logger.experiment,
    "TensorBoardTracker": lambda tracker: tracker.tracker,
}
_RUNS: Mapping[str, Callable[[Any], Any]] = {
    "WandbCallback": lambda callback: callback._wandb.run,
    "WandbLogger": lambda logger: logger.experiment,
    "WandBTracker": lambda tracker: tracker.tracker,
}
_CLIENTS: Mapping[str, Callable[[Any], tuple[Any, str | None]]] = {
    "MLflowCallback": lambda callback: _of_mlflow(callback._ml_flow),
    "MLFlowLogger": lambda logger: (logger.experiment, logger.run_id),
    "MLflowTracker": lambda tracker: (import_module("mlflow").MlflowClient(), tracker.tracker.info.run_id),
}
