"""Checks of a rule pack: all format errors, and all requirements that no probe can satisfy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from auditor.core.errors import ConfigError, did_you_mean
from auditor.judging.policy import Control, EvidenceRule, Policy, parse_policy

_LINE = re.compile(r", line (\d+): ")
_TABLE = re.compile(r"\s*\[\[")


def faults_of(text: str, where: str, metrics: Mapping[str, Sequence[str]]) -> list[str]:
    """Every error in a pack's text, one sentence each; empty for a valid pack.

    ``metrics``: of every known probe the metrics that it measures, as patterns; empty for one whose metrics are not
    known. A control with a fault is set aside, and the rest is read on.
    """
    faults: list[str] = []
    rest = text
    while True:
        try:
            pack = parse_policy(rest, where)
        except ConfigError as error:
            # Nothing but the faulty controls was left.
            if not (faults and "[[controls]]" not in rest):
                faults.append(str(error))
            shorter = _without_table(rest, str(error))
            if shorter is None:
                return faults
            rest = shorter
            continue
        return [*faults, *_unanswered_in(pack, where, metrics)]


def _without_table(text: str, error: str) -> str | None:
    """The text without the ``[[table]]`` that an error is about, its lines counted as before; None where it is about
    none."""
    found = _LINE.search(error)
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if _TABLE.match(line)]
    at = int(found[1]) - 1 if found else -1
    start = max((i for i in heads if i <= at), default=None)
    if start is None:
        return None
    end = min((i for i in heads if i > start), default=len(lines))
    return "\n".join([*lines[:start], *[""] * (end - start), *lines[end:]])


def _unanswered_in(pack: Policy, where: str, metrics: Mapping[str, Sequence[str]]) -> list[str]:
    """Rules that would be NOT MEASURED for ever, a sentence each, with the nearest probe or metric that there is."""
    rules = ((control, rule) for control in pack.controls for rule in control.evidence)
    kinds = ((control, EvidenceRule(what="", how="", probe=control.only_with)) for control in pack.controls)
    return [fault for control, rule in (*rules, *kinds) for fault in _unanswered(control, rule, where, metrics)]


def _unanswered(
    control: Control, rule: EvidenceRule, where: str, metrics: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    fitting: list[str] = []
    for pattern in rule.probes:
        found = [name for name in metrics if overlap(name, pattern)]
        if not found:
            near = did_you_mean(pattern, metrics) or "."
            yield f"{where}, control {control.id!r}: there is no probe {pattern!r}{near}"
        fitting += found
    known = [name for probe in fitting for name in metrics[probe]]
    # One whose metrics are not known may measure anything.
    if not fitting or any(not metrics[probe] for probe in fitting):
        return
    for pattern in rule.metric.split("|"):
        if not any(overlap(name, pattern) for name in known):
            near = did_you_mean(pattern.replace("*", ""), known) or "."
            yield f"{where}, control {control.id!r}: {rule.probe!r} measures no {pattern!r}{near}"


def overlap(one: str, other: str) -> bool:
    """Whether some name matches both patterns, with ``*`` as wildcard."""
    # reached[j]: whether what was read of the one may have been read as the first j of the other.
    reached = [True, *(other[: j + 1].strip("*") == "" for j in range(len(other)))]
    for letter in one:
        before, reached = reached, [reached[0] and letter == "*"]
        for j, its in enumerate(other):
            star = letter == "*" or its == "*"
            reached.append((before[j + 1] or reached[j]) if star else before[j] and letter == its)
    return reached[-1]
