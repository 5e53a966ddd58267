"""The probes: each answers one question about a model.

``PROBES`` is the table of them, :mod:`probes.table`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.table import PROBES

__all__ = ["PROBES"]


def __getattr__(name: str) -> Any:
    # Whoever asks for one probe by its module does not import the others.
    if name != "PROBES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from probes.table import PROBES

    return PROBES
