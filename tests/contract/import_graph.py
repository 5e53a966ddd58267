"""The import graph of the four packages, read from syntax trees; late and typing-only imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOTS = ("auditor", "probes", "mitigations", "cli")
# Example scripts that are copied to a user; they use the public API alone.
EXAMPLES = ("cli", "examples")
# From the bottom up: a package's own modules import from the layers before it and from their own layer.
LAYERS = (
    "core.errors",
    "core.writable_paths",
    "core.files",
    "core.rows",
    "core.randomness",
    "core",
    "statistics",
    "judging",
    "data",
    "models",
    "models.endpoint",
    "models.files",
    "models.networks",
    "report.record",
    "report.drawing",
    "report",
    "report.comparing",
    "loading",
    "loading.rows",
    "loading.exporting",
    "loading.sandbox",
    "detection",
    "privacy",
    "training",
    "run.probe",
    "run.planted",
    "run",
    "run.checks",
    "run.while_training",
    "evidence",
    "evidence.verify",
    "evidence.portfolio",
)
# The public API, the command's entry point and the gate that needs Python alone, which no module may import.
ENTRY_POINTS = ("auditor", "auditor.__main__", "auditor.gate")
PROBES_AND_MITIGATIONS, CLI, ENTRY = (len(LAYERS) + i for i in range(3))


def modules(root: Path) -> dict[str, Path]:
    """Every module of the four packages by its dotted name."""
    found = {}
    for package in ROOTS:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if parts[:2] == EXAMPLES:
                continue
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def statements(source: str) -> Iterator[ast.stmt]:
    """Every statement, those within others too; expressions hold none, and are most of a syntax tree."""
    left: list[Any] = list(ast.parse(source).body)
    while left:
        found = left.pop()
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            left += getattr(found, part, ())
        if isinstance(found, ast.stmt):
            yield found


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the others, wherever in it the import stands."""
    return {name: _imported(file, known) - {name} for name, file in known.items()}


def _imported(file: Path, known: Mapping[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in statements(file.read_text(encoding="utf-8")):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}:{node.lineno}: relative imports are not read")
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            part = []
            while not part or part[-1] != name:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def layer(name: str) -> int:
    """The index of a module's layer: those of auditor, then probes and mitigations, then cli and the entry points."""
    top, *parts = name.split(".")
    if name in ENTRY_POINTS:
        return ENTRY
    if top != "auditor":
        return CLI if top == "cli" else PROBES_AND_MITIGATIONS
    return next(LAYERS.index(at) for n in (2, 1) if (at := ".".join(parts[:n])) in LAYERS)


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports from a higher layer, and those between probes and mitigations."""
    return sorted(
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if layer(other) > layer(name) or {name.split(".")[0], other.split(".")[0]} == {"probes", "mitigations"}
    )
