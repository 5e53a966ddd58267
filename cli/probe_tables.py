"""The tables of probes and mitigations: those of this toolkit and of other installed distributions."""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from importlib import import_module
from itertools import zip_longest

import typer

from auditor.core.errors import AuditorError, UsageError, did_you_mean
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import NO_IDEAL
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.report.record.number_text import visible
from auditor.run import __version__
from auditor.run.mitigation import Mitigation, experience_of
from auditor.run.plugins import Group, Plugin, installed, load_mitigation, load_probe_class
from auditor.run.probe import Probe, declared_metrics
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
# What else may follow ``auditor probes``.
_COMMANDS = ("examples", "new", "endpoint", "self-test")


# Options that many probes share; a docstring that says more goes before.
SHARED = {
    "answer_by": "``likelihood``, ``letter``, or ``auto``, by likelihood where the model gives any",
    "batch_size": "rows in a step; None means the recipe's",
    "benchmarks": "the benchmark's file or folder, which ``--benchmark NAME=PATH`` gives",
    "chat": "``auto`` uses the chat template of a model that has one, ``on`` requires it, ``off`` is plain text",
    "column": "the column of a table of texts",
    "embedder": "a function or an encoder that returns one vector a row, which ``--embedder`` gives",
    "learning_rate": "None means the recipe's",
    "max_new_tokens": "tokens at most of one continuation",
    "n_queries": "queries at most for each row",
    "n_steps": "steps of the gradient attack",
    "reference": "the earlier model to compare with, which ``--reference`` gives",
    "system": "path of a file that holds the system message",
    "temperature": "of sampling",
    "top_p": "of nucleus sampling: the smallest set of tokens with this probability is sampled from",
}
IN_TEXT = "see the definition in full below"


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


def print_probe(name: str, *, as_json: bool) -> None:
    """One probe with its metrics and options, or a metric, by each probe that measures it.

    Raises UsageError for a name of neither.
    """
    rows: list[tuple[type[Probe], Listed]] = [(kind, _probe(kind, *_OWN)) for kind in PROBES.values()]
    rows += [
        (load_probe_class(plugin.target, plugin.name), _listed_plugin(plugin, "auditor.probes"))
        for plugin in installed("auditor.probes", PROBES)
        if plugin.name == name
    ]
    found = [pair for pair in rows if pair[1].name == name] or [
        pair for pair in rows if any(fnmatchcase(name, each.metric) for each in declared_metrics(pair[0]))
    ]
    if not found:
        metrics = (each.metric for kind, _ in rows for each in declared_metrics(kind))
        near = did_you_mean(name, [*(row.name for _, row in rows), *metrics, *_COMMANDS])
        raise UsageError(f"There is no probe and no metric {name!r}{near or ': auditor probes lists all.'}")
    if as_json:
        typer.echo(json.dumps([_whole(kind, row) for kind, row in found], indent=2))
        return
    for kind, row in found:
        _print_row(row)
        _print_metrics(kind, "*" if row.name == name else name)
        if row.name == name:
            _print_options(kind)


def print_mitigations(name: str | None = None, *, as_json: bool) -> None:
    """Every mitigation, a row each, or one in full. Raises UsageError for a name of none."""
    rows, others = [_mitigation(kind, *_OWN) for kind in MITIGATIONS.values()], _listed_plugins("auditor.mitigations")
    if name is None:
        _print("mitigation", rows, others, as_json=as_json)
        return
    found = [row for row in (*rows, *others) if row.name == name.replace("-", "_")]
    if not found:
        near = did_you_mean(name, [row.name for row in (*rows, *others)])
        raise UsageError(f"There is no mitigation {name!r}{near or ': auditor mitigate list lists all.'}")
    if as_json:
        _print("mitigation", found, [], as_json=True)
        return
    for row in found:
        _print_row(row)


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


# ---- what a class knows of itself -----------------------------------------------------------------------------------


def options(kind: type) -> dict[str, tuple[str, str]]:
    """The options of a class: default, and meaning by ``name: ...`` in its docstrings; "" where they do not have it."""
    parameters = {
        name: p for name, p in inspect.signature(kind).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    meanings: dict[str, str] = {}
    for text in _texts(kind):
        for names, meaning in _entries(text, tuple(parameters)):
            for name in names:
                meanings.setdefault(name, meaning)
    own = inspect.getdoc(kind) or ""
    rest = {name: SHARED.get(name) or (IN_TEXT if name in own else "") for name in parameters}
    return {name: (str(p.default), meanings.get(name) or rest[name]) for name, p in parameters.items()}


def _texts(kind: type) -> list[str]:
    """The docstrings of a class, of its bases, and of what they refer to for further options, and these again."""
    texts = [inspect.cleandoc(base.__doc__) for base in kind.__mro__ if base.__doc__ and base is not object]
    seen: set[str] = set()
    for text in texts:
        for path in re.findall(r":(?:class|func):`~?([\w.]+)`", re.sub(r"\n *", "", text)):
            module, _, name = path.rpartition(".")
            if path not in seen and module:
                seen.add(path)
                found = getattr(import_module(module), name, None) if not name.islower() else None
                texts += [inspect.cleandoc(found.__doc__)] if isinstance(found, type) and found.__doc__ else []
    return texts


def _entries(text: str, names: tuple[str, ...]) -> Iterable[tuple[list[str], str]]:
    """The entries ``name, name: meaning`` of paragraphs, each up to the next one."""
    if not names:
        return
    known = "|".join(map(re.escape, names))
    start = re.compile(rf"(?:^|(?<=[.;:] )|(?<=\) ))((?:{known})(?:, (?:{known}))*): ")
    for part in re.split(r"\n\n", text):
        joined = " ".join(part.split())
        found = list(start.finditer(joined))
        for at, following in zip_longest(found, found[1:]):
            meaning = joined[at.end() : following.start() if following else None]
            yield at[1].split(", "), re.split(r" (?=Raises |Sources?: )", meaning)[0].strip()


def limits(kind: type[Probe]) -> dict[str, str]:
    """What the built-in profile asks of a probe's metrics, by metric."""
    declared = {definition.metric for definition in declared_metrics(kind)}
    told: dict[str, list[str]] = {}
    for each in load_criteria(DEFAULT_PROFILE):
        if each.probe == kind.name or (each.probe is None and each.metric in declared):
            bound = f"{each.direction.replace('_', ' ')} {each.bound}"
            where = ", ".join(f"{key} {value}" for key, value in (each.at or {}).items())
            told.setdefault(each.metric, []).append(f"{bound} (at {where})" if where else bound)
    return {metric: "; ".join(bounds) for metric, bounds in told.items()}


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
        listing = "auditor probes" if word == "probe" else "auditor mitigate list"
        typer.echo(f"One in full: {listing} NAME")
        if others:
            typer.echo()
            flag = "--probes NAME" if word == "probe" else "auditor mitigate NAME"
            typer.secho(f"FROM OTHER DISTRIBUTIONS, used only where they are named ({flag})", bold=True)
            typer.echo()
            for row in others:
                _print_row(row)


def _print_by_pillar(rows: Sequence[Listed]) -> None:
    """Names and what they are for, by pillar."""
    longest = max(len(row.name) for row in rows)
    for pillar in dict.fromkeys(row.pillar for row in rows):
        typer.secho(pillar.upper(), bold=True)
        for row in rows:
            if row.pillar == pillar:
                first, later = f"  {row.name:<{longest}}  ", " " * (longest + 4)
                typer.echo(textwrap.fill(row.goal, width=width(), initial_indent=first, subsequent_indent=later))
        typer.echo()


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


def _whole(kind: type[Probe], row: Listed) -> dict[str, object]:
    bounds = limits(kind)
    return {
        **{name: value for name, value in asdict(row).items() if name != _OF_MITIGATIONS},
        "metrics": [
            {**asdict(each), "probe": row.name, "limit": bounds.get(each.metric, "")} for each in declared_metrics(kind)
        ],
        "options": [
            {"name": name, "default": default, "meaning": plain_text(meaning)}
            for name, (default, meaning) in options(kind).items()
        ],
    }


def _print_metrics(kind: type[Probe], name: str) -> None:
    typer.secho(f"METRICS, with the limits of {DEFAULT_PROFILE}", bold=True)
    typer.echo()
    bounds = limits(kind)
    for each in declared_metrics(kind):
        if name != "*" and not fnmatchcase(name, each.metric):
            continue
        typer.secho(f"  {visible(each.metric)}", bold=True)
        typer.echo(paragraph(visible(each.formula), 4))
        ideal = "" if each.ideal == NO_IDEAL else each.ideal
        limit = bounds.get(each.metric, "none")
        for label, text in (("range", each.range), ("ideal", ideal), ("limit", limit), ("read", each.reading)):
            if text:
                typer.echo(_labelled(label, visible(text)))
        typer.echo()


def _print_options(kind: type[Probe]) -> None:
    found = options(kind)
    if not found:
        return
    typer.secho(f"OPTIONS, by --set {kind.name}.OPTION=VALUE", bold=True)
    typer.echo()
    for name, (default, meaning) in found.items():
        typer.secho(f"  {name} = {default}", bold=True)
        typer.echo(paragraph(visible(plain_text(meaning)), 4))
    typer.echo()


def plain_text(text: str) -> str:
    """A piece of a docstring without markup."""
    if text == IN_TEXT:
        return "see the page of the probe in the documentation"
    return re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"\1", text).replace("``", "")
