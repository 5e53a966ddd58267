"""Which numbers a probe must give of the groups that a bundle encloses: none missing, added, doubled or changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from auditor.evidence.verify.remeasure import _other_structure
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.statistics.rates import Proportion


def measured(metric: str = "gap", **more: Any) -> Measurement:
    return Measurement(metric=metric, estimate=Proportion(successes=1, n=9), n_samples=9, **more)


def result(*measurements: Measurement) -> ProbeResult:
    return ProbeResult(probe="p", pillar="fairness", citation="", measurements=measurements)


TWO = (measured("gap"), measured("rate", group={"sex": "f"}))


def problems(*stored: Measurement, loose: tuple[str, ...] = (), other_code: bool = False) -> list[str]:
    """What is wrong with what is stored, where both numbers are measured anew."""
    return _other_structure(result(*stored), result(*TWO), loose, other_code=other_code)


def test_the_same_numbers_are_right_in_any_order_and_none_at_all_is_for_others_to_say() -> None:
    assert problems(*TWO) == problems(*reversed(TWO)) == problems() == []


@pytest.mark.parametrize("other_code", [False, True])
def test_what_is_missing_or_doubled_is_wrong_by_any_version(other_code: bool) -> None:
    (missing,) = problems(TWO[0], other_code=other_code)
    assert missing.endswith("is missing") and "rate" in missing
    (twice,) = problems(*TWO, TWO[0], other_code=other_code)
    assert twice.endswith("is there twice") and "gap" in twice


def test_what_is_added_is_wrong_but_by_another_version() -> None:
    (added,) = problems(*TWO, measured("more"))
    assert added.endswith("is no number of these groups") and "more" in added
    assert problems(*TWO, measured("more"), other_code=True) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"n_samples": 8}, {"ideal": 0.5}, {"ideal_when_same": "nothing"}, {"chance": 0.5}, {"skill_of": "scores"},
        {"smallest": 3}, {"part": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_a_number_is_about_is_recomputed_too(changed: dict[str, Any]) -> None:
    other = replace(TWO[0], **changed)
    (wrong,) = problems(other, TWO[1])
    assert wrong.endswith("what it is about is not what these groups come to") and "gap" in wrong
    assert problems(other, TWO[1], other_code=True) == []


def test_the_number_itself_and_what_is_loose_do_not_count() -> None:
    assert problems(replace(TWO[0], estimate=Proportion(successes=2, n=9), detail="otherwise"), TWO[1]) == []
    assert problems(replace(TWO[0], n_samples=8), TWO[1], loose=("gap",)) == []
    assert problems(TWO[1], loose=("gap",)) == []
