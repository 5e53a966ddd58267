"""Representation of groups: their shares of the rows beside the stated shares of a population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from auditor.data.group_counts import MISSING
from auditor.judging.measurement import why_doubtful
from auditor.report.record.audit_report import AuditReport
from auditor.statistics.intervals import clopper_pearson

ERROR_RATE = 0.05
Standing = Literal["fewer", "more", "open", "unnamed", "uncertain"]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A group's ``n`` of the ``of`` rows with known group, and its ``reference`` share, None if unstated.

    ``low`` and ``high`` are Clopper and Pearson's bounds, so narrow that all of a report hold together with a
    probability of at least 95 %; None where rows are not independent draws.
    """

    feature: str
    group: str
    n: int
    of: int
    low: float | None
    high: float | None
    reference: float | None

    @property
    def share(self) -> float:
        """The group's share of the rows with known group."""
        return self.n / self.of

    @property
    def comparison(self) -> Standing:
        """Whether the group is significantly rarer or commoner among the rows than in the reference."""
        if self.reference is None:
            return "unnamed"
        if self.low is None or self.high is None:
            return "uncertain"
        return "fewer" if self.high < self.reference else "more" if self.low > self.reference else "open"


def shares_of(report: AuditReport) -> tuple[Share, ...]:
    """The shares of all groups of the features in ``[data.reference]`` of audit.toml.

    A group that the reference has and no row is in has the share 0; rows without a group count in no share.
    """
    stated = report.about.data.reference.shares if report.about is not None else {}
    groups = report.data.groups or {}
    found = []
    for feature, own in stated.items():
        counted = {name: n for name, n in groups.get(feature, {}).items() if name != MISSING}
        if sum(counted.values()):
            found += [(feature, name, counted.get(name, 0), sum(counted.values())) for name in {**own, **counted}]
    if not found:
        return ()
    n, of = (np.asarray([each[k] for each in found]) for k in (2, 3))
    low, high = clopper_pearson(n, n=of, alpha=ERROR_RATE / (2 * len(found)))
    known = not why_dependent(report)
    return tuple(
        Share(
            feature=feature,
            group=group,
            n=k,
            of=m,
            low=float(low[i]) if known else None,
            high=float(high[i]) if known else None,
            reference=stated[feature].get(group),
        )
        for i, (feature, group, k, m) in enumerate(found)
    )


def why_dependent(report: AuditReport) -> Literal["", "clusters", "weights", "copies"]:
    """The reason why the rows are not independent, equally weighted draws; "" without a known reason."""
    data = report.data
    if data.cluster is not None:
        return "clusters"
    if data.weight is not None:
        return "weights"
    return "copies" if why_doubtful(data.copies) else ""
