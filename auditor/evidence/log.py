"""The log of an audit as a hash chain: each line contains the digest of the line before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

GENESIS = "0" * 64
MOST_LINES = 100_000
_MOST_PROBLEMS = 10


class ChainedLog:
    """Lines of JSON ``{"n", "at", "event", ..., "previous"}``; ``previous`` is the SHA-256 of the line before."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self.head = GENESIS

    def add(self, event: str, **fields: object) -> None:
        """Append one line with the current time."""
        entry = {"n": len(self._lines), "at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        line = json.dumps(entry | fields | {"previous": self.head}, ensure_ascii=False, sort_keys=False).encode()
        self._lines.append(line)
        self.head = hashlib.sha256(line).hexdigest()

    def __len__(self) -> int:
        return len(self._lines)

    def to_bytes(self) -> bytes:
        """All lines, each ended by a newline."""
        return b"".join(line + b"\n" for line in self._lines)


def broken_links(content: bytes, head: str, n: int) -> list[str]:
    """Differences of a log from the chain that ends in ``head`` after ``n`` lines; empty if there are none."""
    if content.count(b"\n") > MOST_LINES:
        return [f"it has more than {MOST_LINES:,} lines"]
    lines = content.split(b"\n")
    problems = [] if lines and lines[-1] == b"" else ["its last line is not ended"]
    lines = [line for line in lines[:-1]] if not problems else lines
    previous = GENESIS
    for i, line in enumerate(lines):
        entry = _entry(line)
        if entry is None:
            problems.append(f"line {i} is no entry of a log")
        elif entry.get("n") != i:
            problems.append(f"line {i} says that it is line {str(entry.get('n'))[:20]}")
        elif entry.get("previous") != previous:
            problems.append(f"line {i} does not follow on the line before it")
        previous = hashlib.sha256(line).hexdigest()
        if len(problems) >= _MOST_PROBLEMS:
            return problems
    if len(lines) != n:
        problems.append(f"it has {len(lines)} lines and should have {n}")
    if previous != head:
        problems.append("its last line is not the one that the manifest names")
    return problems


def _entry(line: bytes) -> dict[str, object] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def events(content: bytes) -> Sequence[dict[str, object]]:
    """The readable entries, in order: each line is one of the chain."""
    return [entry for line in content.split(b"\n")[:MOST_LINES] if (entry := _entry(line)) is not None]
