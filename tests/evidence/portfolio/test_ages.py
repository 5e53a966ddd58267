"""Findings by how long they have been open: every age has a column, and what has none has the last."""

from __future__ import annotations

from auditor.evidence.portfolio.portfolio_site import _AGES, _age_band


def test_every_age_falls_into_the_first_band_that_holds_it() -> None:
    limits = [most for most, _ in _AGES]
    assert limits == sorted(limits)
    assert [_age_band(most) for most in limits] == list(range(len(limits)))
    assert [_age_band(most + 1) for most in limits] == list(range(1, len(limits) + 1))
    assert _age_band(0) == 0 and _age_band(10**6) == len(limits)


def test_an_age_that_nobody_knows_has_a_band_of_its_own() -> None:
    assert _age_band(None) == len(_AGES) + 1
