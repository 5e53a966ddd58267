"""The rule: rank methods on one half of the samples, confirm the chosen one on the other, and show it or refuse.

Choosing the best of ten on the samples that grade it is cheating: the best of ten random attributions looks good there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.arrays import FloatArray
from auditor.errors import NotApplicableError
from auditor.statistics.estimate import Undefined
from auditor.statistics.ranks import quantile
from auditor.statistics.values import BoundedMean
from probes.attribution.agreement import rank_agreement
from probes.attribution.explained import Attributions
from probes.attribution.faithfulness import (
    OCCLUSION,
    RANDOM,
    Grades,
    gain,
    grade,
    occlusion,
    random_attribution,
)
from probes.attribution.gradient import Effort
from probes.attribution.methods import METHODS, explain, why_not
from probes.attribution.problem import Problem
from probes.attribution.sanity import (
    DEVIATIONS,
    MOST_OVERLAP,
    Randomisation,
    Threshold,
    cascade,
    randomisable,
    threshold,
)
from probes.attribution.stability import infidelity, sensitivity_max

if TYPE_CHECKING:
    from torch import nn

    from auditor.display import Standing

# An explanation is decided on before anybody knows how many findings the scan will have: at the level of one of 20.
TAIL = 0.05 / 20
# Only a method that is shown to be worse than the best gives way to it, so that noise does not choose.
_SAME = 0.05
# What a completeness error of a method that claims completeness may not be shown to exceed.
MOST_INCOMPLETE = 0.01
_SANITY_STEPS = 8
_FEWEST_UNITS = 3
_FEW_EXPLAINED = 3


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How many networks with parameters drawn anew the explanation is graded on, and how many are explained too."""

    n_copies: int
    n_explained: int
    why_none: str = "n_copies is 0"


@dataclass(frozen=True, eq=False, kw_only=True)
class Verdict:
    """What became of the methods.

    chosen: the method; standing: whether it is shown, refused, or shown because it was asked for by name. reasons: why
    it is not earned, empty where it is. ranked: gain of each method on the first half. left_out: why a method was not
    asked. problem, explained, grades: the second half, its attributions by the chosen method, and the grades of it, of
    a random attribution and of occlusion. explained_first: the first half's. agreement: with occlusion, on the second
    half, or with the best gradient method where occlusion is chosen; ``against`` names it. infidelity,
    infidelity_of_random, sensitivity: see :mod:`probes.attribution.stability`.
    """

    chosen: str
    standing: Standing
    reasons: tuple[str, ...]
    ranked: Mapping[str, BoundedMean | Undefined]
    left_out: Mapping[str, str]
    problem: Problem
    explained: Attributions
    explained_first: Attributions
    complete: Attributions | None
    grades: Mapping[str, Grades]
    gain: BoundedMean | Undefined
    gain_over_occlusion: BoundedMean | Undefined
    agreement: BoundedMean | Undefined | None
    against: str
    randomisation: Randomisation | None
    threshold: Threshold | None
    unchecked: str
    infidelity: FloatArray
    infidelity_of_random: FloatArray
    sensitivity: FloatArray | None

    @property
    def shown(self) -> bool:
        """Whether the explanation may be looked at."""
        return self.standing != "refused"


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts:
    """The same question about different samples: ``first`` ranks, ``second`` confirms, ``few`` of it are checked on."""

    first: Problem
    second: Problem
    few: Problem


def judge_methods(
    parts: Parts,
    methods: Sequence[str],
    rng: np.random.Generator,
    effort: Effort,
    checks: Checks,
    *,
    forced: bool,
) -> Verdict:
    """Asks every method about the first half, the best about the second, and checks what it says.

    ``methods`` in the order in which they are preferred where they are not told apart. ``forced``: the only one is
    shown whatever it is worth. Raises NotApplicableError with every reason where none applies.
    """
    first, second = parts.first, parts.second
    left_out = {m: reason for m in methods if (reason := why_not(m, first))}
    asked: dict[str, Attributions] = {}
    for method in methods:
        if method in left_out:
            continue
        try:
            asked[method] = explain(method, first, rng, effort)
        except NotApplicableError as error:
            left_out[method] = str(error)
    if not asked:
        said = [r if r.startswith(m) else f"{m}: {r}" for m, r in left_out.items()]
        raise NotApplicableError(" ".join(dict.fromkeys(said)))
    ranked = _rank(first, asked, rng)
    chosen = _choose(first, asked, ranked, rng)
    explained = explain(chosen, second, rng, effort)
    grades, peeled = _confirm(second, explained, rng)
    other, against = peeled, OCCLUSION
    if METHODS[chosen].family == "perturbation":
        rival = next((m for m in asked if METHODS[m].family == "gradient"), None)
        other, against = (explain(rival, second, rng, effort).values, rival) if rival else (peeled, "")
    complete = _completing(chosen, asked, second, explained, rng, effort)
    verdict = Verdict(
        chosen=chosen,
        standing="shown",
        reasons=(),
        ranked=ranked,
        left_out=left_out,
        problem=second,
        explained=explained,
        explained_first=asked[chosen],
        complete=complete,
        grades=grades,
        gain=gain(grades, chosen),
        gain_over_occlusion=gain(grades, chosen, OCCLUSION),
        agreement=rank_agreement(explained.values, other, second.units.present) if against else None,
        against=against,
        randomisation=None,
        threshold=None,
        unchecked="",
        infidelity=infidelity(second.units, explained.values, rng),
        infidelity_of_random=infidelity(
            second.units, random_attribution(second.units, np.arange(len(second)), rng), rng
        ),
        sensitivity=sensitivity_max(
            chosen, parts.few, rng, replace(effort, n_steps=_SANITY_STEPS, max_steps=_SANITY_STEPS)
        ),
    )
    verdict = _checked(verdict, parts.few, rng, effort, checks)
    reasons = _reasons(verdict)
    standing: Standing = "shown" if not reasons else "forced" if forced else "refused"
    return replace(verdict, reasons=reasons, standing=standing)


def _rank(
    problem: Problem, asked: Mapping[str, Attributions], rng: np.random.Generator
) -> dict[str, BoundedMean | Undefined]:
    rows = np.arange(len(problem))
    attributions = {m: e.values for m, e in asked.items()}
    grades = grade(problem.units, rows, attributions | {RANDOM: random_attribution(problem.units, rows, rng)}, rng)
    return {m: gain(grades, m) for m in asked}


def _choose(
    problem: Problem,
    asked: Mapping[str, Attributions],
    ranked: Mapping[str, BoundedMean | Undefined],
    rng: np.random.Generator,
) -> str:
    """The first method in the order of preference that is not shown to be worse than the best."""
    usable = [m for m in asked if not isinstance(ranked[m], Undefined) and not broken(asked[m])] or list(asked)
    best = max(usable, key=lambda m: -np.inf if np.isnan(ranked[m].value) else ranked[m].value)
    if len(usable) == 1 or isinstance(ranked[best], Undefined):
        return usable[0]
    rows = np.arange(len(problem))
    grades = grade(problem.units, rows, {m: asked[m].values for m in usable}, rng)
    return next(m for m in usable if m == best or gain(grades, best, m).bounds(_SAME)[0] <= 0.0)


def _confirm(
    problem: Problem, explained: Attributions, rng: np.random.Generator
) -> tuple[dict[str, Grades], FloatArray]:
    rows = np.arange(len(problem))
    peeled = occlusion(problem.units, rows)
    attributions = {
        explained.method: explained.values,
        RANDOM: random_attribution(problem.units, rows, rng),
        **({} if explained.method == OCCLUSION else {OCCLUSION: peeled}),
    }
    return grade(problem.units, rows, attributions, rng), peeled


def broken(explained: Attributions) -> str:
    """Why attributions are not what their method promises; empty where they are, as far as is known."""
    if not np.isfinite(explained.values).all():
        rows = int((~np.isfinite(explained.values).all(axis=1)).sum())
        return f"the attributions of {rows:,} of {len(explained.values):,} sampled rows are not finite"
    if METHODS[explained.method].completes and explained.output_range:
        low = quantile(explained.errors, 0.95).bounds(TAIL)[0]
        if low > MOST_INCOMPLETE:
            return (
                f"its parts do not add up to the score: 95 % of errors reach beyond {low:.2g} of the scores' range, "
                f"and {MOST_INCOMPLETE:g} is allowed"
            )
    return ""


def joined(first: Attributions, second: Attributions) -> Attributions:
    """Attributions of both halves; texts of different lengths are filled up with zeros."""
    width = max(first.values.shape[1], second.values.shape[1])
    padded = [np.pad(e.values, ((0, 0), (0, width - e.values.shape[1]))) for e in (first, second)]
    return Attributions(
        method=second.method,
        values=np.concatenate(padded),
        outputs=np.concatenate([first.outputs, second.outputs]),
        baseline=np.concatenate([first.baseline, second.baseline]),
        units=second.units,
        detail=second.detail,
    )


def _completing(
    chosen: str,
    asked: Mapping[str, Attributions],
    second: Problem,
    explained: Attributions,
    rng: np.random.Generator,
    effort: Effort,
) -> Attributions | None:
    """The attributions whose completeness is measured: the chosen method's, else the first's that claims it."""
    if METHODS[chosen].completes:
        return joined(asked[chosen], explained)
    other = next((m for m in asked if METHODS[m].completes), None)
    return None if other is None else joined(asked[other], explain(other, second, rng, effort))


# ---- sanity --------------------------------------------------------------------------------------------------------


def _checked(verdict: Verdict, few: Problem, rng: np.random.Generator, effort: Effort, checks: Checks) -> Verdict:
    reason = _why_unchecked(few, verdict, checks)
    if reason:
        return replace(verdict, unchecked=reason)
    module = few.model.module  # type: ignore[attr-defined]
    # As many steps as tell where the large attributions lie; both sides of the comparison take the same.
    quick = replace(effort, n_steps=_SANITY_STEPS, max_steps=_SANITY_STEPS)

    def again(other: nn.Module) -> FloatArray:
        return explain(verdict.chosen, few.with_module(other), rng, quick).values

    original = explain(verdict.chosen, few, rng, quick).values
    try:
        # A gradient costs a few passes, a game among the units hundreds.
        cheap = METHODS[verdict.chosen].family == "gradient"
        n_explained = checks.n_explained if cheap else min(checks.n_explained, _FEW_EXPLAINED)
        randomisation = cascade(again, module, original, few.units.present, rng, n_copies=n_explained)
        limit = threshold(
            lambda other: few.with_module(other).units, module, few.units, original, rng, n_copies=checks.n_copies
        )
    except (RuntimeError, NotApplicableError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        return replace(verdict, unchecked=f"the network with parameters drawn anew could not be explained ({first})")
    return replace(verdict, randomisation=randomisation, threshold=limit)


def _why_unchecked(problem: Problem, verdict: Verdict, checks: Checks) -> str:
    module = getattr(problem.model, "module", None)
    if not checks.n_copies:
        return checks.why_none
    if module is None:
        return "the model's parameters cannot be drawn anew: it only predicts"
    if getattr(problem.model, "frozen_mode", False) or not randomisable(module):
        return "the network's parameters cannot be drawn anew: its layers do not know how they were made"
    if isinstance(verdict.gain, Undefined):
        return "the score does not move"
    if float(np.median(problem.units.present.sum(axis=1))) < _FEWEST_UNITS:
        return f"with fewer than {_FEWEST_UNITS} units any two networks agree by chance"
    return ""


def _reasons(verdict: Verdict) -> tuple[str, ...]:
    """Why the explanation has not earned its display."""
    found = [broken(verdict.explained) or broken(verdict.explained_first)]
    if isinstance(verdict.gain, Undefined):
        found.append(verdict.gain.reason)
    elif verdict.gain.bounds(TAIL)[0] <= 0.0:
        low, high = verdict.gain.bounds(TAIL)
        found.append(
            f"on {verdict.gain.n:,} samples that did not choose it, it is not shown to be more faithful than a random "
            f"attribution (gain {verdict.gain.value:.2g}, [{low:.2g}, {high:.2g}])"
        )
    maps = verdict.randomisation
    if maps is not None and not isinstance(maps.overlap, Undefined):
        high = maps.overlap.bounds(TAIL)[1]
        if high > MOST_OVERLAP:
            found.append(
                "its largest units are not shown to change when the network's parameters are drawn anew (overlap "
                f"beyond chance {maps.overlap.value:.2g}, up to {high:.2g} over {maps.over}; {MOST_OVERLAP:g} is "
                "allowed)"
            )
    limit = verdict.threshold
    if limit is not None and limit.decides and not limit.exceeded:
        found.append(
            f"it gains {limit.own:.2g} on the model and would have to gain more than {limit.limit:.2g}: the mean plus "
            f"{DEVIATIONS:g} standard deviations over {limit.n_copies} networks that it does not explain"
        )
    return tuple(f for f in found if f)
