"""How many twins an audit can afford: by counts that the record holds, so that the same audit always has the same ones.

Measured times would differ from run to run, and the twins with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from auditor.judging.measurement import ProbeResult
from auditor.judging.planted import FEWEST_CLEAN, FEWEST_PLANTED

# The share of a scan's processor time that planted controls may take.
SHARE = 0.05
# Processor seconds of a scan, at least: to start, load, read and write; of a million rows; and of a probe's answer.
_START, _MILLION_ROWS, _ANSWER = 7.0, 6.0, 0.2
FEWEST = FEWEST_PLANTED + FEWEST_CLEAN
UNAFFORDABLE = f"its twins would take more than {SHARE:.0%} of this scan's processor time, or what others left of that"


# Rows in a larger file are better counted than held, where all probes can answer from counts, and have no twins then.
_MOST_BYTES = 1 << 28


def plants_in(planting: str | None, path: str) -> bool:
    """Whether controls are planted, in a file of rows that may be held for their sake."""
    return planting is not None and not (os.path.isfile(path) and os.path.getsize(path) > _MOST_BYTES)


class Forecast(NamedTuple):
    """Processor seconds of a probe: of one twin, of each number it measures there, and of a million rows of a twin.

    ``most_rows``: of a twin, which has as many drawn at random where there are more. ``training_rows``: whether twins
    have those that the model learned from as well. ``own``, ``own_million``: of its answer about the model itself, and
    of a million rows there.
    """

    twin: float = 0.01
    number: float = 0.0001
    million: float = 1.0
    most_rows: int | None = None
    training_rows: bool = False
    own: float = _ANSWER
    own_million: float = 0.0


def forecast_of(probe: Any) -> Forecast:
    """The probe's forecast, or one of a probe that says nothing of it."""
    found = getattr(probe, "forecast", None)
    return found if isinstance(found, Forecast) else Forecast()


def affordable_twins(
    asked: Sequence[tuple[Any, ProbeResult]],
    wanted: Sequence[tuple[int, int]],
    n_rows: int,
    n_all: int,
    share: float | None = None,
) -> list[int]:
    """How many twins each probe may have, 0 where not even the fewest are affordable: the cheapest probes first.

    ``wanted``: of each probe, how many it would have, and how many more are to try. ``n_rows``: of the evaluation,
    ``n_all``: with those that the model learned from. ``share``: of the time of a scan, SHARE by default.
    """
    answered = [probe for probe, result in asked if result.measurements and result.pillar != "intake"]
    own = sum(f.own + f.own_million * n_all / 1e6 for f in map(forecast_of, answered))
    left = (SHARE if share is None else share) * (_START + _MILLION_ROWS * n_all / 1e6 + own)
    each = [_seconds_of_twin(probe, result, n_rows, n_all) for probe, result in asked]
    found = [0] * len(asked)

    def spend(i: int, n: int, tries: int) -> bool:
        nonlocal left
        fits = (n + tries) * each[i] <= left
        left -= (n + tries) * each[i] if fits else 0.0
        return fits

    having = [i for i, (n, _) in enumerate(wanted) if n]
    cheapest: Callable[[int], float] = lambda i: (FEWEST + wanted[i][1]) * each[i]  # noqa: E731
    for i in sorted(having, key=cheapest):
        found[i] = FEWEST if spend(i, FEWEST, wanted[i][1]) else 0
    for i in sorted(having, key=cheapest):
        while 0 < found[i] < wanted[i][0] and spend(i, 1, 0):
            found[i] += 1
    return found


def _seconds_of_twin(probe: Any, result: ProbeResult, n_rows: int, n_all: int) -> float:
    f = forecast_of(probe)
    rows = min(n_all if f.training_rows else n_rows, f.most_rows or n_all)
    return f.twin + f.number * len(result.measurements) + f.million * rows / 1e6
