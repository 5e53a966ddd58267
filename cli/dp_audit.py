"""``auditor dp-audit``: trains with canaries, and holds a claimed epsilon against what they give away."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.errors import AuditorError, UsageError, first_line
from cli.output import paragraph

if TYPE_CHECKING:
    from auditor.privacy.canaries import AuditPlan
    from auditor.privacy.dp_audit import AuditResult
    from auditor.privacy.gaussian_audit import IfGaussian
    from auditor.privacy.released_noise import NoiseAudit
    from auditor.privacy.sensitivity import Sensitivity

_EXIT = {"consistent": 0, "contradicted": 1, "not_supported": 3, "cannot_tell": 3}


def dp_audit(
    train: Annotated[str, typer.Argument(help="Your training function: package.module:function. It runs as you.")],
    claimed_epsilon: Annotated[float, typer.Option(help="The epsilon that is claimed.")],
    delta: Annotated[float, typer.Option(help="Its delta.")],
    canaries: Annotated[int, typer.Option(help="Canaries in each run.")] = 1000,
    runs: Annotated[int, typer.Option(help="Trainings; their canaries are pooled.")] = 1,
    multi_run: Annotated[
        bool, typer.Option("--multi-run", help="One canary in each run, by Clopper and Pearson.")
    ] = False,
    guesses: Annotated[
        str | None, typer.Option(help="Numbers of guesses, fixed beforehand: 100,200. A tenth, a fifth and all.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the lower bound.")] = 0.95,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="NOISE,SAMPLE_RATE,STEPS behind the claim; the attached accountant's by default."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the coins and of the canaries' places.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Train with canaries in the run and say whether they contradict the claimed epsilon.

    Your function is called with an audit, attaches canaries to its optimizer and trains. It runs in this process, with
    your rights. Exit codes: 0 consistent, 1 contradicted, 2 wrong usage, 3 so many canaries could not tell, half the
    noise would have been found less than 80 times in 100, or the accounting gives a larger epsilon than is claimed.
    """
    from auditor.intake.user_code import import_object

    if canaries < 1 or runs < 1:
        raise UsageError("--canaries and --runs must be at least 1.")
    if multi_run and (guesses or runs < 8):
        raise UsageError("--multi-run takes one canary from each of at least 8 --runs, and no --guesses.")
    numbers = _numbers(guesses)
    result, gaussian = _audit(
        import_object(train, str(Path.cwd()), "TRAIN"),
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        canaries=1 if multi_run else canaries,
        runs=runs,
        multi_run=multi_run,
        guesses=numbers,
        confidence=confidence,
        phases=phase,
        seed=seed,
    )
    if json_:
        typer.echo(json.dumps(_as_json(result, gaussian), indent=2))
    else:
        _print(result, gaussian)
    return _EXIT[result.verdict]


def _audit(
    function: Any,
    *,
    claimed_epsilon: float,
    delta: float,
    canaries: int,
    runs: int,
    multi_run: bool,
    guesses: tuple[int, ...] | None,
    confidence: float,
    phases: list[str] | None,
    seed: int,
) -> tuple[AuditResult, IfGaussian | None]:
    import numpy as np

    from auditor.privacy.canaries import AuditPlan
    from auditor.privacy.dp_audit import audit_claim, pooled
    from auditor.privacy.dp_audit import multi_run as by_clopper_pearson
    from auditor.privacy.gaussian_audit import if_gaussian
    from cli.dp_budget import parse_phase

    told = [parse_phase(text) for text in phases] if phases else None
    rng = np.random.default_rng(seed)
    seen, attached = [], set()
    for child in rng.spawn(runs):
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
    together = pooled(seen)
    if multi_run:
        return by_clopper_pearson(
            together, claimed_epsilon=claimed_epsilon, delta=delta, confidence=confidence, accounting=counted
        ), None
    result = audit_claim(
        together,
        claimed_epsilon=claimed_epsilon,
        delta=delta,
        rng=rng,
        confidence=confidence,
        guesses=guesses,
        accounting=counted,
    )
    return result, if_gaussian(together, delta=delta, rng=rng, alpha=1.0 - confidence)


def _train(function: Any, plan: AuditPlan) -> None:
    try:
        function(plan)
    except AuditorError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything, and leave by any door
        raise UsageError(f"The training function raised {type(error).__name__}: {first_line(error)}.") from error


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--guesses {text!r} must be whole numbers, such as 100,200.") from None


def _print(result: AuditResult, gaussian: IfGaussian | None) -> None:
    from auditor.privacy.dp_audit import FLIPPED, WEAK

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
        typer.echo(f"step        {_moved(result.sensitivity)}")
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


def _moved(sensitivity: Sensitivity) -> str:
    if sensitivity.why_not:
        return f"how far one {sensitivity.unit} moves it was not measured: {sensitivity.why_not}"
    seen = "left out" if sensitivity.unit == "row" else "updates seen"
    return (
        f"one {sensitivity.unit} moves the released sum by at most {sensitivity.largest:.4g} clipping norms, of "
        f"{sensitivity.n_rows:,} {seen}; private is at most 1{': EXCEEDED' if sensitivity.exceeds else ''}"
    )


def _factor(factor: float) -> str:
    return "with the noise off" if factor == 0.0 else f"with {factor:g} of the noise"


def _as_json(result: AuditResult, gaussian: IfGaussian | None) -> dict[str, Any]:
    guesses = [dict(vars(guess)) | {"accuracy_interval": list(guess.accuracy_interval)} for guess in result.guesses]
    power = [{"noise_factor": factor, "chance": chance} for factor, chance in result.power]
    plain = {k: v for k, v in vars(result).items() if k not in ("guesses", "power", "noise", "sensitivity")}
    # JSON has no infinity, which is what an accountant says of a run without noise.
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}
    noise = None
    if result.noise is not None:
        tests = [dict(vars(test)) for test in result.noise.tests]
        ratio = result.noise.ratio if math.isfinite(result.noise.ratio) else None
        noise = dict(vars(result.noise)) | {"ratio": ratio, "tests": tests, "refuted": list(result.noise.refuted)}
    moved = None
    if result.sensitivity is not None:
        largest = result.sensitivity.largest
        moved = dict(vars(result.sensitivity)) | {"largest": largest if math.isfinite(largest) else None}
        moved |= {"exceeds": result.sensitivity.exceeds}
    normal = None if gaussian is None else dict(vars(gaussian)) | {"epsilon": gaussian.epsilon}
    return plain | {"guesses": guesses, "power": power, "noise": noise, "sensitivity": moved, "gaussian": normal}
