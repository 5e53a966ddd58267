"""The definition of a metric: formula, range, ideal value, interpretation and source.

A probe states those of its metrics in its class attribute ``metrics``, as text of one entry each, whose further lines
are indented::

    metrics = define_metrics(
        '''
        name, other_name: formula; [low, high], ideal value; how to read a value; source
        '''
    )

Names may hold ``*`` where they are made of others, such as ``accuracy_under_*``. "no ideal" stands where no value is
better than another; without a source it is the probe's own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

NO_IDEAL = "no ideal"
_ENTRY = re.compile(r"([\w*]+(?:, [\w*]+)*): (.+?); ([\[({].*?), ((?:no )?ideal.*?); (.+?)(?:; (.+))?")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """One metric of one probe; ``metric`` may contain ``*`` for the variable part of its names."""

    probe: str
    metric: str
    formula: str
    range: str
    ideal: str
    reading: str
    citation: str

    def fits(self, probe: str, metric: str) -> bool:
        """Whether the definition applies to a probe's metric."""
        return probe == self.probe and (metric == self.metric or fnmatchcase(metric, self.metric))


def definition_of(definitions: Sequence[Definition], probe: str, metric: str) -> Definition | None:
    """The definition of a number: by exact name, else the first matching pattern; None without one."""
    fitting = [each for each in definitions if each.fits(probe, metric)]
    return next((each for each in fitting if each.metric == metric), fitting[0] if fitting else None)


def define_metrics(text: str, *shared: Definition) -> tuple[Definition, ...]:
    """The definitions that a text states, then ``shared`` ones; ValueError for an entry of another form."""
    definitions: list[Definition] = []
    for entry in re.sub(r"\n +", " ", inspect.cleandoc(text)).splitlines():
        parts = _ENTRY.fullmatch(entry)
        if parts is None:
            raise ValueError(
                "Write a definition as 'name: formula; [low, high], ideal value; how to read a value; source', "
                f"not as {entry!r}."
            )
        names, formula, span, ideal, reading, source = parts.groups(default="")
        definitions += [
            Definition(
                probe="",
                metric=metric,
                formula=formula,
                range=span,
                ideal=ideal.removeprefix("ideal "),
                reading=reading,
                citation=source,
            )
            for metric in names.split(", ")
        ]
    return (*definitions, *shared)


def select_definitions(
    probe: str, citation: str, declared: Iterable[Definition], metrics: Iterable[str]
) -> tuple[Definition, ...]:
    """The declared definitions of those metrics, each once, as the probe's; the first of several wins.

    ``citation``: of the probe, for a definition that names no source of its own.
    """
    known = [replace(each, probe=probe, citation=each.citation or citation) for each in declared]
    found = (definition_of(known, probe, metric) for metric in dict.fromkeys(metrics))
    return tuple(dict.fromkeys(each for each in found if each is not None))
