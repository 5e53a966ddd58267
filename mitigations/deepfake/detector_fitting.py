"""Shared parts of detector fitting for all media: heads, leave-kinds-out rounds, calibration and the card.

A trainer of detectors does five things with it::

    learner = LinearLearner(features, is_fake)       # or its own: rows to train on -> a scorer of other rows
    found = cross_validate(is_fake, kinds, learner, rng)    # every file scored by rounds that had not seen it
    head = fit_head(features, is_fake, fake=1)              # the final one, on all files
    calibrate(head.calibration, found)
    card = make_card("image", 1, found)

``is_fake``: (n,) bool. ``kinds``: (n,) the generator of a synthetic file, the source or speaker of a real one, None
where it is not known. Scores are uncalibrated numbers, larger for synthetic files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from auditor.core.errors import DataError, UsageError
from auditor.core.files import printable_name
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.media_classes import fake_class
from auditor.models.detector_card import MOST_KINDS, MOST_SCORES, DetectorCard, KnownRate, Medium
from auditor.models.networks.detector_networks import Calibration, LinearHead
from auditor.statistics.detection import detection_figures
from auditor.statistics.estimate import Estimate
from auditor.statistics.values import bounded_mean

# Rows to their scores, (n,).
Scorer: TypeAlias = Callable[[IntArray], FloatArray]
# Rows to train on to a scorer of any rows.
Learner: TypeAlias = Callable[[IntArray], Scorer]
Kinds: TypeAlias = Sequence[str | None]

FOLDS = 5

MOST_CELLS = 100
FEWEST_FILES = 10
UNNAMED = "(not named)"
_CONFIDENCE = 0.95
_LEAST_SLOPE = 1e-3


def classes_of(labels: Sequence[str], fake: str | None = None) -> tuple[tuple[str, ...], int]:
    """The two classes in the order of their names, and the index of the synthetic one; UsageError if unclear."""
    classes = tuple(sorted(set(labels)))
    if len(classes) != 2:
        raise UsageError(f"A detector tells two classes apart, and there are {len(classes)}: {', '.join(classes[:5])}.")
    if fake is not None and fake not in classes:
        raise UsageError(
            f"The synthetic class {printable_name(fake)!r} is none of {' and '.join(map(printable_name, classes))}."
        )
    index = classes.index(fake) if fake is not None else fake_class(classes)
    if index is None:
        raise UsageError(
            f"Which of {' and '.join(map(printable_name, classes))} is synthetic is not clear: say so with --fake."
        )
    return classes, index


def mean_and_scale(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean and the standard deviation of each column, (d,) each, the latter 1 where it does not vary."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that never varied in training says nothing, however far off a later file is by rounding.
    return mean, np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)


# ---- heads ---------------------------------------------------------------------------------------------------------


def fit_head(
    features: FloatArray,
    is_fake: BoolArray,
    *,
    fake: int = 1,
    changed_features: FloatArray | None = None,
) -> LinearHead:
    """Logistic regression on standardised features, (n, d), with L2 penalty 1; not calibrated yet.

    ``changed_features``: (n, d) of the same files augmented, which are fitted to as well.
    """
    from sklearn.linear_model import LogisticRegression

    if changed_features is not None:
        features, is_fake = np.concatenate([features, changed_features]), np.concatenate([is_fake, is_fake])
    mean, scale = mean_and_scale(features)
    fitted = LogisticRegression(max_iter=5_000).fit((features - mean) / scale, is_fake)
    head = LinearHead(features.shape[1], fake)
    with torch.no_grad():
        head.mean.copy_(torch.from_numpy(mean))
        head.scale.copy_(torch.from_numpy(scale))
        head.weight.copy_(torch.from_numpy(fitted.coef_[0]))
        head.bias.copy_(torch.tensor(fitted.intercept_[0]))
    return head.eval()


@dataclass(frozen=True, eq=False)
class LinearLearner:
    """A learner that fits a linear head to some rows of ``features``, (n, d).

    ``changed``: as :func:`fit_head` has it; files are scored as they are.
    """

    features: FloatArray
    is_fake: BoolArray
    changed: FloatArray | None = None

    def __call__(self, rows: IntArray) -> Scorer:
        changed = None if self.changed is None else self.changed[rows]
        head = fit_head(self.features[rows], self.is_fake[rows], changed_features=changed)

        def score(others: IntArray) -> FloatArray:
            with torch.no_grad():
                return head.scores(torch.from_numpy(self.features[others]).float()).double().numpy()

        return score


# ---- rounds --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class Cell:
    """One round: some synthetic and some real kinds are left out of training and then scored.

    ``fake_rows``, ``real_rows``: the files left out. ``fake_scores``, ``real_scores``: theirs, (k,) each.
    """

    fake_kinds: tuple[str, ...]
    real_kinds: tuple[str, ...]
    fake_rows: IntArray
    real_rows: IntArray
    fake_scores: FloatArray
    real_scores: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossValidation:
    """Scores of every file by rounds of training without it.

    ``seen_scores``: (n,) from rounds that knew other files of its kind, ``FOLDS`` folds stratified by kind. ``cells``:
    the rounds that left its kind out; ``unseen_scores``: (n,) means over them.
    ``kinds``: (n,) with names for all. ``fakes_named``, ``reals_named``: whether the kinds of that class left out are
    real ones, at least two and known; else ``FOLDS`` random parts of its files stand in for them.
    """

    is_fake: BoolArray
    kinds: tuple[str, ...]
    fakes_named: bool
    reals_named: bool
    seen_scores: FloatArray
    unseen_scores: FloatArray
    cells: tuple[Cell, ...]

    @property
    def fake_kinds(self) -> tuple[str, ...]:
        """The kinds of synthetic files left out in turn; empty if unknown."""
        named = {k for k, fake in zip(self.kinds, self.is_fake, strict=True) if fake}
        return tuple(sorted(named)) if self.fakes_named else ()

    def scores_without(self, kind: str) -> tuple[FloatArray, FloatArray]:
        """(synthetic of ``kind``, real) scores from the rounds that left that kind out, each file's mean over them."""
        own = [cell for cell in self.cells if kind in cell.fake_kinds]
        n = len(self.is_fake)
        totals, counts = np.zeros(n), np.zeros(n)
        for cell in own:
            for rows, scores in ((cell.fake_rows, cell.fake_scores), (cell.real_rows, cell.real_scores)):
                totals[rows] += scores
                counts[rows] += 1
        means = np.divide(totals, counts, out=np.full(n, np.nan), where=counts > 0)
        of_kind = self.is_fake & (np.asarray(self.kinds) == kind)
        return means[of_kind], means[~self.is_fake & (counts > 0)]


def cross_validate(is_fake: BoolArray, kinds: Kinds, learner: Learner, rng: np.random.Generator) -> CrossValidation:
    """Score every file out of fold and with its kind left out: each cell (synthetic kind x real kind) in turn.

    More than ``MOST_CELLS`` cells are merged into groups of kinds, at random. Raises DataError for fewer than
    ``FEWEST_FILES`` files of either class.
    """
    is_fake = np.asarray(is_fake, bool)
    n_fake, n_real = int(is_fake.sum()), int((~is_fake).sum())
    if min(n_fake, n_real) < FEWEST_FILES:
        raise DataError(
            f"A detector is fitted to at least {FEWEST_FILES} real and {FEWEST_FILES} synthetic files, and there are "
            f"{n_real:,} and {n_fake:,}: add more of them."
        )
    names = tuple(UNNAMED if kind is None else kind for kind in kinds)
    folds = _folds(is_fake, names, rng)
    fakes, fakes_named = _parts(np.flatnonzero(is_fake), kinds, rng)
    reals, reals_named = _parts(np.flatnonzero(~is_fake), kinds, rng)
    if len(fakes) * len(reals) > MOST_CELLS:
        reals = _merge_groups(reals, FOLDS, rng)
    if len(fakes) * len(reals) > MOST_CELLS:
        fakes = _merge_groups(fakes, MOST_CELLS // len(reals), rng)
    pairs = [(fake_rows, real_rows) for fake_rows in fakes for real_rows in reals]
    outs = [np.concatenate(pair) for pair in pairs]
    rounds = [*folds, *((np.setdiff1d(np.arange(len(names)), out), out) for out in outs)]
    found = [learner(fitted)(asked) for fitted, asked in rounds]
    seen_scores = np.empty(len(names))
    for (_, rows), scores in zip(folds, found, strict=False):
        seen_scores[rows] = scores
    cells = []
    totals, counts = np.zeros(len(names)), np.zeros(len(names))
    for (fake_rows, real_rows), out, scores in zip(pairs, outs, found[len(folds) :], strict=True):
        totals[out] += scores
        counts[out] += 1
        k = len(fake_rows)
        cells.append(
            Cell(
                fake_kinds=tuple(sorted({names[i] for i in fake_rows})),
                real_kinds=tuple(sorted({names[i] for i in real_rows})),
                fake_rows=fake_rows,
                real_rows=real_rows,
                fake_scores=scores[:k],
                real_scores=scores[k:],
            )
        )
    return CrossValidation(
        is_fake=is_fake,
        kinds=names,
        fakes_named=fakes_named,
        reals_named=reals_named,
        seen_scores=seen_scores,
        unseen_scores=totals / counts,
        cells=tuple(cells),
    )


def _folds(is_fake: BoolArray, names: Sequence[str], rng: np.random.Generator) -> list[tuple[IntArray, IntArray]]:
    """Each kind dealt out over the folds, beginning anywhere, so that small kinds do not all end in the first."""
    fold = np.empty(len(names), np.int64)
    strata = np.unique([f"{fake}/{name}" for fake, name in zip(is_fake, names, strict=True)], return_inverse=True)[1]
    place = 0
    for stratum in range(strata.max() + 1):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        fold[rows] = (place + np.arange(len(rows))) % FOLDS
        place += len(rows)
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]


def _parts(rows: IntArray, kinds: Kinds, rng: np.random.Generator) -> tuple[list[IntArray], bool]:
    """The rows of each kind, or random parts of them where fewer than two are known."""
    found = {kinds[i] for i in rows}
    if len(found - {None}) < 2:
        return [np.sort(part) for part in np.array_split(rng.permutation(rows), FOLDS)], False
    ordered = sorted(found, key=lambda k: "" if k is None else k)
    return [np.asarray([i for i in rows if kinds[i] == k], np.int64) for k in ordered], True


def _merge_groups(parts: list[IntArray], n: int, rng: np.random.Generator) -> list[IntArray]:
    groups = np.array_split(rng.permutation(len(parts)), min(n, len(parts)))
    return [np.sort(np.concatenate([parts[i] for i in group])) for group in groups]


# ---- calibration ---------------------------------------------------------------------------------------------------


def fit_platt(scores: FloatArray, is_fake: BoolArray) -> tuple[float, float]:
    """(slope, offset) of the log-odds ``slope z + offset`` of being synthetic, by Platt's smoothed targets.

    The targets are ``(n1 + 1) / (n1 + 2)`` and ``1 / (n0 + 2)``. The slope is at least 0.001: scores that point the
    wrong way are noise, and turning them round would be fitting it. Source: Platt, 1999.
    """
    from sklearn.linear_model import LogisticRegression

    n1, n0 = int(is_fake.sum()), int((~is_fake).sum())
    target = np.where(is_fake, (n1 + 1.0) / (n1 + 2.0), 1.0 / (n0 + 2.0))
    spread = float(scores.std()) or 1.0
    # A target that is neither 0 nor 1 is a row of either class, each with its share of the weight.
    rows = np.concatenate([scores, scores])[:, None] / spread
    labels = np.repeat([1, 0], len(scores))
    fitted = LogisticRegression(C=1e6, max_iter=5_000).fit(rows, labels, np.concatenate([target, 1.0 - target]))
    slope = float(fitted.coef_[0, 0]) / spread
    if slope >= _LEAST_SLOPE / spread:
        return slope, float(fitted.intercept_[0])
    slope = _LEAST_SLOPE / spread
    return slope, math.log(n1 / n0) - slope * float(scores.mean())


def calibrate(calibration: Calibration, validation: CrossValidation) -> None:
    """Set the calibration of a head from the scores of files with their kind left out."""
    slope, offset = fit_platt(validation.unseen_scores, validation.is_fake)
    calibration.slope.fill_(slope)
    calibration.offset.fill_(offset)


def probabilities(scores: FloatArray, slope: float, offset: float) -> FloatArray:
    """(n,) calibrated probabilities of being synthetic."""
    from scipy.special import expit

    return np.asarray(expit(slope * scores + offset), np.float64)


# ---- the card ------------------------------------------------------------------------------------------------------


def make_card(
    medium: Medium,
    fake: int,
    validation: CrossValidation,
    *,
    error_rate: float = 0.05,
    notes: Sequence[str] = (),
) -> DetectorCard:
    """The card of a detector fitted to all files, from their scores out of cell.

    Conformal scores are those that files had with their kind left out, so that the p-value of a kind that was never
    trained on is held against others in the same place.
    """
    slope, offset = fit_platt(validation.unseen_scores, validation.is_fake)
    shown = probabilities(validation.unseen_scores, slope, offset)
    kinds = sorted({k for k, f in zip(validation.kinds, validation.is_fake, strict=True) if f} - {UNNAMED})
    share = float(validation.is_fake.mean())
    own = [
        f"Probabilities are calibrated for files of which {share:.0%} are synthetic, as in training.",
        (
            "Calibration scores and rates marked unseen are of files whose generator was left out of training."
            if validation.fakes_named
            else "Generators of the synthetic files were not named, or there was one only: nothing is known of how the "
            "detector does on a generator that it was not trained on."
        ),
    ]
    return DetectorCard(
        medium=medium,
        fake=1 if fake == 1 else 0,
        real_scores=_ascending(shown[~validation.is_fake]),
        fake_scores=_ascending(shown[validation.is_fake]),
        error_rate=error_rate,
        kinds=tuple(kinds[:MOST_KINDS]),
        known_rates=known_rates(validation),
        notes=(*own, *notes),
    )


def _ascending(scores: FloatArray) -> tuple[float, ...]:
    ordered = np.sort(scores)
    if len(ordered) > MOST_SCORES:
        ordered = ordered[np.linspace(0, len(ordered) - 1, MOST_SCORES).round().astype(np.int64)]
    return tuple(ordered.tolist())


def known_rates(validation: CrossValidation) -> tuple[KnownRate, ...]:
    """AUC, equal error rate, average precision and TPR at 1 % FPR, each with its interval.

    Over files of known kinds out of fold, of each synthetic kind left out, and over those (:func:`over_kinds`).
    """
    fake = validation.is_fake
    rates = [*_rates(validation.seen_scores[fake], validation.seen_scores[~fake])]
    if validation.fakes_named:
        by_kind: list[KnownRate] = []
        for kind in validation.fake_kinds[:MOST_KINDS]:
            by_kind += _rates(*validation.scores_without(kind), unseen=True, kind=kind)
        rates += [*over_kinds(by_kind), *by_kind]
    return tuple(rates)


def over_kinds(rates: Sequence[KnownRate]) -> list[KnownRate]:
    """By metric the mean over kinds of each kind's value, (k,) values in [0, 1], with its interval.

    The interval is of the mean over the kinds that these were drawn from, by
    :class:`~auditor.statistics.values.BoundedMean`: however many files each has, three kinds say next to nothing of
    the next. ``rates``: of a kind each, of kinds left out of training.
    """
    found = []
    for metric in dict.fromkeys(rate.metric for rate in rates):
        own = [rate for rate in rates if rate.metric == metric]
        mean = bounded_mean([rate.value for rate in own], low=0.0, high=1.0)
        n_real, n_fake = max(rate.n_real for rate in own), sum(rate.n_fake for rate in own)
        found.append(known_rate(metric, mean, n_real, n_fake, unseen=True))
    return found


def _rates(fakes: FloatArray, reals: FloatArray, **fields: Any) -> list[KnownRate]:
    return [
        known_rate(name, estimate, len(reals), len(fakes), **fields)
        for name, estimate in detection_figures(fakes, reals).items()
        if math.isfinite(estimate.value)
    ]


def known_rate(name: str, estimate: Estimate, n_real: int, n_fake: int, **fields: Any) -> KnownRate:
    """An estimate as a card keeps it, with its 95 % interval; ``fields``: what else is known of it."""
    low, high = estimate.interval(_CONFIDENCE)
    return KnownRate(
        metric=name,
        value=estimate.value,
        low=max(0.0, low) if math.isfinite(low) else None,
        high=min(1.0, high) if math.isfinite(high) else None,
        confidence=_CONFIDENCE,
        n_real=n_real,
        n_fake=n_fake,
        **fields,
    )
