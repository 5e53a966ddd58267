"""The tables of probes and mitigations."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer

from cli.output import print_table
from mitigations import MITIGATIONS
from probes import PROBES

_COLUMNS = ("name", "pillar", "methods", "goal", "needs", "citation")


def print_probes(*, as_json: bool) -> None:
    """Every probe, a row each."""
    rows = [
        (
            name,
            kind.pillar,
            ", ".join(kind.methods),
            kind.goal,
            ", ".join(need.what for need in kind.needs),
            kind.citation,
        )
        for name, kind in PROBES.items()
    ]
    _print(rows, as_json=as_json)


def print_mitigations(*, as_json: bool) -> None:
    """Every mitigation, a row each."""
    rows = [
        (name, kind.pillar, ", ".join(kind.methods), kind.goal, kind.needs, kind.citation)
        for name, kind in MITIGATIONS.items()
    ]
    _print(rows, as_json=as_json)
    if not rows:
        typer.echo("No mitigation is in the table yet; `auditor train --dp-epsilon E` trains by DP-SGD.", err=True)


def _print(rows: Sequence[tuple[str, ...]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([dict(zip(_COLUMNS, row, strict=True)) for row in rows], indent=2))
    else:
        print_table(_COLUMNS, rows)
