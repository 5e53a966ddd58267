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

# What small groups hold together beyond this is compared, whatever their size: whoever splits a group into many small
# ones hides no more of it.
MOST_LEFT_OUT = 0.10
SHARE = "small_group_share"
_MOST_NAMED = 12


@dataclass(frozen=True)
class SmallGroups:
    """The rule: a group of less than ``min_share`` of the rows, or than ``min_rows`` of them, is small; 0 for no rule.

    The smallest groups come first, and together they are at most a tenth of the rows; groups of one size stand or fall
    together.
    """

    min_share: float = 0.02
    min_rows: int = 30

    def small_places(self, sizes: IntArray) -> IntArray:
        """(k,) places of the small groups among those of ``sizes``, (n_groups,)."""
        n = int(sizes.sum())
        if not self.min_share or not n:
            return np.empty(0, np.int64)
        least = max(self.min_share * n, self.min_rows)
        order = np.sort(sizes)
        # Rows of all groups that are no larger than each.
        together = np.cumsum(order)[np.searchsorted(order, sizes, "right") - 1]
        return np.flatnonzero((sizes < least) & (together <= MOST_LEFT_OUT * n))

    def describe(self, n: int) -> str:
        """The definition of a small group among ``n`` rows in all."""
        if self.min_rows > self.min_share * n:
            return f"fewer than {self.min_rows:,} rows"
        return f"under {100.0 * self.min_share:g} % of the rows"


@dataclass(frozen=True, eq=False)
class Compared:
    """Compared groups, ``counts``, among all groups, ``whole``; ``small``: the small ones.

    ``what``: what makes a group small, and ``names``: which are, in words, or "".
    """

    counts: GroupCounts
    whole: GroupCounts
    small: frozenset[tuple[str, ...]] = frozenset()
    what: str = ""
    names: str = ""

    @property
    def exclusion_text(self) -> str:
        """The groups omitted from group comparisons, in words, or ""."""
        return f"without {self._small}" if self.small else ""

    @property
    def _small(self) -> str:
        return f"{len(self.small):,} {'group' if len(self.small) == 1 else 'groups'} of {self.what}: {self.names}"

    def note(self, group: tuple[str, ...]) -> str:
        """The note on a number of one group that no judged number compares it, if so."""
        return f"in no judged number that compares groups, being of {self.what}" if group in self.small else ""

    def annotate(self, measurement: Measurement) -> Measurement:
        """A group comparison with a note on the omitted groups."""
        return replace(
            measurement,
            detail="; ".join(filter(None, (self.exclusion_text, measurement.detail))),
            smallest=int(self.counts.sizes().min()) if self.exclusion_text else 0,
        )

    def share(self, method: str) -> Measurement:
        """The number of rows in small groups, omitted from every judged number; the detail names the groups."""
        sizes = zip(self.whole.groups, self.whole.sizes().tolist(), strict=True)
        n, left = self.whole.n, sum(size for group, size in sizes if group in self.small)
        return Measurement(
            metric=SHARE,
            method=method,
            estimate=Exact(known=left / n) if n else Undefined(reason="there are no rows"),
            n_samples=n,
            ideal=0.0,
            sensitive=self.whole.features,
            detail=self._small if self.small else "",
            ideal_when_same="nothing",
        )


def compare_groups(counts: GroupCounts, rule: SmallGroups) -> Compared:
    """The groups of a table without small ones; all if fewer than two remain, as a gap may be significant."""
    small = rule.small_places(counts.sizes())
    kept = [i for i in range(len(counts.groups)) if i not in set(small.tolist())]
    if not small.size or len(kept) < 2:
        return Compared(counts, counts)
    return Compared(
        counts=replace(counts, groups=tuple(counts.groups[i] for i in kept), table=counts.table[kept]),
        whole=counts,
        small=frozenset(counts.groups[i] for i in small),
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
