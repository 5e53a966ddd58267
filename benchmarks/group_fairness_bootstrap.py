"""Bootstrap intervals of group rates, per resample, against fairlearn's MetricFrame.

50,000 rows, two sensitive features (2 x 5 groups), four metrics, from raw arrays to quantiles, counting included.
ratio = (fairlearn seconds / its resamples) / (our seconds / our resamples). Both give the same percentile intervals
within Monte Carlo error, which is checked, not assumed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from auditor.core.rows import FloatArray
from auditor.data.group_counts import GroupCounts, count_groups, rates
from benchmarks.common import emit, interleaved, seconds

ROWS, OUR_DRAWS, THEIR_DRAWS, PAIRS, BAR = 50_000, 1_000, 20, 3, 10_000.0
QUANTILES = [0.025, 0.975]


def bootstrap_rates(
    counts: GroupCounts, quantiles: Sequence[float], *, n_draws: int, rng: np.random.Generator
) -> FloatArray:
    """(n_quantiles, n_groups, 4) percentile-bootstrap quantiles of :func:`rates` by group: for display, not judging.

    Rows are resampled as one multinomial draw of the labelled cells each, so the cost does not depend on their number.
    """
    cells = counts.binary()
    occupied = np.flatnonzero(cells)
    flat = cells.reshape(-1)
    drawn = np.zeros((n_draws, flat.size), np.int64)
    drawn[:, occupied] = rng.multinomial(int(flat.sum()), flat[occupied] / flat.sum(), size=n_draws)
    return np.asarray(np.nanquantile(rates(drawn.reshape(n_draws, *cells.shape)), quantiles, axis=0), np.float64)


def main() -> None:
    """Runs the comparison and prints it."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import accuracy_score

    rng = np.random.default_rng(0)
    sex, race = rng.integers(0, 2, ROWS), rng.integers(0, 5, ROWS)
    y_true = rng.integers(0, 2, ROWS)
    y_pred = np.where(rng.random(ROWS) < 0.75 - 0.05 * sex - 0.02 * race, y_true, 1 - y_true)
    names = [["f", "m"], list("abcde")]
    groups = pd.DataFrame({"sex": sex, "race": race})
    found: dict[str, object] = {}

    def ours() -> None:
        counts = count_groups(
            y_pred, y_true, [(sex, names[0]), (race, names[1])],
            features=("sex", "race"), classes=("0", "1"), positive=1,
        )  # fmt: skip
        found["ours"] = bootstrap_rates(counts, QUANTILES, n_draws=OUR_DRAWS, rng=np.random.default_rng(1))

    def fairlearn() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = MetricFrame(
                metrics={"s": selection_rate, "t": true_positive_rate, "f": false_positive_rate, "a": accuracy_score},
                y_true=y_true, y_pred=y_pred, sensitive_features=groups,
                n_boot=THEIR_DRAWS, ci_quantiles=QUANTILES, random_state=1,
            )  # fmt: skip
            found["theirs"] = np.stack([frame.by_group_ci[i].to_numpy(float) for i in range(2)])

    ours()
    mine, theirs, ratio = interleaved(
        lambda: seconds(ours) / OUR_DRAWS, lambda: seconds(fairlearn) / THEIR_DRAWS, PAIRS
    )
    a, b = np.asarray(found["ours"]), np.asarray(found["theirs"])
    # The 2.5 % quantile of 20 draws lies about 0.45 standard errors from that of many, give or take half of one.
    error = (a[1] - a[0]) / 3.92
    apart = float(np.abs((b - a) / error).max())
    if apart > 4.0:
        raise SystemExit(f"The intervals disagree: {apart:.1f} standard errors apart.")
    emit(
        "group_fairness_bootstrap", ours=mine, peer=theirs, ratio=ratio, bar=BAR, threads=1,
        unit="seconds per resample", largest_gap_between_interval_ends_in_standard_errors=round(apart, 2),
    )  # fmt: skip


if __name__ == "__main__":
    main()
