"""Where two values of JSON differ by more than rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Numbers are computed on another machine, perhaps with another version of a library.
RELATIVE = 1e-6


def difference(said: object, found: object, where: str = "") -> str:
    """The first place where two values of JSON differ by more than rounding, in words; "" where none does."""
    first = _first(said, found)
    if first is None:
        return ""
    path, words = first
    return f"{f'{where}{path}'.strip('.') or 'it'} {words}"


def _first(said: object, found: object) -> tuple[str, str] | None:
    """The way to that place, which is spelled only where there is one, and what is said of it."""
    if isinstance(said, str):
        same = said == found
    elif isinstance(said, bool) or isinstance(found, bool) or said is None or found is None:
        same = said is found
    elif isinstance(said, (int, float)) and isinstance(found, (int, float)):
        same = math.isclose(said, found, rel_tol=RELATIVE, abs_tol=1e-12)
    elif isinstance(said, Mapping) and isinstance(found, Mapping):
        if said.keys() != found.keys():
            return "", "has other keys"
        for key, value in said.items():
            if (first := _first(value, found[key])) is not None:
                return f".{key}{first[0]}", first[1]
        return None
    elif isinstance(said, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(said) != len(found):
            return "", f"has {len(said)} entries, recomputed {len(found)}"
        for i, pair in enumerate(zip(said, found, strict=True)):
            if (first := _first(*pair)) is not None:
                return f"[{i}]{first[0]}", first[1]
        return None
    else:
        same = said == found
    return None if same else ("", f"says {_shown(said)}, recomputed {_shown(found)}")


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
