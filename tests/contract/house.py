"""The imports of this house, read off its syntax trees: late ones and those for types alone counted like any other."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOTS = ("auditor", "probes", "mitigations", "cli")
# Scripts that are copied to a user, and come in by the door as he does.
EXAMPLES = ("cli", "examples")
# From the ground up: a wing imports from those before it and from itself.
WINGS = (
    "statistics",
    "finding",
    "data",
    "model",
    "endpoint",
    "artifact",
    "networks",
    "record",
    "drawing",
    "report",
    "comparing",
    "intake",
    "reading",
    "exporting",
    "sandbox",
    "detection",
    "privacy",
    "training",
    "run",
    "while_training",
    "evidence",
    "verifying",
    "portfolio",
)
# What every wing stands on, from the ground up, and the two ways in, which nothing may import.
GROUND = ("errors", "outputs", "files", "rows", "randomness")
DOORS = ("auditor", "auditor.__main__")


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


def floor(name: str) -> int:
    """How high a module lies: the ground, the wings of auditor, then probes and mitigations, then cli and the doors."""
    parts = name.split(".")
    if name in DOORS:
        return 200
    if parts[0] == "cli":
        return 102
    if parts[0] in ("probes", "mitigations"):
        return 101
    return GROUND.index(parts[1]) if parts[1] in GROUND else 10 + WINGS.index(parts[1])


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports from a higher floor, and those between probes and mitigations."""
    return sorted(
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if floor(other) > floor(name) or {name.split(".")[0], other.split(".")[0]} == {"probes", "mitigations"}
    )
