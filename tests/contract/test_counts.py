"""One meaning of n: the rows of the file, or of the group, that a number is about; over all probes' toys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import pytest

from auditor.judging.measurement import Measurement
from auditor.run.probe import Need
from auditor.run.run_audit import ask, generator_for
from probes import PROBES
from tests.quantifiers import all_of
from tests.toys.models import TOYS

# What they ask a model about are not the rows given: sentences or words of this tool, or the rows of a training.
OWN_ROWS = frozenset({"dp_claim"})
OWN_METHODS = frozenset({("counterfactual_token_fairness", "templates")})
KEYS = [key for key in TOYS if Need.DATA in PROBES[key].needs and key not in OWN_ROWS]
# One that explains a model, again and again.
PARAMETERS = [pytest.param(k, marks=[pytest.mark.slow(quick=True)] if k == "feature_attribution" else []) for k in KEYS]


@cache
def measured(key: str) -> tuple[Measurement, ...]:
    """What a probe finds of its ideal toy."""
    toys = TOYS[key]
    probe = PROBES[key](**toys.options, **({} if toys.scorer is None else {"scorer": toys.scorer()}))
    return tuple(ask(probe, toys.ideal(), toys.data(), generator_for(0, probe.name)).measurements)


def of_the_rows(key: str) -> list[Measurement]:
    """Those of the measurements that are about the rows given."""
    return [m for m in measured(key) if (key, m.method) not in OWN_METHODS]


@pytest.mark.parametrize("key", PARAMETERS)
def test_no_number_is_about_more_rows_than_there_are(key: str) -> None:
    n_rows = len(TOYS[key].data())
    assert measured(key)
    assert [(m.metric, m.n_samples) for m in of_the_rows(key) if m.n_samples > n_rows] == []


@pytest.mark.parametrize("key", PARAMETERS)
def test_numbers_that_compare_the_same_groups_are_about_the_same_rows(key: str) -> None:
    """All toys' rows have labels and groups, and what is sampled is sampled once for all such numbers of a method."""
    sizes = defaultdict(set)
    for m in of_the_rows(key):
        if m.sensitive:
            sizes[m.method, m.sensitive].add(m.n_samples)
    assert {where: n for where, n in sizes.items() if len(n) > 1} == {}


@pytest.mark.parametrize("key", PARAMETERS)
def test_the_groups_rows_are_the_rows_together(key: str) -> None:
    """What is said of each group is about its rows, and the groups share out all rows between them."""
    found = of_the_rows(key)
    whole = {(m.method, m.sensitive): m.n_samples for m in found if m.sensitive}
    of_groups: dict[tuple[str, str, tuple[str, ...]], list[int]] = defaultdict(list)
    for m in found:
        if m.group and not m.at:
            of_groups[m.metric, m.method, tuple(m.group)].append(m.n_samples)
    n_groups: dict[tuple[str, tuple[str, ...]], int] = defaultdict(int)
    for (_, method, features), n in of_groups.items():
        n_groups[method, features] = max(n_groups[method, features], len(n))
    unlike = {
        of: n
        for of, n in of_groups.items()
        if (of[1], of[2]) in whole and len(n) == n_groups[of[1], of[2]] and sum(n) != whole[of[1], of[2]]
    }  # fmt: skip
    assert unlike == {}


def test_the_laws_are_about_something() -> None:
    def compared(found: Sequence[Measurement]) -> bool:
        return any(m.sensitive for m in found) and any(m.group for m in found)

    assert all_of(compared(of_the_rows(key)) for key in ("group_fairness", "regression_fairness", "change"))
    assert len(KEYS) > 15
