"""Group metrics of a score at a grid of thresholds, and the worst of them, valid for all thresholds at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.score_counts import FAVOURABLE, OTHER, UNLABELLED, Scored
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rates import RateTable
from auditor.statistics.threshold_bounds import joint_shares
from probes.fairness.group_metrics import rate_table

MOST_THRESHOLDS = 50
_MOST_LINES = 6
CURVE = np.linspace(0.0, 1.0, 21)
_CURVE_ERROR = 0.05
# With fewer rows on one side of a threshold any groups are close there, whatever the score says of them.
_FEWEST_APART = 10
_ALONE = Undefined(reason="only one group is present, so there is nothing to compare it with")


def checked_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """The distinct thresholds in ascending order; ValueError for one outside (0, 1), or for too many."""
    given = [thresholds] if isinstance(thresholds, (int, float)) else list(thresholds)
    numbers = [isinstance(t, (int, float)) and not isinstance(t, bool) and 0.0 < t < 1.0 for t in given]
    if not all(numbers):
        raise ValueError(f"thresholds lie between 0 and 1, not {given[numbers.index(False)]!r}")
    if len(set(given)) > MOST_THRESHOLDS:
        raise ValueError(f"thresholds are at most {MOST_THRESHOLDS}, not {len(set(given))}")
    return tuple(sorted({float(t) for t in given}))


@dataclass(frozen=True, eq=False)
class GroupScores:
    """The score counts of each group: ``n`` (g, 3) rows by label, ``at_least`` (t, g, 3) those with a score of at least
    each threshold, ``by_score`` (g, 21) as by :func:`counts_by_score`.

    ``own``: the threshold of the model's decisions. Labels are OTHER, FAVOURABLE and UNLABELLED.
    """

    titles: Sequence[str]
    n: IntArray
    at_least: IntArray
    by_score: IntArray
    own: float | None

    @classmethod
    def from_rows(
        cls,
        titles: Sequence[str],
        codes: IntArray,
        scores: FloatArray,
        y_true: IntArray | None,
        positive: int,
        thresholds: Sequence[float],
        model_threshold: float | None,
    ) -> GroupScores:
        """Counts from rows: ``codes`` (n,) into ``titles``, ``scores`` (n,) in [0, 1], and ``y_true`` (n,), negative
        without a label."""
        g = len(titles)
        truth = np.full(len(codes), -1, np.int64) if y_true is None else y_true
        label = np.where(truth < 0, UNLABELLED, np.where(truth == positive, FAVOURABLE, OTHER))
        cells = codes * 3 + label

        def count_cells(indices: IntArray) -> IntArray:
            return np.asarray(np.bincount(indices, minlength=g * 3).reshape(g, 3), np.int64)

        at_least = [count_cells(cells.compress(scores >= t)) for t in thresholds]
        by_score = counts_by_score(scores, codes, g)
        return cls(
            titles, count_cells(cells), np.asarray(at_least, np.int64).reshape(-1, g, 3), by_score, model_threshold
        )

    @classmethod
    def of_stream(cls, scored: Scored, thresholds: Sequence[float], model_threshold: float | None) -> GroupScores:
        """Exact counts from streamed counts: the thresholds are bin edges."""
        at_least = [scored.at_least(t) for t in thresholds]
        beyond = np.stack([scored.at_least(t).sum(axis=1) for t in CURVE], axis=1)
        by_score = np.column_stack([beyond[:, :-1] - beyond[:, 1:], beyond[:, -1:]])
        n = scored.counts.sum(axis=2)
        return cls(scored.titles, n, np.asarray(at_least, np.int64).reshape(-1, *n.shape), by_score, model_threshold)


def at_thresholds(names: tuple[str, ...], groups: GroupScores, thresholds: Sequence[float]) -> list[Measurement]:
    """The measurements of one set of groups; see :class:`~probes.fairness.score_fairness.ScoreFairness`."""
    if not thresholds:
        return []
    titles, own = groups.titles, groups.own
    each = list(zip(thresholds, groups.at_least, strict=True))
    n, labelled = groups.n.sum(axis=1), int(groups.n[:, :UNLABELLED].sum())
    selection = [rate_table(f"selection rate at {t:g}", above.sum(axis=1), n) for t, above in each]
    families: list[tuple[str, float, list[tuple[RateTable, ...]], int]] = [
        ("demographic_parity_difference", 0.0, [(table,) for table in selection], int(n.sum())),
        ("demographic_parity_ratio", 1.0, [(table,) for table in selection], int(n.sum())),
    ]
    if labelled:
        of = {"true positive": FAVOURABLE, "false positive": OTHER}
        odds = [
            tuple(rate_table(f"{r} rate at {t:g}", above[:, own], groups.n[:, own]) for r, own in of.items())
            for t, above in each
        ]
        families.append(("equalized_odds_difference", 0.0, odds, labelled))
    found: list[Measurement] = []
    drawn = _curve(names, titles, groups.by_score, own)
    for metric, ideal, tables, n in families:
        together = tuple(table for at_one in tables for table in at_one)
        told = {t: _untold(table, t) for table, t in zip(selection, thresholds, strict=True)}
        found.append(
            Measurement(
                metric=f"{metric}_over_thresholds",
                method="between_groups",
                estimate=_worst(metric, together),
                n_samples=n,
                ideal=ideal,
                sensitive=names,
                at={"thresholds": ", ".join(f"{t:g}" for t in thresholds)},
                detail=_extreme(titles, together, ratio=ideal == 1.0),
                too_few=" ".join(told.values()) if all(told.values()) else "",
                ideal_when_same="scores",
                figure=drawn if metric == "demographic_parity_difference" else None,
            )
        )
        found += [
            Measurement(
                metric=f"{metric}_at_threshold",
                method="between_groups",
                estimate=_worst(metric, at_one),
                n_samples=n,
                ideal=ideal,
                sensitive=names,
                at={"threshold": t},
                detail=_extreme(titles, at_one, ratio=ideal == 1.0),
                too_few=told[t],
                ideal_when_same="scores",
            )
            for t, at_one in zip(thresholds, tables, strict=True)
        ]
    return found


def _untold(selection: RateTable, threshold: float) -> str:
    """Why nothing is judged at a threshold that tells hardly any rows apart; "" where it does."""
    n, chosen = sum(selection.n), sum(selection.successes)
    if min(chosen, n - chosen) >= _FEWEST_APART:
        return ""
    side, other = ("at or above", n - chosen) if 2 * chosen > n else ("below", chosen)
    who, alike = ("All", "all") if not other else (f"All but {other} of {n:,}", "nearly all")
    return f"{who} scores are {side} {threshold:g}: decided there, {alike} rows would be decided alike."


def _worst(metric: str, tables: tuple[RateTable, ...]) -> AnyEstimate:
    if len(tables[0].n) < 2:
        return _ALONE
    return WorstRatio(tables=tables) if metric.endswith("ratio") else WorstDifference(tables=tables)


def _extreme(titles: Sequence[str], tables: Sequence[RateTable], *, ratio: bool) -> str:
    """The table with the widest gap, in words, and the groups for which a rate does not exist."""
    worst, text = -math.inf, ""
    for table in tables:
        present = [i for i, n in enumerate(table.n) if n]
        if len(present) < 2:
            continue
        p = {i: table.successes[i] / table.n[i] for i in present}
        low, high = min(p, key=lambda i: p[i]), max(p, key=lambda i: p[i])
        gap = (1.0 - p[low] / p[high] if p[high] > 0 else 0.0) if ratio else p[high] - p[low]
        if gap > worst:
            worst, text = (
                gap,
                f"widest in {table.rate}: {titles[low]} {p[low]:.3f} (n = {table.n[low]:,}) and {titles[high]} "
                f"{p[high]:.3f} (n = {table.n[high]:,})",
            )
    absent = list(dict.fromkeys(titles[i] for table in tables for i, n in enumerate(table.n) if not n))
    if absent:
        text += f"; undefined (0/0) for {', '.join(absent[:5])}{' and others' if len(absent) > 5 else ''}"
    return text


def own_threshold(scores: FloatArray, is_selected: BoolArray) -> float | None:
    """The score threshold that gives these decisions, (n,) each; None if there is none."""
    below, above = scores[~is_selected].max(initial=-np.inf), scores[is_selected].min(initial=np.inf)
    return threshold_between(float(below), float(above))


def threshold_between(highest_below: float, lowest_above: float) -> float | None:
    """The score threshold that gives the decisions; None if there is none.

    ``highest_below``: the largest score that was decided against, and ``lowest_above`` the smallest that was decided
    for, infinite where there is none. 0.5 where that is one of those that do, else the middle of them.
    """
    if highest_below >= lowest_above or not math.isfinite(highest_below) or not math.isfinite(lowest_above):
        return None
    return 0.5 if highest_below < 0.5 <= lowest_above else (highest_below + lowest_above) / 2.0


def counts_by_score(scores: FloatArray, codes: IntArray, n_groups: int) -> IntArray:
    """(n_groups, 21) rows of each group with scores at or above each of 0, 0.05 to 1, and below the next."""
    place = np.searchsorted(CURVE, scores, "right") - 1
    counts: IntArray = np.bincount(codes * CURVE.size + place, minlength=n_groups * CURVE.size)
    return counts.reshape(n_groups, CURVE.size)


def largest(counts: IntArray) -> list[int]:
    """The groups that fit into a figure, in their order."""
    return sorted(np.argsort(-counts.sum(axis=1), kind="stable")[:_MOST_LINES].tolist())


def _left_out(counts: IntArray) -> str:
    return f" The {_MOST_LINES} largest of {len(counts)} groups are drawn." if len(counts) > _MOST_LINES else ""


def _curve(
    names: tuple[str, ...], titles: Sequence[str], counts: IntArray, model_threshold: float | None
) -> Figure | None:
    """Share of each group that scores at least a threshold, and how far two groups are apart, with a joint band."""
    if len(titles) < 2:
        return None
    found = joint_shares(counts, error=_CURVE_ERROR)
    x = tuple(CURVE.tolist())

    def series(name: str, y: FloatArray, low: FloatArray, high: FloatArray) -> Series:
        return Series(name=name, x=x, y=tuple(y.tolist()), low=tuple(low.tolist()), high=tuple(high.tolist()))

    drawn = [series(titles[g], found.shares[g], found.low[g], found.high[g]) for g in largest(counts)]
    apart = series("largest difference", found.difference, found.difference_low, found.difference_high)
    caption = (
        "The bands hold for all thresholds, all groups and their largest difference together at 95 % confidence "
        "(Dvoretzky, Kiefer and Wolfowitz, with Massart's constant). "
    )
    caption += (
        "The model's own decisions follow no one threshold on the score."
        if model_threshold is None
        else f"The model itself decides at {model_threshold:.3g}."
    ) + _left_out(counts)
    by = " x ".join(names)
    at = int(np.argmin(np.abs(CURVE - (0.5 if model_threshold is None else model_threshold))))
    return Figure(
        id=f"score_fairness/selection_by_threshold/{'+'.join(names)}",
        probe="score_fairness",
        kind="threshold",
        title=f"If the threshold were another: selection rate by {by}",
        series=(*drawn, apart),
        alt=(
            f"Share of each group by {by} that scores at least a threshold. At {CURVE[at]:.2g}: "
            + ", ".join(f"{s.name} {s.y[at]:.3f}" for s in (*drawn, apart))
            + f". {caption}"
        ),
        x_label="threshold on the score",
        y_label="selection rate",
        caption=caption,
        features=names,
        marked=model_threshold,
    )


def scores_figure(
    names: tuple[str, ...], titles: Sequence[str], counts: IntArray, model_threshold: float | None
) -> Figure | None:
    """The score distribution of each group, in twenty bins of equal width; None for a single group."""
    if len(titles) < 2:
        return None
    by = " x ".join(names)
    # A score of 1 belongs to the last bin.
    binned = np.column_stack([counts[:, :-2], counts[:, -2:].sum(axis=1)])
    middle = (CURVE[:-1] + CURVE[1:]) / 2.0
    series = []
    for g in largest(counts):
        n = int(binned[g].sum())
        low, high = clopper_pearson(binned[g].astype(np.float64), n=n, alpha=_CURVE_ERROR / 2.0 / binned.size)
        series.append(
            Series(
                name=titles[g],
                x=tuple(middle.round(12).tolist()),
                y=tuple((binned[g] / n).tolist()),
                low=tuple(low.tolist()),
                high=tuple(high.tolist()),
            )
        )
    below = 0.5 if model_threshold is None else model_threshold
    caption = (
        f"Share of each group's rows in {len(middle)} bins of the score. The intervals (exact, Bonferroni) hold for "
        f"all bins and groups together at 95 % confidence."
    )
    caption += ("" if model_threshold is None else f" Dashed: the model decides at {model_threshold:.3g}.") + _left_out(
        counts
    )
    under = middle < below
    halves = ", ".join(f"{s.name} {np.asarray(s.y, np.float64)[under].sum():.3f}" for s in series)
    return Figure(
        id=f"score_fairness/scores/{'+'.join(names)}",
        probe="score_fairness",
        kind="scores",
        title=f"How the scores are spread by {by}",
        series=tuple(series),
        alt=f"Distribution of the score of each group by {by}. Share below {below:.3g}: {halves}. {caption}",
        x_label="score",
        y_label="share of the group",
        caption=caption,
        features=names,
        marked=model_threshold,
    )
