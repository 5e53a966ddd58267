"""Result messages of the child processes of an audit, a mitigation or a detector: one strict type per job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import DataError
from auditor.core.files import decode_path, readable
from auditor.detection.detection_record import DetectorRecord, FileResult
from auditor.judging.measurement import ProbeResult
from auditor.judging.row_explanations import ExplainedRow
from auditor.models.endpoint.server_findings import Compared
from auditor.report.record.audit_report import DataRecord, ModelRecord
from auditor.report.record.energy import EnergyRecord
from auditor.report.record.number_text import visible
from auditor.report.record.sandbox_state import SandboxState
from auditor.run.job_channel import MOST_LINES, MOST_SAID, TABLE_MESSAGES, Confined, TableTrained, Working
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
    Message,
    Opening,
    Repaired,
    RowExplained,
    Scored,
    ServedCompared,
    Trained,
)
from auditor.run.membership_scores import MembershipScores, scores_of
from auditor.run.predictions import CountsRecord, KeptRows
from auditor.training.meter import Meter

if TYPE_CHECKING:
    from auditor.report.record.audit_report import Refusal
    from auditor.run.job_messages import Message


OnStage = Callable[[str], None]
_SAID_BY_ALL = (b'{"kind":"confined"', b'{"kind":"refused"')


class SaidTooMuchError(ValueError):
    """A process sent more data than allowed in total."""


@dataclass
class Heard:
    """Messages of any job's children; a child that loaded a hostile file is hostile, and so are its messages.

    ``allowed``: the names it may ask or open. ``asking``: the one that it does, until it has answered. ``most``: bytes
    that it may say in all. ``sandbox``: by what it is confined. ``log``: its own output. Everything that a message says
    is taken once a child; ValueError says that it breaks the protocol.
    """

    allowed: frozenset[str] = frozenset()
    asking: str | None = None
    most: int = MOST_SAID
    device: str = "none"
    sandbox: SandboxState | None = None
    refusal: Refusal | None = None
    log: str = ""
    reading: str = ""
    _seen: set[str] = field(default_factory=set)
    _said: int = 0
    _lines: int = 0

    def read_message(self, body: bytes) -> Message:
        """Parse one message of a child; ValidationError if invalid, SaidTooMuchError beyond ``most``."""
        self._said += len(body)
        if self._said > self.most:
            raise SaidTooMuchError(f"more than {self.most >> 20:,} MiB")
        return self._parsed(body)

    def _parsed(self, body: bytes) -> Message:
        # Every process says these, and none of the types of a record are built to hear them: a refusal needs no other.
        if body.startswith(_SAID_BY_ALL):
            return TABLE_MESSAGES.validate_json(body)
        from auditor.run.job_messages import MESSAGES

        return MESSAGES.validate_json(body)

    def begin(self, allowed_names: Iterable[str]) -> None:
        """Start another child, which repeats the once-per-child messages."""
        self.allowed, self.asking, self._seen = frozenset(allowed_names), None, set()
        self._said = self._lines = 0

    def take(self, message: Message, on_stage: OnStage) -> None:
        """Store the contents of a message.

        Raises ValueError where it may not come, or not now, or not again.
        """
        if isinstance(message, Working):
            self.reading = message.file
            self._lines += bool(message.words)
            if message.words and self._lines <= MOST_LINES:
                on_stage(visible(message.words))
            return
        once = message.unique_key()
        if once is not None:
            if once in self._seen:
                raise ValueError("a message that may come once came again")
            self._seen.add(once)
        if isinstance(message, Confined):
            self.sandbox = message.state
            return
        self._handle_message(message, on_stage)

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        raise ValueError(f"{message.kind} is no message of this job")

    def _begins(self, name: str) -> None:
        if name not in self.allowed or self.asking is not None:
            raise ValueError("a name that was not asked for, or before the last one answered")
        self.asking = name


@dataclass
class TableLearned(Heard):
    """The model that was trained on a table; None where none was written."""

    trained: TableTrained | None = None

    def _parsed(self, body: bytes) -> Message:
        return TABLE_MESSAGES.validate_json(body)

    def _handle_message(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case TableTrained():
                self.trained = message
            case _:
                super()._handle_message(message, on_stage)


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
                if message.result.heat_map is not None:
                    message.result.heat_map.picture()
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
