"""Test whether reasons are specific to this row.

They are made typical one after the other, and the score must move as they claim.

Comprehensiveness (DeYoung et al., ACL 2020) of one row: against random orders of all its features, over typical rows
that had no part in finding the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.row_explanations import Faithfulness
from auditor.statistics.values import bounded_mean
from probes.attribution.attribution_units import Units
from probes.attribution.category_codes import Coded

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# (m, d) which features are kept to (m, b) scores, one for each of b typical rows that lend the others.
Masked = Callable[[BoolArray], FloatArray]

LEVEL = 0.05
# Of random orders, how many may move the score further than the reasons do.
MOST_BEATEN_BY = 0.05
N_ORDERS = 100
# Of the largest move: less than that is no difference between two orders.
_ALIKE = 0.05
_ROUNDING = 1e-6
_ROWS_AT_ONCE = 8192


def masked_table(model: AuditedModel, row: AuditData, typical: AuditData, positive: int) -> Masked:
    """The favourable probability of a table's row with some features from a typical row, for each typical row."""
    coded = Coded.from_samples(model, row, typical)

    def ask(keep: BoolArray) -> FloatArray:
        b = len(coded.background)
        at_once = max(1, _ROWS_AT_ONCE // b)
        parts = []
        for start in range(0, len(keep), at_once):
            some = keep[start : start + at_once]
            codes = np.where(some[:, None, :], coded.sample[0], coded.background[None])
            table = coded.decode(codes.reshape(-1, codes.shape[-1]))
            parts.append(model.predict_proba(table)[:, positive].reshape(len(some), b))
        return np.concatenate(parts)

    return ask


def masked_units(units: Units) -> Masked:
    """The score of a text without some of its words, which have a single form of removal."""

    def ask(keep: BoolArray) -> FloatArray:
        return units.score(np.zeros(len(keep), np.int64), keep)[:, None]

    return ask


def grade(
    ask: Masked, reasons: Sequence[int], present: BoolArray, sign: float, rng: np.random.Generator, *, level: float
) -> Faithfulness:
    """Whether removal of the reasons, (k,) features in order, changes the score as claimed.

    ``present`` (d,): the features there are. ``sign``: 1 where a high score made the decision, else -1. With m(S) =
    sign * (f(x) - f(x without S)), the mean over typical rows, and R_j the first j reasons, of which the last is left
    out where there are no other features: ``moved`` is the mean of m(R_j). It must be above 0 with its whole interval,
    and at most 5 % of random orders of the features may move it further, by more than a twentieth of the largest move.
    """
    features = np.flatnonzero(present)
    k = min(len(reasons), max(1, len(features) - 1))
    orders = [np.asarray(reasons[:k], np.int64)]
    if len(features) > 1:
        orders += [rng.permutation(features)[:k] for _ in range(N_ORDERS)]
    scores = ask(np.concatenate([present[None], _removal_masks(orders, present)]))
    moves = sign * (scores[:1] - scores[1:]).reshape(len(orders), k, -1)
    span = float(np.abs(moves).max(initial=0.0))
    own, others = moves[0].mean(axis=0), moves[1:].mean(axis=(1, 2))
    moved = float(own.mean())
    low = None
    if own.size > 1 and span > _ROUNDING:
        most = max(span, 1e-9)
        low = bounded_mean(np.clip(own, -most, most), low=-most, high=most).bounds(level)[0]
    beaten = float((others <= moved + _ALIKE * span).mean()) if others.size else 1.0
    return Faithfulness(
        moved=moved,
        moved_low=low,
        random=float(others.mean()) if others.size else None,
        beaten=beaten,
        level=level,
        refused=_refusal_reason(moved, low, beaten, span),
    )


def _removal_masks(orders: Sequence[IntArray], present: BoolArray) -> BoolArray:
    """(n_orders * k, d) the features that are left while those of each order go, one after the other."""
    out = np.repeat(present[None], sum(map(len, orders)), axis=0)
    at = 0
    for order in orders:
        for j in range(len(order)):
            out[at, order[: j + 1]] = False
            at += 1
    return out


def _refusal_reason(shift: float, low: float | None, beaten: float, span: float) -> str:
    if span <= _ROUNDING:
        return "the score does not move whatever is made typical, so nothing of this row speaks for its decision"
    if shift <= 0.0 or (low is not None and low <= 0.0):
        shown = f"{shift:.3g}" if low is None else f"{shift:.3g}, at least {low:.3g}"
        return f"making the reasons typical is not shown to move the score away from the decision (by {shown})"
    if beaten < 1.0 - MOST_BEATEN_BY:
        return (
            f"{1.0 - beaten:.0%} of random orders of the features move the score further than these reasons do, of "
            f"which {MOST_BEATEN_BY:.0%} are allowed"
        )
    return ""
