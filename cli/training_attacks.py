"""``auditor dp audit|inversion``: attacks on a training, as empirical tests of its privacy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import AuditorError, UsageError, first_line
from cli.flags import BundleTo, JsonAlone, SignWith, TimestampBy, Tracebacks
from cli.signed_outputs import sealed
from cli.terminal import paragraph

if TYPE_CHECKING:
    from auditor.privacy.accounting import Phase
    from auditor.privacy.canaries import AuditPlan
    from auditor.privacy.dp_audit_scores import AuditResult, CanaryScores
    from auditor.privacy.federated.inversion_audit import Attempt, ClientTask, InversionAudit
    from auditor.privacy.gaussian_audit import IfGaussian
    from auditor.privacy.released_noise import NoiseAudit, Sensitivity


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
        _print_dp_audit(result, gaussian)
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
    from cli.dp_guarantee import parse_phase

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


def _print_dp_audit(result: AuditResult, gaussian: IfGaussian | None) -> None:
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
    if result.problems or result.not_linted:
        typer.echo(f"linter      {', '.join(result.problems) or 'no problem in what the audit saw of the run'}")
        typer.echo(paragraph(f"not checked: {', '.join(result.not_linted)}", 12))
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


_EXIT = {"stopped": 0, "gives_away": 1, "cannot_tell": 3}


def gradient_inversion(
    task: Annotated[str, typer.Argument(help="Your function: package.module:function. It runs with your rights.")],
    clip: Annotated[float | None, typer.Option(help="Clipping norm of an update, before it is sent.")] = None,
    noise: Annotated[float, typer.Option(help="Noise added by a client, in clipping norms.")] = 0.0,
    local_steps: Annotated[int, typer.Option(help="Local SGD steps of a client.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of a client.")] = 0.1,
    batch: Annotated[int, typer.Option(help="Number of images per client.")] = 1,
    updates: Annotated[int, typer.Option(help="Number of updates to attack.")] = 5,
    others: Annotated[
        int, typer.Option(help="Number of images with the same label to rank a client's image among.")
    ] = 99,
    steps: Annotated[int, typer.Option(help="Gradient descent steps of the attack.")] = 200,
    restarts: Annotated[int, typer.Option(help="Number of random initial images.")] = 1,
    alpha: Annotated[
        float, typer.Option(help="False positive rate: how often harmless updates may be reported as leaking.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of the random draws and of the noise.")] = 0,
    json_: JsonAlone = False,
    debug: Tracebacks = False,
) -> int:
    """Test whether client updates leak training images, by reconstructing images from single updates.

    Your function returns a ClientTask: a network, images and labels, and optionally the update that a client sends.
    It runs in this process, with your rights. Exit codes: 0 the attack reconstructs images from plain updates but not
    from those sent, 1 updates leak their images, 2 wrong usage, 3 the attack fails on plain updates too, 4 too few
    images.
    """
    import numpy as np

    from auditor.loading.user_code import import_object
    from auditor.privacy.federated.inversion_audit import ClientStep, Defence, Effort, audit_updates

    step = ClientStep(local_steps=local_steps, learning_rate=learning_rate)
    defence = Defence(clipping_norm=clip, noise_multiplier=noise)
    effort = Effort(steps=steps, restarts=restarts)
    result = audit_updates(
        _task(import_object(task, str(Path.cwd()), "TASK")),
        rng=np.random.default_rng(seed),
        step=step,
        defence=defence,
        effort=effort,
        updates=updates,
        batch=batch,
        others=others,
        alpha=alpha,
    )
    if json_:
        typer.echo(json.dumps(_inversion_as_json(result), indent=2))
    else:
        _print_inversion(result)
    return _EXIT[result.verdict]


def _task(function: Any) -> ClientTask:
    from auditor.privacy.federated.inversion_audit import ClientTask

    try:
        found = function()
    except AuditorError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise or exit in any way
        raise UsageError(f"The function raised {type(error).__name__}: {first_line(error)}.") from error
    if not isinstance(found, ClientTask):
        raise UsageError(
            f"The function returned {type(found).__name__}: return a ClientTask of "
            "auditor.privacy.federated.inversion_audit."
        )
    return found


def _print_inversion(result: InversionAudit) -> None:
    typer.echo(f"sent        {_ranks(result.attempts, result)}")
    if result.plain is not None:
        typer.echo(f"plain       {_ranks(result.plain, result)}")
    typer.echo(f"verdict     {result.verdict.replace('_', ' ').upper()}")
    typer.echo(paragraph(result.reason[0].upper() + result.reason[1:], 12))


def _ranks(attempts: tuple[Attempt, ...], result: InversionAudit) -> str:
    each = ", ".join(f"{one.rank + 1} ({one.similarity:.2f} by {one.method})" for one in attempts)
    return f"place of the client's image among {result.others + 1} by likeness, of each update: {each}"


def _inversion_as_json(result: InversionAudit) -> dict[str, object]:
    plain = None if result.plain is None else [dict(vars(one)) for one in result.plain]
    return dict(vars(result)) | {"attempts": [dict(vars(one)) for one in result.attempts], "plain": plain}
