"""``auditor dp-lint``: errors that break a private training's guarantee, from its record or model bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError
from cli.flags import JsonAlone, Tracebacks
from cli.terminal import paragraph

if TYPE_CHECKING:
    from auditor.privacy.dp_linter import LintResult
    from auditor.privacy.federated.federated_record import FederatedRun
    from auditor.privacy.run_record import RunRecord
    from auditor.report.record.energy import EnergyRecord


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
        typer.echo(json.dumps({**_as_json(result), "energy": taken}, indent=2))
    else:
        _print(result)
        typer.echo(_took(record.energy))
    return 1 if result.breaks else 3 if result.open else 0


def _record(path: Path) -> RunRecord | FederatedRun:
    if path.suffix.lower() in (".json", ".toml"):
        from auditor.privacy.federated.federated_record import read_any_run

        return read_any_run(path)
    from auditor.run.dp_record_of_bundle import read_bundle
    from auditor.training.cost_file import read_energy

    return read_bundle(path).model_copy(update={"energy": read_energy(path)})


def _took(energy: EnergyRecord | None) -> str:
    from auditor.report.record.number_text import visible
    from auditor.report.record.translations import Catalogue

    if energy is None:
        return "took: not recorded"
    return visible(f"took: {energy.describe(Catalogue())}")


def _print(result: LintResult) -> None:
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


def _as_json(result: LintResult) -> dict[str, object]:
    return {
        "breaks": result.breaks,
        "problems": [dict(vars(problem)) for problem in result.problems],
        "clean": list(result.clean),
        "not_recorded": [{"check": name, "fields": list(fields)} for name, fields in result.not_recorded],
        "cannot_tell": [{"check": name, "why": why} for name, why in result.cannot_tell],
    }
