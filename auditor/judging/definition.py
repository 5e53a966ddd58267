"""The definition of a metric from its probe's docstring: formula, range, ideal, interpretation and source.

A definition is the first paragraph of a list item of a docstring::

    - ``name``, ``other_name``: formula; [low, high], ideal value; how to read a value; source

Names may hold ``*`` where they are made of others, such as ``accuracy_under_*``. "no ideal" stands where no value is
better than another; without a source it is the probe's own. Further paragraphs of the item are remarks, and an item of
another form is no definition.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache

NO_IDEAL = "no ideal"
_NAMES = re.compile(r"((?:``[\w*]+``(?:, | and |: ))+)(.*)")
_RANGE = re.compile(r"([\[({].*?), ((?:no )?ideal.*)")
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


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


def defined(probe: str, citation: str, sources: Iterable[object], metrics: Iterable[str]) -> tuple[Definition, ...]:
    """The definitions of those metrics, each once, from the docstrings of ``sources``; the first source wins.

    ``citation``: of the probe, for a definition that names no source of its own.
    """
    known = [
        replace(each, probe=probe)
        for source in sources
        for each in parse_definitions(inspect.getdoc(source) or "", citation)
    ]
    found = (definition_of(known, probe, metric) for metric in dict.fromkeys(metrics))
    return tuple(dict.fromkeys(each for each in found if each is not None))


@cache
def parse_definitions(docstring: str, citation: str) -> tuple[Definition, ...]:
    """All definitions in a docstring, without the probe's name, in order."""
    found: list[Definition] = []
    for item in _items(docstring):
        named = _NAMES.fullmatch(item)
        formula, where, reading, source = [*(named[2] if named else "").split("; ", 3), "", "", ""][:4]
        span = _RANGE.fullmatch(where)
        if named is None or span is None or not formula or not reading:
            continue
        found += [
            Definition(
                probe="",
                metric=metric,
                formula=_plain(formula),
                range=_plain(span[1]),
                ideal=_plain(span[2].removeprefix("ideal ")),
                reading=_plain(reading),
                citation=_plain(source) or citation,
            )
            for metric in re.findall(r"``([\w*]+)``", named[1])
        ]
    return tuple(found)


def _items(docstring: str) -> Iterator[str]:
    """The first paragraphs of the list items, each on one line."""
    lines = docstring.splitlines()
    for i, line in enumerate(lines):
        if not line.startswith("- ``"):
            continue
        item = [line[2:]]
        for more in lines[i + 1 :]:
            if not more.startswith("  ") or not more.strip():
                break
            item.append(more.strip())
        yield " ".join(item)


def _plain(marked: str) -> str:
    """Text without the marks of reStructuredText."""
    return " ".join(_ROLE.sub(r"\1", marked).replace("``", "").split()).rstrip(".")
