"""The verdict of a canary audit, from what its canaries showed and what the linter finds in the same runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from auditor.privacy.accounting import Phase
from auditor.privacy.dp_linter import SAME, lint
from auditor.privacy.released_noise import NoiseAudit, Sensitivity, Unit
from auditor.privacy.run_record import RecordedPhase, RunRecord

Verdict = Literal["consistent", "contradicted", "not_supported", "cannot_tell"]
# What a claim must have been able to fail on before nothing is called consistent with it.
LEAST_POWER = 0.8
_DRAWS = "sampler_not_poisson"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a verdict rests on; ``unsupported`` and ``power_unknown`` are reasons, or "".

    ``changed``: steps whose gradient was changed after the noise. ``uncounted``: steps taken beyond those counted.
    ``problems``: the linter's, in sentences; ``not_linted``: its checks without a result, None where it was not run.
    ``thinned``: why the canaries were drawn too seldom, or "".
    ``half``: the power at half the noise, None where it is not known.
    """

    claimed: float
    delta: float
    confidence: float
    lower: float
    most: float
    refuted: bool | None
    unsupported: str
    n_canaries: int
    noise: NoiseAudit | None
    changed: int
    sensitivity: Sensitivity | None
    unclipped: int
    clipping_seen: tuple[int, int]
    uncounted: int
    problems: tuple[str, ...]
    not_linted: tuple[str, ...] | None
    thinned: str
    unit: Unit
    half: float | None
    power_unknown: str


def verdict_on(evidence: Evidence) -> tuple[Verdict, str]:
    """The verdict and its reason, a sentence."""
    sure = f"at {100.0 * evidence.confidence:g} % confidence"
    if evidence.lower > evidence.claimed:
        return "contradicted", (
            f"epsilon is above {evidence.lower:.3g} at delta {evidence.delta:g} {sure}: the claim of "
            f"{evidence.claimed:g} is false."
        )
    if evidence.refuted:
        return "contradicted", (
            f"the run leaks more than its noise, sample rate and steps allow, {sure}: what the accountant counted is "
            "not what was done."
        )
    if evidence.noise is not None and evidence.noise.refuted:
        return "contradicted", (
            f"the noise that was released is not the stated noise, {sure}, whatever epsilon is: it is "
            f"{' and '.join(evidence.noise.refuted)}."
        )
    if evidence.sensitivity is not None and evidence.sensitivity.exceeds:
        return "contradicted", (
            f"one {evidence.unit} moves the released sum by {evidence.sensitivity.largest:.3g} clipping norms, and the "
            f"accounting counts on at most 1: {_WHY_MOVED[evidence.unit]}."
        )
    if evidence.unclipped:
        return "contradicted", (
            f"at {evidence.unclipped:,} steps the sum was not that of gradients clipped row by row, on which the "
            "accounting counts."
        )
    if evidence.uncounted:
        return "contradicted", f"{evidence.uncounted:,} steps were taken that the accounting does not count."
    if evidence.problems:
        return "contradicted", f"the linter finds in the same run: {' '.join(evidence.problems)}"
    if evidence.unsupported:
        return "not_supported", f"the canaries do not contradict the claim, but {evidence.unsupported}"
    if evidence.most <= evidence.claimed:
        return "cannot_tell", (
            f"{evidence.n_canaries:,} canaries could at best have shown epsilon {evidence.most:.3g}, not above the "
            f"claim of "
            f"{evidence.claimed:g}: use more canaries or more runs."
        )
    if evidence.thinned:
        return "cannot_tell", f"nothing contradicts the claim, but {evidence.thinned}"
    shown = f"epsilon is shown to be above {evidence.lower:.3g}, and at most {evidence.most:.3g} could have been shown"
    if evidence.changed:
        return "cannot_tell", (
            f"nothing contradicts the claim, but at {evidence.changed:,} steps the gradient was changed after its "
            f"noise "
            "was added, so that what was released is not what was tested: leave it as the private optimizer made it."
        )
    if evidence.half is None:
        return "cannot_tell", (
            f"nothing contradicts the claim: {shown}. But how likely a false one would have been noticed is not known: "
            f"{evidence.power_unknown}."
        )
    found = f"half the noise would have been found {evidence.half:.0%} of the time"
    if evidence.half < LEAST_POWER:
        return "cannot_tell", (
            f"nothing contradicts the claim: {shown}. But {found}, which is under {LEAST_POWER:.0%}: use more canaries "
            "or more runs."
        )
    unseen = "" if evidence.sensitivity and not evidence.sensitivity.why_not else _NOT_MEASURED[evidence.unit]
    clipped, steps = evidence.clipping_seen
    if steps and clipped < steps and evidence.unit == "row":
        unseen += f" How rows are clipped was seen at {clipped:,} of {steps:,} steps."
    linted = evidence.not_linted is not None and _DRAWS not in evidence.not_linted
    unseen += " What moves weights outside the optimizer is for LoopWatch." if linted else _FOR_LINTER[evidence.unit]
    return "consistent", f"nothing contradicts the claim: {shown}. This is no proof of the claim; {found}.{unseen}"


_WHY_MOVED: dict[Unit, str] = {
    "row": "gradients are not clipped row by row, or their divisor depends on the rows",
    "client": "updates are not clipped client by client, or are weighted by what depends on the data",
}
_NOT_MEASURED: dict[Unit, str] = {
    "row": " How far one row moves a step was not measured: attach with a ReferenceGradient, which brings rows to "
    "leave out.",
    "client": " How far one client moves a round was not seen: hand over what the clients of a round send.",
}
_FOR_LINTER: dict[Unit, str] = {
    "row": " How rows are drawn, and what moves weights outside the optimizer, is for the linter and LoopWatch.",
    "client": " How clients are drawn, and who sees their updates, is for the linter.",
}


def lint_runs(
    runs: Sequence[RunRecord], accounting: Sequence[Phase] | None, delta: float
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What the linter finds that breaks the guarantee, by code, and its checks without a result."""
    linted = [lint(_with_claim(run, accounting, delta)) for run in runs]
    problems = {
        problem.code: f"{problem.what} {problem.mend}"
        for found in linted
        for problem in found.problems
        if problem.severity == "breaks"
    }
    # The claimed epsilon is held against the accounting by the audit itself.
    unseen = dict.fromkeys(
        name
        for found in linted
        for name, _ in (*found.not_recorded, *found.cannot_tell)
        if name != "claim_below_accounting"
    )
    return problems, tuple(unseen)


def _with_claim(run: RunRecord, accounting: Sequence[Phase] | None, delta: float) -> RunRecord:
    """The run with the accounting that is audited; the claimed epsilon is compared with it elsewhere."""
    phases = tuple(RecordedPhase(**vars(phase)) for phase in accounting or ())
    rate, most = run.sample_rate, max((phase.sample_rate for phase in phases), default=1.0)
    # Without a loader the rate is somebody's word, and may be the batch size over the rows.
    if rate is not None and run.n_rows is None and rate / (1.0 + rate) * (1.0 - SAME) <= most:
        rate = min(rate, most)
    return run.model_copy(update={"phases": phases or None, "delta": delta, "sample_rate": rate})


def thinned(sample_rate: float | None, accounting: Sequence[Phase] | None) -> str:
    """Why the canaries were drawn more seldom than the accounting says of rows, to follow a comma; "" if they were not.

    A last batch that is not full makes a rate lower by up to one batch in an epoch.
    """
    if not accounting or sample_rate is None:
        return ""
    counted, drawn = min(phase.sample_rate for phase in accounting), sample_rate
    if drawn * (1.0 + SAME) >= counted / (1.0 + counted):
        return ""
    return (
        f"the canaries were drawn at a rate of {drawn:.3g}, and the accounting says {counted:.3g} of the rows: give "
        "attach the rate of the loader."
    )
