"""The checkpointed state of an audit during training, and the parts that a resumed audit must share."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import ValidationError

from auditor.core.errors import AuditorError, UsageError
from auditor.core.files import UNREADABLE, Closed, printable_name
from auditor.judging.measurement import ProbeResult
from auditor.judging.training_looks import LookRecord, TrainingRecord
from auditor.report.record.audit_report import AuditReport, ModelRecord

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Levels of ``n_peeks`` looks and of the closing one, which together come to ``error_rate``.

    The closing look, whose report is kept, has ``closing_share`` of the rate, and the looks on the way share the rest
    evenly. The rows stay and the model changes between two looks, so that each look asks about another model: evidence
    does not add up over looks, the questions do, and no bound but the union's holds whatever their dependence
    (Bonferroni). Over the whole run the chance of any false alarm is at most ``error_rate``.

    Raises ValueError where a number is out of range.
    """

    n_peeks: int
    error_rate: float = 0.05
    closing_share: float = 0.5

    def __post_init__(self) -> None:
        if self.n_peeks < 1:
            raise ValueError(f"n_peeks must be at least 1, not {self.n_peeks}")
        if not 0.0 < self.error_rate < 1.0:
            raise ValueError(f"error_rate must lie in (0, 1), not {self.error_rate}")
        if not 0.0 < self.closing_share < 1.0:
            raise ValueError(f"closing_share must lie in (0, 1), not {self.closing_share}")

    @property
    def peek(self) -> float:
        """The level of each look on the way."""
        return self.error_rate * (1.0 - self.closing_share) / self.n_peeks

    @property
    def closing(self) -> float:
        """The level of the closing look."""
        return self.error_rate * self.closing_share


@dataclass
class Budget:
    """Limit of the audits' share of processor time to ``max_overhead``, by skipping looks; None skips none.

    Processor time is that of all threads of this process: what else the machine is busy with makes neither the training
    nor the audits dearer. The first look is always taken, since it tells what one costs; so is the closing one, which
    the report is made of and for which every other look leaves enough. A later look is taken once the training has paid
    for it, for all looks before it and for what is still to come. So the share is kept in every training of which it
    comes to the first look, the closing one and the report: in 60 s, 3 % are 1.8 s.

    ``reserve``: seconds that are kept for the report; ``seconds``: what audits took so far; ``before``: what training
    and audits took in the processes that this one goes on from; ``clock`` is for tests.
    """

    max_overhead: float | None
    reserve: float = 0.0
    clock: Callable[[], float] = time.process_time
    seconds: float = 0.0
    longest: float = 0.0
    before: float = 0.0
    _begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Record that training starts or continues now."""
        self._begun = self.clock()

    def allows(self) -> bool:
        """Whether one more look, and the closing one, would stay within the share."""
        return not self.longest or self.affords(self.longest)

    def affords(self, seconds: float) -> bool:
        """Whether so many more seconds, the closing look and the report would stay within the share."""
        if self.max_overhead is None:
            return True
        training = self.elapsed - self.seconds
        allowance = training * self.max_overhead / (1.0 - self.max_overhead)
        return self.seconds + seconds + self.longest + self.reserve <= allowance

    def spend(self, seconds: float, *, look: bool = True) -> None:
        """Record time spent by a look, or by other work outside of training."""
        self.seconds += seconds
        if look:
            self.longest = max(self.longest, seconds)

    @property
    def elapsed(self) -> float:
        """Seconds of training and audits so far."""
        # A process's clock begins at zero, so that in one that was forked off after ``begin`` it would run backwards.
        return self.before + max(0.0, self.clock() - self._begun)

    @property
    def goal(self) -> str:
        """The reason for skipped looks, in words; a training resumed from a checkpoint may have no limit."""
        return "within a limit, since lifted," if self.max_overhead is None else f"near {self.max_overhead:.3g}"

    @property
    def overhead(self) -> float:
        """Share of audits in the processor time so far, in [0, 1]."""
        passed = self.elapsed
        return self.seconds / passed if passed > 0.0 else 0.0


Kept = tuple[bool, float, Mapping[str, "Tensor"]]
# Beyond it a number of calls is no longer exact as the float that a look's place is.
_MOST_CALLS = 1 << 53
_MOST_NAMED = 10


class Run(Closed):
    """Common settings of all looks of a run, by digest or in words: these share the error rate."""

    rows: str
    probes: str
    criteria: str
    plan: str
    error_rate: float
    seed: int

    @property
    def digest(self) -> str:
        """The digest of all settings."""
        return _digest(self.model_dump())

    def differs_from(self, other: Run) -> str:
        """The settings that differ, in words; "" if none."""
        names = ("rows", "probes", "criteria", "plan", "error_rate", "seed")
        return " and ".join(n.replace("_", " ") for n in names if getattr(self, n) != getattr(other, n))


class SavedLook(Closed):
    """A stored look: its measurements; its judgements follow from these."""

    look: int
    at: float
    error_rate: float
    seconds: float
    judged: bool
    weights: str
    results: tuple[ProbeResult, ...]
    faults: tuple[str, ...]


class Saved(Closed):
    """The state for a resumed audit.

    ``last``: the network's digest at the last look, where it is known.

    ``calls``: how often ``step`` was called. ``passed_s``, ``audits_s``, ``longest_s``: processor time of the training
    with its audits, of the audits, and of the longest look. ``kept``: whether the weights that ride along passed, and
    where they were taken.
    """

    version: Literal[1] = 1
    run: Run
    looks: tuple[SavedLook, ...]
    left_out: tuple[float, ...]
    calls: int
    stop: bool
    faults: tuple[str, ...]
    resumed_after: tuple[int, ...]
    spent: tuple[LookRecord, ...]
    last: tuple[int, ...] | None
    model: ModelRecord
    device: str
    passed_s: float
    audits_s: float
    longest_s: float
    kept: tuple[bool, float] | None

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Saved:
        """The state in a checkpoint.

        Raises UsageError where it is no such state.
        """
        try:
            return cls.model_validate_json(json.dumps(state["audit"]))
        except (LookupError, TypeError, *UNREADABLE) as error:
            raise no_state(_first(error) if isinstance(error, ValidationError) else type(error).__name__) from None

    def check(self, run: Run, spending: Spending | None, look_interval: int) -> None:
        """Raise UsageError if it is of another run, or contradicts itself or the plan: one look per ``look_interval``
        calls.

        Not asked of what is written, so that nothing odd in a training ever keeps it from its checkpoint.
        """
        if other := self.run.differs_from(run):
            raise UsageError(
                f"This state is of an audit of other {other}, and its error rate is shared out over those: give the "
                "audit what it was begun with, or leave the state out and begin another."
            )
        if (
            why := self._of_looks(look_interval)
            or wrong_levels((*self.looks, *self.spent), spending)
            or self._of_times()
        ):
            raise no_state(why)

    def _of_looks(self, look_interval: int) -> str:
        numbers = [look.look for look in self.looks]
        rising = numbers == sorted(set(numbers)) and (not numbers or numbers[0] >= 1)
        if not rising or (numbers and numbers[-1] > self.reached):
            named = ", ".join(map(str, numbers[:_MOST_NAMED])) + (" ..." if len(numbers) > _MOST_NAMED else "")
            return f"its looks are numbered {named}, and have to rise from 1 to at most {self.reached:,}"
        if not 0 <= self.calls <= _MOST_CALLS or self.calls // look_interval < self.reached:
            return f"{self.calls} calls come to no {self.reached:,} looks"
        if any(n < 0 for n in self.resumed_after):
            return "it was resumed after less than no look"
        if self.kept is not None and self.kept[1] not in [look.at for look in self.looks]:
            return f"weights are said to be kept of {self.kept[1]:g}, where no look was"
        return ""

    def _of_times(self) -> str:
        seconds = [self.passed_s, self.audits_s, self.longest_s, *(look.seconds for look in self.looks)]
        return f"{min(seconds):g} seconds are less than none" if min(seconds) < 0.0 else ""

    def weights(self, state: Mapping[str, Any]) -> Kept | None:
        """The weights stored in the checkpoint; None if there are none.

        Raises UsageError for what is no snapshot of a network.
        """
        if "weights" not in state:
            return None
        from torch import Tensor

        from auditor.training.inspect_network import finite

        weights = state["weights"]
        if self.kept is None:
            raise no_state("weights ride along, and of no look is it said that any were kept")
        if not isinstance(weights, Mapping) or not weights:
            raise no_state("the weights that ride along are no tensors by name")
        if any(not isinstance(n, str) or not isinstance(t, Tensor) for n, t in weights.items()):
            raise no_state("the weights that ride along are no tensors by name")
        try:
            usable = finite(weights)
        except Exception as error:
            # A tensor without storage, or of a layout that has no such test, cannot be copied back either.
            raise no_state(f"the weights that ride along cannot be read ({type(error).__name__})") from None
        if not usable:
            raise no_state("the weights that ride along hold NaN or infinity")
        return (*self.kept, dict(weights))

    @property
    def reached(self) -> int:
        """The number of planned looks reached, taken or skipped."""
        return len(self.looks) + len(self.left_out)


def wrong_levels(looks: Sequence[SavedLook | LookRecord], spending: Spending | None) -> str:
    """The look judged at another level than planned, or beyond the plan, in words; "" if none."""
    planned, level, closing = 0, 0.0, 0.0
    if spending is not None:
        planned, level, closing = spending.n_peeks, spending.peek, spending.closing
    for look in looks:
        due = closing if look.look is None else level
        if not math.isclose(look.error_rate, due, rel_tol=1e-9):
            return f"a look has the error rate {look.error_rate:g}, and the plan gives it {due:g}"
        if look.judged and (not planned or (look.look is not None and look.look > planned)):
            return f"a look was judged that is none of the {planned:,} planned"
    return ""


def plan_in_words(n_peeks: int | None, look_interval: str | int, closing_share: float) -> str:
    """The plan of a run, as its identification."""
    looks = "no plan" if n_peeks is None else f"{n_peeks} looks"
    return f"{looks}, one every {look_interval}, closing share {closing_share!r}"


def no_state(reason: str) -> UsageError:
    """The error for a damaged state, or one of another version."""
    return UsageError(f"This is no state of a TrainingAudit that this version can read: {reason}.")


def _first(error: ValidationError) -> str:
    """The first of what is wrong, with its place in the state."""
    first = error.errors()[0]
    where = ".".join(printable_name(part) for part in first["loc"])
    # Of a number of no known kind the message lists them all.
    said = printable_name(first["msg"]).rstrip(".")
    return f"{where}: {said}" if where else said


def record_of(out: Path | None, run: str) -> TrainingRecord | None:
    """The record of the same run in the folder's report; None if missing, or of another run."""
    if out is None:
        return None
    try:
        found = AuditReport.from_json((out / "report.json").read_bytes()).training
    except (OSError, AuditorError):
        return None
    return found if found is not None and found.run == run else None


def judged_before(
    record: TrainingRecord | None, saved: Saved, own_looks: Sequence[LookRecord]
) -> tuple[LookRecord, ...]:
    """Judged looks, by the report on disk or by the state, that are not the state's own."""
    found = list(saved.spent)
    if record is not None:
        closing = () if record.closing is None else (record.closing,)
        found += [*record.looks, *record.spent, *closing]
    kept: list[LookRecord] = []
    for look in found:
        if look.judged and not any(look == other or look.is_repeat_of(other) for other in (*own_looks, *kept)):
            kept.append(look)
    return tuple(kept)


def rows_digest(data: AuditData) -> str:
    """Digest of the rows in order, with labels, groups, membership, clusters and weights."""
    groups = data.sensitive_features
    columns = {} if groups is None else {str(name): _of_column(groups[name]) for name in groups.columns}
    return _digest(
        [data.classes, data.positive, data.binned, _plain(data.keys), columns, data.is_member, _plain(data.design)]
    )


def probes_digest(probes: Sequence[object]) -> str:
    """Digest of the probes and their options, before their first run."""
    return _digest([[_name_of(type(probe)), _plain(vars(probe))] for probe in probes])


def criteria_digest(criteria: Sequence[Any]) -> str:
    """Digest of the requirements."""
    return _digest([_plain(criterion.record.model_dump()) for criterion in criteria])


def weights_digest(numbers: tuple[int, ...] | None) -> str:
    """The digests of a network's tensors as one, "" where there is no network."""
    return "" if numbers is None else _digest(list(numbers))


def _of_column(column: pd.Series[Any]) -> str:
    return _digest(np.asarray(pd.util.hash_pandas_object(column.astype(str), index=False)))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    """What is the same in every process: contents of what holds some, names of what is code."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Set):
        return sorted(json.dumps(_plain(each)) for each in value)
    if isinstance(value, Sequence | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, pd.DataFrame):
        return {str(name): _of_column(value[name]) for name in value.columns}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return str(value) if isinstance(value, Path | np.generic) else _name_of(value)


def _name_of(value: object) -> str:
    named = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
