"""Finders of imports: this tool's own package names protected against user folders, and captum without matplotlib.

Importing matplotlib takes longer than most probes: more than a second, and in a sandbox, where nothing it finds can
be kept, a search of the machine's fonts each time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir, suppress
from functools import partial
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from auditor.core.errors import UsageError

# Where auditor itself lies: the other three lie beside it, in a checkout as in site-packages.
ROOT = Path(__file__).resolve().parents[2]
NAMES = ("probes", "mitigations", "cli")


class _BesideAuditor:
    """Finds these packages beside ``auditor`` and nowhere else; all other names are for the finders after it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(ROOT)], target) if name in NAMES and path is None else None


def claim_own_packages() -> None:
    """Make all later imports of these names refer to this tool, in its own processes: command and child.

    Raises UsageError where another package of such a name is imported already.
    """
    for name in NAMES:
        _refuse_foreign(name)
    if _BesideAuditor not in sys.meta_path:
        sys.meta_path.insert(0, _BesideAuditor)


def pass_over_settings() -> None:
    """Ignore a ``matplotlibrc`` in the current folder, which matplotlib reads only at import."""
    if os.path.lexists("matplotlibrc"):
        with suppress(ImportError), chdir(ROOT):
            import_module("matplotlib")


def own_package(name: str) -> ModuleType:
    """This tool's own package of a name, in any process; the import path is restored afterwards.

    Raises UsageError where another package of that name is imported already.
    """
    _refuse_foreign(name)
    if name in sys.modules:
        return sys.modules[name]
    sys.meta_path.insert(0, _BesideAuditor)
    try:
        return import_module(name)
    finally:
        sys.meta_path.remove(_BesideAuditor)


def taken_name(module: str) -> str:
    """A sentence for a module not found because its package has this tool's name; "" for any other."""
    name = module.partition(".")[0]
    return f" The package name {name!r} is auditor's own: put yours under another name." if name in NAMES else ""


def _refuse_foreign(name: str) -> None:
    present = sys.modules.get(name)
    if present is None or any(Path(folder).resolve() == ROOT / name for folder in getattr(present, "__path__", ())):
        return
    where = getattr(present, "__file__", None) or next(iter(getattr(present, "__path__", ())), "elsewhere")
    raise UsageError(
        f"Another package {name!r} is imported already, from {str(where)!r}, and auditor has one of that name: rename "
        "yours, or import auditor's first."
    )


# The modules of captum 0.8 and 0.9 that import matplotlib as they are imported; both hold what is called, and no base.
DRAWING = ("captum.attr._core.llm_attr", "captum.attr._utils.visualization")


class _Postponed(Loader):
    """A module each of whose names is a function that imports the real one when it is called."""

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module with nothing: it is asked for its names one by one."""
        module.__getattr__ = partial(_called_for, module.__name__)  # type: ignore[method-assign]


class _DrawingOfCaptum:
    """Finds the modules that draw, and no other."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, _Postponed()) if name in DRAWING else None


def without_drawing() -> None:
    """Make later imports of captum skip its plotting dependencies, in a process of this tool."""
    if _DrawingOfCaptum not in sys.meta_path:
        sys.meta_path.insert(0, _DrawingOfCaptum)


def _called_for(module: str, name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def call(*args: Any, **kwargs: Any) -> Any:
        _let_draw()
        return getattr(import_module(module), name)(*args, **kwargs)

    return call


def _let_draw() -> None:
    if _DrawingOfCaptum in sys.meta_path:
        sys.meta_path.remove(_DrawingOfCaptum)
    for module in DRAWING:
        if isinstance(getattr(sys.modules.get(module), "__loader__", None), _Postponed):
            del sys.modules[module]
