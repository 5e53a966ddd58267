"""Labels for the grades of attribution methods, and colour strengths of words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from auditor.judging.figure_content import ColouredText, Standing

STANDINGS: dict[Standing, str] = {
    "shown": "shown",
    "reserved": "shown, with reservations",
    "forced": "shown by request, unearned",
    "refused": "refused",
    "ranked": "ranked behind",
    "compared": "for comparison",
    "not_applicable": "not applicable",
}
# Below a twentieth of the largest value a word is not coloured at all.
_FAINT = 0.05


def scale_of(texts: Sequence[ColouredText]) -> float:
    """The value of the strongest colour, which all texts of a figure share; 0 where nothing has a value."""
    return max((t.largest for t in texts), default=0.0)


def strength(value: float | None, scale: float) -> int:
    """Colour strength of a word: 1 to 4 for, -1 to -4 against, 0 if negligible or unknown."""
    if value is None or not scale or abs(value) < _FAINT * scale:
        return 0
    level = min(4, max(1, math.ceil(4.0 * abs(value) / scale)))
    return level if value > 0.0 else -level
