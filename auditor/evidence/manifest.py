"""The manifest of evidence with the digest of each part, and the log of an audit as a hash chain."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer

from auditor.core.errors import DataError
from auditor.core.files import Closed, Spool
from auditor.core.number_types import Count
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import ProbeResult

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


BUNDLE_FORMAT = "auditor-evidence/1"
RECORD, RESULTS, REQUEST, TABLES = "record.json", "results.json", "request.json", "tables.json"
ROWS, LOG, MANIFEST, SIGNATURE = "rows.csv", "log.jsonl", "manifest.json", "signature.dsse.json"
TIMESTAMP, MEMBERSHIP = "timestamp.tsr", "membership.csv"
# In the request: how it was understood.
UNDERSTOOD = "understood"
# What may be taken out of a bundle without its digest being lost.
REDACTABLE = (ROWS, MEMBERSHIP)
_PACKAGES = ("auditor", "probes", "mitigations", "cli")
# What a bundle is the evidence of.
Kind = Literal["audit", "tradeoff", "mitigation", "comparison", "detection", "dp_audit", "training"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Closed):
    """One part: its SHA-256 and its size in bytes."""

    sha256: Digest
    size: Count

    @classmethod
    def from_content(cls, content: bytes | Spool) -> FileEntry:
        """The entry of this content."""
        if isinstance(content, Spool):
            return cls(sha256=content.sha256, size=content.size)
        return cls(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


class Manifest(Closed):
    """Every part of the bundle by name, and the end of the log's chain.

    ``kind``: what its record is; of an audit it is not written, as no earlier manifest has it.
    """

    format: str = BUNDLE_FORMAT
    kind: Kind = "audit"
    files: dict[str, FileEntry]
    log_lines: Count
    log_head: Digest

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        return said if self.kind != "audit" else {name: value for name, value in said.items() if name != "kind"}

    def to_bytes(self) -> bytes:
        """As canonical JSON."""
        return canonical(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Parse a manifest; DataError if invalid, of another version, or not in canonical form."""
        try:
            found = cls.model_validate_json(content)
        except ValidationError as error:
            raise DataError(f"{MANIFEST} is none: {error.errors()[0]['msg']}.") from None
        if found.format != BUNDLE_FORMAT:
            raise DataError(
                f"The bundle is of the format {found.format[:40]!r}, and this version reads {BUNDLE_FORMAT!r}: "
                "upgrade responsible-auditor."
            )
        if found.to_bytes() != content:
            raise DataError(f"{MANIFEST} is not written as it was.")
        return found


class Asked(Closed):
    """Input of judging beside the record: all probes' answers in full, the criteria, and the error rate."""

    results: tuple[ProbeResult, ...]
    criteria: tuple[Criterion, ...]
    family: Family


ASKED: TypeAdapter[Asked] = TypeAdapter(Asked)


def canonical(value: object) -> bytes:
    """JSON with sorted keys, no spaces and shortest numbers: one spelling per value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def in_order(value: object) -> bytes:
    """JSON as by :func:`canonical`, but with the given key order, on which the ids of findings depend."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def build_manifest(parts: Mapping[str, bytes | Spool], log: ChainedLog, kind: Kind = "audit") -> Manifest:
    """The manifest of these parts; the log is one of them."""
    return Manifest(
        kind=kind,
        files={name: FileEntry.from_content(content) for name, content in sorted(parts.items())},
        log_lines=len(log),
        log_head=log.head,
    )


def code_digests(modules: Sequence[str] = (), folder: Path | None = None) -> dict[str, str]:
    """Hex SHA-256 of the measuring code: of this toolkit's files, and of each user module in ``modules``.

    ``modules``: ``package.module:Name``. Of the toolkit: of a line with path and digest for each file, in order of the
    paths. A user's module that is not found below ``folder`` or on the import path is ``"not found"``.
    """
    whole = hashlib.sha256()
    for package in _PACKAGES:
        spec = find_spec(package)
        root = Path(spec.origin).parent if spec is not None and spec.origin else None
        for path in sorted(root.rglob("*")) if root is not None else ():
            if path.is_file() and "__pycache__" not in path.parts:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                whole.update(f"{package}/{path.relative_to(root or path).as_posix()}\0{digest}\n".encode())
    return {"responsible-auditor": whole.hexdigest(), **code_of(modules, folder)}


def code_of(modules: Sequence[str], folder: Path | None = None) -> dict[str, str]:
    """Hex SHA-256 of the file of each module of the user's own, ``package.module:Name``; of ``folder``, or the current.

    A module that is not found there or on the import path is ``"not found"``. What a module imports is not looked at.
    """
    found = {}
    for target in modules:
        module = target.partition(":")[0]
        place = _file_of(module, folder or Path.cwd())
        found[module] = "not found" if place is None else hashlib.sha256(place.read_bytes()).hexdigest()
    return found


def _file_of(module: str, folder: Path | None) -> Path | None:
    relative = Path(*module.split("."))
    for base in (relative.with_suffix(".py"), relative / "__init__.py"):
        if folder is not None and (folder / base).is_file():
            return folder / base
    try:
        spec = find_spec(module) if "." not in module else None
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and Path(spec.origin).is_file() else None
