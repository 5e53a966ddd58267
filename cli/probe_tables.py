"""The tables of probes and mitigations: those of this toolkit and of other installed distributions."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields

import typer

from auditor.core.errors import AuditorError
from auditor.report.record.number_text import visible
from auditor.run import __version__
from auditor.run.mitigation import Mitigation, experience_of
from auditor.run.plugins import Group, Plugin, installed, load_mitigation, load_probe_class
from auditor.run.probe import Probe
from cli.terminal import paragraph, print_table, width
from mitigations import MITIGATIONS
from probes import PROBES

_OWN = ("responsible-auditor", __version__)
# What a reader of a terminal is told under the name, and the word before it.
_SHOWN = (
    ("methods", "by"), ("needs", "needs"), ("citation", "source"), ("experience", "shown"), ("distribution", "from"),
)  # fmt: skip
# What is said of mitigations only.
_OF_MITIGATIONS = "experience"
_LABEL = 10


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One row of the list; ``error``: the reason why another distribution's entry is unusable, or ""."""

    name: str
    pillar: str = ""
    methods: str = ""
    goal: str = ""
    needs: str = ""
    citation: str = ""
    experience: str = ""
    distribution: str
    version: str
    error: str = ""


def print_probes(*, as_json: bool) -> None:
    """Every probe, a row each."""
    rows = [_probe(kind, *_OWN) for kind in PROBES.values()]
    _print("probe", rows, _listed_plugins("auditor.probes"), as_json=as_json)


def print_mitigations(*, as_json: bool) -> None:
    """Every mitigation, a row each."""
    rows = [_mitigation(kind, *_OWN) for kind in MITIGATIONS.values()]
    _print("mitigation", rows, _listed_plugins("auditor.mitigations"), as_json=as_json)


# ---- the rows ------------------------------------------------------------------------------------------------------


def _probe(kind: type[Probe], distribution: str, version: str) -> Listed:
    return Listed(
        name=kind.name,
        pillar=kind.pillar,
        methods=", ".join(kind.methods),
        goal=kind.goal,
        needs=", ".join(need.what for need in kind.needs),
        citation=kind.citation,
        distribution=distribution,
        version=version,
    )


def _mitigation(kind: type[Mitigation], distribution: str, version: str) -> Listed:
    return Listed(
        name=kind.name,
        pillar=kind.pillar,
        methods=", ".join(kind.methods),
        goal=kind.goal,
        needs=kind.needs,
        citation=kind.citation,
        experience="" if (found := experience_of(kind)) is None else found.describe(),
        distribution=distribution,
        version=version,
    )


def _listed_plugins(group: Group) -> list[Listed]:
    built_in = PROBES if group == "auditor.probes" else MITIGATIONS
    return [_listed_plugin(plugin, group) for plugin in installed(group, built_in)]


def _listed_plugin(plugin: Plugin, group: Group) -> Listed:
    """What another distribution brings: only what says its goal is imported, and one that fails stands with its
    error."""
    error = plugin.refused
    if not error:
        try:
            # What a module prints while it is imported is no part of the list.
            with redirect_stdout(sys.stderr):
                if group == "auditor.probes":
                    return _probe(load_probe_class(plugin.target, plugin.name), plugin.distribution, plugin.version)
                return _mitigation(load_mitigation(plugin.target, plugin.name), plugin.distribution, plugin.version)
        except AuditorError as failed:
            error = str(failed)
    return Listed(name=plugin.name, distribution=plugin.distribution, version=plugin.version, error=error)


# ---- printing ------------------------------------------------------------------------------------------------------


def _print(word: str, built_in: Sequence[Listed], others: Sequence[Listed], *, as_json: bool) -> None:
    columns = [field.name for field in fields(Listed) if word == "mitigation" or field.name != _OF_MITIGATIONS]
    if as_json:
        rows = [{name: value for name, value in asdict(row).items() if name in columns} for row in (*built_in, *others)]
        typer.echo(json.dumps(rows, indent=2))
    elif not sys.stdout.isatty():
        print_table(columns, [[getattr(row, name) for name in columns] for row in (*built_in, *others)])
    else:
        _print_by_pillar(built_in)
        if others:
            flag = "--probes NAME" if word == "probe" else "auditor mitigate NAME"
            typer.secho(f"FROM OTHER DISTRIBUTIONS, used only where they are named ({flag})", bold=True)
            typer.echo()
            for row in others:
                _print_row(row)


def _print_by_pillar(rows: Sequence[Listed]) -> None:
    for pillar in dict.fromkeys(row.pillar for row in rows):
        typer.secho(pillar.upper(), bold=True)
        typer.echo()
        for row in rows:
            if row.pillar == pillar:
                _print_row(row)


def _print_row(row: Listed) -> None:
    typer.secho(f"  {visible(row.name)}", bold=True)
    if row.error:
        typer.echo(paragraph(f"cannot be used: {visible(row.error)}", 4))
    else:
        typer.echo(paragraph(visible(row.goal), 4))
    for name, label in _SHOWN:
        text = getattr(row, name)
        if name == "distribution":
            text = "" if (row.distribution, row.version) == _OWN else f"{text} {row.version}"
        if text:
            typer.echo(_labelled(label, visible(text)))
    typer.echo()


def _labelled(label: str, text: str) -> str:
    first, later = f"    {label:<{_LABEL - 2}}", " " * (_LABEL + 2)
    return textwrap.fill(text, width=width(), initial_indent=first, subsequent_indent=later, break_on_hyphens=False)
