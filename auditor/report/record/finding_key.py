"""The identity of a finding's question, which matches findings of different audits despite different ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

from auditor.judging.criterion import CriterionRecord

# Probe, method, metric, and what it is of: groups, places and the features whose groups are compared.
Key = tuple[str, str | None, str, tuple[tuple[str, str | float], ...]]
# The features whose groups are compared stand under a name that a column may have too, and so do the coordinates of
# what is measured by group: a group's column of such a name is spelled so that nobody takes it for one of them.
_BY = "by"
COORDINATES = frozenset(
    "average category class decision generator rate slice strata threshold thresholds to unseen".split()
)


class Asking(Protocol):
    """The fields of a finding that define its question."""

    @property
    def probe(self) -> str: ...
    @property
    def method(self) -> str | None: ...
    @property
    def metric(self) -> str | None: ...
    @property
    def group(self) -> Mapping[str, str]: ...
    @property
    def sensitive(self) -> tuple[str, ...]: ...
    @property
    def at(self) -> Mapping[str, str | float]: ...
    @property
    def criterion(self) -> CriterionRecord | None: ...


def key_of(finding: Asking) -> Key:
    """The question of a finding; if it was not measured, that of its criterion."""
    of: list[tuple[str, str | float]] = [(_column(name), value) for name, value in finding.group.items()]
    of += finding.at.items()
    if finding.sensitive:
        of.append((_BY, _together(finding.sensitive)))
    required = "" if finding.criterion is None else finding.criterion.metric
    return finding.probe, finding.method, finding.metric or required, tuple(sorted(of, key=lambda pair: pair[0]))


def _column(name: str) -> str:
    return _spelled(["group", name]) if name == _BY or name in COORDINATES or name.startswith("[") else name


def _together(features: Sequence[str]) -> str:
    """``sex x race``; as JSON where a name could be taken for two."""
    plain = not any(name.startswith("[") or "x" in name.split(" ") for name in features)
    return " x ".join(features) if plain else _spelled(list(features))


def _spelled(names: list[str]) -> str:
    return json.dumps(names, ensure_ascii=False)


def _parse_names(text: str) -> list[str]:
    """The names that a text spells in a key; itself where it spells none."""
    try:
        names = json.loads(text) if text.startswith('["') else None
    except (ValueError, RecursionError):
        names = None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else [text]


def key_text(key: Key) -> str:
    """The question of a key, on one line: ``selection_rate (sex=female)``."""
    probe, method, metric, of = key
    where = [
        f"{_parse_names(k)[-1]}={v:g}"
        if isinstance(v, float)
        else f"{_parse_names(k)[-1]}={' x '.join(_parse_names(v))}"
        for k, v in of
    ]
    if method not in (None, "between_groups", "paired"):
        where.append(str(method))
    return f"{metric or probe} ({', '.join(where)})" if where else metric or probe
