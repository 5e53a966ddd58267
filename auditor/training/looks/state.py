"""The state of an audit in a training: what rides in a checkpoint, and what of it another audit must share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import ValidationError

from auditor.errors import AuditorError, UsageError
from auditor.files import Closed
from auditor.finding.measurement import ProbeResult
from auditor.finding.training_looks import LookRecord, TrainingRecord
from auditor.report.record import AuditReport, ModelRecord

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData


class Run(Closed):
    """What all looks of a run have in common, each by a digest or in words: the error rate is shared out over these."""

    rows: str
    probes: str
    criteria: str
    plan: str
    error_rate: float
    seed: int

    @property
    def digest(self) -> str:
        """Of all of them."""
        return _digest(self.model_dump())

    def differs_from(self, other: Run) -> str:
        """What of it is other there, in words; "" where nothing is."""
        names = ("rows", "probes", "criteria", "plan", "error_rate", "seed")
        return " and ".join(n.replace("_", " ") for n in names if getattr(self, n) != getattr(other, n))


class SavedLook(Closed):
    """A look as it is kept: what was measured; its judgements follow from that."""

    look: int
    at: float
    error_rate: float
    seconds: float
    judged: bool
    weights: str
    results: tuple[ProbeResult, ...]
    faults: tuple[str, ...]


class Saved(Closed):
    """What a resumed audit goes on from. ``last``: the network's digest at the last look, where it is known.

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
    def read(cls, state: Mapping[str, Any]) -> Saved:
        """Of what a checkpoint held. Raises UsageError where it is no such state."""
        try:
            return cls.model_validate_json(json.dumps(state["audit"]))
        except (KeyError, TypeError, ValueError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else type(error).__name__
            raise UsageError(f"This is no state of a TrainingAudit that this version can read: {first}.") from None

    @property
    def reached(self) -> int:
        """How many looks of the plan it has come to, taken or left out."""
        return len(self.looks) + len(self.left_out)


def record_of(out: Path | None, run: str) -> TrainingRecord | None:
    """What the report in the folder says of the same run; None where there is none, or it is another's."""
    if out is None:
        return None
    try:
        found = AuditReport.from_json((out / "report.json").read_bytes()).training
    except (OSError, AuditorError):
        return None
    return found if found is not None and found.run == run else None


def judged_before(record: TrainingRecord | None, saved: Saved, own: Sequence[LookRecord]) -> tuple[LookRecord, ...]:
    """Looks that were judged, by the report on disk or by the state itself, and that are none of the state's own."""
    found = list(saved.spent)
    if record is not None:
        closing = () if record.closing is None else (record.closing,)
        found += [*record.looks, *record.spent, *closing]
    kept: list[LookRecord] = []
    for look in found:
        if look.judged and not any(look == other or look.same(other) for other in (*own, *kept)):
            kept.append(look)
    return tuple(kept)


def rows_digest(data: AuditData) -> str:
    """Of the rows in their order, with labels, groups, membership, clusters and weights."""
    groups = data.sensitive_features
    columns = {} if groups is None else {str(name): _of_column(groups[name]) for name in groups.columns}
    return _digest(
        [data.classes, data.positive, data.binned, _plain(data.keys), columns, data.is_member, _plain(data.design)]
    )


def probes_digest(probes: Sequence[object]) -> str:
    """Of the probes and their options, before they are asked for the first time."""
    return _digest([[_name_of(type(probe)), _plain(vars(probe))] for probe in probes])


def criteria_digest(criteria: Sequence[Any]) -> str:
    """Of what is required."""
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
