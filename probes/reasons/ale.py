"""Accumulated local effects of the numeric columns of a table on the score, with bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import Answer, Measurement, Pillar
from auditor.run.probe import Need, allow_untrusted
from auditor.statistics.values import bounded_mean
from probes.probe_inputs import as_frame, draw, whole_number
from probes.reasons.ale_curve import N_BINS, AleCurve, ale_curve, bin_edges
from probes.reasons.feature_actions import indicators
from probes.reasons.recourse import typed
from probes.robustness.table_noise import as_taken, numbers, numeric_names

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

CONFIDENCE = 0.95
_MOST_FIGURES = 12


class AccumulatedLocalEffects:
    """The effect of each feature on the score, among rows with similar values.

    - ``ale_local_effect``: of a feature, the mean over rows of ``|f(x with the upper end of its bin) - f(x with the
      lower end)|``, f the favourable probability; [0, 1], no ideal; how far the score moves as a row crosses a tenth of
      the others; Apley and Zhu, J. R. Stat. Soc. B 82 (2020)

    Bins hold about equally many rows of the feature. No built-in profile requires any value. The figure is the curve of
    Apley and Zhu with a band that holds the whole curve at once with 95 %: see
    :func:`probes.reasons.ale_curve.ale_curve`.

    It is no partial dependence, which would ask about rows that cannot be, such as children with forty years of work: a
    model that has never seen them answers anything, and the plot shows it as the feature's effect.

    n_samples: rows, drawn without replacement. n_bins: bins of a feature at most. Categories have no order to
    accumulate along and are left out, as are features of one value and the indicators of one category, none of which
    changes by itself.

    Source: Apley and Zhu, Journal of the Royal Statistical Society B 82 (2020).
    """

    name: ClassVar[str] = "ale"
    pillar: ClassVar[Pillar] = "attribution"
    goal: ClassVar[str] = "What does each number do to the score, among rows that have about its value?"
    citation: ClassVar[str] = "Apley and Zhu, Journal of the Royal Statistical Society B 82 (2020)"
    methods: ClassVar[tuple[str, ...]] = ("ale",)
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA)
    ideal_when_same: ClassVar[Mapping[str, Answer]] = {"ale_local_effect": "scores"}
    untrusted_options = allow_untrusted("n_samples", "n_bins")

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
        found = {
            str(name): self._curve(model, sample, frame, name, positive, rng) for name in names if name not in together
        }
        curves = {name: curve for name, curve in found.items() if curve is not None}
        if not curves:
            raise NotApplicableError(
                "No feature holds numbers of which there are several, along which effects could be added up."
            )
        drawn = sorted(curves, key=lambda name: -float(np.abs(curves[name].effects).mean()))[:_MOST_FIGURES]
        label = model.classes[positive]
        return [
            _effect_measurement(name, curve, _figure(name, curve, label) if name in drawn else None)
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


def _effect_measurement(name: str, curve: AleCurve, figure: Figure | None) -> Measurement:
    return Measurement(
        metric="ale_local_effect",
        estimate=bounded_mean(np.abs(curve.effects), low=0.0, high=1.0),
        n_samples=len(curve.effects),
        method="ale",
        at={"feature": name},
        figure=figure,
        detail=_curve_text(curve),
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
