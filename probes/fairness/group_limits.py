"""Limits of group comparison: groups too small to be judged, and too many groups for pairwise comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from auditor.core.rows import IntArray
from auditor.data.group_counts import GroupCounts
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.rates import MOST_GROUPS

# What small groups hold together beyond this is compared group by group, whatever their size.
MOST_POOLED = 0.10
# More of the rows than this are compared, alone or with other small groups, unless they are too few to count on.
MOST_UNCOMPARED = 0.02
# So many rows tell a gap of ten points from none, whatever share of all rows they are.
ENOUGH_ROWS = 1_000
SHARE = "small_group_share"
POOLED = "(small groups)"
_MOST_NAMED = 12


@dataclass(frozen=True)
class SmallGroups:
    """The rule: a group of less than ``min_share`` of the rows, or than ``min_rows`` of them, is small; 0 for no rule.

    A group of 1,000 rows is never small. The smallest groups come first, and together they are at most a tenth of the
    rows; groups of one size stand or fall together. ``pooled``: whether they are compared as one group, if together
    they are no small one.
    """

    min_share: float = MOST_UNCOMPARED
    min_rows: int = 30
    pooled: bool = True

    def small_places(self, sizes: IntArray) -> IntArray:
        """(k,) places of the small groups among those of ``sizes``, (n_groups,)."""
        n = int(sizes.sum())
        if not self.min_share or not n:
            return np.empty(0, np.int64)
        least = self._least(n)
        order = np.sort(sizes)
        # Rows of all groups that are no larger than each.
        together = np.cumsum(order)[np.searchsorted(order, sizes, "right") - 1]
        return np.flatnonzero((sizes < least) & (together <= MOST_POOLED * n))

    def _least(self, n: int) -> float:
        return max(min(self.min_share * n, ENOUGH_ROWS), self.min_rows)

    def pools(self, together: int, n: int) -> bool:
        """Whether small groups of so many rows together, among ``n`` in all, are one group more."""
        return self.pooled and together >= replace(self, min_share=min(self.min_share, MOST_UNCOMPARED))._least(n)

    def describe(self, n: int) -> str:
        """The definition of a small group among ``n`` rows in all."""
        if self._least(n) != self.min_share * n:
            return f"fewer than {self._least(n):,.0f} rows"
        return f"under {100.0 * self.min_share:g} % of the rows"


@dataclass(frozen=True, eq=False)
class Compared:
    """Compared groups, ``counts``, among all groups, ``whole``.

    ``homes``: (n_groups,) of each of all groups its place among those compared, -1 of none. ``small``: the small ones,
    which are one group together, the last, if ``pooled``, and in none otherwise. ``what``: what makes a group small,
    and ``names``: which are, in words, or "".
    """

    counts: GroupCounts
    whole: GroupCounts
    homes: IntArray
    small: frozenset[tuple[str, ...]] = frozenset()
    pooled: bool = False
    what: str = ""
    names: str = ""

    @property
    def _small(self) -> str:
        return f"{len(self.small):,} {'group' if len(self.small) == 1 else 'groups'} of {self.what}"

    def note(self, group: tuple[str, ...]) -> str:
        """The note on a number of one group that none compares it by itself, if so."""
        if group not in self.small:
            return ""
        if self.pooled:
            return f"compared as one with all groups of {self.what}"
        return f"in no judged number that compares groups, being of {self.what}"

    def annotate(self, measurement: Measurement) -> Measurement:
        """A group comparison with a note on the groups that it does not compare by themselves."""
        said = f"{self._small} compared as one" if self.pooled else f"without {self._small}: {self.names}"
        return replace(
            measurement,
            detail="; ".join(filter(None, (said if self.small else "", measurement.detail))),
            smallest=int(self.counts.sizes().min()) if self.small else 0,
        )

    def gather(self, counted: IntArray) -> IntArray:
        """(n_compared,) sums over the groups compared of a count of each of all groups."""
        kept = self.homes >= 0
        return np.bincount(self.homes[kept], weights=counted[kept], minlength=len(self.counts.groups)).astype(np.int64)

    def share(self, method: str) -> Measurement:
        """The share of the rows in groups that no number compares; the detail names the small groups."""
        n, left = self.whole.n, self.whole.n - self.counts.n
        how = " are compared as one" if self.pooled else ", which no number compares"
        said = f"{self._small}{how}; each is shown with its own interval: {self.names}"
        return Measurement(
            metric=SHARE,
            method=method,
            estimate=Exact(known=left / n) if n else Undefined(reason="there are no rows"),
            n_samples=n,
            ideal=0.0,
            sensitive=self.whole.features,
            detail=said if self.small else "",
            ideal_when_same="nothing",
        )


def compare_groups(counts: GroupCounts, rule: SmallGroups) -> Compared:
    """The groups of a table, the small ones together as one more; all if fewer than two large ones remain.

    Small groups that together are no large one are left out.
    """
    sizes, small = counts.sizes(), rule.small_places(counts.sizes())
    kept = np.setdiff1d(np.arange(sizes.size), small)
    homes = np.full(sizes.size, -1)
    homes[kept] = np.arange(kept.size)
    if not small.size or kept.size < 2:
        return Compared(counts, counts, np.arange(sizes.size))
    pooled = rule.pools(int(sizes[small].sum()), counts.n)
    groups, table = [counts.groups[i] for i in kept], counts.table[kept]
    if pooled:
        homes[small] = kept.size
        groups.append((POOLED,))
        table = np.concatenate([table, counts.table[small].sum(axis=0, keepdims=True)])
    return Compared(
        counts=replace(counts, groups=tuple(groups), table=table),
        whole=counts,
        homes=homes,
        small=frozenset(counts.groups[i] for i in small),
        pooled=pooled,
        what=rule.describe(counts.n),
        names=_list_groups(counts, small),
    )


def _list_groups(counts: GroupCounts, places: IntArray) -> str:
    sizes = counts.sizes()
    order = sorted(places.tolist(), key=lambda i: (-sizes[i], counts.groups[i]))
    said = [f"{' x '.join(counts.groups[i])} ({sizes[i]:,})" for i in order[:_MOST_NAMED]]
    more = f" and {len(order) - _MOST_NAMED:,} more" if len(order) > _MOST_NAMED else ""
    return ", ".join(said) + more


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
