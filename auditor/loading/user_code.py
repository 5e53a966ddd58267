"""User code, imported only because a flag names it."""

from __future__ import annotations

import importlib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Protocol, TypeVar

from auditor.core.errors import UsageError, did_you_mean
from auditor.loading.import_finders import taken_name
from auditor.models.files.model_bytes import printable

R = TypeVar("R")
RAN_APART = "Its code ran in a process of its own, which gets rows and no labels, groups or training rows."


_MOST_REPORTED = 1_000


def reported(where: str, message: str) -> str:
    """An error's message as a quotation: code that ran in the process that it comes from may have written it."""
    return f"{where}: the process of this code reports: {message.removeprefix(f'{where}: ')[:_MOST_REPORTED]}"


class CodeProcess(Protocol):
    """Another process, in which code is imported, called and loaded instead of in this one."""

    def ask(self, operation: str, *arguments: Any) -> Any:
        """The answer to one question."""
        ...

    def function(self, target: str, code_folder: str | None, flag: str) -> ElsewhereFunction:
        """What :func:`import_object` returns of these arguments."""
        ...

    def processor_time(self) -> float:
        """Seconds that it has worked so far."""
        ...


_CODE_PROCESS: ContextVar[CodeProcess | None] = ContextVar("code_process", default=None)


@contextmanager
def code_runs_in(process: CodeProcess) -> Iterator[None]:
    """Context in which code of the user's runs in another process."""
    token = _CODE_PROCESS.set(process)
    try:
        yield
    finally:
        _CODE_PROCESS.reset(token)


def code_process() -> CodeProcess | None:
    """The process in which code of the user's runs, if it is another than this one."""
    return _CODE_PROCESS.get()


def import_object(target: str, code_folder: str | None, flag: str) -> Callable[..., Any]:
    """The callable at ``package.module:name``, from installed packages or from ``code_folder``.

    The folder comes last on the import path, so that a file beside the model cannot take the place of a library.
    Raises UsageError where it cannot be imported, is not callable, or an installed module of the same name hides it.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(f"{flag} {printable(target)!r} must read package.module:name.")
    if (process := code_process()) is not None:
        return process.function(target, code_folder, flag)
    if code_folder is not None and code_folder not in sys.path:
        sys.path.append(code_folder)
    importlib.invalidate_caches()
    try:
        with started_in(code_folder):
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = (
            f" in {code_folder!r} or among the installed packages" if code_folder else " among the installed packages"
        )
        raise UsageError(
            f"{flag} {target}: there is no module {error.name!r}{where}.{taken_name(module_name)}"
        ) from None
    except Exception as error:  # the user's module runs as it is imported, and may raise anything
        hint = " Name what it reads as MODEL." if isinstance(error, PermissionError) else ""
        raise UsageError(
            f"{flag} {target}: importing it raised {type(error).__name__}: {printable(error)}.{hint}"
        ) from error
    _require_own(module_name, getattr(module, "__file__", None), code_folder, flag)
    found = getattr(module, name, None)
    if found is None:
        raise UsageError(f"{flag} {target}: the module has no {name!r}{did_you_mean(name, vars(module))}.")
    if not callable(found):
        raise UsageError(f"{flag} {target}: it is a {type(found).__name__}, and a class or function was expected.")
    return found  # type: ignore[no-any-return]


def started_in(code_folder: str | None) -> AbstractContextManager[None]:
    """Context with the command's start folder as working folder, so that user code finds its files."""
    return nullcontext() if code_folder is None else chdir(code_folder)


def called_in(code_folder: str | None, function: Callable[[Any], R]) -> Callable[[Any], R]:
    """The user's function of one argument, called in the command's start folder."""

    def call(argument: Any) -> R:
        with started_in(code_folder):
            return function(argument)

    return call


def _require_own(module_name: str, file: str | None, code_folder: str | None, flag: str) -> None:
    if code_folder is None:
        return
    base = Path(code_folder).resolve().joinpath(*module_name.split("."))
    own = [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    if own and (file is None or Path(file).resolve() != own[0].resolve()):
        raise UsageError(f"{flag} {module_name}: an installed module of that name hides {own[0].name!r}: rename yours.")


def keywords_of(factory: Callable[..., Any], hints: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for the user's factory: the given ones, and the accepted ones of the file's own hints."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # a callable written in C tells nothing of its parameters
        return dict(arguments)
    return {k: v for k, v in hints.items() if k in parameters} | dict(arguments)


class ElsewhereFunction(ABC):
    """A function of the user's in another process; ``file``: the one that its name leads to, if it is a Python file."""

    file: Path | None

    @abstractmethod
    def __call__(self, argument: Any) -> Any: ...


def module_file(module_name: str, code_folder: str | None) -> Path | None:
    """The source file of a module, found without importing anything: installed packages come before ``code_folder``."""
    path: Sequence[str] | None = [*sys.path, *([] if code_folder is None else [code_folder])]
    name, origin = "", None
    for part in module_name.split("."):
        name = f"{name}.{part}".lstrip(".")
        found = PathFinder.find_spec(name, path)
        if found is None:
            return None
        path, origin = found.submodule_search_locations, found.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def source_file(function: Callable[..., Any]) -> Path | None:
    """The source file of a function, a class or an instance's class, if it exists."""
    if isinstance(function, ElsewhereFunction):
        return function.file
    for candidate in (function, type(function)):
        try:
            found = inspect.getsourcefile(candidate)
        except TypeError:  # built into the interpreter, or an instance
            continue
        if found is not None and Path(found).is_file():
            return Path(found)
    return None
