"""What a probe measured, before anybody judges it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict

from auditor.finding.figure import Figure
from auditor.statistics.kinds import AnyEstimate

Pillar = Literal["fairness", "language", "attribution", "privacy", "robustness", "deepfake", "intake"]


class Outcome(StrEnum):
    """The six things a finding can say; the first three are judgements."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT_RUN"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    NOT_JUDGED = "NOT_JUDGED"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number with its uncertainty, and where it was taken; it judges nothing.

    ``metric``: the field's name in snake_case. ``ideal``: the value of a model without fault, None where none is
    better.
    ``sensitive``: the features a headline compares groups of. ``group``: the group a per-group number belongs to.
    ``at``: the other coordinates, such as ``{"feature": "age"}`` or ``{"noise": 0.1}``. ``too_few``: why the number may
    be shown but not judged, or "".
    """

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    metric: str
    estimate: AnyEstimate
    n_samples: int
    method: str = ""
    ideal: float | None = None
    sensitive: tuple[str, ...] = ()
    group: Mapping[str, str] = field(default_factory=dict)
    at: Mapping[str, str | float] = field(default_factory=dict)
    detail: str = ""
    too_few: str = ""
    n_needed: int | None = None
    figure: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What became of one probe: its measurements, or the reason why there are none."""

    probe: str
    pillar: Pillar
    citation: str
    measurements: tuple[Measurement, ...] = ()
    not_run: str = ""
    not_applicable: str = ""
    duration_s: float = 0.0
