"""Where two values of JSON differ by more than rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Numbers are computed on another machine, perhaps with another version of a library.
RELATIVE = 1e-6


def difference(said: object, found: object, where: str = "") -> str:
    """The first place where two values of JSON differ by more than rounding, in words; "" where none does."""
    if isinstance(said, bool) or isinstance(found, bool) or said is None or found is None:
        same = said is found
    elif isinstance(said, (int, float)) and isinstance(found, (int, float)):
        same = math.isclose(said, found, rel_tol=RELATIVE, abs_tol=1e-12)
    elif isinstance(said, Mapping) and isinstance(found, Mapping):
        if said.keys() != found.keys():
            return f"{where or 'it'} has other keys"
        return next((d for key in said if (d := difference(said[key], found[key], f"{where}.{key}".strip(".")))), "")
    elif isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(said) != len(found):
            return f"{where or 'it'} has {len(said)} entries, recomputed {len(found)}"
        pairs = enumerate(zip(said, found, strict=True))
        return next((d for i, (a, b) in pairs if (d := difference(a, b, f"{where}[{i}]"))), "")
    else:
        same = said == found
    return "" if same else f"{where or 'it'} says {_shown(said)}, recomputed {_shown(found)}"


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
