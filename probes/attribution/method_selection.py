"""The display rule: rank methods on half of the samples, confirm the best on the other half, show or refuse.

Choosing the best of ten on the samples that grade it is cheating: the best of ten random attributions looks good there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import FloatArray
from auditor.judging.figure_types import RESERVED, UNEARNED
from auditor.statistics.estimate import Undefined
from auditor.statistics.rank_estimates import quantile
from auditor.statistics.values import BoundedMean
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import Attributions
from probes.attribution.faithfulness import (
    OCCLUSION,
    RANDOM,
    Grades,
    gain,
    grade,
    occlusion,
    random_attribution,
    rank_agreement,
)
from probes.attribution.gradient import Effort
from probes.attribution.methods import METHODS, explain, why_not
from probes.attribution.randomization_tests import (
    DEVIATIONS,
    MOST_OVERLAP,
    Randomisation,
    Relabelled,
    Taught,
    Threshold,
    cascade,
    randomisable,
    relabelled,
    threshold,
)
from probes.attribution.stability import Stability, infidelity, stability
from probes.erasure import Erasure, erasure
from probes.fairwashing import OTHERWISE, RealRows

if TYPE_CHECKING:
    from torch import nn

    from auditor.judging.figure_types import Standing

# An explanation is decided on before anybody knows how many findings the scan will have: at the level of one of 20.
TAIL = 0.05 / 20
# Only a method that is shown to be worse than the best gives way to it, so that noise does not choose.
_SAME = 0.05
# What a completeness error of a method that claims completeness may not be shown to exceed.
MOST_INCOMPLETE = 0.01
_SANITY_STEPS = 8
_FEWEST_UNITS = 3
_FEW_EXPLAINED = 3
_REFUSED_ALREADY = "it is refused without that"


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Numbers of networks with new random parameters that the explanation is graded on, and explained on.

    teach: trains networks on shuffled labels, or says why it cannot; None where that was not asked for. real: what
    decides real rows, given attributions of both halves and the names of their units; None where units are no columns.
    """

    n_copies: int
    n_explained: int
    why_none: str = "n_copies is 0"
    teach: Callable[[], Taught | str] | None = None
    real: Callable[[FloatArray, tuple[str, ...]], RealRows | str] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Verdict:
    """The results of the methods.

    chosen: the method; standing: whether it is shown, refused, or shown because it was asked for by name. reasons: why
    it is not earned, empty where it is. ranked: gain of each method on the first half. left_out: why a method was not
    asked. incomplete: why a method was ranked and not considered: its parts do not add up. problem, explained, grades:
    the second half, its attributions by the chosen method, and the grades of it, of a random attribution and of
    occlusion. explained_first: the first half's. complete: attributions by the chosen method whose completeness is
    measured, None where it claims none. agreement: with occlusion, on the second
    half, or with the best gradient method where occlusion is chosen; ``against`` names it. relabelled: what became of
    the explanation as labels were shuffled, or why that is not known; None where it was not asked for. infidelity,
    infidelity_of_random, sensitivity: see :mod:`probes.attribution.stability`. erasure: see :mod:`probes.erasure`.
    real: what decides real rows, or why that is not known; None where it was not asked for. reservations: what was not
    checked of an explanation that may be looked at, or was not held against it.
    """

    chosen: str
    standing: Standing
    reasons: tuple[str, ...]
    ranked: Mapping[str, BoundedMean | Undefined]
    left_out: Mapping[str, str]
    incomplete: Mapping[str, str]
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
    relabelled: Relabelled | str | None
    infidelity: FloatArray
    infidelity_of_random: FloatArray
    sensitivity: Stability | None
    erasure: Erasure
    real: RealRows | str | None = None
    reservations: tuple[str, ...] = ()

    @property
    def is_shown(self) -> bool:
        """Whether the explanation may be displayed."""
        return self.standing != "refused"

    @property
    def hint(self) -> str:
        """A short form of the note, for many numbers of one explanation."""
        if self.standing == "forced":
            return f"{UNEARNED}: {'; '.join(self.reasons)}"
        return f"{RESERVED}, which faithfulness_gain names" if self.reservations else ""

    @property
    def note(self) -> str:
        """The required note beside a displayed explanation; empty if it passed without reservation."""
        found = [f"{UNEARNED}: {'; '.join(self.reasons)}"] if self.standing == "forced" else []
        found += [f"{RESERVED}: {'; '.join(self.reservations)}"] if self.reservations else []
        return "; ".join(found)


@dataclass(frozen=True, eq=False, kw_only=True)
class Parts:
    """The same task on different samples: ``first`` ranks, ``second`` confirms, ``few`` of it for checks."""

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
    force: bool,
    ranking_effort: Effort | None = None,
) -> Verdict:
    """Run every method on the first half, the best on the second, and check its explanation.

    ``methods`` in the order in which they are preferred where they are not told apart. ``force``: the only one is
    shown whatever it is worth. ``ranking_effort``: what the first half is worth, ``effort`` by default; where it is
    less, completeness is told of the second half alone. Raises NotApplicableError with every reason where none applies.
    """
    first, second = parts.first, parts.second
    left_out = {m: reason for m in methods if (reason := why_not(m, first))}
    asked: dict[str, Attributions] = {}
    for method in methods:
        if method in left_out:
            continue
        try:
            asked[method] = explain(method, first, rng, ranking_effort or effort)
        except NotApplicableError as error:
            left_out[method] = str(error)
    if not asked:
        said = [r if r.startswith(m) else f"{m}: {r}" for m, r in left_out.items()]
        raise NotApplicableError(" ".join(dict.fromkeys(said)))
    graded = _rank(first, asked, rng)
    ranked = {m: gain(graded, m) for m in asked}
    # Of an integral by few steps it is not known yet whether its parts add up.
    incomplete = {m: why for m, e in asked.items() if (why := describe_fault(e))} if ranking_effort is None else {}
    chosen = _choose(asked, graded, ranked, incomplete)
    explained = explain(chosen, second, rng, effort)
    grades, peeled = _confirm(second, explained, rng)
    other, against = peeled, OCCLUSION
    if METHODS[chosen].family == "perturbation":
        rival = next((m for m in asked if METHODS[m].family == "gradient"), None)
        other, against = (comparable(explain(rival, second, rng, effort)), rival) if rival else (peeled, "")
    complete: Attributions | None = None
    if METHODS[chosen].completes:
        complete = join_halves(asked[chosen], explained) if ranking_effort is None else explained
    verdict = Verdict(
        chosen=chosen,
        standing="shown",
        reasons=(),
        ranked=ranked,
        left_out=left_out,
        incomplete=incomplete,
        problem=second,
        explained=explained,
        explained_first=asked[chosen],
        complete=complete,
        grades=grades,
        gain=gain(grades, chosen),
        gain_over_occlusion=gain(grades, chosen, OCCLUSION),
        agreement=rank_agreement(comparable(explained), other, second.units.present) if against else None,
        against=against,
        randomisation=None,
        threshold=None,
        unchecked="",
        relabelled=None,
        infidelity=infidelity(second.units, explained.values, rng),
        infidelity_of_random=infidelity(
            second.units, random_attribution(second.units, np.arange(len(second)), rng), rng
        ),
        erasure=erasure(second.units, comparable(explained), rng, of_two=second.model.n_outputs == 2),
        sensitivity=stability(chosen, parts.few, rng, replace(effort, n_steps=_SANITY_STEPS, max_steps=_SANITY_STEPS)),
    )
    if checks.real is not None and (force or not _reasons(verdict, halves_alike=ranking_effort is None)):
        verdict = replace(verdict, real=checks.real(comparable(join_halves(asked[chosen], explained)), explained.units))
    if force or not _reasons(verdict, halves_alike=ranking_effort is None):
        verdict = _checked(verdict, parts.few, rng, effort, checks)
    else:
        verdict = replace(verdict, unchecked=checks.why_none if not checks.n_copies else _REFUSED_ALREADY)
    reasons = _reasons(verdict, halves_alike=ranking_effort is None)
    standing: Standing = "shown" if not reasons else "forced" if force else "refused"
    verdict = replace(verdict, reasons=reasons, standing=standing)
    return replace(verdict, reservations=_reservations(verdict)) if verdict.is_shown else verdict


def _rank(problem: Problem, explanations: Mapping[str, Attributions], rng: np.random.Generator) -> dict[str, Grades]:
    rows = np.arange(len(problem))
    attributions = {m: comparable(e) for m, e in explanations.items()}
    return grade(problem.units, rows, attributions | {RANDOM: random_attribution(problem.units, rows, rng)}, rng)


def _choose(
    explanations: Mapping[str, Attributions],
    grades: Mapping[str, Grades],
    ranked: Mapping[str, BoundedMean | Undefined],
    incomplete: Mapping[str, str],
) -> str:
    """The first method in the order of preference that is not shown to be worse than the best."""
    whole = [m for m in explanations if m not in incomplete]
    usable = [m for m in whole if not isinstance(ranked[m], Undefined)] or list(explanations)
    best = max(usable, key=lambda m: -np.inf if np.isnan(ranked[m].value) else ranked[m].value)
    if len(usable) == 1 or isinstance(ranked[best], Undefined):
        return usable[0]
    return next(m for m in usable if m == best or gain(grades, best, m).bounds(_SAME)[0] <= 0.0)


def _confirm(
    problem: Problem, explained: Attributions, rng: np.random.Generator
) -> tuple[dict[str, Grades], FloatArray]:
    rows = np.arange(len(problem))
    peeled = occlusion(problem.units, rows)
    attributions = {
        explained.method: comparable(explained),
        RANDOM: random_attribution(problem.units, rows, rng),
        **({} if explained.method == OCCLUSION else {OCCLUSION: peeled}),
    }
    return grade(problem.units, rows, attributions, rng), peeled


def comparable(explained: Attributions) -> FloatArray:
    """(n, d) the values that order units: attributions, or their absolute values if the sign means nothing.

    Permutation importance is a size that noise may push below 0, and one for all samples: read with its sign, whatever
    holds a score down would be what matters least.
    """
    return explained.values if METHODS[explained.method].signed else np.abs(explained.values)


def describe_fault(explained: Attributions) -> str:
    """The reason why attributions violate their method's definition; empty if no violation is known."""
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


def join_halves(first: Attributions, second: Attributions) -> Attributions:
    """Attributions of both halves; texts of different lengths are filled up with zeros."""
    width = max(first.values.shape[1], second.values.shape[1])
    padded = [np.pad(e.values, ((0, 0), (0, width - e.values.shape[1]))) for e in (first, second)]
    return Attributions(
        method=second.method,
        values=np.concatenate(padded),
        ends=lambda: (np.append(first.outputs, second.outputs), np.append(first.baseline, second.baseline)),
        units=second.units,
        detail=second.detail,
    )


def _checked(verdict: Verdict, few: Problem, rng: np.random.Generator, effort: Effort, checks: Checks) -> Verdict:
    verdict = _relabelled(verdict, few, rng, effort, checks)
    reason = _why_unchecked(few, verdict, checks)
    if reason:
        return replace(verdict, unchecked=reason)
    module = few.model.module  # type: ignore[attr-defined]
    # As many steps as tell where the large attributions lie; both sides of the comparison take the same.
    quick = replace(effort, n_steps=_SANITY_STEPS, max_steps=_SANITY_STEPS)

    again = _explainer(verdict.chosen, few, rng, quick)
    original = comparable(explain(verdict.chosen, few, rng, quick))
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


def _explainer(
    method: str, few: Problem, rng: np.random.Generator, effort: Effort
) -> Callable[[nn.Module], FloatArray]:
    return lambda other: comparable(explain(method, few.with_module(other), rng, effort))


def _relabelled(verdict: Verdict, few: Problem, rng: np.random.Generator, effort: Effort, checks: Checks) -> Verdict:
    if checks.teach is None:
        return verdict
    if isinstance(verdict.gain, Undefined):
        return replace(verdict, relabelled=verdict.gain.reason)
    if _n_units(few) < _FEWEST_UNITS:
        return replace(verdict, relabelled=f"with fewer than {_FEWEST_UNITS} units any two networks agree by chance")
    taught = checks.teach()
    if isinstance(taught, str):
        return replace(verdict, relabelled=taught)
    quick = replace(effort, n_steps=_SANITY_STEPS, max_steps=_SANITY_STEPS)
    try:
        original = comparable(explain(verdict.chosen, few, rng, quick))
        found = relabelled(_explainer(verdict.chosen, few, rng, quick), taught, original, few.units.present)
    except (RuntimeError, NotApplicableError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        return replace(verdict, relabelled=f"the network that learned shuffled labels could not be explained ({first})")
    return replace(verdict, relabelled=found)


def _n_units(problem: Problem) -> float:
    return float(np.median(problem.units.present.sum(axis=1)))


def _why_unchecked(problem: Problem, verdict: Verdict, checks: Checks) -> str:
    module = getattr(problem.model, "module", None)
    if not checks.n_copies:
        return checks.why_none
    if module is None:
        return "the model's parameters cannot be drawn anew: it only predicts"
    if getattr(problem.model, "frozen_mode", False) or not randomisable(module):
        return "the network's parameters cannot be drawn anew: its layers do not know how they were made"
    if isinstance(verdict.gain, Undefined):
        return verdict.gain.reason
    if _n_units(problem) < _FEWEST_UNITS:
        return f"with fewer than {_FEWEST_UNITS} units any two networks agree by chance"
    return ""


def _reasons(verdict: Verdict, *, halves_alike: bool) -> tuple[str, ...]:
    """Why the explanation has not earned its display."""
    found = [describe_fault(verdict.explained) or (describe_fault(verdict.explained_first) if halves_alike else "")]
    if isinstance(verdict.real, RealRows) and verdict.real.is_hidden:
        found.append(f"{OTHERWISE}: {verdict.real.describe()}")
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
    taught = verdict.relabelled
    if isinstance(taught, Relabelled) and not isinstance(taught.overlap, Undefined):
        high = taught.overlap.bounds(TAIL)[1]
        if high > MOST_OVERLAP:
            found.append(
                "its largest units are not shown to change when the network learns shuffled labels (overlap beyond "
                f"chance {taught.overlap.value:.2g}, up to {high:.2g}; {MOST_OVERLAP:g} is allowed)"
            )
    limit = verdict.threshold
    if limit is not None and limit.decides and not limit.exceeded:
        found.append(
            f"it gains {limit.own:.2g} on the model and would have to gain more than {limit.limit:.2g}: the mean plus "
            f"{DEVIATIONS:g} standard deviations over {limit.n_copies} networks that it does not explain"
        )
    return tuple(f for f in found if f)


def _reservations(verdict: Verdict) -> tuple[str, ...]:
    """What was not checked of an explanation that may be looked at, and what was found and not held against it."""
    found = []
    if verdict.unchecked:
        found.append(f"the parameter randomisation check was not run ({verdict.unchecked})")
    if isinstance(verdict.relabelled, str):
        found.append(f"the label randomisation check was not run or settles nothing ({verdict.relabelled})")
    limit = verdict.threshold
    if limit is not None and not limit.exceeded and not limit.decides:
        known = np.isfinite(limit.limit)
        found.append(
            f"its gain, {limit.own:.2g}, is not above the limit of {limit.limit:.2g} from networks drawn anew, which "
            f"was waived ({limit.why_waived})"
            if known
            else f"networks drawn anew set no limit for its gain ({limit.why_waived})"
        )
    return tuple(found)
