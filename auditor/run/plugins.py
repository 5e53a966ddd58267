"""Probes and mitigations of other distributions, found by their entry points, without importing them.

A distribution names its own under the group ``auditor.probes`` or ``auditor.mitigations``::

    [project.entry-points."auditor.probes"]
    unsure_share = "unsure_share:UnsureShare"

A name of this toolkit's own table cannot be taken, and one that two distributions claim is nobody's. What another
distribution brings is asked only where it is named, so that a scan never depends on what happens to be installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any, Literal, cast, get_args

from auditor.core.errors import ConfigError, UsageError, did_you_mean, first_line
from auditor.judging.measurement import Pillar
from auditor.loading.import_finders import taken_name
from auditor.run.mitigation import Mitigation, Stage
from auditor.run.probe import Need, Probe

Group = Literal["auditor.probes", "auditor.mitigations"]
_WORD: dict[Group, str] = {"auditor.probes": "probe", "auditor.mitigations": "mitigation"}
# What a class must say of itself, and be able to do, by group.
_TEXTS: dict[Group, tuple[str, ...]] = {
    "auditor.probes": ("name", "goal", "citation"),
    "auditor.mitigations": ("name", "goal", "citation", "needs"),
}
_METHOD: dict[Group, str] = {"auditor.probes": "measure", "auditor.mitigations": "mitigate"}


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin of an installed distribution, before its import.

    ``name``: in snake_case, as ``--probes`` takes it. ``target``: the ``package.module:Class`` it is. ``refused``: why
    it cannot be used under this name, in a sentence, or "".
    """

    name: str
    target: str
    distribution: str
    version: str
    refused: str = ""

    @property
    def source(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"


def installed(group: Group, built_in: Container[str]) -> tuple[Plugin, ...]:
    """Plugins of other distributions, by name; those with a name already in use are marked ``refused``.

    ``built_in``: the names of this toolkit's own table. Only distributions that the measuring process can import count:
    neither the working folder nor PYTHONPATH.
    """
    found: list[Plugin] = []
    seen: set[str] = set()
    for distribution in distributions(path=_isolated_path()):
        name = str(distribution.metadata["Name"])
        # As on an import path, the first of several copies is the one that is there.
        if name.lower() in seen:
            continue
        seen.add(name.lower())
        own = [point for point in distribution.entry_points if point.group == group]
        found += [_plugin(point, name, distribution.version) for point in own]
    found.sort(key=lambda plugin: (plugin.name, plugin.distribution, plugin.target))
    claims = {name: [p for p in found if p.name == name] for name in {p.name for p in found}}
    return tuple(_unless_taken(plugin, group, built_in, claims[plugin.name]) for plugin in found)


def known_probes(built_in: Mapping[str, type[Probe]]) -> dict[str, Plugin]:
    """The probes of other distributions, by name."""
    return _by_name("auditor.probes", built_in)


def known_mitigations(built_in: Mapping[str, type[Mitigation]]) -> dict[str, Plugin]:
    """The mitigations of other distributions, by name."""
    return _by_name("auditor.mitigations", built_in)


def probe_target(name: str, built_in: Mapping[str, type[Probe]], others: Mapping[str, Plugin]) -> str:
    """The ``package.module:Class`` of a probe by name. Raises UsageError for a name that is nobody's or refused."""
    if name in built_in:
        kind = built_in[name]
        return f"{kind.__module__}:{kind.__qualname__}"
    return _usable(name, "probe", built_in, others).target


def mitigation_class(name: str, built_in: Mapping[str, type[Mitigation]]) -> type[Mitigation]:
    """A mitigation by name, imported. Raises UsageError for a name that is nobody's or refused, or what cannot load."""
    if name in built_in:
        return built_in[name]
    plugin = _usable(name, "mitigation", built_in, known_mitigations(built_in))
    return load_mitigation(plugin.target, plugin.name)


def load_probe_class(target: str, name: str | None = None) -> type[Probe]:
    """Import a probe class; ``name``: the required value of its own name.

    Raises UsageError where it cannot be imported, ConfigError where it is no probe.
    """
    return cast(type[Probe], _load("auditor.probes", target, name))


def load_mitigation(target: str, name: str | None = None) -> type[Mitigation]:
    """Import a mitigation class; ``name``: the required value of its own name.

    Raises UsageError where it cannot be imported, ConfigError where it is no mitigation.
    """
    return cast(type[Mitigation], _load("auditor.mitigations", target, name))


# ---- finding -------------------------------------------------------------------------------------------------------


def _isolated_path() -> list[str]:
    """The import path without the working folder and PYTHONPATH, as a process started by ``python -I`` has it."""
    here = Path.cwd().resolve()
    given = {Path(part).resolve() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part}
    return [part for part in sys.path if part and Path(part).resolve() not in {here, *given}]


def _plugin(point: EntryPoint, distribution: str, version: str) -> Plugin:
    name = point.name.strip().replace("-", "_").lower()
    plugin = Plugin(name=name, target=point.value.strip(), distribution=distribution, version=version)
    module, colon, attribute = plugin.target.partition(":")
    if not name.isidentifier():
        return replace(plugin, refused=f"{plugin.source} brings {point.name!r}, which is no name in snake_case.")
    if not (colon and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        return replace(plugin, refused=f"{plugin.source} says that {name} is {point.value!r}: package.module:Class.")
    return plugin


def _unless_taken(plugin: Plugin, group: Group, built_in: Container[str], claims: list[Plugin]) -> Plugin:
    if plugin.refused:
        return plugin
    if plugin.name in built_in:
        said = f"{plugin.source} brings a {_WORD[group]} {plugin.name!r}, which is the name of a built-in one"
        return replace(plugin, refused=f"{said}: it is left out until it is renamed there.")
    if len(claims) > 1:
        sources = dict.fromkeys(claim.source for claim in claims)
        who = " and ".join(sources) if len(sources) > 1 else f"{plugin.source} twice"
        said = f"{who} bring{'' if len(sources) > 1 else 's'} a {_WORD[group]} {plugin.name!r}"
        return replace(plugin, refused=f"{said}: uninstall one, or rename it there.")
    return plugin


def _by_name(group: Group, built_in: Mapping[str, type]) -> dict[str, Plugin]:
    return {plugin.name: plugin for plugin in installed(group, built_in) if plugin.name not in built_in}


def _usable(name: str, word: str, built_in: Mapping[str, type], others: Mapping[str, Plugin]) -> Plugin:
    if name not in others:
        known = [*built_in, *others]
        raise UsageError(f"There is no {word} {name!r}{did_you_mean(name, known) or '.'} Known: {', '.join(known)}.")
    if others[name].refused:
        raise UsageError(others[name].refused)
    return others[name]


# ---- importing -----------------------------------------------------------------------------------------------------


def _load(group: Group, target: str, name: str | None) -> type[Any]:
    word = _WORD[group]
    module, _, attribute = target.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:
        # Somebody else's module may raise anything at all while it is imported, and may even end the program.
        known = isinstance(error, (ImportError, AttributeError))
        why = first_line(error) if known else f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"{word.capitalize()} {target!r} cannot be imported: {why}.{taken_name(module)}") from None
    lacking = _lacking(kind, group)
    if lacking:
        raise ConfigError(f"{target!r} is no {word}: {lacking}.")
    if name is not None and kind.name != name:
        raise ConfigError(f"{target!r} is installed as {name!r} and calls itself {kind.name!r}: give it one name.")
    return cast(type[Any], kind)


def _lacking(kind: object, group: Group) -> str:
    """What a class lacks to be a probe or a mitigation, in words; "" where it lacks nothing."""
    if not isinstance(kind, type):
        return "it is no class"
    method = _METHOD[group]
    if not callable(getattr(kind, method, None)):
        return f"it has no method {method}"
    for attribute in _TEXTS[group]:
        if not isinstance(getattr(kind, attribute, None), str):
            return f"its class attribute {attribute!r} is no text"
    methods = getattr(kind, "methods", None)
    if not isinstance(methods, tuple) or not all(isinstance(m, str) for m in methods):
        return "its class attribute 'methods' is no tuple of texts"
    if getattr(kind, "pillar", None) not in get_args(Pillar):
        return f"its class attribute 'pillar' is none of {', '.join(get_args(Pillar))}"
    if group == "auditor.probes":
        needs = getattr(kind, "needs", None)
        if not isinstance(needs, tuple) or not all(isinstance(need, Need) for need in needs):
            return "its class attribute 'needs' is no tuple of Need"
    elif getattr(kind, "stage", None) not in get_args(Stage):
        return f"its class attribute 'stage' is none of {', '.join(get_args(Stage))}"
    return ""
