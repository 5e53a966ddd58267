"""What follows from a judgement for another: every condition of it, and every field that it changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from auditor.judging.criterion import Criterion, Direction
from auditor.judging.judgement import Judgement, apply_implications
from auditor.judging.measurement import Measurement, Outcome
from auditor.statistics.estimate import Estimate
from auditor.statistics.groups import WorstDifference, WorstRatio
from auditor.statistics.means import WorstMeanDifference
from auditor.statistics.rates import RateTable

COARSE = RateTable(rate="r", successes=(300, 400), n=(1000, 1000))
FINE = RateTable(rate="r", successes=(150, 150, 200, 200), n=(500, 500, 500, 500))


def requirement(direction: Direction = "at_most", bound: Any = 0.1) -> Criterion:
    return Criterion(metric="m", direction=direction, bound=bound, source="-", set_by="-", set_at="-")


def gap(
    table: RateTable, sensitive: tuple[str, ...], outcome: Outcome, *, kind: Callable[..., Estimate] = WorstDifference,
    criterion: Criterion | None = None, metric: str = "gap", **more: Any,
) -> Judgement:  # fmt: skip
    """A judgement of the largest gap in a table."""
    measured = Measurement(
        metric=metric,
        estimate=kind(tables=(table,)),
        n_samples=2000,
        method="between_groups",
        sensitive=sensitive,  # type: ignore[arg-type]
    )
    own: dict[str, Any] = {
        "id": "/".join(sensitive), "probe": "p", "pillar": "fairness", "citation": "", "outcome": outcome,
        "measurement": measured, "criterion": criterion or requirement(), "interval": (0.05, 0.2), "budget": "fairness",
        "p_fail_adjusted": 0.2, "p_pass_adjusted": 0.6, "minimum_detectable_effect": 0.3, "n_required": 9000,
        "alone": Outcome.FAIL, "said_alone": "alone", "reason": "open",
    }  # fmt: skip
    return Judgement(**(own | more))


def wide(outcome: Outcome, **more: Any) -> Judgement:
    """The gap over the intersection of two features."""
    return gap(FINE, ("s", "t"), outcome, **more)


def narrow(outcome: Outcome, **more: Any) -> Judgement:
    """The gap over one of them."""
    return gap(COARSE, ("s",), outcome, **more)


OPEN = Outcome.INCONCLUSIVE


def test_a_gap_within_its_bound_puts_the_narrower_one_within_it() -> None:
    passed = wide(Outcome.PASS, interval=(0.0, 0.09), p_fail_adjusted=0.9, p_pass_adjusted=0.01)
    kept, follows = apply_implications([passed, narrow(OPEN)])
    assert kept is passed
    assert follows == replace(
        narrow(OPEN), outcome=Outcome.PASS, interval=(0.05, 0.09), p_pass_adjusted=0.01, alone=None, said_alone="",
        minimum_detectable_effect=None, n_required=None, follows=True,
        reason="It can be no further from the ideal than gap by s x t, which is a PASS.",
    )  # fmt: skip


def test_a_gap_beyond_its_bound_puts_the_wider_one_beyond_it() -> None:
    failed = narrow(Outcome.FAIL, interval=(0.12, 0.4), p_fail_adjusted=0.01, p_pass_adjusted=1.0)
    follows, kept = apply_implications([wide(OPEN), failed])
    assert kept is failed
    assert follows == replace(
        wide(OPEN), outcome=Outcome.FAIL, interval=(0.12, 0.2), p_fail_adjusted=0.01, alone=None, said_alone="",
        minimum_detectable_effect=None, n_required=None, follows=True,
        reason="It can be no nearer to the ideal than gap by s, which is a FAIL.",
    )  # fmt: skip


def test_of_ratios_the_other_end_follows() -> None:
    required = {"criterion": requirement("at_least", 0.8), "kind": WorstRatio}
    passed = wide(Outcome.PASS, interval=(0.85, 1.0), **required)
    failed = narrow(Outcome.FAIL, interval=(0.1, 0.15), **required)
    assert apply_implications([passed, narrow(OPEN, **required)])[1].interval == (0.85, 0.2)
    assert apply_implications([wide(OPEN, **required), failed])[0].interval == (0.05, 0.15)


def test_a_gap_over_several_rates_bounds_that_over_one_of_them() -> None:
    other = RateTable(rate="q", successes=(1, 2), n=(9, 9))
    both = narrow(Outcome.PASS)
    assert both.measurement is not None
    both = replace(both, measurement=replace(both.measurement, estimate=WorstDifference(tables=(other, COARSE))))
    assert apply_implications([both, narrow(OPEN)])[1].outcome is Outcome.PASS
    # And none that it does not hold.
    third = gap(RateTable(rate="z", successes=(3, 4), n=(9, 9)), ("s",), OPEN)
    assert apply_implications([both, third])[1] is third


@pytest.mark.parametrize("looser", [0.11, 0.5])
def test_a_looser_bound_that_is_kept_proves_nothing_of_a_stricter_one(looser: float) -> None:
    passed, failed = (
        make(o, criterion=requirement(bound=looser)) for make, o in ((wide, Outcome.PASS), (narrow, OPEN))
    )
    assert apply_implications([passed, narrow(OPEN)])[1].outcome is OPEN
    assert apply_implications([wide(Outcome.PASS), failed])[1].outcome is Outcome.PASS
    ratios: dict[str, Any] = {"kind": WorstRatio}
    strict, loose = requirement("at_least", 0.8), requirement("at_least", 0.7)
    assert (
        apply_implications([wide(Outcome.PASS, criterion=loose, **ratios), narrow(OPEN, criterion=strict, **ratios)])[
            1
        ].outcome
        is OPEN
    )
    assert (
        apply_implications([wide(Outcome.PASS, criterion=strict, **ratios), narrow(OPEN, criterion=loose, **ratios)])[
            1
        ].outcome
        is Outcome.PASS
    )


def changed(judgement: Judgement, **fields: Any) -> Judgement:
    """A judgement of a measurement with other fields."""
    assert judgement.measurement is not None
    return replace(judgement, measurement=replace(judgement.measurement, **fields))


@pytest.mark.parametrize(
    "other",
    [
        replace(narrow(OPEN), budget="stricter"),
        replace(narrow(OPEN), probe="q"),
        changed(narrow(OPEN), at={"class": "2"}),
        changed(narrow(OPEN), method="after"),
        changed(narrow(OPEN), too_few="two rows"),
        changed(narrow(OPEN), estimate=WorstRatio(tables=(COARSE,))),
        changed(narrow(OPEN), estimate=WorstMeanDifference(tables=(COARSE,))),
        changed(narrow(OPEN), sensitive=("u",)),
        changed(narrow(OPEN), sensitive=("s", "t")),
        changed(narrow(OPEN), estimate=WorstDifference(tables=(COARSE.model_copy(update={"rate": "q"}),))),
        changed(
            narrow(OPEN), estimate=WorstDifference(tables=(RateTable(rate="r", successes=(1, 2), n=(1000, 1000)),))
        ),
        changed(
            narrow(OPEN), estimate=WorstDifference(tables=(RateTable(rate="r", successes=(300, 400), n=(900, 900)),))
        ),
        replace(narrow(OPEN), criterion=requirement("at_least", 0.5)),
        changed(narrow(OPEN), estimate=WorstDifference(tables=(COARSE, RateTable(rate="q", successes=(3,), n=(9,))))),
        replace(narrow(OPEN), criterion=requirement("within", (0.0, 0.1))),
        replace(narrow(OPEN), criterion=None),
        narrow(Outcome.FAIL),
        narrow(Outcome.NOT_JUDGED),
    ],
    ids=lambda judgement: "",
)
def test_nothing_follows_where_a_condition_is_not_met(other: Judgement) -> None:
    passed = wide(Outcome.PASS)
    assert apply_implications([passed, other])[1] is other
    assert apply_implications([other, passed])[0] is other


def test_nothing_follows_for_a_requirement_of_two_ends() -> None:
    within = {"criterion": requirement("within", (0.0, 0.1))}
    both = [wide(Outcome.PASS, **within), narrow(OPEN, **within)]
    assert apply_implications(both) == both


def test_what_is_open_settles_nothing_and_a_gap_says_nothing_of_itself() -> None:
    for outcome in (OPEN, Outcome.NOT_JUDGED, Outcome.NOT_RUN):
        both = [wide(outcome), narrow(OPEN)]
        assert apply_implications(both) == both
    # A narrower one that passes, or a wider one that fails, leaves the other open.
    for both in ([wide(OPEN), narrow(Outcome.PASS)], [wide(Outcome.FAIL), narrow(OPEN)]):
        assert apply_implications(both) == both


def test_the_first_that_settles_it_is_named_and_others_are_passed_over() -> None:
    nothing = Judgement(id="n", probe="p", pillar="fairness", citation="", outcome=Outcome.NOT_RUN)
    of_means = gap(FINE, ("s", "t"), Outcome.PASS, kind=WorstMeanDifference)
    first, second = (wide(Outcome.PASS, metric=name) for name in ("one", "two"))
    found = apply_implications([nothing, of_means, narrow(OPEN), first, second])
    assert [j.outcome for j in found] == [Outcome.NOT_RUN, *(3 * [Outcome.PASS]), Outcome.PASS]
    assert found[2].reason.startswith("It can be no further from the ideal than one by s x t")
