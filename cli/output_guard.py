"""Protection of input files: each command declares its written parameters; all others are read-only.

What a parameter names and is a file is an input, and no command writes over its inputs. A parameter that is written to
says so by :class:`Writes` among its annotations, and brings the command ``--force``.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args

import typer

from auditor.core.writable_paths import claim, of_a_command, reads

P = ParamSpec("P")
R = TypeVar("R")

# The one file that is read of the folder of an audit.
RECORD = "report.json"
FORCE = typer.Option("--force", help="Overwrite existing files that auditor did not write.")


@dataclass(frozen=True, kw_only=True)
class Writes:
    """Marks a parameter as an output path: a file, which is claimed before the command starts.

    ``itself``: the command claims what it writes there, such as the files of a folder. ``own``, ``lost``: as of
    :func:`auditor.core.writable_paths.claim`. ``only_with``: the parameter without which nothing is written.
    """

    itself: bool = False
    own: bool = True
    lost: str = ""
    only_with: str = ""


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Marks a parameter that may be a folder of which only one file, ``within``, is read."""

    within: str


def guarded(function: Callable[P, R]) -> Callable[P, R]:
    """A command that runs under the path rules of :mod:`auditor.core.writable_paths`; with ``--force`` if it writes.

    Files are claimed before the function begins.
    """
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    written = _marked(parameters, Writes)
    within = {name: mark.within for name, mark in _marked(parameters, Reads).items()}

    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        values: dict[str, Any] = dict(kwargs)
        force = bool(values.pop("force", False)) if written else False
        with of_a_command(force=force):
            for name, value in values.items():
                if name in within and value is not None:
                    reads(Path(value) / within[name] if os.path.isdir(value) else value)
                elif name not in written:
                    reads(*files_named(value))
            for name, mark in written.items():
                idle = bool(mark.only_with) and values.get(mark.only_with) is None
                if not (mark.itself or idle or values.get(name) is None):
                    flag = f"--{name.replace('_', '-')}"
                    claim(values[name], flag, replaceable=mark.own, irreplaceable_kind=mark.lost)
            return function(*args, **values)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    if any(not mark.lost for mark in written.values()):
        parameters.append(
            inspect.Parameter("force", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[bool, FORCE], default=False)
        )
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def written_by(function: Callable[..., object]) -> dict[str, Writes]:
    """The parameters of a command that are written to."""
    return _marked(inspect.signature(function, eval_str=True).parameters.values(), Writes)


M = TypeVar("M")


def _marked(parameters: Iterable[inspect.Parameter], kind: type[M]) -> dict[str, M]:
    marks = ((each.name, mark) for each in parameters for mark in get_args(each.annotation))
    return {name: mark for name, mark in marks if isinstance(mark, kind)}


def files_named(value: object) -> Iterator[Path]:
    """Files and folders in a parameter's value: itself, after ``option=`` or ``name:``, or in a list."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from files_named(each)
    elif isinstance(value, (str, Path)):
        text = str(value)
        for part in dict.fromkeys((text, text.partition("=")[2], text.partition(":")[2], *text.split(","))):
            if part.strip() and "\0" not in part and os.path.exists(part):
                yield Path(part)
