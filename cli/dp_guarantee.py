"""``auditor dp budget|lint``: a training's privacy cost, and errors that break its guarantee."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.core.errors import UsageError
from cli.flags import JsonAlone, Tracebacks, Writes
from cli.terminal import paragraph

if TYPE_CHECKING:
    from auditor.privacy.accounting import Accountant, Phase, Spent
    from auditor.privacy.dp_linter import LintResult
    from auditor.privacy.federated.federated_record import FederatedRun
    from auditor.privacy.run_record import RunRecord
    from auditor.report.record.energy import EnergyRecord


def dp_budget(
    rows: Annotated[int | None, typer.Option(help="Number of training rows.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Expected batch size.")] = None,
    sample_rate: Annotated[
        float | None, typer.Option(help="Sampling rate per step, instead of --rows and --batch-size.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Number of epochs.")] = None,
    steps: Annotated[int | None, typer.Option(help="Number of steps, instead of --epochs.")] = None,
    noise: Annotated[float | None, typer.Option(help="Noise multiplier, to compute the spent epsilon.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Target epsilon, to compute the required noise.")] = None,
    delta: Annotated[float | None, typer.Option(help="Delta, below 1/rows; rows^-1.1 by default.")] = None,
    phase: Annotated[
        list[str] | None, typer.Option(help="NOISE,SAMPLE_RATE,STEPS of one phase; repeat for a run of several.")
    ] = None,
    accountant: Annotated[
        str | None,
        typer.Option(
            help="Accountant that chooses the noise: pld, prv or rdp; pld by default, prv without dp-accounting."
        ),
    ] = None,
    json_: JsonAlone = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw epsilon over the epochs: FILE.svg or FILE.png."), Writes()
    ] = None,
    debug: Tracebacks = False,
) -> None:
    """Epsilon of a private training by four accountants, or the noise that a target epsilon needs.

    PLD, PRV and RDP are upper bounds, the smallest is valid; GDP is an approximation that can be below the truth.
    """
    from auditor.privacy.accounting import default_delta

    if plot is not None and plot.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"--plot {plot.name!r} must end in .svg or .png.")
    if delta is None:
        if rows is None:
            raise UsageError("Say --delta D, or --rows N for its default N^-1.1.")
        delta = default_delta(rows) if rows > 1 else 0.5
    if rows is not None and delta >= 1.0 / rows:
        raise UsageError(f"--delta must lie below 1/{rows:,}, one over the rows, not {delta:g}.")
    given = {
        "--rows": rows, "--batch-size": batch_size, "--sample-rate": sample_rate, "--epochs": epochs, "--steps": steps,
        "--noise": noise, "--epsilon": epsilon,
    }  # fmt: skip
    chosen = _accountant(accountant)
    phases = _phases(phase, given, delta, chosen)
    _print_budget(phases, delta, target=epsilon, accountant=chosen, as_json=json_)
    if plot is not None:
        _draw(phases, delta, plot)
        if not json_:
            typer.echo(f"wrote {plot}")


def _phases(texts: list[str] | None, flag_values: dict[str, Any], delta: float, accountant: Accountant) -> list[Phase]:
    from auditor.privacy.accounting import Phase, noise_for, sampling_of

    if texts:
        also = [flag for flag, value in flag_values.items() if value is not None and flag != "--rows"]
        if also:
            raise UsageError(f"--phase says it all: leave {', '.join(also)} away.")
        return [parse_phase(text) for text in texts]
    rows, batch_size, rate = flag_values["--rows"], flag_values["--batch-size"], flag_values["--sample-rate"]
    if rate is None:
        if rows is None or batch_size is None:
            raise UsageError("Say how rows are drawn: --rows N --batch-size B, or --sample-rate Q.")
        sampling = sampling_of(rows, batch_size)
        rate, per_epoch = sampling.accounted_rate, float(sampling.steps_per_epoch)
    elif batch_size is not None:
        raise UsageError("--sample-rate and --batch-size say the same thing: give one of them.")
    else:
        if not 0.0 < rate <= 1.0:
            raise UsageError(f"--sample-rate must lie above 0 and be at most 1, not {rate:g}.")
        per_epoch = 1.0 / rate
    steps, epochs = flag_values["--steps"], flag_values["--epochs"]
    if (steps is None) == (epochs is None):
        raise UsageError("Say how long it trains: --epochs E or --steps T.")
    if steps is None:
        if not (math.isfinite(epochs) and epochs > 0):
            raise UsageError(f"--epochs must be a positive number, not {epochs:g}.")
        steps = max(math.ceil(epochs * per_epoch - 1e-9), 1)
    noise, epsilon = flag_values["--noise"], flag_values["--epsilon"]
    if (noise is None) == (epsilon is None):
        raise UsageError("Say --noise S to learn the epsilon, or --epsilon E to learn the noise.")
    if noise is None:
        noise = noise_for(epsilon, delta, sample_rate=rate, steps=steps, accountant=accountant)
    return [Phase(noise_multiplier=noise, sample_rate=rate, steps=steps)]


def _accountant(name: str | None) -> Accountant:
    from auditor.privacy.accounting import BOUNDS, has_pld

    if name is None:
        return "pld" if has_pld() else "prv"
    for bound in BOUNDS:
        if name == bound:
            return bound
    raise UsageError(f"--accountant {name!r} must be pld, prv or rdp: GDP is an approximation and chooses no noise.")


def parse_phase(text: str) -> Phase:
    """One phase from NOISE,SAMPLE_RATE,STEPS. Raises UsageError for anything else."""
    from auditor.privacy.accounting import Phase

    try:
        noise, rate, steps = text.split(",")
        return Phase(noise_multiplier=float(noise), sample_rate=float(rate), steps=int(steps))
    except ValueError:
        raise UsageError(f"--phase {text!r} must read NOISE,SAMPLE_RATE,STEPS, such as 1.1,0.01,1000.") from None


def _print_budget(
    phases: list[Phase], delta: float, *, target: float | None, accountant: Accountant, as_json: bool
) -> None:
    from auditor.privacy.accounting import side_by_side

    found = side_by_side(phases, delta)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "delta": delta,
                    "target_epsilon": target,
                    "phases": [dict(vars(phase)) for phase in phases],
                    "accountants": [_budget_as_json(spent) for spent in found],
                },
                indent=2,
            )
        )
        return
    for phase in phases:
        typer.echo(
            f"noise multiplier {phase.noise_multiplier:.4g}, sample rate {phase.sample_rate:.4g}, "
            f"{phase.steps:,} step{'s' * (phase.steps != 1)} ({phase.steps * phase.sample_rate:.4g} epochs)"
        )
    if target is not None:
        typer.echo(f"this noise keeps epsilon {target:g} at delta {delta:.3g} by the {accountant} accountant")
    typer.echo(f"{'accountant':<12}{'epsilon at delta ' + format(delta, '.3g'):<28}what it is")
    for spent in found:
        typer.echo(f"{spent.accountant:<12}{_number(spent.epsilon):<28}{_meaning(spent)}")


def _meaning(account: Spent) -> str:
    return f"{'an upper bound' if account.is_bound else 'NOT a bound'}; {account.note}"


def _number(epsilon: float | None) -> str:
    if epsilon is None:
        return "not known"
    return "infinite" if math.isinf(epsilon) else f"{epsilon:.4g}"


def _budget_as_json(account: Spent) -> dict[str, Any]:
    finite = account.epsilon is not None and math.isfinite(account.epsilon)
    return {
        "accountant": account.accountant,
        "epsilon": account.epsilon if finite else None,
        "infinite": account.epsilon is not None and math.isinf(account.epsilon),
        "is_bound": account.is_bound,
        "note": account.note,
    }


def _draw(phases: list[Phase], delta: float, path: Path) -> None:
    import io

    from matplotlib import style
    from matplotlib.figure import Figure

    from auditor.core.files import write_beside
    from auditor.privacy.accounting import ACCOUNTANTS, epsilon_by_epoch

    dashes = {"rdp": "--", "prv": "-", "pld": "-", "gdp": ":"}
    with style.context(["default", {"svg.hashsalt": "dp-budget", "svg.fonttype": "none"}]):
        drawing = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = drawing.add_subplot()
        drawn = 0
        for name in ACCOUNTANTS:
            series = [(x, y) for x, y in epsilon_by_epoch(phases, delta, name) if math.isfinite(y)]
            label = f"{name.upper()} (approximation)" if name == "gdp" else f"{name.upper()} (upper bound)"
            if series:
                axes.plot([x for x, _ in series], [y for _, y in series], dashes[name], label=label)
                drawn += 1
        if not drawn:
            raise UsageError("Nothing can be drawn: epsilon is infinite or not known at every time of the run.")
        axes.set_xlabel("epochs")
        axes.set_ylabel(f"epsilon at delta {delta:.3g}")
        axes.set_ylim(bottom=0.0)
        axes.legend()
        axes.grid(alpha=0.3)
        out = io.BytesIO()
        kind = path.suffix.lower()[1:]
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        drawing.savefig(out, format=kind, metadata=metadata, dpi=150)
    write_beside(path, out.getvalue())


def dp_lint(
    run: Annotated[Path, typer.Argument(help="A run record (.json, .toml) or a model bundle with training record.")],
    json_: JsonAlone = False,
    debug: Tracebacks = False,
) -> int:
    """Find errors in a private training, of rows or federated, that break its guarantee.

    Exit codes: 0 every check passed and the guarantee is valid, 1 something breaks it, 2 wrong usage, 3 no error was
    found but something was not recorded or cannot be checked from the record, 4 the file was refused.
    """
    from auditor.privacy.federated.federated_linter import lint_any

    if not run.is_file():
        raise UsageError(f"There is no file {str(run)!r}.")
    record = _record(run)
    result = lint_any(record)
    if json_:
        taken = None if record.energy is None else record.energy.model_dump(mode="json")
        typer.echo(json.dumps({**_errors_as_json(result), "energy": taken}, indent=2))
    else:
        _print_errors(result)
        typer.echo(_took(record.energy))
    return 1 if result.breaks else 3 if result.open else 0


def _record(path: Path) -> RunRecord | FederatedRun:
    if path.suffix.lower() in (".json", ".toml"):
        from auditor.privacy.federated.federated_record import read_any_run

        return read_any_run(path)
    from auditor.privacy.dp_record_of_bundle import read_bundle
    from auditor.training.meter import read_energy

    return read_bundle(path).model_copy(update={"energy": read_energy(path)})


def _took(energy: EnergyRecord | None) -> str:
    from auditor.report.record.number_text import visible
    from auditor.report.record.translations import Catalogue

    if energy is None:
        return "took: not recorded"
    return visible(f"took: {energy.describe(Catalogue())}")


def _print_errors(result: LintResult) -> None:
    from auditor.report.record.number_text import visible

    for problem in result.problems:
        mark = "BREAKS" if problem.severity == "breaks" else "harms "
        typer.echo(visible(f"{mark}  {problem.code}: {problem.what}"))
        typer.echo(paragraph(visible(f"why: {problem.why}"), 8))
        typer.echo(paragraph(visible(f"mend: {problem.mend}"), 8))
    for name, fields in result.not_recorded:
        typer.echo(f"unsaid  {name}: {', '.join(fields)} {'is' if len(fields) == 1 else 'are'} not recorded")
    for name, why in result.cannot_tell:
        typer.echo(visible(f"open    {name}: {why}"))
    breaking = sum(problem.severity == "breaks" for problem in result.problems)
    typer.echo(
        f"problems that break the guarantee: {breaking}; that cost accuracy: {len(result.problems) - breaking}; "
        f"checks that found none: {len(result.clean)}; that could not be made: "
        f"{len(result.not_recorded)}; that the record leaves open: {len(result.cannot_tell)}"
    )


def _errors_as_json(result: LintResult) -> dict[str, object]:
    return {
        "breaks": result.breaks,
        "problems": [dict(vars(problem)) for problem in result.problems],
        "clean": list(result.clean),
        "not_recorded": [{"check": name, "fields": list(fields)} for name, fields in result.not_recorded],
        "cannot_tell": [{"check": name, "why": why} for name, why in result.cannot_tell],
    }
