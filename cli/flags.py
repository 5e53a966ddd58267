"""Scan options as command flags, declared only in auditor.run.scan_options, and output paths; imports no NumPy."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, get_args

import typer

from auditor.core.errors import UsageError
from auditor.core.files import UNREADABLE, readable, why_unreadable
from auditor.core.writable_paths import claim, of_a_command, reads
from auditor.run.scan_options import flags

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


OF_A_FOLDER = Reads(within=RECORD)


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
        with of_a_command(force=force), _names_in_utf8():
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


@contextmanager
def _names_in_utf8() -> Iterator[None]:
    """Context in which a name that no record can hold is a UsageError."""
    try:
        yield
    except UnicodeEncodeError as error:
        name = readable(str(error.object)[max(0, error.start - 30) : error.end + 30])
        raise UsageError(f"A path or a name is not in UTF-8: rename it ({name!r}).") from None


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


def scan_option(name: str, words: str | None = None, **more: Any) -> Any:
    """An option of a scan as Typer's, for a command that means the same by it.

    ``words``: its help, where the command means something narrower. ``more``: of Typer's, such as a range.
    """
    flag = flags()[name]
    # Typer makes --no-x of a truth value unless it is told the one spelling there is.
    spelled = flag.spelled or f"--{name.replace('_', '-')}"
    return typer.Option(spelled, help=flag.help if words is None else words, **more)


# For commands that take few flags of a scan's.
Address = Annotated[str | None, scan_option("address")]
AllowUnsandboxed = Annotated[bool, scan_option("allow_unsandboxed")]
ArchitectureArgs = Annotated[str | None, scan_option("architecture_args")]
BundleTo = Annotated[Path | None, scan_option("bundle"), Writes()]
Debug = Annotated[bool, scan_option("debug")]
Device = Annotated[str, scan_option("device")]
MaxMemory = Annotated[str | None, scan_option("max_memory")]
Positive = Annotated[str | None, scan_option("positive")]
Quiet = Annotated[bool, scan_option("quiet")]
SignWith = Annotated[Path | None, scan_option("sign")]
TimestampBy = Annotated[str | None, scan_option("timestamp")]

# Of a scan's own command.
Publish = Annotated[
    list[str] | None,
    typer.Option(help="Publish the report: dir:FOLDER, mlflow[:EXPERIMENT], wandb[:PROJECT] or hf:REPOSITORY."),
]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="Print the settings in force with their sources; run nothing.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the calls and tokens that a scan of a server takes; call nothing.")
]
PriceIn = Annotated[float | None, typer.Option(min=0.0, help="Price of a million tokens sent, for --dry-run.")]
PriceOut = Annotated[float | None, typer.Option(min=0.0, help="Price of a million tokens of answers, for --dry-run.")]

# For commands that are no scan.
Tracebacks = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
JsonAlone = Annotated[bool, typer.Option("--json", help="Print only JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


def with_flags(
    names: Sequence[str], helps: Mapping[str, str] | None = None
) -> Callable[[Callable[Concatenate[dict[str, object], P], R]], Callable[P, R]]:
    """Decorator that adds these options as flags; the command gets their typed values in one mapping.

    ``helps``: what a flag says of itself where this command means something narrower by it. A command's own parameter
    of an option's name takes that option's place among its flags.
    """
    known = flags()

    def parameter(name: str) -> inspect.Parameter:
        flag = known[name]
        typed = bool if flag.typed is bool else flag.typed | None
        marks = (Writes(itself=flag.writes == "folder"),) if flag.writes else ()
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[typed, scan_option(name, (helps or {}).get(name)), *marks],
            default=False if flag.typed is bool else None,
        )

    def decorate(function: Callable[Concatenate[dict[str, object], P], R]) -> Callable[P, R]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        mine = {each.name for each in own}
        taken = [name for name in names if name not in mine]

        @wraps(function)
        def command(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = {name: kwargs.pop(name) for name in taken}
            return function(given, *args, **kwargs)

        needed = [each for each in own if each.default is inspect.Parameter.empty]
        parameters = [*needed, *map(parameter, taken), *(each for each in own if each not in needed)]
        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        del command.__wrapped__
        return command

    return decorate


def parse_architecture_args(text: object) -> Mapping[str, object] | None:
    """The JSON object in ``--architecture-args``."""
    if text is None:
        return None
    try:
        value = json.loads(str(text))
    except UNREADABLE as error:
        raise UsageError(f"--architecture-args is no JSON: {why_unreadable(error)}.") from None
    if not isinstance(value, dict):
        raise UsageError("--architecture-args must be a JSON object, such as '{\"hidden\": [64, 32]}'.")
    return value
