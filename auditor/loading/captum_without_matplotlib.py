"""captum without matplotlib, which captum imports for plots that the sandboxed process never makes.

That import takes longer than most probes: more than a second, and in a sandbox, where nothing it finds can be kept, a
search of the machine's fonts each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

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
