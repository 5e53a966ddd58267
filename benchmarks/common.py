"""What every benchmark prints: ours, the peer's, their ratio and the bar it is held to."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path


def machine() -> str:
    """Processor and number of cores."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(ours: Callable[[], float], peer: Callable[[], float], pairs: int) -> tuple[float, float, float]:
    """Medians of ours and of the peer's figure over interleaved pairs, and the median of the pairs' peer / ours."""
    mine, theirs = [], []
    for _ in range(pairs):
        theirs.append(peer())
        mine.append(ours())
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    return statistics.median(mine), statistics.median(theirs), ratio


def emit(name: str, *, ours: float, peer: float, ratio: float, bar: float, threads: int, **more: object) -> None:
    """Prints one JSON object with ``--json``, else the same in words."""
    record = {
        "name": name, "ours": ours, "peer": peer, "ratio": ratio, "bar": bar, "machine": machine(), "threads": threads,
        **more,
    }  # fmt: skip
    if "--json" in sys.argv:
        print(json.dumps(record))
        return
    verdict = "meets" if ratio >= bar else "MISSES"
    print(f"{name}: ours {ours:.4g} s, peer {peer:.4g} s, ratio {ratio:.4g} {verdict} the bar of {bar:g}")
    for key, value in more.items():
        print(f"  {key}: {value}")
