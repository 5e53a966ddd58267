"""Messages of the sandboxed process about an audit, a mitigation or files: each with its type."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from auditor.core.number_types import Count
from auditor.detection.detection_record import DetectorRecord, FileResult
from auditor.judging.measurement import Planted, ProbeResult
from auditor.judging.row_explanations import ExplainedRow
from auditor.loading.sandbox.outside_requests import MOST_REQUESTS
from auditor.models.endpoint.api_messages import Request
from auditor.models.endpoint.server_findings import Compared
from auditor.report.record.audit_report import DataRecord, ModelRecord
from auditor.run.job_channel import Confined, Done, Line, Refused, Said, TableTrained, Working
from auditor.run.membership_scores import MembershipColumns, MembershipHead
from auditor.run.predictions import AnswersHead, AnswersPart, CountsRecord


class Loaded(Said):
    """The model was loaded."""

    kind: Literal["loaded"] = "loaded"
    model: ModelRecord
    device: str


class DataRead(Said):
    """The data were read, or are not needed."""

    kind: Literal["data"] = "data"
    data: DataRecord


class Asking(Said):
    """A probe is about to run."""

    kind: Literal["asking"] = "asking"
    probe: str

    def unique_key(self) -> str | None:
        return f"asking {self.probe}"


class Calling(Said):
    """Requests for the parent to send to the job's endpoint, or judge; it answers on standard input."""

    kind: Literal["calling"] = "calling"
    to_judge: bool = False
    requests: Annotated[tuple[Request, ...], Field(min_length=1, max_length=MOST_REQUESTS)]

    def unique_key(self) -> str | None:
        return None


class Answered(Said):
    """The result of a probe."""

    kind: Literal["answered"] = "answered"
    result: ProbeResult

    def unique_key(self) -> str | None:
        return None


class Controlled(Said):
    """The planted controls of a probe that has answered."""

    kind: Literal["controlled"] = "controlled"
    probe: str
    planted: tuple[Planted, ...]

    def unique_key(self) -> str | None:
        return f"controlled {self.probe}"


class Keeping(Said):
    """The model's answers on the evaluation rows follow in parts; contains the table of their groups."""

    kind: Literal["keeping"] = "keeping"
    head: AnswersHead | None
    counts: CountsRecord | None


class Kept(Said):
    """A part of the answers."""

    kind: Literal["kept"] = "kept"
    part: AnswersPart

    def unique_key(self) -> str | None:
        return None


class Scored(Said):
    """The membership scores of the running probe."""

    kind: Literal["scored"] = "scored"
    head: MembershipHead
    columns: MembershipColumns

    def unique_key(self) -> str | None:
        return f"scored {self.head.probe}"


class Repaired(Said):
    """A mitigation has written its new model."""

    kind: Literal["repaired"] = "repaired"
    notes: tuple[Line, ...]


class FileExported(Said):
    """The model's file was written, or not because a decision differs.

    ``rows``: how many both were asked about, None where there were none to ask about. ``differing``: the first of
    those, 0-based, of whose decisions ``n_differing`` differ. ``largest_difference``: of the probabilities of a class.
    ``sha256``: of the model, as its audit records it.
    """

    kind: Literal["exported"] = "exported"
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    classes: Annotated[tuple[Line, ...], Field(max_length=10_000)]
    positive: Line | None
    rows: Count | None
    n_differing: Count
    differing: Annotated[tuple[int, ...], Field(max_length=20)]
    largest_difference: float


class ServedCompared(Said):
    """A server's texts were compared with the model."""

    kind: Literal["compared"] = "compared"
    compared: Compared


class RowExplained(Said):
    """The explanation of a row."""

    kind: Literal["explained"] = "explained"
    row: ExplainedRow

    def unique_key(self) -> str | None:
        return f"explained {self.row.row}"


class DetectorLoaded(Said):
    """The detector was loaded, or there is none to load; ``device`` is where it works."""

    kind: Literal["detector"] = "detector"
    detector: DetectorRecord | None
    device: str


class Opening(Said):
    """A file is about to be examined."""

    kind: Literal["opening"] = "opening"
    file: str

    def unique_key(self) -> str | None:
        return f"opening {self.file}"


class Examined(Said):
    """The examination result of a file."""

    kind: Literal["examined"] = "examined"
    file: str
    result: FileResult

    def unique_key(self) -> str | None:
        return None


class Trained(Said):
    """A detector was trained on ``device`` and written; ``left_out``: unreadable files with the reasons; ``few``: the
    reason why there are effectively fewer files, or ""."""

    kind: Literal["trained"] = "trained"
    detector: DetectorRecord
    device: str
    notes: tuple[Line, ...]
    left_out: Annotated[tuple[Line, ...], Field(max_length=100_000)]
    few: Line = ""


Message = Annotated[
    Confined
    | Loaded
    | DataRead
    | Keeping
    | Kept
    | Asking
    | Calling
    | Scored
    | Answered
    | Controlled
    | Working
    | Repaired
    | FileExported
    | ServedCompared
    | RowExplained
    | DetectorLoaded
    | Opening
    | Examined
    | Trained
    | TableTrained
    | Refused
    | Done,
    Field(discriminator="kind"),
]
# Built where something is heard that is no refusal.
MESSAGES: TypeAdapter[Message] = TypeAdapter(Message, config=ConfigDict(defer_build=True))
