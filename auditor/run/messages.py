"""What the measuring process may say: every message, its type and its size."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from auditor.detection.record import DetectorRecord, FileResult
from auditor.files import Closed
from auditor.finding.measurement import ProbeResult
from auditor.report.record import DataRecord, ModelRecord
from auditor.run.answers import AnswersHead, AnswersPart, CountsRecord
from auditor.run.channel import Confined, Refused

MAX_MESSAGE = 32 << 20


class Loaded(Closed):
    """The model was loaded."""

    kind: Literal["loaded"] = "loaded"
    model: ModelRecord
    device: str


class DataRead(Closed):
    """The data were read, or need not be."""

    kind: Literal["data"] = "data"
    data: DataRecord


class Asking(Closed):
    """A probe is about to be asked."""

    kind: Literal["asking"] = "asking"
    probe: str


class Answered(Closed):
    """What became of a probe."""

    kind: Literal["answered"] = "answered"
    result: ProbeResult


class Keeping(Closed):
    """The model's answers on the evaluation rows follow in parts; the table of their groups stands here."""

    kind: Literal["keeping"] = "keeping"
    head: AnswersHead | None
    counts: CountsRecord | None


class Kept(Closed):
    """Some of the answers."""

    kind: Literal["kept"] = "kept"
    part: AnswersPart


class Working(Closed):
    """How far a mitigation or a training has come; ``file``: which one is now read, said only if it is the last."""

    kind: Literal["working"] = "working"
    words: Annotated[str, Field(max_length=500)] = ""
    file: Annotated[str, Field(max_length=500)] = ""


class Repaired(Closed):
    """A mitigation has written its new model."""

    kind: Literal["repaired"] = "repaired"
    notes: tuple[Annotated[str, Field(max_length=2_000)], ...]


class DetectorLoaded(Closed):
    """The detector was loaded, or there is none to load; ``device`` is where it works."""

    kind: Literal["detector"] = "detector"
    detector: DetectorRecord | None
    device: str


class Opening(Closed):
    """A file is about to be examined."""

    kind: Literal["opening"] = "opening"
    file: str


class Examined(Closed):
    """What was found of a file."""

    kind: Literal["examined"] = "examined"
    file: str
    result: FileResult


class Trained(Closed):
    """A detector was trained and written; ``left_out``: the files that could not be read, and why."""

    kind: Literal["trained"] = "trained"
    detector: DetectorRecord
    notes: tuple[Annotated[str, Field(max_length=2_000)], ...]
    left_out: Annotated[tuple[Annotated[str, Field(max_length=2_000)], ...], Field(max_length=100_000)]


class Done(Closed):
    """Every probe was asked."""

    kind: Literal["done"] = "done"


Message = Annotated[
    Confined
    | Loaded
    | DataRead
    | Keeping
    | Kept
    | Asking
    | Answered
    | Working
    | Repaired
    | DetectorLoaded
    | Opening
    | Examined
    | Trained
    | Refused
    | Done,
    Field(discriminator="kind"),
]
MESSAGES: TypeAdapter[Message] = TypeAdapter(Message)
