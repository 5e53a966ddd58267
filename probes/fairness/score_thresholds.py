"""Group metrics of a score at a grid of thresholds, and the worst of them, valid for all thresholds at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from auditor.finding.figure import Figure, Series
from auditor.finding.measurement import Measurement
from auditor.rows import FloatArray, IntArray
from auditor.statistics.estimate import Undefined
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.rates import RateTable
from probes.fairness.group_metrics import rate_table

MOST_THRESHOLDS = 50
_MOST_LINES = 6
_CURVE = np.linspace(0.0, 1.0, 21)
_CURVE_ERROR = 0.05
_ALONE = Undefined(reason="only one group is present, so there is nothing to compare it with")


def checked_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """The thresholds in ascending order, each once; ValueError for one outside (0, 1), or for too many."""
    given = [thresholds] if isinstance(thresholds, (int, float)) else list(thresholds)
    numbers = [isinstance(t, (int, float)) and not isinstance(t, bool) and 0.0 < t < 1.0 for t in given]
    if not all(numbers):
        raise ValueError(f"thresholds lie between 0 and 1, not {given[numbers.index(False)]!r}")
    if len(set(given)) > MOST_THRESHOLDS:
        raise ValueError(f"thresholds are at most {MOST_THRESHOLDS}, not {len(set(given))}")
    return tuple(sorted({float(t) for t in given}))


def at_thresholds(
    names: tuple[str, ...],
    titles: Sequence[str],
    codes: IntArray,
    scores: FloatArray,
    y_true: IntArray | None,
    positive: int,
    thresholds: Sequence[float],
) -> list[Measurement]:
    """The measurements of one set of groups; :class:`~probes.fairness.score_fairness.ScoreFairness` defines them.

    ``codes`` (n,) into ``titles``; ``scores`` (n,) in [0, 1]; ``y_true`` (n,), negative where there is no label.
    """
    if not thresholds:
        return []
    selection = [_rates(f"selection rate at {t:g}", scores >= t, codes, len(titles)) for t in thresholds]
    families: list[tuple[str, float, list[tuple[RateTable, ...]], int]] = [
        ("demographic_parity_difference", 0.0, [(table,) for table in selection], len(codes)),
        ("demographic_parity_ratio", 1.0, [(table,) for table in selection], len(codes)),
    ]
    if y_true is not None and (y_true >= 0).any():
        odds = []
        for t in thresholds:
            chosen = scores >= t
            of = {"true positive": y_true == positive, "false positive": (y_true >= 0) & (y_true != positive)}
            odds.append(
                tuple(_rates(f"{r} rate at {t:g}", chosen[own], codes[own], len(titles)) for r, own in of.items())
            )
        families.append(("equalized_odds_difference", 0.0, odds, int((y_true >= 0).sum())))
    found: list[Measurement] = []
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
                figure=_curve(names, titles, codes, scores) if metric == "demographic_parity_difference" else None,
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
    """Why nothing is judged at a threshold that tells no rows apart; "" where it does."""
    if 0 < sum(selection.successes) < sum(selection.n):
        return ""
    side = "at or above" if sum(selection.successes) else "below"
    return f"All scores are {side} {threshold:g}: decided there, all rows would be decided alike."


def _rates(name: str, chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], codes: IntArray, g: int) -> RateTable:
    return rate_table(name, np.bincount(codes[chosen], minlength=g), np.bincount(codes, minlength=g))


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


def _curve(names: tuple[str, ...], titles: Sequence[str], codes: IntArray, scores: FloatArray) -> Figure | None:
    """Share of each group that scores at least a threshold, with a band that holds for all thresholds and groups.

    The band is Dvoretzky, Kiefer and Wolfowitz's, ``sqrt(ln(2 G / 0.05) / 2n)`` over G groups (Massart, Ann. Probab.
    18, 1990).
    """
    sizes = np.bincount(codes, minlength=len(titles))
    drawn = sorted(np.argsort(-sizes, kind="stable")[:_MOST_LINES].tolist())
    if len(titles) < 2:
        return None
    series = []
    for g in drawn:
        own = np.sort(scores[codes == g])
        share = 1.0 - np.searchsorted(own, _CURVE, "left") / own.size
        band = math.sqrt(math.log(2.0 * len(titles) / _CURVE_ERROR) / (2.0 * own.size))
        series.append(
            Series(
                name=titles[g],
                x=tuple(_CURVE.tolist()),
                y=tuple(share.tolist()),
                low=tuple(np.maximum(share - band, 0.0).tolist()),
                high=tuple(np.minimum(share + band, 1.0).tolist()),
            )
        )
    by = " x ".join(names)
    caption = (
        "The bands hold for all thresholds and groups together at 95 % confidence (Dvoretzky, Kiefer and Wolfowitz). "
        "The model's own decisions are one threshold among these."
    )
    if len(titles) > len(drawn):
        caption += f" The {len(drawn)} largest of {len(titles)} groups are drawn."
    return Figure(
        id=f"score_fairness/selection_by_threshold/{'+'.join(names)}",
        probe="score_fairness",
        kind="curve",
        title=f"Selection rate by threshold on the score, by {by}",
        series=tuple(series),
        alt=(
            f"Share of each group by {by} that scores at least a threshold. At 0.5: "
            + ", ".join(f"{s.name} {s.y[10]:.3f}" for s in series)
            + f". {caption}"
        ),
        x_label="threshold on the score",
        y_label="selection rate",
        caption=caption,
    )
