"""What a job's children have said: the base of a type for each kind of job, and that of a training on a table.

Imports no numpy, and the types of an audit's record only where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from auditor.record.sandbox_state import SandboxState
from auditor.record.text import visible
from auditor.run.protocol import TABLE_MESSAGES, Confined, TableTrained, Working

if TYPE_CHECKING:
    from auditor.record.audit_report import Refusal
    from auditor.run.messages import Message

OnStage = Callable[[str], None]


@dataclass
class Heard:
    """What any job's children have said; a child that has loaded a hostile file is hostile, and so are its messages.

    ``allowed``: the names it may ask or open. ``asking``: the one that it does, until it has answered. ``sandbox``: by
    what it is confined. ``log``: its own output. Everything that a message says is taken once a child; ValueError says
    that it breaks the protocol.
    """

    allowed: frozenset[str] = frozenset()
    asking: str | None = None
    device: str = "none"
    sandbox: SandboxState | None = None
    refusal: Refusal | None = None
    log: str = ""
    reading: str = ""
    _seen: set[str] = field(default_factory=set)

    def read(self, body: bytes) -> Message:
        """One message of such a child; raises ValidationError where it is none."""
        from auditor.run.messages import MESSAGES

        return MESSAGES.validate_json(body)

    def begin(self, allowed: Iterable[str]) -> None:
        """Another child begins, which says anew what a child says."""
        self.allowed, self.asking, self._seen = frozenset(allowed), None, set()

    def take(self, message: Message, on_stage: OnStage) -> None:
        """Keeps what a message says. Raises ValueError where it may not come, or not now, or not again."""
        if isinstance(message, Working):
            self.reading = message.file
            if message.words:
                on_stage(visible(message.words))
            return
        once = message.once()
        if once is not None:
            if once in self._seen:
                raise ValueError("a message that may come once came again")
            self._seen.add(once)
        if isinstance(message, Confined):
            self.sandbox = message.state
            return
        self._own(message, on_stage)

    def _own(self, message: Message, on_stage: OnStage) -> None:
        raise ValueError(f"{message.kind} is no message of this job")

    def _begins(self, name: str) -> None:
        if name not in self.allowed or self.asking is not None:
            raise ValueError("a name that was not asked for, or before the last one answered")
        self.asking = name


@dataclass
class TableLearned(Heard):
    """The model that was trained on a table; None where none was written."""

    trained: TableTrained | None = None

    def read(self, body: bytes) -> Message:
        """One message of a training; raises ValidationError for those of other jobs too."""
        return TABLE_MESSAGES.validate_json(body)

    def _own(self, message: Message, on_stage: OnStage) -> None:
        match message:
            case TableTrained():
                self.trained = message
            case _:
                super()._own(message, on_stage)
