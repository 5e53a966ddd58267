"""Score fairness: differences between groups in the ranking and the calibration of a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.bins import more_than
from auditor.data.score_counts import FAVOURABLE, OTHER, UNLABELLED, Asked, Scored
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, Streamed, allow_untrusted
from auditor.statistics.detection import LowestArea
from auditor.statistics.distribution_distances import CalibrationError, WorstDistance, WorstGap
from auditor.statistics.estimate import Estimate, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import AreaUnderCurve, Ranked, area_of_counts, areas_of_groups, ascending
from probes.fairness.group_limits import crowd, feature_sets
from probes.fairness.score_thresholds import (
    CURVE,
    GroupScores,
    at_thresholds,
    checked_thresholds,
    own_threshold,
    scores_figure,
    threshold_between,
)
from probes.twins import no_plant, of_pair, ranked, scored_above

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

Areas = list[AreaUnderCurve | Undefined]


class ScoreFairness(BaseProbe):
    """Ranking, calibration and distribution of the score by group and intersection, and the worst gap of any two.

    The score s is the probability of the favourable class. Per group, over rows of the group: ``roc_auc``,
    ``expected_calibration_error``, ``bpsn_auc`` and ``bnsp_auc``.

    - ``expected_calibration_error``: Over all rows too. The plain sum is biased upward: the interval is not, see
      :class:`~auditor.statistics.distribution_distances.CalibrationError`.
    - ``bpsn_auc``, ``bnsp_auc``: Background positive, subgroup negative, and the other way round: a group whose rows
      all score too high or too low keeps its own ``roc_auc``, and loses one of these.

    Headlines, for each sensitive feature and for the full intersection; those at a threshold are the metrics of
    :class:`~probes.fairness.group_fairness.GroupFairness`, and bounds over thresholds hold for all of them at once:
    ``auc_difference``, ``lowest_bpsn_auc``, ``lowest_bnsp_auc``, ``calibration_difference``,
    ``score_kolmogorov_smirnov``, ``score_wasserstein``, ``demographic_parity_difference_at_threshold``,
    ``demographic_parity_ratio_at_threshold``, ``equalized_odds_difference_at_threshold``,
    ``demographic_parity_difference_over_thresholds``, ``equalized_odds_difference_over_thresholds`` and
    ``demographic_parity_ratio_over_thresholds``.

    Without labels there are the distances and demographic parity only.

    A group without two rows of either class has no ``roc_auc``. Headlines are then those of the other groups, which may
    FAIL and not PASS: the whole is at least as bad. A headline is bounded from its parts' own bounds, never from the
    noisy maximum itself.

    intersections: whether to compare the intersection of several sensitive features too.
    bins: bins of the calibration error, of equal width on [0, 1]. thresholds: of the score, between 0 and 1. Raises
    ValueError for bins outside 2 to 100, or for a threshold outside (0, 1) or more than 50 of them.

    Sources: Borkan et al., WWW 2019 (subgroup AUC); DeLong et al., Biometrics 44 (1988); Naeini et al., AAAI 2015;
    Pleiss et al., NeurIPS 2017 (calibration by group); Jiang et al., UAI 2020 (Wasserstein fairness).
    """

    name = "score_fairness"
    pillar = "fairness"
    goal = "Does the score rank, and mean, the same in every group?"
    citation = "Borkan et al., WWW 2019; Pleiss et al., NeurIPS 2017; DeLong et al., Biometrics 1988"
    methods = ("between_groups",)
    needs = (Need.CLASSIFIER, Need.DATA, Need.SENSITIVE)
    over_all_rows = True
    forecast = Forecast(twin=0.005, number=0.0002, million=3.0, most_rows=10_000)
    questions = (AuditQuestion("scores", headline=("auc_difference", "calibration_difference")),)
    # Thresholds are told of by the rates there: see at_thresholds.
    ideal_when_same = {
        "expected_calibration_error": "scores",
        "auc_difference": "scores",
        "calibration_difference": "scores",
        "lowest_bpsn_auc": "scores",
        "lowest_bnsp_auc": "scores",
        "score_kolmogorov_smirnov": "scores",
        "score_wasserstein": "scores",
    }
    # Rows of either of two groups, and the true gap in AUC, found above 0.05 with 80 % power at 5 %.
    power: ClassVar[tuple[int, float]] = (600, 0.20)
    # Rows of either of two groups, and the true difference in selection, the same at every one of three thresholds,
    # found above 0.10 over all of them with 80 % power at 5 %.
    threshold_power: ClassVar[tuple[int, float]] = (500, 0.19)
    untrusted_options = allow_untrusted("intersections", "bins", "thresholds")
    metrics = define_metrics(
        """
        roc_auc: P(a favourable row of the group scores above another of it) + P(tie) / 2, with DeLong's interval; [0,
          1], ideal 1; at 0.8 rows of the group are ranked rightly in 8 of 10 pairs; Borkan et al., WWW 2019
        expected_calibration_error: sum over bins b of equal width of (n_b / n) |share favourable - mean score|; [0, 1],
          ideal 0; at 0.05 probabilities are off by 5 points on average; Naeini et al., AAAI 2015
        bpsn_auc: P(a favourable row outside the group scores above an unfavourable one of the group) + P(tie) / 2; [0,
          1], ideal 1; at 0.3 the group's unfavourable rows are scored above others' favourable ones in 7 of 10 pairs;
          Borkan et al., WWW 2019
        bnsp_auc: P(a favourable row of the group scores above an unfavourable one outside it) + P(tie) / 2; [0, 1],
          ideal 1; at 0.3 the group's favourable rows are scored below others' unfavourable ones in 7 of 10 pairs;
          Borkan et al., WWW 2019
        auc_difference: max - min over groups of the AUC; [0, 1], ideal 0; at 0.1 the score ranks one group's rows
          rightly in 10 pairs of 100 more than another's; Borkan et al., WWW 2019
        lowest_bpsn_auc, lowest_bnsp_auc: the smallest over groups of bpsn_auc and of bnsp_auc; [0, 1], ideal 1; at 0.5
          one group's rows stand among others' as if the score knew nothing; Borkan et al., WWW 2019
        calibration_difference: max - min over groups of the expected calibration error; [0, 1], ideal 0; at 0.05 the
          same score is 5 points further off in one group than in another; Pleiss et al., NeurIPS 2017
        score_kolmogorov_smirnov: largest distance sup |F_i - F_j| of two groups' distributions of scores; [0, 1], ideal
          0; at 0.2 there is a threshold that selects one group 20 points more often than another; Jiang et al., UAI
          2020
        score_wasserstein: largest area integral |F_i - F_j| between two groups' distributions of scores; [0, 1], ideal
          0; at 0.1 one group's scores would have to move by 0.1 on average to be those of another; Jiang et al., UAI
          2020
        demographic_parity_difference_at_threshold: max - min over groups of the selection rate, if a score of at least
          the threshold were decided favourably; [0, 1], ideal 0; at 0.1 that threshold selects one group 10 points more
          often than another; Agarwal et al., ICML 2018
        demographic_parity_ratio_at_threshold: min / max over groups of the selection rate, if a score of at least the
          threshold were decided favourably; [0, 1], ideal 1; at 0.8 that threshold selects one group four fifths as
          often as another; Agarwal et al., ICML 2018
        equalized_odds_difference_at_threshold: larger of the differences over groups of the true and of the false
          positive rate, if a score of at least the threshold were decided favourably; [0, 1], ideal 0; at 0.1 groups
          with the same label differ by up to 10 points at that threshold; Hardt, Price and Srebro, NeurIPS 2016
        demographic_parity_difference_over_thresholds, equalized_odds_difference_over_thresholds: largest, over
          thresholds, of the difference between groups at one threshold; [0, 1], ideal 0; no threshold asked about does
          worse than this; Jiang et al., UAI 2020
        demographic_parity_ratio_over_thresholds: smallest, over thresholds, of the ratio between groups at one
          threshold; [0, 1], ideal 1; no threshold asked about does worse than this; Jiang et al., UAI 2020
        """
    )

    def __init__(
        self, *, intersections: bool = True, bins: int = 10, thresholds: Sequence[float] = (0.3, 0.5, 0.7)
    ) -> None:
        if not 2 <= bins <= 100:
            raise ValueError(f"bins lies in 2 to 100, not {bins}")
        self.intersections = intersections
        self.bins = bins
        self.thresholds = checked_thresholds(thresholds)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation rows; see the class for their definitions."""
        rows = data.evaluation
        if rows.sensitive_features is None:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        if rows.positive is None:
            classes = ", ".join(rows.classes or model.classes)
            raise NotApplicableError(f"Needs the favourable label among {classes}: add --positive LABEL.")
        scores = model.scores(rows)[:, rows.positive]
        if not more_than(2, scores):
            raise NotApplicableError("Needs scores, and this model returns labels: group_fairness measures those.")
        scores = np.clip(scores, 0.0, 1.0)
        ranked = Ranked.from_values(scores)
        own = own_threshold(scores, model.decisions(rows) == rows.positive)
        found = self._overall(scores, rows.y_true, rows.positive)
        for names in feature_sets(rows.sensitive_features.columns, together=self.intersections):
            groups = rows.groups(*names)
            levels, codes, titles = groups.levels, groups.codes, groups.titles
            many = crowd("auc_difference", "between_groups", names, len(levels), len(rows))
            if many is not None:
                found.append(many)
                continue
            of = GroupScores.from_rows(titles, codes, scores, rows.y_true, rows.positive, self.thresholds, own)
            found += self._measure_groups(names, levels, codes, ranked, rows.y_true, rows.positive, of)
            found += at_thresholds(names, of, self.thresholds)
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin in which the true value of one of them is known."""
        rows, metric = data.evaluation, measured.metric
        if measured.group or measured.at:
            raise no_plant(measured)
        if metric == "auc_difference" and isinstance(measured.estimate, WorstGap):
            centre = float(np.mean([part.value for part in measured.estimate.parts]))
            low = min(max(centre - 0.5 * value, 0.0), 1.0 - value)
            twin = ranked(model, rows, of_pair(rows, measured, (low, low + value, centre), rng), rng)
        elif metric == "score_kolmogorov_smirnov":
            twin = scored_above(model, rows, of_pair(rows, measured, (0.0, value, 0.0), rng), rng)
        elif metric == "score_wasserstein":
            # Of scores that are even on [0, 1] the mean of those moved to 1 rises by a half.
            twin = scored_above(model, rows, of_pair(rows, measured, (0.0, min(2.0 * value, 1.0), 0.0), rng), rng)
        else:
            raise no_plant(measured)
        return self.measure(twin, data, rng)

    @property
    def stream_needs(self) -> Asked:
        """The score statistics that streamed rows must provide."""
        return Asked(cuts=(*self.thresholds, *CURVE.tolist()), bins=(self.bins,))

    def measure_streamed(self, streamed: Streamed) -> list[Measurement]:
        """The same measurements, from the counts of streamed rows; ranks within the error of the grid."""
        scores = streamed.scores
        if not scores.features:
            raise NotApplicableError("Needs a sensitive feature: add --sensitive COLUMN.")
        if streamed.counts.positive is None:
            classes = ", ".join(streamed.counts.classes)
            raise NotApplicableError(f"Needs the favourable label among {classes}: add --positive LABEL.")
        if scores.n_values < 3:
            raise NotApplicableError("Needs scores, and this model returns labels: group_fairness measures those.")
        own = threshold_between(scores.below, scores.above)
        whole = scores.group_by(scores.features).whole()
        labelled = int(whole.labelled.sum())
        found = self._calibrated(_calibrations(whole, self.bins)[0], labelled) if labelled else []
        for names in feature_sets(scores.features, together=self.intersections):
            scored = scores.group_by(names)
            many = crowd("auc_difference", "between_groups", names, len(scored.groups), streamed.counts.n)
            if many is not None:
                found.append(many)
                continue
            of = GroupScores.of_stream(scored, self.thresholds, own)
            headlines = _distances(names, of, *streamed_distances(scored))
            if labelled:
                errors = _calibrations(scored, self.bins)
                headlines = self._ranked(names, scored.groups, of, headlines, *_areas(scored), errors)
            found += headlines
            found += at_thresholds(names, of, self.thresholds)
        return found

    def _overall(self, scores: FloatArray, y_true: IntArray | None, positive: int) -> list[Measurement]:
        if y_true is None or not (y_true >= 0).any():
            return []
        known = y_true >= 0
        estimate = calibration_error(scores[known], y_true[known] == positive, self.bins)
        return self._calibrated(estimate, int(known.sum()))

    def _calibrated(self, estimate: AnyEstimate, n: int) -> list[Measurement]:
        return [
            Measurement(
                metric="expected_calibration_error",
                method="between_groups",
                estimate=estimate,
                n_samples=n,
                ideal=0.0,
                detail=f"{self.bins} bins of equal width, all rows",
            )
        ]

    def _measure_groups(
        self,
        names: tuple[str, ...],
        levels: Sequence[tuple[str, ...]],
        codes: IntArray,
        ranked: Ranked,
        y_true: IntArray | None,
        positive: int,
        group_scores: GroupScores,
    ) -> list[Measurement]:
        scores = ranked.values
        # Positions: brackets take four times as long over a mask.
        members = [np.flatnonzero(codes == g) for g in range(len(levels))]
        headlines = _distances(names, group_scores, pairwise_distances([scores[own] for own in members]))
        if y_true is None or not (y_true >= 0).any():
            return headlines
        labelled = [own.compress(y_true[own] >= 0) for own in members]
        known = y_true >= 0
        first, second = (np.flatnonzero(known & alike) for alike in (y_true == positive, y_true != positive))
        areas = list(
            areas_of_groups(
                positives=ranked.ranks[first], negatives=ranked.ranks[second],
                of_positives=codes[first], of_negatives=codes[second],
                groups=len(levels), ranks=ranked.different.size,
            )
        )  # fmt: skip
        curves = [area.own for area in areas]
        errors = [calibration_error(scores[own], y_true[own] == positive, self.bins) for own in labelled]
        against: dict[str, Areas] = {}
        if len(levels) > 1:
            against["bpsn_auc"] = [area.outside_against_own for area in areas]
            against["bnsp_auc"] = [area.own_against_outside for area in areas]
        return self._ranked(names, levels, group_scores, headlines, curves, against, errors)

    def _ranked(
        self,
        names: tuple[str, ...],
        levels: Sequence[tuple[str, ...]],
        group_scores: GroupScores,
        headlines: list[Measurement],
        curves: Areas,
        against: Mapping[str, Areas],
        errors: Sequence[CalibrationError | Undefined],
    ) -> list[Measurement]:
        titles, n = group_scores.titles, group_scores.n[:, :UNLABELLED].sum(axis=1).tolist()
        headlines = [
            _gap("auc_difference", "roc_auc", names, titles, n, curves),
            *(
                _lowest(metric, area, names, titles, n, against[area])
                for metric, area in (("lowest_bpsn_auc", "bpsn_auc"), ("lowest_bnsp_auc", "bnsp_auc"))
                if area in against
            ),
            _gap("calibration_difference", "expected_calibration_error", names, titles, n, errors),
            *headlines,
        ]
        by_group: list[tuple[str, float, Sequence[AnyEstimate]]] = [
            ("roc_auc", 1.0, curves),
            *((metric, 1.0, areas) for metric, areas in against.items()),
            ("expected_calibration_error", 0.0, errors),
        ]
        per_group = [
            Measurement(
                metric=metric,
                method="between_groups",
                estimate=estimate,
                n_samples=size,
                ideal=ideal,
                group=dict(zip(names, level, strict=True)),
                detail=on_grid(estimate),
            )
            for metric, ideal, estimates in by_group
            for level, size, estimate in zip(levels, n, estimates, strict=True)
        ]
        return headlines + per_group


def on_grid(*estimates: Estimate) -> str:
    """The possible error of the numbers by the scores' grid, in words; "" without a grid."""
    error = max((getattr(estimate, "grid", 0.0) for estimate in estimates), default=0.0)
    return f"scores counted on a grid, which moves it by {error:.2g} at most" if error else ""


def _areas(scored: Scored) -> tuple[Areas, dict[str, Areas]]:
    """``roc_auc`` of each group, and ``bpsn_auc`` and ``bnsp_auc``; those two none of one group alone."""
    own, blurred = scored.counts, scored.blurred
    rest = own.sum(axis=0) - own

    def areas(positives: IntArray, negatives: IntArray) -> Areas:
        return [
            area_of_counts(positives=p, negatives=n, blurred=blurred)
            for p, n in zip(positives[:, FAVOURABLE], negatives[:, OTHER], strict=True)
        ]

    against = {"bpsn_auc": areas(rest, own), "bnsp_auc": areas(own, rest)} if len(own) > 1 else {}
    return areas(own, own), against


def _calibrations(scored: Scored, bins: int) -> list[CalibrationError | Undefined]:
    return [calibration_of(*columns) for columns in zip(*scored.calibrated("favourable", bins), strict=True)]


def _lowest(
    metric: str,
    quantity: str,
    names: tuple[str, ...],
    titles: Sequence[str],
    n: Sequence[int],
    areas: Sequence[AreaUnderCurve | Undefined],
) -> Measurement:
    known = tuple(area for area in areas if not isinstance(area, Undefined))
    estimate: AnyEstimate = Undefined(reason="no group has two labelled rows of the class that is compared")
    if known:
        estimate = LowestArea(parts=known, uncompared=len(areas) - len(known))
    return Measurement(
        metric=metric,
        method="between_groups",
        estimate=estimate,
        n_samples=sum(n),
        ideal=1.0,
        sensitive=names,
        detail=_extremes(quantity, names, titles, n, areas),
    )


def calibration_error(scores: FloatArray, favourable: BoolArray, bins: int) -> CalibrationError | Undefined:
    """Binned calibration error of scores (n,) in [0, 1] for labels (n,), over ``bins`` of equal width."""
    if not scores.size:
        return Undefined(reason="there are no labelled rows")
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    n = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=scores, minlength=bins).astype(np.float64)
    squares = np.bincount(place, weights=(favourable - scores) ** 2, minlength=bins).astype(np.float64)
    return calibration_of(n, np.bincount(place.compress(favourable), minlength=bins), total, squares)


def calibration_of(
    n: IntArray, favourable: IntArray, total: FloatArray, squares: FloatArray
) -> CalibrationError | Undefined:
    """The same from bins, (b,) each: labelled rows, those with the favourable label, their scores' sum, and that of the
    squared differences of label and score."""
    seen = np.flatnonzero(n)
    if not seen.size:
        return Undefined(reason="there are no labelled rows")
    return CalibrationError(
        successes=tuple(favourable[seen].tolist()),
        n=tuple(n[seen].tolist()),
        # Rounding may carry a mean of ones a hair beyond 1.
        mean_scores=tuple(np.clip(total[seen] / n[seen], 0.0, 1.0).tolist()),
        squared_error=min(float(squares.sum() / n.sum()), 1.0),
    )


def worst_gap(parts: Sequence[AreaUnderCurve | CalibrationError | Undefined]) -> AnyEstimate:
    """The largest difference between two groups in an estimate from each group's own rows, if it exists."""
    if len(parts) < 2:
        return Undefined(reason="only one group is present, so there is nothing to compare it with")
    known = tuple(part for part in parts if not isinstance(part, Undefined))
    if len(known) < 2:
        return WorstGap(parts=tuple(parts))
    return WorstGap(parts=known, uncompared=len(parts) - len(known))


def _gap(
    metric: str,
    quantity: str,
    names: tuple[str, ...],
    titles: Sequence[str],
    n: Sequence[int],
    parts: Sequence[AreaUnderCurve | CalibrationError | Undefined],
) -> Measurement:
    return Measurement(
        metric=metric,
        method="between_groups",
        estimate=worst_gap(parts),
        n_samples=sum(n),
        ideal=0.0,
        sensitive=names,
        detail=_extremes(quantity, names, titles, n, parts),
    )


def _extremes(
    quantity: str, names: tuple[str, ...], titles: Sequence[str], n: Sequence[int], parts: Sequence[Estimate]
) -> str:
    present = [i for i, part in enumerate(parts) if not isinstance(part, Undefined)]
    absent = [titles[i] for i in range(len(parts)) if i not in present]
    text = []
    if len(present) > 1:
        low, high = (f(present, key=lambda i: parts[i].value) for f in (min, max))
        text.append(
            f"{quantity} by {' x '.join(names)}: lowest {titles[low]} {parts[low].value:.3f} (n = {n[low]:,}), "
            f"highest {titles[high]} {parts[high].value:.3f} (n = {n[high]:,})"
        )
    if absent:
        text.append(f"{quantity} is undefined for {', '.join(absent[:5])}: too few labelled rows of either class")
    if blur := on_grid(*parts):
        text.append(blur)
    return "; ".join(text)


def _distances(
    names: tuple[str, ...], group_scores: GroupScores, both: FloatArray, errors: FloatArray | None = None
) -> list[Measurement]:
    """``both``: (pairs, 2) of Kolmogorov and Smirnov, and of Wasserstein; ``errors``: how far the two may be off."""
    titles, sizes = group_scores.titles, tuple(group_scores.n.sum(axis=1).tolist())
    pairs = list(combinations(range(len(sizes)), 2))
    spread = scores_figure(names, titles, group_scores.by_score, group_scores.own)
    found = []
    for column, metric in enumerate(("score_kolmogorov_smirnov", "score_wasserstein")):
        estimate: AnyEstimate = Undefined(reason="only one group is present, so there is nothing to compare it with")
        detail = ""
        if pairs:
            error = 0.0 if errors is None else float(errors[:, column].max())
            estimate = WorstDistance(distances=tuple(both[:, column].tolist()), n=sizes, grid=error)
            i, j = pairs[int(both[:, column].argmax())]
            by = " x ".join(names)
            detail = f"farthest apart by {by}: {titles[i]} (n = {sizes[i]:,}) and {titles[j]} (n = {sizes[j]:,})"
        found.append(
            Measurement(
                metric=metric,
                method="between_groups",
                estimate=estimate,
                n_samples=sum(sizes),
                ideal=0.0,
                sensitive=names,
                detail="; ".join(filter(None, (detail, on_grid(estimate)))),
                figure=spread if column == 0 else None,
            )
        )
    return found


def pairwise_distances(scores: Sequence[FloatArray]) -> FloatArray:
    """(pairs, 2) the distances of every pair of samples of scores in [0, 1], in the order of :func:`combinations`."""
    ordered = [own[ascending(own)] for own in scores]
    return np.asarray([distances(a, b) for a, b in combinations(ordered, 2)]).reshape(-1, 2)


def streamed_distances(scored: Scored) -> tuple[FloatArray, FloatArray]:
    """(pairs, 2) the same distances from counted scores, and (pairs, 2) their maximum error.

    Between two bins both distributions are known, and within one each lies between its two ends.
    """
    counts = scored.counts.sum(axis=1)
    after = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    before = np.column_stack([np.zeros(len(after)), after[:, :-1]])
    blurred, inside = scored.blurred, scored.most - scored.least
    gaps = np.append(scored.least[1:] - scored.most[:-1], 0.0)
    found = []
    for i, j in combinations(range(len(counts)), 2):
        known = np.abs(after[i] - after[j])
        first, second = after[i] - before[j], after[j] - before[i]
        most = np.where(blurred, np.maximum(first, second), known)
        least = np.where(blurred, np.maximum(np.maximum(-first, -second), 0.0), known)
        area = float((known * gaps).sum())
        found.append(
            [
                (known.max(), max(float(most.max()), float(known.max()))),
                (area + float((least * inside).sum()), area + float((most * inside).sum())),
            ]
        )
    low, high = np.moveaxis(np.clip(np.asarray(found, np.float64).reshape(-1, 2, 2), 0.0, 1.0), 2, 0)
    return (low + high) / 2.0, (high - low) / 2.0


def distances(a: FloatArray, b: FloatArray) -> tuple[float, float]:
    """Kolmogorov-Smirnov and Wasserstein-1 distance, both in [0, 1], of two samples of scores in [0, 1], (m,), (n,).

    Of samples in ascending order it takes one pass.
    """
    both = np.concatenate([a, b])
    # A stable sort merges what is in order already.
    order = np.argsort(both, kind="stable")
    at = both[order]
    of_a, of_both = np.cumsum(order < a.size), np.arange(1, at.size + 1)
    step = np.diff(at)
    tied = np.flatnonzero(step == 0.0)
    if tied.size:
        # Of equal scores all are counted at each: as many as at the last of them.
        ends = np.append(np.flatnonzero(np.diff(tied) > 1), tied.size - 1)
        last = np.repeat(tied[ends] + 1, np.diff(ends, prepend=-1))
        of_a[tied], of_both[tied] = of_a[last], of_both[last]
    of_both -= of_a
    gap = of_a / a.size
    gap -= of_both / b.size
    np.abs(gap, out=gap)
    step *= gap[:-1]
    return float(min(gap.max(), 1.0)), float(min(step.sum(), 1.0))
