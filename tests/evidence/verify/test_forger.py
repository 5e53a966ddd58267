"""Somebody who holds the key bends measurements and makes all else follow: what a bundle keeps contradicts them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.remeasure import label
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from cli.verify import FROM_ANSWERS
from tests.evidence.verify.forged import (  # noqa: F401
    audited,
    bent,
    checked,
    code_of_once,
    is_unproven,
    known_intervals,
    wrong,
)
from tests.quantifiers import none_of

_ESTIMATE: TypeAdapter[AnyEstimate] = TypeAdapter(AnyEstimate)
# So many bundles are made of each kind of forgery: each bends every so-manieth measurement of every probe.
_BUNDLES = 6


@dataclass(frozen=True)
class Bent:
    """A measurement as it was, or as it was slipped in; of which probe."""

    probe: str
    measurement: Measurement


def altered(m: Measurement) -> Measurement:
    """The measurement with other statistics: the first of its numbers that can be another, or its reason."""
    if isinstance(m.estimate, Undefined):
        return replace(m, estimate=Undefined(reason="there was nothing to see"))
    said = m.estimate.model_dump(mode="json")
    for keys, number in _numbers(said):
        for other in (number + 1, number - 1, number * 0.9, number + 0.05) if isinstance(number, int) else (
            number * 0.9 or 0.5, number + 0.05, number - 0.05,
        ):  # fmt: skip
            changed = json.loads(json.dumps(said))
            at = changed
            for key in keys[:-1]:
                at = at[key]
            at[keys[-1]] = other
            try:
                estimate = _ESTIMATE.validate_python(changed)
            except ValidationError:
                continue
            return replace(m, estimate=estimate)
    raise AssertionError(f"{m.metric} cannot be altered")


def _numbers(said: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(said, dict | list):
        for key, value in said.items() if isinstance(said, dict) else enumerate(said):
            yield from _numbers(value, (*keys, key))
    elif isinstance(said, int | float) and not isinstance(said, bool):
        yield keys, said


def elsewhere(m: Measurement) -> Measurement:
    """A copy of the measurement at another place."""
    if m.group:
        return replace(m, group={**m.group, next(iter(m.group)): f"not {next(iter(m.group.values()))}"})
    return replace(m, at={**m.at, "copy": "2"})


def forgeries(how: str, results: list[ProbeResult], turn: int) -> tuple[list[ProbeResult], list[Bent]]:
    """Every so-manieth measurement of every probe bent, and which."""
    made, bent_ones = [], []
    for result in results:
        kept: list[Measurement] = []
        for i, m in enumerate(result.measurements):
            if i % _BUNDLES != turn:
                kept.append(m)
                continue
            bent_ones.append(Bent(result.probe, elsewhere(m) if how == "added" else m))
            kept += {"dropped": [], "added": [m, elsewhere(m)], "altered": [altered(m)]}[how]
        made.append(replace(result, measurements=tuple(kept)))
    return made, bent_ones


def named(found: Verified, each: Bent) -> bool:
    """Whether a check that came out wrong names it: by its metric and place, or as the source of a count."""
    m = each.measurement
    of_probe = [c.detail for c in found.checks if c.state == "wrong" and c.name.split(" ")[0] == each.probe]
    shared = [c.detail for c in found.checks if c.state == "wrong" and c.name == "shared numbers"]
    source = f"{each.probe} ({' '.join(filter(None, (m.method, m.metric)))}"
    return any(detail.startswith(label(m)) for detail in of_probe) or any(source in detail for detail in shared)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("how", ["dropped", "added", "altered"])
@pytest.mark.parametrize("redact", [False, True])
@pytest.mark.usefixtures("known_intervals")
def test_every_measurement_that_is_bent_is_named_or_lies_under_what_is_not_proven(
    tmp_path: Path, how: str, redact: bool
) -> None:
    made = audited(include_rows=not redact)
    unseen, seen, open_ones = [], 0, []
    for turn in range(_BUNDLES):
        results, ones = forgeries(how, list(made.results), turn)
        found = checked(bent(made, results), tmp_path / "a.zip", redact=redact)
        assert found.report is not None and found.report.findings
        for each in ones:
            place = f"results.json: {each.probe}[{each.measurement.method} {each.measurement.metric}]"
            if named(found, each):
                seen += 1
            elif is_unproven(found, place):
                open_ones.append(each)
            else:
                unseen.append((each.probe, label(each.measurement), wrong(found)))
    assert not unseen, unseen[:3]
    assert seen + len(open_ones) == sum(len(r.measurements) for r in made.results)
    if not redact:
        assert {each.probe for each in open_ones} == {"out_of_distribution"}, "all others are counted from the rows"
    elif how != "altered":
        # Which numbers there must be follows from the groups, whether their statistics do or not.
        loose = {e.measurement.metric for e in open_ones if e.probe in FROM_ANSWERS}
        assert loose == {"standardized_mean_difference"}
    else:
        assert none_of(e.measurement.method == "selection_rate" or e.probe == "group_fairness" for e in open_ones)
        assert seen > 60
