"""A meter of the resources of a computation and of each probe, its record, and the cost file beside a model.

Energy comes from the machine's counters: RAPL of processors via the kernel's powercap tree, NVML of NVIDIA GPUs.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from auditor.core.errors import DataError
from auditor.core.files import read_regular, sha256_of, write_beside
from auditor.loading.user_code import code_process
from auditor.report.record.energy import (
    Counts,
    EnergyCounter,
    EnergyRecord,
    NotMeasured,
    ProbeEnergy,
    TrainingEnergy,
    Why,
)
from auditor.report.record.number_text import visible

if TYPE_CHECKING:
    from auditor.judging.measurement import ProbeResult
    from auditor.models.audited_model import AuditedModel

POWERCAP = Path("/sys/class/powercap")
DRIVER = Path("/proc/driver/nvidia")
# A counter of 65 kJ, the smallest there are, goes round once in so many seconds at 540 W.
MOST_BETWEEN = 120.0
_ZONE = re.compile(r"intel-rapl:(\d+)(?::(\d+))?")
_LONGEST = 80


@dataclass
class Counter:
    """One counter: ``read`` returns it in steps of ``step_j`` joules; it restarts at 0 after ``above``, if there is
    such a limit."""

    name: str
    counts: Counts
    step_j: float
    read: Callable[[], int]
    above: int | None = None
    clock: Callable[[], float] = time.monotonic
    steps: int = 0
    why: Why | None = None
    _last: int = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        """Raises what ``read`` raises."""
        self._last, self._at = self.read(), self.clock()

    def take(self) -> None:
        """Add the energy since the last reading; nothing after an invalid reading."""
        if self.why is not None:
            return
        try:
            now = self.read()
        except Exception:  # whatever a driver raises
            self.why = "vanished"
            return
        moment = self.clock()
        passed, self._at = moment - self._at, moment
        if passed > MOST_BETWEEN and self.above is not None:
            self.why = "seldom"
        elif now >= self._last:
            self.steps += now - self._last
        elif self.above is None or self._last > self.above:
            self.why = "backwards"
        else:
            self.steps += self.above - self._last + now
        self._last = now

    def record(self) -> EnergyCounter | NotMeasured:
        """The counted energy; a constant counter, as on virtual machines, is recorded as not measured."""
        if self.why is None and self.steps:
            return EnergyCounter(
                name=self.name, counts=self.counts, resolution_j=self.step_j, joules=self.steps * self.step_j
            )
        return NotMeasured(counter=self.name, why=self.why or "still")


def counters_of(device: str, root: Path = POWERCAP) -> tuple[list[Counter], list[NotMeasured]]:
    """The readable counters for a computation on a device, and the reasons for the others."""
    found, silent = rapl(root)
    # Which device ``auto`` comes to is known once the model is loaded.
    if device.startswith("cuda") or (device == "auto" and DRIVER.exists()):
        cards, dumb = nvml()
        found, silent = [*found, *cards], [*silent, *dumb]
    return found, silent


def rapl(root: Path = POWERCAP) -> tuple[list[Counter], list[NotMeasured]]:
    """Packages and their memory, by ``energy_uj`` below the tree; domains inside a package or around several packages
    are left out, since their energy is already counted."""
    zones = [(fit, zone) for zone in root.glob("intel-rapl:*") if (fit := _ZONE.fullmatch(zone.name))]
    found: list[Counter] = []
    silent: list[NotMeasured] = []
    for fit, zone in sorted(zones, key=lambda one: tuple(int(part or -1) for part in one[0].groups())):
        try:
            called = visible((zone / "name").read_text().strip())[:_LONGEST]
        except (OSError, ValueError):
            called = ""
        inside = fit[2] is not None
        if inside != (called == "dram") or called == "psys":
            continue
        name = f"RAPL {zone.name}{f' ({called})' if called else ''}"
        try:
            above = _number(zone / "max_energy_range_uj")
            found.append(
                Counter(name, "memory" if inside else "package", 1e-6, partial(_number, zone / "energy_uj"), above)
            )
        except PermissionError:
            silent.append(NotMeasured(counter=name, why="root_only"))
        except (OSError, ValueError):
            silent.append(NotMeasured(counter=name, why="unreadable"))
    if not found and not silent:
        silent.append(NotMeasured(counter="RAPL", why="absent"))
    return found, silent


def _number(file: Path) -> int:
    return int(file.read_text())


def nvml(library: Any = None) -> tuple[list[Counter], list[NotMeasured]]:
    """One counter per GPU, in millijoules, by the optional package nvidia-ml-py."""
    if library is None:
        try:
            library = import_module("pynvml")
        except ImportError:
            return [], [NotMeasured(counter="NVML", why="not_installed")]
    try:
        library.nvmlInit()
        cards = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
    except Exception:  # NVMLError is of a module that may not be there
        return [], [NotMeasured(counter="NVML", why="unreadable")]
    found: list[Counter] = []
    silent: list[NotMeasured] = []
    for i, card in enumerate(cards):
        name = f"NVML card {i}"
        try:
            found.append(Counter(name, "card", 1e-3, partial(library.nvmlDeviceGetTotalEnergyConsumption, card)))
        except Exception:
            silent.append(NotMeasured(counter=name, why="unreadable"))
    return found, silent or ([] if found else [NotMeasured(counter="NVML", why="absent")])


def recorded(
    counters: Sequence[Counter], silent: Sequence[NotMeasured]
) -> tuple[tuple[EnergyCounter, ...], tuple[NotMeasured, ...]]:
    """The results of the counters, and the reasons for missing ones."""
    told = [counter.record() for counter in counters]
    return (
        tuple(each for each in told if isinstance(each, EnergyCounter)),
        (*silent, *(each for each in told if isinstance(each, NotMeasured))),
    )


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


def _processor_time_of_code() -> float:
    """Seconds of this process, and of the one in which code of the user's runs."""
    process = code_process()
    return time.process_time() + (0.0 if process is None else process.processor_time())


def taken_by_probe(model: AuditedModel | None) -> Callable[[ProbeResult], ProbeResult]:
    """Start now; the returned function adds the resources used since then to a probe's result."""
    began = _processor_time_of_code()
    # What stands in for a model, such as one known by its stored answers, passes nothing forward.
    went_in = getattr(model, "forwarded", None)
    before = None if went_in is None else went_in.copy()

    def noted(result: ProbeResult) -> ProbeResult:
        cpu_s = max(0.0, _processor_time_of_code() - began)
        if model is None or before is None:
            return replace(result, cpu_s=cpu_s)
        # Imported with torch, which a model of this kind has brought.
        from auditor.training.computation_cost import flops_of

        flops, by = flops_of(model, went_in - before)
        return replace(result, cpu_s=cpu_s, flops=flops, flops_by=by if flops else "")

    return noted


_MOST_BYTES = 1 << 20


def energy_place(model: Path) -> Path:
    """The path of the cost file beside a model file, or beside a model's folder."""
    # The name of any other keeps what stands behind its last dot, which may be a version.
    stem = model.stem if model.suffix == ".pt" else model.name
    return model.with_name(f"{stem}.energy.json")


def of_training(meter: Meter, flops: float | None = None) -> EnergyRecord:
    """The readings of a meter.

    ``flops``: of the forward passes, None where nobody counted.
    """
    energy = meter.record(activity="training")
    return energy if not flops else energy.model_copy(update={"flops": flops, "flops_by": "counted"})


def write_energy(model: Path, energy: EnergyRecord) -> Path:
    """Write the cost file beside an existing model; return its path."""
    place = energy_place(model)
    content = TrainingEnergy(model_sha256=_digest(model), energy=energy)
    write_beside(place, (content.model_dump_json(indent=2) + "\n").encode())
    return place


def read_energy(model: Path) -> EnergyRecord | None:
    """The costs stored beside a model; None if missing, or if the digest is not the model's."""
    try:
        content = TrainingEnergy.model_validate_json(
            read_regular(energy_place(model), "What the training took", _MOST_BYTES)
        )
    except (DataError, ValueError):
        return None
    return content.energy if content.model_sha256 == _digest(model) else None


def _digest(model: Path) -> str:
    if model.is_dir():
        from auditor.loading.rows.folders import sha256_of_folder

        return sha256_of_folder(model)
    return sha256_of(model)
