"""Scan options as command flags, declared only in auditor.run.scan_options; imports no NumPy."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from auditor.core.errors import UsageError
from auditor.core.files import UNREADABLE, why_unreadable
from auditor.run.scan_options import flags
from cli.output_guard import Writes


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

# For commands that are no scan.
Tracebacks = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
JsonAlone = Annotated[bool, typer.Option("--json", help="Print only JSON.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]

P = ParamSpec("P")
R = TypeVar("R")


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


def parse_json_flag(text: str | None, flag: str) -> Mapping[str, object] | None:
    """The JSON object in a flag."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except UNREADABLE as error:
        raise UsageError(f"{flag} is no JSON: {why_unreadable(error)}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{flag} must be a JSON object, such as '{{\"hidden\": [64, 32]}}'.")
    return value
