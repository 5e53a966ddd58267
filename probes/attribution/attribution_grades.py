"""Grades of an explanation as measurements, and the table of requested methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from auditor.core.rows import FloatArray
from auditor.judging.figure_types import EARNED, MOST_METHODS, RESERVED, UNEARNED, Grade, GradedMethod, GradeTable
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import quantile
from probes.attribution.attribution_figures import grades_figure
from probes.attribution.attribution_units import Attributions
from probes.attribution.faithfulness import NO_SPAN, OCCLUSION, ONE_UNIT, RANDOM, Grades, mean_of
from probes.attribution.method_selection import MOST_INCOMPLETE, TAIL, Verdict
from probes.attribution.methods import METHODS
from probes.attribution.randomization_tests import DEVIATIONS, MOST_OVERLAP, Relabelled
from probes.fairwashing import RealRows

LEVEL = 0.95
# log(alpha) / log(0.95) rows are the fewest that bound a 95 % quantile from above; so many do at alpha = 0.05 / 20.
FEWEST_ROWS = 120
PROBE = "feature_attribution"
# Below it, orders of the units by two families of methods have next to nothing in common.
LEAST_AGREEMENT = 0.2
_DISPLAY = 0.025
_LONGEST_REASON = 380
_NOTHING_SAID = "the explanation is 0 throughout, so it cannot move by a share of itself"
_GRADES = (
    ("comprehensiveness", "higher", -1.0, 1.0),
    ("sufficiency", "lower", -1.0, 1.0),
    ("deletion_auc", "lower", 0.0, 1.0),
    ("insertion_auc", "higher", 0.0, 1.0),
)


def grades_of(verdict: Verdict, n_rows: int) -> list[Measurement]:
    """Faithfulness, completeness, sanity and agreement of the explanation, with its status on the first."""
    chosen, gained = verdict.chosen, verdict.gain
    reason = "; ".join(verdict.reasons)
    # A gain that is shown to be negative is no matter of too little data.
    negative = not isinstance(gained, Undefined) and gained.bounds(TAIL)[1] < 0.0
    called = "Unearned" if verdict.standing == "forced" else "Refused"
    standing = _headline(verdict)
    table = grade_table(verdict)
    units = verdict.problem.units
    infill = f"{units.infill}{'' if units.in_distribution else ', which the model may never have seen'}"
    told = f". The network's parameters were not drawn anew: {verdict.unchecked}" if verdict.unchecked else ""
    unchecked = "" if verdict.reservations else told
    unchecked += _on_real_rows(verdict.real)
    by_gradients = next((r for m, r in verdict.left_out.items() if METHODS[m].family == "gradient"), "")
    if by_gradients and METHODS[chosen].family != "gradient":
        unchecked += f". Not by gradients: {by_gradients.rstrip('.')}"
    found = [
        Measurement(
            metric="faithfulness_gain",
            method=chosen,
            estimate=gained,
            n_samples=len(verdict.problem),
            detail=f"{standing}. In place of a {units.kind}: {infill}{unchecked}",
            too_few=f"{called}: {reason}." if reason and not negative and not isinstance(gained, Undefined) else "",
            figure=grades_figure(PROBE, table),
        )
    ]
    if verdict.complete is not None:
        found.append(completeness(verdict.complete, n_rows))
    own: Grades = verdict.grades[chosen]
    for metric, _, low, high in _GRADES:
        found.append(_plain(metric, verdict, mean_of(getattr(own, metric), low, high, own.why_none)))
    if chosen != OCCLUSION:
        found.append(_plain("faithfulness_gain_over_occlusion", verdict, verdict.gain_over_occlusion))
    found += _raw(verdict)
    found += _of_captum(verdict)
    maps, limit = verdict.randomisation, verdict.threshold
    if maps is not None:
        stages = ", ".join(f"{s:.2f}" for s in maps.stages)
        checked = ""
        if limit is not None:
            checked = f"; gains {limit.own:.2g} on the model, {limit.mean:.2g} on networks drawn anew, limit "
            checked += f"{limit.limit:.2g} (mean + {DEVIATIONS:g} sd of {limit.n_copies})"
            untold = not (limit.exceeded or limit.decides)
            checked += f", not held against it: {limit.why_waived}" if untold else ""
        found.append(
            Measurement(
                metric="parameter_randomisation_overlap",
                method=chosen,
                estimate=maps.overlap,
                n_samples=len(verdict.problem),
                ideal=0.0,
                detail=f"layer by layer from the output: {stages}; interval over {maps.over}; {MOST_OVERLAP:g} is "
                f"allowed{checked}",
            )
        )
    if verdict.relabelled is not None:
        found.append(_relabelled(verdict, verdict.relabelled))
    if verdict.agreement is not None:
        detail = "rank correlation over units, averaged over samples"
        if verdict.agreement.bounds(TAIL)[1] < LEAST_AGREEMENT:
            detail = (
                f"DISAGREEMENT of two families (shown to be below {LEAST_AGREEMENT:g}): the model is not explained "
                f"unit by unit, or one of them is deceived; {detail}"
            )
        found.append(
            Measurement(
                metric="method_agreement",
                method=chosen,
                estimate=verdict.agreement,
                n_samples=len(verdict.problem),
                ideal=1.0,
                at={"against": verdict.against},
                detail=detail,
            )
        )
    return found


def _on_real_rows(real: RealRows | str | None) -> str:
    if real is None or (isinstance(real, RealRows) and real.is_hidden):
        return ""
    return f". What decides real rows: {f'not known, {real}' if isinstance(real, str) else real.describe()}"


def _headline(verdict: Verdict) -> str:
    """What became of the explanation, and what was not checked or not held against it, in one sentence."""
    if verdict.standing == "refused":
        return f"REFUSED: {'; '.join(verdict.reasons)}"
    words = EARNED
    if verdict.standing == "forced":
        words = f"{UNEARNED}, shown because it was asked for: {'; '.join(verdict.reasons)}"
    if not verdict.reservations:
        return words
    return f"{words}{';' if verdict.reasons else ''} {RESERVED}: {'; '.join(verdict.reservations)}"


def _relabelled(verdict: Verdict, taught: Relabelled | str) -> Measurement:
    estimate: AnyEstimate
    if isinstance(taught, str):
        estimate, detail = Undefined(reason=taught), ""
    else:
        estimate, own = taught.overlap, taught.taught
        detail = (
            f"over samples, averaged over {len(own.networks)} networks that learned shuffled labels, out of "
            f"{own.n_trained} trained: {own.how}; they fit {own.fitted:.1%} of these, and {own.majority:.1%} are of "
            f"one class; {MOST_OVERLAP:g} is allowed"
        )
    return Measurement(
        metric="label_randomisation_overlap",
        method=verdict.chosen,
        estimate=estimate,
        n_samples=len(verdict.problem),
        ideal=0.0,
        detail=detail,
    )


def _plain(metric: str, verdict: Verdict, estimate: AnyEstimate) -> Measurement:
    return Measurement(metric=metric, method=verdict.chosen, estimate=estimate, n_samples=len(verdict.problem))


def _raw(verdict: Verdict) -> list[Measurement]:
    """The same grades in probability, as others publish them."""
    own = verdict.erasure
    return [
        replace(_plain(metric, verdict, mean_of(values, low, 1.0, ONE_UNIT)), detail=f"{own.of}; {over}")
        for metric, values, low, over in (
            ("raw_comprehensiveness", own.comprehensiveness, -1.0, own.over),
            ("raw_sufficiency", own.sufficiency, -1.0, own.over),
            ("raw_deletion_auc", own.deletion_auc, 0.0, own.along),
        )
    ]


def _of_captum(verdict: Verdict) -> list[Measurement]:
    """Medians over samples, whose bounds hold whatever the distribution; both numbers have long tails."""
    chance = verdict.infidelity_of_random[np.isfinite(verdict.infidelity_of_random)]
    beside = f"; a random attribution has {np.median(chance):.2g}" if chance.size else ""
    found = [("infidelity", verdict.infidelity, f"median over samples, in squared spans{beside}", NO_SPAN)]
    if verdict.sensitivity is not None:
        found.append(
            (
                "sensitivity_max",
                verdict.sensitivity.values,
                f"median over samples; {verdict.sensitivity.noise}",
                _NOTHING_SAID,
            )
        )
    out = []
    for metric, values, detail, why_none in found:
        out.append(
            Measurement(
                metric=metric,
                method=verdict.chosen,
                estimate=_median(values, why_none),
                n_samples=len(values),
                ideal=0.0,
                detail=detail,
            )
        )
    return out


def completeness(explained: Attributions, n_rows: int) -> Measurement:
    """The 95 % quantile of the completeness error, with the limits of few rows."""
    errors = explained.errors
    estimate: AnyEstimate
    too_few, needed = "", None
    if not explained.output_range:
        estimate = Undefined(
            reason="the explained score is the same for every sampled row and for the baseline, so it has no range"
        )
    elif not np.isfinite(errors).all():
        broken = int((~np.isfinite(errors)).sum())
        estimate = Undefined(reason=f"the attributions of {broken:,} of {len(errors):,} sampled rows are not finite")
    else:
        estimate = quantile(errors, LEVEL)
        needed = FEWEST_ROWS if len(errors) < FEWEST_ROWS else None
        # Few rows can show that an explanation is broken, which must not be hushed up, but not that it is sound.
        if needed is not None and estimate.bounds(TAIL)[0] <= MOST_INCOMPLETE:
            cause = f"the data have {n_rows:,}" if n_rows < FEWEST_ROWS else f"n_samples is {len(errors):,}"
            too_few = f"A {LEVEL:.0%} quantile has an upper bound from {FEWEST_ROWS} rows on, and {cause}."
    span = f"; the scores span {explained.output_range:.3g}" if explained.output_range else ""
    return Measurement(
        metric="completeness_error",
        method=explained.method,
        estimate=estimate,
        n_samples=len(errors),
        ideal=0.0,
        detail=explained.detail + span,
        too_few=too_few,
        n_needed=needed,
    )


def grade_table(verdict: Verdict) -> GradeTable:
    """Every tested or skipped method with its grades, beside random and occlusion as baselines."""
    sanity = _sanity_grades(verdict)
    columns = ("gain on the ranking half", "gain on the confirming half", *(m for m, *_ in _GRADES), *sanity)
    blank = Grade()
    reserved = f"{RESERVED}: {'; '.join(verdict.reservations)}" if verdict.reservations else ""
    methods = []
    order = sorted(verdict.ranked, key=lambda m: (m != verdict.chosen, -_sortable(verdict.ranked[m])))
    for method in order:
        own = method == verdict.chosen
        numbers = [_grade(verdict.ranked[method])]
        if own:
            numbers += [_grade(verdict.gain), *_table_grades(verdict.grades[method]), *sanity.values()]
        earned = "beats a random attribution with its whole interval"
        why = "; ".join(p for p in (earned if verdict.standing == "shown" else "", *verdict.reasons, reserved) if p)
        behind = verdict.incomplete.get(method, "ranked behind the chosen one, or not told apart from it")
        standing = "reserved" if verdict.standing == "shown" and reserved else verdict.standing
        methods.append(
            GradedMethod(
                method=method,
                standing=standing if own else "ranked",
                reason=_shorten(why if own else behind),
                grades=(*numbers, *[blank] * (len(columns) - len(numbers))),
            )
        )
    for method in (RANDOM, OCCLUSION):
        if method in verdict.grades and method not in verdict.ranked:
            numbers = [blank, blank, *_table_grades(verdict.grades[method]), *[blank] * len(sanity)]
            methods.append(
                GradedMethod(method=method, standing="compared", reason="graded to compare with", grades=tuple(numbers))
            )
    for method, reason in verdict.left_out.items():
        methods.append(
            GradedMethod(
                method=method, standing="not_applicable", reason=_shorten(reason), grades=tuple([blank] * len(columns))
            )
        )
    return GradeTable(
        grades=columns,
        better=("higher", "higher", *(better for _, better, *_ in _GRADES), *["lower"] * len(sanity)),  # type: ignore[arg-type]
        methods=tuple(methods[:MOST_METHODS]),
    )


def _sanity_grades(verdict: Verdict) -> dict[str, Grade]:
    """What the chosen explanation alone is asked: does it change with the network, and not with the input?"""
    found = {}
    if verdict.randomisation is not None:
        found["parameter_randomisation_overlap"] = _grade(verdict.randomisation.overlap)
    if isinstance(verdict.relabelled, Relabelled):
        found["label_randomisation_overlap"] = _grade(verdict.relabelled.overlap)
    if verdict.sensitivity is not None:
        found["sensitivity_max"] = _grade(_median(verdict.sensitivity.values, _NOTHING_SAID))
    return found


def _median(values: FloatArray, why_none: str) -> AnyEstimate:
    kept = values[np.isfinite(values)]
    return quantile(kept, 0.5) if kept.size else Undefined(reason=why_none)


def _shorten(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"


def _sortable(estimate: AnyEstimate) -> float:
    return estimate.value if np.isfinite(estimate.value) else -np.inf


def _table_grades(grades: Grades) -> list[Grade]:
    return [_grade(mean_of(getattr(grades, metric), low, high, grades.why_none)) for metric, _, low, high in _GRADES]


def _grade(estimate: AnyEstimate) -> Grade:
    if isinstance(estimate, Undefined):
        return Grade(words="undefined")
    low, high = (b if np.isfinite(b) else None for b in estimate.bounds(_DISPLAY))
    return Grade(value=estimate.value, low=low, high=high)
