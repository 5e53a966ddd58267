"""Robustness: do decisions survive small changes of the input?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.errors import NotApplicableError
from auditor.finding.measurement import Answer, Measurement, Pillar
from auditor.rows import FloatArray, IntArray
from auditor.run.probe import Need
from auditor.statistics.estimate import Undefined
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.one_sided import AtLeast, AtMost
from auditor.statistics.rates import Proportion
from probes.inputs import as_frame, differentiable, draw, whole_number
from probes.robustness.attacks import attack
from probes.robustness.ball import ball_of
from probes.robustness.margins import BoolArray
from probes.robustness.masking import Examined, examine
from probes.robustness.perturbations import (
    image_noise,
    is_number,
    sound_noise,
    with_gaps,
    with_noise,
    with_typos,
)

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel
    from auditor.model.torch_model import DifferentiableModel
    from auditor.rows import Rows

COORDINATE = {"noise": "noise", "missing": "missing", "typos": "typos", "pgd": "epsilon", "certificate": "epsilon"}
_N_SAMPLES = 1000
# Every image costs a pass per level and step, and each pass a thousand times what a row of a table does.
_N_IMAGES = 100
_LARGE = ("image", "audio")
_IMAGES_AT_ONCE = 16
_TABLE_EPSILON = (0.05, 0.1, 0.2)
_IMAGE_EPSILON = (2 / 255, 4 / 255, 8 / 255)
_SOUND_EPSILON = (0.0005, 0.001, 0.002)


class Robustness:
    """Accuracy and share of changed decisions under noise, missing values, typing errors and a worst-case search.

    Over n sampled rows, one perturbed copy of each at every level, so that rows stay independent:
    ``accuracy_under_M = P(decision on the perturbed row = y)`` in [0, 1], ideal 1, over the labelled rows, and
    ``flip_rate_under_M = P(decision on the perturbed row != decision on the row)`` in [0, 1], ideal 0, each with a
    Clopper-Pearson interval, at ``{M: level}``; ``clean_accuracy``, of the same rows as they are, is where the curves
    of accuracy start. All levels share their random draws, so a curve's ups and downs are the model's and not the
    draws'. Methods M:

    - ``noise`` (tables, images, sound): Gaussian noise of ``level`` standard deviations of each numeric column, as
      :func:`probes.robustness.perturbations.with_noise` adds it, whole numbers staying whole; of ``level`` times the
      range of a pixel in images; of ``level`` times the root mean square of each recording in sound.
    - ``missing`` (tables): each cell missing with probability ``level``.
    - ``typos`` (texts): ``level`` typing errors a text, as :func:`probes.robustness.perturbations.with_typos` makes
      them.
    - ``pgd`` (differentiable models of tables, images and sound): the worst of what projected gradient descent finds
      within ``epsilon`` standard deviations of each numeric column, as
      :func:`probes.robustness.attacks.attack` searches; within ``epsilon`` of the range of each pixel in
      images, of full scale in sound. Columns that are encoded as indicators are not touched. What it finds is there,
      and it can miss what is there: accuracy is at most what is left, with an upper bound alone, and the flip rate at
      least what was found, with a lower bound alone. So either may FAIL, and neither PASSes. Coordinate ``epsilon``.
      ``gradient_masking``, at ``{"sign": S}`` and in [0, 1], ideal 0: the share of at most 200 rows with a sign that
      the gradient is hidden (:func:`probes.robustness.masking.examine`); where one is shown, both carry it. Word
      indices cannot be moved a little; no such search is made for texts.
    - ``certificate`` (networks that are known layers one after the other: linear ones and convolutions, batch norms,
      ReLU, LeakyReLU, tanh, sigmoid, maximum and average pooling): proofs that no input of that ball is decided
      otherwise, as :func:`probes.robustness.certificates.certify` gives them. ``certified_accuracy = P(decision = y on
      the whole ball)`` of the proved rows, in [0, 1], ideal 1, with a lower bound alone, so that it may PASS and never
      FAILs; ``robust_accuracy``, the same number between the rows proved and the rows that nothing broke, which does
      both. They are about the model as it runs, its threshold and its float32 included.

    A model that raises, or returns no probabilities, for perturbed rows has no number there: that method is undefined,
    and the reason is given.

    methods: ``auto`` (all that apply) or names out of ``Robustness.methods``. noise, missing, typos, epsilon: levels;
    epsilon is by default 0.05, 0.1 and 0.2 for tables, 2, 4 and 8 of 255 for images, 0.0005, 0.001 and 0.002 for
    sound. n_steps: steps of the search. branches: the most boxes that the ball around a row may be cut into for its
    certificate, a number and no time, so that the same seed gives the same report; by default up to 1,024.
    n_samples: rows, drawn without replacement; by default 1,000, or 100 images.

    Raises NotApplicableError where a method asked for does not apply.

    Sources: Hendrycks and Dietterich, ICLR 2019; Belinkov and Bisk, ICLR 2018; Madry et al., ICLR 2018.
    """

    name: ClassVar[str] = "robustness"
    pillar: ClassVar[Pillar] = "robustness"
    goal: ClassVar[str] = "Do decisions survive small changes of the input?"
    citation: ClassVar[str] = "Hendrycks and Dietterich, ICLR 2019; Madry et al., ICLR 2018"
    methods: ClassVar[tuple[str, ...]] = ("noise", "missing", "typos", "pgd", "certificate")
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA)
    ideal_when_same: ClassVar[Mapping[str, Answer]] = {
        **{f"flip_rate_under_{method}": "decisions" for method in methods if method != "certificate"},
        "gradient_masking": "scores",
    }

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        noise: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
        missing: Sequence[float] = (0.05, 0.1, 0.2),
        typos: Sequence[int] = (1, 2, 4),
        epsilon: Sequence[float] | None = None,
        n_steps: int = 20,
        branches: int | None = None,
        n_samples: int | None = None,
    ) -> None:
        wanted = (methods,) if isinstance(methods, str) else tuple(methods)
        unknown = [m for m in wanted if m not in (*self.methods, "auto")]
        if unknown or not wanted:
            known = ", ".join(self.methods)
            raise ValueError(f"methods must be auto or out of {known}, not {', '.join(unknown) or 'none'}")
        whole_number("n_steps", n_steps, 1)
        whole_number("branches", branches, 1)
        whole_number("n_samples", n_samples, 1)
        self.wanted = wanted
        self.noise = levels("noise", noise)
        self.missing = levels("missing", missing, most=1.0)
        self.typos = levels("typos", typos, whole=True)
        self.epsilon = None if epsilon is None else levels("epsilon", epsilon)
        self.n_steps = n_steps
        self.branches = branches
        self.n_samples = n_samples

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements over sampled evaluation rows; see the class for what they are."""
        rows = data.evaluation
        sample = draw(rows, self.n_samples or (_N_IMAGES if rows.modality in _LARGE else _N_SAMPLES), rng)
        applicable = _applicable(model, rows)
        wanted = [m for m in self.methods if m in applicable] if "auto" in self.wanted else list(self.wanted)
        unfit = [m for m in wanted if m not in applicable]
        if unfit:
            fit = ", ".join(applicable) or "none"
            raise NotApplicableError(f"{unfit[0]} {_why_not(unfit[0])}. To this model and data apply: {fit}.")
        if not wanted:
            raise NotApplicableError(f"No perturbation applies to these {rows.modality} rows: {_why_not('noise')}.")
        # Every method gets draws of its own, so that one more method or level does not change another's numbers.
        generators = dict(zip(self.methods, rng.spawn(len(self.methods)), strict=True))
        clean = model.decide(model.predict_proba(sample.X), sample.positive)
        found = _of_rows_as_they_are(sample, clean)
        examined: Examined | None = None
        for method in wanted:
            if method == "certificate":
                found += self._certified(model, sample, clean, examined)
                continue
            curve = self._curve(method, model, rows, sample, clean, generators[method])
            found += _measurements(method, curve, sample, clean)
            examined = examined or curve.examined
        return found

    def _certified(
        self, model: AuditedModel, sample: AuditData, clean: IntArray, examined: Examined | None
    ) -> list[Measurement]:
        from probes.robustness.certificates import certified, not_certified

        try:
            attacked = examined.attacked if examined else None
            return certified(model, sample, clean, self._epsilon(sample), attacked, self.branches)
        except NotApplicableError as error:
            if "certificate" in self.wanted:
                raise
            return not_certified(len(sample), self._epsilon(sample), str(error))

    def _epsilon(self, sample: AuditData) -> tuple[float, ...]:
        default = {"image": _IMAGE_EPSILON, "audio": _SOUND_EPSILON}.get(sample.modality, _TABLE_EPSILON)
        return self.epsilon or default

    def _curve(
        self,
        method: str,
        model: AuditedModel,
        rows: AuditData,
        sample: AuditData,
        clean: IntArray,
        rng: np.random.Generator,
    ) -> _Curve:
        if method == "typos":
            return _try(model, sample.positive, self.typos, _texts(sample, self.typos, rng))
        if method == "missing":
            return _try(model, sample.positive, self.missing, _gaps(model, sample, self.missing, rng))
        own = differentiable(model)
        if method == "pgd" and own is not None:
            return _search(model, own, sample, clean, self._epsilon(sample), self.n_steps, rng)
        if sample.modality in _LARGE:
            return _media_noise(model, sample, self.noise, rng)
        return _try(model, sample.positive, self.noise, _noise(model, rows, sample, self.noise, rng))


def levels(option: str, values: Sequence[float], *, most: float = np.inf, whole: bool = False) -> tuple[float, ...]:
    """An option's levels, ascending. Raises ValueError where one is not positive, above ``most``, or not whole."""
    if isinstance(values, (int, float)):
        values = (values,)
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0.0 < value <= most or not np.isfinite(value) or (whole and value != int(value)):
            kind = "whole numbers above 0" if whole else "numbers above 0"
            kind = f"{kind} and at most {most:g}" if most < np.inf else kind
            raise ValueError(f"{option} must be {kind}, not {value!r}")
    if not values:
        raise ValueError(f"{option} must name at least one level")
    return tuple(sorted({int(v) if whole else float(v) for v in values}))


@dataclass(frozen=True, eq=False)
class _Curve:
    """Decisions (n_levels, n) on the perturbed rows, or ``failure``: why there are none.

    ``examined``: what was found, where the rows were not drawn but searched for.
    """

    levels: tuple[float, ...]
    decisions: IntArray
    detail: str = ""
    failure: str = ""
    examined: Examined | None = None


# ---- what applies --------------------------------------------------------------------------------------------------


def _applicable(model: AuditedModel, rows: AuditData) -> list[str]:
    kind = rows.modality
    if kind == "text":
        return ["typos"]
    noisy = kind in _LARGE or bool(_numeric(model, as_frame(rows.X, model.features)))
    searched = noisy and (own := differentiable(model)) is not None and _is_float(own, rows)
    table = ["missing"] if kind == "tabular" else []
    proved = searched and rows.y_true is not None and bool((rows.y_true >= 0).any())
    return ["noise"] * noisy + table + ["pgd"] * searched + ["certificate"] * proved


def _why_not(method: str) -> str:
    return {
        "noise": "needs numeric columns, images or sound",
        "missing": "needs a table",
        "typos": "needs texts: add --text COLUMN",
        "pgd": "needs a model that can be differentiated, on numeric columns, images or sound taken as fractions",
        "certificate": "needs what pgd does, and true labels",
    }[method]


def _is_float(own: DifferentiableModel, rows: AuditData) -> bool:
    from auditor.rows import take_rows

    return own.encode(take_rows(rows.X, slice(1))).is_floating_point() if len(rows) else False


def _numeric(model: AuditedModel, frame: pd.DataFrame) -> list[str]:
    """Columns that hold numbers to the model: a code that it takes as a category is none."""
    from auditor.data.preprocessing import NumericColumn, TabularPreprocessing

    if isinstance(model.preprocessing, TabularPreprocessing):
        return [c.name for c in model.preprocessing.columns if isinstance(c, NumericColumn) and c.name in frame.columns]
    return [c for c in frame.columns if is_number(frame[c])]


# ---- perturbed rows ------------------------------------------------------------------------------------------------


def _like(frame: pd.DataFrame, original: Rows) -> Rows:
    """A perturbed table as the model takes it."""
    return frame.to_numpy() if isinstance(original, np.ndarray) else frame


def _noise(
    model: AuditedModel, rows: AuditData, sample: AuditData, levels: Sequence[float], rng: np.random.Generator
) -> Callable[[int], Rows]:
    reference, frame = as_frame(rows.X, model.features), as_frame(sample.X, model.features)
    names = _numeric(model, frame)
    z = rng.standard_normal((len(frame), len(names)))
    return lambda i: _like(with_noise(frame, names, reference, z, levels[i]), sample.X)


def _gaps(
    model: AuditedModel, sample: AuditData, levels: Sequence[float], rng: np.random.Generator
) -> Callable[[int], Rows]:
    frame = as_frame(sample.X, model.features)
    u = rng.random(frame.shape)
    return lambda i: _like(with_gaps(frame, u, levels[i]), sample.X)


def _texts(sample: AuditData, levels: Sequence[float], rng: np.random.Generator) -> Callable[[int], Rows]:
    counts = [int(level) for level in levels]
    versions = [with_typos(str(text), counts, rng) for text in sample.X]
    return lambda i: np.array([v[i] for v in versions], object)


def _try(
    model: AuditedModel, positive: int | None, levels: tuple[float, ...], perturbed: Callable[[int], Rows]
) -> _Curve:
    decisions = []
    for i, level in enumerate(levels):
        rows = perturbed(i)
        try:
            decisions.append(model.decide(model.predict_proba(rows), positive))
        except Exception as error:  # whatever a foreign model raises on such rows is what was to be found out
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            failure = f"the model fails at level {level:g}: {reason}"
            return _Curve(levels, np.empty((0, len(rows)), np.int64), failure=failure)
    return _Curve(levels, np.stack(decisions))


def _media_noise(model: AuditedModel, sample: AuditData, levels: tuple[float, ...], rng: np.random.Generator) -> _Curve:
    files = np.asarray(sample.X)
    parts = []
    for i in range(0, len(files), _IMAGES_AT_ONCE):
        few = files[i : i + _IMAGES_AT_ONCE]
        z = rng.standard_normal(few.shape, dtype=np.float32)
        part = _try(model, sample.positive, levels, partial(_noisy_media, few, z, levels))
        if part.failure:
            return part
        parts.append(part.decisions)
    return _Curve(levels, np.concatenate(parts, axis=1))


def _noisy_media(files: Rows, z: npt.NDArray[np.float32], levels: tuple[float, ...], i: int) -> Rows:
    values = np.asarray(files)
    return image_noise(values, z, levels[i]) if values.dtype == np.uint8 else sound_noise(values, z, levels[i])


def _search(
    model: AuditedModel,
    own: DifferentiableModel,
    sample: AuditData,
    clean: IntArray,
    levels: tuple[float, ...],
    n_steps: int,
    rng: np.random.Generator,
) -> _Curve:
    inputs = own.encode(sample.X)
    ball = ball_of(model, sample, inputs)
    of_attack, of_signs = rng.spawn(2)

    def decide(probabilities: FloatArray) -> IntArray:
        return model.decide(probabilities, sample.positive)

    attacked = attack(own, inputs, clean, decide, ball=ball, levels=levels, n_steps=n_steps, rng=of_attack)
    examined = examine(own, inputs, clean, decide, attacked, ball=ball, n_steps=n_steps, rng=of_signs)
    # "Another" is no class, and so never the right one.
    decisions = np.where(examined.attacked.broken, -1, clean).astype(np.int64)
    return _Curve(levels, decisions, f"L-infinity ball of epsilon {ball.unit}; {n_steps} steps", examined=examined)


# ---- measurements --------------------------------------------------------------------------------------------------


def _measurements(method: str, curve: _Curve, sample: AuditData, clean: IntArray) -> list[Measurement]:
    y = sample.y_true
    labelled = None if y is None or not (y >= 0).any() else y >= 0
    if curve.failure:
        metrics = ["accuracy"] * (labelled is not None) + ["flip_rate"]
        return [
            Measurement(
                metric=f"{metric}_under_{method}",
                method=method,
                estimate=Undefined(reason=curve.failure, failed=True),
                n_samples=len(sample),
                ideal=1.0 if metric == "accuracy" else 0.0,
            )
            for metric in metrics
        ]
    found = []
    for level, decisions in zip(curve.levels, curve.decisions, strict=True):
        at: dict[str, str | float] = {COORDINATE[method]: level}
        if y is not None and labelled is not None:
            right = _right(decisions, y, labelled)
            searched = AtMost(successes=right.successes, n=right.n) if curve.examined else right
            found.append(_one("accuracy", method, searched, right.n, 1.0, at, curve))
        flips, n = int((decisions != clean).sum()), len(clean)
        of_flips = AtLeast(successes=flips, n=n) if curve.examined else Proportion(successes=flips, n=n)
        found.append(_one("flip_rate", method, of_flips, n, 0.0, at, curve))
    return found + _signs(method, curve.examined)


def _signs(method: str, examined: Examined | None) -> list[Measurement]:
    return [
        Measurement(
            metric="gradient_masking",
            method=method,
            estimate=sign.share if sign.n else Undefined(reason="it could not be looked for", inapplicable=True),
            n_samples=sign.n,
            ideal=0.0,
            at={"sign": sign.name},
            detail=f"of the gradient: {sign.said}",
        )
        for sign in (examined.signs if examined else ())
    ]


def _right(decisions: IntArray, y: IntArray, labelled: BoolArray) -> Proportion:
    return Proportion(successes=int((decisions == y)[labelled].sum()), n=int(labelled.sum()))


def _of_rows_as_they_are(sample: AuditData, clean: IntArray) -> list[Measurement]:
    """Where every curve starts: no criterion for a number under some perturbation is about it."""
    y = sample.y_true
    if y is None or not (y >= 0).any():
        return []
    right = _right(clean, y, y >= 0)
    detail = "of the rows that are perturbed, as they are"
    return [Measurement(metric="clean_accuracy", estimate=right, n_samples=right.n, ideal=1.0, detail=detail)]


def _one(
    metric: str, method: str, estimate: AnyEstimate, n: int, ideal: float, at: dict[str, str | float], curve: _Curve
) -> Measurement:
    return Measurement(
        metric=f"{metric}_under_{method}",
        method=method,
        estimate=estimate,
        n_samples=n,
        ideal=ideal,
        at=at,
        detail=curve.detail,
        masked=curve.examined.masked if curve.examined else "",
    )
