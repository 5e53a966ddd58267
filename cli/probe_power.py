"""``auditor probes self-test``: what each probe with planted controls sees, and at how many rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.core.errors import UsageError, did_you_mean
from cli.flags import JsonAlone, Tracebacks
from cli.terminal import print_grid, stages

if TYPE_CHECKING:
    from probes.self_test import Power

_COLUMNS = ("probe", "number", "rows", "limit", "planted", "seen", "alarms", "result")


def self_test(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Probes with planted controls; all by default.", show_default=False),
    ] = None,
    rows: Annotated[
        list[int] | None,
        typer.Option(help="Number of rows; may be given several times. 500, 5000 and 50000 by default.", min=100),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the rows and of the planted faults.", min=0)] = 0,
    json_: JsonAlone = False,
    debug: Tracebacks = False,
) -> int:
    """Test the probes on planted faults: which size of fault each one sees at which number of rows.

    Half of the rows are training rows. A fault is planted at the limit plus 1.5 times the smallest effect that these
    rows can show; clean rows have none.

    Exit codes: 0 every probe sees what is planted and does not alarm without it, 1 one does not, 2 wrong usage.
    """
    from probes.self_test import SIZES, TOYS
    from probes.self_test import self_test as measured

    for name in names or ():
        if name not in TOYS:
            near = did_you_mean(name, TOYS) or f": these do: {', '.join(TOYS)}."
            raise UsageError(f"No probe {name!r} has planted controls{near}")
    found: list[Power] = []
    with stages(not json_) as stage:
        for name in names or TOYS:
            stage(name)
            found += measured([name], rows or SIZES, seed)
    if json_:
        typer.echo(json.dumps([_as_json(power) for power in found], indent=2))
    else:
        print_grid(_COLUMNS, [_cells(power) for power in found], ["FAIL" if p.fault else "PASS" for p in found])
        for power in found:
            if power.fault:
                typer.echo(f"{power.probe}: {power.metric} at {power.rows:,} rows: {power.fault}")
    return int(any(power.fault for power in found))


def _cells(power: Power) -> tuple[str, ...]:
    twins = power.twins
    number = f"{power.metric} ({power.of})" if power.of else power.metric
    limit = " to ".join(f"{end:g}" for end in power.limit) if isinstance(power.limit, tuple) else f"{power.limit:g}"
    if not twins.planted:
        return power.probe, number, f"{power.rows:,}", "-" if limit == "nan" else limit, "-", "-", "-", twins.why
    return (
        power.probe,
        number,
        f"{power.rows:,}",
        limit,
        f"{twins.value:.3f}",
        f"{twins.seen} of {twins.planted}",
        f"{twins.alarmed} of {twins.clean}",
        "not seen" if power.fault else "seen",
    )


def _as_json(power: Power) -> dict[str, object]:
    twins = power.twins
    return {
        "probe": power.probe,
        "metric": power.metric,
        "of": power.of,
        "rows": power.rows,
        "limit": power.limit,
        "planted_at": twins.value,
        "rows_of_a_twin": twins.rows or power.rows,
        "seen": twins.seen,
        "planted": twins.planted,
        "alarmed": twins.alarmed,
        "clean": twins.clean,
        "why_none": twins.why,
        "fault": power.fault,
    }
