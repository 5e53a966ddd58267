"""A meter of the resources of a computation and of each probe in it, up to its record."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from auditor.report.record.energy import EnergyRecord, ProbeEnergy
from auditor.training.counters import POWERCAP, counters_of, recorded

if TYPE_CHECKING:
    from auditor.judging.measurement import ProbeResult
    from auditor.models.audited_model import AuditedModel

# Well below what a counter takes to go round.
_EVERY_S = 30.0


class Meter:
    """A resource meter, started on creation; :meth:`record` reads it, and the end of its block stops it.

    Counters are read at each probe's ends and now and then between, so that none goes round unseen. ``device``: where
    the computation is asked to be, and what whoever learns it better may write there. ``root``: of the powercap tree,
    for tests.
    """

    def __init__(self, device: str = "cpu", root: Path = POWERCAP) -> None:
        self.device = device
        self._counters, self._silent = counters_of(device, root)
        self._cpu, self._began = _processor_time(), time.monotonic()
        self._lock = threading.Lock()
        self._asking: tuple[str, list[int]] | None = None
        self._joules: dict[str, dict[str, float]] = {}
        self._closed = threading.Event()
        if self._counters:
            threading.Thread(target=self._watch, name="energy", daemon=True).start()

    def _watch(self) -> None:
        while not self._closed.wait(_EVERY_S):
            self._read_counters()

    def _read_counters(self) -> list[int]:
        with self._lock:
            for counter in self._counters:
                counter.take()
            return [counter.steps for counter in self._counters]

    def begins(self, probe: str) -> None:
        """Start the measurement of a probe."""
        self._asking = (probe, self._read_counters())

    def ends(self) -> None:
        """End the measurement of the probe."""
        if self._asking is None:
            return
        (probe, before), self._asking = self._asking, None
        steps = zip(self._counters, before, self._read_counters(), strict=True)
        self._joules[probe] = {c.name: (now - then) * c.step_j for c, then, now in steps if now > then}

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the reading between probes."""
        self._closed.set()

    def record(self, results: Sequence[ProbeResult] = (), *, activity: Literal["audit", "training"]) -> EnergyRecord:
        """The resources used so far."""
        self._read_counters()
        counters, not_measured = recorded(self._counters, self._silent)
        on_gpu = self.device.startswith(("cuda", "mps"))
        if not on_gpu:
            counters = tuple(each for each in counters if each.counts != "card")
            not_measured = tuple(each for each in not_measured if not each.counter.startswith("NVML"))
        known = {counter.name for counter in counters}
        flops = [result.flops for result in results if result.flops is not None]
        ways = {result.flops_by for result in results if result.flops}
        return EnergyRecord(
            of=activity,
            cpu_s=round(_processor_time() - self._cpu, 3),
            gpu_s=round(time.monotonic() - self._began, 3) if on_gpu else 0.0,
            flops=math.fsum(flops) if ways else None,
            flops_by="estimated" if "estimated" in ways else "counted" if ways else "",
            counters=counters,
            not_measured=not_measured,
            probes=tuple(
                ProbeEnergy(
                    probe=result.probe,
                    cpu_s=round(result.cpu_s, 3),
                    flops=result.flops,
                    joules={
                        name: joules for name, joules in self._joules.get(result.probe, {}).items() if name in known
                    },
                )
                for result in results
                if result.cpu_s
            ),
        )


def _processor_time() -> float:
    """Seconds of this process and of its children that have ended."""
    return math.fsum(os.times()[:4])


def taken_by_probe(model: AuditedModel | None) -> Callable[[ProbeResult], ProbeResult]:
    """Start now; the returned function adds the resources used since then to a probe's result."""
    began = time.process_time()
    # What stands in for a model, such as one known by its stored answers, passes nothing forward.
    went_in = getattr(model, "forwarded", None)
    before = None if went_in is None else went_in.copy()

    def noted(result: ProbeResult) -> ProbeResult:
        cpu_s = max(0.0, time.process_time() - began)
        if model is None or before is None:
            return replace(result, cpu_s=cpu_s)
        # Imported with torch, which a model of this kind has brought.
        from auditor.training.forward_flops import flops_of

        flops, by = flops_of(model, went_in - before)
        return replace(result, cpu_s=time.process_time() - began, flops=flops, flops_by=by if flops else "")

    return noted
