"""Energy counters of the machine: RAPL of processors via the kernel's powercap tree, NVML of NVIDIA GPUs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from auditor.report.record.energy import Counts, EnergyCounter, NotMeasured, Why
from auditor.report.record.number_text import visible

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
