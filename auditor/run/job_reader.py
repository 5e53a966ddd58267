"""Messages of a job's child processes: the base type for each kind of job, and the type for table training.

Imports no numpy, and the types of an audit's record only where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from auditor.report.record.number_text import visible
from auditor.report.record.sandbox_state import SandboxState
from auditor.run.job_channel import MOST_LINES, MOST_SAID, TABLE_MESSAGES, Confined, TableTrained, Working

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
