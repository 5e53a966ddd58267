"""A call journal beside the report: one line per call, with the digest of the request and the answer.

It holds neither a request's text nor a key. A scan that was killed finds the answers that it has had, so that no call
is made twice; one that ended begins the next scan's anew, since an answer of yesterday's is none of today's server.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from auditor.core.errors import UsageError
from auditor.models.endpoint.api_messages import Request
from auditor.models.endpoint.call_result import Outcome

NAME = "calls.jsonl"
_FORMAT = "auditor-calls/1"
_LARGEST = 1 << 30
_FINISHED = {"finished": True}
_OUTCOME: TypeAdapter[Outcome] = TypeAdapter(Outcome)


class Journal:
    """The calls of one scan of one endpoint, in a file that is only appended to; for one process at a time.

    ``resumed``: how many calls an earlier run has left in it. Raises UsageError where another scan writes there, and
    where the file is of another endpoint or no journal, which is never written over.
    """

    def __init__(self, path: Path, url: str, model: str) -> None:
        self.path = path
        self._head = {"format": _FORMAT, "url": url, "model": model}
        self._lock = threading.Lock()
        self._had: dict[str, list[Outcome]] = defaultdict(list)
        self._taken: Counter[str] = Counter()
        self._file = self._open_file()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._load_calls():
                self._file.truncate(0)
                self._write(self._head)
        except BlockingIOError:
            self._file.close()
            raise UsageError(f"Another scan writes into {str(path)!r}: name another folder with --out.") from None
        except BaseException:
            self._file.close()
            raise
        self.resumed = sum(map(len, self._had.values()))

    def next_of(self, request: Request, model: str) -> tuple[str, Outcome | None]:
        """The request's digest, and the answer of an earlier run to the k-th such request."""
        body = json.dumps([request.route, request.body(model)], sort_keys=True, ensure_ascii=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        with self._lock:
            k = self._taken[digest]
            self._taken[digest] += 1
            had = self._had[digest]
            return digest, had[k] if k < len(had) else None

    def add(self, digest: str, outcome: Outcome) -> None:
        """Write one line, to disk before return; outcomes that a retry may change are not kept."""
        if outcome.settled:
            with self._lock:
                self._write({"request": digest, "outcome": _OUTCOME.dump_python(outcome, mode="json")})

    def close(self, *, finished: bool) -> None:
        """Close the journal; ``finished``: all requests were made, so that the next scan starts a new one."""
        if finished:
            self._write(_FINISHED)
        self._file.close()

    def _open_file(self) -> IO[bytes]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # What is behind a link is somebody else's file, and what stands in it is for whoever audits alone.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            return os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)
        except OSError as error:
            raise UsageError(f"The journal {str(self.path)!r} cannot be written: {error.strerror}.") from None

    def _write(self, content: dict[str, Any]) -> None:
        try:
            self._file.write((json.dumps(content, ensure_ascii=True) + "\n").encode())
        except OSError as error:
            raise UsageError(f"The journal {str(self.path)!r} cannot be written: {error.strerror}.") from None

    def _load_calls(self) -> bool:
        """Whether there is an unfinished scan of this endpoint, whose calls are then known."""
        found = os.fstat(self._file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise self._not_a_journal()
        if not found.st_size:
            return False
        self._file.seek(0)
        raw = self._file.read()
        whole = raw[: raw.rfind(b"\n") + 1]
        try:
            head, *lines = [json.loads(line) for line in whole.splitlines()]
            if not isinstance(head, dict) or head.get("format") != _FORMAT:
                raise self._not_a_journal()
            if lines and lines[-1] == _FINISHED:
                return False
            if head != self._head:
                raise UsageError(
                    f"{str(self.path)!r} is the journal of an unfinished scan of another endpoint: name another folder "
                    "with --out, or take it away."
                )
            for line in lines:
                self._had[str(line["request"])].append(_OUTCOME.validate_python(line["outcome"], strict=False))
        except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
            raise self._not_a_journal() from None
        if len(whole) < len(raw):
            # The line that the last run was writing when it was killed.
            self._file.truncate(len(whole))
        return True

    def _not_a_journal(self) -> UsageError:
        return UsageError(f"{str(self.path)!r} is no journal of calls: name another folder with --out, or move it.")
