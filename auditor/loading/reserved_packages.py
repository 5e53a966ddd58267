"""The top-level packages of this tool, protected against user folders with the same names."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import chdir, suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

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
