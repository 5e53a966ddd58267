"""The samples of an Inspect log as the rows of a table: what is known of each, and what the model did in it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from auditor.core.errors import DataError, UsageError
from auditor.loading.rows.evaluation_logs import inspect_samples
from auditor.loading.rows.logged_samples import number_of
from auditor.models.files.model_bytes import printable

# What a column of a tool's argument says where the tool was not called: a decision that was not made is no gap.
NO_CALL = "(no call)"
_MOST_COLUMNS = 2_000


def read_log_rows(path: Path) -> pa.Table:
    """A row for each sample and repeat, read once.

    Columns: ``id``, ``epoch``, the metadata by their names, ``score.NAME``; of each tool ``calls.TOOL``, how often it
    was called, and ``calls.TOOL.ARGUMENT``, what was asked of it last. Raises DataError for what is no log of Inspect.
    """
    state = path.stat()
    return _read(str(path), state.st_mtime_ns, state.st_size)


def require_clusters(path: Path, cluster: str | None) -> None:
    """Raise UsageError where samples were repeated and nothing says that their repeats belong together."""
    ids = read_log_rows(path).column("id").to_pylist()
    if cluster is None and len(set(ids)) < len(ids):
        raise UsageError(f"{printable(path.name)} holds samples several times (epochs): add --cluster id.")


@lru_cache(maxsize=2)
def _read(path: str, changed: int, size: int) -> pa.Table:
    rows = [_row(sample) for sample in inspect_samples(Path(path))]
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > _MOST_COLUMNS:
        said = f"{printable(Path(path).name)!r} has {len(names):,} columns: at most {_MOST_COLUMNS:,} are read."
        raise DataError(said, code="AUD-DATA-LIMIT")
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names})


def _row(sample: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": str(sample.get("id")), "epoch": sample.get("epoch", 1)}
    metadata = sample.get("metadata")
    for name, value in (metadata if isinstance(metadata, dict) else {}).items():
        if isinstance(value, str | int | float) and name not in row:
            row[name] = value
    scores = sample.get("scores")
    for name, score in (scores if isinstance(scores, dict) else {}).items():
        value = score.get("value") if isinstance(score, dict) else None
        if isinstance(value, str | int | float):
            known = number_of(value)
            row[f"score.{name}"] = value if known != known else known
    counts = Counter[str]()
    messages = sample.get("messages")
    for message in messages if isinstance(messages, list) else []:
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        for call in calls if isinstance(calls, list) else []:
            if not isinstance(call, dict) or not isinstance(call.get("function"), str):
                continue
            tool, arguments = call["function"], call.get("arguments")
            counts[tool] += 1
            for name, value in (arguments if isinstance(arguments, dict) else {}).items():
                if isinstance(value, str | int | float):
                    row[f"calls.{tool}.{name}"] = str(value)
    return row | {f"calls.{tool}": n for tool, n in counts.items()}


def _column(name: str, values: list[Any]) -> pa.Array:
    if name.startswith("calls."):
        if all(value is None or isinstance(value, int) for value in values):
            return pa.array([value or 0 for value in values], pa.int64())
        return pa.array([NO_CALL if value is None else str(value) for value in values], pa.string())
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return pa.array(values, pa.float64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())
