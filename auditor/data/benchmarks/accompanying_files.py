"""Files beside a benchmark's own: companion files that its reader opens, and a user's list of excluded items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.bbq_and_veto_files import bbq_companions
from auditor.data.benchmarks.benchmark import Benchmark, read_text
from auditor.data.benchmarks.winobias_and_winogender_files import winobias_companions, winogender_companions

_COMPANIONS: Mapping[str, Callable[[Path], tuple[Path, ...]]] = {
    "bbq": bbq_companions,
    "winobias": winobias_companions,
    "winogender": winogender_companions,
}


def companion_files(benchmark: str, path: Path) -> tuple[Path, ...]:
    """Files that a benchmark's reader opens beside its file, existing or not; none for a folder."""
    companions = _COMPANIONS.get(benchmark)
    return () if companions is None or path.is_dir() else companions(path)


class Item(Protocol):
    """An item with an id in its file."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Item)
_MOST_REASONS, _LONGEST = 6, 60


def exclude_items(benchmark: Benchmark[T], path: str | Path | None) -> Benchmark[T]:
    """The benchmark without the items listed in a file (id, tab, reason per line); unchanged for None.

    Lines that begin with # say nothing. Which reasons there are, and how often, is in the note. Raises BenchmarkError
    for a list that is empty, names an id twice or one that the benchmark does not have, or leaves out everything.
    """
    if path is None:
        return benchmark
    text, digest = read_text(path, "list of items to leave out")
    file = Path(path).name
    reasons: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        own, _, reason = line.strip().partition("\t")
        if not own or own.startswith("#"):
            continue
        if own in reasons:
            raise BenchmarkError(f"{file!r}, line {number}: {own[:40]!r} is listed twice.")
        reasons[own] = " ".join(reason.split())
    ids = Counter(example.id for example in benchmark.examples)
    for own in reasons:
        if ids[own] != 1:
            what = "no item" if not ids[own] else f"{ids[own]:,} items"
            raise BenchmarkError(f"{file!r}: {benchmark.name} has {what} with the id {own[:40]!r}.")
    if not reasons:
        raise BenchmarkError(f"{file!r} lists no item: leave --benchmark-filter out, or list an id a line.")
    if len(reasons) == len(benchmark.examples):
        raise BenchmarkError(f"{file!r} leaves out all {len(reasons):,} items of {benchmark.name}.")
    counted = Counter(reason for reason in reasons.values() if reason).most_common()
    told = [f"{reason[:_LONGEST]} {n:,}" for reason, n in counted[:_MOST_REASONS]]
    if len(counted) > _MOST_REASONS:
        told.append(f"{len(counted) - _MOST_REASONS:,} more reasons")
    why = f" ({', '.join(told)})" if told else ", without a reason"
    more = f"{len(reasons):,} left out by {file}, sha256 {digest}{why}"
    return replace(
        benchmark,
        examples=tuple(e for e in benchmark.examples if e.id not in reasons),
        left_out=tuple(e for e in benchmark.examples if e.id in reasons),
        note="; ".join(filter(None, (benchmark.note, more))),
    )
