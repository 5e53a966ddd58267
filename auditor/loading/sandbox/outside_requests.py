"""The only network access of the sandboxed process: its parent, which has the connection, sends its requests.

The process has no socket. It says what it would ask in a message of its channel, and reads what became of it on its
standard input: a number of bytes, and as many bytes of JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

from pydantic import TypeAdapter

from auditor.core.errors import ModelError
from auditor.models.endpoint.api_messages import Request
from auditor.models.endpoint.client import Outcome

# In one message; the parent works on as many at once as it was allowed.
MOST_REQUESTS = 256
_HEADER = 8
_OUTCOMES: TypeAdapter[tuple[Outcome, ...]] = TypeAdapter(tuple[Outcome, ...])


class Outside:
    """The process's requests: ``say`` sends them to the parent, ``replies`` receives the answers."""

    def __init__(self, say: Callable[[tuple[Request, ...]], None], replies: IO[bytes]) -> None:
        self._say = say
        self._replies = replies

    def __call__(self, requests: Sequence[Request]) -> list[Outcome]:
        """What became of each, in their order. Raises ModelError where the parent says nothing."""
        found: list[Outcome] = []
        for start in range(0, len(requests), MOST_REQUESTS):
            self._say(tuple(requests[start : start + MOST_REQUESTS]))
            size = int.from_bytes(self._exactly(_HEADER), "big")
            found += _OUTCOMES.validate_json(self._exactly(size))
        return found

    def _exactly(self, size: int) -> bytes:
        read = self._replies.read(size)
        if len(read) < size:
            raise ModelError("The calls of the endpoint ended before they were answered.")
        return read


def reply(outcomes: Sequence[Outcome], stream: IO[bytes]) -> None:
    """The parent's answer to one message; a dead process is detected by its listener."""
    body = _OUTCOMES.dump_json(tuple(outcomes))
    try:
        stream.write(len(body).to_bytes(_HEADER, "big") + body)
        stream.flush()
    except BrokenPipeError:
        pass
