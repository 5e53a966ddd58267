"""Which features stand in for a sensitive feature: a screen by association, with a stated error rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import chdtri, chndtrinc

from auditor.statistics import POWER, FloatArray, IntArray, draws_needed

if TYPE_CHECKING:
    import pandas as pd

# Cohen's "medium" effect, nine per cent of the variation shared. Below it a feature says too little of a group to be
# called its proxy, and without a floor a test would call every feature one as soon as there are rows enough.
LEAST_STRENGTH = 0.30
ERROR_RATE = 0.05
N_BINS = 10
MAX_FEATURE_LEVELS = 100
MAX_GROUPS = 20
MAX_ROWS = 10_000
_DRAWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Association:
    """A feature and a sensitive feature; ``strength`` is their bias-corrected Cramer's V, in [0, 1]."""

    feature: str
    sensitive: str
    strength: float
    is_proxy: bool

    def __str__(self) -> str:
        return f"{self.feature} for {self.sensitive} (V = {self.strength:.2f})"


@dataclass(frozen=True)
class Screen:
    """All pairs looked at, strongest first; below ``n_needed`` of the ``n_rows`` rows it may have overlooked proxies."""

    associations: tuple[Association, ...]
    n_rows: int
    n_needed: int
    least_strength: float

    @property
    def proxies(self) -> tuple[Association, ...]:
        """The pairs whose feature is a proxy."""
        return tuple(a for a in self.associations if a.is_proxy)

    @property
    def too_few(self) -> str:
        """Why "no proxy" says nothing, or ""."""
        if self.n_rows >= self.n_needed:
            return ""
        return (
            f"A proxy of strength {self.least_strength:g} is found with {POWER:.0%} power from about {self.n_needed:,} rows "
            f"on, and the data have {self.n_rows:,}."
        )
