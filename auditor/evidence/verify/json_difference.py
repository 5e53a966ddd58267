"""The first places where two JSON values differ by more than rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Numbers are computed on another machine, perhaps with another version of a library.
RELATIVE = 1e-6


def difference(recorded_value: object, new_value: object, where: str = "") -> str:
    """The first place where two values of JSON differ by more than rounding, in words; "" where none does."""
    first = _first(recorded_value, new_value)
    if first is None:
        return ""
    path, words = first
    return f"{f'{where}{path}'.strip('.') or 'it'} {words}"


def _first(recorded_value: object, new_value: object) -> tuple[str, str] | None:
    """The way to that place, which is spelled only where there is one, and what is said of it."""
    if isinstance(recorded_value, str):
        same = recorded_value == new_value
    elif isinstance(recorded_value, bool) or isinstance(new_value, bool) or recorded_value is None or new_value is None:
        same = recorded_value is new_value
    elif isinstance(recorded_value, (int, float)) and isinstance(new_value, (int, float)):
        same = math.isclose(recorded_value, new_value, rel_tol=RELATIVE, abs_tol=1e-12)
    elif isinstance(recorded_value, Mapping) and isinstance(new_value, Mapping):
        if recorded_value.keys() != new_value.keys():
            return "", "has other keys"
        for key, value in recorded_value.items():
            if (first := _first(value, new_value[key])) is not None:
                return f".{key}{first[0]}", first[1]
        return None
    elif isinstance(recorded_value, (list, tuple)) and isinstance(new_value, (list, tuple)):
        if len(recorded_value) != len(new_value):
            return "", f"has {len(recorded_value)} entries, recomputed {len(new_value)}"
        for i, pair in enumerate(zip(recorded_value, new_value, strict=True)):
            if (first := _first(*pair)) is not None:
                return f"[{i}]{first[0]}", first[1]
        return None
    else:
        same = recorded_value == new_value
    return None if same else ("", f"says {_value_text(recorded_value)}, recomputed {_value_text(new_value)}")


def _value_text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
