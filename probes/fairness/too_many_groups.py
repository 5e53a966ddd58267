"""Too many groups for pairwise comparison: reported for that feature combination only; all others remain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import MOST_GROUPS


def feature_sets(columns: Iterable[object], *, together: bool) -> list[tuple[str, ...]]:
    """Each sensitive feature by itself, and all of them together where that is asked for."""
    features = tuple(map(str, columns))
    return [*((feature,) for feature in features), *([features] if together and len(features) > 1 else [])]


def crowded_strata(
    metric: str, method: str, features: Sequence[str], strata: str, n_levels: int, n_samples: int
) -> Measurement | None:
    """An undefined number in place of those for too many strata, or None if there are few enough.

    Each is two rates, of the accepted and of the rejected.
    """
    if 2 * n_levels <= MOST_GROUPS:
        return None
    return Measurement(
        metric=metric,
        method=method,
        estimate=Undefined(
            reason=f"{strata} has {n_levels:,} levels, of which {MOST_GROUPS // 2:,} at most are strata: name a column "
            "of fewer levels"
        ),
        n_samples=n_samples,
        sensitive=tuple(features),
    )


def crowd(metric: str, method: str, features: Sequence[str], n_groups: int, n_samples: int) -> Measurement | None:
    """An undefined number in place of those for too many groups, or None if there are few enough."""
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
