"""Benchmark of each table mitigation on five real data sets, beside no mitigation, fairlearn and AIF360.

As ``benchmarks/mitigations.py`` measured it and wrote it into ``experience.toml``; ``benchmarks/RESULTS.md`` has the
numbers. CPS is the Current Population Survey of 2004.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from pydantic import TypeAdapter

from auditor.run.mitigation import Experience, Mitigation


@cache
def measured_experience() -> Mapping[str, Experience]:
    """The benchmark results of each mitigation, by its name."""
    text = (files("mitigations") / "experience.toml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Experience]).validate_python(tomllib.loads(text))


class MeasuredExperience:
    """The attribute ``experience`` of a benchmarked mitigation; its file is read on first use."""

    def __get__(self, instance: Mitigation | None, owner: type[Mitigation]) -> Experience | None:
        return measured_experience().get(owner.name)
