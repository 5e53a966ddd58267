"""The message protocol of every sandboxed process, and the messages of table training; imports no NumPy.

A training says little, and whoever listens to it alone needs none of the types of an audit's record.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from auditor.core.errors import AuditorError, Code, DataError, UsageError
from auditor.core.files import Closed
from auditor.core.number_types import Count
from auditor.report.record.sandbox_state import SandboxState

MAX_MESSAGE = 32 << 20
# What one process may say in all; a default audit of a million rows says 3 MiB. Answers that were asked for by row are
# beside it.
MOST_SAID = 256 << 20
MOST_KEPT = 4 << 30
# Lines of progress that are shown and logged of one process; what comes after them is heard and not passed on.
MOST_LINES = 5_000
HEADER = 4

Line = Annotated[str, Field(max_length=2_000)]


class Said(Closed):
    """Base of the messages."""

    kind: str

    def unique_key(self) -> str | None:
        """The once-per-child kind of this message; None if it may be repeated."""
        return self.kind


class Confined(Said):
    """The confinement of the process, sent before anything is opened."""

    kind: Literal["confined"] = "confined"
    state: SandboxState


class Working(Said):
    """Progress of a mitigation or a training; ``file``: the one now being read, only if it is the last."""

    kind: Literal["working"] = "working"
    words: Annotated[str, Field(max_length=500)] = ""
    file: Annotated[str, Field(max_length=500)] = ""


class Known(Closed):
    """A number on held-out rows with its 95 % interval; NaN with infinite ends if undefined."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="constants")

    value: float
    low: float
    high: float


class TableTrained(Said):
    """A model was trained on a table and written, with its training rows and held-out rows.

    ``n``: rows of ``accuracy``. ``auc``: None where there are more than two classes. ``device``: where it was trained.
    ``flops``: as in :class:`auditor.report.record.energy.EnergyRecord`. The rest as in
    :class:`auditor.training.train_table.TrainedModel`.
    """

    kind: Literal["table_trained"] = "table_trained"
    features: tuple[Line, ...]
    notes: tuple[Line, ...]
    recognised: tuple[Line, ...]
    accuracy: Known
    n: Count
    majority_share: float
    auc: Known | None
    device: str
    flops: Annotated[float | None, Field(ge=0.0)] = None


class Refused(Said):
    """Model or data cannot be used, or a flag is wrong."""

    kind: Literal["refused"] = "refused"
    code: Literal["model", "data", "usage"]
    reason: str
    reason_code: Code | None = None

    @classmethod
    def from_error(cls, error: AuditorError) -> Refused:
        """The refusal that an error of a flag, of the data or of the model is."""
        if isinstance(error, UsageError):
            return cls(code="usage", reason=str(error))
        if isinstance(error, DataError):
            return cls(code="data", reason=str(error), reason_code=error.code or "AUD-DATA-UNUSABLE")
        return cls(code="model", reason=str(error), reason_code=error.code or "AUD-LOAD-UNUSABLE")


class Done(Said):
    """The whole job is done."""

    kind: Literal["done"] = "done"


TableMessage = Annotated[Confined | Working | TableTrained | Refused | Done, Field(discriminator="kind")]
TABLE_MESSAGES: TypeAdapter[TableMessage] = TypeAdapter(TableMessage)


class Channel:
    """Length-prefixed JSON to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")

    def send(self, message: Said) -> None:
        """Send one message immediately."""
        body = message.model_dump_json().encode()
        self._file.write(len(body).to_bytes(HEADER, "big") + body)
        self._file.flush()
