"""What the children of an audit, a mitigation or a detector have said: a type for each, which refuses all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from auditor.detection.record import DetectorRecord, FileResult
from auditor.endpoint.served_texts import Compared
from auditor.errors import DataError
from auditor.files import readable, received
from auditor.finding.measurement import ProbeResult
from auditor.finding.reasons import ExplainedRow
from auditor.record.audit_report import DataRecord, ModelRecord
from auditor.record.energy import EnergyRecord
from auditor.record.text import visible
from auditor.run.answers import CountsRecord, KeptRows
from auditor.run.hearing import Heard, OnStage
from auditor.run.memberships import MembershipScores, scores_of
from auditor.run.messages import (
    Answered,
    Asking,
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
from auditor.training.meter import Meter


@dataclass
class Measured(Heard):
    """What probes measured. A fresh child for the remaining probes says model, data and answers all again.

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
        """The model's answers by row, where they were to be kept and all of them came."""
        return self.rows if self.rows is not None and self.rows.whole else None

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.model, self.device = self.model or message.model, message.device
                on_stage("reading the data")
            case DataRead():
                self.data = self.data or message.data
            case Keeping() | Kept() if not self.keeps:
                raise ValueError("answers that nobody asked for")
            case Keeping():
                self.counts = message.counts
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
            case _:
                super()._own(message, on_stage)

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
    """What a mitigation says of the model that it has written; None where it has written none."""

    notes: tuple[str, ...] | None = None

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.device = message.device
                on_stage("reading the data")
            case DataRead():
                pass
            case Repaired():
                self.notes = message.notes
            case _:
                super()._own(message, on_stage)


@dataclass
class ModelExported(Heard):
    """What is said of the file that a model was exported to; None where nothing was."""

    exported: FileExported | None = None

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.device = message.device
                on_stage("reading the data")
            case DataRead():
                on_stage("asking both models")
            case FileExported():
                self.exported = message
            case _:
                super()._own(message, on_stage)


@dataclass
class TextsCompared(Heard):
    """What a reference says of texts that a server drew; None where nothing was said."""

    compared: Compared | None = None

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.device = message.device
                on_stage("comparing")
            case ServedCompared():
                self.compared = message.compared
            case _:
                super()._own(message, on_stage)


@dataclass
class RowsExplained(Heard):
    """What is said of rows, in the order in which they were asked for; ``model`` and ``data``: what was read."""

    model: ModelRecord | None = None
    data: DataRecord | None = None
    rows: list[ExplainedRow] = field(default_factory=list)

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Loaded():
                self.model, self.device = message.model, message.device
                on_stage("reading the data")
            case DataRead():
                self.data = message.data
            case RowExplained():
                if str(message.row.row) not in self.allowed:
                    raise ValueError("a row that was not asked for")
                self.rows.append(message.row)
            case _:
                super()._own(message, on_stage)


@dataclass
class FilesExamined(Heard):
    """What is said of files, by their names as they were sent."""

    detector: DetectorRecord | None = None
    files: dict[str, FileResult] = field(default_factory=dict)

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case DetectorLoaded():
                self.detector, self.device = self.detector or message.detector, message.device
            case Opening():
                self._begins(message.file)
                on_stage(visible(Path(readable(received(message.file))).name))
            case Examined():
                if message.file != self.asking:
                    raise ValueError("a result of no file that was opened")
                if message.result.heat_map is not None:
                    message.result.heat_map.picture()
                self.files[message.file] = message.result
                self.asking = None
            case _:
                super()._own(message, on_stage)


@dataclass
class DetectorTrained(Heard):
    """The detector that was trained; None where none was written."""

    trained: Trained | None = None

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case Trained():
                self.trained = message
            case _:
                super()._own(message, on_stage)
