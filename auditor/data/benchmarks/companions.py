"""The companion files that the reader of a published benchmark opens beside the named file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from auditor.data.benchmarks.bbq_file import bbq_companions
from auditor.data.benchmarks.winobias_file import winobias_companions
from auditor.data.benchmarks.winogender_file import winogender_companions

_COMPANIONS: Mapping[str, Callable[[Path], tuple[Path, ...]]] = {
    "bbq": bbq_companions,
    "winobias": winobias_companions,
    "winogender": winogender_companions,
}


def companion_files(benchmark: str, path: Path) -> tuple[Path, ...]:
    """Files that a benchmark's reader opens beside its file, existing or not; none for a folder."""
    companions = _COMPANIONS.get(benchmark)
    return () if companions is None or path.is_dir() else companions(path)
