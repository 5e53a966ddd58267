"""Tests of the reasons of one row: specific to the row, stable with other reference rows, valid on real rows.

Features are made typical one after the other, and the score must move as the reasons claim.

Comprehensiveness (DeYoung et al., ACL 2020) of one row: against random orders of all its features, over typical rows
that had no part in finding the reasons.

Against a mean over typical rows a Shapley value is the mean of those against each, so the mean over draws is the value
against all of them, and the spread says how far the order hangs on which rows were drawn.

A model can tell the two apart and answer the mixed ones by harmless features: whatever explains it by them is then
right about the mixed rows and wrong about people. Source of the attack: Slack, Hilgard, Jia, Singh and Lakkaraju,
"Fooling LIME and SHAP", AIES 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.row_explanations import Faithfulness
from auditor.statistics.values import bounded_mean
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.attribution_units import Units
from probes.attribution.gradient import Effort
from probes.attribution.methods import explain, why_not
from probes.attribution.table_units import Coded
from probes.fairwashing import RealRows, real_rows
from probes.probe_inputs import draw

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


# What fits the model best, first: exact values where its inside is known, else gradients, else questions alone.
_TABLES = ("shap_linear", "shap_tree", "integrated_gradients", "shap_permutation")
_TEXTS = ("shap_permutation",)
N_DRAWS = {"tabular": 100, "text": 20}
TYPICAL_ROWS = 50
_MIDDLE = (2.5, 97.5)


@dataclass(frozen=True, eq=False, kw_only=True)
class Drawn:
    """Contributions of the d features of one row to its decision, (n_draws, d).

    ``names``: of the features, or words. ``explained``: the score, in words.
    """

    method: str
    names: tuple[str, ...]
    values: FloatArray
    explained: str

    @property
    def mean(self) -> FloatArray:
        """(d,) contributions."""
        return np.asarray(self.values.mean(axis=0), np.float64)

    @property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """(d,) each, the ends of the middle 95 % of draws."""
        low, high = np.percentile(self.values, _MIDDLE, axis=0)
        return low, high

    @property
    def order(self) -> IntArray:
        """(d,) features from the largest contribution to the least."""
        return np.argsort(-self.mean, kind="stable").astype(np.int64)

    def times_at(self, rank: int, feature: int) -> int:
        """The number of draws in which a feature has a rank, from 0."""
        ranks = np.argsort(np.argsort(-self.values, axis=1, kind="stable"), axis=1, kind="stable")
        return int((ranks[:, feature] == rank).sum())


def draw_attributions(
    model: AuditedModel,
    row: AuditData,
    typical: AuditData,
    explained_class: int,
    sign: float,
    rng: np.random.Generator,
    n_draws: int,
) -> Drawn:
    """Contributions of one row, by the first applicable method, against so many draws of typical rows.

    ``explained_class``: whose score is explained; ``sign``: 1 where a high one made the decision, else -1.
    """
    classes = np.full(1, explained_class, np.int64)
    tabular = row.modality == "tabular"

    def problem() -> Problem:
        few = rng.integers(len(typical), size=min(TYPICAL_ROWS, len(typical))) if tabular else slice(0, 1)
        return pose(model, row, typical.take(few), classes, rng=rng)

    first = problem()
    method = _method_of(model, tabular, first)
    effort = Effort(n_permutations=1)
    # The score's name stands before its baseline's.
    found, explained = [], ""
    for i in range(n_draws):
        made = explain(method, first if i == 0 else problem(), rng, effort)
        found.append(sign * made.values[0])
        explained = made.detail.split(";")[0].removeprefix("explains ")
    return Drawn(method=method, names=first.units.names[0], values=np.asarray(found, np.float64), explained=explained)


def _method_of(model: AuditedModel, tabular: bool, problem: Problem) -> str:
    """The first method that applies."""
    # Its own exact values compare with the rows it was fitted on, whichever rows are given to compare with.
    fitted = getattr(getattr(model, "estimator", None), "own_background", False)
    names = [name for name in (_TABLES if tabular else _TEXTS) if not (fitted and name == "shap_tree")]
    return next(name for name in names if not why_not(name, problem))


# Rows whose contributions say what is shown of each feature, by one walk a row.
_SHOWN_ROWS = 64


def decided_by_what_is_shown(
    model: AuditedModel, rows: AuditData, positive: int, rng: np.random.Generator
) -> RealRows | str:
    """Whether real rows are decided by a feature that contributions hide: see :func:`probes.fairwashing.real_rows`.

    The reason in words where that cannot be tested; "" where the score is linear in the columns, and what is read from
    the model's own coefficients cannot be another on other rows.
    """
    sample, typical = draw(rows, _SHOWN_ROWS, rng), draw(rows, TYPICAL_ROWS, rng)
    problem = pose(model, sample, typical, np.full(len(sample), positive, np.int64), rng=rng)
    method = _method_of(model, True, problem)
    if method == "shap_linear":
        return ""
    made = explain(method, problem, rng, Effort(n_permutations=1))
    return real_rows(model, rows, np.asarray(made.values, np.float64), problem.units.names[0], rng)
