"""Result messages of the child processes of an audit, a mitigation or a detector: one strict type per job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from auditor.core.errors import DataError
from auditor.core.files import decode_path, readable
from auditor.detection.detection_record import DetectorRecord, FileResult
from auditor.judging.measurement import ProbeResult
from auditor.judging.row_explanations import ExplainedRow
from auditor.models.endpoint.server_findings import Compared
from auditor.report.record.audit_report import DataRecord, ModelRecord
from auditor.report.record.energy import EnergyRecord
from auditor.report.record.number_text import visible
from auditor.run.job_messages import (
    Answered,
    Asking,
    Controlled,
    DataRead,
    DetectorLoaded,
    Examined,
    FileExported,
    Keeping,
    Kept,
    Loaded,
    Message,
    Opening,
    Repaired,
    RowExplained,
    Scored,
    ServedCompared,
    Trained,
)
from auditor.run.job_reader import Heard, OnStage
from auditor.run.membership_scores import MembershipScores, scores_of
from auditor.run.predictions import CountsRecord, KeptRows
from auditor.training.meter import Meter


@dataclass
class Measured(Heard):
    """The results of probes.

    A fresh child for the remaining probes says model, data and answers all again.

    ``keeps``: whether the model's answers by row were asked for, ``keeps_members`` whether who is a member was too.
    """

    keeps: bool = False
    keeps_members: bool = False

    results: list[ProbeResult] = field(default_factory=list)
    model: ModelRecord | None = None
    data: DataRecord | None = None
    counts: CountsRecord | None = None
    rows: KeptRows | None = None
    memberships: MembershipScores | None = None
    meter: Meter | None = None
    energy: EnergyRecord | None = None

    def answers(self) -> KeptRows | None:
        """The model's answers by row, if they were requested and are complete."""
        return self.rows if self.rows is not None and self.rows.whole else None

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                if self.model is None:
                    self.model, self.device = message.model, message.device
                on_stage("reading the data")
            case DataRead():
                self.data = self.data or message.data
            case Keeping() if not self.keeps:
                raise ValueError("answers that nobody asked for")
            case Kept() if not self.keeps:
                raise ValueError("answers that nobody asked for")
            case Keeping():
                # Without groups it is no part of the evidence.
                self.counts = message.counts if message.counts is not None and message.counts.features else None
                self.rows = None if message.head is None else KeptRows(message.head)
            case Kept():
                self._add_rows(message)
            case Scored():
                self._add_memberships(message)
            case Asking():
                self._begins(message.probe)
                if self.meter is not None:
                    self.meter.begins(message.probe)
                on_stage(message.probe)
            case Answered():
                self._add_result(message)
            case Controlled():
                own = [replace(r, planted=message.planted) if r.probe == message.probe else r for r in self.results]
                self.results = own
            case _:
                super()._handle_message(message, on_stage)

    def _add_rows(self, message: Kept) -> None:
        if self.rows is None:
            raise ValueError("answers before their head")
        try:
            self.rows.add(message.part)
        except DataError as error:
            raise ValueError(str(error)) from None

    def _add_memberships(self, message: Scored) -> None:
        if not self.keeps_members or message.head.probe != self.asking:
            raise ValueError("membership scores that nobody asked for")
        try:
            scores = scores_of(message.head, message.columns)
        except DataError as error:
            raise ValueError(str(error)) from None
        if self.memberships is None or self.memberships.head.probe == self.asking:
            self.memberships = scores  # a bundle holds those of one probe

    def _add_result(self, message: Answered) -> None:
        name = message.result.probe
        known = {result.probe for result in self.results}
        if name in known or (name != self.asking and name != "intake"):
            raise ValueError("an answer to no question")
        self.results.append(message.result)
        if self.meter is not None:
            self.meter.ends()
        self.asking = None


@dataclass
class Mitigated(Heard):
    """The record of the mitigated model that was written; None if none was written."""

    notes: tuple[str, ...] | None = None

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.device = message.device
                on_stage("reading the data")
            case DataRead():
                pass
            case Repaired():
                self.notes = message.notes
            case _:
                super()._handle_message(message, on_stage)


@dataclass
class ModelExported(Heard):
    """The record of the exported file; None if there is none."""

    exported: FileExported | None = None

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.device = message.device
                on_stage("reading the data")
            case DataRead():
                on_stage("asking both models")
            case FileExported():
                self.exported = message
            case _:
                super()._handle_message(message, on_stage)


@dataclass
class TextsCompared(Heard):
    """A reference's comparison with a server's texts; None without a result."""

    compared: Compared | None = None

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.device = message.device
                on_stage("comparing")
            case ServedCompared():
                self.compared = message.compared
            case _:
                super()._handle_message(message, on_stage)


@dataclass
class RowsExplained(Heard):
    """Explanations of rows, in the order requested; ``model`` and ``data``: the inputs read.

    ``n_where``: rows that were asked for by a value, whose numbers only the child knows.
    """

    n_where: int = 0
    model: ModelRecord | None = None
    data: DataRecord | None = None
    rows: list[ExplainedRow] = field(default_factory=list)

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.model, self.device = message.model, message.device
                on_stage("reading the data")
            case DataRead():
                self.data = message.data
            case RowExplained():
                if str(message.row.row) not in self.allowed:
                    self.n_where -= 1
                    if self.n_where < 0:
                        raise ValueError("a row that was not asked for")
                self.rows.append(message.row)
            case _:
                super()._handle_message(message, on_stage)


@dataclass
class FilesExamined(Heard):
    """Results for files, by their names as sent."""

    detector: DetectorRecord | None = None
    files: dict[str, FileResult] = field(default_factory=dict)

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case DetectorLoaded():
                self.detector, self.device = self.detector or message.detector, message.device
            case Opening():
                self._begins(message.file)
                on_stage(visible(Path(readable(decode_path(message.file))).name))
            case Examined():
                if message.file != self.asking:
                    raise ValueError("a result of no file that was opened")
                self.files[message.file] = message.result
                self.asking = None
            case _:
                super()._handle_message(message, on_stage)


@dataclass
class DetectorTrained(Heard):
    """The detector that was trained; None where none was written."""

    trained: Trained | None = None

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Trained():
                self.trained = message
            case _:
                super()._handle_message(message, on_stage)
