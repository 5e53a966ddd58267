"""``auditor examples``: scripts of self-auditing trainings to start from."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from auditor.core.errors import UsageError, did_you_mean
from auditor.core.files import write_beside
from auditor.core.writable_paths import claim
from cli.flags import Tracebacks
from cli.output_guard import Writes
from cli.terminal import print_table


def examples(
    do: Annotated[
        Literal["copy"] | None, typer.Argument(help="copy, or nothing to list them.", show_default=False)
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Example to copy; all by default.", show_default=False)] = None,
    to: Annotated[
        Path, typer.Option(help="Folder to copy into."), Writes(itself=True, lost="script", only_with="do")
    ] = Path("examples"),
    debug: Tracebacks = False,
) -> None:
    """List the examples of audits during training, or copy them; existing files are never overwritten."""
    sources = _sources()
    scripts = {stem: text for stem, text in sources.items() if "__main__" in text}
    if do is None:
        print_table(("name", "what"), [(stem, _first_line(text)) for stem, text in scripts.items()])
        return
    if name is not None and name not in scripts:
        near = did_you_mean(name, scripts) or f": there are {', '.join(scripts)}."
        raise UsageError(f"There is no example {name!r}{near}")
    wanted = (
        sources if name is None else {stem: sources[stem] for stem in ("__init__", *_required_modules(name, sources))}
    )
    new = {to / f"{stem}.py": text for stem, text in wanted.items() if not _is_there(to / f"{stem}.py", text)}
    for place in new:
        claim(place, str(place), irreplaceable_kind="script")
    for place, text in new.items():
        write_beside(place, text.encode())
        typer.echo(place)
    if name is not None and _is_module(to):
        typer.echo(f"\nRun it from here:  python -m {'.'.join((*to.parts, name))} OUT")


def _sources() -> Mapping[str, str]:
    """Their texts by the names of their modules."""
    found = (file for file in files("cli.examples").iterdir() if file.name.endswith(".py"))
    return {file.name.removesuffix(".py"): file.read_text(encoding="utf-8") for file in sorted(found, key=str)}


def _required_modules(name: str, sources: Mapping[str, str]) -> list[str]:
    """The example, and those modules beside it that it imports."""
    beside = [n.module for n in ast.walk(ast.parse(sources[name])) if isinstance(n, ast.ImportFrom) and n.level == 1]
    return [name, *(module for module in beside if module is not None)]


def _is_there(place: Path, text: str) -> bool:
    return place.is_file() and place.read_bytes() == text.encode()


def _is_module(folder: Path) -> bool:
    return not folder.is_absolute() and all(part.isidentifier() for part in folder.parts)


def _first_line(text: str) -> str:
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
