"""Too many groups to compare in pairs: said for the one combination of features that has them, and no other is lost."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.finding import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import MOST_GROUPS


def crowd(metric: str, method: str, features: Sequence[str], n_groups: int, n_samples: int) -> Measurement | None:
    """The number that stands for those of a crowd of groups, undefined, or None where the groups are few enough."""
    if n_groups <= MOST_GROUPS:
        return None
    return Measurement(
        metric=metric,
        method=method,
        estimate=Undefined(
            reason=f"{' x '.join(features)} has {n_groups:,} groups, of which {MOST_GROUPS:,} at most are compared: "
            "bin a column of many values with --bins, or name fewer features"
        ),
        n_samples=n_samples,
        sensitive=tuple(features),
    )
