"""What a finding asks, by which it is known again in another audit whatever its id there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from auditor.finding.criterion import CriterionRecord

# Probe, method, metric, and what it is of: groups, places and the features whose groups are compared.
Key = tuple[str, str | None, str, tuple[tuple[str, str | float], ...]]


class Asking(Protocol):
    """What of a finding says what it asks."""

    @property
    def probe(self) -> str: ...
    @property
    def method(self) -> str | None: ...
    @property
    def metric(self) -> str | None: ...
    @property
    def group(self) -> Mapping[str, str]: ...
    @property
    def sensitive(self) -> tuple[str, ...]: ...
    @property
    def at(self) -> Mapping[str, str | float]: ...
    @property
    def criterion(self) -> CriterionRecord | None: ...


def key_of(finding: Asking) -> Key:
    """What a finding is of; of one that nobody measured, what its criterion is about."""
    of: list[tuple[str, str | float]] = [*finding.group.items(), *finding.at.items()]
    if finding.sensitive:
        of.append(("by", " x ".join(finding.sensitive)))
    required = "" if finding.criterion is None else finding.criterion.metric
    return finding.probe, finding.method, finding.metric or required, tuple(sorted(of, key=lambda pair: pair[0]))


def called(key: Key) -> str:
    """What a key asks, on one line: ``selection_rate (sex=female)``."""
    probe, method, metric, of = key
    where = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in of]
    if method not in (None, "between_groups", "paired"):
        where.append(str(method))
    return f"{metric or probe} ({', '.join(where)})" if where else metric or probe
