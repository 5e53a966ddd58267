"""``auditor dp-audit``: training with canaries, as an empirical test of a claimed epsilon."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import AuditorError, UsageError, first_line
from cli.flags import BundleTo, JsonAlone, SignWith, TimestampBy, Tracebacks
from cli.sign_derived import sealed
from cli.terminal import paragraph

if TYPE_CHECKING:
    from auditor.privacy.accounting import Phase
    from auditor.privacy.canaries import AuditPlan
    from auditor.privacy.dp_audit_scores import AuditResult, CanaryScores
    from auditor.privacy.gaussian_audit import IfGaussian
    from auditor.privacy.released_noise import NoiseAudit
    from auditor.privacy.sensitivity import Sensitivity


def dp_audit(
    train: Annotated[
        str, typer.Argument(help="Your training function: package.module:function. It runs with your rights.")
    ],
    claimed_epsilon: Annotated[float, typer.Option(help="Claimed epsilon.")],
    delta: Annotated[float, typer.Option(help="Delta of the claim.")],
    canaries: Annotated[int, typer.Option(help="Number of canaries per run.")] = 1000,
    runs: Annotated[int, typer.Option(help="Number of trainings; their canaries are pooled.")] = 1,
    multi_run: Annotated[
        bool, typer.Option("--multi-run", help="One canary in each run, by Clopper and Pearson.")
    ] = False,
    guesses: Annotated[
        str | None,
        typer.Option(help="Numbers of guesses, fixed beforehand: 100,200; by default a tenth, a fifth and all."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the lower bound.")] = 0.95,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="NOISE,SAMPLE_RATE,STEPS of the claim; from the attached accountant by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the canaries' coin flips and positions.")] = 0,
    bundle: BundleTo = None,
    sign: SignWith = None,
    timestamp: TimestampBy = None,
    json_: JsonAlone = False,
    debug: Tracebacks = False,
) -> int:
    """Empirically test a claimed epsilon by training with canaries.

    Your function is called with an audit, attaches canaries to its optimizer and trains. It runs in this process, with
    your rights. Exit codes: 0 consistent, 1 contradicted, 2 wrong usage, 3 too few canaries, power below
    80 % to detect half the noise, or an accounted epsilon above the claimed one.
    """
    from auditor.evidence.dp_audit_evidence import EXIT_CODES, Claim, audit_content, dp_audit_evidence, held_against
    from auditor.loading.user_code import import_object

    if canaries < 1 or runs < 1:
        raise UsageError("--canaries and --runs must be at least 1.")
    if multi_run and (guesses or runs < 8):
        raise UsageError("--multi-run takes one canary from each of at least 8 --runs, and no --guesses.")
    numbers, evidence = _numbers(guesses), sealed(bundle, sign, timestamp)
    each = 1 if multi_run else canaries
    seen, counted = _run_trainings(import_object(train, str(Path.cwd()), "TRAIN"), each, runs, phase, seed)
    claim = Claim(
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        confidence=confidence,
        guesses=numbers,
        accounting=counted,
        one_each=multi_run,
        seed=seed,
    )
    result, gaussian = held_against(seen, claim)
    if evidence is not None:
        asked = {"train": train, "canaries": each, "runs": runs, "phase": phase}
        evidence.write(dp_audit_evidence(result, gaussian, seen, claim, asked), own_code=[train])
    if json_:
        typer.echo(json.dumps(audit_content(result, gaussian), indent=2))
    else:
        _print(result, gaussian)
        if evidence is not None:
            typer.echo(f"evidence    {evidence.bundle}")
    if evidence is not None:
        evidence.raise_if_undated()
    return EXIT_CODES[result.verdict]


def _run_trainings(
    function: Any, canaries: int, runs: int, phases: list[str] | None, seed: int
) -> tuple[CanaryScores, tuple[Phase, ...] | None]:
    """The canaries of all runs together, and what the claim rests on."""
    import numpy as np

    from auditor.privacy.canaries import AuditPlan
    from auditor.privacy.dp_audit_scores import pooled
    from cli.dp_budget import parse_phase

    told = [parse_phase(text) for text in phases] if phases else None
    seen, attached = [], set()
    for child in np.random.default_rng(seed).spawn(runs):
        plan = AuditPlan(canaries, child)
        _train(function, plan)
        scores, accounted = plan.outcome()
        seen.append(scores)
        attached.add(accounted or None)
    if told is None and len(attached) > 1:
        raise UsageError(
            "The runs were not accounted alike, so no one claim covers them: train with the same noise, sample rate "
            "and steps each time, or name what the claim rests on with --phase."
        )
    counted = told or attached.pop()
    return pooled(seen), None if counted is None else tuple(counted)


def _train(function: Any, plan: AuditPlan) -> None:
    try:
        function(plan)
    except AuditorError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise or exit in any way
        raise UsageError(f"The training function raised {type(error).__name__}: {first_line(error)}.") from error


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--guesses {text!r} must be whole numbers, such as 100,200.") from None


def _print(result: AuditResult, gaussian: IfGaussian | None) -> None:
    from auditor.privacy.dp_audit_scores import FLIPPED, WEAK

    typer.echo(
        f"canaries    {result.n_canaries:,} {result.kind}, {result.n_included:,} of them in, each by a fair coin"
    )
    for guess in result.guesses:
        low, high = guess.accuracy_interval
        said = (
            ""
            if guess.refutes_accounting is None
            else f", accounting {'REFUTED' if guess.refutes_accounting else 'not refuted'}"
        )
        typer.echo(
            f"guesses     {guess.n_correct:,} of {guess.n_guesses:,} right [{low:.3f}, {high:.3f}]: epsilon above "
            f"{max(guess.lower_bound, guess.f_dp_lower_bound):.3g}{said}"
        )
    typer.echo(
        f"epsilon     claimed {result.claimed_epsilon:g}, shown to be above {result.lower_bound:.3g} at delta "
        f"{result.delta:g} ({100 * result.confidence:g} % confidence); at most {result.largest_provable:.3g} could "
        "have been shown"
    )
    if gaussian is not None:
        typer.echo(
            f"gaussian    if the mechanism is Gaussian, epsilon is above {gaussian.epsilon:.3g} at delta "
            f"{result.delta:g}: by the canaries' scores {gaussian.from_scores:.3g}, by the guesses "
            f"{gaussian.from_guesses:.3g} (mu above {gaussian.mu:.2g}); shown, not judged"
        )
    if result.noise is not None:
        typer.echo(f"noise       {_noise(result.noise)}")
    if result.sensitivity is not None:
        typer.echo(f"step        {_sensitivity_text(result.sensitivity)}")
    if result.accounted_epsilon is not None:
        typer.echo(
            f"accounting  epsilon at most {result.accounted_epsilon:.3g} at delta {result.delta:g}, the smallest bound "
            "of the RDP and PRV accountants"
        )
    if result.power:
        typer.echo(
            "power       chance of a contradiction: "
            + ", ".join(f"{chance:.0%} {_factor(factor)}" for factor, chance in result.power)
        )
    else:
        typer.echo(f"power       not known: {result.power_unknown}")
    typer.echo(f"verdict     {result.verdict.replace('_', ' ').upper()}")
    typer.echo(paragraph(result.reason[0].upper() + result.reason[1:], 12))
    if result.kind.startswith(FLIPPED):
        typer.echo(paragraph(WEAK, 12))


def _noise(noise: NoiseAudit) -> str:
    if noise.why_not:
        return f"not tested: {noise.why_not}"
    found = "; ".join(noise.refuted)
    return (
        f"{math.sqrt(noise.ratio):.4g} times the stated, of {noise.degrees:,} numbers; "
        f"{'REFUTED: ' + found if found else 'nothing refutes that it is the stated one'} "
        f"({len(noise.tests)} tests, {100 * (1 - noise.alpha):g} % confidence)"
    )


def _sensitivity_text(sensitivity: Sensitivity) -> str:
    if sensitivity.why_not:
        return f"how far one {sensitivity.unit} moves it was not measured: {sensitivity.why_not}"
    seen = "left out" if sensitivity.unit == "row" else "updates seen"
    return (
        f"one {sensitivity.unit} moves the released sum by at most {sensitivity.largest:.4g} clipping norms, of "
        f"{sensitivity.n_rows:,} {seen}; private is at most 1{': EXCEEDED' if sensitivity.exceeds else ''}"
    )


def _factor(factor: float) -> str:
    return "with the noise off" if factor == 0.0 else f"with {factor:g} of the noise"
