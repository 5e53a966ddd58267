"""Robustness: stability of decisions under small input changes, overall and by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray, take_rows
from auditor.judging.measurement import AuditQuestion, Measurement
from auditor.run.option_parsers import names_in
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.attack_estimates import AtLeast, AtMost
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from probes.probe_inputs import as_frame, chosen_methods, differentiable, draw, whole_number
from probes.robustness.corruptions import CORRUPTIONS, can_be_corrupted, image_noise, sound_noise, under_corruption
from probes.robustness.gradient_masking import MASKING_METRICS, Examined, examine
from probes.robustness.perturbation_set import (
    Ball,
    ball_of,
    can_change,
    changeable_columns_text,
    changed_rows,
    nothing_moves,
)
from probes.robustness.query_attacks import attack_rows, moving_rows
from probes.robustness.robustness_by_group import BRACKET_METRICS, GROUP_METRICS, Level, by_group, clean_by_group
from probes.robustness.smoothing import SMOOTHING_METRICS, smoothed
from probes.robustness.table_noise import changing_columns, fixed_columns, gappy_tables, noisy_tables, refusal_of_gaps
from probes.robustness.text_perturbations import FAMILIES, Family, attack_texts, mistyped
from probes.robustness.worst_case_search import attack

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel

_FAMILIES = {family.name: family for family in FAMILIES}
COORDINATE = {
    **{name: name for name in ("noise", "missing", "typos")},
    **dict.fromkeys(("pgd", "certificate", "black_box"), "epsilon"),
    **dict.fromkeys(_FAMILIES, "words"),
}

_N_SAMPLES = 1000
# A search asks a hundred times about a text, or a row of a table.
_N_SEARCHED = 200
# Every image costs a pass per level and step, and each pass a thousand times what a row of a table does.
_N_IMAGES = 100
_LARGE = ("image", "audio")
_IMAGES_AT_ONCE = 16
_TABLE_EPSILON = (0.05, 0.1, 0.2)
_IMAGE_EPSILON = (2 / 255, 4 / 255, 8 / 255)
_SOUND_EPSILON = (0.0005, 0.001, 0.002)


class Robustness(BaseProbe):
    """Accuracy and share of changed decisions under noise, missing values, typing errors, corruptions and searches.

    Over n sampled rows, one perturbed copy of each at every level: ``accuracy_under_M`` and ``flip_rate_under_M``, each
    with a Clopper-Pearson interval, at ``{M: level}``, and ``clean_accuracy``. All levels share their random draws.
    Methods M:

    - ``noise`` (tables, images, sound): Gaussian noise of ``level`` standard deviations of each numeric column that
      can change, as :func:`probes.robustness.table_noise.with_noise` adds it: within the observed range, whole numbers
      staying whole; of ``level`` times the range of a pixel in images; of ``level`` times the root mean square of each
      recording in sound.
    - ``missing`` (tables): each cell of the column of which most is missing in the data goes missing with probability
      ``level``, those of others in proportion, as :func:`probes.robustness.table_noise.gap_rates` has it; where nothing
      is missing in the data, every cell does.
    - ``typos`` (texts): ``level`` errors a text, made by :func:`probes.robustness.text_perturbations.with_typos`.
    - ``worst_typos``, ``homoglyphs``, ``zero_width``, ``leet``, ``appended_words`` (texts): the worst that a greedy
      search finds with ``level`` words changed, as :func:`probes.robustness.text_perturbations.attack_texts` searches
      among :data:`probes.robustness.text_perturbations.FAMILIES`: typing errors, Cyrillic look-alikes, zero-width
      spaces, digits for letters, neutral words behind the text. Coordinate ``words``.
    - ``corruption`` (images): six kinds, of :data:`probes.robustness.corruptions.CORRUPTIONS`, at three severities.
      ``accuracy_under_corruption`` and ``flip_rate_under_corruption`` are means over images of the share of the 18
      copies of each, in [0, 1], with the interval of a bounded mean; ``accuracy_under_K`` at ``{"severity": s}`` is
      that of one kind K, or ``flip_rate_under_K`` where there are no labels.
    - ``pgd`` (differentiable models of tables, images and sound): the worst of what projected gradient descent finds
      within ``epsilon`` standard deviations of each numeric column, as
      :func:`probes.robustness.worst_case_search.attack` searches; within ``epsilon`` of the range of each pixel in
      images, of full scale in sound. Tables stay within what can occur, as for noise. Coordinate ``epsilon``.
      ``gradient_masking``, at ``{"sign": S}``, see :func:`probes.robustness.gradient_masking.examine`; where a sign is
      shown, both carry it. Word indices cannot be moved a little; no such search is made for texts.
    - ``certificate`` (networks that are known layers one after the other: linear ones and convolutions, batch and
      group norms, ReLU, LeakyReLU, tanh, sigmoid, maximum and average pooling): proofs that no input of that ball is
      decided otherwise, as :func:`probes.robustness.certificates.certify` gives them: ``certified_accuracy`` has a
      lower bound alone, so that it may PASS and never FAILs; ``robust_accuracy`` does both. They are about the model as
      it runs, its threshold and its float32 included.
    - ``black_box`` (tables, images and sound, of models of any kind; by default those that ``pgd`` cannot search): the
      worst that asking alone finds in the ball of ``pgd``, as :func:`probes.robustness.query_attacks.attack_rows`
      searches, by probabilities or by classes alone, which the detail says. Coordinate ``epsilon``. Where ``pgd``
      cannot search, ``robust_accuracy`` is at most what this left, and nothing is proved.
    - ``smoothing`` (on request only, where ``pgd`` applies): ``smoothed_certified_accuracy`` at ``{"radius": r}``, of
      another model and in L2, as :func:`probes.robustness.smoothing.smoothed` has it; shown, and never judged.

    What a search finds is there, and it can miss what is there: accuracy is at most what is left, with an upper bound
    alone, and the flip rate at least what was found, with a lower bound alone. So either may FAIL, and neither PASSes.

    In tables, a column can change a little that holds more than two numbers, is not sensitive and not ``immutable``;
    columns of those two kinds do not go missing either. Zeros of a column that is mostly zeros stay, and other values
    of it do not become zero.

    With sensitive features each number comes by group too, with the largest difference between any two groups.

    A model that raises, or returns no probabilities, for perturbed rows has no number there: that method is undefined,
    and the reason is given; ``missing`` does not apply where the model refuses missing values, as
    :func:`probes.robustness.table_noise.refusal_of_gaps` tells it from an accident.

    methods: ``auto`` (all that apply, of ``pgd`` and ``black_box`` the first that does) or names out of
    ``Robustness.methods``, or ``"noise,missing"``. noise, missing, typos, words, epsilon: levels; epsilon is by default
    0.05, 0.1 and 0.2 for tables, 2, 4 and 8 of 255 for images, 0.0005, 0.001 and 0.002 for sound. immutable: names of
    columns, or ``"age,sex"``. n_steps: steps of ``pgd``. n_queries: questions that a search asks about a text, or
    ``black_box`` about a row, at most. branches: the most boxes that the ball around a row may be cut into for its
    certificate, a number and no time, so that the same seed gives the same report; by default up to 1,024. sigma:
    of the noise of ``smoothing``, in the unit of epsilon. n_samples: rows, drawn without replacement; by default 1,000,
    or 100 images, or 200 texts or rows for a search that asks.

    Raises NotApplicableError where a method asked for does not apply, and UsageError where an immutable column does not
    exist.

    Sources: Hendrycks and Dietterich, ICLR 2019 (corruptions); Belinkov and Bisk, ICLR 2018 (typing errors); Madry et
    al., ICLR 2018 (pgd); Pruthi et al., ACL 2019, Jin et al., AAAI 2020, and Boucher et al., IEEE S&P 2022 (texts).
    """

    name = "robustness"
    pillar = "robustness"
    goal = "Do decisions survive small changes of the input?"
    citation = "Hendrycks and Dietterich, ICLR 2019; Madry et al., ICLR 2018"
    # Draws go by their place in it: what is new comes last.
    methods = (
        *("noise", "missing", "typos", "pgd", "certificate", *_FAMILIES, "corruption"),
        *("black_box", "smoothing"),
    )
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("robust"),)
    ideal_when_same = {
        **{f"flip_rate_under_{m}": "decisions" for m in methods if m not in ("certificate", "smoothing")},
        **{f"flip_rate_under_{kind.name}": "decisions" for kind in CORRUPTIONS},
        "gradient_masking": "scores",
    }
    untrusted_options = allow_untrusted(
        "methods", "noise", "missing", "typos", "words", "epsilon", "immutable", "n_steps", "n_queries", "branches",
        "sigma", "n_samples",
    )  # fmt: skip
    metrics = GROUP_METRICS + BRACKET_METRICS + MASKING_METRICS + SMOOTHING_METRICS

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        noise: Sequence[float] = (0.05, 0.1, 0.2, 0.4),
        missing: Sequence[float] = (0.05, 0.1, 0.2),
        typos: Sequence[int] = (1, 2, 4),
        words: Sequence[int] = (1, 2, 4),
        epsilon: Sequence[float] | None = None,
        immutable: str | Sequence[str] = (),
        n_steps: int = 20,
        n_queries: int = 100,
        branches: int | None = None,
        sigma: float = 0.25,
        n_samples: int | None = None,
    ) -> None:
        whole_number("n_steps", n_steps, 1)
        whole_number("n_queries", n_queries, 2)
        whole_number("branches", branches, 1)
        whole_number("n_samples", n_samples, 1)
        self.wanted = chosen_methods(names_in(methods) if isinstance(methods, str) else methods, self.methods)
        self.noise = levels("noise", noise)
        self.missing = levels("missing", missing, most=1.0)
        self.typos = levels("typos", typos, whole=True)
        self.words = levels("words", words, whole=True)
        self.immutable = names_of_columns(immutable)
        self.epsilon = None if epsilon is None else levels("epsilon", epsilon)
        self.n_steps = n_steps
        self.n_queries = n_queries
        self.branches = branches
        self.sigma = levels("sigma", (sigma,))[0]
        self.n_samples = n_samples

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on sampled evaluation rows; see the class for their definitions."""
        rows = data.evaluation
        sample = draw(rows, self.n_samples or (_N_IMAGES if rows.modality in _LARGE else _N_SAMPLES), rng)
        fixed = fixed_columns(model, rows, self.immutable) if rows.modality == "tabular" else frozenset[str]()
        applicable = _applicable(model, rows, fixed)
        wanted = _by_default(applicable) if "auto" in self.wanted else list(self.wanted)
        unfit = [m for m in wanted if m not in applicable]
        if unfit:
            fit = ", ".join(applicable) or "none"
            raise NotApplicableError(f"{unfit[0]} {_why_not(unfit[0])}. To this model and data apply: {fit}.")
        if not wanted:
            raise NotApplicableError(f"No perturbation applies to these {rows.modality} rows: {_why_not('noise')}.")
        # Every method gets draws of its own, so that one more method or level does not change another's numbers.
        generators = dict(zip(self.methods, rng.spawn(len(self.methods)), strict=True))
        clean = model.decide(model.predict_proba(sample.X), sample.positive, sample.X)
        found = [*_of_rows_as_they_are(sample, clean), *clean_by_group(sample, clean, model.classes)]
        examined: Examined | None = None
        for method in wanted:
            if method == "certificate":
                found += self._certified(model, rows, sample, clean, examined)
                continue
            if method == "corruption":
                found += under_corruption(model, sample, clean, generators[method])
                continue
            if method == "smoothing":
                few = draw(sample, self.n_samples or _N_SEARCHED, generators[method])
                found += smoothed(model, few, self._ball(rows), self._epsilon(sample), self.sigma, generators[method])
                continue
            curve = self._curve(method, model, rows, sample, clean, fixed, generators[method])
            part, own = (sample, clean) if curve.rows is None else (sample.take(curve.rows), clean[curve.rows])
            found += _measurements(method, curve, part, own)
            found += by_group(_levels_of(method, curve), part, own, model.classes)
            examined = examined or curve.examined
            if method == "black_box" and not curve.failure and "pgd" not in applicable:
                from probes.robustness.certificates import NO_GRADIENTS, not_certified

                found += not_certified(part, own, curve.levels, curve.decisions != own, NO_GRADIENTS, method)
        return found

    def _certified(
        self, model: AuditedModel, rows: AuditData, sample: AuditData, clean: IntArray, examined: Examined | None
    ) -> list[Measurement]:
        from probes.robustness.certificates import certified, not_certified

        attacked, levels = examined.attacked if examined else None, self._epsilon(sample)
        try:
            return certified(model, sample, clean, self._ball(rows), levels, attacked, self.branches)
        except NotApplicableError as error:
            if "certificate" in self.wanted:
                raise
            return not_certified(sample, clean, levels, attacked.broken if attacked else None, str(error))

    def _ball(self, rows: AuditData) -> Callable[[AuditedModel, AuditData, Tensor], Ball]:
        return partial(ball_of, rows=rows, immutable=self.immutable)

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
        fixed_columns: frozenset[str],
        rng: np.random.Generator,
    ) -> _Curve:
        if method == "typos":
            return _try(model, sample, self.typos, mistyped(sample.X, self.typos, rng))
        few, epsilon = self.n_samples or _N_SEARCHED, self._epsilon(sample)
        if method in _FAMILIES:
            return _rewritten(model, sample, clean, _FAMILIES[method], self.words, self.n_queries, few, rng)
        if method == "missing":
            gappy = gappy_tables(model, rows, sample, fixed_columns, self.missing, rng)
            curve = _try(model, sample, self.missing, gappy)
            refusal = refusal_of_gaps(model, sample, clean, curve.error)
            return replace(curve, failure=refusal or curve.failure, refused=bool(refusal))
        if method == "black_box":
            return _query_curve(model, rows, sample, clean, fixed_columns, epsilon, self.n_queries, few, rng)
        own = differentiable(model)
        if method == "pgd" and own is not None:
            return _search(model, own, sample, clean, self._ball(rows), epsilon, self.n_steps, rng)
        if sample.modality in _LARGE:
            return _media_noise(model, sample, self.noise, rng)
        noisy = noisy_tables(model, rows, sample, fixed_columns, self.noise, rng)
        columns, n_columns = changing_columns(model, rows, fixed_columns), as_frame(sample.X, model.features).shape[1]
        return replace(
            _try(model, sample, self.noise, noisy),
            detail=changeable_columns_text([column.name for column in columns], n_columns),
        )


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


def names_of_columns(value: object) -> tuple[str, ...]:
    """``"age,sex"``, a name or several, as names. Raises ValueError where it holds none."""
    if isinstance(value, str):
        return tuple(names_in(value))
    parts = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(name, bool) or not isinstance(name, (str, int)) for name in parts):
        raise ValueError(f"immutable must be names of columns, not {value!r}")
    return tuple(str(name) for name in parts)


@dataclass(frozen=True, eq=False)
class _Curve:
    """Decisions (n_levels, n) on the perturbed rows, or ``failure``: why there are none.

    ``moved``: at each level, how many of the rows it changed, of a search how many it may; empty where nobody counted.
    ``searched``: whether the rows were not drawn but searched for; ``examined``: what was found by gradients. ``rows``:
    the places of the sampled rows that it is about, None for all. ``refused``: whether ``error`` is the model's answer.
    """

    levels: tuple[float, ...]
    decisions: IntArray
    detail: str = ""
    failure: str = ""
    error: Exception | None = None
    refused: bool = False
    searched: bool = False
    examined: Examined | None = None
    rows: IntArray | None = None
    moved: tuple[int, ...] = ()

    def about(self, level: int, n: int) -> str:
        """What was done to n rows at the level of that index, in words."""
        how = "can change" if self.searched else "changed"
        return "; ".join(
            filter(None, (self.detail, f"{self.moved[level]:,} of {n:,} rows {how}" if self.moved else ""))
        )

    def moves(self, level: int) -> bool:
        """Whether any row became another at the level of that index; what a search left over never passes."""
        return self.searched or not self.moved or self.moved[level] > 0

    @property
    def masked(self) -> str:
        """Why what was not broken says nothing, in words, or ""."""
        return self.examined.masked if self.examined else ""


def _levels_of(method: str, curve: _Curve) -> list[Level]:
    if curve.failure:
        return []
    return [
        Level(
            method, {COORDINATE[method]: level}, decisions, curve.searched, curve.about(i, len(decisions)), curve.masked
        )
        for i, (level, decisions) in enumerate(zip(curve.levels, curve.decisions, strict=True))
        if curve.moves(i)
    ]


# ---- what applies --------------------------------------------------------------------------------------------------


def _applicable(model: AuditedModel, rows: AuditData, fixed_columns: frozenset[str]) -> list[str]:
    kind = rows.modality
    if kind == "text":
        return ["typos", *_FAMILIES]
    noisy = kind in _LARGE or bool(changing_columns(model, rows, fixed_columns))
    searched = noisy and (own := differentiable(model)) is not None and _is_float(own, rows)
    table, asked = ["missing"] * (kind == "tabular"), ["black_box"] * noisy
    proved = searched and rows.y_true is not None and bool((rows.y_true >= 0).any())
    gradients = ["pgd"] * searched + ["certificate", "smoothing"] * proved
    return ["noise"] * noisy + table + gradients + ["corruption"] * can_be_corrupted(rows.X) + asked


def _by_default(applicable: Sequence[str]) -> list[str]:
    """In the order of their draws; what a gradient leads to is not searched for without it. Another model is asked
    about on request."""
    found = [method for method in Robustness.methods if method in applicable and method != "smoothing"]
    return [method for method in found if method != "black_box" or "pgd" not in found]


def _why_not(method: str) -> str:
    movable = "needs columns of numbers that may change, neither sensitive nor immutable; or images, or sound"
    reasons = {
        "noise": movable,
        "black_box": movable,
        "missing": "needs a table",
        "pgd": "needs a model that can be differentiated, on numeric columns that may change, images or sound taken "
        "as fractions",
        "certificate": "needs what pgd does, and true labels",
        "smoothing": "needs what pgd does, and true labels",
        "corruption": "needs images of one, three or four channels",
    }
    return reasons.get(method, "needs texts: add --text COLUMN")


def _is_float(differentiable_model: DifferentiableModel, rows: AuditData) -> bool:
    return differentiable_model.encode(take_rows(rows.X, slice(1))).is_floating_point() if len(rows) else False


# ---- perturbed rows ------------------------------------------------------------------------------------------------


def _try(model: AuditedModel, sample: AuditData, levels: tuple[float, ...], perturbed: Callable[[int], Rows]) -> _Curve:
    decisions, moved = [], []
    for i, level in enumerate(levels):
        rows = perturbed(i)
        try:
            decisions.append(model.decide(model.predict_proba(rows), sample.positive, rows))
        except NotApplicableError:
            raise
        except Exception as error:  # whatever a foreign model raises on such rows is what was to be found out
            failure = f"the model fails at level {level:g}: {_in_words(error)}"
            return _Curve(levels, np.empty((0, len(rows)), np.int64), failure=failure, error=error)
        moved.append(int(changed_rows(sample.X, rows).sum()))
    return _Curve(levels, np.stack(decisions), moved=tuple(moved))


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _rewritten(
    model: AuditedModel,
    sample: AuditData,
    clean: IntArray,
    family: Family,
    levels: tuple[float, ...],
    n_queries: int,
    most: int,
    rng: np.random.Generator,
) -> _Curve:
    picked = np.sort(rng.choice(len(sample), min(most, len(sample)), replace=False)).astype(np.int64)
    own = clean[picked]
    try:
        attacked = attack_texts(
            [str(text) for text in np.asarray(sample.X)[picked]],
            own,
            lambda versions: model.predict_proba(np.array(versions, object)),
            lambda versions, sure: model.decide(sure, sample.positive, np.array(versions, object)),
            family=family,
            levels=[int(level) for level in levels],
            n_queries=n_queries,
            rng=rng,
        )
    except NotApplicableError:
        raise
    except Exception as error:  # as for rows that are drawn
        failure = f"the model fails on texts that are rewritten: {_in_words(error)}"
        return _Curve(levels, np.empty((0, len(picked)), np.int64), failure=failure, rows=picked)
    detail = f"{family.what}, searched for with at most {n_queries:,} questions about a text"
    decisions = np.where(attacked.broken, -1, own).astype(np.int64)
    return _Curve(levels, decisions, detail, searched=True, rows=picked)


def _query_curve(
    model: AuditedModel,
    rows: AuditData,
    sample: AuditData,
    clean: IntArray,
    fixed_columns: frozenset[str],
    levels: tuple[float, ...],
    n_queries: int,
    most: int,
    rng: np.random.Generator,
) -> _Curve:
    picked = np.sort(rng.choice(len(sample), min(most, len(sample)), replace=False)).astype(np.int64)
    own, moving = clean[picked], moving_rows(model, rows, sample, clean, picked, fixed_columns)
    try:
        attacked = attack_rows(
            moving,
            own,
            model.predict_proba,
            lambda rows, sure: model.decide(sure, sample.positive, rows),
            levels=levels,
            n_queries=n_queries,
            rng=rng,
        )
    except Exception as error:  # as for rows that are drawn
        failure = f"the model fails on rows near those of the data: {_in_words(error)}"
        return _Curve(levels, np.empty((0, len(picked)), np.int64), failure=failure, rows=picked)
    told = "probabilities: Square attack" if attacked.graded else "classes alone"
    detail = (
        f"L-infinity ball of epsilon {moving.ball.unit}; found by asking for {told}, from other rows cut to the ball, "
        f"at most {n_queries:,} questions about each of {len(picked):,} rows, {attacked.asked.sum():,} in all"
    )
    decisions = np.where(attacked.broken, -1, own).astype(np.int64)
    moved = tuple(int((np.subtract(*moving.around(level)) != 0.0).any(axis=1).sum()) for level in levels)
    return _Curve(levels, decisions, detail, searched=True, rows=picked, moved=moved)


def _media_noise(model: AuditedModel, sample: AuditData, levels: tuple[float, ...], rng: np.random.Generator) -> _Curve:
    parts = []
    for at in np.split(np.arange(len(sample)), range(_IMAGES_AT_ONCE, len(sample), _IMAGES_AT_ONCE)):
        some = sample.take(at)
        few = np.asarray(some.X)
        z = rng.standard_normal(few.shape, dtype=np.float32)
        part = _try(model, some, levels, partial(_noisy_media, few, z, levels))
        if part.failure:
            return part
        parts.append(part)
    moved = tuple(int(n) for n in np.sum([part.moved for part in parts], axis=0))
    return _Curve(levels, np.concatenate([part.decisions for part in parts], axis=1), moved=moved)


def _noisy_media(files: Rows, z: npt.NDArray[np.float32], levels: tuple[float, ...], i: int) -> Rows:
    values = np.asarray(files)
    return image_noise(values, z, levels[i]) if values.dtype == np.uint8 else sound_noise(values, z, levels[i])


def _search(
    model: AuditedModel,
    differentiable_model: DifferentiableModel,
    sample: AuditData,
    clean: IntArray,
    ball_around: Callable[[AuditedModel, AuditData, Tensor], Ball],
    levels: tuple[float, ...],
    n_steps: int,
    rng: np.random.Generator,
) -> _Curve:
    inputs = differentiable_model.encode(sample.X)
    ball = ball_around(model, sample, inputs)
    of_attack, of_signs = rng.spawn(2)

    def decide(probabilities: FloatArray) -> IntArray:
        return model.decide(probabilities, sample.positive)

    attacked = attack(
        differentiable_model, inputs, clean, decide, ball=ball, levels=levels, n_steps=n_steps, rng=of_attack
    )
    examined = examine(differentiable_model, inputs, clean, decide, attacked, ball=ball, n_steps=n_steps, rng=of_signs)
    # "Another" is no class, and so never the right one.
    decisions = np.where(examined.attacked.broken, -1, clean).astype(np.int64)
    detail = f"L-infinity ball of epsilon {ball.unit}; {n_steps} steps"
    moved = tuple(int(can_change(*ball.around(inputs, level)).sum()) for level in levels)
    return _Curve(levels, decisions, detail, searched=True, examined=examined, moved=moved)


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
                estimate=Undefined(reason=curve.failure, failed=True, inapplicable=curve.refused),
                n_samples=len(sample),
                ideal=1.0 if metric == "accuracy" else 0.0,
            )
            for metric in metrics
        ]
    found = []
    for i, (level, decisions) in enumerate(zip(curve.levels, curve.decisions, strict=True)):
        at: dict[str, str | float] = {COORDINATE[method]: level}
        if y is not None and labelled is not None:
            right = _right(decisions, y, labelled)
            searched = AtMost(successes=right.successes, n=right.n) if curve.searched else right
            found.append(_curve_measurement("accuracy", method, searched, right.n, 1.0, at, curve, i))
        flips, n = int((decisions != clean).sum()), len(clean)
        of_flips = AtLeast(successes=flips, n=n) if curve.searched else Proportion(successes=flips, n=n)
        found.append(_curve_measurement("flip_rate", method, of_flips, n, 0.0, at, curve, i))
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


def _curve_measurement(
    metric: str,
    method: str,
    estimate: AnyEstimate,
    n: int,
    ideal: float,
    coordinates: dict[str, str | float],
    curve: _Curve,
    level: int,
) -> Measurement:
    return Measurement(
        metric=f"{metric}_under_{method}",
        method=method,
        estimate=estimate,
        n_samples=n,
        ideal=ideal,
        at=coordinates,
        detail=curve.about(level, len(curve.decisions[level])),
        too_few="" if curve.moves(level) else nothing_moves(len(curve.decisions[level])),
        masked=curve.masked,
    )
