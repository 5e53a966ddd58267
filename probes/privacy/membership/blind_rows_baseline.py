"""The blind baseline of Das, Zhang and Tramer (2024): membership inference without the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from auditor.statistics.estimate import Undefined
from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve
from probes.privacy.membership.quantile_regression import as_numbers

if TYPE_CHECKING:
    from probes.privacy.membership.member_pool import Pool

FEWEST_ROWS = 100


def blind_auc(pool: Pool, rng: np.random.Generator) -> AreaUnderCurve | Undefined:
    """AUC of a classifier of rows and labels alone, gradient-boosted trees with separate training and test halves.

    0.5 where members and non-members are drawn alike. Undefined for texts and images, and below 100 rows on a side.
    """
    if pool.rows.modality != "tabular" or min(pool.n_members, pool.n_others) < FEWEST_ROWS:
        return Undefined(reason=f"the blind baseline needs a table with {FEWEST_ROWS} members and as many non-members")
    from sklearn.ensemble import HistGradientBoostingClassifier

    columns = np.column_stack([as_numbers(pool.rows.X), pool.labels.astype(np.float64)])
    tried = np.zeros(pool.labels.size, bool)
    for side in (pool.is_member, ~pool.is_member):
        own = rng.permutation(np.flatnonzero(side))
        tried[own[own.size // 2 :]] = True
    learner = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=0
    )
    scores = learner.fit(columns[~tried], pool.is_member[~tried]).decision_function(columns[tried])
    return area_under_curve(positives=scores[pool.is_member[tried]], negatives=scores[~pool.is_member[tried]])


def remark(estimate: AreaUnderCurve | Undefined, level: float) -> str:
    """The baseline's remark on the two files if its result is almost certainly no chance; else ""."""
    if isinstance(estimate, Undefined):
        return ""
    low, _ = estimate.bounds(level)
    if low <= 0.5:
        return ""
    return (
        f"the two files can be told apart without asking the model (AUC {estimate.value:.3f} on rows held back): they "
        "differ by more than membership, and part of what the attacks find may be that"
    )
