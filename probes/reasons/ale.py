"""Accumulated local effects of the numeric columns of a table on the score, with bands.

A curve shows the effect of a number on the score among rows with similar values. Partial dependence gives every row
every value of a feature and asks the model about people who cannot be: of a feature that goes along with others it
averages answers from where there are no rows. Here each row is moved across its own bin alone, and the differences are
added up. Source: Apley and Zhu, "Visualizing the effects of predictor variables in black box supervised learning
models", Journal of the Royal Statistical Society B 82 (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray, IntArray
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.values import bounded_mean
from probes.probe_inputs import as_frame, draw, whole_number
from probes.reasons.feature_actions import indicators
from probes.reasons.recourse import typed
from probes.robustness.table_noise import as_taken, numbers, numeric_names

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Values of one feature (n,) to the scores of the rows with these in its place (n,).
Score = Callable[[FloatArray], FloatArray]

N_BINS = 10
# A spread needs two; the band says how little is known of so few.
FEWEST_IN_BIN = 2
# The outermost values are single people's.
_ENDS = (0.01, 0.99)
_SIMULATED = 2_000
# Edges are rounded to a power of ten that is no more than this of what they span: a quantile is somebody's own value.
_ROUNDED_TO = 0.02


@dataclass(frozen=True, eq=False, kw_only=True)
class AleCurve:
    """The effect of one feature along its values, centred so that its mean over the rows is 0.

    edges (k+1,): values; values (k+1,): the effect at each; low, high (k+1,): a band that holds all of them at once
    with ``confidence``, given which rows lie in which bin; effects (n,): how far the score moves as each row crosses
    its own bin; counts (k,): rows in each bin.
    """

    edges: FloatArray
    values: FloatArray
    low: FloatArray
    high: FloatArray
    effects: FloatArray
    counts: IntArray
    confidence: float


def bin_edges(x: FloatArray, n_bins: int = N_BINS) -> FloatArray:
    """(k+1,) edges of bins with about equally many of the values (n,), ``FEWEST_IN_BIN`` at least; empty below two.

    A column with few values has an edge at each of these. Of one with many the edges are quantiles between the first
    and the 99th percentile, rounded, so that no edge is the value of one row.
    """
    levels, counts = np.unique(x, return_counts=True)
    if len(levels) <= n_bins + 1 and (len(levels) <= 2 or counts.min() > 1):
        edges = levels
    else:
        edges = np.quantile(x, np.linspace(*_ENDS, n_bins + 1))
        span = float(edges[-1] - edges[0])
        if span > 0.0:
            step = 10.0 ** np.floor(np.log10(span * _ROUNDED_TO))
            edges = np.round(np.round(edges / step) * step, 12)
        edges = np.unique(edges)
    return _merge_bins(x, edges) if len(edges) > 1 else np.empty(0)


def _merge_bins(x: FloatArray, edges: FloatArray) -> FloatArray:
    """The edges less those that leave a bin with too few rows; the two ends stay."""
    kept = list(edges)
    while len(kept) > 2:
        counts = np.bincount(bins_of(x, np.asarray(kept)), minlength=len(kept) - 1)
        thin = int(counts.argmin())
        if counts[thin] >= FEWEST_IN_BIN:
            break
        # Into the smaller of its neighbours.
        left = counts[thin - 1] if thin else np.inf
        right = counts[thin + 1] if thin + 1 < len(counts) else np.inf
        del kept[thin if left <= right else thin + 1]
    return np.asarray(kept, np.float64)


def bins_of(x: FloatArray, edges: FloatArray) -> IntArray:
    """(n,) the bin ``(edges[k], edges[k+1]]`` of each value; values outside are in the nearest bin."""
    return np.clip(np.searchsorted(edges, x, side="left") - 1, 0, len(edges) - 2).astype(np.int64)


def ale_curve(
    x: FloatArray, score: Score, edges: FloatArray, rng: np.random.Generator, *, confidence: float = 0.95
) -> AleCurve:
    """The curve of a feature with values x (n,) over given edges (k+1,), and its simultaneous band.

    The effect of bin k is the mean over its n_k rows of ``f(edges[k+1]) - f(edges[k])``, and the curve their sum, less
    its mean over the rows, of each bin the mean of its two ends. That is linear in the bins' means, which are of
    different rows, so its errors are ``L e``, e_k being s_k / sqrt(n_k) times Student's t of n_k - 1 degrees of
    freedom; the band is the quantile of the largest error over all edges, in standard errors, simulated.
    """
    k = len(edges) - 1
    bins = bins_of(x, edges)
    effects = score(edges[bins + 1]) - score(edges[bins])
    counts = np.bincount(bins, minlength=k)
    means = np.bincount(bins, effects, minlength=k) / np.maximum(counts, 1)
    spread = np.bincount(bins, (effects - means[bins]) ** 2, minlength=k)
    degrees = np.maximum(counts - 1, 1)
    errors = np.where(counts > 1, np.sqrt(spread / degrees / np.maximum(counts, 1)), np.inf)
    sums = np.tri(k + 1, k, -1)
    weights = counts / max(counts.sum(), 1)
    linear = sums - weights @ ((sums[1:] + sums[:-1]) / 2.0)
    values = linear @ means
    reach = _reach(linear, errors, degrees, rng, confidence)
    return AleCurve(
        edges=edges,
        values=values,
        low=values - reach,
        high=values + reach,
        effects=effects,
        counts=counts.astype(np.int64),
        confidence=confidence,
    )


def _reach(
    linear: FloatArray, errors: FloatArray, degrees: IntArray, rng: np.random.Generator, confidence: float
) -> FloatArray:
    """(k+1,) how far the band reaches to either side; infinite where a bin has too few rows to know its spread."""
    if not np.isfinite(errors).all():
        return np.full(len(linear), np.inf)
    draws = rng.standard_t(degrees, size=(_SIMULATED, len(errors))) * errors
    deviations = draws @ linear.T
    standard = np.sqrt((linear**2) @ (errors**2))
    # Without any spread rounding is all there is.
    moving = standard > 1e-12 * max(1.0, float(standard.max(initial=0.0)))
    if not moving.any():
        return np.zeros(len(linear))
    largest = np.abs(deviations[:, moving] / standard[moving]).max(axis=1)
    return np.asarray(np.where(moving, np.quantile(largest, confidence) * standard, 0.0), np.float64)


CONFIDENCE = 0.95
_MOST_FIGURES = 12
# Each costs two answers to every row of the sample.
_MOST_FEATURES = 100


class AccumulatedLocalEffects(BaseProbe):
    """The effect of each feature on the score, among rows with similar values.

    Bins hold about equally many rows of the feature. No built-in profile requires any value. The figure is the curve of
    Apley and Zhu with a band that holds the whole curve at once with 95 %: see
    :func:`probes.reasons.ale.ale_curve`.

    It is no partial dependence, which would ask about rows that cannot be, such as children with forty years of work: a
    model that has never seen them answers anything, and the plot shows it as the feature's effect.

    n_samples: rows, drawn without replacement. n_bins: bins of a feature at most. Categories have no order to
    accumulate along and are left out, as are features of one value and the indicators of one category, none of which
    changes by itself. Of more than 100 features those are asked about whose values go with the score most closely, by
    the rank correlation.

    Source: Apley and Zhu, Journal of the Royal Statistical Society B 82 (2020).
    """

    name = "ale"
    pillar = "attribution"
    goal = "What does each number do to the score, among rows that have about its value?"
    citation = "Apley and Zhu, Journal of the Royal Statistical Society B 82 (2020)"
    methods = ("ale",)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("curves"),)
    ideal_when_same = {"ale_local_effect": "scores"}
    untrusted_options = allow_untrusted("n_samples", "n_bins")
    metrics = define_metrics(
        """
        ale_local_effect: of a feature, the mean over rows of |f(x with the upper end of its bin) - f(x with the lower
          end)|, f the favourable probability; [0, 1], no ideal; how far the score moves as a row crosses a tenth of the
          others; Apley and Zhu, J. R. Stat. Soc. B 82 (2020)
        """
    )

    def __init__(self, *, n_samples: int = 1_000, n_bins: int = N_BINS) -> None:
        whole_number("n_samples", n_samples, 2)
        whole_number("n_bins", n_bins, 1, 100)
        self.n_samples = n_samples
        self.n_bins = n_bins

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """A number and a curve for each feature of numbers; see the class."""
        rows = data.evaluation
        if rows.modality != "tabular":
            raise NotApplicableError("Adds up effects along the columns of a table, and these rows are none.")
        positive = rows.positive if rows.positive is not None else 1 if model.n_outputs == 2 else None
        if positive is None:
            raise NotApplicableError("It follows one answer's score: say which with --positive LABEL.")
        sample = draw(rows, self.n_samples, rng)
        frame = as_frame(sample.X, model.features)
        names = numeric_names(model, frame)
        together = indicators(frame, names)
        names = [name for name in names if name not in together]
        kept = names if len(names) <= _MOST_FEATURES else _strongest(model, sample, frame, names, positive)
        found = {str(name): self._curve(model, sample, frame, name, positive, rng) for name in kept}
        curves = {name: curve for name, curve in found.items() if curve is not None}
        if not curves:
            raise NotApplicableError(
                "No feature holds numbers of which there are several, along which effects could be added up."
            )
        drawn = sorted(curves, key=lambda name: -float(np.abs(curves[name].effects).mean()))[:_MOST_FIGURES]
        label = model.classes[positive]
        left_out = len(names) - len(kept)
        return [
            _effect_measurement(name, curve, _figure(name, curve, label) if name in drawn else None, left_out)
            for name, curve in curves.items()
        ]

    def _curve(
        self,
        model: AuditedModel,
        sample: AuditData,
        frame: pd.DataFrame,
        name: Any,
        positive: int,
        rng: np.random.Generator,
    ) -> AleCurve | None:
        x = numbers(frame[name])
        known = np.isfinite(x)
        edges = bin_edges(x[known], self.n_bins)
        if not len(edges):
            return None
        own = frame[known].reset_index(drop=True)

        def score(values: FloatArray) -> FloatArray:
            put = own.copy()
            whole = np.issubdtype(np.asarray(own[name]).dtype, np.integer)
            put[name] = typed(np.round(values), own[name]) if whole else values
            return model.predict_proba(as_taken(put, sample.X))[:, positive]

        return ale_curve(x[known], score, edges, rng, confidence=CONFIDENCE)


def _strongest(
    model: AuditedModel, sample: AuditData, frame: pd.DataFrame, names: Sequence[Any], positive: int
) -> list[Any]:
    """The features whose values go with the score most closely, by the rank correlation, in the table's order."""
    from scipy.stats import rankdata

    score = rankdata(model.predict_proba(sample.X)[:, positive])
    ranks = rankdata(np.column_stack([numbers(frame[name]) for name in names]), axis=0, nan_policy="omit")
    ranks = np.nan_to_num(ranks - np.nanmean(ranks, axis=0))
    size = np.linalg.norm(ranks, axis=0)
    close = np.abs((score - score.mean()) @ ranks) / np.where(size > 0.0, size, 1.0)
    return [names[j] for j in sorted(np.argsort(-close, kind="stable")[:_MOST_FEATURES])]


def _effect_measurement(name: str, curve: AleCurve, figure: Figure | None, left_out: int) -> Measurement:
    others = f"; {left_out:,} features whose values go with the score less were not asked about" if left_out else ""
    return Measurement(
        metric="ale_local_effect",
        estimate=bounded_mean(np.abs(curve.effects), low=0.0, high=1.0),
        n_samples=len(curve.effects),
        method="ale",
        at={"feature": name},
        figure=figure,
        detail=_curve_text(curve) + others,
    )


def _curve_text(curve: AleCurve) -> str:
    """The ends of the curve, in words that name no row's value."""
    rise = float(curve.values[-1] - curve.values[0])
    way = "rises" if rise > 0.0 else "falls" if rise < 0.0 else "ends as it begins"
    return f"over {len(curve.counts)} bins of {curve.counts.min():,} to {curve.counts.max():,} rows the score {way}" + (
        f" by {abs(rise):.3g} from the lowest to the highest values" if rise else ""
    )


def _figure(name: str, curve: AleCurve, label: str) -> Figure:
    ends = f"from {curve.values[0]:.3g} to {curve.values[-1]:.3g}"
    return Figure(
        id=f"ale/curve/{name}",
        probe="ale",
        kind="curve",
        title=f"What {name} does to the score",
        series=(
            Series(
                name=name,
                x=tuple(map(float, curve.edges)),
                y=tuple(map(float, curve.values)),
                low=tuple(map(float, curve.low)),
                high=tuple(map(float, curve.high)),
            ),
        ),
        alt=f"Accumulated local effects of {name}, {ends}: {_curve_text(curve)}.",
        x_label=name,
        y_label=f"effect on the probability of {label!r}",
        caption=(
            "Accumulated local effects (Apley and Zhu 2020): each row crosses its own bin alone, so that no impossible "
            "row is asked about, unlike in partial dependence. The mean over the rows is 0. The band holds the whole "
            f"curve at once with {CONFIDENCE:.0%}, given which rows lie in which bin. Edges are rounded quantiles."
        ),
    )
