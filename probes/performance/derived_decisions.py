"""Changes of decisions from the original model: their number and direction, and the rows of a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats

from auditor.core.errors import NotApplicableError, UsageError
from auditor.core.rows import BoolArray
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import LargestRate
from auditor.statistics.rates import Proportion, RateTable
from probes.fairness.change_since_reference import of_reference

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# A statement in words needs a level of its own; what is judged has that of the scan.
_SAID_AT = 0.95


def flips_in_words(flipped: int, n: int, estimate: AnyEstimate, unit: str, *, worse: bool = False) -> str:
    """The number of flipped items, or of newly wrong ones with ``worse``; for zero, the possible number."""
    if not flipped:
        most = estimate.interval(_SAID_AT)[1]
        return f"no {'negative ' if worse else ''}flip in {n:,} {unit}, at most {most:.3g} of all such at 95 %"
    return f"{flipped:,} of {n:,} {unit} {'were right and are wrong' if worse else 'flipped'}"


def way_in_words(one_way: int, flipped: int, where: str) -> str:
    """The direction of flips, with McNemar's exact two-sided p-value; "" without flips."""
    if not flipped:
        return ""
    p = float(scipy.stats.binomtest(one_way, flipped).pvalue)
    return f"{one_way:,} to {where}, {flipped - one_way:,} from it (exact McNemar p = {p:.2g})"


def direction(
    one_way: BoolArray, estimate: AnyEstimate | None, method: str, group: dict[str, str], detail: str
) -> list[Measurement]:
    """The share of flipped items, (k,), in one direction; empty without flips.

    ``estimate``: that of items that depend on each other; None where they do not.
    """
    k = int(one_way.size)
    if not k:
        return []
    found = Proportion(successes=int(one_way.sum()), n=k) if estimate is None else estimate
    return [
        Measurement(metric="churn_direction", method=method, estimate=found, n_samples=k, group=group, detail=detail)
    ]


def most_flipped(flipped: BoolArray, names: Sequence[str]) -> str:
    """The group with the most flips, in words; "" with one group, or without flips."""
    if not flipped.any() or len(set(names)) < 2:
        return ""
    codes = {name: flipped[[i for i, other in enumerate(names) if other == name]] for name in sorted(set(names))}
    worst = max(codes, key=lambda name: float(codes[name].mean()))
    return f"most among {worst}: {int(codes[worst].sum()):,} of {codes[worst].size:,}"


def join_details(*parts: str) -> str:
    """The non-empty parts of a detail."""
    return "; ".join(part for part in parts if part)


METHOD = "rows"
_MOST_GROUPS = 100


def drift(
    before: AuditedModel, after: AuditedModel, data: AuditData, reference_name: str, unjudged_reason: str
) -> list[Measurement]:
    """Churn and negative flips over the evaluation rows, and by group.

    ``reference_name``: what they are since, in words. ``unjudged_reason``: why no number may be judged, or "".
    Raises NotApplicableError without rows, UsageError where the classes differ.
    """
    if before.classes != after.classes:
        raise UsageError(
            f"The reference has the classes {', '.join(before.classes[:6])}, this model "
            f"{', '.join(after.classes[:6])}: compare models that answer the same question."
        )
    if not len(data):
        raise NotApplicableError("Needs evaluation data: add --data FILE.")
    rows = data.evaluation
    old, new = of_reference(before, after, rows, "decisions"), after.decisions(rows)
    flipped = np.asarray(old != new, bool)
    labelled = np.zeros(flipped.size, bool) if rows.y_true is None else rows.y_true >= 0
    worse = labelled & (old == rows.y_true) & flipped if rows.y_true is not None else labelled
    better = labelled & (new == rows.y_true) & flipped if rows.y_true is not None else labelled
    favourable = None if rows.positive is None else np.asarray(new == rows.positive, bool)
    # Where the favourable decision is not among them a flip has no way.
    turned = flipped if favourable is None else flipped & (favourable | (old == rows.positive))
    everyone = np.ones(flipped.size, bool)
    groups = list(_groups(rows))
    found = []
    for group, own in [({}, everyone), *((g, mask) for _, of in groups for g, mask in of)]:
        found += _rate("churn", flipped, own, "rows", reference_name, group)
        if favourable is not None:
            ways = favourable[turned & own]
            told = way_in_words(int(ways.sum()), ways.size, "the favourable decision")
            found += direction(ways, None, METHOD, group, join_details(told, reference_name))
        if labelled.any():
            righted = f"{int((better & own).sum()):,} were wrong and are right"
            of_rows = _rate("negative_flip_rate", worse, own & labelled, "labelled rows", reference_name, group)
            found += [replace(m, ideal=0.0, detail=join_details(m.detail, righted)) for m in of_rows]
    for feature, of in groups:
        told = most_flipped(
            np.concatenate([flipped[m] for _, m in of]), [g[feature] for g, m in of for _ in range(int(m.sum()))]
        )
        found.append(
            _largest("largest_group_churn", flipped, everyone, feature, of, join_details(told, reference_name))
        )
        if labelled.any():
            found.append(_largest("largest_group_negative_flip_rate", worse, labelled, feature, of, reference_name))
    return [replace(m, too_few=m.too_few or unjudged_reason) for m in found]


def _rate(
    metric: str, event: BoolArray, mask: BoolArray, unit: str, reference_name: str, group: dict[str, str]
) -> list[Measurement]:
    n, k = int(mask.sum()), int((event & mask).sum())
    if not n:
        return []
    estimate = Proportion(successes=k, n=n)
    detail = join_details(flips_in_words(k, n, estimate, unit, worse=metric != "churn"), reference_name)
    return [Measurement(metric=metric, method=METHOD, estimate=estimate, n_samples=n, group=group, detail=detail)]


def _groups(rows: AuditData) -> Iterator[tuple[str, list[tuple[dict[str, str], BoolArray]]]]:
    """Each sensitive feature of at most a hundred groups, with its groups and which rows (n,) are of each."""
    table = rows.sensitive_features
    for column in [] if table is None else table.columns:
        names = table[column].astype(str).to_numpy(object)  # type: ignore[index]
        levels = sorted(set(names))
        if 1 < len(levels) <= _MOST_GROUPS:
            yield str(column), [({str(column): level}, np.asarray(names == level, bool)) for level in levels]


def _largest(
    metric: str,
    event: BoolArray,
    where: BoolArray,
    feature: str,
    groups: list[tuple[dict[str, str], BoolArray]],
    detail: str,
) -> Measurement:
    counts = [(int((event & where & own).sum()), int((where & own).sum())) for _, own in groups]
    known = [(k, n) for k, n in counts if n]
    table = RateTable(rate=metric, successes=tuple(k for k, _ in known), n=tuple(n for _, n in known))
    estimate: AnyEstimate = LargestRate(table=table)
    return Measurement(
        metric=metric,
        method=METHOD,
        estimate=estimate,
        n_samples=sum(n for _, n in known),
        sensitive=(feature,),
        detail=detail,
    )
