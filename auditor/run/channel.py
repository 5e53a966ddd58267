"""The measuring process's side of the pipe, and the two messages that need no model: confined, and refused."""

from __future__ import annotations

import os
from typing import Literal

from auditor.errors import AuditorError, Code, DataError, UsageError
from auditor.files import Closed
from auditor.report.sandbox_state import SandboxState

HEADER = 4


class Confined(Closed):
    """By what the process is confined; said before anything is opened."""

    kind: Literal["confined"] = "confined"
    state: SandboxState


class Refused(Closed):
    """Model or data cannot be used, or a flag is wrong."""

    kind: Literal["refused"] = "refused"
    code: Literal["model", "data", "usage"]
    reason: str
    reason_code: Code | None = None

    @classmethod
    def of(cls, error: AuditorError) -> Refused:
        """The refusal that an error of a flag, of the data or of the model is."""
        if isinstance(error, UsageError):
            return cls(code="usage", reason=str(error))
        if isinstance(error, DataError):
            return cls(code="data", reason=str(error), reason_code=error.code or "AUD-DATA-UNUSABLE")
        return cls(code="model", reason=str(error), reason_code=error.code or "AUD-LOAD-UNUSABLE")


class Channel:
    """Length-prefixed JSON to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb")

    def send(self, message: Closed) -> None:
        """Sends one message at once."""
        body = message.model_dump_json().encode()
        self._file.write(len(body).to_bytes(HEADER, "big") + body)
        self._file.flush()
