"""Many worlds graded in one call: a world is a run of consecutive rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from auditor.statistics.estimate import Undefined
from auditor.statistics.values import BoundedMean
from probes.attribution.attribution_units import Units
from probes.attribution.faithfulness import RANDOM, Grades, gain, grade, random_attribution


def worlds_of(grades: Mapping[str, Grades], n: int) -> Iterator[dict[str, Grades]]:
    """The grades of each n rows by themselves."""
    size = len(next(iter(grades.values())).comprehensiveness)
    for start in range(0, size, n):
        rows = slice(start, start + n)
        yield {
            name: Grades(
                comprehensiveness=own.comprehensiveness[rows],
                sufficiency=own.sufficiency[rows],
                deletion_auc=own.deletion_auc[rows],
                insertion_auc=own.insertion_auc[rows],
                why_none=own.why_none,
            )
            for name, own in grades.items()
        }


def random_gains(
    units: Units, methods: Sequence[str], n: int, rng: np.random.Generator
) -> list[dict[str, BoundedMean | Undefined]]:
    """For each world of n rows the gain of each of several random attributions over another one."""
    rows = np.arange(units.n)
    attributions = {m: random_attribution(units, rows, rng) for m in (*methods, RANDOM)}
    return [{m: gain(world, m) for m in methods} for world in worlds_of(grade(units, rows, attributions, rng), n)]
